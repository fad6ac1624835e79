/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Each data directory is built on the real file system, then brought to a simulated disk, where a start may end at any call. Metadata are
 * real: a value that was put is durable.
 */
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

enum { FILE_LEN_MAX = 1 << 20 };

static struct data_case c; /* the old data set, or the only one */
static struct data_case other;
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

/* Metadata are written thousands of times here: in memory, where there is such a place. */
static void begin(void) {
    bool rebuilt;
    case_open(&c);
    if (access("/dev/shm", W_OK) == 0) {
        setenv("TMPDIR", "/dev/shm", 0);
    }
    temp_dir_make(meta_dir);
    must(meta_open(meta_dir, &meta, &rebuilt));
}

static void end(void) {
    meta_close(meta);
    temp_dir_remove(meta_dir);
    case_close(&c);
}

/* --- directories ------------------------------------------------------------------------------------- */

static void put_files(struct sim_disk *d, const char *from, const char *to) {
    static char content[FILE_LEN_MAX];
    DIR *dir = opendir(from);
    expect_eq(sim_disk_io(d)->mkdir(sim_disk_io(d), to), 0);
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        char path[512];
        snprintf(path, sizeof(path), "%s/%s", from, e->d_name);
        FILE *file = e->d_type == DT_REG ? fopen(path, "rb") : NULL;
        if (file != NULL) {
            size_t len = fread(content, 1, sizeof(content), file);
            expect(len < sizeof(content));
            fclose(file);
            snprintf(path, sizeof(path), "%s/%s", to, e->d_name);
            sim_disk_put(d, path, content, len);
        }
    }
    closedir(dir);
}

struct count {
    const char *part;
    uint32_t count;
};

static void count_name(void *arg, const char *name) {
    struct count *n = arg;
    n->count += strstr(name, n->part) != NULL;
}

static uint32_t count_names(const struct io *io, const char *dir, const char *part) {
    struct count n = {.part = part};
    (void)io->list(io, dir, count_name, &n);
    return n.count;
}

/* What a start finds in a directory. */
struct found {
    enum dc_err err;
    struct data_plan plan;
    uint64_t digest;
};

static uint64_t digest_of(struct warm *warm, const struct data_plan *plan) {
    static struct metric_slot metrics;
    struct store_opts opts = {.seed = plan->seed};
    struct store_thread thread;
    struct store *s = store_create(&opts);
    store_tick(s, ENGINE_NOW_MS);
    store_thread_init(&thread, s, &metrics, 1);
    must(warm_attach(warm, s));
    must(warm_all(warm, &thread));
    uint64_t digest = store_digest(s);
    warm_destroy(warm);
    store_destroy(s);
    return digest;
}

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

/* --- notes ------------------------------------------------------------------------------------------- */

START_TEST(a_note_is_there_until_it_is_forgotten) {
    struct adopt_note n;
    begin();
    expect_note_is(ADOPT_NOTHING);
    must(adopt_note_rewind(meta, LSN_MAX, UINT64_MAX));
    must(adopt_get(meta, &n));
    expect_eq(n.what, ADOPT_REWIND);
    expect(n.lsn == LSN_MAX && n.history == UINT64_MAX);
    must(adopt_note_copy(meta));
    must(adopt_get(meta, &n));
    expect_eq(n.what, ADOPT_COPY);
    expect_eq(n.step, ADOPT_NOTED);
    must(adopt_note_need(meta, "the log isn't there any more"));
    must(adopt_get(meta, &n));
    expect_eq(n.what, ADOPT_NEEDS_COPY);
    ck_assert_str_eq(n.why, "the log isn't there any more");
    must(adopt_forget(meta));
    expect_note_is(ADOPT_NOTHING);
    static const char *const bad[] = {"x", "rewind 1", "copy-in", "copy-away 1"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        must(meta_put_text(meta, "adopt", bad[i]));
        expect_eq(adopt_get(meta, &n), DC_ECORRUPT);
    }
    end();
}
END_TEST

/* --- rewind ------------------------------------------------------------------------------------------ */

/* What all tests of the rewind begin with. */
static struct {
    uint64_t older, fork, newer; /* snapshots at the first and the last */
    uint64_t history;
    uint64_t digest; /* at the fork */
    uint64_t last_digest;
} r;

/* Two snapshots, a fork between them, a tail in the same history and another one behind that; all of it durable. */
static void make_divergent(bool with_older) {
    set(&c, "a:", 100);
    uint64_t second = log_file_end(&c.log);
    log_file_write(&c.log, c.dir, 0, second, second);
    set(&c, "b:", 50);
    r.older = log_file_end(&c.log);
    if (with_older) {
        case_snapshot(&c);
    }
    set(&c, "c:", 50);
    r.fork = log_file_end(&c.log);
    r.history = c.log.chain[0].id;
    r.digest = store_digest(c.engine.store);
    set(&c, "c:", 20);
    set(&c, "d:", 20);
    uint64_t third = log_file_end(&c.log);
    log_file_write(&c.log, c.dir, second, third, third);
    set(&c, "e:", 20);
    r.newer = log_file_end(&c.log);
    case_snapshot(&c);
    case_write_log(&c, third, r.newer);
    log_file_fork(&c.log, r.newer + LSN_JUMP);
    set(&c, "f:", 20);
    case_write_log(&c, 0, log_file_end(&c.log));
    r.last_digest = store_digest(c.engine.store);
}

static void expect_at_the_fork(const struct found *f) {
    expect_eq(f->err, DC_OK);
    expect_eq(f->plan.end_lsn, r.fork);
    expect_eq(f->plan.chain_count, 1);
    expect(f->plan.chain[0].id == r.history);
    expect(f->digest == r.digest);
}

/* Nothing but the files: whoever starts now, and knows of no note. */
static void expect_rewound(const struct io *io, const char *dir, struct found *f) {
    start(io, dir, f);
    expect_at_the_fork(f);
    expect_note_is(ADOPT_NOTHING);
    scan(io, dir, NULL, f);
    expect_at_the_fork(f);
    expect_eq(f->plan.cut_bytes, 0);
}

START_TEST(test_h50_a_tail_behind_the_fork_is_kept_aside_and_the_older_snapshot_used) {
    struct found *f = mem_must_zalloc(sizeof(*f));
    begin();
    make_divergent(true);
    must(adopt_note_rewind(meta, r.fork, r.history));
    start(&io_posix, c.dir, f);
    expect_at_the_fork(f);
    expect_eq(f->plan.snapshot_end, r.older);
    expect_note_is(ADOPT_NOTHING);
    expect_told("cut at the fork");
    expect(told.cut_bytes > 0);
    /* the tail of the segment, two segments, a snapshot */
    expect(file_exists(c.dir, told.cut_file));
    expect_eq(count_names(&io_posix, c.dir, "cut-"), 4);
    expect_eq(count_names(&io_posix, c.dir, ".dcs.bad"), 1);
    expect_eq(count_names(&io_posix, c.dir, ".dcl"), 2);
    expect_rewound(&io_posix, c.dir, f);
    end();
    mem_free(f);
}
END_TEST

START_TEST(test_h50_without_a_snapshot_the_log_is_enough) {
    struct found *f = mem_must_zalloc(sizeof(*f));
    begin();
    make_divergent(false);
    must(adopt_note_rewind(meta, r.fork, r.history));
    start(&io_posix, c.dir, f);
    expect_at_the_fork(f);
    ck_assert_str_eq(f->plan.snapshot, "");
    expect_rewound(&io_posix, c.dir, f);
    end();
    mem_free(f);
}
END_TEST

static void expect_needs_copy(uint64_t lsn, uint64_t history, const char *why) {
    struct found *f = mem_must_zalloc(sizeof(*f));
    uint32_t files = count_names(&io_posix, c.dir, ".dc");
    must(adopt_note_rewind(meta, lsn, history));
    start(&io_posix, c.dir, f);
    expect_eq(f->err, DC_OK);
    expect(f->digest == r.last_digest);
    expect_told("A full copy is needed");
    expect_told(why);
    expect_note_is(ADOPT_NEEDS_COPY);
    start(&io_posix, c.dir, f); /* and again */
    expect(f->digest == r.last_digest);
    expect_told("A full copy is needed");
    expect_note_is(ADOPT_NEEDS_COPY);
    expect_eq(count_names(&io_posix, c.dir, ".dc"), files);
    expect_eq(count_names(&io_posix, c.dir, "cut-"), 0);
    mem_free(f);
}

START_TEST(test_h50_where_no_snapshot_allows_it_a_copy_is_needed_and_nothing_changes) {
    begin();
    make_divergent(false);
    char path[512];
    segment_name(LSN_FIRST, r.history, path);
    char whole[1024];
    snprintf(whole, sizeof(whole), "%s/%s", c.dir, path);
    expect_eq(remove(whole), 0); /* as retention does */
    expect_needs_copy(r.fork, r.history, "");
    end();
}
END_TEST

START_TEST(a_place_that_is_no_end_of_a_frame_of_that_history_needs_a_copy) {
    begin();
    make_divergent(true);
    expect_needs_copy(r.fork - 1, r.history, "no frame that ends");
    expect_needs_copy(r.fork, r.history + 1, "isn't of history");
    expect_needs_copy(r.newer + LSN_JUMP, r.history, "");
    expect_needs_copy(LSN_MAX, r.history, "the log ends");
    end();
}
END_TEST

START_TEST(the_end_of_the_log_and_the_end_of_a_snapshot_are_forks_too) {
    struct found *f = mem_must_zalloc(sizeof(*f));
    begin();
    make_divergent(true);
    must(adopt_note_rewind(meta, log_file_end(&c.log), c.log.chain[1].id));
    start(&io_posix, c.dir, f);
    expect_eq(f->err, DC_OK);
    expect(f->digest == r.last_digest);
    expect_eq(count_names(&io_posix, c.dir, "cut-"), 0);
    must(adopt_note_rewind(meta, r.newer, r.history)); /* a history goes, a snapshot ends here */
    start(&io_posix, c.dir, f);
    expect_eq(f->err, DC_OK);
    expect_eq(f->plan.end_lsn, r.newer);
    expect_eq(f->plan.snapshot_end, r.newer);
    expect_eq(f->plan.chain_count, 1);
    expect_note_is(ADOPT_NOTHING);
    must(adopt_note_rewind(meta, r.older, r.history));
    start(&io_posix, c.dir, f);
    expect_eq(f->err, DC_OK);
    expect_eq(f->plan.end_lsn, r.older);
    end();
    mem_free(f);
}
END_TEST

START_TEST(a_branch_that_was_left_before_does_not_come_back) {
    struct found *f = mem_must_zalloc(sizeof(*f));
    begin();
    make_divergent(true);
    /* Another start forked from the same end, and was cut off: the same place in the log, an older file. */
    struct log_file branch;
    log_file_init(&branch, LSN_FIRST);
    branch.chain[0] = c.log.chain[0];
    branch.chain[1] = (struct history){
        .id = 77, .start = r.newer + LSN_JUMP, .epoch = 1, .parent_end = r.newer};
    branch.chain_count = 2;
    branch.first_lsn = branch.chain[1].start;
    branch.bytes.len = 0;
    branch.time_ms -= 1000;
    log_file_write(&branch, c.dir, 0, 0, 0);
    log_file_fini(&branch);
    must(adopt_note_rewind(meta, r.fork, r.history));
    expect_rewound(&io_posix, c.dir, f);
    end();
    mem_free(f);
}
END_TEST

START_TEST(a_tail_that_was_not_logged_is_cut_off_too) {
    struct found *f = mem_must_zalloc(sizeof(*f));
    char text[64];
    begin();
    make_divergent(true);
    snprintf(text, sizeof(text), "%" PRIu64 " 0", r.newer);
    must(meta_put_text(meta, "unlogged", text));
    must(adopt_note_rewind(meta, r.fork, r.history));
    expect_rewound(&io_posix, c.dir, f);
    must(meta_get_text(meta, "unlogged", text, sizeof(text)));
    ck_assert_str_eq(text, "");
    end();
    mem_free(f);
}
END_TEST

/* --- a start that ends at any call ------------------------------------------------------------------- */

/* Checks what a start would find now, and lets one go on with what is noted. 'deep': to the last entry. */
typedef void (*check_fn)(struct sim_disk *after, bool deep);

/* Lets a start end at its n-th change, for all n, and looks at what every way of a power cut leaves. 'note' makes it again, 'put' fills a
 * disk. Returns the number of changes. */
static uint64_t cut_everywhere(void (*put)(struct sim_disk *d), void (*note)(void),
                               check_fn check) {
    uint64_t n = 1;
    for (bool done = false; !done; n++) {
        struct meta_node node;
        char text[META_TEXT_MAX], unlogged[META_TEXT_MAX];
        struct sim_disk *d = sim_disk_create();
        put(d);
        note();
        sim_disk_stop_after(d, n);
        done = adopt_begin(sim_disk_io(d), "d", meta, &told) == DC_OK;
        (void)dc_fail_take(DC_EIO);
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

static void put_divergent(struct sim_disk *d) {
    put_files(d, c.dir, "d");
}

static void note_rewind(void) {
    must(adopt_note_rewind(meta, r.fork, r.history));
}

static void check_rewound(struct sim_disk *after, bool deep) {
    struct found *f = mem_must_zalloc(sizeof(*f));
    const struct io *io = sim_disk_io(after);
    if (deep) {
        expect_rewound(io, "d", f);
    } else {
        must(adopt_begin(io, "d", meta, &told));
        warm_destroy(find(io, "d", NULL, f));
        expect_eq(f->err, DC_OK);
        expect_eq(f->plan.end_lsn, r.fork);
        expect_note_is(ADOPT_NOTHING);
    }
    mem_free(f);
}

START_TEST(test_h50_a_rewind_that_is_cut_off_anywhere_is_gone_on_with) {
    begin();
    make_divergent(true);
    uint64_t n = cut_everywhere(put_divergent, note_rewind, check_rewound);
    expect(n > 10);
    end();
}
END_TEST

START_TEST(a_disk_that_fails_in_a_rewind_refuses_the_start_and_the_next_one_goes_on) {
    struct found *f = mem_must_zalloc(sizeof(*f));
    begin();
    make_divergent(true);
    for (int kind = 0; kind < SIM_CALL_COUNT; kind++) {
        bool fails = true;
        for (uint64_t n = 1; fails; n += 1 + n / 8) {
            struct sim_disk *d = sim_disk_create();
            put_divergent(d);
            note_rewind();
            uint64_t before = sim_disk_calls(d, (enum sim_call)kind);
            sim_disk_fail(d, (enum sim_call)kind, n, 1, EIO);
            enum dc_err err = adopt_begin(sim_disk_io(d), "d", meta, &told);
            (void)dc_fail_take(err);
            fails = sim_disk_calls(d, (enum sim_call)kind) - before >= n;
            sim_disk_fail(d, (enum sim_call)kind, 0, 0, 0);
            expect(err == DC_OK || err == DC_EIO);
            check_rewound(d, n % 4 == 0);
            sim_disk_destroy(d);
        }
    }
    end();
    mem_free(f);
}
END_TEST

/* --- copy -------------------------------------------------------------------------------------------- */

static struct {
    uint64_t old_digest, new_digest;
    uint64_t old_end, new_end;
} k;

/* c is what the node has: two snapshots and a log. 'other' is another node's: a snapshot, and log behind it. */
static void make_two(void) {
    set(&c, "old:", 100);
    case_snapshot(&c);
    uint64_t second = log_file_end(&c.log);
    log_file_write(&c.log, c.dir, 0, second, second);
    set(&c, "old:", 150);
    case_snapshot(&c);
    uint64_t third = log_file_end(&c.log);
    log_file_write(&c.log, c.dir, second, third, third);
    set(&c, "late:", 10);
    case_write_log(&c, third, 0);
    k.old_digest = store_digest(c.engine.store);
    k.old_end = log_file_end(&c.log);
    case_open(&other);
    memset(other.log.node_id, 0x77, NODE_ID_LEN);
    set(&other, "new:", 30);
    case_snapshot(&other);
    uint64_t behind = log_file_end(&other.log);
    set(&other, "newer:", 10);
    case_write_log(&other, behind, 0);
    k.new_digest = store_digest(other.engine.store);
    k.new_end = log_file_end(&other.log);
}

static void end_two(void) {
    case_close(&other);
    end();
}

/* The node before the copy. */
static void note_copy(void) {
    struct meta_node node = {.known = true};
    memcpy(node.node_id, c.log.node_id, NODE_ID_LEN);
    memcpy(node.seed, c.log.seed, SEED_LEN);
    must(meta_put_node(meta, &node));
    must(meta_put_text(meta, "unlogged", "70 0"));
    must(adopt_note_copy(meta));
}

static void put_two(struct sim_disk *d) {
    put_files(d, c.dir, "d");
    put_files(d, other.dir, "d/incoming");
}

static void expect_new(const struct found *f) {
    struct meta_node node;
    char text[64];
    expect_eq(f->err, DC_OK);
    expect(f->digest == k.new_digest);
    must(meta_get_node(meta, &node));
    ck_assert_mem_eq(node.node_id, other.log.node_id, NODE_ID_LEN);
    must(meta_get_text(meta, "unlogged", text, sizeof(text)));
    ck_assert_str_eq(text, "");
}

START_TEST(a_copy_takes_the_place_of_everything) {
    struct found *f = mem_must_zalloc(sizeof(*f));
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    struct adopt_note n;
    begin();
    make_two();
    put_two(d);
    note_copy();
    start(io, "d", f);
    expect_new(f);
    expect_told("replaced-1");
    expect_eq(count_names(io, "d/incoming", ".dc"), 0);
    expect_eq(count_names(io, "d/replaced-1", ".dc"), 5);
    must(adopt_get(meta, &n));
    expect_eq(n.step, ADOPT_OPEN);
    start(io, "d", f); /* it didn't come so far as to settle */
    expect_new(f);
    must(adopt_settle(io, "d", meta));
    expect_note_is(ADOPT_NOTHING);
    start(io, "d", f);
    expect_new(f);
    sim_disk_destroy(d);
    end_two();
    mem_free(f);
}
END_TEST

/* One that has lost its metadata finds the old data, all of it, or the new ones, or is refused (nothing at all is refused as well: below). */
static void check_bare(struct sim_disk *after) {
    struct found *f = mem_must_zalloc(sizeof(*f));
    struct sim_disk *bare = sim_disk_crash(after, SIM_CUT_ALL, 0);
    warm_destroy(find(sim_disk_io(bare), "d", NULL, f));
    expect(f->err == DC_ECORRUPT || f->plan.empty || f->plan.node_id[0] == 0x77 ||
           f->plan.end_lsn == k.old_end);
    sim_disk_destroy(bare);
    mem_free(f);
}

/* The new data are there after the next start. */
static void check_copied(struct sim_disk *after, bool deep) {
    struct found *f = mem_must_zalloc(sizeof(*f));
    const struct io *io = sim_disk_io(after);
    check_bare(after);
    if (deep) {
        start(io, "d", f);
        expect_new(f);
    }
    must(adopt_begin(io, "d", meta, &told));
    warm_destroy(find(io, "d", other.log.node_id, f));
    expect_eq(f->plan.end_lsn, k.new_end);
    expect_eq(count_names(io, "d/replaced-1", ".dc"), 5);
    mem_free(f);
}

START_TEST(a_copy_that_is_cut_off_anywhere_is_gone_on_with) {
    begin();
    make_two();
    uint64_t n = cut_everywhere(put_two, note_copy, check_copied);
    expect(n > 10);
    end_two();
}
END_TEST

START_TEST(a_disk_that_fails_in_a_copy_refuses_the_start_and_the_next_one_goes_on) {
    struct found *f = mem_must_zalloc(sizeof(*f));
    begin();
    make_two();
    for (int kind = 0; kind < SIM_CALL_COUNT; kind++) {
        bool fails = true;
        for (uint64_t n = 1; fails; n++) {
            struct sim_disk *d = sim_disk_create();
            put_two(d);
            note_copy();
            uint64_t before = sim_disk_calls(d, (enum sim_call)kind);
            sim_disk_fail(d, (enum sim_call)kind, n, 1, EIO);
            enum dc_err err = adopt_begin(sim_disk_io(d), "d", meta, &told);
            (void)dc_fail_take(err);
            fails = sim_disk_calls(d, (enum sim_call)kind) - before >= n;
            sim_disk_fail(d, (enum sim_call)kind, 0, 0, 0);
            struct adopt_note note;
            must(adopt_get(meta, &note));
            if (note.what == ADOPT_NEEDS_COPY) { /* the copy couldn't be read: nothing was moved */
                warm_destroy(find(sim_disk_io(d), "d", c.log.node_id, f));
                expect_eq(f->plan.end_lsn, k.old_end);
            } else {
                check_copied(d, n % 4 == 0);
            }
            sim_disk_destroy(d);
        }
    }
    end_two();
    mem_free(f);
}
END_TEST

/* Metadata are written in several steps: without memory for any of them the next start goes on. */
START_TEST(metadata_that_cannot_be_written_leave_a_start_that_goes_on) {
    begin();
    make_two();
    for (uint64_t n = 1;; n++) {
        struct sim_disk *d = sim_disk_create();
        struct adopt_note note;
        put_two(d);
        note_copy();
        mem_fault_after(n);
        enum dc_err err = adopt_begin(sim_disk_io(d), "d", meta, &told);
        mem_fault_after(0);
        (void)dc_fail_take(err);
        must(adopt_get(meta, &note));
        if (note.what != ADOPT_NEEDS_COPY) {
            check_copied(d, n % 8 == 0);
        }
        sim_disk_destroy(d);
        if (err == DC_OK && note.what != ADOPT_NEEDS_COPY) {
            break;
        }
        expect(n < 1000);
    }
    end_two();
}
END_TEST

static void expect_old(struct sim_disk *d, const char *why) {
    struct found *f = mem_must_zalloc(sizeof(*f));
    note_copy();
    start(sim_disk_io(d), "d", f);
    expect_eq(f->err, DC_OK);
    expect(f->digest == k.old_digest);
    expect_note_is(ADOPT_NEEDS_COPY);
    expect_told(why);
    expect_eq(count_names(sim_disk_io(d), "d", "replaced"), 0);
    sim_disk_destroy(d);
    mem_free(f);
}

START_TEST(a_copy_that_cannot_be_opened_moves_nothing) {
    char path[512];
    begin();
    make_two();
    struct sim_disk *d = sim_disk_create();
    put_files(d, c.dir, "d");
    expect_old(d, "can't be used"); /* there is none */
    d = sim_disk_create();
    put_files(d, c.dir, "d");
    expect_eq(sim_disk_io(d)->mkdir(sim_disk_io(d), "d/incoming"), 0);
    expect_old(d, "nothing is there");
    for (int64_t at = 8; at > -3; at -= 10) { /* in the header, and in the footer */
        d = sim_disk_create();
        put_two(d);
        struct stat st;
        snprintf(path, sizeof(path), "%s/%s", other.dir, other.snapshot);
        expect_eq(stat(path, &st), 0);
        snprintf(path, sizeof(path), "d/incoming/%s", other.snapshot);
        expect(sim_disk_flip(d, path, (uint64_t)(at >= 0 ? at : st.st_size - 20), 1));
        expect_old(d, "can't be used");
    }
    end_two();
}
END_TEST

START_TEST(incoming_is_made_and_emptied) {
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    expect_eq(io->mkdir(io, "d"), 0);
    must(adopt_make_incoming(io, "d"));
    sim_disk_put(d, "d/incoming/snap-1.tmp", "x", 1);
    sim_disk_put(d, "d/incoming/snap-2.dcs", "x", 1);
    must(adopt_make_incoming(io, "d"));
    expect_eq(count_names(io, "d/incoming", ""), 0);
    sim_disk_destroy(d);
}
END_TEST

/* --- the whole start --------------------------------------------------------------------------------- */

static void run(struct data *d) {
    struct log_opts opts = {
        .keeps = true, .sync = LOG_SYNC_EVERYSEC, .segment_len = 1 << 20, .memory_limit = 1 << 20};
    must(data_open(d, &io_posix, c.dir));
    must(data_begin(d, &opts));
    must(data_settle(d));
    data_clean(d);
}

static void bring_in(void) {
    char from[600], to[600];
    must(adopt_make_incoming(&io_posix, c.dir));
    DIR *dir = opendir(other.dir);
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        snprintf(from, sizeof(from), "%s/%s", other.dir, e->d_name);
        snprintf(to, sizeof(to), "%s/incoming/%s", c.dir, e->d_name);
        expect(e->d_type != DT_REG || rename(from, to) == 0);
    }
    closedir(dir);
}

START_TEST(the_old_data_set_goes_when_the_new_one_is_open) {
    struct data d;
    uint8_t id[NODE_ID_LEN];
    memset(id, 0x77, sizeof(id));
    begin();
    make_two();
    run(&d);
    bring_in();
    must(adopt_note_copy(d.meta));
    data_close(&d, true, 1000);
    must(data_open(&d, &io_posix, c.dir));
    ck_assert_mem_eq(d.plan->node_id, id, NODE_ID_LEN);
    ck_assert_msg(strstr(d.plan->notes, "A copy was taken over") != NULL, "%s", d.plan->notes);
    expect_eq(count_names(&io_posix, c.dir, "replaced-1"), 1);
    data_close(&d, false, 1000); /* it doesn't come so far as to be open */
    run(&d);
    ck_assert_mem_eq(d.plan->node_id, id, NODE_ID_LEN);
    expect_eq(count_names(&io_posix, c.dir, "replaced"), 0);
    expect_eq(count_names(&io_posix, c.dir, "incoming"), 0);
    data_close(&d, true, 1000);
    run(&d);
    ck_assert_mem_eq(d.plan->node_id, id, NODE_ID_LEN);
    expect(d.plan->clean);
    data_close(&d, true, 1000);
    end_two();
}
END_TEST

START_TEST(a_copy_that_was_broken_off_is_removed) {
    struct data d;
    begin();
    make_two();
    run(&d);
    bring_in(); /* and nothing is noted */
    data_close(&d, true, 1000);
    run(&d);
    ck_assert_mem_eq(d.plan->node_id, c.log.node_id, NODE_ID_LEN);
    expect_eq(count_names(&io_posix, c.dir, "replaced"), 0);
    expect_eq(count_names(&io_posix, c.dir, "incoming"), 0);
    data_close(&d, true, 1000);
    end_two();
}
END_TEST

static void remove_metadata(void) {
    static const char *const names[] = {"meta/data.mdb", "meta/lock.mdb", "meta"};
    char path[512];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", c.dir, names[i]);
        expect_eq(remove(path), 0);
    }
}

START_TEST(an_old_data_set_that_no_metadata_tell_of_is_not_forgotten) {
    struct data d;
    char from[600], to[600];
    begin();
    make_two();
    run(&d);
    data_close(&d, true, 1000);
    remove_metadata();
    snprintf(to, sizeof(to), "%s/replaced-1", c.dir);
    expect_eq(mkdir(to, 0755), 0);
    run(&d); /* there are data: the other ones stay, whatever they are */
    data_close(&d, true, 1000);
    expect_eq(count_names(&io_posix, c.dir, "replaced-1"), 1);
    remove_metadata();
    DIR *dir = opendir(c.dir);
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (strstr(e->d_name, ".dc") != NULL) {
            snprintf(from, sizeof(from), "%s/%s", c.dir, e->d_name);
            snprintf(to, sizeof(to), "%s/replaced-1/%s", c.dir, e->d_name);
            expect_eq(rename(from, to), 0);
        }
    }
    closedir(dir);
    expect_eq(data_open(&d, &io_posix, c.dir), DC_ECORRUPT); /* not a new node */
    ck_assert(strstr(dc_fail_take(DC_ECORRUPT), "replaced-1") != NULL);
    data_close(&d, false, 1000);
    end_two();
}
END_TEST

CHECK_MAIN("adopt", a_note_is_there_until_it_is_forgotten,
           test_h50_a_tail_behind_the_fork_is_kept_aside_and_the_older_snapshot_used,
           test_h50_without_a_snapshot_the_log_is_enough,
           test_h50_where_no_snapshot_allows_it_a_copy_is_needed_and_nothing_changes,
           a_place_that_is_no_end_of_a_frame_of_that_history_needs_a_copy,
           the_end_of_the_log_and_the_end_of_a_snapshot_are_forks_too,
           a_branch_that_was_left_before_does_not_come_back,
           a_tail_that_was_not_logged_is_cut_off_too,
           test_h50_a_rewind_that_is_cut_off_anywhere_is_gone_on_with,
           a_disk_that_fails_in_a_rewind_refuses_the_start_and_the_next_one_goes_on,
           a_copy_takes_the_place_of_everything, a_copy_that_is_cut_off_anywhere_is_gone_on_with,
           a_disk_that_fails_in_a_copy_refuses_the_start_and_the_next_one_goes_on,
           metadata_that_cannot_be_written_leave_a_start_that_goes_on,
           a_copy_that_cannot_be_opened_moves_nothing, incoming_is_made_and_emptied,
           the_old_data_set_goes_when_the_new_one_is_open, a_copy_that_was_broken_off_is_removed,
           an_old_data_set_that_no_metadata_tell_of_is_not_forgotten)
