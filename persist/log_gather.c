/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the feeds hold below the head, put into the order of the log:
 *
 *   head            |                            read once, first
 *   feed of A   ..##    ####                     each extent says where it belongs,
 *   feed of B   ..  ####    ##                   so a copy puts it there
 *   stretch       |############|                 no gap: I2 of log.h
 */
#include "persist/log_priv.h"
#include "server/base/assert.h"
#include "server/base/mem.h"

#include <stdlib.h>
#include <string.h>

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

static void add_blob(struct gather *g, const struct extent *x) {
    if (g->blob_count == g->blob_cap) {
        g->blob_cap = g->blob_cap == 0 ? 16 : 2 * g->blob_cap;
        g->blobs = mem_must_realloc(g->blobs, g->blob_cap * sizeof(*g->blobs));
    }
    g->blobs[g->blob_count++] = *x;
}

static void gather_blobs(struct gather *g) {
    for (uint32_t i = 0; i < g->feed_count; i++) {
        struct log_feed *f = g->feeds[i];
        feed_lock(f);
        for (uint32_t k = 0; f->blob_count > 0 && k < f->extent_count; k++) {
            const struct extent *x = &f->extents[k];
            if (x->blob != NULL && x->lsn >= g->from && x->lsn < g->to) {
                add_blob(g, x);
            }
        }
        feed_unlock(f);
    }
    if (g->blob_count > 1) {
        qsort(g->blobs, g->blob_count, sizeof(*g->blobs), by_lsn);
    }
}

/* Of 'cap' bytes at least; the one that was used last, if there is one. */
static struct buffer pool_get(struct log *l, size_t cap) {
    struct buffer b = {NULL, 0};
    pthread_mutex_lock(&l->lock);
    if (l->pool_count > 0) {
        b = l->pool[--l->pool_count];
    }
    pthread_mutex_unlock(&l->lock);
    if (b.cap < cap) {
        mem_free(b.ptr);
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

/* All of the stretch, and nothing else, lies in this feed's buffer, and fills a good part of it (under 'always' the
 * buffer is held until it is durable). Feed locked. */
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
    struct buffer bytes = pool_get(g->log, len < TAKE_OVER_LEN ? TAKE_OVER_LEN : (size_t)len);
    s->bytes = bytes.ptr;
    s->cap = bytes.cap;
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
    if (s->hold != NULL) {
        log_unhold(l, s->hold);
    } else {
        pool_put(l, s->bytes, s->cap);
    }
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

/* A large buffer that is empty. What is left has room for a small frame: the appender counts on it. */
static void give_back(struct log_feed *f) {
    char *small = mem_alloc(FEED_MIN_LEN);
    if (small != NULL) {
        mem_free(f->bytes);
        f->bytes = small;
        f->cap = FEED_MIN_LEN;
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
            give_back(f);
        }
    }
    feed_unlock(f);
}

struct stretch *log_gather(struct log *l, bool keep) {
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
