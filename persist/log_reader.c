/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which segment holds an LSN: of those of its history that begin at or before it, the one that begins last. A segment that was begun
 * anew after a failed fdatasync lies over the end of an older one and wins. If it has no good frame there, the older ones are asked:
 * a history gives an LSN once, so what has the right sums is the right frame wherever it stands.
 *
 * Where no segment has a frame the log ends. Below a durable mark, or before the fork of a newer history, that is damage; a power cut
 * can't do it. Above it, zeros are the end and anything else is a torn tail.
 */
#include "persist/log_reader.h"

#include "server/base/assert.h"
#include "server/base/mem.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* How far behind a bad place good frames are looked for. */
#define SEARCH_MAX ((uint64_t)256 * 1024 * 1024)

enum { WINDOW_LEN = 256 * 1024 };

struct log_reader {
    const struct log_dir *d;
    uint64_t lsn;      /* where the next frame begins */
    uint64_t good_lsn; /* end of the last frame */
    uint32_t link;     /* of the chain */
    bool joins;
    struct log_end_info end;

    /* the segment that is mapped */
    uint32_t segment; /* LOG_NO_SEGMENT = none */
    const char *map;  /* NULL: it has no byte of log */
    uint64_t map_len;
    uint64_t history;
    uint64_t first_lsn;
    uint64_t stop; /* LSN from which on another segment has to be looked for */

    /* What is read of it comes in pieces: a page that is touched for the first time in a map costs more than reading it. A frame that is longer, and what
     * stands at the end, where somebody may be writing, is looked at in the map. */
    struct io_file file;
    bool is_open;
    bool map_only; /* the end is near, or a bad place */
    bool is_part;  /* where the log ends is for another one to say */
    char *window;
    uint64_t window_at; /* offset in the file */
    size_t window_len;

    /* of the maps couldn't be read: */
    bool lost;       /* something, in this call */
    bool given_lost; /* something of what was returned, ever */

    /* the segment that was mapped last may have grown since log_dir_open() */
    uint32_t last_segment;
    uint64_t last_reach;
};

/* --- segments ---------------------------------------------------------------------------------------- */

static bool is_usable(const struct log_reader *r, uint32_t index, uint32_t link) {
    const struct segment_info *s = &r->d->segments[index];
    return s->verdict == HEAD_OK && s->link == link && !s->abandoned;
}

/* LSN of the byte behind the file's last. */
static uint64_t reach(const struct segment_info *s) {
    uint64_t room = s->file_len > SEGMENT_HEADER_LEN ? s->file_len - SEGMENT_HEADER_LEN : 0;
    return s->head.first_lsn + room;
}

static bool covers(const struct log_reader *r, uint32_t index, uint64_t lsn) {
    const struct segment_info *s = &r->d->segments[index];
    return s->head.first_lsn <= lsn &&
           (lsn <= reach(s) || (index == r->last_segment && lsn <= r->last_reach));
}

/* The next segment of the link that covers the LSN, below 'below' in the list. */
static uint32_t covering(const struct log_reader *r, uint32_t link, uint64_t lsn, uint32_t below) {
    for (uint32_t i = below; i-- > 0;) {
        if (is_usable(r, i, link) && covers(r, i, lsn)) {
            return i;
        }
    }
    return LOG_NO_SEGMENT;
}

/* The first segment of the link that begins at or behind the LSN. */
static uint32_t next_segment(const struct log_reader *r, uint32_t link, uint64_t lsn) {
    for (uint32_t i = 0; i < r->d->count; i++) {
        if (is_usable(r, i, link) && r->d->segments[i].head.first_lsn >= lsn) {
            return i;
        }
    }
    return LOG_NO_SEGMENT;
}

/* What was returned was right when it was checked; a page that went since may have been missing when the caller used it. */
static void note_lost(struct log_reader *r) {
    const struct io *io = r->d->io;
    if (dc_likely(r->map == NULL || !io->lost(io, r->map, r->map_len))) {
        return;
    }
    r->lost = true;
    if (r->good_lsn > r->first_lsn) {
        uint64_t given = SEGMENT_HEADER_LEN + (r->good_lsn - r->first_lsn);
        r->given_lost |= io->lost(io, r->map, given < r->map_len ? given : r->map_len);
    }
}

static void drop_map(struct log_reader *r) {
    note_lost(r);
    if (r->map != NULL) {
        r->d->io->unmap(r->d->io, r->map, r->map_len);
        r->map = NULL;
    }
    if (r->is_open) {
        r->d->io->close(r->d->io, &r->file);
        r->is_open = false;
    }
    r->map_len = 0;
    r->window_len = 0;
    r->map_only = false;
    r->segment = LOG_NO_SEGMENT;
}

/* Maps the segment, as long as its file is now. */
static enum dc_err use_segment(struct log_reader *r, uint32_t index) {
    const struct io *io = r->d->io;
    const struct segment_info *s = &r->d->segments[index];
    if (r->segment == index) {
        return DC_OK;
    }
    drop_map(r);
    char path[4096];
    int n = snprintf(path, sizeof(path), "%s/%s", r->d->path, s->name);
    if (n >= (int)sizeof(path)) {
        return dc_fail(DC_EIO, "the path of %s is too long", s->name);
    }
    int rc = io->open(io, path, IO_READ, &r->file);
    if (rc != 0) {
        return dc_fail(DC_EIO, "open %s: %s", path, dc_errno_text(-rc));
    }
    r->is_open = true;
    int64_t len = io->size(io, &r->file);
    enum dc_err err = len < 0 ? dc_fail(DC_EIO, "size of %s", path) : DC_OK;
    if (len > SEGMENT_HEADER_LEN) {
        r->map = io->map(io, &r->file, (uint64_t)len);
        r->map_len = r->map != NULL ? (uint64_t)len : 0;
        err = r->map == NULL ? dc_fail(DC_EIO, "%s can't be mapped", path) : DC_OK;
    }
    if (err != DC_OK) {
        return err;
    }
    r->segment = index;
    r->first_lsn = s->head.first_lsn;
    r->history = s->head.history.id;
    r->last_segment = index;
    r->last_reach = r->first_lsn + (r->map != NULL ? r->map_len - SEGMENT_HEADER_LEN : 0);
    return DC_OK;
}

/* --- frames ------------------------------------------------------------------------------------------ */

static void read_window(struct log_reader *r, uint64_t offset) {
    const struct io *io = r->d->io;
    uint64_t left = r->map_len - offset;
    size_t len = left < WINDOW_LEN ? (size_t)left : WINDOW_LEN;
    ssize_t n = io->read_at(io, &r->file, r->window, len, offset);
    r->window_at = offset;
    r->window_len = n > 0 ? (size_t)n : 0;
    r->map_only |= n < 0; /* or it would be read again for each frame before the bad place */
}

/* The frame at an offset, if it is right and in one piece; NULL = the map has to say. */
static const char *frame_in_window(struct log_reader *r, uint64_t offset, struct frame_head *head) {
    for (int tries = 0; tries < 2; tries++) {
        bool in = offset >= r->window_at && offset < r->window_at + r->window_len;
        const char *at = in ? r->window + (offset - r->window_at) : NULL;
        if (in && frame_check(at, (size_t)(r->window_at + r->window_len - offset), r->history,
                              r->lsn, head) == FRAME_OK) {
            return at;
        }
        if (tries == 0) { /* its end isn't in it, or the window is old */
            read_window(r, offset);
        }
    }
    return NULL;
}

static const char *frame_in_map(struct log_reader *r, uint64_t offset, struct frame_head *head) {
    const char *at = r->map + offset;
    return frame_check(at, (size_t)(r->map_len - offset), r->history, r->lsn, head) == FRAME_OK
               ? at
               : NULL;
}

/* The frame at r->lsn in the mapped segment. */
static bool take_frame(struct log_reader *r, struct frame_ref *out) {
    uint64_t offset = SEGMENT_HEADER_LEN + (r->lsn - r->first_lsn);
    if (offset >= r->map_len) {
        return false;
    }
    const char *at = r->map_only ? NULL : frame_in_window(r, offset, &out->head);
    at = at != NULL ? at : frame_in_map(r, offset, &out->head);
    if (at == NULL) {
        r->map_only = true;
        return false;
    }
    out->bytes = at;
    out->len = FRAME_HEADER_LEN + (size_t)out->head.body_len;
    out->lsn = r->lsn;
    out->history = r->history;
    out->segment = r->segment;
    out->file_offset = offset;
    dc_debug_assert(out->len <= r->map_len - offset);
    r->lsn += out->len;
    r->good_lsn = r->lsn;
    return true;
}

/* At a fork: on to the next history of the chain that has any part in it. */
static void follow_fork(struct log_reader *r) {
    while (r->link + 1 < r->d->chain_count && r->lsn == log_dir_link_end(r->d, r->link)) {
        do {
            r->link++;
        } while (log_dir_link_end(r->d, r->link) <= r->d->chain[r->link].start);
        r->lsn = r->d->chain[r->link].start;
        drop_map(r);
    }
}

/* --- the end ----------------------------------------------------------------------------------------- */

/* The LSN below which a power cut can't have taken anything, as far as the marks of this history say. A mark at the begin of its
 * segment doesn't say that all before it was durable. */
static uint64_t durable_of(const struct log_reader *r) {
    uint64_t durable = 0;
    for (uint32_t i = 0; i < r->d->count; i++) {
        const struct segment_info *s = &r->d->segments[i];
        if (!is_usable(r, i, r->link)) {
            continue;
        }
        if (s->mark == MARK_OK && s->durable_lsn > s->head.first_lsn && s->durable_lsn > durable) {
            durable = s->durable_lsn;
        }
        /* A FORK frame is durable before anything is written behind it. */
        uint64_t start = s->head.history.start;
        if (r->link > 0 && s->head.first_lsn > start && durable <= start) {
            durable = start + 1;
        }
    }
    return durable;
}

/* A segment with a damaged header that may hold what comes next. */
static uint32_t unreadable(const struct log_reader *r, uint32_t current) {
    for (uint32_t i = 0; i < r->d->count; i++) {
        const struct segment_info *s = &r->d->segments[i];
        bool ours = s->link == r->link || s->link == LOG_NO_LINK;
        bool later = current != LOG_NO_SEGMENT
                         ? s->head.first_lsn > r->d->segments[current].head.first_lsn
                         : s->head.first_lsn >= r->lsn || covers(r, i, r->lsn);
        if (s->verdict != HEAD_OK && !s->blank && !s->abandoned && ours && later) {
            return i;
        }
    }
    return LOG_NO_SEGMENT;
}

/* What stands there that isn't zeros; what can't be read is noted. */
static uint64_t junk_len(struct log_reader *r, struct io_file *f, uint64_t from, uint64_t to) {
    int64_t len = io_junk_len(r->d->io, f, from, to);
    r->lost |= len < 0;
    return len < 0 ? 0 : (uint64_t)len;
}

/* Is it the header of a frame that belongs there? And the whole frame? In the mapped segment. */
static bool head_at(const struct log_reader *r, uint64_t at, struct frame_head *head) {
    const char *ptr = r->map + at;
    size_t len = (size_t)(r->map_len - at);
    uint64_t lsn = r->first_lsn + (at - SEGMENT_HEADER_LEN);
    return frame_may_begin(ptr, len) &&
           frame_check_head(ptr, len, r->history, lsn, head) == FRAME_OK;
}

static bool frame_at(const struct log_reader *r, uint64_t at, struct frame_head *head) {
    uint64_t lsn = r->first_lsn + (at - SEGMENT_HEADER_LEN);
    return frame_check(r->map + at, (size_t)(r->map_len - at), r->history, lsn, head) == FRAME_OK;
}

/* Does a good frame begin in the mapped segment, between the two offsets? Few places need more than a look at two numbers. */
static bool find_frame(const struct log_reader *r, uint64_t from, uint64_t to) {
    struct frame_head head;
    to = to - from > SEARCH_MAX ? from + SEARCH_MAX : to;
    for (uint64_t at = from; at < to && at + FRAME_HEADER_LEN <= r->map_len; at++) {
        if (head_at(r, at, &head) && frame_at(r, at, &head)) {
            return true;
        }
    }
    return false;
}

/* What stands in the mapped segment where a frame should begin. */
static void look_behind(struct log_reader *r) {
    struct log_end_info *e = &r->end;
    uint64_t from = SEGMENT_HEADER_LEN + (r->lsn - r->first_lsn);
    e->segment = r->segment;
    e->file_offset = from;
    if (from >= r->map_len) {
        return;
    }
    /* Behind r->stop the next segment counts. */
    uint64_t room = r->stop - r->lsn;
    uint64_t to = room < r->map_len - from ? from + room : r->map_len;
    e->junk_len = junk_len(r, &r->file, from, to);
    e->frames_behind = e->junk_len > 0 && find_frame(r, from + 1, from + e->junk_len);
}

/* Zeros in the first places of later segments are no frames. Changes the mapped segment. */
static enum dc_err look_ahead(struct log_reader *r) {
    uint64_t lsn = r->lsn;
    for (uint32_t i = 0; i < r->d->count && !r->end.frames_behind; i++) {
        const struct segment_info *s = &r->d->segments[i];
        struct frame_head head;
        if (!is_usable(r, i, r->link) || s->head.first_lsn <= lsn) {
            continue;
        }
        enum dc_err err = use_segment(r, i);
        if (err != DC_OK) {
            return err;
        }
        r->end.frames_behind =
            r->map != NULL &&
            frame_check(r->map + SEGMENT_HEADER_LEN, (size_t)(r->map_len - SEGMENT_HEADER_LEN),
                        r->history, r->first_lsn, &head) == FRAME_OK;
    }
    return DC_OK;
}

/* A segment was begun and its header didn't reach the disk: what it holds can't have been durable. */
static bool blank_holds_something(struct log_reader *r) {
    for (uint32_t i = 0; i < r->d->count; i++) {
        const struct segment_info *s = &r->d->segments[i];
        struct io_file f;
        char path[4096];
        if (!s->blank || s->file_len <= SEGMENT_HEADER_LEN || s->head.first_lsn < r->lsn ||
            snprintf(path, sizeof(path), "%s/%s", r->d->path, s->name) >= (int)sizeof(path) ||
            r->d->io->open(r->d->io, path, IO_READ, &f) != 0) {
            continue;
        }
        uint64_t junk = junk_len(r, &f, SEGMENT_HEADER_LEN, s->file_len);
        r->d->io->close(r->d->io, &f);
        if (junk > 0) {
            return true;
        }
    }
    return false;
}

static const char *head_words(enum head_verdict v) {
    switch (v) {
    case HEAD_OK:
        return "good";
    case HEAD_NOT_OURS:
        return "not that of a log";
    case HEAD_NEWER:
        return "of a newer format";
    case HEAD_DAMAGED:
        return "damaged";
    }
    dc_unreachable();
}

static const char *segment_words(const struct log_reader *r, uint32_t index) {
    return index == LOG_NO_SEGMENT ? "no segment" : r->d->segments[index].name;
}

DC_PRINTF(3, 4)
static enum log_end ends(struct log_reader *r, enum log_end how, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(r->end.text, sizeof(r->end.text), fmt, args);
    va_end(args);
    drop_map(r);
    return how;
}

/* "no frame at ...", or what else is wrong at the end of the good frames. */
static void describe(const struct log_reader *r, uint32_t current, uint32_t later, char *to,
                     size_t size) {
    uint64_t reached = current != LOG_NO_SEGMENT ? reach(&r->d->segments[current]) : r->lsn;
    if (later != LOG_NO_SEGMENT && r->d->segments[later].head.first_lsn > reached) {
        snprintf(to, size, "a segment is missing between LSN %" PRIu64 " and %s", reached,
                 r->d->segments[later].name);
    } else {
        snprintf(to, size, "no frame at LSN %" PRIu64 " (%s, offset %" PRIu64 ")", r->lsn,
                 segment_words(r, current), r->end.file_offset);
    }
}

/* What it means that no segment has a frame here. 'current': the one that should have it; its bytes were looked at. */
static enum log_end judge(struct log_reader *r, uint32_t current) {
    const struct log_end_info *e = &r->end;
    uint32_t bad = unreadable(r, current);
    uint32_t later = next_segment(r, r->link, r->lsn + 1);
    uint64_t fork = log_dir_link_end(r->d, r->link);
    uint64_t durable = durable_of(r);
    const char *behind = e->frames_behind ? "; good frames follow" : "";
    char what[160];
    describe(r, current, later, what, sizeof(what));
    if (bad != LOG_NO_SEGMENT) {
        r->end.segment = bad;
        return ends(r, LOG_DAMAGED, "the header of %s is %s", r->d->segments[bad].name,
                    head_words(r->d->segments[bad].verdict));
    }
    if (r->lsn < durable) {
        return ends(r, LOG_DAMAGED, "%s, though the log was durable up to LSN %" PRIu64 "%s", what,
                    durable, behind);
    }
    if (fork != UINT64_MAX) {
        return ends(r, LOG_DAMAGED, "%s, though a newer history goes on from LSN %" PRIu64 "%s",
                    what, fork, behind);
    }
    if (later != LOG_NO_SEGMENT) {
        return ends(r, LOG_TORN, "%s, but later segments exist%s", what, behind);
    }
    if (e->junk_len > 0) {
        return ends(r, LOG_TORN, "%s, but %" PRIu64 " bytes of something%s", what, e->junk_len,
                    behind);
    }
    if (blank_holds_something(r)) {
        return ends(r, LOG_TORN, "%s, but something in a segment without a header", what);
    }
    return ends(r, LOG_END, "the log ends at LSN %" PRIu64 " (%s, offset %" PRIu64 ")", r->lsn,
                segment_words(r, current), e->file_offset);
}

static enum log_end failed(struct log_reader *r) {
    /* The record stays for who takes it. */
    return ends(r, LOG_FAILED, "a segment can't be read");
}

static enum log_end find_end(struct log_reader *r) {
    uint32_t current = covering(r, r->link, r->lsn, r->d->count);
    r->end = (struct log_end_info){.segment = LOG_NO_SEGMENT, .lsn = r->good_lsn, .at_lsn = r->lsn};
    if (r->is_part) {
        return ends(r, LOG_END, "no more frames");
    }
    if (current != LOG_NO_SEGMENT) {
        if (use_segment(r, current) != DC_OK) {
            return failed(r);
        }
        look_behind(r);
    }
    if (!r->end.frames_behind && look_ahead(r) != DC_OK) {
        return failed(r);
    }
    return judge(r, current);
}

/* --- the reader -------------------------------------------------------------------------------------- */

/* The slow half of the next frame: another segment, another history, or the end. */
static enum log_end find_next(struct log_reader *r, struct frame_ref *out) {
    follow_fork(r);
    uint32_t later = next_segment(r, r->link, r->lsn + 1);
    uint64_t fork = log_dir_link_end(r->d, r->link);
    uint64_t next = later != LOG_NO_SEGMENT ? r->d->segments[later].head.first_lsn : UINT64_MAX;
    r->stop = next < fork ? next : fork;
    if (r->lsn < fork) {
        for (uint32_t i = covering(r, r->link, r->lsn, r->d->count); i != LOG_NO_SEGMENT;
             i = covering(r, r->link, r->lsn, i)) {
            if (use_segment(r, i) != DC_OK) {
                r->end = (struct log_end_info){.segment = i, .lsn = r->good_lsn, .at_lsn = r->lsn};
                return failed(r);
            }
            if (take_frame(r, out)) {
                return LOG_MORE;
            }
        }
    }
    return find_end(r);
}

static enum dc_err fail_lost(const struct log_reader *r) {
    return dc_fail(DC_EIO, "a part of %s/%s can't be read: the disk fails, or the file was cut",
                   r->d->path, segment_words(r, r->last_segment));
}

/* find_next(), but zeros that stand in the place of something aren't taken for an end. */
static enum log_end find_next_there(struct log_reader *r, struct frame_ref *out) {
    uint64_t lsn = r->lsn, good_lsn = r->good_lsn;
    uint32_t link = r->link;
    enum log_end end = find_next(r, out);
    note_lost(r);
    if (dc_unlikely(r->lost && !r->given_lost)) {
        /* Once more, with the file as long as it is now: a start cuts a torn tail while others look on. */
        drop_map(r);
        r->lost = false;
        r->lsn = lsn;
        r->good_lsn = good_lsn;
        r->link = link;
        end = find_next(r, out);
        note_lost(r);
    }
    if (dc_unlikely(r->lost || r->given_lost)) {
        r->end =
            (struct log_end_info){.segment = r->last_segment, .lsn = r->good_lsn, .at_lsn = r->lsn};
        (void)fail_lost(r);
        end = failed(r);
        r->lost = false; /* another call looks again */
    }
    return end;
}

enum log_end log_reader_next(struct log_reader *r, struct frame_ref *out) {
    if (dc_likely(r->map != NULL && r->lsn < r->stop && take_frame(r, out))) {
        return LOG_MORE;
    }
    return find_next_there(r, out);
}

bool log_reader_seek(struct log_reader *r, uint64_t below) {
    const struct io *io = r->d->io;
    uint32_t index = covering(r, r->link, r->lsn, r->d->count);
    uint64_t fork = log_dir_link_end(r->d, r->link);
    struct frame_head head;
    below = fork < below ? fork : below;
    r->is_part = true;
    if (r->lsn >= below || index == LOG_NO_SEGMENT || use_segment(r, index) != DC_OK ||
        r->map == NULL) {
        return false;
    }
    uint64_t at = SEGMENT_HEADER_LEN + (r->lsn - r->first_lsn);
    uint64_t room = below - r->lsn < SEEK_MAX ? below - r->lsn : SEEK_MAX;
    uint64_t to = at + room < r->map_len ? at + room : r->map_len;
    to = at < to ? io->data_end(io, &r->file, at, to) : at;
    while (at < to && at + FRAME_HEADER_LEN <= r->map_len && !head_at(r, at, &head)) {
        at++;
    }
    if (at >= to || at + FRAME_HEADER_LEN > r->map_len || !frame_at(r, at, &head)) {
        return false;
    }
    r->lsn = r->first_lsn + (at - SEGMENT_HEADER_LEN);
    r->good_lsn = r->lsn;
    return true;
}

void log_reader_skip(struct log_reader *r, uint64_t to) {
    drop_map(r);
    r->lsn = to;
    r->good_lsn = to;
    r->stop = 0;
}

enum dc_err log_reader_check(struct log_reader *r) {
    note_lost(r);
    return r->given_lost ? fail_lost(r) : DC_OK;
}

/* The first place of the link at or behind the LSN that a segment covers; false: there is none. */
static bool find_place(const struct log_reader *r, uint32_t link, uint64_t *lsn) {
    if (covering(r, link, *lsn, r->d->count) != LOG_NO_SEGMENT) {
        return true;
    }
    uint32_t next = next_segment(r, link, *lsn);
    if (next == LOG_NO_SEGMENT) {
        return false;
    }
    *lsn = r->d->segments[next].head.first_lsn;
    return true;
}

/* Goes to the first frame at or behind 'from'. */
static void start_at(struct log_reader *r, uint64_t from) {
    const struct log_dir *d = r->d;
    uint64_t joint = from; /* where the log goes on without a gap */
    r->lsn = from;
    r->good_lsn = from;
    for (uint32_t i = 0; i < d->chain_count; i++) {
        uint64_t start = d->chain[i].start;
        uint64_t end = log_dir_link_end(d, i);
        r->link = i;
        if (end <= start || end < from) {
            continue;
        }
        if (end == from && i + 1 < d->chain_count) {
            joint = UINT64_MAX; /* the start of the next one that has a part */
            continue;
        }
        joint = joint == UINT64_MAX ? start : joint;
        uint64_t lsn = from > start ? from : start;
        if (find_place(r, i, &lsn)) {
            r->lsn = lsn;
            r->joins = from == 0 || lsn == joint;
            return;
        }
        joint = from;
    }
    r->joins = from == 0;
}

enum dc_err log_reader_open(struct log_reader **out, const struct log_dir *d, uint64_t from) {
    struct log_reader *r = mem_must_zalloc(sizeof(*r));
    r->d = d;
    r->segment = LOG_NO_SEGMENT;
    r->last_segment = LOG_NO_SEGMENT;
    r->window = mem_must_alloc(WINDOW_LEN);
    start_at(r, from);
    *out = r;
    return DC_OK;
}

bool log_reader_joins(const struct log_reader *r) {
    return r->joins;
}

void log_reader_end(const struct log_reader *r, struct log_end_info *out) {
    *out = r->end;
}

void log_reader_close(struct log_reader *r) {
    if (r != NULL) {
        drop_map(r);
        mem_free(r->window);
        mem_free(r);
    }
}
