/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sequencer: the one place where a mutation gets its position in the order of all mutations.
 *
 * Purpose: command -> struct mut -> here -> store. A frame reserves its bytes in the log (one atomic addition, in the
 *   order of the slot locks, so the order per key is the order of the log), then the store shows it. The log that
 *   keeps the bytes takes its place between the two steps; commands and store don't change for it.
 * Invariants: I1 LSNs rise and are never given twice; I2 the version of an entry is the LSN of the end of
 *   the effect that wrote it.
 * Threads: any, holding the slot locks of the frame. Never waits. Can't fail.
 */
#ifndef DC_PERSIST_SEQUENCER_H
#define DC_PERSIST_SEQUENCER_H

#include <stdatomic.h>
#include <stdint.h>

#include "server/store/mutation.h"

/* Position of a byte in the log. */
struct lsn {
    uint64_t v;
};

struct sequencer {
    _Alignas(64) _Atomic uint64_t head; /* where the next frame begins */
};

/* A node without a log of earlier runs begins its history at the wall clock in microseconds, so that a version that a
 * client kept from an earlier run hardly ever fits by accident. It can: a run that wrote more than a megabyte a second
 * all its life ends ahead of the clock. */
void sequencer_init(struct sequencer *q, uint64_t first_lsn);

/* Position, versions, store. A mutation without effects does nothing. Returns the end of the frame. */
struct lsn sequencer_commit(struct sequencer *q, struct mut *m);

/* End of the last frame given out. */
struct lsn sequencer_head(const struct sequencer *q);

#endif
