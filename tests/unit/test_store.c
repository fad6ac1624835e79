/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/mem.h"
#include "tests/support/collide.h"
#include "tests/support/one_engine.h"

static void set(uint32_t db, const char *name, const char *text) {
    must(hand_set(&hand, db, bytes_str(name), bytes_str(text), EXPIRY_NONE));
}

static void fill(uint32_t db, const char *prefix, uint32_t count) {
    char name[64];
    for (uint32_t i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "%s%u", prefix, i);
        set(db, name, "value");
    }
}

static bool alive(uint32_t db, const char *name) {
    return hand_peek(&hand, db, bytes_str(name), NULL).alive;
}

static bool del(uint32_t db, const char *name) {
    bool existed;
    must(hand_del(&hand, db, bytes_str(name), &existed));
    return existed;
}

static uint64_t removed(const char *name) {
    struct key k = store_key(engine.store, bytes_str(name));
    store_lock(engine.store, key_slot(&k));
    uint64_t version = store_removed_version(db(0), &k);
    store_unlock(engine.store, key_slot(&k));
    return version;
}

static uint32_t slot_of(const char *name) {
    struct key k = store_key(engine.store, bytes_str(name));
    return key_slot(&k);
}

START_TEST(slots_are_those_of_redis_cluster) {
    open_engine();
    expect_eq(slot_of("123456789"), 12739);
    expect_eq(slot_of("foo"), 12182);
    expect_eq(slot_of(""), 0);
    expect_eq(slot_of("{user1000}.following"), slot_of("user1000"));
    expect_eq(slot_of("{user1000}.followers"), slot_of("user1000"));
    expect(slot_of("foo{}{bar}") != slot_of("bar"));
    expect_eq(slot_of("foo{{bar}}zap"), slot_of("{bar"));
    expect_eq(slot_of("foo{bar}{zap}"), slot_of("bar"));
    expect(slot_of("foo{bar") != slot_of("bar"));
    close_engine();
}
END_TEST

START_TEST(a_key_belongs_to_its_keyspace) {
    open_engine();
    expect_eq(store_keyspace_count(engine.store), KEYSPACE_MAX);
    expect(store_keyspace(engine.store, KEYSPACE_MAX) == NULL);
    for (uint32_t i = 0; i < KEYSPACE_MAX; i += 3) {
        char text[16];
        snprintf(text, sizeof(text), "in %u", i);
        set(i, "name", text);
        expect_eq(keyspace_id(db(i)), i);
    }
    for (uint32_t i = 0; i < KEYSPACE_MAX; i++) {
        struct buf b;
        char text[16];
        snprintf(text, sizeof(text), "in %u", i);
        buf_init(&b, 0);
        expect_eq(hand_get(&hand, i, BYTES("name"), &b).alive, i % 3 == 0);
        expect(i % 3 != 0 || bytes_equal(buf_bytes(&b), bytes_str(text)));
        expect_eq(keyspace_count(db(i)), i % 3 == 0);
        buf_fini(&b);
    }
    expect_eq(store_count(engine.store), 6);
    expect(del(3, "name"));
    expect(!del(3, "name"));
    expect(alive(0, "name") && !alive(3, "name") && alive(6, "name"));
    close_engine();
}
END_TEST

START_TEST(an_expired_key_is_a_miss_before_it_is_gone) {
    open_engine();
    must(hand_set(&hand, 0, BYTES("k"), BYTES("v"), ENGINE_NOW_MS + 100));
    expect_eq(keyspace_volatile_count(db(0)), 1);
    engine_sleep(&engine, 99);
    expect(alive(0, "k"));
    expect_eq(hand_get(&hand, 0, BYTES("k"), NULL).expiry_ms, ENGINE_NOW_MS + 100);
    engine_sleep(&engine, 1);
    expect(!alive(0, "k"));
    expect(!hand_get(&hand, 0, BYTES("k"), NULL).alive);
    expect(!del(0, "k"));
    expect_eq(keyspace_count(db(0)), 1);
    set(0, "k", "again");
    expect(alive(0, "k"));
    expect_eq(hand_get(&hand, 0, BYTES("k"), NULL).expiry_ms, EXPIRY_NONE);
    expect_eq(keyspace_count(db(0)), 1);
    expect_eq(keyspace_volatile_count(db(0)), 0);
    close_engine();
}
END_TEST

START_TEST(versions_rise_and_stay_with_what_was_written) {
    open_engine();
    uint64_t last = 0;
    for (int i = 0; i < 100; i++) {
        set(0, "a", "x");
        uint64_t version = hand_peek(&hand, 0, BYTES("a"), NULL).version;
        expect(version > last);
        expect_eq(version, sequencer_head(&engine.sequencer).v);
        last = version;
    }
    set(0, "b", "y");
    expect_eq(hand_get(&hand, 0, BYTES("a"), NULL).version, last);
    bool existed;
    must(hand_expire(&hand, 0, BYTES("a"), ENGINE_NOW_MS + 1000, &existed));
    expect(existed && hand_peek(&hand, 0, BYTES("a"), NULL).version > last);
    close_engine();
}
END_TEST

/* What tells a watch of an absent key that the key was there meanwhile. */
START_TEST(a_slot_remembers_the_newest_version_that_was_removed) {
    open_engine();
    expect_eq(removed("{t}a"), 0);
    set(0, "{t}a", "1");
    set(0, "{t}b", "1");
    uint64_t a = hand_peek(&hand, 0, BYTES("{t}a"), NULL).version;
    uint64_t b = hand_peek(&hand, 0, BYTES("{t}b"), NULL).version;
    expect_eq(removed("{t}a"), 0);
    del(0, "{t}b");
    expect_eq(removed("{t}a"), b);
    del(0, "{t}a");
    expect_eq(removed("{t}a"), b);
    expect(a < b);
    expect_eq(removed("other"), 0);
    /* Expired and reclaimed. */
    must(hand_set(&hand, 0, BYTES("{t}c"), BYTES("1"), ENGINE_NOW_MS + 1));
    uint64_t c = hand_peek(&hand, 0, BYTES("{t}c"), NULL).version;
    engine_sleep(&engine, 10000);
    expect_eq(removed("{t}a"), b);
    hand_sweep(&hand, NULL, NULL);
    expect_eq(removed("{t}a"), c);
    /* Flushed. */
    set(0, "{t}d", "1");
    uint64_t d = hand_peek(&hand, 0, BYTES("{t}d"), NULL).version;
    must(hand_flush(&hand, 0));
    expect_eq(removed("{t}a"), d);
    close_engine();
}
END_TEST

START_TEST(the_slot_of_a_flushed_large_table_remembers_the_flush) {
    open_engine();
    fill(0, "{t}", 2000);
    must(hand_flush(&hand, 0));
    uint64_t flush = sequencer_head(&engine.sequencer).v;
    expect_eq(removed("{t}a"), flush);
    expect_eq(removed("other"), 0);
    close_engine();
}
END_TEST

/* --- accesses ---------------------------------------------------------------------------------------- */

static struct entry *entry_of(const char *name) {
    struct key k = store_key(engine.store, bytes_str(name));
    store_lock(engine.store, key_slot(&k));
    struct entry *e = store_peek(&hand.thread, db(0), &k, engine_now(&engine));
    store_unlock(engine.store, key_slot(&k));
    return e;
}

START_TEST(only_accesses_count_as_accesses) {
    open_engine();
    set(0, "k", "1");
    expect_eq(entry_of("k")->freq, 1);
    for (int i = 0; i < 10; i++) {
        (void)hand_peek(&hand, 0, BYTES("k"), NULL);
    }
    expect_eq(entry_of("k")->freq, 1);
    (void)hand_get(&hand, 0, BYTES("k"), NULL);
    expect_eq(entry_of("k")->freq, 2);
    set(0, "k", "a longer value, which takes another allocation");
    expect_eq(entry_of("k")->freq, 3);
    must(hand_append(&hand, 0, BYTES("k"), BYTES("tail")));
    expect_eq(entry_of("k")->freq, 4);
    bool existed;
    must(hand_expire(&hand, 0, BYTES("k"), ENGINE_NOW_MS + 5000, &existed));
    expect_eq(entry_of("k")->freq, 4);
    for (int i = 0; i < 1000; i++) {
        (void)hand_get(&hand, 0, BYTES("k"), NULL);
    }
    expect_eq(entry_of("k")->freq, UINT8_MAX);
    close_engine();
}
END_TEST

static int64_t idle_ms(const char *name) {
    return store_idle_ms(engine.store, entry_of(name), engine_now(&engine));
}

/* Seconds pass; the janitor ticks and sweeps. */
static void live(uint32_t seconds, const char *busy) {
    static struct store_sweep sweep;
    for (uint32_t s = 0; s < seconds; s++) {
        engine_sleep(&engine, 1000);
        store_tick(engine.store, engine_now(&engine));
        store_sweep(&hand.thread, &sweep, engine_now(&engine), 1000, NULL, NULL);
        (void)hand_get(&hand, 0, bytes_str(busy), NULL);
    }
}

START_TEST(idle_time_goes_on_without_accesses_and_restarts_with_one) {
    open_engine();
    set(0, "idle", "1");
    set(0, "busy", "1");
    for (int64_t s = 10; s <= 2000; s += 10) {
        live(10, "busy");
        expect(idle_ms("idle") >= s * 1000 - 1000 && idle_ms("idle") <= s * 1000 + 1000);
        expect(idle_ms("busy") <= 1000);
    }
    (void)hand_get(&hand, 0, BYTES("idle"), NULL);
    expect(idle_ms("idle") <= 1000);
    close_engine();
}
END_TEST

START_TEST(an_idle_time_can_be_given) {
    open_engine();
    set(0, "k", "1");
    live(10, "k");
    for (int64_t s = 0; s <= 20000; s += 37) {
        store_set_idle_ms(engine.store, entry_of("k"), s * 1000, engine_now(&engine));
        expect(idle_ms("k") >= s * 1000 - 1000 && idle_ms("k") <= s * 1000 + 1000);
    }
    close_engine();
}
END_TEST

/* A tick with each access: sixteen bits come round five times. */
START_TEST(who_is_old_never_looks_young_again) {
    open_engine();
    struct store_sweep sweep = {0};
    struct victim v;
    set(0, "busy", "1");
    fill(0, "old:", 60);
    fill(3, "{t}old:", 60);
    (void)store_pick_victim(&hand.thread, EVICT_ALLKEYS_LRU, 5, engine_now(&engine), &v);
    store_tick(engine.store, engine_now(&engine));
    for (uint32_t ticks = 0; ticks < 330000; ticks += 500) {
        uint32_t least = ticks < 40000 ? ticks : 40000;
        expect(entry_age(engine.store, entry_of("old:0")) >= least);
        expect(entry_age(engine.store, entry_of("old:59")) >= least);
        expect_eq(entry_age(engine.store, entry_of("busy")), 0);
        for (uint32_t i = 0; i < 500; i++) {
            (void)hand_get(&hand, 0, BYTES("busy"), NULL);
        }
        store_sweep(&hand.thread, &sweep, engine_now(&engine), 1000, NULL, NULL);
    }
    close_engine();
}
END_TEST

START_TEST(while_there_is_eviction_accesses_make_time) {
    open_engine();
    struct victim v;
    fill(0, "key:", 1280);
    expect(store_pick_victim(&hand.thread, EVICT_ALLKEYS_LRU, 5, engine_now(&engine), &v));
    store_tick(engine.store, engine_now(&engine));
    set(0, "k", "1");
    struct entry *e = entry_of("k");
    for (int i = 0; i < 1280; i++) {
        (void)hand_get(&hand, 0, BYTES("key:1"), NULL);
    }
    uint32_t age = entry_age(engine.store, e);
    expect(age >= TICKS_PER_POPULATION - 2 && age <= TICKS_PER_POPULATION + 2);
    /* A minute without eviction, and only time counts. */
    engine_sleep(&engine, 61000);
    store_tick(engine.store, engine_now(&engine));
    age = entry_age(engine.store, e);
    for (int i = 0; i < 12800; i++) {
        (void)hand_get(&hand, 0, BYTES("key:1"), NULL);
    }
    expect_eq(entry_age(engine.store, e), age);
    close_engine();
}
END_TEST

/* --- counts and choices ------------------------------------------------------------------------------ */

START_TEST(counts_are_those_of_all_roots) {
    open_engine();
    fill(0, "key:", 20000);
    fill(2, "{one}", 3000);
    for (uint32_t i = 0; i < 500; i++) {
        char name[32];
        snprintf(name, sizeof(name), "ttl:%u", i);
        must(hand_set(&hand, 0, bytes_str(name), BYTES("v"), ENGINE_NOW_MS + 5000));
    }
    expect_eq(keyspace_count(db(0)), 20500);
    expect_eq(keyspace_volatile_count(db(0)), 500);
    expect_eq(keyspace_count(db(1)), 0);
    expect_eq(store_count(engine.store), 23500);
    expect(store_overhead(engine.store) > 23500 * 8);
    close_engine();
}
END_TEST

struct picked {
    uint32_t count;
    char last[32];
};

static void pick(void *arg, struct keyspace *ks, struct entry *e) {
    struct picked *p = arg;
    struct bytes key = entry_key(e);
    (void)ks;
    p->count++;
    snprintf(p->last, sizeof(p->last), "%.*s", (int)key.len, key.ptr);
}

static bool pick_random(uint32_t id, bool locked, struct picked *p) {
    struct store_scan sc = {db(id), SLOT_COUNT, locked, engine_now(&engine), pick, p};
    return store_random(&hand.thread, &sc);
}

START_TEST(a_random_key_is_any_live_key) {
    open_engine();
    struct picked p = {0};
    expect(!pick_random(0, false, &p));
    set(0, "only", "1");
    expect(pick_random(0, false, &p));
    expect(strcmp(p.last, "only") == 0);
    must(hand_set(&hand, 0, BYTES("dead"), BYTES("v"), ENGINE_NOW_MS + 1));
    engine_sleep(&engine, 10);
    for (int i = 0; i < 200; i++) {
        expect(pick_random(0, false, &p));
        expect(strcmp(p.last, "only") == 0);
    }
    expect(del(0, "only"));
    expect(!pick_random(0, false, &p));
    /* In one slot, with all locks held. */
    bool seen[64] = {false};
    fill(0, "{t}", 64);
    store_lock_all(engine.store);
    for (int i = 0; i < 5000; i++) {
        unsigned n;
        expect(pick_random(0, true, &p));
        expect(sscanf(p.last, "{t}%u", &n) == 1 && n < 64); /* NOLINT(cert-err34-c) */
        seen[n] = true;
    }
    store_unlock_all(engine.store);
    for (int i = 0; i < 64; i++) {
        expect(seen[i]);
    }
    expect_eq(p.count, 5201);
    close_engine();
}
END_TEST

START_TEST(prefetching_changes_nothing) {
    open_engine();
    fill(0, "key:", 1000);
    fill(0, "{t}", 2000);
    uint64_t before = store_digest(engine.store);
    for (uint32_t i = 0; i < 3000; i++) {
        char name[32];
        snprintf(name, sizeof(name), "%s%u", i % 2 == 0 ? "key:" : "{t}", i);
        struct key k = store_key(engine.store, bytes_str(name));
        store_prefetch_root(db(i % 3), k.pos);
        store_prefetch_line(db(i % 3), k.pos);
        store_prefetch_entry(engine.store, db(i % 3), k.pos);
    }
    expect_eq(store_digest(engine.store), before);
    close_engine();
}
END_TEST

/* --- flush ------------------------------------------------------------------------------------------- */

START_TEST(a_flush_kills_one_keyspace_at_once) {
    open_engine();
    fill(0, "key:", 5000);
    fill(0, "{t}", 3000);
    fill(1, "key:", 500);
    must(hand_flush(&hand, 0));
    expect_eq(keyspace_count(db(0)), 0);
    expect_eq(keyspace_count(db(1)), 500);
    expect(!alive(0, "key:1") && !alive(0, "{t}1") && alive(1, "key:1"));
    set(0, "key:1", "reborn");
    expect(alive(0, "key:1"));
    expect_eq(keyspace_count(db(0)), 1);
    hand_sweep(&hand, NULL, NULL);
    expect(alive(0, "key:1") && alive(1, "key:1"));
    expect_eq(store_count(engine.store), 501);
    close_engine();
}
END_TEST

START_TEST(what_a_flush_killed_is_reclaimed_in_pieces) {
    open_engine();
    mem_thread_delta();
    fill(0, "key:", 3000);
    fill(0, "{t}", 30000);
    fill(0, "{u}", 30000);
    must(hand_flush(&hand, 0));
    (void)alive(0, "{t}1"); /* clears the root: the table is set aside */
    set(0, "{t}1", "v");
    uint64_t freed = 0, some, steps = 0;
    while ((some = store_reclaim(engine.store, 1000)) > 0) {
        expect(some <= 1000 + PAGE_WORDS_MAX);
        freed += some;
        steps++;
    }
    expect(freed >= 63000 && freed <= 63000 + 20);
    expect(steps > 30);
    expect(alive(0, "{t}1"));
    expect(del(0, "{t}1"));
    hand_sweep(&hand, NULL, NULL);
    expect_eq(store_reclaim(engine.store, UINT64_MAX), 0);
    expect(mem_thread_delta() < 10000);
    close_engine();
}
END_TEST

START_TEST(test_h16_without_memory_for_a_grave_a_flush_still_works) {
    open_engine();
    fill(0, "{t}", 5000);
    must(hand_flush(&hand, 0));
    mem_fault_after(1);
    expect(!alive(0, "{t}1"));
    mem_fault_after(0);
    set(0, "{t}1", "v");
    expect_eq(keyspace_count(db(0)), 1);
    expect_eq(store_reclaim(engine.store, UINT64_MAX), 0);
    close_engine();
}
END_TEST

START_TEST(who_enters_a_flushed_slot_frees_no_blob) {
    enum { LEN = 300000 };
    static char text[LEN];
    memset(text, 'b', sizeof(text));
    for (int memory = 0; memory < 2; memory++) {
        open_engine();
        set(0, "{t}1", "small");
        must(hand_set(&hand, 0, BYTES("{t}2"), bytes_of(text, LEN), EXPIRY_NONE));
        uint64_t version = hand_peek(&hand, 0, BYTES("{t}2"), NULL).version;
        must(hand_flush(&hand, 0));
        (void)mem_thread_delta();
        mem_fault_after(memory == 0); /* then nothing can be put aside */
        expect(!alive(0, "{t}1"));
        mem_fault_after(0);
        expect((mem_thread_delta() > 0) == (memory == 1));
        expect_eq(removed("{t}1"), version);
        set(0, "{t}2", "reborn");
        (void)mem_thread_delta();
        (void)store_reclaim(engine.store, UINT64_MAX);
        expect((mem_thread_delta() <= -LEN) == (memory == 1));
        expect(alive(0, "{t}2"));
        expect_eq(store_count(engine.store), 1);
        close_engine();
    }
}
END_TEST

START_TEST(test_h23_colliding_keys_live_in_two_keyspaces) {
    open_engine();
    for (uint32_t p = 0; p < COLLIDING_PAIRS; p++) {
        for (uint32_t i = 0; i < 4; i++) {
            char text[16];
            snprintf(text, sizeof(text), "%u", 10 * p + i);
            set(i / 2, colliding_keys[p][i % 2], text);
        }
    }
    for (uint32_t p = 0; p < COLLIDING_PAIRS; p++) {
        for (uint32_t i = 0; i < 4; i++) {
            int64_t sum;
            must(hand_incr(&hand, i / 2, bytes_str(colliding_keys[p][i % 2]), 0, &sum));
            expect_eq(sum, 10 * p + i);
        }
        expect(del(0, colliding_keys[p][0]));
        expect(!alive(0, colliding_keys[p][0]) && alive(0, colliding_keys[p][1]));
        expect(alive(1, colliding_keys[p][0]) && alive(1, colliding_keys[p][1]));
    }
    close_engine();
}
END_TEST

CHECK_MAIN("store", slots_are_those_of_redis_cluster, a_key_belongs_to_its_keyspace,
           an_expired_key_is_a_miss_before_it_is_gone, versions_rise_and_stay_with_what_was_written,
           a_slot_remembers_the_newest_version_that_was_removed,
           the_slot_of_a_flushed_large_table_remembers_the_flush, only_accesses_count_as_accesses,
           idle_time_goes_on_without_accesses_and_restarts_with_one, an_idle_time_can_be_given,
           who_is_old_never_looks_young_again, while_there_is_eviction_accesses_make_time,
           counts_are_those_of_all_roots, a_random_key_is_any_live_key, prefetching_changes_nothing,
           a_flush_kills_one_keyspace_at_once, what_a_flush_killed_is_reclaimed_in_pieces,
           test_h16_without_memory_for_a_grave_a_flush_still_works,
           who_enters_a_flushed_slot_frees_no_blob, test_h23_colliding_keys_live_in_two_keyspaces)
