/* SPDX-License-Identifier: BSD-3-Clause */
/* One life of a world: what a server does with its data directory, by one thread. */
#include "persist/retain.h"
#include "persist/snap_writer.h"
#include "server/base/mem.h"
#include "tests/crash/power.h"

#include <errno.h>

enum { COMMANDS = 60, SEGMENT_LEN = 6000 };

/* --- what is promised -------------------------------------------------------------------------------- */

static void promise(uint64_t *to, uint64_t lsn) {
    *to = *to > lsn ? *to : lsn;
}

/* What is in a log that counts stays promised when it isn't kept any more. */
static void note_promises(struct world *w) {
    if (log_is_based(w->data.log)) {
        promise(&w->durable, log_durable(w->data.log).v);
        promise(&w->written, log_written(w->data.log).v);
    }
}

/* --- snapshots and retention ------------------------------------------------------------------------- */

/* While a snapshot's file is written, by the thread that writes it or while that one waits, and while a backup is made: commands go on. */
static void during_snapshot(void *arg, enum sim_call kind, const char *path) {
    struct world *w = arg;
    if (is_stopped(w)) {
        atomic_store(&w->over, true);
    }
    bool copies = kind == SIM_WRITE || kind == SIM_LINK;
    bool meant = strstr(path, "snap-") != NULL || strncmp(path, "backup-", 7) == 0;
    if (copies && meant && !w->in_snapshot && !w->ended) {
        w->in_snapshot = true;
        for (uint64_t i = draw(w, 4); i-- > 0;) {
            power_command(w);
        }
        w->in_snapshot = false;
    }
}

static void tidy(struct world *w) {
    struct retain_opts opts = {.keep_count = 2};
    enum dc_err err = data_tidy(&w->data, &opts, NULL);
    must(err == DC_OK || is_stopped(w), "retention: %s", dc_fail_take(err));
}

static void note_unlogged(struct world *w, uint64_t lsn) {
    enum dc_err err = data_note_unlogged(&w->data, lsn);
    must(err == DC_OK, "metadata: %s", dc_fail_take(err));
}

static void snapshot(struct world *w) {
    struct snap_written written;
    struct snap_write_opts opts = {.io = sim_disk_io(w->disk),
                                   .dir = "data",
                                   .store = w->engine.store,
                                   .log = w->data.log,
                                   .node_id = w->data.plan->node_id,
                                   .seed = w->data.plan->seed,
                                   .block_len = 2048,
                                   .stall_ms = 10000,
                                   .stop = &w->over,
                                   .now_ms = engine_now(&w->engine)};
    enum dc_err err = snap_write(&opts, &written);
    must(err == DC_OK || is_stopped(w) || w->is_faulty, "snapshot: %s", dc_fail_take(err));
    if (err != DC_OK) {
        return;
    }
    promise(&w->durable, written.end_lsn);
    promise(&w->written, written.end_lsn);
    if (log_wants_base(w->data.log)) {
        note_unlogged(w, 0);
        log_base(w->data.log, written.end_lsn, &w->over);
    }
    if (draw(w, 2) == 0) {
        tidy(w);
    }
}

/* Where no log is kept the snapshot is all. */
static void backup(struct world *w) {
    if (w->backup_count == BACKUPS_MAX) {
        return;
    }
    if (!log_is_based(w->data.log)) {
        snapshot(w);
    }
    if (!power_backup(w)) {
        snapshot(w);
        (void)power_backup(w);
    }
}

/* --- 'appendonly' ------------------------------------------------------------------------------------ */

/* CONFIG SET appendonly. */
static void turn_keeping(struct world *w) {
    note_promises(w);
    w->keeps = !w->keeps;
    log_set_keeps(w->data.log, w->keeps);
}

/* What a server's snapshotter does when it looks. */
static void look_at_keeping(struct world *w) {
    bool says_all = log_is_based(w->data.log);
    if (says_all != (w->data.unlogged_lsn == 0)) {
        note_unlogged(w, says_all ? 0 : log_head(w->data.log).v);
    }
    if (log_wants_base(w->data.log)) {
        snapshot(w);
    }
}

/* --- the life ---------------------------------------------------------------------------------------- */

static void wait_durable(struct world *w) {
    struct log *log = w->data.log;
    struct lsn head = log_head(log);
    while (log_durable(log).v < head.v && !is_stopped(w)) {
        (void)log_wait(log, LOG_LEVEL_DISK, head, 2000);
    }
}

static void run_commands(struct world *w) {
    w->is_faulty = draw(w, 3) == 0;
    if (w->is_faulty) {
        sim_disk_fail(w->disk, SIM_SYNC, 1 + draw(w, 12), 1, EIO);
    }
    for (uint32_t i = 0; i < COMMANDS && !is_stopped(w); i++) {
        power_command(w);
        if (draw(w, 4) == 0) {
            wait_durable(w);
        }
        if (draw(w, 25) == 0) {
            snapshot(w);
        }
        if (draw(w, 50) == 0) {
            backup(w);
        }
        if (draw(w, 40) == 0) {
            turn_keeping(w);
        }
        if (draw(w, 6) == 0) {
            look_at_keeping(w);
        }
    }
    sim_disk_fail(w->disk, SIM_SYNC, 0, 0, 0);
}

static enum dc_err begin_log(struct world *w) {
    w->keeps = draw(w, 6) > 0;
    struct log_opts opts = {.keeps = w->keeps,
                            .sync = draw(w, 2) == 0 ? LOG_SYNC_ALWAYS : LOG_SYNC_NO,
                            .segment_len = SEGMENT_LEN,
                            .memory_limit = (uint64_t)1 << 30};
    return data_begin(&w->data, &opts);
}

/* The end, in order if the disk lasts. A server writes a snapshot for a log that has none to go on from, and where none is kept. */
static void end(struct world *w, bool clean) {
    if (clean && !log_is_based(w->data.log) && (w->keeps || draw(w, 2) == 0)) {
        snapshot(w);
    }
    sim_disk_set_hook(w->disk, NULL, NULL);
    log_feed_destroy(w->feed);
    note_promises(w);
    w->ended = clean && !is_stopped(w) && log_is_based(w->data.log);
    w->is_unlogged = w->data.unlogged_lsn > 0;
    uint64_t head = log_head(w->data.log).v;
    data_close(&w->data, clean && !is_stopped(w), is_stopped(w) ? 1 : 1000);
    w->ended = w->ended && !is_stopped(w);
    promise(&w->durable, w->ended ? head : 0);
}

void power_live(struct world *w) {
    enum dc_err err = begin_log(w);
    w->ended = false;
    atomic_store(&w->over, false);
    if (err != DC_OK) {
        must(is_stopped(w), "open: %s", dc_fail_take(err));
        w->is_unlogged = w->data.unlogged_lsn > 0;
        data_close(&w->data, false, 1);
        return;
    }
    w->feed = log_feed_create(w->data.log);
    w->engine.commit = power_commit;
    w->engine.commit_arg = w;
    sim_disk_set_hook(w->disk, during_snapshot, w);
    run_commands(w);
    end(w, draw(w, 3) == 0);
}
