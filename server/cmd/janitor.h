/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * janitor: the thread that does what is due by time: the node clock, the sweep of expired entries, samples of memory
 * and of INFO's rates.
 */
#ifndef DC_CMD_JANITOR_H
#define DC_CMD_JANITOR_H

struct janitor;
struct node;

enum { JANITOR_PERIOD_MS = 100, JANITOR_BUSY_PERIOD_MS = 10 };

/* Takes a first sample of memory, so that the budget holds when this returns. */
struct janitor *janitor_start(struct node *n);

/* Returns when the thread has ended, which it does at once. NULL is legal. */
void janitor_stop(struct janitor *j);

#endif
