/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lockset: the slots that a command, or an EXEC, holds.
 *
 * Invariants: I1 each slot once, in ascending order, so two lock sets never wait for each other in a circle.
 * Threads: one owner. Ownership: larger sets live in the arena.
 */
#ifndef DC_CMD_LOCKSET_H
#define DC_CMD_LOCKSET_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/arena.h"
#include "server/store/store.h"

enum { LOCKSET_INLINE = 8 };

struct lockset {
    struct store *store;
    uint32_t count;
    uint32_t cap;
    bool all;
    uint16_t *slots;
    uint16_t inline_slots[LOCKSET_INLINE];
};

/* Room for 'cap' slots. */
void lockset_init(struct lockset *l, struct store *s, struct arena *a, uint32_t cap);
void lockset_add(struct lockset *l, uint32_t slot);
void lockset_acquire(struct lockset *l);
void lockset_release(struct lockset *l);

#endif
