/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cache: a read-through client. GET a key; where it is missing, SET it. One connection; a window of --pipeline GETs
 * is under way at a time, and the SETs for its misses go out together with the next window, so the stream
 * and the order of its operations are the same for every server, and a round trip is paid per window only.
 *
 * A request is for a key that comes only once with a chance of --one-hit-pct, else for one drawn by Zipf. The
 * hit ratio is that of all requests after the warm-up. Ten partial ratios show whether it was steady.
 */
#include "tests/bench/lg_wire.h"
#include "tests/bench/lg_zipf.h"
#include "tests/bench/loadgen.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    WINDOW_MAX = 1024,
    PART_COUNT = 10,
    RSS_EVERY = 64, /* windows */
};

struct tally {
    uint64_t gets;
    uint64_t hits;
};

struct cache {
    const struct lg_opts *o;
    int fd;
    struct lg_rng rng;
    struct lg_zipf *zipf;
    uint64_t request_count; /* drawn so far */
    uint64_t one_hit_next;
    uint64_t rss_max_bytes; /* after the warm-up */
    struct tally parts[PART_COUNT];
    uint64_t window_gets; /* of the window under way */
    uint64_t window_sets;
    uint64_t ids[WINDOW_MAX];
    uint64_t due_count; /* keys to SET with the next window */
    uint64_t due[WINDOW_MAX * 2];
    char *out;
    char *in;
    size_t in_size;
};

static size_t value_len(const struct cache *c, uint64_t id) {
    const struct lg_opts *o = c->o;
    if (o->shift_at != 0 && c->request_count > o->shift_at) {
        return lg_value_len(id, o->shift_min, o->shift_max);
    }
    return lg_value_len(id, o->value_min, o->value_max);
}

static uint64_t id_draw(struct cache *c) {
    const struct lg_opts *o = c->o;
    c->request_count++;
    if (o->drift_every != 0 && c->request_count % o->drift_every == 0) {
        lg_zipf_trade(c->zipf, o->keys * o->drift_pct / 100, &c->rng);
    }
    if (lg_rng_below(&c->rng, 100) < o->one_hit_pct) {
        return LG_ONE_HIT | c->one_hit_next++;
    }
    return lg_zipf_draw(c->zipf, &c->rng);
}

/* SETs that are due, then the GETs of the next window. */
static void window_send(struct cache *c) {
    char *p = c->out;
    c->window_sets = c->due_count;
    for (uint64_t i = 0; i < c->due_count; i++) {
        p = lg_put_set(p, c->due[i], value_len(c, c->due[i]), c->o->ttl_ms);
    }
    c->due_count = 0;
    c->window_gets = 0;
    for (uint64_t i = 0; i < c->o->pipeline && c->request_count < c->o->requests; i++) {
        uint64_t id = id_draw(c);
        if (c->o->set_pct != 0 && lg_rng_below(&c->rng, 100) < c->o->set_pct) {
            c->due[c->due_count++] = id;
        } else {
            c->ids[c->window_gets++] = id;
            p = lg_put_get(p, id);
        }
    }
    lg_send_all(c->fd, c->out, (size_t)(p - c->out));
}

static void get_reply_take(struct cache *c, struct lg_reply reply, uint64_t id) {
    const struct lg_opts *o = c->o;
    bool hit = reply.kind == LG_BULK && lg_value_is_of(id, reply.body, reply.body_len);
    if (c->request_count > o->warmup_requests) {
        uint64_t counted = c->request_count - o->warmup_requests - 1;
        struct tally *part = &c->parts[counted * PART_COUNT / (o->requests - o->warmup_requests)];
        part->gets++;
        part->hits += hit ? 1 : 0;
    }
    if (hit) {
        return;
    }
    if (reply.kind == LG_NULL) {
        c->due[c->due_count++] = id;
    } else if (reply.kind == LG_BULK) {
        lg_die("the value of another key came back");
    } else {
        lg_reply_refuse(reply);
    }
}

static void window_receive(struct cache *c) {
    uint64_t sets_left = c->window_sets;
    uint64_t get_index = 0;
    size_t filled = 0;
    size_t scanned = 0;
    while (sets_left != 0 || get_index < c->window_gets) {
        struct lg_reply reply = lg_reply_scan(c->in + scanned, filled - scanned);
        if (reply.kind == LG_PARTIAL) {
            filled += lg_recv_some(c->fd, c->in + filled, c->in_size - filled);
            continue;
        }
        scanned += reply.len;
        if (sets_left == 0) {
            get_reply_take(c, reply, c->ids[get_index++]);
        } else if (reply.kind == LG_STATUS) {
            sets_left--;
        } else {
            lg_reply_refuse(reply);
        }
    }
}

static void pace(const struct cache *c, uint64_t start_ns) {
    if (c->o->rate != 0) {
        lg_sleep_until_ns(start_ns + c->request_count * UINT64_C(1000000000) / c->o->rate);
    }
}

static void stream_run(struct cache *c) {
    uint64_t start_ns = lg_now_ns();
    for (uint64_t windows = 0; c->request_count < c->o->requests; windows++) {
        window_send(c);
        window_receive(c);
        if (windows % RSS_EVERY == 0 && c->request_count > c->o->warmup_requests) {
            uint64_t rss_bytes = lg_server_rss_bytes(c->o->pid);
            c->rss_max_bytes = rss_bytes > c->rss_max_bytes ? rss_bytes : c->rss_max_bytes;
        }
        pace(c, start_ns);
    }
}

static void result_print(const struct cache *c, double seconds) {
    struct tally all = {0};
    (void)fputs("{\"parts\": [", stdout);
    for (unsigned i = 0; i < PART_COUNT; i++) {
        const struct tally *t = &c->parts[i];
        all.gets += t->gets;
        all.hits += t->hits;
        (void)fprintf(stdout, "%s%.2f", i == 0 ? "" : ", ",
                      t->gets == 0 ? 0.0 : 100.0 * (double)t->hits / (double)t->gets);
    }
    (void)fprintf(stdout,
                  "], \"requests\": %" PRIu64 ", \"gets\": %" PRIu64 ", \"hits\": %" PRIu64
                  ", \"hit_pct\": %.3f, \"seconds\": %.3f, \"requests_per_s\": %.0f, "
                  "\"rss_max_bytes\": %" PRIu64 "}\n",
                  c->request_count, all.gets, all.hits,
                  all.gets == 0 ? 0.0 : 100.0 * (double)all.hits / (double)all.gets, seconds,
                  (double)c->request_count / seconds, c->rss_max_bytes);
}

void lg_cache_run(const struct lg_opts *o) {
    struct cache *c = lg_grab(sizeof(*c));
    if (o->warmup_requests >= o->requests || o->pipeline > WINDOW_MAX) {
        lg_die("--warmup-requests must be below --requests, --pipeline at most %d", WINDOW_MAX);
    }
    c->o = o;
    lg_rng_seed(&c->rng, o->seed);
    c->zipf = lg_zipf_create(o->keys, o->zipf, &c->rng);
    c->in_size = o->pipeline * 2 * LG_REQUEST_MAX;
    c->in = lg_grab(c->in_size);
    c->out = lg_grab(o->pipeline * 3 * LG_REQUEST_MAX);
    c->fd = lg_connect(o->port, 0);
    uint64_t start_ns = lg_now_ns();
    stream_run(c);
    result_print(c, (double)(lg_now_ns() - start_ns) / 1e9);
}
