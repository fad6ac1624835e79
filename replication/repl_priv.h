/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repl_priv: what the parts of repl share: repl.c (life, commands, questions), repl_order.c (what becomes of orders), repl_role.c (changes of the role), repl_switch.c
 * (FAILOVER), repl_peers.c (who has followed this node, and what they say before it takes writes).
 *
 * Threads: what isn't atomic or under the lock is the thread repl's.
 */
#ifndef DC_REPLICATION_REPL_PRIV_H
#define DC_REPLICATION_REPL_PRIV_H

#include "replication/inquiry.h"
#include "replication/peers.h"
#include "replication/repl.h"
#include "replication/sink.h"
#include "replication/source.h"
#include "server/base/lock.h"
#include "server/base/thread.h"
#include "server/base/wake.h"

enum {
    TICK_MS = 1000,
    NOTE_AGAIN_MS = 5000,
    DRAIN_MS = 1000,
    QUIESCE_MS = 2000,
    FORK_TRIES = 100,
    DISK_WAIT_US = 1000 * 1000, /* before a primary holds writes to raise its history */
    PEERS_PERIOD_MS = 5000,
    PROBE_TIMEOUT_MS = 1000,
    REAP_SLACK_MS = 5000, /* times of frames don't quite rise along the log */
};

/* Texts of the metadata. */
#define REPL_CONF_SEEN "replicaof-option" /* the option at the last start */
#define REPL_ASK       "replicaof-ask" /* "explicit", "force": no source has taken the order yet */
#define REPL_CHOSEN    "replication-chosen" /* "yes": it is to be promoted, and isn't yet */
#define REPL_ORDERS    "replication-orders" /* REPLICAOF so often since a source has taken it */
#define REPL_BRANCH    "replication-branch" /* "own": it was a primary; no source has taken it since */
#define REPL_BOOT      "boot"               /* of the machine, when the node went on as a primary */

enum order { ORDER_NONE, ORDER_FOLLOW, ORDER_PROMOTE, ORDER_TAKE_OVER };

struct repl {
    struct self self; /* first: the links know it */
    _Atomic uint32_t *writes;
    struct source *source;
    struct thread thread;
    struct wake wake;
    _Atomic bool stop;
    _Atomic bool epoch_moved;
    _Atomic bool ask_over;
    _Atomic bool shared_moved;
    int64_t start_time_ms; /* the latest time that the log had at the start */
    struct standing standing;
    bool goes_on; /* as a primary, as soon as the disk takes its history */
    enum chain_fork_kind goes_on_as;
    bool own_branch;      /* as REPL_BRANCH: its offset says nothing about what it lacks */
    uint64_t pending;     /* the order that isn't stored yet; 0 = none */
    bool notes_target;    /* whom it follows couldn't be stored: again */
    bool unstored;        /* so it was when a promotion came behind it */
    bool notes_primary;   /* nor that it is a primary */
    struct chain_ask ask; /* of the target in 'standing' */
    bool chosen;          /* it asks because somebody has promoted it */
    bool
        heard; /* it has asked its peers to the end since the start, or the last order: it lacks nothing of its own branch */
    /* repl_peers.c */
    struct peers *peers;
    struct inquiry *inquiries[PEERS_MAX]; /* under way; NULL = free */
    struct sink *puller;                  /* NULL = none */
    uint8_t pulled_from[PEER_ID_LEN];
    uint64_t peers_moves; /* of the registry, when it was looked at, */
    uint64_t peers_noted; /* and when it was stored, */
    uint32_t peers_known; /* with so many */
    int64_t peers_due_us;
    int64_t peers_next_ms; /* when they want to be looked at */
    int64_t unkept_due_us;
    int64_t oldest_due_us; /* when 'log_oldest' is looked for again */
    /* repl_switch.c */
    uint32_t switch_misses; /* who was asked last hasn't answered, so many times */
    bool switch_quiet;      /* no command is under way that began before writes were held */
    struct peers_entry switch_peer;
    struct inquiry *switch_inquiry;
    int64_t switch_ask_us;
    struct lock lock;
    /* under lock */
    struct sink *sink; /* NULL = none */
    struct repl_view view;
    uint64_t log_oldest; /* of what others can be sent from, a moment ago; UINT64_MAX = nothing */
    enum order order;
    struct sink_target target; /* of the order */
    uint64_t given, over;      /* numbers: of the newest order, of the last one that is over */
    char over_why[256];        /* why that one isn't stored; "" = it is */
    const struct chain_view *raise_peer; /* somebody waits in repl_raise(); NULL = nobody */
    enum dc_err raised;                  /* what became of it, when raise_over */
    bool raise_over;
    struct failover failover; /* while view.failover says that there is one */
    int64_t failover_end_us;
    bool failover_abort;
    bool stopped;
};

void repl_warn(const char *what, enum dc_err err);
void repl_set_writes(struct repl *r, enum writes writes);
/* The option and the view show whom the node follows. */
void repl_show_target(struct conf *conf, const struct standing *s);

/* repl_order.c */
/* 'lock' held: the order's number. */
uint64_t repl_number_order(struct repl *r) DC_REQUIRES(r->lock);
uint64_t repl_give_order(struct repl *r, enum order order, const struct sink_target *target);
enum order repl_take_order(struct repl *r, struct sink_target *target);
/* What was ordered is stored; or it won't be, and 'err' (whose text is taken) says why. Nothing if no order is pending. */
void repl_order_over(struct repl *r, enum dc_err err);
/* It isn't stored yet: who waits is told why, and it is tried again. */
void repl_order_fails(struct repl *r, const char *what, enum dc_err err);
/* Replies to those who waited leave. */
void repl_let_answer(struct repl *r);

/* repl_role.c */
void repl_set_role(struct repl *r, enum repl_role role);
DC_MUST enum dc_err repl_store_standing(struct repl *r);
void repl_begin_sink(struct repl *r);
void repl_end_sink(struct repl *r);
void repl_do_follow(struct repl *r, const struct sink_target *target);
/* The disk has what the store doesn't show: more log, or a copy that is to be taken. After a start in place both are alike, and what was ordered goes on. */
void repl_reopen(struct repl *r);
/* What couldn't be stored is tried again. */
void repl_note_again(struct repl *r);
/* 'asks': peers may have more of the log. */
void repl_do_promote(struct repl *r, bool asks);
/* Unless an order that came meanwhile has said what becomes of them. */
void repl_allow_writes(struct repl *r, enum writes writes);
/* It was to be promoted when it ended. */
bool repl_is_chosen(struct repl *r);
/* Serves who waits in repl_raise(). */
void repl_serve_raise(struct repl *r);
/* Begins what a primary goes on with (unless 'forks' is false), and takes writes. */
void repl_go_on(struct repl *r, bool forks, enum chain_fork_kind kind);
void repl_fence(struct repl *r, struct chain_rank by);

/* repl_switch.c */
/* False: no FAILOVER is under way. Else nothing else is done meanwhile. */
bool repl_switch_step(struct repl *r);
void repl_switch_end(struct repl *r);

/* repl_peers.c */
/* Writes aren't taken any more. 'why' is for those whose replies wait. */
void repl_follow_peer(struct repl *r, const struct peers_entry *peer, const char *why);
DC_MUST enum dc_err repl_peers_load(struct repl *r);
/* Nothing is under way any more. */
void repl_peers_end(struct repl *r);
/* Writes are held from now on; repl_peers_step() goes on, and ends in repl_go_on(), repl_fence() or repl_do_follow(). */
void repl_peers_ask(struct repl *r, enum peers_why why);
void repl_peers_step(struct repl *r);
/* How long nothing is to be done, at most 'ms'. */
int64_t repl_peers_wait_ms(const struct repl *r, int64_t ms);
void repl_peers_note(struct repl *r, bool now);
enum peers_why repl_why_at_start(struct repl *r);
/* It goes on as a primary, with all that its peers had. */
void repl_note_boot(struct repl *r);

#endif
