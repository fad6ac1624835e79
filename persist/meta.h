/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * meta: what the node knows of itself and of its files, in LMDB. Local to this node.
 *
 * Purpose: node id, hash seed, role, chain of histories, catalogue of snapshots and segments. Everything but the role can be read from the
 *   files again; meta_open() makes an empty one where there is none, and recovery fills it.
 * Threads: any; one writer at a time inside (LMDB). Ownership: results are copies.
 * Failure: DC_EIO with LMDB's words. A damaged environment is moved aside (meta.damaged-<time>) and a new one begun: 'rebuilt' says so.
 */
#ifndef DC_PERSIST_META_H
#define DC_PERSIST_META_H

#include <stdbool.h>
#include <stdint.h>

#include "persist/lsn.h"
#include "persist/segment_fmt.h"
#include "server/base/err.h"

struct meta;

struct meta_node {
    uint8_t node_id[NODE_ID_LEN];
    uint8_t seed[SEED_LEN];
    bool known; /* false: nothing was stored yet */
};

enum file_kind { FILE_SEGMENT = 1, FILE_SNAPSHOT = 2 };
enum file_state {
    FILE_OPEN = 1,
    FILE_COMPLETE = 2,
    FILE_FOREIGN = 3 /* behind a fork */,
    FILE_BAD = 4
};

struct meta_file {
    char name[SEGMENT_NAME_MAX];
    enum file_kind kind;
    enum file_state state;
    uint64_t first_lsn, end_lsn, durable_lsn;
    uint64_t history;
    uint64_t count; /* entries of a snapshot */
    uint64_t bytes;
    uint64_t sum; /* of a snapshot's footer; 0 of a segment */
    int64_t created_ms;
};

DC_MUST enum dc_err meta_open(const char *dir, struct meta **out, bool *rebuilt);
void meta_close(struct meta *m);

DC_MUST enum dc_err meta_get_node(struct meta *m, struct meta_node *out);
DC_MUST enum dc_err meta_put_node(struct meta *m, const struct meta_node *node);

/* The chain, oldest first. 'out' has room for 'max'; returns the count in 'count'. */
DC_MUST enum dc_err meta_get_chain(struct meta *m, struct history *out, uint32_t max,
                                   uint32_t *count);
DC_MUST enum dc_err meta_put_chain(struct meta *m, const struct history *chain, uint32_t count);

/* Small texts: role, the target of a replica, ... A missing one is "". */
DC_MUST enum dc_err meta_get_text(struct meta *m, const char *name, char *out, size_t size);
DC_MUST enum dc_err meta_put_text(struct meta *m, const char *name, const char *value);

/* The catalogue, sorted by (kind, first LSN, name). */
DC_MUST enum dc_err meta_put_file(struct meta *m, const struct meta_file *f);
DC_MUST enum dc_err meta_drop_file(struct meta *m, const char *name);
typedef void (*meta_file_fn)(void *arg, const struct meta_file *f);
DC_MUST enum dc_err meta_each_file(struct meta *m, meta_file_fn each, void *arg);

/* The lock of the data directory: refused, by name, when another process holds it. Errors: DC_EBUSY_DIR. */
DC_MUST enum dc_err data_lock(const char *dir, int *fd_out);

#endif
