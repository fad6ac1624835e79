/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log: the log of mutations: many appenders, one writer, many readers.
 *
 * Purpose: log_append() gives a frame its position and its bytes to the appender's feed, under the slot locks of its keys. The writer
 *   collects the feeds, puts their frames into the order of the log and writes them to the segment: a thread, or who calls log_write_through();
 *   the sync thread calls fdatasync.
 *
 *     worker: log_append() -> feed      writer: feeds -> stretch -> pwrite -> written      sync: fdatasync -> durable
 *
 * Invariants:
 *   I1 LSNs rise and are never given twice.
 *   I2 every frame below the head that the writer reads before it visits the feeds is in a feed, because position and append
 *      happen under the feed's lock: so what it collects below that head has no gap.
 *   I3 durable <= written <= head; all are ends of frames. Each only rises.
 *   I4 bytes that aren't durable stay in memory: after a failed fdatasync they go to a new segment, from the durable mark.
 *   I5 appending never waits for the disk. Who is about to write asks log_has_room() first.
 * Threads: a feed belongs to one thread at a time (its lock is for the writer). The rest: any.
 * Failure: log_reserve() is the only thing that fails before an effect; afterwards appending can't. A disk that is full or broken is a state
 *   (log_state): writes are refused by the dispatcher, the writer tries again, and goes on where it was.
 */
#ifndef DC_PERSIST_LOG_H
#define DC_PERSIST_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "persist/frame_fmt.h"
#include "persist/histories.h"
#include "persist/segment_fmt.h"
#include "server/base/err.h"
#include "server/base/io.h"
#include "server/store/mutation.h"

struct log;

enum log_sync { LOG_SYNC_ALWAYS, LOG_SYNC_EVERYSEC, LOG_SYNC_NO };

enum log_state {
    LOG_WELL,
    LOG_FULL,   /* no room on the disk */
    LOG_BROKEN, /* it answers with errors */
};

/* How safe a reply has to be. */
enum log_level { LOG_LEVEL_MEMORY, LOG_LEVEL_OS, LOG_LEVEL_DISK };

struct log_opts {
    const struct io *io;
    const char *dir;
    const uint8_t *node_id;      /* NODE_ID_LEN */
    const uint8_t *seed;         /* SEED_LEN */
    struct history history;      /* to which what is appended belongs */
    uint64_t first_lsn;          /* where it begins */
    const struct history *chain; /* up to 'history'; written as a FORK frame first when 'fork' */
    uint32_t chain_count;
    bool fork;
    bool follows; /* log_set_follows() */
    bool
        keeps; /* false: 'appendonly no': nothing is written while nobody needs it; log_set_keeps() */
    enum log_sync sync;
    uint64_t segment_len;
    uint64_t memory_limit; /* bytes not yet durable beyond which writers have to wait */
    /* Called by who writes and by the sync thread when a watermark that somebody waits for (log_want), or the state, has moved. */
    void (*moved)(void *arg);
    /* Called when a segment was finished or begun: for the catalogue and retention. */
    void (*rotated)(void *arg);
    void *arg;
};

/* Writes the first segment's header (and the fork, durable) and starts the threads. Errors: DC_EIO. */
DC_MUST enum dc_err log_open(const struct log_opts *opts, struct log **out);
/* Writes and syncs what is left (when 'clean' with a CLOSE frame behind it, unless it follows another one); at most 'timeout_ms'. NULL is
 * legal. */
void log_close(struct log *l, bool clean, int64_t timeout_ms);

/* One appender: a worker, the janitor, a loader. */
struct log_feed;
struct log_feed *log_feed_create(struct log *l);
void log_feed_destroy(struct log_feed *f); /* what it holds is written all the same */

/* Memory for the mutation's frame; nothing is given a position. Errors: DC_ENOMEM. */
DC_MUST enum dc_err log_reserve(struct log_feed *f, struct mut *m);
/* Likewise for 'more' bytes of effects still to come, if effects are shown before all are prepared: they can't be taken back. */
DC_MUST enum dc_err log_reserve_more(struct log_feed *f, struct mut *m, size_t more);
/* Position, versions and bytes of the frame. Slot locks held; log_reserve() came before. Returns the end of the frame. */
struct lsn log_append(struct log_feed *f, struct mut *m);
/* The one place where a mutation becomes part of the cache: log_append(), then the store shows it. */
struct lsn log_commit(struct log_feed *f, struct mut *m);
/* Wakes the writer if there is something for it; under 'always' not while it waits for more (log_writer.c). After the slot locks. */
void log_kick(struct log *l);
/* It does so in a moment: for who appends often and waits for nothing, without a system call each time. */
void log_kick_soon(struct log *l);

/*
 * A log that follows another one has byte for byte the same frames at the same LSNs; log_put() is its only appender then. What the store
 * shows is a watermark of its own: frames are applied behind the log.
 *
 *     link: frames, checked -> log_put() -> head -> applied -> log_set_applied()
 *
 * Not while anybody appends, or puts.
 */
void log_set_follows(struct log *l, bool follows); /* false: all of it is applied */
bool log_follows(const struct log *l);
/* Whole frames, checked, of the log that is followed; 'lsn' is the head. Copies them. The caller asks log_has_room() first, and kicks. Errors: DC_ENOMEM,
 * and nothing has happened. */
DC_MUST enum dc_err log_put(struct log_feed *f, uint64_t lsn, const char *bytes, size_t len);
/* The same without a copy: for large ones. No reference is taken from the caller. */
DC_MUST enum dc_err log_put_blob(struct log_feed *f, uint64_t lsn, struct blob *frames);
/* The store shows everything up to here: the head, unless the log follows another one. */
struct lsn log_applied(const struct log *l);
void log_set_applied(struct log *l, struct lsn lsn);
/* The next time that it moves, 'moved' is called (once). */
void log_want_applied(struct log *l);

/* The histories that the log consists of. Stays valid as long as the log; another pointer means that a history has begun since. It changes
 * before any watermark reaches the new history. */
const struct histories *log_chain(const struct log *l);
/* Ends the current history and begins the last one of 'chain', whose parent ends at the head, in a new segment, with its FORK frame ('fork', as
 * another log has it; NULL: it is made here). All of it is durable at the return. Nobody may append or put meanwhile; if somebody does, nothing
 * begins. Errors: DC_EIO, and the log is as it was. */
DC_MUST enum dc_err log_begin_history(struct log *l, const struct histories *chain,
                                      const char *fork, size_t fork_len);

/* False: the bytes in memory that aren't safe yet have reached the limit; who wants to write waits (log_want). */
bool log_has_room(const struct log *l);
enum log_state log_state(const struct log *l);
/* Why it isn't well, as a sentence; "" when it is. */
void log_trouble(const struct log *l, char *to, size_t size);

/* Watermarks. */
struct lsn log_head(const struct log *l);
struct lsn log_written(const struct log *l);
struct lsn log_durable(const struct log *l);
/* The watermark of a level. */
struct lsn log_mark(const struct log *l, enum log_level level);
/* True when the oldest byte that isn't durable is older than everysec allows: replies wait for LOG_LEVEL_DISK then. */
bool log_is_late(const struct log *l);
/* Waits until the mark of the level has reached 'lsn', at most so long. */
bool log_wait(struct log *l, enum log_level level, struct lsn lsn, int64_t timeout_us);
/* The same for LOG_LEVEL_OS, by a thread that may be held in the kernel: if it is a plain write, the caller does it itself, which may take as long as the
 * disk likes. What it doesn't do, the writer is woken for. */
bool log_write_through(struct log *l, struct lsn lsn, int64_t timeout_us);
/* The next time that the mark of the level or the state moves, 'moved' is called (once). */
void log_want(struct log *l, enum log_level level);

/* The node's clock: what has been shown as expired stays so if the next run's clock is behind. Kept beside the durable mark, once a second. */
void log_note_time(struct log *l, int64_t now_ms);

/* Somebody waits for the disk: the next fdatasync begins now. */
void log_hurry(struct log *l);

/* CONFIG SET. */
void log_set_sync(struct log *l, enum log_sync sync);
void log_set_segment_len(struct log *l, uint64_t len);

/* 'appendonly' changes. True: what is appended after the return is kept. It counts for the next start from the end of a snapshot on that
 * log_base() is told of; until then its files have temporary names. False: what was kept stays; what waits for it needn't any more. Wanted
 * again before it has ended, it needs a new snapshot just the same. */
void log_set_keeps(struct log *l, bool keeps);
/* It is kept, and a snapshot to go on from is missing. */
bool log_wants_base(const struct log *l);
/* It is kept, and the next start reads it. */
bool log_is_based(const struct log *l);
/* A snapshot that ends at 'lsn' was published: what was kept from there on counts. Waits until the files have their names, or for 'stop'. No
 * effect unless the log has been kept since before 'lsn', and wants it. False: it was stopped, or given up because the disk has let nothing be
 * done for a second. One caller at a time. */
bool log_base(struct log *l, uint64_t lsn, const _Atomic bool *stop);

/* What is appended from now on goes to files even if nobody keeps them ('appendonly no'). Counted. Returns the LSN from which on it
 * can be read there. */
struct lsn log_pin(struct log *l);
void log_unpin(struct log *l);
/* It was written only for those who pin it, and the disk didn't take it: no write is refused for that, but what they wait for isn't in files, and won't
 * be. Until the last of them has gone; who pins it then finds out anew. */
bool log_is_given_up(const struct log *l);
/* Files that nobody keeps and that end at or before 'lsn' aren't needed any more, though something is pinned. */
void log_trim(struct log *l, uint64_t lsn);
/* For who reads the files while the log is appended to. All that was written from 'lsn' on is in files; asked after the mark was read. */
bool log_is_in_files(const struct log *l, uint64_t lsn);
/* Another number: there are other files than before. It changes before the mark 'written' reaches a new one. */
uint32_t log_layout(const struct log *l);
/* Since when it has been kept without a gap, in this run; 0 = since its begin, UINT64_MAX = it isn't. */
uint64_t log_kept_from(const struct log *l);

/* Told of everything that has just been written, for who sends it on: by the writer, in the order of the log. It must not wait. NULL instead of
 * the bytes when they are many: they are in the file. Set once; 'arg' lives as long as the log. */
typedef void (*log_tap_fn)(void *arg, uint64_t lsn, const char *bytes, size_t len);
void log_set_tap(struct log *l, log_tap_fn tap, void *arg);

/* For INFO. */
struct log_stats {
    uint64_t bytes_pending; /* in memory, not durable */
    uint64_t syncs, sync_failures, write_failures, rotations;
    int64_t last_sync_us; /* how long it took */
    uint64_t segment_first_lsn;
    char segment[SEGMENT_NAME_MAX]; /* being written */
};
void log_stats(const struct log *l, struct log_stats *out);

#endif
