/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/log_reader.h"
#include "server/base/codec.h"
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"
#include "tests/support/log_found.h"
#include "tests/support/segment_build.h"
#include "tests/support/sim_disk.h"

#include <errno.h>
#include <string.h>

static const struct history h1 = {.id = 11, .start = 1000, .epoch = 1, .parent_end = 0};

/* --- one segment ------------------------------------------------------------------------------------- */

START_TEST(frames_come_in_order_and_then_the_end) {
    struct sim_disk *d = sim_disk_create();
    struct segment_build b;
    struct found f;
    expect_found(d, 0, "", LOG_END);
    segment_build_init(&b, &h1, 1000);
    uint64_t a = segment_build_put(&b, "a", "1");
    uint64_t end = segment_build_put(&b, "b", "2");
    end = segment_build_close(&b);
    segment_build_write(&b, sim_disk_io(d), ".");
    expect_found(d, 0, "a b CLOSE", LOG_END);
    expect_found(d, 1000, "a b CLOSE", LOG_END);
    expect_found(d, a, "b CLOSE", LOG_END);
    expect_found(d, end, "", LOG_END);
    segment_build_room(&b, 65536); /* zeros behind the last frame are the end, too */
    segment_build_write(&b, sim_disk_io(d), ".");
    read_all(&f, sim_disk_io(d), 0);
    ck_assert_str_eq(f.keys.ptr, "a b CLOSE");
    ck_assert_int_eq(f.how, LOG_END);
    ck_assert_uint_eq(f.first_lsn, 1000);
    ck_assert_uint_eq(f.end.lsn, end);
    ck_assert_uint_eq(f.end.at_lsn, end);
    ck_assert_uint_eq(f.end.file_offset, SEGMENT_HEADER_LEN + end - 1000);
    ck_assert_uint_eq(f.end.junk_len, 0);
    ck_assert(!f.end.frames_behind);
    buf_fini(&f.keys);
    segment_build_fini(&b);
    sim_disk_destroy(d);
}
END_TEST

START_TEST(frames_of_any_size_are_read_whole) {
    struct sim_disk *d = sim_disk_create();
    struct segment_build b;
    struct log_dir dir;
    struct log_reader *r;
    struct frame_ref frame;
    size_t len = 3 * (size_t)BLOB_MIN_LEN;
    char *value = mem_must_zalloc(len);
    struct bytes keys[3] = {BYTES("a"), BYTES("blob"), BYTES("c")};
    struct bytes values[3] = {BYTES(""), bytes_of(value, len), BYTES("x")};
    segment_build_init(&b, &h1, 1000);
    segment_build_frame(&b, keys, values, 3);
    segment_build_frame(&b, keys + 1, values + 1, 1);
    segment_build_write(&b, sim_disk_io(d), ".");
    ck_assert_int_eq(log_dir_open(&dir, sim_disk_io(d), "."), DC_OK);
    ck_assert_int_eq(log_reader_open(&r, &dir, 0), DC_OK);
    ck_assert_int_eq(log_reader_next(r, &frame), LOG_MORE);
    ck_assert_uint_eq(frame.head.effect_count, 4);
    struct effect_view e;
    size_t at = FRAME_HEADER_LEN;
    for (int i = 0; i < 4; i++, at += e.len) {
        ck_assert(effect_decode(frame.bytes, frame.len, at, frame.lsn, &e));
        ck_assert(bytes_equal(e.key, keys[i % 3]));
        ck_assert(i == 3 ? e.kind == MUT_DEL : bytes_equal(e.data, values[i]));
    }
    ck_assert_uint_eq(at, frame.len);
    ck_assert_int_eq(log_reader_next(r, &frame), LOG_MORE);
    ck_assert_uint_eq(frame.lsn + frame.len, b.lsn);
    ck_assert_uint_eq(frame.history, 11);
    ck_assert_int_eq(log_reader_next(r, &frame), LOG_END);
    log_reader_close(r);
    log_dir_close(&dir);
    segment_build_fini(&b);
    mem_free(value);
    sim_disk_destroy(d);
}
END_TEST

/* Flips one byte of the file and reads: what comes must be the first frames of what was written, and the flip be noticed. */
static void flip_and_read(struct sim_disk *d, const struct segment_build *b, size_t at,
                          const char *keys) {
    struct found f;
    struct log_dir dir;
    uint64_t durable = get_u64(b->file.ptr + SEGMENT_MARK_AT);
    uint64_t flipped_lsn = at < SEGMENT_HEADER_LEN ? 0 : 1000 + (at - SEGMENT_HEADER_LEN);
    char path[80];
    snprintf(path, sizeof(path), "./%s", b->name);
    uint8_t bits = (uint8_t)(1 << at % 8);
    expect(sim_disk_flip(d, path, at, bits));
    expect(log_dir_open(&dir, sim_disk_io(d), ".") == DC_OK);
    expect_eq(dir.count, 1);
    read_dir(&f, &dir, 0);
    size_t len = strlen(f.keys.ptr);
    expect(strncmp(f.keys.ptr, keys, len) == 0);
    expect(len == 0 || keys[len] == ' ' || keys[len] == '\0');
    if (at >= SEGMENT_MARK_AT && at < SEGMENT_MARK_AT + SEGMENT_MARK_LEN) {
        expect(dir.segments[0].mark == MARK_DAMAGED);
        expect(f.how == LOG_END && len == strlen(keys));
    } else if (at < SEGMENT_HEADER_LEN) {
        expect(dir.segments[0].verdict != HEAD_OK);
        expect(f.how == LOG_DAMAGED && len == 0);
    } else if (flipped_lsn < durable) {
        expect(f.how == LOG_DAMAGED);
        expect(f.end.lsn <= flipped_lsn);
        expect_eq(f.end.frames_behind, f.frames < 5);
    } else {
        expect(f.how == LOG_TORN);
        expect(f.end.lsn <= flipped_lsn && f.end.lsn >= durable);
        expect(f.end.lsn + f.end.junk_len > flipped_lsn);
        expect_eq(f.end.frames_behind, f.frames < 5);
    }
    buf_fini(&f.keys);
    log_dir_close(&dir);
    expect(sim_disk_flip(d, path, at, bits));
}

START_TEST(every_flipped_byte_of_a_segment_is_noticed) {
    struct sim_disk *d = sim_disk_create();
    struct segment_build b;
    struct bytes keys[2] = {BYTES("five"), BYTES("and more")};
    struct bytes values[2] = {BYTES("5"), BYTES("of it")};
    segment_build_init(&b, &h1, 1000);
    segment_build_put(&b, "one", "1");
    segment_build_put(&b, "two", "");
    segment_build_put(&b, "three", "a longer value, so that a frame spans more than its header");
    segment_build_mark(&b, b.lsn);
    segment_build_put(&b, "four", "4");
    segment_build_frame(&b, keys, values, 2);
    segment_build_close(&b);
    segment_build_room(&b, b.file.len + 200);
    segment_build_write(&b, sim_disk_io(d), ".");
    for (size_t at = 0; at < b.file.len; at++) {
        flip_and_read(d, &b, at, "one two three four five CLOSE");
    }
    segment_build_fini(&b);
    sim_disk_destroy(d);
}
END_TEST

START_TEST(a_file_cut_anywhere_gives_whole_frames) {
    struct sim_disk *d = sim_disk_create();
    struct segment_build b;
    uint64_t ends[4] = {1000};
    segment_build_init(&b, &h1, 1000);
    for (int i = 1; i < 4; i++) {
        ends[i] = segment_build_put(&b, "key", "some value");
    }
    for (size_t len = 0; len <= b.file.len; len++) {
        struct found f;
        char path[80];
        snprintf(path, sizeof(path), "./%s", b.name);
        sim_disk_put(d, path, b.file.ptr, len);
        read_all(&f, sim_disk_io(d), 0);
        uint64_t have = len < SEGMENT_HEADER_LEN ? 0 : 1000 + (len - SEGMENT_HEADER_LEN);
        uint64_t whole = 0;
        while (whole < 3 && ends[whole + 1] <= have) {
            whole++;
        }
        expect_eq(f.frames, whole);
        bool no_header = len > 0 && len < SEGMENT_HEADER_USED;
        bool torn = have > ends[whole];
        expect_eq(f.how, no_header ? LOG_DAMAGED : torn ? LOG_TORN : LOG_END);
        expect_eq(f.end.lsn, whole > 0 ? ends[whole] : f.end.lsn);
        buf_fini(&f.keys);
    }
    segment_build_fini(&b);
    sim_disk_destroy(d);
}
END_TEST

/* H11: after a power cut a hole, then good frames. */
START_TEST(test_h11_a_hole_above_the_mark_is_torn_and_below_it_damage) {
    struct sim_disk *d = sim_disk_create();
    struct segment_build b;
    struct found f;
    segment_build_init(&b, &h1, 1000);
    uint64_t a = segment_build_put(&b, "a", "1");
    uint64_t hole = segment_build_put(&b, "hole", "x");
    segment_build_put(&b, "c", "3");
    segment_build_room(&b, 16384);
    memset(b.file.ptr + SEGMENT_HEADER_LEN + (a - 1000), 0, hole - a);
    segment_build_mark(&b, a);
    segment_build_write(&b, sim_disk_io(d), ".");
    read_all(&f, sim_disk_io(d), 0);
    ck_assert_str_eq(f.keys.ptr, "a");
    ck_assert_int_eq(f.how, LOG_TORN);
    ck_assert(f.end.frames_behind);
    ck_assert_uint_eq(f.end.lsn, a);
    ck_assert_uint_eq(f.end.junk_len, b.lsn - a);
    buf_fini(&f.keys);
    segment_build_mark(&b, hole);
    segment_build_write(&b, sim_disk_io(d), ".");
    expect_found(d, 0, "a", LOG_DAMAGED);
    expect_found(d, hole, "c", LOG_END);
    segment_build_fini(&b);
    sim_disk_destroy(d);
}
END_TEST

/* H6: an intact old record that begins where the log ends must not come back. */
START_TEST(test_h6_a_frame_of_another_history_or_place_is_no_frame) {
    struct sim_disk *d = sim_disk_create();
    struct segment_build b;
    struct segment_build other;
    struct history h2 = {.id = 22, .start = 1000, .epoch = 1, .parent_end = 500};
    segment_build_init(&b, &h1, 1000);
    uint64_t a = segment_build_put(&b, "a", "1");
    segment_build_init(&other, &h2, a);
    segment_build_put(&other, "old", "1");
    buf_append(&b.file, other.file.ptr + SEGMENT_HEADER_LEN, other.file.len - SEGMENT_HEADER_LEN);
    segment_build_write(&b, sim_disk_io(d), ".");
    expect_found(d, 0, "a", LOG_TORN);
    /* the same frame at another place */
    b.file.len = SEGMENT_HEADER_LEN + (size_t)(a - 1000);
    buf_append(&b.file, b.file.ptr + SEGMENT_HEADER_LEN, (size_t)(a - 1000));
    segment_build_write(&b, sim_disk_io(d), ".");
    expect_found(d, 0, "a", LOG_TORN);
    segment_build_fini(&other);
    segment_build_fini(&b);
    sim_disk_destroy(d);
}
END_TEST

START_TEST(a_reader_sees_what_is_appended_after_its_end) {
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    struct segment_build b;
    struct log_dir dir;
    struct log_reader *r;
    struct frame_ref frame;
    segment_build_init(&b, &h1, 1000);
    segment_build_put(&b, "a", "1");
    segment_build_write(&b, io, ".");
    char path[80];
    snprintf(path, sizeof(path), "./%s", b.name);
    ck_assert_int_eq(log_dir_open(&dir, io, "."), DC_OK);
    ck_assert_int_eq(log_reader_open(&r, &dir, 0), DC_OK);
    ck_assert_int_eq(log_reader_next(r, &frame), LOG_MORE);
    ck_assert_int_eq(log_reader_next(r, &frame), LOG_END);
    for (int i = 0; i < 20; i++) {
        segment_build_put(&b, "more", "2");
        segment_build_put(&b, "and more", "2");
        sim_disk_put(d, path, b.file.ptr, b.file.len - 3); /* half written */
        ck_assert_int_eq(log_reader_next(r, &frame), LOG_MORE);
        ck_assert_int_eq(log_reader_next(r, &frame), LOG_TORN);
        sim_disk_put(d, path, b.file.ptr, b.file.len);
        ck_assert_int_eq(log_reader_next(r, &frame), LOG_MORE);
        ck_assert_uint_eq(frame.lsn + frame.len, b.lsn);
        ck_assert_int_eq(log_reader_next(r, &frame), LOG_END);
    }
    log_reader_close(r);
    log_dir_close(&dir);
    segment_build_fini(&b);
    sim_disk_destroy(d);
}
END_TEST

/* --- many segments ----------------------------------------------------------------------------------- */

struct pair {
    struct sim_disk *disk;
    struct segment_build a;
    struct segment_build b;
};

/* a1 a2 | b1 b2, the second segment begins where the first one's frames end. */
static void pair_init(struct pair *p, uint64_t overlap_from) {
    p->disk = sim_disk_create();
    segment_build_init(&p->a, &h1, 1000);
    uint64_t first = segment_build_put(&p->a, "a1", "1");
    segment_build_put(&p->a, "a2", "2");
    segment_build_init(&p->b, &h1, overlap_from == 1 ? first : p->a.lsn);
    segment_build_put(&p->b, "b1", "1");
    segment_build_put(&p->b, "b2", "2");
}

static void pair_write(struct pair *p) {
    segment_build_write(&p->a, sim_disk_io(p->disk), ".");
    segment_build_write(&p->b, sim_disk_io(p->disk), ".");
}

static void pair_fini(struct pair *p) {
    segment_build_fini(&p->a);
    segment_build_fini(&p->b);
    sim_disk_destroy(p->disk);
}

START_TEST(a_segment_goes_on_where_the_one_before_ends) {
    struct pair p;
    pair_init(&p, 0);
    segment_build_room(&p.a, 20000);
    pair_write(&p);
    expect_found(p.disk, 0, "a1 a2 b1 b2", LOG_END);
    expect_found(p.disk, p.b.head.first_lsn, "b1 b2", LOG_END);
    pair_fini(&p);
}
END_TEST

/* H12: after a failed fdatasync a new segment begins inside of the old one. */
START_TEST(test_h12_a_segment_begun_anew_supersedes) {
    struct pair p;
    pair_init(&p, 1);
    pair_write(&p);
    expect_found(p.disk, 0, "a1 b1 b2", LOG_END);
    pair_fini(&p);
    /* It was begun, but nothing got into it: the old one still counts. */
    pair_init(&p, 1);
    p.b.file.len = SEGMENT_HEADER_LEN;
    segment_build_room(&p.b, 9000);
    pair_write(&p);
    expect_found(p.disk, 0, "a1 a2", LOG_END);
    pair_fini(&p);
}
END_TEST

/* Rotated, and then the sync of what stands before the rotation fails: the new segment covers both. */
START_TEST(a_segment_begun_anew_may_cover_several) {
    struct pair p;
    struct segment_build c;
    pair_init(&p, 0);
    segment_build_room(&p.a, 9000);
    uint64_t a1_end = 1000 + (p.a.lsn - 1000) / 2;
    segment_build_init(&c, &h1, a1_end);
    segment_build_put(&c, "a2", "2");
    segment_build_put(&c, "b1", "1");
    segment_build_put(&c, "b2", "2");
    segment_build_put(&c, "c1", "3");
    memset(p.a.file.ptr + SEGMENT_HEADER_LEN + (a1_end - 1000), 0, 30); /* lost */
    pair_write(&p);
    segment_build_write(&c, sim_disk_io(p.disk), ".");
    expect_found(p.disk, 0, "a1 a2 b1 b2 c1", LOG_END);
    segment_build_fini(&c);
    pair_fini(&p);
}
END_TEST

START_TEST(a_missing_segment_is_noticed) {
    struct pair p;
    struct segment_build c;
    struct found f;
    pair_init(&p, 0);
    segment_build_init(&c, &h1, p.b.lsn);
    segment_build_put(&c, "c1", "1");
    pair_write(&p);
    segment_build_write(&c, sim_disk_io(p.disk), ".");
    expect_found(p.disk, 0, "a1 a2 b1 b2 c1", LOG_END);
    char path[80];
    snprintf(path, sizeof(path), "./%s", p.b.name);
    const struct io *io = sim_disk_io(p.disk);
    ck_assert_int_eq(io->unlink(io, path), 0);
    /* Both may have been written since the last sync: then a power cut may take one of them. */
    read_all(&f, io, 0);
    ck_assert_str_eq(f.keys.ptr, "a1 a2");
    ck_assert_int_eq(f.how, LOG_TORN);
    ck_assert(f.end.frames_behind);
    buf_fini(&f.keys);
    segment_build_mark(&c, c.lsn);
    segment_build_write(&c, io, ".");
    read_all(&f, io, 0);
    ck_assert_str_eq(f.keys.ptr, "a1 a2");
    ck_assert_int_eq(f.how, LOG_DAMAGED);
    ck_assert(strstr(f.end.text, "missing") != NULL);
    ck_assert(f.joins);
    buf_fini(&f.keys);
    /* Asked for what stands in the missing one: the next, and it doesn't join. */
    read_all(&f, io, p.b.head.first_lsn + 10);
    ck_assert_str_eq(f.keys.ptr, "c1");
    ck_assert(!f.joins);
    buf_fini(&f.keys);
    read_all(&f, io, c.head.first_lsn);
    ck_assert(f.joins);
    buf_fini(&f.keys);
    segment_build_fini(&c);
    pair_fini(&p);
}
END_TEST

START_TEST(the_mark_of_a_later_segment_counts_for_earlier_ones) {
    struct pair p;
    pair_init(&p, 0);
    p.a.file.ptr[p.a.file.len - 1] ^= 1; /* in a2 */
    pair_write(&p);
    expect_found(p.disk, 0, "a1", LOG_TORN);
    segment_build_mark(&p.b, p.b.head.first_lsn); /* says nothing */
    pair_write(&p);
    expect_found(p.disk, 0, "a1", LOG_TORN);
    segment_build_mark(&p.b, p.b.lsn);
    pair_write(&p);
    expect_found(p.disk, 0, "a1", LOG_DAMAGED);
    pair_fini(&p);
}
END_TEST

START_TEST(a_damaged_header_is_damage_and_a_blank_one_is_not) {
    struct pair p;
    pair_init(&p, 0);
    p.b.file.ptr[20] ^= 1;
    pair_write(&p);
    expect_found(p.disk, 0, "a1 a2", LOG_DAMAGED);
    put_u32(p.b.file.ptr + 8, 9); /* another version, a wrong sum */
    pair_write(&p);
    expect_found(p.disk, 0, "a1 a2", LOG_DAMAGED);
    /* Its first page never reached the disk; what it holds wasn't durable. */
    memset(p.b.file.ptr, 0, SEGMENT_HEADER_LEN);
    pair_write(&p);
    expect_found(p.disk, 0, "a1 a2", LOG_TORN);
    segment_build_mark(&p.b, p.b.head.first_lsn);
    pair_write(&p);
    expect_found(p.disk, 0, "a1 a2", LOG_TORN);
    segment_build_mark(&p.b, p.b.lsn); /* it was durable after all */
    pair_write(&p);
    expect_found(p.disk, 0, "a1 a2", LOG_DAMAGED);
    memset(p.b.file.ptr, 0, p.b.file.len);
    pair_write(&p);
    expect_found(p.disk, 0, "a1 a2", LOG_END);
    p.b.file.len = 100;
    pair_write(&p);
    expect_found(p.disk, 0, "a1 a2", LOG_END);
    p.b.file.len = 0;
    pair_write(&p);
    expect_found(p.disk, 0, "a1 a2", LOG_END);
    pair_fini(&p);
}
END_TEST

START_TEST(a_renamed_segment_is_noticed) {
    struct pair p;
    pair_init(&p, 0);
    pair_write(&p);
    const struct io *io = sim_disk_io(p.disk);
    char from[80];
    char to[80];
    char name[SEGMENT_NAME_MAX];
    segment_name(p.b.head.first_lsn + 5, h1.id, name);
    snprintf(from, sizeof(from), "./%s", p.b.name);
    snprintf(to, sizeof(to), "./%s", name);
    ck_assert_int_eq(io->rename(io, from, to), 0);
    expect_found(p.disk, 0, "a1 a2", LOG_DAMAGED);
    /* Alone, and asked for by its path, it is read whatever its name. */
    struct log_dir one;
    struct found f;
    ck_assert_int_eq(log_dir_open_file(&one, io, to), DC_OK);
    read_dir(&f, &one, 0);
    ck_assert_str_eq(f.keys.ptr, "b1 b2");
    ck_assert_int_eq(f.how, LOG_END);
    buf_fini(&f.keys);
    log_dir_close(&one);
    ck_assert_int_eq(log_dir_open_file(&one, io, "./nothing"), DC_EIO);
    pair_fini(&p);
}
END_TEST

/* --- a disk that fails ------------------------------------------------------------------------------- */

START_TEST(a_disk_that_fails_is_told_from_a_bad_log) {
    struct pair p;
    struct log_dir d;
    struct log_reader *r;
    struct frame_ref frame;
    static const enum sim_call opening[] = {SIM_LIST, SIM_OPEN, SIM_SIZE, SIM_READ};
    static const enum sim_call reading[] = {SIM_OPEN, SIM_SIZE, SIM_MAP};
    pair_init(&p, 0);
    pair_write(&p);
    for (int i = 0; i < 4; i++) {
        sim_disk_fail(p.disk, opening[i], 1, 1, EIO);
        ck_assert_int_eq(log_dir_open(&d, sim_disk_io(p.disk), "."), DC_EIO);
        ck_assert_uint_gt(strlen(dc_fail_take(DC_EIO)), 0);
    }
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(log_dir_open(&d, sim_disk_io(p.disk), "."), DC_OK);
        ck_assert_int_eq(log_reader_open(&r, &d, 0), DC_OK);
        ck_assert_int_eq(log_reader_next(r, &frame), LOG_MORE);
        ck_assert_int_eq(log_reader_next(r, &frame), LOG_MORE);
        sim_disk_fail(p.disk, reading[i], 1, 1, EIO);
        ck_assert_int_eq(log_reader_next(r, &frame), LOG_FAILED);
        ck_assert_uint_gt(strlen(dc_fail_take(DC_EIO)), 0);
        ck_assert_int_eq(log_reader_next(r, &frame), LOG_MORE); /* it works again */
        log_reader_close(r);
        log_dir_close(&d);
    }
    pair_fini(&p);
}
END_TEST

/* Wherever it is, what is behind it isn't taken for the end of the log, or for a torn tail, which would be cut. */
START_TEST(a_part_that_cannot_be_read_is_no_end) {
    struct pair p;
    struct found f;
    char first[80], second[80];
    pair_init(&p, 0);
    segment_build_room(&p.a, 16384);
    segment_build_room(&p.b, 16384);
    pair_write(&p);
    snprintf(first, sizeof(first), "./%s", p.a.name);
    snprintf(second, sizeof(second), "./%s", p.b.name);
    const uint64_t places[] = {SEGMENT_HEADER_LEN, SEGMENT_HEADER_LEN + 60, 12288};
    for (int i = 0; i < 6; i++) {
        const char *path = i < 3 ? first : second;
        sim_disk_lose(p.disk, path, places[i % 3], 4096);
        struct log_dir d;
        enum dc_err err = log_dir_open(&d, sim_disk_io(p.disk), ".");
        if (err == DC_OK) {
            read_dir(&f, &d, 0);
            ck_assert_int_eq(f.how, LOG_FAILED);
            ck_assert_ptr_nonnull(strstr(dc_fail_take(DC_EIO), "can't be read"));
            buf_fini(&f.keys);
            log_dir_close(&d);
        }
        expect(err == DC_OK || err == DC_EIO);
        sim_disk_lose(p.disk, path, 0, 0);
    }
    expect_found(p.disk, 0, "a1 a2 b1 b2", LOG_END);
    pair_fini(&p);
}
END_TEST

/* The same on a real disk: a start cuts a torn tail while another process reads. */
START_TEST(a_file_that_is_cut_while_it_is_read_ends_where_it_was_cut) {
    char path[] = "/tmp/dcache-test-XXXXXX", file[128];
    struct segment_build b;
    struct log_dir d;
    struct log_reader *r;
    struct frame_ref frame;
    ck_assert_ptr_nonnull(mkdtemp(path));
    io_catch_faults();
    segment_build_init(&b, &h1, 1000);
    segment_build_put(&b, "a", "1");
    segment_build_put(&b, "b", "2");
    uint64_t len = b.file.len;
    segment_build_room(&b, 1 << 20);
    segment_build_write(&b, &io_posix, path);
    ck_assert_int_eq(log_dir_open(&d, &io_posix, path), DC_OK);
    ck_assert_int_eq(log_reader_open(&r, &d, 0), DC_OK);
    ck_assert_int_eq(log_reader_next(r, &frame), LOG_MORE);
    snprintf(file, sizeof(file), "%s/%s", path, b.name);
    ck_assert_int_eq(truncate(file, (off_t)len), 0);
    ck_assert_int_eq(log_reader_next(r, &frame), LOG_MORE);
    ck_assert_int_eq(log_reader_next(r, &frame), LOG_END);
    log_reader_close(r);
    log_dir_close(&d);
    segment_build_fini(&b);
    unlink(file);
    rmdir(path);
}
END_TEST

CHECK_MAIN("log_reader", frames_come_in_order_and_then_the_end, frames_of_any_size_are_read_whole,
           every_flipped_byte_of_a_segment_is_noticed, a_file_cut_anywhere_gives_whole_frames,
           test_h11_a_hole_above_the_mark_is_torn_and_below_it_damage,
           test_h6_a_frame_of_another_history_or_place_is_no_frame,
           a_reader_sees_what_is_appended_after_its_end,
           a_segment_goes_on_where_the_one_before_ends, test_h12_a_segment_begun_anew_supersedes,
           a_segment_begun_anew_may_cover_several, a_missing_segment_is_noticed,
           the_mark_of_a_later_segment_counts_for_earlier_ones,
           a_damaged_header_is_damage_and_a_blank_one_is_not, a_renamed_segment_is_noticed,
           a_disk_that_fails_is_told_from_a_bad_log, a_part_that_cannot_be_read_is_no_end,
           a_file_that_is_cut_while_it_is_read_ends_where_it_was_cut)
