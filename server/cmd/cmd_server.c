/* SPDX-License-Identifier: BSD-3-Clause */
/* TIME, SHUTDOWN, DEBUG. */
#include "server/cmd/client.h"
#include "server/cmd/ctx.h"
#include "server/cmd/entry_names.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum dc_err cmd_time(struct cmd_ctx *ctx) {
    int64_t now_us = clock_now_us(&ctx->node->clock);
    reply_array(ctx->reply, 2);
    reply_bulk_i64(ctx->reply, now_us / 1000000);
    reply_bulk_i64(ctx->reply, now_us % 1000000);
    return DC_OK;
}

/* --- SHUTDOWN ---------------------------------------------------------------------------------------------------- */

struct shutdown_words {
    bool save, nosave, other, abort;
};

static enum dc_err read_shutdown(const struct cmd_ctx *ctx, struct shutdown_words *s) {
    for (uint32_t i = 1; i < ctx->argc; i++) {
        if (ctx_arg_is(ctx, i, "save")) {
            s->save = true;
        } else if (ctx_arg_is(ctx, i, "nosave")) {
            s->nosave = true;
        } else if (ctx_arg_is(ctx, i, "now") || ctx_arg_is(ctx, i, "force")) {
            s->other = true;
        } else if (ctx_arg_is(ctx, i, "abort")) {
            s->abort = true;
        } else {
            return DC_ESYNTAX;
        }
    }
    bool contradicts = (s->save && s->nosave) || (s->abort && (s->save || s->nosave || s->other));
    return contradicts ? DC_ESYNTAX : DC_OK;
}

/* The end is orderly in any case and there is nothing to wait for. No reply: the connection closes. */
enum dc_err cmd_shutdown(struct cmd_ctx *ctx) {
    struct shutdown_words s = {.save = false};
    enum dc_err err = read_shutdown(ctx, &s);
    if (err != DC_OK) {
        return err;
    }
    if (s.abort) {
        return dc_fail(DC_EGENERIC, "No shutdown in progress.");
    }
    ctx->node->host->shutdown(ctx->node, s.save     ? SHUTDOWN_SAVE
                                         : s.nosave ? SHUTDOWN_NOSAVE
                                                    : SHUTDOWN_AS_CONFIGURED);
    return DC_OK;
}

/* --- DEBUG ------------------------------------------------------------------------------------------------------- */

enum { DEBUG_NO, DEBUG_YES, DEBUG_LOCAL }; /* enable-debug-command */

static bool is_local(const struct client *c) {
    return (c->flags & CLIENT_UNIX) || strncmp(c->addr, "127.0.0.1:", 10) == 0 ||
           strncmp(c->addr, "[::1]:", 6) == 0;
}

static enum dc_err debug_allowed(const struct cmd_ctx *ctx) {
    int64_t who = conf_get(ctx->node->conf, enable_debug_command);
    if (who == DEBUG_YES || (who == DEBUG_LOCAL && is_local(ctx->client))) {
        return DC_OK;
    }
    return dc_fail(DC_EGENERIC,
                   "DEBUG command not allowed. If the enable-debug-command option is set to "
                   "\"local\", you can run it from a local connection, otherwise you need to set "
                   "this option in the configuration file, and then restart the server.");
}

/* The process starts anew in place. The reply still leaves. */
static enum dc_err debug_restart(struct cmd_ctx *ctx) {
    ctx->node->host->restart(ctx->node);
    reply_ok(ctx->reply);
    return DC_OK;
}

/* The text that an argument begins with, as a number; 0 without one. */
static double arg_f64(const struct cmd_ctx *ctx, uint32_t i) {
    char text[64];
    snprintf(text, sizeof(text), "%.*s", (int)(ctx->argv[i].len < 63 ? ctx->argv[i].len : 63),
             ctx->argv[i].ptr);
    return strtod(text, NULL);
}

/* Stops this worker, not the others: the one handler that waits. */
static enum dc_err debug_sleep(struct cmd_ctx *ctx) {
    double seconds = arg_f64(ctx, 2);
    if (seconds > 0) {
        double most = seconds < 1e6 ? seconds : 1e6;
        struct timespec t = {.tv_sec = (time_t)most,
                             .tv_nsec = (long)((most - (double)(time_t)most) * 1e9)};
        nanosleep(&t, NULL);
    }
    reply_ok(ctx->reply);
    return DC_OK;
}

static enum dc_err debug_set_active_expire(struct cmd_ctx *ctx) {
    bool on = arg_f64(ctx, 2) != 0;
    atomic_store_explicit(&ctx->node->active_expire, on, memory_order_relaxed);
    reply_ok(ctx->reply);
    return DC_OK;
}

static void reply_object(struct cmd_ctx *ctx, const struct entry *e) {
    char text[192];
    struct value v;
    entry_value(e, &v);
    int64_t idle_s = store_idle_ms(ctx->node->store, e, ctx->now_ms) / 1000;
    snprintf(text, sizeof(text),
             "Value at:%p refcount:1 encoding:%s serializedlength:%zu lru:%" PRId64
             " lru_seconds_idle:%" PRId64 " version:%" PRIu64 " size:%zu",
             (const void *)e, entry_encoding_name(e), value_len(&v) + 1,
             (ctx->now_ms / 1000 - idle_s) & 0xffffff, idle_s, entry_version(e), entry_size(e));
    reply_status(ctx->reply, text);
}

/* DEBUG takes locks itself (F_WALK): only this subcommand has a key. */
static enum dc_err debug_object(struct cmd_ctx *ctx) {
    struct store *s = ctx->node->store;
    struct key key = store_key(s, ctx->argv[2]);
    if (!ctx->all_locked) {
        store_lock(s, key_slot(&key));
    }
    const struct entry *e = store_peek(&ctx->worker->store, ctx->ks, &key, ctx->now_ms);
    if (e != NULL) {
        reply_object(ctx, e);
    }
    if (!ctx->all_locked) {
        store_unlock(s, key_slot(&key));
    }
    return e != NULL ? DC_OK : DC_ENOKEY;
}

static enum dc_err debug_help(struct cmd_ctx *ctx) {
    static const char *const lines[] = {
        "OBJECT <key>",
        "    Show low level info about `key` and associated value.",
        "RESTART",
        "    End in an orderly way and start anew in place: the process stays the same.",
        "SET-ACTIVE-EXPIRE <0|1>",
        "    Setting it to 0 disables expiring keys in background when they are not",
        "    accessed (otherwise the Redis behavior). Setting it to 1 reenables back the",
        "    default.",
        "SLEEP <seconds>",
        "    Stop the worker of this connection for <seconds>. Decimals allowed.",
        NULL,
    };
    ctx_reply_help(ctx, lines);
    return DC_OK;
}

enum dc_err cmd_debug(struct cmd_ctx *ctx) {
    static const struct {
        const char *word;
        uint32_t argc;
        enum dc_err (*run)(struct cmd_ctx *ctx);
    } subs[] = {
        {"help", 2, debug_help},
        {"sleep", 3, debug_sleep},
        {"set-active-expire", 3, debug_set_active_expire},
        {"object", 3, debug_object},
        {"restart", 2, debug_restart},
    };
    enum dc_err err = debug_allowed(ctx);
    for (size_t i = 0; err == DC_OK && i < sizeof(subs) / sizeof(subs[0]); i++) {
        if (ctx->argc == subs[i].argc && ctx_arg_is(ctx, 1, subs[i].word)) {
            return subs[i].run(ctx);
        }
    }
    return err != DC_OK ? err : ctx_fail_subcommand(ctx);
}
