/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/mem.h"
#include "tests/support/check_main.h"
#include "tests/support/collide.h"
#include "tests/support/expect.h"
#include "tests/support/store_check.h"

#include <math.h>

static const uint8_t seed[HASH_SEED_LEN];

static uint64_t hash_of(struct bytes name) {
    return crypto_hash(name, seed) & (HASH_END - 1);
}

static struct bytes name_of(char *text, uint64_t i) {
    return bytes_of(text, (size_t)snprintf(text, 32, "key:%" PRIu64, i));
}

static struct entry *entry_of(struct bytes name, int64_t num) {
    struct entry_spec spec = {name, value_int(num), EXPIRY_NONE};
    struct entry *e = entry_create(&spec);
    expect(e != NULL);
    return e;
}

static void must(enum dc_err err) {
    expect_eq(err, DC_OK);
}

static void table_init(struct table *t) {
    crypto_init();
    memset(t, 0, sizeof(*t));
    t->due = DUE_NEVER;
}

static struct table_facts check(const struct table *t) {
    struct table_facts facts = {0};
    const char *err = table_check(t, seed, &facts);
    ck_assert_msg(err == NULL, "%s", err);
    return facts;
}

static void insert(struct table *t, struct bytes name, int64_t num) {
    must(table_reserve(t, hash_of(name), 1, seed));
    table_insert(t, hash_of(name), entry_of(name, num), seed);
}

static bool remove_key(struct table *t, struct bytes name) {
    struct table_place at;
    struct entry *e = table_locate(t, hash_of(name), name, &at);
    if (e == NULL) {
        return false;
    }
    table_remove(&at);
    entry_destroy(e);
    return true;
}

static void drop(struct table *t) {
    table_drop(t);
    expect_eq(t->word, 0);
    expect_eq(t->count, 0);
}

START_TEST(an_empty_table_has_no_memory_and_finds_nothing) {
    struct table t;
    struct table_place at;
    table_init(&t);
    expect(table_find(&t, hash_of(BYTES("a")), BYTES("a")) == NULL);
    expect(table_locate(&t, hash_of(BYTES("a")), BYTES("a"), &at) == NULL);
    expect(table_find_version(&t, hash_of(BYTES("a")), 1) == NULL);
    expect_eq(table_overhead(&t), 0);
    table_prefetch(&t, 0);
    table_trim(&t);
    drop(&t);
}
END_TEST

START_TEST(what_is_inserted_is_found_until_it_is_removed) {
    struct table t;
    char text[32];
    table_init(&t);
    for (uint64_t i = 0; i < 5000; i++) {
        insert(&t, name_of(text, i), (int64_t)i);
        check(&t);
        struct bytes name = name_of(text, i / 2);
        const struct entry *e = table_find(&t, hash_of(name), name);
        struct value v;
        expect(e != NULL);
        entry_value(e, &v);
        expect_eq(v.num, (int64_t)i / 2);
    }
    for (uint64_t i = 0; i < 5000; i++) {
        expect(remove_key(&t, name_of(text, i)));
        expect(!remove_key(&t, name_of(text, i)));
        if (i % 16 == 0) {
            check(&t);
        }
    }
    expect_eq(check(&t).entries, 0);
    drop(&t);
}
END_TEST

/* Random operations over a moving number of keys; the bit field says what should be there. */
static void random_operations(uint32_t population, uint32_t count, uint32_t check_every) {
    struct rng r = test_rng();
    struct table t;
    char text[32];
    uint8_t *there = calloc(population, 1);
    uint64_t entries = 0;
    table_init(&t);
    for (uint32_t i = 0; i < count; i++) {
        /* A wave: mostly insertions, then mostly removals. */
        bool want = (double)rng_below(&r, 1000) < 500 + 480 * sin((double)i / count * 20);
        uint32_t k = (uint32_t)rng_below(&r, population);
        struct bytes name = name_of(text, k);
        const struct entry *e = table_find(&t, hash_of(name), name);
        expect_eq(e != NULL, there[k]);
        if (want && e == NULL) {
            insert(&t, name, k);
            entries++;
        } else if (!want && e != NULL) {
            expect(remove_key(&t, name));
            entries--;
        }
        there[k] = want;
        if (i % 5000 == 0) {
            table_trim(&t);
        }
        if (i % check_every == 0) {
            expect_eq(check(&t).entries, entries);
        }
    }
    expect_eq(check(&t).entries, entries);
    drop(&t);
    free(there);
}

START_TEST(random_operations_keep_the_invariants_of_a_page) {
    random_operations(20, 40000, 1);
    random_operations(300, 100000, 50);
}
END_TEST

START_TEST(random_operations_keep_the_invariants_of_a_tree) {
    random_operations(3000, 200000, 500);
    random_operations(40000, 400000, 20000);
}
END_TEST

/* Keys whose hashes begin with the same bits: deep nodes, few pages. */
START_TEST(keys_with_a_common_prefix_of_hash_make_a_deep_table) {
    struct table t;
    char text[32];
    uint64_t tries = 0, inserted = 0;
    table_init(&t);
    while (inserted < 20000) {
        struct bytes name = name_of(text, tries++);
        if (hash_of(name) >> (HASH_BITS - 8) == 0x5a) {
            insert(&t, name, (int64_t)inserted++);
        }
    }
    struct table_facts facts = check(&t);
    expect_eq(facts.entries, inserted);
    expect(facts.depth >= 3);
    for (uint64_t i = 0; i < tries; i++) {
        struct bytes name = name_of(text, i);
        expect_eq(remove_key(&t, name), hash_of(name) >> (HASH_BITS - 8) == 0x5a);
    }
    check(&t);
    drop(&t);
}
END_TEST

START_TEST(test_h23_two_keys_at_one_position_are_two_keys) {
    struct table t;
    char text[32];
    table_init(&t);
    for (uint64_t filler = 0; filler < 100000; filler = filler * 10 + 10) {
        for (uint64_t i = 0; i < filler; i++) {
            insert(&t, name_of(text, i), 0);
        }
        for (uint32_t p = 0; p < COLLIDING_PAIRS; p++) {
            struct bytes a = bytes_str(colliding_keys[p][0]), b = bytes_str(colliding_keys[p][1]);
            expect_eq(hash_of(a), hash_of(b));
            insert(&t, a, 1);
            expect(table_find(&t, hash_of(b), b) == NULL);
            insert(&t, b, 2);
            check(&t);
            expect(table_find(&t, hash_of(a), a) != table_find(&t, hash_of(b), b));
            expect(remove_key(&t, p % 2 == 0 ? a : b));
            struct bytes left = p % 2 == 0 ? b : a;
            expect(table_find(&t, hash_of(left), left) != NULL);
        }
        drop(&t);
    }
}
END_TEST

START_TEST(an_entry_is_found_by_its_version) {
    struct table t;
    char text[32];
    table_init(&t);
    for (uint64_t i = 0; i < 3000; i++) {
        struct bytes name = name_of(text, i);
        struct entry *e = entry_of(name, 0);
        entry_set_version(e, 1000 + i);
        must(table_reserve(&t, hash_of(name), 1, seed));
        table_insert(&t, hash_of(name), e, seed);
    }
    for (uint64_t i = 0; i < 3000; i++) {
        struct bytes name = name_of(text, i);
        expect(table_find_version(&t, hash_of(name), 1000 + i) ==
               table_find(&t, hash_of(name), name));
        expect(table_find_version(&t, hash_of(name), 999) == NULL);
    }
    drop(&t);
}
END_TEST

START_TEST(a_replaced_entry_stands_in_the_same_place) {
    struct table t;
    struct table_place at;
    char text[32];
    table_init(&t);
    for (uint64_t i = 0; i < 1000; i++) {
        insert(&t, name_of(text, i), 1);
    }
    struct bytes name = name_of(text, 500);
    struct entry *old = table_locate(&t, hash_of(name), name, &at);
    struct entry *fresh = entry_of(name, 2);
    table_replace(&at, fresh);
    entry_destroy(old);
    expect(table_find(&t, hash_of(name), name) == fresh);
    expect_eq(check(&t).entries, 1000);
    drop(&t);
}
END_TEST

/* Insertions that were reserved ask for no memory: the armed fault is still there afterwards. */
START_TEST(test_h16_what_is_reserved_needs_no_memory) {
    struct table t;
    char text[32];
    table_init(&t);
    uint64_t next = 0;
    for (uint32_t extra = 1; extra <= 100; extra++) {
        struct entry *es[100];
        struct bytes first = name_of(text, next);
        /* All at one page: the way of the first one while the table is small. */
        must(table_reserve(&t, hash_of(first), extra, seed));
        for (uint32_t i = 0; i < extra; i++) {
            es[i] = entry_of(name_of(text, next + i), 0);
        }
        mem_fault_after(1);
        for (uint32_t i = 0; i < extra && t.count < 800; i++) {
            table_insert(&t, hash_of(entry_key(es[i])), es[i], seed);
            es[i] = NULL;
        }
        expect(mem_alloc(1) == NULL);
        for (uint32_t i = 0; i < extra; i++) {
            entry_destroy(es[i]);
        }
        next += extra;
        if (t.count >= 800) {
            drop(&t);
        }
        check(&t);
    }
    drop(&t);
}
END_TEST

START_TEST(test_h16_a_failed_reservation_changes_nothing) {
    struct table t;
    char text[32];
    uint64_t failures = 0;
    table_init(&t);
    for (uint64_t i = 0; i < 20000; i++) {
        struct bytes name = name_of(text, i);
        for (uint64_t n = 1;; n++) {
            mem_fault_after(n);
            enum dc_err err = table_reserve(&t, hash_of(name), 1, seed);
            mem_fault_after(0);
            if (err == DC_OK) {
                break;
            }
            expect_eq(err, DC_ENOMEM);
            expect_eq(check(&t).entries, i);
            failures++;
        }
        table_insert(&t, hash_of(name), entry_of(name, 0), seed);
    }
    expect(failures > 100);
    drop(&t);
}
END_TEST

/* --- steps ------------------------------------------------------------------------------------------- */

struct steps {
    uint64_t least; /* hash that may come */
    uint64_t seen;
    uint64_t first, last; /* range of hashes of this step */
};

static void step_visit(void *arg, struct entry *e) {
    struct steps *s = arg;
    uint64_t hash = hash_of(entry_key(e));
    expect(hash >= s->least);
    s->first = hash < s->first ? hash : s->first;
    s->last = hash > s->last ? hash : s->last;
    s->seen++;
    e->freq++;
}

START_TEST(steps_by_line_go_through_all_in_order) {
    char text[32];
    for (uint64_t count = 0; count < 30000; count = count * 2 + 1) {
        struct table t;
        table_init(&t);
        for (uint64_t i = 0; i < count; i++) {
            insert(&t, name_of(text, i), 0);
        }
        struct steps s = {0};
        for (uint64_t from = 0; from < HASH_END;) {
            s.least = from;
            s.first = HASH_END;
            s.last = 0;
            uint64_t next = table_step_line(&t, from, seed, step_visit, &s);
            expect(next > from);
            expect(s.last < next || s.last == 0);
            from = next;
        }
        expect_eq(s.seen, count);
        for (uint64_t i = 0; i < count; i++) {
            struct bytes name = name_of(text, i);
            expect_eq(table_find(&t, hash_of(name), name)->freq, 1);
        }
        drop(&t);
    }
}
END_TEST

START_TEST(a_step_may_begin_anywhere) {
    struct rng r = test_rng();
    struct table t;
    char text[32];
    table_init(&t);
    for (uint64_t i = 0; i < 5000; i++) {
        insert(&t, name_of(text, i), 0);
    }
    for (int round = 0; round < 3000; round++) {
        /* In half of the rounds exactly at a key. */
        uint64_t from = rng_next(&r) & (HASH_END - 1);
        if (round % 2 == 0) {
            from = hash_of(name_of(text, rng_below(&r, 5000)));
        }
        struct steps s = {.least = from, .first = HASH_END};
        uint64_t to = table_step_line(&t, from, seed, step_visit, &s);
        uint64_t expected = 0;
        for (uint64_t i = 0; i < 5000; i++) {
            uint64_t hash = hash_of(name_of(text, i));
            expected += hash >= from && hash < to;
        }
        expect_eq(s.seen, expected);
    }
    drop(&t);
}
END_TEST

START_TEST(steps_by_page_see_all_or_only_what_is_due) {
    struct table t;
    char text[32];
    table_init(&t);
    for (uint64_t i = 0; i < 10000; i++) {
        insert(&t, name_of(text, i), 0);
    }
    struct steps s = {0};
    for (uint64_t from = 0; from < HASH_END;) {
        table_visit_page(table_due_page(&t, from, DUE_NEVER, &from), step_visit, &s);
    }
    expect_eq(s.seen, 10000);
    uint64_t to;
    expect(table_due_page(&t, 0, 1000, &to) == NULL);
    expect_eq(to, HASH_END);
    /* One key becomes due: its page is looked at, the others aren't. */
    struct bytes name = name_of(text, 77);
    table_due(&t, hash_of(name), 900);
    expect_eq(t.due, 900);
    uint32_t pages = 0;
    for (uint64_t from = 0; from < HASH_END; from = to) {
        const struct table *page = table_due_page(&t, from, 1000, &to);
        if (page != NULL) {
            expect(from <= hash_of(name) && hash_of(name) < to);
            expect(page->count > 0 && page->count <= PAGE_WORDS_MAX);
            table_set_due(&t, from, DUE_NEVER);
            pages++;
        }
    }
    expect_eq(pages, 1);
    expect_eq(t.due, DUE_NEVER);
    check(&t);
    drop(&t);
}
END_TEST

START_TEST(due_times_are_reached_only_when_the_expiry_has_passed) {
    struct rng r = test_rng();
    expect_eq(due_of(EXPIRY_NONE), DUE_NEVER);
    expect_eq(due_of(0), 0);
    expect_eq(due_of(EXPIRY_BASE_MS), 0);
    expect_eq(due_of(EXPIRY_BASE_MS + 1), 1);
    expect_eq(due_of(EXPIRY_BASE_MS + DUE_UNIT_MS), 1);
    expect_eq(due_of(INT64_MAX), DUE_NEVER - 1);
    for (int i = 0; i < 10000; i++) {
        int64_t expiry_ms = EXPIRY_BASE_MS + (int64_t)rng_below(&r, 1000000000);
        int64_t now_ms = expiry_ms - 1 + (int64_t)rng_below(&r, 3 * DUE_UNIT_MS);
        expect(due_at(now_ms) < due_of(expiry_ms) || now_ms >= expiry_ms);
        expect(due_at(now_ms) >= due_of(expiry_ms) || now_ms < expiry_ms + DUE_UNIT_MS);
    }
}
END_TEST

START_TEST(a_table_taken_apart_page_by_page_is_gone_in_the_end) {
    char text[32];
    for (uint64_t count = 0; count < 20000; count = count * 3 + 1) {
        struct table t, moved;
        table_init(&t);
        for (uint64_t i = 0; i < count; i++) {
            insert(&t, name_of(text, i), 0);
        }
        expect_eq(table_is_large(&t), count > PAGE_WORDS_MAX);
        table_move(&moved, &t);
        expect_eq(check(&moved).entries, count);
        expect_eq(check(&t).entries, 0);
        uint64_t freed = 0;
        while (!table_is_gone(&moved)) {
            uint32_t some = table_drop_page(&moved);
            expect(some <= PAGE_WORDS_MAX);
            freed += some;
        }
        expect_eq(freed, count);
        expect_eq(table_overhead(&moved), 0);
    }
}
END_TEST

/* --- size -------------------------------------------------------------------------------------------- */

START_TEST(pages_give_their_memory_back_when_entries_leave) {
    struct table t;
    char text[32];
    table_init(&t);
    for (uint64_t i = 0; i < 30000; i++) {
        insert(&t, name_of(text, i), 0);
    }
    size_t full = table_overhead(&t);
    expect(full < 30000 * 13);
    for (uint64_t i = 0; i < 29000; i++) {
        expect(remove_key(&t, name_of(text, i)));
    }
    check(&t);
    expect(table_overhead(&t) < full / 6);
    for (uint64_t i = 29000; i < 30000; i++) {
        expect(remove_key(&t, name_of(text, i)));
    }
    table_trim(&t);
    expect_eq(table_overhead(&t), 0);
    expect_eq(t.word, 0);
}
END_TEST

START_TEST(a_page_made_for_too_many_is_cut_to_what_came) {
    struct table t;
    char text[32];
    table_init(&t);
    must(table_reserve_page(&t, hash_of(name_of(text, 0)), 500, seed));
    size_t made = table_overhead(&t);
    for (uint64_t i = 0; i < 480; i++) {
        insert(&t, name_of(text, i), 0);
    }
    expect_eq(table_overhead(&t), made); /* it didn't grow */
    table_fit(&t);
    expect_eq(table_overhead(&t), made); /* a few words aren't worth it */
    drop(&t);
    must(table_reserve_page(&t, hash_of(name_of(text, 0)), 500, seed));
    for (uint64_t i = 0; i < 20; i++) {
        insert(&t, name_of(text, i), 0);
    }
    table_fit(&t);
    expect(table_overhead(&t) <= 20 * 13);
    check(&t);
    for (uint64_t i = 0; i < 20; i++) {
        struct bytes name = name_of(text, i);
        expect(table_find(&t, hash_of(name), name) != NULL);
    }
    drop(&t);
}
END_TEST

CHECK_MAIN("table", an_empty_table_has_no_memory_and_finds_nothing,
           what_is_inserted_is_found_until_it_is_removed,
           random_operations_keep_the_invariants_of_a_page,
           random_operations_keep_the_invariants_of_a_tree,
           keys_with_a_common_prefix_of_hash_make_a_deep_table,
           test_h23_two_keys_at_one_position_are_two_keys, an_entry_is_found_by_its_version,
           a_replaced_entry_stands_in_the_same_place, test_h16_what_is_reserved_needs_no_memory,
           test_h16_a_failed_reservation_changes_nothing, steps_by_line_go_through_all_in_order,
           a_step_may_begin_anywhere, steps_by_page_see_all_or_only_what_is_due,
           due_times_are_reached_only_when_the_expiry_has_passed,
           a_table_taken_apart_page_by_page_is_gone_in_the_end,
           pages_give_their_memory_back_when_entries_leave,
           a_page_made_for_too_many_is_cut_to_what_came)
