/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sim_disk_priv: what sim_disk.c (the disk) and sim_disk_io.c (its calls) share.
 *
 * A file has two contents: 'now' is what programs see, 'safe' what the disk surely holds. Between them stands the list of changes, oldest
 * first, with one counter over the whole disk. Names work in the same way, with one list for all directories.
 *
 * File structs live as long as the disk: handles and changes point to them.
 */
#ifndef TESTS_SUPPORT_SIM_DISK_PRIV_H
#define TESTS_SUPPORT_SIM_DISK_PRIV_H

#include "server/base/buf.h"
#include "tests/support/sim_disk.h"

#include <pthread.h>

/* Bytes; those from buf.len to len are zeros that nobody has written. */
struct sim_content {
    struct buf bytes;
    uint64_t len;
};

/* A version of a sector, or (sector = SIM_LENGTH) of the length. */
struct sim_change {
    uint64_t seq;
    uint64_t sector;
    uint64_t len;
    char bytes[SIM_SECTOR_LEN];
};
#define SIM_LENGTH UINT64_MAX

struct sim_file {
    struct sim_content now;
    struct sim_content safe;
    struct sim_change *changes;
    size_t count;
    size_t cap;
    uint64_t lost_from, lost_end; /* can't be read */
    struct sim_file *next;
    struct sim_file *twin; /* on the disk that a crash is making */
};

struct sim_name {
    char *path;
    struct sim_file *file;
};

struct sim_names {
    struct sim_name *list; /* of files */
    size_t count;
    char **dirs;
    size_t dir_count;
};

/* A name that came or went; of a rename both. */
struct sim_name_change {
    uint64_t seq;
    struct sim_file *file; /* NULL: of a directory, with all that is in it */
    char *gone;            /* or NULL */
    char *came;            /* or NULL */
};

struct sim_handle {
    struct sim_file *file;
    char *path;
    bool used;
};

struct sim_map {
    const char *ptr;
    uint64_t len;
    struct sim_file *file;
};

struct sim_fault {
    uint64_t wait; /* calls until the first that fails; 0 = off */
    uint64_t times;
    int err;
};

struct sim_disk {
    struct io io;
    pthread_mutex_t mutex;
    struct sim_file *files;
    struct sim_names now;
    struct sim_names safe;
    struct sim_name_change *changes;
    size_t change_count;
    struct sim_handle *handles;
    size_t handle_count;
    struct sim_map *maps;
    size_t map_count;
    uint64_t seq;
    uint64_t capacity;
    uint64_t stop_after;
    uint64_t done; /* calls that changed anything */
    uint64_t calls[SIM_CALL_COUNT];
    struct sim_fault faults[SIM_CALL_COUNT];
    sim_hook_fn hook;
    void *hook_arg;
    struct buf trace;
};

/* The lock is held in all of these. */
size_t sim_content_read(const struct sim_content *c, uint64_t at, void *to, size_t len);
struct sim_file *sim_file_create(struct sim_disk *d);
void sim_file_set_len(struct sim_disk *d, struct sim_file *f, uint64_t len);
void sim_file_write(struct sim_disk *d, struct sim_file *f, uint64_t at, const void *ptr,
                    size_t len);
/* Changes up to 'seq' reach the disk, or are forgotten. */
void sim_file_settle(struct sim_file *f, uint64_t seq, bool forget);
struct sim_name *sim_names_find(const struct sim_names *n, const char *path);
void sim_names_change(struct sim_disk *d, struct sim_file *f, const char *gone, const char *came);
bool sim_is_in_dir(const char *path, const char *dir); /* an entry of the directory */
bool sim_dir_exists(const struct sim_disk *d, const char *path);
bool sim_parent_exists(const struct sim_disk *d, const char *path);
void sim_add_dir(struct sim_disk *d, const char *path);
void sim_settle_dir(struct sim_disk *d, const char *dir, uint64_t seq);
uint64_t sim_used(const struct sim_disk *d);

extern const struct io sim_io;

#endif
