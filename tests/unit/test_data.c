/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/data.h"
#include "persist/retain.h"
#include "server/base/mem.h"
#include "server/base/time.h"
#include "tests/support/check_main.h"
#include "tests/support/data_case.h"
#include "tests/support/expect.h"

#include <errno.h>

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

/* --- retention ------------------------------------------------------------------------------------------------- */

enum { SNAPSHOTS = 3 };
static char snapshots[SNAPSHOTS][SNAP_NAME_MAX]; /* oldest first */

/* Three snapshots, and a segment up to each. */
static void begin_with_three(void) {
    uint64_t from = 0;
    char key[32];
    case_open(&c);
    for (uint32_t i = 0; i < SNAPSHOTS; i++) {
        must(hand_set(&c.hand, 0, key_of(key, "key", i), BYTES("value"), EXPIRY_NONE));
        case_snapshot(&c);
        memcpy(snapshots[i], c.snapshot, sizeof(snapshots[i]));
        log_file_write(&c.log, c.dir, from, 0, 0);
        from = log_file_end(&c.log);
    }
    begin_run(true);
}

static void end_with_three(void) {
    data_close(&d, true, 1000);
    remove_metadata();
    case_close(&c);
}

static enum dc_err tidy(void) {
    struct retain_opts opts = {.keep_count = SNAPSHOTS};
    return data_tidy(&d, &opts, NULL);
}

static void expect_files(uint32_t snaps, uint32_t segments) {
    expect_eq(count_names(&io_posix, c.dir, ".dcs"), snaps);
    expect_eq(count_names(&io_posix, c.dir, ".dcl"), segments);
}

static int opening_fails; /* of the oldest snapshot: errno */
static int listings; /* up to one that fails and doesn't tell of the oldest snapshot; 0 = none */

static int failing_open(const struct io *io, const char *path, enum io_mode mode,
                        struct io_file *out) {
    bool goes = opening_fails == 0 || strstr(path, snapshots[0]) == NULL;
    return goes ? io_posix.open(io, path, mode, out) : -opening_fails;
}

static int failing_list(const struct io *io, const char *path, io_name_fn each, void *arg) {
    if (listings == 0 || --listings > 0) {
        return io_posix.list(io, path, each, arg);
    }
    each(arg, snapshots[1]);
    each(arg, snapshots[2]);
    return -EIO;
}

/* Whatever fails says nothing of the snapshot: it stays, and the log that it needs. */
START_TEST(what_can_not_be_read_now_ends_the_pass) {
    static const int errors[] = {EMFILE, ENOMEM, EIO};
    struct io failing = io_posix;
    failing.open = failing_open;
    failing.list = failing_list;
    begin_with_three();
    d.io = &failing;
    for (int i = 0; i < 3; i++) {
        opening_fails = errors[i];
        expect_eq(tidy(), DC_EIO);
        expect(strstr(dc_fail_take(DC_EIO), snapshots[0]) != NULL);
        expect_files(3, 4);
    }
    opening_fails = 0;
    listings = 2; /* the first one is for segments */
    expect_eq(tidy(), DC_EIO);
    expect_files(3, 4);
    must(tidy()); /* the log below the end of the oldest one */
    expect_files(3, 3);
    d.io = &io_posix;
    end_with_three();
}
END_TEST

static const char *path_of(const char *name) {
    static char path[512];
    snprintf(path, sizeof(path), "%s/%s", c.dir, name);
    return path;
}

/* A start doesn't look at it, so it can't stand in for one of those that stay. */
START_TEST(a_snapshot_of_another_name_does_not_count) {
    char from[512];
    begin_with_three();
    snprintf(from, sizeof(from), "%s", path_of(snapshots[SNAPSHOTS - 1]));
    ck_assert_int_eq(link(from, path_of("copy.dcs")), 0);
    must(tidy());
    expect_files(SNAPSHOTS + 1, 3);
    ck_assert_int_eq(unlink(path_of("copy.dcs")), 0);
    end_with_three();
}
END_TEST

static void set_created(const char *name, int64_t created_ms) {
    struct meta_file file = {
        .kind = FILE_SNAPSHOT, .state = FILE_COMPLETE, .created_ms = created_ms};
    snprintf(file.name, sizeof(file.name), "%s", name);
    must(meta_put_file(d.meta, &file));
}

/* It has none of its own; one that the catalogue doesn't know was made when it was found. */
START_TEST(the_age_of_a_damaged_snapshot_is_that_of_the_catalogue) {
    begin_with_three();
    file_poke(path_of(snapshots[0]), -1, "?", 1);
    int64_t found_ms = time_wall_us() / 1000;
    expect(found_ms > ENGINE_NOW_MS + RETAIN_ASIDE_MS);
    must(tidy()); /* those that are whole were made before */
    expect_files(3, 2);
    set_created(snapshots[0],
                found_ms - RETAIN_ASIDE_MS - 60000); /* old, but not older than the others */
    must(tidy());
    expect_files(3, 2);
    set_created(snapshots[0], ENGINE_NOW_MS - 1);
    must(tidy());
    expect_files(2, 2);
    end_with_three();
}
END_TEST

CHECK_MAIN("data", a_chain_that_is_full_forgets_its_beginning_and_goes_on,
           test_h5_versions_of_runs_without_a_log_come_only_once_when_the_metadata_are_gone,
           what_can_not_be_read_now_ends_the_pass, a_snapshot_of_another_name_does_not_count,
           the_age_of_a_damaged_snapshot_is_that_of_the_catalogue)
