/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bits: strings as rows of bits, numbered from the highest bit of the first byte. Pure functions.
 *
 * Threads: any. Nothing here fails; ranges are inclusive and lie within the bytes.
 */
#ifndef DC_CMD_BITS_H
#define DC_CMD_BITS_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/bytes.h"

enum bits_op { BITS_AND, BITS_OR, BITS_XOR, BITS_NOT };

/* Number of bits that are set: in all bytes, in the bits first..last. */
uint64_t bits_count(struct bytes s);
uint64_t bits_count_range(struct bytes s, uint64_t first, uint64_t last);

/* Position of the first bit with this value in first..last, -1 when there is none. */
int64_t bits_find(struct bytes s, uint64_t first, uint64_t last, bool value);

/* dst = dst op src (NOT: the complement of src). Bytes of dst behind the end of src are combined with zeros, but
 * for NOT, which leaves them. */
void bits_combine(enum bits_op op, char *dst, size_t dst_len, struct bytes src);

/* An unsigned integer of 1 to 64 bits, highest first, inside nine bytes; 'shift' (0-7) bits stand before it. */
enum { BITS_FIELD_LEN = 9 };
uint64_t bits_get(const uint8_t *field, uint32_t shift, uint32_t width);
void bits_set(uint8_t *field, uint32_t shift, uint32_t width, uint64_t value);

#endif
