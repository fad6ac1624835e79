/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/num.h"
#include "tests/support/check_main.h"

#include <math.h>
#include <string.h>

static void expect_i64(int64_t value) {
    char mine[NUM_I64_TEXT_MAX], wanted[32];
    size_t len = num_format_i64(mine, value);
    snprintf(wanted, sizeof(wanted), "%" PRId64, value);
    ck_assert_uint_eq(len, strlen(wanted));
    ck_assert_mem_eq(mine, wanted, len);
    int64_t back;
    ck_assert(num_parse_i64(bytes_of(mine, len), &back));
    ck_assert_int_eq(back, value);
}

static void expect_u64(uint64_t value) {
    char mine[NUM_I64_TEXT_MAX], wanted[32];
    size_t len = num_format_u64(mine, value);
    snprintf(wanted, sizeof(wanted), "%" PRIu64, value);
    ck_assert_uint_eq(len, strlen(wanted));
    ck_assert_mem_eq(mine, wanted, len);
    uint64_t back;
    ck_assert(num_parse_u64(bytes_of(mine, len), &back));
    ck_assert_uint_eq(back, value);
}

START_TEST(integers_go_to_text_and_back) {
    expect_i64(0);
    expect_i64(INT64_MAX);
    expect_i64(INT64_MIN);
    expect_i64(INT64_MIN + 1);
    expect_u64(UINT64_MAX);
    for (uint64_t power = 1;; power *= 10) {
        for (uint64_t near = power - 1; near != power + 2; near++) {
            expect_u64(near);
            expect_i64((int64_t)near);
            expect_i64((int64_t)(0 - near));
        }
        if (power > UINT64_MAX / 10) {
            break;
        }
    }
    struct rng r = test_rng();
    for (int i = 0; i < 20000; i++) {
        uint64_t value = rng_next(&r) >> rng_below(&r, 64);
        expect_u64(value);
        expect_i64((int64_t)value);
    }
}
END_TEST

START_TEST(only_canonical_integers_are_integers) {
    static const char *const wrong[] = {
        "",
        "-",
        "+1",
        " 1",
        "1 ",
        "01",
        "-0",
        "-01",
        "00",
        "1.0",
        "1e3",
        "0x1",
        "--1",
        "a",
        "1a",
        "12a4",
        "\xb1",
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551615",
        "100000000000000000000",
        "99999999999999999999999999",
    };
    int64_t out = 77;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        ck_assert_msg(!num_parse_i64(bytes_str(wrong[i]), &out), "'%s'", wrong[i]);
    }
    ck_assert(!num_parse_i64(bytes_of("1\0", 2), &out));
    ck_assert(!num_parse_i64(bytes_of(NULL, 0), &out));
    ck_assert(num_parse_i64(BYTES("-9223372036854775808"), &out));
    ck_assert_int_eq(out, INT64_MIN);
}
END_TEST

START_TEST(unsigned_integers_have_no_sign) {
    uint64_t out = 0;
    ck_assert(!num_parse_u64(BYTES("-1"), &out));
    ck_assert(!num_parse_u64(BYTES(""), &out));
    ck_assert(!num_parse_u64(BYTES("18446744073709551616"), &out));
    ck_assert(!num_parse_u64(BYTES("20000000000000000000"), &out));
    ck_assert(!num_parse_u64(BYTES("99999999999999999999"), &out));
    ck_assert(!num_parse_u64(BYTES("1844674407370955161:"), &out));
    ck_assert(num_parse_u64(BYTES("18446744073709551615"), &out));
    ck_assert_uint_eq(out, UINT64_MAX);
}
END_TEST

START_TEST(long_doubles_are_read_whole) {
    static const char *const wrong[] = {"",         " 1", "1 ",  "abc", "1.2.3", "nan",
                                        "-nan",     "1e", "\t1", "--1", "1,5",   "1e99999",
                                        "1e-99999", "0x", "+",   "1\n"};
    long double out = 0;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        ck_assert_msg(!num_parse_ld(bytes_str(wrong[i]), &out), "'%s'", wrong[i]);
    }
    ck_assert(!num_parse_ld(bytes_of("1\0", 2), &out));
    ck_assert(num_parse_ld(BYTES("3.0e3"), &out) && out == 3000.0L);
    ck_assert(num_parse_ld(BYTES("+.5"), &out) && out == 0.5L);
    ck_assert(num_parse_ld(BYTES("0x10"), &out) && out == 16.0L);
    ck_assert(num_parse_ld(BYTES("-inf"), &out) && isinf(out) && out < 0);
    ck_assert(num_parse_ld(BYTES("1e400"), &out) && out == 1e400L);
    char many[NUM_LD_TEXT_MAX + 1];
    memset(many, '1', sizeof(many));
    ck_assert(!num_parse_ld(bytes_of(many, NUM_LD_TEXT_MAX), &out));
    ck_assert(!num_parse_ld(bytes_of(many, NUM_LD_TEXT_MAX - 1), &out)); /* infinite */
    memset(many, '0', sizeof(many));
    ck_assert(num_parse_ld(bytes_of(many, NUM_LD_TEXT_MAX - 1), &out) && out == 0);
}
END_TEST

static void expect_ld(long double value, const char *wanted) {
    char text[NUM_LD_TEXT_MAX];
    size_t len = num_format_ld(text, sizeof(text), value);
    ck_assert_uint_eq(len, strlen(wanted));
    ck_assert_mem_eq(text, wanted, len);
}

START_TEST(long_doubles_have_no_exponent) {
    expect_ld(3000.0L, "3000");
    expect_ld(0.1L, "0.1");
    expect_ld(10.6L, "10.6");
    expect_ld(-5.5L, "-5.5");
    expect_ld(0.0L, "0");
    expect_ld(-0.0L, "0");
    expect_ld(1e-20L, "0");
    expect_ld(-1e-20L, "0");
    expect_ld(1e17L, "100000000000000000");
    expect_ld(1.0L / 3, "0.33333333333333333");
    expect_ld((long double)INFINITY, "inf");
    expect_ld(-(long double)INFINITY, "-inf");
    char small[8];
    ck_assert_uint_eq(num_format_ld(small, sizeof(small), 3.0L), 0); /* wants its zeros first */
    ck_assert_uint_eq(num_format_ld(small, 4, (long double)INFINITY), 0);
    char text[NUM_LD_TEXT_MAX];
    ck_assert_uint_eq(num_format_ld(text, sizeof(text), 1e4900L), 4901);
}
END_TEST

static void expect_f64(double value, const char *wanted) {
    char text[NUM_F64_TEXT_MAX];
    size_t len = num_format_f64(text, value);
    ck_assert_uint_eq(len, strlen(wanted));
    ck_assert_mem_eq(text, wanted, len);
}

START_TEST(doubles_have_seventeen_digits) {
    expect_f64(0.1, "0.10000000000000001");
    expect_f64(3, "3");
    expect_f64(-1e300, "-1.0000000000000001e+300");
    expect_f64(INFINITY, "inf");
    expect_f64(-INFINITY, "-inf");
    expect_f64(NAN, "nan");
    expect_f64(-NAN, "nan");
}
END_TEST

static void expect_size(const char *text, int64_t wanted) {
    int64_t out = -1;
    ck_assert_msg(num_parse_size(bytes_str(text), &out), "'%s'", text);
    ck_assert_int_eq(out, wanted);
}

START_TEST(sizes_have_units) {
    expect_size("0", 0);
    expect_size("123", 123);
    expect_size("5b", 5);
    expect_size("1k", 1000);
    expect_size("1kb", 1024);
    expect_size("2M", 2000000);
    expect_size("2Mb", 2 << 20);
    expect_size("3g", 3000000000);
    expect_size("3GB", (int64_t)3 << 30);
    expect_size("9223372036854775807", INT64_MAX);
    static const char *const wrong[] = {"",
                                        "-1",
                                        "kb",
                                        "1t",
                                        "1 kb",
                                        "1.5gb",
                                        "1kbs",
                                        "1bb",
                                        "0x10",
                                        "9223372036854775808",
                                        "9223372036854775799g",
                                        "99999999999999999999"};
    int64_t out;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        ck_assert_msg(!num_parse_size(bytes_str(wrong[i]), &out), "'%s'", wrong[i]);
    }
}
END_TEST

CHECK_MAIN("num", integers_go_to_text_and_back, only_canonical_integers_are_integers,
           unsigned_integers_have_no_sign, long_doubles_are_read_whole,
           long_doubles_have_no_exponent, doubles_have_seventeen_digits, sizes_have_units)
