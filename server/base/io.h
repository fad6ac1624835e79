/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * io: what persistence asks of a file system, as a table of functions.
 *
 * Purpose: the real one (io_posix) for the node; tests put a simulated disk, a full or a failing one behind the same
 *   table, and record the order of calls.
 * Threads: any; an io_file belongs to whoever opened it, several threads may read and write it at different places.
 * Failure: functions return 0 or a length, or -errno. Short reads and writes and EINTR are dealt with inside: io_read_at
 *   returns less than 'len' only at the end of the file, io_write_at never returns less.
 */
#ifndef DC_BASE_IO_H
#define DC_BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

enum io_mode {
    IO_READ,   /* must exist */
    IO_WRITE,  /* must exist; reads too */
    IO_CREATE, /* must not exist; reads too */
};

struct io_file {
    int fd;          /* real or simulated */
    uint64_t cookie; /* for simulations */
};

typedef void (*io_name_fn)(void *arg,
                           const char *name); /* entries of a directory, without . and .. */

struct io {
    int (*open)(const struct io *io, const char *path, enum io_mode mode, struct io_file *out);
    void (*close)(const struct io *io, struct io_file *f);
    ssize_t (*read_at)(const struct io *io, struct io_file *f, void *to, size_t len, uint64_t at);
    ssize_t (*write_at)(const struct io *io, struct io_file *f, const struct iovec *iov, int count,
                        uint64_t at);
    int (*allocate)(const struct io *io, struct io_file *f,
                    uint64_t len); /* blocks for 0..len; the file grows to len */
    int (*truncate)(const struct io *io, struct io_file *f, uint64_t len);
    int (*sync)(const struct io *io, struct io_file *f); /* fdatasync */
    int64_t (*size)(const struct io *io, struct io_file *f);
    /* What was allocated and never written needn't be read to know that it is zeros: the end of what may be something else, of the bytes between 'from' and
     * 'to'. 'to' where nobody knows. */
    uint64_t (*data_end)(const struct io *io, struct io_file *f, uint64_t from, uint64_t to);
    int (*rename)(const struct io *io, const char *from, const char *to); /* directories, too */
    int (*link)(const struct io *io, const char *from,
                const char *to); /* a second name of a file */
    int (*unlink)(const struct io *io, const char *path);
    int (*mkdir)(const struct io *io, const char *path); /* 0 also when it is there */
    int (*rmdir)(const struct io *io, const char *path); /* an empty one */
    int (*sync_dir)(const struct io *io, const char *path);
    int (*list)(const struct io *io, const char *path, io_name_fn each, void *arg);
    /* A read-only view of 'len' bytes from 0; NULL when it can't be had. The posix one maps, a simulation copies. A page that can't be
     * read when somebody looks (the disk fails, or somebody has cut the file) shows zeros: whoever believes what he saw asks lost() first,
     * whether there was one among these bytes of a map. */
    const void *(*map)(const struct io *io, struct io_file *f, uint64_t len);
    bool (*lost)(const struct io *io, const void *ptr, uint64_t len);
    void (*unmap)(const struct io *io, const void *ptr, uint64_t len);
    void *arg; /* of a simulation */
};

extern const struct io io_posix;

/* How many of the bytes between 'from' and 'to', from the first one to the last that isn't zero. Negative: -errno; -EIO also when the file ends before. */
int64_t io_junk_len(const struct io *io, struct io_file *f, uint64_t from, uint64_t to);

/* Makes good for io_posix what map() says of pages that can't be read: it takes the signal SIGBUS, which ends the process otherwise. Called
 * by main(), once. */
void io_catch_faults(void);

#endif
