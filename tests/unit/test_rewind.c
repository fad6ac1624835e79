/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/sum.h"
#include "tests/support/adopt_case.h"
#include "tests/support/trace.h"

/* What all tests of the rewind begin with. */
static struct {
    uint64_t older, fork, newer; /* snapshots at the first and the last */
    uint64_t second, third;      /* segments, besides that of the next history */
    uint64_t history;
    uint64_t digest; /* at the fork */
    uint64_t last_digest;
} r;

static uint64_t sum_of_file(const char *path) {
    static char bytes[1 << 20];
    FILE *file = fopen(path, "rb");
    expect(file != NULL);
    size_t len = fread(bytes, 1, sizeof(bytes), file);
    expect(len > 0 && len < sizeof(bytes) && fclose(file) == 0);
    return sum64(bytes, len, 0);
}

/* Two snapshots, a fork between them, a tail in the same history and another one behind that; all of it durable. */
static void make_divergent(bool with_older) {
    set(&c, "a:", 100);
    r.second = log_file_end(&c.log);
    log_file_write(&c.log, c.dir, 0, r.second, r.second);
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
    r.third = log_file_end(&c.log);
    log_file_write(&c.log, c.dir, r.second, r.third, r.third);
    set(&c, "e:", 20);
    r.newer = log_file_end(&c.log);
    case_snapshot(&c);
    case_write_log(&c, r.third, r.newer);
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
    char name[SEGMENT_NAME_MAX], path[TEMP_DIR_MAX + 80], kept[TEMP_DIR_MAX + 80];
    segment_name(r.second, r.history, name);
    snprintf(path, sizeof(path), "%s/%s", c.dir, name);
    snprintf(kept, sizeof(kept), "%s/kept", c.dir);
    expect_eq(link(path, kept), 0); /* as a backup does */
    uint64_t sum = sum_of_file(kept);
    start(&io_posix, c.dir, f);
    expect_eq(sum_of_file(kept), sum);
    expect_eq(unlink(kept), 0);
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

/* An earlier one has cut at the same place, another tail. */
START_TEST(a_second_rewind_to_the_same_place_keeps_both_tails) {
    struct found *f = mem_must_zalloc(sizeof(*f));
    char name[64], path[TEMP_DIR_MAX + 80], text[16] = "";
    begin();
    make_divergent(true);
    snprintf(name, sizeof(name), "cut-%016" PRIx64 ".bad", r.fork);
    snprintf(path, sizeof(path), "%s/%s", c.dir, name);
    FILE *file = fopen(path, "wb");
    expect(file != NULL && fputs("the first", file) >= 0 && fclose(file) == 0);
    must(adopt_note_rewind(meta, r.fork, r.history));
    start(&io_posix, c.dir, f);
    expect_at_the_fork(f);
    snprintf(name, sizeof(name), "cut-%016" PRIx64 "-1.bad", r.fork);
    ck_assert_str_eq(told.cut_file, name);
    expect(file_exists(c.dir, name));
    file = fopen(path, "rb");
    expect(file != NULL && fread(text, 1, sizeof(text) - 1, file) == 9);
    fclose(file);
    ck_assert_str_eq(text, "the first");
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
    branch.chain[1] =
        (struct history){.id = 77, .start = r.newer + LSN_JUMP, .epoch = 1, .parent_end = r.newer};
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

static void put_divergent(struct sim_disk *d) {
    sim_disk_put_dir(d, c.dir, "d");
}

static void note_rewind(void) {
    must(adopt_note_rewind(meta, r.fork, r.history));
}

static void check_rewound(struct sim_disk *after, bool deep) {
    struct found *f = mem_must_zalloc(sizeof(*f));
    const struct io *io = sim_disk_io(after);
    char stem[32];
    snprintf(stem, sizeof(stem), "cut-%016" PRIx64, r.fork);
    if (deep) {
        expect_rewound(io, "d", f);
    } else {
        must(adopt_begin(io, "d", meta, &told));
        warm_destroy(find(io, "d", NULL, f));
        expect_eq(f->err, DC_OK);
        expect_eq(f->plan.end_lsn, r.fork);
        expect_note_is(ADOPT_NOTHING);
    }
    expect_eq(count_names(io, "d", stem), 1); /* done again it needs no second file */
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

/* At the end of a segment, where nothing has to be cut. */
static void note_rewind_to_segments_end(void) {
    must(adopt_note_rewind(meta, r.newer, r.history));
}

static void check_rewound_to_segments_end(struct sim_disk *after, bool deep) {
    struct found *f = mem_must_zalloc(sizeof(*f));
    (void)deep;
    expect_note_is(ADOPT_NOTHING);
    warm_destroy(find(sim_disk_io(after), "d", NULL, f));
    expect_eq(f->err, DC_OK);
    expect_eq(f->plan.end_lsn, r.newer);
    mem_free(f);
}

START_TEST(what_a_killed_start_has_set_aside_stays_there) {
    begin();
    make_divergent(true);
    kill_everywhere(put_divergent, note_rewind, check_rewound);
    kill_everywhere(put_divergent, note_rewind_to_segments_end, check_rewound_to_segments_end);
    end();
}
END_TEST

/* A rename that is durable: the line of it and the next one. */
static void add_aside(struct buf *to, const char *from, uint64_t lsn, uint64_t history,
                      const char *extension) {
    buf_printf(to, "rename %s cut-%016" PRIx64 "-%016" PRIx64 "%s.bad\nsync_dir d\n", from, lsn,
               history, extension);
}

/* Each step is on the disk before the next one. What follows the fork goes from the end on; the segment that holds it is cut last, when its tail has a side file and
 * nothing promises that tail any more. */
START_TEST(a_rewind_comes_in_this_order) {
    char name[SEGMENT_NAME_MAX];
    struct sim_disk *d = sim_disk_create();
    struct buf calls;
    buf_init(&calls, 0);
    begin();
    make_divergent(true);
    put_divergent(d);
    note_rewind();
    must(adopt_begin(sim_disk_io(d), "d", meta, &told));
    uint64_t last = c.log.chain[1].id, start_lsn = c.log.chain[1].start;
    buf_append_str(&calls, "sync_dir d\n"); /* what an earlier start may have done */
    add_aside(&calls, c.snapshot, r.newer, r.history, ".dcs");
    segment_name(start_lsn, last, name);
    add_aside(&calls, name, start_lsn, last, "");
    segment_name(r.third, r.history, name);
    add_aside(&calls, name, r.third, r.history, "");
    segment_name(r.second, r.history, name);
    buf_append(&calls, "", 1);
    uint64_t offset = SEGMENT_HEADER_LEN + (r.fork - r.second);
    expect_trace(d,
                 "%s"
                 "unlink rewind.tmp -> ENOENT\n"
                 "create rewind.tmp\n"
                 "write rewind.tmp 0+%" PRIu64 "\n"
                 "sync rewind.tmp\n"
                 "write rewind.tmp 512+24\n"
                 "sync rewind.tmp\n"
                 "rename rewind.tmp %s\n"
                 "sync_dir d\n"
                 "unlink cut-%016" PRIx64 ".tmp -> ENOENT\n"
                 "create cut-%016" PRIx64 ".tmp\n"
                 "write cut-%016" PRIx64 ".tmp 0+%" PRIu64 "\n"
                 "sync cut-%016" PRIx64 ".tmp\n"
                 "rename cut-%016" PRIx64 ".tmp %s\n"
                 "sync_dir d\n"
                 "truncate %s %" PRIu64 "\n"
                 "sync %s\n",
                 calls.ptr, SEGMENT_HEADER_LEN + (r.third - r.second), name, r.fork, r.fork, r.fork,
                 r.third - r.fork, r.fork, r.fork, told.cut_file, name, offset, name);
    buf_fini(&calls);
    sim_disk_destroy(d);
    end();
}
END_TEST

START_TEST(a_disk_that_fails_in_a_rewind_refuses_the_start_and_the_next_one_goes_on) {
    begin();
    make_divergent(true);
    fail_everywhere(put_divergent, note_rewind, check_rewound);
    end();
}
END_TEST

CHECK_MAIN("rewind", test_h50_a_tail_behind_the_fork_is_kept_aside_and_the_older_snapshot_used,
           a_second_rewind_to_the_same_place_keeps_both_tails,
           test_h50_without_a_snapshot_the_log_is_enough,
           test_h50_where_no_snapshot_allows_it_a_copy_is_needed_and_nothing_changes,
           a_place_that_is_no_end_of_a_frame_of_that_history_needs_a_copy,
           the_end_of_the_log_and_the_end_of_a_snapshot_are_forks_too,
           a_branch_that_was_left_before_does_not_come_back,
           a_tail_that_was_not_logged_is_cut_off_too,
           test_h50_a_rewind_that_is_cut_off_anywhere_is_gone_on_with,
           what_a_killed_start_has_set_aside_stays_there, a_rewind_comes_in_this_order,
           a_disk_that_fails_in_a_rewind_refuses_the_start_and_the_next_one_goes_on)
