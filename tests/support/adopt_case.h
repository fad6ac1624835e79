/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * adopt_case: starts that have something noted for them, on a simulated disk that may end, or fail, at any call. Data directories are built on the
 * real file system (data_case) and then brought there. Metadata are real: a value that was put is durable.
 *
 * Threads: one. For one test program each: it has its state in here.
 */
#ifndef TESTS_SUPPORT_ADOPT_CASE_H
#define TESTS_SUPPORT_ADOPT_CASE_H

#include "persist/adopt.h"
#include "persist/data.h"
#include "server/base/mem.h"
#include "tests/support/check_main.h"
#include "tests/support/data_case.h"
#include "tests/support/expect.h"
#include "tests/support/sim_disk.h"
#include "tests/support/store_check.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct data_case c; /* the old data set, or the only one */
static char meta_dir[TEMP_DIR_MAX];
static struct meta *meta;
static struct adopt_told told;

static void set(struct data_case *to, const char *prefix, int count) {
    for (int i = 0; i < count; i++) {
        char key[32];
        snprintf(key, sizeof(key), "%s%d", prefix, i);
        must(hand_set(&to->hand, 0, bytes_str(key), BYTES("the value of one of many keys"),
                      EXPIRY_NONE));
    }
}

/* Metadata are written thousands of times here. */
static void begin(void) {
    bool rebuilt;
    case_open(&c);
    temp_dir_make_in_memory(meta_dir);
    must(meta_open(meta_dir, &meta, &rebuilt));
}

static void end(void) {
    meta_close(meta);
    temp_dir_remove(meta_dir);
    case_close(&c);
}

/* --- directories ------------------------------------------------------------------------------------- */

/* What a start finds in a directory. */
struct found {
    enum dc_err err;
    struct data_plan plan;
    uint64_t digest;
};

/* Every frame is checked. */
static struct warm *find(const struct io *io, const char *dir, const uint8_t *node_id,
                         struct found *f) {
    struct warm_opts opts = {.io = io, .dir = dir, .node_id = node_id};
    struct warm *warm = NULL;
    f->err = data_scan(&opts, &f->plan, &warm);
    (void)dc_fail_take(f->err);
    return warm;
}

/* And all is loaded, which takes longer than all the rest. */
static void scan(const struct io *io, const char *dir, const uint8_t *node_id, struct found *f) {
    struct warm *warm = find(io, dir, node_id, f);
    f->digest = f->err == DC_OK && warm != NULL ? digest_of(warm, &f->plan) : 0;
}

/* A start of the node that the metadata tell of. */
static void start(const struct io *io, const char *dir, struct found *f) {
    struct meta_node node;
    f->err = adopt_begin(io, dir, meta, &told);
    if (f->err == DC_OK) {
        must(meta_get_node(meta, &node));
        scan(io, dir, node.known ? node.node_id : NULL, f);
    }
}

static void expect_note_is(enum adopt_what what) {
    struct adopt_note n;
    must(adopt_get(meta, &n));
    expect_eq(n.what, what);
}

static void expect_told(const char *part) {
    ck_assert_msg(strstr(told.notes, part) != NULL, "no '%s' in: %s", part, told.notes);
}

/* --- a start that ends at any call ------------------------------------------------------------------- */

/* Checks what a start would find now, and lets one go on with what is noted. 'deep': to the last entry. */
typedef void (*check_fn)(struct sim_disk *after, bool deep);

/* On such a disk a start ends at its n-th change; 'done': it has fewer. */
static struct sim_disk *end_start(void (*put)(struct sim_disk *d), void (*note)(void), uint64_t n,
                                  bool *done) {
    struct sim_disk *d = sim_disk_create();
    put(d);
    note();
    sim_disk_stop_after(d, n);
    *done = adopt_begin(sim_disk_io(d), "d", meta, &told) == DC_OK;
    (void)dc_fail_take(DC_EIO);
    return d;
}

/* Lets a start end at its n-th change, for all n, and looks at what every way of a power cut leaves. 'note' makes it again, 'put' fills a
 * disk. Returns the number of changes. */
static uint64_t cut_everywhere(void (*put)(struct sim_disk *d), void (*note)(void),
                               check_fn check) {
    uint64_t n = 1;
    for (bool done = false; !done; n++) {
        struct meta_node node;
        char text[META_TEXT_MAX], unlogged[META_TEXT_MAX];
        struct sim_disk *d = end_start(put, note, n, &done);
        must(meta_get_text(meta, "adopt", text, sizeof(text)));
        must(meta_get_text(meta, "unlogged", unlogged, sizeof(unlogged)));
        must(meta_get_node(meta, &node));
        for (int cut = 0; cut < SIM_CUT_COUNT; cut++) {
            struct sim_disk *after =
                sim_disk_crash(d, (enum sim_cut)cut, 1000 * n + test_seed_value);
            struct meta_text texts[] = {{"adopt", text}, {"unlogged", unlogged}};
            must(meta_put_texts(meta, texts, 2));
            must(node.known ? meta_put_node(meta, &node) : DC_OK);
            check(after, (n + (uint64_t)cut) % 5 == 0);
            sim_disk_destroy(after);
        }
        sim_disk_destroy(d);
        expect(n < 500);
    }
    return n;
}

/* The same with a kill, so that everything is there for the next start, which goes on to the end; then the power is cut, and what isn't on the disk is gone. */
static void kill_everywhere(void (*put)(struct sim_disk *d), void (*note)(void), check_fn check) {
    uint64_t n = 1;
    for (bool done = false; !done; n++) {
        struct sim_disk *d = end_start(put, note, n, &done);
        sim_disk_stop_after(d, 0);
        must(adopt_begin(sim_disk_io(d), "d", meta, &told));
        struct sim_disk *after = sim_disk_crash(d, SIM_CUT_NOTHING, 0);
        check(after, n % 5 == 0);
        sim_disk_destroy(after);
        sim_disk_destroy(d);
        expect(n < 500);
    }
}

/* Lets each call of each kind fail once. */
static void fail_everywhere(void (*put)(struct sim_disk *d), void (*note)(void), check_fn check) {
    for (int kind = 0; kind < SIM_CALL_COUNT; kind++) {
        bool fails = true;
        for (uint64_t n = 1; fails; n++) {
            struct sim_disk *d = sim_disk_create();
            put(d);
            note();
            uint64_t before = sim_disk_calls(d, (enum sim_call)kind);
            sim_disk_fail(d, (enum sim_call)kind, n, 1, EIO);
            (void)dc_fail_take(adopt_begin(sim_disk_io(d), "d", meta, &told));
            fails = sim_disk_calls(d, (enum sim_call)kind) - before >= n;
            sim_disk_fail(d, (enum sim_call)kind, 0, 0, 0);
            check(d, n % 8 == 0);
            sim_disk_destroy(d);
        }
    }
}

#endif
