/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * table_ref: how a table refers to its pages and nodes. For table.c (one key) and table_walk.c (all of them).
 */
#ifndef DC_STORE_TABLE_REF_H
#define DC_STORE_TABLE_REF_H

#include "server/base/crypto.h"
#include "server/base/mem.h"
#include "server/store/table.h"

#define ADDRESS_MASK ((uint64_t)0x0000ffffffffffc0)
#define NODE_BIT     ((uint64_t)1)

struct node {
    struct table child[NODE_FANOUT];
};

static inline uint64_t ref_word(const struct table *t) {
    return atomic_load_explicit(&t->word, memory_order_relaxed);
}

static inline bool ref_is_node(uint64_t word) {
    return (word & NODE_BIT) != 0;
}

static inline struct node *ref_node(uint64_t word) {
    return (struct node *)(uintptr_t)(word & ADDRESS_MASK);
}

static inline struct line *ref_lines(uint64_t word) {
    return (struct line *)(uintptr_t)(word & ADDRESS_MASK);
}

static inline uint32_t ref_count_lines(uint64_t word) {
    return (uint32_t)(word >> 48);
}

static inline void ref_set(struct table *t, const void *ptr, uint32_t lines, uint64_t node_bit) {
    atomic_store_explicit(&t->word, (uint64_t)(uintptr_t)ptr | (uint64_t)lines << 48 | node_bit,
                          memory_order_relaxed);
}

static inline uint32_t count_of(const struct table *t) {
    return atomic_load_explicit(&t->count, memory_order_relaxed);
}

static inline void count_add(struct table *t, uint32_t n) {
    atomic_store_explicit(&t->count, count_of(t) + n, memory_order_relaxed);
}

static inline uint32_t due_get(const struct table *t) {
    return atomic_load_explicit(&t->due, memory_order_relaxed);
}

static inline void due_set(struct table *t, uint32_t due) {
    atomic_store_explicit(&t->due, due, memory_order_relaxed);
}

static inline uint32_t tag_shift(uint32_t depth) {
    return HASH_BITS - 16 - NODE_BITS * depth;
}

static inline uint32_t tag_of(uint64_t hash, uint32_t depth) {
    return (uint32_t)(hash >> tag_shift(depth)) & 0xffff;
}

static inline uint32_t child_of(uint64_t hash, uint32_t depth) {
    return (uint32_t)(hash >> (HASH_BITS - NODE_BITS * (depth + 1))) & (NODE_FANOUT - 1);
}

/* The page of 'hash' and its depth. */
static inline const struct table *page_of(const struct table *t, uint64_t hash, uint32_t *depth) {
    *depth = 0;
    while (dc_unlikely(ref_is_node(ref_word(t)))) {
        t = &ref_node(ref_word(t))->child[child_of(hash, (*depth)++)];
    }
    return t;
}

static inline uint64_t entry_hash(const struct entry *e, const uint8_t *seed) {
    return crypto_hash(entry_key(e), seed) & (HASH_END - 1);
}

/* With the pages of its children, none of which is a node. */
static inline void node_destroy(struct node *node) {
    for (uint32_t c = 0; c < NODE_FANOUT; c++) {
        uint64_t word = ref_word(&node->child[c]);
        dc_assert(!ref_is_node(word));
        if (word != 0) {
            page_destroy(ref_lines(word), ref_count_lines(word));
        }
    }
    mem_free_aligned(node, sizeof(struct line), sizeof(*node));
}

#endif
