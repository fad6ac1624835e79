/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * verify: reads everything and checks every sum, every key's place, every frame, and that the log fits the snapshot.
 *
 * Goes on behind what is damaged: the next block, the next segment.
 */
#include "persist/meta.h"
#include "server/base/mem.h"
#include "server/base/time.h"
#include "tools/dcache-inspect/inspect.h"

#include <inttypes.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PROGRESS_TTY_US = 200 * 1000, PROGRESS_US = 5 * 1000 * 1000 };

struct verify {
    struct inspect *in;
    uint64_t all_bytes, bytes, files, keys, frames, damages;
    uint64_t replayed_bytes;
    int64_t began_us, told_us;
    bool tty;
    const char *dir;     /* of what is being looked at */
    uint64_t oldest_end; /* of the whole snapshots of the directory; log below it is of no use */
    uint8_t node_id[NODE_ID_LEN];
    bool node_known;
};

/* --- telling ------------------------------------------------------------------------------------------------------------- */

/* Whether it is time to tell again how far it is. */
static bool is_time(struct verify *w) {
    int64_t now_us = time_mono_us();
    bool is = !w->in->quiet && now_us - w->told_us >= (w->tty ? PROGRESS_TTY_US : PROGRESS_US);
    w->told_us = is ? now_us : w->told_us;
    return is;
}

static void progress(struct verify *w, uint64_t bytes) {
    w->bytes += bytes;
    if (!is_time(w)) {
        return;
    }
    double seconds = (double)(w->told_us - w->began_us) / 1e6;
    fprintf(stderr, "%s%5.1f %%  %.1f of %.1f MB, %.0f MB/s, %" PRIu64 " damaged%s",
            w->tty ? "\r" : "",
            w->all_bytes > 0 ? 100.0 * (double)w->bytes / (double)w->all_bytes : 100.0,
            (double)w->bytes / 1e6, (double)w->all_bytes / 1e6,
            seconds > 0 ? (double)w->bytes / 1e6 / seconds : 0.0, w->damages, w->tty ? "" : "\n");
}

static void tell(struct verify *w, const char *what, const char *file, const char *text) {
    struct emit *out = &w->in->out;
    if (w->tty && !w->in->quiet) {
        fputs("\r\033[K", stderr);
    }
    if (out->json) {
        emit_begin(out, NULL);
        emit_str(out, "what", what);
        emit_str(out, "file", file);
        emit_str(out, "text", text);
        emit_end(out);
    } else {
        fprintf(out->to, "%s: %s: %s\n", what, file, text);
    }
    fflush(out->to);
}

static void damage(struct verify *w, const char *file, const char *text) {
    w->damages++;
    tell(w, "damaged", file, text);
}

static void damage_of(struct verify *w, const char *file, enum dc_err err) {
    damage(w, file, dc_fail_take(err));
}

/* One node wrote all of it. */
static void check_node(struct verify *w, const char *file, const uint8_t node_id[NODE_ID_LEN]) {
    if (!w->node_known) {
        memcpy(w->node_id, node_id, NODE_ID_LEN);
        w->node_known = true;
    } else if (memcmp(w->node_id, node_id, NODE_ID_LEN) != 0) {
        damage(w, file, "it was written by another node than the other files");
    }
}

/* --- a snapshot ---------------------------------------------------------------------------------------------------------- */

/* Where the keys of a block may lie: from its first position to that of the next block of its kind. */
struct bounds {
    uint64_t first, last;
};

static struct bounds bounds_of(const struct snap *s, uint32_t index) {
    const struct snap_block_info *b = snap_block_info(s, index);
    struct bounds out = {b->first_pos, UINT64_MAX};
    if (index + 1 < snap_facts(s)->block_count) {
        const struct snap_block_info *next = snap_block_info(s, index + 1);
        if (next->range == b->range && next->keyspace == b->keyspace && next->kind == b->kind) {
            out.last = next->first_pos;
        }
    }
    return out;
}

/* NULL, or what is wrong with the entry. */
static const char *check_entry(const struct snap *s, const struct snap_block_info *info,
                               const struct bounds *bounds, const struct snap_entry *e) {
    const struct snap_facts *f = snap_facts(s);
    uint64_t pos = key_pos(e->key, f->seed);
    if (snap_range_of(f->range_bits, info->keyspace, pos) != info->range) {
        return "a key stands in a range that isn't its own";
    }
    if (pos < bounds->first || pos > bounds->last) {
        return "a key stands in a block that isn't its own";
    }
    return e->version == 0 || e->version > f->end_lsn ? "an entry is newer than the snapshot"
                                                      : NULL;
}

static void check_block(struct verify *w, const char *path, const struct snap *s,
                        struct snap_block *b, uint32_t index) {
    const struct snap_block_info *info = snap_block_info(s, index);
    struct bounds bounds = bounds_of(s, index);
    struct snap_entry e;
    const char *wrong = NULL;
    enum dc_err err = snap_block_read(b, s, index);
    if (err != DC_OK) {
        damage_of(w, path, err);
        return;
    }
    while (info->kind == SNAP_ENTRIES && wrong == NULL && snap_block_next(b, &e)) {
        struct blob *blob = NULL;
        w->keys++;
        wrong = check_entry(s, info, &bounds, &e);
        if (wrong == NULL && e.value.kind == VALUE_BLOB) {
            err = snap_read_blob(b, s, index, &e, &blob);
            if (err != DC_OK) {
                damage_of(w, path, err);
            } else {
                blob_release(blob);
            }
        }
    }
    if (wrong != NULL) {
        char text[256];
        snprintf(text, sizeof(text),
                 "block %" PRIu32 " at byte %" PRIu64 " (keyspace %u, range %" PRIu32 "): %s",
                 index, info->offset, info->keyspace, info->range, wrong);
        damage(w, path, text);
    }
}

static void check_tail(struct verify *w, const char *path, const struct snap *s) {
    struct snap_tail *tail = NULL;
    struct frame_ref f;
    enum log_end end = LOG_MORE;
    enum dc_err err = snap_tail_open(s, &tail);
    while (err == DC_OK && (end = snap_tail_next(tail, &f)) == LOG_MORE) {
        w->frames++;
        progress(w, f.len);
    }
    snap_tail_close(tail);
    if (err == DC_OK && (end == LOG_DAMAGED || end == LOG_FAILED)) {
        err = end == LOG_DAMAGED ? DC_ECORRUPT : DC_EIO;
    }
    if (err != DC_OK) {
        damage_of(w, path, err);
    }
}

static void check_snapshot(struct verify *w, const char *path) {
    struct snap *s = NULL;
    struct snap_block *b = snap_block_create();
    enum dc_err err = b == NULL ? DC_ENOMEM : snap_open(&io_posix, path, &s);
    w->files++;
    if (err != DC_OK) {
        damage_of(w, path, err);
        snap_block_destroy(b);
        return;
    }
    const struct snap_facts *f = snap_facts(s);
    check_node(w, path, f->node_id);
    w->oldest_end = f->end_lsn < w->oldest_end ? f->end_lsn : w->oldest_end;
    for (uint32_t i = 0; i < f->block_count; i++) {
        check_block(w, path, s, b, i);
        progress(w, SNAP_BLOCK_HEAD_LEN + snap_block_info(s, i)->stored_len);
    }
    check_tail(w, path, s);
    progress(w, (uint64_t)f->block_count * SNAP_INDEX_ENTRY_LEN);
    snap_block_destroy(b);
    snap_close(s);
}

/* --- the log ------------------------------------------------------------------------------------------------------------- */

static void check_heads(struct verify *w, const struct log_dir *d) {
    for (uint32_t i = 0; i < d->count; i++) {
        const struct segment_info *s = &d->segments[i];
        w->files++;
        if (s->verdict == HEAD_OK) {
            check_node(w, s->name, s->head.node_id);
        } else if (s->blank) {
            tell(w, "note", s->name, "it was begun and holds nothing yet");
        } else {
            damage(w, s->name, "its header is damaged");
        }
    }
}

/* Where the log can be taken up again behind a bad place; 0 = nowhere. */
static uint64_t next_start(const struct log_dir *d, uint64_t lsn) {
    uint64_t best = 0;
    for (uint32_t i = 0; i < d->count; i++) {
        const struct segment_info *s = &d->segments[i];
        if (s->verdict == HEAD_OK && !s->abandoned && s->head.first_lsn > lsn &&
            (best == 0 || s->head.first_lsn < best)) {
            best = s->head.first_lsn;
        }
    }
    return best;
}

static void tell_end(struct verify *w, const struct log_dir *d, enum log_end end,
                     const struct log_end_info *info) {
    const char *file = info->segment != LOG_NO_SEGMENT ? d->segments[info->segment].name : d->path;
    switch (end) {
    case LOG_MORE:
    case LOG_END:
        break;
    case LOG_TORN: /* the next start cuts it; beside a live node it is being written */
        tell(w, "note", file, info->text);
        break;
    case LOG_DAMAGED:
        if (info->at_lsn < w->oldest_end && w->oldest_end != UINT64_MAX) {
            tell(w, "note", file, info->text); /* no snapshot needs it */
        } else {
            damage(w, file, info->text);
        }
        break;
    case LOG_FAILED:
        damage_of(w, file, DC_EIO);
        break;
    }
}

static void check_frames(struct verify *w, const struct log_dir *d) {
    struct log_end_info info;
    struct frame_ref f;
    enum log_end end;
    uint64_t from = 0;
    do {
        struct log_reader *r = NULL;
        if (log_reader_open(&r, d, from) != DC_OK) {
            damage_of(w, d->path, DC_EIO);
            return;
        }
        while ((end = log_reader_next(r, &f)) == LOG_MORE) {
            w->frames++;
            progress(w, f.len);
        }
        log_reader_end(r, &info);
        log_reader_close(r);
        tell_end(w, d, end, &info);
        from = end == LOG_DAMAGED ? next_start(d, info.at_lsn) : 0;
    } while (from != 0);
}

static void check_log(struct verify *w, const char *path, bool is_dir) {
    struct log_dir d;
    enum dc_err err =
        is_dir ? log_dir_open(&d, &io_posix, path) : log_dir_open_file(&d, &io_posix, path);
    if (err != DC_OK) {
        damage_of(w, path, err);
        return;
    }
    check_heads(w, &d);
    check_frames(w, &d);
    log_dir_close(&d);
}

/* --- all together -------------------------------------------------------------------------------------------------------- */

static void trouble(void *arg, const char *text) {
    struct verify *w = arg;
    damage(w, w->dir, text);
}

static bool count_key(void *arg, struct view *v, const struct item *item) {
    (void)arg, (void)v, (void)item;
    return true;
}

/* Progress of the replay. The line before may have been longer. */
static void replay_line(const struct verify *w, const char *text) {
    fprintf(stderr, "%sreplay: %s, %" PRIu64 " damaged%s", w->tty ? "\r" : "", text, w->damages,
            w->tty ? "\033[K" : "\n");
}

static void replay_log(void *arg, uint64_t bytes) {
    struct verify *w = arg;
    char text[64];
    w->replayed_bytes += bytes;
    if (is_time(w)) {
        snprintf(text, sizeof(text), "%.1f MB of the log noted", (double)w->replayed_bytes / 1e6);
        replay_line(w, text);
    }
}

static void replay_range(struct verify *w, uint32_t range, uint32_t count) {
    char text[64];
    if (is_time(w)) {
        snprintf(text, sizeof(text), "%.1f %% of the keys", 100.0 * (range + 1) / count);
        replay_line(w, text);
    }
}

/* Whether each effect finds what it was made for. Only when all else is whole: it would tell the same again. */
static void check_replay(struct verify *w, const char *path) {
    struct view v;
    struct view_opts opts = {
        .trouble = trouble, .progress = replay_log, .arg = w, .memory = w->in->memory};
    struct item_filter filter = {.has_keyspace = false};
    enum dc_err err = view_open(&v, path, &opts);
    if (err != DC_OK) {
        damage_of(w, path, err);
    }
    for (uint32_t range = 0; err == DC_OK && range <= v.range_count; range++) {
        view_range(&v, range, &filter, count_key, NULL);
        replay_range(w, range, v.range_count + 1);
    }
    view_close(&v);
}

/* A crash in the middle of a removal leaves it behind, too. */
static void look_for_file(void *arg, const struct meta_file *f) {
    struct verify *w = arg;
    char path[VIEW_PATH_MAX + SEGMENT_NAME_MAX];
    snprintf(path, sizeof(path), "%s/%s", w->dir, f->name);
    if (access(path, F_OK) != 0) {
        tell(w, "note", path, "the catalogue has it, and it isn't there");
    }
}

static void check_catalogue(struct verify *w, const char *path) {
    char meta[VIEW_PATH_MAX + 8];
    struct meta *m = NULL;
    snprintf(meta, sizeof(meta), "%s/meta", path);
    if (access(meta, F_OK) != 0) {
        tell(w, "note", meta, "there is no catalogue; the next start makes one");
        return;
    }
    enum dc_err err = meta_open_read_only(path, &m);
    w->files++;
    err = err == DC_OK ? meta_each_file(m, look_for_file, w) : err;
    if (err != DC_OK) {
        damage_of(w, meta, err);
    }
    meta_close(m);
}

static void each_snapshot(void *arg, const char *name) {
    struct verify *w = arg;
    char path[VIEW_PATH_MAX];
    uint64_t end_lsn;
    uint64_t history;
    if (snap_name_parse(name, &end_lsn, &history) &&
        snprintf(path, sizeof(path), "%s/%s", w->dir, name) < (int)sizeof(path)) {
        check_snapshot(w, path);
    }
}

static void add_size(void *arg, const char *name) {
    struct verify *w = arg;
    char path[VIEW_PATH_MAX];
    struct stat st;
    uint64_t lsn;
    uint64_t history;
    if ((snap_name_parse(name, &lsn, &history) || segment_name_parse(name, &lsn, &history)) &&
        snprintf(path, sizeof(path), "%s/%s", w->dir, name) < (int)sizeof(path) &&
        stat(path, &st) == 0) {
        w->all_bytes += (uint64_t)st.st_size;
    }
}

static void check_path(struct verify *w, const char *path, enum path_kind kind) {
    struct stat st;
    switch (kind) {
    case PATH_SNAPSHOT:
        w->all_bytes = stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
        check_snapshot(w, path);
        break;
    case PATH_SEGMENT:
        w->all_bytes = stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
        w->oldest_end = UINT64_MAX;
        check_log(w, path, false);
        return; /* alone it says nothing of the entries that it changes */
    case PATH_DIR:
        if (io_posix.list(&io_posix, path, add_size, w) != 0 ||
            io_posix.list(&io_posix, path, each_snapshot, w) != 0) {
            damage(w, path, "the directory can't be read");
            return;
        }
        check_log(w, path, true);
        check_catalogue(w, path);
        break;
    }
    if (w->damages == 0) {
        check_replay(w, path);
    }
}

enum status cmd_verify(struct inspect *in) {
    struct emit *out = &in->out;
    struct verify w = {.in = in,
                       .began_us = time_mono_us(),
                       .tty = isatty(STDERR_FILENO) == 1,
                       .dir = in->args[0],
                       .oldest_end = UINT64_MAX};
    enum path_kind kind;
    enum dc_err err = path_look(in->args[0], &kind);
    if (err == DC_ECORRUPT) {
        damage_of(&w, in->args[0], err);
        return STATUS_FOUND;
    }
    if (err != DC_OK) {
        return complain(err);
    }
    w.told_us = w.began_us;
    check_path(&w, in->args[0], kind);
    if (w.tty && !in->quiet) {
        fputs("\r\033[K", stderr);
    }
    emit_begin(out, NULL);
    if (out->json) {
        emit_str(out, "what", "sums");
    }
    emit_str(out, "path", in->args[0]);
    emit_u64(out, "files", w.files);
    emit_u64(out, "keys", w.keys);
    emit_u64(out, "frames", w.frames);
    emit_size(out, "checked", w.bytes);
    emit_u64(out, "damaged", w.damages);
    emit_end(out);
    return w.damages > 0 ? STATUS_FOUND : STATUS_FINE;
}
