/* SPDX-License-Identifier: BSD-3-Clause */
#include "tools/dcache-inspect/fold.h"

#include "server/base/codec.h"
#include "server/base/limits.h"

#include <inttypes.h>

static void set_content(struct fold *f, struct bytes text) {
    if (f->content != NULL) {
        buf_reset(f->content, SIZE_MAX);
        buf_append_bytes(f->content, text);
    }
}

static void set_number(struct fold *f, int64_t num) {
    char digits[NUM_I64_TEXT_MAX];
    f->value_len = num_format_i64(digits, num);
    set_content(f, bytes_of(digits, f->value_len));
}

void fold_begin(struct fold *f, const struct snap_entry *e) {
    struct buf *content = f->content;
    *f = (struct fold){.exists = true,
                       .kind = e->value.kind,
                       .expiry_ms = e->expiry_ms,
                       .version = e->version,
                       .freq = e->freq,
                       .idle_ms = snap_age_ms(e->age_code),
                       .content = content};
    switch (e->value.kind) {
    case VALUE_STR:
    case VALUE_RAW:
        f->value_len = e->value.str.len;
        set_content(f, e->value.str);
        break;
    case VALUE_INT:
        set_number(f, e->value.num);
        break;
    case VALUE_BLOB:
        f->value_len = e->blob_len;
        break;
    }
}

static void put(struct fold *f, const struct effect_view *e) {
    f->exists = true;
    f->kind = e->value_kind;
    f->expiry_ms = e->expiry_ms;
    if (e->value_kind == VALUE_INT) {
        set_number(f, (int64_t)get_u64(e->data.ptr));
    } else {
        f->value_len = e->data.len;
        set_content(f, e->data);
    }
}

/* Bytes at an offset, zeros before. */
static void write_content(struct buf *b, uint64_t offset, struct bytes data) {
    uint64_t end = offset + data.len;
    if (b->len < end) {
        char *room = buf_room(b, (size_t)(end - b->len));
        if (room == NULL) {
            return; /* b->failed */
        }
        memset(room, 0, (size_t)(end - b->len));
        b->len = (size_t)end;
    }
    if (data.len > 0) {
        memcpy(b->ptr + offset, data.ptr, data.len);
    }
}

static void write_at(struct fold *f, const struct effect_view *e) {
    if (e->prev == 0) { /* made for a key that wasn't there */
        f->value_len = 0;
        f->expiry_ms = EXPIRY_NONE;
        set_content(f, bytes_of("", 0));
    }
    uint64_t end = e->offset + e->data.len;
    f->exists = true;
    f->value_len = end > f->value_len ? end : f->value_len;
    f->kind = f->value_len >= BLOB_MIN_LEN ? VALUE_BLOB : VALUE_RAW;
    if (f->content != NULL) {
        write_content(f->content, e->offset, e->data);
    }
}

/* What no start takes, either (persist/replay.c). */
static bool is_too_long(const struct effect_view *e) {
    uint64_t max = e->value_kind == VALUE_BLOB ? VALUE_LEN_MAX : BLOB_MIN_LEN - 1;
    return e->kind == MUT_PUT ? e->data.len > max
                              : e->kind == MUT_WRITE && (e->offset > VALUE_LEN_MAX ||
                                                         e->data.len > VALUE_LEN_MAX - e->offset);
}

enum match { MATCH_APPLY, MATCH_SKIP, MATCH_DAMAGE };

/* What the effect has to do with what is there: the table in persist/replay.c. */
static enum match match(const struct fold *f, const struct effect_view *e, bool in_window) {
    if (f->exists && f->version >= e->version) {
        return in_window ? MATCH_SKIP : MATCH_DAMAGE;
    }
    if (e->kind != MUT_EXPIRE && e->kind != MUT_WRITE) {
        return MATCH_APPLY;
    }
    if (e->prev == 0) {
        return e->kind == MUT_WRITE ? MATCH_APPLY : MATCH_DAMAGE;
    }
    if (f->unknown_until != 0) {
        return e->prev != PREV_FRAME && e->prev <= f->unknown_until ? MATCH_APPLY : MATCH_DAMAGE;
    }
    if (f->exists && (f->version == e->prev || e->prev == PREV_FRAME)) {
        return MATCH_APPLY;
    }
    return in_window && !f->exists ? MATCH_SKIP : MATCH_DAMAGE;
}

static enum dc_err damaged(const struct fold *f, const struct effect_view *e) {
    return dc_fail(DC_ECORRUPT,
                   "the effect at LSN %" PRIu64 " of keyspace %u was made for version %" PRIu64
                   " of its key, but finds %" PRIu64,
                   e->version - e->len, e->keyspace, e->prev, f->exists ? f->version : 0);
}

/* What is known of an entry of which nothing was known, or a part. */
static void learn(struct fold *f, const struct effect_view *e) {
    bool is_patch = e->kind == MUT_EXPIRE || (e->kind == MUT_WRITE && e->prev != 0);
    if (is_patch && f->unknown_until != 0) {
        f->exists = true;
        f->is_partial = true;
    } else if (!is_patch) {
        f->is_partial = false;
    }
    f->unknown_until = 0;
    f->has_piece = f->is_partial && (f->has_piece || e->kind == MUT_WRITE);
    f->has_expiry = f->is_partial && (f->has_expiry || e->kind == MUT_EXPIRE);
}

enum dc_err fold_effect(struct fold *f, const struct effect_view *e, bool in_window) {
    enum match m = match(f, e, in_window);
    if (m != MATCH_APPLY) {
        return m == MATCH_SKIP ? DC_OK : damaged(f, e);
    }
    if (is_too_long(e)) {
        return dc_fail(DC_ECORRUPT,
                       "the effect at LSN %" PRIu64 " of keyspace %u has a value that is too long",
                       e->version - e->len, e->keyspace);
    }
    switch (e->kind) {
    case MUT_PUT:
        put(f, e);
        break;
    case MUT_DEL:
        f->exists = false;
        set_content(f, bytes_of("", 0));
        break;
    case MUT_EXPIRE:
        f->expiry_ms = e->expiry_ms;
        break;
    case MUT_WRITE:
        write_at(f, e);
        break;
    case MUT_FLUSH:
        return DC_OK; /* kept apart: whoever asks knows the keyspace's last one */
    }
    learn(f, e);
    f->version = e->version;
    f->idle_ms = e->kind == MUT_EXPIRE ? f->idle_ms : -1;
    return DC_OK;
}
