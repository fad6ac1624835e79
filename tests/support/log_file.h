/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log_file: a log that a test writes: frames of an engine in memory, and segment files of any stretch of them.
 *
 * Threads: one; frames are committed under the slot locks of a single hand.
 */
#ifndef TESTS_SUPPORT_LOG_FILE_H
#define TESTS_SUPPORT_LOG_FILE_H

#include "persist/frame_fmt.h"
#include "persist/segment_fmt.h"
#include "server/base/buf.h"
#include "tests/support/engine.h"

enum { LOG_FILE_CHAIN_MAX = 8 };

struct log_file {
    uint8_t node_id[NODE_ID_LEN];
    uint8_t seed[SEED_LEN];
    struct history chain[LOG_FILE_CHAIN_MAX];
    uint32_t chain_count;
    uint64_t first_lsn; /* of 'bytes', the frames of the current history */
    struct buf bytes;
    uint64_t *ends; /* of the frames */
    uint32_t count;
    int64_t time_ms;
};

/* A log of the first history, with its FORK frame; the seed is zeros. */
void log_file_init(struct log_file *f, uint64_t first_lsn);
void log_file_fini(struct log_file *f);
uint64_t log_file_end(const struct log_file *f);

/* The engine's frames go here. */
void log_file_attach(struct log_file *f, struct engine *e);
void log_file_commit(void *arg, struct mut *m);

/* The next history: begins at 'start', goes on at the current end. What is kept of the old one is forgotten. */
void log_file_fork(struct log_file *f, uint64_t start);
void log_file_close(struct log_file *f);

/* Writes the segment file of [from, to) (frame ends; 0 = the end) into 'dir', with a durable mark unless that is 0. */
void log_file_write(const struct log_file *f, const char *dir, uint64_t from, uint64_t to,
                    uint64_t durable_lsn);
void log_file_path(const struct log_file *f, const char *dir, uint64_t from, char *to, size_t size);

/* Calls 'each' for every effect from 'from' on, up to 'to'. */
typedef void (*log_file_fn)(void *arg, const struct effect_view *e);
void log_file_each(const struct log_file *f, uint64_t from, uint64_t to, log_file_fn each,
                   void *arg);

/* Changes 'len' bytes at 'at' (from the end when negative) of a file. */
void file_poke(const char *path, int64_t at, const void *bytes, size_t len);
bool file_exists(const char *dir, const char *name);

#endif
