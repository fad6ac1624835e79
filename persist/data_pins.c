/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pins: readers for whom log is held back from retention. A pin moves with its reader, without a lock: retention that sees an older place holds
 * more than it must. Who sets one waits for a removal that has begun, so he finds out what is left.
 */
#include "persist/data.h"
#include "server/base/assert.h"
#include "server/base/diag.h"

#include <inttypes.h>
#include <string.h>

enum { PIN_FREE, PIN_HOLDS, PIN_DROPPED };

void pins_init(struct pins *p) {
    memset(p, 0, sizeof(*p));
    pthread_mutex_init(&p->lock, NULL);
}

void pins_fini(struct pins *p) {
    pthread_mutex_destroy(&p->lock);
}

static uint32_t state_of(const struct data *d, uint32_t pin) {
    dc_assert(pin < PINS_MAX);
    return atomic_load_explicit(&d->pins.list[pin].state, memory_order_acquire);
}

enum dc_err data_pin(struct data *d, uint64_t from, uint32_t *pin) {
    uint64_t kept = log_pin(d->log).v;
    pthread_mutex_lock(&d->pins.lock);
    uint32_t i = 0;
    while (i < PINS_MAX && state_of(d, i) != PIN_FREE) {
        i++;
    }
    if (i < PINS_MAX) {
        atomic_store_explicit(&d->pins.list[i].lsn, from != 0 ? from : kept, memory_order_relaxed);
        atomic_store_explicit(&d->pins.list[i].state, PIN_HOLDS, memory_order_release);
    }
    pthread_mutex_unlock(&d->pins.lock);
    if (i == PINS_MAX) {
        log_unpin(d->log);
        return dc_fail(DC_ELIMIT, "the log has %d readers; there can't be more", PINS_MAX);
    }
    *pin = i;
    return DC_OK;
}

void data_move_pin(struct data *d, uint32_t pin, uint64_t lsn) {
    dc_assert(pin < PINS_MAX);
    atomic_store_explicit(&d->pins.list[pin].lsn, lsn, memory_order_relaxed);
}

bool data_pin_holds(const struct data *d, uint32_t pin) {
    return state_of(d, pin) == PIN_HOLDS;
}

void data_unpin(struct data *d, uint32_t pin) {
    pthread_mutex_lock(&d->pins.lock);
    uint32_t before =
        atomic_exchange_explicit(&d->pins.list[pin].state, PIN_FREE, memory_order_acq_rel);
    pthread_mutex_unlock(&d->pins.lock);
    dc_assert(before != PIN_FREE);
    if (before == PIN_HOLDS) {
        log_unpin(d->log);
    }
}

void data_set_pin_limit(struct data *d, uint64_t bytes) {
    atomic_store_explicit(&d->pins.limit, bytes, memory_order_relaxed);
}

/* What it holds, in bytes of log. */
static uint64_t held(const struct data *d, uint64_t lsn) {
    return histories_distance(log_chain(d->log), lsn, log_head(d->log).v);
}

uint64_t pins_hold(struct data *d) {
    uint64_t limit = atomic_load_explicit(&d->pins.limit, memory_order_relaxed);
    uint64_t first = UINT64_MAX;
    pthread_mutex_lock(&d->pins.lock);
    for (uint32_t i = 0; i < PINS_MAX; i++) {
        uint64_t lsn = atomic_load_explicit(&d->pins.list[i].lsn, memory_order_relaxed);
        if (state_of(d, i) != PIN_HOLDS) {
            continue;
        }
        if (limit > 0 && held(d, lsn) > limit) {
            diag(DIAG_WARNING, "data.pin_dropped lsn=%" PRIu64 " bytes=%" PRIu64, lsn,
                 held(d, lsn));
            atomic_store_explicit(&d->pins.list[i].state, PIN_DROPPED, memory_order_release);
            log_unpin(d->log);
        } else {
            first = lsn < first ? lsn : first;
        }
    }
    if (first != UINT64_MAX) {
        log_trim(d->log, first);
    }
    return first;
}

void pins_let_go(struct data *d) {
    pthread_mutex_unlock(&d->pins.lock);
}
