/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * understudy: a thread that goes on with a worker's loop when the worker's own doesn't come back from the kernel.
 *
 * Purpose: a worker writes its turn's log itself, since the way through another thread costs more than the write. But a write takes as long as the
 *   disk likes, and nobody else is to wait for it. So the worker lends its loop meanwhile, and if it is late the understudy runs on with it.
 *
 *     worker-0   turn ─ lend ─ write ─ take back ─ flush ─ turn ─ lend ─ write ............ too late: is the understudy now
 *     understudy                                                         └─ take: is worker-0 now ─ flush ─ turn ─
 *
 * Invariants: I1 one thread at a time runs a loop: of those who want it, one gets it. I2 who has lent a loop touches nothing of the worker until he
 *   has taken it back. I3 log_write_through() holds one thread at a time for longer than a moment, so one understudy is enough.
 * Threads: seat_lend() the one that runs the loop, seat_take() he and the understudy; understudy_run() one that has lost its loop; the rest the main thread.
 */
#ifndef DC_NET_UNDERSTUDY_H
#define DC_NET_UNDERSTUDY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct node;
struct understudy;

/* Of one loop: whether it is lent. */
struct seat {
    struct understudy *understudy;
    _Atomic int64_t loan; /* since when, in microseconds; negative: it was the last one */
};

/* Starts the thread. The workers exist, and don't run yet. */
struct understudy *understudy_start(struct node *n);
/* When the loops have ended: waits for all the threads that ran them. */
void understudy_stop(struct understudy *s);
/* What a thread does that has lost its loop: waits for the next one. Returns when the understudy is stopped, or a loop that it had taken has ended. */
void understudy_run(struct understudy *s);

/* Returns what seat_take() asks for. */
int64_t seat_lend(struct seat *s);
/* By who has lent it, or is to go on with it. False: another thread runs the loop. */
bool seat_take(struct seat *s, int64_t loan);

#endif
