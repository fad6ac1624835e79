/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * apply: what a replica receives becomes part of its store.
 *
 * Purpose: frames in the order of the log, by several threads where that helps: frames of one slot go to the thread that has the slot, so
 *   the order per key is that of the log. A frame over several slots, or one that flushes, is a barrier: what is before it is shown first,
 *   and it is shown whole, under all its slot locks.
 * Invariants: I1 nobody sees a part of a frame. I2 no slot lock is held while a cold range is loaded. I3 what is shown when
 *   apply_frames() or apply_end() returns is everything up to the end of the bytes; when apply_begin() returns, everything before them.
 * Threads: one caller; helpers are its own.
 * Failure: DC_ECORRUPT: an effect wasn't made for what is there: this copy of the data is damaged, or the log is. What is shown then is of no
 *   use any more. DC_ENOMEM: likewise, until everything is loaded anew.
 */
#ifndef DC_REPLICATION_APPLY_H
#define DC_REPLICATION_APPLY_H

#include <stddef.h>
#include <stdint.h>

#include "server/base/err.h"

struct apply;
struct store;
struct warm;

enum { APPLY_THREADS_MAX = 16 };

struct apply_opts {
    struct store *store;
    struct warm *warm; /* NULL = everything is loaded */
    uint32_t
        threads; /* that play; 1: the caller alone, 0 = one for each core, APPLY_THREADS_MAX at most */
};

struct apply *apply_create(const struct apply_opts *opts);
void apply_destroy(struct apply *a); /* NULL is legal */

/* Whole frames, checked, that follow what was applied before; 'lsn' is that of the first byte. The bytes are used until the return. */
DC_MUST enum dc_err apply_frames(struct apply *a, uint64_t lsn, const char *bytes, size_t len);

/* The same, but many bytes are played by helpers while the caller does something else. They are used until the next call of one of
 * these three returns. Errors: those of the frames before, too. Nothing is under way then. */
DC_MUST enum dc_err apply_begin(struct apply *a, uint64_t lsn, const char *bytes, size_t len);
/* Until what was begun is shown. */
DC_MUST enum dc_err apply_end(struct apply *a);

/* The latest time of a frame that is shown; 0 = there was none. */
int64_t apply_time_ms(const struct apply *a);

#endif
