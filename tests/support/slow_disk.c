/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * slow_disk: a library to preload (support/disk.py): calls that reach the disk are late or fail, as long as a shared page of memory says so
 * (preload.h). The page is the file that the environment names in SLOW_DISK. Only files that end in .dcl, .dcs or .tmp are meant, or directories. LMDB's have a field of their own.
 */
#include "tests/support/preload.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

enum { NAP_MS = 5 };

/* Written by the test. */
struct control {
    _Atomic uint32_t
        sync_ms; /* how long an fdatasync takes; becomes shorter in the middle of one */
    _Atomic uint32_t sync_errno;  /* what it fails with */
    _Atomic uint32_t write_errno; /* what pwritev, fallocate and the creation of files fail with */
    _Atomic uint32_t syncs;       /* counted here */
    _Atomic uint32_t meta_ms;     /* how long an fdatasync of LMDB's file takes */
    _Atomic uint32_t meta_errno;  /* what it fails with */
    _Atomic uint32_t write_ms; /* how long a pwritev takes; becomes shorter in the middle of one */
    _Atomic uint32_t read_ms;  /* likewise a pread */
    _Atomic uint32_t snap_errno; /* what pwritev and fallocate of a snapshot fail with */
};

static struct control *control(void) {
    static struct control *page;
    page = page == NULL ? preload_page("SLOW_DISK") : page;
    return page;
}

static void *next_of(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (found == NULL) {
        abort();
    }
    return found;
}

static ssize_t path_of(int fd, char path[512]) {
    char link[64];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, 511);
    len = len < 4 ? 0 : len;
    path[len] = '\0';
    return len;
}

/* How the file's name ends. */
static void name_end(int fd, char end[5]) {
    char path[512];
    ssize_t len = path_of(fd, path);
    snprintf(end, 5, "%s", path + (len < 4 ? 0 : len - 4));
}

static bool is_meant(int fd) {
    char end[5];
    name_end(fd, end);
    return strcmp(end, ".dcl") == 0 || strcmp(end, ".dcs") == 0 || strcmp(end, ".tmp") == 0;
}

static bool is_snapshot(int fd) {
    char path[512];
    (void)path_of(fd, path);
    return strstr(path, "/snap-") != NULL;
}

static bool is_meta(int fd) {
    char end[5];
    name_end(fd, end);
    return strcmp(end, ".mdb") == 0;
}

static void nap(uint32_t ms) {
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

static void hang(const _Atomic uint32_t *ms) {
    for (uint32_t passed = 0; passed < atomic_load(ms); passed += NAP_MS) {
        nap(NAP_MS);
    }
}

int fdatasync(int fd) {
    int (*real)(int) = (int (*)(int))next_of("fdatasync");
    struct control *c = control();
    bool meta = c != NULL && is_meta(fd);
    if (c == NULL || (!meta && !is_meant(fd))) {
        return real(fd);
    }
    hang(meta ? &c->meta_ms : &c->sync_ms);
    int err = (int)atomic_load(meta ? &c->meta_errno : &c->sync_errno);
    atomic_fetch_add(&c->syncs, !meta);
    if (err != 0) {
        errno = err;
        return -1;
    }
    return real(fd);
}

static bool refused(int fd) {
    struct control *c = control();
    int err = c == NULL ? 0 : (int)atomic_load(&c->write_errno);
    if (err != 0 && is_meant(fd)) {
        errno = err;
        return true;
    }
    err = c == NULL ? 0 : (int)atomic_load(&c->snap_errno);
    if (err != 0 && is_snapshot(fd)) {
        errno = err;
        return true;
    }
    return false;
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t at) {
    ssize_t (*real)(int, const struct iovec *, int, off_t) =
        (ssize_t(*)(int, const struct iovec *, int, off_t))next_of("pwritev");
    struct control *c = control();
    if (c != NULL && atomic_load(&c->write_ms) > 0 && is_meant(fd)) {
        hang(&c->write_ms);
    }
    return refused(fd) ? -1 : real(fd, iov, count, at);
}

ssize_t pread(int fd, void *to, size_t len, off_t at) {
    ssize_t (*real)(int, void *, size_t, off_t) =
        (ssize_t(*)(int, void *, size_t, off_t))next_of("pread");
    struct control *c = control();
    if (c != NULL && atomic_load(&c->read_ms) > 0 && is_meant(fd)) {
        hang(&c->read_ms);
    }
    return real(fd, to, len, at);
}

int fallocate(int fd, int mode, off_t at, off_t len) {
    int (*real)(int, int, off_t, off_t) = (int (*)(int, int, off_t, off_t))next_of("fallocate");
    return refused(fd) ? -1 : real(fd, mode, at, len);
}
