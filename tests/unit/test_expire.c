/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/mem.h"
#include "tests/support/one_engine.h"

/* prefix0, prefix1, ... that live for ttl_ms + i * step_ms; ttl_ms 0 = for ever. */
static void fill(uint32_t id, const char *prefix, uint32_t count, int64_t ttl_ms, int64_t step_ms) {
    char name[48];
    for (uint32_t i = 0; i < count; i++) {
        int64_t expiry_ms = ttl_ms == 0 ? EXPIRY_NONE : engine_now(&engine) + ttl_ms + i * step_ms;
        snprintf(name, sizeof(name), "%s%u", prefix, i);
        must(hand_set(&hand, id, bytes_str(name), BYTES("value"), expiry_ms));
    }
}

START_TEST(a_sweep_reclaims_what_has_expired_and_nothing_else) {
    for (int one_slot = 0; one_slot < 2; one_slot++) {
        open_engine();
        fill(0, one_slot ? "{t}short:" : "short:", 3000, 1000, 0);
        fill(0, one_slot ? "{t}long:" : "long:", 3000, 1000000, 0);
        fill(0, one_slot ? "{t}ever:" : "ever:", 3000, 0, 0);
        fill(5, one_slot ? "{t}short:" : "short:", 500, 1000, 0);
        engine_sleep(&engine, 999);
        hand_sweep(&hand, NULL, NULL);
        expect_eq(store_count(engine.store), 9500);
        engine_sleep(&engine, 1 + DUE_UNIT_MS);
        hand_sweep(&hand, NULL, NULL);
        /* Where few of a page have expired they may wait, for four seconds at most. */
        engine_sleep(&engine, 4000 + DUE_UNIT_MS);
        hand_sweep(&hand, NULL, NULL);
        expect_eq(keyspace_count(db(0)), 6000);
        expect_eq(keyspace_volatile_count(db(0)), 3000);
        expect_eq(keyspace_count(db(5)), 0);
        struct store_sweep sw = {0};
        store_sweep(&hand.thread, &sw, engine_now(&engine), UINT64_MAX, NULL, NULL);
        expect_eq(sw.expired, 0);
        expect_eq(sw.wrapped, 1);
        close_engine();
    }
}
END_TEST

START_TEST(a_sweep_with_nothing_due_looks_at_nothing) {
    open_engine();
    fill(0, "ever:", 20000, 0, 0);
    fill(0, "{t}ever:", 5000, 0, 0);
    expect_eq(hand_sweep(&hand, NULL, NULL), 0);
    fill(0, "later:", 2000, 3600000, 0);
    fill(0, "{t}later:", 1000, 3600000, 0);
    expect_eq(hand_sweep(&hand, NULL, NULL), 0);
    engine_sleep(&engine, 3500000);
    expect_eq(hand_sweep(&hand, NULL, NULL), 0);
    close_engine();
}
END_TEST

START_TEST(one_short_life_among_many_long_ones_ends_in_time) {
    open_engine();
    fill(0, "{t}long:", 20000, 3600000, 0);
    hand_sweep(&hand, NULL, NULL);
    must(hand_set(&hand, 0, BYTES("{t}short"), BYTES("v"), engine_now(&engine) + 2000));
    engine_sleep(&engine, 1999);
    hand_sweep(&hand, NULL, NULL);
    expect_eq(store_count(engine.store), 20001);
    engine_sleep(&engine, 1 + DUE_UNIT_MS);
    uint64_t seen = hand_sweep(&hand, NULL, NULL);
    expect_eq(store_count(engine.store), 20000);
    expect(seen <= PAGE_WORDS_MAX); /* its page */
    close_engine();
}
END_TEST

START_TEST(expiries_that_change_are_followed) {
    open_engine();
    bool existed;
    const int64_t to[] = {500, 20000, -1};
    for (int i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof(name), "k%d", i);
        must(hand_set(&hand, 0, bytes_str(name), BYTES("v"), engine_now(&engine) + 10000));
        must(hand_expire(&hand, 0, bytes_str(name),
                         to[i] < 0 ? EXPIRY_NONE : engine_now(&engine) + to[i], &existed));
    }
    for (int step = 0; step < 300; step++) {
        engine_sleep(&engine, 100);
        hand_sweep(&hand, NULL, NULL);
        int64_t now = engine_now(&engine) - ENGINE_NOW_MS;
        uint64_t least = (now < 500) + (now < 20000) + 1;
        uint64_t most = (now < 500 + 4500) + (now < 20000 + 4500) + 1;
        expect(store_count(engine.store) >= least && store_count(engine.store) <= most);
    }
    expect_eq(keyspace_volatile_count(db(0)), 0);
    close_engine();
}
END_TEST

struct told {
    uint32_t count;
    bool seen[3000];
};

static void note_expired(void *arg, struct keyspace *ks, struct bytes key) {
    struct told *t = arg;
    char name[32];
    unsigned n;
    snprintf(name, sizeof(name), "%.*s", (int)key.len, key.ptr);
    expect_eq(keyspace_id(ks), 2);
    expect(sscanf(name, "{t}k:%u", &n) == 1 && n < 3000); /* NOLINT(cert-err34-c) */
    expect(!t->seen[n]);
    t->seen[n] = true;
    t->count++;
    /* No lock is held: a command may run here. */
    bool existed;
    must(hand_del(&hand, 2, bytes_str(name), &existed));
    expect(!existed);
}

START_TEST(who_wants_to_know_hears_of_each_expired_key_once) {
    open_engine();
    static struct told told;
    memset(&told, 0, sizeof(told));
    fill(2, "{t}k:", 3000, 1000, 1);
    for (int step = 0; step < 120; step++) {
        engine_sleep(&engine, 100);
        hand_sweep(&hand, note_expired, &told);
        expect_eq(told.count, 3000 - keyspace_count(db(2)));
    }
    expect_eq(told.count, 3000);
    close_engine();
}
END_TEST

START_TEST(a_sweep_keeps_to_its_budget_and_goes_on_where_it_stopped) {
    open_engine();
    fill(0, "k:", 20000, 1000, 0);
    fill(1, "{t}k:", 20000, 1000, 0);
    engine_sleep(&engine, 10000);
    struct store_sweep sw = {0};
    uint32_t calls = 0;
    while (sw.wrapped == 0) {
        uint64_t before = store_count(engine.store);
        uint64_t seen = store_sweep(&hand.thread, &sw, engine_now(&engine), 500, NULL, NULL);
        expect(seen <= 500 + PAGE_WORDS_MAX);
        expect_eq(before - store_count(engine.store), seen);
        calls++;
    }
    expect(calls > 40);
    expect_eq(sw.expired, 40000);
    expect_eq(store_count(engine.store), 0);
    close_engine();
}
END_TEST

START_TEST(the_mean_time_to_live_is_roughly_known) {
    open_engine();
    fill(0, "k:", 10000, 60000, 0);
    engine_sleep(&engine, 5000);
    fill(0, "soon:", 10000, 100, 0);
    engine_sleep(&engine, 1000);
    hand_sweep(&hand, NULL, NULL);
    int64_t mean_ms = keyspace_mean_ttl_ms(db(0));
    expect(mean_ms >= 50000 && mean_ms <= 58000);
    close_engine();
}
END_TEST

/* Thousands of keys per second come and go; at no time are more than a twentieth beyond their time. */
static void turn_over(const char *prefix, uint32_t rate, uint32_t ttl_s, uint32_t seconds) {
    open_engine();
    char name[48];
    uint32_t next = 0;
    for (uint32_t step = 0; step < seconds * 10; step++) {
        engine_sleep(&engine, 100);
        for (uint32_t i = 0; i < rate / 10; i++) {
            snprintf(name, sizeof(name), "%s%u", prefix, next++);
            must(hand_set(&hand, 0, bytes_str(name), BYTES("v"),
                          engine_now(&engine) + (int64_t)ttl_s * 1000));
        }
        hand_sweep(&hand, NULL, NULL);
        uint64_t alive = (uint64_t)rate * ttl_s;
        expect(step < ttl_s * 10 || store_count(engine.store) <= alive + alive / 20);
    }
    close_engine();
}

START_TEST(few_are_resident_beyond_their_time) {
    turn_over("{t}", 2000, 10, 20);
    turn_over("{t}", 200, 10, 30);
    turn_over("k:", 20000, 10, 15);
}
END_TEST

START_TEST(keys_that_live_beyond_all_clocks_stay) {
    open_engine();
    const int64_t expiries[] = {INT64_MAX, INT64_MAX - 1, EXPIRY_BASE_MS + ((int64_t)1 << 40),
                                EXPIRY_BASE_MS + ((int64_t)1 << 41)};
    for (int i = 0; i < 4; i++) {
        char name[16];
        snprintf(name, sizeof(name), "k%d", i);
        must(hand_set(&hand, 0, bytes_str(name), BYTES("v"), expiries[i]));
    }
    /* And some that were over before the origin of all hints. */
    must(hand_set(&hand, 0, BYTES("past"), BYTES("v"), 0));
    must(hand_set(&hand, 0, BYTES("long past"), BYTES("v"), EXPIRY_BASE_MS - 1));
    hand_sweep(&hand, NULL, NULL);
    engine_sleep(&engine, (int64_t)86400000 * 365);
    hand_sweep(&hand, NULL, NULL);
    expect_eq(store_count(engine.store), 4);
    close_engine();
}
END_TEST

/* What the hand's thread has allocated since the last call; while it is told of keys, with the lock free. */
struct ledger {
    uint32_t slot;
    int64_t meanwhile;
};

static void weigh(void *arg, struct keyspace *ks, struct bytes key) {
    struct ledger *l = arg;
    (void)ks, (void)key;
    store_lock(engine.store, l->slot);
    l->meanwhile += mem_thread_delta();
    store_unlock(engine.store, l->slot);
}

START_TEST(the_blobs_of_expired_keys_are_freed_after_the_lock) {
    enum { LEN = 300000 };
    static char text[LEN];
    open_engine();
    memset(text, 'b', sizeof(text));
    struct key k = store_key(engine.store, BYTES("{t}1"));
    struct ledger l = {.slot = key_slot(&k)};
    must(hand_set(&hand, 0, BYTES("{t}1"), bytes_of(text, LEN), engine_now(&engine) + 10));
    must(hand_set(&hand, 0, BYTES("{t}2"), bytes_of(text, LEN), engine_now(&engine) + 10));
    must(hand_set(&hand, 0, BYTES("{t}3"), bytes_of(text, LEN), engine_now(&engine) + 100000));
    engine_sleep(&engine, 10 + DUE_UNIT_MS);
    (void)mem_thread_delta();
    hand_sweep(&hand, weigh, &l);
    expect_eq(store_count(engine.store), 1);
    expect(l.meanwhile > -LEN);
    expect(mem_thread_delta() <= -2 * LEN);
    close_engine();
}
END_TEST

CHECK_MAIN("expire", a_sweep_reclaims_what_has_expired_and_nothing_else,
           a_sweep_with_nothing_due_looks_at_nothing,
           one_short_life_among_many_long_ones_ends_in_time, expiries_that_change_are_followed,
           who_wants_to_know_hears_of_each_expired_key_once,
           a_sweep_keeps_to_its_budget_and_goes_on_where_it_stopped,
           the_mean_time_to_live_is_roughly_known, few_are_resident_beyond_their_time,
           keys_that_live_beyond_all_clocks_stay,
           the_blobs_of_expired_keys_are_freed_after_the_lock)
