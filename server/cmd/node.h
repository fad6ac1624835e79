/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * node: the wired-up process as commands see it.
 *
 * Threads: each field says who. Lock ranks are in server/base/lockrank.def.
 */
#ifndef DC_CMD_NODE_H
#define DC_CMD_NODE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "persist/log.h"
#include "persist/warm.h"
#include "replication/repl.h"
#include "replication/replicas.h"
#include "server/base/arena.h"
#include "server/base/conf.h"
#include "server/base/handover.h"
#include "server/base/lock.h"
#include "server/base/metric.h"
#include "server/base/time.h"
#include "server/cmd/client.h"
#include "server/cmd/cmd.h"
#include "server/cmd/info.h"
#include "server/cmd/latency.h"
#include "server/cmd/memory.h"
#include "server/store/store.h"

struct pubsub;       /* pubsub.c: who listens to what, on which worker */
struct pubsub_local; /* pubsub.c: one worker's listeners */
struct slowlog;      /* slowlog.c */
struct latency;      /* latency.c */
struct notice;       /* notify.c */
struct version_mark; /* ctx.c */
struct saver;        /* saver.c */

/* Something that one worker asks another to do. 'run' owns and frees the message. */
struct message {
    struct message *next;
    void (*run)(struct cmd_worker *w, struct message *m);
};

/* Takes over a socket; called by its worker, which it must not keep. */
typedef void (*detach_fn)(struct node *n, int fd, struct bytes early, const char *addr);

/* What commands ask of the floor above them. */
struct host {
    /* Appends bytes to the output of a client of the calling worker, behind whatever it was answered so far:
     * pub/sub, MONITOR. Counts against the client's output limit. */
    void (*push)(struct client *c, struct bytes data);
    /* Closes a client of the calling worker: at once, or when what is queued is out. */
    void (*close)(struct client *c, bool flush_first);
    /* Posts a message to a worker (any thread; never fails, never waits). */
    void (*post)(struct node *n, uint32_t worker, struct message *m);
    /* Lets held requests of all workers try again, and looks at replies that wait. */
    void (*resume)(struct node *n);
    /* Replies of all workers that wait for their level get UNCONFIRMED and why, soon: the node isn't the primary any more. Those that
     * are made later aren't concerned. Any thread. */
    void (*refuse_waiting)(struct node *n, const char *why);
    /* Begins an orderly end of the process. */
    void (*shutdown)(struct node *n, uint32_t how);
    /* Begins an orderly end, then the process starts anew in place: same pid, same run id, same options. Any thread; returns at
     * once. Clients are disconnected; what the running command replies still leaves. */
    void (*restart)(struct node *n);
    /* The connection of the running command leaves the workers when its replies are out: it is no client any more, and
     * 'take' owns the socket. 'early' is what was read behind the command. The command's reply is the last one. */
    void (*detach)(struct client *c, detach_fn take);
    /* Clients of the calling worker. 'each' may close them. */
    void (*each_client)(struct cmd_worker *w, void (*each)(struct client *c, void *arg), void *arg);
};

/* node.shutting_down */
enum { SHUTDOWN_NO, SHUTDOWN_AS_CONFIGURED, SHUTDOWN_SAVE, SHUTDOWN_NOSAVE };

/* Classes of client-output-buffer-limit that exist here. */
enum output_class { OUTPUT_NORMAL, OUTPUT_PUBSUB, OUTPUT_CLASSES };

struct output_limit {
    _Atomic int64_t hard; /* bytes, 0 = none */
    _Atomic int64_t soft;
    _Atomic int64_t soft_s; /* seconds that the soft limit may be exceeded */
};

/* Written by the worker, read by all; relaxed. */
struct cmd_stats {
    _Atomic uint64_t calls;
    _Atomic uint64_t ticks;                      /* time spent, see time_ticks() */
    _Atomic uint64_t rejected;                   /* before execution: arity, permission, memory */
    _Atomic uint64_t failed;                     /* by the handler */
    _Atomic uint32_t histogram[LATENCY_BUCKETS]; /* see latency_bucket() */
};

struct cmd_worker {
    /* constant after init */
    struct node *node;
    uint32_t index;
    struct arena *arena; /* reset between turns */
    /* owned by the worker */
    struct metric_slot metrics;
    struct store_thread store;
    struct log_feed *feed; /* of the log */
    uint64_t gate; /* what the replies of the running connection wrote or revealed, an LSN */
    uint64_t safe; /* below it nothing has to be gated: a mark read at the start of the batch */
    struct mut mut;
    struct mut evict_mut;   /* memory.c: one eviction */
    int64_t memory_pending; /* allocated and not yet taken from the budget */
    uint64_t memory_churn;  /* allocated and freed since this worker asked for a sample */
    bool memory_counts;     /* there is a limit, and the above is up to date */
    struct client *current; /* whose command runs */
    int64_t now_us;         /* node clock, read once per batch of commands */
    uint64_t ticks;         /* when the command now running began */
    struct notice *notices; /* keyspace events of the running command */
    struct notice **notices_tail;
    struct version_mark *version_marks; /* of the running EXEC, see ctx.c */
    struct pubsub_local *pubsub;
    /* written by the worker, read by all */
    struct cmd_stats stats[CMD_COUNT];
    struct info_errors errors;
};

struct node {
    /* constant after init */
    struct conf *conf;
    struct store *store;
    const struct host *host;
    uint32_t worker_count;
    struct cmd_worker *workers[WORKER_MAX];
    char run_id[RUN_ID_LEN + 1];
    int64_t start_ms; /* node clock */
    struct log *log;
    struct warm *warm;            /* NULL = nothing had to be loaded */
    const struct data_plan *plan; /* what recovery found; NULL in tests */
    struct saver *saver;          /* saver.c: snapshots; NULL in tests */
    struct repl *repl;            /* role and links; NULL in tests */
    struct replicas *replicas;    /* who follows this node */
    const uint8_t
        *link_key; /* CRYPTO_KEY_LEN bytes of replication-key-file; NULL = links are in clear */
    detach_fn repl_accept; /* takes the connections of peers (REPLSTREAM); NULL = sent away */
    struct node_clock clock;
    struct pubsub *pubsub;
    struct slowlog *slowlog;
    struct latency *latency;
    struct info *info;         /* info.c */
    struct memory_seen memory; /* memory.c */
    struct lock keeping_lock;
    struct lock clients_lock;
    struct client *clients; /* under clients_lock */
    int64_t ready_ms;       /* set before clients are served: how long the start took */
    /* atomic */
    _Atomic uint64_t next_client_id;
    _Atomic uint32_t client_count;
    _Atomic uint32_t waiting_count; /* clients in WAIT, WAITAOF, READAFTER */
    _Atomic uint32_t monitor_count; /* connections in MONITOR; 0 = nobody is told */
    _Atomic uint32_t notify_flags;  /* enum notify_class of notify-keyspace-events */
    _Atomic uint32_t has_password;  /* requirepass is set */
    _Atomic int64_t pause_until_ms; /* CLIENT PAUSE, 0 = none */
    _Atomic uint32_t pause_all;     /* it holds reads too */
    _Atomic int64_t
        memory_budget; /* bytes that may still be allocated; below 0 = evict. See memory.h */
    _Atomic uint32_t active_expire; /* DEBUG SET-ACTIVE-EXPIRE */
    _Atomic uint32_t shutting_down;
    _Atomic uint32_t restarting;     /* 1: host->restart() was called */
    _Atomic uint32_t writes;         /* enum writes: whether they are taken */
    _Atomic uint32_t ack_level;      /* ack-level, see ack_of_word() */
    _Atomic uint32_t tracks_latency; /* latency-tracking: histograms are kept */
    struct output_limit output_limits[OUTPUT_CLASSES];
    _Atomic uint64_t slow_ticks;    /* slowlog-log-slower-than, UINT64_MAX = never */
    _Atomic uint64_t latency_ticks; /* latency-monitor-threshold, UINT64_MAX = off */
};

/* Wires a node up over its parts; the workers enter themselves. */
void node_init(struct node *n, struct conf *conf, struct store *s, const struct host *host);
void node_fini(struct node *n);

/* Prepares what commands need of a worker. */
void cmd_worker_init(struct cmd_worker *w, struct node *n, uint32_t index, struct arena *arena);
void cmd_worker_fini(struct cmd_worker *w);

/* Reads the clocks; before the first command of a batch. */
void cmd_batch_begin(struct cmd_worker *w);

/* How safe a reply has to be before it leaves, as far as appendfsync says it. Levels of clients and ack-level: acks.h. */
enum log_level node_level(const struct node *n);

bool node_is_replica(const struct node *n);

/* A database that clients reach; NULL = none has this number, or it is beyond the option. The store has all of them: the log of a primary, or of an earlier run, may
 * have more. */
struct keyspace *node_database(const struct node *n, int64_t id);

/* Up to where the log is shown by the store. */
uint64_t node_applied(const struct node *n);

/* An LSN that a history had and the one that followed it hasn't. */
bool node_lsn_is_lost(const struct node *n, uint64_t lsn);

/* What loading has to fit into, as the options say. Not where the log follows another one: that one says what goes. It does also on a
 * primary that doesn't know yet whether a peer has more. */
void node_limit_warming(struct node *n);
/* Options changed: copies what the node keeps in atomics. */
void node_options_changed(struct node *n);

#endif
