/* SPDX-License-Identifier: BSD-3-Clause */
/* sum: the checksum of everything that is stored (XXH3, 64 bits). A seed makes bytes that are valid at one place invalid at
 * another. */
#ifndef DC_BASE_SUM_H
#define DC_BASE_SUM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint64_t sum64(const void *ptr, size_t len, uint64_t seed);

/* The same of what is long, looking at 'stop' (NULL = nobody stops it) before each SUM_PIECE_LEN bytes. False: it was stopped. */
enum { SUM_PIECE_LEN = 4 * 1024 * 1024 };
bool sum64_long(const void *ptr, size_t len, uint64_t seed, const _Atomic bool *stop,
                uint64_t *sum);

/* A seed out of two numbers. */
uint64_t sum_seed(uint64_t a, uint64_t b);

#endif
