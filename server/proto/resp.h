/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * resp: reader of the Redis protocol (multibulk and inline requests).
 *
 * Purpose: turn bytes into requests, resumable at every byte, linear in the input. A request that lies whole in
 *   the input is read in one pass without touching the parser; only a torn one leaves state behind.
 * Invariants: I1 a parser between requests is all zero, so an idle connection owns nothing; I2 what it keeps of a
 *   torn request are offsets from its first byte, so the input may move in memory between two calls; I3 no input
 *   makes it allocate more than a constant times the bytes that really arrived; I4 the outcome doesn't depend on
 *   how the bytes were cut into pieces.
 * Threads: one owner.
 * Ownership: argv lives in the arena, what it points to in the input. Inline arguments that had quotes are
 *   unescaped in place, in the input.
 * Failure: RESP_BAD, answered by resp_reply_error(); the connection must close after sending it. Memory failure
 *   counts as RESP_BAD too.
 */
#ifndef DC_PROTO_RESP_H
#define DC_PROTO_RESP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/base/arena.h"
#include "server/proto/request.h"

struct reply;

enum resp_outcome {
    RESP_DONE,  /* a request is complete */
    RESP_MORE,  /* the bytes end before the request does */
    RESP_EMPTY, /* an empty line or "*0": nothing to run, bytes were consumed */
    RESP_BAD    /* the peer doesn't speak the protocol */
};

/* What holds for every request of a connection in one turn. */
struct resp_context {
    struct arena *arena;   /* gets the argv of complete requests */
    uint64_t bulk_len_max; /* proto-max-bulk-len */
    bool authenticated;    /* else the stricter limits before AUTH hold */
};

struct resp_span {
    size_t offset;
    size_t len;
};

/* State of a torn request. All zero = between requests, so it needs no initialiser. */
struct resp_parser {
    struct resp_span *spans; /* arguments complete so far, grown on the heap as they arrive */
    uint32_t span_cap;
    uint32_t argc;
    uint32_t argc_want; /* of the multibulk header, 0 = not read yet */
    bool in_bulk;       /* the header of an argument was read, bulk_len is valid */
    unsigned char got;  /* the byte that the error is about, 0 = none */
    size_t bulk_len;    /* of the argument being read */
    size_t pos;         /* next byte to look at, offset in the request */
    size_t scanned;     /* no line ends before this offset */
    const char *error;  /* RESP_BAD: which */
};

void resp_parser_init(struct resp_parser *p);
void resp_parser_fini(struct resp_parser *p);

/* Goes on with the request that begins at 'buf'. 'len' counts everything received since its first byte.
 * RESP_DONE fills 'req'; RESP_EMPTY sets only req->len and req->argc = 0. After both the parser stands before the
 * next request, which begins at buf + req->len. After RESP_BAD only resp_reply_error() and fini are legal. */
enum resp_outcome resp_parse(struct resp_parser *p, char *buf, size_t len,
                             const struct resp_context *ctx, struct request *req);

/* After RESP_MORE: how many bytes the request needs at least, counted from its first byte (0 = unknown).
 * Lets the connection size its buffer for a large argument, never more than what was announced. */
size_t resp_parse_wants(const struct resp_parser *p);

/* After RESP_BAD: "-ERR Protocol error: ..." in Redis's words. */
void resp_reply_error(const struct resp_parser *p, struct reply *r);

#endif
