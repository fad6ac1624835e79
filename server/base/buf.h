/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * buf: a growable, bounded run of bytes.
 *
 * Invariants: len <= cap <= limit (limit 0 = unbounded). Appending never moves what the caller addressed by
 *   offset, but may move it in memory: pointers into a buf die with the next append.
 * Failure: buf_reserve() returns DC_ENOMEM or DC_ELIMIT and leaves the content as it was. The appending
 *   calls set the sticky flag 'failed' instead, so that a writer of many pieces checks once at the end.
 * Threads: one owner.
 */
#ifndef DC_BASE_BUF_H
#define DC_BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "server/base/bytes.h"
#include "server/base/err.h"

struct buf {
    char *ptr;
    size_t len;
    size_t cap;
    size_t limit;
    bool failed;
};

void buf_init(struct buf *b, size_t limit);
void buf_fini(struct buf *b);

/* Room for 'len' more bytes. Errors: DC_ENOMEM, DC_ELIMIT. */
DC_MUST enum dc_err buf_reserve(struct buf *b, size_t len);

/* Slow half of the inline calls below. Returns false and sets 'failed' when there is no room to be had. */
bool buf_grow(struct buf *b, size_t len);

/* Forgets the content and 'failed'; a buffer that has grown beyond 'keep_cap' gives all its memory back. */
void buf_reset(struct buf *b, size_t keep_cap);

/* Drops the first 'len' bytes. */
void buf_consume(struct buf *b, size_t len);

void buf_printf(struct buf *b, const char *fmt, ...) DC_PRINTF(2, 3);
void buf_vprintf(struct buf *b, const char *fmt, va_list args) DC_PRINTF(2, 0);

/* Returns 'len' writable bytes at the end, not yet counted in b->len, or NULL. */
static inline char *buf_room(struct buf *b, size_t len) {
    if (b->cap - b->len < len && !buf_grow(b, len)) {
        return NULL;
    }
    return b->ptr + b->len;
}

static inline void buf_append(struct buf *b, const void *ptr, size_t len) {
    if (len == 0) {
        return;
    }
    char *to = buf_room(b, len);
    if (to != NULL) {
        memcpy(to, ptr, len);
        b->len += len;
    }
}

static inline void buf_append_bytes(struct buf *b, struct bytes s) {
    buf_append(b, s.ptr, s.len);
}

static inline void buf_append_str(struct buf *b, const char *s) {
    buf_append(b, s, strlen(s));
}

static inline struct bytes buf_bytes(const struct buf *b) {
    return bytes_of(b->ptr, b->len);
}

#endif
