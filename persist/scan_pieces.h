/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scan_pieces: the log behind a snapshot, read by several threads at once.
 *
 *     LSN   s0            s1            s2            s3
 *           |-------------|-------------|-------------|---------->
 *     piece 0: frames that begin in [s0, s1)   1: in [s1, s2) ...   the last one up to the end
 *
 * Purpose: where a piece ends is chosen by length alone; its first frame is the first good one behind that place. So its neighbours needn't be known,
 *   and it is only a guess until somebody comes along: who reads the log in order takes a piece when he stands at its first frame, in its
 *   history. A piece that nobody meets so, or that isn't clean, is dropped, and read in order as if it had never been tried.
 * Invariants: I1 a piece that is taken holds what a reader in order would have found: frames without a gap, of one history, and no FORK.
 *   I2 how a log ends, and what is wrong with it, is never judged here.
 * Threads: pieces_read() starts its own and joins them. Everything else: one.
 */
#ifndef DC_PERSIST_SCAN_PIECES_H
#define DC_PERSIST_SCAN_PIECES_H

#include <stdatomic.h>

#include "persist/effect_queue.h"
#include "persist/warm.h"

/* What frames add up to. */
struct scan_sums {
    uint64_t frames, effects, bytes;
    int64_t last_time_ms;
    enum frame_kind last_kind;
    uint64_t at; /* where the last one ends */
};
/* What stands behind them. */
void sums_join(struct scan_sums *to, const struct scan_sums *behind);
void sums_add(struct scan_sums *to, const struct frame_ref *f);

struct piece {
    uint64_t first, below; /* it has the frames that begin there */
    uint64_t from;         /* where the first of them begins */
    uint64_t history;
    struct scan_sums sums;
    struct effect_queue queue;
    bool is_ready; /* read, and neither taken nor dropped */
};

struct pieces {
    const struct warm_opts *opts;
    const struct log_dir *dir;
    uint32_t range_bits;
    struct piece *list;
    uint32_t count;
    uint32_t next; /* that may be taken */
    _Atomic uint32_t next_read;
};

/* Reads from 'from' on, where a frame ends, if that is worth while. */
void pieces_read(struct pieces *p, const struct warm_opts *opts, const struct log_dir *dir,
                 uint32_t range_bits, uint64_t from);
/* Is there a piece that goes on at 'at' in this history? Those that should have gone on before are dropped. */
bool pieces_reach(struct pieces *p, uint64_t at, uint64_t history);
/* That piece: its effects go behind those of 'queue'. Errors: DC_ENOMEM. */
DC_MUST enum dc_err pieces_take(struct pieces *p, struct effect_queue *queue,
                                struct scan_sums *sums);
void pieces_fini(struct pieces *p);

#endif
