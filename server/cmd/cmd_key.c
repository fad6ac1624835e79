/* SPDX-License-Identifier: BSD-3-Clause */
/* Commands on whole keys: delete, count, rename, copy, move. */
#include "server/base/assert.h"
#include "server/cmd/client.h"
#include "server/cmd/ctx.h"
#include "server/cmd/entry_names.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"

/* --- DEL, EXISTS, TYPE, TOUCH ------------------------------------------------------------------------ */

/* Memory for all effects and their frame: those of the first keys are applied before the last ones are looked at. */
static enum dc_err reserve_dels(struct cmd_ctx *ctx) {
    size_t len = 0;
    for (uint32_t i = 0; i < ctx->key_count; i++) {
        len += frame_del_len(ctx->keys[i].name.len);
    }
    enum dc_err err = mut_reserve(ctx->mut, ctx->key_count);
    return err == DC_OK ? log_reserve_more(ctx->worker->feed, ctx->mut, len) : err;
}

/* Each deletion is applied at once, so a key that is named twice is found once. */
enum dc_err cmd_del(struct cmd_ctx *ctx) {
    int64_t count = 0;
    enum dc_err err = ctx->key_count > 1 ? reserve_dels(ctx) : DC_OK;
    for (uint32_t i = 0; i < ctx->key_count && err == DC_OK; i++) {
        if (ctx_find(ctx, i) == NULL) {
            continue;
        }
        err = ctx_del(ctx, i);
        if (err == DC_OK && ctx->key_count > 1) {
            mut_apply(ctx->mut);
        }
        dc_assert(err == DC_OK || i == 0); /* reserved: what is applied can't be taken back */
        ctx_notify(ctx, NOTIFY_GENERIC, "del", ctx->keys[i].name);
        count++;
    }
    if (err == DC_OK) {
        reply_int(ctx->reply, count);
    }
    return err;
}

/* Blobs are freed behind the locks and the reply in any case. */
enum dc_err cmd_unlink(struct cmd_ctx *ctx) {
    return cmd_del(ctx);
}

enum dc_err cmd_exists(struct cmd_ctx *ctx) {
    int64_t count = 0;
    for (uint32_t i = 0; i < ctx->key_count; i++) {
        count += ctx_peek(ctx, i) != NULL;
    }
    reply_int(ctx->reply, count);
    return DC_OK;
}

enum dc_err cmd_touch(struct cmd_ctx *ctx) {
    int64_t count = 0;
    for (uint32_t i = 0; i < ctx->key_count; i++) {
        count += ctx_read(ctx, i) != NULL;
    }
    reply_int(ctx->reply, count);
    return DC_OK;
}

enum dc_err cmd_type(struct cmd_ctx *ctx) {
    const struct entry *e = ctx_peek(ctx, 0);
    reply_status(ctx->reply, e == NULL ? "none" : entry_type_name(e));
    return DC_OK;
}

/* --- RENAME, COPY, MOVE ------------------------------------------------------------------------------ */

/* A key in one of the databases; the slot lock of its name covers all of them. */
struct place {
    struct keyspace *ks;
    const struct key *key;
};

static struct entry *find_at(struct cmd_ctx *ctx, const struct place *at) {
    return store_peek(&ctx->worker->store, at->ks, at->key, ctx->now_ms);
}

/* The value of an entry for another one: a blob is shared. Inside EXEC the entry may be gone before the frame ends, and
 * the effect still shows its bytes then. */
static struct value shared_value(struct cmd_ctx *ctx, const struct entry *e) {
    struct value v;
    entry_value(e, &v);
    if (v.kind == VALUE_BLOB) {
        blob_acquire(v.blob);
    } else if (v.kind != VALUE_INT && ctx->in_exec && v.str.len > 0) {
        char *copy = ctx_alloc(ctx, v.str.len);
        memcpy(copy, v.str.ptr, v.str.len);
        v.str.ptr = copy;
    }
    return v;
}

/* Puts what 'from' holds in the place of whatever is there: a new entry, as if the old one had been deleted before. */
static enum dc_err put_copy(struct cmd_ctx *ctx, const struct entry *from, const struct place *to) {
    struct value v = shared_value(ctx, from);
    enum dc_err err = mut_put(ctx->mut, to->ks, to->key, NULL, &v, entry_expiry(from));
    if (err == DC_OK) {
        ctx_notify_in(ctx, NOTIFY_NEW, "new", to->ks, to->key->name);
    }
    return err;
}

/* The same, and the old place is empty: the frequency goes along. The removal stands first, so the version of the frame,
 * which LASTVER tells, is that of what is there. */
static enum dc_err put_moved(struct cmd_ctx *ctx, const struct entry *e, const struct place *from,
                             const struct place *to) {
    enum dc_err err = mut_del(ctx->mut, from->ks, from->key);
    if (err == DC_OK) {
        err = put_copy(ctx, e, to);
    }
    if (err == DC_OK) {
        ctx->mut->effects[ctx->mut->count - 1].entry->freq = e->freq;
    }
    return err;
}

static enum dc_err rename_key(struct cmd_ctx *ctx, bool only_if_free, bool *done) {
    const struct place from = {ctx->ks, &ctx->keys[0]};
    const struct place to = {ctx->ks, &ctx->keys[1]};
    const struct entry *e = find_at(ctx, &from);
    *done = false;
    if (e == NULL) {
        return DC_ENOKEY;
    }
    if (bytes_equal(from.key->name, to.key->name) || (only_if_free && find_at(ctx, &to) != NULL)) {
        return DC_OK;
    }
    enum dc_err err = put_moved(ctx, e, &from, &to);
    if (err != DC_OK) {
        return err;
    }
    ctx_notify(ctx, NOTIFY_GENERIC, "rename_from", from.key->name);
    ctx_notify(ctx, NOTIFY_GENERIC, "rename_to", to.key->name);
    *done = true;
    return DC_OK;
}

enum dc_err cmd_rename(struct cmd_ctx *ctx) {
    bool done;
    enum dc_err err = rename_key(ctx, false, &done);
    if (err == DC_OK) {
        reply_ok(ctx->reply);
    }
    return err;
}

enum dc_err cmd_renamenx(struct cmd_ctx *ctx) {
    bool done;
    enum dc_err err = rename_key(ctx, true, &done);
    if (err == DC_OK) {
        reply_int(ctx->reply, done);
    }
    return err;
}

/* Argument i as the number of a database. */
static enum dc_err arg_keyspace(struct cmd_ctx *ctx, uint32_t i, struct keyspace **out) {
    int64_t id;
    enum dc_err err = ctx_arg_i64(ctx, i, &id);
    if (err != DC_OK) {
        return err;
    }
    if (id < INT32_MIN || id > INT32_MAX) {
        return dc_fail(DC_EGENERIC, "value is out of range, value must between %d and %d",
                       INT32_MIN, INT32_MAX);
    }
    *out = node_database(ctx->node, id);
    return *out == NULL ? DC_EDBINDEX : DC_OK;
}

static enum dc_err parse_copy(struct cmd_ctx *ctx, struct keyspace **ks, bool *replace) {
    *ks = ctx->ks;
    *replace = false;
    for (uint32_t i = 3; i < ctx->argc; i++) {
        if (ctx_arg_is(ctx, i, "replace")) {
            *replace = true;
        } else if (ctx_arg_is(ctx, i, "db") && i + 1 < ctx->argc) {
            enum dc_err err = arg_keyspace(ctx, ++i, ks);
            if (err != DC_OK) {
                return err;
            }
        } else {
            return DC_ESYNTAX;
        }
    }
    return DC_OK;
}

enum dc_err cmd_copy(struct cmd_ctx *ctx) {
    struct place to = {NULL, &ctx->keys[1]};
    bool replace;
    enum dc_err err = parse_copy(ctx, &to.ks, &replace);
    if (err != DC_OK) {
        return err;
    }
    if (to.ks == ctx->ks && bytes_equal(ctx->keys[0].name, to.key->name)) {
        return DC_ESAMEOBJECT;
    }
    const struct entry *e = ctx_read(ctx, 0);
    if (e == NULL || (!replace && find_at(ctx, &to) != NULL)) {
        reply_int(ctx->reply, 0);
        return DC_OK;
    }
    err = put_copy(ctx, e, &to);
    if (err == DC_OK) {
        ctx_notify_in(ctx, NOTIFY_GENERIC, "copy_to", to.ks, to.key->name);
        reply_int(ctx->reply, 1);
    }
    return err;
}

enum dc_err cmd_move(struct cmd_ctx *ctx) {
    const struct place from = {ctx->ks, &ctx->keys[0]};
    struct place to = {NULL, &ctx->keys[0]};
    enum dc_err err = arg_keyspace(ctx, 2, &to.ks);
    if (err != DC_OK) {
        return err;
    }
    if (to.ks == from.ks) {
        return DC_ESAMEOBJECT;
    }
    const struct entry *e = find_at(ctx, &from);
    if (e == NULL || find_at(ctx, &to) != NULL) {
        reply_int(ctx->reply, 0);
        return DC_OK;
    }
    err = put_moved(ctx, e, &from, &to);
    if (err == DC_OK) {
        ctx_notify(ctx, NOTIFY_GENERIC, "move_from", from.key->name);
        ctx_notify_in(ctx, NOTIFY_GENERIC, "move_to", to.ks, to.key->name);
        reply_int(ctx->reply, 1);
    }
    return err;
}
