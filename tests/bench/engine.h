/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * engine: the options, the stream and the clocks of dcache-bench-engine, which measures the engine without sockets.
 *
 * Purpose. One mode per file; each prints one JSON object. The stream of `hit` is the one of the load generator.
 * Ownership. Memory of the bench itself comes from lg_grab(), so that the allocator's figures are the engine's.
 */
#ifndef DC_TESTS_BENCH_ENGINE_H
#define DC_TESTS_BENCH_ENGINE_H

#include "tests/support/engine.h"

#include "tests/bench/lg_wire.h"
#include "tests/bench/loadgen.h"

struct bench_opts {
    uint64_t seed;
    uint64_t keys;
    uint64_t from;
    uint64_t to;
    uint64_t repeat;
    uint64_t tag; /* 1: all keys under one hash tag, so in one slot */
    uint64_t value_min;
    uint64_t value_max;
    uint64_t ttl_ms;
    uint64_t limit_mb;
    uint64_t requests;
    uint64_t warmup;
    uint64_t samples;
    uint64_t drift_pct;
    uint64_t drift_every;
    uint64_t resident; /* 1: the limit is on pages in use, not on what is allocated */
    uint64_t sessions;
    uint64_t seconds;
    uint64_t rate;
    const char *policy;
};

void bench_growth(const struct bench_opts *o);
void bench_memory(const struct bench_opts *o);
void bench_hit(const struct bench_opts *o);
void bench_ops(const struct bench_opts *o);
void bench_expiry(const struct bench_opts *o);
void bench_flush(const struct bench_opts *o);

/* Name number i, in 'text' (32 bytes). Without a tag it has 15 bytes. */
struct bytes bench_name(char *text, const struct bench_opts *o, uint64_t i);
/* A value of this length; the bytes mean nothing. */
struct bytes bench_value(size_t len);
/* Ends the program when a command of the engine fails. */
void bench_must(enum dc_err err);
uint64_t bench_thread_cpu_ns(void);

#endif
