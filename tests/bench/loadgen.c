/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dcache-loadgen MODE [--option value ...]: load for the benchmark; see tests/bench/README.md.
 *
 *   loadgen.c     this: options, clocks, the table of modes
 *   lg_wire.c     keys, values, requests, replies, sockets
 *   lg_zipf.c     sampling of a Zipf distribution, places that trade
 *   lg_mix.c      fill: all keys once; mix: GET and SET over many connections
 *   lg_cache.c    cache: a read-through stream and its hit ratio
 *   lg_expiry.c   expiry: fresh keys with a TTL at a steady rate
 *   lg_gaps.c     gaps: how long the machine takes its cores away
 *   lg_idle.c     idle: connections that do nothing
 *   lg_pace.c     pace: a steady rate, and how long each request took
 *   lg_rtt.c      rtt: one connection that waits for each reply
 */
#include "tests/bench/loadgen.h"

#include "tests/bench/lg_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum option_type { OPT_COUNT, OPT_REAL };

struct option {
    const char *name;
    enum option_type type;
    size_t offset;
};

/* clang-format off */
static const struct option options[] = {
    /* name              type       field */
    {"--port",            OPT_COUNT, offsetof(struct lg_opts, port)},
    {"--pid",             OPT_COUNT, offsetof(struct lg_opts, pid)},
    {"--conns",           OPT_COUNT, offsetof(struct lg_opts, conns)},
    {"--threads",         OPT_COUNT, offsetof(struct lg_opts, threads)},
    {"--pipeline",        OPT_COUNT, offsetof(struct lg_opts, pipeline)},
    {"--seed",            OPT_COUNT, offsetof(struct lg_opts, seed)},
    {"--warmup-s",        OPT_REAL,  offsetof(struct lg_opts, warmup_s)},
    {"--seconds",         OPT_REAL,  offsetof(struct lg_opts, seconds)},
    {"--keys",            OPT_COUNT, offsetof(struct lg_opts, keys)},
    {"--keys-from",       OPT_COUNT, offsetof(struct lg_opts, keys_from)},
    {"--value-min",       OPT_COUNT, offsetof(struct lg_opts, value_min)},
    {"--value-max",       OPT_COUNT, offsetof(struct lg_opts, value_max)},
    {"--ttl-ms",          OPT_COUNT, offsetof(struct lg_opts, ttl_ms)},
    {"--get-pct",         OPT_COUNT, offsetof(struct lg_opts, get_pct)},
    {"--values",          OPT_COUNT, offsetof(struct lg_opts, values)},
    {"--requests",        OPT_COUNT, offsetof(struct lg_opts, requests)},
    {"--warmup-requests", OPT_COUNT, offsetof(struct lg_opts, warmup_requests)},
    {"--zipf",            OPT_REAL,  offsetof(struct lg_opts, zipf)},
    {"--one-hit-pct",     OPT_COUNT, offsetof(struct lg_opts, one_hit_pct)},
    {"--drift-pct",       OPT_COUNT, offsetof(struct lg_opts, drift_pct)},
    {"--drift-every",     OPT_COUNT, offsetof(struct lg_opts, drift_every)},
    {"--shift-at",        OPT_COUNT, offsetof(struct lg_opts, shift_at)},
    {"--shift-min",       OPT_COUNT, offsetof(struct lg_opts, shift_min)},
    {"--shift-max",       OPT_COUNT, offsetof(struct lg_opts, shift_max)},
    {"--set-pct",         OPT_COUNT, offsetof(struct lg_opts, set_pct)},
    {"--rate",            OPT_COUNT, offsetof(struct lg_opts, rate)},
    {"--ack-replicas",    OPT_COUNT, offsetof(struct lg_opts, ack_replicas)},
    {"--wait-replicas",   OPT_COUNT, offsetof(struct lg_opts, wait_replicas)},
};

static const struct mode {
    const char *name;
    void (*run)(const struct lg_opts *o);
} modes[] = {
    {"fill",   lg_fill_run},
    {"mix",    lg_mix_run},
    {"cache",  lg_cache_run},
    {"expiry", lg_expiry_run},
    {"gaps",   lg_gaps_run},
    {"idle",   lg_idle_run},
    {"pace",   lg_pace_run},
    {"rtt",    lg_rtt_run},
};
/* clang-format on */

enum {
    OPTION_COUNT = sizeof(options) / sizeof(options[0]),
    MODE_COUNT = sizeof(modes) / sizeof(modes[0]),
};

void lg_die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    (void)fputs("loadgen: ", stderr);
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
    _exit(2);
}

void *lg_grab(size_t len) {
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        lg_die("mmap of %zu bytes: %s", len, strerror(errno));
    }
    return p;
}

static uint64_t clock_ns(clockid_t clock) {
    struct timespec ts;
    if (clock_gettime(clock, &ts) != 0) {
        lg_die("clock_gettime: %s", strerror(errno));
    }
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

uint64_t lg_now_ns(void) {
    return clock_ns(CLOCK_MONOTONIC);
}

void lg_sleep_until_ns(uint64_t deadline_ns) {
    struct timespec ts = {
        .tv_sec = (time_t)(deadline_ns / UINT64_C(1000000000)),
        .tv_nsec = (long)(deadline_ns % UINT64_C(1000000000)),
    };
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR) {}
}

uint64_t lg_own_cpu_ns(void) {
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

uint64_t lg_server_cpu_ns(uint64_t pid) {
    clockid_t clock;
    if (pid == 0) {
        return 0;
    }
    int rc = clock_getcpuclockid((pid_t)pid, &clock);
    if (rc != 0) {
        lg_die("CPU clock of process %d: %s", (int)pid, strerror(rc));
    }
    return clock_ns(clock);
}

uint64_t lg_server_rss_bytes(uint64_t pid) {
    char path[64];
    char text[128];
    uint64_t size_pages = 0;
    uint64_t rss_pages = 0;
    if (pid == 0) {
        return 0;
    }
    (void)snprintf(path, sizeof(path), "/proc/%" PRIu64 "/statm", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (len <= 0) {
        lg_die("%s: %s", path, strerror(errno));
    }
    (void)close(fd);
    text[len] = '\0';
    if (sscanf(text, "%" SCNu64 " %" SCNu64, &size_pages, &rss_pages) != 2) {
        lg_die("%s: %s", path, text);
    }
    return rss_pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void option_set(struct lg_opts *o, const char *name, const char *text) {
    char *end = NULL;
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (strcmp(name, options[i].name) != 0) {
            continue;
        }
        char *field = (char *)o + options[i].offset;
        if (options[i].type == OPT_COUNT) {
            uint64_t count = strtoull(text, &end, 10);
            memcpy(field, &count, sizeof(count));
        } else {
            double real = strtod(text, &end);
            memcpy(field, &real, sizeof(real));
        }
        if (end == text || *end != '\0') {
            lg_die("%s: not a number: %s", name, text);
        }
        return;
    }
    lg_die("unknown option %s", name);
}

static void options_check(const struct lg_opts *o) {
    if (o->port == 0 || o->port > 65535) {
        lg_die("--port is needed");
    }
    if (o->conns == 0 || o->threads == 0 || o->threads > o->conns || o->pipeline == 0 ||
        o->pipeline > 1024) {
        lg_die("--conns >= --threads >= 1 and --pipeline 1 .. 1024 are needed");
    }
    if (o->keys <= o->keys_from || o->keys > UINT32_MAX) {
        lg_die("--keys must be above --keys-from and below 2^32");
    }
    if (o->value_min == 0 || o->value_min > o->value_max || o->value_max > LG_VALUE_MAX ||
        o->shift_min > o->shift_max || o->shift_max > LG_VALUE_MAX) {
        lg_die("lengths of values: 1 <= min <= max <= %d", LG_VALUE_MAX);
    }
    if (o->values > LG_VALUES_TEXT) {
        lg_die("--values: 0 from a pool, 1 random, 2 like text");
    }
    if (o->get_pct > 100 || o->one_hit_pct > 100 || o->drift_pct > 50 || o->set_pct > 100) {
        lg_die("a share is at most 100 per cent, that which drifts 50");
    }
}

int main(int argc, char **argv) {
    struct lg_opts o = {
        .conns = 1,
        .threads = 1,
        .pipeline = 1,
        .seed = 1,
        .seconds = 1,
        .keys = 1000000,
        .value_min = 100,
        .value_max = 100,
        .requests = 1000000,
        .zipf = 0.9,
    };
    if (argc < 2 || argc % 2 != 0) {
        lg_die("usage: dcache-loadgen fill|mix|cache|expiry|gaps|idle|pace|rtt --port N [--option "
               "value "
               "...]");
    }
    for (int i = 2; i < argc; i += 2) {
        option_set(&o, argv[i], argv[i + 1]);
    }
    options_check(&o);
    lg_wire_init(o.seed);
    lg_wire_use_values((enum lg_values)o.values);
    for (size_t i = 0; i < MODE_COUNT; i++) {
        if (strcmp(argv[1], modes[i].name) == 0) {
            modes[i].run(&o);
            return fflush(stdout) == 0 ? 0 : 2;
        }
    }
    lg_die("unknown mode %s", argv[1]);
}
