/* SPDX-License-Identifier: BSD-3-Clause */
/* lsn: positions in the log, and the histories that they belong to. */
#ifndef DC_PERSIST_LSN_H
#define DC_PERSIST_LSN_H

#include <stdint.h>

/* Position of a byte in the log. Every LSN that anybody is told is the end of a frame. */
struct lsn {
    uint64_t v;
};

/* Versions have 56 bits. */
#define LSN_MAX (((uint64_t)1 << 56) - 1)
/* The log of a new node begins here. */
#define LSN_FIRST ((uint64_t)1 << 20)
/* An unclean open goes on this far behind what it found: more than can have been handed out and not written. */
#define LSN_JUMP ((uint64_t)1 << 33)
/* At least so far where the metadata that tell of runs without a log are gone: each of those was a jump, and none has left a file. */
#define LSN_LEAP (1024 * LSN_JUMP)

/* A stretch of log: from 'start' until the next history of the chain starts. */
struct history {
    uint64_t id;    /* random, never 0 */
    uint64_t start; /* LSN of its first frame */
    uint64_t epoch; /* rises with every promotion */
    uint64_t
        parent_end; /* LSN up to which the history before it is part of this one; 0 = the first */
};

#endif
