/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/info.h"
#include "server/cmd/memory.h"
#include "server/cmd/node.h"

/* Pairs on their way into a reply whose length isn't known yet. */
struct pairs {
    struct buf text;
    struct reply reply;
    int64_t count;
    struct bytes password, masterauth; /* which options hide, and this command shows */
};

static void give_pair(void *arg, struct bytes name, struct bytes value) {
    struct pairs *p = arg;
    reply_bulk(&p->reply, name);
    reply_bulk(&p->reply, bytes_is(name, "requirepass")  ? p->password
                          : bytes_is(name, "masterauth") ? p->masterauth
                                                         : value);
    p->count++;
}

enum dc_err cmd_config_get(struct cmd_ctx *ctx) {
    char password[CONF_VALUE_MAX + 1];
    char masterauth[CONF_VALUE_MAX + 1];
    struct pairs p = {.count = 0};
    size_t len = conf_text(ctx->node->conf, CONF_ID_requirepass, password, sizeof(password));
    p.password = bytes_of(password, len);
    len = conf_text(ctx->node->conf, CONF_ID_masterauth, masterauth, sizeof(masterauth));
    p.masterauth = bytes_of(masterauth, len);
    buf_init(&p.text, 0);
    p.reply = (struct reply){.out = &p.text, .proto = ctx->reply->proto};
    conf_each(ctx->node->conf, ctx->argv + 2, ctx->argc - 2, give_pair, &p);
    if (!p.text.failed) {
        reply_map(ctx->reply, p.count);
        buf_append_bytes(ctx->reply->out, buf_bytes(&p.text));
    }
    enum dc_err err = p.text.failed ? DC_ENOMEM : DC_OK;
    buf_fini(&p.text);
    return err;
}

/* A log that begins goes on from a snapshot, and with a lost range there is none. */
static enum dc_err check_log_can_begin(const struct cmd_ctx *ctx) {
    struct warm_stats warm;
    warm_stats(ctx->node->warm, &warm);
    if (warm.ranges_failed == 0 || conf_get(ctx->node->conf, appendonly)) {
        return DC_OK;
    }
    for (uint32_t i = 2; i < ctx->argc; i += 2) {
        if (ctx_arg_is(ctx, i, "appendonly") && ctx_arg_is(ctx, i + 1, "yes")) {
            return dc_fail(DC_ECONF, "CONFIG SET failed (possibly related to argument "
                                     "'appendonly') - parts of the stored data are damaged and "
                                     "can't be loaded, and a log begins with a snapshot of "
                                     "everything: see the log, and dcache-restore --repair");
        }
    }
    return DC_OK;
}

enum dc_err cmd_config_set(struct cmd_ctx *ctx) {
    if (ctx->argc % 2 != 0) {
        return DC_ESYNTAX;
    }
    enum dc_err err = check_log_can_begin(ctx);
    err = err != DC_OK ? err : conf_set(ctx->node->conf, ctx->argv + 2, (ctx->argc - 2) / 2);
    if (err == DC_OK) {
        node_options_changed(ctx->node);
        (void)memory_sample(ctx->node); /* a limit holds from now on, not from the next sample */
        reply_ok(ctx->reply);
    }
    return err;
}

enum dc_err cmd_config_rewrite(struct cmd_ctx *ctx) {
    enum dc_err err = conf_rewrite(ctx->node->conf);
    if (err == DC_OK) {
        reply_ok(ctx->reply);
    }
    return err;
}

enum dc_err cmd_config_resetstat(struct cmd_ctx *ctx) {
    info_reset(ctx->node);
    reply_ok(ctx->reply);
    return DC_OK;
}

enum dc_err cmd_config_help(struct cmd_ctx *ctx) {
    static const char *const lines[] = {
        "GET <pattern>",
        "    Return parameters matching the glob-like <pattern> and their values.",
        "SET <directive> <value>",
        "    Set the configuration <directive> to <value>.",
        "RESETSTAT",
        "    Reset statistics reported by the INFO command.",
        "REWRITE",
        "    Rewrite the configuration file.",
        NULL,
    };
    ctx_reply_help(ctx, lines);
    return DC_OK;
}
