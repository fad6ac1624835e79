/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who has followed this node is remembered. Before it takes writes as a primary it asks them (peers.h decides whom, when, and what follows): a
 * question is a thread of its own, a pull is a sink that ends where the peer's log ended.
 */
#include "persist/adopt.h"
#include "replication/repl_priv.h"
#include "server/base/assert.h"
#include "server/base/diag.h"
#include "server/base/mem.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BOOT_SIZE = 64 };

static int64_t now_ms(void) {
    return time_mono_us() / 1000;
}

/* --- remembered -------------------------------------------------------------------------------------------------- */

/* Who is attached now. */
static void learn_peer(const struct replica_seen *seen, void *arg) {
    struct repl *r = arg;
    if (seen->port == 0) {
        return;
    }
    if (!peers_learn(r->peers, seen->peer, seen->addr, seen->port, now_ms())) {
        diag(DIAG_WARNING, "repl.too_many_peers addr=%s", seen->addr);
    }
    peers_link(r->peers, seen->peer, seen->slot >= 0 && seen->state == REPLICA_ONLINE, now_ms());
}

void repl_peers_note(struct repl *r, bool now) {
    uint32_t known = replicas_known_count(r->self.replicas);
    uint64_t moves = replicas_moves(r->self.replicas) + known;
    if (moves != r->peers_moves) {
        r->peers_moves = moves;
        replicas_each(r->self.replicas, learn_peer, r);
    }
    now |= known != r->peers_known; /* how far they have come may be told later */
    if (moves != r->peers_noted && (now || now_ms() * 1000 >= r->peers_due_us)) {
        r->peers_due_us = (now_ms() + PEERS_PERIOD_MS) * 1000;
        if (self_store_peers(&r->self)) {
            r->peers_noted = moves;
            r->peers_known = known;
        }
    }
}

enum dc_err repl_peers_load(struct repl *r) {
    struct standing_peer *peers = mem_must_zalloc(PEERS_MAX * sizeof(*peers));
    uint32_t count;
    enum dc_err err = standing_get_peers(r->self.data->meta, peers, &count);
    for (uint32_t i = 0; i < count && err == DC_OK; i++) {
        const struct standing_peer *p = &peers[i];
        replicas_know(r->self.replicas, p->id, p->host, p->port, p->received, p->durable);
        (void)peers_learn(r->peers, p->id, p->host, p->port, now_ms());
    }
    r->peers_moves = r->peers_noted =
        replicas_moves(r->self.replicas) + replicas_known_count(r->self.replicas);
    r->peers_known = replicas_known_count(r->self.replicas);
    mem_free(peers);
    return err;
}

/* Of the machine; "" = it can't be read. */
static void read_boot(char to[BOOT_SIZE]) {
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t len = fd >= 0 ? read(fd, to, BOOT_SIZE - 1) : -1;
    if (fd >= 0) {
        close(fd);
    }
    to[len > 0 ? len : 0] = '\0';
    to[strcspn(to, "\n")] = '\0';
}

static bool is_noted(struct repl *r, const char *boot) {
    char noted[BOOT_SIZE] = "";
    return boot[0] != '\0' &&
           meta_get_text(r->self.data->meta, REPL_BOOT, noted, sizeof(noted)) == DC_OK &&
           strcmp(noted, boot) == 0;
}

/* Whether the machine has run on since the node last went on as a primary: then what was written is in the files, if a log was kept. A start
 * that ended while it asked has changed nothing. */
enum peers_why repl_why_at_start(struct repl *r) {
    char boot[BOOT_SIZE];
    read_boot(boot);
    if (r->self.data->lost_unlogged && meta_put_text(r->self.data->meta, REPL_BOOT, "") != DC_OK) {
        repl_warn("noting that something was lost",
                  DC_EIO); /* for a start behind one that ends while it asks */
    }
    bool whole = is_noted(r, boot) && !r->self.data->lost_unlogged;
    return !log_follows(r->self.log) ? PEERS_CLEAN_START : whole ? PEERS_KILLED : PEERS_POWER_CUT;
}

void repl_note_boot(struct repl *r) {
    char boot[BOOT_SIZE];
    read_boot(boot);
    if (!is_noted(r, boot) && meta_put_text(r->self.data->meta, REPL_BOOT, boot) != DC_OK) {
        repl_warn("noting the boot of the machine", DC_EIO);
    }
}

/* --- questions under way ----------------------------------------------------------------------------------------- */

static void begin_inquiry(struct repl *r, const struct peers_entry *peer) {
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        if (r->inquiries[i] == NULL) {
            r->inquiries[i] = inquiry_start(&r->self, peer, PROBE_TIMEOUT_MS, &r->wake);
            return;
        }
    }
    dc_unreachable(); /* peers.h, I1 */
}

static void take_answer(struct repl *r, struct inquiry *q) {
    const uint8_t *id;
    const uint8_t *asked = inquiry_asked(q);
    const struct chain_view *view = inquiry_answer(q, &id);
    if (view == NULL) {
        peers_silent(r->peers, asked, now_ms());
    } else if (memcmp(id, asked, PEER_ID_LEN) != 0) {
        if (peers_replace(r->peers, asked, id, now_ms())) {
            replicas_replace(r->self.replicas, asked, id);
        }
    } else {
        peers_answered(r->peers, asked, view, now_ms());
    }
}

static void take_answers(struct repl *r) {
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        struct inquiry *q = r->inquiries[i];
        if (q != NULL && inquiry_is_over(q)) {
            take_answer(r, q);
            inquiry_destroy(q);
            r->inquiries[i] = NULL;
        }
    }
}

static void begin_pull(struct repl *r, const struct peers_entry *peer) {
    struct sink_target target = {.port = peer->port, .pulls = true, .wake = &r->wake};
    dc_assert(r->puller == NULL);
    if (!log_follows(r->self.log)) { /* it goes on in its own history: nothing can be put into it */
        peers_pulled(r->peers, peer->id, false, now_ms());
        return;
    }
    snprintf(target.host, sizeof(target.host), "%s", peer->host);
    memcpy(r->pulled_from, peer->id, PEER_ID_LEN);
    r->puller = sink_start(&r->self, &target);
}

/* Not by the sink: an order that comes before it is noted ends the pull, and the node goes on with what it has. */
static bool note_copy(struct repl *r) {
    enum dc_err err = adopt_note_copy(r->self.data->meta);
    if (err != DC_OK) {
        repl_warn("noting the copy", err);
    }
    return err == DC_OK;
}

static void take_pulled(struct repl *r) {
    enum sink_pull state = r->puller != NULL ? sink_pull_state(r->puller) : SINK_PULLS;
    bool copied = state == SINK_PULL_COPIED && note_copy(r);
    if (state != SINK_PULLS) {
        sink_stop(r->puller);
        r->puller = NULL;
        peers_pulled(r->peers, r->pulled_from, state == SINK_PULLED_ALL, now_ms());
    }
    if (state == SINK_PULL_UNSHOWN || copied) {
        repl_reopen(r);
    }
}

void repl_peers_end(struct repl *r) {
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        if (r->inquiries[i] != NULL) { /* else the next time of asking would wait for its answer */
            peers_silent(r->peers, inquiry_asked(r->inquiries[i]), now_ms());
            inquiry_destroy(r->inquiries[i]);
            r->inquiries[i] = NULL;
        }
    }
    sink_stop(r->puller);
    r->puller = NULL;
}

/* --- what follows ------------------------------------------------------------------------------------------------ */

void repl_peers_ask(struct repl *r, enum peers_why why) {
    struct chain_view self;
    repl_set_role(r, ROLE_PULLING);
    r->heard = false;
    self_view(&r->self, &self);
    peers_ask(r->peers, why, &self, now_ms(), conf_get(r->self.conf, pull_timeout));
    if (!data_owns_history(r->self.data)) {
        peers_note_strange(r->peers);
    }
    r->peers_next_ms = 0;
}

void repl_follow_peer(struct repl *r, const struct peers_entry *peer, const char *why) {
    struct sink_target target = {.port = peer->port};
    struct standing shown = {.role = STANDING_REPLICA, .port = peer->port};
    snprintf(target.host, sizeof(target.host), "%s", peer->host);
    memcpy(shown.host, target.host, sizeof(shown.host));
    repl_set_writes(r, WRITES_READONLY);
    lock_acquire(&r->lock);
    r->view.role = ROLE_REPLICA;
    r->view.port = peer->port;
    memcpy(r->view.host, target.host, sizeof(r->view.host));
    lock_release(&r->lock);
    repl_show_target(r->self.conf, &shown);
    r->self.host->refuse_waiting(r->self.host_arg, why);
    repl_order_over(r, dc_fail(DC_EGENERIC, "%s", why));
    repl_do_follow(r, &target);
}

/* False: nothing is to be done now. */
static bool act(struct repl *r, const struct peers_todo *todo) {
    repl_note_epoch(&r->self, todo->epoch);
    switch (todo->action) {
    case PEERS_PROBE:
        begin_inquiry(r, &todo->peer);
        return true;
    case PEERS_PULL:
        begin_pull(r, &todo->peer);
        return true;
    case PEERS_FENCE:
        repl_fence(r, todo->rank);
        return true;
    case PEERS_FOLLOW:
        repl_follow_peer(r, &todo->peer, "another node has become the primary");
        return true;
    case PEERS_GO_ON:
        if (todo->missing > 0) {
            diag(DIAG_WARNING, "repl.peers_missing count=%" PRIu32 " lost=\"what only they have\"",
                 todo->missing);
        }
        repl_go_on(r, todo->forks, todo->fork);
        return true;
    case PEERS_NOTHING:
        r->peers_next_ms = todo->until_ms;
        return false;
    }
    dc_unreachable();
}

void repl_peers_step(struct repl *r) {
    struct chain_view self;
    struct peers_todo todo;
    if (self_is_restarting(&r->self)) {
        return;
    }
    take_answers(r);
    take_pulled(r);
    if (self_is_restarting(&r->self)) {
        return;
    }
    do {
        self_view(&r->self, &self);
        todo = peers_next(r->peers, &self, now_ms());
    } while (act(r, &todo) && !self_is_restarting(&r->self));
}

int64_t repl_peers_wait_ms(const struct repl *r, int64_t ms) {
    int64_t left = r->peers_next_ms - now_ms();
    return left < 1 ? 1 : left < ms ? left : ms;
}
