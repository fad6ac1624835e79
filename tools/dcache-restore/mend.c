/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A snapshot that can't be opened because its end is damaged or missing. Each block has a head with a checksum over itself and its
 * data, seeded with its place: so blocks are found without the index. They are copied to a temporary file, one behind the other, with
 * the frames of the tail as far as they are good, a new index and a new footer. It lies beside TARGET, where as much room is needed anyway.
 */
#include "persist/frame_fmt.h"
#include "persist/new_dir.h"
#include "server/base/assert.h"
#include "server/base/buf.h"
#include "server/base/codec.h"
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "tools/dcache-restore/repair_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct mend {
    const char *path;
    const char *map;
    uint64_t len;
    struct snap_head head;
    struct snap_block_info *blocks; /* where they are in the new file */
    uint64_t count, cap;
    FILE *to;
    char to_path[PATH_MAX];
    uint64_t end; /* of what is written */
    uint64_t tail_end_lsn;
    struct repair_report *report;
};

/* The block at an offset, if there is one. */
static bool block_at(const struct mend *m, uint64_t at, struct snap_block_info *out) {
    uint8_t entry[SNAP_INDEX_ENTRY_LEN];
    if (m->len - at < SNAP_BLOCK_HEAD_LEN) {
        return false;
    }
    put_u64(entry, at); /* else the index has the same fields at the same places */
    memcpy(entry + 8, m->map + at + 8, SNAP_INDEX_ENTRY_LEN - 8);
    return snap_index_decode(entry, out) && out->stored_len <= m->len - at - SNAP_BLOCK_HEAD_LEN &&
           out->range == snap_range_of(m->head.range_bits, out->keyspace, out->first_pos) &&
           (out->keyspace < KEYSPACE_MAX || out->keyspace == KEYSPACE_SYSTEM) &&
           snap_block_head_check(m->map + at, out, m->head.sum, m->map + at + SNAP_BLOCK_HEAD_LEN);
}

static enum dc_err put(struct mend *m, const void *ptr, size_t len) {
    if (len > 0 && fwrite(ptr, 1, len, m->to) != len) {
        return dc_fail(DC_EIO, "temporary file %s: %s", m->to_path, dc_errno_text(errno));
    }
    m->end += len;
    return DC_OK;
}

static enum dc_err take_block(struct mend *m, const struct snap_block_info *b) {
    uint8_t head[SNAP_BLOCK_HEAD_LEN];
    const char *stored = m->map + b->offset + SNAP_BLOCK_HEAD_LEN;
    struct snap_block_info moved = *b;
    moved.offset = m->end;
    snap_block_head_encode(&moved, m->head.sum, stored, head);
    if (m->count == m->cap) {
        m->cap = m->cap == 0 ? 256 : 2 * m->cap;
        m->blocks = mem_must_realloc(m->blocks, m->cap * sizeof(*m->blocks));
    }
    m->blocks[m->count++] = moved;
    enum dc_err err = put(m, head, sizeof(head));
    return err != DC_OK ? err : put(m, stored, b->stored_len);
}

/* All blocks; 'at' is where the last one ends. */
static enum dc_err take_blocks(struct mend *m, uint64_t *at) {
    enum dc_err err = DC_OK;
    uint64_t look = *at = SNAP_HEADER_LEN;
    while (err == DC_OK && look < m->len) {
        struct snap_block_info b;
        if (!block_at(m, look, &b)) {
            look++;
            continue;
        }
        if (look > *at) {
            repair_note(m->report,
                        "%s: no valid block at offset %" PRIu64 ", %" PRIu64 " bytes passed over",
                        m->path, *at, look - *at);
        }
        err = take_block(m, &b);
        look = *at = look + SNAP_BLOCK_HEAD_LEN + b.stored_len;
    }
    return err;
}

/* The tail's frames begin where the blocks end. */
static enum dc_err take_tail(struct mend *m, uint64_t at) {
    struct frame_head head;
    enum dc_err err = DC_OK;
    m->tail_end_lsn = m->head.start_lsn;
    while (err == DC_OK && at < m->len &&
           frame_check(m->map + at, (size_t)(m->len - at), m->head.history.id, m->tail_end_lsn,
                       &head) == FRAME_OK) {
        size_t len = FRAME_HEADER_LEN + (size_t)head.body_len;
        err = put(m, m->map + at, len);
        at += len;
        m->tail_end_lsn += len;
    }
    return err;
}

static int compare_blocks(const void *a, const void *b) {
    return snap_index_compare(a, b);
}

static enum dc_err put_index(struct mend *m, struct snap_footer *f) {
    uint8_t *bytes = mem_must_alloc((m->count + 1) * SNAP_INDEX_ENTRY_LEN);
    if (m->count > 0) {
        qsort(m->blocks, m->count, sizeof(*m->blocks), compare_blocks);
    }
    for (uint64_t i = 0; i < m->count; i++) {
        const struct snap_block_info *b = &m->blocks[i];
        snap_index_encode(b, bytes + i * SNAP_INDEX_ENTRY_LEN);
        f->entries += b->entries;
        f->plain_bytes += b->plain_len;
        f->stored_bytes += b->stored_len;
    }
    f->block_count = m->count;
    f->index_offset = m->end;
    f->index_sum = snap_index_sum(bytes, m->count * SNAP_INDEX_ENTRY_LEN, m->head.sum);
    enum dc_err err = put(m, bytes, m->count * SNAP_INDEX_ENTRY_LEN);
    mem_free(bytes);
    return err;
}

/* The chain up to the history of the snapshot; that alone when nobody knows it. */
static uint32_t chain_up_to(const struct mend *m, const struct history *chain, uint32_t count) {
    for (uint32_t i = 0; i < count && i < SNAP_HISTORIES_MAX; i++) {
        if (chain[i].id == m->head.history.id) {
            return i + 1;
        }
    }
    return 0;
}

static enum dc_err rebuild(struct mend *m, const struct history *chain, uint32_t chain_count) {
    uint8_t header[SNAP_HEADER_LEN];
    struct snap_footer f = {.start_lsn = m->head.start_lsn, .finished_ms = m->head.begun_ms};
    uint32_t known = chain_up_to(m, chain, chain_count);
    uint64_t blocks_end = 0;
    memcpy(header, m->map, sizeof(header));
    enum dc_err err = put(m, header, sizeof(header));
    err = err != DC_OK ? err : take_blocks(m, &blocks_end);
    f.tail_offset = m->end;
    err = err != DC_OK ? err : take_tail(m, blocks_end);
    f.tail_len = m->end - f.tail_offset;
    f.end_lsn = m->tail_end_lsn;
    err = err != DC_OK ? err : put_index(m, &f);
    if (err != DC_OK) {
        return err;
    }
    f.history_count = known > 0 ? known : 1;
    uint8_t *footer = mem_must_zalloc(snap_footer_len(f.history_count));
    snap_footer_encode(&f, known > 0 ? chain : &m->head.history, m->head.sum, m->end, footer);
    err = put(m, footer, snap_footer_len(f.history_count));
    mem_free(footer);
    return err;
}

/* A dry run may have no TARGET. */
static void temporary_name(const char *target, char to[PATH_MAX]) {
    const char *dir = getenv("TMPDIR");
    if (target != NULL) {
        new_dir_beside(target, ".mended-XXXXXX", to);
    } else {
        snprintf(to, PATH_MAX, "%s/dcache-restore-XXXXXX", dir != NULL ? dir : "/tmp");
    }
}

static enum dc_err make_file(struct mend *m, const struct repair *r, struct snap **out) {
    temporary_name(r->o->target, m->to_path);
    int fd = mkstemp(m->to_path);
    m->to = fd < 0 ? NULL : fdopen(fd, "w");
    if (m->to == NULL) {
        return dc_fail(DC_EIO, "temporary file %s: %s", m->to_path, dc_errno_text(errno));
    }
    enum dc_err err = rebuild(m, r->dir.chain, r->dir.chain_count);
    if (fclose(m->to) != 0 && err == DC_OK) {
        err = dc_fail(DC_EIO, "temporary file %s: %s", m->to_path, dc_errno_text(errno));
    }
    err = err != DC_OK ? err : snap_open(&io_posix, m->to_path, out);
    unlink(m->to_path);
    return err;
}

enum dc_err mend_snapshot(struct repair *r, const char *path, struct snap **out) {
    struct mend m = {.path = path, .report = r->report};
    struct io_file f;
    int rc = io_posix.open(&io_posix, path, IO_READ, &f);
    int64_t len = rc < 0 ? rc : io_posix.size(&io_posix, &f);
    m.map = len > SNAP_HEADER_LEN ? io_posix.map(&io_posix, &f, (uint64_t)len) : NULL;
    if (rc >= 0) {
        io_posix.close(&io_posix, &f);
    }
    if (m.map == NULL) {
        return dc_fail(DC_ECORRUPT, "%s is too short to be a snapshot", path);
    }
    m.len = (uint64_t)len;
    enum dc_err err = DC_OK;
    if (snap_head_decode(m.map, (size_t)m.len, &m.head) != HEAD_OK) {
        repair_note(r->report, "%s: without its header no block can be checked; passed over", path);
        err = DC_ECORRUPT;
    }
    err = err != DC_OK ? err : make_file(&m, r, out);
    if (err == DC_OK) {
        repair_note(r->report, "%s: index and footer were made anew from %" PRIu64 " blocks", path,
                    m.count);
    }
    io_posix.unmap(&io_posix, m.map, m.len);
    mem_free(m.blocks);
    return err;
}
