/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Loading a range: its blocks and then its queued effects go to a scratch store of the thread; what results is moved into the real store, slot
 * by slot, each in one step under its lock.
 *
 *     blocks -> scratch <- queued effects          publish: scratch slot -> store slot (a table is moved, not copied)
 *
 * So no lock is held while anything is read, unpacked or applied, and whoever sweeps, evicts or samples sees nothing of a slot or all
 * of it: an entry whose first expiry has passed isn't reaped before the effect that prolongs it (H30).
 *
 * A block that is damaged: the range is put together from an older snapshot and its log up to E instead; the queued effects follow as always.
 */
#include "persist/warm_priv.h"
#include "server/base/assert.h"
#include "server/base/diag.h"
#include "server/base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { EVICT_BATCH = 64, WEIGHTS_MAX = 4096 };

/* One pass over a range. */
struct pass {
    struct warm *w;
    struct kit *kit;
    uint32_t range;
    uint32_t slot, slot_end;
    uint32_t dropped; /* keyspaces that aren't wanted */
    uint64_t entries, effects;
};

static bool is_wanted(const struct pass *p, uint32_t keyspace) {
    return (p->dropped >> keyspace & 1) == 0;
}

static void discard_all(const struct pass *p) {
    uint32_t keyspaces = store_keyspace_count(p->kit->scratch);
    load_run_fini(&p->kit->run);
    mut_reset(&p->kit->scratch_mut, 0);
    for (uint32_t ks = 0; ks < keyspaces; ks++) {
        for (uint32_t slot = p->slot; slot < p->slot_end; slot++) {
            load_discard(p->kit->scratch, ks, slot);
        }
    }
}

/* --- blocks ------------------------------------------------------------------------------------------ */

static uint64_t flushed_below(const struct pass *p, const struct image *image, uint32_t keyspace) {
    uint64_t a = image->queue.flushed[keyspace], b = p->w->image.queue.flushed[keyspace];
    return a > b ? a : b;
}

static uint16_t age_of(const struct pass *p, uint8_t code) {
    int32_t *age = &p->kit->ages[code];
    if (*age < 0) {
        *age = store_age_of_idle(p->w->store, snap_age_ms(code), p->kit->now_ms);
    }
    return (uint16_t)*age;
}

static enum dc_err add_entry(struct pass *p, const struct image *image, uint32_t block,
                             struct keyspace *ks, const struct snap_entry *e) {
    struct kit *kit = p->kit;
    struct key k = store_key(kit->scratch, e->key);
    if (key_slot(&k) < p->slot || key_slot(&k) >= p->slot_end) {
        return image == &p->w->image
                   ? dc_fail(DC_ECORRUPT, "block %u holds a key of another range", block)
                   : DC_OK; /* an older snapshot may have wider ranges */
    }
    struct load_spec spec = {.spec = {.key = e->key, .value = e->value, .expiry_ms = e->expiry_ms},
                             .version = e->version,
                             .freq = e->freq,
                             .age = age_of(p, e->age_code)};
    if (dc_unlikely(e->value.kind == VALUE_BLOB)) {
        enum dc_err err = snap_read_blob(kit->block, image->snap, block, e, &spec.spec.value.blob);
        if (err != DC_OK) {
            return err;
        }
    }
    p->entries++;
    return load_add(&kit->run, ks, &k, &spec);
}

static enum dc_err load_block(struct pass *p, const struct image *image, uint32_t block) {
    const struct snap_block_info *info = snap_block_info(image->snap, block);
    enum { KIND_ENTRIES = 0 };
    if (info->kind != KIND_ENTRIES) {
        return DC_OK; /* blobs are read with their entries */
    }
    struct keyspace *ks = store_keyspace(p->kit->scratch, info->keyspace);
    if (ks == NULL) {
        return dc_fail(DC_ECORRUPT, "block %u is of database %u", block, info->keyspace);
    }
    if (!is_wanted(p, info->keyspace)) {
        return DC_OK;
    }
    uint64_t flushed = flushed_below(p, image, info->keyspace);
    enum dc_err err = snap_block_read(p->kit->block, image->snap, block);
    struct snap_entry e;
    while (err == DC_OK && snap_block_next(p->kit->block, &e)) {
        if (e.version > flushed) {
            err = add_entry(p, image, block, ks, &e);
        }
    }
    return err;
}

static enum dc_err load_blocks(struct pass *p, const struct image *image) {
    enum dc_err err = DC_OK;
    if (image->snap == NULL) {
        return DC_OK;
    }
    uint32_t bits = snap_facts(image->snap)->range_bits;
    for (uint32_t r = p->slot >> bits; r <= (p->slot_end - 1) >> bits; r++) {
        uint32_t first, count;
        snap_range_blocks(image->snap, r, &first, &count);
        for (uint32_t i = 0; i < count && err == DC_OK; i++) {
            err = load_block(p, image, first + i);
        }
    }
    return err != DC_OK ? err : load_flush(&p->kit->run);
}

/* --- effects ----------------------------------------------------------------------------------------- */

static enum dc_err apply_effects(struct pass *p, const struct image *image) {
    struct effect_cursor cursor;
    queue_begin(&image->queue, p->range, &cursor);
    for (;;) {
        struct effect_view e;
        switch (queue_next(&cursor, &e)) {
        case QUEUE_END:
            mut_reset(&p->kit->scratch_mut, 0);
            return DC_OK;
        case QUEUE_BAD:
            return dc_fail(DC_ECORRUPT, "the log isn't what it was when it was scanned");
        case QUEUE_EFFECT:
            break;
        }
        if (!is_wanted(p, e.keyspace) || e.version <= flushed_below(p, image, e.keyspace)) {
            continue; /* the flush may stand in the log behind the image */
        }
        struct key k = store_key_in(p->kit->scratch, cursor.slot, e.key);
        enum dc_err err =
            replay_keyed(&p->kit->scratch_mut, &e, &k, e.version <= image->window_end);
        if (err != DC_OK) {
            return err;
        }
        p->effects++;
    }
}

static enum dc_err load_effects(struct pass *p, const struct image *image) {
    enum dc_err err = apply_effects(p, image);
    enum dc_err lost = queue_check(&image->queue, p->range);
    return lost != DC_OK ? lost : err;
}

/* --- a damaged block --------------------------------------------------------------------------------- */

enum dc_err image_older(struct warm *w, struct image **out) {
    enum dc_err err = DC_OK;
    lock_acquire(&w->rebuild_lock);
    if (!w->older_tried) {
        w->older_tried = true;
        err = data_scan_older(&w->opts, w->image.window_end, w->range_bits, &w->older);
    } else if (!w->older.exists) {
        err = dc_fail(DC_ECORRUPT, "no older snapshot and its log reach as far");
    }
    lock_release(&w->rebuild_lock);
    *out = &w->older;
    return err;
}

static enum dc_err rebuild(struct pass *p) {
    struct image *older;
    char text[ERR_TEXT_MAX];
    snprintf(text, sizeof(text), "%s", dc_fail_take(DC_ECORRUPT));
    discard_all(p);
    p->entries = p->effects = 0;
    enum dc_err err = image_older(p->w, &older);
    err = err != DC_OK ? err : load_blocks(p, older);
    err = err != DC_OK ? err : load_effects(p, older);
    if (err == DC_OK) {
        diag(DIAG_WARNING, "warm.rebuilt slots=%u-%u from=older-snapshot why=\"%s\"", p->slot,
             p->slot_end - 1, text);
        return DC_OK;
    }
    char second[ERR_TEXT_MAX];
    snprintf(second, sizeof(second), "%s", dc_fail_take(err));
    return err == DC_ENOMEM ? err
                            : dc_fail(DC_ECORRUPT, "%s; and it can't be rebuilt: %s", text, second);
}

/* --- what doesn't fit -------------------------------------------------------------------------------- */

struct weight {
    double score; /* as eviction has it: the higher, the sooner it goes */
    double bytes;
};

/* Which entries of a range go. Of a large one only every so many entries are weighed to find where the line is. */
struct choice {
    struct kit *kit;
    struct warm *w;
    enum evict_policy policy;
    struct weight *weights;
    uint64_t stride, seen;
    uint32_t weight_count;
    uint64_t total;
    double excess;      /* bytes that have still to go */
    double threshold;   /* what scores higher goes ... */
    double at_the_line; /* ... and so many bytes of what has just this score */
    struct mut *mut;
    struct entry *victims[EVICT_BATCH];
    uint32_t count;
};

static uint64_t entry_cost(const struct entry *e) {
    struct value v;
    uint64_t bytes = mem_good_size(entry_size(e));
    if (entry_kind(e) == VALUE_BLOB) {
        entry_value(e, &v);
        bytes += v.blob->cap;
    }
    return bytes;
}

static bool score_of(const struct choice *c, const struct entry *e, double *out) {
    return store_evict_score(&c->kit->thread, c->policy, c->kit->now_ms, e, out);
}

static void weigh(void *arg, struct keyspace *ks, struct entry *e) {
    struct choice *c = arg;
    uint64_t bytes = entry_cost(e);
    double score;
    (void)ks;
    c->total += bytes;
    if (c->seen++ % c->stride == 0 && score_of(c, e, &score)) {
        c->weights[c->weight_count++] = (struct weight){score, (double)bytes * (double)c->stride};
    }
}

static void choose(void *arg, struct keyspace *ks, struct entry *e) {
    struct choice *c = arg;
    double score, bytes = (double)entry_cost(e);
    (void)ks;
    if (c->count == EVICT_BATCH || c->excess <= 0 || !score_of(c, e, &score) ||
        score < c->threshold || (score == c->threshold && c->at_the_line <= 0)) {
        return;
    }
    c->at_the_line -= score == c->threshold ? bytes : 0;
    c->excess -= bytes;
    c->victims[c->count++] = e;
}

static void weigh_all(struct choice *c, const struct pass *p) {
    struct store *s = p->kit->scratch;
    uint64_t count = 0;
    for (uint32_t ks = 0; ks < store_keyspace_count(s); ks++) {
        for (uint32_t slot = p->slot; slot < p->slot_end; slot++) {
            count += load_count(s, ks, slot);
        }
    }
    c->stride = count / WEIGHTS_MAX + 1;
    c->weights = mem_must_alloc((count / c->stride + 1) * sizeof(*c->weights));
    for (uint32_t ks = 0; ks < store_keyspace_count(s); ks++) {
        for (uint32_t slot = p->slot; slot < p->slot_end; slot++) {
            (void)load_step(store_keyspace(s, ks), slot, 0, UINT32_MAX, weigh, c);
        }
    }
}

static int compare_soonest(const void *a, const void *b) {
    const struct weight *x = a, *y = b;
    return (x->score < y->score) - (x->score > y->score);
}

/* Where the line is for the excess to go. */
static void draw_line(struct choice *c) {
    double gone = 0, above = 0;
    qsort(c->weights, c->weight_count, sizeof(*c->weights), compare_soonest);
    for (uint32_t i = 0; i < c->weight_count && gone < c->excess; i++) {
        const struct weight *weight = &c->weights[i];
        above = i > 0 && weight->score == c->threshold ? above : gone;
        gone += weight->bytes;
        c->threshold = weight->score;
    }
    c->at_the_line = c->excess - above;
    if (gone < c->excess) {
        c->threshold = -HUGE_VAL; /* all that may */
    }
}

/* Which entries of the range have to go for everything that is still to come to fit as well as this range does: each
 * range gives the same share, so that the last ones aren't left out whole. */
static void set_limit(struct choice *c, const struct pass *p) {
    struct warm *w = p->w;
    struct mem_stats stats;
    uint64_t limit = atomic_load_explicit(&w->limit, memory_order_relaxed);
    uint64_t left = atomic_load_explicit(&w->cost_left, memory_order_relaxed);
    uint64_t cost = w->ranges[p->range].cost;
    if (limit == 0 || cost == 0 || c->policy == EVICT_NONE) {
        return;
    }
    mem_stats_read(&stats);
    uint64_t scratch = atomic_load_explicit(&w->scratch_bytes, memory_order_relaxed);
    stats.allocated -= scratch < stats.allocated ? scratch : stats.allocated;
    double expected = (double)w->bytes_expected * (double)left / (double)w->cost_total;
    if ((double)stats.allocated + expected < (double)limit) {
        return; /* there is room for the rest by any measure */
    }
    weigh_all(c, p);
    uint64_t others = stats.allocated > c->total ? stats.allocated - c->total : 0;
    double room = limit > others ? (double)(limit - others) : 0;
    double need = (double)c->total * (double)left / (double)cost;
    c->excess = need > room ? (double)c->total * (1 - room / need) : 0;
    draw_line(c);
}

/* The next batch of a slot's victims goes by one mutation; moves *hash. Slot lock held. False: that was the last one, or the log refuses. */
static bool evict_batch(struct choice *c, struct keyspace *ks, uint32_t slot, uint64_t *hash) {
    struct warm *w = c->w;
    struct mut *m = c->mut;
    c->count = 0;
    while (*hash < LOAD_END && c->count == 0) {
        *hash = load_step(ks, slot, *hash, 1, choose, c); /* whole lines: a few entries */
    }
    if (c->count == 0) {
        return false;
    }
    enum dc_err err = mut_reserve(m, c->count);
    for (uint32_t i = 0; i < c->count && err == DC_OK; i++) {
        struct key k = store_key(w->store, entry_key(c->victims[i]));
        err = mut_del(m, ks, &k);
    }
    if (err == DC_OK && w->evict != NULL) {
        err = w->evict(w->evict_arg, m);
    } else if (err == DC_OK) {
        mut_commit(m);
    }
    if (err != DC_OK) {
        mut_rollback(m);
        return false;
    }
    atomic_fetch_add_explicit(&w->entries_left_out, c->count, memory_order_relaxed);
    return true;
}

/* --- moving it in ------------------------------------------------------------------------------------ */

static void publish_slot(const struct pass *p, uint32_t slot, struct choice *c) {
    struct warm *w = p->w;
    struct store *s = w->store;
    store_lock(s, slot);
    /* Set under all slot locks: ours orders the load. */
    uint32_t dropped = atomic_load_explicit(&w->dropped, memory_order_relaxed);
    for (uint32_t ks = 0; ks < store_keyspace_count(s); ks++) {
        if (dropped >> ks & 1) {
            load_discard(p->kit->scratch, ks, slot);
        } else {
            load_publish(s, p->kit->scratch, ks, slot);
        }
    }
    store_unlock(s, slot);
    for (uint32_t ks = 0; ks < store_keyspace_count(s) && c->excess > 0; ks++) {
        uint64_t hash = 0;
        for (bool more = true; more;) {
            mut_reset(c->mut, 0);
            store_lock(s, slot);
            more = evict_batch(c, store_keyspace(s, ks), slot, &hash);
            store_unlock(s, slot);
        }
        mut_reset(c->mut, 0);
    }
}

static bool holds_anything(const struct pass *p, uint32_t slot) {
    for (uint32_t ks = 0; ks < store_keyspace_count(p->kit->scratch); ks++) {
        if (load_count(p->kit->scratch, ks, slot) > 0) {
            return true;
        }
    }
    return false;
}

static void publish(const struct pass *p) {
    struct choice *c = mem_must_zalloc(sizeof(*c));
    c->kit = p->kit;
    c->w = p->w;
    c->policy = (enum evict_policy)atomic_load_explicit(&p->w->policy, memory_order_relaxed);
    c->mut = &p->kit->mut;
    set_limit(c, p);
    for (uint32_t slot = p->slot; slot < p->slot_end; slot++) {
        if (holds_anything(p, slot)) {
            publish_slot(p, slot, c);
        }
    }
    mem_free(c->weights);
    mem_free(c);
}

enum dc_err range_load(struct warm *w, struct kit *kit, uint32_t range) {
    struct pass p = {.w = w,
                     .kit = kit,
                     .range = range,
                     .slot = range << w->range_bits,
                     .slot_end = (range + 1) << w->range_bits,
                     .dropped = atomic_load_explicit(&w->dropped, memory_order_relaxed)};
    load_scratch_begin(kit->scratch, w->store, w->image.queue.ranges[range].count >> w->range_bits);
    memset(kit->ages, 0xff, sizeof(kit->ages));
    kit->now_ms = store_ticked_ms(w->store);
    load_run_init(&kit->run, kit->scratch);
    enum dc_err err = load_blocks(&p, &w->image);
    if ((err == DC_ECORRUPT || err == DC_EIO) && w->image.snap != NULL) {
        err = rebuild(&p);
    }
    err = err != DC_OK ? err : load_effects(&p, &w->image);
    if (err != DC_OK) {
        discard_all(&p);
        return err;
    }
    publish(&p);
    atomic_fetch_add_explicit(&w->entries_loaded, p.entries, memory_order_relaxed);
    atomic_fetch_add_explicit(&w->effects_applied, p.effects, memory_order_relaxed);
    return DC_OK;
}
