/* SPDX-License-Identifier: BSD-3-Clause */
/* A model of Sentinel, as far as its orders go: it polls, promotes the replica with the highest LSN that it has heard of, and makes the others follow. */
#include "tests/repl/sim.h"

enum { POLL_MS = 50, DOWN_MS = 500, FRESH_MS = 200, WRONG_MS = 300, FAILOVER_MS = 1000 };

static bool hears(const struct sim *s, const struct node *n) {
    return n->running && !n->frozen && net_reaches(s, SENTINEL, n->place);
}

/* Who says that it is a master tells no offset, nor does one that was a master, until a source has taken it: they are chosen when there is nobody else. */
static uint64_t offset_of(const struct node *n) {
    bool strange = n->stored_role == CHAIN_REPLICA && !n->shared;
    if (n->role == CHAIN_FENCED || n->count == 0 || strange) {
        return 0;
    }
    bool tells = n->stored_role == CHAIN_REPLICA && !n->own_branch;
    return tells ? node_head(n) : 1;
}

/* INFO. Who is fenced says that it is a replica. slave_priority is 0, so that it is never promoted, of whoever is fenced, of a replica without data, and of one whose data nobody else has seen.
 * One that is being promoted is a replica until its fork is durable. */
static void poll(struct sim *s) {
    struct sentinel *se = &s->sentinel;
    for (uint32_t i = 0; i < s->opts.nodes; i++) {
        const struct node *n = &s->nodes[i];
        if (hears(s, n)) {
            se->info[i].seen_ms = s->now_ms;
            se->info[i].primary = n->role != CHAIN_REPLICA && n->role != CHAIN_FENCED &&
                                  n->stored_role == CHAIN_PRIMARY;
            se->info[i].epoch = n->chain_count > 0 ? n->chain[n->chain_count - 1].epoch : 0;
            se->info[i].offset = offset_of(n);
            se->info[i].refuses = n->refused == chain_reason_text(CHAIN_BY_UNRELATED) ||
                                  n->refused == chain_reason_text(CHAIN_BY_UNRELATED_LOWER) ||
                                  n->refused == chain_reason_text(CHAIN_BY_SOURCE_EMPTY);
            se->info[i].fenced = n->role == CHAIN_FENCED;
            se->info[i].target = n->role == CHAIN_FENCED ? NODES_MAX : n->target;
        }
    }
}

static bool is_fresh(const struct sim *s, uint32_t node) {
    return s->now_ms - s->sentinel.info[node].seen_ms < FRESH_MS;
}

/* In the end an operator has a look: who refuses the primary's data has the old ones, and of those the highest epoch counts. */
static bool somebody_refuses(const struct sim *s) {
    bool any = false;
    for (uint32_t i = 0; i < s->opts.nodes; i++) {
        any |= s->healing && is_fresh(s, i) && s->sentinel.info[i].refuses;
    }
    return any;
}

static bool is_better(const struct sim *s, uint32_t a, uint32_t b, bool by_epoch) {
    uint64_t epoch_a = s->sentinel.info[a].epoch, epoch_b = s->sentinel.info[b].epoch;
    return by_epoch && epoch_a != epoch_b ? epoch_a > epoch_b
                                          : s->sentinel.info[a].offset > s->sentinel.info[b].offset;
}

static uint32_t best_of(const struct sim *s, bool refused, bool of_those) {
    uint32_t best = NODES_MAX;
    for (uint32_t i = 0; i < s->opts.nodes; i++) {
        if (i != s->sentinel.master && is_fresh(s, i) && s->sentinel.info[i].offset > 0 &&
            (!of_those || s->sentinel.info[i].refuses) &&
            (best == NODES_MAX || is_better(s, i, best, refused))) {
            best = i;
        }
    }
    return best;
}

/* If the one that refuses is what Sentinel takes for the primary, another one of its lineage will do. */
static uint32_t choose(const struct sim *s) {
    bool refused = somebody_refuses(s);
    uint32_t best = best_of(s, refused, refused);
    return best < NODES_MAX ? best : best_of(s, refused, false);
}

static void fail_over(struct sim *s) {
    struct sentinel *se = &s->sentinel;
    uint32_t chosen = choose(s);
    if (chosen < NODES_MAX) {
        sim_say(s, "sentinel: promotes %c", sim_name(chosen));
        se->chosen = chosen;
        se->failover_ms = s->now_ms;
        if (s->nodes[chosen].role == CHAIN_PRIMARY) { /* the order does nothing */
            check_chosen(s, &s->nodes[chosen]);
        }
        if (hears(s, &s->nodes[chosen])) {
            sim_promote(s, chosen);
        }
    }
}

static void go_on(struct sim *s) {
    struct sentinel *se = &s->sentinel;
    if (is_fresh(s, se->chosen) && se->info[se->chosen].primary) {
        se->master = se->chosen;
        check_chosen(s, &s->nodes[se->master]);
        se->failover_ms = 0;
        for (uint32_t i = 0; i < s->opts.nodes; i++) {
            se->info[i].wrong_ms = s->now_ms - WRONG_MS + 2 * POLL_MS;
        }
    } else if (s->now_ms - se->failover_ms > FAILOVER_MS) {
        if (!is_fresh(s, se->chosen)) {
            check_given_up(s, se->chosen, se->failover_ms);
        }
        se->failover_ms = 0;
    }
}

static void set_right(struct sim *s, uint32_t node) {
    struct sentinel *se = &s->sentinel;
    bool wrong = se->info[node].primary || se->info[node].target != se->master;
    if (!wrong || !is_fresh(s, node)) {
        se->info[node].wrong_ms = 0;
    } else if (se->info[node].wrong_ms == 0) {
        se->info[node].wrong_ms = s->now_ms;
    } else if (s->now_ms - se->info[node].wrong_ms >= WRONG_MS && hears(s, &s->nodes[node])) {
        se->info[node].wrong_ms = 0;
        sim_attach(s, node, se->master, false);
    }
}

static bool master_is_down(struct sim *s) {
    struct sentinel *se = &s->sentinel;
    uint32_t m = se->master;
    if (s->now_ms - se->info[m].seen_ms > DOWN_MS) {
        return true;
    }
    /* It has become a replica; or, and that an operator sees, others refuse its data. */
    bool wrong = !se->info[m].primary;
    for (uint32_t i = 0; i < s->opts.nodes; i++) {
        wrong |= s->healing && is_fresh(s, i) && se->info[i].refuses && se->info[i].target == m;
    }
    if (!wrong) {
        se->info[m].wrong_ms = 0;
    } else if (se->info[m].wrong_ms == 0) {
        se->info[m].wrong_ms = s->now_ms;
    }
    return wrong && s->now_ms - se->info[m].wrong_ms > 2 * DOWN_MS;
}

/* What an operator does in the end about a fence without a higher primary. */
static void lift_fence(struct sim *s) {
    uint32_t m = s->sentinel.master;
    if (s->healing && s->sentinel.info[m].fenced && s->now_ms % 2000 == 0 &&
        hears(s, &s->nodes[m])) {
        sim_promote(s, m);
    }
}

void sentinel_step(struct sim *s) {
    struct sentinel *se = &s->sentinel;
    if (!se->on || s->now_ms < se->poll_ms) {
        return;
    }
    se->poll_ms = s->now_ms + POLL_MS;
    poll(s);
    if (se->failover_ms > 0) {
        go_on(s);
    } else if (master_is_down(s)) {
        fail_over(s);
    } else {
        lift_fence(s);
        for (uint32_t i = 0; i < s->opts.nodes; i++) {
            if (i != se->master) {
                set_right(s, i);
            }
        }
    }
}
