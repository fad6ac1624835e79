/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ears: a worker with replies that wait for replicas reads itself what these send back: else a thread would have to wake up for each acknowledgement to
 * wake up the worker. For a second or two it goes on when nothing waits any more.
 *
 * Threads: the worker.
 */
#ifndef DC_NET_EARS_H
#define DC_NET_EARS_H

#include <stdbool.h>
#include <stdint.h>

#include "replication/ear.h"
#include "server/base/limits.h"

struct event;
struct worker;

struct worker_ear {
    struct worker *w;
    struct ear *ear; /* NULL = free */
    struct event *event;
};

struct ears {
    struct worker_ear list[REPLICAS_MAX];
    uint64_t seen;        /* replicas_ears_moves() at the last look, 0 = it doesn't listen */
    uint32_t quiet_ticks; /* of the timer, since something waited */
};

/* Something waits. */
void ears_open(struct worker *w);
/* The worker's timer. */
void ears_tick(struct worker *w);
void ears_close(struct worker *w);

#endif
