/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The sync thread: makes what is written durable, and keeps a spare segment ready. One fdatasync serves all who wait: what was written when
 * it began is durable when it ends.
 */
#include "persist/log_priv.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/base/time.h"

#include <errno.h>
#include <string.h>

/* Frees what is durable now. Not while 'poisoned': the writer goes through the list then. */
static void release(struct log *l, uint64_t durable) {
    dc_assert(!atomic_load_explicit(&l->poisoned, memory_order_relaxed));
    struct stretch *gone = NULL;
    uint32_t holds = log_holds(l);
    pthread_mutex_lock(&l->lock);
    struct stretch **end = &l->first;
    while (*end != NULL && (*end)->end <= durable) {
        end = &(*end)->next;
    }
    if (end != &l->first) {
        gone = l->first;
        l->first = *end;
        *end = NULL;
        if (l->first == NULL) {
            l->tail = &l->first;
        }
    }
    atomic_store_explicit(&l->oldest_us, l->first == NULL ? 0 : l->first->written_us,
                          memory_order_relaxed);
    pthread_mutex_unlock(&l->lock);
    while (gone != NULL) {
        struct stretch *next = gone->next;
        stretch_free(l, gone);
        gone = next;
    }
    log_free_holds(l, holds);
}

static bool is_always(const struct log *l) {
    return atomic_load_explicit(&l->sync_mode, memory_order_relaxed) == LOG_SYNC_ALWAYS;
}

/* Bytes and, once, the name. */
static int sync_segment(struct log *l, struct segment *s) {
    int err = l->o.io->sync(l->o.io, &s->file);
    if (err == 0 && s->is_new) {
        err = l->o.io->sync_dir(l->o.io, l->o.dir);
        s->is_new = err < 0;
    }
    return err;
}

/* A complete segment: synced, left alone. It isn't cut to its length: a reader that has mapped it may look behind the last frame, and
 * little is left there. */
static int finish_segment(struct log *l, struct segment *s) {
    int err = sync_segment(l, s);
    if (err < 0) {
        return err;
    }
    log_advance(l, &l->durable, s->end);
    (void)segment_write_mark(l, s, s->end); /* a mark that is late does no harm */
    return 0;
}

/* A segment that goes on behind the target. */
static int sync_to(struct log *l, struct segment *s, uint64_t target) {
    int err = sync_segment(l, s);
    if (err == 0) {
        log_advance(l, &l->durable, target);
    }
    /* Each mark is a block more to sync. */
    if (err == 0 && (!is_always(l) || target - s->marked.durable_lsn >= MARK_STEP_LEN)) {
        (void)segment_write_mark(l, s, target);
    }
    return err;
}

/* Now and then: what has become durable since the mark was written, and the time, which goes on though nobody writes. The watermark first:
 * while the segment is the current one it hasn't been moved without a sync (log_gather() does that when nothing is kept). */
static void renew_mark(struct log *l) {
    pthread_mutex_lock(&l->sync_lock);
    uint64_t durable = load_lsn(&l->durable);
    pthread_mutex_lock(&l->lock);
    /* The writer frees it only while 'poisoned', which nobody sets without sync_lock. */
    struct segment *s =
        atomic_load_explicit(&l->poisoned, memory_order_acquire) ? NULL : l->current;
    pthread_mutex_unlock(&l->lock);
    int64_t clock_ms = atomic_load_explicit(&l->clock_ms, memory_order_relaxed);
    if (s != NULL && (s->marked.durable_lsn < durable || s->marked.time_ms < clock_ms)) {
        (void)segment_write_mark(l, s, durable);
    }
    pthread_mutex_unlock(&l->sync_lock);
}

/* Takes it out of the list of complete ones. Who needs a temporary one has to be waited for. */
static void pop_closed(struct log *l, struct segment *s) {
    pthread_mutex_lock(&l->lock);
    bool lasts = s->lasts;
    l->closed = s->next;
    if (!lasts) {
        s->next = l->pinned;
        l->pinned = s;
    }
    pthread_mutex_unlock(&l->lock);
    if (lasts) {
        segment_close(l, s);
    }
}

/* Moves what needn't be synced out of a list, behind what is in the other one: a reader that is in the middle of them finds no gap. */
static void take_idle(struct segment **list, struct segment **to) {
    while (*to != NULL) {
        to = &(*to)->next;
    }
    while (*list != NULL) {
        struct segment *s = *list;
        if (s->lasts && s->end > s->head.first_lsn) {
            list = &s->next;
        } else {
            *list = s->next;
            s->next = NULL;
            *to = s;
            to = &s->next;
        }
    }
}

/* 'appendonly no': what nobody needs any more. What was kept before stays. */
static void discard_unpinned(struct log *l) {
    struct segment *idle = NULL;
    pthread_mutex_lock(&l->lock);
    if (l->current == NULL) {
        idle = l->pinned;
        l->pinned = NULL;
        take_idle(&l->closed, &idle);
    }
    if (l->spare != NULL && !atomic_load_explicit(&l->keeps, memory_order_relaxed)) {
        l->spare->next = idle;
        idle = l->spare;
        l->spare = NULL;
    }
    pthread_mutex_unlock(&l->lock);
    segments_leave(l, idle);
}

/*
 * All files that hold bytes below 'target'. Which one is next is decided under the lock: a segment that the writer leaves meanwhile
 * is the oldest complete one then, and is seen in the next round of the loop. Only who has sync_lock closes complete ones, or the writer
 * after a failed fdatasync, when nobody syncs.
 */
static int sync_files(struct log *l, uint64_t target) {
    for (;;) {
        pthread_mutex_lock(&l->lock);
        bool is_closed = l->closed != NULL;
        struct segment *s = is_closed ? l->closed : l->current;
        pthread_mutex_unlock(&l->lock);
        if (s == NULL || s->head.first_lsn >= target) {
            return 0;
        }
        if (!is_closed || s->end > target) {
            return load_lsn(&l->durable) < target ? sync_to(l, s, target) : 0;
        }
        int err = finish_segment(l, s);
        if (err < 0) {
            return err;
        }
        pop_closed(l, s);
    }
}

static int sync_now(struct log *l) {
    uint64_t target = load_lsn(&l->written);
    int64_t began_us = time_mono_us();
    discard_unpinned(l);
    int err = sync_files(l, target);
    int64_t took_us = time_mono_us() - began_us;
    atomic_store_explicit(&l->last_sync_us, took_us, memory_order_relaxed);
    atomic_fetch_add_explicit(&l->syncs, 1, memory_order_relaxed);
    if (err == 0) {
        log_advance(l, &l->durable, target);
    }
    release(l, load_lsn(&l->durable));
    if (err < 0) {
        atomic_fetch_add_explicit(&l->sync_failures, 1, memory_order_relaxed);
        /* In this order: who sees the state finds that it isn't to be set right yet. */
        atomic_store_explicit(&l->unproven, true, memory_order_seq_cst);
        log_fail(l, LOG_BROKEN, "fdatasync of the log has failed", err);
        atomic_store_explicit(&l->poisoned, true, memory_order_release);
        wake_raise(&l->writer_wake);
    } else if (dc_unlikely(atomic_exchange_explicit(&l->unproven, false, memory_order_seq_cst))) {
        wake_raise(&l->writer_wake); /* writes are taken again */
    }
    return err;
}

/* The sync thread calls it, and under 'always' log-writer, without the role: who waits for every byte saves the way through another thread. The other one may have
 * failed while this one waited: the kernel reports that once, so a second fdatasync of the same file would only seem to succeed. */
int log_sync_now(struct log *l) {
    pthread_mutex_lock(&l->sync_lock);
    bool is_lost = atomic_load_explicit(&l->poisoned, memory_order_acquire);
    int err = is_lost ? -EIO : sync_now(l);
    pthread_mutex_unlock(&l->sync_lock);
    return err;
}

/* Nothing waits for the spare but the next rotation. */
static void make_spare(struct log *l) {
    pthread_mutex_lock(&l->lock);
    bool wanted = l->spare == NULL && atomic_load_explicit(&l->keeps, memory_order_relaxed);
    pthread_mutex_unlock(&l->lock);
    if (!wanted) {
        return;
    }
    struct segment *s = NULL;
    int err = segment_prepare(l, atomic_load_explicit(&l->segment_len, memory_order_relaxed), &s);
    if (err == 0 && is_always(l) && segment_fill(l, s) < 0) {
        segment_discard(l, s);
        return;
    }
    if (err == 0) {
        pthread_mutex_lock(&l->lock);
        l->spare = s;
        pthread_mutex_unlock(&l->lock);
    }
}

/* Nothing was written for a while: the buffers go back to the allocator. */
static void empty_pool(struct log *l) {
    struct buffer gone[POOL_MAX];
    pthread_mutex_lock(&l->lock);
    uint32_t count = l->first == NULL ? l->pool_count : 0;
    memcpy(gone, l->pool, count * sizeof(gone[0]));
    l->pool_count -= count;
    pthread_mutex_unlock(&l->lock);
    for (uint32_t i = 0; i < count; i++) {
        mem_free(gone[i].ptr);
    }
    log_free_holds(l, 0);
}

/* 'appendonly no': the last one who needed files has gone. */
static bool has_leftovers(struct log *l) {
    if (dc_likely(log_is_based(l))) {
        return false;
    }
    pthread_mutex_lock(&l->lock);
    bool has = l->current == NULL && (l->closed != NULL || l->pinned != NULL || l->first != NULL);
    pthread_mutex_unlock(&l->lock);
    return has;
}

/* Microseconds until the next sync is due. */
static int64_t due_in_us(struct log *l, int64_t last_us) {
    int64_t passed = time_mono_us() - last_us;
    uint64_t durable = load_lsn(&l->durable);
    if (atomic_load_explicit(&l->poisoned, memory_order_acquire)) {
        return RETRY_US; /* first the writer */
    }
    if (dc_unlikely(atomic_load_explicit(&l->unproven, memory_order_relaxed))) {
        return RETRY_US - passed;
    }
    if (has_leftovers(l)) {
        return 0;
    }
    if (load_lsn(&l->written) <= durable) {
        return EVERYSEC_US; /* the writer tells if somebody is in a hurry */
    }
    if (load_lsn(&l->hurry_lsn) > durable || log_pending(l) > l->o.memory_limit / 2) {
        return 0;
    }
    switch ((enum log_sync)atomic_load_explicit(&l->sync_mode, memory_order_relaxed)) {
    case LOG_SYNC_ALWAYS: /* the writer has just been asked to, or does it */
    case LOG_SYNC_EVERYSEC:
        return EVERYSEC_US - passed;
    case LOG_SYNC_NO:
        return LAZY_SYNC_US - passed;
    }
    return 0;
}

void log_sync_main(void *arg) {
    struct log *l = arg;
    int64_t last_us = time_mono_us();
    for (;;) {
        bool stop = atomic_load_explicit(&l->writer_done, memory_order_acquire);
        int64_t wait_us = due_in_us(l, last_us);
        if (wait_us <= 0 || (stop && !atomic_load_explicit(&l->poisoned, memory_order_acquire))) {
            last_us = time_mono_us();
            (void)log_sync_now(l);
        }
        if (stop) {
            return;
        }
        make_spare(l);
        if (wait_us > 0 &&
            !wake_wait(&l->sync_wake, wait_us < EVERYSEC_US ? wait_us : EVERYSEC_US)) {
            empty_pool(l);
            renew_mark(l);
        }
    }
}
