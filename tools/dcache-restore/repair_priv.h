/* SPDX-License-Identifier: BSD-3-Clause */
/* repair_priv: what the parts of the repair share: holes, and the replay of frames that may not fit. */
#ifndef DC_TOOLS_RESTORE_REPAIR_PRIV_H
#define DC_TOOLS_RESTORE_REPAIR_PRIV_H

#include "persist/snap_reader.h"
#include "tools/dcache-restore/repair.h"

/* What a bad block held: positions [first, end) of a keyspace. */
struct hole {
    uint32_t keyspace;
    uint64_t first, end;
    uint64_t entries;
    uint64_t
        since; /* effects from there on count: begin of the snapshot that filled it; 0 = none did */
    uint64_t until; /* E of that snapshot: up to there its entries may be ahead; 0 = none */
    bool filled;
};

struct repair {
    struct source *source;
    const struct options *o;
    struct repair_report *report;
    struct mut mut;
    /* snapshots that open, the newest first */
    struct snap **snaps;
    char (*names)[SEGMENT_NAME_MAX];
    uint32_t snap_count, snap_cap;
    enum dc_err snap_err; /* one that is there can't be mended for want of something else */
    uint32_t base;        /* index; snap_count = none */
    struct log_dir dir;
    bool has_identity; /* node id and seed are known */
    struct hole *holes;
    uint32_t hole_count, hole_cap;
    uint64_t base_start, base_end; /* S, E; 0 without one */
    uint64_t tail_end;             /* so far the base's own tail was good */
    uint64_t reached;              /* end of the last frame that counts */
    int64_t time_ms;               /* of that frame */
    bool enough;                   /* the point asked for was passed */
    uint64_t log_end;              /* end of the last frame, also behind the point */
    int64_t log_time_ms;
    bool is_early; /* older snapshots' tails: what doesn't fit now may do when the segments come */
    bool before_base; /* frames up to S are gone through, for holes; else those behind it */
};

/* repair_snap.c */
/* Errors: as mend_snapshot(), but for DC_ECORRUPT. */
DC_MUST enum dc_err repair_find_snapshots(struct repair *r);
void repair_choose_base(struct repair *r);
DC_MUST enum dc_err repair_load_snapshots(struct repair *r);
void repair_free_snapshots(struct repair *r);
bool repair_in_hole(const struct repair *r, uint32_t keyspace, uint64_t pos, uint64_t version);
/* Up to where the image that a key's entry is from may be ahead of the log: E of its snapshot. */
uint64_t repair_window_end(const struct repair *r, uint32_t keyspace, uint64_t pos);

/* repair_log.c */
DC_MUST enum dc_err repair_load_log(struct repair *r);

/* mend.c: a snapshot whose footer or index is damaged, from its blocks: a temporary file that has lost its name already. Errors: DC_ECORRUPT
 * when nothing can be made of it; DC_EIO when the temporary file can't be written. */
DC_MUST enum dc_err mend_snapshot(struct repair *r, const char *path, struct snap **out);

#endif
