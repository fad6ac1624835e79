/* SPDX-License-Identifier: BSD-3-Clause */
/* 'appendonly' on a disk that is full or broken: a log that begins to be kept, and one that is written for its readers only. */
#include "server/base/time.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"
#include "tests/support/log_rig.h"

#include <errno.h>

static bool is_well(void *arg) {
    (void)arg;
    return log_state(rig.log) == LOG_WELL;
}

static bool is_ill(void *arg) {
    return log_state(rig.log) == *(enum log_state *)arg;
}

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
    expect(rig_until(is_ill, &broken));
    sim_disk_fail(rig.disk, SIM_SYNC, 0, 0, 0);
    expect(rig_until(is_well, NULL));
    expect(rig_wait(LOG_LEVEL_DISK, end));
    /* Not kept any more while it is ill: the state goes, and so does the reader's log. */
    from = log_written(rig.log).v;
    sim_disk_fail(rig.disk, SIM_SYNC, 1, UINT64_MAX, EIO);
    rig_append_number(2, 100);
    log_hurry(rig.log);
    expect(rig_until(is_ill, &broken));
    log_set_keeps(rig.log, false);
    expect(rig_until(is_well, NULL));
    log_hurry(rig.log);
    rig_append_number(3, 100);
    log_hurry(rig.log);
    expect_given_up(from);
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
    expect(rig_until(is_well, NULL)); /* what is written has a file, whatever its name */
    sim_disk_fail(rig.disk, SIM_RENAME, 0, 0, 0);
    expect(!log_is_based(rig.log)); /* the first one is forgotten */
    expect(log_base(rig.log, from, &never));
    expect(log_is_based(rig.log));
    rig_close(true);
    rig_fini();
}
END_TEST

CHECK_MAIN("log_keep", a_log_that_is_written_for_its_readers_only_is_given_up_when_the_disk_is_full,
           a_log_that_is_written_for_its_readers_only_is_given_up_when_a_sync_fails,
           a_base_that_the_disk_refuses_is_given_up_and_can_be_named_again)
