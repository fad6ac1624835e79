/* SPDX-License-Identifier: BSD-3-Clause */
/* PING ECHO SELECT AUTH HELLO RESET QUIT. */
#include "server/base/limits.h"
#include "server/base/num.h"
#include "server/cmd/client.h"
#include "server/cmd/client_name.h"
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/info.h"
#include "server/cmd/node.h"

enum dc_err cmd_ping(struct cmd_ctx *ctx) {
    if (ctx->argc > 2) {
        return dc_fail(DC_EARITY, "wrong number of arguments for 'ping' command");
    }
    if ((ctx->client->flags & CLIENT_SUBSCRIBED) && ctx->reply->proto == REPLY_RESP2) {
        reply_array(ctx->reply, 2); /* looks like a message to those who listen */
        reply_bulk_str(ctx->reply, "pong");
        reply_bulk(ctx->reply, ctx->argc == 2 ? ctx->argv[1] : BYTES(""));
    } else if (ctx->argc == 2) {
        reply_bulk(ctx->reply, ctx->argv[1]);
    } else {
        reply_status(ctx->reply, "PONG");
    }
    return DC_OK;
}

enum dc_err cmd_echo(struct cmd_ctx *ctx) {
    reply_bulk(ctx->reply, ctx->argv[1]);
    return DC_OK;
}

enum dc_err cmd_select(struct cmd_ctx *ctx) {
    int64_t id;
    enum dc_err err = ctx_arg_i64(ctx, 1, &id);
    if (err != DC_OK) {
        return err;
    }
    if (id < INT32_MIN || id > INT32_MAX) {
        return dc_fail(DC_ENOTINT, "value is out of range, value must between %d and %d", INT32_MIN,
                       INT32_MAX);
    }
    struct keyspace *ks = node_database(ctx->node, id);
    if (ks == NULL) {
        return DC_EDBINDEX;
    }
    ctx->client->ks = ks;
    client_show(ctx->client);
    reply_ok(ctx->reply);
    return DC_OK;
}

/* --- who it is --------------------------------------------------------------------------------------------------- */

static bool password_fits(struct node *n, struct bytes given) {
    char password[CONF_VALUE_MAX + 1];
    size_t len = conf_text(n->conf, CONF_ID_requirepass, password, sizeof(password));
    return len == 0 || crypto_equal(given, bytes_of(password, len));
}

/* Without a password every one fits. */
static enum dc_err authenticate(struct cmd_ctx *ctx, struct bytes user, struct bytes password) {
    bool fits = password_fits(ctx->node, password);
    if (!bytes_equal(user, BYTES("default")) || !fits) {
        return DC_EWRONGPASS;
    }
    ctx->client->flags |= CLIENT_AUTHENTICATED;
    return DC_OK;
}

enum dc_err cmd_auth(struct cmd_ctx *ctx) {
    bool has_user = ctx->argc == 3;
    if (ctx->argc > 3) {
        return DC_ESYNTAX;
    }
    if (!has_user && !atomic_load_explicit(&ctx->node->has_password, memory_order_relaxed)) {
        return dc_fail(DC_EGENERIC,
                       "AUTH <password> called without any password configured for the default "
                       "user. Are you sure your configuration is correct?");
    }
    enum dc_err err =
        authenticate(ctx, has_user ? ctx->argv[1] : BYTES("default"), ctx->argv[has_user ? 2 : 1]);
    if (err == DC_OK) {
        reply_ok(ctx->reply);
    }
    return err;
}

/* --- HELLO ------------------------------------------------------------------------------------------------------- */

static enum dc_err read_hello_proto(const struct cmd_ctx *ctx, int64_t *proto) {
    if (ctx->argc == 1) {
        *proto = (int64_t)ctx->client->proto;
        return DC_OK;
    }
    if (!num_parse_i64(ctx->argv[1], proto)) {
        return dc_fail(DC_EGENERIC, "Protocol version is not an integer or out of range");
    }
    return *proto == REPLY_RESP2 || *proto == REPLY_RESP3 ? DC_OK : DC_ENOPROTO;
}

static enum dc_err set_name(struct cmd_ctx *ctx, struct bytes name) {
    enum dc_err err = client_name_check(name);
    if (err == DC_OK) {
        client_name_set(ctx->client, &ctx->client->name, name);
    }
    return err;
}

/* Options take effect one by one, as in Redis: an error in a later one doesn't undo an earlier one. */
static enum dc_err apply_hello_options(struct cmd_ctx *ctx) {
    enum dc_err err = DC_OK;
    for (uint32_t i = 2; i < ctx->argc && err == DC_OK; i++) {
        uint32_t more = ctx->argc - 1 - i;
        struct bytes word = ctx->argv[i];
        if (bytes_is(word, "auth") && more >= 2) {
            err = authenticate(ctx, ctx->argv[i + 1], ctx->argv[i + 2]);
            i += 2;
        } else if (bytes_is(word, "setname") && more >= 1) {
            err = set_name(ctx, ctx->argv[++i]);
        } else {
            err =
                dc_fail(DC_EGENERIC, "Syntax error in HELLO option '%.*s'",
                        (int)(word.len < ERR_TEXT_MAX / 2 ? word.len : ERR_TEXT_MAX / 2), word.ptr);
        }
    }
    return err;
}

static void reply_hello(struct cmd_ctx *ctx) {
    struct reply *r = ctx->reply;
    reply_map(r, 7);
    reply_bulk_str(r, "server");
    reply_bulk_str(r, "redis");
    reply_bulk_str(r, "version");
    reply_bulk_str(r, DC_REDIS_VERSION);
    reply_bulk_str(r, "proto");
    reply_int(r, (int64_t)r->proto);
    reply_bulk_str(r, "id");
    reply_int(r, (int64_t)ctx->client->id);
    reply_bulk_str(r, "mode");
    reply_bulk_str(r, "standalone");
    reply_bulk_str(r, "role");
    reply_bulk_str(r, node_is_replica(ctx->node) ? "replica" : "master");
    reply_bulk_str(r, "modules");
    reply_array(r, 0);
}

enum dc_err cmd_hello(struct cmd_ctx *ctx) {
    struct client *c = ctx->client;
    int64_t proto;
    enum dc_err err = read_hello_proto(ctx, &proto);
    if (err == DC_OK) {
        err = apply_hello_options(ctx);
    }
    if (err != DC_OK) {
        return err;
    }
    if (!client_is_authenticated(c)) {
        return dc_fail(DC_ENOAUTH,
                       "HELLO must be called with the client already authenticated, otherwise the "
                       "HELLO AUTH <user> <pass> option can be used to authenticate the "
                       "client and select the RESP protocol version at the same time");
    }
    c->proto = (enum reply_proto)proto;
    ctx->reply->proto = c->proto;
    client_show(c);
    reply_hello(ctx);
    return DC_OK;
}

/* --- the end ----------------------------------------------------------------------------------------------------- */

enum dc_err cmd_reset(struct cmd_ctx *ctx) {
    client_reset(ctx->client);
    ctx->reply->proto = ctx->client->proto;
    reply_status(ctx->reply, "RESET");
    return DC_OK;
}

enum dc_err cmd_quit(struct cmd_ctx *ctx) {
    ctx->client->flags |= CLIENT_CLOSE_SOON;
    reply_ok(ctx->reply);
    return DC_OK;
}
