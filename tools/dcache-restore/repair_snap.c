/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The blocks. A bad one leaves a hole: the positions between its first and that of the next block of its range and keyspace.
 *
 *     newest   | block | bad   | block |       hole [p, q)
 *     older    |  block   |  block  |          its entries with positions in [p, q) that the newest hasn't elsewhere
 *     log      from the older one's S on, for keys in the hole; from the newest one's S on, for all
 *
 * So a key that was deleted between the two comes back only if the log that says so is lost, too.
 */
#include "server/base/mem.h"
#include "server/store/load.h"
#include "tools/dcache-restore/repair_priv.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

enum { POS_HASH_BITS = 50 };

/* --- which snapshots there are ----------------------------------------------------------------------- */

static bool take_identity(struct repair *r, const char *name, const uint8_t *node_id,
                          const uint8_t *seed) {
    struct data_plan *plan = r->source->plan;
    if (!r->has_identity) {
        memcpy(plan->node_id, node_id, NODE_ID_LEN);
        memcpy(plan->seed, seed, SEED_LEN);
        r->has_identity = true;
    }
    bool same =
        memcmp(plan->node_id, node_id, NODE_ID_LEN) == 0 && memcmp(plan->seed, seed, SEED_LEN) == 0;
    if (!same) {
        repair_note(r->report, "%s: belongs to another node; passed over", name);
    }
    return same;
}

static void add_snapshot(struct repair *r, const char *name, struct snap *snap) {
    if (r->snap_count == r->snap_cap) {
        r->snap_cap = r->snap_cap == 0 ? 8 : 2 * r->snap_cap;
        r->snaps = mem_must_realloc(r->snaps, r->snap_cap * sizeof(*r->snaps));
        r->names = mem_must_realloc(r->names, r->snap_cap * sizeof(*r->names));
    }
    uint32_t at = r->snap_count++;
    uint64_t end = snap_facts(snap)->end_lsn;
    for (; at > 0 && snap_facts(r->snaps[at - 1])->end_lsn < end; at--) {
        r->snaps[at] = r->snaps[at - 1];
        memcpy(r->names[at], r->names[at - 1], sizeof(*r->names));
    }
    r->snaps[at] = snap;
    snprintf(r->names[at], sizeof(*r->names), "%s", name);
}

static void look_at(void *arg, const char *name) {
    struct repair *r = arg;
    char path[PATH_MAX];
    struct snap *snap = NULL;
    uint64_t end_lsn, history;
    if (r->snap_err != DC_OK || !snap_name_parse(name, &end_lsn, &history)) {
        return;
    }
    snprintf(path, sizeof(path), "%s/%s", r->source->dir, name);
    enum dc_err err = snap_open(&io_posix, path, &snap);
    if (err != DC_OK) {
        repair_note(r->report, "%s", dc_fail_take(err));
    }
    if (err == DC_ECORRUPT) {
        err = mend_snapshot(r, path, &snap);
        r->snap_err = err != DC_ECORRUPT ? err : DC_OK;
    }
    if (err == DC_OK) {
        add_snapshot(r, name, snap);
    }
}

enum dc_err repair_find_snapshots(struct repair *r) {
    (void)io_posix.list(&io_posix, r->source->dir, look_at, r);
    if (r->snap_err != DC_OK) {
        return r->snap_err;
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < r->snap_count; i++) {
        const struct snap_facts *f = snap_facts(r->snaps[i]);
        if (!take_identity(r, r->names[i], f->node_id, f->seed)) {
            snap_close(r->snaps[i]);
            continue;
        }
        r->snaps[kept] = r->snaps[i];
        memmove(r->names[kept++], r->names[i], sizeof(*r->names));
    }
    r->snap_count = kept;
    for (uint32_t i = 0; i < r->dir.count && !r->has_identity; i++) {
        const struct segment_info *s = &r->dir.segments[i];
        if (s->verdict == HEAD_OK) {
            (void)take_identity(r, s->name, s->head.node_id, s->head.seed);
        }
    }
    return DC_OK;
}

void repair_free_snapshots(struct repair *r) {
    for (uint32_t i = 0; i < r->snap_count; i++) {
        snap_close(r->snaps[i]);
    }
    mem_free(r->snaps);
    mem_free(r->names);
    mem_free(r->holes);
}

/* The snapshot's end lies on the chain of the log, as far as that is known, and not behind the point asked for. */
static bool can_be_base(const struct repair *r, const struct snap_facts *f) {
    const struct log_dir *d = &r->dir;
    const struct options *o = r->o;
    uint64_t id = f->chain[f->chain_count - 1].id;
    if ((o->to_lsn != 0 && f->end_lsn > o->to_lsn) ||
        (o->to_time_ms != 0 && f->finished_ms > o->to_time_ms)) {
        return false;
    }
    for (uint32_t i = 0; i < d->chain_count; i++) {
        if (d->chain[i].id == id) {
            return f->end_lsn <= log_dir_link_end(d, i);
        }
    }
    return d->chain_count == 0 || f->end_lsn >= d->chain[d->chain_count - 1].start;
}

void repair_choose_base(struct repair *r) {
    for (r->base = 0; r->base < r->snap_count; r->base++) {
        const struct snap_facts *f = snap_facts(r->snaps[r->base]);
        if (can_be_base(r, f)) {
            r->base_start = f->start_lsn;
            r->base_end = f->end_lsn;
            r->reached = f->end_lsn;
            r->time_ms = f->begun_ms;
            return;
        }
    }
}

/* --- holes ------------------------------------------------------------------------------------------- */

static void add_hole(struct repair *r, const struct hole *h) {
    if (r->hole_count == r->hole_cap) {
        r->hole_cap = r->hole_cap == 0 ? 16 : 2 * r->hole_cap;
        r->holes = mem_must_realloc(r->holes, r->hole_cap * sizeof(*r->holes));
    }
    r->holes[r->hole_count++] = *h;
}

bool repair_in_hole(const struct repair *r, uint32_t keyspace, uint64_t pos, uint64_t version) {
    for (uint32_t i = 0; i < r->hole_count; i++) {
        const struct hole *h = &r->holes[i];
        if (h->keyspace == keyspace && pos >= h->first && pos < h->end && version > h->since) {
            return true;
        }
    }
    return false;
}

uint64_t repair_window_end(const struct repair *r, uint32_t keyspace, uint64_t pos) {
    for (uint32_t i = 0; i < r->hole_count; i++) {
        const struct hole *h = &r->holes[i];
        if (h->keyspace == keyspace && pos >= h->first && pos < h->end) {
            return h->until;
        }
    }
    return r->base_end;
}

static uint64_t range_begin(const struct snap *s, uint32_t range) {
    return (uint64_t)range << snap_facts(s)->range_bits << POS_HASH_BITS;
}

/* Where the block ends: at the next one of its kind, or with its range. */
static uint64_t block_end(const struct snap *s, uint32_t index) {
    const struct snap_block_info *b = snap_block_info(s, index);
    if (index + 1 < snap_facts(s)->block_count) {
        const struct snap_block_info *next = snap_block_info(s, index + 1);
        if (next->range == b->range && next->keyspace == b->keyspace && next->kind == b->kind) {
            return next->first_pos;
        }
    }
    uint64_t end = b->keyspace == KEYSPACE_SYSTEM ? 0 : range_begin(s, b->range + 1);
    return end == 0 ? UINT64_MAX : end; /* behind the last slot */
}

/* --- entries ----------------------------------------------------------------------------------------- */

/* The entry as it stands in the snapshot; a blob's reference is taken over. */
static enum dc_err put_entry(struct repair *r, struct keyspace *ks, const struct key *k,
                             const struct snap_entry *e, const struct value *v) {
    struct store *store = r->source->store;
    mut_reset(&r->mut, 0);
    enum dc_err err = mut_put(&r->mut, ks, k, store_find(ks, k), v, e->expiry_ms);
    if (err != DC_OK) {
        mut_rollback(&r->mut);
        return err;
    }
    r->mut.effects[0].version = e->version;
    mut_commit(&r->mut);
    struct entry *now = store_find(ks, k);
    now->freq = e->freq;
    store_set_idle_ms(store, now, snap_age_ms(e->age_code), r->source->now_ms);
    return DC_OK;
}

struct block_pass {
    struct repair *r;
    struct snap *snap;
    struct snap_block *block;
    uint32_t index;
    const char *name;
    struct hole *hole; /* that is being filled; NULL = the base itself is read */
};

static enum dc_err take_entry(struct block_pass *p, struct keyspace *ks,
                              const struct snap_entry *e) {
    struct repair *r = p->r;
    struct key k = store_key(r->source->store, e->key);
    struct value v = e->value;
    if (p->hole != NULL &&
        (k.pos.v < p->hole->first || k.pos.v >= p->hole->end || store_find(ks, &k) != NULL)) {
        return DC_OK;
    }
    if (v.kind == VALUE_BLOB) {
        enum dc_err err = snap_read_blob(p->block, p->snap, p->index, e, &v.blob);
        if (err == DC_ENOMEM) {
            return err;
        }
        if (err != DC_OK) {
            repair_note(r->report, "%s: a value of %" PRIu64 " bytes: %s", p->name, e->blob_len,
                        dc_fail_take(err));
            if (p->hole == NULL) {
                add_hole(r, &(struct hole){.keyspace = keyspace_id(ks),
                                           .first = k.pos.v,
                                           .end = k.pos.v + 1,
                                           .entries = 1});
            }
            return DC_OK;
        }
    }
    r->report->entries_older += p->hole != NULL;
    return put_entry(r, ks, &k, e, &v);
}

/* Errors other than of memory have been noted; 'bad' says whether there were any. */
static enum dc_err take_block(struct block_pass *p, bool *bad) {
    struct repair *r = p->r;
    const struct snap_block_info *b = snap_block_info(p->snap, p->index);
    struct keyspace *ks = store_numbered(r->source->store, b->keyspace);
    struct snap_entry e;
    enum dc_err err = ks == NULL ? dc_fail(DC_ECORRUPT, "%s: block %u is of database %u", p->name,
                                           p->index, b->keyspace)
                                 : snap_block_read(p->block, p->snap, p->index);
    *bad = err != DC_OK && err != DC_ENOMEM;
    if (*bad && b->keyspace == KEYSPACE_SYSTEM) {
        repair_note(r->report, "%s, %" PRIu32 " entries of the system keyspace", dc_fail_take(err),
                    b->entries);
        return DC_OK;
    }
    if (*bad) {
        repair_note(r->report, "%s, %" PRIu32 " entries of database %u, slots %u-%u",
                    dc_fail_take(err), b->entries, b->keyspace,
                    b->range << snap_facts(p->snap)->range_bits,
                    ((b->range + 1) << snap_facts(p->snap)->range_bits) - 1);
        return DC_OK;
    }
    while (err == DC_OK && snap_block_next(p->block, &e)) {
        err = take_entry(p, ks, &e);
    }
    return err;
}

static enum dc_err load_base(struct repair *r, struct block_pass *p) {
    enum dc_err err = DC_OK;
    for (uint32_t i = 0; i < snap_facts(p->snap)->block_count && err == DC_OK; i++) {
        const struct snap_block_info *b = snap_block_info(p->snap, i);
        bool bad = false;
        if (b->kind != SNAP_ENTRIES) {
            continue;
        }
        p->index = i;
        err = take_block(p, &bad);
        if (bad) {
            add_hole(r, &(struct hole){.keyspace = b->keyspace,
                                       .first = b->first_pos,
                                       .end = block_end(p->snap, i),
                                       .entries = b->entries});
        }
    }
    return err;
}

/* What an older snapshot has of a hole. */
static enum dc_err fill_hole(struct repair *r, struct block_pass *p, uint32_t hole) {
    struct hole *h = &r->holes[hole];
    enum dc_err err = DC_OK;
    bool all = true;
    p->hole = h;
    for (uint32_t i = 0; i < snap_facts(p->snap)->block_count && err == DC_OK; i++) {
        const struct snap_block_info *b = snap_block_info(p->snap, i);
        bool bad = false;
        if (b->kind != SNAP_ENTRIES || b->keyspace != h->keyspace || b->first_pos >= h->end ||
            block_end(p->snap, i) <= h->first) {
            continue;
        }
        p->index = i;
        err = take_block(p, &bad);
        all = all && !bad;
    }
    h->filled = all;
    h->since = snap_facts(p->snap)->start_lsn;
    h->until = h->until == 0 ? snap_facts(p->snap)->end_lsn : h->until;
    return err;
}

enum dc_err repair_load_snapshots(struct repair *r) {
    enum dc_err err = DC_OK;
    struct block_pass p = {.r = r, .block = snap_block_create()};
    if (p.block == NULL) {
        return DC_ENOMEM;
    }
    for (uint32_t i = r->base; i < r->snap_count && err == DC_OK; i++) {
        p.snap = r->snaps[i];
        p.name = r->names[i];
        if (i == r->base) {
            err = load_base(r, &p);
        }
        for (uint32_t h = 0; i > r->base && h < r->hole_count && err == DC_OK; h++) {
            err = r->holes[h].filled ? DC_OK : fill_hole(r, &p, h);
        }
    }
    for (uint32_t h = 0; h < r->hole_count; h++) {
        r->report->entries_lost += r->holes[h].filled ? 0 : r->holes[h].entries;
    }
    snap_block_destroy(p.block);
    return err;
}
