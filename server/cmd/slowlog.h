/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * slowlog: the latest commands that took long.
 *
 * Purpose: SLOWLOG. An entry holds bounded copies of the arguments, as Redis keeps them: SLOWLOG_ARGS_MAX of them, of
 *   SLOWLOG_ARG_LEN_MAX bytes each.
 * Invariants: I1 ids rise by one and are never given twice; I2 at most slowlog-max-len entries are kept.
 * Threads: any (lock SLOWLOG).
 */
#ifndef DC_CMD_SLOWLOG_H
#define DC_CMD_SLOWLOG_H

#include <stdint.h>

#include "server/base/bytes.h"

struct client;
struct cmd_worker;
struct slowlog;

enum { SLOWLOG_ARGS_MAX = 32, SLOWLOG_ARG_LEN_MAX = 128 };

/* One entry, in one allocation. */
struct slowlog_entry {
    struct slowlog_entry *older;
    int64_t id;
    int64_t time_s;
    uint64_t usec;
    struct bytes addr;
    struct bytes name;
    uint32_t argc;
    struct bytes argv[]; /* then the bytes of all */
};

/* What there is to say of one command. */
struct slowlog_fact {
    int64_t time_s;
    uint64_t usec;
    struct bytes addr;
    struct bytes name;
    uint32_t argc;
    const struct bytes *argv;
};

struct slowlog *slowlog_create(void);
void slowlog_destroy(struct slowlog *log);

/* The command that 'c' has just run took 'usec', which is as long as slowlog-log-slower-than or longer. */
void slowlog_note(struct cmd_worker *w, struct client *c, const struct bytes *argv, uint32_t argc,
                  uint64_t usec);

/* Keeps an entry and drops the oldest beyond 'max_len'. */
void slowlog_add(struct slowlog *log, const struct slowlog_fact *fact, uint32_t max_len);

uint32_t slowlog_len(struct slowlog *log);
void slowlog_reset(struct slowlog *log);

/* Calls 'begin' with the number of entries that follow (at most 'count'), then 'each', the newest first. The lock is held. */
typedef void (*slowlog_begin_fn)(void *arg, uint32_t count);
typedef void (*slowlog_each_fn)(void *arg, const struct slowlog_entry *e);
void slowlog_each(struct slowlog *log, uint32_t count, slowlog_begin_fn begin, slowlog_each_fn each,
                  void *arg);

#endif
