/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/ctx.h"

#include "server/base/assert.h"
#include "server/cmd/client.h"
#include "server/cmd/node.h"

#include <stdio.h>

/* A reply that reveals what isn't safe yet waits for it: so nobody acts on what can be lost. What is absent was perhaps
 * removed a moment ago. */
static inline struct entry *note_seen(struct cmd_ctx *ctx, uint32_t i, struct entry *e) {
    struct cmd_worker *w = ctx->worker;
    uint64_t version =
        dc_likely(e != NULL) ? entry_version(e) : store_removed_version(ctx->ks, &ctx->keys[i]);
    if (dc_unlikely(version > w->safe) && version > w->gate) {
        w->gate = version;
    }
    return e;
}

void ctx_commit(struct cmd_ctx *ctx) {
    struct cmd_worker *w = ctx->worker;
    metric_add(&w->metrics, METRIC_CHANGES, ctx->mut->count);
    w->gate = log_commit(w->feed, ctx->mut).v;
}

static struct entry *count_lookup(struct cmd_ctx *ctx, uint32_t i, struct entry *e) {
    metric_add(&ctx->worker->metrics, e != NULL ? METRIC_HITS : METRIC_MISSES, 1);
    if (e == NULL) {
        ctx_notify(ctx, NOTIFY_KEY_MISS, "keymiss", ctx->keys[i].name);
    }
    return e;
}

struct entry *ctx_read(struct cmd_ctx *ctx, uint32_t i) {
    struct store_thread *t = &ctx->worker->store;
    if (dc_unlikely(ctx->client->flags & CLIENT_NO_TOUCH) && ctx->cmd->id != CMD_TOUCH) {
        return ctx_peek(ctx, i);
    }
    return count_lookup(ctx, i,
                        note_seen(ctx, i, store_get(t, ctx->ks, &ctx->keys[i], ctx->now_ms)));
}

struct entry *ctx_peek(struct cmd_ctx *ctx, uint32_t i) {
    return count_lookup(ctx, i, ctx_find(ctx, i));
}

struct entry *ctx_find(struct cmd_ctx *ctx, uint32_t i) {
    return note_seen(ctx, i, store_peek(&ctx->worker->store, ctx->ks, &ctx->keys[i], ctx->now_ms));
}

enum dc_err ctx_put(struct cmd_ctx *ctx, uint32_t i, const struct entry *old, const struct value *v,
                    int64_t expiry_ms) {
    dc_debug_assert(ctx->cmd->effects & E_PUT);
    return mut_put(ctx->mut, ctx->ks, &ctx->keys[i], old, v, expiry_ms);
}

enum dc_err ctx_del(struct cmd_ctx *ctx, uint32_t i) {
    dc_debug_assert(ctx->cmd->effects & E_DEL);
    return mut_del(ctx->mut, ctx->ks, &ctx->keys[i]);
}

enum dc_err ctx_expire(struct cmd_ctx *ctx, uint32_t i, const struct entry *old,
                       int64_t expiry_ms) {
    dc_debug_assert(ctx->cmd->effects & E_EXPIRE);
    return mut_expire(ctx->mut, ctx->ks, &ctx->keys[i], old, expiry_ms);
}

enum dc_err ctx_write(struct cmd_ctx *ctx, uint32_t i, const struct entry *old, uint64_t offset,
                      struct bytes bytes) {
    dc_debug_assert(ctx->cmd->effects & E_WRITE);
    return mut_write(ctx->mut, ctx->ks, &ctx->keys[i], old, offset, bytes);
}

enum dc_err ctx_value_of_arg(struct cmd_ctx *ctx, uint32_t i, struct value *out) {
    if (dc_likely(ctx->argv[i].len < BLOB_MIN_LEN)) {
        *out = value_of(ctx->argv[i]);
        return DC_OK;
    }
    for (struct lifted *l = ctx->lifted; l != NULL; l = l->next) {
        if (l->index == i && l->blob != NULL) {
            *out = (struct value){.kind = VALUE_BLOB, .blob = blob_acquire(l->blob)};
            return DC_OK;
        }
    }
    return ctx_value_of(ctx, ctx->argv[i], out);
}

enum dc_err ctx_value_of(struct cmd_ctx *ctx, struct bytes text, struct value *out) {
    (void)ctx;
    if (text.len < BLOB_MIN_LEN) {
        *out = value_of(text);
        return DC_OK;
    }
    *out = (struct value){.kind = VALUE_BLOB, .blob = blob_from(text)};
    return out->blob == NULL ? DC_ENOMEM : DC_OK;
}

void ctx_reply_value(struct cmd_ctx *ctx, const struct entry *e) {
    if (e == NULL) {
        reply_null(ctx->reply);
        return;
    }
    struct value v;
    entry_value(e, &v);
    switch (v.kind) {
    case VALUE_STR:
    case VALUE_RAW:
        reply_bulk(ctx->reply, v.str);
        return;
    case VALUE_INT:
        reply_bulk_i64(ctx->reply, v.num);
        return;
    case VALUE_BLOB:
        reply_bulk_begin(ctx->reply, v.blob->len);
        ctx->reply->take_blob(ctx->reply, v.blob, 0, v.blob->len);
        reply_bulk_end(ctx->reply);
        return;
    }
    dc_unreachable();
}

struct bytes ctx_entry_bytes(const struct entry *e, char *scratch) {
    struct value v;
    if (e == NULL) {
        return bytes_of("", 0);
    }
    entry_value(e, &v);
    return value_bytes(&v, scratch);
}

void *ctx_alloc(struct cmd_ctx *ctx, size_t len) {
    return arena_alloc(ctx->worker->arena, len);
}

enum dc_err ctx_arg_i64(struct cmd_ctx *ctx, uint32_t i, int64_t *out) {
    return num_parse_i64(ctx->argv[i], out) ? DC_OK : DC_ENOTINT;
}

enum dc_err ctx_fail_subcommand(struct cmd_ctx *ctx) {
    const char *name = ctx->cmd->name;
    char upper[32];
    size_t len = strcspn(name, "|");
    for (size_t i = 0; i < len && i < sizeof(upper) - 1; i++) {
        upper[i] = (char)(name[i] >= 'a' && name[i] <= 'z' ? name[i] - 32 : name[i]);
    }
    upper[len < sizeof(upper) - 1 ? len : sizeof(upper) - 1] = '\0';
    return dc_fail(DC_EGENERIC,
                   "unknown subcommand or wrong number of arguments for '%.*s'. Try %s HELP.",
                   (int)ctx->argv[1].len, ctx->argv[1].ptr, upper);
}

void ctx_reply_help(struct cmd_ctx *ctx, const char *const *lines) {
    int64_t count = 0;
    while (lines[count] != NULL) {
        count++;
    }
    char first[96];
    size_t len = strcspn(ctx->cmd->name, "|");
    snprintf(first, sizeof(first),
             "%.*s <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", (int)len,
             ctx->cmd->name);
    for (size_t i = 0; i < len; i++) {
        first[i] = (char)(first[i] - 32);
    }
    reply_array(ctx->reply, count + 3);
    reply_status(ctx->reply, first);
    for (int64_t i = 0; i < count; i++) {
        reply_status(ctx->reply, lines[i]);
    }
    reply_status(ctx->reply, "HELP");
    reply_status(ctx->reply, "    Prints this help.");
}

/* --- versions inside EXEC ---------------------------------------------------------------------------- */

/* A version that isn't known yet: ":" is written, the digits and the line's end go in behind it. */
struct version_mark {
    struct version_mark *next; /* the one before, so the list goes backwards */
    size_t offset;             /* in the reply, where the digits belong */
    uint32_t effect;
};

static void mark_version(struct cmd_ctx *ctx, uint32_t effect) {
    struct version_mark *mark = ctx_alloc(ctx, sizeof(*mark));
    /* The integer is written as 0; its digit is replaced later. */
    reply_int(ctx->reply, 0);
    *mark = (struct version_mark){ctx->worker->version_marks, ctx->reply->out->len - 3, effect};
    ctx->worker->version_marks = mark;
}

void ctx_reply_version(struct cmd_ctx *ctx, const struct entry *e) {
    uint64_t version = e == NULL ? 0 : entry_version(e);
    if (e == NULL || version != 0) {
        reply_int(ctx->reply, (int64_t)version);
        return;
    }
    dc_assert(ctx->in_exec);
    uint32_t i = ctx->mut->applied;
    while (i-- > 0) {
        const struct effect *effect = &ctx->mut->effects[i];
        if (effect->ks == ctx->ks && bytes_equal(effect->key.name, entry_key(e))) {
            mark_version(ctx, i);
            return;
        }
    }
    dc_unreachable();
}

void ctx_reply_last_version(struct cmd_ctx *ctx) {
    if (ctx->in_exec && ctx->mut->applied > 0) {
        mark_version(ctx, ctx->mut->applied - 1);
        return;
    }
    reply_int(ctx->reply, (int64_t)ctx->client->last_version);
}

void ctx_fill_versions(struct cmd_ctx *ctx, const struct mut *m) {
    struct buf *out = ctx->reply->out;
    for (struct version_mark *mark = ctx->worker->version_marks; mark != NULL; mark = mark->next) {
        char digits[NUM_I64_TEXT_MAX];
        size_t len = num_format_u64(digits, m->effects[mark->effect].version);
        if (buf_room(out, len) == NULL) {
            break;
        }
        char *at = out->ptr + mark->offset;
        memmove(at + len, at + 1, out->len - mark->offset - 1);
        memcpy(at, digits, len);
        out->len += len - 1;
        for (struct reply_splice *s = ctx->reply->splices; s != NULL && s->offset > mark->offset;
             s = s->prev) {
            s->offset += len - 1;
        }
    }
    ctx->worker->version_marks = NULL;
}
