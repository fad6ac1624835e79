/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wired_node: a node as main() wires it, with two workers and without sockets. Workers are never freed: their
 * counters are registered for ever.
 */
#ifndef TESTS_SUPPORT_WIRED_NODE_H
#define TESTS_SUPPORT_WIRED_NODE_H

#include "server/base/crypto.h"
#include "server/base/mem.h"
#include "server/cmd/node.h"
#include "tests/support/check_main.h"
#include "tests/support/unkept_log.h"

enum { WIRED_WORKERS = 2 };

struct wired_node {
    struct conf conf;
    struct node node;
    struct arena arenas[WIRED_WORKERS];
    struct cmd_worker *workers[WIRED_WORKERS];
    _Atomic uint32_t resumed; /* calls of host->resume */
};

static inline void wired_resume(struct node *n) {
    ((struct wired_node *)((char *)n - offsetof(struct wired_node, node)))->resumed++;
}

/* 'options' alternate names and values; wired_node_fini() destroys the store. */
static inline void wired_node_init_over(struct wired_node *w, struct store *store,
                                        const struct bytes *options, size_t pairs) {
    static const struct host host = {.resume = wired_resume};
    memset(w, 0, sizeof(*w));
    crypto_init();
    time_calibrate();
    conf_init(&w->conf);
    ck_assert_int_eq(conf_set(&w->conf, options, pairs), DC_OK);
    node_init(&w->node, &w->conf, store, &host);
    w->node.log = unkept_log_open();
    for (uint32_t i = 0; i < WIRED_WORKERS; i++) {
        arena_init(&w->arenas[i], 4096);
        w->workers[i] = mem_must_aligned(_Alignof(struct cmd_worker), sizeof(struct cmd_worker));
        cmd_worker_init(w->workers[i], &w->node, i, &w->arenas[i]);
        cmd_batch_begin(w->workers[i]);
    }
    w->node.worker_count = WIRED_WORKERS;
    metric_reset();
}

static inline void wired_node_init(struct wired_node *w, const struct bytes *options,
                                   size_t pairs) {
    wired_node_init_over(w, store_create(&(struct store_opts){.keyspaces = 4}), options, pairs);
}

static inline void wired_node_fini(struct wired_node *w) {
    struct store *store = w->node.store;
    for (uint32_t i = 0; i < WIRED_WORKERS; i++) {
        cmd_worker_fini(w->workers[i]);
        arena_fini(&w->arenas[i]);
    }
    log_close(w->node.log, false, 0);
    node_fini(&w->node);
    store_destroy(store);
    conf_fini(&w->conf);
}

/* Sets a key as a command would. */
static inline void wired_set(struct wired_node *w, const char *name, struct bytes value,
                             int64_t expiry_ms) {
    struct cmd_worker *worker = w->workers[0];
    struct key key = store_key(w->node.store, bytes_str(name));
    struct keyspace *ks = store_keyspace(w->node.store, 0);
    struct value v = value_of(value);
    mut_reset(&worker->mut, worker->now_us / 1000);
    store_lock(w->node.store, key_slot(&key));
    struct entry *old = store_peek(&worker->store, ks, &key, worker->now_us / 1000);
    ck_assert_int_eq(mut_put(&worker->mut, ks, &key, old, &v, expiry_ms), DC_OK);
    ck_assert_int_eq(log_reserve(worker->feed, &worker->mut), DC_OK);
    (void)log_commit(worker->feed, &worker->mut);
    store_unlock(w->node.store, key_slot(&key));
    mut_reset(&worker->mut, 0);
}

#endif
