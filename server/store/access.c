/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * When was an entry last used, in sixteen bits? The clock of accesses ticks; an entry keeps the tick of its last access.
 *
 * While nothing is evicted the clock ticks twice a second: OBJECT IDLETIME is as exact as Redis has it, for hours. As soon
 * as there is eviction it ticks TICKS_PER_POPULATION times while as many accesses pass as keys exist, so
 * that ages tell the recent past apart however fast it goes. Two small tables remember when the ticks were.
 *
 * Sixteen bits come round again. A pass through all entries, twice in AGING_TICKS, makes those older than AGE_MAX
 * exactly that old, so nobody ever looks young again by being old.
 */
#include "server/base/assert.h"
#include "server/store/load.h"
#include "server/store/store_priv.h"

enum {
    CALM_TICK_MS = 500,
    CALM_AFTER_MS = 60000, /* without an eviction */
    AGING_TICKS = 16384,
    AGE_MAX = 65536 - AGING_TICKS
};

static_assert(2 * TICKS_PER_POPULATION % 256 == 0, "faded() divides by it");
static_assert(TICK_RECENT * TICK_HISTORY == 65536, "the tables cover all ages");

/* --- ticks ------------------------------------------------------------------------------------------- */

static void tick_advance(struct store *s, int64_t now_ms) {
    uint32_t tick = atomic_fetch_add_explicit(&s->tick, 1, memory_order_relaxed) + 1;
    atomic_store_explicit(&s->tick_recent_ms[tick % TICK_RECENT], now_ms, memory_order_relaxed);
    if (tick % TICK_RECENT == 0) {
        atomic_store_explicit(&s->tick_history_ms[tick / TICK_RECENT % TICK_HISTORY], now_ms,
                              memory_order_relaxed);
    }
}

void access_count(struct store_thread *t, int64_t now_ms) {
    struct store *s = t->store;
    if (dc_unlikely(++t->accesses >= atomic_load_explicit(&s->quantum, memory_order_relaxed))) {
        t->accesses = 0;
        tick_advance(s, now_ms);
    }
    t->tick = (uint16_t)atomic_load_explicit(&s->tick, memory_order_relaxed);
}

/* Half of a frequency is forgotten while the population is passed once. The dither, below 256, makes the mean of many
 * small frequencies right. */
static uint32_t faded(uint32_t freq, uint32_t age, uint32_t dither) {
    uint32_t halvings = age / TICKS_PER_POPULATION;
    if (halvings >= 8) {
        return 0;
    }
    uint32_t rest = 2 * TICKS_PER_POPULATION - age % TICKS_PER_POPULATION;
    return (freq * rest / (2 * TICKS_PER_POPULATION / 256) + (dither << halvings)) >> 8 >> halvings;
}

void store_touch(struct store_thread *t, struct entry *e) {
    uint32_t freq = e->freq;
    uint32_t age = (uint16_t)(t->tick - entry_stamp(e));
    if (freq > 1 && age > 0) {
        freq = 1 + faded(freq - 1, age, (uint32_t)(entry_version(e) + t->tick) * 2654435761u >> 24);
    }
    entry_set_stamp(e, t->tick);
    e->freq = (uint8_t)(freq + (freq < UINT8_MAX));
}

void access_evicting(struct store *s, int64_t now_ms) {
    if (dc_unlikely(now_ms > atomic_load_explicit(&s->evicted_ms, memory_order_relaxed))) {
        atomic_store_explicit(&s->evicted_ms, now_ms, memory_order_relaxed);
    }
}

/* As if the clock had always ticked: RESTORE may say that a key has been idle for hours. */
static void invent_past(struct store *s, int64_t now_ms) {
    for (uint32_t age = 0; age < TICK_RECENT; age++) {
        atomic_store_explicit(&s->tick_recent_ms[(0 - age) % TICK_RECENT],
                              now_ms - (int64_t)age * CALM_TICK_MS, memory_order_relaxed);
    }
    for (uint32_t age = 0; age < TICK_HISTORY; age++) {
        atomic_store_explicit(&s->tick_history_ms[(0 - age) % TICK_HISTORY],
                              now_ms - (int64_t)age * TICK_RECENT * CALM_TICK_MS,
                              memory_order_relaxed);
    }
}

void store_tick(struct store *s, int64_t now_ms) {
    if (atomic_load_explicit(&s->tick_recent_ms[0], memory_order_relaxed) == 0) {
        invent_past(s, now_ms);
    }
    uint32_t tick = atomic_load_explicit(&s->tick, memory_order_relaxed);
    uint32_t quantum = UINT32_MAX;
    if (now_ms - atomic_load_explicit(&s->evicted_ms, memory_order_relaxed) < CALM_AFTER_MS) {
        uint64_t accesses = store_count(s) / TICKS_PER_POPULATION;
        quantum = accesses < 1 ? 1 : accesses >= UINT32_MAX ? UINT32_MAX : (uint32_t)accesses;
    }
    atomic_store_explicit(&s->quantum, quantum, memory_order_relaxed);
    if (now_ms -
            atomic_load_explicit(&s->tick_recent_ms[tick % TICK_RECENT], memory_order_relaxed) >=
        CALM_TICK_MS) {
        tick_advance(s, now_ms);
    }
}

/* --- what a stamp means ------------------------------------------------------------------------------ */

static int64_t history_ms(const struct store *s, uint32_t tick) {
    return atomic_load_explicit(&s->tick_history_ms[tick / TICK_RECENT % TICK_HISTORY],
                                memory_order_relaxed);
}

/* When the tick 'age' ago began; between two points of the history as if all ticks there took as long. */
static int64_t tick_time_ms(const struct store *s, uint32_t age) {
    uint32_t now = atomic_load_explicit(&s->tick, memory_order_relaxed);
    uint32_t tick = now - age;
    if (age < TICK_RECENT) {
        return atomic_load_explicit(&s->tick_recent_ms[tick % TICK_RECENT], memory_order_relaxed);
    }
    int64_t from = history_ms(s, tick), to = history_ms(s, tick + TICK_RECENT);
    return from + (to - from) * (tick % TICK_RECENT) / TICK_RECENT;
}

int64_t store_idle_ms(const struct store *s, const struct entry *e, int64_t now_ms) {
    int64_t idle = now_ms - tick_time_ms(s, entry_age(s, e));
    return idle < 0 ? 0 : idle;
}

uint16_t store_age_of_idle(const struct store *s, int64_t idle_ms, int64_t now_ms) {
    /* The oldest tick that isn't longer ago. Times rise, so a binary search finds it. */
    uint32_t low = 0, high = AGE_MAX;
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        if (now_ms - tick_time_ms(s, middle) <= idle_ms) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return (uint16_t)low;
}

void store_set_idle_ms(const struct store *s, struct entry *e, int64_t idle_ms, int64_t now_ms) {
    store_set_age(s, e, store_age_of_idle(s, idle_ms, now_ms));
}

/* --- aging ------------------------------------------------------------------------------------------- */

static void age_entry(void *arg, struct entry *e) {
    const struct store *s = arg;
    if (entry_age(s, e) > AGE_MAX) {
        uint32_t tick = atomic_load_explicit(&s->tick, memory_order_relaxed);
        entry_set_stamp(e, (uint16_t)(tick - AGE_MAX));
    }
}

/* One page of the pass; returns its entries. */
static uint32_t age_page(struct store *s, struct store_sweep *at) {
    struct keyspace *ks = &s->keyspaces[at->age_keyspace];
    uint32_t slot = at->age_slot;
    uint32_t count = 0;
    bool is_there = atomic_load_explicit(&ks->used, memory_order_relaxed) != 0 &&
                    atomic_load_explicit(&ks->roots[slot].table.count, memory_order_relaxed) > 0;
    at->age_slot++;
    if (is_there) {
        store_lock(s, slot);
        struct root *r = root_enter(ks, slot);
        const struct table *page =
            table_due_page(&r->table, at->age_hash, DUE_NEVER, &at->age_hash);
        count = atomic_load_explicit(&page->count, memory_order_relaxed);
        table_visit_page(page, age_entry, s);
        store_unlock(s, slot);
        if (at->age_hash < HASH_END) {
            at->age_slot--; /* more of this table */
            return count;
        }
    }
    at->age_hash = 0;
    if (at->age_slot == SLOT_COUNT) {
        at->age_slot = 0;
        at->age_keyspace++;
    }
    return count;
}

/* As much of the pass as there were ticks since the last call. */
void access_age(struct store *s, struct store_sweep *at) {
    uint32_t tick = atomic_load_explicit(&s->tick, memory_order_relaxed);
    uint32_t ticks = tick - at->age_tick;
    if (ticks < AGING_TICKS / 256) {
        return; /* not worth counting the entries */
    }
    uint64_t work =
        (store_count(s) + (uint64_t)s->keyspace_count * SLOT_COUNT) * ticks / (AGING_TICKS / 2);
    at->age_tick = tick;
    for (uint64_t done = 0; done <= work;) {
        done += 1 + age_page(s, at);
        if (at->age_keyspace == s->keyspace_count) {
            at->age_keyspace = 0;
            return; /* once round is enough */
        }
    }
}
