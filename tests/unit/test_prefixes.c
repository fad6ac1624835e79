/* SPDX-License-Identifier: BSD-3-Clause */
#include "tools/dcache-inspect/prefixes.h"

#include "server/base/rng.h"
#include "tests/support/check_main.h"

enum { DIFFERENT = 400, ADDED = 20000, COUNTERS = 50, DBS = 2 };

static struct prefix_sums truth[DBS][DIFFERENT];

static uint64_t bytes_in(const struct prefix_sums *s) {
    return s->key_bytes + s->value_bytes;
}

/* A few have much, many have little. */
static void fill(struct prefixes *p, uint32_t different) {
    struct rng r = test_rng();
    memset(truth, 0, sizeof(truth));
    for (uint32_t i = 0; i < ADDED; i++) {
        char text[16];
        uint32_t db = (uint32_t)rng_below(&r, DBS);
        uint32_t n = (uint32_t)rng_below(&r, 1 + rng_below(&r, 1 + rng_below(&r, different)));
        struct prefix_sums one = {1, n % 2, 10, rng_below(&r, 100)};
        int len = snprintf(text, sizeof(text), "%u", n);
        prefix_sums_add(&truth[db][n], &one);
        prefixes_add(p, db, bytes_of(text, (size_t)len), &one);
    }
}

static const struct prefix_sums *truth_of(const struct prefix *x) {
    char text[16] = "";
    memcpy(text, x->text, x->len);
    return &truth[x->keyspace][strtoul(text, NULL, 10)];
}

START_TEST(with_a_counter_for_each_the_sums_are_exact_and_in_order) {
    struct prefixes p;
    uint32_t different = 0;
    prefixes_init(&p, DBS * COUNTERS);
    fill(&p, COUNTERS);
    prefixes_sort(&p);
    for (uint32_t n = 0; n < DBS * COUNTERS; n++) {
        different += truth[n % DBS][n / DBS].keys > 0;
    }
    ck_assert_uint_eq(p.count, different);
    ck_assert_uint_eq(p.bytes_lost, 0);
    for (uint32_t i = 0; i < p.count; i++) {
        const struct prefix *x = &p.list[i];
        ck_assert_mem_eq(&x->sums, truth_of(x), sizeof(x->sums));
        ck_assert_uint_eq(x->bytes_owed + x->keys_owed, 0);
        ck_assert(i == 0 || bytes_in(&x[-1].sums) >= bytes_in(&x->sums));
    }
    prefixes_fini(&p);
}
END_TEST

START_TEST(with_fewer_the_truth_lies_between_what_is_seen_and_what_is_owed) {
    struct prefixes p;
    uint64_t all = 0, owed = 0;
    bool has_counter[DBS][DIFFERENT] = {{false}};
    prefixes_init(&p, COUNTERS);
    fill(&p, DIFFERENT);
    prefixes_sort(&p);
    ck_assert_uint_eq(p.count, COUNTERS);
    for (uint32_t i = 0; i < p.count; i++) {
        const struct prefix *x = &p.list[i];
        const struct prefix_sums *t = truth_of(x);
        has_counter[x->keyspace][t - truth[x->keyspace]] = true;
        ck_assert_uint_le(bytes_in(&x->sums), bytes_in(t)); /* I1 */
        ck_assert_uint_ge(prefix_bytes_at_most(x), bytes_in(t));
        ck_assert_uint_le(x->sums.keys, t->keys);
        ck_assert_uint_ge(x->sums.keys + x->keys_owed, t->keys);
        owed += x->bytes_owed;
    }
    ck_assert_uint_gt(owed, 0);
    for (uint32_t n = 0; n < DBS * DIFFERENT; n++) {
        const struct prefix_sums *t = &truth[n % DBS][n / DBS];
        all += bytes_in(t);
        ck_assert(has_counter[n % DBS][n / DBS] || bytes_in(t) <= p.bytes_lost); /* I2 */
    }
    ck_assert_uint_le(p.bytes_lost, all / COUNTERS); /* so who has more is found */
    prefixes_fini(&p);
}
END_TEST

START_TEST(a_counter_that_is_taken_is_found_by_its_new_name_alone) {
    struct prefixes p;
    struct prefix_sums one = {1, 0, 3, 7};
    prefixes_init(&p, 1);
    prefixes_add(&p, 0, BYTES("old"), &one);
    prefixes_add(&p, 0, BYTES("old"), &one);
    prefixes_add(&p, 1, BYTES("old"), &one); /* of another database: another one */
    ck_assert_uint_eq(p.list[0].keyspace, 1);
    ck_assert_uint_eq(p.list[0].sums.keys, 1);
    ck_assert_uint_eq(p.list[0].bytes_owed, 20);
    ck_assert_uint_eq(p.list[0].keys_owed, 2);
    prefixes_add(&p, 0, BYTES("old"), &one);
    ck_assert_uint_eq(p.list[0].sums.keys, 1);
    ck_assert_uint_eq(p.list[0].bytes_owed, 30);
    prefixes_fini(&p);
}
END_TEST

START_TEST(what_is_longer_than_the_longest_counts_as_its_beginning) {
    struct prefixes p;
    struct prefix_sums one = {1, 0, 300, 0};
    char text[PREFIX_LEN_MAX + 2];
    memset(text, 'x', sizeof(text));
    prefixes_init(&p, 4);
    prefixes_add(&p, 0, bytes_of(text, PREFIX_LEN_MAX), &one);
    ck_assert(!p.list[0].is_cut);
    prefixes_add(&p, 0, bytes_of(text, PREFIX_LEN_MAX + 1), &one);
    text[PREFIX_LEN_MAX] = 'y';
    prefixes_add(&p, 0, bytes_of(text, PREFIX_LEN_MAX + 2), &one);
    ck_assert(p.list[0].is_cut);
    ck_assert_uint_eq(p.count, 1);
    ck_assert_uint_eq(p.list[0].sums.keys, 3);
    ck_assert_uint_eq(p.list[0].len, PREFIX_LEN_MAX);
    prefixes_fini(&p);
}
END_TEST

static bool prefix_is(struct bytes key, struct bytes delimiter, const char *expected) {
    struct bytes got = {NULL, 0};
    bool has = prefix_of(key, delimiter, &got);
    return expected == NULL ? !has : has && bytes_equal(got, bytes_str(expected));
}

START_TEST(a_prefix_ends_at_the_first_delimiter) {
    ck_assert(prefix_is(BYTES("a:b:c"), BYTES(":"), "a"));
    ck_assert(prefix_is(BYTES(":b"), BYTES(":"), ""));
    ck_assert(prefix_is(BYTES("a:"), BYTES(":"), "a"));
    ck_assert(prefix_is(BYTES("abc"), BYTES(":"), NULL));
    ck_assert(prefix_is(BYTES(""), BYTES(":"), NULL));
    ck_assert(prefix_is(BYTES("a:b::c"), BYTES("::"), "a:b"));
    ck_assert(prefix_is(BYTES("\xff\xfe|\n"), BYTES("|"), "\xff\xfe"));
    struct bytes got;
    ck_assert(prefix_of(BYTES("a\0b:c"), BYTES(":"), &got));
    ck_assert(bytes_equal(got, BYTES("a\0b")));
}
END_TEST

CHECK_MAIN("prefixes", with_a_counter_for_each_the_sums_are_exact_and_in_order,
           with_fewer_the_truth_lies_between_what_is_seen_and_what_is_owed,
           a_counter_that_is_taken_is_found_by_its_new_name_alone,
           what_is_longer_than_the_longest_counts_as_its_beginning,
           a_prefix_ends_at_the_first_delimiter)
