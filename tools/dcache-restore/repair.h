/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * repair: everything that can be read of a damaged directory, in a store.
 *
 * Purpose: what data_scan() refuses is taken apart here: the newest snapshot that opens gives its good blocks; what its bad
 *   blocks held is taken from older snapshots; then every good frame of the log is applied, and what doesn't fit is passed over.
 * Invariants: I1 a byte whose checksum is wrong is never used. I2 every stretch that was passed over is listed. I3 the files are only read.
 * Failure: DC_EIO when nothing at all can be read, or there is no room to mend a snapshot; DC_ENOMEM.
 */
#ifndef DC_TOOLS_RESTORE_REPAIR_H
#define DC_TOOLS_RESTORE_REPAIR_H

#include "tools/dcache-restore/source.h"

struct repair_report {
    char **lines; /* what was passed over */
    uint32_t count, cap;
    uint64_t damages;         /* lines may leave some out */
    uint64_t entries_lost;    /* of blocks and values, that no older snapshot had */
    uint64_t entries_older;   /* taken from an older snapshot */
    uint64_t effects_skipped; /* of good frames: what they were made for is lost */
    uint64_t frames;
    char snapshot[SEGMENT_NAME_MAX]; /* "" = none */
};

/* Fills the source's store and plan. */
DC_MUST enum dc_err repair_load(struct source *s, const struct options *o, struct repair_report *r);
void repair_note(struct repair_report *r, const char *fmt, ...) DC_PRINTF(2, 3);
void repair_report_fini(struct repair_report *r);

#endif
