/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Node time = monotonic time + offset, and the offset only grows: that alone gives I1, on every thread, without a lock.
 *
 *   wall - node       what clock_step() does
 *   0 .. small        the offset follows at once
 *   below 0           nothing: the node clock runs on at the monotonic rate, ahead of the wall clock
 *   above small       waits for the grace time; then the offset grows by as much as time passes, so that the node
 *                     clock runs at twice the rate until it is small
 */
#include "server/base/time.h"

#include <time.h>

__extension__ typedef unsigned __int128 uint128_t;

enum { SMALL_STEP_US = CLOCK_SMALL_STEP_MS * 1000, JUMP_GRACE_US = CLOCK_JUMP_GRACE_MS * 1000 };

/* clock_step() and clock_raise_floor() may come from two threads. */
static void raise_offset(struct node_clock *c, int64_t offset_us) {
    int64_t now = atomic_load_explicit(&c->offset_us, memory_order_relaxed);
    while (now < offset_us &&
           !atomic_compare_exchange_weak_explicit(&c->offset_us, &now, offset_us,
                                                  memory_order_relaxed, memory_order_relaxed)) {}
}

void clock_init(struct node_clock *c, int64_t wall_us, int64_t mono_us) {
    atomic_init(&c->offset_us, wall_us - mono_us);
    c->last_mono_us = mono_us;
    c->jump_since_us = 0;
    c->behind = false;
}

/* The wall clock is far ahead, by 'ahead_us': believed when it has lasted, and then slowly. */
static enum clock_event step_jump(struct node_clock *c, int64_t ahead_us, int64_t mono_us,
                                  int64_t passed_us) {
    c->behind = false;
    if (c->jump_since_us == 0) {
        c->jump_since_us = mono_us;
        return CLOCK_JUMPED_FORWARD;
    }
    if (mono_us - c->jump_since_us >= JUMP_GRACE_US) {
        int64_t extra_us = passed_us < ahead_us ? passed_us : ahead_us;
        int64_t offset_us = atomic_load_explicit(&c->offset_us, memory_order_relaxed);
        raise_offset(c, offset_us + extra_us);
    }
    return CLOCK_STEADY;
}

enum clock_event clock_step(struct node_clock *c, int64_t wall_us, int64_t mono_us) {
    int64_t ahead_us = wall_us - clock_at_us(c, mono_us);
    int64_t passed_us = mono_us - c->last_mono_us;
    c->last_mono_us = mono_us;
    if (ahead_us > SMALL_STEP_US) {
        return step_jump(c, ahead_us, mono_us, passed_us);
    }
    bool jump_over = c->jump_since_us != 0;
    c->jump_since_us = 0;
    if (ahead_us < -SMALL_STEP_US) {
        bool told = c->behind;
        c->behind = true;
        return told ? CLOCK_STEADY : CLOCK_STEPPED_BACK;
    }
    raise_offset(c, wall_us - mono_us);
    /* Between the two bounds a clock that was behind still is. */
    bool caught_up = jump_over || (c->behind && ahead_us >= 0);
    c->behind = c->behind && ahead_us < 0;
    return caught_up ? CLOCK_CAUGHT_UP : CLOCK_STEADY;
}

void clock_raise_floor(struct node_clock *c, int64_t us, int64_t mono_us) {
    raise_offset(c, us - mono_us);
}

int64_t clock_now_us(const struct node_clock *c) {
    return clock_at_us(c, time_mono_us());
}

static int64_t read_ns(clockid_t id) {
    struct timespec ts;
    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t time_wall_us(void) {
    return read_ns(CLOCK_REALTIME) / 1000;
}

int64_t time_mono_us(void) {
    return read_ns(CLOCK_MONOTONIC) / 1000;
}

#if defined(__x86_64__)

enum { CALIBRATION_NS = 2 * 1000 * 1000, READ_TRIES = 5 };

/* Nanoseconds per tick, as a fraction of 2^32. A plausible rate until it is measured. */
static _Atomic uint64_t ns_per_tick = (uint64_t)1 << 31;

/* One moment by both. */
struct moment {
    int64_t ns; /* 0 = none */
    uint64_t ticks;
};
static struct moment first;

/* Of some tries the one that took the least time: nobody took the core away in the middle of it. */
static struct moment read_moment(void) {
    struct moment best = {0};
    uint64_t shortest = UINT64_MAX;
    for (int i = 0; i < READ_TRIES; i++) {
        uint64_t before = time_ticks();
        int64_t ns = read_ns(CLOCK_MONOTONIC);
        uint64_t took = time_ticks() - before;
        if (took < shortest) {
            shortest = took;
            best = (struct moment){ns, before + took / 2};
        }
    }
    return best;
}

void time_calibrate_begin(void) {
    first = read_moment();
}

void time_calibrate(void) {
    if (first.ns == 0) {
        time_calibrate_begin();
    }
    int64_t left_ns = first.ns + CALIBRATION_NS - read_ns(CLOCK_MONOTONIC);
    if (left_ns > 0) {
        const struct timespec pause = {.tv_nsec = left_ns};
        nanosleep(&pause, NULL);
    }
    struct moment last = read_moment();
    uint64_t ns = (uint64_t)(last.ns - first.ns), ticks = last.ticks - first.ticks;
    atomic_store_explicit(&ns_per_tick, (uint64_t)(((uint128_t)ns << 32) / (ticks > 0 ? ticks : 1)),
                          memory_order_relaxed);
}

uint64_t time_ticks_to_ns(uint64_t ticks) {
    uint64_t rate = atomic_load_explicit(&ns_per_tick, memory_order_relaxed);
    return (uint64_t)((uint128_t)ticks * rate >> 32);
}

#else

void time_calibrate_begin(void) {}
void time_calibrate(void) {}

uint64_t time_ticks_to_ns(uint64_t ticks) {
    return ticks;
}

#endif
