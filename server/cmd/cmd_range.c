/* SPDX-License-Identifier: BSD-3-Clause */
/* Parts of strings: APPEND STRLEN SETRANGE GETRANGE SUBSTR. */
#include "server/cmd/handlers.h"
#include "server/cmd/str.h"

enum dc_err cmd_append(struct cmd_ctx *ctx) {
    struct entry *old;
    struct bytes tail = ctx->argv[2];
    enum dc_err err = str_find(ctx, 0, &old);
    if (err != DC_OK) {
        return err;
    }
    size_t len = str_len(old);
    if (old == NULL) {
        /* As SET would keep it: it may be an integer. */
        err = str_put_arg(ctx, 0, NULL, 2, EXPIRY_NONE, "append");
    } else {
        err = str_check_end(ctx, len, tail.len);
        if (err == DC_OK) {
            err = str_write(ctx, 0, old, len, tail, "append");
        }
    }
    reply_int(ctx->reply, (int64_t)(len + tail.len));
    return err;
}

enum dc_err cmd_strlen(struct cmd_ctx *ctx) {
    struct entry *e;
    enum dc_err err = str_read(ctx, 0, &e);
    reply_int(ctx->reply, (int64_t)str_len(e));
    return err;
}

enum dc_err cmd_setrange(struct cmd_ctx *ctx) {
    struct entry *old;
    int64_t offset;
    struct bytes bytes = ctx->argv[3];
    enum dc_err err = ctx_arg_i64(ctx, 2, &offset);
    if (err != DC_OK) {
        return err;
    }
    if (offset < 0) {
        return DC_EOFFSET;
    }
    err = str_find(ctx, 0, &old);
    if (err != DC_OK) {
        return err;
    }
    size_t len = str_len(old);
    if (bytes.len == 0) {
        reply_int(ctx->reply, (int64_t)len);
        return DC_OK;
    }
    err = str_check_end(ctx, (uint64_t)offset, bytes.len);
    if (err == DC_OK) {
        err = str_write(ctx, 0, old, (uint64_t)offset, bytes, "setrange");
    }
    size_t end = (size_t)offset + bytes.len;
    reply_int(ctx->reply, (int64_t)(end > len ? end : len));
    return err;
}

/* Answers 'len' bytes of a string from 'start' on; a long part of a blob goes by reference. */
static void reply_part(struct cmd_ctx *ctx, const struct entry *e, size_t start, size_t len) {
    char scratch[NUM_I64_TEXT_MAX];
    struct value v;
    entry_value(e, &v);
    if (v.kind == VALUE_BLOB && len >= BLOB_MIN_LEN) {
        reply_bulk_begin(ctx->reply, len);
        ctx->reply->take_blob(ctx->reply, v.blob, start, len);
        reply_bulk_end(ctx->reply);
        return;
    }
    reply_bulk(ctx->reply, bytes_of(value_bytes(&v, scratch).ptr + start, len));
}

enum dc_err cmd_getrange(struct cmd_ctx *ctx) {
    struct entry *e;
    int64_t start, end;
    if (ctx_arg_i64(ctx, 2, &start) != DC_OK || ctx_arg_i64(ctx, 3, &end) != DC_OK) {
        return DC_ENOTINT;
    }
    enum dc_err err = str_read(ctx, 0, &e);
    if (err != DC_OK) {
        return err;
    }
    bool is_empty = start < 0 && end < 0 && start > end;
    str_clamp(&start, &end, (int64_t)str_len(e));
    if (is_empty || start > end) {
        reply_bulk(ctx->reply, BYTES(""));
    } else {
        reply_part(ctx, e, (size_t)start, (size_t)(end - start) + 1);
    }
    return DC_OK;
}

enum dc_err cmd_substr(struct cmd_ctx *ctx) {
    return cmd_getrange(ctx);
}
