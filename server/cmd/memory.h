/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * memory: maxmemory, kept by what the process really has resident.
 *
 * Purpose: the janitor samples the allocator and the kernel and says how many bytes may still be allocated (the budget);
 *   workers subtract what they allocate, in batches, and evict while it is below zero.
 * Invariants: I1 without maxmemory the budget is near MEMORY_UNLIMITED; I2 while the node evicts, resident memory stays
 *   below maxmemory * 1.05 + 16 MiB.
 * Threads: memory_is_short() and memory_make_room() are the workers'; the rest any.
 */
#ifndef DC_CMD_MEMORY_H
#define DC_CMD_MEMORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/base/err.h"
#include "server/base/lock.h"
#include "server/base/mem.h"

struct cmd_worker;
struct mut;
struct node;
struct store_thread;

#define MEMORY_UNLIMITED INT64_MAX

/* How much may be allocated when resident memory is what limits the node. Kept from sample to sample. */
struct memory_control {
    bool holds;       /* resident memory is above the soft limit: 'target' counts */
    int64_t target;   /* bytes allocated */
    int64_t resident; /* at the last sample, without unused pages */
};

/* What the last sample found; written by memory_sample(), read by all. */
struct memory_seen {
    struct lock lock;               /* one sample at a time */
    struct memory_control control;  /* under lock */
    _Atomic uint64_t sampled_ticks; /* when the last sample began */
    _Atomic uint64_t allocated;
    _Atomic uint64_t active;
    _Atomic uint64_t resident;
    _Atomic uint64_t rss;
    _Atomic uint64_t dirty;
    _Atomic uint64_t peak;             /* of allocated */
    _Atomic uint64_t startup;          /* allocated when the node was ready */
    _Atomic int64_t spare;             /* room left for those who can't evict: holes count */
    _Atomic uint64_t purges;           /* times that unused pages were given back for maxmemory */
    _Atomic int64_t evicting_since_us; /* monotonic, 0 = below the limit */
    _Atomic uint64_t evicting_us;      /* spent above the limit until then */
};

/* The arithmetic of a sample. */
struct memory_verdict {
    int64_t
        budget; /* bytes that may be allocated before something has to go; negative: so much too many */
    int64_t spare; /* the same if nothing can go: free places within used pages count as room */
    bool purge;    /* unused pages alone bring the process above the limit */
};

struct memory_verdict memory_judge(struct memory_control *c, const struct mem_stats *now,
                                   uint64_t own, uint64_t maxmemory);

void memory_init(struct memory_seen *m);
void memory_fini(struct memory_seen *m);

/* The one who evicts: a worker, or the janitor. */
struct evictor {
    struct node *node;
    struct cmd_worker *worker; /* NULL = the janitor */
    struct store_thread *store;
    struct mut *mut;
    struct log_feed *feed;
};

/* Measures and sets node->memory_budget; what it finds first counts as the node's own memory. Any thread; the janitor
 * calls it all the time. Returns the milliseconds until the next one is due. */
uint32_t memory_sample(struct node *n);

/* Evicts one entry. False when there is none that may go. No slot lock is held. */
bool memory_evict(const struct evictor *by, int64_t now_ms);

/* Whether the node has to evict before it takes more. Cheap: before each command that may need memory. */
bool memory_is_short(struct cmd_worker *w);

/* Evicts until there is room, or a bounded number of entries. No slot lock is held.
 * Errors: DC_EOOM when nothing may or can be evicted. */
DC_MUST enum dc_err memory_make_room(struct cmd_worker *w);

#endif
