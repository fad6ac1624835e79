/* SPDX-License-Identifier: BSD-3-Clause */
/* num: numbers as text and back, exactly as Redis reads and prints them. */
#ifndef DC_BASE_NUM_H
#define DC_BASE_NUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/base/bytes.h"

enum {
    NUM_I64_TEXT_MAX = 21,     /* "-9223372036854775808" and a NUL */
    NUM_F64_TEXT_MAX = 40,     /* a double in its shortest exact form */
    NUM_LD_TEXT_MAX = 5 * 1024 /* a long double without exponent */
};

/* Accepts only the canonical form: no spaces, no plus, no leading zeros. */
bool num_parse_i64(struct bytes text, int64_t *out);

/* Canonical decimal of digits only. */
bool num_parse_u64(struct bytes text, uint64_t *out);

/* A long double as INCRBYFLOAT takes it (strtold, the whole text, no spaces, no NaN). */
bool num_parse_ld(struct bytes text, long double *out);

/* A size with a unit as in configuration files: 1k 1kb 1mb 1gb ... */
bool num_parse_size(struct bytes text, int64_t *out);

/* Writes the decimal, returns its length (no NUL is written). 'to' has NUM_I64_TEXT_MAX bytes. */
size_t num_format_i64(char *to, int64_t value);
size_t num_format_u64(char *to, uint64_t value);

/* As RESP3 doubles and INFO: "%.17g", inf, -inf, nan. */
size_t num_format_f64(char *to, double value);

/* As INCRBYFLOAT stores it: "%.17Lf" with trailing zeros cut. Returns 0 when it doesn't fit. */
size_t num_format_ld(char *to, size_t size, long double value);

#endif
