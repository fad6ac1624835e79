/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/store/store.h"

#include "server/base/crc.h"
#include "server/base/mem.h"
#include "server/base/time.h"
#include "server/store/load.h"
#include "server/store/store_priv.h"

#include <stddef.h>
#include <stdio.h>

static void keyspace_init(struct keyspace *ks, struct store *s, uint32_t id) {
    ks->id = id;
    ks->store = s;
    /* Resident only where touched: the pages of an unused database cost nothing. */
    ks->roots = mem_must_zalloc(SLOT_COUNT * sizeof(struct root));
    snprintf(ks->flush_name, sizeof(ks->flush_name), "flush:%u", id);
}

static void keyspace_fini(struct keyspace *ks) {
    for (uint32_t slot = 0; slot < SLOT_COUNT && ks->used != 0; slot++) {
        table_drop(&ks->roots[slot].table);
    }
    mem_free(ks->roots);
}

struct store *store_create(const struct store_opts *opts) {
    struct store *s = mem_must_aligned(64, sizeof(*s));
    memset(s, 0, sizeof(*s));
    s->keyspace_count = opts->keyspaces == 0 ? KEYSPACE_MAX : opts->keyspaces;
    dc_assert(s->keyspace_count <= KEYSPACE_MAX);
    if (opts->seed != NULL) {
        memcpy(s->seed, opts->seed, sizeof(s->seed));
    } else {
        crypto_random(s->seed, sizeof(s->seed));
    }
    s->locks = mem_must_zalloc(SLOT_COUNT * sizeof(*s->locks));
    for (uint32_t i = 0; i < s->keyspace_count; i++) {
        keyspace_init(&s->keyspaces[i], s, i);
    }
    keyspace_init(&s->system, s, KEYSPACE_SYSTEM);
    atomic_init(&s->quantum, 1);
    return s;
}

void store_destroy(struct store *s) {
    if (s == NULL) {
        return;
    }
    store_reclaim(s, UINT64_MAX);
    for (uint32_t i = 0; i < s->keyspace_count; i++) {
        keyspace_fini(&s->keyspaces[i]);
    }
    keyspace_fini(&s->system);
    mem_free(s->locks);
    mem_free_aligned(s, 64, sizeof(*s));
}

void store_thread_init(struct store_thread *t, struct store *s, struct metric_slot *metrics,
                       uint64_t seed) {
    memset(t, 0, sizeof(*t));
    t->store = s;
    t->metrics = metrics;
    rng_seed(&t->rng, seed);
    t->hand = rng_next(&t->rng);
}

struct keyspace *store_keyspace(struct store *s, uint32_t id) {
    return id < s->keyspace_count ? &s->keyspaces[id] : NULL;
}

struct keyspace *store_system(struct store *s) {
    return &s->system;
}

struct keyspace *store_numbered(struct store *s, uint32_t id) {
    return id == KEYSPACE_SYSTEM ? &s->system : store_keyspace(s, id);
}

uint32_t store_keyspace_count(const struct store *s) {
    return s->keyspace_count;
}

uint32_t keyspace_id(const struct keyspace *ks) {
    return ks->id;
}

/* The part of a key that decides its slot: what stands in the first {}, if anything does. */
static struct bytes hash_tag(struct bytes name) {
    const char *open = memchr(name.ptr, '{', name.len);
    if (dc_likely(open == NULL)) {
        return name;
    }
    const char *from = open + 1;
    const char *close = memchr(from, '}', (size_t)(name.ptr + name.len - from));
    return close == NULL || close == from ? name : bytes_of(from, (size_t)(close - from));
}

uint32_t store_slot(struct bytes name) {
    struct bytes tag = name.len == 0 ? name : hash_tag(name);
    return crc16(tag.ptr, tag.len) & (SLOT_COUNT - 1);
}

struct key store_key(const struct store *s, struct bytes name) {
    return store_key_in(s, store_slot(name), name);
}

struct key store_key_in(const struct store *s, uint32_t slot, struct bytes name) {
    uint64_t hash = crypto_hash(name, s->seed) & (HASH_END - 1);
    return (struct key){name, {(uint64_t)slot << HASH_BITS | hash}};
}

void store_lock(struct store *s, uint32_t slot) DC_NO_LOCK_CHECK {
    slot_lock_acquire(&s->locks[slot], slot);
}

void store_unlock(struct store *s, uint32_t slot) DC_NO_LOCK_CHECK {
    slot_lock_release(&s->locks[slot]);
}

void store_lock_all(struct store *s) {
    for (uint32_t slot = 0; slot < SLOT_COUNT; slot++) {
        store_lock(s, slot);
    }
}

void store_unlock_all(struct store *s) {
    for (uint32_t slot = 0; slot < SLOT_COUNT; slot++) {
        store_unlock(s, slot);
    }
}

void store_prefetch_root(const struct keyspace *ks, struct pos pos) {
    __builtin_prefetch(&ks->roots[pos_slot(pos)], 1);
}

void store_prefetch_line(const struct keyspace *ks, struct pos pos) {
    table_prefetch(&ks->roots[pos_slot(pos)].table, pos_hash(pos));
}

void store_prefetch_entry(struct store *s, const struct keyspace *ks, struct pos pos) {
    uint32_t slot = pos_slot(pos);
    store_lock(s, slot);
    table_prefetch_entry(&ks->roots[slot].table, pos_hash(pos));
    store_unlock(s, slot);
}

/* --- look-ups ---------------------------------------------------------------------------------------- */

struct entry *store_peek(struct store_thread *t, struct keyspace *ks, const struct key *k,
                         int64_t now_ms) {
    (void)t;
    struct root *r = root_enter(ks, key_slot(k));
    struct entry *e = table_find(&r->table, pos_hash(k->pos), k->name);
    return e == NULL || entry_is_expired(e, now_ms) ? NULL : e; /* I3 */
}

struct entry *store_get(struct store_thread *t, struct keyspace *ks, const struct key *k,
                        int64_t now_ms) {
    struct entry *e = store_peek(t, ks, k, now_ms);
    access_count(t, now_ms);
    if (e != NULL) {
        store_touch(t, e);
    }
    return e;
}

uint64_t store_removed_version(struct keyspace *ks, const struct key *k) {
    return root_enter(ks, key_slot(k))->removed;
}

/* --- the writer -------------------------------------------------------------------------------------- */

enum dc_err store_reserve(struct store *s, struct keyspace *ks, const struct key *k,
                          uint32_t extra) {
    atomic_store_explicit(&ks->used, 1, memory_order_relaxed);
    struct root *r = root_enter(ks, key_slot(k));
    return table_reserve(&r->table, pos_hash(k->pos), extra, s->seed);
}

static void count_volatile(struct root *r, int32_t change) {
    uint32_t n = atomic_load_explicit(&r->volatiles, memory_order_relaxed);
    atomic_store_explicit(&r->volatiles, n + (uint32_t)change, memory_order_relaxed);
}

/* Frees the entry but for its blob, which is returned (NULL when it has none). It outlives the lock: freeing
 * hundreds of megabytes isn't done under it. */
static struct blob *free_entry(struct entry *e) {
    struct value v = {.blob = NULL};
    if (dc_unlikely(entry_kind(e) == VALUE_BLOB)) {
        entry_value(e, &v);
    }
    mem_free_sized(e, entry_size(e));
    return v.blob;
}

static void discard(struct mut *m, struct entry *e) {
    struct blob *blob = free_entry(e);
    if (dc_unlikely(blob != NULL)) {
        dc_assert(m->garbage_count < m->garbage_cap);
        m->garbage[m->garbage_count++] = blob;
    }
}

void root_note_expiry(struct root *r, uint64_t hash, const struct entry *e, bool was_volatile) {
    bool is_volatile = entry_has_expiry(e);
    if (is_volatile) {
        table_due(&r->table, hash, due_of(entry_expiry(e)));
    }
    if (is_volatile != was_volatile) {
        count_volatile(r, is_volatile ? 1 : -1);
    }
}

/* Puts a prepared entry in the place of the old one, or inserts it. */
static void put_entry(struct mut *m, struct root *r, struct effect *e, struct table_place *at,
                      struct entry *old) {
    bool was_volatile = old != NULL && entry_has_expiry(old);
    if (old != NULL) {
        table_replace(at, e->entry);
        discard(m, old);
    } else {
        table_insert(&r->table, pos_hash(e->key.pos), e->entry, m->store->seed);
    }
    root_note_expiry(r, pos_hash(e->key.pos), e->entry, was_volatile);
}

static void apply_in_place(struct root *r, struct effect *e, struct entry *old) {
    bool was_volatile = entry_has_expiry(old);
    if (e->kind == MUT_PUT) {
        struct entry_spec spec = {entry_key(old), e->value, e->expiry_ms};
        entry_fill(old, &spec);
    } else if (e->kind == MUT_EXPIRE) {
        bool done = entry_set_expiry(old, e->expiry_ms);
        dc_assert(done);
    } else {
        entry_write(old, e->offset, e->bytes);
    }
    e->entry = old;
    root_note_expiry(r, pos_hash(e->key.pos), old, was_volatile);
}

static void apply_del(struct mut *m, struct root *r, struct table_place *at, struct entry *old) {
    if (old != NULL) {
        table_remove(at);
        if (entry_has_expiry(old)) {
            count_volatile(r, -1);
        }
        root_note_removed(r, entry_version(old));
        discard(m, old);
    }
}

void store_apply(struct mut *m, struct effect *e) {
    if (e->kind == MUT_FLUSH) {
        flush_apply(e->ks, e->version);
        return;
    }
    struct root *r = root_enter(e->ks, key_slot(&e->key));
    struct table_place at;
    struct entry *old = table_locate(&r->table, pos_hash(e->key.pos), e->key.name, &at);
    if (e->kind == MUT_DEL) {
        apply_del(m, r, &at, old);
        return;
    }
    if (e->in_place) {
        dc_assert(old != NULL);
        apply_in_place(r, e, old);
    } else {
        put_entry(m, r, e, &at, old);
    }
    entry_set_version(e->entry, e->version);
    if (e->kind != MUT_EXPIRE) {
        access_count(m->thread, m->now_ms);
        store_touch(m->thread, e->entry);
    }
}

void store_stamp(struct mut *m, const struct effect *e) {
    (void)m;
    if (e->kind == MUT_FLUSH) {
        flush_stamp(e->ks, e->version);
        return;
    }
    struct root *r = root_enter(e->ks, key_slot(&e->key));
    if (e->kind == MUT_DEL) {
        return; /* what it removed was stamped, or noted, before */
    }
    /* A later effect of the frame may have replaced or removed the entry: it is stamped again, or gone. */
    struct entry *now = table_find(&r->table, pos_hash(e->key.pos), e->key.name);
    if (now != NULL) {
        entry_set_version(now, e->version);
    } else {
        root_note_removed(r, e->version);
    }
}

struct blob *store_reap(struct store_thread *t, struct root *r, uint64_t hash, struct bytes key) {
    struct table_place at;
    struct entry *e = table_locate(&r->table, hash, key, &at);
    dc_assert(e != NULL);
    root_note_removed(r, entry_version(e));
    table_remove(&at);
    count_volatile(r, -1);
    metric_add(t->metrics, METRIC_EXPIRED, 1);
    return free_entry(e);
}

/* --- bytes at an offset ------------------------------------------------------------------------------ */

/* A new blob of 'len' bytes with the content of 'old' and zeros behind it. */
static struct blob *blob_extended(struct bytes old, size_t len) {
    size_t cap = len + len / 8 < VALUE_LEN_MAX ? len + len / 8 : len;
    struct blob *b = blob_create(len, cap);
    if (b != NULL) {
        size_t keep = old.len < len ? old.len : len;
        if (keep > 0) {
            memcpy(b->data, old.ptr, keep);
        }
        memset(b->data + keep, 0, len - keep);
    }
    return b;
}

static enum dc_err prepare_new_value(struct effect *e, const struct entry *old,
                                     struct bytes content, size_t len, uint64_t offset,
                                     struct bytes bytes) {
    struct entry_spec spec = {.key = e->key.name,
                              .expiry_ms = old == NULL ? EXPIRY_NONE : entry_expiry(old)};
    if (len >= BLOB_MIN_LEN) {
        spec.value = (struct value){.kind = VALUE_BLOB, .blob = blob_extended(content, len)};
        if (spec.value.blob == NULL) {
            return DC_ENOMEM;
        }
    } else {
        spec.value = value_raw(bytes_of(NULL, len));
    }
    e->entry = entry_create(&spec);
    if (e->entry == NULL) {
        if (spec.value.kind == VALUE_BLOB) {
            blob_release(spec.value.blob);
        }
        return DC_ENOMEM;
    }
    if (spec.value.kind == VALUE_RAW) {
        char *to = entry_value_ptr(e->entry);
        if (content.len > 0) {
            memcpy(to, content.ptr, content.len);
        }
        memset(to + content.len, 0, len - content.len);
    }
    if (old != NULL) {
        e->entry->freq = old->freq;
    }
    entry_write(e->entry, offset, bytes);
    return DC_OK;
}

enum dc_err store_prepare_write(struct mut *m, struct effect *e, const struct entry *old,
                                uint64_t offset, struct bytes bytes) {
    struct value v = {.kind = VALUE_RAW, .str = {NULL, 0}};
    char scratch[NUM_I64_TEXT_MAX];
    if (old == NULL) {
        enum dc_err err = mut_reserve_insert(m, e->ks, &e->key);
        if (err != DC_OK) {
            return err;
        }
    } else {
        entry_value(old, &v);
    }
    struct bytes content = value_bytes(&v, scratch);
    size_t end = (size_t)offset + bytes.len;
    size_t len = end > content.len ? end : content.len;
    dc_assert(len <= VALUE_LEN_MAX);
    if (old != NULL && m->count == m->applied && entry_can_write(old, len)) {
        e->in_place = true;
        return DC_OK;
    }
    return prepare_new_value(e, old, content, len, offset, bytes);
}

/* --- counts ------------------------------------------------------------------------------------------ */

static uint64_t sum_roots(const struct keyspace *ks, bool volatiles) {
    uint64_t sum = 0;
    if (atomic_load_explicit(&ks->used, memory_order_relaxed) == 0) {
        return 0;
    }
    for (uint32_t slot = 0; slot < SLOT_COUNT; slot++) {
        const struct root *r = &ks->roots[slot];
        if (root_is_alive(ks, r)) {
            sum += atomic_load_explicit(volatiles ? &r->volatiles : &r->table.count,
                                        memory_order_relaxed);
        }
    }
    return sum;
}

uint64_t keyspace_count(const struct keyspace *ks) {
    return sum_roots(ks, false);
}

uint64_t keyspace_volatile_count(const struct keyspace *ks) {
    return sum_roots(ks, true);
}

uint64_t store_count(const struct store *s) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->keyspace_count; i++) {
        sum += keyspace_count(&s->keyspaces[i]);
    }
    return sum;
}

int64_t keyspace_mean_ttl_ms(const struct keyspace *ks) {
    return atomic_load_explicit(&ks->mean_ttl_ms, memory_order_relaxed);
}

uint64_t store_overhead(struct store *s) {
    uint64_t sum = sizeof(*s) + SLOT_COUNT * sizeof(*s->locks);
    for (uint32_t i = 0; i < s->keyspace_count; i++) {
        struct keyspace *ks = &s->keyspaces[i];
        if (atomic_load_explicit(&ks->used, memory_order_relaxed) == 0) {
            continue;
        }
        sum += SLOT_COUNT * sizeof(struct root);
        for (uint32_t slot = 0; slot < SLOT_COUNT; slot++) {
            store_lock(s, slot);
            sum += table_overhead(&ks->roots[slot].table);
            store_unlock(s, slot);
        }
    }
    return sum;
}
