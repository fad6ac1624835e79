/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many threads use one store at once: commands, frames, scans, sweeps, evictions, flushes. Meant for ThreadSanitizer, and
 * with invariants of its own:
 *
 *   database 0  counters whose sum is the number of increments; keys that stay, so that every scan sees each once;
 *               accounts whose sum never changes, moved between by frames
 *   database 1  keys with a time to live, which come, go, expire and are evicted
 *   database 2  whatever, flushed now and then
 *
 *   stress_store [--seconds S] [--threads N]
 */
#include "server/base/thread.h"
#include "server/base/time.h"
#include "tests/support/engine.h"
#include "tests/support/store_check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COUNTERS = 16, STAY = 2000, ACCOUNTS = 8, CHURN = 5000, THREADS_MAX = 16, BALANCE = 1000 };

static struct engine engine;
static _Atomic bool stop;

struct actor {
    struct hand hand;
    struct thread thread;
    struct rng rng;
    struct store_sweep sweep;
    struct store_pack pack;
    uint64_t increments;
    uint64_t operations;
    uint8_t seen[STAY];
};

static _Noreturn void die(const char *what) {
    fprintf(stderr, "stress_store: %s\n", what);
    abort();
}

static void check(bool condition, const char *what) {
    if (!condition) {
        die(what);
    }
}

static void must(enum dc_err err) {
    check(err == DC_OK, "a command fails");
}

/* The text must outlive the command. */
static struct bytes name(char *text, const char *prefix, uint64_t i) {
    return bytes_of(text, (size_t)snprintf(text, 32, "%s%" PRIu64, prefix, i));
}

/* --- database 0 -------------------------------------------------------------------------------------- */

static void increment(struct actor *a) {
    char text[32];
    int64_t sum;
    must(hand_incr(&a->hand, 0, name(text, "counter:", rng_below(&a->rng, COUNTERS)), 1, &sum));
    check(sum > 0, "a counter is behind");
    a->increments++;
}

/* As a transaction of two INCRBY, and one of GETs. */
static void transfer(struct actor *a) {
    char from[32], to[32], text[32];
    int64_t balance, total = 0;
    int64_t amount = (int64_t)rng_below(&a->rng, 100);
    hand_frame_begin(&a->hand);
    must(hand_incr(&a->hand, 0, name(from, "account:", rng_below(&a->rng, ACCOUNTS)), -amount,
                   &balance));
    must(hand_incr(&a->hand, 0, name(to, "account:", rng_below(&a->rng, ACCOUNTS)), amount,
                   &balance));
    for (uint32_t i = 0; i < ACCOUNTS; i++) {
        struct keyspace *ks = store_keyspace(engine.store, 0);
        struct key k = store_key(engine.store, name(text, "account:", i));
        const struct entry *e = store_peek(&a->hand.thread, ks, &k, engine_now(&engine));
        struct value v;
        check(e != NULL, "an account is gone");
        entry_value(e, &v);
        total += v.num;
    }
    hand_frame_end(&a->hand);
    check(total == ACCOUNTS * BALANCE, "a frame isn't atomic");
}

static void see(void *arg, struct keyspace *ks, struct entry *e) {
    struct actor *a = arg;
    struct bytes key = entry_key(e);
    uint64_t i;
    (void)ks;
    size_t prefix = key.len > 7 && memcmp(key.ptr, "{st}ay:", 7) == 0 ? 7
                    : key.len > 5 && memcmp(key.ptr, "stay:", 5) == 0 ? 5
                                                                      : 0;
    if (prefix > 0 && num_parse_u64(bytes_of(key.ptr + prefix, key.len - prefix), &i) && i < STAY) {
        a->seen[i]++;
    }
}

static void scan(struct actor *a) {
    uint64_t cursor = 0;
    struct store_scan sc = {
        .ks = store_keyspace(engine.store, 0), .slot_end = SLOT_COUNT, .visit = see, .arg = a};
    memset(a->seen, 0, sizeof(a->seen));
    do {
        sc.now_ms = engine_now(&engine);
        store_scan(&sc, &cursor, 50);
    } while (cursor != 0);
    for (uint32_t i = 0; i < STAY; i++) {
        check(a->seen[i] == 1, "a scan loses or repeats a key");
    }
}

/* Makes the tables grow and shrink while others scan. */
static void crowd(struct actor *a) {
    char text[32];
    bool existed;
    uint64_t from = rng_below(&a->rng, 20000);
    bool set = rng_below(&a->rng, 2) == 0;
    for (uint64_t i = from; i < from + 500; i++) {
        struct bytes n = name(text, "{st}crowd:", i);
        if (set) {
            must(hand_set(&a->hand, 0, n, n, EXPIRY_NONE));
        } else {
            must(hand_del(&a->hand, 0, n, &existed));
        }
    }
}

/* --- databases 1 and 2 ------------------------------------------------------------------------------- */

static struct bytes draw_value(struct actor *a) {
    static char pool[100000];
    uint64_t len =
        rng_below(&a->rng, 64) == 0 ? rng_below(&a->rng, sizeof(pool)) : rng_below(&a->rng, 300);
    return bytes_of(pool, len);
}

static void churn(struct actor *a) {
    char text[32], other[32];
    bool existed;
    struct bytes n = name(text, "churn:", rng_below(&a->rng, CHURN));
    int64_t expiry_ms = engine_now(&engine) + 1 + (int64_t)rng_below(&a->rng, 3000);
    switch (rng_below(&a->rng, 8)) {
    case 0:
        must(hand_del(&a->hand, 1, n, &existed));
        return;
    case 1:
        must(hand_expire(&a->hand, 1, n, expiry_ms, &existed));
        return;
    case 2:
        must(hand_rename(&a->hand, 1, n, name(other, "churn:", rng_below(&a->rng, CHURN)),
                         &existed));
        return;
    case 3:
        (void)hand_get(&a->hand, 1, n, NULL);
        return;
    case 4:
        if (hand_peek(&a->hand, 1, n, NULL).alive) { /* keeps the expiry, unless it goes just now */
            must(hand_append(&a->hand, 2, n, BYTES("more")));
        }
        return;
    default:
        must(hand_set(&a->hand, 1, n, draw_value(a), expiry_ms));
    }
}

static void set_many(struct actor *a) {
    enum { MANY = 40 };
    char texts[MANY][32];
    struct bytes names[MANY];
    for (uint32_t i = 0; i < MANY; i++) {
        names[i] = name(texts[i], i % 2 == 0 ? "{many}" : "many:", rng_below(&a->rng, 3000));
    }
    must(hand_set_many(&a->hand, 2, names, names, MANY));
}

static void on_evicted(void *arg, struct keyspace *ks, struct entry *e) {
    (void)arg;
    check(keyspace_id(ks) == 1 && entry_has_expiry(e), "a key without expiry is evicted");
}

static void on_expired(void *arg, struct keyspace *ks, struct bytes key) {
    (void)arg;
    check(keyspace_id(ks) == 1 && key.len > 6, "a key without expiry is reclaimed");
}

static void look(void *arg, struct keyspace *ks, struct entry *e) {
    (void)arg, (void)ks;
    check(entry_key(e).len > 0, "a random key has no name");
}

static void random_entry(struct actor *a) {
    struct store_scan sc = {.ks = store_keyspace(engine.store, (uint32_t)rng_below(&a->rng, 3)),
                            .slot_end = SLOT_COUNT,
                            .now_ms = engine_now(&engine),
                            .visit = look};
    (void)store_random(&a->hand.thread, &sc);
}

static void housekeep(struct actor *a) {
    switch (rng_below(&a->rng, 7)) {
    case 0:
        engine_sleep(&engine, 20);
        store_tick(engine.store, engine_now(&engine));
        return;
    case 1:
        store_sweep(&a->hand.thread, &a->sweep, engine_now(&engine), 2000, on_expired, NULL);
        return;
    case 2:
        store_reclaim(engine.store, 500);
        return;
    case 3:
        random_entry(a);
        return;
    case 4:
        store_pack_pages(engine.store, &a->pack, 2000);
        return;
    case 5:
        check(store_overhead(engine.store) > 0, "the tables have no memory");
        return;
    default:
        store_set_packing(engine.store, rng_below(&a->rng, 2) == 0);
    }
}

/* --- actors ------------------------------------------------------------------------------------------ */

static void act(struct actor *a) {
    uint64_t dice = rng_below(&a->rng, 10000);
    if (dice < 5000) {
        churn(a);
    } else if (dice < 9000) {
        increment(a);
    } else if (dice < 9500) {
        (void)hand_evict(&a->hand, dice % 2 == 0 ? EVICT_VOLATILE_LRU : EVICT_VOLATILE_TTL, 5,
                         on_evicted, NULL);
    } else if (dice < 9800) {
        set_many(a);
    } else if (dice < 9950) {
        housekeep(a);
    } else if (dice < 9970) {
        crowd(a);
    } else if (dice < 9980) {
        scan(a);
    } else if (dice < 9985) {
        must(hand_flush(&a->hand, 2));
    } else {
        transfer(a);
    }
    a->operations++;
}

static void run(void *arg) {
    struct actor *a = arg;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        act(a);
    }
}

static void prepare(struct hand *h) {
    char text[32];
    int64_t sum;
    for (uint32_t i = 0; i < COUNTERS; i++) {
        must(hand_incr(h, 0, name(text, "counter:", i), 0, &sum));
    }
    for (uint32_t i = 0; i < ACCOUNTS; i++) {
        must(hand_incr(h, 0, name(text, "account:", i), BALANCE, &sum));
    }
    for (uint32_t i = 0; i < STAY; i++) {
        must(hand_set(h, 0, name(text, i % 2 == 0 ? "{st}ay:" : "stay:", i), BYTES("here"),
                      EXPIRY_NONE));
    }
}

static int64_t counted(struct hand *h) {
    char text[32];
    int64_t total = 0;
    for (uint32_t i = 0; i < COUNTERS; i++) {
        int64_t sum;
        must(hand_incr(h, 0, name(text, "counter:", i), 0, &sum));
        total += sum;
    }
    return total;
}

static uint64_t number_option(int argc, char **argv, const char *option, uint64_t otherwise) {
    for (int i = 1; i + 1 < argc; i++) {
        if (strcmp(argv[i], option) == 0) {
            return strtoull(argv[i + 1], NULL, 10);
        }
    }
    return otherwise;
}

int main(int argc, char **argv) {
    static struct actor actors[THREADS_MAX];
    uint64_t seconds = number_option(argc, argv, "--seconds", 2);
    uint64_t threads = number_option(argc, argv, "--threads", 4);
    uint64_t operations = 0, increments = 0;
    struct table_facts facts;
    check(threads > 0 && threads <= THREADS_MAX, "1 to 16 threads");
    engine_init(&engine, NULL);
    for (uint64_t i = 0; i < threads; i++) {
        hand_init(&actors[i].hand, &engine, i);
        rng_seed(&actors[i].rng, i);
    }
    prepare(&actors[0].hand);
    for (uint64_t i = 0; i < threads; i++) {
        thread_start(&actors[i].thread, "actor", run, &actors[i]);
    }
    for (int64_t end_us = time_mono_us() + (int64_t)seconds * 1000000; time_mono_us() < end_us;) {
        struct timespec ten_ms = {0, 10000000};
        nanosleep(&ten_ms, NULL);
    }
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (uint64_t i = 0; i < threads; i++) {
        thread_join(&actors[i].thread);
        operations += actors[i].operations;
        increments += actors[i].increments;
    }
    check(counted(&actors[0].hand) == (int64_t)increments, "increments are lost");
    const char *error = store_check(engine.store, &facts);
    check(error == NULL, error);
    for (uint64_t i = 0; i < threads; i++) {
        hand_fini(&actors[i].hand);
    }
    engine_fini(&engine);
    printf("%" PRIu64 " operations, %" PRIu64 " increments, %" PRIu64 " entries at the end\n",
           operations, increments, facts.entries);
    return 0;
}
