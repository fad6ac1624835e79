/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * backup: what a restart needs, put into another directory while the node runs.
 *
 *     snap-<E>-<history>.dcs    the newest whole one; hard link
 *     log-<LSN>-<history>.dcl   from its S on; hard links, but for the one that is being written: its bytes up to the durable LSN
 *     backup.json               node id, LSN, time, and of each file: name, length, checksum
 *
 * Invariants: I1 the directory has its name only when it is complete and durable (new_dir.h). I2 nothing in it
 *   is changed by the node later, but for durable marks in linked segments (they aren't part of the sums). I3 it is a data directory: a
 *   server started on it (better: on a copy) has everything up to the LSN.
 * Threads: the caller keeps retention away.
 * Failure: DC_EIO, DC_EGENERIC (the target is in use), DC_ESTOPPED; what was begun is removed.
 */
#ifndef DC_PERSIST_BACKUP_H
#define DC_PERSIST_BACKUP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "persist/log.h"
#include "persist/new_dir.h"
#include "persist/snap_fmt.h"

struct backup_opts {
    const struct io *io;
    const char *dir;    /* of the node */
    const char *target; /* a new directory, or an empty one */
    struct log *log; /* NULL: nothing is written to files ('appendonly no'); the snapshot is all */
    const uint8_t *node_id;      /* NODE_ID_LEN */
    const struct history *chain; /* the last one is current */
    uint32_t chain_count;
    int64_t now_ms;
    const _Atomic bool *stop; /* NULL = nobody stops it */
};

struct backup_written {
    uint64_t lsn;
    char snapshot[SNAP_NAME_MAX];
    uint32_t files, linked; /* of the files so many are hard links */
    uint64_t bytes;
    int64_t took_ms;
};

/* A whole snapshot of this node is there. */
bool backup_has_snapshot(const struct backup_opts *opts);
/* Needs a snapshot. */
DC_MUST enum dc_err backup_write(const struct backup_opts *opts, struct backup_written *out);

#endif
