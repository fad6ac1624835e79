/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/wake.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { WAKE_NONE, WAKE_RAISED, WAKE_SLEEPING };

void wake_init(struct wake *w) {
    atomic_init(&w->state, WAKE_NONE);
}

void wake_raise(struct wake *w) {
    /* pairs with the exchange in wake_wait: what was done before the raise is seen by who wakes */
    if (atomic_exchange_explicit(&w->state, WAKE_RAISED, memory_order_acq_rel) == WAKE_SLEEPING) {
        syscall(SYS_futex, &w->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
}

bool wake_wait(struct wake *w, int64_t timeout_us) {
    uint32_t none = WAKE_NONE;
    if (atomic_compare_exchange_strong_explicit(&w->state, &none, WAKE_SLEEPING,
                                                memory_order_acq_rel, memory_order_acquire)) {
        struct timespec limit = {.tv_sec = timeout_us / 1000000,
                                 .tv_nsec = timeout_us % 1000000 * 1000};
        syscall(SYS_futex, &w->state, FUTEX_WAIT_PRIVATE, WAKE_SLEEPING, &limit, NULL, 0);
    }
    return atomic_exchange_explicit(&w->state, WAKE_NONE, memory_order_acq_rel) == WAKE_RAISED;
}
