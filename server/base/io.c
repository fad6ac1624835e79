/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/io.h"

#include "server/base/assert.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    FILE_RIGHTS = 0640,
    DIR_RIGHTS = 0750,
    ZEROS_LEN = 64 * 1024, /* written at once where the file system can't allocate */
};

static int posix_open(const struct io *io, const char *path, enum io_mode mode,
                      struct io_file *out) {
    (void)io;
    int flags = O_CLOEXEC;
    switch (mode) {
    case IO_READ:
        flags |= O_RDONLY;
        break;
    case IO_WRITE:
        flags |= O_RDWR;
        break;
    case IO_CREATE:
        flags |= O_RDWR | O_CREAT | O_EXCL;
        break;
    }
    int fd;
    do {
        fd = open(path, flags, FILE_RIGHTS);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        return -errno;
    }
    *out = (struct io_file){.fd = fd};
    return 0;
}

static void posix_close(const struct io *io, struct io_file *f) {
    (void)io;
    dc_assert(f->fd >= 0);
    close(f->fd); /* what it has to report, fdatasync has reported */
    f->fd = -1;
}

static ssize_t posix_read_at(const struct io *io, struct io_file *f, void *to, size_t len,
                             uint64_t at) {
    (void)io;
    dc_assert(len <= SSIZE_MAX);
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(f->fd, (char *)to + done, len - done, (off_t)(at + done));
        if (n == 0) {
            break;
        }
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return (ssize_t)done;
}

/* Where a write stands that was done in parts: 'skip' bytes of iov[index] are written. */
struct write_place {
    int index;
    size_t skip;
};

static void write_advance(struct write_place *p, const struct iovec *iov, int count, size_t n) {
    while (p->index < count && n >= iov[p->index].iov_len - p->skip) {
        n -= iov[p->index].iov_len - p->skip;
        p->index++;
        p->skip = 0;
    }
    p->skip += n;
    dc_assert(p->index < count || p->skip == 0);
}

static ssize_t posix_write_at(const struct io *io, struct io_file *f, const struct iovec *iov,
                              int count, uint64_t at) {
    (void)io;
    struct write_place place = {0, 0};
    size_t done = 0;
    write_advance(&place, iov, count, 0); /* over empty pieces */
    while (place.index < count) {
        const struct iovec *v = &iov[place.index];
        int pieces = count - place.index < IOV_MAX ? count - place.index : IOV_MAX;
        ssize_t n = place.skip == 0 ? pwritev(f->fd, v, pieces, (off_t)(at + done))
                                    : pwrite(f->fd, (const char *)v->iov_base + place.skip,
                                             v->iov_len - place.skip, (off_t)(at + done));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -EIO;
        }
        done += (size_t)n;
        write_advance(&place, iov, count, (size_t)n);
    }
    return (ssize_t)done;
}

static int64_t posix_size(const struct io *io, struct io_file *f) {
    (void)io;
    struct stat st;
    return fstat(f->fd, &st) == 0 ? (int64_t)st.st_size : -(int64_t)errno;
}

/* For file systems that can't allocate: our files have no holes below their size, so zeros behind it do the same. */
static int write_zeros(const struct io *io, struct io_file *f, uint64_t len) {
    static const char zeros[ZEROS_LEN];
    int64_t size = posix_size(io, f);
    if (size < 0) {
        return (int)size;
    }
    for (uint64_t at = (uint64_t)size; at < len;) {
        uint64_t left = len - at;
        /* iovec has no const; nobody writes through it */
        struct iovec v = {(void *)(uintptr_t)zeros, left < ZEROS_LEN ? (size_t)left : ZEROS_LEN};
        ssize_t n = posix_write_at(io, f, &v, 1, at);
        if (n < 0) {
            return (int)n;
        }
        at += (uint64_t)n;
    }
    return 0;
}

static int posix_allocate(const struct io *io, struct io_file *f, uint64_t len) {
    if (len == 0) {
        return 0;
    }
    int rc;
    do {
        rc = fallocate(f->fd, 0, 0, (off_t)len);
    } while (rc != 0 && errno == EINTR);
    if (rc == 0) {
        return 0;
    }
    return errno == EOPNOTSUPP || errno == ENOSYS ? write_zeros(io, f, len) : -errno;
}

static int posix_truncate(const struct io *io, struct io_file *f, uint64_t len) {
    (void)io;
    int rc;
    do {
        rc = ftruncate(f->fd, (off_t)len);
    } while (rc != 0 && errno == EINTR);
    return rc == 0 ? 0 : -errno;
}

/* No second try after a failure: the kernel has forgotten by then what it couldn't write. */
static int posix_sync(const struct io *io, struct io_file *f) {
    (void)io;
    return fdatasync(f->fd) == 0 ? 0 : -errno;
}

static int posix_rename(const struct io *io, const char *from, const char *to) {
    (void)io;
    return rename(from, to) == 0 ? 0 : -errno;
}

static int posix_unlink(const struct io *io, const char *path) {
    (void)io;
    return unlink(path) == 0 ? 0 : -errno;
}

static int posix_mkdir(const struct io *io, const char *path) {
    (void)io;
    struct stat st;
    if (mkdir(path, DIR_RIGHTS) == 0) {
        return 0;
    }
    int err = errno;
    return err == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? 0 : -err;
}

static int posix_sync_dir(const struct io *io, const char *path) {
    (void)io;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    int rc = fsync(fd) == 0 ? 0 : -errno;
    close(fd);
    return rc;
}

static int posix_list(const struct io *io, const char *path, io_name_fn each, void *arg) {
    (void)io;
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return -errno;
    }
    int rc = 0;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL) {
            rc = -errno;
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            each(arg, entry->d_name);
        }
    }
    closedir(dir);
    return rc;
}

static const void *posix_map(const struct io *io, struct io_file *f, uint64_t len) {
    (void)io;
    dc_assert(len > 0);
    void *ptr = mmap(NULL, len, PROT_READ, MAP_SHARED, f->fd, 0);
    return ptr == MAP_FAILED ? NULL : ptr;
}

static void posix_unmap(const struct io *io, const void *ptr, uint64_t len) {
    (void)io;
    int rc = munmap((void *)(uintptr_t)ptr, len);
    dc_assert(rc == 0);
}

const struct io io_posix = {
    .open = posix_open,
    .close = posix_close,
    .read_at = posix_read_at,
    .write_at = posix_write_at,
    .allocate = posix_allocate,
    .truncate = posix_truncate,
    .sync = posix_sync,
    .rename = posix_rename,
    .unlink = posix_unlink,
    .mkdir = posix_mkdir,
    .sync_dir = posix_sync_dir,
    .list = posix_list,
    .size = posix_size,
    .map = posix_map,
    .unmap = posix_unmap,
};
