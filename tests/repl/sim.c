/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/repl/sim.h"

#include "server/base/assert.h"
#include "server/base/mem.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

void sim_say(struct sim *s, const char *format, ...) {
    if (s->opts.trace == NULL) {
        return;
    }
    va_list args;
    va_start(args, format);
    fprintf(s->opts.trace, "%6" PRId64 " ", s->now_ms);
    vfprintf(s->opts.trace, format, args);
    fputc('\n', s->opts.trace);
    va_end(args);
}

void sim_fail(struct sim *s, const char *format, ...) {
    if (s->failed[0] != '\0') {
        return;
    }
    va_list args;
    s->failed_how = format;
    va_start(args, format);
    vsnprintf(s->failed, sizeof(s->failed), format, args);
    va_end(args);
    sim_say(s, "FAILED: %s", s->failed);
}

/* Thousands are made one after the other: the memory of the last one serves again. */
static struct sim *spare;

static struct sim *sim_alloc(void) {
    struct sim *s = spare;
    if (s == NULL) {
        s = mem_must_zalloc(sizeof(*s));
        s->writes = mem_must_alloc(WRITES_MAX * sizeof(*s->writes));
        for (uint32_t i = 0; i < NODES_MAX; i++) {
            s->nodes[i].frames = mem_must_alloc(FRAMES_MAX * sizeof(*s->nodes[i].frames));
        }
        return s;
    }
    spare = NULL;
    struct write *writes = s->writes;
    struct frame *frames[NODES_MAX];
    for (uint32_t i = 0; i < NODES_MAX; i++) {
        frames[i] = s->nodes[i].frames;
    }
    memset(s, 0, offsetof(struct sim, conns));
    s->writes = writes;
    for (uint32_t i = 0; i < NODES_MAX; i++) {
        s->nodes[i].frames = frames[i];
    }
    return s;
}

/* A is the primary, the others follow it. */
struct sim *sim_create(const struct sim_opts *opts) {
    struct sim *s = sim_alloc();
    s->opts = *opts;
    s->opts.pull_ms = opts->pull_ms > 0 ? opts->pull_ms : 800;
    dc_assert(opts->nodes >= 1 && opts->nodes <= NODES_MAX);
    rng_seed(&s->rng, opts->seed);
    s->sentinel.on = opts->sentinel;
    for (uint32_t i = 0; i < opts->nodes; i++) {
        struct node *n = &s->nodes[i];
        n->place = i;
        n->stored_role = i == 0 ? CHAIN_PRIMARY : CHAIN_REPLICA;
        n->empty = true;
        n->epoch = i == 0 && !opts->steady ? 2 : 0; /* as behind a failover long ago */
        n->peers = peers_create(
            &(struct peers_opts){.ask_again_ms = 50, .watch_again_ms = 200, .lonely_ms = 200});
        sim_start(s, i);
    }
    return s;
}

void sim_destroy(struct sim *s) {
    for (uint32_t i = 0; i < s->opts.nodes; i++) {
        peers_destroy(s->nodes[i].peers);
    }
    net_destroy(s);
    dc_assert(spare == NULL);
    spare = s;
}

/* Clients write wherever a node takes writes. */
static void clients_step(struct sim *s) {
    if (s->write_every_ms == 0 || s->now_ms < s->write_ms) {
        return;
    }
    s->write_ms = s->now_ms + s->write_every_ms;
    for (uint32_t i = 0; i < s->opts.nodes; i++) {
        uint32_t level =
            s->opts.steady ? s->write_level : (uint32_t)rng_below(&s->rng, s->opts.nodes);
        sim_write(s, i, level);
    }
}

void sim_step(struct sim *s) {
    s->now_ms += SIM_STEP_MS;
    net_step(s);
    for (uint32_t i = 0; i < s->opts.nodes; i++) {
        node_step(s, &s->nodes[i]);
    }
    for (uint32_t i = 0; i < CONNS_MAX; i++) {
        source_step(s, &s->conns[i]);
    }
    clients_step(s);
    sentinel_step(s);
}

void sim_run(struct sim *s, int64_t until_ms) {
    while (s->now_ms < until_ms && s->failed[0] == '\0') {
        sim_step(s);
    }
}

void sim_set_cut(struct sim *s, uint32_t a, uint32_t b, bool cut) {
    if (s->cut[a][b] && !cut) {
        s->joined_ms[a][b] = s->joined_ms[b][a] = s->now_ms;
    }
    s->cut[a][b] = s->cut[b][a] = cut;
}

bool sim_heal(struct sim *s, int64_t patience_ms) {
    char why[256] = "";
    int64_t until_ms = s->now_ms + patience_ms;
    sim_say(s, "everything is mended");
    for (uint32_t i = 0; i < PLACES * PLACES; i++) {
        sim_set_cut(s, i / PLACES, i % PLACES, false);
    }
    s->write_every_ms = 0;
    s->healing = true;
    for (uint32_t i = 0; i < s->opts.nodes; i++) {
        sim_thaw(s, i);
        s->nodes[i].clock_off_ms = 0;
        sim_start(s, i);
    }
    bool equal = false;
    while (!equal && s->now_ms < until_ms && s->failed[0] == '\0') {
        sim_run(s, s->now_ms + 100);
        equal = check_equal(s, why, sizeof(why));
    }
    if (!equal) {
        sim_fail(s, "C4 %s", why);
    } else {
        check_end(s);
    }
    return s->failed[0] == '\0';
}
