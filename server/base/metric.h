/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * metric: counters, one slot per thread, summed when somebody asks.
 *
 * Threads: metric_add() writes the calling thread's own slot with relaxed stores; metric_sum() reads all.
 * Ownership: a slot registered by metric_slot_init() lives until the process ends.
 */
#ifndef DC_BASE_METRIC_H
#define DC_BASE_METRIC_H

#include <stdatomic.h>
#include <stdint.h>

enum metric_id {
#define METRIC(id, name, info, help) METRIC_##id,
#include "server/base/metric.def"
#undef METRIC
    METRIC_COUNT
};

struct metric_slot {
    _Alignas(64) _Atomic uint64_t values[METRIC_COUNT];
    struct metric_slot *next;
};

/* Registers a slot; the caller keeps the storage alive for ever (worker, janitor). */
void metric_slot_init(struct metric_slot *slot);

static inline void metric_add(struct metric_slot *slot, enum metric_id id, uint64_t n) {
    _Atomic uint64_t *v = &slot->values[id];
    atomic_store_explicit(v, atomic_load_explicit(v, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

uint64_t metric_sum(enum metric_id id);
void metric_reset(void); /* CONFIG RESETSTAT: sums count from here */
const char *metric_name(enum metric_id id);
const char *metric_info_name(enum metric_id id);
const char *metric_help(enum metric_id id);

#endif
