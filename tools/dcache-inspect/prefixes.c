/* SPDX-License-Identifier: BSD-3-Clause */
#include "tools/dcache-inspect/prefixes.h"

#include "server/base/assert.h"
#include "server/base/mem.h"
#include "server/base/sum.h"

#include <stdlib.h>

void prefixes_init(struct prefixes *p, uint32_t counters) {
    dc_assert(counters > 0);
    *p = (struct prefixes){.cap = counters, .bucket_count = 2 * counters};
    p->list = mem_must_zalloc(p->cap * sizeof(*p->list));
    p->heap = mem_must_zalloc(p->cap * sizeof(*p->heap));
    p->buckets = mem_must_zalloc(p->bucket_count * sizeof(*p->buckets));
}

void prefixes_fini(struct prefixes *p) {
    for (uint32_t i = 0; i < p->count; i++) {
        mem_free(p->list[i].text);
    }
    mem_free(p->list);
    mem_free(p->heap);
    mem_free(p->buckets);
    *p = (struct prefixes){.list = NULL};
}

bool prefix_of(struct bytes key, struct bytes delimiter, struct bytes *out) {
    const char *at = key.len > 0 ? memmem(key.ptr, key.len, delimiter.ptr, delimiter.len) : NULL;
    if (at != NULL) {
        *out = bytes_of(key.ptr, (size_t)(at - key.ptr));
    }
    return at != NULL;
}

void prefix_sums_add(struct prefix_sums *to, const struct prefix_sums *sums) {
    to->keys += sums->keys;
    to->with_expiry += sums->with_expiry;
    to->key_bytes += sums->key_bytes;
    to->value_bytes += sums->value_bytes;
}

struct bytes prefix_text(const struct prefix *x) {
    return bytes_of(x->text, x->len);
}

uint64_t prefix_bytes_at_most(const struct prefix *x) {
    return x->sums.key_bytes + x->sums.value_bytes + x->bytes_owed;
}

/* --- the heap ------------------------------------------------------------------------------------------------------------ */

static uint64_t weight(const struct prefixes *p, uint32_t at) {
    return prefix_bytes_at_most(&p->list[p->heap[at]]);
}

static void swap(struct prefixes *p, uint32_t a, uint32_t b) {
    uint32_t index = p->heap[a];
    p->heap[a] = p->heap[b];
    p->heap[b] = index;
    p->list[p->heap[a]].heap_at = a;
    p->list[p->heap[b]].heap_at = b;
}

static void sift_up(struct prefixes *p, uint32_t at) {
    while (at > 0 && weight(p, at) < weight(p, (at - 1) / 2)) {
        swap(p, at, (at - 1) / 2);
        at = (at - 1) / 2;
    }
}

static void sift_down(struct prefixes *p, uint32_t at) {
    for (;;) {
        uint32_t least = at;
        for (uint32_t child = 2 * at + 1; child <= 2 * at + 2 && child < p->count; child++) {
            least = weight(p, child) < weight(p, least) ? child : least;
        }
        if (least == at) {
            return;
        }
        swap(p, at, least);
        at = least;
    }
}

/* --- counters ------------------------------------------------------------------------------------------------------------ */

static uint32_t *bucket_of(struct prefixes *p, uint32_t keyspace, struct bytes text) {
    return &p->buckets[sum64(text.ptr, text.len, keyspace) % p->bucket_count];
}

static struct prefix *find(struct prefixes *p, uint32_t keyspace, struct bytes text) {
    for (uint32_t i = *bucket_of(p, keyspace, text); i != 0; i = p->list[i - 1].next) {
        struct prefix *x = &p->list[i - 1];
        if (x->keyspace == keyspace && bytes_equal(prefix_text(x), text)) {
            return x;
        }
    }
    return NULL;
}

/* Takes the counter of the one that may have the fewest bytes. */
static struct prefix *evict(struct prefixes *p) {
    uint32_t index = p->heap[0];
    struct prefix *x = &p->list[index];
    uint32_t *link = bucket_of(p, x->keyspace, prefix_text(x));
    while (*link != index + 1) {
        link = &p->list[*link - 1].next;
    }
    *link = x->next;
    uint64_t keys = x->sums.keys + x->keys_owed;
    p->bytes_lost = prefix_bytes_at_most(x); /* I2: the least of the heap never falls */
    p->keys_lost = keys > p->keys_lost ? keys : p->keys_lost;
    mem_free(x->text);
    return x;
}

/* With a sum of bytes that is the least of all, or none: its place in the heap is that of the old one, or the last. */
static struct prefix *admit(struct prefixes *p, uint32_t keyspace, struct bytes text) {
    bool is_full = p->count == p->cap;
    struct prefix *x = is_full ? evict(p) : &p->list[p->count++];
    uint32_t index = (uint32_t)(x - p->list);
    uint32_t *bucket = bucket_of(p, keyspace, text);
    char *copy = mem_must_alloc(text.len + 1);
    if (text.len > 0) {
        memcpy(copy, text.ptr, text.len);
    }
    *x = (struct prefix){.keyspace = keyspace,
                         .text = copy,
                         .len = text.len,
                         .bytes_owed = p->bytes_lost,
                         .keys_owed = p->keys_lost,
                         .heap_at = is_full ? 0 : index,
                         .next = *bucket};
    *bucket = index + 1;
    if (!is_full) {
        p->heap[index] = index;
        sift_up(p, index);
    }
    return x;
}

void prefixes_add(struct prefixes *p, uint32_t keyspace, struct bytes text,
                  const struct prefix_sums *sums) {
    bool is_cut = text.len > PREFIX_LEN_MAX;
    text.len = is_cut ? PREFIX_LEN_MAX : text.len;
    struct prefix *x = find(p, keyspace, text);
    x = x != NULL ? x : admit(p, keyspace, text);
    x->is_cut |= is_cut;
    prefix_sums_add(&x->sums, sums);
    sift_down(p, x->heap_at);
}

static int most_bytes_first(const void *a, const void *b) {
    const struct prefix *x = a;
    const struct prefix *y = b;
    uint64_t x_bytes = x->sums.key_bytes + x->sums.value_bytes;
    uint64_t y_bytes = y->sums.key_bytes + y->sums.value_bytes;
    if (x_bytes != y_bytes) {
        return x_bytes > y_bytes ? -1 : 1;
    }
    if (x->keyspace != y->keyspace) {
        return x->keyspace < y->keyspace ? -1 : 1;
    }
    size_t len = x->len < y->len ? x->len : y->len;
    int order = len > 0 ? memcmp(x->text, y->text, len) : 0;
    return order != 0 ? order : (x->len > y->len) - (x->len < y->len);
}

void prefixes_sort(struct prefixes *p) {
    if (p->count > 0) {
        qsort(p->list, p->count, sizeof(*p->list), most_bytes_first);
    }
}
