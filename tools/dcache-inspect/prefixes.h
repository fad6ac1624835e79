/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * prefixes: sums over the keys that have the same beginning, up to a delimiter: session:42 belongs to "session".
 *
 * Purpose: the prefixes with the most bytes, of any number of them, with a fixed number of counters (Space-Saving): a prefix that comes when
 *   all counters are taken gets that with the fewest bytes, and owes what may have been counted for it before.
 * Invariants: I1 what is counted is true, and what was missed is at most what is owed: bytes <= true bytes <= bytes + bytes_owed, and
 *   so are keys. I2 a prefix without a counter has at most as many bytes as any that has one may have. I3 nothing is owed while there
 *   were enough counters.
 * Threads: one.
 */
#ifndef DC_TOOLS_INSPECT_PREFIXES_H
#define DC_TOOLS_INSPECT_PREFIXES_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/bytes.h"

/* A longer prefix counts as its beginning. */
enum { PREFIX_LEN_MAX = 256 };

struct prefix_sums {
    uint64_t keys, with_expiry, key_bytes, value_bytes;
};

struct prefix {
    uint32_t keyspace;
    bool is_cut;
    char *text;
    size_t len;
    struct prefix_sums sums;
    uint64_t bytes_owed, keys_owed;
    uint32_t heap_at;
    uint32_t next; /* of its bucket: index + 1, 0 = the last */
};

struct prefixes {
    struct prefix *list;
    uint32_t count, cap;
    uint32_t *heap; /* indexes; that with the fewest bytes first */
    uint32_t *buckets;
    uint32_t bucket_count;
    uint64_t bytes_lost,
        keys_lost; /* the most that one without a counter may have; 0 = there is none */
};

void prefixes_init(struct prefixes *p, uint32_t counters);
void prefixes_fini(struct prefixes *p);
/* Adds what is known of some keys. */
void prefixes_add(struct prefixes *p, uint32_t keyspace, struct bytes text,
                  const struct prefix_sums *sums);
void prefix_sums_add(struct prefix_sums *to, const struct prefix_sums *sums);
struct bytes prefix_text(const struct prefix *x);
uint64_t prefix_bytes_at_most(const struct prefix *x);
/* The counters in order, the most bytes first; nothing may be added behind it. */
void prefixes_sort(struct prefixes *p);
/* What stands in front of the first delimiter; false: there is none. */
bool prefix_of(struct bytes key, struct bytes delimiter, struct bytes *out);

#endif
