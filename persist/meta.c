/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One LMDB environment, <dir>/meta/, with one named database per kind of value (meta_fmt.h). LMDB syncs each commit: what a crash leaves
 * is the state before or after a call.
 *
 * LMDB believes its pages: a flipped bit in one can make it crash, go round in a ring, or give away pages that are in use. So meta_open()
 * has everything read by a child process, checks the values, and writes them to a fresh environment, which this process then uses.
 */
#include "persist/meta.h"

#include "persist/child.h"
#include "persist/meta_priv.h"
#include "server/base/assert.h"
#include "server/base/buf.h"
#include "server/base/lock.h"
#include "server/base/mem.h"

#include <errno.h>
#include <limits.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const size_t MAP_LEN = (size_t)4 << 20; /* to begin with; doubled when it is full */
static const size_t MAP_LEN_MAX = (size_t)1 << 30;
/* Beside LMDB's codes and errno: a value of a newer format; what child_run() has said (DC_EIO). */
enum { RC_NEWER = 1 << 20, RC_CHILD };
static const char *const kind_names[META_KIND_COUNT] = {"node", "chain", "text", "file"};

struct meta {
    MDB_env *env;
    char *path; /* of the environment */
    bool read_only;
    bool has[META_KIND_COUNT]; /* a read-only environment may lack some */
    MDB_dbi dbi[META_KIND_COUNT];
    struct lock lock; /* one transaction at a time: the map can't grow under another */
};

static MDB_val name_val(const char *name) {
    return (MDB_val){.mv_size = strlen(name), .mv_data = (void *)(uintptr_t)name};
}

static struct bytes val_bytes(const MDB_val *v) {
    return bytes_of(v->mv_data, v->mv_size);
}

int meta_damage(void) {
    return MDB_CORRUPTED;
}

int meta_put_value(struct meta *m, MDB_txn *txn, enum meta_kind kind, const char *name,
                   struct bytes payload) {
    MDB_val key = name_val(name);
    MDB_val value = {.mv_size = payload.len + META_VALUE_FRAME_LEN};
    int rc = mdb_put(txn, m->dbi[kind], &key, &value, MDB_RESERVE);
    if (rc == 0) {
        meta_value_write(kind, bytes_str(name), payload, value.mv_data);
    }
    return rc;
}

int meta_drop_value(struct meta *m, MDB_txn *txn, enum meta_kind kind, const char *name) {
    MDB_val key = name_val(name);
    int rc = mdb_del(txn, m->dbi[kind], &key, NULL);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int meta_drop_kind(struct meta *m, MDB_txn *txn, enum meta_kind kind) {
    return mdb_drop(txn, m->dbi[kind], 0);
}

int meta_get_value(struct meta *m, MDB_txn *txn, enum meta_kind kind, const char *name,
                   struct bytes *payload, bool *found) {
    MDB_val key = name_val(name);
    MDB_val value;
    int rc = m->has[kind] ? mdb_get(txn, m->dbi[kind], &key, &value) : MDB_NOTFOUND;
    *found = rc == 0;
    if (rc == 0 && !meta_value_read(kind, bytes_str(name), val_bytes(&value), payload)) {
        return MDB_CORRUPTED;
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int meta_each_value(struct meta *m, MDB_txn *txn, enum meta_kind kind, meta_value_fn fn,
                    void *arg) {
    MDB_cursor *cursor = NULL;
    MDB_val name;
    MDB_val value;
    struct bytes payload;
    if (!m->has[kind]) {
        return 0;
    }
    int rc = mdb_cursor_open(txn, m->dbi[kind], &cursor);
    if (rc != 0) {
        return rc;
    }
    while ((rc = mdb_cursor_get(cursor, &name, &value, MDB_NEXT)) == 0) {
        rc = meta_value_read(kind, val_bytes(&name), val_bytes(&value), &payload)
                 ? fn(arg, val_bytes(&name), payload)
                 : MDB_CORRUPTED;
        if (rc != 0) {
            break;
        }
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* --- transactions ------------------------------------------------------------------------------------------------------- */

static bool is_damage(int rc) {
    return rc == MDB_CORRUPTED || rc == MDB_INVALID || rc == MDB_VERSION_MISMATCH ||
           rc == MDB_PAGE_NOTFOUND || rc == MDB_PANIC || rc == MDB_INCOMPATIBLE ||
           rc == MDB_PAGE_FULL || rc == MDB_CURSOR_FULL || rc == MDB_BAD_TXN ||
           rc == MDB_BAD_VALSIZE;
}

static enum dc_err fail(const char *path, const char *doing, int rc) {
    if (rc == RC_NEWER) {
        return dc_fail(DC_ENEWER, "%s has a newer format than this program knows", path);
    }
    if (rc == RC_CHILD) {
        char why[256];
        snprintf(why, sizeof(why), "%s", dc_fail_take(DC_EIO));
        return dc_fail(DC_EIO, "%s: %s: %s", path, doing, why);
    }
    if (is_damage(rc)) {
        return dc_fail(DC_ECORRUPT, "%s: %s: %s", path, doing, mdb_strerror(rc));
    }
    return dc_fail(DC_EIO, "%s: %s: %s", path, doing, mdb_strerror(rc));
}

static int attempt(struct meta *m, bool write, meta_txn_fn fn, void *arg) {
    MDB_txn *txn = NULL;
    int rc = mdb_txn_begin(m->env, NULL, write ? 0 : MDB_RDONLY, &txn);
    if (rc != 0) {
        return rc;
    }
    rc = fn(m, txn, arg);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

/* Makes room in the map, or takes over the size that another process has given it. No transaction is open. */
static int resize_map(struct meta *m, int why) {
    MDB_envinfo info;
    mdb_env_info(m->env, &info);
    if (why == MDB_MAP_RESIZED) {
        return mdb_env_set_mapsize(m->env, 0);
    }
    if (info.me_mapsize >= MAP_LEN_MAX) {
        return why;
    }
    return mdb_env_set_mapsize(m->env, info.me_mapsize * 2);
}

static int run_locked(struct meta *m, bool write, meta_txn_fn fn, void *arg) {
    for (;;) {
        int rc = attempt(m, write, fn, arg);
        if (rc != MDB_MAP_FULL && rc != MDB_MAP_RESIZED) {
            return rc;
        }
        rc = resize_map(m, rc);
        if (rc != 0) {
            return rc;
        }
    }
}

enum dc_err meta_run(struct meta *m, bool write, const char *doing, meta_txn_fn fn, void *arg) {
    dc_assert(!write || !m->read_only);
    lock_acquire(&m->lock);
    int rc = run_locked(m, write, fn, arg);
    lock_release(&m->lock);
    return rc == 0 ? DC_OK : fail(m->path, doing, rc);
}

/* --- opening ------------------------------------------------------------------------------------------------------------ */

static int open_kinds(struct meta *m, MDB_txn *txn, void *arg) {
    (void)arg;
    for (int i = 0; i < META_KIND_COUNT; i++) {
        int rc = mdb_dbi_open(txn, kind_names[i], m->read_only ? 0 : MDB_CREATE, &m->dbi[i]);
        if (rc == MDB_NOTFOUND && m->read_only) {
            continue;
        }
        if (rc != 0) {
            return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
        }
        m->has[i] = true;
    }
    return 0;
}

/* A page that the tree may name and the file doesn't have would be a SIGBUS. */
static int check_file_len(struct meta *m) {
    MDB_envinfo info;
    MDB_stat stat_all;
    struct stat st;
    int fd = -1;
    mdb_env_info(m->env, &info);
    mdb_env_stat(m->env, &stat_all);
    if (mdb_env_get_fd(m->env, &fd) != 0 || fstat(fd, &st) != 0) {
        return errno;
    }
    uint64_t pages = (uint64_t)st.st_size / stat_all.ms_psize;
    return st.st_size != 0 && info.me_last_pgno >= pages ? MDB_CORRUPTED : 0;
}

static int open_env(const char *path, bool read_only, struct meta *m) {
    *m = (struct meta){.path = mem_must_strdup(path), .read_only = read_only};
    lock_init(&m->lock, LOCK_RANK_META);
    int rc = mdb_env_create(&m->env);
    if (rc == 0) {
        rc = mdb_env_set_maxdbs(m->env, META_KIND_COUNT);
    }
    if (rc == 0) {
        rc = mdb_env_set_mapsize(m->env, MAP_LEN);
    }
    if (rc == 0) {
        /* A reader's transaction belongs to whoever calls, not to a thread. */
        rc = mdb_env_open(m->env, path, MDB_NOTLS | (read_only ? MDB_RDONLY : 0), 0644);
    }
    if (rc == 0) {
        rc = check_file_len(m);
    }
    return rc == 0 ? run_locked(m, !read_only, open_kinds, NULL) : rc;
}

static void close_env(struct meta *m) {
    if (m->env != NULL) {
        mdb_env_close(m->env);
    }
    lock_fini(&m->lock);
    mem_free(m->path);
}

/* What the child tells of each value, and of the end. */
struct told {
    uint32_t name_len;
    uint32_t value_len;
    int32_t kind; /* enum meta_kind; META_KIND_COUNT = the end */
    int32_t rc;   /* of the end: what LMDB said */
};

/* What a child reads, and where it goes. */
struct dump {
    const char *path;
    bool read_only;
    int fd;
};

static int dump_kind(struct meta *m, MDB_txn *txn, enum meta_kind kind, int fd) {
    MDB_cursor *cursor = NULL;
    MDB_val name;
    MDB_val value;
    struct bytes payload;
    int rc = mdb_cursor_open(txn, m->dbi[kind], &cursor);
    while (rc == 0 && (rc = mdb_cursor_get(cursor, &name, &value, MDB_NEXT)) == 0) {
        struct told t = {(uint32_t)name.mv_size, (uint32_t)value.mv_size, (int32_t)kind, 0};
        if (!meta_value_read(kind, val_bytes(&name), val_bytes(&value), &payload)) {
            return meta_value_is_newer(kind, val_bytes(&name), val_bytes(&value)) ? RC_NEWER
                                                                                  : MDB_CORRUPTED;
        }
        if (!child_write(fd, &t, sizeof(t)) || !child_write(fd, name.mv_data, name.mv_size) ||
            !child_write(fd, value.mv_data, value.mv_size)) {
            return EPIPE;
        }
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int dump_kinds(struct meta *m, MDB_txn *txn, void *arg) {
    const struct dump *d = arg;
    int rc = 0;
    for (int kind = 0; kind < META_KIND_COUNT && rc == 0; kind++) {
        rc = m->has[kind] ? dump_kind(m, txn, (enum meta_kind)kind, d->fd) : 0;
    }
    return rc;
}

static bool dump_env(void *arg, int fd) {
    struct dump *d = arg;
    struct meta m;
    d->fd = fd;
    int rc = open_env(d->path, d->read_only, &m);
    rc = rc == 0 ? run_locked(&m, false, dump_kinds, d) : rc;
    struct told t = {0, 0, META_KIND_COUNT, rc};
    return child_write(fd, &t, sizeof(t)); /* the child's end closes the environment */
}

/* Takes the next value that a child has told of; false at the end, whose rc is in 'told'. */
static bool next_told(const struct buf *all, size_t *at, struct told *told, MDB_val *name,
                      MDB_val *value) {
    size_t left = all->len - *at;
    if (left < sizeof(*told)) {
        *told = (struct told){.rc = MDB_CORRUPTED};
        return false;
    }
    memcpy(told, all->ptr + *at, sizeof(*told));
    size_t len = sizeof(*told) + (size_t)told->name_len + told->value_len;
    if (told->kind < 0 || told->kind >= META_KIND_COUNT) {
        return false;
    }
    if (len > left) {
        told->rc = MDB_CORRUPTED;
        return false;
    }
    char *from = all->ptr + *at + sizeof(*told);
    *name = (MDB_val){told->name_len, from};
    *value = (MDB_val){told->value_len, from + told->name_len};
    *at += len;
    return true;
}

/* What a child may tell of an environment: a value has at least 20 bytes in the file, and its head here 16. A damaged tree can be a ring. */
static size_t dump_limit(const char *path) {
    char file[PATH_MAX + 32];
    struct stat st;
    snprintf(file, sizeof(file), "%s/data.mdb", path);
    return 65536 + (stat(file, &st) == 0 ? 2 * (size_t)st.st_size : 0);
}

/* Everything that an environment holds, read by a child. Returns what LMDB said there. */
static int read_env(const char *path, bool read_only, struct buf *all) {
    struct dump d = {.path = path, .read_only = read_only};
    struct told told;
    MDB_val name;
    MDB_val value;
    size_t at = 0;
    enum dc_err err = child_run(dump_env, &d, dump_limit(path), all);
    if (err != DC_OK) {
        return err == DC_ECORRUPT ? MDB_CORRUPTED : RC_CHILD;
    }
    while (next_told(all, &at, &told, &name, &value)) {}
    return told.rc;
}

static int put_all(struct meta *m, MDB_txn *txn, void *arg) {
    struct told told;
    MDB_val name;
    MDB_val value;
    int rc = 0;
    for (size_t at = 0; rc == 0 && next_told(arg, &at, &told, &name, &value);) {
        rc = mdb_put(txn, m->dbi[told.kind], &name, &value, 0);
    }
    return rc;
}

/* Writes an environment with these values beside the old one, and puts it into its place. */
static int renew(const char *dir, const char *path, struct buf *all) {
    char fresh[PATH_MAX + 8];
    char from[PATH_MAX + 32];
    char to[PATH_MAX + 32];
    struct meta m;
    snprintf(fresh, sizeof(fresh), "%s.new", path);
    snprintf(from, sizeof(from), "%s/lock.mdb", fresh);
    unlink(from);
    snprintf(from, sizeof(from), "%s/data.mdb", fresh);
    unlink(from);
    if (data_dir_make(dir, "meta.new") != DC_OK) {
        return EIO;
    }
    int rc = open_env(fresh, false, &m);
    rc = rc == 0 ? run_locked(&m, true, put_all, all) : rc;
    close_env(&m);
    snprintf(to, sizeof(to), "%s/data.mdb", path);
    if (rc == 0 && rename(from, to) != 0) {
        rc = errno;
    }
    if (rc == 0) { /* the old one's lock knows of transactions that the new one hasn't had */
        snprintf(to, sizeof(to), "%s/lock.mdb", path);
        unlink(to);
    }
    snprintf(from, sizeof(from), "%s/lock.mdb", fresh);
    unlink(from);
    snprintf(from, sizeof(from), "%s/data.mdb", fresh);
    unlink(from);
    rmdir(fresh);
    return rc != 0 || data_dir_sync(path) == DC_OK ? rc : EIO;
}

/* The path of the environment; false = too long. */
static bool meta_path(const char *dir, char to[PATH_MAX]) {
    int len = snprintf(to, PATH_MAX, "%s/meta", dir);
    return len > 0 && len < PATH_MAX - 32;
}

/* An environment that is there: its values in a fresh one; one that is damaged: aside. One of a newer program is left alone. */
static enum dc_err take_over(const char *dir, const char *path, bool *rebuilt) {
    struct buf all;
    enum dc_err err = DC_OK;
    buf_init(&all, 0);
    int rc = read_env(path, false, &all);
    if (is_damage(rc)) {
        *rebuilt = true;
        err = data_dir_move_aside(dir, "meta");
    } else if (rc != 0) {
        err = fail(path, "open", rc);
    } else if (renew(dir, path, &all) != 0) {
        (void)dc_fail_take(DC_EIO); /* no room, most likely: the old one will do */
    }
    buf_fini(&all);
    return err;
}

enum dc_err meta_open(const char *dir, struct meta **out, bool *rebuilt) {
    char path[PATH_MAX];
    enum dc_err err = DC_OK;
    *out = NULL;
    *rebuilt = false;
    if (!meta_path(dir, path)) {
        return dc_fail(DC_EIO, "the path %s is too long", dir);
    }
    if (access(path, F_OK) == 0) {
        err = take_over(dir, path, rebuilt);
    }
    if (err == DC_OK) {
        err = data_dir_make(dir, "meta");
    }
    if (err != DC_OK) {
        return err;
    }
    struct meta *m = mem_must_alloc(sizeof(*m));
    int rc = open_env(path, false, m);
    if (rc != 0) {
        meta_close(m);
        return fail(path, "open", rc);
    }
    *out = m;
    return DC_OK;
}

enum dc_err meta_open_read_only(const char *dir, struct meta **out) {
    char path[PATH_MAX];
    *out = NULL;
    if (!meta_path(dir, path)) {
        return dc_fail(DC_EIO, "the path %s is too long", dir);
    }
    struct buf all;
    buf_init(&all, 0);
    int rc = read_env(path, true, &all);
    buf_fini(&all);
    if (rc != 0) {
        return fail(path, "open", rc);
    }
    struct meta *m = mem_must_alloc(sizeof(*m));
    rc = open_env(path, true, m);
    if (rc != 0) {
        meta_close(m);
        return fail(path, "open", rc);
    }
    *out = m;
    return DC_OK;
}

void meta_close(struct meta *m) {
    if (m != NULL) {
        close_env(m);
        mem_free(m);
    }
}
