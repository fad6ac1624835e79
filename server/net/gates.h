/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * gates: replies that wait until what they wrote or reveal is as safe as their level asks.
 *
 * Purpose: a reply's gate is an LSN, its level that of the connection when it was made (CLIENT ACK, else the node's). It leaves when the mark of the level
 *   has reached the gate. What isn't through at the end of a turn stands in the connection's queue, and the connection in the list 'waiting'.
 * Invariants: I1 replies leave in their order; one that waits holds up those behind it, whatever their level. I2 a reply that was refused
 *   (UNCONFIRMED) isn't confirmed later. I3 of a reply whose beginning has left the rest isn't refused. I4 who waits is told: each turn asks the log and
 *   the replicas for what its connections wait for, then looks again.
 * Threads: the worker; gates_refuse() any.
 */
#ifndef DC_NET_GATES_H
#define DC_NET_GATES_H

#include "server/cmd/acks.h"
#include "server/net/conn.h"

/* A connection's run is over, or its level changes: its gate counts for what the turn has to ask for. */
void gates_note(struct conn *c);

/* One of several replies of a turn: so that it alone is refused if it comes to that. If there is no room, they are refused together. 'start' and 'end'
 * are places in the worker's output. */
void gates_note_part(struct conn *c, size_t start, size_t end, uint64_t gate);
/* Parts behind here are of other replies. Those that wait for the writer alone are hardly ever refused: they aren't noted. */
static inline void gates_begin_parts(struct conn *c) {
    struct gates *g = &c->w->gates;
    c->part_first = g->part_count;
    c->part_count = 0;
    c->notes_parts =
        !ack_is_default(c->level) || (g->seen.default_needs & ~(uint32_t)ACKS_WRITTEN) != 0;
}

/* The end of a turn: asks for what its replies need. Returns up to where the worker is to write the log, 0 = it isn't; 'waits': replies wait for nothing else, so if
 * log-writer has to do it, for a moment so does the worker. */
uint64_t gates_ask(struct worker *w, bool *waits);
/* Looks at the marks, and gives those who waited another chance to flush. */
void gates_open(struct worker *w);
/* Whether replies of the turn wait for the writer, so that more requests may come along. */
bool gates_want_company(const struct worker *w);
/* After the flush: refuses what has waited for too long, or can't get on; asks to be told of the rest (I4). */
void gates_wait(struct worker *w);
/* The end of the worker: a last chance, then errors. */
void gates_settle(struct worker *w);

/* Up to where replies of a level may leave in this flush phase. */
uint64_t gates_mark_of(struct worker *w, struct ack_level level);
static inline uint64_t gates_mark(struct worker *w, struct ack_level level) {
    return dc_likely(ack_is_default(level)) ? w->gates.mark : gates_mark_of(w, level);
}

/* Replies of the connection wait under this level. */
void gates_enter(struct conn *c, struct ack_level level);

/* The host's refuse_waiting(). */
void gates_refuse(struct node *n, const char *why);

#endif
