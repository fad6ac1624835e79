/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fake_host: a node with workers but without sockets: what a client is pushed lands in a buffer, what is posted to a worker
 * waits in a queue until the test runs it.
 */
#ifndef TESTS_SUPPORT_FAKE_HOST_H
#define TESTS_SUPPORT_FAKE_HOST_H

#include "server/base/crypto.h"
#include "server/base/mem.h"
#include "server/cmd/client.h"
#include "server/cmd/ctx.h"
#include "server/cmd/node.h"
#include "server/cmd/pubsub.h"
#include "tests/support/check_main.h"
#include "tests/support/unkept_log.h"

#include <pthread.h>

enum { FAKE_WORKERS = 4 };

struct fake_client {
    struct client client; /* first */
    struct buf got;
};

struct fake_mailbox {
    pthread_mutex_t lock;
    struct message *first;
    struct message **tail;
    uint32_t posted; /* in all */
};

struct fake_node {
    struct node node; /* first */
    struct cmd_worker *workers[FAKE_WORKERS];
    struct arena arenas[FAKE_WORKERS];
    struct fake_mailbox mail[FAKE_WORKERS];
};

static inline void fake_push(struct client *c, struct bytes data) {
    buf_append_bytes(&((struct fake_client *)c)->got, data);
}

static inline void fake_post(struct node *n, uint32_t worker, struct message *m) {
    struct fake_mailbox *box = &((struct fake_node *)n)->mail[worker];
    m->next = NULL;
    pthread_mutex_lock(&box->lock);
    *box->tail = m;
    box->tail = &m->next;
    box->posted++;
    pthread_mutex_unlock(&box->lock);
}

/* Runs what was posted to a worker. Returns the number of messages. */
static inline uint32_t fake_run_mail(struct fake_node *f, uint32_t worker) {
    struct fake_mailbox *box = &f->mail[worker];
    uint32_t count = 0;
    pthread_mutex_lock(&box->lock);
    struct message *m = box->first;
    box->first = NULL;
    box->tail = &box->first;
    pthread_mutex_unlock(&box->lock);
    while (m != NULL) {
        struct message *next = m->next;
        m->run(f->workers[worker], m);
        m = next;
        count++;
    }
    return count;
}

static inline void fake_node_init(struct fake_node *f) {
    static const struct host host = {.push = fake_push, .post = fake_post};
    memset(f, 0, sizeof(*f));
    crypto_init();
    f->node.host = &host;
    f->node.store = store_create(&(struct store_opts){.keyspaces = 4});
    f->node.log = unkept_log_open();
    f->node.pubsub = pubsub_create();
    f->node.replicas = replicas_create(&(struct replicas_opts){.moved = NULL});
    f->node.worker_count = FAKE_WORKERS;
    clock_init(&f->node.clock, time_wall_us(), time_mono_us());
    for (uint32_t i = 0; i < FAKE_WORKERS; i++) {
        struct cmd_worker *w = mem_must_aligned(64, (sizeof(*w) + 63) / 64 * 64);
        memset(w, 0, sizeof(*w));
        arena_init(&f->arenas[i], 4096);
        w->node = &f->node;
        w->index = i;
        w->arena = &f->arenas[i];
        w->feed = log_feed_create(f->node.log);
        w->pubsub = pubsub_local_create(w);
        f->workers[i] = w;
        f->node.workers[i] = w;
        pthread_mutex_init(&f->mail[i].lock, NULL);
        f->mail[i].tail = &f->mail[i].first;
    }
}

/* Its clients are gone. */
static inline void fake_node_fini(struct fake_node *f) {
    for (uint32_t i = 0; i < FAKE_WORKERS; i++) {
        fake_run_mail(f, i);
        pubsub_local_destroy(f->workers[i]->pubsub);
        mem_free_aligned(f->workers[i], 64, (sizeof(struct cmd_worker) + 63) / 64 * 64);
        arena_fini(&f->arenas[i]);
        pthread_mutex_destroy(&f->mail[i].lock);
    }
    pubsub_destroy(f->node.pubsub);
    replicas_destroy(f->node.replicas);
    store_destroy(f->node.store);
    log_close(f->node.log, false, 0);
}

static inline void fake_client_init(struct fake_client *c, struct fake_node *f, uint32_t worker,
                                    enum reply_proto proto) {
    memset(c, 0, sizeof(*c));
    c->client.worker = f->workers[worker];
    c->client.proto = proto;
    c->client.ks = store_keyspace(f->node.store, 0);
    snprintf(c->client.addr, sizeof(c->client.addr), "127.0.0.1:5%u", worker);
    buf_init(&c->got, 0);
}

static inline void fake_client_fini(struct fake_client *c) {
    pubsub_client_gone(&c->client);
    buf_fini(&c->got);
}

/* What the client was sent since the last question, as a string that lives until the next. */
static inline const char *fake_got(struct fake_client *c) {
    static _Thread_local char text[4096];
    size_t len = c->got.len < sizeof(text) - 1 ? c->got.len : sizeof(text) - 1;
    if (len > 0) {
        memcpy(text, c->got.ptr, len);
    }
    text[len] = '\0';
    buf_reset(&c->got, 0);
    return text;
}

/* A context for one command, as the dispatcher makes it; replies go to the client's buffer. */
struct fake_call {
    struct cmd_ctx ctx;
    struct reply reply;
    struct bytes argv[16];
};

static inline struct cmd_ctx *fake_call_init(struct fake_call *call, struct fake_client *c,
                                             enum cmd_id id, const char *const *words) {
    struct cmd_worker *w = c->client.worker;
    memset(call, 0, sizeof(*call));
    call->reply = (struct reply){.out = &c->got, .proto = c->client.proto};
    for (; words[call->ctx.argc] != NULL; call->ctx.argc++) {
        call->argv[call->ctx.argc] = bytes_str(words[call->ctx.argc]);
    }
    call->ctx.node = w->node;
    call->ctx.worker = w;
    call->ctx.client = &c->client;
    call->ctx.cmd = &cmd_table[id];
    call->ctx.argv = call->argv;
    call->ctx.ks = c->client.ks;
    call->ctx.reply = &call->reply;
    return &call->ctx;
}

#define FAKE_WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

#endif
