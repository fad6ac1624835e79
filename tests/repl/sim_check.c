/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What must hold, whatever happens.
 *
 *   C1 no LSN is given twice in one lineage.
 *   C2 what was acknowledged at replicas:N isn't lost unless all that had it failed, or couldn't be reached, when a primary
 *      began that lacks it; or it was acknowledged by a primary that had already been replaced (H54). Orders of people can lose it: not checked with those.
 *   C3 no two primaries acknowledge, with a majority of the nodes, in one epoch, unless a disk that knew of it was lost meanwhile.
 *   C4 in the end all nodes are equal.
 */
#include "tests/repl/sim.h"

#include <inttypes.h>
#include <string.h>

void check_given(struct sim *s, const struct node *n, const struct frame *f) {
    const struct history *own = &s->histories[f->history];
    for (uint32_t i = 0; i < s->history_count; i++) {
        const struct history *h = &s->histories[i];
        uint64_t apart = h->start > own->start ? h->start - own->start : own->start - h->start;
        bool other = h->id != own->id && s->root[i] == s->root[f->history];
        if (other && apart < FRAMES_MAX * FORK_LEN) {
            sim_fail(s, "C1 %c: H%" PRIu32 " gives LSNs that H%" PRIu32 " has given",
                     sim_name(n->place), f->history, i);
        }
    }
    if (f->write != 0 && s->owner[f->history] != n->place) {
        sim_fail(s, "C1 %c: writes in H%" PRIu32 ", which is %c's", sim_name(n->place), f->history,
                 sim_name(s->owner[f->history]));
    }
}

/* --- acknowledgements ------------------------------------------------------------------------------------------ */

static uint32_t peers_at(const struct sim *s, const struct node *n, uint64_t lsn) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < s->opts.nodes; i++) {
        count += i != n->place && n->acked[i] >= lsn;
    }
    return count;
}

static bool is_wanted(const struct sim *s, const struct node *n) {
    const struct sentinel *se = &s->sentinel;
    return !se->on || n->place == se->master || (se->failover_ms > 0 && n->place == se->chosen);
}

/* Somebody has been promoted above it, or since; or Sentinel doesn't want it. */
static bool is_replaced(const struct sim *s, const struct node *n) {
    if (!is_wanted(s, n)) {
        return true;
    }
    uint32_t own = n->frames[n->count - 1].history;
    uint64_t epoch = s->histories[own].epoch;
    for (uint32_t i = 0; i < s->history_count; i++) {
        uint64_t other = s->histories[i].epoch;
        if ((other > epoch || (other == epoch && i > own)) && s->owner[i] != n->place) {
            return true;
        }
    }
    return false;
}

static void acknowledge(struct sim *s, struct node *n, struct write *w) {
    w->acked_ms = s->now_ms;
    w->acked_epoch = s->histories[n->frames[n->count - 1].history].epoch;
    s->acked++;
    if (w->level == 0) {
        return;
    }
    if (s->opts.drills) {
        w->excused = true;
    } else if (is_replaced(s, n)) {
        w->excused = true;
        s->doomed++;
    }
    if (2 * (w->level + 1) <= s->opts.nodes) {
        return;
    }
    for (uint32_t i = s->write_count; i > 0; i--) { /* C3 */
        const struct write *o = &s->writes[i];
        if (o->acked_ms > s->disk_lost_ms && o->node != w->node &&
            o->acked_epoch == w->acked_epoch && 2 * (o->level + 1) > s->opts.nodes &&
            o->level > 0) {
            sim_fail(s, "C3 %c and %c acknowledge in epoch %" PRIu64, sim_name(w->node),
                     sim_name(o->node), w->acked_epoch);
        }
        if (o->acked_ms > 0 && o->node == w->node && i != s->write_count) {
            break; /* it was looked at then */
        }
    }
}

void check_acks(struct sim *s, struct node *n) {
    if (n->role != CHAIN_PRIMARY) {
        n->pending_count = 0;
        return;
    }
    uint32_t left = 0;
    for (uint32_t i = 0; i < n->pending_count; i++) {
        struct write *w = &s->writes[n->pending[i]];
        if (peers_at(s, n, w->end) >= w->level) {
            acknowledge(s, n, w);
        } else {
            n->pending[left++] = n->pending[i];
        }
    }
    n->pending_count = left;
    if (left == QUEUE_MAX) { /* ack-timeout */
        n->pending_count = 0;
    }
}

/* --- losses ---------------------------------------------------------------------------------------------------- */

static bool counts(const struct write *w) {
    return w->acked_ms > 0 && w->level > 0 && !w->excused;
}

/* All the time while it asked; also by Sentinel, which chose among those that it saw. */
static bool could_be_heard(const struct sim *s, const struct node *n, const struct node *h) {
    bool grew = h->role == CHAIN_REPLICA && h->followed_ms > n->asked_ms; /* when it had answered */
    return h->running && !h->frozen && !grew && h->up_ms <= n->asked_ms &&
           net_reaches(s, h->place, n->place) && net_reaches(s, h->place, SENTINEL) &&
           s->joined_ms[h->place][n->place] <= n->asked_ms &&
           s->joined_ms[h->place][SENTINEL] <= n->asked_ms;
}

/* A promoted node doesn't cut a tail of its own to pull what others have: a limit that CHAIN.md names. */
static bool could_be_pulled(const struct node *n, const struct node *h) {
    struct chain_view self = node_view(n), peer = node_view(h);
    return !n->chosen || chain_is_within(&self, &peer);
}

/* A new primary begins: what it lacks is lost if its branch wins. It does if somebody chose it, or if it had that branch before. */
void check_begins(struct sim *s, const struct node *n) {
    bool chosen = is_wanted(s, n);
    uint64_t own = n->count > 0 ? n->chain[n->chain_count - 1].id : 0;
    for (uint32_t w = 1; w <= s->write_count && n->count > 0; w++) {
        struct write *write = &s->writes[w];
        if (!counts(write) || write->root != n->chain[0].id ||
            (!chosen && write->rank.history != own) || node_has_write(s, n, w)) {
            continue;
        }
        if (write->acked_ms >= n->asked_ms) { /* by one who was being replaced */
            write->excused = true;
            s->doomed++;
            continue;
        }
        for (uint32_t i = 0; i < s->opts.nodes; i++) {
            const struct node *h = &s->nodes[i];
            if (i != n->place && could_be_heard(s, n, h) && could_be_pulled(n, h) &&
                node_has_write(s, h, w)) {
                sim_fail(s, "C2 %c becomes primary without write %" PRIu32 ", which %c has",
                         sim_name(n->place), w, sim_name(i));
                return;
            }
        }
        write->excused = true;
        s->excused++;
    }
}

/* Sentinel takes a node that is a primary already: what only nodes have that it can't see is lost if that one lacks it. */
void check_chosen(struct sim *s, const struct node *n) {
    for (uint32_t w = 1; w <= s->write_count && n->count > 0; w++) {
        struct write *write = &s->writes[w];
        bool seen = node_has_write(s, n, w);
        for (uint32_t i = 0; i < s->opts.nodes; i++) {
            const struct node *h = &s->nodes[i];
            seen |=
                h->running && !h->frozen && net_reaches(s, i, SENTINEL) && node_has_write(s, h, w);
        }
        if (counts(write) && write->root == n->chain[0].id && !seen) {
            write->excused = true;
            s->excused++;
        }
    }
}

/* Sentinel doesn't see whom it promoted, and goes back to the old primary: what the promoted one acknowledged meanwhile may be lost (H54). */
void check_given_up(struct sim *s, uint32_t chosen, int64_t since_ms) {
    for (uint32_t w = 1; w <= s->write_count; w++) {
        struct write *write = &s->writes[w];
        if (counts(write) && write->node == chosen && write->acked_ms >= since_ms) {
            write->excused = true;
            s->doomed++;
        }
    }
}

static bool anybody_has(const struct sim *s, const struct node *but, uint32_t w) {
    for (uint32_t i = 0; i < s->opts.nodes; i++) {
        if (i != but->place && node_has_write(s, &s->nodes[i], w)) {
            return true;
        }
    }
    return false;
}

/* Frames from 'from' on go: by a fault, or because another log was taken over. */
void check_dropped(struct sim *s, const struct node *n, uint32_t from, bool by_order) {
    if (by_order && from == 0 && s->healing) {
        return; /* of two data sets an operator has chosen one */
    }
    for (uint32_t i = from; i < n->count; i++) {
        uint32_t w = n->frames[i].write;
        if (w == 0 || !counts(&s->writes[w])) {
            continue;
        }
        if (by_order && !(n->by_operator && anybody_has(s, n, w))) {
            sim_fail(s, "C2 %c gives up write %" PRIu32 ", which was acknowledged",
                     sim_name(n->place), w);
            return;
        }
        if (!by_order && !anybody_has(s, n, w)) {
            s->writes[w].excused = true;
            s->excused++;
        }
    }
}

/* --- the end --------------------------------------------------------------------------------------------------- */

bool check_equal(const struct sim *s, char *why, size_t size) {
    const struct node *primary = NULL;
    for (uint32_t i = 0; i < s->opts.nodes; i++) {
        const struct node *n = &s->nodes[i];
        if (n->running && n->role == CHAIN_PRIMARY) {
            if (primary != NULL) {
                snprintf(why, size, "two primaries, %c and %c", sim_name(primary->place),
                         sim_name(i));
                return false;
            }
            primary = n;
        }
    }
    for (uint32_t i = 0; primary != NULL && i < s->opts.nodes; i++) {
        const struct node *n = &s->nodes[i];
        if (n == primary) {
            continue;
        }
        if (!n->running || n->sink != SINK_STREAMS || n->count != primary->count) {
            snprintf(why, size, "%c doesn't follow, or not to the end%s%s", sim_name(i),
                     n->refused != NULL ? ": " : "", n->refused != NULL ? n->refused : "");
            return false;
        }
        for (uint32_t f = 0; f < n->count; f++) {
            if (n->frames[f].end != primary->frames[f].end ||
                n->frames[f].write != primary->frames[f].write ||
                n->frames[f].history != primary->frames[f].history) {
                snprintf(why, size, "%c differs from %c at frame %" PRIu32, sim_name(i),
                         sim_name(primary->place), f);
                return false;
            }
        }
    }
    if (primary == NULL) {
        snprintf(why, size, "no primary");
    }
    return primary != NULL;
}

void check_end(struct sim *s) {
    const struct node *any = &s->nodes[0];
    for (uint32_t w = 1; w <= s->write_count; w++) {
        if (counts(&s->writes[w]) && s->writes[w].root == any->chain[0].id &&
            !node_has_write(s, any, w)) {
            sim_fail(s, "C2 write %" PRIu32 ", acknowledged by %c at replicas:%" PRIu32 ", is lost",
                     w, sim_name(s->writes[w].node), s->writes[w].level);
        }
    }
}
