/* SPDX-License-Identifier: BSD-3-Clause */
/* The times of keys: EXPIRE and its relatives, TTL and its relatives, PERSIST. */
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"

enum { MS = 1, SECOND_MS = 1000 };

struct expire_if {
    bool none;    /* NX: only where there is no expiry */
    bool some;    /* XX: only where there is one */
    bool greater; /* GT, LT: only later, only sooner; no expiry is later than any */
    bool less;
};

static enum dc_err parse_conditions(struct cmd_ctx *ctx, struct expire_if *out) {
    *out = (struct expire_if){.none = false};
    for (uint32_t i = 3; i < ctx->argc; i++) {
        struct bytes word = ctx->argv[i];
        if (ctx_arg_is(ctx, i, "nx")) {
            out->none = true;
        } else if (ctx_arg_is(ctx, i, "xx")) {
            out->some = true;
        } else if (ctx_arg_is(ctx, i, "gt")) {
            out->greater = true;
        } else if (ctx_arg_is(ctx, i, "lt")) {
            out->less = true;
        } else {
            return dc_fail(
                DC_EGENERIC, "Unsupported option %.*s",
                (int)strnlen(word.ptr, word.len < ERR_TEXT_MAX ? word.len : ERR_TEXT_MAX),
                word.ptr);
        }
    }
    if (out->none && (out->some || out->greater || out->less)) {
        return dc_fail(DC_EGENERIC,
                       "NX and XX, GT or LT options at the same time are not compatible");
    }
    if (out->greater && out->less) {
        return dc_fail(DC_EGENERIC, "GT and LT options at the same time are not compatible");
    }
    return DC_OK;
}

/* Argument 2 as a time in milliseconds. */
static enum dc_err parse_when(struct cmd_ctx *ctx, int64_t base_ms, int64_t unit_ms, int64_t *out) {
    enum dc_err err = ctx_arg_i64(ctx, 2, out);
    if (err != DC_OK) {
        return err;
    }
    if (__builtin_mul_overflow(*out, unit_ms, out) || __builtin_add_overflow(*out, base_ms, out)) {
        return dc_fail(DC_EGENERIC, "invalid expire time in '%s' command", ctx->cmd->name);
    }
    return DC_OK;
}

static bool conditions_hold(const struct expire_if *only, int64_t old_ms, int64_t new_ms) {
    if (old_ms == EXPIRY_NONE) {
        return !only->some && !only->greater;
    }
    return !only->none && !(only->greater && new_ms <= old_ms) && !(only->less && new_ms >= old_ms);
}

/* A time that has passed deletes the key. */
static enum dc_err set_expiry(struct cmd_ctx *ctx, const struct entry *e, int64_t when_ms) {
    bool past = when_ms <= ctx->now_ms;
    enum dc_err err = past ? ctx_del(ctx, 0) : ctx_expire(ctx, 0, e, when_ms);
    if (err == DC_OK) {
        ctx_notify(ctx, NOTIFY_GENERIC, past ? "del" : "expire", ctx->keys[0].name);
    }
    return err;
}

static enum dc_err expire(struct cmd_ctx *ctx, int64_t base_ms, int64_t unit_ms) {
    struct expire_if only;
    int64_t when_ms;
    enum dc_err err = parse_conditions(ctx, &only);
    if (err == DC_OK) {
        err = parse_when(ctx, base_ms, unit_ms, &when_ms);
    }
    if (err != DC_OK) {
        return err;
    }
    const struct entry *e = ctx_find(ctx, 0);
    if (e == NULL || !conditions_hold(&only, entry_expiry(e), when_ms)) {
        reply_int(ctx->reply, 0);
        return DC_OK;
    }
    err = set_expiry(ctx, e, when_ms);
    if (err == DC_OK) {
        reply_int(ctx->reply, 1);
    }
    return err;
}

enum dc_err cmd_expire(struct cmd_ctx *ctx) {
    return expire(ctx, ctx->now_ms, SECOND_MS);
}

enum dc_err cmd_pexpire(struct cmd_ctx *ctx) {
    return expire(ctx, ctx->now_ms, MS);
}

enum dc_err cmd_expireat(struct cmd_ctx *ctx) {
    return expire(ctx, 0, SECOND_MS);
}

enum dc_err cmd_pexpireat(struct cmd_ctx *ctx) {
    return expire(ctx, 0, MS);
}

/* -2: no key, -1: no expiry. Rounds to the nearest unit. */
static enum dc_err reply_ttl(struct cmd_ctx *ctx, int64_t base_ms, int64_t unit_ms) {
    const struct entry *e = ctx_peek(ctx, 0);
    if (e == NULL || !entry_has_expiry(e)) {
        reply_int(ctx->reply, e == NULL ? -2 : -1);
        return DC_OK;
    }
    uint64_t rounded = (uint64_t)(entry_expiry(e) - base_ms) + (uint64_t)(unit_ms / 2);
    reply_int(ctx->reply, (int64_t)(rounded / (uint64_t)unit_ms));
    return DC_OK;
}

enum dc_err cmd_ttl(struct cmd_ctx *ctx) {
    return reply_ttl(ctx, ctx->now_ms, SECOND_MS);
}

enum dc_err cmd_pttl(struct cmd_ctx *ctx) {
    return reply_ttl(ctx, ctx->now_ms, MS);
}

enum dc_err cmd_expiretime(struct cmd_ctx *ctx) {
    return reply_ttl(ctx, 0, SECOND_MS);
}

enum dc_err cmd_pexpiretime(struct cmd_ctx *ctx) {
    return reply_ttl(ctx, 0, MS);
}

enum dc_err cmd_persist(struct cmd_ctx *ctx) {
    const struct entry *e = ctx_find(ctx, 0);
    if (e == NULL || !entry_has_expiry(e)) {
        reply_int(ctx->reply, 0);
        return DC_OK;
    }
    enum dc_err err = ctx_expire(ctx, 0, e, EXPIRY_NONE);
    if (err == DC_OK) {
        ctx_notify(ctx, NOTIFY_GENERIC, "persist", ctx->keys[0].name);
        reply_int(ctx->reply, 1);
    }
    return err;
}
