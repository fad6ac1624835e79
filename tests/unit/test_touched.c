/* SPDX-License-Identifier: BSD-3-Clause */
#include "tools/dcache-inspect/touched.h"

#include "server/base/codec.h"
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "tests/support/one_engine.h"
#include "tools/dcache-inspect/fold.h"

#include <sys/mman.h>

enum { KEYS = 5, OPS = 4000, FIRST = 5000, LOG_MAX = 1 << 22 };

/* The frames of an engine, one behind the other. */
static char *log_bytes;
static size_t log_len;

static void keep_frame(void *arg, struct mut *m) {
    (void)arg;
    if (m->count == 0) {
        return;
    }
    size_t len = (size_t)frame_measure(m)->len;
    expect(log_len + len <= LOG_MAX);
    expect_eq(frame_encode(m, 1, FIRST + log_len, log_bytes + log_len, NULL), 0);
    log_len += len;
    mut_commit(m);
}

static void begin(void) {
    open_engine();
    engine.commit = keep_frame;
    log_bytes = mem_must_alloc(LOG_MAX);
    log_len = 0;
}

static void end(void) {
    mem_free(log_bytes);
    close_engine();
}

static struct bytes name_of(uint64_t n, char to[8]) {
    return bytes_of(to, (size_t)snprintf(to, 8, "k%d", (int)n));
}

static void random_op(struct rng *r) {
    char name[8];
    bool existed;
    struct bytes key = name_of(rng_below(r, KEYS), name);
    int64_t expiry_ms = engine_now(&engine) + 1000 + (int64_t)rng_below(r, 100000);
    switch (rng_below(r, 8)) {
    case 0:
        must(hand_del(&hand, 0, key, &existed));
        break;
    case 1:
        must(hand_append(&hand, 0, key, BYTES("more")));
        break;
    case 2:
        must(hand_write(&hand, 0, key, rng_below(r, 20), BYTES("patch")));
        break;
    case 3:
        must(hand_set(&hand, 0, key, BYTES("value"), expiry_ms));
        break;
    default:
        must(hand_expire(&hand, 0, key, expiry_ms, &existed));
    }
}

/* The effects of [from, log_len), all of them, one by one. 'skip' leaves one out. */
typedef void (*effect_fn)(void *arg, const struct effect_view *e);

static void each_effect(size_t from, uint32_t skip, effect_fn each, void *arg) {
    uint32_t index = 0;
    for (size_t at = from; at < log_len; at += (size_t)frame_len_at(log_bytes + at)) {
        size_t len = (size_t)frame_len_at(log_bytes + at);
        struct effect_view e;
        for (size_t in = FRAME_HEADER_LEN; in < len; in += e.len) {
            expect(effect_decode(log_bytes + at, len, in, FIRST + at, &e));
            if (index++ != skip) {
                each(arg, &e);
            }
        }
    }
}

static void add(void *arg, const struct effect_view *e) {
    touched_add(arg, e);
}

/* A key that is followed effect by effect. */
struct whole {
    struct bytes key;
    struct fold fold;
    uint64_t window_end;
    uint32_t damages;
};

static void follow(void *arg, const struct effect_view *e) {
    struct whole *w = arg;
    if (bytes_equal(e->key, w->key) &&
        fold_effect(&w->fold, e, e->version <= w->window_end) != DC_OK) {
        (void)dc_fail_take(DC_ECORRUPT);
        w->damages++;
    }
}

static uint32_t fold_all(const struct touched_set *s, struct bytes key, uint64_t window_end,
                         struct fold *f) {
    const struct touched *t = touched_find(s, 0, key);
    uint32_t damages = 0;
    for (uint32_t i = t != NULL ? t->first : TOUCHED_END; i != TOUCHED_END;
         i = s->effects[i].next) {
        struct effect_view e;
        touched_view(&s->effects[i], f->exists ? f->version : 0, &e);
        if (fold_effect(f, &e, e.version <= window_end) != DC_OK) {
            (void)dc_fail_take(DC_ECORRUPT);
            damages++;
        }
    }
    return damages;
}

/* What a block would have of the keys. */
struct image {
    struct snap_entry entries[KEYS];
    struct buf texts[KEYS];
    bool exists[KEYS];
    uint64_t lsn;
};

static void take_image(struct image *out) {
    for (uint32_t i = 0; i < KEYS; i++) {
        char name[8];
        buf_init(&out->texts[i], 0);
        struct seen seen = hand_peek(&hand, 0, name_of(i, name), &out->texts[i]);
        out->exists[i] = seen.alive;
        out->entries[i] =
            (struct snap_entry){.value = {.kind = seen.kind == VALUE_STR ? VALUE_STR : VALUE_RAW,
                                          .str = buf_bytes(&out->texts[i])},
                                .expiry_ms = seen.expiry_ms,
                                .version = seen.version};
    }
    out->lsn = FIRST + log_len;
}

static void image_fini(struct image *image) {
    for (uint32_t i = 0; i < KEYS; i++) {
        buf_fini(&image->texts[i]);
    }
}

static void same_fold(const struct fold *a, const struct fold *b) {
    ck_assert_int_eq(a->exists, b->exists);
    if (a->exists) {
        ck_assert_uint_eq(a->version, b->version);
        ck_assert_int_eq(a->expiry_ms, b->expiry_ms);
        ck_assert_uint_eq(a->value_len, b->value_len);
        ck_assert(bytes_equal(buf_bytes(a->content), buf_bytes(b->content)));
    }
}

/* Image and effects from 'from' on, all and those that are kept: the same comes out. */
static void compare(const struct image *image, size_t from, uint32_t skip) {
    struct touched_set s = {.keys = NULL};
    each_effect(from, skip, add, &s);
    for (uint32_t i = 0; i < KEYS; i++) {
        char name[8];
        struct buf one, other;
        buf_init(&one, 0);
        buf_init(&other, 0);
        struct whole w = {
            .key = name_of(i, name), .fold = {.content = &one}, .window_end = image->lsn};
        struct fold f = {.content = &other};
        if (image->exists[i]) {
            fold_begin(&w.fold, &image->entries[i]);
            fold_begin(&f, &image->entries[i]);
        }
        each_effect(from, skip, follow, &w);
        uint32_t damages = fold_all(&s, w.key, w.window_end, &f);
        ck_assert_int_eq(damages > 0, w.damages > 0);
        same_fold(&f, &w.fold);
        if (skip == UINT32_MAX) {
            struct buf text;
            buf_init(&text, 0);
            struct seen seen = hand_peek(&hand, 0, w.key, &text);
            ck_assert_uint_eq(w.damages, 0);
            ck_assert_int_eq(f.exists, seen.alive);
            ck_assert(!f.exists || (f.version == seen.version &&
                                    bytes_equal(buf_bytes(&other), buf_bytes(&text))));
            buf_fini(&text);
        }
        buf_fini(&one);
        buf_fini(&other);
    }
    touched_fini(&s);
}

START_TEST(what_is_kept_says_the_same_as_all_effects) {
    struct rng r = test_rng();
    struct image image;
    size_t before = 0, at = 0;
    begin();
    for (uint32_t i = 0; i < OPS; i++) {
        if (i == OPS / 4) {
            before = log_len;
        }
        if (i == OPS / 2) {
            take_image(&image);
            at = log_len;
        }
        random_op(&r);
    }
    compare(&image, at, UINT32_MAX); /* behind the image */
    compare(&image, before,
            UINT32_MAX); /* in its window, too: the image is ahead of some of them */
    for (uint32_t skip = 0; skip < 60; skip++) {
        compare(&image, at, skip); /* a hole in the log is found as it would be */
    }
    image_fini(&image);
    end();
}
END_TEST

START_TEST(behind_a_hole_nothing_is_put_over_the_wrong_thing) {
    struct rng r = test_rng();
    begin();
    for (uint32_t i = 0; i < KEYS; i++) {
        char name[8];
        must(hand_set(&hand, 0, name_of(i, name), BYTES("value"), EXPIRY_NONE));
    }
    for (uint32_t round = 0; round < 100; round++) {
        struct image image;
        take_image(&image);
        size_t at = log_len;
        for (uint32_t i = 0; i < 30; i++) { /* too few to write all keys anew */
            random_op(&r);
        }
        for (uint32_t skip = 0; skip < 10; skip++) {
            compare(&image, at, skip);
        }
        image_fini(&image);
    }
    end();
}
END_TEST

START_TEST(a_key_that_is_written_all_the_time_costs_a_few_effects) {
    struct touched_set s = {.keys = NULL};
    bool existed;
    begin();
    for (uint32_t i = 0; i < OPS; i++) {
        must(hand_set(&hand, 0, BYTES("set"), BYTES("value"), EXPIRY_NONE));
        must(hand_append(&hand, 0, BYTES("set"), BYTES("more")));
        must(hand_set(&hand, 0, BYTES("expire"), BYTES("value"), EXPIRY_NONE));
        for (int64_t k = 0; k < 3; k++) {
            must(hand_expire(&hand, 0, BYTES("expire"), ENGINE_NOW_MS + 1000 + k, &existed));
        }
    }
    each_effect(0, UINT32_MAX, add, &s);
    ck_assert_uint_eq(s.key_count, 2);
    ck_assert_uint_le(s.effect_count, 10);
    end();
    touched_fini(&s);
}
END_TEST

START_TEST(expiries_in_a_row_are_one_and_pieces_are_kept) {
    struct touched_set s = {.keys = NULL};
    bool existed;
    begin();
    must(hand_set(&hand, 0, BYTES("e"), BYTES("value"), EXPIRY_NONE));
    must(hand_set(&hand, 0, BYTES("w"), BYTES("value"), EXPIRY_NONE));
    for (uint32_t i = 0; i < OPS; i++) {
        must(hand_expire(&hand, 0, BYTES("e"), ENGINE_NOW_MS + 1000 + i, &existed));
        must(hand_append(&hand, 0, BYTES("w"), BYTES("p")));
    }
    each_effect(0, UINT32_MAX, add, &s);
    ck_assert_uint_le(s.effect_count, OPS + 10);
    touched_clear(&s);
    ck_assert_ptr_null(touched_find(&s, 0, BYTES("e")));
    must(hand_set(&hand, 0, BYTES("w"), BYTES("value"), EXPIRY_NONE));
    each_effect(0, UINT32_MAX, add, &s);
    must(hand_set(&hand, 0, BYTES("x"), BYTES("value"), EXPIRY_NONE));
    uint32_t count = s.effect_count;
    touched_clear(&s);
    each_effect(0, UINT32_MAX, add, &s);
    ck_assert_uint_eq(s.effect_count, count); /* in the place of a piece that was left out */
    end();
    touched_fini(&s);
}
END_TEST

START_TEST(alone_an_effect_says_what_it_was_made_for_and_no_more) {
    struct whole w = {.key = BYTES("k")};
    bool existed;
    begin();
    must(hand_set(&hand, 0, w.key, BYTES("value"), EXPIRY_NONE));
    size_t at = log_len; /* a segment might begin here */
    must(hand_expire(&hand, 0, w.key, ENGINE_NOW_MS + 1000, &existed));
    w.fold = (struct fold){.expiry_ms = EXPIRY_NONE, .unknown_until = FIRST + at};
    each_effect(at, UINT32_MAX, follow, &w);
    ck_assert(w.damages == 0 && w.fold.exists && w.fold.is_partial);
    ck_assert(w.fold.has_expiry && !w.fold.has_piece);
    ck_assert_int_eq(w.fold.expiry_ms, ENGINE_NOW_MS + 1000);
    /* Were the one before it part of what was read, it would have been seen. */
    w.fold = (struct fold){.expiry_ms = EXPIRY_NONE, .unknown_until = FIRST + at - 1};
    each_effect(at, UINT32_MAX, follow, &w);
    ck_assert(w.damages == 1 && !w.fold.exists);
    must(hand_append(&hand, 0, w.key, BYTES("more")));
    must(hand_del(&hand, 0, w.key, &existed));
    w = (struct whole){.key = w.key, .fold = {.unknown_until = FIRST + at}};
    each_effect(at, UINT32_MAX, follow, &w);
    ck_assert(w.damages == 0 && !w.fold.exists && !w.fold.is_partial && !w.fold.has_piece);
    end();
}
END_TEST

/* A PUT of the key "k" with a value of so many zeros, which aren't looked at. */
static struct effect_view put_of(char *to, size_t room, enum value_kind kind, uint64_t len) {
    struct effect_view e;
    memset(to, 0, 40);
    to[0] = MUT_PUT;
    to[1] = (char)(0x40 | kind); /* long */
    put_u32(to + 8, 1);
    put_u64(to + 12, len);
    to[kind == VALUE_BLOB ? 28 : 20] = 'k';
    expect(effect_decode(to, room, 0, FIRST, &e));
    return e;
}

START_TEST(a_value_that_no_start_takes_is_damage_however_long) {
    size_t room = ((size_t)4 << 30) + 4096;
    char *bytes = mmap(NULL, room, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    expect(bytes != MAP_FAILED);
    const struct {
        enum value_kind kind;
        uint64_t len;
        bool good;
    } cases[] = {
        {VALUE_RAW, BLOB_MIN_LEN - 1, true},    {VALUE_RAW, BLOB_MIN_LEN, false},
        {VALUE_BLOB, VALUE_LEN_MAX, true},      {VALUE_BLOB, VALUE_LEN_MAX + 1, false},
        {VALUE_BLOB, (uint64_t)4 << 30, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct touched_set s = {.keys = NULL};
        struct fold f = {.exists = false};
        struct effect_view e = put_of(bytes, room, cases[i].kind, cases[i].len);
        touched_add(&s, &e);
        ck_assert_int_eq(fold_all(&s, BYTES("k"), 0, &f), !cases[i].good);
        ck_assert_int_eq(f.exists, cases[i].good);
        touched_fini(&s);
    }
    munmap(bytes, room);
}
END_TEST

CHECK_MAIN("touched", what_is_kept_says_the_same_as_all_effects,
           behind_a_hole_nothing_is_put_over_the_wrong_thing,
           a_key_that_is_written_all_the_time_costs_a_few_effects,
           expiries_in_a_row_are_one_and_pieces_are_kept,
           alone_an_effect_says_what_it_was_made_for_and_no_more,
           a_value_that_no_start_takes_is_damage_however_long)
