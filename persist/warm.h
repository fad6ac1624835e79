/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * warm: opening a data directory, and loading it while commands run.
 *
 * Purpose: data_scan() finds the newest snapshot that is whole and the log behind it, checks every frame of it and queues each effect at
 *   its range; then clients can be served. A range is COLD, LOADING or WARM; a command runs only on WARM ones. Loading is the range's
 *   blocks, then its queued effects in order, through store_apply().
 * Invariants:
 *   I1 WARM never ends. I2 no slot lock is held while a range is read or unpacked; entries go in a few dozen per lock hold, before anybody
 *      may look at the range. I3 an effect is applied only if it is newer than the entry it finds (the image may hold it already); past E
 *      a PATCH that doesn't find its 'prev' is damage. I4 a range that can't be loaded answers DC_ECORRUPT, never a miss.
 *   I5 expiry plays no part in loading: what has expired is applied to as if it hadn't (the reader decides later).
 * Threads: warm_touch() any, without slot locks; loaders are threads of its own.
 */
#ifndef DC_PERSIST_WARM_H
#define DC_PERSIST_WARM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "persist/log_reader.h"
#include "persist/replay.h"
#include "persist/snap_reader.h"
#include "server/store/store.h"

enum { CHAIN_MAX = SNAP_HISTORIES_MAX };

/* What was found in a data directory, and what is to be done with it. */
struct data_plan {
    bool empty;  /* nothing there: a new node */
    bool unkept; /* there were files of a log that nothing joins: before them none was kept */
    bool clean;  /* the log ends with CLOSE */
    uint8_t node_id[NODE_ID_LEN];
    uint8_t seed[SEED_LEN];
    struct history chain[CHAIN_MAX];
    uint32_t chain_count;
    uint64_t end_lsn;     /* end of the last good frame (or E) */
    int64_t last_time_ms; /* the latest time in the log or the snapshot */
    int64_t
        clock_ms; /* the latest time that the node is known to have shown: floor of the node clock */
    char snapshot[SEGMENT_NAME_MAX]; /* "" = none */
    uint64_t snapshot_start, snapshot_end;
    uint32_t snapshots_bad;              /* newer ones that were passed over */
    uint64_t frames, effects, log_bytes; /* of the log behind the snapshot, tail included */
    uint64_t cut_bytes;                  /* of the tail that were cut */
    char cut_file[128];                  /* side file that keeps them */
    char notes[1024];                    /* what is worth telling, sentences */
    int64_t scan_us;
};

struct warm;

struct warm_opts {
    const struct io *io;
    const char *dir;
    uint64_t to_lsn;        /* recovery to a point; 0 = all */
    int64_t to_time_ms;     /* likewise; 0 = all */
    bool read_only;         /* tools: cut nothing, keep no side file */
    const uint8_t *node_id; /* NULL = any; else files of another node are refused, by name */
    uint32_t threads;       /* that scan a long log; 0 = the caller alone */
    uint64_t piece_len;     /* of log, so much at least to a thread; 0 = PIECE_LEN */
};
enum { PIECE_LEN = 8 * 1024 * 1024 };

/* Verifies and queues. Cuts a torn tail (into a side file). 'out' is NULL when there is nothing to load. Errors: DC_ECORRUPT with what is damaged, what can
 * be saved and the command that does it, or that the target lies before everything that is there; DC_ENEWER; DC_EFOREIGN; DC_EIO. */
DC_MUST enum dc_err data_scan(const struct warm_opts *opts, struct data_plan *plan,
                              struct warm **out);

/* The store to load into (it has the plan's seed), before anything is touched. Marks what is cold, and loads the system keyspace: it
 * is there before anybody is served. Errors: DC_ECORRUPT with what is damaged and the command that saves the rest; DC_ENOMEM. */
DC_MUST enum dc_err warm_attach(struct warm *w, struct store *s);
/* Loaders: 'threads' of them; 'done' is called once, by the last one. */
void warm_start(struct warm *w, uint32_t threads, void (*done)(void *arg), void *arg);
void warm_destroy(struct warm *w); /* stops the loaders, waits for them */

/* Nothing cold is left (one relaxed load). */
bool warm_is_over(const struct warm *w);
/* Nothing is cold or being loaded; ranges may have failed. */
bool warm_is_settled(const struct warm *w);
/* The slot's range can be used. */
bool warm_slot_is_ready(const struct warm *w, uint32_t slot);
/* The first slot from 'slot' on that can't be used; SLOT_COUNT when there is none. */
uint32_t warm_ready_end(const struct warm *w, uint32_t slot);
/* Loads the slot's range if it is cold, waits if somebody is loading it. Errors: DC_ECORRUPT, DC_ENOMEM. */
DC_MUST enum dc_err warm_touch(struct warm *w, struct store_thread *t, uint32_t slot);
/* Bytes that warm_touch() would have to read: a command on a large range is better held until a loader has done it. */
uint64_t warm_cost(const struct warm *w, uint32_t slot);
/* A loader takes this range next. */
void warm_request(struct warm *w, uint32_t slot);
/* Everything now, by the caller and the loaders together ('warm-restart full', BGSAVE, FLUSH of one of several keyspaces). */
DC_MUST enum dc_err warm_all(struct warm *w, struct store_thread *t);
/* A keyspace (NULL = all) was flushed: what is cold of it needn't be loaded. All slot locks held. */
void warm_drop(struct warm *w, const struct keyspace *ks);
/* Under the memory limit: what doesn't fit is left out ('limit' bytes allocated, 0 = none), of each range what the policy would evict
 * first. Any time. */
void warm_set_limit(struct warm *w, uint64_t limit, enum evict_policy policy);
/* Leaving out is an eviction: 'evict' commits a mutation of DELs under its slot lock (position in the log, then mut_commit()); an error
 * leaves them in. Before anything is touched. Without it nothing is logged, and what was left out is there again at the next start. */
typedef enum dc_err (*warm_evict_fn)(void *arg, struct mut *m);
void warm_set_evict(struct warm *w, warm_evict_fn evict, void *arg);

struct warm_stats {
    uint32_t ranges, ranges_warm, ranges_failed;
    uint64_t entries_loaded, entries_expected, entries_left_out, effects_applied, effects_expected;
    int64_t took_ms; /* until warm, or so far */
};
void warm_stats(const struct warm *w, struct warm_stats *out);

#endif
