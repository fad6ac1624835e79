/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pubsub: who listens to what, and the way of a message to all of them.
 *
 * Purpose: each worker knows its own listeners by topic (channel, pattern, shard channel) and touches them without a
 *   lock. The node knows by topic how many listen and on which workers. Publishing looks the latter up, hands the
 *   message to the worker's own listeners at once and posts one counted copy to the other workers concerned. MONITOR is a
 *   topic without a name.
 * Invariants: I1 pubsub_publish() counts listeners as Redis does: a client that listens by channel and by two patterns is
 *   three; I2 messages of one publisher reach each listener in their order; I3 a listener's confirmation stands before the
 *   first message of its topic; I4 while nobody listens, publishing costs one load; I5 what is under way between workers is
 *   bounded, as long as no worker reads requests while pubsub_is_backlogged().
 * Threads: the worker of the client for everything that takes a client; any thread for the rest. Slot locks may be
 *   held. host->push() doesn't end a client, however full its output is: that waits until all is delivered.
 * Ownership: names and payloads are copied.
 */
#ifndef DC_CMD_PUBSUB_H
#define DC_CMD_PUBSUB_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/bytes.h"
#include "server/base/err.h"

struct client;
struct cmd;
struct cmd_worker;
struct node;
struct pubsub;
struct pubsub_local;

enum topic_kind { TOPIC_CHANNEL, TOPIC_PATTERN, TOPIC_SHARD, TOPIC_MONITOR, TOPIC_KIND_COUNT };

/* Far below the output limits: what waits here is pushed in one turn, and must not cut off a listener who reads as
 * fast as he can. */
enum { PUBSUB_BACKLOG_MAX = 1024 * 1024 };

struct pubsub *pubsub_create(void);
/* No worker, no client and no message is left. */
void pubsub_destroy(struct pubsub *ps);

/* The listeners of a worker, whose node has its pubsub already. */
struct pubsub_local *pubsub_local_create(const struct cmd_worker *w);
/* All its clients are gone. */
void pubsub_local_destroy(struct pubsub_local *l);

/* Listens, or no more. *changed = false: it was so before. Errors: DC_ENOMEM. */
DC_MUST enum dc_err pubsub_join(struct client *c, enum topic_kind kind, struct bytes name,
                                bool *changed);
bool pubsub_leave(struct client *c, enum topic_kind kind, struct bytes name);

/* Leaves all topics of the kind; 'left' is told each name when the counts are right again. Returns how many. */
uint32_t pubsub_leave_all(struct client *c, enum topic_kind kind,
                          void (*left)(void *arg, struct bytes name), void *arg);

/* Leaves everything: the connection ends, or RESET. */
void pubsub_client_gone(struct client *c);

/* Topics of the kind that the client listens to. */
uint32_t pubsub_client_count(const struct client *c, enum topic_kind kind);

/* Whether a command may run while a RESP2 client listens. */
bool pubsub_allows(const struct cmd *cmd);

/* Whether anybody would hear a message of the kind. */
bool pubsub_is_heard(const struct node *n, enum topic_kind kind);

/* How many would hear it now. 'w' is the calling worker or NULL. */
uint64_t pubsub_audience(struct node *n, struct cmd_worker *w, enum topic_kind kind,
                         struct bytes channel);

/* Delivers to all who listen; 'kind' is a channel, a shard channel or MONITOR (without channel, the payload is a line of
 * the protocol). 'w' is the calling worker; NULL = the caller is none, everything is posted. *heard counts
 * listeners. Errors: DC_ENOMEM, nobody got it. */
DC_MUST enum dc_err pubsub_publish(struct node *n, struct cmd_worker *w, enum topic_kind kind,
                                   struct bytes channel, struct bytes payload, uint64_t *heard);

/* Whether so much is under way between workers that requests should wait in their sockets. */
bool pubsub_is_backlogged(const struct node *n);

/* Topics of a kind that anybody listens to; listeners of one topic. */
uint32_t pubsub_topic_count(const struct node *n, enum topic_kind kind);
uint64_t pubsub_listener_count(struct node *n, enum topic_kind kind, struct bytes name);

/* Every topic of the kind, under a lock: 'each' must not come back here. */
void pubsub_each_topic(struct node *n, enum topic_kind kind,
                       void (*each)(void *arg, struct bytes name), void *arg);

#endif
