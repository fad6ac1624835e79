/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * adopt: another data set at the next start: what a link notes for it, and the start that does it.
 *
 * Purpose: a replica whose log has a tail that its primary hasn't, or which needs everything anew, doesn't change the store that serves: it
 *   writes down what is to be done and starts anew in place. The start has the directory to itself.
 *     rewind   the log is cut at a fork; the tail, and snapshots that reach past it, go to side files
 *     copy     what lies complete in <dir>/incoming/ (a snapshot, perhaps log behind it) takes the place of all that is there
 * Invariants: I1 until a note is done every start goes on with it, from any point at which it was cut off: a directory is never opened
 *   while it holds a part of both. I2 the old data set (<dir>/replaced-<n>/) goes when the new one is open. I3 a note that can't be
 *   done becomes ADOPT_NEEDS_COPY, and the start goes on with what there is.
 * Threads: notes by whoever decides, one at a time; the rest is the start's.
 * Failure: DC_EIO, and what the metadata say. The start is refused then; the next one tries again.
 */
#ifndef DC_PERSIST_ADOPT_H
#define DC_PERSIST_ADOPT_H

#include "persist/meta.h"
#include "server/base/io.h"

#define ADOPT_INCOMING "incoming"

enum adopt_what { ADOPT_NOTHING, ADOPT_REWIND, ADOPT_COPY, ADOPT_NEEDS_COPY };

/* How far a copy is taken over. */
enum adopt_step {
    ADOPT_NOTED,
    ADOPT_OUT, /* the old files are being moved out */
    ADOPT_IN,  /* the new ones in */
    ADOPT_OPEN /* all is in its place */
};

struct adopt_note {
    enum adopt_what what;
    uint64_t lsn, history; /* of a rewind: the fork, and the history in which it lies */
    enum adopt_step step;  /* of a copy */
    uint32_t number;       /* of the directory for the old files */
    char why[256];         /* a copy is needed */
};

DC_MUST enum dc_err adopt_get(struct meta *m, struct adopt_note *out);
/* The log goes up to exactly 'lsn', an end of a frame of 'history', at the next start. */
DC_MUST enum dc_err adopt_note_rewind(struct meta *m, uint64_t lsn, uint64_t history);
/* What is in 'incoming' counts: it is complete and durable. */
DC_MUST enum dc_err adopt_note_copy(struct meta *m);
DC_MUST enum dc_err adopt_note_need(struct meta *m, const char *why);
/* Nothing is to be done (any more). */
DC_MUST enum dc_err adopt_forget(struct meta *m);

/* Makes 'incoming', or empties it: for who receives a copy. A file in it counts under its name in a data directory. Errors: DC_EIO. */
DC_MUST enum dc_err adopt_make_incoming(const struct io *io, const char *dir);

/* --- the start ------------------------------------------------------------------------------------------------- */

/* What was done, for the report. */
struct adopt_told {
    char notes[1024];
    uint64_t cut_bytes;
    char cut_file[128];
};

/* Does what is noted, before anything of the directory is read. Node id, seed and catalogue of the metadata are those of the files then. */
DC_MUST enum dc_err adopt_begin(const struct io *io, const char *dir, struct meta *m,
                                struct adopt_told *told);
/* The directory is empty, the metadata know nothing of it, and still there is an old data set in it: somebody lost the note of a copy. Errors:
 * DC_ECORRUPT then. */
DC_MUST enum dc_err adopt_check_empty(const struct io *io, const char *dir);
/* The data set is open and its log begun: there is no way back to the old one. A copy that was broken off is put to what adopt_clean()
 * removes. */
DC_MUST enum dc_err adopt_settle(const struct io *io, const char *dir, struct meta *m);
/* Removes old data sets. May take long, beside all others. For the real file system only. */
void adopt_clean(const char *dir, struct meta *m);

#endif
