/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/err.h"

#include "server/base/assert.h"
#include "server/base/limits.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    const char *prefix;
    const char *text;
} table[] = {
#define DC_ERR(code, prefix, retryable, text) {#code, prefix, text},
#include "server/base/err.def"
#undef DC_ERR
};
static_assert(sizeof(table) / sizeof(table[0]) == DC_ERR_COUNT, "one row per error");

static const bool retryables[] = {
#define DC_ERR(code, prefix, retryable, text) retryable,
#include "server/base/err.def"
#undef DC_ERR
};

/* The thread's last error. */
static _Thread_local struct {
    enum dc_err code; /* DC_OK = nothing to take */
    const char *file;
    int line;
    char text[ERR_TEXT_MAX];
    char where[128];
} record;

enum dc_err dc_fail_at(enum dc_err code, const char *file, int line, const char *fmt, ...) {
    dc_assert(code > DC_OK && code < DC_ERR_COUNT);
    va_list args;
    va_start(args, fmt);
    vsnprintf(record.text, sizeof(record.text), fmt, args);
    va_end(args);
    record.code = code;
    record.file = file;
    record.line = line;
    return code;
}

const char *dc_fail_take(enum dc_err code) {
    if (code == DC_OK || record.code != code) {
        return dc_err_text(code);
    }
    record.code = DC_OK;
    return record.text;
}

const char *dc_fail_where(void) {
    if (record.file == NULL) {
        return "";
    }
    snprintf(record.where, sizeof(record.where), "%s:%d", record.file, record.line);
    return record.where;
}

const char *dc_err_name(enum dc_err code) {
    dc_assert((unsigned)code < DC_ERR_COUNT);
    return table[code].name;
}

const char *dc_err_prefix(enum dc_err code) {
    dc_assert((unsigned)code < DC_ERR_COUNT);
    return table[code].prefix;
}

const char *dc_err_text(enum dc_err code) {
    dc_assert((unsigned)code < DC_ERR_COUNT);
    return table[code].text;
}

bool dc_err_retryable(enum dc_err code) {
    dc_assert((unsigned)code < DC_ERR_COUNT);
    return retryables[code];
}

const char *dc_errno_text(int err) {
    const char *text = strerrordesc_np(err);
    return text != NULL ? text : "unknown error";
}

/* Only what works in a process whose state can't be trusted any more: no lock, no allocation. */
_Noreturn void dc_assert_failed(const char *expr, const char *file, int line) {
    char text[512];
    int len = snprintf(text, sizeof(text), "%s:%d: assertion failed: %s\n", file, line, expr);
    size_t shown = len < (int)sizeof(text) ? (size_t)len : sizeof(text) - 1;
    if (write(STDERR_FILENO, text, shown) < 0) {
        /* There is nobody left to tell. */
    }
    abort();
}
