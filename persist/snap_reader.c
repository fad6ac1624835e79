/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/snap_reader.h"

#include "server/base/assert.h"
#include "server/base/codec.h"
#include "server/base/limits.h"
#include "server/base/mem.h"

#include <inttypes.h>

enum {
    TAIL_READ_LEN = 1024 * 1024,
    KEEP_CAP = 8 * 1024 * 1024, /* of a buffer, from block to block */
    FOOTER_SUM_AT = SNAP_FOOTER_LEN - 8,
};

struct snap {
    const struct io *io;
    struct io_file file; /* constant: only for reading */
    char *path;
    struct snap_head head;
    struct snap_footer footer;
    struct snap_facts facts;
    struct snap_block_info *blocks;
};

static enum dc_err corrupt(const struct snap *s, const char *what, uint64_t at) {
    return dc_fail(DC_ECORRUPT, "snapshot %s: %s at byte %" PRIu64 " is damaged", s->path, what,
                   at);
}

static enum dc_err read_at(const struct snap *s, void *to, size_t len, uint64_t at) {
    struct io_file file = s->file;
    ssize_t n = s->io->read_at(s->io, &file, to, len, at);
    if (n < 0) {
        return dc_fail(DC_EIO, "snapshot %s: reading at byte %" PRIu64 ": %s", s->path, at,
                       dc_errno_text((int)-n));
    }
    if ((size_t)n < len) {
        return dc_fail(DC_ECORRUPT, "snapshot %s: it has become shorter than it was", s->path);
    }
    return DC_OK;
}

/* --- opening ----------------------------------------------------------------------------------------- */

static enum dc_err read_header(struct snap *s, uint64_t file_len) {
    uint8_t first[SNAP_HEADER_LEN];
    if (file_len < SNAP_HEADER_LEN + snap_footer_len(1)) {
        return dc_fail(DC_ECORRUPT, "snapshot %s: %" PRIu64 " bytes are too few", s->path,
                       file_len);
    }
    enum dc_err err = read_at(s, first, sizeof(first), 0);
    if (err != DC_OK) {
        return err;
    }
    uint32_t len = snap_head_len(first);
    if (len == 0 || len > file_len) {
        return dc_fail(DC_ECORRUPT, "snapshot %s: it doesn't begin as a snapshot does", s->path);
    }
    uint8_t *bytes = mem_must_alloc(len); /* SNAP_HEADER_MAX */
    enum head_verdict verdict = HEAD_DAMAGED;
    err = read_at(s, bytes, len, 0);
    if (err == DC_OK) {
        verdict = snap_head_decode(bytes, len, &s->head);
    }
    mem_free(bytes);
    if (err != DC_OK) {
        return err;
    }
    switch (verdict) {
    case HEAD_OK:
        return DC_OK;
    case HEAD_NEWER:
        return dc_fail(DC_ENEWER, "snapshot %s: its format is newer than this program", s->path);
    case HEAD_NOT_OURS:
    case HEAD_DAMAGED:
        return corrupt(s, "the header", 0);
    }
    dc_unreachable();
}

/* The parts must follow each other without a gap. */
static bool footer_fits(const struct snap_footer *f, const struct snap_head *h, uint64_t at) {
    return f->start_lsn == h->start_lsn && f->tail_offset >= SNAP_HEADER_LEN &&
           f->tail_offset <= f->index_offset && f->index_offset <= at &&
           f->tail_len == f->index_offset - f->tail_offset &&
           (at - f->index_offset) % SNAP_INDEX_ENTRY_LEN == 0 &&
           f->block_count == (at - f->index_offset) / SNAP_INDEX_ENTRY_LEN &&
           f->block_count <= UINT32_MAX;
}

static bool chain_fits(const struct history *chain, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        if (chain[i].id == 0 || chain[i].start > LSN_MAX ||
            (i > 0 &&
             (chain[i].start < chain[i - 1].start || chain[i].parent_end > chain[i].start))) {
            return false;
        }
    }
    return true;
}

static enum dc_err read_footer(struct snap *s, uint64_t file_len, uint64_t *footer_at) {
    uint8_t trailer[SNAP_TRAILER_LEN];
    enum dc_err err = read_at(s, trailer, sizeof(trailer), file_len - SNAP_TRAILER_LEN);
    if (err != DC_OK) {
        return err;
    }
    uint64_t at = snap_trailer_decode(trailer, file_len);
    if (at < SNAP_HEADER_LEN) {
        return dc_fail(DC_ECORRUPT, "snapshot %s: it doesn't end as a snapshot does", s->path);
    }
    size_t len = (size_t)(file_len - at) - SNAP_TRAILER_LEN;
    uint8_t *bytes = mem_must_alloc(len); /* bounded by SNAP_HISTORIES_MAX */
    err = read_at(s, bytes, len, at);
    if (err == DC_OK && (!snap_footer_decode(bytes, len, s->head.sum, &s->footer, s->facts.chain) ||
                         !footer_fits(&s->footer, &s->head, at) ||
                         !chain_fits(s->facts.chain, s->footer.history_count))) {
        err = corrupt(s, "the footer", at);
    }
    s->facts.sum = get_u64(bytes + FOOTER_SUM_AT);
    mem_free(bytes);
    *footer_at = at;
    return err;
}

/* Whether a block lies in the file and has the range of its positions. */
static bool block_fits(const struct snap *s, const struct snap_block_info *b) {
    uint64_t end = s->footer.tail_offset;
    return b->offset >= SNAP_HEADER_LEN && b->offset <= end &&
           end - b->offset >= SNAP_BLOCK_HEAD_LEN &&
           b->stored_len <= end - b->offset - SNAP_BLOCK_HEAD_LEN &&
           b->range == snap_range_of(s->head.range_bits, b->keyspace, b->first_pos);
}

static bool index_fits(const struct snap *s) {
    uint64_t entries = 0, plain = 0, stored = 0;
    uint64_t count = s->footer.block_count;
    for (uint64_t i = 0; i < count; i++) {
        const struct snap_block_info *b = &s->blocks[i];
        if (!block_fits(s, b) || (i > 0 && snap_index_compare(b - 1, b) >= 0)) {
            return false;
        }
        entries += b->entries;
        plain += b->plain_len;
        stored += b->stored_len;
    }
    /* All of them lie between header and tail, and have together the length of that: nothing is left over. */
    return entries == s->footer.entries && plain == s->footer.plain_bytes &&
           stored == s->footer.stored_bytes &&
           SNAP_HEADER_LEN + stored + count * SNAP_BLOCK_HEAD_LEN == s->footer.tail_offset;
}

static enum dc_err read_index(struct snap *s, uint64_t end) {
    size_t len = (size_t)(end - s->footer.index_offset);
    uint8_t *bytes = mem_alloc(len + 1);
    enum dc_err err = DC_OK;
    bool good = true;
    s->blocks = mem_alloc((s->footer.block_count + 1) * sizeof(*s->blocks));
    if (bytes == NULL || s->blocks == NULL) {
        err = dc_fail(DC_ENOMEM, "snapshot %s: no memory for its index", s->path);
        goto out;
    }
    err = read_at(s, bytes, len, s->footer.index_offset);
    if (err != DC_OK) {
        goto out;
    }
    good = snap_index_sum(bytes, len, s->head.sum) == s->footer.index_sum;
    for (uint64_t i = 0; i < s->footer.block_count && good; i++) {
        good = snap_index_decode(bytes + i * SNAP_INDEX_ENTRY_LEN, &s->blocks[i]);
    }
    if (!good || !index_fits(s)) {
        err = corrupt(s, "the index", s->footer.index_offset);
    }
out:
    mem_free(bytes);
    return err;
}

static void note_facts(struct snap *s, uint64_t file_len) {
    struct snap_facts *f = &s->facts;
    memcpy(f->node_id, s->head.node_id, NODE_ID_LEN);
    memcpy(f->seed, s->head.seed, SEED_LEN);
    f->start_lsn = s->footer.start_lsn;
    f->end_lsn = s->footer.end_lsn;
    f->chain_count = s->footer.history_count;
    f->range_bits = s->head.range_bits;
    f->entries = s->footer.entries;
    f->plain_bytes = s->footer.plain_bytes;
    f->stored_bytes = s->footer.stored_bytes;
    f->file_len = file_len;
    f->tail_len = s->footer.tail_len;
    f->begun_ms = s->head.begun_ms;
    f->finished_ms = s->footer.finished_ms;
    f->block_count = (uint32_t)s->footer.block_count;
}

enum dc_err snap_open(const struct io *io, const char *path, struct snap **out) {
    struct io_file file;
    int rc = io->open(io, path, IO_READ, &file);
    if (rc < 0) {
        return dc_fail(DC_EIO, "snapshot %s: opening: %s", path, dc_errno_text(-rc));
    }
    struct snap *s = mem_must_zalloc(sizeof(*s));
    s->io = io;
    s->file = file;
    s->path = mem_must_strdup(path);
    int64_t size = io->size(io, &s->file);
    uint64_t footer_at = 0;
    enum dc_err err = DC_OK;
    if (size < 0) {
        err = dc_fail(DC_EIO, "snapshot %s: asking for its size: %s", path,
                      dc_errno_text((int)-size));
    }
    err = err != DC_OK ? err : read_header(s, (uint64_t)size);
    err = err != DC_OK ? err : read_footer(s, (uint64_t)size, &footer_at);
    err = err != DC_OK ? err : read_index(s, footer_at);
    if (err != DC_OK) {
        snap_close(s);
        return err;
    }
    note_facts(s, (uint64_t)size);
    *out = s;
    return DC_OK;
}

void snap_close(struct snap *s) {
    if (s == NULL) {
        return;
    }
    s->io->close(s->io, &s->file);
    mem_free(s->blocks);
    mem_free(s->path);
    mem_free(s);
}

const struct snap_facts *snap_facts(const struct snap *s) {
    return &s->facts;
}

/* --- blocks ------------------------------------------------------------------------------------------ */

/* The first block that isn't before 'b' in the order of the index. */
static uint32_t lower_bound(const struct snap *s, const struct snap_block_info *b) {
    uint32_t low = 0, high = s->facts.block_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (snap_index_compare(&s->blocks[middle], b) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

void snap_range_blocks(const struct snap *s, uint32_t range, uint32_t *first, uint32_t *count) {
    *first = lower_bound(s, &(struct snap_block_info){.range = range});
    *count = lower_bound(s, &(struct snap_block_info){.range = range + 1}) - *first;
}

const struct snap_block_info *snap_block_info(const struct snap *s, uint32_t index) {
    dc_assert(index < s->facts.block_count);
    return &s->blocks[index];
}

struct snap_block {
    struct snap_unpacker *unpacker;
    struct buf stored;
    struct buf plain; /* of the block that was read last */
    struct buf piece; /* of a blob */
    struct snap_columns columns;
};

struct snap_block *snap_block_create(void) {
    struct snap_block *b = mem_alloc(sizeof(*b));
    if (b == NULL) {
        return NULL;
    }
    memset(b, 0, sizeof(*b));
    buf_init(&b->stored, 0);
    buf_init(&b->plain, 0);
    buf_init(&b->piece, 0);
    b->unpacker = snap_unpacker_create();
    if (b->unpacker == NULL) {
        snap_block_destroy(b);
        return NULL;
    }
    return b;
}

void snap_block_destroy(struct snap_block *b) {
    if (b == NULL) {
        return;
    }
    snap_unpacker_destroy(b->unpacker);
    buf_fini(&b->stored);
    buf_fini(&b->plain);
    buf_fini(&b->piece);
    mem_free(b);
}

/* The plain content of a block. */
static enum dc_err unpack(struct snap_block *b, const struct snap *s,
                          const struct snap_block_info *info, struct buf *to) {
    size_t len = SNAP_BLOCK_HEAD_LEN + (size_t)info->stored_len;
    buf_reset(&b->stored, KEEP_CAP);
    buf_reset(to, KEEP_CAP);
    if (buf_reserve(&b->stored, len) != DC_OK) {
        return dc_fail(DC_ENOMEM, "snapshot %s: no memory for a block of %zu bytes", s->path, len);
    }
    enum dc_err err = read_at(s, b->stored.ptr, len, info->offset);
    if (err != DC_OK) {
        return err;
    }
    struct bytes stored = bytes_of(b->stored.ptr + SNAP_BLOCK_HEAD_LEN, info->stored_len);
    if (!snap_block_head_check(b->stored.ptr, info, s->head.sum, stored.ptr)) {
        return corrupt(s, "the block", info->offset);
    }
    if (buf_reserve(to, (size_t)info->plain_len + SNAP_SLACK) != DC_OK) {
        return dc_fail(DC_ENOMEM, "snapshot %s: no memory for a block of %" PRIu32 " bytes",
                       s->path, info->plain_len);
    }
    memset(to->ptr + info->plain_len, 0, SNAP_SLACK);
    if (!snap_unpack(b->unpacker, stored, to->ptr, info->plain_len)) {
        return corrupt(s, "the compressed content of the block", info->offset);
    }
    to->len = info->plain_len;
    return DC_OK;
}

enum dc_err snap_block_read(struct snap_block *b, const struct snap *s, uint32_t index) {
    const struct snap_block_info *info = snap_block_info(s, index);
    b->columns = (struct snap_columns){.entries = 0};
    enum dc_err err = unpack(b, s, info, &b->plain);
    if (err != DC_OK || info->kind != SNAP_ENTRIES) {
        return err;
    }
    struct snap_columns columns;
    if (!snap_columns_open(&columns, b->plain.ptr, b->plain.len, info->entries)) {
        return corrupt(s, "the content of the block", info->offset);
    }
    b->columns = columns;
    return DC_OK;
}

bool snap_block_next(struct snap_block *b, struct snap_entry *out) {
    return snap_columns_next(&b->columns, out);
}

/* --- blobs ------------------------------------------------------------------------------------------- */

/* The pieces at the blob's position: [*first, *first + *count). (Those of another key there may be among them.) False: they can't
 * make up its length. */
static bool find_pieces(const struct snap *s, uint32_t index, const struct snap_entry *e,
                        uint32_t *first, uint32_t *count) {
    const struct snap_block_info *from = snap_block_info(s, index);
    struct snap_block_info least = {.range = from->range,
                                    .keyspace = from->keyspace,
                                    .kind = SNAP_PIECE,
                                    .first_pos = e->blob_pos};
    uint64_t len = 0;
    *first = lower_bound(s, &least);
    for (*count = 0; *first + *count < s->facts.block_count; ++*count) {
        const struct snap_block_info *b = &s->blocks[*first + *count];
        if (b->range != least.range || b->keyspace != least.keyspace || b->kind != SNAP_PIECE ||
            b->first_pos != least.first_pos) {
            break;
        }
        len += b->plain_len - SNAP_PIECE_HEAD_LEN;
    }
    return e->blob_len > 0 && e->blob_len <= VALUE_LEN_MAX && len >= e->blob_len;
}

/* Copies a piece to its place if it is one of the blob; 'done' counts. */
static enum dc_err take_piece(struct snap_block *b, const struct snap *s, uint32_t index,
                              const struct snap_entry *e, struct blob *to, uint64_t *done) {
    const struct snap_block_info *info = snap_block_info(s, index);
    enum dc_err err = unpack(b, s, info, &b->piece);
    if (err != DC_OK || get_u64(b->piece.ptr) != e->version) {
        return err;
    }
    uint64_t at = get_u64(b->piece.ptr + 8);
    uint64_t len = b->piece.len - SNAP_PIECE_HEAD_LEN;
    if (at != *done || len > e->blob_len - at) {
        return corrupt(s, "a piece of a large value", info->offset);
    }
    memcpy(to->data + at, b->piece.ptr + SNAP_PIECE_HEAD_LEN, len);
    *done += len;
    return DC_OK;
}

enum dc_err snap_read_blob(struct snap_block *b, const struct snap *s, uint32_t index,
                           const struct snap_entry *e, struct blob **out) {
    uint32_t first, count;
    uint64_t done = 0;
    dc_assert(e->value.kind == VALUE_BLOB);
    if (!find_pieces(s, index, e, &first, &count)) {
        return corrupt(s, "a large value of the block", snap_block_info(s, index)->offset);
    }
    struct blob *blob = blob_create(e->blob_len, e->blob_len);
    if (blob == NULL) {
        return dc_fail(DC_ENOMEM, "snapshot %s: no memory for a value of %" PRIu64 " bytes",
                       s->path, e->blob_len);
    }
    enum dc_err err = DC_OK;
    for (uint32_t i = 0; i < count && done < e->blob_len && err == DC_OK; i++) {
        err = take_piece(b, s, first + i, e, blob, &done);
    }
    if (err == DC_OK && (done != e->blob_len || blob_sum(blob) != e->blob_sum)) {
        err = corrupt(s, "a large value of the block", snap_block_info(s, index)->offset);
    }
    if (err != DC_OK) {
        blob_release(blob);
        return err;
    }
    *out = blob;
    return DC_OK;
}

/* --- the tail ---------------------------------------------------------------------------------------- */

struct snap_tail {
    const struct snap *snap;
    uint64_t lsn; /* of the next frame */
    uint64_t at;  /* its place in the file */
    struct buf window;
    uint64_t window_at; /* place of the window's first byte */
};

enum dc_err snap_tail_open(const struct snap *s, struct snap_tail **out) {
    struct snap_tail *t = mem_must_zalloc(sizeof(*t));
    t->snap = s;
    t->lsn = s->footer.start_lsn;
    t->at = s->footer.tail_offset;
    t->window_at = t->at;
    buf_init(&t->window, 0);
    *out = t;
    return DC_OK;
}

void snap_tail_close(struct snap_tail *t) {
    if (t != NULL) {
        buf_fini(&t->window);
        mem_free(t);
    }
}

/* Of the tail at t->at, 'len' bytes or all that there are: returns how many are at '*out'. */
static enum dc_err window_get(struct snap_tail *t, uint64_t len, struct bytes *out) {
    uint64_t left = t->snap->footer.index_offset - t->at;
    uint64_t have = t->window_at + t->window.len - t->at;
    len = len < left ? len : left;
    if (have < len) {
        uint64_t want = len > TAIL_READ_LEN ? len : TAIL_READ_LEN;
        want = want < left ? want : left;
        buf_reset(&t->window, KEEP_CAP);
        t->window_at = t->at;
        if (buf_reserve(&t->window, want) != DC_OK) {
            return dc_fail(DC_ENOMEM, "snapshot %s: no memory for a frame", t->snap->path);
        }
        enum dc_err err = read_at(t->snap, t->window.ptr, want, t->at);
        if (err != DC_OK) {
            return err;
        }
        t->window.len = want;
        have = want;
    }
    *out = bytes_of(t->window.ptr + (t->at - t->window_at), len < have ? len : have);
    return DC_OK;
}

/* The history that the frame at t->lsn belongs to. Where one has been left, the next one goes on behind the gap. */
static uint64_t history_here(struct snap_tail *t) {
    const struct snap_facts *f = &t->snap->facts;
    uint32_t here = 0;
    for (uint32_t i = 1; i < f->chain_count; i++) {
        if (t->lsn >= f->chain[i].parent_end && t->lsn < f->chain[i].start &&
            f->chain[i].parent_end > 0) {
            t->lsn = f->chain[i].start;
        }
        if (t->lsn >= f->chain[i].start) {
            here = i;
        }
    }
    return f->chain[here].id;
}

static enum log_end tail_damaged(const struct snap_tail *t) {
    (void)dc_fail(DC_ECORRUPT,
                  "snapshot %s: the log in its tail is damaged at LSN %" PRIu64 ", byte %" PRIu64,
                  t->snap->path, t->lsn, t->at);
    return LOG_DAMAGED;
}

enum log_end snap_tail_next(struct snap_tail *t, struct frame_ref *out) {
    const struct snap_footer *f = &t->snap->footer;
    struct bytes bytes;
    memset(out, 0, sizeof(*out));
    if (t->at == f->index_offset) {
        return t->lsn == f->end_lsn || f->start_lsn == f->end_lsn ? LOG_END : tail_damaged(t);
    }
    uint64_t history = history_here(t);
    if (window_get(t, FRAME_HEADER_LEN, &bytes) != DC_OK) {
        return LOG_FAILED;
    }
    enum frame_verdict verdict =
        frame_check_head(bytes.ptr, bytes.len, history, t->lsn, &out->head);
    if (verdict != FRAME_OK && verdict != FRAME_SHORT) {
        return tail_damaged(t);
    }
    if (bytes.len < FRAME_HEADER_LEN ||
        out->head.body_len > f->index_offset - t->at - FRAME_HEADER_LEN) {
        return tail_damaged(t);
    }
    if (window_get(t, FRAME_HEADER_LEN + out->head.body_len, &bytes) != DC_OK) {
        return LOG_FAILED;
    }
    if (frame_check(bytes.ptr, bytes.len, history, t->lsn, &out->head) != FRAME_OK) {
        return tail_damaged(t);
    }
    out->bytes = bytes.ptr;
    out->len = bytes.len;
    out->lsn = t->lsn;
    out->history = history;
    out->file_offset = t->at;
    t->at += bytes.len;
    t->lsn += bytes.len;
    return LOG_MORE;
}
