/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * snap_fmt: the bytes of a snapshot. Little endian. Every byte of the file is covered by a checksum, and the parts follow each other
 * without gaps: header | blocks, in any order | tail | index | footer.
 *
 *   header   0  u8  magic[8] "dcachesn"   8 u32 version 1   12 u32 header length, SNAP_HEADER_LEN
 *           16  u8  node id[16]          32 u8 hash seed[16]
 *           48  u64 S                    56 u64 id, start, epoch, parent end of the history at S
 *           88  i64 begun, ms            96 u32 range bits    100 u32 flags 0
 *          104  u64 sum over 0..103 (of any version: the last 8 bytes of the header are the sum of those before)
 *
 *   block    0  u64 sum of bytes 8..35 and of the stored data, seeded with (header's sum, file offset)
 *            8  u32 stored length   12 u32 plain length  16 u32 entries
 *           20  u32 range   24 u16 keyspace   26 u8 kind   27 u8 0   28 u64 first position
 *           36      stored data: one zstd frame
 *
 *   tail     the frames of the log from S to E, byte for byte, without compression; they are checked as the log is, with the
 *            histories of the chain in the footer
 *
 *   index    for each block, sorted by (range, keyspace, kind, first position, file offset), 36 bytes:
 *            0  u64 file offset   8 u32 stored length   12 u32 plain length   16 u32 entries   20 u32 range   24 u16 keyspace
 *           26  u8  kind   27 u8 0   28 u64 first position
 *
 *   footer   0  u64 index offset   8 u64 block count   16 u64 tail offset   24 u64 tail length   32 u64 S   40 u64 E
 *           48  u64 entries in blocks   56 i64 finished, ms   64 u64 plain bytes   72 u64 sum of the index, seeded with the header's sum
 *           80  u32 history count   84 u32 0   88 u64 stored bytes of blocks, their heads not counted
 *           96  u64 sum over 0..95 and the chain, seeded with the header's sum
 *          104  chain of histories: count x (id, start, epoch, parent_end)
 *          then, as the last 16 bytes of the file: u64 footer offset, u8 magic[8] "dcacheEF"
 *
 * A range is 2^(range bits) slots in sequence; range r holds the slots r << bits .. ((r + 1) << bits) - 1. A block holds entries of one
 * range and one keyspace: those from its first position up to the first position of the next block of the same range and keyspace. (Among
 * themselves they are only nearly in the order of their positions.)
 *
 * The system keyspace (KEYSPACE_SYSTEM) is in no range of slots: its blocks have the range behind the last one, (slots >> range bits). So
 * they are the last ones of the index, and are read alone, before the others are needed.
 *
 * Plain content of a block of kind 0, entries: SNAP_COLUMNS u32 lengths, then the columns, in the order of enum snap_column:
 *   flags        u8 each: bits 0-2 enum value_kind, 8 has an expiry
 *   key lengths  varint each
 *   data lengths varint each
 *   frequencies  u8 each
 *   ages         u8 each: time since the last access, see snap_age_ms()
 *   keys
 *   versions     numbers
 *   expiries     numbers: i64 ms of those that have one
 *   data         STR, RAW: the bytes. INT: the low 1..8 bytes of the integer, its sign extended. BLOB: u64 length, u64 sum, u64 position
 *   A column of numbers: varint smallest, varint unit, u8 bits, then (number - smallest) / unit in so many bits each, lowest bits first.
 *   Varints have seven bits to a byte, lowest first; the eighth says that more follow.
 *
 * Of kind 1, a piece of a blob: u64 version of its entry, u64 offset in the blob, bytes. Its first position is that of the key; 'entries'
 * is 0. The pieces of a blob, SNAP_PIECE_LEN each but the last, have rising file offsets.
 *
 * Purpose: encode and decode the fixed parts; snap_block.h has the content of blocks. Pure functions.
 * Failure: decoders check sums, reserved fields and ranges of values; they never read outside of what they are given.
 */
#ifndef DC_PERSIST_SNAP_FMT_H
#define DC_PERSIST_SNAP_FMT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "persist/lsn.h"
#include "persist/segment_fmt.h"

enum {
    SNAP_VERSION = 1,
    SNAP_HEADER_LEN = 112,
    SNAP_HEADER_MAX = 65536, /* of a newer version */
    SNAP_BLOCK_HEAD_LEN = 36,
    SNAP_INDEX_ENTRY_LEN = 36,
    SNAP_FOOTER_LEN = 104, /* without the chain */
    SNAP_HISTORY_LEN = 32,
    SNAP_TRAILER_LEN = 16,
    SNAP_NAME_MAX = 64,
    SNAP_HISTORIES_MAX = 8192,
    SNAP_PIECE_LEN = 4 * 1024 * 1024,
    SNAP_PIECE_HEAD_LEN = 16,
};

enum snap_block_kind { SNAP_ENTRIES = 0, SNAP_PIECE = 1 };

struct snap_head {
    uint8_t node_id[NODE_ID_LEN];
    uint8_t seed[SEED_LEN];
    uint64_t start_lsn; /* S */
    struct history history;
    int64_t begun_ms;
    uint32_t range_bits;
    uint64_t sum;
};

struct snap_block_info { /* an index entry */
    uint64_t offset, first_pos;
    uint32_t stored_len, plain_len, entries, range;
    uint16_t keyspace;
    uint8_t kind; /* enum snap_block_kind */
};

struct snap_footer {
    uint64_t index_offset, block_count, tail_offset, tail_len;
    uint64_t start_lsn, end_lsn; /* S, E */
    uint64_t entries, plain_bytes, stored_bytes;
    uint64_t index_sum;
    int64_t finished_ms;
    uint32_t history_count;
};

/* Writes the header and sets h->sum. */
void snap_head_encode(struct snap_head *h, uint8_t to[SNAP_HEADER_LEN]);
/* Length of the header that begins with these 16 bytes; 0 = no snapshot of any version. */
uint32_t snap_head_len(const void *ptr);
enum head_verdict snap_head_decode(const void *ptr, size_t len, struct snap_head *out);

/* 'stored' is the data behind the head. */
void snap_block_head_encode(const struct snap_block_info *b, uint64_t head_sum, const void *stored,
                            uint8_t to[SNAP_BLOCK_HEAD_LEN]);
/* True when head and data are what the index says of the block. */
bool snap_block_head_check(const void *ptr, const struct snap_block_info *b, uint64_t head_sum,
                           const void *stored);

void snap_index_encode(const struct snap_block_info *b, uint8_t to[SNAP_INDEX_ENTRY_LEN]);
bool snap_index_decode(const void *ptr, struct snap_block_info *out);
/* The order of the index: < 0, 0, > 0. */
int snap_index_compare(const struct snap_block_info *a, const struct snap_block_info *b);
uint64_t snap_index_sum(const void *ptr, size_t len, uint64_t head_sum);

/* The range of what has this position. */
uint32_t snap_range_of(uint32_t range_bits, uint32_t keyspace, uint64_t pos);

/* Footer, chain and trailer; snap_footer_len() bytes. */
size_t snap_footer_len(uint32_t history_count);
void snap_footer_encode(const struct snap_footer *f, const struct history *chain, uint64_t head_sum,
                        uint64_t footer_offset, uint8_t *to);
/* Where the footer begins, from the last 16 bytes of a file of 'file_len'; 0 = there is none. */
uint64_t snap_trailer_decode(const void *ptr, uint64_t file_len);
/* From the bytes between the footer's begin and the trailer. 'chain' has room for SNAP_HISTORIES_MAX. */
bool snap_footer_decode(const void *ptr, size_t len, uint64_t head_sum, struct snap_footer *out,
                        struct history *chain);

/* Ages as one byte: in units of half a second exactly up to 15, then with three bits behind the leading one, a step of 12 %. */
uint8_t snap_age_encode(int64_t idle_ms);
int64_t snap_age_ms(uint8_t age);

/* snap-<E, 16 hex digits>-<history id, 16 hex digits>.dcs */
void snap_name(uint64_t end_lsn, uint64_t history_id, char to[SNAP_NAME_MAX]);
bool snap_name_parse(const char *name, uint64_t *end_lsn, uint64_t *history_id);

#endif
