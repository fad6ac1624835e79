/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A tick: clock, sweep, memory, rates. The next one comes after JANITOR_PERIOD_MS, or sooner when memory is near its
 * limit or the sweep had to stop in the middle of much work; it gets a share of the time in between, so that it
 * never takes more than that share of a core.
 */
#include "server/cmd/janitor.h"

#include "server/base/assert.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "server/cmd/info.h"
#include "server/cmd/memory.h"
#include "server/cmd/node.h"
#include "server/cmd/notify.h"

#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <time.h>

enum {
    SWEEP_STEP = 2048, /* entries looked at between two glances at the clock */
    SWEEP_SHARE_MIN =
        10, /* percent of a core that the sweep may take; more while it can't keep up ... */
    SWEEP_SHARE_MAX = 40,   /* ... up to this with the least effort ... */
    SWEEP_SHARE_EFFORT = 5, /* ... and so much for each degree above it */
    EVICT_SHARE = 50,
    PACK_PAGES = 512 /* looked at in a full tick */
};

struct janitor {
    struct node *node;
    struct thread thread;
    sem_t stop;
    struct metric_slot *metrics; /* never freed: the table of metrics keeps it */
    struct store_thread store;
    struct store_sweep sweep;
    struct store_pack pack;
    struct mut mut;
    struct log_feed *feed;
    int64_t next_full_us;  /* monotonic: when the tick is due that does everything */
    int64_t sweep_share;   /* percent of a core */
    uint64_t round_number; /* the sweep's present round: what 'wrapped' was when it began, */
    uint32_t round_first;  /* and where */
};

/* --- the parts of a tick ----------------------------------------------------------------------------------------- */

static void step_clock(struct node *n) {
    int64_t wall_us = time_wall_us();
    int64_t mono_us = time_mono_us();
    int64_t ahead_ms = (wall_us - clock_at_us(&n->clock, mono_us)) / 1000;
    switch (clock_step(&n->clock, wall_us, mono_us)) {
    case CLOCK_STEADY:
        return;
    case CLOCK_JUMPED_FORWARD:
        diag(DIAG_WARNING, "clock.jumped_forward ms=%" PRId64 " followed=no", ahead_ms);
        return;
    case CLOCK_STEPPED_BACK:
        diag(DIAG_WARNING, "clock.stepped_back ms=%" PRId64 " followed=no", ahead_ms);
        return;
    case CLOCK_CAUGHT_UP:
        diag(DIAG_NOTICE, "clock.caught_up ms=%" PRId64, ahead_ms);
        return;
    }
    dc_unreachable();
}

/* CLIENT PAUSE is over: those who wait go on. */
static void end_pause(struct node *n, int64_t now_ms) {
    int64_t until = atomic_load_explicit(&n->pause_until_ms, memory_order_relaxed);
    if (until != 0 && now_ms >= until &&
        atomic_compare_exchange_strong_explicit(&n->pause_until_ms, &until, 0, memory_order_relaxed,
                                                memory_order_relaxed)) {
        n->host->resume(n);
    }
}

static void tell_expired(void *arg, struct keyspace *ks, struct bytes key) {
    notify_now(arg, NULL, NOTIFY_EXPIRED, "expired", ks, key);
}

static bool wants_expired(const struct node *n) {
    uint32_t flags = atomic_load_explicit(&n->notify_flags, memory_order_relaxed);
    return (flags & NOTIFY_EXPIRED) && (flags & (NOTIFY_KEYSPACE | NOTIFY_KEYEVENT));
}

static uint32_t sweep_place(const struct janitor *j) {
    return j->sweep.keyspace * SLOT_COUNT + j->sweep.slot;
}

/* Goes on until everything that is due was seen, which may take several ticks. False when the time was up before. */
static bool sweep_until(struct janitor *j, int64_t end_us) {
    struct node *n = j->node;
    for (;;) {
        store_sweep(&j->store, &j->sweep, repl_reap_ms(n->repl, clock_now_ms(&n->clock)),
                    SWEEP_STEP, wants_expired(n) ? tell_expired : NULL, n);
        uint64_t rounds = j->sweep.wrapped - j->round_number;
        if (rounds > 1 || (rounds == 1 && sweep_place(j) >= j->round_first)) {
            j->round_number = j->sweep.wrapped;
            j->round_first = sweep_place(j);
            return true;
        }
        if (time_mono_us() >= end_us) {
            return false;
        }
    }
}

/* What expires has to be reclaimed as fast as it comes, sooner or later: the share follows the work. */
static void adapt_share(struct janitor *j, bool done) {
    int64_t effort = conf_get(j->node->conf, active_expire_effort) - 1;
    int64_t most = SWEEP_SHARE_MAX + SWEEP_SHARE_EFFORT * effort;
    int64_t share = done ? j->sweep_share - 1 : j->sweep_share + 2;
    j->sweep_share = share < SWEEP_SHARE_MIN ? SWEEP_SHARE_MIN : share > most ? most : share;
}

static uint64_t expired_by(const struct janitor *j) {
    return atomic_load_explicit(&j->metrics->values[METRIC_EXPIRED], memory_order_relaxed);
}

/* 'passed_ms' since it last ran. False when there is more to do. */
static bool sweep(struct janitor *j, uint32_t passed_ms) {
    struct node *n = j->node;
    if (!atomic_load_explicit(&n->active_expire, memory_order_relaxed)) {
        return true;
    }
    int64_t began_us = time_mono_us();
    uint64_t before = expired_by(j);
    bool done = sweep_until(j, began_us + (int64_t)passed_ms * 10 * j->sweep_share);
    info_note_sweep(n, time_mono_us() - began_us, expired_by(j) - before, done);
    adapt_share(j, done);
    return done;
}

/* Memory is short and perhaps nobody writes: the limit may have been lowered, or readers' buffers have grown. */
static void evict(struct janitor *j, int64_t limit_us) {
    struct node *n = j->node;
    struct evictor by = {.node = n, .store = &j->store, .mut = &j->mut, .feed = j->feed};
    int64_t end_us = time_mono_us() + limit_us;
    int64_t budget = atomic_load_explicit(&n->memory_budget, memory_order_relaxed);
    bool writes = atomic_load_explicit(&n->writes, memory_order_acquire) == WRITES_TAKEN;
    if (!writes || conf_get(n->conf, maxmemory_policy) == EVICT_NONE ||
        log_state(n->log) != LOG_WELL) {
        return;
    }
    (void)mem_thread_delta();
    while (budget < 0 && time_mono_us() < end_us && memory_evict(&by, clock_now_ms(&n->clock))) {
        int64_t delta = mem_thread_delta();
        budget = atomic_fetch_sub_explicit(&n->memory_budget, delta, memory_order_relaxed) - delta;
    }
}

/* --- the thread -------------------------------------------------------------------------------------------------- */

/* True when the janitor has to stop. */
static bool wait_ms(struct janitor *j, uint32_t ms) {
    int64_t until_us = time_mono_us() + (int64_t)ms * 1000;
    struct timespec until = {.tv_sec = until_us / 1000000, .tv_nsec = until_us % 1000000 * 1000};
    int err;
    do {
        err = sem_clockwait(&j->stop, CLOCK_MONOTONIC, &until);
    } while (err != 0 && errno == EINTR);
    dc_assert(err == 0 || errno == ETIMEDOUT);
    return err == 0;
}

/* What is due once in JANITOR_PERIOD_MS, however often the thread wakes. */
static void full_tick(struct janitor *j) {
    struct node *n = j->node;
    int64_t mono_us = time_mono_us();
    if (mono_us < j->next_full_us) {
        return;
    }
    j->next_full_us = mono_us + (int64_t)JANITOR_PERIOD_MS * 1000;
    step_clock(n);
    store_tick(n->store, clock_now_ms(&n->clock));
    log_note_time(n->log, clock_now_ms(&n->clock));
    mem_decay();
    store_pack_pages(n->store, &j->pack, PACK_PAGES);
    info_sample(n);
}

/* 'passed_ms' since the last one. Returns the time until the next. */
static uint32_t tick(struct janitor *j, uint32_t passed_ms) {
    struct node *n = j->node;
    full_tick(j);
    end_pause(n, clock_now_ms(&n->clock));
    bool swept = sweep(j, passed_ms);
    uint32_t next_ms = memory_sample(n);
    evict(j, (int64_t)passed_ms * 10 * EVICT_SHARE);
    return swept ? next_ms : JANITOR_BUSY_PERIOD_MS;
}

static void run(void *arg) {
    struct janitor *j = arg;
    uint32_t ms = JANITOR_PERIOD_MS;
    while (!wait_ms(j, ms)) {
        ms = tick(j, ms);
    }
}

struct janitor *janitor_start(struct node *n) {
    struct janitor *j = mem_must_zalloc(sizeof(*j));
    j->node = n;
    j->metrics = mem_must_aligned(_Alignof(struct metric_slot), sizeof(*j->metrics));
    metric_slot_init(j->metrics);
    store_thread_init(&j->store, n->store, j->metrics, (uint64_t)time_wall_us());
    mut_init(&j->mut, n->store, &j->store);
    j->feed = log_feed_create(n->log);
    int err = sem_init(&j->stop, 0, 0);
    dc_assert(err == 0);
    (void)memory_sample(n);
    thread_start(&j->thread, "janitor", run, j);
    return j;
}

void janitor_stop(struct janitor *j) {
    if (j == NULL) {
        return;
    }
    sem_post(&j->stop);
    thread_join(&j->thread);
    log_feed_destroy(j->feed);
    mut_fini(&j->mut);
    sem_destroy(&j->stop);
    mem_free(j);
}
