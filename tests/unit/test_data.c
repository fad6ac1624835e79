/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/data.h"
#include "server/base/mem.h"
#include "tests/support/check_main.h"
#include "tests/support/data_case.h"
#include "tests/support/expect.h"

static struct data_case c;
static struct data d;

static void begin_run(bool keeps) {
    struct log_opts opts = {
        .keeps = keeps, .sync = LOG_SYNC_EVERYSEC, .segment_len = 1 << 20, .memory_limit = 1 << 20};
    must(data_open(&d, &io_posix, c.dir));
    must(data_begin(&d, &opts));
}

static uint32_t histories; /* of the last run */

/* A run that writes nothing; returns where its history begins. */
static uint64_t run(bool ends_well) {
    begin_run(true);
    histories = data_chain(&d)->count;
    uint64_t start = histories_last(data_chain(&d))->start;
    data_close(&d, ends_well, 1000);
    return start;
}

/* A snapshot that knows as many histories as there may be, the last one being that of the log. */
static void write_snapshot(void) {
    static struct history chain[CHAIN_MAX];
    struct history last = c.log.chain[0];
    for (uint32_t i = 0; i < CHAIN_MAX; i++) {
        chain[i] =
            (struct history){.id = 1000 + i, .start = 1 + i, .epoch = 1 + i, .parent_end = i};
    }
    last.parent_end = CHAIN_MAX - 1;
    last.epoch = CHAIN_MAX;
    chain[CHAIN_MAX - 1] = last;
    struct snap_write_opts opts = {.io = &io_posix,
                                   .dir = c.dir,
                                   .store = c.engine.store,
                                   .lsn = log_file_end(&c.log),
                                   .node_id = c.log.node_id,
                                   .seed = c.log.seed,
                                   .chain = chain,
                                   .chain_count = CHAIN_MAX,
                                   .block_len = 4096,
                                   .now_ms = engine_now(&c.engine)};
    struct snap_written written;
    must(snap_write(&opts, &written));
}

static void remove_metadata(void) {
    static const char *const names[] = {"meta/data.mdb", "meta/lock.mdb", "meta"};
    char path[512];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", c.dir, names[i]);
        ck_assert_int_eq(remove(path), 0);
    }
}

START_TEST(a_chain_that_is_full_forgets_its_beginning_and_goes_on) {
    case_open(&c);
    must(hand_set(&c.hand, 0, BYTES("key"), BYTES("value"), EXPIRY_NONE));
    write_snapshot();
    uint64_t first = run(false);
    expect_eq(histories, CHAIN_MAX);
    expect(first > LSN_JUMP); /* no CLOSE before it: a new history */
    uint64_t second = run(false);
    expect(second > first + LSN_JUMP); /* it has read the FORK frame of a full chain */
    uint64_t third = run(true);
    expect(third > second + LSN_JUMP);
    expect_eq(run(true), third); /* goes on, and forgets nothing */
    expect_eq(histories, CHAIN_MAX);
    remove_metadata();
    case_close(&c);
}
END_TEST

/* Without a log and killed; returns the highest version that it could have handed out. */
static uint64_t run_without_a_log(void) {
    begin_run(false);
    uint64_t head = log_head(d.log).v;
    data_close(&d, false, 1000);
    return head + LSN_JUMP - 1;
}

START_TEST(test_h5_versions_of_runs_without_a_log_come_only_once_when_the_metadata_are_gone) {
    case_open(&c);
    uint64_t first = run(true);
    expect_eq(run(true), first);
    uint64_t handed_out = run_without_a_log(); /* behind a clean end */
    remove_metadata();
    must(data_open(&d, &io_posix, c.dir)); /* a start that doesn't come so far as to begin a log */
    data_close(&d, false, 1000);
    uint64_t next = run(false);
    expect(next > handed_out);
    for (int i = 0; i < 3; i++) { /* behind a kill */
        handed_out = run_without_a_log();
    }
    remove_metadata();
    expect(run(true) > handed_out);
    remove_metadata();
    case_close(&c);
}
END_TEST

CHECK_MAIN("data", a_chain_that_is_full_forgets_its_beginning_and_goes_on,
           test_h5_versions_of_runs_without_a_log_come_only_once_when_the_metadata_are_gone)
