/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/scan_pieces.h"

#include "server/base/mem.h"
#include "server/base/thread.h"

#include <string.h>

enum { THREADS_MAX = 16 };

/* --- which ------------------------------------------------------------------------------------------- */

/* The part of a segment that counts, behind 'from'. False: nothing of it. */
static bool part_of(const struct log_dir *d, uint32_t index, uint64_t from, uint64_t *begin,
                    uint64_t *end) {
    const struct segment_info *s = &d->segments[index];
    if (!segment_counts(s)) {
        return false;
    }
    *begin = s->head.first_lsn > from ? s->head.first_lsn : from;
    *end = log_dir_segment_end(d, index);
    return *begin < *end;
}

static uint64_t len_behind(const struct log_dir *d, uint64_t from) {
    uint64_t len = 0, begin, end;
    for (uint32_t i = 0; i < d->count; i++) {
        len += part_of(d, i, from, &begin, &end) ? end - begin : 0;
    }
    return len;
}

/* Long ones first, so that lists for each range are made for few; short ones at the end, so that all threads are done at about the same time. */
static uint64_t len_of_next(uint64_t left, uint32_t threads, uint64_t least) {
    uint64_t len = left / (2 * threads);
    return len > least ? len : least;
}

/* Whatever the segments are like. */
static void cut(struct pieces *p, uint64_t from, uint64_t total, uint32_t threads, uint64_t least) {
    uint64_t passed = 0, next = 0, begin, end;
    p->list = mem_must_zalloc((total / least + 1) * sizeof(*p->list));
    for (uint32_t i = 0; i < p->dir->count; i++) {
        if (!part_of(p->dir, i, from, &begin, &end)) {
            continue;
        }
        while (next < passed + (end - begin)) {
            uint64_t first = begin + (next - passed);
            next += len_of_next(total - next, threads, least);
            if (p->count > 0) {
                p->list[p->count - 1].below = first;
            }
            p->list[p->count++] = (struct piece){.first = first, .below = UINT64_MAX};
        }
        passed += end - begin;
    }
}

/* --- reading ----------------------------------------------------------------------------------------- */

void sums_join(struct scan_sums *to, const struct scan_sums *behind) {
    to->frames += behind->frames;
    to->effects += behind->effects;
    to->bytes += behind->bytes;
    to->last_time_ms =
        behind->last_time_ms > to->last_time_ms ? behind->last_time_ms : to->last_time_ms;
    to->last_kind = behind->last_kind;
    to->at = behind->at;
}

void sums_add(struct scan_sums *to, const struct frame_ref *f) {
    struct scan_sums one = {.frames = 1,
                            .effects = f->head.effect_count,
                            .bytes = f->len,
                            .last_time_ms = f->head.time_ms,
                            .last_kind = f->head.kind,
                            .at = f->lsn + f->len};
    sums_join(to, &one);
}

static enum dc_err take_frame(struct piece *piece, const char *name, const struct frame_ref *f) {
    if (piece->sums.frames == 0) {
        piece->from = f->lsn;
        piece->history = f->history;
    }
    sums_add(&piece->sums, f);
    return queue_frame(&piece->queue, name, f);
}

/* A FORK frame is for who reads in order: the piece begins behind it, or ends before it. */
static bool belongs(const struct piece *piece, const struct frame_ref *f) {
    return f->lsn < piece->below && f->head.kind != FRAME_FORK &&
           (piece->sums.frames == 0 || (f->lsn == piece->sums.at && f->history == piece->history));
}

static bool read_frames(struct piece *piece, const struct log_dir *d, struct log_reader *r) {
    struct frame_ref f;
    enum log_end end = log_reader_next(r, &f);
    enum dc_err err = DC_OK;
    if (end == LOG_MORE && f.head.kind == FRAME_FORK) {
        end = log_reader_next(r, &f);
    }
    while (err == DC_OK && end == LOG_MORE && belongs(piece, &f)) {
        err = take_frame(piece, d->segments[f.segment].name, &f);
        end = log_reader_next(r, &f);
    }
    return err == DC_OK && end != LOG_FAILED && log_reader_check(r) == DC_OK;
}

static void read_piece(const struct pieces *p, struct piece *piece) {
    struct log_reader *reader = NULL;
    queue_init(&piece->queue, p->opts->io, p->range_bits);
    if (log_reader_open(&reader, p->dir, piece->first) == DC_OK) {
        piece->is_ready = log_reader_seek(reader, piece->below) &&
                          read_frames(piece, p->dir, reader) && piece->sums.frames > 0;
        log_reader_close(reader);
    }
    if (!piece->is_ready) {
        queue_fini(&piece->queue);
    }
}

static void read_some(void *arg) {
    struct pieces *p = arg;
    for (;;) {
        /* Relaxed: the number is all that is taken. */
        uint32_t i = atomic_fetch_add_explicit(&p->next_read, 1, memory_order_relaxed);
        if (i >= p->count) {
            break;
        }
        read_piece(p, &p->list[i]);
    }
}

static uint32_t least_of(uint64_t a, uint32_t b) {
    return a < b ? (uint32_t)a : b;
}

void pieces_read(struct pieces *p, const struct warm_opts *opts, const struct log_dir *dir,
                 uint32_t range_bits, uint64_t from) {
    struct thread helpers[THREADS_MAX];
    uint64_t least = opts->piece_len > 0 ? opts->piece_len : PIECE_LEN;
    uint64_t total = opts->threads > 1 ? len_behind(dir, from) : 0;
    uint32_t threads = least_of(total / least, least_of(opts->threads, THREADS_MAX));
    memset(p, 0, sizeof(*p));
    p->opts = opts;
    if (threads < 2 || opts->to_lsn != 0 || opts->to_time_ms != 0) {
        return;
    }
    p->dir = dir;
    p->range_bits = range_bits;
    cut(p, from, total, threads, least);
    for (uint32_t i = 0; i + 1 < threads; i++) {
        thread_start(&helpers[i], "log-scan", read_some, p);
    }
    read_some(p);
    for (uint32_t i = 0; i + 1 < threads; i++) {
        thread_join(&helpers[i]);
    }
}

/* --- taking ------------------------------------------------------------------------------------------ */

static void drop(struct piece *piece) {
    if (piece->is_ready) {
        queue_fini(&piece->queue);
        piece->is_ready = false;
    }
}

bool pieces_reach(struct pieces *p, uint64_t at, uint64_t history) {
    for (; p->next < p->count; p->next++) {
        struct piece *piece = &p->list[p->next];
        if (piece->is_ready && piece->from >= at) {
            return piece->from == at && piece->history == history;
        }
        drop(piece);
    }
    return false;
}

enum dc_err pieces_take(struct pieces *p, struct effect_queue *queue, struct scan_sums *sums) {
    struct piece *piece = &p->list[p->next];
    enum dc_err err = queue_append(queue, &piece->queue);
    if (err == DC_OK) {
        piece->is_ready = false;
        p->next++;
        sums_join(sums, &piece->sums);
    }
    return err;
}

void pieces_fini(struct pieces *p) {
    for (uint32_t i = 0; i < p->count; i++) {
        drop(&p->list[i]);
    }
    mem_free(p->list);
    memset(p, 0, sizeof(*p));
}
