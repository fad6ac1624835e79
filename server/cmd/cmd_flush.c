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
    struct warm *warm = ctx->node->warm;
    bool cold = warm != NULL && !warm_is_over(warm);
    if (keyspace_count(ks) == 0 && !cold) {
        return DC_OK;
    }
    enum dc_err err = system_flush(ctx->mut, ks);
    if (err == DC_OK && cold) {
        warm_drop(warm, ks);
    }
    return err;
}

enum dc_err cmd_flushdb(struct cmd_ctx *ctx) {
    enum dc_err err = check_options(ctx);
    if (err == DC_OK) {
        err = flush(ctx, ctx->ks);
    }
    if (err == DC_OK) {
        reply_ok(ctx->reply);
    }
    return err;
}

enum dc_err cmd_flushall(struct cmd_ctx *ctx) {
    struct store *s = ctx->node->store;
    enum dc_err err = check_options(ctx);
    for (uint32_t i = 0; i < store_keyspace_count(s) && err == DC_OK; i++) {
        err = flush(ctx, store_keyspace(s, i));
    }
    if (err == DC_OK) {
        reply_ok(ctx->reply);
    }
    return err;
}
