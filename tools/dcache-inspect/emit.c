/* SPDX-License-Identifier: BSD-3-Clause */
#include "tools/dcache-inspect/emit.h"

#include "server/base/assert.h"
#include "server/base/limits.h"

#include <inttypes.h>
#include <time.h>

enum { LABEL_WIDTH = 20 };

/* --- JSON ---------------------------------------------------------------------------------------------------------------- */

static void json_text(FILE *to, struct bytes value) {
    putc('"', to);
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        if (c == '"' || c == '\\') {
            fprintf(to, "\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            fprintf(to, "\\u%04x", c);
        } else {
            putc(c, to);
        }
    }
    putc('"', to);
}

static void json_comma(struct emit *e) {
    if (e->some[e->depth]) {
        putc(',', e->to);
    }
    e->some[e->depth] = true;
}

static void json_name(struct emit *e, const char *name) {
    json_comma(e);
    if (name != NULL) {
        json_text(e->to, bytes_str(name));
        putc(':', e->to);
    }
}

static void deeper(struct emit *e) {
    e->depth++;
    dc_assert(e->depth < EMIT_DEPTH_MAX);
    e->some[e->depth] = false;
}

/* --- records ------------------------------------------------------------------------------------------------------------- */

static void label(struct emit *e, const char *name) {
    fprintf(e->to, "%*s%-*s ", 2 * e->depth, "", LABEL_WIDTH, name);
}

void emit_begin(struct emit *e, const char *title) {
    dc_assert(e->depth == 0);
    if (e->json) {
        putc('{', e->to);
    } else if (title != NULL) {
        fprintf(e->to, "%s\n", title);
    }
    deeper(e);
}

void emit_end(struct emit *e) {
    e->depth--;
    dc_assert(e->depth == 0);
    if (e->json) {
        fputs("}\n", e->to);
    }
}

static void open_with(struct emit *e, const char *name, char bracket) {
    if (e->json) {
        json_name(e, name);
        putc(bracket, e->to);
    } else if (name != NULL) {
        fprintf(e->to, "%*s%s\n", 2 * e->depth, "", name);
    }
    deeper(e);
}

static void close_with(struct emit *e, char bracket) {
    e->depth--;
    dc_assert(e->depth > 0);
    if (e->json) {
        putc(bracket, e->to);
    }
}

void emit_open(struct emit *e, const char *name) {
    open_with(e, name, '{');
}

void emit_close(struct emit *e) {
    close_with(e, '}');
}

void emit_open_list(struct emit *e, const char *name) {
    open_with(e, name, '[');
}

void emit_close_list(struct emit *e) {
    close_with(e, ']');
}

/* --- fields -------------------------------------------------------------------------------------------------------------- */

void emit_str(struct emit *e, const char *name, const char *value) {
    if (e->json) {
        json_name(e, name);
        json_text(e->to, bytes_str(value));
        return;
    }
    label(e, name);
    fprintf(e->to, "%s\n", value);
}

void emit_hex(struct emit *e, const char *name, const void *ptr, size_t len) {
    const unsigned char *at = ptr;
    if (e->json) {
        json_name(e, name);
        putc('"', e->to);
    } else {
        label(e, name);
    }
    for (size_t i = 0; i < len; i++) {
        fprintf(e->to, "%02x", at[i]);
    }
    fputs(e->json ? "\"" : "\n", e->to);
}

void emit_bytes(struct emit *e, const char *name, struct bytes value) {
    char with_hex[64];
    if (!e->json) {
        label(e, name);
        text_quote(e->to, value, 0);
        putc('\n', e->to);
    } else if (bytes_are_utf8(value)) {
        json_name(e, name);
        json_text(e->to, value);
    } else {
        snprintf(with_hex, sizeof(with_hex), "%s_hex", name);
        emit_hex(e, with_hex, value.ptr, value.len);
    }
}

void emit_u64(struct emit *e, const char *name, uint64_t value) {
    if (e->json) {
        json_name(e, name);
    } else {
        label(e, name);
    }
    fprintf(e->to, "%" PRIu64 "%s", value, e->json ? "" : "\n");
}

void emit_i64(struct emit *e, const char *name, int64_t value) {
    if (e->json) {
        json_name(e, name);
    } else {
        label(e, name);
    }
    fprintf(e->to, "%" PRId64 "%s", value, e->json ? "" : "\n");
}

void emit_lsn(struct emit *e, const char *name, uint64_t value) {
    char text[24];
    snprintf(text, sizeof(text), "%" PRIu64, value);
    emit_str(e, name, text);
}

void emit_id(struct emit *e, const char *name, uint64_t value) {
    char text[24];
    snprintf(text, sizeof(text), "%016" PRIx64, value);
    emit_str(e, name, text);
}

void emit_size(struct emit *e, const char *name, uint64_t bytes) {
    char text[EMIT_SIZE_LEN];
    if (e->json) {
        emit_u64(e, name, bytes);
    } else {
        emit_str(e, name, text_size(text, bytes));
    }
}

void emit_time(struct emit *e, const char *name, int64_t ms) {
    char text[EMIT_TIME_LEN];
    char with_unit[64];
    if (e->json) {
        snprintf(with_unit, sizeof(with_unit), "%s_ms", name);
        emit_i64(e, with_unit, ms);
    } else {
        emit_str(e, name, text_time(text, ms));
    }
}

void emit_ratio(struct emit *e, const char *name, uint64_t part, uint64_t whole) {
    char text[32];
    double ratio = whole > 0 ? (double)part / (double)whole : 0;
    snprintf(text, sizeof(text), "%.4f", ratio);
    if (e->json) {
        json_name(e, name);
        fputs(text, e->to);
    } else {
        snprintf(text, sizeof(text), "%.1f %%", ratio * 100);
        emit_str(e, name, text);
    }
}

void emit_bool(struct emit *e, const char *name, bool value) {
    if (e->json) {
        json_name(e, name);
        fputs(value ? "true" : "false", e->to);
    } else {
        emit_str(e, name, value ? "yes" : "no");
    }
}

void emit_keyspace(struct emit *e, uint32_t id) {
    char text[EMIT_KEYSPACE_LEN];
    if (id == KEYSPACE_SYSTEM) {
        emit_str(e, "keyspace", text_keyspace(text, id));
    } else {
        emit_u64(e, "keyspace", id);
    }
}

/* --- text ---------------------------------------------------------------------------------------------------------------- */

void text_quote(FILE *to, struct bytes value, size_t max) {
    size_t len = max > 0 && value.len > max ? max : value.len;
    putc('"', to);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        if (c == '"' || c == '\\') {
            fprintf(to, "\\%c", c);
        } else if (c == '\n') {
            fputs("\\n", to);
        } else if (c < 0x20 || c >= 0x7f) {
            fprintf(to, "\\x%02x", c);
        } else {
            putc(c, to);
        }
    }
    fputs(len < value.len ? "\"..." : "\"", to);
}

const char *text_time(char to[EMIT_TIME_LEN], int64_t ms) {
    struct tm tm;
    time_t s = (time_t)(ms / 1000);
    if (ms < 0 || gmtime_r(&s, &tm) == NULL || tm.tm_year > 9999 - 1900) {
        snprintf(to, EMIT_TIME_LEN, "%" PRId64 " ms", ms);
        return to;
    }
    size_t len = strftime(to, EMIT_TIME_LEN, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(to + len, EMIT_TIME_LEN - len, ".%03dZ", (int)(ms % 1000));
    return to;
}

const char *text_size(char to[EMIT_SIZE_LEN], uint64_t bytes) {
    static const char *const units[] = {"kB", "MB", "GB", "TB", "PB", "EB"};
    double value = (double)bytes;
    int unit = -1;
    while (value >= 1000 && unit < 5) {
        value /= 1000;
        unit++;
    }
    if (unit < 0) {
        snprintf(to, EMIT_SIZE_LEN, "%" PRIu64 " bytes", bytes);
    } else {
        snprintf(to, EMIT_SIZE_LEN, "%.1f %s (%" PRIu64 " bytes)", value, units[unit], bytes);
    }
    return to;
}

const char *text_keyspace(char to[EMIT_KEYSPACE_LEN], uint32_t id) {
    snprintf(to, EMIT_KEYSPACE_LEN, id == KEYSPACE_SYSTEM ? "system" : "%" PRIu32, id);
    return to;
}

/* Length of the well-formed UTF-8 sequence at 'at', 0 = none. */
static size_t utf8_len(const unsigned char *at, size_t left) {
    unsigned char c = at[0];
    size_t len = c < 0x80                ? 1
                 : c >= 0xc2 && c < 0xe0 ? 2
                 : c >= 0xe0 && c < 0xf0 ? 3
                 : c >= 0xf0 && c < 0xf5 ? 4
                                         : 0;
    if (len == 0 || len > left) {
        return 0;
    }
    for (size_t i = 1; i < len; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (c == 0xe0 && at[1] < 0xa0) || (c == 0xf0 && at[1] < 0x90);
    bool beyond = (c == 0xed && at[1] >= 0xa0) || (c == 0xf4 && at[1] >= 0x90);
    return overlong || beyond ? 0 : len;
}

bool bytes_are_utf8(struct bytes value) {
    for (size_t at = 0; at < value.len;) {
        size_t len = utf8_len((const unsigned char *)value.ptr + at, value.len - at);
        if (len == 0) {
            return false;
        }
        at += len;
    }
    return true;
}
