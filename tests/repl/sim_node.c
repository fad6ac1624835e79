/* SPDX-License-Identifier: BSD-3-Clause */
/* A node: its log, its role, its starts and ends. */
#include "tests/repl/sim.h"

#include "server/base/assert.h"
#include "server/base/mem.h"

#include <inttypes.h>
#include <string.h>

/* Changes with the disk. */
void node_id(const struct node *n, uint8_t id[PEER_ID_LEN]) {
    memset(id, 0, PEER_ID_LEN);
    id[0] = (uint8_t)(n->place + 1);
    id[1] = (uint8_t)n->disks;
}

uint64_t node_head(const struct node *n) {
    return n->count == 0 ? 0 : n->frames[n->count - 1].end;
}

struct chain_view node_view(const struct node *n) {
    return (struct chain_view){.chain = n->chain,
                               .count = n->chain_count,
                               .head = node_head(n),
                               .epoch = n->epoch,
                               .role = n->role,
                               .empty = n->empty,
                               .linked = n->role == CHAIN_REPLICA && n->sink == SINK_STREAMS};
}

/* The number of frames that end at or before 'end'. */
uint32_t node_frame_at(const struct node *n, uint64_t end) {
    uint32_t low = 0;
    uint32_t high = n->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (n->frames[middle].end <= end) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

bool node_has_write(const struct sim *s, const struct node *n, uint32_t write) {
    uint32_t count = node_frame_at(n, s->writes[write].end);
    return count > 0 && n->frames[count - 1].write == write;
}

/* What follows from the frames. */
void node_rebuild(struct sim *s, struct node *n) {
    n->chain_count = 0;
    n->empty = true;
    for (uint32_t i = 0; i < n->count; i++) {
        if (n->frames[i].write == 0) {
            dc_assert(n->chain_count < CHAIN_ROOM);
            n->chain[n->chain_count++] = s->histories[n->frames[i].history];
        } else {
            n->empty = false;
        }
    }
    uint64_t epoch = n->chain_count == 0 ? 0 : n->chain[n->chain_count - 1].epoch;
    n->epoch = n->epoch > epoch ? n->epoch : epoch;
    n->oldest = n->oldest < n->count ? n->oldest : n->count;
}

void node_append(struct sim *s, struct node *n, const struct frame *f) {
    dc_assert(n->count < FRAMES_MAX);
    if (n->count > 0 && f->time_ms < n->frames[n->count - 1].time_ms) {
        sim_fail(s, "%c: the time in the log steps back", sim_name(n->place));
    }
    n->frames[n->count++] = *f;
    if (f->write != 0) {
        n->empty = false;
        return;
    }
    const struct history *h = &s->histories[f->history];
    dc_assert(n->chain_count < CHAIN_ROOM);
    n->chain[n->chain_count++] = *h;
    n->epoch = n->epoch > h->epoch ? n->epoch : h->epoch;
}

static void keep_frames(struct node *n, uint32_t count) {
    n->count = count;
    n->written = n->written < count ? n->written : count;
    n->durable = n->durable < count ? n->durable : count;
}

/* --- histories ------------------------------------------------------------------------------------------------- */

static int64_t node_clock(const struct sim *s, const struct node *n) {
    int64_t now_ms = s->now_ms + n->clock_off_ms;
    int64_t floor_ms = n->count == 0 ? 0 : n->frames[n->count - 1].time_ms;
    return now_ms > floor_ms ? now_ms : floor_ms;
}

void node_begin_history(struct sim *s, struct node *n, struct history h, const char *why) {
    dc_assert(s->history_count < HISTORIES_MAX);
    s->histories[s->history_count] = h;
    s->owner[s->history_count] = n->place;
    s->root[s->history_count] = n->chain_count > 0 ? n->chain[0].id : h.id;
    struct frame f = {.start = h.start,
                      .end = h.start + FORK_LEN,
                      .history = s->history_count,
                      .time_ms = node_clock(s, n)};
    s->history_count++;
    check_given(s, n, &f);
    node_append(s, n, &f);
    n->written = n->durable = n->count; /* before anything else */
    n->role = n->stored_role = CHAIN_PRIMARY;
    n->ask = (struct chain_ask){0};
    n->orders = 0;
    n->own_branch = n->stored_chosen = false;
    n->clean = n->power_was_cut = false;
    s->forks++;
    sim_say(s, "%c: begins H%" PRIu32 ", epoch %" PRIu64 ", behind %" PRIu64 " frames: %s",
            sim_name(n->place), f.history, h.epoch, (uint64_t)n->count - 1, why);
}

void node_fork(struct sim *s, struct node *n, enum chain_fork_kind kind, uint32_t missing) {
    struct chain_view self = node_view(n);
    struct history h;
    char why[64];
    uint64_t salt = rng_next(&s->rng); /* in this order with every compiler */
    uint64_t id = rng_next(&s->rng) | 1;
    if (chain_fork(&self, kind, id, salt, &h) != DC_OK) {
        sim_fail(s, "no LSNs are left");
        return;
    }
    snprintf(why, sizeof(why), "%s, %" PRIu32 " unheard",
             kind == CHAIN_PROMOTION ? "promoted" : "unclean", missing);
    check_begins(s, n);
    node_begin_history(s, n, h, why);
}

/* --- starts and ends ------------------------------------------------------------------------------------------- */

void node_down(struct sim *s, struct node *n) {
    struct peers_entry e;
    n->running = n->frozen = false;
    n->run++;
    n->heard = false;
    n->sink = SINK_IDLE;
    n->link = NULL;
    n->refused = NULL;
    n->pending_count = 0;
    n->pins = 0;
    n->pin_ms = 0;
    n->start_ms = 0;
    memset(n->acked, 0, sizeof(n->acked));
    for (uint32_t i = 0; peers_entry(n->peers, i, &e); i++) {
        peers_silent(n->peers, e.id, s->now_ms);
        peers_link(n->peers, e.id, false, s->now_ms);
    }
    peers_rest(n->peers);
}

void node_start(struct sim *s, struct node *n) {
    n->running = true;
    n->up_ms = s->now_ms;
    n->start_ms = 0;
    n->retry_ms = s->now_ms;
    n->sync_ms = s->now_ms + 100;
    node_rebuild(s, n);
    n->role = n->stored_role;
    if (n->role == CHAIN_REPLICA || n->role == CHAIN_FENCED) {
        sim_say(s, "%c: starts as %s", sim_name(n->place),
                n->role == CHAIN_REPLICA ? "replica" : "fenced primary");
        if (n->stored_chosen) {
            sim_promote(s, n->place);
        }
        return;
    }
    enum peers_why why = n->clean           ? PEERS_CLEAN_START
                         : n->power_was_cut ? PEERS_POWER_CUT
                                            : PEERS_KILLED;
    struct chain_view self = node_view(n);
    n->role = CHAIN_PULLING;
    sim_say(s, "%c: starts as primary %s, asks %" PRIu32 " peers", sim_name(n->place),
            n->clean           ? "after a clean end"
            : n->power_was_cut ? "after a power cut"
                               : "after a kill",
            peers_count(n->peers));
    n->asked_ms = s->now_ms;
    n->chosen = n->heard = false;
    peers_ask(n->peers, why, &self, s->now_ms, s->opts.pull_ms);
    if (n->count > 0 && s->owner[n->frames[n->count - 1].history] != n->place) {
        peers_note_strange(n->peers);
    }
    if (n->stored_chosen) {
        sim_promote(s, n->place);
    }
}

void node_restart_in_place(struct sim *s, struct node *n) {
    node_down(s, n);
    n->start_ms = s->now_ms + 2 * SIM_STEP_MS;
}

void sim_kill(struct sim *s, uint32_t node) {
    struct node *n = &s->nodes[node];
    if (n->running) {
        sim_say(s, "%c: killed", sim_name(node));
        node_down(s, n);
        check_dropped(s, n, n->written, false);
        keep_frames(n, n->written);
        n->clean = false;
    }
}

void sim_power_cut(struct sim *s, uint32_t node) {
    struct node *n = &s->nodes[node];
    uint32_t spare = n->written - n->durable;
    uint32_t left = n->durable + (s->opts.steady ? 0 : (uint32_t)rng_below(&s->rng, spare + 1));
    node_down(s, n);
    sim_say(s, "%c: power cut, %" PRIu32 " of %" PRIu32 " frames are left", sim_name(node), left,
            n->count);
    check_dropped(s, n, left, false);
    keep_frames(n, left);
    n->written = n->durable = n->count;
    n->clean = false;
    n->power_was_cut = true;
}

void sim_lose_disk(struct sim *s, uint32_t node) {
    struct node *n = &s->nodes[node];
    node_down(s, n);
    sim_say(s, "%c: loses its disk", sim_name(node));
    check_dropped(s, n, 0, false);
    keep_frames(n, 0);
    n->oldest = 0;
    n->disks++;
    s->disk_lost_ms = s->now_ms;
    n->epoch = 0;
    n->shared = false;
    n->orders = 0;
    n->own_branch = n->stored_chosen = false;
    n->ask = (struct chain_ask){0};
    n->clean = n->power_was_cut = false;
    n->stored_role = n->stored_role == CHAIN_REPLICA ? CHAIN_REPLICA : CHAIN_PRIMARY; /* conf */
    peers_destroy(n->peers);
    n->peers = peers_create(
        &(struct peers_opts){.ask_again_ms = 50, .watch_again_ms = 200, .lonely_ms = 200});
    node_rebuild(s, n);
}

void sim_stop(struct sim *s, uint32_t node) {
    struct node *n = &s->nodes[node];
    if (n->running && !n->frozen) {
        sim_say(s, "%c: stops", sim_name(node));
        n->written = n->durable = n->count;
        n->clean = n->role == CHAIN_PRIMARY || n->role == CHAIN_FENCED;
        node_down(s, n);
    }
}

void sim_start(struct sim *s, uint32_t node) {
    if (!s->nodes[node].running) {
        node_start(s, &s->nodes[node]);
    }
}

void sim_thaw(struct sim *s, uint32_t node) {
    struct node *n = &s->nodes[node];
    n->up_ms = n->frozen ? s->now_ms : n->up_ms;
    n->frozen = false;
}

/* --- another data set ------------------------------------------------------------------------------------------ */

void node_cut(struct sim *s, struct node *n, uint64_t lsn) {
    uint32_t left = node_frame_at(n, lsn);
    sim_say(s, "%c: cuts its log, %" PRIu32 " of %" PRIu32 " frames are left", sim_name(n->place),
            left, n->count);
    check_dropped(s, n, left, true);
    n->cuts++;
    keep_frames(n, left);
    n->written = n->durable = n->count;
    node_restart_in_place(s, n);
}

static uint64_t epoch_of(const struct sim *s, const struct frame *frames, uint32_t count) {
    return count == 0 ? 0 : s->histories[frames[count - 1].history].epoch;
}

void node_adopt(struct sim *s, struct node *n, const struct frame *frames, uint32_t count) {
    sim_say(s, "%c: takes over a copy of %" PRIu32 " frames", sim_name(n->place), count);
    uint32_t same = 0;
    while (same < count && same < n->count && frames[same].end == n->frames[same].end &&
           frames[same].write == n->frames[same].write &&
           frames[same].history == n->frames[same].history) {
        same++;
    }
    /* An unrelated one of a higher epoch: what was acknowledged since a disk was lost is lost with it. */
    bool is_order = same > 0 || epoch_of(s, frames, count) <= epoch_of(s, n->frames, n->count);
    check_dropped(s, n, same, is_order);
    memcpy(n->frames, frames, count * sizeof(*frames));
    n->count = n->written = n->durable = n->oldest = count;
    n->copies++;
    n->shared = true; /* its source has it, too */
    node_restart_in_place(s, n);
}

/* --- orders ---------------------------------------------------------------------------------------------------- */

static void leave_source(struct node *n) {
    if (n->link != NULL) {
        net_close(n->link, 0);
    }
    n->link = NULL;
    n->sink = SINK_IDLE;
    n->refused = NULL;
}

static void end_pulls(struct sim *s, const struct node *n) {
    for (uint32_t i = 0; i < CONNS_MAX; i++) {
        struct conn *c = &s->conns[i];
        if (c->used && c->node[0] == n->place && c->open[0] && c->purpose == WIRE_PULL) {
            net_close(c, 0);
        }
    }
}

void sim_promote(struct sim *s, uint32_t node) {
    struct node *n = &s->nodes[node];
    if (!n->running || n->frozen || n->role == CHAIN_PRIMARY ||
        (n->role == CHAIN_PULLING && n->chosen)) {
        return;
    }
    struct chain_view self = node_view(n);
    sim_say(s, "%c: is promoted, asks %" PRIu32 " peers", sim_name(node), peers_count(n->peers));
    leave_source(n);
    end_pulls(s, n);
    n->role = CHAIN_PULLING; /* stored, and the ask forgotten, when the fork is durable */
    n->asked_ms = s->now_ms;
    n->chosen = true;
    n->heard = false;
    peers_ask(n->peers, PEERS_PROMOTED, &self, s->now_ms, s->opts.pull_ms / 2);
}

void sim_attach(struct sim *s, uint32_t node, uint32_t target, bool force) {
    struct node *n = &s->nodes[node];
    if (!n->running || n->frozen || node == target ||
        (n->role == CHAIN_REPLICA && n->target == target && !force)) {
        return;
    }
    sim_say(s, "%c: REPLICAOF %c%s", sim_name(node), sim_name(target), force ? " FORCE" : "");
    leave_source(n);
    end_pulls(s, n);
    n->stored_chosen = false;
    n->own_branch |= n->stored_role != CHAIN_REPLICA;
    n->role = n->stored_role = CHAIN_REPLICA;
    n->heard = false;
    n->target = target;
    n->orders++;
    n->by_operator = false;
    n->ask = (struct chain_ask){.explicit_ = true, .force = force};
    n->pending_count = 0;
    n->retry_ms = s->now_ms;
    memset(n->acked, 0, sizeof(n->acked));
    peers_rest(n->peers);
}

uint32_t sim_write(struct sim *s, uint32_t node, uint32_t level) {
    struct node *n = &s->nodes[node];
    if (!n->running || n->frozen || n->role != CHAIN_PRIMARY || n->count >= FRAMES_MAX - 64 ||
        s->write_count >= WRITES_MAX - 1 || n->pending_count == QUEUE_MAX) {
        return 0;
    }
    uint32_t w = ++s->write_count;
    struct chain_view self = node_view(n);
    uint32_t history = n->frames[n->count - 1].history;
    struct frame f = {.start = node_head(n),
                      .end = node_head(n) + FRAME_LEN,
                      .write = w,
                      .history = history,
                      .time_ms = node_clock(s, n)};
    s->writes[w] = (struct write){.end = f.end,
                                  .rank = chain_rank(&self),
                                  .root = n->chain[0].id,
                                  .node = node,
                                  .level = level};
    check_given(s, n, &f);
    node_append(s, n, &f);
    n->pending[n->pending_count++] = w;
    return w;
}

/* --- a step ---------------------------------------------------------------------------------------------------- */

static uint32_t lower(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

/* The follower that is farthest behind; the copy likewise, also while its taker hasn't come back yet. */
static uint32_t pinned_at(const struct sim *s, const struct node *n) {
    uint32_t at = n->pin_ms > s->now_ms ? n->pin_at : n->count;
    for (uint32_t i = 0; i < CONNS_MAX; i++) {
        const struct conn *c = &s->conns[i];
        if (c->used && c->open[1] && c->node[1] == n->place) {
            at = c->copy_ms > 0 ? lower(at, c->copy_count) : at;
            at = c->streams ? lower(at, c->sent) : at;
        }
    }
    return at;
}

/* What nobody needs goes, and what somebody pins beyond the limit. */
static void retain(struct sim *s, struct node *n) {
    if (s->opts.keep_frames == 0 || n->count <= s->opts.keep_frames) {
        return;
    }
    uint32_t limit = s->opts.pin_frames << n->pins;
    uint32_t at = pinned_at(s, n);
    at = n->count > limit && at < n->count - limit ? n->count - limit : at;
    at = lower(at, n->count - s->opts.keep_frames);
    n->oldest = n->oldest > at ? n->oldest : at;
}

void node_step(struct sim *s, struct node *n) {
    if (n->start_ms > 0 && !n->running && s->now_ms >= n->start_ms) {
        node_start(s, n);
    }
    if (!n->running || n->frozen) {
        return;
    }
    n->written = n->count;
    if (s->now_ms >= n->sync_ms) {
        n->durable = n->written;
        n->sync_ms = s->now_ms + (s->opts.steady ? 200 : (int64_t)rng_below(&s->rng, 400));
    }
    retain(s, n);
    peers_act(s, n);
    if (n->running && n->role == CHAIN_REPLICA) {
        sink_step(s, n);
    }
    check_acks(s, n);
}
