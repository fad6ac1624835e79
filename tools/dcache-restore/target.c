/* SPDX-License-Identifier: BSD-3-Clause */
#include "tools/dcache-restore/target.h"

#include "persist/data_dir.h"
#include "server/base/crypto.h"
#include "server/base/mem.h"
#include "server/base/thread.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DIR_RIGHTS = 0750, THREADS_MAX = 16 };

static enum dc_err failed(const char *what, const char *path) {
    return dc_fail(DC_EIO, "%s %s: %s", what, path, dc_errno_text(errno));
}

enum dc_err target_check(const char *target) {
    DIR *dir = opendir(target);
    bool empty = true;
    if (dir == NULL) {
        return errno == ENOENT && target[0] != '\0' ? DC_OK : failed("open", target);
    }
    for (const struct dirent *e = readdir(dir); e != NULL && empty; e = readdir(dir)) {
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    }
    closedir(dir);
    return empty ? DC_OK : dc_fail(DC_EIO, "the directory %s isn't empty", target);
}

/* What an earlier run that was killed has left. */
static void remove_work(const char *work) {
    DIR *dir = opendir(work);
    if (dir == NULL) {
        return;
    }
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (strncmp(e->d_name, "snap-", 5) == 0) {
            (void)unlinkat(dirfd(dir), e->d_name, 0);
        }
    }
    closedir(dir);
    (void)rmdir(work);
}

static uint64_t new_id(void) {
    uint64_t id = 0;
    while (id == 0) {
        crypto_random(&id, sizeof(id));
    }
    return id;
}

/* Who the new directory says that it is. A new node has lived through nothing but this. */
static void set_identity(struct snap_write_opts *o, const struct source *s, bool keep,
                         uint8_t node_id[NODE_ID_LEN], struct history *own) {
    if (keep && s->plan->chain_count > 0) {
        memcpy(node_id, s->plan->node_id, NODE_ID_LEN);
        o->chain = s->plan->chain;
        o->chain_count = s->plan->chain_count;
    } else {
        if (keep) {
            memcpy(node_id, s->plan->node_id, NODE_ID_LEN);
        } else {
            crypto_random(node_id, NODE_ID_LEN);
        }
        *own = (struct history){.id = new_id(), .start = LSN_FIRST, .epoch = 1};
        o->chain = own;
        o->chain_count = 1;
    }
    o->node_id = node_id;
}

static enum dc_err write_snapshot(const char *work, struct source *s, bool keep_identity,
                                  struct snap_written *out) {
    uint32_t cores = thread_cores();
    uint8_t node_id[NODE_ID_LEN];
    struct history own;
    struct snap_write_opts opts = {
        .io = &io_posix,
        .dir = work,
        .store = s->store,
        .lsn = s->end_lsn,
        .seed = s->plan->seed,
        .threads = cores > THREADS_MAX ? THREADS_MAX : cores,
        /* The floor of the new node's clock: what had expired stays expired. */
        .now_ms = s->now_ms > s->image_ms ? s->now_ms : s->image_ms,
    };
    set_identity(&opts, s, keep_identity, node_id, &own);
    return snap_write(&opts, out);
}

static enum dc_err publish(const char *work, const char *target) {
    char parent[PATH_MAX];
    enum dc_err err = data_dir_sync(work);
    if (err != DC_OK) {
        return err;
    }
    if (rename(work, target) != 0) {
        return failed("rename to", target);
    }
    snprintf(parent, sizeof(parent), "%s", target);
    char *slash = strrchr(parent, '/');
    if (slash == NULL) {
        return data_dir_sync(".");
    }
    slash[slash == parent ? 1 : 0] = '\0';
    return data_dir_sync(parent);
}

enum dc_err target_write(const char *target, struct source *s, bool keep_identity,
                         struct snap_written *out) {
    char path[PATH_MAX], work[PATH_MAX];
    size_t len = strlen(target);
    while (len > 1 && target[len - 1] == '/') {
        len--;
    }
    int n = snprintf(path, sizeof(path), "%.*s", (int)len, target);
    int m = snprintf(work, sizeof(work), "%.*s.incomplete", (int)len, target);
    if (n >= (int)sizeof(path) || m >= (int)sizeof(work)) {
        return dc_fail(DC_EIO, "the name of the target is too long");
    }
    remove_work(work);
    if (mkdir(work, DIR_RIGHTS) != 0) {
        return failed("mkdir", work);
    }
    enum dc_err err = write_snapshot(work, s, keep_identity, out);
    err = err != DC_OK ? err : publish(work, path);
    if (err != DC_OK) {
        remove_work(work);
    }
    return err;
}
