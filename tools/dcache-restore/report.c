/* SPDX-License-Identifier: BSD-3-Clause */
#include "tools/dcache-restore/report.h"

#include "server/base/num.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

enum { NAME_WIDTH = 14 };

/* --- fields ------------------------------------------------------------------------------------------ */

static void put_json_string(const char *s) {
    putchar('"');
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            printf("\\%c", c);
        } else if (c < 0x20 || c >= 0x7f) {
            printf("\\u%04x", c);
        } else {
            putchar(c);
        }
    }
    putchar('"');
}

static void put_name(struct report *r, const char *name) {
    if (r->json) {
        printf("%s\"%s\": ", r->some ? ", " : "", name);
    } else {
        printf("%-*s", NAME_WIDTH, name);
    }
    r->some = true;
}

void report_begin(struct report *r, bool json) {
    *r = (struct report){.json = json};
    if (json) {
        putchar('{');
    }
}

void report_end(struct report *r) {
    if (r->json) {
        puts("}");
    }
    fflush(stdout);
}

void report_text(struct report *r, const char *name, const char *fmt, ...) {
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    put_name(r, name);
    if (r->json) {
        put_json_string(text);
    } else {
        puts(text);
    }
}

void report_number(struct report *r, const char *name, uint64_t value) {
    put_name(r, name);
    printf("%" PRIu64 "%s", value, r->json ? "" : "\n");
}

void report_size(struct report *r, const char *name, uint64_t bytes) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes / 1024;
    unsigned u = 0;
    if (r->json || bytes < 1024) {
        report_number(r, name, bytes);
        return;
    }
    for (; v >= 1024 && u < 3; u++) {
        v /= 1024;
    }
    put_name(r, name);
    printf("%" PRIu64 " (%.1f %s)\n", bytes, v, units[u]);
}

void report_lsn(struct report *r, const char *name, uint64_t lsn) {
    put_name(r, name);
    printf(r->json ? "\"%" PRIu64 "\"" : "%" PRIu64 "\n", lsn);
}

void report_time(struct report *r, const char *name, int64_t ms) {
    char text[TIME_TEXT_LEN];
    report_text(r, name, "%s", ms > 0 ? time_text(text, ms) : "");
}

void report_flag(struct report *r, const char *name, bool value) {
    put_name(r, name);
    printf("%s%s", r->json ? (value ? "true" : "false") : (value ? "yes" : "no"),
           r->json ? "" : "\n");
}

void report_list(struct report *r, const char *name, char *const *lines, uint32_t count) {
    if (r->json) {
        put_name(r, name);
        putchar('[');
    }
    for (uint32_t i = 0; i < count; i++) {
        if (r->json) {
            fputs(i > 0 ? ", " : "", stdout);
            put_json_string(lines[i]);
        } else {
            printf("%-*s%s\n", NAME_WIDTH, name, lines[i]);
        }
    }
    if (r->json) {
        putchar(']');
    }
}

/* --- times ------------------------------------------------------------------------------------------- */

static bool parse_offset(const char *at, int64_t *ms) {
    unsigned hours, minutes;
    int used = 0;
    if (*at == '\0' || ((*at == 'Z' || *at == 'z') && at[1] == '\0')) {
        return true;
    }
    if ((*at != '+' && *at != '-') || sscanf(at + 1, "%2u:%2u%n", &hours, &minutes, &used) != 2 ||
        at[1 + used] != '\0' || hours > 23 || minutes > 59) {
        return false;
    }
    int64_t offset_ms = ((int64_t)hours * 60 + minutes) * 60000;
    *ms += *at == '+' ? -offset_ms : offset_ms;
    return true;
}

static bool parse_rfc3339(const char *text, int64_t *ms) {
    struct tm tm = {0};
    int used = 0;
    char between = 0;
    if (sscanf(text, "%4d-%2d-%2d%c%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &between,
               &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &used) != 7 ||
        used != 19 || strchr("Tt ", between) == NULL) {
        return false;
    }
    struct tm asked = tm;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    *ms = (int64_t)timegm(&tm) * 1000;
    if (tm.tm_mday != asked.tm_mday || tm.tm_mon != asked.tm_mon - 1 ||
        tm.tm_hour != asked.tm_hour || tm.tm_min != asked.tm_min) {
        return false; /* the 30th of February */
    }
    const char *at = text + used;
    if (*at == '.') {
        int64_t unit = 100;
        for (at++; isdigit((unsigned char)*at); at++, unit /= 10) {
            *ms += (*at - '0') * unit;
        }
    }
    return parse_offset(at, ms) && *ms > 0;
}

bool time_parse(const char *text, int64_t *ms) {
    uint64_t n;
    if (!num_parse_u64(bytes_str(text), &n)) {
        return parse_rfc3339(text, ms);
    }
    if (n == 0 || n > INT64_MAX / 2) {
        return false;
    }
    *ms = n < 100000000000 ? (int64_t)n * 1000 : (int64_t)n; /* seconds until the year 5138 */
    return true;
}

const char *time_text(char to[TIME_TEXT_LEN], int64_t ms) {
    struct tm tm;
    time_t seconds = (time_t)(ms / 1000);
    char text[TIME_TEXT_LEN - 8];
    if (gmtime_r(&seconds, &tm) == NULL ||
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm) == 0) {
        snprintf(text, sizeof(text), "?");
    }
    snprintf(to, TIME_TEXT_LEN, "%s.%03dZ", text, (int)(ms % 1000));
    return to;
}

const char *span_text(char to[SPAN_TEXT_LEN], int64_t ms) {
    int64_t s = ms / 1000;
    if (s < 60) {
        snprintf(to, SPAN_TEXT_LEN, "%" PRId64 ".%03d s", s, (int)(ms % 1000));
    } else if (s < 3600) {
        snprintf(to, SPAN_TEXT_LEN, "%" PRId64 " min %" PRId64 " s", s / 60, s % 60);
    } else if (s < 86400) {
        snprintf(to, SPAN_TEXT_LEN, "%" PRId64 " h %" PRId64 " min", s / 3600, s / 60 % 60);
    } else {
        snprintf(to, SPAN_TEXT_LEN, "%" PRId64 " d %" PRId64 " h", s / 86400, s / 3600 % 24);
    }
    return to;
}
