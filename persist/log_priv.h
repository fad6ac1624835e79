/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log_priv: what the parts of the log share: log.c (appending, watermarks), log_gather.c, log_hold.c (memory), log_writer.c, log_keep.c,
 * log_follow.c (the writer's), log_sync.c (the thread), log_segment.c (files).
 */
#ifndef DC_PERSIST_LOG_PRIV_H
#define DC_PERSIST_LOG_PRIV_H

#include <pthread.h>

#include "persist/log.h"
#include "server/base/buf.h"
#include "server/base/lock.h"
#include "server/base/thread.h"
#include "server/base/wake.h"

enum {
    FEED_MAX = 80,
    FEED_MIN_LEN = 64 * 1024,
    FEED_ROOM_LEN = 4 * 1024, /* free in a feed that is roomy */
    FEED_ROOM_EXTENTS = 4,
    TAKE_OVER_LEN = 16 * 1024, /* less is copied */
    POOL_MAX = 8,              /* few, so that they stay in the caches */
    FEED_KEEP_LEN = 1024 * 1024,
    RETRY_US = 100 * 1000,
    BASE_PATIENCE_US = 1000 * 1000, /* of log_base() with a disk that takes nothing */
    EVERYSEC_US = 1000 * 1000,
    LAZY_SYNC_US = 30 * 1000 * 1000, /* 'appendfsync no': memory has to be freed now and then */
    LATE_US = 2 * 1000 * 1000,       /* 'everysec' and a grace */
    COMPANY_US = 500,                /* await_company(), at most */
    HERE_MAX_LEN = 256 * 1024,       /* log_write_through(): more is the writer's */
    NAP_US = 1000,                   /* between looks for what log_kick_soon() tells of, */
    QUIET_LOOKS = 5,                 /* so many in vain */
    HERE_SPINS = 400,                /* while another one writes, some ten microseconds */
    TAP_LEN = 32 * 1024,             /* more isn't copied for it */
    MARK_STEP_LEN = 64 * 1024,       /* 'always': durable marks are that far apart, or a second */
    WANTED_APPLIED = 1 << 8,
};

/* A run of bytes in a feed: frames that follow each other, or the part of one up to a blob. */
struct extent {
    uint64_t lsn;
    size_t at;
    size_t len;
    struct blob *blob; /* instead of bytes: a counted reference */
};

struct log_feed {
    struct log *log;
    _Alignas(64) _Atomic uint32_t lock; /* spins: held for one frame, or while the writer copies */
    /* under the lock */
    char *bytes;
    size_t len;
    size_t cap;
    struct extent *extents; /* by LSN */
    uint32_t extent_count;
    uint32_t extent_cap;
    uint32_t blob_count;
    size_t reserved; /* room that log_append() was promised: the memory stays */
    /* the appender's own */
    bool roomy;               /* there is room for a small frame: the writer leaves that much */
    struct frame_blob *blobs; /* scratch of log_append() */
    uint32_t blob_cap;
    bool gone; /* destroyed by its owner; the writer frees it */
};

/* Bytes in the order of the log, in memory until they are durable. */
struct part {
    const char *ptr;
    size_t len;
};

/* A buffer of feeds and stretches. */
struct buffer {
    char *ptr;
    size_t cap;
};

struct stretch {
    struct stretch *next;
    uint64_t lsn;
    uint64_t end;
    int64_t written_us;
    char *bytes;
    size_t cap;              /* of a buffer that goes back to the pool, 0 = not one */
    struct hold_block *hold; /* where the bytes are instead, NULL = nowhere else */
    struct blob **blobs;
    uint32_t blob_count;
    uint32_t part_count;
    uint32_t frames;     /* about so many */
    struct part parts[]; /* bytes and blobs in turns */
};

struct segment {
    struct segment *next;
    struct io_file file;
    struct segment_head head;
    char name[SEGMENT_NAME_MAX];
    _Atomic uint64_t end;       /* LSN behind what is written; the sync thread reads it, too */
    uint64_t room;              /* LSN that doesn't fit any more */
    struct segment_mark marked; /* its durable mark; who syncs */
    uint32_t number;            /* its own in this run */
    bool is_new;                /* its directory entry isn't durable */
    bool
        lasts; /* its name counts for the next start, or it is a temporary one; changes under the lock */
};

/* log_begin_history() waits for the writer. */
struct begin_request {
    const struct histories *chain;
    struct part fork;
    int err;
    bool done; /* under the lock */
};

enum kept { NOT_KEPT, KEPT_SOON /* who appends from here on keeps it */, KEPT };

struct log {
    /* constant after open */
    struct log_opts o; /* but for 'history' and 'chain', which are those of the start */
    struct thread writer;
    struct thread syncer;
    /* atomic */
    _Alignas(64) _Atomic uint64_t head;
    _Atomic bool follows; /* who appends looks at both */
    _Alignas(64) _Atomic uint64_t written;
    _Atomic uint64_t durable;
    _Atomic uint64_t applied;                /* while 'follows' */
    _Atomic(const struct histories *) chain; /* log_chain() */
    _Atomic(struct begin_request *) begins;  /* NULL: nobody asks */
    _Atomic uint32_t state;
    _Atomic uint32_t sync_mode;
    _Atomic uint64_t segment_len;
    _Atomic int64_t oldest_us; /* when the oldest byte that isn't durable was written; 0 = none */
    _Atomic uint32_t
        wanted; /* levels for whose marks somebody waits, 1 << enum log_level; WANTED_APPLIED */
    _Atomic uint32_t waiters;       /* in log_wait() */
    _Atomic uint64_t hurry_lsn;     /* somebody waits for the disk: up to here */
    _Atomic bool keeps;             /* 'appendonly yes'; changes under the lock */
    _Atomic uint32_t kept;          /* enum kept: frames are written down. Set by the writer */
    _Atomic uint64_t kept_from;     /* since it is kept; set by the writer before 'kept' */
    _Atomic uint32_t layout;        /* log_layout(). Set by the writer */
    _Atomic uint64_t trim_lsn;      /* log_trim(); 0 = nothing to do */
    _Atomic bool based;             /* files get lasting names; changes under the lock */
    _Atomic uint64_t base_lsn;      /* log_base() waits for the writer; 0 = nobody does */
    _Atomic uint32_t segment_count; /* begun in this run */
    _Atomic uint32_t gone_count;    /* feeds that wait to be freed */
    _Atomic uint64_t awaited_len;   /* the writer waits until so much is appended; 0: it doesn't */
    _Atomic bool naps; /* the writer looks again in a moment: log_kick_soon() needn't wake it */
    _Atomic bool stopping;
    _Atomic bool writer_done;
    _Atomic bool poisoned; /* an fdatasync has failed: begin anew at 'durable' */
    _Atomic bool unproven; /* one has failed and none has succeeded since */
    _Atomic uint64_t syncs, sync_failures, write_failures, rotations;
    _Atomic int64_t last_sync_us;
    _Atomic int64_t clock_ms; /* log_note_time() */
    _Atomic log_tap_fn tap;   /* log_set_tap(); its argument was set before */
    void *tap_arg;
    struct wake writer_wake;
    struct wake sync_wake;
    /* The writer's: who holds the role is the writer, be it the thread of that name or a worker. Taken before 'lock'. */
    pthread_mutex_t role;
    struct stretch *unwritten; /* gathered, and not written from 'unwritten_from' on */
    uint64_t unwritten_from;
    /* under 'lock' */
    pthread_mutex_t lock;
    pthread_cond_t moved;
    pthread_mutex_t sync_lock; /* one fdatasync at a time, none while poisoned; taken before lock */
    struct log_feed *feeds[FEED_MAX];
    uint32_t feed_count;
    struct stretch *first; /* written, not durable */
    struct stretch **tail;
    uint32_t pins;
    _Atomic bool
        given_up; /* the disk doesn't take what is written for the pins only; until the last one has gone, or the log is to be kept */
    struct history history;  /* current; changes under the locks of all feeds */
    struct histories **past; /* the writer's own: all chains that there were, and the current one */
    uint32_t past_count;
    uint64_t base_from;      /* head when it was last wanted: a base has to reach it */
    struct segment *current; /* NULL: nothing is kept */
    struct segment *closed;  /* complete, not yet durable; oldest first */
    struct segment *pinned;  /* durable, with temporary names; somebody may still read them */
    struct segment *spare;
    struct buffer pool[POOL_MAX];
    uint32_t pool_count;
    struct hold_block *hold; /* log_hold.c: the one that is being filled */
    struct hold_block *holds_idle;
    uint32_t hold_count, hold_idle_count;
    char trouble[256];
};

/* Sequentially consistent, like the marks' stores and the flags of those who wait: either they see the new mark, or are seen. */
static inline uint64_t load_lsn(const _Atomic uint64_t *p) {
    return atomic_load_explicit(p, memory_order_seq_cst);
}

/* Bytes in memory that aren't durable. The mark first: it may pass the head that was read before. */
static inline uint64_t log_pending(const struct log *l) {
    uint64_t durable = load_lsn(&l->durable);
    return load_lsn(&l->head) - durable;
}

/* As much as the writer waits for. */
static inline bool log_has_company(const struct log *l) {
    return load_lsn(&l->head) - load_lsn(&l->written) >=
           atomic_load_explicit(&l->awaited_len, memory_order_seq_cst);
}

void feed_lock(struct log_feed *f);
void feed_unlock(struct log_feed *f);
void feed_free(struct log_feed *f);
/* Feed locked. */
bool feed_make_room(struct log_feed *f, size_t len, uint32_t extents);
void feed_add_extent(struct log_feed *f, uint64_t lsn, size_t at, size_t len, struct blob *b);
/* So that the next small frame needs no reservation. */
bool feed_stay_roomy(struct log_feed *f);

/* Whether frames are written down. Under a feed's lock: the writer, when it has changed its mind, waits for each of them. */
static inline bool log_is_kept(const struct log *l) {
    return atomic_load_explicit(&l->kept, memory_order_relaxed) != NOT_KEPT;
}

/* Moves a watermark, unless it is there already, and tells those who wait. */
void log_advance(struct log *l, _Atomic uint64_t *mark, uint64_t lsn);
void log_tell(struct log *l);                         /* those who wait, for whatever mark */
void log_tell_wanted(struct log *l, uint32_t wanted); /* those who wait for one of these */
/* True when the mark has risen; several threads may move it. */
bool log_rise(_Atomic uint64_t *mark, uint64_t lsn);
void log_set_state(struct log *l, enum log_state state, const char *what, int err);
/* The disk has failed: a state if the log is kept; else it is given up. */
void log_fail(struct log *l, enum log_state state, const char *what, int err);

/* log_follow.c: the log owns the chain from now on. The writer, or before there is one. */
void log_keep_chain(struct log *l, struct histories *chain);
/* The writer, when all is written and the disk is well: does what log_begin_history() waits for. */
void log_settle_history(struct log *l);

/* log_writer.c: what was current is complete. */
void log_use_segment(struct log *l, struct segment *s);
void log_swap_segment_locked(struct log *l, struct segment *s);
void log_tell_rotated(struct log *l);
struct segment *log_take_spare(struct log *l);
void log_note_failure(struct log *l, const char *what, int err);

/* log_gather.c: all between 'written' and the head. NULL when it isn't kept: the watermarks have moved. */
struct stretch *log_gather(struct log *l, bool keep);
void stretch_free(struct log *l, struct stretch *s);
void pool_put(struct log *l, char *ptr, size_t cap);

/* log_hold.c. The writer: a stretch that is written leaves its buffer. */
void log_hold(struct log *l, struct stretch *s);
void log_unhold(struct log *l, struct hold_block *b); /* one stretch of it is gone */
uint32_t log_holds(struct log *l);                    /* blocks in use */
/* Half of what is there above that many: what isn't needed goes, but not at once. */
void log_free_holds(struct log *l, uint32_t needed);
void log_end_holds(struct log *l);

/* log_segment.c; they return 0 or -errno. */
int segment_prepare(struct log *l, uint64_t len, struct segment **out); /* a spare */
/* Zeros in all of it, synced: an fdatasync has only bytes to write then, no metadata of blocks that were allocated and never written. */
int segment_fill(struct log *l, struct segment *s);
int segment_start(struct log *l, struct segment *s, uint64_t lsn,
                  const struct history *history);      /* its header */
int segment_publish(struct log *l, struct segment *s); /* its name */
/* Its lasting name, instead of a temporary one. */
int segment_make_last(struct log *l, struct segment *s);
/* All three; the spare is used if it has room. */
int segment_begin(struct log *l, uint64_t lsn, uint64_t len, struct segment *spare,
                  struct segment **out);
/* One for the begin of a run or a history: header and first frame (which may be empty) are durable before it has its name, and that is at the
 * return. */
int segment_begin_durable(struct log *l, uint64_t lsn, const struct history *history,
                          struct part first, struct segment *spare, struct segment **out);
/* As if it had never been begun, also for the next start. NULL is legal. */
void segment_withdraw(struct log *l, struct segment *s);
int segment_write(struct log *l, struct segment *s, const struct part *parts, uint32_t count,
                  uint64_t lsn);
int segment_write_mark(struct log *l, struct segment *s, uint64_t durable);
void segment_close(struct log *l, struct segment *s);
void segment_discard(struct log *l, struct segment *s); /* and its file */
void segment_leave(struct log *l, struct segment *s);   /* the one or the other, as its name says */
void segments_leave(struct log *l, struct segment *s);  /* this one and those behind it */

/* log_keep.c: the writer. Whether what was appended is written down; what a change of that asks for is done. */
bool log_keeps_now(struct log *l);
bool log_settle_base(
    struct log *l); /* log_base(). False: the disk doesn't let it; it is tried again */
void log_trim_now(struct log *l); /* log_trim() */
/* Whoever appends from here on sees what the writer has changed. Returns the head: what lies below is in the feeds, or was as before. */
uint64_t log_fence(struct log *l);

void log_writer_main(void *arg);
void log_sync_main(void *arg);
int log_sync_now(struct log *l);

#endif
