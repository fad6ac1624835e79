/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * BITFIELD and BITFIELD_RO: a list of operations on integers of any width inside a string.
 *
 * All operations are read first, so a mistake in the last one leaves nothing done. They then work on a window: a copy of
 * the bytes that they may write to, laid over the string as it is,
 *
 *     string   [..........................]
 *     window            [############]            from .. to
 *
 * which in the end becomes one effect: a WRITE of the window, or, when it is long, a PUT of the whole string as
 * a blob (the window then is the blob).
 *
 * Operations of which OVERFLOW FAIL lets none through still make the string as long as they reach, without an event, as in
 * Redis. Its WATCH doesn't see that; here it does, for another string has another version.
 */
#include "server/base/assert.h"
#include "server/cmd/bits.h"
#include "server/cmd/handlers.h"
#include "server/cmd/str.h"

enum field_op { FIELD_GET, FIELD_SET, FIELD_INCRBY };
enum field_overflow { OVERFLOW_WRAP, OVERFLOW_SAT, OVERFLOW_FAIL };

struct op {
    enum field_op kind;
    enum field_overflow overflow;
    bool is_signed;
    uint32_t width;
    uint64_t offset; /* in bits */
    int64_t operand;
};

struct program {
    struct op *ops;
    uint32_t count;
    bool writes;
    uint64_t from; /* bytes that it may write to */
    uint64_t to;
};

/* --- reading the operations -------------------------------------------------------------------------- */

static enum dc_err type_parse(struct bytes text, struct op *op) {
    uint64_t width = 0;
    char sign = text.len > 0 ? text.ptr[0] : '\0';
    op->is_signed = sign == 'i';
    if ((sign != 'i' && sign != 'u') ||
        !num_parse_u64(bytes_of(text.ptr + 1, text.len - 1), &width) || width < 1 ||
        width > (op->is_signed ? 64 : 63)) {
        return dc_fail(DC_EGENERIC, "Invalid bitfield type. Use something like i16 u8. Note that "
                                    "u64 is not supported but i64 is.");
    }
    op->width = (uint32_t)width;
    return DC_OK;
}

/* "17" is a bit, "#3" the fourth integer of this width. */
static enum dc_err offset_parse(const struct cmd_ctx *ctx, struct bytes text, struct op *op) {
    int64_t offset;
    bool by_width = text.len > 0 && text.ptr[0] == '#';
    if (!num_parse_i64(bytes_of(text.ptr + by_width, text.len - by_width), &offset) ||
        (by_width && __builtin_mul_overflow(offset, (int64_t)op->width, &offset)) || offset < 0 ||
        (uint64_t)offset / 8 >= str_len_max(ctx)) {
        return DC_EBITOFFSET;
    }
    op->offset = (uint64_t)offset;
    return DC_OK;
}

static enum dc_err overflow_parse(const struct cmd_ctx *ctx, uint32_t arg,
                                  enum field_overflow *out) {
    if (ctx_arg_is(ctx, arg, "WRAP")) {
        *out = OVERFLOW_WRAP;
    } else if (ctx_arg_is(ctx, arg, "SAT")) {
        *out = OVERFLOW_SAT;
    } else if (ctx_arg_is(ctx, arg, "FAIL")) {
        *out = OVERFLOW_FAIL;
    } else {
        return dc_fail(DC_EGENERIC, "Invalid OVERFLOW type specified");
    }
    return DC_OK;
}

static bool kind_parse(const struct cmd_ctx *ctx, uint32_t arg, enum field_op *out) {
    uint32_t left = ctx->argc - arg - 1;
    if (ctx_arg_is(ctx, arg, "GET") && left >= 2) {
        *out = FIELD_GET;
    } else if (ctx_arg_is(ctx, arg, "SET") && left >= 3) {
        *out = FIELD_SET;
    } else if (ctx_arg_is(ctx, arg, "INCRBY") && left >= 3) {
        *out = FIELD_INCRBY;
    } else {
        return false;
    }
    return true;
}

static enum dc_err op_parse(struct cmd_ctx *ctx, uint32_t arg, struct op *op) {
    if (!kind_parse(ctx, arg, &op->kind)) {
        return DC_ESYNTAX;
    }
    enum dc_err err = type_parse(ctx->argv[arg + 1], op);
    if (err == DC_OK) {
        err = offset_parse(ctx, ctx->argv[arg + 2], op);
    }
    op->operand = 0;
    if (err == DC_OK && op->kind != FIELD_GET) {
        err = ctx_arg_i64(ctx, arg + 3, &op->operand);
    }
    return err;
}

static void program_add(struct program *p, const struct op *op) {
    p->ops[p->count++] = *op;
    if (op->kind != FIELD_GET) {
        uint64_t from = op->offset / 8, to = (op->offset + op->width + 7) / 8;
        p->from = !p->writes || from < p->from ? from : p->from;
        p->to = !p->writes || to > p->to ? to : p->to;
        p->writes = true;
    }
}

static enum dc_err program_parse(struct cmd_ctx *ctx, struct program *p) {
    struct op op = {.overflow = OVERFLOW_WRAP};
    *p = (struct program){.ops = ctx_alloc(ctx, ctx->argc / 3 * sizeof(op))};
    for (uint32_t arg = 2; arg < ctx->argc;) {
        enum dc_err err;
        if (ctx_arg_is(ctx, arg, "OVERFLOW") && arg + 1 < ctx->argc) {
            err = overflow_parse(ctx, arg + 1, &op.overflow);
            arg += 2;
        } else {
            err = op_parse(ctx, arg, &op);
            arg += op.kind == FIELD_GET ? 3 : 4;
            if (err == DC_OK) {
                program_add(p, &op);
            }
        }
        if (err != DC_OK) {
            return err;
        }
    }
    return DC_OK;
}

/* --- arithmetic -------------------------------------------------------------------------------------- */

/* The integer of 'width' bits that these are. */
static int64_t sign_extend(uint64_t bits, uint32_t width) {
    return (int64_t)(bits << (64 - width)) >> (64 - width);
}

/* 1 when value + change is above what the field can hold, -1 when below, else 0. In Redis a SET of a signed field to
 * nearly the least of all integers counts as above: kept, since SAT shows it. */
static int overflow_signed(int64_t value, int64_t change, uint32_t width) {
    int64_t max = (int64_t)(UINT64_MAX >> 1 >> (64 - width)), min = -max - 1;
    int64_t room_up = (int64_t)((uint64_t)max - (uint64_t)value);
    int64_t room_down = (int64_t)((uint64_t)min - (uint64_t)value);
    if (value > max || (width != 64 && change > room_up) ||
        (value >= 0 && change > 0 && change > room_up)) {
        return 1;
    }
    return value < min || (width != 64 && change < room_down) ||
                   (value < 0 && change < 0 && change < room_down)
               ? -1
               : 0;
}

static int overflow_unsigned(uint64_t value, int64_t change, uint32_t width) {
    uint64_t max = UINT64_MAX >> (64 - width);
    if (value > max || (change > 0 && (uint64_t)change > max - value)) {
        return 1;
    }
    return change < 0 && 0 - (uint64_t)change > value ? -1 : 0;
}

/* What SET and INCRBY put into a field that held 'old'. False: it doesn't fit and OVERFLOW FAIL was asked. */
static bool compute(const struct op *op, uint64_t old, uint64_t *out) {
    uint64_t start = op->kind == FIELD_SET ? (uint64_t)op->operand : old;
    int64_t change = op->kind == FIELD_SET ? 0 : op->operand;
    if (op->is_signed && op->kind == FIELD_INCRBY) {
        start = (uint64_t)sign_extend(old, op->width);
    }
    int over = op->is_signed ? overflow_signed((int64_t)start, change, op->width)
                             : overflow_unsigned(start, change, op->width);
    uint64_t mask = UINT64_MAX >> (64 - op->width);
    *out = (start + (uint64_t)change) & mask;
    if (over != 0 && op->overflow == OVERFLOW_SAT) {
        uint64_t max = op->is_signed ? mask >> 1 : mask;
        *out = over > 0 ? max : ~max & mask;
    }
    return over == 0 || op->overflow != OVERFLOW_FAIL;
}

/* --- execution --------------------------------------------------------------------------------------- */

struct image {
    struct bytes s;  /* the string as it is */
    uint8_t *window; /* over its bytes from .. to */
    uint64_t from;
    uint64_t to;
    struct value whole; /* the blob that the window is, if it is one */
    bool changed;
};

static void image_load(const struct image *m, uint64_t at, uint8_t *field) {
    for (uint32_t i = 0; i < BITS_FIELD_LEN; i++, at++) {
        if (at >= m->from && at < m->to) {
            field[i] = m->window[at - m->from];
        } else {
            field[i] = at < m->s.len ? (uint8_t)m->s.ptr[at] : 0;
        }
    }
}

static void run_op(struct cmd_ctx *ctx, struct image *m, const struct op *op, bool grows) {
    uint8_t field[BITS_FIELD_LEN];
    uint32_t shift = op->offset % 8;
    image_load(m, op->offset / 8, field);
    uint64_t old = bits_get(field, shift, op->width), now = old;
    if (op->kind != FIELD_GET) {
        if (!compute(op, old, &now)) {
            reply_null(ctx->reply);
            return;
        }
        bits_set(field, shift, op->width, now);
        memcpy(m->window + (op->offset / 8 - m->from), field, (shift + op->width + 7) / 8);
        m->changed = m->changed || grows || now != old;
    }
    uint64_t answer = op->kind == FIELD_INCRBY ? now : old;
    reply_int(ctx->reply, op->is_signed ? sign_extend(answer, op->width) : (int64_t)answer);
}

/* Lays a window over what the program may write to. */
static enum dc_err image_open(struct cmd_ctx *ctx, struct image *m, const struct program *p) {
    m->from = p->from;
    m->to = p->to;
    if (p->to > VALUE_LEN_MAX) {
        return DC_ETOOBIG;
    }
    if (p->to - p->from >= BLOB_MIN_LEN) {
        m->from = 0;
        m->to = m->s.len > p->to ? m->s.len : p->to;
        m->whole = (struct value){.kind = VALUE_BLOB, .blob = blob_create(m->to, m->to)};
        if (m->whole.blob == NULL) {
            return DC_ENOMEM;
        }
        m->window = (uint8_t *)m->whole.blob->data;
    } else {
        m->window = ctx_alloc(ctx, m->to - m->from);
    }
    size_t have = m->s.len < m->from ? 0 : m->s.len < m->to ? m->s.len - m->from : m->to - m->from;
    if (have > 0) {
        memcpy(m->window, m->s.ptr + m->from, have);
    }
    memset(m->window + have, 0, m->to - m->from - have);
    return DC_OK;
}

static enum dc_err image_close(struct cmd_ctx *ctx, struct image *m, const struct entry *old,
                               bool grows) {
    const char *event = m->changed ? "setbit" : NULL; /* failed operations make it grow silently */
    bool is_blob = m->whole.kind == VALUE_BLOB;
    if (!m->changed && !grows) {
        if (is_blob) {
            blob_release(m->whole.blob);
        }
        return DC_OK;
    }
    if (is_blob) {
        return str_put(ctx, 0, old, &m->whole, str_expiry(old), event);
    }
    struct bytes bytes = bytes_of((const char *)m->window, m->to - m->from);
    return str_write(ctx, 0, old, m->from, bytes, event);
}

static enum dc_err run(struct cmd_ctx *ctx, const struct program *p, const struct entry *old) {
    char scratch[NUM_I64_TEXT_MAX];
    struct image m = {.s = ctx_entry_bytes(old, scratch)};
    bool grows = p->writes && (old == NULL || p->to > m.s.len);
    enum dc_err err = p->writes ? image_open(ctx, &m, p) : DC_OK;
    if (err != DC_OK) {
        return err;
    }
    reply_array(ctx->reply, p->count);
    for (uint32_t i = 0; i < p->count; i++) {
        run_op(ctx, &m, &p->ops[i], grows);
    }
    return p->writes ? image_close(ctx, &m, old, grows) : DC_OK;
}

enum dc_err cmd_bitfield(struct cmd_ctx *ctx) {
    struct program p;
    struct entry *e;
    enum dc_err err = program_parse(ctx, &p);
    if (err == DC_OK) {
        err = p.writes ? str_find(ctx, 0, &e) : str_read(ctx, 0, &e);
    }
    return err == DC_OK ? run(ctx, &p, e) : err;
}

enum dc_err cmd_bitfield_ro(struct cmd_ctx *ctx) {
    struct program p;
    struct entry *e;
    enum dc_err err = program_parse(ctx, &p);
    if (err == DC_OK && p.writes) {
        err = dc_fail(DC_EGENERIC, "BITFIELD_RO only supports the GET subcommand");
    }
    if (err == DC_OK) {
        err = str_read(ctx, 0, &e);
    }
    return err == DC_OK ? run(ctx, &p, e) : err;
}
