/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Commands are sent in batches; then the replies of the batch are read. All replies are lines, and a batch has few enough
 * of them that they fit into the sockets' buffers while nobody reads.
 */
#include "tools/dcache-restore/push.h"

#include "server/base/buf.h"
#include "server/base/mem.h"
#include "server/base/time.h"
#include "server/proto/dump.h"
#include "tools/dcache-restore/shape.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    BATCH_COMMANDS = 512,
    BATCH_LEN = 256 * 1024,
    LINE_LEN_MAX = 1024,
    PASSWORD_MAX = 1024,
    PROGRESS_US = 1000000,
};

struct push {
    const struct options *o;
    struct push_result *result;
    int fd;
    struct buf out;
    uint32_t pending; /* replies to be read */
    char in[16 * 1024];
    size_t in_at, in_len;
    uint32_t keyspace; /* selected */
    uint64_t expected;
    int64_t began_us, told_us;
    bool told;
};

/* --- the socket -------------------------------------------------------------------------------------- */

static enum dc_err lost(int err) {
    return dc_fail(DC_EIO, "the connection is lost: %s", dc_errno_text(err));
}

static enum dc_err send_bytes(struct push *p, struct bytes data) {
    while (data.len > 0) {
        ssize_t n = send(p->fd, data.ptr, data.len, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) {
            return lost(errno);
        }
        if (n > 0) {
            data = bytes_of(data.ptr + n, data.len - (size_t)n);
            p->result->bytes += (uint64_t)n;
        }
    }
    return DC_OK;
}

/* A reply without its end of line. */
static enum dc_err read_line(struct push *p, char line[LINE_LEN_MAX]) {
    size_t len = 0;
    for (;;) {
        if (p->in_at == p->in_len) {
            ssize_t n = recv(p->fd, p->in, sizeof(p->in), 0);
            if (n < 0 && errno == EINTR) {
                continue;
            }
            if (n <= 0) {
                return lost(n < 0 ? errno : ECONNRESET);
            }
            p->in_at = 0;
            p->in_len = (size_t)n;
        }
        char c = p->in[p->in_at++];
        if (c == '\n') {
            line[len > 0 && line[len - 1] == '\r' ? len - 1 : len] = '\0';
            return DC_OK;
        }
        if (len < LINE_LEN_MAX - 1) {
            line[len++] = c;
        }
    }
}

static enum dc_err connect_unix(struct push *p, const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(a.sun_path)) {
        return dc_fail(DC_EIO, "the path of the socket is too long");
    }
    memcpy(a.sun_path, path, strlen(path) + 1);
    p->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (p->fd < 0 || connect(p->fd, (struct sockaddr *)&a, sizeof(a)) != 0) {
        return dc_fail(DC_EIO, "connect to %s: %s", path, dc_errno_text(errno));
    }
    return DC_OK;
}

/* "host:port", "[::1]:port" */
static enum dc_err connect_inet(struct push *p, const char *where) {
    char host[256];
    const char *colon = strrchr(where, ':');
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    size_t len = colon == NULL ? 0 : (size_t)(colon - where);
    bool bracketed = len > 2 && where[0] == '[' && where[len - 1] == ']';
    if (len == 0 || len >= sizeof(host)) {
        return dc_fail(DC_EIO, "'%s' isn't HOST:PORT", where);
    }
    snprintf(host, sizeof(host), "%.*s", (int)(bracketed ? len - 2 : len), where + bracketed);
    int rc = getaddrinfo(host, colon + 1, &hints, &found);
    if (rc != 0) {
        return dc_fail(DC_EIO, "%s: %s", where, gai_strerror(rc));
    }
    int err = 0;
    for (const struct addrinfo *a = found; a != NULL && p->fd < 0; a = a->ai_next) {
        p->fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (p->fd >= 0 && connect(p->fd, a->ai_addr, a->ai_addrlen) != 0) {
            err = errno;
            close(p->fd);
            p->fd = -1;
        }
    }
    freeaddrinfo(found);
    if (p->fd < 0) {
        return dc_fail(DC_EIO, "connect to %s: %s", where, dc_errno_text(err));
    }
    int on = 1;
    (void)setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return DC_OK;
}

/* --- commands ---------------------------------------------------------------------------------------- */

static void add_arg(struct push *p, struct bytes arg) {
    buf_printf(&p->out, "$%zu\r\n", arg.len);
    buf_append_bytes(&p->out, arg);
    buf_append_str(&p->out, "\r\n");
}

static enum dc_err flush_out(struct push *p) {
    enum dc_err err = p->out.failed ? DC_ENOMEM : send_bytes(p, buf_bytes(&p->out));
    buf_reset(&p->out, 2 * BATCH_LEN);
    return err;
}

/* One command whose answer has to be OK. */
static enum dc_err ask(struct push *p, const char *name, struct bytes arg) {
    char line[LINE_LEN_MAX];
    buf_append_str(&p->out, "*2\r\n");
    add_arg(p, bytes_str(name));
    add_arg(p, arg);
    enum dc_err err = flush_out(p);
    err = err != DC_OK ? err : read_line(p, line);
    if (err == DC_OK && line[0] != '+') {
        return dc_fail(DC_EIO, "%s: the node answers: %s", name, line[0] != '\0' ? line + 1 : "");
    }
    return err;
}

static enum dc_err authenticate(struct push *p) {
    char password[PASSWORD_MAX];
    if (p->o->password_file == NULL) {
        return DC_OK;
    }
    FILE *file = fopen(p->o->password_file, "r");
    if (file == NULL || fgets(password, sizeof(password), file) == NULL) {
        bool is_empty = file != NULL && feof(file) != 0;
        enum dc_err err = dc_fail(DC_EIO, "%s: %s", p->o->password_file,
                                  is_empty ? "it is empty" : dc_errno_text(errno));
        if (file != NULL) {
            fclose(file);
        }
        return err;
    }
    fclose(file);
    enum dc_err err = ask(p, "AUTH", bytes_of(password, strcspn(password, "\r\n")));
    explicit_bzero(password, sizeof(password));
    return err;
}

static void count_reply(struct push_result *r, const char *line) {
    if (line[0] == '+') {
        r->taken++;
    } else if (strncmp(line, "-BUSYKEY", 8) == 0) {
        r->existing++;
    } else {
        if (r->refused == 0) {
            snprintf(r->first_error, sizeof(r->first_error), "%.*s", PUSH_TEXT_MAX - 1,
                     line[0] == '-' ? line + 1 : line);
        }
        r->refused++;
    }
}

static void tell(struct push *p, bool end) {
    const struct push_result *r = p->result;
    int64_t now_us = time_mono_us();
    if (p->o->quiet || (!end && now_us - p->told_us < PROGRESS_US) || (end && !p->told)) {
        return;
    }
    double seconds = (double)(now_us - p->began_us) / 1e6;
    double rate = seconds > 0 ? (double)r->sent / seconds : 0;
    uint64_t left = p->expected > r->sent ? p->expected - r->sent : 0;
    fprintf(stderr,
            "%s%" PRIu64 " of %" PRIu64 " entries (%.0f %%), %.0f/s, %.0f s left, %" PRIu64
            " refused%s",
            isatty(STDERR_FILENO) ? "\r" : "", r->sent, p->expected,
            p->expected > 0 ? 100.0 * (double)r->sent / (double)p->expected : 100.0, rate,
            rate > 0 ? (double)left / rate : 0.0, r->refused,
            isatty(STDERR_FILENO) && !end ? "   " : "\n");
    p->told_us = now_us;
    p->told = true;
}

/* Sends what is gathered and reads the replies of all that was sent. */
static enum dc_err finish_batch(struct push *p) {
    char line[LINE_LEN_MAX];
    enum dc_err err = flush_out(p);
    for (; p->pending > 0 && err == DC_OK; p->pending--) {
        err = read_line(p, line);
        if (err == DC_OK) {
            count_reply(p->result, line);
        }
    }
    tell(p, false);
    return err;
}

static enum dc_err select_keyspace(struct push *p, uint32_t id) {
    char number[16];
    if (id == p->keyspace) {
        return DC_OK;
    }
    enum dc_err err = finish_batch(p);
    snprintf(number, sizeof(number), "%u", id);
    p->keyspace = id;
    return err != DC_OK ? err : ask(p, "SELECT", bytes_str(number));
}

/* RESTORE key time payload ABSTTL [REPLACE]. A large value isn't copied. */
static enum dc_err push_entry(void *arg, struct keyspace *ks, struct entry *e) {
    struct push *p = arg;
    char digits[NUM_I64_TEXT_MAX], expiry[NUM_I64_TEXT_MAX], head[DUMP_HEAD_MAX];
    char footer[DUMP_FOOTER_LEN];
    struct value v;
    enum dc_err err = select_keyspace(p, keyspace_id(ks));
    if (err != DC_OK) {
        return err;
    }
    entry_value(e, &v);
    struct bytes content =
        v.kind == VALUE_BLOB ? bytes_of(v.blob->data, v.blob->len) : value_bytes(&v, digits);
    size_t head_len = dump_encode_head(head, content.len);
    dump_encode_footer(footer, bytes_of(head, head_len), content);
    buf_printf(&p->out, "*%d\r\n", p->o->replace ? 6 : 5);
    add_arg(p, BYTES("RESTORE"));
    add_arg(p, entry_key(e));
    size_t len = num_format_i64(expiry, entry_has_expiry(e) ? entry_expiry(e) : 0);
    add_arg(p, bytes_of(expiry, len));
    buf_printf(&p->out, "$%zu\r\n", head_len + content.len + sizeof(footer));
    buf_append(&p->out, head, head_len);
    if (v.kind == VALUE_BLOB) {
        err = flush_out(p);
        err = err != DC_OK ? err : send_bytes(p, content);
    } else {
        buf_append_bytes(&p->out, content);
    }
    buf_append(&p->out, footer, sizeof(footer));
    buf_append_str(&p->out, "\r\n");
    add_arg(p, BYTES("ABSTTL"));
    if (p->o->replace) {
        add_arg(p, BYTES("REPLACE"));
    }
    p->result->sent++;
    p->pending++;
    bool full = p->pending >= BATCH_COMMANDS || p->out.len >= BATCH_LEN || v.kind == VALUE_BLOB;
    return err == DC_OK && full ? finish_batch(p) : err;
}

enum dc_err push_all(struct source *s, const struct options *o, uint64_t expected,
                     struct push_result *out) {
    struct push *p = mem_must_zalloc(sizeof(*p));
    memset(out, 0, sizeof(*out));
    p->o = o;
    p->result = out;
    p->fd = -1;
    p->keyspace = UINT32_MAX;
    p->expected = expected;
    p->began_us = p->told_us = time_mono_us();
    buf_init(&p->out, 0);
    enum dc_err err =
        strchr(o->push, '/') != NULL ? connect_unix(p, o->push) : connect_inet(p, o->push);
    err = err != DC_OK ? err : authenticate(p);
    err = err != DC_OK ? err : shape_each(s, push_entry, p);
    err = err != DC_OK ? err : finish_batch(p);
    tell(p, true);
    if (p->fd >= 0) {
        close(p->fd);
    }
    buf_fini(&p->out);
    mem_free(p);
    return err;
}
