/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The log is cut at a fork: what this node has behind it was never part of the history that its primary goes on in. Nothing of it is lost to who
 * wants to look: the tail goes to side files, as a torn one does.
 *
 *     snapshots that reach past the fork    cut-<E>-<history>.dcs.bad     newest first
 *     segments that begin at it or behind   cut-<LSN>-<history>.bad       the last one first
 *     the segment that holds it             cut-<LSN>.bad, then it is cut; a copy of it, for a backup may have the file, too
 *
 * Each step leaves a directory in which the fork can still be found, so all of it can be done again. The newest history goes first:
 * no FORK frame ever refers to log that isn't there any more. A start that was killed has done some of it, which is there to be seen and perhaps not
 * on the disk: so the directory is synced first, and the segment also when nothing is left to be cut.
 */
#include "persist/snap_fmt.h"
#include "persist/warm_priv.h"
#include "server/base/assert.h"
#include "server/base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static enum dc_err io_failed(const char *what, const char *path, int err) {
    return dc_fail(DC_EIO, "%s %s: %s", what, path, dc_errno_text(-err));
}

struct aside {
    const struct warm_opts *opts;
    uint64_t lsn;
    char (*snaps)[SEGMENT_NAME_MAX];
    uint32_t count, cap;
};

static void note_snapshot(void *arg, const char *name) {
    struct aside *a = arg;
    uint64_t end_lsn, history;
    if (!snap_name_parse(name, &end_lsn, &history) || end_lsn <= a->lsn) {
        return;
    }
    if (a->count == a->cap) {
        a->cap = a->cap == 0 ? 8 : 2 * a->cap;
        a->snaps = mem_must_realloc(a->snaps, a->cap * sizeof(*a->snaps));
    }
    snprintf(a->snaps[a->count++], SEGMENT_NAME_MAX, "%s", name);
}

static int compare_newest(const void *a, const void *b) {
    return strcmp(b, a); /* the numbers in names have a fixed width */
}

/* To a name that begins like 'stem' and ends in .bad. Durable. */
static enum dc_err put_aside(const struct warm_opts *o, const char *name, const char *stem,
                             struct data_plan *plan) {
    char from[DATA_PATH_MAX], to[DATA_PATH_MAX], target[SEGMENT_NAME_MAX];
    enum dc_err err = data_path(o->dir, name, from);
    err = err != DC_OK ? err : data_side_name(o, stem, target);
    err = err != DC_OK ? err : data_path(o->dir, target, to);
    if (err != DC_OK) {
        return err;
    }
    int failed = o->io->rename(o->io, from, to);
    failed = failed < 0 ? failed : o->io->sync_dir(o->io, o->dir);
    if (failed < 0) {
        return io_failed("rename", from, failed);
    }
    plan_note(plan, "%s lies behind the fork and was set aside as %s.", name, target);
    return DC_OK;
}

static enum dc_err put_snapshots_aside(const struct warm_opts *o, uint64_t lsn,
                                       struct data_plan *plan) {
    struct aside a = {.opts = o, .lsn = lsn};
    int failed = o->io->list(o->io, o->dir, note_snapshot, &a);
    enum dc_err err = failed < 0 ? io_failed("list", o->dir, failed) : DC_OK;
    if (a.count > 0) {
        qsort(a.snaps, a.count, sizeof(*a.snaps), compare_newest);
    }
    for (uint32_t i = 0; i < a.count && err == DC_OK; i++) {
        char stem[SEGMENT_NAME_MAX];
        uint64_t end_lsn = 0, history = 0;
        (void)snap_name_parse(a.snaps[i], &end_lsn, &history);
        snprintf(stem, sizeof(stem), "cut-%016" PRIx64 "-%016" PRIx64 ".dcs", end_lsn, history);
        err = put_aside(o, a.snaps[i], stem, plan);
    }
    mem_free(a.snaps);
    return err;
}

/* Abandoned ones too: with the newest history gone they could be taken for what goes on. */
static enum dc_err put_segments_aside(const struct warm_opts *o, uint64_t lsn,
                                      struct data_plan *plan) {
    struct log_dir dir;
    enum dc_err err = log_dir_open(&dir, o->io, o->dir);
    for (uint32_t i = dir.count; err == DC_OK && i-- > 0;) {
        const struct segment_info *s = &dir.segments[i];
        char stem[SEGMENT_NAME_MAX];
        if (s->head.first_lsn >= lsn) {
            snprintf(stem, sizeof(stem), "cut-%016" PRIx64 "-%016" PRIx64, s->head.first_lsn,
                     s->head.history.id);
            plan->cut_bytes += s->file_len;
            err = put_aside(o, s->name, stem, plan);
        }
    }
    log_dir_close(&dir);
    return err;
}

/* A file of the same bytes takes the segment's name, durably: what is done to it changes no backup. */
static enum dc_err replace_segment(const struct warm_opts *o, const struct segment_info *s,
                                   struct io_file *segment, uint64_t len, const char *path,
                                   uint64_t lsn) {
    char copy[DATA_PATH_MAX];
    struct io_file file;
    enum dc_err err = data_path(o->dir, "rewind.tmp", copy);
    err = err != DC_OK ? err : data_copy(o->io, segment, 0, len, copy);
    if (err != DC_OK) {
        return err;
    }
    int failed = o->io->open(o->io, copy, IO_WRITE, &file);
    if (failed == 0) {
        if (s->durable_lsn > lsn) { /* what is promised to be there may not reach past the fork */
            struct segment_mark mark = {.durable_lsn = lsn, .time_ms = s->mark_ms};
            failed = segment_mark_put(o->io, &file, s->head.first_lsn, &mark);
        }
        failed = failed < 0 ? failed : o->io->sync(o->io, &file);
        o->io->close(o->io, &file);
    }
    failed = failed < 0 ? failed : o->io->rename(o->io, copy, path);
    failed = failed < 0 ? failed : o->io->sync_dir(o->io, o->dir);
    return failed < 0 ? io_failed("cut", path, failed) : DC_OK;
}

static enum dc_err cut_segment(const struct warm_opts *o, const struct log_dir *dir, uint32_t index,
                               uint64_t lsn, struct data_plan *plan) {
    const struct segment_info *s = &dir->segments[index];
    struct log_end_info end = {.segment = index, .lsn = lsn, .at_lsn = lsn};
    char path[DATA_PATH_MAX];
    struct io_file file;
    end.file_offset = SEGMENT_HEADER_LEN + (lsn - s->head.first_lsn);
    snprintf(end.text, sizeof(end.text), "behind the fork");
    enum dc_err err = data_path(o->dir, s->name, path);
    int failed = err == DC_OK ? o->io->open(o->io, path, IO_WRITE, &file) : 0;
    if (err != DC_OK || failed < 0) {
        return err != DC_OK ? err : io_failed("open", path, failed);
    }
    int64_t junk = io_junk_len(o->io, &file, end.file_offset, s->file_len);
    if (junk < 0) {
        err = io_failed("read", path, (int)junk);
    } else if (junk > 0 || s->durable_lsn > lsn) {
        err = replace_segment(o, s, &file, end.file_offset + (uint64_t)junk, path, lsn);
    } else {
        failed = o->io->sync(o->io, &file);
        err = failed < 0 ? io_failed("sync", path, failed) : DC_OK;
    }
    o->io->close(o->io, &file);
    end.junk_len = (uint64_t)junk;
    return err != DC_OK || junk == 0 ? err : data_cut(o, dir, &end, plan);
}

/* The last segment of the log that is left, if there is one, holds the fork. */
static enum dc_err cut_log(const struct warm_opts *o, uint64_t lsn, struct data_plan *plan) {
    struct log_dir dir;
    enum dc_err err = log_dir_open(&dir, o->io, o->dir);
    for (uint32_t i = dir.count; err == DC_OK && i-- > 0;) {
        const struct segment_info *s = &dir.segments[i];
        if (!s->abandoned && s->verdict == HEAD_OK && s->link + 1 == dir.chain_count) {
            dc_assert(s->head.first_lsn < lsn);
            err = cut_segment(o, &dir, i, lsn, plan);
            break;
        }
    }
    log_dir_close(&dir);
    return err;
}

enum dc_err data_rewind(const struct warm_opts *opts, uint64_t lsn, struct data_plan *plan) {
    uint64_t bytes = 0;
    dc_assert(!opts->read_only && lsn > 0);
    int failed = opts->io->sync_dir(opts->io, opts->dir);
    enum dc_err err = failed < 0 ? io_failed("sync", opts->dir, failed) : DC_OK;
    err = err != DC_OK ? err : put_snapshots_aside(opts, lsn, plan);
    err = err != DC_OK ? err : put_segments_aside(opts, lsn, plan);
    bytes = plan->cut_bytes; /* data_cut() counts its own */
    plan->cut_bytes = 0;
    err = err != DC_OK ? err : cut_log(opts, lsn, plan);
    plan->cut_bytes += bytes;
    return err;
}
