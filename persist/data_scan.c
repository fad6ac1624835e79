/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening a data directory: which snapshot, which log, and is all of it right?
 *
 * Snapshots are tried from the newest on. One is used when its header, footer and index are whole, its tail (S to E) is, and
 * the log goes on at E without a gap: each frame begins where the one before ended, or is the FORK frame of a history that continues
 * there. Otherwise the next older one is tried, with more log; the log must reach at least to the end of what was passed over. Without
 * any snapshot the log has to begin with the first history.
 *
 *     snap E=900 damaged      snap E=500           log 500..900..1200
 *     passed over (note)      used                 scanned from 500; must reach 900
 *
 * Where the log doesn't hold, nothing is guessed: the start is refused, with what is damaged, up to where it is right, and the command
 * that saves that much elsewhere.
 */
#include "persist/frame_fmt.h"
#include "persist/warm_priv.h"
#include "server/base/assert.h"
#include "server/base/mem.h"
#include "server/base/time.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Texts that go into another one are bounded, so that the advice at its end is never cut off. */
enum { RANGE_BITS_DEFAULT = 2, TEXT_MAX = 300 };

struct snap_name {
    char name[SEGMENT_NAME_MAX];
    uint64_t end_lsn;
};

struct scan {
    const struct warm_opts *opts;
    struct data_plan *plan;
    struct log_dir dir;
    struct snap_name *snaps; /* newest first */
    uint32_t snap_count, snap_cap;
    char owner[SEGMENT_NAME_MAX]; /* the file that said whose this is; "" = none yet */
    uint64_t must_reach;     /* the log has to go so far: a snapshot that was passed over did */
    char bad_text[TEXT_MAX]; /* why the newest of those was */
    uint32_t range_bits;     /* UINT32_MAX = as the snapshot has it */
    /* of one attempt */
    struct image image;
    uint64_t at; /* end of the last good frame */
    enum frame_kind last_kind;
    bool stopped; /* at the target */
    bool tail_is_too_new;
};

/* How an attempt with one snapshot ended. */
enum attempt {
    ATTEMPT_OK,
    ATTEMPT_NEXT, /* an older one may do; dc_fail_take() says why this doesn't */
    ATTEMPT_REFUSED,
};

/* --- small things ------------------------------------------------------------------------------------ */

void plan_note(struct data_plan *plan, const char *fmt, ...) {
    size_t len = strlen(plan->notes);
    va_list args;
    va_start(args, fmt);
    if (len + 2 < sizeof(plan->notes)) {
        if (len > 0) {
            plan->notes[len++] = ' ';
        }
        vsnprintf(plan->notes + len, sizeof(plan->notes) - len, fmt, args);
    }
    va_end(args);
}

enum dc_err data_path(const char *dir, const char *name, char to[DATA_PATH_MAX]) {
    int len = snprintf(to, DATA_PATH_MAX, "%s/%s", dir, name);
    if (len < 0 || len >= DATA_PATH_MAX) {
        return dc_fail(DC_EIO, "the path of %s is too long", name);
    }
    return DC_OK;
}

void image_fini(struct image *image) {
    if (image->exists) {
        queue_fini(&image->queue);
        snap_close(image->snap);
    }
    memset(image, 0, sizeof(*image));
}

static void note_name(void *arg, const char *name) {
    struct scan *s = arg;
    uint64_t end_lsn, history;
    if (!snap_name_parse(name, &end_lsn, &history)) {
        return;
    }
    if (s->snap_count == s->snap_cap) {
        s->snap_cap = s->snap_cap == 0 ? 8 : s->snap_cap * 2;
        s->snaps = mem_must_realloc(s->snaps, s->snap_cap * sizeof(*s->snaps));
    }
    struct snap_name *n = &s->snaps[s->snap_count++];
    snprintf(n->name, sizeof(n->name), "%s", name);
    n->end_lsn = end_lsn;
}

static int compare_newest(const void *a, const void *b) {
    const struct snap_name *x = a, *y = b;
    if (x->end_lsn != y->end_lsn) {
        return x->end_lsn < y->end_lsn ? 1 : -1;
    }
    return strcmp(y->name, x->name);
}

/* --- whose files these are ---------------------------------------------------------------------------- */

static enum dc_err check_owner(struct scan *s, const char *name, const uint8_t *node_id,
                               const uint8_t *seed) {
    struct data_plan *plan = s->plan;
    char theirs[2 * NODE_ID_LEN + 1], ours[2 * NODE_ID_LEN + 1];
    if (s->owner[0] == '\0') {
        memcpy(plan->node_id, s->opts->node_id != NULL ? s->opts->node_id : node_id, NODE_ID_LEN);
        memcpy(plan->seed, seed, SEED_LEN);
        snprintf(s->owner, sizeof(s->owner), "%s", name);
    }
    if (memcmp(node_id, plan->node_id, NODE_ID_LEN) != 0) {
        crypto_hex(theirs, node_id, NODE_ID_LEN);
        crypto_hex(ours, plan->node_id, NODE_ID_LEN);
        return dc_fail(DC_EFOREIGN, "%s/%s belongs to node %s; the directory is that of node %s",
                       s->opts->dir, name, theirs, ours);
    }
    if (memcmp(seed, plan->seed, SEED_LEN) != 0) {
        return dc_fail(DC_EFOREIGN, "%s/%s has another hash seed than %s", s->opts->dir, name,
                       s->owner);
    }
    return DC_OK;
}

static enum dc_err check_segment(struct scan *s, const struct segment_info *info) {
    switch (info->verdict) {
    case HEAD_OK:
        return check_owner(s, info->name, info->head.node_id, info->head.seed);
    case HEAD_NEWER:
        return dc_fail(DC_ENEWER, "%s/%s has a newer format than this program knows", s->opts->dir,
                       info->name);
    case HEAD_NOT_OURS:
    case HEAD_DAMAGED:
        break; /* the reader says so if it is needed */
    }
    return DC_OK;
}

static enum dc_err check_segments(struct scan *s) {
    enum dc_err err = DC_OK;
    for (uint32_t i = 0; i < s->dir.count && err == DC_OK; i++) {
        err = check_segment(s, &s->dir.segments[i]);
    }
    return err;
}

/* --- one attempt ------------------------------------------------------------------------------------- */

/* The text of an error, to be part of another one. */
static void take_text(enum dc_err err, char to[TEXT_MAX]) {
    snprintf(to, TEXT_MAX, "%.*s", TEXT_MAX - 1, dc_fail_take(err));
}

static enum dc_err refuse(struct scan *s, const char *what) {
    return dc_fail(DC_ECORRUPT,
                   "%.300s. Everything up to LSN %" PRIu64
                   " can be saved: dcache-restore --repair %s <new dir>",
                   what, s->at, s->opts->dir);
}

/* The chain that a FORK frame brings has to go on where we are. */
static enum dc_err take_fork(struct scan *s, const struct frame_ref *f) {
    struct data_plan *plan = s->plan;
    struct history *chain = mem_must_alloc(CHAIN_MAX * sizeof(*chain));
    enum dc_err err = DC_OK;
    uint32_t count = fork_decode(bytes_of(f->bytes + FRAME_HEADER_LEN, f->len - FRAME_HEADER_LEN),
                                 chain, CHAIN_MAX);
    uint32_t known = plan->chain_count;
    if (count == 0 || chain[count - 1].start != f->lsn || chain[count - 1].id != f->history) {
        err = dc_fail(DC_ECORRUPT, "the fork at LSN %" PRIu64 " is malformed", f->lsn);
    } else if (known > 0 &&
               (count != known + 1 || chain[known - 1].id != plan->chain[known - 1].id ||
                chain[known].parent_end != s->at)) {
        err = dc_fail(DC_ECORRUPT,
                      "the history at LSN %" PRIu64 " doesn't continue what ends at %" PRIu64,
                      f->lsn, s->at);
    } else if (known == 0 && (count != 1 || chain[0].parent_end != 0)) {
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
    if (f->lsn != s->at) {
        return dc_fail(DC_ECORRUPT, "the log between LSN %" PRIu64 " and %" PRIu64 " is missing",
                       s->at, f->lsn);
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
    struct data_plan *plan = s->plan;
    enum dc_err err = queue_frame(&s->image.queue, name, f);
    if (err == DC_OK) {
        s->at = f->lsn + f->len;
        s->last_kind = f->head.kind;
        plan->frames++;
        plan->effects += f->head.effect_count;
        plan->log_bytes += f->len;
        if (f->head.time_ms > plan->last_time_ms) {
            plan->last_time_ms = f->head.time_ms;
        }
    }
    return err;
}

/* S to E, inside of the snapshot. */
static enum dc_err scan_tail(struct scan *s, const char *name) {
    const struct snap_facts *facts = snap_facts(s->image.snap);
    struct snap_tail *tail = NULL;
    enum dc_err err = snap_tail_open(s->image.snap, &tail);
    enum log_end end = LOG_MORE;
    s->at = facts->start_lsn;
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
        take_text(DC_ECORRUPT, text);
        return dc_fail(DC_ECORRUPT, "the log in %s is damaged behind LSN %" PRIu64 ": %s", name,
                       s->at, text);
    }
    if (err == DC_OK && !s->tail_is_too_new && facts->tail_len > 0 && s->at != facts->end_lsn) {
        return dc_fail(DC_ECORRUPT, "the log in %s ends at LSN %" PRIu64 ", not at %" PRIu64, name,
                       s->at, facts->end_lsn);
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
    plan->frames = plan->effects = plan->log_bytes = 0;
    plan->last_time_ms = 0;
    plan->snapshot[0] = '\0';
    plan->snapshot_start = plan->snapshot_end = 0;
}

static void begin_attempt(struct scan *s) {
    image_fini(&s->image);
    plan_forget_log(s->plan);
    s->at = 0;
    s->last_kind = FRAME_MUTATION;
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
    err = check_owner(s, n->name, facts->node_id, facts->seed);
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
    plan->last_time_ms = facts->tail_len == 0 ? facts->begun_ms : 0;
    snprintf(plan->snapshot, sizeof(plan->snapshot), "%s", n->name);
    err = scan_tail(s, n->name);
    s->at = facts->end_lsn;
    return err;
}

/* From where we are to the end of the log. On DC_OK 'end' says how it ends. */
static enum dc_err scan_log(struct scan *s, enum log_end *end, struct log_end_info *info) {
    struct log_reader *reader = NULL;
    enum dc_err err = log_reader_open(&reader, &s->dir, s->at);
    *end = LOG_END;
    *info = (struct log_end_info){.lsn = s->at};
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
        if (err == DC_OK) {
            err = take_frame(s, s->dir.segments[f.segment].name, &f);
        }
    }
    if (err == DC_OK && s->stopped) {
        err = log_reader_check(reader);
    }
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
        return refuse(s, text);
    }
    if (!s->stopped && end == LOG_END && seg != NULL && s->at < seg->durable_lsn &&
        s->at >= seg->head.first_lsn) {
        snprintf(text, sizeof(text),
                 "%s/%s ends at offset %" PRIu64 " (LSN %" PRIu64
                 "), but was on the disk up to LSN %" PRIu64,
                 s->opts->dir, seg->name, info->file_offset, s->at, seg->durable_lsn);
        return refuse(s, text);
    }
    if (!s->stopped && s->at < s->must_reach) {
        snprintf(text, sizeof(text), "%.200s; and the log ends at LSN %" PRIu64 ", before it",
                 s->bad_text, s->at);
        return refuse(s, text);
    }
    return DC_OK;
}

/* With this snapshot, or (NULL) with none. */
static enum attempt try_snapshot(struct scan *s, const struct snap_name *n, enum dc_err *err,
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
    if (*err == DC_ECORRUPT && s->at == s->image.window_end) {
        return ATTEMPT_NEXT; /* the log doesn't go on here: a branch that was left, or a gap */
    }
    if (*err == DC_ECORRUPT) {
        char text[TEXT_MAX];
        take_text(DC_ECORRUPT, text);
        *err = refuse(s, text);
    }
    if (*err == DC_OK) {
        *err = judge_end(s, *end, info);
    }
    s->image.end = s->at;
    return *err == DC_OK ? ATTEMPT_OK : ATTEMPT_REFUSED;
}

/* Remembers why a snapshot can't be used. */
static void pass_over(struct scan *s, const struct snap_name *n, enum dc_err err) {
    if (err == DC_OK) {
        return; /* newer than the target: nothing is wrong with it */
    }
    char text[TEXT_MAX];
    take_text(err, text);
    plan_note(s->plan, "The snapshot %s can't be used: %s.", n->name, text);
    s->plan->snapshots_bad++;
    if (s->must_reach == 0) {
        s->must_reach = n->end_lsn;
        snprintf(s->bad_text, sizeof(s->bad_text), "%s can't be used: %.200s", n->name, text);
    }
}

/* Nothing can be used. 'err' is what was wrong without any snapshot. */
static enum dc_err refuse_all(struct scan *s, enum dc_err err) {
    char text[TEXT_MAX];
    if (s->bad_text[0] != '\0') {
        return dc_fail(
            DC_ECORRUPT,
            "%s/%.250s; and no older snapshot has the log behind it. What can be read is "
            "saved by: dcache-restore --repair %s <new dir>",
            s->opts->dir, s->bad_text, s->opts->dir);
    }
    if (err == DC_OK) {
        return dc_fail(DC_ECORRUPT, "%s: every snapshot is newer than what is asked for",
                       s->opts->dir);
    }
    take_text(err, text);
    return refuse(s, text);
}

/* From the newest snapshot whose end lies below 'below' on. */
static enum dc_err try_all(struct scan *s, uint64_t below, enum log_end *end,
                           struct log_end_info *info) {
    enum dc_err err = DC_OK;
    for (uint32_t i = 0; i <= s->snap_count; i++) {
        const struct snap_name *n = i < s->snap_count ? &s->snaps[i] : NULL;
        if (n != NULL &&
            (n->end_lsn >= below || (s->opts->to_lsn != 0 && n->end_lsn > s->opts->to_lsn))) {
            continue;
        }
        if (n == NULL && s->dir.count == 0) {
            break;
        }
        switch (try_snapshot(s, n, &err, end, info)) {
        case ATTEMPT_OK:
            return DC_OK;
        case ATTEMPT_REFUSED:
            return err;
        case ATTEMPT_NEXT:
            break;
        }
        if (n != NULL) {
            pass_over(s, n, err);
            err = DC_OK;
        }
    }
    return refuse_all(s, err);
}

static enum dc_err open_scan(struct scan *s, const struct warm_opts *opts, struct data_plan *plan) {
    memset(s, 0, sizeof(*s));
    s->opts = opts;
    s->plan = plan;
    s->range_bits = UINT32_MAX;
    int err = opts->io->list(opts->io, opts->dir, note_name, s);
    if (err < 0) {
        return dc_fail(DC_EIO, "list %s: %s", opts->dir, dc_errno_text(-err));
    }
    if (s->snap_count > 0) {
        qsort(s->snaps, s->snap_count, sizeof(*s->snaps), compare_newest);
    }
    return log_dir_open(&s->dir, opts->io, opts->dir);
}

static void close_scan(struct scan *s) {
    image_fini(&s->image);
    log_dir_close(&s->dir);
    mem_free(s->snaps);
}

/* --- the two ways in --------------------------------------------------------------------------------- */

static bool has_anything(const struct scan *s) {
    if (s->image.snap != NULL && snap_facts(s->image.snap)->entries > 0) {
        return true;
    }
    for (uint32_t i = 0; i < KEYSPACE_MAX; i++) {
        if (s->image.queue.flushed[i] != 0) {
            return true;
        }
    }
    return s->image.queue.effects > 0;
}

/* A run began behind the clean end: what it handed out and lost must not be handed out again, even if nothing of it is left. */
static bool went_on(const struct scan *s) {
    for (uint32_t i = 0; i < s->dir.count; i++) {
        const struct segment_info *segment = &s->dir.segments[i];
        if (!segment->abandoned && (segment->blank || segment->head.first_lsn >= s->at)) {
            return true;
        }
    }
    return false;
}

static enum dc_err finish(struct scan *s, enum log_end end, const struct log_end_info *info,
                          struct warm **out) {
    struct data_plan *plan = s->plan;
    enum dc_err err = DC_OK;
    plan->end_lsn = s->at;
    plan->clean = end == LOG_END && !s->stopped && s->last_kind == FRAME_CLOSE && !went_on(s);
    if (end == LOG_TORN) {
        err = data_cut(s->opts, &s->dir, info, plan);
    }
    if (err == DC_OK && !s->opts->read_only) {
        err = data_make_durable(s->opts, &s->dir, s->at);
    }
    if (err == DC_OK) {
        err = queue_map(&s->image.queue, s->opts->dir);
    }
    if (err == DC_OK && has_anything(s)) {
        *out = warm_create(s->opts, &s->image);
    }
    return err;
}

enum dc_err data_scan(const struct warm_opts *opts, struct data_plan *plan, struct warm **out) {
    struct scan *s = mem_must_zalloc(sizeof(*s));
    enum log_end end = LOG_END;
    struct log_end_info info = {0};
    int64_t began_us = time_mono_us();
    memset(plan, 0, sizeof(*plan));
    *out = NULL;
    enum dc_err err = opts->read_only ? DC_OK : data_remove_leftovers(opts);
    err = err != DC_OK ? err : open_scan(s, opts, plan);
    if (err == DC_OK && s->snap_count == 0 && s->dir.count == 0) {
        plan->empty = true;
    } else if (err == DC_OK) {
        err = check_segments(s);
        err = err != DC_OK ? err : try_all(s, UINT64_MAX, &end, &info);
        err = err != DC_OK ? err : finish(s, end, &info, out);
    }
    close_scan(s);
    mem_free(s);
    plan->scan_us = time_mono_us() - began_us;
    return err;
}

enum dc_err data_scan_older(const struct warm_opts *opts, uint64_t lsn, uint32_t range_bits,
                            struct image *out) {
    struct scan *s = mem_must_zalloc(sizeof(*s));
    struct data_plan *plan = mem_must_zalloc(sizeof(*plan));
    struct warm_opts to_there = *opts;
    enum log_end end = LOG_END;
    struct log_end_info info = {0};
    to_there.to_lsn = lsn;
    to_there.to_time_ms = 0;
    to_there.read_only = true;
    enum dc_err err = open_scan(s, &to_there, plan);
    s->range_bits = range_bits;
    err = err != DC_OK ? err : check_segments(s);
    err = err != DC_OK ? err : try_all(s, lsn, &end, &info);
    if (err == DC_OK && s->at != lsn) {
        err = dc_fail(DC_ECORRUPT, "the log ends at LSN %" PRIu64 ", before %" PRIu64, s->at, lsn);
    }
    err = err != DC_OK ? err : queue_map(&s->image.queue, opts->dir);
    if (err == DC_OK) {
        *out = s->image;
        s->image.exists = false;
    }
    close_scan(s);
    mem_free(plan);
    mem_free(s);
    return err;
}
