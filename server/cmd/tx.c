/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/tx.h"

#include "server/base/assert.h"
#include "server/base/mem.h"
#include "server/cmd/client.h"
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/lockset.h"
#include "server/cmd/node.h"

/* A command kept for EXEC: one block with the copies of its arguments behind it. */
struct queued {
    struct queued *next;
    const struct cmd *cmd;
    uint32_t argc;
    uint32_t key_count;
    struct key *keys;
    struct bytes argv[];
};

/* A key whose change makes EXEC give up. */
struct watch {
    struct watch *next;
    struct keyspace *ks;
    struct key key;   /* its name stands behind the struct */
    uint64_t version; /* 0 = it was absent */
    uint64_t since;   /* absent: position in the log at that time */
};

struct tx {
    struct queued *first;
    struct queued **tail;
    uint32_t count;
    uint32_t flags; /* of all queued commands */
    bool spoiled;
    uint32_t watch_count;
    struct watch *watches;
};

static struct tx *tx_of(struct client *c) {
    if (c->tx == NULL) {
        c->tx = mem_must_zalloc(sizeof(*c->tx));
        c->tx->tail = &c->tx->first;
    }
    return c->tx;
}

/* One allocation for the struct, the arguments, the keys and the bytes. */
enum dc_err tx_queue(struct client *c, const struct job *job) {
    struct tx *tx = tx_of(c);
    uint32_t argc = job->req.argc;
    uint32_t key_count = cmd_key_count(job->cmd, argc);
    size_t len =
        sizeof(struct queued) + argc * sizeof(struct bytes) + key_count * sizeof(struct key);
    size_t bytes_at = len;
    for (uint32_t i = 0; i < argc; i++) {
        len += job->req.argv[i].len;
    }
    struct queued *q = mem_alloc(len);
    if (q == NULL) {
        return DC_ENOMEM;
    }
    *q = (struct queued){.cmd = job->cmd, .argc = argc, .key_count = key_count};
    q->keys = (struct key *)(q->argv + argc);
    char *at = (char *)q + bytes_at;
    for (uint32_t i = 0; i < argc; i++) {
        q->argv[i] = bytes_of(at, job->req.argv[i].len);
        memcpy(at, job->req.argv[i].ptr, job->req.argv[i].len);
        at += job->req.argv[i].len;
    }
    for (uint32_t i = 0; i < key_count; i++) {
        q->keys[i] = store_key(c->worker->node->store, q->argv[cmd_key_index(job->cmd, i)]);
    }
    *tx->tail = q;
    tx->tail = &q->next;
    tx->count++;
    tx->flags |= job->cmd->flags | (job->cmd->flags & F_LOADS ? F_NEEDS_ALL : 0);
    atomic_store_explicit(&c->seen_multi, (int32_t)tx->count, memory_order_relaxed);
    return DC_OK;
}

void tx_spoil(struct client *c) {
    tx_of(c)->spoiled = true;
}

uint32_t tx_flags(const struct client *c) {
    return c->tx == NULL ? 0 : c->tx->flags;
}

const struct cmd *tx_first(const struct client *c, const struct bytes **argv, uint32_t *argc) {
    const struct tx *tx = c->tx;
    if (!(c->flags & CLIENT_MULTI) || tx == NULL || tx->spoiled || tx->watch_count > 0 ||
        tx->first == NULL) {
        return NULL;
    }
    *argv = tx->first->argv;
    *argc = tx->first->argc;
    return tx->first->cmd;
}

static void forget_watches(struct client *c) {
    struct tx *tx = c->tx;
    while (tx != NULL && tx->watches != NULL) {
        struct watch *next = tx->watches->next;
        mem_free(tx->watches);
        tx->watches = next;
    }
    if (tx != NULL) {
        tx->watch_count = 0;
    }
    atomic_store_explicit(&c->seen_watches, 0, memory_order_relaxed);
}

void tx_drop(struct client *c) {
    struct tx *tx = c->tx;
    c->flags &= ~(uint32_t)CLIENT_MULTI;
    c->role_order = 0;
    atomic_store_explicit(&c->seen_multi, -1, memory_order_relaxed);
    if (tx == NULL) {
        return;
    }
    forget_watches(c);
    while (tx->first != NULL) {
        struct queued *next = tx->first->next;
        mem_free(tx->first);
        tx->first = next;
    }
    mem_free(tx);
    c->tx = NULL;
}

/* --- WATCH ------------------------------------------------------------------------------------------- */

static bool is_watched(const struct tx *tx, const struct keyspace *ks, const struct key *k) {
    for (const struct watch *w = tx->watches; w != NULL; w = w->next) {
        if (w->ks == ks && bytes_equal(w->key.name, k->name)) {
            return true;
        }
    }
    return false;
}

static enum dc_err add_watch(struct cmd_ctx *ctx, const struct key *k, uint64_t version) {
    struct tx *tx = tx_of(ctx->client);
    struct watch *w = mem_alloc(sizeof(*w) + k->name.len);
    if (w == NULL) {
        return DC_ENOMEM;
    }
    memcpy(w + 1, k->name.ptr, k->name.len);
    *w = (struct watch){.next = tx->watches,
                        .ks = ctx->ks,
                        .version = version,
                        .key = {bytes_of((char *)(w + 1), k->name.len), k->pos},
                        .since = log_head(ctx->node->log).v};
    tx->watches = w;
    tx->watch_count++;
    atomic_store_explicit(&ctx->client->seen_watches, tx->watch_count, memory_order_relaxed);
    return DC_OK;
}

enum dc_err cmd_watch(struct cmd_ctx *ctx) {
    if (ctx->client->flags & CLIENT_MULTI) {
        return dc_fail(DC_EGENERIC, "WATCH inside MULTI is not allowed");
    }
    for (uint32_t i = 0; i < ctx->key_count; i++) {
        if (is_watched(tx_of(ctx->client), ctx->ks, &ctx->keys[i])) {
            continue; /* the first sight counts */
        }
        const struct entry *e = ctx_find(ctx, i);
        enum dc_err err = add_watch(ctx, &ctx->keys[i], e == NULL ? 0 : entry_version(e));
        if (err != DC_OK) {
            return err;
        }
    }
    reply_ok(ctx->reply);
    return DC_OK;
}

/* WATCHVER key version [key version ...]: as if WATCH had seen these versions (0 = absent). */
enum dc_err cmd_watchver(struct cmd_ctx *ctx) {
    if (ctx->client->flags & CLIENT_MULTI) {
        return dc_fail(DC_EGENERIC, "WATCHVER inside MULTI is not allowed");
    }
    if (ctx->argc % 2 == 0) {
        return dc_fail(DC_EARITY, "wrong number of arguments for '%s' command", ctx->cmd->name);
    }
    for (uint32_t i = 2; i < ctx->argc; i += 2) {
        uint64_t version;
        if (!num_parse_u64(ctx->argv[i], &version)) {
            return dc_fail(DC_EGENERIC, "version is not an integer or out of range");
        }
    }
    for (uint32_t i = 0; i < ctx->key_count; i++) {
        uint64_t version = 0;
        (void)num_parse_u64(ctx->argv[2 * i + 2], &version);
        enum dc_err err = add_watch(ctx, &ctx->keys[i], version);
        if (err != DC_OK) {
            return err;
        }
    }
    reply_ok(ctx->reply);
    return DC_OK;
}

enum dc_err cmd_unwatch(struct cmd_ctx *ctx) {
    forget_watches(ctx->client);
    reply_ok(ctx->reply);
    return DC_OK;
}

/* All slots of the watches are held. */
static bool watches_hold(struct cmd_ctx *ctx, const struct tx *tx) {
    for (const struct watch *w = tx->watches; w != NULL; w = w->next) {
        const struct entry *e = store_peek(&ctx->worker->store, w->ks, &w->key, ctx->now_ms);
        if (e != NULL ? entry_version(e) != w->version
                      : w->version != 0 || store_removed_version(w->ks, &w->key) > w->since) {
            return false; /* I2 */
        }
    }
    return true;
}

/* --- MULTI, EXEC, DISCARD ---------------------------------------------------------------------------- */

enum dc_err cmd_multi(struct cmd_ctx *ctx) {
    if (ctx->client->flags & CLIENT_MULTI) {
        return dc_fail(DC_EGENERIC, "MULTI calls can not be nested");
    }
    (void)tx_of(ctx->client);
    ctx->client->flags |= CLIENT_MULTI;
    atomic_store_explicit(&ctx->client->seen_multi, 0, memory_order_relaxed);
    client_show(ctx->client);
    reply_ok(ctx->reply);
    return DC_OK;
}

enum dc_err cmd_discard(struct cmd_ctx *ctx) {
    if (!(ctx->client->flags & CLIENT_MULTI)) {
        return dc_fail(DC_EGENERIC, "DISCARD without MULTI");
    }
    tx_drop(ctx->client);
    client_show(ctx->client);
    reply_ok(ctx->reply);
    return DC_OK;
}

static void collect_slots(struct cmd_ctx *ctx, const struct tx *tx, struct lockset *locks) {
    uint32_t slots = tx->watch_count;
    for (const struct queued *q = tx->first; q != NULL; q = q->next) {
        slots += q->key_count;
    }
    lockset_init(locks, ctx->node->store, ctx->worker->arena, slots);
    for (const struct queued *q = tx->first; q != NULL; q = q->next) {
        for (uint32_t i = 0; i < q->key_count; i++) {
            lockset_add(locks, key_slot(&q->keys[i]));
        }
    }
    for (const struct watch *w = tx->watches; w != NULL; w = w->next) {
        lockset_add(locks, key_slot(&w->key));
    }
    locks->all = (tx->flags & (F_WALK | F_ALL_SLOTS)) != 0;
}

/* The large arguments of all commands, in the order of the queue; copied before any lock is taken. */
static struct lifted **lift_all(struct cmd_ctx *ctx, const struct tx *tx) {
    struct lifted **lifted = ctx_alloc(ctx, (tx->count + 1) * sizeof(struct lifted *));
    uint32_t i = 0;
    for (const struct queued *q = tx->first; q != NULL; q = q->next) {
        lifted[i++] = cmd_lift(ctx->worker->arena, q->cmd, q->argv, q->argc);
    }
    return lifted;
}

static void run_queue(struct cmd_ctx *exec, const struct tx *tx, struct lifted **lifted,
                      bool all_locked) {
    uint32_t i = 0;
    reply_array(exec->reply, tx->count);
    for (const struct queued *q = tx->first; q != NULL; q = q->next, i++) {
        struct cmd_ctx ctx = *exec;
        ctx.cmd = q->cmd;
        ctx.argc = q->argc;
        ctx.argv = q->argv;
        ctx.keys = q->keys;
        ctx.key_count = q->key_count;
        ctx.ks = exec->client->ks; /* SELECT may have changed it */
        ctx.lifted = lifted[i];
        ctx.in_exec = true;
        ctx.all_locked = all_locked;
        exec->reply->proto = exec->client->proto;
        cmd_call(&ctx);
    }
}

static enum dc_err load_all(struct cmd_ctx *ctx, const struct tx *tx) {
    enum dc_err err = DC_OK;
    for (const struct queued *q = tx->first; q != NULL && err == DC_OK; q = q->next) {
        err = cmd_load(ctx->worker, q->cmd, q->argv, q->keys, q->key_count);
    }
    for (const struct watch *w = tx->watches; w != NULL && err == DC_OK; w = w->next) {
        err = cmd_load_keys(ctx->worker, &w->key, 1);
    }
    return err;
}

static enum dc_err run_frame(struct cmd_ctx *ctx, const struct tx *tx) {
    struct lockset locks;
    enum dc_err err = load_all(ctx, tx);
    if (err != DC_OK) {
        return err;
    }
    collect_slots(ctx, tx, &locks);
    struct lifted **lifted = lift_all(ctx, tx);
    lockset_acquire(&locks); /* I1 */
    if (watches_hold(ctx, tx)) {
        run_queue(ctx, tx, lifted, locks.all);
        if (ctx->mut->count > 0) {
            ctx_commit(ctx);
            ctx->client->last_version = mut_version(ctx->mut);
            ctx_fill_versions(ctx, ctx->mut);
        }
    } else {
        reply_null_array(ctx->reply);
    }
    lockset_release(&locks);
    for (uint32_t i = 0; i < tx->count; i++) {
        lifted_release(lifted[i]);
    }
    mut_reset(ctx->mut, ctx->now_ms);
    return DC_OK;
}

enum dc_err cmd_exec(struct cmd_ctx *ctx) {
    struct client *c = ctx->client;
    if (!(c->flags & CLIENT_MULTI)) {
        return dc_fail(DC_EGENERIC, "EXEC without MULTI");
    }
    if (c->tx->spoiled) {
        tx_drop(c);
        client_show(c);
        return DC_EEXECABORT;
    }
    struct tx *tx = c->tx;
    c->tx =
        NULL; /* a command of the queue may drop or begin one: RESET can't, but nothing is assumed */
    c->flags &= ~(uint32_t)CLIENT_MULTI;
    enum dc_err err = run_frame(ctx, tx);
    struct tx *after = c->tx;
    c->tx = tx;
    uint32_t flags = c->flags;
    tx_drop(c);
    c->tx = after;
    c->flags = flags;
    client_show(c);
    return err;
}
