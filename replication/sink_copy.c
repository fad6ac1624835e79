/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A full copy goes to <dir>/incoming/, under the name that it has at the source. When it is complete, right and on the disk, a note in the metadata
 * says so, and the next start takes it over; it comes at once.
 */
#include "persist/adopt.h"
#include "persist/data_dir.h"
#include "persist/snap_reader.h"
#include "replication/sink_priv.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/base/sum.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { SYNC_STEP_LEN = 32 * 1024 * 1024 };

struct incoming {
    struct sink *sink;
    const struct io *io;
    char dir[PATH_MAX];
    char path[PATH_MAX + SNAP_NAME_MAX];
    struct history chain[WIRE_CHAIN_MAX];
    struct wire_copy head;
    char name[SNAP_NAME_MAX];
    struct io_file file;
    bool is_open;
    uint64_t len, synced, sum;
    int64_t moved_us; /* when the last piece came */
};

static enum dc_err fail_file(const struct incoming *in, const char *what, int rc) {
    return dc_fail(DC_EIO, "%s %s: %s", what, in->path, dc_errno_text(-rc));
}

static enum dc_err begin(struct incoming *in, struct bytes body) {
    uint64_t end_lsn, history;
    if (!wire_copy_decode(body, in->chain, &in->head) || in->head.name.len >= SNAP_NAME_MAX) {
        return dc_fail(DC_EPROTO, "the head of the copy can't be read");
    }
    snprintf(in->name, sizeof(in->name), "%.*s", (int)in->head.name.len, in->head.name.ptr);
    if (!snap_name_parse(in->name, &end_lsn, &history) || end_lsn != in->head.end_lsn) {
        return dc_fail(DC_EPROTO, "the copy has the name of no snapshot");
    }
    enum dc_err err = adopt_make_incoming(in->io, in->sink->self->data->dir);
    if (err != DC_OK) {
        return err;
    }
    snprintf(in->dir, sizeof(in->dir), "%s/" ADOPT_INCOMING, in->sink->self->data->dir);
    snprintf(in->path, sizeof(in->path), "%s/%s", in->dir, in->name);
    int rc = in->io->open(in->io, in->path, IO_CREATE, &in->file);
    if (rc < 0) {
        return fail_file(in, "open", rc);
    }
    in->is_open = true;
    diag(DIAG_NOTICE, "sink.copy file=%s bytes=%" PRIu64, in->name, in->head.length);
    return DC_OK;
}

/* Now and then, so that the end isn't one long wait. */
static enum dc_err sync_some(struct incoming *in, bool all) {
    if (!all && in->len - in->synced < SYNC_STEP_LEN) {
        return DC_OK;
    }
    int rc = in->io->sync(in->io, &in->file);
    in->synced = in->len;
    return rc < 0 ? fail_file(in, "fdatasync", rc) : DC_OK;
}

static enum dc_err take_data(struct incoming *in, struct bytes body) {
    struct wire_copy_data m;
    if (!in->is_open || !wire_copy_data_decode(body, &m) || m.offset != in->len ||
        m.bytes.len > in->head.length - in->len) {
        return dc_fail(DC_EPROTO, "a piece of the copy isn't the next one");
    }
    struct iovec iov = {.iov_base = (void *)(uintptr_t)m.bytes.ptr, .iov_len = m.bytes.len};
    ssize_t rc = in->io->write_at(in->io, &in->file, &iov, 1, in->len);
    if (rc < 0) {
        return fail_file(in, "write", (int)rc);
    }
    in->sum = sum64(m.bytes.ptr, m.bytes.len, in->sum);
    in->len += m.bytes.len;
    in->moved_us = time_mono_us();
    lock_acquire(&in->sink->lock);
    in->sink->view.copy_bytes = in->len;
    in->sink->view.copy_len = in->head.length;
    in->sink->stats.received_bytes += m.bytes.len;
    lock_release(&in->sink->lock);
    return sync_some(in, false);
}

/* The file is the snapshot that was announced. */
static enum dc_err check_file(struct incoming *in) {
    struct snap *snap;
    enum dc_err err = snap_open(in->io, in->path, &snap);
    if (err != DC_OK) {
        return err;
    }
    const struct snap_facts *f = snap_facts(snap);
    bool same = f->start_lsn == in->head.start_lsn && f->end_lsn == in->head.end_lsn &&
                memcmp(f->node_id, in->head.data_id, NODE_ID_LEN) == 0 &&
                memcmp(f->seed, in->head.seed, SEED_LEN) == 0;
    snap_close(snap);
    return same ? DC_OK : dc_fail(DC_ECORRUPT, "the copy isn't the one that was announced");
}

static enum dc_err finish(struct incoming *in, struct bytes body) {
    struct wire_copy_end m;
    if (!in->is_open || !wire_copy_end_decode(body, &m) || m.length != in->len ||
        in->len != in->head.length || m.sum != in->sum) {
        return dc_fail(DC_EPROTO, "the copy isn't complete, or its sum is wrong");
    }
    enum dc_err err = sync_some(in, true);
    int rc = err == DC_OK ? in->io->sync_dir(in->io, in->dir) : 0;
    if (rc == 0 && err == DC_OK) {
        rc = in->io->sync_dir(in->io, in->sink->self->data->dir);
    }
    err = err == DC_OK && rc < 0 ? fail_file(in, "sync of the directory of", rc) : err;
    err = err == DC_OK ? check_file(in) : err;
    return err;
}

/* Writes wait for a pull: heartbeats of a source that sends nothing else aren't enough. */
static enum dc_err check_moves(const struct incoming *in) {
    int64_t still_ms = (time_mono_us() - in->moved_us) / 1000;
    bool stuck = in->sink->target.pulls && still_ms > self_timeout_ms(in->sink->self);
    return stuck ? dc_fail(DC_EIO, "nothing has come of the copy for %" PRId64 " ms", still_ms)
                 : DC_OK;
}

static enum dc_err receive_all(struct incoming *in) {
    enum dc_err err = DC_OK;
    bool complete = false;
    in->moved_us = time_mono_us();
    while (err == DC_OK && !complete) {
        struct link_message m;
        err = sink_receive(in->sink, SINK_LOOK_MS * 4, &m);
        if (err == DC_OK) {
            err = sink_must_end(in->sink) ? DC_ESTOPPED : check_moves(in);
        }
        if (err != DC_OK || m.type == WIRE_NONE || m.type == WIRE_BEAT) {
            continue;
        }
        if (m.type == WIRE_COPY && !in->is_open) {
            err = begin(in, m.body);
        } else if (m.type == WIRE_COPY_DATA) {
            err = take_data(in, m.body);
        } else if (m.type == WIRE_COPY_END) {
            err = finish(in, m.body);
            complete = true;
        } else {
            err = dc_fail(DC_EPROTO, "the source sent %s in a copy", wire_type_name(m.type));
        }
    }
    return err;
}

/* --- whose data these are ------------------------------------------------------------------------------------------ */

static void forget_stranger(const struct replica_seen *seen, void *arg) {
    struct sink *s = arg;
    bool told = false;
    for (uint32_t i = 0; i < s->told_count; i++) {
        told |= memcmp(s->told[i], seen->peer, PEER_ID_LEN) == 0;
    }
    if (!told) {
        replicas_forget(s->self->replicas, seen->peer);
    }
}

/* Who had to do with the data that were here before is nobody to ask about these. */
static void forget_strangers(struct sink *s, const uint8_t *data_id) {
    if (memcmp(data_id, s->self->data->plan->node_id, NODE_ID_LEN) != 0) {
        replicas_each(s->self->replicas, forget_stranger, s);
    }
}

enum dc_err sink_copy(struct sink *s) {
    struct incoming *in = mem_must_zalloc(sizeof(*in));
    in->sink = s;
    in->io = s->self->data->io;
    enum dc_err err = receive_all(in);
    if (in->is_open) {
        in->io->close(in->io, &in->file);
    }
    err = err == DC_OK && !s->target.pulls ? adopt_note_copy(s->self->data->meta) : err;
    if (err == DC_OK) {
        forget_strangers(s, in->head.data_id);
        diag(DIAG_NOTICE, "sink.copied file=%s bytes=%" PRIu64, in->name, in->len);
    }
    mem_free(in);
    return err;
}
