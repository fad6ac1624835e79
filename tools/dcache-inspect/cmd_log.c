/* SPDX-License-Identifier: BSD-3-Clause */
/* log: the frames of a directory's log, of one segment, or of a snapshot's tail. */
#include "server/base/codec.h"
#include "server/base/glob.h"
#include "server/base/num.h"
#include "tools/dcache-inspect/inspect.h"

#include <inttypes.h>
#include <unistd.h>

enum { FOLLOW_US = 100 * 1000, TEXT_VALUE_MAX = 200 };

static const char *frame_name(enum frame_kind kind) {
    switch (kind) {
    case FRAME_MUTATION:
        return "mutation";
    case FRAME_FORK:
        return "fork";
    case FRAME_CLOSE:
        return "close";
    }
    return "?";
}

/* --- effects ------------------------------------------------------------------------------------------------------------- */

/* The value or the bytes, as a string. */
static struct bytes data_of(const struct effect_view *e, char digits[NUM_I64_TEXT_MAX]) {
    if (e->kind == MUT_PUT && e->value_kind == VALUE_INT) {
        return bytes_of(digits, num_format_i64(digits, (int64_t)get_u64(e->data.ptr)));
    }
    return e->data;
}

static void effect_json(struct inspect *in, const struct effect_view *e) {
    struct emit *out = &in->out;
    char digits[NUM_I64_TEXT_MAX];
    emit_open(out, NULL);
    emit_str(out, "effect", effect_name(e->kind));
    emit_keyspace(out, e->keyspace);
    emit_lsn(out, "version", e->version);
    if (e->kind != MUT_FLUSH) {
        emit_bytes(out, "key", e->key);
    }
    if (e->kind == MUT_PUT) {
        emit_str(out, "kind", kind_name(e->value_kind));
    }
    if (e->kind == MUT_PUT || e->kind == MUT_WRITE) {
        emit_u64(out, "bytes", data_of(e, digits).len);
    }
    if (e->kind == MUT_WRITE) {
        emit_u64(out, "offset", e->offset);
    }
    if (e->kind == MUT_WRITE || e->kind == MUT_EXPIRE) {
        emit_lsn(out, "prev", e->prev);
    }
    if (e->expiry_ms != EXPIRY_NONE) {
        emit_time(out, "expires", e->expiry_ms);
    }
    if (in->values && (e->kind == MUT_PUT || e->kind == MUT_WRITE)) {
        emit_bytes(out, "value", data_of(e, digits));
    }
    emit_close(out);
}

static void effect_text(struct inspect *in, const struct effect_view *e) {
    FILE *to = in->out.to;
    char digits[NUM_I64_TEXT_MAX];
    char time[EMIT_TIME_LEN], keyspace[EMIT_KEYSPACE_LEN];
    fprintf(to, "    %-6s %s ", effect_name(e->kind), text_keyspace(keyspace, e->keyspace));
    if (e->kind != MUT_FLUSH) {
        text_quote(to, e->key, 0);
    }
    if (e->kind == MUT_PUT) {
        fprintf(to, "  %s %zu", kind_name(e->value_kind), data_of(e, digits).len);
    }
    if (e->kind == MUT_WRITE) {
        fprintf(to, "  %zu at %" PRIu64, e->data.len, e->offset);
    }
    if (e->kind == MUT_WRITE || e->kind == MUT_EXPIRE) {
        fprintf(to, "  over %" PRIu64, e->prev);
    }
    if (e->expiry_ms != EXPIRY_NONE) {
        fprintf(to, "  expires %s", text_time(time, e->expiry_ms));
    } else if (e->kind == MUT_EXPIRE) {
        fputs("  expires never", to);
    }
    fprintf(to, "  version %" PRIu64, e->version);
    if (in->values && (e->kind == MUT_PUT || e->kind == MUT_WRITE)) {
        fputs("  ", to);
        text_quote(to, data_of(e, digits), TEXT_VALUE_MAX);
    }
    putc('\n', to);
}

static bool effect_is_wanted(const struct inspect *in, const struct effect_view *e) {
    return (!in->has_keyspace || in->keyspace == e->keyspace) &&
           (in->match.ptr == NULL || e->kind == MUT_FLUSH || glob_match(in->match, e->key, false));
}

/* --- frames -------------------------------------------------------------------------------------------------------------- */

/* Shows the effects that are wanted ('show'), or says how many are. */
static uint32_t effects(struct inspect *in, const struct frame_ref *f, bool show) {
    struct effect_view e;
    uint32_t count = 0;
    size_t at = FRAME_HEADER_LEN;
    for (uint32_t i = 0; i < f->head.effect_count; i++) {
        if (!effect_decode(f->bytes, f->len, at, f->lsn, &e)) {
            break;
        }
        at += e.len;
        if (!effect_is_wanted(in, &e)) {
            continue;
        }
        count++;
        if (show && in->out.json) {
            effect_json(in, &e);
        } else if (show) {
            effect_text(in, &e);
        }
    }
    return count;
}

static void show_fork(struct emit *out, const struct frame_ref *f) {
    static struct history chain[SNAP_HISTORIES_MAX];
    uint32_t count = fork_decode(bytes_of(f->bytes + FRAME_HEADER_LEN, f->len - FRAME_HEADER_LEN),
                                 chain, SNAP_HISTORIES_MAX);
    if (count == 0) {
        return;
    }
    const struct history *last = &chain[count - 1];
    if (out->json) {
        emit_id(out, "history", last->id);
        emit_lsn(out, "start", last->start);
        emit_lsn(out, "epoch", last->epoch);
        emit_lsn(out, "parent_end", last->parent_end);
        return;
    }
    fprintf(out->to, "    history %016" PRIx64 ", the %" PRIu32 ". of its chain, epoch %" PRIu64,
            last->id, count, last->epoch);
    if (last->parent_end > 0) {
        fprintf(out->to, ", goes on behind LSN %" PRIu64, last->parent_end);
    }
    putc('\n', out->to);
}

static void show_frame(struct inspect *in, const char *file, const struct frame_ref *f) {
    struct emit *out = &in->out;
    char time[EMIT_TIME_LEN];
    if (out->json) {
        emit_begin(out, NULL);
        emit_lsn(out, "lsn", f->lsn);
        emit_lsn(out, "end", f->lsn + f->len);
        emit_time(out, "time", f->head.time_ms);
        emit_str(out, "frame", frame_name(f->head.kind));
        emit_str(out, "file", file);
        emit_u64(out, "offset", f->file_offset);
        if (f->head.kind == FRAME_FORK) {
            show_fork(out, f);
        }
        emit_open_list(out, "effects");
        effects(in, f, true);
        emit_close_list(out);
        emit_end(out);
        return;
    }
    fprintf(out->to, "%" PRIu64 "  %s  %s, %zu bytes", f->lsn, text_time(time, f->head.time_ms),
            frame_name(f->head.kind), f->len);
    if (f->head.effect_count > 1) {
        fprintf(out->to, ", %" PRIu32 " effects", f->head.effect_count);
    }
    fprintf(out->to, "  (%s, offset %" PRIu64 ")\n", file, f->file_offset);
    if (f->head.kind == FRAME_FORK) {
        show_fork(out, f);
    }
    effects(in, f, true);
}

/* How far the listing has come. */
struct position {
    uint64_t next_lsn; /* frames below were shown */
    uint64_t count;
};

/* False: enough. */
static bool take_frame(struct inspect *in, const char *file, const struct frame_ref *f,
                       struct position *p) {
    bool filters = in->has_keyspace || in->match.ptr != NULL;
    p->next_lsn = f->lsn + f->len;
    if (in->to_lsn > 0 && f->lsn >= in->to_lsn) {
        return false;
    }
    if (f->lsn < in->from_lsn || (filters && effects(in, f, false) == 0)) {
        return true;
    }
    show_frame(in, file, f);
    p->count++;
    return ferror(in->out.to) == 0 && (in->limit == 0 || p->count < in->limit);
}

/* --- sources ------------------------------------------------------------------------------------------------------------- */

static enum status log_of_snapshot(struct inspect *in) {
    struct snap *s = NULL;
    struct snap_tail *tail = NULL;
    struct frame_ref f;
    struct position p = {0};
    enum log_end end = LOG_MORE;
    enum dc_err err = snap_open(&io_posix, in->args[0], &s);
    err = err == DC_OK ? snap_tail_open(s, &tail) : err;
    while (err == DC_OK && (end = snap_tail_next(tail, &f)) == LOG_MORE &&
           take_frame(in, in->args[0], &f, &p)) {}
    snap_tail_close(tail);
    snap_close(s);
    if (err != DC_OK) {
        return complain(err);
    }
    if (end == LOG_DAMAGED || end == LOG_FAILED) {
        (void)complain(end == LOG_DAMAGED ? DC_ECORRUPT : DC_EIO);
        return end == LOG_DAMAGED ? STATUS_FOUND : STATUS_TROUBLE;
    }
    return STATUS_FINE;
}

/* The first frame at or behind 'from': where a segment begins, from which on it can be looked for. */
static uint64_t start_of(const struct log_dir *d, uint64_t from) {
    uint64_t start = 0;
    for (uint32_t i = 0; i < d->count; i++) {
        const struct segment_info *s = &d->segments[i];
        if (!s->abandoned && s->verdict == HEAD_OK && s->head.first_lsn <= from &&
            s->head.first_lsn > start) {
            start = s->head.first_lsn;
        }
    }
    return start;
}

/* One pass from p->next_lsn to the end. False in 'more': enough was shown. */
static enum log_end pass(struct inspect *in, const struct log_dir *d, struct position *p,
                         struct log_end_info *info, bool *more) {
    struct log_reader *r = NULL;
    struct frame_ref f;
    enum log_end end = LOG_FAILED;
    *more = true;
    if (log_reader_open(&r, d, p->next_lsn) != DC_OK) {
        return LOG_FAILED;
    }
    while (*more && (end = log_reader_next(r, &f)) == LOG_MORE) {
        *more = take_frame(in, d->segments[f.segment].name, &f, p);
    }
    log_reader_end(r, info);
    log_reader_close(r);
    return end;
}

static enum dc_err open_log(struct inspect *in, enum path_kind kind, struct log_dir *d) {
    return kind == PATH_DIR ? log_dir_open(d, &io_posix, in->args[0])
                            : log_dir_open_file(d, &io_posix, in->args[0]);
}

static enum status log_of_segments(struct inspect *in, enum path_kind kind) {
    struct log_dir d;
    struct position p = {0};
    struct log_end_info info = {.text = ""};
    bool more = true;
    enum log_end end = LOG_END;
    for (bool first = true;;
         first = false) { /* the directory is looked at again: segments come and go */
        enum dc_err err = open_log(in, kind, &d);
        if (err != DC_OK) {
            return complain(err);
        }
        p.next_lsn = first ? start_of(&d, in->from_lsn) : p.next_lsn;
        end = pass(in, &d, &p, &info, &more);
        log_dir_close(&d);
        fflush(in->out.to);
        if (!more || !in->follow || end == LOG_DAMAGED || end == LOG_FAILED) {
            break;
        }
        usleep(FOLLOW_US);
    }
    if (end == LOG_FAILED) {
        return complain(DC_EIO);
    }
    if (end == LOG_DAMAGED || (end == LOG_TORN && !in->quiet)) {
        fprintf(stderr, "dcache-inspect: %s: %s\n", end == LOG_TORN ? "torn" : "damaged",
                info.text);
    }
    return end == LOG_DAMAGED ? STATUS_FOUND : STATUS_FINE;
}

enum status cmd_log(struct inspect *in) {
    enum path_kind kind;
    enum dc_err err = path_look(in->args[0], &kind);
    if (err != DC_OK) {
        return complain(err);
    }
    return kind == PATH_SNAPSHOT ? log_of_snapshot(in) : log_of_segments(in, kind);
}
