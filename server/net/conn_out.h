/* SPDX-License-Identifier: BSD-3-Clause */
/* conn_out: the output half of a connection. Shared inside net/. */
#ifndef DC_NET_CONN_OUT_H
#define DC_NET_CONN_OUT_H

#include "server/net/conn.h"

void conn_enter_flush(struct conn *c);

/* The replies of a turn are complete: puts large values between them, keeps the order behind what is queued. */
void conn_end_replies(struct conn *c, struct reply *reply);

/* Replies of the worker's buffer go to the connection's own queue. */
void conn_queue_replies(struct conn *c);

/* Notes when the output is over a limit of the connection's class: it is closed in the flush phase, not here, where
 * a delivery to many may be under way. */
void conn_check_limits(struct conn *c);

void conn_drop_queue(struct conn *c);

/* The client's level has changed: replies so far wait under the one before, those to come under the new one. */
void conn_change_level(struct conn *c, struct reply *reply);

/* Replies that were queued up to then and still wait become errors: applied, not confirmed, and why; NULL = because ack-timeout is over. */
void conn_refuse_gated(struct conn *c, const char *why, int64_t up_to_ms);

/* The output has drained: goes on reading. */
void conn_resume_reading(struct conn *c);

#endif
