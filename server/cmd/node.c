/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/node.h"

#include "server/base/ack.h"
#include "server/base/assert.h"
#include "server/base/crypto.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/cmd/acks.h"
#include "server/cmd/info.h"
#include "server/cmd/latency.h"
#include "server/cmd/notify.h"
#include "server/cmd/pubsub.h"
#include "server/cmd/saver.h"
#include "server/cmd/slowlog.h"

#include <stdio.h>

static void replicas_moved(void *arg) {
    struct node *n = arg;
    n->host->resume(n);
}

void node_init(struct node *n, struct conf *conf, struct store *s, const struct host *host) {
    uint8_t id[20];
    memset(n, 0, sizeof(*n));
    n->conf = conf;
    n->store = s;
    n->host = host;
    clock_init(&n->clock, time_wall_us(), time_mono_us());
    n->start_ms = clock_now_ms(&n->clock);
    crypto_random(id, sizeof(id));
    crypto_hex(n->run_id, id, sizeof(id));
    lock_init(&n->keeping_lock, LOCK_RANK_KEEPING);
    lock_init(&n->clients_lock, LOCK_RANK_CLIENTS);
    n->pubsub = pubsub_create();
    n->slowlog = slowlog_create();
    n->latency = latency_create();
    n->info = info_create();
    n->replicas = replicas_create(&(struct replicas_opts){.moved = replicas_moved, .arg = n});
    memory_init(&n->memory);
    atomic_store(&n->active_expire, 1);
    atomic_store(&n->memory_budget, INT64_MAX);
    node_options_changed(n);
}

void node_fini(struct node *n) {
    memory_fini(&n->memory);
    replicas_destroy(n->replicas);
    info_destroy(n->info);
    latency_destroy(n->latency);
    slowlog_destroy(n->slowlog);
    pubsub_destroy(n->pubsub);
    lock_fini(&n->clients_lock);
}

/* Ticks that a duration takes; UINT64_MAX for never. */
static uint64_t ticks_of_us(int64_t us) {
    if (us < 0) {
        return UINT64_MAX;
    }
    uint64_t per_second = time_ticks_to_ns((uint64_t)1 << 32); /* ns of 2^32 ticks */
    return (uint64_t)((double)us * 1000.0 * (double)((uint64_t)1 << 32) / (double)per_second);
}

/* Reads "class hard soft seconds" groups as conf keeps them. */
static void read_output_limits(struct node *n) {
    char text[256];
    char class[16];
    long long hard, soft, seconds;
    int used;
    (void)conf_text(n->conf, CONF_ID_client_output_buffer_limit, text, sizeof(text));
    for (const char *at = text;
         sscanf(at, "%15s %lld %lld %lld%n", class, &hard, &soft, &seconds, &used) == 4;
         at += used) {
        bool normal = strcmp(class, "normal") == 0;
        if (!normal && strcmp(class, "pubsub") != 0) {
            continue;
        }
        struct output_limit *limit = &n->output_limits[normal ? OUTPUT_NORMAL : OUTPUT_PUBSUB];
        atomic_store_explicit(&limit->hard, hard, memory_order_relaxed);
        atomic_store_explicit(&limit->soft, soft, memory_order_relaxed);
        atomic_store_explicit(&limit->soft_s, seconds, memory_order_relaxed);
    }
}

static void read_ack_level(struct node *n) {
    char text[ACK_TEXT_MAX];
    struct ack_level level;
    size_t len = conf_text(n->conf, CONF_ID_ack_level, text, sizeof(text));
    bool ok = ack_parse(bytes_of(text, len), &level);
    dc_assert(ok); /* the option is checked */
    atomic_store_explicit(&n->ack_level, ack_word(level), memory_order_relaxed);
}

/* Under a lock from the look at the option on: of two changes at a time the later one counts. */
static void settle_keeping(struct node *n) {
    lock_acquire(&n->keeping_lock);
    log_set_keeps(n->log, conf_get(n->conf, appendonly) != 0);
    lock_release(&n->keeping_lock);
    if (n->saver != NULL) {
        saver_look(n->saver);
    }
}

void node_limit_warming(struct node *n) {
    if (n->warm != NULL && !log_follows(n->log)) {
        warm_set_limit(n->warm, (uint64_t)conf_get(n->conf, maxmemory),
                       (enum evict_policy)conf_get(n->conf, maxmemory_policy));
    }
}

void node_options_changed(struct node *n) {
    char text[256];
    size_t len = conf_text(n->conf, CONF_ID_notify_keyspace_events, text, sizeof(text));
    atomic_store_explicit(&n->notify_flags, notify_parse(bytes_of(text, len)),
                          memory_order_relaxed);
    len = conf_text(n->conf, CONF_ID_requirepass, text, sizeof(text));
    atomic_store_explicit(&n->has_password, len > 0, memory_order_relaxed);
    atomic_store_explicit(&n->slow_ticks, ticks_of_us(conf_get(n->conf, slowlog_log_slower_than)),
                          memory_order_relaxed);
    read_output_limits(n);
    read_ack_level(n);
    diag_set_level((enum diag_level)conf_get(n->conf, loglevel));
    atomic_store_explicit(&n->tracks_latency, conf_get(n->conf, latency_tracking) != 0,
                          memory_order_relaxed);
    if (n->log != NULL) {
        log_set_sync(n->log, (enum log_sync)conf_get(n->conf, appendfsync));
        log_set_segment_len(n->log, (uint64_t)conf_get(n->conf, log_segment_size));
        settle_keeping(n);
        node_limit_warming(n);
    }
    int64_t ms = conf_get(n->conf, latency_monitor_threshold);
    atomic_store_explicit(&n->latency_ticks, ms == 0 ? UINT64_MAX : ticks_of_us(ms * 1000),
                          memory_order_relaxed);
}

enum log_level node_level(const struct node *n) {
    if (!conf_get(n->conf, appendonly)) {
        return LOG_LEVEL_MEMORY;
    }
    bool disk = conf_get(n->conf, appendfsync) == LOG_SYNC_ALWAYS || log_is_late(n->log);
    return disk ? LOG_LEVEL_DISK : LOG_LEVEL_OS;
}

bool node_is_replica(const struct node *n) {
    return atomic_load_explicit(&n->writes, memory_order_relaxed) == WRITES_READONLY;
}

struct keyspace *node_database(const struct node *n, int64_t id) {
    return id >= 0 && id < conf_get(n->conf, databases) ? store_keyspace(n->store, (uint32_t)id)
                                                        : NULL;
}

uint64_t node_applied(const struct node *n) {
    return log_applied(n->log).v;
}

bool node_lsn_is_lost(const struct node *n, uint64_t lsn) {
    return histories_lost(log_chain(n->log), lsn);
}

void cmd_worker_init(struct cmd_worker *w, struct node *n, uint32_t index, struct arena *arena) {
    uint64_t seed;
    memset(w, 0, sizeof(*w));
    w->node = n;
    w->index = index;
    w->arena = arena;
    crypto_random(&seed, sizeof(seed));
    metric_slot_init(&w->metrics);
    store_thread_init(&w->store, n->store, &w->metrics, seed);
    mut_init(&w->mut, n->store, &w->store);
    mut_init(&w->evict_mut, n->store, &w->store);
    w->feed = log_feed_create(n->log);
    w->notices_tail = &w->notices;
    w->pubsub = pubsub_local_create(w);
    n->workers[index] = w;
}

void cmd_worker_fini(struct cmd_worker *w) {
    if (w->node->log != NULL) { /* a log that is closed took its feeds along */
        log_feed_destroy(w->feed);
    }
    mut_fini(&w->evict_mut);
    mut_fini(&w->mut);
    pubsub_local_destroy(w->pubsub);
}

void cmd_batch_begin(struct cmd_worker *w) {
    w->now_us = clock_now_us(&w->node->clock);
    w->ticks = time_ticks();
    w->safe = acks_mark(w->node, ack_of_word(0));
}
