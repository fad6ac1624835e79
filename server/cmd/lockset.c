/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/lockset.h"

#include "server/base/assert.h"

#include <stdlib.h>

void lockset_init(struct lockset *l, struct store *s, struct arena *a, uint32_t cap) {
    l->store = s;
    l->count = 0;
    l->all = false;
    l->cap = cap <= LOCKSET_INLINE ? LOCKSET_INLINE : cap;
    l->slots = cap <= LOCKSET_INLINE ? l->inline_slots : arena_alloc(a, cap * sizeof(*l->slots));
}

void lockset_add(struct lockset *l, uint32_t slot) {
    dc_assert(l->count < l->cap);
    l->slots[l->count++] = (uint16_t)slot;
}

static int by_slot(const void *a, const void *b) {
    return *(const uint16_t *)a - *(const uint16_t *)b;
}

/* Ascending, each once (I1). */
static void sort_unique(struct lockset *l) {
    qsort(l->slots, l->count, sizeof(*l->slots), by_slot);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < l->count; i++) {
        if (kept == 0 || l->slots[kept - 1] != l->slots[i]) {
            l->slots[kept++] = l->slots[i];
        }
    }
    l->count = kept;
}

void lockset_acquire(struct lockset *l) {
    if (l->all) {
        store_lock_all(l->store);
        return;
    }
    if (l->count > 1) {
        sort_unique(l);
    }
    for (uint32_t i = 0; i < l->count; i++) {
        store_lock(l->store, l->slots[i]);
    }
}

void lockset_release(struct lockset *l) {
    if (l->all) {
        store_unlock_all(l->store);
        return;
    }
    for (uint32_t i = l->count; i-- > 0;) {
        store_unlock(l->store, l->slots[i]);
    }
}
