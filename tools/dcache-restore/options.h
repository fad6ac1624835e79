/* SPDX-License-Identifier: BSD-3-Clause */
/* options: the command line of dcache-restore, and its help. */
#ifndef DC_TOOLS_RESTORE_OPTIONS_H
#define DC_TOOLS_RESTORE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/bytes.h"

enum shift_mode { SHIFT_AUTO, SHIFT_YES, SHIFT_NO };

/* How the program ends. */
enum {
    EXIT_ALL = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_PARTLY = 3,
};

struct options {
    const char *source;
    const char *target; /* NULL: push, or a dry run without one */
    const char *push;   /* HOST:PORT or the path of a socket; NULL = no */
    const char *password_file;
    uint64_t to_lsn;    /* 0 = the end */
    int64_t to_time_ms; /* 0 = the end */
    struct bytes match; /* ptr NULL = every key */
    int keyspace;       /* -1 = all; may be KEYSPACE_SYSTEM */
    enum shift_mode shift;
    bool repair, dry_run, json, keep_identity, replace, quiet;
};

enum options_verdict { OPTIONS_RUN, OPTIONS_DONE /* --help, --version */, OPTIONS_BAD };
/* Complains on stderr. */
enum options_verdict options_parse(struct options *o, int argc, char **argv);

#endif
