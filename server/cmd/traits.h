/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * traits: what COMMAND tells of a command beyond its row in cmd.def: the words for its flags, ACL categories, hints for
 * proxies, what it does with its keys.
 *
 * Words stand in one text, with a blank between them; "" is none. Most follow from the row, the others are tables.
 */
#ifndef DC_CMD_TRAITS_H
#define DC_CMD_TRAITS_H

#include <stdint.h>

#include "server/base/buf.h"
#include "server/cmd/cmd.h"

/* "write denyoom fast" */
void traits_flags(const struct cmd *cmd, struct buf *out);

/* "@write @string @fast" */
void traits_categories(const struct cmd *cmd, struct buf *out);

/* "request_policy:multi_shard response_policy:agg_sum" */
const char *traits_tips(const struct cmd *cmd);

/* A run of keys: arguments 'first', first + step, ... up to first + last (or, below 0, that from the end). */
struct key_spec {
    const char *flags; /* "RW access update" */
    int first;
    int last;
    int step;
};

enum { KEY_SPECS_MAX = 2 };

/* Returns how many there are. */
uint32_t traits_key_specs(const struct cmd *cmd, struct key_spec out[KEY_SPECS_MAX]);

#endif
