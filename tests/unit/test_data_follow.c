/* SPDX-License-Identifier: BSD-3-Clause */
/* A data directory whose log follows another one, and histories that begin while it is in use. */
#include "persist/data.h"
#include "server/base/mem.h"
#include "tests/support/check_main.h"
#include "tests/support/data_case.h"
#include "tests/support/expect.h"

static struct data_case c; /* its engine and log are the primary's */
static struct data d;
static struct log_feed *feed;

static void open_data(bool follows, bool keeps) {
    struct log_opts opts = {.keeps = keeps,
                            .follows = follows,
                            .sync = LOG_SYNC_EVERYSEC,
                            .segment_len = 1 << 20,
                            .memory_limit = 1 << 20};
    must(data_open(&d, &io_posix, c.dir));
    must(data_begin(&d, &opts));
    feed = log_feed_create(d.log);
}

static void close_data(bool clean) {
    log_feed_destroy(feed);
    data_close(&d, clean, 5000);
}

static void set_keys(uint32_t count) {
    char key[32];
    for (uint32_t i = 0; i < count; i++) {
        must(hand_set(&c.hand, 0, key_of(key, "key", i), BYTES("value"), EXPIRY_NONE));
    }
}

/* What the primary has up to 'end'. */
static void put_up_to(uint64_t end) {
    uint64_t head = log_head(d.log).v;
    const char *bytes = c.log.bytes.ptr + (head - c.log.first_lsn);
    must(log_put(feed, head, bytes, (size_t)(end - head)));
    log_kick(d.log);
    log_set_applied(d.log, log_head(d.log));
}

/* A directory with half of what the primary has: as a copy, and then a kill, have left it. */
static uint64_t begin_half(void) {
    case_open(&c);
    set_keys(10);
    uint64_t half = log_file_end(&c.log);
    set_keys(20);
    log_file_write(&c.log, c.dir, c.log.first_lsn, half, 0);
    return half;
}

START_TEST(a_follower_goes_on_where_its_last_good_frame_ends) {
    uint64_t half = begin_half();
    open_data(true, true);
    expect(!d.plan->clean);
    expect_eq(log_head(d.log).v, half);
    expect_eq(data_chain(&d)->count, 1);
    put_up_to(c.log.ends[c.log.count - 5]);
    close_data(false); /* as good as a kill */
    open_data(true, true);
    expect_eq(log_head(d.log).v, c.log.ends[c.log.count - 5]);
    put_up_to(log_file_end(&c.log));
    close_data(true);
    open_data(true, true); /* no CLOSE: it ends where the primary does */
    expect_eq(log_head(d.log).v, log_file_end(&c.log));
    expect_eq(data_chain(&d)->count, 1);
    expect(d.plan->clean); /* the metadata knows */
    close_data(true);
    case_close(&c);
}
END_TEST

START_TEST(what_followed_forks_when_it_is_opened_as_a_primary) {
    (void)begin_half();
    open_data(true, true);
    put_up_to(log_file_end(&c.log));
    close_data(true);
    open_data(true, true);
    expect(!data_owns_history(&d));
    close_data(false);
    open_data(false, true);
    expect_eq(data_chain(&d)->count, 2);
    expect_eq(data_chain(&d)->list[1].parent_end, log_file_end(&c.log));
    expect(data_owns_history(&d));
    close_data(false);
    open_data(true, true); /* it asks its peers, and may pull */
    expect(data_owns_history(&d));
    close_data(false);
    open_data(false, true);
    expect_eq(data_chain(&d)->count, 3);
    close_data(true);
    open_data(false, true); /* now it has a CLOSE of its own */
    expect(d.plan->clean);
    expect_eq(data_chain(&d)->count, 3);
    expect(data_owns_history(&d));
    close_data(true);
    case_close(&c);
}
END_TEST

/* The CLOSE that it has is the primary's. */
START_TEST(an_end_of_the_primary_is_no_end_of_its_own) {
    (void)begin_half();
    log_file_close(&c.log);
    open_data(true, true);
    put_up_to(log_file_end(&c.log));
    close_data(false);
    open_data(false, true);
    expect_eq(data_chain(&d)->count, 2);
    close_data(false);
    open_data(true, true);
    uint64_t head = log_head(d.log).v;
    struct history next = {.id = 78, .start = head + LSN_JUMP, .epoch = 9, .parent_end = head};
    must(data_begin_history(&d, &next));
    close_data(true);
    open_data(false, true); /* this one is its own */
    expect_eq(data_chain(&d)->count, 3);
    close_data(true);
    case_close(&c);
}
END_TEST

START_TEST(without_data_it_has_a_history_of_its_own_until_a_copy_comes) {
    case_open(&c);
    open_data(true, true);
    expect_eq(data_chain(&d)->count, 1);
    expect_eq(log_applied(d.log).v, log_head(d.log).v);
    close_data(true);
    open_data(true, true);
    expect_eq(data_chain(&d)->count, 1);
    close_data(true);
    case_close(&c);
}
END_TEST

START_TEST(a_promotion_begins_a_history_that_the_next_start_finds) {
    (void)begin_half();
    open_data(true, true);
    put_up_to(log_file_end(&c.log));
    uint64_t head = log_head(d.log).v;
    struct history next = {.id = 77, .start = head + 5 * LSN_JUMP, .epoch = 9, .parent_end = head};
    must(data_begin_history(&d, &next));
    expect(!log_follows(d.log));
    expect(data_owns_history(&d));
    expect_eq(data_chain(&d)->count, 2);
    expect_eq(log_durable(d.log).v, next.start + 96);
    next.parent_end = head; /* its past is over */
    next.start += LSN_JUMP;
    expect_eq(data_begin_history(&d, &next), DC_EIO);
    expect_eq(data_chain(&d)->count, 2);
    close_data(false);
    open_data(true, true);
    expect_eq(data_chain(&d)->count, 2);
    expect_eq(data_chain(&d)->list[1].id, 77);
    expect_eq(data_chain(&d)->list[1].epoch, 9);
    close_data(false);
    case_close(&c);
}
END_TEST

START_TEST(a_fork_of_the_log_that_is_followed_is_taken_if_it_continues_this_one) {
    (void)begin_half();
    open_data(true, true);
    uint64_t fork = log_file_end(&c.log);
    log_file_fork(&c.log, fork + 3 * LSN_JUMP);
    uint64_t start = c.log.first_lsn;
    const char *frame = c.log.bytes.ptr;
    size_t len = (size_t)(c.log.ends[0] - start);
    expect_eq(data_take_fork(&d, start, frame, len), DC_ECORRUPT); /* too early */
    expect_eq(data_chain(&d)->count, 1);
    close_data(true);
    case_close(&c);
    case_open(&c);
    set_keys(10);
    log_file_write(&c.log, c.dir, 0, 0, 0);
    open_data(true, true);
    fork = log_file_end(&c.log);
    log_file_fork(&c.log, fork + 3 * LSN_JUMP);
    start = c.log.first_lsn;
    frame = c.log.bytes.ptr;
    len = (size_t)(c.log.ends[0] - start);
    expect_eq(data_take_fork(&d, start + 8, frame, len), DC_ECORRUPT);
    struct history bent[] = {data_chain(&d)->list[0],
                             {.id = 7, .start = fork, .epoch = 1, .parent_end = fork}};
    struct buf made;
    buf_init(&made, 0);
    frame_encode_fork(&made, fork, 1, bent, 2); /* a history that begins where the other one ends */
    expect_eq(data_take_fork(&d, fork, made.ptr, made.len), DC_ECORRUPT);
    buf_fini(&made);
    for (size_t i = 0; i < len; i++) { /* it comes from a wire */
        char *bad = mem_must_alloc(len);
        memcpy(bad, frame, len);
        bad[i] ^= 1;
        expect_eq(data_take_fork(&d, start, bad, len), DC_ECORRUPT);
        mem_free(bad);
    }
    must(data_take_fork(&d, start, frame, len));
    expect_eq(log_head(d.log).v, start + len);
    expect_eq(log_applied(d.log).v, start + len);
    expect(log_follows(d.log));
    set_keys(5);
    put_up_to(log_file_end(&c.log));
    close_data(true);
    open_data(true, true);
    expect_eq(data_chain(&d)->count, 2);
    expect_eq(log_head(d.log).v, log_file_end(&c.log));
    close_data(true);
    case_close(&c);
}
END_TEST

/* What was handed out in it must not be handed out again, though nothing of it is left. */
START_TEST(a_promotion_without_a_log_is_remembered) {
    (void)begin_half();
    open_data(true, false);
    uint64_t head = log_head(d.log).v;
    struct history next = {.id = 77, .start = head + 9 * LSN_JUMP, .epoch = 9, .parent_end = head};
    must(data_begin_history(&d, &next));
    close_data(false);
    open_data(false, true);
    expect(histories_last(data_chain(&d))->start >= next.start + LSN_JUMP);
    close_data(true);
    case_close(&c);
}
END_TEST

CHECK_MAIN("data_follow", a_follower_goes_on_where_its_last_good_frame_ends,
           what_followed_forks_when_it_is_opened_as_a_primary,
           an_end_of_the_primary_is_no_end_of_its_own,
           without_data_it_has_a_history_of_its_own_until_a_copy_comes,
           a_promotion_begins_a_history_that_the_next_start_finds,
           a_fork_of_the_log_that_is_followed_is_taken_if_it_continues_this_one,
           a_promotion_without_a_log_is_remembered)
