/* SPDX-License-Identifier: BSD-3-Clause */
/*
 *   snapshots, by end:      A ------- B ------- C          C newest, B second
 *   segments:          [s1][s2][s3][s4][s5][s6][s7]...
 *
 * What stays is a suffix of the snapshots, at least B and C, and a suffix of the segments: those that reach beyond the floor, which is the end
 * of the oldest snapshot that stays, or 'needed_lsn' if that is lower. So the whole decision is how many snapshots stay.
 */
#include "persist/retain.h"

#include "server/base/assert.h"
#include "server/base/mem.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The files, by what is to be decided about them. Pointers into the caller's list. */
struct sorted {
    const struct meta_file **snapshots; /* valid ones, oldest first */
    const struct meta_file **segments;  /* of the chain, oldest first */
    const struct meta_file **asides;    /* what goes by age */
    uint32_t snapshot_count;
    uint32_t segment_count;
    uint32_t aside_count;
    uint64_t bytes; /* of all files */
};

static int by_lsn(uint64_t a, uint64_t b, const struct meta_file *x, const struct meta_file *y) {
    if (a != b) {
        return a < b ? -1 : 1;
    }
    if (x->created_ms != y->created_ms) {
        return x->created_ms < y->created_ms ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

static int by_end(const void *a, const void *b) {
    const struct meta_file *x = *(const struct meta_file *const *)a;
    const struct meta_file *y = *(const struct meta_file *const *)b;
    return by_lsn(x->end_lsn, y->end_lsn, x, y);
}

static int by_begin(const void *a, const void *b) {
    const struct meta_file *x = *(const struct meta_file *const *)a;
    const struct meta_file *y = *(const struct meta_file *const *)b;
    return by_lsn(x->first_lsn, y->first_lsn, x, y);
}

static void sort_file(struct sorted *s, const struct meta_file *f) {
    s->bytes += f->bytes;
    switch (f->kind) {
    case FILE_SEGMENT:
        if (f->state == FILE_FOREIGN) {
            s->asides[s->aside_count++] = f;
        } else {
            s->segments[s->segment_count++] = f;
        }
        break;
    case FILE_SNAPSHOT:
        if (f->state == FILE_COMPLETE) {
            s->snapshots[s->snapshot_count++] = f;
        } else if (f->state != FILE_OPEN) {
            s->asides[s->aside_count++] = f;
        }
        break;
    case FILE_SIDE:
        s->asides[s->aside_count++] = f;
        break;
    }
}

static void sorted_init(struct sorted *s, const struct meta_file *files, uint32_t count) {
    size_t size = (count + 1) * sizeof(struct meta_file *);
    *s = (struct sorted){.snapshots = mem_must_alloc(size),
                         .segments = mem_must_alloc(size),
                         .asides = mem_must_alloc(size)};
    for (uint32_t i = 0; i < count; i++) {
        sort_file(s, &files[i]);
    }
    qsort(s->snapshots, s->snapshot_count, sizeof(*s->snapshots), by_end);
    qsort(s->segments, s->segment_count, sizeof(*s->segments), by_begin);
    qsort(s->asides, s->aside_count, sizeof(*s->asides), by_begin);
}

static void sorted_fini(struct sorted *s) {
    mem_free(s->snapshots);
    mem_free(s->segments);
    mem_free(s->asides);
}

/* How many of the oldest snapshots count and age let go. */
static uint32_t snapshots_too_old(const struct sorted *s, const struct retain_opts *o) {
    uint32_t keep = o->keep_count > RETAIN_SNAPSHOTS_MIN ? o->keep_count : RETAIN_SNAPSHOTS_MIN;
    uint32_t drop = 0;
    while (drop + keep < s->snapshot_count) {
        /* The one that follows is the base of a restore to any later moment. */
        if (o->keep_ms > 0 && s->snapshots[drop + 1]->created_ms > o->now_ms - o->keep_ms) {
            break;
        }
        drop++;
    }
    return drop;
}

/* The log below isn't needed by the snapshots that stay; 0 = all of it is. */
static uint64_t floor_without(const struct sorted *s, uint32_t drop) {
    return drop < s->snapshot_count ? s->snapshots[drop]->end_lsn : 0;
}

/* How many of the oldest segments lie below 'lsn' as a whole. The last one has no end. */
static uint32_t segments_below(const struct sorted *s, uint64_t lsn) {
    uint32_t count = 0;
    while (count + 1 < s->segment_count && s->segments[count]->state != FILE_OPEN &&
           s->segments[count + 1]->first_lsn <= lsn) {
        count++;
    }
    return count;
}

static uint64_t min_lsn(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* Whether an abandoned or damaged file may go. */
static bool has_aged(const struct sorted *s, const struct meta_file *f,
                     const struct retain_opts *o) {
    int64_t aside_ms = o->aside_ms > 0 ? o->aside_ms : RETAIN_ASIDE_MS;
    uint32_t newer = 0;
    for (uint32_t i = 0; i < s->snapshot_count; i++) {
        newer += s->snapshots[i]->created_ms > f->created_ms;
    }
    uint32_t wanted = f->kind == FILE_SNAPSHOT && f->state == FILE_BAD ? RETAIN_SNAPSHOTS_MIN : 1;
    return newer >= wanted && f->created_ms < o->now_ms - aside_ms;
}

static void add(struct retain_plan *p, const struct meta_file *f) {
    p->files[p->count++] = *f;
    p->bytes += f->bytes;
}

/* The plan that lets go the oldest 'drop' snapshots. */
static void fill(struct retain_plan *p, const struct sorted *s, uint32_t drop,
                 const struct retain_opts *o) {
    p->count = 0;
    p->bytes = 0;
    p->floor_lsn = floor_without(s, drop);
    for (uint32_t i = 0; i < drop; i++) {
        add(p, s->snapshots[i]);
    }
    for (uint32_t i = 0; i < s->aside_count; i++) {
        if (s->asides[i]->kind == FILE_SNAPSHOT && has_aged(s, s->asides[i], o)) {
            add(p, s->asides[i]);
        }
    }
    p->snapshot_count = p->count;
    uint32_t below = segments_below(s, min_lsn(p->floor_lsn, o->needed_lsn));
    for (uint32_t i = 0; i < below; i++) {
        add(p, s->segments[i]);
    }
    for (uint32_t i = 0; i < s->aside_count; i++) {
        if (s->asides[i]->kind != FILE_SNAPSHOT && has_aged(s, s->asides[i], o)) {
            add(p, s->asides[i]);
        }
    }
    p->bytes_left = s->bytes - p->bytes;
    p->over = o->max_bytes > 0 && p->bytes_left > o->max_bytes;
}

void retain_decide(const struct meta_file *files, uint32_t count, const struct retain_opts *opts,
                   struct retain_plan *out) {
    struct sorted s;
    sorted_init(&s, files, count);
    *out = (struct retain_plan){.files = mem_must_alloc((count + 1) * sizeof(*out->files))};
    uint32_t drop = snapshots_too_old(&s, opts);
    fill(out, &s, drop, opts);
    while (out->over && drop + RETAIN_SNAPSHOTS_MIN < s.snapshot_count) {
        fill(out, &s, ++drop, opts);
    }
    sorted_fini(&s);
}

void retain_plan_fini(struct retain_plan *p) {
    mem_free(p->files);
    *p = (struct retain_plan){.files = NULL};
}

static enum dc_err unlink_file(const struct io *io, const char *dir, const char *name) {
    char path[PATH_MAX];
    int len = snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (len < 0 || (size_t)len >= sizeof(path)) {
        return dc_fail(DC_EIO, "the path of %s is too long", name);
    }
    int rc = io->unlink(io, path);
    return rc == 0 || rc == -ENOENT ? DC_OK
                                    : dc_fail(DC_EIO, "unlink %s: %s", path, dc_errno_text(-rc));
}

static enum dc_err sync_dir(const struct io *io, const char *dir) {
    int rc = io->sync_dir(io, dir);
    return rc == 0 ? DC_OK : dc_fail(DC_EIO, "sync of %s: %s", dir, dc_errno_text(-rc));
}

/* Unlinks [*at, end), durably. */
static enum dc_err unlink_run(const struct io *io, const char *dir, const struct retain_plan *p,
                              uint32_t *at, uint32_t end) {
    if (*at == end) {
        return DC_OK;
    }
    enum dc_err err = DC_OK;
    while (*at < end && err == DC_OK) {
        err = unlink_file(io, dir, p->files[*at].name);
        *at += err == DC_OK;
    }
    enum dc_err synced = sync_dir(io, dir);
    return err != DC_OK ? err : synced;
}

enum dc_err retain_apply(const struct io *io, const char *dir, const struct retain_plan *plan,
                         struct meta *m, uint32_t *removed) {
    uint32_t gone = 0;
    dc_assert(plan->snapshot_count <= plan->count);
    enum dc_err err = unlink_run(io, dir, plan, &gone, plan->snapshot_count);
    if (err == DC_OK && plan->snapshot_count == 0 && plan->count > 0) {
        err = sync_dir(io, dir); /* those of an earlier pass, if that has failed */
    }
    if (err == DC_OK) { /* I2: a snapshot never comes back to a log with a hole */
        err = unlink_run(io, dir, plan, &gone, plan->count);
    }
    if (m != NULL && gone > 0) {
        enum dc_err dropped = meta_drop_files(m, plan->files, gone);
        err = err != DC_OK ? err : dropped;
    }
    if (removed != NULL) {
        *removed = gone;
    }
    return err;
}

void retain_file_of_segment(const struct segment_info *s, struct meta_file *out) {
    *out = (struct meta_file){.kind = FILE_SEGMENT,
                              .state = s->abandoned            ? FILE_FOREIGN
                                       : s->verdict != HEAD_OK ? FILE_BAD
                                                               : FILE_COMPLETE,
                              .first_lsn = s->head.first_lsn,
                              .end_lsn = s->durable_lsn,
                              .durable_lsn = s->durable_lsn,
                              .history = s->head.history.id,
                              .bytes = s->file_len,
                              .created_ms = s->head.created_ms};
    snprintf(out->name, sizeof(out->name), "%s", s->name);
}

void retain_file_of_snapshot(const char *name, const struct snap_facts *f, struct meta_file *out) {
    *out = (struct meta_file){.kind = FILE_SNAPSHOT,
                              .state = FILE_COMPLETE,
                              .first_lsn = f->start_lsn,
                              .end_lsn = f->end_lsn,
                              .durable_lsn = f->end_lsn,
                              .history = f->chain_count > 0 ? f->chain[f->chain_count - 1].id : 0,
                              .count = f->entries,
                              .bytes = f->file_len,
                              .sum = f->sum,
                              .created_ms = f->finished_ms};
    snprintf(out->name, sizeof(out->name), "%s", name);
}
