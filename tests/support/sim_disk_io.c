/* SPDX-License-Identifier: BSD-3-Clause */
/* The calls of a simulated disk. */
#include "tests/support/sim_disk_priv.h"

#include "server/base/assert.h"
#include "server/base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

static struct sim_disk *disk_of(const struct io *io) {
    return io->arg;
}

static void disk_lock(struct sim_disk *d) {
    pthread_mutex_lock(&d->mutex);
}

static void disk_unlock(struct sim_disk *d) {
    pthread_mutex_unlock(&d->mutex);
}

/* --- calls ------------------------------------------------------------------------------------------- */

static const char *base_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL && slash[1] != '\0' ? slash + 1 : path;
}

/* The name that a file gets; with that of the directory if it goes to another one. */
static const char *target_of(const char *from, const char *to) {
    const char *base = base_of(to);
    if (base - to == base_of(from) - from && strncmp(from, to, (size_t)(base - to)) == 0) {
        return base;
    }
    for (base -= base > to; base > to && base[-1] != '/'; base--) {}
    return base;
}

/* A line of the trace; 'rc' is what the call returns. */
DC_PRINTF(3, 4)
static void trace(struct sim_disk *d, int64_t rc, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    buf_vprintf(&d->trace, fmt, args);
    va_end(args);
    if (rc < 0) {
        const char *name = strerrorname_np((int)-rc);
        buf_printf(&d->trace, " -> %s", name != NULL ? name : "?");
    }
    buf_append_str(&d->trace, "\n");
}

/* Whether this call of the kind is one that fails: 0 or -errno. */
static int fault_of(struct sim_disk *d, enum sim_call kind) {
    struct sim_fault *f = &d->faults[kind];
    if (f->wait == 0) {
        return 0;
    }
    if (f->wait > 1) {
        f->wait--;
        return 0;
    }
    int err = f->err;
    if (f->times != UINT64_MAX && --f->times == 0) {
        f->wait = 0;
    }
    return -err;
}

static bool kind_changes(enum sim_call kind) {
    return kind == SIM_CREATE || kind == SIM_WRITE || kind == SIM_ALLOCATE ||
           kind == SIM_TRUNCATE || kind == SIM_SYNC || kind == SIM_RENAME || kind == SIM_LINK ||
           kind == SIM_UNLINK || kind == SIM_RMDIR || kind == SIM_SYNC_DIR;
}

/* Every call begins here: the hook, the lock, counters and faults. Returns 0 or -errno, with the lock held in any case. 'seq' gets
 * the moment of the call. */
static int call_begin(struct sim_disk *d, enum sim_call kind, const char *path, uint64_t *seq) {
    disk_lock(d);
    sim_hook_fn hook = d->hook;
    void *arg = d->hook_arg;
    *seq = d->seq;
    disk_unlock(d);
    if (hook != NULL) {
        hook(arg, kind, path);
    }
    disk_lock(d);
    d->calls[kind]++;
    if (d->stop_after > 0 && d->done >= d->stop_after) {
        return -EIO;
    }
    int rc = fault_of(d, kind);
    if (rc == 0 && kind_changes(kind)) {
        d->done++;
    }
    return rc;
}

/* Whether the call failed because the disk is stopped. */
static bool is_stopped(const struct sim_disk *d, int rc) {
    return rc != 0 && d->stop_after > 0 && d->done >= d->stop_after;
}

static struct sim_handle *handle_of(struct sim_disk *d, const struct io_file *f) {
    dc_assert(f->fd >= 0 && (size_t)f->fd < d->handle_count && d->handles[f->fd].used);
    return &d->handles[f->fd];
}

/* call_begin() for a handle; gives its path. A copy: handles move. */
static int file_begin(struct sim_disk *d, enum sim_call kind, const struct io_file *f,
                      char path[256], uint64_t *seq) {
    disk_lock(d);
    const char *found = handle_of(d, f)->path;
    size_t len = strlen(found) < 255 ? strlen(found) : 255;
    memcpy(path, found, len);
    path[len] = '\0';
    disk_unlock(d);
    return call_begin(d, kind, path, seq);
}

static int add_handle(struct sim_disk *d, struct sim_file *f, const char *path) {
    size_t i = 0;
    while (i < d->handle_count && d->handles[i].used) {
        i++;
    }
    if (i == d->handle_count) {
        d->handles = mem_must_realloc(d->handles, ++d->handle_count * sizeof(*d->handles));
    }
    d->handles[i] = (struct sim_handle){f, mem_must_strdup(path), true};
    return (int)i;
}

static int sim_open(const struct io *io, const char *path, enum io_mode mode, struct io_file *out) {
    struct sim_disk *d = disk_of(io);
    uint64_t seq;
    int rc = call_begin(d, mode == IO_CREATE ? SIM_CREATE : SIM_OPEN, path, &seq);
    const struct sim_name *n = sim_names_find(&d->now, path);
    struct sim_file *f = n != NULL ? n->file : NULL;
    if (rc == 0 && mode == IO_CREATE) {
        rc = f != NULL || sim_dir_exists(d, path) ? -EEXIST
             : sim_parent_exists(d, path)         ? 0
                                                  : -ENOENT;
    } else if (rc == 0) {
        rc = f == NULL ? -ENOENT : 0;
    }
    if (mode == IO_CREATE) {
        trace(d, rc, "create %s", base_of(path));
    }
    if (rc == 0) {
        if (mode == IO_CREATE) {
            f = sim_file_create(d);
            sim_names_change(d, f, NULL, path);
        }
        *out = (struct io_file){.fd = add_handle(d, f, path)};
    }
    disk_unlock(d);
    return rc;
}

static void sim_close(const struct io *io, struct io_file *f) {
    struct sim_disk *d = disk_of(io);
    disk_lock(d);
    struct sim_handle *h = handle_of(d, f);
    mem_free(h->path);
    *h = (struct sim_handle){NULL, NULL, false};
    f->fd = -1;
    disk_unlock(d);
}

static bool is_lost(const struct sim_file *file, uint64_t at, uint64_t len) {
    return at < file->lost_end && at + len > file->lost_from;
}

static ssize_t sim_read_at(const struct io *io, struct io_file *f, void *to, size_t len,
                           uint64_t at) {
    struct sim_disk *d = disk_of(io);
    char path[256];
    uint64_t seq;
    int rc = file_begin(d, SIM_READ, f, path, &seq);
    const struct sim_file *file = handle_of(d, f)->file;
    ssize_t n = rc != 0                  ? rc
                : is_lost(file, at, len) ? -EIO
                                         : (ssize_t)sim_content_read(&file->now, at, to, len);
    disk_unlock(d);
    return n;
}

/* How many of 'len' bytes at 'at' the disk has room for. */
static uint64_t room_for(const struct sim_disk *d, const struct sim_file *f, uint64_t at,
                         uint64_t len) {
    uint64_t end = at + len;
    uint64_t more = end > f->now.len ? end - f->now.len : 0;
    uint64_t in_use = more > 0 && d->capacity != UINT64_MAX ? sim_used(d) : 0;
    uint64_t free = in_use < d->capacity ? d->capacity - in_use : 0;
    uint64_t lacks = more > free ? more - free : 0;
    return lacks < len ? len - lacks : 0;
}

static ssize_t sim_write_at(const struct io *io, struct io_file *f, const struct iovec *iov,
                            int count, uint64_t at) {
    struct sim_disk *d = disk_of(io);
    char path[256];
    uint64_t seq;
    struct buf all;
    buf_init(&all, 0);
    for (int i = 0; i < count; i++) {
        buf_append(&all, iov[i].iov_base, iov[i].iov_len);
    }
    dc_assert(!all.failed);
    ssize_t rc = file_begin(d, SIM_WRITE, f, path, &seq);
    if (rc == 0) {
        struct sim_file *file = handle_of(d, f)->file;
        size_t fits = (size_t)room_for(d, file, at, all.len);
        sim_file_write(d, file, at, all.ptr, fits);
        rc = fits < all.len ? -ENOSPC : (ssize_t)fits;
    }
    trace(d, rc, "write %s %" PRIu64 "+%zu", base_of(path), at, all.len);
    disk_unlock(d);
    buf_fini(&all);
    return rc;
}

static int sim_allocate(const struct io *io, struct io_file *f, uint64_t len) {
    struct sim_disk *d = disk_of(io);
    char path[256];
    uint64_t seq;
    int rc = file_begin(d, SIM_ALLOCATE, f, path, &seq);
    struct sim_file *file = handle_of(d, f)->file;
    if (rc == 0 && len > file->now.len) {
        rc = room_for(d, file, 0, len) < len ? -ENOSPC : 0;
        if (rc == 0) {
            sim_file_set_len(d, file, len);
        }
    }
    trace(d, rc, "allocate %s %" PRIu64, base_of(path), len);
    disk_unlock(d);
    return rc;
}

static int sim_truncate(const struct io *io, struct io_file *f, uint64_t len) {
    struct sim_disk *d = disk_of(io);
    char path[256];
    uint64_t seq;
    int rc = file_begin(d, SIM_TRUNCATE, f, path, &seq);
    if (rc == 0) {
        sim_file_set_len(d, handle_of(d, f)->file, len);
    }
    trace(d, rc, "truncate %s %" PRIu64, base_of(path), len);
    disk_unlock(d);
    return rc;
}

static int sim_sync(const struct io *io, struct io_file *f) {
    struct sim_disk *d = disk_of(io);
    char path[256];
    uint64_t seq;
    int rc = file_begin(d, SIM_SYNC, f, path, &seq);
    if (!is_stopped(d, rc)) {
        sim_file_settle(handle_of(d, f)->file, seq, rc != 0);
    }
    trace(d, rc, "sync %s", base_of(path));
    disk_unlock(d);
    return rc;
}

static int64_t sim_size(const struct io *io, struct io_file *f) {
    struct sim_disk *d = disk_of(io);
    char path[256];
    uint64_t seq;
    int64_t rc = file_begin(d, SIM_SIZE, f, path, &seq);
    rc = rc == 0 ? (int64_t)handle_of(d, f)->file->now.len : rc;
    disk_unlock(d);
    return rc;
}

/* Entries of a directory. */
static size_t count_entries(const struct sim_disk *d, const char *path) {
    size_t count = 0;
    for (size_t i = 0; i < d->now.count; i++) {
        count += sim_is_in_dir(d->now.list[i].path, path);
    }
    for (size_t i = 0; i < d->now.dir_count; i++) {
        count += sim_is_in_dir(d->now.dirs[i], path);
    }
    return count;
}

/* A directory takes the place of none, or of an empty one. */
static int rename_dir(struct sim_disk *d, const char *from, const char *to) {
    if (sim_names_find(&d->now, to) != NULL) {
        return -ENOTDIR;
    }
    if (count_entries(d, to) > 0) {
        return -ENOTEMPTY;
    }
    if (strcmp(from, to) != 0) {
        sim_names_change(d, NULL, from, to);
    }
    return 0;
}

static int sim_rename(const struct io *io, const char *from, const char *to) {
    struct sim_disk *d = disk_of(io);
    uint64_t seq;
    int rc = call_begin(d, SIM_RENAME, from, &seq);
    const struct sim_name *n = sim_names_find(&d->now, from);
    bool is_dir = n == NULL && sim_dir_exists(d, from);
    if (rc == 0) {
        rc = (n == NULL && !is_dir) || !sim_parent_exists(d, to) ? -ENOENT
             : !is_dir && sim_dir_exists(d, to)                  ? -EISDIR
                                                                 : 0;
    }
    if (rc == 0 && is_dir) {
        rc = rename_dir(d, from, to);
    } else if (rc == 0 && strcmp(from, to) != 0) {
        sim_names_change(d, n->file, from, to);
    }
    trace(d, rc, "rename %s %s", base_of(from), target_of(from, to));
    disk_unlock(d);
    return rc;
}

static int sim_link(const struct io *io, const char *from, const char *to) {
    struct sim_disk *d = disk_of(io);
    uint64_t seq;
    int rc = call_begin(d, SIM_LINK, from, &seq);
    const struct sim_name *n = sim_names_find(&d->now, from);
    if (rc == 0) {
        rc = n == NULL || !sim_parent_exists(d, to)                         ? -ENOENT
             : sim_names_find(&d->now, to) != NULL || sim_dir_exists(d, to) ? -EEXIST
                                                                            : 0;
    }
    if (rc == 0) {
        sim_names_change(d, n->file, NULL, to);
    }
    trace(d, rc, "link %s %s", base_of(from), base_of(to));
    disk_unlock(d);
    return rc;
}

static int sim_unlink(const struct io *io, const char *path) {
    struct sim_disk *d = disk_of(io);
    uint64_t seq;
    int rc = call_begin(d, SIM_UNLINK, path, &seq);
    const struct sim_name *n = sim_names_find(&d->now, path);
    rc = rc == 0 && n == NULL ? -ENOENT : rc;
    if (rc == 0) {
        sim_names_change(d, n->file, path, NULL);
    }
    trace(d, rc, "unlink %s", base_of(path));
    disk_unlock(d);
    return rc;
}

static int sim_mkdir(const struct io *io, const char *path) {
    struct sim_disk *d = disk_of(io);
    uint64_t seq;
    int rc = call_begin(d, SIM_MKDIR, path, &seq);
    if (rc == 0 && !sim_dir_exists(d, path)) {
        rc = sim_names_find(&d->now, path) != NULL ? -EEXIST
             : sim_parent_exists(d, path)          ? 0
                                                   : -ENOENT;
        if (rc == 0) {
            sim_add_dir(d, path);
        }
    }
    disk_unlock(d);
    return rc;
}

static int sim_rmdir(const struct io *io, const char *path) {
    struct sim_disk *d = disk_of(io);
    uint64_t seq;
    int rc = call_begin(d, SIM_RMDIR, path, &seq);
    if (rc == 0) {
        rc = !sim_dir_exists(d, path) ? -ENOENT : count_entries(d, path) > 0 ? -ENOTEMPTY : 0;
    }
    if (rc == 0) {
        sim_names_change(d, NULL, path, NULL);
    }
    trace(d, rc, "rmdir %s", base_of(path));
    disk_unlock(d);
    return rc;
}

static int sim_sync_dir(const struct io *io, const char *path) {
    struct sim_disk *d = disk_of(io);
    uint64_t seq;
    int rc = call_begin(d, SIM_SYNC_DIR, path, &seq);
    rc = rc == 0 && !sim_dir_exists(d, path) ? -ENOENT : rc;
    if (rc == 0) {
        sim_settle_dir(d, path, seq);
    }
    trace(d, rc, "sync_dir %s", base_of(path));
    disk_unlock(d);
    return rc;
}

static int sim_list(const struct io *io, const char *path, io_name_fn each, void *arg) {
    struct sim_disk *d = disk_of(io);
    uint64_t seq;
    struct buf found; /* 'each' may call us: names first, each with its 0 */
    buf_init(&found, 0);
    int rc = call_begin(d, SIM_LIST, path, &seq);
    rc = rc == 0 && !sim_dir_exists(d, path) ? -ENOENT : rc;
    for (size_t i = 0; rc == 0 && i < d->now.count; i++) {
        if (sim_is_in_dir(d->now.list[i].path, path)) {
            const char *name = base_of(d->now.list[i].path);
            buf_append(&found, name, strlen(name) + 1);
        }
    }
    for (size_t i = 0; rc == 0 && i < d->now.dir_count; i++) {
        if (strcmp(d->now.dirs[i], ".") != 0 && strcmp(d->now.dirs[i], "/") != 0 &&
            sim_is_in_dir(d->now.dirs[i], path)) {
            const char *name = base_of(d->now.dirs[i]);
            buf_append(&found, name, strlen(name) + 1);
        }
    }
    disk_unlock(d);
    for (size_t at = 0; at < found.len; at += strlen(found.ptr + at) + 1) {
        each(arg, found.ptr + at);
    }
    buf_fini(&found);
    return rc;
}

static const void *sim_map(const struct io *io, struct io_file *f, uint64_t len) {
    struct sim_disk *d = disk_of(io);
    char path[256];
    uint64_t seq;
    char *copy = NULL;
    if (file_begin(d, SIM_MAP, f, path, &seq) == 0) {
        struct sim_file *file = handle_of(d, f)->file;
        copy = mem_must_zalloc((size_t)len); /* exactly: a sanitizer sees who reads behind it */
        sim_content_read(&file->now, 0, copy, (size_t)len);
        if (is_lost(file, 0, len)) {
            uint64_t end = file->lost_end < len ? file->lost_end : len;
            memset(copy + file->lost_from, 0, (size_t)(end - file->lost_from));
        }
        d->maps = mem_must_realloc(d->maps, (d->map_count + 1) * sizeof(*d->maps));
        d->maps[d->map_count++] = (struct sim_map){copy, len, file};
    }
    disk_unlock(d);
    return copy;
}

static struct sim_map *map_of(struct sim_disk *d, const char *at) {
    struct sim_map *m = d->maps;
    while (at < m->ptr || at >= m->ptr + m->len) {
        m++;
        dc_assert(m < d->maps + d->map_count);
    }
    return m;
}

static bool sim_lost(const struct io *io, const void *ptr, uint64_t len) {
    struct sim_disk *d = disk_of(io);
    pthread_mutex_lock(&d->mutex);
    const struct sim_map *m = map_of(d, ptr);
    bool lost = is_lost(m->file, (uint64_t)((const char *)ptr - m->ptr), len);
    disk_unlock(d);
    return lost;
}

static void sim_unmap(const struct io *io, const void *ptr, uint64_t len) {
    struct sim_disk *d = disk_of(io);
    pthread_mutex_lock(&d->mutex);
    struct sim_map *m = map_of(d, ptr);
    dc_assert(m->ptr == ptr && m->len == len);
    *m = d->maps[--d->map_count];
    disk_unlock(d);
    mem_free((void *)(uintptr_t)ptr);
}

static uint64_t sim_data_end(const struct io *io, struct io_file *f, uint64_t from, uint64_t to) {
    (void)io, (void)f, (void)from;
    return to;
}

const struct io sim_io = {
    .open = sim_open,
    .close = sim_close,
    .read_at = sim_read_at,
    .write_at = sim_write_at,
    .allocate = sim_allocate,
    .truncate = sim_truncate,
    .sync = sim_sync,
    .size = sim_size,
    .data_end = sim_data_end,
    .rename = sim_rename,
    .link = sim_link,
    .unlink = sim_unlink,
    .mkdir = sim_mkdir,
    .rmdir = sim_rmdir,
    .sync_dir = sim_sync_dir,
    .list = sim_list,
    .map = sim_map,
    .lost = sim_lost,
    .unmap = sim_unmap,
};
