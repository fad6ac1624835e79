/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/snap_block.h"
#include "server/base/codec.h"
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "server/base/sum.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"

#include <string.h>

/* --- fixed parts ------------------------------------------------------------------------------------- */

static struct snap_head some_head(void) {
    struct snap_head h = {.start_lsn = 123456789,
                          .history = {0x1111, 1 << 20, 3, 77},
                          .begun_ms = 1700000000123,
                          .range_bits = 5};
    for (uint8_t i = 0; i < 16; i++) {
        h.node_id[i] = (uint8_t)(i + 1);
        h.seed[i] = (uint8_t)(i * 3);
    }
    return h;
}

START_TEST(a_header_comes_back) {
    uint8_t bytes[SNAP_HEADER_LEN], again[SNAP_HEADER_LEN];
    struct snap_head h = some_head(), back;
    snap_head_encode(&h, bytes);
    expect_eq(snap_head_len(bytes), SNAP_HEADER_LEN);
    expect_eq(snap_head_decode(bytes, sizeof(bytes), &back), HEAD_OK);
    expect_eq(back.sum, h.sum);
    snap_head_encode(&back, again);
    expect(memcmp(bytes, again, sizeof(bytes)) == 0);
    expect(back.range_bits == 5 && back.begun_ms == 1700000000123 && back.history.epoch == 3);
}
END_TEST

START_TEST(a_flipped_bit_of_a_header_is_seen) {
    uint8_t bytes[SNAP_HEADER_LEN];
    struct snap_head h = some_head(), back;
    snap_head_encode(&h, bytes);
    for (uint32_t bit = 0; bit < SNAP_HEADER_LEN * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        enum head_verdict verdict = snap_head_decode(bytes, sizeof(bytes), &back);
        expect(verdict == HEAD_DAMAGED || (bit < 64 && verdict == HEAD_NOT_OURS));
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}
END_TEST

START_TEST(a_newer_version_is_told_from_damage) {
    uint8_t bytes[SNAP_HEADER_LEN + 40];
    struct snap_head h = some_head(), back;
    memset(bytes, 7, sizeof(bytes));
    snap_head_encode(&h, bytes);
    put_u32(bytes + 8, SNAP_VERSION + 1);
    expect_eq(snap_head_decode(bytes, sizeof(bytes), &back), HEAD_DAMAGED);
    put_u32(bytes + 12, sizeof(bytes));
    put_u64(bytes + sizeof(bytes) - 8, sum64(bytes, sizeof(bytes) - 8, 0));
    expect_eq(snap_head_len(bytes), sizeof(bytes));
    expect_eq(snap_head_decode(bytes, sizeof(bytes), &back), HEAD_NEWER);
    expect_eq(snap_head_decode(bytes, sizeof(bytes) - 1, &back), HEAD_DAMAGED);
}
END_TEST

static struct snap_block_info some_block(void) {
    return (struct snap_block_info){.offset = 4711,
                                    .first_pos = (uint64_t)9 << 50 | 12345,
                                    .stored_len = 50,
                                    .plain_len = 200,
                                    .entries = 3,
                                    .range = 9,
                                    .keyspace = 2,
                                    .kind = SNAP_ENTRIES};
}

START_TEST(an_index_entry_comes_back_and_has_an_order) {
    uint8_t bytes[SNAP_INDEX_ENTRY_LEN];
    struct snap_block_info b = some_block(), back;
    snap_index_encode(&b, bytes);
    expect(snap_index_decode(bytes, &back));
    expect_eq(snap_index_compare(&b, &back), 0);
    expect(back.stored_len == 50 && back.plain_len == 200 && back.entries == 3);
    back.offset++;
    expect(snap_index_compare(&b, &back) < 0);
    back.first_pos--;
    expect(snap_index_compare(&b, &back) > 0);
    back.kind = SNAP_PIECE;
    expect(snap_index_compare(&b, &back) < 0);
    back.keyspace = 1;
    expect(snap_index_compare(&b, &back) > 0);
    back.range++;
    expect(snap_index_compare(&b, &back) < 0);
    put_u32(bytes + 16, 0); /* no entries */
    expect(!snap_index_decode(bytes, &back));
    bytes[26] = SNAP_PIECE;
    expect(snap_index_decode(bytes, &back));
    put_u32(bytes + 12, SNAP_PIECE_LEN + SNAP_PIECE_HEAD_LEN + 1);
    expect(!snap_index_decode(bytes, &back));
}
END_TEST

START_TEST(a_block_is_valid_only_as_it_is_and_where_it_is) {
    uint8_t bytes[SNAP_BLOCK_HEAD_LEN + 50];
    struct snap_block_info b = some_block();
    memset(bytes, 42, sizeof(bytes));
    uint8_t *stored = bytes + SNAP_BLOCK_HEAD_LEN;
    snap_block_head_encode(&b, 99, stored, bytes);
    expect(snap_block_head_check(bytes, &b, 99, stored));
    expect(!snap_block_head_check(bytes, &b, 98, stored));
    b.offset++;
    expect(!snap_block_head_check(bytes, &b, 99, stored));
    b.offset--;
    b.keyspace++;
    expect(!snap_block_head_check(bytes, &b, 99, stored));
    b.keyspace--;
    for (uint32_t bit = 0; bit < sizeof(bytes) * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        expect(!snap_block_head_check(bytes, &b, 99, stored));
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}
END_TEST

START_TEST(a_footer_comes_back_and_a_flipped_bit_is_seen) {
    const struct history chain[2] = {{1, 1 << 20, 1, 0}, {2, 1 << 22, 2, 1 << 21}};
    struct history chain_back[SNAP_HISTORIES_MAX];
    struct snap_footer f = {.index_offset = 5000,
                            .block_count = 3,
                            .tail_offset = 4000,
                            .tail_len = 1000,
                            .start_lsn = 1 << 23,
                            .end_lsn = 1 << 24,
                            .entries = 17,
                            .plain_bytes = 9999,
                            .stored_bytes = 3333,
                            .index_sum = 0xabcdef,
                            .finished_ms = 1700000000999,
                            .history_count = 2};
    struct snap_footer back = {.entries = 0};
    uint8_t bytes[SNAP_FOOTER_LEN + 2 * SNAP_HISTORY_LEN + SNAP_TRAILER_LEN], again[sizeof(bytes)];
    uint64_t at = 6000, file_len = at + sizeof(bytes);
    size_t len = sizeof(bytes) - SNAP_TRAILER_LEN;
    expect_eq(snap_footer_len(2), sizeof(bytes));
    snap_footer_encode(&f, chain, 55, at, bytes);
    expect_eq(snap_trailer_decode(bytes + len, file_len), at);
    expect(snap_footer_decode(bytes, len, 55, &back, chain_back));
    snap_footer_encode(&back, chain_back, 55, at, again);
    expect(memcmp(bytes, again, sizeof(bytes)) == 0);
    expect(back.entries == 17 && back.tail_len == 1000 && back.end_lsn == 1 << 24);
    expect(chain_back[1].parent_end == 1 << 21);
    expect(!snap_footer_decode(bytes, len, 56, &back, chain_back));
    expect(!snap_footer_decode(bytes, len - 1, 55, &back, chain_back));
    expect(!snap_footer_decode(bytes, 10, 55, &back, chain_back));
    for (uint32_t bit = 0; bit < len * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        expect(!snap_footer_decode(bytes, len, 55, &back, chain_back));
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    expect_eq(snap_trailer_decode(bytes + len, 20), 0); /* points behind the end */
    bytes[len + 8] ^= 1;
    expect_eq(snap_trailer_decode(bytes + len, file_len), 0);
}
END_TEST

START_TEST(ages_are_exact_when_small_and_near_when_large) {
    uint8_t last = 0;
    for (int64_t ms = 0; ms < 7500; ms += 500) {
        expect_eq(snap_age_ms(snap_age_encode(ms)), ms);
    }
    for (int64_t ms = 8000; ms < (int64_t)1 << 38; ms += ms / 50) {
        int64_t back = snap_age_ms(snap_age_encode(ms));
        int64_t off = back > ms ? back - ms : ms - back;
        expect(off <= ms / 15 + 500);
        expect(snap_age_encode(ms) >= last);
        last = snap_age_encode(ms);
    }
    expect_eq(snap_age_encode(-5), 0);
    expect_eq(snap_age_encode(INT64_MAX), UINT8_MAX);
}
END_TEST

START_TEST(names_are_parsed_as_they_are_written) {
    char name[SNAP_NAME_MAX];
    uint64_t lsn, id;
    snap_name(0x123456789abcULL, UINT64_MAX, name);
    ck_assert_str_eq(name, "snap-0000123456789abc-ffffffffffffffff.dcs");
    expect(snap_name_parse(name, &lsn, &id));
    expect(lsn == 0x123456789abcULL && id == UINT64_MAX);
    expect(!snap_name_parse("snap-0000123456789abc-ffffffffffffffff.tmp", &lsn, &id));
    expect(!snap_name_parse("snap-0000123456789abc-fffffffffffffffg.dcs", &lsn, &id));
    expect(!snap_name_parse("snap-0000123456789abc-ffffffffffffffff.dcs2", &lsn, &id));
    expect(!snap_name_parse("", &lsn, &id));
}
END_TEST

/* --- columns ----------------------------------------------------------------------------------------- */

struct example {
    struct entry *entry;
    uint64_t version;
    int64_t expiry_ms, idle_ms;
    uint8_t freq;
    struct blob *blob;
};

enum { EXAMPLES_MAX = 2000 };

static struct example examples[EXAMPLES_MAX];
static char text[BLOB_MIN_LEN];

static struct value some_value(struct rng *r) {
    switch (rng_below(r, 8)) {
    case 0:
        return value_int((int64_t)rng_next(r) >> rng_below(r, 64));
    case 1:
        return value_raw(bytes_of(text, rng_below(r, 100)));
    case 2:
        return (struct value){.kind = VALUE_BLOB, .blob = blob_from(bytes_of(text, BLOB_MIN_LEN))};
    case 3:
        return (struct value){.kind = VALUE_STR, .str = bytes_of(text, rng_below(r, BLOB_MIN_LEN))};
    default:
        return (struct value){.kind = VALUE_STR, .str = bytes_of(text, rng_below(r, 300))};
    }
}

static void make_example(struct example *x, struct rng *r, uint64_t version_max) {
    char key[400];
    size_t key_len = rng_below(r, rng_below(r, 10) == 0 ? sizeof(key) : 30);
    memset(key, 'k', key_len);
    x->expiry_ms =
        rng_below(r, 2) == 0 ? EXPIRY_NONE : (int64_t)(rng_next(r) >> rng_below(r, 63)) / 2;
    struct entry_spec spec = {bytes_of(key, key_len), some_value(r), x->expiry_ms};
    x->blob = spec.value.kind == VALUE_BLOB ? spec.value.blob : NULL;
    x->entry = entry_create(&spec);
    x->version = 1 + rng_below(r, version_max);
    x->idle_ms = (int64_t)rng_below(r, 15) * 500;
    x->freq = x->entry->freq = (uint8_t)rng_next(r);
    entry_set_version(x->entry, x->version);
}

static void expect_example(const struct snap_entry *e, const struct example *x, uint32_t i) {
    struct value v;
    struct bytes key = entry_key(x->entry);
    entry_value(x->entry, &v);
    expect(bytes_equal(e->key, key));
    expect_eq(e->version, x->version);
    expect_eq(e->expiry_ms, x->expiry_ms);
    expect_eq(e->freq, x->freq);
    expect_eq(snap_age_ms(e->age_code), x->idle_ms);
    expect_eq(e->value.kind, v.kind);
    switch (v.kind) {
    case VALUE_STR:
    case VALUE_RAW:
        expect(bytes_equal(e->value.str, v.str));
        break;
    case VALUE_INT:
        expect_eq(e->value.num, v.num);
        break;
    case VALUE_BLOB:
        expect_eq(e->blob_len, v.blob->len);
        expect_eq(e->blob_sum, v.blob->sum);
        expect_eq(e->blob_pos, i);
        break;
    }
}

/* Packs and unpacks 'count' random entries. Versions, where a unit is given, are multiples of it. */
static void round_trip(struct snap_pack *p, struct snap_unpacker *u, struct rng *r, uint32_t count,
                       uint64_t version_max) {
    struct snap_block_info info = {.range = 0};
    struct snap_columns c;
    struct snap_entry e;
    struct bytes out;
    for (uint32_t i = 0; i < count; i++) {
        size_t at;
        make_example(&examples[i], r, version_max);
        const struct blob *b = snap_pack_entry(p, examples[i].entry, examples[i].idle_ms, &at);
        expect(b == examples[i].blob);
        if (b != NULL) {
            snap_pack_blob(p, at, b->sum, i);
        }
    }
    expect_eq(snap_pack_count(p), count);
    expect_eq(snap_pack_seal(p, &info, &out), DC_OK);
    expect_eq(snap_pack_count(p), 0);
    expect_eq(info.entries, count);
    expect_eq(info.stored_len + SNAP_BLOCK_HEAD_LEN, out.len);
    char *plain = malloc(info.plain_len + SNAP_SLACK);
    struct bytes stored = bytes_of(out.ptr + SNAP_BLOCK_HEAD_LEN, info.stored_len);
    expect(!snap_unpack(u, stored, plain, info.plain_len - 1));
    expect(snap_unpack(u, stored, plain, info.plain_len));
    expect(!snap_columns_open(&c, plain, info.plain_len, count + 1));
    expect(!snap_columns_open(&c, plain, info.plain_len - 1, count));
    expect(snap_columns_open(&c, plain, info.plain_len, count));
    for (uint32_t i = 0; i < count; i++) {
        expect(snap_columns_next(&c, &e));
        expect_example(&e, &examples[i], i);
        entry_destroy(examples[i].entry);
    }
    expect(!snap_columns_next(&c, &e));
    free(plain);
}

START_TEST(columns_come_back) {
    struct rng r = test_rng();
    struct snap_pack *p = snap_pack_create(1);
    struct snap_unpacker *u = snap_unpacker_create();
    for (uint32_t i = 0; i < sizeof(text); i++) {
        text[i] = (char)rng_next(&r);
    }
    for (uint32_t i = 0; i < 60; i++) {
        uint32_t count = i < 5 ? i + 1 : 1 + (uint32_t)rng_below(&r, 200);
        round_trip(p, u, &r, count, LSN_MAX >> rng_below(&r, 50));
    }
    round_trip(p, u, &r, EXAMPLES_MAX, LSN_MAX);
    snap_unpacker_destroy(u);
    snap_pack_destroy(p);
}
END_TEST

START_TEST(no_memory_is_told_and_the_pack_goes_on) {
    struct rng r = test_rng();
    struct snap_unpacker *u = snap_unpacker_create();
    for (uint64_t n = 1; n < 60; n++) {
        struct snap_pack *p = snap_pack_create(1);
        struct snap_block_info info;
        struct bytes out;
        size_t at;
        make_example(&examples[0], &r, LSN_MAX);
        mem_fault_after(n);
        for (uint32_t i = 0; i < 300; i++) {
            (void)snap_pack_entry(p, examples[0].entry, 0, &at);
        }
        enum dc_err err = snap_pack_seal(p, &info, &out);
        expect(err == DC_OK || err == DC_ENOMEM);
        expect(n > 1 || err == DC_ENOMEM);
        mem_fault_after(0);
        entry_destroy(examples[0].entry);
        round_trip(p, u, &r, 10, LSN_MAX);
        snap_pack_destroy(p);
    }
    snap_unpacker_destroy(u);
}
END_TEST

/* Content that was made up: any byte may be wrong, and lengths may say anything. */
START_TEST(bad_columns_are_refused_or_read_without_harm) {
    struct rng r = test_rng();
    for (uint32_t round = 0; round < 20000; round++) {
        size_t len = SNAP_COLUMNS * 4 + rng_below(&r, 100);
        uint32_t entries = 1 + (uint32_t)rng_below(&r, 4);
        uint8_t *plain = calloc(1, len + SNAP_SLACK);
        struct snap_columns c;
        struct snap_entry e;
        for (size_t i = SNAP_COLUMNS * 4; i < len; i++) {
            plain[i] = (uint8_t)rng_below(&r, rng_below(&r, 2) == 0 ? 4 : 256);
        }
        const uint32_t lens[SNAP_COLUMNS] = {entries,
                                             entries,
                                             entries,
                                             entries,
                                             entries,
                                             (uint32_t)rng_below(&r, 12),
                                             (uint32_t)rng_below(&r, 8),
                                             (uint32_t)rng_below(&r, 8)};
        uint32_t sum = 0;
        for (uint32_t i = 0; i < SNAP_DATA; i++) {
            put_u32(plain + (size_t)i * 4, lens[i]);
            sum += lens[i];
        }
        put_u32(plain + SNAP_DATA * 4, (uint32_t)len - SNAP_COLUMNS * 4 - sum);
        if (rng_below(&r, 4) == 0) {
            put_u32(plain + rng_below(&r, SNAP_COLUMNS) * 4, (uint32_t)rng_next(&r));
        }
        if (snap_columns_open(&c, plain, len, entries)) {
            uint32_t count = 0;
            while (snap_columns_next(&c, &e)) {
                expect(e.version > 0 && e.version <= LSN_MAX);
                expect((const uint8_t *)e.key.ptr + e.key.len <= plain + len);
                count++;
            }
            expect_eq(count, entries);
        }
        free(plain);
    }
}
END_TEST

CHECK_MAIN("snap_fmt", a_header_comes_back, a_flipped_bit_of_a_header_is_seen,
           a_newer_version_is_told_from_damage, an_index_entry_comes_back_and_has_an_order,
           a_block_is_valid_only_as_it_is_and_where_it_is,
           a_footer_comes_back_and_a_flipped_bit_is_seen,
           ages_are_exact_when_small_and_near_when_large, names_are_parsed_as_they_are_written,
           columns_come_back, no_memory_is_told_and_the_pack_goes_on,
           bad_columns_are_refused_or_read_without_harm)
