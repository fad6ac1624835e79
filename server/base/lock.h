/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lock: mutexes with a rank, and the four-byte slot lock.
 *
 * Invariants: I1 a thread takes locks in rising rank; among equal ranks in rising index (debug builds check
 *   both with a per-thread stack). I2 nobody sleeps, does I/O or takes another slot while he holds a slot
 *   lock beyond the set that he took in ascending order.
 * Threads: any.
 */
#ifndef DC_BASE_LOCK_H
#define DC_BASE_LOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#if defined(__clang__)
#    define DC_CAPABILITY(name) __attribute__((capability(name)))
#    define DC_ACQUIRE(...)     __attribute__((acquire_capability(__VA_ARGS__)))
#    define DC_RELEASE(...)     __attribute__((release_capability(__VA_ARGS__)))
#    define DC_REQUIRES(...)    __attribute__((requires_capability(__VA_ARGS__)))
#    define DC_NO_LOCK_CHECK    __attribute__((no_thread_safety_analysis))
#else
#    define DC_CAPABILITY(name)
#    define DC_ACQUIRE(...)
#    define DC_RELEASE(...)
#    define DC_REQUIRES(...)
#    define DC_NO_LOCK_CHECK
#endif
/* Documentation only: clang 14 doesn't parse a sibling member in C. */
#define DC_GUARDED_BY(lock)

enum lock_rank {
#define LOCK_RANK(name, rank, guards) LOCK_RANK_##name = (rank),
#include "server/base/lockrank.def"
#undef LOCK_RANK
};

struct DC_CAPABILITY("mutex") lock {
    pthread_mutex_t mutex;
    enum lock_rank rank;
};

void lock_init(struct lock *l, enum lock_rank rank);
void lock_fini(struct lock *l);
void lock_acquire(struct lock *l) DC_ACQUIRE(l);
void lock_release(struct lock *l) DC_RELEASE(l);

/* Free, held, or held with sleepers. Spins shortly, then sleeps in the kernel. */
struct DC_CAPABILITY("slot lock") slot_lock {
    _Atomic uint32_t state;
};

void slot_lock_wait(struct slot_lock *l); /* slow halves */
void slot_lock_wake(struct slot_lock *l);

/* While another core is expected to be done in a moment. */
static inline void lock_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#ifdef NDEBUG
static inline void lock_rank_push(enum lock_rank rank, uint32_t index) {
    (void)rank, (void)index;
}
static inline void lock_rank_pop(enum lock_rank rank) {
    (void)rank;
}
#else
/* Asserts I1. 'index' orders the locks of one rank. */
void lock_rank_push(enum lock_rank rank, uint32_t index);
void lock_rank_pop(enum lock_rank rank);
#endif

static inline void slot_lock_acquire(struct slot_lock *l, uint32_t index)
    DC_ACQUIRE(l) DC_NO_LOCK_CHECK {
    lock_rank_push(LOCK_RANK_SLOT, index);
    uint32_t expected = 0;
    /* pairs with the release in slot_lock_release */
    if (!atomic_compare_exchange_strong_explicit(&l->state, &expected, 1, memory_order_acquire,
                                                 memory_order_relaxed)) {
        slot_lock_wait(l);
    }
}

static inline void slot_lock_release(struct slot_lock *l) DC_RELEASE(l) DC_NO_LOCK_CHECK {
    lock_rank_pop(LOCK_RANK_SLOT);
    /* pairs with the acquire in slot_lock_acquire and slot_lock_wait */
    if (atomic_exchange_explicit(&l->state, 0, memory_order_release) == 2) {
        slot_lock_wake(l);
    }
}

#endif
