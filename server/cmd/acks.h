/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * acks: how far each ack level has come on this node.
 *
 * Purpose: joins the watermarks of the log with the marks of the replicas. A reply under a level leaves when acks_mark() has reached
 *   what it wrote or revealed.
 * Invariants: I1 'default' is the node's ack-level, and that, if it is 'default' too, what appendfsync says (node_level). I2 'os' and 'disk' count
 *   only while the log is kept and the next start reads it: they don't quietly mean less.
 * Threads: any.
 */
#ifndef DC_CMD_ACKS_H
#define DC_CMD_ACKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/base/ack.h"
#include "server/base/err.h"

struct node;

/* What has to be asked for, or hurried, so that a level gets on. */
enum acks_need {
    ACKS_WRITTEN = 1 << 0, /* the log's bytes in the kernel */
    ACKS_DURABLE = 1 << 1, /* on the disk */
    ACKS_HURRY = 1 << 2,   /* and at once, whatever appendfsync says */
    ACKS_REPLICAS = 1 << 3,
    ACKS_REPLICA_DISKS = 1 << 4
};

/* I1: the node's level for 'default'; still 'default' when that is. */
struct ack_level acks_resolve(const struct node *n, struct ack_level level);
/* The LSN up to which a level is reached; UINT64_MAX when it waits for nothing. */
uint64_t acks_mark(const struct node *n, struct ack_level level);
uint32_t acks_needs(const struct node *n, struct ack_level level);
/* The same mark when acks_needs() has just been asked. */
uint64_t acks_mark_by(const struct node *n, struct ack_level level, uint32_t needs);
/* Replicas that make a majority together with this node. */
uint32_t acks_quorum(const struct node *n);

/* Whether the node can ever reach it, as it is configured. Errors: DC_EGENERIC with the reason. */
DC_MUST enum dc_err acks_check(const struct node *n, struct ack_level level);
/* What is missing for 'lsn', for the error. */
void acks_explain(const struct node *n, struct ack_level level, uint64_t lsn, char *to,
                  size_t size);

/* min-replicas-to-write: whether enough replicas are good. */
bool acks_has_replicas(const struct node *n);
uint32_t acks_good_replicas(const struct node *n);

#endif
