/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Random faults, thousands of schedules. DC_SEED=n begins there; DC_REPL_SEEDS=n runs so many; DC_REPL_ONLY=n runs seed n with its trace. A seed that fails is printed as a schedule from which
 * no line can be left out, with its trace.
 */
#include "tests/repl/schedule.h"
#include "server/base/mem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static bool has_drills(uint64_t seed) {
    return seed % 3 == 0;
}

static struct sim_opts opts_of(uint64_t seed) {
    struct sim_opts o = {.seed = seed, .sentinel = true, .drills = has_drills(seed)};
    o.nodes = seed % 4 == 3 ? 5 : seed % 4 == 2 ? 4 : 3;
    o.keep_frames = seed % 5 == 0 ? 40 : seed % 5 == 1 ? 5 : 0;
    o.pin_frames = 60;
    o.mute = getenv("DC_REPL_MUTE") != NULL;
    return o;
}

/* NULL, or the rule that is broken. */
static const char *broken(const struct schedule *sc, uint64_t seed, FILE *trace) {
    struct sim_opts o = opts_of(seed);
    struct sim *s;
    o.trace = trace;
    const char *how = schedule_run(sc, &o, &s) ? NULL : s->failed_how;
    sim_destroy(s);
    return how;
}

/* Leaves out what isn't needed for the failure. */
static void shrink(struct schedule *sc, uint64_t seed) {
    const char *how = broken(sc, seed, NULL);
    bool smaller = true;
    while (smaller) {
        smaller = false;
        for (uint32_t i = sc->count; i-- > 0;) {
            struct schedule less = *sc;
            memmove(less.ops + i, less.ops + i + 1, (less.count - i - 1) * sizeof(less.ops[0]));
            less.count--;
            if (broken(&less, seed, NULL) == how) {
                *sc = less;
                smaller = true;
            }
        }
    }
}

static void show(struct schedule *sc, uint64_t seed) {
    shrink(sc, seed);
    printf("seed %" PRIu64 ", %" PRIu32 " nodes; the schedule, shrunk:\n", seed,
           opts_of(seed).nodes);
    for (uint32_t i = 0; i < sc->count; i++) {
        op_print(&sc->ops[i], stdout);
    }
    broken(sc, seed, stdout);
}

static uint64_t number(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 0) : otherwise;
}

/* A schedule that was printed, with its seed. */
static int replay(const char *path, uint64_t seed) {
    struct schedule sc = {.count = 0};
    char line[128];
    FILE *f = fopen(path, "r");
    while (f != NULL && sc.count < OPS_MAX && fgets(line, sizeof(line), f) != NULL) {
        sc.count += op_parse(line, &sc.ops[sc.count]);
    }
    if (f != NULL) {
        fclose(f);
    }
    return sc.count > 0 && broken(&sc, seed, stdout) == NULL ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv) {
    if (argc == 3) {
        return replay(argv[2], strtoull(argv[1], NULL, 0));
    }
    uint64_t first = number("DC_SEED", 1);
    uint64_t count = number("DC_REPL_SEEDS", 4000);
    uint64_t only = number("DC_REPL_ONLY", 0);
    struct schedule sc;
    uint64_t sum[6] = {0};
    if (only > 0) {
        schedule_draw(&sc, only, opts_of(only).nodes, has_drills(only));
        return broken(&sc, only, stdout) == NULL ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct sim_opts o = opts_of(seed);
        struct sim *s;
        schedule_draw(&sc, seed, o.nodes, has_drills(seed));
        bool ok = schedule_run(&sc, &o, &s);
        sum[0] += s->write_count;
        sum[1] += s->acked;
        sum[2] += s->excused;
        sum[3] += s->doomed;
        sum[4] += s->forks;
        sum[5] += s->pulls;
        if (!ok) {
            printf("%s\n", s->failed);
        }
        sim_destroy(s);
        if (!ok) {
            show(&sc, seed);
            return EXIT_FAILURE;
        }
    }
    printf("%" PRIu64 " schedules from seed %" PRIu64 " on: %" PRIu64 " writes, %" PRIu64
           " acknowledged, of those %" PRIu64 " excused and %" PRIu64
           " by a primary that had been replaced; %" PRIu64 " histories, %" PRIu64 " pulls\n",
           count, first, sum[0], sum[1], sum[2], sum[3], sum[4], sum[5]);
    return EXIT_SUCCESS;
}
