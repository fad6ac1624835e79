/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/latency.h"

#include "tests/support/wired_node.h"

START_TEST(of_one_second_the_highest_spike_stays) {
    struct latency *l = latency_create();
    struct latency_event e;
    ck_assert(!latency_find(l, BYTES("command"), &e));
    latency_add(l, "command", 100, 20);
    latency_add(l, "command", 100, 50);
    latency_add(l, "command", 100, 30);
    latency_add(l, "command", 101, 10);
    ck_assert(latency_find(l, BYTES("command"), &e));
    ck_assert_uint_eq(e.count, 2);
    ck_assert_uint_eq(e.spikes[0].ms, 50);
    ck_assert_int_eq(e.spikes[1].time_s, 101);
    ck_assert_uint_eq(e.spikes[1].ms, 10);
    ck_assert_uint_eq(e.max_ms, 50);
    latency_destroy(l);
}
END_TEST

START_TEST(history_is_bounded) {
    struct latency *l = latency_create();
    struct latency_event e;
    for (int i = 0; i < LATENCY_HISTORY + 5; i++) {
        latency_add(l, "command", 1000 + i, i == 0 ? 99 : 10);
    }
    ck_assert(latency_find(l, BYTES("command"), &e));
    ck_assert_uint_eq(e.count, LATENCY_HISTORY);
    ck_assert_int_eq(e.spikes[0].time_s, 1005);
    ck_assert_int_eq(e.spikes[LATENCY_HISTORY - 1].time_s, 1000 + LATENCY_HISTORY + 4);
    ck_assert_uint_eq(e.max_ms, 99); /* of all time, not of what is kept */
    latency_destroy(l);
}
END_TEST

START_TEST(events_are_bounded) {
    struct latency *l = latency_create();
    struct latency_event e;
    char name[LATENCY_NAME_MAX];
    for (int i = 0; i < LATENCY_EVENTS_MAX + 1; i++) {
        snprintf(name, sizeof(name), "event-%d", i);
        latency_add(l, name, 1, 1);
    }
    ck_assert(latency_at(l, LATENCY_EVENTS_MAX - 1, &e));
    ck_assert(!latency_at(l, LATENCY_EVENTS_MAX, &e));
    ck_assert(!latency_find(l, bytes_str(name), &e));
    latency_destroy(l);
}
END_TEST

START_TEST(one_event_or_all_can_be_forgotten) {
    struct latency *l = latency_create();
    struct latency_event e;
    latency_add(l, "a", 1, 1);
    latency_add(l, "b", 1, 1);
    latency_add(l, "c", 1, 1);
    ck_assert_uint_eq(latency_reset(l, BYTES("nosuch")), 0);
    ck_assert_uint_eq(latency_reset(l, BYTES("b")), 1);
    ck_assert(latency_at(l, 1, &e));
    ck_assert_str_eq(e.name, "c");
    ck_assert_uint_eq(latency_reset(l, bytes_of(NULL, 0)), 2);
    ck_assert(!latency_at(l, 0, &e));
    latency_destroy(l);
}
END_TEST

START_TEST(what_is_below_the_threshold_is_not_kept) {
    static struct wired_node w;
    struct latency_event e;
    struct bytes option[] = {BYTES("latency-monitor-threshold"), BYTES("10")};
    wired_node_init(&w, NULL, 0);
    latency_note(&w.node, "command", 1000); /* off */
    ck_assert(!latency_at(w.node.latency, 0, &e));
    ck_assert_int_eq(conf_set(&w.conf, option, 1), DC_OK);
    latency_note(&w.node, "command", 9);
    ck_assert(!latency_at(w.node.latency, 0, &e));
    latency_note(&w.node, "command", 10);
    ck_assert(latency_at(w.node.latency, 0, &e));
    ck_assert_uint_eq(e.spikes[0].ms, 10);
    wired_node_fini(&w);
}
END_TEST

START_TEST(buckets_double) {
    ck_assert_uint_eq(latency_bucket(0), 0);
    ck_assert_uint_eq(latency_bucket(1), 0);
    ck_assert_uint_eq(latency_bucket(2), 1);
    ck_assert_uint_eq(latency_bucket(3), 1);
    ck_assert_uint_eq(latency_bucket(4), 2);
    ck_assert_uint_eq(latency_bucket(1023), 9);
    ck_assert_uint_eq(latency_bucket(1024), 10);
    ck_assert_uint_eq(latency_bucket((uint64_t)1 << (LATENCY_BUCKETS - 1)), LATENCY_BUCKETS - 1);
    ck_assert_uint_eq(latency_bucket(UINT64_MAX), LATENCY_BUCKETS - 1);
}
END_TEST

CHECK_MAIN("latency", of_one_second_the_highest_spike_stays, history_is_bounded, events_are_bounded,
           one_event_or_all_can_be_forgotten, what_is_below_the_threshold_is_not_kept,
           buckets_double)
