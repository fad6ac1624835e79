/* SPDX-License-Identifier: BSD-3-Clause */
/*
 *   S, settle | header | threads: walk, pack, compress, write (snap_walk.c) | E, wait, tail | index, footer | publish
 *
 * Every SYNC_LEN bytes whoever crosses the border syncs the file: so the last sync is short, and the log's own syncs never find
 * gigabytes of our pages in front of them.
 */
#include "persist/snap_writer.h"

#include "persist/log_reader.h"
#include "persist/snap_priv.h"
#include "server/base/assert.h"
#include "server/base/mem.h"
#include "server/base/time.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    TAIL_WRITE_LEN = 1 << 20,
    SYNC_LEN = 32 << 20,
    WAIT_STEP_US = 50000,
};

/* --- the file, from many threads ---------------------------------------------------------------------- */

static enum dc_err fail_io(const struct snap_job *j, const char *what, uint64_t at, int64_t rc) {
    return dc_fail(DC_EIO, "snapshot: %s %s at byte %" PRIu64 ": %s", what, j->tmp_path, at,
                   dc_errno_text((int)-rc));
}

enum dc_err snap_job_check(struct snap_job *j) {
    const struct snap_write_opts *o = j->opts;
    if (o->stop != NULL && atomic_load_explicit(o->stop, memory_order_relaxed)) {
        return dc_fail(DC_ESTOPPED, "snapshot: stopped");
    }
    if (j->chain != NULL && log_chain(o->log) != j->chain) {
        return dc_fail(DC_ESTOPPED, "snapshot: given up, a new history of the log has begun");
    }
    if (o->log != NULL && log_is_given_up(o->log)) {
        return dc_fail(
            DC_EIO, "snapshot: given up, the disk doesn't take the log, which nothing else needs");
    }
    if (atomic_load_explicit(&j->failed, memory_order_relaxed) != 0) {
        return DC_ESTOPPED; /* another thread knows why */
    }
    int64_t idle_ms =
        (time_mono_us() - atomic_load_explicit(&j->moved_us, memory_order_relaxed)) / 1000;
    if (o->stall_ms > 0 && idle_ms > o->stall_ms) {
        return dc_fail(DC_EIO, "snapshot: gave up, nothing could be written for %" PRId64 " ms",
                       idle_ms);
    }
    return DC_OK;
}

enum dc_err snap_job_write(struct snap_job *j, struct bytes data, uint64_t at) {
    const struct io *io = j->opts->io;
    struct iovec v = {(void *)(uintptr_t)data.ptr, data.len};
    ssize_t n = io->write_at(io, &j->file, &v, 1, at);
    if (n < 0) {
        return fail_io(j, "writing", at, n);
    }
    dc_assert((size_t)n == data.len);
    if (at / SYNC_LEN != (at + data.len) / SYNC_LEN) {
        int rc = io->sync(io, &j->file);
        if (rc < 0) {
            return fail_io(j, "syncing", at, rc);
        }
    }
    enum dc_err err = snap_job_check(j); /* it may have taken its time */
    atomic_store_explicit(&j->moved_us, time_mono_us(), memory_order_relaxed);
    return err;
}

static enum dc_err job_append(struct snap_job *j, struct bytes data) {
    uint64_t at = atomic_fetch_add_explicit(&j->end, data.len, memory_order_relaxed);
    return snap_job_write(j, data, at);
}

int64_t snap_job_now_ms(const struct snap_job *j) {
    return j->opts->now_ms + (time_mono_us() - j->begun_us) / 1000;
}

/* --- tail, index, footer ----------------------------------------------------------------------------- */

/* Until the log is on the disk up to 'lsn'. */
static enum dc_err wait_durable(struct snap_job *j, struct lsn lsn) {
    const struct snap_write_opts *o = j->opts;
    atomic_store_explicit(&j->moved_us, time_mono_us(), memory_order_relaxed);
    while (!log_wait(o->log, LOG_LEVEL_DISK, lsn, WAIT_STEP_US)) {
        enum dc_err err = snap_job_check(j);
        if (err != DC_OK) {
            return err;
        }
    }
    atomic_store_explicit(&j->moved_us, time_mono_us(), memory_order_relaxed);
    return DC_OK;
}

static enum dc_err tail_flush(struct snap_job *j, struct buf *b, size_t least) {
    if (b->failed) {
        return dc_fail(DC_ENOMEM, "snapshot: no memory for the end of the log");
    }
    if (b->len < least || b->len == 0) {
        return DC_OK;
    }
    enum dc_err err = job_append(j, buf_bytes(b));
    buf_reset(b, 2 * TAIL_WRITE_LEN);
    return err;
}

static enum dc_err tail_copy(struct snap_job *j, struct log_reader *r, struct buf *b,
                             uint64_t end) {
    uint64_t at = j->head.start_lsn;
    enum dc_err err = DC_OK;
    while (at < end && err == DC_OK) {
        struct frame_ref frame;
        struct log_end_info info;
        switch (log_reader_next(r, &frame)) {
        case LOG_MORE:
            break;
        case LOG_FAILED:
            return DC_EIO;
        case LOG_END:
        case LOG_TORN:
        case LOG_DAMAGED:
            log_reader_end(r, &info);
            return dc_fail(DC_ECORRUPT,
                           "snapshot: the log can't be read from LSN %" PRIu64 " to %" PRIu64
                           ": %s",
                           at, end, info.text);
        }
        if (frame.lsn + frame.len > end) {
            return dc_fail(DC_ECORRUPT, "snapshot: no frame of the log ends at LSN %" PRIu64, end);
        }
        at = frame.lsn + frame.len;
        buf_append(b, frame.bytes, frame.len);
        err = tail_flush(j, b, TAIL_WRITE_LEN);
    }
    err = err != DC_OK ? err : log_reader_check(r);
    return err != DC_OK ? err : tail_flush(j, b, 0);
}

/* The log from S to E. */
static enum dc_err write_tail(struct snap_job *j, uint64_t end) {
    struct log_dir dir = {.io = NULL};
    struct log_reader *reader = NULL;
    struct buf b;
    if (end == j->head.start_lsn) {
        return DC_OK;
    }
    buf_init(&b, 0);
    enum dc_err err = log_dir_open_running(&dir, j->opts->io, j->opts->dir);
    if (err != DC_OK) {
        return err;
    }
    err = log_reader_open(&reader, &dir, j->head.start_lsn);
    if (err == DC_OK) {
        err = log_reader_joins(reader)
                  ? tail_copy(j, reader, &b, end)
                  : dc_fail(DC_ECORRUPT, "snapshot: the log from LSN %" PRIu64 " on is missing",
                            j->head.start_lsn);
        log_reader_close(reader);
    }
    log_dir_close(&dir);
    buf_fini(&b);
    return err;
}

static int compare_blocks(const void *a, const void *b) {
    return snap_index_compare(a, b);
}

static enum dc_err write_index(struct snap_job *j, const struct snap_walker *w, uint32_t threads,
                               struct snap_footer *f) {
    for (uint32_t i = 0; i < threads; i++) {
        f->block_count += w[i].block_count;
        f->entries += w[i].entries;
        f->plain_bytes += w[i].plain_bytes;
        f->stored_bytes += w[i].stored_bytes;
    }
    struct snap_block_info *all = mem_alloc((f->block_count + 1) * sizeof(*all));
    uint8_t *bytes = mem_alloc((f->block_count + 1) * SNAP_INDEX_ENTRY_LEN);
    enum dc_err err;
    if (all == NULL || bytes == NULL) {
        err = dc_fail(DC_ENOMEM, "snapshot: no memory for the index");
        goto out;
    }
    uint64_t count = 0;
    for (uint32_t i = 0; i < threads; i++) {
        if (w[i].block_count > 0) {
            memcpy(all + count, w[i].index, w[i].block_count * sizeof(*all));
        }
        count += w[i].block_count;
    }
    qsort(all, count, sizeof(*all), compare_blocks);
    for (uint64_t i = 0; i < count; i++) {
        snap_index_encode(&all[i], bytes + i * SNAP_INDEX_ENTRY_LEN);
    }
    size_t len = count * SNAP_INDEX_ENTRY_LEN;
    f->index_sum = snap_index_sum(bytes, len, j->head.sum);
    err = len == 0 ? DC_OK : job_append(j, bytes_of((const char *)bytes, len));
out:
    mem_free(bytes);
    mem_free(all);
    return err;
}

static const struct history *chain_of(const struct snap_job *j) {
    return j->chain != NULL ? j->chain->list : j->opts->chain;
}

static enum dc_err write_footer(struct snap_job *j, const struct snap_footer *f) {
    size_t len = snap_footer_len(f->history_count);
    uint8_t *bytes = mem_must_zalloc(len);
    snap_footer_encode(f, chain_of(j), j->head.sum,
                       atomic_load_explicit(&j->end, memory_order_relaxed), bytes);
    enum dc_err err = job_append(j, bytes_of((const char *)bytes, len));
    mem_free(bytes);
    return err;
}

/* --- the file ---------------------------------------------------------------------------------------- */

static void path_of(const struct snap_job *j, const char *name, char to[SNAP_PATH_MAX]) {
    int len = snprintf(to, SNAP_PATH_MAX, "%s/%s", j->opts->dir, name);
    dc_assert(len > 0 && len < SNAP_PATH_MAX);
}

static enum dc_err create_file(struct snap_job *j) {
    const struct io *io = j->opts->io;
    uint8_t header[SNAP_HEADER_LEN];
    char name[SNAP_NAME_MAX];
    snap_name(j->head.start_lsn, j->head.history.id, name);
    memcpy(strrchr(name, '.'), ".tmp", 5);
    path_of(j, name, j->tmp_path);
    (void)io->unlink(io, j->tmp_path); /* of an earlier run */
    int rc = io->open(io, j->tmp_path, IO_CREATE, &j->file);
    if (rc < 0) {
        j->tmp_path[0] = '\0';
        return dc_fail(DC_EIO, "snapshot: creating %s/%s: %s", j->opts->dir, name,
                       dc_errno_text(-rc));
    }
    j->is_open = true;
    snap_head_encode(&j->head, header);
    return job_append(j, bytes_of((const char *)header, sizeof(header)));
}

/* Synced, closed, renamed, and the name made durable. */
static enum dc_err publish(struct snap_job *j, const char *name) {
    const struct io *io = j->opts->io;
    char path[SNAP_PATH_MAX];
    path_of(j, name, path);
    int rc = io->sync(io, &j->file);
    if (rc < 0) {
        return fail_io(j, "syncing", atomic_load_explicit(&j->end, memory_order_relaxed), rc);
    }
    rc = io->rename(io, j->tmp_path, path);
    if (rc < 0) {
        return dc_fail(DC_EIO, "snapshot: renaming %s to %s: %s", j->tmp_path, path,
                       dc_errno_text(-rc));
    }
    /* A failure from here on leaves a file that is whole and good; only its name may not survive a power cut. It may have
     * replaced its equal (nothing was written since), so it isn't removed. */
    j->tmp_path[0] = '\0';
    rc = io->sync_dir(io, j->opts->dir);
    if (rc < 0) {
        return dc_fail(DC_EIO, "snapshot: syncing the directory %s: %s", j->opts->dir,
                       dc_errno_text(-rc));
    }
    return DC_OK;
}

struct snap_outlook snap_outlook(uint64_t done, uint64_t expected, int64_t took_ms) {
    uint64_t rate = took_ms > 0 ? done * 1000 / (uint64_t)took_ms : 0;
    return (struct snap_outlook){
        .keys_per_s = rate, .eta_s = rate > 0 && expected > done ? (expected - done) / rate : 0};
}

static void job_init(struct snap_job *j, const struct snap_write_opts *o,
                     struct snap_progress *own) {
    memset(j, 0, sizeof(*j));
    j->opts = o;
    j->progress = o->progress != NULL ? o->progress : own;
    j->begun_us = time_mono_us();
    j->block_len = o->block_len != 0 ? o->block_len : SNAP_BLOCK_LEN;
    j->block_len = j->block_len < SNAP_BLOCK_LEN_MAX ? j->block_len : SNAP_BLOCK_LEN_MAX;
    atomic_store_explicit(&j->moved_us, j->begun_us, memory_order_relaxed);
    atomic_store_explicit(&j->told_us, j->begun_us, memory_order_relaxed);
    memcpy(j->head.node_id, o->node_id, NODE_ID_LEN);
    memcpy(j->head.seed, o->seed, SEED_LEN);
    j->head.begun_ms = o->now_ms;
    snap_walk_plan(j);
    struct snap_progress *p = j->progress;
    atomic_store_explicit(&p->entries_done, 0, memory_order_relaxed);
    atomic_store_explicit(&p->entries_expected,
                          store_count(o->store) + keyspace_count(store_system(o->store)),
                          memory_order_relaxed);
    atomic_store_explicit(&p->plain_bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&p->stored_bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&p->began_ms, o->now_ms, memory_order_relaxed);
    atomic_store_explicit(&p->ranges_done, 0, memory_order_relaxed);
    atomic_store_explicit(&p->ranges, ((uint32_t)SLOT_COUNT >> j->head.range_bits) + 1,
                          memory_order_relaxed);
}

/* S: in a file from there on, and shown by the store up to there; of a log that follows another one that may take a moment. 'pinned':
 * no file begins behind it. */
static enum dc_err choose_start(struct snap_job *j, struct lsn pinned) {
    const struct snap_write_opts *o = j->opts;
    const struct timespec nap = {0, WAIT_STEP_US * 10};
    const struct histories *chain = log_chain(o->log);
    uint64_t lsn = pinned.v;
    /* A history that is just beginning: its chain is there before any mark has reached it. */
    while (lsn < histories_last(chain)->start || log_applied(o->log).v < lsn) {
        enum dc_err err = snap_job_check(j);
        if (err != DC_OK) {
            return err;
        }
        nanosleep(&nap, NULL);
        chain = log_chain(o->log);
        lsn = lsn < histories_last(chain)->start ? log_written(o->log).v : lsn;
    }
    j->chain = chain;
    j->head.start_lsn = lsn;
    j->head.history = *histories_last(chain);
    return DC_OK;
}

static enum dc_err begin_job(struct snap_job *j) {
    const struct snap_write_opts *o = j->opts;
    enum dc_err err = DC_OK;
    if (o->log != NULL) {
        err = choose_start(j, log_pin(o->log));
    } else {
        dc_assert(o->chain_count > 0 && o->chain_count <= SNAP_HISTORIES_MAX);
        j->head.start_lsn = o->lsn;
        j->head.history = o->chain[o->chain_count - 1];
    }
    store_settle(o->store);
    return err == DC_OK ? create_file(j) : err;
}

/* Everything behind the blocks. */
static enum dc_err finish(struct snap_job *j, const struct snap_walker *w, uint32_t threads,
                          struct snap_footer *f) {
    const struct snap_write_opts *o = j->opts;
    enum dc_err err = DC_OK;
    f->start_lsn = f->end_lsn = j->head.start_lsn;
    f->tail_offset = atomic_load_explicit(&j->end, memory_order_relaxed);
    if (o->log != NULL) {
        f->end_lsn = log_head(o->log).v;
        dc_assert(f->end_lsn >= f->start_lsn);
        err = snap_job_check(j); /* E is of the same history */
        err = err != DC_OK ? err : wait_durable(j, (struct lsn){f->end_lsn});
        err = err != DC_OK ? err : write_tail(j, f->end_lsn);
    }
    f->index_offset = atomic_load_explicit(&j->end, memory_order_relaxed);
    f->tail_len = f->index_offset - f->tail_offset;
    f->finished_ms = snap_job_now_ms(j);
    f->history_count = j->chain != NULL ? j->chain->count : o->chain_count;
    err = err != DC_OK ? err : write_index(j, w, threads, f);
    return err != DC_OK ? err : write_footer(j, f);
}

enum dc_err snap_write(const struct snap_write_opts *o, struct snap_written *out) {
    struct snap_job *j = mem_must_alloc(sizeof(*j));
    struct snap_progress own;
    struct snap_footer footer = {.block_count = 0};
    struct snap_walker *walkers = NULL;
    uint32_t threads = o->threads < 1                  ? 1
                       : o->threads > SNAP_THREADS_MAX ? SNAP_THREADS_MAX
                                                       : o->threads;
    memset(out, 0, sizeof(*out));
    job_init(j, o, &own);
    enum dc_err err = begin_job(j);
    if (err != DC_OK) {
        goto out;
    }
    walkers = snap_walk_run(j, threads);
    if (atomic_load_explicit(&j->failed, memory_order_relaxed) != 0) {
        err = dc_fail(j->err, "%s", j->text);
        goto out;
    }
    err = finish(j, walkers, threads, &footer);
    if (err != DC_OK) {
        goto out;
    }
    snap_name(footer.end_lsn, j->head.history.id, out->name);
    err = publish(j, out->name);
    out->start_lsn = footer.start_lsn;
    out->end_lsn = footer.end_lsn;
    out->history = j->head.history.id;
    out->entries = footer.entries;
    out->plain_bytes = footer.plain_bytes;
    out->tail_len = footer.tail_len;
    out->file_len = atomic_load_explicit(&j->end, memory_order_relaxed);
    out->took_ms = (time_mono_us() - j->begun_us) / 1000;
out:
    if (j->is_open) {
        o->io->close(o->io, &j->file);
    }
    if (j->tmp_path[0] != '\0') { /* I3 */
        (void)o->io->unlink(o->io, j->tmp_path);
    }
    if (o->log != NULL) {
        log_unpin(o->log);
    }
    snap_walk_destroy(walkers, threads);
    mem_free(j);
    return err;
}
