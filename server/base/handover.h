/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * handover: a process begins anew in place: the same program by execve(), the same pid, with what it needs of the past.
 *
 *     handover_begin()    first thing in main(): where the process was started, and what the one before left, if there was one
 *     handover_exec()     last thing: never returns, unless it fails
 *
 * Purpose: what is handed over stands in a file in memory that the environment names (DCACHE_HANDOVER); secrets among the options are in no
 *   environment and in no file of a disk. Every other descriptor is closed by the execve().
 * Invariants: I1 a hand-over counts only in the process that made it: the pid stands in it. I2 the new start finds the directory in which
 *   the first one was started, so relative paths mean the same.
 * Threads: the main thread, when no other runs. (Others end with the execve().)
 * Ownership: handover_fini() frees the texts; sockets that nobody took are closed by it.
 */
#ifndef DC_BASE_HANDOVER_H
#define DC_BASE_HANDOVER_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/buf.h"
#include "server/base/err.h"
#include "server/base/limits.h"

enum { RUN_ID_LEN = 40 };

struct handover {
    char run_id[RUN_ID_LEN + 1];
    int sockets[LISTENERS_MAX]; /* listening; -1 = taken by somebody */
    uint32_t socket_count;
    char *conf_file; /* the file that the options were read from first; NULL = none */
    struct buf conf; /* lines: all options as they are now */
};

/* True: another run of this process hands over, and 'out' says what. Else 'out' is empty. */
bool handover_begin(struct handover *out, char **argv);
void handover_fini(struct handover *h);

/* The process becomes a new one. Returns only when that can't be: DC_EIO. */
enum dc_err handover_exec(const struct handover *h);

#endif
