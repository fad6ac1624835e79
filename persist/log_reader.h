/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log_reader: the log of a directory, as frames in order. For recovery, snapshots' tails, tools and replicas.
 *
 * Purpose: log_dir knows the segment files of a directory; a log_reader goes through their frames, checked.
 * Invariants: I1 a frame is returned only when its sums are right for its history and its LSN; I2 frames are
 *   returned without a gap: each begins where the one before ended, or is the first of a history of the chain, or of a segment
 *   that begins where a closed one was left.
 * Threads: one owner each. Readers may read what the node is still appending to (they see an end).
 * Ownership: a frame's bytes live until the next call.
 */
#ifndef DC_PERSIST_LOG_READER_H
#define DC_PERSIST_LOG_READER_H

#include "persist/frame_fmt.h"
#include "persist/segment_fmt.h"
#include "server/base/err.h"
#include "server/base/io.h"

struct segment_info {
    char name[SEGMENT_NAME_MAX];
    struct segment_head head;
    enum head_verdict verdict; /* HEAD_OK, or what is wrong with the header */
    uint64_t durable_lsn;      /* the mark beside it */
    uint64_t file_len;
};

/* The segments of a directory, sorted by (first LSN, epoch, history start). Files of an older branch that a newer history has left
 * (first LSN at or behind the newer history's parent end) are listed with 'abandoned'. */
struct log_dir {
    const struct io *io;
    char *path;
    struct segment_info *segments;
    uint32_t count;
};

DC_MUST enum dc_err log_dir_open(struct log_dir *d, const struct io *io, const char *path);
void log_dir_close(struct log_dir *d);

enum log_end {
    LOG_MORE, /* a frame was returned */
    LOG_END,  /* nothing but zeros, or the end of the file, behind the last frame */
    LOG_TORN, /* something that isn't a frame stands behind the last one, above the durable mark: what a power cut leaves */
    LOG_DAMAGED, /* something that isn't a frame stands below the durable mark, or a segment is missing in the middle */
    LOG_FAILED,  /* the file can't be read: dc_fail_take() has the text */
};

struct frame_ref {
    const char *bytes; /* the whole frame */
    size_t len;
    uint64_t lsn; /* of its first byte */
    uint64_t history;
    uint32_t segment; /* index in log_dir */
    uint64_t file_offset;
    struct frame_head head;
};

struct log_reader;

/* Begins with the first frame at or behind 'from', which must be a frame's start, or in no segment's middle. */
DC_MUST enum dc_err log_reader_open(struct log_reader **out, const struct log_dir *d,
                                    uint64_t from);
enum log_end log_reader_next(struct log_reader *r, struct frame_ref *out);
/* After an end that isn't LOG_MORE: where, and in words (what stands there, how many bytes follow up to the last one that isn't zero, whether valid
 * frames follow them). */
struct log_end_info {
    uint32_t segment;
    uint64_t lsn; /* end of the last good frame */
    uint64_t file_offset;
    uint64_t junk_len;  /* up to the last byte that isn't zero */
    bool frames_behind; /* valid frames follow the hole */
    char text[256];
};
void log_reader_end(const struct log_reader *r, struct log_end_info *out);
void log_reader_close(struct log_reader *r);

#endif
