/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * snap_writer: walks the store while commands run and writes a snapshot file.
 *
 * Purpose: S = what is written of the log, and shown by the store, at the start; threads take ranges, walk their slots (a slot's lock for a few dozen entries at a time), encode,
 *   compress and write blocks; E = head at the end; the log from S to E is copied behind the blocks; index, footer, sync, rename, sync of
 *   the directory. Meanwhile its name is snap-<S>-<history id>.tmp.
 * Invariants: I1 no slot lock is held while anything is compressed, written or waited for. I2 the file has its final name only when it is
 *   complete, durable, and the log is durable up to E. I3 a failed or stopped snapshot leaves no file and the older ones as they were.
 * Threads: snap_write() blocks its caller (the snapshotter thread); progress may be read by anybody.
 */
#ifndef DC_PERSIST_SNAP_WRITER_H
#define DC_PERSIST_SNAP_WRITER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "persist/log.h"
#include "persist/snap_fmt.h"
#include "server/store/store.h"

enum {
    SNAP_LEVEL = 1,
    SNAP_BLOCK_LEN = 128 * 1024,
    SNAP_BLOCK_LEN_MAX = 16 * 1024 * 1024,
    SNAP_THREADS_MAX = 64
};

struct snap_progress { /* relaxed atomics, for INFO */
    _Atomic uint64_t entries_done;
    _Atomic uint64_t entries_expected;
    _Atomic uint64_t plain_bytes;
    _Atomic uint64_t stored_bytes;
    _Atomic int64_t began_ms;
    _Atomic uint32_t ranges_done, ranges;
};

/* How it goes on, if it does as so far. */
struct snap_outlook {
    uint64_t keys_per_s;
    uint64_t eta_s; /* 0 = it is about to end, or nobody can tell */
};
struct snap_outlook snap_outlook(uint64_t done, uint64_t expected, int64_t took_ms);

struct snap_write_opts {
    const struct io *io;
    const char *dir;
    struct store *store;
    struct log *
        log; /* NULL (tools that build a file): S = E = 'lsn', no tail, the caller keeps writers away */
    uint64_t lsn;
    const uint8_t *node_id;
    const uint8_t *seed;
    const struct history *chain; /* without a log; the last one is current */
    uint32_t chain_count;
    int level;          /* zstd; 0 = SNAP_LEVEL */
    uint32_t block_len; /* plain bytes aimed at; 0 = SNAP_BLOCK_LEN */
    uint32_t threads;   /* 0 = one */
    int64_t stall_ms;   /* no progress for so long: given up (0 = never) */
    int64_t tell_ms;    /* how far it is is told in the log of messages so often (0 = never) */
    int64_t now_ms;
    const _Atomic bool *stop;       /* NULL = nobody stops it */
    struct snap_progress *progress; /* NULL = nobody looks */
};

struct snap_written {
    char name[SNAP_NAME_MAX];
    uint64_t start_lsn, end_lsn;
    uint64_t history; /* to which both belong */
    uint64_t entries, plain_bytes, file_len, tail_len;
    int64_t took_ms;
};

/* Errors: DC_EIO (what failed and where), DC_ESTOPPED (also when a history of the log begins meanwhile), DC_ENOMEM, DC_ECORRUPT (the log holds damaged frames). */
DC_MUST enum dc_err snap_write(const struct snap_write_opts *opts, struct snap_written *out);

#endif
