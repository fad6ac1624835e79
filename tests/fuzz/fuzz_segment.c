/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The input is a segment file. The first byte chooses what is made right before it is read, so that the fuzzer gets past the sums:
 * bit 0 the header, bit 1 the head sums of the frames that follow each other, bit 2 their body sums as well.
 *
 * Whatever comes: every frame lies in the file, begins where the one before ended, and all its effects can be decoded.
 */
#include "persist/log_reader.h"
#include "server/base/assert.h"
#include "server/base/codec.h"
#include "server/base/mem.h"
#include "server/base/sum.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/sim_disk.h"

#include <string.h>

enum { MEND_HEADER = 1, MEND_HEADS = 2, MEND_BODIES = 4 };

static const struct segment_head good = {
    .first_lsn = 1000, .history = {.id = 11, .start = 1000, .epoch = 1}, .created_ms = 1};

static void mend_header(char *file) {
    memset(file, 0, SEGMENT_HEADER_LEN);
    segment_head_encode(&good, (uint8_t *)file);
}

/* Body sums are mended for frames without blobs only: those need more than one sum. */
static void mend_frames(char *file, size_t len, bool bodies) {
    size_t at = SEGMENT_HEADER_LEN;
    while (len - at >= FRAME_HEADER_LEN) {
        char *frame = file + at;
        uint64_t seed = sum_seed(good.history.id, good.first_lsn + (at - SEGMENT_HEADER_LEN));
        uint64_t body = frame_len_at(frame) - FRAME_HEADER_LEN;
        size_t room = len - at - FRAME_HEADER_LEN;
        if (body > room) {
            char kind = frame[15];
            body = get_u16(frame + 8) % (room + 1); /* so that most of them fit */
            put_u64(frame + 8, body);
            frame[15] = kind;
        }
        if (bodies) {
            put_u32(frame + 4, (uint32_t)sum64(frame + FRAME_HEADER_LEN, (size_t)body, seed));
        }
        put_u32(frame, (uint32_t)sum64(frame + 4, FRAME_HEADER_LEN - 4, seed));
        at += FRAME_HEADER_LEN + (size_t)body;
    }
}

static void check_frame(const struct frame_ref *f, uint64_t file_len) {
    struct effect_view e;
    size_t at = FRAME_HEADER_LEN;
    dc_assert(f->file_offset >= SEGMENT_HEADER_LEN && f->file_offset + f->len <= file_len);
    dc_assert(f->len == FRAME_HEADER_LEN + f->head.body_len);
    for (uint32_t i = 0; i < f->head.effect_count; i++) {
        bool decoded = effect_decode(f->bytes, f->len, at, f->lsn, &e);
        dc_assert(decoded && e.key.len + e.data.len <= e.len);
        /* each byte of both can be read */
        dc_assert(sum64(e.key.ptr, e.key.len, 0) + sum64(e.data.ptr, e.data.len, 0) != 1);
        at += e.len;
        dc_assert(e.version == f->lsn + at);
    }
    dc_assert(f->head.kind != FRAME_MUTATION || at == f->len);
}

static void read_file(const struct io *io, const char *path, bool alone, uint64_t file_len) {
    struct log_dir d;
    struct log_reader *r;
    struct frame_ref f;
    struct log_end_info info;
    enum log_end end;
    enum dc_err err = alone ? log_dir_open_file(&d, io, path) : log_dir_open(&d, io, ".");
    dc_assert(err == DC_OK);
    err = log_reader_open(&r, &d, 0);
    dc_assert(err == DC_OK);
    uint64_t next = 0;
    while ((end = log_reader_next(r, &f)) == LOG_MORE) {
        dc_assert(next == 0 || f.lsn == next);
        check_frame(&f, file_len);
        next = f.lsn + f.len;
    }
    log_reader_end(r, &info);
    dc_assert(end != LOG_FAILED && info.text[0] != '\0');
    dc_assert(next == 0 || info.lsn == next);
    log_reader_close(r);
    log_dir_close(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    char path[2 + SEGMENT_NAME_MAX] = "./";
    if (len == 0) {
        return 0;
    }
    bool mend = (data[0] & MEND_HEADER) != 0;
    size_t front = mend ? SEGMENT_HEADER_LEN : 0; /* a mended header isn't part of the input */
    size_t file_len = front + len - 1;
    char *file = mem_must_alloc(file_len + 1);
    memcpy(file + front, data + 1, len - 1);
    if (mend) {
        mend_header(file);
    }
    if ((data[0] & MEND_HEADS) && file_len > SEGMENT_HEADER_LEN) {
        mend_frames(file, file_len, (data[0] & MEND_BODIES) != 0);
    }
    struct sim_disk *d = sim_disk_create();
    segment_name(good.first_lsn, good.history.id, path + 2);
    sim_disk_put(d, path, file, file_len);
    read_file(sim_disk_io(d), path, false, file_len);
    read_file(sim_disk_io(d), path, true, file_len);
    sim_disk_destroy(d);
    mem_free(file);
    return 0;
}
