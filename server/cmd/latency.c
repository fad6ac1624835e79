/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/latency.h"

#include "server/base/assert.h"
#include "server/base/conf.h"
#include "server/base/lock.h"
#include "server/base/mem.h"
#include "server/cmd/node.h"

#include <string.h>

struct latency {
    struct lock lock;
    uint32_t count DC_GUARDED_BY(lock);
    struct latency_event *events[LATENCY_EVENTS_MAX] DC_GUARDED_BY(lock);
};

struct latency *latency_create(void) {
    struct latency *l = mem_must_zalloc(sizeof(*l));
    lock_init(&l->lock, LOCK_RANK_SLOWLOG);
    return l;
}

void latency_destroy(struct latency *l) {
    if (l != NULL) {
        (void)latency_reset(l, bytes_of(NULL, 0));
        lock_fini(&l->lock);
        mem_free(l);
    }
}

static struct latency_event *find_locked(struct latency *l, struct bytes name)
    DC_REQUIRES(l->lock) {
    for (uint32_t i = 0; i < l->count; i++) {
        if (bytes_equal(name, bytes_str(l->events[i]->name))) {
            return l->events[i];
        }
    }
    return NULL;
}

/* NULL when there are too many. */
static struct latency_event *enter_locked(struct latency *l, const char *name)
    DC_REQUIRES(l->lock) {
    struct latency_event *e = find_locked(l, bytes_str(name));
    if (e == NULL && l->count < LATENCY_EVENTS_MAX) {
        dc_assert(strlen(name) < LATENCY_NAME_MAX);
        e = mem_must_zalloc(sizeof(*e));
        strncpy(e->name, name, LATENCY_NAME_MAX - 1);
        l->events[l->count++] = e;
    }
    return e;
}

/* Of the spikes within one second the highest stays. */
static void add_spike(struct latency_event *e, int64_t time_s, uint32_t ms) {
    struct latency_spike *last = e->count > 0 ? &e->spikes[e->count - 1] : NULL;
    e->max_ms = ms > e->max_ms ? ms : e->max_ms;
    if (last != NULL && last->time_s == time_s) {
        last->ms = ms > last->ms ? ms : last->ms;
        return;
    }
    if (e->count == LATENCY_HISTORY) {
        memmove(&e->spikes[0], &e->spikes[1], --e->count * sizeof(e->spikes[0]));
    }
    e->spikes[e->count++] = (struct latency_spike){time_s, ms};
}

void latency_add(struct latency *l, const char *event, int64_t time_s, int64_t ms) {
    lock_acquire(&l->lock);
    struct latency_event *e = enter_locked(l, event);
    if (e != NULL) {
        add_spike(e, time_s, ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms);
    }
    lock_release(&l->lock);
}

void latency_note(struct node *n, const char *event, int64_t ms) {
    int64_t threshold_ms = conf_get(n->conf, latency_monitor_threshold);
    if (threshold_ms > 0 && ms >= threshold_ms) {
        latency_add(n->latency, event, clock_now_us(&n->clock) / 1000000, ms);
    }
}

bool latency_find(struct latency *l, struct bytes name, struct latency_event *out) {
    lock_acquire(&l->lock);
    const struct latency_event *e = find_locked(l, name);
    if (e != NULL) {
        *out = *e;
    }
    lock_release(&l->lock);
    return e != NULL;
}

bool latency_at(struct latency *l, uint32_t index, struct latency_event *out) {
    lock_acquire(&l->lock);
    bool there = index < l->count;
    if (there) {
        *out = *l->events[index];
    }
    lock_release(&l->lock);
    return there;
}

uint32_t latency_reset(struct latency *l, struct bytes name) {
    uint32_t kept = 0;
    lock_acquire(&l->lock);
    uint32_t before = l->count;
    for (uint32_t i = 0; i < before; i++) {
        struct latency_event *e = l->events[i];
        if (name.ptr == NULL || bytes_equal(name, bytes_str(e->name))) {
            mem_free(e);
        } else {
            l->events[kept++] = e;
        }
    }
    l->count = kept;
    lock_release(&l->lock);
    return before - kept;
}
