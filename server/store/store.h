/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * store: keyspaces of entries, in memory. The public face of the engine; no sockets, no files.
 *
 * Purpose: look-ups under slot locks, effects applied by one function, expiry, eviction, ordered scans.
 * Invariants:
 *   I1 store_apply() is the only writer of entries (the sweep removes what has expired, through store_reap; an access
 *      leaves its trace; packing moves entries as they are).
 *   I2 every call that takes a key needs the key's slot lock held; nothing here takes one but those whose
 *      comment says so.
 *   I3 an expired entry is never returned; it is gone only when removed under its lock.
 *   I4 a look-up after FLUSH never returns an entry older than the flush.
 *   I5 versions of what is in a keyspace never repeat.
 * Threads: any, under I2. A struct store_thread belongs to one thread.
 * Ownership: an entry pointer lives until the lock is released or the next apply.
 */
#ifndef DC_STORE_STORE_H
#define DC_STORE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/bytes.h"
#include "server/base/conf.h"
#include "server/base/crypto.h"
#include "server/base/limits.h"
#include "server/base/lock.h"
#include "server/base/metric.h"
#include "server/base/rng.h"
#include "server/store/entry.h"
#include "server/store/mutation.h"

struct store;
struct keyspace;

enum { EVICT_POOL_LEN = 16 };

/* A candidate for eviction. It is still the one that was sampled while version and stamp are the same. */
struct victim {
    double score; /* the higher, the sooner it goes */
    struct keyspace *ks;
    struct pos pos;
    uint64_t version;
    uint16_t stamp;
};

/* What one thread needs to use the store. Owned by the thread. */
struct store_thread {
    struct store *store;
    struct metric_slot *metrics;
    struct rng rng;
    uint32_t accesses; /* not yet added to the store's clock of accesses */
    uint16_t tick;     /* cached stamp of now */
    uint32_t keyspace_hand;
    uint64_t hand; /* where eviction samples next, a position */
    uint32_t pool_len;
    enum evict_policy pool_policy;
    struct victim pool[EVICT_POOL_LEN];
};

struct store_opts {
    uint32_t keyspaces;  /* 0 = KEYSPACE_MAX */
    const uint8_t *seed; /* HASH_SEED_LEN bytes, NULL = random */
};

/* Ends the process when there is no memory. */
struct store *store_create(const struct store_opts *opts);
void store_destroy(struct store *s);
void store_thread_init(struct store_thread *t, struct store *s, struct metric_slot *metrics,
                       uint64_t seed);

/* A database: what clients see, and what is counted, swept, evicted and flushed. NULL = no such. */
struct keyspace *store_keyspace(struct store *s, uint32_t id);
uint32_t store_keyspace_count(const struct store *s);
/* The system keyspace, which clients don't see: system.h. */
struct keyspace *store_system(struct store *s);
/* Either of them, as files number them. NULL = no such. */
struct keyspace *store_numbered(struct store *s, uint32_t id);
uint32_t keyspace_id(const struct keyspace *ks);

/* Hashes a name. */
struct key store_key(const struct store *s, struct bytes name);
/* The same of a name whose slot is known. */
struct key store_key_in(const struct store *s, uint32_t slot, struct bytes name);
static inline uint32_t pos_slot(struct pos p) {
    return (uint32_t)(p.v >> 50);
}
static inline uint32_t key_slot(const struct key *k) {
    return pos_slot(k->pos);
}

/* Locks. Several slots are taken in ascending order. */
void store_lock(struct store *s, uint32_t slot);
void store_unlock(struct store *s, uint32_t slot);
void store_lock_all(struct store *s);
void store_unlock_all(struct store *s);

/* Hides the latency of memory: asks for roots, some requests later for lines, then for entries. The last one
 * takes the slot lock for a moment. */
void store_prefetch_root(const struct keyspace *ks, struct pos pos);
void store_prefetch_line(const struct keyspace *ks, struct pos pos);
void store_prefetch_entry(struct store *s, const struct keyspace *ks, struct pos pos);

/* The live entry or NULL; no trace is left. */
struct entry *store_peek(struct store_thread *t, struct keyspace *ks, const struct key *k,
                         int64_t now_ms);
/* The same as an access: age, frequency. */
struct entry *store_get(struct store_thread *t, struct keyspace *ks, const struct key *k,
                        int64_t now_ms);
/* Counts an access of an entry that store_peek() returned. */
void store_touch(struct store_thread *t, struct entry *e);

/* The version that stands for what is absent: the newest of what was removed from the key's slot. */
uint64_t store_removed_version(struct keyspace *ks, const struct key *k);

/* Puts one effect into the store. Called by mut_apply() and by replay. */
void store_apply(struct mut *m, struct effect *e);

/* Frees entries that a flush has killed, up to 'budget' or a page more; returns how many (pages with blobs count twice).
 * Takes slot locks one at a time. The sweep calls it; who needs memory at once may, too. */
uint64_t store_reclaim(struct store *s, uint64_t budget);

/* Entries, of them with an expiry. May count what has expired and is not yet reclaimed. Takes no lock. */
uint64_t keyspace_count(const struct keyspace *ks);
uint64_t keyspace_volatile_count(const struct keyspace *ks);
uint64_t store_count(const struct store *s);
/* Version of the last flush. 0 = there was none, or (inside EXEC) it has no version yet. */
uint64_t keyspace_flush_version(const struct keyspace *ks);
/* Mean time to live of the sampled volatile entries, ms; of the last sweep. */
int64_t keyspace_mean_ttl_ms(const struct keyspace *ks);
/* Bytes of pages, nodes and roots. Takes each slot lock in turn. */
uint64_t store_overhead(struct store *s);

typedef void (*store_visit_fn)(void *arg, struct keyspace *ks, struct entry *e);

/* What is looked at, and for whom: the live entries of a keyspace, in slots below 'slot_end'. Slot locks are taken one at a time,
 * unless 'locked' says that the caller has them; 'visit' runs under the lock and must not change the store. */
struct store_scan {
    struct keyspace *ks;
    uint32_t slot_end; /* SLOT_COUNT = all */
    bool locked;
    int64_t now_ms;
    store_visit_fn visit;
    void *arg;
};

/* Scanning, in the order of positions: visits everything at or after *cursor until at least 'want' entries were seen, and moves
 * *cursor. 0 = from the start, and 0 again at the end of the keyspace; at 'slot_end' it is the place where that slot begins. */
void store_scan(const struct store_scan *sc, uint64_t *cursor, uint32_t want);

/* The walk of a snapshot: everything that is there, expired entries too, in the order of positions. One call is one hold of one slot's lock:
 * whole lines from the walk's place on, until 'want' entries were shown; two at one position come together. 'visit' as above. False:
 * nothing was left to show. Empty slots are passed without their lock: see store_settle(). */
struct store_walk {
    uint32_t slot; /* the place */
    uint32_t slot_end;
    uint64_t hash;
};
bool store_walk(struct store *s, struct keyspace *ks, struct store_walk *at, uint32_t want,
                store_visit_fn visit, void *arg);
/* Has each slot lock for a moment. Whoever had one when the call began has put what he appended to the log by the
 * time it returns, and the caller's threads see it: so a walk that begins now misses nothing below the log's head before it. */
void store_settle(struct store *s);

/* A random live entry of the keyspace is visited, false when there is none ('slot_end' is SLOT_COUNT). */
bool store_random(struct store_thread *t, const struct store_scan *sc);
/* The same for slots from 'slot' on: an entry of the first one that has any. */
bool store_random_from(struct store_thread *t, const struct store_scan *sc, uint32_t slot);

/*
 * expire.c: the sweep. Looks where entries are due and reclaims them, also what a flush left. Takes slot locks, one
 * at a time. 'expired' is called without a lock for each key reclaimed (NULL = nobody wants to know).
 * Returns the number of entries looked at; stops after 'budget' of them and goes on there at the next call.
 */
typedef void (*store_expired_fn)(void *arg, struct keyspace *ks, struct bytes key);
struct store_sweep {
    uint32_t keyspace;
    uint32_t slot;
    uint64_t hash;    /* in the slot's table */
    uint64_t expired; /* reclaimed, since the start */
    uint64_t wrapped; /* full rounds */
    /* access.c: the pass that keeps ages from coming round */
    uint32_t age_tick;
    uint32_t age_keyspace;
    uint32_t age_slot;
    uint64_t age_hash;
};
uint64_t store_sweep(struct store_thread *t, struct store_sweep *sw, int64_t now_ms,
                     uint64_t budget, store_expired_fn expired, void *arg);

/*
 * evict.c: the choice of what goes. store_pick_victim() samples entries (taking slot locks one at a time, so
 * the caller holds none) and returns the best candidate; the caller locks its slot, asks store_victim() for
 * the entry and deletes it by a mutation.
 */
bool store_pick_victim(struct store_thread *t, enum evict_policy policy, uint32_t samples,
                       int64_t now_ms, struct victim *out);
/* How soon a policy lets an entry go: the higher, the sooner. False: it keeps it. Slot lock held. */
bool store_evict_score(struct store_thread *t, enum evict_policy policy, int64_t now_ms,
                       const struct entry *e, double *out);
/* The victim's entry while it is still the one that was sampled, else NULL. Slot lock held. */
struct entry *store_victim(struct store_thread *t, const struct victim *v);

/*
 * pack.c: moves what lies alone in the allocator's memory closer together. store_set_packing() says whether the hand of the
 * eviction does it with entries as it passes (any thread). store_pack_pages() looks at 'budget' pages of tables and
 * goes on there at the next call, round and round; takes slot locks, one at a time.
 */
void store_set_packing(struct store *s, bool on);
struct store_pack {
    uint32_t keyspace;
    uint32_t slot;
    uint64_t hash; /* in the slot's table */
};
void store_pack_pages(struct store *s, struct store_pack *at, uint32_t budget);

/* OBJECT IDLETIME, DUMP and RESTORE: what the entry's stamp means, and the way back. Hours, then it stays. */
int64_t store_idle_ms(const struct store *s, const struct entry *e, int64_t now_ms);
void store_set_idle_ms(const struct store *s, struct entry *e, int64_t idle_ms, int64_t now_ms);

/* Moves the clock of accesses along with time; first before the first command, then a few times a second. */
void store_tick(struct store *s, int64_t now_ms);

#endif
