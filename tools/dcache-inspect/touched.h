/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * touched: the keys of one range that effects of the log name, each with its effects in order.
 *
 * Purpose: what an entry becomes by them. Effects that no longer matter are left out: those between a key's first one and the last that says
 *   all of it (PUT, DEL, a WRITE to nothing), and an EXPIRE before another one. So a key that is written all the time costs no more than
 *   one that was written twice; only pieces (APPEND, SETRANGE, SETBIT) add up, until the next whole value.
 * Invariants: I1 what is left out was made for what the effect before it left, and that stays: the first one meets the block's entry, and
 *   from the next whole value on it is the same again. A key of which that isn't so keeps all of its effects, so whoever folds them
 *   finds the fault.
 * Threads: one owner. Ownership: keys and effects are views into the queue's mapped files.
 */
#ifndef DC_TOOLS_INSPECT_TOUCHED_H
#define DC_TOOLS_INSPECT_TOUCHED_H

#include "persist/effect_queue.h"

#define TOUCHED_END UINT32_MAX

struct touched {
    uint32_t keyspace;
    struct bytes key;
    uint32_t first, last; /* of its effects */
    bool seen;            /* a block had it, too */
    bool odd;             /* an effect wasn't made for what the one before it left */
};

struct touched_effect {
    const char *ptr;
    uint64_t version;
    /* An EXPIRE before which others were left out: the version that the first of them was made for. 0 = none. */
    uint64_t joins;
    uint64_t len;
    uint32_t next; /* of the same key; TOUCHED_END */
    enum mut_kind kind;
};

/* Zeros = empty. */
struct touched_set {
    struct touched *keys;
    struct touched_effect *effects;
    uint32_t *table; /* index + 1 of a key, 0 = free */
    uint32_t key_count, key_cap, effect_count, effect_cap, table_size;
    uint32_t free; /* index + 1 of an effect that was left out, 0 = none */
};

void touched_fini(struct touched_set *s);
void touched_clear(struct touched_set *s);
void touched_add(struct touched_set *s, const struct effect_view *e);
/* The effect as it was added. 'found' is the version of what is there, 0 = nothing. */
void touched_view(const struct touched_effect *e, uint64_t found, struct effect_view *out);
struct touched *touched_find(const struct touched_set *s, uint32_t keyspace, struct bytes key);

#endif
