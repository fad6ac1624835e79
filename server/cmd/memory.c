/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two figures are kept below limits:
 *
 *   allocated - own          <= maxmemory            what Redis's users expect of maxmemory
 *   resident - unused pages  <= soft, never >= hard  what the machine has to give
 *
 * 'Own' was allocated before the first key: tables, and buffers that nobody may ever touch. Soft and hard are a little
 * above maxmemory (soft_of, hard_of), because the allocator and the program take some room as well. The second figure
 * counts when memory is fragmented. Then allocating and evicting the same number of bytes may still make the process
 * grow: the freed places lie scattered over pages that stay in use, and are of no use themselves if the sizes of values
 * have shifted. So between soft and hard the rule is: for each byte of growth so many bytes go, the more the nearer
 * hard is. As soon as freed places are filled again nothing grows, and nothing goes but what is replaced. (The simple
 * rule, evict until resident memory is below one limit, ends with half of the memory empty: pages come free only when
 * almost everything on them has gone.)
 *
 * Unused (dirty) pages will be used again before the process grows, so they don't count, unless they are what exceeds the
 * limit: then they are given back to the kernel.
 *
 * Between two samples workers book every byte that they allocate and free, so the budget is exact but for pages that
 * are half empty; those the next sample sees, 10 ms later.
 */
#include "server/cmd/memory.h"

#include "server/base/assert.h"
#include "server/base/conf.h"
#include "server/base/diag.h"
#include "server/cmd/janitor.h"
#include "server/cmd/latency.h"
#include "server/cmd/node.h"
#include "server/cmd/notify.h"

#include <inttypes.h>
#include <string.h>

enum {
    MIB = 1024 * 1024,
    NEAR_LEN = 32 * MIB,  /* less room than this, and samples are taken more often */
    BOOK_LEN = 64 * 1024, /* a worker books at least so much at once */
    GAIN_MAX = 8,         /* bytes that go for a byte of growth, just below the hard limit */
    GAIN_HARD = 4,        /* bytes that go for a byte above it */
    SAMPLE_MIN_NS = 1000000,
    SAMPLE_LATE_NS = (JANITOR_BUSY_PERIOD_MS + 2) * 1000000,
    SAMPLES_MAX = 64,      /* of entries, for one eviction: more is of no use */
    HOLES_SHARE = 32,      /* more holes than this part of memory, and entries are packed */
    EVICT_MAX = 256,       /* entries evicted before one command */
    EVICT_MAX_HARD = 8192, /* the same, far above the limit */
    KEY_ON_STACK_MAX = 512
};

/* --- samples ----------------------------------------------------------------------------------------------------- */

static int64_t lesser(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t greater(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t soft_of(int64_t max) {
    return max + max / 64 + (int64_t)8 * MIB;
}

static int64_t hard_of(int64_t max) {
    return max + max / 40 + (int64_t)12 * MIB;
}

/* How much allocated memory has to move, and which way, for the growth since the last sample. */
static int64_t answer_growth(int64_t grown, int64_t resident, int64_t max) {
    int64_t above = resident - soft_of(max);
    int64_t zone = hard_of(max) - soft_of(max);
    int64_t probe = above < zone / 2 ? max / 4096 : 0; /* perhaps there are places to be filled */
    if (grown <= 0) {
        return probe - grown;
    }
    return probe - grown - grown * (GAIN_MAX - 1) / zone * above;
}

/* What resident memory allows. */
static int64_t room_by_resident(struct memory_control *c, int64_t resident, int64_t allocated,
                                int64_t max) {
    int64_t grown = resident - c->resident;
    c->resident = resident;
    if (resident <= soft_of(max)) {
        c->holds = false;
        return greater(soft_of(max) - resident, max / 256);
    }
    if (resident >= hard_of(max)) {
        c->holds = true;
        c->target = allocated + GAIN_HARD * (hard_of(max) - resident);
    } else if (!c->holds) {
        c->holds = true;
        c->target = allocated;
    } else {
        c->target = lesser(c->target + answer_growth(grown, resident, max), allocated + max / 64);
    }
    return c->target - allocated;
}

struct memory_verdict memory_judge(struct memory_control *c, const struct mem_stats *now,
                                   uint64_t own, uint64_t maxmemory) {
    int64_t max = (int64_t)(maxmemory < INT64_MAX / 4 ? maxmemory : INT64_MAX / 4);
    int64_t allocated = (int64_t)now->allocated;
    int64_t dirty = lesser((int64_t)now->dirty, (int64_t)now->process_rss);
    int64_t resident = (int64_t)now->process_rss - dirty;
    int64_t holes = greater((int64_t)now->active - allocated, 0);
    int64_t by_allocated = max + (int64_t)own - allocated;
    return (struct memory_verdict){
        .budget = lesser(by_allocated, room_by_resident(c, resident, allocated, max)),
        .spare = lesser(by_allocated, hard_of(max) - resident + holes / 4 * 3),
        .purge = resident + dirty > hard_of(max) + max / 128 && dirty >= MIB,
    };
}

void memory_init(struct memory_seen *m) {
    lock_init(&m->lock, LOCK_RANK_MEMORY);
}

void memory_fini(struct memory_seen *m) {
    lock_fini(&m->lock);
}

static void store_u64(_Atomic uint64_t *to, uint64_t value) {
    atomic_store_explicit(to, value, memory_order_relaxed);
}

static uint64_t load_u64(const _Atomic uint64_t *from) {
    return atomic_load_explicit(from, memory_order_relaxed);
}

/* Without jemalloc (sanitizer builds) resident memory is mostly not the program's: what it allocated for keys stands for
 * it. */
static void read_stats(const struct memory_seen *seen, struct mem_stats *m) {
    mem_stats_read(m);
    if (m->process_rss == 0 || strcmp(mem_allocator_name(), "libc") == 0) {
        uint64_t own = load_u64(&seen->startup);
        m->process_rss = m->resident > own ? m->resident - own : 0;
    }
}

static void publish(struct memory_seen *seen, const struct mem_stats *m) {
    store_u64(&seen->allocated, m->allocated);
    store_u64(&seen->active, m->active);
    store_u64(&seen->resident, m->resident);
    store_u64(&seen->rss, m->process_rss);
    store_u64(&seen->dirty, m->dirty);
    if (m->allocated > load_u64(&seen->peak)) {
        store_u64(&seen->peak, m->allocated);
    }
    if (load_u64(&seen->startup) == 0) {
        store_u64(&seen->startup, m->allocated);
    }
}

/* Time above the limit, for INFO. */
static void clock_spell(struct memory_seen *seen, bool is_short) {
    int64_t now_us = time_mono_us();
    int64_t since = atomic_load_explicit(&seen->evicting_since_us, memory_order_relaxed);
    if (is_short == (since != 0)) {
        return;
    }
    atomic_store_explicit(&seen->evicting_since_us, is_short ? now_us : 0, memory_order_relaxed);
    if (!is_short) {
        store_u64(&seen->evicting_us, load_u64(&seen->evicting_us) + (uint64_t)(now_us - since));
    }
}

/* With a limit: the budget, and perhaps a purge. Returns the budget. */
static int64_t set_budget(struct node *n, const struct mem_stats *now, uint64_t maxmemory) {
    struct memory_seen *seen = &n->memory;
    struct memory_verdict v =
        memory_judge(&seen->control, now, load_u64(&seen->startup), maxmemory);
    atomic_store_explicit(&n->memory_budget, v.budget, memory_order_relaxed);
    atomic_store_explicit(&seen->spare, v.spare, memory_order_relaxed);
    if (v.purge) {
        store_u64(&seen->purges, load_u64(&seen->purges) + 1);
        mem_purge();
    }
    return v.budget;
}

uint32_t memory_sample(struct node *n) {
    struct mem_stats now;
    int64_t budget = MEMORY_UNLIMITED;
    lock_acquire(&n->memory.lock);
    store_u64(&n->memory.sampled_ticks, time_ticks());
    uint64_t maxmemory = (uint64_t)conf_get(n->conf, maxmemory);
    read_stats(&n->memory, &now);
    publish(&n->memory, &now);
    store_set_packing(n->store, now.active > now.allocated + now.allocated / HOLES_SHARE);
    if (maxmemory == 0) {
        n->memory.control.holds = false;
        atomic_store_explicit(&n->memory_budget, budget, memory_order_relaxed);
    } else {
        budget = set_budget(n, &now, maxmemory);
    }
    clock_spell(&n->memory, budget < 0);
    lock_release(&n->memory.lock);
    return budget < NEAR_LEN + (int64_t)(maxmemory / 16) ? JANITOR_BUSY_PERIOD_MS
                                                         : JANITOR_PERIOD_MS;
}

/* --- eviction ---------------------------------------------------------------------------------------------------- */

/* Takes the entry out, by a mutation like every other change. The key is a copy: the entry is gone afterwards. */
static bool take_out(const struct evictor *by, const struct victim *v, struct bytes key) {
    struct key k = {.name = key, .pos = v->pos};
    if (mut_del(by->mut, v->ks, &k) != DC_OK || log_reserve(by->feed, by->mut) != DC_OK) {
        mut_rollback(by->mut);
        return false;
    }
    (void)log_commit(by->feed, by->mut);
    return true;
}

/* The key of an entry, copied to the stack or the heap. */
static char *copy_key(const struct entry *e, char *stack, struct bytes *key) {
    struct bytes name = entry_key(e);
    char *heap = name.len > KEY_ON_STACK_MAX ? mem_alloc(name.len) : NULL;
    char *to = heap != NULL ? heap : stack;
    if (to == stack && name.len > KEY_ON_STACK_MAX) {
        *key = bytes_of(NULL, 0);
        return NULL;
    }
    memcpy(to, name.ptr, name.len);
    *key = bytes_of(to, name.len);
    return heap;
}

static void tell(const struct evictor *by, const struct victim *v, struct bytes key,
                 bool was_expired) {
    metric_add(by->store->metrics, was_expired ? METRIC_EXPIRED : METRIC_EVICTED, 1);
    notify_now(by->node, by->worker, was_expired ? NOTIFY_EXPIRED : NOTIFY_EVICTED,
               was_expired ? "expired" : "evicted", v->ks, key);
}

/* False when the entry isn't the one any more that was chosen. */
static bool evict_victim(const struct evictor *by, const struct victim *v, int64_t now_ms) {
    char stack[KEY_ON_STACK_MAX];
    char *heap = NULL;
    struct bytes key = bytes_of(NULL, 0);
    bool gone = false;
    bool was_expired = false;
    mut_reset(by->mut, now_ms);
    store_lock(by->node->store, pos_slot(v->pos));
    struct entry *e = store_victim(by->store, v);
    if (e != NULL) {
        was_expired = entry_is_expired(e, now_ms);
        heap = copy_key(e, stack, &key);
        gone = key.ptr != NULL && take_out(by, v, key);
    }
    store_unlock(by->node->store, pos_slot(v->pos));
    mut_reset(by->mut, now_ms); /* a blob is freed here, behind the lock */
    if (gone) {
        tell(by, v, key, was_expired);
    }
    mem_free(heap);
    return gone;
}

bool memory_evict(const struct evictor *by, int64_t now_ms) {
    enum evict_policy policy = (enum evict_policy)conf_get(by->node->conf, maxmemory_policy);
    int64_t samples = lesser(conf_get(by->node->conf, maxmemory_samples), SAMPLES_MAX);
    struct victim v;
    while (store_pick_victim(by->store, policy, (uint32_t)samples, now_ms, &v)) {
        if (evict_victim(by, &v, now_ms)) {
            return true;
        }
    }
    return false;
}

/* --- the workers' side ------------------------------------------------------------------------------------------- */

/* Books what this worker has allocated since it last did, and returns the budget as it stands. */
static int64_t settle(struct cmd_worker *w) {
    _Atomic int64_t *budget = &w->node->memory_budget;
    int64_t delta = mem_thread_delta();
    w->memory_pending += delta;
    w->memory_churn += (uint64_t)(delta < 0 ? -delta : delta);
    if (w->memory_pending > BOOK_LEN || w->memory_pending < -BOOK_LEN) {
        atomic_fetch_sub_explicit(budget, w->memory_pending, memory_order_relaxed);
        w->memory_pending = 0;
    }
    return atomic_load_explicit(budget, memory_order_relaxed) - w->memory_pending;
}

bool memory_is_short(struct cmd_worker *w) {
    if (dc_likely(atomic_load_explicit(&w->node->memory_budget, memory_order_relaxed) >
                  MEMORY_UNLIMITED / 2)) {
        w->memory_counts = false;
        return false;
    }
    if (dc_unlikely(!w->memory_counts)) {
        (void)mem_thread_delta(); /* from before there was a limit: the sample has it */
        w->memory_pending = 0;
        w->memory_counts = true;
    }
    return settle(w) < 0;
}

/* Takes a sample in the janitor's place: the cores are all busy and it is late, or much has changed since. */
static void sample_if_late(struct cmd_worker *w, uint64_t maxmemory) {
    struct memory_seen *seen = &w->node->memory;
    uint64_t last = load_u64(&seen->sampled_ticks);
    uint64_t now = time_ticks();
    uint64_t age_ns = now > last ? time_ticks_to_ns(now - last) : 0; /* another core's */
    bool is_late = age_ns > SAMPLE_LATE_NS;
    bool is_stale = age_ns > SAMPLE_MIN_NS && w->memory_churn > MIB + maxmemory / 64;
    if ((is_late || is_stale) &&
        atomic_compare_exchange_strong_explicit(&seen->sampled_ticks, &last, now,
                                                memory_order_relaxed, memory_order_relaxed)) {
        w->memory_churn = 0;
        (void)memory_sample(w->node);
    }
}

/* Nothing can go. That is an error unless there are free places in pages that are used anyway. */
static enum dc_err refuse_unless_spare(struct node *n) {
    return atomic_load_explicit(&n->memory.spare, memory_order_relaxed) > 0 ? DC_OK : DC_EOOM;
}

enum dc_err memory_make_room(struct cmd_worker *w) {
    struct node *n = w->node;
    struct evictor by = {
        .node = n, .worker = w, .store = &w->store, .mut = &w->evict_mut, .feed = w->feed};
    uint64_t maxmemory = (uint64_t)conf_get(n->conf, maxmemory);
    int64_t hard = -(int64_t)(maxmemory / 64);
    sample_if_late(w, maxmemory);
    uint64_t began = time_ticks();
    int64_t budget = settle(w);
    bool found = true;
    for (uint32_t i = 0; found && budget < 0 && i < (budget < hard ? EVICT_MAX_HARD : EVICT_MAX);
         i++) {
        found = memory_evict(&by, w->now_us / 1000);
        budget = settle(w);
    }
    latency_note(n, "eviction-cycle", (int64_t)(time_ticks_to_ns(time_ticks() - began) / 1000000));
    return found || budget >= 0 ? DC_OK : refuse_unless_spare(n);
}
