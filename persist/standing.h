/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * standing: what a node remembers of its place among others, in its metadata: its role, the primary that it follows, the highest epoch that it
 * has seen, who followed it and how far they had come.
 *
 * Invariants: I1 a call that returned DC_OK is on the disk, all of it or nothing. I2 a node's own id is made once and never changes, whatever
 *   data it holds: acknowledgements count per node, not per data set.
 * Threads: any (meta.h); a call waits for the disk. Ownership: results are copies.
 * Failure: that of the metadata; DC_ECORRUPT when a text isn't what this program writes.
 *   Metadata that was damaged is begun anew (meta.h): the node is a primary that knows nobody then.
 */
#ifndef DC_PERSIST_STANDING_H
#define DC_PERSIST_STANDING_H

#include "persist/meta.h"
#include "server/base/limits.h"

enum standing_role {
    STANDING_UNKNOWN /* nothing was stored */,
    STANDING_PRIMARY,
    STANDING_REPLICA
};

struct standing {
    enum standing_role role;
    char host[HOST_NAME_MAX_LEN]; /* of the primary that it follows; "" when it is one */
    uint16_t port;
    uint64_t epoch;                      /* the highest that it has seen */
    uint64_t fence_epoch, fence_history; /* rank of the primary that fenced it; 0 = none */
};
DC_MUST enum dc_err standing_get(struct meta *m, struct standing *out);
DC_MUST enum dc_err standing_put(struct meta *m, const struct standing *s);
/* With other texts that change at the same moment; at most STANDING_MORE_MAX. */
enum { STANDING_MORE_MAX = 4 };
DC_MUST enum dc_err standing_put_with(struct meta *m, const struct standing *s,
                                      const struct meta_text *more, uint32_t count);

/* A text: "yes" when others have, or had, these data. What nobody else ever had is no good choice for a promotion. */
#define STANDING_SHARED "replication-shared"

/* The id of this node towards others: random, made by the first call. */
DC_MUST enum dc_err standing_own_id(struct meta *m, uint8_t id[NODE_ID_LEN]);

/* A replica of this node. */
struct standing_peer {
    uint8_t id[NODE_ID_LEN];
    char host[HOST_NAME_MAX_LEN]; /* where it can be reached */
    uint16_t port;
    uint64_t received, durable; /* LSNs that it has acknowledged */
    int64_t seen_ms;            /* wall clock */
};
/* All of them; 'out' has room for PEERS_MAX. */
DC_MUST enum dc_err standing_get_peers(struct meta *m, struct standing_peer *out, uint32_t *count);
/* Exactly these; at most PEERS_MAX. */
DC_MUST enum dc_err standing_put_peers(struct meta *m, const struct standing_peer *peers,
                                       uint32_t count);

#endif
