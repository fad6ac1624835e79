/* SPDX-License-Identifier: BSD-3-Clause */
/* sink_priv: what the parts of the sink share: sink.c (links, one after the other), sink_log.c (the log), sink_copy.c (a full copy). */
#ifndef DC_REPLICATION_SINK_PRIV_H
#define DC_REPLICATION_SINK_PRIV_H

#include "replication/apply.h"
#include "replication/link.h"
#include "replication/sink.h"
#include "server/base/buf.h"
#include "server/base/lock.h"
#include "server/base/rng.h"
#include "server/base/thread.h"
#include "server/base/wake.h"

#include <pthread.h>

enum {
    SINK_LOOK_MS = 50,
    SINK_BEAT_US = 500 * 1000, /* the least min-replicas-max-lag is a second */
    BACKOFF_MIN_MS = 50,
    BACKOFF_MAX_MS = 5000,
    BACKOFF_END_US = 1000 * 1000, /* a link that lasted so long begins it anew */
    DRIFT_US = 1000,              /* between two heartbeats, of two clocks */
    PULL_MIN_MS = 1000,           /* that a pull is given to get on, and to begin */
    FORK_FRAME_MAX = FRAME_HEADER_LEN + 8 + WIRE_CHAIN_MAX * WIRE_HISTORY_LEN,
};

struct sink {
    struct self *self;
    struct sink_target target;
    struct thread thread, acker;
    struct wake wake; /* of a pause */
    _Atomic bool stop;
    /* of the thread */
    struct apply *apply;
    struct log_feed *feed;
    struct buf pending;   /* the beginning of a frame */
    uint64_t pending_lsn; /* of its first byte */
    struct blob *playing; /* helpers play what is in it; NULL = all of the log is shown */
    uint64_t playing_end;
    int64_t
        beat_us; /* when the source had all that there was, monotonic, as far as the last heartbeat tells; 0 = unknown */
    int64_t ahead_us;   /* our monotonic clock before the source's clock; INT64_MAX = not known */
    int64_t beat_ms;    /* the primary's clock at the time that the source shows, */
    uint64_t beat_head; /* and the head that it told */
    struct rng rng;
    uint8_t told[PEERS_MAX + 1][PEER_ID_LEN]; /* on this link: the source, and whom it knows */
    uint32_t told_count;
    int64_t pause_ms;
    int64_t asked_until_us; /* somebody waits for acknowledgements */
    uint64_t pull_to;       /* a pull ends there; 0 = not one, or not yet known */
    uint64_t pull_has;      /* where it is, */
    int64_t pull_moved_us;  /* and since when */
    bool copied;            /* a pull has ended in a copy */
    bool handed_over;       /* its owner makes the node the primary: it doesn't connect again */
    /* sending */
    pthread_mutex_t send_lock;
    _Atomic bool acks;          /* there is a log to acknowledge */
    _Atomic bool link_over;     /* the acker ends */
    _Atomic uint64_t hurry_lsn; /* somebody waits until the disk has this */
    struct wake ack_wake;       /* of the acker */
    _Atomic uint64_t acked_received;
    /* atomic */
    _Atomic int64_t behind_since_us;
    _Atomic uint32_t pulled; /* enum sink_pull */
    /* under lock */
    struct lock lock;
    struct link *link; /* NULL = none */
    struct repl_view view;
    struct sink_stats stats;
};

bool sink_must_end(const struct sink *s);
/* For so long a pull may get nowhere: writes wait for it. */
int64_t sink_pull_ms(const struct sink *s);
void sink_set_link(struct sink *s, enum repl_link state);
void sink_note_io(struct sink *s);
/* Tells the source how far the log has come. Errors: those of the link. */
DC_MUST enum dc_err sink_ack(struct sink *s);

/* sink_log.c: the link is open, the log follows from its end on. Until it ends. */
DC_MUST enum dc_err sink_stream(struct sink *s);
/* sink_copy.c: until the copy is complete, and noted. One that was pulled its owner notes. */
DC_MUST enum dc_err sink_copy(struct sink *s);

/* The next message that isn't about the link itself; a heartbeat is noted. WIRE_NONE: nothing came for a while. Errors: those of the link;
 * DC_EIO: silence, or BYE. */
DC_MUST enum dc_err sink_receive(struct sink *s, int64_t timeout_ms, struct link_message *out);

#endif
