/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a power cut leaves behind the last good frame: half of a frame, zeros with frames behind them, old bytes. None of it was promised to
 * anybody as durable. It is copied to cut-<LSN>.bad first, and then taken out of the log, so that the next start finds a clean end.
 *
 * Order, so that a crash in between leaves the same state or the next one: side file (complete, durable, renamed), then later segments
 * (renamed, the last one first), then the segment itself (cut, synced).
 */
#include "persist/warm_priv.h"
#include "server/base/assert.h"
#include "server/base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { COPY_LEN = 1024 * 1024 };

static enum dc_err io_failed(const char *what, const char *path, int err) {
    return dc_fail(DC_EIO, "%s %s: %s", what, path, dc_errno_text(-err));
}

enum dc_err data_copy(const struct io *io, struct io_file *from, uint64_t at, uint64_t len,
                      const char *path) {
    struct io_file to;
    char *buffer = mem_must_alloc(COPY_LEN);
    (void)io->unlink(io, path);
    int err = io->open(io, path, IO_CREATE, &to);
    if (err < 0) {
        mem_free(buffer);
        return io_failed("create", path, err);
    }
    for (uint64_t done = 0; done < len && err >= 0;) {
        size_t want = len - done < COPY_LEN ? (size_t)(len - done) : COPY_LEN;
        ssize_t got = io->read_at(io, from, buffer, want, at + done);
        if (got <= 0) {
            err = (int)got;
            break;
        }
        struct iovec iov = {buffer, (size_t)got};
        ssize_t put = io->write_at(io, &to, &iov, 1, done);
        err = put < 0 ? (int)put : 0;
        done += (uint64_t)got;
    }
    err = err < 0 ? err : io->sync(io, &to);
    io->close(io, &to);
    mem_free(buffer);
    return err < 0 ? io_failed("write", path, err) : DC_OK;
}

static enum dc_err rename_in(const struct warm_opts *o, const char *from, const char *to) {
    char from_path[DATA_PATH_MAX], to_path[DATA_PATH_MAX];
    enum dc_err err = data_path(o->dir, from, from_path);
    err = err != DC_OK ? err : data_path(o->dir, to, to_path);
    if (err != DC_OK) {
        return err;
    }
    int failed = o->io->rename(o->io, from_path, to_path);
    return failed < 0 ? io_failed("rename", from_path, failed) : DC_OK;
}

static enum dc_err sync_dir(const struct warm_opts *o) {
    int err = o->io->sync_dir(o->io, o->dir);
    return err < 0 ? io_failed("sync", o->dir, err) : DC_OK;
}

/* --- names of side files ------------------------------------------------------------------------------- */

static void nth_name(const char *stem, uint32_t n, char name[SEGMENT_NAME_MAX]) {
    snprintf(name, SEGMENT_NAME_MAX, n == 0 ? "%.41s.bad" : "%.41s-%" PRIu32 ".bad", stem, n);
}

/* 0 or -errno. */
static int open_named(const struct warm_opts *o, const char *name, struct io_file *file) {
    char path[DATA_PATH_MAX];
    return data_path(o->dir, name, path) == DC_OK ? o->io->open(o->io, path, IO_READ, file)
                                                  : -ENAMETOOLONG;
}

/* 1, 0 or -errno. */
static int is_there(const struct warm_opts *o, const char *name) {
    struct io_file file;
    int err = open_named(o, name, &file);
    if (err >= 0) {
        o->io->close(o->io, &file);
        return 1;
    }
    return err == -ENOENT ? 0 : err;
}

enum dc_err data_side_name(const struct warm_opts *opts, const char *stem,
                           char name[SEGMENT_NAME_MAX]) {
    int taken = 1;
    for (uint32_t i = 0; taken > 0; i++) {
        nth_name(stem, i, name);
        taken = is_there(opts, name);
    }
    return taken == 0 ? DC_OK : io_failed("open", name, taken);
}

/* --- the cut ------------------------------------------------------------------------------------------- */

/* Whether both have the same bytes: 'len' from the beginning of one, from 'at' of the other. 1, 0 or -errno. */
static int compare(const struct io *io, struct io_file *file, struct io_file *segment, uint64_t at,
                   uint64_t len) {
    char *a = mem_must_alloc(COPY_LEN), *b = mem_must_alloc(COPY_LEN);
    int same = 1;
    for (uint64_t done = 0; done < len && same == 1;) {
        size_t want = len - done < COPY_LEN ? (size_t)(len - done) : COPY_LEN;
        ssize_t got = io->read_at(io, file, a, want, done);
        ssize_t had = io->read_at(io, segment, b, want, at + done);
        same = got < 0   ? (int)got
               : had < 0 ? (int)had
                         : got == had && got > 0 && memcmp(a, b, (size_t)got) == 0;
        done += got > 0 ? (uint64_t)got : 0;
    }
    mem_free(a);
    mem_free(b);
    return same;
}

/* Whether the file has these bytes of the segment, and no others. 1, 0 or -errno. */
static int holds(const struct warm_opts *o, const char *name, struct io_file *segment, uint64_t at,
                 uint64_t len) {
    struct io_file file;
    int err = open_named(o, name, &file);
    if (err < 0) {
        return err;
    }
    int64_t size = o->io->size(o->io, &file);
    int same = size < 0 ? (int)size : (uint64_t)size == len;
    if (same == 1) {
        same = compare(o->io, &file, segment, at, len);
    }
    o->io->close(o->io, &file);
    return same;
}

/* The junk in the segment itself. A cut that was cut off finds its side file again; another one at the same place has its own. */
static enum dc_err save_junk(const struct warm_opts *o, struct io_file *segment,
                             const struct log_end_info *end, struct data_plan *plan) {
    char stem[SEGMENT_NAME_MAX], name[SEGMENT_NAME_MAX], temporary[SEGMENT_NAME_MAX],
        path[DATA_PATH_MAX];
    snprintf(stem, sizeof(stem), "cut-%016" PRIx64, end->lsn);
    snprintf(temporary, sizeof(temporary), "cut-%016" PRIx64 ".tmp", end->lsn);
    int same = 0;
    for (uint32_t i = 0; same == 0; i++) {
        nth_name(stem, i, name);
        same = holds(o, name, segment, end->file_offset, end->junk_len);
    }
    snprintf(plan->cut_file, sizeof(plan->cut_file), "%s", name);
    if (same != -ENOENT) { /* that start may have been killed before its name was on the disk */
        return same == 1 ? sync_dir(o) : io_failed("read", name, same);
    }
    enum dc_err err = data_path(o->dir, temporary, path);
    err = err != DC_OK ? err : data_copy(o->io, segment, end->file_offset, end->junk_len, path);
    err = err != DC_OK ? err : rename_in(o, temporary, name);
    return err != DC_OK ? err : sync_dir(o);
}

/* Segments behind a hole: nothing in them was promised either. */
static enum dc_err set_aside_later(const struct warm_opts *o, const struct log_dir *dir,
                                   const struct log_end_info *end, struct data_plan *plan) {
    uint32_t first = end->segment == LOG_NO_SEGMENT ? 0 : end->segment + 1;
    enum dc_err err = DC_OK;
    for (uint32_t i = dir->count; i-- > first && err == DC_OK;) {
        const struct segment_info *seg = &dir->segments[i];
        char stem[SEGMENT_NAME_MAX], name[SEGMENT_NAME_MAX];
        if (seg->head.first_lsn < end->lsn || seg->abandoned) {
            continue;
        }
        snprintf(stem, sizeof(stem), "cut-%016" PRIx64 "-%016" PRIx64, seg->head.first_lsn,
                 seg->head.history.id);
        nth_name(stem, 0, name);
        plan->cut_bytes += seg->file_len;
        if (!o->read_only) {
            err = data_side_name(o, stem, name);
            err = err != DC_OK ? err : rename_in(o, seg->name, name);
            err = err != DC_OK ? err : sync_dir(o);
        }
        plan_note(plan, "The segment %s lies behind the cut and was set aside as %s.", seg->name,
                  name);
    }
    return err;
}

enum dc_err data_cut(const struct warm_opts *opts, const struct log_dir *dir,
                     const struct log_end_info *end, struct data_plan *plan) {
    char path[DATA_PATH_MAX];
    struct io_file file;
    if (end->segment == LOG_NO_SEGMENT) { /* a snapshot holds all that is good */
        plan_note(plan, "The log ends at LSN %" PRIu64 ": %s.", end->lsn, end->text);
        return set_aside_later(opts, dir, end, plan);
    }
    const struct segment_info *seg = &dir->segments[end->segment];
    plan->cut_bytes = end->junk_len;
    plan_note(plan, "%s: cut at offset %" PRIu64 " (LSN %" PRIu64 "), %" PRIu64 " bytes: %s.",
              seg->name, end->file_offset, end->lsn, end->junk_len, end->text);
    if (opts->read_only) {
        return set_aside_later(opts, dir, end, plan);
    }
    enum dc_err err = data_path(opts->dir, seg->name, path);
    if (err != DC_OK) {
        return err;
    }
    int failed = opts->io->open(opts->io, path, IO_WRITE, &file);
    if (failed < 0) {
        return io_failed("open", path, failed);
    }
    if (end->junk_len > 0) {
        err = save_junk(opts, &file, end, plan);
    }
    err = err != DC_OK ? err : set_aside_later(opts, dir, end, plan);
    if (err == DC_OK) {
        failed = opts->io->truncate(opts->io, &file, end->file_offset);
        failed = failed < 0 ? failed : opts->io->sync(opts->io, &file);
        err = failed < 0 ? io_failed("cut", path, failed) : DC_OK;
    }
    opts->io->close(opts->io, &file);
    return err;
}

/* --- what was found ----------------------------------------------------------------------------------- */

/* Writes what stands there again, so that it is the kernel's to keep, even if an fdatasync has failed before the kill. */
static int write_again(const struct io *io, struct io_file *f, uint64_t from, uint64_t to) {
    char *buffer = mem_must_alloc(COPY_LEN);
    int err = 0;
    while (from < to && err == 0) {
        size_t want = to - from < COPY_LEN ? (size_t)(to - from) : COPY_LEN;
        ssize_t got = io->read_at(io, f, buffer, want, from);
        struct iovec iov = {buffer, got > 0 ? (size_t)got : 0};
        ssize_t put = got > 0 ? io->write_at(io, f, &iov, 1, from) : got;
        err = put < 0 ? (int)put : 0;
        from = put > 0 ? from + (uint64_t)put : to;
    }
    mem_free(buffer);
    return err;
}

/* From 'from' to 'to'; the segment's own part of the log ends at 'end'. */
static enum dc_err settle_segment(const struct warm_opts *o, const struct segment_info *s,
                                  uint64_t from, uint64_t to, uint64_t end) {
    char path[DATA_PATH_MAX];
    struct io_file file;
    enum dc_err err = data_path(o->dir, s->name, path);
    if (err != DC_OK) {
        return err;
    }
    int failed = o->io->open(o->io, path, IO_WRITE, &file);
    if (failed == -ENOENT) {
        return DC_OK; /* set aside */
    }
    if (failed < 0) {
        return io_failed("open", path, failed);
    }
    /* A file that was finished is left alone: a backup may have it, too. */
    int64_t junk = io_junk_len(o->io, &file, from, to);
    if (junk <= 0) {
        o->io->close(o->io, &file);
        return junk < 0 ? io_failed("read", path, (int)junk) : DC_OK;
    }
    /* Its length may be as little on the disk as its bytes: one that stays the same would change nothing. */
    failed = o->io->truncate(o->io, &file, to + 1);
    failed = failed < 0 ? failed : write_again(o->io, &file, from, to);
    failed = failed < 0 ? failed : o->io->truncate(o->io, &file, to);
    failed = failed < 0 ? failed : o->io->sync(o->io, &file);
    if (failed >= 0 && end > s->durable_lsn) {
        /* So neither the next start nor a backup has to do it once more. */
        struct segment_mark mark = {.durable_lsn = end, .time_ms = s->mark_ms};
        failed = segment_mark_put(o->io, &file, s->head.first_lsn, &mark);
    }
    o->io->close(o->io, &file);
    return failed < 0 ? io_failed("sync", path, failed) : DC_OK;
}

enum dc_err data_make_durable(const struct warm_opts *opts, const struct log_dir *dir,
                              uint64_t end_lsn) {
    enum dc_err err = DC_OK;
    for (uint32_t i = 0; i < dir->count && err == DC_OK; i++) {
        const struct segment_info *seg = &dir->segments[i];
        if (!segment_counts(seg)) {
            continue;
        }
        uint64_t first = seg->head.first_lsn;
        uint64_t end = log_dir_link_end(dir, seg->link);
        end = end < end_lsn ? end : end_lsn;
        uint64_t to = SEGMENT_HEADER_LEN + (end > first ? end - first : 0);
        to = to < seg->file_len ? to : seg->file_len; /* behind it is room */
        uint64_t from =
            seg->durable_lsn > first ? SEGMENT_HEADER_LEN + (seg->durable_lsn - first) : 0;
        if (from < to) {
            uint64_t own = log_dir_segment_end(dir, i);
            err = settle_segment(opts, seg, from, to, own < end ? own : end);
        }
    }
    return err != DC_OK ? err : sync_dir(opts);
}

/* --- leftovers --------------------------------------------------------------------------------------- */

struct leftovers {
    const struct warm_opts *opts;
    uint32_t segments;
    char (*names)[SEGMENT_NAME_MAX];
    uint32_t count, cap;
};

static void note_leftover(void *arg, const char *name) {
    struct leftovers *l = arg;
    size_t len = strlen(name);
    if (len < 4 || len >= SEGMENT_NAME_MAX || strcmp(name + len - 4, ".tmp") != 0) {
        return;
    }
    if (l->count == l->cap) {
        l->cap = l->cap == 0 ? 8 : l->cap * 2;
        l->names = mem_must_realloc(l->names, l->cap * sizeof(*l->names));
    }
    uint64_t lsn, history;
    l->segments += segment_tmp_name_parse(name, &lsn, &history, NULL);
    memcpy(l->names[l->count++], name, len + 1);
}

enum dc_err data_remove_leftovers(const struct warm_opts *opts, struct data_plan *plan) {
    struct leftovers l = {.opts = opts};
    const struct io *io = opts->io;
    int failed = io->list(io, opts->dir, note_leftover, &l);
    enum dc_err err = failed < 0 ? io_failed("list", opts->dir, failed) : DC_OK;
    for (uint32_t i = 0; i < l.count && err == DC_OK; i++) {
        char path[DATA_PATH_MAX];
        err = data_path(opts->dir, l.names[i], path);
        failed = err == DC_OK ? io->unlink(io, path) : 0;
        /* A directory isn't of the node. */
        err = failed < 0 && failed != -EISDIR ? io_failed("remove", path, failed) : err;
    }
    mem_free(l.names);
    if (l.segments > 0) {
        plan->unkept = true;
        plan_note(plan,
                  "%" PRIu32 " log files without a snapshot to go on from were removed: the node "
                  "ended while it wrote one, and the log wasn't kept before.",
                  l.segments);
    }
    return err;
}
