/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repl: what this node is to other nodes: a primary, or the replica of one.
 *
 * Purpose: the role, its changes (the start, REPLICAOF, a promotion), and what INFO and ROLE show of it. Links have threads of their
 *   own: source.h sends the log, sink.h receives it.
 *
 *     repl_decide()     what the node is to be, before its log is opened
 *     repl_start()      the links begin
 *     repl_follow(), repl_promote()   commands; the thread repl does it
 *     repl_stop()
 *
 * Invariants: I1 'writes' says what the role allows before repl_follow() returns: no command that is admitted later writes.
 *   I2 writes are taken again only when the new history is durable. I3 what was decided last survives the process: an order is over
 *   when role and target are stored.
 * Threads: any may ask and look; a change is made by the thread repl. Nobody blocks for it: who has given an order looks again when
 *   host->resume() was called.
 * Ownership: the node's. The views are copies.
 * Failure: a promotion that the disk doesn't take leaves the node a replica; INFO tells why.
 */
#ifndef DC_REPLICATION_REPL_H
#define DC_REPLICATION_REPL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "persist/standing.h"
#include "server/base/bytes.h"
#include "server/base/err.h"
#include "server/base/limits.h"

struct conf;
struct data;
struct node_clock;
struct repl;
struct replicas;
struct self;
struct store;

/* Why writes aren't taken. */
enum writes {
    WRITES_TAKEN,
    WRITES_READONLY, /* a replica */
    WRITES_FENCED,   /* a higher primary was seen */
    WRITES_HELD,     /* not yet: whoever writes waits */
};

enum repl_role { ROLE_PRIMARY, ROLE_REPLICA, ROLE_FENCED, ROLE_PULLING };

/* FAILOVER, in Redis's words. */
enum failover_state { FAILOVER_NONE, FAILOVER_WAITS, FAILOVER_UNDER_WAY };
const char *repl_failover_name(enum failover_state state);

/* Of a replica, in Redis's words. */
enum repl_link {
    LINK_CONNECT,    /* not tried yet, or about to be tried again */
    LINK_CONNECTING, /* under way: socket, password, handshake */
    LINK_SYNC,       /* a full copy is being received */
    LINK_CONNECTED,
};
const char *repl_link_name(enum repl_link link);

/* What replication asks of the floor above. */
struct repl_host {
    /* A snapshot: begun, or waited for. */
    uint64_t (*snapshot_begin)(void *arg);
    bool (*snapshot_is_over)(void *arg, uint64_t ticket);
    enum dc_err (*snapshot_result)(void *arg, uint64_t ticket);
    /* The process begins anew in place; returns at once. */
    void (*restart)(void *arg);
    /* The role has changed: held requests try again. */
    void (*resume)(void *arg);
    /* Waits until every command that was admitted before is complete; at most 'timeout_ms'. False: it isn't known. */
    bool (*quiesce)(void *arg, int64_t timeout_ms);
    /* Replies that wait for their level are refused: they can't be confirmed here any more. */
    void (*refuse_waiting)(void *arg, const char *why);
};

struct repl_opts {
    struct conf *conf;
    struct data *data; /* open, with its log */
    struct store *store;
    struct node_clock *clock;
    struct replicas *replicas;
    _Atomic uint32_t *writes; /* enum writes; the node's */
    const uint8_t *link_key;  /* CRYPTO_KEY_LEN bytes that stay; NULL = links are in clear */
    const struct repl_host *host;
    void *arg;
};

/* What the node is to be: what the metadata remember, or what the option 'replicaof' says, if that has changed since the last start
 * ('in_place': the options are those of the run before). Stored. Errors: those of the metadata. */
DC_MUST enum dc_err repl_decide(struct meta *m, struct conf *conf, bool in_place,
                                struct standing *out);

/* Whether the log is to be opened as one that follows: it isn't forked at the start then. A replica's; that of a primary that has to ask first
 * what it lost. */
bool repl_opens_following(const struct data *d, const struct standing *s);

/* The role of 'standing' is in force at the return. Errors: those of the metadata. */
DC_MUST enum dc_err repl_start(const struct repl_opts *opts, const struct standing *standing,
                               struct repl **out);
/* Links end; what was received is applied. The node still answers INFO. NULL is legal. */
void repl_stop(struct repl *r);
void repl_destroy(struct repl *r); /* NULL is legal */

/* FAILOVER: hands over to a replica, without loss. */
struct failover {
    char host[HOST_NAME_MAX_LEN]; /* "" = any */
    uint32_t port;
    bool force;         /* when the time is over, whatever the replica lacks */
    int64_t timeout_ms; /* 0 = none */
};
/* Writes are held when it returns; the view tells how far it is. Errors: DC_EGENERIC: not now, or not this one. */
DC_MUST enum dc_err repl_failover(struct repl *r, const struct failover *f);
/* Errors: DC_EGENERIC: none is under way. */
DC_MUST enum dc_err repl_failover_abort(struct repl *r);

/* A peer's connection, whose REPLSTREAM was answered; 'early' is what came behind that. */
void repl_accept(struct repl *r, int fd, struct bytes early);

/* REPLICAOF host port. 'force': also when the other one is empty. 'order': its number. Errors: DC_ELIMIT when the host is too long. */
DC_MUST enum dc_err repl_follow(struct repl *r, struct bytes host, uint32_t port, bool force,
                                uint64_t *order);
/* REPLICAOF NO ONE. Returns the number of the order: of an earlier one, if that says so already. */
uint64_t repl_promote(struct repl *r);
/* The number of the newest order. */
uint64_t repl_last_order(struct repl *r);
/* What it orders is stored, or it came to nothing. */
bool repl_order_is_over(struct repl *r, uint64_t order);
/* Of one that is over. Errors: DC_EGENERIC, with why: what it ordered isn't stored, or isn't any more. */
DC_MUST enum dc_err repl_order_result(struct repl *r, uint64_t order);

/* Commands may be answered although the primary isn't reachable: always true of a primary. */
bool repl_is_current(const struct repl *r);
/* So old may be what is shown here: others may have written since. 0 of a primary; INT64_MAX: nobody knows. */
int64_t repl_staleness_ms(const struct repl *r);
/* Entries may be reclaimed that had expired by then: 'now_ms', or on a replica what its log has surely passed. */
int64_t repl_reap_ms(const struct repl *r, int64_t now_ms);

struct repl_view {
    enum repl_role role;
    bool promoting; /* it is to be a primary, and isn't yet: others see a replica */
    bool is_slave;  /* what others see: not a primary, or not any more */
    bool
        unfit; /* not to be promoted: fenced, without data, or with data that nobody else has had */
    bool untaken; /* it was a primary, and no source has accepted its branch yet */
    enum failover_state failover;
    enum repl_link link; /* of a replica, like what follows */
    char host[HOST_NAME_MAX_LEN];
    uint32_t port;
    int64_t last_io_us;    /* monotonic; 0 = never */
    int64_t down_since_us; /* monotonic */
    uint64_t received_lsn, applied_lsn;
    uint64_t source_head; /* as the source told last; 0 = unknown */
    int64_t
        lag_bytes; /* that it is known to have and that aren't shown here; -1 = it hasn't told */
    int64_t behind_us;             /* for how long not all of that has been here; 0 = it is */
    uint64_t copy_bytes, copy_len; /* of a full copy under way */
    char why_down[256];            /* what ended the last link, or keeps it from beginning */
};
void repl_view(struct repl *r, struct repl_view *out);
/* Bytes of this node's log that a replica hasn't received, as far as is known. */
struct log;
struct replica_seen;
uint64_t repl_behind(const struct log *log, const struct replica_seen *seen);

struct repl_stats {
    uint64_t sent_full, sent_partial, refused; /* to others */
    uint64_t copies_under_way;
    uint64_t log_oldest, log_bytes; /* what others can be sent from; 0 = nothing */
    uint64_t got_full, got_partial; /* from a source, in this run */
    char sent_full_reason[128];     /* why the last one was needed */
    char got_full_reason[128];
};
void repl_stats(struct repl *r, struct repl_stats *out);

/* For source and sink: an epoch was heard of; the order REPLICAOF was taken by a source. */
void repl_note_epoch(struct self *self, uint64_t epoch);
void repl_ask_taken(struct self *self);
/* Another node has followed this one, or has taken it. */
void repl_note_shared(struct self *self);
/* The heartbeat of this node now, to either side. */
struct wire_beat;
void repl_beat(const struct self *self, struct wire_beat *out);
/* The source wants this node to go on in its place, in an epoch not below that. 'asks': others may have more. */
void repl_handed_over(struct self *self, uint64_t epoch, bool asks);
/* A primary begins a higher history than the peer's, because that gives way to it. Waits until it is done. Errors: DC_EIO, DC_ELIMIT: not now. */
struct chain_view;
DC_MUST enum dc_err repl_raise(struct self *self, const struct chain_view *peer);

#endif
