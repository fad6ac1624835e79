/* SPDX-License-Identifier: BSD-3-Clause */
/* MEMORY: what a key takes, where the memory of the process goes, and what to think of it. */
#include "server/base/buf.h"
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "server/cmd/client.h"
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"

#include <stdio.h>

/* --- USAGE ------------------------------------------------------------------------------------------- */

enum { TABLE_BYTES_PER_KEY = 10 }; /* a word of eight bytes, at the usual load of a page */

static size_t entry_usage(const struct entry *e) {
    struct value v;
    entry_value(e, &v);
    size_t blob = v.kind == VALUE_BLOB ? mem_good_size(sizeof(*v.blob) + v.blob->cap) : 0;
    return mem_good_size(entry_size(e)) + blob + TABLE_BYTES_PER_KEY;
}

/* SAMPLES is for values of many elements: checked, and of no use yet. */
static enum dc_err check_samples(struct cmd_ctx *ctx) {
    for (uint32_t i = 3; i < ctx->argc; i += 2) {
        int64_t samples;
        if (!ctx_arg_is(ctx, i, "samples") || i + 1 >= ctx->argc) {
            return DC_ESYNTAX;
        }
        enum dc_err err = ctx_arg_i64(ctx, i + 1, &samples);
        if (err != DC_OK || samples < 0) {
            return err != DC_OK ? err : DC_ESYNTAX;
        }
    }
    return DC_OK;
}

enum dc_err cmd_memory_usage(struct cmd_ctx *ctx) {
    enum dc_err err = check_samples(ctx);
    if (err != DC_OK) {
        return err;
    }
    const struct entry *e = ctx_find(ctx, 0);
    if (e == NULL) {
        reply_null(ctx->reply);
    } else {
        reply_int(ctx->reply, (int64_t)entry_usage(e));
    }
    return DC_OK;
}

/* --- STATS ------------------------------------------------------------------------------------------- */

/* Everything is read once, so the rows agree with each other. */
struct memory_view {
    struct mem_stats now;
    uint64_t peak;
    uint64_t startup;
    uint64_t clients; /* connections and what they have not yet sent or read whole */
    uint64_t client_count;
    uint64_t keys;
    uint64_t keyspace_keys[KEYSPACE_MAX];
    uint32_t keyspaces; /* that hold keys */
    uint64_t overhead;  /* everything but keys and values */
};

static void view_clients(struct node *n, struct memory_view *v) {
    lock_acquire(&n->clients_lock);
    for (const struct client *c = n->clients; c != NULL; c = c->next) {
        v->clients += sizeof(*c);
        v->clients += atomic_load_explicit(&c->seen_input, memory_order_relaxed);
        v->clients += atomic_load_explicit(&c->seen_output, memory_order_relaxed);
        v->client_count++;
    }
    lock_release(&n->clients_lock);
}

static void view_take(struct node *n, struct memory_view *v) {
    memset(v, 0, sizeof(*v));
    mem_stats_read(&v->now);
    v->peak = atomic_load_explicit(&n->memory.peak, memory_order_relaxed);
    v->peak = v->peak > v->now.allocated ? v->peak : v->now.allocated;
    v->startup = atomic_load_explicit(&n->memory.startup, memory_order_relaxed);
    view_clients(n, v);
    for (uint32_t i = 0; i < store_keyspace_count(n->store); i++) {
        v->keyspace_keys[i] = keyspace_count(store_keyspace(n->store, i));
        v->keyspaces += v->keyspace_keys[i] > 0;
        v->keys += v->keyspace_keys[i];
    }
    v->overhead = v->startup + v->clients + v->keys * TABLE_BYTES_PER_KEY;
}

static uint64_t minus(uint64_t a, uint64_t b) {
    return a > b ? a - b : 0;
}

static double ratio(uint64_t a, uint64_t b) {
    return b == 0 ? 0 : (double)a / (double)b;
}

static void reply_count(struct reply *r, const char *name, uint64_t value) {
    reply_bulk_str(r, name);
    reply_int(r, (int64_t)value);
}

static void reply_ratio(struct reply *r, const char *name, uint64_t a, uint64_t b, double scale) {
    reply_bulk_str(r, name);
    reply_double(r, scale * ratio(a, b));
}

/* Two rows: what of 'a' is more than 'b', as a ratio and in bytes. */
static void reply_excess(struct reply *r, const char *ratio_name, const char *bytes_name,
                         uint64_t a, uint64_t b) {
    reply_ratio(r, ratio_name, a, b, 1);
    reply_bulk_str(r, bytes_name);
    reply_int(r, (int64_t)(a - b));
}

static void reply_keyspaces(struct reply *r, const struct memory_view *v) {
    for (uint32_t i = 0; i < KEYSPACE_MAX; i++) {
        char name[24];
        if (v->keyspace_keys[i] == 0) {
            continue;
        }
        snprintf(name, sizeof(name), "db.%u", (unsigned)i);
        reply_bulk_str(r, name);
        reply_map(r, 3);
        reply_count(r, "overhead.hashtable.main", v->keyspace_keys[i] * TABLE_BYTES_PER_KEY);
        reply_count(r, "overhead.hashtable.expires", 0);
        reply_count(r, "overhead.hashtable.slot-to-keys", 0);
    }
}

static void reply_totals(struct reply *r, const struct memory_view *v) {
    uint64_t dataset = minus(v->now.allocated, v->overhead);
    uint64_t net = minus(v->now.allocated, v->startup);
    reply_count(r, "overhead.total", v->overhead);
    reply_count(r, "keys.count", v->keys);
    reply_count(r, "keys.bytes-per-key", v->keys == 0 ? 0 : net / v->keys);
    reply_count(r, "dataset.bytes", dataset);
    reply_ratio(r, "dataset.percentage", dataset, net, 100);
    reply_ratio(r, "peak.percentage", v->now.allocated, v->peak, 100);
    reply_count(r, "allocator.allocated", v->now.allocated);
    reply_count(r, "allocator.active", v->now.active);
    reply_count(r, "allocator.resident", v->now.resident);
    reply_excess(r, "allocator-fragmentation.ratio", "allocator-fragmentation.bytes", v->now.active,
                 v->now.allocated);
    reply_excess(r, "allocator-rss.ratio", "allocator-rss.bytes", v->now.resident, v->now.active);
    reply_excess(r, "rss-overhead.ratio", "rss-overhead.bytes", v->now.process_rss,
                 v->now.resident);
    reply_excess(r, "fragmentation", "fragmentation.bytes", v->now.process_rss, v->now.allocated);
}

/* Redis's rows; those of parts that don't exist here are 0. */
enum dc_err cmd_memory_stats(struct cmd_ctx *ctx) {
    enum { ROWS_BEFORE = 10, ROWS_AFTER = 17 };
    struct reply *r = ctx->reply;
    struct memory_view v;
    view_take(ctx->node, &v);
    reply_map(r, ROWS_BEFORE + v.keyspaces + ROWS_AFTER);
    reply_count(r, "peak.allocated", v.peak);
    reply_count(r, "total.allocated", v.now.allocated);
    reply_count(r, "startup.allocated", v.startup);
    reply_count(r, "replication.backlog", 0);
    reply_count(r, "clients.slaves", 0);
    reply_count(r, "clients.normal", v.clients);
    reply_count(r, "cluster.links", 0);
    reply_count(r, "aof.buffer", 0);
    reply_count(r, "lua.caches", 0);
    reply_count(r, "functions.caches", 0);
    reply_keyspaces(r, &v);
    reply_totals(r, &v);
    return DC_OK;
}

/* --- DOCTOR ------------------------------------------------------------------------------------------ */

enum {
    DOCTOR_LEN_MIN = 5 * 1024 * 1024,     /* below, ratios say nothing */
    DOCTOR_EXCESS_MIN = 10 * 1024 * 1024, /* nobody minds less */
    DOCTOR_CLIENT_LEN = 200 * 1024
};

static bool is_excess(uint64_t a, uint64_t b, double limit) {
    return minus(a, b) > DOCTOR_EXCESS_MIN && ratio(a, b) > limit;
}

/* Writes what is wrong; nothing when nothing is. */
static void diagnose(const struct memory_view *v, struct buf *out) {
    if (is_excess(v->peak, v->now.allocated, 1.5)) {
        buf_append_str(out,
                       " * Peak memory: at some time the node held more than 1.5 times what it "
                       "holds now. What it gave up may still be resident. MEMORY PURGE gives "
                       "unused pages back.\n\n");
    }
    if (is_excess(v->now.active, v->now.allocated, 1.1)) {
        buf_append_str(out, " * Fragmentation: the pages in use hold over 10% of free space "
                            "between entries, as it is after many entries of one size went. New "
                            "entries of that size fill it.\n\n");
    }
    if (is_excess(v->now.resident, v->now.active, 1.1)) {
        buf_append_str(out,
                       " * Unused pages: the allocator keeps over 10% more pages than it uses. "
                       "It gives them back with time, MEMORY PURGE does at once.\n\n");
    }
    if (is_excess(v->now.process_rss, v->now.resident, 1.1)) {
        buf_append_str(out, " * Memory outside of the allocator: the process is over 10% larger "
                            "than what the allocator accounts for.\n\n");
    }
    if (v->client_count > 0 && v->clients / v->client_count > DOCTOR_CLIENT_LEN) {
        buf_append_str(out, " * Client buffers: connections hold over 200 kB on average. CLIENT "
                            "LIST shows which ones don't read what they asked for.\n\n");
    }
}

enum dc_err cmd_memory_doctor(struct cmd_ctx *ctx) {
    struct memory_view v;
    struct buf text;
    view_take(ctx->node, &v);
    buf_init(&text, 0);
    if (minus(v.now.allocated, v.startup) < DOCTOR_LEN_MIN) {
        buf_append_str(&text, "Hi Sam, this instance is empty or is using very little memory, my "
                              "issues detector can't be used in these conditions. Please, leave "
                              "for your mission on Earth and fill it with some data. The new Sam "
                              "and I will be back to our programming as soon as I finished "
                              "rebooting.\n");
    } else {
        diagnose(&v, &text);
        if (text.len == 0) {
            buf_append_str(&text, "Hi Sam, I can't find any memory issue in your instance. I can "
                                  "only account for what occurs on this base.\n");
        }
    }
    reply_verbatim(ctx->reply, buf_bytes(&text), "txt");
    buf_fini(&text);
    return DC_OK;
}

/* --- the allocator ----------------------------------------------------------------------------------- */

enum dc_err cmd_memory_purge(struct cmd_ctx *ctx) {
    mem_purge();
    reply_ok(ctx->reply);
    return DC_OK;
}

static void append_report(void *arg, const char *text) {
    buf_append_str(arg, text);
}

enum dc_err cmd_memory_malloc_stats(struct cmd_ctx *ctx) {
    struct buf text;
    buf_init(&text, 0);
    if (mem_report(append_report, &text)) {
        reply_verbatim(ctx->reply, buf_bytes(&text), "txt");
    } else {
        reply_bulk_str(ctx->reply, "Stats not supported for the current allocator");
    }
    buf_fini(&text);
    return DC_OK;
}

enum dc_err cmd_memory_help(struct cmd_ctx *ctx) {
    static const char *const lines[] = {
        "DOCTOR",
        "    Return memory problems reports.",
        "MALLOC-STATS",
        "    Return internal statistics report from the memory allocator.",
        "PURGE",
        "    Attempt to purge dirty pages for reclamation by the allocator.",
        "STATS",
        "    Return information about the memory usage of the server.",
        "USAGE <key> [SAMPLES <count>]",
        "    Return memory in bytes used by <key> and its value. Nested values are",
        "    sampled up to <count> times (default: 5, 0 means sample all).",
        NULL,
    };
    ctx_reply_help(ctx, lines);
    return DC_OK;
}
