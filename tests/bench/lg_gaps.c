/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * gaps: --threads threads that do nothing but read the clock, for --seconds. Where one of them sees it jump, the machine took its core away: no program on it can
 * answer sooner. Prints the longest jump, and the share of the time that went into those of a fifth of a millisecond and more.
 */
#include "tests/bench/lg_wire.h"
#include "tests/bench/loadgen.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>

enum { THREADS_MAX = 64, GAP_NS = 200000 };

struct watcher {
    pthread_t thread;
    uint64_t span_ns;
    uint64_t worst_ns, lost_ns;
};

static void *watch(void *arg) {
    struct watcher *w = arg;
    uint64_t start_ns = lg_now_ns();
    for (uint64_t last_ns = start_ns, now_ns; last_ns - start_ns < w->span_ns; last_ns = now_ns) {
        now_ns = lg_now_ns();
        uint64_t gap_ns = now_ns - last_ns;
        w->lost_ns += gap_ns >= GAP_NS ? gap_ns : 0;
        w->worst_ns = gap_ns > w->worst_ns ? gap_ns : w->worst_ns;
    }
    return NULL;
}

void lg_gaps_run(const struct lg_opts *o) {
    struct watcher watchers[THREADS_MAX] = {0};
    uint64_t worst_ns = 0, lost_ns = 0;
    if (o->threads > THREADS_MAX) {
        lg_die("more than %d threads", THREADS_MAX);
    }
    for (uint64_t i = 0; i < o->threads; i++) {
        watchers[i].span_ns = (uint64_t)(o->seconds * 1e9);
        if (pthread_create(&watchers[i].thread, NULL, watch, &watchers[i]) != 0) {
            lg_die("no thread is to be had");
        }
    }
    for (uint64_t i = 0; i < o->threads; i++) {
        (void)pthread_join(watchers[i].thread, NULL);
        worst_ns = watchers[i].worst_ns > worst_ns ? watchers[i].worst_ns : worst_ns;
        lost_ns += watchers[i].lost_ns;
    }
    (void)fprintf(stdout, "{\"worst_us\": %" PRIu64 ", \"lost_pct\": %.3f}\n", worst_ns / 1000,
                  100.0 * (double)lost_ns / (o->seconds * 1e9 * (double)o->threads));
}
