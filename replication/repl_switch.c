/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * FAILOVER: this primary hands over to one of its replicas.
 *
 *     NONE       FAILOVER                              writes are held                                              WAITS
 *     WAITS      a replica has received everything     it is asked at its address                                   WAITS
 *     WAITS      it answers                            PROMOTE is sent to it                                        UNDER_WAY
 *     WAITS      nobody does, several times            writes are taken: nobody would hear that it has taken over   NONE
 *     WAITS      the time is over, ABORT               writes are taken                                             NONE
 *     WAITS      the time is over, FORCE               PROMOTE is sent to whoever is named                          UNDER_WAY
 *     UNDER_WAY  the replica answers as a primary      this node follows it, in a start in place                    NONE
 *     UNDER_WAY  the replica greets as one, ABORT      writes are taken                                             NONE
 *
 * The log doesn't grow meanwhile. So whoever has all of it may go on, and this node has nothing that the new primary lacks. ABORT
 * behind PROMOTE is what an operator decides who sees that the replica is gone: if it isn't, there are two primaries.
 */
#include "replication/repl_priv.h"
#include "server/base/assert.h"
#include "server/base/diag.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    SWITCH_QUIESCE_MS = 50, /* at a time */
    SWITCH_LOOK_MS = 2,
    SWITCH_ASK_AGAIN_MS = 10,
    SWITCH_LEAVE_MS = 100, /* for the replies to those who were held */
    SWITCH_MISSES_MAX = 4, /* questions without an answer */
};

const char *repl_failover_name(enum failover_state state) {
    static const char *const names[] = {"no-failover", "waiting-for-sync", "failover-in-progress"};
    return names[state];
}

/* --- the command ------------------------------------------------------------------------------------------------- */

struct search {
    const struct failover *f;
    uint64_t head;
    bool any;                 /* wherever it stands */
    const uint8_t *unreached; /* it hasn't answered; NULL = nobody */
    uint32_t attached;
    bool named;
    bool online;
    struct replica_seen found;
};

static void look_at(const struct replica_seen *seen, void *arg) {
    struct search *s = arg;
    if (seen->slot < 0) {
        return; /* known, not attached */
    }
    s->attached++;
    if (s->f->host[0] != '\0' &&
        (strcmp(s->f->host, seen->addr) != 0 || s->f->port != seen->port)) {
        return;
    }
    s->named = true;
    s->online |= seen->state == REPLICA_ONLINE;
    bool other = s->found.port == 0 ||
                 (s->unreached != NULL && memcmp(s->found.peer, s->unreached, PEER_ID_LEN) == 0);
    if (other && seen->port != 0 && seen->state == REPLICA_ONLINE &&
        (s->any || seen->received >= s->head)) {
        s->found = *seen;
    }
}

static enum dc_err check_target(struct repl *r, const struct failover *f) {
    struct search s = {.f = f};
    replicas_each(r->self.replicas, look_at, &s);
    if (s.attached == 0) {
        return dc_fail(DC_EGENERIC, "FAILOVER requires connected replicas.");
    }
    if (f->force && (f->timeout_ms == 0 || f->host[0] == '\0')) {
        return dc_fail(DC_EGENERIC, "FAILOVER with force option requires both a timeout and target "
                                    "HOST and IP.");
    }
    if (!s.named) {
        return dc_fail(DC_EGENERIC, "FAILOVER target HOST and PORT is not a replica.");
    }
    return s.online || f->host[0] == '\0'
               ? DC_OK
               : dc_fail(DC_EGENERIC, "FAILOVER target replica is not online.");
}

static enum dc_err check_self_locked(struct repl *r) DC_REQUIRES(r->lock) {
    if (r->view.failover != FAILOVER_NONE) {
        return dc_fail(DC_EGENERIC, "FAILOVER already in progress.");
    }
    if (r->view.role == ROLE_REPLICA) {
        return dc_fail(DC_EGENERIC, "FAILOVER is not valid when server is a replica.");
    }
    return r->view.role == ROLE_PRIMARY && r->order == ORDER_NONE
               ? DC_OK
               : dc_fail(DC_EGENERIC, "FAILOVER is not valid while this node takes no writes.");
}

enum dc_err repl_failover(struct repl *r, const struct failover *f) {
    lock_acquire(&r->lock);
    enum dc_err err = check_self_locked(r);
    lock_release(&r->lock);
    err = err == DC_OK ? check_target(r, f) : err;
    if (err != DC_OK) {
        return err;
    }
    lock_acquire(&r->lock);
    err = check_self_locked(r);
    if (err == DC_OK) {
        r->view.failover = FAILOVER_WAITS;
        r->failover = *f;
        r->failover_abort = false;
        r->failover_end_us = f->timeout_ms == 0 || f->timeout_ms > INT64_MAX / 2000
                                 ? INT64_MAX
                                 : time_mono_us() + f->timeout_ms * 1000;
        repl_set_writes(r, WRITES_HELD);
    }
    lock_release(&r->lock);
    wake_raise(&r->wake);
    return err;
}

enum dc_err repl_failover_abort(struct repl *r) {
    lock_acquire(&r->lock);
    bool any = r->view.failover != FAILOVER_NONE;
    r->failover_abort = any;
    lock_release(&r->lock);
    wake_raise(&r->wake);
    return any ? DC_OK : dc_fail(DC_EGENERIC, "No failover in progress.");
}

/* --- the thread -------------------------------------------------------------------------------------------------- */

static void set_state(struct repl *r, enum failover_state state) {
    atomic_store_explicit(&r->self.hands_over, state == FAILOVER_UNDER_WAY, memory_order_release);
    lock_acquire(&r->lock);
    r->view.failover = state;
    lock_release(&r->lock);
}

void repl_switch_end(struct repl *r) {
    source_promote_end(r->source);
    inquiry_destroy(r->switch_inquiry);
    r->switch_inquiry = NULL;
    r->switch_quiet = false;
    r->switch_misses = 0;
    set_state(r, FAILOVER_NONE);
}

static void give_back(struct repl *r, const char *why) {
    repl_switch_end(r);
    diag(DIAG_WARNING, "repl.failover_ended why=\"%s\"", why);
    repl_allow_writes(r, WRITES_TAKEN);
}

/* Who is to be the primary, if it has everything. */
static bool choose(struct repl *r, const struct failover *f, bool any) {
    struct search s = {.f = f, .head = log_head(r->self.log).v, .any = any};
    s.unreached = r->switch_misses > 0 ? r->switch_peer.id : NULL;
    replicas_each(r->self.replicas, look_at, &s);
    if (s.found.port == 0) {
        return false;
    }
    r->switch_peer = (struct peers_entry){.port = s.found.port};
    memcpy(r->switch_peer.id, s.found.peer, PEER_ID_LEN);
    snprintf(r->switch_peer.host, sizeof(r->switch_peer.host), "%s", s.found.addr);
    r->switch_ask_us = 0;
    return true;
}

static void ask_peer(struct repl *r) {
    r->switch_inquiry = inquiry_start(&r->self, &r->switch_peer, PROBE_TIMEOUT_MS, &r->wake);
}

/* The view of the peer that was asked; NULL: it didn't answer, or another one did. The question is over. */
static const struct chain_view *answer_of_peer(const struct repl *r) {
    const uint8_t *id;
    const struct chain_view *view = inquiry_answer(r->switch_inquiry, &id);
    return view != NULL && memcmp(id, r->switch_peer.id, PEER_ID_LEN) == 0 ? view : NULL;
}

static void end_question(struct repl *r) {
    inquiry_destroy(r->switch_inquiry);
    r->switch_inquiry = NULL;
}

static void promote(struct repl *r, bool any) {
    struct chain_view self;
    self_view(&r->self, &self);
    set_state(r, FAILOVER_UNDER_WAY); /* before anybody else writes */
    if (source_promote(r->source, r->switch_peer.id, any ? 0 : self.head, self.epoch + 1)) {
        diag(DIAG_NOTICE, "repl.failover target=%s:%u head=%" PRIu64, r->switch_peer.host,
             (unsigned)r->switch_peer.port, self.head);
    } else {
        set_state(r, FAILOVER_WAITS);
    }
}

/* Who can be reached at its address will be seen when it has taken over. */
static void promote_if_reached(struct repl *r) {
    bool reached = answer_of_peer(r) != NULL;
    end_question(r);
    if (reached) {
        promote(r, false);
    } else if (++r->switch_misses >= SWITCH_MISSES_MAX) {
        give_back(r, "no replica that has everything answers at the address that it announces");
    }
}

static void wait_for_sync(struct repl *r, const struct failover *f, int64_t end_us) {
    if (!r->switch_quiet) {
        r->switch_quiet = r->self.host->quiesce(r->self.host_arg, SWITCH_QUIESCE_MS);
    }
    int64_t now_us = time_mono_us();
    replicas_ask(r->self.replicas, now_us);
    if (now_us >= end_us) {
        end_question(r);
        if (f->force && r->switch_quiet && choose(r, f, true)) {
            promote(r, true);
        } else {
            give_back(r, "no replica has received everything in time");
        }
    } else if (r->switch_inquiry != NULL) {
        if (inquiry_is_over(r->switch_inquiry)) {
            promote_if_reached(r);
        }
    } else if (r->switch_quiet && choose(r, f, false)) {
        ask_peer(r);
    }
}

/* It holds all that is here, and has gone on. */
static bool has_taken_over(struct repl *r) {
    struct chain_view self;
    const struct chain_view *view = answer_of_peer(r);
    self_view(&r->self, &self);
    return view != NULL && view->role == CHAIN_PRIMARY && chain_may_fence(&self, view);
}

/* Those who were held hear that this node is a replica now, before their connections end. */
static void follow(struct repl *r) {
    repl_set_writes(r, WRITES_READONLY);
    repl_switch_end(r);
    r->self.host->resume(r->self.host_arg);
    (void)r->self.host->quiesce(r->self.host_arg, SWITCH_LEAVE_MS);
    repl_follow_peer(r, &r->switch_peer, "the node has handed over to another one");
}

static void wait_for_peer(struct repl *r) {
    if (source_promote_failed(r->source)) {
        give_back(r, "the replica didn't take over");
    } else if (r->switch_inquiry == NULL) {
        if (time_mono_us() >= r->switch_ask_us) {
            ask_peer(r);
        }
    } else if (!inquiry_is_over(r->switch_inquiry)) {
        return;
    } else if (has_taken_over(r)) {
        follow(r);
    } else {
        end_question(r);
        r->switch_ask_us = time_mono_us() + SWITCH_ASK_AGAIN_MS * 1000;
    }
}

bool repl_switch_step(struct repl *r) {
    lock_acquire(&r->lock);
    enum failover_state state = r->view.failover;
    struct failover f = r->failover;
    int64_t end_us = r->failover_end_us;
    bool abort = r->failover_abort;
    lock_release(&r->lock);
    if (state != FAILOVER_NONE && abort) {
        give_back(r, "aborted");
    } else if (state == FAILOVER_WAITS) {
        wait_for_sync(r, &f, end_us);
    } else if (state == FAILOVER_UNDER_WAY) {
        wait_for_peer(r);
    }
    if (state != FAILOVER_NONE) {
        (void)wake_wait(&r->wake, SWITCH_LOOK_MS * 1000);
    }
    return state != FAILOVER_NONE;
}

/* --- the other side ---------------------------------------------------------------------------------------------- */

void repl_handed_over(struct self *self, uint64_t epoch, bool asks) {
    struct repl *r = (struct repl *)self;
    repl_note_epoch(self, epoch - 1);
    lock_acquire(&r->lock);
    if (r->order == ORDER_NONE) { /* else somebody else has decided what it is to be */
        r->view.promoting = true;
        r->order = asks ? ORDER_PROMOTE : ORDER_TAKE_OVER;
        (void)repl_number_order(r);
        repl_set_writes(r, WRITES_HELD);
    }
    lock_release(&r->lock);
    wake_raise(&r->wake);
}
