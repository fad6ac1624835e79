/* SPDX-License-Identifier: BSD-3-Clause */
/* How a link gets open: the socket, then the prologue, which is two commands of an ordinary client. */
#include "replication/link.h"

#include "replication/link_priv.h"
#include "server/base/assert.h"
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "server/base/time.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* --- the socket ------------------------------------------------------------------------------------------------ */

/* Blocking, with the timeout for sending; see the top of link.c. */
static enum dc_err prepare_socket(struct link *l, int fd) {
    int on = 1;
    int flags = fcntl(fd, F_GETFL);
    struct timeval tv = {l->timeout_us / 1000000, l->timeout_us % 1000000};
    if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) < 0) {
        return dc_fail(DC_EIO, "the socket to %s: %s", l->peer, dc_errno_text(errno));
    }
    /* Hints: a socket that isn't TCP refuses them and works all the same. */
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return DC_OK;
}

/* Waits for the connection under way: 0 or an errno. */
static int await_connection(struct link *l, int fd, int64_t deadline_us) {
    struct pollfd fds[] = {{fd, POLLOUT, 0}, {l->wake_fd, POLLIN, 0}};
    for (;;) {
        int64_t left_us = deadline_us - time_mono_us();
        int n = left_us > 0 ? poll(fds, 2, (int)(left_us / 1000) + 1) : 0;
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n == 0 ? ETIMEDOUT : errno;
        }
        if (fds[1].revents != 0) {
            return ECANCELED;
        }
        int err = 0;
        socklen_t len = sizeof(err);
        return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 ? err : errno;
    }
}

/* A connected socket, or -errno. */
static int connect_one(struct link *l, const struct addrinfo *ai, int64_t deadline_us) {
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, ai->ai_protocol);
    if (fd < 0) {
        return -errno;
    }
    int err = connect(fd, ai->ai_addr, ai->ai_addrlen) == 0 ? 0 : errno;
    if (err == EINPROGRESS || err == EINTR) {
        err = await_connection(l, fd, deadline_us);
    }
    if (err != 0) {
        close(fd);
        return -err;
    }
    return fd;
}

static enum dc_err open_socket(struct link *l, const struct link_target *t) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    char port[8];
    snprintf(port, sizeof(port), "%u", t->port);
    int rc = getaddrinfo(t->host, port, &hints, &list);
    if (rc != 0) {
        return dc_fail(DC_EIO, "looking up %s: %s", t->host, gai_strerror(rc));
    }
    int64_t deadline_us = time_mono_us() + l->timeout_us;
    int fd = -EHOSTUNREACH;
    for (struct addrinfo *ai = list; ai != NULL && fd < 0 && fd != -ECANCELED; ai = ai->ai_next) {
        fd = connect_one(l, ai, deadline_us);
    }
    freeaddrinfo(list);
    if (fd == -ECANCELED) {
        return dc_fail(DC_ESTOPPED, "the link to %s was stopped", l->peer);
    }
    if (fd < 0) {
        return dc_fail(DC_EIO, "connecting to %s: %s", l->peer, dc_errno_text(-fd));
    }
    link_publish(l, fd);
    return prepare_socket(l, fd);
}

static void name_peer(struct link *l, int fd) {
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    char host[INET6_ADDRSTRLEN];
    if (getpeername(fd, (struct sockaddr *)&ss, &len) < 0) {
        return;
    }
    if (ss.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&ss;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        snprintf(l->peer, sizeof(l->peer), "%s:%u", host, ntohs(in->sin_port));
    } else if (ss.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&ss;
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
        snprintf(l->peer, sizeof(l->peer), "[%s]:%u", host, ntohs(in6->sin6_port));
    } else {
        snprintf(l->peer, sizeof(l->peer), "a local socket");
    }
}

/* --- the prologue ---------------------------------------------------------------------------------------------- */

static void append_arg(struct buf *b, const char *arg) {
    buf_printf(b, "$%zu\r\n", strlen(arg));
    buf_append_str(b, arg);
    buf_append_str(b, "\r\n");
}

static enum dc_err send_command(struct link *l, const char *const *args, size_t count) {
    struct buf b;
    buf_init(&b, 0);
    buf_printf(&b, "*%zu\r\n", count);
    for (size_t i = 0; i < count; i++) {
        append_arg(&b, args[i]);
    }
    struct iovec iov = {b.ptr, b.len};
    enum dc_err err = b.failed ? DC_ENOMEM : link_send_all(l, &iov, 1);
    buf_fini(&b);
    return err;
}

/* A line of the peer, without its end; a view until more is received. */
static enum dc_err read_line(struct link *l, struct bytes *out) {
    for (size_t len = 2;; len++) {
        enum dc_err err = link_need(l, len, l->timeout_us, "answer");
        if (err != DC_OK) {
            return err;
        }
        const char *line = link_input_ptr(&l->in);
        if (line[len - 2] == '\r' && line[len - 1] == '\n') {
            *out = bytes_of(line, len - 2);
            l->in.at += len;
            return DC_OK;
        }
        if (len == LINK_LINE_MAX) {
            return dc_fail(DC_EPROTO, "%s doesn't speak Redis's protocol", l->peer);
        }
    }
}

static bool begins_with(struct bytes line, const char *word) {
    size_t len = strlen(word);
    return line.len >= len && memcmp(line.ptr, word, len) == 0;
}

/* The code of an error line. */
static enum dc_err refusal(struct bytes line) {
    return begins_with(line, "-NOAUTH")      ? DC_ENOAUTH
           : begins_with(line, "-WRONGPASS") ? DC_EWRONGPASS
                                             : DC_EGENERIC;
}

/* Sends a command that is answered with OK. */
static enum dc_err run_command(struct link *l, const char *const *args, size_t count) {
    struct bytes line;
    enum dc_err err = send_command(l, args, count);
    if (err == DC_OK) {
        err = read_line(l, &line);
    }
    if (err != DC_OK) {
        return err;
    }
    if (begins_with(line, "-")) {
        return dc_fail(refusal(line), "%s answered %s: %.*s", l->peer, args[0], (int)line.len - 1,
                       line.ptr + 1);
    }
    return bytes_equal(line, BYTES("+OK"))
               ? DC_OK
               : dc_fail(DC_EPROTO, "%s doesn't speak Redis's protocol", l->peer);
}

static enum dc_err authenticate(struct link *l, const struct link_target *t) {
    const char *const with_user[] = {"AUTH", t->user, t->password};
    const char *const without[] = {"AUTH", t->password};
    if (t->password == NULL || *t->password == '\0') {
        return DC_OK;
    }
    return t->user != NULL && *t->user != '\0' ? run_command(l, with_user, 3)
                                               : run_command(l, without, 2);
}

static enum dc_err ask_for_stream(struct link *l) {
    const char *const args[] = {"REPLSTREAM", "1", "SECURE"};
    static_assert(WIRE_PROTOCOL == 1, "the argument names the protocol");
    return run_command(l, args, l->encrypts ? 3 : 2);
}

/* --- the handshake of an encrypted link (secure.h) -------------------------------------------------------------------- */

static enum dc_err say(struct link *l, const uint8_t *a, size_t a_len, const uint8_t *b,
                       size_t b_len) {
    struct iovec iov[] = {{(void *)(uintptr_t)a, a_len}, {(void *)(uintptr_t)b, b_len}};
    return link_send_all(l, iov, 2);
}

/* A stranger gets this far, but not for as long as a peer may be silent. */
static enum dc_err hear(struct link *l, uint8_t *to, size_t len) {
    int64_t most_us = (int64_t)LINK_HANDSHAKE_MS * 1000;
    enum dc_err err =
        link_need(l, len, l->timeout_us < most_us ? l->timeout_us : most_us, "handshake");
    if (err == DC_OK) {
        memcpy(to, link_input_ptr(&l->in), len);
        l->in.at += len;
    }
    return err;
}

static enum dc_err fail_key(const struct link *l) {
    return dc_fail(DC_ELINKKEY,
                   "%s has another key: compare the files that replication-key-file names",
                   l->peer);
}

static enum dc_err meet(struct link *l, struct secure *s) {
    uint8_t hello[SECURE_HELLO_LEN];
    enum dc_err err = hear(l, hello, sizeof(hello));
    if (err != DC_OK) {
        return err;
    }
    switch (secure_meet(s, hello)) {
    case SECURE_OK:
        return DC_OK;
    case SECURE_NEWER:
        return dc_fail(DC_EPROTO, "%s encrypts in another way than this version knows", l->peer);
    case SECURE_NOT_OURS:
        return dc_fail(DC_EPROTO, "%s sent no handshake of an encrypted link", l->peer);
    }
    dc_unreachable();
}

static enum dc_err check(struct link *l, struct secure *s) {
    uint8_t proof[SECURE_PROOF_LEN];
    enum dc_err err = hear(l, proof, sizeof(proof));
    return err == DC_OK && !secure_check(s, proof) ? fail_key(l) : err;
}

static enum dc_err connecting_handshake(struct link *l, struct secure *s) {
    uint8_t hello[SECURE_HELLO_LEN], proof[SECURE_PROOF_LEN] = {0};
    secure_begin(s, SECURE_CONNECTING, l->key, hello);
    enum dc_err err = say(l, hello, sizeof(hello), NULL, 0);
    if (err == DC_OK) {
        err = meet(l, s);
    }
    if (err == DC_OK) {
        err = check(l, s);
    }
    if (err == DC_OK) {
        secure_prove(s, proof);
        return say(l, proof, sizeof(proof), NULL, 0);
    }
    if (err == DC_ELINKKEY && say(l, proof, sizeof(proof), NULL, 0) == DC_OK) {
        return fail_key(l); /* zeros: the other side learns it too */
    }
    return err;
}

static enum dc_err accepting_handshake(struct link *l, struct secure *s) {
    uint8_t hello[SECURE_HELLO_LEN], proof[SECURE_PROOF_LEN];
    secure_begin(s, SECURE_ACCEPTING, l->key, hello);
    enum dc_err err = meet(l, s);
    if (err == DC_OK) {
        secure_prove(s, proof);
        err = say(l, hello, sizeof(hello), proof, sizeof(proof));
    }
    return err == DC_OK ? check(l, s) : err;
}

static enum dc_err encrypt(struct link *l, bool connecting) {
    if (!l->encrypts) {
        return DC_OK;
    }
    struct link_secure *x = mem_alloc(sizeof(*x));
    if (x == NULL) {
        return DC_ENOMEM;
    }
    buf_init(&x->plain.b, 0);
    x->plain.at = 0;
    enum dc_err err = connecting ? connecting_handshake(l, &x->s) : accepting_handshake(l, &x->s);
    crypto_wipe(l->key, sizeof(l->key));
    if (err != DC_OK) {
        secure_wipe(&x->s);
        mem_free(x);
        return err;
    }
    l->secure = x;
    size_t missing;
    return link_open_records(l, &missing); /* that came with the handshake */
}

/* --- both sides ------------------------------------------------------------------------------------------------ */

enum dc_err link_connect(struct link *l, const struct link_target *t) {
    dc_assert(link_fd(l) < 0);
    snprintf(l->peer, sizeof(l->peer), strchr(t->host, ':') != NULL ? "[%s]:%u" : "%s:%u", t->host,
             t->port);
    enum dc_err err = open_socket(l, t);
    if (err == DC_OK && !l->encrypts) {
        err = authenticate(l, t);
    }
    if (err == DC_OK) {
        err = ask_for_stream(l);
    }
    return err == DC_OK ? encrypt(l, true) : err;
}

enum dc_err link_accept(struct link *l, int fd, struct bytes early) {
    dc_assert(link_fd(l) < 0);
    name_peer(l, fd);
    link_publish(l, fd);
    enum dc_err err = prepare_socket(l, fd);
    if (err == DC_OK) {
        buf_append_bytes(&l->in.b, early);
        err = l->in.b.failed ? DC_ENOMEM : DC_OK;
        atomic_store_explicit(&l->heard_us, time_mono_us(), memory_order_relaxed);
    }
    return err == DC_OK ? encrypt(l, false) : err;
}
