/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * snap_fmt: the bytes of a snapshot. Little endian.
 *
 *   header | blocks, in any order | tail log | index | footer
 *
 *   header   0  u8  magic[8] "dcachesn"   8 u32 version 1   12 u32 header length SNAP_HEADER_LEN
 *           16  u8  node id[16]          32 u8 hash seed[16]
 *           48  u64 S                    56 u64 history id, start, epoch, parent end of the history at S
 *           88  i64 begun, ms            96 u32 range bits    100 u32 flags 0
 *          104  u64 sum over 0..103
 *
 *   block    0  u32 sum of bytes 4..31 and of the stored data   4 u32 stored length   8 u32 plain length  12 u32 entries
 *           16  u32 range   20 u16 keyspace   22 u8 kind (0 entries, 1 blob)   23 u8 0   24 u64 first position
 *           32      stored data: one zstd frame
 *
 *   tail     the frames of the log from S to E, byte for byte, without compression; they are checked as the log is, with the
 *            histories of the chain in the footer
 *
 *   index    for each block, sorted by (range, keyspace, kind, first position):
 *            u64 file offset, u32 stored length, u32 plain length, u32 entries, u32 range, u16 keyspace, u8 kind, u8 0, u32 0, u64 first position  (40 bytes)
 *   footer   0  u64 index offset   8 u64 block count   16 u64 tail offset   24 u64 tail length   32 u64 S   40 u64 E
 *           48  u64 entries in blocks   56 i64 finished, ms   64 u64 plain bytes   72 u64 sum of the index
 *           80  u32 history count   84 u32 0   88 u64 stored bytes of blocks   96 u64 sum over 0..95 and the chain, seeded with the header's sum
 *          104  chain of histories: count x (id, start, epoch, parent_end)
 *          then, as the last 16 bytes of the file: u64 footer offset, u8 magic[8] "dcacheEF"
 *
 * A range is 2^(range bits) slots in sequence; range r holds the slots r << bits .. ((r + 1) << bits) - 1. A block never holds more than one
 * range or keyspace.
 *
 * Plain content of a block of entries: columns, one behind the other, each u32 length + bytes:
 *   flags (u8 each: bits 0-2 value kind, 8 has expiry), key lengths (varint), data lengths (varint), versions (varint of the
 *   difference to the smallest, which is the column's first u64), expiries (i64 each, of those that have one), frequencies (u8), ages (u16: stamp
 *   as the store says it, see store_age), keys, data.
 *   INT values: data is the i64. BLOB values: data is u64 length + u64 sum, and the content is a block of kind 1 with the same position, whose plain
 *   content is: u32 key length, key, bytes from an offset: u64 offset, bytes. (A blob of 512 MB is many blocks.)
 */
#ifndef DC_PERSIST_SNAP_FMT_H
#define DC_PERSIST_SNAP_FMT_H

enum { SNAP_VERSION = 1, SNAP_HEADER_LEN = 4096, SNAP_NAME_MAX = 64, SNAP_HISTORIES_MAX = 1024 };

#endif
