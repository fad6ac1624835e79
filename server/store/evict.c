/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Eviction: sample, score, evict the worst.
 *
 * Samples are taken by a hand that moves through the positions, a line at a time. Positions are a keyed hash, so
 * neighbours have nothing in common and the hand's walk is as good as a random draw, without its cache
 * misses; and every entry is looked at equally often. The best candidates of earlier draws wait in a pool.
 *
 * A policy is a scoring function. The default weighs what a byte of memory earns,
 *
 *     (hits * fade(age) + 0.4) / ((age + c) * size)        c = half of the population, fade halves in 8 of them
 *
 * where age is the time since the last access, counted in accesses, and hits are those after the first, of which half is
 * forgotten (access.c) with each population that passes between two of them. It was fitted to streams that LRU
 * likes (sessions that end) and that LFU likes (a steady Zipf with one-hit wonders), and beats both on either: without
 * the two ways of forgetting, sessions lose 8 points and Zipf gains half a point; c of a tenth costs half a point.
 */
#include "server/base/assert.h"
#include "server/store/store_priv.h"

#include <math.h>

enum {
    AGE_OFFSET = TICKS_PER_POPULATION / 2,
    FADE_TICKS = 8 * TICKS_PER_POPULATION,
    LINES_PER_DRAW_MAX = 4 * SLOT_COUNT /* then there is nothing to be had */
};

struct draw {
    struct store_thread *thread;
    struct keyspace *ks;
    uint32_t slot;
    enum evict_policy policy;
    int64_t now_ms;
    uint32_t seen;
};

static bool is_volatile_only(enum evict_policy policy) {
    switch (policy) {
    case EVICT_VOLATILE_LRU:
    case EVICT_VOLATILE_LFU:
    case EVICT_VOLATILE_RANDOM:
    case EVICT_VOLATILE_TTL:
        return true;
    case EVICT_ADAPTIVE:
    case EVICT_NONE:
    case EVICT_ALLKEYS_LRU:
    case EVICT_ALLKEYS_LFU:
    case EVICT_ALLKEYS_RANDOM:
        return false;
    }
    dc_unreachable();
}

/* Memory that goes with the entry. */
static double weight(const struct entry *e) {
    size_t size = entry_size(e) + sizeof(uint64_t);
    if (entry_kind(e) == VALUE_BLOB) {
        struct value v;
        entry_value(e, &v);
        size += v.blob->cap;
    }
    return (double)size;
}

/* 2 to the power of -age / FADE_TICKS, but for a straight line between the whole powers. */
static double fade(uint32_t age) {
    double part = 1.0 - (double)(age % FADE_TICKS) / (2 * FADE_TICKS);
    return part / (double)((uint64_t)1 << (age / FADE_TICKS));
}

static double hits_weighed(const struct entry *e, uint32_t age) {
    uint32_t hits = e->freq > 0 ? e->freq - 1u : 0;
    return (double)hits * fade(age) + 0.4;
}

static double score(struct store_thread *t, enum evict_policy policy, const struct entry *e) {
    uint32_t age = entry_age(t->store, e);
    switch (policy) {
    case EVICT_ADAPTIVE:
        return (age + AGE_OFFSET) * weight(e) / hits_weighed(e, age);
    case EVICT_ALLKEYS_LRU:
    case EVICT_VOLATILE_LRU:
        return age;
    case EVICT_ALLKEYS_LFU:
    case EVICT_VOLATILE_LFU:
        return (age + 4 * TICKS_PER_POPULATION) / (e->freq + 1.0);
    case EVICT_ALLKEYS_RANDOM:
    case EVICT_VOLATILE_RANDOM:
        return (double)(rng_next(&t->rng) >> 11);
    case EVICT_VOLATILE_TTL:
        return -(double)entry_expiry(e);
    case EVICT_NONE:
        break;
    }
    dc_unreachable();
}

bool store_evict_score(struct store_thread *t, enum evict_policy policy, int64_t now_ms,
                       const struct entry *e, double *out) {
    if (policy == EVICT_NONE || (is_volatile_only(policy) && !entry_has_expiry(e))) {
        return false;
    }
    *out = entry_is_expired(e, now_ms) ? HUGE_VAL : score(t, policy, e);
    return true;
}

/* Keeps the pool sorted, the best candidate last. */
static void pool_add(struct store_thread *t, const struct victim *v) {
    for (uint32_t i = 0; i < t->pool_len; i++) {
        if (t->pool[i].version == v->version && t->pool[i].ks == v->ks) {
            return;
        }
    }
    if (t->pool_len == EVICT_POOL_LEN) {
        if (v->score <= t->pool[0].score) {
            return;
        }
        memmove(&t->pool[0], &t->pool[1], --t->pool_len * sizeof(t->pool[0]));
    }
    uint32_t i = t->pool_len++;
    while (i > 0 && t->pool[i - 1].score > v->score) {
        t->pool[i] = t->pool[i - 1];
        i--;
    }
    t->pool[i] = *v;
}

static void sample(void *arg, struct entry *e) {
    struct draw *d = arg;
    struct store_thread *t = d->thread;
    struct victim v = {.ks = d->ks, .version = entry_version(e), .stamp = entry_stamp(e)};
    if (!store_evict_score(t, d->policy, d->now_ms, e, &v.score)) {
        return;
    }
    d->seen++;
    if (t->pool_len < EVICT_POOL_LEN || v.score > t->pool[0].score) {
        uint64_t hash = crypto_hash(entry_key(e), t->store->seed) & (HASH_END - 1);
        v.pos = (struct pos){(uint64_t)d->slot << HASH_BITS | hash};
        pool_add(t, &v);
    }
}

static bool root_has_candidates(const struct keyspace *ks, const struct root *r,
                                enum evict_policy policy) {
    const _Atomic uint32_t *count = is_volatile_only(policy) ? &r->volatiles : &r->table.count;
    return atomic_load_explicit(count, memory_order_relaxed) > 0 &&
           atomic_load_explicit(&r->gen, memory_order_relaxed) ==
               atomic_load_explicit(&ks->gen, memory_order_relaxed);
}

/* Moves the hand on by a line, or over a root (or keyspace) that has nothing. */
static void hand_step(struct draw *d) {
    struct store_thread *t = d->thread;
    struct store *s = t->store;
    struct keyspace *ks = &s->keyspaces[t->keyspace_hand];
    uint32_t slot = (uint32_t)(t->hand >> HASH_BITS);
    uint64_t next = HASH_END;
    bool used = atomic_load_explicit(&ks->used, memory_order_relaxed) != 0;
    if (used && root_has_candidates(ks, &ks->roots[slot], d->policy)) {
        d->ks = ks;
        d->slot = slot;
        store_lock(s, slot);
        struct root *r = root_enter(ks, slot);
        next = table_step_line(&r->table, t->hand & (HASH_END - 1), s->seed, sample, d);
        if (atomic_load_explicit(&s->packing, memory_order_relaxed)) {
            struct line *line = table_line(&r->table, t->hand & (HASH_END - 1));
            if (line != NULL) {
                pack_line(line);
            }
        }
        store_unlock(s, slot);
    }
    uint64_t base = used ? (uint64_t)slot << HASH_BITS : (uint64_t)(SLOT_COUNT - 1) << HASH_BITS;
    t->hand = base + next; /* wraps to 0 behind the last slot */
    if (t->hand == 0) {
        t->keyspace_hand = (t->keyspace_hand + 1) % s->keyspace_count;
    }
}

bool store_pick_victim(struct store_thread *t, enum evict_policy policy, uint32_t samples,
                       int64_t now_ms, struct victim *out) {
    struct draw d = {.thread = t, .policy = policy, .now_ms = now_ms};
    if (policy == EVICT_NONE) {
        return false;
    }
    access_evicting(t->store, now_ms);
    if (t->pool_policy != policy) {
        t->pool_policy = policy;
        t->pool_len = 0;
    }
    for (uint32_t steps = 0; d.seen < samples && steps < LINES_PER_DRAW_MAX; steps++) {
        hand_step(&d);
    }
    if (t->pool_len == 0) {
        return false;
    }
    *out = t->pool[--t->pool_len];
    return true;
}

struct entry *store_victim(struct store_thread *t, const struct victim *v) {
    (void)t;
    struct root *r = root_enter(v->ks, pos_slot(v->pos));
    struct entry *e = table_find_version(&r->table, pos_hash(v->pos), v->version);
    return e != NULL && entry_stamp(e) == v->stamp ? e : NULL;
}
