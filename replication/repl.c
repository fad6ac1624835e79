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

enum {
    TICK_MS = 1000,
    REAP_SLACK_MS = 5000, /* times of frames don't quite rise along the log */
};

/* Texts of the metadata. */
static const char conf_seen[] = "replicaof-option"; /* the option at the last start */
static const char ask_text[] = "replicaof-ask";     /* "explicit", "force": no source has taken the order yet */

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
    int64_t start_time_ms; /* the latest time that the log had at the start */
    struct standing standing; /* of the thread */
    struct lock lock;
    /* under lock */
    struct sink *sink; /* NULL = none */
    struct repl_view view;
    enum order order;
    struct sink_target target; /* of the order */
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
    bool is_order = parse_target(option, s) &&
                    (before.role != s->role || before.port != s->port ||
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

/* A history of its own, durable. */
static enum dc_err fork_history(struct repl *r) {
    struct chain_view self;
    struct history next;
    uint64_t random[2];
    self_view(&r->self, &self);
    do {
        crypto_random(random, sizeof(random));
    } while (random[0] == 0);
    enum dc_err err = chain_fork(&self, CHAIN_PROMOTION, random[0], random[1], &next);
    if (err != DC_OK) {
        return err;
    }
    struct histories *chain = histories_add(log_chain(r->self.log), &next);
    err = data_begin_history(r->self.data, chain, NULL, 0);
    mem_free(chain);
    return err;
}

static enum dc_err promote(struct repl *r) {
    enum dc_err err = fork_history(r); /* I2 */
    if (err != DC_OK) {
        return err;
    }
    log_set_follows(r->self.log, false);
    repl_note_epoch(&r->self, histories_last(log_chain(r->self.log))->epoch);
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

/* --- the thread -------------------------------------------------------------------------------------------------- */

static void tick(struct repl *r) {
    source_tick(r->source);
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
    r->writes = opts->writes;
    r->standing = *standing;
    r->start_time_ms = opts->data->plan->last_time_ms;
    atomic_init(&r->self.epoch, standing->epoch);
    lock_init(&r->lock, LOCK_RANK_REPL);
    wake_init(&r->wake);
    r->source = source_create(&r->self);
    *out = r;
    enum dc_err err = standing_own_id(opts->data->meta, r->self.peer_id);
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

void repl_stop(struct repl *r) {
    if (r == NULL || r->thread.run == NULL) {
        return;
    }
    atomic_store_explicit(&r->stop, true, memory_order_release);
    wake_raise(&r->wake);
    thread_join(&r->thread);
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
    r->view.role = ROLE_REPLICA;
    r->view.port = port;
    memcpy(r->view.host, target.host, sizeof(r->view.host));
    lock_release(&r->lock);
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
    return r == NULL ||
           atomic_load_explicit(&r->self.role, memory_order_relaxed) != ROLE_REPLICA ||
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
