/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * self: the node as its links see it, and what it tells others of itself.
 *
 * Purpose: source, sink and repl share it. HELLO and ANSWER are made from it, and turned back into the views that chain.h decides on.
 * Threads: constant after repl_start(), but for the atomics.
 * Ownership: repl's.
 */
#ifndef DC_REPLICATION_SELF_H
#define DC_REPLICATION_SELF_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "persist/data.h"
#include "replication/chain.h"
#include "replication/replicas.h"
#include "replication/repl.h"
#include "replication/wire_fmt.h"
#include "server/base/conf.h"
#include "server/base/lock.h"
#include "server/base/time.h"

struct self {
    struct conf *conf;
    struct data *data;
    struct log *log;
    struct store *store;
    struct node_clock *clock;
    struct replicas *replicas;
    const struct repl_host *host;
    void *host_arg;
    uint8_t peer_id[PEER_ID_LEN];
    const uint8_t *link_key;
    struct lock peers_lock; /* an older list isn't stored behind a newer one */
    /* atomic */
    _Atomic uint32_t role;  /* enum repl_role */
    _Atomic uint64_t epoch; /* the highest that was seen */
    _Atomic bool linked;    /* a replica that its source feeds now */
    _Atomic bool shared;    /* others have had these data */
    _Atomic bool restarts;  /* a start in place is on its way */
    _Atomic uint32_t
        orders; /* REPLICAOF so often since a source took it: each target may have been promoted */
    _Atomic bool hands_over; /* FAILOVER: somebody else may be the primary already */
    _Atomic int64_t
        passed_ms; /* the primary's clock when all that the store shows had been written; 0 = unknown */
    _Atomic int64_t
        fresh_us; /* monotonic: when a replica last had all that its primary had, as far as was told; 0 = never */
};

/* Valid as long as the log. */
void self_view(const struct self *s, struct chain_view *out);

/* The metadata remember who has followed this node. What a replica acknowledges counts only behind this: after a power cut it has to be asked.
 * False: not now, it has been reported. */
bool self_store_peers(struct self *s);

/* A start in place, ordered by the thread repl or by a sink; from then on nothing is begun any more. */
void self_begin_anew(struct self *s);
bool self_is_restarting(const struct self *s);

/* What a promotion adds to the highest epoch seen, besides 1. */
uint64_t self_more_epochs(const struct self *s);

/* The bodies of HELLO and ANSWER; 'to' is empty. 'asked': the other one asks for a promotion of its own. Errors: DC_ENOMEM. */
DC_MUST enum dc_err self_hello(const struct self *s, enum wire_purpose purpose,
                               struct chain_ask ask, struct buf *to);
DC_MUST enum dc_err self_answer(const struct self *s, const struct chain_answer *answer,
                                const char *text, bool asked, struct buf *to);

/* What another one has told. The chains stay where they were decoded to. Errors: DC_EPROTO: it can't be so. */
DC_MUST enum dc_err view_of_hello(const struct wire_hello *m, struct chain_view *out,
                                  struct chain_ask *ask);
DC_MUST enum dc_err view_of_answer(const struct wire_answer *m, struct chain_view *out,
                                   struct chain_answer *answer);

/* Milliseconds of silence after which a link is given up, and between two heartbeats. */
static inline int64_t self_timeout_ms(const struct self *s) {
    return conf_get(s->conf, repl_timeout) * 1000;
}
static inline int64_t self_beat_ms(const struct self *s) {
    return conf_get(s->conf, repl_ping_replica_period) * 1000;
}

/* Up to where this node's disk has the log. A log that isn't kept has nothing there, though its own mark moves. */
uint64_t self_durable(const struct self *s);

#endif
