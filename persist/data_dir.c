/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/data_dir.h"

#include "server/base/time.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static enum dc_err refuse(const char *dir, int fd) {
    char holder[32] = "";
    ssize_t len = pread(fd, holder, sizeof(holder) - 1, 0);
    holder[len > 0 ? strspn(holder, "0123456789") : 0] = '\0';
    return dc_fail(DC_EDIRBUSY, "the data directory %s is in use by another process (pid %s)", dir,
                   holder[0] != '\0' ? holder : "unknown");
}

static enum dc_err lock_file(const char *dir, const char *path, int fd) {
    char text[32];
    int len = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        return errno == EWOULDBLOCK ? refuse(dir, fd)
                                    : dc_fail(DC_EIO, "lock %s: %s", path, dc_errno_text(errno));
    }
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)len, 0) != len) {
        return dc_fail(DC_EIO, "write %s: %s", path, dc_errno_text(errno));
    }
    return DC_OK;
}

/* Room for a suffix is left. */
static enum dc_err join(const char *dir, const char *name, char to[PATH_MAX]) {
    int len = snprintf(to, PATH_MAX, "%s/%s", dir, name);
    return len > 0 && len < PATH_MAX - 64 ? DC_OK : dc_fail(DC_EIO, "the path %s is too long", dir);
}

enum dc_err data_lock(const char *dir, int *fd_out) {
    char path[PATH_MAX];
    *fd_out = -1;
    enum dc_err err = join(dir, "LOCK", path);
    if (err != DC_OK) {
        return err;
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) {
        return dc_fail(DC_EIO, "open %s: %s", path, dc_errno_text(errno));
    }
    err = lock_file(dir, path, fd);
    if (err != DC_OK) {
        close(fd);
        return err;
    }
    *fd_out = fd;
    return DC_OK;
}

enum dc_err data_dir_sync(const char *dir) {
    enum dc_err err = DC_OK;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) {
        err = dc_fail(DC_EIO, "sync of %s: %s", dir, dc_errno_text(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
    return err;
}

enum dc_err data_dir_make(const char *dir, const char *name) {
    char path[PATH_MAX];
    enum dc_err err = join(dir, name, path);
    if (err != DC_OK) {
        return err;
    }
    if (mkdir(path, 0755) == 0) {
        return data_dir_sync(dir);
    }
    return errno == EEXIST ? DC_OK : dc_fail(DC_EIO, "mkdir %s: %s", path, dc_errno_text(errno));
}

enum dc_err data_dir_remove(const char *dir, const char *name) {
    char path[PATH_MAX], file[PATH_MAX + 256];
    enum dc_err err = join(dir, name, path);
    DIR *d = err == DC_OK ? opendir(path) : NULL;
    if (d == NULL) {
        return err != DC_OK || errno == ENOENT
                   ? err
                   : dc_fail(DC_EIO, "open %s: %s", path, dc_errno_text(errno));
    }
    for (const struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && unlink(file) != 0) {
            err = dc_fail(DC_EIO, "remove %s: %s", file, dc_errno_text(errno));
            break;
        }
    }
    closedir(d);
    if (err == DC_OK && rmdir(path) != 0) {
        err = dc_fail(DC_EIO, "remove %s: %s", path, dc_errno_text(errno));
    }
    return err != DC_OK ? err : data_dir_sync(dir);
}

enum dc_err data_dir_move_aside(const char *dir, const char *name) {
    char from[PATH_MAX];
    char to[PATH_MAX + 64];
    int64_t now_ms = time_wall_us() / 1000;
    enum dc_err err = join(dir, name, from);
    if (err != DC_OK) {
        return err;
    }
    for (int tries = 0; tries < 100; tries++) { /* never over an earlier one */
        snprintf(to, sizeof(to), "%s.damaged-%" PRId64, from, now_ms + tries);
        if (access(to, F_OK) == 0) {
            continue;
        }
        if (rename(from, to) == 0) {
            return data_dir_sync(dir);
        }
        break;
    }
    return dc_fail(DC_EIO, "%s is damaged and can't be moved to %s: %s", from, to,
                   dc_errno_text(errno));
}
