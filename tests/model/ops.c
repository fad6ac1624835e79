/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/model/ops.h"

#include "server/base/mem.h"

#include <inttypes.h>
#include <string.h>

struct op_info {
    const char *name;
    char args[3];
    uint32_t weight;
};

static const struct op_info infos[OP_COUNT] = {
#define OP(kind, name, a, b, c, weight) {name, {a, b, c}, weight},
#include "tests/model/ops.def"
#undef OP
};

static void script_add(struct script *s, struct op op) {
    if (s->count == s->cap) {
        s->cap = s->cap == 0 ? 256 : s->cap * 2;
        s->ops = mem_must_realloc(s->ops, s->cap * sizeof(*s->ops));
    }
    s->ops[s->count++] = op;
}

void script_fini(struct script *s) {
    mem_free(s->ops);
}

/* --- drawn ------------------------------------------------------------------------------------------- */

/* Mostly small, sometimes around the borders where layouts change. */
static uint64_t draw_len(struct rng *r) {
    static const uint64_t borders[] = {0, 255, 256, 65535, 65536, 65537};
    switch (rng_below(r, 16)) {
    case 0:
        return borders[rng_below(r, 6)] + rng_below(r, 2);
    case 1:
        return rng_below(r, 3000);
    case 2:
        return rng_below(r, 20) == 0 ? rng_below(r, 200000) : rng_below(r, 600);
    default:
        return rng_below(r, 120);
    }
}

static uint64_t draw_ms(struct rng *r) {
    switch (rng_below(r, 8)) {
    case 0:
        return 0;
    case 1:
        return (uint64_t)1 << rng_below(r, 44);
    default:
        return rng_below(r, (uint64_t)1 << rng_below(r, 16)) + 1;
    }
}

static uint64_t draw_arg(struct rng *r, const struct script *s, char kind) {
    switch (kind) {
    case 'k':
        /* Half of the accesses go to a tenth of the keys. */
        return rng_below(r, 2) == 0 ? rng_below(r, s->keys) : rng_below(r, s->keys / 10 + 1);
    case 'l':
        return draw_len(r);
    case 'o':
        return rng_below(r, 4) == 0 ? draw_len(r) : rng_below(r, 100);
    case 't':
        return draw_ms(r);
    case 'n':
        return 1 + rng_below(r, (uint64_t)1 << rng_below(r, 8));
    case 'p':
        return rng_below(r, 9);
    case 's':
        return rng_next(r) >> rng_below(r, 64);
    default:
        return 0;
    }
}

static enum op_kind draw_kind(struct rng *r, uint32_t total) {
    uint64_t left = rng_below(r, total);
    uint32_t kind = 0;
    while (left >= infos[kind].weight) {
        left -= infos[kind++].weight;
    }
    return (enum op_kind)kind;
}

void script_draw(struct script *s, uint64_t seed, uint32_t count) {
    static const uint32_t sizes[] = {16, 20, 60, 300, 2500};
    struct rng r;
    uint32_t total = 0;
    rng_seed(&r, seed);
    *s = (struct script){.keys = sizes[rng_below(&r, 5)], .shape = (uint32_t)rng_below(&r, 3)};
    for (uint32_t i = 0; i < OP_COUNT; i++) {
        total += infos[i].weight;
    }
    for (uint32_t i = 0; i < count; i++) {
        enum op_kind kind = draw_kind(&r, total);
        struct op op = {.kind = kind, .db = (uint32_t)rng_below(&r, 8)};
        op.db = op.db < 6 ? 0 : op.db - 5; /* mostly the first */
        op.a = draw_arg(&r, s, infos[kind].args[0]);
        op.b = draw_arg(&r, s, infos[kind].args[1]);
        op.c = draw_arg(&r, s, infos[kind].args[2]);
        script_add(s, op);
    }
}

/* --- as text ----------------------------------------------------------------------------------------- */

void script_write(const struct script *s, FILE *to) {
    fprintf(to, "keys %" PRIu32 " shape %" PRIu32 "\n", s->keys, s->shape);
    for (uint32_t i = 0; i < s->count; i++) {
        const struct op *op = &s->ops[i];
        fprintf(to, "%s %" PRIu32 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", infos[op->kind].name,
                op->db, op->a, op->b, op->c);
    }
}

bool script_read(struct script *s, FILE *from) {
    char line[256], name[32];
    *s = (struct script){.keys = 0};
    while (fgets(line, sizeof(line), from) != NULL) {
        struct op op = {.kind = OP_COUNT};
        if (line[0] == '#' || line[0] == '\n' ||
            sscanf(line, "keys %" SCNu32 " shape %" SCNu32, &s->keys, &s->shape) ==
                2) { /* NOLINT(cert-err34-c) */
            continue;
        }
        if (sscanf(line, "%31s %" SCNu32 " %" SCNu64 " %" SCNu64 " %" SCNu64, name, &op.db,
                   &op.a, /* NOLINT(cert-err34-c) */
                   &op.b, &op.c) != 5) {
            return false;
        }
        for (uint32_t i = 0; i < OP_COUNT; i++) {
            op.kind = strcmp(infos[i].name, name) == 0 ? (enum op_kind)i : op.kind;
        }
        if (op.kind == OP_COUNT || s->keys == 0) {
            return false;
        }
        script_add(s, op);
    }
    return s->keys > 0;
}
