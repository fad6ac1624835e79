/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is written stays in memory until it is durable: for a second, at a hundred megabytes a second and more. If that were the buffers that are
 * appended to, each would come back cold, and so would all else that they push out of the caches. So the bytes are copied to
 * blocks that nobody reads unless an fdatasync fails, past the caches, and the few buffers go round warm.
 *
 *     feed ─► buffer ─ pwritev ─► file
 *               ├─ past the caches ─► block  until it is durable
 *               └─ back to the feeds
 */
#include "persist/log_priv.h"
#include "server/base/mem.h"

#include <string.h>

#ifdef __SSE2__
#    include <emmintrin.h>
#endif

enum { BLOCK_LEN = 1024 * 1024, LINE_LEN = 64 };

struct hold_block {
    struct hold_block *next;
    uint32_t stretches; /* that have bytes in it; under log->lock */
    uint32_t used;      /* the writer's own */
    _Alignas(LINE_LEN) char bytes[BLOCK_LEN];
};

/* 'to' is the begin of a line. */
static void copy_past_caches(char *to, const char *from, size_t len) {
#ifdef __SSE2__
    for (; len >= LINE_LEN; len -= LINE_LEN, to += LINE_LEN, from += LINE_LEN) {
        for (size_t i = 0; i < LINE_LEN; i += sizeof(__m128i)) {
            __m128i piece = _mm_loadu_si128((const __m128i *)(const void *)(from + i));
            _mm_stream_si128((__m128i *)(void *)(to + i), piece);
        }
    }
    _mm_sfence(); /* whoever sees the stretch sees its bytes */
#endif
    memcpy(to, from, len);
}

static struct hold_block *take_idle_locked(struct log *l) {
    struct hold_block *b = l->holds_idle;
    if (b != NULL) {
        l->holds_idle = b->next;
        l->hold_idle_count--;
    }
    return b;
}

static void put_idle_locked(struct log *l, struct hold_block *b) {
    b->next = l->holds_idle;
    l->holds_idle = b;
    l->hold_idle_count++;
}

/* A block with room, in which a stretch is counted. */
static struct hold_block *block_for(struct log *l, size_t len) {
    pthread_mutex_lock(&l->lock);
    struct hold_block *b = l->hold;
    if (b != NULL && b->stretches == 0) {
        b->used = 0;
    }
    if (b == NULL || BLOCK_LEN - b->used < len) {
        b = take_idle_locked(l);
        if (b == NULL) {
            pthread_mutex_unlock(&l->lock);
            b = mem_must_aligned(LINE_LEN, sizeof(*b));
            pthread_mutex_lock(&l->lock);
            l->hold_count++;
        }
        b->stretches = 0;
        b->used = 0;
        if (l->hold != NULL && l->hold->stretches == 0) { /* its last one went meanwhile */
            put_idle_locked(l, l->hold);
        }
        l->hold = b;
    }
    b->stretches++;
    pthread_mutex_unlock(&l->lock);
    return b;
}

void log_hold(struct log *l, struct stretch *s) {
    size_t len = (size_t)(s->end - s->lsn);
    if (s->cap == 0 || s->blob_count > 0 || len > BLOCK_LEN) {
        return; /* a rare one: it stays where it is */
    }
    struct hold_block *b = block_for(l, len);
    char *to = b->bytes + b->used;
    copy_past_caches(to, s->bytes, len);
    b->used += (uint32_t)((len + LINE_LEN - 1) / LINE_LEN * LINE_LEN);
    pool_put(l, s->bytes, s->cap);
    s->hold = b;
    s->bytes = NULL;
    s->cap = 0;
    s->parts[0].ptr = to;
}

void log_unhold(struct log *l, struct hold_block *b) {
    pthread_mutex_lock(&l->lock);
    b->stretches--;
    if (b->stretches == 0 && b != l->hold) {
        put_idle_locked(l, b);
    }
    pthread_mutex_unlock(&l->lock);
}

uint32_t log_holds(struct log *l) {
    pthread_mutex_lock(&l->lock);
    uint32_t count = l->hold_count - l->hold_idle_count;
    pthread_mutex_unlock(&l->lock);
    return count;
}

void log_free_holds(struct log *l, uint32_t needed) {
    pthread_mutex_lock(&l->lock);
    uint32_t surplus = l->hold_count > needed ? l->hold_count - needed : 0;
    struct hold_block *gone = NULL;
    for (uint32_t i = (surplus + 1) / 2; i > 0 && l->holds_idle != NULL; i--) {
        struct hold_block *b = take_idle_locked(l);
        l->hold_count--;
        b->next = gone;
        gone = b;
    }
    pthread_mutex_unlock(&l->lock);
    while (gone != NULL) {
        struct hold_block *next = gone->next;
        mem_free_aligned(gone, LINE_LEN, sizeof(*gone));
        gone = next;
    }
}

void log_end_holds(struct log *l) {
    while (l->hold_idle_count > 0) {
        log_free_holds(l, 0);
    }
    if (l->hold != NULL) {
        mem_free_aligned(l->hold, LINE_LEN, sizeof(*l->hold));
    }
}
