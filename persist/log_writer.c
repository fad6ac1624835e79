/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The writer: collects what the feeds hold below the head, puts it into the order of the log, and writes it.
 *
 *   head            |                            read once, first
 *   feed of A   ..##    ####                     each extent says where it belongs,
 *   feed of B   ..  ####    ##                   so a copy puts it there
 *   stretch       |############|                 no gap: I2 of log.h
 *
 * A stretch stays in memory until it is durable. When an fdatasync has failed, what isn't durable is written again, to a new segment.
 */
#include "persist/log_priv.h"
#include "server/base/assert.h"
#include "server/base/codec.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/base/time.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- collecting -------------------------------------------------------------------------------------- */

struct gather {
    struct log *log;
    uint64_t from, to;
    struct extent *blobs; /* those below 'to', sorted */
    uint32_t blob_count;
    uint32_t blob_cap;
    struct log_feed *feeds[FEED_MAX];
    uint32_t feed_count;
};

static int by_lsn(const void *a, const void *b) {
    uint64_t x = ((const struct extent *)a)->lsn;
    uint64_t y = ((const struct extent *)b)->lsn;
    return (x > y) - (x < y);
}

static void gather_blobs(struct gather *g) {
    for (uint32_t i = 0; i < g->feed_count; i++) {
        struct log_feed *f = g->feeds[i];
        feed_lock(f);
        for (uint32_t k = 0; f->blob_count > 0 && k < f->extent_count; k++) {
            if (f->extents[k].blob != NULL && f->extents[k].lsn >= g->from &&
                f->extents[k].lsn < g->to) {
                if (g->blob_count == g->blob_cap) {
                    g->blob_cap = g->blob_cap == 0 ? 16 : 2 * g->blob_cap;
                    g->blobs = mem_must_realloc(g->blobs, g->blob_cap * sizeof(*g->blobs));
                }
                g->blobs[g->blob_count++] = f->extents[k];
            }
        }
        feed_unlock(f);
    }
    if (g->blob_count > 1) {
        qsort(g->blobs, g->blob_count, sizeof(*g->blobs), by_lsn);
    }
}

static struct buffer pool_get(struct log *l, size_t cap) {
    struct buffer b = {NULL, 0};
    pthread_mutex_lock(&l->lock);
    if (l->pool_count > 0) {
        b = l->pool[--l->pool_count];
    }
    pthread_mutex_unlock(&l->lock);
    if (b.ptr == NULL) {
        b = (struct buffer){mem_must_alloc(cap), cap};
    }
    return b;
}

void pool_put(struct log *l, char *ptr, size_t cap) {
    bool kept = false;
    pthread_mutex_lock(&l->lock);
    if (cap > 0 && cap <= FEED_KEEP_LEN && l->pool_count < POOL_MAX) {
        l->pool[l->pool_count++] = (struct buffer){ptr, cap};
        kept = true;
    }
    pthread_mutex_unlock(&l->lock);
    if (!kept) {
        mem_free(ptr);
    }
}

/* When one appender has it all, which is nearly always, his bytes aren't copied: he gets another buffer. */
static struct stretch *take_over(struct log *l, struct gather *g) {
    struct stretch *s = NULL;
    for (uint32_t i = 0; i < g->feed_count && s == NULL; i++) {
        struct log_feed *f = g->feeds[i];
        feed_lock(f);
        if (f->extent_count == 1 && f->extents[0].blob == NULL && f->extents[0].lsn == g->from &&
            f->extents[0].lsn + f->extents[0].len == g->to && f->extents[0].at == 0 &&
            f->len >= TAKE_OVER_LEN && !f->reserved) {
            struct buffer fresh = pool_get(l, f->cap < FEED_KEEP_LEN ? f->cap : FEED_KEEP_LEN);
            s = mem_must_zalloc(sizeof(*s) + sizeof(s->parts[0]));
            s->lsn = g->from;
            s->end = g->to;
            s->bytes = f->bytes;
            s->cap = f->cap;
            s->parts[s->part_count++] = (struct part){f->bytes, f->len};
            f->bytes = fresh.ptr;
            f->cap = fresh.cap;
            f->len = 0;
            f->extent_count = 0;
        }
        feed_unlock(f);
    }
    return s;
}

/* Room for everything below 'to': bytes between blobs, and the blobs. */
static struct stretch *stretch_create(const struct gather *g) {
    size_t parts = 2 * (size_t)g->blob_count + 1;
    struct stretch *s = mem_must_zalloc(sizeof(*s) + parts * sizeof(s->parts[0]));
    uint64_t len = g->to - g->from;
    for (uint32_t i = 0; i < g->blob_count; i++) {
        len -= g->blobs[i].len;
    }
    s->lsn = g->from;
    s->end = g->to;
    s->bytes = mem_must_alloc((size_t)len + 1);
    if (g->blob_count > 0) {
        s->blobs = mem_must_alloc(g->blob_count * sizeof(struct blob *));
    }
    const char *at = s->bytes;
    uint64_t lsn = g->from;
    for (uint32_t i = 0; i < g->blob_count; i++) {
        const struct extent *b = &g->blobs[i];
        size_t step = (size_t)(b->lsn - lsn);
        s->parts[s->part_count++] = (struct part){at, step};
        s->parts[s->part_count++] = (struct part){b->blob->data, b->len};
        s->blobs[s->blob_count++] = b->blob; /* the reference moves here */
        at += step;
        lsn = b->lsn + b->len;
    }
    s->parts[s->part_count++] = (struct part){at, (size_t)(g->to - lsn)};
    return s;
}

void stretch_free(struct log *l, struct stretch *s) {
    for (uint32_t i = 0; i < s->blob_count; i++) {
        blob_release(s->blobs[i]);
    }
    mem_free(s->blobs);
    pool_put(l, s->bytes, s->cap);
    mem_free(s);
}

/* Where the byte of an LSN belongs: behind the bytes before it, blobs not counted. */
static char *place_of(const struct gather *g, const struct stretch *s, uint64_t lsn) {
    uint64_t at = lsn - s->lsn;
    for (uint32_t i = 0; i < g->blob_count && g->blobs[i].lsn < lsn; i++) {
        at -= g->blobs[i].len;
    }
    return s->bytes + at;
}

/* What stays in a feed moves to the front of its bytes. */
static void keep_rest(struct log_feed *f, uint32_t done) {
    size_t base = f->len;
    f->extent_count -= done;
    memmove(f->extents, f->extents + done, f->extent_count * sizeof(*f->extents));
    for (uint32_t i = f->extent_count; i-- > 0;) {
        base = f->extents[i].blob == NULL ? f->extents[i].at : base; /* they rise */
    }
    memmove(f->bytes, f->bytes + base, f->len - base);
    f->len -= base;
    for (uint32_t i = 0; i < f->extent_count; i++) {
        f->extents[i].at -= f->extents[i].blob == NULL ? base : 0;
    }
}

/* Takes the feed's bytes and blobs below 'to'; NULL = they aren't kept. What was appended since the head was read may have
 * become part of an extent that begins below. */
static void drain(struct gather *g, struct log_feed *f, struct stretch *s) {
    feed_lock(f);
    uint32_t k = 0;
    for (; k < f->extent_count && f->extents[k].lsn < g->to; k++) {
        struct extent *x = &f->extents[k];
        size_t len = x->len < g->to - x->lsn ? x->len : (size_t)(g->to - x->lsn);
        if (x->blob != NULL) {
            dc_assert(len == x->len); /* 'to' is the end of a frame */
            f->blob_count--;
            if (s == NULL || x->lsn < g->from) {
                blob_release(x->blob);
            }
        } else if (s != NULL && x->lsn >= g->from) { /* before: appended before it was kept */
            memcpy(place_of(g, s, x->lsn), f->bytes + x->at, len);
        }
        if (len < x->len) {
            *x = (struct extent){x->lsn + len, x->at + len, x->len - len, NULL};
            break;
        }
    }
    if (k < f->extent_count) {
        keep_rest(f, k);
    } else {
        f->extent_count = 0;
        f->len = 0;
        if (f->cap > FEED_KEEP_LEN && !f->reserved) {
            mem_free(f->bytes);
            f->bytes = NULL;
            f->cap = 0;
        }
    }
    feed_unlock(f);
}

static struct stretch *collect(struct log *l, bool keep) {
    struct gather g = {.log = l, .from = load_lsn(&l->written), .to = load_lsn(&l->head)};
    struct stretch *s = NULL;
    pthread_mutex_lock(&l->lock);
    g.feed_count = l->feed_count;
    memcpy(g.feeds, l->feeds, l->feed_count * sizeof(g.feeds[0]));
    pthread_mutex_unlock(&l->lock);
    if (keep) {
        s = take_over(l, &g);
        if (s != NULL) {
            return s;
        }
        gather_blobs(&g);
        s = stretch_create(&g);
    }
    for (uint32_t i = 0; i < g.feed_count; i++) {
        drain(&g, g.feeds[i], s);
    }
    mem_free(g.blobs);
    if (s == NULL) {
        log_advance(l, &l->durable, g.to);
        log_advance(l, &l->written, g.to);
    }
    return s;
}

/* --- writing ----------------------------------------------------------------------------------------- */

static void use_segment(struct log *l, struct segment *s) {
    pthread_mutex_lock(&l->lock);
    struct segment *old = l->current;
    l->current = s;
    if (old != NULL) {
        struct segment **tail = &l->closed;
        while (*tail != NULL) {
            tail = &(*tail)->next;
        }
        old->next = NULL;
        *tail = old;
    }
    pthread_mutex_unlock(&l->lock);
    atomic_store_explicit(&l->room_left, s == NULL ? 0 : s->room - s->end, memory_order_relaxed);
    atomic_fetch_add_explicit(&l->rotations, 1, memory_order_relaxed);
    if (l->o.rotated != NULL) {
        l->o.rotated(l->o.arg);
    }
}

static int rotate(struct log *l, uint64_t lsn, uint64_t need) {
    uint64_t len = atomic_load_explicit(&l->segment_len, memory_order_relaxed);
    struct segment *s = NULL;
    pthread_mutex_lock(&l->lock);
    struct segment *spare = l->spare;
    l->spare = NULL;
    pthread_mutex_unlock(&l->lock);
    atomic_store_explicit(&l->has_spare, false, memory_order_relaxed);
    int err = segment_begin(l, lsn, need > len ? need : len, spare, &s);
    if (err < 0) {
        return err;
    }
    use_segment(l, s);
    wake_raise(&l->sync_wake); /* for the next spare */
    return 0;
}

/* A place in a stretch: the part and the offset in it. */
struct place {
    uint32_t part;
    size_t offset;
    uint64_t lsn;
};

static void advance(const struct stretch *s, struct place *p, uint64_t len) {
    p->lsn += len;
    while (p->part < s->part_count && len >= s->parts[p->part].len - p->offset) {
        len -= s->parts[p->part].len - p->offset;
        p->part++;
        p->offset = 0;
    }
    p->offset += (size_t)len;
}

/* The longest run of whole frames from a place that ends at or before 'limit' (one frame at least if 'one'). */
static uint64_t whole_frames(const struct stretch *s, struct place p, uint64_t limit, bool one) {
    uint64_t from = p.lsn;
    while (p.lsn < s->end) {
        /* A frame's header is never parted: it has no blob in it. */
        uint64_t len = FRAME_HEADER_LEN + get_u64(s->parts[p.part].ptr + p.offset + 8);
        if (p.lsn + len > limit && !(one && p.lsn == from)) {
            break;
        }
        advance(s, &p, len);
    }
    return p.lsn - from;
}

static int write_run(struct log *l, const struct stretch *s, struct place *p, uint64_t len) {
    struct part *parts = mem_must_alloc((s->part_count + 1) * sizeof(*parts));
    uint32_t count = 0;
    struct place end = *p;
    advance(s, &end, len);
    for (uint32_t i = p->part; i <= end.part && i < s->part_count; i++) {
        size_t from = i == p->part ? p->offset : 0;
        size_t to = i == end.part ? end.offset : s->parts[i].len;
        if (to > from) {
            parts[count++] = (struct part){s->parts[i].ptr + from, to - from};
        }
    }
    int err = segment_write(l, l->current, parts, count, p->lsn);
    mem_free(parts);
    if (err == 0) {
        *p = end;
        l->current->end = end.lsn;
        atomic_store_explicit(&l->room_left, l->current->room - end.lsn, memory_order_relaxed);
    }
    return err;
}

/* From 'from' to the stretch's end. */
static int write_stretch(struct log *l, const struct stretch *s, uint64_t from) {
    struct place p = {.lsn = s->lsn};
    advance(s, &p, from - s->lsn);
    while (p.lsn < s->end) {
        uint64_t fits = l->current == NULL ? 0 : whole_frames(s, p, l->current->room, false);
        int err = 0;
        if (dc_likely(fits > 0)) {
            err = write_run(l, s, &p, fits);
        } else {
            err = rotate(l, p.lsn, whole_frames(s, p, 0, true));
        }
        if (err < 0) {
            return err;
        }
    }
    return 0;
}

/* Files that begin behind the place where the log goes on must not be taken for it. */
static void leave_behind(struct log *l, struct segment *old, uint64_t durable) {
    while (old != NULL) {
        struct segment *next = old->next;
        if (old->head.first_lsn > durable) {
            segment_discard(l, old);
        } else {
            segment_close(l, old);
        }
        old = next;
    }
}

/* An fdatasync has failed: nothing that it should have made durable is trusted. */
static int begin_anew(struct log *l) {
    struct segment *s = NULL;
    uint64_t durable = load_lsn(&l->durable);
    uint64_t len = atomic_load_explicit(&l->segment_len, memory_order_relaxed);
    int err = segment_begin(l, durable, len, NULL, &s);
    if (err < 0) {
        return err;
    }
    pthread_mutex_lock(&l->lock);
    struct segment *old = l->closed;
    l->closed = NULL;
    if (l->current != NULL) {
        l->current->next = old;
        old = l->current;
    }
    l->current = s;
    struct stretch *first = l->first;
    pthread_mutex_unlock(&l->lock);
    leave_behind(l, old, durable);
    for (struct stretch *x = first; x != NULL && err == 0; x = x->next) {
        if (x->end > durable) {
            err = write_stretch(l, x, x->lsn > durable ? x->lsn : durable);
        }
    }
    if (err == 0) {
        atomic_store_explicit(&l->poisoned, false, memory_order_release);
        diag(DIAG_WARNING, "log.begun_anew lsn=%llu", (unsigned long long)durable);
        wake_raise(&l->sync_wake);
    }
    return err;
}

static void enter(struct log *l, struct stretch *s) {
    s->written_us = time_mono_us();
    pthread_mutex_lock(&l->lock);
    if (l->first == NULL) {
        atomic_store_explicit(&l->oldest_us, s->written_us, memory_order_relaxed);
    }
    *l->tail = s;
    l->tail = &s->next;
    pthread_mutex_unlock(&l->lock);
}

static enum log_state state_of(int err) {
    return err == -ENOSPC || err == -EDQUOT ? LOG_FULL : LOG_BROKEN;
}

/* True when it is done; false when the disk doesn't take it. */
static bool write_out(struct log *l, struct stretch *s, uint64_t *from) {
    int err =
        dc_unlikely(atomic_load_explicit(&l->poisoned, memory_order_acquire)) ? begin_anew(l) : 0;
    err = err < 0 || s == NULL ? err : write_stretch(l, s, *from);
    if (err < 0) {
        *from =
            s != NULL && l->current != NULL && l->current->end > *from ? l->current->end : *from;
        atomic_fetch_add_explicit(&l->write_failures, 1, memory_order_relaxed);
        log_set_state(l, state_of(err), "the log can't be written", err);
        return false;
    }
    if (dc_unlikely(log_state(l) != LOG_WELL) &&
        !atomic_load_explicit(&l->poisoned, memory_order_acquire)) {
        log_set_state(l, LOG_WELL, "", 0);
    }
    return true;
}

/* Feeds whose owners are gone and that hold nothing. */
static void bury_feeds(struct log *l) {
    pthread_mutex_lock(&l->lock);
    for (uint32_t i = 0; i < l->feed_count;) {
        struct log_feed *f = l->feeds[i];
        feed_lock(f);
        bool done = f->gone && f->extent_count == 0;
        feed_unlock(f);
        if (done) {
            l->feeds[i] = l->feeds[--l->feed_count];
            feed_free(f);
        } else {
            i++;
        }
    }
    pthread_mutex_unlock(&l->lock);
}

/* Whoever appends from here on sees that it is kept. Returns the head: everything behind it is in the feeds. */
static uint64_t fence(struct log *l) {
    pthread_mutex_lock(&l->lock);
    for (uint32_t i = 0; i < l->feed_count; i++) {
        feed_lock(l->feeds[i]);
        feed_unlock(l->feeds[i]);
    }
    pthread_mutex_unlock(&l->lock);
    return load_lsn(&l->head);
}

/* 'appendonly no': files only while somebody needs them. */
static bool keeps_now(struct log *l) {
    bool keep = l->o.keeps || atomic_load_explicit(&l->pins, memory_order_seq_cst) > 0;
    if (dc_likely(l->o.keeps) || keep == (l->current != NULL)) {
        return keep;
    }
    if (keep) {
        uint64_t lsn = fence(l);
        int err = rotate(l, lsn, 0);
        log_advance(l, &l->durable, lsn);
        log_advance(l, &l->written, lsn);
        if (err < 0) {
            log_set_state(l, state_of(err), "the log can't be begun", err);
        }
        return err == 0;
    }
    use_segment(l, NULL); /* the sync thread finishes it */
    return false;
}

void log_writer_main(void *arg) {
    struct log *l = arg;
    struct stretch *s = NULL;
    uint64_t from = 0;
    for (;;) {
        bool stop = atomic_load_explicit(&l->stopping, memory_order_acquire);
        bool keep = s != NULL || keeps_now(l);
        if (s == NULL && load_lsn(&l->head) > load_lsn(&l->written)) {
            s = collect(l, keep);
            from = s == NULL ? 0 : s->lsn;
        }
        bool well = true;
        if (s != NULL || atomic_load_explicit(&l->poisoned, memory_order_acquire)) {
            well = write_out(l, s, &from);
        }
        if (well && s != NULL) {
            uint64_t end = s->end;
            enter(l, s);
            s = NULL;
            log_advance(l, &l->written, end);
            if (atomic_load_explicit(&l->sync_mode, memory_order_relaxed) == LOG_SYNC_ALWAYS ||
                end - load_lsn(&l->durable) > l->o.memory_limit / 2) {
                wake_raise(&l->sync_wake);
            }
        } else if (stop) {
            break;
        } else {
            bury_feeds(l);
            (void)wake_wait(&l->writer_wake, well ? EVERYSEC_US : RETRY_US);
        }
    }
    if (s != NULL) {
        stretch_free(l, s);
    }
    atomic_store_explicit(&l->writer_done, true, memory_order_release);
}
