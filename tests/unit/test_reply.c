/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/proto/reply.h"

#include <check.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static struct buf out;
static struct reply in2 = {.out = &out, .proto = REPLY_RESP2};
static struct reply in3 = {.out = &out, .proto = REPLY_RESP3};

static void setup(void) {
    buf_init(&out, 0);
}

static void teardown(void) {
    buf_fini(&out);
}

/* What was written since the last call. */
static void expect(const char *wanted) {
    buf_append(&out, "", 1);
    ck_assert_str_eq(out.ptr, wanted);
    out.len = 0;
}

START_TEST(simple_values_are_alike_in_both) {
    struct reply *both[] = {&in2, &in3};
    for (int i = 0; i < 2; i++) {
        struct reply *r = both[i];
        reply_ok(r);
        reply_status(r, "PONG");
        reply_status(r, "");
        expect("+OK\r\n+PONG\r\n+\r\n");
        reply_bulk(r, BYTES("hello"));
        reply_bulk(r, bytes_of(NULL, 0));
        reply_bulk_str(r, "a\r\nb");
        expect("$5\r\nhello\r\n$0\r\n\r\n$4\r\na\r\nb\r\n");
        reply_bulk_i64(r, -12);
        reply_bulk_f64(r, 0.1);
        expect("$3\r\n-12\r\n$19\r\n0.10000000000000001\r\n");
        reply_bulk_begin(r, 3);
        buf_append(r->out, "abc", 3);
        reply_bulk_end(r);
        expect("$3\r\nabc\r\n");
        reply_array(r, 0);
        reply_array(r, 3);
        expect("*0\r\n*3\r\n");
    }
}
END_TEST

START_TEST(integers_are_decimals) {
    static const int64_t values[] = {
        0,   1,    9,     10,        11,        99,        100,       101,
        999, 1000, 12345, 999999999, INT32_MAX, INT64_MAX, INT64_MIN, INT64_MIN + 1,
        -1,  -9,   -10,   -100,
    };
    for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
        char wanted[64];
        snprintf(wanted, sizeof(wanted), ":%" PRId64 "\r\n", values[i]);
        reply_int(&in2, values[i]);
        expect(wanted);
    }
}
END_TEST

START_TEST(bulks_of_every_length_are_framed) {
    static char value[1200];
    memset(value, 'v', sizeof(value));
    for (size_t len = 0; len <= sizeof(value); len++) {
        char head[32];
        int head_len = snprintf(head, sizeof(head), "$%zu\r\n", len);
        out.len = 0;
        reply_bulk(&in2, bytes_of(value, len));
        ck_assert_uint_eq(out.len, (size_t)head_len + len + 2);
        ck_assert_mem_eq(out.ptr, head, (size_t)head_len);
        ck_assert_mem_eq(out.ptr + head_len, value, len);
        ck_assert_mem_eq(out.ptr + head_len + len, "\r\n", 2);
    }
}
END_TEST

START_TEST(nulls) {
    reply_null(&in2);
    reply_null_array(&in2);
    expect("$-1\r\n*-1\r\n");
    reply_null(&in3);
    reply_null_array(&in3);
    expect("_\r\n_\r\n");
}
END_TEST

START_TEST(booleans) {
    reply_bool(&in2, true);
    reply_bool(&in2, false);
    expect(":1\r\n:0\r\n");
    reply_bool(&in3, true);
    reply_bool(&in3, false);
    expect("#t\r\n#f\r\n");
}
END_TEST

START_TEST(doubles_have_seventeen_digits) {
    static const double values[] = {3.141, 0.1, 1e20, 1e-7, 123456789.123, 3, -0.0};
    for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
        reply_double(&in2, values[i]);
    }
    expect("$5\r\n3.141\r\n$19\r\n0.10000000000000001\r\n$5\r\n1e+20\r\n"
           "$22\r\n9.9999999999999995e-08\r\n$13\r\n123456789.123\r\n$1\r\n3\r\n$2\r\n-0\r\n");
    for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
        reply_double(&in3, values[i]);
    }
    expect(",3.141\r\n,0.10000000000000001\r\n,1e+20\r\n,9.9999999999999995e-08\r\n"
           ",123456789.123\r\n,3\r\n,-0\r\n");
}
END_TEST

START_TEST(infinite_doubles_have_names) {
    reply_double(&in2, INFINITY);
    reply_double(&in2, -INFINITY);
    expect("$3\r\ninf\r\n$4\r\n-inf\r\n");
    reply_double(&in3, INFINITY);
    reply_double(&in3, -INFINITY);
    reply_double(&in3, NAN);
    expect(",inf\r\n,-inf\r\n,nan\r\n");
}
END_TEST

START_TEST(verbatim_text_names_its_kind) {
    struct bytes text = BYTES("This is a verbatim\nstring");
    reply_verbatim(&in2, text, "txt");
    expect("$25\r\nThis is a verbatim\nstring\r\n");
    reply_verbatim(&in3, text, "txt");
    expect("=29\r\ntxt:This is a verbatim\nstring\r\n");
    reply_verbatim(&in3, BYTES(""), "m");
    expect("=4\r\nm  :\r\n");
    reply_verbatim(&in3, BYTES("x"), "markdown");
    expect("=5\r\nmar:x\r\n");
}
END_TEST

START_TEST(containers) {
    reply_map(&in2, 7);
    reply_set(&in2, 2);
    reply_push(&in2, 3);
    expect("*14\r\n*2\r\n*3\r\n");
    reply_map(&in3, 7);
    reply_set(&in3, 2);
    reply_push(&in3, 3);
    expect("%7\r\n~2\r\n>3\r\n");
    reply_map(&in2, 1000000);
    reply_map(&in3, 1000000);
    expect("*2000000\r\n%1000000\r\n");
}
END_TEST

START_TEST(an_error_is_its_prefix_and_text) {
    reply_error(&in2, DC_ESYNTAX);
    reply_error(&in3, DC_EWRONGTYPE);
    expect("-ERR syntax error\r\n"
           "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n");
    ck_assert_int_eq(dc_fail(DC_ESYNTAX, "of %s", "mine"), DC_ESYNTAX);
    reply_error(&in2, DC_ESYNTAX);
    reply_error(&in2, DC_ESYNTAX);
    expect("-ERR of mine\r\n-ERR syntax error\r\n");
}
END_TEST

START_TEST(an_error_is_one_line) {
    reply_error_text(&in2, "ERR", "a\r\nb\nc\rd");
    expect("-ERR a  b c d\r\n");
    reply_error_fmt(&in2, "ERR", "unknown command '%s', with args beginning with: %s", "A\r\nBC",
                    "");
    expect("-ERR unknown command 'A  BC', with args beginning with: \r\n");
    reply_error_text(&in2, "ERR", "\r\n both \nends\n\r\n");
    expect("-ERR  both  ends\r\n");
    reply_error_text(&in2, "ERR", "\n\r\n");
    reply_error_text(&in2, "ERR", "");
    expect("-ERR \r\n-ERR \r\n");
    reply_int(&in2, 1);
    reply_error_text(&in2, "ERR", "what came before stays");
    expect(":1\r\n-ERR what came before stays\r\n");
}
END_TEST

START_TEST(a_full_buffer_is_remembered) {
    struct buf small;
    buf_init(&small, 64);
    struct reply r = {.out = &small, .proto = REPLY_RESP3};
    static char value[100];
    reply_ok(&r);
    reply_bulk(&r, bytes_of(value, sizeof(value)));
    ck_assert(small.failed);
    ck_assert(bytes_equal(buf_bytes(&small), BYTES("+OK\r\n")));
    while (small.len + 5 <= 64) {
        reply_ok(&r);
    }
    size_t len = small.len;
    reply_status(&r, "PONG");
    reply_int(&r, 12345);
    reply_null(&r);
    reply_null_array(&r);
    reply_double(&r, 1.5);
    reply_error_fmt(&r, "ERR", "%s", "a text that is too long");
    ck_assert(small.failed);
    ck_assert_uint_ge(small.len, len);
    ck_assert_uint_le(small.len, 64);
    buf_fini(&small);
}
END_TEST

static Suite *reply_suite(void) {
    Suite *suite = suite_create("reply");
    TCase *tcase = tcase_create("reply");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, simple_values_are_alike_in_both);
    tcase_add_test(tcase, integers_are_decimals);
    tcase_add_test(tcase, bulks_of_every_length_are_framed);
    tcase_add_test(tcase, nulls);
    tcase_add_test(tcase, booleans);
    tcase_add_test(tcase, doubles_have_seventeen_digits);
    tcase_add_test(tcase, infinite_doubles_have_names);
    tcase_add_test(tcase, verbatim_text_names_its_kind);
    tcase_add_test(tcase, containers);
    tcase_add_test(tcase, an_error_is_its_prefix_and_text);
    tcase_add_test(tcase, an_error_is_one_line);
    tcase_add_test(tcase, a_full_buffer_is_remembered);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    SRunner *runner = srunner_create(reply_suite());
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
