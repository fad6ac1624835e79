/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * blob: a large value, counted, so that it can be sent and copied outside the slot lock.
 *
 * Invariants: I1 the bytes of a blob with more than one reference don't change; I2 len <= cap.
 * Threads: references are atomic; writing needs the slot lock and the only reference.
 * Ownership: blob_create() returns the first reference; blob_release() of the last one frees.
 */
#ifndef DC_STORE_BLOB_H
#define DC_STORE_BLOB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/base/bytes.h"

struct blob {
    _Atomic uint32_t refs;
    _Atomic uint64_t sum; /* of the content, 0 = not known */
    size_t len;
    size_t cap;
    char data[];
};

/* NULL when there is no memory. The content isn't set. */
struct blob *blob_create(size_t len, size_t cap);
struct blob *blob_from(struct bytes content);
struct blob *blob_acquire(struct blob *b);
void blob_release(struct blob *b);

/* Checksum of the content; computed at the first call, or by blob_from(). Whoever writes to a blob forgets it. */
uint64_t blob_sum(struct blob *b);
void blob_forget_sum(struct blob *b);

/* True when the caller's reference is the only one. */
static inline bool blob_is_sole(const struct blob *b) {
    /* pairs with the release in blob_release */
    return atomic_load_explicit(&b->refs, memory_order_acquire) == 1;
}

#endif
