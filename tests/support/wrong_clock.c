/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wrong_clock: a library to preload (support/disk.py): the wall clock is off by as much as a shared page of memory says (preload.h). The
 * page is the file that the environment names in WRONG_CLOCK.
 */
#include "tests/support/preload.h"

#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>

/* Written by the test. */
struct control {
    _Atomic int64_t ahead_ms; /* of the wall clock */
};

int clock_gettime(clockid_t id, struct timespec *t) {
    static _Atomic(struct control *) page;
    struct control *c = atomic_load(&page);
    if (c == NULL) {
        c = preload_page("WRONG_CLOCK");
        atomic_store(&page, c);
    }
    int rc = (int)syscall(SYS_clock_gettime, id, t);
    if (rc == 0 && c != NULL && id == CLOCK_REALTIME) {
        int64_t ms = atomic_load(&c->ahead_ms);
        int64_t ns = t->tv_nsec + (ms % 1000 + 1000) * 1000000; /* not negative */
        t->tv_sec += ms / 1000 - 1 + ns / 1000000000;
        t->tv_nsec = ns % 1000000000;
    }
    return rc;
}
