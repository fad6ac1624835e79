/* SPDX-License-Identifier: BSD-3-Clause */
/* sum: the checksum of everything that is stored (XXH3, 64 bits). A seed makes bytes that are valid at one place invalid at
 * another. */
#ifndef DC_BASE_SUM_H
#define DC_BASE_SUM_H

#include <stddef.h>
#include <stdint.h>

uint64_t sum64(const void *ptr, size_t len, uint64_t seed);

/* A seed out of two numbers. */
uint64_t sum_seed(uint64_t a, uint64_t b);

#endif
