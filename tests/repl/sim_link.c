/* SPDX-License-Identifier: BSD-3-Clause */
/* Links: who asks, who answers, and what either does with it. The decisions are those of replication/chain.h. */
#include "tests/repl/sim.h"

#include "server/base/mem.h"

#include <inttypes.h>
#include <string.h>

enum { BEAT_MS = 100, BATCH_FRAMES = 16, COPY_MS = 60, PIN_MS = 1000 };

static struct view_copy *copy_view(const struct node *n) {
    struct view_copy *v = mem_must_alloc(sizeof(*v));
    v->v = node_view(n);
    memcpy(v->chain, n->chain, n->chain_count * sizeof(n->chain[0]));
    v->v.chain = v->chain;
    return v;
}

static struct node *node_of(struct sim *s, const struct conn *c, int end) {
    return &s->nodes[c->node[end]];
}

/* --- asking ---------------------------------------------------------------------------------------------------- */

static struct conn *ask(struct sim *s, struct node *n, uint32_t to, enum wire_purpose purpose) {
    struct conn *c = net_connect(s, n->place, to, purpose);
    if (c != NULL) {
        struct message *m = net_send(s, c, 0, M_HELLO);
        m->view = copy_view(n);
        m->purpose = purpose;
        m->ask = n->ask;
        m->last_write = n->count == 0 ? 0 : n->frames[n->count - 1].write;
        node_id(n, m->id);
    }
    return c;
}

static int64_t draw_retry(struct sim *s) {
    return s->now_ms + 50 + (s->opts.steady ? 0 : (int64_t)rng_below(&s->rng, 100));
}

void sink_step(struct sim *s, struct node *n) {
    if (n->sink == SINK_IDLE && s->now_ms >= n->retry_ms) {
        n->link = ask(s, n, n->target, WIRE_FOLLOW);
        n->sink = n->link != NULL ? SINK_ASKED : SINK_IDLE;
        n->retry_ms = draw_retry(s);
    }
    if (n->link != NULL && s->now_ms - n->link->sent_ms[0] >= BEAT_MS && net_has_room(n->link, 0)) {
        net_send(s, n->link, 0, M_BEAT);
    }
}

static void leave(struct sim *s, struct node *n, int64_t retry_ms) {
    net_close(n->link, 0);
    n->link = NULL;
    n->sink = SINK_IDLE;
    n->retry_ms = s->now_ms + retry_ms;
}

/* The first time in a row. */
static void say_refused(struct sim *s, struct node *n, const struct chain_answer *a) {
    const char *why = chain_reason_text(a->reason);
    if (n->refused != why) {
        n->refused = why;
        sim_say(s, "%c: is told '%s': %s", sim_name(n->place), chain_verdict_name(a->verdict), why);
    }
}

static void learn_peers(struct sim *s, struct node *n, const struct message *m) {
    uint8_t own[PEER_ID_LEN];
    node_id(n, own);
    for (uint32_t i = 0; i < m->peer_count; i++) {
        if (memcmp(m->peers[i].id, own, PEER_ID_LEN) != 0) {
            peers_learn(n->peers, m->peers[i].id, "", (uint16_t)m->peers[i].place, s->now_ms);
        }
    }
}

static void take_answer(struct sim *s, struct node *n, const struct message *m) {
    struct chain_view self = node_view(n);
    uint64_t epoch = m->view->v.epoch;
    switch (chain_step(&self, n->ask, &m->view->v, &m->answer)) {
    case CHAIN_STREAM:
        sim_say(s, "%c: follows %c from frame %" PRIu32 " on", sim_name(n->place),
                sim_name(n->link->node[1]), n->count);
        n->ask = (struct chain_ask){0};
        n->epoch = n->epoch > epoch ? n->epoch : epoch;
        n->sink = SINK_STREAMS;
        n->shared = true;
        n->orders = 0;
        n->own_branch = false;
        n->followed_ms = s->now_ms;
        n->refused = NULL;
        n->links++;
        return;
    case CHAIN_CUT:
        node_cut(s, n, m->answer.lsn);
        return;
    case CHAIN_TAKE_COPY:
        say_refused(s, n, &m->answer);
        return;
    case CHAIN_COME_AGAIN:
        say_refused(s, n, &m->answer);
        leave(s, n, 50);
        return;
    case CHAIN_STAY:
        say_refused(s, n, &m->answer);
        leave(s, n, 200);
        return;
    case CHAIN_NONSENSE:
        sim_fail(s, "%c: %c's answer '%s' contradicts the views", sim_name(n->place),
                 sim_name(n->link->node[1]), chain_verdict_name(m->answer.verdict));
        leave(s, n, 200);
        return;
    }
}

static void append_all(struct sim *s, struct node *n, const struct message *m) {
    for (uint32_t i = 0; i < m->count && s->failed[0] == '\0'; i++) {
        const struct frame *f = &m->frames[i];
        bool joins = f->write != 0 ? f->start == node_head(n)
                                   : s->histories[f->history].parent_end == node_head(n);
        if (!joins) {
            sim_fail(s, "%c: a gap in the stream", sim_name(n->place));
            return;
        }
        node_append(s, n, f);
    }
}

static void sink_receive(struct sim *s, struct conn *c, struct node *n, const struct message *m) {
    switch (m->type) {
    case M_ANSWER:
        learn_peers(s, n, m);
        take_answer(s, n, m);
        return;
    case M_LOG:
        append_all(s, n, m);
        if (net_has_room(c, 0)) {
            struct message *ack = net_send(s, c, 0, M_ACK);
            ack->received = node_head(n);
        }
        return;
    case M_COPY: {
        struct chain_view self = node_view(n);
        uint64_t lsn;
        if (!chain_common(&self, &m->view->v, &lsn)) {
            n->epoch = 0;
        }
        n->epoch = n->epoch > m->view->v.epoch ? n->epoch : m->view->v.epoch;
        node_adopt(s, n, m->frames, m->count);
        return;
    }
    case M_BEAT:
        learn_peers(s, n, m);
        return;
    case M_HELLO:
    case M_ACK:
    case M_END:
        return;
    }
}

/* --- probes and pulls ------------------------------------------------------------------------------------------ */

static void asker_receive(struct sim *s, struct conn *c, struct node *n, const struct message *m) {
    uint8_t id[PEER_ID_LEN];
    memcpy(id, c->id, PEER_ID_LEN);
    if (m->type == M_ANSWER && c->purpose == WIRE_PROBE) {
        c->answered = true;
        net_close(c, 0);
        if (memcmp(id, m->id, PEER_ID_LEN) != 0) {
            (void)peers_replace(n->peers, id, m->id, s->now_ms);
        } else {
            peers_answered(n->peers, id, &m->view->v, s->now_ms);
        }
    } else if (m->type == M_ANSWER && m->answer.verdict == CHAIN_COPY) {
        sim_say(s, "%c: pulls a copy of %c: %s", sim_name(n->place), sim_name(c->node[1]),
                chain_reason_text(m->answer.reason));
    } else if (m->type == M_ANSWER && m->answer.verdict != CHAIN_CONTINUE) {
        c->answered = true;
        net_close(c, 0);
        sim_say(s, "%c: can't pull from %c: %s", sim_name(n->place), sim_name(c->node[1]),
                chain_reason_text(m->answer.reason));
        peers_pulled(n->peers, id, false, s->now_ms);
    } else if (m->type == M_LOG && n->role == CHAIN_PULLING) {
        append_all(s, n, m);
    } else if (m->type == M_COPY && n->role == CHAIN_PULLING) {
        c->answered = true;
        net_close(c, 0);
        s->pulls++;
        n->stored_chosen = n->chosen;
        node_adopt(s, n, m->frames, m->count);
    } else if (m->type == M_END) {
        c->answered = true;
        net_close(c, 0);
        sim_say(s, "%c: has pulled from %c, %" PRIu32 " frames now", sim_name(n->place),
                sim_name(c->node[1]), n->count);
        s->pulls++;
        peers_pulled(n->peers, id, true, s->now_ms);
    }
}

static void ask_peer(struct sim *s, struct node *n, const struct peers_todo *todo,
                     enum wire_purpose purpose) {
    struct conn *c = ask(s, n, todo->peer.port, purpose);
    if (c != NULL) {
        memcpy(c->id, todo->peer.id, PEER_ID_LEN);
    } else if (purpose == WIRE_PROBE) {
        peers_silent(n->peers, todo->peer.id, s->now_ms);
    } else {
        peers_pulled(n->peers, todo->peer.id, false, s->now_ms);
    }
}

static void give_way(struct sim *s, struct node *n, const struct peers_todo *todo) {
    n->epoch = n->epoch > todo->epoch ? n->epoch : todo->epoch;
    n->pending_count = 0;
    if (todo->action == PEERS_FENCE) {
        sim_say(s, "%c: is fenced: %c shows a primary of epoch %" PRIu64, sim_name(n->place),
                sim_name(todo->peer.port), todo->epoch);
        n->role = n->stored_role = CHAIN_FENCED;
        return;
    }
    sim_say(s, "%c: follows %c, which is higher, and gives nothing up", sim_name(n->place),
            sim_name(todo->peer.port));
    n->role = n->stored_role = CHAIN_REPLICA;
    n->target = todo->peer.port;
    n->retry_ms = s->now_ms;
    memset(n->acked, 0, sizeof(n->acked));
}

void peers_act(struct sim *s, struct node *n) {
    for (;;) {
        struct chain_view self = node_view(n);
        struct peers_todo todo = peers_next(n->peers, &self, s->now_ms);
        switch (todo.action) {
        case PEERS_NOTHING:
            return;
        case PEERS_PROBE:
            ask_peer(s, n, &todo, WIRE_PROBE);
            break;
        case PEERS_PULL:
            ask_peer(s, n, &todo, WIRE_PULL);
            break;
        case PEERS_FENCE:
        case PEERS_FOLLOW:
            give_way(s, n, &todo);
            break;
        case PEERS_GO_ON:
            n->heard = true;
            if (todo.forks) {
                n->epoch = n->epoch > todo.epoch ? n->epoch : todo.epoch;
                n->epoch += n->chosen && n->shared ? n->orders : 0;
                node_fork(s, n, todo.fork, todo.missing);
            } else {
                sim_say(s, "%c: goes on in its history", sim_name(n->place));
                n->role = n->stored_role = CHAIN_PRIMARY;
                n->clean = false;
            }
            break;
        }
    }
}

/* --- answering ------------------------------------------------------------------------------------------------- */

/* The node itself, and whom it knows. */
static void tell_peers(const struct sim *s, const struct node *n, struct message *m) {
    struct peers_entry e;
    if (s->opts.mute) {
        return;
    }
    node_id(n, m->peers[0].id);
    m->peers[0].place = n->place;
    m->peer_count = 1;
    for (uint32_t i = 0; i < NODES_MAX && peers_entry(n->peers, i, &e); i++) {
        memcpy(m->peers[m->peer_count].id, e.id, PEER_ID_LEN);
        m->peers[m->peer_count++].place = e.port;
    }
}

static struct chain_local what_is_here(const struct node *n, const struct message *m) {
    const struct chain_view *peer = &m->view->v;
    struct chain_local local = {.oldest = n->oldest == 0 ? 0 : n->frames[n->oldest - 1].end};
    struct chain_view self = node_view(n);
    if (peer->count > 0 && chain_holds(&self, peer->head, peer->chain[peer->count - 1].id)) {
        uint32_t count = node_frame_at(n, peer->head);
        local.hash_differs = n->frames[count - 1].write != m->last_write;
    }
    return local;
}

/* A peer has one link: a newer one ends the older, and what that still brings isn't counted. */
static void end_older(struct sim *s, const struct conn *newer) {
    for (uint32_t i = 0; i < CONNS_MAX; i++) {
        struct conn *c = &s->conns[i];
        if (c->used && c != newer && c->open[1] && c->node[1] == newer->node[1] &&
            c->purpose == WIRE_FOLLOW && memcmp(c->id, newer->id, PEER_ID_LEN) == 0) {
            c->streams = false;
            net_close(c, 1);
        }
    }
}

/* False: not now. */
static bool raise_history(struct sim *s, struct node *n, const struct chain_view *peer) {
    if (n->role == CHAIN_FENCED && !n->heard) {
        sim_promote(s, n->place);
        return false;
    }
    struct chain_view self = node_view(n);
    struct history h;
    uint64_t salt = rng_next(&s->rng); /* in this order with every compiler */
    uint64_t id = rng_next(&s->rng) | 1;
    if (chain_raise(&self, peer, id, salt, &h) != DC_OK) {
        sim_fail(s, "no LSNs are left");
        return false;
    }
    if (n->role == CHAIN_FENCED) {
        peers_watch(n->peers);
    }
    node_begin_history(s, n, h, "a peer gives way");
    return true;
}

static void begin_copy(struct sim *s, struct conn *c, const struct node *n) {
    c->copy_ms = s->now_ms + (s->opts.copy_ms > 0 ? s->opts.copy_ms : COPY_MS);
    c->copy_count = n->written;
}

static void answer_follow(struct sim *s, struct conn *c, struct node *n, const struct message *m) {
    struct chain_local local = what_is_here(n, m);
    struct chain_answer a;
    for (;;) {
        struct chain_view self = node_view(n);
        a = chain_answer(&self, &m->view->v, m->ask, &local);
        if (a.verdict != CHAIN_RAISE_FIRST || !raise_history(s, n, &m->view->v)) {
            break;
        }
    }
    a.verdict = a.verdict == CHAIN_RAISE_FIRST ? CHAIN_LATER : a.verdict;
    memcpy(c->id, m->id, PEER_ID_LEN);
    end_older(s, c);
    peers_learn(n->peers, m->id, "", (uint16_t)c->node[0], s->now_ms);
    n->acked[c->node[0]] = 0;
    if (a.verdict == CHAIN_CONTINUE) {
        c->streams = true;
        c->sent = node_frame_at(n, a.lsn);
        n->pin_ms = 0;
        n->shared = true;
        peers_link(n->peers, m->id, true, s->now_ms);
    } else if (a.verdict == CHAIN_COPY) {
        n->pins += a.reason == CHAIN_BY_LOG_GONE; /* the one before was too slow, perhaps */
        begin_copy(s, c, n);
    }
    struct message *to = net_send(s, c, 1, M_ANSWER);
    to->answer = a;
    to->view = copy_view(n);
    node_id(n, to->id);
    tell_peers(s, n, to);
}

static void source_receive(struct sim *s, struct conn *c, struct node *n, const struct message *m) {
    if (m->type == M_ACK && c->streams) {
        c->acked = m->received;
        n->pins = c->sent == n->count ? 0 : n->pins; /* it has caught up */
        n->acked[c->node[0]] = m->received;
    }
    if (m->type != M_HELLO) {
        return;
    }
    struct chain_view self = node_view(n);
    if (chain_is_challenged(&self, &m->view->v)) {
        peers_learn(n->peers, m->id, "", (uint16_t)c->node[0], s->now_ms);
    }
    if (m->purpose == WIRE_FOLLOW) {
        answer_follow(s, c, n, m);
        return;
    }
    struct message *to = net_send(s, c, 1, M_ANSWER);
    to->view = copy_view(n);
    to->view->v.epoch +=
        n->shared ? n->orders : 0; /* whom it was to follow may have been promoted */
    node_id(n, to->id);
    if (m->purpose == WIRE_PULL) {
        struct chain_local local = what_is_here(n, m);
        to->answer = chain_answer_pull(&to->view->v, &m->view->v, &local);
        c->streams = to->answer.verdict == CHAIN_CONTINUE;
        c->sent = node_frame_at(n, to->answer.lsn);
        c->pull_end = n->written;
        if (to->answer.verdict == CHAIN_COPY) {
            begin_copy(s, c, n);
        }
    }
}

static void send_frames(struct sim *s, struct conn *c, const struct node *n, uint32_t end) {
    uint32_t count = end - c->sent < BATCH_FRAMES ? end - c->sent : BATCH_FRAMES;
    struct message *m = net_send(s, c, 1, M_LOG);
    m->frames = mem_must_alloc(count * sizeof(*m->frames));
    memcpy(m->frames, n->frames + c->sent, count * sizeof(*m->frames));
    m->count = count;
    c->sent += count;
}

static void send_copy(struct sim *s, struct conn *c, struct node *n) {
    struct message *m = net_send(s, c, 1, M_COPY);
    m->frames = mem_must_alloc(c->copy_count * sizeof(*m->frames) + 1);
    memcpy(m->frames, n->frames, c->copy_count * sizeof(*m->frames));
    m->count = c->copy_count;
    m->view = copy_view(n);
    c->copy_ms = 0;
    n->pin_at = c->copy_count;
    n->pin_ms = s->now_ms + PIN_MS;
}

static void send_beat(struct sim *s, struct conn *c, const struct node *n) {
    tell_peers(s, n, net_send(s, c, 1, M_BEAT));
}

void source_step(struct sim *s, struct conn *c) {
    struct node *n = node_of(s, c, 1);
    if (!c->used || !c->open[1] || !n->running || n->frozen || n->run != c->run[1]) {
        return;
    }
    if (c->copy_ms > 0 && s->now_ms >= c->copy_ms) {
        send_copy(s, c, n);
    }
    if (c->streams && c->sent < n->oldest) {
        net_close(c, 1); /* a slow peer fell behind what is kept */
        link_ended(s, c, 1);
        return;
    }
    uint32_t end = c->purpose == WIRE_PULL ? c->pull_end : n->written;
    while (c->streams && c->sent < end && net_has_room(c, 1)) {
        send_frames(s, c, n, end);
    }
    if (c->purpose == WIRE_PULL && c->streams && c->sent >= end && net_has_room(c, 1)) {
        net_send(s, c, 1, M_END);
        c->streams = false;
    }
    if (c->purpose == WIRE_FOLLOW && s->now_ms - c->sent_ms[1] >= BEAT_MS && net_has_room(c, 1)) {
        send_beat(s, c, n);
    }
}

/* --- both ------------------------------------------------------------------------------------------------------ */

void link_receive(struct sim *s, struct conn *c, int end, struct message *m) {
    struct node *n = node_of(s, c, end);
    if (end == 1) {
        source_receive(s, c, n, m);
    } else if (c->purpose != WIRE_FOLLOW) {
        asker_receive(s, c, n, m);
    } else if (n->link == c) {
        sink_receive(s, c, n, m);
    }
}

void link_ended(struct sim *s, struct conn *c, int end) {
    struct node *n = node_of(s, c, end);
    if (end == 1 && c->purpose == WIRE_FOLLOW) {
        peers_link(n->peers, c->id, false, s->now_ms);
    } else if (end == 0 && c->purpose == WIRE_FOLLOW && n->link == c) {
        if (n->sink == SINK_STREAMS) {
            sim_say(s, "%c: loses its link to %c", sim_name(n->place), sim_name(c->node[1]));
        }
        n->link = NULL;
        n->sink = SINK_IDLE;
        n->retry_ms = draw_retry(s);
    } else if (end == 0 && !c->answered && c->purpose == WIRE_PROBE) {
        peers_silent(n->peers, c->id, s->now_ms);
    } else if (end == 0 && !c->answered && c->purpose == WIRE_PULL) {
        peers_pulled(n->peers, c->id, false, s->now_ms);
    }
}
