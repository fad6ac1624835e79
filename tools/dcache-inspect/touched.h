/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * touched: the keys of one range that effects of the log name, each with its effects in order.
 *
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
};

struct touched_effect {
    struct effect_view view;
    uint32_t next; /* of the same key; TOUCHED_END */
};

/* Zeros = empty. */
struct touched_set {
    struct touched *keys;
    struct touched_effect *effects;
    uint32_t *table; /* index + 1 of a key, 0 = free */
    uint32_t key_count, key_cap, effect_count, effect_cap, table_size;
};

void touched_fini(struct touched_set *s);
void touched_clear(struct touched_set *s);
void touched_add(struct touched_set *s, const struct effect_view *e);
struct touched *touched_find(const struct touched_set *s, uint32_t keyspace, struct bytes key);

#endif
