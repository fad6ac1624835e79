/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/wire_fmt.h"

#include "persist/snap_fmt.h"
#include "replication/chain.h"
#include "server/base/assert.h"
#include "server/base/codec.h"

#include <assert.h>
#include <string.h>

static_assert((int)WIRE_CHAIN_MAX == (int)SNAP_HISTORIES_MAX, "every chain can be told");
static_assert((int)WIRE_NAME_MAX >= (int)SNAP_NAME_MAX, "every snapshot's name fits");

#define WIRE_MSG(type, number, fixed, more, by, what)                                  \
    static_assert((fixed) > 0 && WIRE_HEAD_LEN + (fixed) + (more) <= WIRE_MESSAGE_MAX, \
                  "none is longer than the longest");
#include "replication/wire.def"
#undef WIRE_MSG

const char *wire_type_name(enum wire_type type) {
    switch (type) {
#define WIRE_MSG(type, number, fixed, more, by, what) \
    case WIRE_##type:                                 \
        return #type;
#include "replication/wire.def"
#undef WIRE_MSG
    case WIRE_NONE:
        break;
    }
    return "?";
}

/* --- the head -------------------------------------------------------------------------------------------------- */

/* By number; a fixed part of length 0 means that there is no such type. */
static const struct {
    size_t fixed, more;
} bounds[] = {
#define WIRE_MSG(type, number, fixed, more, by, what) [(number)] = {(fixed), (more)},
#include "replication/wire.def"
#undef WIRE_MSG
};

static bool length_fits(uint8_t number, size_t body_len) {
    return number < sizeof(bounds) / sizeof(bounds[0]) && bounds[number].fixed > 0 &&
           body_len >= bounds[number].fixed &&
           body_len - bounds[number].fixed <= bounds[number].more;
}

void wire_head_encode(enum wire_type type, size_t body_len, uint8_t to[WIRE_HEAD_LEN]) {
    dc_assert(length_fits((uint8_t)type, body_len));
    put_u32(to, (uint32_t)(body_len + 1));
    to[4] = (uint8_t)type;
}

bool wire_head_decode(const void *ptr, enum wire_type *type, size_t *body_len) {
    const uint8_t *from = ptr;
    uint32_t len = get_u32(from);
    if (len == 0 || !length_fits(from[4], len - 1)) {
        return false;
    }
    *type = (enum wire_type)from[4];
    *body_len = len - 1;
    return true;
}

/* --- pieces ---------------------------------------------------------------------------------------------------- */

static void append_chain(struct buf *to, const struct history *chain, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        uint8_t fields[WIRE_HISTORY_LEN];
        put_u64(fields, chain[i].id);
        put_u64(fields + 8, chain[i].start);
        put_u64(fields + 16, chain[i].epoch);
        put_u64(fields + 24, chain[i].parent_end);
        buf_append(to, fields, sizeof(fields));
    }
}

/* Each history has a name and begins behind the one before. */
static bool history_makes_sense(const struct history *h, const struct history *before) {
    return h->id != 0 && h->start != 0 && h->start <= LSN_MAX && h->parent_end <= h->start &&
           (before == NULL || h->start > before->start);
}

/* 'from' is exactly the chain. */
static bool read_chain(struct bytes from, uint32_t count, struct history *chain) {
    dc_assert(from.len == (size_t)count * WIRE_HISTORY_LEN && count <= WIRE_CHAIN_MAX);
    for (uint32_t i = 0; i < count; i++) {
        const char *at = from.ptr + (size_t)i * WIRE_HISTORY_LEN;
        chain[i] = (struct history){.id = get_u64(at),
                                    .start = get_u64(at + 8),
                                    .epoch = get_u64(at + 16),
                                    .parent_end = get_u64(at + 24)};
        if (!history_makes_sense(&chain[i], i > 0 ? &chain[i - 1] : NULL)) {
            return false;
        }
    }
    return true;
}

/* The rest of a body behind its fixed part: a text of 'text_len' bytes, then a chain; to the last byte (I1). */
static bool split(struct bytes body, size_t fixed_len, size_t text_len, uint32_t chain_count,
                  struct bytes *text, struct bytes *chain) {
    if (body.len < fixed_len || chain_count > WIRE_CHAIN_MAX ||
        body.len - fixed_len != text_len + (size_t)chain_count * WIRE_HISTORY_LEN) {
        return false;
    }
    *text = bytes_of(body.ptr + fixed_len, text_len);
    *chain = bytes_of(body.ptr + fixed_len + text_len, body.len - fixed_len - text_len);
    return true;
}

static bool is_lsn(uint64_t v) {
    return v <= LSN_MAX;
}

/* Sums with another clock, in microseconds, are far from overflowing. */
#define WIRE_CLOCK_MAX_MS (INT64_MAX / 1000 / 4)

static bool is_epoch(uint64_t v) {
    return v <= CHAIN_EPOCH_MAX;
}

/* It is shown in INFO, whose lines others parse. */
static bool is_address(struct bytes v) {
    for (size_t i = 0; i < v.len; i++) {
        char ch = v.ptr[i];
        if (ch <= ' ' || ch > '~' || ch == ',' || ch == '=') {
            return false;
        }
    }
    return true;
}

static bool is_purpose(uint8_t v) {
    return v >= WIRE_FOLLOW && v <= WIRE_PROBE;
}

static bool is_role(uint8_t v) {
    return v >= WIRE_PRIMARY && v <= WIRE_PULLING;
}

enum {
    HELLO_FLAGS_KNOWN = WIRE_FORCE | WIRE_EXPLICIT | WIRE_DAMAGED | WIRE_EMPTY,
    ANSWER_FLAGS_KNOWN = WIRE_EMPTY | WIRE_LINKED,
};

static bool is_verdict(uint8_t v) {
    return v >= WIRE_CONTINUE && v <= WIRE_LATER;
}

/* --- HELLO ----------------------------------------------------------------------------------------------------- */

enum {
    HELLO_PROTOCOL = 0,
    HELLO_PURPOSE = 2,
    HELLO_ROLE = 3,
    HELLO_FLAGS = 4,
    HELLO_PEER_ID = 8,
    HELLO_DATA_ID = 24,
    HELLO_EPOCH = 40,
    HELLO_HEAD = 48,
    HELLO_HASH = 56,
    HELLO_PORT = 64,
    HELLO_ADDRESS_LEN = 66,
    HELLO_CHAIN_COUNT = 68,
    HELLO_RESERVED = 72,
};
static_assert(HELLO_RESERVED + 8 == WIRE_HELLO_LEN, "wire.def says how long it is");

void wire_hello_encode(const struct wire_hello *m, struct buf *to) {
    uint8_t f[WIRE_HELLO_LEN] = {0};
    dc_assert(m->address.len <= WIRE_ADDRESS_MAX && m->chain_count <= WIRE_CHAIN_MAX);
    dc_assert(is_purpose((uint8_t)m->purpose) && is_role((uint8_t)m->role) && is_lsn(m->head));
    put_u16(f + HELLO_PROTOCOL, m->protocol);
    f[HELLO_PURPOSE] = (uint8_t)m->purpose;
    f[HELLO_ROLE] = (uint8_t)m->role;
    put_u32(f + HELLO_FLAGS, m->flags);
    memcpy(f + HELLO_PEER_ID, m->peer_id, PEER_ID_LEN);
    memcpy(f + HELLO_DATA_ID, m->data_id, NODE_ID_LEN);
    put_u64(f + HELLO_EPOCH, m->epoch);
    put_u64(f + HELLO_HEAD, m->head);
    put_u64(f + HELLO_HASH, m->hash);
    put_u16(f + HELLO_PORT, m->port);
    put_u16(f + HELLO_ADDRESS_LEN, (uint16_t)m->address.len);
    put_u32(f + HELLO_CHAIN_COUNT, m->chain_count);
    buf_append(to, f, sizeof(f));
    buf_append_bytes(to, m->address);
    append_chain(to, m->chain, m->chain_count);
}

bool wire_hello_decode(struct bytes body, struct history *chain, struct wire_hello *out) {
    const char *f = body.ptr;
    struct bytes links;
    if (body.len < WIRE_HELLO_LEN || get_u16(f + HELLO_ADDRESS_LEN) > WIRE_ADDRESS_MAX ||
        !split(body, WIRE_HELLO_LEN, get_u16(f + HELLO_ADDRESS_LEN), get_u32(f + HELLO_CHAIN_COUNT),
               &out->address, &links)) {
        return false;
    }
    out->protocol = get_u16(f + HELLO_PROTOCOL);
    out->purpose = (enum wire_purpose)(uint8_t)f[HELLO_PURPOSE];
    out->role = (enum wire_role)(uint8_t)f[HELLO_ROLE];
    out->flags = get_u32(f + HELLO_FLAGS);
    memcpy(out->peer_id, f + HELLO_PEER_ID, PEER_ID_LEN);
    memcpy(out->data_id, f + HELLO_DATA_ID, NODE_ID_LEN);
    out->epoch = get_u64(f + HELLO_EPOCH);
    out->head = get_u64(f + HELLO_HEAD);
    out->hash = get_u64(f + HELLO_HASH);
    out->port = get_u16(f + HELLO_PORT);
    out->chain = chain;
    out->chain_count = get_u32(f + HELLO_CHAIN_COUNT);
    return is_purpose((uint8_t)f[HELLO_PURPOSE]) && is_role((uint8_t)f[HELLO_ROLE]) &&
           (out->flags & ~(uint32_t)HELLO_FLAGS_KNOWN) == 0 && is_lsn(out->head) &&
           is_epoch(out->epoch) && is_address(out->address) && get_u64(f + HELLO_RESERVED) == 0 &&
           read_chain(links, out->chain_count, chain);
}

/* --- ANSWER ---------------------------------------------------------------------------------------------------- */

enum {
    ANSWER_PROTOCOL = 0,
    ANSWER_VERDICT = 2,
    ANSWER_ROLE = 3,
    ANSWER_FLAGS = 4,
    ANSWER_PEER_ID = 8,
    ANSWER_DATA_ID = 24,
    ANSWER_EPOCH = 40,
    ANSWER_LSN = 48,
    ANSWER_HEAD = 56,
    ANSWER_TEXT_LEN = 64,
    ANSWER_RESERVED = 66,
    ANSWER_CHAIN_COUNT = 68,
};
static_assert(ANSWER_CHAIN_COUNT + 4 == WIRE_ANSWER_LEN, "wire.def says how long it is");

void wire_answer_encode(const struct wire_answer *m, struct buf *to) {
    uint8_t f[WIRE_ANSWER_LEN] = {0};
    dc_assert(m->text.len <= WIRE_TEXT_MAX && m->chain_count <= WIRE_CHAIN_MAX);
    dc_assert(is_verdict((uint8_t)m->verdict) && is_role((uint8_t)m->role) &&
              (m->flags & ~(uint32_t)ANSWER_FLAGS_KNOWN) == 0);
    dc_assert(is_lsn(m->lsn) && is_lsn(m->head));
    put_u16(f + ANSWER_PROTOCOL, m->protocol);
    f[ANSWER_VERDICT] = (uint8_t)m->verdict;
    f[ANSWER_ROLE] = (uint8_t)m->role;
    put_u32(f + ANSWER_FLAGS, m->flags);
    memcpy(f + ANSWER_PEER_ID, m->peer_id, PEER_ID_LEN);
    memcpy(f + ANSWER_DATA_ID, m->data_id, NODE_ID_LEN);
    put_u64(f + ANSWER_EPOCH, m->epoch);
    put_u64(f + ANSWER_LSN, m->lsn);
    put_u64(f + ANSWER_HEAD, m->head);
    put_u16(f + ANSWER_TEXT_LEN, (uint16_t)m->text.len);
    put_u32(f + ANSWER_CHAIN_COUNT, m->chain_count);
    buf_append(to, f, sizeof(f));
    buf_append_bytes(to, m->text);
    append_chain(to, m->chain, m->chain_count);
}

bool wire_answer_decode(struct bytes body, struct history *chain, struct wire_answer *out) {
    const char *f = body.ptr;
    struct bytes links;
    if (body.len < WIRE_ANSWER_LEN || get_u16(f + ANSWER_TEXT_LEN) > WIRE_TEXT_MAX ||
        !split(body, WIRE_ANSWER_LEN, get_u16(f + ANSWER_TEXT_LEN), get_u32(f + ANSWER_CHAIN_COUNT),
               &out->text, &links)) {
        return false;
    }
    out->protocol = get_u16(f + ANSWER_PROTOCOL);
    out->verdict = (enum wire_verdict)(uint8_t)f[ANSWER_VERDICT];
    out->role = (enum wire_role)(uint8_t)f[ANSWER_ROLE];
    out->flags = get_u32(f + ANSWER_FLAGS);
    memcpy(out->peer_id, f + ANSWER_PEER_ID, PEER_ID_LEN);
    memcpy(out->data_id, f + ANSWER_DATA_ID, NODE_ID_LEN);
    out->epoch = get_u64(f + ANSWER_EPOCH);
    out->lsn = get_u64(f + ANSWER_LSN);
    out->head = get_u64(f + ANSWER_HEAD);
    out->chain = chain;
    out->chain_count = get_u32(f + ANSWER_CHAIN_COUNT);
    return is_verdict((uint8_t)f[ANSWER_VERDICT]) && is_role((uint8_t)f[ANSWER_ROLE]) &&
           (out->flags & ~(uint32_t)ANSWER_FLAGS_KNOWN) == 0 && get_u16(f + ANSWER_RESERVED) == 0 &&
           is_lsn(out->lsn) && is_lsn(out->head) && is_epoch(out->epoch) &&
           read_chain(links, out->chain_count, chain);
}

/* --- the stream ------------------------------------------------------------------------------------------------ */

void wire_log_encode(uint64_t lsn, uint8_t to[WIRE_LOG_LEN]) {
    dc_assert(lsn != 0 && is_lsn(lsn));
    put_u64(to, lsn);
}

bool wire_log_decode(struct bytes body, struct wire_log *out) {
    if (body.len <= WIRE_LOG_LEN) {
        return false;
    }
    out->lsn = get_u64(body.ptr);
    out->bytes = bytes_of(body.ptr + WIRE_LOG_LEN, body.len - WIRE_LOG_LEN);
    return out->lsn != 0 && is_lsn(out->lsn) && out->bytes.len <= LSN_MAX - out->lsn;
}

/* Marks that move are read one after another: the later one may be ahead. */
static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static bool ack_makes_sense(const struct wire_ack *m) {
    return is_lsn(m->received) && m->durable <= m->received && m->applied <= m->received;
}

void wire_ack_encode(const struct wire_ack *m, uint8_t to[WIRE_ACK_LEN]) {
    dc_assert(is_lsn(m->received));
    put_u64(to, m->received);
    put_u64(to + 8, least(m->durable, m->received));
    put_u64(to + 16, least(m->applied, m->received));
}

bool wire_ack_decode(struct bytes body, struct wire_ack *out) {
    if (body.len != WIRE_ACK_LEN) {
        return false;
    }
    *out = (struct wire_ack){get_u64(body.ptr), get_u64(body.ptr + 8), get_u64(body.ptr + 16)};
    return ack_makes_sense(out);
}

void wire_beat_encode(const struct wire_beat *m, uint8_t to[WIRE_BEAT_LEN]) {
    dc_assert(is_lsn(m->head));
    put_u64(to, m->head);
    put_u64(to + 8, least(m->durable, m->head));
    put_u64(to + 16, (uint64_t)m->clock_ms);
    put_u64(to + 24, (uint64_t)m->shown_ms);
    put_u64(to + 32, (uint64_t)m->age_ms);
}

bool wire_beat_decode(struct bytes body, struct wire_beat *out) {
    if (body.len != WIRE_BEAT_LEN) {
        return false;
    }
    out->head = get_u64(body.ptr);
    out->durable = get_u64(body.ptr + 8);
    uint64_t clock_ms = get_u64(body.ptr + 16);
    uint64_t shown_ms = get_u64(body.ptr + 24);
    uint64_t age_ms = get_u64(body.ptr + 32);
    out->clock_ms = (int64_t)clock_ms;
    out->shown_ms = (int64_t)shown_ms;
    out->age_ms = (int64_t)age_ms;
    return is_lsn(out->head) && out->durable <= out->head && clock_ms <= WIRE_CLOCK_MAX_MS &&
           shown_ms <= WIRE_CLOCK_MAX_MS &&
           (age_ms <= WIRE_CLOCK_MAX_MS || age_ms == WIRE_AGE_UNKNOWN);
}

void wire_hurry_encode(uint64_t lsn, uint8_t to[WIRE_HURRY_LEN]) {
    dc_assert(is_lsn(lsn));
    put_u64(to, lsn);
}

bool wire_hurry_decode(struct bytes body, uint64_t *lsn) {
    if (body.len != WIRE_HURRY_LEN) {
        return false;
    }
    *lsn = get_u64(body.ptr);
    return is_lsn(*lsn);
}

void wire_ask_encode(uint64_t for_ms, uint8_t to[WIRE_ASK_LEN]) {
    dc_assert(for_ms > 0 && for_ms <= WIRE_ASK_MAX_MS);
    put_u64(to, for_ms);
}

bool wire_ask_decode(struct bytes body, uint64_t *for_ms) {
    if (body.len != WIRE_ASK_LEN) {
        return false;
    }
    *for_ms = get_u64(body.ptr);
    return *for_ms > 0 && *for_ms <= WIRE_ASK_MAX_MS;
}

void wire_promote_encode(const struct wire_promote *m, uint8_t to[WIRE_PROMOTE_LEN]) {
    dc_assert(is_lsn(m->lsn));
    put_u64(to, m->lsn);
    put_u64(to + 8, m->epoch);
}

bool wire_promote_decode(struct bytes body, struct wire_promote *out) {
    if (body.len != WIRE_PROMOTE_LEN) {
        return false;
    }
    *out = (struct wire_promote){get_u64(body.ptr), get_u64(body.ptr + 8)};
    return is_lsn(out->lsn) && is_epoch(out->epoch);
}

void wire_bye_encode(const struct wire_bye *m, struct buf *to) {
    uint8_t epoch[WIRE_BYE_LEN];
    put_u64(epoch, m->epoch);
    buf_append(to, epoch, sizeof(epoch));
    buf_append(to, m->text.ptr, m->text.len < WIRE_TEXT_MAX ? m->text.len : WIRE_TEXT_MAX);
}

bool wire_bye_decode(struct bytes body, struct wire_bye *out) {
    if (body.len < WIRE_BYE_LEN || body.len - WIRE_BYE_LEN > WIRE_TEXT_MAX) {
        return false;
    }
    out->epoch = get_u64(body.ptr);
    out->text = bytes_of(body.ptr + WIRE_BYE_LEN, body.len - WIRE_BYE_LEN);
    return is_epoch(out->epoch);
}

void wire_peers_encode(const struct wire_peer *list, uint32_t count, struct buf *to) {
    uint8_t head[WIRE_PEERS_LEN] = {0};
    dc_assert(count <= PEERS_MAX);
    put_u32(head, count);
    buf_append(to, head, sizeof(head));
    for (uint32_t i = 0; i < count; i++) {
        uint8_t f[PEER_ID_LEN + 4];
        dc_assert(list[i].address.len > 0 && list[i].address.len <= WIRE_ADDRESS_MAX);
        memcpy(f, list[i].id, PEER_ID_LEN);
        put_u16(f + PEER_ID_LEN, list[i].port);
        put_u16(f + PEER_ID_LEN + 2, (uint16_t)list[i].address.len);
        buf_append(to, f, sizeof(f));
        buf_append_bytes(to, list[i].address);
    }
}

/* Takes one from the front of 'rest'. */
static bool peer_decode(struct bytes *rest, struct wire_peer *out) {
    if (rest->len < PEER_ID_LEN + 4) {
        return false;
    }
    size_t len = get_u16(rest->ptr + PEER_ID_LEN + 2);
    if (len == 0 || len > WIRE_ADDRESS_MAX || rest->len - (PEER_ID_LEN + 4) < len) {
        return false;
    }
    memcpy(out->id, rest->ptr, PEER_ID_LEN);
    out->port = get_u16(rest->ptr + PEER_ID_LEN);
    out->address = bytes_of(rest->ptr + PEER_ID_LEN + 4, len);
    *rest = bytes_of(out->address.ptr + len, rest->len - (PEER_ID_LEN + 4) - len);
    return is_address(out->address);
}

bool wire_peers_decode(struct bytes body, struct wire_peer *list, uint32_t *count) {
    if (body.len < WIRE_PEERS_LEN || get_u32(body.ptr) > PEERS_MAX || get_u32(body.ptr + 4) != 0) {
        return false;
    }
    struct bytes rest = bytes_of(body.ptr + WIRE_PEERS_LEN, body.len - WIRE_PEERS_LEN);
    *count = get_u32(body.ptr);
    for (uint32_t i = 0; i < *count; i++) {
        if (!peer_decode(&rest, &list[i])) {
            return false;
        }
    }
    return rest.len == 0;
}

/* --- the copy -------------------------------------------------------------------------------------------------- */

enum {
    COPY_LENGTH = 0,
    COPY_START_LSN = 8,
    COPY_END_LSN = 16,
    COPY_DATA_ID = 24,
    COPY_SEED = 40,
    COPY_NAME_LEN = 56,
    COPY_RESERVED_16 = 58,
    COPY_CHAIN_COUNT = 60,
    COPY_RESERVED_64 = 64,
};
static_assert(COPY_RESERVED_64 + 8 == WIRE_COPY_LEN, "wire.def says how long it is");

static bool copy_makes_sense(const struct wire_copy *m) {
    return m->length <= INT64_MAX && is_lsn(m->end_lsn) && m->start_lsn <= m->end_lsn &&
           m->name.len > 0 && m->name.len <= WIRE_NAME_MAX && m->chain_count > 0;
}

void wire_copy_encode(const struct wire_copy *m, struct buf *to) {
    uint8_t f[WIRE_COPY_LEN] = {0};
    dc_assert(copy_makes_sense(m) && m->chain_count <= WIRE_CHAIN_MAX);
    put_u64(f + COPY_LENGTH, m->length);
    put_u64(f + COPY_START_LSN, m->start_lsn);
    put_u64(f + COPY_END_LSN, m->end_lsn);
    memcpy(f + COPY_DATA_ID, m->data_id, NODE_ID_LEN);
    memcpy(f + COPY_SEED, m->seed, SEED_LEN);
    put_u16(f + COPY_NAME_LEN, (uint16_t)m->name.len);
    put_u32(f + COPY_CHAIN_COUNT, m->chain_count);
    buf_append(to, f, sizeof(f));
    buf_append_bytes(to, m->name);
    append_chain(to, m->chain, m->chain_count);
}

bool wire_copy_decode(struct bytes body, struct history *chain, struct wire_copy *out) {
    const char *f = body.ptr;
    struct bytes links;
    if (body.len < WIRE_COPY_LEN || !split(body, WIRE_COPY_LEN, get_u16(f + COPY_NAME_LEN),
                                           get_u32(f + COPY_CHAIN_COUNT), &out->name, &links)) {
        return false;
    }
    out->length = get_u64(f + COPY_LENGTH);
    out->start_lsn = get_u64(f + COPY_START_LSN);
    out->end_lsn = get_u64(f + COPY_END_LSN);
    memcpy(out->data_id, f + COPY_DATA_ID, NODE_ID_LEN);
    memcpy(out->seed, f + COPY_SEED, SEED_LEN);
    out->chain = chain;
    out->chain_count = get_u32(f + COPY_CHAIN_COUNT);
    return copy_makes_sense(out) && get_u16(f + COPY_RESERVED_16) == 0 &&
           get_u64(f + COPY_RESERVED_64) == 0 && read_chain(links, out->chain_count, chain);
}

void wire_copy_data_encode(uint64_t offset, uint8_t to[WIRE_COPY_DATA_LEN]) {
    dc_assert(offset <= INT64_MAX);
    put_u64(to, offset);
}

bool wire_copy_data_decode(struct bytes body, struct wire_copy_data *out) {
    if (body.len <= WIRE_COPY_DATA_LEN) {
        return false;
    }
    out->offset = get_u64(body.ptr);
    out->bytes = bytes_of(body.ptr + WIRE_COPY_DATA_LEN, body.len - WIRE_COPY_DATA_LEN);
    return out->offset <= INT64_MAX - out->bytes.len;
}

void wire_copy_end_encode(const struct wire_copy_end *m, uint8_t to[WIRE_COPY_END_LEN]) {
    dc_assert(m->length <= INT64_MAX);
    put_u64(to, m->length);
    put_u64(to + 8, m->sum);
}

bool wire_copy_end_decode(struct bytes body, struct wire_copy_end *out) {
    if (body.len != WIRE_COPY_END_LEN) {
        return false;
    }
    *out = (struct wire_copy_end){get_u64(body.ptr), get_u64(body.ptr + 8)};
    return out->length <= INT64_MAX;
}
