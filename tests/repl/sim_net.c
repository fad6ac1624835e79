/* SPDX-License-Identifier: BSD-3-Clause */
/* The network: connections are two queues with a delay. What is cut waits, as TCP does; who hears nothing for long gives up. */
#include "tests/repl/sim.h"

#include "server/base/assert.h"
#include "server/base/mem.h"

#include <string.h>

enum { SILENCE_MS = 500 };

bool net_reaches(const struct sim *s, uint32_t a, uint32_t b) {
    return !s->cut[a][b];
}

static bool is_alive(const struct sim *s, const struct conn *c, int end) {
    const struct node *n = &s->nodes[c->node[end]];
    return n->running && n->run == c->run[end];
}

static int64_t draw_delay(struct sim *s) {
    if (s->opts.steady) {
        return SIM_STEP_MS;
    }
    uint64_t kind = rng_below(&s->rng, 20);
    uint64_t steps = kind == 0 ? 5 + rng_below(&s->rng, 8) : rng_below(&s->rng, 4);
    return (int64_t)steps * SIM_STEP_MS;
}

struct conn *net_connect(struct sim *s, uint32_t from, uint32_t to, enum wire_purpose purpose) {
    const struct node *target = &s->nodes[to];
    if (net_reaches(s, from, to) && !target->running) {
        return NULL; /* refused */
    }
    for (uint32_t i = 0; i < CONNS_MAX; i++) {
        struct conn *c = &s->conns[i];
        if (!c->used) {
            memset(c, 0, offsetof(struct conn, to));
            c->to[0].first = c->to[0].count = c->to[1].first = c->to[1].count = 0;
            memset(&c->purpose, 0, sizeof(*c) - offsetof(struct conn, purpose));
            c->used = true;
            c->node[0] = from;
            c->node[1] = to;
            c->run[0] = s->nodes[from].run;
            c->run[1] = target->run;
            c->open[0] = c->open[1] = true;
            c->heard_ms[0] = c->heard_ms[1] = s->now_ms;
            c->sent_ms[0] = c->sent_ms[1] = s->now_ms;
            c->delay_ms = draw_delay(s);
            c->purpose = purpose;
            return c;
        }
    }
    return NULL;
}

void message_fini(struct message *m) {
    mem_free(m->view);
    mem_free(m->frames);
    memset(m, 0, sizeof(*m));
}

bool net_has_room(const struct conn *c, int end) {
    return c->to[1 - end].count < QUEUE_MAX - 4;
}

/* From 'end' to the other. */
struct message *net_send(struct sim *s, struct conn *c, int end, enum message_type type) {
    struct queue *q = &c->to[1 - end];
    dc_assert(q->count < QUEUE_MAX);
    struct message *m = &q->at[(q->first + q->count++) % QUEUE_MAX];
    memset(m, 0, sizeof(*m));
    m->type = type;
    m->due_ms = s->now_ms + SIM_STEP_MS + c->delay_ms;
    c->sent_ms[end] = s->now_ms;
    return m;
}

void net_close(struct conn *c, int end) {
    c->open[end] = false;
}

static void drain(struct queue *q) {
    while (q->count > 0) {
        message_fini(&q->at[q->first]);
        q->first = (q->first + 1) % QUEUE_MAX;
        q->count--;
    }
}

void net_destroy(struct sim *s) {
    for (uint32_t i = 0; i < CONNS_MAX; i++) {
        drain(&s->conns[i].to[0]);
        drain(&s->conns[i].to[1]);
        s->conns[i].used = false;
    }
}

static void give_up(struct sim *s, struct conn *c, int end) {
    c->open[end] = false;
    link_ended(s, c, end);
}

/* One end of one connection. */
static void deliver(struct sim *s, struct conn *c, int end) {
    struct queue *q = &c->to[end];
    bool whole = net_reaches(s, c->node[0], c->node[1]);
    if (c->open[end] && !is_alive(s, c, end)) {
        c->open[end] = false;
    }
    if (!c->open[end]) {
        drain(q);
        return;
    }
    if (s->nodes[c->node[end]].frozen) {
        return;
    }
    while (whole && q->count > 0 && q->at[q->first].due_ms <= s->now_ms && c->open[end]) {
        struct message m = q->at[q->first];
        q->first = (q->first + 1) % QUEUE_MAX;
        q->count--;
        c->heard_ms[end] = s->now_ms;
        link_receive(s, c, end, &m);
        message_fini(&m);
    }
    bool over = whole && q->count == 0 && !c->open[1 - end];
    if (c->open[end] && (over || s->now_ms - c->heard_ms[end] > SILENCE_MS)) {
        give_up(s, c, end);
    }
}

void net_step(struct sim *s) {
    for (uint32_t i = 0; i < CONNS_MAX; i++) {
        struct conn *c = &s->conns[i];
        if (!c->used) {
            continue;
        }
        deliver(s, c, 0);
        deliver(s, c, 1);
        if (!c->open[0] && !c->open[1]) {
            drain(&c->to[0]);
            drain(&c->to[1]);
            c->used = false;
        }
    }
}

/* The one that connected notices first: what is under way may still arrive, behind what a new connection brings. */
void sim_break(struct sim *s, uint32_t a, uint32_t b) {
    for (uint32_t i = 0; i < CONNS_MAX; i++) {
        struct conn *c = &s->conns[i];
        if (c->used && c->open[0] &&
            ((c->node[0] == a && c->node[1] == b) || (c->node[0] == b && c->node[1] == a))) {
            give_up(s, c, 0);
        }
    }
}
