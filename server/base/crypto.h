/* SPDX-License-Identifier: BSD-3-Clause */
/* crypto: the only door to libsodium. */
#ifndef DC_BASE_CRYPTO_H
#define DC_BASE_CRYPTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/base/bytes.h"

enum { HASH_SEED_LEN = 16 };

/* Call once before anything else. Ends the process when libsodium can't start. */
void crypto_init(void);

void crypto_random(void *to, size_t len);

/* SipHash-2-4. (libsodium has a crypto_hash of its own.) */
uint64_t crypto_siphash(struct bytes data, const uint8_t seed[HASH_SEED_LEN]);
#define crypto_hash crypto_siphash

/* Compares secrets in constant time (of the longer length). */
bool crypto_equal(struct bytes a, struct bytes b);

/* 2 * len hex digits and a NUL. */
void crypto_hex(char *to, const void *from, size_t len);
/* Exactly 2 * len hex digits of either case. */
bool crypto_unhex(void *to, size_t len, struct bytes digits);

/* Overwrites a secret that isn't needed any more. */
void crypto_wipe(void *ptr, size_t len);

enum {
    CRYPTO_KEY_LEN = 32,
    CRYPTO_TAG_LEN = 32,
    CRYPTO_STREAM_HEAD_LEN = 24,
    CRYPTO_SEAL_LEN = 17, /* what sealing adds */
};

/* BLAKE2b of two pieces, under a key. */
void crypto_keyed_hash(uint8_t to[CRYPTO_TAG_LEN], const uint8_t key[CRYPTO_KEY_LEN],
                       struct bytes a, struct bytes b);

/* Key exchange (X25519): each side makes a pair, tells the public half, and both get the same two keys, one for each direction. False: no honest
 * side has such a public key. */
struct crypto_pair {
    uint8_t public_half[CRYPTO_KEY_LEN];
    uint8_t secret_half[CRYPTO_KEY_LEN];
};
void crypto_pair_make(struct crypto_pair *p);
bool crypto_pair_agree(const struct crypto_pair *own, const uint8_t peer[CRYPTO_KEY_LEN],
                       bool is_client, uint8_t sending[CRYPTO_KEY_LEN],
                       uint8_t receiving[CRYPTO_KEY_LEN]);

/* A stream of sealed records (XChaCha20-Poly1305): each opens once, whole, unchanged, and in its turn. */
struct crypto_stream {
    uint8_t state[52];
};
void crypto_seal_begin(struct crypto_stream *s, const uint8_t key[CRYPTO_KEY_LEN],
                       uint8_t head[CRYPTO_STREAM_HEAD_LEN]);
/* Writes len + CRYPTO_SEAL_LEN bytes. 'rekey': another key from the next record on. */
void crypto_seal(struct crypto_stream *s, uint8_t *to, const uint8_t *from, size_t len, bool rekey);
bool crypto_open_begin(struct crypto_stream *s, const uint8_t key[CRYPTO_KEY_LEN],
                       const uint8_t head[CRYPTO_STREAM_HEAD_LEN]);
/* Writes len - CRYPTO_SEAL_LEN bytes. False: it isn't the next record. */
bool crypto_open(struct crypto_stream *s, uint8_t *to, const uint8_t *from, size_t len);

#endif
