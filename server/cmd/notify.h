/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * notify: keyspace events, published after the locks are released.
 *
 * Threads: the worker that runs the command; notify_expired() the janitor.
 */
#ifndef DC_CMD_NOTIFY_H
#define DC_CMD_NOTIFY_H

#include <stdint.h>

#include "server/base/bytes.h"
#include "server/cmd/pubsub.h"

struct cmd_ctx;
struct cmd_worker;
struct keyspace;
struct node;
struct notice;

/* Classes, with the letters of notify-keyspace-events. */
enum notify_class {
    NOTIFY_KEYSPACE = 1 << 0,  /* K */
    NOTIFY_KEYEVENT = 1 << 1,  /* E */
    NOTIFY_GENERIC = 1 << 2,   /* g */
    NOTIFY_STRING = 1 << 3,    /* $ */
    NOTIFY_LIST = 1 << 4,      /* l */
    NOTIFY_SET = 1 << 5,       /* s */
    NOTIFY_HASH = 1 << 6,      /* h */
    NOTIFY_ZSET = 1 << 7,      /* z */
    NOTIFY_EXPIRED = 1 << 8,   /* x */
    NOTIFY_EVICTED = 1 << 9,   /* e */
    NOTIFY_STREAM = 1 << 10,   /* t */
    NOTIFY_KEY_MISS = 1 << 11, /* m */
    NOTIFY_MODULE = 1 << 13,   /* d */
    NOTIFY_NEW = 1 << 14,      /* n */
    NOTIFY_ALL = NOTIFY_GENERIC | NOTIFY_STRING | NOTIFY_LIST | NOTIFY_SET | NOTIFY_HASH |
                 NOTIFY_ZSET | NOTIFY_EXPIRED | NOTIFY_EVICTED | NOTIFY_STREAM | NOTIFY_MODULE
};

/* Flags of the option's text (whose letters conf checked). */
uint32_t notify_parse(struct bytes letters);

/* Queues an event of the running command; costs one test while nobody wants any. */
void ctx_notify(struct cmd_ctx *ctx, enum notify_class class, const char *event, struct bytes key);
/* The same for a key of another database (MOVE, COPY). */
void ctx_notify_in(struct cmd_ctx *ctx, enum notify_class class, const char *event,
                   const struct keyspace *ks, struct bytes key);

/* Queues a message among the events: PUBLISH inside EXEC, of which nobody hears before all of it is done. */
void notify_publish_later(struct cmd_ctx *ctx, enum topic_kind kind, struct bytes channel,
                          struct bytes payload);

/* Takes back what was queued from 'mark' on, the end of the queue at that time: the command has failed. Key misses stay. */
void notify_rollback(struct cmd_worker *w, struct notice **mark);

/* Publishes what was queued. No slot lock is held. */
void notify_flush(struct cmd_worker *w);
/* At once, outside of a command: expired, evicted. No slot lock is held. */
void notify_now(struct node *n, struct cmd_worker *w, enum notify_class class, const char *event,
                const struct keyspace *ks, struct bytes key);

#endif
