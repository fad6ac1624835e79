/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/dict.h"
#include "server/base/crypto.h"
#include "tests/support/check_main.h"

enum { ITEMS = 5000 };

static const uint8_t seed[HASH_SEED_LEN] = {1, 2, 3};

static struct item {
    struct dict_node node;
    char name[16];
    bool in;
    bool seen;
} items[ITEMS];

static void items_init(const struct dict *d) {
    for (size_t i = 0; i < ITEMS; i++) {
        struct item *it = &items[i];
        int len = snprintf(it->name, sizeof(it->name), "item%zu", i);
        *it = (struct item){.in = false};
        snprintf(it->name, sizeof(it->name), "item%zu", i);
        it->node.name = bytes_of(it->name, (size_t)len);
        it->node.hash = dict_hash(d, it->node.name);
    }
}

static void add(struct dict *d, struct item *it) {
    dict_add(d, &it->node);
    it->in = true;
}

static void take(struct dict *d, struct item *it) {
    dict_remove(d, &it->node);
    it->in = false;
}

static void check_all(const struct dict *d) {
    size_t in = 0, seen = 0;
    for (size_t i = 0; i < ITEMS; i++) {
        struct dict_node *found = dict_find(d, items[i].node.name, items[i].node.hash);
        ck_assert_ptr_eq(found, items[i].in ? &items[i].node : NULL);
        in += items[i].in;
        items[i].seen = false;
    }
    ck_assert_uint_eq(d->count, in);
    struct dict_walk walk = {0};
    for (struct dict_node *node; (node = dict_walk_next(d, &walk)) != NULL; seen++) {
        struct item *it = (struct item *)node;
        ck_assert(it->in && !it->seen);
        it->seen = true;
    }
    ck_assert_uint_eq(seen, in);
}

START_TEST(finds_what_is_in_it_and_nothing_else) {
    struct dict d;
    dict_init(&d, seed);
    items_init(&d);
    check_all(&d);
    for (size_t i = 0; i < ITEMS; i++) {
        add(&d, &items[i]);
        if (i < 70 || i % 1009 == 0) {
            check_all(&d);
        }
    }
    check_all(&d);
    for (size_t i = 0; i < ITEMS; i++) {
        take(&d, &items[(i * 7919) % ITEMS]);
        if (i > ITEMS - 70 || i % 1009 == 0) {
            check_all(&d);
        }
    }
    dict_fini(&d);
}
END_TEST

START_TEST(behaves_like_a_set_under_random_changes) {
    struct rng rng = test_rng();
    struct dict d;
    dict_init(&d, seed);
    items_init(&d);
    for (int round = 0; round < 40; round++) {
        uint64_t percent = rng_below(&rng, 101); /* of additions */
        for (int i = 0; i < 1000; i++) {
            struct item *it = &items[rng_below(&rng, ITEMS)];
            if (it->in && rng_below(&rng, 100) >= percent) {
                take(&d, it);
            } else if (!it->in && rng_below(&rng, 100) < percent) {
                add(&d, it);
            }
        }
        check_all(&d);
    }
    dict_fini(&d);
}
END_TEST

/* I2 */
START_TEST(an_empty_one_owns_nothing) {
    struct dict d;
    dict_init(&d, seed);
    items_init(&d);
    for (size_t i = 0; i < 100; i++) {
        add(&d, &items[i]);
    }
    ck_assert_uint_ge(d.table.size, 64);
    for (size_t i = 0; i < 100; i++) {
        take(&d, &items[i]);
    }
    ck_assert_ptr_null(d.table.buckets);
    ck_assert_ptr_null(d.old.buckets);
    add(&d, &items[3]);
    check_all(&d);
    take(&d, &items[3]);
}
END_TEST

START_TEST(shrinks_when_it_is_nearly_empty_and_used_again) {
    struct dict d;
    dict_init(&d, seed);
    items_init(&d);
    for (size_t i = 0; i < ITEMS; i++) {
        add(&d, &items[i]);
    }
    size_t full = d.table.size;
    for (size_t i = 10; i < ITEMS; i++) {
        take(&d, &items[i]);
    }
    for (size_t i = 10; i < 300; i++) {
        add(&d, &items[i]);
        check_all(&d);
    }
    ck_assert_uint_lt(d.table.size, full / 4);
    ck_assert_ptr_null(d.old.buckets);
    dict_fini(&d);
}
END_TEST

/* I1 */
START_TEST(a_walk_may_remove_what_it_was_shown) {
    struct dict d;
    dict_init(&d, seed);
    items_init(&d);
    for (size_t i = 0; i < 1030; i++) { /* amid a resize */
        add(&d, &items[i]);
    }
    ck_assert_ptr_nonnull(d.old.buckets);
    struct dict_walk walk = {0};
    size_t seen = 0;
    for (struct dict_node *node; (node = dict_walk_next(&d, &walk)) != NULL; seen++) {
        if (seen % 3 != 0) {
            take(&d, (struct item *)node);
        }
    }
    ck_assert_uint_eq(seen, 1030);
    check_all(&d);
    walk = (struct dict_walk){0};
    for (struct dict_node *node; (node = dict_walk_next(&d, &walk)) != NULL;) {
        take(&d, (struct item *)node);
    }
    ck_assert_uint_eq(d.count, 0);
    check_all(&d);
}
END_TEST

START_TEST(names_may_be_empty_or_binary) {
    struct dict d;
    struct dict_node empty = {.name = BYTES("")}, zero = {.name = BYTES("\0")};
    dict_init(&d, seed);
    empty.hash = dict_hash(&d, empty.name);
    zero.hash = dict_hash(&d, zero.name);
    dict_add(&d, &empty);
    ck_assert_ptr_null(dict_find(&d, zero.name, zero.hash));
    dict_add(&d, &zero);
    ck_assert_ptr_eq(dict_find(&d, bytes_of(NULL, 0), empty.hash), &empty);
    ck_assert_ptr_eq(dict_find(&d, BYTES("\0"), zero.hash), &zero);
    dict_fini(&d);
}
END_TEST

static void remove_a_stranger(void *arg) {
    struct dict *d = arg;
    struct dict_node node = {.name = BYTES("stranger"), .hash = 7};
    dict_remove(d, &node);
}

START_TEST(only_what_is_in_it_can_be_removed) {
    struct dict d;
    dict_init(&d, seed);
    items_init(&d);
    add(&d, &items[0]);
    ck_assert(test_aborts(remove_a_stranger, &d));
    dict_fini(&d);
}
END_TEST

CHECK_MAIN("dict", finds_what_is_in_it_and_nothing_else, behaves_like_a_set_under_random_changes,
           an_empty_one_owns_nothing, shrinks_when_it_is_nearly_empty_and_used_again,
           a_walk_may_remove_what_it_was_shown, names_may_be_empty_or_binary,
           only_what_is_in_it_can_be_removed)
