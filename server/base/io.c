/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/io.h"

#include "server/base/assert.h"
#include "server/base/codec.h"
#include "server/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    FILE_RIGHTS = 0640,
    DIR_RIGHTS = 0750,
    ZEROS_LEN = 64 * 1024, /* written at once where the file system can't allocate */
    CHUNK_LEN = 256 * 1024,
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

static uint64_t posix_data_end(const struct io *io, struct io_file *f, uint64_t from, uint64_t to) {
    uint64_t end = from;
    (void)io;
    while (end < to) {
        off_t data = lseek(f->fd, (off_t)end, SEEK_DATA);
        off_t hole = data < 0 ? data : lseek(f->fd, data, SEEK_HOLE);
        if (hole < 0) {
            return data < 0 && errno == ENXIO ? end : to; /* nothing but a hole follows */
        }
        if ((uint64_t)data >= to) {
            return end;
        }
        end = (uint64_t)hole;
    }
    return to;
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

static int posix_link(const struct io *io, const char *from, const char *to) {
    (void)io;
    return link(from, to) == 0 ? 0 : -errno;
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

static int posix_rmdir(const struct io *io, const char *path) {
    (void)io;
    return rmdir(path) == 0 ? 0 : -errno;
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

/* --- maps -------------------------------------------------------------------------------------------- */

/* Every map is noted, so that the handler of SIGBUS knows which faults are ours: it puts a page of zeros where one is missing,
 * and says so here. Notes are never freed, only used again: the handler goes through them without a lock. */
struct map_note {
    struct map_note *next; /* constant */
    _Atomic bool taken;
    _Atomic uintptr_t start;
    _Atomic uint64_t len;                  /* 0 = no map */
    _Atomic uintptr_t lost_from, lost_end; /* around all that couldn't be read; empty: from > end */
};

static _Atomic(struct map_note *) map_notes;
static _Atomic uint32_t fault_count;
static size_t page_len; /* constant after io_catch_faults() */

static struct map_note *note_take(void) {
    struct map_note *first = atomic_load(&map_notes);
    for (struct map_note *n = first; n != NULL; n = n->next) {
        if (!atomic_exchange(&n->taken, true)) {
            return n;
        }
    }
    struct map_note *n = mem_must_zalloc(sizeof(*n));
    atomic_store(&n->taken, true);
    do {
        n->next = first;
    } while (!atomic_compare_exchange_weak(&map_notes, &first, n));
    return n;
}

/* The note of the map that holds an address, which stays while we look; NULL: it is in none. Others may come and go: what is read of
 * them counts only when it belongs together. */
static struct map_note *note_find(uintptr_t at) {
    for (struct map_note *n = atomic_load(&map_notes); n != NULL; n = n->next) {
        uint64_t len = atomic_load(&n->len);
        uintptr_t start = atomic_load(&n->start);
        if (at >= start && at - start < len && atomic_load(&n->len) == len) {
            return n;
        }
    }
    return NULL;
}

static void note_lost(struct map_note *n, uintptr_t from, uintptr_t end) {
    uintptr_t old = atomic_load(&n->lost_from);
    while (old > from && !atomic_compare_exchange_weak(&n->lost_from, &old, from)) {}
    old = atomic_load(&n->lost_end);
    while (old < end && !atomic_compare_exchange_weak(&n->lost_end, &old, end)) {}
}

/* A page can't be read. */
static void on_fault(int number, siginfo_t *info, void *context) {
    int saved = errno;
    uintptr_t page = (uintptr_t)info->si_addr & ~(uintptr_t)(page_len - 1);
    struct map_note *n = info->si_code > 0 ? note_find(page) : NULL;
    (void)context;
    if (n != NULL) {
        note_lost(n, page, page + page_len);
        atomic_fetch_add(&fault_count, 1);
    }
    void *at = (void *)page; /* NOLINT(performance-no-int-to-ptr) */
    if (n == NULL || mmap(at, page_len, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                          0) == MAP_FAILED) {
        signal(number, SIG_DFL); /* it comes again at once, and ends the process */
    }
    errno = saved;
}

void io_catch_faults(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    page_len = (size_t)sysconf(_SC_PAGESIZE);
    int rc = sigaction(SIGBUS, &action, NULL);
    dc_assert(rc == 0);
}

static const void *posix_map(const struct io *io, struct io_file *f, uint64_t len) {
    (void)io;
    dc_assert(len > 0);
    void *ptr = mmap(NULL, len, PROT_READ, MAP_SHARED, f->fd, 0);
    if (ptr == MAP_FAILED) {
        return NULL;
    }
    struct map_note *n = note_take();
    atomic_store(&n->lost_from, UINTPTR_MAX);
    atomic_store(&n->lost_end, 0);
    atomic_store(&n->start, (uintptr_t)ptr);
    atomic_store(&n->len, len);
    return ptr;
}

static bool posix_lost(const struct io *io, const void *ptr, uint64_t len) {
    (void)io;
    if (dc_likely(atomic_load(&fault_count) == 0)) {
        return false;
    }
    uintptr_t at = (uintptr_t)ptr;
    const struct map_note *n = note_find(at);
    dc_assert(n != NULL);
    return at < atomic_load(&n->lost_end) && at + len > atomic_load(&n->lost_from);
}

static void posix_unmap(const struct io *io, const void *ptr, uint64_t len) {
    (void)io;
    struct map_note *n = note_find((uintptr_t)ptr);
    dc_assert(n != NULL && atomic_load(&n->len) == len);
    atomic_store(&n->len, 0); /* before the kernel gives the place away again */
    atomic_store(&n->taken, false);
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
    .link = posix_link,
    .unlink = posix_unlink,
    .mkdir = posix_mkdir,
    .rmdir = posix_rmdir,
    .sync_dir = posix_sync_dir,
    .list = posix_list,
    .size = posix_size,
    .data_end = posix_data_end,
    .map = posix_map,
    .lost = posix_lost,
    .unmap = posix_unmap,
};

static size_t nonzero_len(const char *bytes, size_t len) {
    while (len >= 8 && get_u64(bytes + len - 8) == 0) {
        len -= 8;
    }
    while (len > 0 && bytes[len - 1] == 0) {
        len--;
    }
    return len;
}

/* Read, not mapped: it may be all the room that a file was given. */
int64_t io_junk_len(const struct io *io, struct io_file *f, uint64_t from, uint64_t to) {
    uint64_t end = io->data_end(io, f, from, to);
    char *chunk = mem_must_alloc(CHUNK_LEN);
    int64_t junk = 0;
    while (end > from && junk == 0) {
        size_t want = end - from < CHUNK_LEN ? (size_t)(end - from) : CHUNK_LEN;
        ssize_t got = io->read_at(io, f, chunk, want, end - want);
        size_t len = got == (ssize_t)want ? nonzero_len(chunk, want) : 0;
        end -= want;
        if (got != (ssize_t)want) {
            junk = got < 0 ? got : -EIO;
        } else if (len > 0) {
            junk = (int64_t)(end + len - from);
        }
    }
    mem_free(chunk);
    return junk;
}
