/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rtt: one connection, one SET under way, for --seconds after --warmup-s: how long each took. With --wait-replicas a WAIT goes with each SET, in
 * the same send; the time is that until the last reply. With --ack-replicas the SET's own reply waits.
 */
#include "tests/bench/lg_wire.h"
#include "tests/bench/loadgen.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { SAMPLES_MAX = 1 << 22, IN_SIZE = 4096, WAIT_SIZE = 64 };

/* One request. Its end, WAIT included. */
static char *request_put(const struct lg_opts *o, struct lg_rng *rng, char *p) {
    uint64_t id = lg_rng_below(rng, o->keys);
    p = lg_put_set(p, id, lg_value_len(id, o->value_min, o->value_max), 0);
    if (o->wait_replicas > 0) {
        p += snprintf(p, WAIT_SIZE, "*3\r\n$4\r\nWAIT\r\n$1\r\n%d\r\n$4\r\n5000\r\n",
                      (int)o->wait_replicas);
    }
    return p;
}

/* WAIT must say that they have it. */
static void replies_take(const struct lg_opts *o, int fd) {
    char in[IN_SIZE];
    size_t filled = 0;
    size_t scanned = 0;
    uint64_t awaited = o->wait_replicas > 0 ? 2 : 1;
    for (uint64_t done = 0; done < awaited;) {
        struct lg_reply reply = lg_reply_scan(in + scanned, filled - scanned);
        if (reply.kind == LG_PARTIAL) {
            filled += lg_recv_some(fd, in + filled, sizeof(in) - filled);
            continue;
        }
        if (reply.kind != (done == 0 ? LG_STATUS : LG_INTEGER) ||
            (done == 1 && reply.integer < o->wait_replicas)) {
            lg_reply_refuse(reply);
            lg_die("WAIT: too few replicas");
        }
        scanned += reply.len;
        done++;
    }
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void lg_rtt_run(const struct lg_opts *o) {
    char out[LG_REQUEST_MAX + WAIT_SIZE];
    uint32_t *samples = lg_grab(SAMPLES_MAX * sizeof(*samples));
    struct lg_rng rng;
    size_t count = 0;
    lg_rng_seed(&rng, o->seed);
    int fd = lg_connect_acked(o->port, o->ack_replicas);
    uint64_t begin_ns = lg_now_ns() + (uint64_t)(o->warmup_s * 1e9);
    uint64_t end_ns = begin_ns + (uint64_t)(o->seconds * 1e9);
    for (uint64_t now_ns = lg_now_ns(); now_ns < end_ns && count < SAMPLES_MAX;) {
        uint64_t sent_ns = now_ns;
        lg_send_all(fd, out, (size_t)(request_put(o, &rng, out) - out));
        replies_take(o, fd);
        now_ns = lg_now_ns();
        if (sent_ns >= begin_ns) {
            samples[count++] = (uint32_t)(now_ns - sent_ns);
        }
    }
    if (count == 0) {
        lg_die("no reply in the measured window");
    }
    qsort(samples, count, sizeof(*samples), compare);
    uint32_t p50_ns = samples[count / 2];
    uint32_t p99_ns = samples[count * 99 / 100];
    (void)fprintf(stdout, "{\"ops\": %zu, \"misses\": 0, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
                  count, p50_ns / 1e3, p99_ns / 1e3);
}
