/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/temp_dir.h"

#include "server/base/assert.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

void temp_dir_make(char to[TEMP_DIR_MAX]) {
    const char *base = getenv("TMPDIR");
    int len = snprintf(to, TEMP_DIR_MAX, "%s/dcache-test-XXXXXX", base != NULL ? base : "/tmp");
    dc_assert(len < TEMP_DIR_MAX);
    const char *made = mkdtemp(to);
    dc_assert(made != NULL);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st, (void)kind, (void)at;
    return remove(path);
}

void temp_dir_remove(const char *dir) {
    int rc = nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    dc_assert(rc == 0);
}
