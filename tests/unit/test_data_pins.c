/* SPDX-License-Identifier: BSD-3-Clause */
/* Readers that retention waits for: what one holds, for how long, and how it finds out that it doesn't. */
#include "persist/data.h"
#include "server/base/mem.h"
#include "tests/support/check_main.h"
#include "tests/support/data_case.h"
#include "tests/support/expect.h"

static struct data_case c; /* its engine and log are those of the primary that 'd' follows */
static struct data d;
static struct log_feed *feed;

/* What retention is told; nothing is removed. */
static uint64_t held(void) {
    uint64_t lsn = pins_hold(&d);
    pins_let_go(&d);
    return lsn;
}

/* At the head, which is returned. */
static uint64_t pin_here(uint32_t *pin) {
    uint64_t from = log_head(d.log).v;
    must(data_pin(&d, from, pin));
    return from;
}

static void write_keys(uint32_t count) {
    char key[32];
    for (uint32_t i = 0; i < count; i++) {
        must(hand_set(&c.hand, 0, key_of(key, "key", i), BYTES("value"), EXPIRY_NONE));
    }
    uint64_t end = log_file_end(&c.log), head = log_head(d.log).v;
    must(log_put(feed, head, c.log.bytes.ptr + (head - c.log.first_lsn), (size_t)(end - head)));
    log_kick(d.log);
    log_set_applied(d.log, log_head(d.log));
    expect(log_wait(d.log, LOG_LEVEL_OS, log_head(d.log), 10000000));
}

static void begin(void) {
    struct log_opts opts = {.keeps = true,
                            .follows = true,
                            .sync = LOG_SYNC_EVERYSEC,
                            .segment_len = 1 << 20,
                            .memory_limit = 1 << 20};
    char key[32];
    case_open(&c);
    must(hand_set(&c.hand, 0, key_of(key, "key", 0), BYTES("value"), EXPIRY_NONE));
    log_file_write(&c.log, c.dir, c.log.first_lsn, log_file_end(&c.log), 0);
    must(data_open(&d, &io_posix, c.dir));
    must(data_begin(&d, &opts));
    feed = log_feed_create(d.log);
}

static void end(void) {
    expect_eq(held(), UINT64_MAX); /* none is left */
    log_feed_destroy(feed);
    data_close(&d, false, 5000);
    case_close(&c);
}

START_TEST(a_pin_holds_from_where_its_reader_is) {
    uint32_t pin;
    begin();
    uint64_t from = pin_here(&pin);
    write_keys(20);
    expect_eq(held(), from);
    data_move_pin(&d, pin, log_head(d.log).v);
    expect_eq(held(), log_head(d.log).v);
    data_unpin(&d, pin);
    end();
}
END_TEST

START_TEST(two_at_one_place_hold_each_for_itself) {
    uint32_t one, two;
    begin();
    uint64_t from = pin_here(&one);
    expect_eq(pin_here(&two), from);
    expect(one != two);
    write_keys(20);
    data_move_pin(&d, one, log_head(d.log).v);
    expect_eq(held(), from);
    data_unpin(&d, one);
    expect_eq(held(), from);
    data_unpin(&d, two);
    end();
}
END_TEST

START_TEST(test_h55_a_pin_that_does_not_move_is_dropped_and_its_reader_can_tell) {
    uint32_t moves, stays;
    begin();
    data_set_pin_limit(&d, 1000);
    uint64_t from = pin_here(&moves);
    expect_eq(pin_here(&stays), from);
    for (int i = 0; i < 10; i++) {
        write_keys(5);
        data_move_pin(&d, moves, log_head(d.log).v);
        bool within = log_head(d.log).v - from <= 1000;
        expect_eq(held(), within ? from : log_head(d.log).v);
        expect_eq(data_pin_holds(&d, stays), within);
        expect(data_pin_holds(&d, moves));
    }
    expect(!data_pin_holds(&d, stays));
    data_move_pin(&d, stays, log_head(d.log).v); /* too late */
    expect(!data_pin_holds(&d, stays));
    data_unpin(&d, stays);
    data_unpin(&d, moves);
    end();
}
END_TEST

START_TEST(without_a_limit_none_is_dropped) {
    uint32_t pin;
    begin();
    uint64_t from = pin_here(&pin);
    write_keys(200);
    expect_eq(held(), from);
    expect(data_pin_holds(&d, pin));
    data_unpin(&d, pin);
    end();
}
END_TEST

START_TEST(pins_that_are_never_given_back_are_noticed) {
    uint32_t pins[PINS_MAX], more;
    begin();
    for (uint32_t i = 0; i < PINS_MAX; i++) {
        (void)pin_here(&pins[i]);
    }
    expect_eq(data_pin(&d, log_head(d.log).v, &more), DC_ELIMIT);
    data_unpin(&d, pins[7]);
    (void)pin_here(&more);
    expect_eq(more, pins[7]);
    for (uint32_t i = 0; i < PINS_MAX; i++) {
        data_unpin(&d, pins[i]);
    }
    end();
}
END_TEST

CHECK_MAIN("data_pins", a_pin_holds_from_where_its_reader_is, two_at_one_place_hold_each_for_itself,
           test_h55_a_pin_that_does_not_move_is_dropped_and_its_reader_can_tell,
           without_a_limit_none_is_dropped, pins_that_are_never_given_back_are_noticed)
