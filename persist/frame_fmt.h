/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * frame_fmt: the bytes of a frame: all effects of one command or one EXEC, as they stand in the log, in the tail of a
 * snapshot and on the wire. Little endian.
 *
 *   frame    0  u32  head sum      over bytes 4..23, seeded with (history, LSN of the frame's first byte); lower half
 *            4  u32  body sum      over the body without blobs, seeded likewise; lower half
 *            8  u56  body length   of everything behind the header
 *           15  u8   kind          enum frame_kind
 *           16  i64  time          node clock, ms
 *           24       effects, up to the end
 *
 *   effect   0  u8   kind          number of server/store/mutation.def
 *            1  u8   flags         bits 0-2 enum value_kind, 8 expiry, 16 prev, 32 offset, 64 long
 *            2  u16  keyspace
 *            4  u16  key length
 *            6  u16  data length   of the value (PUT) or of the bytes (WRITE); 8 for an integer, which is an i64
 *            8  [u32 key length  u64 data length]  [i64 expiry]  [u64 prev]  [u64 offset]  [u64 blob sum]  key  data
 *
 * An effect is long when one of its lengths is above 65535; both stand behind the header then, and 0 in it.
 * A blob's sum (VALUE_BLOB only) covers its data, seeded with 0; the data isn't part of the body sum, which goes over the stretches before, between and
 * behind them, each seeded with the sum of the one before. The version of an effect is the
 * LSN of its end: frame LSN + bytes from the frame's start to the effect's end.
 *
 * Purpose: encode from a struct mut, decode to views. Pure functions.
 * Failure: decoding checks every length and every reserved bit; it never reads outside of 'len'.
 */
#ifndef DC_PERSIST_FRAME_FMT_H
#define DC_PERSIST_FRAME_FMT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "persist/lsn.h"
#include "server/base/bytes.h"
#include "server/store/mutation.h"

enum { FRAME_HEADER_LEN = 24, FRAME_KIND_AT = 15, EFFECT_HEADER_LEN = 8, EFFECT_LONG_LEN = 12 };

enum frame_kind {
    FRAME_MUTATION = 1,
    FRAME_FORK =
        2, /* first of a history: body = u32 count, u32 0, then the chain: count x (id, start, epoch, parent_end) as u64 */
    FRAME_CLOSE = 3, /* clean end of a run: no effects */
};

struct frame_head {
    uint64_t body_len;
    uint32_t body_sum;
    uint32_t effect_count; /* known after frame_check() */
    int64_t time_ms;
    enum frame_kind kind;
};

/* One effect, as views into the frame. */
struct effect_view {
    enum mut_kind kind;
    enum value_kind value_kind; /* PUT */
    uint32_t keyspace;
    bool has_expiry;
    int64_t expiry_ms; /* EXPIRY_NONE when it has none */
    uint64_t prev;
    uint64_t offset;
    uint64_t blob_sum;
    struct bytes key;
    struct bytes data;
    uint64_t version;
    size_t at;  /* of the effect in the frame */
    size_t len; /* whole */
};

/* Lengths of the frame of a mutation that has effects; the mutation keeps what was measured, so effects are looked at once. */
const struct mut_frame *frame_measure(struct mut *m);
/* An effect that only has a key. */
size_t frame_del_len(size_t key_len);

/* Gives every effect the version that it has in a frame at 'lsn' and returns the frame's length: for a store without a log. */
uint64_t frame_assign(struct mut *m, uint64_t lsn);

/* A piece of a frame that isn't copied: it belongs behind 'at' bytes of what was written. */
struct frame_blob {
    size_t at;
    struct blob *blob;
};

/* Writes the frame without its blobs ('inline_len' bytes) to 'to', gives every effect its version, and lists the blobs (as many as
 * there are PUT effects with one). Returns the number of blobs. */
uint32_t frame_encode(struct mut *m, uint64_t history, uint64_t lsn, char *to,
                      struct frame_blob *blobs);

/* FORK and CLOSE: appends the whole frame to 'to'. */
struct buf;
void frame_encode_fork(struct buf *to, uint64_t lsn, int64_t time_ms, const struct history *chain,
                       uint32_t count);
void frame_encode_close(struct buf *to, uint64_t history, uint64_t lsn, int64_t time_ms);
/* Reads the chain of a FORK frame's body; returns the count, 0 = bad. At most 'max' are written. A FORK frame is summed with the
 * id of the history that it starts: the last of its chain. */
uint32_t fork_decode(struct bytes body, struct history *chain, uint32_t max);

enum frame_verdict {
    FRAME_OK,
    FRAME_SHORT,    /* the header is right, the body isn't all there */
    FRAME_BAD_HEAD, /* no frame begins here */
    FRAME_BAD_BODY,
};

/* Length of a whole frame whose header is known to be right. */
uint64_t frame_len_at(const char *frame);
/* A quick look, for a search: with few false hits, and no sum. */
bool frame_may_begin(const char *ptr, size_t len);
/* Checks the header alone (needs FRAME_HEADER_LEN bytes; fewer is FRAME_SHORT). */
enum frame_verdict frame_check_head(const void *ptr, size_t len, uint64_t history, uint64_t lsn,
                                    struct frame_head *out);
/* Header, body, structure of all effects, and blobs' sums. */
enum frame_verdict frame_check(const void *ptr, size_t len, uint64_t history, uint64_t lsn,
                               struct frame_head *out);

/* The effect at 'at' of a frame of 'frame_len' bytes at 'lsn'; false = malformed. The first one is at FRAME_HEADER_LEN. */
bool effect_decode(const char *frame, size_t frame_len, size_t at, uint64_t lsn,
                   struct effect_view *out);

#endif
