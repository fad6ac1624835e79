/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The first byte chooses what the rest is: even = what a side of a handshake hears, hello then proof; odd = records behind a handshake that went
 * well, one behind the other.
 *
 * Whatever comes: nobody is trusted who hasn't the key, nothing opens that wasn't sealed, and nothing outside is read or written.
 */
#include "replication/secure.h"
#include "server/base/assert.h"
#include "server/base/mem.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static const uint8_t key[CRYPTO_KEY_LEN] = {1};

static void handshake(enum secure_side side, const uint8_t *data, size_t len) {
    struct secure s;
    uint8_t hello[SECURE_HELLO_LEN], proof[SECURE_PROOF_LEN];
    if (len < SECURE_HELLO_LEN + SECURE_PROOF_LEN) {
        return;
    }
    secure_begin(&s, side, key, hello);
    if (secure_meet(&s, data) == SECURE_OK) {
        if (side == SECURE_ACCEPTING) {
            secure_prove(&s, proof);
        }
        dc_assert(!secure_check(&s, data + SECURE_HELLO_LEN));
    }
}

static void records(const uint8_t *data, size_t len) {
    struct secure c, s;
    uint8_t hello_c[SECURE_HELLO_LEN], hello_s[SECURE_HELLO_LEN], proof[SECURE_PROOF_LEN];
    uint8_t *to = mem_must_alloc(SECURE_PLAIN_MAX);
    secure_begin(&c, SECURE_CONNECTING, key, hello_c);
    secure_begin(&s, SECURE_ACCEPTING, key, hello_s);
    bool met = secure_meet(&s, hello_c) == SECURE_OK && secure_meet(&c, hello_s) == SECURE_OK;
    secure_prove(&s, proof);
    met = met && secure_check(&c, proof);
    secure_prove(&c, proof);
    dc_assert(met && secure_check(&s, proof));
    size_t at = 0;
    while (len - at >= SECURE_RECORD_HEAD_LEN) {
        size_t record = secure_record_len(data + at);
        at += SECURE_RECORD_HEAD_LEN;
        if (record == 0 || record > len - at) {
            break;
        }
        dc_assert(!secure_open(&s, to, data + at, record));
        at += record;
    }
    mem_free(to);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    static bool ready;
    if (!ready) {
        crypto_init();
        ready = true;
    }
    if (len == 0) {
        return 0;
    }
    if (data[0] % 2 == 1) {
        records(data + 1, len - 1);
    } else {
        handshake(data[0] % 4 == 0 ? SECURE_CONNECTING : SECURE_ACCEPTING, data + 1, len - 1);
    }
    return 0;
}
