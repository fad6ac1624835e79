/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * listen: the listening sockets, and which worker gets a new connection.
 *
 * Purpose: worker 0 accepts; a connection goes to the worker that has the fewest.
 * Threads: open and close before the workers start and after they ended; the rest worker 0.
 * Failure: DC_EIO with the address and the reason.
 */
#ifndef DC_NET_LISTEN_H
#define DC_NET_LISTEN_H

#include "server/base/err.h"
#include "server/base/handover.h"
#include "server/net/loop.h"

struct listeners;

/* Opens what bind, port and unixsocket say; takes sockets of the run before (NULL = there was none) where they listen there already. */
DC_MUST enum dc_err listeners_open(struct node *n, struct worker *acceptor, struct handover *before,
                                   struct listeners **out);
/* Closes, or hands the sockets over to the run that comes after ('after' isn't NULL): they go on collecting connections. */
void listeners_close(struct listeners *l, struct handover *after);

#endif
