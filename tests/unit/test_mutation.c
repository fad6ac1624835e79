/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/frame_fmt.h"
#include "server/base/mem.h"
#include "tests/support/one_engine.h"

static bool is(const char *name, struct bytes wanted) {
    struct buf b;
    buf_init(&b, 0);
    bool alive = hand_peek(&hand, 0, bytes_str(name), &b).alive;
    bool same = alive && bytes_equal(buf_bytes(&b), wanted);
    buf_fini(&b);
    return same;
}

static uint64_t version_of(const char *name) {
    return hand_peek(&hand, 0, bytes_str(name), NULL).version;
}

/* --- frames by hand: the prepare and commit of several effects under all locks ----------------------- */

static void frame_begin(void) {
    store_lock_all(engine.store);
    mut_reset(&hand.mut, engine_now(&engine));
}

static void frame_end(void) {
    sequencer_commit(&engine.sequencer, &hand.mut);
    store_unlock_all(engine.store);
    mut_reset(&hand.mut, engine_now(&engine));
}

static struct entry *find(const char *name) {
    struct key k = store_key(engine.store, bytes_str(name));
    return store_peek(&hand.thread, db(0), &k, engine_now(&engine));
}

static enum dc_err put(const char *name, struct bytes text) {
    struct key k = store_key(engine.store, bytes_str(name));
    struct value v = value_of(text);
    return mut_put(&hand.mut, db(0), &k, find(name), &v, EXPIRY_NONE);
}

static enum dc_err del(const char *name) {
    struct key k = store_key(engine.store, bytes_str(name));
    return mut_del(&hand.mut, db(0), &k);
}

START_TEST(a_value_of_the_same_size_is_written_in_place) {
    open_engine();
    frame_begin();
    must(put("k", BYTES("one value")));
    frame_end();
    struct entry *e = find("k");
    frame_begin();
    must(put("k", BYTES("two VALUE")));
    expect(hand.mut.effects[0].in_place && hand.mut.effects[0].entry == NULL);
    frame_end();
    expect(find("k") == e);
    expect(is("k", BYTES("two VALUE")));
    frame_begin();
    must(put("k", BYTES("a value that is too long for the size class of the first one")));
    expect(!hand.mut.effects[0].in_place);
    frame_end();
    expect(is("k", BYTES("a value that is too long for the size class of the first one")));
    expect_eq(keyspace_count(db(0)), 1);
    close_engine();
}
END_TEST

START_TEST(a_rollback_leaves_nothing) {
    open_engine();
    must(hand_set(&hand, 0, BYTES("a"), BYTES("1"), EXPIRY_NONE));
    uint64_t before = store_digest(engine.store);
    struct lsn head = sequencer_head(&engine.sequencer);
    frame_begin();
    must(put("a", BYTES("a longer value than the one that is there, so an entry is prepared")));
    must(put("b", BYTES("2")));
    must(del("a"));
    must(mut_flush(&hand.mut, db(0)));
    mut_rollback(&hand.mut);
    expect_eq(hand.mut.count, 0);
    frame_end();
    expect_eq(store_digest(engine.store), before);
    expect_eq(sequencer_head(&engine.sequencer).v, head.v);
    close_engine();
}
END_TEST

START_TEST(the_last_effect_on_a_key_wins) {
    open_engine();
    frame_begin();
    must(put("k", BYTES("first")));
    must(put("k", BYTES("second, of another length")));
    must(put("k", BYTES("3")));
    frame_end();
    expect(is("k", BYTES("3")));
    frame_begin();
    must(put("k", BYTES("4")));
    must(del("k"));
    frame_end();
    expect(!find("k"));
    frame_begin();
    must(del("k"));
    must(put("k", BYTES("5")));
    frame_end();
    expect(is("k", BYTES("5")));
    expect_eq(keyspace_count(db(0)), 1);
    close_engine();
}
END_TEST

START_TEST(versions_are_the_ends_of_the_effects) {
    open_engine();
    uint64_t start = sequencer_head(&engine.sequencer).v;
    frame_begin();
    must(put("a", BYTES("1")));
    must(put("b", BYTES("some text")));
    must(del("c"));
    must(put("d", BYTES("2")));
    uint64_t len = frame_measure(&hand.mut)->len;
    sequencer_commit(&engine.sequencer, &hand.mut);
    const struct effect *e = hand.mut.effects;
    expect(e[0].version > start && e[1].version > e[0].version && e[2].version > e[1].version);
    expect_eq(e[3].version, start + len);
    expect_eq(mut_version(&hand.mut), start + len);
    expect_eq(sequencer_head(&engine.sequencer).v, start + len);
    expect_eq(entry_version(find("a")), e[0].version);
    expect_eq(entry_version(find("b")), e[1].version);
    expect_eq(entry_version(find("d")), e[3].version);
    store_unlock_all(engine.store);
    close_engine();
}
END_TEST

START_TEST(test_h7_a_flush_inside_a_frame_kills_what_was_before_it) {
    open_engine();
    must(hand_set(&hand, 0, BYTES("old"), BYTES("0"), EXPIRY_NONE));
    must(hand_set(&hand, 0, BYTES("{b}old"), BYTES("0"), EXPIRY_NONE));
    uint64_t head = sequencer_head(&engine.sequencer).v;
    for (int large = 0; large < 2; large++) {
        /* As EXEC does it: each command sees what those before it did. */
        frame_begin();
        must(put("a", BYTES("1")));
        mut_apply(&hand.mut);
        expect(find("a") != NULL && (find("old") != NULL) == (large == 0));
        expect_eq(entry_version(find("a")), 0);
        must(mut_flush(&hand.mut, db(0)));
        mut_apply(&hand.mut);
        expect(find("a") == NULL && find("old") == NULL);
        must(put("b", BYTES("2")));
        mut_apply(&hand.mut);
        expect(find("b") != NULL);
        frame_end();
        expect(find("a") == NULL && find("old") == NULL && find("{b}old") == NULL);
        expect(is("b", BYTES("2")));
        expect_eq(version_of("b"), sequencer_head(&engine.sequencer).v);
        expect(version_of("b") > head);
        expect_eq(keyspace_count(db(0)), 1);
        /* The second time with a large table in the way. */
        for (int i = 0; i < 3000; i++) {
            char name[32];
            snprintf(name, sizeof(name), "{b}%d", i);
            must(hand_set(&hand, 0, bytes_str(name), BYTES("v"), EXPIRY_NONE));
        }
    }
    close_engine();
}
END_TEST

/* Who watched an absent key in the slot hears of all that was there and went, whatever the frame did. */
START_TEST(test_h41_a_flush_inside_a_frame_leaves_the_right_removed_versions) {
    open_engine();
    for (int i = 0; i < 3000; i++) {
        char name[32];
        snprintf(name, sizeof(name), "{big}%d", i);
        must(hand_set(&hand, 0, bytes_str(name), BYTES("v"), EXPIRY_NONE));
    }
    must(hand_set(&hand, 0, BYTES("small"), BYTES("v"), EXPIRY_NONE));
    uint64_t small = version_of("small");
    struct key big_key = store_key(engine.store, BYTES("{big}absent"));
    struct key small_key = store_key(engine.store, BYTES("small"));
    frame_begin();
    must(mut_flush(&hand.mut, db(0)));
    mut_apply(&hand.mut);
    expect(find("{big}1") == NULL); /* the root is cleared while the flush has no version */
    must(put("{big}new", BYTES("1")));
    mut_apply(&hand.mut);
    must(mut_flush(&hand.mut, db(0)));
    mut_apply(&hand.mut);
    expect(find("{big}new") == NULL);
    sequencer_commit(&engine.sequencer, &hand.mut);
    uint64_t end = mut_version(&hand.mut);
    uint64_t put_version = hand.mut.effects[1].version;
    uint64_t removed = store_removed_version(db(0), &big_key);
    expect(removed >= put_version && removed <= end);
    expect_eq(store_removed_version(db(0), &small_key), small);
    frame_end();
    close_engine();
}
END_TEST

START_TEST(inside_a_frame_later_commands_see_what_earlier_ones_did) {
    open_engine();
    frame_begin();
    for (int i = 1; i <= 20; i++) {
        char text[32];
        struct value v = value_int(0);
        if (find("counter") != NULL) {
            entry_value(find("counter"), &v);
        }
        expect_eq(v.num, i - 1);
        snprintf(text, sizeof(text), "%d", i);
        must(put("counter", bytes_str(text)));
        mut_apply(&hand.mut);
    }
    must(del("counter"));
    mut_apply(&hand.mut);
    expect(find("counter") == NULL);
    must(put("counter", BYTES("7")));
    frame_end();
    expect(is("counter", BYTES("7")));
    expect_eq(version_of("counter"), sequencer_head(&engine.sequencer).v);
    close_engine();
}
END_TEST

/* --- H21, H22 ---------------------------------------------------------------------------------------- */

START_TEST(test_h21_a_counter_that_had_expired_lives_with_its_new_expiry) {
    open_engine();
    int64_t sum;
    must(hand_set(&hand, 0, BYTES("n"), BYTES("41"), ENGINE_NOW_MS + 100));
    must(hand_incr(&hand, 0, BYTES("n"), 1, &sum));
    expect_eq(sum, 42);
    expect_eq(hand_peek(&hand, 0, BYTES("n"), NULL).expiry_ms, ENGINE_NOW_MS + 100);
    engine_sleep(&engine, 200);
    must(hand_incr(&hand, 0, BYTES("n"), 1, &sum));
    expect_eq(sum, 1);
    expect_eq(hand_peek(&hand, 0, BYTES("n"), NULL).expiry_ms, EXPIRY_NONE);
    engine_sleep(&engine, 100000);
    hand_sweep(&hand, NULL, NULL);
    expect(is("n", BYTES("1")));
    /* The same for bytes written into what has expired. */
    must(hand_set(&hand, 0, BYTES("s"), BYTES("old content"), engine_now(&engine) + 5));
    engine_sleep(&engine, 5);
    must(hand_write(&hand, 0, BYTES("s"), 3, BYTES("new")));
    expect(is("s", bytes_of("\0\0\0new", 6)));
    expect_eq(hand_peek(&hand, 0, BYTES("s"), NULL).expiry_ms, EXPIRY_NONE);
    expect_eq(keyspace_volatile_count(db(0)), 0);
    close_engine();
}
END_TEST

enum { SHADOW_SIZE = 200000 };

static struct shadow {
    size_t len;
    char text[SHADOW_SIZE];
} shadow;

static void shadow_write(size_t offset, struct bytes bytes) {
    if (offset + bytes.len > shadow.len) {
        size_t end = offset + bytes.len;
        memset(shadow.text + shadow.len, 0, end - shadow.len);
        shadow.len = end;
    }
    if (bytes.len > 0) {
        memcpy(shadow.text + offset, bytes.ptr, bytes.len);
    }
}

/* An offset and a length of every magnitude; some beyond BLOB_MIN_LEN. */
static size_t draw_size(struct rng *r, size_t max) {
    size_t bits = 1 + rng_below(r, 17);
    size_t n = rng_below(r, (uint64_t)1 << bits);
    return n < max ? n : max;
}

START_TEST(test_h22_writes_are_byte_exact_and_the_same_when_applied_twice) {
    open_engine();
    struct rng r = test_rng();
    static char noise[SHADOW_SIZE];
    for (size_t i = 0; i < sizeof(noise); i++) {
        noise[i] = (char)rng_next(&r);
    }
    for (int round = 0; round < 300; round++) {
        shadow.len = 0;
        if (round % 3 == 0) { /* over an integer */
            must(hand_set(&hand, 0, BYTES("k"), BYTES("12345"), ENGINE_NOW_MS + 1000000));
            shadow_write(0, BYTES("12345"));
        }
        for (int i = 0; i < 30; i++) {
            size_t len = draw_size(&r, 70000);
            size_t offset = rng_below(&r, 3) == 0 ? shadow.len : draw_size(&r, 100000);
            offset = offset + len > SHADOW_SIZE ? 0 : offset;
            struct bytes bytes = bytes_of(noise + rng_below(&r, 1000), len);
            /* The engine drops nothing silently, so an empty write beyond the end isn't asked for. */
            offset = len == 0 && offset > shadow.len ? shadow.len : offset;
            shadow_write(offset, bytes);
            must(hand_write(&hand, 0, BYTES("k"), offset, bytes));
            expect(is("k", bytes_of(shadow.text, shadow.len)));
            if (rng_below(&r, 2) == 0) {
                must(hand_write(&hand, 0, BYTES("k"), offset, bytes));
                expect(is("k", bytes_of(shadow.text, shadow.len)));
            }
        }
        bool existed;
        must(hand_del(&hand, 0, BYTES("k"), &existed));
    }
    close_engine();
}
END_TEST

START_TEST(a_write_keeps_the_expiry_and_a_blob_that_somebody_reads) {
    open_engine();
    static char text[100000];
    memset(text, 'x', sizeof(text));
    must(hand_set(&hand, 0, BYTES("k"), bytes_of(text, sizeof(text)), ENGINE_NOW_MS + 5000));
    struct value v;
    entry_value(find("k"), &v);
    expect_eq(v.kind, VALUE_BLOB);
    struct blob *reader = blob_acquire(v.blob);
    must(hand_write(&hand, 0, BYTES("k"), 0, BYTES("YY")));
    expect_eq(reader->data[0], 'x'); /* the reader's bytes haven't changed */
    entry_value(find("k"), &v);
    expect(v.blob != reader && blob_is_sole(reader));
    expect_eq(v.blob->data[0], 'Y');
    expect_eq(entry_expiry(find("k")), ENGINE_NOW_MS + 5000);
    struct blob *now = v.blob;
    must(hand_append(&hand, 0, BYTES("k"), BYTES("tail")));
    entry_value(find("k"), &v);
    expect(v.blob == now && v.blob->len == sizeof(text) + 4); /* in place */
    blob_release(reader);
    close_engine();
}
END_TEST

START_TEST(a_replaced_blob_is_freed_after_the_locks) {
    open_engine();
    static char text[100000];
    must(hand_set(&hand, 0, BYTES("k"), bytes_of(text, sizeof(text)), EXPIRY_NONE));
    frame_begin();
    struct value v;
    entry_value(find("k"), &v);
    struct blob *b = blob_acquire(v.blob);
    must(put("k", BYTES("small")));
    sequencer_commit(&engine.sequencer, &hand.mut);
    expect(!blob_is_sole(b)); /* still garbage */
    store_unlock_all(engine.store);
    mut_reset(&hand.mut, engine_now(&engine));
    expect(blob_is_sole(b));
    blob_release(b);
    close_engine();
}
END_TEST

START_TEST(an_expiry_changes_without_touching_the_value) {
    open_engine();
    bool existed;
    static char text[100000];
    const struct bytes texts[] = {BYTES("12"), BYTES("short"), bytes_of(text, 300),
                                  bytes_of(text, sizeof(text))};
    const int64_t expiries[] = {ENGINE_NOW_MS + 1000, EXPIRY_NONE, INT64_MAX, ENGINE_NOW_MS + 7,
                                EXPIRY_NONE};
    memset(text, 't', sizeof(text));
    for (size_t i = 0; i < 4; i++) {
        must(hand_set(&hand, 0, BYTES("k"), texts[i], EXPIRY_NONE));
        for (size_t j = 0; j < 5; j++) {
            uint64_t before = version_of("k");
            must(hand_expire(&hand, 0, BYTES("k"), expiries[j], &existed));
            expect(is("k", texts[i]) && version_of("k") > before);
            expect_eq(hand_peek(&hand, 0, BYTES("k"), NULL).expiry_ms, expiries[j]);
            expect_eq(keyspace_volatile_count(db(0)), expiries[j] != EXPIRY_NONE);
        }
    }
    close_engine();
}
END_TEST

/* --- H16 --------------------------------------------------------------------------------------------- */

static char large[100000];

static enum dc_err scenario(int which) {
    bool existed;
    int64_t sum;
    struct bytes long_text = bytes_of(large, 500);
    switch (which) {
    case 0:
        return hand_set(&hand, 0, BYTES("new"), BYTES("v"), EXPIRY_NONE);
    case 1:
        return hand_set(&hand, 0, BYTES("small"), long_text, ENGINE_NOW_MS + 9);
    case 2:
        return hand_set(&hand, 0, BYTES("small"), bytes_of(large, sizeof(large)), EXPIRY_NONE);
    case 3:
        return hand_expire(&hand, 0, BYTES("small"), ENGINE_NOW_MS + 9, &existed);
    case 4:
        return hand_expire(&hand, 0, BYTES("blob"), ENGINE_NOW_MS + 9, &existed);
    case 5:
        return hand_append(&hand, 0, BYTES("small"), long_text);
    case 6:
        return hand_append(&hand, 0, BYTES("blob"), bytes_of(large, 70000));
    case 7:
        return hand_write(&hand, 0, BYTES("absent"), 100, BYTES("x"));
    case 8:
        return hand_incr(&hand, 0, BYTES("absent"), 5, &sum);
    case 9:
        return hand_rename(&hand, 0, BYTES("blob"), BYTES("small"), &existed);
    case 10:
        return hand_rename(&hand, 0, BYTES("small"), BYTES("other"), &existed);
    case 11:
        return hand_set(&hand, 0, BYTES("{full}new"), BYTES("v"), EXPIRY_NONE);
    default:
        return hand_flush(&hand, 0);
    }
}

enum { SCENARIOS = 13 };

static void prepare_scenario(void) {
    char name[32];
    open_engine();
    must(hand_set(&hand, 0, BYTES("small"), BYTES("v"), EXPIRY_NONE));
    must(hand_set(&hand, 0, BYTES("blob"), bytes_of(large, sizeof(large)), EXPIRY_NONE));
    for (int i = 0; i < 960; i++) { /* the next one splits the page */
        snprintf(name, sizeof(name), "{full}%d", i);
        must(hand_set(&hand, 0, bytes_str(name), BYTES("v"), EXPIRY_NONE));
    }
}

START_TEST(test_h16_a_command_without_memory_has_no_effect_and_leaks_nothing) {
    for (int which = 0; which < SCENARIOS; which++) {
        prepare_scenario();
        uint64_t before = store_digest(engine.store);
        uint64_t failures = 0;
        mem_thread_delta();
        for (uint64_t n = 1;; n++) {
            struct lsn head = sequencer_head(&engine.sequencer);
            mem_fault_after(n);
            enum dc_err err = scenario(which);
            mem_fault_after(0);
            if (err == DC_OK) {
                break;
            }
            expect_eq(err, DC_ENOMEM);
            expect_eq(store_digest(engine.store), before);
            expect_eq(sequencer_head(&engine.sequencer).v, head.v);
            failures++;
        }
        /* A failed attempt may have made room in a table; nothing else is left of it. */
        expect(mem_thread_delta() < 250000);
        expect(failures > 0 || which >= 12);
        expect(store_digest(engine.store) != before);
        close_engine();
    }
}
END_TEST

static void name_many(struct bytes *names, char (*texts)[32], uint32_t count, bool one_slot) {
    for (uint32_t i = 0; i < count; i++) {
        int len = snprintf(texts[i], sizeof(texts[i]), "%s%u", one_slot ? "{t}" : "key:", i);
        names[i] = bytes_of(texts[i], (size_t)len);
    }
}

START_TEST(test_h16_many_keys_are_set_all_or_none) {
    enum { MANY = 300 };
    static struct bytes names[MANY], values[MANY];
    static char texts[MANY][32];
    for (int one_slot = 0; one_slot < 2; one_slot++) {
        open_engine();
        name_many(names, texts, MANY, one_slot == 1);
        for (uint32_t i = 0; i < MANY; i++) {
            values[i] = i % 50 == 7 ? bytes_of(large, 66000) : bytes_of(large, i);
        }
        uint64_t before = store_digest(engine.store);
        for (uint64_t n = 1;; n++) {
            mem_fault_after(n);
            enum dc_err err = hand_set_many(&hand, 0, names, values, MANY);
            mem_fault_after(0);
            if (err == DC_OK) {
                expect(n > MANY);
                break;
            }
            expect_eq(store_digest(engine.store), before);
        }
        expect_eq(keyspace_count(db(0)), MANY);
        close_engine();
    }
}
END_TEST

START_TEST(a_frame_of_many_keys_wastes_no_memory) {
    enum { MANY = 50000 };
    struct bytes *names = calloc(MANY, sizeof(*names));
    struct bytes *values = calloc(MANY, sizeof(*values));
    char(*texts)[32] = calloc(MANY, sizeof(*texts));
    for (int one_slot = 0; one_slot < 2; one_slot++) {
        open_engine();
        name_many(names, texts, MANY, one_slot == 1);
        memcpy(values, names, MANY * sizeof(*values));
        must(hand_set_many(&hand, 0, names, values, MANY));
        expect_eq(keyspace_count(db(0)), MANY);
        uint64_t together = store_overhead(engine.store);
        close_engine();
        open_engine();
        for (uint32_t i = 0; i < MANY; i++) {
            must(hand_set(&hand, 0, names[i], values[i], EXPIRY_NONE));
        }
        uint64_t one_by_one = store_overhead(engine.store);
        expect(together <= one_by_one + one_by_one / 5);
        close_engine();
    }
    free(names);
    free(values);
    free(texts);
}
END_TEST

START_TEST(what_is_reserved_can_be_deleted_without_memory) {
    open_engine();
    frame_begin();
    must(mut_reserve(&hand.mut, 1000));
    mem_fault_after(1);
    for (int i = 0; i < 1000; i++) {
        must(del("k"));
    }
    expect(mem_alloc(1) == NULL); /* the fault hasn't been used up */
    frame_end();
    expect_eq(mut_version(&hand.mut), 0);
    close_engine();
}
END_TEST

CHECK_MAIN("mutation", a_value_of_the_same_size_is_written_in_place, a_rollback_leaves_nothing,
           the_last_effect_on_a_key_wins, versions_are_the_ends_of_the_effects,
           test_h7_a_flush_inside_a_frame_kills_what_was_before_it,
           test_h41_a_flush_inside_a_frame_leaves_the_right_removed_versions,
           inside_a_frame_later_commands_see_what_earlier_ones_did,
           test_h21_a_counter_that_had_expired_lives_with_its_new_expiry,
           test_h22_writes_are_byte_exact_and_the_same_when_applied_twice,
           a_write_keeps_the_expiry_and_a_blob_that_somebody_reads,
           a_replaced_blob_is_freed_after_the_locks, an_expiry_changes_without_touching_the_value,
           test_h16_a_command_without_memory_has_no_effect_and_leaks_nothing,
           test_h16_many_keys_are_set_all_or_none, a_frame_of_many_keys_wastes_no_memory,
           what_is_reserved_can_be_deleted_without_memory)
