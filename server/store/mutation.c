/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/store/mutation.h"

#include "server/base/assert.h"
#include "server/base/mem.h"
#include "server/store/store.h"
#include "server/store/store_priv.h"

/* Up to so many pending effects are gone through to find those of a slot; more are counted. */
enum { PENDING_FEW = 32 };

void mut_init(struct mut *m, struct store *s, struct store_thread *t) {
    memset(m, 0, sizeof(*m));
    m->store = s;
    m->thread = t;
    m->effects = m->inline_effects;
    m->cap = MUT_INLINE_EFFECTS;
    m->garbage = m->inline_garbage;
    m->garbage_cap = MUT_INLINE_GARBAGE;
}

static void release_heap(struct mut *m) {
    if (m->effects != m->inline_effects) {
        mem_free(m->effects);
        m->effects = m->inline_effects;
        m->cap = MUT_INLINE_EFFECTS;
    }
    if (m->garbage != m->inline_garbage) {
        mem_free(m->garbage);
        m->garbage = m->inline_garbage;
        m->garbage_cap = MUT_INLINE_GARBAGE;
    }
}

/* Nothing is pending any more. */
static void pending_clear(struct mut *m) {
    if (dc_unlikely(m->slot_counts != NULL)) {
        mem_free(m->slot_counts);
        m->slot_counts = NULL;
    }
}

void mut_reset(struct mut *m, int64_t now_ms) {
    pending_clear(m);
    for (uint32_t i = 0; i < m->garbage_count; i++) {
        blob_release(m->garbage[i]);
    }
    m->garbage_count = 0;
    m->count = 0;
    m->applied = 0;
    m->frame.effects = 0;
    m->now_ms = now_ms;
    if (dc_unlikely(m->effects != m->inline_effects || m->garbage != m->inline_garbage)) {
        release_heap(m);
    }
}

void mut_fini(struct mut *m) {
    mut_rollback(m);
    mut_reset(m, 0);
}

/* Blobs that 'extra' more effects may leave: each one that is put and one that is replaced; what is pending has left the first
 * already. */
static uint32_t garbage_need(const struct mut *m, uint32_t extra) {
    return m->garbage_count + (m->count - m->applied) + 2 * extra;
}

enum dc_err mut_reserve(struct mut *m, uint32_t extra) {
    uint32_t need = m->count + extra;
    uint32_t need_garbage = garbage_need(m, extra);
    if (need > m->cap) {
        uint32_t cap = need > m->cap * 2 ? need : m->cap * 2;
        struct effect *bigger = mem_alloc(cap * sizeof(*bigger));
        if (bigger == NULL) {
            return DC_ENOMEM;
        }
        memcpy(bigger, m->effects, m->count * sizeof(*bigger));
        if (m->effects != m->inline_effects) {
            mem_free(m->effects);
        }
        m->effects = bigger;
        m->cap = cap;
    }
    if (need_garbage > m->garbage_cap) {
        uint32_t cap = need_garbage > m->garbage_cap * 2 ? need_garbage : m->garbage_cap * 2;
        struct blob **bigger = mem_alloc(cap * sizeof(struct blob *));
        if (bigger == NULL) {
            return DC_ENOMEM;
        }
        memcpy(bigger, m->garbage, m->garbage_count * sizeof(struct blob *));
        if (m->garbage != m->inline_garbage) {
            mem_free(m->garbage);
        }
        m->garbage = bigger;
        m->garbage_cap = cap;
    }
    return DC_OK;
}

static struct effect *add_effect(struct mut *m, enum mut_kind kind, struct keyspace *ks,
                                 const struct key *k) {
    if (dc_unlikely(m->count == m->cap || garbage_need(m, 1) > m->garbage_cap) &&
        mut_reserve(m, 1) != DC_OK) {
        return NULL;
    }
    struct effect *e = &m->effects[m->count];
    e->kind = kind;
    e->in_place = false;
    e->ks = ks;
    e->entry = NULL;
    e->expiry_ms = EXPIRY_NONE;
    e->prev = 0;
    e->version = 0;
    if (k != NULL) {
        e->key = *k;
    } else {
        e->key = (struct key){{NULL, 0}, {0}};
    }
    return e;
}

static bool is_insertion(const struct effect *e) {
    return e->entry != NULL && e->prev == 0 && e->kind != MUT_EXPIRE;
}

/* Counts of a mut that has many pending effects, this far. */
static bool pending_count_all(struct mut *m) {
    m->slot_counts = mem_alloc(SLOT_COUNT * sizeof(*m->slot_counts));
    if (m->slot_counts == NULL) {
        return false;
    }
    memset(m->slot_counts, 0, SLOT_COUNT * sizeof(*m->slot_counts));
    for (uint32_t i = m->applied; i < m->count; i++) {
        uint16_t *n = &m->slot_counts[key_slot(&m->effects[i].key)];
        *n = (uint16_t)(*n + (is_insertion(&m->effects[i]) && *n < UINT16_MAX));
    }
    return true;
}

enum dc_err mut_reserve_insert(struct mut *m, struct keyspace *ks, const struct key *k) {
    uint32_t slot = key_slot(k);
    uint32_t pending = 1;
    if (dc_likely(m->count - m->applied < PENDING_FEW)) {
        for (uint32_t i = m->applied; i < m->count; i++) {
            pending += key_slot(&m->effects[i].key) == slot && is_insertion(&m->effects[i]);
        }
        return store_reserve(m->store, ks, k, pending);
    }
    if (m->slot_counts == NULL && !pending_count_all(m)) {
        return DC_ENOMEM;
    }
    uint16_t *n = &m->slot_counts[slot];
    *n = (uint16_t)(*n + (*n < UINT16_MAX));
    return store_reserve(m->store, ks, k, *n);
}

/* Whether the bytes of a value lie in the entry that it would be written over. */
static inline bool is_inside(const struct entry *e, const struct value *v) {
    uintptr_t at = (uintptr_t)v->str.ptr;
    return (v->kind == VALUE_STR || v->kind == VALUE_RAW) && v->str.len > 0 && at >= (uintptr_t)e &&
           at < (uintptr_t)e + entry_size(e);
}

static enum dc_err prepare_entry(struct mut *m, struct effect *e, const struct entry *old,
                                 const struct entry_spec *spec) {
    if (old == NULL) {
        enum dc_err err = mut_reserve_insert(m, e->ks, &e->key);
        if (err != DC_OK) {
            return err;
        }
    } else if (m->count == m->applied && spec->value.kind != VALUE_BLOB &&
               entry_kind(old) != VALUE_BLOB &&
               mem_good_size(entry_spec_size(spec)) == mem_good_size(entry_size(old))) {
        /* Only for the first effect of a command: a later one might find another entry. */
        dc_debug_assert(!is_inside(old, &spec->value));
        e->in_place = true;
        return DC_OK;
    }
    e->entry = entry_create(spec);
    if (e->entry == NULL) {
        return DC_ENOMEM;
    }
    if (old != NULL) {
        e->entry->freq = old->freq;
    }
    return DC_OK;
}

enum dc_err mut_put(struct mut *m, struct keyspace *ks, const struct key *k,
                    const struct entry *old, const struct value *v, int64_t expiry_ms) {
    struct effect *e = add_effect(m, MUT_PUT, ks, k);
    struct entry_spec spec = {.key = k->name, .value = *v, .expiry_ms = expiry_ms};
    enum dc_err err = e == NULL ? DC_ENOMEM : prepare_entry(m, e, old, &spec);
    if (err != DC_OK) {
        if (v->kind == VALUE_BLOB) {
            blob_release(v->blob);
        }
        return err;
    }
    if (v->kind == VALUE_BLOB) {
        /* The log reads it at the commit, when a later effect of the frame may have thrown the entry away. */
        dc_assert(m->garbage_count < m->garbage_cap);
        m->garbage[m->garbage_count++] = blob_acquire(v->blob);
    }
    e->value = *v;
    e->expiry_ms = expiry_ms;
    m->count++;
    return DC_OK;
}

enum dc_err mut_del(struct mut *m, struct keyspace *ks, const struct key *k) {
    struct effect *e = add_effect(m, MUT_DEL, ks, k);
    if (e == NULL) {
        return DC_ENOMEM;
    }
    m->count++;
    return DC_OK;
}

enum dc_err mut_flush(struct mut *m, struct keyspace *ks) {
    struct effect *e = add_effect(m, MUT_FLUSH, ks, NULL);
    if (e == NULL) {
        return DC_ENOMEM;
    }
    m->count++;
    return DC_OK;
}

/* A second entry of the same content. A blob is shared. */
static struct entry *reshape(const struct entry *old, int64_t expiry_ms) {
    struct entry_spec spec = {.key = entry_key(old), .expiry_ms = expiry_ms};
    entry_value(old, &spec.value);
    if (spec.value.kind == VALUE_BLOB) {
        blob_acquire(spec.value.blob);
    }
    struct entry *e = entry_create(&spec);
    if (e == NULL) {
        if (spec.value.kind == VALUE_BLOB) {
            blob_release(spec.value.blob);
        }
        return NULL;
    }
    e->freq = old->freq;
    memcpy(e->stamp, old->stamp, sizeof(e->stamp));
    return e;
}

/* What a PATCH says that it was made for. */
static uint64_t prev_of(const struct entry *old) {
    if (old == NULL) {
        return 0;
    }
    return entry_version(old) != 0 ? entry_version(old) : PREV_FRAME;
}

enum dc_err mut_expire(struct mut *m, struct keyspace *ks, const struct key *k,
                       const struct entry *old, int64_t expiry_ms) {
    struct effect *e = add_effect(m, MUT_EXPIRE, ks, k);
    if (e == NULL) {
        return DC_ENOMEM;
    }
    int64_t since = expiry_ms - EXPIRY_BASE_MS;
    bool five = expiry_ms >= EXPIRY_BASE_MS && since < (int64_t)1 << 40;
    uint32_t flags = entry_flags(old);
    if (expiry_ms != EXPIRY_NONE && m->count == m->applied &&
        ((flags & ENTRY_EXPIRY8) || ((flags & ENTRY_EXPIRY5) && five))) {
        e->in_place = true;
    } else {
        e->entry = reshape(old, expiry_ms);
        if (e->entry == NULL) {
            return DC_ENOMEM;
        }
    }
    e->expiry_ms = expiry_ms;
    e->prev = prev_of(old);
    m->count++;
    return DC_OK;
}

enum dc_err mut_write(struct mut *m, struct keyspace *ks, const struct key *k,
                      const struct entry *old, uint64_t offset, struct bytes bytes) {
    struct effect *e = add_effect(m, MUT_WRITE, ks, k);
    if (e == NULL) {
        return DC_ENOMEM;
    }
    enum dc_err err = store_prepare_write(m, e, old, offset, bytes);
    if (err != DC_OK) {
        return err;
    }
    e->offset = offset;
    e->bytes = bytes;
    e->prev = prev_of(old);
    m->count++;
    return DC_OK;
}

void mut_rollback(struct mut *m) {
    for (uint32_t i = m->applied; i < m->count; i++) {
        if (m->effects[i].entry != NULL) {
            entry_destroy(m->effects[i].entry);
        }
    }
    m->count = m->applied;
    if (m->frame.effects > m->count) {
        m->frame.effects = 0; /* to be measured again */
    }
    pending_clear(m);
}

void mut_apply(struct mut *m) {
    for (; m->applied < m->count; m->applied++) {
        store_apply(m, &m->effects[m->applied]);
    }
    pending_clear(m);
}

void mut_commit(struct mut *m) {
    for (uint32_t i = 0; i < m->applied; i++) {
        store_stamp(m, &m->effects[i]);
    }
    mut_apply(m);
}

uint64_t mut_version(const struct mut *m) {
    return m->count == 0 ? 0 : m->effects[m->count - 1].version;
}
