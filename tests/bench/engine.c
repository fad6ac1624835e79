/* SPDX-License-Identifier: BSD-3-Clause */
/*
 *   dcache-bench-engine growth [--from 1000000] [--to 10000000] [--repeat 3] [--tag 1]
 *   dcache-bench-engine memory [--keys 3000000] [--value-min 64] [--value-max 64] [--ttl-ms 0]
 *   dcache-bench-engine ops    [--keys 1000000] [--value-min 100] [--requests 4000000]
 *   dcache-bench-engine hit    [--policy adaptive] [--drift-pct 0] [--sessions 0] [--limit-mb 100] [--resident 1] ...
 *   dcache-bench-engine expiry [--rate 100000] [--ttl-ms 10000] [--seconds 60]
 *   dcache-bench-engine flush  [--keys 1000000] [--tag 1]
 */
#include "tests/bench/engine.h"

#include "server/base/time.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { VALUE_ROOM = 128 * 1024 };

void lg_die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    (void)fputs("engine: ", stderr);
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
    _exit(2);
}

void *lg_grab(size_t len) {
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        lg_die("mmap of %zu bytes failed", len);
    }
    return p;
}

struct bytes bench_name(char *text, const struct bench_opts *o, uint64_t i) {
    /* Fifteen bytes, as the load generator has them. */
    size_t len = o->tag != 0 ? 5 : 4;
    memcpy(text, o->tag != 0 ? "{tag}" : "key:", len);
    for (size_t at = len + 11; at-- > len; i /= 10) {
        text[at] = (char)('0' + i % 10);
    }
    return bytes_of(text, len + 11);
}

struct bytes bench_value(size_t len) {
    static char room[VALUE_ROOM];
    if (room[0] == '\0') {
        memset(room, 'v', sizeof(room));
    }
    if (len > sizeof(room)) {
        lg_die("values have at most %d bytes", VALUE_ROOM);
    }
    return bytes_of(room, len);
}

void bench_must(enum dc_err err) {
    if (err != DC_OK) {
        lg_die("a command failed: %s", dc_err_text(err));
    }
}

uint64_t bench_thread_cpu_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

struct mode {
    const char *name;
    void (*run)(const struct bench_opts *o);
};

static const struct mode modes[] = {
    {"growth", bench_growth}, {"memory", bench_memory}, {"hit", bench_hit},
    {"ops", bench_ops},       {"expiry", bench_expiry}, {"flush", bench_flush},
};

/* clang-format off */
static const struct option {
    const char *name;
    size_t offset;
} options[] = {
    {"--seed",        offsetof(struct bench_opts, seed)},
    {"--keys",        offsetof(struct bench_opts, keys)},
    {"--from",        offsetof(struct bench_opts, from)},
    {"--to",          offsetof(struct bench_opts, to)},
    {"--repeat",      offsetof(struct bench_opts, repeat)},
    {"--tag",         offsetof(struct bench_opts, tag)},
    {"--value-min",   offsetof(struct bench_opts, value_min)},
    {"--value-max",   offsetof(struct bench_opts, value_max)},
    {"--ttl-ms",      offsetof(struct bench_opts, ttl_ms)},
    {"--limit-mb",    offsetof(struct bench_opts, limit_mb)},
    {"--requests",    offsetof(struct bench_opts, requests)},
    {"--warmup",      offsetof(struct bench_opts, warmup)},
    {"--samples",     offsetof(struct bench_opts, samples)},
    {"--drift-pct",   offsetof(struct bench_opts, drift_pct)},
    {"--drift-every", offsetof(struct bench_opts, drift_every)},
    {"--resident",    offsetof(struct bench_opts, resident)},
    {"--sessions",    offsetof(struct bench_opts, sessions)},
    {"--seconds",     offsetof(struct bench_opts, seconds)},
    {"--rate",        offsetof(struct bench_opts, rate)},
};
/* clang-format on */

static void option_take(struct bench_opts *o, const char *name, const char *value) {
    if (strcmp(name, "--policy") == 0) {
        o->policy = value;
        return;
    }
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        if (strcmp(options[i].name, name) == 0) {
            uint64_t *at = (uint64_t *)(void *)((char *)o + options[i].offset);
            *at = strtoull(value, NULL, 10);
            return;
        }
    }
    lg_die("no option %s", name);
}

int main(int argc, char **argv) {
    struct bench_opts o = {.seed = 1, .repeat = 3, .samples = 10, .policy = "adaptive"};
    for (int i = 2; i + 1 < argc; i += 2) {
        option_take(&o, argv[i], argv[i + 1]);
    }
    if (argc < 2 || argc % 2 != 0) {
        lg_die("usage: dcache-bench-engine MODE [--option value ...]; the modes stand at the top "
               "of engine.c");
    }
    time_calibrate();
    lg_wire_init(o.seed);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcmp(modes[i].name, argv[1]) == 0) {
            modes[i].run(&o);
            return 0;
        }
    }
    lg_die("no mode %s", argv[1]);
}
