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

/* Frees what is durable now. */
static void release(struct log *l, uint64_t durable) {
    struct stretch *gone = NULL;
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
}

/* A complete segment: synced, cut to its length, left alone. */
static int finish_closed(struct log *l) {
    for (;;) {
        pthread_mutex_lock(&l->lock);
        struct segment *s = l->closed;
        pthread_mutex_unlock(&l->lock);
        if (s == NULL) {
            return 0;
        }
        int err =
            l->o.io->truncate(l->o.io, &s->file, SEGMENT_HEADER_LEN + (s->end - s->head.first_lsn));
        err = err < 0 ? err : segment_write_mark(l, s, s->head.first_lsn);
        err = err < 0 ? err : l->o.io->sync(l->o.io, &s->file);
        err = err < 0 ? err : segment_write_mark(l, s, s->end);
        if (err < 0) {
            return err;
        }
        pthread_mutex_lock(&l->lock);
        l->closed = s->next;
        pthread_mutex_unlock(&l->lock);
        if (l->o.keeps) {
            segment_close(l, s);
        } else {
            segment_discard(l, s); /* who needed it has read it */
        }
    }
}

/* Only the writer replaces 'current', and what it replaces stays open in 'closed' until this thread has seen it. */
static int sync_files(struct log *l) {
    int err = finish_closed(l);
    pthread_mutex_lock(&l->lock);
    struct segment *s = l->current;
    bool is_new = s != NULL && s->is_new;
    pthread_mutex_unlock(&l->lock);
    if (err < 0 || s == NULL) {
        return err;
    }
    err = l->o.io->sync(l->o.io, &s->file);
    if (err == 0 && is_new) {
        err = l->o.io->sync_dir(l->o.io, l->o.dir);
        s->is_new = err < 0;
    }
    return err;
}

int log_sync_now(struct log *l) {
    uint64_t target = load_lsn(&l->written);
    int64_t began_us = time_mono_us();
    int err = sync_files(l);
    int64_t took_us = time_mono_us() - began_us;
    atomic_store_explicit(&l->last_sync_us, took_us, memory_order_relaxed);
    atomic_fetch_add_explicit(&l->syncs, 1, memory_order_relaxed);
    if (err < 0) {
        atomic_fetch_add_explicit(&l->sync_failures, 1, memory_order_relaxed);
        atomic_store_explicit(&l->poisoned, true, memory_order_release);
        log_set_state(l, LOG_BROKEN, "fdatasync of the log has failed", err);
        wake_raise(&l->writer_wake);
        return err;
    }
    if (target > load_lsn(&l->durable)) {
        log_advance(l, &l->durable, target);
        pthread_mutex_lock(&l->lock);
        struct segment *s = l->current;
        pthread_mutex_unlock(&l->lock);
        if (s != NULL) {
            (void)segment_write_mark(l, s, target); /* a mark that is late does no harm */
        }
        release(l, target);
    }
    return 0;
}

/* Nothing waits for the spare but the next rotation. */
static void make_spare(struct log *l) {
    pthread_mutex_lock(&l->lock);
    bool wanted = l->spare == NULL && l->current != NULL && l->o.keeps;
    pthread_mutex_unlock(&l->lock);
    if (!wanted) {
        return;
    }
    struct segment *s = NULL;
    int err = segment_prepare(l, atomic_load_explicit(&l->segment_len, memory_order_relaxed), &s);
    if (err == 0) {
        pthread_mutex_lock(&l->lock);
        l->spare = s;
        pthread_mutex_unlock(&l->lock);
        atomic_store_explicit(&l->has_spare, true, memory_order_relaxed);
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
}

/* Microseconds until the next sync is due. */
static int64_t due_in_us(struct log *l, int64_t last_us) {
    int64_t passed = time_mono_us() - last_us;
    bool pending = load_lsn(&l->written) > load_lsn(&l->durable);
    bool much = load_lsn(&l->head) - load_lsn(&l->durable) > l->o.memory_limit / 2;
    if (atomic_load_explicit(&l->poisoned, memory_order_acquire)) {
        return RETRY_US; /* first the writer */
    }
    if (!pending) {
        return EVERYSEC_US;
    }
    if (much || atomic_exchange_explicit(&l->hurry, false, memory_order_seq_cst) ||
        atomic_load_explicit(&l->waiters, memory_order_seq_cst) > 0) {
        return 0;
    }
    switch ((enum log_sync)atomic_load_explicit(&l->sync_mode, memory_order_relaxed)) {
    case LOG_SYNC_ALWAYS:
        return 0;
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
            if (l->current != NULL || !l->o.keeps) {
                (void)log_sync_now(l);
            }
        }
        if (stop) {
            return;
        }
        make_spare(l);
        if (wait_us > 0 && !wake_wait(&l->sync_wake, wait_us)) {
            empty_pool(l);
        }
    }
}
