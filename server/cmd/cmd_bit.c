/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Strings as bitmaps: SETBIT GETBIT BITCOUNT BITPOS BITOP.
 *
 * A SETBIT or BITFIELD that changes nothing leaves the entry as it is. Redis turns it into a raw string even then, for
 * which OBJECT ENCODING has another word; WATCH and keyspace events see no difference.
 */
#include "server/base/assert.h"
#include "server/cmd/bits.h"
#include "server/cmd/handlers.h"
#include "server/cmd/str.h"

/* The offset of a bit. Errors: DC_EBITOFFSET. */
static enum dc_err offset_parse(struct cmd_ctx *ctx, uint32_t arg, uint64_t *out) {
    int64_t offset;
    if (ctx_arg_i64(ctx, arg, &offset) != DC_OK || offset < 0 ||
        (uint64_t)offset / 8 >= str_len_max(ctx)) {
        return DC_EBITOFFSET;
    }
    *out = (uint64_t)offset;
    return DC_OK;
}

/* The byte of a string that holds a bit; 0 behind its end. */
static uint8_t byte_at(struct bytes s, uint64_t bit) {
    return bit / 8 < s.len ? (uint8_t)s.ptr[bit / 8] : 0;
}

enum dc_err cmd_setbit(struct cmd_ctx *ctx) {
    char scratch[NUM_I64_TEXT_MAX];
    struct entry *old;
    uint64_t offset;
    int64_t on;
    enum dc_err err = offset_parse(ctx, 2, &offset);
    if (err != DC_OK) {
        return err;
    }
    if (ctx_arg_i64(ctx, 3, &on) != DC_OK || (on != 0 && on != 1)) {
        return DC_EBIT;
    }
    err = str_find(ctx, 0, &old);
    if (err != DC_OK) {
        return err;
    }
    struct bytes s = ctx_entry_bytes(old, scratch);
    uint8_t byte = byte_at(s, offset);
    uint8_t mask = (uint8_t)(0x80 >> offset % 8);
    bool was_on = (byte & mask) != 0;
    if (was_on != on || old == NULL || offset / 8 >= s.len) {
        char *changed = ctx_alloc(ctx, 1);
        *changed = (char)(on ? byte | mask : byte & ~mask);
        err = str_write(ctx, 0, old, offset / 8, bytes_of(changed, 1), "setbit");
    }
    reply_int(ctx->reply, was_on);
    return err;
}

enum dc_err cmd_getbit(struct cmd_ctx *ctx) {
    char scratch[NUM_I64_TEXT_MAX];
    struct entry *e;
    uint64_t offset;
    enum dc_err err = offset_parse(ctx, 2, &offset);
    if (err == DC_OK) {
        err = str_read(ctx, 0, &e);
    }
    if (err != DC_OK) {
        return err;
    }
    uint8_t byte = byte_at(ctx_entry_bytes(e, scratch), offset);
    reply_int(ctx->reply, byte >> (7 - offset % 8) & 1);
    return DC_OK;
}

/* --- ranges ------------------------------------------------------------------------------------------ */

/* Argument 'arg', where it is given, says in what a range is counted. */
static enum dc_err unit_parse(const struct cmd_ctx *ctx, uint32_t arg, bool *is_bits) {
    *is_bits = arg < ctx->argc && ctx_arg_is(ctx, arg, "BIT");
    return arg >= ctx->argc || *is_bits || ctx_arg_is(ctx, arg, "BYTE") ? DC_OK : DC_ESYNTAX;
}

/* Makes start and end, which may be negative, the first and last bit; start > end when the range is empty. */
static void to_bits(int64_t *start, int64_t *end, bool is_bits, size_t len) {
    str_clamp(start, end, (int64_t)len * (is_bits ? 8 : 1));
    if (!is_bits) {
        *start = *start > (int64_t)len ? INT64_MAX : *start * 8;
        *end = *end * 8 + 7;
    }
}

enum dc_err cmd_bitcount(struct cmd_ctx *ctx) {
    char scratch[NUM_I64_TEXT_MAX];
    struct entry *e;
    int64_t start = 0, end = -1;
    bool is_bits;
    enum dc_err err = str_read(ctx, 0, &e);
    if (err != DC_OK || e == NULL) {
        reply_int(ctx->reply, 0); /* whatever else was asked */
        return err;
    }
    if (ctx->argc == 3 || ctx->argc > 5) {
        return DC_ESYNTAX;
    }
    if (ctx->argc > 3 &&
        (ctx_arg_i64(ctx, 2, &start) != DC_OK || ctx_arg_i64(ctx, 3, &end) != DC_OK)) {
        return DC_ENOTINT;
    }
    if (start < 0 && end < 0 && start > end) {
        reply_int(ctx->reply, 0);
        return DC_OK;
    }
    err = unit_parse(ctx, 4, &is_bits);
    if (err != DC_OK) {
        return err;
    }
    struct bytes s = ctx_entry_bytes(e, scratch);
    to_bits(&start, &end, is_bits, s.len);
    bool is_empty = start > end;
    reply_int(ctx->reply,
              is_empty ? 0 : (int64_t)bits_count_range(s, (uint64_t)start, (uint64_t)end));
    return DC_OK;
}

struct bitpos {
    bool value;
    bool is_bits;
    bool end_given;
    int64_t start;
    int64_t end;
};

static enum dc_err bitpos_bit(struct cmd_ctx *ctx, bool *value) {
    int64_t bit;
    enum dc_err err = ctx_arg_i64(ctx, 2, &bit);
    if (err != DC_OK) {
        return err;
    }
    if (bit != 0 && bit != 1) {
        return dc_fail(DC_EGENERIC, "The bit argument must be 1 or 0.");
    }
    *value = bit == 1;
    return DC_OK;
}

static enum dc_err bitpos_range(struct cmd_ctx *ctx, struct bitpos *p) {
    p->start = 0;
    p->end = -1;
    p->is_bits = false;
    p->end_given = ctx->argc > 4;
    if (ctx->argc > 6) {
        return DC_ESYNTAX;
    }
    enum dc_err err = ctx->argc > 3 ? ctx_arg_i64(ctx, 3, &p->start) : DC_OK;
    if (err == DC_OK) {
        err = unit_parse(ctx, 5, &p->is_bits);
    }
    if (err == DC_OK && p->end_given) {
        err = ctx_arg_i64(ctx, 4, &p->end);
    }
    return err;
}

/* The zeros that follow a string count as clear bits, unless the caller named an end. */
static int64_t bitpos_in(struct bytes s, struct bitpos *p) {
    to_bits(&p->start, &p->end, p->is_bits, s.len);
    if (p->start > p->end) {
        return -1;
    }
    int64_t found = bits_find(s, (uint64_t)p->start, (uint64_t)p->end, p->value);
    return found < 0 && !p->value && !p->end_given ? (int64_t)s.len * 8 : found;
}

enum dc_err cmd_bitpos(struct cmd_ctx *ctx) {
    char scratch[NUM_I64_TEXT_MAX];
    struct entry *e;
    struct bitpos p;
    enum dc_err err = bitpos_bit(ctx, &p.value);
    if (err == DC_OK) {
        err = str_read(ctx, 0, &e);
    }
    if (err != DC_OK) {
        return err;
    }
    if (e == NULL) { /* zeros without end, whatever the range */
        reply_int(ctx->reply, p.value ? -1 : 0);
        return DC_OK;
    }
    err = bitpos_range(ctx, &p);
    if (err == DC_OK) {
        reply_int(ctx->reply, bitpos_in(ctx_entry_bytes(e, scratch), &p));
    }
    return err;
}

/* --- BITOP ------------------------------------------------------------------------------------------- */

struct source {
    struct bytes s;
    char scratch[NUM_I64_TEXT_MAX];
};

static enum dc_err bitop_parse(const struct cmd_ctx *ctx, enum bits_op *op) {
    static const char *const names[] = {
        [BITS_AND] = "AND", [BITS_OR] = "OR", [BITS_XOR] = "XOR", [BITS_NOT] = "NOT"};
    for (uint32_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (ctx_arg_is(ctx, 1, names[i])) {
            *op = (enum bits_op)i;
            return i == BITS_NOT && ctx->argc != 4
                       ? dc_fail(DC_EGENERIC, "BITOP NOT must be called with a single source key.")
                       : DC_OK;
        }
    }
    return DC_ESYNTAX;
}

/* Reads the sources, keys 1 and on; *len is the length of the longest. */
static enum dc_err bitop_read(struct cmd_ctx *ctx, struct source *sources, size_t *len) {
    *len = 0;
    for (uint32_t i = 0; i + 1 < ctx->key_count; i++) {
        struct entry *e;
        enum dc_err err = str_read(ctx, i + 1, &e);
        if (err != DC_OK) {
            return err;
        }
        sources[i].s = ctx_entry_bytes(e, sources[i].scratch);
        *len = sources[i].s.len > *len ? sources[i].s.len : *len;
    }
    return DC_OK;
}

/* Memory of the result: a blob's, or until the end of the turn. */
static enum dc_err bitop_alloc(struct cmd_ctx *ctx, size_t len, struct value *v, char **data) {
    if (len >= BLOB_MIN_LEN) {
        *v = (struct value){.kind = VALUE_BLOB, .blob = blob_create(len, len)};
        *data = v->blob == NULL ? NULL : v->blob->data;
        return v->blob == NULL ? DC_ENOMEM : DC_OK;
    }
    *data = ctx_alloc(ctx, len);
    *v = value_raw(bytes_of(*data, len));
    return DC_OK;
}

/* Puts the result under key 0, which may be one of the sources: it is a value of its own. */
static enum dc_err bitop_store(struct cmd_ctx *ctx, enum bits_op op, const struct source *sources,
                               size_t len) {
    struct value v;
    char *data;
    enum dc_err err = bitop_alloc(ctx, len, &v, &data);
    if (err != DC_OK) {
        return err;
    }
    memset(data, 0, len);
    bits_combine(op == BITS_NOT ? BITS_NOT : BITS_OR, data, len, sources[0].s);
    for (uint32_t i = 1; i + 1 < ctx->key_count; i++) {
        bits_combine(op, data, len, sources[i].s);
    }
    return str_put(ctx, 0, ctx_find(ctx, 0), &v, EXPIRY_NONE, "set");
}

enum dc_err cmd_bitop(struct cmd_ctx *ctx) {
    enum bits_op op;
    size_t len;
    struct source *sources = ctx_alloc(ctx, (ctx->key_count - 1) * sizeof(*sources));
    enum dc_err err = bitop_parse(ctx, &op);
    if (err == DC_OK) {
        err = bitop_read(ctx, sources, &len);
    }
    if (err != DC_OK) {
        return err;
    }
    if (len > 0) {
        err = bitop_store(ctx, op, sources, len);
    } else if (ctx_find(ctx, 0) != NULL) {
        err = str_del(ctx, 0);
    }
    reply_int(ctx->reply, (int64_t)len);
    return err;
}
