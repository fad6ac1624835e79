/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/self.h"

#include "persist/log_tail.h"
#include "persist/standing.h"
#include "server/base/assert.h"
#include "server/base/diag.h"
#include "server/base/mem.h"

#include <stdio.h>
#include <string.h>

/* Nobody would miss it. */
static bool is_empty(const struct self *s) {
    const struct warm *warm = s->data->warm;
    if ((warm != NULL && !warm_is_over(warm)) || store_count(s->store) > 0) {
        return false;
    }
    for (uint32_t i = 0; i < store_keyspace_count(s->store); i++) {
        if (keyspace_flush_version(store_keyspace(s->store, i)) != 0) {
            return false;
        }
    }
    return true;
}

static enum chain_role chain_role_of(enum repl_role role) {
    switch (role) {
    case ROLE_PRIMARY:
        return CHAIN_PRIMARY;
    case ROLE_REPLICA:
        return CHAIN_REPLICA;
    case ROLE_FENCED:
        return CHAIN_FENCED;
    case ROLE_PULLING:
        return CHAIN_PULLING;
    }
    dc_unreachable();
}

void self_view(const struct self *s, struct chain_view *out) {
    const struct histories *h = log_chain(s->log);
    uint64_t seen = atomic_load_explicit(&s->epoch, memory_order_relaxed);
    const struct history *last = histories_last(h);
    enum repl_role role = (enum repl_role)atomic_load_explicit(&s->role, memory_order_relaxed);
    *out = (struct chain_view){
        .chain = h->list,
        .count = h->count,
        .head = log_head(s->log).v,
        .epoch = last != NULL && last->epoch > seen ? last->epoch : seen,
        .role = chain_role_of(role),
        .empty = is_empty(s),
        .linked = atomic_load_explicit(&s->linked, memory_order_relaxed),
    };
}

/* Only for data that others have had: else a node that was emptied would rise above them. */
uint64_t self_more_epochs(const struct self *s) {
    return atomic_load_explicit(&s->shared, memory_order_relaxed)
               ? atomic_load_explicit(&s->orders, memory_order_relaxed)
               : 0;
}

/* --- what is told ------------------------------------------------------------------------------------------------ */

static enum wire_role wire_role_of(enum chain_role role) {
    switch (role) {
    case CHAIN_PRIMARY:
        return WIRE_PRIMARY;
    case CHAIN_REPLICA:
        return WIRE_REPLICA;
    case CHAIN_FENCED:
        return WIRE_FENCED;
    case CHAIN_PULLING:
        return WIRE_PULLING;
    }
    dc_unreachable();
}

static enum chain_role role_of_wire(enum wire_role role) {
    switch (role) {
    case WIRE_PRIMARY:
        return CHAIN_PRIMARY;
    case WIRE_REPLICA:
        return CHAIN_REPLICA;
    case WIRE_FENCED:
        return CHAIN_FENCED;
    case WIRE_PULLING:
        return CHAIN_PULLING;
    }
    dc_unreachable();
}

uint64_t self_durable(const struct self *s) {
    return log_is_based(s->log) ? log_durable(s->log).v : 0;
}

enum dc_err self_hello(const struct self *s, enum wire_purpose purpose, struct chain_ask ask,
                       struct buf *to) {
    struct chain_view v;
    char address[WIRE_ADDRESS_MAX + 1];
    self_view(s, &v);
    size_t len = conf_text(s->conf, CONF_ID_replica_announce_ip, address, sizeof(address));
    int64_t port = conf_get(s->conf, replica_announce_port);
    struct wire_hello m = {
        .protocol = WIRE_PROTOCOL,
        .purpose = purpose,
        .role = wire_role_of(v.role),
        .flags = (ask.force ? WIRE_FORCE : 0) | (ask.explicit_ ? WIRE_EXPLICIT : 0) |
                 (ask.damaged ? WIRE_DAMAGED : 0) | (v.empty ? WIRE_EMPTY : 0),
        .epoch = v.epoch,
        .head = v.head,
        .port = (uint16_t)(port != 0 ? port : conf_get(s->conf, port)),
        .address = bytes_of(address, len < sizeof(address) ? len : 0),
        .chain = v.chain,
        .chain_count = v.count,
    };
    enum dc_err err = log_tail_hash(s->data, v.head, &m.hash);
    if (err != DC_OK && purpose != WIRE_PROBE) { /* another hash would say that the bytes differ */
        return err;
    }
    memcpy(m.peer_id, s->peer_id, PEER_ID_LEN);
    memcpy(m.data_id, s->data->plan->node_id, NODE_ID_LEN);
    wire_hello_encode(&m, to);
    return to->failed ? DC_ENOMEM : DC_OK;
}

static enum wire_verdict wire_verdict_of(enum chain_verdict verdict) {
    switch (verdict) {
    case CHAIN_CONTINUE:
        return WIRE_CONTINUE;
    case CHAIN_REWIND:
        return WIRE_REWIND;
    case CHAIN_COPY:
        return WIRE_COPY_ALL;
    case CHAIN_REFUSE:
        return WIRE_REFUSE;
    case CHAIN_PEER_IS_AHEAD:
        return WIRE_AHEAD;
    case CHAIN_LATER:
    case CHAIN_RAISE_FIRST:
        return WIRE_LATER;
    }
    dc_unreachable();
}

static enum chain_verdict verdict_of_wire(enum wire_verdict verdict) {
    switch (verdict) {
    case WIRE_CONTINUE:
        return CHAIN_CONTINUE;
    case WIRE_REWIND:
        return CHAIN_REWIND;
    case WIRE_COPY_ALL:
        return CHAIN_COPY;
    case WIRE_REFUSE:
        return CHAIN_REFUSE;
    case WIRE_AHEAD:
        return CHAIN_PEER_IS_AHEAD;
    case WIRE_LATER:
        return CHAIN_LATER;
    }
    dc_unreachable();
}

enum dc_err self_answer(const struct self *s, const struct chain_answer *answer, const char *text,
                        bool asked, struct buf *to) {
    struct chain_view v;
    self_view(s, &v);
    struct wire_answer m = {
        .protocol = WIRE_PROTOCOL,
        .verdict = wire_verdict_of(answer->verdict),
        .role = wire_role_of(v.role),
        .flags = (v.empty ? WIRE_EMPTY : 0) | (v.linked ? WIRE_LINKED : 0),
        .epoch = v.epoch + (asked ? self_more_epochs(s) : 0),
        .lsn = answer->lsn,
        .head = v.head,
        .text = bytes_str(text),
        .chain = v.chain,
        .chain_count = v.count,
    };
    memcpy(m.peer_id, s->peer_id, PEER_ID_LEN);
    memcpy(m.data_id, s->data->plan->node_id, NODE_ID_LEN);
    wire_answer_encode(&m, to);
    return to->failed ? DC_ENOMEM : DC_OK;
}

/* --- what is heard ----------------------------------------------------------------------------------------------- */

enum dc_err view_of_hello(const struct wire_hello *m, struct chain_view *out,
                          struct chain_ask *ask) {
    *out = (struct chain_view){.chain = m->chain,
                               .count = m->chain_count,
                               .head = m->head,
                               .epoch = m->epoch,
                               .role = role_of_wire(m->role),
                               .empty = (m->flags & WIRE_EMPTY) != 0};
    *ask = (struct chain_ask){.explicit_ = (m->flags & WIRE_EXPLICIT) != 0,
                              .force = (m->flags & WIRE_FORCE) != 0,
                              .damaged = (m->flags & WIRE_DAMAGED) != 0};
    if (m->protocol != WIRE_PROTOCOL || !chain_is_sane(out)) {
        return dc_fail(DC_EPROTO, "the other node's greeting makes no sense");
    }
    return DC_OK;
}

enum dc_err view_of_answer(const struct wire_answer *m, struct chain_view *out,
                           struct chain_answer *answer) {
    *out = (struct chain_view){.chain = m->chain,
                               .count = m->chain_count,
                               .head = m->head,
                               .epoch = m->epoch,
                               .role = role_of_wire(m->role),
                               .empty = (m->flags & WIRE_EMPTY) != 0,
                               .linked = (m->flags & WIRE_LINKED) != 0};
    *answer = (struct chain_answer){.verdict = verdict_of_wire(m->verdict), .lsn = m->lsn};
    if (m->protocol != WIRE_PROTOCOL || !chain_is_sane(out)) {
        return dc_fail(DC_EPROTO, "the other node's answer makes no sense");
    }
    return DC_OK;
}

/* --- remembered -------------------------------------------------------------------------------------------------- */

struct list {
    struct standing_peer peers[PEERS_MAX];
    uint32_t count;
};

static void add_peer(const struct replica_seen *seen, void *arg) {
    struct list *l = arg;
    if (l->count == PEERS_MAX || seen->port == 0) {
        return;
    }
    struct standing_peer *to = &l->peers[l->count++];
    *to = (struct standing_peer){.port = seen->port,
                                 .received = seen->received,
                                 .durable = seen->durable,
                                 .seen_ms = time_wall_us() / 1000};
    memcpy(to->id, seen->peer, NODE_ID_LEN);
    snprintf(to->host, sizeof(to->host), "%s", seen->addr);
}

bool self_store_peers(struct self *s) {
    struct list *l = mem_must_zalloc(sizeof(*l));
    lock_acquire(&s->peers_lock);
    replicas_each(s->replicas, add_peer, l);
    enum dc_err err = standing_put_peers(s->data->meta, l->peers, l->count);
    lock_release(&s->peers_lock);
    if (err != DC_OK) {
        diag(DIAG_WARNING, "repl.peers_not_stored error=\"%s\"", dc_fail_take(err));
    }
    mem_free(l);
    return err == DC_OK;
}

/* --- a start in place -------------------------------------------------------------------------------- */

void self_begin_anew(struct self *s) {
    atomic_store_explicit(&s->restarts, true, memory_order_release);
    s->host->restart(s->host_arg);
}

bool self_is_restarting(const struct self *s) {
    return atomic_load_explicit(&s->restarts, memory_order_acquire);
}
