/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ordered scans. A cursor is the position where the next step begins. Steps end where a line ends, and the lines of
 * any later state of the table have their borders at or below the same positions, so a key that stays is returned
 * exactly once however the table grows or shrinks between two steps; two keys at one position are never parted.
 */
#include "server/base/assert.h"
#include "server/store/store_priv.h"

enum { SCAN_BATCH = 256 }; /* entries to one hold of the lock */

struct scan {
    struct keyspace *ks;
    int64_t now_ms;
    uint32_t seen;
    store_visit_fn visit;
    void *arg;
};

static void scan_entry(void *arg, struct entry *e) {
    struct scan *sc = arg;
    sc->seen++;
    if (!entry_is_expired(e, sc->now_ms)) {
        sc->visit(sc->arg, sc->ks, e);
    }
}

static bool root_is_empty(const struct keyspace *ks, uint32_t slot) {
    return atomic_load_explicit(&ks->roots[slot].table.count, memory_order_relaxed) == 0;
}

/* From 'hash' to the end of the slot or until enough was seen; returns where it stopped. The lock is given up
 * between two batches. */
static uint64_t scan_slot(struct store *s, struct scan *sc, uint32_t slot, uint64_t hash,
                          uint32_t want, bool locked) {
    while (hash < HASH_END && sc->seen < want) {
        uint32_t batch = want - sc->seen < SCAN_BATCH ? want : sc->seen + SCAN_BATCH;
        if (!locked) {
            store_lock(s, slot);
        }
        struct root *r = root_enter(sc->ks, slot);
        while (hash < HASH_END && sc->seen < batch) {
            hash = table_step_line(&r->table, hash, s->seed, scan_entry, sc);
        }
        if (!locked) {
            store_unlock(s, slot);
        }
    }
    return hash;
}

void store_scan(struct store *s, struct keyspace *ks, uint64_t *cursor, uint32_t want, bool locked,
                int64_t now_ms, store_visit_fn visit, void *arg) {
    struct scan sc = {ks, now_ms, 0, visit, arg};
    uint32_t slot = (uint32_t)(*cursor >> HASH_BITS);
    uint64_t hash = *cursor & (HASH_END - 1);
    dc_assert(want > 0 && slot < SLOT_COUNT);
    if (atomic_load_explicit(&ks->used, memory_order_relaxed) == 0) {
        *cursor = 0;
        return;
    }
    for (; slot < SLOT_COUNT; slot++, hash = 0) {
        if (sc.seen >= want) {
            break;
        }
        if (root_is_empty(ks, slot)) {
            continue;
        }
        hash = scan_slot(s, &sc, slot, hash, want, locked);
        if (hash < HASH_END) {
            break;
        }
    }
    *cursor = slot == SLOT_COUNT ? 0 : (uint64_t)slot << HASH_BITS | hash;
}

/* Chooses one of the entries that pass by, each with the same chance. */
struct choice {
    struct store_thread *thread;
    int64_t now_ms;
    uint32_t seen;
    struct entry *chosen;
};

static void choose(void *arg, struct entry *e) {
    struct choice *c = arg;
    if (!entry_is_expired(e, c->now_ms) && rng_below(&c->thread->rng, ++c->seen) == 0) {
        c->chosen = e;
    }
}

bool store_random(struct store_thread *t, struct keyspace *ks, bool locked, int64_t now_ms,
                  store_visit_fn visit, void *arg) {
    struct store *s = t->store;
    uint64_t start = rng_next(&t->rng);
    uint32_t first = (uint32_t)(start >> HASH_BITS);
    if (atomic_load_explicit(&ks->used, memory_order_relaxed) == 0) {
        return false;
    }
    /* The first slot twice: from the random position, and at last what lies before it. */
    for (uint32_t i = 0; i <= SLOT_COUNT; i++) {
        uint32_t slot = (first + i) % SLOT_COUNT;
        uint64_t hash = i == 0 ? start & (HASH_END - 1) : 0;
        struct choice c = {.thread = t, .now_ms = now_ms};
        if (root_is_empty(ks, slot)) {
            continue;
        }
        if (!locked) {
            store_lock(s, slot);
        }
        struct root *r = root_enter(ks, slot);
        while (hash < HASH_END && c.chosen == NULL) {
            hash = table_step_line(&r->table, hash, s->seed, choose, &c);
        }
        if (c.chosen != NULL) {
            visit(arg, ks, c.chosen);
        }
        if (!locked) {
            store_unlock(s, slot);
        }
        if (c.chosen != NULL) {
            return true;
        }
    }
    return false;
}
