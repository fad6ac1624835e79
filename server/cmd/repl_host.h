/* SPDX-License-Identifier: BSD-3-Clause */
/* repl_host: what replication asks of the node: snapshots, a start in place, held requests. */
#ifndef DC_CMD_REPL_HOST_H
#define DC_CMD_REPL_HOST_H

#include "persist/data.h"
#include "persist/standing.h"
#include "server/base/err.h"

struct node;

/* The role is in force and links are taken when it returns; the saver runs already. Errors: those of the metadata. */
DC_MUST enum dc_err repl_host_start(struct node *n, struct data *d, const struct standing *s);

#endif
