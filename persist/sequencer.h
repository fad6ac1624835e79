/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sequencer: positions without a log behind them, for a store that stands alone (tools, tests, benches).
 *
 * Purpose: what log_commit() does for a node: a frame gets its place, its effects their versions, the store shows them.
 * Invariants: I1 LSNs rise and are never given twice; I2 the version of an entry is the LSN of the end of
 *   the effect that wrote it.
 * Threads: any, holding the slot locks of the frame. Never waits. Can't fail.
 */
#ifndef DC_PERSIST_SEQUENCER_H
#define DC_PERSIST_SEQUENCER_H

#include <stdatomic.h>
#include <stdint.h>

#include "persist/lsn.h"
#include "server/store/mutation.h"

struct sequencer {
    _Alignas(64) _Atomic uint64_t head; /* where the next frame begins */
};

void sequencer_init(struct sequencer *q, uint64_t first_lsn);

/* Position, versions, store. A mutation without effects does nothing. Returns the end of the frame. */
struct lsn sequencer_commit(struct sequencer *q, struct mut *m);

/* End of the last frame given out. */
struct lsn sequencer_head(const struct sequencer *q);

#endif
