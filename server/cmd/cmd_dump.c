/* SPDX-License-Identifier: BSD-3-Clause */
/* DUMP and RESTORE: values in the form that any Redis takes. */
#include "server/base/limits.h"
#include "server/cmd/client.h"
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"
#include "server/proto/dump.h"

/* A text that is an integer of this length at most is dumped as one, whatever it is kept as. */
enum { INT_TEXT_MAX = 11 };

/* --- DUMP -------------------------------------------------------------------------------------------- */

static void reply_payload(struct cmd_ctx *ctx, struct bytes head, const struct value *v) {
    struct reply *r = ctx->reply;
    struct bytes content = v == NULL ? BYTES("") : value_bytes(v, NULL);
    char footer[DUMP_FOOTER_LEN];
    dump_encode_footer(footer, head, content);
    reply_bulk_begin(r, head.len + content.len + sizeof(footer));
    buf_append_bytes(r->out, head);
    if (v != NULL && v->kind == VALUE_BLOB) {
        r->take_blob(r, v->blob, 0, v->blob->len);
    } else {
        buf_append_bytes(r->out, content);
    }
    buf_append(r->out, footer, sizeof(footer));
    reply_bulk_end(r);
}

enum dc_err cmd_dump(struct cmd_ctx *ctx) {
    const struct entry *e = ctx_read(ctx, 0);
    if (e == NULL) {
        reply_null(ctx->reply);
        return DC_OK;
    }
    char head[DUMP_HEAD_MAX], digits[NUM_I64_TEXT_MAX];
    struct value v;
    entry_value(e, &v);
    if (v.kind != VALUE_INT && v.kind != VALUE_BLOB && v.str.len <= INT_TEXT_MAX) {
        v = value_of(v.str);
    }
    if (v.kind == VALUE_INT) {
        size_t len = dump_encode_int(head, v.num);
        if (len > 0) {
            reply_payload(ctx, bytes_of(head, len), NULL);
            return DC_OK;
        }
        v = (struct value){.kind = VALUE_STR, .str = value_bytes(&v, digits)};
    }
    size_t len = dump_encode_head(head, value_len(&v));
    reply_payload(ctx, bytes_of(head, len), &v);
    return DC_OK;
}

/* --- RESTORE ----------------------------------------------------------------------------------------- */

struct restore_opts {
    bool replace;
    bool absolute;  /* the time is one of the clock */
    int64_t idle_s; /* -1 = not given */
    int64_t freq;   /* the same */
};

static enum dc_err parse_idle(struct cmd_ctx *ctx, uint32_t i, struct restore_opts *o) {
    enum dc_err err = ctx_arg_i64(ctx, i, &o->idle_s);
    if (err == DC_OK && o->idle_s < 0) {
        return dc_fail(DC_EGENERIC, "Invalid IDLETIME value, must be >= 0");
    }
    return err;
}

static enum dc_err parse_freq(struct cmd_ctx *ctx, uint32_t i, struct restore_opts *o) {
    enum dc_err err = ctx_arg_i64(ctx, i, &o->freq);
    if (err == DC_OK && (o->freq < 0 || o->freq > UINT8_MAX)) {
        return dc_fail(DC_EGENERIC, "Invalid FREQ value, must be >= 0 and <= 255");
    }
    return err;
}

static enum dc_err parse_restore(struct cmd_ctx *ctx, struct restore_opts *o) {
    *o = (struct restore_opts){.idle_s = -1, .freq = -1};
    enum dc_err err = DC_OK;
    for (uint32_t i = 4; i < ctx->argc && err == DC_OK; i++) {
        bool more = i + 1 < ctx->argc;
        if (ctx_arg_is(ctx, i, "replace")) {
            o->replace = true;
        } else if (ctx_arg_is(ctx, i, "absttl")) {
            o->absolute = true;
        } else if (ctx_arg_is(ctx, i, "idletime") && more && o->freq == -1) {
            err = parse_idle(ctx, ++i, o);
        } else if (ctx_arg_is(ctx, i, "freq") && more && o->idle_s == -1) {
            err = parse_freq(ctx, ++i, o);
        } else {
            err = DC_ESYNTAX;
        }
    }
    return err;
}

/* Argument 2 as the expiry. What overflows has passed, as in Redis. */
static enum dc_err parse_expiry(struct cmd_ctx *ctx, const struct restore_opts *o, int64_t *out) {
    enum dc_err err = ctx_arg_i64(ctx, 2, out);
    if (err != DC_OK) {
        return err;
    }
    if (*out < 0) {
        return dc_fail(DC_EGENERIC, "Invalid TTL value, must be >= 0");
    }
    if (*out == 0) {
        *out = EXPIRY_NONE;
    } else if (!o->absolute && __builtin_add_overflow(*out, ctx->now_ms, out)) {
        *out = 0;
    }
    return DC_OK;
}

static enum dc_err unpack_value(struct cmd_ctx *ctx, const struct dump_string *s,
                                struct value *out) {
    struct blob *b = NULL;
    char *to;
    if (s->len < BLOB_MIN_LEN) {
        to = ctx_alloc(ctx, s->len);
    } else {
        b = blob_create(s->len, s->len);
        if (b == NULL) {
            return DC_ENOMEM;
        }
        to = b->data;
    }
    enum dc_err err = dump_unpack(s, to);
    if (b == NULL) {
        *out = value_of(bytes_of(to, s->len));
    } else if (err == DC_OK) {
        *out = (struct value){.kind = VALUE_BLOB, .blob = b};
    } else {
        blob_release(b);
    }
    return err;
}

/* The value in a payload. A blob's reference is the caller's. */
static enum dc_err decode_value(struct cmd_ctx *ctx, struct bytes payload, struct value *out) {
    struct dump_string s;
    enum dc_err err = dump_verify(payload);
    if (err == DC_OK) {
        err = dump_decode(payload, &s);
    }
    if (err != DC_OK) {
        return err;
    }
    switch (s.form) {
    case DUMP_PLAIN:
        return ctx_value_of(ctx, s.bytes, out);
    case DUMP_INT:
        *out = value_int(s.num);
        return DC_OK;
    case DUMP_LZF:
        return unpack_value(ctx, &s, out);
    }
    dc_unreachable();
}

/* A restored key whose time has passed: it is as if it had been there and gone. */
static enum dc_err restore_dead(struct cmd_ctx *ctx, const struct entry *old) {
    if (old == NULL) {
        return DC_OK;
    }
    enum dc_err err = ctx_del(ctx, 0);
    if (err == DC_OK) {
        ctx_notify(ctx, NOTIFY_GENERIC, "del", ctx->keys[0].name);
    }
    return err;
}

/* Age and frequency are set behind the effect, which counts as an access. It can't be taken back then, so its frame's memory comes first. */
static enum dc_err restore_history(struct cmd_ctx *ctx, const struct restore_opts *o) {
    if (o->idle_s < 0 && o->freq < 0) {
        return DC_OK;
    }
    enum dc_err err = log_reserve(ctx->worker->feed, ctx->mut);
    if (err != DC_OK) {
        return err;
    }
    mut_apply(ctx->mut);
    struct entry *e = ctx->mut->effects[ctx->mut->count - 1].entry;
    if (o->freq >= 0) {
        e->freq = (uint8_t)o->freq;
    } else {
        int64_t idle_s = o->idle_s < INT64_MAX / 1000 ? o->idle_s : INT64_MAX / 1000;
        store_set_idle_ms(ctx->node->store, e, idle_s * 1000, ctx->now_ms);
    }
    return DC_OK;
}

static enum dc_err restore_live(struct cmd_ctx *ctx, const struct restore_opts *o,
                                const struct value *v, int64_t expiry_ms) {
    enum dc_err err = ctx_put(ctx, 0, NULL, v, expiry_ms); /* a new entry, whatever was there */
    if (err != DC_OK) {
        return err;
    }
    err = restore_history(ctx, o);
    if (err != DC_OK) {
        return err;
    }
    ctx_notify(ctx, NOTIFY_NEW, "new", ctx->keys[0].name);
    ctx_notify(ctx, NOTIFY_GENERIC, "restore", ctx->keys[0].name);
    return DC_OK;
}

enum dc_err cmd_restore(struct cmd_ctx *ctx) {
    struct restore_opts o;
    struct value v;
    int64_t expiry_ms;
    enum dc_err err = parse_restore(ctx, &o);
    if (err != DC_OK) {
        return err;
    }
    const struct entry *old = ctx_find(ctx, 0);
    if (old != NULL && !o.replace) {
        return DC_EBUSYKEY;
    }
    err = parse_expiry(ctx, &o, &expiry_ms);
    if (err == DC_OK) {
        err = decode_value(ctx, ctx->argv[3], &v);
    }
    if (err != DC_OK) {
        return err;
    }
    if (expiry_ms == EXPIRY_NONE || expiry_ms > ctx->now_ms) {
        err = restore_live(ctx, &o, &v, expiry_ms);
    } else {
        err = restore_dead(ctx, old);
        if (v.kind == VALUE_BLOB) {
            blob_release(v.blob);
        }
    }
    if (err == DC_OK) {
        reply_ok(ctx->reply);
    }
    return err;
}
