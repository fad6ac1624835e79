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
    s->free = 0;
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

static bool is_whole(const struct effect_view *e) {
    return e->kind == MUT_PUT || e->kind == MUT_DEL || (e->kind == MUT_WRITE && e->prev == 0);
}

/* Whether the effect was made for what the one before it left. */
static bool fits(const struct touched_effect *before, const struct effect_view *e) {
    return is_whole(e) ||
           (before->kind != MUT_DEL && (e->prev == before->version || e->prev == PREV_FRAME));
}

/* Leaves out what stands behind 'from', up to the last one. */
static void leave_out_behind(struct touched_set *s, struct touched *t, uint32_t from) {
    if (t->last != from) {
        s->effects[t->last].next = s->free - 1; /* TOUCHED_END when there is none */
        s->free = s->effects[from].next + 1;
        s->effects[from].next = TOUCHED_END;
        t->last = from;
    }
}

static uint32_t new_effect(struct touched_set *s) {
    if (s->free != 0) {
        uint32_t index = s->free - 1;
        s->free = s->effects[index].next + 1;
        return index;
    }
    s->effects = grown(s->effects, s->effect_count, &s->effect_cap, sizeof(*s->effects));
    return s->effect_count++;
}

/* What an effect was made for, or those that it stands for. */
static uint64_t joined(const struct touched_effect *e) {
    struct effect_view view;
    touched_view(e, 0, &view);
    return e->joins != 0 ? e->joins : view.prev;
}

/* Another effect of a known key. */
static void append(struct touched_set *s, struct touched *t, const struct touched_effect *made,
                   const struct effect_view *e) {
    struct touched_effect new = *made;
    struct touched_effect *last = &s->effects[t->last];
    t->odd |= !fits(last, e);
    if (!t->odd && is_whole(e)) {
        leave_out_behind(s, t, t->first); /* I1 */
    } else if (!t->odd && t->last != t->first && e->kind == MUT_EXPIRE &&
               last->kind == MUT_EXPIRE) {
        new.joins = joined(last);
        *last = new;
        return;
    }
    uint32_t index = new_effect(s);
    s->effects[index] = new;
    s->effects[t->last].next = index;
    t->last = index;
}

void touched_add(struct touched_set *s, const struct effect_view *e) {
    struct touched_effect made = {.ptr = e->data.ptr + e->data.len - e->len, /* data comes last */
                                  .version = e->version,
                                  .len = e->len,
                                  .next = TOUCHED_END,
                                  .kind = e->kind};
    if (s->key_count * 2 >= s->table_size) {
        rehash(s);
    }
    uint32_t *place = place_of(s, e->keyspace, e->key);
    if (*place != 0) {
        append(s, &s->keys[*place - 1], &made, e);
        return;
    }
    uint32_t index = new_effect(s);
    s->effects[index] = made;
    s->keys = grown(s->keys, s->key_count, &s->key_cap, sizeof(*s->keys));
    s->keys[s->key_count++] =
        (struct touched){.keyspace = e->keyspace, .key = e->key, .first = index, .last = index};
    *place = s->key_count;
}

void touched_view(const struct touched_effect *e, uint64_t found, struct effect_view *out) {
    bool is_good = effect_decode(e->ptr, e->len, 0, e->version - e->len, out);
    dc_assert(is_good);                       /* it was when it was added */
    if (e->joins != 0 && found >= e->joins) { /* one of those that were left out, perhaps */
        out->prev = found;
    }
}

struct touched *touched_find(const struct touched_set *s, uint32_t keyspace, struct bytes key) {
    if (s->key_count == 0) {
        return NULL;
    }
    uint32_t *place = place_of(s, keyspace, key);
    return *place != 0 ? &s->keys[*place - 1] : NULL;
}
