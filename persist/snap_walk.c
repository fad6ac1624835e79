/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The threads take ranges from a counter and places in the file from another; neither waits for anybody. What an entry is may change before
 * its turn and after it: both are in the log between S and E, which the file ends with.
 */
#include "persist/snap_priv.h"

#include "server/base/assert.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/base/time.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>

enum {
    NICE = 10,           /* workers come first */
    WALK_WANT = 32,      /* entries to a hold of a slot's lock ... */
    HOLD_LEN = 64 << 10, /* ... and bytes, judged by those before */
    PACK_RESERVE = 512 << 10,
    SAMPLE_PLACES = 64,
    SAMPLE_WANT = 8,
};

/* The thread's error becomes the job's, if it is the first. Returns it. */
static enum dc_err job_fail(struct snap_job *j, enum dc_err err) {
    uint32_t expected = 0;
    if (atomic_compare_exchange_strong_explicit(&j->failed, &expected, 1, memory_order_relaxed,
                                                memory_order_relaxed)) {
        j->err = err;
        snprintf(j->text, sizeof(j->text), "%s", dc_fail_take(err));
        atomic_store_explicit(&j->failed, 2, memory_order_relaxed); /* read after the join */
    }
    return err;
}

static void progress_add(_Atomic uint64_t *at, uint64_t n) {
    atomic_fetch_add_explicit(at, n, memory_order_relaxed);
}

/* --- one thread -------------------------------------------------------------------------------------- */

static bool grow(void **items, uint32_t *cap, uint32_t count, size_t item_len) {
    if (count < *cap) {
        return true;
    }
    uint32_t more = *cap < 32 ? 64 : *cap * 2;
    void *moved = mem_realloc(*items, more * item_len);
    if (moved == NULL) {
        return false;
    }
    *items = moved;
    *cap = more;
    return true;
}

/* Under the slot lock. */
static void show(void *arg, struct keyspace *ks, struct entry *e) {
    struct snap_walker *w = arg;
    struct snap_held held;
    const struct store *s = w->job->opts->store;
    (void)ks;
    held.blob = snap_pack_entry(w->pack, e, store_idle_ms(s, e, w->now_ms), &held.at);
    if (held.blob == NULL) {
        return;
    }
    if (!grow((void **)&w->blobs, &w->blob_cap, w->blob_count, sizeof(held))) {
        w->no_memory = true;
        return;
    }
    held.version = entry_version(e);
    held.pos = store_key(s, entry_key(e)).pos.v;
    blob_acquire(held.blob);
    w->blobs[w->blob_count++] = held;
}

/* Puts a sealed block at its place in the file and in the index. */
static enum dc_err put_block(struct snap_walker *w, struct snap_block_info *info,
                             struct bytes block) {
    struct snap_job *j = w->job;
    info->range = w->range;
    info->keyspace = (uint16_t)keyspace_id(w->ks);
    info->offset = atomic_fetch_add_explicit(&j->end, block.len, memory_order_relaxed);
    if (!grow((void **)&w->index, &w->block_cap, w->block_count, sizeof(*info))) {
        return dc_fail(DC_ENOMEM, "snapshot: no memory for the index");
    }
    char *head = (char *)(uintptr_t)block.ptr; /* the room that the pack has left for it */
    snap_block_head_encode(info, j->head.sum, block.ptr + SNAP_BLOCK_HEAD_LEN, (uint8_t *)head);
    enum dc_err err = snap_job_write(j, block, info->offset);
    if (err != DC_OK) {
        return err;
    }
    w->index[w->block_count++] = *info;
    w->entries += info->entries;
    w->plain_bytes += info->plain_len;
    w->stored_bytes += info->stored_len;
    progress_add(&j->progress->entries_done, info->entries);
    progress_add(&j->progress->plain_bytes, info->plain_len);
    progress_add(&j->progress->stored_bytes, info->stored_len);
    return DC_OK;
}

static enum dc_err write_entries(struct snap_walker *w) {
    struct snap_block_info info = {.first_pos = w->first_pos};
    struct bytes block;
    enum dc_err err = snap_job_check(w->job);
    err = err != DC_OK ? err : snap_pack_seal(w->pack, &info, &block);
    return err != DC_OK ? err : put_block(w, &info, block);
}

static enum dc_err write_blob(struct snap_walker *w, const struct snap_held *held) {
    struct blob *b = held->blob;
    enum dc_err err = DC_OK;
    for (uint64_t at = 0; at < b->len && err == DC_OK; at += SNAP_PIECE_LEN) {
        uint64_t left = b->len - at;
        struct bytes piece = bytes_of(b->data + at, left < SNAP_PIECE_LEN ? left : SNAP_PIECE_LEN);
        struct snap_block_info info = {.first_pos = held->pos};
        struct bytes block;
        err = snap_job_check(w->job);
        err =
            err != DC_OK ? err : snap_pack_piece(w->pack, held->version, at, piece, &info, &block);
        err = err != DC_OK ? err : put_block(w, &info, block);
    }
    return err;
}

/* The blobs that the last hold of a lock has shown. They are let go in every outcome. */
static enum dc_err write_blobs(struct snap_walker *w, enum dc_err err) {
    for (uint32_t i = 0; i < w->blob_count; i++) {
        struct snap_held *held = &w->blobs[i];
        if (err == DC_OK) {
            snap_pack_blob(w->pack, held->at, blob_sum(held->blob), held->pos);
            err = write_blob(w, held);
        }
        blob_release(held->blob);
    }
    w->blob_count = 0;
    return err;
}

/* Fewer entries to a hold where they are large. */
static uint32_t want_next(const struct snap_walker *w) {
    uint64_t count = snap_pack_count(w->pack), len = snap_pack_len(w->pack);
    uint64_t fit = len == 0 ? WALK_WANT : HOLD_LEN * count / len;
    return fit < 1 ? 1 : fit > WALK_WANT ? WALK_WANT : (uint32_t)fit;
}

static uint64_t place_of(const struct store_walk *at) {
    return (uint64_t)at->slot << 50 | at->hash;
}

/* One keyspace of one range. */
static enum dc_err walk_keyspace(struct snap_walker *w, struct store_walk at) {
    struct snap_job *j = w->job;
    enum dc_err err = DC_OK;
    uint32_t want = WALK_WANT;
    w->first_pos = place_of(&at);
    for (bool more = true; more && err == DC_OK;) {
        snap_pack_reserve(w->pack, PACK_RESERVE);
        more = store_walk(j->opts->store, w->ks, &at, want, show, w);
        if (w->no_memory) {
            err = dc_fail(DC_ENOMEM, "snapshot: no memory to keep blobs");
        }
        want = want_next(w);
        err = write_blobs(w, err);
        bool is_full = snap_pack_len(w->pack) >= j->block_len / 4 * 5;
        if (err == DC_OK && snap_pack_count(w->pack) > 0 && (is_full || !more)) {
            err = write_entries(w);
            w->first_pos = place_of(&at);
        }
    }
    return err;
}

static enum dc_err walk_range(struct snap_walker *w) {
    struct store *s = w->job->opts->store;
    uint32_t bits = w->job->head.range_bits;
    enum dc_err err = DC_OK;
    w->now_ms = snap_job_now_ms(w->job);
    if (w->range == (uint32_t)SLOT_COUNT >> bits) {
        w->ks = store_system(s);
        return walk_keyspace(w, (struct store_walk){0, SLOT_COUNT, 0});
    }
    for (uint32_t k = 0; k < store_keyspace_count(s) && err == DC_OK; k++) {
        w->ks = store_keyspace(s, k);
        err = walk_keyspace(w, (struct store_walk){w->range << bits, (w->range + 1) << bits, 0});
    }
    return err;
}

/* One of the walkers does, when it is time. */
static void tell(struct snap_job *j) {
    int64_t now_us = time_mono_us();
    int64_t told_us = atomic_load_explicit(&j->told_us, memory_order_relaxed);
    if (j->opts->tell_ms == 0 || now_us - told_us < j->opts->tell_ms * 1000 ||
        !atomic_compare_exchange_strong_explicit(&j->told_us, &told_us, now_us,
                                                 memory_order_relaxed, memory_order_relaxed)) {
        return;
    }
    uint64_t done = atomic_load_explicit(&j->progress->entries_done, memory_order_relaxed);
    uint64_t expected = atomic_load_explicit(&j->progress->entries_expected, memory_order_relaxed);
    struct snap_outlook o = snap_outlook(done, expected, (now_us - j->begun_us) / 1000);
    diag(DIAG_NOTICE, "snapshot.progress percent=%" PRIu64 " keys_per_s=%" PRIu64 " eta_s=%" PRIu64,
         expected > done ? done * 100 / expected : 100, o.keys_per_s, o.eta_s);
}

static void walker_run(void *arg) {
    struct snap_walker *w = arg;
    struct snap_job *j = w->job;
    uint32_t last = (uint32_t)SLOT_COUNT >> j->head.range_bits; /* the system keyspace */
    enum dc_err err = DC_OK;
    (void)setpriority(PRIO_PROCESS, 0, NICE); /* on Linux: of this thread */
    w->pack = snap_pack_create(j->opts->level != 0 ? j->opts->level : SNAP_LEVEL);
    if (w->pack == NULL) {
        err = dc_fail(DC_ENOMEM, "snapshot: no memory for buffers");
    }
    while (err == DC_OK) {
        /* Relaxed: the number is all that is taken. */
        w->range = atomic_fetch_add_explicit(&j->next_range, 1, memory_order_relaxed);
        if (w->range > last) {
            break;
        }
        err = walk_range(w);
        atomic_fetch_add_explicit(&j->progress->ranges_done, 1, memory_order_relaxed);
        tell(j);
    }
    if (err != DC_OK) {
        job_fail(j, err);
    }
    snap_pack_destroy(w->pack);
    mem_free(w->blobs);
}

/* --- all threads ------------------------------------------------------------------------------------- */

struct snap_walker *snap_walk_run(struct snap_job *j, uint32_t count) {
    struct snap_walker *w = mem_must_zalloc(count * sizeof(*w));
    for (uint32_t i = 0; i < count; i++) {
        w[i].job = j;
        thread_start(&w[i].thread, "snapshot-walk", walker_run, &w[i]);
    }
    for (uint32_t i = 0; i < count; i++) {
        thread_join(&w[i].thread);
    }
    return w;
}

void snap_walk_destroy(struct snap_walker *w, uint32_t count) {
    for (uint32_t i = 0; w != NULL && i < count; i++) {
        mem_free(w[i].index);
    }
    mem_free(w);
}

struct sample {
    uint64_t count, len;
};

static void sample_entry(void *arg, struct keyspace *ks, struct entry *e) {
    struct sample *s = arg;
    struct value v;
    (void)ks;
    entry_value(e, &v);
    s->count++;
    s->len += 12 + entry_key(e).len; /* about */
    s->len += v.kind == VALUE_BLOB ? v.blob->len : v.kind == VALUE_INT ? 8 : v.str.len;
}

/* Plain bytes that the store will give, judged by some entries. One large value among them says too much of the others. */
static uint64_t expect_len(struct store *s) {
    uint64_t len = 0;
    struct mem_stats memory;
    for (uint32_t k = 0; k < store_keyspace_count(s); k++) {
        struct keyspace *ks = store_keyspace(s, k);
        struct sample sample = {0, 0};
        uint64_t count = keyspace_count(ks);
        for (uint32_t i = 0; i < SAMPLE_PLACES && count > 0; i++) {
            struct store_walk at = {i * (SLOT_COUNT / SAMPLE_PLACES), SLOT_COUNT, 0};
            (void)store_walk(s, ks, &at, SAMPLE_WANT, sample_entry, &sample);
        }
        len += sample.count == 0
                   ? 0
                   : (uint64_t)((double)sample.len / (double)sample.count * (double)count);
    }
    mem_stats_read(&memory);
    return len < memory.allocated ? len : memory.allocated;
}

/* So many slots to a range that it has up to 'block_len'. A large value has many blocks, in a range that few others share: who asks for
 * them after a restart doesn't wait for it. */
static uint32_t choose_range_bits(uint64_t len, uint32_t block_len) {
    uint32_t bits = SLOT_BITS;
    while (bits > 0 && len >> (SLOT_BITS - bits) > block_len) {
        bits--;
    }
    return bits;
}

void snap_walk_plan(struct snap_job *j) {
    j->head.range_bits = choose_range_bits(expect_len(j->opts->store), j->block_len);
}
