/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/peers.h"

#include "server/base/assert.h"
#include "server/base/mem.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum {
    ASK_AGAIN_MS = 200,
    WATCH_AGAIN_MS = 1000,
    LONELY_MS = 1000,
    PULLS_MAX = 3,                    /* from one peer, behind the time that is given */
    FORGET_MS = 7 * 24 * 3600 * 1000, /* unheard for so long it makes room for another */
};

struct known {
    struct peers_entry entry;
    struct chain_peer peer; /* its view points to 'chain' */
    struct history *chain;
    bool asked;     /* the answer is under way (I1) */
    bool stale;     /* and will be too old */
    uint32_t pulls; /* that failed */
    int64_t ask_ms; /* not before */
    int64_t heard_ms;
};

enum state { RESTING, ASKING, WATCHING };

struct peers {
    struct peers_opts opts;
    struct known *known[PEERS_MAX];
    uint32_t count;
    enum state state;
    /* ASKING */
    enum peers_why why;
    int64_t timeout_ms;
    int64_t deadline_ms;
    int64_t until_ms; /* when peers_next() wanted to be called again */
    bool began_anew;  /* after a freeze; once */
    bool pulling;
    struct chain_rank began_rank; /* of this node, when it began to ask */
    uint64_t began_head;
    /* WATCHING */
    int64_t lonely_ms; /* since when there is no majority; INT64_MAX = there is */
};

static int64_t or_default(int64_t value, int64_t otherwise) {
    return value > 0 ? value : otherwise;
}

struct peers *peers_create(const struct peers_opts *opts) {
    struct peers *p = mem_must_zalloc(sizeof(*p));
    p->opts.ask_again_ms = or_default(opts->ask_again_ms, ASK_AGAIN_MS);
    p->opts.watch_again_ms = or_default(opts->watch_again_ms, WATCH_AGAIN_MS);
    p->opts.lonely_ms = or_default(opts->lonely_ms, LONELY_MS);
    p->lonely_ms = INT64_MAX;
    return p;
}

static void destroy_known(struct known *k) {
    mem_free(k->chain);
    mem_free(k);
}

void peers_destroy(struct peers *p) {
    for (uint32_t i = 0; p != NULL && i < p->count; i++) {
        destroy_known(p->known[i]);
    }
    mem_free(p);
}

/* --- the list -------------------------------------------------------------------------------------------------- */

static uint32_t index_of(const struct peers *p, const uint8_t id[PEER_ID_LEN]) {
    uint32_t i = 0;
    while (i < p->count && memcmp(p->known[i]->entry.id, id, PEER_ID_LEN) != 0) {
        i++;
    }
    return i;
}

static struct known *find(const struct peers *p, const uint8_t id[PEER_ID_LEN]) {
    uint32_t i = index_of(p, id);
    return i < p->count ? p->known[i] : NULL;
}

void peers_forget(struct peers *p, const uint8_t id[PEER_ID_LEN]) {
    uint32_t i = index_of(p, id);
    if (i < p->count) {
        destroy_known(p->known[i]);
        p->known[i] = p->known[--p->count];
    }
}

static bool make_room(struct peers *p, int64_t now_ms) {
    const struct known *oldest = NULL;
    for (uint32_t i = 0; i < p->count; i++) {
        const struct known *k = p->known[i];
        if (!k->entry.linked && now_ms - k->heard_ms > FORGET_MS &&
            (oldest == NULL || k->heard_ms < oldest->heard_ms)) {
            oldest = k;
        }
    }
    if (oldest != NULL) {
        peers_forget(p, oldest->entry.id);
    }
    return oldest != NULL;
}

bool peers_learn(struct peers *p, const uint8_t id[PEER_ID_LEN], const char *host, uint16_t port,
                 int64_t now_ms) {
    struct known *k = find(p, id);
    if (k == NULL) {
        if (p->count == PEERS_MAX && !make_room(p, now_ms)) {
            return false;
        }
        k = mem_must_zalloc(sizeof(*k));
        memcpy(k->entry.id, id, PEER_ID_LEN);
        k->heard_ms = now_ms;
        p->known[p->count++] = k;
    }
    snprintf(k->entry.host, sizeof(k->entry.host), "%s", host);
    k->entry.port = port;
    return true;
}

uint32_t peers_count(const struct peers *p) {
    return p->count;
}

bool peers_entry(const struct peers *p, uint32_t index, struct peers_entry *out) {
    if (index < p->count) {
        *out = p->known[index]->entry;
    }
    return index < p->count;
}

/* --- what the node is ------------------------------------------------------------------------------------------ */

void peers_ask(struct peers *p, enum peers_why why, const struct chain_view *self, int64_t now_ms,
               int64_t timeout_ms) {
    p->state = ASKING;
    p->why = why;
    p->timeout_ms = timeout_ms;
    p->deadline_ms = now_ms + timeout_ms;
    p->until_ms = now_ms;
    p->began_anew = false;
    p->pulling = false;
    p->began_rank = chain_rank(self);
    p->began_head = self->head;
    for (uint32_t i = 0; i < p->count; i++) {
        struct known *k = p->known[i];
        k->peer.contact = CHAIN_SILENT;
        k->peer.spent = false;
        k->pulls = 0;
        k->ask_ms = now_ms;
    }
}

void peers_note_strange(struct peers *p) {
    p->began_rank = (struct chain_rank){0, 0};
}

void peers_rest(struct peers *p) {
    p->state = RESTING;
}

void peers_watch(struct peers *p) {
    p->state = WATCHING;
    p->lonely_ms = INT64_MAX;
}

/* --- events ---------------------------------------------------------------------------------------------------- */

void peers_link(struct peers *p, const uint8_t id[PEER_ID_LEN], bool up, int64_t now_ms) {
    struct known *k = find(p, id);
    if (k != NULL) {
        k->entry.linked = up;
        k->heard_ms = now_ms;
    }
}

static int64_t again_ms(const struct peers *p) {
    return p->state == WATCHING ? p->opts.watch_again_ms : p->opts.ask_again_ms;
}

static struct known *end_question(struct peers *p, const uint8_t id[PEER_ID_LEN], int64_t now_ms) {
    struct known *k = find(p, id);
    if (k == NULL || !k->asked) {
        return NULL; /* I3; or forgotten meanwhile */
    }
    bool stale = k->stale;
    k->asked = k->stale = false;
    k->ask_ms = stale ? now_ms : now_ms + again_ms(p);
    return stale ? NULL : k;
}

void peers_answered(struct peers *p, const uint8_t id[PEER_ID_LEN], const struct chain_view *view,
                    int64_t now_ms) {
    if (!chain_is_sane(view)) {
        peers_silent(p, id, now_ms);
        return;
    }
    struct known *k = end_question(p, id, now_ms);
    if (k == NULL) {
        return;
    }
    size_t len = view->count * sizeof(*view->chain);
    k->chain = mem_must_realloc(k->chain, len + 1);
    if (len > 0) {
        memcpy(k->chain, view->chain, len);
    }
    k->peer.view = *view;
    k->peer.view.chain = k->chain;
    k->peer.contact = CHAIN_ANSWERED;
    k->heard_ms = now_ms;
}

void peers_silent(struct peers *p, const uint8_t id[PEER_ID_LEN], int64_t now_ms) {
    struct known *k = end_question(p, id, now_ms);
    if (k != NULL && k->peer.contact != CHAIN_ANSWERED) { /* what it said before still counts */
        k->peer.contact = CHAIN_UNREACHABLE;
    }
}

void peers_pulled(struct peers *p, const uint8_t id[PEER_ID_LEN], bool all, int64_t now_ms) {
    struct known *k = find(p, id);
    p->pulling = false;
    if (k == NULL) {
        return;
    }
    /* All: it may have less now than it said, after a power cut of its own. Not all: perhaps only the connection broke. */
    k->ask_ms = now_ms + again_ms(p);
    k->peer.spent = all || (++k->pulls >= PULLS_MAX && now_ms >= p->deadline_ms);
}

bool peers_replace(struct peers *p, const uint8_t id[PEER_ID_LEN], const uint8_t by[PEER_ID_LEN],
                   int64_t now_ms) {
    const struct known *k = find(p, id);
    const struct known *other = find(p, by);
    if (k == NULL || (other != NULL && (other->entry.port != k->entry.port ||
                                        strcmp(other->entry.host, k->entry.host) != 0))) {
        peers_silent(p, id, now_ms);
        return false;
    }
    struct peers_entry at = k->entry;
    peers_forget(p, id);
    return peers_learn(p, by, at.host, at.port, now_ms);
}

/* --- actions --------------------------------------------------------------------------------------------------- */

static struct peers_todo nothing_until(int64_t until_ms) {
    return (struct peers_todo){.action = PEERS_NOTHING, .until_ms = until_ms};
}

static struct peers_todo with(enum peers_action action, const struct known *k) {
    return (struct peers_todo){.action = action, .peer = k->entry};
}

static struct peers_todo give_way(struct peers *p, enum peers_action action,
                                  const struct known *k) {
    p->state = RESTING;
    struct peers_todo todo = with(action, k);
    todo.rank = chain_rank(&k->peer.view);
    todo.epoch = todo.rank.epoch;
    return todo;
}

/* The next question that is due, else when there will be one. Who has answered is asked again: its log may grow. */
static struct peers_todo probe_or_wait(struct peers *p, int64_t now_ms, int64_t until_ms) {
    for (uint32_t i = 0; i < p->count; i++) {
        struct known *k = p->known[i];
        if (k->asked || (p->state == WATCHING && k->entry.linked)) {
            continue;
        }
        if (k->ask_ms <= now_ms) {
            k->asked = true;
            return with(PEERS_PROBE, k);
        }
        until_ms = k->ask_ms < until_ms ? k->ask_ms : until_ms;
    }
    return nothing_until(until_ms);
}

static struct peers_todo go_on(struct peers *p, const struct chain_view *self,
                               const struct chain_pull *pull) {
    struct chain_rank now = chain_rank(self);
    /* What was pulled may be the history of another primary, which may still be one; so may who has a higher epoch. Whoever follows takes that epoch over,
     * and would refuse a lower history. */
    bool higher = pull->epoch > now.epoch;
    bool strange = chain_compare(now, p->began_rank) != 0 || higher;
    peers_watch(p);
    return (struct peers_todo){
        .action = PEERS_GO_ON,
        .forks = p->why != PEERS_CLEAN_START || self->head != p->began_head || higher,
        .fork = p->why == PEERS_PROMOTED || strange ? CHAIN_PROMOTION : CHAIN_UNCLEAN,
        .missing = pull->missing,
        .epoch = pull->epoch};
}

static enum chain_patience patience_of(enum peers_why why) {
    switch (why) {
    case PEERS_CLEAN_START:
    case PEERS_KILLED:
        return CHAIN_FOR_ONE;
    case PEERS_POWER_CUT:
        return CHAIN_FOR_ALL;
    case PEERS_PROMOTED:
        return CHAIN_FOR_REACHABLE;
    }
    dc_unreachable();
}

/* A process that was frozen finds its time over, and answers that it hasn't read. */
static bool is_time_up(const struct peers *p, int64_t now_ms) {
    for (uint32_t i = 0; i < p->count; i++) {
        if (p->known[i]->asked) {
            return false;
        }
    }
    return now_ms >= p->deadline_ms;
}

static struct chain_pull judge(const struct peers *p, const struct chain_view *self, int64_t now_ms,
                               struct known **who) {
    struct chain_peer peers[PEERS_MAX] = {0};
    for (uint32_t i = 0; i < p->count; i++) {
        peers[i] = p->known[i]->peer;
    }
    struct chain_pull pull = chain_pull(
        self, peers, p->count, is_time_up(p, now_ms) ? CHAIN_TIME_IS_UP : patience_of(p->why),
        p->why == PEERS_PROMOTED);
    *who = p->known[pull.index];
    return pull;
}

/* The process was frozen for long: what it heard, and what waits to be read, is of another time. */
static void begin_anew(struct peers *p, int64_t now_ms) {
    p->began_anew = true;
    p->deadline_ms = now_ms + p->timeout_ms;
    for (uint32_t i = 0; i < p->count; i++) {
        struct known *k = p->known[i];
        k->peer.contact = CHAIN_SILENT;
        k->stale = k->asked;
        k->ask_ms = now_ms;
    }
}

static struct peers_todo ask(struct peers *p, const struct chain_view *self, int64_t now_ms) {
    struct known *k;
    if (p->pulling) {
        return nothing_until(INT64_MAX);
    }
    if (!p->began_anew && p->until_ms < now_ms - 2 * p->opts.ask_again_ms) {
        begin_anew(p, now_ms);
    }
    struct chain_pull pull = judge(p, self, now_ms, &k);
    switch (pull.step) {
    case CHAIN_PULL_WAIT:
        return now_ms < p->deadline_ms ? probe_or_wait(p, now_ms, p->deadline_ms)
                                       : nothing_until(INT64_MAX);
    case CHAIN_PULL_FROM:
        if (k->pulls > 0 && k->ask_ms > now_ms) {
            return nothing_until(k->ask_ms);
        }
        p->pulling = true;
        return with(PEERS_PULL, k);
    case CHAIN_PULL_FOLLOW:
        return give_way(p, PEERS_FOLLOW, k);
    case CHAIN_PULL_FENCE:
        return give_way(p, PEERS_FENCE, k);
    case CHAIN_PULL_GO_ON:
        return go_on(p, self, &pull);
    }
    dc_unreachable();
}

static bool has_majority(const struct peers *p) {
    uint32_t linked = 0;
    for (uint32_t i = 0; i < p->count; i++) {
        linked += p->known[i]->entry.linked;
    }
    return 2 * (linked + 1) > p->count + 1;
}

/* A primary that lost its followers may have been replaced. */
static struct peers_todo watch(struct peers *p, const struct chain_view *self, int64_t now_ms) {
    if (has_majority(p)) {
        p->lonely_ms = INT64_MAX;
        return nothing_until(INT64_MAX);
    }
    if (p->lonely_ms == INT64_MAX) {
        p->lonely_ms = now_ms;
        for (uint32_t i = 0; i < p->count; i++) {
            p->known[i]->peer.contact = CHAIN_SILENT; /* what was said before is no evidence */
        }
    }
    for (uint32_t i = 0; i < p->count; i++) {
        struct known *k = p->known[i];
        if (k->peer.contact == CHAIN_ANSWERED && chain_may_fence(self, &k->peer.view)) {
            return give_way(p, PEERS_FENCE, k);
        }
    }
    int64_t begin_ms = p->lonely_ms + p->opts.lonely_ms;
    return now_ms < begin_ms ? nothing_until(begin_ms) : probe_or_wait(p, now_ms, INT64_MAX);
}

struct peers_todo peers_next(struct peers *p, const struct chain_view *self, int64_t now_ms) {
    switch (p->state) {
    case RESTING:
        return nothing_until(INT64_MAX);
    case ASKING:
        break;
    case WATCHING:
        return watch(p, self, now_ms);
    }
    struct peers_todo todo = ask(p, self, now_ms);
    p->until_ms = todo.action == PEERS_NOTHING ? todo.until_ms : INT64_MAX;
    return todo;
}
