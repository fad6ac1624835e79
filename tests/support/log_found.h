/* SPDX-License-Identifier: BSD-3-Clause */
/* log_found: what a log_reader finds in the directory "." of a simulated disk, as text. */
#ifndef TESTS_SUPPORT_LOG_FOUND_H
#define TESTS_SUPPORT_LOG_FOUND_H

#include "persist/log_reader.h"
#include "server/base/buf.h"
#include "tests/support/expect.h"
#include "tests/support/sim_disk.h"

#include <check.h>
#include <string.h>

/* What a reader finds: keys of the frames' first effects, one after the other, and the end. */
struct found {
    struct buf keys;
    enum log_end how;
    struct log_end_info end;
    uint64_t frames;
    uint64_t first_lsn;
    bool joins;
};

static inline void note_frame(struct found *f, const struct frame_ref *frame) {
    struct effect_view e;
    if (f->frames++ == 0) {
        f->first_lsn = frame->lsn;
    }
    if (f->keys.len > 0) {
        buf_append_str(&f->keys, " ");
    }
    if (frame->head.kind == FRAME_MUTATION) {
        expect(effect_decode(frame->bytes, frame->len, FRAME_HEADER_LEN, frame->lsn, &e));
        buf_append_bytes(&f->keys, e.key);
    } else {
        buf_append_str(&f->keys, frame->head.kind == FRAME_FORK ? "FORK" : "CLOSE");
    }
}

static inline void read_dir(struct found *f, const struct log_dir *d, uint64_t from) {
    struct log_reader *r;
    struct frame_ref frame;
    memset(f, 0, sizeof(*f));
    buf_init(&f->keys, 0);
    ck_assert_int_eq(log_reader_open(&r, d, from), DC_OK);
    f->joins = log_reader_joins(r);
    while ((f->how = log_reader_next(r, &frame)) == LOG_MORE) {
        note_frame(f, &frame);
    }
    log_reader_end(r, &f->end);
    expect(strlen(f->end.text) > 0);
    log_reader_close(r);
    buf_append(&f->keys, "", 1);
}

static inline void read_all(struct found *f, const struct io *io, uint64_t from) {
    struct log_dir d;
    ck_assert_int_eq(log_dir_open(&d, io, "."), DC_OK);
    read_dir(f, &d, from);
    log_dir_close(&d);
}

#define expect_found(disk, from, wanted_keys, wanted_end)                         \
    do {                                                                          \
        struct found f_;                                                          \
        read_all(&f_, sim_disk_io(disk), (from));                                 \
        ck_assert_str_eq(f_.keys.ptr, (wanted_keys));                             \
        ck_assert_msg(f_.how == (wanted_end), "end %d: %s", f_.how, f_.end.text); \
        buf_fini(&f_.keys);                                                       \
    } while (0)

#endif
