/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/trace.h"

#include "server/base/mem.h"

#include <check.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { WANTED_MAX = 8192 };

size_t trace_drop(char *trace, const char *part) {
    size_t n = 0;
    for (char *line = trace; *line != '\0';) {
        char *next = strchr(line, '\n') + 1;
        const char *found = strstr(line, part);
        if (found != NULL && found < next) {
            memmove(line, next, strlen(next) + 1);
            n++;
        } else {
            line = next;
        }
    }
    return n;
}

size_t trace_lines(const char *trace) {
    size_t n = 0;
    for (; *trace != '\0'; trace++) {
        n += *trace == '\n';
    }
    return n;
}

static void DC_PRINTF(3, 0)
    compare(struct sim_disk *d, const char *const *without, const char *format, va_list args) {
    char wanted[WANTED_MAX];
    int len = vsnprintf(wanted, sizeof(wanted), format, args);
    char *trace = sim_disk_take_trace(d);
    ck_assert(len >= 0 && len < WANTED_MAX);
    for (; without != NULL && *without != NULL; without++) {
        (void)trace_drop(trace, *without);
    }
    ck_assert_str_eq(trace, wanted);
    mem_free(trace);
}

void expect_trace(struct sim_disk *d, const char *format, ...) {
    va_list args;
    va_start(args, format);
    compare(d, NULL, format, args);
    va_end(args);
}

void expect_trace_without(struct sim_disk *d, const char *const *without, const char *format, ...) {
    va_list args;
    va_start(args, format);
    compare(d, without, format, args);
    va_end(args);
}
