/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * power_meta: the metadata of a simulated life, as the next start may find them.
 *
 * Purpose: LMDB has a real file, by calls of its own: nobody can end it at one. But each of its commits is durable, or never was. So behind
 *   each commit of the node a copy of the file is taken, and a power cut leaves one of those. What operators and disks do comes besides: an
 *   older copy, none, flipped bits, a cut file.
 * Model: the real directory "data" of the current directory has the metadata (and the lock), and nothing else.
 * Threads: the one that calls persist/data.h. One to a process.
 */
#ifndef TESTS_CRASH_POWER_META_H
#define TESTS_CRASH_POWER_META_H

#include "server/base/rng.h"

#include <stdbool.h>
#include <stddef.h>

/* Whether the power is already cut, for which what is committed comes too late. */
typedef bool (*power_cut_fn)(void *arg);

/* A world begins, without metadata. */
void power_meta_begin(power_cut_fn is_cut, void *arg);
void power_meta_end(void);
/* Commits are no world's (true), or the world's again. */
void power_meta_ignore(bool ignore);
/* What is there now is what the world has; it was committed before the power is cut. */
void power_meta_settle(void);
/* What older copies tell of is another node. */
void power_meta_forget(void);

struct power_meta {
    const char *bytes; /* NULL = there are none */
    size_t len;
    bool newest;     /* all that was committed is in it */
    bool keeps_lock; /* LMDB's lock file stays as it is */
    size_t flip_at;  /* the byte in which 'flip' is turned over */
    unsigned char flip;
};

/* Lives until power_meta_forget() or power_meta_end(). */
struct power_meta power_meta_draw(struct rng *r);
/* In "data", also where another directory is the current one. */
void power_meta_put(const struct power_meta *left);

#endif
