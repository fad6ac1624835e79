/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dict: a hash table of byte strings whose nodes lie in the caller's structs.
 *
 * Purpose: look-up by name of things that somebody else owns. A node may be in one dict at a time; two dicts with the
 *   same seed can share hashes, so a name is hashed once.
 * Invariants: I1 the table is resized in dict_add() only, a few buckets at a time, so no call takes long and a walk may
 *   remove what it was just shown; I2 an empty dict owns no memory; I3 names are unique.
 * Threads: one owner. Ownership: node and name are the caller's and outlive their stay in the dict.
 * Failure: none; memory for buckets is bookkeeping (mem_must_*).
 */
#ifndef DC_BASE_DICT_H
#define DC_BASE_DICT_H

#include <stddef.h>
#include <stdint.h>

#include "server/base/bytes.h"

struct dict_node {
    struct dict_node *next;
    uint64_t hash;
    struct bytes name;
};

struct dict_table {
    struct dict_node **buckets; /* NULL = none */
    size_t size;                /* a power of two, or 0 */
};

struct dict {
    const uint8_t *seed; /* HASH_SEED_LEN bytes */
    size_t count;
    size_t moved; /* buckets of 'old' that have been emptied */
    struct dict_table table;
    struct dict_table old; /* being emptied into 'table' */
};

/* 'seed' outlives the dict. */
void dict_init(struct dict *d, const uint8_t *seed);
/* The nodes are left to the caller. */
void dict_fini(struct dict *d);

uint64_t dict_hash(const struct dict *d, struct bytes name);

/* NULL = not there. 'hash' is dict_hash() of the name. */
struct dict_node *dict_find(const struct dict *d, struct bytes name, uint64_t hash);

/* Enters a node, of which name and hash are set. The name isn't there yet. */
void dict_add(struct dict *d, struct dict_node *node);

/* Removes a node that is there. */
void dict_remove(struct dict *d, struct dict_node *node);

/* A walk in no particular order; begins with all zero. Meanwhile nothing is added, and at most what the walk
 * returned last is removed. */
struct dict_walk {
    size_t bucket;
    struct dict_node *next;
};
struct dict_node *dict_walk_next(const struct dict *d, struct dict_walk *walk); /* NULL = the end */

#endif
