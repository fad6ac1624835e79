/* SPDX-License-Identifier: BSD-3-Clause */
/* The bytes of a running log, read while it is written. */
#include "persist/log_tail.h"
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "server/base/time.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"
#include "tests/support/log_rig.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_LEN = 4096, PIECES_MAX = 200 * 1000 };

static struct data d;

/* The log of a node, without the rest of its data. */
static void open_data(void) {
    rig_open();
    memset(&d, 0, sizeof(d));
    d.io = rig.opts.io;
    d.dir = rig.opts.dir;
    d.log = rig.log;
    pins_init(&d.pins);
}

static void close_data(bool clean) {
    rig_close(clean);
    pins_fini(&d.pins);
}

/* --- what a tail has given ---------------------------------------------------------------------------------------- */

static struct {
    struct buf bytes;
    struct {
        uint64_t lsn;
        size_t at, len;
    } pieces[PIECES_MAX];
    uint32_t count;
} seen;

static void forget(void) {
    buf_init(&seen.bytes, 0);
    seen.count = 0;
}

static enum tail_verdict read_some(struct log_tail *t, size_t size) {
    char bytes[BUFFER_LEN];
    uint64_t lsn;
    size_t len;
    expect(size <= sizeof(bytes));
    enum tail_verdict v = log_tail_read(t, &lsn, bytes, size, &len);
    expect(log_tail_lsn(t) == lsn + len);
    if (v == TAIL_BYTES) {
        expect(len > 0 && len <= size && lsn + len <= log_written(d.log).v);
        expect(seen.count < PIECES_MAX);
        seen.pieces[seen.count].lsn = lsn;
        seen.pieces[seen.count].at = seen.bytes.len;
        seen.pieces[seen.count++].len = len;
        buf_append(&seen.bytes, bytes, len);
    } else {
        expect_eq(len, 0);
    }
    return v;
}

/* Until it has come to 'end'. */
static void read_to(struct log_tail *t, struct rng *rng, uint64_t end) {
    int64_t late_us = time_mono_us() + 20 * 1000 * 1000;
    while (log_tail_lsn(t) < end) {
        switch (read_some(t, 1 + (size_t)rng_below(rng, BUFFER_LEN))) {
        case TAIL_BYTES:
            break;
        case TAIL_NOTHING:
            expect(time_mono_us() < late_us);
            (void)log_wait(d.log, LOG_LEVEL_OS, (struct lsn){log_tail_lsn(t) + 1}, 1000);
            break;
        case TAIL_GONE:
            ck_abort_msg("the log is gone at %" PRIu64, log_tail_lsn(t));
        case TAIL_FAILED:
            ck_abort_msg("%s", dc_fail_take(DC_EIO));
        }
    }
}

static struct log_tail *open_tail(uint64_t from) {
    struct log_tail *t = NULL;
    enum dc_err err = log_tail_open(&t, &d, from);
    ck_assert_msg(err == DC_OK, "%s", dc_fail_take(err));
    return t;
}

/* The frames from 'from' up to 'to' are what was seen, byte for byte; nothing else was. */
static void expect_seen(uint64_t from, uint64_t to) {
    struct log_dir dir;
    struct log_reader *r;
    struct frame_ref f;
    uint32_t piece = 0;
    size_t used = 0; /* of the piece */
    size_t total = 0;
    expect_eq(log_dir_open_running(&dir, rig.opts.io, rig.opts.dir), DC_OK);
    expect_eq(log_reader_open(&r, &dir, from), DC_OK);
    while (log_reader_next(r, &f) == LOG_MORE && f.lsn < to) {
        for (size_t at = 0; at < f.len;) {
            expect(piece < seen.count);
            size_t len = seen.pieces[piece].len - used;
            len = len < f.len - at ? len : f.len - at;
            expect_eq(seen.pieces[piece].lsn + used, f.lsn + at);
            expect(memcmp(seen.bytes.ptr + seen.pieces[piece].at + used, f.bytes + at, len) == 0);
            at += len;
            used += len;
            if (used == seen.pieces[piece].len) {
                piece++;
                used = 0;
            }
        }
        total += f.len;
    }
    log_reader_close(r);
    log_dir_close(&dir);
    expect_eq(total, seen.bytes.len);
    buf_fini(&seen.bytes);
}

/* --- appenders ------------------------------------------------------------------------------------------------------ */

enum { APPENDERS = 2, FRAMES = 3000 };

static _Atomic uint32_t appending;

/* Small frames, some longer than a reader's buffer, some than a segment. */
static void append_many(void *arg) {
    static const char bytes[6 * RIG_SEGMENT_LEN];
    struct rng rng;
    struct log_feed *f = log_feed_create(rig.log);
    rng_seed(&rng, test_seed_value + *(uint32_t *)arg);
    for (uint32_t i = 0; i < FRAMES; i++) {
        uint64_t dice = rng_below(&rng, 200);
        size_t most = dice == 0 ? sizeof(bytes) : dice < 10 ? 3 * BUFFER_LEN : 200;
        rig_append(f, "key", bytes_of(bytes, (size_t)rng_below(&rng, most)));
        if (i % 16 == 0) {
            usleep(500);
        }
    }
    log_feed_destroy(f);
    atomic_fetch_sub(&appending, 1);
}

static void read_while_it_is_written(bool keeps, uint32_t faults) {
    static uint32_t numbers[APPENDERS] = {0, 1};
    struct thread threads[APPENDERS];
    struct rng rng = test_rng();
    rig_init();
    rig.opts.keeps = keeps;
    rig.opts.segment_len = 4 * RIG_SEGMENT_LEN;
    open_data();
    forget();
    uint64_t from = log_head(rig.log).v;
    struct log_tail *t = open_tail(from);
    atomic_store(&appending, APPENDERS);
    for (uint32_t i = 0; i < APPENDERS; i++) {
        thread_start(&threads[i], "appender", append_many, &numbers[i]);
    }
    while (atomic_load(&appending) > 0) {
        if (faults > 0) {
            faults--;
            sim_disk_fail(rig.disk, SIM_SYNC, 1, 1, EIO);
            log_hurry(rig.log);
        }
        read_to(t, &rng, log_head(rig.log).v);
        usleep(5000);
    }
    for (uint32_t i = 0; i < APPENDERS; i++) {
        thread_join(&threads[i]);
    }
    uint64_t head = log_head(rig.log).v;
    read_to(t, &rng, head);
    expect_eq(read_some(t, 100), TAIL_NOTHING);
    expect_seen(from, head);
    log_tail_close(t);
    close_data(true);
    rig_fini();
}

START_TEST(it_is_read_while_it_is_written) {
    read_while_it_is_written(true, 0);
}
END_TEST

START_TEST(also_where_no_log_is_kept) {
    read_while_it_is_written(false, 0);
}
END_TEST

START_TEST(also_when_it_is_begun_anew_behind_a_failed_sync) {
    read_while_it_is_written(true, 5);
}
END_TEST

/* --- histories -------------------------------------------------------------------------------------------------------- */

static uint64_t begin_history(uint64_t id) {
    uint64_t head = log_head(rig.log).v;
    struct history next = {.id = id,
                           .start = head + LSN_JUMP,
                           .epoch = 1 + log_chain(rig.log)->count,
                           .parent_end = head};
    struct histories *chain = histories_add(log_chain(rig.log), &next);
    expect_eq(log_begin_history(rig.log, chain, NULL, 0), DC_OK);
    mem_free(chain);
    return head;
}

START_TEST(it_goes_on_in_the_next_history) {
    struct rng rng = test_rng();
    uint64_t forks[20];
    rig_init();
    open_data();
    forget();
    uint64_t from = log_head(rig.log).v;
    struct log_tail *t = open_tail(from);
    for (uint64_t i = 0; i < 20; i++) {
        rig_append_number(i, 100 + (size_t)rng_below(&rng, 8000));
        if (i % 4 == 0) {
            read_to(t, &rng, log_head(rig.log).v);
            expect_eq(read_some(t, 100), TAIL_NOTHING);
        }
        forks[i] = begin_history(0x1000 + i);
    }
    uint64_t head = rig_append_number(20, 100);
    read_to(t, &rng, head);
    expect_seen(from, head);
    log_tail_close(t);
    /* From a fork on; not from where nothing was. */
    for (uint64_t i = 0; i < 20; i++) {
        forget();
        t = open_tail(forks[i]);
        read_to(t, &rng, head);
        expect_seen(forks[i], head);
        log_tail_close(t);
        expect_eq(log_tail_open(&t, &d, forks[i] + 1), DC_EGONE);
        expect_eq(log_tail_open(&t, &d, forks[i] + LSN_JUMP - 1), DC_EGONE);
    }
    expect_eq(log_tail_oldest(&d), RIG_FIRST_LSN);
    close_data(true);
    rig_fini();
}
END_TEST

START_TEST(it_goes_on_behind_a_start_that_was_not_clean) {
    static struct history chain[4];
    struct rng rng = test_rng();
    rig_init();
    chain[0] = rig.chain[0];
    rig.opts.chain = chain;
    for (uint32_t run = 0; run < 4; run++) {
        open_data();
        for (uint64_t i = 0; i < 10; i++) {
            rig_append_number(i, 3000);
        }
        if (run < 3) {
            close_data(false);
            chain[run + 1] = (struct history){.id = 0x2000 + run,
                                              .start = rig.opts.first_lsn + LSN_JUMP,
                                              .epoch = 1,
                                              .parent_end = rig.opts.first_lsn};
            rig.opts.fork = true;
            rig.opts.history = chain[run + 1];
            rig.opts.chain_count = run + 2;
            rig.opts.first_lsn = chain[run + 1].start;
        }
    }
    uint64_t head = log_head(rig.log).v;
    forget();
    struct log_tail *t = open_tail(RIG_FIRST_LSN);
    read_to(t, &rng, head);
    expect_seen(0, head);
    log_tail_close(t);
    expect_eq(log_tail_oldest(&d), RIG_FIRST_LSN);
    close_data(true);
    rig_fini();
}
END_TEST

/* --- what isn't there --------------------------------------------------------------------------------------------------- */

static uint64_t first_segments[64];
static uint32_t segment_count;

static void note_segment(void *arg, const char *name) {
    uint64_t first, history;
    (void)arg;
    if (segment_name_parse(name, &first, &history)) {
        first_segments[segment_count++] = first;
    }
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void path_of(uint64_t first, char to[128]) {
    char name[SEGMENT_NAME_MAX];
    segment_name(first, rig.chain[0].id, name);
    snprintf(to, 128, "data/%s", name);
}

/* A log of some segments, closed ones but for the last. */
static void fill(uint32_t frames) {
    for (uint64_t i = 0; i < frames; i++) {
        rig_append_number(i, 3000);
    }
    expect(rig_wait(LOG_LEVEL_DISK, log_head(rig.log).v));
    segment_count = 0;
    expect_eq(rig.opts.io->list(rig.opts.io, "data", note_segment, NULL), 0);
    qsort(first_segments, segment_count, sizeof(first_segments[0]), by_value);
}

START_TEST(what_was_removed_is_gone) {
    char path[128];
    struct log_tail *t;
    rig_init();
    open_data();
    fill(40);
    expect(segment_count > 5);
    for (int i = 0; i < 2; i++) {
        path_of(first_segments[i], path);
        expect_eq(rig.opts.io->unlink(rig.opts.io, path), 0);
    }
    expect_eq(log_tail_open(&t, &d, first_segments[0] + 64), DC_EGONE);
    expect_eq(log_tail_oldest(&d), first_segments[2]);
    t = open_tail(first_segments[2]);
    log_tail_close(t);
    expect_eq(log_tail_open(&t, &d, log_head(rig.log).v + 1), DC_EGONE);
    expect_eq(log_tail_open(&t, &d, 5), DC_EGONE);
    close_data(true);
    rig_fini();
}
END_TEST

START_TEST(what_cannot_be_read_has_failed) {
    char path[128];
    rig_init();
    open_data();
    fill(20);
    path_of(first_segments[1], path);
    sim_disk_lose(rig.disk, path, SEGMENT_HEADER_LEN, 512);
    forget();
    struct log_tail *t = open_tail(first_segments[0]);
    enum tail_verdict v;
    while ((v = read_some(t, 1000)) == TAIL_BYTES) {}
    expect_eq(v, TAIL_FAILED);
    expect_eq(log_tail_lsn(t), first_segments[1]);
    expect(strlen(dc_fail_take(DC_EIO)) > 20);
    log_tail_close(t);
    buf_fini(&seen.bytes);
    close_data(true);
    rig_fini();
}
END_TEST

START_TEST(a_file_that_was_cut_has_failed) {
    char path[128];
    struct io_file f;
    rig_init();
    open_data();
    fill(20);
    path_of(first_segments[1], path);
    expect_eq(rig.opts.io->open(rig.opts.io, path, IO_WRITE, &f), 0);
    expect_eq(rig.opts.io->truncate(rig.opts.io, &f, SEGMENT_HEADER_LEN + 100), 0);
    rig.opts.io->close(rig.opts.io, &f);
    forget();
    struct log_tail *t = open_tail(first_segments[1]);
    expect_eq(read_some(t, 1000), TAIL_FAILED);
    log_tail_close(t);
    buf_fini(&seen.bytes);
    close_data(true);
    rig_fini();
}
END_TEST

/* --- pins --------------------------------------------------------------------------------------------------------------- */

static uint64_t needed(void) {
    uint64_t lsn = pins_hold(&d);
    pins_let_go(&d);
    return lsn;
}

START_TEST(what_is_known_is_passed_over) {
    struct rng rng = test_rng();
    rig_init();
    open_data();
    fill(20);
    forget();
    struct log_tail *t = open_tail(first_segments[0]);
    read_to(t, &rng, first_segments[0] + 1);
    buf_fini(&seen.bytes);
    forget();
    log_tail_skip(t, first_segments[2]);
    expect_eq(needed(), first_segments[2]);
    log_tail_skip(t, first_segments[2]);
    uint64_t head = log_head(rig.log).v;
    read_to(t, &rng, head);
    expect_seen(first_segments[2], head);
    log_tail_close(t);
    close_data(true);
    rig_fini();
}
END_TEST

START_TEST(a_pin_moves_with_its_reader) {
    struct rng rng = test_rng();
    uint32_t pin;
    rig_init();
    open_data();
    fill(20);
    expect_eq(needed(), UINT64_MAX);
    forget();
    struct log_tail *t = open_tail(first_segments[0]);
    expect_eq(needed(), first_segments[0]);
    read_to(t, &rng, first_segments[2]);
    expect(needed() >= first_segments[2] && needed() == log_tail_lsn(t));
    expect_eq(data_pin(&d, first_segments[1], &pin), DC_OK);
    expect_eq(needed(), first_segments[1]);
    data_move_pin(&d, pin, first_segments[3]);
    expect_eq(needed(), log_tail_lsn(t));
    log_tail_close(t);
    expect_eq(needed(), first_segments[3]);
    data_unpin(&d, pin);
    expect_eq(needed(), UINT64_MAX);
    buf_fini(&seen.bytes);
    close_data(true);
    rig_fini();
}
END_TEST

START_TEST(a_pin_that_holds_too_much_is_dropped) {
    struct log_tail *t;
    char path[128];
    rig_init();
    open_data();
    fill(10);
    (void)begin_history(0x1234); /* a jump is no log */
    forget();
    t = open_tail(first_segments[0]);
    data_set_pin_limit(&d, 40000);
    expect_eq(needed(), first_segments[0]);
    fill(10);
    expect_eq(needed(), UINT64_MAX);
    expect_eq(read_some(t, 1000), TAIL_BYTES); /* it is still there */
    path_of(first_segments[0], path);
    expect_eq(rig.opts.io->unlink(rig.opts.io, path), 0);
    path_of(first_segments[1], path);
    expect_eq(rig.opts.io->unlink(rig.opts.io, path), 0);
    enum tail_verdict v;
    while ((v = read_some(t, 1000)) == TAIL_BYTES) {}
    expect_eq(v, TAIL_GONE);
    log_tail_close(t);
    buf_fini(&seen.bytes);
    close_data(true);
    rig_fini();
}
END_TEST

START_TEST(there_is_a_limit_to_pins) {
    uint32_t pins[PINS_MAX];
    uint32_t one_more;
    struct log_tail *t;
    rig_init();
    open_data();
    for (uint32_t i = 0; i < PINS_MAX; i++) {
        expect_eq(data_pin(&d, 0, &pins[i]), DC_OK);
    }
    expect_eq(data_pin(&d, 0, &one_more), DC_ELIMIT);
    expect_eq(log_tail_open(&t, &d, log_head(rig.log).v), DC_ELIMIT);
    data_unpin(&d, pins[7]);
    t = open_tail(log_head(rig.log).v);
    log_tail_close(t);
    for (uint32_t i = 0; i < PINS_MAX; i++) {
        if (i != 7) {
            data_unpin(&d, pins[i]);
        }
    }
    close_data(true);
    rig_fini();
}
END_TEST

/* --- 'appendonly no' ---------------------------------------------------------------------------------------------------- */

static uint32_t file_count(void) {
    struct buf names;
    uint32_t count = 0;
    buf_init(&names, 0);
    rig_list(&names);
    for (const char *at = names.ptr; (at = strstr(at, "log-")) != NULL; at++) {
        count++;
    }
    buf_fini(&names);
    return count;
}

static bool has_few(void *arg) {
    return file_count() <= *(uint32_t *)arg;
}

START_TEST(of_a_log_that_is_not_kept_files_stay_while_they_are_needed) {
    struct rng rng = test_rng();
    struct log_tail *t;
    rig_init();
    rig.opts.keeps = false;
    open_data();
    uint64_t before = log_head(rig.log).v;
    expect(before > RIG_FIRST_LSN); /* the FORK has its place */
    uint64_t from = rig_append_number(0, 100);
    expect(rig_wait(LOG_LEVEL_OS, from));
    expect_eq(log_tail_open(&t, &d, before), DC_EGONE); /* nobody has kept it */
    expect_eq(log_tail_open(&t, &d, RIG_FIRST_LSN), DC_EGONE);
    expect_eq(log_tail_oldest(&d), from);
    t = open_tail(from);
    forget();
    for (uint64_t i = 1; i < 60; i++) {
        uint64_t end = rig_append_number(i, 3000);
        read_to(t, &rng, end);
    }
    expect(rig_wait(LOG_LEVEL_DISK, log_head(rig.log).v));
    expect_seen(from, log_head(rig.log).v);
    expect(file_count() > 8);
    expect_eq(needed(), log_head(rig.log).v);
    uint32_t few = 2;
    expect(rig_until(has_few, &few)); /* what it has read may go */
    expect_eq(read_some(t, 10), TAIL_NOTHING);
    data_set_pin_limit(&d, 1000);
    rig_append_number(60, 3000);
    expect_eq(needed(), UINT64_MAX); /* it is too slow */
    few = 0;
    expect(rig_until(has_few, &few));
    forget();
    rig_append_number(61, 3000);
    expect(rig_wait(LOG_LEVEL_OS, log_head(rig.log).v));
    expect_eq(read_some(t, 10), TAIL_GONE);
    log_tail_close(t);
    close_data(true);
    rig_fini();
}
END_TEST

/* A reader's positions are from before: kept, not kept, and kept again. */
START_TEST(a_log_with_a_hole_is_gone) {
    struct log_tail *t;
    rig_init();
    open_data();
    fill(10);
    log_set_keeps(rig.log, false);
    rig_append_number(10, 3000);
    expect(rig_wait(LOG_LEVEL_OS, log_head(rig.log).v));
    log_set_keeps(rig.log, true);
    uint64_t from = log_head(rig.log).v;
    rig_append_number(11, 3000);
    expect(rig_wait(LOG_LEVEL_DISK, log_head(rig.log).v));
    expect_eq(log_tail_open(&t, &d, first_segments[0]), DC_EGONE);
    expect_eq(log_tail_open(&t, &d, first_segments[segment_count - 1]), DC_EGONE);
    t = open_tail(from);
    log_tail_close(t);
    expect_eq(log_tail_oldest(&d), from);
    close_data(true);
    rig_fini();
}
END_TEST

/* --- digests ------------------------------------------------------------------------------------------------------------ */

START_TEST(digests_tell_logs_apart) {
    uint64_t hash, other;
    bool same;
    rig_init();
    open_data();
    fill(12);
    uint64_t head = log_head(rig.log).v;
    expect_eq(log_tail_hash(&d, head, &hash), DC_OK);
    expect_eq(log_tail_same(&d, head, hash, &same), DC_OK);
    expect(same);
    expect_eq(log_tail_same(&d, head, hash ^ ((uint64_t)1 << 40), &same), DC_OK);
    expect(!same);
    expect_eq(log_tail_hash(&d, first_segments[1] + 100, &other), DC_OK); /* over two files */
    expect(other != hash);
    expect_eq(log_tail_hash(&d, RIG_FIRST_LSN, &other), DC_OK); /* nothing is before it */
    expect_eq(log_tail_same(&d, head, other, &same), DC_OK);
    expect(same);
    /* Of its own history alone. */
    (void)begin_history(0x777);
    uint64_t start = histories_last(log_chain(rig.log))->start;
    expect_eq(log_tail_hash(&d, start, &other), DC_OK);
    expect_eq(log_tail_same(&d, head, other, &same), DC_OK);
    expect(same);
    expect_eq(log_tail_hash(&d, log_head(rig.log).v, &other), DC_OK);
    expect_eq(log_tail_same(&d, head, other, &same), DC_OK);
    expect(!same);
    expect_eq(log_tail_hash(&d, start - 1, &other), DC_EGONE);
    /* One that has less says less. */
    char path[128];
    for (uint32_t i = 0; i + 1 < segment_count; i++) {
        path_of(first_segments[i], path);
        expect_eq(rig.opts.io->unlink(rig.opts.io, path), 0);
    }
    expect_eq(log_tail_same(&d, head, hash, &same), DC_OK);
    expect(same);
    close_data(true);
    rig_fini();
}
END_TEST

CHECK_MAIN("log_tail", it_is_read_while_it_is_written, also_where_no_log_is_kept,
           also_when_it_is_begun_anew_behind_a_failed_sync, it_goes_on_in_the_next_history,
           it_goes_on_behind_a_start_that_was_not_clean, what_was_removed_is_gone,
           what_cannot_be_read_has_failed, a_file_that_was_cut_has_failed,
           what_is_known_is_passed_over, a_pin_moves_with_its_reader,
           a_pin_that_holds_too_much_is_dropped, there_is_a_limit_to_pins,
           of_a_log_that_is_not_kept_files_stay_while_they_are_needed, a_log_with_a_hole_is_gone,
           digests_tell_logs_apart)
