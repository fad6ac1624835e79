/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cmd: the command table and the dispatcher.
 *
 * Purpose: one table (cmd.def) makes the look-up, arity and permission checks, key extraction, locking, statistics and
 *   what COMMAND prints. A handler starts at the interesting line: its arguments are counted, its keys hashed, their
 *   slots locked.
 * Invariants: I1 a handler runs with the slots of all its keys locked, once each, taken in ascending order; I2 it
 *   changes the store only through ctx->mut, which is committed after it returned DC_OK and forgotten otherwise,
 *   with whatever it had replied; I3 it never waits.
 * Threads: the worker that owns the client.
 */
#ifndef DC_CMD_CMD_H
#define DC_CMD_CMD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/base/arena.h"
#include "server/base/bytes.h"
#include "server/base/err.h"
#include "server/proto/reply.h"
#include "server/proto/request.h"
#include "server/store/store.h"

struct cmd_ctx;
struct cmd_worker;
struct client;
struct node;
struct lifted;

typedef enum dc_err (*cmd_fn)(struct cmd_ctx *ctx);

enum cmd_id {
#define CMD(id, parent, name, run, arity, first, last, step, flags, effects, group, since, sum) \
    CMD_##id,
#define CMD_CONTAINER(id, name, arity, flags, group, since, sum) CMD_##id,
#include "server/cmd/cmd.def"
#undef CMD
#undef CMD_CONTAINER
    CMD_COUNT,
    CMD_NONE = CMD_COUNT
};

enum cmd_flag {
    F_WRITE = 1 << 0,
    F_READONLY = 1 << 1,
    F_DENYOOM = 1 << 2,
    F_ADMIN = 1 << 3,
    F_PUBSUB = 1 << 4,
    F_NOSCRIPT = 1 << 5,
    F_LOADING = 1 << 6,
    F_STALE = 1 << 7,
    F_FAST = 1 << 8,
    F_NO_AUTH = 1 << 9,
    F_ALLOW_BUSY = 1 << 10,
    F_SKIP_SLOWLOG = 1 << 11,
    F_NO_MULTI = 1 << 12,
    F_WALK = 1 << 13,      /* takes slot locks itself, one at a time; inside EXEC all are held */
    F_ALL_SLOTS = 1 << 14, /* the dispatcher takes all of them */
    F_NEEDS_ALL = 1 << 15, /* waits until everything is loaded */
    F_LOADS = 1 << 16,     /* loads what it needs itself; inside EXEC it can't, so that waits */
    F_DETACHES = 1 << 17   /* what comes behind it on the connection may be no request */
};

enum cmd_effect {
    E_PUT = 1 << MUT_PUT,
    E_DEL = 1 << MUT_DEL,
    E_EXPIRE = 1 << MUT_EXPIRE,
    E_WRITE = 1 << MUT_WRITE,
    E_FLUSH = 1 << MUT_FLUSH
};

enum cmd_group { G_STRING, G_BITMAP, G_GENERIC, G_CONNECTION, G_TRANSACTIONS, G_PUBSUB, G_SERVER };

struct cmd {
    const char *name; /* "get", "client|list" */
    cmd_fn run;       /* NULL: a container */
    enum cmd_id id;
    enum cmd_id parent; /* CMD_NONE at the top */
    uint32_t flags;
    uint32_t effects;
    int16_t arity;
    int16_t key_first;
    int16_t key_last;
    int16_t key_step;
    enum cmd_group group;
    const char *since;
    const char *summary;
};

extern const struct cmd cmd_table[CMD_COUNT];

/* Builds the look-up. Called once. */
void cmd_init(void);

/* The command of a request, the subcommand where there is one; NULL = unknown. */
const struct cmd *cmd_lookup(const struct bytes *argv, uint32_t argc);
const struct cmd *cmd_by_name(struct bytes name); /* top level, or "client|list" */
const char *cmd_group_name(enum cmd_group group); /* "string", "bitmap", "generic", ... */
bool cmd_arity_fits(const struct cmd *cmd, uint32_t argc);

/* Number of keys in a request, and the index of key i. Needs a fitting arity. */
uint32_t cmd_key_count(const struct cmd *cmd, uint32_t argc);
static inline uint32_t cmd_key_index(const struct cmd *cmd, uint32_t i) {
    return (uint32_t)(cmd->key_first + (int32_t)i * cmd->key_step);
}

/* One request on its way: read, looked up and hashed ahead so that memory can be fetched early. */
struct job {
    struct request req;
    const struct cmd *cmd; /* NULL = unknown */
    struct key key;        /* the first key */
    bool hashed;
};

/* What a handler sees. */
struct cmd_ctx {
    struct node *node;
    struct cmd_worker *worker;
    struct client *client;
    const struct cmd *cmd;
    uint32_t argc;
    const struct bytes *argv; /* live until the end of the turn; inside EXEC until its end */
    struct key *keys;         /* of the command, in the order of the arguments */
    uint32_t key_count;
    struct keyspace *ks; /* the client's database */
    struct reply *reply;
    struct mut *mut;
    int64_t now_ms;        /* the one time of the command, or of the EXEC */
    struct lifted *lifted; /* large arguments that were put into blobs before locking */
    bool in_exec;
    bool all_locked; /* every slot is held: a walk takes no locks */
};

/* First step, at read time: look up, hash the first key, ask for its root. */
void cmd_prepare(struct cmd_worker *w, struct client *c, struct job *job);
/* Some requests later: ask for the line, and later still for the entry. */
void cmd_prefetch_line(struct client *c, struct job *job);
void cmd_prefetch_entry(struct client *c, struct job *job);

/* Whether the request has to wait (CLIENT PAUSE): keep it and come again. */
bool cmd_is_held(struct cmd_worker *w, struct client *c, const struct job *job);

/* Runs it; the reply is complete afterwards (empty for CLIENT REPLY OFF). */
void cmd_run(struct cmd_worker *w, struct client *c, struct job *job, struct reply *reply);

/* Runs one command whose slots are held: what it prepared is applied if it succeeds and forgotten, with what it
 * replied, if it fails; the error is the reply then. EXEC calls it for each of its commands. */
void cmd_call(struct cmd_ctx *ctx);

/* Loads what keys need, or a command, and isn't loaded yet. No slot lock is held. Errors: DC_ECORRUPT, DC_ENOMEM. */
DC_MUST enum dc_err cmd_load_keys(struct cmd_worker *w, const struct key *keys, uint32_t count);
DC_MUST enum dc_err cmd_load(struct cmd_worker *w, const struct cmd *cmd, const struct bytes *argv,
                             const struct key *keys, uint32_t key_count);

/* A large argument that is a blob already. */
struct lifted {
    struct lifted *next;
    uint32_t index;    /* of the argument */
    struct blob *blob; /* NULL: there was no memory */
};

/* Puts large arguments into blobs, so that no lock is held while they are copied. Released by lifted_release(). */
struct lifted *cmd_lift(struct arena *a, const struct cmd *cmd, const struct bytes *argv,
                        uint32_t argc);
void lifted_release(struct lifted *l);

#endif
