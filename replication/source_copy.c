/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A full copy is a snapshot file. The newest one that exists serves if the log behind it is still there, else a fresh one is written. The log is
 * held from its end (E) on, while it is sent and until the replica is back.
 */
#include "persist/snap_reader.h"
#include "replication/source_priv.h"
#include "server/base/diag.h"
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "server/base/sum.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SNAPSHOT_LOOK_US = 20 * 1000, PIN_DOUBLINGS_MAX = 4 };

/* What is sent. */
struct copy {
    struct session *session;
    char name[SNAP_NAME_MAX];
    uint64_t end_lsn;
    struct log_tail *tail; /* holds the log behind it */
    struct snap *snap;
    struct io_file file;
    bool is_open;
    uint64_t len, sent, sum;
};

/* --- which file -------------------------------------------------------------------------------------------------- */

/* The newest of this node's own chain. */
static void look_at_name(void *arg, const char *name) {
    struct copy *c = arg;
    struct chain_view self;
    uint64_t end_lsn, history;
    self_view(c->session->self, &self);
    if (snap_name_parse(name, &end_lsn, &history) && end_lsn > c->end_lsn &&
        chain_holds(&self, end_lsn, history)) {
        c->end_lsn = end_lsn;
        snprintf(c->name, sizeof(c->name), "%s", name);
    }
}

static void close_file(struct copy *c) {
    const struct io *io = c->session->self->data->io;
    if (c->is_open) {
        io->close(io, &c->file);
        c->is_open = false;
    }
    snap_close(c->snap);
    c->snap = NULL;
    if (c->tail != NULL) {
        log_tail_close(c->tail);
        c->tail = NULL;
    }
}

/* Opened, it stays whatever retention does. */
static enum dc_err open_file(struct copy *c) {
    char path[PATH_MAX];
    const struct data *d = c->session->self->data;
    snprintf(path, sizeof(path), "%s/%s", d->dir, c->name);
    int rc = d->io->open(d->io, path, IO_READ, &c->file);
    if (rc < 0) {
        return dc_fail(DC_EIO, "%s: %s", c->name, dc_errno_text(-rc));
    }
    c->is_open = true;
    c->len = (uint64_t)d->io->size(d->io, &c->file);
    return snap_open(d->io, path, &c->snap);
}

static enum dc_err find_file(struct copy *c) {
    const struct data *d = c->session->self->data;
    c->name[0] = '\0';
    c->end_lsn = source_bad_lsn(c->session->source); /* what follows it must be there to be sent */
    (void)d->io->list(d->io, d->dir, look_at_name, c);
    if (c->name[0] == '\0') {
        return dc_fail(DC_EIO, "there is no snapshot to send");
    }
    enum dc_err err = log_tail_open(&c->tail, c->session->self->data, c->end_lsn);
    err = err == DC_OK ? open_file(c) : err;
    if (err != DC_OK) {
        close_file(c);
    }
    return err;
}

/* A fresh snapshot; the peer hears that we are alive. */
static enum dc_err make_file(struct session *s) {
    const struct repl_host *host = s->self->host;
    uint64_t ticket = host->snapshot_begin(s->self->host_arg);
    while (!host->snapshot_is_over(s->self->host_arg, ticket)) {
        usleep(SNAPSHOT_LOOK_US);
        enum dc_err err = session_must_end(s) ? DC_ESTOPPED : session_beat(s);
        if (err != DC_OK) {
            return err;
        }
    }
    return host->snapshot_result(s->self->host_arg, ticket);
}

/* --- sending ----------------------------------------------------------------------------------------------------- */

static enum dc_err send_head(struct copy *c) {
    struct session *s = c->session;
    const struct snap_facts *f = snap_facts(c->snap);
    struct buf body;
    struct wire_copy m = {.length = c->len,
                          .start_lsn = f->start_lsn,
                          .end_lsn = f->end_lsn,
                          .name = bytes_str(c->name),
                          .chain = f->chain,
                          .chain_count = f->chain_count};
    memcpy(m.data_id, f->node_id, NODE_ID_LEN);
    memcpy(m.seed, f->seed, SEED_LEN);
    buf_init(&body, 0);
    wire_copy_encode(&m, &body);
    enum dc_err err =
        body.failed ? DC_ENOMEM : link_send(s->link, WIRE_COPY, buf_bytes(&body), NULL, 0);
    buf_fini(&body);
    return err;
}

static enum dc_err send_content(struct copy *c) {
    struct session *s = c->session;
    const struct io *io = s->self->data->io;
    char *buffer = mem_must_alloc(WIRE_BYTES_MAX);
    enum dc_err err = DC_OK;
    while (c->sent < c->len && err == DC_OK) {
        uint64_t left = c->len - c->sent;
        size_t len = left < WIRE_BYTES_MAX ? (size_t)left : WIRE_BYTES_MAX;
        ssize_t got = io->read_at(io, &c->file, buffer, len, c->sent);
        if (got != (ssize_t)len) {
            err = dc_fail(DC_EIO, "%s can't be read", c->name);
        } else if (session_must_end(s)) {
            err = DC_ESTOPPED;
        } else {
            c->sum = sum64(buffer, len, c->sum);
            err = link_send_copy_data(s->link, c->sent, bytes_of(buffer, len));
            replicas_note_sent(s->self->replicas, s->slot, 0, len);
            c->sent += len;
        }
    }
    mem_free(buffer);
    return err;
}

static enum dc_err send_end(struct copy *c) {
    uint8_t body[WIRE_COPY_END_LEN];
    struct wire_copy_end m = {.length = c->len, .sum = c->sum};
    wire_copy_end_encode(&m, body);
    return link_send(c->session->link, WIRE_COPY_END, bytes_of((const char *)body, sizeof(body)),
                     NULL, 0);
}

/* --- who takes it ------------------------------------------------------------------------------------------------ */

static struct copy_taker *taker_locked(struct source *src, const uint8_t *peer_id)
    DC_REQUIRES(src->lock) {
    struct copy_taker *oldest = &src->takers[0];
    for (uint32_t i = 0; i < REPLICAS_MAX; i++) {
        struct copy_taker *t = &src->takers[i];
        if (t->attempts > 0 && memcmp(t->peer_id, peer_id, PEER_ID_LEN) == 0) {
            return t;
        }
        oldest = t->last < oldest->last ? t : oldest;
    }
    memcpy(oldest->peer_id, peer_id, PEER_ID_LEN);
    oldest->attempts = 0;
    return oldest;
}

/* Who came too late gets more time with each copy. */
static int64_t pin_ms_locked(struct source *src, const uint8_t *peer_id) DC_REQUIRES(src->lock) {
    struct copy_taker *t = taker_locked(src, peer_id);
    t->last = ++src->copies_begun;
    uint32_t doublings = t->attempts < PIN_DOUBLINGS_MAX ? t->attempts : PIN_DOUBLINGS_MAX;
    t->attempts++;
    return (int64_t)COPY_PIN_MS << doublings;
}

void source_forget_taker(struct source *src, const uint8_t *peer_id) {
    lock_acquire(&src->lock);
    struct copy_taker *t = taker_locked(src, peer_id);
    t->attempts = 0;
    t->last = 0;
    lock_release(&src->lock);
}

/* The replica begins anew with what it has got, and needs the log from there on. */
static void leave_pin(struct copy *c) {
    struct source *src = c->session->source;
    struct copy_pin *p = mem_must_zalloc(sizeof(*p));
    memcpy(p->peer_id, c->session->peer_id, PEER_ID_LEN);
    p->tail = c->tail;
    c->tail = NULL;
    lock_acquire(&src->lock);
    p->until_us = time_mono_us() + pin_ms_locked(src, p->peer_id) * 1000;
    p->next = src->pins;
    src->pins = p;
    lock_release(&src->lock);
}

/* The peer says when it has it all, by closing. */
static void await_end(struct session *s) {
    int64_t end_us = time_mono_us() + self_timeout_ms(s->self) * 1000;
    while (!session_must_end(s) && time_mono_us() < end_us && session_beat(s) == DC_OK) {
        usleep(SNAPSHOT_LOOK_US);
    }
}

enum dc_err session_copy(struct session *s) {
    struct copy c = {.session = s};
    int64_t began_us = time_mono_us();
    enum dc_err err = find_file(&c);
    if (err != DC_OK) {
        err = make_file(s);
        err = err == DC_OK ? find_file(&c) : err;
    }
    if (err != DC_OK) {
        return err;
    }
    diag(DIAG_NOTICE, "source.copy peer=%s file=%s bytes=%" PRIu64, link_peer(s->link), c.name,
         c.len);
    err = session_beat(s); /* whoever is promoted right behind the copy knows the others */
    err = err == DC_OK ? send_head(&c) : err;
    err = err == DC_OK ? send_content(&c) : err;
    err = err == DC_OK ? send_end(&c) : err;
    if (err == DC_OK) {
        leave_pin(&c);
        await_end(s);
        diag(DIAG_NOTICE, "source.copied peer=%s file=%s ms=%" PRId64, link_peer(s->link), c.name,
             (time_mono_us() - began_us) / 1000);
    }
    close_file(&c);
    return err;
}
