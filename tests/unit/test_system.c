/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/store/system.h"

#include "server/base/mem.h"
#include "server/store/load.h"
#include "tests/support/check_main.h"
#include "tests/support/data_case.h"
#include "tests/support/expect.h"

static struct data_case c;

/* As a command with F_ALL_SLOTS does it. */
static void change(const char *name, const struct value *v) {
    struct mut *m = &c.hand.mut;
    store_lock_all(c.engine.store);
    mut_reset(m, engine_now(&c.engine));
    must(v != NULL ? system_put(m, bytes_str(name), v) : system_del(m, bytes_str(name)));
    c.engine.commit(c.engine.commit_arg, m);
    store_unlock_all(c.engine.store);
    mut_reset(m, 0);
}

static void put_int(const char *name, int64_t num) {
    struct value v = value_int(num);
    change(name, &v);
}

static void set(uint32_t db, const char *key, const char *text) {
    must(hand_set(&c.hand, db, bytes_str(key), bytes_str(text), EXPIRY_NONE));
}

static uint64_t flushed(struct store *s, uint32_t db) {
    return keyspace_flush_version(store_keyspace(s, db));
}

/* Of the loaded store. */
static uint64_t version(uint32_t db, const char *key) {
    struct key k = store_key(c.store, bytes_str(key));
    const struct entry *e = store_find(store_keyspace(c.store, db), &k);
    return e == NULL ? 0 : entry_version(e);
}

static void restart(void) {
    case_forget(&c);
    case_load(&c);
    case_same(&c);
}

/* --- in memory --------------------------------------------------------------------------------------- */

static void never(void *arg, struct keyspace *ks, struct entry *e) {
    (void)arg, (void)ks, (void)e;
    ck_abort_msg("an entry of the system keyspace was shown");
}

START_TEST(nothing_that_goes_through_the_databases_sees_it) {
    case_open(&c);
    struct store *s = c.engine.store;
    struct store_sweep sweep = {0};
    struct victim victim;
    for (int i = 0; i < 100; i++) {
        char name[16];
        snprintf(name, sizeof(name), "entry:%d", i);
        put_int(name, i);
    }
    expect(store_keyspace(s, KEYSPACE_SYSTEM) == NULL);
    expect(store_numbered(s, KEYSPACE_SYSTEM) == store_system(s));
    expect(store_numbered(s, 3) == store_keyspace(s, 3));
    expect(store_numbered(s, KEYSPACE_MAX) == NULL);
    expect_eq(keyspace_id(store_system(s)), KEYSPACE_SYSTEM);
    expect_eq(keyspace_count(store_system(s)), 100);
    expect_eq(store_count(s), 0);
    for (uint32_t db = 0; db < store_keyspace_count(s); db++) {
        uint64_t cursor = 0;
        expect_eq(keyspace_count(store_keyspace(s, db)), 0);
        const struct store_scan scan = {
            .ks = store_keyspace(s, db), .slot_end = SLOT_COUNT, .visit = never};
        store_scan(&scan, &cursor, UINT32_MAX);
        expect(!store_random(&c.hand.thread, &scan));
        must(hand_flush(&c.hand, db));
    }
    while (sweep.wrapped == 0) {
        (void)store_sweep(&c.hand.thread, &sweep, INT64_MAX, UINT64_MAX, NULL, NULL);
    }
    (void)store_reclaim(s, UINT64_MAX);
    expect(!store_pick_victim(&c.hand.thread, EVICT_ALLKEYS_RANDOM, 100, engine_now(&c.engine),
                              &victim));
    expect_eq(keyspace_count(store_system(s)), 100 + KEYSPACE_MAX); /* a record of each flush */
    expect_eq(sweep.expired, 0);
    case_close(&c);
}
END_TEST

START_TEST(what_is_put_is_there_until_it_is_deleted) {
    struct value v;
    case_open(&c);
    expect(system_get(c.engine.store, BYTES("name")) == NULL);
    put_int("name", 1);
    put_int("name", 2);
    entry_value(system_get(c.engine.store, BYTES("name")), &v);
    expect_eq(v.num, 2);
    change("name", NULL);
    expect(system_get(c.engine.store, BYTES("name")) == NULL);
    case_close(&c);
}
END_TEST

/* --- flushes ----------------------------------------------------------------------------------------- */

START_TEST(a_flush_leaves_a_record_of_its_place_and_time) {
    struct value v;
    case_open(&c);
    set(3, "a", "1");
    engine_sleep(&c.engine, 5);
    must(hand_flush(&c.hand, 3));
    const struct entry *e = system_flush_record(store_keyspace(c.engine.store, 3));
    expect(e != NULL && system_flush_record(store_keyspace(c.engine.store, 2)) == NULL);
    expect(bytes_equal(entry_key(e), BYTES("flush:3")));
    entry_value(e, &v);
    expect_eq(v.num, engine_now(&c.engine));
    expect_eq(flushed(c.engine.store, 3), log_file_end(&c.log));
    expect_eq(entry_version(e) + EFFECT_HEADER_LEN, flushed(c.engine.store, 3));
    expect_eq(flushed(c.engine.store, 2), 0);
    case_close(&c);
}
END_TEST

START_TEST(test_h4_a_flush_is_known_after_a_snapshot_and_kills_nothing_that_came_later) {
    case_open(&c);
    set(0, "a", "1");
    set(9, "a", "1");
    must(hand_flush(&c.hand, 0));
    uint64_t first = flushed(c.engine.store, 0);
    set(0, "b", "2");
    case_write_log(&c, 0, 0); /* the log alone */
    restart();
    expect_eq(flushed(c.store, 0), first);
    case_snapshot(&c);
    uint64_t end = log_file_end(&c.log);
    set(0, "c", "3");
    case_write_log(&c, end, 0); /* the snapshot, and log behind the flush */
    restart();
    expect_eq(flushed(c.store, 0), first);
    expect_eq(flushed(c.store, 9), 0);
    expect(version(0, "a") == 0 && version(0, "b") > first && version(0, "c") > first);
    must(hand_flush(&c.hand, 0));
    must(hand_flush(&c.hand, 9));
    case_write_log(&c, end, 0); /* both have something to tell */
    restart();
    expect_eq(flushed(c.store, 0), flushed(c.engine.store, 0));
    expect_eq(flushed(c.store, 9), flushed(c.engine.store, 9));
    /* A log that ends before the flush knows nothing of it. */
    case_forget(&c);
    c.opts.to_lsn = end;
    c.opts.read_only = true;
    case_load(&c);
    expect_eq(flushed(c.store, 0), first);
    expect_eq(flushed(c.store, 9), 0);
    expect(version(9, "a") > 0);
    case_close(&c);
}
END_TEST

START_TEST(test_h7_a_flush_inside_a_frame_has_its_place_there_after_replay) {
    case_open(&c);
    set(0, "old", "0");
    hand_frame_begin(&c.hand);
    set(0, "a", "1");
    must(hand_flush(&c.hand, 0));
    set(0, "gone", "1");
    must(hand_flush(&c.hand, 0));
    expect_eq(flushed(c.engine.store, 0), 0); /* it has no version yet */
    set(0, "b", "2");
    hand_frame_end(&c.hand);
    case_write_log(&c, 0, 0);
    for (int round = 0; round < 2; round++) { /* from the log; from a snapshot of it */
        restart();
        expect(version(0, "old") == 0 && version(0, "a") == 0 && version(0, "gone") == 0);
        expect_eq(version(0, "b"), log_file_end(&c.log));
        expect_eq(flushed(c.store, 0), flushed(c.engine.store, 0));
        expect(flushed(c.store, 0) < version(0, "b"));
        case_snapshot(&c);
    }
    case_close(&c);
}
END_TEST

/* --- loading ----------------------------------------------------------------------------------------- */

START_TEST(it_is_there_before_any_range_is) {
    case_open(&c);
    char *text = mem_must_alloc(BLOB_MIN_LEN);
    memset(text, 'x', BLOB_MIN_LEN);
    for (int i = 0; i < 3000; i++) {
        char key[16];
        snprintf(key, sizeof(key), "key:%d", i);
        set(0, key, "value");
        put_int(key, i); /* more than a block of them */
    }
    struct value blob = {.kind = VALUE_BLOB, .blob = blob_from(bytes_of(text, BLOB_MIN_LEN))};
    change("blob", &blob);
    mem_free(text);
    case_snapshot(&c);
    uint64_t end = log_file_end(&c.log);
    put_int("key:7", -7);
    change("key:8", NULL);
    put_int("late", 1);
    case_write_log(&c, end, 0);
    case_attach(&c);
    struct warm_stats stats;
    warm_stats(c.warm, &stats);
    expect_eq(keyspace_count(store_system(c.store)), 3001);
    expect_eq(store_count(c.store), 0);
    expect(!warm_is_over(c.warm) && stats.ranges_warm < stats.ranges);
    expect_eq(stats.entries_loaded, 3001);
    expect_eq(stats.effects_applied, 3);
    must(warm_all(c.warm, &c.thread));
    warm_stats(c.warm, &stats);
    expect_eq(stats.entries_loaded, stats.entries_expected);
    expect_eq(stats.effects_applied, stats.effects_expected);
    case_same(&c);
    case_close(&c);
}
END_TEST

START_TEST(a_directory_that_holds_nothing_else_is_loaded_at_once) {
    case_open(&c);
    put_int("a", 1);
    case_snapshot(&c);
    case_attach(&c);
    expect(warm_is_over(c.warm) && warm_is_settled(c.warm));
    case_same(&c);
    case_close(&c);
}
END_TEST

START_TEST(fewer_databases_than_records_are_no_harm) {
    case_open(&c);
    set(9, "a", "1");
    must(hand_flush(&c.hand, 9));
    set(1, "a", "1");
    case_write_log(&c, 0, 0);
    must(case_scan(&c));
    struct store_opts opts = {.seed = c.plan->seed, .keyspaces = 4};
    c.store = store_create(&opts);
    store_thread_init(&c.thread, c.store, &c.metrics, 1);
    must(warm_attach(c.warm, c.store));
    must(warm_all(c.warm, &c.thread));
    expect(system_get(c.store, BYTES("flush:9")) != NULL);
    expect_eq(store_count(c.store), 1);
    case_close(&c);
}
END_TEST

/* --- damage ------------------------------------------------------------------------------------------ */

static void damage_its_block(void) {
    char path[512], junk[] = "junk";
    struct snap *s;
    uint32_t first, count;
    snprintf(path, sizeof(path), "%s/%s", c.dir, c.snapshot);
    must(snap_open(&io_posix, path, &s));
    uint32_t range = snap_range_of(snap_facts(s)->range_bits, KEYSPACE_SYSTEM, 0);
    snap_range_blocks(s, range, &first, &count);
    expect_eq(count, 1);
    expect_eq(first + count, snap_facts(s)->block_count);
    expect_eq(snap_block_info(s, first)->keyspace, KEYSPACE_SYSTEM);
    uint64_t at = snap_block_info(s, first)->offset + SNAP_BLOCK_HEAD_LEN;
    snap_close(s);
    file_poke(path, (int64_t)at, junk, sizeof(junk));
}

START_TEST(a_damaged_block_is_rebuilt_from_the_older_snapshot) {
    case_open(&c);
    set(0, "key", "value");
    put_int("a", 1);
    put_int("b", 1);
    case_snapshot(&c);
    put_int("a", 2);
    change("b", NULL);
    must(hand_flush(&c.hand, 2));
    case_snapshot(&c);
    put_int("c", 3);
    case_write_log(&c, 0, 0);
    damage_its_block();
    restart();
    expect_eq(flushed(c.store, 2), flushed(c.engine.store, 2));
    case_close(&c);
}
END_TEST

START_TEST(without_it_the_start_is_refused) {
    case_open(&c);
    set(0, "key", "value");
    put_int("a", 1);
    case_snapshot(&c);
    damage_its_block();
    must(case_scan(&c));
    struct store_opts opts = {.seed = c.plan->seed};
    c.store = store_create(&opts);
    expect_eq(warm_attach(c.warm, c.store), DC_ECORRUPT);
    const char *text = dc_fail_take(DC_ECORRUPT);
    expect(strstr(text, "system keyspace") != NULL && strstr(text, "--repair") != NULL);
    case_close(&c);
}
END_TEST

START_TEST(a_flush_of_it_is_damage) {
    case_open(&c);
    struct mut *m = &c.hand.mut;
    store_lock_all(c.engine.store);
    mut_reset(m, engine_now(&c.engine));
    must(mut_flush(m, store_system(c.engine.store)));
    c.engine.commit(c.engine.commit_arg, m);
    store_unlock_all(c.engine.store);
    case_write_log(&c, 0, 0);
    expect_eq(case_scan(&c), DC_ECORRUPT);
    expect(strstr(dc_fail_take(DC_ECORRUPT), "of database 65535") != NULL);
    case_close(&c);
}
END_TEST

CHECK_MAIN("system", nothing_that_goes_through_the_databases_sees_it,
           what_is_put_is_there_until_it_is_deleted, a_flush_leaves_a_record_of_its_place_and_time,
           test_h4_a_flush_is_known_after_a_snapshot_and_kills_nothing_that_came_later,
           test_h7_a_flush_inside_a_frame_has_its_place_there_after_replay,
           it_is_there_before_any_range_is, a_directory_that_holds_nothing_else_is_loaded_at_once,
           fewer_databases_than_records_are_no_harm,
           a_damaged_block_is_rebuilt_from_the_older_snapshot, without_it_the_start_is_refused,
           a_flush_of_it_is_damage)
