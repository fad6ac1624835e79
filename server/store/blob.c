/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/store/blob.h"

#include "server/base/assert.h"
#include "server/base/mem.h"

struct blob *blob_create(size_t len, size_t cap) {
    dc_assert(len <= cap);
    size_t size = mem_good_size(sizeof(struct blob) + cap);
    struct blob *b = mem_alloc(size);
    if (b == NULL) {
        return NULL;
    }
    atomic_init(&b->refs, 1);
    b->len = len;
    b->cap = size - sizeof(*b);
    return b;
}

struct blob *blob_from(struct bytes content) {
    struct blob *b = blob_create(content.len, content.len);
    if (b != NULL) {
        memcpy(b->data, content.ptr, content.len);
    }
    return b;
}

struct blob *blob_acquire(struct blob *b) {
    uint32_t before = atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    dc_assert(before > 0);
    return b;
}

void blob_release(struct blob *b) {
    if (b == NULL) {
        return;
    }
    /* pairs with the acquire in blob_is_sole and with itself */
    uint32_t before = atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel);
    dc_assert(before > 0);
    if (before == 1) {
        mem_free(b);
    }
}
