/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * loop: a worker: one libevent loop, its connections, and a thread that runs it (understudy.h).
 *
 * Purpose: a turn has three phases. Read: every readable connection's bytes go into the turn's arena, complete requests are
 *   parsed, looked up and hashed, and memory is asked for. Run: the requests are executed, connection by
 *   connection; replies go to the turn's output. Flush: the log is written (gates.h), then one send for each connection. So instructions stay hot,
 *   memory arrives while others are served, and an idle connection owns no buffer.
 * Invariants: I1 only the worker touches its connections; others post messages. I2 a connection is in each of the
 *   lists run, flush, again at most once. I3 a closed connection's memory is freed after the turn.
 * Threads: worker_post(), worker_resume() and worker_stop() any; worker_wait() the main thread; the rest whoever runs the loop.
 */
#ifndef DC_NET_LOOP_H
#define DC_NET_LOOP_H

#include <event2/event.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/base/ack.h"
#include "server/base/arena.h"
#include "server/base/buf.h"
#include "server/base/lock.h"
#include "server/base/thread.h"
#include "server/base/wake.h"
#include "server/cmd/node.h"
#include "server/net/ears.h"
#include "server/net/understudy.h"

struct conn;

struct conn_list {
    struct conn *first;
    struct conn **tail;
};

static inline void conn_list_init(struct conn_list *l) {
    l->first = NULL;
    l->tail = &l->first;
}

/* A reply among others of a turn that waits for something. */
struct gate_part {
    uint32_t start, end; /* of the connection's output in the turn */
    uint64_t gate;
};

enum { GATE_PARTS_MAX = 2048 };

/* Replies that wait for the log or for replicas: gates.h. */
struct gates {
    struct conn_list waiting;
    /* of the turn: what its replies need, and the highest LSNs */
    uint32_t turn_needs;   /* enum acks_need, but for the default level */
    bool turn_writes;      /* some need the log written, and no disk of this node */
    bool turn_waits;       /* some need nothing else */
    uint64_t turn_gated;   /* of all of them */
    uint64_t turn_default; /* of replies under the default level */
    uint64_t turn_hurry;   /* of those that need the replicas' disks */
    uint32_t part_count;
    struct gate_part parts[GATE_PARTS_MAX];
    /* of the flush phase: up to where replies may leave */
    uint64_t mark;          /* under the default level */
    struct ack_level other; /* the last one looked at besides, default = none */
    uint64_t other_mark;
    struct gates_seen {
        uint64_t written, durable, moves;
        uint32_t default_needs;
    } seen;         /* before the marks were looked at */
    uint32_t wants; /* what connections in 'waiting' wait for, enum acks_need */
    bool ticked;    /* the timer: some may have waited for too long */
    bool refuses;   /* all who wait are to be refused: 'why' */
    char why[256];
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
    struct conn_list dead;  /* to be freed */
    struct conn *running;
    struct gates gates;
    struct ears ears;
    bool turn_open;
    bool turn_lent;      /* the loop is, between run and flush */
    uint32_t held_count; /* connections whose request waits */
    uint64_t ticks;      /* of the timer */
    struct event *timer;
    struct event *wake;
    int wake_fd;
    struct thread thread; /* that began with the loop; it may be another one that runs it now */
    struct seat seat;
    struct wake ended; /* raised when the loop has ended */
    /* under the mailbox lock */
    struct lock mailbox_lock;
    struct message *mail;
    struct message **mail_tail;
    /* atomic */
    _Atomic uint32_t conn_count;
    _Atomic bool stopping;
    _Atomic bool waits;   /* something is held, or waits at a gate, or a turn is under way */
    _Atomic bool resumed; /* what waits is to be looked at again; the wake-up is on its way */
};

enum { WORKER_TIMER_MS = 100 };

/* Ends the process when the loop can't be had. */
struct worker *worker_create(struct node *n, uint32_t index);
void worker_start(struct worker *w);
void worker_stop(struct worker *w);
/* Waits for the loop's end. Its connections stay visible to commands of other workers until destroy. */
void worker_wait(struct worker *w);
void worker_destroy(struct worker *w);

void worker_post(struct worker *w, struct message *m);

/* Lets it look again at what is held and what waits. Any thread. */
void worker_resume(struct worker *w);

/* Runs the loop, from the middle of a turn if it was lent there. True: it has ended; false: another thread goes on with it. */
bool worker_run(struct worker *w);

/* The flush phase. */
void worker_flush(struct worker *w);

/* Reads the clock when the first event of a turn arrives. */
void worker_turn_begin(struct worker *w);

/* What is held may run now; what waits is looked at when the turn ends, as always. */
void worker_look_again(struct worker *w);

/* The requests that commands have for this floor. */
extern const struct host net_host;

#endif
