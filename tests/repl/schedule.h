/* SPDX-License-Identifier: BSD-3-Clause */
/* schedule: what happens to a simulated cluster, and when: lines of text, random or by hand. */
#ifndef TESTS_REPL_SCHEDULE_H
#define TESTS_REPL_SCHEDULE_H

#include "tests/repl/sim.h"

enum { OPS_MAX = 128 };

enum op_kind {
#define OP(kind, word, places) OP_##kind,
#include "tests/repl/schedule.def"
#undef OP
    OP_KINDS
};

struct op {
    int64_t at_ms;
    enum op_kind kind;
    uint32_t a, b;
    int64_t value;
};

struct schedule {
    struct op ops[OPS_MAX];
    uint32_t count;
};

/* One line: "1200 kill B", "1300 cut A C", "1400 write A 1 5" (five writes at replicas:1). False: it isn't one. */
bool op_parse(const char *line, struct op *out);
void op_print(const struct op *op, FILE *to);
void op_apply(struct sim *s, const struct op *op);

/* Faults for a cluster with a Sentinel. 'drills': besides, orders that Sentinel didn't give. */
void schedule_draw(struct schedule *sc, uint64_t seed, uint32_t nodes, bool drills);
/* Runs it, then mends everything. */
bool schedule_run(const struct schedule *sc, const struct sim_opts *opts, struct sim **out);

#endif
