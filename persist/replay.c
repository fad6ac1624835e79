/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One effect of the log over a store that holds everything before it.
 *
 * Behind a snapshot's end (E) the entry that a PATCH finds is the one that it was made for, or the data is damaged. In the window S to E
 * the image may be ahead: its entries were read while commands ran. Then the version decides:
 *
 *     found                  effect v              what it means
 *     version >= v           any                   the image has it already: nothing to do
 *     nothing                PATCH prev != 0       it went before the walk came by; the effect that removed it follows, or nobody
 *                                                  logged it because it had expired: nothing to do
 *     version == prev        PATCH                 apply
 *     nothing, or older      PUT, DEL, prev == 0   apply
 *     older, not prev        PATCH prev != 0       can't be: damage
 *
 * prev PREV_FRAME is whatever the same frame has written a moment ago.
 *
 * A WRITE with prev 0 was made for a key that wasn't there, or had expired: what is found is replaced, not written to.
 */
#include "persist/replay.h"

#include "server/base/limits.h"
#include "server/store/load.h"

#include <inttypes.h>

static enum dc_err damaged(const struct effect_view *e, const char *what) {
    return dc_fail(DC_ECORRUPT, "the effect at LSN %" PRIu64 " of keyspace %u %s",
                   e->version - e->len, e->keyspace, what);
}

static enum dc_err value_from(const struct effect_view *e, struct value *v) {
    switch (e->value_kind) {
    case VALUE_STR:
    case VALUE_RAW:
        if (e->data.len >= BLOB_MIN_LEN) {
            return damaged(e, "has a value that is too long for its kind");
        }
        *v = (struct value){.kind = e->value_kind, .str = e->data};
        return DC_OK;
    case VALUE_INT:
        *v = value_int((int64_t)get_u64(e->data.ptr));
        return DC_OK;
    case VALUE_BLOB:
        if (e->data.len > VALUE_LEN_MAX) {
            return damaged(e, "has a value that is too long");
        }
        *v = (struct value){.kind = VALUE_BLOB, .blob = blob_from(e->data)};
        return v->blob == NULL ? DC_ENOMEM : DC_OK;
    }
    return damaged(e, "has a value of an unknown kind");
}

/* Most of a log is keys that aren't there: they are put in at once, without a mutation. */
static enum dc_err put_new(const struct mut *m, const struct effect_view *e, struct keyspace *ks,
                           const struct key *k) {
    struct entry_spec spec = {.key = e->key, .expiry_ms = e->expiry_ms};
    enum dc_err err = value_from(e, &spec.value);
    return err != DC_OK ? err : load_put(m, ks, k, &spec, e->version);
}

static enum dc_err prepare_put(struct mut *m, const struct effect_view *e, struct keyspace *ks,
                               const struct key *k, const struct entry *old) {
    struct value v;
    enum dc_err err = value_from(e, &v);
    return err != DC_OK ? err : mut_put(m, ks, k, old, &v, e->expiry_ms);
}

static enum dc_err prepare_write(struct mut *m, const struct effect_view *e, struct keyspace *ks,
                                 const struct key *k, const struct entry *old) {
    if (e->offset > VALUE_LEN_MAX || e->data.len > VALUE_LEN_MAX - e->offset) {
        return damaged(e, "writes behind the end of the longest value");
    }
    return mut_write(m, ks, k, e->prev == 0 ? NULL : old, e->offset, e->data);
}

/* What a PATCH for a certain version has to do with what is there. */
enum match { MATCH_APPLY, MATCH_SKIP, MATCH_DAMAGE };

static enum match match_patch(const struct effect_view *e, const struct entry *old,
                              bool in_window) {
    if (e->prev == 0) {
        return e->kind == MUT_WRITE ? MATCH_APPLY : MATCH_DAMAGE;
    }
    if (old != NULL && (entry_version(old) == e->prev || e->prev == PREV_FRAME)) {
        return MATCH_APPLY;
    }
    return in_window && old == NULL ? MATCH_SKIP : MATCH_DAMAGE;
}

static enum dc_err prepare(struct mut *m, const struct effect_view *e, struct keyspace *ks,
                           const struct key *k, const struct entry *old, bool in_window) {
    if (old != NULL && entry_version(old) >= e->version) {
        if (in_window) {
            return DC_OK;
        }
        return damaged(e, "finds an entry that is newer");
    }
    if (e->kind == MUT_EXPIRE || e->kind == MUT_WRITE) {
        enum match match = match_patch(e, old, in_window);
        if (match == MATCH_DAMAGE) {
            return dc_fail(
                DC_ECORRUPT,
                "the effect at LSN %" PRIu64 " of keyspace %u was made for version %" PRIu64
                " of its key, but finds %" PRIu64,
                e->version - e->len, e->keyspace, e->prev, old == NULL ? 0 : entry_version(old));
        }
        if (match == MATCH_SKIP) {
            return DC_OK;
        }
    }
    switch (e->kind) {
    case MUT_PUT:
        return prepare_put(m, e, ks, k, old);
    case MUT_DEL:
        return mut_del(m, ks, k);
    case MUT_EXPIRE:
        return mut_expire(m, ks, k, old, e->expiry_ms);
    case MUT_WRITE:
        return prepare_write(m, e, ks, k, old);
    case MUT_FLUSH:
        break;
    }
    return damaged(e, "is of an unknown kind");
}

static enum dc_err find_keyspace(const struct mut *m, const struct effect_view *e,
                                 struct keyspace **out) {
    *out = store_numbered(m->store, e->keyspace);
    return *out != NULL ? DC_OK : damaged(e, "belongs to a database that this node doesn't have");
}

/* What was prepared is done, as the effect has it. */
static enum dc_err finish(struct mut *m, const struct effect_view *e, enum dc_err err) {
    if (err != DC_OK) {
        mut_rollback(m);
        return err;
    }
    for (uint32_t i = 0; i < m->count; i++) {
        m->effects[i].version = e->version;
    }
    mut_commit(m);
    return DC_OK;
}

enum dc_err replay_keyed(struct mut *m, const struct effect_view *e, const struct key *k,
                         bool in_window) {
    struct keyspace *ks;
    enum dc_err err = find_keyspace(m, e, &ks);
    if (err != DC_OK) {
        return err;
    }
    const struct entry *old = store_find(ks, k);
    if (old == NULL && e->kind == MUT_PUT) {
        return put_new(m, e, ks, k);
    }
    mut_reset(m, m->now_ms);
    return finish(m, e, prepare(m, e, ks, k, old, in_window));
}

static enum dc_err replay_flush(struct mut *m, const struct effect_view *e, bool in_window) {
    struct keyspace *ks;
    enum dc_err err = find_keyspace(m, e, &ks);
    if (err != DC_OK) {
        return err;
    }
    mut_reset(m, m->now_ms);
    if (in_window) {
        keyspace_drop_older(ks, e->version);
        return DC_OK;
    }
    return finish(m, e, mut_flush(m, ks));
}

enum dc_err replay_effect(struct mut *m, const struct effect_view *e, bool in_window) {
    if (e->kind == MUT_FLUSH) {
        return replay_flush(m, e, in_window);
    }
    struct key k = store_key(m->store, e->key);
    return replay_keyed(m, e, &k, in_window);
}
