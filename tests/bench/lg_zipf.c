/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/bench/lg_zipf.h"

#include "tests/bench/loadgen.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* Walker's alias table: a rank drawn uniformly stands for itself below the threshold, else for its alias. */
struct cell {
    uint32_t threshold;
    uint32_t alias;
};

struct lg_zipf {
    uint64_t count;
    struct cell *cells;
    uint32_t *ids; /* by rank */
    bool *traded;  /* by rank; scratch of lg_zipf_trade() */
};

/* Vose's construction; weight[] is scaled to a mean of 1 and used up. */
static void cells_build(struct cell *cells, double *weight, uint32_t *work, uint64_t count) {
    uint64_t small_end =
        0; /* work[0 .. small_end) weigh less than 1, work[large_begin .. count) more */
    uint64_t large_begin = count;
    for (uint64_t i = 0; i < count; i++) {
        if (weight[i] < 1.0) {
            work[small_end++] = (uint32_t)i;
        } else {
            work[--large_begin] = (uint32_t)i;
        }
        cells[i] = (struct cell){.threshold = UINT32_MAX, .alias = (uint32_t)i};
    }
    while (small_end > 0 && large_begin < count) {
        uint32_t small = work[--small_end];
        uint32_t large = work[large_begin];
        cells[small] =
            (struct cell){.threshold = (uint32_t)(weight[small] * 0x1p32), .alias = large};
        weight[large] -= 1.0 - weight[small];
        if (weight[large] < 1.0) {
            large_begin++;
            work[small_end++] = large;
        }
    }
}

struct lg_zipf *lg_zipf_create(uint64_t count, double s, struct lg_rng *rng) {
    struct lg_zipf *z = lg_grab(sizeof(*z));
    double *weight = lg_grab(count * sizeof(*weight));
    uint32_t *work = lg_grab(count * sizeof(*work));
    double sum = 0;
    z->count = count;
    z->cells = lg_grab(count * sizeof(*z->cells));
    z->ids = lg_grab(count * sizeof(*z->ids));
    z->traded = lg_grab(count * sizeof(*z->traded));
    for (uint64_t i = 0; i < count; i++) {
        weight[i] = pow((double)(i + 1), -s);
        sum += weight[i];
    }
    for (uint64_t i = 0; i < count; i++) {
        weight[i] *= (double)count / sum;
    }
    cells_build(z->cells, weight, work, count);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t j = lg_rng_below(rng, i + 1);
        z->ids[i] = z->ids[j];
        z->ids[j] = (uint32_t)i;
    }
    return z;
}

static uint64_t rank_draw(const struct lg_zipf *z, struct lg_rng *rng) {
    uint64_t draw = lg_rng_next(rng);
    uint64_t rank = ((draw >> 32) * z->count) >> 32;
    const struct cell *cell = &z->cells[rank];
    return (uint32_t)draw < cell->threshold ? rank : cell->alias;
}

uint64_t lg_zipf_draw(const struct lg_zipf *z, struct lg_rng *rng) {
    return z->ids[rank_draw(z, rng)];
}

void lg_zipf_trade(struct lg_zipf *z, uint64_t trade_count, struct lg_rng *rng) {
    memset(z->traded, 0, z->count * sizeof(*z->traded));
    for (uint64_t n = 0; n < trade_count;) {
        uint64_t i = rank_draw(z, rng);
        if (z->traded[i]) {
            continue;
        }
        z->traded[i] = true;
        n++;
        uint64_t j = lg_rng_below(rng, z->count);
        uint32_t id = z->ids[i];
        z->ids[i] = z->ids[j];
        z->ids[j] = id;
    }
}
