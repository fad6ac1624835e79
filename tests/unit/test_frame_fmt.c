/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/frame_fmt.h"
#include "server/base/buf.h"
#include "server/base/codec.h"
#include "server/base/mem.h"
#include "server/base/sum.h"
#include "tests/support/check_main.h"
#include "tests/support/engine.h"
#include "tests/support/expect.h"

#include <string.h>

enum { HISTORY = 0x77, FIRST = 5000, EFFECTS_MAX = 64 };

/* An effect as the commands made it. */
struct made {
    enum mut_kind kind;
    enum value_kind value_kind;
    uint32_t keyspace;
    int64_t expiry_ms;
    uint64_t prev, offset, version;
    struct buf key, data;
};

/* The frames of an engine, and what they should hold. */
static struct engine engine;
static struct hand hand;
static struct buf frames; /* one behind the other, from FIRST on */
static uint64_t starts[EFFECTS_MAX + 1];
static uint32_t frame_count;
static struct made made[EFFECTS_MAX];
static uint32_t made_count;

static void note_value(struct made *to, const struct value *v) {
    char number[8];
    switch (v->kind) {
    case VALUE_STR:
    case VALUE_RAW:
        buf_append_bytes(&to->data, v->str);
        return;
    case VALUE_INT:
        put_u64(number, (uint64_t)v->num);
        buf_append(&to->data, number, sizeof(number));
        return;
    case VALUE_BLOB:
        buf_append(&to->data, v->blob->data, v->blob->len);
        return;
    }
}

static void note(const struct effect *e) {
    expect(made_count < EFFECTS_MAX);
    struct made *to = &made[made_count++];
    *to = (struct made){.kind = e->kind,
                        .keyspace = e->ks != NULL ? keyspace_id(e->ks) : 0,
                        .expiry_ms = EXPIRY_NONE,
                        .version = e->version};
    buf_init(&to->key, 0);
    buf_init(&to->data, 0);
    buf_append_bytes(&to->key, e->key.name);
    if (e->kind == MUT_PUT) {
        to->value_kind = e->value.kind;
        note_value(to, &e->value);
    }
    if (e->kind == MUT_PUT || e->kind == MUT_EXPIRE) {
        to->expiry_ms = e->expiry_ms;
    }
    if (e->kind == MUT_WRITE) {
        to->offset = e->offset;
        buf_append_bytes(&to->data, e->bytes);
    }
    if (e->kind == MUT_WRITE || e->kind == MUT_EXPIRE) {
        to->prev = e->prev;
    }
}

static void append_spliced(const char *text, size_t len, const struct frame_blob *blobs,
                           uint32_t count) {
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        buf_append(&frames, text + at, blobs[i].at - at);
        buf_append(&frames, blobs[i].blob->data, blobs[i].blob->len);
        at = blobs[i].at;
    }
    buf_append(&frames, text + at, len - at);
}

static void commit(void *arg, struct mut *m) {
    uint64_t lsn = FIRST + frames.len;
    const struct mut_frame *size = frame_measure(m);
    size_t inline_len = (size_t)size->inline_len;
    uint32_t blob_count = size->blobs;
    char *text = mem_must_alloc(inline_len); /* exactly: a sanitizer sees who writes behind it */
    struct frame_blob *blobs = mem_must_alloc((blob_count + 1) * sizeof(*blobs));
    (void)arg;
    expect_eq(frame_assign(m, lsn), size->len);
    uint64_t last = m->effects[m->count - 1].version;
    expect_eq(frame_encode(m, HISTORY, lsn, text, blobs), blob_count);
    expect_eq(m->effects[m->count - 1].version, last);
    for (uint32_t i = 0; i < m->count; i++) {
        note(&m->effects[i]);
    }
    starts[frame_count++] = lsn;
    append_spliced(text, inline_len, blobs, blob_count);
    expect_eq(FIRST + frames.len, lsn + size->len);
    starts[frame_count] = FIRST + frames.len;
    mem_free(blobs);
    mem_free(text);
    mut_commit(m);
}

static void open_engine(void) {
    engine_init(&engine, NULL);
    hand_init(&hand, &engine, 1);
    engine.commit = commit;
    buf_init(&frames, 0);
    frame_count = 0;
    made_count = 0;
}

static void close_engine(void) {
    for (uint32_t i = 0; i < made_count; i++) {
        buf_fini(&made[i].key);
        buf_fini(&made[i].data);
    }
    buf_fini(&frames);
    hand_fini(&hand);
    engine_fini(&engine);
}

static struct bytes text(const char *s) {
    return bytes_of(s, strlen(s));
}

static void must(enum dc_err err) {
    expect_eq(err, DC_OK);
}

static void set_blob(const char *key, size_t len, int64_t expiry_ms) {
    char *value = mem_must_alloc(len);
    for (size_t i = 0; i < len; i++) {
        value[i] = (char)(i * 7 + i / 256);
    }
    must(hand_set(&hand, 0, text(key), bytes_of(value, len), expiry_ms));
    mem_free(value);
}

/* Every kind of effect and of value. */
static void make_frames(void) {
    bool existed;
    int64_t sum;
    must(hand_set(&hand, 0, text("plain"), text("value"), EXPIRY_NONE));
    must(hand_set(&hand, 3, text("expiring"), text("v"), ENGINE_NOW_MS + 5000));
    must(hand_set(&hand, 0, text(""), text(""), EXPIRY_NONE));
    must(hand_incr(&hand, 0, text("counter"), -17, &sum));
    must(hand_expire(&hand, 3, text("expiring"), ENGINE_NOW_MS + 9000, &existed));
    must(hand_expire(&hand, 3, text("expiring"), EXPIRY_NONE, &existed));
    must(hand_write(&hand, 0, text("plain"), 100, text("far")));
    must(hand_append(&hand, 0, text("fresh"), text("piece")));
    must(hand_del(&hand, 0, text("plain"), &existed));
    must(hand_flush(&hand, 3));
    hand_frame_begin(&hand);
    must(hand_set(&hand, 1, text("in"), text("exec"), EXPIRY_NONE));
    must(hand_append(&hand, 1, text("in"), text("+")));
    must(hand_del(&hand, 0, text("counter"), &existed));
    must(hand_flush(&hand, 2));
    must(hand_set(&hand, 2, text("last"), text("1234567"), ENGINE_NOW_MS + 1));
    hand_frame_end(&hand);
}

static void check_effect(const struct effect_view *e, const struct made *m) {
    expect_eq(e->kind, m->kind);
    expect_eq(e->keyspace, m->keyspace);
    expect_eq(e->version, m->version);
    expect_eq(e->expiry_ms, m->expiry_ms);
    expect_eq(e->has_expiry, m->expiry_ms != EXPIRY_NONE);
    expect_eq(e->prev, m->prev);
    expect_eq(e->offset, m->offset);
    expect_eq(e->value_kind, m->value_kind);
    expect(bytes_equal(e->key, buf_bytes(&m->key)));
    expect(bytes_equal(e->data, buf_bytes(&m->data)));
}

static uint32_t check_effects(const char *frame, size_t len, const struct frame_head *h,
                              uint64_t lsn, const struct made *want) {
    size_t at = FRAME_HEADER_LEN;
    for (uint32_t k = 0; k < h->effect_count; k++) {
        struct effect_view e;
        expect(effect_decode(frame, len, at, lsn, &e));
        expect_eq(e.at, at);
        check_effect(&e, &want[k]);
        at += e.len;
    }
    expect_eq(at, len);
    return h->effect_count;
}

static void check_frames(void) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < frame_count; i++) {
        const char *frame = frames.ptr + (starts[i] - FIRST);
        size_t len = (size_t)(starts[i + 1] - starts[i]);
        struct frame_head h;
        expect_eq(frame_check_head(frame, FRAME_HEADER_LEN, HISTORY, starts[i], &h), FRAME_OK);
        expect_eq(frame_len_at(frame), len);
        expect_eq(frame_check(frame, len, HISTORY, starts[i], &h), FRAME_OK);
        expect_eq(h.kind, FRAME_MUTATION);
        expect_eq(h.body_len + FRAME_HEADER_LEN, len);
        expect_eq(h.time_ms, ENGINE_NOW_MS);
        n += check_effects(frame, len, &h, starts[i], &made[n]);
    }
    expect_eq(n, made_count);
}

START_TEST(every_effect_comes_back) {
    open_engine();
    make_frames();
    expect(made_count >= 15);
    check_frames();
    close_engine();
}
END_TEST

START_TEST(blobs_are_named_not_copied) {
    open_engine();
    char *big = mem_must_zalloc(2 * BLOB_MIN_LEN);
    struct bytes keys[] = {text("a"), text("b"), text("c"), text("d")};
    struct bytes values[] = {text("first"), bytes_of(big, BLOB_MIN_LEN),
                             bytes_of(big, 2 * BLOB_MIN_LEN), text("last")};
    set_blob("alone", BLOB_MIN_LEN, EXPIRY_NONE);
    set_blob("expiring", BLOB_MIN_LEN + 1, ENGINE_NOW_MS + 77);
    must(hand_set_many(&hand, 4, keys, values, 4)); /* neighbours, and effects around them */
    must(hand_set_many(&hand, 4, keys, values, 3)); /* a blob at the end */
    check_frames();
    expect_eq(made[2].value_kind, VALUE_STR);
    expect_eq(made[3].value_kind, VALUE_BLOB);
    mem_free(big);
    close_engine();
}
END_TEST

/* The table of frame_fmt.h. */
START_TEST(the_bytes_stand_where_the_format_says) {
    open_engine();
    must(hand_set(&hand, 3, text("key"), text("value"), ENGINE_NOW_MS + 5));
    const char *f = frames.ptr;
    uint64_t seed = sum_seed(HISTORY, FIRST);
    expect_eq(frames.len, 24 + 8 + 8 + 3 + 5);
    expect_eq(get_u32(f), (uint32_t)sum64(f + 4, 20, seed));
    expect_eq(get_u32(f + 4), (uint32_t)sum64(f + 24, 24, seed));
    ck_assert_mem_eq(f + 8, "\30\0\0\0\0\0\0\1", 8);
    expect_eq(get_u64(f + 16), ENGINE_NOW_MS);
    ck_assert_mem_eq(f + 24, "\1\10\3\0\3\0\5\0", 8);
    expect_eq(get_u64(f + 32), ENGINE_NOW_MS + 5);
    ck_assert_mem_eq(f + 40, "keyvalue", 8);
    expect_eq(made[0].version, FIRST + 48);
    close_engine();
}
END_TEST

/* --- damage ------------------------------------------------------------------------------------------ */

/* 'frame' is a copy of its own, of exactly this length. */
static void check_flips(char *frame, size_t len, uint64_t history, uint64_t lsn, uint8_t bits) {
    struct frame_head h;
    for (size_t i = 0; i < len; i++) {
        frame[i] = (char)((uint8_t)frame[i] ^ bits);
        enum frame_verdict verdict = frame_check(frame, len, history, lsn, &h);
        ck_assert_msg(verdict == (i < FRAME_HEADER_LEN ? FRAME_BAD_HEAD : FRAME_BAD_BODY),
                      "byte %zu of %zu flipped by %#x: %d", i, len, bits, verdict);
        frame[i] = (char)((uint8_t)frame[i] ^ bits);
    }
    expect_eq(frame_check(frame, len, history, lsn, &h), FRAME_OK);
}

static void check_cuts(const char *frame, size_t len, uint64_t lsn, size_t step) {
    struct frame_head h;
    for (size_t i = 0; i < len; i += step) {
        char *cut = mem_must_alloc(i + 1);
        char *at_end = cut + 1; /* the sanitizer watches the end */
        memcpy(at_end, frame, i);
        enum frame_verdict verdict = frame_check(at_end, i, HISTORY, lsn, &h);
        ck_assert_msg(verdict == FRAME_SHORT, "%zu of %zu bytes: %d", i, len, verdict);
        mem_free(cut);
    }
}

START_TEST(every_flipped_byte_is_found) {
    open_engine();
    make_frames();
    for (uint32_t i = 0; i < frame_count; i++) {
        for (uint32_t bit = 0; bit < 8; bit++) {
            check_flips(frames.ptr + (starts[i] - FIRST), (size_t)(starts[i + 1] - starts[i]),
                        HISTORY, starts[i], (uint8_t)(1u << bit));
        }
    }
    close_engine();
}
END_TEST

START_TEST(every_flipped_byte_of_a_blob_is_found) {
    open_engine();
    set_blob("blob", BLOB_MIN_LEN, EXPIRY_NONE);
    check_flips(frames.ptr, frames.len, HISTORY, FIRST, TEST_SANITIZED ? 0x80 : 0x01);
    close_engine();
}
END_TEST

START_TEST(a_frame_that_is_cut_is_short) {
    open_engine();
    make_frames();
    set_blob("blob", BLOB_MIN_LEN, EXPIRY_NONE);
    for (uint32_t i = 0; i < frame_count; i++) {
        size_t len = (size_t)(starts[i + 1] - starts[i]);
        check_cuts(frames.ptr + (starts[i] - FIRST), len, starts[i], len > 1000 ? 997 : 1);
    }
    close_engine();
}
END_TEST

START_TEST(a_frame_is_valid_at_its_place_only) {
    struct frame_head h;
    open_engine();
    make_frames();
    const char *second = frames.ptr + (starts[1] - FIRST);
    size_t len = (size_t)(starts[2] - starts[1]);
    expect_eq(frame_check(second, len, HISTORY, starts[1], &h), FRAME_OK);
    expect_eq(frame_check(second, len, HISTORY, starts[1] + 1, &h), FRAME_BAD_HEAD);
    expect_eq(frame_check(second, len, HISTORY, starts[0], &h), FRAME_BAD_HEAD);
    expect_eq(frame_check(second, len, HISTORY + 1, starts[1], &h), FRAME_BAD_HEAD);
    close_engine();
}
END_TEST

/* --- malformed, with right sums ---------------------------------------------------------------------- */

/* For frames without blobs. */
static void mend(char *frame, size_t len, uint64_t lsn) {
    uint64_t seed = sum_seed(HISTORY, lsn);
    put_u32(frame + 4, (uint32_t)sum64(frame + FRAME_HEADER_LEN, len - FRAME_HEADER_LEN, seed));
    put_u32(frame, (uint32_t)sum64(frame + 4, FRAME_HEADER_LEN - 4, seed));
}

/* The kind stands in the same word. */
static void put_body_len(char *frame, size_t len) {
    char kind = frame[15];
    put_u64(frame + 8, len - FRAME_HEADER_LEN);
    frame[15] = kind;
}

enum { EXPIRY = 8, PREV = 16, OFFSET = 32, LONG = 64 };

/* The frame of one effect: kind, flags, lengths of key and data, and so many bytes behind its header. */
static enum frame_verdict check_shape(uint8_t kind, uint8_t flags, uint32_t key_len,
                                      uint64_t data_len, size_t rest) {
    struct frame_head h;
    bool is_long = (flags & LONG) != 0;
    size_t len = FRAME_HEADER_LEN + EFFECT_HEADER_LEN + (is_long ? EFFECT_LONG_LEN : 0) + rest;
    char *frame = mem_must_zalloc(len);
    put_body_len(frame, len);
    frame[15] = FRAME_MUTATION;
    frame[24] = (char)kind;
    frame[25] = (char)flags;
    put_u16(frame + 28, is_long ? 0 : (uint16_t)key_len);
    put_u16(frame + 30, is_long ? 0 : (uint16_t)data_len);
    if (is_long) {
        put_u32(frame + 32, key_len);
        put_u64(frame + 36, data_len);
    }
    mend(frame, len, FIRST);
    enum frame_verdict verdict = frame_check(frame, len, HISTORY, FIRST, &h);
    mem_free(frame);
    return verdict;
}

START_TEST(shapes_that_no_command_makes_are_refused) {
    expect_eq(check_shape(MUT_PUT, VALUE_STR, 3, 5, 8), FRAME_OK);
    expect_eq(check_shape(MUT_PUT, VALUE_STR | LONG, 3, 65536, 65539), FRAME_OK);
    expect_eq(check_shape(MUT_DEL, LONG, 65536, 0, 65536), FRAME_OK);
    expect_eq(check_shape(MUT_PUT, VALUE_INT | EXPIRY, 3, 8, 19), FRAME_OK);
    expect_eq(check_shape(MUT_EXPIRE, PREV, 3, 0, 11), FRAME_OK);
    expect_eq(check_shape(MUT_WRITE, PREV | OFFSET, 3, 2, 21), FRAME_OK);
    expect_eq(check_shape(MUT_DEL, 0, 3, 0, 3), FRAME_OK);
    expect_eq(check_shape(MUT_FLUSH, 0, 0, 0, 0), FRAME_OK);
    /* kinds */
    expect_eq(check_shape(0, 0, 3, 0, 3), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_FLUSH + 1, 0, 3, 0, 3), FRAME_BAD_BODY);
    expect_eq(check_shape(255, 0, 3, 0, 3), FRAME_BAD_BODY);
    /* flags */
    expect_eq(check_shape(MUT_PUT, VALUE_BLOB + 1, 3, 5, 8), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_PUT, PREV, 3, 5, 16), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_PUT, LONG, 3, 5, 8), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_PUT, 128, 3, 5, 8), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_EXPIRE, 0, 3, 0, 3), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_EXPIRE, PREV | 1, 3, 0, 11), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_WRITE, PREV, 3, 2, 13), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_WRITE, PREV | OFFSET | EXPIRY, 3, 2, 29), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_DEL, EXPIRY, 3, 0, 11), FRAME_BAD_BODY);
    /* lengths */
    expect_eq(check_shape(MUT_PUT, VALUE_INT, 3, 7, 10), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_EXPIRE, PREV, 3, 1, 12), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_DEL, 0, 3, 1, 4), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_FLUSH, 0, 1, 0, 1), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_PUT, VALUE_STR, 3, 5, 7), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_PUT, VALUE_STR, 3, 5, 9), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_PUT, VALUE_STR | LONG, UINT32_MAX, 0, 8), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_PUT, VALUE_STR | LONG, 3, UINT64_MAX, 8), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_PUT, VALUE_STR | LONG, 3, UINT64_MAX - 2, 8), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_PUT, VALUE_BLOB, 3, 5, 16), FRAME_BAD_BODY); /* its sum is 0 */
    expect_eq(check_shape(MUT_PUT, VALUE_STR | LONG, 3, 65535, 65538), FRAME_BAD_BODY);
    expect_eq(check_shape(MUT_PUT, VALUE_STR | LONG, 3, 65536, 65538), FRAME_BAD_BODY);
}
END_TEST

START_TEST(heads_that_nobody_writes_are_refused) {
    struct frame_head h;
    struct {
        size_t at;
        char value;
    } const bad[] = {
        {8, 7},                                                /* a mutation without effects */
        {15, 0}, {15, 4}, {15, FRAME_FORK}, {15, FRAME_CLOSE}, /* with effects */
    };
    open_engine();
    must(hand_set(&hand, 0, text("key"), text("value"), EXPIRY_NONE));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char before = frames.ptr[bad[i].at];
        frames.ptr[bad[i].at] = bad[i].value;
        mend(frames.ptr, frames.len, FIRST);
        expect_eq(frame_check(frames.ptr, frames.len, HISTORY, FIRST, &h), FRAME_BAD_HEAD);
        frames.ptr[bad[i].at] = before;
    }
    close_engine();
}
END_TEST

static void expect_decodable(const char *frame, size_t len, uint64_t lsn,
                             const struct frame_head *h) {
    size_t at = FRAME_HEADER_LEN;
    struct effect_view e;
    for (uint32_t k = 0; k < h->effect_count; k++, at += e.len) {
        expect(effect_decode(frame, len, at, lsn, &e));
    }
    expect(h->kind != FRAME_MUTATION || at == len);
}

/* What random changes leave with right sums is refused, or can be decoded to the last byte. */
START_TEST(random_changes_with_right_sums_do_no_harm) {
    struct rng rng = test_rng();
    uint32_t accepted = 0;
    open_engine();
    make_frames();
    for (uint32_t i = 0; i < 200000; i++) {
        uint32_t n = (uint32_t)rng_below(&rng, frame_count);
        size_t len = (size_t)(starts[n + 1] - starts[n]);
        char *frame = mem_must_alloc(len);
        struct frame_head h;
        memcpy(frame, frames.ptr + (starts[n] - FIRST), len);
        for (uint64_t k = rng_below(&rng, 4); k-- > 0;) {
            frame[4 + rng_below(&rng, len - 4)] = (char)rng_below(&rng, 256);
        }
        put_body_len(frame, len);
        mend(frame, len, starts[n]);
        if (frame_check(frame, len, HISTORY, starts[n], &h) == FRAME_OK) {
            expect_decodable(frame, len, starts[n], &h);
            accepted++;
        }
        mem_free(frame);
    }
    expect(accepted > 1000);
    close_engine();
}
END_TEST

/* --- FORK and CLOSE ---------------------------------------------------------------------------------- */

START_TEST(a_chain_of_histories_comes_back) {
    const struct history chain[] = {{1, 1000, 1, 0}, {2, 9000, 2, 8000}, {3, 90000, 7, 80000}};
    struct history got[3];
    struct frame_head h;
    struct buf b;
    buf_init(&b, 0);
    frame_encode_fork(&b, 90000, -5, chain, 3);
    expect_eq(b.len, FRAME_HEADER_LEN + 8 + 3 * 32);
    expect_eq(frame_check(b.ptr, b.len, 3, 90000, &h),
              FRAME_OK); /* of the history that it starts */
    expect_eq(h.kind, FRAME_FORK);
    expect_eq(h.time_ms, -5);
    expect_eq(h.effect_count, 0);
    struct bytes body = bytes_of(b.ptr + FRAME_HEADER_LEN, b.len - FRAME_HEADER_LEN);
    expect_eq(fork_decode(body, got, 3), 3);
    for (int i = 0; i < 3; i++) {
        expect_eq(got[i].id, chain[i].id);
        expect_eq(got[i].start, chain[i].start);
        expect_eq(got[i].epoch, chain[i].epoch);
        expect_eq(got[i].parent_end, chain[i].parent_end);
    }
    expect_eq(fork_decode(body, got, 2), 0); /* no room */
    expect_eq(fork_decode(bytes_of(body.ptr, body.len - 1), got, 3), 0);
    expect_eq(fork_decode(bytes_of(body.ptr, 7), got, 3), 0);
    expect_eq(fork_decode(bytes_of("\0\0\0\0\0\0\0\0", 8), got, 3), 0);
    check_flips(b.ptr, b.len, 3, 90000, 0x10);
    buf_fini(&b);
}
END_TEST

START_TEST(a_close_is_a_head_alone) {
    struct frame_head h;
    struct buf b;
    buf_init(&b, 0);
    frame_encode_close(&b, HISTORY, FIRST, ENGINE_NOW_MS);
    expect_eq(b.len, FRAME_HEADER_LEN);
    expect_eq(frame_check(b.ptr, b.len, HISTORY, FIRST, &h), FRAME_OK);
    expect_eq(h.kind, FRAME_CLOSE);
    expect_eq(h.body_len, 0);
    check_flips(b.ptr, b.len, HISTORY, FIRST, 0x04);
    buf_fini(&b);
}
END_TEST

CHECK_MAIN("frame_fmt", every_effect_comes_back, blobs_are_named_not_copied,
           the_bytes_stand_where_the_format_says, every_flipped_byte_is_found,
           every_flipped_byte_of_a_blob_is_found, a_frame_that_is_cut_is_short,
           a_frame_is_valid_at_its_place_only, shapes_that_no_command_makes_are_refused,
           heads_that_nobody_writes_are_refused, random_changes_with_right_sums_do_no_harm,
           a_chain_of_histories_comes_back, a_close_is_a_head_alone)
