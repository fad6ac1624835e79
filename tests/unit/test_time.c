/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/thread.h"
#include "server/base/time.h"
#include "tests/support/check_main.h"

/* A story of clocks: the test moves both by hand, a tenth of a second per step, and the invariant is checked at each. */
struct story {
    struct node_clock clock;
    int64_t wall_us, mono_us;
    int64_t last_node_us;
    int told[4];
};

static const int64_t second = 1000000;
static const int64_t day = 86400 * (int64_t)1000000;

static void begin(struct story *s) {
    *s = (struct story){.wall_us = 1700000000 * second, .mono_us = 5000 * second};
    clock_init(&s->clock, s->wall_us, s->mono_us);
    s->last_node_us = s->wall_us;
}

static void pass(struct story *s, int64_t us) {
    for (; us > 0; us -= second / 10) {
        s->wall_us += second / 10;
        s->mono_us += second / 10;
        s->told[clock_step(&s->clock, s->wall_us, s->mono_us)]++;
        int64_t node_us = clock_at_us(&s->clock, s->mono_us);
        ck_assert_int_ge(node_us, s->last_node_us + second / 10); /* I1, and never slower */
        s->last_node_us = node_us;
    }
}

static int64_t ahead_us(const struct story *s) {
    return clock_at_us(&s->clock, s->mono_us) - s->wall_us;
}

START_TEST(it_follows_a_steady_clock) {
    struct story s;
    begin(&s);
    pass(&s, 100 * second);
    ck_assert_int_eq(ahead_us(&s), 0);
    ck_assert_int_eq(s.told[CLOCK_STEADY], 1000);
}
END_TEST

START_TEST(small_steps_forward_are_taken_at_once) {
    struct story s;
    begin(&s);
    s.wall_us += CLOCK_SMALL_STEP_MS * 1000;
    pass(&s, second / 10);
    ck_assert_int_eq(ahead_us(&s), 0);
    ck_assert_int_eq(s.told[CLOCK_STEADY], 1);
}
END_TEST

START_TEST(small_steps_back_are_waited_out_silently) {
    struct story s;
    begin(&s);
    s.wall_us -= second;
    pass(&s, 10 * second);
    ck_assert_int_eq(ahead_us(&s), second);
    s.wall_us += second;
    pass(&s, second);
    ck_assert_int_eq(ahead_us(&s), 0);
    ck_assert_int_eq(s.told[CLOCK_STEADY], 110);
}
END_TEST

/* H31: what has expired stays gone. */
START_TEST(test_h31_ten_seconds_back_are_not_followed) {
    struct story s;
    begin(&s);
    pass(&s, 10 * second);
    s.wall_us -= 10 * second;
    pass(&s, 100 * second);
    ck_assert_int_eq(ahead_us(&s), 10 * second);
    ck_assert_int_eq(s.told[CLOCK_STEPPED_BACK], 1);
    s.wall_us += 9 * second; /* nearly */
    pass(&s, second);
    ck_assert_int_eq(s.told[CLOCK_CAUGHT_UP], 0);
    s.wall_us += second + 1;
    pass(&s, second);
    ck_assert_int_eq(s.told[CLOCK_CAUGHT_UP], 1);
    ck_assert_int_eq(ahead_us(&s), 0);
}
END_TEST

/* H31: sessions aren't wiped out. */
START_TEST(test_h31_a_day_ahead_for_a_moment_is_not_believed) {
    struct story s;
    begin(&s);
    s.wall_us += day;
    pass(&s, CLOCK_JUMP_GRACE_MS * 1000 - second);
    ck_assert_int_eq(ahead_us(&s), -day);
    s.wall_us -= day;
    pass(&s, 100 * second);
    ck_assert_int_eq(ahead_us(&s), 0);
    ck_assert_int_eq(s.told[CLOCK_JUMPED_FORWARD], 1);
    ck_assert_int_eq(s.told[CLOCK_CAUGHT_UP], 1);
    ck_assert_int_eq(s.told[CLOCK_STEPPED_BACK], 0);
}
END_TEST

START_TEST(a_jump_that_lasts_is_adopted_at_twice_the_rate) {
    struct story s;
    begin(&s);
    s.wall_us += 100 * second;
    pass(&s, CLOCK_JUMP_GRACE_MS * 1000);
    ck_assert_int_eq(ahead_us(&s), -100 * second);
    pass(&s, 10 * second);
    ck_assert_int_eq(ahead_us(&s), -90 * second);
    pass(&s, 100 * second);
    ck_assert_int_eq(ahead_us(&s), 0);
    ck_assert_int_eq(s.told[CLOCK_JUMPED_FORWARD], 1);
    ck_assert_int_eq(s.told[CLOCK_CAUGHT_UP], 1);
}
END_TEST

START_TEST(a_jump_taken_back_while_it_is_adopted_leaves_the_node_ahead) {
    struct story s;
    begin(&s);
    s.wall_us += day;
    pass(&s, CLOCK_JUMP_GRACE_MS * 1000 + 30 * second);
    s.wall_us -= day;
    pass(&s, second);
    ck_assert_int_eq(ahead_us(&s), 30 * second);
    ck_assert_int_eq(s.told[CLOCK_STEPPED_BACK], 1);
    s.wall_us += day; /* and once more: told again, with a grace of its own */
    pass(&s, CLOCK_JUMP_GRACE_MS * 1000 - second);
    ck_assert_int_eq(s.told[CLOCK_JUMPED_FORWARD], 2);
    ck_assert_int_eq(ahead_us(&s), 30 * second - day);
}
END_TEST

/* I2 */
START_TEST(time_found_in_a_log_is_a_floor) {
    struct story s;
    begin(&s);
    int64_t found_us = s.wall_us + 3600 * second;
    clock_raise_floor(&s.clock, found_us, s.mono_us);
    ck_assert_int_eq(clock_at_us(&s.clock, s.mono_us), found_us);
    clock_raise_floor(&s.clock, s.wall_us, s.mono_us); /* lower: nothing */
    pass(&s, second);
    ck_assert_int_eq(ahead_us(&s), 3600 * second);
    ck_assert_int_eq(s.told[CLOCK_STEPPED_BACK], 1);
}
END_TEST

START_TEST(any_sequence_of_clocks_keeps_the_node_going_forward) {
    struct rng r = test_rng();
    struct story s;
    begin(&s);
    for (int i = 0; i < 2000; i++) {
        int64_t range_us = rng_below(&r, 2) ? 4 * second : 200 * second;
        s.wall_us += (int64_t)rng_below(&r, (uint64_t)range_us) - range_us / 2;
        pass(&s, (int64_t)rng_below(&r, 30) * second / 10);
    }
}
END_TEST

static void read_clock(void *arg) {
    const struct node_clock *c = arg;
    int64_t last = 0;
    for (int i = 0; i < 20000; i++) {
        int64_t now = clock_now_us(c);
        ck_assert_int_ge(now, last);
        last = now;
    }
}

START_TEST(readers_never_see_it_step_back) {
    struct node_clock c;
    clock_init(&c, time_wall_us(), time_mono_us());
    struct thread t;
    thread_start(&t, "reader", read_clock, &c);
    for (int i = 0; i < 20000; i++) {
        clock_step(&c, time_wall_us() + (i % 3 - 1) * 1500000, time_mono_us());
    }
    thread_join(&t);
    ck_assert_int_ge(clock_now_ms(&c), time_wall_us() / 1000 - 1);
}
END_TEST

START_TEST(ticks_measure_durations) {
    time_calibrate();
    int64_t start_us = time_mono_us();
    uint64_t ticks = time_ticks();
    usleep(50000);
    uint64_t ns = time_ticks_to_ns(time_ticks() - ticks);
    int64_t us = time_mono_us() - start_us;
    ck_assert_uint_gt(ns, 45000000);
    ck_assert_int_lt(llabs((int64_t)ns / 1000 - us), us / 20 + 500);
    ck_assert_uint_eq(time_ticks_to_ns(0), 0);
    ck_assert_int_gt(time_wall_us(), 1600000000 * second);
}
END_TEST

CHECK_MAIN("time", it_follows_a_steady_clock, small_steps_forward_are_taken_at_once,
           small_steps_back_are_waited_out_silently, test_h31_ten_seconds_back_are_not_followed,
           test_h31_a_day_ahead_for_a_moment_is_not_believed,
           a_jump_that_lasts_is_adopted_at_twice_the_rate,
           a_jump_taken_back_while_it_is_adopted_leaves_the_node_ahead,
           time_found_in_a_log_is_a_floor, any_sequence_of_clocks_keeps_the_node_going_forward,
           readers_never_see_it_step_back, ticks_measure_durations)
