/* SPDX-License-Identifier: BSD-3-Clause */
/* source_priv: what the parts of the source share: source.c (sessions), source_copy.c (full copies), source_doubt.c, source_push.c, source_switch.c. */
#ifndef DC_REPLICATION_SOURCE_PRIV_H
#define DC_REPLICATION_SOURCE_PRIV_H

#include "persist/log_tail.h"
#include "replication/ear.h"
#include "replication/link.h"
#include "replication/source.h"
#include "server/base/buf.h"
#include "server/base/lock.h"
#include "server/base/thread.h"
#include "server/base/wake.h"

enum {
    SEND_LEN = 256 * 1024, /* of the log in one message */
    COPY_PIN_MS = 60 * 1000,
    SESSIONS_MAX = 2 * REPLICAS_MAX,
    HEAR_LOOKS = 8,             /* at least, before a silent link is given up */
    HEAR_SELDOM_US = 20 * 1000, /* while others listen */
};

struct session {
    struct session *next;
    struct source *source;
    struct self *self;
    struct thread sender, receiver;
    struct link *link;
    int fd; /* until the link has it */
    struct buf early;
    /* of the peer, known behind HELLO */
    uint8_t peer_id[PEER_ID_LEN];
    int32_t slot;                   /* in the registry, -1 = none */
    int64_t beat_us;                /* when the next is due */
    uint64_t hurried;               /* what was told last: an LSN, */
    int64_t asked_us;               /* and since when somebody waits */
    uint64_t peers_sum;             /* of what was last told of others, */
    uint32_t known_told;            /* and how many were known then */
    _Atomic uint64_t offered;       /* it can't have more of the log than this */
    _Atomic uint64_t received;      /* and says that it has so much */
    uint64_t promote_lsn;           /* source_switch.c: told when it has been sent all up to here */
    _Atomic uint64_t promote_epoch; /* 0 = nothing is to be told */
    bool attends;                   /* under source.lock: the peer stays */
    _Atomic bool stop;              /* somebody wants it to end */
    _Atomic bool ended;             /* may be joined */
    struct wake wake;               /* of the sender */
    struct ear *ear;                /* what the peer sends, once it stays */
    struct wake ear_wake;           /* of the receiver, while others listen */
    /* under send_lock: who sends, the sender or who has written the log (source_push.c) */
    pthread_mutex_t send_lock;
    uint64_t sent;         /* the peer has been sent all up to here */
    struct log_tail *tail; /* stands there, too, and holds the log from there on */
    struct buf rest;       /* of a message that the socket has taken in part */
};

/* Sessions that get what is written at once. */
struct source_push {
    pthread_mutex_t lock;
    struct session *sessions[SESSIONS_MAX];
    _Atomic uint32_t count; /* changes under the lock */
};

/* Log behind a copy, for a replica that is about to come back. */
struct copy_pin {
    struct copy_pin *next;
    uint8_t peer_id[PEER_ID_LEN];
    struct log_tail *tail;
    int64_t until_us;
};

/* A replica that was sent copies, and hasn't followed since. */
struct copy_taker {
    uint8_t peer_id[PEER_ID_LEN];
    uint32_t attempts; /* 0 = free */
    uint64_t last;     /* which copy, of all */
};

struct source {
    struct self *self;
    struct lock lock;
    /* under lock */
    struct session *sessions;
    uint32_t session_count;
    uint32_t copies;
    struct copy_pin *pins;
    struct copy_taker takers[REPLICAS_MAX];
    uint64_t copies_begun;
    uint64_t
        doubted;  /* source_doubt.c: a session that began here brought its peer nothing; 0 = none */
    uint64_t bad; /* what stands here is no frame, or can't be read; 0 = nothing is known */
    bool stopping;
    bool switches;  /* a peer was told to be the primary, */
    bool came_back; /* and greets as a replica again */
    uint8_t switch_peer[PEER_ID_LEN];
    struct source_stats stats;
    struct source_push push;
};

/* source_push.c */
void source_push_init(struct source_push *p);
void source_push_fini(struct source_push *p);
void source_push_join(struct session *s);
/* Returns when log-writer doesn't look at the session any more. */
void source_push_leave(struct session *s);
void source_push(void *source, uint64_t lsn, const char *bytes, size_t len); /* a log_tap_fn */

/* source_doubt.c */
/* The log was sent from there on, and the link has ended. */
void session_note_end(struct session *s, uint64_t from);
/* Whoever goes on from there gets to what can't be sent. */
bool source_log_is_bad(struct source *s, uint64_t lsn);
uint64_t source_bad_lsn(struct source *s);
/* Our own bytes right before 'lsn' aren't what they were: their hash says nothing of the peer's. */
bool source_tail_is_bad(const struct source *s, uint64_t lsn);

/* source_switch.c */
/* Tells the peer to be the primary, if that is to be told now. send_lock held. */
DC_MUST enum dc_err session_promote(struct session *s);
/* A peer has greeted that wants to follow. */
void source_note_follower(struct source *s, const uint8_t *peer_id);

/* The heartbeat, if it is due: also when another node has become known. */
DC_MUST enum dc_err session_beat(struct session *s);
bool session_must_end(const struct session *s);

/* source_copy.c: sends a full copy and leaves a pin. Errors: DC_EIO, DC_ESTOPPED, ... */
DC_MUST enum dc_err session_copy(struct session *s);
/* The peer follows. */
void source_forget_taker(struct source *s, const uint8_t *peer_id);
/* The pin of this peer, if there is one, isn't needed any more. */
void source_unpin(struct source *s, const uint8_t *peer_id);

#endif
