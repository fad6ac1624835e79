/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * view: the entries of a snapshot or of a data directory as they are at its end: blocks, with tail and log folded in. Of a segment
 *   alone: what its effects say of the keys that they name.
 *
 * Purpose: view_open() opens the newest snapshot that is whole and goes through the log behind it once, noting at which range each
 *   effect is to be found again (persist/effect_queue.h: about 10 bytes each). Then ranges are visited one at a time, in any order;
 *   when the effects are too many for the memory that they may have, in order is cheaper, for some ranges are noted with each pass.
 * Invariants: I1 nothing is written and no lock is taken: the directory may be a live node's. I2 memory: one range, its touched keys, and
 *   the places of the log's effects, both up to a bound. A range with more touched keys is visited in parts.
 * Threads: one. Ownership: an item and what it points to live during the visit.
 * Failure: what can't be read is told through 'trouble', and the visit goes on where it can.
 */
#ifndef DC_TOOLS_INSPECT_VIEW_H
#define DC_TOOLS_INSPECT_VIEW_H

#include "persist/effect_queue.h"
#include "persist/log_reader.h"
#include "persist/snap_reader.h"
#include "tools/dcache-inspect/fold.h"
#include "tools/dcache-inspect/touched.h"

enum { VIEW_PATH_MAX = 4096, VIEW_RANGE_BITS = 2 /* without a snapshot */ };

enum path_kind { PATH_SNAPSHOT, PATH_SEGMENT, PATH_DIR };
/* What a path is. Errors: DC_EIO, DC_ECORRUPT (a file that is neither). */
DC_MUST enum dc_err path_look(const char *path, enum path_kind *out);
/* Splits into directory ("." when there is none) and name. False: too long. */
bool path_split(const char *path, char dir[VIEW_PATH_MAX], const char **name);

/* For places, and as much for touched keys, unless options say otherwise; one takes so many bytes, with what lists and tables are made of. */
#define VIEW_MEMORY ((uint64_t)64 * 1024 * 1024)
enum { VIEW_PLACE_LEN = 11, VIEW_KEY_LEN = 256, VIEW_KEYS_MIN = 64 };

struct view_opts {
    void (*trouble)(void *arg, const char *text); /* what can't be read */
    void (*progress)(void *arg,
                     uint64_t log_bytes); /* so much more of the log was read; may be NULL */
    void *arg;
    uint64_t memory;         /* VIEW_MEMORY */
    uint32_t keyspace;       /* of the key */
    const struct bytes *key; /* this one alone will be asked for; NULL = any */
    bool segment_too;        /* the path may be that of a segment */
};

struct view {
    struct view_opts opts;
    const struct io *io;
    char dir[VIEW_PATH_MAX];
    char snap_name[SEGMENT_NAME_MAX]; /* "" = none */
    struct snap *snap;
    struct effect_queue queue;
    struct snap_block *block;
    struct touched_set touched; /* of the range that is visited, or of a part of it */
    uint32_t part, parts;
    uint8_t seed[SEED_LEN];
    bool seed_known;
    uint32_t range_bits, range_count;
    uint64_t window_end;                 /* E */
    char segment_name[SEGMENT_NAME_MAX]; /* "" = it is more than a segment */
    uint64_t first_lsn;                  /* of the segment */
    uint64_t end_lsn;
    int64_t
        time_ms; /* of the last frame, or of the snapshot: what has expired by then has expired */
    struct history *chain; /* oldest first */
    uint32_t chain_count;
    uint64_t troubles;
};

/* A snapshot file, a directory, or perhaps a segment. Errors: DC_EGENERIC (a segment), DC_EIO, DC_ECORRUPT, DC_ENEWER, DC_ENOMEM. Close it in every case. */
DC_MUST enum dc_err view_open(struct view *v, const char *path, const struct view_opts *opts);
void view_close(struct view *v);
/* Notes what dc_fail() has recorded. */
void view_trouble(struct view *v, enum dc_err err);

/* An entry that exists at the end, or doesn't any more. */
struct item {
    uint32_t keyspace;
    struct bytes key;
    struct fold fold; /* without content */
    /* where it comes from, for item_content() */
    const struct snap_entry *base; /* NULL = from the log alone */
    uint32_t block;
    const struct touched *touched; /* NULL = the block has all */
};

typedef bool (*item_fn)(void *arg, struct view *v, const struct item *item); /* false: enough */

/* Which items are wanted; zeros = all. */
struct item_filter {
    bool has_keyspace;
    uint32_t keyspace;
    struct bytes match;      /* a glob; ptr NULL = any */
    const struct bytes *key; /* this one alone */
    bool removed;            /* keys that the log removes, too, of those that no block has */
};

/* Visits the items of a range: those of blocks, then those that only the log has. False: 'each' had enough. */
bool view_range(struct view *v, uint32_t range, const struct item_filter *filter, item_fn each,
                void *arg);
/* All ranges in order, and that of the system keyspace. */
bool view_all(struct view *v, const struct item_filter *filter, item_fn each, void *arg);
/* The range of a key; range_count is that of the system keyspace. */
uint32_t view_range_of(const struct view *v, uint32_t keyspace, struct bytes key);
/* The key's position: 14 bits of slot, 50 of hash. */
uint64_t key_pos(struct bytes key, const uint8_t seed[SEED_LEN]);

/* The value as a string. Errors: DC_EIO, DC_ECORRUPT, DC_ENOMEM. */
DC_MUST enum dc_err item_content(struct view *v, const struct item *item, struct buf *out);
/* The version of the last flush of a keyspace that the log has; 0 = none. */
uint64_t view_flushed(const struct view *v, uint32_t keyspace);
bool view_is_segment(const struct view *v);
bool item_has_expired(const struct view *v, const struct item *item);

#endif
