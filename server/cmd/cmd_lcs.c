/* SPDX-License-Identifier: BSD-3-Clause */
/* LCS: its options and its three kinds of answers. */
#include "server/cmd/handlers.h"
#include "server/cmd/lcs.h"
#include "server/cmd/str.h"

struct lcs_opts {
    bool len;
    bool idx;
    bool with_match_len;
    int64_t min_match_len;
};

static enum dc_err opts_parse(struct cmd_ctx *ctx, struct lcs_opts *o) {
    *o = (struct lcs_opts){false, false, false, 0};
    for (uint32_t arg = 3; arg < ctx->argc; arg++) {
        if (ctx_arg_is(ctx, arg, "IDX")) {
            o->idx = true;
        } else if (ctx_arg_is(ctx, arg, "LEN")) {
            o->len = true;
        } else if (ctx_arg_is(ctx, arg, "WITHMATCHLEN")) {
            o->with_match_len = true;
        } else if (ctx_arg_is(ctx, arg, "MINMATCHLEN") && arg + 1 < ctx->argc) {
            enum dc_err err = ctx_arg_i64(ctx, ++arg, &o->min_match_len);
            if (err != DC_OK) {
                return err;
            }
        } else {
            return DC_ESYNTAX;
        }
    }
    if (o->idx && o->len) {
        return dc_fail(DC_EGENERIC,
                       "If you want both the length and indexes, please just use IDX.");
    }
    return DC_OK;
}

static bool is_long_enough(const struct lcs_opts *o, const struct lcs_range *r) {
    return (int64_t)(r->a_to - r->a_from + 1) >= o->min_match_len;
}

static void reply_pair(struct reply *r, size_t from, size_t to) {
    reply_array(r, 2);
    reply_int(r, (int64_t)from);
    reply_int(r, (int64_t)to);
}

static void reply_idx(struct reply *r, const struct lcs *l, const struct lcs_opts *o,
                      const struct lcs_range *ranges, size_t count) {
    int64_t shown = 0;
    for (size_t i = 0; i < count; i++) {
        shown += is_long_enough(o, &ranges[i]);
    }
    reply_map(r, 2);
    reply_bulk_str(r, "matches");
    reply_array(r, shown);
    for (size_t i = 0; i < count; i++) {
        if (!is_long_enough(o, &ranges[i])) {
            continue;
        }
        reply_array(r, o->with_match_len ? 3 : 2);
        reply_pair(r, ranges[i].a_from, ranges[i].a_to);
        reply_pair(r, ranges[i].b_from, ranges[i].b_to);
        if (o->with_match_len) {
            reply_int(r, (int64_t)(ranges[i].a_to - ranges[i].a_from + 1));
        }
    }
    reply_bulk_str(r, "len");
    reply_int(r, (int64_t)l->len);
}

static void reply_string(struct reply *r, const struct lcs *l, const struct lcs_range *ranges,
                         size_t count) {
    reply_bulk_begin(r, l->len);
    while (count-- > 0) { /* they were found from the last to the first */
        buf_append(r->out, l->a.ptr + ranges[count].a_from,
                   ranges[count].a_to - ranges[count].a_from + 1);
    }
    reply_bulk_end(r);
}

static void reply_lcs(struct cmd_ctx *ctx, const struct lcs *l, const struct lcs_opts *o) {
    if (o->len) {
        reply_int(ctx->reply, (int64_t)l->len);
        return;
    }
    struct lcs_range *ranges = ctx_alloc(ctx, l->len * sizeof(*ranges));
    size_t count = lcs_ranges(l, ranges);
    if (o->idx) {
        reply_idx(ctx->reply, l, o, ranges, count);
    } else {
        reply_string(ctx->reply, l, ranges, count);
    }
}

/* Refuses what would take Redis more memory than it allows itself: we need less, but time has to end as well. */
static enum dc_err check_size(const struct cmd_ctx *ctx, struct bytes a, struct bytes b) {
    uint64_t table = (uint64_t)(a.len + 1) * (b.len + 1) * sizeof(uint32_t);
    if (table > str_len_max(ctx)) {
        return dc_fail(DC_EGENERIC, "Insufficient memory, transient memory for LCS exceeds "
                                    "proto-max-bulk-len");
    }
    return DC_OK;
}

enum dc_err cmd_lcs(struct cmd_ctx *ctx) {
    char scratch_a[NUM_I64_TEXT_MAX], scratch_b[NUM_I64_TEXT_MAX];
    struct entry *entry_a = ctx_read(ctx, 0), *entry_b = ctx_read(ctx, 1);
    struct lcs_opts o;
    struct lcs l;
    if (str_check(entry_a) != DC_OK || str_check(entry_b) != DC_OK) {
        return dc_fail(DC_EGENERIC, "The specified keys must contain string values");
    }
    struct bytes a = ctx_entry_bytes(entry_a, scratch_a);
    struct bytes b = ctx_entry_bytes(entry_b, scratch_b);
    enum dc_err err = opts_parse(ctx, &o);
    if (err == DC_OK) {
        err = check_size(ctx, a, b);
    }
    if (err != DC_OK) {
        return err;
    }
    if (lcs_init(&l, a, b, !o.len) != DC_OK) {
        return dc_fail(DC_EGENERIC,
                       "Insufficient memory, failed allocating transient memory for LCS");
    }
    reply_lcs(ctx, &l, &o);
    lcs_fini(&l);
    return DC_OK;
}
