/* SPDX-License-Identifier: BSD-3-Clause */
/* rng: a small seeded generator (xoshiro256**), for sampling and tests, never for secrets. */
#ifndef DC_BASE_RNG_H
#define DC_BASE_RNG_H

#include <stdint.h>

__extension__ typedef unsigned __int128 uint128_t;

struct rng {
    uint64_t s[4];
};

void rng_seed(struct rng *r, uint64_t seed);
uint64_t rng_next(struct rng *r);

/* Uniform in [0, bound), bound > 0. */
static inline uint64_t rng_below(struct rng *r, uint64_t bound) {
    return (uint64_t)(((uint128_t)rng_next(r) * bound) >> 64);
}

#endif
