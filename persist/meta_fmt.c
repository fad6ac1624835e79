/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/meta_fmt.h"

#include "server/base/assert.h"
#include "server/base/codec.h"
#include "server/base/sum.h"

enum { LINK_LEN = 32 };

static uint64_t seed_of(enum meta_kind kind, struct bytes name) {
    return sum64(name.ptr, name.len, (uint64_t)kind + 1);
}

void meta_value_write(enum meta_kind kind, struct bytes name, struct bytes payload, char *to) {
    to[0] = META_VALUE_VERSION;
    if (payload.len > 0) {
        memcpy(to + 1, payload.ptr, payload.len);
    }
    put_u64(to + 1 + payload.len, sum64(to, 1 + payload.len, seed_of(kind, name)));
}

static bool chain_is_sound(struct bytes from) {
    return from.len >= 4 && (from.len - 4) % LINK_LEN == 0 &&
           (from.len - 4) / LINK_LEN == get_u32(from.ptr);
}

static bool has_no_nul(struct bytes text) {
    return text.len == 0 || memchr(text.ptr, '\0', text.len) == NULL;
}

static bool payload_is_sound(enum meta_kind kind, struct bytes name, struct bytes payload) {
    struct meta_file f;
    switch (kind) {
    case META_NODE:
        return payload.len == NODE_ID_LEN + SEED_LEN;
    case META_CHAIN:
        return chain_is_sound(payload);
    case META_TEXT:
        return name.len < META_TEXT_NAME_MAX && payload.len < META_TEXT_MAX && has_no_nul(name) &&
               has_no_nul(payload);
    case META_FILE:
        return meta_file_decode(name, payload, &f);
    case META_KIND_COUNT:
        break;
    }
    dc_unreachable();
}

static bool sum_is_right(enum meta_kind kind, struct bytes name, struct bytes value) {
    size_t len = value.len - 8;
    return value.len >= META_VALUE_FRAME_LEN &&
           get_u64(value.ptr + len) == sum64(value.ptr, len, seed_of(kind, name));
}

bool meta_value_read(enum meta_kind kind, struct bytes name, struct bytes value,
                     struct bytes *payload) {
    if (!sum_is_right(kind, name, value) || value.ptr[0] != META_VALUE_VERSION) {
        return false;
    }
    *payload = bytes_of(value.ptr + 1, value.len - META_VALUE_FRAME_LEN);
    return payload_is_sound(kind, name, *payload);
}

bool meta_value_is_newer(enum meta_kind kind, struct bytes name, struct bytes value) {
    return sum_is_right(kind, name, value) && (uint8_t)value.ptr[0] > META_VALUE_VERSION;
}

static void append_u64(struct buf *b, uint64_t v) {
    char raw[8];
    put_u64(raw, v);
    buf_append(b, raw, sizeof(raw));
}

void meta_node_encode(const struct meta_node *node, struct buf *to) {
    buf_append(to, node->node_id, NODE_ID_LEN);
    buf_append(to, node->seed, SEED_LEN);
}

bool meta_node_decode(struct bytes from, struct meta_node *out) {
    if (from.len != NODE_ID_LEN + SEED_LEN) {
        return false;
    }
    memcpy(out->node_id, from.ptr, NODE_ID_LEN);
    memcpy(out->seed, from.ptr + NODE_ID_LEN, SEED_LEN);
    out->known = true;
    return true;
}

void meta_chain_encode(const struct history *chain, uint32_t count, struct buf *to) {
    char raw[4];
    put_u32(raw, count);
    buf_append(to, raw, sizeof(raw));
    for (uint32_t i = 0; i < count; i++) {
        append_u64(to, chain[i].id);
        append_u64(to, chain[i].start);
        append_u64(to, chain[i].epoch);
        append_u64(to, chain[i].parent_end);
    }
}

uint32_t meta_chain_count(struct bytes from) {
    return get_u32(from.ptr);
}

struct history meta_chain_link(struct bytes from, uint32_t index) {
    const char *at = from.ptr + 4 + (size_t)index * LINK_LEN;
    dc_assert(index < get_u32(from.ptr));
    return (struct history){.id = get_u64(at),
                            .start = get_u64(at + 8),
                            .epoch = get_u64(at + 16),
                            .parent_end = get_u64(at + 24)};
}

void meta_file_encode(const struct meta_file *f, struct buf *to) {
    const uint8_t raw[2] = {(uint8_t)f->kind, (uint8_t)f->state};
    buf_append(to, raw, sizeof(raw));
    append_u64(to, f->first_lsn);
    append_u64(to, f->end_lsn);
    append_u64(to, f->durable_lsn);
    append_u64(to, f->history);
    append_u64(to, f->count);
    append_u64(to, f->bytes);
    append_u64(to, f->sum);
    append_u64(to, (uint64_t)f->created_ms);
}

bool meta_file_decode(struct bytes name, struct bytes from, struct meta_file *out) {
    if (from.len != META_FILE_LEN || name.len == 0 || name.len >= sizeof(out->name)) {
        return false;
    }
    uint8_t kind = (uint8_t)from.ptr[0];
    uint8_t state = (uint8_t)from.ptr[1];
    if (kind < FILE_SEGMENT || kind > FILE_SIDE || state < FILE_OPEN || state > FILE_BAD) {
        return false;
    }
    const char *at = from.ptr + 2;
    *out = (struct meta_file){
        .kind = (enum file_kind)kind,
        .state = (enum file_state)state,
        .first_lsn = get_u64(at),
        .end_lsn = get_u64(at + 8),
        .durable_lsn = get_u64(at + 16),
        .history = get_u64(at + 24),
        .count = get_u64(at + 32),
        .bytes = get_u64(at + 40),
        .sum = get_u64(at + 48),
        .created_ms = (int64_t)get_u64(at + 56),
    };
    memcpy(out->name, name.ptr, name.len);
    return true;
}
