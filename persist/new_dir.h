/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * new_dir: a directory that has its name when all that it is to hold is there and durable: a backup, a restored data directory.
 *
 *     new_dir_begin() -> <name>.incomplete     files, each synced by who writes it     new_dir_publish() -> <name>
 *
 * Invariants: I1 under its name it is whole, whatever is cut off. I2 what was begun and not published is removed: by new_dir_drop(), or
 *   when the next one of that name is begun.
 * Threads: one.
 * Failure: DC_EIO; DC_EGENERIC: the name is taken, or can't be taken.
 */
#ifndef DC_PERSIST_NEW_DIR_H
#define DC_PERSIST_NEW_DIR_H

#include <limits.h>
#include <stdbool.h>

#include "server/base/err.h"
#include "server/base/io.h"

#define BACKUP_MANIFEST "backup.json"

struct new_dir {
    const struct io *io;
    char path[PATH_MAX];
    char work[PATH_MAX]; /* its name while it is being filled */
};

/* Whether the name can be taken: it isn't there, or is an empty directory, and isn't one of what is unfinished. */
DC_MUST enum dc_err new_dir_check(const struct io *io, const char *path);
DC_MUST enum dc_err new_dir_begin(struct new_dir *d, const struct io *io, const char *path);
DC_MUST enum dc_err new_dir_publish(const struct new_dir *d);
void new_dir_drop(struct new_dir *d);
/* The name with something behind it: in the same directory, so on the same file system. */
void new_dir_beside(const char *path, const char *suffix, char to[PATH_MAX]);

/* Of the real file system: was it begun and never published? What is in it may be a part. Errors: DC_ECORRUPT then. */
DC_MUST enum dc_err new_dir_check_finished(const char *dir);
/* Of the real file system: names in a data directory are its node's. Errors: DC_EGENERIC when 'path' is one of 'dir'. */
DC_MUST enum dc_err new_dir_check_outside(const char *path, const char *dir);

#endif
