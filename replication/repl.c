/* SPDX-License-Identifier: BSD-3-Clause */
/* Life, commands and questions; repl_role.c has the table of roles. */
#include "replication/repl.h"

#include "persist/log_tail.h"
#include "replication/repl_priv.h"
#include "server/base/assert.h"
#include "server/base/diag.h"
#include "server/base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *repl_link_name(enum repl_link link) {
    static const char *const names[] = {"connect", "connecting", "sync", "connected"};
    return names[link];
}

void repl_warn(const char *what, enum dc_err err) {
    diag(DIAG_WARNING, "repl.failed what=\"%s\" error=\"%s\"", what, dc_fail_take(err));
}

void repl_set_writes(struct repl *r, enum writes writes) {
    atomic_store_explicit(r->writes, writes, memory_order_release);
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

void repl_show_target(struct conf *conf, const struct standing *s) {
    char text[HOST_NAME_MAX_LEN + 8];
    int len = s->role == STANDING_REPLICA
                  ? snprintf(text, sizeof(text), "%s %" PRIu32, s->host, (uint32_t)s->port)
                  : 0;
    conf_set_text(conf, CONF_ID_replicaof, bytes_of(text, (size_t)len));
}

/* The option has changed, or there is nothing else to go by. A replica without the option is promoted as by REPLICAOF NO ONE: it is one until its own
 * history is durable. */
static enum dc_err obey_option(struct meta *m, const char *option, struct standing *s) {
    struct standing before = *s;
    bool is_order = parse_target(option, s) && (before.role != s->role || before.port != s->port ||
                                                strcmp(before.host, s->host) != 0);
    bool chosen = before.role == STANDING_REPLICA && s->role == STANDING_PRIMARY;
    *s = chosen ? before : *s;
    enum dc_err err = standing_put(m, s);
    err = err == DC_OK ? meta_put_text(m, REPL_CHOSEN, chosen ? "yes" : "") : err;
    err = err == DC_OK && is_order ? meta_put_text(m, REPL_ASK, "explicit") : err;
    err = err == DC_OK && is_order && before.role != STANDING_REPLICA
              ? meta_put_text(m, REPL_BRANCH, "own")
              : err;
    return err == DC_OK ? meta_put_text(m, REPL_CONF_SEEN, option) : err;
}

enum dc_err repl_decide(struct meta *m, struct conf *conf, bool in_place, struct standing *out) {
    char option[HOST_NAME_MAX_LEN + 8];
    char seen[HOST_NAME_MAX_LEN + 8];
    (void)conf_text(conf, CONF_ID_replicaof, option, sizeof(option));
    enum dc_err err = standing_get(m, out);
    err = err == DC_OK ? meta_get_text(m, REPL_CONF_SEEN, seen, sizeof(seen)) : err;
    if (err != DC_OK) {
        return err;
    }
    if (out->role == STANDING_UNKNOWN || (!in_place && strcmp(option, seen) != 0)) {
        err = obey_option(m, option, out);
    }
    repl_show_target(conf, out);
    return err;
}

/* --- the thread ---------------------------------------------------------------------------------------------------- */

/* INFO shows it: a worker must not list a directory, whose disk may hang (H14). */
static void look_for_oldest(struct repl *r) {
    int64_t now_us = time_mono_us();
    if (now_us < r->oldest_due_us) {
        return;
    }
    r->oldest_due_us = now_us + TICK_MS * 1000;
    uint64_t oldest = log_tail_oldest(r->self.data);
    lock_acquire(&r->lock);
    r->log_oldest = oldest;
    lock_release(&r->lock);
}

/* As a rule the snapshotter has, but it may be at a snapshot for long. */
static void note_unkept(struct repl *r) {
    int64_t now_us = time_mono_us();
    if (now_us < r->unkept_due_us) {
        return;
    }
    enum dc_err err = data_note_unkept(r->self.data);
    if (err != DC_OK) {
        r->unkept_due_us = now_us + NOTE_AGAIN_MS * 1000;
        repl_warn("noting that the log isn't kept", err);
    }
}

static void tick(struct repl *r) {
    source_tick(r->source);
    note_unkept(r);
    look_for_oldest(r);
    repl_peers_note(r, false);
    data_set_pin_limit(r->self.data, (uint64_t)conf_get(r->self.conf, replication_pin_size));
    if (atomic_exchange_explicit(&r->epoch_moved, false, memory_order_acquire)) {
        enum dc_err err = repl_store_standing(r);
        if (err != DC_OK) {
            repl_warn("noting the epoch", err);
        }
    }
    if (atomic_exchange_explicit(&r->ask_over, false, memory_order_acquire)) {
        enum dc_err err = meta_put_text(r->self.data->meta, REPL_ASK, "");
        err = err == DC_OK ? meta_put_text(r->self.data->meta, REPL_ORDERS, "") : err;
        err = err == DC_OK ? meta_put_text(r->self.data->meta, REPL_BRANCH, "") : err;
        r->own_branch = false;
        if (err != DC_OK) {
            repl_warn("noting that REPLICAOF was taken", err);
        }
    }
    if (atomic_exchange_explicit(&r->shared_moved, false, memory_order_acquire) &&
        meta_put_text(r->self.data->meta, STANDING_SHARED, "yes") != DC_OK) {
        repl_warn("noting that others have these data", DC_EIO);
    }
}

static void run(void *arg) {
    struct repl *r = arg;
    struct sink_target target;
    while (!atomic_load_explicit(&r->stop, memory_order_acquire)) {
        switch (repl_take_order(r, &target)) {
        case ORDER_FOLLOW:
            repl_do_follow(r, &target);
            break;
        case ORDER_PROMOTE:
            repl_do_promote(r, true);
            break;
        case ORDER_TAKE_OVER:
            repl_do_promote(r, false);
            break;
        case ORDER_NONE:
            if (repl_switch_step(r)) {
                tick(r);
                break;
            }
            repl_serve_raise(r);
            tick(r);
            repl_note_again(r);
            if (r->goes_on) {
                repl_go_on(r, true, r->goes_on_as);
            }
            repl_peers_step(r);
            (void)wake_wait(&r->wake, repl_peers_wait_ms(r, TICK_MS) * 1000);
            break;
        }
    }
}

/* What is remembered besides the standing. Errors: those of the metadata. */
static enum dc_err load_marks(struct repl *r) {
    char orders[16] = "", shared[8] = "", branch[8] = "";
    enum dc_err err = meta_get_text(r->self.data->meta, REPL_ORDERS, orders, sizeof(orders));
    err = err == DC_OK ? meta_get_text(r->self.data->meta, STANDING_SHARED, shared, sizeof(shared))
                       : err;
    err =
        err == DC_OK ? meta_get_text(r->self.data->meta, REPL_BRANCH, branch, sizeof(branch)) : err;
    r->own_branch = strcmp(branch, "own") == 0;
    atomic_init(&r->self.orders, (uint32_t)strtoul(orders, NULL, 10));
    atomic_init(&r->self.shared, strcmp(shared, "yes") == 0);
    return err;
}

static enum repl_role stored_role(const struct repl *r) {
    return r->standing.role == STANDING_REPLICA ? ROLE_REPLICA
           : r->standing.fence_epoch != 0       ? ROLE_FENCED
                                                : ROLE_PULLING;
}

/* What the node was when it ended; a primary asks its peers before it goes on, and who was about to be promoted goes on with that. */
static void begin_role(struct repl *r) {
    enum repl_role role = stored_role(r);
    enum peers_why why = PEERS_PROMOTED;
    repl_set_role(r, role);
    if (role == ROLE_REPLICA) {
        memcpy(r->view.host, r->standing.host, sizeof(r->view.host));
        r->view.port = r->standing.port;
    } else {
        why = repl_why_at_start(r);
    }
    if (repl_is_chosen(r)) {
        repl_set_writes(r, WRITES_HELD);
        repl_do_promote(r, true);
    } else if (role == ROLE_REPLICA) {
        repl_set_writes(r, WRITES_READONLY);
        repl_begin_sink(r);
    } else if (role == ROLE_FENCED) {
        repl_set_writes(r, WRITES_FENCED);
    } else {
        repl_set_writes(r, WRITES_HELD);
        repl_peers_ask(r, why);
        repl_peers_step(r);
    }
}

bool repl_opens_following(const struct data *d, const struct standing *s) {
    struct standing_peer *peers = mem_must_alloc(PEERS_MAX * sizeof(*peers));
    uint32_t count = 0;
    bool known = standing_get_peers(d->meta, peers, &count) == DC_OK && count > 0;
    mem_free(peers);
    /* One that follows nobody, and begun no history of its own since it did, ended while it asked. */
    return s->role == STANDING_REPLICA || s->fence_epoch != 0 ||
           (known && !d->plan->empty && (!d->plan->clean || d->followed));
}

enum dc_err repl_start(const struct repl_opts *opts, const struct standing *standing,
                       struct repl **out) {
    struct repl *r = mem_must_zalloc(sizeof(*r));
    r->self.conf = opts->conf;
    r->self.data = opts->data;
    r->self.log = opts->data->log;
    r->self.store = opts->store;
    r->self.clock = opts->clock;
    r->self.replicas = opts->replicas;
    r->self.host = opts->host;
    r->self.host_arg = opts->arg;
    r->self.link_key = opts->link_key;
    r->writes = opts->writes;
    r->standing = *standing;
    r->start_time_ms = opts->data->plan->last_time_ms;
    atomic_init(&r->self.epoch, standing->epoch);
    lock_init(&r->lock, LOCK_RANK_REPL);
    lock_init(&r->self.peers_lock, LOCK_RANK_PEERS);
    wake_init(&r->wake);
    r->source = source_create(&r->self);
    r->peers = peers_create(&(struct peers_opts){.ask_again_ms = 0});
    *out = r;
    enum dc_err err = standing_own_id(opts->data->meta, r->self.peer_id);
    err = err == DC_OK ? repl_peers_load(r) : err;
    err = err == DC_OK ? load_marks(r) : err;
    if (err == DC_OK) {
        begin_role(r);
        look_for_oldest(r);
        thread_start(&r->thread, "repl", run, r);
    }
    return err;
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
    replicas_ask(r->self.replicas, time_mono_us());
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
    atomic_store_explicit(&r->stop, true, memory_order_release);
    wake_raise(&r->wake);
    thread_join(&r->thread);
    lock_acquire(&r->lock);
    r->raised = DC_ESTOPPED;
    r->raise_over = r->stopped = true;
    lock_release(&r->lock);
    repl_peers_end(r);
    repl_peers_note(r, true);
    repl_switch_end(r);
    source_stop(r->source);
    repl_end_sink(r);
    tick(r);
}

void repl_destroy(struct repl *r) {
    if (r != NULL) {
        source_destroy(r->source);
        peers_destroy(r->peers);
        lock_fini(&r->self.peers_lock);
        lock_fini(&r->lock);
        mem_free(r);
    }
}

/* --- commands ---------------------------------------------------------------------------------------------------- */

void repl_accept(struct repl *r, int fd, struct bytes early) {
    source_accept(r->source, fd, early);
}

enum dc_err repl_follow(struct repl *r, struct bytes host, uint32_t port, bool force,
                        uint64_t *order) {
    struct sink_target target = {.port = port, .ask = {.explicit_ = true, .force = force}};
    if (host.len == 0 || host.len >= HOST_NAME_MAX_LEN) {
        return dc_fail(DC_ELIMIT, "the address is too long");
    }
    memcpy(target.host, host.ptr, host.len);
    repl_set_writes(r, WRITES_READONLY); /* I1 */
    lock_acquire(&r->lock);
    bool was_replica = r->view.role == ROLE_REPLICA && !r->view.promoting;
    r->view.role = ROLE_REPLICA;
    r->view.promoting = false;
    r->view.port = port;
    memcpy(r->view.host, target.host, sizeof(r->view.host));
    lock_release(&r->lock);
    if (!was_replica) {
        r->self.host->refuse_waiting(r->self.host_arg, "the node follows another one now");
    }
    struct standing shown = {.role = STANDING_REPLICA, .port = (uint16_t)port};
    memcpy(shown.host, target.host, sizeof(shown.host));
    repl_show_target(r->self.conf, &shown);
    *order = repl_give_order(r, ORDER_FOLLOW, &target);
    return DC_OK;
}

uint64_t repl_promote(struct repl *r) {
    struct standing shown = {.role = STANDING_PRIMARY};
    lock_acquire(&r->lock);
    bool nothing = r->view.role == ROLE_PRIMARY || r->view.promoting;
    r->view.promoting = !nothing;
    lock_release(&r->lock);
    repl_show_target(r->self.conf, &shown);
    if (nothing) {
        return repl_last_order(r);
    }
    repl_set_writes(r, WRITES_HELD);
    return repl_give_order(r, ORDER_PROMOTE, NULL);
}

/* --- questions --------------------------------------------------------------------------------------------------- */

bool repl_is_current(const struct repl *r) {
    if (r == NULL || atomic_load_explicit(&r->self.linked, memory_order_relaxed)) {
        return true;
    }
    enum repl_role role = (enum repl_role)atomic_load_explicit(&r->self.role, memory_order_relaxed);
    return role == ROLE_PRIMARY || role == ROLE_PULLING;
}

int64_t repl_staleness_ms(const struct repl *r) {
    if (r == NULL) {
        return 0;
    }
    int64_t fresh_us = atomic_load_explicit(&r->self.fresh_us, memory_order_relaxed);
    switch ((enum writes)atomic_load_explicit(r->writes, memory_order_acquire)) {
    case WRITES_TAKEN:
        return 0;
    case WRITES_HELD: /* perhaps because others may have more */
        return log_follows(r->self.log) ||
                       atomic_load_explicit(&r->self.hands_over, memory_order_acquire)
                   ? INT64_MAX
                   : 0;
    case WRITES_FENCED:
        return INT64_MAX;
    case WRITES_READONLY:
        return fresh_us == 0 ? INT64_MAX : (time_mono_us() - fresh_us) / 1000;
    }
    dc_unreachable();
}

void repl_beat(const struct self *self, struct wire_beat *out) {
    const struct repl *r = (const struct repl *)self;
    /* The clock is read first: whatever has an older time is below the head by then, but for commands under way. */
    out->clock_ms = clock_now_ms(self->clock);
    out->age_ms = repl_staleness_ms(r);
    bool leads = out->age_ms == 0 &&
                 atomic_load_explicit(r->writes, memory_order_acquire) != WRITES_READONLY;
    out->shown_ms =
        leads ? out->clock_ms : atomic_load_explicit(&self->passed_ms, memory_order_relaxed);
    out->durable = self_durable(self);
    out->head = log_head(self->log).v;
}

int64_t repl_reap_ms(const struct repl *r, int64_t now_ms) {
    if (r == NULL || !log_follows(r->self.log)) {
        return now_ms;
    }
    int64_t passed_ms = atomic_load_explicit(&r->self.passed_ms, memory_order_relaxed);
    passed_ms = passed_ms > r->start_time_ms ? passed_ms : r->start_time_ms;
    return passed_ms - REAP_SLACK_MS < now_ms ? passed_ms - REAP_SLACK_MS : now_ms;
}

uint64_t repl_behind(const struct log *log, const struct replica_seen *seen) {
    return histories_distance(log_chain(log), seen->received, log_head(log).v);
}

static int64_t lag_bytes(const struct repl *r, const struct repl_view *v) {
    uint64_t head = v->source_head > v->received_lsn ? v->source_head : v->received_lsn;
    if (v->source_head == 0) {
        return -1;
    }
    return (int64_t)histories_distance(log_chain(r->self.log), v->applied_lsn, head);
}

void repl_view(struct repl *r, struct repl_view *out) {
    lock_acquire(&r->lock);
    *out = r->view;
    if (r->sink != NULL) {
        sink_view(r->sink, out);
    }
    lock_release(&r->lock);
    out->is_slave = out->role == ROLE_REPLICA || out->role == ROLE_FENCED || out->promoting;
    out->received_lsn = log_head(r->self.log).v;
    out->applied_lsn = log_applied(r->self.log).v;
    out->lag_bytes = lag_bytes(r, out);
    struct chain_view self;
    self_view(&r->self, &self);
    out->unfit = out->role == ROLE_FENCED || self.count == 0 ||
                 !atomic_load_explicit(&r->self.shared, memory_order_relaxed);
}

void repl_stats(struct repl *r, struct repl_stats *out) {
    struct source_stats source;
    struct sink_stats sink = {.full = 0};
    source_stats(r->source, &source);
    lock_acquire(&r->lock);
    if (r->sink != NULL) {
        sink_stats(r->sink, &sink);
    }
    uint64_t oldest = r->log_oldest;
    lock_release(&r->lock);
    *out = (struct repl_stats){.sent_full = source.full,
                               .sent_partial = source.partial,
                               .refused = source.refused,
                               .copies_under_way = source.copies_under_way,
                               .got_full = sink.full,
                               .got_partial = sink.partial};
    uint64_t head = log_head(r->self.log).v;
    if (oldest <= head) {
        out->log_oldest = oldest;
        out->log_bytes = histories_distance(log_chain(r->self.log), oldest, head);
    }
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
    atomic_store_explicit(&self->orders, 0, memory_order_relaxed);
    atomic_store_explicit(&r->ask_over, true, memory_order_release);
    lock_acquire(&r->lock);
    r->view.untaken = false;
    lock_release(&r->lock);
    wake_raise(&r->wake);
}

void repl_note_shared(struct self *self) {
    struct repl *r = (struct repl *)self;
    if (!atomic_exchange_explicit(&self->shared, true, memory_order_relaxed)) {
        atomic_store_explicit(&r->shared_moved, true, memory_order_release);
        wake_raise(&r->wake);
    }
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
