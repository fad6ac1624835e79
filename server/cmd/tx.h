/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tx: MULTI, EXEC and WATCH.
 *
 * Purpose: queue commands with copies of their arguments; run them as one frame under all their slot locks; give
 *   up when a watched key has another version.
 * Invariants: I1 EXEC holds every slot of its commands and of its watches from the check to the commit. I2 a
 *   watch of an absent key fails when the key is there, or when anything was removed from its slot
 *   that was written after the WATCH.
 * Threads: the client's worker. Ownership: the client owns its tx; tx_drop() frees it.
 */
#ifndef DC_CMD_TX_H
#define DC_CMD_TX_H

#include "server/cmd/cmd.h"

/* Queues a command of a client in MULTI. Errors: DC_ENOMEM. */
DC_MUST enum dc_err tx_queue(struct client *c, const struct job *job);

/* A command was refused while queueing: EXEC will answer EXECABORT. */
void tx_spoil(struct client *c);

/* Flags of all queued commands together. */
uint32_t tx_flags(const struct client *c);

/* The command that EXEC will run first, with its arguments. NULL: there is none, or it may turn out that nothing is run. */
const struct cmd *tx_first(const struct client *c, const struct bytes **argv, uint32_t *argc);

/* Leaves MULTI; watched keys are forgotten as well. */
void tx_drop(struct client *c);

#endif
