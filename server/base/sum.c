/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/sum.h"

#define XXH_INLINE_ALL /* most of what is summed is short: a call would cost as much */
#include <xxhash.h>

uint64_t sum64(const void *ptr, size_t len, uint64_t seed) {
    return XXH3_64bits_withSeed(ptr, len, seed);
}

uint64_t sum_seed(uint64_t a, uint64_t b) {
    uint64_t pair[2] = {a, b};
    return XXH3_64bits(pair, sizeof(pair));
}
