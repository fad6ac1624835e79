/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fill and mix: closed loop over many connections. Each connection has one batch of --pipeline requests under
 * way; when all its replies have arrived, the next batch is written into the worker's buffer and sent at once. A
 * receive buffer holds all replies of a batch, so bytes are never moved.
 *
 * fill: SET of every key once, then the end. mix: GET or SET of uniformly random keys for --seconds,
 * after --warmup-s. The main thread only sleeps, and reads clocks and counters at both edges of the window.
 */
#include "tests/bench/lg_wire.h"
#include "tests/bench/loadgen.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { EVENTS_MAX = 256 };

struct conn {
    int fd;
    uint64_t awaited; /* replies of the batch that haven't come */
    size_t filled;    /* bytes received of the batch */
    size_t scanned;   /* bytes of complete replies among them */
    uint64_t sent_ns;
    char *in;
};

/* Written by the worker only, read by the main thread: relaxed, any recent value will do. */
struct counters {
    _Atomic uint64_t ops;
    _Atomic uint64_t hits;
    _Atomic uint64_t misses;
};

struct worker {
    const struct lg_opts *o;
    pthread_t thread;
    struct conn *conns;
    uint64_t conn_count;
    uint64_t first_conn;
    uint64_t busy_count; /* connections with a batch under way */
    size_t in_size;
    char *out;
    struct lg_rng rng;
    uint64_t get_below; /* a 32-bit draw below this is a GET */
    uint64_t worst_batch_ns;
    struct counters counters;
};

struct totals {
    uint64_t ops;
    uint64_t hits;
    uint64_t misses;
};

/* The next key of a fill, shared by all workers; mix: whether the end has come. */
static _Atomic uint64_t fill_next;
static atomic_bool stop;
static bool filling;

static void count(_Atomic uint64_t *counter, uint64_t n) {
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static char *mix_request(struct worker *w, char *p) {
    const struct lg_opts *o = w->o;
    uint64_t draw = lg_rng_next(&w->rng);
    uint64_t id = ((draw >> 32) * o->keys) >> 32;
    if ((draw & UINT32_MAX) < w->get_below) {
        return lg_put_get(p, id);
    }
    return lg_put_set(p, id, lg_value_len(id, o->value_min, o->value_max), o->ttl_ms);
}

/* Returns false when there is nothing left to send. */
static bool batch_send(struct worker *w, struct conn *c) {
    const struct lg_opts *o = w->o;
    char *p = w->out;
    uint64_t request_count = o->pipeline;
    if (filling) {
        uint64_t id = atomic_fetch_add_explicit(&fill_next, request_count, memory_order_relaxed);
        if (id >= o->keys) {
            return false;
        }
        request_count = o->keys - id < request_count ? o->keys - id : request_count;
        for (uint64_t i = 0; i < request_count; i++, id++) {
            p = lg_put_set(p, id, lg_value_len(id, o->value_min, o->value_max), o->ttl_ms);
        }
        c->sent_ns = lg_now_ns();
    } else {
        for (uint64_t i = 0; i < request_count; i++) {
            p = mix_request(w, p);
        }
    }
    c->awaited = request_count;
    c->filled = 0;
    c->scanned = 0;
    lg_send_all(c->fd, w->out, (size_t)(p - w->out));
    return true;
}

/* Take what replies have come. */
static void replies_scan(struct worker *w, struct conn *c) {
    uint64_t done = 0;
    uint64_t hits = 0;
    uint64_t misses = 0;
    while (done < c->awaited) {
        struct lg_reply reply = lg_reply_scan(c->in + c->scanned, c->filled - c->scanned);
        if (reply.kind == LG_PARTIAL) {
            break;
        }
        if (reply.kind == LG_BULK) {
            hits++;
        } else if (reply.kind == LG_NULL) {
            misses++;
        } else if (reply.kind != LG_STATUS) {
            lg_reply_refuse(reply);
        }
        c->scanned += reply.len;
        done++;
    }
    c->awaited -= done;
    count(&w->counters.ops, done);
    count(&w->counters.hits, hits);
    count(&w->counters.misses, misses);
}

static void conn_readable(struct worker *w, struct conn *c) {
    c->filled += lg_recv_some(c->fd, c->in + c->filled, w->in_size - c->filled);
    replies_scan(w, c);
    if (c->awaited != 0) {
        return;
    }
    if (c->scanned != c->filled) {
        lg_die("bytes behind the last reply");
    }
    if (filling) {
        uint64_t batch_ns = lg_now_ns() - c->sent_ns;
        w->worst_batch_ns = batch_ns > w->worst_batch_ns ? batch_ns : w->worst_batch_ns;
    }
    if (!batch_send(w, c)) {
        w->busy_count--;
    }
}

static int conns_open(struct worker *w) {
    int ep = epoll_create1(EPOLL_CLOEXEC);
    if (ep < 0) {
        lg_die("epoll_create1: %s", strerror(errno));
    }
    w->conns = lg_grab(w->conn_count * sizeof(*w->conns));
    for (uint64_t i = 0; i < w->conn_count; i++) {
        struct conn *c = &w->conns[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        c->fd = lg_connect_acked(w->o->port, w->o->ack_replicas);
        c->in = lg_grab(w->in_size);
        if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &event) != 0) {
            lg_die("epoll_ctl: %s", strerror(errno));
        }
    }
    return ep;
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    struct epoll_event events[EVENTS_MAX];
    int ep = conns_open(w);
    for (uint64_t i = 0; i < w->conn_count; i++) {
        w->busy_count += batch_send(w, &w->conns[i]) ? 1 : 0;
    }
    while (w->busy_count != 0 && !atomic_load_explicit(&stop, memory_order_relaxed)) {
        int event_count = epoll_wait(ep, events, EVENTS_MAX, 100);
        if (event_count < 0 && errno != EINTR) {
            lg_die("epoll_wait: %s", strerror(errno));
        }
        for (int i = 0; i < event_count; i++) {
            conn_readable(w, events[i].data.ptr);
        }
    }
    return NULL;
}

static struct worker *workers_start(const struct lg_opts *o) {
    struct worker *workers = lg_grab(o->threads * sizeof(*workers));
    for (uint64_t i = 0; i < o->threads; i++) {
        struct worker *w = &workers[i];
        w->o = o;
        w->conn_count = o->conns / o->threads + (i < o->conns % o->threads ? 1 : 0);
        w->in_size = o->pipeline * LG_REQUEST_MAX;
        w->out = lg_grab(o->pipeline * LG_REQUEST_MAX);
        w->get_below = (o->get_pct << 32) / 100;
        lg_rng_seed(&w->rng, o->seed * 1000 + i);
        int rc = pthread_create(&w->thread, NULL, worker_main, w);
        if (rc != 0) {
            lg_die("pthread_create: %s", strerror(rc));
        }
    }
    return workers;
}

static void workers_join(const struct lg_opts *o, struct worker *workers) {
    for (uint64_t i = 0; i < o->threads; i++) {
        int rc = pthread_join(workers[i].thread, NULL);
        if (rc != 0) {
            lg_die("pthread_join: %s", strerror(rc));
        }
    }
}

static struct totals totals_read(const struct lg_opts *o, struct worker *workers) {
    struct totals t = {0};
    for (uint64_t i = 0; i < o->threads; i++) {
        t.ops += atomic_load_explicit(&workers[i].counters.ops, memory_order_relaxed);
        t.hits += atomic_load_explicit(&workers[i].counters.hits, memory_order_relaxed);
        t.misses += atomic_load_explicit(&workers[i].counters.misses, memory_order_relaxed);
    }
    return t;
}

static uint64_t deadline_ns(double seconds) {
    return lg_now_ns() + (uint64_t)(seconds * 1e9);
}

void lg_fill_run(const struct lg_opts *o) {
    filling = true;
    atomic_store_explicit(&fill_next, o->keys_from, memory_order_relaxed);
    uint64_t start_ns = lg_now_ns();
    struct worker *workers = workers_start(o);
    workers_join(o, workers);
    double seconds = (double)(lg_now_ns() - start_ns) / 1e9;
    uint64_t worst_ns = 0;
    uint64_t value_bytes = 0;
    for (uint64_t i = 0; i < o->threads; i++) {
        worst_ns = workers[i].worst_batch_ns > worst_ns ? workers[i].worst_batch_ns : worst_ns;
    }
    for (uint64_t id = o->keys_from; id < o->keys; id++) {
        value_bytes += lg_value_len(id, o->value_min, o->value_max);
    }
    (void)fprintf(stdout,
                  "{\"ops\": %" PRIu64
                  ", \"seconds\": %.3f, \"worst_batch_us\": %.1f, \"key_bytes\": %" PRIu64
                  ", \"value_bytes\": %" PRIu64 "}\n",
                  totals_read(o, workers).ops, seconds, (double)worst_ns / 1e3,
                  (o->keys - o->keys_from) * LG_KEY_LEN, value_bytes);
}

void lg_mix_run(const struct lg_opts *o) {
    struct worker *workers = workers_start(o);
    lg_sleep_until_ns(deadline_ns(o->warmup_s));
    struct totals before = totals_read(o, workers);
    uint64_t own_before = lg_own_cpu_ns();
    uint64_t server_before = lg_server_cpu_ns(o->pid);
    uint64_t start_ns = lg_now_ns();
    lg_sleep_until_ns(deadline_ns(o->seconds));
    struct totals after = totals_read(o, workers);
    double server_us = (double)(lg_server_cpu_ns(o->pid) - server_before) / 1e3;
    double own_us = (double)(lg_own_cpu_ns() - own_before) / 1e3;
    double seconds = (double)(lg_now_ns() - start_ns) / 1e9;
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    workers_join(o, workers);
    uint64_t ops = after.ops - before.ops;
    if (ops == 0) {
        lg_die("no reply in the measured window");
    }
    (void)fprintf(
        stdout,
        "{\"ops\": %" PRIu64 ", \"seconds\": %.3f, \"ops_per_s\": %.0f, \"hits\": %" PRIu64
        ", \"misses\": %" PRIu64 ", \"server_cpu_us_per_op\": %.4f, \"server_cpu_share\": %.3f"
        ", \"loadgen_cpu_us_per_op\": %.4f}\n",
        ops, seconds, (double)ops / seconds, after.hits - before.hits, after.misses - before.misses,
        server_us / (double)ops, server_us / 1e6 / seconds, own_us / (double)ops);
}
