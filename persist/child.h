/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * child: code that may die of what it reads, in a process of its own.
 *
 * Threads: the caller's process should have one still; the child does nothing but 'fn'.
 * Failure: a child that crashed, took more than CHILD_CPU_S seconds of processor time, or wrote more than 'limit' bytes: DC_ECORRUPT. What
 *   says nothing of what it read, DC_EIO: it was killed, no child can be had, or no memory for what it writes.
 */
#ifndef DC_PERSIST_CHILD_H
#define DC_PERSIST_CHILD_H

#include "server/base/buf.h"
#include "server/base/err.h"

enum { CHILD_CPU_S = 3 };

/* Writes everything or returns false; for 'fn'. */
bool child_write(int fd, const void *ptr, size_t len);

/* Runs fn(arg, fd) in a child and appends what it writes to fd to 'out'. Errors: DC_ECORRUPT, DC_EIO (see above). */
DC_MUST enum dc_err child_run(bool (*fn)(void *arg, int fd), void *arg, size_t limit,
                              struct buf *out);

#endif
