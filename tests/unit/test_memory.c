/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/memory.h"

#include "server/cmd/janitor.h"
#include "tests/support/wired_node.h"

#define MIB ((int64_t)1024 * 1024)

enum { OWN_MIB = 20 };

static struct memory_verdict judge(struct memory_control *c, int64_t allocated, int64_t rss,
                                   int64_t dirty, int64_t max) {
    struct mem_stats m = {.allocated = (uint64_t)allocated,
                          .active = (uint64_t)allocated,
                          .resident = (uint64_t)rss,
                          .process_rss = (uint64_t)rss,
                          .dirty = (uint64_t)dirty};
    return memory_judge(c, &m, OWN_MIB * MIB, (uint64_t)max);
}

/* --- the arithmetic ---------------------------------------------------------------------------------------------- */

START_TEST(below_the_limit_the_difference_is_free) {
    struct memory_control c = {.holds = false};
    struct memory_verdict v = judge(&c, (OWN_MIB + 60) * MIB, 70 * MIB, 0, 100 * MIB);
    ck_assert_int_eq(v.budget, 100 * MIB + 100 * MIB / 64 + 8 * MIB - 70 * MIB);
    v = judge(&c, (OWN_MIB + 90) * MIB, 70 * MIB, 0, 100 * MIB);
    ck_assert_int_eq(v.budget,
                     10 * MIB); /* what was allocated before the first key isn't counted */
    v = judge(&c, (OWN_MIB + 103) * MIB, 70 * MIB, 0, 100 * MIB);
    ck_assert_int_eq(v.budget, -3 * MIB);
    ck_assert(!v.purge);
}
END_TEST

START_TEST(unused_pages_count_only_when_they_are_too_many) {
    struct memory_control c = {.holds = false};
    struct memory_verdict v = judge(&c, (OWN_MIB + 50) * MIB, 110 * MIB, 40 * MIB, 100 * MIB);
    ck_assert_int_gt(v.budget, 30 * MIB);
    ck_assert(!v.purge);
    v = judge(&c, (OWN_MIB + 50) * MIB, 120 * MIB, 40 * MIB, 100 * MIB);
    ck_assert_int_gt(v.budget, 20 * MIB);
    ck_assert(v.purge);
}
END_TEST

/* Between the two limits. */
START_TEST(only_growth_evicts_and_the_more_the_nearer_the_hard_limit) {
    struct memory_control c = {.holds = false};
    int64_t allocated = (OWN_MIB + 80) * MIB;
    ck_assert_int_eq(judge(&c, allocated, 110 * MIB, 0, 100 * MIB).budget, 0);
    int64_t still = judge(&c, allocated, 110 * MIB, 0, 100 * MIB).budget;
    ck_assert_int_ge(still, 0); /* nothing grows, nothing has to go */
    ck_assert_int_lt(still, MIB / 4);
    int64_t low = judge(&c, allocated, 111 * MIB, 0, 100 * MIB).budget;
    ck_assert_int_lt(low, -MIB);
    c = (struct memory_control){.holds = true, .target = allocated, .resident = 112 * MIB};
    int64_t high = judge(&c, allocated, 113 * MIB, 0, 100 * MIB).budget;
    ck_assert_int_lt(high, low + low / 2);
}
END_TEST

START_TEST(above_the_hard_limit_more_than_the_excess_goes) {
    struct memory_control c = {.holds = false};
    int64_t hard = 100 * MIB + 100 * MIB / 40 + 12 * MIB;
    ck_assert_int_eq(judge(&c, 50 * MIB, hard + 7 * MIB, 0, 100 * MIB).budget, -28 * MIB);
    ck_assert_int_le(hard, 100 * MIB / 100 * 105 + 16 * MIB); /* I2 */
}
END_TEST

START_TEST(those_who_cant_evict_may_fill_free_places) {
    struct memory_control c = {.holds = false};
    struct mem_stats m = {.allocated = (uint64_t)((OWN_MIB + 40) * MIB),
                          .active = (uint64_t)((OWN_MIB + 90) * MIB),
                          .process_rss = (uint64_t)(120 * MIB)};
    struct memory_verdict v = memory_judge(&c, &m, OWN_MIB * MIB, (uint64_t)(100 * MIB));
    ck_assert_int_lt(v.budget, 0);
    ck_assert_int_gt(v.spare, 20 * MIB);
    m.allocated = (uint64_t)((OWN_MIB + 90) * MIB);
    v = memory_judge(&c, &m, OWN_MIB * MIB, (uint64_t)(100 * MIB));
    ck_assert_int_lt(v.spare, 0);
}
END_TEST

/*
 * A process whose values change their size: what is freed on old pages is of no use to the new ones until a page is
 * empty, which takes 'left' of every hundred entries of the old kind to be gone. In each step, 10 ms, 'rate' bytes come.
 */
START_TEST(a_shift_of_sizes_stays_below_the_bound) {
    const int64_t max = 100 * MIB, rate = 2 * MIB;
    struct memory_control c = {.holds = false};
    int64_t old_pages = 105 * MIB, old_live = 100 * MIB, new_live = 0, worst = 0, least = max;
    for (int step = 0; step < 2000; step++) {
        int64_t rss = 4 * MIB + old_pages + new_live + new_live / 20;
        int64_t allocated = OWN_MIB * MIB + old_live + new_live;
        worst = rss > worst ? rss : worst;
        least = old_live + new_live < least ? old_live + new_live : least;
        int64_t budget = judge(&c, allocated, rss, 0, max).budget - rate;
        int64_t gone = budget < 0 ? -budget : 0;
        int64_t from_old = gone * old_live / (old_live + new_live + 1);
        new_live += rate - (gone - from_old);
        old_live -= from_old < old_live ? from_old : old_live;
        int64_t needed =
            old_live + old_live / 20 + (old_live > 30 * MIB ? (105 * MIB - old_live) : 0);
        old_pages = needed < old_pages ? needed : old_pages;
    }
    ck_assert_int_le(worst, max / 100 * 105 + 16 * MIB);
    ck_assert_int_ge(old_live + new_live, max * 9 / 10); /* and memory is used again in the end */
    ck_assert_int_ge(least, max / 4);
}
END_TEST

/* --- eviction ---------------------------------------------------------------------------------------------------- */

static struct wired_node w;

static void fill(uint32_t count, int64_t expiry_ms) {
    char name[32];
    for (uint32_t i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "key:%u", i);
        wired_set(&w, name, BYTES("a value of some length"), expiry_ms);
    }
}

static void set_option(const char *name, const char *value) {
    struct bytes pair[] = {bytes_str(name), bytes_str(value)};
    ck_assert_int_eq(conf_set(&w.conf, pair, 1), DC_OK);
}

/* As if a sample had found this; the next one is a long way off. */
static void pretend(int64_t budget, int64_t spare) {
    atomic_store(&w.node.memory_budget, budget);
    atomic_store(&w.node.memory.spare, spare);
    atomic_store(&w.node.memory.sampled_ticks, time_ticks() + ((uint64_t)1 << 50));
}

START_TEST(without_a_limit_nothing_is_short) {
    wired_node_init(&w, NULL, 0);
    ck_assert_uint_eq(memory_sample(&w.node), JANITOR_PERIOD_MS);
    fill(1000, EXPIRY_NONE);
    ck_assert(!memory_is_short(w.workers[0]));
    ck_assert_uint_gt(atomic_load(&w.node.memory.startup), 0);
    wired_node_fini(&w);
}
END_TEST

START_TEST(room_is_made_by_eviction) {
    wired_node_init(&w, NULL, 0);
    (void)memory_sample(&w.node);
    fill(1000, EXPIRY_NONE);
    set_option("maxmemory", "100mb");
    (void)memory_sample(&w.node);
    ck_assert(!memory_is_short(w.workers[0]));
    pretend(-1, -1);
    ck_assert(memory_is_short(w.workers[0]));
    ck_assert_int_eq(memory_make_room(w.workers[0]), DC_OK);
    ck_assert(!memory_is_short(w.workers[0]));
    uint64_t evicted = metric_sum(METRIC_EVICTED);
    ck_assert_uint_ge(evicted, 1);
    ck_assert_uint_eq(store_count(w.node.store), 1000 - evicted);
    pretend(-10 * 1024, -10 * 1024);
    ck_assert_int_eq(memory_make_room(w.workers[0]), DC_OK);
    ck_assert_uint_gt(metric_sum(METRIC_EVICTED), evicted + 50);
    wired_node_fini(&w);
}
END_TEST

START_TEST(one_command_evicts_a_bounded_number) {
    wired_node_init(&w, NULL, 0);
    fill(1000, EXPIRY_NONE);
    set_option("maxmemory", "1gb");
    (void)memory_sample(&w.node);
    (void)memory_is_short(w.workers[0]);
    pretend(-1024 * 1024, -1024 * 1024);
    ck_assert_int_eq(memory_make_room(w.workers[0]), DC_OK);
    ck_assert_uint_eq(metric_sum(METRIC_EVICTED), 256);
    wired_node_fini(&w);
}
END_TEST

START_TEST(when_nothing_may_go_the_command_is_refused) {
    wired_node_init(&w, NULL, 0);
    fill(100, EXPIRY_NONE);
    set_option("maxmemory", "1gb");
    (void)memory_sample(&w.node);
    (void)memory_is_short(w.workers[0]);
    pretend(-1024, -1024);
    set_option("maxmemory-policy", "noeviction");
    ck_assert_int_eq(memory_make_room(w.workers[0]), DC_EOOM);
    set_option("maxmemory-policy", "volatile-lru");
    ck_assert_int_eq(memory_make_room(w.workers[0]), DC_EOOM);
    ck_assert_uint_eq(store_count(w.node.store), 100);
    pretend(-1024, 1024); /* there are free places */
    ck_assert_int_eq(memory_make_room(w.workers[0]), DC_OK);
    wired_node_fini(&w);
}
END_TEST

START_TEST(an_expired_victim_counts_as_expired) {
    wired_node_init(&w, NULL, 0);
    fill(10, 1);
    struct evictor by = {.node = &w.node,
                         .worker = w.workers[0],
                         .store = &w.workers[0]->store,
                         .mut = &w.workers[0]->evict_mut,
                         .feed = w.workers[0]->feed};
    ck_assert(memory_evict(&by, w.workers[0]->now_us / 1000));
    ck_assert_uint_eq(metric_sum(METRIC_EVICTED), 0);
    ck_assert_uint_eq(metric_sum(METRIC_EXPIRED), 1);
    ck_assert_uint_eq(store_count(w.node.store), 9);
    wired_node_fini(&w);
}
END_TEST

/* --- the janitor ------------------------------------------------------------------------------------------------- */

START_TEST(the_janitor_sweeps_ends_pauses_and_stops_at_once) {
    wired_node_init(&w, NULL, 0);
    int64_t now_ms = clock_now_ms(&w.node.clock);
    fill(100, now_ms + 20);
    atomic_store(&w.node.pause_until_ms, now_ms + 20);
    struct janitor *j = janitor_start(&w.node);
    for (int i = 0; i < 500 && (store_count(w.node.store) > 0 || w.resumed == 0); i++) {
        usleep(20000);
    }
    int64_t began_us = time_mono_us();
    janitor_stop(j);
    ck_assert_int_lt(time_mono_us() - began_us, 2000000);
    ck_assert_uint_eq(store_count(w.node.store), 0);
    ck_assert_uint_eq(w.resumed, 1);
    ck_assert_int_eq(atomic_load(&w.node.pause_until_ms), 0);
    wired_node_fini(&w);
}
END_TEST

START_TEST(the_janitor_lowers_memory_when_nobody_writes) {
    wired_node_init(&w, NULL, 0);
    (void)memory_sample(&w.node);
    fill(20000, EXPIRY_NONE);
    set_option("maxmemory", "1mb");
    struct janitor *j = janitor_start(&w.node);
    for (int i = 0; i < 500 && store_count(w.node.store) > 19000; i++) {
        usleep(20000);
    }
    janitor_stop(j);
    ck_assert_uint_lt(store_count(w.node.store), 20000);
    ck_assert_uint_gt(metric_sum(METRIC_EVICTED), 0);
    wired_node_fini(&w);
}
END_TEST

CHECK_MAIN("memory", below_the_limit_the_difference_is_free,
           unused_pages_count_only_when_they_are_too_many,
           only_growth_evicts_and_the_more_the_nearer_the_hard_limit,
           above_the_hard_limit_more_than_the_excess_goes,
           those_who_cant_evict_may_fill_free_places, a_shift_of_sizes_stays_below_the_bound,
           without_a_limit_nothing_is_short, room_is_made_by_eviction,
           one_command_evicts_a_bounded_number, when_nothing_may_go_the_command_is_refused,
           an_expired_victim_counts_as_expired, the_janitor_sweeps_ends_pauses_and_stops_at_once,
           the_janitor_lowers_memory_when_nobody_writes)
