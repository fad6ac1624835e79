/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/crypto.h"

#include "server/base/assert.h"

#undef crypto_hash
#include <assert.h>
#include <sodium.h>

static_assert(HASH_SEED_LEN == crypto_shorthash_KEYBYTES, "the seed is a SipHash key");

void crypto_init(void) {
    int err = sodium_init();
    dc_assert(err >= 0);
}

void crypto_random(void *to, size_t len) {
    randombytes_buf(to, len);
}

uint64_t crypto_siphash(struct bytes data, const uint8_t seed[HASH_SEED_LEN]) {
    uint64_t hash;
    static_assert(sizeof(hash) == crypto_shorthash_BYTES, "a hash is eight bytes");
    crypto_shorthash((unsigned char *)&hash, (const unsigned char *)data.ptr, data.len, seed);
    return hash;
}

/* Digests are compared instead of the secrets: equal length, and no prefix to feel one's way along. */
bool crypto_equal(struct bytes a, struct bytes b) {
    unsigned char digest_a[crypto_generichash_BYTES], digest_b[crypto_generichash_BYTES];
    crypto_generichash(digest_a, sizeof(digest_a), (const unsigned char *)a.ptr, a.len, NULL, 0);
    crypto_generichash(digest_b, sizeof(digest_b), (const unsigned char *)b.ptr, b.len, NULL, 0);
    return sodium_memcmp(digest_a, digest_b, sizeof(digest_a)) == 0;
}

void crypto_hex(char *to, const void *from, size_t len) {
    sodium_bin2hex(to, 2 * len + 1, from, len);
}
