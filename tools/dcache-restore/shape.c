/* SPDX-License-Identifier: BSD-3-Clause */
#include "tools/dcache-restore/shape.h"

#include "server/base/glob.h"
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "server/store/load.h"

/* A shift of less isn't worth a word. */
enum { SHIFT_LEAST_MS = 1000 };

/* --- walking ----------------------------------------------------------------------------------------- */

struct gathered {
    struct entry **entries;
    size_t count, cap;
};

static void gather(void *arg, struct keyspace *ks, struct entry *e) {
    struct gathered *g = arg;
    (void)ks;
    if (g->count == g->cap) {
        g->cap = g->cap == 0 ? 64 : 2 * g->cap;
        g->entries = mem_must_realloc(g->entries, g->cap * sizeof(struct entry *));
    }
    g->entries[g->count++] = e;
}

/* One slot: first all entries are gathered, then each is visited, since a visit may change the table. */
static enum dc_err each_of_slot(struct source *s, struct keyspace *ks, uint32_t slot,
                                struct gathered *g, shape_fn each, void *arg) {
    enum dc_err err = DC_OK;
    g->count = 0;
    store_lock(s->store, slot);
    (void)load_step(ks, slot, 0, UINT32_MAX, gather, g);
    for (size_t i = 0; i < g->count && err == DC_OK; i++) {
        err = each(arg, ks, g->entries[i]);
    }
    store_unlock(s->store, slot);
    return err;
}

enum dc_err shape_each(struct source *s, shape_fn each, void *arg) {
    struct gathered g = {.entries = NULL};
    enum dc_err err = DC_OK;
    uint32_t databases = store_keyspace_count(s->store);
    for (uint32_t id = 0; id <= databases; id++) {
        struct keyspace *ks = store_numbered(s->store, id < databases ? id : KEYSPACE_SYSTEM);
        for (uint32_t slot = 0; slot < SLOT_COUNT && err == DC_OK; slot++) {
            err = each_of_slot(s, ks, slot, &g, each, arg);
        }
    }
    mem_free(g.entries);
    return err;
}

/* --- shaping ----------------------------------------------------------------------------------------- */

void shape_plan(struct shape *sh, const struct source *s, const struct options *o) {
    int64_t age_ms = s->now_ms - s->image_ms;
    bool is_present = s->in_use && !source_has_more(s);
    bool wanted = o->shift == SHIFT_YES || (o->shift == SHIFT_AUTO && !is_present && !o->repair);
    *sh = (struct shape){.shifts = wanted && age_ms >= SHIFT_LEAST_MS};
    sh->shift_ms = sh->shifts ? age_ms : 0;
}

struct shaping {
    struct shape *sh;
    struct source *s;
    const struct options *o;
    struct mut mut;
};

static enum dc_err drop(struct shaping *x, struct keyspace *ks, const struct key *k) {
    mut_reset(&x->mut, 0);
    enum dc_err err = mut_del(&x->mut, ks, k);
    if (err == DC_OK) {
        mut_commit(&x->mut);
    }
    return err;
}

static enum dc_err move_expiry(struct shaping *x, struct keyspace *ks, const struct key *k,
                               struct entry *e) {
    int64_t expiry_ms;
    if (__builtin_add_overflow(entry_expiry(e), x->sh->shift_ms, &expiry_ms)) {
        expiry_ms = INT64_MAX;
    }
    x->sh->moved++;
    x->sh->would_expire += entry_is_expired(e, x->s->now_ms);
    uint64_t version = entry_version(e);
    mut_reset(&x->mut, 0);
    enum dc_err err = mut_expire(&x->mut, ks, k, e, expiry_ms);
    if (err == DC_OK) {
        x->mut.effects[0].version = version; /* the change is ours, not the data's */
        mut_commit(&x->mut);
    }
    return err;
}

static bool matches(const struct options *o, struct bytes name) {
    return o->match.ptr == NULL || glob_match(o->match, name, false);
}

/* The system keyspace belongs to the whole. */
static bool system_is_wanted(const struct options *o) {
    return o->keyspace == KEYSPACE_SYSTEM ||
           (o->keyspace < 0 && o->match.ptr == NULL && o->push == NULL);
}

static enum dc_err shape_entry(void *arg, struct keyspace *ks, struct entry *e) {
    struct shaping *x = arg;
    struct shape *sh = x->sh;
    const struct options *o = x->o;
    struct key k = store_key(x->s->store, entry_key(e));
    if (keyspace_id(ks) == KEYSPACE_SYSTEM) {
        bool stays = system_is_wanted(o) && matches(o, k.name);
        sh->system += stays;
        return stays ? DC_OK : drop(x, ks, &k);
    }
    bool wanted =
        (o->keyspace < 0 || keyspace_id(ks) == (uint32_t)o->keyspace) && matches(o, k.name);
    if (!wanted) {
        sh->left_out++;
        return drop(x, ks, &k);
    }
    if (entry_is_expired(e, sh->shifts ? x->s->image_ms : x->s->now_ms)) {
        sh->expired++;
        return drop(x, ks, &k);
    }
    struct value v;
    entry_value(e, &v);
    sh->entries++;
    sh->bytes += k.name.len + value_len(&v);
    return sh->shifts && entry_has_expiry(e) ? move_expiry(x, ks, &k, e) : DC_OK;
}

enum dc_err shape_apply(struct shape *sh, struct source *s, const struct options *o) {
    struct shaping x = {.sh = sh, .s = s, .o = o};
    mut_init(&x.mut, s->store, &s->thread);
    enum dc_err err = shape_each(s, shape_entry, &x);
    mut_reset(&x.mut, 0);
    mut_fini(&x.mut);
    return err;
}
