/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/store/load.h"

#include "server/store/store_priv.h"

struct entry *store_find(struct keyspace *ks, const struct key *k) {
    struct root *r = root_enter(ks, key_slot(k));
    return table_find(&r->table, pos_hash(k->pos), k->name);
}

void store_set_age(const struct store *s, struct entry *e, uint16_t age) {
    entry_set_stamp(
        e, (uint16_t)(atomic_load_explicit(&s->tick, memory_order_relaxed) - (uint32_t)age));
}

int64_t store_ticked_ms(const struct store *s) {
    uint32_t tick = atomic_load_explicit(&s->tick, memory_order_relaxed);
    return atomic_load_explicit(&s->tick_recent_ms[tick % TICK_RECENT], memory_order_relaxed);
}

/* --- building ---------------------------------------------------------------------------------------- */

struct store *load_scratch_create(const struct store *real) {
    struct store_opts opts = {.keyspaces = real->keyspace_count, .seed = real->seed};
    struct store *s = store_create(&opts);
    load_scratch_begin(s, real, 0);
    return s;
}

uint64_t load_scratch_len(const struct store *scratch) {
    return sizeof(*scratch) + SLOT_COUNT * sizeof(*scratch->locks) +
           ((uint64_t)scratch->keyspace_count + 1) * SLOT_COUNT * sizeof(struct root);
}

void load_scratch_begin(struct store *scratch, const struct store *real, uint64_t expected) {
    scratch->expected = (uint32_t)(expected < PAGE_WORDS_MAX ? expected : PAGE_WORDS_MAX);
    atomic_store_explicit(&scratch->tick, atomic_load_explicit(&real->tick, memory_order_relaxed),
                          memory_order_relaxed);
    /* Replay isn't what makes time pass. */
    atomic_store_explicit(&scratch->quantum, UINT32_MAX, memory_order_relaxed);
}

void load_run_init(struct load_run *run, struct store *scratch) {
    run->scratch = scratch;
    run->ks = NULL;
    run->slot = 0;
    run->count = 0;
}

void load_run_fini(struct load_run *run) {
    for (uint32_t i = 0; i < run->count; i++) {
        entry_destroy(run->entries[i]);
    }
    run->count = 0;
}

enum dc_err load_flush(struct load_run *run) {
    if (run->count == 0) {
        return DC_OK;
    }
    struct store *s = run->scratch;
    atomic_store_explicit(&run->ks->used, 1, memory_order_relaxed);
    struct root *r = root_enter(run->ks, run->slot);
    /* One page for all of them, if the slot is no larger. */
    enum dc_err err = table_reserve_page(&r->table, run->hashes[0], run->count, s->seed);
    uint32_t i = 0;
    for (; i < run->count && err == DC_OK; i++) {
        uint64_t hash = run->hashes[i];
        struct entry *e = run->entries[i];
        dc_debug_assert(table_find(&r->table, hash, entry_key(e)) == NULL);
        err = table_add(&r->table, hash, e, s->seed);
        if (err != DC_OK) {
            break;
        }
        root_note_expiry(r, hash, e, false);
    }
    memmove(run->entries, run->entries + i, (run->count - i) * sizeof(struct entry *));
    memmove(run->hashes, run->hashes + i, (run->count - i) * sizeof(uint64_t));
    run->count -= i;
    return err;
}

static void let_go(const struct entry_spec *spec) {
    if (spec->value.kind == VALUE_BLOB) {
        blob_release(spec->value.blob);
    }
}

/* The blob's reference is gone in every outcome. NULL = no memory. */
static struct entry *create_taking(const struct entry_spec *spec) {
    struct entry *e = entry_create(spec);
    if (e == NULL) {
        let_go(spec);
    }
    return e;
}

enum dc_err load_add(struct load_run *run, struct keyspace *ks, const struct key *k,
                     const struct load_spec *spec) {
    uint32_t slot = key_slot(k);
    if (dc_unlikely(run->count == LOAD_RUN_MAX || slot != run->slot || ks != run->ks)) {
        enum dc_err err = load_flush(run);
        if (err != DC_OK) {
            let_go(&spec->spec);
            return err;
        }
        run->slot = slot;
        run->ks = ks;
    }
    struct entry *e = create_taking(&spec->spec);
    if (e == NULL) {
        return DC_ENOMEM;
    }
    entry_set_version(e, spec->version);
    e->freq = spec->freq;
    store_set_age(run->scratch, e, spec->age);
    run->entries[run->count] = e;
    run->hashes[run->count++] = pos_hash(k->pos);
    return DC_OK;
}

enum dc_err load_put(const struct mut *m, struct keyspace *ks, const struct key *k,
                     const struct entry_spec *spec, uint64_t version) {
    struct root *r = root_enter(ks, key_slot(k));
    uint64_t hash = pos_hash(k->pos);
    struct entry *e = create_taking(spec);
    if (e == NULL) {
        return DC_ENOMEM;
    }
    enum dc_err err = DC_OK;
    if (atomic_load_explicit(&r->table.count, memory_order_relaxed) == 0) {
        err = table_reserve_page(&r->table, hash, m->store->expected, m->store->seed);
    }
    err = err != DC_OK ? err : table_add(&r->table, hash, e, m->store->seed);
    if (err != DC_OK) {
        entry_destroy(e);
        return err;
    }
    atomic_store_explicit(&ks->used, 1, memory_order_relaxed);
    root_note_expiry(r, hash, e, false);
    entry_set_version(e, version);
    access_count(m->thread, m->now_ms);
    store_touch(m->thread, e);
    return DC_OK;
}

/* --- moving ------------------------------------------------------------------------------------------ */

uint32_t load_count(struct store *s, uint32_t keyspace, uint32_t slot) {
    struct keyspace *ks = &s->keyspaces[keyspace];
    if (atomic_load_explicit(&ks->used, memory_order_relaxed) == 0) {
        return 0;
    }
    return atomic_load_explicit(&ks->roots[slot].table.count, memory_order_relaxed);
}

static void root_reset(struct root *r) {
    table_trim(&r->table);
    atomic_store_explicit(&r->volatiles, 0, memory_order_relaxed);
    r->removed = 0;
}

void load_publish(struct store *real, struct store *scratch, uint32_t keyspace, uint32_t slot) {
    struct keyspace *from_ks = &scratch->keyspaces[keyspace];
    struct keyspace *to_ks = &real->keyspaces[keyspace];
    if (atomic_load_explicit(&from_ks->used, memory_order_relaxed) == 0) {
        return;
    }
    struct root *from = root_enter(from_ks, slot);
    uint32_t count = atomic_load_explicit(&from->table.count, memory_order_relaxed);
    if (count > 0 || from->removed != 0) {
        struct root *to = root_enter(to_ks, slot);
        dc_assert(atomic_load_explicit(&to->table.count, memory_order_relaxed) == 0); /* I1 */
        table_trim(&to->table);
        root_note_removed(to, from->removed);
        if (count > 0) {
            atomic_store_explicit(&to_ks->used, 1, memory_order_relaxed);
            table_fit(&from->table);
            table_move(&to->table, &from->table);
            atomic_store_explicit(&to->volatiles,
                                  atomic_load_explicit(&from->volatiles, memory_order_relaxed),
                                  memory_order_relaxed);
        }
    }
    root_reset(from);
}

void load_discard(struct store *scratch, uint32_t keyspace, uint32_t slot) {
    struct keyspace *ks = store_numbered(scratch, keyspace);
    if (atomic_load_explicit(&ks->used, memory_order_relaxed) == 0) {
        return;
    }
    struct root *r = root_enter(ks, slot);
    table_drop(&r->table);
    root_reset(r);
}

static_assert(LOAD_END == HASH_END, "the end of a slot");

struct step {
    struct keyspace *ks;
    uint32_t seen;
    store_visit_fn visit;
    void *arg;
};

static void step_entry(void *arg, struct entry *e) {
    struct step *st = arg;
    st->seen++;
    st->visit(st->arg, st->ks, e);
}

uint64_t load_step(struct keyspace *ks, uint32_t slot, uint64_t from, uint32_t want,
                   store_visit_fn visit, void *arg) {
    struct step st = {ks, 0, visit, arg};
    if (atomic_load_explicit(&ks->used, memory_order_relaxed) == 0) {
        return HASH_END;
    }
    struct root *r = root_enter(ks, slot);
    while (from < HASH_END && st.seen < want) {
        from = table_step_line(&r->table, from, ks->store->seed, step_entry, &st);
    }
    return from;
}

/* --- flushes ----------------------------------------------------------------------------------------- */

void keyspace_set_flush_version(struct keyspace *ks, uint64_t version) {
    atomic_store_explicit(&ks->flush_version, version, memory_order_relaxed);
}

uint64_t keyspace_flush_version(const struct keyspace *ks) {
    uint64_t version = atomic_load_explicit(&ks->flush_version, memory_order_relaxed);
    return version == FLUSH_PENDING ? 0 : version;
}

struct drop_older {
    struct root *root;
    uint64_t version;
    uint32_t volatiles; /* that stay */
};

static bool is_older(void *arg, const struct entry *e) {
    struct drop_older *d = arg;
    if (entry_version(e) < d->version) {
        root_note_removed(d->root, entry_version(e));
        return true;
    }
    d->volatiles += entry_has_expiry(e);
    return false;
}

void keyspace_drop_older(struct keyspace *ks, uint64_t version) {
    if (version > keyspace_flush_version(ks)) {
        keyspace_set_flush_version(ks, version);
    }
    if (atomic_load_explicit(&ks->used, memory_order_relaxed) == 0) {
        return;
    }
    for (uint32_t slot = 0; slot < SLOT_COUNT; slot++) {
        struct root *r = root_enter(ks, slot);
        if (atomic_load_explicit(&r->table.count, memory_order_relaxed) == 0) {
            continue;
        }
        struct drop_older d = {.root = r, .version = version};
        table_drop_if(&r->table, is_older, &d);
        atomic_store_explicit(&r->volatiles, d.volatiles, memory_order_relaxed);
    }
}
