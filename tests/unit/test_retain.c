/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/retain.h"
#include "server/base/assert.h"
#include "server/base/mem.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"
#include "tests/support/sim_disk.h"
#include "tests/support/temp_dir.h"
#include "tests/support/trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FILES_MAX = 64, DAY_MS = 24 * 3600 * 1000 };
#define NOW_MS ((int64_t)1000 * DAY_MS)

/* A directory on paper. Ages are in days. */
static struct meta_file files[FILES_MAX];
static uint32_t file_count;
static struct retain_opts opts;
static struct retain_plan plan;

static void begin(void) {
    file_count = 0;
    opts = (struct retain_opts){.now_ms = NOW_MS, .needed_lsn = UINT64_MAX};
}

static struct meta_file *put(enum file_kind kind, enum file_state state, const char *name,
                             int age_days) {
    struct meta_file *f = &files[file_count++];
    dc_assert(file_count <= FILES_MAX);
    *f = (struct meta_file){.kind = kind,
                            .state = state,
                            .bytes = 100,
                            .created_ms = NOW_MS - (int64_t)age_days * DAY_MS};
    snprintf(f->name, sizeof(f->name), "%s", name);
    return f;
}

static struct meta_file *segment(const char *name, uint64_t first_lsn) {
    struct meta_file *f = put(FILE_SEGMENT, FILE_COMPLETE, name, 0);
    f->first_lsn = first_lsn;
    return f;
}

static struct meta_file *snapshot(const char *name, uint64_t end_lsn, int age_days) {
    struct meta_file *f = put(FILE_SNAPSHOT, FILE_COMPLETE, name, age_days);
    f->first_lsn = end_lsn - 10;
    f->end_lsn = end_lsn;
    return f;
}

/* Segments s1 at 100, s2 at 200, ... */
static void segments(uint32_t count) {
    char name[16];
    for (uint32_t i = 1; i <= count; i++) {
        snprintf(name, sizeof(name), "s%u", i);
        segment(name, (uint64_t)i * 100);
    }
    files[file_count - 1].state = FILE_OPEN;
}

/* Nine segments, and snapshots A to D of these ages that end in the middles of s1, s3, s5 and s7. */
static void begin_with_four(int a, int b, int c, int d) {
    begin();
    segments(9);
    snapshot("A", 150, a);
    snapshot("B", 350, b);
    snapshot("C", 550, c);
    snapshot("D", 750, d);
}

/* The names of what goes, in order. */
static const char *decide(void) {
    static char names[1024];
    retain_decide(files, file_count, &opts, &plan);
    names[0] = '\0';
    for (uint32_t i = 0; i < plan.count; i++) {
        size_t len = strlen(names);
        snprintf(names + len, sizeof(names) - len, "%s%s", i > 0 ? " " : "", plan.files[i].name);
    }
    return names;
}

#define goes(wanted)                        \
    do {                                    \
        ck_assert_str_eq(decide(), wanted); \
        retain_plan_fini(&plan);            \
    } while (0)

START_TEST(the_two_newest_snapshots_and_the_log_behind_the_older_stay) {
    begin();
    snapshot("C", 650, 1);
    segments(8);
    snapshot("A", 250, 3);
    snapshot("B", 450, 2);
    goes("A s1 s2 s3"); /* 450 is in s4 */
    retain_decide(files, file_count, &opts, &plan);
    ck_assert_uint_eq(plan.snapshot_count, 1);
    ck_assert_uint_eq(plan.floor_lsn, 450);
    ck_assert_uint_eq(plan.bytes, 400);
    ck_assert_uint_eq(plan.bytes_left, 700);
    ck_assert(!plan.over);
    retain_plan_fini(&plan);
    files[0].end_lsn = 250; /* C is as old as A */
    goes("A s1");
}
END_TEST

START_TEST(a_segment_that_ends_where_the_snapshot_does_goes) {
    begin();
    segments(8);
    snapshot("B", 400, 2);
    snapshot("C", 600, 1);
    goes("s1 s2 s3");
    files[8].end_lsn = 399;
    goes("s1 s2");
}
END_TEST

START_TEST(with_one_snapshot_the_log_behind_it_stays_without_any_all_of_it) {
    begin();
    segments(8);
    goes("");
    snapshot("A", 450, 100);
    goes("s1 s2 s3");
    files[8].state = FILE_BAD;
    goes("");
    files[8].state = FILE_OPEN; /* being written */
    goes("");
    opts.max_bytes = 1;
    goes("");
}
END_TEST

START_TEST(the_segment_being_written_and_the_last_one_stay) {
    begin();
    segments(3);
    snapshot("B", 5000, 2);
    snapshot("C", 6000, 1);
    goes("s1 s2");
    files[2].state = FILE_COMPLETE;
    goes("s1 s2");
    files[1].state = FILE_OPEN; /* however that came about */
    goes("s1");
}
END_TEST

START_TEST(count_keeps_more_but_never_fewer_than_two) {
    begin_with_four(4, 3, 2, 1);
    opts.keep_count = 3;
    goes("A s1 s2");
    opts.keep_count = 4;
    goes("");
    opts.keep_count = 9;
    goes("");
    opts.keep_count = 1;
    goes("A B s1 s2 s3 s4");
}
END_TEST

START_TEST(age_keeps_what_a_restore_to_that_time_needs) {
    begin_with_four(40, 30, 20, 10);
    opts.keep_ms = (int64_t)25 * DAY_MS;
    goes("A s1 s2"); /* B is the base for the 25th day */
    opts.keep_ms = (int64_t)35 * DAY_MS;
    goes("");
    opts.keep_ms = (int64_t)5 * DAY_MS;
    goes("A B s1 s2 s3 s4");
}
END_TEST

START_TEST(bytes_override_count_and_age_but_not_the_two_newest) {
    begin_with_four(4, 3, 2, 1);
    opts.keep_count = 4;
    opts.keep_ms = (int64_t)100 * DAY_MS;
    opts.max_bytes = 1300;
    goes("");
    opts.max_bytes = 1299;
    goes("A s1 s2");
    opts.max_bytes = 999;
    goes("A B s1 s2 s3 s4");
    opts.max_bytes = 699;
    retain_decide(files, file_count, &opts, &plan);
    ck_assert_uint_eq(plan.count, 6);
    ck_assert_uint_eq(plan.bytes_left, 700);
    ck_assert(plan.over); /* a snapshot is due */
    retain_plan_fini(&plan);
}
END_TEST

START_TEST(readers_keep_the_log_that_they_still_need) {
    begin();
    segments(8);
    snapshot("A", 150, 3);
    snapshot("B", 450, 2);
    snapshot("C", 650, 1);
    opts.needed_lsn = 250;
    goes("A s1");
    opts.needed_lsn = 0;
    goes("A");
    opts.needed_lsn = 100000;
    goes("A s1 s2 s3");
}
END_TEST

START_TEST(a_segment_begun_anew_ends_the_one_before) {
    begin();
    segment("s1", 100);
    segment("s2", 200);
    segment("s2b", 250); /* from the durable mark, after a failed sync */
    segment("s2c", 250)->created_ms++;
    segment("s3", 300);
    snapshot("B", 260, 2);
    snapshot("C", 310, 1);
    goes("s1 s2 s2b"); /* 260 is in s2c */
}
END_TEST

START_TEST(abandoned_files_go_by_age_when_a_newer_snapshot_exists) {
    begin();
    segments(4);
    put(FILE_SEGMENT, FILE_FOREIGN, "branch", 10)->first_lsn = 50;
    put(FILE_SNAPSHOT, FILE_FOREIGN, "branch-snap", 10)->end_lsn = 60;
    put(FILE_SIDE, FILE_COMPLETE, "cut", 10);
    goes(""); /* no snapshot at all */
    snapshot("A", 150, 11);
    goes(""); /* none that is newer */
    snapshot("B", 160, 9);
    goes("branch-snap cut branch");
    opts.aside_ms = (int64_t)11 * DAY_MS;
    goes("");
    opts.max_bytes = 1; /* room is no reason */
    goes("");
    opts.aside_ms = 0;
    files[4].created_ms = NOW_MS - RETAIN_ASIDE_MS;
    goes("branch-snap cut");
    /* They play no part in the rest: a branch begins in the middle of the log that stays. */
    files[4].first_lsn = 120;
    files[5].end_lsn = 1000000;
    goes("branch-snap cut");
}
END_TEST

START_TEST(a_damaged_snapshot_stays_until_two_newer_ones_are_whole) {
    begin();
    segments(9);
    snapshot("A", 150, 40);
    put(FILE_SNAPSHOT, FILE_BAD, "bad", 30)->end_lsn = 350;
    snapshot("B", 450, 20);
    goes("");
    snapshot("C", 550, 10);
    goes("A bad s1 s2 s3");
    files[10].created_ms = NOW_MS - DAY_MS;
    goes("A s1 s2 s3");
}
END_TEST

/* --- H18 --------------------------------------------------------------------------------------------------------------- */

/* Ends of the two newest valid snapshots; 0 where there is none. */
static void newest_ends(uint64_t out[2]) {
    out[0] = out[1] = 0;
    for (uint32_t i = 0; i < file_count; i++) {
        bool valid = files[i].kind == FILE_SNAPSHOT && files[i].state == FILE_COMPLETE;
        uint64_t end = valid ? files[i].end_lsn : 0;
        if (end > out[0]) {
            out[1] = out[0];
            out[0] = end;
        } else if (end > out[1]) {
            out[1] = end;
        }
    }
}

static bool is_gone(const struct meta_file *f) {
    for (uint32_t i = 0; i < plan.count; i++) {
        if (strcmp(f->name, plan.files[i].name) == 0) {
            return true;
        }
    }
    return false;
}

/* What a start needs stays: the two newest, and the log from the end of the older one on, without a hole. */
static void check_start(void) {
    uint64_t newest[2];
    uint64_t covered = UINT64_MAX;
    newest_ends(newest);
    uint64_t from = newest[1] > 0 ? newest[1] : newest[0];
    for (uint32_t i = 0; i < file_count; i++) {
        if (files[i].kind == FILE_SEGMENT && !is_gone(&files[i]) && files[i].first_lsn < covered) {
            covered = files[i].first_lsn;
        }
    }
    expect(covered <= from || from == 0);
    for (uint32_t i = 0; i < file_count; i++) {
        const struct meta_file *f = &files[i];
        bool may_go = f->kind == FILE_SEGMENT ? f->end_lsn <= from && f->end_lsn <= covered
                                              : f->end_lsn < newest[1];
        expect(may_go || !is_gone(f));
    }
}

static void forget_gone(void) {
    uint32_t left = 0;
    for (uint32_t i = 0; i < file_count; i++) {
        if (!is_gone(&files[i])) {
            files[left++] = files[i];
        }
    }
    file_count = left;
}

/* The log grows by a segment; maybe a snapshot is made, and maybe it is bad. */
static void grow(struct rng *r, uint64_t *head, int day) {
    char name[16];
    *head += 1 + rng_below(r, 100);
    for (uint32_t i = 0; i < file_count; i++) {
        files[i].end_lsn = files[i].end_lsn == 0 ? *head : files[i].end_lsn;
    }
    if (rng_below(r, 6) == 0 && day < 15) { /* later they all fail */
        snprintf(name, sizeof(name), "snap%d", day);
        snapshot(name, *head, 0)->state = rng_below(r, 4) == 0 ? FILE_BAD : FILE_COMPLETE;
    }
    snprintf(name, sizeof(name), "s%d", day + 1);
    segment(name, *head);
}

START_TEST(h18_failing_snapshots_never_cost_the_log_that_recovery_needs) {
    struct rng r = test_rng();
    for (int round = 0; round < 300; round++) {
        uint64_t head = 100;
        uint32_t over = 0;
        begin();
        opts.max_bytes = 1500;
        opts.keep_count = (uint32_t)rng_below(&r, 4);
        segment("s0", head);
        for (int day = 0; day < 40 && file_count < FILES_MAX - 2; day++) {
            grow(&r, &head, day);
            opts.needed_lsn = rng_below(&r, 3) == 0 ? rng_below(&r, head) : UINT64_MAX;
            retain_decide(files, file_count, &opts, &plan);
            check_start();
            over += plan.over;
            expect_eq(plan.over, plan.bytes_left > opts.max_bytes);
            forget_gone();
            retain_plan_fini(&plan);
        }
        expect(over > 0); /* the limit gives way, not the log */
    }
}
END_TEST

/* --- unlinking ---------------------------------------------------------------------------------------------------------- */

static struct sim_disk *disk_of_files(void) {
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    struct io_file f;
    ck_assert_int_eq(io->mkdir(io, "data"), 0);
    for (uint32_t i = 0; i < file_count; i++) {
        char path[128];
        snprintf(path, sizeof(path), "data/%s", files[i].name);
        ck_assert_int_eq(io->open(io, path, IO_CREATE, &f), 0);
        io->close(io, &f);
    }
    ck_assert_int_eq(io->sync_dir(io, "data"), 0);
    mem_free(sim_disk_take_trace(d));
    return d;
}

static bool disk_has(struct sim_disk *d, const char *name) {
    const struct io *io = sim_disk_io(d);
    struct io_file f;
    char path[128];
    snprintf(path, sizeof(path), "data/%s", name);
    bool has = io->open(io, path, IO_READ, &f) == 0;
    if (has) {
        io->close(io, &f);
    }
    return has;
}

static void usual_directory(void) {
    begin();
    segments(6);
    snapshot("A", 150, 30);
    snapshot("A2", 250, 25);
    snapshot("B", 350, 3);
    snapshot("C", 550, 1);
    put(FILE_SIDE, FILE_COMPLETE, "cut", 20);
    ck_assert_str_eq(decide(), "A A2 s1 s2 cut");
}

START_TEST(snapshots_are_gone_durably_before_the_log_that_they_need) {
    uint32_t removed;
    usual_directory();
    struct sim_disk *d = disk_of_files();
    ck_assert_int_eq(retain_apply(sim_disk_io(d), "data", &plan, NULL, &removed), DC_OK);
    expect_trace(d, "unlink A\n"
                    "unlink A2\n"
                    "sync_dir data\n"
                    "unlink s1\n"
                    "unlink s2\n"
                    "unlink cut\n"
                    "sync_dir data\n");
    ck_assert_uint_eq(removed, 5);
    /* again: nothing is there, nothing is wrong */
    ck_assert_int_eq(retain_apply(sim_disk_io(d), "data", &plan, NULL, NULL), DC_OK);
    retain_plan_fini(&plan);
    sim_disk_destroy(d);
}
END_TEST

/* The sync has failed: the pass that follows doesn't find them, but a power cut might bring them back. */
START_TEST(also_if_an_earlier_pass_has_removed_them) {
    usual_directory();
    struct sim_disk *d = disk_of_files();
    sim_disk_fail(d, SIM_SYNC_DIR, 1, 1, EIO);
    ck_assert_int_eq(retain_apply(sim_disk_io(d), "data", &plan, NULL, NULL), DC_EIO);
    expect_trace(d, "unlink A\n"
                    "unlink A2\n"
                    "sync_dir data -> EIO\n");
    plan.count = plan.snapshot_count; /* so much of it was done */
    forget_gone();
    retain_plan_fini(&plan);
    ck_assert_str_eq(decide(), "s1 s2 cut");
    ck_assert_int_eq(retain_apply(sim_disk_io(d), "data", &plan, NULL, NULL), DC_OK);
    expect_trace(d, "sync_dir data\n"
                    "unlink s1\n"
                    "unlink s2\n"
                    "unlink cut\n"
                    "sync_dir data\n");
    retain_plan_fini(&plan);
    sim_disk_destroy(d);
}
END_TEST

START_TEST(an_empty_plan_touches_nothing) {
    struct retain_plan empty = {.files = NULL};
    struct sim_disk *d = sim_disk_create();
    ck_assert_int_eq(retain_apply(sim_disk_io(d), "data", &empty, NULL, NULL), DC_OK);
    ck_assert_uint_eq(sim_disk_changes(d), 0);
    sim_disk_destroy(d);
}
END_TEST

static void check_after_cut(struct sim_disk *d) {
    bool old = disk_has(d, "A") || disk_has(d, "A2");
    expect(!old || (disk_has(d, "s1") && disk_has(d, "s2")));
    for (uint32_t i = 0; i < file_count; i++) {
        expect(is_gone(&files[i]) || disk_has(d, files[i].name));
    }
}

START_TEST(a_power_cut_in_the_middle_leaves_a_directory_that_starts) {
    usual_directory();
    for (uint64_t i = 0; i < (uint64_t)8 * 20; i++) {
        uint64_t stop = 1 + i / 20;
        struct sim_disk *d = disk_of_files();
        sim_disk_stop_after(d, stop);
        enum dc_err err = retain_apply(sim_disk_io(d), "data", &plan, NULL, NULL);
        expect_eq(err == DC_OK, stop >= 7);
        struct sim_disk *later = sim_disk_crash(d, (enum sim_cut)(i % SIM_CUT_COUNT), i);
        check_after_cut(later);
        sim_disk_destroy(later);
        sim_disk_destroy(d);
    }
    retain_plan_fini(&plan);
}
END_TEST

START_TEST(a_file_that_can_not_be_removed_stops_the_rest) {
    uint32_t removed;
    usual_directory();
    struct sim_disk *d = disk_of_files();
    sim_disk_fail(d, SIM_UNLINK, 2, 1, EACCES);
    ck_assert_int_eq(retain_apply(sim_disk_io(d), "data", &plan, NULL, &removed), DC_EIO);
    ck_assert_ptr_nonnull(strstr(dc_fail_take(DC_EIO), "A2"));
    ck_assert_uint_eq(removed, 1);
    ck_assert(!disk_has(d, "A") && disk_has(d, "A2") && disk_has(d, "s1"));
    sim_disk_fail(d, SIM_SYNC_DIR, 1, 1, EIO); /* not durable: the log stays */
    ck_assert_int_eq(retain_apply(sim_disk_io(d), "data", &plan, NULL, &removed), DC_EIO);
    ck_assert(!disk_has(d, "A2") && disk_has(d, "s1"));
    retain_plan_fini(&plan);
    sim_disk_destroy(d);
}
END_TEST

static void count_file(void *arg, const struct meta_file *f) {
    (void)f;
    ++*(uint32_t *)arg;
}

/* Up to the last call the catalogue has all of them. */
static void expect_all_listed(void *m, enum sim_call kind, const char *path) {
    uint32_t count = 0;
    (void)kind, (void)path;
    ck_assert_int_eq(meta_each_file(m, count_file, &count), DC_OK);
    ck_assert_uint_eq(count, file_count);
}

START_TEST(the_catalogue_forgets_what_was_removed) {
    char dir[TEMP_DIR_MAX];
    struct meta *m;
    bool rebuilt;
    uint32_t left = 0;
    temp_dir_make(dir);
    ck_assert_int_eq(meta_open(dir, &m, &rebuilt), DC_OK);
    usual_directory();
    ck_assert_int_eq(meta_set_files(m, files, file_count), DC_OK);
    struct sim_disk *d = disk_of_files();
    sim_disk_set_hook(d, expect_all_listed, m);
    ck_assert_int_eq(retain_apply(sim_disk_io(d), "data", &plan, m, NULL), DC_OK);
    ck_assert_int_eq(meta_each_file(m, count_file, &left), DC_OK);
    ck_assert_uint_eq(left, file_count - plan.count);
    retain_plan_fini(&plan);
    sim_disk_destroy(d);
    meta_close(m);
    temp_dir_remove(dir);
}
END_TEST

CHECK_MAIN("retain", the_two_newest_snapshots_and_the_log_behind_the_older_stay,
           a_segment_that_ends_where_the_snapshot_does_goes,
           with_one_snapshot_the_log_behind_it_stays_without_any_all_of_it,
           the_segment_being_written_and_the_last_one_stay,
           count_keeps_more_but_never_fewer_than_two, age_keeps_what_a_restore_to_that_time_needs,
           bytes_override_count_and_age_but_not_the_two_newest,
           readers_keep_the_log_that_they_still_need, a_segment_begun_anew_ends_the_one_before,
           abandoned_files_go_by_age_when_a_newer_snapshot_exists,
           a_damaged_snapshot_stays_until_two_newer_ones_are_whole,
           h18_failing_snapshots_never_cost_the_log_that_recovery_needs,
           snapshots_are_gone_durably_before_the_log_that_they_need,
           also_if_an_earlier_pass_has_removed_them, an_empty_plan_touches_nothing,
           a_power_cut_in_the_middle_leaves_a_directory_that_starts,
           a_file_that_can_not_be_removed_stops_the_rest, the_catalogue_forgets_what_was_removed)
