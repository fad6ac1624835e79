/* SPDX-License-Identifier: BSD-3-Clause */
/* OBJECT: a look inside an entry that leaves no trace on it. */
#include "server/base/metric.h"
#include "server/cmd/client.h"
#include "server/cmd/ctx.h"
#include "server/cmd/entry_names.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"

/* Redis shares one object of each of these among all keys, and says so. */
enum { SHARED_INTEGERS = 10000 };

/* Counts like a read, but a key that isn't there is no event. NULL: null was answered. */
static const struct entry *look(struct cmd_ctx *ctx) {
    const struct entry *e = ctx_find(ctx, 0);
    metric_add(&ctx->worker->metrics, e != NULL ? METRIC_HITS : METRIC_MISSES, 1);
    if (e == NULL) {
        reply_null(ctx->reply);
    }
    return e;
}

static enum evict_policy policy_of(struct cmd_ctx *ctx) {
    return (enum evict_policy)conf_get(ctx->node->conf, maxmemory_policy);
}

static bool is_lfu(enum evict_policy policy) {
    return policy == EVICT_ALLKEYS_LFU || policy == EVICT_VOLATILE_LFU;
}

enum dc_err cmd_object_encoding(struct cmd_ctx *ctx) {
    const struct entry *e = look(ctx);
    if (e != NULL) {
        reply_bulk_str(ctx->reply, entry_encoding_name(e));
    }
    return DC_OK;
}

enum dc_err cmd_object_refcount(struct cmd_ctx *ctx) {
    const struct entry *e = look(ctx);
    if (e != NULL) {
        struct value v;
        entry_value(e, &v);
        bool shared = v.kind == VALUE_INT && v.num >= 0 && v.num < SHARED_INTEGERS;
        reply_int(ctx->reply, shared ? INT32_MAX : 1);
    }
    return DC_OK;
}

enum dc_err cmd_object_idletime(struct cmd_ctx *ctx) {
    const struct entry *e = look(ctx);
    if (e == NULL) {
        return DC_OK;
    }
    if (is_lfu(policy_of(ctx))) {
        return dc_fail(DC_EGENERIC, "An LFU maxmemory policy is selected, idle time not tracked. "
                                    "Please note that when switching between policies at runtime "
                                    "LRU and LFU data will take some time to adjust.");
    }
    reply_int(ctx->reply, store_idle_ms(ctx->node->store, e, ctx->now_ms) / 1000);
    return DC_OK;
}

enum dc_err cmd_object_freq(struct cmd_ctx *ctx) {
    const struct entry *e = look(ctx);
    if (e == NULL) {
        return DC_OK;
    }
    enum evict_policy policy = policy_of(ctx);
    if (!is_lfu(policy) && policy != EVICT_ADAPTIVE) { /* which goes by both */
        return dc_fail(DC_EGENERIC, "An LFU maxmemory policy is not selected, access frequency not "
                                    "tracked. Please note that when switching between policies at "
                                    "runtime LRU and LFU data will take some time to adjust.");
    }
    reply_int(ctx->reply, e->freq);
    return DC_OK;
}

enum dc_err cmd_object_help(struct cmd_ctx *ctx) {
    static const char *const lines[] = {
        "ENCODING <key>",
        "    Return the kind of internal representation used in order to store the value",
        "    associated with a <key>.",
        "FREQ <key>",
        "    Return the access frequency index of the <key>. The returned integer is",
        "    proportional to the logarithm of the recent access frequency of the key.",
        "IDLETIME <key>",
        "    Return the idle time of the <key>, that is the approximated number of",
        "    seconds elapsed since the last access to the key.",
        "REFCOUNT <key>",
        "    Return the number of references of the value associated with the specified",
        "    <key>.",
        NULL,
    };
    ctx_reply_help(ctx, lines);
    return DC_OK;
}
