/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The writer: writes what log_gather.c has put into the order of the log. A stretch stays in memory until it is durable. When an fdatasync
 * has failed, what isn't durable is written again, to a new segment.
 *
 * It is a role: the thread log-writer has it, or for a plain write a thread that calls log_write_through().
 */
#include "persist/log_priv.h"
#include "server/base/assert.h"
#include "server/base/codec.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/base/time.h"

#include <errno.h>

/* --- writing ----------------------------------------------------------------------------------------- */

void log_tell_rotated(struct log *l) {
    if (l->o.rotated != NULL) {
        l->o.rotated(l->o.arg);
    }
}

void log_swap_segment_locked(struct log *l, struct segment *s) {
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

void log_use_segment(struct log *l, struct segment *s) {
    pthread_mutex_lock(&l->lock);
    log_swap_segment_locked(l, s);
    pthread_mutex_unlock(&l->lock);
    atomic_fetch_add_explicit(&l->layout, 1, memory_order_seq_cst);
    atomic_fetch_add_explicit(&l->rotations, 1, memory_order_relaxed);
    log_tell_rotated(l);
}

struct segment *log_take_spare(struct log *l) {
    pthread_mutex_lock(&l->lock);
    struct segment *spare = l->spare;
    l->spare = NULL;
    pthread_mutex_unlock(&l->lock);
    return spare;
}

static int rotate(struct log *l, uint64_t lsn, uint64_t need) {
    uint64_t len = atomic_load_explicit(&l->segment_len, memory_order_relaxed);
    struct segment *s = NULL;
    int err = segment_begin(l, lsn, need > len ? need : len, log_take_spare(l), &s);
    if (err < 0) {
        return err;
    }
    log_use_segment(l, s);
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
        uint64_t len = frame_len_at(s->parts[p.part].ptr + p.offset);
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

/* Files that begin behind the place where the log goes on must not be taken for it. One that begins there holds nothing else; if it has a
 * lasting name it has lost it to the new one. The oldest goes first: so whoever looks meanwhile finds no file without those that follow it. */
static void leave_behind(struct log *l, struct segment *old, uint64_t durable) {
    while (old != NULL) {
        struct segment *next = old->next;
        if (old->head.first_lsn > durable || (!old->lasts && old->head.first_lsn == durable)) {
            segment_discard(l, old);
        } else if (old->lasts) {
            segment_close(l, old);
        } else {
            pthread_mutex_lock(&l->lock);
            old->next = l->pinned;
            l->pinned = old;
            pthread_mutex_unlock(&l->lock);
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
    err = segment_start(l, *out, durable, &l->history);
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
    log_swap_segment_locked(l, s);
    struct segment *old = l->closed;
    l->closed = NULL;
    pthread_mutex_unlock(&l->lock);
    leave_behind(l, old, durable);
    atomic_fetch_add_explicit(&l->layout, 1, memory_order_seq_cst);
    atomic_store_explicit(&l->poisoned, false, memory_order_release);
    diag(DIAG_WARNING, "log.begun_anew lsn=%llu", (unsigned long long)durable);
    log_tell_rotated(l);
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

void log_note_failure(struct log *l, const char *what, int err) {
    atomic_fetch_add_explicit(&l->write_failures, 1, memory_order_relaxed);
    log_fail(l, state_of(err), what, err);
}

/* What isn't written of 'unwritten'. True when it is done; false when the disk doesn't take it. */
static bool write_out(struct log *l) {
    const struct stretch *s = l->unwritten;
    int err = 0;
    if (dc_unlikely(atomic_load_explicit(&l->poisoned, memory_order_acquire))) {
        err = begin_anew(l);
        if (err == 0 && s != NULL) { /* what stands in the old segment isn't in the new one */
            l->unwritten_from = s->lsn;
        }
    }
    if (err == 0 && s != NULL) {
        err = write_stretch(l, s, l->unwritten_from);
        uint64_t end = l->current != NULL ? l->current->end : 0;
        l->unwritten_from = end > l->unwritten_from ? end : l->unwritten_from;
    }
    if (err < 0) {
        log_note_failure(l, "the log can't be written", err);
    }
    return err == 0;
}

/* Feeds whose owners are gone and that hold nothing. Role held: who gathers has a list of them. */
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

/* --- the role ---------------------------------------------------------------------------------------- */

/* There is a file, or a failed fdatasync asks for another one in any case. */
static bool has_file(struct log *l) {
    if (dc_likely(l->current != NULL) || atomic_load_explicit(&l->poisoned, memory_order_acquire)) {
        return true;
    }
    int err = rotate(l, load_lsn(&l->written), 0);
    if (err < 0) {
        log_note_failure(l, "the log can't be begun", err);
    }
    return err == 0;
}

static bool syncs_itself(struct log *l) {
    return atomic_load_explicit(&l->sync_mode, memory_order_relaxed) == LOG_SYNC_ALWAYS &&
           !atomic_load_explicit(&l->poisoned, memory_order_acquire) &&
           !atomic_load_explicit(&l->unproven, memory_order_seq_cst);
}

/* A copy of a short stretch. False: it is long. */
static bool copy_short(const struct stretch *s, char to[TAP_LEN]) {
    if (s->end - s->lsn > TAP_LEN) {
        return false;
    }
    for (uint32_t i = 0; i < s->part_count; i++) {
        memcpy(to, s->parts[i].ptr, s->parts[i].len);
        to += s->parts[i].len;
    }
    return true;
}

/* It is in the kernel's hands; the sync thread's turn, which may free it as soon as it is entered. Those who wait here are told first. */
static void finish(struct log *l) {
    struct stretch *s = l->unwritten;
    uint64_t lsn = s->lsn, end = s->end;
    char bytes[TAP_LEN];
    log_tap_fn tap =
        atomic_load_explicit(&l->tap, memory_order_acquire); /* pairs with log_set_tap() */
    bool is_short = tap != NULL && copy_short(s, bytes);
    if (!syncs_itself(l)) {
        log_hold(l, s);
    }
    l->unwritten = NULL;
    enter(l, s);
    log_advance(l, &l->written, end);
    if (tap != NULL) {
        tap(l->tap_arg, lsn, is_short ? bytes : NULL, (size_t)(end - lsn));
    }
    if (load_lsn(&l->hurry_lsn) > load_lsn(&l->durable) || log_pending(l) > l->o.memory_limit / 2) {
        wake_raise(&l->sync_wake);
    }
}

/* One round; false when there is nothing to do, or the disk doesn't let it. Role held. */
static bool run_round(struct log *l, bool *well) {
    bool keeps = log_keeps_now(l);
    bool anew = keeps && atomic_load_explicit(&l->poisoned, memory_order_acquire);
    if (l->unwritten == NULL && load_lsn(&l->head) > load_lsn(&l->written)) {
        l->unwritten = log_gather(l, keeps);
        l->unwritten_from = l->unwritten == NULL ? 0 : l->unwritten->lsn;
    }
    *well = (!keeps || has_file(l)) && ((l->unwritten == NULL && !anew) || write_out(l));
    if (dc_unlikely(atomic_load_explicit(&l->base_lsn, memory_order_relaxed) != 0)) {
        *well = *well && log_settle_base(l);
    }
    if (dc_unlikely(atomic_load_explicit(&l->trim_lsn, memory_order_relaxed) != 0)) {
        log_trim_now(l);
    }
    if (dc_unlikely(*well && log_state(l) != LOG_WELL) &&
        !atomic_load_explicit(&l->poisoned, memory_order_acquire) &&
        !atomic_load_explicit(&l->unproven, memory_order_seq_cst)) {
        log_set_state(l, LOG_WELL, "", 0);
    }
    if (dc_unlikely(*well && l->unwritten == NULL && !anew &&
                    atomic_load_explicit(&l->begins, memory_order_acquire) != NULL)) {
        log_settle_history(l);
    }
    if (!*well || l->unwritten == NULL) {
        return false;
    }
    finish(l);
    return true;
}

/* --- the thread -------------------------------------------------------------------------------------- */

/* 'always': an fdatasync costs as much for one as for all, and those whom the last one has served come back in a moment, as a rule. So the next one
 * waits until most of them are there, a quarter of its own time at most. */
static void await_company(struct log *l, uint64_t expected_len) {
    int64_t limit_us = atomic_load_explicit(&l->last_sync_us, memory_order_relaxed) / 4;
    int64_t end_us = time_mono_us() + (limit_us < COMPANY_US ? limit_us : COMPANY_US);
    atomic_store_explicit(&l->awaited_len, expected_len * 5 / 8, memory_order_seq_cst);
    for (int64_t left_us; (left_us = end_us - time_mono_us()) > 0 && !log_has_company(l);) {
        (void)wake_wait(&l->writer_wake, left_us);
    }
    atomic_store_explicit(&l->awaited_len, 0, memory_order_seq_cst);
}

/* Nothing is to be done until somebody wakes it; or in a moment, as long as log_kick_soon() may have been called. */
static void rest(struct log *l, bool well, uint32_t *looks) {
    bool naps = well && atomic_load_explicit(&l->naps, memory_order_relaxed);
    if (naps && ++*looks > QUIET_LOOKS) {
        atomic_store_explicit(&l->naps, false, memory_order_seq_cst);
        if (load_lsn(&l->head) > load_lsn(&l->written)) {
            return;
        }
        naps = false;
    }
    (void)wake_wait(&l->writer_wake, naps ? NAP_US : well ? EVERYSEC_US : RETRY_US);
}

void log_writer_main(void *arg) {
    struct log *l = arg;
    uint32_t looks = 0;        /* without anything to do */
    uint64_t expected_len = 0; /* what the last fdatasync has served, and what has come meanwhile */
    bool stop = false;
    do {
        bool well = true;
        expected_len = syncs_itself(l) ? expected_len : 0;
        if (expected_len > 0 && load_lsn(&l->head) > load_lsn(&l->written)) {
            await_company(l, expected_len);
        }
        stop = atomic_load_explicit(&l->stopping, memory_order_acquire); /* before the last look */
        pthread_mutex_lock(&l->role);
        uint64_t before = load_lsn(&l->written);
        bool worked = run_round(l, &well);
        if (atomic_load_explicit(&l->gone_count, memory_order_relaxed) > 0) {
            bury_feeds(l);
        }
        pthread_mutex_unlock(&l->role);
        if (worked && syncs_itself(l)) {
            (void)log_sync_now(l);
            expected_len = load_lsn(&l->head) - before;
        }
        if (worked) {
            stop = false;
            looks = 0;
        } else if (!stop) {
            int64_t slept_us = time_mono_us();
            rest(l, well, &looks);
            expected_len = time_mono_us() - slept_us > 4 * COMPANY_US ? 0 : expected_len;
        }
    } while (!stop);
    if (l->unwritten != NULL) {
        stretch_free(l, l->unwritten);
    }
    atomic_store_explicit(&l->writer_done, true, memory_order_release);
}

/* --- in its place ------------------------------------------------------------------------------------- */

/* Nothing but a write is to be done: no file to begin, nothing to set right, no fdatasync behind it. */
static bool is_plain(const struct log *l) {
    return l->unwritten == NULL && l->current != NULL && log_state(l) == LOG_WELL &&
           load_lsn(&l->head) - load_lsn(&l->written) <= HERE_MAX_LEN &&
           atomic_load_explicit(&l->keeps, memory_order_relaxed) &&
           atomic_load_explicit(&l->kept, memory_order_relaxed) == KEPT &&
           atomic_load_explicit(&l->base_lsn, memory_order_relaxed) == 0 &&
           atomic_load_explicit(&l->begins, memory_order_acquire) == NULL &&
           atomic_load_explicit(&l->sync_mode, memory_order_relaxed) != LOG_SYNC_ALWAYS &&
           !atomic_load_explicit(&l->poisoned, memory_order_acquire) &&
           !atomic_load_explicit(&l->unproven, memory_order_seq_cst);
}

/* Role held. */
static void write_here(struct log *l) {
    if (!is_plain(l)) {
        return;
    }
    l->unwritten = log_gather(l, true);
    l->unwritten_from = l->unwritten->lsn;
    if (l->unwritten->end <= l->current->room &&
        !atomic_load_explicit(&l->poisoned, memory_order_acquire) && write_out(l)) {
        finish(l);
    }
}

bool log_write_through(struct log *l, struct lsn lsn, int64_t timeout_us) {
    bool tried = false;
    for (uint32_t i = 0; i < HERE_SPINS && !tried && load_lsn(&l->written) < lsn.v; i++) {
        if (pthread_mutex_trylock(&l->role) == 0) {
            if (load_lsn(&l->written) < lsn.v) {
                write_here(l);
            }
            pthread_mutex_unlock(&l->role);
            tried = true;
        } else {
            lock_relax();
        }
    }
    if (timeout_us == 0) {
        if (load_lsn(&l->written) < lsn.v) {
            log_kick(l);
        }
        return load_lsn(&l->written) >= lsn.v;
    }
    return log_wait(l, LOG_LEVEL_OS, lsn, timeout_us);
}
