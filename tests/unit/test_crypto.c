/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/crypto.h"
#include "server/base/rng.h"
#include "tests/support/check_main.h"

#include <string.h>

START_TEST(the_hash_is_siphash_2_4) {
    crypto_init();
    uint8_t seed[HASH_SEED_LEN], data[15];
    for (size_t i = 0; i < sizeof(seed); i++) {
        seed[i] = (uint8_t)i;
    }
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)i;
    }
    /* the example of the SipHash paper */
    uint64_t hash = crypto_siphash(bytes_of((char *)data, sizeof(data)), seed);
    ck_assert_uint_eq(hash, 0xa129ca6149be45e5);
    seed[0] ^= 1;
    ck_assert_uint_ne(crypto_siphash(bytes_of((char *)data, sizeof(data)), seed), hash);
}
END_TEST

START_TEST(secrets_are_equal_or_not) {
    crypto_init();
    ck_assert(crypto_equal(BYTES("secret"), BYTES("secret")));
    ck_assert(crypto_equal(BYTES(""), bytes_of(NULL, 0)));
    ck_assert(!crypto_equal(BYTES("secret"), BYTES("Secret")));
    ck_assert(!crypto_equal(BYTES("secret"), BYTES("secret\0")));
    ck_assert(!crypto_equal(BYTES("secret"), BYTES("secre")));
    ck_assert(!crypto_equal(BYTES("secret"), BYTES("")));
}
END_TEST

START_TEST(random_bytes_differ) {
    crypto_init();
    crypto_init(); /* a second time does no harm */
    uint8_t a[32] = {0}, b[32] = {0};
    crypto_random(a, sizeof(a));
    crypto_random(b, sizeof(b));
    ck_assert_mem_ne(a, b, sizeof(a));
}
END_TEST

START_TEST(hex_digits_are_small) {
    char hex[7];
    crypto_hex(hex, "\x00\xab\x9f", 3);
    ck_assert_str_eq(hex, "00ab9f");
    crypto_hex(hex, "", 0);
    ck_assert_str_eq(hex, "");
}
END_TEST

START_TEST(hex_digits_come_back) {
    uint8_t got[4];
    ck_assert(crypto_unhex(got, 4, BYTES("00ffAb12")));
    ck_assert_mem_eq(got, "\x00\xff\xab\x12", 4);
    ck_assert(!crypto_unhex(got, 4, BYTES("00ffAb1")));
    ck_assert(!crypto_unhex(got, 4, BYTES("00ffAb123")));
    ck_assert(!crypto_unhex(got, 4, BYTES("00ffAb1x")));
    ck_assert(!crypto_unhex(got, 4, BYTES("00 ffAb1")));
}
END_TEST

/* Of Python: hashlib.blake2b(b"abcdef", key=bytes(range(32)), digest_size=32). */
START_TEST(the_keyed_hash_is_blake2b_of_both_pieces) {
    uint8_t key[CRYPTO_KEY_LEN], tag[CRYPTO_TAG_LEN];
    char hex[2 * CRYPTO_TAG_LEN + 1];
    for (int i = 0; i < CRYPTO_KEY_LEN; i++) {
        key[i] = (uint8_t)i;
    }
    crypto_keyed_hash(tag, key, BYTES("abc"), BYTES("def"));
    crypto_hex(hex, tag, sizeof(tag));
    ck_assert_str_eq(hex, "4b27895482b5a5b9dc579b795d730c2adf4d190169065b22be5c1f913365c399");
}
END_TEST

START_TEST(two_sides_agree_on_two_keys) {
    struct crypto_pair a, b;
    uint8_t a_sends[CRYPTO_KEY_LEN], a_receives[CRYPTO_KEY_LEN];
    uint8_t b_sends[CRYPTO_KEY_LEN], b_receives[CRYPTO_KEY_LEN];
    crypto_pair_make(&a);
    crypto_pair_make(&b);
    ck_assert(crypto_pair_agree(&a, b.public_half, true, a_sends, a_receives));
    ck_assert(crypto_pair_agree(&b, a.public_half, false, b_sends, b_receives));
    ck_assert_mem_eq(a_sends, b_receives, CRYPTO_KEY_LEN);
    ck_assert_mem_eq(b_sends, a_receives, CRYPTO_KEY_LEN);
    ck_assert_mem_ne(a_sends, b_sends, CRYPTO_KEY_LEN);
    memset(b.public_half, 0, sizeof(b.public_half));
    ck_assert(!crypto_pair_agree(&a, b.public_half, true, a_sends, a_receives));
}
END_TEST

START_TEST(a_seed_gives_the_same_numbers_again) {
    struct rng a, b, other;
    rng_seed(&a, 0);
    rng_seed(&b, 0);
    rng_seed(&other, 1);
    int same = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t x = rng_next(&a);
        ck_assert_uint_eq(x, rng_next(&b));
        same += x == rng_next(&other);
    }
    ck_assert_int_eq(same, 0);
    /* The published xoshiro256** gives these first numbers from the state 1, 2, 3, 4. */
    struct rng known = {{1, 2, 3, 4}};
    ck_assert_uint_eq(rng_next(&known), 11520);
    ck_assert_uint_eq(rng_next(&known), 0);
    ck_assert_uint_eq(rng_next(&known), 1509978240);
}
END_TEST

START_TEST(numbers_below_a_bound_are_spread_evenly) {
    struct rng r = test_rng();
    int counts[10] = {0};
    for (int i = 0; i < 100000; i++) {
        uint64_t x = rng_below(&r, 10);
        ck_assert_uint_lt(x, 10);
        counts[x]++;
    }
    for (int i = 0; i < 10; i++) {
        ck_assert_int_gt(counts[i], 9000);
        ck_assert_int_lt(counts[i], 11000);
    }
    ck_assert_uint_eq(rng_below(&r, 1), 0);
}
END_TEST

CHECK_MAIN("crypto", the_hash_is_siphash_2_4, secrets_are_equal_or_not, random_bytes_differ,
           hex_digits_are_small, hex_digits_come_back, the_keyed_hash_is_blake2b_of_both_pieces,
           two_sides_agree_on_two_keys, a_seed_gives_the_same_numbers_again,
           numbers_below_a_bound_are_spread_evenly)
