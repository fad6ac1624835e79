/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/repl/schedule.h"

#include "server/base/assert.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *word;
    const char *places;
} kinds[OP_KINDS] = {
#define OP(kind, word, places) {word, places},
#include "tests/repl/schedule.def"
#undef OP
};

/* --- text ------------------------------------------------------------------------------------------------------ */

static bool parse_argument(char type, const char *text, uint32_t *place, int64_t *value) {
    if (type == 'n') {
        char *end;
        *value = strtoll(text, &end, 10);
        return *end == '\0';
    }
    *place = text[0] == 'S' ? SENTINEL : (uint32_t)(text[0] - 'A');
    return text[1] == '\0' && *place < PLACES;
}

bool op_parse(const char *line, struct op *out) {
    char word[16], first[16] = "", second[16] = "";
    *out = (struct op){0};
    if (sscanf(line, "%" SCNd64 " %15s %15s %15s", &out->at_ms, word, first, second) < 2) {
        return false;
    }
    for (uint32_t k = 0; k < OP_KINDS; k++) {
        if (strcmp(word, kinds[k].word) == 0) {
            const char *p = kinds[k].places;
            int64_t n = 0;
            out->kind = (enum op_kind)k;
            bool ok = p[0] == '\0' || parse_argument(p[0], first, &out->a, &n);
            if (p[0] == 'n') {
                out->a = (uint32_t)n;
            }
            return ok && (p[0] == '\0' || p[1] == '\0' ||
                          parse_argument(p[1], second, &out->b, &out->value));
        }
    }
    return false;
}

static void print_argument(char type, uint32_t place, int64_t value, FILE *to) {
    if (type == 'n') {
        fprintf(to, " %" PRId64, value);
    } else {
        fprintf(to, " %c", place == SENTINEL ? 'S' : sim_name(place));
    }
}

void op_print(const struct op *op, FILE *to) {
    const char *p = kinds[op->kind].places;
    fprintf(to, "%" PRId64 " %s", op->at_ms, kinds[op->kind].word);
    if (p[0] != '\0') {
        print_argument(p[0], op->a, op->a, to);
    }
    if (p[0] != '\0' && p[1] != '\0') {
        print_argument(p[1], op->b, op->value, to);
    }
    fputc('\n', to);
}

/* --- effects --------------------------------------------------------------------------------------------------- */

static void say_all(struct sim *s) {
    static const char *const roles[] = {"primary", "replica", "fenced", "pulling"};
    for (uint32_t i = 0; i < s->opts.nodes; i++) {
        const struct node *n = &s->nodes[i];
        uint32_t writes = 0;
        for (uint32_t f = 0; f < n->count; f++) {
            writes += n->frames[f].write != 0;
        }
        sim_say(s,
                "%c: %s, %" PRIu32 " histories, %" PRIu32 " writes, epoch %" PRIu64 ", %" PRIu32
                " cuts, %" PRIu32 " copies",
                sim_name(i), n->running ? roles[n->role] : "down", n->chain_count, writes, n->epoch,
                n->cuts, n->copies);
    }
}

static void isolate(struct sim *s, uint32_t place, bool cut) {
    for (uint32_t i = 0; i < PLACES; i++) {
        if (i != place) {
            sim_set_cut(s, place, i, cut);
        }
    }
}

static void note_write(struct sim *s, const struct op *op) {
    uint32_t w = sim_write(s, op->a, (uint32_t)op->value);
    if (w == 0) {
        sim_say(s, "%c: takes no writes", sim_name(op->a));
    }
}

void op_apply(struct sim *s, const struct op *op) {
    struct node *n = &s->nodes[op->a < NODES_MAX ? op->a : 0];
    switch (op->kind) {
    case OP_KILL:
        sim_kill(s, op->a);
        return;
    case OP_POWER:
        sim_power_cut(s, op->a);
        return;
    case OP_DISK:
        sim_lose_disk(s, op->a);
        return;
    case OP_STOP:
        sim_stop(s, op->a);
        return;
    case OP_START:
        sim_start(s, op->a);
        return;
    case OP_FREEZE:
        n->frozen = n->running;
        return;
    case OP_THAW:
        sim_thaw(s, op->a);
        return;
    case OP_CUT:
    case OP_JOIN:
        sim_set_cut(s, op->a, op->b, op->kind == OP_CUT);
        return;
    case OP_ISOLATE:
    case OP_REJOIN:
        isolate(s, op->a, op->kind == OP_ISOLATE);
        return;
    case OP_BREAK:
        sim_break(s, op->a, op->b);
        return;
    case OP_CLOCK:
        n->clock_off_ms = op->value;
        return;
    case OP_PROMOTE:
        if (s->sentinel.on && n->role != CHAIN_REPLICA) {
            return; /* the same */
        }
        sim_promote(s, op->a);
        return;
    case OP_ATTACH:
    case OP_FORCE:
        if (s->sentinel.on && (n->role != CHAIN_REPLICA || s->nodes[op->b].role == CHAIN_FENCED)) {
            return; /* who makes a primary, or its copy, follow a lower one loses what it has */
        }
        sim_attach(s, op->a, op->b, op->kind == OP_FORCE);
        n->by_operator = true;
        return;
    case OP_WRITE:
        note_write(s, op);
        return;
    case OP_CLIENTS:
        s->write_every_ms = op->a;
        s->write_level = (uint32_t)op->value;
        return;
    case OP_SAY:
        say_all(s);
        return;
    case OP_KINDS:
        break;
    }
    dc_unreachable();
}

/* --- random ---------------------------------------------------------------------------------------------------- */

static void add(struct schedule *sc, int64_t at_ms, enum op_kind kind, uint32_t a, uint32_t b) {
    dc_assert(sc->count < OPS_MAX);
    sc->ops[sc->count++] = (struct op){.at_ms = at_ms, .kind = kind, .a = a, .b = b};
}

static int compare_ops(const void *left, const void *right) {
    const struct op *a = left;
    const struct op *b = right;
    return (a->at_ms > b->at_ms) - (a->at_ms < b->at_ms);
}

static bool has_kind(const struct schedule *sc, enum op_kind kind) {
    uint32_t i = 0;
    while (i < sc->count && sc->ops[i].kind != kind) {
        i++;
    }
    return i < sc->count;
}

/* A fault, and what ends it. */
static void draw_fault(struct schedule *sc, struct rng *r, uint32_t nodes, bool drills,
                       int64_t at_ms) {
    static const enum op_kind faults[] = {OP_KILL,   OP_KILL,  OP_POWER, OP_POWER,   OP_STOP,
                                          OP_FREEZE, OP_CUT,   OP_CUT,   OP_ISOLATE, OP_ISOLATE,
                                          OP_BREAK,  OP_CLOCK, OP_DISK,  OP_PROMOTE, OP_ATTACH};
    uint32_t choices = sizeof(faults) / sizeof(faults[0]) - (drills ? 0 : 2);
    enum op_kind kind = faults[rng_below(r, choices)];
    uint32_t a = (uint32_t)rng_below(r, nodes);
    uint32_t b = (a + 1 + (uint32_t)rng_below(r, nodes - 1)) % nodes;
    int64_t span = (int64_t)rng_below(r, rng_below(r, 2) == 0 ? 20 : 250) * 10 + 20;
    if (kind == OP_CUT && rng_below(r, 4) == 0) {
        b = SENTINEL;
    }
    if (kind == OP_DISK && (drills || has_kind(sc, OP_DISK))) {
        kind =
            OP_POWER; /* after two lost disks, or a drill besides, only an operator knows whose data counts */
    }
    add(sc, at_ms, kind, a, b);
    if (kind == OP_KILL || kind == OP_POWER || kind == OP_DISK || kind == OP_STOP) {
        add(sc, at_ms + span, OP_START, a, 0);
    } else if (kind == OP_FREEZE) {
        add(sc, at_ms + span, OP_THAW, a, 0);
    } else if (kind == OP_CUT) {
        add(sc, at_ms + span, OP_JOIN, a, b);
    } else if (kind == OP_ISOLATE) {
        add(sc, at_ms + span, OP_REJOIN, a, 0);
    } else if (kind == OP_CLOCK) {
        sc->ops[sc->count - 1].value = (int64_t)rng_below(r, 200000) - 100000;
    }
}

void schedule_draw(struct schedule *sc, uint64_t seed, uint32_t nodes, bool drills) {
    struct rng r;
    rng_seed(&r, seed);
    sc->count = 0;
    add(sc, 300, OP_CLIENTS, 30, 0);
    uint32_t faults = 3 + (uint32_t)rng_below(&r, 14);
    for (uint32_t i = 0; i < faults; i++) {
        draw_fault(sc, &r, nodes, drills, 500 + (int64_t)rng_below(&r, 450) * 10);
    }
    qsort(sc->ops, sc->count, sizeof(sc->ops[0]), compare_ops);
}

bool schedule_run(const struct schedule *sc, const struct sim_opts *opts, struct sim **out) {
    struct sim *s = sim_create(opts);
    for (uint32_t i = 0; i < sc->count; i++) {
        sim_run(s, sc->ops[i].at_ms);
        op_apply(s, &sc->ops[i]);
    }
    bool ok = sim_heal(s, 15000);
    if (out != NULL) {
        *out = s;
    } else {
        sim_destroy(s);
    }
    return ok;
}
