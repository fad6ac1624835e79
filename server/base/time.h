/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * time: the node clock, which never steps back, and cheap stamps for durations.
 *
 * Purpose: expiry must survive clocks that jump. The node clock runs with the monotonic clock and follows
 *   the wall clock: small differences at once, a step back by standing on the monotonic rate until the wall
 *   clock has caught up, a large jump forward only after it has lasted CLOCK_JUMP_GRACE_MS, and then slowly
 *   (one extra second per second). A jump is reported once.
 * Invariants: I1 clock_now_us() never returns less than it returned before, on any thread.
 *   I2 after clock_raise_floor(t) it never returns less than t.
 * Threads: clock_step() is the janitor's (or the test's); the readers are any thread.
 */
#ifndef DC_BASE_TIME_H
#define DC_BASE_TIME_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { CLOCK_SMALL_STEP_MS = 2000, CLOCK_JUMP_GRACE_MS = 60000 };

/* What a step found: a jump or a step back is told once, and so is its end. */
enum clock_event { CLOCK_STEADY, CLOCK_JUMPED_FORWARD, CLOCK_STEPPED_BACK, CLOCK_CAUGHT_UP };

struct node_clock {
    _Atomic int64_t offset_us; /* node time - monotonic time; only grows */
    /* owned by the caller of clock_step() */
    int64_t last_mono_us;
    int64_t jump_since_us; /* monotonic time at which a large jump was first seen, 0 = none */
    bool behind;           /* the wall clock is behind the node clock */
};

void clock_init(struct node_clock *c, int64_t wall_us, int64_t mono_us);

/* Follows the wall clock. Call a few times a second. */
enum clock_event clock_step(struct node_clock *c, int64_t wall_us, int64_t mono_us);

/* Node time is at least 'us' from now on (the time found in a log or an image). */
void clock_raise_floor(struct node_clock *c, int64_t us, int64_t mono_us);

/* Node time at the monotonic time 'mono_us'. */
static inline int64_t clock_at_us(const struct node_clock *c, int64_t mono_us) {
    return mono_us + atomic_load_explicit(&c->offset_us, memory_order_relaxed);
}

/* Node time now, in microseconds or milliseconds since 1970. */
int64_t clock_now_us(const struct node_clock *c);
static inline int64_t clock_now_ms(const struct node_clock *c) {
    return clock_now_us(c) / 1000;
}

int64_t time_wall_us(void); /* CLOCK_REALTIME */
int64_t time_mono_us(void); /* CLOCK_MONOTONIC */

/* Ticks of a fast counter for durations, and their conversion. How long one takes is measured at start, from the first of these calls to the second; there have to
 * be two milliseconds between them, or the second waits. One thread. */
void time_calibrate_begin(void);
void time_calibrate(void);
uint64_t time_ticks_to_ns(uint64_t ticks);
static inline uint64_t time_ticks(void) {
#if defined(__x86_64__)
    uint32_t lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return (uint64_t)hi << 32 | lo;
#else
    return (uint64_t)time_mono_us() * 1000;
#endif
}

#endif
