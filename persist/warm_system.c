/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The system keyspace: its few entries stand in blocks of their own and its effects in a list of their own, so it is loaded at once and whole,
 * into the store itself: nobody else is there yet. No range is touched for it.
 *
 * A block that is damaged: it is put together from an older snapshot and the log up to E, as a range would be. If that can't be, the
 * start is refused: a node that doesn't know what all of them share would do wrong things, not few.
 */
#include "persist/warm_priv.h"
#include "server/base/diag.h"
#include "server/store/system.h"

#include <stdio.h>

static enum dc_err add_entry(struct kit *kit, const struct image *image, uint32_t block,
                             struct keyspace *ks, const struct snap_entry *e) {
    struct key k = store_key(kit->run.scratch, e->key);
    struct load_spec spec = {.spec = {.key = e->key, .value = e->value, .expiry_ms = e->expiry_ms},
                             .version = e->version,
                             .freq = e->freq};
    if (e->value.kind == VALUE_BLOB) {
        enum dc_err err = snap_read_blob(kit->block, image->snap, block, e, &spec.spec.value.blob);
        if (err != DC_OK) {
            return err;
        }
    }
    return load_add(&kit->run, ks, &k, &spec);
}

static enum dc_err load_blocks(struct warm *w, struct kit *kit, const struct image *image,
                               uint64_t *count) {
    uint32_t first = 0, blocks = 0;
    enum dc_err err = DC_OK;
    if (image->snap != NULL) {
        snap_range_blocks(image->snap,
                          snap_range_of(snap_facts(image->snap)->range_bits, KEYSPACE_SYSTEM, 0),
                          &first, &blocks);
    }
    load_run_init(&kit->run, w->store);
    for (uint32_t i = first; i < first + blocks && err == DC_OK; i++) {
        struct snap_entry e;
        if (snap_block_info(image->snap, i)->kind != SNAP_ENTRIES) {
            continue; /* blobs are read with their entries */
        }
        err = snap_block_read(kit->block, image->snap, i);
        for (; err == DC_OK && snap_block_next(kit->block, &e); ++*count) {
            err = add_entry(kit, image, i, store_system(w->store), &e);
        }
    }
    return err != DC_OK ? err : load_flush(&kit->run);
}

static enum dc_err load_effects(struct kit *kit, const struct image *image, uint64_t *count) {
    struct effect_cursor cursor;
    struct effect_view e;
    enum dc_err err = DC_OK;
    enum queue_step step = QUEUE_END;
    queue_begin(&image->queue, image->queue.range_count, &cursor);
    while (err == DC_OK && (step = queue_next(&cursor, &e)) == QUEUE_EFFECT) {
        err = replay_effect(&kit->mut, &e, e.version <= image->window_end);
        ++*count;
    }
    mut_reset(&kit->mut, 0);
    return err == DC_OK && step == QUEUE_BAD
               ? dc_fail(DC_ECORRUPT, "the log isn't what it was when it was scanned")
               : err;
}

static enum dc_err rebuild(struct warm *w, struct kit *kit, uint64_t *entries, uint64_t *effects) {
    struct image *older;
    char text[ERR_TEXT_MAX], second[ERR_TEXT_MAX];
    snprintf(text, sizeof(text), "%s", dc_fail_take(DC_ECORRUPT));
    load_run_fini(&kit->run);
    for (uint32_t slot = 0; slot < SLOT_COUNT; slot++) {
        load_discard(w->store, KEYSPACE_SYSTEM, slot);
    }
    *entries = 0;
    enum dc_err err = image_older(w, &older);
    err = err != DC_OK ? err : load_blocks(w, kit, older, entries);
    err = err != DC_OK ? err : load_effects(kit, older, effects);
    if (err == DC_OK) {
        diag(DIAG_WARNING, "warm.rebuilt keyspace=system from=older-snapshot why=\"%s\"", text);
        return DC_OK;
    }
    snprintf(second, sizeof(second), "%s", dc_fail_take(err));
    return err == DC_ENOMEM ? err
                            : dc_fail(DC_ECORRUPT, "%s; and it can't be rebuilt: %s", text, second);
}

/* What the log alone tells of flushes is known already. */
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

enum dc_err system_load(struct warm *w, struct kit *kit) {
    uint64_t entries = 0, effects = 0;
    enum dc_err err = load_blocks(w, kit, &w->image, &entries);
    if ((err == DC_ECORRUPT || err == DC_EIO) && w->image.snap != NULL) {
        err = rebuild(w, kit, &entries, &effects);
    }
    err = err != DC_OK ? err : load_effects(kit, &w->image, &effects);
    load_run_fini(&kit->run);
    if (err != DC_OK) {
        char text[ERR_TEXT_MAX];
        snprintf(text, sizeof(text), "%.300s", dc_fail_take(err));
        return dc_fail(err,
                       "the system keyspace can't be loaded: %s. What can be read is saved by: "
                       "dcache-restore --repair %s <new dir>",
                       text, w->dir);
    }
    settle_flushes(w->store);
    queue_forget(&w->image.queue, w->image.queue.range_count);
    atomic_fetch_add_explicit(&w->entries_loaded, entries, memory_order_relaxed);
    atomic_fetch_add_explicit(&w->effects_applied, effects, memory_order_relaxed);
    return DC_OK;
}
