/* SPDX-License-Identifier: BSD-3-Clause */
/* memory: bytes per key above key and value, by the allocator's and the kernel's account, after a fill. */
#include "server/base/mem.h"
#include "tests/bench/engine.h"

#include <inttypes.h>
#include <stdio.h>

void bench_memory(const struct bench_opts *opts) {
    struct bench_opts o = *opts;
    o.keys = o.keys != 0 ? o.keys : 3000000;
    o.value_min = o.value_min != 0 ? o.value_min : 64;
    o.value_max = o.value_max > o.value_min ? o.value_max : o.value_min;
    struct engine e;
    struct hand *h = lg_grab(sizeof(*h));
    struct mem_stats before, after;
    uint64_t content = 0;
    char text[32];
    engine_init(&e, NULL);
    hand_init(h, &e, o.seed);
    bench_value(1);
    mem_stats_read(&before);
    for (uint64_t i = 0; i < o.keys; i++) {
        struct bytes name = bench_name(text, &o, i);
        size_t len = lg_value_len(i, o.value_min, o.value_max);
        int64_t expiry_ms = o.ttl_ms == 0 ? EXPIRY_NONE : ENGINE_NOW_MS + (int64_t)o.ttl_ms;
        bench_must(hand_set(h, 0, name, bench_value(len), expiry_ms));
        content += name.len + len;
    }
    mem_stats_read(&after);
    double keys = (double)o.keys, used = (double)content / keys;
    printf("{\"keys\": %" PRIu64 ", \"content_per_key\": %.1f, \"allocated_over_content\": %.2f, "
           "\"active_over_content\": %.2f, \"rss_over_content\": %.2f, \"tables_per_key\": %.2f}\n",
           o.keys, used, (double)(after.allocated - before.allocated) / keys - used,
           (double)(after.active - before.active) / keys - used,
           (double)(after.process_rss - before.process_rss) / keys - used,
           (double)store_overhead(e.store) / keys);
    hand_fini(h);
    engine_fini(&e);
}
