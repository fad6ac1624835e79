/* SPDX-License-Identifier: BSD-3-Clause */
/* meta_priv: what meta.c, the only file that knows LMDB, offers to meta_values.c. */
#ifndef DC_PERSIST_META_PRIV_H
#define DC_PERSIST_META_PRIV_H

#include "persist/meta.h"
#include "persist/meta_fmt.h"

struct MDB_txn; /* LMDB's */

/* The body of a transaction; returns what LMDB said, 0 = well. Not 0: nothing is kept. May run more than once. */
typedef int (*meta_txn_fn)(struct meta *m, struct MDB_txn *txn, void *arg);
DC_MUST enum dc_err meta_run(struct meta *m, bool write, const char *doing, meta_txn_fn fn,
                             void *arg);

/* In a transaction. */
int meta_put_value(struct meta *m, struct MDB_txn *txn, enum meta_kind kind, const char *name,
                   struct bytes payload);
int meta_drop_value(struct meta *m, struct MDB_txn *txn, enum meta_kind kind, const char *name);
int meta_drop_kind(struct meta *m, struct MDB_txn *txn, enum meta_kind kind);
/* 'found' is false when there is none. The payload lives as long as the transaction. */
int meta_get_value(struct meta *m, struct MDB_txn *txn, enum meta_kind kind, const char *name,
                   struct bytes *payload, bool *found);
typedef int (*meta_value_fn)(void *arg, struct bytes name, struct bytes payload);
int meta_each_value(struct meta *m, struct MDB_txn *txn, enum meta_kind kind, meta_value_fn fn,
                    void *arg);
/* What a body returns for a value that is no such. */
int meta_damage(void);

#endif
