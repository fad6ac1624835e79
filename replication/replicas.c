/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Links note under the lock, where the marks are computed as well: an acknowledgement is a rare thing compared with the replies that look at
 * marks. So a mark is one atomic load, and there is no moment at which a reader sees half of a change.
 */
#include "replication/replicas.h"

#include "server/base/assert.h"
#include "server/base/lock.h"
#include "server/base/mem.h"
#include "server/base/time.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* How far somebody has come. */
struct progress {
    uint64_t received, durable, applied;
};

/* A peer of this data set. */
struct peer {
    uint8_t id[PEER_ID_LEN];
    char addr[REPLICA_ADDR_MAX];
    uint16_t port;
    bool used;
    uint32_t links;        /* attached */
    uint64_t last_use;     /* who came or went longest ago makes room */
    struct progress has;   /* the best of its links: counts */
    struct progress known; /* its last word, also of links that are gone (I3) */
};

static_assert(PEERS_MAX <= 64, "peers are bits of a word");
static_assert(PEERS_MAX > REPLICAS_MAX, "there is always a peer without a link to make room");

struct link_slot {
    /* under the lock */
    struct progress has; /* what this link has acknowledged */
    enum replica_state state;
    uint64_t order; /* of coming */
    int64_t joined_us;
    struct ear *ear;
    /* atomic, changed under the lock but for 'sent' */
    _Atomic int32_t peer; /* index, -1 = free */
    _Atomic uint32_t online;
    _Atomic int64_t noted_us;
    _Atomic uint64_t sent_lsn, sent_bytes; /* by the link's own thread */
};

struct replicas {
    struct replicas_opts o; /* constant, like the two below, while there are links */
    void (*asked)(void *arg);
    void *asked_arg;
    struct lock lock;
    /* under the lock */
    struct link_slot slots[REPLICAS_MAX];
    struct peer peers[PEERS_MAX];
    uint64_t joined; /* counts arrivals and departures */
    /* atomic */
    _Atomic uint64_t marks[2][REPLICAS_MAX + 1]; /* [disk][n] */
    _Atomic uint32_t known, links;
    _Atomic bool wanted;
    _Atomic uint64_t moves;
    _Atomic uint64_t hurry_lsn;
    _Atomic int64_t asked_us;
    _Atomic uint64_t ears_moves;
};

struct replicas *replicas_create(const struct replicas_opts *opts) {
    struct replicas *r = mem_must_zalloc(sizeof(*r));
    r->o = *opts;
    lock_init(&r->lock, LOCK_RANK_REPLICAS);
    for (uint32_t i = 0; i < REPLICAS_MAX; i++) {
        atomic_init(&r->slots[i].peer, -1);
    }
    atomic_init(&r->ears_moves, 1);
    atomic_init(&r->marks[false][0], UINT64_MAX);
    atomic_init(&r->marks[true][0], UINT64_MAX);
    return r;
}

void replicas_destroy(struct replicas *r) {
    if (r != NULL) {
        lock_fini(&r->lock);
        mem_free(r);
    }
}

/* --- who wants to be told ---------------------------------------------------------------------------- */

void replicas_want(struct replicas *r) {
    atomic_store_explicit(&r->wanted, true, memory_order_seq_cst);
}

uint64_t replicas_moves(const struct replicas *r) {
    return atomic_load_explicit(&r->moves, memory_order_seq_cst);
}

/* Behind a change, without the lock. I4: the marks are stored before, 'wanted' is looked at after; who wants does it the other way round. */
static void tell(struct replicas *r) {
    atomic_fetch_add_explicit(&r->moves, 1, memory_order_seq_cst);
    if (r->o.moved != NULL && atomic_load_explicit(&r->wanted, memory_order_seq_cst) &&
        atomic_exchange_explicit(&r->wanted, false, memory_order_seq_cst)) {
        r->o.moved(r->o.arg);
    }
}

/* True when it has risen. */
static bool rise(_Atomic uint64_t *mark, uint64_t lsn) {
    uint64_t before = atomic_load_explicit(mark, memory_order_relaxed);
    while (before < lsn && !atomic_compare_exchange_weak_explicit(
                               mark, &before, lsn, memory_order_seq_cst, memory_order_relaxed)) {}
    return before < lsn;
}

void replicas_hurry(struct replicas *r, uint64_t lsn) {
    if (rise(&r->hurry_lsn, lsn) && r->asked != NULL) {
        r->asked(r->asked_arg);
    }
}

void replicas_ask(struct replicas *r, int64_t now_us) {
    int64_t before = atomic_load_explicit(&r->asked_us, memory_order_relaxed);
    if (dc_unlikely(before == 0 || now_us - before >= REPLICAS_ASK_US) &&
        atomic_compare_exchange_strong_explicit(&r->asked_us, &before, now_us, memory_order_seq_cst,
                                                memory_order_relaxed) &&
        r->asked != NULL) {
        r->asked(r->asked_arg);
    }
}

int64_t replicas_asked_us(const struct replicas *r) {
    return atomic_load_explicit(&r->asked_us, memory_order_acquire);
}

void replicas_on_ask(struct replicas *r, void (*asked)(void *arg), void *arg) {
    r->asked = asked;
    r->asked_arg = arg;
}

uint64_t replicas_hurry_lsn(const struct replicas *r) {
    return atomic_load_explicit(&r->hurry_lsn, memory_order_acquire);
}

/* --- marks ------------------------------------------------------------------------------------------- */

uint64_t replicas_mark(const struct replicas *r, uint32_t n, bool disk) {
    return n > REPLICAS_MAX ? 0 : atomic_load_explicit(&r->marks[disk][n], memory_order_seq_cst);
}

/* Into a list that falls; the smallest is lost when it is full. */
static void insert(uint64_t *sorted, uint32_t *count, uint64_t lsn) {
    uint32_t i = *count < REPLICAS_MAX ? (*count)++ : REPLICAS_MAX - 1;
    for (; i > 0 && sorted[i - 1] < lsn; i--) {
        sorted[i] = sorted[i - 1];
    }
    sorted[i] = lsn;
}

/* The n-th highest of what peers have is what n of them have. True when a mark has risen. */
static bool raise_marks_locked(struct replicas *r, bool disk, bool known) DC_REQUIRES(r->lock) {
    uint64_t sorted[REPLICAS_MAX];
    uint32_t count = 0;
    bool risen = false;
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        const struct peer *p = &r->peers[i];
        const struct progress *has = known ? &p->known : &p->has;
        if (p->used) {
            insert(sorted, &count, disk ? has->durable : has->received);
        }
    }
    for (uint32_t n = 1; n <= count; n++) {
        risen |= rise(&r->marks[disk][n], sorted[n - 1]); /* I1 */
    }
    return risen;
}

/* Of the links of a peer the best counts (I2). */
static struct progress best_locked(struct replicas *r, int32_t peer) DC_REQUIRES(r->lock) {
    struct progress best = {0, 0, 0};
    for (uint32_t i = 0; i < REPLICAS_MAX; i++) {
        const struct link_slot *s = &r->slots[i];
        if (atomic_load_explicit(&s->peer, memory_order_relaxed) == peer) {
            best.received = s->has.received > best.received ? s->has.received : best.received;
            best.durable = s->has.durable > best.durable ? s->has.durable : best.durable;
            best.applied = s->has.applied > best.applied ? s->has.applied : best.applied;
        }
    }
    return best;
}

uint32_t replicas_count_at(struct replicas *r, uint64_t lsn, bool disk) {
    uint32_t count = 0;
    lock_acquire(&r->lock);
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        const struct peer *p = &r->peers[i];
        count +=
            p->links > 0 && p->has.received > 0 && (disk ? p->has.durable : p->has.received) >= lsn;
    }
    lock_release(&r->lock);
    return count;
}

uint32_t replicas_good(const struct replicas *r, int64_t max_lag_ms, int64_t now_us) {
    uint64_t seen = 0;
    for (uint32_t i = 0; i < REPLICAS_MAX; i++) {
        const struct link_slot *s = &r->slots[i];
        int32_t peer = atomic_load_explicit(&s->peer, memory_order_relaxed);
        if (peer >= 0 && atomic_load_explicit(&s->online, memory_order_relaxed) &&
            now_us - atomic_load_explicit(&s->noted_us, memory_order_relaxed) <=
                max_lag_ms * 1000) {
            seen |= (uint64_t)1 << peer;
        }
    }
    return (uint32_t)__builtin_popcountll(seen);
}

uint32_t replicas_link_count(const struct replicas *r) {
    return atomic_load_explicit(&r->links, memory_order_relaxed);
}

uint32_t replicas_known_count(const struct replicas *r) {
    return atomic_load_explicit(&r->known, memory_order_relaxed);
}

/* --- peers ------------------------------------------------------------------------------------------- */

static struct peer *find_locked(struct replicas *r, const uint8_t *id) DC_REQUIRES(r->lock) {
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        if (r->peers[i].used && memcmp(r->peers[i].id, id, PEER_ID_LEN) == 0) {
            return &r->peers[i];
        }
    }
    return NULL;
}

/* The peer's index; a new one takes the place of who has been away for longest. */
static int32_t peer_locked(struct replicas *r, const uint8_t *id) DC_REQUIRES(r->lock) {
    const struct peer *found = find_locked(r, id);
    int32_t oldest = -1;
    if (found != NULL) {
        return (int32_t)(found - r->peers);
    }
    for (int32_t i = 0; i < PEERS_MAX; i++) {
        const struct peer *p = &r->peers[i];
        if (p->links == 0 &&
            (oldest < 0 || (p->used ? p->last_use : 0) < r->peers[oldest].last_use)) {
            oldest = i;
        }
    }
    struct peer *p = &r->peers[oldest];
    if (!p->used) {
        atomic_fetch_add_explicit(&r->known, 1, memory_order_relaxed);
    }
    *p = (struct peer){.used = true};
    memcpy(p->id, id, PEER_ID_LEN);
    return oldest;
}

/* It has just been heard of, at this address. */
static int32_t heard_locked(struct replicas *r, const uint8_t *id, const char *addr, uint16_t port)
    DC_REQUIRES(r->lock) {
    int32_t index = peer_locked(r, id);
    struct peer *p = &r->peers[index];
    snprintf(p->addr, sizeof(p->addr), "%s", addr);
    p->port = port;
    p->last_use = ++r->joined;
    return index;
}

void replicas_know(struct replicas *r, const uint8_t *peer, const char *addr, uint16_t port,
                   uint64_t received, uint64_t durable) {
    lock_acquire(&r->lock);
    r->peers[heard_locked(r, peer, addr, port)].known = (struct progress){received, durable, 0};
    bool risen = raise_marks_locked(r, false, true);
    risen |= raise_marks_locked(r, true, true);
    lock_release(&r->lock);
    if (risen) {
        tell(r);
    }
}

bool replicas_meet(struct replicas *r, const uint8_t *peer, const char *addr, uint16_t port) {
    lock_acquire(&r->lock);
    bool is_new = find_locked(r, peer) == NULL;
    if (is_new) {
        (void)heard_locked(r, peer, addr, port);
    }
    lock_release(&r->lock);
    if (is_new) {
        tell(r); /* a quorum may be larger now */
    }
    return is_new;
}

/* NULL = it isn't known, or it is attached. */
static struct peer *away_locked(struct replicas *r, const uint8_t *id) DC_REQUIRES(r->lock) {
    struct peer *p = find_locked(r, id);
    return p != NULL && p->links == 0 ? p : NULL;
}

static void forget_locked(struct replicas *r, struct peer *p) DC_REQUIRES(r->lock) {
    *p = (struct peer){.used = false};
    atomic_fetch_sub_explicit(&r->known, 1, memory_order_relaxed);
}

void replicas_forget(struct replicas *r, const uint8_t *peer) {
    lock_acquire(&r->lock);
    struct peer *p = away_locked(r, peer);
    if (p != NULL) {
        forget_locked(r, p);
    }
    lock_release(&r->lock);
    tell(r); /* a quorum may be smaller now */
}

void replicas_replace(struct replicas *r, const uint8_t *peer, const uint8_t *by) {
    lock_acquire(&r->lock);
    struct peer *p = away_locked(r, peer);
    if (p != NULL && find_locked(r, by) != NULL) {
        forget_locked(r, p);
    } else if (p != NULL) {
        p->has = p->known = (struct progress){0, 0, 0};
        memcpy(p->id, by, PEER_ID_LEN);
    }
    lock_release(&r->lock);
    tell(r);
}

/* --- links ------------------------------------------------------------------------------------------- */

static int32_t join_locked(struct replicas *r, const uint8_t *peer, const char *addr, uint16_t port)
    DC_REQUIRES(r->lock) {
    int32_t i = 0;
    while (i < REPLICAS_MAX && atomic_load_explicit(&r->slots[i].peer, memory_order_relaxed) >= 0) {
        i++;
    }
    if (i == REPLICAS_MAX) {
        return -1;
    }
    struct link_slot *s = &r->slots[i];
    int32_t index = heard_locked(r, peer, addr, port);
    r->peers[index].links++;
    atomic_fetch_add_explicit(&r->links, 1, memory_order_relaxed);
    s->has = (struct progress){0, 0, 0};
    s->state = REPLICA_GREETS;
    s->order = r->joined;
    s->joined_us = time_mono_us();
    atomic_store_explicit(&s->online, false, memory_order_relaxed);
    atomic_store_explicit(&s->noted_us, 0, memory_order_relaxed);
    atomic_store_explicit(&s->sent_lsn, 0, memory_order_relaxed);
    atomic_store_explicit(&s->sent_bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&s->peer, index, memory_order_relaxed);
    return i;
}

int32_t replicas_join(struct replicas *r, const uint8_t *peer, const char *addr, uint16_t port) {
    lock_acquire(&r->lock);
    int32_t slot = join_locked(r, peer, addr, port);
    lock_release(&r->lock);
    if (slot >= 0) {
        tell(r); /* a quorum may be larger now */
    }
    return slot;
}

void replicas_set_ear(struct replicas *r, int32_t slot, struct ear *ear) {
    dc_assert(slot >= 0 && slot < REPLICAS_MAX);
    lock_acquire(&r->lock);
    r->slots[slot].ear = ear;
    atomic_fetch_add_explicit(&r->ears_moves, ear != NULL, memory_order_relaxed);
    lock_release(&r->lock);
}

uint32_t replicas_ears(struct replicas *r, struct ear **to) {
    uint32_t count = 0;
    lock_acquire(&r->lock);
    for (uint32_t i = 0; i < REPLICAS_MAX; i++) {
        if (r->slots[i].ear != NULL) {
            to[count++] = ear_acquire(r->slots[i].ear);
        }
    }
    lock_release(&r->lock);
    return count;
}

uint64_t replicas_ears_moves(const struct replicas *r) {
    return atomic_load_explicit(&r->ears_moves, memory_order_relaxed);
}

static struct link_slot *slot_of(struct replicas *r, int32_t slot) {
    dc_assert(slot >= 0 && slot < REPLICAS_MAX);
    struct link_slot *s = &r->slots[slot];
    dc_assert(atomic_load_explicit(&s->peer, memory_order_relaxed) >= 0);
    return s;
}

void replicas_leave(struct replicas *r, int32_t slot) {
    struct link_slot *s = slot_of(r, slot);
    lock_acquire(&r->lock);
    int32_t index = atomic_load_explicit(&s->peer, memory_order_relaxed);
    atomic_store_explicit(&s->peer, -1, memory_order_relaxed);
    struct peer *p = &r->peers[index];
    dc_assert(p->links > 0);
    p->links--;
    atomic_fetch_sub_explicit(&r->links, 1, memory_order_relaxed);
    p->last_use = ++r->joined;
    p->has = best_locked(r, index);
    lock_release(&r->lock);
    tell(r);
}

void replicas_set_state(struct replicas *r, int32_t slot, enum replica_state state) {
    struct link_slot *s = slot_of(r, slot);
    lock_acquire(&r->lock);
    s->state = state;
    atomic_store_explicit(&s->online, state == REPLICA_ONLINE, memory_order_relaxed);
    lock_release(&r->lock);
    tell(r);
}

void replicas_note(struct replicas *r, int32_t slot, uint64_t received, uint64_t durable,
                   uint64_t applied, int64_t now_us) {
    struct link_slot *s = slot_of(r, slot);
    durable = durable < received ? durable : received; /* a peer's word isn't trusted with more */
    applied = applied < received ? applied : received;
    lock_acquire(&r->lock);
    int32_t index = atomic_load_explicit(&s->peer, memory_order_relaxed);
    struct peer *p = &r->peers[index];
    bool more = received > s->has.received || durable > s->has.durable;
    s->has = (struct progress){received, durable, applied};
    p->has = p->links > 1 ? best_locked(r, index) : s->has;
    p->known = p->has;
    atomic_store_explicit(&s->noted_us, now_us, memory_order_relaxed);
    if (more) {
        (void)raise_marks_locked(r, false, false);
        (void)raise_marks_locked(r, true, false);
    }
    lock_release(&r->lock);
    if (more) {
        tell(r); /* WAIT counts peers, also those that raise no mark */
    }
}

void replicas_note_beat(struct replicas *r, int32_t slot, uint64_t head, int64_t now_us) {
    struct link_slot *s = slot_of(r, slot);
    if (head >= atomic_load_explicit(&s->sent_lsn, memory_order_relaxed)) {
        atomic_store_explicit(&s->noted_us, now_us, memory_order_relaxed);
    }
}

void replicas_note_sent(struct replicas *r, int32_t slot, uint64_t lsn, uint64_t bytes) {
    struct link_slot *s = slot_of(r, slot);
    uint64_t before = atomic_load_explicit(&s->sent_bytes, memory_order_relaxed);
    atomic_store_explicit(&s->sent_bytes, before + bytes, memory_order_relaxed); /* one writer */
    atomic_store_explicit(&s->sent_lsn, lsn, memory_order_relaxed);
}

/* --- what is told ------------------------------------------------------------------------------------ */

static struct replica_seen see_peer(const struct peer *p) {
    struct replica_seen seen = {.port = p->port,
                                .slot = -1,
                                .received = p->known.received,
                                .durable = p->known.durable,
                                .applied = p->known.applied};
    memcpy(seen.peer, p->id, PEER_ID_LEN);
    memcpy(seen.addr, p->addr, sizeof(seen.addr));
    return seen;
}

static struct replica_seen see_link_locked(struct replicas *r, int32_t slot) DC_REQUIRES(r->lock) {
    const struct link_slot *s = &r->slots[slot];
    struct replica_seen seen =
        see_peer(&r->peers[atomic_load_explicit(&s->peer, memory_order_relaxed)]);
    seen.slot = slot;
    seen.state = s->state;
    seen.received = s->has.received;
    seen.durable = s->has.durable;
    seen.applied = s->has.applied;
    seen.sent_lsn = atomic_load_explicit(&s->sent_lsn, memory_order_relaxed);
    seen.sent_bytes = atomic_load_explicit(&s->sent_bytes, memory_order_relaxed);
    seen.joined_us = s->joined_us;
    seen.noted_us = atomic_load_explicit(&s->noted_us, memory_order_relaxed);
    return seen;
}

/* The link that came next behind 'order'; -1 = none. */
static int32_t next_link_locked(struct replicas *r, uint64_t order) DC_REQUIRES(r->lock) {
    int32_t next = -1;
    for (int32_t i = 0; i < REPLICAS_MAX; i++) {
        const struct link_slot *s = &r->slots[i];
        if (atomic_load_explicit(&s->peer, memory_order_relaxed) >= 0 && s->order > order &&
            (next < 0 || s->order < r->slots[next].order)) {
            next = i;
        }
    }
    return next;
}

const char *replica_state_name(enum replica_state state) {
    return state == REPLICA_ONLINE   ? "online"
           : state == REPLICA_COPIES ? "send_bulk"
                                     : "wait_bgsave";
}

int64_t replica_silence_us(const struct replica_seen *seen, int64_t now_us) {
    int64_t heard_us = seen->noted_us != 0 ? seen->noted_us : seen->joined_us;
    return now_us > heard_us ? now_us - heard_us : 0;
}

void replicas_each(struct replicas *r, void (*each)(const struct replica_seen *seen, void *arg),
                   void *arg) {
    struct replica_seen all[REPLICAS_MAX + PEERS_MAX];
    uint32_t count = 0;
    lock_acquire(&r->lock);
    for (int32_t i = next_link_locked(r, 0); i >= 0; i = next_link_locked(r, r->slots[i].order)) {
        all[count++] = see_link_locked(r, i);
    }
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        if (r->peers[i].used && r->peers[i].links == 0) {
            all[count++] = see_peer(&r->peers[i]);
        }
    }
    lock_release(&r->lock);
    for (uint32_t i = 0; i < count; i++) {
        each(&all[i], arg);
    }
}
