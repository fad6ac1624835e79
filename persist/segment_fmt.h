/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * segment_fmt: the first page of a log file, its name, and its durable mark. Little endian.
 *
 *   0    u8   magic[8]      "dcachelg"
 *   8    u32  version       1
 *  12    u32  header length SEGMENT_HEADER_LEN: where the first frame begins
 *  16    u8   node id[16]
 *  32    u8   hash seed[16]
 *  48    u64  first LSN
 *  56    u64  history id, u64 history start, u64 epoch, u64 parent end
 *  88    i64  created, ms
 *  96    u64  sum           over bytes 0..95, seed 0
 * 512    u64  durable LSN   the durable mark: everything below is on the disk. Written after an fdatasync
 * 520    i64  time          node clock when the mark was written, ms; 0 = unknown
 * 528    u64  sum           over the mark, seeded with the first LSN; a mark that is wrong counts for none
 *
 * All other bytes of the page are 0, and checked.
 *
 * The byte of LSN n is at SEGMENT_HEADER_LEN + (n - first LSN). A segment ends where the next one of the same history begins; the
 * zeros behind its last frame are preallocated room.
 *
 * Name: log-<first LSN, 16 hex digits>-<history id, 16 hex digits>.dcl. Of one that doesn't count for the next start: -<number>.tmp
 * instead of .dcl; the number makes it unique in a run.
 */
#ifndef DC_PERSIST_SEGMENT_FMT_H
#define DC_PERSIST_SEGMENT_FMT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "persist/lsn.h"
#include "server/base/io.h"

enum {
    SEGMENT_VERSION = 1,
    SEGMENT_HEADER_LEN = 4096,
    SEGMENT_HEADER_USED = 104,
    SEGMENT_MARK_AT = 512,
    SEGMENT_MARK_LEN = 24,
    NODE_ID_LEN = 16,
    SEED_LEN = 16,
    SEGMENT_NAME_MAX = 64
};

struct segment_head {
    uint8_t node_id[NODE_ID_LEN];
    uint8_t seed[SEED_LEN];
    uint64_t first_lsn;
    struct history history;
    int64_t created_ms;
};

enum head_verdict { HEAD_OK, HEAD_NOT_OURS /* magic */, HEAD_NEWER /* version */, HEAD_DAMAGED };
enum mark_verdict { MARK_OK, MARK_NONE /* zeros */, MARK_DAMAGED };

void segment_head_encode(const struct segment_head *h, uint8_t to[SEGMENT_HEADER_USED]);
/* 'ptr': the first page, or as much of it as there is; fewer than SEGMENT_HEADER_USED bytes are damaged. */
enum head_verdict segment_head_decode(const void *ptr, size_t len, struct segment_head *out);

struct segment_mark {
    uint64_t durable_lsn;
    int64_t time_ms;
};

void segment_mark_encode(uint64_t first_lsn, const struct segment_mark *mark,
                         uint8_t to[SEGMENT_MARK_LEN]);
/* Writes it to its place in the file of the segment that begins there, not durably. 0 or -errno. */
int segment_mark_put(const struct io *io, struct io_file *f, uint64_t first_lsn,
                     const struct segment_mark *mark);
/* 'ptr': the first page. Without a valid mark the first LSN is durable, and the time 0. */
enum mark_verdict segment_mark_read(const void *ptr, size_t len, uint64_t first_lsn,
                                    struct segment_mark *out);
/* The same, for who wants the LSN only. */
uint64_t segment_mark_decode(const void *ptr, size_t len, uint64_t first_lsn);

/* No part of a header ever reached this page: zeros but for the mark, or not there at all. */
bool segment_head_is_blank(const void *ptr, size_t len);

void segment_name(uint64_t first_lsn, uint64_t history_id, char to[SEGMENT_NAME_MAX]);
bool segment_name_parse(const char *name, uint64_t *first_lsn, uint64_t *history_id);
/* The name of a segment that only the running node reads. */
void segment_tmp_name(uint64_t first_lsn, uint64_t history_id, uint32_t number,
                      char to[SEGMENT_NAME_MAX]);
/* 'number' may be NULL. */
bool segment_tmp_name_parse(const char *name, uint64_t *first_lsn, uint64_t *history_id,
                            uint32_t *number);

#endif
