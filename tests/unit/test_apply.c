/* SPDX-License-Identifier: BSD-3-Clause */
/* The log of one engine, applied to another store in pieces of any size by several threads. */
#include "replication/apply.h"
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "server/store/load.h"
#include "server/store/system.h"
#include "tests/support/check_main.h"
#include "tests/support/data_case.h"
#include "tests/support/expect.h"
#include "tests/support/store_check.h"

#include <stdlib.h>

enum { KEYS = 400 };

static struct data_case c;
static struct store *copy;
static struct apply *apply;
static uint32_t applied; /* frames */
static struct store_thread reader;
static struct metric_slot reader_metrics;

static void open_copy(uint32_t threads) {
    case_open(&c);
    copy = store_create(&(struct store_opts){.seed = c.log.seed});
    apply = apply_create(&(struct apply_opts){.store = copy, .threads = threads});
    store_thread_init(&reader, copy, &reader_metrics, 1);
    applied = 0;
}

static void close_copy(void) {
    struct table_facts facts;
    const char *err = store_check(copy, &facts);
    ck_assert_msg(err == NULL, "%s", err);
    apply_destroy(apply);
    store_destroy(copy);
    case_close(&c);
}

static uint64_t end_of(uint32_t frames) {
    return frames == 0 ? c.log.first_lsn : c.log.ends[frames - 1];
}

/* The next 'count' frames. */
static enum dc_err play(uint32_t count) {
    uint64_t from = end_of(applied);
    applied += count;
    return apply_frames(apply, from, c.log.bytes.ptr + (from - c.log.first_lsn),
                        (size_t)(end_of(applied) - from));
}

static enum dc_err play_rest(void) {
    return play(c.log.count - applied);
}

static void expect_same(void) {
    expect_eq(store_digest(copy), store_digest(c.engine.store));
}

static struct entry *find(const char *name) {
    struct key k = store_key(copy, bytes_str(name));
    return store_find(store_keyspace(copy, 0), &k);
}

/* --- order ------------------------------------------------------------------------------------------------------- */

/* They outlive the frame that shows them. */
static char names[KEYS][24], sums[KEYS][24], texts[4096];

static void make_names(void) {
    for (int i = 0; i < KEYS; i++) {
        snprintf(names[i], sizeof(names[i]), "key:%d", i);
        snprintf(sums[i], sizeof(sums[i]), "sum:%d", i);
    }
    for (size_t i = 0; i < sizeof(texts); i++) {
        texts[i] = (char)('a' + i * 7 % 23);
    }
}

static void random_command(struct rng *r) {
    uint32_t db = (uint32_t)rng_below(r, 2);
    struct bytes key = bytes_str(names[rng_below(r, KEYS)]);
    struct bytes other = bytes_str(names[rng_below(r, KEYS)]);
    struct bytes text = bytes_of(texts + rng_below(r, 3000), rng_below(r, 128));
    int64_t sum;
    bool existed;
    switch (rng_below(r, 10)) {
    case 0:
        must(hand_del(&c.hand, db, key, &existed));
        return;
    case 1:
        must(hand_expire(&c.hand, db, key, engine_now(&c.engine) + 1000, &existed));
        return;
    case 2:
        must(hand_append(&c.hand, db, key, text));
        return;
    case 3:
        must(hand_write(&c.hand, db, key, rng_below(r, 200), text));
        return;
    case 4:
        must(hand_rename(&c.hand, db, key, other, &existed));
        return;
    case 5:
        must(hand_incr(&c.hand, db, bytes_str(sums[rng_below(r, KEYS)]), 1, &sum));
        return;
    case 6:
        engine_sleep(&c.engine, (int64_t)rng_below(r, 300));
        return;
    default:
        must(hand_set(&c.hand, db, key, text,
                      rng_below(r, 2) == 0 ? EXPIRY_NONE : engine_now(&c.engine) + 500));
    }
}

/* Sometimes as EXEC, sometimes with a flush in it. */
static void random_frame(struct rng *r) {
    if (rng_below(r, 20) != 0) {
        random_command(r);
        return;
    }
    hand_frame_begin(&c.hand);
    for (uint64_t i = rng_below(r, 6) + 1; i > 0; i--) {
        if (rng_below(r, 200) == 0) {
            must(hand_flush(&c.hand, (uint32_t)rng_below(r, 2)));
        }
        random_command(r);
    }
    hand_frame_end(&c.hand);
}

START_TEST(any_pieces_by_any_number_of_threads_make_the_same_store) {
    struct rng r = test_rng();
    make_names();
    for (uint32_t threads = 1; threads <= 3; threads++) {
        open_copy(threads);
        for (int i = 0; i < (TEST_SANITIZED ? 6000 : 30000); i++) {
            random_frame(&r);
        }
        while (applied < c.log.count) {
            uint32_t left = c.log.count - applied;
            uint32_t count = (uint32_t)rng_below(&r, rng_below(&r, 3) == 0 ? 9000 : 20) + 1;
            must(play(count < left ? count : left));
        }
        expect_same();
        expect(apply_time_ms(apply) > 0);
        close_copy();
    }
}
END_TEST

START_TEST(values_of_every_kind_arrive) {
    open_copy(2);
    size_t len = BLOB_MIN_LEN + 300000;
    char *text = mem_must_alloc(len);
    memset(text, 'x', len);
    must(hand_set(&c.hand, 0, BYTES("blob"), bytes_of(text, len), EXPIRY_NONE));
    must(hand_append(&c.hand, 0, BYTES("blob"), BYTES("!")));
    must(hand_set(&c.hand, 0, BYTES("int"), BYTES("-9223372036854775808"), ENGINE_NOW_MS + 1));
    must(hand_set(&c.hand, 0, bytes_of(text, 70000), BYTES("long key"), EXPIRY_NONE));
    must(hand_set(&c.hand, 0, BYTES("empty"), BYTES(""), EXPIRY_NONE));
    must(play_rest());
    expect_same();
    mem_free(text);
    close_copy();
}
END_TEST

/* --- whole frames ------------------------------------------------------------------------------------------------ */

static _Atomic bool stop_looking;
static _Atomic uint64_t looks;
static char pair_names[2][32];

static int64_t number_of(const struct key *k) {
    struct value v;
    struct entry *e = store_find(store_keyspace(copy, 0), k);
    if (e == NULL) {
        return 0;
    }
    entry_value(e, &v);
    return v.num;
}

/* Both keys under their two locks, as a command would see them. */
static void look(void *arg) {
    struct key a = store_key(copy, bytes_str(pair_names[0]));
    struct key b = store_key(copy, bytes_str(pair_names[1]));
    uint32_t low = key_slot(&a) < key_slot(&b) ? key_slot(&a) : key_slot(&b);
    uint32_t high = key_slot(&a) ^ key_slot(&b) ^ low;
    (void)arg;
    while (!atomic_load(&stop_looking)) {
        store_lock(copy, low);
        store_lock(copy, high);
        expect_eq(number_of(&a), number_of(&b));
        store_unlock(copy, high);
        store_unlock(copy, low);
        atomic_fetch_add(&looks, 1);
    }
}

START_TEST(a_frame_over_several_slots_is_seen_whole) {
    struct thread t;
    open_copy(2);
    snprintf(pair_names[0], sizeof(pair_names[0]), "left");
    snprintf(pair_names[1], sizeof(pair_names[1]), "right");
    atomic_store(&stop_looking, false);
    thread_start(&t, "looker", look, NULL);
    for (int i = 1; i <= 2000; i++) {
        char text[32], other[32];
        int len = snprintf(text, sizeof(text), "%d", i);
        struct bytes both[] = {bytes_str(pair_names[0]), bytes_str(pair_names[1])};
        struct bytes same[] = {bytes_of(text, (size_t)len), bytes_of(text, (size_t)len)};
        must(hand_set_many(&c.hand, 0, both, same, 2));
        must(hand_set(&c.hand, 0, key_of(other, "other:", (uint32_t)i), same[0], EXPIRY_NONE));
    }
    for (uint64_t seen = 0; applied < c.log.count;) {
        must(play(c.log.count - applied > 50 ? 50 : c.log.count - applied));
        while (atomic_load(&looks) == seen) {}
        seen = atomic_load(&looks);
    }
    atomic_store(&stop_looking, true);
    thread_join(&t);
    expect_same();
    close_copy();
}
END_TEST

START_TEST(a_flush_kills_what_was_before_it_and_nothing_else) {
    open_copy(2);
    must(hand_set(&c.hand, 0, BYTES("a"), BYTES("1"), EXPIRY_NONE));
    must(hand_set(&c.hand, 1, BYTES("a"), BYTES("1"), EXPIRY_NONE));
    hand_frame_begin(&c.hand);
    must(hand_set(&c.hand, 0, BYTES("b"), BYTES("1"), EXPIRY_NONE));
    must(hand_flush(&c.hand, 0));
    must(hand_set(&c.hand, 0, BYTES("c"), BYTES("1"), EXPIRY_NONE));
    hand_frame_end(&c.hand);
    must(play_rest());
    expect_eq(keyspace_count(store_keyspace(copy, 0)), 1);
    expect_eq(keyspace_count(store_keyspace(copy, 1)), 1);
    expect(find("c") != NULL);
    expect_same();
    close_copy();
}
END_TEST

/* --- time -------------------------------------------------------------------------------------------------------- */

/* The copy is behind: by the clock of whoever looks the session has expired, but its log goes on. */
START_TEST(test_h30_a_session_lives_on_a_copy_that_lags) {
    bool existed;
    open_copy(1);
    must(hand_set(&c.hand, 0, BYTES("session"), BYTES("s"), ENGINE_NOW_MS + 1000));
    must(hand_set(&c.hand, 0, BYTES("gone"), BYTES("s"), ENGINE_NOW_MS + 1000));
    must(play_rest());
    must(hand_expire(&c.hand, 0, BYTES("session"), ENGINE_NOW_MS + 1800000, &existed));
    expect(existed);
    engine_sleep(&c.engine, 5000);
    must(hand_append(&c.hand, 0, BYTES("gone"), BYTES("again")));
    must(play_rest());
    struct key k = store_key(copy, BYTES("session"));
    struct entry *e = store_peek(&reader, store_keyspace(copy, 0), &k, ENGINE_NOW_MS + 5000);
    expect(e != NULL);
    expect_eq(entry_expiry(e), ENGINE_NOW_MS + 1800000);
    expect_same();
    close_copy();
}
END_TEST

/* --- while the next frames are made ready ------------------------------------------------------------------------ */

static char *begun; /* the bytes of what was begun last */
static size_t begun_len;

/* What was begun before may not be looked at any more: it is made useless. */
static enum dc_err begin(uint32_t count) {
    uint64_t from = end_of(applied);
    applied += count;
    size_t len = (size_t)(end_of(applied) - from);
    char *bytes = mem_must_alloc(len);
    memcpy(bytes, c.log.bytes.ptr + (from - c.log.first_lsn), len);
    enum dc_err err = apply_begin(apply, from, bytes, len);
    if (begun != NULL) {
        memset(begun, 0xff, begun_len);
        mem_free(begun);
    }
    begun = bytes;
    begun_len = len;
    return err;
}

static enum dc_err end(void) {
    enum dc_err err = apply_end(apply);
    mem_free(begun);
    begun = NULL;
    return err;
}

/* More than helpers are woken for; "number" last. Some rounds have a frame over several slots in them. Returns how many frames that is. */
static uint32_t make_round(int number) {
    uint32_t before = c.log.count;
    char text[32], name[32];
    struct bytes value = bytes_of(text, (size_t)snprintf(text, sizeof(text), "%d", number));
    for (uint32_t i = 0; i < 5000; i++) {
        must(hand_append(&c.hand, 0, key_of(name, "key:", i % KEYS), value));
        if (i == 2500 && number % 3 == 0) {
            struct bytes both[] = {BYTES("left"), BYTES("right")};
            struct bytes same[] = {value, value};
            must(hand_set_many(&c.hand, 0, both, same, 2));
        }
    }
    engine_sleep(&c.engine, 100);
    must(hand_set(&c.hand, 0, BYTES("number"), value, EXPIRY_NONE));
    return c.log.count - before;
}

static int64_t number_shown(void) {
    uint32_t slot = store_slot(BYTES("number"));
    struct value v;
    store_lock(copy, slot);
    struct entry *e = find("number");
    ck_assert_ptr_nonnull(e);
    entry_value(e, &v);
    store_unlock(copy, slot);
    return v.num;
}

START_TEST(what_was_begun_is_shown_when_the_next_is_begun) {
    enum { ROUNDS = 12 };
    uint32_t counts[ROUNDS];
    for (uint32_t threads = 1; threads <= 3; threads++) {
        open_copy(threads);
        must(play_rest());
        for (int i = 0; i < ROUNDS; i++) {
            counts[i] = make_round(i + 1);
        }
        int64_t last_ms = engine_now(&c.engine), step_ms = 100;
        for (int i = 0; i < ROUNDS; i++) {
            must(begin(counts[i]));
            int64_t shown = i == 0 ? 0 : number_shown();
            expect(shown == i || (i > 0 && shown == i + 1));
            int64_t shown_ms = apply_time_ms(apply);
            expect(i == 0 || shown_ms >= last_ms - (ROUNDS - i) * step_ms);
            if (threads > 1) { /* the time is that of what is shown for sure */
                expect(shown_ms < last_ms - (ROUNDS - 1 - i) * step_ms);
            }
        }
        must(end());
        expect_eq(number_shown(), ROUNDS);
        expect_eq(apply_time_ms(apply), last_ms);
        must(end()); /* nothing is under way */
        expect_same();
        close_copy();
    }
}
END_TEST

START_TEST(few_frames_wait_for_the_many_before_them) {
    open_copy(3);
    must(play_rest());
    for (int i = 1; i <= 9; i++) {
        uint32_t count = make_round(i);
        must(begin(count));
        must(hand_append(&c.hand, 0, BYTES("key:1"), BYTES("x")));
        must(i % 2 == 0 ? begin(1) : play(1));
        expect_eq(number_shown(), i);
    }
    must(end());
    expect_same();
    close_copy();
}
END_TEST

START_TEST(damage_in_what_was_begun_is_told_later) {
    for (int later = 0; later < 3; later++) {
        open_copy(2);
        must(play_rest());
        must(hand_append(&c.hand, 0, BYTES("key:1"), BYTES("left out")));
        applied++;
        uint32_t count = make_round(1);
        uint32_t more = make_round(2);
        enum dc_err err = begin(count);
        expect_eq(err, DC_OK);
        err = later == 0 ? end() : later == 1 ? begin(more) : play(more);
        expect_eq(err, DC_ECORRUPT);
        ck_assert_ptr_nonnull(strstr(dc_fail_take(DC_ECORRUPT), "was made for version"));
        must(end()); /* nothing is under way */
        close_copy();
    }
}
END_TEST

/* --- damage ------------------------------------------------------------------------------------------------------ */

START_TEST(a_patch_for_another_version_is_damage) {
    for (uint32_t threads = 1; threads <= 2; threads++) {
        open_copy(threads);
        must(hand_append(&c.hand, 0, BYTES("a"), BYTES("1")));
        must(play_rest());
        must(hand_append(&c.hand, 0, BYTES("a"), BYTES("2")));
        for (uint32_t i = 0; i < 8000; i++) { /* enough for helpers */
            char name[32];
            must(hand_set(&c.hand, 0, key_of(name, "key:", i), BYTES("v"), EXPIRY_NONE));
        }
        must(hand_append(&c.hand, 0, BYTES("a"), BYTES("3")));
        applied++; /* the second one is left out */
        expect_eq(play_rest(), DC_ECORRUPT);
        ck_assert_ptr_nonnull(strstr(dc_fail_take(DC_ECORRUPT), "was made for version"));
        close_copy();
    }
}
END_TEST

/* --- cold ranges ------------------------------------------------------------------------------------------------- */

static void change_all(uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        char name[32];
        must(hand_append(&c.hand, 0, key_of(name, "key:", i), BYTES(" and more")));
    }
}

static void case_apply(bool flush) {
    case_open(&c);
    change_all(2000);
    case_snapshot(&c);
    applied = c.log.count;
    change_all(1000);
    if (flush) {
        hand_frame_begin(&c.hand);
        must(hand_append(&c.hand, 0, BYTES("key:1999"), BYTES("x")));
        must(hand_flush(&c.hand, 0));
        must(hand_append(&c.hand, 0, BYTES("key:1998"), BYTES("x")));
        hand_frame_end(&c.hand);
    }
    change_all(10);
    case_attach(&c); /* of the snapshot alone: no log was written */
    expect(!warm_is_over(c.warm));
    apply = apply_create(&(struct apply_opts){.store = c.store, .warm = c.warm, .threads = 2});
    must(play_rest());
    must(warm_all(c.warm, &c.thread));
    case_same(&c);
    apply_destroy(apply);
    case_close(&c);
}

START_TEST(what_is_cold_is_loaded_first) {
    case_apply(false);
}
END_TEST

START_TEST(a_flush_drops_what_is_cold) {
    case_apply(true);
}
END_TEST

CHECK_MAIN("apply", any_pieces_by_any_number_of_threads_make_the_same_store,
           values_of_every_kind_arrive, a_frame_over_several_slots_is_seen_whole,
           a_flush_kills_what_was_before_it_and_nothing_else,
           what_was_begun_is_shown_when_the_next_is_begun, few_frames_wait_for_the_many_before_them,
           damage_in_what_was_begun_is_told_later, test_h30_a_session_lives_on_a_copy_that_lags,
           a_patch_for_another_version_is_damage, what_is_cold_is_loaded_first,
           a_flush_drops_what_is_cold)
