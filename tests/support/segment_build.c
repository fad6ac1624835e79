/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/segment_build.h"

#include "persist/frame_fmt.h"
#include "server/base/assert.h"
#include "server/base/codec.h"
#include "server/base/limits.h"
#include "server/base/sum.h"

#include <stdio.h>

enum { TIME_MS = 1000 };

static char *room(struct segment_build *b, size_t len) {
    char *to = buf_room(&b->file, len);
    dc_assert(to != NULL);
    memset(to, 0, len);
    b->file.len += len;
    return to;
}

void segment_build_init(struct segment_build *b, const struct history *history,
                        uint64_t first_lsn) {
    memset(b, 0, sizeof(*b));
    buf_init(&b->file, 0);
    memset(b->head.node_id, 1, NODE_ID_LEN);
    memset(b->head.seed, 2, SEED_LEN);
    b->head.first_lsn = first_lsn;
    b->head.history = *history;
    b->head.created_ms = (int64_t)first_lsn;
    b->lsn = first_lsn;
    segment_name(first_lsn, history->id, b->name);
    segment_head_encode(&b->head, (uint8_t *)room(b, SEGMENT_HEADER_LEN));
}

void segment_build_fini(struct segment_build *b) {
    buf_fini(&b->file);
}

/* The bytes of the file from 'at' on become a frame: its first FRAME_HEADER_LEN bytes are still empty. */
static uint64_t finish_frame(struct segment_build *b, size_t at, uint64_t body_sum) {
    char *frame = b->file.ptr + at;
    uint64_t seed = sum_seed(b->head.history.id, b->lsn);
    put_u32(frame + 4, (uint32_t)body_sum);
    put_u64(frame + 8, b->file.len - at - FRAME_HEADER_LEN);
    frame[15] = FRAME_MUTATION;
    put_u64(frame + 16, TIME_MS);
    put_u32(frame, (uint32_t)sum64(frame + 4, FRAME_HEADER_LEN - 4, seed));
    b->lsn += b->file.len - at;
    return b->lsn;
}

static void add_effect(struct segment_build *b, enum mut_kind kind, bool blob, struct bytes key,
                       struct bytes data) {
    char *head = room(b, EFFECT_HEADER_LEN);
    head[0] = (char)kind;
    head[1] = (char)(blob ? VALUE_BLOB : VALUE_STR);
    dc_assert(key.len <= UINT16_MAX && (blob || data.len <= UINT16_MAX));
    if (blob) { /* which is long */
        head[1] |= 64;
        char *lengths = room(b, EFFECT_LONG_LEN);
        put_u32(lengths, (uint32_t)key.len);
        put_u64(lengths + 4, data.len);
    } else {
        put_u16(head + 4, (uint16_t)key.len);
        put_u16(head + 6, (uint16_t)data.len);
    }
    if (blob) {
        put_u64(room(b, 8), sum64(data.ptr, data.len, 0));
    }
    buf_append_bytes(&b->file, key);
}

uint64_t segment_build_frame(struct segment_build *b, const struct bytes *keys,
                             const struct bytes *values, uint32_t count) {
    size_t at = b->file.len;
    uint64_t sum = sum_seed(b->head.history.id, b->lsn);
    room(b, FRAME_HEADER_LEN);
    size_t part = b->file.len;
    for (uint32_t i = 0; i < count; i++) {
        bool blob = values[i].len >= BLOB_MIN_LEN;
        add_effect(b, MUT_PUT, blob, keys[i], values[i]);
        if (blob) {
            sum = sum64(b->file.ptr + part, b->file.len - part, sum);
        }
        buf_append_bytes(&b->file, values[i]);
        part = blob ? b->file.len : part;
    }
    if (count > 1) {
        add_effect(b, MUT_DEL, false, keys[0], bytes_of("", 0));
    }
    if (b->file.len > part) {
        sum = sum64(b->file.ptr + part, b->file.len - part, sum);
    }
    dc_assert(!b->file.failed);
    return finish_frame(b, at, sum);
}

uint64_t segment_build_put(struct segment_build *b, const char *key, const char *value) {
    struct bytes k = bytes_str(key);
    struct bytes v = bytes_str(value);
    return segment_build_frame(b, &k, &v, 1);
}

uint64_t segment_build_fork(struct segment_build *b, const struct history *chain, uint32_t count) {
    size_t at = b->file.len;
    frame_encode_fork(&b->file, b->lsn, TIME_MS, chain, count);
    b->lsn += b->file.len - at;
    return b->lsn;
}

uint64_t segment_build_close(struct segment_build *b) {
    size_t at = b->file.len;
    frame_encode_close(&b->file, b->head.history.id, b->lsn, TIME_MS);
    b->lsn += b->file.len - at;
    return b->lsn;
}

void segment_build_mark(struct segment_build *b, uint64_t durable_lsn) {
    struct segment_mark mark = {durable_lsn, 0};
    segment_mark_encode(b->head.first_lsn, &mark, (uint8_t *)b->file.ptr + SEGMENT_MARK_AT);
}

void segment_build_room(struct segment_build *b, size_t len) {
    if (b->file.len < len) {
        room(b, len - b->file.len);
    }
}

void segment_build_write(const struct segment_build *b, const struct io *io, const char *dir) {
    char path[256];
    struct io_file f;
    snprintf(path, sizeof(path), "%s/%s", dir, b->name);
    struct iovec v = {b->file.ptr, b->file.len};
    io->unlink(io, path);
    int rc = io->open(io, path, IO_CREATE, &f);
    dc_assert(rc == 0);
    ssize_t n = io->write_at(io, &f, &v, 1, 0);
    dc_assert(n == (ssize_t)b->file.len);
    rc = io->sync(io, &f);
    dc_assert(rc == 0);
    io->close(io, &f);
    rc = io->sync_dir(io, dir);
    dc_assert(rc == 0);
}
