/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/mem.h"
#include "server/base/sum.h"
#include "server/store/load.h"
#include "tests/support/check_main.h"
#include "tests/support/data_case.h"
#include "tests/support/expect.h"
#include "tests/support/sim_disk.h"
#include "tests/support/store_check.h"
#include "tests/support/trace.h"

#include <errno.h>
#include <sys/stat.h>

static struct data_case c;

static void set(const char *key, const char *text) {
    must(hand_set(&c.hand, 0, bytes_str(key), bytes_str(text), EXPIRY_NONE));
}

static void set_many(const char *prefix, int count) {
    for (int i = 0; i < count; i++) {
        char key[32];
        snprintf(key, sizeof(key), "%s%d", prefix, i);
        set(key, "the value of one of many keys");
    }
}

static void log_path(uint64_t from, char to[512]) {
    log_file_path(&c.log, c.dir, from, to, 512);
}

static uint64_t log_end(void) {
    return log_file_end(&c.log);
}

/* Where the byte of an LSN is in the first segment's file. */
static int64_t offset_of(uint64_t lsn) {
    return (int64_t)(SEGMENT_HEADER_LEN + (lsn - c.log.first_lsn));
}

static void flip(uint64_t lsn) {
    char path[512];
    char byte = (char)~c.log.bytes.ptr[lsn - c.log.first_lsn];
    log_path(0, path);
    file_poke(path, offset_of(lsn), &byte, 1);
}

/* Returns what the byte was. */
static char file_flip(const char *path, int64_t offset) {
    char was, flipped;
    FILE *f = fopen(path, "r");
    expect(f != NULL && fseek(f, (long)offset, SEEK_SET) == 0 && fread(&was, 1, 1, f) == 1);
    fclose(f);
    flipped = (char)~was;
    file_poke(path, offset, &flipped, 1);
    return was;
}

static void expect_refused(enum dc_err want, const char *a, const char *b) {
    enum dc_err err = case_scan(&c);
    expect_eq(err, want);
    const char *text = dc_fail_take(err);
    ck_assert_msg(strstr(text, a) != NULL, "no '%s' in: %s", a, text);
    ck_assert_msg(strstr(text, b) != NULL, "no '%s' in: %s", b, text);
}

static void expect_note(const char *part) {
    ck_assert_msg(strstr(c.plan->notes, part) != NULL, "no '%s' in: %s", part, c.plan->notes);
}

START_TEST(an_empty_directory_is_a_new_node) {
    case_open(&c);
    must(case_scan(&c));
    expect(c.plan->empty);
    expect(c.warm == NULL);
    expect(warm_is_over(c.warm));
    case_close(&c);
}
END_TEST

START_TEST(a_log_alone_is_replayed_from_its_beginning) {
    case_open(&c);
    set_many("key:", 1000);
    uint64_t effects = c.log.count - 1;
    log_file_close(&c.log);
    case_write_log(&c, 0, 0);
    case_load(&c);
    case_same(&c);
    expect(!c.plan->empty);
    expect(c.plan->clean);
    expect_eq(c.plan->end_lsn, log_end());
    expect_eq(c.plan->effects, effects);
    expect_eq(c.plan->chain_count, 1);
    expect_eq(c.plan->last_time_ms, ENGINE_NOW_MS);
    ck_assert_str_eq(c.plan->snapshot, "");
    case_close(&c);
}
END_TEST

START_TEST(a_snapshot_and_the_log_behind_it) {
    case_open(&c);
    set_many("key:", 1000);
    case_snapshot(&c);
    uint64_t end = log_end();
    set_many("key:", 100);
    set_many("new:", 100);
    case_write_log(&c, 0, 0);
    case_load(&c);
    case_same(&c);
    expect_eq(c.plan->snapshot_end, end);
    expect_eq(c.plan->effects, 200);
    expect(!c.plan->clean);
    ck_assert_str_eq(c.plan->notes, "");
    case_close(&c);
}
END_TEST

START_TEST(a_snapshot_alone_is_enough) {
    case_open(&c);
    set_many("key:", 1000);
    case_snapshot(&c);
    case_load(&c);
    case_same(&c);
    expect_eq(c.plan->end_lsn, log_end());
    expect(!c.plan->clean);
    case_close(&c);
}
END_TEST

START_TEST(the_log_goes_on_in_other_segments_and_histories) {
    case_open(&c);
    set_many("a:", 50);
    uint64_t second = log_end();
    set_many("b:", 50);
    log_file_write(&c.log, c.dir, 0, second, 0);
    case_write_log(&c, second, 0);
    log_file_fork(&c.log, log_end() + LSN_JUMP);
    set_many("c:", 50);
    case_write_log(&c, 0, 0);
    case_load(&c);
    case_same(&c);
    expect_eq(c.plan->chain_count, 2);
    expect_eq(c.plan->chain[1].start, c.log.first_lsn);
    expect_eq(c.plan->end_lsn, log_end());
    case_close(&c);
}
END_TEST

/* The segment that a history begins in, with its FORK frame, is gone; a later one is there, and empty. What was durable is missing, wherever somebody
 * begins to read. */
START_TEST(a_history_that_lost_its_begin_is_damage) {
    case_open(&c);
    set_many("a:", 100);
    case_write_log(&c, 0, 0);
    log_file_fork(&c.log, log_end() + LSN_JUMP);
    set_many("b:", 10);
    uint64_t second = log_end();
    set_many("c:", 1);
    case_write_log(&c, second, 0);
    char zeros[512] = {0}, path[512];
    log_path(second, path);
    file_poke(path, SEGMENT_HEADER_LEN, zeros, (size_t)(log_end() - second));
    expect_refused(DC_ECORRUPT, "is damaged", "LSN");
    expect(access(path, F_OK) == 0);
    case_close(&c);
}
END_TEST

/* A value that is full of frames, each right for the place where it stands: a client knows what it takes. Who begins to read in the middle of it sees
 * them; who reads in order doesn't. */
START_TEST(frames_in_a_value_are_no_frames) {
    enum { FORGED = 400, PREFIX_MAX = 64 };
    struct buf value;
    case_open(&c);
    set_many("key:", 20);
    const struct history *history = &c.log.chain[c.log.chain_count - 1];
    for (uint64_t shift = 0; shift < PREFIX_MAX; shift++) { /* the value's place is found */
        uint64_t lsn = log_end() + FRAME_HEADER_LEN + EFFECT_HEADER_LEN + strlen("forged") + shift;
        buf_init(&value, 0);
        for (uint64_t i = 0; i < shift; i++) {
            buf_append(&value, "x", 1);
        }
        for (uint32_t i = 0; i < FORGED; i++) {
            frame_encode_close(&value, history->id, lsn + value.len - shift, 0);
        }
        must(hand_set(&c.hand, 0, BYTES("forged"), buf_bytes(&value), EXPIRY_NONE));
        buf_fini(&value);
    }
    set_many("more:", 20);
    case_write_log(&c, 0, 0);
    case_load(&c);
    expect_eq(c.plan->end_lsn, log_end());
    case_same(&c);
    case_close(&c);
}
END_TEST

START_TEST(a_torn_tail_is_cut_and_kept_aside) {
    case_open(&c);
    set_many("key:", 100);
    uint64_t good = log_end();
    uint64_t digest = 0;
    set("last", "its second half never reached the disk");
    case_write_log(&c, 0, good);
    char path[512], name[64], zeros[20] = {0};
    log_path(0, path);
    file_poke(path, offset_of(log_end()) - 20, zeros, sizeof(zeros));
    must(case_scan(&c));
    snprintf(name, sizeof(name), "cut-%016" PRIx64 ".bad", good);
    ck_assert_str_eq(c.plan->cut_file, name);
    expect(file_exists(c.dir, name));
    expect_eq(c.plan->end_lsn, good);
    expect(c.plan->cut_bytes > 0 && c.plan->cut_bytes <= log_end() - good);
    expect_note("cut at offset");
    case_forget(&c);
    bool existed;
    must(hand_del(&c.hand, 0, BYTES("last"), &existed));
    case_load(&c); /* it is clean now */
    case_same(&c);
    expect_eq(c.plan->cut_bytes, 0);
    ck_assert_str_eq(c.plan->notes, "");
    (void)digest;
    case_close(&c);
}
END_TEST

/* Leaves 'mark' where the half of a frame would stand, and starts. */
static void tear_and_start(uint64_t good, const char *mark) {
    char path[512];
    log_path(0, path);
    file_poke(path, offset_of(good), mark, strlen(mark));
    must(case_scan(&c));
    expect_eq(c.plan->end_lsn, good);
    case_forget(&c);
}

START_TEST(cuts_at_one_place_have_a_side_file_each) {
    case_open(&c);
    set_many("key:", 100);
    uint64_t good = log_end();
    case_write_log(&c, 0, good);
    static const char *const junk[] = {"the first tail", "another one", "the first tail"};
    for (int i = 0; i < 3; i++) {
        tear_and_start(good, junk[i]);
    }
    static const char *const ends[] = {"", "-1", "-2"};
    for (int i = 0; i < 3; i++) {
        char name[64], path[600], text[64] = "";
        snprintf(name, sizeof(name), "cut-%016" PRIx64 "%s.bad", good, ends[i]);
        expect_eq(file_exists(c.dir, name), i < 2); /* the same bytes need no second file */
        snprintf(path, sizeof(path), "%s/%s", c.dir, name);
        FILE *file = fopen(path, "rb");
        if (file != NULL) {
            expect_eq(fread(text, 1, sizeof(text) - 1, file), strlen(junk[i]));
            ck_assert_str_eq(text, junk[i]);
            fclose(file);
        }
    }
    case_close(&c);
}
END_TEST

START_TEST(tools_cut_nothing) {
    case_open(&c);
    set_many("key:", 10);
    uint64_t good = log_end();
    set("last", "torn");
    case_write_log(&c, 0, good);
    flip(log_end() - 5);
    c.opts.read_only = true;
    for (int i = 0; i < 2; i++) {
        must(case_scan(&c));
        expect_eq(c.plan->end_lsn, good);
        expect(c.plan->cut_bytes > 0);
        ck_assert_str_eq(c.plan->cut_file, "");
        case_forget(&c);
    }
    case_close(&c);
}
END_TEST

/* The effects of RENAME, COPY REPLACE, MOVE, GETDEL, DEL of many and MSET, each a frame. */
static void run_in_halves(int command) {
    struct hand *h = &c.hand;
    struct bytes keys[3] = {BYTES("a"), BYTES("b"), BYTES("c")};
    bool existed;
    if (command == 0) {
        must(hand_rename(h, 0, keys[0], keys[1], &existed));
        return;
    }
    if (command == 1) {
        must(hand_set_many(h, 0, keys, (struct bytes[]){keys[1], keys[2], keys[0]}, 3));
        return;
    }
    hand_frame_begin(h);
    switch (command) {
    case 2:
        must(hand_del(h, 0, keys[1], &existed));
        must(hand_set(h, 0, keys[1], BYTES("value of a"), ENGINE_NOW_MS + 5000));
        break;
    case 3:
        must(hand_set(h, 1, keys[0], BYTES("value of a"), EXPIRY_NONE));
        must(hand_del(h, 0, keys[0], &existed));
        break;
    case 4:
        must(hand_del(h, 0, keys[0], &existed));
        break;
    default:
        for (int i = 0; i < 3; i++) {
            must(hand_del(h, 0, keys[i], &existed));
        }
    }
    hand_frame_end(h);
}

/* A log that is cut anywhere behind 'before' has this state. */
static void expect_after_cuts(uint64_t before, uint64_t digest) {
    char path[512];
    log_path(0, path);
    for (uint64_t cut = before + 1; cut < log_end(); cut++) {
        case_write_log(&c, 0, before);
        ck_assert_int_eq(truncate(path, offset_of(cut)), 0);
        case_load(&c);
        expect_eq(c.plan->end_lsn, before);
        expect(store_digest(c.store) == digest);
        case_forget(&c);
    }
}

START_TEST(test_h08_a_command_of_which_half_is_there_never_was) {
    enum { COMMANDS = 6 };
    for (int command = 0; command < COMMANDS; command++) {
        case_open(&c);
        set("a", "value of a");
        set("b", "value of b");
        set("c", "3");
        uint64_t before = log_end(), digest = store_digest(c.engine.store);
        run_in_halves(command);
        expect_eq(c.log.count, 5); /* FORK, three SETs, and one more */
        expect_after_cuts(before, digest);
        case_write_log(&c, 0, before);
        case_load(&c);
        expect(store_digest(c.store) != digest);
        case_same(&c);
        case_close(&c);
    }
}
END_TEST

START_TEST(test_h11_damage_below_the_durable_mark_is_refused) {
    char lsn[32];
    case_open(&c);
    set_many("key:", 100);
    uint64_t bad = c.log.ends[49];
    snprintf(lsn, sizeof(lsn), "LSN %" PRIu64, bad);
    case_write_log(&c, 0, log_end());
    flip(bad + 3);
    expect_refused(DC_ECORRUPT, lsn, "dcache-restore --repair");
    expect_refused(DC_ECORRUPT, ".dcl is damaged at offset", c.dir);
    case_write_log(&c, 0, log_end());
    flip(bad + FRAME_HEADER_LEN + 3);
    expect_refused(DC_ECORRUPT, lsn, "dcache-restore --repair");
    case_close(&c);
}
END_TEST

START_TEST(a_log_that_is_shorter_than_its_durable_mark_is_refused) {
    case_open(&c);
    set_many("key:", 100);
    case_write_log(&c, 0, log_end());
    char path[512];
    log_path(0, path);
    ck_assert_int_eq(truncate(path, offset_of(c.log.ends[50])), 0);
    expect_refused(DC_ECORRUPT, ".dcl", "dcache-restore --repair");
    case_close(&c);
}
END_TEST

/* Another start finds the log as the cut has left it. */
static void expect_cut_for_good(uint64_t end) {
    case_forget(&c);
    must(case_scan(&c));
    expect_eq(c.plan->end_lsn, end);
    expect_eq(c.plan->cut_bytes, 0);
}

/* A hole above the durable mark, valid frames behind it, and a whole segment more. */
START_TEST(test_h11_what_lies_behind_a_hole_is_set_aside) {
    case_open(&c);
    set_many("key:", 100);
    uint64_t good = c.log.ends[60];
    uint64_t second = log_end();
    set_many("more:", 10);
    log_file_write(&c.log, c.dir, 0, second, c.log.ends[50]);
    case_write_log(&c, second, 0);
    char zeros[64] = {0}, path[512];
    log_path(0, path);
    file_poke(path, offset_of(good), zeros,
              c.log.ends[61] - good < 64 ? c.log.ends[61] - good : 64);
    must(case_scan(&c));
    expect_eq(c.plan->end_lsn, good);
    log_path(second, path);
    expect(access(path, F_OK) != 0);
    expect_note("set aside");
    expect_cut_for_good(good);
    case_close(&c);
}
END_TEST

/* The log goes on in a segment whose header didn't reach the disk, though some of the rest did, and those before it are gone: a snapshot has what they
 * had. */
START_TEST(test_h11_what_no_segment_holds_is_set_aside) {
    case_open(&c);
    set_many("key:", 100);
    case_snapshot(&c);
    uint64_t end = log_end();
    set_many("more:", 10);
    case_write_log(&c, end, 0);
    char zeros[SEGMENT_HEADER_LEN] = {0}, path[512];
    log_path(end, path);
    file_poke(path, 0, zeros, sizeof(zeros));
    struct warm_opts look = c.opts;
    struct warm *warm = NULL;
    look.read_only = true;
    must(data_scan(&look, c.plan, &warm));
    warm_destroy(warm);
    expect(access(path, F_OK) == 0);
    must(case_scan(&c));
    expect_eq(c.plan->end_lsn, end);
    expect(c.plan->cut_bytes > 0);
    expect(!c.plan->clean);
    expect_note("set aside");
    expect(access(path, F_OK) != 0);
    expect_cut_for_good(end);
    case_close(&c);
}
END_TEST

START_TEST(files_of_another_node_are_refused_by_name) {
    uint8_t other[NODE_ID_LEN] = {9};
    case_open(&c);
    set("a", "b");
    case_write_log(&c, 0, 0);
    c.opts.node_id = other;
    expect_refused(DC_EFOREIGN, ".dcl belongs to node 0102", "is that of node 0900");
    uint8_t ours[NODE_ID_LEN];
    memcpy(ours, c.log.node_id, sizeof(ours));
    c.opts.node_id = ours;
    must(case_scan(&c));
    case_forget(&c);
    c.log.node_id[0] = 7;
    case_snapshot(&c);
    expect_refused(DC_EFOREIGN, ".dcs belongs to node 0702", c.snapshot);
    case_close(&c);
}
END_TEST

/* A header of version 99 with the right sum, which stands at 'sum_at'. */
static void make_newer(const char *path, size_t sum_at) {
    char head[256];
    FILE *f = fopen(path, "r+");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fread(head, 1, sum_at, f), sum_at);
    put_u32(head + 8, 99);
    put_u64(head + sum_at, sum64(head, sum_at, 0));
    fclose(f);
    file_poke(path, 0, head, sum_at + 8);
}

START_TEST(files_of_a_newer_format_are_refused_by_name) {
    enum { SEGMENT_SUM_AT = 96, SNAP_SUM_AT = 104 };
    char path[512];
    case_open(&c);
    set("a", "b");
    case_write_log(&c, 0, 0);
    log_path(0, path);
    make_newer(path, SEGMENT_SUM_AT);
    expect_refused(DC_ENEWER, ".dcl", "newer");
    case_write_log(&c, 0, 0);
    case_snapshot(&c);
    snprintf(path, sizeof(path), "%s/%s", c.dir, c.snapshot);
    make_newer(path, SNAP_SUM_AT);
    expect_refused(DC_ENEWER, c.snapshot, "newer");
    case_close(&c);
}
END_TEST

START_TEST(a_damaged_snapshot_is_passed_over) {
    char path[512], junk[8] = "damaged";
    case_open(&c);
    set_many("key:", 200);
    case_snapshot(&c);
    uint64_t first_end = log_end();
    set_many("key:", 300);
    case_snapshot(&c);
    set_many("new:", 50);
    case_write_log(&c, 0, 0);
    snprintf(path, sizeof(path), "%s/%s", c.dir, c.snapshot);
    file_poke(path, -64, junk, sizeof(junk));
    case_load(&c);
    case_same(&c);
    expect_eq(c.plan->snapshot_end, first_end);
    expect_eq(c.plan->snapshots_bad, 1);
    expect_note(c.snapshot);
    case_forget(&c);

    /* Both: the log alone. */
    snprintf(path, sizeof(path), "%s/%s", c.dir, c.plan->snapshot);
    file_poke(path, -64, junk, sizeof(junk));
    case_load(&c);
    case_same(&c);
    expect_eq(c.plan->snapshots_bad, 2);
    ck_assert_str_eq(c.plan->snapshot, "");
    case_close(&c);
}
END_TEST

START_TEST(a_damaged_snapshot_without_the_log_of_an_older_one_is_refused) {
    char path[512], junk[8] = "damaged";
    case_open(&c);
    set_many("key:", 200);
    case_snapshot(&c);
    set_many("key:", 300);
    uint64_t second = log_end();
    case_snapshot(&c);
    set_many("new:", 50);
    case_write_log(&c, second, 0);
    snprintf(path, sizeof(path), "%s/%s", c.dir, c.snapshot);
    file_poke(path, -64, junk, sizeof(junk));
    expect_refused(DC_ECORRUPT, c.snapshot, "dcache-restore --repair");
    expect(c.warm == NULL);
    case_close(&c);

    /* A log that ends before the damaged snapshot does. */
    case_open(&c);
    set_many("key:", 200);
    uint64_t middle = c.log.ends[150];
    case_snapshot(&c);
    log_file_write(&c.log, c.dir, 0, middle, 0);
    snprintf(path, sizeof(path), "%s/%s", c.dir, c.snapshot);
    file_poke(path, -64, junk, sizeof(junk));
    expect_refused(DC_ECORRUPT, "before it", "dcache-restore --repair");
    case_close(&c);
}
END_TEST

START_TEST(a_log_that_begins_in_the_middle_is_refused) {
    case_open(&c);
    set_many("key:", 200);
    case_write_log(&c, c.log.ends[100], 0);
    expect_refused(DC_ECORRUPT, "no snapshot holds what was before", c.dir);
    case_close(&c);
}
END_TEST

/* The log was cut at 1000 after a flush at 1500 was known; what was set then must not be dead on arrival. */
START_TEST(test_h04_a_flush_that_was_lost_kills_nothing) {
    case_open(&c);
    set_many("key:", 10);
    uint64_t good = log_end();
    must(hand_flush(&c.hand, 0));
    case_write_log(&c, 0, good);
    flip(log_end() - 1);
    case_load(&c);
    expect_eq(c.plan->end_lsn, good);
    expect_eq(keyspace_count(store_keyspace(c.store, 0)), 10);
    expect_eq(keyspace_flush_version(store_keyspace(c.store, 0)), 0);
    case_forget(&c);

    /* And a flush that is there. */
    case_write_log(&c, 0, good);
    set("after", "the flush");
    case_write_log(&c, 0, good);
    case_load(&c);
    case_same(&c);
    expect_eq(keyspace_count(store_keyspace(c.store, 0)), 1);
    expect(keyspace_flush_version(store_keyspace(c.store, 0)) > good);
    case_close(&c);
}
END_TEST

START_TEST(test_h03_a_snapshot_that_ends_behind_the_log) {
    case_open(&c);
    set_many("key:", 10);
    uint64_t durable = log_end();
    set_many("more:", 10);
    case_snapshot(&c);
    log_file_write(&c.log, c.dir, 0, durable, durable);
    case_load(&c);
    case_same(&c);
    expect_eq(c.plan->end_lsn, log_end()); /* what follows begins behind the snapshot */
    case_close(&c);
}
END_TEST

START_TEST(recovery_to_a_point_ends_with_a_frame) {
    case_open(&c);
    c.opts.read_only = true;
    set_many("key:", 20);
    case_snapshot(&c);
    set_many("key:", 20);
    uint64_t target = log_end();
    int64_t time_ms = engine_now(&c.engine);
    engine_sleep(&c.engine, 1000);
    case_write_log(&c, 0, 0);
    struct data_plan *plan = c.plan;
    uint64_t digest_end;
    set_many("later:", 20);
    digest_end = log_end();
    case_snapshot(&c); /* newer than the targets */
    case_write_log(&c, 0, 0);

    c.opts.to_lsn = target;
    must(case_scan(&c));
    expect_eq(plan->end_lsn, target);
    expect(!plan->clean);
    expect_eq(plan->snapshots_bad, 0);
    case_forget(&c);
    c.opts.to_lsn = target + 10; /* in the middle of a frame */
    must(case_scan(&c));
    expect_eq(plan->end_lsn, target);
    case_forget(&c);
    c.opts.to_lsn = 0;
    c.opts.to_time_ms = time_ms + 500;
    must(case_scan(&c));
    expect_eq(plan->end_lsn, target);
    case_forget(&c);
    c.opts.to_time_ms = time_ms + 1000;
    must(case_scan(&c));
    expect_eq(plan->end_lsn, digest_end);
    case_forget(&c);

    /* That a newer snapshot is damaged doesn't matter. */
    char path[512], junk[8] = "damaged";
    snprintf(path, sizeof(path), "%s/%s", c.dir, c.snapshot);
    file_poke(path, -64, junk, sizeof(junk));
    c.opts.to_time_ms = time_ms + 500;
    must(case_scan(&c));
    expect_eq(plan->end_lsn, target);
    case_forget(&c);
    c.opts.to_time_ms = 0;
    c.opts.to_lsn = target;
    must(case_scan(&c));
    expect_eq(plan->end_lsn, target);
    expect_eq(plan->snapshots_bad, 0);
    case_close(&c);
}
END_TEST

/* Not a new node: nothing may be built on what looks like an empty directory. */
START_TEST(a_point_before_everything_is_refused) {
    for (int with_snapshot = 0; with_snapshot < 2; with_snapshot++) {
        case_open(&c);
        c.opts.read_only = true;
        set_many("key:", 20);
        uint64_t from = with_snapshot ? log_end() : 0;
        int64_t time_ms = engine_now(&c.engine);
        if (with_snapshot) {
            case_snapshot(&c);
            set_many("key:", 20);
        }
        case_write_log(&c, from, 0); /* of a log that retention has cut */
        c.opts.to_lsn = LSN_FIRST + 1;
        expect_refused(DC_ECORRUPT, "newer than what is asked for", c.dir);
        c.opts.to_lsn = 0;
        c.opts.to_time_ms = time_ms - 1000;
        expect_refused(DC_ECORRUPT, "newer than what is asked for", c.dir);
        case_close(&c);
    }
}
END_TEST

/* --- the order of calls ------------------------------------------------------------------------------ */

/* A log on a simulated disk: durable up to somewhere, good a little further; half a frame, and perhaps another segment. */
static struct {
    struct sim_disk *disk;
    bool goes_on;
    uint64_t durable, good, second;
    char first_name[SEGMENT_NAME_MAX], second_name[SEGMENT_NAME_MAX];
} torn;

static void torn_open(bool goes_on) {
    char path[512];
    case_open(&c);
    set_many("key:", 20);
    torn.durable = log_end();
    set("written", "and not durable");
    torn.good = log_end();
    set("torn", "half of it");
    torn.second = log_end();
    log_file_write(&c.log, c.dir, 0, torn.second, torn.durable);
    torn.goes_on = goes_on;
    if (goes_on) {
        set("later", "and behind a hole");
        case_write_log(&c, torn.second, 0);
    }
    log_path(0, path);
    file_poke(path, offset_of(torn.good), "anything else", 13);
    segment_name(c.log.first_lsn, c.log.chain[0].id, torn.first_name);
    segment_name(torn.second, c.log.chain[0].id, torn.second_name);
    torn.disk = sim_disk_create();
    sim_disk_put_dir(torn.disk, c.dir, "data");
    c.opts.io = sim_disk_io(torn.disk);
    c.opts.dir = "data";
}

static void torn_close(void) {
    case_close(&c);
    sim_disk_destroy(torn.disk);
}

/* Behind the side file: the last segment goes first, then the tail is cut. What is good is written again, since nobody knows whether it is on the disk. */
static void expect_cut(const char *before) {
    const char *log = torn.first_name;
    char aside[256] = "";
    if (torn.goes_on) {
        snprintf(aside, sizeof(aside),
                 "rename %s cut-%016" PRIx64 "-%016" PRIx64 ".bad\nsync_dir data\n",
                 torn.second_name, torn.second, c.log.chain[0].id);
    }
    int64_t end = offset_of(torn.good), from = offset_of(torn.durable);
    expect_eq(c.plan->end_lsn, torn.good);
    expect_trace(torn.disk,
                 "%s"
                 "sync_dir data\n"
                 "%s"
                 "truncate %s %" PRId64 "\n"
                 "sync %s\n"
                 "truncate %s %" PRId64 "\n"
                 "write %s %" PRId64 "+%" PRId64 "\n"
                 "truncate %s %" PRId64 "\n"
                 "sync %s\n"
                 "write %s %d+%d\n" /* the mark */
                 "sync_dir data\n",
                 before, aside, log, end, log, log, end + 1, log, from, end - from, log, end, log,
                 log, SEGMENT_MARK_AT, SEGMENT_MARK_LEN);
}

static const char *side_calls(char to[512]) {
    char tmp[SEGMENT_NAME_MAX];
    snprintf(tmp, sizeof(tmp), "cut-%016" PRIx64 ".tmp", torn.good);
    snprintf(to, 512,
             "unlink %s -> ENOENT\n"
             "create %s\n"
             "write %s 0+%" PRIu64 "\n"
             "sync %s\n"
             "rename %s cut-%016" PRIx64 ".bad\n",
             tmp, tmp, tmp, torn.second - torn.good, tmp, tmp, torn.good);
    return to;
}

START_TEST(a_tail_is_cut_when_its_side_file_is_durable) {
    char calls[512];
    torn_open(true);
    must(case_scan(&c));
    expect_cut(side_calls(calls));
    torn_close();
}
END_TEST

/* An earlier start was killed when the side file had its name, which needn't be on the disk. */
START_TEST(also_when_it_was_made_by_a_start_that_was_killed) {
    char calls[512];
    torn_open(false);
    sim_disk_fail(torn.disk, SIM_SYNC_DIR, 1, 1, EIO);
    expect_eq(case_scan(&c), DC_EIO);
    expect_trace(torn.disk, "%ssync_dir data -> EIO\n", side_calls(calls));
    case_forget(&c);
    must(case_scan(&c));
    expect_cut("");
    torn_close();
}
END_TEST

/* Nor would a backup have a second name of such a file. */
START_TEST(what_a_start_has_settled_the_next_one_leaves_alone) {
    torn_open(true);
    must(case_scan(&c));
    mem_free(sim_disk_take_trace(torn.disk));
    case_forget(&c);
    must(case_scan(&c));
    expect_eq(c.plan->end_lsn, torn.good);
    expect_trace(torn.disk, "sync_dir data\n");
    torn_close();
}
END_TEST

START_TEST(leftovers_of_a_crash_are_removed) {
    char path[512];
    case_open(&c);
    set("a", "b");
    case_write_log(&c, 0, 0);
    snprintf(path, sizeof(path), "%s/snap-0000000000000001-0000000000000001.dcs.tmp", c.dir);
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fclose(f);
    c.opts.read_only = true;
    must(case_scan(&c));
    case_forget(&c);
    expect(access(path, F_OK) == 0);
    c.opts.read_only = false;
    must(case_scan(&c));
    expect(access(path, F_OK) != 0);
    case_close(&c);
}
END_TEST

START_TEST(a_directory_is_no_leftover) {
    char path[512];
    case_open(&c);
    set("a", "b");
    case_write_log(&c, 0, 0);
    snprintf(path, sizeof(path), "%s/x.tmp", c.dir);
    expect_eq(mkdir(path, 0755), 0);
    case_load(&c);
    case_same(&c);
    expect_eq(rmdir(path), 0);
    case_close(&c);
}
END_TEST

/* What the store was behind each frame of a small log. */
static struct moment { uint64_t end, digest; } moments[16];
static uint32_t moment_count;

static void note_moment(enum dc_err err) {
    must(err);
    dc_assert(moment_count < sizeof(moments) / sizeof(moments[0]));
    moments[moment_count++] = (struct moment){log_end(), store_digest(c.engine.store)};
}

/* All that a scan has taken is loaded: the state is that behind the last frame that counts, whole. */
static void expect_state_at_end(int64_t offset) {
    uint32_t i = 0;
    while (i < moment_count && moments[i].end != c.plan->end_lsn) {
        i++;
    }
    ck_assert_msg(i < moment_count, "byte %" PRId64 ": ends inside a frame", offset);
    case_attach_scanned(&c);
    must(warm_all(c.warm, &c.thread));
    struct table_facts facts;
    const char *wrong = store_check(c.store, &facts);
    ck_assert_msg(wrong == NULL, "byte %" PRId64 ": %s", offset, wrong);
    ck_assert_msg(store_digest(c.store) == moments[i].digest,
                  "byte %" PRId64 ": another state than that behind frame %u", offset, i);
}

/* Every byte of a small log and of the page before it: never a crash, never anything but the whole, a cut behind what was durable, or a refusal. */
START_TEST(every_byte_of_a_segment_flipped_in_turn) {
    case_open(&c);
    moment_count = 0;
    note_moment(DC_OK);
    note_moment(hand_set(&c.hand, 0, BYTES("a"), BYTES("1"), EXPIRY_NONE));
    note_moment(hand_set(&c.hand, 1, BYTES("flushed"), BYTES("x"), EXPIRY_NONE));
    note_moment(hand_append(&c.hand, 0, BYTES("a"), BYTES("23")));
    uint64_t durable = log_end();
    note_moment(hand_flush(&c.hand, 1));
    note_moment(hand_set(&c.hand, 1, BYTES("flushed"), BYTES("again"), EXPIRY_NONE));
    note_moment(hand_append(&c.hand, 0, BYTES("a"), BYTES("4")));
    case_write_log(&c, 0, durable);
    c.opts.read_only = true;
    char path[512];
    log_path(0, path);
    for (int64_t offset = 0; offset < offset_of(log_end()); offset++) {
        uint64_t lsn = c.log.first_lsn + (uint64_t)(offset - SEGMENT_HEADER_LEN);
        bool in_page = offset < SEGMENT_HEADER_LEN;
        bool in_mark = offset >= SEGMENT_MARK_AT && offset < SEGMENT_MARK_AT + SEGMENT_MARK_LEN;
        char was = file_flip(path, offset);
        c.opts.threads = in_page ? 0 : 3;
        enum dc_err err = case_scan(&c);
        if (err != DC_OK) {
            ck_assert_msg(err == DC_ECORRUPT || (in_page && err == DC_ENEWER),
                          "byte %" PRId64 ": %s", offset, dc_fail_take(err));
            expect(!in_mark && (in_page || lsn < durable));
            (void)dc_fail_take(err);
        } else {
            expect(in_page ? in_mark : lsn >= durable);
            expect(in_page ? c.plan->end_lsn == log_end()
                           : c.plan->end_lsn >= durable && c.plan->end_lsn <= lsn);
            expect_state_at_end(offset);
        }
        case_forget(&c);
        file_poke(path, offset, &was, 1);
    }
    must(case_scan(&c));
    expect_eq(c.plan->end_lsn, log_end());
    expect_state_at_end(0);
    case_close(&c);
}
END_TEST

CHECK_MAIN("data_scan", an_empty_directory_is_a_new_node,
           a_log_alone_is_replayed_from_its_beginning, a_snapshot_and_the_log_behind_it,
           a_snapshot_alone_is_enough, the_log_goes_on_in_other_segments_and_histories,
           a_history_that_lost_its_begin_is_damage, frames_in_a_value_are_no_frames,
           a_torn_tail_is_cut_and_kept_aside, cuts_at_one_place_have_a_side_file_each,
           tools_cut_nothing, test_h08_a_command_of_which_half_is_there_never_was,
           test_h11_damage_below_the_durable_mark_is_refused,
           a_log_that_is_shorter_than_its_durable_mark_is_refused,
           test_h11_what_lies_behind_a_hole_is_set_aside,
           test_h11_what_no_segment_holds_is_set_aside, files_of_another_node_are_refused_by_name,
           files_of_a_newer_format_are_refused_by_name, a_damaged_snapshot_is_passed_over,
           a_damaged_snapshot_without_the_log_of_an_older_one_is_refused,
           a_log_that_begins_in_the_middle_is_refused, test_h04_a_flush_that_was_lost_kills_nothing,
           test_h03_a_snapshot_that_ends_behind_the_log, recovery_to_a_point_ends_with_a_frame,
           a_point_before_everything_is_refused, a_tail_is_cut_when_its_side_file_is_durable,
           also_when_it_was_made_by_a_start_that_was_killed,
           what_a_start_has_settled_the_next_one_leaves_alone, leftovers_of_a_crash_are_removed,
           a_directory_is_no_leftover, every_byte_of_a_segment_flipped_in_turn)
