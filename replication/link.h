/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * link: a connection between two nodes, as messages.
 *
 * Purpose: the prologue in Redis's protocol (AUTH, REPLSTREAM), the handshake of an encrypted link, then messages of wire_fmt.h both ways. Who
 *   says what when is the business of source and sink.
 * Invariants: I1 memory follows what has arrived: a length that is announced holds none. I2 with a key nothing is sent in clear behind the
 *   prologue, and nothing but the handshake before both sides have shown that they have the same key. I3 what is sent is
 *   sent whole or the link is broken.
 * Threads: one may send while another receives; link_shutdown(), link_heard_us() and link_stats() any. create, connect, accept, bye and
 *   destroy belong to who has the link alone.
 * Ownership: a received message lives until the next link_receive(). What is sent is borrowed for the call.
 * Failure: DC_EIO the peer or the network, DC_EPROTO what came is no message, DC_ESTOPPED link_shutdown() was called, DC_ENOMEM; each with a
 *   text that names the peer. After any of them only shutdown and destroy are left.
 */
#ifndef DC_REPLICATION_LINK_H
#define DC_REPLICATION_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "replication/wire_fmt.h"
#include "server/base/buf.h"
#include "server/base/bytes.h"
#include "server/base/err.h"

struct link;

enum {
    LINK_TIMEOUT_MS = 10000,
    LINK_HANDSHAKE_MS = 5000, /* for each step of it, if the timeout isn't shorter */
    LINK_LINGER_MS = 300,     /* what a BYE may take */
    LINK_IOV_MAX = 14,
    LINK_PEER_MAX = 300,  /* a host name and a port */
    LINK_LINE_MAX = 1024, /* of the prologue */
};

struct link_opts {
    const uint8_t *
        key; /* CRYPTO_KEY_LEN bytes that are copied: the link is encrypted. NULL = in clear, and only with a peer that has none */
    int64_t
        timeout_ms; /* to connect; for each answer until the link is open; for a peer that takes nothing. 0 = LINK_TIMEOUT_MS */
};

struct link_target {
    const char *host; /* a name or an address */
    uint16_t port;
    const char *user; /* NULL = AUTH with the password alone */
    const char
        *password; /* NULL or "" = no AUTH. With a key there is none: the key stands for it */
};

/* Errors: DC_EIO. */
DC_MUST enum dc_err link_create(const struct link_opts *o, struct link **out);

/* The connecting side: returns when the peer has taken the link. A name is looked up first, which can't be interrupted.
 * Errors: DC_ENOAUTH, DC_EWRONGPASS, DC_EGENERIC: the peer's refusal, with its text; DC_ELINKKEY: it has another key. */
DC_MUST enum dc_err link_connect(struct link *l, const struct link_target *t);

/* The other side: takes over a connected socket whose REPLSTREAM has been answered, and what was already read from it behind that. With a
 * key it waits for the peer. The socket is the link's also when this fails. Errors: DC_ELINKKEY. */
DC_MUST enum dc_err link_accept(struct link *l, int fd, struct bytes early);

/* One message: its fields, then 'more' by reference (NULL, 0 = nothing). Waits while the peer takes something at least every timeout_ms. */
DC_MUST enum dc_err link_send(struct link *l, enum wire_type type, struct bytes fields,
                              const struct iovec *more, int count);
/* The same for messages that are sent often. */
DC_MUST enum dc_err link_send_log(struct link *l, uint64_t lsn, struct bytes bytes);
/* LOG without waiting. True: it is sent, but for what the socket didn't take, which is added to 'rest': link_send_rest() comes before anything
 * else is sent. False: nothing was sent, because the socket is full, the link is encrypted, or broken (the next call says how). */
bool link_try_log(struct link *l, uint64_t lsn, struct bytes bytes, struct buf *rest);
DC_MUST enum dc_err link_send_rest(struct link *l, struct buf *rest);
DC_MUST enum dc_err link_send_copy_data(struct link *l, uint64_t offset, struct bytes bytes);
DC_MUST enum dc_err link_send_ack(struct link *l, const struct wire_ack *m);
DC_MUST enum dc_err link_send_beat(struct link *l, const struct wire_beat *m);
DC_MUST enum dc_err link_send_hurry(struct link *l, uint64_t lsn);
DC_MUST enum dc_err link_send_ask(struct link *l, uint64_t for_ms);

struct link_message {
    enum wire_type type; /* WIRE_NONE = nothing came in time */
    struct bytes body;
};

/* The next message; waits up to about 'timeout_ms' (0 = takes what is there, -1 = for ever). */
DC_MUST enum dc_err link_receive(struct link *l, int64_t timeout_ms, struct link_message *out);
/* A whole message is here: the next link_receive() doesn't touch the socket. */
bool link_has_message(const struct link *l);

/* When something was last received, on the monotonic clock. */
int64_t link_heard_us(const struct link *l);
/* "127.0.0.1:6379" */
const char *link_peer(const struct link *l);
/* For poll() beside other descriptors; ask link_has_message() first. */
int link_fd(const struct link *l);

struct link_stats {
    uint64_t sent_bytes, received_bytes; /* as they went through the socket */
    uint64_t sends, receives;            /* system calls */
};
void link_stats(const struct link *l, struct link_stats *out);

/* Whoever waits in one of the calls above returns with DC_ESTOPPED, and so does every later one. */
void link_shutdown(struct link *l);

/* The last words: sends BYE and waits LINK_LINGER_MS for the peer to close, so that they arrive. A failure is nobody's business. */
void link_bye(struct link *l, uint64_t epoch, const char *text);

/* NULL is legal. */
void link_destroy(struct link *l);

#endif
