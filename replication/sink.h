/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sink: the link of a replica to the node that it follows.
 *
 * Purpose: one thread connects, greets, and does what the answer says: takes the log into its own and shows it, or receives a full copy, or notes
 *   that the log is to be cut; the last two end in a start in place. Another one sends acknowledgements and heartbeats. A link
 *   that ends is tried again, after a pause that grows, with jitter.
 *
 *     LOG: bytes -> frames, checked -> log_put() -> ACK -> apply -> log_set_applied()
 *
 * Invariants: I1 only whole frames get into the log; half of one is forgotten with its link. I2 nothing of a copy counts before it is complete,
 *   its sum is right, and it is on the disk.
 * Threads: its owner starts and stops it; sink_view() any.
 */
#ifndef DC_REPLICATION_SINK_H
#define DC_REPLICATION_SINK_H

#include "replication/self.h"
#include "server/base/wake.h"

struct sink;

struct sink_target {
    char host[HOST_NAME_MAX_LEN];
    uint32_t port;
    struct chain_ask ask;
    bool
        pulls; /* takes the log up to the other one's end, or a copy, once: a primary that lost it. Else it follows */
    struct wake *wake; /* is raised when that is over */
};

struct sink *sink_start(struct self *self, const struct sink_target *target);
/* Waits for its threads: what has been received whole is applied. NULL is legal. */
void sink_stop(struct sink *s);

/* What became of a pull. */
enum sink_pull {
    SINK_PULLS,
    SINK_PULLED_ALL,
    SINK_PULL_FAILED,
    SINK_PULL_UNSHOWN, /* the log has more than the store: only a start in place helps */
    SINK_PULL_COPIED /* a copy is complete and on the disk: noted, a start in place takes it over */
};
enum sink_pull sink_pull_state(const struct sink *s);

/* Fills in what repl_view says of a link. */
void sink_view(struct sink *s, struct repl_view *out);
struct sink_stats {
    uint64_t full, partial; /* syncs */
    uint64_t received_bytes;
    uint64_t source_head; /* as the last heartbeat told */
    char last_full_reason[128];
};
void sink_stats(struct sink *s, struct sink_stats *out);

#endif
