/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/acks.h"

#include "replication/replicas.h"
#include "server/base/assert.h"
#include "server/base/time.h"
#include "server/cmd/node.h"

#include <inttypes.h>
#include <stdio.h>

struct ack_level acks_resolve(const struct node *n, struct ack_level level) {
    if (!ack_is_default(level)) {
        return level;
    }
    level = ack_of_word(atomic_load_explicit(&n->ack_level, memory_order_relaxed));
    /* The option is the same on all nodes; a copy has no copies that could confirm what it shows. A primary that is being demoted is none
     * yet: its replies wait for their level. */
    if (dc_unlikely(node_is_replica(n)) && log_follows(n->log)) {
        level.replicas = 0;
        level.quorum = level.replicas_disk = false;
    }
    return level;
}

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static uint64_t local_mark(const struct node *n, enum ack_local local, uint32_t needs) {
    uint64_t mark = needs & ACKS_DURABLE   ? log_durable(n->log).v
                    : needs & ACKS_WRITTEN ? log_written(n->log).v
                                           : UINT64_MAX;
    return mark == UINT64_MAX || local == ACK_DEFAULT || log_is_based(n->log) ? mark : 0; /* I2 */
}

uint32_t acks_quorum(const struct node *n) {
    uint32_t others = (uint32_t)conf_get(n->conf, quorum_replicas);
    if (others == 0) {
        others = replicas_known_count(n->replicas);
    }
    return (others + 1) / 2;
}

static uint32_t replicas_of(const struct node *n, struct ack_level level) {
    return level.quorum ? acks_quorum(n) : level.replicas;
}

/* In a quorum on disks the node is one of those who have it there. */
static enum ack_local local_of(struct ack_level level) {
    return level.quorum && level.replicas_disk ? ACK_DISK : (enum ack_local)level.local;
}

static uint32_t default_needs(const struct node *n) {
    switch (node_level(n)) {
    case LOG_LEVEL_MEMORY:
        return 0;
    case LOG_LEVEL_OS:
        return ACKS_WRITTEN;
    case LOG_LEVEL_DISK:
        return ACKS_DURABLE;
    }
    dc_unreachable();
}

static uint32_t local_needs(const struct node *n, enum ack_local local) {
    switch (local) {
    case ACK_DEFAULT:
        return default_needs(n);
    case ACK_MEMORY:
        return 0;
    case ACK_OS:
        return ACKS_WRITTEN;
    case ACK_DISK: /* under 'always' nobody has to be told */
        return ACKS_DURABLE |
               (conf_get(n->conf, appendfsync) == LOG_SYNC_ALWAYS ? 0u : (uint32_t)ACKS_HURRY);
    }
    dc_unreachable();
}

uint32_t acks_needs(const struct node *n, struct ack_level level) {
    level = acks_resolve(n, level);
    uint32_t needs = local_needs(n, local_of(level));
    if (level.replicas > 0 || level.quorum) { /* a quorum may grow while somebody waits for it */
        needs |= ACKS_REPLICAS | (level.replicas_disk ? (uint32_t)ACKS_REPLICA_DISKS : 0u);
    }
    return needs;
}

uint64_t acks_mark_by(const struct node *n, struct ack_level level, uint32_t needs) {
    level = acks_resolve(n, level);
    uint64_t mark = local_mark(n, local_of(level), needs);
    uint32_t replicas = dc_likely((needs & ACKS_REPLICAS) == 0) ? 0 : replicas_of(n, level);
    return replicas == 0 ? mark
                         : least(mark, replicas_mark(n->replicas, replicas, level.replicas_disk));
}

uint64_t acks_mark(const struct node *n, struct ack_level level) {
    return acks_mark_by(n, level, acks_needs(n, level));
}

enum dc_err acks_check(const struct node *n, struct ack_level level) {
    enum ack_local local = local_of(level);
    if ((local == ACK_OS || local == ACK_DISK) && !conf_get(n->conf, appendonly)) {
        return dc_fail(DC_EGENERIC, "this level needs a log on the disk, and appendonly is 'no'");
    }
    return DC_OK;
}

/* What of this node is missing; NULL = nothing. */
static const char *explain_local(const struct node *n, enum ack_local local, uint64_t lsn) {
    uint32_t needs = local_needs(n, local);
    if (local_mark(n, local, needs) >= lsn) {
        return NULL;
    }
    if (!log_is_based(n->log)) {
        return "this node's log isn't kept, or not yet";
    }
    return needs & ACKS_DURABLE ? "it isn't on this node's disk"
                                : "it isn't in this node's log file";
}

void acks_explain(const struct node *n, struct ack_level level, uint64_t lsn, char *to,
                  size_t size) {
    level = acks_resolve(n, level);
    const char *local = explain_local(n, local_of(level), lsn);
    uint32_t replicas = replicas_of(n, level);
    uint32_t have = replicas_count_at(n->replicas, lsn, level.replicas_disk);
    if (replicas == 0 || replicas_mark(n->replicas, replicas, level.replicas_disk) >= lsn) {
        snprintf(to, size, "%s", local != NULL ? local : "it came too late");
        return;
    }
    snprintf(to, size, "%s%s%" PRIu32 " of %" PRIu32 " replicas have it%s",
             local != NULL ? local : "", local != NULL ? ", " : "", have, replicas,
             level.replicas_disk ? " on their disks" : "");
}

uint32_t acks_good_replicas(const struct node *n) {
    int64_t lag_ms = conf_get(n->conf, min_replicas_max_lag) * 1000;
    return replicas_good(n->replicas, lag_ms, time_mono_us());
}

bool acks_has_replicas(const struct node *n) {
    int64_t wanted = conf_get(n->conf, min_replicas_to_write);
    return wanted == 0 || conf_get(n->conf, min_replicas_max_lag) == 0 ||
           acks_good_replicas(n) >= wanted;
}
