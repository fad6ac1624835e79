/* SPDX-License-Identifier: BSD-3-Clause */
/* FLUSHDB and FLUSHALL: entries are dead at once; the sweep and later commands reclaim their memory. */
#include "server/cmd/client.h"
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"
#include "server/store/system.h"

/* ASYNC and SYNC are taken; there is only the one way. */
static enum dc_err check_options(struct cmd_ctx *ctx) {
    if (ctx->argc > 2 ||
        (ctx->argc == 2 && !ctx_arg_is(ctx, 1, "async") && !ctx_arg_is(ctx, 1, "sync"))) {
        return DC_ESYNTAX;
    }
    return DC_OK;
}

static enum dc_err flush(struct cmd_ctx *ctx, struct keyspace *ks) {
    if (keyspace_count(ks) == 0 && warm_is_over(ctx->node->warm)) {
        return DC_OK;
    }
    return system_flush(ctx->mut, ks);
}

/* What is cold of databases that effects from 'first' on flush isn't loaded. That can't be taken back, so the frame's memory comes first. */
static enum dc_err drop_cold(struct cmd_ctx *ctx, uint32_t first) {
    struct warm *warm = ctx->node->warm;
    if (warm_is_over(warm)) {
        return DC_OK;
    }
    enum dc_err err = log_reserve(ctx->worker->feed, ctx->mut);
    for (uint32_t i = first; i < ctx->mut->count && err == DC_OK; i++) {
        if (ctx->mut->effects[i].kind == MUT_FLUSH) {
            warm_drop(warm, ctx->mut->effects[i].ks);
        }
    }
    return err;
}

enum dc_err cmd_flushdb(struct cmd_ctx *ctx) {
    uint32_t first = ctx->mut->count;
    enum dc_err err = check_options(ctx);
    err = err != DC_OK ? err : flush(ctx, ctx->ks);
    err = err != DC_OK ? err : drop_cold(ctx, first);
    if (err == DC_OK) {
        reply_ok(ctx->reply);
    }
    return err;
}

enum dc_err cmd_flushall(struct cmd_ctx *ctx) {
    struct store *s = ctx->node->store;
    uint32_t first = ctx->mut->count;
    enum dc_err err = check_options(ctx);
    for (uint32_t i = 0; i < store_keyspace_count(s) && err == DC_OK; i++) {
        err = flush(ctx, store_keyspace(s, i));
    }
    err = err != DC_OK ? err : drop_cold(ctx, first);
    if (err == DC_OK) {
        reply_ok(ctx->reply);
    }
    return err;
}
