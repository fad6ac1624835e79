/* SPDX-License-Identifier: BSD-3-Clause */
/* The log on disks that are slow, full or broken. */
#include "persist/retain.h"
#include "persist/warm.h"
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "server/base/num.h"
#include "server/base/thread.h"
#include "server/base/time.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"
#include "tests/support/log_rig.h"
#include "tests/support/temp_dir.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* What was acknowledged from the disk is there after every kind of power cut. */
static void expect_safe(uint64_t acked, const char *what) {
    for (int cut = 0; cut < SIM_CUT_COUNT; cut++) {
        bool drawn = cut >= SIM_CUT_RANDOM;
        for (uint64_t seed = 0; seed < (drawn ? 12 : 1); seed++) {
            struct sim_disk *d = sim_disk_crash(rig.disk, (enum sim_cut)cut, seed);
            struct rig_found found;
            rig_read(&found, d, 0);
            ck_assert_msg(found.how == LOG_END || found.how == LOG_TORN, "%s: %s", what,
                          found.end.text);
            ck_assert_msg(rig_count_numbers(&found) >= acked,
                          "%s, cut %d, seed %" PRIu64 ": %" PRIu64 " of %" PRIu64 ": %s", what, cut,
                          seed, rig_count_numbers(&found), acked, found.end.text);
            rig_found_fini(&found);
            sim_disk_destroy(d);
        }
    }
}

/* --- failed syncs ------------------------------------------------------------------------------------ */

START_TEST(h12_what_is_acked_after_a_failed_sync_is_there) {
    struct log_stats stats;
    rig_init();
    rig_open();
    expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(0, 1000)));
    sim_disk_fail(rig.disk, SIM_SYNC, 1, 1, EIO);
    rig_append_number(1, 500);
    expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(2, 500)));
    log_stats(rig.log, &stats);
    expect_eq(stats.sync_failures, 1);
    expect_safe(3, "the ack that saw the failure");
    expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(3, 100)));
    expect_safe(4, "the next ack");
    expect(rig_until(rig_is_well, NULL));
    rig_close(true);
    rig_open(); /* and the log goes on */
    expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(4, 100)));
    expect_safe(5, "an ack of the next run");
    rig_close(true);
    rig_fini();
}
END_TEST

/* More than a block of what is held, twice, so that blocks come back; one stretch is larger than a block. */
START_TEST(h12_megabytes_are_written_again) {
    enum { COUNT = 40, LEN = 60000, LARGE_LEN = 1200000 };
    uint64_t number = 0;
    rig_init();
    rig.opts.sync = LOG_SYNC_NO;
    rig.opts.segment_len = (uint64_t)16 << 20;
    rig_open();
    for (int round = 0; round < 2; round++) {
        uint64_t end = 0;
        for (int i = 0; i < COUNT; i++) {
            end = rig_append_number(number++, i == COUNT / 2 ? LARGE_LEN : LEN);
            expect(rig_wait(LOG_LEVEL_OS, end)); /* each a stretch of its own */
        }
        sim_disk_fail(rig.disk, SIM_SYNC, 1, 1, EIO);
        expect(rig_wait(LOG_LEVEL_DISK, end));
        struct sim_disk *d = sim_disk_crash(rig.disk, SIM_CUT_NOTHING, 0);
        struct rig_found found;
        rig_read(&found, d, 0);
        expect_eq(rig_count_numbers(&found), number);
        rig_found_fini(&found);
        sim_disk_destroy(d);
    }
    rig_close(true);
    rig_fini();
}
END_TEST

/* No file of what isn't durable goes before another one has all of it, and a name. That one is synced, and its name, before anything counts as durable. */
START_TEST(h12_what_follows_a_failed_sync_comes_in_this_order) {
    rig_init();
    rig.opts.sync = LOG_SYNC_NO;
    rig.hides_marks = true;
    rig_open();
    expect(rig_until(rig_has_allocated, &(uint64_t){2}));
    expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(0, 10000))); /* the spare is there */
    mem_free(sim_disk_take_trace(rig.disk));
    expect(rig_wait(LOG_LEVEL_OS, rig_append_number(1, 100)));
    expect(rig_wait(LOG_LEVEL_OS, rig_append_number(2, 10000)));
    rig_expect_trace(3, "write segment-0.tmp 14194+134\n"
                        "write segment-1.tmp 0+104\n"
                        "rename segment-1.tmp log-00000000000127f8-0000000000000abc.dcl\n"
                        "write segment-1.tmp 4096+10034\n");
    sim_disk_fail(rig.disk, SIM_SYNC, 1, 1, EIO);
    sim_disk_fail(rig.disk, SIM_RENAME, 1, 1, EIO);
    expect(rig_wait(LOG_LEVEL_DISK, log_head(rig.log).v));
    rig_expect_trace(5, "sync segment-0.tmp -> EIO\n"
                        "write segment-3.tmp 0+104\n"
                        "write segment-3.tmp 4096+134\n"
                        "write segment-3.tmp 4230+10034\n"
                        "rename segment-3.tmp log-0000000000012772-0000000000000abc.dcl -> EIO\n"
                        "write segment-4.tmp 0+104\n"
                        "write segment-4.tmp 4096+134\n"
                        "write segment-4.tmp 4230+10034\n"
                        "rename segment-4.tmp log-0000000000012772-0000000000000abc.dcl\n"
                        "unlink log-00000000000127f8-0000000000000abc.dcl\n"
                        "sync segment-4.tmp\n"
                        "sync_dir data\n");
    rig_close(true);
    rig_fini();
}
END_TEST

/* A segment whose first fdatasync fails has on the disk nothing at all, its length included. Who starts behind a kill makes it durable before
 * he goes on: else a power cut leaves a newer history without what it goes on from. */
START_TEST(h12_a_start_behind_a_kill_makes_durable_what_a_sync_forgot) {
    struct warm_opts opts = {.io = NULL, .dir = "data"};
    struct data_plan *plan = mem_must_zalloc(sizeof(*plan));
    struct warm *warm = NULL;
    struct rig_found found;
    rig_init();
    rig.opts.sync = LOG_SYNC_NO;
    rig_open();
    expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(0, 100)));
    expect(rig_wait(LOG_LEVEL_OS, rig_append_number(1, 20000))); /* one of its own */
    expect(rig_wait(LOG_LEVEL_OS, rig_append_number(2, 100)));
    sim_disk_fail(rig.disk, SIM_SYNC, 2, 1, EIO);
    sim_disk_fail(rig.disk, SIM_CREATE, 1, 1000, EIO); /* it can't be begun anew */
    log_hurry(rig.log);
    expect(rig_until(rig_is_ill, &(enum log_state){LOG_BROKEN}));
    log_feed_destroy(rig.feed);
    log_close(rig.log, false, 1);
    sim_disk_fail(rig.disk, SIM_SYNC, 0, 0, 0);
    sim_disk_fail(rig.disk, SIM_CREATE, 0, 0, 0);
    opts.io = rig.opts.io;
    expect_eq(data_scan(&opts, plan, &warm), DC_OK);
    warm_destroy(warm);
    struct sim_disk *d = sim_disk_crash(rig.disk, SIM_CUT_NOTHING, 0);
    rig_read(&found, d, 0);
    expect_eq(rig_count_numbers(&found), 3);
    rig_found_fini(&found);
    sim_disk_destroy(d);
    mem_free(plan);
    rig_fini();
}
END_TEST

/* The n-th call of a kind fails, once or a few times, while segments come and go. All of it is durable in the end. */
static void check_fault(enum sim_call kind, uint64_t n, uint64_t times, int err) {
    char what[64];
    uint64_t acked = 0;
    snprintf(what, sizeof(what), "call %d, number %" PRIu64 ", %" PRIu64 " times", (int)kind, n,
             times);
    rig_init();
    rig_open();
    sim_disk_fail(rig.disk, kind, n, times, err);
    for (uint64_t i = 0; i < 24; i++) {
        uint64_t end = rig_append_number(i, i % 7 == 6 ? 20000 : 3000);
        if (i % 3 == 2) {
            ck_assert_msg(rig_wait(LOG_LEVEL_DISK, end), "%s: frame %" PRIu64, what, i);
            acked = i + 1;
        }
        if (i % 6 == 5) {
            expect_safe(acked, what);
        }
    }
    ck_assert_msg(rig_until(rig_is_well, NULL), "%s: it isn't well again", what);
    expect_safe(acked, what);
    rig_close(true);
    struct rig_found found;
    rig_read(&found, NULL, 0);
    expect_eq(found.how, LOG_END);
    rig_expect_numbers(&found, 0, 24);
    expect_eq(found.frames[found.count - 1].kind, FRAME_CLOSE);
    rig_found_fini(&found);
    rig_fini();
}

START_TEST(the_log_outlives_any_failed_call) {
    static const enum sim_call kinds[] = {SIM_SYNC,   SIM_SYNC_DIR, SIM_TRUNCATE, SIM_WRITE,
                                          SIM_CREATE, SIM_ALLOCATE, SIM_RENAME,   SIM_UNLINK};
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        for (uint64_t n = 1; n <= (kinds[k] == SIM_SYNC || kinds[k] == SIM_WRITE ? 10 : 4); n++) {
            check_fault(kinds[k], n, n % 2 + 1, kinds[k] == SIM_WRITE ? ENOSPC : EIO);
        }
    }
}
END_TEST

static void append_written(uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        uint64_t end = rig_append_number(i, 3000);
        expect(rig_wait(i == 8 ? LOG_LEVEL_DISK : LOG_LEVEL_OS, end));
    }
}

/* kill -9 at any moment after a failed sync: what is in the kernel's hands stays there. */
START_TEST(a_kill_while_it_begins_anew_loses_nothing) {
    for (uint64_t n = 1; n <= 24; n++) {
        struct rig_found found;
        rig_init();
        rig_open();
        append_written(20);
        sim_disk_fail(rig.disk, SIM_SYNC, 1 + n % 3, 1, EIO);
        sim_disk_stop_after(rig.disk, n);
        log_hurry(rig.log);
        usleep(15000);
        log_feed_destroy(rig.feed);
        log_close(rig.log, false, 1);
        sim_disk_stop_after(rig.disk, 0);
        rig_read(&found, rig.disk, 0);
        ck_assert_msg(rig_count_numbers(&found) == 20, "call %" PRIu64 ": %" PRIu64 ": %s", n,
                      rig_count_numbers(&found), found.end.text);
        rig_found_fini(&found);
        rig_fini();
    }
}
END_TEST

/* --- slow disks -------------------------------------------------------------------------------------- */

static bool is_late(void *arg) {
    return log_is_late(rig.log) == *(bool *)arg;
}

START_TEST(h13_a_sync_that_hangs_makes_the_log_late_and_nothing_else) {
    bool late = true;
    rig_init();
    rig_open();
    rig_block_calls(SIM_SYNC);
    uint64_t first = rig_append_number(0, 100);
    expect(rig_wait(LOG_LEVEL_OS, first));
    expect(!log_is_late(rig.log));
    expect(rig_until(rig_is_inside, NULL));
    for (uint64_t i = 1; i < 200 || !log_is_late(rig.log); i++) {
        int64_t began_us = time_mono_us();
        uint64_t end = rig_append_number(i, 100);
        expect(log_wait(rig.log, LOG_LEVEL_OS, (struct lsn){end}, 1000 * 1000));
        expect(log_durable(rig.log).v < first && log_has_room(rig.log));
        expect(time_mono_us() - began_us < 1000 * 1000);
        usleep(10000);
        expect(i < 2000);
    }
    expect(rig_until(is_late, &late));
    expect(!log_wait(rig.log, LOG_LEVEL_DISK, (struct lsn){first}, 1000)); /* it says so */
    rig_block_calls(-1);
    late = false;
    expect(rig_until(is_late, &late));
    expect(rig_wait(LOG_LEVEL_DISK, log_head(rig.log).v));
    rig_close(true);
    rig_fini();
}
END_TEST

static bool has_synced(void *count) {
    return sim_disk_calls(rig.disk, SIM_SYNC) >= *(uint64_t *)count;
}

/* The kernel reports a failed fdatasync once: the next one of the same file succeeds and means nothing. */
START_TEST(h12_who_waited_to_sync_a_file_that_failed_meanwhile_leaves_it_alone) {
    struct log_stats stats;
    rig_init();
    rig.opts.sync = LOG_SYNC_ALWAYS;
    rig_open();
    expect(
        rig_until(has_synced, &(uint64_t){3})); /* zeros, what it begins with, the spare's zeros */
    sim_disk_fail(rig.disk, SIM_SYNC, 1, 1, EIO);
    rig_block_calls(SIM_SYNC);
    uint64_t end = rig_append_number(0, 100);
    expect(rig_until(rig_is_inside, NULL)); /* the writer, which will fail */
    log_hurry(rig.log);
    usleep(100 * 1000); /* the sync thread stands behind it */
    rig_block_calls(-1);
    expect(rig_wait(LOG_LEVEL_DISK, end));
    expect_safe(1, "an ack while two threads wanted to sync");
    log_stats(rig.log, &stats);
    expect_eq(stats.sync_failures, 1);
    expect(rig_until(rig_is_well, NULL));
    rig_close(true);
    rig_fini();
}
END_TEST

static void note_moved(void *arg) {
    atomic_store((_Atomic bool *)arg, true);
}

static bool is_true(void *arg) {
    return atomic_load((_Atomic bool *)arg);
}

START_TEST(h14_a_disk_that_hangs_stops_nobody_who_appends) {
    static _Atomic bool moved;
    struct rig_found found;
    uint64_t i = 1;
    rig_init();
    rig.opts.memory_limit = 200000;
    rig.opts.moved = note_moved;
    rig.opts.arg = &moved;
    rig_open();
    rig_block_calls(SIM_WRITE);
    rig_append_number(0, 1000);
    expect(rig_until(rig_is_inside, NULL));
    for (; log_has_room(rig.log); i++) {
        rig_append_number(i, 1000);
        expect(i < 1000);
    }
    expect(log_head(rig.log).v - log_durable(rig.log).v >= 200000);
    /* Who was past the question still appends: his memory was promised. */
    for (uint64_t end = i + 100; i < end; i++) {
        int64_t began_us = time_mono_us();
        rig_append_number(i, 5000);
        expect(time_mono_us() - began_us < 200 * 1000);
    }
    atomic_store(&moved, false);
    log_want(rig.log, LOG_LEVEL_DISK);
    expect(!log_has_room(rig.log));
    rig_block_calls(-1);
    expect(rig_until(is_true, &moved));
    expect(rig_wait(LOG_LEVEL_DISK,
                    log_head(rig.log).v)); /* without a second's wait: it is half full */
    expect(log_has_room(rig.log));
    rig_close(true);
    rig_read(&found, NULL, 0);
    rig_expect_numbers(&found, 0, i);
    rig_found_fini(&found);
    rig_fini();
}
END_TEST

static bool has_less_than_half(void *arg) {
    (void)arg;
    return log_head(rig.log).v - log_durable(rig.log).v <= 50000 + 1100;
}

START_TEST(half_full_memory_is_synced_early) {
    rig_init();
    rig.opts.sync = LOG_SYNC_NO;
    rig.opts.memory_limit = 100000;
    rig_open();
    uint64_t end = 0;
    for (uint64_t i = 0; i < 60; i++) {
        end = rig_append_number(i, 1000);
    }
    expect(rig_wait(LOG_LEVEL_OS, end));
    expect(rig_until(has_less_than_half, NULL)); /* by itself it would take half a minute */
    rig_close(true);
    rig_fini();
}
END_TEST

/* --- large values ------------------------------------------------------------------------------------ */

static bool is_sole(void *arg) {
    return blob_is_sole(arg);
}

/* H15: the value isn't copied, the next ones don't wait for it. DC_BLOB_MB says how large. */
START_TEST(h15_a_large_value_passes_by_reference) {
    const char *wanted = getenv("DC_BLOB_MB");
    int64_t mb = 5;
    expect(wanted == NULL || num_parse_i64(bytes_str(wanted), &mb));
    size_t len = (size_t)mb << 20;
    char dir[TEMP_DIR_MAX];
    struct rig_found found;
    rig_init();
    temp_dir_make(dir);
    rig.opts.io = &io_posix;
    rig.opts.dir = dir;
    rig_open();
    struct blob *b = blob_create(len, len);
    memset(b->data, 'x', len);
    (void)blob_sum(b); /* where it was received, outside of every lock */
    rig_append_number(0, 10);
    int64_t began_us = time_mono_us();
    uint64_t blob_end = rig_append_blob(rig.feed, "large", b);
    uint64_t end = rig_append_number(2, 10);
    ck_assert_msg(time_mono_us() - began_us < 20 * 1000 * (TEST_SANITIZED ? 20 : 1),
                  "appending took %" PRId64 " us", time_mono_us() - began_us);
    expect(!blob_is_sole(b));
    expect(log_wait(rig.log, LOG_LEVEL_DISK, (struct lsn){end}, 120 * 1000000));
    expect(rig_until(is_sole, b)); /* durable: the log has let go of it */
    rig_close(true);
    rig_read(&found, NULL, 0);
    const struct rig_frame *large = rig_find(&found, blob_end);
    expect(large != NULL && large->value_len == len && large->value_sum == blob_sum(b));
    expect(rig_find(&found, end) != NULL);
    blob_release(b);
    rig_found_fini(&found);
    temp_dir_remove(dir);
    rig_fini();
}
END_TEST

/* --- no memory --------------------------------------------------------------------------------------- */

/* Every allocation fails in turn, until it can be appended; the log's threads sleep. Returns how often it was refused. */
static uint64_t append_against_faults(const struct value *v, uint64_t *end) {
    for (uint64_t n = 1;; n++) {
        uint64_t head = log_head(rig.log).v;
        mem_fault_after(n);
        enum dc_err err = rig_try_append(rig.feed, "k", v, end);
        mem_fault_after(0);
        if (err == DC_OK) {
            return n - 1;
        }
        expect_eq(err, DC_ENOMEM);
        expect_eq(log_head(rig.log).v, head);
    }
}

START_TEST(test_h16_a_frame_without_memory_is_not_in_the_log) {
    enum { FRAMES = 16 };
    static const char bytes[100 << FRAMES / 2];
    struct blob *b = blob_create(BLOB_MIN_LEN, BLOB_MIN_LEN);
    struct rig_found found;
    uint64_t refused = 0, end = 0;
    memset(b->data, 'x', b->len);
    (void)blob_sum(b);
    rig_init();
    rig_open();
    uint64_t first = log_head(rig.log).v;
    for (uint32_t i = 0; i < FRAMES; i++) {
        struct value v = {.kind = VALUE_BLOB, .blob = b};
        if (i % 2 == 0) { /* each longer than all before */
            v = value_raw(bytes_of(bytes, (size_t)100 << i / 2));
        }
        refused += append_against_faults(&v, &end);
    }
    expect(refused > 2);
    rig_close(true);
    rig_read(&found, NULL, first);
    expect_eq(found.count, FRAMES + 1); /* and CLOSE */
    expect_eq(found.how, LOG_END);
    expect(rig_find(&found, end) != NULL);
    rig_found_fini(&found);
    blob_release(b);
    rig_fini();
}
END_TEST

/* --- full and broken disks --------------------------------------------------------------------------- */

START_TEST(a_full_disk_is_a_state_and_ends_by_itself) {
    enum log_state full = LOG_FULL;
    char text[256];
    struct rig_found found;
    rig_init();
    rig_open();
    for (uint64_t i = 0; i < 3; i++) {
        expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(i, 3000)));
    }
    usleep(20000); /* the spare is there */
    sim_disk_set_capacity(rig.disk, sim_disk_used(rig.disk) + 1000);
    uint64_t end = 0;
    uint64_t i = 3;
    for (; log_state(rig.log) == LOG_WELL && i < 100; i++) {
        end = rig_append_number(i, 3000);
        usleep(2000);
    }
    expect(rig_until(rig_is_ill, &full));
    log_trouble(rig.log, text, sizeof(text));
    ck_assert_msg(strstr(text, "No space left") != NULL, "%s", text);
    expect(log_written(rig.log).v < end);
    usleep(300 * 1000); /* it tries again, and leaves nothing behind */
    expect_eq(log_state(rig.log), LOG_FULL);
    sim_disk_set_capacity(rig.disk, UINT64_MAX);
    expect(rig_until(rig_is_well, NULL));
    log_trouble(rig.log, text, sizeof(text));
    ck_assert_str_eq(text, "");
    expect(rig_wait(LOG_LEVEL_DISK, end));
    rig_close(true);
    rig_read(&found, NULL, 0);
    expect_eq(found.how, LOG_END);
    rig_expect_numbers(&found, 0, i);
    rig_found_fini(&found);
    rig_fini();
}
END_TEST

START_TEST(a_broken_disk_is_a_state_and_ends_by_itself) {
    enum log_state broken = LOG_BROKEN;
    struct rig_found found;
    rig_init();
    rig_open();
    usleep(20000);
    sim_disk_fail(rig.disk, SIM_WRITE, 1, UINT64_MAX, EIO);
    uint64_t end = rig_append_number(0, 100);
    expect(rig_until(rig_is_ill, &broken));
    expect(!log_wait(rig.log, LOG_LEVEL_OS, (struct lsn){end}, 1000));
    sim_disk_fail(rig.disk, SIM_WRITE, 0, 0, 0);
    expect(rig_until(rig_is_well, NULL));
    expect(rig_wait(LOG_LEVEL_DISK, end));
    /* A sync that fails while nobody writes behind it. */
    sim_disk_fail(rig.disk, SIM_SYNC, 1, 4, EIO);
    end = rig_append_number(1, 100);
    expect(rig_wait(LOG_LEVEL_DISK, end));
    expect(rig_until(rig_is_well, NULL));
    rig_close(true);
    rig_read(&found, NULL, 0);
    rig_expect_numbers(&found, 0, 2);
    rig_found_fini(&found);
    rig_fini();
}
END_TEST

/* An end while the disk is broken takes no longer than it may, and says nothing that isn't so. */
START_TEST(a_close_on_a_broken_disk_ends) {
    for (int clean = 0; clean < 2; clean++) {
        struct rig_found found;
        rig_init();
        rig_open();
        expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(0, 100)));
        sim_disk_fail(rig.disk, clean ? SIM_SYNC : SIM_WRITE, 1, UINT64_MAX, EIO);
        rig_append_number(1, 100);
        int64_t began_us = time_mono_us();
        log_feed_destroy(rig.feed);
        log_close(rig.log, clean, 300);
        expect(time_mono_us() - began_us < 2 * 1000 * 1000);
        rig_read(&found, NULL, 0);
        expect(rig_count_numbers(&found) >= 1);
        expect(found.frames[found.count - 1].kind != FRAME_CLOSE);
        rig_found_fini(&found);
        expect_safe(1, "closed");
        rig_fini();
    }
}
END_TEST

START_TEST(an_open_that_fails_leaves_nothing) {
    static const struct {
        enum sim_call kind;
        uint64_t n;
    } calls[] = {{SIM_CREATE, 1}, {SIM_ALLOCATE, 1}, {SIM_WRITE, 1}, {SIM_WRITE, 2},
                 {SIM_WRITE, 3},  {SIM_RENAME, 1},   {SIM_SYNC, 1},  {SIM_SYNC_DIR, 1}};
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        struct buf names;
        struct log *l = NULL;
        rig_init();
        sim_disk_fail(rig.disk, calls[i].kind, calls[i].n, 1, EIO);
        expect_eq(log_open(&rig.opts, &l), DC_EIO);
        ck_assert_ptr_nonnull(strstr(dc_fail_take(DC_EIO), "data"));
        buf_init(&names, 0);
        rig_list(&names);
        ck_assert_str_eq(names.ptr, "");
        buf_fini(&names);
        rig_open(); /* the next one works */
        rig_close(true);
        rig_fini();
    }
}
END_TEST

/* --- retention --------------------------------------------------------------------------------------- */

/* The catalogue entries of the segments; the last one is being written. */
static uint32_t list_segments(struct meta_file *files) {
    struct log_dir d;
    expect_eq(log_dir_open(&d, rig.opts.io, "data"), DC_OK);
    uint32_t count = d.count;
    for (uint32_t i = 0; i < count; i++) {
        retain_file_of_segment(&d.segments[i], &files[i]);
    }
    files[count - 1].state = FILE_OPEN;
    log_dir_close(&d);
    return count;
}

/* H18: while there is no snapshot nothing goes, however long the log is; then what is below it does, and what it needs stays. */
START_TEST(h18_retention_leaves_what_recovery_needs) {
    struct meta_file files[64];
    struct retain_plan plan;
    struct retain_opts opts = {.max_bytes = 1, .needed_lsn = UINT64_MAX, .now_ms = INT64_MAX / 2};
    uint64_t ends[20];
    rig_init();
    rig_open();
    for (uint64_t i = 0; i < 20; i++) {
        ends[i] = rig_append_number(i, 10000);
        expect(rig_wait(LOG_LEVEL_DISK, ends[i]));
    }
    uint32_t count = list_segments(files);
    expect_eq(count, 20);
    retain_decide(files, count, &opts, &plan);
    expect(plan.count == 0 && plan.over);
    retain_plan_fini(&plan);
    files[count++] = (struct meta_file){.kind = FILE_SNAPSHOT,
                                        .state = FILE_COMPLETE,
                                        .name = "snap",
                                        .first_lsn = ends[9],
                                        .end_lsn = ends[11],
                                        .history = rig.chain[0].id};
    retain_decide(files, count, &opts, &plan);
    expect_eq(plan.count, 12);
    expect_eq(retain_apply(rig.opts.io, "data", &plan, NULL, NULL), DC_OK);
    retain_plan_fini(&plan);
    uint64_t end = rig_append_number(20, 10000);
    expect(rig_wait(LOG_LEVEL_DISK, end));
    struct rig_found found;
    rig_read(&found, NULL, ends[11]);
    expect_eq(found.how, LOG_END);
    expect_eq(found.frames[0].lsn, ends[11]);
    rig_expect_numbers(&found, 12, 21);
    rig_found_fini(&found);
    rig_close(true);
    rig_fini();
}
END_TEST

CHECK_MAIN("log_trouble", h12_what_follows_a_failed_sync_comes_in_this_order,
           h12_a_start_behind_a_kill_makes_durable_what_a_sync_forgot,
           h12_what_is_acked_after_a_failed_sync_is_there, h12_megabytes_are_written_again,
           the_log_outlives_any_failed_call, a_kill_while_it_begins_anew_loses_nothing,
           h12_who_waited_to_sync_a_file_that_failed_meanwhile_leaves_it_alone,
           h13_a_sync_that_hangs_makes_the_log_late_and_nothing_else,
           h14_a_disk_that_hangs_stops_nobody_who_appends, half_full_memory_is_synced_early,
           h15_a_large_value_passes_by_reference, test_h16_a_frame_without_memory_is_not_in_the_log,
           a_full_disk_is_a_state_and_ends_by_itself, a_broken_disk_is_a_state_and_ends_by_itself,
           a_close_on_a_broken_disk_ends, an_open_that_fails_leaves_nothing,
           h18_retention_leaves_what_recovery_needs)
