/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The sweep. Every page remembers when it is worth a look: at the time when one in EXPIRED_SHARE of its entries will
 * have expired, or EXPIRY_LAG_MAX_MS after the first of them, whichever comes first. So the share of expired entries
 * that are still resident is bounded whatever the times to live are, and a page of half-hour sessions is read
 * every few seconds while a page of ten-second counters is read several times a second. Pages without expiry cost nothing.
 */
#include "server/base/buf.h"
#include "server/base/mem.h"
#include "server/store/store_priv.h"

enum {
    EXPIRED_SHARE = 32,
    EXPIRED_RANK_MAX = 1 + PAGE_WORDS_MAX / EXPIRED_SHARE,
    EXPIRY_LAG_MAX_MS = 4000
};

/* One page's pass. */
struct pass {
    int64_t now_ms;
    uint32_t seen;
    uint32_t volatiles;
    uint32_t rank; /* how many of the soonest are kept */
    uint32_t kept;
    uint32_t expired_count;
    uint32_t blob_count;
    double ttl_sum_ms;
    int64_t soonest[EXPIRED_RANK_MAX]; /* ascending */
    struct entry *expired[PAGE_WORDS_MAX];
    struct blob *blobs[PAGE_WORDS_MAX]; /* of those reclaimed */
};

static void pass_begin(struct pass *p, int64_t now_ms, uint32_t page_count) {
    dc_assert(page_count <= PAGE_WORDS_MAX);
    /* The arrays stay as they are: they are filled as far as their counts say. */
    p->now_ms = now_ms;
    p->seen = p->volatiles = p->kept = p->expired_count = p->blob_count = 0;
    p->rank = 1 + page_count / EXPIRED_SHARE;
    p->ttl_sum_ms = 0;
}

static void keep_soonest(struct pass *p, int64_t expiry_ms) {
    if (p->kept == p->rank && expiry_ms >= p->soonest[p->kept - 1]) {
        return;
    }
    uint32_t i = p->kept < p->rank ? p->kept++ : p->kept - 1;
    while (i > 0 && p->soonest[i - 1] > expiry_ms) {
        p->soonest[i] = p->soonest[i - 1];
        i--;
    }
    p->soonest[i] = expiry_ms;
}

static void look(void *arg, struct entry *e) {
    struct pass *p = arg;
    p->seen++;
    if (!entry_has_expiry(e)) {
        return;
    }
    int64_t expiry_ms = entry_expiry(e);
    if (expiry_ms <= p->now_ms) {
        p->expired[p->expired_count++] = e;
        return;
    }
    p->volatiles++;
    p->ttl_sum_ms += (double)(expiry_ms - p->now_ms);
    keep_soonest(p, expiry_ms);
}

static uint32_t next_due(const struct pass *p) {
    if (p->kept == 0) {
        return DUE_NEVER;
    }
    int64_t by_share = p->soonest[p->kept - 1];
    int64_t by_lag = p->soonest[0] < INT64_MAX - EXPIRY_LAG_MAX_MS
                         ? p->soonest[0] + EXPIRY_LAG_MAX_MS
                         : by_share;
    return due_of(by_share < by_lag ? by_share : by_lag);
}

/* The sweep while it runs. */
struct sweep {
    struct store_thread *thread;
    struct store_sweep *at;
    struct keyspace *ks;
    int64_t now_ms;
    uint32_t due_now;
    uint64_t budget;
    store_expired_fn expired;
    void *arg;
    struct buf names; /* of what a page lost: length and bytes, when somebody wants them */
    double ttl_sum_ms;
    uint64_t ttl_count;
    struct pass pass;
};

/* Reclaims what the pass found. Slot lock held. */
static void reclaim(struct sweep *sw, struct root *r) {
    struct store_thread *t = sw->thread;
    for (uint32_t i = 0; i < sw->pass.expired_count; i++) {
        struct bytes key = entry_key(sw->pass.expired[i]);
        dc_debug_assert(entry_is_expired(sw->pass.expired[i], sw->now_ms));
        if (sw->expired != NULL) {
            buf_append(&sw->names, &key.len, sizeof(key.len));
            buf_append_bytes(&sw->names, key);
        }
        struct blob *blob =
            store_reap(t, r, crypto_hash(key, t->store->seed) & (HASH_END - 1), key);
        if (dc_unlikely(blob != NULL)) {
            sw->pass.blobs[sw->pass.blob_count++] = blob;
        }
    }
    sw->at->expired += sw->pass.expired_count;
}

/* No lock is held: a blob may be hundreds of megabytes. */
static void release_blobs(const struct pass *p) {
    for (uint32_t i = 0; i < p->blob_count; i++) {
        blob_release(p->blobs[i]);
    }
}

static void tell(struct sweep *sw) {
    size_t at = 0;
    while (at < sw->names.len) {
        size_t len;
        memcpy(&len, sw->names.ptr + at, sizeof(len));
        at += sizeof(len);
        sw->expired(sw->arg, sw->ks, bytes_of(sw->names.ptr + at, len));
        at += len;
    }
    buf_reset(&sw->names, 64 * 1024);
}

/* The next page of the slot, if it is due. Returns entries looked at. */
static uint64_t sweep_page(struct sweep *sw) {
    struct store *s = sw->thread->store;
    uint64_t from = sw->at->hash;
    struct pass *p = &sw->pass;
    store_lock(s, sw->at->slot);
    struct root *r = root_enter(sw->ks, sw->at->slot);
    const struct table *page = table_due_page(&r->table, from, sw->due_now, &sw->at->hash);
    pass_begin(p, sw->now_ms,
               page == NULL ? 0 : atomic_load_explicit(&page->count, memory_order_relaxed));
    if (page != NULL) {
        table_visit_page(page, look, p);
        table_set_due(&r->table, from, next_due(p));
        reclaim(sw, r);
    }
    if (sw->at->hash == HASH_END) {
        table_trim(&r->table);
    }
    store_unlock(s, sw->at->slot);
    tell(sw);
    release_blobs(p);
    sw->ttl_sum_ms += p->ttl_sum_ms;
    sw->ttl_count += p->volatiles;
    return p->seen;
}

/* An empty table with a page left is worth it, too. */
static bool worth_a_look(const struct keyspace *ks, const struct root *r, uint32_t due_now) {
    return root_is_alive(ks, r) &&
           atomic_load_explicit(&r->table.word, memory_order_relaxed) != 0 &&
           (atomic_load_explicit(&r->table.count, memory_order_relaxed) == 0 ||
            atomic_load_explicit(&r->table.due, memory_order_relaxed) <= due_now);
}

static uint64_t sweep_keyspace(struct sweep *sw, uint64_t seen) {
    struct keyspace *ks = sw->ks;
    sw->ttl_sum_ms = 0;
    sw->ttl_count = 0;
    for (; sw->at->slot < SLOT_COUNT && seen < sw->budget; sw->at->slot++, sw->at->hash = 0) {
        if (!worth_a_look(ks, &ks->roots[sw->at->slot], sw->due_now)) {
            continue;
        }
        while (sw->at->hash < HASH_END && seen < sw->budget) {
            seen += sweep_page(sw);
        }
        if (sw->at->hash < HASH_END) {
            break; /* the budget is spent in the middle of a table */
        }
    }
    if (sw->ttl_count > 0) {
        atomic_store_explicit(&ks->mean_ttl_ms, (int64_t)(sw->ttl_sum_ms / (double)sw->ttl_count),
                              memory_order_relaxed);
    }
    return seen;
}

uint64_t store_sweep(struct store_thread *t, struct store_sweep *at, int64_t now_ms,
                     uint64_t budget, store_expired_fn expired, void *arg) {
    struct store *s = t->store;
    struct sweep sw;
    sw.thread = t;
    sw.at = at;
    sw.now_ms = now_ms;
    sw.due_now = due_at(now_ms);
    sw.budget = budget;
    sw.expired = expired;
    sw.arg = arg;
    buf_init(&sw.names, 0);
    uint64_t seen = store_reclaim(s, budget);
    while (seen < budget) {
        sw.ks = &s->keyspaces[at->keyspace];
        if (atomic_load_explicit(&sw.ks->used, memory_order_relaxed) != 0) {
            seen = sweep_keyspace(&sw, seen);
            if (at->slot < SLOT_COUNT) {
                break; /* the budget is spent */
            }
        }
        at->slot = 0;
        at->keyspace = (at->keyspace + 1) % s->keyspace_count;
        if (at->keyspace == 0) {
            at->wrapped++;
            break;
        }
    }
    access_age(s, at);
    buf_fini(&sw.names);
    return seen;
}
