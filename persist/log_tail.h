/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log_tail: the bytes of the running node's log, from a position on, as they stand in its files. For who sends them on.
 *
 *     log_tail_open(&t, d, from);
 *     for (;;) switch (log_tail_read(t, &lsn, buffer, size, &len)) ...   TAIL_NOTHING: log_wait(l, LOG_LEVEL_OS, lsn + 1, ...)
 *     log_tail_close(t);
 *
 * Purpose: follows the log through its segments and histories, up to what is written. Bytes aren't looked at: who gets them checks the frames.
 * Invariants: I1 bytes come in the order of the chain, each once, and none above the mark 'written'. I2 while it is open the log isn't
 *   removed from its position on, unless that is more than the limit of pins.
 * Threads: one owner each; beside the log's own threads and retention. Failure: no read allocates.
 */
#ifndef DC_PERSIST_LOG_TAIL_H
#define DC_PERSIST_LOG_TAIL_H

#include "persist/data.h"

struct log_tail;

/* 'from' is the end of a frame. With 'appendonly no' what is written stays in files while it is open. Errors: DC_EGONE: the log isn't there from
 * 'from' on, or the chain doesn't have this position; DC_ELIMIT; DC_EIO. */
DC_MUST enum dc_err log_tail_open(struct log_tail **out, struct data *d, uint64_t from);
void log_tail_close(struct log_tail *t); /* NULL is legal */

enum tail_verdict {
    TAIL_BYTES,
    TAIL_NOTHING, /* more isn't written yet */
    TAIL_GONE,    /* it held more than the limit of pins, and what comes next was removed */
    TAIL_FAILED,  /* a file can't be read: dc_fail_take(DC_EIO) has the text */
};

/* At most 'size' bytes of one history, which belong at 'lsn'; they may end in the middle of a frame. The jump to the next history is a jump of
 * 'lsn'. It is set for TAIL_NOTHING, too. */
enum tail_verdict log_tail_read(struct log_tail *t, uint64_t *lsn, char *to, size_t size,
                                size_t *len);
/* What lies before 'lsn', in the same history, is known already. */
void log_tail_skip(struct log_tail *t, uint64_t lsn);
/* Where it goes on. */
uint64_t log_tail_lsn(const struct log_tail *t);

/* The first position from which on the log could be read now. UINT64_MAX: from none. */
uint64_t log_tail_oldest(const struct data *d);

/* A digest of up to TAIL_HASH_LEN bytes of log before 'lsn', of its history, as far as they are here. It tells how many they were: two logs are
 * compared by log_tail_same() only, never by the digests. Errors: DC_EGONE, DC_EIO. */
enum { TAIL_HASH_LEN = 4096 };
/* Where such bytes can begin; 'lsn' itself: nowhere. */
uint64_t log_tail_before(struct data *d, uint64_t lsn);
DC_MUST enum dc_err log_tail_hash(struct data *d, uint64_t lsn, uint64_t *hash);
/* 'hash' is that of another log at the same position of the same history. False: it has other bytes before it. What only one of them has
 * says nothing. */
DC_MUST enum dc_err log_tail_same(struct data *d, uint64_t lsn, uint64_t hash, bool *same);

#endif
