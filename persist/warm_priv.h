/* SPDX-License-Identifier: BSD-3-Clause */
/* warm_priv: what the scan of a data directory, the states of ranges and the loading of one share. */
#ifndef DC_PERSIST_WARM_PRIV_H
#define DC_PERSIST_WARM_PRIV_H

#include <pthread.h>

#include "persist/effect_queue.h"
#include "persist/warm.h"
#include "server/base/lock.h"
#include "server/base/thread.h"
#include "server/store/load.h"

/* --- the scan (data_scan.c, data_attempt.c, data_cut.c) ------------------------------------------------------------- */

enum { DATA_PATH_MAX = 4096 };

/* A snapshot and the log behind it: everything up to 'end', by range. */
struct image {
    struct snap *snap;   /* NULL = the log is all there is */
    uint64_t window_end; /* E; effects up to there may be in the snapshot already */
    uint64_t end;
    struct effect_queue queue;
    bool exists;
};
void image_fini(struct image *image);

/* "dir/name". Errors: DC_EIO when it is too long. */
DC_MUST enum dc_err data_path(const char *dir, const char *name, char to[DATA_PATH_MAX]);
/* One more sentence. */
void plan_note(struct data_plan *plan, const char *fmt, ...) DC_PRINTF(2, 3);

/* Everything up to exactly 'lsn' by a snapshot that ends before it; for a range whose block is damaged. Errors: DC_ECORRUPT, DC_EIO. */
DC_MUST enum dc_err data_scan_older(const struct warm_opts *opts, uint64_t lsn, uint32_t range_bits,
                                    struct image *out);

/* Takes what a crash has left behind the last good frame out of the log, into a side file. */
DC_MUST enum dc_err data_cut(const struct warm_opts *opts, const struct log_dir *dir,
                             const struct log_end_info *end, struct data_plan *plan);
/* From an open file to a new one, durable; one that is there is replaced. Errors: DC_EIO. */
DC_MUST enum dc_err data_copy(const struct io *io, struct io_file *from, uint64_t at, uint64_t len,
                              const char *path);
/* A name for a side file that nobody has: '<stem>.bad', '<stem>-1.bad' ... Errors: DC_EIO. */
DC_MUST enum dc_err data_side_name(const struct warm_opts *opts, const char *stem,
                                   char name[SEGMENT_NAME_MAX]);
/* Cuts the log at exactly 'lsn', an end of a frame of it, and puts what lies behind, snapshots too, into side files. Errors: DC_EIO; it can be
 * done again then. */
DC_MUST enum dc_err data_rewind(const struct warm_opts *opts, uint64_t lsn, struct data_plan *plan);
/* Files that were being written when the node died. */
DC_MUST enum dc_err data_remove_leftovers(const struct warm_opts *opts, struct data_plan *plan);
/* What was found up to the end of the log may be in the kernel's memory only (after a kill): it is shown and built upon now, so it has to
 * stay. Errors: DC_EIO. */
DC_MUST enum dc_err data_make_durable(const struct warm_opts *opts, const struct log_dir *dir,
                                      uint64_t end_lsn);

/* --- ranges (warm.c) --------------------------------------------------------------------------------- */

enum range_state {
    RANGE_COLD,
    RANGE_LOADING,
    RANGE_WARM,
    RANGE_FAILED /* for ever */
};

struct range {
    _Atomic uint32_t state; /* changes under warm.lock */
    bool requested;         /* under warm.lock: in the list of those that come first */
    char *trouble;          /* FAILED: why; constant then */
    uint64_t cost;          /* constant after init: bytes to be read */
};

/* What one thread needs to load a range. */
struct kit {
    struct kit *next;
    struct store *scratch;
    struct store_thread scratch_thread, thread; /* the latter of the real store */
    struct mut scratch_mut, mut;
    struct snap_block *block;
    struct load_run run;
    int64_t now_ms;              /* of the real store's clock of accesses */
    int32_t ages[UINT8_MAX + 1]; /* what the snapshot's codes mean now; -1 = not asked for yet */
    struct metric_slot metrics;  /* nobody counts these */
};

struct warm {
    /* constant after init */
    struct warm_opts opts;
    char *dir;
    uint8_t node_id[NODE_ID_LEN]; /* opts points here */
    struct image image;
    uint32_t range_bits, range_count;
    struct range *ranges;
    uint64_t entries_expected, effects_expected;
    uint64_t bytes_expected; /* of memory, generously */
    uint64_t cost_total;
    int64_t began_us;
    struct store *store;
    void (*done)(void *arg);
    void *done_arg;
    uint32_t loader_count;
    struct thread *loaders;
    /* set before the start, or between commands */
    warm_evict_fn evict;
    void *evict_arg;
    _Atomic uint64_t limit;
    _Atomic uint32_t policy; /* enum evict_policy */
    /* atomic, relaxed: each orders itself by the slot locks */
    _Atomic uint32_t dropped; /* a bit for each keyspace that was flushed since */
    _Atomic uint64_t entries_loaded, entries_left_out, effects_applied;
    _Atomic uint64_t cost_left;     /* of ranges that aren't loaded */
    _Atomic uint64_t scratch_bytes; /* of the kits' stores: allocated, but hardly used */
    _Atomic int64_t took_us;        /* 0 = not yet */
    _Atomic uint32_t not_warm;      /* COLD, LOADING or FAILED ranges */
    /* under lock */
    struct lock lock;
    pthread_cond_t changed; /* a range has another state, or the loaders are to stop */
    uint32_t waiters;
    _Atomic uint32_t unfinished; /* COLD or LOADING ranges; written under the lock */
    uint32_t cursor; /* ranges below aren't COLD but for those that failed for lack of memory */
    uint32_t *requested;
    uint32_t requested_first, requested_count;
    uint32_t loaders_running;
    bool stop;
    struct kit *kits;
    /* under rebuild_lock */
    struct lock rebuild_lock;
    struct image older; /* the way round a damaged block */
    bool older_tried;
};

/* warm.c */
struct kit *kit_take(struct warm *w); /* NULL when there is no memory */
void kit_give(struct warm *w, struct kit *kit);

/* warm_load.c: puts the range together and moves it into the store. Errors: DC_ECORRUPT, DC_EIO, DC_ENOMEM; then nothing of it is in the store. */
DC_MUST enum dc_err range_load(struct warm *w, struct kit *kit, uint32_t range);

/* The older snapshot with its log up to E, scanned once: the way round a damaged block. Errors: DC_ECORRUPT, DC_EIO. */
DC_MUST enum dc_err image_older(struct warm *w, struct image **out);

/* warm_system.c: the system keyspace, and what its entries say of the databases. Errors as above. */
DC_MUST enum dc_err system_load(struct warm *w);

struct warm *warm_create(const struct warm_opts *opts, struct image *take);

#endif
