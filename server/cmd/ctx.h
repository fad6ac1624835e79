/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ctx: what handlers do all day: look up, answer, change, allocate for the turn.
 *
 * Threads, ownership: as cmd.h has them. Entries live until the handler returns.
 */
#ifndef DC_CMD_CTX_H
#define DC_CMD_CTX_H

#include "server/cmd/cmd.h"
#include "server/cmd/notify.h"

/* The live entry of key i or NULL. */
struct entry *ctx_read(struct cmd_ctx *ctx, uint32_t i); /* counts hit or miss, and the access */
struct entry *ctx_peek(struct cmd_ctx *ctx,
                       uint32_t i); /* counts hit or miss, no access: TTL, TYPE, OBJECT */
struct entry *ctx_find(struct cmd_ctx *ctx, uint32_t i); /* for writing: counts nothing */

/* Changes of key i; 'old' as ctx_find() returned it. They tell keyspace notifications nothing: ctx_notify() does. */
DC_MUST enum dc_err ctx_put(struct cmd_ctx *ctx, uint32_t i, const struct entry *old,
                            const struct value *v, int64_t expiry_ms);
DC_MUST enum dc_err ctx_del(struct cmd_ctx *ctx, uint32_t i);
DC_MUST enum dc_err ctx_expire(struct cmd_ctx *ctx, uint32_t i, const struct entry *old,
                               int64_t expiry_ms);
DC_MUST enum dc_err ctx_write(struct cmd_ctx *ctx, uint32_t i, const struct entry *old,
                              uint64_t offset, struct bytes bytes);

/* Position, log and store for what was prepared; the reply waits for it. Can't fail: cmd_call() has reserved. */
void ctx_commit(struct cmd_ctx *ctx);

/* The value of argument i as SET keeps it: an integer, bytes, or from BLOB_MIN_LEN on a blob (which was filled before the
 * locks were taken). A blob's reference is the caller's. Errors: DC_ENOMEM. */
DC_MUST enum dc_err ctx_value_of_arg(struct cmd_ctx *ctx, uint32_t i, struct value *out);

/* A value computed by the handler: the same rules; bytes are copied into a blob if they are long. */
DC_MUST enum dc_err ctx_value_of(struct cmd_ctx *ctx, struct bytes text, struct value *out);

/* Answers the value of an entry as a bulk; a blob goes by reference. NULL answers null. */
void ctx_reply_value(struct cmd_ctx *ctx, const struct entry *e);

/* The content of an entry as bytes; digits of an integer are put into 'scratch' (NUM_I64_TEXT_MAX). NULL gives none. */
struct bytes ctx_entry_bytes(const struct entry *e, char *scratch);

/* Memory until the end of the turn (of EXEC: until its end). Never NULL. */
void *ctx_alloc(struct cmd_ctx *ctx, size_t len);

/* Answers a version: of an entry, or of the connection's last write. Inside EXEC what the same EXEC wrote has no
 * version yet: its place in the reply is filled in when the frame is committed. */
void ctx_reply_version(struct cmd_ctx *ctx, const struct entry *e);
void ctx_reply_last_version(struct cmd_ctx *ctx);
/* Fills in the places. Called by EXEC after the commit. */
void ctx_fill_versions(struct cmd_ctx *ctx, const struct mut *m);

/* Argument i as an integer. Errors: DC_ENOTINT. */
DC_MUST enum dc_err ctx_arg_i64(struct cmd_ctx *ctx, uint32_t i, int64_t *out);

static inline bool ctx_arg_is(const struct cmd_ctx *ctx, uint32_t i, const char *word) {
    return bytes_is(ctx->argv[i], word);
}

/* "unknown subcommand or wrong number of arguments for '%s'. Try %s HELP." as DC_EGENERIC */
DC_MUST enum dc_err ctx_fail_subcommand(struct cmd_ctx *ctx);

/* HELP of a container: a list of lines as Redis frames it. */
void ctx_reply_help(struct cmd_ctx *ctx, const char *const *lines);

#endif
