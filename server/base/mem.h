/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mem: every allocation of the program, and what the process really has resident.
 *
 * Purpose: thin wrappers of jemalloc (of the C library in sanitizer builds). Accounting is jemalloc's own:
 *   each thread's running totals are free to read, the node's true figure is sampled by the janitor.
 * Invariants: I1 between two samples the figure moves by what the threads allocated and freed.
 * Threads: any. mem_stats_read() is meant for the janitor: it walks every arena of the allocator.
 * Failure: mem_alloc/mem_realloc return NULL; mem_must_alloc (startup objects, small bookkeeping) ends the
 *   process with a message. For tests, mem_fault_after(n) makes the n-th following fallible call fail once.
 */
#ifndef DC_BASE_MEM_H
#define DC_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *mem_alloc(size_t len);
void *mem_alloc_aligned(size_t align, size_t len);
void *mem_realloc(void *ptr, size_t len);
void mem_free(void *ptr);
/* Frees what was allocated with exactly this length (cheaper: no look-up of the size). */
void mem_free_sized(void *ptr, size_t len);
void mem_free_aligned(void *ptr, size_t align, size_t len);

/* A thread begins: the allocator's memory that it uses gets its pages in runs, not by a fault for each. thread_start() calls it. */
void mem_thread_begin(void);

/* Never NULL. For startup and bookkeeping that is bounded. */
void *mem_must_alloc(size_t len);
void *mem_must_zalloc(size_t len);
void *mem_must_realloc(void *ptr, size_t len);
void *mem_must_aligned(size_t align, size_t len);
char *mem_must_strdup(const char *str);

/* How full the allocator's run of equal pieces is that holds an allocation; total 1 = it is alone there. */
struct mem_place {
    size_t free;
    size_t total;
};
enum { MEM_PLACES_MAX = 8 };
/* Places of up to MEM_PLACES_MAX allocations. Without jemalloc the answer is made up. */
void mem_places(void *const *ptrs, uint32_t count, struct mem_place *out);
/* Allocates where 'old' lies, from the run that is being filled, then from the oldest with room; and frees into the run at
 * once: for moving allocations together, so that sparse runs come free. 'align' is that of the allocation to be moved.
 * All of mem_good_size(len) may be used. */
void *mem_alloc_dense(void *old, size_t align, size_t len);
void mem_free_dense(void *ptr, size_t align, size_t len);

/* The number of bytes that an allocation of 'len' really occupies. */
size_t mem_good_size(size_t len);

/* mem_alloc() for who uses all of mem_good_size(len). (A sanitizer guards the exact length otherwise.) */
void *mem_alloc_good(size_t len);

/* What the allocator says of the whole process. Without jemalloc 'allocated' is estimated. */
struct mem_stats {
    uint64_t allocated;   /* by the program */
    uint64_t active;      /* in pages that hold allocations */
    uint64_t resident;    /* of the allocator, with unused dirty pages and metadata */
    uint64_t process_rss; /* of the process, from the kernel */
    uint64_t dirty;       /* freed pages not yet given back */
};
void mem_stats_read(struct mem_stats *out);

/* The allocator's own report, piece by piece; false when it has none. */
typedef void (*mem_report_fn)(void *arg, const char *text);
bool mem_report(mem_report_fn write, void *arg);

/* Gives unused pages back to the kernel now. */
void mem_purge(void);
/* Gives back those that have been unused for long. (The allocator does it as a thread allocates; idle threads don't.) */
void mem_decay(void);

/* Net bytes that the calling thread allocated since its last call (may be negative). */
int64_t mem_thread_delta(void);

const char *mem_allocator_name(void);

/* Fault countdown: 0 = off. Compiled in always, costs one predictable branch on the fallible calls. */
void mem_fault_after(uint64_t calls);

#endif
