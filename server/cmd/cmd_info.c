/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/info.h"

enum dc_err cmd_info(struct cmd_ctx *ctx) {
    struct buf text;
    buf_init(&text, 0);
    info_write(ctx->node, ctx->argv + 1, ctx->argc - 1, &text);
    if (!text.failed) {
        reply_verbatim(ctx->reply, buf_bytes(&text), "txt");
    }
    enum dc_err err = text.failed ? DC_ENOMEM : DC_OK;
    buf_fini(&text);
    return err;
}
