/* SPDX-License-Identifier: BSD-3-Clause */
/* 'appendonly' on a disk that is full or broken: a log that begins to be kept, and one that is written for its readers only. */
#include "server/base/rng.h"
#include "server/base/thread.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"
#include "tests/support/log_rig.h"

#include <errno.h>
#include <unistd.h>

static bool is_given_up(void *arg) {
    (void)arg;
    return log_is_given_up(rig.log);
}

static bool is_out_of_files(void *from) {
    return !log_is_in_files(rig.log, *(uint64_t *)from);
}

/* Nobody has been refused a write, and the reader finds out. */
static void expect_given_up(uint64_t from) {
    expect(rig_until(is_given_up, NULL));
    expect(rig_wait(LOG_LEVEL_DISK, log_head(rig.log).v));
    expect_eq(log_state(rig.log), LOG_WELL);
    expect(rig_until(is_out_of_files, &from));
    expect(log_has_room(rig.log));
}

START_TEST(a_log_that_is_written_for_its_readers_only_is_given_up_when_the_disk_is_full) {
    rig_init();
    rig.opts.keeps = false;
    rig_open();
    rig_append_number(0, 100);
    sim_disk_set_capacity(rig.disk, 100);
    uint64_t from = log_pin(rig.log).v; /* doesn't wait for ever */
    expect_given_up(from);
    (void)log_pin(rig.log); /* nor does one beside it */
    log_unpin(rig.log);
    expect_given_up(from);
    log_unpin(rig.log);
    expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(1, 100)));
    /* The file is there, and becomes too small. */
    sim_disk_set_capacity(rig.disk, 40000);
    from = log_pin(rig.log).v;
    expect(!log_is_given_up(rig.log));
    expect(from > RIG_FIRST_LSN && log_is_in_files(rig.log, from));
    for (uint64_t i = 2; i < 30; i++) {
        rig_append_number(i, 3000);
    }
    expect_given_up(from);
    log_unpin(rig.log);
    expect(!log_is_given_up(rig.log));
    rig_close(true);
    rig_fini();
}
END_TEST

START_TEST(a_log_that_is_written_for_its_readers_only_is_given_up_when_a_sync_fails) {
    rig_init();
    rig.opts.keeps = false;
    rig_open();
    uint64_t from = log_pin(rig.log).v;
    sim_disk_fail(rig.disk, SIM_SYNC, 1, UINT64_MAX, EIO);
    rig_append_number(0, 100);
    log_hurry(rig.log);
    expect_given_up(from);
    /* Kept from now on: the same disk is a reason to refuse writes, and what is kept is there when it is well. */
    log_set_keeps(rig.log, true);
    expect(!log_is_given_up(rig.log));
    uint64_t end = rig_append_number(1, 100);
    enum log_state broken = LOG_BROKEN;
    log_hurry(rig.log);
    expect(rig_until(rig_is_ill, &broken));
    sim_disk_fail(rig.disk, SIM_SYNC, 0, 0, 0);
    expect(rig_until(rig_is_well, NULL));
    expect(rig_wait(LOG_LEVEL_DISK, end));
    /* Not kept any more while it is ill: the state goes, and so does the reader's log. */
    from = log_written(rig.log).v;
    sim_disk_fail(rig.disk, SIM_SYNC, 1, UINT64_MAX, EIO);
    rig_append_number(2, 100);
    log_hurry(rig.log);
    expect(rig_until(rig_is_ill, &broken));
    log_set_keeps(rig.log, false);
    expect(rig_until(rig_is_well, NULL));
    log_hurry(rig.log);
    rig_append_number(3, 100);
    log_hurry(rig.log);
    expect_given_up(from);
    log_unpin(rig.log);
    rig_close(true);
    rig_fini();
}
END_TEST

/* Between the failure and the writer's next look somebody wants it kept: it is. */
START_TEST(a_log_that_was_given_up_is_kept_by_who_comes_in_between) {
    static const _Atomic bool never = false;
    rig_init();
    rig.opts.keeps = false;
    rig_open();
    (void)log_pin(rig.log);
    expect(rig_wait(LOG_LEVEL_OS, rig_append_number(0, 100)));
    rig_block_calls(SIM_WRITE);
    rig_append_number(1, 100);
    expect(rig_until(rig_is_inside, NULL));
    sim_disk_fail(rig.disk, SIM_SYNC, 1, 1, EIO);
    log_hurry(rig.log);
    expect(rig_until(is_given_up, NULL));
    log_set_keeps(rig.log, true);
    uint64_t base = log_head(rig.log).v;
    rig_block_calls(-1);
    expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(2, 100)));
    expect(!log_is_given_up(rig.log)); /* else no snapshot would ever be written for it */
    expect(rig_until(rig_is_well, NULL));
    expect(log_base(rig.log, base, &never));
    log_unpin(rig.log);
    rig_close(true);
    rig_fini();
}
END_TEST

static void expect_behind(void *arg, const char *name) {
    const uint64_t *from = arg;
    uint64_t lsn, history;
    expect(!segment_name_parse(name, &lsn, &history) || lsn >= *from);
}

/* The sync thread is still at what was written before the disk was full. */
START_TEST(what_lies_before_a_gap_is_no_part_of_the_log_that_is_kept) {
    static const _Atomic bool never = false;
    rig_init();
    rig.opts.keeps = false;
    rig_open();
    (void)log_pin(rig.log);
    expect(rig_wait(LOG_LEVEL_OS, rig_append_number(0, 100)));
    rig_block_calls(SIM_SYNC);
    log_hurry(rig.log);
    expect(rig_until(rig_is_inside, NULL));
    sim_disk_set_capacity(rig.disk, 100);
    rig_append_number(1, 3 * RIG_SEGMENT_LEN);
    expect(rig_until(is_given_up, NULL));
    rig_append_number(2, 100);
    sim_disk_set_capacity(rig.disk, UINT64_MAX);
    log_set_keeps(rig.log, true);
    uint64_t base = log_head(rig.log).v;
    rig_block_calls(-1);
    expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(3, 100)));
    expect(log_base(rig.log, base, &never));
    uint64_t from = log_kept_from(rig.log);
    expect(from > RIG_FIRST_LSN);
    const struct io *io = sim_disk_io(rig.disk);
    expect_eq(io->list(io, "data", expect_behind, &from), 0);
    log_unpin(rig.log);
    rig_close(true);
    rig_fini();
}
END_TEST

START_TEST(a_base_that_the_disk_refuses_is_given_up_and_can_be_named_again) {
    static const _Atomic bool never = false;
    rig_init();
    rig.opts.keeps = false;
    rig_open();
    log_set_keeps(rig.log, true);
    uint64_t from = log_head(rig.log).v;
    expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(0, 1000)));
    sim_disk_fail(rig.disk, SIM_RENAME, 1, UINT64_MAX, EIO);
    expect(!log_base(rig.log, from, &never));
    expect(log_wants_base(rig.log));
    expect(rig_until(rig_is_well, NULL)); /* what is written has a file, whatever its name */
    sim_disk_fail(rig.disk, SIM_RENAME, 0, 0, 0);
    expect(!log_is_based(rig.log)); /* the first one is forgotten */
    expect(log_base(rig.log, from, &never));
    expect(log_is_based(rig.log));
    rig_close(true);
    rig_fini();
}
END_TEST

/* --- all at once --------------------------------------------------------------------------------------- */

enum { LIVES = 12, STEPS = 150 };

struct reader {
    struct thread thread;
    struct rng rng;
    _Atomic bool stop;
};

static void pin_now_and_then(void *arg) {
    struct reader *r = arg;
    while (!atomic_load(&r->stop)) {
        (void)log_pin(rig.log);
        usleep((useconds_t)rng_below(&r->rng, 400));
        log_unpin(rig.log);
        usleep((useconds_t)rng_below(&r->rng, 200));
    }
}

static void fail_now_and_then(struct rng *r) {
    static const enum sim_call calls[] = {SIM_SYNC, SIM_WRITE, SIM_CREATE, SIM_RENAME,
                                          SIM_SYNC_DIR};
    uint64_t dice = rng_below(r, 2 * sizeof(calls) / sizeof(calls[0]));
    bool fails = dice < sizeof(calls) / sizeof(calls[0]);
    enum sim_call call = calls[dice % (sizeof(calls) / sizeof(calls[0]))];
    sim_disk_fail(rig.disk, call, fails, fails ? 1 + rng_below(r, 3) : 0, fails ? EIO : 0);
}

static void heal(void) {
    for (int call = 0; call < SIM_CALL_COUNT; call++) {
        sim_disk_fail(rig.disk, (enum sim_call)call, 0, 0, 0);
    }
}

/* Kept, and given up, and kept again: at the end it is well, and what is kept from then on is whole. */
static void live(struct rng *r) {
    static const _Atomic bool never = false;
    struct reader readers[2] = {0};
    struct rig_found found;
    rig_init();
    rig.opts.keeps = false;
    rig_open();
    for (uint64_t i = 0; i < 2; i++) {
        rng_seed(&readers[i].rng, rng_next(r));
        thread_start(&readers[i].thread, "reader", pin_now_and_then, &readers[i]);
    }
    for (uint64_t i = 0; i < STEPS; i++) {
        if (rng_below(r, 8) == 0) {
            log_set_keeps(rig.log, rng_below(r, 2) == 0);
        }
        if (rng_below(r, 4) == 0) {
            fail_now_and_then(r);
        }
        rig_append_number(1000 + i, 1 + (size_t)rng_below(r, 3000));
        log_hurry(rig.log);
        usleep((useconds_t)rng_below(r, 300));
    }
    heal();
    for (uint64_t i = 0; i < 2; i++) {
        atomic_store(&readers[i].stop, true);
        thread_join(&readers[i].thread);
    }
    log_set_keeps(rig.log, true);
    expect(rig_until(rig_is_well, NULL));
    uint64_t base = log_head(rig.log).v;
    expect(log_base(rig.log, base, &never));
    for (uint64_t i = 0; i < 20; i++) {
        rig_append_number(i, 2000);
    }
    expect(rig_wait(LOG_LEVEL_DISK, log_head(rig.log).v));
    rig_close(true);
    rig_read(&found, NULL, base);
    expect_eq(found.how, LOG_END);
    expect_eq(found.frames[0].lsn, base);
    rig_expect_numbers(&found, 0, 20);
    rig_found_fini(&found);
    rig_fini();
}

START_TEST(whatever_keeps_pins_and_a_bad_disk_do_at_once_it_is_whole_in_the_end) {
    struct rng r = test_rng();
    for (int i = 0; i < LIVES; i++) {
        live(&r);
    }
}
END_TEST

CHECK_MAIN("log_keep", a_log_that_is_written_for_its_readers_only_is_given_up_when_the_disk_is_full,
           a_log_that_is_written_for_its_readers_only_is_given_up_when_a_sync_fails,
           a_log_that_was_given_up_is_kept_by_who_comes_in_between,
           what_lies_before_a_gap_is_no_part_of_the_log_that_is_kept,
           a_base_that_the_disk_refuses_is_given_up_and_can_be_named_again,
           whatever_keeps_pins_and_a_bad_disk_do_at_once_it_is_whole_in_the_end)
