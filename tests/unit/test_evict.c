/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/thread.h"
#include "tests/support/one_engine.h"

#include <math.h>

static const enum evict_policy policies[] = {
    EVICT_ADAPTIVE,     EVICT_ALLKEYS_LRU,  EVICT_ALLKEYS_LFU,     EVICT_ALLKEYS_RANDOM,
    EVICT_VOLATILE_LRU, EVICT_VOLATILE_LFU, EVICT_VOLATILE_RANDOM, EVICT_VOLATILE_TTL};
enum { POLICIES = 8, ALLKEYS_POLICIES = 4 };

/* Names are a letter and a number, so that the victims can be told apart by their first letter. */
static void fill(char letter, uint32_t count, size_t len, int64_t ttl_ms) {
    static char text[2000];
    char name[16];
    memset(text, 'v', sizeof(text));
    for (uint32_t i = 0; i < count; i++) {
        int64_t expiry_ms = ttl_ms == 0 ? EXPIRY_NONE : engine_now(&engine) + ttl_ms;
        snprintf(name, sizeof(name), "%c%u", letter, i);
        must(hand_set(&hand, 0, bytes_str(name), bytes_of(text, len), expiry_ms));
    }
}

static void get_all(char letter, uint32_t count, uint32_t times) {
    char name[16];
    for (uint32_t i = 0; i < count * times; i++) {
        snprintf(name, sizeof(name), "%c%u", letter, i % count);
        (void)hand_get(&hand, 0, bytes_str(name), NULL);
    }
}

/* The same, but each key's accesses follow each other: its frequency has no time to fade. */
static void get_each(char letter, uint32_t count, uint32_t times) {
    char name[16];
    for (uint32_t i = 0; i < count * times; i++) {
        snprintf(name, sizeof(name), "%c%u", letter, i / times);
        (void)hand_get(&hand, 0, bytes_str(name), NULL);
    }
}

/* As many accesses as 'times' populations, of what isn't there. */
static void pass_populations(uint32_t times) {
    uint32_t count = (uint32_t)store_count(engine.store);
    get_all('-', count, times);
}

struct victims {
    uint32_t count;
    uint32_t by_letter[128];
};

static void note_victim(void *arg, struct keyspace *ks, struct entry *e) {
    struct victims *v = arg;
    (void)ks;
    v->count++;
    v->by_letter[entry_key(e).ptr[0] & 127]++;
}

static struct victims evict(enum evict_policy policy, uint32_t count) {
    struct victims v = {0};
    for (uint32_t i = 0; i < count; i++) {
        if (!hand_evict(&hand, policy, 10, note_victim, &v)) {
            break;
        }
    }
    expect_eq(v.count <= count, true);
    return v;
}

/* The clock of accesses ticks by accesses. */
static void begin_pressure(void) {
    struct victim v;
    (void)store_pick_victim(&hand.thread, EVICT_ALLKEYS_RANDOM, 1, engine_now(&engine), &v);
    store_tick(engine.store, engine_now(&engine));
}

/* An engine with so many small keys of two letters, under pressure. */
static void open_with(char a, uint32_t a_count, char b, uint32_t b_count) {
    open_engine();
    fill(a, a_count, 50, 0);
    fill(b, b_count, 50, 0);
    begin_pressure();
}

/* Of 'count' victims at least so many have the letter. */
static void expect_victims(enum evict_policy policy, uint32_t count, char letter, uint32_t least) {
    struct victims v = evict(policy, count);
    expect(v.by_letter[letter & 127] >= least);
}

START_TEST(every_policy_evicts_all_that_it_may_and_then_says_so) {
    for (uint32_t i = 0; i < POLICIES; i++) {
        open_engine();
        fill('p', 500, 50, 0);
        fill('v', 500, 50, 3600000);
        expect_eq(evict(policies[i], 2000).count, i < ALLKEYS_POLICIES ? 1000 : 500);
        expect_eq(store_count(engine.store), i < ALLKEYS_POLICIES ? 0 : 500);
        expect(!hand_evict(&hand, policies[i], 10, NULL, NULL));
        expect_eq(keyspace_volatile_count(store_keyspace(engine.store, 0)), 0);
        close_engine();
    }
}
END_TEST

START_TEST(the_policy_none_evicts_nothing) {
    struct victim v;
    open_engine();
    fill('k', 100, 50, 1000);
    expect(!store_pick_victim(&hand.thread, EVICT_NONE, 10, engine_now(&engine), &v));
    expect_eq(store_count(engine.store), 100);
    close_engine();
}
END_TEST

START_TEST(an_empty_store_has_no_victims) {
    open_engine();
    for (uint32_t i = 0; i < POLICIES; i++) {
        expect(!hand_evict(&hand, policies[i], 10, NULL, NULL));
    }
    close_engine();
}
END_TEST

START_TEST(a_single_key_in_a_large_table_of_slots_is_found) {
    open_engine();
    for (uint32_t i = 0; i < POLICIES; i++) {
        for (uint32_t db = 0; db < KEYSPACE_MAX; db += 15) {
            must(hand_set(&hand, db, BYTES("k"), BYTES("v"), engine_now(&engine) + 1000));
            expect(hand_evict(&hand, policies[i], 10, NULL, NULL));
            expect_eq(store_count(engine.store), 0);
        }
    }
    close_engine();
}
END_TEST

START_TEST(lru_evicts_what_was_used_longest_ago) {
    open_with('o', 3000, 'n', 3000);
    get_all('n', 3000, 1);
    expect_victims(EVICT_ALLKEYS_LRU, 2000, 'o', 1980);
    close_engine();
}
END_TEST

START_TEST(lfu_evicts_what_was_used_least) {
    open_with('h', 3000, 'c', 3000);
    get_all('h', 3000, 10);
    get_all('c', 3000, 1); /* later, but rarely */
    expect_victims(EVICT_ALLKEYS_LFU, 2000, 'c', 1980);
    close_engine();
}
END_TEST

START_TEST(lfu_looks_at_frequencies_before_ages) {
    open_with('h', 600, 'c', 5400);
    get_each('h', 600, 10);
    pass_populations(8);
    get_all('c', 5400, 1); /* a moment ago, but once */
    expect_victims(EVICT_ALLKEYS_LFU, 500, 'c', 495);
    close_engine();
}
END_TEST

START_TEST(ttl_evicts_what_would_expire_soonest) {
    open_engine();
    fill('s', 3000, 50, 60000);
    fill('l', 3000, 50, 600000);
    fill('p', 3000, 50, 0);
    struct victims v = evict(EVICT_VOLATILE_TTL, 2000);
    expect(v.by_letter['s'] >= 1980);
    expect_eq(v.by_letter['p'], 0);
    close_engine();
}
END_TEST

START_TEST(random_evicts_without_regard) {
    open_with('a', 3000, 'b', 3000);
    get_all('a', 3000, 10);
    struct victims v = evict(EVICT_ALLKEYS_RANDOM, 3000);
    expect(v.by_letter['a'] > 1200 && v.by_letter['b'] > 1200);
    close_engine();
}
END_TEST

START_TEST(adaptive_weighs_use_age_and_size) {
    open_engine();
    fill('l', 2000, 1000, 0); /* large */
    fill('s', 2000, 50, 0);   /* small */
    fill('h', 2000, 1000, 0); /* large, but hot */
    begin_pressure();
    get_all('h', 2000, 40);
    struct victims v = evict(EVICT_ADAPTIVE, 1500);
    expect(v.by_letter['l'] >= 1450);
    expect(v.by_letter['h'] <= 10);
    close_engine();
}
END_TEST

START_TEST(adaptive_forgets_an_old_favourite) {
    open_with('f', 500, 'n', 3500);
    get_each('f', 500, 40);
    get_all('n', 3500, 1);
    /* Still a favourite, though the others were used later. */
    expect_victims(EVICT_ADAPTIVE, 100, 'n', 98);
    /* Nobody asks for it any more. Its age alone would not outweigh its hits; but they fade, too, and the others have some. */
    get_all('n', 3500, 20);
    expect_victims(EVICT_ADAPTIVE, 150, 'f', 135);
    close_engine();
}
END_TEST

/* --- fading ------------------------------------------------------------------------------------------ */

/* The hits that are left of so many after 'age' ticks, on average over entries whose versions lie 'stride' apart. */
static double mean_hits_left(uint32_t hits, uint32_t age, uint64_t stride) {
    enum { ENTRIES = 1 << 12 };
    struct entry_spec spec = {BYTES("k"), value_int(1), EXPIRY_NONE};
    struct entry *e = entry_create(&spec);
    uint64_t sum = 0;
    expect(e != NULL);
    for (uint64_t i = 0; i < ENTRIES; i++) {
        entry_set_version(e, 1000 + i * stride);
        e->freq = (uint8_t)(hits + 1);
        hand.thread.tick = (uint16_t)(65500 + age); /* comes round */
        entry_set_stamp(e, 65500);
        store_touch(&hand.thread, e);
        expect_eq(entry_stamp(e), hand.thread.tick);
        expect(e->freq >= 2 && e->freq <= hits + 2);
        sum += e->freq - 2u; /* the first access, and the one just now */
    }
    entry_destroy(e);
    return (double)sum / ENTRIES;
}

/* Fairly: where less than one hit is left, some entries keep one; also when they were written at even distances. */
static void expect_left(uint32_t hits, uint32_t age, double wanted) {
    for (uint64_t stride = 1; stride < 100000; stride *= 84) {
        expect(fabs(mean_hits_left(hits, age, stride) - wanted) < 0.02);
    }
}

START_TEST(half_of_a_frequency_fades_with_each_population) {
    static const uint32_t hits[] = {1, 2, 3, 7, 40, 253};
    open_engine();
    for (uint32_t i = 0; i < sizeof(hits) / sizeof(hits[0]); i++) {
        double left = hits[i];
        for (uint32_t populations = 0; populations < 8; populations++) {
            uint32_t age = populations * TICKS_PER_POPULATION;
            expect_left(hits[i], age, left);
            expect_left(hits[i], age + TICKS_PER_POPULATION / 2, left * 0.75);
            left /= 2;
        }
        expect_left(hits[i], 8 * TICKS_PER_POPULATION, 0);
        expect_left(hits[i], 40000, 0);
    }
    close_engine();
}
END_TEST

START_TEST(a_frequency_ends_at_255) {
    open_engine();
    must(hand_set(&hand, 0, BYTES("k"), BYTES("v"), EXPIRY_NONE));
    for (int i = 0; i < 1000; i++) {
        (void)hand_get(&hand, 0, BYTES("k"), NULL);
    }
    struct key k = store_key(engine.store, BYTES("k"));
    const struct entry *e =
        store_peek(&hand.thread, store_keyspace(engine.store, 0), &k, engine_now(&engine));
    expect(e != NULL);
    expect_eq(e->freq, 255);
    close_engine();
}
END_TEST

START_TEST(volatile_policies_never_touch_what_has_no_expiry) {
    for (uint32_t i = ALLKEYS_POLICIES; i < POLICIES; i++) {
        open_engine();
        fill('p', 3000, 50, 0);
        fill('v', 300, 50, 100000);
        struct victims v = evict(policies[i], 1000);
        expect_eq(v.by_letter['p'], 0);
        expect_eq(v.by_letter['v'], 300);
        close_engine();
    }
}
END_TEST

START_TEST(what_has_expired_goes_first) {
    for (uint32_t i = 0; i < POLICIES; i++) {
        open_engine();
        fill('x', 1000, 50, 10);
        fill('v', 3000, 50, 600000);
        engine_sleep(&engine, 10);
        struct victims v = evict(policies[i], 500);
        expect(v.by_letter['x'] >= 495 || v.count < 500);
        close_engine();
    }
}
END_TEST

START_TEST(a_victim_that_was_used_meanwhile_is_spared) {
    open_engine();
    fill('k', 200, 50, 0);
    begin_pressure();
    uint32_t spared = 0, gone = 0;
    for (int i = 0; i < 50; i++) {
        struct victim v;
        expect(store_pick_victim(&hand.thread, EVICT_ALLKEYS_LRU, 10, engine_now(&engine), &v));
        get_all('k', 200, 2); /* time passes */
        store_lock(engine.store, pos_slot(v.pos));
        struct entry *e = store_victim(&hand.thread, &v);
        spared += e == NULL;
        gone += e != NULL;
        store_unlock(engine.store, pos_slot(v.pos));
    }
    expect_eq(spared, 50);
    expect_eq(gone, 0);
    close_engine();
}
END_TEST

START_TEST(a_victim_that_is_another_now_is_spared) {
    open_engine();
    struct victim v;
    must(hand_set(&hand, 0, BYTES("k"), BYTES("v"), EXPIRY_NONE));
    expect(store_pick_victim(&hand.thread, EVICT_ALLKEYS_RANDOM, 10, engine_now(&engine), &v));
    must(hand_set(&hand, 0, BYTES("k"), BYTES("w"), EXPIRY_NONE));
    store_lock(engine.store, pos_slot(v.pos));
    expect(store_victim(&hand.thread, &v) == NULL);
    store_unlock(engine.store, pos_slot(v.pos));
    /* And one that was flushed. */
    expect(store_pick_victim(&hand.thread, EVICT_ALLKEYS_RANDOM, 10, engine_now(&engine), &v));
    must(hand_flush(&hand, 0));
    store_lock(engine.store, pos_slot(v.pos));
    expect(store_victim(&hand.thread, &v) == NULL);
    store_unlock(engine.store, pos_slot(v.pos));
    expect(!hand_evict(&hand, EVICT_ALLKEYS_RANDOM, 10, NULL, NULL));
    close_engine();
}
END_TEST

START_TEST(a_change_of_policy_forgets_old_candidates) {
    open_engine();
    fill('p', 500, 50, 0);
    (void)evict(EVICT_ALLKEYS_LRU, 10);
    fill('v', 50, 50, 100000);
    struct victims v = evict(EVICT_VOLATILE_LRU, 20);
    expect_eq(v.by_letter['p'], 0);
    expect_eq(v.by_letter['v'], 20);
    close_engine();
}
END_TEST

/* --- H17 --------------------------------------------------------------------------------------------- */

enum { THREADS = 4, WRITES = 30000, KEYS_MAX = 2000 };

struct writer {
    struct hand hand;
    uint32_t number;
};

/* Writes into all slots and evicts in all slots: before each write, as the node does it. */
static void write_and_evict(void *arg) {
    struct writer *w = arg;
    struct rng r;
    char name[32];
    rng_seed(&r, w->number);
    for (uint32_t i = 0; i < WRITES; i++) {
        if (store_count(engine.store) > KEYS_MAX && i % 8 == 0) {
            for (int n = 0; n < 10; n++) {
                (void)hand_evict(&w->hand, EVICT_ADAPTIVE, 5, NULL, NULL);
            }
        }
        snprintf(name, sizeof(name), "key:%u", (uint32_t)rng_below(&r, 20000));
        if (i % 10 == 0) {
            bool existed;
            must(hand_rename(&w->hand, 0, bytes_str(name), BYTES("{there}key"), &existed));
        } else {
            must(hand_set(&w->hand, 0, bytes_str(name), bytes_str(name), EXPIRY_NONE));
        }
    }
}

START_TEST(test_h17_writers_that_evict_in_each_others_slots_dont_deadlock) {
    static struct writer writers[THREADS];
    struct thread threads[THREADS];
    open_engine();
    for (uint32_t i = 0; i < THREADS; i++) {
        writers[i].number = i;
        hand_init(&writers[i].hand, &engine, i);
        thread_start(&threads[i], "writer", write_and_evict, &writers[i]);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        thread_join(&threads[i]);
        hand_fini(&writers[i].hand);
    }
    expect(store_count(engine.store) <= KEYS_MAX + 8 * THREADS + 100);
    close_engine();
}
END_TEST

CHECK_MAIN("evict", every_policy_evicts_all_that_it_may_and_then_says_so,
           the_policy_none_evicts_nothing, an_empty_store_has_no_victims,
           a_single_key_in_a_large_table_of_slots_is_found, lru_evicts_what_was_used_longest_ago,
           lfu_evicts_what_was_used_least, lfu_looks_at_frequencies_before_ages,
           ttl_evicts_what_would_expire_soonest, random_evicts_without_regard,
           adaptive_weighs_use_age_and_size, adaptive_forgets_an_old_favourite,
           half_of_a_frequency_fades_with_each_population, a_frequency_ends_at_255,
           volatile_policies_never_touch_what_has_no_expiry, what_has_expired_goes_first,
           a_victim_that_was_used_meanwhile_is_spared, a_victim_that_is_another_now_is_spared,
           a_change_of_policy_forgets_old_candidates,
           test_h17_writers_that_evict_in_each_others_slots_dont_deadlock)
