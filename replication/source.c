/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/source.h"

#include "replication/source_priv.h"
#include "server/base/assert.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/base/sum.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool session_must_end(const struct session *s) {
    return atomic_load_explicit(&s->stop, memory_order_acquire);
}

/* --- who else there is ------------------------------------------------------------------------------------------- */

struct told {
    struct replica_seen seen[PEERS_MAX];
    struct wire_peer peers[PEERS_MAX];
    uint32_t count;
};

static void add_told(const struct replica_seen *seen, void *arg) {
    struct told *t = arg;
    if (t->count < PEERS_MAX && seen->port != 0 && seen->addr[0] != '\0') {
        t->seen[t->count] = *seen;
        struct wire_peer *p = &t->peers[t->count];
        p->port = seen->port;
        p->address = bytes_str(t->seen[t->count].addr);
        memcpy(p->id, seen->peer, PEER_ID_LEN);
        t->count++;
    }
}

/* The nodes that a replica asks if it is promoted; when they have changed. */
static enum dc_err send_peers(struct session *s) {
    struct told *t = mem_must_alloc(sizeof(*t));
    struct buf body;
    enum dc_err err = DC_OK;
    t->count = 0;
    replicas_each(s->self->replicas, add_told, t);
    buf_init(&body, 0);
    wire_peers_encode(t->peers, t->count, &body);
    uint64_t sum = body.failed ? s->peers_sum : sum64(body.ptr, body.len, 1);
    if (sum != s->peers_sum) {
        s->peers_sum = sum;
        err = link_send(s->link, WIRE_PEERS, buf_bytes(&body), NULL, 0);
    }
    buf_fini(&body);
    mem_free(t);
    return err;
}

/* --- the stream -------------------------------------------------------------------------------------------------- */

enum dc_err session_beat(struct session *s) {
    int64_t now_us = time_mono_us();
    uint32_t known = replicas_known_count(s->self->replicas);
    if (now_us < s->beat_us && known == s->known_told) {
        return DC_OK;
    }
    s->known_told = known;
    s->beat_us = now_us + self_beat_ms(s->self) * 1000;
    struct wire_beat m;
    repl_beat(s->self, &m);
    enum dc_err err = link_send_beat(s->link, &m);
    return err == DC_OK ? send_peers(s) : err;
}

static enum dc_err send_hurry(struct session *s) {
    uint64_t lsn = replicas_hurry_lsn(s->self->replicas);
    if (lsn <= s->hurried) {
        return DC_OK;
    }
    s->hurried = lsn;
    return link_send_hurry(s->link, lsn);
}

/* Somebody waits for acknowledgements: for a while they come as soon as they can. */
static enum dc_err send_ask(struct session *s) {
    int64_t asked_us = replicas_asked_us(s->self->replicas);
    if (asked_us == s->asked_us || time_mono_us() - asked_us > REPLICAS_ASK_US) {
        return DC_OK;
    }
    s->asked_us = asked_us;
    return link_send_ask(s->link, 2 * REPLICAS_ASK_US / 1000);
}

static enum dc_err send_bytes(struct session *s, uint64_t lsn, const char *bytes, size_t len) {
    atomic_store_explicit(&s->offered, lsn + len, memory_order_relaxed);
    enum dc_err err = link_send_log(s->link, lsn, bytes_of(bytes, len));
    if (err == DC_OK) {
        s->sent = lsn + len;
        replicas_note_sent(s->self->replicas, s->slot, s->sent, len);
    }
    return err;
}

/* From the files, behind what was pushed. send_lock held. */
static enum dc_err send_more(struct session *s, char *buffer, bool *idle) {
    uint64_t lsn;
    size_t len;
    enum dc_err err = link_send_rest(s->link, &s->rest);
    if (err != DC_OK) {
        return err;
    }
    switch (log_tail_read(s->tail, &lsn, buffer, SEND_LEN, &len)) {
    case TAIL_BYTES:
        return send_bytes(s, lsn, buffer, len);
    case TAIL_NOTHING:
        *idle = true;
        return DC_OK;
    case TAIL_GONE:
        return dc_fail(DC_EIO, "the log from LSN %" PRIu64 " on isn't here any more", s->sent);
    case TAIL_FAILED:
        break;
    }
    return DC_EIO;
}

/* Until somebody has something for it: log that wasn't pushed, a hurry, the end; or a beat is due. */
static void wait_for_work(struct session *s) {
    int64_t wait_us = s->beat_us - time_mono_us();
    if (wait_us > 0) {
        (void)wake_wait(&s->wake, wait_us);
    }
}

static enum dc_err stream(struct session *s, struct log_tail *tail, uint64_t from) {
    char *buffer = mem_must_alloc(SEND_LEN);
    enum dc_err err = DC_OK;
    s->sent = from;
    s->tail = tail;
    source_push_join(s);
    while (err == DC_OK && !session_must_end(s)) {
        bool idle = false;
        pthread_mutex_lock(&s->send_lock);
        err = send_more(s, buffer, &idle);
        err = err == DC_OK ? session_promote(s) : err;
        err = err == DC_OK ? session_beat(s) : err;
        err = err == DC_OK ? send_hurry(s) : err;
        err = err == DC_OK ? send_ask(s) : err;
        pthread_mutex_unlock(&s->send_lock);
        if (idle && err == DC_OK) {
            wait_for_work(s);
        }
    }
    source_push_leave(s);
    mem_free(buffer);
    return err;
}

/* --- what comes back --------------------------------------------------------------------------------------------- */

static bool take_message(struct session *s, const struct link_message *m) {
    struct wire_ack ack;
    struct wire_beat beat;
    struct wire_bye bye;
    switch (m->type) {
    case WIRE_ACK:
        if (!wire_ack_decode(m->body, &ack) ||
            ack.received > atomic_load_explicit(&s->offered, memory_order_relaxed)) {
            diag(DIAG_WARNING, "source.wrong_ack peer=%s received=%" PRIu64, link_peer(s->link),
                 ack.received);
            return false;
        }
        atomic_store_explicit(&s->received, ack.received, memory_order_relaxed);
        replicas_note(s->self->replicas, s->slot, ack.received, ack.durable, ack.applied,
                      time_mono_us());
        return true;
    case WIRE_BEAT:
        if (!wire_beat_decode(m->body, &beat)) {
            return false;
        }
        replicas_note_beat(s->self->replicas, s->slot, beat.head, time_mono_us());
        return true;
    case WIRE_BYE:
        if (wire_bye_decode(m->body, &bye)) {
            diag(DIAG_NOTICE, "source.bye peer=%s text=\"%.*s\"", link_peer(s->link),
                 (int)bye.text.len, bye.text.ptr);
        }
        return false;
    case WIRE_NONE:
        return time_mono_us() - link_heard_us(s->link) < self_timeout_ms(s->self) * 1000;
    case WIRE_HELLO:
    case WIRE_ANSWER:
    case WIRE_LOG:
    case WIRE_COPY:
    case WIRE_COPY_DATA:
    case WIRE_COPY_END:
    case WIRE_HURRY:
    case WIRE_ASK:
    case WIRE_PROMOTE:
    case WIRE_PEERS:
        break;
    }
    return false;
}

static void end_session(struct session *s) {
    atomic_store_explicit(&s->stop, true, memory_order_release);
    wake_raise(&s->wake);
    link_shutdown(s->link);
}

/* An ear_hear_fn: one recv(), and what is whole of it. If there is more the socket can still be read. */
static bool hear(void *arg) {
    struct session *s = arg;
    struct link_message m;
    do {
        if (link_receive(s->link, 0, &m) != DC_OK || !take_message(s, &m)) {
            end_session(s);
            return false;
        }
    } while (link_has_message(s->link));
    return true;
}

/* As long as workers wait for what the peer sends they read it (ears.h). */
static void receive(void *arg) {
    struct session *s = arg;
    while (ear_hear(s->ear)) {
        if (ear_has_listeners(s->ear)) {
            (void)wake_wait(&s->ear_wake, HEAR_SELDOM_US);
        } else {
            struct pollfd p = {.fd = link_fd(s->link), .events = POLLIN};
            (void)poll(&p, 1, (int)(self_timeout_ms(s->self) / HEAR_LOOKS));
        }
    }
}

/* --- the session ------------------------------------------------------------------------------------------------- */

struct greeting {
    struct history chain[WIRE_CHAIN_MAX];
    struct wire_hello hello;
    struct chain_view peer;
    struct chain_ask ask;
    struct chain_answer answer;
    struct log_tail *tail; /* for CONTINUE */
};

static enum dc_err read_hello(struct session *s, struct greeting *g) {
    struct link_message m;
    enum dc_err err = link_receive(s->link, self_timeout_ms(s->self), &m);
    if (err != DC_OK) {
        return err;
    }
    if (m.type != WIRE_HELLO || !wire_hello_decode(m.body, g->chain, &g->hello)) {
        return dc_fail(DC_EPROTO, "%s doesn't begin with a greeting", link_peer(s->link));
    }
    memcpy(s->peer_id, g->hello.peer_id, PEER_ID_LEN);
    return view_of_hello(&g->hello, &g->peer, &g->ask);
}

/* Whether our log is other bytes than the peer's before its head. */
static bool hash_differs(struct session *s, const struct greeting *g,
                         const struct chain_view *self) {
    bool same = true;
    uint32_t count = g->peer.count;
    if (count == 0 || !chain_holds(self, g->peer.head, g->peer.chain[count - 1].id)) {
        return false;
    }
    return log_tail_same(s->self->data, g->peer.head, g->hello.hash, &same) == DC_OK && !same &&
           !source_tail_is_bad(s->source, g->peer.head);
}

/* Who pulls has decided himself whose log he takes: ranks are nothing to us. */
static void answer_by(struct greeting *g, const struct chain_view *self,
                      const struct chain_local *local) {
    g->answer = g->hello.purpose == WIRE_PULL ? chain_answer_pull(self, &g->peer, local)
                                              : chain_answer(self, &g->peer, g->ask, local);
}

static void ask_chain(struct session *s, struct greeting *g, struct chain_view *self,
                      struct chain_local *local) {
    local->oldest = log_tail_oldest(s->self->data);
    self_view(s->self, self);
    local->hash_differs = hash_differs(s, g, self);
    answer_by(g, self, local);
}

/* The verdict; for CONTINUE the log is held from there on. */
static void decide(struct session *s, struct greeting *g) {
    struct chain_view self;
    struct chain_local local;
    ask_chain(s, g, &self, &local);
    bool serves = g->hello.purpose != WIRE_PROBE;
    if (serves && g->answer.verdict == CHAIN_RAISE_FIRST &&
        repl_raise(s->self, &g->peer) == DC_OK) {
        ask_chain(s, g, &self, &local);
    }
    bool sends = serves && g->answer.verdict == CHAIN_CONTINUE;
    bool bad = sends && source_log_is_bad(s->source, g->answer.lsn);
    if (bad || (sends && log_tail_open(&g->tail, s->self->data, g->answer.lsn) != DC_OK)) {
        local.oldest = UINT64_MAX; /* it went meanwhile, or can't be read */
        answer_by(g, &self, &local);
    }
    if (bad && g->answer.reason == CHAIN_BY_LOG_GONE) {
        g->answer.reason = CHAIN_BY_LOG_DAMAGED;
    }
}

static bool take_copy_turn(struct source *src) {
    lock_acquire(&src->lock);
    bool free = src->copies < (uint32_t)conf_get(src->self->conf, replication_full_copies);
    src->copies += free;
    lock_release(&src->lock);
    return free;
}

static void give_copy_turn(struct source *src) {
    lock_acquire(&src->lock);
    src->copies--;
    lock_release(&src->lock);
}

static void count_verdict(struct source *src, const struct chain_answer *a) {
    lock_acquire(&src->lock);
    if (a->verdict == CHAIN_CONTINUE) {
        src->stats.partial++;
    } else if (a->verdict == CHAIN_COPY) {
        src->stats.full++;
        snprintf(src->stats.last_full_reason, sizeof(src->stats.last_full_reason), "%s",
                 chain_reason_text(a->reason));
    } else {
        src->stats.refused++;
    }
    lock_release(&src->lock);
}

static enum dc_err send_answer(struct session *s, const struct greeting *g, const char *text) {
    bool asked = g->hello.purpose != WIRE_FOLLOW;
    struct buf body;
    buf_init(&body, 0);
    enum dc_err err = self_answer(s->self, &g->answer, text, asked, &body);
    err = err == DC_OK ? link_send(s->link, WIRE_ANSWER, buf_bytes(&body), NULL, 0) : err;
    buf_fini(&body);
    return err;
}

static enum dc_err serve_log(struct session *s, struct greeting *g) {
    source_forget_taker(s->source, s->peer_id);
    repl_note_shared(s->self);
    enum dc_err err = stream(s, g->tail, g->answer.lsn);
    log_tail_close(g->tail);
    g->tail = NULL;
    return err;
}

/* Where the peer can be reached, with its port. */
static void address_of(const struct session *s, const struct greeting *g,
                       char to[REPLICA_ADDR_MAX]) {
    const char *peer = link_peer(s->link);
    const char *colon = strrchr(peer, ':');
    struct bytes from = bytes_of(peer, colon != NULL ? (size_t)(colon - peer) : 0);
    struct bytes addr = g->hello.address.len > 0 ? g->hello.address : from;
    snprintf(to, REPLICA_ADDR_MAX, "%.*s", (int)addr.len, addr.ptr);
}

/* A primary of higher rank asks, and nobody has told this one of it: it is to be asked in turn. What it says here fences nobody (peers.h, I3). */
static void meet_challenger(struct session *s, const struct greeting *g) {
    struct chain_view self;
    char addr[REPLICA_ADDR_MAX];
    self_view(s->self, &self);
    if (!chain_is_challenged(&self, &g->peer) || g->hello.port == 0 ||
        memcmp(s->peer_id, s->self->peer_id, PEER_ID_LEN) == 0) {
        return;
    }
    address_of(s, g, addr);
    if (replicas_meet(s->self->replicas, s->peer_id, addr, g->hello.port)) {
        diag(DIAG_NOTICE, "source.challenger addr=%s port=%u", addr, g->hello.port);
    }
}

static void join_registry(struct session *s, const struct greeting *g) {
    char addr[REPLICA_ADDR_MAX];
    address_of(s, g, addr);
    s->slot = replicas_join(s->self->replicas, s->peer_id, addr, g->hello.port);
    if (s->slot >= 0) {
        replicas_set_state(s->self->replicas, s->slot,
                           g->answer.verdict == CHAIN_COPY ? REPLICA_COPIES : REPLICA_ONLINE);
    }
}

/* Somebody waits for replicas, and they don't know it; or there is a node more. */
static void wake_all(void *arg) {
    struct source *src = arg;
    lock_acquire(&src->lock);
    for (struct session *s = src->sessions; s != NULL; s = s->next) {
        wake_raise(&s->wake);
    }
    lock_release(&src->lock);
}

/* The peer's session from now on: what it said on an older link may be true no more. */
static void begin_attending(struct session *s) {
    struct source *src = s->source;
    lock_acquire(&src->lock);
    for (struct session *other = src->sessions; other != NULL; other = other->next) {
        if (other != s && other->attends && memcmp(other->peer_id, s->peer_id, PEER_ID_LEN) == 0) {
            diag(DIAG_NOTICE, "source.drop why=\"the peer has come anew\"");
            end_session(other);
        }
    }
    s->attends = true;
    lock_release(&src->lock);
}

/* The peer stays: what it gets, while another thread listens to it. */
static enum dc_err attend(struct session *s, struct greeting *g) {
    join_registry(s, g);
    if (s->slot < 0) {
        return dc_fail(DC_ELIMIT, "too many replicas");
    }
    (void)self_store_peers(s->self); /* if it fails, again with the next period */
    begin_attending(s);
    wake_all(s->source);
    source_unpin(s->source, s->peer_id);
    atomic_store_explicit(&s->offered, g->answer.verdict == CHAIN_CONTINUE ? g->answer.lsn : 0,
                          memory_order_relaxed);
    s->ear = ear_create(link_fd(s->link), hear, s);
    replicas_set_ear(s->self->replicas, s->slot, s->ear);
    thread_start(&s->receiver, "repl-acks", receive, s);
    enum dc_err err = g->answer.verdict == CHAIN_COPY ? session_copy(s) : serve_log(s, g);
    link_shutdown(s->link);
    wake_raise(&s->ear_wake);
    thread_join(&s->receiver);
    if (g->answer.verdict == CHAIN_CONTINUE) {
        session_note_end(s, g->answer.lsn);
    }
    replicas_set_ear(s->self->replicas, s->slot, NULL);
    ear_close(s->ear);
    replicas_leave(s->self->replicas, s->slot);
    return err;
}

static enum dc_err greet(struct session *s, struct greeting *g) {
    enum dc_err err = read_hello(s, g);
    if (err != DC_OK) {
        return err;
    }
    if (g->hello.purpose == WIRE_FOLLOW) {
        source_note_follower(s->source, s->peer_id);
    }
    meet_challenger(s, g);
    decide(s, g);
    const char *text = chain_reason_text(g->answer.reason);
    bool turn = g->hello.purpose == WIRE_FOLLOW &&
                g->answer.verdict == CHAIN_COPY; /* writes wait for who pulls */
    if (turn && !take_copy_turn(s->source)) {
        g->answer.verdict = CHAIN_LATER;
        text = "the source is sending a full copy to another replica";
        turn = false;
    }
    diag(DIAG_NOTICE,
         "source.answer peer=%s head=%" PRIu64 " verdict=%s lsn=%" PRIu64 " reason=\"%s\"",
         link_peer(s->link), g->peer.head, chain_verdict_name(g->answer.verdict), g->answer.lsn,
         text);
    err = send_answer(s, g, text);
    if (err == DC_OK && g->hello.purpose != WIRE_PROBE) {
        count_verdict(s->source, &g->answer);
        if (g->answer.verdict == CHAIN_COPY || g->answer.verdict == CHAIN_CONTINUE) {
            err = attend(s, g);
        }
    }
    if (turn) {
        give_copy_turn(s->source);
    }
    return err;
}

static void run(void *arg) {
    struct session *s = arg;
    struct greeting *g = mem_must_zalloc(sizeof(*g));
    int fd = s->fd;
    s->fd = -1;
    enum dc_err err = link_accept(s->link, fd, buf_bytes(&s->early));
    if (err != DC_OK) {
        diag(DIAG_WARNING, "link.refused peer=%s reason=\"%s\"", link_peer(s->link),
             dc_fail_take(err));
    } else if ((err = greet(s, g)) != DC_OK) {
        diag(DIAG_NOTICE, "source.closed peer=%s error=\"%s\"", link_peer(s->link),
             dc_fail_take(err));
    }
    if (g->tail != NULL) {
        log_tail_close(g->tail);
    }
    mem_free(g);
    link_shutdown(s->link); /* the peer sees the end now, not when somebody tidies up */
    atomic_store_explicit(&s->ended, true, memory_order_release);
}

/* --- all of them ------------------------------------------------------------------------------------------------- */

struct source *source_create(struct self *self) {
    struct source *s = mem_must_zalloc(sizeof(*s));
    s->self = self;
    lock_init(&s->lock, LOCK_RANK_SOURCE);
    replicas_on_ask(self->replicas, wake_all, s);
    source_push_init(&s->push);
    log_set_tap(self->log, source_push, s);
    return s;
}

static void forget_session(struct session *s) {
    pthread_mutex_destroy(&s->send_lock);
    buf_fini(&s->rest);
    buf_fini(&s->early);
    mem_free(s);
}

void source_accept(struct source *src, int fd, struct bytes early) {
    struct session *s = mem_must_zalloc(sizeof(*s));
    struct link_opts opts = {.timeout_ms = self_timeout_ms(src->self), .key = src->self->link_key};
    s->source = src;
    s->self = src->self;
    s->fd = fd;
    s->slot = -1;
    buf_init(&s->early, 0);
    buf_init(&s->rest, 0);
    wake_init(&s->wake);
    wake_init(&s->ear_wake);
    pthread_mutex_init(&s->send_lock, NULL);
    buf_append_bytes(&s->early, early);
    lock_acquire(&src->lock);
    bool taken = !src->stopping && src->session_count < SESSIONS_MAX && !s->early.failed &&
                 link_create(&opts, &s->link) == DC_OK;
    if (taken) {
        s->next = src->sessions;
        src->sessions = s;
        src->session_count++;
        thread_start(&s->sender, "repl-source", run, s);
    }
    lock_release(&src->lock);
    if (!taken) {
        close(fd);
        forget_session(s);
    }
}

static void free_session(struct session *s) {
    thread_join(&s->sender);
    link_destroy(s->link);
    forget_session(s);
}

/* Takes one that has ended (or, at the end, any) out of the list. */
static struct session *take_ended(struct source *src, bool any) {
    struct session **at = &src->sessions;
    lock_acquire(&src->lock);
    while (*at != NULL && !any && !atomic_load_explicit(&(*at)->ended, memory_order_acquire)) {
        at = &(*at)->next;
    }
    struct session *s = *at;
    if (s != NULL) {
        *at = s->next;
        src->session_count--;
    }
    lock_release(&src->lock);
    return s;
}

static struct copy_pin *take_pin(struct source *src, const uint8_t *peer_id, int64_t now_us) {
    struct copy_pin **at = &src->pins;
    lock_acquire(&src->lock);
    while (*at != NULL && now_us < (*at)->until_us &&
           (peer_id == NULL || memcmp((*at)->peer_id, peer_id, PEER_ID_LEN) != 0)) {
        at = &(*at)->next;
    }
    struct copy_pin *p = *at;
    if (p != NULL) {
        *at = p->next;
    }
    lock_release(&src->lock);
    return p;
}

static void free_pins(struct source *src, const uint8_t *peer_id, int64_t now_us) {
    struct copy_pin *p;
    while ((p = take_pin(src, peer_id, now_us)) != NULL) {
        log_tail_close(p->tail);
        mem_free(p);
    }
}

void source_unpin(struct source *src, const uint8_t *peer_id) {
    free_pins(src, peer_id, time_mono_us());
}

void source_tick(struct source *src) {
    struct session *s;
    while ((s = take_ended(src, false)) != NULL) {
        free_session(s);
    }
    free_pins(src, NULL, time_mono_us());
}

void source_drop_all(struct source *src, const char *why) {
    lock_acquire(&src->lock);
    for (struct session *s = src->sessions; s != NULL; s = s->next) {
        diag(DIAG_NOTICE, "source.drop why=\"%s\"", why);
        end_session(s);
    }
    lock_release(&src->lock);
}

void source_stop(struct source *src) {
    struct session *s;
    lock_acquire(&src->lock);
    src->stopping = true;
    lock_release(&src->lock);
    source_drop_all(src, "the node ends");
    while ((s = take_ended(src, true)) != NULL) {
        free_session(s);
    }
    free_pins(src, NULL, INT64_MAX);
}

void source_destroy(struct source *src) {
    if (src != NULL) {
        dc_assert(src->sessions == NULL && src->pins == NULL);
        replicas_on_ask(src->self->replicas, NULL, NULL);
        source_push_fini(&src->push);
        lock_fini(&src->lock);
        mem_free(src);
    }
}

void source_stats(struct source *src, struct source_stats *out) {
    lock_acquire(&src->lock);
    *out = src->stats;
    out->copies_under_way = src->copies;
    lock_release(&src->lock);
}
