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

/* All of the stretch, and nothing else, lies in this feed's buffer, and fills a good part of it (the buffer is held until
 * it is durable). Feed locked. */
static bool has_it_all(const struct log_feed *f, const struct gather *g) {
    const struct extent *x = f->extents;
    return f->extent_count == 1 && x->blob == NULL && x->at == 0 && x->lsn == g->from &&
           x->lsn + x->len == g->to && f->len >= TAKE_OVER_LEN && f->len >= f->cap / 4;
}

/* When one appender has it all, which is nearly always, his bytes aren't copied: he gets another buffer. */
static struct stretch *take_over(struct log *l, struct gather *g) {
    if (g->to - g->from < TAKE_OVER_LEN) {
        return NULL;
    }
    bool done = false;
    struct buffer fresh = pool_get(l, 2 * (size_t)TAKE_OVER_LEN);
    struct stretch *s = mem_must_zalloc(sizeof(*s) + sizeof(s->parts[0]));
    for (uint32_t i = 0; i < g->feed_count && !done; i++) {
        struct log_feed *f = g->feeds[i];
        feed_lock(f);
        done = has_it_all(f, g) && f->reserved <= fresh.cap;
        if (done) {
            *s = (struct stretch){.lsn = g->from, .end = g->to, .bytes = f->bytes, .cap = f->cap};
            s->parts[s->part_count++] = (struct part){f->bytes, f->len};
            f->bytes = fresh.ptr;
            f->cap = fresh.cap;
            f->len = 0;
            f->extent_count = 0;
        }
        feed_unlock(f);
    }
    if (!done) {
        pool_put(l, fresh.ptr, fresh.cap);
        mem_free(s);
    }
    return done ? s : NULL;
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
        } else if (s != NULL && x->lsn + len > g->from) {
            /* What was appended before the log was kept may be part of the extent. */
            size_t skip = x->lsn < g->from ? (size_t)(g->from - x->lsn) : 0;
            memcpy(place_of(g, s, x->lsn + skip), f->bytes + x->at + skip, len - skip);
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
        if (f->cap > FEED_KEEP_LEN && f->reserved == 0) {
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
        log_advance(l, &l->written, g.to);
        log_advance(l, &l->durable, g.to);
    }
    return s;
}

/* --- writing ----------------------------------------------------------------------------------------- */

static void tell_rotated(struct log *l) {
    if (l->o.rotated != NULL) {
        l->o.rotated(l->o.arg);
    }
}

/* What was current is complete. */
static void swap_segment_locked(struct log *l, struct segment *s) {
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
}

static void use_segment(struct log *l, struct segment *s) {
    pthread_mutex_lock(&l->lock);
    swap_segment_locked(l, s);
    pthread_mutex_unlock(&l->lock);
    atomic_fetch_add_explicit(&l->rotations, 1, memory_order_relaxed);
    tell_rotated(l);
}

static int rotate(struct log *l, uint64_t lsn, uint64_t need) {
    uint64_t len = atomic_load_explicit(&l->segment_len, memory_order_relaxed);
    struct segment *s = NULL;
    pthread_mutex_lock(&l->lock);
    struct segment *spare = l->spare;
    l->spare = NULL;
    pthread_mutex_unlock(&l->lock);
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
    if (dc_likely(s->end <= limit)) {
        return s->end - from;
    }
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

/* To a segment in which they fit. */
static int write_run(struct log *l, struct segment *to_segment, const struct stretch *s,
                     struct place *p, uint64_t len) {
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
    int err = segment_write(l, to_segment, parts, count, p->lsn);
    mem_free(parts);
    if (err == 0) {
        *p = end;
        to_segment->end = end.lsn;
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
            err = write_run(l, l->current, s, &p, fits);
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

/* A file, not yet with a segment's name, with all that is written and not durable. */
static int write_again(struct log *l, uint64_t durable, struct segment **out) {
    uint64_t len = atomic_load_explicit(&l->segment_len, memory_order_relaxed);
    uint64_t written = load_lsn(&l->written);
    int err = segment_prepare(l, written - durable > len ? written - durable : len, out);
    if (err < 0) {
        return err;
    }
    err = segment_start(l, *out, durable);
    pthread_mutex_lock(&l->lock);
    const struct stretch *s = l->first; /* none is freed while 'poisoned' */
    pthread_mutex_unlock(&l->lock);
    for (; s != NULL && err == 0; s = s->next) {
        if (s->end > durable) {
            struct place p = {.lsn = s->lsn};
            advance(s, &p, durable > s->lsn ? durable - s->lsn : 0);
            err = write_run(l, *out, s, &p, s->end - p.lsn);
        }
    }
    dc_assert(err < 0 || (*out)->end == written);
    return err;
}

/*
 * An fdatasync has failed: nothing that it should have made durable is trusted. The sync thread leaves all files alone until
 * 'poisoned' is false again. The new segment gets its name when it holds all that the old ones hold: so a kill -9 loses nothing at
 * any moment.
 */
static int begin_anew(struct log *l) {
    struct segment *s = NULL;
    uint64_t durable = load_lsn(&l->durable);
    int err = write_again(l, durable, &s);
    err = err < 0 ? err : segment_publish(l, s);
    if (err < 0) {
        if (s != NULL) {
            segment_discard(l, s);
        }
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
    pthread_mutex_unlock(&l->lock);
    leave_behind(l, old, durable);
    atomic_store_explicit(&l->poisoned, false, memory_order_release);
    diag(DIAG_WARNING, "log.begun_anew lsn=%llu", (unsigned long long)durable);
    tell_rotated(l);
    wake_raise(&l->sync_wake);
    return 0;
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

static void note_failure(struct log *l, const char *what, int err) {
    atomic_fetch_add_explicit(&l->write_failures, 1, memory_order_relaxed);
    log_set_state(l, state_of(err), what, err);
}

/* From 'from' on, which moves. True when it is done; false when the disk doesn't take it. */
static bool write_out(struct log *l, const struct stretch *s, uint64_t *from) {
    int err = 0;
    if (dc_unlikely(atomic_load_explicit(&l->poisoned, memory_order_acquire))) {
        err = begin_anew(l);
        *from = err == 0 && s != NULL
                    ? s->lsn
                    : *from; /* what stands in the old segment isn't in the new one */
    }
    if (err == 0 && s != NULL) {
        err = write_stretch(l, s, *from);
        uint64_t end = l->current != NULL ? l->current->end : 0;
        *from = end > *from ? end : *from;
    }
    if (err < 0) {
        note_failure(l, "the log can't be written", err);
    }
    return err == 0;
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
            atomic_fetch_sub_explicit(&l->gone_count, 1, memory_order_relaxed);
        } else {
            i++;
        }
    }
    pthread_mutex_unlock(&l->lock);
}

/* --- 'appendonly no': files only while somebody needs them --------------------------------------------- */

/* Whoever appends from here on sees whether it is kept. Returns the head: what is kept behind it is all in the feeds. */
static uint64_t fence(struct log *l) {
    pthread_mutex_lock(&l->lock);
    for (uint32_t i = 0; i < l->feed_count; i++) {
        feed_lock(l->feeds[i]);
        feed_unlock(l->feeds[i]);
    }
    pthread_mutex_unlock(&l->lock);
    return load_lsn(&l->head);
}

static bool begin_keeping(struct log *l) {
    atomic_store_explicit(&l->kept, true, memory_order_relaxed);
    uint64_t lsn = fence(l);
    log_advance(l, &l->written, lsn);
    log_advance(l, &l->durable, lsn);
    int err = rotate(l, lsn, 0);
    if (err < 0) {
        atomic_store_explicit(&l->kept, false, memory_order_relaxed);
        note_failure(l, "the log can't be begun", err);
    }
    return err == 0;
}

enum keeping { KEEPS, KEEPS_NOT, KEEPS_BADLY /* there should be a file, and can't be */ };

static enum keeping keeps_now(struct log *l, struct stretch **pending) {
    if (dc_likely(l->o.keeps)) {
        return KEEPS;
    }
    pthread_mutex_lock(&l->lock);
    bool wanted = l->pins > 0;
    bool ends = !wanted && l->current != NULL;
    if (ends) { /* under the lock: who pins now finds no segment, and waits for the next one */
        atomic_store_explicit(&l->kept, false, memory_order_relaxed);
        swap_segment_locked(l, NULL);
    }
    pthread_mutex_unlock(&l->lock);
    if (ends) {
        wake_raise(&l->sync_wake); /* it removes the files */
    }
    if (!wanted && *pending != NULL) { /* what a file couldn't be had for */
        stretch_free(l, *pending);
        *pending = NULL;
    }
    if (wanted && l->current == NULL) {
        return begin_keeping(l) ? KEEPS : KEEPS_BADLY;
    }
    return wanted ? KEEPS : KEEPS_NOT;
}

/* --- the thread -------------------------------------------------------------------------------------- */

/* It is in the kernel's hands; the sync thread's turn. */
static void finish(struct log *l, struct stretch *s) {
    uint64_t end = s->end;
    enter(l, s);
    log_advance(l, &l->written, end);
    if (load_lsn(&l->hurry_lsn) > load_lsn(&l->durable) || log_pending(l) > l->o.memory_limit / 2) {
        wake_raise(&l->sync_wake);
    }
}

/* One round; false when there is nothing to do, or the disk doesn't let it. 's' from 'from' on is what an earlier round couldn't write. */
static bool run_round(struct log *l, struct stretch **s, uint64_t *from, bool *well) {
    enum keeping keeping = keeps_now(l, s);
    bool anew = atomic_load_explicit(&l->poisoned, memory_order_acquire);
    if (*s == NULL && load_lsn(&l->head) > load_lsn(&l->written)) {
        *s = collect(l, keeping == KEEPS);
        *from = *s == NULL ? 0 : (*s)->lsn;
    }
    *well = keeping != KEEPS_BADLY && ((*s == NULL && !anew) || write_out(l, *s, from));
    if (dc_unlikely(*well && log_state(l) != LOG_WELL) &&
        !atomic_load_explicit(&l->poisoned, memory_order_acquire) &&
        !atomic_load_explicit(&l->unproven, memory_order_seq_cst)) {
        log_set_state(l, LOG_WELL, "", 0);
    }
    if (!*well || *s == NULL) {
        return false;
    }
    finish(l, *s);
    *s = NULL;
    return true;
}

static bool syncs_itself(struct log *l) {
    return atomic_load_explicit(&l->sync_mode, memory_order_relaxed) == LOG_SYNC_ALWAYS &&
           !atomic_load_explicit(&l->poisoned, memory_order_acquire) &&
           !atomic_load_explicit(&l->unproven, memory_order_seq_cst);
}

void log_writer_main(void *arg) {
    struct log *l = arg;
    struct stretch *s = NULL;
    uint64_t from = 0;
    bool stop = false;
    do {
        bool well = true;
        stop = atomic_load_explicit(&l->stopping, memory_order_acquire); /* before the last look */
        bool worked = run_round(l, &s, &from, &well);
        if (atomic_load_explicit(&l->gone_count, memory_order_relaxed) > 0) {
            bury_feeds(l);
        }
        if (worked && syncs_itself(l)) {
            (void)log_sync_now(l);
        }
        if (worked) {
            stop = false;
        } else if (!stop) {
            (void)wake_wait(&l->writer_wake, well ? EVERYSEC_US : RETRY_US);
        }
    } while (!stop);
    if (s != NULL) {
        stretch_free(l, s);
    }
    atomic_store_explicit(&l->writer_done, true, memory_order_release);
}
