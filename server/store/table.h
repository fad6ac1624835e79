/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * table: the entries of one slot of one keyspace, in the order of their positions.
 *
 * Purpose: find, insert and remove by (hash, key); step through in order while the table changes. 'seed' is the
 *   one of the hash: a page that is split asks again for the hash of each key.
 * Invariants:
 *   I1 A page (page.h) is 1..PAGE_LINES_MAX cache lines of 8 words; a word is tag << 48 | entry, 0 = empty, and the words
 *      of a line are filled from the left. The tag is the next 16 bits of the hash at the page's depth.
 *   I2 The home line of a tag is tag * lines >> 16: lines are in the order of the hash. An entry that finds its
 *      home full lies in one of the next lines (cyclic), and every line between is full.
 *   I3 Growth re-hashes one page by its tags alone. A page that can't grow becomes a node of 16 pages by
 *      the next four bits of the hash. So the work of an insertion is bounded whatever the table holds.
 * Threads: the slot lock. 'word', 'count' and 'due' are atomics only so that they can be peeked at: for prefetching, by
 *   the sweep, for sums. Ownership: the table owns its entries.
 * Failure: table_insert() can't fail where table_reserve() didn't. A frame with more than
 *   TABLE_RESERVE_MAX insertions into one page may have to grow it again at its commit; there, and only
 *   there, the process ends when memory does.
 */
#ifndef DC_STORE_TABLE_H
#define DC_STORE_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/base/bytes.h"
#include "server/base/err.h"
#include "server/store/page.h"

enum {
    HASH_BITS = 50, /* of a position, below the slot */
    NODE_BITS = 4,
    NODE_FANOUT = 1 << NODE_BITS,
    TABLE_DEPTH_MAX = 8,
    TABLE_RESERVE_MAX = 128
};

#define HASH_END ((uint64_t)1 << HASH_BITS)

/* Times of the sweep's hints: in units since EXPIRY_BASE_MS. */
enum { DUE_UNIT_MS = 128 };
#define DUE_NEVER UINT32_MAX
uint32_t due_of(int64_t expiry_ms); /* rounds up: expired for sure when it is reached ... */
uint32_t due_at(int64_t now_ms);    /* ... by this, which rounds down */

/* Where a page or node is: address | lines << 48, lowest bit set = node, 0 = nothing. */
struct table {
    _Atomic uint64_t word;
    _Atomic uint32_t count; /* entries below */
    _Atomic uint32_t due;   /* no need to look for expired entries before */
};

/* A place found: valid until the table changes. */
struct table_place {
    uint64_t *word; /* NULL = not found */
    struct table *page;
    uint32_t line;
    struct table *path[TABLE_DEPTH_MAX + 1]; /* root first, page last */
    uint32_t depth;
};

struct entry *table_find(const struct table *t, uint64_t hash, struct bytes key);

/* The entry of this version at 'hash'. */
struct entry *table_find_version(const struct table *t, uint64_t hash, uint64_t version);

/* The same with the place, for replacing and removing. */
struct entry *table_locate(struct table *t, uint64_t hash, struct bytes key,
                           struct table_place *out);

/* Makes sure that 'extra' insertions (of TABLE_RESERVE_MAX) at 'hash' succeed without memory. Errors: DC_ENOMEM. */
DC_MUST enum dc_err table_reserve(struct table *t, uint64_t hash, uint32_t extra,
                                  const uint8_t *seed);

/* Lets a table that is one page grow for 'extra' insertions in one step, as far as a page goes. Errors: DC_ENOMEM. */
DC_MUST enum dc_err table_reserve_page(struct table *t, uint64_t hash, uint32_t extra,
                                       const uint8_t *seed);

/* Takes back what table_reserve_page() gave for entries that never came, if that is much. */
void table_fit(struct table *t);

/* Inserts an entry whose key isn't there, where nothing has been reserved. Errors: DC_ENOMEM. */
DC_MUST enum dc_err table_add(struct table *t, uint64_t hash, struct entry *e, const uint8_t *seed);

/* Inserts an entry whose key isn't there. */
void table_insert(struct table *t, uint64_t hash, struct entry *e, const uint8_t *seed);

/* Puts another entry of the same key into a place; the caller frees the old one. */
void table_replace(struct table_place *at, struct entry *e);

/* Takes the entry out; the caller frees it. The table may shrink. */
void table_remove(struct table_place *at);

/* Lowers the hint on the way to 'hash'. */
void table_due(struct table *t, uint64_t hash, uint32_t due);

/* Calls 'visit' for every entry with from <= hash < to, where to is the end of the line that 'from' falls
 * into; returns to (HASH_END at the end). 'visit' must not change the table. */
typedef void (*table_visit_fn)(void *arg, struct entry *e);
uint64_t table_step_line(const struct table *t, uint64_t from, const uint8_t *seed,
                         table_visit_fn visit, void *arg);
/* The page at 'from' if it is due at 'due' (DUE_NEVER: whenever), else NULL. '*to' is its end, or that of all around it that
 * isn't due. */
const struct table *table_due_page(const struct table *t, uint64_t from, uint32_t due,
                                   uint64_t *to);
void table_visit_page(const struct table *page, table_visit_fn visit, void *arg);
/* Sets the hint of the page at 'hash', and those above it to the least below them. */
void table_set_due(struct table *t, uint64_t hash, uint32_t due);

/* Offers the page at 'from' to 'move', which may move those bytes and says where they are now (NULL: they stay); returns
 * the end of the page. */
typedef void *(*table_move_fn)(void *old, size_t align, size_t len);
uint64_t table_pack_page(struct table *t, uint64_t from, table_move_fn move);

/* Gives the last page of an empty table back; for the sweep. (table_remove() keeps the first line.) */
void table_trim(struct table *t);

/* Frees everything. */
void table_drop(struct table *t);
/* The same for the entries for which 'drop' says true. */
typedef bool (*table_drop_fn)(void *arg, const struct entry *e);
void table_drop_if(struct table *t, table_drop_fn drop, void *arg);
/* The same in steps, for a table that nobody reads any more: frees a page and its entries; returns how many. */
uint32_t table_drop_page(struct table *t);
bool table_is_gone(const struct table *t); /* it has no page left */

/* More than a page. */
bool table_is_large(const struct table *t);
/* The whole content; 'from' is empty afterwards. */
void table_move(struct table *to, struct table *from);

/* Bytes of pages and nodes. */
size_t table_overhead(const struct table *t);

/* The line that 'hash' has its home in, NULL when nothing is there. */
struct line *table_line(const struct table *t, uint64_t hash);

/* Asks the cache for the line in which 'hash' has its home. No lock needed. */
void table_prefetch(const struct table *t, uint64_t hash);

/* Asks for the entry that 'hash' most likely means. Slot lock held. */
void table_prefetch_entry(const struct table *t, uint64_t hash);

#endif
