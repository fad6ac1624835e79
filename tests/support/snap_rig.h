/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * snap_rig: an engine and a simulated disk, for the tests of snapshots. One to a process.
 */
#ifndef TESTS_SUPPORT_SNAP_RIG_H
#define TESTS_SUPPORT_SNAP_RIG_H

#include "persist/snap_reader.h"
#include "persist/snap_writer.h"
#include "tests/support/engine.h"
#include "tests/support/sim_disk.h"

struct rig {
    struct engine engine;
    struct hand hand;
    struct sim_disk *disk;
    struct snap_written written; /* by the last rig_write() */
};
extern struct rig rig;
extern const uint8_t rig_node_id[NODE_ID_LEN];
extern const uint8_t rig_seed[SEED_LEN];
extern const struct history rig_chain[2];

void rig_open(void);
void rig_close(void); /* checks the store */

/* Fails the test unless it is DC_OK. */
void rig_must(enum dc_err err);

/* In the folder "data" of 'io', by two threads, without a log. */
struct snap_write_opts rig_opts(const struct io *io);
void rig_write(void);
void rig_path(const char *name, char to[256]);
struct snap *rig_open_snapshot(void); /* the last one written */
struct rig_files {
    uint32_t files, tmps; /* tmps: of snapshots */
};
struct rig_files rig_list(void); /* what is in the folder */

/* The last snapshot is what the store is. */
void rig_compare(void);
/* Reads all of a file; the first error. */
enum dc_err rig_read_all(const char *path);

void rig_set(uint32_t db, const char *name, struct bytes value, int64_t expiry_ms);
void rig_set_number(uint32_t db, const char *prefix, uint64_t i, struct bytes value,
                    int64_t expiry_ms);
/* A value of so many bytes, which aren't all the same and compress well. */
void rig_set_long(uint32_t db, const char *name, size_t len, int64_t expiry_ms);
/* Every kind of value, with and without expiry, in several databases. */
void rig_fill(void);

#endif
