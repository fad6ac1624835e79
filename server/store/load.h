/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load: a slot's content is built aside and moved in whole.
 *
 * Purpose: what a snapshot and a log say of a slot is put together in a scratch store, which has the seed of the real one and belongs
 *   to one thread: no locks there, nobody sweeps, evicts or scans what isn't complete. load_publish() then moves the table of a slot
 *   into the real store in one step, under the slot's lock.
 * Invariants: I1 a slot of the real store is empty until its content is moved in; nobody uses it before. I2 ages stay: a scratch store's
 *   clock of accesses shows what the real one does.
 * Threads: a scratch store has one owner; load_publish() and load_step() need the real store's slot lock.
 */
#ifndef DC_STORE_LOAD_H
#define DC_STORE_LOAD_H

#include "server/store/store.h"

/* The slot of a key: the hash isn't computed. */
uint32_t store_slot(struct bytes name);

/* The entry, expired or not. */
struct entry *store_find(struct keyspace *ks, const struct key *k);

/* Makes an entry so old, in ticks since its last access; and how many ticks a time without access is. */
void store_set_age(const struct store *s, struct entry *e, uint16_t age);
uint16_t store_age_of_idle(const struct store *s, int64_t idle_ms, int64_t now_ms);
/* The latest time that the store's clock of accesses knows of. */
int64_t store_ticked_ms(const struct store *s);

/* What a snapshot says of an entry. */
struct load_spec {
    struct entry_spec spec; /* a blob's reference is taken over in every outcome */
    uint64_t version;
    uint8_t freq;
    uint16_t age;
};

/* Entries of one slot and keyspace on their way into its table. */
enum { LOAD_RUN_MAX = 256 };
struct load_run {
    struct store *scratch;
    struct keyspace *ks;
    uint32_t slot;
    uint32_t count;
    struct entry *entries[LOAD_RUN_MAX];
    uint64_t hashes[LOAD_RUN_MAX];
};

struct store *load_scratch_create(const struct store *real);
/* Bytes of address space that one takes; few of them are used. */
uint64_t load_scratch_len(const struct store *scratch);
/* Before a range: shows the time of the real store, and makes tables for as many entries as a slot is expected to get by load_put(). */
void load_scratch_begin(struct store *scratch, const struct store *real, uint64_t expected);

void load_run_init(struct load_run *run, struct store *scratch);
/* Adds an entry whose key isn't there yet. Errors: DC_ENOMEM; what was added stays. */
DC_MUST enum dc_err load_add(struct load_run *run, struct keyspace *ks, const struct key *k,
                             const struct load_spec *spec);
/* Puts what was added into the table. Call it at the end; load_add() does it when the slot changes. */
DC_MUST enum dc_err load_flush(struct load_run *run);
/* Forgets what isn't in the table. */
void load_run_fini(struct load_run *run);

/* What a mutation of one PUT does, of a key that isn't there: for logs, most of which is that. The value's blob is taken over in every outcome.
 * Errors: DC_ENOMEM. */
DC_MUST enum dc_err load_put(const struct mut *m, struct keyspace *ks, const struct key *k,
                             const struct entry_spec *spec, uint64_t version);

/* Moves the slot of a keyspace of a scratch store into the real one, in a page no larger than it needs. */
void load_publish(struct store *real, struct store *scratch, uint32_t keyspace, uint32_t slot);
/* Frees it instead (of the system keyspace, too, which is built in place). */
void load_discard(struct store *scratch, uint32_t keyspace, uint32_t slot);
uint32_t load_count(struct store *s, uint32_t keyspace, uint32_t slot);

/* Visits the entries of a slot from a hash on, at least 'want' of them or to the end; returns where to go on, LOAD_END at the end.
 * 'visit' must not change the store. */
#define LOAD_END ((uint64_t)1 << 50)
uint64_t load_step(struct keyspace *ks, uint32_t slot, uint64_t from, uint32_t want,
                   store_visit_fn visit, void *arg);

/* A flush of the log that was replayed: what is older isn't there. */
void keyspace_set_flush_version(struct keyspace *ks, uint64_t version);
/* Removes every entry of a lower version: a flush over an image that may be newer in part. All slot locks held. */
void keyspace_drop_older(struct keyspace *ks, uint64_t version);

#endif
