/* SPDX-License-Identifier: BSD-3-Clause */
/* ops: scripts of the model test: drawn from a seed, written and read as text. */
#ifndef TESTS_MODEL_OPS_H
#define TESTS_MODEL_OPS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "server/base/rng.h"

enum op_kind {
#define OP(kind, name, a, b, c, weight) OP_##kind,
#include "tests/model/ops.def"
#undef OP
    OP_COUNT
};

struct op {
    enum op_kind kind;
    uint32_t db;
    uint64_t a, b, c; /* what they mean stands in ops.def */
};

struct script {
    uint32_t keys;
    uint32_t shape; /* of the names */
    uint32_t count;
    uint32_t cap;
    struct op *ops;
};

void script_draw(struct script *s, uint64_t seed, uint32_t count);
/* False when the text isn't a script. */
bool script_read(struct script *s, FILE *from);
void script_write(const struct script *s, FILE *to);
void script_fini(struct script *s);

#endif
