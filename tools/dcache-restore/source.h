/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * source: the directory that is restored from, and its content in memory as it was at the point asked for.
 *
 * Invariant: nothing in the directory is changed, no lock is taken: a node may be using it.
 * Threads: one (loaders are its own). Failure: DC_EIO, DC_ECORRUPT, DC_ENEWER, DC_EFOREIGN, DC_ENOMEM.
 */
#ifndef DC_TOOLS_RESTORE_SOURCE_H
#define DC_TOOLS_RESTORE_SOURCE_H

#include "persist/warm.h"
#include "tools/dcache-restore/options.h"

struct source {
    const char *dir;
    bool is_backup;
    bool in_use;         /* by a node */
    uint64_t backup_lsn; /* what the backup promises; 0 = nothing */
    int64_t backup_ms;
    struct data_plan *plan; /* the point that was reached */
    struct data_plan
        *all; /* the end of the directory's log; the same as 'plan' when that was asked for */
    /* Why that end isn't known: what is behind the point can't be read. "" = it is known. */
    char all_bad[ERR_TEXT_MAX];
    struct store *store;
    struct store_thread thread;
    struct metric_slot metrics; /* nobody counts these */
    int64_t now_ms;             /* the store's clock stands there */
    int64_t image_ms;           /* when the data was as it is in the store */
    uint64_t end_lsn;           /* everything up to there is in it */
};

/* What the directory is: files aren't opened yet. 'keyspaces' and 'seed' come later. */
DC_MUST enum dc_err source_look(struct source *s, const char *dir);
/* Snapshot and log into a store. */
DC_MUST enum dc_err source_load(struct source *s, const struct options *o);
/* The log goes on behind the point, or may do so. */
bool source_has_more(const struct source *s);
/* An empty store; for who fills it otherwise. */
void source_store(struct source *s, const uint8_t *seed);
void source_close(struct source *s);

#endif
