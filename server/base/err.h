/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * err: error codes and the record of where an error was born.
 *
 * Purpose: a function that can fail returns enum dc_err (DC_OK = 0) and is marked DC_MUST. The place that
 *   detects the error calls dc_fail(), which keeps text, file and line in a per-thread record; callers
 *   propagate the bare code and only the top (startup, command dispatch) reads the record.
 * Threads: any; the record belongs to the calling thread.
 * Ownership: the text returned by dc_fail_text() lives until the thread's next dc_fail().
 */
#ifndef DC_BASE_ERR_H
#define DC_BASE_ERR_H

#include <stdbool.h>

enum dc_err {
#define DC_ERR(code, prefix, retryable, text) DC_##code,
#include "server/base/err.def"
#undef DC_ERR
    DC_ERR_COUNT
};

#define DC_MUST                       __attribute__((warn_unused_result))
#define DC_PRINTF(fmt_arg, first_arg) __attribute__((format(printf, fmt_arg, first_arg)))

/* Records the birth of an error and returns its code. */
#define dc_fail(code, ...) dc_fail_at((code), __FILE__, __LINE__, __VA_ARGS__)
enum dc_err dc_fail_at(enum dc_err code, const char *file, int line, const char *fmt, ...)
    DC_PRINTF(4, 5);

/* Text of the error 'code': the thread's record when the last dc_fail() bore that code and nobody took
 * it yet, else the text of the table. Taking clears the record. */
const char *dc_fail_take(enum dc_err code);

/* "file:line" of the thread's last dc_fail(), "" without one. */
const char *dc_fail_where(void);

const char *dc_err_name(enum dc_err code);   /* "ENOTINT" */
const char *dc_err_prefix(enum dc_err code); /* "ERR", "WRONGTYPE", ... */
const char *dc_err_text(enum dc_err code);   /* text of the table */
bool dc_err_retryable(enum dc_err code);     /* the same call may succeed later */

/* What the C library says of an errno (a constant; '%m' is no ISO C). */
const char *dc_errno_text(int err);

#endif
