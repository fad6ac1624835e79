/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pace: --rate requests per second, whatever the server does, and how long each took. A request has a time at which it
 * is due and its latency counts from there, so a server that stalls is charged for all that should have been
 * sent meanwhile. --pipeline requests are due together and go out on one of --conns connections in turn.
 *
 * Lines on standard input name phases: `mark NAME` begins one, the end of input ends the run. A request belongs to the
 * phase in which it was due; those before the first phase aren't counted. The phases are printed at the end.
 */
#include "tests/bench/lg_wire.h"
#include "tests/bench/loadgen.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    PHASES_MAX = 64,
    NAME_SIZE = 32,
    EVENTS_MAX = 256,
    PENDING_MAX =
        4096, /* requests under way on a connection; beyond them sending waits, the clock doesn't */
    IN_SIZE = 1 << 16,
    SUB_BITS = 7, /* a latency is known to 1/128 */
    BUCKET_COUNT = (44 - SUB_BITS) << SUB_BITS,
    FULL_WAIT_NS = 1000000,
};

struct phase {
    char name[NAME_SIZE];
    uint64_t start_ns;
    uint64_t end_ns;
    uint64_t ops;
    uint64_t misses;
    uint64_t worst_ns;
    uint64_t buckets[BUCKET_COUNT];
};

struct pending {
    uint64_t due_ns;
    struct phase *phase; /* NULL: not counted */
};

struct conn {
    int fd;
    uint64_t sent; /* requests; the difference to `answered` is under way */
    uint64_t answered;
    size_t filled;
    char in[IN_SIZE];
    struct pending pending[PENDING_MAX];
};

struct pace {
    const struct lg_opts *o;
    int ep;
    struct conn *conns;
    char *out;
    struct lg_rng rng;
    uint64_t start_ns;
    uint64_t due_count; /* requests sent so far; the next one is due at due_ns(due_count) */
    uint64_t phase_count;
    struct phase *phases;
    char line[256];
    size_t line_len;
    bool ended;
};

/* --- latencies ------------------------------------------------------------------------------------------ */

static size_t bucket_of(uint64_t ns) {
    if (ns < (1U << SUB_BITS)) {
        return (size_t)ns;
    }
    unsigned shift = (unsigned)(63 - __builtin_clzll(ns)) - SUB_BITS;
    size_t bucket = ((size_t)(shift + 1) << SUB_BITS) + ((ns >> shift) & ((1U << SUB_BITS) - 1));
    return bucket < BUCKET_COUNT ? bucket : BUCKET_COUNT - 1;
}

/* The upper end of a bucket. */
static uint64_t bucket_end_ns(size_t bucket) {
    if (bucket < (1U << SUB_BITS)) {
        return bucket;
    }
    unsigned shift = (unsigned)(bucket >> SUB_BITS) - 1;
    uint64_t step = (bucket & ((1U << SUB_BITS) - 1)) + (1U << SUB_BITS);
    return ((step + 1) << shift) - 1;
}

static double quantile_us(const struct phase *p, double share) {
    uint64_t wanted = (uint64_t)((double)p->ops * share);
    uint64_t seen = 0;
    for (size_t i = 0; i < BUCKET_COUNT; i++) {
        seen += p->buckets[i];
        if (seen > wanted) {
            uint64_t ns = bucket_end_ns(i);
            return (double)(ns < p->worst_ns ? ns : p->worst_ns) / 1e3;
        }
    }
    return (double)p->worst_ns / 1e3;
}

static void latency_count(const struct pending *r, bool miss, uint64_t now_ns) {
    struct phase *p = r->phase;
    uint64_t ns = now_ns - r->due_ns;
    if (p == NULL) {
        return;
    }
    p->ops++;
    p->misses += miss ? 1 : 0;
    p->worst_ns = ns > p->worst_ns ? ns : p->worst_ns;
    p->buckets[bucket_of(ns)]++;
}

/* --- phases --------------------------------------------------------------------------------------------- */

static struct phase *phase_now(struct pace *s) {
    return s->phase_count == 0 ? NULL : &s->phases[s->phase_count - 1];
}

static void phase_end(struct pace *s) {
    struct phase *p = phase_now(s);
    if (p != NULL) {
        p->end_ns = lg_now_ns();
    }
}

static void line_obey(struct pace *s, const char *line) {
    if (s->phase_count == PHASES_MAX || strncmp(line, "mark ", 5) != 0 ||
        strlen(line + 5) >= NAME_SIZE || strpbrk(line, "\"\\") != NULL) {
        lg_die("not understood, or one phase too many: %s", line);
    }
    phase_end(s);
    struct phase *p = &s->phases[s->phase_count++];
    memcpy(p->name, line + 5, strlen(line + 5) + 1);
    p->start_ns = lg_now_ns();
}

static void input_readable(struct pace *s) {
    ssize_t len = read(STDIN_FILENO, s->line + s->line_len, sizeof(s->line) - s->line_len);
    if (len <= 0) {
        s->ended = true;
        return;
    }
    s->line_len += (size_t)len;
    char *end;
    while ((end = memchr(s->line, '\n', s->line_len)) != NULL) {
        *end = '\0';
        line_obey(s, s->line);
        size_t used = (size_t)(end - s->line) + 1;
        memmove(s->line, end + 1, s->line_len - used);
        s->line_len -= used;
    }
    if (s->line_len == sizeof(s->line)) {
        lg_die("a line on standard input is too long");
    }
}

/* --- requests and replies ------------------------------------------------------------------------------- */

static uint64_t due_ns(const struct pace *s) {
    return s->start_ns + (uint64_t)((double)s->due_count * 1e9 / (double)s->o->rate);
}

static char *request_put(struct pace *s, char *p) {
    const struct lg_opts *o = s->o;
    uint64_t id = o->keys_from + lg_rng_below(&s->rng, o->keys - o->keys_from);
    if (lg_rng_below(&s->rng, 100) < o->get_pct) {
        return lg_put_get(p, id);
    }
    return lg_put_set(p, id, lg_value_len(id, o->value_min, o->value_max), o->ttl_ms);
}

/* Send what is due. False: the connection whose turn it is has too many requests under way. */
static bool due_send(struct pace *s) {
    uint64_t burst = s->o->pipeline;
    for (uint64_t due = due_ns(s); due <= lg_now_ns(); due = due_ns(s)) {
        struct conn *c = &s->conns[s->due_count / burst % s->o->conns];
        char *p = s->out;
        if (c->sent + burst - c->answered > PENDING_MAX) {
            return false;
        }
        for (uint64_t i = 0; i < burst; i++) {
            p = request_put(s, p);
            c->pending[c->sent++ % PENDING_MAX] =
                (struct pending){.due_ns = due, .phase = phase_now(s)};
        }
        lg_send_all(c->fd, s->out, (size_t)(p - s->out));
        s->due_count += burst;
    }
    return true;
}

static void conn_readable(struct conn *c) {
    size_t scanned = 0;
    c->filled += lg_recv_some(c->fd, c->in + c->filled, IN_SIZE - c->filled);
    uint64_t now_ns = lg_now_ns();
    while (scanned < c->filled) {
        struct lg_reply reply = lg_reply_scan(c->in + scanned, c->filled - scanned);
        if (reply.kind == LG_PARTIAL) {
            break;
        }
        if ((reply.kind != LG_BULK && reply.kind != LG_NULL && reply.kind != LG_STATUS) ||
            c->answered == c->sent) {
            lg_reply_refuse(reply);
        }
        latency_count(&c->pending[c->answered++ % PENDING_MAX], reply.kind == LG_NULL, now_ns);
        scanned += reply.len;
    }
    memmove(c->in, c->in + scanned, c->filled - scanned);
    c->filled -= scanned;
}

/* Until something comes or the next request is due. */
static void wait_and_receive(struct pace *s, bool may_send) {
    struct epoll_event events[EVENTS_MAX];
    uint64_t now_ns = lg_now_ns();
    uint64_t wait_ns = due_ns(s) > now_ns ? due_ns(s) - now_ns : 0;
    if (!may_send) {
        wait_ns = FULL_WAIT_NS;
    }
    struct timespec wait = {.tv_sec = (time_t)(wait_ns / UINT64_C(1000000000)),
                            .tv_nsec = (long)(wait_ns % UINT64_C(1000000000))};
    int event_count = epoll_pwait2(s->ep, events, EVENTS_MAX, &wait, NULL);
    if (event_count < 0 && errno != EINTR) {
        lg_die("epoll_pwait2: %s", strerror(errno));
    }
    for (int i = 0; i < event_count; i++) {
        if (events[i].data.ptr == NULL) {
            input_readable(s);
        } else {
            conn_readable(events[i].data.ptr);
        }
    }
}

/* --- life ----------------------------------------------------------------------------------------------- */

static void watch(struct pace *s, int fd, struct conn *c) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(s->ep, EPOLL_CTL_ADD, fd, &event) != 0) {
        lg_die("epoll_ctl: %s", strerror(errno));
    }
}

static void result_print(const struct pace *s) {
    (void)fputs("{\"phases\": [", stdout);
    for (uint64_t i = 0; i < s->phase_count; i++) {
        const struct phase *p = &s->phases[i];
        (void)fprintf(
            stdout,
            "%s{\"name\": \"%s\", \"seconds\": %.3f, \"ops\": %" PRIu64 ", \"misses\": %" PRIu64
            ", \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"worst_us\": %.1f}",
            i == 0 ? "" : ", ", p->name, (double)(p->end_ns - p->start_ns) / 1e9, p->ops, p->misses,
            quantile_us(p, 0.5), quantile_us(p, 0.99), quantile_us(p, 0.999),
            (double)p->worst_ns / 1e3);
    }
    (void)fputs("]}\n", stdout);
}

void lg_pace_run(const struct lg_opts *o) {
    struct pace *s = lg_grab(sizeof(*s));
    if (o->rate == 0 || o->pipeline > PENDING_MAX / 2) {
        lg_die("--rate is needed");
    }
    /* The generator's own wait for a core is no latency of the server. Where that isn't allowed, so be it. */
    (void)setpriority(PRIO_PROCESS, 0, -20);
    (void)prctl(PR_SET_TIMERSLACK, 1UL);
    s->o = o;
    s->ep = epoll_create1(EPOLL_CLOEXEC);
    if (s->ep < 0) {
        lg_die("epoll_create1: %s", strerror(errno));
    }
    s->phases = lg_grab(PHASES_MAX * sizeof(*s->phases));
    s->conns = lg_grab(o->conns * sizeof(*s->conns));
    s->out = lg_grab(o->pipeline * LG_REQUEST_MAX);
    lg_rng_seed(&s->rng, o->seed);
    watch(s, STDIN_FILENO, NULL);
    for (uint64_t i = 0; i < o->conns; i++) {
        s->conns[i].fd = lg_connect(o->port, 0);
        watch(s, s->conns[i].fd, &s->conns[i]);
    }
    s->start_ns = lg_now_ns();
    while (!s->ended) {
        wait_and_receive(s, due_send(s));
    }
    phase_end(s);
    result_print(s);
}
