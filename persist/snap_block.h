/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * snap_block: the content of a snapshot's blocks: columns of entries, pieces of blobs, compressed.
 *
 * Purpose: a snap_pack gathers entries and seals them to a block; snap_unpack and snap_columns are the way back. snap_fmt.h has
 *   the bytes. No files here.
 * Threads: one owner each.
 * Ownership: what snap_pack_seal() and snap_unpack() return lives in their buffers until the next call.
 * Failure: gathering never fails but notes that memory ran out; sealing tells (DC_ENOMEM). Decoding trusts nothing.
 */
#ifndef DC_PERSIST_SNAP_BLOCK_H
#define DC_PERSIST_SNAP_BLOCK_H

#include "persist/snap_fmt.h"
#include "server/base/buf.h"
#include "server/store/entry.h"

/* In this order they stand in a block. */
enum snap_column {
    SNAP_FLAGS,
    SNAP_KEY_LENS,
    SNAP_DATA_LENS,
    SNAP_FREQS,
    SNAP_AGES,
    SNAP_KEYS,
    SNAP_VERSIONS,
    SNAP_EXPIRIES,
    SNAP_DATA,
    SNAP_COLUMNS
};

/* --- writing ----------------------------------------------------------------------------------------- */

struct snap_pack; /* NULL when there is no memory */
struct snap_pack *snap_pack_create(int level);
void snap_pack_destroy(struct snap_pack *p);

/* Makes sure that so many bytes can be added without another allocation: before a lock is taken. */
void snap_pack_reserve(struct snap_pack *p, size_t len);
/* Adds an entry. A blob's content isn't added: returns the blob and, in 'blob_at', what snap_pack_blob() wants; else NULL. */
struct blob *snap_pack_entry(struct snap_pack *p, const struct entry *e, int64_t idle_ms,
                             size_t *blob_at);
void snap_pack_blob(struct snap_pack *p, size_t blob_at, uint64_t sum, uint64_t pos);
uint32_t snap_pack_count(const struct snap_pack *p);
uint64_t snap_pack_len(const struct snap_pack *p); /* plain bytes, about */
/* Compresses what was gathered, and is empty again. Sets plain_len, stored_len, entries and kind of 'info'; 'out' is the block with
 * SNAP_BLOCK_HEAD_LEN bytes of room at its begin. Errors: DC_ENOMEM, DC_ELIMIT. */
DC_MUST enum dc_err snap_pack_seal(struct snap_pack *p, struct snap_block_info *info,
                                   struct bytes *out);
/* The same for a piece of a blob; what is gathered stays. */
DC_MUST enum dc_err snap_pack_piece(struct snap_pack *p, uint64_t version, uint64_t offset,
                                    struct bytes piece, struct snap_block_info *info,
                                    struct bytes *out);

/* --- reading ----------------------------------------------------------------------------------------- */

/* One entry of a block, as views into the block. */
struct snap_entry {
    struct bytes key;
    struct value value; /* VALUE_BLOB: blob is NULL, see blob_len */
    uint64_t blob_len, blob_sum, blob_pos;
    int64_t expiry_ms;
    uint64_t version;
    uint8_t freq;
    uint8_t age_code; /* time since the last access, when the snapshot was written: snap_age_ms() */
};

struct snap_numbers {
    const uint8_t *packed;
    uint64_t smallest, unit;
    uint32_t bits;
};

/* The columns of an unpacked block, and how far they have been read. */
struct snap_columns {
    uint32_t entries, next;
    const uint8_t *flags, *key_lens, *data_lens, *freqs, *ages, *keys, *data;
    struct snap_numbers versions, expiries;
    uint32_t next_expiry;
};

/* So many bytes behind the plain content must be readable. */
enum { SNAP_SLACK = 16 };

/* Checks everything. False: these are no columns of so many entries. */
DC_MUST bool snap_columns_open(struct snap_columns *c, const void *plain, size_t len,
                               uint32_t entries);
bool snap_columns_next(struct snap_columns *c, struct snap_entry *out);

struct snap_unpacker;
struct snap_unpacker *snap_unpacker_create(void); /* NULL when there is no memory */
void snap_unpacker_destroy(struct snap_unpacker *u);
/* Exactly to.len bytes must come out of it. */
DC_MUST bool snap_unpack(struct snap_unpacker *u, struct bytes stored, void *to, size_t len);

#endif
