/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * report: what is said at the end, as lines for people or as one JSON object; and times as text.
 *
 * Invariant: what is printed between report_begin() and report_end() is the whole standard output.
 */
#ifndef DC_TOOLS_RESTORE_REPORT_H
#define DC_TOOLS_RESTORE_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/err.h"

struct report {
    bool json;
    bool some; /* a comma comes before the next member */
};

void report_begin(struct report *r, bool json);
void report_end(struct report *r);
void report_text(struct report *r, const char *name, const char *fmt, ...) DC_PRINTF(3, 4);
void report_number(struct report *r, const char *name, uint64_t value);
void report_size(struct report *r, const char *name, uint64_t bytes);
void report_lsn(struct report *r, const char *name, uint64_t lsn);
void report_time(struct report *r, const char *name, int64_t ms); /* 0 = none */
void report_flag(struct report *r, const char *name, bool value);
void report_list(struct report *r, const char *name, char *const *lines, uint32_t count);

/* RFC 3339, Unix seconds, or milliseconds (from 10^11 on). */
bool time_parse(const char *text, int64_t *ms);
enum { TIME_TEXT_LEN = 32, SPAN_TEXT_LEN = 48 };
const char *time_text(char to[TIME_TEXT_LEN], int64_t ms); /* 2026-01-31T12:30:00.000Z */
const char *span_text(char to[SPAN_TEXT_LEN], int64_t ms); /* 2 d 3 h */

#endif
