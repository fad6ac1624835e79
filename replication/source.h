/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * source: links to those who follow this node.
 *
 * Purpose: each link has a session: a thread that sends the log from where the peer stands (or a full copy first), and one that
 *   takes its acknowledgements. The log is read from the segment files, by position: nothing is kept in memory for a replica.
 *
 *     HELLO -> verdict -> ANSWER      CONTINUE: LOG ... BEAT ... HURRY
 *                                     COPY: BEAT ... COPY, COPY_DATA ..., COPY_END; the peer begins anew and comes again
 *                                     else: BYE
 *
 * Invariants: I1 a replica that is slow, frozen or gone costs writers nothing: its session waits for its socket, at most repl-timeout, and
 *   for nobody else. I2 what a session reads isn't removed before, up to a bound of bytes; the log behind a copy likewise, until its
 *   replica is back or COPY_PIN_MS have passed. I3 at most replication-full-copies copies are sent at a time.
 * Threads: source_accept() any; source_tick() and source_stop() the thread repl's.
 */
#ifndef DC_REPLICATION_SOURCE_H
#define DC_REPLICATION_SOURCE_H

#include "replication/self.h"

struct source;

struct source *source_create(struct self *self);
/* Takes over a socket whose REPLSTREAM is answered, and what came behind that (copied). */
void source_accept(struct source *s, int fd, struct bytes early);
/* Once a second: sessions that have ended, pins whose time is over. */
void source_tick(struct source *s);
/* Ends all sessions, with the reason. Others may begin. */
void source_drop_all(struct source *s, const char *why);
/* Ends all, and waits for them. None begins any more. */
void source_stop(struct source *s);
void source_destroy(struct source *s); /* NULL is legal; stopped */

/* A planned switch: the peer gets PROMOTE when it has been sent the log up to 'lsn' (0 = wherever it stands). False: it hasn't exactly one link
 * now. */
bool source_promote(struct source *s, const uint8_t *peer_id, uint64_t lsn, uint64_t epoch);
/* The peer has greeted as a replica since: it isn't promoted, and won't be. */
bool source_promote_failed(struct source *s);
/* The switch is over; what wasn't sent yet isn't sent any more. */
void source_promote_end(struct source *s);

struct source_stats {
    uint64_t full, partial, refused; /* sessions by their verdict */
    uint64_t copies_under_way;
    uint64_t sent_bytes;
    char last_full_reason[128]; /* why the last full copy was needed */
};
void source_stats(struct source *s, struct source_stats *out);

#endif
