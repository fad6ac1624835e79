/* SPDX-License-Identifier: BSD-3-Clause */
/* DC_SCAN_KEYS sets the size of the large scan (default a million keys in one slot). */
#include "tests/support/collide.h"
#include "tests/support/one_engine.h"

static void set(uint32_t db, const char *prefix, uint32_t i) {
    char name[48];
    int len = snprintf(name, sizeof(name), "%s%u", prefix, i);
    must(hand_set(&hand, db, bytes_of(name, (size_t)len), BYTES("v"), EXPIRY_NONE));
}

static void del(uint32_t db, const char *prefix, uint32_t i) {
    char name[48];
    bool existed;
    int len = snprintf(name, sizeof(name), "%s%u", prefix, i);
    must(hand_del(&hand, db, bytes_of(name, (size_t)len), &existed));
}

/* Counts how often each of the keys prefix0 ... was returned; others are let pass. */
struct census {
    const char *prefix;
    uint32_t count;
    uint8_t *seen;
    uint64_t others;
    uint32_t step; /* entries of this step */
    uint32_t db;
    uint64_t last_pos;
};

static void census_begin(struct census *c, uint32_t db, const char *prefix, uint32_t count) {
    *c = (struct census){.prefix = prefix, .count = count, .db = db};
    c->seen = calloc(count + 1, 1);
}

static void take(void *arg, struct keyspace *ks, struct entry *e) {
    struct census *c = arg;
    struct bytes key = entry_key(e);
    size_t prefix_len = strlen(c->prefix);
    uint64_t n;
    struct key k = store_key(engine.store, key);
    expect(k.pos.v >= c->last_pos || c->step > 0); /* positions rise from step to step */
    expect_eq(keyspace_id(ks), c->db);
    c->step++;
    if (key.len > prefix_len && memcmp(key.ptr, c->prefix, prefix_len) == 0 &&
        num_parse_u64(bytes_of(key.ptr + prefix_len, key.len - prefix_len), &n) && n < c->count) {
        expect_eq(c->seen[n], 0); /* none is repeated */
        c->seen[n]++;
    } else {
        c->others++;
    }
}

static uint64_t step(struct census *c, uint64_t cursor, uint32_t want, bool locked) {
    c->step = 0;
    c->last_pos = cursor;
    struct store_scan sc = {.ks = store_keyspace(engine.store, c->db),
                            .slot_end = SLOT_COUNT,
                            .locked = locked,
                            .now_ms = engine_now(&engine),
                            .visit = take,
                            .arg = c};
    store_scan(&sc, &cursor, want);
    return cursor;
}

static void census_end(struct census *c) {
    for (uint32_t i = 0; i < c->count; i++) {
        expect_eq(c->seen[i], 1); /* none is lost */
    }
    free(c->seen);
}

START_TEST(a_scan_returns_every_key_once) {
    const uint32_t wants[] = {1, 10, 100, 1000000};
    open_engine();
    for (uint32_t i = 0; i < 20000; i++) {
        set(0, "key:", i);
    }
    for (uint32_t i = 0; i < 4; i++) {
        struct census c;
        uint64_t cursor = 0;
        census_begin(&c, 0, "key:", 20000);
        do {
            cursor = step(&c, cursor, wants[i], false);
            expect(cursor == 0 || c.step >= wants[i]);
            expect(c.step < wants[i] + 64);
        } while (cursor != 0);
        expect_eq(c.others, 0);
        census_end(&c);
    }
    close_engine();
}
END_TEST

START_TEST(an_empty_keyspace_is_scanned_in_one_step) {
    struct census c;
    open_engine();
    census_begin(&c, 1, "k", 0);
    expect_eq(step(&c, 0, 10, false), 0);
    set(1, "k", 1);
    del(1, "k", 1);
    expect_eq(step(&c, 0, 10, false), 0);
    expect_eq(c.others, 0);
    census_end(&c);
    close_engine();
}
END_TEST

START_TEST(any_number_is_a_cursor) {
    struct rng r = test_rng();
    struct census c;
    open_engine();
    for (uint32_t i = 0; i < 3000; i++) {
        set(0, "k", i);
        set(0, "{t}k", i);
    }
    for (uint32_t i = 0; i < 2000; i++) {
        uint64_t from = i == 0 ? UINT64_MAX : rng_next(&r);
        census_begin(&c, 0, "k", 3000);
        uint64_t to = step(&c, from, 10, false);
        expect(to == 0 || to > from);
        free(c.seen);
    }
    close_engine();
}
END_TEST

START_TEST(expired_keys_are_passed_over_and_volatile_ones_arent) {
    open_engine();
    struct census c;
    for (uint32_t i = 0; i < 1000; i++) {
        char name[16];
        snprintf(name, sizeof(name), "dead%u", i);
        must(hand_set(&hand, 0, bytes_str(name), BYTES("v"), ENGINE_NOW_MS + 5));
        snprintf(name, sizeof(name), "k%u", i);
        must(hand_set(&hand, 0, bytes_str(name), BYTES("v"), ENGINE_NOW_MS + 500));
    }
    engine_sleep(&engine, 5);
    census_begin(&c, 0, "k", 1000);
    uint64_t cursor = 0;
    do {
        cursor = step(&c, cursor, 10, false);
    } while (cursor != 0);
    expect_eq(c.others, 0);
    census_end(&c);
    close_engine();
}
END_TEST

START_TEST(with_all_locks_held_a_scan_takes_none) {
    open_engine();
    struct census c;
    for (uint32_t i = 0; i < 500; i++) {
        set(0, "k", i);
    }
    store_lock_all(engine.store);
    census_begin(&c, 0, "k", 500);
    expect_eq(step(&c, 0, UINT32_MAX, true), 0);
    census_end(&c);
    store_unlock_all(engine.store);
    close_engine();
}
END_TEST

START_TEST(test_h23_colliding_keys_are_never_parted) {
    open_engine();
    for (uint32_t i = 0; i < 5000; i++) {
        set(0, "{c}x", i);
        set(1, "{c}x", i);
    }
    for (uint32_t p = 0; p < COLLIDING_PAIRS * 2; p++) {
        must(hand_set(&hand, 0, bytes_str(colliding_keys[p / 2][p % 2]), BYTES("v"), EXPIRY_NONE));
    }
    for (uint32_t want = 1; want < 200; want += 7) {
        struct census c;
        uint64_t cursor = 0;
        census_begin(&c, 0, "{c}x", 5000);
        do {
            uint64_t before = c.others;
            cursor = step(&c, cursor, want, false);
            expect((c.others - before) % 2 == 0); /* pairs come together */
        } while (cursor != 0);
        expect_eq(c.others, COLLIDING_PAIRS * 2);
        census_end(&c);
    }
    close_engine();
}
END_TEST

START_TEST(test_h23_a_scan_of_one_huge_slot_loses_and_repeats_none) {
    const char *text = getenv("DC_SCAN_KEYS");
    uint32_t count = text != NULL     ? (uint32_t)strtoul(text, NULL, 10)
                     : TEST_SANITIZED ? 100000
                                      : 1000000;
    open_engine();
    for (uint32_t i = 0; i < count; i++) {
        set(0, "{one}", i);
        if (i % 100 == 0) {
            set(1, "{one}", i); /* the same key elsewhere */
        }
    }
    struct census c;
    uint64_t cursor = 0;
    census_begin(&c, 0, "{one}", count);
    do {
        cursor = step(&c, cursor, 10, false);
        expect(c.step < 100);
    } while (cursor != 0);
    census_end(&c);
    close_engine();
}
END_TEST

/* Keys come and go between the steps, in waves that make the tables grow and shrink; those that stay are seen once. */
static void scan_among_waves(const char *stay, const char *move, uint32_t stay_count,
                             uint32_t move_count) {
    struct rng r = test_rng();
    struct census c;
    open_engine();
    for (uint32_t i = 0; i < stay_count; i++) {
        set(0, stay, i);
    }
    for (int round = 0; round < 6; round++) {
        uint64_t cursor = 0;
        uint32_t steps = 0;
        census_begin(&c, 0, stay, stay_count);
        do {
            cursor = step(&c, cursor, 1 + (uint32_t)rng_below(&r, 30), false);
            bool rising = (steps++ / 10 + (uint32_t)round) % 2 == 0;
            for (uint32_t i = 0; i < move_count / 8; i++) {
                uint32_t k = (uint32_t)rng_below(&r, move_count);
                if (rising) {
                    set(0, move, k);
                } else {
                    del(0, move, k);
                }
            }
            if (steps % 20 == 0) { /* all at once, so that nodes are split and joined */
                for (uint32_t k = 0; k < move_count; k++) {
                    if (steps % 40 == 0) {
                        set(0, move, k);
                    } else {
                        del(0, move, k);
                    }
                }
                hand_sweep(&hand, NULL, NULL);
            }
        } while (cursor != 0);
        census_end(&c);
    }
    close_engine();
}

START_TEST(test_h24_a_table_that_grows_and_shrinks_during_a_scan_hides_nothing) {
    scan_among_waves("{t}stay", "{t}move", 300, 3000);
    scan_among_waves("{t}stay", "{t}move", 1500, 9000);
}
END_TEST

START_TEST(test_h24_the_same_over_all_slots) {
    scan_among_waves("stay", "move", 1000, 6000);
}
END_TEST

CHECK_MAIN("scan", a_scan_returns_every_key_once, an_empty_keyspace_is_scanned_in_one_step,
           any_number_is_a_cursor, expired_keys_are_passed_over_and_volatile_ones_arent,
           with_all_locks_held_a_scan_takes_none, test_h23_colliding_keys_are_never_parted,
           test_h23_a_scan_of_one_huge_slot_loses_and_repeats_none,
           test_h24_a_table_that_grows_and_shrinks_during_a_scan_hides_nothing,
           test_h24_the_same_over_all_slots)
