/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "server/store/entry.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"

static char filler[70000];

static struct bytes fill(size_t len, unsigned salt) {
    for (size_t i = 0; i < len; i++) {
        filler[i] = (char)('a' + (i * 7 + salt + i / 251) % 26);
    }
    return bytes_of(filler, len);
}

static void assert_bytes(struct bytes got, struct bytes want) {
    expect_eq(got.len, want.len);
    expect(got.len == 0 || memcmp(got.ptr, want.ptr, got.len) == 0);
}

static struct entry *create(struct bytes key, struct value v, int64_t expiry_ms) {
    struct entry_spec spec = {key, v, expiry_ms};
    struct entry *e = entry_create(&spec);
    expect(e != NULL);
    expect_eq(entry_size(e), entry_spec_size(&spec));
    return e;
}

static const size_t key_lens[] = {0, 1, 15, 254, 255, 256, 1000};
static const size_t value_lens[] = {0, 1, 64, 254, 255, 256, 1000, 65536};
static const int64_t expiries[] = {EXPIRY_NONE,
                                   0,
                                   EXPIRY_BASE_MS - 1,
                                   EXPIRY_BASE_MS,
                                   EXPIRY_BASE_MS + 1,
                                   EXPIRY_BASE_MS + ((int64_t)1 << 40) - 1,
                                   EXPIRY_BASE_MS + ((int64_t)1 << 40),
                                   INT64_MAX};

enum { KEYS = 7, VALUES = 8, EXPIRIES = 8 };

START_TEST(every_shape_of_entry_keeps_what_was_put_into_it) {
    char key_text[1000], value_text[65536];
    for (int i = 0; i < KEYS * VALUES * EXPIRIES; i++) {
        struct bytes key = bytes_of(key_text, key_lens[i % KEYS]);
        struct bytes text = bytes_of(value_text, value_lens[i / KEYS % VALUES]);
        int64_t expiry_ms = expiries[i / KEYS / VALUES];
        memcpy(key_text, fill(key.len, 1).ptr, key.len);
        memcpy(value_text, fill(text.len, 2).ptr, text.len);
        struct entry *e = create(key, value_raw(text), expiry_ms);
        struct value v;
        entry_value(e, &v);
        assert_bytes(entry_key(e), key);
        assert_bytes(v.str, text);
        expect_eq(v.kind, VALUE_RAW);
        expect_eq(entry_expiry(e), expiry_ms);
        expect_eq(entry_has_expiry(e), expiry_ms != EXPIRY_NONE);
        expect_eq(entry_version(e), 0);
        expect(entry_value_ptr(e) == v.str.ptr);
        entry_destroy(e);
    }
}
END_TEST

START_TEST(integers_take_the_bytes_they_need) {
    const struct {
        int64_t num;
        size_t width;
    } cases[] = {{0, 1},          {127, 1},         {-128, 1},      {128, 2},       {-129, 2},
                 {32767, 2},      {32768, 4},       {-32769, 4},    {INT32_MAX, 4}, {INT32_MIN, 4},
                 {2147483648, 8}, {-2147483649, 8}, {INT64_MAX, 8}, {INT64_MIN, 8}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct entry *e = create(BYTES("counter"), value_int(cases[i].num), EXPIRY_NONE);
        struct value v;
        entry_value(e, &v);
        expect_eq(v.kind, VALUE_INT);
        expect_eq(v.num, cases[i].num);
        expect_eq(entry_size(e), ENTRY_HEAD_LEN + 1 + 7 + cases[i].width);
        entry_destroy(e);
    }
}
END_TEST

START_TEST(only_canonical_decimals_become_integers) {
    const char *ints[] = {"0", "-1", "9223372036854775807", "-9223372036854775808"};
    const char *strs[] = {"", "-0", "+1", "01", " 1", "1 ", "1.0", "9223372036854775808", "0x1"};
    char scratch[NUM_I64_TEXT_MAX];
    for (size_t i = 0; i < 4; i++) {
        struct value v = value_of(bytes_str(ints[i]));
        expect_eq(v.kind, VALUE_INT);
        expect_eq(value_len(&v), strlen(ints[i]));
        assert_bytes(value_bytes(&v, scratch), bytes_str(ints[i]));
    }
    for (size_t i = 0; i < sizeof(strs) / sizeof(strs[0]); i++) {
        struct value v = value_of(bytes_str(strs[i]));
        expect_eq(v.kind, VALUE_STR);
        assert_bytes(value_bytes(&v, scratch), bytes_str(strs[i]));
    }
}
END_TEST

START_TEST(a_session_of_fifteen_and_sixty_four_bytes_takes_ninety_two) {
    struct entry *e = create(fill(15, 0), value_raw(fill(64, 0)), EXPIRY_NONE);
    expect_eq(entry_size(e), 92);
    entry_destroy(e);
    e = create(fill(15, 0), value_raw(fill(64, 0)), EXPIRY_BASE_MS + 1000);
    expect_eq(entry_size(e), 97);
    entry_destroy(e);
}
END_TEST

/* Shapes that meet in one size class, and whose key begins at different places. */
START_TEST(filling_in_place_moves_the_key_and_keeps_the_head) {
    struct rng r = test_rng();
    char key_text[300], value_text[600];
    for (int round = 0; round < 20000; round++) {
        size_t key_len = rng_below(&r, 8) == 0 ? 250 + rng_below(&r, 10) : rng_below(&r, 40);
        struct bytes key = bytes_of(key_text, key_len);
        memcpy(key_text, fill(key_len, (unsigned)round).ptr, key_len);
        memset(value_text, 'v', sizeof(value_text));
        struct value before = value_raw(bytes_of(value_text, rng_below(&r, 300)));
        struct entry *e = create(key, before, expiries[rng_below(&r, EXPIRIES)]);
        e->freq = 77;
        entry_set_stamp(e, 54321);
        entry_set_version(e, 1234567);
        for (int i = 0; i < 200; i++) {
            struct value v = rng_below(&r, 4) == 0
                                 ? value_int((int64_t)rng_next(&r) >> rng_below(&r, 64))
                                 : value_raw(bytes_of(value_text, rng_below(&r, 300)));
            struct entry_spec spec = {entry_key(e), v, expiries[rng_below(&r, EXPIRIES)]};
            if (mem_good_size(entry_spec_size(&spec)) != mem_good_size(entry_size(e))) {
                continue;
            }
            struct value now;
            char want_text[NUM_I64_TEXT_MAX], now_text[NUM_I64_TEXT_MAX];
            entry_fill(e, &spec);
            entry_value(e, &now);
            assert_bytes(entry_key(e), key);
            assert_bytes(value_bytes(&now, now_text), value_bytes(&v, want_text));
            expect_eq(entry_expiry(e), spec.expiry_ms);
            expect(e->freq == 77 && entry_stamp(e) == 54321 && entry_version(e) == 1234567);
            break;
        }
        entry_destroy(e);
    }
}
END_TEST

START_TEST(an_expiry_changes_in_place_only_where_it_has_its_field) {
    struct entry *e = create(BYTES("k"), value_raw(BYTES("v")), EXPIRY_NONE);
    expect(!entry_set_expiry(e, EXPIRY_BASE_MS + 5));
    expect(!entry_is_expired(e, INT64_MAX));
    entry_destroy(e);
    e = create(BYTES("k"), value_raw(BYTES("v")), EXPIRY_BASE_MS + 5);
    expect(entry_set_expiry(e, EXPIRY_BASE_MS + 77));
    expect_eq(entry_expiry(e), EXPIRY_BASE_MS + 77);
    expect(!entry_is_expired(e, EXPIRY_BASE_MS + 76));
    expect(entry_is_expired(e, EXPIRY_BASE_MS + 77));
    expect(!entry_set_expiry(e, EXPIRY_NONE));
    expect(!entry_set_expiry(e, EXPIRY_BASE_MS - 1));
    expect(!entry_set_expiry(e, EXPIRY_BASE_MS + ((int64_t)1 << 40)));
    expect_eq(entry_expiry(e), EXPIRY_BASE_MS + 77);
    entry_destroy(e);
    e = create(BYTES("k"), value_raw(BYTES("v")), 5);
    expect(entry_set_expiry(e, INT64_MAX));
    expect(entry_set_expiry(e, EXPIRY_BASE_MS));
    expect_eq(entry_expiry(e), EXPIRY_BASE_MS);
    entry_destroy(e);
}
END_TEST

START_TEST(a_write_behind_the_end_leaves_zeros_between) {
    struct entry *e = create(BYTES("key"), value_raw(fill(20, 0)), EXPIRY_NONE);
    struct value v;
    size_t room = mem_good_size(entry_size(e)) - entry_size(e);
    for (size_t len = 20; len <= 20 + room; len++) {
        expect(entry_can_write(e, len));
    }
    expect(!entry_can_write(e, 20 + room + 1));
    entry_write(e, 2, BYTES("XY"));
    entry_write(e, 20 + room - 1, BYTES("Z"));
    entry_value(e, &v);
    expect_eq(v.str.len, 20 + room);
    expect(memcmp(v.str.ptr + 2, "XY", 2) == 0);
    for (size_t i = 20; i < 20 + room - 1; i++) {
        expect_eq(v.str.ptr[i], 0);
    }
    expect_eq(v.str.ptr[20 + room - 1], 'Z');
    expect_eq(v.kind, VALUE_RAW);
    assert_bytes(entry_key(e), BYTES("key"));
    entry_destroy(e);
}
END_TEST

START_TEST(the_length_field_never_changes_its_width_in_place) {
    /* 255 has one byte of length, 256 has four. */
    struct entry *e = create(BYTES("k"), value_raw(fill(255, 0)), EXPIRY_NONE);
    expect(!entry_can_write(e, 256));
    entry_destroy(e);
    e = create(BYTES("k"), value_raw(fill(256, 0)), EXPIRY_NONE);
    expect(entry_can_write(e, 256));
    entry_destroy(e);
    e = create(BYTES("k"), value_int(7), EXPIRY_NONE);
    expect(!entry_can_write(e, 1));
    entry_destroy(e);
}
END_TEST

START_TEST(a_shared_blob_isnt_written_to) {
    struct blob *b = blob_from(fill(66000, 3));
    struct entry *e =
        create(BYTES("big"), (struct value){.kind = VALUE_BLOB, .blob = b}, EXPIRY_NONE);
    struct value v;
    expect(entry_can_write(e, 66000));
    blob_acquire(b);
    expect(!entry_can_write(e, 66000));
    entry_destroy(e);
    expect(blob_is_sole(b)); /* ours is left */
    blob_release(b);
    b = blob_create(66000, 70000);
    memset(b->data, 'x', 66000);
    e = create(BYTES("big"), (struct value){.kind = VALUE_BLOB, .blob = b}, EXPIRY_NONE);
    entry_write(e, 66010, BYTES("end"));
    entry_value(e, &v);
    expect_eq(value_len(&v), 66013);
    expect_eq(b->data[65999], 'x');
    expect_eq(b->data[66009], 0);
    expect(memcmp(b->data + 66010, "end", 3) == 0);
    entry_destroy(e);
}
END_TEST

START_TEST(test_h16_no_memory_gives_no_entry_and_takes_no_reference) {
    struct blob *b = blob_from(fill(66000, 3));
    struct entry_spec spec = {BYTES("k"), {.kind = VALUE_BLOB, .blob = b}, EXPIRY_NONE};
    mem_fault_after(1);
    expect(entry_create(&spec) == NULL);
    mem_fault_after(1);
    expect(blob_from(BYTES("x")) == NULL);
    expect(blob_is_sole(b));
    blob_release(b);
    blob_release(NULL);
    entry_destroy(NULL);
}
END_TEST

CHECK_MAIN("entry", every_shape_of_entry_keeps_what_was_put_into_it,
           integers_take_the_bytes_they_need, only_canonical_decimals_become_integers,
           a_session_of_fifteen_and_sixty_four_bytes_takes_ninety_two,
           filling_in_place_moves_the_key_and_keeps_the_head,
           an_expiry_changes_in_place_only_where_it_has_its_field,
           a_write_behind_the_end_leaves_zeros_between,
           the_length_field_never_changes_its_width_in_place, a_shared_blob_isnt_written_to,
           test_h16_no_memory_gives_no_entry_and_takes_no_reference)
