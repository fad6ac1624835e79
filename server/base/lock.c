/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/lock.h"

#include "server/base/assert.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SPIN_COUNT = 100 };

/* --- ranks --- */

#ifndef NDEBUG

/* What the thread holds: one row per rank, ranks rising. Of a rank only the highest index counts. */
enum {
#    define LOCK_RANK(name, rank, guards) RANK_INDEX_##name,
#    include "server/base/lockrank.def"
#    undef LOCK_RANK
    RANK_COUNT
};

static _Thread_local struct {
    struct {
        enum lock_rank rank;
        uint32_t index;
        uint32_t count;
    } rows[RANK_COUNT];
    unsigned depth;
} held;

void lock_rank_push(enum lock_rank rank, uint32_t index) {
    if (held.depth > 0 && held.rows[held.depth - 1].rank == rank) {
        dc_assert(index > held.rows[held.depth - 1].index); /* I1 */
        held.rows[held.depth - 1].index = index;
        held.rows[held.depth - 1].count++;
        return;
    }
    dc_assert(held.depth == 0 || held.rows[held.depth - 1].rank < rank); /* I1 */
    dc_assert(held.depth < RANK_COUNT);
    held.rows[held.depth].rank = rank;
    held.rows[held.depth].index = index;
    held.rows[held.depth].count = 1;
    held.depth++;
}

/* Locks are released in any order. */
void lock_rank_pop(enum lock_rank rank) {
    unsigned row = 0;
    while (row < held.depth && held.rows[row].rank != rank) {
        row++;
    }
    dc_assert(row < held.depth); /* held at all */
    if (--held.rows[row].count > 0) {
        return;
    }
    held.depth--;
    for (; row < held.depth; row++) {
        held.rows[row] = held.rows[row + 1];
    }
}

#endif

/* --- mutexes --- */

void lock_init(struct lock *l, enum lock_rank rank) {
    int err = pthread_mutex_init(&l->mutex, NULL);
    dc_assert(err == 0);
    l->rank = rank;
}

void lock_fini(struct lock *l) {
    int err = pthread_mutex_destroy(&l->mutex);
    dc_assert(err == 0); /* EBUSY: somebody holds it */
}

void lock_acquire(struct lock *l) DC_NO_LOCK_CHECK {
    lock_rank_push(l->rank, 0);
    int err = pthread_mutex_lock(&l->mutex);
    dc_assert(err == 0);
}

void lock_release(struct lock *l) DC_NO_LOCK_CHECK {
    lock_rank_pop(l->rank);
    int err = pthread_mutex_unlock(&l->mutex);
    dc_assert(err == 0);
}

/* --- slot locks --- */

/* States: 0 free, 1 held, 2 held and somebody may sleep. Who has slept takes the lock as 2, because he can't know
 * whether he was the only one; the price is at most one wake-up in vain. */

void slot_lock_wait(struct slot_lock *l) {
    for (int i = 0; i < SPIN_COUNT; i++) {
        uint32_t expected = 0;
        /* pairs with the release in slot_lock_release */
        if (atomic_load_explicit(&l->state, memory_order_relaxed) == 0 &&
            atomic_compare_exchange_weak_explicit(&l->state, &expected, 1, memory_order_acquire,
                                                  memory_order_relaxed)) {
            return;
        }
        lock_relax();
    }
    /* pairs with the release in slot_lock_release */
    while (atomic_exchange_explicit(&l->state, 2, memory_order_acquire) != 0) {
        syscall(SYS_futex, &l->state, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
    }
}

void slot_lock_wake(struct slot_lock *l) {
    syscall(SYS_futex, &l->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
