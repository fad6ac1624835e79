/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests that can't run now, or whose answer takes its time: a worker doesn't wait, it holds them and goes on. */
#include "server/cmd/client.h"
#include "server/cmd/cmd.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"
#include "server/cmd/tx.h"

/* A promotion is under way, or lost writes are being fetched. */
static bool waits_for_role(const struct node *n, struct client *c, const struct job *job) {
    uint32_t flags = job->cmd->flags | (job->cmd->id == CMD_EXEC ? tx_flags(c) : 0);
    return (flags & F_WRITE) != 0 &&
           atomic_load_explicit(&n->writes, memory_order_acquire) == WRITES_HELD;
}

/* What is in memory and not yet safe has reached its limit, or something that is needed isn't loaded yet. */
static bool waits_for_disk(struct cmd_worker *w, struct client *c, const struct job *job) {
    struct node *n = w->node;
    bool cold = !warm_is_settled(n->warm);
    bool full = !log_has_room(n->log);
    if (dc_likely(!cold && !full)) {
        return false;
    }
    uint32_t flags = job->cmd->flags | (job->cmd->id == CMD_EXEC ? tx_flags(c) : 0);
    if (full && (flags & F_WRITE)) {
        log_want(n->log, LOG_LEVEL_DISK);
        return !log_has_room(n->log); /* it may have moved before it was asked to tell */
    }
    if (!cold || (c->flags & CLIENT_MULTI && job->cmd->id != CMD_EXEC)) {
        return false;
    }
    return (flags & F_NEEDS_ALL) || (flags & F_LOADS && randomkey_is_pending(w, c));
}

/* A command whose answer takes its time. */
static bool waits_for_answer(struct cmd_worker *w, struct client *c, const struct job *job) {
    switch (job->cmd->id) {
    case CMD_WAIT:
        return wait_is_pending(w, c, job->req.argv, job->req.argc);
    case CMD_READAFTER:
        return readafter_is_pending(w, c, job->req.argv, job->req.argc);
    case CMD_WAITAOF:
        return waitaof_is_pending(w, c, job->req.argv, job->req.argc);
    case CMD_BACKUP:
        return backup_is_pending(w, c, job->req.argv, job->req.argc);
    case CMD_SAVE:
        return save_is_pending(w, c, job->req.argc);
    case CMD_REPLICAOF:
    case CMD_SLAVEOF:
        return replicaof_is_pending(w, c, job->req.argv, job->req.argc);
    case CMD_EXEC:
        return exec_is_pending(w, c);
    default:
        return false;
    }
}

bool cmd_is_held(struct cmd_worker *w, struct client *c, const struct job *job) {
    struct node *n = w->node;
    if (job->cmd != NULL &&
        dc_unlikely(atomic_load_explicit(&n->writes, memory_order_relaxed) == WRITES_HELD) &&
        waits_for_role(n, c, job)) {
        return true;
    }
    if (job->cmd != NULL && (waits_for_disk(w, c, job) || waits_for_answer(w, c, job))) {
        return true;
    }
    int64_t until = atomic_load_explicit(&n->pause_until_ms, memory_order_relaxed);
    if (dc_likely(until == 0) || job->cmd == NULL || w->now_us / 1000 >= until) {
        return false;
    }
    if (atomic_load_explicit(&n->pause_all, memory_order_relaxed)) {
        return true;
    }
    uint32_t flags = job->cmd->flags | (job->cmd->id == CMD_EXEC ? tx_flags(c) : 0);
    return (flags & F_WRITE) != 0 || job->cmd->id == CMD_PUBLISH || job->cmd->id == CMD_SPUBLISH;
}
