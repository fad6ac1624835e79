/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The input is a frame. The first byte chooses what is made right before it is read: bit 0 the head sum, bit 1 the body's length and
 * sum, bit 2 the sum of a blob that is the only effect.
 *
 * Whatever comes: nothing outside of the frame is read, and a frame that is right can be decoded to its last byte.
 */
#include "persist/frame_fmt.h"
#include "server/base/assert.h"
#include "server/base/codec.h"
#include "server/base/mem.h"
#include "server/base/sum.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

enum { MEND_HEAD = 1, MEND_BODY = 2, MEND_BLOB = 4, HISTORY = 11, LSN = 1000, CHAIN = 16 };

static void mend_body(char *frame, size_t len, bool blob) {
    uint64_t seed = sum_seed(HISTORY, LSN);
    uint64_t sum = sum64(frame + FRAME_HEADER_LEN, len - FRAME_HEADER_LEN, seed);
    size_t lengths_at = FRAME_HEADER_LEN + EFFECT_HEADER_LEN;
    size_t key_at = lengths_at + EFFECT_LONG_LEN + 8; /* without expiry */
    char kind = frame[15];
    put_u64(frame + 8, len - FRAME_HEADER_LEN);
    frame[15] = kind;
    if (blob && len >= key_at) {
        uint64_t key_len = get_u32(frame + lengths_at);
        if (key_len <= len - key_at) {
            size_t data_at = key_at + (size_t)key_len;
            put_u64(frame + lengths_at + 4, len - data_at);
            put_u64(frame + key_at - 8, sum64(frame + data_at, len - data_at, 0));
            sum = sum64(frame + FRAME_HEADER_LEN, data_at - FRAME_HEADER_LEN, seed);
        }
    }
    put_u32(frame + 4, (uint32_t)sum);
}

static void check_effects(const char *frame, const struct frame_head *h) {
    size_t len = FRAME_HEADER_LEN + (size_t)h->body_len;
    size_t at = FRAME_HEADER_LEN;
    for (uint32_t i = 0; i < h->effect_count; i++) {
        struct effect_view e;
        bool decoded = effect_decode(frame, len, at, LSN, &e);
        dc_assert(decoded && e.at == at && e.len <= len - at && e.key.len + e.data.len <= e.len);
        /* each byte of both can be read */
        dc_assert(sum64(e.key.ptr, e.key.len, 0) + sum64(e.data.ptr, e.data.len, 0) != 1);
        at += e.len;
        dc_assert(e.version == LSN + at);
    }
    dc_assert(h->kind != FRAME_MUTATION || at == len);
}

static void check_fork(const char *frame, const struct frame_head *h) {
    struct history chain[CHAIN];
    struct bytes body = bytes_of(frame + FRAME_HEADER_LEN, (size_t)h->body_len);
    uint32_t count = fork_decode(body, chain, CHAIN);
    dc_assert(count <= CHAIN && (count == 0 || body.len == 8 + 32 * (size_t)count));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    struct frame_head h;
    struct effect_view e;
    if (len == 0) {
        return 0;
    }
    size_t frame_len = len - 1;
    char *room = mem_must_alloc(frame_len + 1);
    char *frame = room + 1; /* a sanitizer watches the end */
    memcpy(frame, data + 1, frame_len);
    if (frame_len >= FRAME_HEADER_LEN) {
        if (data[0] & MEND_BODY) {
            mend_body(frame, frame_len, (data[0] & MEND_BLOB) != 0);
        }
        if (data[0] & MEND_HEAD) {
            put_u32(frame,
                    (uint32_t)sum64(frame + 4, FRAME_HEADER_LEN - 4, sum_seed(HISTORY, LSN)));
        }
    }
    enum frame_verdict verdict = frame_check(frame, frame_len, HISTORY, LSN, &h);
    if (verdict == FRAME_OK) {
        dc_assert(h.body_len <= frame_len - FRAME_HEADER_LEN);
        check_effects(frame, &h);
        check_fork(frame, &h);
    }
    /* Without a look at the sums first, anywhere. */
    for (size_t at = 0; at <= frame_len; at += 1 + at / 8) {
        dc_assert(!effect_decode(frame, frame_len, at, LSN, &e) || e.len <= frame_len - at);
    }
    mem_free(room);
    return 0;
}
