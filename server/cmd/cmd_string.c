/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Setting and reading whole strings. GET and SET without options are the hot path and stand first.
 *
 * Options of SET and GETEX are one table; those of a group exclude each other, one that is repeated counts
 * with its last value, both as Redis has it.
 */
#include "server/base/assert.h"
#include "server/base/dict.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"
#include "server/cmd/str.h"

static enum dc_err set_with_options(struct cmd_ctx *ctx);

enum dc_err cmd_get(struct cmd_ctx *ctx) {
    struct entry *e = ctx_read(ctx, 0);
    if (dc_unlikely(str_check(e) != DC_OK)) {
        return DC_EWRONGTYPE;
    }
    ctx_reply_value(ctx, e);
    return DC_OK;
}

enum dc_err cmd_set(struct cmd_ctx *ctx) {
    if (dc_unlikely(ctx->argc != 3)) {
        return set_with_options(ctx);
    }
    enum dc_err err = str_put_arg(ctx, 0, ctx_find(ctx, 0), 2, EXPIRY_NONE, "set");
    if (dc_likely(err == DC_OK)) {
        reply_ok(ctx->reply);
    }
    return err;
}

/* --- options ----------------------------------------------------------------------------------------- */

enum option {
    OPT_EX = 1 << 0,
    OPT_PX = 1 << 1,
    OPT_EXAT = 1 << 2,
    OPT_PXAT = 1 << 3,
    OPT_KEEPTTL = 1 << 4,
    OPT_PERSIST = 1 << 5,
    OPT_NX = 1 << 6,
    OPT_XX = 1 << 7,
    OPT_IFEQ = 1 << 8,
    OPT_IFVER = 1 << 9,
    OPT_GET = 1 << 10,
    /* groups */
    OPT_TIMES = OPT_EX | OPT_PX | OPT_EXAT | OPT_PXAT,
    OPT_TTLS = OPT_TIMES | OPT_KEEPTTL | OPT_PERSIST,
    OPT_CONDS = OPT_NX | OPT_XX | OPT_IFEQ | OPT_IFVER,
    /* commands */
    OPT_OF_SET = (OPT_TTLS & ~OPT_PERSIST) | OPT_CONDS | OPT_GET,
    OPT_OF_GETEX = OPT_TIMES | OPT_PERSIST
};

/* clang-format off */
static const struct {
    char word[8];
    uint8_t len;
    bool has_value;
    uint32_t flag;
    uint32_t group;
    enum cond_kind cond;
} option_table[] = {
    {"EX",      2, true,  OPT_EX,      OPT_TTLS,  COND_NONE},
    {"PX",      2, true,  OPT_PX,      OPT_TTLS,  COND_NONE},
    {"NX",      2, false, OPT_NX,      OPT_CONDS, COND_NX},
    {"XX",      2, false, OPT_XX,      OPT_CONDS, COND_XX},
    {"GET",     3, false, OPT_GET,     0,         COND_NONE},
    {"EXAT",    4, true,  OPT_EXAT,    OPT_TTLS,  COND_NONE},
    {"PXAT",    4, true,  OPT_PXAT,    OPT_TTLS,  COND_NONE},
    {"IFEQ",    4, true,  OPT_IFEQ,    OPT_CONDS, COND_IFEQ},
    {"IFVER",   5, true,  OPT_IFVER,   OPT_CONDS, COND_IFVER},
    {"KEEPTTL", 7, false, OPT_KEEPTTL, OPT_TTLS,  COND_NONE},
    {"PERSIST", 7, false, OPT_PERSIST, OPT_TTLS,  COND_NONE},
};
/* clang-format on */

enum { OPTION_COUNT = sizeof(option_table) / sizeof(option_table[0]) };

struct options {
    uint32_t given;
    uint32_t time_arg; /* of OPT_TIMES */
    uint32_t cond_arg; /* of OPT_IFEQ, OPT_IFVER */
    enum cond_kind cond;
};

static uint32_t option_find(struct bytes word, uint32_t allowed) {
    for (uint32_t i = 0; i < OPTION_COUNT; i++) {
        if (option_table[i].len == word.len && (option_table[i].flag & allowed) &&
            strncasecmp(option_table[i].word, word.ptr, word.len) == 0) {
            return i;
        }
    }
    return OPTION_COUNT;
}

static enum dc_err options_parse(struct cmd_ctx *ctx, uint32_t from, uint32_t allowed,
                                 struct options *o) {
    *o = (struct options){0, 0, 0, COND_NONE};
    for (uint32_t arg = from; arg < ctx->argc; arg++) {
        uint32_t i = option_find(ctx->argv[arg], allowed);
        if (i == OPTION_COUNT || (o->given & option_table[i].group & ~option_table[i].flag) ||
            (option_table[i].has_value && arg + 1 == ctx->argc)) {
            return DC_ESYNTAX;
        }
        o->given |= option_table[i].flag;
        arg += option_table[i].has_value;
        if (option_table[i].flag & OPT_TIMES) {
            o->time_arg = arg;
        } else if (option_table[i].flag & OPT_CONDS) {
            o->cond = option_table[i].cond;
            o->cond_arg = arg;
        }
    }
    return DC_OK;
}

static enum dc_err fail_time(const struct cmd_ctx *ctx) {
    return dc_fail(DC_EGENERIC, "invalid expire time in '%s' command", ctx->cmd->name);
}

/* The absolute time that argument 'arg' means under one of OPT_TIMES. */
static enum dc_err time_parse(struct cmd_ctx *ctx, uint32_t arg, uint32_t option, int64_t *out) {
    enum dc_err err = ctx_arg_i64(ctx, arg, out);
    if (err != DC_OK) {
        return err;
    }
    int64_t unit = option & (OPT_EX | OPT_EXAT) ? 1000 : 1;
    int64_t base = option & (OPT_EX | OPT_PX) ? ctx->now_ms : 0;
    if (*out <= 0 || __builtin_mul_overflow(*out, unit, out) ||
        __builtin_add_overflow(*out, base, out)) {
        return fail_time(ctx);
    }
    return DC_OK;
}

/* --- SET and its relatives --------------------------------------------------------------------------- */

/* Sets key 0 to argument 'arg' with an expiry. */
static enum dc_err put_expiring(struct cmd_ctx *ctx, const struct entry *old, uint32_t arg,
                                int64_t expiry_ms) {
    enum dc_err err = str_put_arg(ctx, 0, old, arg, expiry_ms, "set");
    if (err == DC_OK) {
        ctx_notify(ctx, NOTIFY_GENERIC, "expire", ctx->keys[0].name);
    }
    return err;
}

/* Condition and expiry in the order in which Redis finds fault with them. */
static enum dc_err set_parse(struct cmd_ctx *ctx, struct options *o, int64_t *expiry_ms,
                             struct cond *cond) {
    *expiry_ms = EXPIRY_NONE;
    *cond = (struct cond){COND_NONE, {NULL, 0}, 0};
    enum dc_err err = options_parse(ctx, 3, OPT_OF_SET, o);
    if (err == DC_OK && (o->given & OPT_TIMES)) {
        err = time_parse(ctx, o->time_arg, o->given, expiry_ms);
    }
    if (err == DC_OK && o->cond != COND_NONE) {
        err = cond_parse(ctx, o->cond, o->cond_arg, cond);
    }
    return err;
}

static enum dc_err set_with_options(struct cmd_ctx *ctx) {
    struct options o;
    struct cond cond;
    struct entry *old;
    int64_t expiry_ms;
    bool holds;
    enum dc_err err = set_parse(ctx, &o, &expiry_ms, &cond);
    if (err != DC_OK) {
        return err;
    }
    old = o.given & OPT_GET ? ctx_read(ctx, 0) : ctx_find(ctx, 0);
    if ((o.given & OPT_GET) && str_check(old) != DC_OK) {
        return DC_EWRONGTYPE;
    }
    err = cond_test(&cond, old, &holds);
    if (err == DC_OK && holds) {
        if (o.given & OPT_TIMES) {
            err = put_expiring(ctx, old, 2, expiry_ms);
        } else {
            bool keep = (o.given & OPT_KEEPTTL) != 0;
            err = str_put_arg(ctx, 0, old, 2, keep ? str_expiry(old) : EXPIRY_NONE, "set");
        }
    }
    if (err != DC_OK) {
        return err;
    }
    if (o.given & OPT_GET) {
        ctx_reply_value(ctx, old);
    } else if (holds) {
        reply_ok(ctx->reply);
    } else {
        reply_null(ctx->reply);
    }
    return DC_OK;
}

enum dc_err cmd_setnx(struct cmd_ctx *ctx) {
    enum dc_err err = DC_OK;
    bool is_new = ctx_find(ctx, 0) == NULL;
    if (is_new) {
        err = str_put_arg(ctx, 0, NULL, 2, EXPIRY_NONE, "set");
    }
    reply_int(ctx->reply, is_new);
    return err;
}

/* SETEX and PSETEX: key, time, value. */
static enum dc_err set_for(struct cmd_ctx *ctx, uint32_t option) {
    int64_t expiry_ms;
    enum dc_err err = time_parse(ctx, 2, option, &expiry_ms);
    if (err == DC_OK) {
        err = put_expiring(ctx, ctx_find(ctx, 0), 3, expiry_ms);
    }
    reply_ok(ctx->reply);
    return err;
}

enum dc_err cmd_setex(struct cmd_ctx *ctx) {
    return set_for(ctx, OPT_EX);
}

enum dc_err cmd_psetex(struct cmd_ctx *ctx) {
    return set_for(ctx, OPT_PX);
}

enum dc_err cmd_getset(struct cmd_ctx *ctx) {
    struct entry *old;
    enum dc_err err = str_read(ctx, 0, &old);
    if (err == DC_OK) {
        err = str_put_arg(ctx, 0, old, 2, EXPIRY_NONE, "set");
    }
    if (err == DC_OK) {
        ctx_reply_value(ctx, old); /* the effect comes into force after the handler */
    }
    return err;
}

enum dc_err cmd_getdel(struct cmd_ctx *ctx) {
    struct entry *old;
    enum dc_err err = str_read(ctx, 0, &old);
    if (err == DC_OK && old != NULL) {
        err = str_del(ctx, 0);
    }
    if (err == DC_OK) {
        ctx_reply_value(ctx, old);
    }
    return err;
}

static enum dc_err change_expiry(struct cmd_ctx *ctx, const struct entry *e, int64_t expiry_ms,
                                 const char *event) {
    enum dc_err err = ctx_expire(ctx, 0, e, expiry_ms);
    if (err == DC_OK) {
        ctx_notify(ctx, NOTIFY_GENERIC, event, ctx->keys[0].name);
    }
    return err;
}

enum dc_err cmd_getex(struct cmd_ctx *ctx) {
    struct options o;
    struct entry *e = NULL;
    int64_t expiry_ms = EXPIRY_NONE;
    enum dc_err err = options_parse(ctx, 2, OPT_OF_GETEX, &o);
    if (err == DC_OK) {
        err = str_read(ctx, 0, &e);
    }
    if (err == DC_OK && e != NULL && (o.given & OPT_TIMES)) {
        err = time_parse(ctx, o.time_arg, o.given, &expiry_ms);
    }
    if (err != DC_OK || e == NULL) {
        reply_null(ctx->reply);
        return err;
    }
    if ((o.given & (OPT_EXAT | OPT_PXAT)) && expiry_ms <= ctx->now_ms) {
        err = str_del(ctx, 0);
    } else if (o.given & OPT_TIMES) {
        err = change_expiry(ctx, e, expiry_ms, "expire");
    } else if ((o.given & OPT_PERSIST) && entry_has_expiry(e)) {
        err = change_expiry(ctx, e, EXPIRY_NONE, "persist");
    }
    if (err == DC_OK) {
        ctx_reply_value(ctx, e);
    }
    return err;
}

/* --- several keys ------------------------------------------------------------------------------------ */

/* Fetches the memory of keys that will be looked up soon: first the roots, then the lines. */
static inline void look_ahead(struct cmd_ctx *ctx, uint32_t i) {
    enum { LINES = 4, ROOTS = 8 };
    if (i + ROOTS < ctx->key_count) {
        store_prefetch_root(ctx->ks, ctx->keys[i + ROOTS].pos);
    }
    if (i + LINES < ctx->key_count) {
        store_prefetch_line(ctx->ks, ctx->keys[i + LINES].pos);
    }
}

enum dc_err cmd_mget(struct cmd_ctx *ctx) {
    reply_array(ctx->reply, ctx->key_count);
    for (uint32_t i = 0; i < ctx->key_count; i++) {
        look_ahead(ctx, i);
        struct entry *e = ctx_read(ctx, i);
        ctx_reply_value(ctx, str_check(e) == DC_OK ? e : NULL);
    }
    return DC_OK;
}

/* Whether key i is named for the first time in this command. */
static bool is_first(struct cmd_ctx *ctx, struct dict *named, uint32_t i) {
    const struct key *key = &ctx->keys[i];
    if (dict_find(named, key->name, key->pos.v) != NULL) {
        return false;
    }
    struct dict_node *node = ctx_alloc(ctx, sizeof(*node));
    *node = (struct dict_node){.name = key->name, .hash = key->pos.v};
    dict_add(named, node);
    return true;
}

/* A key that is named twice gets two effects, of which the later one stays; it is "new" once. 'named' has those that
 * were new, as far as anybody wants to know. */
static enum dc_err put_pair(struct cmd_ctx *ctx, uint32_t i, struct dict *named) {
    struct value v;
    struct entry *old = ctx_find(ctx, i);
    enum dc_err err = ctx_value_of_arg(ctx, 2 + 2 * i, &v);
    if (err == DC_OK) {
        err = ctx_put(ctx, i, old, &v, EXPIRY_NONE);
    }
    uint32_t wanted = atomic_load_explicit(&ctx->node->notify_flags, memory_order_relaxed);
    if (err != DC_OK || wanted == 0) {
        return err;
    }
    if ((wanted & NOTIFY_NEW) && old == NULL && is_first(ctx, named, i)) {
        ctx_notify(ctx, NOTIFY_NEW, "new", ctx->keys[i].name);
    }
    ctx_notify(ctx, NOTIFY_STRING, "set", ctx->keys[i].name);
    return DC_OK;
}

static enum dc_err put_pairs(struct cmd_ctx *ctx) {
    struct dict named;
    enum dc_err err = DC_OK;
    dict_init(&named, NULL); /* positions are the hashes */
    for (uint32_t i = 0; i < ctx->key_count && err == DC_OK; i++) {
        look_ahead(ctx, i);
        err = put_pair(ctx, i, &named);
    }
    dict_fini(&named);
    return err;
}

static enum dc_err check_pairs(const struct cmd_ctx *ctx) {
    if (ctx->argc % 2 == 0) {
        return dc_fail(DC_EARITY, "wrong number of arguments for '%s' command", ctx->cmd->name);
    }
    return DC_OK;
}

enum dc_err cmd_mset(struct cmd_ctx *ctx) {
    enum dc_err err = check_pairs(ctx);
    if (err == DC_OK) {
        err = put_pairs(ctx);
    }
    reply_ok(ctx->reply);
    return err;
}

enum dc_err cmd_msetnx(struct cmd_ctx *ctx) {
    enum dc_err err = check_pairs(ctx);
    bool all_new = true;
    for (uint32_t i = 0; i < ctx->key_count && all_new && err == DC_OK; i++) {
        look_ahead(ctx, i);
        all_new = ctx_find(ctx, i) == NULL;
    }
    if (err == DC_OK && all_new) {
        err = put_pairs(ctx);
    }
    reply_int(ctx->reply, all_new);
    return err;
}
