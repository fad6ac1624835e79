/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/inquiry.h"

#include "replication/greet.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/base/thread.h"

struct inquiry {
    struct self *self;
    struct peers_entry peer;
    int64_t timeout_ms;
    struct wake *wake;
    struct thread thread;
    struct link *link;
    bool answered;
    _Atomic bool over;
    struct greeting greeting;
};

static void run(void *arg) {
    struct inquiry *q = arg;
    struct chain_ask ask = {.explicit_ = false};
    enum dc_err err = greet_connect(q->self, q->link, q->peer.host, q->peer.port);
    err = err == DC_OK
              ? greet_exchange(q->self, q->link, WIRE_PROBE, ask, q->timeout_ms, &q->greeting)
              : err;
    q->answered = err == DC_OK;
    diag(DIAG_VERBOSE, "inquiry.over peer=%s answered=%d error=\"%s\"", link_peer(q->link),
         q->answered, err == DC_OK ? "" : dc_fail_take(err));
    /* pairs with the acquire in inquiry_is_over */
    atomic_store_explicit(&q->over, true, memory_order_release);
    wake_raise(q->wake);
}

struct inquiry *inquiry_start(struct self *self, const struct peers_entry *peer, int64_t timeout_ms,
                              struct wake *wake) {
    struct inquiry *q = mem_must_zalloc(sizeof(*q));
    q->self = self;
    q->peer = *peer;
    q->timeout_ms = timeout_ms;
    q->wake = wake;
    if (greet_create(self, timeout_ms, &q->link) == DC_OK) {
        thread_start(&q->thread, "repl-probe", run, q);
    } else {
        atomic_store_explicit(&q->over, true, memory_order_release);
    }
    return q;
}

bool inquiry_is_over(const struct inquiry *q) {
    return atomic_load_explicit(&q->over, memory_order_acquire);
}

const uint8_t *inquiry_asked(const struct inquiry *q) {
    return q->peer.id;
}

const struct chain_view *inquiry_answer(const struct inquiry *q, const uint8_t **peer_id) {
    *peer_id = q->greeting.peer_id;
    return q->answered ? &q->greeting.source : NULL;
}

void inquiry_destroy(struct inquiry *q) {
    if (q == NULL) {
        return;
    }
    if (q->link != NULL) {
        link_shutdown(q->link);
        thread_join(&q->thread);
        link_destroy(q->link);
    }
    mem_free(q);
}
