/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/store/blob.h"

#include "server/base/assert.h"
#include "server/base/mem.h"
#include "server/base/sum.h"

struct blob *blob_create(size_t len, size_t cap) {
    dc_assert(len <= cap);
    size_t size = mem_good_size(sizeof(struct blob) + cap);
    struct blob *b = mem_alloc(size);
    if (b == NULL) {
        return NULL;
    }
    atomic_init(&b->refs, 1);
    atomic_init(&b->sum, 0);
    b->len = len;
    b->cap = size - sizeof(*b);
    return b;
}

struct blob *blob_from(struct bytes content) {
    struct blob *b = blob_create(content.len, content.len);
    if (b != NULL) {
        memcpy(b->data, content.ptr, content.len);
        (void)blob_sum(b);
    }
    return b;
}

uint64_t blob_sum(struct blob *b) {
    uint64_t sum = atomic_load_explicit(&b->sum, memory_order_relaxed);
    if (sum == 0) {
        sum = sum64(b->data, b->len, 0);
        atomic_store_explicit(&b->sum, sum, memory_order_relaxed);
    }
    return sum;
}

void blob_forget_sum(struct blob *b) {
    atomic_store_explicit(&b->sum, 0, memory_order_relaxed);
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
