/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log_reader: the log of a directory, as frames in order. For recovery, snapshots' tails, tools and replicas.
 *
 * Purpose: log_dir knows the segment files of a directory and the chain of histories that leads to the newest one; a log_reader goes
 *   through the frames of that chain, checked.
 * Invariants: I1 a frame is returned only when its sums are right for its history and its LSN; I2 frames are
 *   returned without a gap: each begins where the one before ended, or is the first of a history of the chain whose parent was read up to
 *   the fork.
 * Threads: one owner each. Readers may read what the node is still appending to (they see an end).
 * Ownership: a frame's bytes live until the next call. The log_dir lives longer than its readers.
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
    enum head_verdict
        verdict; /* HEAD_OK, or what is wrong; then first LSN and history id are those of the name */
    bool blank;  /* header and mark are zeros: no part of them reached the disk */
    bool abandoned; /* of a branch that a newer history has left */
    enum mark_verdict mark;
    uint64_t durable_lsn; /* the mark beside it; the first LSN without one */
    int64_t mark_ms;      /* node clock of that; 0 = unknown */
    uint64_t file_len;
    uint32_t link; /* index of its history in the chain; LOG_NO_LINK = in none */
};

#define LOG_NO_LINK    UINT32_MAX
#define LOG_NO_SEGMENT UINT32_MAX

/* The segments of a directory, sorted by (first LSN, epoch, history start). Abandoned are those of histories outside of the chain, and
 * those that begin at or behind the fork that left them. The chain (oldest first) is what the newest history's FORK frame says, or is put
 * together from the headers where that frame is gone. */
struct log_dir {
    const struct io *io;
    char *path;
    struct segment_info *segments;
    uint32_t count;
    struct history *chain;
    uint32_t chain_count;
};

/* Errors: DC_EIO. A directory without segments is no error. */
DC_MUST enum dc_err log_dir_open(struct log_dir *d, const struct io *io, const char *path);
/* For the node that runs on it: the segments with temporary names, too. */
DC_MUST enum dc_err log_dir_open_running(struct log_dir *d, const struct io *io, const char *path);
/* One file, whatever its name. */
DC_MUST enum dc_err log_dir_open_file(struct log_dir *d, const struct io *io, const char *path);
void log_dir_close(struct log_dir *d);

/* Where the part of a history that belongs to the chain ends: the fork; UINT64_MAX for the newest. */
uint64_t log_dir_link_end(const struct log_dir *d, uint32_t link);
/* Whether a segment can have a part in the log at all; and where the part that is its own ends: where the next one begins, at the fork, or with the file.
 * What stands behind that counts only if the next one has nothing there. */
bool segment_counts(const struct segment_info *s);
uint64_t log_dir_segment_end(const struct log_dir *d, uint32_t index);

enum log_end {
    LOG_MORE, /* a frame was returned */
    LOG_END,  /* nothing but zeros, or the end of the file, behind the last frame */
    LOG_TORN, /* something that isn't a frame stands behind the last one, or segments follow that don't join, above the durable mark: what a power cut leaves */
    LOG_DAMAGED, /* that, or a missing segment, below a durable mark or the fork of a newer history; or a damaged header */
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

/* Begins with the first frame at or behind 'from', which must be a frame's start, or in no segment's middle; 0 = the oldest. */
DC_MUST enum dc_err log_reader_open(struct log_reader **out, const struct log_dir *d,
                                    uint64_t from);
/* The first frame follows 'from' without a gap: it begins there, or 'from' is a fork and it is the next history's first. (Always
 * with 'from' 0.) False: log is missing between 'from' and the first frame, or 'from' lies on an abandoned branch. */
bool log_reader_joins(const struct log_reader *r);

/* After LOG_END or LOG_TORN another call looks again at the same place (for what is appended to the same file). */
enum log_end log_reader_next(struct log_reader *r, struct frame_ref *out);

/* For who reads a part of a log whose frames' places aren't known, before anything is read: goes on to the first frame that begins below 'below'. (A
 * history gives an LSN once, and both are in the sums: what looks like a frame is one, or stands in a value to look like one.) Looks at SEEK_MAX bytes, and
 * no further than a header that is right in front of something that isn't. False: there is none, or it is for somebody else to say; the reader is of no use
 * then. Such a reader doesn't judge: LOG_END says no more than that it has found no frame. */
enum { SEEK_MAX = 1024 * 1024 };
bool log_reader_seek(struct log_reader *r, uint64_t below);
/* Somebody else has read the frames from here up to 'to', where one of this history ends. */
void log_reader_skip(struct log_reader *r, uint64_t to);

/* For who stops before the end: the bytes of all frames so far were there while they were used. Errors: DC_EIO. */
DC_MUST enum dc_err log_reader_check(struct log_reader *r);

/* After an end that isn't LOG_MORE: where, and in words. */
struct log_end_info {
    uint32_t segment; /* LOG_NO_SEGMENT: in none */
    uint64_t lsn;     /* end of the last good frame; 'from' when there was none */
    uint64_t
        at_lsn; /* where the next frame should begin: 'lsn', or the start of the next history */
    uint64_t file_offset; /* of at_lsn */
    uint64_t
        junk_len; /* from there up to the last byte of the segment that isn't zero (a frame may end in zeros) */
    bool frames_behind; /* valid frames follow the hole */
    char text[256];
};
void log_reader_end(const struct log_reader *r, struct log_end_info *out);
void log_reader_close(struct log_reader *r);

#endif
