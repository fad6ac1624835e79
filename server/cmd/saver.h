/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * saver: the snapshotter thread: when a snapshot is written, and what became of it.
 *
 * Purpose: BGSAVE and SAVE, the rules of 'save', growth of the log, the clean end. One snapshot at a time; none while the store is still
 *   being loaded. After each: catalogue, retention.
 * Threads: any may ask and look. Ownership: the node's.
 */
#ifndef DC_CMD_SAVER_H
#define DC_CMD_SAVER_H

#include <stdbool.h>
#include <stdint.h>

#include "persist/data.h"
#include "persist/snap_writer.h"
#include "server/base/err.h"

struct node;
struct saver;

struct saver *saver_start(struct node *n, struct data *d);
/* The node ends: a snapshot under way is given up, and nobody waits for it any more. */
void saver_give_up(struct saver *s);
/* Likewise, and frees it. NULL is legal. */
void saver_stop(struct saver *s);

enum saver_answer { SAVER_STARTED, SAVER_SCHEDULED, SAVER_BUSY };
enum saver_answer saver_request(struct saver *s, bool may_wait);
/* Names the last snapshot that is under way or asked for. */
uint64_t saver_ticket(struct saver *s);
/* It has ended, or the node ends. Held requests are told to look again. */
bool saver_is_over(struct saver *s, uint64_t ticket);
/* What became of it. Errors: DC_EIO with what went wrong. */
DC_MUST enum dc_err saver_result(struct saver *s, uint64_t ticket);
/* Likewise, when it has ended: for a thread that may wait. */
DC_MUST enum dc_err saver_wait(struct saver *s);

/* Work that must not meet a snapshot or retention: done between them, in the snapshotter's thread. */
struct saver_job {
    struct saver_job *next;
    bool waits;               /* for a snapshot */
    const _Atomic bool *stop; /* the node ends */
    /* False: a snapshot is wanted first; when it has ended, this is called again. 'failed' says why there is none, or that the node
     * ends (else NULL): true has to be returned then. The job isn't touched after that. */
    bool (*run)(struct saver_job *j, const struct data *d, const char *failed);
};
void saver_do(struct saver *s, struct saver_job *j);

/* An option may ask for a snapshot now. */
void saver_look(struct saver *s);

/* A file of the log was begun or finished: catalogue, retention. Called by the log's writer. */
void saver_note_rotation(struct saver *s);

struct saver_state {
    bool running;
    bool last_failed;
    char last_error[512];
    int64_t last_ms;      /* when the last good one ended; start of the node when there was none */
    int64_t last_took_ms; /* -1 = none yet */
    int64_t running_ms;   /* -1 = none */
    uint64_t changes;     /* since the last good one */
    uint64_t done, expected; /* entries */
    uint64_t last_end_lsn;
    uint64_t last_entries, last_bytes;
    uint64_t written, failed; /* snapshots of this run */
};
void saver_state(struct saver *s, struct saver_state *out);

#endif
