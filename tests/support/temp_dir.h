/* SPDX-License-Identifier: BSD-3-Clause */
/* temp_dir: a directory of a test's own. */
#ifndef TESTS_SUPPORT_TEMP_DIR_H
#define TESTS_SUPPORT_TEMP_DIR_H

enum { TEMP_DIR_MAX = 128 };

/* Below TMPDIR, or /tmp; the test removes it. */
void temp_dir_make(char to[TEMP_DIR_MAX]);
/* In memory, where there is such a place and nobody has said where: for what is synced very often. */
void temp_dir_make_in_memory(char to[TEMP_DIR_MAX]);
/* With all that is in it. */
void temp_dir_remove(const char *dir);

#endif
