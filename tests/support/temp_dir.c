/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/temp_dir.h"

#include "server/base/assert.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void make_below(const char *base, char to[TEMP_DIR_MAX]) {
    int len = snprintf(to, TEMP_DIR_MAX, "%s/dcache-test-XXXXXX", base);
    dc_assert(len < TEMP_DIR_MAX);
    const char *made = mkdtemp(to);
    dc_assert(made != NULL);
}

void temp_dir_make(char to[TEMP_DIR_MAX]) {
    const char *base = getenv("TMPDIR");
    make_below(base != NULL ? base : "/tmp", to);
}

void temp_dir_make_in_memory(char to[TEMP_DIR_MAX]) {
    if (getenv("TMPDIR") == NULL && access("/dev/shm", W_OK) == 0) {
        make_below("/dev/shm", to);
    } else {
        temp_dir_make(to);
    }
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st, (void)kind, (void)at;
    return remove(path);
}

void temp_dir_remove(const char *dir) {
    int rc = nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    dc_assert(rc == 0);
}
