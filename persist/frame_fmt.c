/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/frame_fmt.h"

#include "server/base/assert.h"
#include "server/base/buf.h"
#include "server/base/codec.h"
#include "server/base/sum.h"
#include "server/store/store.h"

enum {
    FLAG_KIND_MASK = 0x07,
    FLAG_EXPIRY = 0x08,
    FLAG_PREV = 0x10,
    FLAG_OFFSET = 0x20,
    FLAG_LONG = 0x40,
    INT_LEN = 8,
    HISTORY_LEN = 32,
    CHAIN_AT = 8,
    KIND_SHIFT = 56, /* body length and kind share a word */
};

/* --- lengths ----------------------------------------------------------------------------------------- */

static uint32_t flags_of(const struct effect *e) {
    switch (e->kind) {
    case MUT_PUT:
        return (uint32_t)e->value.kind | (e->expiry_ms != EXPIRY_NONE ? FLAG_EXPIRY : 0);
    case MUT_EXPIRE:
        return FLAG_PREV | (e->expiry_ms != EXPIRY_NONE ? FLAG_EXPIRY : 0);
    case MUT_WRITE:
        return FLAG_PREV | FLAG_OFFSET;
    case MUT_DEL:
    case MUT_FLUSH:
        return 0;
    }
    dc_unreachable();
}

static bool has_blob(const struct effect *e) {
    return e->kind == MUT_PUT && e->value.kind == VALUE_BLOB;
}

static uint64_t data_len(const struct effect *e) {
    if (e->kind == MUT_WRITE) {
        return e->bytes.len;
    }
    if (e->kind != MUT_PUT) {
        return 0;
    }
    switch (e->value.kind) {
    case VALUE_STR:
    case VALUE_RAW:
        return e->value.str.len;
    case VALUE_INT:
        return INT_LEN;
    case VALUE_BLOB:
        return e->value.blob->len;
    }
    dc_unreachable();
}

static bool is_long(uint64_t key_len, uint64_t data) {
    return dc_unlikely(key_len > UINT16_MAX || data > UINT16_MAX);
}

/* Header and optional fields. */
static size_t fields_len(uint32_t flags) {
    return EFFECT_HEADER_LEN + (flags & FLAG_EXPIRY ? 8u : 0u) + (flags & FLAG_PREV ? 8u : 0u) +
           (flags & FLAG_OFFSET ? 8u : 0u) + (flags & FLAG_LONG ? (unsigned)EFFECT_LONG_LEN : 0u) +
           ((flags & FLAG_KIND_MASK) == VALUE_BLOB ? 8u : 0u);
}

static uint64_t effect_len(const struct effect *e) {
    uint64_t key_len = e->key.name.len;
    uint64_t data = data_len(e);
    uint32_t flags = flags_of(e) | (is_long(key_len, data) ? (uint32_t)FLAG_LONG : 0);
    return fields_len(flags) + key_len + data;
}

const struct mut_frame *frame_measure(struct mut *m) {
    struct mut_frame *f = &m->frame;
    if (f->effects == 0) {
        *f = (struct mut_frame){.len = FRAME_HEADER_LEN, .inline_len = FRAME_HEADER_LEN};
    }
    for (; f->effects < m->count; f->effects++) {
        const struct effect *e = &m->effects[f->effects];
        uint64_t len = effect_len(e);
        f->len += len;
        f->inline_len += len;
        if (dc_unlikely(has_blob(e))) {
            f->inline_len -= e->value.blob->len;
            f->blobs++;
        }
    }
    return f;
}

size_t frame_del_len(size_t key_len) {
    return fields_len(is_long(key_len, 0) ? FLAG_LONG : 0) + key_len;
}

uint64_t frame_assign(struct mut *m, uint64_t lsn) {
    uint64_t len = FRAME_HEADER_LEN;
    for (uint32_t i = 0; i < m->count; i++) {
        len += effect_len(&m->effects[i]);
        m->effects[i].version = lsn + len;
    }
    return len;
}

/* --- encoding ---------------------------------------------------------------------------------------- */

static char *put_field(char *to, uint64_t value) {
    put_u64(to, value);
    return to + 8;
}

static char *encode_value(char *to, const struct value *v) {
    switch (v->kind) {
    case VALUE_STR:
    case VALUE_RAW:
        memcpy(to, v->str.ptr, v->str.len);
        return to + v->str.len;
    case VALUE_INT:
        return put_field(to, (uint64_t)v->num);
    case VALUE_BLOB:
        return to; /* by reference */
    }
    dc_unreachable();
}

static char *encode_effect(char *to, const struct effect *e) {
    uint32_t flags = flags_of(e);
    uint64_t data = data_len(e);
    if (is_long(e->key.name.len, data)) {
        flags |= FLAG_LONG;
        put_u32(to + 4, 0);
        put_u32(to + 8, (uint32_t)e->key.name.len);
        put_u64(to + 12, data);
    } else {
        put_u16(to + 4, (uint16_t)e->key.name.len);
        put_u16(to + 6, (uint16_t)data);
    }
    to[0] = (char)e->kind;
    to[1] = (char)flags;
    put_u16(to + 2, (uint16_t)keyspace_id(e->ks));
    to += EFFECT_HEADER_LEN + (flags & FLAG_LONG ? EFFECT_LONG_LEN : 0);
    to = flags & FLAG_EXPIRY ? put_field(to, (uint64_t)e->expiry_ms) : to;
    to = flags & FLAG_PREV ? put_field(to, e->prev) : to;
    to = flags & FLAG_OFFSET ? put_field(to, e->offset) : to;
    to = has_blob(e) ? put_field(to, blob_sum(e->value.blob)) : to;
    if (e->key.name.len > 0) {
        memcpy(to, e->key.name.ptr, e->key.name.len);
        to += e->key.name.len;
    }
    if (e->kind == MUT_PUT) {
        return encode_value(to, &e->value);
    }
    if (e->kind == MUT_WRITE && e->bytes.len > 0) {
        memcpy(to, e->bytes.ptr, e->bytes.len);
        to += e->bytes.len;
    }
    return to;
}

static void encode_head(char *frame, const struct frame_head *h, uint64_t seed) {
    put_u32(frame + 4, h->body_sum);
    put_u64(frame + 8, h->body_len | (uint64_t)h->kind << KIND_SHIFT);
    put_u64(frame + 16, (uint64_t)h->time_ms);
    put_u32(frame, (uint32_t)sum64(frame + 4, FRAME_HEADER_LEN - 4, seed));
}

uint32_t frame_encode(struct mut *m, uint64_t history, uint64_t lsn, char *to,
                      struct frame_blob *blobs) {
    uint64_t seed = sum_seed(history, lsn);
    uint64_t body_sum = seed;
    uint32_t blob_count = 0;
    uint64_t blob_len = 0;
    char *at = to + FRAME_HEADER_LEN;
    char *part = at;
    for (uint32_t i = 0; i < m->count; i++) {
        struct effect *e = &m->effects[i];
        at = encode_effect(at, e);
        if (dc_unlikely(has_blob(e))) {
            body_sum = sum64(part, (size_t)(at - part), body_sum);
            part = at;
            blobs[blob_count++] = (struct frame_blob){(size_t)(at - to), e->value.blob};
            blob_len += e->value.blob->len;
        }
        e->version = lsn + (uint64_t)(at - to) + blob_len;
    }
    if (at > part || blob_count == 0) {
        body_sum = sum64(part, (size_t)(at - part), body_sum);
    }
    struct frame_head h = {.body_len = (uint64_t)(at - to) + blob_len - FRAME_HEADER_LEN,
                           .body_sum = (uint32_t)body_sum,
                           .time_ms = m->now_ms,
                           .kind = FRAME_MUTATION};
    encode_head(to, &h, seed);
    return blob_count;
}

static void encode_plain(struct buf *to, enum frame_kind kind, uint64_t history, uint64_t lsn,
                         int64_t time_ms, struct bytes body) {
    uint64_t seed = sum_seed(history, lsn);
    struct frame_head h = {.body_len = body.len,
                           .body_sum = (uint32_t)sum64(body.ptr, body.len, seed),
                           .time_ms = time_ms,
                           .kind = kind};
    char head[FRAME_HEADER_LEN];
    encode_head(head, &h, seed);
    buf_append(to, head, sizeof(head));
    buf_append_bytes(to, body);
}

void frame_encode_fork(struct buf *to, uint64_t lsn, int64_t time_ms, const struct history *chain,
                       uint32_t count) {
    struct buf body;
    char fields[HISTORY_LEN];
    dc_assert(count > 0);
    buf_init(&body, 0);
    put_u64(fields, count);
    buf_append(&body, fields, CHAIN_AT);
    for (uint32_t i = 0; i < count; i++) {
        put_u64(fields, chain[i].id);
        put_u64(fields + 8, chain[i].start);
        put_u64(fields + 16, chain[i].epoch);
        put_u64(fields + 24, chain[i].parent_end);
        buf_append(&body, fields, sizeof(fields));
    }
    encode_plain(to, FRAME_FORK, chain[count - 1].id, lsn, time_ms, buf_bytes(&body));
    buf_fini(&body);
}

void frame_encode_close(struct buf *to, uint64_t history, uint64_t lsn, int64_t time_ms) {
    encode_plain(to, FRAME_CLOSE, history, lsn, time_ms, bytes_of("", 0));
}

/* --- decoding ---------------------------------------------------------------------------------------- */

uint32_t fork_decode(struct bytes body, struct history *chain, uint32_t max) {
    uint64_t count = body.len < CHAIN_AT ? 0 : get_u64(body.ptr);
    if (count == 0 || count > max || body.len != CHAIN_AT + count * HISTORY_LEN) {
        return 0;
    }
    const char *at = body.ptr + CHAIN_AT;
    for (uint64_t i = 0; i < count; i++, at += HISTORY_LEN) {
        chain[i] =
            (struct history){get_u64(at), get_u64(at + 8), get_u64(at + 16), get_u64(at + 24)};
    }
    return (uint32_t)count;
}

static uint64_t body_len_at(const char *frame) {
    return get_u64(frame + 8) & (((uint64_t)1 << KIND_SHIFT) - 1);
}

uint64_t frame_len_at(const char *frame) {
    return FRAME_HEADER_LEN + body_len_at(frame);
}

bool frame_may_begin(const char *ptr, size_t len) {
    if (len < FRAME_HEADER_LEN) {
        return false;
    }
    uint8_t kind = (uint8_t)ptr[FRAME_KIND_AT];
    return kind >= FRAME_MUTATION && kind <= FRAME_CLOSE && frame_len_at(ptr) <= len;
}

static bool head_is_sane(const struct frame_head *h) {
    switch (h->kind) {
    case FRAME_MUTATION:
        return h->body_len >= EFFECT_HEADER_LEN;
    case FRAME_FORK:
        return h->body_len >= CHAIN_AT + HISTORY_LEN && (h->body_len - CHAIN_AT) % HISTORY_LEN == 0;
    case FRAME_CLOSE:
        return h->body_len == 0;
    }
    return false;
}

enum frame_verdict frame_check_head(const void *ptr, size_t len, uint64_t history, uint64_t lsn,
                                    struct frame_head *out) {
    const char *frame = ptr;
    if (len < FRAME_HEADER_LEN) {
        return FRAME_SHORT;
    }
    uint32_t want = get_u32(frame);
    if (want != (uint32_t)sum64(frame + 4, FRAME_HEADER_LEN - 4, sum_seed(history, lsn))) {
        return FRAME_BAD_HEAD;
    }
    *out = (struct frame_head){.body_sum = get_u32(frame + 4),
                               .body_len = body_len_at(frame),
                               .kind = (enum frame_kind)(uint8_t)frame[FRAME_KIND_AT],
                               .time_ms = (int64_t)get_u64(frame + 16)};
    return head_is_sane(out) ? FRAME_OK : FRAME_BAD_HEAD;
}

static bool kind_is_known(uint32_t kind) {
    return kind >= MUT_PUT && kind <= MUT_FLUSH;
}

/* Whether flags and lengths are what the kind has. */
static bool shape_is_right(enum mut_kind kind, uint32_t all, uint64_t key_len, uint64_t data) {
    uint32_t flags = all & ~(uint32_t)FLAG_LONG;
    uint32_t rest = flags & ~(uint32_t)FLAG_EXPIRY;
    if (is_long(key_len, data) != ((all & FLAG_LONG) != 0)) {
        return false; /* one way to write it */
    }
    switch (kind) {
    case MUT_PUT:
        return rest <= VALUE_BLOB && (rest != VALUE_INT || data == INT_LEN);
    case MUT_EXPIRE:
        return rest == FLAG_PREV && data == 0;
    case MUT_WRITE:
        return flags == (FLAG_PREV | FLAG_OFFSET);
    case MUT_DEL:
        return flags == 0 && data == 0;
    case MUT_FLUSH:
        return flags == 0 && data == 0 && key_len == 0;
    }
    return false;
}

static uint64_t take_field(const char **at, uint32_t flags, uint32_t flag) {
    if (!(flags & flag)) {
        return 0;
    }
    uint64_t value = get_u64(*at);
    *at += 8;
    return value;
}

static bool is_simple_put(const char *effect) {
    uint32_t value_kind = (uint8_t)effect[1] & ~(uint32_t)FLAG_EXPIRY;
    return effect[0] == MUT_PUT && (value_kind == VALUE_STR || value_kind == VALUE_RAW);
}

/* What nearly all are: of few optional fields and no lengths that could be too long. */
static bool decode_simple_put(const char *p, size_t room, struct effect_view *out) {
    uint32_t flags = (uint8_t)p[1];
    size_t key_len = get_u16(p + 4), data = get_u16(p + 6);
    bool has_expiry = (flags & FLAG_EXPIRY) != 0;
    size_t fields = EFFECT_HEADER_LEN + (has_expiry ? 8u : 0u);
    size_t len = fields + key_len + data;
    if (len > room) {
        return false;
    }
    *out = (struct effect_view){.kind = MUT_PUT,
                                .value_kind = (enum value_kind)(flags & FLAG_KIND_MASK),
                                .keyspace = get_u16(p + 2),
                                .has_expiry = has_expiry,
                                .expiry_ms = has_expiry ? (int64_t)get_u64(p + EFFECT_HEADER_LEN)
                                                        : EXPIRY_NONE,
                                .key = bytes_of(p + fields, key_len),
                                .data = bytes_of(p + fields + key_len, data),
                                .len = len};
    return true;
}

static bool decode_any(const char *effect, size_t room, struct effect_view *out) {
    const char *p = effect;
    uint32_t flags = (uint8_t)p[1];
    uint64_t key_len = get_u16(p + 4);
    uint64_t data = get_u16(p + 6);
    out->kind = (enum mut_kind)p[0];
    bool is_blob = (flags & FLAG_KIND_MASK) == VALUE_BLOB;
    uint64_t fields = fields_len(flags);
    if (!kind_is_known((uint8_t)p[0]) || fields > room) {
        return false;
    }
    p += EFFECT_HEADER_LEN;
    if (dc_unlikely(flags & FLAG_LONG)) {
        if ((key_len | data) != 0) {
            return false;
        }
        key_len = get_u32(p);
        data = get_u64(p + 4);
        p += EFFECT_LONG_LEN;
    }
    if (!shape_is_right(out->kind, flags, key_len, data) || key_len > room - fields ||
        data > room - fields - key_len) {
        return false;
    }
    out->value_kind = (enum value_kind)(flags & FLAG_KIND_MASK);
    out->keyspace = get_u16(effect + 2);
    out->has_expiry = (flags & FLAG_EXPIRY) != 0;
    out->expiry_ms = out->has_expiry ? (int64_t)take_field(&p, flags, FLAG_EXPIRY) : EXPIRY_NONE;
    out->prev = take_field(&p, flags, FLAG_PREV);
    out->offset = take_field(&p, flags, FLAG_OFFSET);
    out->blob_sum = take_field(&p, is_blob, 1);
    out->key = bytes_of(p, (size_t)key_len);
    out->data = bytes_of(p + key_len, (size_t)data);
    out->len = (size_t)(fields + key_len + data);
    return true;
}

bool effect_decode(const char *frame, size_t len, size_t at, uint64_t lsn,
                   struct effect_view *out) {
    if (at > len || len - at < EFFECT_HEADER_LEN) {
        return false;
    }
    const char *effect = frame + at;
    bool right = dc_likely(is_simple_put(effect)) ? decode_simple_put(effect, len - at, out)
                                                  : decode_any(effect, len - at, out);
    if (!right) {
        return false;
    }
    out->at = at;
    out->version = lsn + at + out->len;
    return true;
}

/* Goes over the effects and counts them; the sum has a part for each stretch between blobs. */
static bool body_is_right(const char *frame, size_t len, uint64_t lsn, struct frame_head *h,
                          uint64_t seed) {
    uint64_t sum = seed;
    size_t at = FRAME_HEADER_LEN;
    size_t part = at;
    bool blobs = false;
    while (h->kind == FRAME_MUTATION && at < len) {
        struct effect_view e;
        if (!effect_decode(frame, len, at, lsn, &e)) {
            return false;
        }
        at += e.len;
        h->effect_count++;
        if (dc_unlikely(e.kind == MUT_PUT && e.value_kind == VALUE_BLOB)) {
            if (sum64(e.data.ptr, e.data.len, 0) != e.blob_sum) {
                return false;
            }
            sum = sum64(frame + part, at - e.data.len - part, sum);
            part = at;
            blobs = true;
        }
    }
    if (len > part || !blobs) {
        sum = sum64(frame + part, len - part, sum);
    }
    return (uint32_t)sum == h->body_sum;
}

enum frame_verdict frame_check(const void *ptr, size_t len, uint64_t history, uint64_t lsn,
                               struct frame_head *out) {
    enum frame_verdict verdict = frame_check_head(ptr, len, history, lsn, out);
    if (verdict != FRAME_OK) {
        return verdict;
    }
    if (out->body_len > len - FRAME_HEADER_LEN) {
        return FRAME_SHORT;
    }
    size_t frame = FRAME_HEADER_LEN + (size_t)out->body_len;
    return body_is_right(ptr, frame, lsn, out, sum_seed(history, lsn)) ? FRAME_OK : FRAME_BAD_BODY;
}
