/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/monitor.h"

#include "server/base/buf.h"
#include "server/cmd/client.h"
#include "server/cmd/cmd.h"
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"
#include "server/cmd/pubsub.h"

#include <inttypes.h>
#include <stdio.h>

enum dc_err cmd_monitor(struct cmd_ctx *ctx) {
    bool changed;
    if (ctx->in_exec) {
        return dc_fail(DC_EGENERIC, "MONITOR isn't allowed for DENY BLOCKING client");
    }
    if (ctx->client->flags & CLIENT_MONITOR) {
        return DC_OK; /* without a word, as Redis does */
    }
    enum dc_err err = pubsub_join(ctx->client, TOPIC_MONITOR, BYTES(""), &changed);
    if (err != DC_OK) {
        return err;
    }
    ctx->client->flags |= CLIENT_MONITOR;
    atomic_fetch_add_explicit(&ctx->node->monitor_count, 1, memory_order_relaxed);
    client_show(ctx->client);
    reply_ok(ctx->reply);
    return DC_OK;
}

bool monitor_allows(const struct cmd *cmd, uint32_t flags) {
    return !(flags & (F_WRITE | F_READONLY)) && cmd->id != CMD_PUBLISH && cmd->id != CMD_SPUBLISH;
}

struct bytes monitor_shown_arg(const struct cmd *cmd, const struct bytes *argv, uint32_t argc,
                               uint32_t i) {
    static const struct bytes redacted = {"(redacted)", sizeof("(redacted)") - 1};
    if (cmd->id == CMD_AUTH && i >= 1) {
        return redacted;
    }
    for (uint32_t j = 2; cmd->id == CMD_HELLO && j < i; j++) {
        if (bytes_is(argv[j], "auth") && j + 2 < argc && i <= j + 2) {
            return redacted;
        }
    }
    return argv[i];
}

/* In quotes, what can't be printed as an escape. */
static void append_quoted(struct buf *line, struct bytes s) {
    static const char hex[] = "0123456789abcdef";
    static const char plain[] = "\\\"\n\r\t\a\b";
    static const char escaped[] = "\\\"nrtab";
    char *to = buf_room(line, 4 * s.len + 2);
    if (to == NULL) {
        return;
    }
    char *start = to;
    *to++ = '"';
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c >= ' ' && c <= '~' && c != '"' && c != '\\') {
            *to++ = (char)c;
            continue;
        }
        const char *special = c == '\0' ? NULL : strchr(plain, c);
        if (special != NULL) {
            *to++ = '\\';
            *to++ = escaped[special - plain];
        } else {
            *to++ = '\\';
            *to++ = 'x';
            *to++ = hex[c >> 4];
            *to++ = hex[c & 15];
        }
    }
    *to++ = '"';
    line->len += (size_t)(to - start);
}

/* "127.0.0.1:50422", or "unix:/path" without the port that CLIENT LIST shows. */
static void append_address(struct buf *line, const struct client *c) {
    struct bytes addr = bytes_str(c->addr);
    if (c->flags & CLIENT_UNIX) {
        buf_append_str(line, "unix:");
        addr.len -= addr.len > 2 ? 2 : 0;
    }
    buf_append_bytes(line, addr);
}

void monitor_feed(struct cmd_worker *w, const struct client *c, const struct cmd *cmd,
                  const struct bytes *argv, uint32_t argc) {
    if ((cmd->flags & F_ADMIN) || !pubsub_is_heard(w->node, TOPIC_MONITOR)) {
        return; /* I1 */
    }
    struct buf line;
    uint64_t heard;
    int64_t now_us = clock_now_us(&w->node->clock);
    buf_init(&line, 0);
    buf_printf(&line, "+%" PRId64 ".%06" PRId64 " [%" PRIu32 " ", now_us / 1000000,
               now_us % 1000000, keyspace_id(c->ks));
    append_address(&line, c);
    buf_append_str(&line, "]");
    for (uint32_t i = 0; i < argc; i++) {
        buf_append_str(&line, " ");
        append_quoted(&line, monitor_shown_arg(cmd, argv, argc, i));
    }
    buf_append_str(&line, "\r\n");
    if (!line.failed) { /* a line for which there is no memory is left out */
        (void)!pubsub_publish(w->node, w, TOPIC_MONITOR, BYTES(""), buf_bytes(&line), &heard);
    }
    buf_fini(&line);
}
