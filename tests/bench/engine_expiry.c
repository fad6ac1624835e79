/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * expiry: keys that live for a while and are replaced by others, as fast as they expire; a sweep every 100 ms. Time is
 * simulated. What counts is how many entries are resident beyond their time, and what the sweep costs.
 */
#include "server/base/mem.h"
#include "tests/bench/engine.h"

#include <inttypes.h>
#include <stdio.h>

enum { STEP_MS = 10, SWEEP_MS = 100 };

struct expiry {
    struct bench_opts o;
    struct engine engine;
    struct hand hand;
    struct store_sweep sweep;
    uint64_t next;
    uint64_t sweep_ns;
    uint64_t sweep_worst_ns;
    uint64_t looked_at;
    uint64_t sweeps;
    double share_sum;
    double share_worst;
};

static void sweep(struct expiry *b, bool counted) {
    uint64_t start = bench_thread_cpu_ns();
    uint64_t seen =
        store_sweep(&b->hand.thread, &b->sweep, engine_now(&b->engine), UINT64_MAX, NULL, NULL);
    uint64_t ns = bench_thread_cpu_ns() - start;
    if (!counted) {
        return;
    }
    b->looked_at += seen;
    b->sweep_ns += ns;
    b->sweep_worst_ns = ns > b->sweep_worst_ns ? ns : b->sweep_worst_ns;
    b->sweeps++;
}

static void second(struct expiry *b, bool counted) {
    const struct bench_opts *o = &b->o;
    char text[32];
    for (uint32_t ms = 0; ms < 1000; ms += STEP_MS) {
        engine_sleep(&b->engine, STEP_MS);
        for (uint64_t i = 0; i < o->rate * STEP_MS / 1000; i++) {
            size_t len = lg_value_len(b->next, o->value_min, o->value_max);
            int64_t expiry_ms = engine_now(&b->engine) + (int64_t)o->ttl_ms;
            bench_must(
                hand_set(&b->hand, 0, bench_name(text, o, b->next++), bench_value(len), expiry_ms));
        }
        if (ms % SWEEP_MS == 0) {
            /* Just before the sweep it is worst. */
            double alive = (double)(o->rate * o->ttl_ms) / 1000.0;
            double share = ((double)store_count(b->engine.store) - alive) / alive;
            if (counted) {
                b->share_sum += share;
                b->share_worst = share > b->share_worst ? share : b->share_worst;
            }
            sweep(b, counted);
        }
    }
}

void bench_expiry(const struct bench_opts *opts) {
    struct expiry *b = lg_grab(sizeof(*b));
    b->o = *opts;
    b->o.rate = b->o.rate != 0 ? b->o.rate : 100000;
    b->o.ttl_ms = b->o.ttl_ms != 0 ? b->o.ttl_ms : 10000;
    b->o.seconds = b->o.seconds != 0 ? b->o.seconds : 30;
    b->o.value_min = b->o.value_min != 0 ? b->o.value_min : 100;
    b->o.value_max = b->o.value_max != 0 ? b->o.value_max : b->o.value_min;
    engine_init(&b->engine, NULL);
    hand_init(&b->hand, &b->engine, b->o.seed);
    uint64_t warm = b->o.ttl_ms / 1000 + 3;
    for (uint64_t s = 0; s < warm + b->o.seconds; s++) {
        second(b, s >= warm);
    }
    double seconds = (double)b->o.seconds;
    printf("{\"rate\": %" PRIu64 ", \"ttl_ms\": %" PRIu64 ", \"expired_resident_mean\": %.4f, "
           "\"expired_resident_worst\": %.4f, \"sweep_cpu_share\": %.4f, \"sweep_worst_ms\": %.2f, "
           "\"looks_per_expired\": %.2f}\n",
           b->o.rate, b->o.ttl_ms, b->share_sum / (seconds * 1000 / SWEEP_MS), b->share_worst,
           (double)b->sweep_ns / seconds / 1e9, (double)b->sweep_worst_ns / 1e6,
           (double)b->looked_at / seconds / (double)b->o.rate);
    hand_fini(&b->hand);
    engine_fini(&b->engine);
}
