/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/engine.h"

#include "server/base/mem.h"
#include "server/store/system.h"

#include <stdlib.h>

void engine_init(struct engine *e, const uint8_t *seed) {
    static const uint8_t zeros[HASH_SEED_LEN];
    struct store_opts opts = {.seed = seed != NULL ? seed : zeros};
    crypto_init();
    e->store = store_create(&opts);
    e->commit = NULL;
    e->commit_arg = NULL;
    sequencer_init(&e->sequencer, 1000);
    atomic_init(&e->now_ms, ENGINE_NOW_MS);
    store_tick(e->store, ENGINE_NOW_MS);
}

void engine_fini(struct engine *e) {
    store_destroy(e->store);
}

void hand_init(struct hand *h, struct engine *e, uint64_t seed) {
    memset(&h->metrics, 0, sizeof(h->metrics));
    h->engine = e;
    h->in_frame = false;
    store_thread_init(&h->thread, e->store, &h->metrics, seed);
    mut_init(&h->mut, e->store, &h->thread);
    arena_init(&h->arena, 64);
}

void hand_fini(struct hand *h) {
    mut_fini(&h->mut);
    arena_fini(&h->arena);
}

static void commit(struct hand *h) {
    struct engine *e = h->engine;
    if (e->commit == NULL) {
        sequencer_commit(&e->sequencer, &h->mut);
    } else if (h->mut.count > 0) {
        e->commit(e->commit_arg, &h->mut);
    }
}

/* --- one key ----------------------------------------------------------------------------------------- */

struct key_in {
    struct keyspace *ks;
    struct key key;
    struct entry *old;
};

/* What a frame keeps is kept already. */
static void lock(struct hand *h, uint32_t slot) {
    if (!h->in_frame) {
        store_lock(h->engine->store, slot);
    }
}

static void unlock(struct hand *h, uint32_t slot) {
    if (!h->in_frame) {
        store_unlock(h->engine->store, slot);
    }
}

static void begin_command(struct hand *h) {
    if (!h->in_frame) {
        mut_reset(&h->mut, engine_now(h->engine));
    }
}

/* Still under the locks. */
static void end_command(struct hand *h, enum dc_err err) {
    if (err != DC_OK) {
        mut_rollback(&h->mut);
    } else if (h->in_frame) {
        mut_apply(&h->mut);
    } else {
        commit(h);
    }
}

/* After the locks. */
static void clean_up(struct hand *h) {
    if (!h->in_frame) {
        mut_reset(&h->mut, h->mut.now_ms);
    }
}

static struct key_in begin(struct hand *h, uint32_t db, struct bytes name) {
    struct key_in in = {.ks = store_keyspace(h->engine->store, db),
                        .key = store_key(h->engine->store, name)};
    begin_command(h);
    lock(h, key_slot(&in.key));
    in.old = store_peek(&h->thread, in.ks, &in.key, h->mut.now_ms);
    return in;
}

static enum dc_err end(struct hand *h, const struct key_in *in, enum dc_err err) {
    end_command(h, err);
    unlock(h, key_slot(&in->key));
    clean_up(h);
    return err;
}

static enum dc_err value_from(struct bytes text, struct value *out) {
    if (text.len < BLOB_MIN_LEN) {
        *out = value_of(text);
        return DC_OK;
    }
    *out = (struct value){.kind = VALUE_BLOB, .blob = blob_from(text)};
    return out->blob == NULL ? DC_ENOMEM : DC_OK;
}

enum dc_err hand_set(struct hand *h, uint32_t db, struct bytes name, struct bytes text,
                     int64_t expiry_ms) {
    struct value v;
    enum dc_err err = value_from(text, &v);
    if (err != DC_OK) {
        return err;
    }
    struct key_in in = begin(h, db, name);
    return end(h, &in, mut_put(&h->mut, in.ks, &in.key, in.old, &v, expiry_ms));
}

enum dc_err hand_del(struct hand *h, uint32_t db, struct bytes name, bool *existed) {
    struct key_in in = begin(h, db, name);
    *existed = in.old != NULL;
    return end(h, &in, in.old == NULL ? DC_OK : mut_del(&h->mut, in.ks, &in.key));
}

enum dc_err hand_expire(struct hand *h, uint32_t db, struct bytes name, int64_t expiry_ms,
                        bool *existed) {
    struct key_in in = begin(h, db, name);
    *existed = in.old != NULL;
    return end(h, &in,
               in.old == NULL ? DC_OK : mut_expire(&h->mut, in.ks, &in.key, in.old, expiry_ms));
}

enum dc_err hand_incr(struct hand *h, uint32_t db, struct bytes name, int64_t by, int64_t *sum) {
    struct key_in in = begin(h, db, name);
    struct value v = value_int(0);
    if (in.old != NULL) {
        entry_value(in.old, &v);
    }
    if (v.kind != VALUE_INT) {
        return end(h, &in, DC_ENOTINT);
    }
    v.num += by;
    *sum = v.num;
    int64_t expiry_ms = in.old == NULL ? EXPIRY_NONE : entry_expiry(in.old);
    return end(h, &in, mut_put(&h->mut, in.ks, &in.key, in.old, &v, expiry_ms));
}

enum dc_err hand_write(struct hand *h, uint32_t db, struct bytes name, uint64_t offset,
                       struct bytes bytes) {
    struct key_in in = begin(h, db, name);
    return end(h, &in, mut_write(&h->mut, in.ks, &in.key, in.old, offset, bytes));
}

enum dc_err hand_append(struct hand *h, uint32_t db, struct bytes name, struct bytes bytes) {
    struct key_in in = begin(h, db, name);
    struct value v = value_raw(bytes_of(NULL, 0));
    if (in.old != NULL) {
        entry_value(in.old, &v);
    }
    return end(h, &in, mut_write(&h->mut, in.ks, &in.key, in.old, value_len(&v), bytes));
}

static struct seen look(struct hand *h, uint32_t db, struct bytes name, struct buf *text,
                        bool access) {
    struct keyspace *ks = store_keyspace(h->engine->store, db);
    struct key k = store_key(h->engine->store, name);
    int64_t now_ms = engine_now(h->engine);
    struct seen seen = {.alive = false};
    lock(h, key_slot(&k));
    const struct entry *e =
        access ? store_get(&h->thread, ks, &k, now_ms) : store_peek(&h->thread, ks, &k, now_ms);
    if (e != NULL) {
        seen = (struct seen){true, entry_version(e), entry_expiry(e), entry_kind(e)};
        if (text != NULL) {
            struct value v;
            char scratch[NUM_I64_TEXT_MAX];
            entry_value(e, &v);
            buf_append_bytes(text, value_bytes(&v, scratch));
        }
    }
    unlock(h, key_slot(&k));
    return seen;
}

struct seen hand_get(struct hand *h, uint32_t db, struct bytes name, struct buf *text) {
    return look(h, db, name, text, true);
}

struct seen hand_peek(struct hand *h, uint32_t db, struct bytes name, struct buf *text) {
    return look(h, db, name, text, false);
}

/* --- many keys --------------------------------------------------------------------------------------- */

static int compare_slots(const void *a, const void *b) {
    return (int)*(const uint32_t *)a - (int)*(const uint32_t *)b;
}

/* Ascending, each once; returns how many there are. */
static uint32_t lock_slots(struct hand *h, uint32_t *slots, uint32_t count) {
    uint32_t kept = 0;
    qsort(slots, count, sizeof(*slots), compare_slots);
    for (uint32_t i = 0; i < count; i++) {
        if (kept == 0 || slots[kept - 1] != slots[i]) {
            slots[kept++] = slots[i];
            lock(h, slots[i]);
        }
    }
    return kept;
}

static enum dc_err end_many(struct hand *h, const uint32_t *slots, uint32_t count,
                            enum dc_err err) {
    end_command(h, err);
    for (uint32_t i = 0; i < count; i++) {
        unlock(h, slots[i]);
    }
    clean_up(h);
    return err;
}

enum dc_err hand_rename(struct hand *h, uint32_t db, struct bytes from, struct bytes to,
                        bool *existed) {
    struct store *s = h->engine->store;
    struct keyspace *ks = store_keyspace(s, db);
    struct key keys[2] = {store_key(s, from), store_key(s, to)};
    uint32_t slots[2] = {key_slot(&keys[0]), key_slot(&keys[1])};
    uint32_t slot_count = lock_slots(h, slots, 2);
    enum dc_err err = DC_OK;
    begin_command(h);
    struct entry *src = store_peek(&h->thread, ks, &keys[0], h->mut.now_ms);
    struct entry *dst = store_peek(&h->thread, ks, &keys[1], h->mut.now_ms);
    *existed = src != NULL;
    if (src != NULL && src != dst) {
        struct value v;
        entry_value(src, &v);
        if (v.kind == VALUE_BLOB) {
            blob_acquire(v.blob);
        } else if (v.kind != VALUE_INT && h->in_frame && v.str.len > 0) {
            v.str.ptr = memcpy(arena_alloc(&h->arena, v.str.len), v.str.ptr, v.str.len);
        }
        err = mut_put(&h->mut, ks, &keys[1], dst, &v, entry_expiry(src));
        err = err != DC_OK ? err : mut_del(&h->mut, ks, &keys[0]);
    }
    return end_many(h, slots, slot_count, err);
}

enum dc_err hand_set_many(struct hand *h, uint32_t db, const struct bytes *names,
                          const struct bytes *texts, uint32_t count) {
    struct store *s = h->engine->store;
    struct keyspace *ks = store_keyspace(s, db);
    struct key *keys = mem_must_alloc(count * sizeof(*keys));
    uint32_t *slots = mem_must_alloc(count * sizeof(*slots));
    enum dc_err err = DC_OK;
    for (uint32_t i = 0; i < count; i++) {
        keys[i] = store_key(s, names[i]);
        slots[i] = key_slot(&keys[i]);
    }
    uint32_t slot_count = lock_slots(h, slots, count);
    begin_command(h);
    for (uint32_t i = 0; i < count && err == DC_OK; i++) {
        struct value v;
        err = value_from(texts[i], &v);
        if (err == DC_OK) {
            struct entry *old = store_peek(&h->thread, ks, &keys[i], h->mut.now_ms);
            err = mut_put(&h->mut, ks, &keys[i], old, &v, EXPIRY_NONE);
        }
    }
    err = end_many(h, slots, slot_count, err);
    mem_free(slots);
    mem_free(keys);
    return err;
}

enum dc_err hand_flush(struct hand *h, uint32_t db) {
    if (!h->in_frame) {
        store_lock_all(h->engine->store);
    }
    begin_command(h);
    enum dc_err err = system_flush(&h->mut, store_keyspace(h->engine->store, db));
    end_command(h, err);
    if (!h->in_frame) {
        store_unlock_all(h->engine->store);
    }
    clean_up(h);
    return err;
}

void hand_frame_begin(struct hand *h) {
    store_lock_all(h->engine->store);
    mut_reset(&h->mut, engine_now(h->engine));
    h->in_frame = true;
}

void hand_frame_end(struct hand *h) {
    commit(h);
    store_unlock_all(h->engine->store);
    h->in_frame = false;
    mut_reset(&h->mut, engine_now(h->engine));
    arena_reset(&h->arena);
}

/* --- what goes by itself ----------------------------------------------------------------------------- */

bool hand_evict(struct hand *h, enum evict_policy policy, uint32_t samples, store_visit_fn evicted,
                void *arg) {
    struct store *s = h->engine->store;
    int64_t now_ms = engine_now(h->engine);
    struct victim v;
    while (store_pick_victim(&h->thread, policy, samples, now_ms, &v)) {
        uint32_t slot = pos_slot(v.pos);
        store_lock(s, slot);
        struct entry *e = store_victim(&h->thread, &v);
        if (e != NULL) {
            struct key k = {entry_key(e), v.pos};
            mut_reset(&h->mut, now_ms);
            if (evicted != NULL) {
                evicted(arg, v.ks, e);
            }
            enum dc_err err = mut_del(&h->mut, v.ks, &k);
            dc_assert(err == DC_OK); /* a single effect needs no memory */
            commit(h);
        }
        store_unlock(s, slot);
        if (e != NULL) {
            mut_reset(&h->mut, now_ms);
            return true;
        }
    }
    return false;
}

uint64_t hand_sweep(struct hand *h, store_expired_fn expired, void *arg) {
    struct store_sweep sw = {0};
    uint64_t seen = 0;
    while (sw.wrapped == 0) {
        seen += store_sweep(&h->thread, &sw, engine_now(h->engine), UINT64_MAX, expired, arg);
    }
    return seen;
}
