/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ear: what comes back on a link to a replica may be read by whoever waits for it, without a thread between the socket and him.
 *
 * Purpose: the link's owner has an ear, and gives it to the registry (replicas.h). Who waits there watches ear_fd(), and calls ear_hear() when it can be read. The
 *   owner reads as well, seldom as long as somebody else listens.
 * Invariants: I1 one reads at a time. I2 'hear' isn't called any more when ear_close() has returned.
 * Threads: any.
 * Ownership: counted. The descriptor is the ear's own, and is there as long as the ear; it can be read as soon as the link is shut down.
 */
#ifndef DC_REPLICATION_EAR_H
#define DC_REPLICATION_EAR_H

#include <stdbool.h>
#include <stdint.h>

struct ear;

/* Takes what has come, without waiting; false = the link is over. */
typedef bool (*ear_hear_fn)(void *arg);

/* 'fd' is the link's. */
struct ear *ear_create(int fd, ear_hear_fn hear, void *arg);
struct ear *ear_acquire(struct ear *e);
void ear_release(struct ear *e);
/* By the owner, whose reference is gone then. */
void ear_close(struct ear *e);

/* -1: there was no descriptor for it, only the owner reads. */
int ear_fd(const struct ear *e);
/* False: there is nothing more to come. */
bool ear_hear(struct ear *e);

/* Somebody begins or ends to watch it. */
void ear_listen(struct ear *e, bool begins);
bool ear_has_listeners(const struct ear *e);

#endif
