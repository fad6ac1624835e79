/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * resp: reader of the Redis protocol (multibulk and inline requests).
 *
 * Purpose: turn bytes into requests, resumable at every byte, linear in the input.
 * Invariants: I1 a parser between requests is all zero but for its span array; I2 spans are offsets from the
 *   first byte of the request, so the input may move in memory between two calls; I3 no input makes it
 *   allocate more than a constant times the bytes that really arrived.
 * Threads: one owner.
 * Ownership: spans belong to the parser and live until the next resp_parse() or resp_parser_fini(). Inline
 *   arguments that had quotes are unescaped in place, in the input.
 * Failure: RESP_BAD with the text that Redis sends behind "ERR Protocol error: "; the connection must close
 *   after sending it. DC memory failure counts as RESP_BAD too.
 */
#ifndef DC_PROTO_RESP_H
#define DC_PROTO_RESP_H

#include <stddef.h>
#include <stdint.h>

#include "server/proto/request.h"

enum resp_outcome {
    RESP_DONE, /* a request is complete */
    RESP_MORE, /* the bytes end before the request does */
    RESP_EMPTY, /* an empty line or "*0": nothing to run, bytes were consumed */
    RESP_BAD   /* the peer doesn't speak the protocol */
};

struct resp_limits {
    uint64_t bulk_len_max; /* proto-max-bulk-len, or less before AUTH */
    uint32_t args_max;     /* REQUEST_ARGS_MAX, or less before AUTH */
    int authenticated;     /* chooses Redis's words for a limit */
};

struct resp_span {
    size_t offset;
    size_t len;
};

struct resp_parser {
    struct resp_span *spans; /* grown on the heap as arguments arrive */
    uint32_t span_cap;
    uint32_t argc;           /* arguments complete so far */
    uint32_t argc_want;      /* of the multibulk header, 0 = not read yet */
    int64_t bulk_len;        /* of the argument being read, -1 = its header isn't read yet */
    size_t pos;              /* next byte to look at, offset in the request */
    const char *error;       /* RESP_BAD: the text */
};

void resp_parser_init(struct resp_parser *p);
void resp_parser_fini(struct resp_parser *p);

/* Goes on with the request that begins at 'buf'. 'len' counts everything received since its first byte. On
 * RESP_DONE and RESP_EMPTY *consumed is the length of the request and the parser stands before the next one
 * (argc and spans stay readable until the next call). */
enum resp_outcome resp_parse(struct resp_parser *p, char *buf, size_t len,
                             const struct resp_limits *limits, size_t *consumed);

/* After RESP_MORE: how many bytes the request needs at least, counted from its first byte (0 = unknown).
 * Lets the connection size its buffer for a large argument, never more than what was announced. */
size_t resp_parse_wants(const struct resp_parser *p);

/* Fills 'argv' (p->argc elements) with views into 'buf' after RESP_DONE. */
void resp_parser_args(const struct resp_parser *p, char *buf, struct bytes *argv);

#endif
