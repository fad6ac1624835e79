/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * CLIENT. Other workers' clients are seen through the registry, under the lock CLIENTS; what has to happen to one of them
 * happens on its own worker, by a message.
 */
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "server/base/num.h"
#include "server/cmd/client.h"
#include "server/cmd/client_name.h"
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* --- types ------------------------------------------------------------------------------------------------------- */

enum client_type { TYPE_NORMAL, TYPE_REPLICA, TYPE_PUBSUB, TYPE_MASTER, TYPE_ANY };

static enum client_type type_of_name(struct bytes name) {
    static const struct {
        const char *name;
        enum client_type type;
    } types[] = {{"normal", TYPE_NORMAL},
                 {"slave", TYPE_REPLICA},
                 {"replica", TYPE_REPLICA},
                 {"pubsub", TYPE_PUBSUB},
                 {"master", TYPE_MASTER}};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (bytes_is(name, types[i].name)) {
            return types[i].type;
        }
    }
    return TYPE_ANY;
}

static enum client_type type_of(const struct client *c) {
    uint32_t flags = atomic_load_explicit(&c->seen_flags, memory_order_relaxed);
    return (flags & CLIENT_SUBSCRIBED) ? TYPE_PUBSUB : TYPE_NORMAL;
}

/* What a client sent is cut in messages. */
static int shown_len(struct bytes text) {
    return (int)(text.len < ERR_TEXT_MAX / 2 ? text.len : ERR_TEXT_MAX / 2);
}

static enum dc_err fail_type(struct bytes name) {
    return dc_fail(DC_EGENERIC, "Unknown client type '%.*s'", shown_len(name), name.ptr);
}

/* --- LIST and INFO ----------------------------------------------------------------------------------------------- */

static void format_flags(char *to, const struct client *c) {
    static const struct {
        uint32_t flag;
        char letter;
    } letters[] = {{CLIENT_MONITOR, 'O'},    {CLIENT_SUBSCRIBED, 'P'}, {CLIENT_MULTI, 'x'},
                   {CLIENT_CLOSE_SOON, 'c'}, {CLIENT_UNIX, 'U'},       {CLIENT_NO_EVICT, 'e'},
                   {CLIENT_NO_TOUCH, 'T'}};
    uint32_t flags = atomic_load_explicit(&c->seen_flags, memory_order_relaxed);
    char *at = to;
    for (size_t i = 0; i < sizeof(letters) / sizeof(letters[0]); i++) {
        if (flags & letters[i].flag) {
            *at++ = letters[i].letter;
        }
    }
    if (at == to) {
        *at++ = 'N';
    }
    *at = '\0';
}

static const char *name_of_command(const struct cmd_ctx *ctx, const struct client *c) {
    uint32_t id = atomic_load_explicit(&c->seen_cmd, memory_order_relaxed);
    if (c == ctx->client) {
        return ctx->cmd->name;
    }
    return id < CMD_COUNT ? cmd_table[id].name : "NULL";
}

#define SEEN(c, field) atomic_load_explicit(&(c)->seen_##field, memory_order_relaxed)

static void format_session(struct buf *out, const struct cmd_ctx *ctx, const struct client *c) {
    char flags[16];
    int64_t now_ms = clock_now_ms(&ctx->node->clock);
    int64_t last_ms = atomic_load_explicit(&c->last_ms, memory_order_relaxed);
    format_flags(flags, c);
    buf_printf(out,
               "id=%" PRIu64 " addr=%s laddr=%s fd=%d name=%s age=%" PRId64 " idle=%" PRId64
               " flags=%s db=%u sub=%u psub=%u ssub=%u multi=%d",
               c->id, c->addr, c->laddr, c->fd, c->name != NULL ? c->name : "",
               (now_ms - c->created_ms) / 1000, now_ms > last_ms ? (now_ms - last_ms) / 1000 : 0,
               flags, SEEN(c, db), SEEN(c, subs), SEEN(c, psubs), SEEN(c, ssubs), SEEN(c, multi));
}

/* The node has no buffers of fixed size per client: what Redis says of its own is 0. */
static void format_memory(struct buf *out, const struct cmd_ctx *ctx, const struct client *c) {
    uint64_t input = SEEN(c, input);
    uint64_t output = SEEN(c, output);
    buf_printf(out,
               " qbuf=%" PRIu64 " qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=%d"
               " omem=%" PRIu64 " tot-mem=%" PRIu64
               " events=%s cmd=%s user=default redir=-1 resp=%u",
               input, output > 0, output, sizeof(*c) + input + output, output > 0 ? "rw" : "r",
               name_of_command(ctx, c), SEEN(c, proto));
}

static void format_client_locked(struct buf *out, const struct cmd_ctx *ctx, const struct client *c)
    DC_REQUIRES(ctx->node->clients_lock) {
    format_session(out, ctx, c);
    format_memory(out, ctx, c);
    if (c->lib_name != NULL || c->lib_ver != NULL) {
        buf_printf(out, " lib-name=%s lib-ver=%s", c->lib_name != NULL ? c->lib_name : "",
                   c->lib_ver != NULL ? c->lib_ver : "");
    }
    buf_append_str(out, "\n");
}

enum dc_err cmd_client_info(struct cmd_ctx *ctx) {
    struct buf text;
    buf_init(&text, 0);
    client_show(ctx->client);
    lock_acquire(&ctx->node->clients_lock);
    format_client_locked(&text, ctx, ctx->client);
    lock_release(&ctx->node->clients_lock);
    reply_verbatim(ctx->reply, buf_bytes(&text), "txt");
    buf_fini(&text);
    return DC_OK;
}

/* The registry has the newest first, Redis lists the oldest first. */
static const struct client *oldest_locked(struct node *n) DC_REQUIRES(n->clients_lock) {
    const struct client *c = n->clients;
    while (c != NULL && c->next != NULL) {
        c = c->next;
    }
    return c;
}

static void list_type(struct buf *out, const struct cmd_ctx *ctx, enum client_type type) {
    lock_acquire(&ctx->node->clients_lock);
    for (const struct client *c = oldest_locked(ctx->node); c != NULL; c = c->prev) {
        if (type == TYPE_ANY || type_of(c) == type) {
            format_client_locked(out, ctx, c);
        }
    }
    lock_release(&ctx->node->clients_lock);
}

static int by_id(const void *a, const void *b) {
    const struct client *const *left = a;
    const struct client *const *right = b;
    return ((*left)->id > (*right)->id) - ((*left)->id < (*right)->id);
}

/* All clients by their number. */
static const struct client **sort_locked(struct cmd_ctx *ctx, size_t *count)
    DC_REQUIRES(ctx->node->clients_lock) {
    size_t i = 0;
    for (const struct client *c = ctx->node->clients; c != NULL; c = c->next) {
        i++;
    }
    const struct client **sorted = ctx_alloc(ctx, i * sizeof(const struct client *));
    *count = i;
    i = 0;
    for (const struct client *c = ctx->node->clients; c != NULL; c = c->next) {
        sorted[i++] = c;
    }
    qsort(sorted, *count, sizeof(const struct client *), by_id);
    return sorted;
}

static void list_ids(struct buf *out, struct cmd_ctx *ctx, const int64_t *ids, uint32_t count) {
    size_t there;
    lock_acquire(&ctx->node->clients_lock);
    const struct client **sorted = sort_locked(ctx, &there);
    for (uint32_t i = 0; i < count; i++) {
        const struct client wanted = {.id = (uint64_t)ids[i]};
        const struct client *key = &wanted;
        const struct client **found =
            bsearch(&key, sorted, there, sizeof(const struct client *), by_id);
        if (found != NULL) {
            format_client_locked(out, ctx, *found);
        }
    }
    lock_release(&ctx->node->clients_lock);
}

static enum dc_err read_ids(struct cmd_ctx *ctx, int64_t *ids) {
    for (uint32_t i = 3; i < ctx->argc; i++) {
        if (!num_parse_i64(ctx->argv[i], &ids[i - 3])) {
            return dc_fail(DC_EGENERIC, "Invalid client ID");
        }
    }
    return DC_OK;
}

static enum dc_err write_list(struct cmd_ctx *ctx, struct buf *text) {
    if (ctx->argc == 2) {
        list_type(text, ctx, TYPE_ANY);
        return DC_OK;
    }
    if (ctx->argc == 4 && ctx_arg_is(ctx, 2, "type")) {
        enum client_type type = type_of_name(ctx->argv[3]);
        if (type == TYPE_ANY) {
            return fail_type(ctx->argv[3]);
        }
        list_type(text, ctx, type);
        return DC_OK;
    }
    if (ctx->argc > 3 && ctx_arg_is(ctx, 2, "id")) {
        int64_t *ids = ctx_alloc(ctx, ctx->argc * sizeof(*ids));
        enum dc_err err = read_ids(ctx, ids);
        if (err == DC_OK) {
            list_ids(text, ctx, ids, ctx->argc - 3);
        }
        return err;
    }
    return DC_ESYNTAX;
}

enum dc_err cmd_client_list(struct cmd_ctx *ctx) {
    struct buf text;
    buf_init(&text, 0);
    client_show(ctx->client);
    enum dc_err err = write_list(ctx, &text);
    if (err == DC_OK && text.failed) {
        err = DC_ENOMEM;
    }
    if (err == DC_OK) {
        reply_verbatim(ctx->reply, buf_bytes(&text), "txt");
    }
    buf_fini(&text);
    return err;
}

/* --- KILL -------------------------------------------------------------------------------------------------------- */

/* Whom to kill; what isn't set matches everyone. */
struct kill_filter {
    int64_t id; /* 0 = any */
    struct bytes addr;
    struct bytes laddr;
    enum client_type type;
    bool skip_me;
    int64_t age_min_s;
};

static bool matches(const struct kill_filter *f, const struct client *c, int64_t now_ms) {
    return (f->addr.ptr == NULL || bytes_equal(f->addr, bytes_str(c->addr))) &&
           (f->laddr.ptr == NULL || bytes_equal(f->laddr, bytes_str(c->laddr))) &&
           (f->type == TYPE_ANY || type_of(c) == f->type) &&
           (f->id == 0 || (uint64_t)f->id == c->id) &&
           (now_ms - c->created_ms) / 1000 >= f->age_min_s;
}

static enum dc_err read_positive(struct bytes arg, const char *text, int64_t *out) {
    return num_parse_i64(arg, out) && *out > 0 ? DC_OK : dc_fail(DC_EGENERIC, "%s", text);
}

static enum dc_err read_filter_pair(struct kill_filter *f, struct bytes word, struct bytes value) {
    if (bytes_is(word, "id")) {
        return read_positive(value, "client-id should be greater than 0", &f->id);
    }
    if (bytes_is(word, "maxage")) {
        return read_positive(value, "maxage should be greater than 0", &f->age_min_s);
    }
    if (bytes_is(word, "type")) {
        f->type = type_of_name(value);
        return f->type != TYPE_ANY ? DC_OK : fail_type(value);
    }
    if (bytes_is(word, "addr")) {
        f->addr = value;
        return DC_OK;
    }
    if (bytes_is(word, "laddr")) {
        f->laddr = value;
        return DC_OK;
    }
    if (bytes_is(word, "user")) { /* there is one user, everybody is */
        return bytes_equal(value, BYTES("default"))
                   ? DC_OK
                   : dc_fail(DC_EGENERIC, "No such user '%.*s'", shown_len(value), value.ptr);
    }
    if (bytes_is(word, "skipme") && (bytes_is(value, "yes") || bytes_is(value, "no"))) {
        f->skip_me = bytes_is(value, "yes");
        return DC_OK;
    }
    return DC_ESYNTAX;
}

static enum dc_err read_filter(const struct cmd_ctx *ctx, struct kill_filter *f) {
    enum dc_err err = DC_OK;
    *f = (struct kill_filter){.type = TYPE_ANY, .skip_me = true};
    if (ctx->argc == 3) { /* the old form may kill its caller */
        f->addr = ctx->argv[2];
        f->skip_me = false;
    }
    for (uint32_t i = 2; ctx->argc > 3 && i < ctx->argc && err == DC_OK; i += 2) {
        err = i + 1 < ctx->argc ? read_filter_pair(f, ctx->argv[i], ctx->argv[i + 1]) : DC_ESYNTAX;
    }
    return err;
}

/* Somebody to kill, by number: the client may be gone when his worker gets to it. */
struct kill {
    struct message message; /* first */
    struct kill *next;
    uint32_t worker;
    uint64_t id;
};

static void close_if_meant(struct client *c, void *arg) {
    const struct kill *k = arg;
    if (c->id == k->id) {
        c->worker->node->host->close(c, false);
    }
}

static void run_kill(struct cmd_worker *w, struct message *m) {
    struct kill *k = (struct kill *)m;
    w->node->host->each_client(w, close_if_meant, k);
    mem_free(k);
}

/* Those who match, but for the caller, who is counted and left out. */
static struct kill *choose(struct cmd_ctx *ctx, const struct kill_filter *f, uint32_t *count,
                           bool *kills_me) {
    struct node *n = ctx->node;
    struct kill *list = NULL;
    int64_t now_ms = clock_now_ms(&n->clock);
    lock_acquire(&n->clients_lock);
    for (const struct client *c = n->clients; c != NULL; c = c->next) {
        if (!matches(f, c, now_ms) || (c == ctx->client && f->skip_me)) {
            continue;
        }
        (*count)++;
        if (c == ctx->client) {
            *kills_me = true;
            continue;
        }
        struct kill *k = mem_must_alloc(sizeof(*k));
        *k = (struct kill){{.run = run_kill}, list, c->worker->index, c->id};
        list = k;
    }
    lock_release(&n->clients_lock);
    return list;
}

static void carry_out(struct cmd_ctx *ctx, struct kill *list) {
    while (list != NULL) {
        struct kill *next = list->next;
        if (list->worker == ctx->worker->index) {
            run_kill(ctx->worker, &list->message);
        } else {
            ctx->node->host->post(ctx->node, list->worker, &list->message);
        }
        list = next;
    }
}

enum dc_err cmd_client_kill(struct cmd_ctx *ctx) {
    struct kill_filter f;
    uint32_t count = 0;
    bool kills_me = false;
    enum dc_err err = read_filter(ctx, &f);
    if (err != DC_OK) {
        return err;
    }
    client_show(ctx->client);
    carry_out(ctx, choose(ctx, &f, &count, &kills_me));
    if (ctx->argc > 3) {
        reply_int(ctx->reply, count);
    } else if (count > 0) {
        reply_ok(ctx->reply);
    } else {
        return dc_fail(DC_EGENERIC, "No such client");
    }
    if (kills_me) {
        ctx->client->flags |= CLIENT_CLOSE_SOON;
    }
    return DC_OK;
}

/* --- names ------------------------------------------------------------------------------------------------------- */

enum dc_err cmd_client_id(struct cmd_ctx *ctx) {
    reply_int(ctx->reply, (int64_t)ctx->client->id);
    return DC_OK;
}

enum dc_err cmd_client_getname(struct cmd_ctx *ctx) {
    const char *name = ctx->client->name; /* only this worker writes it */
    if (name != NULL) {
        reply_bulk_str(ctx->reply, name);
    } else {
        reply_null(ctx->reply);
    }
    return DC_OK;
}

enum dc_err cmd_client_setname(struct cmd_ctx *ctx) {
    enum dc_err err = client_name_check(ctx->argv[2]);
    if (err == DC_OK) {
        client_name_set(ctx->client, &ctx->client->name, ctx->argv[2]);
        reply_ok(ctx->reply);
    }
    return err;
}

enum dc_err cmd_client_setinfo(struct cmd_ctx *ctx) {
    struct bytes attribute = ctx->argv[2];
    bool is_name = bytes_is(attribute, "lib-name");
    if (!is_name && !bytes_is(attribute, "lib-ver")) {
        return dc_fail(DC_EGENERIC, "Unrecognized option '%.*s'", shown_len(attribute),
                       attribute.ptr);
    }
    if (!client_name_is_plain(ctx->argv[3])) {
        return dc_fail(DC_EGENERIC, "%.*s cannot contain spaces, newlines or special characters.",
                       (int)attribute.len, attribute.ptr);
    }
    client_name_set(ctx->client, is_name ? &ctx->client->lib_name : &ctx->client->lib_ver,
                    ctx->argv[3]);
    reply_ok(ctx->reply);
    return DC_OK;
}

/* --- switches ---------------------------------------------------------------------------------------------------- */

enum dc_err cmd_client_reply(struct cmd_ctx *ctx) {
    struct client *c = ctx->client;
    if (ctx_arg_is(ctx, 2, "on")) {
        c->flags &= ~(uint32_t)(CLIENT_REPLY_OFF | CLIENT_REPLY_SKIP);
        reply_ok(ctx->reply);
        return DC_OK;
    }
    if (ctx_arg_is(ctx, 2, "off")) {
        c->flags |= CLIENT_REPLY_OFF;
        return DC_OK;
    }
    if (ctx_arg_is(ctx, 2, "skip")) {
        c->flags |= (c->flags & CLIENT_REPLY_OFF) ? 0 : CLIENT_SKIP_NEXT;
        return DC_OK;
    }
    return DC_ESYNTAX;
}

static enum dc_err set_switch(struct cmd_ctx *ctx, enum client_flag flag) {
    if (ctx_arg_is(ctx, 2, "on")) {
        ctx->client->flags |= flag;
    } else if (ctx_arg_is(ctx, 2, "off")) {
        ctx->client->flags &= ~(uint32_t)flag;
    } else {
        return DC_ESYNTAX;
    }
    client_show(ctx->client);
    reply_ok(ctx->reply);
    return DC_OK;
}

enum dc_err cmd_client_no_evict(struct cmd_ctx *ctx) {
    return set_switch(ctx, CLIENT_NO_EVICT);
}

enum dc_err cmd_client_no_touch(struct cmd_ctx *ctx) {
    return set_switch(ctx, CLIENT_NO_TOUCH);
}

/* --- PAUSE ------------------------------------------------------------------------------------------------------- */

/* A pause that runs may become longer and stricter, not shorter or laxer. */
static void pause_until(struct node *n, int64_t until_ms, bool all, int64_t now_ms) {
    int64_t running = atomic_load_explicit(&n->pause_until_ms, memory_order_relaxed);
    bool runs = running > now_ms;
    if (!runs || all) {
        atomic_store_explicit(&n->pause_all, all, memory_order_relaxed);
    }
    if (!runs || until_ms > running) {
        atomic_store_explicit(&n->pause_until_ms, until_ms, memory_order_relaxed);
    }
}

enum dc_err cmd_client_pause(struct cmd_ctx *ctx) {
    int64_t ms;
    int64_t now_ms = clock_now_ms(&ctx->node->clock);
    bool only_writes = ctx->argc == 4 && ctx_arg_is(ctx, 3, "write");
    if (ctx->argc > 4) {
        return ctx_fail_subcommand(ctx);
    }
    if (ctx->argc == 4 && !only_writes && !ctx_arg_is(ctx, 3, "all")) {
        return dc_fail(DC_EGENERIC, "CLIENT PAUSE mode must be WRITE or ALL");
    }
    if (!num_parse_i64(ctx->argv[2], &ms)) {
        return dc_fail(DC_EGENERIC, "timeout is not an integer or out of range");
    }
    if (ms < 0) {
        return dc_fail(DC_EGENERIC, "timeout is negative");
    }
    pause_until(ctx->node, ms < INT64_MAX - now_ms ? now_ms + ms : INT64_MAX, !only_writes, now_ms);
    reply_ok(ctx->reply);
    return DC_OK;
}

enum dc_err cmd_client_unpause(struct cmd_ctx *ctx) {
    atomic_store_explicit(&ctx->node->pause_until_ms, 0, memory_order_relaxed);
    ctx->node->host->resume(ctx->node);
    reply_ok(ctx->reply);
    return DC_OK;
}

enum dc_err cmd_client_help(struct cmd_ctx *ctx) {
    static const char *const lines[] = {
        "GETNAME",
        "    Return the name of the current connection.",
        "ID",
        "    Return the ID of the current connection.",
        "INFO",
        "    Return information about the current client connection.",
        "KILL <ip:port>",
        "    Kill connection made from <ip:port>.",
        "KILL <option> <value> [<option> <value> [...]]",
        "    Kill connections. Options are:",
        "    * ADDR (<ip:port>|<unixsocket>:0)",
        "      Kill connections made from the specified address",
        "    * LADDR (<ip:port>|<unixsocket>:0)",
        "      Kill connections made to specified local address",
        "    * ID <client-id>",
        "      Kill the connection of this ID.",
        "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
        "      Kill connections by type.",
        "    * USER <username>",
        "      Kill connections authenticated by <username>.",
        "    * MAXAGE <seconds>",
        "      Kill connections that are at least so old.",
        "    * SKIPME (YES|NO)",
        "      Skip killing current connection (default: yes).",
        "LIST [options ...]",
        "    Return information about client connections. Options:",
        "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
        "      Return clients of specified type.",
        "    * ID <client-id> [<client-id> ...]",
        "      Return the clients of these IDs.",
        "UNPAUSE",
        "    Stop the current client pause, resuming traffic.",
        "PAUSE <timeout> [WRITE|ALL]",
        "    Suspend all, or just write, clients for <timeout> milliseconds.",
        "REPLY (ON|OFF|SKIP)",
        "    Control the replies sent to the current connection.",
        "SETNAME <name>",
        "    Assign the name <name> to the current connection.",
        "SETINFO (LIB-NAME|LIB-VER) <value>",
        "    Say which library the current connection uses.",
        "UNBLOCK <clientid> [TIMEOUT|ERROR]",
        "    Unblock the specified blocked client.",
        "NO-EVICT (ON|OFF)",
        "    Protect current client connection from eviction.",
        "ACK [<level> [NEXT]]",
        "    How safe a write of the current connection is before its reply leaves.",
        "MAXSTALE [<milliseconds>]",
        "    How far behind a replica may be that answers the current connection.",
        "NO-TOUCH (ON|OFF)",
        "    Commands of the current connection don't count as accesses of keys.",
        NULL,
    };
    ctx_reply_help(ctx, lines);
    return DC_OK;
}
