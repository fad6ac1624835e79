/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Frames of one engine, replayed into another store: behind an image that was taken while commands ran (a slow walk from S to E),
 * and behind nothing at all.
 */
#include "persist/replay.h"
#include "server/base/mem.h"
#include "server/store/load.h"
#include "server/store/store_priv.h"
#include "tests/support/collide.h"
#include "tests/support/log_file.h"
#include "tests/support/one_engine.h"

static struct log_file logfile;

/* The store that is put together from image and log. */
static struct store *image;
static struct store_thread image_thread;
static struct metric_slot image_metrics;
static struct mut image_mut;
static uint32_t walked; /* slots that the walk has passed */
static uint64_t walk_start;
static enum dc_err replayed;

static void open_all(void) {
    open_engine();
    log_file_init(&logfile, LSN_FIRST);
    log_file_attach(&logfile, &engine);
    image = load_scratch_create(engine.store);
    store_thread_init(&image_thread, image, &image_metrics, 1);
    mut_init(&image_mut, image, &image_thread);
    walked = 0;
    walk_start = LSN_FIRST;
    replayed = DC_OK;
}

static void close_all(void) {
    struct table_facts facts;
    const char *err = store_check(image, &facts);
    ck_assert_msg(err == NULL, "%s", err);
    mut_fini(&image_mut);
    store_destroy(image);
    close_engine();
    log_file_fini(&logfile);
}

/* --- the walk ---------------------------------------------------------------------------------------- */

struct taking {
    struct load_run run;
};

static void take(void *arg, struct keyspace *ks, struct entry *e) {
    struct taking *t = arg;
    struct key k = store_key(image, entry_key(e));
    struct load_spec spec = {.spec = {.key = entry_key(e), .expiry_ms = entry_expiry(e)},
                             .version = entry_version(e),
                             .freq = e->freq,
                             .age = (uint16_t)entry_age(engine.store, e)};
    entry_value(e, &spec.spec.value);
    if (spec.spec.value.kind == VALUE_BLOB) {
        spec.spec.value.blob = blob_from(value_bytes(&spec.spec.value, NULL));
    }
    must(load_add(&t->run, store_numbered(image, keyspace_id(ks)), &k, &spec));
}

static void walk_slot(struct taking *t) {
    static const uint32_t ids[] = {0, 1, 2, KEYSPACE_SYSTEM};
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        struct keyspace *ks = store_numbered(engine.store, ids[i]);
        expect_eq(load_step(ks, walked, 0, UINT32_MAX, take, t), HASH_END);
    }
}

/* The walk goes on for so many slots. */
static void walk(uint32_t slots) {
    struct taking *t = mem_must_alloc(sizeof(*t));
    load_run_init(&t->run, image);
    for (; slots > 0 && walked < SLOT_COUNT; slots--, walked++) {
        walk_slot(t);
    }
    must(load_flush(&t->run));
    load_run_fini(&t->run);
    mem_free(t);
}

static void walk_to(struct bytes key) {
    uint32_t slot = store_slot(key);
    expect(slot >= walked);
    walk(slot + 1 - walked);
}

static void walk_begin(void) {
    walk_start = log_file_end(&logfile);
    walked = 0;
}

static void replay_one(void *arg, const struct effect_view *e) {
    const bool *in_window = arg;
    if (replayed == DC_OK) {
        replayed = replay_effect(&image_mut, e, *in_window);
    }
}

static void replay(uint64_t from, uint64_t to, bool in_window) {
    log_file_each(&logfile, from, to, replay_one, &in_window);
    mut_reset(&image_mut, 0);
}

static uint64_t walk_end(void) {
    walk(SLOT_COUNT);
    uint64_t end = log_file_end(&logfile);
    replay(walk_start, end, true);
    must(replayed);
    expect_eq(store_digest(image), store_digest(engine.store));
    return end;
}

static void replay_rest(uint64_t from) {
    replay(from, log_file_end(&logfile), false);
    must(replayed);
    expect_eq(store_digest(image), store_digest(engine.store));
}

/* --- commands ---------------------------------------------------------------------------------------- */

static void set(struct bytes key, const char *text) {
    must(hand_set(&hand, 0, key, bytes_str(text), EXPIRY_NONE));
}

static void del(struct bytes key) {
    bool existed;
    must(hand_del(&hand, 0, key, &existed));
}

static void expire(struct bytes key, int64_t expiry_ms) {
    bool existed;
    must(hand_expire(&hand, 0, key, expiry_ms, &existed));
    expect(existed);
}

static void append(struct bytes key, const char *text) {
    must(hand_append(&hand, 0, key, bytes_str(text)));
}

static void rename_key(struct bytes from, struct bytes to) {
    bool existed;
    must(hand_rename(&hand, 0, from, to, &existed));
}

/* What the image has of a key. */
static const struct entry *found(struct bytes name) {
    struct key k = store_key(image, name);
    return store_find(store_keyspace(image, 0), &k);
}

static void expect_text(struct bytes name, const char *text) {
    const struct entry *e = found(name);
    struct value v;
    char scratch[NUM_I64_TEXT_MAX];
    ck_assert_msg(e != NULL, "the key isn't there");
    entry_value(e, &v);
    expect(bytes_equal(value_bytes(&v, scratch), bytes_str(text)));
}

/* Two keys, the first in a lower slot. */
static const struct bytes low = {"b", 1}, high = {"a", 1};

START_TEST(the_effects_of_a_log_make_the_same_store_with_the_same_versions) {
    open_all();
    set(low, "1");
    set(high, "two");
    append(high, " three");
    expire(low, ENGINE_NOW_MS + 1000);
    rename_key(low, BYTES("c"));
    must(hand_set_many(&hand, 1, (struct bytes[]){low, high}, (struct bytes[]){high, low}, 2));
    del(high);
    replay_rest(LSN_FIRST);
    expect(found(high) == NULL);
    close_all();
}
END_TEST

START_TEST(test_h07_a_flush_in_the_middle_of_a_frame) {
    for (int window = 0; window < 2; window++) {
        open_all();
        set(BYTES("old"), "x");
        hand_frame_begin(&hand);
        set(low, "1");
        must(hand_flush(&hand, 0));
        set(high, "2");
        append(high, "3");
        hand_frame_end(&hand);
        if (window) { /* the image is ahead of all of it */
            walk_begin();
            walk_start = LSN_FIRST;
            (void)walk_end();
        } else {
            replay_rest(LSN_FIRST);
        }
        expect(found(low) == NULL);
        expect(found(BYTES("old")) == NULL);
        expect_text(high, "23");
        struct seen seen = hand_peek(&hand, 0, high, NULL);
        expect_eq(entry_version(found(high)), seen.version);
        close_all();
    }
}
END_TEST

START_TEST(test_h20_a_key_renamed_behind_the_walk) {
    open_all();
    expect(store_slot(low) < store_slot(high));
    set(high, "value");
    walk_begin();
    walk_to(low); /* absent when the walk passes */
    rename_key(high, low);
    (void)walk_end(); /* gone when the walk passes */
    expect_text(low, "value");
    expect(found(high) == NULL);
    close_all();

    open_all();
    set(low, "value");
    walk_begin();
    walk_to(low);
    rename_key(low, high);
    (void)walk_end(); /* seen twice */
    expect_text(high, "value");
    expect(found(low) == NULL);
    close_all();
}
END_TEST

START_TEST(test_h21_a_counter_that_had_just_expired_lives_with_its_new_expiry) {
    int64_t sum;
    for (int ahead = 0; ahead < 2; ahead++) {
        open_all();
        must(hand_set(&hand, 0, low, BYTES("41"), ENGINE_NOW_MS + 10));
        walk_begin();
        if (!ahead) {
            walk_to(low); /* with the old expiry */
        }
        engine_sleep(&engine, 20);
        must(hand_incr(&hand, 0, low, 1, &sum));
        expect_eq(sum, 1);
        expire(low, ENGINE_NOW_MS + 5000);
        must(hand_incr(&hand, 0, low, 1, &sum));
        (void)walk_end();
        expect_text(low, "2");
        expect_eq(entry_expiry(found(low)), ENGINE_NOW_MS + 5000);
        close_all();
    }
}
END_TEST

/* APPEND, SETRANGE and the like over an image that has them already, has some, or has a key that died in between. */
START_TEST(test_h22_writes_over_an_image_that_has_them_already) {
    for (int seen_after = 0; seen_after <= 6; seen_after++) {
        open_all();
        must(hand_set(&hand, 0, low, BYTES("begin"), ENGINE_NOW_MS + 10));
        walk_begin();
        for (int step = 0; step < 6; step++) {
            if (step == seen_after) {
                walk_to(low);
            }
            switch (step) {
            case 0:
                append(low, "-appended");
                break;
            case 1:
                must(hand_write(&hand, 0, low, 2, BYTES("XY")));
                break;
            case 2:
                engine_sleep(&engine, 20); /* it expires */
                append(low, "new");
                break;
            case 3:
                must(hand_write(&hand, 0, low, 10, BYTES("far")));
                break;
            case 4:
                del(low);
                append(low, "again");
                break;
            default:
                append(low, "!");
                break;
            }
        }
        uint64_t end = walk_end();
        expect_text(low, "again!");
        append(low, "!");
        replay_rest(end);
        expect_text(low, "again!!");
        close_all();
    }
}
END_TEST

START_TEST(test_h22_writes_to_what_the_same_frame_wrote) {
    for (int walks = 0; walks < 3; walks++) {
        open_all();
        set(high, "x");
        walk_begin();
        if (walks > 0) {
            walk_to(low);
        }
        hand_frame_begin(&hand);
        set(low, "hello");
        append(low, " world");
        expire(low, ENGINE_NOW_MS + 10000);
        append(high, "y");
        append(high, "z");
        hand_frame_end(&hand);
        if (walks > 1) {
            walk_to(high);
        }
        del(high);
        (void)walk_end();
        expect_text(low, "hello world");
        expect(found(high) == NULL);
        close_all();
    }
}
END_TEST

START_TEST(test_h23_two_databases_and_two_keys_at_one_position) {
    open_all();
    walk_begin();
    for (uint32_t db = 0; db < 3; db++) {
        for (int i = 0; i < COLLIDING_PAIRS; i++) {
            for (int k = 0; k < 2; k++) {
                struct bytes name = bytes_str(colliding_keys[i][k]);
                must(hand_set(&hand, db, name, name, EXPIRY_NONE));
                walk(SLOT_COUNT / 50);
                must(hand_append(&hand, db, name, bytes_str(k == 0 ? "first" : "second")));
            }
        }
    }
    del(bytes_str(colliding_keys[0][0]));
    uint64_t end = walk_end();
    expect(found(bytes_str(colliding_keys[0][0])) == NULL);
    expect(found(bytes_str(colliding_keys[0][1])) != NULL);
    del(bytes_str(colliding_keys[0][1]));
    replay_rest(end);
    close_all();
}
END_TEST

START_TEST(test_h25_h26_a_frame_that_the_walk_saw_in_part) {
    open_all();
    set(low, "a");
    set(high, "b");
    walk_begin();
    walk_to(low);
    hand_frame_begin(&hand);
    set(low, "A");
    set(high, "B");
    hand_frame_end(&hand);
    walk_to(high); /* low of before, high of after */
    expect_text(low, "a");
    expect_text(high, "B");
    (void)walk_end();
    expect_text(low, "A");
    close_all();
}
END_TEST

START_TEST(test_h30_an_expiry_in_the_log_saves_what_the_image_says_has_expired) {
    for (int persist = 0; persist < 2; persist++) {
        open_all();
        must(hand_set(&hand, 0, low, BYTES("session"), ENGINE_NOW_MS + 1800));
        walk_begin();
        uint64_t end = walk_end();
        expire(low, persist ? EXPIRY_NONE : ENGINE_NOW_MS + 90000);
        engine_sleep(&engine, 5000);
        replay_rest(end);
        const struct entry *e = found(low);
        expect(e != NULL && !entry_is_expired(e, engine_now(&engine)));
        expect_text(low, "session");
        close_all();
    }
}
END_TEST

static enum dc_err replay_made_up(enum mut_kind kind, uint64_t prev, bool in_window) {
    struct effect_view e = {.kind = kind,
                            .key = low,
                            .data = BYTES("x"),
                            .expiry_ms = ENGINE_NOW_MS,
                            .prev = prev,
                            .version = log_file_end(&logfile) + 1000,
                            .len = 40};
    enum dc_err err = replay_effect(&image_mut, &e, in_window);
    mut_reset(&image_mut, 0);
    return err;
}

START_TEST(a_patch_that_does_not_find_its_version_is_damage) {
    open_all();
    set(low, "value");
    replay_rest(LSN_FIRST);
    uint64_t version = entry_version(found(low));
    uint64_t before = store_digest(image);
    expect_eq(replay_made_up(MUT_EXPIRE, version - 1, false), DC_ECORRUPT);
    expect_eq(replay_made_up(MUT_EXPIRE, version - 1, true), DC_ECORRUPT);
    expect_eq(replay_made_up(MUT_WRITE, version + 1, false), DC_ECORRUPT);
    expect_eq(replay_made_up(MUT_EXPIRE, 0, false), DC_ECORRUPT);
    expect(store_digest(image) == before);
    must(replay_made_up(MUT_DEL, 0, false));
    expect_eq(replay_made_up(MUT_EXPIRE, version, false), DC_ECORRUPT);
    must(replay_made_up(MUT_EXPIRE, version, true)); /* the walk came by later */
    expect(found(low) == NULL);
    close_all();
}
END_TEST

START_TEST(an_effect_of_an_unknown_database_is_damage) {
    open_all();
    struct effect_view e = {.kind = MUT_DEL, .keyspace = KEYSPACE_MAX, .key = low, .version = 5000};
    expect_eq(replay_effect(&image_mut, &e, true), DC_ECORRUPT);
    close_all();
}
END_TEST

START_TEST(a_put_without_memory_leaves_nothing_and_can_be_tried_again) {
    static char longest[BLOB_MIN_LEN];
    const struct effect_view puts[] = {
        {.kind = MUT_PUT,
         .key = low,
         .version = 5000,
         .value_kind = VALUE_STR,
         .data = BYTES("short"),
         .expiry_ms = ENGINE_NOW_MS + 1000},
        {.kind = MUT_PUT,
         .key = high,
         .version = 6000,
         .value_kind = VALUE_BLOB,
         .data = bytes_of(longest, sizeof(longest)),
         .expiry_ms = EXPIRY_NONE},
    };
    open_all();
    for (size_t i = 0; i < sizeof(puts) / sizeof(puts[0]); i++) {
        uint64_t before = store_digest(image);
        uint64_t n = 0;
        for (enum dc_err err = DC_ENOMEM; err != DC_OK;) {
            mem_fault_after(++n);
            err = replay_effect(&image_mut, &puts[i], false);
            mem_fault_after(0);
            if (err != DC_OK) {
                expect_eq(err, DC_ENOMEM);
                (void)dc_fail_take(err);
                expect(store_digest(image) == before);
            }
        }
        expect(n > 2); /* for the entry, for the table */
        expect_eq(entry_version(found(puts[i].key)), puts[i].version);
    }
    expect(entry_has_expiry(found(low)) && !entry_has_expiry(found(high)));
    close_all();
}
END_TEST

/* --- random ------------------------------------------------------------------------------------------ */

enum { KEYS = 24, TEXT_MAX = 200, TEXT_LONG = BLOB_MIN_LEN + 1000 };

static char names[KEYS][24];
static char texts[TEXT_LONG];

static struct bytes random_key(struct rng *r) {
    return bytes_str(names[rng_below(r, KEYS)]);
}

static struct bytes random_text(struct rng *r) {
    uint64_t dice = rng_below(r, 100);
    size_t len = dice < 3 ? TEXT_LONG - (size_t)rng_below(r, 1000) : (size_t)rng_below(r, TEXT_MAX);
    return dice > 80 ? BYTES("12345") : bytes_of(texts, len);
}

static int64_t random_expiry(struct rng *r) {
    return rng_below(r, 2) == 0 ? EXPIRY_NONE : engine_now(&engine) + 1 + (int64_t)rng_below(r, 60);
}

static void random_command(struct rng *r) {
    uint32_t db = (uint32_t)rng_below(r, 3);
    struct bytes key = random_key(r), other = random_key(r);
    bool existed;
    int64_t sum;
    switch (rng_below(r, 12)) {
    case 0:
    case 1:
    case 2:
        must(hand_set(&hand, db, key, random_text(r), random_expiry(r)));
        break;
    case 3:
    case 4:
        must(hand_append(&hand, db, key, bytes_of(texts + 7, (size_t)rng_below(r, 50))));
        break;
    case 5:
        must(hand_write(&hand, db, key, rng_below(r, 300),
                        bytes_of(texts + 3, 1 + rng_below(r, 9))));
        break;
    case 6:
        must(hand_expire(&hand, db, key, random_expiry(r), &existed));
        break;
    case 7:
        if (hand_incr(&hand, db, key, 1, &sum) != DC_OK) {
            random_text(r); /* it is no integer */
        }
        break;
    case 8:
        must(hand_rename(&hand, db, key, other, &existed));
        break;
    case 9:
        if (rng_below(r, 12) == 0) {
            must(hand_flush(&hand, db));
        }
        break;
    case 10:
        engine_sleep(&engine, (int64_t)rng_below(r, 10));
        break;
    default:
        must(hand_del(&hand, db, key, &existed));
        break;
    }
}

static void random_step(struct rng *r) {
    if (rng_below(r, 6) != 0) {
        random_command(r);
        return;
    }
    hand_frame_begin(&hand);
    for (uint64_t n = rng_below(r, 6); n > 0; n--) {
        random_command(r);
    }
    hand_frame_end(&hand);
}

/* The sweep takes away without a word what has expired: both sides do it before they are compared. */
static void random_run(uint64_t seed, bool sweeps) {
    struct rng r;
    rng_seed(&r, seed);
    open_all();
    for (uint64_t n = rng_below(&r, 60); n > 0; n--) {
        random_step(&r);
    }
    walk_begin();
    while (walked < SLOT_COUNT) {
        random_step(&r);
        if (sweeps && rng_below(&r, 10) == 0) {
            (void)hand_sweep(&hand, NULL, NULL);
        }
        walk((uint32_t)rng_below(&r, SLOT_COUNT / 20));
    }
    uint64_t end = log_file_end(&logfile);
    replay(walk_start, end, true);
    ck_assert_msg(replayed == DC_OK, "seed %" PRIu64 ": %s", seed, dc_fail_take(replayed));
    for (uint64_t n = rng_below(&r, 60); n > 0; n--) {
        random_step(&r);
        if (sweeps && rng_below(&r, 10) == 0) {
            (void)hand_sweep(&hand, NULL, NULL);
        }
    }
    replay(end, log_file_end(&logfile), false);
    ck_assert_msg(replayed == DC_OK, "seed %" PRIu64 ": %s", seed, dc_fail_take(replayed));
    if (sweeps) {
        struct store_sweep sw = {0};
        (void)hand_sweep(&hand, NULL, NULL);
        while (sw.wrapped == 0) {
            (void)store_sweep(&image_thread, &sw, engine_now(&engine), UINT64_MAX, NULL, NULL);
        }
    }
    ck_assert_msg(store_digest(image) == store_digest(engine.store), "seed %" PRIu64, seed);
    close_all();
}

START_TEST(random_commands_during_a_walk_end_in_the_same_store) {
    struct rng r = test_rng();
    for (int i = 0; i < KEYS; i++) {
        snprintf(names[i], sizeof(names[i]), "key:%d", i);
    }
    for (size_t i = 0; i < sizeof(texts); i++) {
        texts[i] = (char)('a' + i % 23);
    }
    for (int i = 0; i < (TEST_SANITIZED ? 40 : 150); i++) {
        random_run(rng_next(&r), i % 2 == 1);
    }
}
END_TEST

CHECK_MAIN("replay", the_effects_of_a_log_make_the_same_store_with_the_same_versions,
           test_h07_a_flush_in_the_middle_of_a_frame, test_h20_a_key_renamed_behind_the_walk,
           test_h21_a_counter_that_had_just_expired_lives_with_its_new_expiry,
           test_h22_writes_over_an_image_that_has_them_already,
           test_h22_writes_to_what_the_same_frame_wrote,
           test_h23_two_databases_and_two_keys_at_one_position,
           test_h25_h26_a_frame_that_the_walk_saw_in_part,
           test_h30_an_expiry_in_the_log_saves_what_the_image_says_has_expired,
           a_patch_that_does_not_find_its_version_is_damage,
           an_effect_of_an_unknown_database_is_damage,
           a_put_without_memory_leaves_nothing_and_can_be_tried_again,
           random_commands_during_a_walk_end_in_the_same_store)
