/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/bits.h"
#include "tests/support/check_main.h"

#include <string.h>

enum { LEN_MAX = 3000 };

static bool bit_at(struct bytes s, uint64_t bit) {
    return (uint8_t)s.ptr[bit / 8] >> (7 - bit % 8) & 1;
}

/* Bytes of which most are 'common'. */
static struct bytes random_bytes(struct rng *rng, char *to, size_t len, uint8_t common) {
    for (size_t i = 0; i < len; i++) {
        to[i] = (char)(rng_below(rng, 50) == 0 ? rng_next(rng) : common);
    }
    return bytes_of(to, len);
}

START_TEST(counts_as_one_by_one) {
    struct rng rng = test_rng();
    char text[LEN_MAX];
    for (uint32_t round = 0; round < 300; round++) {
        size_t len = 1 + rng_below(&rng, LEN_MAX);
        struct bytes s = random_bytes(&rng, text, len, round % 2 ? 0xff : (uint8_t)round);
        uint64_t first = rng_below(&rng, len * 8);
        uint64_t last = first + rng_below(&rng, len * 8 - first);
        uint64_t all = 0, part = 0;
        for (uint64_t bit = 0; bit < len * 8; bit++) {
            all += bit_at(s, bit);
            part += bit >= first && bit <= last && bit_at(s, bit);
        }
        ck_assert_uint_eq(bits_count(s), all);
        ck_assert_uint_eq(bits_count_range(s, first, last), part);
    }
}
END_TEST

START_TEST(counts_a_long_run_of_ones_without_overflow) {
    static char ones[1 << 20];
    memset(ones, 0xff, sizeof(ones));
    ck_assert_uint_eq(bits_count(bytes_of(ones, sizeof(ones))), 8 * sizeof(ones));
    ck_assert_uint_eq(bits_count(bytes_of(ones + 1, sizeof(ones) - 2)), 8 * sizeof(ones) - 16);
    ck_assert_uint_eq(bits_count(bytes_of(ones, 0)), 0);
}
END_TEST

static int64_t find_slowly(struct bytes s, uint64_t first, uint64_t last, bool value) {
    for (uint64_t bit = first; bit <= last; bit++) {
        if (bit_at(s, bit) == value) {
            return (int64_t)bit;
        }
    }
    return -1;
}

START_TEST(finds_as_one_by_one) {
    struct rng rng = test_rng();
    char text[100];
    for (uint32_t round = 0; round < 20000; round++) {
        size_t len = 1 + rng_below(&rng, sizeof(text));
        struct bytes s = random_bytes(&rng, text, len, round % 2 ? 0xff : 0);
        uint64_t first = rng_below(&rng, len * 8);
        uint64_t last = first + rng_below(&rng, len * 8 - first);
        for (int value = 0; value < 2; value++) {
            ck_assert_int_eq(bits_find(s, first, last, value), find_slowly(s, first, last, value));
        }
    }
}
END_TEST

static uint8_t combine_slowly(enum bits_op op, uint8_t a, uint8_t b) {
    switch (op) {
    case BITS_AND:
        return a & b;
    case BITS_OR:
        return a | b;
    case BITS_XOR:
        return a ^ b;
    case BITS_NOT:
        return (uint8_t)~b;
    }
    return 0;
}

START_TEST(combines_as_byte_by_byte) {
    struct rng rng = test_rng();
    char dst[400], src[400], before[400];
    for (uint32_t round = 0; round < 2000; round++) {
        size_t len = rng_below(&rng, sizeof(dst));
        size_t src_len = rng_below(&rng, len + 1);
        enum bits_op op = (enum bits_op)(round % 4);
        random_bytes(&rng, dst, len, (uint8_t)round);
        random_bytes(&rng, src, src_len, 0x5a);
        memcpy(before, dst, len);
        bits_combine(op, dst, len, bytes_of(src, src_len));
        for (size_t i = 0; i < len; i++) {
            uint8_t was = (uint8_t)before[i];
            uint8_t wanted =
                i < src_len ? combine_slowly(op, was, (uint8_t)src[i]) : (op == BITS_AND ? 0 : was);
            ck_assert_uint_eq((uint8_t)dst[i], wanted);
        }
    }
}
END_TEST

START_TEST(an_integer_of_any_width_reads_back_and_disturbs_nothing) {
    struct rng rng = test_rng();
    for (uint32_t width = 1; width <= 64; width++) {
        for (uint32_t shift = 0; shift < 8; shift++) {
            uint8_t field[BITS_FIELD_LEN], before[BITS_FIELD_LEN];
            uint64_t value = rng_next(&rng) >> (64 - width);
            for (uint32_t i = 0; i < BITS_FIELD_LEN; i++) {
                before[i] = field[i] = (uint8_t)rng_next(&rng);
            }
            bits_set(field, shift, width, value);
            ck_assert_uint_eq(bits_get(field, shift, width), value);
            struct bytes now = bytes_of((const char *)field, sizeof(field));
            struct bytes then = bytes_of((const char *)before, sizeof(before));
            for (uint64_t bit = 0; bit < 8 * BITS_FIELD_LEN; bit++) {
                bool inside = bit >= shift && bit < shift + width;
                ck_assert(inside || bit_at(now, bit) == bit_at(then, bit));
            }
        }
    }
}
END_TEST

CHECK_MAIN("bits", counts_as_one_by_one, counts_a_long_run_of_ones_without_overflow,
           finds_as_one_by_one, combines_as_byte_by_byte,
           an_integer_of_any_width_reads_back_and_disturbs_nothing)
