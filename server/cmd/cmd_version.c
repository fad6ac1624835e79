/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Versions: GETVER DELEX LASTVER; SET ... IFVER stands with the other options of SET.
 *
 * Every write gives its entry a version, which rises and is never given twice; 0 stands for what is absent. GETVER
 * reads value and version, SET key value IFVER n and DELEX key IFVER n write if nothing came between, LASTVER tells
 * the version of the connection's last write.
 */
#include "server/cmd/handlers.h"
#include "server/cmd/str.h"

enum dc_err cmd_getver(struct cmd_ctx *ctx) {
    struct entry *e;
    enum dc_err err = str_read(ctx, 0, &e);
    if (err != DC_OK) {
        return err;
    }
    reply_array(ctx->reply, 2);
    ctx_reply_value(ctx, e);
    ctx_reply_version(ctx, e);
    return DC_OK;
}

enum dc_err cmd_lastver(struct cmd_ctx *ctx) {
    ctx_reply_last_version(ctx);
    return DC_OK;
}

static enum dc_err delex_parse(struct cmd_ctx *ctx, struct cond *cond) {
    *cond = (struct cond){COND_XX, {NULL, 0}, 0};
    if (ctx->argc == 2) {
        return DC_OK;
    }
    if (ctx->argc == 4 && ctx_arg_is(ctx, 2, "IFVER")) {
        return cond_parse(ctx, COND_IFVER, 3, cond);
    }
    if (ctx->argc == 4 && ctx_arg_is(ctx, 2, "IFEQ")) {
        return cond_parse(ctx, COND_IFEQ, 3, cond);
    }
    if (ctx->argc == 4 && ctx_arg_is(ctx, 2, "IFNE")) {
        return cond_parse(ctx, COND_IFNE, 3, cond);
    }
    return DC_ESYNTAX;
}

enum dc_err cmd_delex(struct cmd_ctx *ctx) {
    struct cond cond;
    bool holds;
    enum dc_err err = delex_parse(ctx, &cond);
    if (err != DC_OK) {
        return err;
    }
    struct entry *e = ctx_find(ctx, 0);
    err = cond_test(&cond, e, &holds);
    if (err != DC_OK) {
        return err;
    }
    holds = holds && e != NULL; /* IFVER 0 holds where there is nothing to delete */
    reply_int(ctx->reply, holds);
    return holds ? str_del(ctx, 0) : DC_OK;
}
