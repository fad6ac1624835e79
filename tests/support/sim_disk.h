/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sim_disk: a struct io over memory: a disk on which the power can be cut.
 *
 * Purpose: what programs see is one thing, what the disk holds another. A write reaches the disk with the sync of its file, sector by
 *   sector before that, as chance has it; a name with the sync of its directory. sim_disk_crash() gives a disk as the next start could find
 *   it. Any call can be made to fail, to block, or to be the last; a trace tells the order of calls.
 * Model: a file is a row of sectors of 512 bytes. Each write leaves a version of each sector that it touches, with all that stands in
 *   it then, as the page cache has it. After a power cut a sector is one of its versions since the last sync, or what was there then. A
 *   file's length, and the names of a directory (create, rename, unlink), come out in the same way. A sync covers what was written before it
 *   was called, not what others write while it runs. A failed sync forgets: the versions since the last one never reach the disk, though
 *   reads still show them (as Linux does). A directory is durable as soon as it is made; that it was renamed or removed is so with the sync of
 *   the one that holds it. Paths are taken as they are written.
 * Threads: any. Ownership: files and handles belong to the disk. Results that are strings are the caller's (mem_free).
 */
#ifndef TESTS_SUPPORT_SIM_DISK_H
#define TESTS_SUPPORT_SIM_DISK_H

#include "server/base/io.h"

struct sim_disk;

enum { SIM_SECTOR_LEN = 512 };

struct sim_disk *sim_disk_create(void); /* empty, but for the directories "." and "/" */
void sim_disk_destroy(struct sim_disk *d);
const struct io *sim_disk_io(const struct sim_disk *d);

/* What of the unsynced changes survives. */
enum sim_cut {
    SIM_CUT_NOTHING,  /* none of them */
    SIM_CUT_ALL,      /* all */
    SIM_CUT_RANDOM,   /* each by itself, or not; how many is drawn too */
    SIM_CUT_IN_ORDER, /* those before a moment; the write at that moment is torn */
    SIM_CUT_REORDER,  /* those behind a moment, but not those before it: holes */
    SIM_CUT_COUNT
};

/* The disk as it is after a power cut now: a new one, with nothing unsynced. The old one goes on: many cuts of one moment can be looked
 * at. The same seed gives the same disk. */
struct sim_disk *sim_disk_crash(struct sim_disk *d, enum sim_cut cut, uint64_t seed);
/* Unsynced changes: sectors, lengths and names. */
uint64_t sim_disk_unsynced(struct sim_disk *d);

enum sim_call {
    SIM_OPEN,
    SIM_CREATE,
    SIM_READ,
    SIM_WRITE,
    SIM_ALLOCATE,
    SIM_TRUNCATE,
    SIM_SYNC,
    SIM_SIZE,
    SIM_RENAME,
    SIM_LINK,
    SIM_UNLINK,
    SIM_MKDIR,
    SIM_RMDIR,
    SIM_SYNC_DIR,
    SIM_LIST,
    SIM_MAP,
    SIM_CALL_COUNT
};

/* The n-th call of the kind from now on (1 = the next) and the 'times' - 1 after it fail with errno 'err'. A failed sync forgets
 * the data. n = 0: none fails. */
void sim_disk_fail(struct sim_disk *d, enum sim_call kind, uint64_t n, uint64_t times, int err);
/* The disk is full when its files have this length together; UINT64_MAX = never. A write that doesn't fit is done in part. */
void sim_disk_set_capacity(struct sim_disk *d, uint64_t len);
uint64_t sim_disk_used(struct sim_disk *d);
/* The n-th call that changes anything (write, allocate, truncate, sync, create, rename, link, unlink, rmdir, sync_dir) is the last one that does;
 * everything behind it fails with EIO. The last write is done, not synced. 0 = off. */
void sim_disk_stop_after(struct sim_disk *d, uint64_t n);
/* Calls that changed anything, so far. */
uint64_t sim_disk_changes(struct sim_disk *d);
uint64_t sim_disk_calls(struct sim_disk *d, enum sim_call kind);

/* Called at the begin of each call, without a lock: it may block. 'path' as it was given to open. NULL = none. */
typedef void (*sim_hook_fn)(void *arg, enum sim_call kind, const char *path);
void sim_disk_set_hook(struct sim_disk *d, sim_hook_fn hook, void *arg);

/* Calls that change anything, since the last time, one a line, with the last part of each path, and the error if there was one:
 *     create a
 *     allocate a 65536
 *     write a 4096+160
 *     sync a -> EIO
 *     rename a b
 *     rename b other/b
 *     sync_dir data */
char *sim_disk_take_trace(struct sim_disk *d);

/* For tests: the content of a file, durable at once. */
void sim_disk_put(struct sim_disk *d, const char *path, const void *ptr, size_t len);
/* The files of a real directory, in one that is made; durable at once. */
void sim_disk_put_dir(struct sim_disk *d, const char *from, const char *to);
/* A medium error: these bytes can't be read any more, by read_at nor in a map. */
void sim_disk_lose(struct sim_disk *d, const char *path, uint64_t at, uint64_t len);
/* Flips bits of a byte, on the disk and for readers. False: there is no such byte. */
bool sim_disk_flip(struct sim_disk *d, const char *path, uint64_t at, uint8_t bits);

#endif
