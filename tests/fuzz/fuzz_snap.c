/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * snap: the file may be anything: it is refused or read, all of it. The first byte chooses, by its last two bits: 0, the rest is the file
 * as it is; 1, the sums of header, blocks, index and footer are made right first, so that what lies behind them is reached; 2, the rest is a
 * number of entries, one byte, and the plain content of a block.
 */
#include "persist/snap_reader.h"
#include "server/base/assert.h"
#include "server/base/codec.h"
#include "server/base/sum.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

enum { MEMORY_MAX = 64 << 20 };

/* --- a file in memory -------------------------------------------------------------------------------- */

static int fuzz_open(const struct io *io, const char *path, enum io_mode mode,
                     struct io_file *out) {
    (void)io;
    (void)path;
    dc_assert(mode == IO_READ);
    *out = (struct io_file){.fd = 1};
    return 0;
}

static void fuzz_close(const struct io *io, struct io_file *f) {
    (void)io;
    f->fd = -1;
}

static ssize_t fuzz_read_at(const struct io *io, struct io_file *f, void *to, size_t len,
                            uint64_t at) {
    const struct bytes *file = io->arg;
    (void)f;
    size_t have = at < file->len ? file->len - (size_t)at : 0;
    len = len < have ? len : have;
    if (len > 0) {
        memcpy(to, file->ptr + at, len);
    }
    return (ssize_t)len;
}

static int64_t fuzz_size(const struct io *io, struct io_file *f) {
    const struct bytes *file = io->arg;
    (void)f;
    return (int64_t)file->len;
}

/* --- sums -------------------------------------------------------------------------------------------- */

/* Where there is enough of a file to say where they are. */
static void mend(uint8_t *file, size_t len) {
    if (len < SNAP_HEADER_LEN + snap_footer_len(0)) {
        return;
    }
    uint32_t head_len = snap_head_len(file);
    if (head_len == 0 || head_len > len) {
        return;
    }
    uint64_t head_sum = sum64(file, head_len - 8, 0);
    put_u64(file + head_len - 8, head_sum);
    uint64_t at = snap_trailer_decode(file + len - SNAP_TRAILER_LEN, len);
    if (at == 0) {
        return;
    }
    uint8_t *footer = file + at;
    uint64_t index = get_u64(footer);
    for (uint64_t i = index; i < at && at - i >= SNAP_INDEX_ENTRY_LEN; i += SNAP_INDEX_ENTRY_LEN) {
        struct snap_block_info b;
        if (snap_index_decode(file + i, &b) && b.offset <= len &&
            len - b.offset >= SNAP_BLOCK_HEAD_LEN + (uint64_t)b.stored_len) {
            snap_block_head_encode(&b, head_sum, file + b.offset + SNAP_BLOCK_HEAD_LEN,
                                   file + b.offset);
        }
    }
    if (index <= at) {
        put_u64(footer + 72, snap_index_sum(file + index, at - index, head_sum));
    }
    size_t chain_len = len - SNAP_TRAILER_LEN - at - SNAP_FOOTER_LEN;
    put_u64(footer + 96, sum64(footer + SNAP_FOOTER_LEN, chain_len, sum64(footer, 96, head_sum)));
}

/* --- reading ----------------------------------------------------------------------------------------- */

static void read_entries(struct snap_block *b, const struct snap *s, uint32_t index) {
    struct snap_entry e;
    uint64_t sum = 0;
    uint32_t count = 0;
    while (snap_block_next(b, &e)) {
        struct blob *blob = NULL;
        dc_assert(e.version > 0 && e.version <= LSN_MAX);
        sum += sum64(e.key.ptr, e.key.len, sum);
        if (e.value.kind == VALUE_STR || e.value.kind == VALUE_RAW) {
            sum += sum64(e.value.str.ptr, e.value.str.len, sum);
        } else if (e.value.kind == VALUE_BLOB && e.blob_len < MEMORY_MAX &&
                   snap_read_blob(b, s, index, &e, &blob) == DC_OK) {
            dc_assert(blob->len == e.blob_len);
            blob_release(blob);
        }
        count++;
    }
    dc_assert(count == snap_block_info(s, index)->entries && sum + 1 > 0);
}

static void read_tail(const struct snap *s) {
    struct snap_tail *t;
    struct frame_ref f;
    enum dc_err err = snap_tail_open(s, &t);
    dc_assert(err == DC_OK);
    while (snap_tail_next(t, &f) == LOG_MORE) {
        dc_assert(f.len >= FRAME_HEADER_LEN);
    }
    snap_tail_close(t);
}

static void read_all(const struct snap *s) {
    struct snap_block *b = snap_block_create();
    const struct snap_facts *f = snap_facts(s);
    for (uint32_t i = 0; i < f->block_count; i++) {
        uint32_t first, count;
        const struct snap_block_info *info = snap_block_info(s, i);
        snap_range_blocks(s, info->range, &first, &count);
        dc_assert(first <= i && i < first + count);
        if (info->plain_len < MEMORY_MAX && snap_block_read(b, s, i) == DC_OK) {
            read_entries(b, s, i);
        }
    }
    snap_block_destroy(b);
    read_tail(s);
}

static void read_columns(const uint8_t *data, size_t len) {
    struct snap_columns c;
    struct snap_entry e;
    if (len == 0) {
        return;
    }
    uint8_t *plain = calloc(1, len - 1 + SNAP_SLACK);
    dc_assert(plain != NULL);
    memcpy(plain, data + 1, len - 1);
    const char *end = (const char *)plain + len - 1;
    uint32_t count = 0;
    if (snap_columns_open(&c, plain, len - 1, data[0])) {
        for (; snap_columns_next(&c, &e); count++) {
            dc_assert(e.version > 0 && e.version <= LSN_MAX);
            dc_assert(e.key.len <= (size_t)(end - e.key.ptr));
            dc_assert(e.value.str.ptr == NULL ||
                      e.value.str.len <= (size_t)(end - e.value.str.ptr));
        }
        dc_assert(count == data[0]);
    }
    free(plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    if (len == 0) {
        return 0;
    }
    if (data[0] % 4 == 2) {
        read_columns(data + 1, len - 1);
        return 0;
    }
    size_t file_len = len - 1;
    uint8_t *file = malloc(file_len > 0 ? file_len : 1);
    dc_assert(file != NULL);
    memcpy(file, data + 1, file_len);
    if (data[0] % 4 == 1) {
        mend(file, file_len);
    }
    struct bytes content = bytes_of((const char *)file, file_len);
    struct io io = {.open = fuzz_open,
                    .close = fuzz_close,
                    .read_at = fuzz_read_at,
                    .size = fuzz_size,
                    .arg = &content};
    struct snap *s;
    enum dc_err err = snap_open(&io, "input", &s);
    if (err == DC_OK) {
        read_all(s);
        snap_close(s);
    } else {
        dc_assert(err == DC_ECORRUPT || err == DC_ENEWER);
        dc_assert(strlen(dc_fail_take(err)) > 0);
    }
    free(file);
    return 0;
}
