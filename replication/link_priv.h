/* SPDX-License-Identifier: BSD-3-Clause */
/* link_priv: a link from inside. link.c moves messages, link_open.c gets it as far. */
#ifndef DC_REPLICATION_LINK_PRIV_H
#define DC_REPLICATION_LINK_PRIV_H

#include <stdatomic.h>

#include "replication/link.h"
#include "replication/secure.h"
#include "server/base/buf.h"

/* Bytes that have arrived; those before 'at' have been taken. */
struct link_input {
    struct buf b;
    size_t at;
};

/* What an encrypted link needs besides. */
struct link_secure {
    struct secure s;                   /* its halves belong to who receives and who sends */
    struct link_input plain;           /* opened; owned by who receives */
    uint8_t record[SECURE_RECORD_MAX]; /* owned by who sends, like the next */
    uint8_t gathered[SECURE_PLAIN_MAX];
};

struct link {
    /* constant once it is open */
    int64_t timeout_us;
    int wake_fd; /* readable when the link is stopped: for the calls that poll */
    char peer[LINK_PEER_MAX];
    struct link_secure *secure;  /* NULL = in clear */
    bool encrypts;               /* it has a key */
    uint8_t key[CRYPTO_KEY_LEN]; /* until the handshake is done */
    /* owned by who receives */
    struct link_input in; /* from the socket */
    size_t taken;         /* length of the message that the caller has */
    int64_t receive_timeout_ms;
    /* owned by who sends */
    bool send_broken; /* in the middle of a message */
    /* atomic, relaxed unless a comment says otherwise */
    _Atomic int fd; /* -1 = none. Order against 'stopping': link_publish() */
    _Atomic bool stopping;
    _Atomic int64_t heard_us;
    _Atomic uint64_t sent_bytes, received_bytes, sends, receives;
};

static inline size_t link_input_len(const struct link_input *in) {
    return in->b.len - in->at;
}

static inline const char *link_input_ptr(const struct link_input *in) {
    return in->b.ptr + in->at;
}

/* The socket is the link's from now on, and link_shutdown() reaches it. */
void link_publish(struct link *l, int fd);

DC_MUST enum dc_err link_send_all(struct link *l, struct iovec *iov, int count);

/* Receives something behind what is there: up to 'wants' bytes, or some more if that is little. 'got' = false: nothing came within
 * 'timeout_ms'. */
DC_MUST enum dc_err link_fill(struct link *l, size_t wants, int64_t timeout_ms, bool *got);

/* Of an encrypted link: opens all records that are here, so that link_has_message() knows. 'missing' is what the next one lacks. */
DC_MUST enum dc_err link_open_records(struct link *l, size_t *missing);

/* Waits until 'len' untaken bytes are there. */
DC_MUST enum dc_err link_need(struct link *l, size_t len, int64_t timeout_us, const char *what);

#endif
