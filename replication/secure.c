/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/secure.h"

#include "server/base/assert.h"
#include "server/base/codec.h"

#include <assert.h>
#include <string.h>

static const uint8_t magic[8] = {'d', 'c', 'a', 'c', 'h', 'e', 'k', 'x'};

enum {
    HELLO_VERSION = 8,
    HELLO_SIDE = 9,
    HELLO_RESERVED = 10,
    HELLO_PUBLIC = 16,
    VERSION = 1,
    HELLOS_LEN = 2 * SECURE_HELLO_LEN,
};
static_assert(HELLO_PUBLIC + CRYPTO_KEY_LEN == SECURE_HELLO_LEN, "the key ends the hello");

/* --- the handshake --------------------------------------------------------------------------------------------- */

static uint8_t *hello_of(struct secure *s, enum secure_side side) {
    return s->transcript + (side == SECURE_CONNECTING ? 0 : SECURE_HELLO_LEN);
}

static enum secure_side other(enum secure_side side) {
    return side == SECURE_CONNECTING ? SECURE_ACCEPTING : SECURE_CONNECTING;
}

void secure_begin(struct secure *s, enum secure_side side, const uint8_t key[CRYPTO_KEY_LEN],
                  uint8_t hello[SECURE_HELLO_LEN]) {
    *s = (struct secure){.side = side};
    memcpy(s->key, key, CRYPTO_KEY_LEN);
    crypto_pair_make(&s->pair);
    memset(hello, 0, SECURE_HELLO_LEN);
    memcpy(hello, magic, sizeof(magic));
    hello[HELLO_VERSION] = VERSION;
    hello[HELLO_SIDE] = (uint8_t)side;
    memcpy(hello + HELLO_PUBLIC, s->pair.public_half, CRYPTO_KEY_LEN);
    memcpy(hello_of(s, side), hello, SECURE_HELLO_LEN);
}

static enum secure_verdict look_at(const uint8_t *hello, enum secure_side side) {
    static const uint8_t zeros[HELLO_PUBLIC - HELLO_RESERVED];
    if (memcmp(hello, magic, sizeof(magic)) != 0) {
        return SECURE_NOT_OURS;
    }
    if (hello[HELLO_VERSION] != VERSION) {
        return SECURE_NEWER;
    }
    /* One's own hello sent back has the wrong side. */
    return hello[HELLO_SIDE] == side && memcmp(hello + HELLO_RESERVED, zeros, sizeof(zeros)) == 0
               ? SECURE_OK
               : SECURE_NOT_OURS;
}

/* A key of one direction for one purpose: bound to the shared key, the exchange, and both hellos. */
static void derive(const struct secure *s, struct bytes purpose, const uint8_t k[CRYPTO_KEY_LEN],
                   uint8_t to[CRYPTO_KEY_LEN]) {
    char what[64];
    dc_assert(purpose.len + CRYPTO_KEY_LEN <= sizeof(what));
    memcpy(what, purpose.ptr, purpose.len);
    memcpy(what + purpose.len, k, CRYPTO_KEY_LEN);
    crypto_keyed_hash(to, s->key, bytes_of(what, purpose.len + CRYPTO_KEY_LEN),
                      bytes_of((const char *)s->transcript, HELLOS_LEN));
    crypto_wipe(what, sizeof(what));
}

enum secure_verdict secure_meet(struct secure *s, const uint8_t hello[SECURE_HELLO_LEN]) {
    uint8_t sending[CRYPTO_KEY_LEN], receiving[CRYPTO_KEY_LEN];
    enum secure_verdict v = look_at(hello, other(s->side));
    dc_assert(s->transcript_len == 0);
    if (v != SECURE_OK) {
        return v;
    }
    memcpy(hello_of(s, other(s->side)), hello, SECURE_HELLO_LEN);
    s->transcript_len = HELLOS_LEN;
    if (!crypto_pair_agree(&s->pair, hello + HELLO_PUBLIC, s->side == SECURE_CONNECTING, sending,
                           receiving)) {
        return SECURE_NOT_OURS;
    }
    derive(s, BYTES("dcache link stream"), sending, s->send_key);
    derive(s, BYTES("dcache link proof"), sending, s->send_proof_key);
    derive(s, BYTES("dcache link stream"), receiving, s->receive_key);
    derive(s, BYTES("dcache link proof"), receiving, s->receive_proof_key);
    crypto_wipe(sending, sizeof(sending));
    crypto_wipe(receiving, sizeof(receiving));
    crypto_wipe(&s->pair, sizeof(s->pair));
    crypto_wipe(s->key, sizeof(s->key));
    return SECURE_OK;
}

/* The tag over all that was said so far, with this head. */
static void tag(struct secure *s, const uint8_t *proof_key, const uint8_t *head,
                uint8_t to[CRYPTO_TAG_LEN]) {
    dc_assert(s->transcript_len >= HELLOS_LEN &&
              s->transcript_len + CRYPTO_STREAM_HEAD_LEN <= sizeof(s->transcript));
    memcpy(s->transcript + s->transcript_len, head, CRYPTO_STREAM_HEAD_LEN);
    s->transcript_len += CRYPTO_STREAM_HEAD_LEN;
    crypto_keyed_hash(to, proof_key, bytes_of((const char *)s->transcript, s->transcript_len),
                      BYTES(""));
}

void secure_prove(struct secure *s, uint8_t proof[SECURE_PROOF_LEN]) {
    dc_assert(s->side == SECURE_ACCEPTING || s->proven);
    crypto_seal_begin(&s->sealing, s->send_key, proof);
    tag(s, s->send_proof_key, proof, proof + CRYPTO_STREAM_HEAD_LEN);
    crypto_wipe(s->send_key, CRYPTO_KEY_LEN);
    crypto_wipe(s->send_proof_key, CRYPTO_KEY_LEN);
}

bool secure_check(struct secure *s, const uint8_t proof[SECURE_PROOF_LEN]) {
    uint8_t wanted[CRYPTO_TAG_LEN];
    tag(s, s->receive_proof_key, proof, wanted);
    bool right =
        crypto_equal(bytes_of((const char *)wanted, sizeof(wanted)),
                     bytes_of((const char *)proof + CRYPTO_STREAM_HEAD_LEN, sizeof(wanted)));
    s->proven = right && crypto_open_begin(&s->opening, s->receive_key, proof);
    crypto_wipe(s->receive_key, CRYPTO_KEY_LEN);
    crypto_wipe(s->receive_proof_key, CRYPTO_KEY_LEN);
    return s->proven;
}

/* --- records --------------------------------------------------------------------------------------------------- */

size_t secure_seal(struct secure *s, uint8_t *to, const uint8_t *from, size_t len) {
    dc_assert(s->proven && s->transcript_len == sizeof(s->transcript));
    dc_assert(len > 0 && len <= SECURE_PLAIN_MAX);
    s->sealed += len;
    bool rekey = s->sealed >= SECURE_REKEY_LEN;
    s->sealed = rekey ? 0 : s->sealed;
    put_u32(to, (uint32_t)(len + CRYPTO_SEAL_LEN));
    crypto_seal(&s->sealing, to + SECURE_RECORD_HEAD_LEN, from, len, rekey);
    return SECURE_RECORD_HEAD_LEN + len + CRYPTO_SEAL_LEN;
}

size_t secure_record_len(const uint8_t head[SECURE_RECORD_HEAD_LEN]) {
    uint32_t len = get_u32(head);
    return len > CRYPTO_SEAL_LEN && len <= SECURE_PLAIN_MAX + CRYPTO_SEAL_LEN ? len : 0;
}

bool secure_open(struct secure *s, uint8_t *to, const uint8_t *from, size_t len) {
    dc_assert(s->proven);
    return crypto_open(&s->opening, to, from, len);
}

void secure_wipe(struct secure *s) {
    crypto_wipe(s, sizeof(*s));
}
