/* SPDX-License-Identifier: BSD-3-Clause */
/* Text of options: lines of a file, words, quotes; and the options with a grammar of their own. */
#include "server/base/ack.h"
#include "server/base/assert.h"
#include "server/base/conf_priv.h"
#include "server/base/mem.h"
#include "server/base/num.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>

/* --- words of a line --- */

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static int hex_value(char c) {
    return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

/* An escape inside double quotes, behind the backslash; returns the bytes it takes. */
static size_t unescape(struct bytes s, char *out) {
    static const char names[] = "nrtba", bytes[] = "\n\r\t\b\a";
    if (s.len >= 3 && s.ptr[0] == 'x' && isxdigit((unsigned char)s.ptr[1]) &&
        isxdigit((unsigned char)s.ptr[2])) {
        *out = (char)(hex_value(s.ptr[1]) << 4 | hex_value(s.ptr[2]));
        return 3;
    }
    const char *name = s.ptr[0] != '\0' ? strchr(names, s.ptr[0]) : NULL;
    *out = name != NULL ? bytes[name - names] : s.ptr[0];
    return 1;
}

/* A quoted stretch, behind its opening quote. Returns what it takes with the closing quote, 0 when that is missing or
 * something sticks to it. */
static size_t split_quoted(struct bytes s, char quote, char **to) {
    size_t i = 0;
    while (i < s.len && s.ptr[i] != quote) {
        bool escape = s.ptr[i] == '\\' && i + 1 < s.len;
        if (escape && quote == '"') {
            i += 1 + unescape(bytes_of(s.ptr + i + 1, s.len - i - 1), (*to)++);
        } else {
            i += escape && s.ptr[i + 1] == '\'';
            *(*to)++ = s.ptr[i++];
        }
    }
    bool closed = i < s.len && (i + 1 == s.len || is_blank(s.ptr[i + 1]));
    return closed ? i + 1 : 0;
}

/* One word at the start of 's'. Returns what it takes, 0 when its quotes aren't balanced. */
static size_t split_word(struct bytes s, char **to) {
    size_t i = 0;
    while (i < s.len && !is_blank(s.ptr[i])) {
        char c = s.ptr[i++];
        if (c != '"' && c != '\'') {
            *(*to)++ = c;
            continue;
        }
        size_t len = split_quoted(bytes_of(s.ptr + i, s.len - i), c, to);
        if (len == 0) {
            return 0;
        }
        i += len;
    }
    return i;
}

static const char *split_line(struct bytes s, struct conf_line *line) {
    char *to = line->unquoted;
    for (;;) {
        while (s.len > 0 && is_blank(*s.ptr)) {
            s = bytes_of(s.ptr + 1, s.len - 1);
        }
        if (s.len == 0 || (line->count == 0 && *s.ptr == '#')) {
            return NULL;
        }
        if (line->count == CONF_WORDS_MAX) {
            return "too many words in a line";
        }
        char *word = to;
        size_t len = split_word(s, &to);
        if (len == 0) {
            return "unbalanced quotes in configuration line";
        }
        line->words[line->count++] = bytes_of(word, (size_t)(to - word));
        s = bytes_of(s.ptr + len, s.len - len);
    }
}

const char *conf_next_line(struct bytes *text, struct conf_line *line) {
    const char *newline = text->len > 0 ? memchr(text->ptr, '\n', text->len) : NULL;
    size_t len = newline != NULL ? (size_t)(newline - text->ptr) : text->len;
    line->raw = bytes_of(text->ptr, len);
    *text = bytes_of(text->ptr + len, text->len - len);
    if (newline != NULL) {
        *text = bytes_of(text->ptr + 1, text->len - 1);
    }
    line->count = 0;
    line->unquoted = mem_must_realloc(line->unquoted, len); /* words never grow */
    return split_line(line->raw, line);
}

/* Bytes that mean themselves; with 'blanks' also single ones between words. */
static bool is_plain(struct bytes value, bool blanks) {
    char before = ' ';
    size_t words = 2; /* with the name */
    for (size_t i = 0; i < value.len; i++) {
        char c = value.ptr[i];
        if (c == ' ' ? !blanks || before == ' ' : !isgraph((unsigned char)c)) {
            return false;
        }
        if (strchr("\"'\\#", c) != NULL) {
            return false;
        }
        words += c == ' ';
        before = c;
    }
    return before != ' ' && words <= CONF_WORDS_MAX;
}

void conf_quote(struct buf *out, struct bytes value, bool words) {
    if (is_plain(value, words)) {
        buf_append_bytes(out, value);
        return;
    }
    buf_append_str(out, "\"");
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        if (c == '"' || c == '\\') {
            buf_printf(out, "\\%c", c);
        } else if (isprint(c)) {
            buf_append(out, &value.ptr[i], 1);
        } else {
            buf_printf(out, "\\x%02x", c);
        }
    }
    buf_append_str(out, "\"");
}

/* --- options with a grammar of their own --- */

static bool refuse(struct conf_why *why, const char *text) {
    snprintf(why->text, sizeof(why->text), "%s", text);
    return false;
}

/* Classes of keyspace events in the order in which Redis prints them; 'A' stands for the first ten. Redis leaves the
 * 'n' out where there is an 'A', so that reading the option and setting it again loses it: here it stays. */
static bool canonical_events(struct bytes value, struct buf *out, struct conf_why *why) {
    static const char order[] = "g$lshzxetdnKEm";
    enum { ALL = (1 << 10) - 1 };
    unsigned set = 0;
    for (size_t i = 0; i < value.len; i++) {
        const char *at = strchr(order, value.ptr[i]);
        if (at == NULL && value.ptr[i] != 'A') {
            return refuse(why, "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.");
        }
        set |= at == NULL ? ALL : 1u << (at - order);
    }
    if ((set & ALL) == ALL) {
        buf_append_str(out, "A");
        set &= ~(unsigned)ALL;
    }
    for (unsigned i = 0; order[i] != '\0'; i++) {
        if (set & 1u << i) {
            buf_append(out, &order[i], 1);
        }
    }
    return true;
}

static bool canonical_ack(struct bytes value, struct buf *out, struct conf_why *why) {
    char text[ACK_TEXT_MAX];
    struct ack_level level;
    if (!ack_parse(value, &level)) {
        return refuse(why, "argument must be 'default', or parts joined by '+': memory, os, disk, "
                           "replicas:N, replicas:N:disk, quorum, quorum:disk");
    }
    buf_append(out, text, ack_text(level, text));
    return true;
}

static bool canonical_octal(struct bytes value, struct buf *out, struct conf_why *why) {
    unsigned mode = 0;
    for (size_t i = 0; i < value.len; i++) {
        if (value.ptr[i] < '0' || value.ptr[i] > '7') {
            return refuse(why, "argument couldn't be parsed as an octal number");
        }
        mode = mode * 8 + (unsigned)(value.ptr[i] - '0');
        if (mode > 0777) {
            return refuse(why, "argument must be between 0 and 777 inclusive");
        }
    }
    buf_printf(out, "%o", mode);
    return value.len > 0 || refuse(why, "argument couldn't be parsed as an octal number");
}

/* Cuts the next word off 's', as Redis does: at each single blank. */
static struct bytes cut_word(struct bytes *s) {
    const char *blank = memchr(s->ptr, ' ', s->len);
    struct bytes word = bytes_of(s->ptr, blank != NULL ? (size_t)(blank - s->ptr) : s->len);
    size_t taken = word.len + (blank != NULL);
    *s = bytes_of(s->ptr + taken, s->len - taken);
    return word;
}

static size_t count_words(struct bytes s) {
    size_t count = s.len > 0;
    for (size_t i = 0; i < s.len; i++) {
        count += s.ptr[i] == ' ';
    }
    return count;
}

static bool canonical_bind(struct bytes value, struct buf *out, struct conf_why *why) {
    if (count_words(value) > BIND_ADDRESSES_MAX) {
        return refuse(why, "Too many bind addresses specified.");
    }
    buf_append_bytes(out, value);
    return true;
}

/* "host port", or nothing; "no one" is nothing. */
static bool canonical_target(struct bytes value, struct buf *out, struct conf_why *why) {
    int64_t port;
    if (value.len == 0 || bytes_is(value, "no one")) {
        return true;
    }
    struct bytes rest = value;
    struct bytes host = cut_word(&rest);
    if (host.len == 0 || host.len >= HOST_NAME_MAX_LEN || !num_parse_i64(rest, &port) || port < 1 ||
        port > 65535) {
        return refuse(why, "argument must be an address and a port, or 'no one'");
    }
    buf_append_bytes(out, value);
    return true;
}

enum { LIMIT_CLASSES = 3 };
struct class_limits {
    int64_t hard, soft, seconds;
};

static int limit_class(struct bytes word) {
    static const char *const names[] = {"normal", "slave", "pubsub", "replica"};
    for (int i = 0; i < 4; i++) {
        if (bytes_is(word, names[i])) {
            return i == 3 ? 1 : i;
        }
    }
    return -1;
}

/* Groups of "class hard soft seconds", which replace what 'limits' holds for their class. */
static bool parse_limits(struct bytes value, struct class_limits *limits, struct conf_why *why) {
    if (count_words(value) % 4 != 0) {
        return refuse(why, "Wrong number of arguments in buffer limit configuration.");
    }
    while (value.len > 0) {
        int class = limit_class(cut_word(&value));
        if (class < 0) {
            return refuse(why, "Invalid client class specified in buffer limit configuration.");
        }
        struct class_limits *l = &limits[class];
        bool good = num_parse_size(cut_word(&value), &l->hard);
        good = num_parse_size(cut_word(&value), &l->soft) && good;
        good = num_parse_i64(cut_word(&value), &l->seconds) && good;
        if (!good || l->seconds < 0 || l->seconds > INT32_MAX) {
            return refuse(why, "Error in hard, soft or soft_seconds setting in buffer limit "
                               "configuration.");
        }
    }
    return true;
}

static bool canonical_limits(struct bytes value, const char *before, struct buf *out,
                             struct conf_why *why) {
    static const char *const names[LIMIT_CLASSES] = {"normal", "slave", "pubsub"};
    struct class_limits limits[LIMIT_CLASSES] = {{0}};
    bool good = parse_limits(bytes_str(before), limits, why);
    dc_assert(good); /* it was canonical */
    if (!parse_limits(value, limits, why)) {
        return false;
    }
    for (int i = 0; i < LIMIT_CLASSES; i++) {
        const struct class_limits *l = &limits[i];
        buf_printf(out, "%s%s %" PRId64 " %" PRId64 " %" PRId64, i > 0 ? " " : "", names[i],
                   l->hard, l->soft, l->seconds);
    }
    return true;
}

bool conf_canonical(enum conf_id id, struct bytes value, const char *before, struct buf *out,
                    struct conf_why *why) {
    if (id == CONF_ID_notify_keyspace_events) {
        return canonical_events(value, out, why);
    }
    if (id == CONF_ID_unixsocketperm) {
        return canonical_octal(value, out, why);
    }
    if (id == CONF_ID_bind) {
        return canonical_bind(value, out, why);
    }
    if (id == CONF_ID_replicaof) {
        return canonical_target(value, out, why);
    }
    if (id == CONF_ID_ack_level) {
        return canonical_ack(value, out, why);
    }
    if (id == CONF_ID_client_output_buffer_limit) {
        return canonical_limits(value, before, out, why);
    }
    buf_append_bytes(out, value);
    return true;
}
