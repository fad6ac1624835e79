/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * CLIENT ACK, WAIT, WAITAOF, CLIENT UNBLOCK, READAFTER, CLIENT MAXSTALE: how safe what was written is, and how new what is read.
 *
 * The three that wait are held (cmd_is_held) while ..._is_pending() says so, and run when the wait is over. Inside MULTI they don't wait.
 */
#include "replication/replicas.h"
#include "server/base/mem.h"
#include "server/cmd/acks.h"
#include "server/cmd/client.h"
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"

#include <inttypes.h>

/* --- levels ------------------------------------------------------------------------------------------ */

/* CLIENT ACK [level [NEXT]]: replies behind this one wait for it, or that of the next command does. */
enum dc_err cmd_client_ack(struct cmd_ctx *ctx) {
    char text[ACK_TEXT_MAX];
    struct ack_level level;
    bool once = ctx->argc == 4 && bytes_is(ctx->argv[3], "next");
    if (ctx->argc > 3 && !once) {
        return ctx_fail_subcommand(ctx);
    }
    if (ctx->argc == 2) {
        reply_bulk(ctx->reply, bytes_of(text, ack_text(ctx->client->ack, text)));
        return DC_OK;
    }
    if (!ack_parse(ctx->argv[2], &level)) {
        return dc_fail(DC_EGENERIC,
                       "an ack level is DEFAULT, or parts joined by '+': MEMORY, OS, DISK, "
                       "REPLICAS:n, REPLICAS:n:DISK, QUORUM, QUORUM:DISK");
    }
    enum dc_err err = acks_check(ctx->node, level);
    if (err == DC_OK) {
        struct client *c = ctx->client;
        *(once ? &c->ack_once : &c->ack) = level;
        c->flags &= ~(uint32_t)CLIENT_ACK_ONCE;
        c->flags |= (uint32_t)CLIENT_ACK_CHANGED | (once ? (uint32_t)CLIENT_ACK_ONCE : 0);
        reply_ok(ctx->reply);
    }
    return err;
}

/* --- waiting ----------------------------------------------------------------------------------------- */

/* In Redis's words. 'now_ms' + timeout must not overflow. */
static enum dc_err read_timeout(struct bytes arg, int64_t now_ms, int64_t *out) {
    if (!num_parse_i64(arg, out)) {
        return dc_fail(DC_EGENERIC, "timeout is not an integer or out of range");
    }
    if (*out < 0) {
        return dc_fail(DC_EGENERIC, "timeout is negative");
    }
    return *out <= INT64_MAX - now_ms ? DC_OK : dc_fail(DC_EGENERIC, "timeout is out of range");
}

static void end_wait(struct client *c) {
    if (c->wait_until_ms != 0) {
        c->wait_until_ms = 0;
        atomic_store_explicit(&c->seen_waits, false, memory_order_relaxed);
        atomic_fetch_sub_explicit(&c->worker->node->waiting_count, 1, memory_order_relaxed);
    }
}

static void begin_wait(struct client *c, int64_t until_ms) {
    c->wait_until_ms = until_ms;
    c->unblock = UNBLOCK_NOT;
    atomic_store_explicit(&c->seen_waits, true, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->worker->node->waiting_count, 1, memory_order_relaxed);
}

void wait_client_gone(struct client *c) {
    end_wait(c);
}

/* What waits hasn't been answered yet: still so, and in time? Notes when the wait began. */
static bool stays(struct cmd_worker *w, struct client *c, bool waits, int64_t timeout_ms) {
    int64_t now_ms = w->now_us / 1000;
    if (waits && c->wait_until_ms == 0) {
        begin_wait(c, timeout_ms == 0 ? INT64_MAX : now_ms + timeout_ms);
    }
    if (!waits || now_ms >= c->wait_until_ms || c->unblock != UNBLOCK_NOT) {
        end_wait(c);
        return false;
    }
    return true;
}

/* The wait is over, or there was none: what CLIENT UNBLOCK has to do with it. */
static enum dc_err take_unblock(struct client *c) {
    bool error = c->unblock == UNBLOCK_ERROR;
    c->unblock = UNBLOCK_NOT;
    return error ? DC_EUNBLOCKED : DC_OK;
}

/* As a replica refuses it, in Redis's words, so does a node that was replaced: nobody acknowledges to it any more. */
static enum dc_err refuse_replica(const struct node *n, const char *command, const char *why) {
    if (atomic_load_explicit(&n->writes, memory_order_relaxed) == WRITES_FENCED) {
        return dc_fail(DC_EGENERIC, "%s: another node has become the primary", command);
    }
    return node_is_replica(n)
               ? dc_fail(DC_EGENERIC, "%s cannot be used with replica instances. %s", command, why)
               : DC_OK;
}

/* --- WAIT -------------------------------------------------------------------------------------------- */

struct wait {
    int64_t replicas, timeout_ms;
};

static enum dc_err read_wait(const struct node *n, const struct bytes *argv, int64_t now_ms,
                             struct wait *out) {
    enum dc_err err =
        refuse_replica(n, "WAIT",
                       "Please also note that since Redis 4.0 if a replica is configured to be "
                       "writable (which is not the default) writes to replicas are just local and "
                       "are not propagated.");
    if (err != DC_OK) {
        return err;
    }
    if (!num_parse_i64(argv[1], &out->replicas)) {
        return DC_ENOTINT;
    }
    return read_timeout(argv[2], now_ms, &out->timeout_ms);
}

enum dc_err cmd_wait(struct cmd_ctx *ctx) {
    struct wait wait;
    enum dc_err err = read_wait(ctx->node, ctx->argv, ctx->now_ms, &wait);
    err = err == DC_OK ? take_unblock(ctx->client) : err;
    if (err == DC_OK) {
        reply_int(ctx->reply,
                  replicas_count_at(ctx->node->replicas, ctx->client->last_version, false));
    }
    return err;
}

static bool lacks_replicas(struct node *n, const struct client *c, int64_t wanted, bool disk) {
    if (replicas_count_at(n->replicas, c->last_version, disk) >= wanted) {
        return false;
    }
    replicas_want(n->replicas);
    replicas_ask(n->replicas, time_mono_us());
    if (disk) {
        replicas_hurry(n->replicas, c->last_version);
    }
    return replicas_count_at(n->replicas, c->last_version, disk) < wanted; /* it may have moved */
}

bool wait_is_pending(struct cmd_worker *w, struct client *c, const struct bytes *argv,
                     uint32_t argc) {
    struct wait wait = {.replicas = 0};
    bool waits = argc == 3 && !(c->flags & CLIENT_MULTI) && client_is_authenticated(c) &&
                 read_wait(w->node, argv, w->now_us / 1000, &wait) == DC_OK &&
                 lacks_replicas(w->node, c, wait.replicas, false);
    return stays(w, c, waits, wait.timeout_ms);
}

/* --- WAITAOF ----------------------------------------------------------------------------------------- */

struct waitaof {
    int64_t local, replicas, timeout_ms;
};

static enum dc_err read_waitaof(const struct node *n, const struct bytes *argv, int64_t now_ms,
                                struct waitaof *out) {
    if (!num_parse_i64(argv[1], &out->local) || !num_parse_i64(argv[2], &out->replicas)) {
        return DC_ENOTINT;
    }
    if (out->local < 0 || out->local > 1) {
        return dc_fail(DC_EGENERIC, "value is out of range, must be between 0 and 1");
    }
    if (out->replicas < 0) {
        return dc_fail(DC_EGENERIC, "value is out of range, must be positive");
    }
    enum dc_err err = read_timeout(argv[3], now_ms, &out->timeout_ms);
    err = err == DC_OK ? refuse_replica(n, "WAITAOF",
                                        "Please also note that writes to replicas are just local "
                                        "and are not propagated.")
                       : err;
    if (err == DC_OK && out->local == 1 && !conf_get(n->conf, appendonly)) {
        err = dc_fail(DC_EGENERIC,
                      "WAITAOF cannot be used when numlocal is set but appendonly is disabled.");
    }
    return err;
}

/* A log that has just begun to be kept counts when its first snapshot is there. */
static bool is_safe(const struct log *log, uint64_t lsn) {
    return log_is_based(log) && log_durable(log).v >= lsn;
}

enum dc_err cmd_waitaof(struct cmd_ctx *ctx) {
    struct node *n = ctx->node;
    uint64_t lsn = ctx->client->last_version;
    struct waitaof wait;
    enum dc_err err = read_waitaof(n, ctx->argv, ctx->now_ms, &wait);
    err = err == DC_OK ? take_unblock(ctx->client) : err;
    if (err == DC_OK) {
        reply_array(ctx->reply, 2);
        reply_int(ctx->reply, is_safe(n->log, lsn));
        reply_int(ctx->reply, replicas_count_at(n->replicas, lsn, true));
    }
    return err;
}

static bool lacks_disk(struct node *n, const struct client *c) {
    if (is_safe(n->log, c->last_version)) {
        return false;
    }
    log_want(n->log, LOG_LEVEL_DISK);
    log_hurry(n->log);
    return !is_safe(n->log, c->last_version);
}

bool waitaof_is_pending(struct cmd_worker *w, struct client *c, const struct bytes *argv,
                        uint32_t argc) {
    struct waitaof wait = {.local = 0};
    bool waits = argc == 4 && !(c->flags & CLIENT_MULTI) && client_is_authenticated(c) &&
                 read_waitaof(w->node, argv, w->now_us / 1000, &wait) == DC_OK;
    if (waits) { /* both begin now */
        bool disk = wait.local == 1 && lacks_disk(w->node, c);
        waits = lacks_replicas(w->node, c, wait.replicas, true) || disk;
    }
    return stays(w, c, waits, wait.timeout_ms);
}

/* --- CLIENT UNBLOCK ---------------------------------------------------------------------------------- */

struct unblock {
    struct message message; /* first */
    uint64_t id;
    bool error;
};

static void unblock_if_meant(struct client *c, void *arg) {
    const struct unblock *u = arg;
    if (c->id == u->id && c->wait_until_ms != 0) {
        c->unblock = u->error ? UNBLOCK_ERROR : UNBLOCK_TIMEOUT;
    }
}

static void run_unblock(struct cmd_worker *w, struct message *m) {
    w->node->host->each_client(w, unblock_if_meant, m);
    w->node->host->resume(w->node);
    mem_free(m);
}

/* The worker of a client that waits; -1 = there is none. */
static int64_t find_waiting(struct node *n, uint64_t id) {
    int64_t worker = -1;
    lock_acquire(&n->clients_lock);
    for (const struct client *c = n->clients; c != NULL; c = c->next) {
        if (c->id == id && atomic_load_explicit(&c->seen_waits, memory_order_relaxed)) {
            worker = c->worker->index;
        }
    }
    lock_release(&n->clients_lock);
    return worker;
}

/* CLIENT UNBLOCK id [TIMEOUT|ERROR]: as if the time were over, or with an error. */
enum dc_err cmd_client_unblock(struct cmd_ctx *ctx) {
    int64_t id;
    bool error = ctx->argc == 4 && ctx_arg_is(ctx, 3, "error");
    if (ctx->argc > 4) {
        return ctx_fail_subcommand(ctx);
    }
    if (ctx->argc == 4 && !error && !ctx_arg_is(ctx, 3, "timeout")) {
        return dc_fail(DC_EGENERIC, "CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
    }
    enum dc_err err = ctx_arg_i64(ctx, 2, &id);
    if (err != DC_OK) {
        return err;
    }
    int64_t worker = find_waiting(ctx->node, (uint64_t)id);
    if (worker >= 0) {
        struct unblock *u = mem_must_alloc(sizeof(*u));
        *u = (struct unblock){{.run = run_unblock}, (uint64_t)id, error};
        ctx->node->host->post(ctx->node, (uint32_t)worker, &u->message);
    }
    reply_int(ctx->reply, worker >= 0);
    return DC_OK;
}

/* --- reading on a replica ---------------------------------------------------------------------------- */

struct readafter {
    uint64_t lsn;
    int64_t timeout_ms;
};

static enum dc_err read_readafter(const struct bytes *argv, int64_t now_ms, struct readafter *out) {
    if (!num_parse_u64(argv[1], &out->lsn)) {
        return dc_fail(DC_EGENERIC, "LSN is not an integer or out of range");
    }
    return read_timeout(argv[2], now_ms, &out->timeout_ms);
}

/* READAFTER lsn timeout: what comes behind it on the connection sees everything up to there. */
enum dc_err cmd_readafter(struct cmd_ctx *ctx) {
    struct node *n = ctx->node;
    struct readafter wait;
    enum dc_err err = read_readafter(ctx->argv, ctx->now_ms, &wait);
    err = err == DC_OK ? take_unblock(ctx->client) : err;
    if (err != DC_OK) {
        return err;
    }
    if (node_lsn_is_lost(n, wait.lsn)) {
        return dc_fail(DC_ELOST, "LSN %" PRIu64 " was lost in a failover or an unclean stop",
                       wait.lsn);
    }
    uint64_t applied = node_applied(n);
    if (applied < wait.lsn) {
        return dc_fail(DC_EBEHIND, "this node has applied LSN %" PRIu64 ", not yet %" PRIu64,
                       applied, wait.lsn);
    }
    reply_ok(ctx->reply);
    return DC_OK;
}

static bool lacks_lsn(struct node *n, uint64_t lsn) {
    if (node_applied(n) >= lsn || node_lsn_is_lost(n, lsn)) {
        return false;
    }
    log_want_applied(n->log);
    return node_applied(n) < lsn; /* it may have moved */
}

bool readafter_is_pending(struct cmd_worker *w, struct client *c, const struct bytes *argv,
                          uint32_t argc) {
    struct readafter wait = {.lsn = 0};
    bool waits = argc == 3 && !(c->flags & CLIENT_MULTI) && client_is_authenticated(c) &&
                 read_readafter(argv, w->now_us / 1000, &wait) == DC_OK &&
                 lacks_lsn(w->node, wait.lsn);
    return stays(w, c, waits, wait.timeout_ms);
}

/* CLIENT MAXSTALE [ms]: a replica that may be further behind answers reads of this connection with an error; 0 = never mind. */
enum dc_err cmd_client_maxstale(struct cmd_ctx *ctx) {
    int64_t ms;
    if (ctx->argc > 3) {
        return ctx_fail_subcommand(ctx);
    }
    if (ctx->argc == 2) {
        reply_int(ctx->reply, ctx->client->max_stale_ms);
        return DC_OK;
    }
    enum dc_err err = ctx_arg_i64(ctx, 2, &ms);
    if (err == DC_OK && ms < 0) {
        err = dc_fail(DC_EGENERIC, "value is out of range, must be positive");
    }
    if (err == DC_OK) {
        ctx->client->max_stale_ms = ms;
        reply_ok(ctx->reply);
    }
    return err;
}
