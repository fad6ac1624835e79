/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * growth: the worst insertion that a growing table causes; flush: the worst hold of a lock while a flush is cleared away.
 *
 * An insertion that allocated more than its entry is one that made a table grow. The same insertions grow the same
 * tables in every repetition, so of each one the fastest run counts: what remains is the work, without
 * the scheduler, interrupts and neighbours of the machine. The raw worst stands beside it.
 */
#include "server/base/mem.h"
#include "server/base/time.h"
#include "tests/bench/engine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { WORST_COUNT = 5 };

struct growth {
    const struct bench_opts *o;
    uint32_t *least_ns; /* of the insertions that made a table grow, in their order */
    uint64_t grown;
    uint64_t raw_worst_ns;
    uint64_t raw_worst_other_ns; /* insertions without growth */
};

static void insert_all(struct growth *g, struct hand *h, bool first) {
    const struct bench_opts *o = g->o;
    char text[32];
    struct bytes value = bench_value(16);
    g->grown = 0;
    for (uint64_t i = 0; i < o->to; i++) {
        struct bytes name = bench_name(text, o, i);
        mem_thread_delta();
        uint64_t start = time_ticks();
        bench_must(hand_set(h, 0, name, value, EXPIRY_NONE));
        uint64_t ns = time_ticks_to_ns(time_ticks() - start);
        bool grew = mem_thread_delta() > 64; /* the entry takes 48 */
        if (i < o->from) {
            continue;
        }
        uint64_t *worst = grew ? &g->raw_worst_ns : &g->raw_worst_other_ns;
        *worst = ns > *worst ? ns : *worst;
        if (grew) {
            uint32_t *least = &g->least_ns[g->grown++];
            uint32_t now = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
            *least = first || now < *least ? now : *least;
        }
    }
}

static int descending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x < y) - (x > y);
}

static double us_at(const struct growth *g, uint64_t i) {
    return i < g->grown ? g->least_ns[i] / 1e3 : 0;
}

void bench_growth(const struct bench_opts *opts) {
    struct bench_opts o = *opts;
    o.from = o.from != 0 ? o.from : 1000000;
    o.to = o.to != 0 ? o.to : 10000000;
    struct growth g = {.o = &o, .least_ns = lg_grab(o.to * sizeof(uint32_t))};
    for (uint64_t run = 0; run < o.repeat; run++) {
        struct engine e;
        struct hand *h = lg_grab(sizeof(*h));
        engine_init(&e, NULL);
        hand_init(h, &e, o.seed);
        insert_all(&g, h, run == 0);
        hand_fini(h);
        engine_fini(&e);
    }
    qsort(g.least_ns, g.grown, sizeof(*g.least_ns), descending);
    printf("{\"from\": %" PRIu64 ", \"to\": %" PRIu64 ", \"repeat\": %" PRIu64
           ", \"resizes\": %" PRIu64 ", \"worst_resize_us\": %.1f, \"next_worst_us\": [",
           o.from, o.to, o.repeat, g.grown, us_at(&g, 0));
    for (uint64_t i = 1; i < WORST_COUNT; i++) {
        printf("%s%.1f", i == 1 ? "" : ", ", us_at(&g, i));
    }
    printf(
        "], \"resize_p999_us\": %.1f, \"resize_median_us\": %.1f, \"raw_worst_resize_us\": %.1f, "
        "\"raw_worst_other_us\": %.1f}\n",
        us_at(&g, g.grown / 1000), us_at(&g, g.grown / 2), (double)g.raw_worst_ns / 1e3,
        (double)g.raw_worst_other_ns / 1e3);
}

/* The longest command and the longest part of the sweep after a flush. */
void bench_flush(const struct bench_opts *opts) {
    struct bench_opts o = *opts;
    o.keys = o.keys != 0 ? o.keys : 1000000;
    struct engine e;
    struct hand *h = lg_grab(sizeof(*h));
    char text[32];
    engine_init(&e, NULL);
    hand_init(h, &e, o.seed);
    for (uint64_t i = 0; i < o.keys; i++) {
        bench_must(hand_set(h, 0, bench_name(text, &o, i), bench_value(64), EXPIRY_NONE));
    }
    uint64_t start = time_ticks();
    bench_must(hand_flush(h, 0));
    uint64_t flush_ns = time_ticks_to_ns(time_ticks() - start);
    start = time_ticks();
    (void)hand_peek(h, 0, bench_name(text, &o, 0), NULL);
    uint64_t look_ns = time_ticks_to_ns(time_ticks() - start);
    start = time_ticks();
    hand_sweep(h, NULL, NULL);
    uint64_t sweep_ns = time_ticks_to_ns(time_ticks() - start);
    printf("{\"keys\": %" PRIu64
           ", \"flush_us\": %.1f, \"next_look_us\": %.1f, \"sweep_ms\": %.1f, "
           "\"left\": %" PRIu64 "}\n",
           o.keys, (double)flush_ns / 1e3, (double)look_ns / 1e3, (double)sweep_ns / 1e6,
           store_count(e.store));
    hand_fini(h);
    engine_fini(&e);
}
