/* SPDX-License-Identifier: BSD-3-Clause */
/* data_scan_priv: what the search for a snapshot (data_scan.c) and an attempt with one (data_attempt.c) share. */
#ifndef DC_PERSIST_DATA_SCAN_PRIV_H
#define DC_PERSIST_DATA_SCAN_PRIV_H

#include "persist/scan_pieces.h"
#include "persist/warm_priv.h"

/* Texts that go into another one are bounded, so that the advice at its end is never cut off. */
enum { TEXT_MAX = 300 };

struct snap_name {
    char name[SEGMENT_NAME_MAX];
    uint64_t end_lsn;
};

struct scan {
    const struct warm_opts *opts;
    struct data_plan *plan;
    struct log_dir dir;
    struct snap_name *snaps; /* newest first */
    uint32_t snap_count, snap_cap;
    char owner[SEGMENT_NAME_MAX]; /* the file that said whose this is; "" = none yet */
    uint64_t must_reach;     /* the log has to go so far: a snapshot that was passed over did */
    char bad_text[TEXT_MAX]; /* why the newest of those was */
    uint32_t range_bits;     /* UINT32_MAX = as the snapshot has it */
    /* of one attempt */
    struct image image;
    struct scan_sums sums; /* of the frames so far; 'at': the end of the last good one */
    bool stopped;          /* at the target */
    bool tail_is_too_new;
};

/* How an attempt with one snapshot ended. */
enum attempt {
    ATTEMPT_OK,
    ATTEMPT_NEXT, /* an older one may do; dc_fail_take() says why this doesn't */
    ATTEMPT_REFUSED,
};

/* With this snapshot, or (NULL) with none. On ATTEMPT_OK 'end' says how the log ends. */
enum attempt scan_attempt(struct scan *s, const struct snap_name *n, enum dc_err *err,
                          enum log_end *end, struct log_end_info *info);

/* Whose files these are: the first one says so, all others have to agree. Errors: DC_EFOREIGN. */
DC_MUST enum dc_err scan_check_owner(struct scan *s, const char *name, const uint8_t *node_id,
                                     const uint8_t *seed);
/* DC_ECORRUPT, with the command that saves what is good. */
DC_MUST enum dc_err scan_refuse(struct scan *s, const char *what);
/* The text of an error, to be part of another one. */
void scan_take_text(enum dc_err err, char to[TEXT_MAX]);

#endif
