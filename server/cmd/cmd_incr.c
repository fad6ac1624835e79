/* SPDX-License-Identifier: BSD-3-Clause */
/* Counting: INCR DECR INCRBY DECRBY INCRBYFLOAT. The effect is the result, with the expiry that the entry has. */
#include "server/base/assert.h"
#include "server/cmd/handlers.h"
#include "server/cmd/str.h"

#include <math.h>

/* The integer that an entry holds; none counts as 0. Errors: DC_ENOTINT. */
static enum dc_err integer_of(const struct entry *e, int64_t *out) {
    struct value v = value_int(0);
    if (e != NULL) {
        entry_value(e, &v);
    }
    switch (v.kind) {
    case VALUE_INT:
        *out = v.num;
        return DC_OK;
    case VALUE_STR:
    case VALUE_RAW:
        return num_parse_i64(v.str, out) ? DC_OK : DC_ENOTINT;
    case VALUE_BLOB:
        return DC_ENOTINT;
    }
    dc_unreachable();
}

static enum dc_err add(struct cmd_ctx *ctx, int64_t change) {
    struct entry *old;
    struct value v = value_int(0);
    enum dc_err err = str_find(ctx, 0, &old);
    if (err == DC_OK) {
        err = integer_of(old, &v.num);
    }
    if (err != DC_OK) {
        return err;
    }
    if (__builtin_add_overflow(v.num, change, &v.num)) {
        return DC_EOVERFLOW;
    }
    err = str_put(ctx, 0, old, &v, str_expiry(old), "incrby");
    reply_int(ctx->reply, v.num);
    return err;
}

enum dc_err cmd_incr(struct cmd_ctx *ctx) {
    return add(ctx, 1);
}

enum dc_err cmd_decr(struct cmd_ctx *ctx) {
    return add(ctx, -1);
}

enum dc_err cmd_incrby(struct cmd_ctx *ctx) {
    int64_t change;
    enum dc_err err = ctx_arg_i64(ctx, 2, &change);
    return err != DC_OK ? err : add(ctx, change);
}

enum dc_err cmd_decrby(struct cmd_ctx *ctx) {
    int64_t change;
    enum dc_err err = ctx_arg_i64(ctx, 2, &change);
    if (err != DC_OK) {
        return err;
    }
    if (change == INT64_MIN) {
        return dc_fail(DC_EGENERIC, "decrement would overflow");
    }
    return add(ctx, -change);
}

enum dc_err cmd_incrbyfloat(struct cmd_ctx *ctx) {
    char scratch[NUM_I64_TEXT_MAX];
    struct entry *old;
    long double value = 0, change;
    enum dc_err err = str_find(ctx, 0, &old);
    if (err != DC_OK) {
        return err;
    }
    if ((old != NULL && !num_parse_ld(ctx_entry_bytes(old, scratch), &value)) ||
        !num_parse_ld(ctx->argv[2], &change)) {
        return DC_ENOTFLOAT;
    }
    value += change;
    if (isnan(value) || isinf(value)) {
        return DC_ENANINF;
    }
    char text[NUM_LD_TEXT_MAX];
    size_t len = num_format_ld(text, sizeof(text), value);
    char *kept = memcpy(ctx_alloc(ctx, len), text, len);
    /* Text even when it is whole, as Redis has it. */
    struct value v = {.kind = VALUE_STR, .str = bytes_of(kept, len)};
    err = str_put(ctx, 0, old, &v, str_expiry(old), "incrbyfloat");
    reply_bulk(ctx->reply, v.str);
    return err;
}
