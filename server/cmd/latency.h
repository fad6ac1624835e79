/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * latency: spikes, by the event that had them.
 *
 * Purpose: LATENCY LATEST, HISTORY, GRAPH, DOCTOR. An event ("command", "fast-command", "expire-cycle",
 *   "eviction-cycle") keeps its last LATENCY_HISTORY spikes, one for each second.
 * Threads: any (lock SLOWLOG).
 */
#ifndef DC_CMD_LATENCY_H
#define DC_CMD_LATENCY_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/bytes.h"

struct latency;
struct node;

enum {
    LATENCY_HISTORY = 160,
    LATENCY_EVENTS_MAX = 32,
    LATENCY_NAME_MAX = 32,
    LATENCY_BUCKETS = 40
};

struct latency_spike {
    int64_t time_s;
    uint32_t ms;
};

/* What is kept of one event, the oldest spike first. */
struct latency_event {
    char name[LATENCY_NAME_MAX];
    uint32_t max_ms; /* since the last reset */
    uint32_t count;
    struct latency_spike spikes[LATENCY_HISTORY];
};

struct latency *latency_create(void);
void latency_destroy(struct latency *l);

/* Something took 'ms'. Kept when it is as long as latency-monitor-threshold and that isn't 0. */
void latency_note(struct node *n, const char *event, int64_t ms);

/* The same without asking the option. */
void latency_add(struct latency *l, const char *event, int64_t time_s, int64_t ms);

/* Copies an event, false when there is none of that name; and those that there are, by index. */
bool latency_find(struct latency *l, struct bytes name, struct latency_event *out);
bool latency_at(struct latency *l, uint32_t index, struct latency_event *out);

/* Forgets one event, or all (name.ptr = NULL). Returns how many there were. */
uint32_t latency_reset(struct latency *l, struct bytes name);

/* The bucket of cmd_stats.histogram that a duration belongs to: bucket i holds what takes 2^i to 2^(i+1)-1 ticks. */
static inline uint32_t latency_bucket(uint64_t ticks) {
    uint32_t bucket = 63 - (uint32_t)__builtin_clzll(ticks | 1);
    return bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1;
}

#endif
