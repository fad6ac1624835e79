/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The states of ranges, and who moves them.
 *
 *     COLD ---- claimed, by a touch or a loader ----> LOADING ---- loaded ----> WARM
 *      ^                                                 |---- damaged ----> FAILED
 *      '------------------ no memory --------------------'
 *
 * Who claims a range loads it; everybody else who needs it waits. A state changes under the lock; readers look without it: what they
 * find in a WARM range was put there under its slot locks, and they take those.
 */
#include "persist/warm.h"

#include "persist/warm_priv.h"
#include "server/base/assert.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/base/time.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

enum { RETRY_MS = 100, ENTRY_OVERHEAD = 64 /* at most, of an entry as it stands in a snapshot */ };

static enum range_state state_of(const struct warm *w, uint32_t range) {
    /* pairs with the release in set_state */
    return (enum range_state)atomic_load_explicit(&w->ranges[range].state, memory_order_acquire);
}

/* Under the lock. */
static void set_state(struct warm *w, uint32_t range, enum range_state state) {
    atomic_store_explicit(&w->ranges[range].state, (uint32_t)state, memory_order_release);
}

static uint32_t range_of(const struct warm *w, uint32_t slot) {
    dc_assert(slot < SLOT_COUNT);
    return slot >> w->range_bits;
}

/* --- making and unmaking ----------------------------------------------------------------------------- */

struct warm *warm_create(const struct warm_opts *opts, struct image *take) {
    struct warm *w = mem_must_zalloc(sizeof(*w));
    w->opts = *opts;
    w->dir = mem_must_strdup(opts->dir);
    w->opts.dir = w->dir;
    if (opts->node_id != NULL) {
        memcpy(w->node_id, opts->node_id, NODE_ID_LEN);
        w->opts.node_id = w->node_id;
    }
    w->image = *take;
    take->exists = false;
    w->range_bits = w->image.queue.range_bits;
    w->range_count = w->image.queue.range_count;
    w->effects_expected = w->image.queue.effects;
    w->ranges = mem_must_zalloc(w->range_count * sizeof(*w->ranges));
    w->requested = mem_must_alloc(w->range_count * sizeof(*w->requested));
    lock_init(&w->lock, LOCK_RANK_WARM);
    lock_init(&w->rebuild_lock, LOCK_RANK_REBUILD);
    int err = pthread_cond_init(&w->changed, NULL);
    dc_assert(err == 0);
    return w;
}

static uint64_t range_cost(const struct warm *w, uint32_t range) {
    uint64_t cost = w->image.queue.ranges[range].bytes;
    uint32_t first = 0, count = 0;
    if (w->image.snap != NULL) {
        snap_range_blocks(w->image.snap, range, &first, &count);
    }
    for (uint32_t i = 0; i < count; i++) {
        cost += snap_block_info(w->image.snap, first + i)->stored_len;
    }
    return cost;
}

static void mark_cold(struct warm *w, struct store *s) {
    uint32_t cold = 0;
    w->store = s;
    w->began_us = time_mono_us();
    for (uint32_t i = 0; i < store_keyspace_count(s); i++) {
        if (w->image.queue.flushed[i] != 0) {
            keyspace_set_flush_version(store_keyspace(s, i), w->image.queue.flushed[i]);
        }
    }
    w->bytes_expected = w->image.queue.bytes;
    if (w->image.snap != NULL) {
        const struct snap_facts *facts = snap_facts(w->image.snap);
        w->entries_expected = facts->entries;
        w->bytes_expected += facts->plain_bytes + facts->entries * ENTRY_OVERHEAD;
    }
    for (uint32_t r = 0; r < w->range_count; r++) {
        w->ranges[r].cost = range_cost(w, r);
        set_state(w, r, w->ranges[r].cost > 0 ? RANGE_COLD : RANGE_WARM);
        cold += w->ranges[r].cost > 0;
        w->cost_total += w->ranges[r].cost;
    }
    w->unfinished = cold;
    atomic_store_explicit(&w->cost_left, w->cost_total, memory_order_relaxed);
    atomic_store_explicit(&w->not_warm, cold, memory_order_relaxed);
}

static void kit_destroy(struct kit *kit) {
    load_run_fini(&kit->run);
    mut_fini(&kit->mut);
    mut_fini(&kit->scratch_mut);
    snap_block_destroy(kit->block);
    store_destroy(kit->scratch);
    mem_free_aligned(kit, 64, sizeof(*kit));
}

/* Everything that only loading needs. Nobody loads any more. */
static void release(struct warm *w) {
    while (w->kits != NULL) {
        struct kit *next = w->kits->next;
        kit_destroy(w->kits);
        w->kits = next;
    }
    image_fini(&w->image);
    image_fini(&w->older);
}

void warm_destroy(struct warm *w) {
    if (w == NULL) {
        return;
    }
    lock_acquire(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->changed);
    lock_release(&w->lock);
    for (uint32_t i = 0; i < w->loader_count; i++) {
        thread_join(&w->loaders[i]);
    }
    release(w);
    for (uint32_t r = 0; r < w->range_count; r++) {
        mem_free(w->ranges[r].trouble);
    }
    pthread_cond_destroy(&w->changed);
    lock_fini(&w->rebuild_lock);
    lock_fini(&w->lock);
    mem_free(w->loaders);
    mem_free(w->requested);
    mem_free(w->ranges);
    mem_free(w->dir);
    mem_free(w);
}

/* --- kits: as many as there were threads loading at one time ------------------------------------------ */

struct kit *kit_take(struct warm *w) {
    lock_acquire(&w->lock);
    struct kit *kit = w->kits;
    if (kit != NULL) {
        w->kits = kit->next;
    }
    lock_release(&w->lock);
    if (kit == NULL) {
        struct snap_block *block = snap_block_create();
        if (block == NULL) {
            return NULL;
        }
        kit = mem_must_aligned(64, sizeof(*kit));
        memset(kit, 0, sizeof(*kit));
        kit->block = block;
        kit->scratch = load_scratch_create(w->store);
        store_thread_init(&kit->scratch_thread, kit->scratch, &kit->metrics, 1);
        store_thread_init(&kit->thread, w->store, &kit->metrics, 1);
        mut_init(&kit->scratch_mut, kit->scratch, &kit->scratch_thread);
        mut_init(&kit->mut, w->store, &kit->thread);
        load_run_init(&kit->run, kit->scratch);
        atomic_fetch_add_explicit(&w->scratch_bytes, load_scratch_len(kit->scratch),
                                  memory_order_relaxed);
    }
    return kit;
}

void kit_give(struct warm *w, struct kit *kit) {
    lock_acquire(&w->lock);
    kit->next = w->kits;
    w->kits = kit;
    lock_release(&w->lock);
}

/* --- the system keyspace ----------------------------------------------------------------------------- */

/* The last range, or there was none. */
static void finish(struct warm *w) {
    int64_t took_us = time_mono_us() - w->began_us;
    release(w); /* kits were given back before */
    atomic_store_explicit(&w->took_us, took_us > 0 ? took_us : 1, memory_order_relaxed);
}

enum dc_err warm_attach(struct warm *w, struct store *s) {
    if (w == NULL) {
        return DC_OK;
    }
    mark_cold(w, s);
    enum dc_err err = system_load(w);
    if (err == DC_OK && w->unfinished == 0) {
        finish(w);
    }
    return err;
}

/* --- one range --------------------------------------------------------------------------------------- */

/* The claimed range's end. Returns true when it was the last one. */
static bool settle(struct warm *w, uint32_t range, enum dc_err err, const char *text) {
    bool last = false;
    lock_acquire(&w->lock);
    if (err == DC_OK) {
        set_state(w, range, RANGE_WARM);
        atomic_fetch_sub_explicit(&w->not_warm, 1, memory_order_relaxed);
    } else if (err == DC_ENOMEM) {
        set_state(w, range, RANGE_COLD);
        w->cursor = range < w->cursor ? range : w->cursor;
    } else {
        w->ranges[range].trouble = mem_must_strdup(text);
        set_state(w, range, RANGE_FAILED);
    }
    if (err != DC_ENOMEM) {
        last = --w->unfinished == 0;
        atomic_fetch_sub_explicit(&w->cost_left, w->ranges[range].cost, memory_order_relaxed);
    }
    if (w->waiters > 0 || last) {
        pthread_cond_broadcast(&w->changed);
    }
    lock_release(&w->lock);
    return last;
}

static enum dc_err load_claimed(struct warm *w, uint32_t range) {
    char text[ERR_TEXT_MAX] = "";
    struct kit *kit = kit_take(w);
    enum dc_err err = kit == NULL ? DC_ENOMEM : range_load(w, kit, range);
    if (kit != NULL) {
        kit_give(w, kit);
    }
    if (err == DC_OK) {
        queue_forget(&w->image.queue, range);
    } else if (err != DC_ENOMEM) {
        uint32_t first = range << w->range_bits, last = first + (1u << w->range_bits) - 1;
        const char *why = dc_fail_take(err);
        diag(DIAG_WARNING, "warm.failed slots=%u-%u why=\"%s\"", first, last, why);
        snprintf(text, sizeof(text), "slots %u to %u can't be loaded: %s", first, last, why);
    }
    if (settle(w, range, err, text)) {
        finish(w);
    }
    return err == DC_OK || err == DC_ENOMEM ? err : dc_fail(DC_ECORRUPT, "%s", text);
}

/* Under the lock; it is given up meanwhile. */
static void wait_for_change(struct warm *w, uint32_t timeout_ms) DC_NO_LOCK_CHECK {
    w->waiters++;
    if (timeout_ms == 0) {
        pthread_cond_wait(&w->changed, &w->lock.mutex);
    } else {
        int64_t until_us = time_mono_us() + (int64_t)timeout_ms * 1000;
        struct timespec until = {until_us / 1000000, until_us % 1000000 * 1000};
        pthread_cond_clockwait(&w->changed, &w->lock.mutex, CLOCK_MONOTONIC, &until);
    }
    w->waiters--;
}

/* True: the range is the caller's to load. Waits while it is somebody else's. */
static bool claim(struct warm *w, uint32_t range) {
    lock_acquire(&w->lock);
    while (state_of(w, range) == RANGE_LOADING) {
        wait_for_change(w, 0);
    }
    bool mine = state_of(w, range) == RANGE_COLD;
    if (mine) {
        set_state(w, range, RANGE_LOADING);
    }
    lock_release(&w->lock);
    return mine;
}

static enum dc_err touch_range(struct warm *w, uint32_t range) {
    if (dc_likely(state_of(w, range) == RANGE_WARM)) {
        return DC_OK;
    }
    if (claim(w, range)) {
        return load_claimed(w, range);
    }
    if (state_of(w, range) == RANGE_WARM) {
        return DC_OK; /* I1: it stays */
    }
    return dc_fail(DC_ECORRUPT, "%s", w->ranges[range].trouble); /* I4 */
}

enum dc_err warm_touch(struct warm *w, struct store_thread *t, uint32_t slot) {
    (void)t;
    return w == NULL ? DC_OK : touch_range(w, range_of(w, slot));
}

enum dc_err warm_all(struct warm *w, struct store_thread *t) {
    enum dc_err first = DC_OK;
    char text[ERR_TEXT_MAX] = "";
    (void)t;
    if (w == NULL) {
        return DC_OK;
    }
    for (uint32_t r = 0; r < w->range_count; r++) {
        enum dc_err err = touch_range(w, r);
        if (err != DC_OK && first == DC_OK) {
            first = err;
            snprintf(text, sizeof(text), "%s", dc_fail_take(err));
        }
        if (err == DC_ENOMEM) {
            break;
        }
    }
    return first == DC_OK ? DC_OK : dc_fail(first, "%s", text);
}

/* --- loaders ----------------------------------------------------------------------------------------- */

/* Under the lock: a range to load, claimed. False: none is cold. */
static bool next_range(struct warm *w, uint32_t *range) {
    while (w->requested_count > 0) {
        *range = w->requested[w->requested_first];
        w->requested_first = (w->requested_first + 1) % w->range_count;
        w->requested_count--;
        w->ranges[*range].requested = false;
        if (state_of(w, *range) == RANGE_COLD) {
            return true;
        }
    }
    for (; w->cursor < w->range_count; w->cursor++) {
        if (state_of(w, w->cursor) == RANGE_COLD) {
            *range = w->cursor++;
            return true;
        }
    }
    return false;
}

static void run_loader(void *arg) {
    struct warm *w = arg;
    diag_set_role("warm");
    lock_acquire(&w->lock);
    while (!w->stop && w->unfinished > 0) {
        uint32_t range;
        if (!next_range(w, &range)) {
            wait_for_change(w, 0); /* the rest is being loaded by others */
            continue;
        }
        set_state(w, range, RANGE_LOADING);
        lock_release(&w->lock);
        enum dc_err err = load_claimed(w, range);
        lock_acquire(&w->lock);
        if (err == DC_ENOMEM && !w->stop) {
            wait_for_change(w, RETRY_MS);
        }
    }
    bool tell = --w->loaders_running == 0 && w->unfinished == 0;
    lock_release(&w->lock);
    if (tell && w->done != NULL) {
        w->done(w->done_arg);
    }
}

void warm_start(struct warm *w, uint32_t threads, void (*done)(void *arg), void *arg) {
    if (w == NULL || threads == 0) {
        return;
    }
    dc_assert(w->store != NULL && w->loader_count == 0);
    w->done = done;
    w->done_arg = arg;
    w->loaders = mem_must_zalloc(threads * sizeof(*w->loaders));
    w->loader_count = threads;
    w->loaders_running = threads;
    for (uint32_t i = 0; i < threads; i++) {
        thread_start(&w->loaders[i], "warm", run_loader, w);
    }
}

void warm_request(struct warm *w, uint32_t slot) {
    if (w == NULL) {
        return;
    }
    uint32_t range = range_of(w, slot);
    if (state_of(w, range) != RANGE_COLD) {
        return;
    }
    lock_acquire(&w->lock);
    if (!w->ranges[range].requested && state_of(w, range) == RANGE_COLD) {
        w->ranges[range].requested = true;
        w->requested[(w->requested_first + w->requested_count++) % w->range_count] = range;
    }
    lock_release(&w->lock);
}

/* --- questions and orders ---------------------------------------------------------------------------- */

bool warm_is_over(const struct warm *w) {
    return w == NULL || atomic_load_explicit(&w->not_warm, memory_order_relaxed) == 0;
}

bool warm_is_settled(const struct warm *w) {
    return w == NULL || atomic_load_explicit(&w->unfinished, memory_order_acquire) == 0;
}

bool warm_slot_is_ready(const struct warm *w, uint32_t slot) {
    return w == NULL || state_of(w, range_of(w, slot)) == RANGE_WARM;
}

uint32_t warm_ready_end(const struct warm *w, uint32_t slot) {
    if (warm_is_over(w)) {
        return SLOT_COUNT;
    }
    uint32_t range = range_of(w, slot);
    while (range < w->range_count && state_of(w, range) == RANGE_WARM) {
        range++;
    }
    uint32_t end = range << w->range_bits;
    return end > slot ? end : slot;
}

uint64_t warm_cost(const struct warm *w, uint32_t slot) {
    if (w == NULL) {
        return 0;
    }
    uint32_t range = range_of(w, slot);
    enum range_state state = state_of(w, range);
    return state == RANGE_COLD || state == RANGE_LOADING ? w->ranges[range].cost : 0;
}

void warm_drop(struct warm *w, const struct keyspace *ks) {
    if (w == NULL) {
        return;
    }
    uint32_t which = ks == NULL ? UINT32_MAX : 1u << keyspace_id(ks);
    atomic_fetch_or_explicit(&w->dropped, which, memory_order_relaxed);
}

void warm_set_limit(struct warm *w, uint64_t limit, enum evict_policy policy) {
    if (w != NULL) {
        atomic_store_explicit(&w->policy, (uint32_t)policy, memory_order_relaxed);
        atomic_store_explicit(&w->limit, limit, memory_order_relaxed);
    }
}

void warm_set_evict(struct warm *w, warm_evict_fn evict, void *arg) {
    if (w != NULL) {
        w->evict = evict;
        w->evict_arg = arg;
    }
}

void warm_stats(const struct warm *w, struct warm_stats *out) {
    *out = (struct warm_stats){0};
    if (w == NULL) {
        return;
    }
    uint32_t not_warm = atomic_load_explicit(&w->not_warm, memory_order_relaxed);
    int64_t took_us = atomic_load_explicit(&w->took_us, memory_order_relaxed);
    out->ranges = w->range_count;
    out->ranges_warm = w->range_count - not_warm;
    for (uint32_t r = 0; not_warm > 0 && r < w->range_count; r++) {
        out->ranges_failed += state_of(w, r) == RANGE_FAILED;
    }
    out->entries_loaded = atomic_load_explicit(&w->entries_loaded, memory_order_relaxed);
    out->entries_expected = w->entries_expected;
    out->entries_left_out = atomic_load_explicit(&w->entries_left_out, memory_order_relaxed);
    out->effects_applied = atomic_load_explicit(&w->effects_applied, memory_order_relaxed);
    out->effects_expected = w->effects_expected;
    out->took_ms = (took_us != 0 ? took_us : time_mono_us() - w->began_us) / 1000;
}
