/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/proto/reply.h"

#include "server/base/assert.h"
#include "server/base/num.h"

#include <stdarg.h>
#include <string.h>

enum { CRLF_LEN = 2, HEADER_LEN_MAX = 1 + NUM_I64_TEXT_MAX + CRLF_LEN };

static bool is_resp3(const struct reply *r) {
    return r->proto == REPLY_RESP3;
}

/* Writes "<mark><number>\r\n" where HEADER_LEN_MAX bytes are free; returns its end. Up to three digits, nearly all
 * there are, take no loop. */
static inline char *write_header(char *to, char mark, int64_t number) {
    to[0] = mark;
    if (dc_likely((uint64_t)number < 10)) {
        to[1] = (char)('0' + number);
        memcpy(to + 2, "\r\n", CRLF_LEN);
        return to + 4;
    }
    if ((uint64_t)number < 100) {
        to[1] = (char)('0' + (uint32_t)number / 10);
        to[2] = (char)('0' + (uint32_t)number % 10);
        memcpy(to + 3, "\r\n", CRLF_LEN);
        return to + 5;
    }
    if ((uint64_t)number < 1000) {
        to[1] = (char)('0' + (uint32_t)number / 100);
        to[2] = (char)('0' + (uint32_t)number / 10 % 10);
        to[3] = (char)('0' + (uint32_t)number % 10);
        memcpy(to + 4, "\r\n", CRLF_LEN);
        return to + 6;
    }
    char *end = to + 1 + num_format_i64(to + 1, number);
    memcpy(end, "\r\n", CRLF_LEN);
    return end + CRLF_LEN;
}

static inline void put_header(struct reply *r, char mark, int64_t number) {
    char *to = buf_room(r->out, HEADER_LEN_MAX);
    if (dc_likely(to != NULL)) {
        r->out->len += (size_t)(write_header(to, mark, number) - to);
    }
}

void reply_status(struct reply *r, const char *text) {
    size_t len = strlen(text);
    char *to = buf_room(r->out, 1 + len + CRLF_LEN);
    if (to != NULL) {
        to[0] = '+';
        memcpy(to + 1, text, len);
        memcpy(to + 1 + len, "\r\n", CRLF_LEN);
        r->out->len += 1 + len + CRLF_LEN;
    }
}

void reply_ok(struct reply *r) {
    buf_append_bytes(r->out, BYTES("+OK\r\n"));
}

void reply_int(struct reply *r, int64_t value) {
    put_header(r, ':', value);
}

void reply_bulk(struct reply *r, struct bytes value) {
    char *start = buf_room(r->out, HEADER_LEN_MAX + value.len + CRLF_LEN);
    if (dc_unlikely(start == NULL)) {
        return;
    }
    char *to = write_header(start, '$', (int64_t)value.len);
    if (dc_likely(value.len > 0)) {
        memcpy(to, value.ptr, value.len);
        to += value.len;
    }
    memcpy(to, "\r\n", CRLF_LEN);
    r->out->len += (size_t)(to + CRLF_LEN - start);
}

void reply_bulk_str(struct reply *r, const char *text) {
    reply_bulk(r, bytes_str(text));
}

void reply_bulk_i64(struct reply *r, int64_t value) {
    char text[NUM_I64_TEXT_MAX];
    reply_bulk(r, bytes_of(text, num_format_i64(text, value)));
}

void reply_bulk_f64(struct reply *r, double value) {
    char text[NUM_F64_TEXT_MAX];
    reply_bulk(r, bytes_of(text, num_format_f64(text, value)));
}

void reply_null(struct reply *r) {
    if (is_resp3(r)) {
        buf_append_bytes(r->out, BYTES("_\r\n"));
    } else {
        buf_append_bytes(r->out, BYTES("$-1\r\n"));
    }
}

void reply_null_array(struct reply *r) {
    if (is_resp3(r)) {
        buf_append_bytes(r->out, BYTES("_\r\n"));
    } else {
        buf_append_bytes(r->out, BYTES("*-1\r\n"));
    }
}

void reply_double(struct reply *r, double value) {
    if (!is_resp3(r)) {
        reply_bulk_f64(r, value);
        return;
    }
    char *to = buf_room(r->out, 1 + NUM_F64_TEXT_MAX + CRLF_LEN);
    if (to != NULL) {
        to[0] = ',';
        size_t len = 1 + num_format_f64(to + 1, value);
        memcpy(to + len, "\r\n", CRLF_LEN);
        r->out->len += len + CRLF_LEN;
    }
}

void reply_bool(struct reply *r, bool value) {
    if (!is_resp3(r)) {
        reply_int(r, value);
    } else if (value) {
        buf_append_bytes(r->out, BYTES("#t\r\n"));
    } else {
        buf_append_bytes(r->out, BYTES("#f\r\n"));
    }
}

void reply_verbatim(struct reply *r, struct bytes text, const char *ext) {
    if (!is_resp3(r)) {
        reply_bulk(r, text);
        return;
    }
    char tag[4] = {' ', ' ', ' ', ':'}; /* always three characters and a colon */
    memcpy(tag, ext, strnlen(ext, 3));
    put_header(r, '=', (int64_t)(sizeof(tag) + text.len));
    buf_append(r->out, tag, sizeof(tag));
    buf_append_bytes(r->out, text);
    buf_append_bytes(r->out, BYTES("\r\n"));
}

void reply_array(struct reply *r, int64_t count) {
    put_header(r, '*', count);
}

void reply_map(struct reply *r, int64_t pairs) {
    put_header(r, is_resp3(r) ? '%' : '*', is_resp3(r) ? pairs : 2 * pairs);
}

void reply_set(struct reply *r, int64_t count) {
    put_header(r, is_resp3(r) ? '~' : '*', count);
}

void reply_push(struct reply *r, int64_t count) {
    put_header(r, is_resp3(r) ? '>' : '*', count);
}

void reply_bulk_begin(struct reply *r, size_t len) {
    put_header(r, '$', (int64_t)len);
}

void reply_bulk_end(struct reply *r) {
    buf_append_bytes(r->out, BYTES("\r\n"));
}

/* --- errors --------------------------------------------------------------------------------------------------- */

static bool is_line_break(char c) {
    return c == '\r' || c == '\n';
}

/* Makes one line of what stands behind 'start' and closes it. */
static void end_error(struct buf *out, size_t start) {
    if (out->failed) {
        return;
    }
    while (out->len > start && is_line_break(out->ptr[out->len - 1])) {
        out->len--;
    }
    size_t skip = 0;
    while (start + skip < out->len && is_line_break(out->ptr[start + skip])) {
        skip++;
    }
    if (skip > 0) {
        memmove(out->ptr + start, out->ptr + start + skip, out->len - start - skip);
        out->len -= skip;
    }
    for (size_t i = start; i < out->len; i++) {
        if (is_line_break(out->ptr[i])) {
            out->ptr[i] = ' ';
        }
    }
    buf_append(out, "\r\n", CRLF_LEN);
}

/* Returns the offset where the text begins. */
static size_t begin_error(struct buf *out, const char *prefix) {
    buf_append(out, "-", 1);
    buf_append_str(out, prefix);
    buf_append(out, " ", 1);
    return out->len;
}

void reply_error(struct reply *r, enum dc_err code) {
    reply_error_text(r, dc_err_prefix(code), dc_fail_take(code));
}

void reply_error_text(struct reply *r, const char *prefix, const char *text) {
    size_t start = begin_error(r->out, prefix);
    buf_append_str(r->out, text);
    end_error(r->out, start);
}

void reply_error_fmt(struct reply *r, const char *prefix, const char *fmt, ...) {
    size_t start = begin_error(r->out, prefix);
    va_list args;
    va_start(args, fmt);
    buf_vprintf(r->out, fmt, args);
    va_end(args);
    end_error(r->out, start);
}
