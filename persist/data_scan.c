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
#include "persist/data_scan_priv.h"
#include "server/base/mem.h"
#include "server/base/time.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

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

enum dc_err scan_check_owner(struct scan *s, const char *name, const uint8_t *node_id,
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
        return scan_check_owner(s, info->name, info->head.node_id, info->head.seed);
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

/* --- all attempts ------------------------------------------------------------------------------------ */

/* Remembers why a snapshot can't be used. */
static void pass_over(struct scan *s, const struct snap_name *n, enum dc_err err) {
    if (err == DC_OK) {
        return; /* newer than the target: nothing is wrong with it */
    }
    char text[TEXT_MAX];
    scan_take_text(err, text);
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
        return dc_fail(DC_ECORRUPT, "%s: all that is there is newer than what is asked for",
                       s->opts->dir);
    }
    scan_take_text(err, text);
    return scan_refuse(s, text);
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
        switch (scan_attempt(s, n, &err, end, info)) {
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
        if (!segment->abandoned && (segment->blank || segment->head.first_lsn >= s->sums.at)) {
            return true;
        }
    }
    return false;
}

/* The last frame's time, or what a mark says that was renewed later. */
static int64_t latest_time(const struct scan *s) {
    int64_t ms = s->plan->last_time_ms;
    for (uint32_t i = 0; i < s->dir.count; i++) {
        const struct segment_info *segment = &s->dir.segments[i];
        ms = !segment->abandoned && segment->mark_ms > ms ? segment->mark_ms : ms;
    }
    return ms;
}

static enum dc_err finish(struct scan *s, enum log_end end, const struct log_end_info *info,
                          struct warm **out) {
    struct data_plan *plan = s->plan;
    enum dc_err err = DC_OK;
    plan->end_lsn = s->sums.at;
    plan->clock_ms = latest_time(s);
    plan->clean = end == LOG_END && !s->stopped && s->sums.last_kind == FRAME_CLOSE && !went_on(s);
    if (end == LOG_TORN) {
        err = data_cut(s->opts, &s->dir, info, plan);
    }
    if (err == DC_OK && !s->opts->read_only) {
        err = data_make_durable(s->opts, &s->dir, s->sums.at);
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
    enum dc_err err = opts->read_only ? DC_OK : data_remove_leftovers(opts, plan);
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
    if (err == DC_OK && s->sums.at != lsn) {
        err = dc_fail(DC_ECORRUPT, "the log ends at LSN %" PRIu64 ", before %" PRIu64, s->sums.at,
                      lsn);
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
