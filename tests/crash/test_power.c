/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power cuts: a store with its log and snapshots on a simulated disk, which ends at any call that changes it.
 *
 *   a life     commands, acks from the disk, segments, snapshots with writes in between, retention; sometimes a failed fdatasync
 *   its end    the n-th call is the last one; then the power is cut (what wasn't synced comes out in every way), or the process is
 *              killed (the kernel has it all), or it ends in order
 *   recovery   data_scan() succeeds, sometimes only after a cut of its own; all is loaded
 *   the next   goes on from there
 *
 * Checked after each recovery: the state is that after some command, exactly (values, expiries, versions): nothing is torn or invented;
 * what was durable is in it (H1, H3, H4); after a kill all that was written is; the next version is above every one that was ever
 * handed out (H3, H5); a history that lost anything is left (H1).
 *
 * A failure tells --seed s --stop n, which run its world alone. Else --seconds s: for so long; with --whole 1 until every call of a first life
 * was the last one, too.
 */
#include "persist/retain.h"
#include "persist/snap_writer.h"
#include "persist/warm.h"
#include "server/base/mem.h"
#include "server/base/rng.h"
#include "server/base/time.h"
#include "tests/support/engine.h"
#include "tests/support/sim_disk.h"
#include "tests/support/store_check.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEYS = 40, COMMANDS = 60, SEGMENT_LEN = 6000, LIVES = 3, CUT_SEEDS = 3, FILES_MAX = 256 };

/* What the store was behind each frame. */
struct moment {
    uint64_t end;
    uint64_t digest;
};

struct world {
    uint64_t seed;
    uint64_t first_stop; /* of the first life */
    struct rng rng;
    struct sim_disk *disk;
    struct engine engine;
    struct hand hand;
    struct metric_slot metrics;
    struct log *log;
    struct log_feed *feed;
    struct data_plan *plan;
    struct history chain[CHAIN_MAX];
    uint32_t chain_count;
    struct moment *moments; /* rising */
    uint32_t moment_count;
    uint64_t handed_out; /* the highest version that was ever seen */
    uint64_t durable;    /* promised */
    uint64_t written;    /* promised against a kill */
    uint64_t stop;       /* calls after which the disk ends, counted like sim_disk_changes() */
    _Atomic bool over;   /* the disk has stopped: a snapshot needn't go on */
    bool in_snapshot;
    bool is_faulty; /* an fdatasync fails in this life */
    bool ended;     /* in order */
    char what[256];
    char name[80]; /* the same without what is done; padded with blanks */
};

static uint64_t recoveries;
static struct world *current;

/* An assertion of the node's own has to say in which world, too. */
static void tell_world(int sig) {
    (void)sig;
    if (write(STDERR_FILENO, current->name, sizeof(current->name)) < 0) {
        /* There is nobody left to tell. */
    }
}

#define must(condition, ...)                                                           \
    do {                                                                               \
        if (!(condition)) {                                                            \
            printf("--seed %" PRIu64 " --stop %" PRIu64 ", %s: not so: %s: ", w->seed, \
                   w->first_stop, w->what, #condition);                                \
            printf(__VA_ARGS__);                                                       \
            printf("\n");                                                              \
            exit(1);                                                                   \
        }                                                                              \
    } while (0)

static uint64_t draw(struct world *w, uint64_t bound) {
    return rng_below(&w->rng, bound);
}

static bool is_stopped(const struct world *w) {
    return w->stop > 0 && sim_disk_changes(w->disk) >= w->stop;
}

/* --- commands ---------------------------------------------------------------------------------------- */

static void note_moment(struct world *w, uint64_t end) {
    if ((w->moment_count & (w->moment_count - 1)) == 0) {
        size_t cap = w->moment_count == 0 ? 1 : 2 * (size_t)w->moment_count;
        w->moments = mem_must_realloc(w->moments, cap * sizeof(*w->moments));
    }
    w->moments[w->moment_count++] = (struct moment){end, store_digest(w->engine.store)};
}

static void commit(void *arg, struct mut *m) {
    struct world *w = arg;
    enum dc_err err = log_reserve(w->feed, m);
    must(err == DC_OK, "no memory");
    uint64_t end = log_commit(w->feed, m).v;
    for (uint32_t i = 0; i < m->count; i++) {
        must(m->effects[i].version > w->handed_out, "version %" PRIu64 " again", /* H3, H5 */
             m->effects[i].version);
    }
    w->handed_out = end;
    log_kick(w->log);
}

static struct bytes draw_key(struct world *w, char to[16]) {
    int len = snprintf(to, 16, "key:%" PRIu64, draw(w, KEYS));
    return bytes_of(to, (size_t)len);
}

static enum dc_err run_exec(struct world *w) {
    struct hand *h = &w->hand;
    char a[16], b[16];
    bool existed;
    hand_frame_begin(h);
    enum dc_err err = hand_set(h, 0, draw_key(w, a), bytes_of("exec", 4), EXPIRY_NONE);
    err = err != DC_OK ? err : hand_append(h, 0, bytes_of(a, strlen(a)), bytes_of("+", 1));
    err = err != DC_OK ? err : hand_del(h, 0, draw_key(w, b), &existed);
    hand_frame_end(h);
    return err;
}

static enum dc_err run_command(struct world *w) {
    static char bytes[70000];
    struct hand *h = &w->hand;
    char a[16], b[16];
    bool existed;
    int64_t sum;
    struct bytes key = draw_key(w, a);
    uint32_t db = (uint32_t)draw(w, 2);
    memset(bytes, 'a' + (int)draw(w, 26), sizeof(bytes));
    switch (draw(w, 16)) {
    case 0:
        return hand_del(h, db, key, &existed);
    case 1:
        return hand_expire(h, db, key, engine_now(&w->engine) + (int64_t)draw(w, 1000), &existed);
    case 2:
        return hand_expire(h, db, key, EXPIRY_NONE, &existed);
    case 3:
        return hand_write(h, db, key, draw(w, 50), bytes_of(bytes, draw(w, 30)));
    case 4:
        return hand_append(h, db, key, bytes_of(bytes, 1 + draw(w, 30)));
    case 5:
        return hand_rename(h, db, key, draw_key(w, b), &existed);
    case 6:
        return run_exec(w);
    case 7:
        return draw(w, 6) == 0 ? hand_flush(h, db) : DC_OK;
    case 8:
        return draw(w, 12) == 0
                   ? hand_set(h, db, key, bytes_of(bytes, 66000 + draw(w, 1000)), EXPIRY_NONE)
                   : DC_OK;
    case 9:
        key = bytes_of("counter", 7);
        return hand_incr(h, db, key, (int64_t)draw(w, 100), &sum);
    default:
        return hand_set(h, db, key, bytes_of(bytes, draw(w, 500)),
                        draw(w, 4) == 0 ? engine_now(&w->engine) + 500 : EXPIRY_NONE);
    }
}

static void command(struct world *w) {
    uint64_t before = w->handed_out;
    enum dc_err err = run_command(w);
    must(err == DC_OK, "command: %s", dc_fail_take(err));
    if (w->handed_out > before) {
        note_moment(w, w->handed_out);
    }
}

/* --- a life ------------------------------------------------------------------------------------------ */

/* While a snapshot's file is written, by the thread that writes it or while that one waits: commands go on. */
static void during_snapshot(void *arg, enum sim_call kind, const char *path) {
    struct world *w = arg;
    if (is_stopped(w)) {
        atomic_store(&w->over, true);
    }
    if (kind == SIM_WRITE && strstr(path, "snap-") != NULL && !w->in_snapshot && !w->ended) {
        w->in_snapshot = true;
        for (uint64_t i = draw(w, 4); i-- > 0;) {
            command(w);
        }
        w->in_snapshot = false;
    }
}

struct listing {
    struct world *w;
    struct meta_file files[FILES_MAX];
    uint32_t count;
};

static void list_snapshot(void *arg, const char *name) {
    struct listing *l = arg;
    char path[128];
    struct snap *s;
    size_t len = strlen(name);
    snprintf(path, sizeof(path), "data/%s", name);
    if (len > 4 && strcmp(name + len - 4, ".dcs") == 0 &&
        snap_open(sim_disk_io(l->w->disk), path, &s) == DC_OK) {
        retain_file_of_snapshot(name, snap_facts(s), &l->files[l->count++]);
        snap_close(s);
    }
}

static void tidy(struct world *w) {
    struct retain_opts opts = {.keep_count = 2, .needed_lsn = UINT64_MAX};
    struct listing *l = mem_must_zalloc(sizeof(*l));
    struct log_stats now;
    struct log_dir dir;
    struct retain_plan plan;
    l->w = w;
    opts.now_ms = time_wall_us() / 1000;
    log_stats(w->log, &now);
    if (log_dir_open(&dir, sim_disk_io(w->disk), "data") == DC_OK) {
        for (uint32_t i = 0; i < dir.count && l->count < FILES_MAX - 8; i++) {
            retain_file_of_segment(&dir.segments[i], &l->files[l->count]);
            if (strcmp(l->files[l->count].name, now.segment) == 0) {
                l->files[l->count].state = FILE_OPEN;
            }
            l->count++;
        }
        log_dir_close(&dir);
        (void)sim_disk_io(w->disk)->list(sim_disk_io(w->disk), "data", list_snapshot, l);
        retain_decide(l->files, l->count, &opts, &plan);
        enum dc_err err = retain_apply(sim_disk_io(w->disk), "data", &plan, NULL, NULL);
        must(err == DC_OK || is_stopped(w), "retention: %s", dc_fail_take(err));
        retain_plan_fini(&plan);
    }
    mem_free(l);
}

static void snapshot(struct world *w) {
    struct snap_written written;
    struct snap_write_opts opts = {.io = sim_disk_io(w->disk),
                                   .dir = "data",
                                   .store = w->engine.store,
                                   .log = w->log,
                                   .node_id = w->plan->node_id,
                                   .seed = w->plan->seed,
                                   .chain = w->chain,
                                   .chain_count = w->chain_count,
                                   .block_len = 2048,
                                   .stall_ms = 10000,
                                   .stop = &w->over,
                                   .now_ms = engine_now(&w->engine)};
    enum dc_err err = snap_write(&opts, &written);
    must(err == DC_OK || is_stopped(w) || w->is_faulty, "snapshot: %s", dc_fail_take(err));
    if (err == DC_OK && draw(w, 2) == 0) {
        tidy(w);
    }
}

static void wait_durable(struct world *w) {
    while (log_durable(w->log).v < w->handed_out && !is_stopped(w)) {
        (void)log_wait(w->log, LOG_LEVEL_DISK, (struct lsn){w->handed_out}, 2000);
    }
}

static void live(struct world *w) {
    w->is_faulty = draw(w, 3) == 0;
    if (w->is_faulty) {
        sim_disk_fail(w->disk, SIM_SYNC, 1 + draw(w, 12), 1, EIO);
    }
    for (uint32_t i = 0; i < COMMANDS && !is_stopped(w); i++) {
        command(w);
        if (draw(w, 4) == 0) {
            wait_durable(w);
        }
        if (draw(w, 25) == 0) {
            snapshot(w);
        }
    }
    sim_disk_fail(w->disk, SIM_SYNC, 0, 0, 0);
}

static enum dc_err begin_log(struct world *w) {
    const struct data_plan *p = w->plan;
    bool fork = !p->clean || p->chain_count == 0;
    memcpy(w->chain, p->chain, p->chain_count * sizeof(w->chain[0]));
    w->chain_count = p->chain_count;
    if (fork) {
        struct history *h = &w->chain[w->chain_count++];
        *h = (struct history){.id = 1 + draw(w, UINT64_MAX - 1), .start = LSN_FIRST, .epoch = 1};
        if (p->chain_count > 0) { /* as data_begin() does it */
            h->start = p->end_lsn + LSN_JUMP;
            h->parent_end = p->end_lsn;
        }
    }
    struct log_opts opts = {.io = sim_disk_io(w->disk),
                            .dir = "data",
                            .node_id = p->node_id,
                            .seed = p->seed,
                            .history = w->chain[w->chain_count - 1],
                            .first_lsn = fork ? w->chain[w->chain_count - 1].start : p->end_lsn,
                            .chain = w->chain,
                            .chain_count = w->chain_count,
                            .fork = fork,
                            .keeps = true,
                            .sync = draw(w, 2) == 0 ? LOG_SYNC_ALWAYS : LOG_SYNC_NO,
                            .segment_len = SEGMENT_LEN,
                            .memory_limit = (uint64_t)1 << 30};
    return log_open(&opts, &w->log);
}

/* Until its end, or that of the disk. */
static void run_life(struct world *w) {
    enum dc_err err = begin_log(w);
    w->ended = false;
    atomic_store(&w->over, false);
    if (err != DC_OK) {
        must(is_stopped(w), "open: %s", dc_fail_take(err));
        return;
    }
    w->feed = log_feed_create(w->log);
    w->engine.commit = commit;
    w->engine.commit_arg = w;
    sim_disk_set_hook(w->disk, during_snapshot, w);
    live(w);
    bool clean = draw(w, 3) == 0;
    sim_disk_set_hook(w->disk, NULL, NULL);
    log_feed_destroy(w->feed);
    w->ended = clean && !is_stopped(w);
    w->written = log_written(w->log).v;
    w->durable = log_durable(w->log).v;
    uint64_t head = log_head(w->log).v;
    log_close(w->log, clean, is_stopped(w) ? 1 : 1000);
    w->ended = w->ended && !is_stopped(w);
    w->durable = w->ended ? head : w->durable;
    w->log = NULL;
}

/* --- recovery ---------------------------------------------------------------------------------------- */

/* The state behind the last frame that ends at or before the LSN. */
static uint64_t digest_at(const struct world *w, uint64_t lsn, uint64_t *end) {
    uint64_t digest = 0;
    *end = 0;
    for (uint32_t i = 0; i < w->moment_count && w->moments[i].end <= lsn; i++) {
        digest = w->moments[i].digest;
        *end = w->moments[i].end;
    }
    return digest;
}

static void check_recovered(struct world *w, struct store *s, uint64_t promised) {
    struct table_facts facts;
    uint64_t end;
    const char *bad = store_check(s, &facts);
    must(bad == NULL, "%s", bad);
    must(w->plan->empty ? promised == 0 : w->plan->end_lsn >= promised,
         "ends at %" PRIu64 ", promised %" PRIu64 "; %s", w->plan->end_lsn, promised,
         w->plan->notes);
    must(w->plan->snapshot_end <= w->plan->end_lsn || w->plan->empty, "a snapshot of the future");
    uint64_t digest = digest_at(w, w->plan->empty ? 0 : w->plan->end_lsn, &end);
    must(store_digest(s) == digest, "another state than that at %" PRIu64 " (end %" PRIu64 "); %s",
         end, w->plan->end_lsn, w->plan->notes);
    /* A life may leave nothing but its fork (80 bytes and 32 for each history), or a close (40). */
    must(w->plan->empty || w->plan->end_lsn - end < LIVES * LSN_JUMP, "an end from nowhere");
    recoveries++;
}

/* Scans the disk, loads all and compares. The plan and the store are those of the world then. */
static struct store *recover(struct world *w, uint64_t promised) {
    bool in_pieces = recoveries % 2 == 1;
    struct warm_opts opts = {.io = sim_disk_io(w->disk),
                             .dir = "data",
                             .threads = in_pieces ? 3 : 0,
                             .piece_len = SEGMENT_LEN / 4};
    struct store_thread thread;
    struct warm *warm = NULL;
    memset(w->plan, 0, sizeof(*w->plan));
    enum dc_err err = data_scan(&opts, w->plan, &warm);
    must(err == DC_OK, "scan: %s", dc_fail_take(err));
    struct store_opts store_opts = {.seed = w->plan->seed};
    struct store *s = store_create(&store_opts);
    store_tick(s, engine_now(&w->engine));
    store_thread_init(&thread, s, &w->metrics, 1);
    if (warm != NULL) {
        err = warm_attach(warm, s);
        err = err != DC_OK ? err : warm_all(warm, &thread);
        must(err == DC_OK, "load: %s", dc_fail_take(err));
        warm_destroy(warm);
    }
    check_recovered(w, s, promised);
    return s;
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
    store_destroy(recover(w, w->durable));
    set_disk(w, mine);
}

/* Every kind of cut is looked at; with one of them, or a kill, the world goes on. */
static void end_life(struct world *w, uint32_t life) {
    char where[64];
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
    struct store *s = recover(w, kill ? w->written : w->durable);
    must(!w->ended || w->plan->clean, "it ended in order");
    store_destroy(w->engine.store);
    w->engine.store = s;
    hand_fini(&w->hand);
    hand_init(&w->hand, &w->engine, w->seed + life);
    /* What was lost never was. */
    while (w->moment_count > 0 && w->moments[w->moment_count - 1].end > w->plan->end_lsn) {
        w->moment_count--;
    }
    w->durable = w->plan->empty ? 0 : w->plan->end_lsn; /* it is shown to clients */
    w->written = w->durable;
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
    rng_seed(&w->rng, seed);
    snprintf(w->what, sizeof(w->what), "begin");
    w->disk = sim_disk_create();
    (void)sim_disk_io(w->disk)->mkdir(sim_disk_io(w->disk), "data");
    w->plan = mem_must_zalloc(sizeof(*w->plan));
    w->plan->empty = true;
    engine_init(&w->engine, NULL);
    hand_init(&w->hand, &w->engine, seed);
    w->moments = NULL;
    note_moment(w, 0);
    uint64_t calls = 0;
    for (uint32_t life = 0; life < LIVES; life++) {
        uint64_t before = sim_disk_changes(w->disk);
        uint64_t n = life == 0 ? stop : draw(w, 3) == 0 ? 0 : 1 + draw(w, 150);
        w->stop = n == 0 ? 0 : before + n;
        sim_disk_stop_after(w->disk, n);
        run_life(w);
        calls = life == 0 ? sim_disk_changes(w->disk) - before : calls;
        end_life(w, life);
    }
    hand_fini(&w->hand);
    engine_fini(&w->engine);
    sim_disk_destroy(w->disk);
    mem_free(w->moments);
    mem_free(w->plan);
    mem_free(w);
    return calls;
}

/* Which call of the first life is the last one: each in turn, neighbours far apart. */
static uint64_t stop_of(uint64_t world, uint64_t calls) {
    uint64_t step = calls % 13 != 0 ? 13 : calls % 11 != 0 ? 11 : 1; /* no common divisor */
    return calls == 0 ? 1 : 1 + world * step % calls;
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
