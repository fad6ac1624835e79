/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/info.h"

#include "server/base/lock.h"
#include "server/base/mem.h"
#include "server/cmd/cmd.h"
#include "server/cmd/node.h"

#include <stdlib.h>
#include <string.h>

enum { RATE_SAMPLES = 16 };

/* A counter's growth per second in the last samples. */
struct rate {
    enum metric_id metric;
    uint64_t last;
    uint64_t samples[RATE_SAMPLES];
};

struct info {
    /* under lock */
    struct lock lock;
    int64_t sampled_us; /* monotonic */
    uint32_t at;        /* the next sample */
    struct rate commands, input, output;
    struct info_command base[CMD_COUNT]; /* the sums at the last reset */
    uint32_t error_base_count;
    struct info_error_sum error_base[INFO_ERRORS_MAX];
    uint64_t sweep_us, sweep_rounds, sweep_cut_short;
    uint64_t expired_this_round, expired_last_round;
};

struct info *info_create(void) {
    struct info *info = mem_must_zalloc(sizeof(*info));
    lock_init(&info->lock, LOCK_RANK_INFO);
    info->commands.metric = METRIC_COMMANDS;
    info->input.metric = METRIC_INPUT_BYTES;
    info->output.metric = METRIC_OUTPUT_BYTES;
    return info;
}

void info_destroy(struct info *info) {
    if (info != NULL) {
        lock_fini(&info->lock);
        mem_free(info);
    }
}

/* --- errors ------------------------------------------------------------------------------------------------------ */

/* One row more, when there is room; its prefix is whole before others see the row. */
static struct info_error *add_row(struct info_errors *e, struct bytes prefix) {
    uint32_t used = atomic_load_explicit(&e->used, memory_order_relaxed);
    if (used == INFO_ERRORS_MAX || prefix.len >= INFO_PREFIX_MAX) {
        return NULL;
    }
    struct info_error *row = &e->rows[used];
    memcpy(row->prefix, prefix.ptr, prefix.len);
    row->prefix[prefix.len] = '\0';
    /* pairs with the acquire in info_error_sums */
    atomic_store_explicit(&e->used, used + 1, memory_order_release);
    return row;
}

void info_count_error(struct cmd_worker *w, struct bytes prefix) {
    struct info_errors *e = &w->errors;
    struct info_error *row = NULL;
    uint32_t used = atomic_load_explicit(&e->used, memory_order_relaxed);
    for (uint32_t i = 0; i < used && row == NULL; i++) {
        row = bytes_equal(prefix, bytes_str(e->rows[i].prefix)) ? &e->rows[i] : NULL;
    }
    row = row != NULL ? row : add_row(e, prefix);
    if (row != NULL) {
        uint64_t count = atomic_load_explicit(&row->count, memory_order_relaxed);
        atomic_store_explicit(&row->count, count + 1, memory_order_relaxed);
    }
    metric_add(&w->metrics, METRIC_ERRORS, 1);
}

/* The sum of a prefix; a row of its own if there is room. NULL = no room. */
static struct info_error_sum *sum_of(struct info_error_sum *sums, uint32_t *count,
                                     const char *prefix) {
    for (uint32_t i = 0; i < *count; i++) {
        if (strcmp(sums[i].prefix, prefix) == 0) {
            return &sums[i];
        }
    }
    if (*count == INFO_ERRORS_MAX) {
        return NULL;
    }
    struct info_error_sum *sum = &sums[(*count)++];
    memcpy(sum->prefix, prefix, strlen(prefix) + 1);
    sum->count = 0;
    return sum;
}

/* Since the start. */
static uint32_t sum_errors(const struct node *n, struct info_error_sum *sums) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < n->worker_count; i++) {
        const struct info_errors *e = &n->workers[i]->errors;
        uint32_t used = atomic_load_explicit(&e->used, memory_order_acquire);
        for (uint32_t row = 0; row < used; row++) {
            struct info_error_sum *sum = sum_of(sums, &count, e->rows[row].prefix);
            if (sum != NULL) {
                sum->count += atomic_load_explicit(&e->rows[row].count, memory_order_relaxed);
            }
        }
    }
    return count;
}

static int by_prefix(const void *a, const void *b) {
    const struct info_error_sum *left = a;
    const struct info_error_sum *right = b;
    return strcmp(left->prefix, right->prefix);
}

uint32_t info_error_sums(struct node *n, struct info_error_sum out[INFO_ERRORS_MAX]) {
    struct info *info = n->info;
    uint32_t count = sum_errors(n, out);
    uint32_t kept = 0;
    lock_acquire(&info->lock);
    for (uint32_t i = 0; i < info->error_base_count; i++) {
        struct info_error_sum *sum = sum_of(out, &count, info->error_base[i].prefix);
        if (sum != NULL) {
            sum->count -= info->error_base[i].count;
        }
    }
    lock_release(&info->lock);
    for (uint32_t i = 0; i < count; i++) {
        if (out[i].count > 0) {
            out[kept++] = out[i];
        }
    }
    qsort(out, kept, sizeof(out[0]), by_prefix);
    return kept;
}

/* --- commands ---------------------------------------------------------------------------------------------------- */

static void sum_command(const struct node *n, enum cmd_id id, struct info_command *out) {
    memset(out, 0, sizeof(*out));
    for (uint32_t i = 0; i < n->worker_count; i++) {
        const struct cmd_stats *s = &n->workers[i]->stats[id];
        out->calls += atomic_load_explicit(&s->calls, memory_order_relaxed);
        out->ticks += atomic_load_explicit(&s->ticks, memory_order_relaxed);
        out->rejected += atomic_load_explicit(&s->rejected, memory_order_relaxed);
        out->failed += atomic_load_explicit(&s->failed, memory_order_relaxed);
        for (uint32_t b = 0; b < LATENCY_BUCKETS; b++) {
            out->histogram[b] += atomic_load_explicit(&s->histogram[b], memory_order_relaxed);
        }
    }
}

void info_command(struct node *n, const struct cmd *cmd, struct info_command *out) {
    sum_command(n, cmd->id, out);
    lock_acquire(&n->info->lock);
    const struct info_command *base = &n->info->base[cmd->id];
    out->calls -= base->calls;
    out->ticks -= base->ticks;
    out->rejected -= base->rejected;
    out->failed -= base->failed;
    for (uint32_t b = 0; b < LATENCY_BUCKETS; b++) {
        out->histogram[b] -= base->histogram[b];
    }
    lock_release(&n->info->lock);
}

void info_reset(struct node *n) {
    struct info *info = n->info;
    lock_acquire(&info->lock);
    for (uint32_t id = 0; id < CMD_COUNT; id++) {
        sum_command(n, (enum cmd_id)id, &info->base[id]);
    }
    info->error_base_count = sum_errors(n, info->error_base);
    metric_reset();
    struct rate *const rates[] = {&info->commands, &info->input, &info->output};
    for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        memset(rates[i]->samples, 0, sizeof(rates[i]->samples));
        rates[i]->last = 0;
    }
    info->sweep_us = info->sweep_rounds = info->sweep_cut_short = 0;
    lock_release(&info->lock);
    atomic_store_explicit(&n->memory.peak,
                          atomic_load_explicit(&n->memory.allocated, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_store_explicit(&n->memory.evicting_us, 0, memory_order_relaxed);
}

/* --- rates ------------------------------------------------------------------------------------------------------- */

static void sample_rate(struct rate *r, uint32_t at, int64_t passed_us) {
    uint64_t now = metric_sum(r->metric);
    uint64_t grown = now > r->last ? now - r->last : 0;
    r->samples[at] = passed_us > 0 ? grown * 1000000 / (uint64_t)passed_us : 0;
    r->last = now;
}

static uint64_t mean_rate(const struct rate *r) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < RATE_SAMPLES; i++) {
        sum += r->samples[i];
    }
    return sum / RATE_SAMPLES;
}

void info_sample(struct node *n) {
    struct info *info = n->info;
    int64_t now_us = time_mono_us();
    lock_acquire(&info->lock);
    int64_t passed_us = info->sampled_us != 0 ? now_us - info->sampled_us : 0;
    sample_rate(&info->commands, info->at, passed_us);
    sample_rate(&info->input, info->at, passed_us);
    sample_rate(&info->output, info->at, passed_us);
    info->at = (info->at + 1) % RATE_SAMPLES;
    info->sampled_us = now_us;
    lock_release(&info->lock);
}

void info_note_sweep(struct node *n, int64_t us, uint64_t expired, bool round_ended) {
    struct info *info = n->info;
    lock_acquire(&info->lock);
    info->sweep_us += (uint64_t)us;
    info->expired_this_round += expired;
    if (round_ended) {
        info->expired_last_round = info->expired_this_round;
        info->expired_this_round = 0;
        info->sweep_rounds++;
    } else {
        info->sweep_cut_short++;
    }
    lock_release(&info->lock);
}

void info_rates(struct node *n, struct info_rates *out) {
    struct info *info = n->info;
    lock_acquire(&info->lock);
    *out = (struct info_rates){
        .commands_per_s = mean_rate(&info->commands),
        .input_per_s = mean_rate(&info->input),
        .output_per_s = mean_rate(&info->output),
        .sweep_us = info->sweep_us,
        .sweep_rounds = info->sweep_rounds,
        .sweep_cut_short = info->sweep_cut_short,
        .expired_last_round = info->expired_last_round,
    };
    lock_release(&info->lock);
}
