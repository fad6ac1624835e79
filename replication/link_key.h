/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * link_key: the key that nodes share, from the file that replication-key-file names: 32 bytes as 64 hex digits, with or without a line end.
 *
 * Failure: DC_ECONF with what is wrong with the file. That others than its owner may read it is told, and is no failure.
 */
#ifndef DC_REPLICATION_LINK_KEY_H
#define DC_REPLICATION_LINK_KEY_H

#include <stdint.h>

#include "server/base/crypto.h"
#include "server/base/err.h"

DC_MUST enum dc_err link_key_read(const char *path, uint8_t key[CRYPTO_KEY_LEN]);

#endif
