/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One attempt to open a data directory: with one snapshot, or none, and the log behind it. Every frame is checked, and has to stand where
 * the one before ended, or be the FORK frame of a history that continues there; its effects are queued. Then: does the log end well, or
 * as a crash leaves it?
 */
#include "persist/data_scan_priv.h"
#include "persist/frame_fmt.h"
#include "persist/histories.h"
#include "server/base/mem.h"

#include <inttypes.h>
#include <stdio.h>

enum { RANGE_BITS_DEFAULT = 2 };

void scan_take_text(enum dc_err err, char to[TEXT_MAX]) {
    snprintf(to, TEXT_MAX, "%.*s", TEXT_MAX - 1, dc_fail_take(err));
}

enum dc_err scan_refuse(struct scan *s, const char *what) {
    return dc_fail(DC_ECORRUPT,
                   "%.300s. Everything up to LSN %" PRIu64
                   " can be saved: dcache-restore --repair %s <new dir>",
                   what, s->sums.at, s->opts->dir);
}

/* --- frames ------------------------------------------------------------------------------------------ */

/* The chain that a FORK frame brings has to go on where we are; one that was full has forgotten its beginning. */
static enum dc_err take_fork(struct scan *s, const struct frame_ref *f) {
    struct data_plan *plan = s->plan;
    struct history *chain = mem_must_alloc(CHAIN_MAX * sizeof(*chain));
    enum dc_err err = DC_OK;
    uint32_t count = fork_decode(bytes_of(f->bytes + FRAME_HEADER_LEN, f->len - FRAME_HEADER_LEN),
                                 chain, CHAIN_MAX);
    uint32_t known = plan->chain_count;
    bool continues = histories_continue(plan->chain, known, chain, count, s->sums.at);
    if (count == 0 || chain[count - 1].start != f->lsn || chain[count - 1].id != f->history) {
        err = dc_fail(DC_ECORRUPT, "the fork at LSN %" PRIu64 " is malformed", f->lsn);
    } else if (known > 0 && !continues) {
        err = dc_fail(DC_ECORRUPT,
                      "the history at LSN %" PRIu64 " doesn't continue what ends at %" PRIu64,
                      f->lsn, s->sums.at);
    } else if (!continues) {
        err = dc_fail(DC_ECORRUPT,
                      "the log begins at LSN %" PRIu64 " and no snapshot holds what was before",
                      f->lsn);
    } else {
        memcpy(plan->chain, chain, count * sizeof(*chain));
        plan->chain_count = count;
    }
    mem_free(chain);
    return err;
}

static enum dc_err check_place(struct scan *s, const struct frame_ref *f) {
    struct data_plan *plan = s->plan;
    if (f->head.kind == FRAME_FORK) {
        return take_fork(s, f);
    }
    if (plan->chain_count == 0) {
        return dc_fail(DC_ECORRUPT,
                       "the log begins at LSN %" PRIu64 " and no snapshot holds what was before",
                       f->lsn);
    }
    if (f->lsn != s->sums.at) {
        return dc_fail(DC_ECORRUPT, "the log between LSN %" PRIu64 " and %" PRIu64 " is missing",
                       s->sums.at, f->lsn);
    }
    if (f->history != plan->chain[plan->chain_count - 1].id) {
        return dc_fail(DC_ECORRUPT, "the frame at LSN %" PRIu64 " is of another history", f->lsn);
    }
    return DC_OK;
}

/* The target of a recovery to a point lies before the end of this frame. */
static bool is_behind_target(const struct scan *s, const struct frame_ref *f) {
    const struct warm_opts *o = s->opts;
    return (o->to_lsn != 0 && f->lsn + f->len > o->to_lsn) ||
           (o->to_time_ms != 0 && f->head.time_ms > o->to_time_ms);
}

static enum dc_err take_frame(struct scan *s, const char *name, const struct frame_ref *f) {
    enum dc_err err = queue_frame(&s->image.queue, name, f);
    if (err == DC_OK) {
        sums_add(&s->sums, f);
    }
    return err;
}

/* --- a snapshot, the log behind it, and its end ------------------------------------------------------- */

/* S to E, inside of the snapshot. */
static enum dc_err scan_tail(struct scan *s, const char *name) {
    const struct snap_facts *facts = snap_facts(s->image.snap);
    struct snap_tail *tail = NULL;
    enum dc_err err = snap_tail_open(s->image.snap, &tail);
    enum log_end end = LOG_MORE;
    s->sums.at = facts->start_lsn;
    while (err == DC_OK) {
        struct frame_ref f;
        end = snap_tail_next(tail, &f);
        if (end != LOG_MORE) {
            break;
        }
        if (is_behind_target(s, &f)) {
            s->tail_is_too_new = true;
            break;
        }
        err = take_frame(s, name, &f);
    }
    snap_tail_close(tail);
    if (err == DC_OK && (end == LOG_TORN || end == LOG_DAMAGED || end == LOG_FAILED)) {
        char text[TEXT_MAX];
        scan_take_text(DC_ECORRUPT, text);
        return dc_fail(DC_ECORRUPT, "the log in %s is damaged behind LSN %" PRIu64 ": %s", name,
                       s->sums.at, text);
    }
    if (err == DC_OK && !s->tail_is_too_new && facts->tail_len > 0 &&
        s->sums.at != facts->end_lsn) {
        return dc_fail(DC_ECORRUPT, "the log in %s ends at LSN %" PRIu64 ", not at %" PRIu64, name,
                       s->sums.at, facts->end_lsn);
    }
    return err;
}

static bool snap_is_too_new(const struct scan *s, const struct snap_facts *facts) {
    const struct warm_opts *o = s->opts;
    return (o->to_lsn != 0 && facts->end_lsn > o->to_lsn) ||
           (o->to_time_ms != 0 && facts->begun_ms > o->to_time_ms);
}

static void plan_forget_log(struct data_plan *plan) {
    plan->chain_count = 0;
    plan->snapshot[0] = '\0';
    plan->snapshot_start = plan->snapshot_end = 0;
}

static void begin_attempt(struct scan *s) {
    image_fini(&s->image);
    plan_forget_log(s->plan);
    s->sums = (struct scan_sums){.last_kind = FRAME_MUTATION};
    s->stopped = s->tail_is_too_new = false;
}

/* Opens the snapshot and takes its tail. */
static enum dc_err open_snapshot(struct scan *s, const struct snap_name *n) {
    struct data_plan *plan = s->plan;
    char path[DATA_PATH_MAX];
    struct snap *snap = NULL;
    enum dc_err err = data_path(s->opts->dir, n->name, path);
    err = err != DC_OK ? err : snap_open(s->opts->io, path, &snap);
    if (err != DC_OK) {
        return err;
    }
    const struct snap_facts *facts = snap_facts(snap);
    s->image.snap = snap;
    s->image.exists = true;
    s->image.window_end = facts->end_lsn;
    queue_init(&s->image.queue, s->opts->io,
               s->range_bits != UINT32_MAX ? s->range_bits : facts->range_bits);
    err = scan_check_owner(s, n->name, facts->node_id, facts->seed);
    if (err != DC_OK) {
        return err;
    }
    if (facts->end_lsn != n->end_lsn) {
        return dc_fail(DC_ECORRUPT, "%s ends at LSN %" PRIu64 ", not where its name says", path,
                       facts->end_lsn);
    }
    if (snap_is_too_new(s, facts)) {
        s->tail_is_too_new = true;
        return DC_OK;
    }
    memcpy(plan->chain, facts->chain, facts->chain_count * sizeof(*facts->chain));
    plan->chain_count = facts->chain_count;
    plan->snapshot_start = facts->start_lsn;
    plan->snapshot_end = facts->end_lsn;
    s->sums.last_time_ms = facts->tail_len == 0 ? facts->begun_ms : 0;
    snprintf(plan->snapshot, sizeof(plan->snapshot), "%s", n->name);
    err = scan_tail(s, n->name);
    s->sums.at = facts->end_lsn;
    return err;
}

/* The pieces that go on where we are. They are read when one frame has shown that this is the way the log goes on. */
static enum dc_err take_pieces(struct scan *s, struct pieces *pieces, struct log_reader *reader) {
    const struct data_plan *plan = s->plan;
    uint64_t history = plan->chain[plan->chain_count - 1].id;
    enum dc_err err = DC_OK;
    if (pieces->opts == NULL) {
        pieces_read(pieces, s->opts, &s->dir, s->image.queue.range_bits, s->sums.at);
    }
    while (err == DC_OK && pieces_reach(pieces, s->sums.at, history)) {
        err = pieces_take(pieces, &s->image.queue, &s->sums);
        log_reader_skip(reader, s->sums.at);
    }
    return err;
}

/* From where we are to the end of the log. On DC_OK 'end' says how it ends. */
static enum dc_err scan_log(struct scan *s, enum log_end *end, struct log_end_info *info) {
    struct log_reader *reader = NULL;
    struct pieces pieces = {.opts = NULL};
    enum dc_err err = log_reader_open(&reader, &s->dir, s->sums.at);
    *end = LOG_END;
    *info = (struct log_end_info){.lsn = s->sums.at};
    while (err == DC_OK) {
        struct frame_ref f;
        *end = log_reader_next(reader, &f);
        if (*end != LOG_MORE) {
            log_reader_end(reader, info);
            break;
        }
        if (is_behind_target(s, &f)) {
            s->stopped = true;
            *end = LOG_END;
            break;
        }
        err = check_place(s, &f);
        err = err == DC_OK ? take_frame(s, s->dir.segments[f.segment].name, &f) : err;
        err = err == DC_OK ? take_pieces(s, &pieces, reader) : err;
    }
    if (err == DC_OK && s->stopped) {
        err = log_reader_check(reader);
    }
    pieces_fini(&pieces);
    log_reader_close(reader);
    return err;
}

/* The log ends well, or as a crash leaves it. */
static enum dc_err judge_end(struct scan *s, enum log_end end, const struct log_end_info *info) {
    const struct segment_info *seg =
        info->segment < s->dir.count ? &s->dir.segments[info->segment] : NULL;
    char text[ERR_TEXT_MAX];
    if (end == LOG_FAILED) {
        return DC_EIO; /* born in the reader */
    }
    if (end == LOG_DAMAGED) {
        snprintf(text, sizeof(text), "%s/%s is damaged at offset %" PRIu64 ": %s", s->opts->dir,
                 seg == NULL ? "the log" : seg->name, info->file_offset, info->text);
        return scan_refuse(s, text);
    }
    if (!s->stopped && end == LOG_END && seg != NULL && s->sums.at < seg->durable_lsn &&
        s->sums.at >= seg->head.first_lsn) {
        snprintf(text, sizeof(text),
                 "%s/%s ends at offset %" PRIu64 " (LSN %" PRIu64
                 "), but was on the disk up to LSN %" PRIu64,
                 s->opts->dir, seg->name, info->file_offset, s->sums.at, seg->durable_lsn);
        return scan_refuse(s, text);
    }
    if (!s->stopped && s->sums.at < s->must_reach) {
        snprintf(text, sizeof(text), "%.200s; and the log ends at LSN %" PRIu64 ", before it",
                 s->bad_text, s->sums.at);
        return scan_refuse(s, text);
    }
    return DC_OK;
}

enum attempt scan_attempt(struct scan *s, const struct snap_name *n, enum dc_err *err,
                          enum log_end *end, struct log_end_info *info) {
    begin_attempt(s);
    *err = DC_OK;
    if (n != NULL) {
        *err = open_snapshot(s, n);
        if (*err == DC_ENEWER || *err == DC_EFOREIGN || *err == DC_ENOMEM) {
            return ATTEMPT_REFUSED;
        }
        if (*err != DC_OK || s->tail_is_too_new) {
            return ATTEMPT_NEXT;
        }
    } else {
        s->image.exists = true;
        queue_init(&s->image.queue, s->opts->io,
                   s->range_bits != UINT32_MAX ? s->range_bits : RANGE_BITS_DEFAULT);
    }
    *err = scan_log(s, end, info);
    if (*err == DC_OK && s->stopped && s->plan->chain_count == 0) {
        return ATTEMPT_NEXT; /* the target lies before the first frame: that isn't a new node */
    }
    if (*err == DC_ECORRUPT && s->sums.at == s->image.window_end) {
        return ATTEMPT_NEXT; /* the log doesn't go on here: a branch that was left, or a gap */
    }
    if (*err == DC_ECORRUPT) {
        char text[TEXT_MAX];
        scan_take_text(DC_ECORRUPT, text);
        *err = scan_refuse(s, text);
    }
    if (*err == DC_OK) {
        *err = judge_end(s, *end, info);
    }
    s->image.end = s->sums.at;
    s->plan->frames = s->sums.frames;
    s->plan->effects = s->sums.effects;
    s->plan->log_bytes = s->sums.bytes;
    s->plan->last_time_ms = s->sums.last_time_ms;
    return *err == DC_OK ? ATTEMPT_OK : ATTEMPT_REFUSED;
}
