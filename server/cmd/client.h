/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client: what the node knows of one connection, whatever carries it.
 *
 * Purpose: the session state that commands see and change; the registry for CLIENT LIST and KILL.
 * Threads: a client belongs to one worker, which alone touches it, but for the fields under the lock CLIENTS and the
 *   atomics, which CLIENT LIST reads from other workers.
 * Ownership: the connection (server/net) embeds it; client_fini() releases what it holds.
 */
#ifndef DC_CMD_CLIENT_H
#define DC_CMD_CLIENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/base/ack.h"
#include "server/cmd/cmd.h"

enum client_flag {
    CLIENT_MULTI = 1 << 0,      /* commands are queued */
    CLIENT_CLOSE_SOON = 1 << 1, /* close when the replies are out */
    CLIENT_REPLY_OFF = 1 << 2,
    CLIENT_REPLY_SKIP = 1 << 3, /* the running command's reply is dropped */
    CLIENT_SKIP_NEXT = 1 << 4,  /* the next one's will be */
    CLIENT_MONITOR = 1 << 5,
    CLIENT_NO_EVICT = 1 << 6,
    CLIENT_NO_TOUCH = 1 << 7,
    CLIENT_UNIX = 1 << 8,
    CLIENT_AUTHENTICATED = 1 << 9,
    CLIENT_SUBSCRIBED = 1 << 10, /* channels, patterns or shard channels are listened to */
    CLIENT_ACK_CHANGED =
        1 << 11, /* replies from here on have another level; the connection takes it over */
    CLIENT_ACK_ONCE = 1 << 12 /* that of the next command is 'ack_once' */
};

struct tx;          /* tx.c */
struct client_subs; /* pubsub.c */
struct backup_task; /* cmd_backup.c */

enum { CLIENT_ADDR_MAX = 120 };

struct client {
    /* constant after client_init() */
    uint64_t id;
    struct cmd_worker *worker;
    int fd;
    char addr[CLIENT_ADDR_MAX]; /* "127.0.0.1:50422", "[::1]:50422", "/path:0" */
    char laddr[CLIENT_ADDR_MAX];
    int64_t created_ms;
    /* owned by the worker */
    enum reply_proto proto;
    uint32_t flags;
    struct keyspace *ks;
    uint64_t last_version;     /* of the last write: LASTVER */
    struct ack_level ack;      /* CLIENT ACK */
    struct ack_level ack_once; /* CLIENT ACK ... NEXT */
    int64_t max_stale_ms;      /* CLIENT MAXSTALE, 0 = any */
    int64_t wait_until_ms;     /* WAIT, WAITAOF or READAFTER under way, 0 = none */
    enum {
        UNBLOCK_NOT,
        UNBLOCK_TIMEOUT,
        UNBLOCK_ERROR
    } unblock;                  /* CLIENT UNBLOCK ended the last wait */
    struct tx *tx;              /* queued commands and watched keys, NULL = none */
    struct client_subs *subs;   /* NULL = none */
    struct backup_task *backup; /* BACKUP under way, NULL = none */
    uint64_t save_ticket;       /* of the snapshot that SAVE waits for, 0 = none */
    uint64_t role_order;        /* REPLICAOF waits for it, 0 = none */
    int64_t role_until_ms;      /* how long, inside EXEC */
    /* atomic, written by the worker, read by all */
    _Atomic int64_t last_ms;     /* last interaction */
    _Atomic uint32_t seen_flags; /* copy of flags */
    _Atomic uint32_t seen_db;
    _Atomic uint32_t seen_proto;
    _Atomic uint32_t seen_cmd;  /* enum cmd_id of the last command */
    _Atomic int32_t seen_multi; /* queued commands, -1 = no MULTI */
    _Atomic uint32_t seen_subs, seen_psubs, seen_ssubs;
    _Atomic uint32_t seen_watches;
    _Atomic bool seen_waits;      /* wait_until_ms isn't 0 */
    _Atomic uint64_t seen_input;  /* bytes of unfinished input */
    _Atomic uint64_t seen_output; /* bytes of unsent output */
    _Atomic uint64_t seen_commands;
    /* under the lock CLIENTS */
    struct client *next, *prev;
    char *name; /* NULL = none */
    char *lib_name;
    char *lib_ver;
};

/* Sets a client up as a new connection and enters it into the registry. */
void client_init(struct client *c, struct cmd_worker *w, int fd, const char *addr,
                 const char *laddr, bool is_unix);
/* Leaves channels, transactions and the registry. */
void client_fini(struct client *c);
/* RESET: everything but the connection itself as new. */
void client_reset(struct client *c);

/* Copies flags, database and protocol to what others see. The dispatcher calls it when they may have changed. */
void client_show(struct client *c);
/* The level of the replies that are made from now on. */
static inline struct ack_level client_level(const struct client *c) {
    return (c->flags & CLIENT_ACK_ONCE) ? c->ack_once : c->ack;
}
/* A command has run: whether the level is another one now. Of one for the next command alone a transaction is part until its EXEC. */
bool client_level_moves(struct client *c);

bool client_is_authenticated(const struct client *c);

#endif
