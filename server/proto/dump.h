/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dump: the portable form of a value, as DUMP and RESTORE exchange it with any Redis. Pure functions on bytes.
 *
 *     offset   length   field
 *     0        1        type: 0 = string, the only one known here
 *     1        n        a string in one of three forms
 *     1+n      2        version, little-endian: 10 is written, up to 10 is read
 *     3+n      8        CRC64 of everything before, little-endian
 *
 *     plain    length, bytes
 *     integer  0xc0 + 1, 0xc1 + 2 or 0xc2 + 4 bytes, little-endian, with sign
 *     LZF      0xc3, compressed length, length, compressed bytes; read, never written
 *
 *     A length is 00llllll, 01llllll + 1 byte, 0x80 + 4 bytes or 0x81 + 8 bytes, the high end first.
 *
 * Invariants: I1 whatever the bytes are, nothing outside of them is read and no memory is taken.
 * Threads: any. Ownership: a decoded string is a view into the payload.
 */
#ifndef DC_PROTO_DUMP_H
#define DC_PROTO_DUMP_H

#include <stddef.h>
#include <stdint.h>

#include "server/base/bytes.h"
#include "server/base/err.h"

enum { DUMP_VERSION = 10, DUMP_HEAD_MAX = 10, DUMP_FOOTER_LEN = 10 };

enum dump_form { DUMP_PLAIN, DUMP_INT, DUMP_LZF };

struct dump_string {
    enum dump_form form;
    int64_t num;        /* INT */
    struct bytes bytes; /* PLAIN: the content; LZF: compressed */
    size_t len;         /* of the content: PLAIN, LZF; at most VALUE_LEN_MAX */
};

/* Checks version and checksum. Errors: DC_EBADPAYLOAD. */
DC_MUST enum dc_err dump_verify(struct bytes payload);

/* Finds the string in a verified payload. As in Redis, the reader doesn't stop at the footer and nobody minds
 * bytes behind the string. Errors: DC_EBADDATA. */
DC_MUST enum dc_err dump_decode(struct bytes payload, struct dump_string *out);

/* Unpacks an LZF string into its 'len' bytes. Errors: DC_EBADDATA, then their content is undefined. */
DC_MUST enum dc_err dump_unpack(const struct dump_string *s, char *to);

/* What stands before the content of 'len' bytes. 'to' has DUMP_HEAD_MAX bytes; returns how many were written. */
size_t dump_encode_head(char *to, size_t len);

/* The same for an integer, which has no content behind it; 0 when it needs more than 32 bits: write its digits. */
size_t dump_encode_int(char *to, int64_t num);

/* What stands behind the content. 'to' has DUMP_FOOTER_LEN bytes. */
void dump_encode_footer(char *to, struct bytes head, struct bytes content);

#endif
