/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * meta_fmt: the values of the metadata. Little endian; each is
 *
 *   0  u8  version  1
 *   1      what the kind says
 *      u64 sum      over all before it, seeded with the sum of the name (which is seeded with the kind); so in any version
 *
 *   node   "node"   u8 node id[16], u8 seed[16]
 *   chain  "chain"  u32 count, count x u64 (id, start, epoch, parent end)
 *   text   name     the text
 *   file   name     u8 kind, u8 state, u64 first LSN, end LSN, durable LSN, history, count, bytes, sum, i64 created
 *
 * Purpose: pure functions. Failure: what doesn't decode is damage.
 */
#ifndef DC_PERSIST_META_FMT_H
#define DC_PERSIST_META_FMT_H

#include "persist/meta.h"
#include "server/base/buf.h"

enum meta_kind { META_NODE, META_CHAIN, META_TEXT, META_FILE, META_KIND_COUNT };

enum { META_VALUE_VERSION = 1, META_VALUE_FRAME_LEN = 1 + 8, META_FILE_LEN = 2 + 8 * 8 };

/* Writes the value of a payload: payload.len + META_VALUE_FRAME_LEN bytes. */
void meta_value_write(enum meta_kind kind, struct bytes name, struct bytes payload, char *to);
/* The payload of a value; false = it isn't one, or has another form than its kind. */
bool meta_value_read(enum meta_kind kind, struct bytes name, struct bytes value,
                     struct bytes *payload);

/* Whether a newer program wrote it: another version, and the right sum. */
bool meta_value_is_newer(enum meta_kind kind, struct bytes name, struct bytes value);

void meta_node_encode(const struct meta_node *node, struct buf *to);
bool meta_node_decode(struct bytes from, struct meta_node *out);

void meta_chain_encode(const struct history *chain, uint32_t count, struct buf *to);
/* The count of a payload that meta_value_read() has passed, and a link of it. */
uint32_t meta_chain_count(struct bytes from);
struct history meta_chain_link(struct bytes from, uint32_t index);

void meta_file_encode(const struct meta_file *f, struct buf *to);
bool meta_file_decode(struct bytes name, struct bytes from, struct meta_file *out);

#endif
