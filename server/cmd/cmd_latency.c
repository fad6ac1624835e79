/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/info.h"
#include "server/cmd/latency.h"
#include "server/cmd/node.h"

#include <inttypes.h>
#include <stdio.h>

/* --- HISTOGRAM --------------------------------------------------------------------------------------------------- */

/* Redis's histograms have steps of two from 1024 ns on, two digits exact: step k ends just below 2^(10+k) ns and a
 * 128th. */
enum { HISTOGRAM_STEPS = 30 };

static int64_t step_end_us(uint32_t k) {
    uint64_t ns = (uint64_t)1024 << k;
    return (int64_t)((ns + (ns >> 7) - 1) / 1000);
}

/* The step that holds everything of a bucket, by the bucket's upper end. */
static uint32_t step_of_bucket(uint32_t bucket) {
    uint64_t end_ns = time_ticks_to_ns((uint64_t)2 << bucket);
    uint32_t k = 0;
    while (k < HISTOGRAM_STEPS - 1 && end_ns > (uint64_t)1024 << k) {
        k++;
    }
    return k;
}

static void reply_histogram(struct reply *r, const char *name, const struct info_command *sum) {
    uint64_t steps[HISTOGRAM_STEPS] = {0};
    int64_t used = 0;
    for (uint32_t i = 0; i < LATENCY_BUCKETS; i++) {
        steps[step_of_bucket(i)] += sum->histogram[i];
    }
    for (uint32_t k = 0; k < HISTOGRAM_STEPS; k++) {
        used += steps[k] > 0;
    }
    reply_bulk_str(r, name);
    reply_map(r, 2);
    reply_bulk_str(r, "calls");
    reply_int(r, (int64_t)sum->calls);
    reply_bulk_str(r, "histogram_usec");
    reply_map(r, used);
    uint64_t total = 0;
    for (uint32_t k = 0; k < HISTOGRAM_STEPS; k++) {
        if (steps[k] > 0) {
            total += steps[k];
            reply_int(r, step_end_us(k));
            reply_int(r, (int64_t)total);
        }
    }
}

/* The commands whose histograms are asked for: all, or those named, a container standing for its subcommands. */
static bool is_wanted(const struct cmd_ctx *ctx, const struct cmd *cmd) {
    if (ctx->argc == 2) {
        return true;
    }
    for (uint32_t i = 2; i < ctx->argc; i++) {
        const struct cmd *named = cmd_by_name(ctx->argv[i]);
        if (named != NULL && (named == cmd || named->id == cmd->parent)) {
            return true;
        }
    }
    return false;
}

enum dc_err cmd_latency_histogram(struct cmd_ctx *ctx) {
    struct info_command *sums = ctx_alloc(ctx, CMD_COUNT * sizeof(*sums));
    int64_t count = 0;
    for (uint32_t id = 0; id < CMD_COUNT; id++) {
        sums[id].calls = 0;
        if (is_wanted(ctx, &cmd_table[id])) {
            info_command(ctx->node, &cmd_table[id], &sums[id]);
        }
        count += sums[id].calls > 0;
    }
    reply_map(ctx->reply, count);
    for (uint32_t id = 0; id < CMD_COUNT; id++) {
        if (sums[id].calls > 0) {
            reply_histogram(ctx->reply, cmd_table[id].name, &sums[id]);
        }
    }
    return DC_OK;
}

/* --- LATEST, HISTORY, RESET -------------------------------------------------------------------------------------- */

enum dc_err cmd_latency_latest(struct cmd_ctx *ctx) {
    struct latency_event *e = ctx_alloc(ctx, LATENCY_EVENTS_MAX * sizeof(*e));
    uint32_t count = 0;
    while (count < LATENCY_EVENTS_MAX && latency_at(ctx->node->latency, count, &e[count])) {
        count++;
    }
    reply_array(ctx->reply, count);
    for (uint32_t i = 0; i < count; i++) {
        const struct latency_spike *last = &e[i].spikes[e[i].count - 1];
        reply_array(ctx->reply, 4);
        reply_bulk_str(ctx->reply, e[i].name);
        reply_int(ctx->reply, last->time_s);
        reply_int(ctx->reply, last->ms);
        reply_int(ctx->reply, e[i].max_ms);
    }
    return DC_OK;
}

enum dc_err cmd_latency_history(struct cmd_ctx *ctx) {
    struct latency_event e = {.count = 0};
    (void)latency_find(ctx->node->latency, ctx->argv[2], &e);
    reply_array(ctx->reply, e.count);
    for (uint32_t i = 0; i < e.count; i++) {
        reply_array(ctx->reply, 2);
        reply_int(ctx->reply, e.spikes[i].time_s);
        reply_int(ctx->reply, e.spikes[i].ms);
    }
    return DC_OK;
}

enum dc_err cmd_latency_reset(struct cmd_ctx *ctx) {
    uint32_t count = 0;
    if (ctx->argc == 2) {
        count = latency_reset(ctx->node->latency, bytes_of(NULL, 0));
    }
    for (uint32_t i = 2; i < ctx->argc; i++) {
        count += latency_reset(ctx->node->latency, ctx->argv[i]);
    }
    reply_int(ctx->reply, count);
    return DC_OK;
}

/* --- GRAPH ------------------------------------------------------------------------------------------------------- */

enum { GRAPH_COLUMNS = 80, GRAPH_ROWS = 4, GRAPH_LEVELS = 3, LABEL_LEN = 16 };

struct graph {
    const struct latency_event *e;
    uint32_t low_ms;
    uint32_t high_ms;
    char labels[LATENCY_HISTORY][LABEL_LEN];
};

/* How long ago a spike was, in the largest unit that fits. */
static void format_age(char to[LABEL_LEN], int64_t age_s) {
    if (age_s < 60) {
        snprintf(to, LABEL_LEN, "%ds", (int)age_s);
    } else if (age_s < 3600) {
        snprintf(to, LABEL_LEN, "%dm", (int)(age_s / 60));
    } else if (age_s < 86400) {
        snprintf(to, LABEL_LEN, "%dh", (int)(age_s / 3600));
    } else {
        snprintf(to, LABEL_LEN, "%dd", (int)(age_s / 86400 % 1000000));
    }
}

static void graph_init(struct graph *g, const struct latency_event *e, int64_t now_s) {
    g->e = e;
    g->low_ms = UINT32_MAX;
    g->high_ms = 0;
    for (uint32_t i = 0; i < e->count; i++) {
        uint32_t ms = e->spikes[i].ms;
        g->low_ms = ms < g->low_ms ? ms : g->low_ms;
        g->high_ms = ms > g->high_ms ? ms : g->high_ms;
        format_age(g->labels[i], now_s - e->spikes[i].time_s);
    }
}

/* What a column shows in a row counted from the top: its tip, the bar under it, or nothing. */
static char bar_char(const struct graph *g, uint32_t i, int row) {
    int steps = GRAPH_ROWS * GRAPH_LEVELS;
    uint32_t range = g->high_ms > g->low_ms ? g->high_ms - g->low_ms : 1;
    int step = (int)((double)(g->e->spikes[i].ms - g->low_ms) * steps / range);
    int level = (step < steps ? step : steps - 1) - (GRAPH_ROWS - row - 1) * GRAPH_LEVELS;
    return level < 0 ? ' ' : level < GRAPH_LEVELS ? "_o#"[level] : '|';
}

/* Columns from..to: the bars, an empty line, the ages written downwards. */
static void draw_columns(const struct graph *g, uint32_t from, uint32_t to, struct buf *out) {
    char line[GRAPH_COLUMNS + 1];
    size_t label_len = 0;
    for (uint32_t i = from; i < to; i++) {
        size_t len = strlen(g->labels[i]);
        label_len = len > label_len ? len : label_len;
    }
    int rows = GRAPH_ROWS + 1 + (int)label_len;
    for (int row = 0; row < rows; row++) {
        for (uint32_t i = from; i < to; i++) {
            int letter = row - GRAPH_ROWS - 1;
            bool has_letter = letter >= 0 && (size_t)letter < strlen(g->labels[i]);
            line[i - from] = row < GRAPH_ROWS ? bar_char(g, i, row)
                             : has_letter     ? g->labels[i][letter]
                                              : ' ';
        }
        line[to - from] = '\n';
        buf_append(out, line, to - from + 1);
    }
}

static void draw_graph(const struct graph *g, struct buf *out) {
    buf_printf(out, "%s - high %u ms, low %u ms (all time high %u ms)\n", g->e->name, g->high_ms,
               g->low_ms, g->e->max_ms);
    for (int i = 0; i < GRAPH_COLUMNS; i++) {
        buf_append_str(out, "-");
    }
    buf_append_str(out, "\n");
    for (uint32_t from = 0; from < g->e->count; from += GRAPH_COLUMNS) {
        uint32_t left = g->e->count - from;
        buf_append_str(out, from > 0 ? "\n" : "");
        draw_columns(g, from, from + (left < GRAPH_COLUMNS ? left : GRAPH_COLUMNS), out);
    }
}

enum dc_err cmd_latency_graph(struct cmd_ctx *ctx) {
    struct latency_event *e = ctx_alloc(ctx, sizeof(*e));
    struct graph *g = ctx_alloc(ctx, sizeof(*g));
    struct buf text;
    if (!latency_find(ctx->node->latency, ctx->argv[2], e)) {
        return dc_fail(
            DC_EGENERIC, "No samples available for event '%.*s'",
            (int)(ctx->argv[2].len < ERR_TEXT_MAX / 2 ? ctx->argv[2].len : ERR_TEXT_MAX / 2),
            ctx->argv[2].ptr);
    }
    graph_init(g, e, clock_now_ms(&ctx->node->clock) / 1000);
    buf_init(&text, 0);
    draw_graph(g, &text);
    reply_verbatim(ctx->reply, buf_bytes(&text), "txt");
    buf_fini(&text);
    return DC_OK;
}

/* --- DOCTOR ------------------------------------------------------------------------------------------------------ */

static const char *advice_of(const char *event) {
    if (strcmp(event, "eviction-cycle") == 0) {
        return "memory is short: raise maxmemory, or store less";
    }
    if (strcmp(event, "fast-command") == 0) {
        return "commands that take constant time were slow: look for a busy machine or large "
               "values";
    }
    return "see SLOWLOG GET for the commands";
}

static void report_event(const struct latency_event *e, uint32_t number, struct buf *out) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < e->count; i++) {
        sum += e->spikes[i].ms;
    }
    int64_t span_s = e->spikes[e->count - 1].time_s - e->spikes[0].time_s;
    buf_printf(
        out,
        "%u. %s: %u spikes in %" PRId64 " s, mean %" PRIu64 " ms, worst since reset %u ms; %s.\n",
        number, e->name, e->count, span_s + 1, sum / e->count, e->max_ms, advice_of(e->name));
}

enum dc_err cmd_latency_doctor(struct cmd_ctx *ctx) {
    struct latency_event *e = ctx_alloc(ctx, sizeof(*e));
    uint32_t count = 0;
    struct buf text;
    buf_init(&text, 0);
    if (conf_get(ctx->node->conf, latency_monitor_threshold) == 0) {
        buf_append_str(&text, "Latency isn't monitored. CONFIG SET latency-monitor-threshold "
                              "<milliseconds> turns it on.\n");
    } else {
        while (latency_at(ctx->node->latency, count, e)) {
            report_event(e, ++count, &text);
        }
        if (count == 0) {
            buf_append_str(&text, "No latency spike was seen.\n");
        }
    }
    reply_verbatim(ctx->reply, buf_bytes(&text), "txt");
    buf_fini(&text);
    return DC_OK;
}

enum dc_err cmd_latency_help(struct cmd_ctx *ctx) {
    static const char *const lines[] = {
        "DOCTOR",
        "    Return a human readable latency analysis report.",
        "GRAPH <event>",
        "    Return an ASCII latency graph for the <event> class.",
        "HISTORY <event>",
        "    Return time-latency samples for the <event> class.",
        "LATEST",
        "    Return the latest latency samples for all events.",
        "RESET [<event> ...]",
        "    Reset latency data of one or more <event> classes.",
        "    (default: reset all data for all event classes)",
        "HISTOGRAM [COMMAND ...]",
        ("    Return a cumulative distribution of latencies in the format of a histogram for the "
         "specified command names."),
        "    If no commands are specified then all histograms are replied.",
        NULL,
    };
    ctx_reply_help(ctx, lines);
    return DC_OK;
}
