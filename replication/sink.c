/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/sink.h"

#include "persist/adopt.h"
#include "replication/greet.h"
#include "replication/sink_priv.h"
#include "server/base/assert.h"
#include "server/base/crypto.h"
#include "server/base/diag.h"
#include "server/base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool sink_must_end(const struct sink *s) {
    return atomic_load_explicit(&s->stop, memory_order_acquire);
}

/* --- what others see --------------------------------------------------------------------------------------------- */

void sink_set_link(struct sink *s, enum repl_link state) {
    bool up = state == LINK_CONNECTED;
    lock_acquire(&s->lock);
    if (up != (s->view.link == LINK_CONNECTED)) {
        s->view.down_since_us = time_mono_us();
    }
    s->view.link = state;
    if (up) {
        s->view.why_down[0] = '\0';
    }
    lock_release(&s->lock);
    atomic_store_explicit(&s->self->linked, up, memory_order_relaxed);
}

static void set_why(struct sink *s, const char *why) {
    lock_acquire(&s->lock);
    snprintf(s->view.why_down, sizeof(s->view.why_down), "%s", why);
    lock_release(&s->lock);
}

void sink_note_io(struct sink *s) {
    lock_acquire(&s->lock);
    s->view.last_io_us = time_mono_us();
    lock_release(&s->lock);
}

void sink_view(struct sink *s, struct repl_view *out) {
    lock_acquire(&s->lock);
    out->link = s->view.link;
    out->last_io_us = s->view.last_io_us;
    out->down_since_us = s->view.down_since_us;
    out->source_head = s->stats.source_head;
    out->copy_bytes = s->view.copy_bytes;
    out->copy_len = s->view.copy_len;
    memcpy(out->why_down, s->view.why_down, sizeof(out->why_down));
    lock_release(&s->lock);
    int64_t since_us = atomic_load_explicit(&s->behind_since_us, memory_order_relaxed);
    out->behind_us = since_us != 0 ? time_mono_us() - since_us : 0;
}

void sink_stats(struct sink *s, struct sink_stats *out) {
    lock_acquire(&s->lock);
    *out = s->stats;
    lock_release(&s->lock);
}

/* --- acknowledgements -------------------------------------------------------------------------------------------- */

enum dc_err sink_ack(struct sink *s) {
    const struct log *log = s->self->log;
    struct wire_ack m;
    pthread_mutex_lock(&s->send_lock);
    m.applied = log_applied(log).v;
    m.durable = self_durable(s->self);
    m.received = log_head(log).v;
    enum dc_err err = link_send_ack(s->link, &m);
    pthread_mutex_unlock(&s->send_lock);
    atomic_store_explicit(&s->acked_received, m.received, memory_order_relaxed);
    return err;
}

static enum dc_err send_beat(struct sink *s) {
    struct wire_beat m;
    repl_beat(s->self, &m);
    pthread_mutex_lock(&s->send_lock);
    enum dc_err err = link_send_beat(s->link, &m);
    pthread_mutex_unlock(&s->send_lock);
    return err;
}

/* What is durable is told as soon as it is; a heartbeat in any case. The link is there as long as this thread. */
static void send_acks(void *arg) {
    struct sink *s = arg;
    struct log *log = s->self->log;
    uint64_t told = 0; /* the sum of the three */
    int64_t beat_us = 0;
    enum dc_err err = DC_OK;
    while (err == DC_OK && !atomic_load_explicit(&s->link_over, memory_order_acquire)) {
        uint64_t durable = self_durable(s->self);
        uint64_t has = durable + log_applied(log).v + log_head(log).v;
        if (has != told && atomic_load_explicit(&s->acks, memory_order_acquire)) {
            told = has;
            err = sink_ack(s);
        }
        int64_t now_us = time_mono_us();
        if (err == DC_OK && now_us >= beat_us) {
            beat_us = now_us + SINK_BEAT_US;
            err = send_beat(s);
        }
        uint64_t hurry = atomic_load_explicit(&s->hurry_lsn, memory_order_acquire);
        if (hurry > durable && durable > 0 &&
            durable < log_head(log).v) { /* makes the disk hurry */
            (void)log_wait(log, LOG_LEVEL_DISK, (struct lsn){durable + 1}, SINK_LOOK_MS * 1000);
        } else {
            (void)wake_wait(&s->ack_wake, SINK_LOOK_MS * 1000);
        }
    }
    if (err != DC_OK) {
        link_shutdown(s->link);
    }
}

/* --- messages ---------------------------------------------------------------------------------------------------- */

/* It may have lain unread for long: one of us was frozen. So it is as old as it is older than the quickest one by the source's clock, which may
 * be slower than ours. */
static int64_t sent_us(struct sink *s, int64_t clock_ms) {
    int64_t now_us = time_mono_us();
    int64_t ahead_us = now_us - clock_ms * 1000;
    if (s->ahead_us == INT64_MAX || ahead_us < s->ahead_us) {
        s->ahead_us = ahead_us;
    } else if (ahead_us - s->ahead_us > DRIFT_US) {
        s->ahead_us += DRIFT_US;
    }
    return s->ahead_us + clock_ms * 1000;
}

static enum dc_err note_beat(struct sink *s, struct bytes body) {
    struct wire_beat beat;
    if (!wire_beat_decode(body, &beat)) {
        return dc_fail(DC_EPROTO, "a heartbeat can't be read");
    }
    int64_t sent = sent_us(s, beat.clock_ms);
    s->beat_us = beat.age_ms == WIRE_AGE_UNKNOWN ? 0 : sent - beat.age_ms * 1000;
    s->beat_ms = beat.shown_ms;
    s->beat_head = beat.head;
    lock_acquire(&s->lock);
    s->stats.source_head = beat.head;
    lock_release(&s->lock);
    return DC_OK;
}

/* Whom this node asks if it is promoted. They are known, not attached. */
static enum dc_err note_peers(struct sink *s, struct bytes body) {
    struct wire_peer peers[PEERS_MAX];
    char addr[REPLICA_ADDR_MAX];
    uint32_t count;
    if (!wire_peers_decode(body, peers, &count)) {
        return dc_fail(DC_EPROTO, "what the source tells of other nodes can't be read");
    }
    s->told_count = 1;
    for (uint32_t i = 0; i < count; i++) {
        const struct wire_peer *p = &peers[i];
        memcpy(s->told[s->told_count++], p->id, PEER_ID_LEN);
        if (memcmp(p->id, s->self->peer_id, PEER_ID_LEN) != 0) {
            snprintf(addr, sizeof(addr), "%.*s", (int)p->address.len, p->address.ptr);
            replicas_know(s->self->replicas, p->id, addr, p->port, 0, 0);
        }
    }
    return DC_OK;
}

enum dc_err sink_receive(struct sink *s, int64_t timeout_ms, struct link_message *out) {
    struct wire_bye bye;
    enum dc_err err = link_receive(s->link, timeout_ms, out);
    if (err != DC_OK) {
        return err;
    }
    if (out->type == WIRE_NONE) {
        int64_t silent_ms = (time_mono_us() - link_heard_us(s->link)) / 1000;
        return silent_ms < self_timeout_ms(s->self)
                   ? DC_OK
                   : dc_fail(DC_EIO, "nothing was heard of %s for %" PRId64 " ms",
                             link_peer(s->link), silent_ms);
    }
    sink_note_io(s);
    if (out->type == WIRE_BYE) {
        return wire_bye_decode(out->body, &bye)
                   ? dc_fail(DC_EIO, "the source ended the link: %.*s", (int)bye.text.len,
                             bye.text.ptr)
                   : dc_fail(DC_EPROTO, "the last message of the source can't be read");
    }
    if (out->type == WIRE_PEERS) {
        enum dc_err noted = note_peers(s, out->body);
        out->type = WIRE_NONE; /* nobody else's business */
        return noted;
    }
    return out->type == WIRE_BEAT ? note_beat(s, out->body) : DC_OK;
}

int64_t sink_pull_ms(const struct sink *s) {
    int64_t ms = conf_get(s->self->conf, pull_timeout);
    return ms > PULL_MIN_MS ? ms : PULL_MIN_MS;
}

/* To connect, and for the answer. */
static int64_t greet_ms(const struct sink *s) {
    int64_t timeout_ms = self_timeout_ms(s->self);
    return s->target.pulls && sink_pull_ms(s) < timeout_ms ? sink_pull_ms(s) : timeout_ms;
}

/* --- the link ---------------------------------------------------------------------------------------------------- */

static enum dc_err open_link(struct sink *s) {
    struct link *link;
    enum dc_err err = greet_create(s->self, greet_ms(s), &link);
    if (err != DC_OK) {
        return err;
    }
    lock_acquire(&s->lock);
    s->link = link;
    lock_release(&s->lock);
    return sink_must_end(s)
               ? DC_ESTOPPED
               : greet_connect(s->self, link, s->target.host, (uint16_t)s->target.port);
}

static void close_link(struct sink *s) {
    lock_acquire(&s->lock);
    struct link *link = s->link;
    s->link = NULL;
    lock_release(&s->lock);
    link_destroy(link);
}

/* --- what the answer asks for ------------------------------------------------------------------------------------ */

/* The text "copied" of the metadata: how many full copies this node has asked for, and why it did last. The start that takes a copy in is another run. */
static const char copied[] = "copied";

static void note_copy(const struct sink *s, uint64_t count, const char *reason) {
    char text[192];
    snprintf(text, sizeof(text), "%" PRIu64 " %.120s", count, reason);
    if (meta_put_text(s->self->data->meta, copied, text) != DC_OK) {
        diag(DIAG_WARNING, "sink.note_failed error=\"%s\"", dc_fail_take(DC_EIO));
    }
}

static void learn_copies(struct sink *s) {
    char text[192];
    int at = 0;
    if (meta_get_text(s->self->data->meta, copied, text, sizeof(text)) == DC_OK &&
        sscanf(text, "%" SCNu64 " %n", &s->stats.full, &at) == 1 && at > 0) {
        snprintf(s->stats.last_full_reason, sizeof(s->stats.last_full_reason), "%.120s", text + at);
    }
}

static void count_sync(struct sink *s, bool full, const char *reason) {
    lock_acquire(&s->lock);
    s->stats.full += full;
    s->stats.partial += !full;
    if (full) {
        snprintf(s->stats.last_full_reason, sizeof(s->stats.last_full_reason), "%.120s", reason);
    }
    uint64_t count = s->stats.full;
    lock_release(&s->lock);
    if (full) {
        note_copy(s, count, reason);
    }
}

/* Runs while another thread sends. */
static enum dc_err attend(struct sink *s, bool acks, enum dc_err (*what)(struct sink *s)) {
    atomic_store_explicit(&s->acks, acks, memory_order_release);
    atomic_store_explicit(&s->link_over, false, memory_order_release);
    atomic_store_explicit(&s->acked_received, 0, memory_order_relaxed);
    atomic_store_explicit(&s->hurry_lsn, 0, memory_order_relaxed);
    s->asked_until_us = 0;
    s->ahead_us = INT64_MAX;
    thread_start(&s->acker, "repl-ack", send_acks, s);
    enum dc_err err = what(s);
    atomic_store_explicit(&s->link_over, true, memory_order_release);
    wake_raise(&s->ack_wake);
    link_shutdown(s->link);
    thread_join(&s->acker);
    return err;
}

static enum dc_err follow(struct sink *s, struct greeting *g) {
    repl_note_epoch(s->self, g->source.epoch);
    replicas_know(s->self->replicas, g->peer_id, s->target.host, (uint16_t)s->target.port, 0, 0);
    repl_note_shared(s->self);
    if (s->target.ask.explicit_ || s->target.ask.force) {
        s->target.ask = (struct chain_ask){.damaged = s->target.ask.damaged};
        repl_ask_taken(s->self);
    }
    count_sync(s, false, "");
    sink_set_link(s, LINK_CONNECTED);
    sink_note_io(s);
    diag(DIAG_NOTICE, "sink.connected source=%s lsn=%" PRIu64, link_peer(s->link), g->answer.lsn);
    int64_t began_us = time_mono_us();
    enum dc_err err = attend(s, true, sink_stream);
    if (time_mono_us() - began_us >= BACKOFF_END_US) {
        s->pause_ms = BACKOFF_MIN_MS;
    }
    return err;
}

static enum dc_err take_copy(struct sink *s, struct greeting *g) {
    count_sync(s, true, g->text);
    memcpy(s->told[0], g->peer_id, PEER_ID_LEN);
    s->told_count = 1;
    replicas_know(s->self->replicas, g->peer_id, s->target.host, (uint16_t)s->target.port, 0, 0);
    sink_set_link(s, LINK_SYNC);
    diag(DIAG_NOTICE, "sink.full source=%s reason=\"%s\"", link_peer(s->link), g->text);
    enum dc_err err = attend(s, false, sink_copy);
    if (err == DC_OK) {
        repl_note_epoch(s->self, g->source.epoch);
    }
    return err;
}

static enum dc_err take_copy_and_follow(struct sink *s, struct greeting *g) {
    enum dc_err err = take_copy(s, g);
    if (err == DC_OK) {
        self_begin_anew(s->self);
    }
    return err;
}

static enum dc_err cut(struct sink *s, const struct greeting *g) {
    uint32_t left = chain_cut(g->self.chain, g->self.count, g->answer.lsn);
    diag(DIAG_WARNING, "sink.cut lsn=%" PRIu64 " head=%" PRIu64 " reason=\"%s\"", g->answer.lsn,
         g->self.head, g->text);
    uint64_t history = left > 0 ? g->self.chain[left - 1].id : 0;
    enum dc_err err = adopt_note_rewind(s->self->data->meta, g->answer.lsn, history);
    if (err == DC_OK) {
        self_begin_anew(s->self);
    }
    return err;
}

static enum dc_err act(struct sink *s, struct greeting *g) {
    switch (chain_step(&g->self, s->target.ask, &g->source, &g->answer)) {
    case CHAIN_STREAM:
        return follow(s, g);
    case CHAIN_TAKE_COPY:
        return take_copy_and_follow(s, g);
    case CHAIN_CUT:
        return cut(s, g);
    case CHAIN_COME_AGAIN:
        return dc_fail(DC_EIO, "not now: %s", g->text);
    case CHAIN_STAY:
        s->pause_ms = BACKOFF_MAX_MS;
        return dc_fail(DC_EGENERIC, "refused: %s", g->text);
    case CHAIN_NONSENSE:
        break;
    }
    s->pause_ms = BACKOFF_MAX_MS;
    return dc_fail(DC_EPROTO, "the answer of %s contradicts what is here: %s", link_peer(s->link),
                   g->text);
}

/* What a primary asks a peer for that has more of its log. That may have been cleared away there: then its data come, which are ours and more. */
static enum dc_err pull(struct sink *s, struct greeting *g) {
    struct chain_answer own = chain_answer_pull(&g->source, &g->self, &(struct chain_local){0});
    if (own.verdict == CHAIN_CONTINUE && g->answer.verdict == CHAIN_COPY) {
        enum dc_err err = take_copy(s, g);
        s->copied = err == DC_OK;
        return err;
    }
    if (own.verdict != CHAIN_CONTINUE || g->answer.verdict != CHAIN_CONTINUE ||
        own.lsn != g->answer.lsn) {
        return dc_fail(DC_EGENERIC, "refused: %s", g->text);
    }
    s->pull_to = g->source.head;
    diag(DIAG_NOTICE, "sink.pull source=%s from=%" PRIu64 " to=%" PRIu64, link_peer(s->link),
         g->answer.lsn, s->pull_to);
    return attend(s, true, sink_stream);
}

static enum dc_err one_link(struct sink *s, struct greeting *g) {
    bool pulls = s->target.pulls;
    sink_set_link(s, LINK_CONNECTING);
    enum dc_err err = open_link(s);
    err = err == DC_OK ? greet_exchange(s->self, s->link, pulls ? WIRE_PULL : WIRE_FOLLOW,
                                        s->target.ask, greet_ms(s), g)
                       : err;
    if (err != DC_OK) {
        return err;
    }
    return pulls ? pull(s, g) : act(s, g);
}

/* --- the thread -------------------------------------------------------------------------------------------------- */

/* Half of it is chance: replicas of one source don't come all at once. */
static void pause_a_while(struct sink *s) {
    int64_t ms = s->pause_ms / 2 + (int64_t)rng_below(&s->rng, (uint64_t)s->pause_ms / 2 + 1);
    s->pause_ms = s->pause_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : s->pause_ms * 2;
    int64_t end_us = time_mono_us() + ms * 1000;
    while (!sink_must_end(s) && time_mono_us() < end_us) {
        (void)wake_wait(&s->wake, end_us - time_mono_us());
    }
}

static void run(void *arg) {
    struct sink *s = arg;
    struct greeting *g = mem_must_alloc(sizeof(*g));
    while (!sink_must_end(s)) {
        enum dc_err err = one_link(s, g);
        const char *why = err == DC_OK ? "" : dc_fail_take(err);
        if (self_is_restarting(s->self)) {
            why = "the node starts anew with other data";
        }
        if (!sink_must_end(s)) {
            diag(DIAG_NOTICE, "sink.down target=%s:%" PRIu32 " why=\"%s\"", s->target.host,
                 s->target.port, why);
            set_why(s, why);
            sink_set_link(s, self_is_restarting(s->self) ? LINK_SYNC : LINK_CONNECT);
        }
        close_link(s);
        if (s->target.pulls) {
            break;
        }
        while ((self_is_restarting(s->self) || s->handed_over) && !sink_must_end(s)) {
            (void)wake_wait(&s->wake, 1000 * 1000);
        }
        pause_a_while(s);
    }
    if (s->target.pulls) {
        uint64_t head = log_head(s->self->log).v;
        enum sink_pull pulled = s->copied                              ? SINK_PULL_COPIED
                                : log_applied(s->self->log).v < head   ? SINK_PULL_UNSHOWN
                                : s->pull_to > 0 && head >= s->pull_to ? SINK_PULLED_ALL
                                                                       : SINK_PULL_FAILED;
        atomic_store_explicit(&s->pulled, pulled, memory_order_release);
        wake_raise(s->target.wake);
    }
    mem_free(g);
}

enum sink_pull sink_pull_state(const struct sink *s) {
    return (enum sink_pull)atomic_load_explicit(&s->pulled, memory_order_acquire);
}

struct sink *sink_start(struct self *self, const struct sink_target *target) {
    struct sink *s = mem_must_zalloc(sizeof(*s));
    uint64_t seed;
    s->self = self;
    s->target = *target;
    s->pause_ms = BACKOFF_MIN_MS;
    s->view.down_since_us = time_mono_us();
    buf_init(&s->pending, 0);
    wake_init(&s->wake);
    wake_init(&s->ack_wake);
    lock_init(&s->lock, LOCK_RANK_SINK);
    pthread_mutex_init(&s->send_lock, NULL);
    crypto_random(&seed, sizeof(seed));
    rng_seed(&s->rng, seed);
    s->apply = apply_create(&(struct apply_opts){.store = self->store, .warm = self->data->warm});
    s->feed = log_feed_create(self->log);
    learn_copies(s);
    thread_start(&s->thread, "repl-sink", run, s);
    return s;
}

void sink_stop(struct sink *s) {
    if (s == NULL) {
        return;
    }
    atomic_store_explicit(&s->stop, true, memory_order_release);
    lock_acquire(&s->lock);
    if (s->link != NULL) {
        link_shutdown(s->link);
    }
    lock_release(&s->lock);
    wake_raise(&s->wake);
    thread_join(&s->thread);
    atomic_store_explicit(&s->self->linked, false, memory_order_relaxed);
    log_feed_destroy(s->feed);
    apply_destroy(s->apply);
    buf_fini(&s->pending);
    pthread_mutex_destroy(&s->send_lock);
    lock_fini(&s->lock);
    mem_free(s);
}
