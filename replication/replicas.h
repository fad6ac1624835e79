/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * replicas: who follows this node, and how far they have come.
 *
 * Purpose: each link that feeds a replica has a slot and notes there what the replica acknowledges. Replies wait for the
 *   marks that follow from it: the LSN that at least n peers have received, or have on their disks.
 * Invariants:
 *   I1 a mark only rises. What n peers had at one time stays confirmed when one of them goes: reads of old values don't wait for it.
 *   I2 what counts is the peer, not the link: two links of one peer are one replica, with the better of the two acknowledgements.
 *   I3 a peer that comes back counts from its first acknowledgement on. What it had before is known, and told by replicas_each(), not counted.
 *   I4 who asks (replicas_want) and then looks misses nothing: every later rise finds that somebody wants to be told.
 * Threads: any. A slot is noted by one thread at a time. Marks are atomics; no reader waits.
 * Ownership: replicas_destroy() when no link and no reader is left.
 * Failure: more than REPLICAS_MAX links at a time are refused by replicas_join(). Nothing else fails.
 */
#ifndef DC_REPLICATION_REPLICAS_H
#define DC_REPLICATION_REPLICAS_H

#include <stdbool.h>
#include <stdint.h>

#include "replication/ear.h"
#include "replication/wire_fmt.h"
#include "server/base/limits.h"

struct replicas;

struct replicas_opts {
    /* A mark has risen, a replica came or went, and somebody asked (replicas_want). May be NULL. */
    void (*moved)(void *arg);
    void *arg;
};

struct replicas *replicas_create(const struct replicas_opts *opts);
void replicas_destroy(struct replicas *r);

/* What a link is doing, as ROLE and INFO tell. */
enum replica_state { REPLICA_GREETS, REPLICA_COPIES, REPLICA_ONLINE };
/* As Redis calls it. */
const char *replica_state_name(enum replica_state state);

enum { REPLICA_ADDR_MAX = WIRE_ADDRESS_MAX + 1 };

/* --- links ------------------------------------------------------------------------------------------- */

/* A peer's link begins. 'peer' is PEER_ID_LEN bytes; address and port are what it announces. Returns its slot, -1 = none is free. */
int32_t replicas_join(struct replicas *r, const uint8_t *peer, const char *addr, uint16_t port);
void replicas_leave(struct replicas *r, int32_t slot);
void replicas_set_state(struct replicas *r, int32_t slot, enum replica_state state);
/* Where it acknowledges; until it leaves. NULL = nowhere. */
void replicas_set_ear(struct replicas *r, int32_t slot, struct ear *ear);
/* What the replica acknowledges: ends of frames of this node's chain. 'now_us' is time_mono_us(). */
void replicas_note(struct replicas *r, int32_t slot, uint64_t received, uint64_t durable,
                   uint64_t applied, int64_t now_us);
/* It is there. If it has all that was sent, it has nothing to acknowledge. */
void replicas_note_beat(struct replicas *r, int32_t slot, uint64_t head, int64_t now_us);
/* What was sent: up to 'lsn', 'bytes' more than before. */
void replicas_note_sent(struct replicas *r, int32_t slot, uint64_t lsn, uint64_t bytes);

/* What the metadata remember of a peer of this data set: it isn't attached, but counts for a quorum, and what several had acknowledged is
 * confirmed. Before the first link. */
void replicas_know(struct replicas *r, const uint8_t *peer, const char *addr, uint16_t port,
                   uint64_t received, uint64_t durable);
/* Somebody of this data set shows itself. False: it is known. */
bool replicas_meet(struct replicas *r, const uint8_t *peer, const char *addr, uint16_t port);
/* A peer that won't come back. No effect while it is attached. */
void replicas_forget(struct replicas *r, const uint8_t *peer);
/* The same, and 'by' is known where it was: nothing of what that one may have is. */
void replicas_replace(struct replicas *r, const uint8_t *peer, const uint8_t *by);

/* --- marks ------------------------------------------------------------------------------------------- */

/* The LSN up to which at least n peers have (had) everything, on their disks if 'disk'; 0 = none; UINT64_MAX for n = 0. */
uint64_t replicas_mark(const struct replicas *r, uint32_t n, bool disk);
/* Attached peers that have acknowledged 'lsn'. */
uint32_t replicas_count_at(struct replicas *r, uint64_t lsn, bool disk);
/* Attached peers that are online and were heard of in the last 'max_lag_ms'. */
uint32_t replicas_good(const struct replicas *r, int64_t max_lag_ms, int64_t now_us);
/* Links at this moment: whether there is anybody to write the log for. */
uint32_t replicas_link_count(const struct replicas *r);
/* Peers of this data set, attached or not. */
uint32_t replicas_known_count(const struct replicas *r);

/* The next rise calls 'moved' once. Look at the marks after asking. */
void replicas_want(struct replicas *r);
/* Rises with each of what 'moved' is called for: whether something has happened since the last look. */
uint64_t replicas_moves(const struct replicas *r);

/* References to the ears of all links; 'to' has room for REPLICAS_MAX. Returns how many. */
uint32_t replicas_ears(struct replicas *r, struct ear **to);
/* Rises when one comes; not 0. */
uint64_t replicas_ears_moves(const struct replicas *r);

/* Somebody waits until replicas have 'lsn' on their disks: they shall not wait for their second. */
void replicas_hurry(struct replicas *r, uint64_t lsn);
uint64_t replicas_hurry_lsn(const struct replicas *r);
/* Somebody waits for what replicas acknowledge. They do so a few times a second by themselves; asked, at once, for a while. */
enum { REPLICAS_ASK_US = 1000000 };
void replicas_ask(struct replicas *r, int64_t now_us);
/* When links were last called for it. */
int64_t replicas_asked_us(const struct replicas *r);
/* Called when links have to send on one of the two. Before the first link. */
void replicas_on_ask(struct replicas *r, void (*asked)(void *arg), void *arg);

/* --- what is told ------------------------------------------------------------------------------------ */

struct replica_seen {
    uint8_t peer[PEER_ID_LEN];
    char addr[REPLICA_ADDR_MAX];
    uint16_t port;
    int32_t slot; /* -1 = known, not attached */
    enum replica_state state;
    uint64_t received, durable, applied;
    uint64_t sent_lsn, sent_bytes;
    int64_t joined_us, noted_us; /* of the link, and of its last word; 0 = none */
};

/* How long its link has told nothing. */
int64_t replica_silence_us(const struct replica_seen *seen, int64_t now_us);

/* Copies: first the links in the order in which they came, then known peers without one. 'each' is called without a lock. */
void replicas_each(struct replicas *r, void (*each)(const struct replica_seen *seen, void *arg),
                   void *arg);

#endif
