/* SPDX-License-Identifier: BSD-3-Clause */
/* store_priv: what the files of the store share. */
#ifndef DC_STORE_PRIV_H
#define DC_STORE_PRIV_H

#include "server/store/store.h"
#include "server/store/table.h"

/* One slot of one keyspace. Under the slot lock, but for what is atomic. */
struct root {
    struct table table;
    uint64_t removed;           /* newest version of what was removed: stands for what is absent */
    _Atomic uint32_t gen;       /* keyspace's generation that the content belongs to */
    _Atomic uint32_t volatiles; /* entries with an expiry */
};

static_assert(sizeof(struct root) == 32, "two roots to a cache line");

struct keyspace {
    /* constant after init */
    uint32_t id;
    struct store *store;
    struct root *roots;  /* SLOT_COUNT of them */
    char flush_name[16]; /* of the system entry that tells of its last flush */
    /* atomic */
    _Atomic uint32_t gen;         /* raised by a flush, under all slot locks */
    _Atomic uint32_t cleared_gen; /* no root is of an older one */
    _Atomic uint64_t flush_version;
    _Atomic uint32_t used; /* 0 = nothing was ever put: no root is worth a look */
    _Atomic int64_t mean_ttl_ms;
};

/* Of the clock of accesses, see access.c. */
enum { TICKS_PER_POPULATION = 128, TICK_RECENT = 256, TICK_HISTORY = 256 };

struct store {
    /* constant after init */
    uint32_t keyspace_count;
    uint8_t seed[HASH_SEED_LEN];
    struct keyspace keyspaces[KEYSPACE_MAX];
    struct keyspace system;  /* KEYSPACE_SYSTEM */
    struct slot_lock *locks; /* SLOT_COUNT of them */
    /* atomic */
    _Atomic(struct grave *) graves; /* see flush.c */
    _Atomic bool packing;           /* see pack.c */
    /* its owner's: */
    uint32_t expected; /* entries of a slot of a scratch store, see load.h */
    /* atomic: the clock of accesses, see access.c */
    _Alignas(64) _Atomic uint32_t tick;
    _Atomic uint32_t quantum;                      /* accesses to a tick */
    _Atomic int64_t evicted_ms;                    /* when something was last to be evicted */
    _Atomic int64_t tick_recent_ms[TICK_RECENT];   /* when a tick began, by its low bits */
    _Atomic int64_t tick_history_ms[TICK_HISTORY]; /* the same by its next bits */
};

static inline uint64_t pos_hash(struct pos p) {
    return p.v & (HASH_END - 1);
}

static inline bool root_is_alive(const struct keyspace *ks, const struct root *r) {
    return atomic_load_explicit(&r->gen, memory_order_relaxed) ==
           atomic_load_explicit(&ks->gen, memory_order_relaxed);
}

static inline bool root_is_empty(const struct keyspace *ks, uint32_t slot) {
    return atomic_load_explicit(&ks->roots[slot].table.count, memory_order_relaxed) == 0;
}

static inline void root_note_removed(struct root *r, uint64_t version) {
    if (version > r->removed) {
        r->removed = version;
    }
}

/* An entry has been put into the root's table, or has another expiry. Slot lock held, or a scratch store. */
void root_note_expiry(struct root *r, uint64_t hash, const struct entry *e, bool was_volatile);

/* Gets what a flush has killed out of the way. */
struct root *root_clear(struct keyspace *ks, struct root *r);

/* The slot's root, without what a flush has killed. Slot lock held. */
static inline struct root *root_enter(struct keyspace *ks, uint32_t slot) {
    struct root *r = &ks->roots[slot];
    /* The generation changes only under all slot locks, so ours orders the load. */
    return dc_likely(root_is_alive(ks, r)) ? r : root_clear(ks, r);
}

/* The two halves of a flush: version 0 = it will be stamped; until then its version is FLUSH_PENDING. All slot locks held. */
#define FLUSH_PENDING UINT64_MAX /* no version is that large */
void flush_apply(struct keyspace *ks, uint64_t version);
void flush_stamp(struct keyspace *ks, uint64_t version);

/* Room in the table for so many insertions at the key's place. */
DC_MUST enum dc_err store_reserve(struct store *s, struct keyspace *ks, const struct key *k,
                                  uint32_t extra);
/* The same for one more insertion by a mut, beside those that are prepared and not applied. */
DC_MUST enum dc_err mut_reserve_insert(struct mut *m, struct keyspace *ks, const struct key *k);
DC_MUST enum dc_err store_prepare_write(struct mut *m, struct effect *e, const struct entry *old,
                                        uint64_t offset, struct bytes bytes);
/* Gives the version to an effect that was applied without. */
void store_stamp(struct mut *m, const struct effect *e);

/* Takes an entry out that has expired (no effect, no version). Slot lock held; the caller releases the entry's blob, if
 * it had one (else NULL), when it holds no lock. */
DC_MUST struct blob *store_reap(struct store_thread *t, struct root *r, uint64_t hash,
                                struct bytes key);

/* Counts an access. */
void access_count(struct store_thread *t, int64_t now_ms);
/* Somebody looks for a victim. */
void access_evicting(struct store *s, int64_t now_ms);
/* The sweep's part in it. */
void access_age(struct store *s, struct store_sweep *at);

/* pack.c: moves entries of a line together. Slot lock held. */
void pack_line(struct line *line);

/* Ticks since the entry's last access. */
static inline uint32_t entry_age(const struct store *s, const struct entry *e) {
    uint32_t tick = atomic_load_explicit(&s->tick, memory_order_relaxed);
    return (uint16_t)(tick - entry_stamp(e));
}

#endif
