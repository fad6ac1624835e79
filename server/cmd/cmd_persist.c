/* SPDX-License-Identifier: BSD-3-Clause */
/* SAVE, BGSAVE, LASTSAVE, BGREWRITEAOF, LOG: what is on the disk, and what will be. */
#include "server/cmd/client.h"
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"
#include "server/cmd/saver.h"

enum dc_err cmd_bgsave(struct cmd_ctx *ctx) {
    bool schedule = ctx->argc == 2 && ctx_arg_is(ctx, 1, "schedule");
    if (ctx->argc > 1 && !schedule) {
        return DC_ESYNTAX;
    }
    switch (saver_request(ctx->node->saver, schedule)) {
    case SAVER_STARTED:
        reply_status(ctx->reply, "Background saving started");
        return DC_OK;
    case SAVER_SCHEDULED:
        reply_status(ctx->reply, "Background saving scheduled");
        return DC_OK;
    case SAVER_BUSY:
        break;
    }
    return dc_fail(DC_EGENERIC, "Background save already in progress");
}

/* The worker waits: who wants that no other command runs meanwhile has asked for it. */
bool save_is_pending(struct cmd_worker *w, struct client *c, uint32_t argc) {
    struct saver *saver = w->node->saver;
    if (c->save_ticket == 0 && saver != NULL && argc == 1 && !(c->flags & CLIENT_MULTI) &&
        client_is_authenticated(c) && saver_request(saver, false) != SAVER_BUSY) {
        c->save_ticket = saver_ticket(saver);
    }
    return c->save_ticket != 0 && !saver_is_over(saver, c->save_ticket);
}

/* Comes here when it has ended (cmd_is_held), or none was begun. */
enum dc_err cmd_save(struct cmd_ctx *ctx) {
    uint64_t ticket = ctx->client->save_ticket;
    ctx->client->save_ticket = 0;
    if (ticket == 0) {
        return dc_fail(DC_EGENERIC, "Background save already in progress");
    }
    enum dc_err err = saver_result(ctx->node->saver, ticket);
    if (err == DC_OK) {
        reply_ok(ctx->reply);
    }
    return err;
}

/* The log needs no rewriting; what shortens it is a snapshot. */
enum dc_err cmd_bgrewriteaof(struct cmd_ctx *ctx) {
    (void)saver_request(ctx->node->saver, true);
    reply_status(ctx->reply, "Background append only file rewriting started");
    return DC_OK;
}

enum dc_err cmd_lastsave(struct cmd_ctx *ctx) {
    struct saver_state s;
    saver_state(ctx->node->saver, &s);
    reply_int(ctx->reply, s.last_ms / 1000);
    return DC_OK;
}

enum dc_err cmd_log_position(struct cmd_ctx *ctx) {
    const struct log *log = ctx->node->log;
    reply_map(ctx->reply, 4);
    reply_bulk(ctx->reply, BYTES("head"));
    reply_int(ctx->reply, (int64_t)log_head(log).v);
    reply_bulk(ctx->reply, BYTES("written"));
    reply_int(ctx->reply, (int64_t)log_written(log).v);
    reply_bulk(ctx->reply, BYTES("durable"));
    reply_int(ctx->reply, (int64_t)log_durable(log).v);
    reply_bulk(ctx->reply, BYTES("last"));
    reply_int(ctx->reply, (int64_t)ctx->client->last_version);
    return DC_OK;
}

/* How safe what stands at an LSN is: durable, written, memory; lost = in a gap between two histories; future. */
enum dc_err cmd_log_status(struct cmd_ctx *ctx) {
    const struct log *log = ctx->node->log;
    int64_t lsn;
    enum dc_err err = ctx_arg_i64(ctx, 2, &lsn);
    if (err != DC_OK) {
        return err;
    }
    uint64_t at = (uint64_t)lsn;
    const char *status = lsn <= 0 || at > log_head(log).v  ? "future"
                         : node_lsn_is_lost(ctx->node, at) ? "lost"
                         : at <= log_durable(log).v        ? "durable"
                         : at <= log_written(log).v        ? "written"
                                                           : "memory";
    reply_bulk(ctx->reply, bytes_str(status));
    return DC_OK;
}
