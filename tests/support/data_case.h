/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * data_case: a data directory that a test builds from an engine, and a second store that is loaded from it.
 *
 *     case_open(&c); hand_set(&c.hand, ...); case_snapshot(&c); ... case_write_log(&c); case_load(&c); case_same(&c)
 *
 * Threads: one.
 */
#ifndef TESTS_SUPPORT_DATA_CASE_H
#define TESTS_SUPPORT_DATA_CASE_H

#include "persist/snap_writer.h"
#include "persist/warm.h"
#include "tests/support/log_file.h"
#include "tests/support/temp_dir.h"

#include <check.h>
#include <stdio.h>

struct data_case {
    char dir[TEMP_DIR_MAX];
    struct engine engine;
    struct hand hand;
    struct log_file log;
    char snapshot[SNAP_NAME_MAX]; /* the last one written */
    /* loaded */
    struct warm_opts opts;
    struct data_plan *plan;
    struct warm *warm;
    struct store *store;
    struct store_thread thread;
    struct metric_slot metrics;
};

/* Anything but DC_OK fails the test, with the words of the error. */
static inline void must(enum dc_err err) {
    ck_assert_msg(err == DC_OK, "%s", dc_fail_take(err));
}

static inline struct bytes key_of(char to[32], const char *prefix, uint32_t i) {
    int len = snprintf(to, 32, "%s%u", prefix, i);
    return bytes_of(to, (size_t)len);
}

void case_open(struct data_case *c);
void case_close(struct data_case *c);

/* A snapshot of now, S = E = the log's end. */
void case_snapshot(struct data_case *c);
/* The segment of the log from 'from' (0 = the first) on; what is below 'durable' is marked so. */
void case_write_log(struct data_case *c, uint64_t from, uint64_t durable);

/* Scans; the result is in c->plan and c->warm. */
DC_MUST enum dc_err case_scan(struct data_case *c);
/* Behind a scan: creates the store and attaches it. */
void case_attach_scanned(struct data_case *c);
/* Scans, too. */
void case_attach(struct data_case *c);
/* Loads everything. */
void case_load(struct data_case *c);
void case_forget(struct data_case *c); /* what was loaded */

/* The stores have the same content, versions included; the loaded one holds its invariants. */
void case_same(struct data_case *c);

/* Loads what a scan has found, and forgets it: the digest of the store. */
uint64_t digest_of(struct warm *warm, const struct data_plan *plan);
/* Entries of a directory whose names have this part; 0 also where there is none. */
uint32_t count_names(const struct io *io, const char *dir, const char *part);

#endif
