/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A call goes through its frames once and sorts them into the parts of the helpers by slot. Parts are played when the frames are through, or before
 * a barrier. Few bytes are played by the caller alone: waking a helper takes longer. A part is a list of places of frames; the bytes stay
 * where they are.
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
#include <unistd.h>

enum {
    ALONE_LEN = 128 * 1024,
    LOCK_ALL_COUNT = SLOT_COUNT / 4,
    AHEAD_ROOT = 12, /* so many frames before one is played its memory is asked for */
    AHEAD_LINE = 8,
    AHEAD_ENTRY = 4,
    AHEAD_MASK = 15,
};

struct frame_at {
    const char *ptr;
    size_t len;
    uint64_t lsn;
    uint32_t slot;
};

/* One who plays, and what he is to play. */
struct player {
    struct apply *apply;
    struct thread thread;
    struct store_thread store;
    struct metric_slot *metrics; /* never freed: the table of metrics keeps it */
    struct mut mut;
    struct frame_at *part;
    uint32_t count, cap;
    /* between the caller and a helper, under apply->lock */
    bool asked;
    enum dc_err err;
    char why[ERR_TEXT_MAX];
};

struct apply {
    struct store *store;
    struct warm *warm;
    uint32_t count;
    struct player players[APPLY_THREADS_MAX]; /* the first is the caller */
    size_t part_bytes;                        /* of all parts */
    uint16_t *slots;                          /* of a barrier */
    uint32_t slot_count, slot_cap;
    int64_t time_ms;
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
        enum dc_err err = replay_effect(&p->mut, &e, false);
        if (err != DC_OK) {
            return err;
        }
    }
    return DC_OK;
}

static enum dc_err play_one_slot(struct player *p, const struct frame_at *f) {
    struct store *s = p->apply->store;
    enum dc_err err = touch(p->apply, p, f->slot);
    if (err == DC_OK) {
        store_lock(s, f->slot);
        err = play_effects(p, f);
        store_unlock(s, f->slot);
    }
    if (p->mut.garbage_count > 0) {
        mut_reset(&p->mut, p->mut.now_ms);
    }
    return err;
}

/* Where the first effect of a frame belongs. A look-up waits three times for memory; these waits overlap with the playing of what comes before. */
struct ahead {
    const struct keyspace *ks; /* NULL = nowhere */
    struct pos pos;
};

static struct ahead look_ahead(const struct apply *a, const struct frame_at *f) {
    struct effect_view e;
    struct ahead to = {.ks = NULL};
    if (effect_decode(f->ptr, f->len, FRAME_HEADER_LEN, f->lsn, &e) && e.kind != MUT_FLUSH) {
        to.ks = store_numbered(a->store, e.keyspace);
        to.pos = store_key(a->store, e.key).pos;
    }
    return to;
}

/* What is to be played soon, when frame 'i' (that many before the first: below 0) is about to be. */
static void ask_ahead(struct player *p, struct ahead ring[AHEAD_MASK + 1], int64_t i) {
    struct store *s = p->apply->store;
    if (i + AHEAD_ROOT < p->count) {
        struct ahead *to = &ring[(i + AHEAD_ROOT) & AHEAD_MASK];
        *to = look_ahead(p->apply, &p->part[i + AHEAD_ROOT]);
        if (to->ks != NULL) {
            store_prefetch_root(to->ks, to->pos);
        }
    }
    const struct ahead *line = &ring[(i + AHEAD_LINE) & AHEAD_MASK];
    if (i + AHEAD_LINE >= 0 && i + AHEAD_LINE < p->count && line->ks != NULL) {
        store_prefetch_line(line->ks, line->pos);
    }
    const struct ahead *entry = &ring[(i + AHEAD_ENTRY) & AHEAD_MASK];
    if (i + AHEAD_ENTRY >= 0 && i + AHEAD_ENTRY < p->count && entry->ks != NULL) {
        store_prefetch_entry(s, entry->ks, entry->pos);
    }
}

static enum dc_err play_part(struct player *p) {
    struct ahead ring[AHEAD_MASK + 1];
    enum dc_err err = DC_OK;
    for (int64_t i = -AHEAD_ROOT; i < p->count && err == DC_OK; i++) {
        ask_ahead(p, ring, i);
        err = i >= 0 ? play_one_slot(p, &p->part[i]) : DC_OK;
    }
    p->count = 0;
    return err;
}

/* --- parts ------------------------------------------------------------------------------------------------------- */

static enum dc_err add(struct apply *a, const struct frame_at *f) {
    struct player *p = &a->players[f->slot % a->count];
    if (p->count == p->cap) {
        uint32_t cap = p->cap == 0 ? 256 : 2 * p->cap;
        struct frame_at *part = mem_realloc(p->part, cap * sizeof(*part));
        if (part == NULL) {
            return DC_ENOMEM;
        }
        p->part = part;
        p->cap = cap;
    }
    p->part[p->count++] = *f;
    a->part_bytes += f->len;
    return DC_OK;
}

static void help(void *arg) {
    struct player *p = arg;
    struct apply *a = p->apply;
    pthread_mutex_lock(&a->lock);
    for (;;) {
        while (!p->asked && !a->stop) {
            pthread_cond_wait(&a->asked, &a->lock);
        }
        if (a->stop) {
            break;
        }
        pthread_mutex_unlock(&a->lock);
        enum dc_err err = play_part(p);
        pthread_mutex_lock(&a->lock);
        p->err = err;
        if (err != DC_OK) {
            snprintf(p->why, sizeof(p->why), "%s", dc_fail_take(err));
        }
        p->asked = false;
        pthread_cond_signal(&a->done);
    }
    pthread_mutex_unlock(&a->lock);
}

/* All parts at once. */
static enum dc_err play_together(struct apply *a) {
    pthread_mutex_lock(&a->lock);
    for (uint32_t i = 1; i < a->count; i++) {
        a->players[i].asked = a->players[i].count > 0;
    }
    pthread_cond_broadcast(&a->asked);
    pthread_mutex_unlock(&a->lock);
    enum dc_err err = play_part(&a->players[0]);
    pthread_mutex_lock(&a->lock);
    for (uint32_t i = 1; i < a->count; i++) {
        struct player *p = &a->players[i];
        while (p->asked) {
            pthread_cond_wait(&a->done, &a->lock);
        }
        if (err == DC_OK && p->err != DC_OK) {
            err = dc_fail(p->err, "%s", p->why);
        }
        p->err = DC_OK;
    }
    pthread_mutex_unlock(&a->lock);
    return err;
}

static enum dc_err play_parts(struct apply *a) {
    enum dc_err err = DC_OK;
    if (a->part_bytes >= ALONE_LEN && a->count > 1) {
        err = play_together(a);
    } else {
        for (uint32_t i = 0; i < a->count && a->part_bytes > 0; i++) {
            err = err == DC_OK ? play_part(&a->players[i]) : err;
            a->players[i].count = 0;
        }
    }
    a->part_bytes = 0;
    return err;
}

/* --- barriers ---------------------------------------------------------------------------------------------------- */

/* What a frame touches. */
struct extent_of {
    bool one_slot;
    bool flushes;
    uint32_t slot; /* the first */
};

static enum dc_err look_at(const struct frame_at *f, struct extent_of *out) {
    struct effect_view e;
    *out = (struct extent_of){.one_slot = true};
    for (size_t at = FRAME_HEADER_LEN; at < f->len; at += e.len) {
        if (!effect_decode(f->ptr, f->len, at, f->lsn, &e)) {
            return fail_malformed(f->lsn);
        }
        uint32_t slot = e.kind == MUT_FLUSH ? 0 : store_slot(e.key);
        out->flushes = out->flushes || e.kind == MUT_FLUSH;
        out->slot = at == FRAME_HEADER_LEN ? slot : out->slot;
        out->one_slot = out->one_slot && slot == out->slot;
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
            err = touch(a, &a->players[0], a->slots[i]);
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
    struct player *p = &a->players[0];
    enum dc_err err = play_parts(a);
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
    a->time_ms = time_ms > a->time_ms ? time_ms : a->time_ms;
    if (f->ptr[FRAME_KIND_AT] != FRAME_MUTATION) {
        return DC_OK;
    }
    enum dc_err err = look_at(f, &x);
    f->slot = x.slot;
    if (err != DC_OK) {
        return err;
    }
    return x.one_slot ? add(a, f) : play_barrier(a, f, x.flushes);
}

enum dc_err apply_frames(struct apply *a, uint64_t lsn, const char *bytes, size_t len) {
    enum dc_err err = DC_OK;
    size_t at = 0;
    while (at < len && err == DC_OK) {
        struct frame_at f = {.ptr = bytes + at, .lsn = lsn + at};
        dc_assert(len - at >= FRAME_HEADER_LEN);
        f.len = (size_t)frame_len_at(f.ptr);
        dc_assert(f.len <= len - at); /* whole frames */
        err = take_frame(a, &f);
        at += f.len;
    }
    enum dc_err rest = play_parts(a); /* also after an error: the parts are empty then */
    return err != DC_OK ? err : rest;
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
    long count = opts->threads > 0 ? (long)opts->threads : sysconf(_SC_NPROCESSORS_ONLN);
    a->store = opts->store;
    a->warm = opts->warm;
    a->count = count < 1 ? 1 : count > APPLY_THREADS_MAX ? APPLY_THREADS_MAX : (uint32_t)count;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->asked, NULL);
    pthread_cond_init(&a->done, NULL);
    for (uint32_t i = 0; i < a->count; i++) {
        player_init(&a->players[i], a);
    }
    for (uint32_t i = 1; i < a->count; i++) {
        thread_start(&a->players[i].thread, "repl-apply", help, &a->players[i]);
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
    for (uint32_t i = 0; i < a->count; i++) {
        if (i > 0) {
            thread_join(&a->players[i].thread);
        }
        mut_fini(&a->players[i].mut);
        mem_free(a->players[i].part);
    }
    pthread_cond_destroy(&a->done);
    pthread_cond_destroy(&a->asked);
    pthread_mutex_destroy(&a->lock);
    mem_free(a->slots);
    mem_free(a);
}
