/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/repl_host.h"

#include "server/base/mem.h"
#include "server/cmd/node.h"
#include "server/cmd/saver.h"

#include <unistd.h>

static uint64_t snapshot_begin(void *arg) {
    struct node *n = arg;
    (void)saver_request(n->saver, true);
    return saver_ticket(n->saver);
}

static bool snapshot_is_over(void *arg, uint64_t ticket) {
    struct node *n = arg;
    return saver_is_over(n->saver, ticket);
}

static enum dc_err snapshot_result(void *arg, uint64_t ticket) {
    struct node *n = arg;
    return saver_result(n->saver, ticket);
}

static void restart(void *arg) {
    struct node *n = arg;
    n->host->restart(n);
}

static void resume(void *arg) {
    struct node *n = arg;
    n->host->resume(n);
}

/* One look at each worker: between two turns no command is under way there. Whoever comes last frees it. */
struct round {
    _Atomic uint32_t left; /* workers that haven't come by, and who waits */
    _Atomic uint32_t users;
};

struct visit {
    struct message message; /* first */
    struct round *round;
};

static void leave_round(struct round *r) {
    if (atomic_fetch_sub_explicit(&r->users, 1, memory_order_acq_rel) == 1) {
        mem_free(r);
    }
}

static void come_by(struct cmd_worker *w, struct message *m) {
    struct visit *v = (struct visit *)m;
    (void)w;
    /* pairs with the acquire in quiesce */
    atomic_fetch_sub_explicit(&v->round->left, 1, memory_order_release);
    leave_round(v->round);
    mem_free(v);
}

static bool quiesce(void *arg, int64_t timeout_ms) {
    struct node *n = arg;
    struct round *r = mem_must_zalloc(sizeof(*r));
    int64_t end_us = time_mono_us() + timeout_ms * 1000;
    atomic_init(&r->left, n->worker_count);
    atomic_init(&r->users, n->worker_count + 1);
    for (uint32_t i = 0; i < n->worker_count; i++) {
        struct visit *v = mem_must_zalloc(sizeof(*v));
        v->message.run = come_by;
        v->round = r;
        n->host->post(n, i, &v->message);
    }
    bool over;
    while (!(over = atomic_load_explicit(&r->left, memory_order_acquire) == 0) &&
           time_mono_us() < end_us) {
        usleep(100);
    }
    leave_round(r);
    return over;
}

static void refuse_waiting(void *arg, const char *why) {
    struct node *n = arg;
    n->host->refuse_waiting(n, why);
}

/* A peer's connection leaves its worker. */
static void take_link(struct node *n, int fd, struct bytes early, const char *addr) {
    (void)addr;
    repl_accept(n->repl, fd, early);
}

enum dc_err repl_host_start(struct node *n, struct data *d, const struct standing *s) {
    static const struct repl_host host = {.snapshot_begin = snapshot_begin,
                                          .snapshot_is_over = snapshot_is_over,
                                          .snapshot_result = snapshot_result,
                                          .restart = restart,
                                          .resume = resume,
                                          .quiesce = quiesce,
                                          .refuse_waiting = refuse_waiting};
    struct repl_opts opts = {.conf = n->conf,
                             .data = d,
                             .store = n->store,
                             .clock = &n->clock,
                             .replicas = n->replicas,
                             .writes = &n->writes,
                             .link_key = n->link_key,
                             .host = &host,
                             .arg = n};
    enum dc_err err = repl_start(&opts, s, &n->repl);
    n->repl_accept = take_link;
    return err;
}
