/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * system: entries that aren't anybody's data, and must be the same wherever the data is.
 *
 * Purpose: what replicas, snapshots, backups and the next start have to know beside the databases stands in a keyspace of its own,
 *   KEYSPACE_SYSTEM. So it is in the log, in the frame of what it describes, and needs no mechanism of its own. Few and small entries.
 * Invariants: I1 no client reaches it: it has no index, isn't counted, listed, swept, evicted or flushed. I2 its entries don't expire.
 *   I3 they are in the store before the first command runs (persist/warm.h).
 * Threads: any that holds all slot locks (such commands are rare, and have F_ALL_SLOTS).
 *
 *     flush:<database>    when the database was last flushed, by the node's clock, in ms. Its own effect stands right before the
 *                         FLUSH effect, so its version tells that of the flush.
 */
#ifndef DC_STORE_SYSTEM_H
#define DC_STORE_SYSTEM_H

#include "server/store/store.h"

/* NULL = there is none. */
struct entry *system_get(struct store *s, struct bytes name);

/* Part of the frame that 'm' becomes. Name and value as mut_put() has them: they live until the commit. Errors: DC_ENOMEM. */
DC_MUST enum dc_err system_put(struct mut *m, struct bytes name, const struct value *v);
DC_MUST enum dc_err system_del(struct mut *m, struct bytes name);

/* Flushes a database: the record, then the flush. Errors: DC_ENOMEM. */
DC_MUST enum dc_err system_flush(struct mut *m, struct keyspace *ks);
/* The record of the database's last flush; NULL = there is none. */
struct entry *system_flush_record(struct keyspace *ks);

#endif
