/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * secure: the encryption of a link: a handshake of three steps, then records. Bytes only; link.c has the socket.
 *
 *   connecting                                     accepting
 *   hello                                    ->
 *                                            <-    hello, proof
 *   proof                                    ->
 *   records                                 <->    records
 *
 *   hello   0  u8  magic[8] "dcachekx"   8 u8 version 1   9 u8 side: 1 connecting, 2 accepting   10 u8 0[6]   16 u8 public key[32]
 *   proof   0  u8  head of the sender's stream[24]   24 u8 tag[32]
 *   record  0  u32 length of what follows, 18 .. SECURE_PLAIN_MAX + 17   4 sealed bytes
 *
 * Both sides make a key pair for this link alone (X25519; crypto_kx of libsodium). For each direction the exchange gives a key k; what is used is
 *   stream key = BLAKE2b(key: the shared key, "dcache link stream" | k | both hellos)
 *   proof key  = BLAKE2b(key: the shared key, "dcache link proof"  | k | both hellos)
 *   tag        = BLAKE2b(key: the sender's proof key, both hellos | the stream heads so far, the sender's own the last)
 * where both hellos are in the order connecting, accepting. So a tag can only be made by who has the shared key and takes part in this very
 * exchange; what was recorded once is worth nothing, and with the pairs gone nobody can open it later who gets hold of the shared key. The side that
 * connects sees a right tag before it sends its own, and neither sends a record before it has seen the other's tag. Who finds another key sends zeros
 * instead of a proof.
 *
 * Records are a crypto_stream (secretstream of libsodium) for each direction, with another key every SECURE_REKEY_LEN bytes. Their content put
 * together is the messages of wire_fmt.h. An end that somebody else brings about looks like a broken connection, and is treated like one.
 *
 * Purpose: pure functions on a struct. Failure: see each; a struct that has failed is only wiped.
 */
#ifndef DC_REPLICATION_SECURE_H
#define DC_REPLICATION_SECURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/base/crypto.h"

enum {
    SECURE_HELLO_LEN = 48,
    SECURE_PROOF_LEN = CRYPTO_STREAM_HEAD_LEN + CRYPTO_TAG_LEN,
    SECURE_RECORD_HEAD_LEN = 4,
    SECURE_PLAIN_MAX = 64 * 1024, /* in one record */
    SECURE_RECORD_MAX = SECURE_RECORD_HEAD_LEN + SECURE_PLAIN_MAX + CRYPTO_SEAL_LEN,
    SECURE_REKEY_LEN = 64 * 1024 * 1024,
};

enum secure_side { SECURE_CONNECTING = 1, SECURE_ACCEPTING = 2 };

struct secure {
    enum secure_side side;
    uint8_t key[CRYPTO_KEY_LEN]; /* the shared one */
    struct crypto_pair pair;
    uint8_t transcript[2 * SECURE_HELLO_LEN + 2 * CRYPTO_STREAM_HEAD_LEN];
    size_t transcript_len;
    uint8_t send_key[CRYPTO_KEY_LEN], send_proof_key[CRYPTO_KEY_LEN];
    uint8_t receive_key[CRYPTO_KEY_LEN], receive_proof_key[CRYPTO_KEY_LEN];
    struct crypto_stream sealing, opening;
    uint64_t sealed; /* since the last change of the key */
    bool proven;     /* the other side has the key */
};

/* In this order: begin; connecting: meet, check, prove; accepting: meet, prove, check. */
void secure_begin(struct secure *s, enum secure_side side, const uint8_t key[CRYPTO_KEY_LEN],
                  uint8_t hello[SECURE_HELLO_LEN]);
enum secure_verdict { SECURE_OK, SECURE_NOT_OURS /* no hello */, SECURE_NEWER /* version */ };
enum secure_verdict secure_meet(struct secure *s, const uint8_t hello[SECURE_HELLO_LEN]);
void secure_prove(struct secure *s, uint8_t proof[SECURE_PROOF_LEN]);
/* False: the other side has another key, or somebody is in between. */
bool secure_check(struct secure *s, const uint8_t proof[SECURE_PROOF_LEN]);

/* A record of 'len' plain bytes, at most SECURE_PLAIN_MAX; returns its length. */
size_t secure_seal(struct secure *s, uint8_t *to, const uint8_t *from, size_t len);
/* Length of what follows the head of a record; 0 = no record has that. */
size_t secure_record_len(const uint8_t head[SECURE_RECORD_HEAD_LEN]);
/* What follows the head; writes len - CRYPTO_SEAL_LEN bytes. False: it isn't the next record as it was sent. */
bool secure_open(struct secure *s, uint8_t *to, const uint8_t *from, size_t len);

void secure_wipe(struct secure *s);

#endif
