/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Commands that walk through the keys: KEYS, SCAN, RANDOMKEY, and DBSIZE, which only adds up.
 *
 * A walk goes in small steps, each of which holds one slot lock at a time; between two steps nothing is held, so a
 * walk through all keys keeps nobody waiting, and not even a slot with millions of keys is held for long. The names are
 * copied under the locks and answered afterwards.
 *
 * The cursor of SCAN is the position where the next step begins, without its CURSOR_SHIFT low bits: 53 bits remain, what
 * clients can keep that count in doubles. Steps end at borders of lines, whose low bits are clear as long as a slot has
 * fewer than some 10^9 keys. Beyond that the cursor is rounded down, so that some keys come twice and none is lost.
 *
 * While the node warms up SCAN has the range of its cursor loaded, before any lock is taken, and its step ends where a range begins
 * that isn't there: no step loads more than one, and none passes over one that can't be loaded.
 */
#include "server/base/buf.h"
#include "server/base/codec.h"
#include "server/base/glob.h"
#include "server/cmd/client.h"
#include "server/cmd/ctx.h"
#include "server/cmd/entry_names.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"

#include <ctype.h>

enum { WALK_STEP = 256, SCAN_COUNT_DEFAULT = 10, CURSOR_SHIFT = 11, DRAW_LOADS_MAX = 8 };

/* --- names found ------------------------------------------------------------------------------------- */

/* What is looked for, and what was found: each name with its length in front. */
struct harvest {
    struct bytes pattern; /* ptr NULL: any */
    struct bytes type;    /* the same */
    struct buf names;
    int64_t count;
};

static void harvest_init(struct harvest *h) {
    *h = (struct harvest){.count = 0};
    buf_init(&h->names, 0);
}

/* "*" alone is no pattern: it doesn't match the empty name, but Redis lists all keys for it. */
static struct bytes pattern_of(struct bytes arg) {
    return bytes_equal(arg, BYTES("*")) ? bytes_of(NULL, 0) : arg;
}

static void gather(void *arg, struct keyspace *ks, struct entry *e) {
    struct harvest *h = arg;
    struct bytes name = entry_key(e);
    uint32_t len = (uint32_t)name.len;
    (void)ks;
    if ((h->type.ptr != NULL && !bytes_is(h->type, entry_type_name(e))) ||
        (h->pattern.ptr != NULL && !glob_match(h->pattern, name, false))) {
        return;
    }
    buf_append(&h->names, &len, sizeof(len));
    buf_append_bytes(&h->names, name);
    h->count++;
}

/* Answers the names and ends the harvest. Errors: DC_ENOMEM, DC_ELIMIT: not all of them were kept. */
static enum dc_err reply_harvest(struct cmd_ctx *ctx, struct harvest *h) {
    bool whole = !h->names.failed;
    const char *at = h->names.ptr;
    reply_array(ctx->reply, h->count);
    for (int64_t i = 0; i < h->count && whole; i++) {
        struct bytes name = bytes_of(at + sizeof(uint32_t), get_u32(at));
        reply_bulk(ctx->reply, name);
        at = name.ptr + name.len;
    }
    buf_fini(&h->names);
    return whole ? DC_OK : DC_ENOMEM;
}

static struct store_scan scan_of(struct cmd_ctx *ctx, struct harvest *h) {
    return (struct store_scan){.ks = ctx->ks,
                               .slot_end = SLOT_COUNT,
                               .locked = ctx->all_locked,
                               .now_ms = ctx->now_ms,
                               .visit = gather,
                               .arg = h};
}

static uint32_t cursor_slot(uint64_t cursor) {
    return pos_slot((struct pos){cursor});
}

/* Visits at least 'want' entries, or all that there are. */
static void walk(const struct store_scan *sc, uint64_t *cursor, uint64_t want) {
    const struct harvest *h = sc->arg;
    do {
        uint32_t step = want < WALK_STEP ? (uint32_t)want : WALK_STEP;
        store_scan(sc, cursor, step);
        want -= step;
    } while (want > 0 && *cursor != 0 && cursor_slot(*cursor) < sc->slot_end && !h->names.failed);
}

/* --- commands ---------------------------------------------------------------------------------------- */

enum dc_err cmd_keys(struct cmd_ctx *ctx) {
    struct harvest h;
    struct store_scan sc = scan_of(ctx, &h);
    uint64_t cursor = 0;
    harvest_init(&h);
    h.pattern = pattern_of(ctx->argv[1]);
    walk(&sc, &cursor, UINT64_MAX);
    return reply_harvest(ctx, &h);
}

/* Reads a cursor as strtoul() does: a sign may stand before it, nothing at all is 0. One that we didn't give may have more bits:
 * they are dropped. */
static bool parse_cursor(struct bytes text, uint64_t *out) {
    size_t len = strnlen(text.ptr, text.len);
    size_t i = len > 0 && (text.ptr[0] == '-' || text.ptr[0] == '+');
    uint64_t value = 0;
    if (i > 0 && i == len) {
        return false;
    }
    for (; i < len; i++) {
        if (!isdigit((unsigned char)text.ptr[i]) || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text.ptr[i] - '0'), &value)) {
            return false;
        }
    }
    *out = (len > 0 && text.ptr[0] == '-' ? -value : value) << CURSOR_SHIFT;
    return true;
}

static enum dc_err parse_scan(struct cmd_ctx *ctx, struct harvest *h, int64_t *count) {
    *count = SCAN_COUNT_DEFAULT;
    for (uint32_t i = 2; i < ctx->argc; i += 2) {
        if (i + 1 >= ctx->argc) {
            return DC_ESYNTAX;
        }
        if (ctx_arg_is(ctx, i, "count")) {
            enum dc_err err = ctx_arg_i64(ctx, i + 1, count);
            if (err != DC_OK) {
                return err;
            }
            if (*count < 1) {
                return DC_ESYNTAX;
            }
        } else if (ctx_arg_is(ctx, i, "match")) {
            h->pattern = pattern_of(ctx->argv[i + 1]);
        } else if (ctx_arg_is(ctx, i, "type")) {
            h->type = ctx->argv[i + 1];
        } else {
            return DC_ESYNTAX;
        }
    }
    return DC_OK;
}

enum dc_err scan_load(struct cmd_worker *w, const struct bytes *argv) {
    uint64_t cursor;
    if (!parse_cursor(argv[1], &cursor)) {
        return DC_OK; /* the handler says so */
    }
    return warm_touch(w->node->warm, &w->store, cursor_slot(cursor));
}

/* The range of the cursor has been loaded (scan_load). The step ends where one begins that isn't. */
enum dc_err cmd_scan(struct cmd_ctx *ctx) {
    struct harvest h;
    struct store_scan sc = scan_of(ctx, &h);
    uint64_t start;
    int64_t count;
    harvest_init(&h);
    if (!parse_cursor(ctx->argv[1], &start)) {
        return dc_fail(DC_EGENERIC, "invalid cursor");
    }
    enum dc_err err = parse_scan(ctx, &h, &count);
    if (err != DC_OK) {
        return err;
    }
    uint64_t cursor = start;
    sc.slot_end = warm_ready_end(ctx->node->warm, cursor_slot(cursor));
    do {
        walk(&sc, &cursor, (uint64_t)count);
    } while (cursor != 0 && cursor >> CURSOR_SHIFT ==
                                start >> CURSOR_SHIFT); /* rounding down must not stand still */
    char text[NUM_I64_TEXT_MAX];
    reply_array(ctx->reply, 2);
    reply_bulk(ctx->reply, bytes_of(text, num_format_u64(text, cursor >> CURSOR_SHIFT)));
    return reply_harvest(ctx, &h);
}

/* While ranges are cold: a key of the range that a random position lies in, which is loaded, or of those behind it; when a few of
 * them have none, any that is there already. */
static bool draw(struct cmd_worker *w, const struct store_scan *sc) {
    struct store_scan part = *sc;
    uint32_t slot = (uint32_t)rng_below(&w->store.rng, SLOT_COUNT);
    for (uint32_t i = 0; i < DRAW_LOADS_MAX; i++) {
        bool lost = warm_touch(w->node->warm, &w->store, slot) != DC_OK;
        part.slot_end = lost ? slot + 1 : warm_ready_end(w->node->warm, slot);
        if (!lost && store_random_from(&w->store, &part, slot)) {
            return true;
        }
        slot = part.slot_end % SLOT_COUNT;
    }
    return store_random(&w->store, sc);
}

static void ignore(void *arg, struct keyspace *ks, struct entry *e) {
    (void)arg, (void)ks, (void)e;
}

bool randomkey_is_pending(struct cmd_worker *w, const struct client *c) {
    struct store_scan sc = {
        .ks = c->ks, .slot_end = SLOT_COUNT, .now_ms = w->now_us / 1000, .visit = ignore};
    return client_is_authenticated(c) && !store_random(&w->store, &sc) && !draw(w, &sc);
}

/* There is none: not in what is loaded, and that has to be all. */
static enum dc_err reply_no_key(struct cmd_ctx *ctx) {
    struct warm *warm = ctx->node->warm;
    if (!warm_is_settled(warm)) {
        return dc_fail(DC_EGENERIC, "the keys that were loaded are gone again: try again");
    }
    if (!warm_is_over(warm)) {
        return warm_touch(warm, &ctx->worker->store, warm_ready_end(warm, 0)); /* what is lost */
    }
    reply_null(ctx->reply);
    return DC_OK;
}

/* While ranges are cold it comes here when there is a key (cmd_is_held), and never inside EXEC. */
enum dc_err cmd_randomkey(struct cmd_ctx *ctx) {
    struct harvest h;
    struct store_scan sc = scan_of(ctx, &h);
    harvest_init(&h);
    bool all = warm_is_settled(ctx->node->warm);
    if (all ? !store_random(&ctx->worker->store, &sc) : !draw(ctx->worker, &sc)) {
        return reply_no_key(ctx);
    }
    bool whole = !h.names.failed;
    if (whole) {
        reply_bulk(ctx->reply, bytes_of(h.names.ptr + sizeof(uint32_t), get_u32(h.names.ptr)));
    }
    buf_fini(&h.names);
    return whole ? DC_OK : DC_ENOMEM;
}

enum dc_err cmd_dbsize(struct cmd_ctx *ctx) {
    reply_int(ctx->reply, (int64_t)keyspace_count(ctx->ks));
    return DC_OK;
}
