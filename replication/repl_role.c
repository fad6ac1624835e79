/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changes of the role, by the thread repl. A replica that is to follow another node, or nobody, goes on as it is: its sink ends, another one
 * begins. A primary that is to follow begins anew in place: its log has other appenders, and may have to be cut.
 *
 *     from       event                          what is done                                                       to
 *     primary    REPLICAOF h p                  READONLY; noted; start in place                                    replica
 *     replica    REPLICAOF h p                  noted; the sink ends, the next begins                              replica
 *     replica    REPLICAOF NO ONE               held; the sink ends; peers are asked                               pulling
 *     fenced     REPLICAOF NO ONE               likewise                                                           pulling
 *     pulling    REPLICAOF NO ONE               asked anew, as one that was chosen                                 pulling
 *     replica    PROMOTE from its source        held; the sink ends; new history, durable; noted; taken            primary
 *     (start)    of a primary                   held; peers are asked                                              pulling
 *     pulling    peers have answered, or time   new history, durable, unless the start was clean and
 *                                               no higher epoch is known; noted; taken                             primary
 *     pulling    the history can't be stored    who was told to promote it hears so                                replica, fenced
 *     pulling    likewise, and nobody told it   held; tried again                                                  pulling
 *     pulling    a peer has what was lost       its log up to its end; then they are asked again                   pulling
 *     pulling    likewise, but not the log      a copy, noted; chosen is noted, if it is so; start in place        pulling
 *     pulling,   the log has more than the      chosen is noted, if it is so; start in place                       pulling
 *     replica    store, which is to be taken
 *     primary,   a peer that was asked shows    noted; FENCED                                                      fenced
 *     pulling    a higher primary               or, if it was pulling and gives nothing up: as REPLICAOF           replica
 *     primary    a peer of higher rank gives    held; a higher history, durable; taken                             primary
 *     fenced     way to this node               or, if the fence came before its peers were heard: as NO ONE       pulling
 *     replica    a copy, or a cut               noted; start in place                                              replica
 */
#include "persist/adopt.h"
#include "replication/repl_priv.h"
#include "server/base/assert.h"
#include "server/base/crypto.h"
#include "server/base/diag.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* --- small steps ------------------------------------------------------------------------------------------------- */

void repl_set_role(struct repl *r, enum repl_role role) {
    atomic_store_explicit(&r->self.role, role, memory_order_release);
    lock_acquire(&r->lock);
    r->view.role = role;
    r->view.promoting = r->view.promoting && role == ROLE_PULLING;
    lock_release(&r->lock);
}

/* An order that came meanwhile, or a FAILOVER, has said already what becomes of writes. */
void repl_allow_writes(struct repl *r, enum writes writes) {
    lock_acquire(&r->lock);
    bool switches = r->view.failover != FAILOVER_NONE && writes == WRITES_TAKEN;
    if (r->order == ORDER_NONE && !self_is_restarting(&r->self) && !switches) {
        repl_set_writes(r, writes);
    }
    lock_release(&r->lock);
    r->self.host->resume(r->self.host_arg);
}

static void begin_anew(struct repl *r) {
    repl_let_answer(r);
    self_begin_anew(&r->self);
}

enum dc_err repl_store_standing(struct repl *r) {
    r->standing.epoch = atomic_load_explicit(&r->self.epoch, memory_order_relaxed);
    return standing_put(r->self.data->meta, &r->standing);
}

/* With what becomes of an order: none of it can be found without the rest. */
static enum dc_err store_role(struct repl *r, const char *ask) {
    char orders[16];
    struct meta_text more[] = {{REPL_ASK, ask},
                               {REPL_CHOSEN, ""},
                               {REPL_ORDERS, orders},
                               {REPL_BRANCH, r->own_branch ? "own" : ""}};
    snprintf(orders, sizeof(orders), "%" PRIu32,
             atomic_load_explicit(&r->self.orders, memory_order_relaxed));
    r->standing.epoch = atomic_load_explicit(&r->self.epoch, memory_order_relaxed);
    return standing_put_with(r->self.data->meta, &r->standing, more,
                             sizeof(more) / sizeof(more[0]));
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
    if (meta_get_text(r->self.data->meta, REPL_ASK, text, sizeof(text)) != DC_OK) {
        repl_warn("reading what was asked for", DC_EIO);
    }
    struct adopt_note note = {.what = ADOPT_NOTHING};
    if (adopt_get(r->self.data->meta, &note) != DC_OK) {
        repl_warn("reading what is to be taken over", DC_EIO);
    }
    bool force = strcmp(text, "force") == 0;
    return (struct chain_ask){.explicit_ = force || strcmp(text, "explicit") == 0,
                              .force = force,
                              .damaged = note.what == ADOPT_NEEDS_COPY};
}

void repl_begin_sink(struct repl *r) {
    struct sink_target target = {.port = r->standing.port, .ask = stored_ask(r)};
    memcpy(target.host, r->standing.host, sizeof(target.host));
    lock_acquire(&r->lock);
    r->view.untaken = target.ask.explicit_ && r->own_branch;
    lock_release(&r->lock);
    struct sink *old = swap_sink(r, sink_start(&r->self, &target));
    dc_assert(old == NULL);
}

void repl_end_sink(struct repl *r) {
    sink_stop(swap_sink(r, NULL));
}

bool repl_is_chosen(struct repl *r) {
    char text[8] = "";
    if (meta_get_text(r->self.data->meta, REPL_CHOSEN, text, sizeof(text)) != DC_OK) {
        repl_warn("reading whether it is to be promoted", DC_EIO);
    }
    return strcmp(text, "yes") == 0;
}

static void stand_as_primary(struct repl *r) {
    r->standing.role = STANDING_PRIMARY;
    r->standing.host[0] = '\0';
    r->standing.port = 0;
    r->standing.fence_epoch = r->standing.fence_history = 0;
    r->own_branch = false;
}

/* --- to follow --------------------------------------------------------------------------------------------------- */

/* Nothing follows from an order before it is stored (I3): a start in place would find another one. Writes are refused meanwhile. */
static void note_target(struct repl *r) {
    const char *ask = r->ask.force ? "force" : r->ask.explicit_ ? "explicit" : "";
    enum dc_err err = store_role(r, ask);
    r->notes_target = err != DC_OK;
    if (err != DC_OK) {
        repl_order_fails(r, "noting whom to follow", err);
        return;
    }
    repl_order_over(r, DC_OK);
    if (self_is_restarting(&r->self)) {
        return;
    }
    if (log_follows(r->self.log)) { /* nobody else appends */
        repl_set_role(r, ROLE_REPLICA);
        repl_allow_writes(r, WRITES_READONLY);
        repl_begin_sink(r);
    } else {
        begin_anew(r);
    }
}

void repl_do_follow(struct repl *r, const struct sink_target *target) {
    repl_set_writes(r, WRITES_READONLY); /* somebody may have allowed them since it was ordered */
    repl_switch_end(r);
    repl_peers_end(r);
    peers_rest(r->peers);
    repl_end_sink(r); /* whatever its source took was another order */
    bool taken = atomic_exchange_explicit(&r->ask_over, false, memory_order_acquire);
    r->own_branch = (r->own_branch && !taken) ||
                    (target->ask.explicit_ && r->standing.role != STANDING_REPLICA);
    r->chosen = r->heard = false;
    r->standing.role = STANDING_REPLICA;
    memcpy(r->standing.host, target->host, sizeof(r->standing.host));
    r->standing.port = (uint16_t)target->port;
    r->standing.fence_epoch = r->standing.fence_history = 0;
    r->ask = target->ask;
    r->goes_on = r->notes_primary = r->unstored = false;
    atomic_fetch_add_explicit(&r->self.orders, target->ask.explicit_, memory_order_relaxed);
    diag(DIAG_NOTICE, "repl.follow target=%s:%" PRIu32, target->host, target->port);
    note_target(r);
}

void repl_note_again(struct repl *r) {
    if (r->notes_target) {
        note_target(r);
    }
    if (r->notes_primary) {
        enum dc_err err = store_role(r, "");
        r->notes_primary = err != DC_OK;
        if (err != DC_OK) {
            repl_order_fails(r, "noting that this is a primary", err);
        } else {
            repl_order_over(r, DC_OK);
        }
    }
}

/* --- new histories ----------------------------------------------------------------------------------------------- */

/* A history of its own, durable (I2): above the peer's, or (NULL) as 'kind' begins one. Somebody may still append for a moment, the
 * janitor: then it is tried again. */
static enum dc_err fork_history(struct repl *r, enum chain_fork_kind kind,
                                const struct chain_view *peer) {
    enum dc_err err = DC_OK;
    for (int tries = 0; tries < FORK_TRIES; tries++) {
        struct chain_view self;
        struct history next;
        uint64_t random[2] = {0};
        while (random[0] == 0) {
            crypto_random(random, sizeof(random));
        }
        self_view(&r->self, &self);
        self.epoch += peer == NULL && kind == CHAIN_PROMOTION ? self_more_epochs(&r->self) : 0;
        err = peer == NULL ? chain_fork(&self, kind, random[0], random[1], &next)
                           : chain_raise(&self, peer, random[0], random[1], &next);
        uint64_t seen = r->self.data->seen_lsn; /* without a log there is more than its end tells */
        next.start = seen > 0 && next.start < seen + LSN_JUMP ? seen + LSN_JUMP : next.start;
        err = err == DC_OK ? data_begin_history(r->self.data, &next) : err;
        bool appended = log_head(r->self.log).v != self.head &&
                        histories_last(log_chain(r->self.log))->id != next.id;
        if (err != DC_EIO || !appended || atomic_load_explicit(&r->stop, memory_order_acquire)) {
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
    enum repl_role role = (enum repl_role)atomic_load_explicit(&r->self.role, memory_order_relaxed);
    if ((role != ROLE_PRIMARY && role != ROLE_FENCED) || self_is_restarting(&r->self)) {
        return dc_fail(DC_ELIMIT, "the node isn't a primary any more");
    }
    if (r->notes_target || r->standing.role == STANDING_REPLICA) {
        return dc_fail(DC_ELIMIT, "the node is to follow another one");
    }
    if (role == ROLE_FENCED && !r->heard &&
        log_follows(r->self.log)) { /* it may still lack what another peer has */
        repl_handed_over(&r->self, peer->epoch + 1, true);
        return dc_fail(DC_ELIMIT, "it asks its peers first, before it ends a fence");
    }
    if (!log_wait(r->self.log, LOG_LEVEL_DISK, log_head(r->self.log), DISK_WAIT_US)) {
        return dc_fail(DC_ELIMIT, "the disk is too slow"); /* or writes would be held so long */
    }
    repl_allow_writes(r, WRITES_HELD);
    bool quiet = r->self.host->quiesce(r->self.host_arg, QUIESCE_MS);
    enum dc_err err = quiet ? fork_history(r, CHAIN_PROMOTION, peer)
                            : dc_fail(DC_ELIMIT, "a command takes too long");
    if (err == DC_OK && role == ROLE_FENCED) {
        r->standing.fence_epoch = r->standing.fence_history = 0;
        peers_watch(r->peers);
        repl_set_role(r, ROLE_PRIMARY);
        err = repl_store_standing(r);
    }
    role = (enum repl_role)atomic_load_explicit(&r->self.role, memory_order_relaxed);
    repl_allow_writes(r, role == ROLE_PRIMARY ? WRITES_TAKEN : WRITES_FENCED);
    if (err == DC_OK) {
        diag(DIAG_NOTICE, "repl.raised epoch=%" PRIu64 " peer_epoch=%" PRIu64,
             histories_last(log_chain(r->self.log))->epoch, peer->epoch);
    }
    return err;
}

void repl_serve_raise(struct repl *r) {
    lock_acquire(&r->lock);
    const struct chain_view *peer = r->raise_over ? NULL : r->raise_peer;
    lock_release(&r->lock);
    if (peer == NULL) {
        return;
    }
    enum dc_err err = raise_above(r, peer);
    if (err != DC_OK) {
        repl_warn("a higher history", err);
        err = DC_ELIMIT;
    }
    lock_acquire(&r->lock);
    r->raised = err;
    r->raise_over = true;
    lock_release(&r->lock);
}

/* --- to be a primary --------------------------------------------------------------------------------------------- */

/* The next start finds it. */
static enum dc_err note_chosen(struct repl *r) {
    enum dc_err err = meta_put_text(r->self.data->meta, REPL_CHOSEN, "yes");
    if (err != DC_OK) {
        repl_order_fails(r, "noting the promotion", err);
    } else {
        repl_order_over(r, DC_OK);
    }
    return err;
}

void repl_reopen(struct repl *r) {
    diag(DIAG_WARNING, "repl.reopen applied=%" PRIu64 " head=%" PRIu64, log_applied(r->self.log).v,
         log_head(r->self.log).v);
    if (r->chosen) {
        (void)note_chosen(r);
    }
    begin_anew(r);
}

void repl_do_promote(struct repl *r, bool asks) {
    enum repl_role role = (enum repl_role)atomic_load_explicit(&r->self.role, memory_order_relaxed);
    if (self_is_restarting(&r->self)) {
        (void)note_chosen(r);
        return;
    }
    bool other = r->notes_target; /* an order before this one, which isn't stored */
    r->notes_target = false;
    if (role == ROLE_PRIMARY) {
        stand_as_primary(r);
        r->heard = true;
        r->notes_primary |= other;
        repl_set_role(r, ROLE_PRIMARY);
        repl_allow_writes(r, WRITES_TAKEN);
        if (!r->notes_primary) {
            repl_order_over(r, DC_OK);
        }
        return;
    }
    r->unstored |= other;
    if (role == ROLE_PULLING && r->chosen) {
        return;
    }
    repl_peers_end(r); /* a start that was asking: it is a chosen one now */
    repl_end_sink(r);
    if (self_is_restarting(&r->self)) { /* the sink had ordered it */
        (void)note_chosen(r);
        return;
    }
    if (log_applied(r->self.log).v < log_head(r->self.log).v) {
        r->chosen = true;
        repl_reopen(r);
        return;
    }
    int64_t time_ms = atomic_load_explicit(&r->self.passed_ms, memory_order_relaxed);
    if (time_ms > 0) { /* what has expired there stays so */
        clock_raise_floor(r->self.clock, time_ms * 1000, time_mono_us());
    }
    lock_acquire(&r->lock);
    r->view.promoting = true;
    lock_release(&r->lock);
    r->chosen = true;
    r->goes_on = false;
    if (asks) {
        repl_peers_ask(r, PEERS_PROMOTED);
        repl_peers_step(r);
    } else {
        repl_set_role(r, ROLE_PULLING);
        peers_watch(r->peers);
        repl_go_on(r, true, CHAIN_PROMOTION);
    }
}

/* What the store shows is as the log has it, since the start at the latest. */
static void forget_damage(struct repl *r) {
    struct adopt_note note = {.what = ADOPT_NOTHING};
    enum dc_err err = adopt_get(r->self.data->meta, &note);
    err = err == DC_OK && note.what == ADOPT_NEEDS_COPY ? adopt_forget(r->self.data->meta) : err;
    if (err != DC_OK) {
        repl_warn("noting that no copy is needed", err);
    }
}

static enum dc_err note_primary(struct repl *r) {
    forget_damage(r);
    stand_as_primary(r);
    atomic_store_explicit(&r->self.orders, 0, memory_order_relaxed);
    return store_role(r, ""); /* I3; the history says it already */
}

/* A start behind this one isn't to go on with it. */
static void forget_chosen(struct repl *r) {
    r->chosen = false;
    if (repl_is_chosen(r) && meta_put_text(r->self.data->meta, REPL_CHOSEN, "") != DC_OK) {
        repl_warn("noting that it isn't promoted", DC_EIO);
    }
}

/* It couldn't become a primary, and won't be: it stands again as it did when it was told to. */
static void stand_back(struct repl *r) {
    bool fenced = r->standing.role != STANDING_REPLICA;
    r->pending = 0; /* it isn't tried again */
    peers_rest(r->peers);
    forget_chosen(r);
    repl_show_target(r->self.conf, &r->standing);
    repl_set_role(r, fenced ? ROLE_FENCED : ROLE_REPLICA);
    repl_allow_writes(r, fenced ? WRITES_FENCED : WRITES_READONLY);
    r->notes_target = r->unstored; /* whom to follow: nothing follows from it before it is */
    r->unstored = false;
    if (!fenced && !r->notes_target) {
        repl_begin_sink(r);
    }
}

void repl_go_on(struct repl *r, bool forks, enum chain_fork_kind kind) {
    enum dc_err forked = forks ? fork_history(r, kind, NULL) : DC_OK;
    enum dc_err err = forked == DC_OK ? note_primary(r) : forked;
    if (err != DC_OK) {
        repl_order_fails(r, "becoming a primary", err);
    }
    /* The disk: a node that was told to be a primary has to be told again. Else it is tried again, and writes are held. */
    bool was_told = r->standing.role == STANDING_REPLICA || r->standing.fence_epoch != 0;
    r->goes_on = forked != DC_OK && !was_told;
    r->goes_on_as = kind;
    if (forked != DC_OK && was_told) {
        stand_back(r);
    }
    if (forked != DC_OK) {
        return;
    }
    r->chosen = r->unstored = false;
    r->heard = true;
    r->notes_primary = err != DC_OK;
    repl_show_target(r->self.conf, &r->standing);
    repl_note_boot(r);
    repl_set_role(r, ROLE_PRIMARY);
    repl_allow_writes(r, WRITES_TAKEN);
    if (!r->notes_primary) {
        repl_order_over(r, DC_OK);
    }
    diag(DIAG_NOTICE, "repl.primary epoch=%" PRIu64 " head=%" PRIu64,
         histories_last(log_chain(r->self.log))->epoch, log_head(r->self.log).v);
}

void repl_fence(struct repl *r, struct chain_rank by) {
    r->standing.fence_epoch = by.epoch;
    r->standing.fence_history = by.history;
    r->goes_on = r->chosen = r->unstored = false;
    repl_note_epoch(&r->self, by.epoch);
    repl_set_role(r, ROLE_FENCED);
    repl_switch_end(r); /* one that was asked for a moment ago */
    repl_allow_writes(r, WRITES_FENCED);
    r->self.host->refuse_waiting(r->self.host_arg, "another node has become the primary");
    repl_order_over(r, dc_fail(DC_EGENERIC, "another node has become the primary"));
    diag(DIAG_WARNING, "repl.fenced epoch=%" PRIu64 " history=%016" PRIx64, by.epoch, by.history);
    if (repl_store_standing(r) != DC_OK) {
        repl_warn("noting the fence", DC_EIO);
    }
}
