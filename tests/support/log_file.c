/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/log_file.h"

#include "server/base/mem.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define must(condition) dc_assert(condition)

static void add_end(struct log_file *f) {
    if ((f->count & (f->count - 1)) == 0) {
        f->ends = mem_must_realloc(f->ends,
                                   (f->count == 0 ? 1 : 2 * (size_t)f->count) * sizeof(*f->ends));
    }
    f->ends[f->count++] = log_file_end(f);
}

static void begin_history(struct log_file *f, uint64_t start, uint64_t parent_end) {
    must(f->chain_count < LOG_FILE_CHAIN_MAX);
    f->chain[f->chain_count++] = (struct history){.id = 0x1111111111111111u * (f->chain_count + 1),
                                                  .start = start,
                                                  .epoch = 1,
                                                  .parent_end = parent_end};
    f->first_lsn = start;
    f->bytes.len = 0;
    f->count = 0;
    frame_encode_fork(&f->bytes, start, f->time_ms, f->chain, f->chain_count);
    add_end(f);
}

void log_file_init(struct log_file *f, uint64_t first_lsn) {
    *f = (struct log_file){.node_id = {1, 2, 3}, .time_ms = ENGINE_NOW_MS};
    buf_init(&f->bytes, 0);
    begin_history(f, first_lsn, 0);
}

void log_file_fini(struct log_file *f) {
    buf_fini(&f->bytes);
    mem_free(f->ends);
}

uint64_t log_file_end(const struct log_file *f) {
    return f->first_lsn + f->bytes.len;
}

void log_file_attach(struct log_file *f, struct engine *e) {
    e->commit = log_file_commit;
    e->commit_arg = f;
}

void log_file_commit(void *arg, struct mut *m) {
    struct log_file *f = arg;
    uint32_t blob_count = frame_measure(m)->blobs;
    size_t inline_len = (size_t)frame_measure(m)->inline_len;
    char *text = mem_must_alloc(inline_len);
    struct frame_blob *blobs = mem_must_alloc((blob_count + 1) * sizeof(*blobs));
    uint32_t listed =
        frame_encode(m, f->chain[f->chain_count - 1].id, log_file_end(f), text, blobs);
    must(listed == blob_count);
    size_t at = 0;
    for (uint32_t i = 0; i < blob_count; i++) {
        buf_append(&f->bytes, text + at, blobs[i].at - at);
        at = blobs[i].at;
        buf_append(&f->bytes, blobs[i].blob->data, blobs[i].blob->len);
    }
    buf_append(&f->bytes, text + at, inline_len - at);
    must(!f->bytes.failed);
    f->time_ms = m->now_ms;
    add_end(f);
    mem_free(blobs);
    mem_free(text);
    mut_commit(m);
}

void log_file_fork(struct log_file *f, uint64_t start) {
    begin_history(f, start, log_file_end(f));
}

void log_file_close(struct log_file *f) {
    frame_encode_close(&f->bytes, f->chain[f->chain_count - 1].id, log_file_end(f), f->time_ms);
    add_end(f);
}

void log_file_path(const struct log_file *f, const char *dir, uint64_t from, char *to,
                   size_t size) {
    char name[SEGMENT_NAME_MAX];
    segment_name(from == 0 ? f->first_lsn : from, f->chain[f->chain_count - 1].id, name);
    snprintf(to, size, "%s/%s", dir, name);
}

static void write_all(int fd, const void *ptr, size_t len, off_t at) {
    must(pwrite(fd, ptr, len, at) == (ssize_t)len);
}

void log_file_write(const struct log_file *f, const char *dir, uint64_t from, uint64_t to,
                    uint64_t durable_lsn) {
    struct segment_head head = {.first_lsn = from == 0 ? f->first_lsn : from,
                                .history = f->chain[f->chain_count - 1],
                                .created_ms = f->time_ms};
    uint8_t page[SEGMENT_HEADER_LEN] = {0};
    char path[512];
    uint64_t end = to == 0 ? log_file_end(f) : to;
    memcpy(head.node_id, f->node_id, NODE_ID_LEN);
    memcpy(head.seed, f->seed, SEED_LEN);
    segment_head_encode(&head, page);
    if (durable_lsn != 0) {
        struct segment_mark mark = {durable_lsn, f->time_ms};
        segment_mark_encode(head.first_lsn, &mark, page + SEGMENT_MARK_AT);
    }
    log_file_path(f, dir, from, path, sizeof(path));
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
    must(fd >= 0);
    write_all(fd, page, sizeof(page), 0);
    write_all(fd, f->bytes.ptr + (head.first_lsn - f->first_lsn), end - head.first_lsn,
              SEGMENT_HEADER_LEN);
    must(ftruncate(fd, (off_t)(SEGMENT_HEADER_LEN + (end - head.first_lsn) + 8192)) == 0);
    close(fd);
}

void log_file_each(const struct log_file *f, uint64_t from, uint64_t to, log_file_fn each,
                   void *arg) {
    uint64_t lsn = f->first_lsn;
    for (uint32_t i = 0; i < f->count; lsn = f->ends[i++]) {
        if (lsn < from || f->ends[i] > to) {
            continue;
        }
        const char *frame = f->bytes.ptr + (lsn - f->first_lsn);
        size_t len = (size_t)(f->ends[i] - lsn);
        struct frame_head head;
        must(frame_check(frame, len, f->chain[f->chain_count - 1].id, lsn, &head) == FRAME_OK);
        size_t at = FRAME_HEADER_LEN;
        for (uint32_t n = 0; n < head.effect_count; n++) {
            struct effect_view e;
            must(effect_decode(frame, len, at, lsn, &e));
            at += e.len;
            each(arg, &e);
        }
    }
}

/* --- files ------------------------------------------------------------------------------------------- */

void file_poke(const char *path, int64_t at, const void *bytes, size_t len) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    struct stat st;
    must(fd >= 0 && fstat(fd, &st) == 0);
    write_all(fd, bytes, len, at >= 0 ? (off_t)at : st.st_size + (off_t)at);
    close(fd);
}

bool file_exists(const char *dir, const char *name) {
    char path[1024];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}
