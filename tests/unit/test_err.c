/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/assert.h"
#include "server/base/err.h"
#include "server/base/limits.h"
#include "tests/support/check_main.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

START_TEST(an_error_without_a_record_has_the_text_of_the_table) {
    ck_assert_str_eq(dc_fail_take(DC_ENOTINT), "value is not an integer or out of range");
    ck_assert_str_eq(dc_fail_where(), "");
}
END_TEST

START_TEST(a_record_is_taken_once) {
    ck_assert_int_eq(dc_fail(DC_ECONF, "port %d is taken", 6379), DC_ECONF);
    ck_assert_str_eq(dc_fail_take(DC_EIO), "input/output error"); /* another code: stays */
    ck_assert_str_eq(dc_fail_take(DC_ECONF), "port 6379 is taken");
    ck_assert_str_eq(dc_fail_take(DC_ECONF), "configuration error");
}
END_TEST

START_TEST(a_record_says_where_it_was_born) {
    int line = __LINE__ + 1;
    ck_assert_int_eq(dc_fail(DC_EIO, "x"), DC_EIO);
    char wanted[256];
    snprintf(wanted, sizeof(wanted), "%s:%d", __FILE__, line);
    ck_assert_str_eq(dc_fail_where(), wanted);
}
END_TEST

START_TEST(a_long_text_is_cut) {
    char longer[2 * ERR_TEXT_MAX];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    ck_assert_int_eq(dc_fail(DC_EIO, "%s", longer), DC_EIO);
    ck_assert_uint_eq(strlen(dc_fail_take(DC_EIO)), ERR_TEXT_MAX - 1);
}
END_TEST

static void *take_elsewhere(void *arg) {
    (void)arg;
    ck_assert_str_eq(dc_fail_take(DC_EIO), "input/output error");
    return NULL;
}

START_TEST(a_record_belongs_to_its_thread) {
    ck_assert_int_eq(dc_fail(DC_EIO, "mine"), DC_EIO);
    pthread_t id;
    ck_assert_int_eq(pthread_create(&id, NULL, take_elsewhere, NULL), 0);
    pthread_join(id, NULL);
    ck_assert_str_eq(dc_fail_take(DC_EIO), "mine");
}
END_TEST

START_TEST(each_code_has_its_row) {
    ck_assert_str_eq(dc_err_name(DC_OK), "OK");
    ck_assert_str_eq(dc_err_name(DC_EWRONGTYPE), "EWRONGTYPE");
    ck_assert_str_eq(dc_err_prefix(DC_EWRONGTYPE), "WRONGTYPE");
    ck_assert_str_eq(dc_err_name(DC_ELIMIT), "ELIMIT");
    ck_assert(dc_err_retryable(DC_EIO));
    ck_assert(!dc_err_retryable(DC_ESYNTAX));
    for (int code = 0; code < DC_ERR_COUNT; code++) {
        ck_assert_uint_gt(strlen(dc_err_prefix((enum dc_err)code)), 1);
        ck_assert_uint_gt(strlen(dc_err_text((enum dc_err)code)), 5);
    }
}
END_TEST

START_TEST(the_system_is_quoted) {
    ck_assert_str_eq(dc_errno_text(ENOENT), "No such file or directory");
    ck_assert_str_eq(dc_errno_text(987654), "unknown error");
}
END_TEST

static void fail_assertion(void *arg) {
    dc_assert(arg != NULL);
}

static void fail_long_assertion(void *arg) {
    (void)arg;
    char expr[2000];
    memset(expr, 'x', sizeof(expr) - 1);
    expr[sizeof(expr) - 1] = '\0';
    dc_assert_failed(expr, "file.c", 1);
}

static void reach_the_unreachable(void *arg) {
    (void)arg;
    dc_unreachable();
}

static void name_no_code(void *arg) {
    (void)arg;
    puts(dc_err_name(DC_ERR_COUNT));
}

static void fail_without_error(void *arg) {
    (void)arg;
    puts(dc_err_text(dc_fail(DC_OK, "fine")));
}

START_TEST(what_must_not_be_ends_the_process) {
    int something;
    ck_assert(!test_aborts(fail_assertion, &something));
    ck_assert(test_aborts(fail_assertion, NULL));
    ck_assert(test_aborts(fail_long_assertion, NULL));
    ck_assert(test_aborts(reach_the_unreachable, NULL));
    ck_assert(test_aborts(name_no_code, NULL));
    ck_assert(test_aborts(fail_without_error, NULL));
}
END_TEST

CHECK_MAIN("err", an_error_without_a_record_has_the_text_of_the_table, a_record_is_taken_once,
           a_record_says_where_it_was_born, a_long_text_is_cut, a_record_belongs_to_its_thread,
           each_code_has_its_row, the_system_is_quoted, what_must_not_be_ends_the_process)
