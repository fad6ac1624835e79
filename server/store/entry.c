/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/store/entry.h"

#include "server/base/limits.h"
#include "server/base/mem.h"

#include <stddef.h>

static_assert(offsetof(struct entry, tail) == ENTRY_HEAD_LEN, "the head has no padding");

struct value value_of(struct bytes text) {
    int64_t num;
    if (text.len > 0 && text.len < NUM_I64_TEXT_MAX && num_parse_i64(text, &num)) {
        return value_int(num);
    }
    return (struct value){.kind = VALUE_STR, .str = text};
}

static uint32_t int_width(int64_t num) {
    if (num == (int8_t)num) {
        return 1;
    }
    if (num == (int16_t)num) {
        return 2;
    }
    return num == (int32_t)num ? 4 : 8;
}

size_t value_len(const struct value *v) {
    char scratch[NUM_I64_TEXT_MAX];
    switch (v->kind) {
    case VALUE_STR:
    case VALUE_RAW:
        return v->str.len;
    case VALUE_INT:
        return num_format_i64(scratch, v->num);
    case VALUE_BLOB:
        return v->blob->len;
    }
    dc_unreachable();
}

struct bytes value_bytes(const struct value *v, char *scratch) {
    switch (v->kind) {
    case VALUE_STR:
    case VALUE_RAW:
        return v->str;
    case VALUE_INT:
        return bytes_of(scratch, num_format_i64(scratch, v->num));
    case VALUE_BLOB:
        return bytes_of(v->blob->data, v->blob->len);
    }
    dc_unreachable();
}

/* Flags and the lengths of the optional fields that follow from them. */
struct layout {
    uint32_t flags;
    uint32_t expiry_len;
    uint32_t vlen_len;
    size_t value_len; /* stored bytes */
    size_t total;
};

static struct layout layout_of(const struct entry_spec *spec) {
    struct layout l = {.flags = (uint32_t)spec->value.kind};
    if (spec->expiry_ms != EXPIRY_NONE) {
        int64_t since = spec->expiry_ms - EXPIRY_BASE_MS;
        bool fits = spec->expiry_ms >= EXPIRY_BASE_MS && since < (int64_t)1 << 40;
        l.flags |= fits ? ENTRY_EXPIRY5 : ENTRY_EXPIRY8;
        l.expiry_len = fits ? 5 : 8;
    }
    switch (spec->value.kind) {
    case VALUE_STR:
    case VALUE_RAW:
        l.value_len = spec->value.str.len;
        break;
    case VALUE_INT:
        l.value_len = int_width(spec->value.num);
        break;
    case VALUE_BLOB:
        l.value_len = sizeof(struct blob *);
        break;
    }
    if (spec->value.kind != VALUE_BLOB) {
        bool wide = l.value_len > UINT8_MAX;
        l.flags |= wide ? ENTRY_WIDE : 0;
        l.vlen_len = wide ? 4 : 1;
    }
    l.total = ENTRY_HEAD_LEN + (spec->key.len >= ENTRY_KLEN_LONG ? 4 : 0) + l.expiry_len +
              l.vlen_len + spec->key.len + l.value_len;
    return l;
}

size_t entry_spec_size(const struct entry_spec *spec) {
    return layout_of(spec).total;
}

static uint8_t *write_expiry(uint8_t *at, uint32_t flags, int64_t expiry_ms) {
    if (flags & ENTRY_EXPIRY5) {
        uint64_t since = (uint64_t)(expiry_ms - EXPIRY_BASE_MS);
        put_u32(at, (uint32_t)since);
        at[4] = (uint8_t)(since >> 32);
        return at + 5;
    }
    if (flags & ENTRY_EXPIRY8) {
        put_u64(at, (uint64_t)expiry_ms);
        return at + 8;
    }
    return at;
}

static void write_value(uint8_t *at, const struct layout *l, const struct value *v) {
    switch (v->kind) {
    case VALUE_STR:
    case VALUE_RAW:
        if (v->str.ptr != NULL && l->value_len > 0) { /* NULL: the caller writes the bytes */
            memmove(at, v->str.ptr, l->value_len);
        }
        return;
    case VALUE_INT:
        memcpy(at, &v->num, l->value_len);
        return;
    case VALUE_BLOB:
        memcpy(at, &v->blob, sizeof(v->blob));
        return;
    }
    dc_unreachable();
}

static void write_spec(struct entry *e, const struct layout *l, const struct entry_spec *spec) {
    bool long_key = spec->key.len >= ENTRY_KLEN_LONG;
    const char *key = spec->key.ptr;
    uint32_t prefix = (long_key ? 4 : 0) + l->expiry_len + l->vlen_len;
    uint8_t *key_at = e->tail + prefix;
    /* The key first: it may lie in this very entry, where the fields before it are about to change width. */
    if (spec->key.len > 0 && key != (const char *)key_at) {
        memmove(key_at, key, spec->key.len);
    }
    e->vf = (e->vf & ~(uint64_t)0xff) | l->flags;
    e->klen = long_key ? ENTRY_KLEN_LONG : (uint8_t)spec->key.len;
    uint8_t *at = e->tail;
    if (long_key) {
        put_u32(at, (uint32_t)spec->key.len);
        at += 4;
    }
    at = write_expiry(at, l->flags, spec->expiry_ms);
    if (l->vlen_len == 4) {
        put_u32(at, (uint32_t)l->value_len);
    } else if (l->vlen_len == 1) {
        *at = (uint8_t)l->value_len;
    }
    write_value(key_at + spec->key.len, l, &spec->value);
}

struct entry *entry_create(const struct entry_spec *spec) {
    struct layout l = layout_of(spec);
    struct entry *e = mem_alloc_good(l.total);
    if (e == NULL) {
        return NULL;
    }
    e->vf = 0;
    e->freq = 0;
    entry_set_stamp(e, 0);
    write_spec(e, &l, spec);
    return e;
}

void entry_fill(struct entry *e, const struct entry_spec *spec) {
    struct layout l = layout_of(spec);
    dc_debug_assert(mem_good_size(l.total) == mem_good_size(entry_size(e)));
    write_spec(e, &l, spec);
}

void entry_destroy(struct entry *e) {
    if (e == NULL) {
        return;
    }
    if (entry_kind(e) == VALUE_BLOB) {
        struct value v;
        entry_value(e, &v);
        blob_release(v.blob);
    }
    mem_free_sized(e, entry_size(e));
}

static size_t stored_value_len(const struct entry *e) {
    uint32_t flags = entry_flags(e);
    if ((flags & ENTRY_KIND_MASK) == VALUE_BLOB) {
        return sizeof(struct blob *);
    }
    const uint8_t *key_at = e->tail + entry_prefix_len(e);
    return (flags & ENTRY_WIDE) ? get_u32(key_at - 4) : key_at[-1];
}

size_t entry_size(const struct entry *e) {
    size_t klen = e->klen != ENTRY_KLEN_LONG ? e->klen : get_u32(e->tail);
    return ENTRY_HEAD_LEN + entry_prefix_len(e) + klen + stored_value_len(e);
}

void entry_value(const struct entry *e, struct value *out) {
    struct bytes key = entry_key(e);
    const char *at = key.ptr + key.len;
    size_t len = stored_value_len(e);
    out->kind = entry_kind(e);
    switch (out->kind) {
    case VALUE_STR:
    case VALUE_RAW:
        out->str = bytes_of(at, len);
        return;
    case VALUE_INT: {
        uint32_t shift = 64 - 8 * (uint32_t)len;
        uint64_t raw = 0;
        memcpy(&raw, at, len);
        out->num = (int64_t)(raw << shift) >> shift;
        return;
    }
    case VALUE_BLOB:
        memcpy(&out->blob, at, sizeof(out->blob));
        return;
    }
    dc_unreachable();
}

bool entry_set_expiry(struct entry *e, int64_t expiry_ms) {
    uint32_t flags = entry_flags(e);
    int64_t since = expiry_ms - EXPIRY_BASE_MS;
    bool fits5 = expiry_ms >= EXPIRY_BASE_MS && since < (int64_t)1 << 40;
    if (expiry_ms == EXPIRY_NONE || !(flags & (ENTRY_EXPIRY5 | ENTRY_EXPIRY8)) ||
        ((flags & ENTRY_EXPIRY5) && !fits5)) {
        return false;
    }
    write_expiry(e->tail + (e->klen == ENTRY_KLEN_LONG ? 4 : 0), flags, expiry_ms);
    return true;
}

char *entry_value_ptr(struct entry *e) {
    size_t klen = e->klen != ENTRY_KLEN_LONG ? e->klen : get_u32(e->tail);
    return (char *)e->tail + entry_prefix_len(e) + klen;
}

bool entry_can_write(const struct entry *e, size_t len) {
    struct value v;
    entry_value(e, &v);
    switch (v.kind) {
    case VALUE_INT:
        return false;
    case VALUE_BLOB:
        return blob_is_sole(v.blob) && len <= v.blob->cap;
    case VALUE_STR:
    case VALUE_RAW:
        break;
    }
    bool wide = (entry_flags(e) & ENTRY_WIDE) != 0;
    size_t size = entry_size(e);
    return len < BLOB_MIN_LEN && (len > UINT8_MAX) == wide &&
           mem_good_size(size - v.str.len + len) == mem_good_size(size);
}

void entry_write(struct entry *e, uint64_t offset, struct bytes bytes) {
    struct value v;
    entry_value(e, &v);
    size_t end = (size_t)offset + bytes.len;
    char *data;
    if (v.kind == VALUE_BLOB) {
        dc_assert(end <= v.blob->cap);
        blob_forget_sum(v.blob);
        data = v.blob->data;
        if (end > v.blob->len) {
            memset(data + v.blob->len, 0, end - v.blob->len);
            v.blob->len = end;
        }
    } else {
        dc_assert(v.kind != VALUE_INT);
        data = entry_value_ptr(e);
        if (end > v.str.len) {
            memset(data + v.str.len, 0, end - v.str.len);
            if (entry_flags(e) & ENTRY_WIDE) {
                put_u32(data - entry_key(e).len - 4, (uint32_t)end);
            } else {
                data[-(ptrdiff_t)entry_key(e).len - 1] = (char)end;
            }
        }
        entry_set_kind(e, VALUE_RAW);
    }
    if (bytes.len > 0) {
        memcpy(data + offset, bytes.ptr, bytes.len);
    }
}
