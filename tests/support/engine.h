/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * engine: the store with a sequencer and commands of the simplest kind, as the tests and the bench of the engine use it.
 *
 * Threads: an engine may have many hands, each of one thread. A hand takes the slot locks itself.
 */
#ifndef TESTS_SUPPORT_ENGINE_H
#define TESTS_SUPPORT_ENGINE_H

#include "persist/sequencer.h"
#include "server/base/arena.h"
#include "server/base/buf.h"
#include "server/store/store.h"

/* Noon of some day: expiries around it fit five bytes. */
#define ENGINE_NOW_MS (EXPIRY_BASE_MS + (int64_t)86400000 * 700)

struct engine {
    struct store *store;
    struct sequencer sequencer;
    _Atomic int64_t now_ms;
    /* Commits instead of the sequencer, under the slot locks: where a test keeps a log. */
    void (*commit)(void *arg, struct mut *m);
    void *commit_arg;
};

struct hand {
    bool in_frame; /* between hand_frame_begin() and hand_frame_end() */
    struct engine *engine;
    struct store_thread thread;
    struct mut mut;
    struct metric_slot metrics;
    struct arena arena; /* values that a frame shows, of entries that may be gone before it ends */
};

void engine_init(struct engine *e, const uint8_t *seed); /* HASH_SEED_LEN bytes, NULL = zeros */
void engine_fini(struct engine *e);
void hand_init(struct hand *h, struct engine *e, uint64_t seed);
void hand_fini(struct hand *h);

static inline int64_t engine_now(const struct engine *e) {
    return atomic_load_explicit(&e->now_ms, memory_order_relaxed);
}
static inline void engine_sleep(struct engine *e, int64_t ms) {
    atomic_fetch_add_explicit(&e->now_ms, ms, memory_order_relaxed);
}

/* Commands. A value of BLOB_MIN_LEN or more becomes a blob. Errors: DC_ENOMEM, then nothing has changed. */
DC_MUST enum dc_err hand_set(struct hand *h, uint32_t db, struct bytes name, struct bytes text,
                             int64_t expiry_ms);
DC_MUST enum dc_err hand_del(struct hand *h, uint32_t db, struct bytes name, bool *existed);
/* Existing keys only; EXPIRY_NONE persists. */
DC_MUST enum dc_err hand_expire(struct hand *h, uint32_t db, struct bytes name, int64_t expiry_ms,
                                bool *existed);
/* A PUT of the sum, which keeps the expiry of what is alive. */
DC_MUST enum dc_err hand_incr(struct hand *h, uint32_t db, struct bytes name, int64_t by,
                              int64_t *sum);
DC_MUST enum dc_err hand_write(struct hand *h, uint32_t db, struct bytes name, uint64_t offset,
                               struct bytes bytes);
DC_MUST enum dc_err hand_append(struct hand *h, uint32_t db, struct bytes name, struct bytes bytes);
DC_MUST enum dc_err hand_rename(struct hand *h, uint32_t db, struct bytes from, struct bytes to,
                                bool *existed);
/* One frame over many keys: count names and texts. */
DC_MUST enum dc_err hand_set_many(struct hand *h, uint32_t db, const struct bytes *names,
                                  const struct bytes *texts, uint32_t count);
DC_MUST enum dc_err hand_flush(struct hand *h, uint32_t db);

/* As EXEC does it: the commands between the two see each other's effects and become one frame, under all locks. */
void hand_frame_begin(struct hand *h);
void hand_frame_end(struct hand *h);

/* What a key is. 'text' gets the value when it isn't NULL. */
struct seen {
    bool alive;
    uint64_t version;
    int64_t expiry_ms;
    enum value_kind kind;
};
struct seen hand_get(struct hand *h, uint32_t db, struct bytes name, struct buf *text);
struct seen hand_peek(struct hand *h, uint32_t db, struct bytes name, struct buf *text);

/* Evicts one entry; false when there is nothing. 'evicted' is called under the lock before it goes. */
bool hand_evict(struct hand *h, enum evict_policy policy, uint32_t samples, store_visit_fn evicted,
                void *arg);

/* One whole round of the sweep. */
uint64_t hand_sweep(struct hand *h, store_expired_fn expired, void *arg);

#endif
