/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * audience: how many listen to a topic, and on which workers; the node's half of pub/sub.
 *
 * Purpose: publishing asks here where a message has to go. Channels are spread over stripes with a lock each. Patterns,
 *   which every message is matched with, are read from a list that never changes: whoever changes a
 *   pattern's audience makes the list stale, the next reader makes a new one.
 * Invariants: I1 an audience exists as long as somebody listens.
 * Threads: any; a struct pattern_view belongs to one. Takes the lock PUBSUB.
 */
#ifndef DC_CMD_AUDIENCE_H
#define DC_CMD_AUDIENCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/base/bytes.h"
#include "server/base/crypto.h"
#include "server/base/dict.h"
#include "server/base/limits.h"
#include "server/base/lock.h"
#include "server/cmd/pubsub.h"

enum { AUDIENCE_STRIPES = 16 };

struct pattern_list;

struct audience_stripe {
    struct lock lock;
    struct dict topics[TOPIC_KIND_COUNT]; /* under lock */
};

struct audiences {
    /* constant after init */
    uint8_t seed[HASH_SEED_LEN];
    /* atomic, relaxed: who must see a change has heard of it by another way */
    _Alignas(64) _Atomic uint32_t counts[TOPIC_KIND_COUNT]; /* of topics */
    _Atomic uint64_t pattern_version;                       /* of the audiences of patterns */
    /* by channel; the last one is for patterns alone */
    _Alignas(64) struct audience_stripe stripes[AUDIENCE_STRIPES + 1];
    struct pattern_list *patterns; /* under the last stripe's lock; NULL = stale */
};

/* Where a message goes: bit i of 'workers' is worker i. */
struct reach {
    uint64_t listeners;
    uint64_t workers;
};

/* The list of patterns as a thread saw it last. All zero = never. */
struct pattern_view {
    struct pattern_list *list;
    uint64_t version;
};

void audiences_init(struct audiences *a);
void audiences_fini(struct audiences *a);

/* One listener more on a worker; 'first' = it has no other there. False: there is no memory. */
DC_MUST bool audience_join(struct audiences *a, enum topic_kind kind, struct bytes name,
                           uint64_t hash, uint32_t worker, bool first);
/* One less; 'last' = the worker has no other. */
void audience_leave(struct audiences *a, enum topic_kind kind, struct bytes name, uint64_t hash,
                    uint32_t worker, bool last);

/* Where a message for this very topic goes. */
struct reach audience_reach(struct audiences *a, enum topic_kind kind, struct bytes name,
                            uint64_t hash);

/* Where a message goes by the patterns that match its channel. No memory for the list counts as no pattern. */
struct reach audience_reach_patterns(struct audiences *a, struct pattern_view *view,
                                     struct bytes channel);
void pattern_view_fini(struct pattern_view *view);

/* Shows every name under the lock of its stripe. */
void audience_each(struct audiences *a, enum topic_kind kind,
                   void (*each)(void *arg, struct bytes name), void *arg);

static inline uint32_t audience_count(const struct audiences *a, enum topic_kind kind) {
    return atomic_load_explicit(&a->counts[kind], memory_order_relaxed);
}

#endif
