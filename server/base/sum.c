/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/sum.h"

#define XXH_INLINE_ALL /* most of what is summed is short: a call would cost as much */
#include <xxhash.h>

uint64_t sum64(const void *ptr, size_t len, uint64_t seed) {
    return XXH3_64bits_withSeed(ptr, len, seed);
}

bool sum64_long(const void *ptr, size_t len, uint64_t seed, const _Atomic bool *stop,
                uint64_t *sum) {
    const char *at = ptr;
    XXH3_state_t state = {.seed = 0}; /* a reset looks at the last seed */
    XXH3_64bits_reset_withSeed(&state, seed);
    while (len > 0) {
        size_t piece = len < SUM_PIECE_LEN ? len : SUM_PIECE_LEN;
        if (stop != NULL && atomic_load_explicit(stop, memory_order_relaxed)) {
            return false;
        }
        XXH3_64bits_update(&state, at, piece);
        at += piece;
        len -= piece;
    }
    *sum = XXH3_64bits_digest(&state);
    return true;
}

uint64_t sum_seed(uint64_t a, uint64_t b) {
    uint64_t pair[2] = {a, b};
    return XXH3_64bits(pair, sizeof(pair));
}
