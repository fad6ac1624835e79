/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * store_check: the invariants of tables and roots, checked from outside with a second opinion on the layout.
 *
 * Threads: nobody else may use the store meanwhile.
 */
#ifndef TESTS_SUPPORT_STORE_CHECK_H
#define TESTS_SUPPORT_STORE_CHECK_H

#include "server/store/store_priv.h"

/* What a walk over the table found. */
struct table_facts {
    uint64_t entries;
    uint64_t volatiles;
    uint64_t displaced; /* not in their home lines */
    uint64_t nodes;
    uint64_t pages;
    uint64_t lines;
    uint32_t depth;
    uint64_t newest; /* version */
};

/* NULL when I1, I2, the counts and the hints are right, else what isn't. */
const char *table_check(const struct table *t, const uint8_t *seed, struct table_facts *out);

/* The same for every root, with the entries' slots and the counts of a root. Adds up the facts. */
const char *store_check(struct store *s, struct table_facts *out);

/* Sum over all keys, values, expiries and versions, whatever the tables look like. Expired entries count. */
uint64_t store_digest(struct store *s);

#endif
