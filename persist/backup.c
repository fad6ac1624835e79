/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Snapshots and closed segments never change, so a second name is as good as a copy, and costs nothing. The segment that is being
 * written is copied up to D, the durable LSN; D stands in the copy's mark, too.
 *
 *     log    [ closed ][ closed ][ being written ....D....   ]
 *               link      link     copy up to D
 */
#include "persist/backup.h"

#include "persist/data_dir.h"
#include "persist/log_reader.h"
#include "persist/snap_reader.h"
#include "server/base/assert.h"
#include "server/base/buf.h"
#include "server/base/crypto.h"
#include "server/base/mem.h"
#include "server/base/sum.h"
#include "server/base/time.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { COPY_LEN = 1 << 20, DIR_RIGHTS = 0750, WAIT_STEP_US = 50000 };

/* Where the rest of it is 'incomplete'. */
static const char UNFINISHED[] = ".incomplete";

struct backup {
    const struct backup_opts *opts;
    struct backup_written *out;
    char target[PATH_MAX];
    char work[PATH_MAX]; /* the target's name while it is being filled */
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

static bool is_stopped(const struct backup *b) {
    const _Atomic bool *stop = b->opts->stop;
    return stop != NULL && atomic_load_explicit(stop, memory_order_relaxed);
}

/* --- the target -------------------------------------------------------------------------------------- */

enum dc_err backup_check_target(const char *target) {
    DIR *dir = opendir(target);
    bool empty = true;
    if (target[0] == '\0' || strlen(target) > PATH_MAX - 2 * sizeof(UNFINISHED)) {
        if (dir != NULL) {
            closedir(dir);
        }
        return dc_fail(DC_EGENERIC, "backup: '%.64s' isn't the name of a directory", target);
    }
    if (dir == NULL) {
        return errno == ENOENT ? DC_OK : failed("open", target, errno);
    }
    for (const struct dirent *e = readdir(dir); e != NULL && empty; e = readdir(dir)) {
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    }
    closedir(dir);
    return empty ? DC_OK : dc_fail(DC_EGENERIC, "backup: the directory %s isn't empty", target);
}

/* A file that a backup is made of. */
static bool is_part(const char *name) {
    uint64_t lsn, history;
    return snap_name_parse(name, &lsn, &history) || segment_name_parse(name, &lsn, &history) ||
           strcmp(name, BACKUP_MANIFEST) == 0;
}

/* What was begun, now or by a node that died. */
static void remove_work(const struct backup *b) {
    DIR *dir = opendir(b->work);
    if (dir == NULL) {
        return;
    }
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (is_part(e->d_name)) {
            (void)unlinkat(dirfd(dir), e->d_name, 0);
        }
    }
    closedir(dir);
    (void)rmdir(b->work);
}

static enum dc_err open_work(struct backup *b) {
    size_t len = strlen(b->opts->target);
    enum dc_err err = backup_check_target(b->opts->target);
    if (err != DC_OK) {
        return err;
    }
    while (len > 1 && b->opts->target[len - 1] == '/') {
        len--;
    }
    snprintf(b->target, sizeof(b->target), "%.*s", (int)len, b->opts->target);
    int n = snprintf(b->work, sizeof(b->work), "%.*s%s", (int)len, b->opts->target, UNFINISHED);
    dc_assert(n > 0 && n < (int)sizeof(b->work));
    remove_work(b);
    return mkdir(b->work, DIR_RIGHTS) == 0 ? DC_OK : failed("mkdir", b->work, errno);
}

/* The directory that holds the target's name. */
static enum dc_err sync_parent(const struct backup *b) {
    char parent[PATH_MAX];
    snprintf(parent, sizeof(parent), "%s", b->target);
    char *slash = strrchr(parent, '/');
    if (slash == NULL) {
        return data_dir_sync(".");
    }
    slash[slash == parent ? 1 : 0] = '\0';
    return data_dir_sync(parent);
}

static enum dc_err publish(const struct backup *b) {
    enum dc_err err = data_dir_sync(b->work);
    if (err != DC_OK) {
        return err;
    }
    if (rename(b->work, b->target) != 0) {
        return failed("rename to", b->target, errno);
    }
    return sync_parent(b);
}

/* --- files ------------------------------------------------------------------------------------------- */

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
    return rc < 0 ? (int)rc : io->sync(io, to);
}

static enum dc_err copy_file(const struct backup *b, const char *name, const char *head,
                             uint64_t head_len, uint64_t len) {
    const struct io *io = b->opts->io;
    char from_path[PATH_MAX], to_path[PATH_MAX];
    struct io_file from, to;
    enum dc_err err = join(b->opts->dir, name, from_path);
    err = err != DC_OK ? err : join(b->work, name, to_path);
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
        return dc_fail(DC_ESTOPPED, "backup: stopped");
    }
    return rc < 0 ? failed("copy to", to_path, -rc) : DC_OK;
}

/* Notes a file of the backup; its content is what counts from 'sum_from' on. */
static enum dc_err note_file(struct backup *b, const char *name, uint64_t sum_from) {
    const struct io *io = b->opts->io;
    char path[PATH_MAX];
    struct io_file f;
    enum dc_err err = join(b->work, name, path);
    int rc = err == DC_OK ? io->open(io, path, IO_READ, &f) : 0;
    if (err != DC_OK || rc < 0) {
        return err != DC_OK ? err : failed("open", path, -rc);
    }
    int64_t len = io->size(io, &f);
    const char *map = len > 0 ? io->map(io, &f, (uint64_t)len) : NULL;
    io->close(io, &f);
    if (map == NULL) {
        return dc_fail(DC_EIO, "backup: %s can't be read", path);
    }
    uint64_t from = sum_from < (uint64_t)len ? sum_from : (uint64_t)len;
    uint64_t sum = sum64(map + from, (size_t)((uint64_t)len - from), 0);
    bool lost = io->lost(io, map, (uint64_t)len);
    io->unmap(io, map, (uint64_t)len);
    if (lost) {
        return dc_fail(DC_EIO, "backup: a part of %s can't be read", path);
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
static enum dc_err link_file(struct backup *b, const char *name, uint64_t len, uint64_t sum_from) {
    char from[PATH_MAX], to[PATH_MAX];
    enum dc_err err = join(b->opts->dir, name, from);
    err = err != DC_OK ? err : join(b->work, name, to);
    if (err != DC_OK) {
        return err;
    }
    if (link(from, to) == 0) {
        b->out->linked++;
    } else if (errno == ENOSPC || errno == ENOENT || errno == EROFS) {
        return failed("link", to, errno);
    } else {
        err = copy_file(b, name, NULL, 0, len); /* another file system, or one without links */
    }
    return err != DC_OK ? err : note_file(b, name, sum_from);
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
    return link_file(b, n.name, n.len, 0);
}

/* --- the log ----------------------------------------------------------------------------------------- */

/* Everything that is in the log now becomes durable; the LSN up to which it is. */
static enum dc_err wait_durable(const struct backup *b, uint64_t *durable) {
    struct log *l = b->opts->log;
    struct lsn head = log_head(l);
    log_hurry(l);
    while (!log_wait(l, LOG_LEVEL_DISK, head, WAIT_STEP_US)) {
        if (is_stopped(b)) {
            return dc_fail(DC_ESTOPPED, "backup: stopped");
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

/* The bytes up to 'end', and a mark that says so. */
static enum dc_err copy_open_segment(struct backup *b, const struct segment_info *s, uint64_t end) {
    const struct io *io = b->opts->io;
    char path[PATH_MAX], page[SEGMENT_HEADER_LEN];
    struct io_file f;
    enum dc_err err = join(b->opts->dir, s->name, path);
    int rc = err == DC_OK ? io->open(io, path, IO_READ, &f) : 0;
    if (err != DC_OK || rc < 0) {
        return err != DC_OK ? err : failed("open", path, -rc);
    }
    ssize_t got = io->read_at(io, &f, page, sizeof(page), 0);
    io->close(io, &f);
    if (got != (ssize_t)sizeof(page) || reach(s) < end) {
        return failed("read", path, got < 0 ? (int)-got : ENODATA);
    }
    struct segment_mark mark = {end, s->mark_ms};
    segment_mark_encode(s->head.first_lsn, &mark, (uint8_t *)page + SEGMENT_MARK_AT);
    err = copy_file(b, s->name, page, sizeof(page), SEGMENT_HEADER_LEN + (end - s->head.first_lsn));
    return err != DC_OK ? err : note_file(b, s->name, SEGMENT_HEADER_LEN);
}

static enum dc_err take_segments(struct backup *b, const struct log_dir *d, uint64_t durable) {
    enum dc_err err = DC_OK;
    uint32_t last = LOG_NO_SEGMENT; /* the one in which the log ends */
    for (uint32_t i = 0; i < d->count; i++) {
        const struct segment_info *s = &d->segments[i];
        if (!s->abandoned && s->verdict == HEAD_OK && s->head.first_lsn <= durable) {
            last = i;
        }
    }
    for (uint32_t i = 0; i < d->count && err == DC_OK; i++) {
        const struct segment_info *s = &d->segments[i];
        if (s->abandoned || s->verdict != HEAD_OK || s->head.first_lsn > durable ||
            reach(s) <= b->snap_start) {
            continue;
        }
        if (is_stopped(b)) {
            return dc_fail(DC_ESTOPPED, "backup: stopped");
        }
        err = i == last ? copy_open_segment(b, s, durable)
                        : link_file(b, s->name, s->file_len, SEGMENT_HEADER_LEN);
    }
    return err;
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
    enum dc_err err = join(b->work, BACKUP_MANIFEST, path);
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
    enum dc_err err = open_work(b);
    if (err == DC_OK) {
        err = take_snapshot(b);
        err = err != DC_OK || opts->log == NULL ? err : take_log(b);
        err = err != DC_OK ? err : write_manifest(b);
        err = err != DC_OK ? err : publish(b);
        if (err != DC_OK) {
            remove_work(b);
        }
    }
    out->took_ms = (time_mono_us() - began_us) / 1000;
    buf_fini(&b->manifest);
    mem_free(b);
    return err;
}
