/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Snapshots and segments that were finished never change, so a second name is as good as a copy, and costs nothing. The segment that is being
 * written is copied up to D, the durable LSN; D stands in the copy's mark, too. One that was never finished (an fdatasync of it failed, or the
 * power was cut) is copied up to where the log goes on elsewhere: what stands behind that may be gone after a power cut, and a start may
 * cut it.
 *
 *     log    [ finished ][ left .... | ][ finished ][ being written ....D....   ]
 *               link       copy up to |     link      copy up to D
 */
#include "persist/backup.h"

#include "persist/log_reader.h"
#include "persist/snap_reader.h"
#include "server/base/assert.h"
#include "server/base/buf.h"
#include "server/base/crypto.h"
#include "server/base/mem.h"
#include "server/base/sum.h"
#include "server/base/time.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>

enum { COPY_LEN = 1 << 20, WAIT_STEP_US = 50000 };

struct backup {
    const struct backup_opts *opts;
    struct backup_written *out;
    struct new_dir dir;
    uint64_t snap_start; /* S */
    struct buf manifest; /* the list of files */
};

static enum dc_err failed(const char *what, const char *path, int err) {
    return dc_fail(DC_EIO, "backup: %s %s: %s", what, path, dc_errno_text(err));
}

static enum dc_err join(const char *dir, const char *name, char to[PATH_MAX]) {
    int len = snprintf(to, PATH_MAX, "%s/%s", dir, name);
    return len > 0 && len < PATH_MAX ? DC_OK
                                     : dc_fail(DC_EIO, "backup: the path of %s is too long", name);
}

static enum dc_err stopped(void) {
    return dc_fail(DC_ESTOPPED, "backup: stopped");
}

static bool is_stopped(const struct backup *b) {
    const _Atomic bool *stop = b->opts->stop;
    return stop != NULL && atomic_load_explicit(stop, memory_order_relaxed);
}

/* --- files ------------------------------------------------------------------------------------------- */

static enum dc_err open_in(const struct backup *b, const char *dir, const char *name,
                           enum io_mode mode, char path[PATH_MAX], struct io_file *f) {
    enum dc_err err = join(dir, name, path);
    int rc = err == DC_OK ? b->opts->io->open(b->opts->io, path, mode, f) : 0;
    return rc < 0 ? failed("open", path, -rc) : err;
}

/* Copies 'len' bytes of an open file behind what 'head' (the first 'head_len') replaces. */
static int copy_bytes(const struct backup *b, struct io_file *from, struct io_file *to,
                      const char *head, uint64_t head_len, uint64_t len) {
    const struct io *io = b->opts->io;
    struct iovec first = {(void *)(uintptr_t)head, (size_t)head_len};
    char *buffer = mem_must_alloc(COPY_LEN);
    ssize_t rc = head_len > 0 ? io->write_at(io, to, &first, 1, 0) : 0;
    for (uint64_t at = head_len; at < len && rc >= 0;) {
        size_t want = len - at < COPY_LEN ? (size_t)(len - at) : COPY_LEN;
        ssize_t got = io->read_at(io, from, buffer, want, at);
        struct iovec iov = {buffer, got > 0 ? (size_t)got : 0};
        rc = got < 0 ? got : got == 0 ? -ENODATA : io->write_at(io, to, &iov, 1, at);
        at += iov.iov_len;
        rc = rc >= 0 && is_stopped(b) ? -ECANCELED : rc;
    }
    mem_free(buffer);
    return rc < 0 ? (int)rc : 0;
}

static enum dc_err copy_file(const struct backup *b, const char *name, const char *head,
                             uint64_t head_len, uint64_t len) {
    const struct io *io = b->opts->io;
    char from_path[PATH_MAX], to_path[PATH_MAX];
    struct io_file from, to;
    enum dc_err err = join(b->opts->dir, name, from_path);
    err = err != DC_OK ? err : join(b->dir.work, name, to_path);
    if (err != DC_OK) {
        return err;
    }
    int rc = io->open(io, from_path, IO_READ, &from);
    if (rc < 0) {
        return failed("open", from_path, -rc);
    }
    rc = io->open(io, to_path, IO_CREATE, &to);
    if (rc >= 0) {
        rc = copy_bytes(b, &from, &to, head, head_len, len);
        io->close(io, &to);
    }
    io->close(io, &from);
    if (rc == -ECANCELED) {
        return stopped();
    }
    return rc < 0 ? failed("copy to", to_path, -rc) : DC_OK;
}

/* Notes a file of the backup, durably there; its content is what counts from 'sum_from' on. */
static enum dc_err note_file(struct backup *b, const char *name, uint64_t sum_from) {
    const struct io *io = b->opts->io;
    char path[PATH_MAX];
    struct io_file f;
    enum dc_err err = open_in(b, b->dir.work, name, IO_READ, path, &f);
    if (err != DC_OK) {
        return err;
    }
    int rc = io->sync(io, &f);
    int64_t len = io->size(io, &f);
    const char *map = rc == 0 && len > 0 ? io->map(io, &f, (uint64_t)len) : NULL;
    io->close(io, &f);
    if (rc < 0 || map == NULL) {
        return rc < 0 ? failed("sync of", path, -rc)
                      : dc_fail(DC_EIO, "backup: %s can't be read", path);
    }
    uint64_t from = sum_from < (uint64_t)len ? sum_from : (uint64_t)len;
    uint64_t sum = 0;
    bool whole = sum64_long(map + from, (size_t)((uint64_t)len - from), 0, b->opts->stop, &sum);
    bool lost = io->lost(io, map, (uint64_t)len);
    io->unmap(io, map, (uint64_t)len);
    if (!whole || lost) {
        return !whole ? stopped() : dc_fail(DC_EIO, "backup: a part of %s can't be read", path);
    }
    buf_printf(&b->manifest,
               "%s    {\"name\": \"%s\", \"bytes\": %" PRId64 ", \"sum_from\": %" PRIu64
               ", \"sum\": \"%016" PRIx64 "\"}",
               b->out->files > 0 ? ",\n" : "", name, len, from, sum);
    b->out->files++;
    b->out->bytes += (uint64_t)len;
    return DC_OK;
}

/* A second name for a file that doesn't change any more; a copy where that can't be had. */
static enum dc_err link_file(struct backup *b, const char *name, uint64_t len) {
    char from[PATH_MAX], to[PATH_MAX];
    enum dc_err err = join(b->opts->dir, name, from);
    err = err != DC_OK ? err : join(b->dir.work, name, to);
    if (err != DC_OK) {
        return err;
    }
    int rc = b->opts->io->link(b->opts->io, from, to);
    if (rc == 0) {
        b->out->linked++;
    } else if (rc == -ENOSPC || rc == -ENOENT || rc == -EROFS) {
        return failed("link", to, -rc);
    } else {
        err = copy_file(b, name, NULL, 0, len); /* another file system, or one without links */
    }
    return err;
}

/* --- the snapshot ------------------------------------------------------------------------------------ */

struct newest {
    const struct backup_opts *opts;
    char name[SNAP_NAME_MAX];
    uint64_t start_lsn, end_lsn, len;
};

/* The snapshot's end lies on the way to where the node is now. */
static bool is_of_chain(const struct backup_opts *o, const struct snap_facts *f) {
    uint64_t id = f->chain[f->chain_count - 1].id;
    for (uint32_t i = 0; i < o->chain_count; i++) {
        if (o->chain[i].id == id) {
            return i + 1 == o->chain_count || f->end_lsn <= o->chain[i + 1].parent_end;
        }
    }
    return false;
}

static void look_at(void *arg, const char *name) {
    struct newest *n = arg;
    char path[PATH_MAX];
    struct snap *snap;
    uint64_t end_lsn, history;
    if (!snap_name_parse(name, &end_lsn, &history) || (n->end_lsn > 0 && end_lsn < n->end_lsn) ||
        join(n->opts->dir, name, path) != DC_OK) {
        return;
    }
    enum dc_err err = snap_open(n->opts->io, path, &snap);
    if (err != DC_OK) {
        (void)dc_fail_take(err); /* an older one may do */
        return;
    }
    const struct snap_facts *f = snap_facts(snap);
    if (memcmp(f->node_id, n->opts->node_id, NODE_ID_LEN) == 0 && is_of_chain(n->opts, f)) {
        snprintf(n->name, sizeof(n->name), "%s", name);
        n->start_lsn = f->start_lsn;
        n->end_lsn = f->end_lsn;
        n->len = f->file_len;
    }
    snap_close(snap);
}

static bool find_newest(const struct backup_opts *o, struct newest *out) {
    *out = (struct newest){.opts = o};
    return o->io->list(o->io, o->dir, look_at, out) >= 0 && out->name[0] != '\0';
}

bool backup_has_snapshot(const struct backup_opts *opts) {
    struct newest n;
    return find_newest(opts, &n);
}

static enum dc_err take_snapshot(struct backup *b) {
    struct newest n;
    if (!find_newest(b->opts, &n)) {
        return dc_fail(DC_EIO, "backup: %s has no whole snapshot", b->opts->dir);
    }
    snprintf(b->out->snapshot, sizeof(b->out->snapshot), "%s", n.name);
    b->snap_start = n.start_lsn;
    b->out->lsn = n.end_lsn;
    enum dc_err err = link_file(b, n.name, n.len);
    return err != DC_OK ? err : note_file(b, n.name, 0);
}

/* --- the log ----------------------------------------------------------------------------------------- */

/* Everything that is in the log now becomes durable; the LSN up to which it is. */
static enum dc_err wait_durable(const struct backup *b, uint64_t *durable) {
    struct log *l = b->opts->log;
    struct lsn head = log_head(l);
    log_hurry(l);
    while (!log_wait(l, LOG_LEVEL_DISK, head, WAIT_STEP_US)) {
        if (is_stopped(b)) {
            return stopped();
        }
        if (log_state(l) != LOG_WELL) {
            char why[256];
            log_trouble(l, why, sizeof(why));
            return dc_fail(DC_EIO, "backup: the log can't be written: %s", why);
        }
        log_hurry(l);
    }
    *durable = log_durable(l).v;
    return DC_OK;
}

/* Where the last byte of the segment's file is, as an LSN. */
static uint64_t reach(const struct segment_info *s) {
    uint64_t room = s->file_len > SEGMENT_HEADER_LEN ? s->file_len - SEGMENT_HEADER_LEN : 0;
    return s->head.first_lsn + room;
}

/* The bytes up to 'end'; 'durable': with a mark that says so. */
static enum dc_err copy_segment(struct backup *b, const struct segment_info *s, uint64_t end,
                                bool durable) {
    const struct io *io = b->opts->io;
    char path[PATH_MAX], page[SEGMENT_HEADER_LEN];
    struct io_file f;
    enum dc_err err = open_in(b, b->opts->dir, s->name, IO_READ, path, &f);
    if (err != DC_OK) {
        return err;
    }
    ssize_t got = io->read_at(io, &f, page, sizeof(page), 0);
    io->close(io, &f);
    if (got != (ssize_t)sizeof(page) || reach(s) < end) {
        return failed("read", path, got < 0 ? (int)-got : ENODATA);
    }
    if (durable) {
        struct segment_mark mark = {end, s->mark_ms};
        segment_mark_encode(s->head.first_lsn, &mark, (uint8_t *)page + SEGMENT_MARK_AT);
    }
    err = copy_file(b, s->name, page, sizeof(page), SEGMENT_HEADER_LEN + (end - s->head.first_lsn));
    return err != DC_OK ? err : note_file(b, s->name, SEGMENT_HEADER_LEN);
}

/* All of it was synced, and nothing else stands in it. */
static bool is_finished(const struct backup *b, const struct segment_info *s, uint64_t end) {
    const struct io *io = b->opts->io;
    char path[PATH_MAX];
    struct io_file f;
    if (s->durable_lsn < end || join(b->opts->dir, s->name, path) != DC_OK ||
        io->open(io, path, IO_READ, &f) < 0) {
        return false;
    }
    uint64_t at = SEGMENT_HEADER_LEN + (end - s->head.first_lsn);
    bool finished = io_junk_len(io, &f, at, s->file_len) == 0;
    io->close(io, &f);
    return finished;
}

/* Writes the mark of a segment that was linked once more. Reads show it although a later fdatasync may have failed, and that one's pages never
 * reach the disk: behind a power cut a start would find the older mark, and write the rest of the file again, and the backup's with it. */
static enum dc_err repeat_mark(const struct backup *b, const struct segment_info *s) {
    const struct io *io = b->opts->io;
    struct segment_mark mark = {.durable_lsn = s->durable_lsn, .time_ms = s->mark_ms};
    char path[PATH_MAX];
    struct io_file f;
    enum dc_err err = open_in(b, b->dir.work, s->name, IO_WRITE, path, &f);
    if (err != DC_OK) {
        return err;
    }
    int rc = segment_mark_put(io, &f, s->head.first_lsn, &mark);
    io->close(io, &f);
    return rc < 0 ? failed("write", path, -rc) : DC_OK;
}

static enum dc_err link_segment(struct backup *b, const struct segment_info *s) {
    enum dc_err err = link_file(b, s->name, s->file_len);
    err = err != DC_OK ? err : repeat_mark(b, s);
    return err != DC_OK ? err : note_file(b, s->name, SEGMENT_HEADER_LEN);
}

static enum dc_err take_segment(struct backup *b, const struct log_dir *d, uint32_t index) {
    const struct segment_info *s = &d->segments[index];
    uint64_t end = log_dir_segment_end(d, index);
    if (end <= b->snap_start) {
        return DC_OK;
    }
    return is_finished(b, s, end) ? link_segment(b, s) : copy_segment(b, s, end, false);
}

static enum dc_err take_segments(struct backup *b, const struct log_dir *d, uint64_t durable) {
    enum dc_err err = DC_OK;
    uint32_t last = LOG_NO_SEGMENT; /* the one in which the log ends */
    for (uint32_t i = 0; i < d->count; i++) {
        const struct segment_info *s = &d->segments[i];
        last = segment_counts(s) && s->head.first_lsn <= durable ? i : last;
    }
    for (uint32_t i = 0; last != LOG_NO_SEGMENT && i < last && err == DC_OK; i++) {
        if (is_stopped(b)) {
            return stopped();
        }
        err = segment_counts(&d->segments[i]) ? take_segment(b, d, i) : DC_OK;
    }
    bool wanted = last != LOG_NO_SEGMENT && reach(&d->segments[last]) > b->snap_start;
    return err == DC_OK && wanted ? copy_segment(b, &d->segments[last], durable, true) : err;
}

static enum dc_err take_log(struct backup *b) {
    struct log_dir d;
    uint64_t durable = 0;
    enum dc_err err = wait_durable(b, &durable);
    err = err != DC_OK ? err : log_dir_open(&d, b->opts->io, b->opts->dir);
    if (err != DC_OK) {
        return err;
    }
    dc_assert(durable >=
              b->out->lsn); /* a snapshot is published when the log is durable up to its end */
    err = take_segments(b, &d, durable);
    log_dir_close(&d);
    if (err == DC_OK && !log_is_based(b->opts->log)) {
        err = dc_fail(DC_EIO, "backup: the log isn't kept any more (appendonly no)");
    }
    b->out->lsn = durable;
    return err;
}

/* --- the manifest ------------------------------------------------------------------------------------ */

static enum dc_err write_manifest(struct backup *b) {
    const struct io *io = b->opts->io;
    char path[PATH_MAX], id[2 * NODE_ID_LEN + 1];
    struct io_file f;
    struct buf text;
    enum dc_err err = join(b->dir.work, BACKUP_MANIFEST, path);
    if (err != DC_OK) {
        return err;
    }
    crypto_hex(id, b->opts->node_id, NODE_ID_LEN);
    buf_init(&text, 0);
    buf_printf(&text,
               "{\n  \"format\": 1,\n  \"node_id\": \"%s\",\n  \"lsn\": \"%" PRIu64
               "\",\n  \"time_ms\": %" PRId64 ",\n  \"snapshot\": \"%s\",\n  \"files\": [\n",
               id, b->out->lsn, b->opts->now_ms, b->out->snapshot);
    buf_append_bytes(&text, buf_bytes(&b->manifest));
    buf_append_str(&text, "\n  ]\n}\n");
    int rc = text.failed || b->manifest.failed ? -ENOMEM : io->open(io, path, IO_CREATE, &f);
    if (rc >= 0) {
        struct iovec iov = {text.ptr, text.len};
        ssize_t n = io->write_at(io, &f, &iov, 1, 0);
        rc = n < 0 ? (int)n : io->sync(io, &f);
        io->close(io, &f);
    }
    buf_fini(&text);
    return rc < 0 ? failed("write", path, -rc) : DC_OK;
}

enum dc_err backup_write(const struct backup_opts *opts, struct backup_written *out) {
    struct backup *b = mem_must_zalloc(sizeof(*b));
    int64_t began_us = time_mono_us();
    memset(out, 0, sizeof(*out));
    b->opts = opts;
    b->out = out;
    buf_init(&b->manifest, 0);
    enum dc_err err = new_dir_begin(&b->dir, opts->io, opts->target);
    if (err == DC_OK) {
        err = take_snapshot(b);
        err = err != DC_OK || opts->log == NULL ? err : take_log(b);
        err = err != DC_OK ? err : write_manifest(b);
        err = err != DC_OK ? err : new_dir_publish(&b->dir);
        if (err != DC_OK) {
            new_dir_drop(&b->dir);
        }
    }
    out->took_ms = (time_mono_us() - began_us) / 1000;
    buf_fini(&b->manifest);
    mem_free(b);
    return err;
}
