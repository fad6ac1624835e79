/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/client.h"

#include "server/base/mem.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"
#include "server/cmd/pubsub.h"
#include "server/cmd/tx.h"

#include <stdio.h>

static void client_defaults(struct client *c) {
    struct node *n = c->worker->node;
    c->proto = REPLY_RESP2;
    c->flags &= CLIENT_UNIX;
    c->ks = store_keyspace(n->store, 0);
    if (!atomic_load_explicit(&n->has_password, memory_order_relaxed)) {
        c->flags |= CLIENT_AUTHENTICATED;
    }
}

void client_init(struct client *c, struct cmd_worker *w, int fd, const char *addr,
                 const char *laddr, bool is_unix) {
    struct node *n = w->node;
    memset(c, 0, sizeof(*c));
    c->id = atomic_fetch_add_explicit(&n->next_client_id, 1, memory_order_relaxed) + 1;
    c->worker = w;
    c->fd = fd;
    snprintf(c->addr, sizeof(c->addr), "%s", addr);
    snprintf(c->laddr, sizeof(c->laddr), "%s", laddr);
    c->created_ms = clock_now_ms(&n->clock);
    c->flags = is_unix ? CLIENT_UNIX : 0;
    client_defaults(c);
    atomic_store_explicit(&c->last_ms, c->created_ms, memory_order_relaxed);
    atomic_store_explicit(&c->seen_cmd, CMD_NONE, memory_order_relaxed);
    atomic_store_explicit(&c->seen_multi, -1, memory_order_relaxed);
    client_show(c);
    lock_acquire(&n->clients_lock);
    c->next = n->clients;
    if (c->next != NULL) {
        c->next->prev = c;
    }
    n->clients = c;
    lock_release(&n->clients_lock);
}

/* Leaves transactions, channels and MONITOR. */
static void client_leave(struct client *c) {
    tx_drop(c);
    pubsub_client_gone(c);
    if (c->flags & CLIENT_MONITOR) {
        atomic_fetch_sub_explicit(&c->worker->node->monitor_count, 1, memory_order_relaxed);
        c->flags &= ~(uint32_t)CLIENT_MONITOR;
    }
}

void client_fini(struct client *c) {
    struct node *n = c->worker->node;
    client_leave(c);
    wait_client_gone(c);
    backup_client_gone(c);
    lock_acquire(&n->clients_lock);
    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        n->clients = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    mem_free(c->name);
    mem_free(c->lib_name);
    mem_free(c->lib_ver);
    lock_release(&n->clients_lock);
}

void client_reset(struct client *c) {
    struct node *n = c->worker->node;
    client_leave(c);
    client_defaults(c);
    c->ack = (struct ack_level){.local = ACK_DEFAULT};
    c->max_stale_ms = 0;
    c->flags = (c->flags & ~(uint32_t)CLIENT_ACK_ONCE) | CLIENT_ACK_CHANGED;
    lock_acquire(&n->clients_lock);
    mem_free(c->name);
    c->name = NULL;
    lock_release(&n->clients_lock);
    client_show(c);
}

bool client_level_moves(struct client *c) {
    bool changed = (c->flags & CLIENT_ACK_CHANGED) != 0;
    bool over = !changed && (c->flags & CLIENT_ACK_ONCE) && !(c->flags & CLIENT_MULTI);
    c->flags &= ~(uint32_t)(over ? CLIENT_ACK_ONCE : CLIENT_ACK_CHANGED);
    return changed || over;
}

void client_show(struct client *c) {
    atomic_store_explicit(&c->seen_flags, c->flags, memory_order_relaxed);
    atomic_store_explicit(&c->seen_db, keyspace_id(c->ks), memory_order_relaxed);
    atomic_store_explicit(&c->seen_proto, c->proto, memory_order_relaxed);
}

bool client_is_authenticated(const struct client *c) {
    return (c->flags & CLIENT_AUTHENTICATED) != 0;
}
