/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The input is what a link receives: messages one behind the other, up to the first that is wrong.
 *
 * Whatever comes: nothing outside of a message is read, and what can be decoded says the same bytes when it is encoded again.
 */
#include "replication/wire_fmt.h"
#include "server/base/assert.h"
#include "server/base/mem.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static struct history chain[WIRE_CHAIN_MAX];

static void hello(struct bytes body, struct buf *out) {
    struct wire_hello m;
    if (wire_hello_decode(body, chain, &m)) {
        wire_hello_encode(&m, out);
    }
}

static void answer(struct bytes body, struct buf *out) {
    struct wire_answer m;
    if (wire_answer_decode(body, chain, &m)) {
        wire_answer_encode(&m, out);
    }
}

static void log_bytes(struct bytes body, struct buf *out) {
    struct wire_log m;
    uint8_t fixed[WIRE_LOG_LEN];
    if (wire_log_decode(body, &m)) {
        wire_log_encode(m.lsn, fixed);
        buf_append(out, fixed, sizeof(fixed));
        buf_append_bytes(out, m.bytes);
    }
}

static void ack(struct bytes body, struct buf *out) {
    struct wire_ack m;
    uint8_t fixed[WIRE_ACK_LEN];
    if (wire_ack_decode(body, &m)) {
        wire_ack_encode(&m, fixed);
        buf_append(out, fixed, sizeof(fixed));
    }
}

static void beat(struct bytes body, struct buf *out) {
    struct wire_beat m;
    uint8_t fixed[WIRE_BEAT_LEN];
    if (wire_beat_decode(body, &m)) {
        wire_beat_encode(&m, fixed);
        buf_append(out, fixed, sizeof(fixed));
    }
}

static void peers(struct bytes body, struct buf *out) {
    struct wire_peer list[PEERS_MAX];
    uint32_t count;
    if (wire_peers_decode(body, list, &count)) {
        wire_peers_encode(list, count, out);
    }
}

static void copy(struct bytes body, struct buf *out) {
    struct wire_copy m;
    if (wire_copy_decode(body, chain, &m)) {
        wire_copy_encode(&m, out);
    }
}

static void copy_data(struct bytes body, struct buf *out) {
    struct wire_copy_data m;
    uint8_t fixed[WIRE_COPY_DATA_LEN];
    if (wire_copy_data_decode(body, &m)) {
        wire_copy_data_encode(m.offset, fixed);
        buf_append(out, fixed, sizeof(fixed));
        buf_append_bytes(out, m.bytes);
    }
}

static void copy_end(struct bytes body, struct buf *out) {
    struct wire_copy_end m;
    uint8_t fixed[WIRE_COPY_END_LEN];
    if (wire_copy_end_decode(body, &m)) {
        wire_copy_end_encode(&m, fixed);
        buf_append(out, fixed, sizeof(fixed));
    }
}

static void hurry(struct bytes body, struct buf *out) {
    uint64_t lsn;
    uint8_t fixed[WIRE_HURRY_LEN];
    if (wire_hurry_decode(body, &lsn)) {
        wire_hurry_encode(lsn, fixed);
        buf_append(out, fixed, sizeof(fixed));
    }
}

static void ask(struct bytes body, struct buf *out) {
    uint64_t for_ms;
    uint8_t fixed[WIRE_ASK_LEN];
    if (wire_ask_decode(body, &for_ms)) {
        wire_ask_encode(for_ms, fixed);
        buf_append(out, fixed, sizeof(fixed));
    }
}

static void promote(struct bytes body, struct buf *out) {
    struct wire_promote m;
    uint8_t fixed[WIRE_PROMOTE_LEN];
    if (wire_promote_decode(body, &m)) {
        wire_promote_encode(&m, fixed);
        buf_append(out, fixed, sizeof(fixed));
    }
}

static void bye(struct bytes body, struct buf *out) {
    struct wire_bye m;
    if (wire_bye_decode(body, &m)) {
        wire_bye_encode(&m, out);
    }
}

static void decode(enum wire_type type, struct bytes body, struct buf *out) {
    switch (type) {
    case WIRE_HELLO:
        hello(body, out);
        return;
    case WIRE_ANSWER:
        answer(body, out);
        return;
    case WIRE_LOG:
        log_bytes(body, out);
        return;
    case WIRE_ACK:
        ack(body, out);
        return;
    case WIRE_BEAT:
        beat(body, out);
        return;
    case WIRE_COPY:
        copy(body, out);
        return;
    case WIRE_COPY_DATA:
        copy_data(body, out);
        return;
    case WIRE_COPY_END:
        copy_end(body, out);
        return;
    case WIRE_HURRY:
        hurry(body, out);
        return;
    case WIRE_ASK:
        ask(body, out);
        return;
    case WIRE_PROMOTE:
        promote(body, out);
        return;
    case WIRE_BYE:
        bye(body, out);
        return;
    case WIRE_PEERS:
        peers(body, out);
        return;
    case WIRE_NONE:
        break;
    }
    dc_unreachable();
}

/* One message; false = it isn't one, or isn't all there. */
static bool message(const uint8_t *data, size_t len, size_t *used) {
    enum wire_type type;
    size_t body_len;
    if (len < WIRE_HEAD_LEN || !wire_head_decode(data, &type, &body_len) ||
        body_len > len - WIRE_HEAD_LEN) {
        return false;
    }
    char *copied = mem_must_alloc(body_len + 1); /* a sanitizer watches the end */
    memcpy(copied + 1, data + WIRE_HEAD_LEN, body_len);
    struct bytes body = bytes_of(copied + 1, body_len);
    struct buf out;
    buf_init(&out, 0);
    decode(type, body, &out);
    bool decoded = out.len > 0;
    dc_assert(!decoded || bytes_equal(buf_bytes(&out), body));
    buf_fini(&out);
    mem_free(copied);
    *used = WIRE_HEAD_LEN + body_len;
    return decoded;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    size_t used;
    for (size_t at = 0; message(data + at, len - at, &used); at += used) {}
    return 0;
}
