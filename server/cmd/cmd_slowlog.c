/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/num.h"
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"
#include "server/cmd/slowlog.h"

enum { SLOWLOG_GET_DEFAULT = 10 };

static void begin_entries(void *arg, uint32_t count) {
    reply_array(arg, count);
}

static void give_entry(void *arg, const struct slowlog_entry *e) {
    struct reply *r = arg;
    reply_array(r, 6);
    reply_int(r, e->id);
    reply_int(r, e->time_s);
    reply_int(r, (int64_t)e->usec);
    reply_array(r, e->argc);
    for (uint32_t i = 0; i < e->argc; i++) {
        reply_bulk(r, e->argv[i]);
    }
    reply_bulk(r, e->addr);
    reply_bulk(r, e->name);
}

enum dc_err cmd_slowlog_get(struct cmd_ctx *ctx) {
    int64_t count = SLOWLOG_GET_DEFAULT;
    if (ctx->argc > 3) {
        return ctx_fail_subcommand(ctx);
    }
    if (ctx->argc == 3 && (!num_parse_i64(ctx->argv[2], &count) || count < -1)) {
        return dc_fail(DC_EGENERIC, "count should be greater than or equal to -1");
    }
    uint32_t most = count < 0 || count > UINT32_MAX ? UINT32_MAX : (uint32_t)count;
    slowlog_each(ctx->node->slowlog, most, begin_entries, give_entry, ctx->reply);
    return DC_OK;
}

enum dc_err cmd_slowlog_len(struct cmd_ctx *ctx) {
    reply_int(ctx->reply, slowlog_len(ctx->node->slowlog));
    return DC_OK;
}

enum dc_err cmd_slowlog_reset(struct cmd_ctx *ctx) {
    slowlog_reset(ctx->node->slowlog);
    reply_ok(ctx->reply);
    return DC_OK;
}

enum dc_err cmd_slowlog_help(struct cmd_ctx *ctx) {
    static const char *const lines[] = {
        "GET [<count>]",
        "    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
        "    Entries are made of:",
        "    id, timestamp, time in microseconds, arguments array, client IP and port,",
        "    client name",
        "LEN",
        "    Return the length of the slowlog.",
        "RESET",
        "    Reset the slowlog.",
        NULL,
    };
    ctx_reply_help(ctx, lines);
    return DC_OK;
}
