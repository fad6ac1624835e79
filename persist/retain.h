/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * retain: which files of the data directory aren't needed any more, and their removal.
 *
 * Purpose: retain_decide() is a pure function from the files, the options and what readers need to a list of files in the order in which
 *   they may be unlinked; retain_apply() unlinks them.
 * Invariants:
 *   I1 the two newest valid snapshots stay, and the log from the end of the older of them on: if the newest turns out to be damaged,
 *      nothing is lost. With one valid snapshot the log from its end on stays, without any all of it.
 *   I2 the log that stays has no hole: segments go oldest first, and after the snapshots that need them are gone durably. A crash at any
 *      point leaves a directory that starts as before.
 *   I3 no option and no lack of room overrides I1, 'needed_lsn' or the segment that is being written. Room is then made by a new snapshot
 *      (retain_plan.over), or not at all.
 * Threads: any; one removal at a time. Not while ranges are cold: loading may fall back to files that retention knows nothing of.
 */
#ifndef DC_PERSIST_RETAIN_H
#define DC_PERSIST_RETAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "persist/log_reader.h"
#include "persist/meta.h"
#include "persist/snap_reader.h"
#include "server/base/io.h"

enum { RETAIN_SNAPSHOTS_MIN = 2 };
#define RETAIN_ASIDE_MS ((int64_t)7 * 24 * 3600 * 1000)

/* A snapshot stays when 'keep_count' or 'keep_ms' says so and 'max_bytes' allows it; the log stays from the end of the oldest one on. */
struct retain_opts {
    uint32_t keep_count; /* the newest so many snapshots stay; fewer than two count as two */
    int64_t
        keep_ms; /* what a restore to a moment of the last so many ms needs stays; 0 = nothing more */
    uint64_t max_bytes; /* of all files together; 0 = no limit */
    int64_t
        aside_ms; /* how long abandoned and damaged files stay, since they were made; 0 = RETAIN_ASIDE_MS */
    int64_t now_ms; /* wall clock */
    uint64_t
        needed_lsn; /* a walk, a replica or a pinned reader reads from here on; UINT64_MAX = nobody */
};

struct retain_plan {
    struct meta_file
        *files; /* to be unlinked, in this order; the first 'snapshot_count' are snapshots */
    uint32_t count;
    uint32_t snapshot_count;
    uint64_t bytes;      /* of these files */
    uint64_t bytes_left; /* of all others */
    uint64_t floor_lsn;  /* log below it isn't needed by what stays; 0 = all is needed */
    bool over;           /* bytes_left is above max_bytes: only a new snapshot can help */
};

/*
 * The files as the catalogue has them, in any order:
 *   segment   OPEN (being written) stays; COMPLETE and BAD end where the next one begins; FOREIGN = abandoned
 *   snapshot  COMPLETE is valid; OPEN (being written) stays; FOREIGN and BAD don't count
 *   side      what was cut from a tail
 * Abandoned and side files go by age, when a valid snapshot was made after them; damaged snapshots when there are two newer ones, too.
 */
void retain_decide(const struct meta_file *files, uint32_t count, const struct retain_opts *opts,
                   struct retain_plan *out);
void retain_plan_fini(struct retain_plan *p);

/* Unlinks, syncs the directory, and drops the files from the catalogue ('m' may be NULL). What isn't there counts as removed. 'removed' (may
 * be NULL) says how many of the plan's files are gone. Errors: DC_EIO; those behind the failed one are untouched. */
DC_MUST enum dc_err retain_apply(const struct io *io, const char *dir,
                                 const struct retain_plan *plan, struct meta *m, uint32_t *removed);

/* Catalogue entries of what a directory holds. */
void retain_file_of_segment(const struct segment_info *s, struct meta_file *out);
void retain_file_of_snapshot(const char *name, const struct snap_facts *f, struct meta_file *out);

#endif
