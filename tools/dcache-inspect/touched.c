/* SPDX-License-Identifier: BSD-3-Clause */
#include "tools/dcache-inspect/touched.h"

#include "server/base/assert.h"
#include "server/base/mem.h"
#include "server/base/sum.h"

enum { TABLE_MIN = 64 };

void touched_fini(struct touched_set *s) {
    mem_free(s->keys);
    mem_free(s->effects);
    mem_free(s->table);
    *s = (struct touched_set){.keys = NULL};
}

void touched_clear(struct touched_set *s) {
    s->key_count = 0;
    s->effect_count = 0;
    if (s->table_size > 0) {
        memset(s->table, 0, s->table_size * sizeof(*s->table));
    }
}

static void *grown(void *array, uint32_t count, uint32_t *cap, size_t size) {
    if (count < *cap) {
        return array;
    }
    *cap = *cap == 0 ? 16 : *cap * 2;
    return mem_must_realloc(array, *cap * size);
}

/* The place of the key in the table, or the free one where it belongs. */
static uint32_t *place_of(const struct touched_set *s, uint32_t keyspace, struct bytes key) {
    uint32_t mask = s->table_size - 1;
    for (uint32_t at = (uint32_t)sum64(key.ptr, key.len, keyspace) & mask;; at = (at + 1) & mask) {
        uint32_t *place = &s->table[at];
        const struct touched *t = &s->keys[*place - 1];
        if (*place == 0 || (t->keyspace == keyspace && bytes_equal(t->key, key))) {
            return place;
        }
    }
}

static void rehash(struct touched_set *s) {
    s->table_size = s->table_size == 0 ? TABLE_MIN : s->table_size * 2;
    s->table = mem_must_realloc(s->table, s->table_size * sizeof(*s->table));
    memset(s->table, 0, s->table_size * sizeof(*s->table));
    for (uint32_t i = 0; i < s->key_count; i++) {
        *place_of(s, s->keys[i].keyspace, s->keys[i].key) = i + 1;
    }
}

void touched_add(struct touched_set *s, const struct effect_view *e) {
    if (s->key_count * 2 >= s->table_size) {
        rehash(s);
    }
    s->effects = grown(s->effects, s->effect_count, &s->effect_cap, sizeof(*s->effects));
    uint32_t index = s->effect_count++;
    s->effects[index] = (struct touched_effect){*e, TOUCHED_END};
    uint32_t *place = place_of(s, e->keyspace, e->key);
    if (*place != 0) {
        struct touched *t = &s->keys[*place - 1];
        s->effects[t->last].next = index;
        t->last = index;
        return;
    }
    s->keys = grown(s->keys, s->key_count, &s->key_cap, sizeof(*s->keys));
    s->keys[s->key_count++] = (struct touched){e->keyspace, e->key, index, index, false};
    *place = s->key_count;
}

struct touched *touched_find(const struct touched_set *s, uint32_t keyspace, struct bytes key) {
    if (s->key_count == 0) {
        return NULL;
    }
    uint32_t *place = place_of(s, keyspace, key);
    return *place != 0 ? &s->keys[*place - 1] : NULL;
}
