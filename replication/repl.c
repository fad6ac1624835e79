/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The thread repl makes what commands have asked for. A replica that is to follow another node, or nobody, goes on as it is: its
 * sink ends, another one begins. A primary that is to follow begins anew in place: its log has other appenders, and may have to be cut.
 *
 *     from       event               what is done                                                 to
 *     primary    REPLICAOF h p       READONLY; noted; start in place                              replica
 *     replica    REPLICAOF h p       noted; the sink ends, the next begins                        replica
 *     replica    REPLICAOF NO ONE    held; the sink ends; new history, durable; noted; taken      primary
 *     replica    a copy, or a cut    noted; start in place                                        replica
 */
#include "replication/repl.h"

#include "persist/adopt.h"
#include "persist/log_tail.h"

#include "replication/sink.h"
#include "replication/source.h"
#include "server/base/assert.h"
#include "server/base/crypto.h"
#include "server/base/diag.h"
#include "server/base/lock.h"
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "server/base/wake.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    TICK_MS = 1000,
    DRAIN_MS = 1000,
    QUIESCE_MS = 2000,
    FORK_TRIES = 100,
    PEERS_PERIOD_MS = 5000,
    REAP_SLACK_MS = 5000, /* times of frames don't quite rise along the log */
};

/* Texts of the metadata. */
static const char conf_seen[] = "replicaof-option"; /* the option at the last start */
static const char ask_text[] =
    "replicaof-ask"; /* "explicit", "force": no source has taken the order yet */

enum order { ORDER_NONE, ORDER_FOLLOW, ORDER_PROMOTE };

struct repl {
    struct self self; /* first: the links know it */
    _Atomic uint32_t *writes;
    struct source *source;
    struct thread thread;
    struct wake wake;
    _Atomic bool stop;
    _Atomic bool epoch_moved;
    _Atomic bool ask_over;
    uint64_t peers_moves; /* of the registry, when it was stored last */
    int64_t peers_due_us;
    int64_t start_time_ms;    /* the latest time that the log had at the start */
    struct standing standing; /* of the thread */
    struct lock lock;
    /* under lock */
    struct sink *sink; /* NULL = none */
    struct repl_view view;
    enum order order;
    struct sink_target target;           /* of the order */
    const struct chain_view *raise_peer; /* somebody waits in repl_raise(); NULL = nobody */
    enum dc_err raised;                  /* what became of it, when raise_over */
    bool raise_over;
    bool stopped;
};

const char *repl_link_name(enum repl_link link) {
    static const char *const names[] = {"connect", "connecting", "sync", "connected"};
    return names[link];
}

/* --- the start --------------------------------------------------------------------------------------------------- */

static bool parse_target(const char *text, struct standing *out) {
    unsigned port;
    out->host[0] = '\0';
    out->port = 0;
    out->role = STANDING_PRIMARY;
    if (sscanf(text, "%255s %u", out->host, &port) == 2) {
        out->port = (uint16_t)port;
        out->role = STANDING_REPLICA;
    }
    return out->role == STANDING_REPLICA;
}

static void show_target(struct conf *conf, const struct standing *s) {
    char text[HOST_NAME_MAX_LEN + 8];
    int len = s->role == STANDING_REPLICA
                  ? snprintf(text, sizeof(text), "%s %" PRIu32, s->host, (uint32_t)s->port)
                  : 0;
    conf_set_text(conf, CONF_ID_replicaof, bytes_of(text, (size_t)len));
}

/* The option has changed, or there is nothing else to go by. */
static enum dc_err obey_option(struct meta *m, const char *option, struct standing *s) {
    struct standing before = *s;
    bool is_order = parse_target(option, s) && (before.role != s->role || before.port != s->port ||
                                                strcmp(before.host, s->host) != 0);
    enum dc_err err = standing_put(m, s);
    err = err == DC_OK && is_order ? meta_put_text(m, ask_text, "explicit") : err;
    return err == DC_OK ? meta_put_text(m, conf_seen, option) : err;
}

enum dc_err repl_decide(struct meta *m, struct conf *conf, bool in_place, struct standing *out) {
    char option[HOST_NAME_MAX_LEN + 8];
    char seen[HOST_NAME_MAX_LEN + 8];
    (void)conf_text(conf, CONF_ID_replicaof, option, sizeof(option));
    enum dc_err err = standing_get(m, out);
    err = err == DC_OK ? meta_get_text(m, conf_seen, seen, sizeof(seen)) : err;
    if (err != DC_OK) {
        return err;
    }
    if (out->role == STANDING_UNKNOWN || (!in_place && strcmp(option, seen) != 0)) {
        err = obey_option(m, option, out);
    }
    show_target(conf, out);
    return err;
}

/* --- small steps ------------------------------------------------------------------------------------------------- */

static void set_writes(struct repl *r, enum writes writes) {
    atomic_store_explicit(r->writes, writes, memory_order_release);
}

static void set_role(struct repl *r, enum repl_role role) {
    atomic_store_explicit(&r->self.role, role, memory_order_release);
    lock_acquire(&r->lock);
    r->view.role = role;
    lock_release(&r->lock);
}

static void warn(const char *what, enum dc_err err) {
    diag(DIAG_WARNING, "repl.failed what=\"%s\" error=\"%s\"", what, dc_fail_take(err));
}

static enum dc_err store_standing(struct repl *r) {
    r->standing.epoch = atomic_load_explicit(&r->self.epoch, memory_order_relaxed);
    return standing_put(r->self.data->meta, &r->standing);
}

/* The sink as others see it; they hold the lock while they use it. */
static struct sink *swap_sink(struct repl *r, struct sink *next) {
    lock_acquire(&r->lock);
    struct sink *old = r->sink;
    r->sink = next;
    lock_release(&r->lock);
    return old;
}

static struct chain_ask stored_ask(struct repl *r) {
    char text[32] = "";
    if (meta_get_text(r->self.data->meta, ask_text, text, sizeof(text)) != DC_OK) {
        warn("reading what was asked for", DC_EIO);
    }
    struct adopt_note note = {.what = ADOPT_NOTHING};
    if (adopt_get(r->self.data->meta, &note) != DC_OK) {
        warn("reading what is to be taken over", DC_EIO);
    }
    bool force = strcmp(text, "force") == 0;
    return (struct chain_ask){.explicit_ = force || strcmp(text, "explicit") == 0,
                              .force = force,
                              .damaged = note.what == ADOPT_NEEDS_COPY};
}

static void begin_sink(struct repl *r) {
    struct sink_target target = {.port = r->standing.port, .ask = stored_ask(r)};
    memcpy(target.host, r->standing.host, sizeof(target.host));
    struct sink *old = swap_sink(r, sink_start(&r->self, &target));
    dc_assert(old == NULL);
}

/* --- orders ------------------------------------------------------------------------------------------------------ */

static void do_follow(struct repl *r, const struct sink_target *target) {
    struct meta *m = r->self.data->meta;
    bool was_replica = r->standing.role == STANDING_REPLICA;
    r->standing.role = STANDING_REPLICA;
    memcpy(r->standing.host, target->host, sizeof(r->standing.host));
    r->standing.port = (uint16_t)target->port;
    r->standing.fence_epoch = r->standing.fence_history = 0;
    enum dc_err err = meta_put_text(m, ask_text, target->ask.force ? "force" : "explicit");
    err = err == DC_OK ? store_standing(r) : err;
    if (err != DC_OK) {
        warn("noting REPLICAOF", err);
    }
    diag(DIAG_NOTICE, "repl.follow target=%s:%" PRIu32, target->host, target->port);
    if (was_replica) {
        sink_stop(swap_sink(r, NULL));
        begin_sink(r);
    } else {
        r->self.host->restart(r->self.host_arg);
    }
}

/* A history of its own, durable (I2): above the peer's, or (NULL) as a promotion begins one. Somebody may still append for a moment, the
 * janitor: then it is tried again. */
static enum dc_err fork_history(struct repl *r, const struct chain_view *peer) {
    enum dc_err err = DC_OK;
    for (int tries = 0; tries < FORK_TRIES; tries++) {
        struct chain_view self;
        struct history next;
        uint64_t random[2] = {0};
        while (random[0] == 0) {
            crypto_random(random, sizeof(random));
        }
        self_view(&r->self, &self);
        err = peer == NULL ? chain_fork(&self, CHAIN_PROMOTION, random[0], random[1], &next)
                           : chain_raise(&self, peer, random[0], random[1], &next);
        err = err == DC_OK ? data_begin_history(r->self.data, &next) : err;
        if (err != DC_EIO) {
            break;
        }
        usleep(1000);
    }
    if (err == DC_OK) {
        repl_note_epoch(&r->self, histories_last(log_chain(r->self.log))->epoch);
    }
    return err;
}

/* Nobody writes meanwhile: those who want to are held. */
static enum dc_err raise_above(struct repl *r, const struct chain_view *peer) {
    if (r->standing.role == STANDING_REPLICA) {
        return dc_fail(DC_ELIMIT, "the node isn't a primary any more");
    }
    set_writes(r, WRITES_HELD);
    bool quiet = r->self.host->quiesce(r->self.host_arg, QUIESCE_MS);
    enum dc_err err =
        quiet ? fork_history(r, peer) : dc_fail(DC_ELIMIT, "a command takes too long");
    lock_acquire(&r->lock);
    if (r->order == ORDER_NONE) { /* else somebody has decided otherwise meanwhile */
        set_writes(r, WRITES_TAKEN);
    }
    lock_release(&r->lock);
    r->self.host->resume(r->self.host_arg);
    if (err == DC_OK) {
        diag(DIAG_NOTICE, "repl.raised epoch=%" PRIu64 " peer_epoch=%" PRIu64,
             histories_last(log_chain(r->self.log))->epoch, peer->epoch);
    }
    return err;
}

static void serve_raise(struct repl *r) {
    lock_acquire(&r->lock);
    const struct chain_view *peer = r->raise_over ? NULL : r->raise_peer;
    lock_release(&r->lock);
    if (peer == NULL) {
        return;
    }
    enum dc_err err = raise_above(r, peer);
    if (err != DC_OK) {
        warn("a higher history", err);
    }
    lock_acquire(&r->lock);
    r->raised = err;
    r->raise_over = true;
    lock_release(&r->lock);
}

static enum dc_err promote(struct repl *r) {
    enum dc_err err = fork_history(r, NULL);
    if (err != DC_OK) {
        return err;
    }
    r->standing.role = STANDING_PRIMARY;
    r->standing.host[0] = '\0';
    r->standing.port = 0;
    return store_standing(r); /* I3; the history says it already */
}

static void do_promote(struct repl *r) {
    if (r->standing.role != STANDING_REPLICA) {
        set_writes(r, WRITES_TAKEN);
        return;
    }
    struct sink *sink = swap_sink(r, NULL);
    sink_stop(sink);
    int64_t time_ms = atomic_load_explicit(&r->self.passed_ms, memory_order_relaxed);
    if (time_ms > 0) { /* what has expired there stays so */
        clock_raise_floor(r->self.clock, time_ms * 1000, time_mono_us());
    }
    enum dc_err err = promote(r);
    if (err != DC_OK) {
        warn("promotion", err);
        if (r->standing.role == STANDING_REPLICA) {
            set_role(r, ROLE_REPLICA);
            set_writes(r, WRITES_READONLY);
            begin_sink(r);
            return;
        }
    }
    set_role(r, ROLE_PRIMARY);
    set_writes(r, WRITES_TAKEN);
    diag(DIAG_NOTICE, "repl.primary epoch=%" PRIu64 " head=%" PRIu64, r->standing.epoch,
         log_head(r->self.log).v);
}

static enum order take_order(struct repl *r, struct sink_target *target) {
    lock_acquire(&r->lock);
    enum order order = r->order;
    *target = r->target;
    r->order = ORDER_NONE;
    lock_release(&r->lock);
    return order;
}

/* --- who has followed this node ---------------------------------------------------------------------------------- */

struct peers_now {
    struct standing_peer list[PEERS_MAX];
    uint32_t count;
};

static void add_peer(const struct replica_seen *seen, void *arg) {
    struct peers_now *p = arg;
    if (p->count == PEERS_MAX || seen->port == 0) {
        return;
    }
    struct standing_peer *to = &p->list[p->count++];
    *to = (struct standing_peer){.port = seen->port,
                                 .received = seen->received,
                                 .durable = seen->durable,
                                 .seen_ms = time_wall_us() / 1000};
    memcpy(to->id, seen->peer, NODE_ID_LEN);
    snprintf(to->host, sizeof(to->host), "%s", seen->addr);
}

/* Whom to ask after an unclean stop, and what they had acknowledged. */
static void store_peers(struct repl *r) {
    struct peers_now *p = mem_must_zalloc(sizeof(*p));
    replicas_each(r->self.replicas, add_peer, p);
    enum dc_err err = standing_put_peers(r->self.data->meta, p->list, p->count);
    if (err != DC_OK) {
        warn("noting the replicas", err);
    }
    mem_free(p);
}

/* Now and then while something moves. */
static void note_peers(struct repl *r, bool now) {
    uint64_t moves = replicas_moves(r->self.replicas);
    int64_t now_us = time_mono_us();
    if (moves != r->peers_moves && (now || now_us >= r->peers_due_us)) {
        r->peers_moves = moves;
        r->peers_due_us = now_us + (int64_t)PEERS_PERIOD_MS * 1000;
        store_peers(r);
    }
}

static enum dc_err load_peers(struct repl *r) {
    struct peers_now *p = mem_must_zalloc(sizeof(*p));
    enum dc_err err = standing_get_peers(r->self.data->meta, p->list, &p->count);
    for (uint32_t i = 0; i < p->count && err == DC_OK; i++) {
        const struct standing_peer *peer = &p->list[i];
        replicas_know(r->self.replicas, peer->id, peer->host, peer->port, peer->received,
                      peer->durable);
    }
    r->peers_moves = replicas_moves(r->self.replicas);
    mem_free(p);
    return err;
}

/* --- the thread -------------------------------------------------------------------------------------------------- */

static void tick(struct repl *r) {
    source_tick(r->source);
    note_peers(r, false);
    if (atomic_exchange_explicit(&r->epoch_moved, false, memory_order_acquire)) {
        enum dc_err err = store_standing(r);
        if (err != DC_OK) {
            warn("noting the epoch", err);
        }
    }
    if (atomic_exchange_explicit(&r->ask_over, false, memory_order_acquire)) {
        enum dc_err err = meta_put_text(r->self.data->meta, ask_text, "");
        if (err != DC_OK) {
            warn("noting that REPLICAOF was taken", err);
        }
    }
}

static void run(void *arg) {
    struct repl *r = arg;
    struct sink_target target;
    while (!atomic_load_explicit(&r->stop, memory_order_acquire)) {
        switch (take_order(r, &target)) {
        case ORDER_FOLLOW:
            do_follow(r, &target);
            r->self.host->resume(r->self.host_arg);
            break;
        case ORDER_PROMOTE:
            do_promote(r);
            r->self.host->resume(r->self.host_arg);
            break;
        case ORDER_NONE:
            serve_raise(r);
            tick(r);
            (void)wake_wait(&r->wake, (int64_t)TICK_MS * 1000);
            break;
        }
    }
}

enum dc_err repl_start(const struct repl_opts *opts, const struct standing *standing,
                       struct repl **out) {
    struct repl *r = mem_must_zalloc(sizeof(*r));
    bool follows = standing->role == STANDING_REPLICA;
    r->self.conf = opts->conf;
    r->self.data = opts->data;
    r->self.log = opts->data->log;
    r->self.store = opts->store;
    r->self.clock = opts->clock;
    r->self.replicas = opts->replicas;
    r->self.host = opts->host;
    r->self.host_arg = opts->arg;
    r->self.fresh_us = opts->fresh_us;
    r->self.link_key = opts->link_key;
    r->writes = opts->writes;
    r->standing = *standing;
    r->start_time_ms = opts->data->plan->last_time_ms;
    atomic_init(&r->self.epoch, standing->epoch);
    lock_init(&r->lock, LOCK_RANK_REPL);
    wake_init(&r->wake);
    r->source = source_create(&r->self);
    *out = r;
    enum dc_err err = standing_own_id(opts->data->meta, r->self.peer_id);
    err = err == DC_OK ? load_peers(r) : err;
    if (err != DC_OK) {
        return err;
    }
    set_role(r, follows ? ROLE_REPLICA : ROLE_PRIMARY);
    set_writes(r, follows ? WRITES_READONLY : WRITES_TAKEN);
    if (follows) {
        memcpy(r->view.host, standing->host, sizeof(r->view.host));
        r->view.port = standing->port;
        begin_sink(r);
    }
    thread_start(&r->thread, "repl", run, r);
    return DC_OK;
}

struct drain {
    uint64_t head;
    bool all;
};

static void look_at_replica(const struct replica_seen *seen, void *arg) {
    struct drain *d = arg;
    d->all =
        d->all && (seen->slot < 0 || seen->state != REPLICA_ONLINE || seen->received >= d->head);
}

/* Nobody writes any more: what was acknowledged to clients gets to the replicas that are there, so that each could take over. */
static void drain(struct repl *r) {
    int64_t end_us = time_mono_us() + (int64_t)DRAIN_MS * 1000;
    struct drain d;
    do {
        d = (struct drain){.head = log_head(r->self.log).v, .all = true};
        replicas_each(r->self.replicas, look_at_replica, &d);
    } while (!d.all && time_mono_us() < end_us && usleep(1000) == 0);
}

void repl_stop(struct repl *r) {
    if (r == NULL || r->thread.run == NULL) {
        return;
    }
    drain(r);
    note_peers(r, true);
    atomic_store_explicit(&r->stop, true, memory_order_release);
    wake_raise(&r->wake);
    thread_join(&r->thread);
    lock_acquire(&r->lock);
    r->raised = DC_ESTOPPED;
    r->raise_over = r->stopped = true;
    lock_release(&r->lock);
    source_stop(r->source);
    sink_stop(swap_sink(r, NULL));
    tick(r);
}

void repl_destroy(struct repl *r) {
    if (r != NULL) {
        source_destroy(r->source);
        lock_fini(&r->lock);
        mem_free(r);
    }
}

/* --- commands ---------------------------------------------------------------------------------------------------- */

void repl_accept(struct repl *r, int fd, struct bytes early) {
    source_accept(r->source, fd, early);
}

static void give_order(struct repl *r, enum order order, const struct sink_target *target) {
    lock_acquire(&r->lock);
    r->order = order;
    if (target != NULL) {
        r->target = *target;
    }
    lock_release(&r->lock);
    wake_raise(&r->wake);
}

enum dc_err repl_follow(struct repl *r, struct bytes host, uint32_t port, bool force) {
    struct sink_target target = {.port = port, .ask = {.explicit_ = true, .force = force}};
    if (host.len == 0 || host.len >= HOST_NAME_MAX_LEN) {
        return dc_fail(DC_ELIMIT, "the address is too long");
    }
    memcpy(target.host, host.ptr, host.len);
    set_writes(r, WRITES_READONLY); /* I1 */
    lock_acquire(&r->lock);
    bool was_replica = r->view.role == ROLE_REPLICA;
    r->view.role = ROLE_REPLICA;
    r->view.port = port;
    memcpy(r->view.host, target.host, sizeof(r->view.host));
    lock_release(&r->lock);
    if (!was_replica) {
        r->self.host->refuse_waiting(r->self.host_arg, "the node follows another one now");
    }
    struct standing shown = {.role = STANDING_REPLICA, .port = (uint16_t)port};
    memcpy(shown.host, target.host, sizeof(shown.host));
    show_target(r->self.conf, &shown);
    give_order(r, ORDER_FOLLOW, &target);
    return DC_OK;
}

void repl_promote(struct repl *r) {
    struct standing shown = {.role = STANDING_PRIMARY};
    lock_acquire(&r->lock);
    bool nothing = r->view.role == ROLE_PRIMARY;
    r->view.role = ROLE_PRIMARY;
    lock_release(&r->lock);
    show_target(r->self.conf, &shown);
    if (!nothing) {
        set_writes(r, WRITES_HELD);
        give_order(r, ORDER_PROMOTE, NULL);
    }
}

/* --- questions --------------------------------------------------------------------------------------------------- */

bool repl_is_current(const struct repl *r) {
    return r == NULL || atomic_load_explicit(&r->self.role, memory_order_relaxed) != ROLE_REPLICA ||
           atomic_load_explicit(&r->self.linked, memory_order_relaxed);
}

int64_t repl_reap_ms(const struct repl *r, int64_t now_ms) {
    if (r == NULL || atomic_load_explicit(&r->self.role, memory_order_acquire) != ROLE_REPLICA) {
        return now_ms;
    }
    int64_t passed_ms = atomic_load_explicit(&r->self.passed_ms, memory_order_relaxed);
    passed_ms = passed_ms > r->start_time_ms ? passed_ms : r->start_time_ms;
    return passed_ms - REAP_SLACK_MS < now_ms ? passed_ms - REAP_SLACK_MS : now_ms;
}

void repl_view(struct repl *r, struct repl_view *out) {
    lock_acquire(&r->lock);
    *out = r->view;
    if (r->sink != NULL) {
        sink_view(r->sink, out);
    }
    lock_release(&r->lock);
    out->received_lsn = log_head(r->self.log).v;
    out->applied_lsn = log_applied(r->self.log).v;
}

void repl_stats(struct repl *r, struct repl_stats *out) {
    struct source_stats source;
    struct sink_stats sink = {.full = 0};
    source_stats(r->source, &source);
    lock_acquire(&r->lock);
    if (r->sink != NULL) {
        sink_stats(r->sink, &sink);
    }
    lock_release(&r->lock);
    *out = (struct repl_stats){.sent_full = source.full,
                               .sent_partial = source.partial,
                               .refused = source.refused,
                               .copies_under_way = source.copies_under_way,
                               .got_full = sink.full,
                               .got_partial = sink.partial};
    memcpy(out->sent_full_reason, source.last_full_reason, sizeof(out->sent_full_reason));
    memcpy(out->got_full_reason, sink.last_full_reason, sizeof(out->got_full_reason));
}

/* --- from the links ---------------------------------------------------------------------------------------------- */

void repl_note_epoch(struct self *self, uint64_t epoch) {
    struct repl *r = (struct repl *)self;
    uint64_t seen = atomic_load_explicit(&self->epoch, memory_order_relaxed);
    while (epoch > seen) {
        if (atomic_compare_exchange_weak_explicit(&self->epoch, &seen, epoch, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            atomic_store_explicit(&r->epoch_moved, true, memory_order_release);
            wake_raise(&r->wake);
            return;
        }
    }
}

void repl_ask_taken(struct self *self) {
    struct repl *r = (struct repl *)self;
    atomic_store_explicit(&r->ask_over, true, memory_order_release);
    wake_raise(&r->wake);
}

enum dc_err repl_raise(struct self *self, const struct chain_view *peer) {
    struct repl *r = (struct repl *)self;
    lock_acquire(&r->lock);
    bool taken = !r->stopped && r->raise_peer == NULL;
    if (taken) {
        r->raise_peer = peer;
        r->raise_over = false;
    }
    lock_release(&r->lock);
    if (!taken) {
        return dc_fail(DC_ELIMIT, "another history is being begun");
    }
    wake_raise(&r->wake);
    for (;;) {
        lock_acquire(&r->lock);
        bool over = r->raise_over;
        enum dc_err err = r->raised;
        if (over) {
            r->raise_peer = NULL;
        }
        lock_release(&r->lock);
        if (over) {
            return err;
        }
        usleep(1000);
    }
}
