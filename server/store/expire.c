/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The sweep. Every page remembers when it is worth a look: at the time when one in EXPIRED_SHARE of its entries will
 * have expired, or EXPIRY_LAG_MAX_MS after the first of them, whichever comes first. So the share of expired entries
 * that are still resident is bounded whatever the times to live are, and a page of half-hour sessions is read
 * every minute while a page of ten-second counters is read three times a second. Pages without expiry cost nothing.
 */
#include "server/base/buf.h"
#include "server/base/mem.h"
#include "server/store/store_priv.h"

enum {
    EXPIRED_SHARE = 64,
    EXPIRED_RANK_MAX = 1 + PAGE_LINES_MAX * PAGE_LINE_WORDS / EXPIRED_SHARE,
    EXPIRY_LAG_MAX_MS = 4000
};

/* One page's pass. */
struct pass {
    const struct store *store;
    int64_t now_ms;
    uint32_t seen;
    uint32_t volatiles;
    uint32_t rank; /* how many of the soonest are kept */
    uint32_t kept;
    int64_t soonest[EXPIRED_RANK_MAX]; /* ascending */
    int64_t ttl_sum_ms;
    uint32_t expired_count;
    struct entry *expired[PAGE_LINES_MAX * PAGE_LINE_WORDS];
};

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
    p->ttl_sum_ms += (expiry_ms - p->now_ms) / 1024;
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

/* Reclaims what the pass found. Slot lock held. Names go to 'names' (length and bytes) when somebody wants them. */
static void reclaim(struct store_thread *t, struct root *r, struct pass *p, struct buf *names) {
    for (uint32_t i = 0; i < p->expired_count; i++) {
        struct bytes key = entry_key(p->expired[i]);
        if (names != NULL) {
            buf_append(names, &key.len, sizeof(key.len));
            buf_append_bytes(names, key);
        }
        store_reap(t, r, crypto_hash(key, t->store->seed) & (HASH_END - 1), key);
    }
}

static void tell(struct buf *names, struct keyspace *ks, store_expired_fn expired, void *arg) {
    size_t at = 0;
    while (at < names->len) {
        size_t len;
        memcpy(&len, names->ptr + at, sizeof(len));
        at += sizeof(len);
        expired(arg, ks, bytes_of(names->ptr + at, len));
        at += len;
    }
    buf_reset(names, 4096);
}

/* Sums of one round, for the mean time to live. */
struct ttl_mean {
    int64_t sum;
    int64_t count;
};

/* All pages of one root that are due, a lock hold for each. Returns entries looked at. */
static uint64_t sweep_root(struct store_thread *t, struct keyspace *ks, uint32_t slot,
                           int64_t now_ms, struct buf *names, struct ttl_mean *mean) {
    struct store *s = t->store;
    uint64_t seen = 0;
    uint64_t from = 0;
    uint32_t due_now = due_of(now_ms);
    while (from < HASH_END) {
        struct pass p = {.store = s, .now_ms = now_ms};
        struct table *page;
        store_lock(s, slot);
        struct root *r = root_enter(ks, slot);
        uint32_t count = atomic_load_explicit(&r->table.count, memory_order_relaxed);
        p.rank = 1 + (count < 1024 ? count : 1024) / EXPIRED_SHARE;
        from = table_step_page(&r->table, from, due_now, &page, look, &p);
        if (page != NULL) {
            table_set_page_due(page, next_due(&p));
            reclaim(t, r, &p, names);
        }
        if (from >= HASH_END) {
            table_refresh_due(&r->table);
            table_trim(&r->table);
        }
        store_unlock(s, slot);
        seen += p.seen;
        mean->sum += p.ttl_sum_ms;
        mean->count += p.volatiles;
    }
    return seen;
}

static bool worth_a_look(const struct keyspace *ks, const struct root *r, uint32_t due_now) {
    if (atomic_load_explicit(&r->gen, memory_order_relaxed) !=
        atomic_load_explicit(&ks->gen, memory_order_relaxed)) {
        return atomic_load_explicit(&r->table.word, memory_order_relaxed) != 0;
    }
    return atomic_load_explicit(&r->table.count, memory_order_relaxed) > 0 &&
           atomic_load_explicit(&r->table.due, memory_order_relaxed) <= due_now;
}

static uint64_t sweep_keyspace(struct store_thread *t, struct store_sweep *sw, struct keyspace *ks,
                               int64_t now_ms, uint64_t budget, struct sweep_listener *to) {
    struct buf names;
    struct ttl_mean mean = {0, 0};
    uint64_t seen = 0;
    uint32_t due_now = due_of(now_ms);
    buf_init(&names, 0);
    while (sw->slot < SLOT_COUNT && seen < budget) {
        uint32_t slot = sw->slot++;
        if (worth_a_look(ks, &ks->roots[slot], due_now)) {
            seen += sweep_root(t, ks, slot, now_ms, to->expired == NULL ? NULL : &names, &mean);
            if (names.len > 0) {
                tell(&names, ks, to->expired, to->arg);
            }
        }
    }
    if (mean.count > 0) {
        atomic_store_explicit(&ks->mean_ttl_ms, mean.sum / mean.count * 1024, memory_order_relaxed);
    }
    buf_fini(&names);
    return seen;
}

uint64_t store_sweep(struct store_thread *t, struct store_sweep *sw, int64_t now_ms,
                     uint64_t budget, store_expired_fn expired, void *arg) {
    struct store *s = t->store;
    struct sweep_listener to = {expired, arg};
    uint64_t seen = 0;
    while (seen < budget) {
        struct keyspace *ks = &s->keyspaces[sw->keyspace];
        if (atomic_load_explicit(&ks->used, memory_order_relaxed) != 0) {
            seen += sweep_keyspace(t, sw, ks, now_ms, budget - seen, &to);
        } else {
            sw->slot = SLOT_COUNT;
        }
        if (sw->slot < SLOT_COUNT) {
            return seen; /* the budget is spent */
        }
        sw->slot = 0;
        sw->keyspace = (sw->keyspace + 1) % s->keyspace_count;
        if (sw->keyspace == 0) {
            sw->wrapped++;
            return seen;
        }
    }
    return seen;
}
