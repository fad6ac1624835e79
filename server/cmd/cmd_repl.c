/* SPDX-License-Identifier: BSD-3-Clause */
/* REPLICAOF, SLAVEOF, FAILOVER, ROLE: what this node is to others. REPLSTREAM: a connection becomes a link. */
#include "replication/repl.h"
#include "replication/wire_fmt.h"
#include "server/base/diag.h"
#include "server/base/num.h"
#include "server/base/time.h"
#include "server/cmd/client.h"
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"
#include "server/cmd/tx.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- REPLICAOF --------------------------------------------------------------------------------------------------- */

enum { EXEC_WAITS_MS = 2000 };

static enum dc_err follow(struct repl *repl, struct bytes host, uint32_t port, bool force,
                          uint64_t *order, bool *already) {
    struct repl_view v;
    repl_view(repl, &v);
    if (v.failover != FAILOVER_NONE) {
        return dc_fail(DC_EGENERIC, "REPLICAOF not allowed while failing over.");
    }
    *already = !force && !v.promoting && v.role == ROLE_REPLICA && v.port == port &&
               bytes_equal(host, bytes_str(v.host));
    if (*already) {
        *order = repl_last_order(repl);
        return DC_OK;
    }
    return repl_follow(repl, host, port, force, order);
}

/* Gives the order. 'order': what to wait for; 'already': it is so, or has been ordered before. */
static enum dc_err begin_replicaof(struct repl *repl, const struct bytes *argv, uint32_t argc,
                                   uint64_t *order, bool *already) {
    int64_t port;
    bool force = argc == 4 && bytes_is(argv[3], "force");
    *already = false;
    if (argc > 4 || (argc == 4 && !force)) {
        return DC_ESYNTAX;
    }
    if (repl == NULL) {
        return dc_fail(DC_EGENERIC, "this node has no replication");
    }
    if (bytes_is(argv[1], "no") && bytes_is(argv[2], "one") && !force) {
        *order = repl_promote(repl);
        return DC_OK;
    }
    if (!num_parse_i64(argv[2], &port) || port < 1 || port > 65535) {
        return dc_fail(DC_EGENERIC, "Invalid master port");
    }
    return follow(repl, argv[1], (uint32_t)port, force, order, already);
}

static bool is_pending(struct cmd_worker *w, struct client *c, const struct bytes *argv,
                       uint32_t argc) {
    struct repl *repl = w->node->repl;
    uint64_t order;
    bool already;
    if (c->role_order == 0 && argc >= 3 && client_is_authenticated(c) &&
        !(c->flags & (CLIENT_SUBSCRIBED | CLIENT_MONITOR)) &&
        begin_replicaof(repl, argv, argc, &order, &already) == DC_OK &&
        (!already || !repl_order_is_over(repl, order))) {
        c->role_order = order;
        c->role_until_ms = w->now_us / 1000 + EXEC_WAITS_MS;
    }
    return c->role_order != 0 && !repl_order_is_over(repl, c->role_order);
}

bool replicaof_is_pending(struct cmd_worker *w, struct client *c, const struct bytes *argv,
                          uint32_t argc) {
    return !(c->flags & CLIENT_MULTI) && is_pending(w, c, argv, argc);
}

/* As Sentinel changes a role. The order is given before the transaction runs, so that its reply can tell. That waits a short time only: a promotion
 * may have to fetch much from its peers, and Sentinel's PING comes on the same connection. */
bool exec_is_pending(struct cmd_worker *w, struct client *c) {
    const struct bytes *argv;
    uint32_t argc;
    const struct cmd *cmd = tx_first(c, &argv, &argc);
    return cmd != NULL && (cmd->id == CMD_REPLICAOF || cmd->id == CMD_SLAVEOF) &&
           is_pending(w, c, argv, argc) && w->now_us / 1000 < c->role_until_ms;
}

/* REPLICAOF host port [FORCE] | NO ONE. Comes here when role and target are stored (cmd_is_held), or it couldn't wait for that: OK is said of what a
 * restart finds. */
enum dc_err cmd_replicaof(struct cmd_ctx *ctx) {
    struct repl *repl = ctx->node->repl;
    uint64_t order = ctx->client->role_order;
    bool already = false;
    enum dc_err err = DC_OK;
    ctx->client->role_order = 0;
    if (order == 0) {
        err = begin_replicaof(repl, ctx->argv, ctx->argc, &order, &already);
    }
    if (err == DC_OK && !repl_order_is_over(repl, order)) {
        err = dc_fail(DC_EGENERIC,
                      "the order is given, and not stored yet: ROLE and INFO tell how far it is");
    }
    err = err == DC_OK ? repl_order_result(repl, order) : err;
    if (err == DC_OK) {
        reply_status(ctx->reply, already ? "OK Already connected to specified master" : "OK");
    }
    return err;
}

/* --- FAILOVER ---------------------------------------------------------------------------------------------------- */

static enum dc_err parse_target(struct cmd_ctx *ctx, uint32_t at, struct failover *f) {
    int64_t port;
    struct bytes host = ctx->argv[at + 1];
    enum dc_err err = ctx_arg_i64(ctx, at + 2, &port);
    if (err != DC_OK) {
        return err;
    }
    if (host.len == 0 || host.len >= sizeof(f->host) || port < 1 || port > 65535) {
        return dc_fail(DC_EGENERIC, "FAILOVER target HOST and PORT is not a replica.");
    }
    memcpy(f->host, host.ptr, host.len);
    f->port = (uint32_t)port;
    return DC_OK;
}

static enum dc_err parse_failover(struct cmd_ctx *ctx, struct failover *f) {
    enum dc_err err = DC_OK;
    uint32_t at = 1;
    while (at < ctx->argc && err == DC_OK) {
        if (ctx_arg_is(ctx, at, "timeout") && at + 1 < ctx->argc && f->timeout_ms == 0) {
            err = ctx_arg_i64(ctx, at + 1, &f->timeout_ms);
            if (err != DC_OK || f->timeout_ms < 1) {
                return dc_fail(DC_EGENERIC, "FAILOVER timeout must be greater than 0");
            }
            at += 2;
        } else if (ctx_arg_is(ctx, at, "to") && at + 2 < ctx->argc && f->host[0] == '\0') {
            err = parse_target(ctx, at, f);
            at += 3;
        } else if (ctx_arg_is(ctx, at, "force") && !f->force) {
            f->force = true;
            at++;
        } else {
            err = DC_ESYNTAX;
        }
    }
    return err;
}

/* FAILOVER [TO host port [FORCE]] [TIMEOUT ms] | ABORT. The answer comes at once; master_failover_state of INFO tells how far it is. */
enum dc_err cmd_failover(struct cmd_ctx *ctx) {
    struct repl *repl = ctx->node->repl;
    struct failover f = {.port = 0};
    if (repl == NULL) {
        return dc_fail(DC_EGENERIC, "this node has no replication");
    }
    bool aborts = ctx->argc == 2 && ctx_arg_is(ctx, 1, "abort");
    enum dc_err err = aborts ? repl_failover_abort(repl) : parse_failover(ctx, &f);
    err = err == DC_OK && !aborts ? repl_failover(repl, &f) : err;
    if (err == DC_OK) {
        reply_ok(ctx->reply);
    }
    return err;
}

/* --- ROLE -------------------------------------------------------------------------------------------------------- */

struct role_lines {
    const struct log *log;
    bool details;
    struct buf text;
    struct reply reply;
    int64_t count;
};

static void put_text(struct reply *r, const char *name, const char *text) {
    reply_bulk_str(r, name);
    reply_bulk_str(r, text);
}

static void put_int(struct reply *r, const char *name, int64_t value) {
    reply_bulk_str(r, name);
    reply_int(r, value);
}

static void add_details(struct role_lines *l, const struct replica_seen *seen) {
    struct reply *r = &l->reply;
    reply_map(r, 9);
    put_text(r, "ip", seen->addr);
    put_int(r, "port", seen->port);
    put_text(r, "state", replica_state_name(seen->state));
    put_int(r, "offset", (int64_t)seen->received);
    put_int(r, "durable", (int64_t)seen->durable);
    put_int(r, "applied", (int64_t)seen->applied);
    put_int(r, "lag-bytes", (int64_t)repl_behind(l->log, seen));
    put_int(r, "lag-ms", replica_silence_us(seen, time_mono_us()) / 1000);
    put_int(r, "sent-bytes", (int64_t)seen->sent_bytes);
}

static void add_replica(const struct replica_seen *seen, void *arg) {
    struct role_lines *l = arg;
    char number[NUM_I64_TEXT_MAX];
    if (seen->slot < 0) {
        return; /* known, not attached */
    }
    l->count++;
    if (l->details) {
        add_details(l, seen);
        return;
    }
    reply_array(&l->reply, 3);
    reply_bulk_str(&l->reply, seen->addr);
    reply_bulk(&l->reply, bytes_of(number, num_format_i64(number, seen->port)));
    reply_bulk(&l->reply, bytes_of(number, num_format_i64(number, (int64_t)seen->received)));
}

static enum dc_err reply_replicas(struct cmd_ctx *ctx, bool details) {
    struct role_lines l = {.log = ctx->node->log, .details = details};
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

/* Redis's reply has no room for these. */
static enum dc_err role_details(struct cmd_ctx *ctx, const struct repl_view *v) {
    struct repl_stats stats = {.sent_full = 0};
    struct reply *r = ctx->reply;
    if (ctx->node->repl != NULL) {
        repl_stats(ctx->node->repl, &stats);
    }
    reply_map(r, v->is_slave ? 10 : 6);
    put_text(r, "role", v->is_slave ? "slave" : "master");
    put_int(r, "offset", (int64_t)(v->is_slave ? v->applied_lsn : log_head(ctx->node->log).v));
    if (v->is_slave) {
        put_text(r, "master-host", v->host);
        put_int(r, "master-port", v->port);
        put_text(r, "link", repl_link_name(v->link));
        put_int(r, "lag-bytes", v->lag_bytes);
        put_int(r, "lag-ms", v->lag_bytes < 0 ? -1 : v->behind_us / 1000);
    }
    put_int(r, "full-syncs", (int64_t)(v->is_slave ? stats.got_full : stats.sent_full));
    put_int(r, "partial-syncs", (int64_t)(v->is_slave ? stats.got_partial : stats.sent_partial));
    put_text(r, "full-sync-reason", v->is_slave ? stats.got_full_reason : stats.sent_full_reason);
    if (v->is_slave) {
        return DC_OK;
    }
    reply_bulk_str(r, "replicas");
    return reply_replicas(ctx, true);
}

/* ROLE [DETAILS] */
enum dc_err cmd_role(struct cmd_ctx *ctx) {
    struct repl_view v = {.role = ROLE_PRIMARY};
    struct reply *r = ctx->reply;
    if (ctx->argc > 2 || (ctx->argc == 2 && !ctx_arg_is(ctx, 1, "details"))) {
        return DC_ESYNTAX;
    }
    if (ctx->node->repl != NULL) {
        repl_view(ctx->node->repl, &v);
    }
    if (ctx->argc == 2) {
        return role_details(ctx, &v);
    }
    if (v.is_slave) {
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
    return reply_replicas(ctx, false);
}

/* --- REPLSTREAM -------------------------------------------------------------------------------------------------- */

/* A node without links says so in the peer's language. */
static void send_away(struct node *n, int fd, struct bytes early, const char *addr) {
    struct wire_bye m = {0, BYTES("this node has no replication")};
    struct buf b;
    uint8_t head[WIRE_HEAD_LEN] = {0};
    (void)early, (void)addr;
    buf_init(&b, 0);
    buf_append(&b, head, sizeof(head));
    wire_bye_encode(&m, &b);
    if (!b.failed && n->link_key == NULL) { /* in clear */
        wire_head_encode(WIRE_BYE, b.len - sizeof(head), head);
        memcpy(b.ptr, head, sizeof(head));
        ssize_t sent = send(fd, b.ptr, b.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)sent; /* the peer may be gone */
    }
    close(fd);
    buf_fini(&b);
}

static enum dc_err refuse_link(const struct cmd_ctx *ctx, const char *reason) {
    diag(DIAG_WARNING, "link.refused peer=%s reason=\"%s\"", ctx->client->addr, reason);
    return dc_fail(DC_EGENERIC, "%s", reason);
}

/* Either both sides have a key, which is then all that counts, or neither. */
static enum dc_err check_link(const struct cmd_ctx *ctx, bool encrypts) {
    if (ctx->node->link_key != NULL) {
        return encrypts ? DC_OK
                        : refuse_link(ctx, "this node takes encrypted links only: the other one "
                                           "needs a replication-key-file with the same key");
    }
    if (encrypts) {
        return refuse_link(ctx, "the link is to be encrypted, but this node has no "
                                "replication-key-file");
    }
    return client_is_authenticated(ctx->client) ? DC_OK : DC_ENOAUTH;
}

/* REPLSTREAM protocol [SECURE]. Behind the OK the connection speaks secure.h and wire_fmt.h and isn't a client's any more. */
enum dc_err cmd_replstream(struct cmd_ctx *ctx) {
    int64_t protocol;
    struct node *n = ctx->node;
    bool encrypts = ctx->argc == 3 && ctx_arg_is(ctx, 2, "secure");
    if (ctx->argc > 3 || (ctx->argc == 3 && !encrypts)) {
        return DC_ESYNTAX;
    }
    enum dc_err err = check_link(ctx, encrypts);
    if (err != DC_OK) {
        return err;
    }
    err = ctx_arg_i64(ctx, 1, &protocol);
    if (err != DC_OK || protocol != WIRE_PROTOCOL) {
        return dc_fail(DC_EGENERIC, "this node speaks protocol %d of replication", WIRE_PROTOCOL);
    }
    if (ctx->client->flags & (CLIENT_SUBSCRIBED | CLIENT_MONITOR | CLIENT_REPLY_OFF)) {
        return dc_fail(DC_EGENERIC,
                       "a connection that listens, or wants no replies, can't become a link");
    }
    reply_ok(ctx->reply);
    n->host->detach(ctx->client, n->repl_accept != NULL ? n->repl_accept : send_away);
    return DC_OK;
}
