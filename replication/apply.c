/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A call goes through its frames once and sorts them by slot into a batch of parts, one for each helper. A batch is played when the frames
 * are through, or before a barrier. Few bytes are played by the caller alone: waking a helper takes longer. A part is a list of places of
 * frames; the bytes stay where they are.
 *
 *     caller     sort 1 | sort 2 | 1 is shown | sort 3 | 2 is shown ...     apply_begin(): one batch is sorted while another one is played.
 *     helpers           | play 1 ............ | play 2 ............ |       Batches of one apply never overlap: that keeps the order.
 */
#include "replication/apply.h"

#include "persist/replay.h"
#include "persist/warm.h"
#include "server/base/assert.h"
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "server/base/time.h"
#include "server/store/load.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    ALONE_LEN = 128 * 1024,
    LOCK_ALL_COUNT = SLOT_COUNT / 4,
    AHEAD_ROOT = 12, /* so many frames before one is played its memory is asked for */
    AHEAD_LINE = 8,
    AHEAD_ENTRY = 4,
    AHEAD_BYTES = 256, /* of a frame; the processor goes on by itself */
    LINE_LEN = 64,
};

struct frame_at {
    const char *ptr;
    size_t len;
    uint64_t lsn;
    const struct keyspace
        *ks;        /* of the first effect; NULL = a frame without one, or of none that is known */
    struct pos pos; /* of its key */
};

/* Frames of the slots that one helper has, in the order of the log. */
struct part {
    struct frame_at *frames;
    uint32_t count, cap;
};

struct batch {
    struct part parts[APPLY_THREADS_MAX]; /* apply->count */
    size_t bytes;                         /* of all parts */
    int64_t time_ms; /* the latest of its frames, whether they are in a part or not */
};

/* One who plays. */
struct player {
    struct apply *apply;
    struct thread thread;
    struct store_thread store;
    struct metric_slot *metrics; /* never freed: the table of metrics keeps it */
    struct mut mut;
    /* between the caller and a helper, under apply->lock */
    struct part *part; /* what he is to play; NULL = nothing, or it is done */
    enum dc_err err;
    char why[ERR_TEXT_MAX];
};

struct apply {
    struct store *store;
    struct warm *warm;
    uint32_t count; /* of helpers; 1 = none, the caller plays all */
    struct player caller;
    struct player helpers[APPLY_THREADS_MAX];
    struct batch batches[2]; /* in turns */
    struct batch *batch;     /* the one that is sorted into */
    struct batch *under_way; /* the other one; NULL = nobody plays */
    uint16_t *slots;         /* of a barrier */
    uint32_t slot_count, slot_cap;
    int64_t time_ms; /* of what is shown */
    pthread_mutex_t lock;
    pthread_cond_t asked, done;
    bool stop;
};

/* --- one frame --------------------------------------------------------------------------------------------------- */

static enum dc_err fail_malformed(uint64_t lsn) {
    return dc_fail(DC_ECORRUPT, "the frame at LSN %llu has an effect that can't be read",
                   (unsigned long long)lsn);
}

static bool is_cold(const struct apply *a) {
    return a->warm != NULL && !warm_is_over(a->warm);
}

static enum dc_err touch(struct apply *a, struct player *p, uint32_t slot) {
    return is_cold(a) ? warm_touch(a->warm, &p->store, slot) : DC_OK;
}

/* The effects of a frame, their slots locked. */
static enum dc_err play_effects(struct player *p, const struct frame_at *f) {
    struct apply *a = p->apply;
    struct effect_view e;
    for (size_t at = FRAME_HEADER_LEN; at < f->len; at += e.len) {
        if (!effect_decode(f->ptr, f->len, at, f->lsn, &e)) {
            return fail_malformed(f->lsn);
        }
        if (e.kind == MUT_FLUSH && is_cold(a)) {
            struct keyspace *ks = store_numbered(a->store, e.keyspace);
            if (ks != NULL) {
                warm_drop(a->warm, ks);
            }
        }
        bool is_keyed = at == FRAME_HEADER_LEN && e.kind != MUT_FLUSH;
        struct key first = {e.key, f->pos};
        enum dc_err err =
            is_keyed ? replay_keyed(&p->mut, &e, &first, false) : replay_effect(&p->mut, &e, false);
        if (err != DC_OK) {
            return err;
        }
    }
    return DC_OK;
}

static enum dc_err play_one_slot(struct player *p, const struct frame_at *f) {
    struct store *s = p->apply->store;
    uint32_t slot = pos_slot(f->pos);
    enum dc_err err = touch(p->apply, p, slot);
    if (err == DC_OK) {
        store_lock(s, slot);
        err = play_effects(p, f);
        store_unlock(s, slot);
    }
    if (p->mut.garbage_count > 0) {
        mut_reset(&p->mut, p->mut.now_ms);
    }
    return err;
}

static void prefetch_bytes(const struct frame_at *f) {
    size_t len = f->len < AHEAD_BYTES ? f->len : AHEAD_BYTES;
    for (size_t at = 0; at < len; at += LINE_LEN) {
        __builtin_prefetch(f->ptr + at);
    }
}

/* What is to be played soon, when frame 'i' (that many before the first: below 0) is about to be: a look-up waits three times for memory, and
 * another core has read the frame. These waits overlap with the playing of what comes before. */
static void ask_ahead(struct apply *a, const struct part *part, int64_t i) {
    if (i + AHEAD_ROOT < part->count && part->frames[i + AHEAD_ROOT].ks != NULL) {
        const struct frame_at *f = &part->frames[i + AHEAD_ROOT];
        store_prefetch_root(f->ks, f->pos);
    }
    if (i + AHEAD_LINE >= 0 && i + AHEAD_LINE < part->count &&
        part->frames[i + AHEAD_LINE].ks != NULL) {
        const struct frame_at *f = &part->frames[i + AHEAD_LINE];
        prefetch_bytes(f);
        store_prefetch_line(f->ks, f->pos);
    }
    if (i + AHEAD_ENTRY >= 0 && i + AHEAD_ENTRY < part->count &&
        part->frames[i + AHEAD_ENTRY].ks != NULL) {
        const struct frame_at *f = &part->frames[i + AHEAD_ENTRY];
        store_prefetch_entry(a->store, f->ks, f->pos);
    }
}

static enum dc_err play_part(struct player *p, const struct part *part) {
    enum dc_err err = DC_OK;
    for (int64_t i = -AHEAD_ROOT; i < part->count && err == DC_OK; i++) {
        ask_ahead(p->apply, part, i);
        err = i >= 0 ? play_one_slot(p, &part->frames[i]) : DC_OK;
    }
    return err;
}

/* --- batches ----------------------------------------------------------------------------------------------------- */

static enum dc_err add(struct apply *a, const struct frame_at *f) {
    struct part *part = &a->batch->parts[pos_slot(f->pos) % a->count];
    if (part->count == part->cap) {
        uint32_t cap = part->cap == 0 ? 256 : 2 * part->cap;
        struct frame_at *frames = mem_realloc(part->frames, cap * sizeof(*frames));
        if (frames == NULL) {
            return DC_ENOMEM;
        }
        part->frames = frames;
        part->cap = cap;
    }
    part->frames[part->count++] = *f;
    a->batch->bytes += f->len;
    return DC_OK;
}

static void help(void *arg) {
    struct player *p = arg;
    struct apply *a = p->apply;
    pthread_mutex_lock(&a->lock);
    for (;;) {
        while (p->part == NULL && !a->stop) {
            pthread_cond_wait(&a->asked, &a->lock);
        }
        if (p->part == NULL) {
            break;
        }
        pthread_mutex_unlock(&a->lock);
        enum dc_err err = play_part(p, p->part);
        pthread_mutex_lock(&a->lock);
        p->err = err;
        if (err != DC_OK) {
            snprintf(p->why, sizeof(p->why), "%s", dc_fail_take(err));
        }
        p->part = NULL;
        pthread_cond_signal(&a->done);
    }
    pthread_mutex_unlock(&a->lock);
}

/* It was played, or is of no use after an error. What is shown when that is so has its time. */
static void batch_done(struct apply *a, struct batch *b, enum dc_err err) {
    for (uint32_t i = 0; i < a->count; i++) {
        b->parts[i].count = 0;
    }
    b->bytes = 0;
    a->time_ms = err == DC_OK && b->time_ms > a->time_ms ? b->time_ms : a->time_ms;
}

/* Nobody plays. */
static enum dc_err wait_for_helpers(struct apply *a) {
    enum dc_err err = DC_OK;
    if (a->under_way == NULL) {
        return DC_OK;
    }
    pthread_mutex_lock(&a->lock);
    for (uint32_t i = 0; i < a->count; i++) {
        struct player *p = &a->helpers[i];
        while (p->part != NULL) {
            pthread_cond_wait(&a->done, &a->lock);
        }
        if (err == DC_OK && p->err != DC_OK) {
            err = dc_fail(p->err, "%s", p->why);
        }
        p->err = DC_OK;
    }
    pthread_mutex_unlock(&a->lock);
    batch_done(a, a->under_way, err);
    a->under_way = NULL;
    return err;
}

/* Nobody plays yet. The other batch is sorted into from now on. */
static void ask_helpers(struct apply *a) {
    dc_assert(a->under_way == NULL && a->count > 1);
    a->under_way = a->batch;
    a->batch = a->batch == &a->batches[0] ? &a->batches[1] : &a->batches[0];
    pthread_mutex_lock(&a->lock);
    for (uint32_t i = 0; i < a->count; i++) {
        struct part *part = &a->under_way->parts[i];
        a->helpers[i].part = part->count > 0 ? part : NULL;
    }
    pthread_cond_broadcast(&a->asked);
    pthread_mutex_unlock(&a->lock);
}

/* All that was sorted so far. */
static enum dc_err play_batch(struct apply *a) {
    struct batch *b = a->batch;
    enum dc_err err = wait_for_helpers(a);
    if (err == DC_OK && b->bytes >= ALONE_LEN && a->count > 1) {
        ask_helpers(a);
        return wait_for_helpers(a);
    }
    for (uint32_t i = 0; i < a->count && err == DC_OK; i++) {
        err = play_part(&a->caller, &b->parts[i]);
    }
    batch_done(a, b, err);
    return err;
}

/* --- barriers ---------------------------------------------------------------------------------------------------- */

/* What a frame touches. */
struct extent_of {
    bool one_slot;
    bool flushes;
};

static enum dc_err look_at(const struct apply *a, struct frame_at *f, struct extent_of *out) {
    struct effect_view e;
    *out = (struct extent_of){.one_slot = true};
    for (size_t at = FRAME_HEADER_LEN; at < f->len; at += e.len) {
        if (!effect_decode(f->ptr, f->len, at, f->lsn, &e)) {
            return fail_malformed(f->lsn);
        }
        if (e.kind == MUT_FLUSH) {
            out->flushes = true;
        } else if (at == FRAME_HEADER_LEN) {
            f->ks = store_numbered(a->store, e.keyspace);
            f->pos = store_key(a->store, e.key).pos;
        } else {
            out->one_slot = out->one_slot && store_slot(e.key) == pos_slot(f->pos);
        }
    }
    out->one_slot = out->one_slot && !out->flushes;
    return DC_OK;
}

static int by_number(const void *a, const void *b) {
    return *(const uint16_t *)a - *(const uint16_t *)b;
}

static enum dc_err note_slot(struct apply *a, uint32_t slot) {
    if (a->slot_count == a->slot_cap) {
        uint32_t cap = a->slot_cap == 0 ? 64 : 2 * a->slot_cap;
        uint16_t *slots = mem_realloc(a->slots, cap * sizeof(*slots));
        if (slots == NULL) {
            return DC_ENOMEM;
        }
        a->slots = slots;
        a->slot_cap = cap;
    }
    a->slots[a->slot_count++] = (uint16_t)slot;
    return DC_OK;
}

/* The slots of a frame, each once, ascending; what is cold of them is loaded. */
static enum dc_err collect_slots(struct apply *a, const struct frame_at *f) {
    struct effect_view e;
    enum dc_err err = DC_OK;
    uint32_t kept = 0;
    a->slot_count = 0;
    for (size_t at = FRAME_HEADER_LEN; at < f->len && err == DC_OK; at += e.len) {
        if (!effect_decode(f->ptr, f->len, at, f->lsn, &e)) {
            return fail_malformed(f->lsn);
        }
        if (e.kind != MUT_FLUSH) {
            err = note_slot(a, store_slot(e.key));
        }
    }
    if (a->slot_count > 0) {
        qsort(a->slots, a->slot_count, sizeof(*a->slots), by_number);
    }
    for (uint32_t i = 0; i < a->slot_count && err == DC_OK; i++) {
        if (kept == 0 || a->slots[kept - 1] != a->slots[i]) {
            a->slots[kept++] = a->slots[i];
            err = touch(a, &a->caller, a->slots[i]);
        }
    }
    a->slot_count = kept;
    return err;
}

static void lock_slots(struct apply *a, bool all) {
    if (all) {
        store_lock_all(a->store);
        return;
    }
    for (uint32_t i = 0; i < a->slot_count; i++) {
        store_lock(a->store, a->slots[i]);
    }
}

static void unlock_slots(struct apply *a, bool all) {
    if (all) {
        store_unlock_all(a->store);
        return;
    }
    for (uint32_t i = 0; i < a->slot_count; i++) {
        store_unlock(a->store, a->slots[i]);
    }
}

static enum dc_err play_barrier(struct apply *a, const struct frame_at *f, bool flushes) {
    struct player *p = &a->caller;
    enum dc_err err = play_batch(a);
    err = err == DC_OK ? collect_slots(a, f) : err;
    if (err != DC_OK) {
        return err;
    }
    bool all = flushes || a->slot_count >= LOCK_ALL_COUNT;
    lock_slots(a, all);
    err = play_effects(p, f);
    unlock_slots(a, all);
    mut_reset(&p->mut, p->mut.now_ms);
    return err;
}

/* --- the call ---------------------------------------------------------------------------------------------------- */

static enum dc_err take_frame(struct apply *a, struct frame_at *f) {
    struct extent_of x;
    int64_t time_ms = (int64_t)get_u64(f->ptr + 16);
    a->batch->time_ms = time_ms > a->batch->time_ms ? time_ms : a->batch->time_ms;
    if (f->ptr[FRAME_KIND_AT] != FRAME_MUTATION) {
        return DC_OK;
    }
    enum dc_err err = look_at(a, f, &x);
    if (err != DC_OK) {
        return err;
    }
    return x.one_slot ? add(a, f) : play_barrier(a, f, x.flushes);
}

/* Sorts all frames; plays those before the last barrier. */
static enum dc_err take_frames(struct apply *a, uint64_t lsn, const char *bytes, size_t len) {
    enum dc_err err = DC_OK;
    for (size_t at = 0; at < len && err == DC_OK;) {
        struct frame_at f = {.ptr = bytes + at, .lsn = lsn + at};
        dc_assert(len - at >= FRAME_HEADER_LEN);
        f.len = (size_t)frame_len_at(f.ptr);
        dc_assert(f.len <= len - at); /* whole frames */
        err = take_frame(a, &f);
        at += f.len;
    }
    return err;
}

enum dc_err apply_frames(struct apply *a, uint64_t lsn, const char *bytes, size_t len) {
    enum dc_err err = take_frames(a, lsn, bytes, len);
    enum dc_err rest = play_batch(a); /* also after an error: the batch is empty then */
    return err != DC_OK ? err : rest;
}

enum dc_err apply_begin(struct apply *a, uint64_t lsn, const char *bytes, size_t len) {
    enum dc_err err = take_frames(a, lsn, bytes, len);
    if (err != DC_OK || a->count == 1 || a->batch->bytes < ALONE_LEN) {
        enum dc_err rest = play_batch(a);
        return err != DC_OK ? err : rest;
    }
    err = wait_for_helpers(a);
    if (err == DC_OK) {
        ask_helpers(a);
    } else {
        batch_done(a, a->batch, err);
    }
    return err;
}

enum dc_err apply_end(struct apply *a) {
    return wait_for_helpers(a);
}

int64_t apply_time_ms(const struct apply *a) {
    return a->time_ms;
}

/* --- life -------------------------------------------------------------------------------------------------------- */

static void player_init(struct player *p, struct apply *a) {
    p->apply = a;
    p->metrics = mem_must_aligned(_Alignof(struct metric_slot), sizeof(*p->metrics));
    metric_slot_init(p->metrics);
    store_thread_init(&p->store, a->store, p->metrics, (uint64_t)time_wall_us());
    mut_init(&p->mut, a->store, &p->store);
}

struct apply *apply_create(const struct apply_opts *opts) {
    struct apply *a = mem_must_zalloc(sizeof(*a));
    uint32_t count = opts->threads > 0 ? opts->threads : thread_cores();
    a->store = opts->store;
    a->warm = opts->warm;
    a->count = count > APPLY_THREADS_MAX ? APPLY_THREADS_MAX : count;
    a->batch = &a->batches[0];
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->asked, NULL);
    pthread_cond_init(&a->done, NULL);
    player_init(&a->caller, a);
    for (uint32_t i = 0; i < a->count && a->count > 1; i++) {
        player_init(&a->helpers[i], a);
        thread_start(&a->helpers[i].thread, "repl-apply", help, &a->helpers[i]);
    }
    return a;
}

void apply_destroy(struct apply *a) {
    if (a == NULL) {
        return;
    }
    pthread_mutex_lock(&a->lock);
    a->stop = true;
    pthread_cond_broadcast(&a->asked);
    pthread_mutex_unlock(&a->lock);
    for (uint32_t i = 0; i < a->count && a->count > 1; i++) {
        thread_join(&a->helpers[i].thread);
        mut_fini(&a->helpers[i].mut);
    }
    for (uint32_t i = 0; i < a->count; i++) {
        mem_free(a->batches[0].parts[i].frames);
        mem_free(a->batches[1].parts[i].frames);
    }
    mut_fini(&a->caller.mut);
    pthread_cond_destroy(&a->done);
    pthread_cond_destroy(&a->asked);
    pthread_mutex_destroy(&a->lock);
    mem_free(a->slots);
    mem_free(a);
}
