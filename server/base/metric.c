/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/metric.h"

#include "server/base/assert.h"

#include <stddef.h>

static const struct {
    const char *name;
    const char *info;
    const char *help;
} table[] = {
#define METRIC(id, name, info, help) {name, info, help},
#include "server/base/metric.def"
#undef METRIC
};
_Static_assert(sizeof(table) / sizeof(table[0]) == METRIC_COUNT, "one row per metric");

static struct metric_slot *_Atomic slots; /* only grows */
static _Atomic uint64_t baseline[METRIC_COUNT];

void metric_slot_init(struct metric_slot *slot) {
    for (int id = 0; id < METRIC_COUNT; id++) {
        atomic_init(&slot->values[id], 0);
    }
    slot->next = atomic_load_explicit(&slots, memory_order_relaxed);
    /* pairs with the acquire in sum_all */
    while (!atomic_compare_exchange_weak_explicit(&slots, &slot->next, slot, memory_order_release,
                                                  memory_order_relaxed)) {}
}

static uint64_t sum_all(enum metric_id id) {
    dc_assert((unsigned)id < METRIC_COUNT);
    uint64_t sum = 0;
    /* pairs with the release in metric_slot_init */
    for (struct metric_slot *s = atomic_load_explicit(&slots, memory_order_acquire); s != NULL;
         s = s->next) {
        sum += atomic_load_explicit(&s->values[id], memory_order_relaxed);
    }
    return sum;
}

uint64_t metric_sum(enum metric_id id) {
    return sum_all(id) - atomic_load_explicit(&baseline[id], memory_order_relaxed);
}

void metric_reset(void) {
    for (int id = 0; id < METRIC_COUNT; id++) {
        atomic_store_explicit(&baseline[id], sum_all((enum metric_id)id), memory_order_relaxed);
    }
}

const char *metric_name(enum metric_id id) {
    dc_assert((unsigned)id < METRIC_COUNT);
    return table[id].name;
}

const char *metric_info_name(enum metric_id id) {
    dc_assert((unsigned)id < METRIC_COUNT);
    return table[id].info;
}

const char *metric_help(enum metric_id id) {
    dc_assert((unsigned)id < METRIC_COUNT);
    return table[id].help;
}
