/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/log.h"

#include "persist/log_priv.h"
#include "server/base/assert.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/base/time.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

/* --- feeds ------------------------------------------------------------------------------------------- */

void feed_lock(struct log_feed *f) {
    /* pairs with the release in feed_unlock */
    for (uint32_t tries = 0; atomic_exchange_explicit(&f->lock, 1, memory_order_acquire) != 0;
         tries++) {
        if (tries % 64 == 63) {
            sched_yield(); /* the writer copies a lot */
        }
    }
}

void feed_unlock(struct log_feed *f) {
    atomic_store_explicit(&f->lock, 0, memory_order_release);
}

struct log_feed *log_feed_create(struct log *l) {
    struct log_feed *f = mem_must_aligned(64, sizeof(*f));
    memset(f, 0, sizeof(*f));
    f->log = l;
    pthread_mutex_lock(&l->lock);
    dc_assert(l->feed_count < FEED_MAX);
    l->feeds[l->feed_count++] = f;
    pthread_mutex_unlock(&l->lock);
    return f;
}

void log_feed_destroy(struct log_feed *f) {
    if (f != NULL) {
        struct log *l = f->log;
        feed_lock(f);
        f->gone = true; /* freed when the writer has what it holds, or at the close */
        atomic_fetch_add_explicit(&l->gone_count, 1, memory_order_relaxed);
        feed_unlock(f);
        wake_raise(&l->writer_wake);
    }
}

void feed_free(struct log_feed *f) {
    mem_free(f->bytes);
    mem_free(f->extents);
    mem_free(f->blobs);
    mem_free_aligned(f, 64, sizeof(*f));
}

static bool grow(void **ptr, size_t *cap, size_t need, size_t size) {
    if (need <= *cap) {
        return true;
    }
    size_t want = *cap * 2 > need ? *cap * 2 : need;
    void *bigger = mem_realloc(*ptr, want * size);
    if (bigger != NULL) {
        *ptr = bigger;
        *cap = want;
    }
    return bigger != NULL;
}

static bool grow_count(void **ptr, uint32_t *cap, uint32_t need, size_t size) {
    size_t wide = *cap;
    bool ok = grow(ptr, &wide, need, size);
    *cap = (uint32_t)wide;
    return ok;
}

bool feed_make_room(struct log_feed *f, size_t len, uint32_t extents) {
    if (dc_unlikely(f->cap - f->len < len)) {
        size_t need = f->len + len;
        if (!grow((void **)&f->bytes, &f->cap, need < FEED_MIN_LEN ? FEED_MIN_LEN : need, 1)) {
            return false;
        }
    }
    uint32_t need = f->extent_count + extents;
    return dc_likely(need <= f->extent_cap) ||
           grow_count((void **)&f->extents, &f->extent_cap, need < 64 ? 64 : need,
                      sizeof(struct extent));
}

static bool make_blob_room(struct log_feed *f, uint32_t blobs) {
    return dc_likely(blobs <= f->blob_cap) ||
           grow_count((void **)&f->blobs, &f->blob_cap, blobs, sizeof(struct frame_blob));
}

/* Each blob parts the bytes. */
static uint32_t extents_of(const struct mut_frame *frame) {
    return 1 + 2 * frame->blobs;
}

enum dc_err log_reserve(struct log_feed *f, struct mut *m) {
    return log_reserve_more(f, m, 0);
}

enum dc_err log_reserve_more(struct log_feed *f, struct mut *m, size_t more) {
    if (!log_is_kept(f->log)) {
        return DC_OK;
    }
    const struct mut_frame *frame = frame_measure(m);
    size_t len = (size_t)frame->inline_len + more;
    if (dc_likely(f->roomy && len <= FEED_ROOM_LEN && frame->blobs == 0)) {
        return DC_OK;
    }
    feed_lock(f);
    bool ok = feed_make_room(f, len, extents_of(frame));
    f->reserved = ok ? len : 0;
    feed_unlock(f);
    return ok && make_blob_room(f, frame->blobs) ? DC_OK : DC_ENOMEM;
}

void feed_add_extent(struct log_feed *f, uint64_t lsn, size_t at, size_t len, struct blob *b) {
    struct extent *last = f->extent_count > 0 ? &f->extents[f->extent_count - 1] : NULL;
    if (last != NULL && last->blob == NULL && b == NULL && last->lsn + last->len == lsn &&
        last->at + last->len == at) {
        last->len += len;
        return;
    }
    dc_assert(f->extent_count < f->extent_cap);
    f->extents[f->extent_count++] = (struct extent){lsn, at, len, b};
}

/* A frame with blobs: its bytes and the blobs in turns. */
static void add_spliced(struct log_feed *f, uint64_t lsn, size_t at, size_t len, uint32_t blobs) {
    size_t from = 0;
    for (uint32_t i = 0; i < blobs; i++) {
        size_t step = f->blobs[i].at - from;
        feed_add_extent(f, lsn, at + from, step, NULL);
        lsn += step;
        from += step;
        feed_add_extent(f, lsn, 0, f->blobs[i].blob->len, blob_acquire(f->blobs[i].blob));
        lsn += f->blobs[i].blob->len;
    }
    if (len > from) {
        feed_add_extent(f, lsn, at + from, len - from, NULL);
    }
    f->blob_count += blobs;
}

bool feed_stay_roomy(struct log_feed *f) {
    return dc_likely(f->cap - f->len >= FEED_ROOM_LEN &&
                     f->extent_cap - f->extent_count >= FEED_ROOM_EXTENTS) ||
           feed_make_room(f, FEED_ROOM_LEN, FEED_ROOM_EXTENTS);
}

struct lsn log_append(struct log_feed *f, struct mut *m) {
    struct log *l = f->log;
    const struct mut_frame *frame = frame_measure(m);
    size_t len = (size_t)frame->inline_len;
    feed_lock(f);
    /* I2: pairs with the acquire in the writer: who sees this head finds the feed locked, or the frame in it. */
    uint64_t lsn = atomic_fetch_add_explicit(&l->head, frame->len, memory_order_acq_rel);
    uint64_t end = lsn + frame->len;
    dc_assert(end < LSN_MAX && !atomic_load_explicit(&l->follows, memory_order_relaxed));
    if (dc_unlikely(!log_is_kept(l))) {
        feed_unlock(f);
        (void)frame_assign(m, lsn);
        return (struct lsn){end};
    }
    /* More than a look only if it began to be kept after log_reserve(). */
    bool ok = feed_make_room(f, len, extents_of(frame)) && make_blob_room(f, frame->blobs);
    dc_assert(ok);
    uint32_t listed = frame_encode(m, l->history.id, lsn, f->bytes + f->len, f->blobs);
    dc_assert(listed == frame->blobs);
    if (dc_likely(listed == 0)) {
        feed_add_extent(f, lsn, f->len, len, NULL);
    } else {
        add_spliced(f, lsn, f->len, len, listed);
    }
    f->len += len;
    f->reserved = 0;
    f->roomy = feed_stay_roomy(f);
    feed_unlock(f);
    return (struct lsn){end};
}

struct lsn log_commit(struct log_feed *f, struct mut *m) {
    struct lsn end = log_append(f, m);
    mut_commit(m);
    return end;
}

void log_kick(struct log *l) {
    if (log_has_company(l)) {
        wake_raise(&l->writer_wake);
    }
}

void log_kick_soon(struct log *l) {
    /* Sequentially consistent, as the head is and log_writer.c: rest(): it sees what was appended, or is seen to sleep. */
    if (!atomic_load_explicit(&l->naps, memory_order_seq_cst)) {
        atomic_store_explicit(&l->naps, true, memory_order_seq_cst);
        wake_raise(&l->writer_wake);
    }
}

/* --- watermarks -------------------------------------------------------------------------------------- */

struct lsn log_head(const struct log *l) {
    return (struct lsn){load_lsn(&l->head)};
}

struct lsn log_written(const struct log *l) {
    return (struct lsn){load_lsn(&l->written)};
}

struct lsn log_durable(const struct log *l) {
    return (struct lsn){load_lsn(&l->durable)};
}

struct lsn log_mark(const struct log *l, enum log_level level) {
    switch (level) {
    case LOG_LEVEL_MEMORY:
        return log_head(l);
    case LOG_LEVEL_OS:
        return log_written(l);
    case LOG_LEVEL_DISK:
        return log_durable(l);
    }
    dc_unreachable();
}

bool log_is_late(const struct log *l) {
    int64_t oldest = atomic_load_explicit(&l->oldest_us, memory_order_relaxed);
    return oldest != 0 &&
           atomic_load_explicit(&l->sync_mode, memory_order_relaxed) == LOG_SYNC_EVERYSEC &&
           time_mono_us() - oldest > LATE_US;
}

void log_tell_wanted(struct log *l, uint32_t wanted) {
    if (atomic_load_explicit(&l->waiters, memory_order_seq_cst) > 0) {
        pthread_mutex_lock(&l->lock);
        pthread_cond_broadcast(&l->moved);
        pthread_mutex_unlock(&l->lock);
    }
    if (l->o.moved != NULL && (atomic_load_explicit(&l->wanted, memory_order_seq_cst) & wanted) &&
        (atomic_fetch_and_explicit(&l->wanted, ~wanted, memory_order_seq_cst) & wanted)) {
        l->o.moved(l->o.arg);
    }
}

void log_tell(struct log *l) {
    log_tell_wanted(l, UINT32_MAX);
}

/* Two threads move the durable mark when nothing is kept. */
bool log_rise(_Atomic uint64_t *mark, uint64_t lsn) {
    uint64_t before = load_lsn(mark);
    while (before < lsn && !atomic_compare_exchange_weak_explicit(
                               mark, &before, lsn, memory_order_seq_cst, memory_order_seq_cst)) {}
    return before < lsn;
}

void log_advance(struct log *l, _Atomic uint64_t *mark, uint64_t lsn) {
    if (log_rise(mark, lsn)) {
        log_tell_wanted(l, 1u << (mark == &l->durable ? LOG_LEVEL_DISK : LOG_LEVEL_OS));
    }
}

bool log_wait(struct log *l, enum log_level level, struct lsn lsn, int64_t timeout_us) {
    int64_t end_us = time_mono_us() + timeout_us;
    struct timespec until = {.tv_sec = end_us / 1000000, .tv_nsec = end_us % 1000000 * 1000};
    if (log_mark(l, level).v >= lsn.v) {
        return true;
    }
    atomic_fetch_add_explicit(&l->waiters, 1, memory_order_seq_cst);
    wake_raise(&l->writer_wake);
    if (level == LOG_LEVEL_DISK && log_rise(&l->hurry_lsn, lsn.v)) {
        wake_raise(&l->sync_wake);
    }
    pthread_mutex_lock(&l->lock);
    int err = 0;
    while (log_mark(l, level).v < lsn.v && err == 0) {
        err = pthread_cond_clockwait(&l->moved, &l->lock, CLOCK_MONOTONIC, &until);
    }
    pthread_mutex_unlock(&l->lock);
    atomic_fetch_sub_explicit(&l->waiters, 1, memory_order_seq_cst);
    return log_mark(l, level).v >= lsn.v;
}

void log_hurry(struct log *l) {
    if (log_rise(&l->hurry_lsn, load_lsn(&l->head))) {
        wake_raise(&l->sync_wake);
    }
}

void log_note_time(struct log *l, int64_t now_ms) {
    atomic_store_explicit(&l->clock_ms, now_ms, memory_order_relaxed);
}

void log_set_tap(struct log *l, log_tap_fn tap, void *arg) {
    l->tap_arg = arg;
    atomic_store_explicit(&l->tap, tap,
                          memory_order_release); /* pairs with the acquire in finish() */
}

void log_want(struct log *l, enum log_level level) {
    atomic_fetch_or_explicit(&l->wanted, 1u << level, memory_order_seq_cst);
}

/* --- state ------------------------------------------------------------------------------------------- */

bool log_has_room(const struct log *l) {
    return log_pending(l) < l->o.memory_limit || !log_is_kept(l);
}

enum log_state log_state(const struct log *l) {
    return (enum log_state)atomic_load_explicit(&l->state, memory_order_relaxed);
}

void log_set_state(struct log *l, enum log_state state, const char *what, int err) {
    pthread_mutex_lock(&l->lock);
    enum log_state before =
        (enum log_state)atomic_exchange_explicit(&l->state, state, memory_order_relaxed);
    if (state == LOG_WELL) {
        l->trouble[0] = '\0';
    } else {
        snprintf(l->trouble, sizeof(l->trouble), "%s in %s: %s", what, l->o.dir,
                 dc_errno_text(-err));
    }
    pthread_mutex_unlock(&l->lock);
    if (before != state && state != LOG_WELL) {
        diag(DIAG_WARNING, "log.trouble what=\"%s\" error=\"%s\" writes=refused", what,
             dc_errno_text(-err));
    } else if (before != state) {
        diag(DIAG_NOTICE, "log.well writes=accepted");
    }
    if (before != state) {
        log_tell(l);
    }
}

static bool give_up(struct log *l) {
    pthread_mutex_lock(&l->lock); /* log_set_keeps() decides under it, too */
    bool unkept = !atomic_load_explicit(&l->keeps, memory_order_relaxed);
    if (unkept && l->pins > 0) {
        atomic_store_explicit(&l->given_up, true, memory_order_relaxed);
    }
    pthread_mutex_unlock(&l->lock);
    return unkept;
}

void log_fail(struct log *l, enum log_state state, const char *what, int err) {
    if (!give_up(l)) {
        log_set_state(l, state, what, err);
        return;
    }
    diag(DIAG_WARNING, "log.given_up what=\"%s\" error=\"%s\" writes=accepted", what,
         dc_errno_text(-err));
    wake_raise(&l->writer_wake); /* it ends the files */
}

void log_trouble(const struct log *l, char *to, size_t size) {
    struct log *mine = (struct log *)(uintptr_t)l; /* the lock isn't part of what it says */
    pthread_mutex_lock(&mine->lock);
    snprintf(to, size, "%s", l->trouble);
    pthread_mutex_unlock(&mine->lock);
}

void log_set_sync(struct log *l, enum log_sync sync) {
    atomic_store_explicit(&l->sync_mode, sync, memory_order_relaxed);
    wake_raise(&l->sync_wake);
}

void log_set_segment_len(struct log *l, uint64_t len) {
    atomic_store_explicit(&l->segment_len, len, memory_order_relaxed);
}

void log_set_keeps(struct log *l, bool keeps) {
    struct timespec nap = {0, 100000};
    pthread_mutex_lock(&l->lock); /* the writer decides under it, too */
    if (!keeps) {
        atomic_store_explicit(&l->based, false, memory_order_relaxed);
    } else if (!atomic_load_explicit(&l->keeps, memory_order_relaxed)) {
        l->base_from = load_lsn(&l->head);
    }
    atomic_store_explicit(&l->keeps, keeps, memory_order_relaxed);
    if (keeps) {
        atomic_store_explicit(&l->given_up, false, memory_order_relaxed);
    }
    pthread_mutex_unlock(&l->lock);
    wake_raise(&l->writer_wake);
    /* pairs with the release in begin_keeping(). No disk is waited for. */
    while (keeps && atomic_load_explicit(&l->kept, memory_order_acquire) != KEPT) {
        nanosleep(&nap, NULL);
    }
    log_tell(l); /* what waits for a mark may not have to any more */
}

bool log_wants_base(const struct log *l) {
    return atomic_load_explicit(&l->keeps, memory_order_relaxed) &&
           !atomic_load_explicit(&l->based, memory_order_relaxed);
}

bool log_is_based(const struct log *l) {
    return atomic_load_explicit(&l->keeps, memory_order_relaxed) &&
           atomic_load_explicit(&l->based, memory_order_relaxed);
}

/* False: it is done, or somebody has the role and may be about to. */
static bool withdraw_base(struct log *l) {
    bool withdrawn = false;
    if (pthread_mutex_trylock(&l->role) == 0) {
        withdrawn = atomic_exchange_explicit(&l->base_lsn, 0, memory_order_relaxed) != 0;
        pthread_mutex_unlock(&l->role);
    }
    return withdrawn;
}

bool log_base(struct log *l, uint64_t lsn, const _Atomic bool *stop) {
    struct timespec nap = {0, 1000000};
    int64_t well_us = time_mono_us();
    atomic_store_explicit(&l->base_lsn, lsn, memory_order_release);
    wake_raise(&l->writer_wake);
    while (atomic_load_explicit(&l->base_lsn, memory_order_acquire) != 0) {
        int64_t now_us = time_mono_us();
        well_us = log_state(l) == LOG_WELL ? now_us : well_us;
        if (atomic_load_explicit(stop, memory_order_relaxed) ||
            (now_us - well_us > BASE_PATIENCE_US && withdraw_base(l))) {
            return false;
        }
        nanosleep(&nap, NULL);
    }
    return true;
}

struct lsn log_pin(struct log *l) {
    pthread_mutex_lock(&l->lock);
    l->pins++;
    for (;;) {
        if (l->current != NULL || log_is_given_up(l) || log_state(l) != LOG_WELL) {
            break; /* no file is to be had: the caller finds nothing in it */
        }
        pthread_mutex_unlock(&l->lock);
        wake_raise(&l->writer_wake);
        struct timespec nap = {0, 1000000};
        nanosleep(&nap, NULL);
        pthread_mutex_lock(&l->lock);
    }
    struct lsn from = log_written(l); /* no file begins behind it */
    pthread_mutex_unlock(&l->lock);
    return from;
}

void log_unpin(struct log *l) {
    pthread_mutex_lock(&l->lock);
    dc_assert(l->pins > 0);
    l->pins--;
    if (l->pins == 0) {
        atomic_store_explicit(&l->given_up, false, memory_order_relaxed);
    }
    pthread_mutex_unlock(&l->lock);
    wake_raise(&l->writer_wake);
}

bool log_is_given_up(const struct log *l) {
    return atomic_load_explicit(&l->given_up, memory_order_relaxed);
}

void log_trim(struct log *l, uint64_t lsn) {
    atomic_store_explicit(&l->trim_lsn, lsn, memory_order_release);
    wake_raise(&l->writer_wake);
}

bool log_is_in_files(const struct log *l, uint64_t lsn) {
    return lsn >= log_kept_from(l);
}

uint64_t log_kept_from(const struct log *l) {
    /* pairs with the release in begin_keeping() */
    return atomic_load_explicit(&l->kept, memory_order_acquire) == KEPT ? load_lsn(&l->kept_from)
                                                                        : UINT64_MAX;
}

uint32_t log_layout(const struct log *l) {
    return atomic_load_explicit(&l->layout, memory_order_seq_cst);
}

void log_stats(const struct log *l, struct log_stats *out) {
    struct log *mine = (struct log *)(uintptr_t)l;
    memset(out, 0, sizeof(*out));
    out->bytes_pending = log_pending(l);
    out->syncs = atomic_load_explicit(&l->syncs, memory_order_relaxed);
    out->sync_failures = atomic_load_explicit(&l->sync_failures, memory_order_relaxed);
    out->write_failures = atomic_load_explicit(&l->write_failures, memory_order_relaxed);
    out->rotations = atomic_load_explicit(&l->rotations, memory_order_relaxed);
    out->last_sync_us = atomic_load_explicit(&l->last_sync_us, memory_order_relaxed);
    pthread_mutex_lock(&mine->lock);
    if (l->current != NULL) {
        memcpy(out->segment, l->current->name, sizeof(out->segment));
        out->segment_first_lsn = l->current->head.first_lsn;
    }
    pthread_mutex_unlock(&mine->lock);
}

/* --- life -------------------------------------------------------------------------------------------- */

/* The first segment, and what opens a history: durable before anything is appended. Where nothing is kept the FORK frame has its place all the
 * same: who comes later must not take what is behind it for the begin. */
static int begin(struct log *l) {
    struct buf fork;
    buf_init(&fork, 0);
    if (l->o.fork) {
        frame_encode_fork(&fork, l->o.first_lsn, time_wall_us() / 1000, l->o.chain,
                          l->o.chain_count);
    }
    struct part first = {fork.ptr, fork.len};
    int err = l->o.keeps
                  ? segment_begin_durable(l, l->o.first_lsn, &l->history, first, NULL, &l->current)
                  : 0;
    uint64_t end = l->o.first_lsn + fork.len;
    buf_fini(&fork);
    if (err == 0) {
        atomic_store(&l->head, end);
        atomic_store(&l->written, end);
        atomic_store(&l->durable, end);
    }
    return err;
}

static void log_free(struct log *l) {
    for (uint32_t i = 0; i < l->past_count; i++) {
        mem_free(l->past[i]);
    }
    mem_free(l->past);
    pthread_cond_destroy(&l->moved);
    pthread_mutex_destroy(&l->sync_lock);
    pthread_mutex_destroy(&l->lock);
    pthread_mutex_destroy(&l->role);
    mem_free_aligned(l, 64, (sizeof(*l) + 63) / 64 * 64);
}

enum dc_err log_open(const struct log_opts *opts, struct log **out) {
    struct log *l = mem_must_aligned(64, (sizeof(*l) + 63) / 64 * 64);
    memset(l, 0, sizeof(*l));
    l->o = *opts;
    l->tail = &l->first;
    atomic_init(&l->head, opts->first_lsn);
    atomic_init(&l->written, opts->first_lsn);
    atomic_init(&l->durable, opts->first_lsn);
    atomic_init(&l->sync_mode, opts->sync);
    atomic_init(&l->segment_len, opts->segment_len);
    atomic_init(&l->keeps, opts->keeps);
    atomic_init(&l->based, opts->keeps);
    atomic_init(&l->kept, opts->keeps ? KEPT : NOT_KEPT);
    wake_init(&l->writer_wake);
    wake_init(&l->sync_wake);
    pthread_mutex_init(&l->role, NULL);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->moved, NULL);
    pthread_mutex_init(&l->sync_lock, NULL);
    l->history = opts->history;
    struct histories *chain = opts->chain_count > 0 ? histories_copy(opts->chain, opts->chain_count)
                                                    : histories_copy(&opts->history, 1);
    log_keep_chain(l, chain);
    atomic_init(&l->chain, chain);
    int err = begin(l);
    log_set_follows(l, opts->follows);
    if (err < 0) {
        log_free(l);
        return dc_fail(DC_EIO, "the log can't be begun in %s: %s", opts->dir, dc_errno_text(-err));
    }
    thread_start(&l->writer, "log-writer", log_writer_main, l);
    thread_start(&l->syncer, "log-sync", log_sync_main, l);
    *out = l;
    return DC_OK;
}

/* What is in memory is safe, and the end of the log says so. */
static void seal(struct log *l) {
    struct buf frame;
    struct segment *s = l->current;
    uint64_t lsn = load_lsn(&l->head);
    buf_init(&frame, 0);
    frame_encode_close(&frame, l->history.id, lsn, time_wall_us() / 1000);
    struct part part = {frame.ptr, frame.len};
    if (load_lsn(&l->durable) == lsn && s->end == lsn && segment_write(l, s, &part, 1, lsn) == 0) {
        s->end = lsn + frame.len;
        if (l->o.io->sync(l->o.io, &s->file) == 0) {
            (void)segment_write_mark(l, s, s->end);
            (void)l->o.io->truncate(l->o.io, &s->file,
                                    SEGMENT_HEADER_LEN + (s->end - s->head.first_lsn));
            (void)l->o.io->sync(l->o.io, &s->file);
        }
    }
    buf_fini(&frame);
}

void log_close(struct log *l, bool clean, int64_t timeout_ms) {
    if (l == NULL) {
        return;
    }
    (void)log_wait(l, clean ? LOG_LEVEL_DISK : LOG_LEVEL_OS, log_head(l), timeout_ms * 1000);
    atomic_store_explicit(&l->stopping, true, memory_order_release);
    wake_raise(&l->writer_wake);
    thread_join(&l->writer);
    wake_raise(&l->sync_wake);
    thread_join(&l->syncer);
    if (clean && log_is_based(l) && l->current != NULL && !log_follows(l)) {
        seal(l);
    }
    for (uint32_t i = 0; i < l->feed_count; i++) {
        for (uint32_t k = 0; k < l->feeds[i]->extent_count; k++) {
            blob_release(l->feeds[i]->extents[k].blob);
        }
        feed_free(l->feeds[i]);
    }
    while (l->first != NULL) {
        struct stretch *next = l->first->next;
        stretch_free(l, l->first);
        l->first = next;
    }
    for (uint32_t i = 0; i < l->pool_count; i++) {
        mem_free(l->pool[i].ptr);
    }
    log_end_holds(l);
    segments_leave(l, l->closed);
    segments_leave(l, l->pinned);
    segments_leave(l, l->current);
    if (l->spare != NULL) {
        segment_discard(l, l->spare);
    }
    log_free(l);
}
