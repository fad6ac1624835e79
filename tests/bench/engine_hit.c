/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hit: the hit ratio of a policy on the stream of the load generator's `cache`, under a limit of memory.
 *
 * With --sessions N the stream is another: N sessions are alive at a time, a request is for one of them, and each is
 * followed by a new one after some twenty requests. Whoever clings to what was popular loses there.
 *
 * Memory is what the allocator has handed out, the bench's own excluded; with --resident 1 the pages that hold it, and the allocator's own,
 * sampled now and then and moved between two samples by what the thread allocates, as the node does it.
 */
#include "server/base/mem.h"
#include "server/base/time.h"
#include "tests/bench/engine.h"
#include "tests/bench/lg_zipf.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { PART_COUNT = 10, SAMPLE_EVERY = 2000, REQUESTS_PER_MS = 100, SESSION_REQUESTS = 20 };

struct hit {
    struct bench_opts o;
    struct engine engine;
    struct hand hand;
    struct lg_rng rng;
    struct lg_zipf *zipf;
    enum evict_policy policy;
    uint64_t drawn;
    uint64_t one_hit_next;
    uint64_t *sessions;
    uint64_t session_next;
    uint64_t evicted;
    int64_t budget; /* bytes that may still be allocated */
    uint64_t base;  /* figure of the empty process */
    uint64_t hits[PART_COUNT];
    uint64_t gets[PART_COUNT];
    uint64_t evict_ticks;
};

static uint64_t figure(const struct hit *b) {
    struct mem_stats m;
    mem_stats_read(&m);
    return b->o.resident != 0 ? m.resident - m.dirty : m.allocated;
}

static void budget_sample(struct hit *b) {
    struct mem_stats m;
    mem_stats_read(&m);
    b->budget = (int64_t)(b->o.limit_mb * 1024 * 1024) - (int64_t)(figure(b) - b->base);
    store_set_packing(b->engine.store,
                      b->o.resident != 0 && m.active > m.allocated + m.allocated / 32);
    mem_thread_delta();
}

static void make_room(struct hit *b) {
    b->budget -= mem_thread_delta();
    uint64_t start = time_ticks();
    while (b->budget < 0 && hand_evict(&b->hand, b->policy, (uint32_t)b->o.samples, NULL, NULL)) {
        b->budget -= mem_thread_delta();
        b->evicted++;
    }
    b->evict_ticks += time_ticks() - start;
}

static uint64_t session_draw(struct hit *b) {
    uint64_t i = lg_rng_below(&b->rng, b->o.sessions);
    if (lg_rng_below(&b->rng, SESSION_REQUESTS) == 0) {
        b->sessions[i] = b->session_next++;
    }
    return b->sessions[i];
}

static uint64_t id_draw(struct hit *b) {
    b->drawn++;
    if (b->o.sessions != 0) {
        return session_draw(b);
    }
    if (b->o.drift_pct != 0 && b->drawn % b->o.drift_every == 0) {
        lg_zipf_trade(b->zipf, b->o.keys * b->o.drift_pct / 100, &b->rng);
    }
    if (lg_rng_below(&b->rng, 100) < 20) {
        return LG_ONE_HIT | b->one_hit_next++;
    }
    return lg_zipf_draw(b->zipf, &b->rng);
}

static void request(struct hit *b) {
    char text[32];
    uint64_t id = id_draw(b);
    struct bytes name = bench_name(text, &b->o, id & ~LG_ONE_HIT);
    text[0] = (id & LG_ONE_HIT) != 0 ? 'o' : 'k';
    bool hit = hand_get(&b->hand, 0, name, NULL).alive;
    if (!hit) {
        make_room(b);
        size_t len = lg_value_len(id, b->o.value_min, b->o.value_max);
        bench_must(hand_set(&b->hand, 0, name, bench_value(len), EXPIRY_NONE));
    }
    if (b->drawn > b->o.warmup) {
        uint64_t part = (b->drawn - b->o.warmup - 1) * PART_COUNT / (b->o.requests - b->o.warmup);
        b->gets[part]++;
        b->hits[part] += hit;
    }
    if (b->drawn % SAMPLE_EVERY == 0) {
        budget_sample(b);
        engine_sleep(&b->engine, SAMPLE_EVERY / REQUESTS_PER_MS);
        store_tick(b->engine.store, engine_now(&b->engine));
    }
}

static void report(const struct hit *b) {
    uint64_t hits = 0, gets = 0;
    struct mem_stats m;
    mem_stats_read(&m);
    printf("{\"policy\": \"%s\", \"drift_pct\": %" PRIu64 ", \"parts\": [", b->o.policy,
           b->o.drift_pct);
    for (int i = 0; i < PART_COUNT; i++) {
        hits += b->hits[i];
        gets += b->gets[i];
        printf("%s%.2f", i == 0 ? "" : ", ", 100.0 * (double)b->hits[i] / (double)b->gets[i]);
    }
    printf("], \"hit_pct\": %.3f, \"keys\": %" PRIu64 ", \"evicted\": %" PRIu64
           ", \"evict_ns\": %.0f, \"allocated_mb\": %.1f, \"active_mb\": %.1f}\n",
           100.0 * (double)hits / (double)gets, store_count(b->engine.store), b->evicted,
           (double)time_ticks_to_ns(b->evict_ticks) / (double)(b->evicted + 1),
           (double)(m.allocated - b->base) / 1048576.0, (double)(m.active - b->base) / 1048576.0);
}

static enum evict_policy policy_of(const char *name) {
    static const char *const names[] = {
        [EVICT_ADAPTIVE] = "adaptive",
        [EVICT_ALLKEYS_LRU] = "allkeys-lru",
        [EVICT_ALLKEYS_LFU] = "allkeys-lfu",
        [EVICT_ALLKEYS_RANDOM] = "allkeys-random",
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i] != NULL && strcmp(names[i], name) == 0) {
            return (enum evict_policy)i;
        }
    }
    lg_die("no policy %s", name);
}

static void defaults(struct bench_opts *o) {
    o->keys = o->keys != 0 ? o->keys : 1000000;
    o->requests = o->requests != 0 ? o->requests : 3000000;
    o->warmup = o->warmup != 0 ? o->warmup : o->requests / 3;
    o->limit_mb = o->limit_mb != 0 ? o->limit_mb : 100;
    o->drift_every = o->drift_every != 0 ? o->drift_every : 200000;
    o->value_min = o->value_min != 0 ? o->value_min : 40;
    o->value_max = o->value_max != 0 ? o->value_max : 999;
}

void bench_hit(const struct bench_opts *opts) {
    struct hit *b = lg_grab(sizeof(*b));
    b->o = *opts;
    defaults(&b->o);
    b->policy = policy_of(b->o.policy);
    lg_rng_seed(&b->rng, b->o.seed);
    b->zipf = lg_zipf_create(b->o.keys, 0.9, &b->rng);
    b->sessions = lg_grab((b->o.sessions + 1) * sizeof(uint64_t));
    for (uint64_t i = 0; i < b->o.sessions; i++) {
        b->sessions[i] = b->session_next++;
    }
    engine_init(&b->engine, NULL);
    hand_init(&b->hand, &b->engine, b->o.seed);
    b->base = figure(b);
    budget_sample(b);
    while (b->drawn < b->o.requests) {
        request(b);
    }
    report(b);
    hand_fini(&b->hand);
    engine_fini(&b->engine);
}
