/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mutation: the one way in which the cache changes.
 *
 * Purpose: a struct mut collects the effects of one command, or of one EXEC. It goes through three steps:
 *
 *     prepare  mut_put(), mut_del(), ...   may fail (memory); nothing has changed; mut_rollback() forgets
 *     commit   mut_commit()                can't fail: puts every effect into the store, with the version that the log gave it
 *
 * A command alone is prepared by its handler and committed at once by the sequencer. Inside EXEC mut_apply() puts
 * each command's effects into the store as it goes, so the next one sees them, under version 0; the commit at
 * the end gives the versions.
 *
 * Invariants: I1 the slot locks of all keys are held from prepare to commit, so nobody else sees a version 0;
 *   I2 effects are absolute: applying them again over the same image gives the same; I3 what an effect
 *   needs of memory was allocated in prepare.
 * Threads: one owner, who holds the slot locks.
 * Ownership: keys and values are views that live until the commit (inside EXEC: until its end). A prepared
 *   entry belongs to the mut until it is applied; replaced blobs, and a reference of each blob that was put,
 *   until mut_reset(), after the locks.
 */
#ifndef DC_STORE_MUTATION_H
#define DC_STORE_MUTATION_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/bytes.h"
#include "server/base/err.h"
#include "server/store/entry.h"

struct store;
struct store_thread;
struct keyspace;

enum mut_kind {
#define MUT_KIND(kind, number, fields, what) MUT_##kind = (number),
#include "server/store/mutation.def"
#undef MUT_KIND
};

/* Position of a key: 14 bits of slot, 50 bits of keyed hash. */
struct pos {
    uint64_t v;
};

/* A key with its position. */
struct key {
    struct bytes name;
    struct pos pos;
};

struct effect {
    enum mut_kind kind;
    bool in_place; /* PUT, WRITE: over the existing entry; no allocation was needed */
    struct keyspace *ks;
    struct key key;
    struct value value;  /* PUT: for the log, and for writing in place */
    struct entry *entry; /* prepared; after apply the entry in the store, NULL when there is none */
    int64_t expiry_ms;   /* PUT, EXPIRE */
    uint64_t offset;     /* WRITE */
    struct bytes bytes;  /* WRITE */
    uint64_t
        prev; /* EXPIRE, WRITE: version that it applies to; 0 = there is nothing, or PREV_FRAME */
    uint64_t version; /* given by the log */
};

/* No version is that low: the entry was written by an earlier effect of the same frame, and had no version yet. */
enum { PREV_FRAME = 1 };

enum { MUT_INLINE_EFFECTS = 4, MUT_INLINE_GARBAGE = 2 * MUT_INLINE_EFFECTS };

/* Lengths of the frame that the first 'effects' effects make: a note of frame_measure(). */
struct mut_frame {
    uint64_t len;
    uint64_t inline_len; /* without blobs */
    uint32_t blobs;
    uint32_t effects;
};

struct mut {
    struct store *store;
    struct store_thread *thread;
    struct effect *effects; /* inline_effects, or the heap */
    uint32_t count;
    uint32_t cap;
    uint32_t applied; /* effects below this index are in the store */
    uint32_t garbage_count;
    uint32_t garbage_cap;
    struct blob **garbage; /* inline_garbage, or the heap */
    uint16_t *slot_counts; /* pending insertions by slot; NULL while they are few */
    int64_t now_ms;        /* the one time of the frame */
    struct mut_frame frame;
    struct effect inline_effects[MUT_INLINE_EFFECTS];
    struct blob *inline_garbage[MUT_INLINE_GARBAGE];
};

void mut_init(struct mut *m, struct store *s, struct store_thread *t);
void mut_fini(struct mut *m);

/* Empty again, for the next frame at this time. */
void mut_reset(struct mut *m, int64_t now_ms);

/* Room for so many more effects, so that mut_del() of them can't fail. Errors: DC_ENOMEM. */
DC_MUST enum dc_err mut_reserve(struct mut *m, uint32_t extra);

/* Prepare. 'old' is the live entry or NULL, as store_peek() returned it: the commit counts the access of PUT and
 * WRITE. Two effects of one command on the same key may only be PUT and DEL (a look-up sees what is applied).
 * mut_put replaces or creates. A blob value's reference is taken over in every outcome. Bytes of the value may lie
 *   in the entry of another key, never in 'old'.
 * mut_write changes bytes of a string (the result is 'raw'), growing it with zeros; 'old' may be NULL.
 * Errors: DC_ENOMEM. */
DC_MUST enum dc_err mut_put(struct mut *m, struct keyspace *ks, const struct key *k,
                            const struct entry *old, const struct value *v, int64_t expiry_ms);
DC_MUST enum dc_err mut_del(struct mut *m, struct keyspace *ks, const struct key *k);
DC_MUST enum dc_err mut_expire(struct mut *m, struct keyspace *ks, const struct key *k,
                               const struct entry *old, int64_t expiry_ms);
DC_MUST enum dc_err mut_write(struct mut *m, struct keyspace *ks, const struct key *k,
                              const struct entry *old, uint64_t offset, struct bytes bytes);
DC_MUST enum dc_err mut_flush(struct mut *m, struct keyspace *ks);

/* Forgets what is prepared and not applied. */
void mut_rollback(struct mut *m);

/* Puts what is prepared into the store. */
void mut_apply(struct mut *m);

/* Puts what isn't applied yet into the store, and gives versions to what is. Every effect has its own by now (frame_encode). */
void mut_commit(struct mut *m);

/* Version of the frame's last effect, after the commit; 0 when it had none. */
uint64_t mut_version(const struct mut *m);

#endif
