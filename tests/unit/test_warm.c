/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "server/base/time.h"
#include "server/store/load.h"
#include "tests/support/check_main.h"
#include "tests/support/data_case.h"
#include "tests/support/expect.h"

#include <sys/stat.h>

static struct data_case c;

static void set_many(uint32_t db, const char *prefix, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        char key[32], text[64];
        int len = snprintf(text, sizeof(text), "the value of %s%u in %u", prefix, i, db);
        must(hand_set(&c.hand, db, key_of(key, prefix, i), bytes_of(text, (size_t)len),
                      EXPIRY_NONE));
    }
}

/* What the loaded store has. */
static struct entry *peek(uint32_t db, struct bytes name) {
    struct key k = store_key(c.store, name);
    return store_peek(&c.thread, store_keyspace(c.store, db), &k, engine_now(&c.engine));
}

static bool is_there(uint32_t db, struct bytes name) {
    return peek(db, name) != NULL;
}

static void damage_a_block(const char *name) {
    char path[512], junk[16] = "damaged block";
    snprintf(path, sizeof(path), "%s/%s", c.dir, name);
    file_poke(path, SNAP_HEADER_LEN + 100, junk, sizeof(junk));
}

START_TEST(a_touch_loads_a_range_and_nothing_else) {
    char name[32];
    case_open(&c);
    set_many(0, "key:", 2000);
    case_snapshot(&c);
    set_many(0, "new:", 500);
    case_write_log(&c, 0, 0);
    case_attach(&c);
    expect(!warm_is_over(c.warm));
    struct warm_stats stats;
    warm_stats(c.warm, &stats);
    uint32_t warm_before = stats.ranges_warm;
    uint32_t slot = store_slot(key_of(name, "key:", 7));
    expect(!warm_slot_is_ready(c.warm, slot));
    expect(warm_cost(c.warm, slot) > 0);
    expect_eq(keyspace_count(store_keyspace(c.store, 0)), 0);
    must(warm_touch(c.warm, &c.thread, slot));
    must(warm_touch(c.warm, &c.thread, slot));
    expect(warm_slot_is_ready(c.warm, slot));
    expect_eq(warm_cost(c.warm, slot), 0);
    expect(is_there(0, key_of(name, "key:", 7)));
    warm_stats(c.warm, &stats);
    expect_eq(stats.ranges_warm, warm_before + 1);
    expect_eq(stats.entries_expected, 2000);
    expect_eq(stats.effects_expected, 500);
    for (uint32_t i = 0; i < 500; i++) {
        slot = store_slot(key_of(name, "new:", i));
        must(warm_touch(c.warm, &c.thread, slot));
        expect(is_there(0, key_of(name, "new:", i)));
    }
    must(warm_all(c.warm, &c.thread));
    expect(warm_is_over(c.warm));
    warm_stats(c.warm, &stats);
    expect_eq(stats.ranges_warm, stats.ranges);
    expect_eq(stats.entries_loaded, 2000);
    expect_eq(stats.effects_applied, 500);
    case_same(&c);
    case_close(&c);
}
END_TEST

START_TEST(values_of_every_kind_come_back) {
    case_open(&c);
    size_t len = BLOB_MIN_LEN + 300000;
    char *text = mem_must_alloc(len);
    for (size_t i = 0; i < len; i++) {
        text[i] = (char)(i * 2654435761u >> 13);
    }
    for (int round = 0; round < 2; round++) {
        uint32_t db = round == 0 ? 3 : 4;
        must(hand_set(&c.hand, db, BYTES("empty"), BYTES(""), EXPIRY_NONE));
        must(hand_set(&c.hand, db, BYTES("int"), BYTES("-9223372036854775808"), EXPIRY_NONE));
        must(hand_set(&c.hand, db, BYTES("text"), BYTES("text"), ENGINE_NOW_MS + 10));
        must(hand_set(&c.hand, db, BYTES("late"), BYTES("text"), INT64_MAX));
        must(hand_set(&c.hand, db, bytes_of(text, 70000), BYTES("long key"), EXPIRY_NONE));
        must(hand_set(&c.hand, db, BYTES("blob"), bytes_of(text, len), ENGINE_NOW_MS + 10));
        must(hand_append(&c.hand, db, BYTES("blob"), BYTES("!")));
        must(hand_append(&c.hand, db, BYTES("raw"), BYTES("raw")));
        if (round == 0) {
            case_snapshot(&c);
        }
    }
    must(hand_append(&c.hand, 3, BYTES("blob"), BYTES("behind the snapshot")));
    mem_free(text);
    case_write_log(&c, 0, 0);
    case_load(&c);
    case_same(&c);
    case_close(&c);
}
END_TEST

static _Atomic uint32_t done_calls;

static void count_done(void *arg) {
    (void)arg;
    atomic_fetch_add(&done_calls, 1);
}

static void wait_until_over(void) {
    while (atomic_load(&done_calls) == 0) {
        usleep(1000);
    }
}

START_TEST(loaders_load_everything_and_say_so_once) {
    char name[32];
    case_open(&c);
    set_many(0, "key:", 5000);
    set_many(7, "key:", 500);
    case_snapshot(&c);
    set_many(0, "key:", 2500);
    case_write_log(&c, 0, 0);
    case_attach(&c);
    atomic_store(&done_calls, 0);
    warm_request(c.warm, store_slot(key_of(name, "key:", 4999)));
    warm_request(c.warm, store_slot(key_of(name, "key:", 4999)));
    warm_start(c.warm, 2, count_done, NULL);
    wait_until_over();
    expect(warm_is_over(c.warm));
    case_same(&c);
    case_forget(&c); /* joins them */
    expect_eq(atomic_load(&done_calls), 1);
    case_close(&c);
}
END_TEST

/* A log says how many effects a slot has, not how many keys. */
START_TEST(tables_are_as_large_as_what_a_log_leaves) {
    enum { KEYS = 2 * SLOT_COUNT };
    case_open(&c);
    for (uint32_t i = 0; i < 20; i++) {
        set_many(0, "key:", KEYS);
    }
    case_write_log(&c, 0, 0);
    case_attach(&c);
    atomic_store(&done_calls, 0);
    warm_start(c.warm, 2, count_done, NULL);
    wait_until_over();
    case_same(&c);
    expect(store_overhead(c.store) <= store_overhead(c.engine.store) * 11 / 10);
    case_close(&c);
}
END_TEST

START_TEST(loading_can_be_stopped_in_the_middle) {
    case_open(&c);
    set_many(0, "key:", 20000);
    case_snapshot(&c);
    case_attach(&c);
    atomic_store(&done_calls, 0);
    warm_start(c.warm, 2, count_done, NULL);
    case_close(&c);
}
END_TEST

/* Clients: each key that is touched is there with its value, whoever loads its range. */
struct client {
    struct thread thread;
    uint64_t seed;
    uint32_t keys;
    bool right;
};

static void be_client(void *arg) {
    struct client *cl = arg;
    struct rng r;
    struct store_thread t;
    struct metric_slot metrics = {0};
    rng_seed(&r, cl->seed);
    store_thread_init(&t, c.store, &metrics, cl->seed);
    cl->right = true;
    while (!warm_is_over(c.warm) && cl->right) {
        char name[32], want[64];
        uint32_t i = (uint32_t)rng_below(&r, cl->keys);
        struct key k = store_key(c.store, key_of(name, "key:", i));
        int len = snprintf(want, sizeof(want), "the value of key:%u in 0", i);
        if (warm_touch(c.warm, &t, key_slot(&k)) != DC_OK) {
            cl->right = false;
            break;
        }
        store_lock(c.store, key_slot(&k));
        const struct entry *e = store_get(&t, store_keyspace(c.store, 0), &k, ENGINE_NOW_MS);
        struct value v = {.kind = VALUE_INT};
        if (e != NULL) {
            entry_value(e, &v);
        }
        cl->right = v.kind == VALUE_STR && bytes_equal(v.str, bytes_of(want, (size_t)len));
        store_unlock(c.store, key_slot(&k));
    }
}

START_TEST(clients_and_loaders_at_the_same_time) {
    enum { KEYS = 20000, CLIENTS = 3 };
    struct client clients[CLIENTS];
    case_open(&c);
    set_many(0, "key:", KEYS);
    case_snapshot(&c);
    set_many(0, "key:", KEYS / 2);
    case_write_log(&c, 0, 0);
    case_attach(&c);
    atomic_store(&done_calls, 0);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){.seed = test_seed_value + i, .keys = KEYS};
        thread_start(&clients[i].thread, "client", be_client, &clients[i]);
    }
    warm_start(c.warm, 2, count_done, NULL);
    wait_until_over();
    for (uint32_t i = 0; i < CLIENTS; i++) {
        thread_join(&clients[i].thread);
        expect(clients[i].right);
    }
    case_same(&c);
    case_close(&c);
}
END_TEST

/* As FLUSHDB does it: the store first, then what is cold. */
static void flush(struct keyspace *ks) {
    struct mut m;
    mut_init(&m, c.store, &c.thread);
    store_lock_all(c.store);
    for (uint32_t i = 0; i < store_keyspace_count(c.store); i++) {
        if (ks == NULL || ks == store_keyspace(c.store, i)) {
            must(mut_flush(&m, store_keyspace(c.store, i)));
            m.effects[m.count - 1].version = log_file_end(&c.log) + 100 + i;
        }
    }
    mut_commit(&m);
    warm_drop(c.warm, ks);
    store_unlock_all(c.store);
    mut_fini(&m);
}

START_TEST(test_h32_a_flush_while_warming) {
    for (int all = 0; all < 2; all++) {
        case_open(&c);
        set_many(0, "key:", 3000);
        set_many(1, "key:", 3000);
        case_snapshot(&c);
        set_many(0, "new:", 1000);
        set_many(1, "new:", 1000);
        case_write_log(&c, 0, 0);
        case_attach(&c);
        for (uint32_t slot = 0; slot < SLOT_COUNT / 3; slot++) {
            must(warm_touch(c.warm, &c.thread, slot));
        }
        expect(keyspace_count(store_keyspace(c.store, 0)) > 0);
        atomic_store(&done_calls, 0);
        warm_start(c.warm, 2, count_done, NULL);
        flush(all ? NULL : store_keyspace(c.store, 0));
        wait_until_over();
        expect_eq(keyspace_count(store_keyspace(c.store, 0)), 0);
        expect_eq(keyspace_count(store_keyspace(c.store, 1)), all ? 0 : 4000);
        case_close(&c);
    }
}
END_TEST

/* --- damage ------------------------------------------------------------------------------------------ */

START_TEST(test_h34_a_damaged_block_is_rebuilt_from_the_older_snapshot) {
    case_open(&c);
    set_many(0, "key:", 3000);
    must(hand_flush(&c.hand, 2));
    case_snapshot(&c);
    set_many(0, "key:", 1000);
    set_many(1, "other:", 1000);
    case_snapshot(&c);
    set_many(0, "key:", 2000);
    case_write_log(&c, 0, 0);
    case_attach(&c);
    damage_a_block(c.snapshot);
    must(warm_all(c.warm, &c.thread));
    expect(warm_is_over(c.warm));
    case_same(&c);
    expect(file_exists(c.dir, c.snapshot));
    case_close(&c);
}
END_TEST

START_TEST(test_h34_a_range_that_cannot_be_loaded_answers_an_error_for_ever) {
    struct warm_stats stats;
    case_open(&c);
    set_many(0, "key:", 3000);
    case_snapshot(&c);
    case_attach(&c);
    damage_a_block(c.snapshot);
    atomic_store(&done_calls, 0);
    warm_start(c.warm, 1, count_done, NULL);
    wait_until_over();
    expect(!warm_is_over(c.warm));
    warm_stats(c.warm, &stats);
    expect_eq(stats.ranges_failed, 1);
    expect_eq(stats.ranges_warm, stats.ranges - 1);
    uint32_t missing = 0;
    for (uint32_t i = 0; i < 3000; i++) {
        char name[32];
        struct bytes key = key_of(name, "key:", i);
        uint32_t slot = store_slot(key);
        enum dc_err err = warm_touch(c.warm, &c.thread, slot);
        if (err == DC_OK) {
            expect(is_there(0, key));
            continue;
        }
        expect_eq(err, DC_ECORRUPT);
        expect(strstr(dc_fail_take(err), "can't be rebuilt") != NULL);
        expect(!warm_slot_is_ready(c.warm, slot));
        expect_eq(warm_cost(c.warm, slot), 0);
        missing++;
    }
    expect(missing > 0);
    expect_eq(warm_all(c.warm, &c.thread), DC_ECORRUPT);
    case_close(&c);
}
END_TEST

/* The bytes of effects are read again when their range is loaded. By then the disk may fail, or somebody has cut the file. */
START_TEST(effects_that_cannot_be_read_any_more_are_an_error_and_no_signal) {
    char path[512];
    uint32_t lost = 0;
    case_open(&c);
    set_many(0, "key:", 3000);
    case_write_log(&c, 0, 0);
    case_attach(&c);
    io_catch_faults();
    log_file_path(&c.log, c.dir, 0, path, sizeof(path));
    ck_assert_int_eq(truncate(path, 128 * 1024), 0);
    expect_eq(warm_all(c.warm, &c.thread), DC_ECORRUPT);
    for (uint32_t i = 0; i < 3000; i++) {
        char name[32];
        struct bytes key = key_of(name, "key:", i);
        if (warm_touch(c.warm, &c.thread, store_slot(key)) == DC_OK) {
            expect(is_there(0, key));
            continue;
        }
        expect(strstr(dc_fail_take(DC_ECORRUPT), "can't be read any more") != NULL);
        lost++;
    }
    expect(lost > 0 && lost < 3000);
    case_close(&c);
}
END_TEST

/* Every byte counts: what is loaded is right, or it is an error. */
START_TEST(flipped_bytes_of_a_snapshot_are_never_served) {
    char path[512];
    struct stat st;
    case_open(&c);
    set_many(0, "key:", 60);
    must(hand_expire(&c.hand, 0, BYTES("key:1"), ENGINE_NOW_MS + 5, &(bool){false}));
    case_snapshot(&c);
    snprintf(path, sizeof(path), "%s/%s", c.dir, c.snapshot);
    ck_assert_int_eq(stat(path, &st), 0);
    char *bytes = mem_must_alloc((size_t)st.st_size);
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fread(bytes, 1, (size_t)st.st_size, f), (size_t)st.st_size);
    fclose(f);
    for (int64_t at = 0; at < st.st_size; at += TEST_SANITIZED ? 61 : 7) {
        char flipped = (char)(bytes[at] ^ 1 << at % 8);
        file_poke(path, at, &flipped, 1);
        if (case_scan(&c) == DC_OK) {
            case_forget(&c);
            case_attach(&c);
            expect_eq(warm_all(c.warm, &c.thread), DC_ECORRUPT);
        }
        case_forget(&c);
        file_poke(path, at, &bytes[at], 1);
    }
    mem_free(bytes);
    case_load(&c);
    case_same(&c);
    case_close(&c);
}
END_TEST

START_TEST(a_range_that_lacks_memory_is_tried_again) {
    case_open(&c);
    set_many(0, "key:", 2000);
    case_snapshot(&c);
    set_many(0, "new:", 1000);
    case_write_log(&c, 0, 0);
    case_attach(&c);
    uint32_t failures = 0;
    for (uint32_t slot = 0; slot < SLOT_COUNT; slot += 4) {
        mem_fault_after(1 + slot % 29);
        enum dc_err err = warm_touch(c.warm, &c.thread, slot);
        mem_fault_after(0);
        if (err != DC_OK) {
            expect_eq(err, DC_ENOMEM);
            expect(!warm_slot_is_ready(c.warm, slot));
            failures++;
        }
    }
    expect(failures > 0);
    must(warm_all(c.warm, &c.thread));
    case_same(&c);
    case_close(&c);
}
END_TEST

/* --- memory ------------------------------------------------------------------------------------------ */

static uint64_t evicted;

static enum dc_err evict(void *arg, struct mut *m) {
    (void)arg;
    for (uint32_t i = 0; i < m->count; i++) {
        expect_eq(m->effects[i].kind, MUT_DEL);
        m->effects[i].version = 1000000000000u + evicted;
        evicted++;
    }
    mut_commit(m);
    return DC_OK;
}

static enum dc_err evict_not(void *arg, struct mut *m) {
    (void)arg, (void)m;
    return DC_EMISCONF;
}

START_TEST(test_h33_what_does_not_fit_is_left_out_and_what_clients_touched_stays) {
    enum { KEYS = 20000, HOT = 5 };
    char name[32];
    struct warm_stats stats;
    case_open(&c);
    set_many(0, "key:", KEYS);
    case_snapshot(&c);
    for (int refuses = 0; refuses < 2; refuses++) {
        evicted = 0;
        case_attach(&c);
        for (uint32_t i = 0; i < HOT; i++) {
            must(warm_touch(c.warm, &c.thread, store_slot(key_of(name, "key:", i))));
        }
        warm_set_limit(c.warm, 1, EVICT_ADAPTIVE); /* nothing fits any more */
        warm_set_evict(c.warm, refuses ? evict_not : evict, NULL);
        must(warm_all(c.warm, &c.thread));
        for (uint32_t i = 0; i < HOT; i++) {
            expect(is_there(0, key_of(name, "key:", i)));
        }
        warm_stats(c.warm, &stats);
        expect_eq(stats.entries_left_out, evicted);
        expect_eq(keyspace_count(store_keyspace(c.store, 0)) + evicted, KEYS);
        expect(refuses ? evicted == 0 : evicted > KEYS / 2);
        case_forget(&c);
    }
    case_close(&c);
}
END_TEST

START_TEST(the_least_used_are_left_out_first) {
    enum { KEYS = 100000, ROOM = 4 * 1024 * 1024 };
    char name[32];
    case_open(&c);
    set_many(0, "key:", KEYS);
    for (uint32_t i = 0; i < KEYS; i += 2) { /* every second one is popular */
        for (int n = 0; n < 8; n++) {
            (void)hand_get(&c.hand, 0, key_of(name, "key:", i), NULL);
        }
    }
    case_snapshot(&c);
    case_attach(&c);
    struct mem_stats mem;
    mem_stats_read(&mem);
    uint64_t before = mem.allocated;
    warm_set_limit(c.warm, before + ROOM, EVICT_ADAPTIVE); /* more than half */
    must(warm_all(c.warm, &c.thread));
    uint32_t there[2] = {0, 0};
    for (uint32_t i = 0; i < KEYS; i++) {
        there[i % 2] += is_there(0, key_of(name, "key:", i));
    }
    mem_stats_read(&mem);
    expect(mem.allocated < before + ROOM + ROOM / 2);
    expect(there[0] + there[1] < KEYS);
    expect(there[0] > KEYS / 4);
    ck_assert_msg(there[0] > there[1], "%u popular, %u not", there[0], there[1]);
    case_close(&c);
}
END_TEST

enum { KINDS = 3, OF_A_KIND = 3000 };

/* Loads into 'room' bytes (0 = into none); how many of each kind have stayed: small, large, with an expiry. */
static void load_with_policy(enum evict_policy policy, uint64_t room, uint32_t stayed[KINDS]) {
    struct mem_stats mem;
    char name[32];
    case_attach(&c);
    mem_stats_read(&mem);
    warm_set_limit(c.warm, room == 0 ? 1 : mem.allocated + room, policy);
    must(warm_all(c.warm, &c.thread));
    memset(stayed, 0, KINDS * sizeof(*stayed));
    for (uint32_t i = 0; i < OF_A_KIND; i++) {
        stayed[0] += is_there(0, key_of(name, "small:", i));
        stayed[1] += is_there(0, key_of(name, "large:", i));
        stayed[2] += is_there(0, key_of(name, "dies:", i));
    }
    case_forget(&c);
}

START_TEST(what_is_left_out_is_what_the_policy_would_evict) {
    char name[32], text[2000];
    uint32_t stayed[KINDS];
    memset(text, 'x', sizeof(text));
    case_open(&c);
    for (uint32_t i = 0; i < OF_A_KIND; i++) {
        must(hand_set(&c.hand, 0, key_of(name, "small:", i), BYTES("small"), EXPIRY_NONE));
        must(hand_set(&c.hand, 0, key_of(name, "large:", i), bytes_of(text, sizeof(text)),
                      EXPIRY_NONE));
        must(hand_set(&c.hand, 0, key_of(name, "dies:", i), BYTES("value"),
                      ENGINE_NOW_MS + 100000 + i));
    }
    case_snapshot(&c);
    load_with_policy(EVICT_NONE, 0, stayed);
    expect(stayed[0] == OF_A_KIND && stayed[1] == OF_A_KIND && stayed[2] == OF_A_KIND);
    load_with_policy(EVICT_VOLATILE_LRU, 0, stayed);
    expect(stayed[0] == OF_A_KIND && stayed[1] == OF_A_KIND && stayed[2] < OF_A_KIND / 4);
    load_with_policy(EVICT_VOLATILE_RANDOM, 0, stayed);
    expect(stayed[0] == OF_A_KIND && stayed[1] == OF_A_KIND && stayed[2] < OF_A_KIND / 4);
    load_with_policy(EVICT_ADAPTIVE, OF_A_KIND * 1000,
                     stayed); /* a large one costs more than it earns */
    expect(stayed[1] > OF_A_KIND / 10 && stayed[1] < OF_A_KIND * 3 / 4);
    expect(stayed[0] > OF_A_KIND * 9 / 10 && stayed[2] > OF_A_KIND * 9 / 10);
    load_with_policy(EVICT_ALLKEYS_RANDOM, OF_A_KIND * 1000, stayed);
    expect(stayed[0] < OF_A_KIND * 3 / 4 && stayed[0] > OF_A_KIND / 10);
    case_close(&c);
}
END_TEST

START_TEST(what_dies_first_is_left_out_first_with_volatile_ttl) {
    enum { KEYS = 20000, ROOM = KEYS * 50 };
    char name[32];
    uint32_t half[2] = {0, 0};
    struct mem_stats mem;
    case_open(&c);
    for (uint32_t i = 0; i < KEYS; i++) {
        must(hand_set(&c.hand, 0, key_of(name, "key:", i), BYTES("about as long as a value is"),
                      ENGINE_NOW_MS + 3600000 + i));
    }
    case_snapshot(&c);
    case_attach(&c);
    mem_stats_read(&mem);
    warm_set_limit(c.warm, mem.allocated + ROOM, EVICT_VOLATILE_TTL);
    must(warm_all(c.warm, &c.thread));
    for (uint32_t i = 0; i < KEYS; i++) {
        half[i / (KEYS / 2)] += is_there(0, key_of(name, "key:", i));
    }
    ck_assert_msg(half[1] > KEYS / 4 && half[1] > 2 * half[0], "%u die early, %u late", half[0],
                  half[1]);
    case_close(&c);
}
END_TEST

START_TEST(frequency_and_age_survive) {
    char name[32];
    case_open(&c);
    set_many(0, "key:", 10);
    for (int n = 0; n < 10; n++) {
        (void)hand_get(&c.hand, 0, key_of(name, "key:", 1), NULL);
    }
    for (int n = 0; n < 600; n++) {
        engine_sleep(&c.engine, 1000);
        store_tick(c.engine.store, engine_now(&c.engine));
    }
    (void)hand_get(&c.hand, 0, key_of(name, "key:", 2), NULL);
    case_snapshot(&c);
    case_load(&c);
    expect(peek(0, key_of(name, "key:", 1))->freq > peek(0, key_of(name, "key:", 3))->freq);
    int64_t idle_ms =
        store_idle_ms(c.store, peek(0, key_of(name, "key:", 3)), engine_now(&c.engine));
    ck_assert_msg(idle_ms > 500000 && idle_ms < 700000, "%d", (int)idle_ms);
    idle_ms = store_idle_ms(c.store, peek(0, key_of(name, "key:", 2)), engine_now(&c.engine));
    ck_assert_msg(idle_ms < 30000, "%d", (int)idle_ms);
    case_close(&c);
}
END_TEST

CHECK_MAIN("warm", a_touch_loads_a_range_and_nothing_else, values_of_every_kind_come_back,
           loaders_load_everything_and_say_so_once, tables_are_as_large_as_what_a_log_leaves,
           loading_can_be_stopped_in_the_middle, clients_and_loaders_at_the_same_time,
           test_h32_a_flush_while_warming,
           test_h34_a_damaged_block_is_rebuilt_from_the_older_snapshot,
           test_h34_a_range_that_cannot_be_loaded_answers_an_error_for_ever,
           effects_that_cannot_be_read_any_more_are_an_error_and_no_signal,
           flipped_bytes_of_a_snapshot_are_never_served, a_range_that_lacks_memory_is_tried_again,
           test_h33_what_does_not_fit_is_left_out_and_what_clients_touched_stays,
           the_least_used_are_left_out_first, what_is_left_out_is_what_the_policy_would_evict,
           what_dies_first_is_left_out_first_with_volatile_ttl, frequency_and_age_survive)
