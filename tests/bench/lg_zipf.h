/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lg_zipf: draws ids from a Zipf distribution whose ranks can change hands.
 *
 * Purpose. P(rank r) is proportional to 1 / (r + 1)^s over `count` ranks: exact but for rounding to 2^-32 of 1/count (an
 *   alias table), one random number and two memory accesses per draw.
 * Invariants. I1: the map from rank to id is a permutation at any time.
 * Ownership. The tables live until the process ends.
 */
#ifndef DC_TESTS_BENCH_LG_ZIPF_H
#define DC_TESTS_BENCH_LG_ZIPF_H

#include "tests/bench/lg_wire.h"

#include <stdint.h>

struct lg_zipf;

/* The ids are 0 .. count-1, in an order that the generator shuffles. */
struct lg_zipf *lg_zipf_create(uint64_t count, double s, struct lg_rng *rng);
uint64_t lg_zipf_draw(const struct lg_zipf *z, struct lg_rng *rng);
/*
 * `trade_count` ids, all different and drawn by popularity, trade their ranks with others drawn uniformly. At most half of the
 * ids: the draws that hit one a second time are repeated.
 */
void lg_zipf_trade(struct lg_zipf *z, uint64_t trade_count, struct lg_rng *rng);

#endif
