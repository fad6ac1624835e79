/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/net/gates.h"

#include "server/base/mem.h"
#include "server/net/conn_out.h"

#include <stdio.h>
#include <unistd.h>

enum {
    SETTLE_US = 1000000,
    SETTLE_NAP_US = 2000,
    WHY_MAX = 256,
};

static const struct ack_level by_default;

static void raise(uint64_t *to, uint64_t lsn) {
    *to = lsn > *to ? lsn : *to;
}

/* --- what a turn asks for ---------------------------------------------------------------------------- */

static void note(struct gates *g, uint32_t needs, uint64_t lsn) {
    g->turn_needs |= needs;
    g->turn_writes |= needs != 0 && !(needs & ACKS_DURABLE);
    g->turn_waits |= needs == ACKS_WRITTEN;
    raise(&g->turn_gated, lsn);
    if (needs & ACKS_REPLICA_DISKS) {
        raise(&g->turn_hurry, lsn);
    }
}

void gates_note(struct conn *c) {
    if (dc_likely(ack_is_default(c->level))) {
        raise(&c->w->gates.turn_default, c->gate);
    } else if (c->gate > 0) {
        note(&c->w->gates, acks_needs(c->w->cmd.node, c->level), c->gate);
    }
}

void gates_note_part(struct conn *c, size_t start, size_t end, uint64_t gate) {
    struct gates *g = &c->w->gates;
    if (g->part_count == GATE_PARTS_MAX) {
        c->part_count = 0; /* what isn't known of all is known of none */
        return;
    }
    g->parts[g->part_count++] =
        (struct gate_part){(uint32_t)(start - c->out_start), (uint32_t)(end - c->out_start), gate};
    c->part_count++;
}

bool gates_want_company(const struct worker *w) {
    const struct gates *g = &w->gates;
    return g->turn_needs != 0 || (g->turn_default > 0 && acks_needs(w->cmd.node, by_default) != 0);
}

uint64_t gates_ask(struct worker *w, bool *waits) {
    struct node *n = w->cmd.node;
    struct gates *g = &w->gates;
    if (g->turn_default > 0) {
        note(g, acks_needs(n, by_default), g->turn_default);
    }
    uint64_t lsn = g->turn_writes ? g->turn_gated : 0;
    *waits = g->turn_waits;
    if (lsn == 0 &&
        (g->turn_needs != 0 || (g->turn_gated > 0 && replicas_link_count(n->replicas) > 0))) {
        log_kick(n->log);
    }
    if (dc_unlikely(g->turn_needs & ACKS_HURRY)) {
        log_hurry(n->log);
    }
    if (dc_unlikely(g->turn_needs & ACKS_REPLICAS)) {
        replicas_ask(n->replicas, time_mono_us());
    }
    if (dc_unlikely(g->turn_hurry > 0)) {
        replicas_hurry(n->replicas, g->turn_hurry);
    }
    g->turn_needs = 0;
    g->turn_writes = g->turn_waits = false;
    g->turn_default = g->turn_gated = g->turn_hurry = 0;
    return lsn;
}

/* --- marks ------------------------------------------------------------------------------------------- */

/* Before the marks are looked at: what rises behind this look is seen as a difference. */
static void sample(const struct node *n, struct gates_seen *seen, uint32_t default_needs) {
    seen->default_needs = default_needs;
    seen->moves = replicas_moves(n->replicas);
    seen->written = log_written(n->log).v;
    seen->durable = log_durable(n->log).v;
}

uint64_t gates_mark_of(struct worker *w, struct ack_level level) {
    struct gates *g = &w->gates;
    if (ack_is_default(level)) {
        return g->mark;
    }
    if (ack_word(level) != ack_word(g->other)) {
        g->other = level;
        g->other_mark = acks_mark(w->cmd.node, level);
    }
    return g->other_mark;
}

static struct conn *take_waiting(struct worker *w) {
    struct conn *first = w->gates.waiting.first;
    conn_list_init(&w->gates.waiting);
    w->gates.wants = 0;
    return first;
}

void gates_open(struct worker *w) {
    struct gates *g = &w->gates;
    struct node *n = w->cmd.node;
    uint32_t needs = acks_needs(n, by_default);
    sample(n, &g->seen, needs);
    g->mark = acks_mark_by(n, by_default, needs);
    g->other = by_default; /* no longer known */
    for (struct conn *c = take_waiting(w); c != NULL;) {
        struct conn *next = c->next_gated;
        c->in_gated = false;
        if (!c->closed) {
            conn_enter_flush(c);
        }
        c = next;
    }
}

/* --- who waits --------------------------------------------------------------------------------------- */

void gates_enter(struct conn *c, struct ack_level level) {
    struct gates *g = &c->w->gates;
    g->wants |= acks_needs(c->w->cmd.node, level);
    if (!c->in_gated) {
        c->in_gated = true;
        c->next_gated = NULL;
        *g->waiting.tail = c;
        g->waiting.tail = &c->next_gated;
    }
}

/* Those who wait, and those whose socket is full with something that waits behind. */
static void refuse_all(struct worker *w, const char *why) {
    for (struct conn *c = w->conns; c != NULL;) {
        struct conn *next = c->next;
        if (c->queue != NULL) {
            conn_refuse_gated(c, why, INT64_MAX);
            conn_flush(c);
        }
        c = next;
    }
}

/* Refused and sent; or back in the list. */
static void refuse_late(struct worker *w, int64_t timeout_ms) {
    int64_t before_ms = w->cmd.now_us / 1000 - timeout_ms;
    for (struct conn *c = take_waiting(w); c != NULL;) {
        struct conn *next = c->next_gated;
        c->in_gated = false;
        if (!c->closed) {
            conn_refuse_gated(c, NULL, before_ms);
            conn_flush(c);
        }
        c = next;
    }
}

static void refuse(struct worker *w) {
    struct gates *g = &w->gates;
    struct node *n = w->cmd.node;
    char why[WHY_MAX];
    if (dc_unlikely(log_state(n->log) != LOG_WELL)) {
        log_trouble(n->log, why, sizeof(why));
        if (why[0] != '\0') { /* else it has become well */
            refuse_all(w, why);
        }
    }
    if (dc_unlikely(g->refuses)) {
        refuse_all(w, g->why);
        g->refuses = false;
    }
    int64_t timeout_ms = conf_get(n->conf, ack_timeout);
    if (dc_unlikely(g->ticked) && timeout_ms > 0) {
        refuse_late(w, timeout_ms);
    }
    g->ticked = false;
}

static bool has_moved(const struct worker *w) {
    const struct gates *g = &w->gates;
    struct gates_seen now;
    sample(w->cmd.node, &now, acks_needs(w->cmd.node, by_default));
    return ((g->wants & ACKS_WRITTEN) && now.written != g->seen.written) ||
           ((g->wants & ACKS_DURABLE) && now.durable != g->seen.durable) ||
           ((g->wants & ACKS_REPLICAS) && now.moves != g->seen.moves) ||
           now.default_needs != g->seen.default_needs;
}

void gates_wait(struct worker *w) {
    struct gates *g = &w->gates;
    struct node *n = w->cmd.node;
    if (dc_likely(g->waiting.first == NULL && !g->refuses)) {
        return;
    }
    refuse(w);
    if (g->waiting.first == NULL) {
        return;
    }
    if (g->wants & ACKS_WRITTEN) {
        log_want(n->log, LOG_LEVEL_OS);
    }
    if (g->wants & ACKS_DURABLE) {
        log_want(n->log, LOG_LEVEL_DISK);
    }
    if (g->wants & ACKS_REPLICAS) {
        replicas_want(n->replicas);
        ears_open(w);
    }
    if (has_moved(w)) {
        worker_resume(w);
    }
}

void gates_settle(struct worker *w) {
    struct node *n = w->cmd.node;
    int64_t end_us = time_mono_us() + SETTLE_US;
    if (w->gates.waiting.first == NULL) {
        return;
    }
    log_hurry(n->log);
    replicas_hurry(n->replicas, log_head(n->log).v);
    do {
        usleep(SETTLE_NAP_US);
        worker_flush(w);
    } while (w->gates.waiting.first != NULL && time_mono_us() < end_us);
    refuse_all(w, "the node ends");
}

/* --- the host ---------------------------------------------------------------------------------------- */

struct refusal {
    struct message message; /* first */
    char why[WHY_MAX];
};

/* Looked at when the turn ends. */
static void run_refusal(struct cmd_worker *cw, struct message *m) {
    struct worker *w = (struct worker *)cw;
    struct refusal *r = (struct refusal *)m;
    memcpy(w->gates.why, r->why, sizeof(r->why));
    w->gates.refuses = true;
    mem_free(r);
}

void gates_refuse(struct node *n, const char *why) {
    for (uint32_t i = 0; i < n->worker_count; i++) {
        struct refusal *r = mem_must_zalloc(sizeof(*r));
        r->message.run = run_refusal;
        snprintf(r->why, sizeof(r->why), "%s", why);
        worker_post((struct worker *)n->workers[i], &r->message);
    }
}
