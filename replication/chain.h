/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * chain: what two nodes make of each other's histories: who goes on from where, who gives up what, who stops taking writes.
 *
 * Purpose: every decision of replication about data that isn't in both logs is made here, by pure functions over two views. CHAIN.md has
 *   the rules with their reasons, and what the simulated cluster (tests/repl/) found.
 * Words: the *rank* of a primary is (epoch, id) of the last history of its chain. A chain that has the other's last history in it outranks
 *   that whatever the ids are: lineage counts first. Two logs are *related* if their chains share a history. A *tail* is what a
 *   log holds behind the last point that both have. The *ask* of a peer is explicit after REPLICAOF until a source has taken it.
 * Invariants:
 *   I1 nothing is taken over from an unrelated log unless the taker has no data or the ask is explicit; from a log without data, or of a lower
 *      epoch, never, unless forced.
 *   I2 a tail is given up only for a source of higher rank; an explicit ask makes a source that is a primary raise its rank first.
 *   I3 a source that is itself a copy never makes a peer give up what the source may still receive: the peer comes again.
 *   I4 a promotion begins at a random place of its epoch's region: that two branches of one epoch overlap is as unlikely as they are short.
 *   I5 the higher epoch has the higher LSN, which is what Sentinel goes by; a raised history begins behind everything that the node which
 *      gave way had. (Unless a history grows longer than its region.)
 * Threads: any. Ownership: views point to the caller's chains.
 */
#ifndef DC_REPLICATION_CHAIN_H
#define DC_REPLICATION_CHAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "persist/lsn.h"
#include "server/base/err.h"

/* Promotions of epoch e begin from e times this on: 32768 epochs, 2 TB for each. */
#define CHAIN_REGION    (256 * LSN_JUMP)
#define CHAIN_EPOCH_MAX (LSN_MAX / CHAIN_REGION)

enum chain_role {
    CHAIN_PRIMARY,
    CHAIN_REPLICA,
    CHAIN_FENCED,  /* a primary that has seen a higher one: no writes */
    CHAIN_PULLING, /* a primary that first asks its peers for what it lost: no writes yet */
};

/* What a node tells of itself, in HELLO and ANSWER. */
struct chain_view {
    const struct history *chain; /* oldest first; the log ends in the last one */
    uint32_t count;
    uint64_t head;  /* end of its last whole frame */
    uint64_t epoch; /* the highest that it has seen; never below that of its last history */
    enum chain_role role;
    bool empty;  /* it has no data: nothing is lost with it */
    bool linked; /* a replica that its source feeds now */
};

/* --- order ----------------------------------------------------------------------------------------------------- */

struct chain_rank {
    uint64_t epoch;
    uint64_t history;
};

/* < 0, 0, > 0: the order of fences. */
int chain_compare(struct chain_rank a, struct chain_rank b);
/* (0, 0) without a chain. */
struct chain_rank chain_rank(const struct chain_view *v);

/* From the network: ids, starts and ends as a chain can have them. */
bool chain_is_sane(const struct chain_view *v);

/* The end of the last frame that both have. False: they aren't related. */
bool chain_common(const struct chain_view *a, const struct chain_view *b, uint64_t *lsn);
/* How many histories are left of a chain when its log is cut at 'lsn'. */
uint32_t chain_cut(const struct history *chain, uint32_t count, uint64_t lsn);
/* True when the log that 'v' describes has the position 'lsn' of 'history': for snapshots after a cut, and before a hash is compared. */
bool chain_holds(const struct chain_view *v, uint64_t lsn, uint64_t history);

/* Where is a position that a client was told? */
enum chain_place {
    CHAIN_HELD,
    CHAIN_LOST,     /* in a tail that was given up: "lost in failover" */
    CHAIN_AHEAD,    /* not here yet */
    CHAIN_FORGOTTEN /* before the beginning of what is known */
};
enum chain_place chain_place(const struct chain_view *v, uint64_t lsn);

/* --- the source's answer --------------------------------------------------------------------------------------- */

/* What the peer asks for, besides its view. */
struct chain_ask {
    bool explicit_; /* REPLICAOF, not yet taken by a source */
    bool force;     /* REPLICAOF ... FORCE */
    bool damaged;   /* its copy is known to be wrong */
};

/* What only the source knows. */
struct chain_local {
    uint64_t oldest; /* its log can be read from here on; UINT64_MAX = not at all */
    bool
        hash_differs; /* of the log before the peer's head, if chain_holds(source, peer's head, its last history) */
};

enum chain_verdict {
    CHAIN_CONTINUE, /* the log follows from 'lsn' on */
    CHAIN_REWIND,   /* the peer cuts its log at 'lsn' and comes again */
    CHAIN_COPY,     /* a copy follows */
    CHAIN_REFUSE,
    CHAIN_LATER, /* not now */
    CHAIN_PEER_IS_AHEAD, /* the peer has from 'lsn' on what the source lacks: it keeps that, and comes again */
    CHAIN_RAISE_FIRST, /* for the source only: it begins the history of chain_raise(), then asks again for its answer */
};

enum chain_reason {
#define CHAIN_REASON(name, text) CHAIN_BY_##name,
#include "replication/chain_reason.def"
#undef CHAIN_REASON
};

struct chain_answer {
    enum chain_verdict verdict;
    enum chain_reason reason;
    uint64_t lsn;
    uint64_t
        raise; /* LATER of a source that is a copy itself: it tells its own source that this epoch was seen; else 0 */
};

struct chain_answer chain_answer(const struct chain_view *source, const struct chain_view *peer,
                                 struct chain_ask ask, const struct chain_local *local);
const char *chain_reason_text(enum chain_reason reason);
const char *chain_verdict_name(enum chain_verdict verdict);

/* To who asks with purpose PULL: CONTINUE if it has nothing but what is in the source's log, COPY if that doesn't reach back to its end, else REFUSE. */
struct chain_answer chain_answer_pull(const struct chain_view *source,
                                      const struct chain_view *puller,
                                      const struct chain_local *local);

/* --- what the peer does with it -------------------------------------------------------------------------------- */

enum chain_step {
    CHAIN_STREAM, /* append what comes. The ask is explicit no more; epoch = max(own, source's) */
    CHAIN_CUT,    /* adopt_note_rewind(lsn), start in place. The ask stays as it is */
    CHAIN_TAKE_COPY, /* take it. If the logs weren't related, the epoch seen becomes the source's */
    CHAIN_COME_AGAIN, /* soon */
    CHAIN_STAY,       /* refused: show the reason, come again now and then */
    CHAIN_NONSENSE,   /* the answer contradicts the views: close the link, touch nothing */
};

/* 'self' and 'ask' as they were sent, 'source' as the answer tells it. The source's word isn't enough to give up data. */
enum chain_step chain_step(const struct chain_view *self, struct chain_ask ask,
                           const struct chain_view *source, const struct chain_answer *answer);

/* --- new histories --------------------------------------------------------------------------------------------- */

enum chain_fork_kind {
    CHAIN_UNCLEAN,   /* an open that wasn't preceded by a clean end: the same epoch */
    CHAIN_PROMOTION, /* REPLICAOF NO ONE, also of a fenced node */
};

/* 'id' and 'random' are random, 'id' not 0. A node that pulled a history that it didn't have before is promoted in it, whatever its own end was. Errors:
 * DC_ELIMIT when no LSNs are left. */
DC_MUST enum dc_err chain_fork(const struct chain_view *self, enum chain_fork_kind kind,
                               uint64_t id, uint64_t random, struct history *out);
/* For CHAIN_RAISE_FIRST: above the peer's epoch and its head. A fence ends with it. */
DC_MUST enum dc_err chain_raise(const struct chain_view *self, const struct chain_view *peer,
                                uint64_t id, uint64_t random, struct history *out);

/* --- primaries that meet --------------------------------------------------------------------------------------- */

/* The peer, which answered a probe of ours, is or follows a primary of higher rank and the same lineage: a primary stops taking writes. */
bool chain_may_fence(const struct chain_view *self, const struct chain_view *peer);
/* The peer, which asks self, is such a one: it is to be asked in turn. */
bool chain_is_challenged(const struct chain_view *self, const struct chain_view *peer);
/* Self holds nothing that the peer lacks: it may follow it without giving anything up. */
bool chain_is_within(const struct chain_view *self, const struct chain_view *peer);

enum chain_contact { CHAIN_SILENT, CHAIN_ANSWERED, CHAIN_UNREACHABLE };

/* A peer that a primary back from an unclean stop, or a promoted replica, asks before it takes writes. */
struct chain_peer {
    enum chain_contact contact;
    bool spent; /* what it has couldn't be pulled: not again */
    struct chain_view view;
};

enum chain_pull_step {
    CHAIN_PULL_WAIT, /* for answers */
    CHAIN_PULL_FROM, /* peer 'index' has what we lack; ask again when it is here */
    CHAIN_PULL_FOLLOW, /* peer 'index' is or follows a higher primary, and we have nothing that it lacks */
    CHAIN_PULL_FENCE, /* peer 'index' has, or had, a higher one: no writes until REPLICAOF */
    CHAIN_PULL_GO_ON, /* fork, take writes. 'missing' peers haven't been heard, or couldn't be pulled from: what only they have is lost, and that is reported */
};

struct chain_pull {
    enum chain_pull_step step;
    uint32_t index;
    uint32_t missing; /* of GO_ON */
    uint64_t epoch;   /* the highest that a peer has seen: a promotion goes above it */
};

enum chain_patience {
    CHAIN_FOR_ALL,       /* something may be lost here that only one of them has */
    CHAIN_FOR_REACHABLE, /* the same, but who can't be reached is what brought this about */
    CHAIN_FOR_ONE, /* nothing can be lost; but is this still the primary? Who can be reached is heard, and at least one */
    CHAIN_TIME_IS_UP
};

/* 'chosen': somebody has promoted this node, so whoever else is or was a primary doesn't matter: it takes over what they have. A
 * primary that merely starts gives way to any higher rank of its lineage, even if its primary isn't to be seen: who was replaced once doesn't
 * come back by itself. */
struct chain_pull chain_pull(const struct chain_view *self, const struct chain_peer *peers,
                             uint32_t count, enum chain_patience patience, bool chosen);

#endif
