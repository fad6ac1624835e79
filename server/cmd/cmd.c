/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The dispatcher. One request goes through these steps:
 *
 *   cmd_prepare   at read time: look-up, hash of the first key, prefetch
 *   admit         unknown? arity? password? pub/sub mode? memory?   -> error reply, nothing has happened
 *   tx_queue      inside MULTI: kept for later
 *   lock          the slots of all keys, ascending
 *   cmd_call      the handler, which replies and prepares effects
 *   commit        the sequencer gives the frame its position, the store shows it
 *   unlock        then what must not happen under a lock: freeing blobs, keyspace events
 *   account       time, counters, slow log
 */
#include "server/cmd/cmd.h"

#include "server/base/assert.h"
#include "server/base/diag.h"
#include "server/cmd/acks.h"
#include "server/cmd/client.h"
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/info.h"
#include "server/cmd/latency.h"
#include "server/cmd/lockset.h"
#include "server/cmd/memory.h"
#include "server/cmd/monitor.h"
#include "server/cmd/node.h"
#include "server/cmd/pubsub.h"
#include "server/cmd/slowlog.h"
#include "server/cmd/tx.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>

/* clang-format off */
const struct cmd cmd_table[CMD_COUNT] = {
#define CMD(i, par, nm, fn, ar, first, last, step, fl, ef, gr, sn, sum) \
    [CMD_##i] = {.name = nm, .run = fn, .id = CMD_##i, .parent = CMD_##par, .flags = fl, .effects = ef, .arity = ar, \
                 .key_first = first, .key_last = last, .key_step = step, .group = gr, .since = sn, .summary = sum},
#define CMD_CONTAINER(i, nm, ar, fl, gr, sn, sum) \
    [CMD_##i] = {.name = nm, .id = CMD_##i, .parent = CMD_NONE, .flags = fl, .arity = ar, .group = gr, .since = sn, .summary = sum},
#include "server/cmd/cmd.def"
#undef CMD
#undef CMD_CONTAINER
};
/* clang-format on */

static_assert(CMD_COUNT < 256, "the look-up keeps ids in bytes");

/* --- look-up ----------------------------------------------------------------------------------------- */

enum { LOOKUP_SIZE = 1024, NAME_MAX_LEN = 40 };

/* Open addressing by the lower-case name; CMD_NONE = free. */
static uint8_t lookup_ids[LOOKUP_SIZE];
static uint8_t name_lens[CMD_COUNT];

/* Folds a name to lower case, eight bytes at a time; 'len' counts for the hash as well. */
static inline uint32_t name_hash(const char *name, size_t len) {
    uint64_t h = len * 0x9e3779b97f4a7c15u;
    while (len >= 8) {
        uint64_t w = get_u64(name) | 0x2020202020202020u;
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
        name += 8;
        len -= 8;
    }
    uint64_t w = 0;
    for (size_t i = 0; i < len; i++) {
        w = w << 8 | ((unsigned char)name[i] | 0x20u);
    }
    h = (h ^ w) * 0xff51afd7ed558ccdu;
    return (uint32_t)(h >> 40);
}

void cmd_init(void) {
    memset(lookup_ids, CMD_NONE, sizeof(lookup_ids));
    for (uint32_t id = 0; id < CMD_COUNT; id++) {
        size_t len = strlen(cmd_table[id].name);
        dc_assert(len < NAME_MAX_LEN);
        name_lens[id] = (uint8_t)len;
        uint32_t at = name_hash(cmd_table[id].name, len) % LOOKUP_SIZE;
        while (lookup_ids[at] != CMD_NONE) {
            at = (at + 1) % LOOKUP_SIZE;
        }
        lookup_ids[at] = (uint8_t)id;
    }
}

const struct cmd *cmd_by_name(struct bytes name) {
    if (name.len >= NAME_MAX_LEN) {
        return NULL;
    }
    uint32_t at = name_hash(name.ptr, name.len) % LOOKUP_SIZE;
    for (; lookup_ids[at] != CMD_NONE; at = (at + 1) % LOOKUP_SIZE) {
        uint32_t id = lookup_ids[at];
        if (name_lens[id] == name.len && strncasecmp(cmd_table[id].name, name.ptr, name.len) == 0) {
            return &cmd_table[id];
        }
    }
    return NULL;
}

static const struct cmd *sub_lookup(const struct cmd *container, struct bytes word) {
    char full[NAME_MAX_LEN * 2];
    size_t len = name_lens[container->id];
    if (word.len >= NAME_MAX_LEN || memchr(word.ptr, '|', word.len) != NULL) {
        return NULL;
    }
    memcpy(full, container->name, len);
    full[len] = '|';
    memcpy(full + len + 1, word.ptr, word.len);
    return cmd_by_name(bytes_of(full, len + 1 + word.len));
}

const struct cmd *cmd_lookup(const struct bytes *argv, uint32_t argc) {
    const struct cmd *cmd = cmd_by_name(argv[0]);
    if (cmd == NULL || cmd->parent != CMD_NONE) {
        return NULL;
    }
    if (dc_likely(cmd->run != NULL) && cmd->id != CMD_COMMAND) {
        return cmd;
    }
    if (argc < 2) {
        return cmd;
    }
    return sub_lookup(cmd, argv[1]);
}

const char *cmd_group_name(enum cmd_group group) {
    static const char *const names[] = {"string",       "bitmap", "generic", "connection",
                                        "transactions", "pubsub", "server"};
    return names[group];
}

bool cmd_arity_fits(const struct cmd *cmd, uint32_t argc) {
    return cmd->arity > 0 ? argc == (uint32_t)cmd->arity : argc >= (uint32_t)-cmd->arity;
}

uint32_t cmd_key_count(const struct cmd *cmd, uint32_t argc) {
    if (cmd->key_first == 0) {
        return 0;
    }
    int32_t last = cmd->key_last >= 0 ? cmd->key_last : (int32_t)argc + cmd->key_last;
    if (last < cmd->key_first || last >= (int32_t)argc) {
        return last >= (int32_t)argc ? ((int32_t)argc - 1 - cmd->key_first) / cmd->key_step + 1 : 0;
    }
    return (uint32_t)((last - cmd->key_first) / cmd->key_step + 1);
}

void cmd_prepare(struct cmd_worker *w, struct client *c, struct job *job) {
    const struct cmd *cmd = cmd_lookup(job->req.argv, job->req.argc);
    job->cmd = cmd;
    job->hashed = false;
    if (cmd != NULL && cmd->key_first > 0 && job->req.argc > (uint32_t)cmd->key_first) {
        job->key = store_key(w->node->store, job->req.argv[cmd->key_first]);
        job->hashed = true;
        store_prefetch_root(c->ks, job->key.pos);
    }
}

void cmd_prefetch_line(struct client *c, struct job *job) {
    if (job->hashed) {
        store_prefetch_line(c->ks, job->key.pos);
    }
}

void cmd_prefetch_entry(struct client *c, struct job *job) {
    if (job->hashed) {
        store_prefetch_entry(c->worker->node->store, c->ks, job->key.pos);
    }
}

/* --- large arguments --------------------------------------------------------------------------------- */

struct lifted *cmd_lift(struct arena *a, const struct cmd *cmd, const struct bytes *argv,
                        uint32_t argc) {
    struct lifted *list = NULL;
    if (!(cmd->effects & E_PUT) || cmd->id == CMD_RESTORE) { /* RESTORE unpacks its argument */
        return NULL;
    }
    for (uint32_t i = 1; i < argc; i++) {
        if (dc_unlikely(argv[i].len >= BLOB_MIN_LEN)) {
            struct lifted *l = arena_alloc(a, sizeof(*l));
            *l = (struct lifted){list, i, blob_from(argv[i])};
            list = l;
        }
    }
    return list;
}

void lifted_release(struct lifted *l) {
    for (; l != NULL; l = l->next) {
        blob_release(l->blob);
    }
}

/* --- admission --------------------------------------------------------------------------------------- */

static enum dc_err fail_unknown(const struct bytes *argv, uint32_t argc) {
    char args[160];
    int len = 0;
    const struct cmd *container = cmd_by_name(argv[0]);
    if (container != NULL && argc >= 2 && container->parent == CMD_NONE) {
        char name[NAME_MAX_LEN];
        for (size_t i = 0; i <= argv[0].len; i++) {
            name[i] = i < argv[0].len ? (char)toupper((unsigned char)argv[0].ptr[i]) : '\0';
        }
        return dc_fail(DC_EUNKNOWN, "unknown subcommand '%.*s'. Try %s HELP.",
                       (int)(argv[1].len < 128 ? argv[1].len : 128), argv[1].ptr, name);
    }
    args[0] = '\0';
    for (uint32_t i = 1; i < argc && len < 128; i++) {
        int room = 128 - len < (int)argv[i].len ? 128 - len : (int)argv[i].len;
        len += snprintf(args + len, sizeof(args) - (size_t)len, "'%.*s' ", room, argv[i].ptr);
    }
    return dc_fail(DC_EUNKNOWN, "unknown command '%.*s', with args beginning with: %s",
                   (int)(argv[0].len < 128 ? argv[0].len : 128), argv[0].ptr, args);
}

/* What keeps the command from running. Nothing has happened yet. */
static inline bool has_lost_ranges(const struct node *n) {
    return n->warm != NULL && !warm_is_over(n->warm) && warm_is_settled(n->warm);
}

/* Before any effect, so nothing has to be taken back. */
static enum dc_err fail_misconf(const struct node *n) {
    char why[256];
    log_trouble(n->log, why, sizeof(why));
    return dc_fail(DC_EMISCONF,
                   "Writes are refused: %s. Reads go on; writes are taken again as soon as the "
                   "disk takes them.",
                   why);
}

static enum dc_err fail_writes(enum writes why) {
    switch (why) {
    case WRITES_FENCED:
        return dc_fail(DC_EREADONLY, "You can't write against this node: another one has become "
                                     "the primary. Reads go on.");
    case WRITES_TAKEN:
    case WRITES_HELD: /* it was held; the reason has changed meanwhile */
    case WRITES_READONLY:
        break;
    }
    return DC_EREADONLY;
}

static enum dc_err fail_stale(int64_t ms, int64_t max_ms) {
    if (ms == INT64_MAX) {
        return dc_fail(DC_ESTALE, "nobody knows how far this node is behind");
    }
    return dc_fail(DC_ESTALE,
                   "this replica may be %" PRId64 " ms behind, more than the %" PRId64
                   " ms of CLIENT MAXSTALE",
                   ms, max_ms);
}

/* What the role of the node has against a command. */
static enum dc_err check_role(struct node *n, const struct client *c, uint32_t flags) {
    enum writes writes = (enum writes)atomic_load_explicit(&n->writes, memory_order_acquire);
    if (writes == WRITES_TAKEN) {
        return DC_OK;
    }
    if (flags & F_WRITE) {
        return fail_writes(writes);
    }
    if (dc_unlikely(c->max_stale_ms > 0) && flags & F_READONLY) {
        int64_t ms = repl_staleness_ms(n->repl);
        if (ms > c->max_stale_ms) {
            return fail_stale(ms, c->max_stale_ms);
        }
    }
    bool stale = (writes == WRITES_READONLY || writes == WRITES_FENCED) &&
                 !conf_get(n->conf, replica_serve_stale_data) && !(flags & F_STALE) &&
                 !repl_is_current(n->repl);
    return stale ? DC_EMASTERDOWN : DC_OK;
}

static enum dc_err admit(struct cmd_worker *w, struct client *c, const struct job *job) {
    const struct cmd *cmd = job->cmd;
    if (cmd == NULL) {
        return fail_unknown(job->req.argv, job->req.argc);
    }
    if (!cmd_arity_fits(cmd, job->req.argc) || cmd->run == NULL) {
        return dc_fail(DC_EARITY, "wrong number of arguments for '%s' command", cmd->name);
    }
    if (dc_unlikely(!(c->flags & CLIENT_AUTHENTICATED)) && !(cmd->flags & F_NO_AUTH) &&
        !client_is_authenticated(c)) {
        return DC_ENOAUTH;
    }
    uint32_t flags = cmd->flags | (cmd->id == CMD_EXEC ? tx_flags(c) : 0);
    if (dc_unlikely(atomic_load_explicit(&w->node->writes, memory_order_relaxed) != WRITES_TAKEN)) {
        enum dc_err err = check_role(w->node, c, flags);
        if (err != DC_OK) {
            return err;
        }
    }
    if (dc_unlikely(log_state(w->node->log) != LOG_WELL) && (flags & F_WRITE)) {
        return fail_misconf(w->node);
    }
    if ((flags & F_WRITE) && dc_unlikely(!acks_has_replicas(w->node))) {
        return DC_ENOREPLICAS;
    }
    if (dc_unlikely(has_lost_ranges(w->node)) && (flags & F_NEEDS_ALL)) {
        return dc_fail(DC_ECORRUPT, "parts of the stored data are damaged and can't be loaded: see "
                                    "the log, and dcache-restore --repair");
    }
    if ((flags & F_DENYOOM) && memory_is_short(w) && memory_make_room(w) != DC_OK) {
        return DC_EOOM;
    }
    if (dc_unlikely(c->flags & CLIENT_SUBSCRIBED) && c->proto == REPLY_RESP2 &&
        !pubsub_allows(cmd)) {
        return dc_fail(DC_EGENERIC,
                       "Can't execute '%s': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / "
                       "RESET are allowed in this context",
                       cmd->name);
    }
    if (dc_unlikely(c->flags & CLIENT_MONITOR) && !monitor_allows(cmd, flags)) {
        return dc_fail(DC_EGENERIC, "Replica can't interact with the keyspace");
    }
    if ((c->flags & CLIENT_MULTI) && (cmd->flags & F_NO_MULTI)) {
        return dc_fail(DC_EGENERIC, "Command not allowed inside a transaction");
    }
    return DC_OK;
}

/* Counters have one writer, so a load and a store do. */
static inline void bump(_Atomic uint64_t *counter, uint64_t n) {
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static void count_rejected(struct cmd_worker *w, const struct cmd *cmd) {
    if (cmd != NULL) {
        bump(&w->stats[cmd->id].rejected, 1);
    }
}

static void reply_failure(struct cmd_worker *w, struct reply *r, enum dc_err err) {
    info_count_error(w, bytes_str(dc_err_prefix(err)));
    reply_error(r, err);
}

/* A browser that was made to speak to this port (cross-protocol scripting) gets nothing. */
static bool is_http(const struct job *job) {
    return job->cmd == NULL &&
           (bytes_is(job->req.argv[0], "POST") || bytes_is(job->req.argv[0], "Host:"));
}

static void refuse(struct cmd_worker *w, struct client *c, const struct job *job, enum dc_err err,
                   struct reply *reply) {
    count_rejected(w, job->cmd);
    if (job->cmd != NULL && job->cmd->id == CMD_EXEC) {
        char text[ERR_TEXT_MAX];
        const char *prefix = dc_err_prefix(err);
        bool plain = strcmp(prefix, "ERR") == 0;
        snprintf(text, sizeof(text), "%s%s%s", plain ? "" : prefix, plain ? "" : " ",
                 dc_fail_take(err));
        tx_drop(c);
        info_count_error(w, BYTES("EXECABORT"));
        reply_error_fmt(reply, "EXECABORT", "Transaction discarded because of: %s", text);
        return;
    }
    if (c->flags & CLIENT_MULTI) {
        tx_spoil(c);
    }
    reply_failure(w, reply, err);
}

/* --- execution --------------------------------------------------------------------------------------- */

static void count_call(struct cmd_worker *w, const struct cmd *cmd, uint64_t ticks, bool failed) {
    struct cmd_stats *s = &w->stats[cmd->id];
    bump(&s->calls, 1);
    bump(&s->ticks, ticks);
    if (dc_likely(atomic_load_explicit(&w->node->tracks_latency, memory_order_relaxed))) {
        _Atomic uint32_t *slot = &s->histogram[latency_bucket(ticks)];
        atomic_store_explicit(slot, atomic_load_explicit(slot, memory_order_relaxed) + 1,
                              memory_order_relaxed);
    }
    if (failed) {
        bump(&s->failed, 1);
    }
}

/* The slow log, the latency events, and a fresh clock after a command that took long. */
static void account_slow(struct cmd_ctx *ctx, uint64_t ticks) {
    struct node *n = ctx->node;
    uint64_t ns = time_ticks_to_ns(ticks);
    if (ticks >= atomic_load_explicit(&n->slow_ticks, memory_order_relaxed) &&
        !(ctx->cmd->flags & F_SKIP_SLOWLOG)) {
        slowlog_note(ctx->worker, ctx->client, ctx->argv, ctx->argc, ns / 1000);
    }
    if (ticks >= atomic_load_explicit(&n->latency_ticks, memory_order_relaxed)) {
        latency_note(n, ctx->cmd->flags & F_FAST ? "fast-command" : "command", ns / 1000000);
    }
    if (ns > 1000000 && !ctx->in_exec) {
        ctx->worker->now_us = clock_now_us(&n->clock);
    }
}

static void account(struct cmd_ctx *ctx, bool failed) {
    struct cmd_worker *w = ctx->worker;
    struct node *n = ctx->node;
    uint64_t now = time_ticks();
    uint64_t ticks = now - w->ticks;
    w->ticks = now;
    count_call(w, ctx->cmd, ticks, failed);
    metric_add(&w->metrics, METRIC_COMMANDS, 1);
    if (dc_unlikely(ticks >= atomic_load_explicit(&n->slow_ticks, memory_order_relaxed) ||
                    ticks >= atomic_load_explicit(&n->latency_ticks, memory_order_relaxed) ||
                    ticks > 1000000)) {
        account_slow(ctx, ticks);
    }
}

/* After the command, as Redis does: those of an EXEC stand before it, SELECT shows the new database. */
static void feed_monitors(struct cmd_worker *w, struct client *c, const struct cmd *cmd,
                          const struct bytes *argv, uint32_t argc) {
    if (dc_unlikely(atomic_load_explicit(&w->node->monitor_count, memory_order_relaxed) > 0)) {
        monitor_feed(w, c, cmd, argv, argc);
    }
}

void cmd_call(struct cmd_ctx *ctx) {
    struct cmd_worker *w = ctx->worker;
    size_t start = ctx->reply->out->len;
    struct notice **notices = w->notices == NULL ? &w->notices : w->notices_tail;
    uint32_t effects = ctx->mut->count;
    enum dc_err err = ctx->cmd->run(ctx);
    if (ctx->mut->count > effects && err == DC_OK) {
        err = log_reserve(ctx->worker->feed, ctx->mut);
    }
    if (dc_unlikely(err != DC_OK)) {
        mut_rollback(ctx->mut);
        notify_rollback(w, notices);
        reply_truncate(ctx->reply, start);
        reply_failure(w, ctx->reply, err);
    } else if (ctx->in_exec) {
        mut_apply(ctx->mut);
    }
    if (ctx->in_exec) {
        feed_monitors(w, ctx->client, ctx->cmd, ctx->argv, ctx->argc);
    }
    bump(&ctx->client->seen_commands, 1);
    account(ctx, err != DC_OK);
}

/* Hashes the keys and notes their slots. */
static void collect_keys(struct cmd_ctx *ctx, const struct job *job, struct lockset *locks) {
    struct store *s = ctx->node->store;
    ctx->key_count = cmd_key_count(ctx->cmd, ctx->argc);
    ctx->keys = ctx->key_count <= 1 ? (struct key *)(uintptr_t)&job->key
                                    : ctx_alloc(ctx, ctx->key_count * sizeof(struct key));
    lockset_init(locks, s, ctx->worker->arena, ctx->key_count);
    for (uint32_t i = 0; i < ctx->key_count; i++) {
        if (i > 0 || !job->hashed) {
            ctx->keys[i] = store_key(s, ctx->argv[cmd_key_index(ctx->cmd, i)]);
        } else if (ctx->key_count > 1) {
            ctx->keys[0] = job->key;
        }
        lockset_add(locks, key_slot(&ctx->keys[i]));
    }
    locks->all = (ctx->cmd->flags & F_ALL_SLOTS) != 0;
}

enum dc_err cmd_load_keys(struct cmd_worker *w, const struct key *keys, uint32_t count) {
    struct warm *warm = w->node->warm;
    for (uint32_t i = 0; i < count && warm != NULL && !warm_is_over(warm); i++) {
        enum dc_err err = warm_touch(warm, &w->store, key_slot(&keys[i]));
        if (err != DC_OK) {
            return err;
        }
    }
    return DC_OK;
}

enum dc_err cmd_load(struct cmd_worker *w, const struct cmd *cmd, const struct bytes *argv,
                     const struct key *keys, uint32_t key_count) {
    return cmd->id == CMD_SCAN ? scan_load(w, argv) : cmd_load_keys(w, keys, key_count);
}

static void run_alone(struct cmd_worker *w, struct client *c, struct job *job,
                      struct reply *reply) {
    struct cmd_ctx ctx = {.node = w->node,
                          .worker = w,
                          .client = c,
                          .cmd = job->cmd,
                          .argc = job->req.argc,
                          .argv = job->req.argv,
                          .ks = c->ks,
                          .reply = reply,
                          .mut = &w->mut,
                          .now_ms = w->now_us / 1000};
    struct lockset locks;
    collect_keys(&ctx, job, &locks);
    enum dc_err err = dc_likely(w->node->warm == NULL)
                          ? DC_OK
                          : cmd_load(w, ctx.cmd, ctx.argv, ctx.keys, ctx.key_count);
    if (dc_unlikely(err != DC_OK)) {
        reply_failure(w, reply, err);
        return;
    }
    ctx.all_locked = locks.all;
    mut_reset(&w->mut, ctx.now_ms);
    ctx.lifted = cmd_lift(w->arena, ctx.cmd, ctx.argv, ctx.argc);
    bool locked = (ctx.key_count > 0 || locks.all) && !(ctx.cmd->flags & (F_WALK | F_PUBSUB));
    if (locked) {
        lockset_acquire(&locks);
    }
    cmd_call(&ctx);
    if (w->mut.count > 0) {
        ctx_commit(&ctx);
        c->last_version = mut_version(&w->mut);
    }
    if (locked) {
        lockset_release(&locks);
    }
    lifted_release(ctx.lifted);
    if (dc_unlikely(w->mut.garbage_count > 0)) {
        mut_reset(&w->mut, ctx.now_ms);
    }
    if (dc_unlikely(w->notices != NULL)) {
        notify_flush(w);
    }
}

/* Commands that MULTI doesn't queue. */
static bool runs_inside_multi(const struct cmd *cmd) {
    switch (cmd->id) {
    case CMD_EXEC:
    case CMD_DISCARD:
    case CMD_MULTI:
    case CMD_WATCH:
    case CMD_WATCHVER:
    case CMD_QUIT:
    case CMD_RESET:
        return true;
    default:
        return false;
    }
}

/* Whether monitors are to see it: what was run, and an EXEC in any case, for the MULTI that they saw is over. */
static bool run_request(struct cmd_worker *w, struct client *c, struct job *job,
                        struct reply *reply) {
    enum dc_err err = admit(w, c, job);
    if (dc_unlikely(is_http(job))) {
        diag(DIAG_WARNING, "client.speaks_http addr=%s", c->addr);
        c->flags |= CLIENT_CLOSE_SOON;
        return false;
    }
    if (dc_unlikely(err != DC_OK)) {
        refuse(w, c, job, err, reply);
        return job->cmd != NULL && job->cmd->id == CMD_EXEC;
    }
    if (dc_likely(!(c->flags & CLIENT_MULTI)) || runs_inside_multi(job->cmd)) {
        run_alone(w, c, job, reply);
        return true;
    }
    err = tx_queue(c, job);
    if (err == DC_OK) {
        reply_status(reply, "QUEUED");
    } else {
        refuse(w, c, job, err, reply);
    }
    return false;
}

/* CLIENT REPLY OFF and SKIP: replies go nowhere, what is pushed meanwhile stands in the output. The command that ends
 * the silence is answered. */
static bool run_silent(struct cmd_worker *w, struct client *c, struct job *job,
                       struct reply *reply) {
    struct buf unheard;
    struct reply silent = *reply;
    buf_init(&unheard, 0);
    silent.out = &unheard;
    silent.splices = NULL;
    bool shown = run_request(w, c, job, &silent);
    if (!(c->flags & (CLIENT_REPLY_OFF | CLIENT_REPLY_SKIP))) {
        buf_append_bytes(reply->out, buf_bytes(&unheard));
    }
    reply_truncate(&silent, 0);
    buf_fini(&unheard);
    return shown;
}

static void skip_next(struct client *c) {
    c->flags &= ~(uint32_t)CLIENT_REPLY_SKIP;
    if (c->flags & CLIENT_SKIP_NEXT) {
        c->flags = (c->flags & ~(uint32_t)CLIENT_SKIP_NEXT) | CLIENT_REPLY_SKIP;
    }
}

void cmd_run(struct cmd_worker *w, struct client *c, struct job *job, struct reply *reply) {
    bool silent = (c->flags & (CLIENT_REPLY_OFF | CLIENT_REPLY_SKIP)) != 0;
    w->current = c;
    if (dc_unlikely(silent) ? run_silent(w, c, job, reply) : run_request(w, c, job, reply)) {
        feed_monitors(w, c, job->cmd, job->req.argv, job->req.argc);
    }
    if (job->cmd != NULL) {
        atomic_store_explicit(&c->seen_cmd, job->cmd->id, memory_order_relaxed);
    }
    reply->proto = c->proto; /* HELLO and RESET change it */
    if (dc_unlikely(c->flags & (CLIENT_REPLY_SKIP | CLIENT_SKIP_NEXT))) {
        skip_next(c);
    }
    w->current = NULL;
}
