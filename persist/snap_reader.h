/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * snap_reader: a snapshot file, opened at random.
 *
 * Purpose: header, footer and index are verified by snap_open(); blocks when they are read.
 * Threads: after snap_open() all reading functions may run in any number of threads, each with its own snap_block.
 * Failure: DC_ECORRUPT with what is damaged and where; DC_EIO.
 */
#ifndef DC_PERSIST_SNAP_READER_H
#define DC_PERSIST_SNAP_READER_H

#include "persist/log_reader.h"
#include "persist/snap_block.h"
#include "server/store/entry.h"

struct snap; /* an open snapshot */

struct snap_facts {
    uint8_t node_id[NODE_ID_LEN];
    uint8_t seed[SEED_LEN];
    uint64_t start_lsn, end_lsn; /* S, E */
    struct history chain[SNAP_HISTORIES_MAX];
    uint32_t chain_count;
    uint32_t range_bits;
    uint64_t entries, plain_bytes, stored_bytes, file_len, tail_len;
    int64_t begun_ms, finished_ms;
    uint32_t block_count;
    uint64_t sum; /* of the footer: tells two files apart */
};

/* Verifies everything but the contents of blocks and tail. Errors: DC_EIO, DC_ECORRUPT, DC_ENEWER, DC_ENOMEM. */
DC_MUST enum dc_err snap_open(const struct io *io, const char *path, struct snap **out);
void snap_close(struct snap *s);
const struct snap_facts *snap_facts(const struct snap *s);

/* Blocks [first, first + count) of a range, in the order of the index. That of the system keyspace: SLOT_COUNT >> range bits. */
void snap_range_blocks(const struct snap *s, uint32_t range, uint32_t *first, uint32_t *count);
const struct snap_block_info *snap_block_info(const struct snap *s, uint32_t index);

struct snap_block;                          /* buffers of one thread */
struct snap_block *snap_block_create(void); /* NULL when there is no memory */
void snap_block_destroy(struct snap_block *b);
/* Reads, checks and unpacks; then snap_block_next() gives the entries: those of a block before those of the next one of its range and
 * keyspace by their positions, inside of a block not sorted. (A piece of a blob has none.) Errors: DC_EIO, DC_ECORRUPT, DC_ENOMEM. */
DC_MUST enum dc_err snap_block_read(struct snap_block *b, const struct snap *s, uint32_t index);
bool snap_block_next(struct snap_block *b, struct snap_entry *out);
/* The content of a blob entry of block 'index', the one that was read last; a counted blob, the caller's. Errors: as above. */
DC_MUST enum dc_err snap_read_blob(struct snap_block *b, const struct snap *s, uint32_t index,
                                   const struct snap_entry *e, struct blob **out);

/* The frames of the tail, S to E; each is checked. LOG_END after the last one, LOG_DAMAGED (with dc_fail text) when they don't hold. */
struct snap_tail;
DC_MUST enum dc_err snap_tail_open(const struct snap *s, struct snap_tail **out);
enum log_end snap_tail_next(struct snap_tail *t, struct frame_ref *out);
void snap_tail_close(struct snap_tail *t);

#endif
