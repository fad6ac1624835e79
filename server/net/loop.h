/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * loop: a worker: one thread, one libevent loop, its connections.
 *
 * Purpose: a turn has three phases. Read: every readable connection's bytes go into the turn's arena, complete requests are
 *   parsed, looked up and hashed, and memory is asked for. Run: the requests are executed, connection by
 *   connection; replies go to the turn's output. Flush: one send for each connection. So instructions stay hot,
 *   memory arrives while others are served, and an idle connection owns no buffer.
 * Invariants: I1 only the worker touches its connections; others post messages. I2 a connection is in each of the
 *   lists run, flush, again at most once. I3 a closed connection's memory is freed after the turn.
 * Threads: worker_post() and worker_stop() any; the rest the worker itself.
 */
#ifndef DC_NET_LOOP_H
#define DC_NET_LOOP_H

#include <event2/event.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/base/arena.h"
#include "server/base/buf.h"
#include "server/base/lock.h"
#include "server/base/thread.h"
#include "server/cmd/node.h"

struct conn;

struct conn_list {
    struct conn *first;
    struct conn **tail;
};

struct worker {
    struct cmd_worker cmd; /* first: a cmd_worker of this floor is a worker */
    /* owned by the worker */
    struct event_base *base;
    struct arena arena;
    struct buf out;         /* replies of the turn */
    struct conn *conns;     /* all, linked both ways */
    struct conn_list run;   /* requests are waiting */
    struct conn_list flush; /* output is waiting */
    struct conn_list again; /* to be looked at in the next turn without an event */
    struct conn_list gated; /* replies wait for the log */
    struct conn_list dead;  /* to be freed */
    struct conn *running;
    uint64_t turn_gate; /* the highest LSN that a reply of this turn waits for */
    uint64_t mark;      /* what may leave in this flush phase */
    bool turn_open;
    uint32_t held_count; /* connections whose request waits */
    uint64_t ticks;      /* of the timer */
    struct event *timer;
    struct event *wake;
    int wake_fd;
    struct thread thread;
    /* under the mailbox lock */
    struct lock mailbox_lock;
    struct message *mail;
    struct message **mail_tail;
    /* atomic */
    _Atomic uint32_t conn_count;
    _Atomic bool stopping;
    _Atomic bool resumed; /* what waits is to be looked at again; the wake-up is on its way */
};

enum { WORKER_TIMER_MS = 100 };

/* Ends the process when the loop can't be had. */
struct worker *worker_create(struct node *n, uint32_t index);
void worker_start(struct worker *w);
void worker_stop(struct worker *w);
/* Waits for the thread's end. Its connections stay visible to commands of other workers until destroy. */
void worker_join(struct worker *w);
void worker_destroy(struct worker *w);

void worker_post(struct worker *w, struct message *m);

/* Reads the clock when the first event of a turn arrives. */
void worker_turn_begin(struct worker *w);

/* The requests that commands have for this floor. */
extern const struct host net_host;

#endif
