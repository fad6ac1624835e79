/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A log that follows another one, and the begin of a history in the middle of a run.
 *
 * A history is begun by the writer, when all before it is durable: else a power cut could leave the new one and not the end of the one that
 * it goes on from, which looks like damage. In this order:
 *
 *     header, FORK, sync | its name, sync of the directory | current segment | chain | head, written, durable
 *
 * A crash leaves the old history, or the new one with its FORK frame. Whoever has read a watermark in the new history finds its chain.
 */
#include "persist/log_priv.h"
#include "server/base/assert.h"
#include "server/base/mem.h"
#include "server/base/time.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { BEGIN_TIMEOUT_US = 10 * 1000 * 1000, DRAIN_STEP_US = 50 * 1000 };

/* --- frames of another log --------------------------------------------------------------------------------- */

/* I3: the head is the end of a frame. */
static bool are_whole(const char *bytes, size_t len) {
    size_t at = 0;
    while (len - at >= FRAME_HEADER_LEN) {
        uint64_t frame = frame_len_at(bytes + at);
        if (frame > len - at) {
            return false;
        }
        at += (size_t)frame;
    }
    return at == len && len > 0;
}

/* Feed locked; there is room. */
static void move_head(struct log_feed *f, uint64_t lsn, size_t len) {
    dc_assert(lsn + len < LSN_MAX);
    uint64_t before = atomic_fetch_add_explicit(&f->log->head, len, memory_order_seq_cst);
    dc_assert(before == lsn);
}

enum dc_err log_put(struct log_feed *f, uint64_t lsn, const char *bytes, size_t len) {
    struct log *l = f->log;
    dc_assert(log_follows(l) && are_whole(bytes, len));
    feed_lock(f);
    bool kept = log_is_kept(l);
    if (kept && !feed_make_room(f, len, 1)) {
        feed_unlock(f);
        return DC_ENOMEM;
    }
    move_head(f, lsn, len);
    if (kept) {
        memcpy(f->bytes + f->len, bytes, len);
        feed_add_extent(f, lsn, f->len, len, NULL);
        f->len += len;
        f->roomy = feed_stay_roomy(f);
    }
    feed_unlock(f);
    return DC_OK;
}

enum dc_err log_put_blob(struct log_feed *f, uint64_t lsn, struct blob *frames) {
    struct log *l = f->log;
    dc_assert(log_follows(l) && are_whole(frames->data, frames->len));
    feed_lock(f);
    bool kept = log_is_kept(l);
    if (kept && !feed_make_room(f, 0, 1)) {
        feed_unlock(f);
        return DC_ENOMEM;
    }
    move_head(f, lsn, frames->len);
    if (kept) {
        feed_add_extent(f, lsn, 0, frames->len, blob_acquire(frames));
        f->blob_count++;
    }
    feed_unlock(f);
    return DC_OK;
}

/* --- what the store shows ---------------------------------------------------------------------------------- */

bool log_follows(const struct log *l) {
    return atomic_load_explicit(&l->follows, memory_order_acquire);
}

void log_set_follows(struct log *l, bool follows) {
    if (follows) {
        atomic_store_explicit(&l->applied, load_lsn(&l->head), memory_order_seq_cst);
    } else {
        dc_assert(!log_follows(l) || load_lsn(&l->applied) == load_lsn(&l->head));
    }
    atomic_store_explicit(&l->follows, follows, memory_order_seq_cst);
}

struct lsn log_applied(const struct log *l) {
    for (;;) {
        bool follows = atomic_load_explicit(&l->follows, memory_order_seq_cst);
        uint64_t lsn = load_lsn(follows ? &l->applied : &l->head);
        if (follows == atomic_load_explicit(&l->follows, memory_order_seq_cst)) {
            return (struct lsn){lsn};
        }
    }
}

void log_set_applied(struct log *l, struct lsn lsn) {
    dc_assert(lsn.v <= load_lsn(&l->head));
    if (log_rise(&l->applied, lsn.v)) {
        log_tell_wanted(l, WANTED_APPLIED);
    }
}

void log_want_applied(struct log *l) {
    atomic_fetch_or_explicit(&l->wanted, WANTED_APPLIED, memory_order_seq_cst);
}

/* --- the chain ----------------------------------------------------------------------------------------------- */

/* Old ones stay: somebody may be reading them. There is one for each history that begins in a run. */
void log_keep_chain(struct log *l, struct histories *chain) {
    l->past = mem_must_realloc(l->past, (l->past_count + 1) * sizeof(struct histories *));
    l->past[l->past_count++] = chain;
}

const struct histories *log_chain(const struct log *l) {
    return atomic_load_explicit(&l->chain, memory_order_seq_cst);
}

/* --- a history begins ------------------------------------------------------------------------------------------ */

/* All at once for whoever appends; false: somebody has, and the head isn't the fork any more. */
static bool swap_history(struct log *l, struct histories *chain, uint64_t end) {
    const struct history *next = histories_last(chain);
    pthread_mutex_lock(&l->lock);
    for (uint32_t i = 0; i < l->feed_count; i++) {
        feed_lock(l->feeds[i]);
    }
    bool fits = load_lsn(&l->head) == next->parent_end;
    if (fits) {
        l->history = *next;
        atomic_store_explicit(&l->chain, chain, memory_order_seq_cst); /* log_chain() */
        atomic_store_explicit(&l->head, end, memory_order_seq_cst);
    }
    for (uint32_t i = 0; i < l->feed_count; i++) {
        feed_unlock(l->feeds[i]);
    }
    pthread_mutex_unlock(&l->lock);
    return fits;
}

/* The marks rise; nobody syncs meanwhile, or writes a durable mark with what was true before. 's': NULL where nothing is kept. */
static bool enter_history(struct log *l, const struct begin_request *r, struct segment *s) {
    const struct history *next = histories_last(r->chain);
    uint64_t end = next->start + r->fork.len;
    struct histories *chain = histories_copy(r->chain->list, r->chain->count);
    pthread_mutex_lock(&l->sync_lock);
    bool fits = swap_history(l, chain, end);
    if (fits) {
        log_keep_chain(l, chain);
        if (s != NULL) {
            log_use_segment(l, s);
        }
        log_advance(l, &l->written, end);
        log_advance(l, &l->durable, end);
    }
    pthread_mutex_unlock(&l->sync_lock);
    if (!fits) {
        mem_free(chain);
    } else if (log_follows(l) && load_lsn(&l->applied) == next->parent_end) {
        log_set_applied(l, (struct lsn){end}); /* nothing in it has to be shown */
    }
    return fits;
}

void log_settle_history(struct log *l) {
    uint64_t head = load_lsn(&l->head);
    if (load_lsn(&l->durable) != head || load_lsn(&l->written) != head ||
        atomic_load_explicit(&l->unproven, memory_order_seq_cst)) {
        return;
    }
    struct begin_request *r = atomic_exchange_explicit(&l->begins, NULL, memory_order_acq_rel);
    if (r == NULL) {
        return; /* its owner has given up */
    }
    struct segment *s = NULL;
    const struct history *next = histories_last(r->chain);
    int err = 0;
    if (log_is_kept(l)) {
        err = segment_begin_durable(l, next->start, next, r->fork, log_take_spare(l), &s);
    }
    if (err == 0 && !enter_history(l, r, s)) {
        err = -EBUSY;
        segment_withdraw(l, s);
    }
    wake_raise(&l->sync_wake); /* for the old segment, and the next spare */
    pthread_mutex_lock(&l->lock);
    r->err = err;
    r->done = true;
    pthread_cond_broadcast(&l->moved);
    pthread_mutex_unlock(&l->lock);
}

/* False: the writer didn't come to it, and won't. */
static bool wait_for_writer(struct log *l, struct begin_request *r) {
    int64_t end_us = time_mono_us() + BEGIN_TIMEOUT_US;
    struct timespec until = {.tv_sec = end_us / 1000000, .tv_nsec = end_us % 1000000 * 1000};
    bool withdrawn = false;
    pthread_mutex_lock(&l->lock);
    while (!r->done && !withdrawn) {
        struct begin_request *mine = r;
        if (pthread_cond_clockwait(&l->moved, &l->lock, CLOCK_MONOTONIC, &until) == ETIMEDOUT) {
            withdrawn = atomic_compare_exchange_strong_explicit(
                &l->begins, &mine, NULL, memory_order_acq_rel, memory_order_acquire);
            until.tv_sec++; /* it is being done right now */
        }
    }
    pthread_mutex_unlock(&l->lock);
    return !withdrawn;
}

/* All is durable; false: the disk doesn't let it, or takes too long. */
static bool drain(struct log *l) {
    int64_t end_us = time_mono_us() + BEGIN_TIMEOUT_US;
    while (!log_wait(l, LOG_LEVEL_DISK, log_head(l), DRAIN_STEP_US)) {
        if (log_state(l) != LOG_WELL || time_mono_us() > end_us) {
            return false;
        }
    }
    return true;
}

static enum dc_err fail_begin(struct log *l, const char *why) {
    char trouble[256];
    log_trouble(l, trouble, sizeof(trouble));
    return dc_fail(DC_EIO, "the log can't begin a history: %s", trouble[0] != '\0' ? trouble : why);
}

enum dc_err log_begin_history(struct log *l, const struct histories *chain, const char *fork,
                              size_t fork_len) {
    const struct history *next = histories_last(chain);
    struct begin_request r = {.chain = chain, .fork = {fork, fork_len}};
    struct buf made;
    bool done = false;
    dc_assert(next->start > next->parent_end);
    buf_init(&made, 0);
    if (fork == NULL) {
        frame_encode_fork(&made, next->start, time_wall_us() / 1000, chain->list, chain->count);
        r.fork = (struct part){made.ptr, made.len};
    }
    if (drain(l)) {
        atomic_store_explicit(&l->begins, &r, memory_order_release);
        wake_raise(&l->writer_wake);
        done = wait_for_writer(l, &r);
    }
    buf_fini(&made);
    if (!done) {
        return fail_begin(l, "the disk is too slow");
    }
    return r.err == 0        ? DC_OK
           : r.err == -EBUSY ? fail_begin(l, "its past doesn't end at the head of the log")
                             : fail_begin(l, dc_errno_text(-r.err));
}
