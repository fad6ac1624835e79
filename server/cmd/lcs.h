/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lcs: the longest common subsequence of two strings, and where its parts lie.
 *
 * Purpose: the answers of LCS in a sixty-fourth of the steps, and a thirtieth of the memory, of the usual table.
 * Threads: any. Ownership: lcs_fini() frees what lcs_init() took; the strings stay the caller's and must live until then.
 */
#ifndef DC_CMD_LCS_H
#define DC_CMD_LCS_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/bytes.h"
#include "server/base/err.h"

struct lcs {
    struct bytes a;
    struct bytes b;
    size_t len;     /* of the subsequence */
    size_t row_len; /* bytes of a row */
    uint8_t *rows;  /* one for each byte of a, NULL when only the length was asked */
};

/* Bytes from .. to of both strings that are the same; both ends belong to it. */
struct lcs_range {
    size_t a_from, a_to;
    size_t b_from, b_to;
};

/* Finds the length; with 'ranges' also what lcs_ranges() needs. Errors: DC_ENOMEM. */
DC_MUST enum dc_err lcs_init(struct lcs *l, struct bytes a, struct bytes b, bool ranges);

/* The parts of the subsequence from the last to the first, as Redis chooses among equally long ones. 'out' has room for
 * l->len of them; returns how many there are. */
size_t lcs_ranges(const struct lcs *l, struct lcs_range *out);

void lcs_fini(struct lcs *l);

#endif
