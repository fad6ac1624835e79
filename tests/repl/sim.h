/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sim: a cluster on paper: nodes, a network, Sentinel and clients in virtual time.
 *
 * Purpose: what replication decides is decided by replication/chain.c and replication/peers.c, as in the server. What moves bytes there is
 *   modelled: a log is an array of frames, a link two queues. One step is SIM_STEP_MS; everything is drawn from the seed.
 * Faults: kill -9 (what isn't written goes), power cut (what isn't durable goes, perhaps), a lost disk, a frozen process, cut and broken
 *   connections, slow ones that are overtaken by their successors, a clock that jumps.
 * Threads: none.
 */
#ifndef TESTS_REPL_SIM_H
#define TESTS_REPL_SIM_H

#include "replication/chain.h"
#include "replication/peers.h"
#include "server/base/rng.h"

#include <stdio.h>

enum {
    NODES_MAX = 5,
    SENTINEL = NODES_MAX, /* its place in the network */
    PLACES,
    FRAMES_MAX = 4096,
    CHAIN_ROOM = 64,
    CONNS_MAX = 96,
    QUEUE_MAX = 64,
    WRITES_MAX = 8192,
    HISTORIES_MAX = 256,
    SIM_STEP_MS = 10,
    FRAME_LEN = 10,
    FORK_LEN = 50,
};

struct frame {
    uint64_t start, end;
    uint32_t write;   /* 0 = FORK */
    uint32_t history; /* index in sim.histories */
    int64_t time_ms;
};

struct write {
    uint64_t end;
    struct chain_rank rank; /* of who took it */
    uint64_t root;          /* id of the first history of its lineage */
    uint32_t node;
    uint32_t level;   /* replicas:N */
    int64_t acked_ms; /* 0 = not acknowledged */
    uint64_t acked_epoch;
    bool excused; /* whoever had it failed, or had been replaced */
};

/* --- the network ----------------------------------------------------------------------------------------------- */

enum message_type { M_HELLO, M_ANSWER, M_LOG, M_ACK, M_BEAT, M_COPY, M_END };

struct view_copy {
    struct chain_view v;
    struct history chain[CHAIN_ROOM];
};

struct message {
    enum message_type type;
    int64_t due_ms;
    struct view_copy *view;
    enum wire_purpose purpose;
    struct chain_ask ask;
    uint8_t id[PEER_ID_LEN];
    struct chain_answer answer;
    struct frame *frames; /* LOG, COPY */
    uint32_t last_write;  /* HELLO: what a hash of the end of the log says */
    struct {
        uint8_t id[PEER_ID_LEN];
        uint32_t place;
    } peers[NODES_MAX + 1]; /* BEAT of a source: itself and whom it knows */
    uint32_t peer_count;
    uint32_t count;
    uint64_t received, durable;
};

struct queue {
    struct message at[QUEUE_MAX];
    uint32_t first, count;
};

/* A connection: end 0 has connected, end 1 has accepted. */
struct conn {
    bool used;
    uint32_t node[2];
    uint32_t run[2]; /* of which run of the node */
    bool open[2];    /* that end hasn't closed it */
    int64_t heard_ms[2];
    int64_t sent_ms[2];
    int64_t delay_ms;
    struct queue to[2];
    enum wire_purpose purpose;
    uint8_t id[PEER_ID_LEN]; /* end 0's, from HELLO */
    bool answered;
    /* end 1, a source */
    bool streams;
    uint32_t sent;       /* frames */
    uint64_t acked;      /* the highest received LSN that its peer told */
    uint32_t pull_end;   /* PULL: frames */
    int64_t copy_ms;     /* a copy is sent then; 0 = none */
    uint32_t copy_count; /* frames in it */
    uint64_t probed_end; /* end 0, PULL */
};

/* --- nodes ----------------------------------------------------------------------------------------------------- */

enum sink_state { SINK_IDLE, SINK_ASKED, SINK_STREAMS };

struct node {
    uint32_t place;
    /* disk */
    struct frame *frames;
    uint32_t count, written, durable;
    uint32_t oldest; /* frames before that are in the data, and not in the log any more */
    uint8_t id[PEER_ID_LEN];
    uint32_t disks; /* lost so far */
    /* metadata: on the disk at once */
    enum chain_role stored_role;
    uint32_t target;
    struct chain_ask ask;
    uint32_t
        orders; /* REPLICAOF so often since a source has taken it: each target may have been promoted */
    bool own_branch;    /* it was a primary; no source has taken it since */
    bool stored_chosen; /* it is to be promoted, and has begun anew meanwhile */
    bool shared;        /* this data set has followed, or has been followed */
    bool by_operator;   /* the target is no choice of Sentinel */
    uint64_t epoch;
    bool clean, power_was_cut;
    /* process */
    bool running, frozen;
    uint32_t run;
    int64_t up_ms;    /* since when it runs and isn't frozen */
    int64_t start_ms; /* starts by itself then; 0 = doesn't */
    int64_t clock_off_ms;
    enum chain_role role;
    struct history chain[CHAIN_ROOM];
    uint32_t chain_count;
    bool empty;
    struct peers *peers;
    int64_t sync_ms;
    bool chosen;      /* it asks because somebody has promoted it */
    bool heard;       /* it has asked its peers to the end */
    int64_t asked_ms; /* when it began to ask its peers */
    /* sink */
    enum sink_state sink;
    struct conn *link;
    int64_t retry_ms;
    int64_t followed_ms; /* since when */
    const char *refused;
    /* source */
    uint64_t acked[NODES_MAX]; /* by who followed: the highest received LSN */
    uint32_t pins;             /* attempts of the copy under way: the pin grows */
    uint32_t
        pin_at; /* frames up to which a copy went: what follows is kept until its taker follows */
    int64_t pin_ms;              /* but not longer */
    uint32_t pending[QUEUE_MAX]; /* writes that wait for acks */
    uint32_t pending_count;
    /* counters */
    uint32_t copies, cuts, links;
};

struct sentinel {
    bool on;
    uint32_t master;
    int64_t poll_ms;
    int64_t failover_ms; /* 0 = none under way */
    uint32_t chosen;
    struct {
        int64_t seen_ms;
        bool primary, refuses, fenced;
        uint64_t epoch; /* replication_epoch: an operator looks at it, Sentinel doesn't */
        uint64_t offset;
        uint32_t target;
        int64_t wrong_ms; /* since when it isn't what it should be; 0 = it is */
    } info[NODES_MAX];
};

struct sim_opts {
    uint64_t seed;
    uint32_t nodes;
    uint32_t keep_frames; /* retention; 0 = all */
    uint32_t pin_frames;
    int64_t copy_ms; /* 0 = 60 */
    int64_t pull_ms; /* 0 = 800 */
    bool sentinel;
    bool
        drills; /* somebody gives orders besides Sentinel: they may lose what was acknowledged (C2 isn't checked) */
    bool steady; /* no jitter: for traces */
    bool mute;   /* sources don't tell replicas of each other: what then goes wrong? */
    FILE *trace;
};

struct sim {
    struct sim_opts opts;
    struct rng rng;
    int64_t now_ms;
    struct node nodes[NODES_MAX];
    bool cut[PLACES][PLACES];
    int64_t joined_ms[PLACES][PLACES]; /* since when it isn't */
    int64_t disk_lost_ms;              /* the last one, of any node; 0 = none */
    struct sentinel sentinel;
    struct history histories[HISTORIES_MAX];
    uint32_t owner[HISTORIES_MAX];
    uint64_t root[HISTORIES_MAX]; /* the first history of its lineage */
    uint32_t history_count;
    struct write *writes; /* from 1 on */
    uint32_t write_count;
    uint32_t write_every_ms, write_level; /* clients */
    int64_t write_ms;
    bool healing;
    char failed[512]; /* "" = all is well */
    const char *failed_how;
    /* what a run came to */
    uint32_t acked, excused, doomed, forks, pulls;
    struct conn conns[CONNS_MAX]; /* the last: they are large */
};

/* --- life ------------------------------------------------------------------------------------------------------ */

struct sim *sim_create(const struct sim_opts *opts);
void sim_destroy(struct sim *s);
/* One step of SIM_STEP_MS. */
void sim_step(struct sim *s);
void sim_run(struct sim *s, int64_t until_ms);
/* Everything that was broken is mended; true when all nodes are equal in the end. */
bool sim_heal(struct sim *s, int64_t patience_ms);

void sim_fail(struct sim *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A line of the trace. */
void sim_say(struct sim *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline char sim_name(uint32_t node) {
    return (char)('A' + node);
}

/* --- faults and orders ----------------------------------------------------------------------------------------- */

void sim_kill(struct sim *s, uint32_t node);
void sim_power_cut(struct sim *s, uint32_t node);
void sim_lose_disk(struct sim *s, uint32_t node);
void sim_stop(struct sim *s, uint32_t node); /* in good order */
void sim_start(struct sim *s, uint32_t node);
void sim_thaw(struct sim *s, uint32_t node);
void sim_set_cut(struct sim *s, uint32_t a, uint32_t b, bool cut);
void sim_break(struct sim *s, uint32_t a, uint32_t b);
/* REPLICAOF. */
void sim_promote(struct sim *s, uint32_t node);
void sim_attach(struct sim *s, uint32_t node, uint32_t target, bool force);
/* One write by a client at a node; 0 = it isn't taken. */
uint32_t sim_write(struct sim *s, uint32_t node, uint32_t level);

/* --- parts ----------------------------------------------------------------------------------------------------- */

/* sim_net.c */
bool net_reaches(const struct sim *s, uint32_t a, uint32_t b);
struct conn *net_connect(struct sim *s, uint32_t from, uint32_t to, enum wire_purpose purpose);
struct message *net_send(struct sim *s, struct conn *c, int end, enum message_type type);
bool net_has_room(const struct conn *c, int end);
void net_close(struct conn *c, int end);
void net_step(struct sim *s);
void net_destroy(struct sim *s);
void message_fini(struct message *m);

/* sim_node.c */
struct chain_view node_view(const struct node *n);
uint64_t node_head(const struct node *n);
void node_start(struct sim *s, struct node *n);
void node_down(struct sim *s, struct node *n);
void node_step(struct sim *s, struct node *n);
void node_append(struct sim *s, struct node *n, const struct frame *f);
void node_cut(struct sim *s, struct node *n, uint64_t lsn);
void node_adopt(struct sim *s, struct node *n, const struct frame *frames, uint32_t count);
void node_begin_history(struct sim *s, struct node *n, struct history h, const char *why);
void node_fork(struct sim *s, struct node *n, enum chain_fork_kind kind, uint32_t missing);
uint32_t node_frame_at(const struct node *n, uint64_t end); /* count of frames up to 'end' */
bool node_has_write(const struct sim *s, const struct node *n, uint32_t write);
void node_rebuild(struct sim *s, struct node *n);
void node_restart_in_place(struct sim *s, struct node *n);
void node_id(const struct node *n, uint8_t id[PEER_ID_LEN]);

/* sim_link.c */
void sink_step(struct sim *s, struct node *n);
void source_step(struct sim *s, struct conn *c);
void link_receive(struct sim *s, struct conn *c, int end, struct message *m);
void link_ended(struct sim *s, struct conn *c, int end);
void peers_act(struct sim *s, struct node *n);

/* sim_sentinel.c */
void sentinel_step(struct sim *s);

/* sim_check.c */
void check_given(struct sim *s, const struct node *n, const struct frame *f);
void check_acks(struct sim *s, struct node *n);
void check_begins(struct sim *s, const struct node *n);
void check_chosen(struct sim *s, const struct node *n);
void check_given_up(struct sim *s, uint32_t chosen, int64_t since_ms);
void check_dropped(struct sim *s, const struct node *n, uint32_t from, bool by_order);
void check_end(struct sim *s);
bool check_equal(const struct sim *s, char *why, size_t size);

#endif
