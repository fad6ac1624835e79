/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power cuts: a store with its log and snapshots on a simulated disk, which ends at any call that changes it.
 *
 *   a life     commands, acks from the disk, segments, snapshots and backups with writes in between, retention, appendonly no and yes;
 *              sometimes a failed fdatasync
 *   its end    the n-th call is the last one; then the power is cut (what wasn't synced comes out in every way), or the process is
 *              killed (the kernel has it all), or it ends in order
 *   metadata   as they were at a commit before the end; or older, gone, damaged (power_meta.h)
 *   recovery   a start succeeds, sometimes only after a cut of its own; all is loaded
 *   the next   goes on from there
 *
 * Checked after each recovery: the state is that after some command, exactly (values, expiries, versions): nothing is torn or invented;
 * what was durable is in it (H1, H3, H4); after a kill all that was written is; the next version is above every one that was ever
 * handed out (H3, H5); a history that lost anything is left (H1); it is the same node. A backup that has its name is whole: its files are those
 * that its manifest tells of, and a start on it finds the state at its LSN; one that was told to be there is.
 *
 * A failure tells --seed s --stop n, which run its world alone. Else --seconds s: for so long; with --whole 1 until every call of a first life
 * was the last one, too.
 */
#include "persist/warm.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/base/time.h"
#include "tests/crash/power.h"
#include "tests/crash/power_meta.h"
#include "tests/support/store_check.h"
#include "tests/support/temp_dir.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 1500, LIVES = 3, CUT_SEEDS = 3 };

static uint64_t recoveries;
static struct world *current;
static struct rng ids; /* of nodes and histories */

/* By the linker's --wrap: a world has the same ones each time. */
void __wrap_crypto_random(void *to, size_t len);
void __wrap_crypto_random(void *to, size_t len) {
    for (size_t i = 0; i < len; i++) {
        ((uint8_t *)to)[i] = (uint8_t)rng_next(&ids);
    }
}

/* An assertion of the node's own has to say in which world, too. */
static void tell_world(int sig) {
    (void)sig;
    if (write(STDERR_FILENO, current->name, sizeof(current->name)) < 0) {
        /* There is nobody left to tell. */
    }
}

/* --- recovery ---------------------------------------------------------------------------------------- */

uint64_t power_digest_at(const struct world *w, uint64_t lsn, uint64_t *end) {
    uint64_t digest = 0;
    *end = 0;
    for (uint32_t i = 0; i < w->moment_count && w->moments[i].end <= lsn; i++) {
        digest = w->moments[i].digest;
        *end = w->moments[i].end;
    }
    return digest;
}

static void check_recovered(struct world *w, const struct data_plan *plan, struct store *s,
                            uint64_t promised) {
    struct table_facts facts;
    uint64_t end;
    const char *bad = store_check(s, &facts);
    must(bad == NULL, "%s", bad);
    must(plan->empty ? promised == 0 : plan->end_lsn >= promised,
         "ends at %" PRIu64 ", promised %" PRIu64 "; %s", plan->end_lsn, promised, plan->notes);
    must(plan->snapshot_end <= plan->end_lsn || plan->empty, "a snapshot of the future");
    uint64_t digest = power_digest_at(w, plan->empty ? 0 : plan->end_lsn, &end);
    must(store_digest(s) == digest, "another state than that at %" PRIu64 " (end %" PRIu64 "); %s",
         end, plan->end_lsn, plan->notes);
    /* A life may leave nothing but its fork (80 bytes and 32 for each history), or a close (40). */
    must(plan->empty || plan->end_lsn - end < 2 * LIVES * LSN_LEAP, "an end from nowhere");
    recoveries++;
}

struct store *power_load(struct world *w, const struct data_plan *plan, struct warm *warm) {
    struct store_opts store_opts = {.seed = plan->seed};
    struct store_thread thread;
    struct store *s = store_create(&store_opts);
    store_tick(s, engine_now(&w->engine));
    store_thread_init(&thread, s, &w->metrics, 1);
    if (warm != NULL) {
        enum dc_err err = warm_attach(warm, s);
        err = err != DC_OK ? err : warm_all(warm, &thread);
        must(err == DC_OK, "load: %s", dc_fail_take(err));
        warm_destroy(warm);
    }
    return s;
}

/* Loads what was found, which is as it should be. */
static struct store *load(struct world *w, const struct data_plan *plan, struct warm *warm,
                          uint64_t promised) {
    struct store *s = power_load(w, plan, warm);
    check_recovered(w, plan, s, promised);
    return s;
}

/* The files alone. */
static void look_at_files(struct world *w) {
    bool in_pieces = recoveries % 2 == 1;
    struct warm_opts opts = {.io = sim_disk_io(w->disk),
                             .dir = "data",
                             .threads = in_pieces ? 3 : 0,
                             .piece_len = PIECE};
    struct data_plan *plan = mem_must_zalloc(sizeof(*plan));
    struct warm *warm = NULL;
    enum dc_err err = data_scan(&opts, plan, &warm);
    must(err == DC_OK, "scan: %s", dc_fail_take(err));
    store_destroy(load(w, plan, warm, w->durable));
    mem_free(plan);
}

/* A start, up to its store. The world's data are those of it then. Returns the store, and whether the metadata are as the last life left them. */
static struct store *start(struct world *w, uint64_t promised, bool *newest) {
    struct power_meta left = power_meta_draw(&w->rng);
    power_meta_put(&left);
    enum dc_err err = data_open(&w->data, sim_disk_io(w->disk), "data");
    must(err == DC_OK, "start: %s", dc_fail_take(err));
    const struct data_plan *plan = w->data.plan;
    struct store *s = load(w, plan, w->data.warm, promised);
    w->data.warm = NULL;
    *newest = left.newest;
    must(memcmp(plan->node_id, w->node_id, NODE_ID_LEN) == 0 ||
             (plan->empty && w->data.meta_is_new),
         "another node");
    return s;
}

/* The same in a directory of its own. */
static void look_as_a_start(struct world *w) {
    bool newest;
    int rc = chdir("look");
    must(rc == 0, "no directory to look");
    power_meta_ignore(true);
    store_destroy(start(w, w->durable, &newest));
    data_close(&w->data, false, 0);
    power_meta_ignore(false);
    rc = chdir("..");
    must(rc == 0, "no way back");
}

/* A scan that is itself cut off. */
static void recover_in_part(struct world *w) {
    struct warm_opts opts = {.io = sim_disk_io(w->disk), .dir = "data"};
    struct data_plan *plan = mem_must_zalloc(sizeof(*plan));
    struct warm *warm = NULL;
    sim_disk_stop_after(w->disk, 1 + draw(w, 12));
    if (data_scan(&opts, plan, &warm) == DC_OK) {
        warm_destroy(warm);
    }
    sim_disk_stop_after(w->disk, 0);
    mem_free(plan);
}

static void set_disk(struct world *w, struct sim_disk *d) {
    sim_disk_destroy(w->disk);
    w->disk = d;
}

/* Looks at the disk after a power cut of this kind; the world's own disk stays. */
static void look_after_cut(struct world *w, enum sim_cut cut, uint64_t seed) {
    struct sim_disk *mine = w->disk;
    w->disk = sim_disk_crash(mine, cut, seed);
    if (draw(w, 3) == 0) {
        recover_in_part(w);
        set_disk(w, sim_disk_crash(w->disk, (enum sim_cut)draw(w, SIM_CUT_COUNT), seed + 1));
    }
    if (draw(w, 6) == 0) {
        look_as_a_start(w);
    } else {
        look_at_files(w);
    }
    power_check_backups(w);
    set_disk(w, mine);
}

/* --- a world ----------------------------------------------------------------------------------------- */

/* The next life goes on with what was found. */
static void take_over(struct world *w, struct store *s, bool newest) {
    const struct data_plan *plan = w->data.plan;
    store_destroy(w->engine.store);
    w->engine.store = s;
    if (memcmp(plan->node_id, w->node_id, NODE_ID_LEN) != 0) {
        memcpy(w->node_id, plan->node_id, NODE_ID_LEN);
        w->handed_out = 0; /* by others */
        power_meta_forget();
    }
    power_meta_settle();
    /* Older ones don't know of a run without a log, and nothing else can tell; nor that others have been gone before. */
    if (w->is_unlogged && !newest && (!w->data.meta_is_new || w->is_blind)) {
        w->handed_out = plan->end_lsn;
    }
    w->is_blind = (w->data.meta_is_new && !plan->empty) || (w->is_blind && w->is_unlogged);
    /* What was lost never was. */
    while (w->moment_count > 0 && w->moments[w->moment_count - 1].end > plan->end_lsn) {
        w->moment_count--;
    }
    w->durable = plan->empty ? 0 : plan->end_lsn; /* it is shown to clients */
    w->written = w->durable;
}

/* Every kind of cut is looked at; with one of them, or a kill, the world goes on. */
static void end_life(struct world *w, uint32_t life) {
    char where[64];
    bool newest;
    snprintf(where, sizeof(where), "life %u, stop %" PRIu64, life, w->stop);
    sim_disk_stop_after(w->disk, 0);
    w->stop = 0;
    for (int cut = 0; cut < SIM_CUT_COUNT; cut++) {
        for (uint64_t seed = 0; seed < (cut < SIM_CUT_RANDOM ? 1 : CUT_SEEDS); seed++) {
            snprintf(w->what, sizeof(w->what), "%s, cut %d, seed %" PRIu64, where, cut, seed);
            look_after_cut(w, (enum sim_cut)cut, w->seed + seed);
        }
    }
    bool kill = draw(w, 3) == 0;
    if (!kill) {
        set_disk(w, sim_disk_crash(w->disk, (enum sim_cut)draw(w, SIM_CUT_COUNT), w->seed));
    }
    snprintf(w->what, sizeof(w->what), "%s, then %s", where, kill ? "a kill" : "the next");
    struct store *s = start(w, kill ? w->written : w->durable, &newest);
    must(!w->ended || !newest || w->data.plan->clean, "it ended in order");
    take_over(w, s, newest);
    hand_fini(&w->hand);
    hand_init(&w->hand, &w->engine, w->seed + life);
}

static bool is_cut(void *arg) {
    return is_stopped(arg);
}

static void begin_world(struct world *w) {
    rng_seed(&w->rng, w->seed);
    rng_seed(&ids, w->seed);
    snprintf(w->what, sizeof(w->what), "begin");
    w->disk = sim_disk_create();
    (void)sim_disk_io(w->disk)->mkdir(sim_disk_io(w->disk), "data");
    power_meta_begin(is_cut, w);
    enum dc_err err = data_open(&w->data, sim_disk_io(w->disk), "data");
    must(err == DC_OK && w->data.plan->empty, "a new node: %s", dc_fail_take(err));
    power_meta_settle();
    memcpy(w->node_id, w->data.plan->node_id, NODE_ID_LEN);
    engine_init(&w->engine, w->data.plan->seed);
    hand_init(&w->hand, &w->engine, w->seed);
    power_note_moment(w, 0);
}

static void end_world(struct world *w) {
    data_close(&w->data, false, 0);
    power_meta_end();
    hand_fini(&w->hand);
    engine_fini(&w->engine);
    sim_disk_destroy(w->disk);
    mem_free(w->moments);
    mem_free(w);
}

/* Returns how many calls the first life made. */
static uint64_t run_world(uint64_t seed, uint64_t stop) {
    struct world *w = mem_must_zalloc(sizeof(*w));
    w->seed = seed;
    w->first_stop = stop;
    snprintf(w->name, sizeof(w->name), "an assertion failed: --seed %" PRIu64 " --stop %" PRIu64,
             seed, stop);
    memset(w->name + strlen(w->name), ' ', sizeof(w->name) - strlen(w->name));
    w->name[sizeof(w->name) - 1] = '\n';
    current = w;
    begin_world(w);
    uint64_t calls = 0;
    for (uint32_t life = 0; life < LIVES; life++) {
        uint64_t before = sim_disk_changes(w->disk);
        uint64_t n = life == 0 ? stop : draw(w, 3) == 0 ? 0 : 1 + draw(w, 150);
        w->stop = n == 0 ? 0 : before + n;
        sim_disk_stop_after(w->disk, n);
        power_live(w);
        calls = life == 0 ? sim_disk_changes(w->disk) - before : calls;
        end_life(w, life);
    }
    end_world(w);
    return calls;
}

/* Which call of the first life is the last one: each in turn, neighbours far apart. */
static uint64_t stop_of(uint64_t world, uint64_t calls) {
    uint64_t step = calls % 13 != 0 ? 13 : calls % 11 != 0 ? 11 : 1; /* no common divisor */
    return calls == 0 ? 1 : 1 + world * step % calls;
}

/* --- the directory for what is no simulation --------------------------------------------------------- */

static char directory[TEMP_DIR_MAX];

static void remove_directory(void) {
    temp_dir_remove(directory);
}

static bool enter_directory(void) {
    temp_dir_make_in_memory(directory);
    (void)atexit(remove_directory);
    return chdir(directory) == 0 && mkdir("look", 0755) == 0;
}

int main(int argc, char **argv) {
    const char *text = getenv("DC_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time_wall_us();
    uint64_t seconds = 8;
    uint64_t worlds = 0;
    uint64_t stop = 0;
    bool once = false;
    bool whole = false;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seconds") == 0) {
            seconds = strtoull(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--seed") == 0) {
            seed = strtoull(argv[i + 1], NULL, 10);
            once = true;
        } else if (strcmp(argv[i], "--stop") == 0) {
            stop = strtoull(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--whole") == 0) {
            whole = strtoull(argv[i + 1], NULL, 10) != 0;
        }
    }
    printf("seed %" PRIu64 "\n", seed);
    fflush(stdout);
    if (!enter_directory()) {
        return 1;
    }
    diag_set_level(DIAG_WARNING);
    (void)signal(SIGABRT, tell_world); /* which ends the process when it returns */
    int64_t end_us = time_mono_us() + (int64_t)seconds * 1000000;
    uint64_t calls = once ? 0 : run_world(seed, 0);
    /* In a world of its own each; the order of threads varies what a call is. */
    for (; once ? worlds == 0 : time_mono_us() < end_us || (whole && worlds < calls); worlds++) {
        (void)run_world(seed + worlds + 1 - once, once ? stop : stop_of(worlds, calls));
    }
    printf("%" PRIu64 " worlds, %" PRIu64 " recoveries, %" PRIu64 " calls in a life\n", worlds,
           recoveries, calls);
    return 0;
}
