/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * entry: one key and its value, in one allocation.
 *
 *   0        8     9      11    12
 *   | vf     |freq |stamp |klen |[klen32] [expiry 5|8] [vlen 1|4] key  value
 *
 * Purpose: the packed form of what the store keeps. vf = version << 8 | flags. Fields in brackets exist
 *   only where the flags say so. A blob's value is the pointer to it, an integer's the 1, 2, 4 or 8 bytes that it needs.
 * Invariants: I1 the layout is a function of (flags, klen, vlen); entry_size() finds the allocated length
 *   again. I2 a version of 0 means: written by a frame that isn't committed yet.
 * Threads: the slot lock guards every byte. Ownership: the table that points to it.
 * Checklist: whoever adds an encoding extends entry_value(), entry_size(), value_len() and the copy in cmd_key.c.
 */
#ifndef DC_STORE_ENTRY_H
#define DC_STORE_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/assert.h"
#include "server/base/bytes.h"
#include "server/base/codec.h"
#include "server/base/num.h"
#include "server/store/blob.h"

#define EXPIRY_NONE ((int64_t)-1)
/* Origin of the five-byte expiry: 2024-01-01. Forty bits of milliseconds reach to 2058. */
#define EXPIRY_BASE_MS ((int64_t)1704067200000)

/* How the value is kept. Collections will add theirs. */
enum value_kind {
    VALUE_STR, /* bytes, as they were set */
    VALUE_RAW, /* bytes that a command changed in place (OBJECT ENCODING says raw) */
    VALUE_INT, /* an integer in its canonical decimal */
    VALUE_BLOB /* BLOB_MIN_LEN bytes or more, counted */
};

enum {
    ENTRY_KIND_MASK = 0x07,
    ENTRY_EXPIRY5 = 0x08, /* expiry in five bytes since EXPIRY_BASE_MS */
    ENTRY_EXPIRY8 = 0x10, /* expiry in eight bytes */
    ENTRY_WIDE = 0x20,    /* vlen has four bytes */
    ENTRY_KLEN_LONG = 255
};

struct entry {
    uint64_t vf;
    uint8_t freq;
    uint8_t stamp[2];
    uint8_t klen;
    uint8_t tail[];
};

enum { ENTRY_HEAD_LEN = 12, ENTRY_ALIGN = 16 };

/* A value on its way in or out: a view, except that a blob may carry a reference (the user says so). */
struct value {
    enum value_kind kind;
    struct bytes str;  /* STR, RAW */
    int64_t num;       /* INT */
    struct blob *blob; /* BLOB */
};

/* The view of a string as SET keeps it: an integer where the text is a canonical one. */
struct value value_of(struct bytes text);

static inline struct value value_int(int64_t num) {
    return (struct value){.kind = VALUE_INT, .num = num};
}

static inline struct value value_raw(struct bytes text) {
    return (struct value){.kind = VALUE_RAW, .str = text};
}

/* Length of the value as a string. */
size_t value_len(const struct value *v);

/* The value as bytes. 'scratch' (NUM_I64_TEXT_MAX) holds the digits of an integer. */
struct bytes value_bytes(const struct value *v, char *scratch);

/* What an entry is made of. */
struct entry_spec {
    struct bytes key;
    struct value value;
    int64_t expiry_ms;
};

/* Length of the allocation that the spec needs. */
size_t entry_spec_size(const struct entry_spec *spec);

/* Allocates and fills an entry; a blob's reference moves in. NULL when there is no memory. */
struct entry *entry_create(const struct entry_spec *spec);

/* Writes the spec over an entry of the same allocated length; version, freq and stamp stay. The key of the
 * spec may be the entry's own. */
void entry_fill(struct entry *e, const struct entry_spec *spec);

/* Frees it; releases its blob. */
void entry_destroy(struct entry *e);

size_t entry_size(const struct entry *e);
void entry_value(const struct entry *e, struct value *out);

/* Sets the expiry of an entry that has an expiry field wide enough; else returns false. */
bool entry_set_expiry(struct entry *e, int64_t expiry_ms);

/* Where a STR, RAW or INT value begins. */
char *entry_value_ptr(struct entry *e);

/* Whether the value can be written to with a resulting length of 'len' without another allocation. */
bool entry_can_write(const struct entry *e, size_t len);
/* Writes bytes at an offset, zeros before it; the value is raw afterwards. Needs entry_can_write(). */
void entry_write(struct entry *e, uint64_t offset, struct bytes bytes);

static inline uint32_t entry_flags(const struct entry *e) {
    return (uint32_t)(e->vf & 0xff);
}

static inline enum value_kind entry_kind(const struct entry *e) {
    return (enum value_kind)(e->vf & ENTRY_KIND_MASK);
}

static inline uint64_t entry_version(const struct entry *e) {
    return e->vf >> 8;
}

static inline void entry_set_version(struct entry *e, uint64_t version) {
    e->vf = version << 8 | (e->vf & 0xff);
}

static inline void entry_set_kind(struct entry *e, enum value_kind kind) {
    e->vf = (e->vf & ~(uint64_t)ENTRY_KIND_MASK) | (uint64_t)kind;
}

static inline bool entry_has_expiry(const struct entry *e) {
    return (e->vf & (ENTRY_EXPIRY5 | ENTRY_EXPIRY8)) != 0;
}

static inline int64_t entry_expiry(const struct entry *e) {
    const uint8_t *at = e->tail + (e->klen == ENTRY_KLEN_LONG ? 4 : 0);
    if (e->vf & ENTRY_EXPIRY5) {
        return EXPIRY_BASE_MS + (int64_t)(get_u32(at) | (uint64_t)at[4] << 32);
    }
    return (e->vf & ENTRY_EXPIRY8) ? (int64_t)get_u64(at) : EXPIRY_NONE;
}

static inline bool entry_is_expired(const struct entry *e, int64_t now_ms) {
    return dc_unlikely(entry_has_expiry(e)) && entry_expiry(e) <= now_ms;
}

static inline uint16_t entry_stamp(const struct entry *e) {
    return get_u16(e->stamp);
}

static inline void entry_set_stamp(struct entry *e, uint16_t stamp) {
    put_u16(e->stamp, stamp);
}

/* Bytes between tail and key. */
static inline uint32_t entry_prefix_len(const struct entry *e) {
    uint32_t flags = entry_flags(e);
    uint32_t len = e->klen == ENTRY_KLEN_LONG ? 4 : 0;
    len += (flags & ENTRY_EXPIRY5) ? 5 : (flags & ENTRY_EXPIRY8) ? 8 : 0;
    if ((flags & ENTRY_KIND_MASK) != VALUE_BLOB) {
        len += (flags & ENTRY_WIDE) ? 4 : 1;
    }
    return len;
}

static inline struct bytes entry_key(const struct entry *e) {
    size_t len = dc_likely(e->klen != ENTRY_KLEN_LONG) ? e->klen : get_u32(e->tail);
    return bytes_of((const char *)e->tail + entry_prefix_len(e), len);
}

#endif
