/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/str.h"

#include "server/base/assert.h"
#include "server/cmd/node.h"

enum dc_err str_read(struct cmd_ctx *ctx, uint32_t i, struct entry **out) {
    *out = ctx_read(ctx, i);
    return str_check(*out);
}

enum dc_err str_find(struct cmd_ctx *ctx, uint32_t i, struct entry **out) {
    *out = ctx_find(ctx, i);
    return str_check(*out);
}

size_t str_len(const struct entry *e) {
    struct value v;
    if (e == NULL) {
        return 0;
    }
    entry_value(e, &v);
    return value_len(&v);
}

uint64_t str_len_max(const struct cmd_ctx *ctx) {
    uint64_t limit = (uint64_t)conf_get(ctx->node->conf, proto_max_bulk_len);
    return limit < VALUE_LEN_MAX ? limit : VALUE_LEN_MAX;
}

enum dc_err str_check_end(const struct cmd_ctx *ctx, uint64_t offset, uint64_t len) {
    uint64_t max = str_len_max(ctx);
    return offset > max || len > max - offset ? DC_ETOOBIG : DC_OK;
}

void str_clamp(int64_t *start, int64_t *end, int64_t len) {
    *start += *start < 0 ? len : 0;
    *end += *end < 0 ? len : 0;
    *start = *start < 0 ? 0 : *start;
    *end = *end < 0 ? 0 : *end;
    *end = *end >= len ? len - 1 : *end;
}

/* --- changes ----------------------------------------------------------------------------------------- */

static inline void tell(struct cmd_ctx *ctx, uint32_t i, const struct entry *old,
                        const char *event) {
    if (dc_likely(atomic_load_explicit(&ctx->node->notify_flags, memory_order_relaxed) == 0)) {
        return;
    }
    if (old == NULL) {
        ctx_notify(ctx, NOTIFY_NEW, "new", ctx->keys[i].name);
    }
    if (event != NULL) {
        ctx_notify(ctx, NOTIFY_STRING, event, ctx->keys[i].name);
    }
}

enum dc_err str_put(struct cmd_ctx *ctx, uint32_t i, const struct entry *old, const struct value *v,
                    int64_t expiry_ms, const char *event) {
    enum dc_err err = ctx_put(ctx, i, old, v, expiry_ms);
    if (dc_likely(err == DC_OK)) {
        tell(ctx, i, old, event);
    }
    return err;
}

enum dc_err str_write(struct cmd_ctx *ctx, uint32_t i, const struct entry *old, uint64_t offset,
                      struct bytes bytes, const char *event) {
    enum dc_err err = ctx_write(ctx, i, old, offset, bytes);
    if (err == DC_OK) {
        tell(ctx, i, old, event);
    }
    return err;
}

enum dc_err str_put_arg(struct cmd_ctx *ctx, uint32_t i, const struct entry *old, uint32_t arg,
                        int64_t expiry_ms, const char *event) {
    struct value v;
    enum dc_err err = ctx_value_of_arg(ctx, arg, &v);
    return dc_unlikely(err != DC_OK) ? err : str_put(ctx, i, old, &v, expiry_ms, event);
}

enum dc_err str_del(struct cmd_ctx *ctx, uint32_t i) {
    enum dc_err err = ctx_del(ctx, i);
    if (err == DC_OK) {
        ctx_notify(ctx, NOTIFY_GENERIC, "del", ctx->keys[i].name);
    }
    return err;
}

/* --- conditions -------------------------------------------------------------------------------------- */

enum dc_err cond_parse(struct cmd_ctx *ctx, enum cond_kind kind, uint32_t arg, struct cond *out) {
    out->kind = kind;
    if (kind == COND_IFVER) {
        return num_parse_u64(ctx->argv[arg], &out->version) ? DC_OK : DC_ENOTINT;
    }
    out->value = ctx->argv[arg];
    return DC_OK;
}

static bool is_value(const struct entry *e, struct bytes text) {
    char scratch[NUM_I64_TEXT_MAX];
    return bytes_equal(ctx_entry_bytes(e, scratch), text);
}

enum dc_err cond_test(const struct cond *c, const struct entry *e, bool *holds) {
    bool compares = c->kind == COND_IFEQ || c->kind == COND_IFNE;
    if (compares && str_check(e) != DC_OK) {
        return DC_EWRONGTYPE;
    }
    switch (c->kind) {
    case COND_NONE:
        *holds = true;
        return DC_OK;
    case COND_NX:
        *holds = e == NULL;
        return DC_OK;
    case COND_XX:
        *holds = e != NULL;
        return DC_OK;
    case COND_IFEQ:
        *holds = e != NULL && is_value(e, c->value);
        return DC_OK;
    case COND_IFNE:
        *holds = e != NULL && !is_value(e, c->value);
        return DC_OK;
    case COND_IFVER:
        /* What this EXEC wrote has version 0 until it ends: it is there, and no version that anybody knows fits. */
        *holds = c->version == 0 ? e == NULL : e != NULL && entry_version(e) == c->version;
        return DC_OK;
    }
    dc_unreachable();
}
