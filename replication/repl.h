/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repl: what this node is to other nodes: a primary, or the replica of one.
 *
 * Purpose: the role, its changes (REPLICAOF, the start, a promotion), and what INFO and ROLE show of it. Links have threads of their
 *   own: source.h sends the log, sink.h receives it.
 * Invariants: I1 'writes' says what the role allows before repl_follow() returns: no command that is admitted later writes.
 *   I2 writes are taken again only when the new history is durable.
 * Threads: any may ask and look; a change is made by the thread repl. Nobody waits for it.
 * Ownership: the node's. The views are copies.
 */
#ifndef DC_REPLICATION_REPL_H
#define DC_REPLICATION_REPL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/base/bytes.h"
#include "server/base/err.h"
#include "server/base/limits.h"

struct conf;
struct repl;

/* Why writes aren't taken. */
enum writes {
    WRITES_TAKEN,
    WRITES_READONLY, /* a replica */
    WRITES_FENCED,   /* a higher primary was seen */
    WRITES_HELD,     /* not yet: whoever writes waits */
};

enum repl_role { ROLE_PRIMARY, ROLE_REPLICA, ROLE_FENCED, ROLE_PULLING };

/* Of a replica, in Redis's words. */
enum repl_link {
    LINK_CONNECT,    /* not tried yet, or about to be tried again */
    LINK_CONNECTING, /* under way: socket, password, handshake */
    LINK_SYNC,       /* a full copy is being received */
    LINK_CONNECTED,
};
const char *repl_link_name(enum repl_link link);

struct repl_opts {
    struct conf *conf;
    _Atomic uint32_t *writes; /* enum writes; the node's */
};

struct repl *repl_create(const struct repl_opts *opts);
void repl_destroy(struct repl *r); /* NULL is legal */

/* REPLICAOF host port. 'force': also when the other one is empty. Errors: DC_ELIMIT when the host is too long. */
DC_MUST enum dc_err repl_follow(struct repl *r, struct bytes host, uint32_t port, bool force);
/* REPLICAOF NO ONE. */
void repl_promote(struct repl *r);

/* Commands may be answered although the primary isn't reachable: always true of a primary. */
bool repl_is_current(const struct repl *r);

struct repl_view {
    enum repl_role role;
    enum repl_link link; /* of a replica, like what follows */
    char host[HOST_NAME_MAX_LEN];
    uint32_t port;
    int64_t last_io_us;    /* monotonic; 0 = never */
    int64_t down_since_us; /* monotonic */
    uint64_t received_lsn, applied_lsn;
    uint64_t copy_bytes, copy_len; /* of a full copy under way */
    char why_down[256];            /* what ended the last link, or keeps it from beginning */
};
void repl_view(struct repl *r, struct repl_view *out);

#endif
