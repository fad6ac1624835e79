/* SPDX-License-Identifier: BSD-3-Clause */
/* 'appendonly': whether the log is kept, since when, and under which names. All of it is the writer's. */
#include "persist/log_priv.h"
#include "server/base/diag.h"

uint64_t log_fence(struct log *l) {
    pthread_mutex_lock(&l->lock);
    for (uint32_t i = 0; i < l->feed_count; i++) {
        feed_lock(l->feeds[i]);
        feed_unlock(l->feeds[i]);
    }
    pthread_mutex_unlock(&l->lock);
    return load_lsn(&l->head);
}

/* A file is begun as soon as one can be had. */
static void begin_keeping(struct log *l) {
    atomic_store_explicit(&l->kept, KEPT_SOON, memory_order_relaxed);
    uint64_t from = log_fence(l);
    atomic_store_explicit(&l->kept_from, from, memory_order_seq_cst);
    log_advance(l, &l->written, from);
    log_advance(l, &l->durable, from);
    atomic_store_explicit(&l->kept, KEPT, memory_order_release); /* pairs with log_set_keeps() */
}

/* Nothing is kept: what couldn't be written needn't be, and what couldn't be made durable is left as it is. */
static void forget_trouble(struct log *l) {
    if (l->unwritten != NULL) {
        stretch_free(l, l->unwritten);
        l->unwritten = NULL;
    }
    if (dc_unlikely(atomic_load_explicit(&l->poisoned, memory_order_acquire))) {
        pthread_mutex_lock(&l->lock);
        struct segment *old = l->closed;
        l->closed = NULL;
        pthread_mutex_unlock(&l->lock);
        segments_leave(l, old);
        atomic_store_explicit(&l->unproven, false, memory_order_seq_cst);
        atomic_store_explicit(&l->poisoned, false, memory_order_release);
    }
}

bool log_keeps_now(struct log *l) {
    bool keeps = atomic_load_explicit(&l->keeps, memory_order_relaxed);
    bool kept = atomic_load_explicit(&l->kept, memory_order_relaxed) == KEPT;
    if (dc_likely(keeps && kept)) {
        return true;
    }
    pthread_mutex_lock(&l->lock);
    bool wanted = atomic_load_explicit(&l->keeps, memory_order_relaxed) ||
                  (l->pins > 0 && !log_is_given_up(l));
    if (!wanted &&
        kept) { /* under the lock: who pins now finds no segment, and waits for the next one */
        atomic_store_explicit(&l->kept, NOT_KEPT, memory_order_relaxed);
        log_swap_segment_locked(l, NULL);
    }
    pthread_mutex_unlock(&l->lock);
    if (!wanted) {
        forget_trouble(l);
    }
    if (!wanted && kept) {
        wake_raise(&l->sync_wake); /* it removes the files */
    }
    if (wanted && !kept) {
        begin_keeping(l);
    }
    return wanted;
}

/* The oldest one with a temporary name. Not from before a stretch that nobody has kept: a log of lasting names has no gap. */
static struct segment *oldest_tmp(struct log *l) {
    uint64_t from = load_lsn(&l->kept_from);
    struct segment *oldest = NULL;
    pthread_mutex_lock(&l->lock);
    struct segment *lists[] = {l->pinned, l->closed, l->current};
    for (uint32_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        for (struct segment *s = lists[i]; s != NULL; s = s == l->current ? NULL : s->next) {
            bool older = oldest == NULL || s->head.first_lsn < oldest->head.first_lsn;
            bool joins = s == l->current || s->end > from;
            oldest = !s->lasts && joins && older ? s : oldest;
        }
    }
    pthread_mutex_unlock(&l->lock);
    return oldest;
}

/* The files get the names that count, oldest first: so a kill in between leaves a log without a gap. While there is a current one nobody
 * else closes one with a temporary name. */
static int make_last(struct log *l) {
    int err = 0;
    struct segment *s;
    while (err == 0 && (s = oldest_tmp(l)) != NULL) {
        err = segment_make_last(l, s);
    }
    err = err < 0 ? err : l->o.io->sync_dir(l->o.io, l->o.dir);
    if (err == 0) {
        pthread_mutex_lock(&l->lock);
        s = l->pinned;
        l->pinned = NULL;
        pthread_mutex_unlock(&l->lock);
        segments_leave(l, s);
    }
    return err;
}

/* 'lock' held. A log that was ended and is wanted again before the writer has looked goes on as it was, but what was written in between
 * nobody waited for: the snapshot has to have that, too. */
static bool fits_base(const struct log *l, uint64_t lsn) {
    return log_wants_base(l) && l->current != NULL && lsn >= load_lsn(&l->kept_from) &&
           lsn >= l->base_from;
}

/* log_base(). False: the disk doesn't let it; it is tried again. */
bool log_settle_base(struct log *l) {
    uint64_t lsn = atomic_load_explicit(&l->base_lsn, memory_order_acquire);
    pthread_mutex_lock(&l->lock);
    bool fits = fits_base(l, lsn);
    pthread_mutex_unlock(&l->lock);
    int err = fits ? make_last(l) : 0;
    if (err < 0) {
        log_note_failure(l, "a file of the log can't be renamed", err);
        return false;
    }
    pthread_mutex_lock(&l->lock);
    fits = fits && fits_base(l, lsn); /* it may have been ended meanwhile */
    if (fits) {
        atomic_store_explicit(&l->based, true, memory_order_relaxed);
    }
    pthread_mutex_unlock(&l->lock);
    if (fits) {
        diag(DIAG_NOTICE, "log.based lsn=%llu", (unsigned long long)lsn);
        log_tell_rotated(l);
        log_tell(l);
    }
    atomic_store_explicit(&l->base_lsn, 0, memory_order_release);
    return true;
}

/* log_trim(). Files that are to count once there is a snapshot stay. */
void log_trim_now(struct log *l) {
    uint64_t lsn = atomic_exchange_explicit(&l->trim_lsn, 0, memory_order_acquire);
    struct segment *gone = NULL;
    pthread_mutex_lock(&l->lock);
    struct segment **at = &l->pinned;
    while (*at != NULL && !atomic_load_explicit(&l->keeps, memory_order_relaxed)) {
        struct segment *s = *at;
        if (s->end <= lsn) {
            *at = s->next;
            s->next = gone;
            gone = s;
        } else {
            at = &s->next;
        }
    }
    pthread_mutex_unlock(&l->lock);
    segments_leave(l, gone);
}
