/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * expiry: fresh keys with the TTL --ttl-ms at --rate per second for --seconds, and what of them is still there when their
 * time has passed. One connection; each millisecond the SETs that are due go out together, and every 500 ms a
 * DBSIZE behind them. How many of the keys are alive at that moment is known from the times at which the
 * batches were answered; a batch that may be on either side of its end counts as alive.
 */
#include "tests/bench/lg_wire.h"
#include "tests/bench/loadgen.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    TICK_NS = 1000000,
    BATCH_MAX = 1024,
    SAMPLES_MAX = 4096,
};

struct batch {
    uint64_t answered_ns;
    uint64_t key_count; /* SETs answered up to and with this batch */
};

struct sample {
    double at_s;
    uint64_t resident;
    uint64_t alive;
    uint64_t rss_bytes;
};

struct expiry {
    const struct lg_opts *o;
    int fd;
    uint64_t start_ns;
    uint64_t key_count;
    struct batch *batches;
    uint64_t batch_count;
    uint64_t batches_size;
    uint64_t expired_batches; /* the first so many batches are past their end */
    struct sample samples[SAMPLES_MAX];
    uint64_t sample_count;
    char *out;
    char *in;
    size_t in_size;
};

/* Replies to `sets` SETs, then, if asked for, an integer. */
static uint64_t replies_receive(struct expiry *e, uint64_t sets, bool integer) {
    size_t filled = 0;
    size_t scanned = 0;
    uint64_t result = 0;
    while (sets != 0 || integer) {
        struct lg_reply reply = lg_reply_scan(e->in + scanned, filled - scanned);
        if (reply.kind == LG_PARTIAL) {
            filled += lg_recv_some(e->fd, e->in + filled, e->in_size - filled);
            continue;
        }
        scanned += reply.len;
        if (sets != 0 && reply.kind == LG_STATUS) {
            sets--;
        } else if (sets == 0 && reply.kind == LG_INTEGER) {
            result = reply.integer;
            integer = false;
        } else {
            lg_reply_refuse(reply);
        }
    }
    return result;
}

static void batch_run(struct expiry *e, uint64_t sets) {
    char *p = e->out;
    const struct lg_opts *o = e->o;
    for (uint64_t i = 0; i < sets; i++) {
        uint64_t id = e->key_count++;
        p = lg_put_set(p, id, lg_value_len(id, o->value_min, o->value_max), o->ttl_ms);
    }
    lg_send_all(e->fd, e->out, (size_t)(p - e->out));
    (void)replies_receive(e, sets, false);
    if (e->batch_count == e->batches_size) {
        lg_die("more batches than room was made for");
    }
    e->batches[e->batch_count++] =
        (struct batch){.answered_ns = lg_now_ns(), .key_count = e->key_count};
}

static uint64_t alive_count(struct expiry *e, uint64_t now_ns) {
    uint64_t ttl_ns = e->o->ttl_ms * UINT64_C(1000000);
    while (e->expired_batches < e->batch_count &&
           e->batches[e->expired_batches].answered_ns + ttl_ns < now_ns) {
        e->expired_batches++;
    }
    uint64_t gone = e->expired_batches == 0 ? 0 : e->batches[e->expired_batches - 1].key_count;
    return e->key_count - gone;
}

static void sample_take(struct expiry *e) {
    static const char dbsize[] = "*1\r\n$6\r\nDBSIZE\r\n";
    if (e->sample_count == SAMPLES_MAX) {
        return;
    }
    struct sample *s = &e->samples[e->sample_count++];
    uint64_t now_ns = lg_now_ns();
    lg_send_all(e->fd, dbsize, sizeof(dbsize) - 1);
    s->resident = replies_receive(e, 0, true);
    s->alive = alive_count(e, now_ns);
    s->rss_bytes = lg_server_rss_bytes(e->o->pid);
    s->at_s = (double)(now_ns - e->start_ns) / 1e9;
}

static void result_print(const struct expiry *e, double seconds) {
    (void)fprintf(stdout, "{\"sets\": %" PRIu64 ", \"sets_per_s\": %.0f, \"samples\": [",
                  e->key_count, (double)e->key_count / seconds);
    for (uint64_t i = 0; i < e->sample_count; i++) {
        const struct sample *s = &e->samples[i];
        (void)fprintf(stdout,
                      "%s{\"at_s\": %.3f, \"resident\": %" PRIu64 ", \"alive\": %" PRIu64
                      ", \"rss_bytes\": %" PRIu64 "}",
                      i == 0 ? "" : ", ", s->at_s, s->resident, s->alive, s->rss_bytes);
    }
    (void)fputs("]}\n", stdout);
}

void lg_expiry_run(const struct lg_opts *o) {
    struct expiry *e = lg_grab(sizeof(*e));
    if (o->rate == 0 || o->ttl_ms == 0) {
        lg_die("--rate and --ttl-ms are needed");
    }
    e->o = o;
    e->batches_size = o->rate + (uint64_t)(o->seconds * 1e9) / TICK_NS * 2;
    e->batches = lg_grab(e->batches_size * sizeof(*e->batches));
    e->in_size = (size_t)BATCH_MAX * 8 + 64;
    e->in = lg_grab(e->in_size);
    e->out = lg_grab((size_t)BATCH_MAX * LG_REQUEST_MAX);
    e->fd = lg_connect(o->port, 0);
    e->start_ns = lg_now_ns();
    uint64_t end_ns = e->start_ns + (uint64_t)(o->seconds * 1e9);
    uint64_t sample_ns = e->start_ns + UINT64_C(500000000);
    for (uint64_t now_ns = e->start_ns; now_ns < end_ns; now_ns = lg_now_ns()) {
        uint64_t due =
            (uint64_t)((double)(now_ns - e->start_ns) / 1e9 * (double)o->rate) - e->key_count;
        if (due != 0) {
            batch_run(e, due < BATCH_MAX ? due : BATCH_MAX);
        }
        if (now_ns >= sample_ns) {
            sample_take(e);
            sample_ns += UINT64_C(500000000);
        }
        if (due < BATCH_MAX) {
            lg_sleep_until_ns(now_ns + TICK_NS);
        }
    }
    result_print(e, (double)(lg_now_ns() - e->start_ns) / 1e9);
}
