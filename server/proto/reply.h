/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * reply: what a command answers, written without knowing the protocol.
 *
 * Purpose: handlers describe values (status, integer, bulk, array, map, ...); the encoder behind 'proto' turns
 *   them into bytes in 'out'. RESP2 and RESP3 differ only in reply.c.
 * Invariants: I1 a container announces its length first and is followed by exactly so many values (debug
 *   builds don't count; tests do).
 * Threads: one owner. Failure: the sticky flag of the buffer.
 */
#ifndef DC_PROTO_REPLY_H
#define DC_PROTO_REPLY_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/buf.h"
#include "server/base/bytes.h"
#include "server/base/err.h"

enum reply_proto { REPLY_RESP2 = 2, REPLY_RESP3 = 3 };

struct blob; /* a counted large value of the store */

/* A large value goes by reference: its bytes belong at 'offset' of the output. */
struct reply_splice {
    struct reply_splice *prev; /* the one before it in the output */
    size_t offset;
    struct blob *blob;
    size_t from;
    size_t len;
};

struct reply {
    struct buf *out;
    enum reply_proto proto;
    struct reply_splice *splices; /* last one first */
    /* Takes a reference and enters a splice at the end of the output; gives the last one back. */
    void (*take_blob)(struct reply *r, struct blob *blob, size_t from, size_t len);
    void (*drop_blob)(struct reply *r);
    void *owner; /* for the two */
};

/* Forgets what was replied behind the first 'len' bytes. */
static inline void reply_truncate(struct reply *r, size_t len) {
    while (r->splices != NULL && r->splices->offset > len) {
        r->drop_blob(r);
    }
    r->out->len = len;
}

void reply_status(struct reply *r, const char *text); /* +text */
void reply_ok(struct reply *r);                       /* +OK */
void reply_int(struct reply *r, int64_t value);
void reply_bulk(struct reply *r, struct bytes value);
void reply_bulk_str(struct reply *r, const char *text);
void reply_bulk_i64(struct reply *r, int64_t value); /* the decimal as a bulk */
void reply_bulk_f64(struct reply *r, double value);  /* RESP2's way of a double */
void reply_null(struct reply *r);                    /* $-1 or _ */
void reply_null_array(struct reply *r);              /* *-1 or _ */
void reply_double(struct reply *r, double value);    /* , in RESP3, else a bulk */
void reply_bool(struct reply *r, bool value);        /* # in RESP3, else 0 or 1 */
/* =ext:text in RESP3 ('ext' has up to three letters), else a bulk */
void reply_verbatim(struct reply *r, struct bytes text, const char *ext);
void reply_array(struct reply *r, int64_t count);
void reply_map(struct reply *r, int64_t pairs);     /* % in RESP3, else an array of 2 * pairs */
void reply_set(struct reply *r, int64_t count);     /* ~ in RESP3, else an array */
void reply_push(struct reply *r, int64_t count);    /* > in RESP3, else an array */
void reply_bulk_begin(struct reply *r, size_t len); /* bulk header; 'len' raw bytes follow */
void reply_bulk_end(struct reply *r);               /* closes it */

/* -prefix text; line breaks at the ends of the text are cut, those within become spaces, as Redis
 * does. */
void reply_error(struct reply *r, enum dc_err code); /* text by dc_fail_take() */
void reply_error_text(struct reply *r, const char *prefix, const char *text);
void reply_error_fmt(struct reply *r, const char *prefix, const char *fmt, ...) DC_PRINTF(3, 4);

#endif
