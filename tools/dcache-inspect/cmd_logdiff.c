/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * logdiff: whether two nodes have the same log. A replica's log has the bytes of its primary's at the same positions; files may begin and
 * end elsewhere, one log may reach back further, one may be behind.
 *
 * Both logs are read frame by frame, in order. A frame that both have at one LSN is compared byte for byte. Before the first such frame one
 * log has forgotten what the other still has; behind the last one of them has more, or each went its own way from a fork on.
 */
#include "tools/dcache-inspect/inspect.h"

#include <string.h>

struct log_side {
    const char *path;
    struct log_dir dir;
    struct log_reader *reader;
    struct frame_ref f;
    enum log_end end;
    uint64_t first_lsn, end_lsn; /* of its log; 0 = it has none */
    uint64_t alone;              /* bytes that the other one hasn't */
};

struct logdiff {
    struct inspect *in;
    struct log_side sides[2];
    uint64_t common, common_first, common_end; /* bytes; from where to where */
    uint64_t differ_lsn;                       /* 0 = nowhere */
    const char *how;
};

static void step(struct log_side *s) {
    s->end = log_reader_next(s->reader, &s->f);
    if (s->end == LOG_MORE) {
        s->first_lsn = s->first_lsn == 0 ? s->f.lsn : s->first_lsn;
        s->end_lsn = s->f.lsn + s->f.len;
    }
}

static void step_alone(struct log_side *s) {
    s->alone += s->f.len;
    step(s);
}

static enum dc_err open_side(struct log_side *s) {
    enum path_kind kind;
    enum dc_err err = path_look(s->path, &kind);
    if (err == DC_OK && kind == PATH_SNAPSHOT) {
        return dc_fail(DC_EGENERIC, "%s: a snapshot; logs are compared", s->path);
    }
    if (err == DC_OK) {
        err = kind == PATH_DIR ? log_dir_open(&s->dir, &io_posix, s->path)
                               : log_dir_open_file(&s->dir, &io_posix, s->path);
    }
    err = err == DC_OK ? log_reader_open(&s->reader, &s->dir, 0) : err;
    if (err == DC_OK) {
        step(s);
    }
    return err;
}

static void close_side(struct log_side *s) {
    log_reader_close(s->reader);
    log_dir_close(&s->dir);
}

static void differ(struct logdiff *d, uint64_t lsn, const char *how) {
    d->differ_lsn = lsn;
    d->how = how;
}

static void part(struct logdiff *d, uint64_t lsn) {
    differ(d, d->common > 0 ? d->common_end : lsn, "from here on each has a history of its own");
}

/* Two frames at one LSN. */
static void compare_frames(struct logdiff *d, struct log_side *a, struct log_side *b) {
    if (a->f.history != b->f.history) {
        part(d, a->f.lsn);
    } else if (a->f.len != b->f.len || memcmp(a->f.bytes, b->f.bytes, a->f.len) != 0) {
        differ(d, a->f.lsn, "other bytes");
    } else {
        d->common_first = d->common == 0 ? a->f.lsn : d->common_first;
        d->common_end = a->f.lsn + a->f.len;
        d->common += a->f.len;
        step(a);
        step(b);
    }
}

/* Both have more, and not at the same place: one still has what the other has forgotten, or they have parted. */
static void catch_up(struct logdiff *d, struct log_side *behind, const struct log_side *ahead) {
    if (behind->f.lsn + behind->f.len > ahead->f.lsn) {
        differ(d, behind->f.lsn, "frames of other lengths");
    } else if (d->common > 0) {
        part(d, d->common_end);
    } else {
        step_alone(behind);
    }
}

static void compare_all(struct logdiff *d) {
    struct log_side *a = &d->sides[0];
    struct log_side *b = &d->sides[1];
    while (a->end == LOG_MORE && b->end == LOG_MORE && d->differ_lsn == 0) {
        if (a->f.lsn == b->f.lsn) {
            compare_frames(d, a, b);
        } else if (a->f.lsn < b->f.lsn) {
            catch_up(d, a, b);
        } else {
            catch_up(d, b, a);
        }
    }
    while (a->end == LOG_MORE) {
        step_alone(a);
    }
    while (b->end == LOG_MORE) {
        step_alone(b);
    }
}

static void show(struct logdiff *d) {
    struct emit *out = &d->in->out;
    emit_begin(out, NULL);
    if (d->common > 0) {
        emit_lsn(out, "same_from", d->common_first);
        emit_lsn(out, "same_to", d->common_end);
    }
    emit_size(out, "same", d->common);
    if (d->differ_lsn > 0) {
        emit_lsn(out, "differ_at", d->differ_lsn);
        emit_str(out, "how", d->how);
    }
    emit_open_list(out, "logs");
    for (int i = 0; i < 2; i++) {
        const struct log_side *s = &d->sides[i];
        emit_open(out, NULL);
        emit_str(out, "path", s->path);
        emit_lsn(out, "from", s->first_lsn);
        emit_lsn(out, "to", s->end_lsn);
        emit_size(out, "only_here", s->alone);
        emit_close(out);
    }
    emit_close_list(out);
    emit_end(out);
}

/* Says what stopped the reading, if that isn't the end of the log. */
static enum status side_status(const struct log_side *s) {
    struct log_end_info info;
    if (s->end == LOG_FAILED) {
        return complain(DC_EIO);
    }
    if (s->end != LOG_DAMAGED) {
        return STATUS_FINE;
    }
    log_reader_end(s->reader, &info);
    complain_text(NULL, info.text);
    return STATUS_FOUND;
}

enum status cmd_logdiff(struct inspect *in) {
    struct logdiff d = {.in = in, .sides = {{.path = in->args[0]}, {.path = in->args[1]}}};
    enum status status;
    enum dc_err err = open_side(&d.sides[0]);
    err = err == DC_OK ? open_side(&d.sides[1]) : err;
    if (err != DC_OK) {
        status = complain(err);
    } else {
        compare_all(&d);
        show(&d);
        status = d.differ_lsn > 0 ? STATUS_FOUND : STATUS_FINE;
        for (int i = 0; i < 2; i++) {
            enum status side = side_status(&d.sides[i]);
            status = side > status ? side : status;
        }
    }
    close_side(&d.sides[0]);
    close_side(&d.sides[1]);
    return status;
}
