/* SPDX-License-Identifier: BSD-3-Clause */
/* SAVE, BGSAVE, LASTSAVE, BGREWRITEAOF, WAITAOF, LOG: what is on the disk, and what will be. */
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

/* A log that has just begun to be kept counts when its first snapshot is there. */
static bool is_safe(const struct log *log, uint64_t lsn) {
    return log_is_based(log) && log_durable(log).v >= lsn;
}

/* Comes here when the wait is over (cmd_is_held). */
enum dc_err cmd_waitaof(struct cmd_ctx *ctx) {
    int64_t local, replicas, timeout;
    enum dc_err err = ctx_arg_i64(ctx, 1, &local);
    err = err == DC_OK ? ctx_arg_i64(ctx, 2, &replicas) : err;
    err = err == DC_OK ? ctx_arg_i64(ctx, 3, &timeout) : err;
    if (err != DC_OK) {
        return err;
    }
    if (timeout < 0) {
        return dc_fail(DC_EGENERIC, "timeout is negative");
    }
    if (local < 0 || local > 1 || replicas < 0) {
        return dc_fail(DC_EGENERIC, "value is out of range, must be between 0 and 1");
    }
    if (local == 1 && !conf_get(ctx->node->conf, appendonly)) {
        return dc_fail(DC_EGENERIC,
                       "WAITAOF cannot be used when numlocal is set but appendonly is disabled.");
    }
    reply_array(ctx->reply, 2);
    reply_int(ctx->reply, is_safe(ctx->node->log, ctx->client->last_version));
    reply_int(ctx->reply, 0);
    return DC_OK;
}

bool waitaof_is_pending(struct cmd_worker *w, struct client *c, const struct bytes *argv,
                        uint32_t argc) {
    int64_t local, timeout;
    struct log *log = w->node->log;
    if (argc != 4 || !num_parse_i64(argv[1], &local) || !num_parse_i64(argv[3], &timeout) ||
        local != 1 || timeout < 0 || is_safe(log, c->last_version) || (c->flags & CLIENT_MULTI) ||
        !conf_get(w->node->conf, appendonly)) {
        c->wait_until_ms = 0;
        return false;
    }
    int64_t now_ms = w->now_us / 1000;
    if (c->wait_until_ms == 0) {
        c->wait_until_ms = timeout == 0 ? INT64_MAX : now_ms + timeout;
    }
    if (now_ms >= c->wait_until_ms) {
        c->wait_until_ms = 0;
        return false;
    }
    log_want(log, LOG_LEVEL_DISK);
    log_hurry(log);
    return true;
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
