/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * memory: maxmemory, kept by what the process really has resident.
 *
 * Purpose: the janitor samples the allocator and the kernel and says how many bytes may still be allocated (the budget);
 *   workers subtract what they allocate, in batches, and evict while it is below zero.
 * Invariants: I1 without maxmemory the budget is MEMORY_UNLIMITED and nobody subtracts from it.
 * Threads: memory_sample() is the janitor's; memory_is_short() and memory_make_room() any worker's.
 */
#ifndef DC_CMD_MEMORY_H
#define DC_CMD_MEMORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/base/err.h"
#include "server/base/mem.h"

struct cmd_worker;
struct node;

#define MEMORY_UNLIMITED INT64_MAX

/* What the last sample found; written by the janitor, read by all. */
struct memory_seen {
    _Atomic uint64_t allocated;
    _Atomic uint64_t active;
    _Atomic uint64_t resident;
    _Atomic uint64_t rss;
    _Atomic uint64_t dirty;
    _Atomic uint64_t peak;      /* of allocated */
    _Atomic uint64_t startup;   /* allocated when the node was ready */
    _Atomic uint64_t purges;    /* times that dirty pages were given back for maxmemory */
    _Atomic int64_t evicting_since_ms; /* 0 = not evicting */
    _Atomic uint64_t evicting_ms; /* spent above the limit, finished spells */
};

/* One sample; sets node->memory_budget. Returns the time until the next is wanted. */
uint32_t memory_sample(struct node *n);

/* The arithmetic of a sample: bytes that may be allocated until the process reaches maxmemory. Below 0: so much has to go. */
int64_t memory_budget_of(const struct mem_stats *m, uint64_t maxmemory);

/* Whether the node has to evict before it takes more. Cheap: before each command that may need memory. */
bool memory_is_short(struct cmd_worker *w);

/* Evicts a bounded number of entries. No slot lock is held.
 * Errors: DC_EOOM when nothing may or can be evicted. */
DC_MUST enum dc_err memory_make_room(struct cmd_worker *w);

#endif
