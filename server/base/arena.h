/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * arena: memory that is given back all at once (a turn, a request).
 *
 * Purpose: bump allocation from one fixed region, falling back to chained heap blocks beyond it.
 * Ownership: pointers live until arena_reset() or arena_fini().
 * Threads: one owner.
 */
#ifndef DC_BASE_ARENA_H
#define DC_BASE_ARENA_H

#include <stddef.h>

struct arena_block;

struct arena {
    char *base;
    size_t used;
    size_t cap;
    struct arena_block *blocks; /* overflow, freed by reset */
};

void arena_init(struct arena *a, size_t cap);
void arena_fini(struct arena *a);
void arena_reset(struct arena *a);

/* Slow path: a heap block of its own. Never NULL. */
void *arena_alloc_block(struct arena *a, size_t len);

/* 'len' bytes aligned to 8. Never NULL. */
static inline void *arena_alloc(struct arena *a, size_t len) {
    size_t need = (len + 7) & ~(size_t)7;
    if (a->cap - a->used < need) {
        return arena_alloc_block(a, need);
    }
    void *ptr = a->base + a->used;
    a->used += need;
    return ptr;
}

static inline size_t arena_room(const struct arena *a) {
    return a->cap - a->used;
}

#endif
