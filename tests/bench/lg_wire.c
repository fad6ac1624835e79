/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/bench/lg_wire.h"

#include "tests/bench/loadgen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { POOL_LEN = 1 << 20 };

/* The 64 B to 4 KB that follow any offset below POOL_LEN are part of it too. */
static char pool[POOL_LEN + LG_VALUE_MAX];

static enum lg_values values_kind = LG_VALUES_POOL;

static const char digit_pairs[] = "00010203040506070809101112131415161718192021222324"
                                  "25262728293031323334353637383940414243444546474849"
                                  "50515253545556575859606162636465666768697071727374"
                                  "75767778798081828384858687888990919293949596979899";

void lg_wire_init(uint64_t seed) {
    struct lg_rng rng;
    lg_rng_seed(&rng, seed);
    for (size_t i = 0; i < sizeof(pool); i += 8) {
        uint64_t word = lg_rng_next(&rng);
        memcpy(pool + i, &word, 8);
    }
}

uint64_t lg_mix64(uint64_t x) {
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

void lg_rng_seed(struct lg_rng *r, uint64_t seed) {
    for (unsigned i = 0; i < 4; i++) {
        r->s[i] = lg_mix64(seed + i);
    }
}

/* xoshiro256++ */
uint64_t lg_rng_next(struct lg_rng *r) {
    uint64_t *s = r->s;
    uint64_t sum = s[0] + s[3];
    uint64_t result = ((sum << 23) | (sum >> 41)) + s[0];
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = (s[3] << 45) | (s[3] >> 19);
    return result;
}

/* Multiply and shift; the bias is below bound / 2^32, and all bounds here are far smaller. */
uint64_t lg_rng_below(struct lg_rng *r, uint64_t bound) {
    return ((lg_rng_next(r) >> 32) * bound) >> 32;
}

size_t lg_value_len(uint64_t id, uint64_t min, uint64_t max) {
    uint64_t h = lg_mix64(id ^ UINT64_C(0x5ca1ab1e)) >> 32;
    return (size_t)(min + ((h * (max - min + 1)) >> 32));
}

void lg_wire_use_values(enum lg_values values) {
    values_kind = values;
}

static void random_write(char *p, struct lg_rng *r, size_t len) {
    for (size_t at = 0; at < len; at += 8) {
        uint64_t word = lg_rng_next(r);
        memcpy(p + at, &word, len - at < 8 ? len - at : 8);
    }
}

/* Words and numbers of the kind that sessions are made of. */
static void words_write(char *p, struct lg_rng *r, size_t len) {
    static const char *const words[] = {
        "\"id\": ", "\"name\": ", "\"user\": ", "\"email\": ", "true, ",   "false, ",  "null, ",
        "{",        "}, ",        "the ",       "of ",         "and ",     "session ", "account ",
        "address ", "http://",    ".com/",      "index",       "expires ", "token ",   "state ",
        "order ",   "item ",      "price ",     "counter ",    "status ",  "active ",  "page ",
        "list ",    "in ",        "value ",     "2024-",
    };
    enum { WORD_COUNT = sizeof(words) / sizeof(words[0]) };
    for (size_t at = 0; at < len;) {
        uint64_t draw = lg_rng_next(r);
        char digits[4] = {(char)('0' + (draw >> 16) % 10), (char)('0' + (draw >> 24) % 10),
                          (char)('0' + (draw >> 32) % 10), ' '};
        bool number = (draw >> 8) % 4 == 0;
        const char *word = number ? digits : words[draw % WORD_COUNT];
        size_t word_len = number ? sizeof(digits) : strlen(word);
        word_len = word_len < len - at ? word_len : len - at;
        memcpy(p + at, word, word_len);
        at += word_len;
    }
}

/* The first bytes tell whose a value is. */
static void value_write(char *p, uint64_t id, size_t len) {
    uint64_t h = lg_mix64(id);
    struct lg_rng rng = {.s = {h, id, ~h, 1}};
    switch (values_kind) {
    case LG_VALUES_POOL:
        memcpy(p, pool + (h & (POOL_LEN - 1)), len);
        break;
    case LG_VALUES_RANDOM:
        random_write(p, &rng, len);
        break;
    case LG_VALUES_TEXT:
        words_write(p, &rng, len);
        break;
    }
    memcpy(p, &h, len < 8 ? len : 8);
}

bool lg_value_is_of(uint64_t id, const char *value, size_t len) {
    uint64_t h = lg_mix64(id);
    return memcmp(value, &h, len < 8 ? len : 8) == 0;
}

static char *key_write(char *p, uint64_t id) {
    memcpy(p, (id & LG_ONE_HIT) != 0 ? "one:0" : "key:0", 5);
    uint64_t n = id & ~LG_ONE_HIT;
    for (size_t at = LG_KEY_LEN - 2; at >= 5; at -= 2) {
        memcpy(p + at, digit_pairs + (n % 100) * 2, 2);
        n /= 100;
    }
    return p + LG_KEY_LEN;
}

static char *number_write(char *p, uint64_t n) {
    char digits[20];
    size_t count = 0;
    do {
        digits[count++] = (char)('0' + n % 10);
        n /= 10;
    } while (n != 0);
    while (count != 0) {
        *p++ = digits[--count];
    }
    return p;
}

static char *text_write(char *p, const char *text, size_t len) {
    memcpy(p, text, len);
    return p + len;
}

#define TEXT(p, literal) text_write(p, literal, sizeof(literal) - 1)

char *lg_put_get(char *p, uint64_t id) {
    p = TEXT(p, "*2\r\n$3\r\nGET\r\n$15\r\n");
    p = key_write(p, id);
    return TEXT(p, "\r\n");
}

char *lg_put_set(char *p, uint64_t id, size_t len, uint64_t ttl_ms) {
    p = ttl_ms != 0 ? TEXT(p, "*5\r\n$3\r\nSET\r\n$15\r\n") : TEXT(p, "*3\r\n$3\r\nSET\r\n$15\r\n");
    p = key_write(p, id);
    p = TEXT(p, "\r\n$");
    p = number_write(p, len);
    p = TEXT(p, "\r\n");
    value_write(p, id, len);
    p = TEXT(p + len, "\r\n");
    if (ttl_ms != 0) {
        char digits[20];
        size_t digit_count = (size_t)(number_write(digits, ttl_ms) - digits);
        p = TEXT(p, "$2\r\nPX\r\n$");
        p = number_write(p, digit_count);
        p = TEXT(p, "\r\n");
        p = text_write(p, digits, digit_count);
        p = TEXT(p, "\r\n");
    }
    return p;
}

/* The number of the line that starts at p (after its type byte); *line_len includes the line end. */
static bool line_number(const char *p, size_t avail, uint64_t *number, size_t *line_len) {
    uint64_t n = 0;
    for (size_t i = 0; i < avail; i++) {
        if (p[i] == '\r') {
            *number = n;
            *line_len = i + 2;
            return i + 1 < avail;
        }
        if (p[i] < '0' || p[i] > '9') {
            lg_die("reply: not a number: %.*s", (int)(avail < 40 ? avail : 40), p);
        }
        n = n * 10 + (uint64_t)(p[i] - '0');
    }
    return false;
}

static struct lg_reply text_scan(const char *p, size_t avail, enum lg_kind kind) {
    const char *end = memchr(p, '\n', avail);
    if (end == NULL) {
        return (struct lg_reply){.kind = LG_PARTIAL};
    }
    size_t len = (size_t)(end - p) + 1;
    return (struct lg_reply){.kind = kind, .len = len, .body = p, .body_len = len - 2};
}

static struct lg_reply bulk_scan(const char *p, size_t avail) {
    struct lg_reply reply = {.kind = LG_PARTIAL};
    uint64_t number = 0;
    size_t line_len = 0;
    if (avail >= 5 && p[1] == '-') {
        reply.kind = LG_NULL;
        reply.len = 5;
    } else if (avail >= 2 && p[1] != '-' && line_number(p + 1, avail - 1, &number, &line_len)) {
        size_t len = 1 + line_len + (size_t)number + 2;
        if (len <= avail) {
            reply.kind = LG_BULK;
            reply.len = len;
            reply.body = p + 1 + line_len;
            reply.body_len = (size_t)number;
        }
    }
    return reply;
}

struct lg_reply lg_reply_scan(const char *p, size_t avail) {
    struct lg_reply reply = {.kind = LG_PARTIAL};
    size_t line_len = 0;
    if (avail == 0) {
        return reply;
    }
    switch (*p) {
    case '+':
        return text_scan(p, avail, LG_STATUS);
    case '-':
        return text_scan(p, avail, LG_ERROR);
    case '$':
        return bulk_scan(p, avail);
    case ':':
        if (line_number(p + 1, avail - 1, &reply.integer, &line_len)) {
            reply.kind = LG_INTEGER;
            reply.len = 1 + line_len;
        }
        return reply;
    default:
        lg_die("reply: unexpected type byte 0x%02x", (unsigned)(unsigned char)*p);
    }
}

void lg_reply_refuse(struct lg_reply reply) {
    if (reply.kind == LG_ERROR) {
        lg_die("reply: %.*s", (int)reply.body_len, reply.body);
    }
    lg_die("reply: of an unexpected kind (%d)", (int)reply.kind);
}

int lg_connect(uint64_t port, uint64_t source) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        lg_die("socket: %s", strerror(errno));
    }
    int on = 1;
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)source);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&from, sizeof(from)) != 0) {
        lg_die("bind: %s", strerror(errno));
    }
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0) {
        lg_die("connect to port %d: %s", (int)port, strerror(errno));
    }
    return fd;
}

int lg_connect_acked(uint64_t port, uint64_t replicas) {
    char line[64];
    int fd = lg_connect(port, 0);
    if (replicas > 0) {
        int len = snprintf(line, sizeof(line), "CLIENT ACK replicas:%d\r\n", (int)replicas);
        lg_send_all(fd, line, (size_t)len);
        size_t got = lg_recv_some(fd, line, sizeof(line));
        if (got != 5 || memcmp(line, "+OK\r\n", 5) != 0) {
            lg_die("CLIENT ACK: %.*s", (int)got, line);
        }
    }
    return fd;
}

void lg_send_all(int fd, const char *p, size_t len) {
    while (len != 0) {
        ssize_t sent = send(fd, p, len, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR) {
            lg_die("send: %s", strerror(errno));
        }
        if (sent > 0) {
            p += sent;
            len -= (size_t)sent;
        }
    }
}

size_t lg_recv_some(int fd, char *p, size_t size) {
    for (;;) {
        ssize_t got = recv(fd, p, size, 0);
        if (got > 0) {
            return (size_t)got;
        }
        if (got == 0) {
            lg_die("recv: the server closed the connection");
        }
        if (errno != EINTR) {
            lg_die("recv: %s", strerror(errno));
        }
    }
}
