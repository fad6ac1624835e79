/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/mem.h"
#include "server/cmd/lcs.h"
#include "tests/support/check_main.h"

#include <string.h>

enum { LEN_MAX = 200 };

/* The table that everybody draws: entry [i][j] is the length for the first i and j bytes. */
static uint32_t table[LEN_MAX + 1][LEN_MAX + 1];

static void fill_table(struct bytes a, struct bytes b) {
    for (size_t i = 0; i <= a.len; i++) {
        for (size_t j = 0; j <= b.len; j++) {
            if (i == 0 || j == 0) {
                table[i][j] = 0;
            } else if (a.ptr[i - 1] == b.ptr[j - 1]) {
                table[i][j] = table[i - 1][j - 1] + 1;
            } else {
                uint32_t up = table[i - 1][j], left = table[i][j - 1];
                table[i][j] = up > left ? up : left;
            }
        }
    }
}

/* Walks the table back and expects every match to be the next one of the ranges. */
static void check_walk(struct bytes a, struct bytes b, const struct lcs_range *ranges,
                       size_t count) {
    size_t i = a.len, j = b.len, range = 0, within = 0;
    while (i > 0 && j > 0) {
        if (a.ptr[i - 1] == b.ptr[j - 1]) {
            ck_assert_uint_lt(range, count);
            ck_assert_uint_eq(ranges[range].a_to - within, --i);
            ck_assert_uint_eq(ranges[range].b_to - within, --j);
            if (ranges[range].a_from == i) {
                ck_assert_uint_eq(ranges[range].b_from, j);
                range++;
                within = 0;
            } else {
                within++;
            }
        } else if (table[i - 1][j] > table[i][j - 1]) {
            i--;
        } else {
            j--;
        }
    }
    ck_assert_uint_eq(range, count);
    ck_assert_uint_eq(within, 0);
}

static void compare(struct bytes a, struct bytes b) {
    struct lcs_range ranges[LEN_MAX];
    struct lcs l, only_len;
    ck_assert_int_eq(lcs_init(&l, a, b, true), DC_OK);
    ck_assert_int_eq(lcs_init(&only_len, a, b, false), DC_OK);
    fill_table(a, b);
    ck_assert_uint_eq(l.len, table[a.len][b.len]);
    ck_assert_uint_eq(only_len.len, l.len);
    check_walk(a, b, ranges, lcs_ranges(&l, ranges));
    lcs_fini(&l);
    lcs_fini(&only_len);
}

static struct bytes random_text(struct rng *rng, char *to, size_t len, uint32_t symbols) {
    for (size_t i = 0; i < len; i++) {
        to[i] = (char)rng_below(rng, symbols);
    }
    return bytes_of(to, len);
}

START_TEST(agrees_with_the_table_on_random_strings) {
    static const uint32_t alphabets[] = {1, 2, 3, 10, 256};
    struct rng rng = test_rng();
    char a[LEN_MAX], b[LEN_MAX];
    for (uint32_t round = 0; round < 2000; round++) {
        uint32_t symbols = alphabets[round % 5];
        size_t a_len = rng_below(&rng, LEN_MAX + 1), b_len = rng_below(&rng, LEN_MAX + 1);
        compare(random_text(&rng, a, a_len, symbols), random_text(&rng, b, b_len, symbols));
    }
}
END_TEST

START_TEST(agrees_around_the_length_of_a_word) {
    struct rng rng = test_rng();
    char a[LEN_MAX], b[LEN_MAX];
    for (size_t len = 60; len <= 68; len++) {
        for (size_t other = 1; other <= 130; other++) {
            compare(random_text(&rng, a, len, 2), random_text(&rng, b, other, 2));
            compare(random_text(&rng, a, other, 2), random_text(&rng, b, len, 2));
        }
    }
}
END_TEST

START_TEST(equal_strings_are_one_range) {
    struct lcs_range ranges[13];
    struct lcs l;
    struct bytes text = BYTES("session:12345");
    ck_assert_int_eq(lcs_init(&l, text, text, true), DC_OK);
    ck_assert_uint_eq(l.len, 13);
    ck_assert_uint_eq(lcs_ranges(&l, ranges), 1);
    ck_assert_uint_eq(ranges[0].a_from, 0);
    ck_assert_uint_eq(ranges[0].b_to, 12);
    lcs_fini(&l);
}
END_TEST

START_TEST(nothing_in_common_gives_no_range) {
    struct lcs l;
    ck_assert_int_eq(lcs_init(&l, BYTES("abc"), BYTES("xyz"), true), DC_OK);
    ck_assert_uint_eq(l.len, 0);
    ck_assert_uint_eq(lcs_ranges(&l, NULL), 0);
    lcs_fini(&l);
    ck_assert_int_eq(lcs_init(&l, BYTES(""), BYTES("xyz"), true), DC_OK);
    ck_assert_uint_eq(l.len, 0);
    ck_assert_uint_eq(lcs_ranges(&l, NULL), 0);
    lcs_fini(&l);
}
END_TEST

START_TEST(without_memory_it_fails_and_keeps_nothing) {
    uint32_t failed = 0;
    for (uint32_t n = 1; n <= 4; n++) {
        struct lcs l;
        mem_fault_after(n);
        enum dc_err err = lcs_init(&l, BYTES("abcabc"), BYTES("bcab"), true);
        mem_fault_after(0);
        ck_assert(err == DC_OK || (err == DC_ENOMEM && l.rows == NULL));
        failed += err != DC_OK;
        lcs_fini(&l);
    }
    ck_assert_uint_eq(failed, 3);
}
END_TEST

CHECK_MAIN("lcs", agrees_with_the_table_on_random_strings, agrees_around_the_length_of_a_word,
           equal_strings_are_one_range, nothing_in_common_gives_no_range,
           without_memory_it_fails_and_keeps_nothing)
