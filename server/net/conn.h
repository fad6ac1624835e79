/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * conn: one connection: input, requests, output.
 *
 * Purpose: see loop.h for the turn. Unfinished input and unsent output are the only things that a connection keeps between
 *   turns.
 * Invariants: I1 requests of a connection run in their order, and replies and pushes leave in the order in which they were
 *   made. I2 a connection with more than OUTPUT_SOFT_LEN bytes unsent isn't read from. I3 what is queued for a
 *   subscriber or a monitor is bounded by the output limits; beyond them the connection is closed.
 * Threads: its worker.
 */
#ifndef DC_NET_CONN_H
#define DC_NET_CONN_H

#include <event2/event_struct.h>

#include "server/cmd/client.h"
#include "server/net/loop.h"
#include "server/proto/resp.h"

struct chunk; /* a piece of queued output */
struct task;  /* a request of this turn */

struct conn {
    struct client client; /* first: a client of this floor is a conn */
    struct worker *w;
    struct event event;
    /* input */
    struct resp_parser parser;
    struct buf in; /* unfinished input of earlier turns */
    char *data;    /* what is parsed in this turn: in the arena, or the content of 'in' */
    size_t len;
    struct task *tasks; /* parsed, not yet run */
    struct task **tasks_tail;
    struct task *held; /* requests that have to wait (CLIENT PAUSE); copies on the heap */
    /* output */
    size_t out_start; /* replies of this turn in the worker's output */
    size_t out_len;
    struct chunk *queue; /* what the socket didn't take */
    struct chunk *queue_last;
    size_t queued;
    uint64_t gate;                   /* the LSN that the replies of this turn wait for, 0 = none */
    struct ack_level level;          /* under which they were made */
    uint32_t answers;                /* replies of this turn */
    uint32_t part_first, part_count; /* which of them wait for what: gates.h */
    int64_t soft_since_ms;           /* above the soft limit since, 0 = below */
    /* state */
    bool readable; /* the socket may have more */
    bool peer_closed;
    bool notes_parts; /* of the replies of this run */
    bool unparsed;    /* 'in' may hold complete requests */
    bool bad;         /* the peer doesn't speak the protocol */
    bool stalled;     /* I2 */
    bool close_soon;  /* when the output is out */
    detach_fn detach; /* goes there then, instead of being closed; NULL = closed */
    bool over_limit;  /* of its output: closed in the flush phase, takes nothing more */
    bool closed;
    bool holds; /* counted in the worker's held_count */
    bool in_run, in_flush, in_again, in_gated;
    struct conn *next_run, *next_flush, *next_again, *next_gated, *next_dead;
    struct conn *next, *prev; /* all of the worker */
};

/* Takes over a connected, non-blocking socket. */
void conn_open(struct worker *w, int fd, const char *addr, const char *laddr, bool is_unix);

/* The phases. */
void conn_feed(struct conn *c); /* reads and parses, enters 'run' */
void conn_prefetch_lines(struct conn *c);
void conn_prefetch_entries(struct conn *c);
void conn_run(struct conn *c);
void conn_flush(struct conn *c);

/* Closes now. The memory goes at the end of the turn. */
void conn_close(struct conn *c);
void conn_enter_dead(struct conn *c);
/* The next turn looks at it without an event: for input, and for output that is left. */
void conn_enter_again(struct conn *c);
/* Leaves the worker with its socket open, and goes to c->detach. */
void conn_detach(struct conn *c);
void conn_free(struct conn *c);

/* Output that isn't a reply (I3). */
void conn_push(struct conn *c, struct bytes data);

/* Once a timer tick: idle time, soft limits. */
void conn_tick(struct conn *c, int64_t now_ms);

void conn_take_blob(struct reply *r, struct blob *blob, size_t from, size_t len);
void conn_drop_blob(struct reply *r);

#endif
