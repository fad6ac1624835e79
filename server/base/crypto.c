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

bool crypto_unhex(void *to, size_t len, struct bytes digits) {
    size_t got = 0;
    return digits.len == 2 * len &&
           sodium_hex2bin(to, len, digits.ptr, digits.len, NULL, &got, NULL) == 0 && got == len;
}

void crypto_wipe(void *ptr, size_t len) {
    sodium_memzero(ptr, len);
}

/* --- links ------------------------------------------------------------------------------------------------------- */

static_assert(CRYPTO_KEY_LEN == crypto_kx_SESSIONKEYBYTES &&
                  CRYPTO_KEY_LEN == crypto_kx_PUBLICKEYBYTES &&
                  CRYPTO_KEY_LEN == crypto_kx_SECRETKEYBYTES &&
                  CRYPTO_KEY_LEN == crypto_secretstream_xchacha20poly1305_KEYBYTES &&
                  CRYPTO_KEY_LEN == crypto_generichash_KEYBYTES,
              "every key has this length");
static_assert(CRYPTO_TAG_LEN == crypto_generichash_BYTES, "a tag is a hash");
static_assert(CRYPTO_STREAM_HEAD_LEN == crypto_secretstream_xchacha20poly1305_HEADERBYTES &&
                  CRYPTO_SEAL_LEN == crypto_secretstream_xchacha20poly1305_ABYTES,
              "lengths of the stream");
static_assert(sizeof(struct crypto_stream) == sizeof(crypto_secretstream_xchacha20poly1305_state),
              "ours stands for libsodium's");

void crypto_keyed_hash(uint8_t to[CRYPTO_TAG_LEN], const uint8_t key[CRYPTO_KEY_LEN],
                       struct bytes a, struct bytes b) {
    crypto_generichash_state state;
    crypto_generichash_init(&state, key, CRYPTO_KEY_LEN, CRYPTO_TAG_LEN);
    crypto_generichash_update(&state, (const unsigned char *)a.ptr, a.len);
    crypto_generichash_update(&state, (const unsigned char *)b.ptr, b.len);
    crypto_generichash_final(&state, to, CRYPTO_TAG_LEN);
    sodium_memzero(&state, sizeof(state));
}

void crypto_pair_make(struct crypto_pair *p) {
    int err = crypto_kx_keypair(p->public_half, p->secret_half);
    dc_assert(err == 0);
}

bool crypto_pair_agree(const struct crypto_pair *own, const uint8_t peer[CRYPTO_KEY_LEN],
                       bool is_client, uint8_t sending[CRYPTO_KEY_LEN],
                       uint8_t receiving[CRYPTO_KEY_LEN]) {
    int err = is_client ? crypto_kx_client_session_keys(receiving, sending, own->public_half,
                                                        own->secret_half, peer)
                        : crypto_kx_server_session_keys(receiving, sending, own->public_half,
                                                        own->secret_half, peer);
    return err == 0;
}

/* The state is bytes, for which any alignment will do: copied to where libsodium wants it and back. */
void crypto_seal_begin(struct crypto_stream *s, const uint8_t key[CRYPTO_KEY_LEN],
                       uint8_t head[CRYPTO_STREAM_HEAD_LEN]) {
    crypto_secretstream_xchacha20poly1305_state state;
    int err = crypto_secretstream_xchacha20poly1305_init_push(&state, head, key);
    dc_assert(err == 0);
    memcpy(s->state, &state, sizeof(state));
    sodium_memzero(&state, sizeof(state));
}

void crypto_seal(struct crypto_stream *s, uint8_t *to, const uint8_t *from, size_t len,
                 bool rekey) {
    crypto_secretstream_xchacha20poly1305_state state;
    unsigned char tag = rekey ? crypto_secretstream_xchacha20poly1305_TAG_REKEY
                              : crypto_secretstream_xchacha20poly1305_TAG_MESSAGE;
    memcpy(&state, s->state, sizeof(state));
    int err = crypto_secretstream_xchacha20poly1305_push(&state, to, NULL, from, len, NULL, 0, tag);
    dc_assert(err == 0);
    memcpy(s->state, &state, sizeof(state));
    sodium_memzero(&state, sizeof(state));
}

bool crypto_open_begin(struct crypto_stream *s, const uint8_t key[CRYPTO_KEY_LEN],
                       const uint8_t head[CRYPTO_STREAM_HEAD_LEN]) {
    crypto_secretstream_xchacha20poly1305_state state;
    int err = crypto_secretstream_xchacha20poly1305_init_pull(&state, head, key);
    memcpy(s->state, &state, sizeof(state));
    sodium_memzero(&state, sizeof(state));
    return err == 0;
}

bool crypto_open(struct crypto_stream *s, uint8_t *to, const uint8_t *from, size_t len) {
    crypto_secretstream_xchacha20poly1305_state state;
    unsigned char tag;
    if (len < CRYPTO_SEAL_LEN) {
        return false;
    }
    memcpy(&state, s->state, sizeof(state));
    int err =
        crypto_secretstream_xchacha20poly1305_pull(&state, to, NULL, &tag, from, len, NULL, 0);
    memcpy(s->state, &state, sizeof(state));
    sodium_memzero(&state, sizeof(state));
    return err == 0;
}
