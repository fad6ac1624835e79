/* SPDX-License-Identifier: BSD-3-Clause */
/* bytes: a view of bytes that somebody else owns. */
#ifndef DC_BASE_BYTES_H
#define DC_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

struct bytes {
    const char *ptr;
    size_t len;
};

/* A view of a string literal. */
#define BYTES(literal) ((struct bytes){"" literal, sizeof(literal) - 1})

static inline struct bytes bytes_of(const char *ptr, size_t len) {
    return (struct bytes){ptr, len};
}

static inline struct bytes bytes_str(const char *str) {
    return (struct bytes){str, strlen(str)};
}

static inline bool bytes_equal(struct bytes a, struct bytes b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* Compares with an ASCII word without regard to case: options and command names. */
static inline bool bytes_is(struct bytes a, const char *word) {
    return a.len == strlen(word) && strncasecmp(a.ptr, word, a.len) == 0;
}

#endif
