/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The socket is a blocking one with timeouts of its own (SO_SNDTIMEO, SO_RCVTIMEO): a message of any length leaves with one sendmsg(), and
 * waiting for the next one and reading it is one recv(). shutdown() ends both.
 */
#include "replication/link.h"

#include "replication/link_priv.h"
#include "server/base/assert.h"
#include "server/base/mem.h"
#include "server/base/time.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
    INPUT_MIN_LEN = 64 * 1024, /* of the buffer, and of what one call asks for */
    FOREVER_MS = -1,
};

static void count(_Atomic uint64_t *to, uint64_t n) {
    atomic_fetch_add_explicit(to, n, memory_order_relaxed);
}

static bool is_stopping(const struct link *l) {
    return atomic_load_explicit(&l->stopping, memory_order_seq_cst);
}

static enum dc_err fail_stopped(const struct link *l) {
    return dc_fail(DC_ESTOPPED, "the link to %s was stopped", l->peer);
}

/* --- life ------------------------------------------------------------------------------------------------------ */

enum dc_err link_create(const struct link_opts *o, struct link **out) {
    struct link *l = mem_must_zalloc(sizeof(*l));
    int64_t timeout_ms = o->timeout_ms > 0 ? o->timeout_ms : LINK_TIMEOUT_MS;
    *out = NULL;
    l->timeout_us = timeout_ms * 1000;
    l->receive_timeout_ms = FOREVER_MS;
    if (o->key != NULL) {
        l->encrypts = true;
        memcpy(l->key, o->key, CRYPTO_KEY_LEN);
    }
    l->fd = -1;
    buf_init(&l->in.b, 0);
    memcpy(l->peer, "?", 2);
    l->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (l->wake_fd < 0) {
        mem_free(l);
        return dc_fail(DC_EIO, "eventfd: %s", dc_errno_text(errno));
    }
    *out = l;
    return DC_OK;
}

void link_destroy(struct link *l) {
    if (l == NULL) {
        return;
    }
    int fd = link_fd(l);
    if (fd >= 0) {
        close(fd);
    }
    close(l->wake_fd);
    buf_fini(&l->in.b);
    if (l->secure != NULL) {
        buf_fini(&l->secure->plain.b);
        secure_wipe(&l->secure->s);
        mem_free(l->secure);
    }
    crypto_wipe(l->key, sizeof(l->key));
    mem_free(l);
}

/* Either the stopper sees the socket or we see that it has stopped us. */
void link_publish(struct link *l, int fd) {
    atomic_store_explicit(&l->fd, fd, memory_order_seq_cst);
    if (is_stopping(l)) {
        shutdown(fd, SHUT_RDWR);
    }
}

void link_shutdown(struct link *l) {
    uint64_t one = 1;
    atomic_store_explicit(&l->stopping, true, memory_order_seq_cst);
    ssize_t n = write(l->wake_fd, &one, sizeof(one));
    dc_assert(n == (ssize_t)sizeof(one) || errno == EAGAIN);
    int fd = atomic_load_explicit(&l->fd, memory_order_seq_cst);
    if (fd >= 0) {
        shutdown(fd, SHUT_RDWR);
    }
}

int link_fd(const struct link *l) {
    return atomic_load_explicit(&l->fd, memory_order_relaxed);
}

const char *link_peer(const struct link *l) {
    return l->peer;
}

int64_t link_heard_us(const struct link *l) {
    return atomic_load_explicit(&l->heard_us, memory_order_relaxed);
}

void link_stats(const struct link *l, struct link_stats *out) {
    out->sent_bytes = atomic_load_explicit(&l->sent_bytes, memory_order_relaxed);
    out->received_bytes = atomic_load_explicit(&l->received_bytes, memory_order_relaxed);
    out->sends = atomic_load_explicit(&l->sends, memory_order_relaxed);
    out->receives = atomic_load_explicit(&l->receives, memory_order_relaxed);
}

/* --- sending --------------------------------------------------------------------------------------------------- */

static enum dc_err send_failed(struct link *l, int err) {
    l->send_broken = true; /* I3 */
    if (is_stopping(l)) {
        return fail_stopped(l);
    }
    if (err == EAGAIN) {
        return dc_fail(DC_EIO, "%s took nothing for %" PRId64 " ms", l->peer, l->timeout_us / 1000);
    }
    return dc_fail(DC_EIO, "sending to %s: %s", l->peer, dc_errno_text(err));
}

static void skip_sent(struct msghdr *m, size_t n) {
    while (m->msg_iovlen > 0 && n >= m->msg_iov->iov_len) {
        n -= m->msg_iov->iov_len;
        m->msg_iov++;
        m->msg_iovlen--;
    }
    if (n > 0) {
        m->msg_iov->iov_base = (char *)m->msg_iov->iov_base + n;
        m->msg_iov->iov_len -= n;
    }
}

enum dc_err link_send_all(struct link *l, struct iovec *iov, int iov_count) {
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = (size_t)iov_count};
    if (l->send_broken || is_stopping(l)) {
        return send_failed(l, EPIPE);
    }
    skip_sent(&m, 0);
    while (m.msg_iovlen > 0) {
        ssize_t n = sendmsg(link_fd(l), &m, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return send_failed(l, errno);
        }
        count(&l->sends, 1);
        count(&l->sent_bytes, (uint64_t)n);
        skip_sent(&m, (size_t)n);
    }
    return DC_OK;
}

/* Takes up to SECURE_PLAIN_MAX bytes off the front. */
static size_t gather(struct msghdr *m, uint8_t *to) {
    size_t len = 0;
    while (m->msg_iovlen > 0 && len < SECURE_PLAIN_MAX) {
        size_t room = SECURE_PLAIN_MAX - len;
        size_t n = m->msg_iov->iov_len < room ? m->msg_iov->iov_len : room;
        memcpy(to + len, m->msg_iov->iov_base, n);
        len += n;
        skip_sent(m, n);
    }
    return len;
}

/* Record by record. */
static enum dc_err send_sealed(struct link *l, struct iovec *iov, int iov_count) {
    struct link_secure *x = l->secure;
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = (size_t)iov_count};
    enum dc_err err = DC_OK;
    skip_sent(&m, 0);
    while (m.msg_iovlen > 0 && err == DC_OK) {
        size_t len = gather(&m, x->gathered);
        struct iovec record = {x->record, secure_seal(&x->s, x->record, x->gathered, len)};
        err = link_send_all(l, &record, 1);
    }
    return err;
}

enum dc_err link_send(struct link *l, enum wire_type type, struct bytes fields,
                      const struct iovec *more, int more_count) {
    uint8_t head[WIRE_HEAD_LEN];
    struct iovec iov[2 + LINK_IOV_MAX];
    size_t len = fields.len;
    dc_assert(more_count >= 0 && more_count <= LINK_IOV_MAX);
    iov[0] = (struct iovec){head, sizeof(head)};
    iov[1] = (struct iovec){(void *)(uintptr_t)fields.ptr, fields.len}; /* only read */
    for (int i = 0; i < more_count; i++) {
        iov[2 + i] = more[i];
        len += more[i].iov_len;
    }
    wire_head_encode(type, len, head);
    if (l->encrypts && l->secure == NULL) { /* I2 */
        return dc_fail(DC_ELINKKEY, "the link to %s isn't open", l->peer);
    }
    return l->secure != NULL ? send_sealed(l, iov, 2 + more_count)
                             : link_send_all(l, iov, 2 + more_count);
}

/* Fields of fixed length, then bytes that stand elsewhere. */
static enum dc_err send_with_bytes(struct link *l, enum wire_type type, const uint8_t *fields,
                                   size_t len, struct bytes bytes) {
    struct iovec more = {(void *)(uintptr_t)bytes.ptr, bytes.len};
    return link_send(l, type, bytes_of((const char *)fields, len), &more, bytes.len > 0);
}

enum dc_err link_send_log(struct link *l, uint64_t lsn, struct bytes bytes) {
    uint8_t fields[WIRE_LOG_LEN];
    dc_assert(bytes.len > 0);
    wire_log_encode(lsn, fields);
    return send_with_bytes(l, WIRE_LOG, fields, sizeof(fields), bytes);
}

bool link_try_log(struct link *l, uint64_t lsn, struct bytes bytes, struct buf *rest) {
    uint8_t head[WIRE_HEAD_LEN + WIRE_LOG_LEN];
    struct iovec iov[2] = {{head, sizeof(head)}, {(void *)(uintptr_t)bytes.ptr, bytes.len}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
    dc_assert(bytes.len > 0 && rest->len == 0);
    if (l->encrypts || l->send_broken || is_stopping(l)) {
        return false;
    }
    wire_head_encode(WIRE_LOG, WIRE_LOG_LEN + bytes.len, head);
    wire_log_encode(lsn, head + WIRE_HEAD_LEN);
    ssize_t n = sendmsg(link_fd(l), &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n <= 0) {
        return false;
    }
    count(&l->sends, 1);
    count(&l->sent_bytes, (uint64_t)n);
    skip_sent(&m, (size_t)n);
    for (; m.msg_iovlen > 0; m.msg_iov++, m.msg_iovlen--) {
        buf_append(rest, m.msg_iov->iov_base, m.msg_iov->iov_len);
    }
    l->send_broken = rest->failed; /* I3 */
    return !rest->failed;
}

enum dc_err link_send_rest(struct link *l, struct buf *rest) {
    struct iovec iov = {rest->ptr, rest->len};
    enum dc_err err = link_send_all(l, &iov, rest->len > 0);
    buf_reset(rest, 0);
    return err;
}

enum dc_err link_send_copy_data(struct link *l, uint64_t offset, struct bytes bytes) {
    uint8_t fields[WIRE_COPY_DATA_LEN];
    dc_assert(bytes.len > 0);
    wire_copy_data_encode(offset, fields);
    return send_with_bytes(l, WIRE_COPY_DATA, fields, sizeof(fields), bytes);
}

enum dc_err link_send_ack(struct link *l, const struct wire_ack *m) {
    uint8_t fields[WIRE_ACK_LEN];
    wire_ack_encode(m, fields);
    return send_with_bytes(l, WIRE_ACK, fields, sizeof(fields), bytes_of(NULL, 0));
}

enum dc_err link_send_beat(struct link *l, const struct wire_beat *m) {
    uint8_t fields[WIRE_BEAT_LEN];
    wire_beat_encode(m, fields);
    return send_with_bytes(l, WIRE_BEAT, fields, sizeof(fields), bytes_of(NULL, 0));
}

enum dc_err link_send_hurry(struct link *l, uint64_t lsn) {
    uint8_t fields[WIRE_HURRY_LEN];
    wire_hurry_encode(lsn, fields);
    return send_with_bytes(l, WIRE_HURRY, fields, sizeof(fields), bytes_of(NULL, 0));
}

enum dc_err link_send_ask(struct link *l, uint64_t for_ms) {
    uint8_t fields[WIRE_ASK_LEN];
    wire_ask_encode(for_ms, fields);
    return send_with_bytes(l, WIRE_ASK, fields, sizeof(fields), bytes_of(NULL, 0));
}

/* --- receiving ------------------------------------------------------------------------------------------------- */

/* The socket's own timeout follows what callers ask for, which is mostly the same. */
static void set_receive_timeout(struct link *l, int64_t timeout_ms) {
    if (timeout_ms == l->receive_timeout_ms) {
        return;
    }
    struct timeval tv = {0, 0}; /* for ever */
    if (timeout_ms > 0) {
        tv = (struct timeval){timeout_ms / 1000, (timeout_ms % 1000) * 1000};
    }
    int rc = setsockopt(link_fd(l), SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    dc_assert(rc == 0);
    l->receive_timeout_ms = timeout_ms;
}

/* Moves what isn't taken to the front when what is wanted doesn't fit behind it. */
static void make_room(struct link_input *in, size_t wants) {
    size_t len = link_input_len(in);
    if (len == 0) {
        in->at = 0;
        in->b.len = 0;
    } else if (in->at > 0 && in->b.cap - in->b.len < wants) {
        memmove(in->b.ptr, in->b.ptr + in->at, len);
        in->b.len = len;
        in->at = 0;
    }
}

/* Grows when the buffer is full, and only then (I1). */
static enum dc_err grow_when_full(struct link_input *in) {
    struct buf *b = &in->b;
    if (b->len < b->cap) {
        return DC_OK;
    }
    return buf_reserve(b, b->cap > 0 ? b->cap : INPUT_MIN_LEN);
}

/* A link that is quiet for a while needs no long buffer. */
static void give_back(struct link_input *in) {
    if (link_input_len(in) == 0) {
        in->at = 0;
        buf_reset(&in->b, INPUT_MIN_LEN);
    }
}

static enum dc_err receive_failed(struct link *l, ssize_t n, int err) {
    if (is_stopping(l)) {
        return fail_stopped(l);
    }
    return n == 0 ? dc_fail(DC_EIO, "%s has closed the link", l->peer)
                  : dc_fail(DC_EIO, "receiving from %s: %s", l->peer, dc_errno_text(err));
}

/* What completes a long message isn't read together with what follows it: that would have to be moved to the front. */
enum dc_err link_fill(struct link *l, size_t wants, int64_t timeout_ms, bool *got) {
    struct buf *b = &l->in.b;
    ssize_t n;
    make_room(&l->in, wants);
    enum dc_err err = grow_when_full(&l->in);
    if (err != DC_OK) {
        return err;
    }
    size_t room = b->cap - b->len;
    size_t most = wants > INPUT_MIN_LEN ? wants : INPUT_MIN_LEN;
    size_t len = room < most ? room : most;
    set_receive_timeout(l, timeout_ms == 0 ? l->receive_timeout_ms : timeout_ms);
    do {
        n = recv(link_fd(l), b->ptr + b->len, len, timeout_ms == 0 ? MSG_DONTWAIT : 0);
    } while (n < 0 && errno == EINTR);
    *got = n > 0;
    if (n > 0) {
        b->len += (size_t)n;
        count(&l->receives, 1);
        count(&l->received_bytes, (uint64_t)n);
        atomic_store_explicit(&l->heard_us, time_mono_us(), memory_order_relaxed);
        return DC_OK;
    }
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) && !is_stopping(l)) {
        return DC_OK;
    }
    return receive_failed(l, n, errno);
}

enum dc_err link_need(struct link *l, size_t len, int64_t timeout_us, const char *what) {
    int64_t deadline = time_mono_us() + timeout_us;
    while (link_input_len(&l->in) < len) {
        int64_t left_ms = (deadline - time_mono_us()) / 1000;
        bool got = false;
        enum dc_err err = left_ms > 0 ? link_fill(l, len, left_ms, &got) : DC_OK;
        if (err != DC_OK) {
            return err;
        }
        if (!got && time_mono_us() >= deadline) {
            return dc_fail(DC_EIO, "%s sent no %s for %" PRId64 " ms", l->peer, what,
                           timeout_us / 1000);
        }
    }
    return DC_OK;
}

enum parsed { PARSED_MESSAGE, PARSED_PART, PARSED_WRONG };

/* The message at the front, if all of it is there; else how many bytes are missing, as far as is known. */
static enum parsed parse(const struct link_input *in, struct link_message *out, size_t *missing) {
    size_t len = link_input_len(in), body_len;
    *missing = WIRE_HEAD_LEN;
    if (len < WIRE_HEAD_LEN) {
        return PARSED_PART;
    }
    if (!wire_head_decode(link_input_ptr(in), &out->type, &body_len)) {
        return PARSED_WRONG;
    }
    if (len - WIRE_HEAD_LEN < body_len) {
        *missing = body_len - (len - WIRE_HEAD_LEN);
        return PARSED_PART;
    }
    out->body = bytes_of(link_input_ptr(in) + WIRE_HEAD_LEN, body_len);
    return PARSED_MESSAGE;
}

static const struct link_input *messages_of(const struct link *l) {
    return l->secure != NULL ? &l->secure->plain : &l->in;
}

bool link_has_message(const struct link *l) {
    struct link_input rest = *messages_of(l);
    struct link_message m;
    size_t missing;
    rest.at += l->taken;
    return parse(&rest, &m, &missing) != PARSED_PART;
}

/* Opens the record at the front; 'missing' = 0 when it was there, else how much of it isn't. */
static enum dc_err open_record(struct link *l, size_t *missing) {
    struct link_input *plain = &l->secure->plain;
    const uint8_t *from = (const uint8_t *)link_input_ptr(&l->in);
    size_t have = link_input_len(&l->in);
    *missing = SECURE_RECORD_HEAD_LEN;
    if (have < SECURE_RECORD_HEAD_LEN) {
        return DC_OK;
    }
    size_t len = secure_record_len(from);
    if (len > 0 && have < SECURE_RECORD_HEAD_LEN + len) {
        *missing = SECURE_RECORD_HEAD_LEN + len - have;
        return DC_OK;
    }
    *missing = 0;
    make_room(plain, SECURE_PLAIN_MAX);
    char *to = buf_room(&plain->b, SECURE_PLAIN_MAX);
    if (to == NULL) {
        return DC_ENOMEM;
    }
    if (len == 0 ||
        !secure_open(&l->secure->s, (uint8_t *)to, from + SECURE_RECORD_HEAD_LEN, len)) {
        return dc_fail(DC_EPROTO,
                       "what comes from %s was changed on its way, or isn't of this link", l->peer);
    }
    plain->b.len += len - CRYPTO_SEAL_LEN;
    l->in.at += SECURE_RECORD_HEAD_LEN + len;
    return DC_OK;
}

enum dc_err link_open_records(struct link *l, size_t *missing) {
    enum dc_err err;
    do {
        err = open_record(l, missing);
    } while (err == DC_OK && *missing == 0);
    return err;
}

/* 'got': there may be another message now. */
static enum dc_err receive_some(struct link *l, size_t missing, int64_t timeout_ms, bool *got) {
    enum dc_err err = DC_OK;
    if (l->secure != NULL) {
        size_t before = link_input_len(&l->secure->plain);
        err = link_open_records(l, &missing);
        *got = link_input_len(&l->secure->plain) > before;
        if (err != DC_OK || *got) {
            return err;
        }
    }
    err = link_fill(l, missing, timeout_ms, got);
    return err == DC_OK && *got && l->secure != NULL ? link_open_records(l, &missing) : err;
}

enum dc_err link_receive(struct link *l, int64_t timeout_ms, struct link_message *out) {
    int64_t deadline = timeout_ms > 0 ? time_mono_us() + timeout_ms * 1000 : 0;
    struct link_input *in = l->secure != NULL ? &l->secure->plain : &l->in;
    in->at += l->taken;
    l->taken = 0;
    for (;;) {
        size_t missing;
        bool got;
        enum parsed p = parse(in, out, &missing);
        if (p == PARSED_WRONG) {
            return dc_fail(DC_EPROTO, "%s sent what is no message of a link", l->peer);
        }
        if (p == PARSED_MESSAGE) {
            l->taken = WIRE_HEAD_LEN + out->body.len;
            return DC_OK;
        }
        enum dc_err err = receive_some(l, missing, timeout_ms, &got);
        if (err != DC_OK) {
            return err;
        }
        if (!got || (timeout_ms > 0 && time_mono_us() >= deadline && !link_has_message(l))) {
            if (timeout_ms != 0) {
                give_back(in);
                give_back(&l->in);
            }
            *out = (struct link_message){.type = WIRE_NONE};
            return DC_OK;
        }
    }
}

/* --- the end --------------------------------------------------------------------------------------------------- */

static void wait_for_close(struct link *l) {
    char nothing[4096];
    int64_t deadline = time_mono_us() + LINK_LINGER_MS * 1000;
    struct pollfd fds[] = {{link_fd(l), POLLIN, 0}, {l->wake_fd, POLLIN, 0}};
    for (int64_t left; (left = deadline - time_mono_us()) > 0;) {
        if (poll(fds, 2, (int)(left / 1000) + 1) <= 0 || fds[1].revents != 0 ||
            recv(fds[0].fd, nothing, sizeof(nothing), MSG_DONTWAIT) <= 0) {
            return;
        }
    }
}

void link_bye(struct link *l, uint64_t epoch, const char *text) {
    struct wire_bye m = {epoch, bytes_str(text)};
    char room[WIRE_BYE_LEN + WIRE_TEXT_MAX];
    struct buf b = {.ptr = room, .cap = sizeof(room), .limit = sizeof(room)};
    wire_bye_encode(&m, &b);
    dc_assert(!b.failed);
    if (link_send(l, WIRE_BYE, buf_bytes(&b), NULL, 0) == DC_OK) {
        shutdown(link_fd(l), SHUT_WR);
        wait_for_close(l); /* closing with input unread would overtake the text */
    }
}
