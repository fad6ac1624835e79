/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files of the log. A segment is made under a temporary name, with room for all its bytes, and gets its name when its header
 * is written; so whatever has a segment's name has a header. The spare is such a file in waiting. What joins nothing that a start could go on
 * from has a temporary name, too: what is written for a snapshot under way with 'appendonly no', or until a log that begins to be kept has a snapshot.
 */
#include "persist/log_priv.h"
#include "server/base/mem.h"
#include "server/base/time.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    WRITE_PARTS_MAX = 512,
    FILL_LEN = 1024 * 1024,
    FILLED_FIRST_LEN = 4 * 1024 * 1024, /* as much as a start may wait for */
    FILL_PAUSE_NS = 2000000,            /* others want to sync, too */
};

static void path_of(const struct log *l, const char *name, char to[PATH_MAX]) {
    snprintf(to, PATH_MAX, "%s/%s", l->o.dir, name);
}

int segment_prepare(struct log *l, uint64_t len, struct segment **out) {
    const struct io *io = l->o.io;
    struct segment *s = mem_must_zalloc(sizeof(*s));
    char path[PATH_MAX];
    s->number = atomic_fetch_add_explicit(&l->segment_count, 1, memory_order_relaxed);
    snprintf(s->name, sizeof(s->name), "segment-%" PRIu32 ".tmp", s->number);
    path_of(l, s->name, path);
    (void)io->unlink(io, path); /* left by a crash */
    int err = io->open(io, path, IO_CREATE, &s->file);
    if (err < 0) {
        mem_free(s);
        return err;
    }
    err = io->allocate(io, &s->file, SEGMENT_HEADER_LEN + len);
    if (err < 0) {
        segment_discard(l, s);
        return err;
    }
    s->room = len;
    s->is_new = true;
    *out = s;
    return 0;
}

int segment_fill(struct log *l, struct segment *s) {
    const struct io *io = l->o.io;
    const struct timespec pause = {0, FILL_PAUSE_NS};
    char *zeros = mem_must_zalloc(FILL_LEN);
    int err = 0;
    for (uint64_t at = 0; at < s->room && err == 0; at += FILL_LEN) {
        uint64_t left = s->room - at;
        struct iovec iov = {zeros, left < FILL_LEN ? (size_t)left : FILL_LEN};
        ssize_t n = io->write_at(io, &s->file, &iov, 1, SEGMENT_HEADER_LEN + at);
        err = n < 0 ? (int)n : io->sync(io, &s->file);
        nanosleep(&pause, NULL);
    }
    mem_free(zeros);
    return err;
}

int segment_start(struct log *l, struct segment *s, uint64_t lsn, const struct history *history) {
    uint8_t head[SEGMENT_HEADER_USED];
    memcpy(s->head.node_id, l->o.node_id, NODE_ID_LEN);
    memcpy(s->head.seed, l->o.seed, SEED_LEN);
    s->head.first_lsn = lsn;
    s->head.history = *history;
    s->head.created_ms = time_wall_us() / 1000;
    s->end = lsn;
    s->room += lsn;
    segment_head_encode(&s->head, head);
    struct iovec iov = {head, sizeof(head)};
    ssize_t n = l->o.io->write_at(l->o.io, &s->file, &iov, 1, 0);
    return n < 0 ? (int)n : 0;
}

static int rename_segment(struct log *l, struct segment *s, bool lasts) {
    char name[SEGMENT_NAME_MAX];
    char from[PATH_MAX];
    char to[PATH_MAX];
    if (lasts) {
        segment_name(s->head.first_lsn, s->head.history.id, name);
    } else {
        segment_tmp_name(s->head.first_lsn, s->head.history.id, s->number, name);
    }
    path_of(l, s->name, from);
    path_of(l, name, to);
    int err = l->o.io->rename(l->o.io, from, to);
    if (err == 0) {
        pthread_mutex_lock(&l->lock);
        memcpy(s->name, name, sizeof(name));
        s->lasts = lasts;
        pthread_mutex_unlock(&l->lock);
    }
    return err;
}

int segment_publish(struct log *l, struct segment *s) {
    return rename_segment(l, s, atomic_load_explicit(&l->based, memory_order_relaxed));
}

int segment_make_last(struct log *l, struct segment *s) {
    return rename_segment(l, s, true);
}

/* The spare, if it has room. */
static int take_file(struct log *l, uint64_t len, struct segment *spare, struct segment **out) {
    if (spare != NULL && spare->room >= len) {
        *out = spare;
        return 0;
    }
    if (spare != NULL) {
        segment_discard(l, spare);
    }
    return segment_prepare(l, len, out);
}

int segment_begin(struct log *l, uint64_t lsn, uint64_t len, struct segment *spare,
                  struct segment **out) {
    struct segment *s = NULL;
    int err = take_file(l, len, spare, &s);
    if (err < 0) {
        return err;
    }
    err = segment_start(l, s, lsn, &l->history);
    err = err < 0 ? err : segment_publish(l, s);
    if (err < 0) {
        segment_discard(l, s);
        return err;
    }
    *out = s;
    return 0;
}

/* For the begin of a run or a history. Under 'always' it is filled with zeros like the spares, and short, for somebody waits. */
static int take_filled_file(struct log *l, uint64_t need, struct segment *spare,
                            struct segment **out) {
    uint64_t len = atomic_load_explicit(&l->segment_len, memory_order_relaxed);
    bool fills = spare == NULL &&
                 atomic_load_explicit(&l->sync_mode, memory_order_relaxed) == LOG_SYNC_ALWAYS;
    if (fills && len > FILLED_FIRST_LEN) {
        len = FILLED_FIRST_LEN;
    }
    int err = take_file(l, need > len ? need : len, spare, out);
    err = err == 0 && fills ? segment_fill(l, *out) : err;
    return err;
}

/* A name of a history that has no FORK frame would be what a start without one leaves: it must never be found behind a log that goes on. */
int segment_begin_durable(struct log *l, uint64_t lsn, const struct history *history,
                          struct part first, struct segment *spare, struct segment **out) {
    const struct io *io = l->o.io;
    struct segment *s = NULL;
    int err = take_filled_file(l, first.len, spare, &s);
    if (err < 0) {
        segment_withdraw(l, s);
        return err;
    }
    err = segment_start(l, s, lsn, history);
    if (err == 0 && first.len > 0) {
        err = segment_write(l, s, &first, 1, lsn);
        s->end = lsn + first.len;
    }
    err = err < 0 ? err : io->sync(io, &s->file);
    err = err < 0 ? err : segment_publish(l, s);
    err = err < 0 ? err : io->sync_dir(io, l->o.dir);
    err = err < 0 ? err : segment_write_mark(l, s, s->end);
    if (err < 0) {
        segment_withdraw(l, s);
        return err;
    }
    s->is_new = false;
    *out = s;
    return 0;
}

int segment_write(struct log *l, struct segment *s, const struct part *parts, uint32_t count,
                  uint64_t lsn) {
    struct iovec iov[WRITE_PARTS_MAX];
    uint64_t at = SEGMENT_HEADER_LEN + (lsn - s->head.first_lsn);
    while (count > 0) {
        uint32_t n = count < WRITE_PARTS_MAX ? count : WRITE_PARTS_MAX;
        uint64_t len = 0;
        for (uint32_t i = 0; i < n; i++) {
            iov[i] = (struct iovec){(void *)(uintptr_t)parts[i].ptr, parts[i].len};
            len += parts[i].len;
        }
        ssize_t done = l->o.io->write_at(l->o.io, &s->file, iov, (int)n, at);
        if (done < 0) {
            return (int)done;
        }
        at += len;
        parts += n;
        count -= n;
    }
    return 0;
}

int segment_write_mark(struct log *l, struct segment *s, uint64_t durable) {
    uint64_t lsn = durable < s->head.first_lsn ? s->head.first_lsn : durable;
    struct segment_mark mark = {lsn < s->end ? lsn : s->end,
                                atomic_load_explicit(&l->clock_ms, memory_order_relaxed)};
    int err = segment_mark_put(l->o.io, &s->file, s->head.first_lsn, &mark);
    s->marked = err < 0 ? s->marked : mark;
    return err;
}

void segment_close(struct log *l, struct segment *s) {
    l->o.io->close(l->o.io, &s->file);
    mem_free(s);
}

void segment_discard(struct log *l, struct segment *s) {
    char path[PATH_MAX];
    path_of(l, s->name, path);
    (void)l->o.io->unlink(l->o.io, path);
    segment_close(l, s);
}

void segment_withdraw(struct log *l, struct segment *s) {
    if (s != NULL) {
        segment_discard(l, s);
        (void)l->o.io->sync_dir(l->o.io, l->o.dir);
    }
}

void segment_leave(struct log *l, struct segment *s) {
    if (s->lasts) {
        segment_close(l, s);
    } else {
        segment_discard(l, s);
    }
}

void segments_leave(struct log *l, struct segment *s) {
    while (s != NULL) {
        struct segment *next = s->next;
        segment_leave(l, s);
        s = next;
    }
}
