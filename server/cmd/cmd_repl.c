/* SPDX-License-Identifier: BSD-3-Clause */
/* REPLICAOF, SLAVEOF, ROLE: what this node is to others. */
#include "replication/repl.h"
#include "server/base/num.h"
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"

/* REPLICAOF host port [FORCE] | NO ONE. The answer comes before the change is complete: ROLE and INFO tell how far it is. */
enum dc_err cmd_replicaof(struct cmd_ctx *ctx) {
    struct repl *repl = ctx->node->repl;
    int64_t port;
    bool force = ctx->argc == 4 && ctx_arg_is(ctx, 3, "force");
    if (ctx->argc > 4 || (ctx->argc == 4 && !force)) {
        return DC_ESYNTAX;
    }
    if (repl == NULL) {
        return dc_fail(DC_EGENERIC, "this node has no replication");
    }
    if (ctx_arg_is(ctx, 1, "no") && ctx_arg_is(ctx, 2, "one") && !force) {
        repl_promote(repl);
        reply_ok(ctx->reply);
        return DC_OK;
    }
    enum dc_err err = ctx_arg_i64(ctx, 2, &port);
    if (err != DC_OK || port < 1 || port > 65535) {
        return dc_fail(DC_EGENERIC, "Invalid master port");
    }
    struct repl_view v;
    repl_view(repl, &v);
    if (!force && v.role == ROLE_REPLICA && v.port == (uint32_t)port &&
        bytes_equal(ctx->argv[1], bytes_str(v.host))) {
        reply_status(ctx->reply, "OK Already connected to specified master");
        return DC_OK;
    }
    err = repl_follow(repl, ctx->argv[1], (uint32_t)port, force);
    if (err == DC_OK) {
        reply_ok(ctx->reply);
    }
    return err;
}

struct role_lines {
    struct buf text;
    struct reply reply;
    int64_t count;
};

static void add_replica(const struct replica_seen *seen, void *arg) {
    struct role_lines *l = arg;
    char number[NUM_I64_TEXT_MAX];
    if (seen->slot < 0) {
        return; /* known, not attached */
    }
    reply_array(&l->reply, 3);
    reply_bulk_str(&l->reply, seen->addr);
    reply_bulk(&l->reply, bytes_of(number, num_format_i64(number, seen->port)));
    reply_bulk(&l->reply, bytes_of(number, num_format_i64(number, (int64_t)seen->received)));
    l->count++;
}

static enum dc_err reply_replicas(struct cmd_ctx *ctx) {
    struct role_lines l = {.count = 0};
    buf_init(&l.text, 0);
    l.reply = (struct reply){.out = &l.text, .proto = ctx->reply->proto};
    replicas_each(ctx->node->replicas, add_replica, &l);
    enum dc_err err = l.text.failed ? DC_ENOMEM : DC_OK;
    if (err == DC_OK) {
        reply_array(ctx->reply, l.count);
        buf_append_bytes(ctx->reply->out, buf_bytes(&l.text));
    }
    buf_fini(&l.text);
    return err;
}

enum dc_err cmd_role(struct cmd_ctx *ctx) {
    struct repl_view v = {.role = ROLE_PRIMARY};
    struct reply *r = ctx->reply;
    if (ctx->node->repl != NULL) {
        repl_view(ctx->node->repl, &v);
    }
    if (v.role == ROLE_REPLICA) {
        reply_array(r, 5);
        reply_bulk_str(r, "slave");
        reply_bulk_str(r, v.host);
        reply_int(r, v.port);
        reply_bulk_str(r, repl_link_name(v.link));
        reply_int(r, v.link == LINK_CONNECTED ? (int64_t)v.applied_lsn : -1);
        return DC_OK;
    }
    reply_array(r, 3);
    reply_bulk_str(r, "master");
    reply_int(r, (int64_t)log_head(ctx->node->log).v);
    return reply_replicas(ctx);
}
