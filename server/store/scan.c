/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ordered scans. A cursor is the position where the next step begins. Steps end where a line ends. When the table has
 * grown or shrunk since, that may be inside a line: then what lies before the cursor is passed over. So a key that stays
 * is returned exactly once; two keys at one position are never parted.
 *
 * And random keys, drawn by the same steps.
 */
#include "server/base/assert.h"
#include "server/store/store_priv.h"

enum { SCAN_BATCH = 256 }; /* entries to one hold of the lock */

struct step {
    const struct store_scan *sc;
    uint32_t seen;
};

static void scan_entry(void *arg, struct entry *e) {
    struct step *step = arg;
    const struct store_scan *sc = step->sc;
    step->seen++;
    if (!entry_is_expired(e, sc->now_ms)) {
        sc->visit(sc->arg, sc->ks, e);
    }
}

/* From 'hash' to the end of the slot or until enough was seen; returns where it stopped. The lock is given up
 * between two batches. */
static uint64_t scan_slot(struct step *step, uint32_t slot, uint64_t hash, uint32_t want) {
    struct keyspace *ks = step->sc->ks;
    struct store *s = ks->store;
    while (hash < HASH_END && step->seen < want) {
        uint32_t batch = want - step->seen < SCAN_BATCH ? want : step->seen + SCAN_BATCH;
        if (!step->sc->locked) {
            store_lock(s, slot);
        }
        struct root *r = root_enter(ks, slot);
        while (hash < HASH_END && step->seen < batch) {
            hash = table_step_line(&r->table, hash, s->seed, scan_entry, step);
        }
        if (!step->sc->locked) {
            store_unlock(s, slot);
        }
    }
    return hash;
}

void store_scan(const struct store_scan *sc, uint64_t *cursor, uint32_t want) {
    struct step step = {sc, 0};
    uint32_t slot = (uint32_t)(*cursor >> HASH_BITS);
    uint64_t hash = *cursor & (HASH_END - 1);
    bool used = atomic_load_explicit(&sc->ks->used, memory_order_relaxed) != 0;
    dc_assert(want > 0 && slot < sc->slot_end && sc->slot_end <= SLOT_COUNT);
    if (!used) {
        slot = sc->slot_end;
        hash = 0;
    }
    for (; slot < sc->slot_end; slot++, hash = 0) {
        if (step.seen >= want) {
            break;
        }
        if (root_is_empty(sc->ks, slot)) {
            continue;
        }
        hash = scan_slot(&step, slot, hash, want);
        if (hash < HASH_END) {
            break;
        }
    }
    *cursor = slot == SLOT_COUNT ? 0 : (uint64_t)slot << HASH_BITS | hash;
}

/* --- the walk of a snapshot --------------------------------------------------------------------------- */

enum { WALK_BATCH = 64, WALK_PREFETCH_LEN = 192 };

/* The entries of some lines are gathered, and asked for from memory, before the first of them is looked at. */
struct gathered {
    struct keyspace *ks;
    uint32_t count; /* in 'entries' */
    uint32_t shown; /* before them */
    store_visit_fn visit;
    void *arg;
    struct entry *entries[WALK_BATCH];
};

static void gathered_show(struct gathered *g) {
    for (uint32_t i = 0; i < g->count; i++) {
        g->visit(g->arg, g->ks, g->entries[i]);
    }
    g->shown += g->count;
    g->count = 0;
}

static void gather(void *arg, struct entry *e) {
    struct gathered *g = arg;
    for (uint32_t at = 0; at < WALK_PREFETCH_LEN; at += 64) {
        __builtin_prefetch((const char *)e + at);
    }
    if (g->count == WALK_BATCH) {
        gathered_show(g);
    }
    g->entries[g->count++] = e;
}

bool store_walk(struct store *s, struct keyspace *ks, struct store_walk *at, uint32_t want,
                store_visit_fn visit, void *arg) {
    struct gathered g = {.ks = ks, .visit = visit, .arg = arg};
    dc_assert(want > 0 && at->slot_end <= SLOT_COUNT && at->hash < HASH_END);
    if (atomic_load_explicit(&ks->used, memory_order_relaxed) == 0) {
        at->slot = at->slot_end;
        return false;
    }
    while (at->slot < at->slot_end && g.shown == 0) {
        uint32_t slot = at->slot;
        if (!root_is_empty(ks, slot)) {
            store_lock(s, slot);
            struct root *r = root_enter(ks, slot);
            while (at->hash < HASH_END && g.shown + g.count < want) {
                at->hash = table_step_line(&r->table, at->hash, s->seed, gather, &g);
            }
            gathered_show(&g);
            store_unlock(s, slot);
        } else {
            at->hash = HASH_END;
        }
        if (at->hash == HASH_END) {
            at->hash = 0;
            at->slot++;
        }
    }
    return g.shown > 0;
}

void store_settle(struct store *s) {
    for (uint32_t slot = 0; slot < SLOT_COUNT; slot++) {
        store_lock(s, slot);
        store_unlock(s, slot);
    }
}

/* --- random entries ----------------------------------------------------------------------------------- */

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

/* Entries that a random one is drawn from: their gaps and their lines differ, the sum of sixteen much less. */
enum { CHOICE_LEN = 16 };

/* A live entry of the slot: one of those that follow a random position; after the end comes the beginning. Slot
 * lock held. */
static struct entry *choose_in_slot(struct store_thread *t, struct keyspace *ks, uint32_t slot,
                                    int64_t now_ms) {
    struct root *r = root_enter(ks, slot);
    uint64_t start = rng_next(&t->rng) & (HASH_END - 1);
    struct choice c = {.thread = t, .now_ms = now_ms};
    for (uint64_t hash = start; hash < HASH_END && c.seen < CHOICE_LEN;) {
        hash = table_step_line(&r->table, hash, t->store->seed, choose, &c);
    }
    for (uint64_t hash = 0; hash < start && c.seen < CHOICE_LEN;) {
        hash = table_step_line(&r->table, hash, t->store->seed, choose, &c);
    }
    return c.chosen;
}

/* The slot to begin with: that of an entry drawn by its number where slots have few, else any. */
static uint32_t first_slot(struct store_thread *t, const struct keyspace *ks) {
    uint64_t count = keyspace_count(ks);
    if (count == 0 || count > (uint64_t)SLOT_COUNT * PAGE_LINE_WORDS) {
        return (uint32_t)rng_below(&t->rng, SLOT_COUNT);
    }
    uint64_t left = rng_below(&t->rng, count);
    for (uint32_t slot = 0; slot < SLOT_COUNT; slot++) {
        const struct root *r = &ks->roots[slot];
        uint32_t here = atomic_load_explicit(&r->table.count, memory_order_relaxed);
        if (root_is_alive(ks, r) && left < here) {
            return slot;
        }
        left -= root_is_alive(ks, r) ? here : 0;
    }
    return 0; /* entries went meanwhile */
}

bool store_random_from(struct store_thread *t, const struct store_scan *sc, uint32_t slot) {
    for (; slot < sc->slot_end; slot++) {
        if (root_is_empty(sc->ks, slot)) {
            continue;
        }
        if (!sc->locked) {
            store_lock(t->store, slot);
        }
        struct entry *e = choose_in_slot(t, sc->ks, slot, sc->now_ms);
        if (e != NULL) {
            sc->visit(sc->arg, sc->ks, e);
        }
        if (!sc->locked) {
            store_unlock(t->store, slot);
        }
        if (e != NULL) {
            return true;
        }
    }
    return false;
}

bool store_random(struct store_thread *t, const struct store_scan *sc) {
    struct store_scan before = *sc; /* after the end comes the beginning */
    dc_assert(sc->slot_end == SLOT_COUNT);
    if (atomic_load_explicit(&sc->ks->used, memory_order_relaxed) == 0) {
        return false;
    }
    uint32_t first = first_slot(t, sc->ks);
    before.slot_end = first;
    return store_random_from(t, sc, first) || store_random_from(t, &before, 0);
}
