/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * diag: structured messages, one line per event: "time level role event key=value ...".
 *
 * Event names are stable nouns ("server.ready"). Level is one of Redis's words: debug, verbose, notice,
 * warning. Rate limit: DIAG_BURST lines per second and call site, then one line that counts what was left out.
 * Threads: any. Secrets are never passed in.
 */
#ifndef DC_BASE_DIAG_H
#define DC_BASE_DIAG_H

#include <stdatomic.h>
#include <stdint.h>

#include "server/base/err.h"

enum diag_level { DIAG_DEBUG, DIAG_VERBOSE, DIAG_NOTICE, DIAG_WARNING };
enum { DIAG_BURST = 20 };

struct diag_site {
    _Atomic int64_t window_s;
    _Atomic uint32_t count;
};

/* "" = standard output. Errors: DC_EIO. */
DC_MUST enum dc_err diag_open(const char *path);
void diag_close(void);
void diag_set_level(enum diag_level level);
/* The role of the calling thread as it stands in the lines ("main", "worker-0"). */
void diag_set_role(const char *role);

#define diag(level, ...)                               \
    do {                                               \
        static struct diag_site diag_site_;            \
        diag_write(&diag_site_, (level), __VA_ARGS__); \
    } while (0)
void diag_write(struct diag_site *site, enum diag_level level, const char *fmt, ...)
    DC_PRINTF(3, 4);

#endif
