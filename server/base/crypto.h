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

#endif
