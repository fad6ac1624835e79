/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bytes of the log come in pieces that end anywhere. Whole frames are taken from the message where they are; the beginning of the last one is
 * kept until the rest is there.
 *
 * Who is far behind gets long messages. Each is copied once, behind the beginning of its first frame, into a blob that the log keeps until it
 * is durable; helpers play it from there while the next one is received, checked and sorted. As soon as no message is at hand, what is
 * being played is waited for: so is whatever asks how far the store is.
 */
#include "persist/adopt.h"
#include "persist/log_tail.h"
#include "replication/sink_priv.h"
#include "server/base/assert.h"
#include "server/base/diag.h"
#include "server/base/mem.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    PENDING_KEEP_LEN = 1024 * 1024,
    ROOM_WAIT_US = 50 * 1000,
    ACK_STEP_LEN = 1024 * 1024,
    PENDING_SHORT_LEN = 16 * 1024,
    LONG_LEN = 128 * 1024, /* of a message: its bytes are kept by reference */
};

static struct history current(const struct sink *s) {
    const struct history *last = histories_last(log_chain(s->self->log));
    return last != NULL ? *last : (struct history){.id = 0};
}

/* --- shown ------------------------------------------------------------------------------------------------------- */

/* Asked by who says how stale an answer may be. It counts from when the source said so, as far as is known. */
static void note_fresh(struct sink *s) {
    if (s->beat_us > 0) {
        atomic_store_explicit(&s->self->fresh_us, s->beat_us, memory_order_relaxed);
    }
}

/* The time up to which everything is shown: that of the last frame, or of a heartbeat if nothing is missing before it. */
static void note_time(struct sink *s) {
    int64_t time_ms = apply_time_ms(s->apply);
    uint64_t shown = log_applied(s->self->log).v;
    if (shown >= s->beat_head) {
        time_ms = s->beat_ms > time_ms ? s->beat_ms : time_ms;
        note_fresh(s);
    }
    if (time_ms > atomic_load_explicit(&s->self->passed_ms, memory_order_relaxed)) {
        atomic_store_explicit(&s->self->passed_ms, time_ms, memory_order_relaxed);
    }
    bool behind = shown < s->beat_head;
    int64_t since = atomic_load_explicit(&s->behind_since_us, memory_order_relaxed);
    if (behind != (since != 0)) {
        atomic_store_explicit(&s->behind_since_us, behind ? time_mono_us() : 0,
                              memory_order_relaxed);
    }
}

/* What is here isn't what the log was made for: only a copy helps. Remembered, whatever happens. The error stays the one that was found. */
static void note_damage(struct sink *s) {
    char why[ERR_TEXT_MAX];
    snprintf(why, sizeof(why), "%s", dc_fail_take(DC_ECORRUPT));
    s->target.ask.damaged = true;
    if (adopt_note_need(s->self->data->meta, why) != DC_OK) {
        diag(DIAG_WARNING, "sink.note_failed error=\"%s\"", dc_fail_take(DC_EIO));
    }
    diag(DIAG_WARNING, "sink.damaged error=\"%s\"", why);
    (void)dc_fail(DC_ECORRUPT, "%s", why);
}

/* Up to 'end', if it went well. */
static enum dc_err note_shown(struct sink *s, enum dc_err shown, uint64_t end) {
    if (shown == DC_OK) {
        log_set_applied(s->self->log, (struct lsn){end});
        note_time(s);
    } else if (s->target.pulls) {
        diag(DIAG_WARNING, "sink.unshown lsn=%" PRIu64, log_applied(s->self->log).v);
    } else if (shown == DC_ECORRUPT) {
        note_damage(s);
    } else { /* no memory: the log is right, the store isn't */
        self_begin_anew(s->self);
    }
    return shown;
}

/* Everything in the log is shown. */
static enum dc_err settle(struct sink *s) {
    struct blob *b = s->playing;
    if (b == NULL) {
        return DC_OK;
    }
    enum dc_err shown = apply_end(s->apply);
    s->playing = NULL;
    blob_release(b);
    return note_shown(s, shown, s->playing_end);
}

/* --- runs of whole frames ---------------------------------------------------------------------------------------- */

/* What is in memory and not durable is bounded here as on a primary. */
static enum dc_err wait_for_room(struct sink *s) {
    struct log *log = s->self->log;
    while (!log_has_room(log)) {
        enum dc_err err = sink_must_end(s) ? DC_ESTOPPED : settle(s);
        if (err != DC_OK) {
            return err;
        }
        (void)log_wait(log, LOG_LEVEL_DISK, (struct lsn){log_durable(log).v + 1}, ROOM_WAIT_US);
    }
    return DC_OK;
}

/* What is in the log, if that is more than 'step' above what the source knows. */
static enum dc_err acknowledge(struct sink *s, uint64_t step) {
    uint64_t acked = atomic_load_explicit(&s->acked_received, memory_order_relaxed);
    return log_head(s->self->log).v - acked > step ? sink_ack(s) : DC_OK;
}

/* Somebody waits for what this node acknowledges; else send_acks() tells it now and then. */
static bool is_asked(const struct sink *s) {
    return s->asked_until_us != 0 && time_mono_us() < s->asked_until_us;
}

/* Nobody here waits for the write, as a rule. */
static void kick(struct sink *s) {
    const struct log *log = s->self->log;
    bool hurry = atomic_load_explicit(&s->hurry_lsn, memory_order_relaxed) > log_durable(log).v;
    if (hurry || replicas_link_count(s->self->replicas) > 0) {
        log_kick(s->self->log);
    } else {
        log_kick_soon(s->self->log);
    }
}

static enum dc_err take_run(struct sink *s, uint64_t lsn, const char *bytes, size_t len) {
    enum dc_err err = len > 0 ? wait_for_room(s) : DC_OK;
    err = err == DC_OK ? settle(s) : err;
    if (err != DC_OK || len == 0) {
        return err;
    }
    err = log_put(s->feed, lsn, bytes, len);
    if (err != DC_OK) {
        return err;
    }
    bool waits = !link_has_message(s->link) && is_asked(s);
    enum dc_err acked = acknowledge(s, waits ? 0 : ACK_STEP_LEN);
    kick(s); /* behind the acknowledgement: somebody waits for that */
    err = note_shown(s, apply_frames(s->apply, lsn, bytes, len), lsn + len);
    return err == DC_OK ? acked : err;
}

/* A long one, which stays where it is. It is shown when the next one has come, or settle() returns. */
static enum dc_err take_long_run(struct sink *s, uint64_t lsn, struct blob *frames) {
    enum dc_err err = wait_for_room(s);
    err = err == DC_OK ? log_put_blob(s->feed, lsn, frames) : err;
    if (err != DC_OK) {
        return err;
    }
    enum dc_err acked = acknowledge(s, ACK_STEP_LEN);
    log_kick(s->self->log);
    err = apply_begin(s->apply, lsn, frames->data, frames->len);
    blob_release(s->playing);
    s->playing = NULL;
    err = note_shown(s, err, lsn);
    if (err == DC_OK) {
        s->playing = blob_acquire(frames);
        s->playing_end = lsn + frames->len;
    }
    return err == DC_OK ? acked : err;
}

/* --- a new history ----------------------------------------------------------------------------------------------- */

/* The source's log goes on in another history: so does ours. */
static enum dc_err take_fork(struct sink *s, uint64_t lsn, const char *frame, size_t len) {
    struct log *log = s->self->log;
    dc_assert(s->playing == NULL); /* what is before it is shown */
    enum dc_err err = data_take_fork(s->self->data, lsn, frame, len);
    if (err != DC_OK) {
        return err;
    }
    struct history now = current(s);
    log_set_applied(log, log_head(log));
    diag(DIAG_NOTICE, "sink.history id=%016" PRIx64 " start=%" PRIu64 " epoch=%" PRIu64, now.id,
         now.start, now.epoch);
    return sink_ack(s);
}

/* --- frames ------------------------------------------------------------------------------------------------------ */

static enum dc_err fail_bytes(uint64_t lsn) {
    return dc_fail(DC_EPROTO, "what the source sent for LSN %" PRIu64 " is no frame of its log",
                   lsn);
}

/* All whole frames; '*used' bytes of them. 'whole': the blob that begins with them, NULL = they aren't to be kept by reference. */
static enum dc_err take_frames(struct sink *s, uint64_t lsn, struct bytes all, size_t *used,
                               struct blob *whole) {
    const char *bytes = all.ptr;
    size_t len = all.len;
    size_t from = 0, at = 0;
    enum dc_err err = DC_OK;
    uint64_t history = current(s).id;
    bool more = true;
    while (err == DC_OK && more && len - at >= FRAME_HEADER_LEN) {
        struct frame_head head;
        bool fork = bytes[at + FRAME_KIND_AT] == FRAME_FORK;
        uint64_t frame_len = frame_len_at(bytes + at);
        if (fork && frame_len > FORK_FRAME_MAX) {
            return fail_bytes(lsn + at);
        }
        if (frame_len > len - at) { /* a header that is wrong is noticed at once */
            bool wrong = !fork && frame_check_head(bytes + at, len - at, history, lsn + at,
                                                   &head) == FRAME_BAD_HEAD;
            err = wrong ? fail_bytes(lsn + at) : DC_OK;
            more = false;
        } else if (fork) {
            err = take_run(s, lsn + from, bytes + from, at - from);
            err = err == DC_OK ? take_fork(s, lsn + at, bytes + at, (size_t)frame_len) : err;
            history = current(s).id;
            at += (size_t)frame_len;
            from = at;
        } else if (frame_check(bytes + at, len - at, history, lsn + at, &head) == FRAME_OK) {
            at += (size_t)frame_len;
        } else {
            err = fail_bytes(lsn + at);
        }
    }
    *used = at;
    if (err == DC_OK && whole != NULL && from == 0 && at >= LONG_LEN) {
        whole->len = at;
        return take_long_run(s, lsn, whole);
    }
    return err == DC_OK ? take_run(s, lsn + from, bytes + from, at - from) : err;
}

static enum dc_err take_from_message(struct sink *s, const struct wire_log *m) {
    size_t used = 0;
    enum dc_err err = take_frames(s, m->lsn, m->bytes, &used, NULL);
    if (err == DC_OK && used < m->bytes.len) {
        s->pending_lsn = m->lsn + used;
        buf_append(&s->pending, m->bytes.ptr + used, m->bytes.len - used);
        err = s->pending.failed ? DC_ENOMEM : DC_OK;
    }
    return err;
}

static enum dc_err take_with_pending(struct sink *s, const struct wire_log *m) {
    size_t used = 0;
    buf_append_bytes(&s->pending, m->bytes);
    if (s->pending.failed) {
        return DC_ENOMEM;
    }
    enum dc_err err = take_frames(s, s->pending_lsn, buf_bytes(&s->pending), &used, NULL);
    if (err == DC_OK && used == s->pending.len) {
        buf_reset(&s->pending, PENDING_KEEP_LEN);
    } else if (err == DC_OK) {
        buf_consume(&s->pending, used);
        s->pending_lsn += used;
    }
    return err;
}

/* What is pending is short. */
static enum dc_err take_long(struct sink *s, const struct wire_log *m) {
    size_t before = s->pending.len;
    size_t len = before + m->bytes.len, used = 0;
    struct blob *b = blob_create(len, len);
    if (b == NULL) {
        return DC_ENOMEM;
    }
    if (before > 0) {
        memcpy(b->data, s->pending.ptr, before);
    }
    memcpy(b->data + before, m->bytes.ptr, m->bytes.len);
    buf_reset(&s->pending, PENDING_KEEP_LEN);
    enum dc_err err = take_frames(s, m->lsn - before, bytes_of(b->data, len), &used, b);
    if (err == DC_OK && used < len) {
        s->pending_lsn = m->lsn - before + used;
        buf_append(&s->pending, b->data + used, len - used);
        err = s->pending.failed ? DC_ENOMEM : DC_OK;
    }
    blob_release(b);
    return err;
}

static enum dc_err take_log(struct sink *s, struct bytes body) {
    struct wire_log m;
    if (!wire_log_decode(body, &m)) {
        return dc_fail(DC_EPROTO, "a message of the source can't be read");
    }
    if (s->pending.len > 0) {
        if (m.lsn != s->pending_lsn + s->pending.len) {
            return fail_bytes(m.lsn);
        }
        return m.bytes.len >= LONG_LEN && s->pending.len <= PENDING_SHORT_LEN
                   ? take_long(s, &m)
                   : take_with_pending(s, &m);
    }
    bool jumps = m.bytes.len > FRAME_KIND_AT && m.bytes.ptr[FRAME_KIND_AT] == FRAME_FORK;
    if (m.lsn != log_head(s->self->log).v && !jumps) {
        return fail_bytes(m.lsn);
    }
    return m.bytes.len >= LONG_LEN ? take_long(s, &m) : take_from_message(s, &m);
}

/* The source stops writing at the LSN that it tells, and wants this node to go on; 0: wherever it stands. */
static enum dc_err take_promote(struct sink *s, struct bytes body) {
    struct wire_promote m;
    uint64_t head = log_head(s->self->log).v;
    if (!wire_promote_decode(body, &m) || m.epoch == 0 || (m.lsn != 0 && m.lsn != head)) {
        return dc_fail(DC_EPROTO, "the source hands over at another place than %" PRIu64, head);
    }
    s->handed_over = true;
    repl_handed_over(s->self, m.epoch, m.lsn == 0);
    return dc_fail(DC_EIO, "the source hands over");
}

static enum dc_err take_message(struct sink *s, const struct link_message *m) {
    uint64_t lsn, ms;
    if (m->type == WIRE_LOG) {
        return take_log(s, m->body);
    }
    enum dc_err acked = s->playing != NULL || is_asked(s) ? acknowledge(s, 0) : DC_OK;
    enum dc_err err = settle(s);
    err = err == DC_OK ? acked : err;
    if (err != DC_OK) {
        return err;
    }
    if (m->type == WIRE_HURRY && wire_hurry_decode(m->body, &lsn)) {
        atomic_store_explicit(&s->hurry_lsn, lsn, memory_order_release);
        log_hurry(s->self->log);
        wake_raise(&s->ack_wake);
    } else if (m->type == WIRE_ASK && wire_ask_decode(m->body, &ms)) {
        s->asked_until_us = time_mono_us() + (int64_t)ms * 1000;
        return acknowledge(s, 0);
    } else if (m->type == WIRE_PROMOTE && s->pull_to == 0) {
        return take_promote(s, m->body);
    } else if (m->type == WIRE_BEAT) {
        note_time(s);
    } else if (m->type != WIRE_NONE) {
        return dc_fail(DC_EPROTO, "the source sent %s, which has no place here",
                       wire_type_name(m->type));
    }
    return DC_OK;
}

/* A source that lives and sends nothing more has less than it said: its disk doesn't take it. */
static enum dc_err check_pull(struct sink *s) {
    uint64_t has = log_head(s->self->log).v + s->pending.len;
    int64_t now_us = time_mono_us();
    if (has != s->pull_has) {
        s->pull_has = has;
        s->pull_moved_us = now_us;
    }
    return now_us - s->pull_moved_us < sink_pull_ms(s) * 1000
               ? DC_OK
               : dc_fail(DC_EIO, "%s has sent nothing behind LSN %" PRIu64 " for %" PRId64 " ms",
                         link_peer(s->link), has, sink_pull_ms(s));
}

enum dc_err sink_stream(struct sink *s) {
    enum dc_err err = DC_OK;
    buf_reset(&s->pending, PENDING_KEEP_LEN);
    while (err == DC_OK && !sink_must_end(s) &&
           (s->pull_to == 0 || log_head(s->self->log).v < s->pull_to)) {
        struct link_message m;
        err = sink_receive(s, s->playing != NULL ? 0 : SINK_LOOK_MS * 4, &m);
        err = err == DC_OK ? take_message(s, &m) : err;
        err = err == DC_OK && s->pull_to > 0 ? check_pull(s) : err;
    }
    enum dc_err last = settle(s);
    return last != DC_OK ? last : err;
}
