/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The segments of a directory and the chain of histories.
 *
 *   H1  start ------------- fork - - - - (abandoned)
 *                            |
 *                            (jump)  H2 start ----- fork - - -
 *                                                    |
 *                                                    (jump)  H3 start ---- head
 *
 * The newest history is the one with the highest (epoch, start). Two may have the same when a start was cut off by a crash before
 * its FORK frame was on the disk: the next start found the same end and jumped as far. Then the one with a FORK frame counts, else
 * the younger one: the other has no frame.
 */
#include "persist/log_reader.h"

#include "server/base/assert.h"
#include "server/base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FORK_CHAIN_MAX = 65536, HISTORY_LEN = 32, FORK_BODY_HEAD = 8 };

/* --- files ------------------------------------------------------------------------------------------- */

static void add_segment(struct log_dir *d, const char *name, uint64_t first_lsn,
                        uint64_t history_id) {
    if ((d->count & (d->count - 1)) == 0) { /* full: the room is a power of two */
        size_t room = d->count == 0 ? 1 : 2 * (size_t)d->count;
        d->segments = mem_must_realloc(d->segments, room * sizeof(*d->segments));
    }
    struct segment_info *s = &d->segments[d->count++];
    memset(s, 0, sizeof(*s));
    snprintf(s->name, sizeof(s->name), "%s", name);
    s->head.first_lsn = first_lsn;
    s->head.history.id = history_id;
    s->link = LOG_NO_LINK;
}

static void add_name(void *arg, const char *name) {
    uint64_t first_lsn;
    uint64_t history_id;
    if (segment_name_parse(name, &first_lsn, &history_id)) {
        add_segment(arg, name, first_lsn, history_id);
    }
}

static void add_tmp_name(void *arg, const char *name) {
    uint64_t first_lsn;
    uint64_t history_id;
    if (segment_tmp_name_parse(name, &first_lsn, &history_id, NULL)) {
        add_segment(arg, name, first_lsn, history_id);
    }
}

static int open_segment(const struct log_dir *d, const struct segment_info *s, struct io_file *f) {
    char path[4096];
    int n = snprintf(path, sizeof(path), "%s/%s", d->path, s->name);
    return n < (int)sizeof(path) ? d->io->open(d->io, path, IO_READ, f) : -ENAMETOOLONG;
}

/* 'named': first LSN and history must be those of the name. */
static void judge_head(struct segment_info *s, const char *page, size_t len, bool named) {
    struct segment_head head;
    uint64_t name_lsn = s->head.first_lsn;
    uint64_t name_id = s->head.history.id;
    s->verdict = segment_head_decode(page, len, &head);
    if (s->verdict == HEAD_OK && named &&
        (head.first_lsn != name_lsn || head.history.id != name_id)) {
        s->verdict = HEAD_DAMAGED;
    }
    if (s->verdict == HEAD_OK) {
        s->head = head;
    }
    struct segment_mark mark;
    s->mark = segment_mark_read(page, len, s->head.first_lsn, &mark);
    s->durable_lsn = mark.durable_lsn;
    s->mark_ms = mark.time_ms;
    /* A mark that claims bytes of this segment was written after the header was durable. */
    s->blank = segment_head_is_blank(page, len) && s->mark != MARK_DAMAGED &&
               s->durable_lsn == s->head.first_lsn;
}

/* -ENOENT: it was removed meanwhile. */
static int read_segment(const struct log_dir *d, struct segment_info *s, bool named) {
    struct io_file f;
    char page[SEGMENT_HEADER_LEN];
    int rc = open_segment(d, s, &f);
    if (rc != 0) {
        return rc;
    }
    int64_t len = d->io->size(d->io, &f);
    ssize_t n = len < 0 ? (ssize_t)len : d->io->read_at(d->io, &f, page, sizeof(page), 0);
    d->io->close(d->io, &f);
    if (n < 0) {
        return (int)n;
    }
    s->file_len = (uint64_t)len;
    judge_head(s, page, (size_t)n, named);
    return 0;
}

/* --- the chain --------------------------------------------------------------------------------------- */

/* The FORK frame with which a history begins; returns the length of its chain, 0 = there is none. 'chain' is allocated. */
static uint32_t read_fork(const struct log_dir *d, const struct segment_info *s,
                          struct history **chain) {
    enum { BODY_MAX = FORK_BODY_HEAD + FORK_CHAIN_MAX * HISTORY_LEN };
    struct io_file f;
    struct frame_head head;
    char *frame = NULL;
    uint32_t count = 0;
    if (s->head.first_lsn != s->head.history.start || open_segment(d, s, &f) != 0) {
        return 0;
    }
    char start[FRAME_HEADER_LEN];
    ssize_t n = d->io->read_at(d->io, &f, start, sizeof(start), SEGMENT_HEADER_LEN);
    if (n != FRAME_HEADER_LEN ||
        frame_check_head(start, sizeof(start), s->head.history.id, s->head.first_lsn, &head) !=
            FRAME_OK ||
        head.kind != FRAME_FORK || head.body_len < FORK_BODY_HEAD || head.body_len > BODY_MAX) {
        goto out;
    }
    size_t len = FRAME_HEADER_LEN + (size_t)head.body_len;
    frame = mem_must_alloc(len);
    n = d->io->read_at(d->io, &f, frame, len, SEGMENT_HEADER_LEN);
    if (n != (ssize_t)len ||
        frame_check(frame, len, s->head.history.id, s->head.first_lsn, &head) != FRAME_OK) {
        goto out;
    }
    uint32_t max = (uint32_t)((head.body_len - FORK_BODY_HEAD) / HISTORY_LEN);
    struct history *found = mem_must_alloc((max + 1) * sizeof(*found));
    count = fork_decode(bytes_of(frame + FRAME_HEADER_LEN, (size_t)head.body_len), found, max);
    if (count == 0 || count > max || found[count - 1].id != s->head.history.id) {
        mem_free(found);
        count = 0;
    } else {
        *chain = found;
    }
out:
    mem_free(frame);
    d->io->close(d->io, &f);
    return count;
}

static int compare_age(const struct history *a, const struct history *b) {
    if (a->epoch != b->epoch) {
        return a->epoch < b->epoch ? -1 : 1;
    }
    return (a->start > b->start) - (a->start < b->start);
}

/* The newest history, and its chain if a FORK frame tells it. NULL: there is no good segment. */
static const struct segment_info *newest(const struct log_dir *d, struct history **chain,
                                         uint32_t *count) {
    const struct segment_info *best = NULL;
    for (uint32_t i = 0; i < d->count; i++) {
        const struct segment_info *s = &d->segments[i];
        int age = s->verdict != HEAD_OK ? -1
                  : best == NULL        ? 1
                                        : compare_age(&s->head.history, &best->head.history);
        if (age > 0 || (age == 0 && s->head.created_ms > best->head.created_ms)) {
            best = s;
        }
    }
    *count = 0;
    for (uint32_t i = 0; best != NULL && i < d->count && *count == 0; i++) {
        const struct segment_info *s = &d->segments[i];
        if (s->verdict == HEAD_OK && compare_age(&s->head.history, &best->head.history) == 0) {
            *count = read_fork(d, s, chain);
            best = *count > 0 ? s : best;
        }
    }
    return best;
}

/* The youngest history of the headers that began before 'limit' and is older than 'child'. */
static const struct history *parent_of(const struct log_dir *d, const struct history *child,
                                       uint64_t limit) {
    const struct history *best = NULL;
    for (uint32_t i = 0; i < d->count; i++) {
        const struct history *h = &d->segments[i].head.history;
        if (d->segments[i].verdict == HEAD_OK && h->start < limit && compare_age(h, child) < 0 &&
            (best == NULL || compare_age(h, best) > 0)) {
            best = h;
        }
    }
    return best;
}

static uint32_t chain_of_heads(const struct log_dir *d, const struct history *last,
                               struct history **chain) {
    struct history *found = mem_must_alloc((d->count + 1) * sizeof(*found));
    uint32_t count = 0;
    uint64_t limit = UINT64_MAX;
    for (const struct history *h = last; h != NULL; h = parent_of(d, h, limit)) {
        dc_assert(count <= d->count); /* each is older than the one before, so none comes twice */
        found[count++] = *h;
        limit = h->parent_end < limit ? h->parent_end : limit;
    }
    for (uint32_t i = 0; i < count / 2; i++) { /* oldest first */
        struct history swap = found[i];
        found[i] = found[count - 1 - i];
        found[count - 1 - i] = swap;
    }
    *chain = found;
    return count;
}

static void find_chain(struct log_dir *d) {
    const struct segment_info *last = newest(d, &d->chain, &d->chain_count);
    if (last != NULL && d->chain_count == 0) {
        d->chain_count = chain_of_heads(d, &last->head.history, &d->chain);
    }
}

uint64_t log_dir_link_end(const struct log_dir *d, uint32_t link) {
    uint64_t end = UINT64_MAX;
    for (uint32_t i = link + 1; i < d->chain_count; i++) {
        end = d->chain[i].parent_end < end ? d->chain[i].parent_end : end;
    }
    return end;
}

bool segment_counts(const struct segment_info *s) {
    return s->verdict == HEAD_OK && !s->abandoned && s->link != LOG_NO_LINK;
}

uint64_t log_dir_segment_end(const struct log_dir *d, uint32_t index) {
    const struct segment_info *s = &d->segments[index];
    uint64_t room = s->file_len > SEGMENT_HEADER_LEN ? s->file_len - SEGMENT_HEADER_LEN : 0;
    uint64_t end = s->head.first_lsn + room;
    uint64_t fork = log_dir_link_end(d, s->link);
    uint32_t next = index + 1;
    end = fork < end ? fork : end;
    while (next < d->count && !segment_counts(&d->segments[next])) {
        next++;
    }
    bool cuts = next < d->count && d->segments[next].head.first_lsn < end;
    return cuts ? d->segments[next].head.first_lsn : end;
}

static uint32_t link_of(const struct log_dir *d, uint64_t history_id) {
    for (uint32_t i = d->chain_count; i-- > 0;) {
        if (d->chain[i].id == history_id) {
            return i;
        }
    }
    return LOG_NO_LINK;
}

static bool history_is_known(const struct log_dir *d, uint64_t history_id) {
    for (uint32_t i = 0; i < d->count; i++) {
        if (d->segments[i].verdict == HEAD_OK && d->segments[i].head.history.id == history_id) {
            return true;
        }
    }
    return false;
}

/* A segment whose header is damaged and whose history nobody knows isn't abandoned: it may be the newest. */
static void link_segments(struct log_dir *d) {
    for (uint32_t i = 0; i < d->count; i++) {
        struct segment_info *s = &d->segments[i];
        s->link = link_of(d, s->head.history.id);
        s->abandoned = s->link != LOG_NO_LINK ? s->head.first_lsn >= log_dir_link_end(d, s->link)
                                              : history_is_known(d, s->head.history.id);
    }
}

/* --- the directory ----------------------------------------------------------------------------------- */

static int compare_segments(const void *left, const void *right) {
    const struct segment_info *a = left;
    const struct segment_info *b = right;
    if (a->head.first_lsn != b->head.first_lsn) {
        return a->head.first_lsn < b->head.first_lsn ? -1 : 1;
    }
    int age = compare_age(&a->head.history, &b->head.history);
    if (age != 0) {
        return age;
    }
    return (a->head.history.id > b->head.history.id) - (a->head.history.id < b->head.history.id);
}

static enum dc_err failed(struct log_dir *d, const char *name, int rc) {
    enum dc_err err = dc_fail(DC_EIO, "log of %s: %s: %s", d->path, name, dc_errno_text(-rc));
    log_dir_close(d);
    return err;
}

static enum dc_err open_dir(struct log_dir *d, const struct io *io, const char *path, bool tmp) {
    *d = (struct log_dir){.io = io, .path = mem_must_strdup(path)};
    int rc = io->list(io, path, add_name, d);
    rc = rc == 0 && tmp ? io->list(io, path, add_tmp_name, d) : rc;
    if (rc != 0) {
        return failed(d, "the directory", rc);
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < d->count; i++) {
        rc = read_segment(d, &d->segments[i], true);
        if (rc == 0) {
            d->segments[kept++] = d->segments[i];
        } else if (rc != -ENOENT) {
            return failed(d, d->segments[i].name, rc);
        }
    }
    d->count = kept;
    if (d->count > 0) {
        qsort(d->segments, d->count, sizeof(*d->segments), compare_segments);
    }
    find_chain(d);
    link_segments(d);
    return DC_OK;
}

enum dc_err log_dir_open(struct log_dir *d, const struct io *io, const char *path) {
    return open_dir(d, io, path, false);
}

enum dc_err log_dir_open_running(struct log_dir *d, const struct io *io, const char *path) {
    return open_dir(d, io, path, true);
}

enum dc_err log_dir_open_file(struct log_dir *d, const struct io *io, const char *path) {
    *d = (struct log_dir){.io = io, .path = mem_must_strdup(path)};
    char *slash = strrchr(d->path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    if (strlen(name) >= SEGMENT_NAME_MAX) {
        return failed(d, "the file", -ENAMETOOLONG);
    }
    uint64_t first_lsn = 0;
    uint64_t history_id = 0;
    segment_name_parse(name, &first_lsn, &history_id);
    add_segment(d, name, first_lsn, history_id);
    if (slash == NULL) {
        snprintf(d->path, strlen(path) + 1, ".");
    } else {
        slash[slash == d->path ? 1 : 0] = '\0';
    }
    int rc = read_segment(d, &d->segments[0], false);
    if (rc != 0) {
        return failed(d, d->segments[0].name, rc);
    }
    if (d->segments[0].verdict == HEAD_OK) {
        d->chain = mem_must_alloc(sizeof(*d->chain));
        d->chain[0] = d->segments[0].head.history;
        d->chain_count = 1;
    }
    link_segments(d);
    return DC_OK;
}

void log_dir_close(struct log_dir *d) {
    mem_free(d->path);
    mem_free(d->segments);
    mem_free(d->chain);
    *d = (struct log_dir){.io = d->io};
}
