/* SPDX-License-Identifier: BSD-3-Clause */
/* snap_priv: what the two files that write a snapshot share: snap_walk.c (threads, entries, blocks) and snap_writer.c (the file). */
#ifndef DC_PERSIST_SNAP_PRIV_H
#define DC_PERSIST_SNAP_PRIV_H

#include "persist/snap_block.h"
#include "persist/snap_writer.h"
#include "server/base/thread.h"

enum { SNAP_PATH_MAX = 4096 };

struct snap_job {
    /* constant while threads run */
    const struct snap_write_opts *opts;
    const struct histories *chain; /* of the log, at S and up to E; NULL without one */
    struct snap_progress *progress;
    struct io_file file;
    bool is_open;
    struct snap_head head;
    char tmp_path[SNAP_PATH_MAX];
    uint32_t block_len;
    int64_t begun_us;
    /* atomic */
    _Atomic uint32_t next_range;
    _Atomic uint64_t end;     /* of the file: where the next block goes */
    _Atomic int64_t moved_us; /* when something was last written */
    _Atomic int64_t told_us;  /* when somebody was last told how far it is */
    _Atomic uint32_t failed;  /* 0 no, 1 somebody notes why, 2 noted */
    /* whoever made it 1, until it is 2 */
    enum dc_err err;
    char text[512];
};

/* Between two blocks: is there a reason to end? */
DC_MUST enum dc_err snap_job_check(struct snap_job *j);
/* At a place of the file that nobody else has. */
DC_MUST enum dc_err snap_job_write(struct snap_job *j, struct bytes data, uint64_t at);
int64_t snap_job_now_ms(const struct snap_job *j);

/* A blob on its way, referenced. */
struct snap_held {
    struct blob *blob;
    uint64_t version, pos;
    size_t at; /* for snap_pack_blob() */
};

/* One thread of the walk. */
struct snap_walker {
    struct thread thread;
    struct snap_job *job;
    struct snap_pack *pack;
    int64_t now_ms;
    bool no_memory;
    /* of the block that is being filled */
    uint32_t range;
    struct keyspace *ks;
    uint64_t first_pos;
    /* since the last hold of a lock */
    struct snap_held *blobs;
    uint32_t blob_count, blob_cap;
    /* what it has written */
    struct snap_block_info *index;
    uint32_t block_count, block_cap;
    uint64_t entries, plain_bytes, stored_bytes;
};

/* Chooses the ranges; before the header is written. */
void snap_walk_plan(struct snap_job *j);
/* Walks with so many threads and waits for them; the job says whether they have failed. */
struct snap_walker *snap_walk_run(struct snap_job *j, uint32_t threads);
void snap_walk_destroy(struct snap_walker *w, uint32_t threads);

#endif
