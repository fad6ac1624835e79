/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/new_dir.h"

#include "persist/segment_fmt.h"
#include "persist/snap_fmt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Where the rest of the name is 'incomplete'. */
static const char UNFINISHED[] = ".incomplete";

static enum dc_err failed(const char *what, const char *path, int err) {
    return dc_fail(DC_EIO, "%s %s: %s", what, path, dc_errno_text(-err));
}

static void note_entry(void *arg, const char *name) {
    (void)name;
    ++*(uint32_t *)arg;
}

/* Slashes behind it don't belong to a name. */
static size_t name_len(const char *path) {
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') {
        len--;
    }
    return len;
}

static bool is_unfinished(const char *path, size_t len) {
    size_t tail = strlen(UNFINISHED);
    return len > tail && memcmp(path + len - tail, UNFINISHED, tail) == 0;
}

enum dc_err new_dir_check(const struct io *io, const char *path) {
    uint32_t entries = 0;
    if (path[0] == '\0' || strlen(path) > PATH_MAX - 2 * sizeof(UNFINISHED)) {
        return dc_fail(DC_EGENERIC, "'%.64s' isn't the name of a directory", path);
    }
    if (is_unfinished(path, name_len(path))) {
        return dc_fail(DC_EGENERIC,
                       "%.300s: a name that ends in %s is that of a directory that isn't finished; "
                       "choose another one",
                       path, UNFINISHED);
    }
    int rc = io->list(io, path, note_entry, &entries);
    if (rc < 0) {
        return rc == -ENOENT ? DC_OK : failed("open", path, rc);
    }
    return entries == 0 ? DC_OK : dc_fail(DC_EGENERIC, "the directory %s isn't empty", path);
}

/* --- what was begun ---------------------------------------------------------------------------------- */

/* A name that a backup or a restored directory gives to a file. */
static bool is_part(const char *name) {
    uint64_t lsn, history;
    char snapshot[SNAP_NAME_MAX];
    snprintf(snapshot, sizeof(snapshot), "%s", name);
    char *ending = strrchr(snapshot, '.');
    if (ending != NULL && strcmp(ending, ".tmp") == 0) { /* it was being written */
        memcpy(ending, ".dcs", 4);
    }
    return snap_name_parse(snapshot, &lsn, &history) || segment_name_parse(name, &lsn, &history) ||
           strcmp(name, BACKUP_MANIFEST) == 0;
}

static void remove_part(void *arg, const char *name) {
    const struct new_dir *d = arg;
    char path[2 * PATH_MAX];
    if (is_part(name)) {
        snprintf(path, sizeof(path), "%s/%s", d->work, name);
        (void)d->io->unlink(d->io, path);
    }
}

void new_dir_drop(struct new_dir *d) {
    if (d->io->list(d->io, d->work, remove_part, d) >= 0) {
        (void)d->io->rmdir(d->io, d->work);
    }
}

void new_dir_beside(const char *path, const char *suffix, char to[PATH_MAX]) {
    snprintf(to, PATH_MAX, "%.*s%s", (int)name_len(path), path, suffix);
}

enum dc_err new_dir_begin(struct new_dir *d, const struct io *io, const char *path) {
    uint32_t entries = 0;
    enum dc_err err = new_dir_check(io, path);
    if (err != DC_OK) {
        return err;
    }
    d->io = io;
    new_dir_beside(path, "", d->path);
    new_dir_beside(path, UNFINISHED, d->work);
    new_dir_drop(d); /* of a process that died */
    if (io->list(io, d->work, note_entry, &entries) >= 0) {
        return dc_fail(DC_EIO, "%s is there and has something else in it", d->work);
    }
    int rc = io->mkdir(io, d->work);
    return rc < 0 ? failed("mkdir", d->work, rc) : DC_OK;
}

/* --- its name ---------------------------------------------------------------------------------------- */

/* The directory that holds the name. */
static void parent_of(const char *path, char to[PATH_MAX]) {
    snprintf(to, PATH_MAX, "%.*s", (int)name_len(path), path);
    char *slash = strrchr(to, '/');
    if (slash == NULL) {
        snprintf(to, PATH_MAX, ".");
    } else {
        slash[slash == to ? 1 : 0] = '\0';
    }
}

enum dc_err new_dir_publish(const struct new_dir *d) {
    char parent[PATH_MAX];
    parent_of(d->path, parent);
    int rc = d->io->sync_dir(d->io, d->work);
    if (rc < 0) {
        return failed("sync of", d->work, rc);
    }
    rc = d->io->rename(d->io, d->work, d->path);
    if (rc < 0) {
        return failed("rename to", d->path, rc);
    }
    rc = d->io->sync_dir(d->io, parent);
    return rc < 0 ? failed("sync of", parent, rc) : DC_OK;
}

enum dc_err new_dir_check_finished(const char *dir) {
    char real[PATH_MAX];
    const char *name = realpath(dir, real) != NULL ? real : dir;
    if (!is_unfinished(name, strlen(name))) {
        return DC_OK;
    }
    return dc_fail(DC_ECORRUPT,
                   "%.300s was never finished: what wrote this backup, or restored this directory, "
                   "was broken off. What is in it is saved by: dcache-restore --repair %.300s <new "
                   "dir>",
                   name, name);
}

enum dc_err new_dir_check_outside(const char *path, const char *dir) {
    char parent[PATH_MAX];
    struct stat around, inside;
    parent_of(path, parent);
    if (stat(parent, &around) != 0 || stat(dir, &inside) != 0 || around.st_dev != inside.st_dev ||
        around.st_ino != inside.st_ino) {
        return DC_OK;
    }
    return dc_fail(
        DC_EGENERIC,
        "%.300s would lie in the data directory, where a start may take it for something "
        "else and remove it. Choose a place outside, such as /backup/monday",
        path);
}
