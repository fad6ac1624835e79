/* SPDX-License-Identifier: BSD-3-Clause */
#include "tools/dcache-restore/repair.h"

#include "server/base/mem.h"
#include "tools/dcache-restore/repair_priv.h"

#include <stdarg.h>
#include <stdio.h>

enum { LINES_MAX = 1000, LINE_LEN = 512 };

void repair_note(struct repair_report *r, const char *fmt, ...) {
    char text[LINE_LEN];
    va_list args;
    r->damages++;
    if (r->count == LINES_MAX) {
        return;
    }
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (r->count == r->cap) {
        r->cap = r->cap == 0 ? 16 : 2 * r->cap;
        r->lines = mem_must_realloc(r->lines, r->cap * sizeof(*r->lines));
    }
    r->lines[r->count++] = mem_must_strdup(text);
}

void repair_report_fini(struct repair_report *r) {
    for (uint32_t i = 0; i < r->count; i++) {
        mem_free(r->lines[i]);
    }
    mem_free(r->lines);
    *r = (struct repair_report){.lines = NULL};
}

/* The longer of what the log and the snapshot know; a target's histories go on behind it. */
static void settle_chain(struct repair *r) {
    struct data_plan *plan = r->source->plan;
    const struct history *chain = r->dir.chain;
    uint32_t count = r->dir.chain_count;
    if (r->base < r->snap_count) {
        const struct snap_facts *f = snap_facts(r->snaps[r->base]);
        if (count == 0 || f->chain[f->chain_count - 1].start > chain[count - 1].start) {
            chain = f->chain;
            count = f->chain_count;
        }
    }
    uint32_t left = count > CHAIN_MAX ? count - CHAIN_MAX : 0;
    /* A history that begins behind what was reached has nothing here. */
    while (count > left && chain[count - 1].start > r->reached) {
        count--;
    }
    plan->chain_count = count - left;
    for (uint32_t i = 0; i < plan->chain_count; i++) {
        plan->chain[i] = chain[left + i];
    }
}

static void settle(struct repair *r) {
    struct source *s = r->source;
    struct data_plan *plan = s->plan;
    settle_chain(r);
    plan->end_lsn = r->reached;
    plan->last_time_ms = r->time_ms;
    plan->frames = r->report->frames;
    if (r->base < r->snap_count) {
        snprintf(plan->snapshot, sizeof(plan->snapshot), "%s", r->names[r->base]);
        plan->snapshot_start = r->base_start;
        plan->snapshot_end = r->base_end;
    }
    *s->all = *plan;
    if (r->log_end > r->reached) {
        s->all->end_lsn = r->log_end;
        s->all->last_time_ms = r->log_time_ms;
    }
    s->end_lsn = r->reached;
    s->image_ms = r->time_ms;
    if (s->backup_lsn > s->all->end_lsn) {
        repair_note(r->report, "the backup promises everything up to LSN %llu",
                    (unsigned long long)s->backup_lsn);
    }
}

enum dc_err repair_load(struct source *s, const struct options *o, struct repair_report *report) {
    struct repair *r = mem_must_zalloc(sizeof(*r));
    r->source = s;
    r->o = o;
    r->report = report;
    *report = (struct repair_report){.lines = NULL};
    enum dc_err err = log_dir_open(&r->dir, &io_posix, s->dir);
    if (err != DC_OK) {
        mem_free(r);
        return err;
    }
    err = repair_find_snapshots(r);
    if (err != DC_OK) {
        goto out;
    }
    repair_choose_base(r);
    if (!r->has_identity) {
        err = dc_fail(DC_EIO, "%s: no snapshot can be opened, and no segment has a good header",
                      s->dir);
        goto out;
    }
    source_store(s, s->plan->seed);
    mut_init(&r->mut, s->store, &s->thread);
    err = repair_load_snapshots(r);
    err = err != DC_OK ? err : repair_load_log(r);
    mut_reset(&r->mut, 0);
    mut_fini(&r->mut);
    if (err == DC_OK) {
        settle(r);
    }
out:
    repair_free_snapshots(r);
    log_dir_close(&r->dir);
    mem_free(r);
    return err;
}
