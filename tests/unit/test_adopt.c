/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/standing.h"
#include "tests/support/adopt_case.h"
#include "tests/support/trace.h"

static struct data_case other;

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

/* --- copy -------------------------------------------------------------------------------------------- */

static struct {
    uint64_t old_digest, new_digest;
    uint64_t old_end, new_end;
    uint64_t old_second, old_third,
        new_second; /* segments besides the first one, which the new one hasn't */
    char older[SNAP_NAME_MAX];
} k;

/* c is what the node has: two snapshots and a log. 'other' is another node's: a snapshot, and log behind it. */
static void make_two(void) {
    set(&c, "old:", 100);
    case_snapshot(&c);
    snprintf(k.older, sizeof(k.older), "%s", c.snapshot);
    k.old_second = log_file_end(&c.log);
    log_file_write(&c.log, c.dir, 0, k.old_second, k.old_second);
    set(&c, "old:", 150);
    case_snapshot(&c);
    k.old_third = log_file_end(&c.log);
    log_file_write(&c.log, c.dir, k.old_second, k.old_third, k.old_third);
    set(&c, "late:", 10);
    case_write_log(&c, k.old_third, 0);
    k.old_digest = store_digest(c.engine.store);
    k.old_end = log_file_end(&c.log);
    case_open(&other);
    memset(other.log.node_id, 0x77, NODE_ID_LEN);
    set(&other, "new:", 30);
    case_snapshot(&other);
    k.new_second = log_file_end(&other.log);
    set(&other, "newer:", 10);
    log_file_close(&other.log);
    case_write_log(&other, k.new_second, 0);
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
    must(standing_put_peers(meta, &(struct standing_peer){.host = "replica", .port = 1}, 1));
    must(adopt_note_copy(meta));
}

static void put_two(struct sim_disk *d) {
    sim_disk_put_dir(d, c.dir, "d");
    sim_disk_put_dir(d, other.dir, "d/incoming");
}

static void expect_new(const struct found *f) {
    static struct standing_peer peers[PEERS_MAX];
    struct meta_node node;
    char text[64];
    uint32_t count;
    must(standing_get_peers(meta, peers, &count));
    expect_eq(count, 0); /* what they had acknowledged was of other data */
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

START_TEST(what_a_killed_start_has_moved_stays_where_it_is) {
    begin();
    make_two();
    kill_everywhere(put_two, note_copy, check_copied);
    end_two();
}
END_TEST

/* What is on its way out, or in: its name, and where it goes. */
static void add_move(struct buf *to, const char *name, const char *dir) {
    buf_printf(to, "rename %s %s/%s\n", name, dir, name);
}

static void add_segment(struct buf *to, const struct data_case *of, uint64_t lsn, const char *dir) {
    char name[SEGMENT_NAME_MAX];
    segment_name(lsn, of->log.chain[0].id, name);
    add_move(to, name, dir);
}

static enum adopt_step last_step;

/* What the note says is done is on the disk. */
static void watch_note(void *disk, enum sim_call kind, const char *path) {
    struct adopt_note n;
    (void)kind, (void)path;
    must(adopt_get(meta, &n));
    if (n.step != last_step) {
        expect_eq(sim_disk_unsynced(disk), 0);
        last_step = n.step;
    }
}

/* No segment goes before all snapshots have gone, and none before the first one: without metadata, and so without a note, a part of the old data set is refused. */
static void add_way_out(struct buf *calls, bool with_snapshots) {
    static const char synced[] = "sync_dir replaced-1\nsync_dir d\n";
    buf_append_str(calls, "sync_dir d\n"); /* that has the directory */
    if (with_snapshots) {
        add_move(calls, c.snapshot, "replaced-1");
        add_move(calls, k.older, "replaced-1");
    }
    buf_append_str(calls, synced);
    add_segment(calls, &c, LSN_FIRST, "replaced-1");
    buf_append_str(calls, synced);
    add_segment(calls, &c, k.old_second, "replaced-1");
    add_segment(calls, &c, k.old_third, "replaced-1");
    buf_append_str(calls, synced);
}

static void add_way_in(struct buf *calls) {
    static const char synced[] = "sync_dir d\nsync_dir incoming\n";
    add_move(calls, other.snapshot, "d");
    buf_append_str(calls, synced);
    add_segment(calls, &other, k.new_second, "d");
    buf_append_str(calls, synced);
    buf_append_str(calls, synced); /* at the end in any case */
    buf_append(calls, "", 1);
}

/* A disk with both data sets, and the note; 'calls' is to be what is asked of it. */
static struct sim_disk *begin_traced(struct buf *calls) {
    struct sim_disk *d = sim_disk_create();
    buf_init(calls, 0);
    begin();
    make_two();
    put_two(d);
    note_copy();
    return d;
}

static void end_traced(struct sim_disk *d, struct buf *calls) {
    expect_trace(d, "%s", calls->ptr);
    buf_fini(calls);
    sim_disk_destroy(d);
    end_two();
}

START_TEST(a_copy_is_taken_over_in_this_order) {
    struct buf calls;
    struct sim_disk *d = begin_traced(&calls);
    last_step = ADOPT_NOTED;
    sim_disk_set_hook(d, watch_note, d);
    must(adopt_begin(sim_disk_io(d), "d", meta, &told));
    sim_disk_set_hook(d, NULL, NULL);
    expect_eq(last_step, ADOPT_IN);
    expect_eq(sim_disk_unsynced(d), 0); /* and then "copy-open" */
    add_way_out(&calls, true);
    add_way_in(&calls);
    end_traced(d, &calls);
}
END_TEST

/* Killed when the snapshots had gone, which needn't be on the disk. */
START_TEST(it_is_gone_on_with_in_this_order) {
    struct buf calls;
    struct sim_disk *d = begin_traced(&calls);
    sim_disk_stop_after(d, 3);
    expect_eq(adopt_begin(sim_disk_io(d), "d", meta, &told), DC_EIO);
    sim_disk_stop_after(d, 0);
    mem_free(sim_disk_take_trace(d));
    must(adopt_begin(sim_disk_io(d), "d", meta, &told));
    add_way_out(&calls, false);
    add_way_in(&calls);
    end_traced(d, &calls);
}
END_TEST

/* A copy that can't be read moves nothing. */
static void check_failed(struct sim_disk *d, bool deep) {
    struct adopt_note n;
    must(adopt_get(meta, &n));
    if (n.what != ADOPT_NEEDS_COPY) {
        check_copied(d, deep);
        return;
    }
    struct found *f = mem_must_zalloc(sizeof(*f));
    warm_destroy(find(sim_disk_io(d), "d", c.log.node_id, f));
    expect_eq(f->plan.end_lsn, k.old_end);
    mem_free(f);
}

START_TEST(a_disk_that_fails_in_a_copy_refuses_the_start_and_the_next_one_goes_on) {
    begin();
    make_two();
    fail_everywhere(put_two, note_copy, check_failed);
    end_two();
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
    sim_disk_put_dir(d, c.dir, "d");
    expect_old(d, "can't be used"); /* there is none */
    d = sim_disk_create();
    sim_disk_put_dir(d, c.dir, "d");
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
    expect(d.followed &&
           !d.plan->clean); /* though it ends with CLOSE: the other node goes on there */
    char shared[8];
    must(meta_get_text(d.meta, STANDING_SHARED, shared, sizeof(shared)));
    ck_assert_str_eq(shared, "yes"); /* its source has them, too */
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

static void move_data(const char *to_dir) {
    char from[600], to[600];
    DIR *dir = opendir(c.dir);
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        snprintf(from, sizeof(from), "%s/%s", c.dir, e->d_name);
        snprintf(to, sizeof(to), "%s/%s/%s", c.dir, to_dir, e->d_name);
        expect(strstr(e->d_name, ".dc") == NULL || rename(from, to) == 0);
    }
    closedir(dir);
}

START_TEST(an_old_data_set_that_no_metadata_tell_of_is_not_forgotten) {
    struct data d;
    char path[600];
    begin();
    make_two();
    run(&d);
    data_close(&d, true, 1000);
    remove_metadata();
    snprintf(path, sizeof(path), "%s/replaced-1", c.dir);
    expect_eq(mkdir(path, 0755), 0);
    run(&d); /* there are data: the other ones stay, whatever they are */
    data_close(&d, true, 1000);
    expect_eq(count_names(&io_posix, c.dir, "replaced-1"), 1);
    remove_metadata();
    move_data("replaced-1");
    expect_eq(data_open(&d, &io_posix, c.dir), DC_ECORRUPT); /* not a new node */
    ck_assert(strstr(dc_fail_take(DC_ECORRUPT), "replaced-1") != NULL);
    data_close(&d, false, 1000);
    end_two();
}
END_TEST

CHECK_MAIN("adopt", a_note_is_there_until_it_is_forgotten, a_copy_takes_the_place_of_everything,
           a_copy_that_is_cut_off_anywhere_is_gone_on_with,
           what_a_killed_start_has_moved_stays_where_it_is, a_copy_is_taken_over_in_this_order,
           it_is_gone_on_with_in_this_order,
           a_disk_that_fails_in_a_copy_refuses_the_start_and_the_next_one_goes_on,
           metadata_that_cannot_be_written_leave_a_start_that_goes_on,
           a_copy_that_cannot_be_opened_moves_nothing, incoming_is_made_and_emptied,
           the_old_data_set_goes_when_the_new_one_is_open, a_copy_that_was_broken_off_is_removed,
           an_old_data_set_that_no_metadata_tell_of_is_not_forgotten)
