/* SPDX-License-Identifier: BSD-3-Clause */
/* conf_case: a configuration that a test begins with, and what it looks at. For test_conf.c and test_conf_text.c. */
#ifndef TESTS_UNIT_CONF_CASE_H
#define TESTS_UNIT_CONF_CASE_H

#include "server/base/conf.h"
#include "server/base/limits.h"
#include "tests/support/check_main.h"

#include <string.h>

static struct conf conf;

static inline void begin(void) {
    conf_init(&conf);
}

static inline void end(void) {
    conf_fini(&conf);
}

/* What conf_each() said last, and how often. */
static char value_text[CONF_VALUE_MAX + 1];
static int value_count;
static char name_text[128];

static inline void keep_value(void *arg, struct bytes name, struct bytes value) {
    (void)arg;
    snprintf(name_text, sizeof(name_text), "%.*s", (int)name.len, name.ptr);
    snprintf(value_text, sizeof(value_text), "%.*s", (int)value.len, value.ptr);
    value_count++;
}

/* CONFIG GET name */
static inline const char *value_of(const char *name) {
    struct bytes pattern = bytes_str(name);
    value_count = 0;
    conf_each(&conf, &pattern, 1, keep_value, NULL);
    return value_count == 1 ? value_text : NULL;
}

static inline void expect_set(const char *name, const char *value, const char *wanted) {
    struct bytes pair[] = {bytes_str(name), bytes_str(value)};
    enum dc_err err = conf_set(&conf, pair, 1);
    ck_assert_msg(err == DC_OK, "%s %s: %s", name, value, dc_fail_take(err));
    ck_assert_str_eq(value_of(name), wanted);
}

static inline void read_good(const char *text) {
    enum dc_err err = conf_read_text(&conf, bytes_str(text), "test.conf");
    ck_assert_msg(err == DC_OK, "%s", dc_fail_take(err));
}

static inline void read_bad(const char *text, const char *why) {
    ck_assert_int_eq(conf_read_text(&conf, bytes_str(text), "test.conf"), DC_ECONF);
    ck_assert_str_eq(dc_fail_take(DC_ECONF), why);
}

#endif
