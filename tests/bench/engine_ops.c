/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ops: nanoseconds per operation on one thread, with its slot lock, as the dispatcher does it. 'batch' hashes and
 * prefetches BATCH keys ahead as a worker does for a pipeline: roots, then lines, then entries.
 */
#include "server/base/time.h"
#include "tests/bench/engine.h"

#include <inttypes.h>
#include <stdio.h>

enum { BATCH = 16 };

struct ops {
    const struct bench_opts *o;
    struct engine engine;
    struct hand hand;
    struct lg_rng rng;
    uint64_t found;
};

static void get_one(struct ops *b, const struct key *k, bool put) {
    struct store *s = b->engine.store;
    struct keyspace *ks = store_keyspace(s, 0);
    store_lock(s, key_slot(k));
    if (put) {
        struct value v = value_of(bench_value(b->o->value_min));
        struct entry *old = store_peek(&b->hand.thread, ks, k, b->hand.mut.now_ms);
        bench_must(mut_put(&b->hand.mut, ks, k, old, &v, EXPIRY_NONE));
        sequencer_commit(&b->engine.sequencer, &b->hand.mut);
    } else {
        struct entry *e = store_get(&b->hand.thread, ks, k, b->hand.mut.now_ms);
        struct value v = {.str = {"", 0}};
        if (e != NULL) {
            entry_value(e, &v);
            b->found += (unsigned char)v.str.ptr[v.str.len / 2] != 0;
        }
    }
    store_unlock(s, key_slot(k));
}

/* Draws 'from' + below(keys). */
static double run(struct ops *b, uint64_t from, bool put, bool batch) {
    const struct bench_opts *o = b->o;
    struct keyspace *ks = store_keyspace(b->engine.store, 0);
    struct key keys[BATCH];
    char texts[BATCH][32];
    b->found = 0;
    uint64_t start = bench_thread_cpu_ns();
    for (uint64_t done = 0; done < o->requests; done += BATCH) {
        for (uint32_t i = 0; i < BATCH; i++) {
            struct bytes name = bench_name(texts[i], o, from + lg_rng_below(&b->rng, o->keys));
            if (!batch) {
                keys[0] = store_key(b->engine.store, name);
                mut_reset(&b->hand.mut, ENGINE_NOW_MS);
                get_one(b, &keys[0], put);
                continue;
            }
            keys[i] = store_key(b->engine.store, name);
            store_prefetch_root(ks, keys[i].pos);
        }
        for (uint32_t i = 0; i < BATCH && batch; i++) {
            store_prefetch_line(ks, keys[i].pos);
        }
        for (uint32_t i = 0; i < BATCH && batch; i++) {
            store_prefetch_entry(b->engine.store, ks, keys[i].pos);
        }
        for (uint32_t i = 0; i < BATCH && batch; i++) {
            mut_reset(&b->hand.mut, ENGINE_NOW_MS);
            get_one(b, &keys[i], put);
        }
    }
    return (double)(bench_thread_cpu_ns() - start) / (double)o->requests;
}

/* What drawing and naming a key costs. */
static double run_nothing(struct ops *b) {
    char text[32];
    uint64_t start = bench_thread_cpu_ns();
    for (uint64_t done = 0; done < b->o->requests; done++) {
        b->found +=
            store_key(b->engine.store, bench_name(text, b->o, lg_rng_below(&b->rng, b->o->keys)))
                .pos.v;
    }
    return (double)(bench_thread_cpu_ns() - start) / (double)b->o->requests;
}

void bench_ops(const struct bench_opts *opts) {
    struct bench_opts o = *opts;
    o.keys = o.keys != 0 ? o.keys : 1000000;
    o.value_min = o.value_min != 0 ? o.value_min : 100;
    o.requests = o.requests != 0 ? o.requests : 4000000;
    struct ops *b = lg_grab(sizeof(*b));
    b->o = &o;
    engine_init(&b->engine, NULL);
    hand_init(&b->hand, &b->engine, o.seed);
    lg_rng_seed(&b->rng, o.seed);
    char text[32];
    uint64_t start = bench_thread_cpu_ns();
    for (uint64_t i = 0; i < o.keys; i++) {
        bench_must(
            hand_set(&b->hand, 0, bench_name(text, &o, i), bench_value(o.value_min), EXPIRY_NONE));
    }
    double insert = (double)(bench_thread_cpu_ns() - start) / (double)o.keys;
    store_tick(b->engine.store, ENGINE_NOW_MS);
    printf("{\"keys\": %" PRIu64 ", \"insert_ns\": %.1f", o.keys, insert);
    printf(", \"hash_and_draw_ns\": %.1f", run_nothing(b));
    printf(", \"get_ns\": %.1f", run(b, 0, false, false));
    printf(", \"get_batch_ns\": %.1f", run(b, 0, false, true));
    printf(", \"miss_ns\": %.1f", run(b, o.keys, false, false));
    printf(", \"miss_batch_ns\": %.1f", run(b, o.keys, false, true));
    printf(", \"put_ns\": %.1f", run(b, 0, true, false));
    printf(", \"put_batch_ns\": %.1f", run(b, 0, true, true));
    uint64_t cpu = bench_thread_cpu_ns();
    for (uint64_t i = 0; i < o.keys; i++) {
        bool existed;
        bench_must(hand_del(&b->hand, 0, bench_name(text, &o, i), &existed));
    }
    printf(", \"del_ns\": %.1f}\n", (double)(bench_thread_cpu_ns() - cpu) / (double)o.keys);
    hand_fini(&b->hand);
    engine_fini(&b->engine);
}
