/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * emit: output, as text for people or as JSON for programs.
 *
 *     emit_begin(e, "snapshot");            snapshot                          {"snapshot":"...",
 *     emit_u64(e, "entries", 3);              entries           3              "entries":3}
 *     emit_end(e);
 *
 * Purpose: fields of records: one per line in text, members of an object in JSON, which is one line per outermost record.
 * Invariants: I1 numbers that may be beyond 2^53 (LSNs, versions) are strings in JSON. I2 bytes that aren't UTF-8 appear as NAME_hex.
 * Threads: one.
 */
#ifndef DC_TOOLS_INSPECT_EMIT_H
#define DC_TOOLS_INSPECT_EMIT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "server/base/bytes.h"

enum { EMIT_DEPTH_MAX = 8, EMIT_TIME_LEN = 32, EMIT_SIZE_LEN = 48, EMIT_KEYSPACE_LEN = 12 };

struct emit {
    FILE *to;
    bool json;
    int depth;
    bool some[EMIT_DEPTH_MAX]; /* JSON: a comma comes before the next member */
};

/* A record. In text 'title' is a line of its own (NULL = none). */
void emit_begin(struct emit *e, const char *title);
void emit_end(struct emit *e);
/* A record inside, or a list of records; 'name' may be NULL inside of a list. */
void emit_open(struct emit *e, const char *name);
void emit_close(struct emit *e);
void emit_open_list(struct emit *e, const char *name);
void emit_close_list(struct emit *e);

void emit_str(struct emit *e, const char *name, const char *value);
void emit_bytes(struct emit *e, const char *name, struct bytes value);
void emit_hex(struct emit *e, const char *name, const void *ptr, size_t len);
void emit_u64(struct emit *e, const char *name, uint64_t value);
void emit_i64(struct emit *e, const char *name, int64_t value);
void emit_lsn(struct emit *e, const char *name, uint64_t value);
void emit_id(struct emit *e, const char *name, uint64_t value); /* 16 hex digits */
void emit_size(struct emit *e, const char *name, uint64_t bytes);
void emit_time(struct emit *e, const char *name, int64_t ms);
void emit_ratio(struct emit *e, const char *name, uint64_t part, uint64_t whole);
void emit_bool(struct emit *e, const char *name, bool value);
void emit_keyspace(struct emit *e, uint32_t id); /* "keyspace": a number, or "system" */

/* For lines of text: the bytes as they are where they are plain, else with backslashes, in quotes. At most 'max' of them (0 = all). */
void text_quote(FILE *to, struct bytes value, size_t max);
const char *text_time(char to[EMIT_TIME_LEN], int64_t ms); /* 2026-01-02T03:04:05.678Z */
const char *text_size(char to[EMIT_SIZE_LEN], uint64_t bytes);
const char *text_keyspace(char to[EMIT_KEYSPACE_LEN], uint32_t id);
bool bytes_are_utf8(struct bytes value);

#endif
