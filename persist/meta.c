/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One LMDB environment, <dir>/meta/, with one named database per kind of value (meta_fmt.h). LMDB syncs each commit: what a crash leaves
 * is the state before or after a call.
 */
#include "persist/meta.h"

#include "persist/meta_fmt.h"
#include "server/base/assert.h"
#include "server/base/buf.h"
#include "server/base/codec.h"
#include "server/base/lock.h"
#include "server/base/mem.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <lmdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROBE_SECONDS = 20 };
static_assert(sizeof(size_t) == 8, "LMDB's page numbers are read as 64 bits");

static const size_t MAP_LEN = (size_t)4 << 20; /* to begin with; doubled when it is full */
static const size_t MAP_LEN_MAX = (size_t)1 << 30;
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

static int put_value(struct meta *m, MDB_txn *txn, enum meta_kind kind, const char *name,
                     struct bytes payload) {
    MDB_val key = name_val(name);
    MDB_val value = {.mv_size = payload.len + META_VALUE_FRAME_LEN};
    int rc = mdb_put(txn, m->dbi[kind], &key, &value, MDB_RESERVE);
    if (rc == 0) {
        meta_value_write(kind, bytes_str(name), payload, value.mv_data);
    }
    return rc;
}

/* MDB_NOTFOUND when there is none. The payload lives as long as the transaction. */
static int get_value(struct meta *m, MDB_txn *txn, enum meta_kind kind, const char *name,
                     struct bytes *out) {
    MDB_val key = name_val(name);
    MDB_val value;
    int rc = m->has[kind] ? mdb_get(txn, m->dbi[kind], &key, &value) : MDB_NOTFOUND;
    if (rc == 0 && !meta_value_read(kind, bytes_str(name), val_bytes(&value), out)) {
        return MDB_CORRUPTED;
    }
    return rc;
}

/* --- transactions ------------------------------------------------------------------------------------------------------- */

/* The body of a transaction; returns what LMDB said. May run more than once. */
typedef int (*txn_fn)(struct meta *m, MDB_txn *txn, void *arg);

static bool is_damage(int rc) {
    return rc == MDB_CORRUPTED || rc == MDB_INVALID || rc == MDB_VERSION_MISMATCH ||
           rc == MDB_PAGE_NOTFOUND || rc == MDB_PANIC || rc == MDB_INCOMPATIBLE ||
           rc == MDB_PAGE_FULL || rc == MDB_CURSOR_FULL || rc == MDB_BAD_TXN ||
           rc == MDB_BAD_VALSIZE;
}

static enum dc_err fail(const char *path, const char *doing, int rc) {
    if (is_damage(rc)) {
        return dc_fail(DC_ECORRUPT, "%s: %s: %s", path, doing, mdb_strerror(rc));
    }
    return dc_fail(DC_EIO, "%s: %s: %s", path, doing, mdb_strerror(rc));
}

static int attempt(struct meta *m, bool write, txn_fn fn, void *arg) {
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

static int run_locked(struct meta *m, bool write, txn_fn fn, void *arg) {
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

static enum dc_err run(struct meta *m, bool write, const char *doing, txn_fn fn, void *arg) {
    dc_assert(!write || !m->read_only);
    lock_acquire(&m->lock);
    int rc = run_locked(m, write, fn, arg);
    lock_release(&m->lock);
    return rc == 0 || rc == MDB_NOTFOUND ? DC_OK : fail(m->path, doing, rc);
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

typedef int (*value_fn)(void *arg, struct bytes name, struct bytes payload);

static int each_value(struct meta *m, MDB_txn *txn, enum meta_kind kind, value_fn fn, void *arg) {
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

static int pass(void *arg, struct bytes name, struct bytes payload) {
    (void)arg, (void)name, (void)payload;
    return 0;
}

static int check_all(struct meta *m, MDB_txn *txn, void *arg) {
    (void)arg;
    for (int kind = 0; kind < META_KIND_COUNT; kind++) {
        int rc = each_value(m, txn, (enum meta_kind)kind, pass, NULL);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

/* The pages that LMDB would write to next: the database 0 lists them, per transaction, falling. */
static int check_free_list(struct meta *m, MDB_txn *txn, void *arg) {
    MDB_cursor *cursor = NULL;
    MDB_val name;
    MDB_val list;
    MDB_envinfo info;
    (void)arg;
    mdb_env_info(m->env, &info);
    int rc = mdb_cursor_open(txn, 0, &cursor);
    while (rc == 0 && (rc = mdb_cursor_get(cursor, &name, &list, MDB_NEXT)) == 0) {
        const char *at = list.mv_data;
        size_t count = list.mv_size / sizeof(size_t);
        size_t above = info.me_last_pgno + 1;
        if (count == 0 || get_u64(at) >= count) {
            rc = MDB_CORRUPTED;
        }
        for (size_t i = 1; rc == 0 && i <= get_u64(at); i++) {
            size_t page = get_u64(at + i * sizeof(size_t));
            rc = page > 1 && page < above ? 0 : MDB_CORRUPTED;
            above = page;
        }
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* Takes pages from the list of free ones; the caller aborts. */
static int check_room(struct meta *m, MDB_txn *txn, void *arg) {
    static const char filler[META_TEXT_MAX];
    (void)arg;
    int rc = put_value(m, txn, META_TEXT, "probe", bytes_of(filler, sizeof(filler)));
    return rc == 0 ? MDB_NOTFOUND : rc; /* not kept */
}

static int probe(const char *path, bool read_only) {
    struct meta m;
    int rc = open_env(path, read_only, &m);
    if (rc == 0) {
        rc = run_locked(&m, false, check_all, NULL);
    }
    if (rc == 0 && !read_only) {
        rc = run_locked(&m, true, check_free_list, NULL);
    }
    if (rc == 0 && !read_only) {
        rc = run_locked(&m, true, check_room, NULL);
    }
    return rc;
}

/* Reads everything in a child, which a damaged page may kill. True: the environment can be used, or what is wrong isn't damage. */
static bool is_whole(const char *path, bool read_only) {
    pid_t pid = fork();
    if (pid < 0) {
        return true;
    }
    if (pid == 0) {
        static const int deadly[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM};
        for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++) {
            signal(deadly[i], SIG_DFL);
        }
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        alarm(PROBE_SECONDS); /* a damaged tree may be a ring */
        _exit(is_damage(probe(path, read_only)) ? EXIT_FAILURE : EXIT_SUCCESS);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
}

/* The path of the environment; false = too long. */
static bool meta_path(const char *dir, char to[PATH_MAX]) {
    int len = snprintf(to, PATH_MAX, "%s/meta", dir);
    return len > 0 && len < PATH_MAX - 32;
}

enum dc_err meta_open(const char *dir, struct meta **out, bool *rebuilt) {
    char path[PATH_MAX];
    *out = NULL;
    *rebuilt = false;
    if (!meta_path(dir, path)) {
        return dc_fail(DC_EIO, "the path %s is too long", dir);
    }
    if (access(path, F_OK) == 0 && !is_whole(path, false)) {
        enum dc_err err = data_dir_move_aside(dir, "meta");
        if (err != DC_OK) {
            return err;
        }
        *rebuilt = true;
    }
    enum dc_err err = data_dir_make(dir, "meta");
    if (err != DC_OK) {
        return err;
    }
    struct meta *m = mem_must_alloc(sizeof(*m));
    int rc = open_env(path, false, m);
    if (rc != 0) {
        meta_close(m);
        return fail(path, "open", rc);
    }
    int dead = 0;
    mdb_reader_check(m->env, &dead); /* tools that were killed hold no pages */
    *out = m;
    return DC_OK;
}

enum dc_err meta_open_read_only(const char *dir, struct meta **out) {
    char path[PATH_MAX];
    *out = NULL;
    if (!meta_path(dir, path)) {
        return dc_fail(DC_EIO, "the path %s is too long", dir);
    }
    if (!is_whole(path, true)) {
        return fail(path, "open", MDB_CORRUPTED);
    }
    struct meta *m = mem_must_alloc(sizeof(*m));
    int rc = open_env(path, true, m);
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

/* --- node, chain, texts ------------------------------------------------------------------------------------------------- */

static int get_node(struct meta *m, MDB_txn *txn, void *arg) {
    struct bytes payload;
    int rc = get_value(m, txn, META_NODE, "node", &payload);
    return rc == 0 && !meta_node_decode(payload, arg) ? MDB_CORRUPTED : rc;
}

enum dc_err meta_get_node(struct meta *m, struct meta_node *out) {
    *out = (struct meta_node){.known = false};
    return run(m, false, "node", get_node, out);
}

/* A value to be written. */
struct record {
    enum meta_kind kind;
    const char *name;
    struct bytes payload;
};

static int put_record(struct meta *m, MDB_txn *txn, void *arg) {
    const struct record *r = arg;
    return put_value(m, txn, r->kind, r->name, r->payload);
}

/* Writes what was encoded, and frees it. */
static enum dc_err put_encoded(struct meta *m, enum meta_kind kind, const char *name,
                               struct buf *payload) {
    struct record r = {kind, name, buf_bytes(payload)};
    enum dc_err err = payload->failed ? dc_fail(DC_ENOMEM, "no memory for the metadata")
                                      : run(m, true, name, put_record, &r);
    buf_fini(payload);
    return err;
}

enum dc_err meta_put_node(struct meta *m, const struct meta_node *node) {
    struct buf payload;
    buf_init(&payload, 0);
    meta_node_encode(node, &payload);
    return put_encoded(m, META_NODE, "node", &payload);
}

/* A copy of one payload. */
struct fetched {
    const char *name;
    enum meta_kind kind;
    bool found;
    struct buf payload;
};

static int fetch(struct meta *m, MDB_txn *txn, void *arg) {
    struct fetched *f = arg;
    struct bytes payload;
    buf_reset(&f->payload, SIZE_MAX);
    int rc = get_value(m, txn, f->kind, f->name, &payload);
    if (rc == 0) {
        f->found = true;
        buf_append_bytes(&f->payload, payload);
    }
    return rc;
}

/* Fetches a payload; empty when there is none. The caller frees. */
static enum dc_err get_encoded(struct meta *m, struct fetched *f) {
    buf_init(&f->payload, 0);
    enum dc_err err = run(m, false, f->name, fetch, f);
    return err == DC_OK && f->payload.failed ? dc_fail(DC_ENOMEM, "no memory for the metadata")
                                             : err;
}

enum dc_err meta_get_chain(struct meta *m, struct history *out, uint32_t max, uint32_t *count) {
    struct fetched f = {.name = "chain", .kind = META_CHAIN};
    enum dc_err err = get_encoded(m, &f);
    uint32_t links = err == DC_OK && f.found ? meta_chain_count(buf_bytes(&f.payload)) : 0;
    *count = 0;
    if (links > max) {
        err = dc_fail(DC_ELIMIT, "the chain of histories has %u links, more than %u", links, max);
        links = 0;
    }
    for (; *count < links; (*count)++) {
        out[*count] = meta_chain_link(buf_bytes(&f.payload), *count);
    }
    buf_fini(&f.payload);
    return err;
}

enum dc_err meta_put_chain(struct meta *m, const struct history *chain, uint32_t count) {
    struct buf payload;
    buf_init(&payload, 0);
    meta_chain_encode(chain, count, &payload);
    return put_encoded(m, META_CHAIN, "chain", &payload);
}

enum dc_err meta_get_text(struct meta *m, const char *name, char *out, size_t size) {
    struct fetched f = {.name = name, .kind = META_TEXT};
    dc_assert(size > 0 && *name != '\0');
    out[0] = '\0';
    enum dc_err err = get_encoded(m, &f);
    if (err == DC_OK && f.payload.len >= size) {
        err = dc_fail(DC_ELIMIT, "the text %s has %zu bytes", name, f.payload.len);
    } else if (err == DC_OK && f.payload.len > 0) {
        memcpy(out, f.payload.ptr, f.payload.len);
        out[f.payload.len] = '\0';
    }
    buf_fini(&f.payload);
    return err;
}

enum dc_err meta_put_text(struct meta *m, const char *name, const char *value) {
    struct record r = {META_TEXT, name, bytes_str(value)};
    dc_assert(*name != '\0' && strlen(name) < META_TEXT_NAME_MAX);
    if (r.payload.len >= META_TEXT_MAX) {
        return dc_fail(DC_ELIMIT, "the text %s is longer than %d bytes", name, META_TEXT_MAX - 1);
    }
    return run(m, true, name, put_record, &r);
}

/* Names and texts, each with its NUL. */
static int collect_text(void *arg, struct bytes name, struct bytes payload) {
    struct buf *to = arg;
    buf_append_bytes(to, name);
    buf_append(to, "", 1);
    buf_append_bytes(to, payload);
    buf_append(to, "", 1);
    return to->failed ? ENOMEM : 0;
}

static int collect_texts(struct meta *m, MDB_txn *txn, void *arg) {
    buf_reset(arg, SIZE_MAX);
    return each_value(m, txn, META_TEXT, collect_text, arg);
}

enum dc_err meta_each_text(struct meta *m, meta_text_fn each, void *arg) {
    struct buf all;
    buf_init(&all, 0);
    enum dc_err err = run(m, false, "texts", collect_texts, &all);
    for (size_t at = 0; err == DC_OK && at < all.len;) {
        const char *name = all.ptr + at;
        const char *value = name + strlen(name) + 1;
        each(arg, name, value);
        at = (size_t)(value + strlen(value) + 1 - all.ptr);
    }
    buf_fini(&all);
    return err;
}

/* --- the catalogue ------------------------------------------------------------------------------------------------------ */

struct file_set {
    const struct meta_file *files;
    uint32_t count;
};

static int put_files(struct meta *m, MDB_txn *txn, void *arg) {
    const struct file_set *set = arg;
    char raw[META_FILE_LEN];
    int rc = 0;
    for (uint32_t i = 0; i < set->count && rc == 0; i++) {
        struct buf payload = {.ptr = raw, .cap = sizeof(raw), .limit = sizeof(raw)};
        meta_file_encode(&set->files[i], &payload);
        dc_assert(payload.len == META_FILE_LEN && set->files[i].name[0] != '\0');
        rc = put_value(m, txn, META_FILE, set->files[i].name, buf_bytes(&payload));
    }
    return rc;
}

static int set_files(struct meta *m, MDB_txn *txn, void *arg) {
    int rc = mdb_drop(txn, m->dbi[META_FILE], 0);
    return rc == 0 ? put_files(m, txn, arg) : rc;
}

static int drop_files(struct meta *m, MDB_txn *txn, void *arg) {
    const struct file_set *set = arg;
    for (uint32_t i = 0; i < set->count; i++) {
        MDB_val key = name_val(set->files[i].name);
        int rc = mdb_del(txn, m->dbi[META_FILE], &key, NULL);
        if (rc != 0 && rc != MDB_NOTFOUND) {
            return rc;
        }
    }
    return 0;
}

enum dc_err meta_put_file(struct meta *m, const struct meta_file *f) {
    struct file_set set = {f, 1};
    return run(m, true, f->name, put_files, &set);
}

enum dc_err meta_set_files(struct meta *m, const struct meta_file *files, uint32_t count) {
    struct file_set set = {files, count};
    return run(m, true, "catalogue", set_files, &set);
}

enum dc_err meta_drop_files(struct meta *m, const struct meta_file *files, uint32_t count) {
    struct file_set set = {files, count};
    return count == 0 ? DC_OK : run(m, true, "catalogue", drop_files, &set);
}

enum dc_err meta_drop_file(struct meta *m, const char *name) {
    struct meta_file f = {.kind = FILE_SEGMENT};
    snprintf(f.name, sizeof(f.name), "%s", name);
    return meta_drop_files(m, &f, 1);
}

static int collect_file(void *arg, struct bytes name, struct bytes payload) {
    struct buf *to = arg;
    struct meta_file f;
    if (!meta_file_decode(name, payload, &f)) {
        return MDB_CORRUPTED;
    }
    buf_append(to, &f, sizeof(f));
    return to->failed ? ENOMEM : 0;
}

static int collect_files(struct meta *m, MDB_txn *txn, void *arg) {
    buf_reset(arg, SIZE_MAX);
    return each_value(m, txn, META_FILE, collect_file, arg);
}

static int compare_files(const void *a, const void *b) {
    const struct meta_file *x = a;
    const struct meta_file *y = b;
    if (x->kind != y->kind) {
        return x->kind < y->kind ? -1 : 1;
    }
    if (x->first_lsn != y->first_lsn) {
        return x->first_lsn < y->first_lsn ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

enum dc_err meta_each_file(struct meta *m, meta_file_fn each, void *arg) {
    struct buf all;
    buf_init(&all, 0);
    enum dc_err err = run(m, false, "catalogue", collect_files, &all);
    if (err == DC_OK && all.len > 0) {
        struct meta_file *files = (struct meta_file *)(void *)all.ptr;
        size_t count = all.len / sizeof(*files);
        qsort(files, count, sizeof(*files), compare_files);
        for (size_t i = 0; i < count; i++) {
            each(arg, &files[i]);
        }
    }
    buf_fini(&all);
    return err;
}
