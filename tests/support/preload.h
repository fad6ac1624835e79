/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * preload: what libraries share that a test puts before a server's calls (support/disk.py).
 *
 * The test and the library share a page of memory: a file that the environment names.
 */
#ifndef TESTS_SUPPORT_PRELOAD_H
#define TESTS_SUPPORT_PRELOAD_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PRELOAD_PAGE_LEN = 4096 };

/* The page; NULL when the environment has no such name. */
static inline void *preload_page(const char *name) {
    const char *path = getenv(name);
    if (path == NULL) {
        return NULL;
    }
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *page = fd < 0 ? MAP_FAILED
                        : mmap(NULL, PRELOAD_PAGE_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) {
        perror(name);
        abort();
    }
    close(fd);
    return page;
}

#endif
