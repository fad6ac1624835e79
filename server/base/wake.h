/* SPDX-License-Identifier: BSD-3-Clause */
/* wake: one thread sleeps until others have something for it. A raise that comes before the wait isn't lost. */
#ifndef DC_BASE_WAKE_H
#define DC_BASE_WAKE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct wake {
    _Atomic uint32_t state;
};

void wake_init(struct wake *w);
/* Any thread. A system call only if the other one sleeps. */
void wake_raise(struct wake *w);
/* The one thread: until it is raised or the time is over; true = raised. */
bool wake_wait(struct wake *w, int64_t timeout_us);

#endif
