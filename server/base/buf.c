/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/buf.h"

#include "server/base/assert.h"
#include "server/base/mem.h"

#include <stdint.h>
#include <stdio.h>

enum { BUF_MIN_CAP = 64 };

void buf_init(struct buf *b, size_t limit) {
    *b = (struct buf){.limit = limit};
}

void buf_fini(struct buf *b) {
    mem_free(b->ptr);
    *b = (struct buf){.limit = b->limit};
}

/* Doubles, so that appending byte by byte stays linear, but never beyond the limit. */
static size_t next_cap(const struct buf *b, size_t need) {
    size_t cap = b->cap < BUF_MIN_CAP ? BUF_MIN_CAP : b->cap;
    while (cap < need) {
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    }
    return b->limit != 0 && cap > b->limit ? b->limit : cap;
}

enum dc_err buf_reserve(struct buf *b, size_t len) {
    dc_debug_assert(b->len <= b->cap);
    if (b->cap - b->len >= len) {
        return DC_OK;
    }
    size_t max = b->limit != 0 ? b->limit : SIZE_MAX;
    if (len > max - b->len) {
        return DC_ELIMIT;
    }
    size_t cap = next_cap(b, b->len + len);
    char *ptr = mem_realloc(b->ptr, cap);
    if (ptr == NULL) {
        return DC_ENOMEM;
    }
    b->ptr = ptr;
    b->cap = cap;
    return DC_OK;
}

bool buf_grow(struct buf *b, size_t len) {
    if (buf_reserve(b, len) != DC_OK) {
        b->failed = true;
        return false;
    }
    return true;
}

void buf_reset(struct buf *b, size_t keep_cap) {
    if (b->cap > keep_cap) {
        buf_fini(b);
    }
    b->len = 0;
    b->failed = false;
}

void buf_consume(struct buf *b, size_t len) {
    dc_assert(len <= b->len);
    b->len -= len;
    if (b->len > 0 && len > 0) {
        memmove(b->ptr, b->ptr + len, b->len);
    }
}

void buf_printf(struct buf *b, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    buf_vprintf(b, fmt, args);
    va_end(args);
}

/* By way of a text of its own, because vsnprintf wants room for a NUL that the limit may not have. */
void buf_vprintf(struct buf *b, const char *fmt, va_list args) {
    char small[256];
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(small, sizeof(small), fmt, args);
    dc_assert(len >= 0);
    if ((size_t)len < sizeof(small)) {
        buf_append(b, small, (size_t)len);
    } else {
        char *large = mem_alloc((size_t)len + 1);
        if (large == NULL) {
            b->failed = true;
        } else {
            vsnprintf(large, (size_t)len + 1, fmt, again);
            buf_append(b, large, (size_t)len);
            mem_free(large);
        }
    }
    va_end(again);
}
