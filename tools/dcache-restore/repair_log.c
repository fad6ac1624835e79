/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The log. Segments are gone through frame by frame; where none begins, the next one is looked for, byte by byte: a frame's
 * sums are seeded with its place, so what fits is one. Effects that were made for what is lost are passed over.
 */
#include "persist/replay.h"
#include "server/base/codec.h"
#include "server/base/mem.h"
#include "server/store/load.h"
#include "tools/dcache-restore/repair_priv.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>

/* --- frames ------------------------------------------------------------------------------------------ */

/* A change of an entry that isn't there. While a walk was under way that may be as it was: it came by too late. */
static bool is_of_lost(const struct repair *r, const struct effect_view *e, const struct key *k) {
    struct keyspace *ks = store_numbered(r->source->store, e->keyspace);
    bool needs_entry = (e->kind == MUT_EXPIRE || e->kind == MUT_WRITE) && e->prev != 0;
    return needs_entry && ks != NULL && store_find(ks, k) == NULL &&
           e->version > repair_window_end(r, e->keyspace, k->pos.v);
}

static enum dc_err apply_effect(struct repair *r, const struct effect_view *e, bool in_holes_only) {
    bool is_lost = false;
    if (e->kind != MUT_FLUSH) {
        struct key k = store_key(r->source->store, e->key);
        if (in_holes_only && !repair_in_hole(r, e->keyspace, k.pos.v, e->version)) {
            return DC_OK;
        }
        is_lost = is_of_lost(r, e, &k);
    }
    enum dc_err err = is_lost ? DC_OK : replay_effect(&r->mut, e, true);
    if (err == DC_ECORRUPT) {
        (void)dc_fail_take(err);
        is_lost = true;
        err = DC_OK;
    }
    r->report->effects_skipped += is_lost && !r->is_early;
    return err;
}

static bool is_behind_point(const struct options *o, uint64_t end, int64_t time_ms) {
    return (o->to_lsn != 0 && end > o->to_lsn) || (o->to_time_ms != 0 && time_ms > o->to_time_ms);
}

static enum dc_err apply_frame(struct repair *r, const char *bytes, size_t len, uint64_t lsn,
                               const struct frame_head *head) {
    struct effect_view e;
    enum dc_err err = DC_OK;
    bool in_holes_only = lsn + len <= r->base_start;
    if (in_holes_only != r->before_base || (!in_holes_only && lsn + len <= r->tail_end)) {
        return DC_OK; /* the other pass, or the base's tail had it */
    }
    r->log_end = lsn + len > r->log_end ? lsn + len : r->log_end;
    r->log_time_ms = head->time_ms > r->log_time_ms ? head->time_ms : r->log_time_ms;
    r->enough = r->enough || is_behind_point(r->o, lsn + len, head->time_ms);
    if (r->enough) {
        return DC_OK;
    }
    r->report->frames++;
    r->reached = lsn + len > r->reached ? lsn + len : r->reached;
    r->time_ms = head->time_ms > r->time_ms ? head->time_ms : r->time_ms;
    if (head->kind != FRAME_MUTATION) {
        return DC_OK;
    }
    for (size_t at = FRAME_HEADER_LEN; at < len && err == DC_OK; at += e.len) {
        if (!effect_decode(bytes, len, at, lsn, &e)) {
            break; /* frame_check() has seen that it is one */
        }
        err = apply_effect(r, &e, in_holes_only);
    }
    return err;
}

/* --- tails of snapshots ------------------------------------------------------------------------------ */

/* S to E, of which the segments may be gone. If they aren't, an older snapshot's frames come again, as old news. */
static enum dc_err apply_tail(struct repair *r, uint32_t index) {
    struct snap_tail *tail = NULL;
    struct frame_ref f;
    enum log_end end = LOG_MORE;
    enum dc_err err = snap_tail_open(r->snaps[index], &tail);
    while (err == DC_OK && (end = snap_tail_next(tail, &f)) == LOG_MORE) {
        err = apply_frame(r, f.bytes, f.len, f.lsn, &f.head);
        r->tail_end = index == r->base ? f.lsn + f.len : 0;
    }
    snap_tail_close(tail);
    if (err == DC_EIO ||
        (err == DC_OK && (end == LOG_DAMAGED || end == LOG_TORN || end == LOG_FAILED))) {
        repair_note(r->report, "%s: the log in it is damaged: %s", r->names[index],
                    dc_fail_take(err == DC_EIO ? err : DC_ECORRUPT));
        err = DC_OK;
    }
    return err;
}

/* --- segments ---------------------------------------------------------------------------------------- */

struct stretch {
    const struct segment_info *info;
    const char *map;
    uint64_t len;   /* of the file */
    uint64_t limit; /* LSN at which another segment goes on */
};

static uint64_t lsn_at(const struct stretch *s, uint64_t at) {
    return s->info->head.first_lsn + (at - SEGMENT_HEADER_LEN);
}

static bool frame_at(const struct stretch *s, uint64_t at, struct frame_head *head) {
    return at < s->len && lsn_at(s, at) < s->limit &&
           frame_check(s->map + at, (size_t)(s->len - at), s->info->head.history.id, lsn_at(s, at),
                       head) == FRAME_OK;
}

/* The next good frame behind a place that has none; the file's length when there isn't one. */
static uint64_t find_frame(const struct stretch *s, uint64_t at) {
    struct frame_head head;
    if (frame_check_head(s->map + at, (size_t)(s->len - at), s->info->head.history.id,
                         lsn_at(s, at), &head) == FRAME_OK &&
        head.body_len < s->len - at) {
        uint64_t behind = at + FRAME_HEADER_LEN + head.body_len;
        if (frame_at(s, behind, &head)) {
            return behind;
        }
    }
    for (at++; at + FRAME_HEADER_LEN <= s->len; at++) {
        if (frame_may_begin(s->map + at, (size_t)(s->len - at)) && frame_at(s, at, &head)) {
            return at;
        }
    }
    return s->len;
}

static uint64_t last_nonzero(const struct stretch *s, uint64_t from) {
    uint64_t to = s->len;
    while (to - from >= 8 && get_u64(s->map + to - 8) == 0) {
        to -= 8;
    }
    while (to > from && s->map[to - 1] == 0) {
        to--;
    }
    return to;
}

static void note_gap(struct repair *r, const struct stretch *s, uint64_t at, uint64_t next) {
    const struct segment_info *info = s->info;
    if (r->before_base) {
        return; /* the second pass says so */
    }
    uint64_t to = next < s->len ? next : last_nonzero(s, at);
    bool torn = next == s->len && info->mark == MARK_OK && lsn_at(s, at) >= info->durable_lsn;
    if (to > at && torn) { /* what a crash leaves */
        r->source->plan->cut_bytes += to - at;
    } else if (to > at ||
               (next == s->len && info->mark == MARK_OK && lsn_at(s, at) < info->durable_lsn)) {
        repair_note(r->report,
                    "%s: no valid frame at offset %" PRIu64 " (LSN %" PRIu64 "), %" PRIu64
                    " bytes passed over",
                    info->name, at, lsn_at(s, at), to - at);
    }
}

static enum dc_err apply_stretch(struct repair *r, const struct stretch *s) {
    enum dc_err err = DC_OK;
    struct frame_head head;
    uint64_t at = SEGMENT_HEADER_LEN;
    while (err == DC_OK && at < s->len && lsn_at(s, at) < s->limit) {
        if (frame_at(s, at, &head)) {
            size_t len = FRAME_HEADER_LEN + (size_t)head.body_len;
            err = apply_frame(r, s->map + at, len, lsn_at(s, at), &head);
            at += len;
            continue;
        }
        uint64_t next = find_frame(s, at);
        note_gap(r, s, at, next);
        at = next;
    }
    return err;
}

/* Where the segment's part of its history ends: the fork, or the next segment. */
static uint64_t limit_of(const struct repair *r, uint32_t index) {
    const struct log_dir *d = &r->dir;
    const struct segment_info *s = &d->segments[index];
    uint64_t limit = s->link != LOG_NO_LINK ? log_dir_link_end(d, s->link) : UINT64_MAX;
    for (uint32_t i = index + 1; i < d->count; i++) {
        const struct segment_info *n = &d->segments[i];
        if (n->head.history.id == s->head.history.id && n->head.first_lsn > s->head.first_lsn) {
            return n->head.first_lsn < limit ? n->head.first_lsn : limit;
        }
    }
    return limit;
}

static enum dc_err apply_segment(struct repair *r, uint32_t index) {
    const struct segment_info *info = &r->dir.segments[index];
    char path[PATH_MAX];
    struct io_file f;
    struct stretch s = {.info = info, .limit = limit_of(r, index)};
    snprintf(path, sizeof(path), "%s/%s", r->source->dir, info->name);
    int rc = io_posix.open(&io_posix, path, IO_READ, &f);
    if (rc < 0) {
        repair_note(r->report, "%s: %s", info->name, dc_errno_text(-rc));
        return DC_OK;
    }
    int64_t len = io_posix.size(&io_posix, &f);
    s.map = len > 0 ? io_posix.map(&io_posix, &f, (uint64_t)len) : NULL;
    s.len = s.map != NULL ? (uint64_t)len : 0;
    io_posix.close(&io_posix, &f);
    if (info->verdict != HEAD_OK && !r->before_base) {
        repair_note(r->report, "%s: the header is damaged; its frames are checked by its name",
                    info->name);
    }
    enum dc_err err = s.len > SEGMENT_HEADER_LEN ? apply_stretch(r, &s) : DC_OK;
    if (s.map != NULL) {
        io_posix.unmap(&io_posix, s.map, s.len);
    }
    return err;
}

/* Log that was there once: between what files cover and a segment that doesn't begin a history. */
static void note_missing(struct repair *r, uint64_t *covered, const struct segment_info *s) {
    bool begins = s->verdict == HEAD_OK && s->head.first_lsn == s->head.history.start;
    uint64_t room = s->file_len > SEGMENT_HEADER_LEN ? s->file_len - SEGMENT_HEADER_LEN : 0;
    if (s->head.first_lsn > *covered && !begins && !r->before_base) {
        repair_note(r->report, "the log between LSN %" PRIu64 " and %s is missing", *covered,
                    s->name);
    }
    if (s->head.first_lsn + room > *covered) {
        *covered = s->head.first_lsn + room;
    }
}

static bool is_usable(struct repair *r, const struct segment_info *s) {
    bool foreign = s->verdict == HEAD_OK &&
                   memcmp(s->head.node_id, r->source->plan->node_id, NODE_ID_LEN) != 0;
    if ((foreign || s->verdict == HEAD_NEWER) && !r->before_base) {
        repair_note(r->report, "%s: %s; passed over", s->name,
                    foreign ? "belongs to another node" : "has a newer format");
    }
    return !foreign && s->verdict != HEAD_NEWER && !s->abandoned && !s->blank;
}

static enum dc_err apply_segments(struct repair *r) {
    enum dc_err err = DC_OK;
    uint64_t covered = r->base < r->snap_count ? r->base_end : LSN_FIRST;
    for (uint32_t i = 0; i < r->dir.count && err == DC_OK; i++) {
        const struct segment_info *s = &r->dir.segments[i];
        if (is_usable(r, s)) {
            note_missing(r, &covered, s);
            err = apply_segment(r, i);
        }
    }
    return err;
}

/* In the order of LSNs: what holes need of the time before the base, the base's own tail, and what follows. */
enum dc_err repair_load_log(struct repair *r) {
    enum dc_err err = DC_OK;
    r->before_base = r->is_early = r->hole_count > 0;
    for (uint32_t i = r->snap_count; r->before_base && i-- > r->base + 1 && err == DC_OK;) {
        err = apply_tail(r, i);
    }
    r->is_early = false;
    if (r->before_base && err == DC_OK) {
        err = apply_segments(r);
    }
    r->before_base = false;
    if (r->base < r->snap_count && err == DC_OK) {
        err = apply_tail(r, r->base);
    }
    return err != DC_OK ? err : apply_segments(r);
}
