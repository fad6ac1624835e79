/* SPDX-License-Identifier: BSD-3-Clause */
/* Commands of pub/sub. Joining and leaving answers one push per topic (an array in RESP2), which CLIENT REPLY doesn't
 * silence. */
#include "server/base/buf.h"
#include "server/base/glob.h"
#include "server/cmd/client.h"
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"
#include "server/cmd/pubsub.h"

/* --- SUBSCRIBE, UNSUBSCRIBE and their kin ------------------------------------------------------------ */

/* The count in confirmations: shard channels are counted by themselves. */
static int64_t shown_count(const struct client *c, enum topic_kind kind) {
    if (kind == TOPIC_SHARD) {
        return pubsub_client_count(c, TOPIC_SHARD);
    }
    return (int64_t)pubsub_client_count(c, TOPIC_CHANNEL) + pubsub_client_count(c, TOPIC_PATTERN);
}

struct confirmation {
    struct client *client;
    struct reply *reply;
    enum topic_kind kind;
    const char *what;
};

/* Name NULL: there was nothing to leave. */
static void confirm(const struct confirmation *to, const struct bytes *name) {
    reply_push(to->reply, 3);
    reply_bulk_str(to->reply, to->what);
    if (name != NULL) {
        reply_bulk(to->reply, *name);
    } else {
        reply_null(to->reply);
    }
    reply_int(to->reply, shown_count(to->client, to->kind));
}

static void confirm_left(void *arg, struct bytes name) {
    confirm(arg, &name);
}

/* Runs one of the two below with a reply that reaches the client even when he has switched replies off. */
static enum dc_err answer(struct cmd_ctx *ctx, enum topic_kind kind, const char *what,
                          void (*run)(struct cmd_ctx *ctx, struct confirmation *to)) {
    struct confirmation to = {ctx->client, ctx->reply, kind, what};
    if (!(ctx->client->flags & (CLIENT_REPLY_OFF | CLIENT_REPLY_SKIP))) {
        run(ctx, &to);
        client_show(ctx->client);
        return DC_OK;
    }
    struct buf pushed;
    struct reply reply = *ctx->reply;
    buf_init(&pushed, 0);
    reply.out = &pushed;
    to.reply = &reply;
    run(ctx, &to);
    client_show(ctx->client);
    if (!pushed.failed) {
        ctx->node->host->push(ctx->client, buf_bytes(&pushed));
    }
    buf_fini(&pushed);
    return DC_OK;
}

static void join(struct cmd_ctx *ctx, struct confirmation *to) {
    for (uint32_t i = 1; i < ctx->argc; i++) {
        bool changed;
        enum dc_err err = pubsub_join(ctx->client, to->kind, ctx->argv[i], &changed);
        if (err != DC_OK) { /* what was joined before stays, and stands in the reply */
            reply_error(to->reply, err);
            return;
        }
        confirm(to, &ctx->argv[i]);
    }
}

static void leave(struct cmd_ctx *ctx, struct confirmation *to) {
    for (uint32_t i = 1; i < ctx->argc; i++) {
        (void)pubsub_leave(ctx->client, to->kind, ctx->argv[i]);
        confirm(to, &ctx->argv[i]);
    }
    if (ctx->argc == 1 && pubsub_leave_all(ctx->client, to->kind, confirm_left, to) == 0) {
        confirm(to, NULL);
    }
}

enum dc_err cmd_subscribe(struct cmd_ctx *ctx) {
    return answer(ctx, TOPIC_CHANNEL, "subscribe", join);
}

enum dc_err cmd_unsubscribe(struct cmd_ctx *ctx) {
    return answer(ctx, TOPIC_CHANNEL, "unsubscribe", leave);
}

enum dc_err cmd_psubscribe(struct cmd_ctx *ctx) {
    return answer(ctx, TOPIC_PATTERN, "psubscribe", join);
}

enum dc_err cmd_punsubscribe(struct cmd_ctx *ctx) {
    return answer(ctx, TOPIC_PATTERN, "punsubscribe", leave);
}

enum dc_err cmd_ssubscribe(struct cmd_ctx *ctx) {
    if (ctx->in_exec) {
        return dc_fail(DC_EGENERIC, "SSUBSCRIBE isn't allowed for a DENY BLOCKING client");
    }
    return answer(ctx, TOPIC_SHARD, "ssubscribe", join);
}

enum dc_err cmd_sunsubscribe(struct cmd_ctx *ctx) {
    return answer(ctx, TOPIC_SHARD, "sunsubscribe", leave);
}

/* --- PUBLISH ----------------------------------------------------------------------------------------- */

static enum dc_err publish(struct cmd_ctx *ctx, enum topic_kind kind) {
    uint64_t heard = 0;
    if (ctx->in_exec) {
        heard = pubsub_audience(ctx->node, ctx->worker, kind, ctx->argv[1]);
        if (heard > 0) {
            notify_publish_later(ctx, kind, ctx->argv[1], ctx->argv[2]);
        }
    } else {
        enum dc_err err =
            pubsub_publish(ctx->node, ctx->worker, kind, ctx->argv[1], ctx->argv[2], &heard);
        if (err != DC_OK) {
            return err;
        }
    }
    reply_int(ctx->reply, (int64_t)heard);
    return DC_OK;
}

enum dc_err cmd_publish(struct cmd_ctx *ctx) {
    return publish(ctx, TOPIC_CHANNEL);
}

enum dc_err cmd_spublish(struct cmd_ctx *ctx) {
    return publish(ctx, TOPIC_SHARD);
}

/* --- PUBSUB ------------------------------------------------------------------------------------------ */

enum dc_err cmd_pubsub_numpat(struct cmd_ctx *ctx) {
    reply_int(ctx->reply, pubsub_topic_count(ctx->node, TOPIC_PATTERN));
    return DC_OK;
}

static enum dc_err reply_listeners(struct cmd_ctx *ctx, enum topic_kind kind) {
    reply_array(ctx->reply, 2 * ((int64_t)ctx->argc - 2));
    for (uint32_t i = 2; i < ctx->argc; i++) {
        reply_bulk(ctx->reply, ctx->argv[i]);
        reply_int(ctx->reply, (int64_t)pubsub_listener_count(ctx->node, kind, ctx->argv[i]));
    }
    return DC_OK;
}

enum dc_err cmd_pubsub_numsub(struct cmd_ctx *ctx) {
    return reply_listeners(ctx, TOPIC_CHANNEL);
}

enum dc_err cmd_pubsub_shardnumsub(struct cmd_ctx *ctx) {
    return reply_listeners(ctx, TOPIC_SHARD);
}

/* Names are counted while they are written: others come and go meanwhile. */
struct name_list {
    const struct bytes *pattern; /* NULL = all */
    struct reply reply;
    int64_t count;
};

static void list_name(void *arg, struct bytes name) {
    struct name_list *list = arg;
    if (list->pattern == NULL || glob_match(*list->pattern, name, false)) {
        reply_bulk(&list->reply, name);
        list->count++;
    }
}

static enum dc_err reply_names(struct cmd_ctx *ctx, enum topic_kind kind) {
    if (ctx->argc > 3) {
        return ctx_fail_subcommand(ctx);
    }
    struct buf names;
    struct name_list list = {.pattern = ctx->argc == 3 ? &ctx->argv[2] : NULL,
                             .reply = *ctx->reply};
    buf_init(&names, 0);
    list.reply.out = &names;
    pubsub_each_topic(ctx->node, kind, list_name, &list);
    enum dc_err err = names.failed ? DC_ENOMEM : DC_OK;
    if (err == DC_OK) {
        reply_array(ctx->reply, list.count);
        buf_append_bytes(ctx->reply->out, buf_bytes(&names));
    }
    buf_fini(&names);
    return err;
}

enum dc_err cmd_pubsub_channels(struct cmd_ctx *ctx) {
    return reply_names(ctx, TOPIC_CHANNEL);
}

enum dc_err cmd_pubsub_shardchannels(struct cmd_ctx *ctx) {
    return reply_names(ctx, TOPIC_SHARD);
}

enum dc_err cmd_pubsub_help(struct cmd_ctx *ctx) {
    static const char *const lines[] = {
        "CHANNELS [<pattern>]",
        "    Return the currently active channels matching a <pattern> (default: '*').",
        "NUMPAT",
        "    Return number of subscriptions to patterns.",
        "NUMSUB [<channel> ...]",
        "    Return the number of subscribers for the specified channels, excluding",
        "    pattern subscriptions(default: no channels).",
        "SHARDCHANNELS [<pattern>]",
        "    Return the currently active shard level channels matching a <pattern> (default: '*').",
        "SHARDNUMSUB [<shardchannel> ...]",
        "    Return the number of subscribers for the specified shard level channel(s)",
        NULL,
    };
    ctx_reply_help(ctx, lines);
    return DC_OK;
}
