/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two chains, and the last point that both have.
 *
 *   source   H1 ────────┬─────── H3 ───── head          peer: H1 up to the fork, then H2: the tail
 *                       │
 *   peer                └─────── H2 ── head
 *                       common
 *
 * A history names its ancestors: its first frame holds the chain. So the youngest history that both have decides, and the point is the
 * lower one of the places where either leaves it.
 */
#include "replication/chain.h"

#include "server/base/assert.h"

#include <inttypes.h>
#include <stddef.h>

#define NO_LINK UINT32_MAX

/* --- order ----------------------------------------------------------------------------------------------------- */

int chain_compare(struct chain_rank a, struct chain_rank b) {
    if (a.epoch != b.epoch) {
        return a.epoch < b.epoch ? -1 : 1;
    }
    return (a.history > b.history) - (a.history < b.history);
}

static const struct history *last_of(const struct chain_view *v) {
    return v->count == 0 ? NULL : &v->chain[v->count - 1];
}

struct chain_rank chain_rank(const struct chain_view *v) {
    const struct history *last = last_of(v);
    return last == NULL ? (struct chain_rank){0, 0} : (struct chain_rank){last->epoch, last->id};
}

bool chain_is_sane(const struct chain_view *v) {
    uint64_t start = 0;
    uint64_t epoch = 0;
    for (uint32_t i = 0; i < v->count; i++) {
        const struct history *h = &v->chain[i];
        if (h->id == 0 || h->start <= start || h->parent_end > h->start || h->epoch < epoch) {
            return false;
        }
        start = h->start;
        epoch = h->epoch;
    }
    /* A log without a chain is none; a chain ends with a history of which the log has the first frame. */
    return v->head <= LSN_MAX && v->epoch >= epoch && v->epoch <= CHAIN_EPOCH_MAX &&
           (v->count == 0 ? v->empty : v->head > start);
}

static uint32_t link_of(const struct chain_view *v, uint64_t history) {
    for (uint32_t i = v->count; i-- > 0;) {
        if (v->chain[i].id == history) {
            return i;
        }
    }
    return NO_LINK;
}

/* Where the log of a view leaves a history of its chain. */
static uint64_t end_of(const struct chain_view *v, uint32_t link) {
    uint64_t end = v->head;
    for (uint32_t i = link + 1; i < v->count; i++) {
        end = v->chain[i].parent_end < end ? v->chain[i].parent_end : end;
    }
    return end;
}

static uint64_t lower(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

bool chain_common(const struct chain_view *a, const struct chain_view *b, uint64_t *lsn) {
    uint32_t i = a->count;
    uint32_t j = b->count;
    while (i > 0 && j > 0) { /* both are sorted by start */
        const struct history *x = &a->chain[i - 1];
        const struct history *y = &b->chain[j - 1];
        if (x->id == y->id && x->start == y->start) {
            *lsn = lower(end_of(a, i - 1), end_of(b, j - 1));
            return true;
        }
        i -= x->start >= y->start;
        j -= y->start >= x->start;
    }
    return false;
}

uint32_t chain_cut(const struct history *chain, uint32_t count, uint64_t lsn) {
    while (count > 0 && chain[count - 1].start >= lsn) {
        count--;
    }
    return count;
}

bool chain_holds(const struct chain_view *v, uint64_t lsn, uint64_t history) {
    uint32_t link = link_of(v, history);
    return link != NO_LINK && lsn > v->chain[link].start && lsn <= end_of(v, link);
}

enum chain_place chain_place(const struct chain_view *v, uint64_t lsn) {
    if (v->count == 0 || lsn > v->head) {
        return CHAIN_AHEAD;
    }
    uint32_t left = chain_cut(v->chain, v->count, lsn);
    if (left == 0) {
        return CHAIN_FORGOTTEN;
    }
    return lsn <= end_of(v, left - 1) ? CHAIN_HELD : CHAIN_LOST;
}

/* --- rank ------------------------------------------------------------------------------------------------------ */

/* What 'a' holds is a descendant of, or the same as, what 'b' holds. */
static bool descends_from(const struct chain_view *a, const struct chain_view *b) {
    const struct history *last = last_of(b);
    return last == NULL || link_of(a, last->id) != NO_LINK;
}

/* Of two related logs. */
static bool is_higher(const struct chain_view *a, const struct chain_view *b) {
    if (descends_from(b, a)) {
        return false;
    }
    return descends_from(a, b) || chain_compare(chain_rank(a), chain_rank(b)) > 0;
}

/* The peer has held, or has promised itself to, more than the source stands for. */
static bool source_is_lower(const struct chain_view *source, const struct chain_view *peer) {
    uint64_t epoch = chain_rank(source).epoch;
    if (epoch != peer->epoch) {
        return epoch < peer->epoch;
    }
    return !descends_from(source, peer) && is_higher(peer, source);
}

/* The peer holds another branch of the same epoch: what two primaries acknowledge with it must not have one epoch (I5). */
static bool share_an_epoch(const struct chain_view *source, const struct chain_view *peer) {
    const struct history *last = last_of(peer);
    return last != NULL && last->epoch == chain_rank(source).epoch &&
           !descends_from(source, peer) && !descends_from(peer, source);
}

/* --- the source's answer --------------------------------------------------------------------------------------- */

static struct chain_answer say(enum chain_verdict verdict, enum chain_reason reason, uint64_t lsn) {
    return (struct chain_answer){.verdict = verdict, .reason = reason, .lsn = lsn};
}

static bool is_copy(const struct chain_view *source) {
    return source->role == CHAIN_REPLICA;
}

static struct chain_answer answer_unrelated(const struct chain_view *source,
                                            const struct chain_view *peer, struct chain_ask ask) {
    if (source->empty && !ask.force) {
        return say(is_copy(source) ? CHAIN_LATER : CHAIN_REFUSE, CHAIN_BY_SOURCE_EMPTY, 0);
    }
    if (!ask.explicit_) {
        return say(CHAIN_REFUSE, CHAIN_BY_UNRELATED, 0);
    }
    if (chain_rank(source).epoch < peer->epoch && !ask.force) {
        return say(CHAIN_REFUSE, CHAIN_BY_UNRELATED_LOWER, 0); /* Sentinel orders that, too */
    }
    return say(CHAIN_COPY, CHAIN_BY_UNRELATED, 0);
}

/* I2, I3 */
static struct chain_answer answer_higher_peer(const struct chain_view *source,
                                              struct chain_ask ask) {
    if (!ask.explicit_) {
        return say(CHAIN_REFUSE, CHAIN_BY_LOWER, 0);
    }
    return is_copy(source) ? say(CHAIN_LATER, CHAIN_BY_COPY_OF_LOWER, 0)
                           : say(CHAIN_RAISE_FIRST, CHAIN_BY_LOWER, 0);
}

/* The peer has a tail behind 'lsn', and the source's rank isn't lower. */
static struct chain_answer answer_tail(const struct chain_view *source,
                                       const struct chain_view *peer, uint64_t lsn) {
    bool is_prefix = source->head == lsn;
    if (is_prefix && is_copy(source)) {
        return say(CHAIN_PEER_IS_AHEAD, CHAIN_BY_SOURCE_BEHIND, lsn);
    }
    if (is_prefix && descends_from(source, peer)) {
        /* A primary that goes on in a history of which the peer has more: it would give LSNs twice. */
        return say(CHAIN_RAISE_FIRST, CHAIN_BY_SOURCE_LOST, lsn);
    }
    return say(CHAIN_REWIND, CHAIN_BY_TAIL, lsn);
}

/* The peer has more of the history in which the source's log ends. */
static bool has_lost(const struct chain_view *source, const struct chain_view *peer) {
    uint32_t link = source->count == 0 ? NO_LINK : link_of(peer, last_of(source)->id);
    return link != NO_LINK && end_of(peer, link) > source->head;
}

static struct chain_answer answer_related(const struct chain_view *source,
                                          const struct chain_view *peer, struct chain_ask ask,
                                          const struct chain_local *local, uint64_t lsn) {
    if (source->role == CHAIN_FENCED &&
        has_lost(source, peer)) { /* it was fenced before it could pull that */
        return say(CHAIN_PEER_IS_AHEAD, CHAIN_BY_SOURCE_LOST, lsn);
    }
    if (source_is_lower(source, peer)) {
        return answer_higher_peer(source, ask);
    }
    if (ask.explicit_ && source->role == CHAIN_PRIMARY && share_an_epoch(source, peer)) {
        return say(CHAIN_RAISE_FIRST, CHAIN_BY_LOWER, 0);
    }
    struct chain_answer a = peer->head > lsn ? answer_tail(source, peer, lsn)
                                             : say(CHAIN_CONTINUE, CHAIN_BY_SAME_LOG, lsn);
    if (a.verdict != CHAIN_CONTINUE && a.verdict != CHAIN_REWIND) {
        return a;
    }
    if (ask.damaged) {
        return say(CHAIN_COPY, CHAIN_BY_DAMAGE, 0);
    }
    if (a.verdict == CHAIN_CONTINUE && local->hash_differs) {
        return say(ask.explicit_ ? CHAIN_COPY : CHAIN_REFUSE, CHAIN_BY_HASH, 0);
    }
    return lsn < local->oldest ? say(CHAIN_COPY, CHAIN_BY_LOG_GONE, 0) : a;
}

struct chain_answer chain_answer(const struct chain_view *source, const struct chain_view *peer,
                                 struct chain_ask ask, const struct chain_local *local) {
    uint64_t lsn;
    bool related = chain_common(source, peer, &lsn);
    if (source->role == CHAIN_PULLING) {
        return related && lsn == source->head && peer->head > lsn
                   ? say(CHAIN_PEER_IS_AHEAD, CHAIN_BY_SOURCE_LOST, lsn)
                   : say(CHAIN_LATER, CHAIN_BY_PULLING, 0);
    }
    if (peer->empty && !related) {
        bool later = source->empty && is_copy(source);
        return say(later ? CHAIN_LATER : CHAIN_COPY,
                   later ? CHAIN_BY_SOURCE_EMPTY : CHAIN_BY_NO_DATA, 0);
    }
    return related ? answer_related(source, peer, ask, local, lsn)
                   : answer_unrelated(source, peer, ask);
}

struct chain_answer chain_answer_pull(const struct chain_view *source,
                                      const struct chain_view *puller,
                                      const struct chain_local *local) {
    uint64_t lsn;
    if (!chain_common(source, puller, &lsn)) {
        return say(CHAIN_REFUSE, CHAIN_BY_UNRELATED, 0);
    }
    if (lsn < puller->head) {
        return say(CHAIN_REFUSE, CHAIN_BY_TAIL, lsn);
    }
    if (local->hash_differs) {
        return say(CHAIN_REFUSE, CHAIN_BY_HASH, 0);
    }
    return lsn < local->oldest ? say(CHAIN_COPY, CHAIN_BY_LOG_GONE, 0)
                               : say(CHAIN_CONTINUE, CHAIN_BY_SAME_LOG, lsn);
}

const char *chain_reason_text(enum chain_reason reason) {
    static const char *const texts[] = {
#define CHAIN_REASON(name, text) text,
#include "replication/chain_reason.def"
#undef CHAIN_REASON
    };
    dc_assert((size_t)reason < sizeof(texts) / sizeof(texts[0]));
    return texts[reason];
}

const char *chain_verdict_name(enum chain_verdict verdict) {
    switch (verdict) {
    case CHAIN_CONTINUE:
        return "continue";
    case CHAIN_REWIND:
        return "rewind";
    case CHAIN_COPY:
        return "copy";
    case CHAIN_REFUSE:
        return "refuse";
    case CHAIN_LATER:
        return "later";
    case CHAIN_PEER_IS_AHEAD:
        return "ahead";
    case CHAIN_RAISE_FIRST:
        return "raise";
    }
    dc_unreachable();
}

/* --- what the peer does with it -------------------------------------------------------------------------------- */

/* The peer comes to the same answer by itself; it only can't know what log the source still has, and what bytes. */
static bool agrees(const struct chain_answer *theirs, const struct chain_answer *mine) {
    bool same = theirs->verdict == mine->verdict && theirs->lsn == mine->lsn;
    return same || (theirs->verdict == CHAIN_COPY &&
                    (mine->verdict == CHAIN_CONTINUE || mine->verdict == CHAIN_REWIND ||
                     mine->verdict == CHAIN_COPY));
}

enum chain_step chain_step(const struct chain_view *self, struct chain_ask ask,
                           const struct chain_view *source, const struct chain_answer *answer) {
    static const struct chain_local all = {.oldest = 0};
    struct chain_answer mine = chain_answer(source, self, ask, &all);
    switch (answer->verdict) {
    case CHAIN_CONTINUE:
        return agrees(answer, &mine) ? CHAIN_STREAM : CHAIN_NONSENSE;
    case CHAIN_REWIND:
        return agrees(answer, &mine) ? CHAIN_CUT : CHAIN_NONSENSE;
    case CHAIN_COPY:
        return agrees(answer, &mine) ? CHAIN_TAKE_COPY : CHAIN_NONSENSE;
    case CHAIN_REFUSE:
        return CHAIN_STAY;
    case CHAIN_LATER:
    case CHAIN_PEER_IS_AHEAD:
        return CHAIN_COME_AGAIN;
    case CHAIN_RAISE_FIRST: /* isn't for us */
        return CHAIN_NONSENSE;
    }
    dc_unreachable();
}

/* --- new histories --------------------------------------------------------------------------------------------- */

static uint64_t higher(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

/* The first JUMP behind an end is left to what was handed out and not written. The second is that of an unclean open, which only the primary of
 * a lineage has. Promotions have a region for each epoch, so that the higher epoch has the higher LSN, and a random place in it (I4). */
static enum dc_err begin_history(const struct chain_view *self, uint64_t behind,
                                 const uint64_t *random, struct history *h) {
    uint64_t start = behind == 0 && random == NULL ? LSN_FIRST : behind + LSN_JUMP;
    if (random != NULL && h->epoch <= CHAIN_EPOCH_MAX) {
        start = higher(behind, h->epoch * CHAIN_REGION) + 2 * LSN_JUMP +
                *random % (CHAIN_REGION - 3 * LSN_JUMP);
    }
    if (start > LSN_MAX - CHAIN_REGION || h->epoch > CHAIN_EPOCH_MAX) {
        return dc_fail(DC_ELIMIT, "no LSNs are left behind %" PRIu64 " for another history",
                       behind);
    }
    h->start = start;
    h->parent_end = self->head;
    dc_assert(h->id != 0 && h->start > self->head);
    return DC_OK;
}

enum dc_err chain_fork(const struct chain_view *self, enum chain_fork_kind kind, uint64_t id,
                       uint64_t random, struct history *out) {
    uint64_t epoch = higher(self->epoch, chain_rank(self).epoch);
    bool promoted = kind == CHAIN_PROMOTION && self->head > 0;
    *out = (struct history){.id = id,
                            .epoch = kind == CHAIN_PROMOTION || epoch == 0 ? epoch + 1 : epoch};
    return begin_history(self, self->head, promoted ? &random : NULL, out);
}

/* I5 */
enum dc_err chain_raise(const struct chain_view *self, const struct chain_view *peer, uint64_t id,
                        uint64_t random, struct history *out) {
    *out = (struct history){.id = id, .epoch = higher(self->epoch, peer->epoch) + 1};
    return begin_history(self, higher(self->head, peer->head), &random, out);
}

/* --- primaries that meet --------------------------------------------------------------------------------------- */

/* It is a primary, or in touch with one. */
static bool is_current(const struct chain_view *v) {
    return v->role == CHAIN_PRIMARY || (v->role == CHAIN_REPLICA && v->linked);
}

bool chain_may_fence(const struct chain_view *self, const struct chain_view *peer) {
    uint64_t lsn;
    return is_current(peer) && chain_common(self, peer, &lsn) && is_higher(peer, self);
}

bool chain_is_challenged(const struct chain_view *self, const struct chain_view *peer) {
    return self->role == CHAIN_PRIMARY && chain_may_fence(self, peer);
}

bool chain_is_within(const struct chain_view *self, const struct chain_view *peer) {
    uint64_t lsn;
    return chain_common(self, peer, &lsn) && lsn == self->head;
}

/* Two peers that both have all that self has: the higher rank is worth more, then the longer log. */
static bool is_worth_more(const struct chain_view *a, const struct chain_view *b) {
    bool same = chain_compare(chain_rank(a), chain_rank(b)) == 0;
    return same ? a->head > b->head : is_higher(a, b);
}

/* By its word it has all that self has, and more. */
static bool has_more(const struct chain_view *self, const struct chain_peer *p) {
    return p->contact == CHAIN_ANSWERED && p->view.head > self->head &&
           chain_is_within(self, &p->view);
}

static const struct chain_peer *richest(const struct chain_view *self,
                                        const struct chain_peer *peers, uint32_t count) {
    const struct chain_peer *best = NULL;
    for (uint32_t i = 0; i < count; i++) {
        const struct chain_peer *p = &peers[i];
        if (!p->spent && has_more(self, p) &&
            (best == NULL || is_worth_more(&p->view, &best->view))) {
            best = p;
        }
    }
    return best;
}

/* A peer of higher rank; best one that knows its primary, or is it. */
static const struct chain_peer *evidence(const struct chain_view *self,
                                         const struct chain_peer *peers, uint32_t count) {
    const struct chain_peer *found = NULL;
    uint64_t lsn;
    for (uint32_t i = 0; i < count; i++) {
        const struct chain_peer *p = &peers[i];
        if (p->contact != CHAIN_ANSWERED || !chain_common(self, &p->view, &lsn) ||
            !is_higher(&p->view, self)) {
            continue;
        }
        bool better = found == NULL || is_higher(&p->view, &found->view) ||
                      (!is_higher(&found->view, &p->view) &&
                       is_current(&p->view) > is_current(&found->view)) ||
                      (!is_higher(&found->view, &p->view) && p->view.role == CHAIN_PRIMARY);
        found = better ? p : found;
    }
    return found;
}

static uint32_t count_contacts(const struct chain_peer *peers, uint32_t count,
                               enum chain_contact contact) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < count; i++) {
        n += peers[i].contact == contact;
    }
    return n;
}

/* Who answers late may have more, or may be on a higher branch. */
static bool is_waited_for(const struct chain_peer *peers, uint32_t count,
                          enum chain_patience patience) {
    uint32_t answered = count_contacts(peers, count, CHAIN_ANSWERED);
    switch (patience) {
    case CHAIN_FOR_ALL:
        return answered < count;
    case CHAIN_FOR_REACHABLE:
        return count_contacts(peers, count, CHAIN_SILENT) > 0;
    case CHAIN_FOR_ONE:
        return count > 0 && (answered == 0 || count_contacts(peers, count, CHAIN_SILENT) > 0);
    case CHAIN_TIME_IS_UP:
        return false;
    }
    dc_unreachable();
}

static uint64_t highest_epoch(const struct chain_view *self, const struct chain_peer *peers,
                              uint32_t count) {
    uint64_t epoch = self->epoch;
    uint64_t lsn;
    for (uint32_t i = 0; i < count; i++) {
        const struct chain_view *v = &peers[i].view;
        if (peers[i].contact == CHAIN_ANSWERED && chain_common(self, v, &lsn)) {
            epoch = higher(epoch, v->epoch);
        }
    }
    return epoch;
}

struct chain_pull chain_pull(const struct chain_view *self, const struct chain_peer *peers,
                             uint32_t count, enum chain_patience patience, bool chosen) {
    struct chain_pull p = {.step = CHAIN_PULL_WAIT, .epoch = highest_epoch(self, peers, count)};
    const struct chain_peer *peer = chosen ? NULL : evidence(self, peers, count);
    if (peer != NULL) {
        bool follow = is_current(&peer->view) && chain_is_within(self, &peer->view);
        p.step = follow ? CHAIN_PULL_FOLLOW : CHAIN_PULL_FENCE;
        p.index = (uint32_t)(peer - peers);
        return p;
    }
    if (is_waited_for(peers, count, patience)) {
        return p;
    }
    peer = richest(self, peers, count);
    p.step = peer != NULL ? CHAIN_PULL_FROM : CHAIN_PULL_GO_ON;
    p.index = peer != NULL ? (uint32_t)(peer - peers) : 0;
    for (uint32_t i = 0; i < count; i++) {
        p.missing += peers[i].contact != CHAIN_ANSWERED || has_more(self, &peers[i]);
    }
    return p;
}
