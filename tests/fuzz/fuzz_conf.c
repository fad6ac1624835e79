/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The input is a configuration file. What is accepted must come back the same when it is printed and read again, both
 * as a file (conf_rewrite's lines) and as CONFIG GET and CONFIG SET pass it on.
 */
#include "server/base/conf_priv.h"
#include "tests/fuzz/fuzz.h"

#include "server/base/assert.h"

static void print_all(const struct conf *c, struct buf *out) {
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        conf_format_line(c, (enum conf_id)id, out);
        buf_append_str(out, "\n");
    }
}

static void check_same(const struct conf *a, const struct conf *b) {
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        dc_assert(conf_same(a, b, (enum conf_id)id));
    }
}

static void check_file(const struct conf *c) {
    struct conf again;
    struct buf text;
    conf_init(&again);
    buf_init(&text, 0);
    print_all(c, &text);
    enum dc_err err = conf_read_text(&again, buf_bytes(&text), "again");
    dc_assert(err == DC_OK);
    check_same(c, &again);
    buf_fini(&text);
    conf_fini(&again);
}

static void check_set(const struct conf *c) {
    struct conf again;
    struct conf_why why;
    conf_init(&again);
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        struct buf value;
        buf_init(&value, 0);
        conf_format(c, (enum conf_id)id, &value);
        bool fits = conf_put(&again, (enum conf_id)id, buf_bytes(&value), &why);
        dc_assert(fits);
        buf_fini(&value);
    }
    check_same(c, &again);
    conf_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    struct conf c;
    conf_init(&c);
    if (conf_read_text(&c, bytes_of((const char *)data, len), "input") == DC_OK) {
        check_file(&c);
        check_set(&c);
    } else {
        dc_assert(strlen(dc_fail_take(DC_ECONF)) > 0);
    }
    conf_fini(&c);
    return 0;
}
