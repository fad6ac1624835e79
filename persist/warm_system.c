/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The system keyspace: its few entries stand in blocks of their own and its effects in a list of their own, so it is loaded at once and whole,
 * into the store itself: nobody else is there yet. No range is touched for it.
 *
 * A block that is damaged: it is put together from an older snapshot and the log up to E, as a range would be. If that can't be, the
 * start is refused: without what all copies of the data share a node would do wrong things, not just miss some.
 */
#include "persist/warm_priv.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/store/system.h"

#include <stdio.h>

struct system_pass {
    struct warm *w;
    struct store *store;
    struct snap_block *block;
    struct load_run run;
    struct store_thread thread;
    struct mut mut;
    struct metric_slot metrics; /* nobody counts these */
    uint64_t entries, effects;
};

static enum dc_err add_entry(struct system_pass *p, const struct image *image, uint32_t block,
                             const struct snap_entry *e) {
    struct key k = store_key(p->store, e->key);
    struct load_spec spec = {.spec = {.key = e->key, .value = e->value, .expiry_ms = e->expiry_ms},
                             .version = e->version,
                             .freq = e->freq};
    if (e->value.kind == VALUE_BLOB) {
        enum dc_err err = snap_read_blob(p->block, image->snap, block, e, &spec.spec.value.blob);
        if (err != DC_OK) {
            return err;
        }
    }
    p->entries++;
    return load_add(&p->run, store_system(p->store), &k, &spec);
}

static enum dc_err load_blocks(struct system_pass *p, const struct image *image) {
    uint32_t first, count;
    enum dc_err err = DC_OK;
    if (image->snap == NULL) {
        return DC_OK;
    }
    uint32_t bits = snap_facts(image->snap)->range_bits;
    snap_range_blocks(image->snap, snap_range_of(bits, KEYSPACE_SYSTEM, 0), &first, &count);
    for (uint32_t i = first; i < first + count && err == DC_OK; i++) {
        struct snap_entry e;
        if (snap_block_info(image->snap, i)->kind != SNAP_ENTRIES) {
            continue; /* blobs are read with their entries */
        }
        err = snap_block_read(p->block, image->snap, i);
        while (err == DC_OK && snap_block_next(p->block, &e)) {
            err = add_entry(p, image, i, &e);
        }
    }
    return err != DC_OK ? err : load_flush(&p->run);
}

static enum dc_err load_effects(struct system_pass *p, const struct image *image) {
    struct effect_cursor cursor;
    struct effect_view e;
    enum dc_err err = DC_OK;
    enum queue_step step = QUEUE_END;
    queue_begin(&image->queue, image->queue.range_count, &cursor);
    while (err == DC_OK && (step = queue_next(&cursor, &e)) == QUEUE_EFFECT) {
        err = replay_effect(&p->mut, &e, e.version <= image->window_end);
        p->effects++;
    }
    return err == DC_OK && step == QUEUE_BAD
               ? dc_fail(DC_ECORRUPT, "the log isn't what it was when it was scanned")
               : err;
}

static enum dc_err rebuild(struct system_pass *p) {
    struct image *older;
    char text[ERR_TEXT_MAX], second[ERR_TEXT_MAX];
    snprintf(text, sizeof(text), "%s", dc_fail_take(DC_ECORRUPT));
    load_run_fini(&p->run);
    for (uint32_t slot = 0; slot < SLOT_COUNT; slot++) {
        load_discard(p->store, KEYSPACE_SYSTEM, slot);
    }
    p->entries = p->effects = 0;
    enum dc_err err = image_older(p->w, &older);
    err = err != DC_OK ? err : load_blocks(p, older);
    err = err != DC_OK ? err : load_effects(p, older);
    if (err == DC_OK) {
        diag(DIAG_WARNING, "warm.rebuilt keyspace=system from=older-snapshot why=\"%s\"", text);
        return DC_OK;
    }
    snprintf(second, sizeof(second), "%s", dc_fail_take(err));
    return err == DC_ENOMEM ? err
                            : dc_fail(DC_ECORRUPT, "%s; and it can't be rebuilt: %s", text, second);
}

/* The snapshot may be younger than the flush. (What the log tells of flushes is known already.) */
static void settle_flushes(struct store *s) {
    for (uint32_t i = 0; i < store_keyspace_count(s); i++) {
        struct keyspace *ks = store_keyspace(s, i);
        const struct entry *record = system_flush_record(ks);
        uint64_t version = record == NULL ? 0 : entry_version(record) + EFFECT_HEADER_LEN;
        if (version > keyspace_flush_version(ks)) {
            keyspace_set_flush_version(ks, version);
        }
    }
}

static enum dc_err load(struct system_pass *p) {
    const struct image *image = &p->w->image;
    p->block = snap_block_create();
    if (p->block == NULL) {
        return DC_ENOMEM;
    }
    enum dc_err err = load_blocks(p, image);
    if ((err == DC_ECORRUPT || err == DC_EIO) && image->snap != NULL) {
        err = rebuild(p);
    }
    return err != DC_OK ? err : load_effects(p, image);
}

enum dc_err system_load(struct warm *w) {
    struct system_pass *p = mem_must_aligned(64, sizeof(*p));
    memset(p, 0, sizeof(*p));
    p->w = w;
    p->store = w->store;
    store_thread_init(&p->thread, w->store, &p->metrics, 1);
    mut_init(&p->mut, w->store, &p->thread);
    load_run_init(&p->run, w->store);
    enum dc_err err = load(p);
    if (err == DC_OK) {
        settle_flushes(w->store);
        queue_forget(&w->image.queue, w->image.queue.range_count);
        atomic_fetch_add_explicit(&w->entries_loaded, p->entries, memory_order_relaxed);
        atomic_fetch_add_explicit(&w->effects_applied, p->effects, memory_order_relaxed);
    } else {
        char text[ERR_TEXT_MAX];
        snprintf(text, sizeof(text), "%.300s", dc_fail_take(err));
        err = dc_fail(err,
                      "the system keyspace can't be loaded: %s. What can be read is saved by: "
                      "dcache-restore --repair %s <new dir>",
                      text, w->dir);
    }
    load_run_fini(&p->run);
    mut_fini(&p->mut);
    snap_block_destroy(p->block);
    mem_free_aligned(p, 64, sizeof(*p));
    return err;
}
