/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A flush costs a number: it raises the keyspace's generation, and every root of an older one is dead. Who enters such a
 * root first clears it, a page's worth at most; a larger table, or a page with blobs, is put aside as a grave, which
 * the sweep (or who needs memory) takes apart page by page, without a lock. So neither the flush nor the next command
 * waits for millions of entries, or for hundreds of megabytes, to be freed.
 *
 * What the cleared root remembers as removed: of a page the newest version that was in it, of a larger table the flush
 * itself. Inside EXEC the flush has no version yet; roots cleared meanwhile are marked and mended at the commit.
 */
#include "server/base/assert.h"
#include "server/base/mem.h"
#include "server/store/store_priv.h"

struct grave {
    struct grave *next;
    struct table table;
};

/* What a page holds that is about to be cleared. */
struct inventory {
    struct root *root;
    bool has_blob;
};

static void take_stock(void *arg, struct entry *e) {
    struct inventory *i = arg;
    root_note_removed(i->root, entry_version(e));
    i->has_blob |= entry_kind(e) == VALUE_BLOB;
}

static void graves_push(struct store *s, struct grave *first, struct grave *last) {
    struct grave *top = atomic_load_explicit(&s->graves, memory_order_relaxed);
    do {
        last->next = top;
        /* pairs with the acquire in graves_take */
    } while (!atomic_compare_exchange_weak_explicit(&s->graves, &top, first, memory_order_release,
                                                    memory_order_relaxed));
}

/* All of them: a list that nobody pops from single-handed has no ABA. */
static struct grave *graves_take(struct store *s) {
    if (atomic_load_explicit(&s->graves, memory_order_relaxed) == NULL) {
        return NULL;
    }
    return atomic_exchange_explicit(&s->graves, NULL, memory_order_acquire);
}

/* Puts the table aside; false when there is no memory for that. */
static bool bury(struct store *s, struct root *r) {
    struct grave *g = mem_alloc(sizeof(*g));
    if (g == NULL) {
        return false;
    }
    table_move(&g->table, &r->table);
    graves_push(s, g, g);
    return true;
}

/* Returns the number of entries that were looked at. */
static uint64_t clear(struct keyspace *ks, struct root *r) {
    struct inventory i = {.root = r};
    bool is_large = table_is_large(&r->table);
    uint64_t count = 0;
    dc_assert(!root_is_alive(ks, r));
    if (is_large) {
        root_note_removed(r, atomic_load_explicit(&ks->flush_version, memory_order_relaxed));
    } else {
        count = atomic_load_explicit(&r->table.count, memory_order_relaxed);
        table_visit_page(&r->table, take_stock, &i);
    }
    if (!((is_large || i.has_blob) && bury(ks->store, r))) {
        table_drop(&r->table);
    }
    atomic_store_explicit(&r->volatiles, 0, memory_order_relaxed);
    atomic_store_explicit(&r->gen, atomic_load_explicit(&ks->gen, memory_order_relaxed),
                          memory_order_relaxed);
    return count;
}

struct root *root_clear(struct keyspace *ks, struct root *r) {
    (void)clear(ks, r);
    return r;
}

void flush_apply(struct keyspace *ks, uint64_t version) {
    atomic_store_explicit(&ks->flush_version, version != 0 ? version : FLUSH_PENDING,
                          memory_order_relaxed);
    atomic_fetch_add_explicit(&ks->gen, 1, memory_order_relaxed);
}

void flush_stamp(struct keyspace *ks, uint64_t version) {
    atomic_store_explicit(&ks->flush_version, version, memory_order_relaxed);
    for (uint32_t slot = 0; slot < SLOT_COUNT; slot++) {
        if (ks->roots[slot].removed == FLUSH_PENDING) {
            ks->roots[slot].removed = version;
        }
    }
}

/* Frees up to 'budget' entries of the graves. */
static uint64_t dig(struct store *s, uint64_t budget) {
    uint64_t freed = 0;
    struct grave *g = graves_take(s);
    while (g != NULL && freed < budget) {
        freed += table_drop_page(&g->table);
        if (table_is_gone(&g->table)) {
            struct grave *next = g->next;
            mem_free(g);
            g = next;
        }
    }
    if (g != NULL) {
        struct grave *last = g;
        while (last->next != NULL) {
            last = last->next;
        }
        graves_push(s, g, last);
    }
    return freed;
}

static uint64_t clear_roots(struct keyspace *ks, uint64_t budget) {
    struct store *s = ks->store;
    uint64_t freed = 0;
    for (uint32_t slot = 0; slot < SLOT_COUNT && freed < budget; slot++) {
        struct root *r = &ks->roots[slot];
        if (root_is_alive(ks, r)) {
            continue;
        }
        store_lock(s, slot);
        if (!root_is_alive(ks, r)) {
            freed += clear(ks, r);
        }
        store_unlock(s, slot);
    }
    return freed;
}

uint64_t store_reclaim(struct store *s, uint64_t budget) {
    uint64_t freed = dig(s, budget);
    for (uint32_t i = 0; i < s->keyspace_count && freed < budget; i++) {
        struct keyspace *ks = &s->keyspaces[i];
        uint32_t gen = atomic_load_explicit(&ks->gen, memory_order_relaxed);
        if (atomic_load_explicit(&ks->cleared_gen, memory_order_relaxed) == gen) {
            continue;
        }
        freed += clear_roots(ks, budget - freed);
        if (freed < budget) {
            atomic_store_explicit(&ks->cleared_gen, gen, memory_order_relaxed);
        }
    }
    return freed < budget ? freed + dig(s, budget - freed) : freed;
}
