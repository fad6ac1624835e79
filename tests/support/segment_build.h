/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * segment_build: segment files for tests, written by hand after persist/frame_fmt.h: a second opinion on the format.
 *
 *     segment_build_init(&b, &history, first_lsn);
 *     segment_build_put(&b, "key", "value");
 *     segment_build_write(&b, io, "data");
 *     segment_build_fini(&b);
 */
#ifndef TESTS_SUPPORT_SEGMENT_BUILD_H
#define TESTS_SUPPORT_SEGMENT_BUILD_H

#include "persist/segment_fmt.h"
#include "server/base/buf.h"
#include "server/base/io.h"

struct segment_build {
    struct buf file; /* header and frames so far */
    struct segment_head head;
    uint64_t lsn; /* end of the last frame */
    char name[SEGMENT_NAME_MAX];
};

/* Node id: bytes 1, seed: bytes 2, created: the first LSN. */
void segment_build_init(struct segment_build *b, const struct history *history, uint64_t first_lsn);
void segment_build_fini(struct segment_build *b);

/* Frames. Each returns the LSN of its end. */
uint64_t segment_build_put(struct segment_build *b, const char *key, const char *value);
/* PUTs and at the end a DEL of the first key; a value of BLOB_MIN_LEN or more is a blob. */
uint64_t segment_build_frame(struct segment_build *b, const struct bytes *keys,
                             const struct bytes *values, uint32_t count);
uint64_t segment_build_fork(struct segment_build *b, const struct history *chain, uint32_t count);
uint64_t segment_build_close(struct segment_build *b);

void segment_build_mark(struct segment_build *b, uint64_t durable_lsn);
/* Zeros up to this length of the file. */
void segment_build_room(struct segment_build *b, size_t len);

/* Under its name in the directory, synced; replaces what is there. */
void segment_build_write(const struct segment_build *b, const struct io *io, const char *dir);

#endif
