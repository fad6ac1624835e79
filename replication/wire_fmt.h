/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wire_fmt: the bytes of the messages of a link. Little endian; replication/README.md has them byte by byte.
 *
 *   message  0  u32  length of what follows
 *            4  u8   type, a number of wire.def
 *            5       fields of the type: a fixed part, then what its lengths announce, to the last byte
 *
 * Purpose: encode and decode. Pure functions; the receiver's state and the order of messages are others' business.
 * Invariants: I1 a message is as long as its fields say, neither shorter nor longer. I2 what is encoded can be decoded to the same.
 * Ownership: decoded texts and bytes are views into the message; a chain is copied to where the caller says.
 * Failure: decoders return false for what breaks a bound, a reserved byte or a value that no sender writes; they never read outside of
 *   what they are given. Encoders assert the bounds.
 */
#ifndef DC_REPLICATION_WIRE_FMT_H
#define DC_REPLICATION_WIRE_FMT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "persist/lsn.h"
#include "persist/segment_fmt.h"
#include "server/base/buf.h"
#include "server/base/bytes.h"
#include "server/base/limits.h"

enum {
    WIRE_PROTOCOL = 1, /* the argument of REPLSTREAM */
    WIRE_HEAD_LEN = 5,
    WIRE_HISTORY_LEN = 32,
    WIRE_CHAIN_LEN_MAX = WIRE_CHAIN_MAX * WIRE_HISTORY_LEN,
    PEER_ID_LEN = 16,
    WIRE_ASK_MAX_MS = 60000,
    WIRE_PEER_LEN_MAX = PEER_ID_LEN + 4 + WIRE_ADDRESS_MAX, /* in PEERS */
};

enum wire_type {
    WIRE_NONE = 0,
#define WIRE_MSG(type, number, fixed, more, by, what) WIRE_##type = (number),
#include "replication/wire.def"
#undef WIRE_MSG
};

/* Lengths of the fixed parts: WIRE_LOG_LEN, ... */
enum {
#define WIRE_MSG(type, number, fixed, more, by, what) WIRE_##type##_LEN = (fixed),
#include "replication/wire.def"
#undef WIRE_MSG
};

/* The longest message, whole. */
enum { WIRE_MESSAGE_MAX = WIRE_HEAD_LEN + WIRE_COPY_DATA_LEN + WIRE_BYTES_MAX };

const char *wire_type_name(enum wire_type type); /* "HELLO"; "?" for none */

/* The first bytes of a message. 'body_len' counts what stands behind them. */
void wire_head_encode(enum wire_type type, size_t body_len, uint8_t to[WIRE_HEAD_LEN]);
/* False: no such type, or a length that the type can't have. */
bool wire_head_decode(const void *ptr, enum wire_type *type, size_t *body_len);

/* --- HELLO and ANSWER ------------------------------------------------------------------------------------------ */

enum wire_purpose {
    WIRE_FOLLOW = 1, /* wants the log from its end on */
    WIRE_PULL =
        2, /* a primary back from an unclean stop: wants what it lost, to the source's end */
    WIRE_PROBE = 3, /* only the ANSWER */
};

enum wire_role { WIRE_PRIMARY = 1, WIRE_REPLICA = 2, WIRE_FENCED = 3, WIRE_PULLING = 4 };

enum wire_verdict {
    WIRE_CONTINUE = 1, /* the log follows from 'lsn' on, the peer's end */
    WIRE_REWIND = 2,   /* the peer cuts its log at 'lsn' and comes again */
    WIRE_COPY_ALL = 3, /* a copy follows */
    WIRE_REFUSE = 4,   /* see the text */
    WIRE_AHEAD = 5,    /* the peer has from 'lsn' on what the source lost */
    WIRE_LATER = 6,    /* not now: come again. See the text */
};

/* Flags: what struct chain_ask and chain_view (chain.h) hold besides. */
enum {
    WIRE_FORCE = 1,    /* HELLO: REPLICAOF ... FORCE: even an empty source may be copied */
    WIRE_EXPLICIT = 2, /* HELLO: an order, REPLICAOF, that no source has taken yet */
    WIRE_DAMAGED = 4,  /* HELLO: the peer's copy is known to be wrong */
    WIRE_EMPTY = 8,    /* both: the sender has no data, though it may have a chain and a head */
    WIRE_LINKED = 16,  /* ANSWER: a replica that its source feeds now */
};

struct wire_hello {
    uint16_t protocol;
    enum wire_purpose purpose;
    enum wire_role role;
    uint32_t flags;
    uint8_t peer_id[PEER_ID_LEN]; /* the node's own: acks count per peer */
    uint8_t data_id[NODE_ID_LEN]; /* of the data set */
    uint64_t epoch;               /* the highest that it has seen */
    uint64_t head;                /* where its log ends; 0 = it has none */
    uint64_t hash;                /* of the log before 'head': log_tail_hash() */
    uint16_t port;                /* where it can be reached; 0 = nowhere */
    struct bytes address;         /* empty = where the connection comes from */
    const struct history *chain;
    uint32_t chain_count;
};

struct wire_answer {
    uint16_t protocol;
    enum wire_verdict verdict;
    enum wire_role role;
    uint32_t flags; /* WIRE_EMPTY, WIRE_LINKED */
    uint8_t peer_id[PEER_ID_LEN];
    uint8_t data_id[NODE_ID_LEN];
    uint64_t epoch;
    uint64_t lsn;  /* of the verdict */
    uint64_t head; /* where the source's log ends */
    struct bytes text;
    const struct history *chain;
    uint32_t chain_count;
};

/* Encoders append the body, without the head, to 'to' (whose sticky 'failed' says that there was no memory). Decoders take the body; 'chain'
 * has room for WIRE_CHAIN_MAX. */
void wire_hello_encode(const struct wire_hello *m, struct buf *to);
bool wire_hello_decode(struct bytes body, struct history *chain, struct wire_hello *out);
void wire_answer_encode(const struct wire_answer *m, struct buf *to);
bool wire_answer_decode(struct bytes body, struct history *chain, struct wire_answer *out);

/* --- the stream ------------------------------------------------------------------------------------------------ */

struct wire_log {
    uint64_t lsn; /* of the first byte */
    struct bytes bytes;
};
/* The fixed part; the bytes are sent from where they are. */
void wire_log_encode(uint64_t lsn, uint8_t to[WIRE_LOG_LEN]);
bool wire_log_decode(struct bytes body, struct wire_log *out);

struct wire_ack {
    uint64_t received; /* end of the last whole frame; durable, applied <= received */
    uint64_t durable;
    uint64_t applied;
};
/* What is above 'received' is told as 'received'. */
void wire_ack_encode(const struct wire_ack *m, uint8_t to[WIRE_ACK_LEN]);
bool wire_ack_decode(struct bytes body, struct wire_ack *out);

struct wire_beat {
    uint64_t head;
    uint64_t durable;
    int64_t clock_ms; /* the sender's own */
    int64_t
        shown_ms; /* the primary's, when all that the sender shows had been written; 0 = unknown */
    int64_t age_ms; /* so long ago nobody was known to have more; WIRE_AGE_UNKNOWN */
};
#define WIRE_AGE_UNKNOWN INT64_MAX
/* Likewise. */
void wire_beat_encode(const struct wire_beat *m, uint8_t to[WIRE_BEAT_LEN]);
bool wire_beat_decode(struct bytes body, struct wire_beat *out);

/* HURRY. */
void wire_hurry_encode(uint64_t lsn, uint8_t to[WIRE_HURRY_LEN]);
bool wire_hurry_decode(struct bytes body, uint64_t *lsn);

/* ASK. */
void wire_ask_encode(uint64_t for_ms, uint8_t to[WIRE_ASK_LEN]);
bool wire_ask_decode(struct bytes body, uint64_t *for_ms);

struct wire_promote {
    uint64_t lsn;   /* the old primary's last */
    uint64_t epoch; /* the new one is to have at least this */
};
void wire_promote_encode(const struct wire_promote *m, uint8_t to[WIRE_PROMOTE_LEN]);
bool wire_promote_decode(struct bytes body, struct wire_promote *out);

/* BYE: 'epoch' is the highest that the sender has seen. */
struct wire_bye {
    uint64_t epoch;
    struct bytes text;
};
/* A longer text is cut. */
void wire_bye_encode(const struct wire_bye *m, struct buf *to);
bool wire_bye_decode(struct bytes body, struct wire_bye *out);

/* PEERS: after the ANSWER, before a copy, and whenever it changes. The source itself may be among them. */
struct wire_peer {
    uint8_t id[PEER_ID_LEN];
    uint16_t port;
    struct bytes address; /* not empty */
};
void wire_peers_encode(const struct wire_peer *list, uint32_t count, struct buf *to);
/* 'list' has room for PEERS_MAX. */
bool wire_peers_decode(struct bytes body, struct wire_peer *list, uint32_t *count);

/* --- the copy -------------------------------------------------------------------------------------------------- */

struct wire_copy {
    uint64_t length;    /* of the file */
    uint64_t start_lsn; /* S */
    uint64_t end_lsn;   /* E: the log goes on here */
    uint8_t data_id[NODE_ID_LEN];
    uint8_t seed[SEED_LEN];
    struct bytes name; /* snap_name() */
    const struct history *chain;
    uint32_t chain_count;
};
void wire_copy_encode(const struct wire_copy *m, struct buf *to);
bool wire_copy_decode(struct bytes body, struct history *chain, struct wire_copy *out);

struct wire_copy_data {
    uint64_t offset; /* in the file */
    struct bytes bytes;
};
void wire_copy_data_encode(uint64_t offset, uint8_t to[WIRE_COPY_DATA_LEN]);
bool wire_copy_data_decode(struct bytes body, struct wire_copy_data *out);

struct wire_copy_end {
    uint64_t length;
    uint64_t
        sum; /* sum64 over the parts of the file in their order, each part being one COPY_DATA, seeded with the sum before; 0 first */
};
void wire_copy_end_encode(const struct wire_copy_end *m, uint8_t to[WIRE_COPY_END_LEN]);
bool wire_copy_end_decode(struct bytes body, struct wire_copy_end *out);

#endif
