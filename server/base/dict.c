/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/dict.h"

#include "server/base/assert.h"
#include "server/base/crypto.h"
#include "server/base/mem.h"

/* Per added node: at most so many buckets that had nodes are emptied, and so many looked at. */
enum { SIZE_MIN = 4, MOVE_BUCKETS = 4, LOOK_BUCKETS = 64, SPARSE = 16 };

void dict_init(struct dict *d, const uint8_t *seed) {
    *d = (struct dict){.seed = seed};
}

static void table_free(struct dict_table *t) {
    mem_free(t->buckets);
    *t = (struct dict_table){0};
}

void dict_fini(struct dict *d) {
    table_free(&d->table);
    table_free(&d->old);
    d->count = 0;
    d->moved = 0;
}

uint64_t dict_hash(const struct dict *d, struct bytes name) {
    return crypto_hash(name, d->seed);
}

static struct dict_node **bucket_of(const struct dict_table *t, uint64_t hash) {
    return &t->buckets[hash & (t->size - 1)];
}

static struct dict_node *table_find(const struct dict_table *t, struct bytes name, uint64_t hash) {
    if (t->size == 0) {
        return NULL;
    }
    struct dict_node *node = *bucket_of(t, hash);
    while (node != NULL && (node->hash != hash || !bytes_equal(node->name, name))) {
        node = node->next;
    }
    return node;
}

struct dict_node *dict_find(const struct dict *d, struct bytes name, uint64_t hash) {
    struct dict_node *node = table_find(&d->table, name, hash);
    return node != NULL ? node : table_find(&d->old, name, hash);
}

static void table_push(const struct dict_table *t, struct dict_node *node) {
    struct dict_node **bucket = bucket_of(t, node->hash);
    node->next = *bucket;
    *bucket = node;
}

/* Empties a few buckets of the old table. */
static void move_some(struct dict *d) {
    size_t emptied = 0;
    for (size_t i = 0; i < LOOK_BUCKETS && emptied < MOVE_BUCKETS && d->moved < d->old.size; i++) {
        struct dict_node *node = d->old.buckets[d->moved];
        d->old.buckets[d->moved++] = NULL;
        emptied += node != NULL;
        while (node != NULL) {
            struct dict_node *next = node->next;
            table_push(&d->table, node);
            node = next;
        }
    }
    if (d->moved == d->old.size) {
        table_free(&d->old);
        d->moved = 0;
    }
}

/* Begins to resize a table that has become full, or nearly empty. */
static void resize_begin(struct dict *d) {
    size_t size = SIZE_MIN;
    while (size < 2 * d->count) {
        size *= 2;
    }
    d->old = d->table;
    d->moved = 0;
    d->table.size = size;
    d->table.buckets = mem_must_zalloc(size * sizeof(struct dict_node *));
}

void dict_add(struct dict *d, struct dict_node *node) {
    dc_debug_assert(dict_find(d, node->name, node->hash) == NULL); /* I3 */
    if (d->old.size > 0) {
        move_some(d);
    } else if (d->count >= d->table.size ||
               (d->table.size > SIZE_MIN && d->count < d->table.size / SPARSE)) {
        resize_begin(d);
    }
    table_push(&d->table, node);
    d->count++;
}

static bool table_remove(const struct dict_table *t, const struct dict_node *node) {
    if (t->size == 0) {
        return false;
    }
    struct dict_node **at = bucket_of(t, node->hash);
    while (*at != NULL && *at != node) {
        at = &(*at)->next;
    }
    if (*at == NULL) {
        return false;
    }
    *at = node->next;
    return true;
}

void dict_remove(struct dict *d, struct dict_node *node) {
    bool removed = table_remove(&d->table, node) || table_remove(&d->old, node);
    dc_assert(removed);
    node->next = NULL;
    if (--d->count == 0) {
        dict_fini(d); /* I2 */
    }
}

struct dict_node *dict_walk_next(const struct dict *d, struct dict_walk *walk) {
    struct dict_node *node = walk->next;
    while (node == NULL && walk->bucket < d->table.size + d->old.size) {
        size_t at = walk->bucket++;
        node = at < d->old.size ? d->old.buckets[at] : d->table.buckets[at - d->old.size];
    }
    walk->next = node == NULL ? NULL : node->next;
    return node;
}
