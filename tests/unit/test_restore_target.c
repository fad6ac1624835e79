/* SPDX-License-Identifier: BSD-3-Clause */
/* A restored directory (dcache-restore) is whole or isn't there, wherever its writing is cut off. */
#include "persist/data.h"
#include "persist/new_dir.h"
#include "server/base/mem.h"
#include "tests/support/check_main.h"
#include "tests/support/data_case.h"
#include "tests/support/expect.h"
#include "tests/support/sim_disk.h"
#include "tests/support/store_check.h"
#include "tools/dcache-restore/target.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHANGES_MAX = 500 };

static struct data_case c;
static struct source source;
static uint64_t digest;

static void begin_source(void) {
    case_open(&c);
    for (uint32_t i = 0; i < 300; i++) {
        char key[32];
        must(hand_set(&c.hand, 0, key_of(key, "key:", i), BYTES("one of many"), EXPIRY_NONE));
    }
    digest = store_digest(c.engine.store);
    source = (struct source){.plan = mem_must_zalloc(sizeof(*source.plan)),
                             .store = c.engine.store,
                             .now_ms = ENGINE_NOW_MS,
                             .end_lsn = log_file_end(&c.log)};
    memcpy(source.plan->seed, c.log.seed, SEED_LEN);
}

static void end_source(void) {
    mem_free(source.plan);
    case_close(&c);
}

static enum dc_err write_to(struct sim_disk *d) {
    struct snap_written written;
    enum dc_err err = target_write(sim_disk_io(d), "t", &source, false, &written);
    (void)dc_fail_take(err);
    return err;
}

static void ignore(void *arg, const char *name) {
    (void)arg, (void)name;
}

static bool is_there(struct sim_disk *d, const char *dir) {
    return sim_disk_io(d)->list(sim_disk_io(d), dir, ignore, NULL) == 0;
}

/* What a server would start on. 'deep': to the last entry. */
static void expect_whole(struct sim_disk *d, bool deep) {
    struct warm_opts opts = {.io = sim_disk_io(d), .dir = "t"};
    struct data_plan *plan = mem_must_zalloc(sizeof(*plan));
    struct warm *warm = NULL;
    expect_eq(count_names(opts.io, "t", ""), 1);
    expect_eq(count_names(opts.io, "t", ".tmp"), 0);
    must(data_scan(&opts, plan, &warm));
    expect_eq(plan->end_lsn, source.end_lsn);
    if (deep) {
        expect(digest_of(warm, plan) == digest);
    } else {
        warm_destroy(warm);
    }
    mem_free(plan);
}

/* An empty directory that was there before stays, or the new one has its place. */
static void expect_whole_or_nothing(struct sim_disk *d, bool was_there, bool deep) {
    if (!is_there(d, "t")) {
        expect(!was_there);
    } else if (!was_there || count_names(sim_disk_io(d), "t", "") > 0) {
        expect_whole(d, deep);
    }
}

/* Another one behind it finds nothing in its way, and leaves nothing else. */
static void expect_again(struct sim_disk *d, bool deep) {
    if (count_names(sim_disk_io(d), "t", "") == 0) {
        expect_eq(write_to(d), DC_OK);
    }
    expect_whole(d, deep);
    expect_eq(count_names(sim_disk_io(d), ".", ""), 1);
}

static struct sim_disk *disk_of(bool was_there) {
    struct sim_disk *d = sim_disk_create();
    expect(!was_there || sim_disk_io(d)->mkdir(sim_disk_io(d), "t") == 0);
    return d;
}

static void cut_after(uint64_t n, struct sim_disk *d, bool was_there) {
    for (int cut = 0; cut < SIM_CUT_COUNT; cut++) {
        bool deep = (n + (uint64_t)cut) % 5 == 0;
        struct sim_disk *after = sim_disk_crash(d, (enum sim_cut)cut, 1000 * n + test_seed_value);
        expect_whole_or_nothing(after, was_there, deep);
        expect_again(after, false);
        sim_disk_destroy(after);
    }
}

START_TEST(a_restored_directory_that_is_cut_off_anywhere_is_whole_or_not_there) {
    begin_source();
    for (int was_there = 0; was_there < 2; was_there++) {
        enum dc_err err = DC_EIO;
        uint64_t n = 0;
        while (err != DC_OK) {
            struct sim_disk *d = disk_of(was_there);
            sim_disk_stop_after(d, ++n);
            err = write_to(d);
            cut_after(n, d, was_there);
            sim_disk_destroy(d);
            expect(n < CHANGES_MAX);
        }
        expect(n > 8);
    }
    end_source();
}
END_TEST

/* What was told to be there is, whatever is cut then. */
START_TEST(a_restored_directory_is_durable) {
    begin_source();
    struct sim_disk *d = disk_of(false);
    expect_eq(write_to(d), DC_OK);
    for (int cut = 0; cut < SIM_CUT_COUNT; cut++) {
        struct sim_disk *after = sim_disk_crash(d, (enum sim_cut)cut, test_seed_value);
        expect_whole(after, true);
        sim_disk_destroy(after);
    }
    expect_eq(write_to(d), DC_EGENERIC); /* it is in use */
    expect_whole(d, false);
    sim_disk_destroy(d);
    end_source();
}
END_TEST

START_TEST(a_call_that_fails_leaves_none_and_nothing_of_it) {
    begin_source();
    for (int kind = 0; kind < SIM_CALL_COUNT; kind++) {
        bool fails = kind != SIM_UNLINK && kind != SIM_RMDIR; /* those clean up */
        for (uint64_t n = 1; fails; n++) {
            struct sim_disk *d = disk_of(false);
            sim_disk_fail(d, (enum sim_call)kind, n, 1, EIO);
            enum dc_err err = write_to(d);
            fails = sim_disk_calls(d, (enum sim_call)kind) >= n;
            sim_disk_fail(d, (enum sim_call)kind, 0, 0, 0);
            expect(!is_there(d, "t.incomplete"));
            expect(err == DC_OK || fails);
            expect_whole_or_nothing(d, false, false);
            expect(err != DC_OK || is_there(d, "t"));
            sim_disk_destroy(d);
            expect(n < CHANGES_MAX);
        }
    }
    end_source();
}
END_TEST

START_TEST(what_is_no_part_of_one_is_left_alone) {
    begin_source();
    struct sim_disk *d = disk_of(false);
    expect_eq(sim_disk_io(d)->mkdir(sim_disk_io(d), "t.incomplete"), 0);
    sim_disk_put(d, "t.incomplete/letters.txt", "x", 1);
    sim_disk_put(d, "t.incomplete/log-book.txt", "x", 1);
    sim_disk_put(d, "t.incomplete/snap-shots.tmp", "x", 1);
    sim_disk_put(d, "t.incomplete/snap-0000000000000001-0000000000000001.tmp", "x", 1);
    expect_eq(write_to(d), DC_EIO);
    expect_eq(count_names(sim_disk_io(d), "t.incomplete", ""), 3);
    expect(!is_there(d, "t"));
    sim_disk_destroy(d);
    end_source();
}
END_TEST

/* One that wasn't finished is refused by its name, also by who is in it. */
START_TEST(what_was_not_finished_is_refused_by_name) {
    char dir[TEMP_DIR_MAX], path[512];
    struct data data;
    temp_dir_make(dir);
    must(new_dir_check_finished(dir));
    snprintf(path, sizeof(path), "%s/t.incomplete", dir);
    expect_eq(mkdir(path, 0755), 0);
    expect_eq(data_open(&data, &io_posix, path), DC_ECORRUPT);
    ck_assert(strstr(dc_fail_take(DC_ECORRUPT), "t.incomplete was never finished") != NULL);
    data_close(&data, false, 0);
    expect_eq(count_names(&io_posix, path, ""), 0);
    expect_eq(chdir(path), 0);
    expect_eq(new_dir_check_finished("."), DC_ECORRUPT);
    (void)dc_fail_take(DC_ECORRUPT);
    expect_eq(chdir("/"), 0);
    temp_dir_remove(dir);
}
END_TEST

CHECK_MAIN("restore_target", a_restored_directory_that_is_cut_off_anywhere_is_whole_or_not_there,
           a_restored_directory_is_durable, a_call_that_fails_leaves_none_and_nothing_of_it,
           what_is_no_part_of_one_is_left_alone, what_was_not_finished_is_refused_by_name)
