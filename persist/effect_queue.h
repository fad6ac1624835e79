/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * effect_queue: which effects of the log each range of slots still needs, as places in files.
 *
 * Purpose: the scan of a log of ten million effects leaves one number for each (8 bytes, some 11 with what lists are made of): which
 *   stretch of which file, and the offset there. The bytes are read again, from the mapped file, when the range is loaded.
 *   A log that is scanned in pieces fills a queue for each; they are put one behind the other. For who has less memory than the log has
 *   effects, queue_bound(): some ranges are noted, the others when their turn comes, by another walk over the mapped files.
 * Invariants: I1 the effects of a range are in the order of the log. I2 a flush isn't queued: it is the least version that its
 *   keyspace has from there on. I3 the system keyspace's effects are in no range of slots but in a list of their own: they are needed
 *   before anything else is.
 * Threads: one while it is filled; after queue_map() any number of readers, of different ranges. queue_forget() is its range's.
 * Ownership: an effect's bytes live until queue_fini().
 */
#ifndef DC_PERSIST_EFFECT_QUEUE_H
#define DC_PERSIST_EFFECT_QUEUE_H

#include "persist/frame_fmt.h"
#include "persist/log_reader.h"
#include "server/base/io.h"
#include "server/base/limits.h"

enum { QUEUE_OFFSET_BITS = 44, QUEUE_SOURCES_MAX = 1 << 20 };

struct effect_chunk;
struct effect_table; /* the stretches and files that chunks name */

struct effect_list {
    struct effect_chunk *first;
    struct effect_chunk *last;
    uint64_t *next, *end; /* in the last chunk: so nothing of it is read while it is filled */
    uint64_t count;
    uint64_t bytes; /* of the effects */
};

/* On its way to its list. */
struct effect_late {
    struct effect_list *list;
    uint64_t place;
    uint64_t bytes;
};

/* So many are: the lists of that many are fetched at a time. */
enum { QUEUE_LATE = 16 };

struct effect_queue {
    const struct io *io;
    uint32_t range_bits;
    uint32_t range_count;
    struct effect_list *ranges; /* and one more behind them: of the system keyspace */
    struct effect_table
        *tables; /* the first is its own, the others come from queues that were put behind it */
    uint64_t effects, bytes;
    struct effect_late late[QUEUE_LATE];
    uint64_t added;                   /* the next one goes to late[added % QUEUE_LATE] */
    uint32_t noted_from, noted_below; /* ranges that have their places; all, unless it is bounded */
    uint64_t places, places_max;      /* of those */
    uint64_t flushed[KEYSPACE_MAX];   /* version of the keyspace's last flush; 0 = none */
};

void queue_init(struct effect_queue *q, const struct io *io, uint32_t range_bits);
void queue_fini(struct effect_queue *q);
/* Before anything is queued: at most 'max' places are kept at a time, of ranges from 'first' on and below 'below'. */
void queue_bound(struct effect_queue *q, uint32_t first, uint32_t below, uint64_t max);

/* All effects of a frame that stands in the file 'name', which is the same string as long as the queue is filled. Errors: DC_ENOMEM, DC_ECORRUPT. */
DC_MUST enum dc_err queue_frame(struct effect_queue *q, const char *name,
                                const struct frame_ref *frame);
/* All of 'behind', which stands behind it in the log and has the same ranges, and is finished with by that. Errors: DC_ENOMEM. */
DC_MUST enum dc_err queue_append(struct effect_queue *q, struct effect_queue *behind);
/* The files are opened and mapped. Errors: DC_EIO, DC_ENOMEM. */
DC_MUST enum dc_err queue_map(struct effect_queue *q, const char *dir);

/* Of a queue that is bounded and mapped, before a range is read: its places are noted, and those of as many ranges behind it as there is room for. One that
 * has too many by itself isn't noted: its effects are looked for in the files. Errors: DC_ENOMEM, DC_ECORRUPT. */
DC_MUST enum dc_err queue_note(struct effect_queue *q, uint32_t range);

/* Where a walk over all effects is, in the files of one table. */
struct effect_walk {
    const struct effect_table *table; /* NULL = no walk */
    uint32_t source;                  /* the next one */
    uint64_t at, frame_end, end; /* in the file of the one before: effect, its frame, stretch */
};

/* A range's effects, one after the other. Range 'range_count' is the system keyspace. */
struct effect_cursor {
    const struct effect_queue *queue;
    const struct effect_chunk *chunk;
    uint32_t index;
    uint32_t range;
    uint32_t slot;           /* of the last effect's key; not of the system keyspace */
    struct effect_walk walk; /* of a range that isn't noted */
};
void queue_begin(const struct effect_queue *q, uint32_t range, struct effect_cursor *out);
enum queue_step { QUEUE_EFFECT, QUEUE_END, QUEUE_BAD /* the file isn't what it was */ };
/* What a later flush has killed is passed over. */
enum queue_step queue_next(struct effect_cursor *c, struct effect_view *out);
/* Asked when the effects have been used: all of their bytes could be read, none were zeros in the place of something. Errors: DC_EIO. */
DC_MUST enum dc_err queue_check(const struct effect_queue *q, uint32_t range);
/* The range is loaded. */
void queue_forget(struct effect_queue *q, uint32_t range);

#endif
