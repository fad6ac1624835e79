/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log_rig: a log on a simulated disk, appenders without a cache behind them, and what a reader finds afterwards. One to a process.
 *
 * Threads: rig_append() any, each with a feed of its own; the rest one.
 */
#ifndef TESTS_SUPPORT_LOG_RIG_H
#define TESTS_SUPPORT_LOG_RIG_H

#include "persist/log.h"
#include "persist/log_reader.h"
#include "server/base/buf.h"
#include "server/store/entry.h"
#include "tests/support/sim_disk.h"

enum { RIG_FIRST_LSN = 0x10000, RIG_SEGMENT_LEN = 16 * 1024 };

struct log_rig {
    struct sim_disk *disk;
    struct log *log;
    struct log_feed *feed; /* of the thread that opened it */
    struct log_opts opts;
    struct history chain[1];
    bool hides_marks; /* in traces: one that is late is written when a second is over */
};
extern struct log_rig rig;

/* A disk with the directory "data", and options: a first history, everything kept, everysec, segments of RIG_SEGMENT_LEN, 1 GB of
 * memory. The test changes what it likes and opens the log. */
void rig_init(void);
void rig_open(void);
void rig_close(bool clean); /* may be opened again: behind the end that is found */
void rig_fini(void);

/* A frame of one PUT; returns its end. Kicks the writer. */
uint64_t rig_append(struct log_feed *f, const char *key, struct bytes value);
uint64_t rig_append_blob(struct log_feed *f, const char *key,
                         struct blob *b); /* no reference is taken from the caller */
/* The same without a kick; DC_ENOMEM: nothing has happened. */
DC_MUST enum dc_err rig_try_append(struct log_feed *f, const char *key, const struct value *v,
                                   uint64_t *end);
/* By the rig's feed: "k<number>", with a value of so many bytes that are made of the number. */
uint64_t rig_append_number(uint64_t number, size_t len);

bool rig_wait(enum log_level level, uint64_t lsn); /* ten seconds */
/* Until 'condition(arg)' is true; false after ten seconds. */
bool rig_until(bool (*condition)(void *arg), void *arg);
/* Questions for it. */
bool rig_is_well(void *unused);
bool rig_is_ill(void *state); /* an enum log_state */

/* Calls of this kind (enum sim_call; -1 = none) hang from now on, until it is called again. */
void rig_block_calls(int kind);
bool rig_is_inside(void *unused); /* one does */

/* The calls on the disk since the last time (sim_disk_take_trace), without those that make spares, which another thread does meanwhile:
 * as soon as 'is_enough' is content with them, or after ten seconds those that there are. To be freed. */
char *rig_take_trace(bool (*is_enough)(const char *trace, const void *arg), const void *arg);
/* For rig_until(): so many files have been given room; 'count' is a uint64_t. The second one is a spare. */
bool rig_has_allocated(void *count);
/* Two questions for it. The mark of durable bytes comes behind the news of them. */
bool rig_trace_has_lines(const char *trace, const void *count); /* a size_t */
bool rig_trace_ends_with_mark(const char *trace, const void *unused);
/* No more calls than these since the last time, but for those that make spares, of which so many are to be there. Like printf. */
void rig_expect_trace(uint64_t allocated, const char *format, ...) DC_PRINTF(2, 3);

/* What a reader finds on a disk. */
struct rig_frame {
    uint64_t lsn, end;
    enum frame_kind kind;
    char key[32];
    uint64_t value_len;
    uint64_t value_sum; /* sum64 */
};
struct rig_found {
    struct rig_frame *frames;
    uint32_t count;
    enum log_end how;
    struct log_end_info end;
};
void rig_read(struct rig_found *f, struct sim_disk *d,
              uint64_t from); /* NULL: what the options name */
void rig_found_fini(struct rig_found *f);
/* The frame that ends there, or NULL. */
const struct rig_frame *rig_find(const struct rig_found *f, uint64_t end);
/* How many frames "k0", "k1", ... there are in order, before anything else. */
uint64_t rig_count_numbers(const struct rig_found *f);
/* Frames "k<from>" ... "k<to - 1>" are there, in order, and no other mutation. */
void rig_expect_numbers(const struct rig_found *f, uint64_t from, uint64_t to);

/* Files in "data", each name followed by a blank, in no order. */
void rig_list(struct buf *to);

#endif
