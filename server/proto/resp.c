/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two readers of one grammar:
 *
 *   parse_whole()   a well-formed multibulk request that lies whole in the input: one pass, straight into argv.
 *                   Whatever else it meets, it gives up without a trace and leaves the judgement to
 *   parse_torn()    the resumable reader, which knows every rule, every error text, and keeps spans.
 *
 * A torn request is looked at by parse_whole() once, on its first arrival.
 *
 * Redis's habits that this file keeps on purpose: a header line ends at '\r' whatever byte follows; the two bytes
 * behind an argument aren't looked at; a NUL hides the rest of a line, so that the line never ends and becomes too
 * long; '\v' and '\f' are skipped before an inline argument but don't end one.
 *
 * Where it differs: a multibulk header above REQUEST_ARGS_MAX is refused (Redis 7.0: INT_MAX), and a line is too
 * long by its own length, not by how much of it one read brought (I4).
 */
#include "server/proto/resp.h"

#include "server/base/assert.h"
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "server/proto/reply.h"

#include <assert.h>
#include <string.h>

enum {
    SPANS_MIN = 8,
    ARG_WIRE_LEN_MIN = 6, /* "$0\r\n\r\n" */
    DIGITS_FAST_MAX = 9   /* any number of so many digits fits in 32 bits */
};

static_assert(sizeof(struct bytes) % 8 == 0, "an argv leaves the arena aligned");

void resp_parser_init(struct resp_parser *p) {
    memset(p, 0, sizeof(*p));
}

void resp_parser_fini(struct resp_parser *p) {
    mem_free(p->spans);
    memset(p, 0, sizeof(*p));
}

/* --- a whole request ------------------------------------------------------------------------------------------ */

/* A header line that was read: what follows it (NULL: torn, malformed or large) and its number. */
struct header {
    char *next;
    uint32_t number;
};

static uint32_t digit_value(char c) {
    return (uint32_t)(unsigned char)c - '0'; /* above 9: no digit */
}

/* The digits from 's' on, three and more of them. */
static struct header read_long_header(char *s, const char *end) {
    const char *stop = end - s > DIGITS_FAST_MAX ? s + DIGITS_FAST_MAX : end - 1;
    uint32_t number = 0;
    char *at = s;
    for (; at < stop && digit_value(*at) <= 9; at++) {
        number = number * 10 + digit_value(*at);
    }
    if (at == stop || *at != '\r' || *s == '0') {
        return (struct header){NULL, 0};
    }
    return (struct header){at + 2, number};
}

/* Reads "<mark><digits>\r?" at 's'. One and two digits, nearly all there are, take no loop. */
static inline struct header read_header(char *s, const char *end, char mark) {
    if (end - s < ARG_WIRE_LEN_MIN || s[0] != mark || digit_value(s[1]) > 9) {
        return (struct header){NULL, 0};
    }
    uint32_t number = digit_value(s[1]);
    if (s[2] == '\r') {
        return (struct header){s + 4, number};
    }
    if (s[3] == '\r' && number > 0 && digit_value(s[2]) <= 9) {
        return (struct header){s + 5, number * 10 + digit_value(s[2])};
    }
    return read_long_header(s + 1, end);
}

static inline bool parse_whole(char *buf, size_t len, const struct resp_context *ctx,
                               struct request *req) {
    const char *const end = buf + len;
    struct arena *const arena = ctx->arena;
    const struct header head = read_header(buf, end, '*');
    const uint32_t argc = head.number;
    if (head.next == NULL || argc == 0 || argc > REQUEST_ARGS_MAX ||
        (size_t)argc * ARG_WIRE_LEN_MIN > len || arena_room(arena) < argc * sizeof(struct bytes)) {
        return false;
    }
    /* Taken from the arena only when all has gone well. */
    struct bytes *const argv = (struct bytes *)(void *)(arena->base + arena->used);
    char *s = head.next;
    for (uint32_t i = 0; i < argc; i++) {
        const struct header bulk = read_header(s, end, '$');
        if (bulk.next == NULL || end - bulk.next < (ptrdiff_t)bulk.number + 2 ||
            bulk.number > ctx->bulk_len_max) {
            return false;
        }
        argv[i] = bytes_of(bulk.next, bulk.number);
        s = bulk.next + bulk.number + 2;
    }
    arena->used += argc * sizeof(struct bytes);
    *req = (struct request){.argv = argv, .argc = argc, .len = (size_t)(s - buf)};
    return true;
}

/* --- a torn request ------------------------------------------------------------------------------------------- */

static enum resp_outcome bad(struct resp_parser *p, const char *error) {
    p->error = error;
    return RESP_BAD;
}

/* Looks for 'until' in the line that begins at p->pos: RESP_DONE and its offset in *at, RESP_MORE, or RESP_BAD with
 * 'too_big'. */
static enum resp_outcome find_line_end(struct resp_parser *p, const char *buf, size_t len,
                                       char until, const char *too_big, size_t *at) {
    size_t line_len = len - p->pos;
    size_t stop = p->pos + (line_len > INLINE_LEN_MAX ? INLINE_LEN_MAX + 1 : line_len);
    size_t i = p->scanned > p->pos ? p->scanned : p->pos;
    while (i < stop && buf[i] != until && buf[i] != '\0') {
        i++;
    }
    p->scanned = i;
    if (i < stop && buf[i] == until) {
        *at = i;
        return RESP_DONE;
    }
    return line_len > INLINE_LEN_MAX ? bad(p, too_big) : RESP_MORE;
}

/* A header line "<mark>text\r?" is complete only with the byte behind '\r'. */
static enum resp_outcome find_header_end(struct resp_parser *p, const char *buf, size_t len,
                                         const char *too_big, size_t *at) {
    enum resp_outcome outcome = find_line_end(p, buf, len, '\r', too_big, at);
    return outcome == RESP_DONE && *at + 2 > len ? RESP_MORE : outcome;
}

/* The canonical decimal as Redis's string2ll() takes it. */
static bool parse_number(const char *text, size_t len, int64_t *out) {
    bool negative = len > 0 && text[0] == '-';
    if (negative) {
        text++;
        len--;
    }
    if (len == 0 || len > 18 || (text[0] == '0' && (len > 1 || negative))) {
        return false; /* 19 digits and more are beyond every limit, too */
    }
    int64_t value = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return false;
        }
        value = value * 10 + (text[i] - '0');
    }
    *out = negative ? -value : value;
    return true;
}

static bool push_span(struct resp_parser *p, size_t offset, size_t len) {
    if (p->argc == p->span_cap) {
        uint32_t cap = p->span_cap == 0 ? SPANS_MIN : p->span_cap * 2;
        struct resp_span *spans = mem_realloc(p->spans, cap * sizeof(*spans));
        if (spans == NULL) {
            bad(p, "out of memory");
            return false;
        }
        p->spans = spans;
        p->span_cap = cap;
    }
    p->spans[p->argc++] = (struct resp_span){offset, len};
    return true;
}

/* Hands the spans on as a request and makes the parser all zero again (I1). */
static enum resp_outcome finish(struct resp_parser *p, const char *buf,
                                const struct resp_context *ctx, struct request *req) {
    *req = (struct request){.argc = p->argc, .len = p->pos};
    if (p->argc > 0) {
        req->argv = arena_alloc(ctx->arena, p->argc * sizeof(*req->argv));
    }
    for (uint32_t i = 0; i < p->argc; i++) {
        req->argv[i] = bytes_of(buf + p->spans[i].offset, p->spans[i].len);
    }
    resp_parser_fini(p);
    return req->argc > 0 ? RESP_DONE : RESP_EMPTY;
}

static enum resp_outcome read_argc(struct resp_parser *p, const char *buf, size_t len,
                                   const struct resp_context *ctx) {
    size_t at;
    enum resp_outcome outcome = find_header_end(p, buf, len, "too big mbulk count string", &at);
    if (outcome != RESP_DONE) {
        return outcome;
    }
    int64_t count;
    if (!parse_number(buf + 1, at - 1, &count) || count > INT32_MAX) {
        return bad(p, "invalid multibulk length");
    }
    if (count > REQUEST_ARGS_UNAUTH_MAX && !ctx->authenticated) {
        return bad(p, "unauthenticated multibulk length");
    }
    if (count > REQUEST_ARGS_MAX) {
        return bad(p, "invalid multibulk length");
    }
    p->pos = at + 2;
    if (count <= 0) {
        return RESP_EMPTY;
    }
    p->argc_want = (uint32_t)count;
    return RESP_DONE;
}

static enum resp_outcome read_bulk_len(struct resp_parser *p, const char *buf, size_t len,
                                       const struct resp_context *ctx) {
    size_t at;
    enum resp_outcome outcome = find_header_end(p, buf, len, "too big bulk count string", &at);
    if (outcome != RESP_DONE) {
        return outcome;
    }
    if (buf[p->pos] != '$') {
        p->got = (unsigned char)buf[p->pos];
        return bad(p, "expected '$', got");
    }
    int64_t bulk_len;
    if (!parse_number(buf + p->pos + 1, at - p->pos - 1, &bulk_len) || bulk_len < 0 ||
        (uint64_t)bulk_len > ctx->bulk_len_max) {
        return bad(p, "invalid bulk length");
    }
    if (bulk_len > REQUEST_BULK_UNAUTH_MAX && !ctx->authenticated) {
        return bad(p, "unauthenticated bulk length");
    }
    p->pos = at + 2;
    p->bulk_len = (size_t)bulk_len;
    p->in_bulk = true;
    return RESP_DONE;
}

static enum resp_outcome parse_torn(struct resp_parser *p, const char *buf, size_t len,
                                    const struct resp_context *ctx, struct request *req) {
    enum resp_outcome outcome = p->argc_want == 0 ? read_argc(p, buf, len, ctx) : RESP_DONE;
    while (outcome == RESP_DONE && p->argc < p->argc_want) {
        if (!p->in_bulk) {
            outcome = read_bulk_len(p, buf, len, ctx);
            continue;
        }
        if (len - p->pos < p->bulk_len + 2) {
            return RESP_MORE;
        }
        if (!push_span(p, p->pos, p->bulk_len)) {
            return RESP_BAD;
        }
        p->pos += p->bulk_len + 2;
        p->in_bulk = false;
    }
    return outcome == RESP_DONE || outcome == RESP_EMPTY ? finish(p, buf, ctx, req) : outcome;
}

/* --- inline --------------------------------------------------------------------------------------------------- */

/* A line being split: bytes are read at 'at' and, quotes and escapes removed, written at 'to' <= 'at'. */
struct splitter {
    const char *at;
    const char *end;
    char *to;
};

/* The byte 'ahead' of the next one, 0 behind the end (a line holds no NUL). */
static unsigned char peek(const struct splitter *s, size_t ahead) {
    return (size_t)(s->end - s->at) > ahead ? (unsigned char)s->at[ahead] : 0;
}

static bool is_blank(unsigned char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int hex_value(unsigned char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* What stands for itself or its control character behind a backslash. */
static char unescape(unsigned char c) {
    switch (c) {
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case 'b':
        return '\b';
    case 'a':
        return '\a';
    default:
        return (char)c;
    }
}

/* One byte, or one escape, within double quotes. */
static void copy_double_quoted(struct splitter *s) {
    if (peek(s, 0) == '\\' && peek(s, 1) == 'x' && hex_value(peek(s, 2)) >= 0 &&
        hex_value(peek(s, 3)) >= 0) {
        *s->to++ = (char)(hex_value(peek(s, 2)) * 16 + hex_value(peek(s, 3)));
        s->at += 4;
    } else if (peek(s, 0) == '\\' && peek(s, 1) != 0) {
        *s->to++ = unescape(peek(s, 1));
        s->at += 2;
    } else {
        *s->to++ = *s->at++;
    }
}

/* In single quotes only the quote itself can be escaped. */
static void copy_single_quoted(struct splitter *s) {
    if (peek(s, 0) == '\\' && peek(s, 1) == '\'') {
        s->at++;
    }
    *s->to++ = *s->at++;
}

/* The rest of an argument from the opening quote on. False: no closing quote, or one with something behind it. */
static bool split_quoted(struct splitter *s) {
    unsigned char quote = peek(s, 0);
    s->at++;
    while (peek(s, 0) != quote) {
        if (s->at == s->end) {
            return false;
        }
        if (quote == '"') {
            copy_double_quoted(s);
        } else {
            copy_single_quoted(s);
        }
    }
    s->at++;
    return s->at == s->end || is_blank(peek(s, 0));
}

static bool split_arg(struct splitter *s) {
    for (;;) {
        switch (peek(s, 0)) {
        case 0:
        case ' ':
        case '\n':
        case '\r':
        case '\t':
            return true;
        case '"':
        case '\'':
            return split_quoted(s);
        default:
            *s->to++ = *s->at++;
        }
    }
}

static enum resp_outcome parse_inline(struct resp_parser *p, char *buf, size_t len,
                                      const struct resp_context *ctx, struct request *req) {
    size_t at;
    enum resp_outcome outcome = find_line_end(p, buf, len, '\n', "too big inline request", &at);
    if (outcome != RESP_DONE) {
        return outcome;
    }
    struct splitter s = {.at = buf, .end = buf + at};
    for (;;) {
        while (s.at < s.end && is_blank(peek(&s, 0))) {
            s.at++;
        }
        if (s.at == s.end) {
            break;
        }
        char *arg = buf + (s.at - buf);
        s.to = arg;
        if (!split_arg(&s)) {
            return bad(p, "unbalanced quotes in request");
        }
        dc_debug_assert(s.to <= s.at);
        if (!push_span(p, (size_t)(arg - buf), (size_t)(s.to - arg))) {
            return RESP_BAD;
        }
    }
    p->pos = at + 1;
    return finish(p, buf, ctx, req);
}

/* --- the public face ------------------------------------------------------------------------------------------ */

/* Kept out of resp_parse() so that its registers and stack don't burden the fast path. */
__attribute__((noinline)) static enum resp_outcome parse_slowly(struct resp_parser *p, char *buf,
                                                                size_t len,
                                                                const struct resp_context *ctx,
                                                                struct request *req) {
    if (len == 0) {
        return RESP_MORE;
    }
    if (buf[0] == '*') {
        return parse_torn(p, buf, len, ctx, req);
    }
    return parse_inline(p, buf, len, ctx, req);
}

enum resp_outcome resp_parse(struct resp_parser *p, char *buf, size_t len,
                             const struct resp_context *ctx, struct request *req) {
    dc_debug_assert(p->error == NULL);
    dc_debug_assert(p->pos <= len);
    /* Whatever leaves state behind has scanned a line. */
    dc_debug_assert(p->scanned > 0 || (p->pos == 0 && p->spans == NULL));
    if (dc_likely(p->scanned == 0 && ctx->authenticated && parse_whole(buf, len, ctx, req))) {
        return RESP_DONE;
    }
    return parse_slowly(p, buf, len, ctx, req);
}

size_t resp_parse_wants(const struct resp_parser *p) {
    return p->in_bulk ? p->pos + p->bulk_len + 2 : 0;
}

void resp_reply_error(const struct resp_parser *p, struct reply *r) {
    dc_assert(p->error != NULL);
    if (p->got != 0) {
        reply_error_fmt(r, "ERR", "Protocol error: %s '%c'", p->error, p->got);
    } else {
        reply_error_fmt(r, "ERR", "Protocol error: %s", p->error);
    }
}
