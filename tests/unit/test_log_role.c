/* SPDX-License-Identifier: BSD-3-Clause */
/* Who writes the log: its own thread, or who is about to wait for it. */
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "server/base/time.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"
#include "tests/support/log_rig.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LONG_US = 10 * 1000 * 1000, SHORT_US = 1000 };

static uint64_t append(struct log_feed *f, uint64_t number, size_t len) {
    static const char bytes[RIG_SEGMENT_LEN];
    char key[24];
    uint64_t end = 0;
    snprintf(key, sizeof(key), "k%llu", (unsigned long long)number);
    struct value v = {.kind = VALUE_STR, .str = bytes_of(bytes, len)};
    expect(rig_try_append(f, key, &v, &end) == DC_OK);
    return end;
}

/* --- which thread -------------------------------------------------------------------------------------- */

static pthread_t this_thread;
static _Atomic uint32_t here, elsewhere;

static void count_writes(void *arg, enum sim_call kind, const char *path) {
    (void)arg, (void)path;
    if (kind == SIM_WRITE) {
        atomic_fetch_add(pthread_equal(pthread_self(), this_thread) ? &here : &elsewhere, 1);
    }
}

static void watch_writes(void) {
    this_thread = pthread_self();
    atomic_store(&here, 0);
    atomic_store(&elsewhere, 0);
    sim_disk_set_hook(rig.disk, count_writes, NULL);
}

static bool write_through(uint64_t end, int64_t timeout_us) {
    return log_write_through(rig.log, (struct lsn){end}, timeout_us);
}

START_TEST(who_waits_writes_it_himself) {
    rig_init();
    rig_open();
    watch_writes();
    for (uint64_t i = 0; i < 10; i++) {
        expect(write_through(append(rig.feed, i, 100), LONG_US));
    }
    expect(atomic_load(&here) > 5); /* each, unless the thread was just looking */
    expect_eq(log_written(rig.log).v, log_head(rig.log).v);
    rig_close(true);
    rig_fini();
}
END_TEST

/* The next segment, and all that isn't a plain write, is the thread's. */
START_TEST(what_is_more_than_a_write_is_left_to_the_thread) {
    rig_init();
    rig_open();
    expect(write_through(append(rig.feed, 0, RIG_SEGMENT_LEN / 4 * 3), LONG_US));
    watch_writes();
    expect(write_through(append(rig.feed, 1, RIG_SEGMENT_LEN / 2), LONG_US));
    expect(atomic_load(&here) == 0 && atomic_load(&elsewhere) > 0);
    log_set_sync(rig.log, LOG_SYNC_ALWAYS);
    expect(write_through(append(rig.feed, 2, 100), LONG_US));
    expect_eq(atomic_load(&here), 0);
    log_set_sync(rig.log, LOG_SYNC_EVERYSEC);
    for (uint64_t i = 3; atomic_load(&here) == 0; i++) { /* unless the thread is just looking */
        expect(write_through(append(rig.feed, i, 100), LONG_US));
        expect(i < 1000);
    }
    rig_close(true);
    rig_fini();
}
END_TEST

START_TEST(what_the_disk_refuses_is_tried_again_by_the_thread) {
    struct rig_found found;
    rig_init();
    rig_open();
    expect(write_through(append(rig.feed, 0, 100), LONG_US));
    watch_writes();
    sim_disk_fail(rig.disk, SIM_WRITE, 1, 3, ENOSPC);
    uint64_t end = append(rig.feed, 1, 100);
    expect(!write_through(end, SHORT_US));
    expect(log_state(rig.log) == LOG_FULL);
    expect(write_through(append(rig.feed, 2, 100), LONG_US));
    expect(atomic_load(&elsewhere) > 0 && log_written(rig.log).v > end);
    rig_close(true);
    rig_read(&found, rig.disk, 0);
    uint32_t mutations = 0;
    for (uint32_t i = 0; i < found.count; i++) {
        mutations += found.frames[i].kind == FRAME_MUTATION;
    }
    expect_eq(mutations, 3);
    rig_found_fini(&found);
    rig_fini();
}
END_TEST

/* --- a write that hangs -------------------------------------------------------------------------------- */

static _Atomic bool hangs, is_held;

static void hang(void *arg, enum sim_call kind, const char *path) {
    (void)arg, (void)path;
    while (kind == SIM_WRITE && atomic_load(&hangs)) {
        atomic_store(&is_held, true);
        usleep(500);
    }
}

static void be_held(void *arg) {
    struct log_feed *f = log_feed_create(rig.log);
    (void)arg;
    (void)write_through(append(f, 0, 100), SHORT_US);
    log_feed_destroy(f);
}

static bool somebody_is_held(void *arg) {
    (void)arg;
    return atomic_load(&is_held);
}

START_TEST(h14_one_is_held_by_the_disk_and_the_others_get_their_time_back) {
    struct thread held;
    rig_init();
    rig_open();
    atomic_store(&hangs, true);
    atomic_store(&is_held, false);
    sim_disk_set_hook(rig.disk, hang, NULL);
    thread_start(&held, "held", be_held, NULL);
    expect(rig_until(somebody_is_held, NULL));
    uint64_t end = 0;
    for (uint64_t i = 1; i < 20; i++) {
        int64_t began_us = time_mono_us();
        end = append(rig.feed, i, 100);
        expect(!write_through(end, SHORT_US));
        expect(time_mono_us() - began_us < 500 * 1000);
    }
    atomic_store(&hangs, false);
    thread_join(&held);
    expect(write_through(end, LONG_US));
    rig_close(true);
    rig_fini();
}
END_TEST

/* --- many ------------------------------------------------------------------------------------------------ */

enum { THREADS = 4, FRAMES = 3000 };

static void append_many(void *arg) {
    struct log_feed *f = log_feed_create(rig.log);
    uint64_t first = (uint64_t)(uintptr_t)arg * FRAMES;
    for (uint64_t i = 0; i < FRAMES; i++) {
        uint64_t end = append(f, first + i, i % 700);
        if (i % 3 == 0) {
            expect(write_through(end, LONG_US));
            expect(log_written(rig.log).v >= end);
        } else if (i % 3 == 1) {
            log_kick(rig.log);
        }
    }
    log_feed_destroy(f);
}

static void expect_all(void) {
    struct rig_found found;
    uint64_t next[THREADS] = {0}, lsn = RIG_FIRST_LSN;
    rig_read(&found, rig.disk, 0);
    for (uint32_t i = 0; i < found.count; i++) {
        const struct rig_frame *frame = &found.frames[i];
        expect_eq(frame->lsn, lsn);
        lsn = frame->end;
        if (frame->kind == FRAME_MUTATION) {
            uint64_t number = strtoull(frame->key + 1, NULL, 10);
            expect_eq(number % FRAMES, next[number / FRAMES]++);
        }
    }
    for (uint32_t t = 0; t < THREADS; t++) {
        expect_eq(next[t], FRAMES);
    }
    rig_found_fini(&found);
}

START_TEST(of_many_who_write_every_frame_is_there_in_order) {
    struct thread threads[THREADS];
    rig_init();
    rig_open();
    for (uintptr_t t = 0; t < THREADS; t++) {
        thread_start(&threads[t], "appender", append_many, (void *)t);
    }
    for (int i = 0; i < 20; i++) { /* fdatasync now fails, now takes its files on */
        usleep(5000);
        if (i % 5 == 4) {
            sim_disk_fail(rig.disk, SIM_SYNC, 1, 1, EIO);
        }
        log_hurry(rig.log);
    }
    for (uint32_t t = 0; t < THREADS; t++) {
        thread_join(&threads[t]);
    }
    expect(rig_wait(LOG_LEVEL_DISK, log_head(rig.log).v));
    rig_close(true);
    expect_all();
    rig_fini();
}
END_TEST

/* --- 'always': those whom the last fdatasync has served --------------------------------------------------- */

START_TEST(company_that_does_not_come_is_not_waited_for_long) {
    rig_init();
    rig.opts.sync = LOG_SYNC_ALWAYS;
    rig_open();
    for (int round = 0; round < 20; round++) {
        uint64_t end = 0;
        for (uint64_t i = 0; i < 50; i++) {
            end = append(rig.feed, i, 100);
        }
        log_kick(rig.log);
        expect(rig_wait(LOG_LEVEL_DISK, end));
        int64_t began_us = time_mono_us();
        end = append(rig.feed, 50, 100); /* one of fifty, and no other */
        log_kick(rig.log);
        expect(log_wait(rig.log, LOG_LEVEL_DISK, (struct lsn){end}, LONG_US));
        expect(time_mono_us() - began_us < 500 * 1000);
    }
    rig_close(true);
    rig_fini();
}
END_TEST

CHECK_MAIN("log_role", who_waits_writes_it_himself, what_is_more_than_a_write_is_left_to_the_thread,
           what_the_disk_refuses_is_tried_again_by_the_thread,
           h14_one_is_held_by_the_disk_and_the_others_get_their_time_back,
           of_many_who_write_every_frame_is_there_in_order,
           company_that_does_not_come_is_not_waited_for_long)
