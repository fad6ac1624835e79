/* SPDX-License-Identifier: BSD-3-Clause */
/* push: a store's content into a running node, by RESTORE over a plain socket. */
#ifndef DC_TOOLS_RESTORE_PUSH_H
#define DC_TOOLS_RESTORE_PUSH_H

#include "tools/dcache-restore/source.h"

enum { PUSH_TEXT_MAX = 256 };

struct push_result {
    uint64_t sent, taken;
    uint64_t existing; /* keys that were there and stayed */
    uint64_t refused;  /* with another error */
    uint64_t bytes;    /* sent */
    char first_error[PUSH_TEXT_MAX];
};

/* 'expected' entries, for the progress. Errors: DC_EIO (no connection, lost, bad password); 'out' says how far it came. */
DC_MUST enum dc_err push_all(struct source *s, const struct options *o, uint64_t expected,
                             struct push_result *out);

#endif
