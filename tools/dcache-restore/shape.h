/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * shape: what of a source's content is restored, and until when it lives.
 *
 * Purpose: entries that nobody asked for and entries that have expired leave the store; the others' expiries are moved if that is wanted.
 * Versions, ages and frequencies stay.
 */
#ifndef DC_TOOLS_RESTORE_SHAPE_H
#define DC_TOOLS_RESTORE_SHAPE_H

#include "tools/dcache-restore/source.h"

struct shape {
    bool shifts;
    int64_t shift_ms;      /* 0 when it doesn't */
    uint64_t entries;      /* that stay */
    uint64_t bytes;        /* their keys and values */
    uint64_t left_out;     /* another keyspace, another pattern */
    uint64_t system;       /* of the system keyspace, that stay; not counted above */
    uint64_t expired;      /* at the time of the image, or by now when nothing is shifted */
    uint64_t moved;        /* expiries */
    uint64_t would_expire; /* of those, that had passed by now */
};

/* How far expiries are moved. */
void shape_plan(struct shape *sh, const struct source *s, const struct options *o);
/* Errors: DC_ENOMEM. */
DC_MUST enum dc_err shape_apply(struct shape *sh, struct source *s, const struct options *o);

/* Calls 'each' for every entry of the store, keyspace by keyspace, that of the system last. It may change the store at this entry. */
typedef enum dc_err (*shape_fn)(void *arg, struct keyspace *ks, struct entry *e);
DC_MUST enum dc_err shape_each(struct source *s, shape_fn each, void *arg);

#endif
