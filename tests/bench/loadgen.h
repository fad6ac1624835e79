/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * loadgen: the options, the clocks and the modes of the load generator.
 *
 * Purpose. One process makes one kind of load against one server and prints one JSON object. What is
 *   measured of the server (CPU time, resident memory) is read here, at the edges of the
 *   measured window, so that warming up and tearing down don't count.
 * Invariants. I1: the same options and seed give the same stream of requests to any server.
 *   I2: in the measured window the generator allocates nothing and formats nothing but digits.
 * Threads. `mix` runs --threads workers that share nothing but counters; all other modes run on one.
 * Ownership. Memory comes from lg_grab() and is kept until the process ends.
 * Failure. lg_die(): one line on stderr and exit code 2. A wrong reply is such a failure too.
 */
#ifndef DC_TESTS_BENCH_LOADGEN_H
#define DC_TESTS_BENCH_LOADGEN_H

#include <stddef.h>
#include <stdint.h>

struct lg_opts {
    /* where */
    uint64_t port;
    uint64_t pid; /* server process; 0: no CPU time and no resident memory in the output */
    /* how */
    uint64_t conns;
    uint64_t threads;
    uint64_t pipeline;
    uint64_t seed;
    double warmup_s;
    double seconds;
    /* keys and values */
    uint64_t keys; /* ids 0 .. keys-1 */
    uint64_t keys_from;
    uint64_t value_min; /* the length of a value is a function of its key */
    uint64_t value_max;
    uint64_t ttl_ms; /* 0: SET without PX */
    uint64_t get_pct;
    uint64_t values; /* enum lg_values */
    /* cache: a read-through stream */
    uint64_t requests;
    uint64_t warmup_requests; /* not counted; part of `requests` */
    double zipf;
    uint64_t one_hit_pct;
    uint64_t drift_pct;   /* this share of the keys, by popularity, trades places ... */
    uint64_t drift_every; /* ... each time after so many requests; 0: never */
    uint64_t shift_at;    /* from this request on values have the lengths below; 0: never */
    uint64_t shift_min;
    uint64_t shift_max;
    uint64_t set_pct; /* requests that are a SET whatever the cache holds */
    /* cache, expiry, pace */
    uint64_t rate; /* requests per second; 0: as fast as possible */
    /* mix, rtt: so many replicas have each write before it is answered; 0: none */
    uint64_t ack_replicas;  /* by CLIENT ACK */
    uint64_t wait_replicas; /* by a WAIT behind each SET (rtt) */
};

/* Modes: run to the end, print JSON on stdout. */
void lg_fill_run(const struct lg_opts *o);
void lg_mix_run(const struct lg_opts *o);
void lg_cache_run(const struct lg_opts *o);
void lg_expiry_run(const struct lg_opts *o);
void lg_gaps_run(const struct lg_opts *o);
void lg_idle_run(const struct lg_opts *o);
void lg_pace_run(const struct lg_opts *o);
void lg_rtt_run(const struct lg_opts *o);

/* Zeroed memory, page-aligned, never given back. */
void *lg_grab(size_t len);

uint64_t lg_now_ns(void);
void lg_sleep_until_ns(uint64_t deadline_ns);

/* CPU time of this process, and of the process `pid` with all its threads (0 for pid 0). */
uint64_t lg_own_cpu_ns(void);
uint64_t lg_server_cpu_ns(uint64_t pid);
/* Resident memory of `pid`; 0 for pid 0. */
uint64_t lg_server_rss_bytes(uint64_t pid);

_Noreturn void lg_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
