/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * meta: what the node knows of itself and of its files, in LMDB. Local to this node.
 *
 * Purpose: node id, hash seed, role, chain of histories, catalogue of snapshots and segments. Everything but the texts can be read from the
 *   files again; meta_open() makes an empty one where there is none, and recovery fills it.
 * Invariants: I1 a call that returned DC_OK is on the disk. I2 a call changes all that it names, or nothing. I3 every value carries a
 *   checksum over itself and its name.
 * Threads: any; one call at a time inside (a lock of its own, held during the fsync: not for anybody who may not wait).
 * Ownership: results are copies.
 * Failure: DC_EIO with LMDB's words. DC_ENEWER: a newer program's; nothing was changed. A damaged environment is moved aside (meta.damaged-<time>) and a new one begun: 'rebuilt' says so.
 *   Damage that appears later: DC_ECORRUPT.
 */
#ifndef DC_PERSIST_META_H
#define DC_PERSIST_META_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "persist/data_dir.h" /* data_lock() */
#include "persist/lsn.h"
#include "persist/segment_fmt.h"
#include "server/base/err.h"

struct meta;

enum { META_TEXT_NAME_MAX = 64, META_TEXT_MAX = 4096 }; /* with their NULs */

struct meta_node {
    uint8_t node_id[NODE_ID_LEN];
    uint8_t seed[SEED_LEN];
    bool known; /* false: nothing was stored yet */
};

enum file_kind { FILE_SEGMENT = 1, FILE_SNAPSHOT = 2, FILE_SIDE = 3 /* a tail that was cut */ };
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
    uint64_t first_lsn, end_lsn, durable_lsn; /* of a snapshot: S, E, E */
    uint64_t history;
    uint64_t count; /* entries of a snapshot */
    uint64_t bytes;
    uint64_t sum; /* of a snapshot's footer; 0 of a segment */
    int64_t created_ms;
};

/* The caller holds the lock of the data directory. */
DC_MUST enum dc_err meta_open(const char *dir, struct meta **out, bool *rebuilt);
/* For tools, also beside a live node: nothing is created or moved, writing calls are programming errors. Errors: DC_EIO also when
 * there is none, DC_ECORRUPT, DC_ENEWER. */
DC_MUST enum dc_err meta_open_read_only(const char *dir, struct meta **out);
void meta_close(struct meta *m); /* NULL is legal */

DC_MUST enum dc_err meta_get_node(struct meta *m, struct meta_node *out);
DC_MUST enum dc_err meta_put_node(struct meta *m, const struct meta_node *node);

/* The chain, oldest first. 'out' has room for 'max'; returns the count in 'count'. Errors: DC_ELIMIT when it is longer. */
DC_MUST enum dc_err meta_get_chain(struct meta *m, struct history *out, uint32_t max,
                                   uint32_t *count);
DC_MUST enum dc_err meta_put_chain(struct meta *m, const struct history *chain, uint32_t count);

/* Small texts: role, the target of a replica, ... A missing one is "". Errors: DC_ELIMIT when it doesn't fit. */
DC_MUST enum dc_err meta_get_text(struct meta *m, const char *name, char *out, size_t size);
DC_MUST enum dc_err meta_put_text(struct meta *m, const char *name, const char *value);
/* Several: all or none. */
struct meta_text {
    const char *name, *value;
};
DC_MUST enum dc_err meta_put_texts(struct meta *m, const struct meta_text *texts, uint32_t count);
typedef void (*meta_text_fn)(void *arg, const char *name, const char *value);
DC_MUST enum dc_err meta_each_text(struct meta *m, meta_text_fn each, void *arg);

/* The catalogue, sorted by (kind, first LSN, name). */
DC_MUST enum dc_err meta_put_file(struct meta *m, const struct meta_file *f);
/* What isn't there is dropped already. */
DC_MUST enum dc_err meta_drop_file(struct meta *m, const char *name);
DC_MUST enum dc_err meta_drop_files(struct meta *m, const struct meta_file *files, uint32_t count);
/* Exactly these: after the files were looked at. */
DC_MUST enum dc_err meta_set_files(struct meta *m, const struct meta_file *files, uint32_t count);
typedef void (*meta_file_fn)(void *arg, const struct meta_file *f);
DC_MUST enum dc_err meta_each_file(struct meta *m, meta_file_fn each, void *arg);

#endif
