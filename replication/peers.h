/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * peers: the nodes that this one knows; whom to ask, when, and what to do with the answers.
 *
 *     events  ─► peers_learn, peers_link, peers_answered, peers_silent, peers_pulled ─►┐
 *     peers_next(now) ◄── probe | pull | fence | follow | go on | nothing until ... ◄──┘   the caller has the sockets and the role
 *
 * Purpose: a primary asks its peers before it takes writes (after a start, after a promotion), and asks them again while it lacks a majority
 *   of them: it may have been replaced. A state machine without sockets, threads and clock.
 * States: RESTING: a replica, or fenced. ASKING: no writes yet. WATCHING: a primary that takes writes.
 * Invariants: I1 at most one question to a peer is under way. I2 ASKING ends after the time given to peers_ask(), plus that of the last questions, and of the pulls: behind it at most three
 *   from each peer. So every PROBE must come to an end, answered or silent.
 *   I3 only answers to own questions count (CHAIN.md: a drill fences nobody).
 * Threads: one at a time; the caller locks. Ownership: views are copied.
 */
#ifndef DC_REPLICATION_PEERS_H
#define DC_REPLICATION_PEERS_H

#include <stdbool.h>
#include <stdint.h>

#include "replication/chain.h"
#include "replication/wire_fmt.h"
#include "server/base/limits.h"

struct peers;

struct peers_opts {         /* 0 = default */
    int64_t ask_again_ms;   /* between two questions to a peer while ASKING; 200 */
    int64_t watch_again_ms; /* the same while WATCHING without a majority; 1000 */
    int64_t lonely_ms;      /* without a majority for so long before the first question; 1000 */
};

struct peers *peers_create(const struct peers_opts *opts);
void peers_destroy(struct peers *p); /* NULL is legal */

/* Known for good, until forgotten: who has followed this node, was told of by its source, or has asked it as a primary of higher rank. False: there is no room, and nobody
 * who is unheard for long could be forgotten instead. The address may change. */
bool peers_learn(struct peers *p, const uint8_t id[PEER_ID_LEN], const char *host, uint16_t port,
                 int64_t now_ms);
void peers_forget(struct peers *p, const uint8_t id[PEER_ID_LEN]);
/* Another node answers where 'id' was asked, whose disk is lost then: it is forgotten, and who answered is learned in its place, and will be asked. False: that one
 * is known at another address, so this address tells nothing: 'id' is silent. */
bool peers_replace(struct peers *p, const uint8_t id[PEER_ID_LEN], const uint8_t by[PEER_ID_LEN],
                   int64_t now_ms);
uint32_t peers_count(const struct peers *p);
/* For the metadata and INFO. */
struct peers_entry {
    uint8_t id[PEER_ID_LEN];
    char host[WIRE_ADDRESS_MAX + 1];
    uint16_t port;
    bool linked;
};
bool peers_entry(const struct peers *p, uint32_t index, struct peers_entry *out);

/* --- what the node is ------------------------------------------------------------------------------------------ */

enum peers_why {
    PEERS_CLEAN_START, /* its log ended well: it goes on in the same history */
    PEERS_KILLED,      /* it didn't, but the machine never stopped: what peers have is in the log */
    PEERS_POWER_CUT,   /* peers may have what isn't here any more */
    PEERS_PROMOTED,    /* other replicas may have more than this one */
};

/* A primary that doesn't take writes yet begins to ask. A promotion waits for who is silent, not for who refuses the connection: one of them
 * is why it was promoted. */
void peers_ask(struct peers *p, enum peers_why why, const struct chain_view *self, int64_t now_ms,
               int64_t timeout_ms);
/* Behind peers_ask(): the log ends with a history that another node has begun, from before this start. It is left as one that was pulled just now. */
void peers_note_strange(struct peers *p);
/* A replica, or fenced. */
void peers_rest(struct peers *p);
/* A primary that takes writes, without asking first: a fence ended because the higher one gave way. */
void peers_watch(struct peers *p);

/* --- events ---------------------------------------------------------------------------------------------------- */

/* A peer follows this node, or no longer does. */
void peers_link(struct peers *p, const uint8_t id[PEER_ID_LEN], bool up, int64_t now_ms);
/* What came of PEERS_PROBE, if it wasn't peers_replace(). A view that isn't sane is none. */
void peers_answered(struct peers *p, const uint8_t id[PEER_ID_LEN], const struct chain_view *view,
                    int64_t now_ms);
void peers_silent(struct peers *p, const uint8_t id[PEER_ID_LEN], int64_t now_ms);
/* What came of PEERS_PULL: all up to the peer's end is here, or not. */
void peers_pulled(struct peers *p, const uint8_t id[PEER_ID_LEN], bool all, int64_t now_ms);

/* --- actions --------------------------------------------------------------------------------------------------- */

enum peers_action {
    PEERS_NOTHING, /* until 'until_ms', or an event */
    PEERS_PROBE,   /* connect to 'peer', purpose PROBE */
    PEERS_PULL, /* connect to 'peer', purpose PULL, append what it sends up to its end, or take its copy */
    PEERS_FENCE,  /* 'peer' shows a primary of higher rank: no writes until REPLICAOF */
    PEERS_FOLLOW, /* the same, and nothing is given up by following it */
    PEERS_GO_ON,  /* begin the history of 'fork', if 'forks'; take writes; report 'missing' */
};

struct peers_todo {
    enum peers_action action;
    struct peers_entry peer;
    int64_t until_ms; /* INT64_MAX = only an event */
    bool forks;
    enum chain_fork_kind fork;
    uint32_t missing; /* who wasn't heard, or couldn't be pulled from */
    uint64_t epoch; /* the highest that was heard of: to be kept as the epoch seen, before a fork */
    struct chain_rank rank; /* FENCE, FOLLOW: of the peer */
};

/* Call until it says NOTHING: after every event, and at 'until_ms'. After FENCE, FOLLOW and GO_ON the state has changed. */
struct peers_todo peers_next(struct peers *p, const struct chain_view *self, int64_t now_ms);

#endif
