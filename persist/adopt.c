/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The note is the text "adopt" of the metadata:
 *
 *   ""                          nothing
 *   "rewind <lsn> <history>"
 *   "copy"                      incoming/ is complete
 *   "copy-out <n>"              log and snapshots of the directory are on their way to replaced-<n>/
 *   "copy-in <n>"               they are there; those of incoming/ are on their way into the directory
 *   "copy-open <n>"             they are there, and the metadata are theirs
 *   "need <why>"                a copy is needed
 *
 *            dir      incoming   replaced-<n>
 *   copy     old      new
 *   out      o..      new        ..d            snapshots first, newest first; then the log, oldest first
 *   in       n..      ..w        old
 *   open     new                 old
 *   ""       new
 *
 * A step is durable before the next one is noted, and each may be done again. Before the first move the copy is scanned where it lies, as the
 * start will scan it later: a copy that can't be opened moves nothing. The order of 'out' is for a directory that loses its metadata
 * as well, so that nobody knows of the note: what is left is whole, or has a log without a beginning, which refuses the start.
 */
#include "persist/adopt.h"

#include "persist/snap_fmt.h"
#include "persist/standing.h"
#include "persist/warm_priv.h"
#include "server/base/assert.h"
#include "server/base/diag.h"
#include "server/base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char note_name[] = "adopt";
static const char replaced_prefix[] = "replaced-";

/* The text "followed" (data.c): what the log ends with is another node's history, which may go on elsewhere. Whoever doesn't follow it forks. */
static const char not_ours[] = "0";

enum { NOTE_LEN = 512, NAME_MAX_LEN = SEGMENT_NAME_MAX };

/* --- the note ---------------------------------------------------------------------------------------- */

static const char *const step_words[] = {"copy", "copy-out", "copy-in", "copy-open"};

static bool parse_copy(const char *text, struct adopt_note *n) {
    char word[16];
    int fields = sscanf(text, "%15s %" SCNu32, word, &n->number);
    for (int i = ADOPT_NOTED; i <= ADOPT_OPEN && fields > 0; i++) {
        if (strcmp(word, step_words[i]) == 0) {
            n->what = ADOPT_COPY;
            n->step = (enum adopt_step)i;
            return i == ADOPT_NOTED || fields == 2;
        }
    }
    return false;
}

enum dc_err adopt_get(struct meta *m, struct adopt_note *out) {
    char text[META_TEXT_MAX];
    memset(out, 0, sizeof(*out));
    enum dc_err err = meta_get_text(m, note_name, text, sizeof(text));
    if (err != DC_OK || text[0] == '\0') {
        return err;
    }
    if (strncmp(text, "need ", 5) == 0) {
        out->what = ADOPT_NEEDS_COPY;
        snprintf(out->why, sizeof(out->why), "%.255s", text + 5);
        return DC_OK;
    }
    if (sscanf(text, "rewind %" SCNu64 " %" SCNu64, &out->lsn, &out->history) == 2) {
        out->what = ADOPT_REWIND;
        return DC_OK;
    }
    return parse_copy(text, out)
               ? DC_OK
               : dc_fail(DC_ECORRUPT, "the metadata say of '%s': \"%.200s\"", note_name, text);
}

enum dc_err adopt_note_rewind(struct meta *m, uint64_t lsn, uint64_t history) {
    char text[NOTE_LEN];
    snprintf(text, sizeof(text), "rewind %" PRIu64 " %" PRIu64, lsn, history);
    return meta_put_text(m, note_name, text);
}

enum dc_err adopt_note_copy(struct meta *m) {
    return meta_put_text(m, note_name, step_words[ADOPT_NOTED]);
}

enum dc_err adopt_note_need(struct meta *m, const char *why) {
    char text[NOTE_LEN];
    snprintf(text, sizeof(text), "need %.255s", why);
    return meta_put_text(m, note_name, text);
}

enum dc_err adopt_forget(struct meta *m) {
    return meta_put_text(m, note_name, "");
}

static enum dc_err put_step(struct meta *m, struct adopt_note *n, enum adopt_step step) {
    char text[NOTE_LEN];
    n->step = step;
    snprintf(text, sizeof(text), "%s %" PRIu32, step_words[step], n->number);
    return meta_put_text(m, note_name, text);
}

/* --- names ------------------------------------------------------------------------------------------- */

struct names {
    char (*list)[NAME_MAX_LEN];
    uint32_t count, cap;
};

static void add_name(struct names *n, const char *name) {
    if (n->count == n->cap) {
        n->cap = n->cap == 0 ? 16 : 2 * n->cap;
        n->list = mem_must_realloc(n->list, n->cap * sizeof(*n->list));
    }
    snprintf(n->list[n->count++], NAME_MAX_LEN, "%s", name);
}

static bool is_snapshot(const char *name) {
    uint64_t lsn, history;
    return snap_name_parse(name, &lsn, &history);
}

/* What makes a data set: segments and snapshots. */
static void note_data(void *arg, const char *name) {
    uint64_t lsn, history;
    if (is_snapshot(name) || segment_name_parse(name, &lsn, &history)) {
        add_name(arg, name);
    }
}

static void note_any(void *arg, const char *name) {
    if (strlen(name) < NAME_MAX_LEN) {
        add_name(arg, name);
    }
}

static void note_replaced(void *arg, const char *name) {
    uint32_t *highest = arg;
    uint32_t number;
    if (strncmp(name, replaced_prefix, sizeof(replaced_prefix) - 1) == 0 &&
        sscanf(name + sizeof(replaced_prefix) - 1, "%" SCNu32, &number) == 1 && number > *highest) {
        *highest = number;
    }
}

/* Snapshots, newest first; then segments, oldest first: the numbers in names have a fixed width. */
static int compare_order(const void *a, const void *b) {
    const char *x = a, *y = b;
    bool first = is_snapshot(x), second = is_snapshot(y);
    if (first != second) {
        return first ? -1 : 1;
    }
    return first ? strcmp(y, x) : strcmp(x, y);
}

static enum dc_err io_failed(const char *what, const char *path, int err) {
    return dc_fail(DC_EIO, "%s %s: %s", what, path, dc_errno_text(-err));
}

/* A directory that isn't there has no entries. */
static enum dc_err list(const struct io *io, const char *dir, io_name_fn each, void *arg) {
    int err = io->list(io, dir, each, arg);
    return err < 0 && err != -ENOENT ? io_failed("list", dir, err) : DC_OK;
}

static enum dc_err sync_dir(const struct io *io, const char *dir) {
    int err = io->sync_dir(io, dir);
    return err < 0 ? io_failed("sync", dir, err) : DC_OK;
}

static enum dc_err make_dir(const struct io *io, const char *dir, const char *path) {
    int err = io->mkdir(io, path);
    return err < 0 ? io_failed("mkdir", path, err) : sync_dir(io, dir);
}

enum dc_err adopt_make_incoming(const struct io *io, const char *dir) {
    char path[DATA_PATH_MAX], file[DATA_PATH_MAX];
    struct names names = {0};
    enum dc_err err = data_path(dir, ADOPT_INCOMING, path);
    err = err != DC_OK ? err : make_dir(io, dir, path);
    err = err != DC_OK ? err : list(io, path, note_any, &names);
    for (uint32_t i = 0; i < names.count && err == DC_OK; i++) {
        err = data_path(path, names.list[i], file);
        int failed = err == DC_OK ? io->unlink(io, file) : 0;
        err = failed < 0 ? io_failed("remove", file, failed) : err;
    }
    mem_free(names.list);
    return err != DC_OK ? err : sync_dir(io, path);
}

/* --- a copy ------------------------------------------------------------------------------------------ */

static enum dc_err sync_both(const struct io *io, const char *from, const char *to) {
    enum dc_err err = sync_dir(io, to);
    return err != DC_OK ? err : sync_dir(io, from);
}

static enum dc_err move_one(const struct io *io, const char *from, const char *to,
                            const char *name) {
    char source[DATA_PATH_MAX], target[DATA_PATH_MAX];
    enum dc_err err = data_path(from, name, source);
    err = err != DC_OK ? err : data_path(to, name, target);
    int failed = err == DC_OK ? io->rename(io, source, target) : 0;
    return failed < 0 ? io_failed("rename", source, failed) : err;
}

/* Moves all files of a data set from one directory to another; durable. */
static enum dc_err move_all(const struct io *io, const char *from, const char *to) {
    struct names names = {0};
    enum dc_err err = list(io, from, note_data, &names);
    if (err == DC_OK && names.count > 0) {
        qsort(names.list, names.count, sizeof(*names.list), compare_order);
    }
    for (uint32_t i = 0; i < names.count && err == DC_OK; i++) {
        /* The order that counts: no segment before all snapshots, none before the first one. What an earlier start has moved needn't be on the disk yet. */
        bool is_first = !is_snapshot(names.list[i]) && (i == 0 || is_snapshot(names.list[i - 1]));
        err = is_first ? sync_both(io, from, to) : DC_OK;
        err = err != DC_OK ? err : move_one(io, from, to, names.list[i]);
        err = err == DC_OK && is_first ? sync_both(io, from, to) : err;
    }
    mem_free(names.list);
    return err != DC_OK ? err : sync_both(io, from, to);
}

/* Whose data the directory holds; what the metadata said of other files counts no more. Nor does what replicas have acknowledged, if it is another
 * data set: its LSNs are others. (First, while that can still be told.) */
static enum dc_err take_over_identity(struct meta *m, const struct data_plan *plan) {
    struct meta_node node;
    enum dc_err err = meta_get_node(m, &node);
    if (err == DC_OK && memcmp(node.node_id, plan->node_id, NODE_ID_LEN) != 0) {
        err = standing_put_peers(m, NULL, 0);
    }
    node.known = true;
    memcpy(node.node_id, plan->node_id, NODE_ID_LEN);
    memcpy(node.seed, plan->seed, SEED_LEN);
    err = err != DC_OK ? err : meta_put_node(m, &node);
    err = err != DC_OK ? err : meta_put_chain(m, plan->chain, plan->chain_count);
    err = err != DC_OK ? err : meta_set_files(m, NULL, 0);
    struct meta_text texts[] = {{"unlogged", ""}, {"followed", not_ours}, {STANDING_SHARED, "yes"}};
    return err != DC_OK ? err : meta_put_texts(m, texts, 3);
}

/* Opens a data set without changing anything. */
static enum dc_err look_at(const struct io *io, const char *dir, struct data_plan *plan) {
    struct warm_opts opts = {.io = io, .dir = dir, .read_only = true};
    struct warm *warm = NULL;
    enum dc_err err = data_scan(&opts, plan, &warm);
    warm_destroy(warm);
    return err == DC_OK && plan->empty ? dc_fail(DC_ECORRUPT, "%s: nothing is there", dir) : err;
}

struct copy {
    const struct io *io;
    const char *dir;
    struct meta *meta;
    struct adopt_note *note;
    struct adopt_told *told;
    char incoming[DATA_PATH_MAX], replaced[DATA_PATH_MAX];
};

/* The copy can't be used: the start goes on with what there is. */
static enum dc_err give_up(struct meta *m, struct adopt_told *told, const char *what,
                           enum dc_err err) {
    char why[256];
    snprintf(why, sizeof(why), "%.255s", dc_fail_take(err));
    snprintf(told->notes, sizeof(told->notes), "%s: %s. A full copy is needed.", what, why);
    return adopt_note_need(m, why);
}

static enum dc_err begin_copy(struct copy *c, bool *usable) {
    struct data_plan *plan = mem_must_zalloc(sizeof(*plan));
    enum dc_err err = look_at(c->io, c->incoming, plan);
    *usable = err == DC_OK;
    mem_free(plan);
    if (!*usable) {
        return give_up(c->meta, c->told, "The copy in " ADOPT_INCOMING " can't be used", err);
    }
    err = list(c->io, c->dir, note_replaced, &c->note->number);
    c->note->number++;
    return err != DC_OK ? err : put_step(c->meta, c->note, ADOPT_OUT);
}

static enum dc_err move_out(struct copy *c) {
    enum dc_err err = make_dir(c->io, c->dir, c->replaced);
    err = err != DC_OK ? err : move_all(c->io, c->dir, c->replaced);
    return err != DC_OK ? err : put_step(c->meta, c->note, ADOPT_IN);
}

static enum dc_err move_in(struct copy *c) {
    struct data_plan *plan = mem_must_zalloc(sizeof(*plan));
    enum dc_err err = move_all(c->io, c->incoming, c->dir);
    err = err != DC_OK ? err : look_at(c->io, c->dir, plan);
    err = err != DC_OK ? err : take_over_identity(c->meta, plan);
    err = err != DC_OK ? err : put_step(c->meta, c->note, ADOPT_OPEN);
    mem_free(plan);
    return err;
}

static enum dc_err replaced_path(struct copy *c) {
    char name[NAME_MAX_LEN];
    snprintf(name, sizeof(name), "%s%" PRIu32, replaced_prefix, c->note->number);
    return data_path(c->dir, name, c->replaced);
}

static enum dc_err take_copy(struct copy *c) {
    bool usable = true;
    enum dc_err err = data_path(c->dir, ADOPT_INCOMING, c->incoming);
    if (err == DC_OK && c->note->step == ADOPT_NOTED) {
        err = begin_copy(c, &usable);
    }
    if (err != DC_OK || !usable) {
        return err;
    }
    err = replaced_path(c);
    if (err == DC_OK && c->note->step == ADOPT_OUT) {
        err = move_out(c);
    }
    if (err == DC_OK && c->note->step == ADOPT_IN) {
        err = move_in(c);
    }
    if (err == DC_OK) {
        snprintf(c->told->notes, sizeof(c->told->notes),
                 "A copy was taken over; what was there before is in %.200s until it is open.",
                 c->replaced);
    }
    return err;
}

/* --- a rewind ---------------------------------------------------------------------------------------- */

/* The data set up to exactly there, by the files that are there. */
static enum dc_err look_at_fork(const struct warm_opts *opts, uint64_t history) {
    struct data_plan *plan = mem_must_zalloc(sizeof(*plan));
    struct warm *warm = NULL;
    enum dc_err err = data_scan(opts, plan, &warm);
    warm_destroy(warm);
    if (err == DC_OK && plan->end_lsn != opts->to_lsn) {
        err = dc_fail(DC_ECORRUPT,
                      "the log ends at LSN %" PRIu64 " or has no frame that ends at "
                      "%" PRIu64,
                      plan->end_lsn, opts->to_lsn);
    } else if (err == DC_OK &&
               (plan->chain_count == 0 || plan->chain[plan->chain_count - 1].id != history)) {
        err = dc_fail(DC_ECORRUPT, "LSN %" PRIu64 " isn't of history %016" PRIx64, opts->to_lsn,
                      history);
    }
    mem_free(plan);
    return err;
}

/* Others go on from there. A log that wasn't kept from some point behind the fork on: that is cut off too. */
static enum dc_err rewind_texts(struct meta *m, uint64_t lsn) {
    char text[64];
    uint64_t from;
    enum dc_err err = meta_put_text(m, "followed", not_ours);
    err = err != DC_OK ? err : meta_get_text(m, "unlogged", text, sizeof(text));
    return err == DC_OK && sscanf(text, "%" SCNu64, &from) == 1 && from >= lsn
               ? meta_put_text(m, "unlogged", "")
               : err;
}

static enum dc_err rewind_log(const struct io *io, const char *dir, struct meta *m,
                              const struct adopt_note *n, struct adopt_told *told) {
    struct warm_opts opts = {.io = io, .dir = dir, .to_lsn = n->lsn, .read_only = true};
    enum dc_err err = look_at_fork(&opts, n->history);
    if (err == DC_EIO) {
        return err; /* what can't be read isn't judged */
    }
    if (err != DC_OK) {
        return give_up(m, told, "The log can't be cut at the fork", err);
    }
    struct data_plan *plan = mem_must_zalloc(sizeof(*plan));
    opts.read_only = false;
    err = data_rewind(&opts, n->lsn, plan);
    snprintf(told->notes, sizeof(told->notes),
             "The log was cut at the fork, LSN %" PRIu64 ". %.900s", n->lsn, plan->notes);
    told->cut_bytes = plan->cut_bytes;
    memcpy(told->cut_file, plan->cut_file, sizeof(told->cut_file));
    mem_free(plan);
    err = err != DC_OK ? err : rewind_texts(m, n->lsn);
    return err != DC_OK ? err : adopt_forget(m);
}

/* --- the start --------------------------------------------------------------------------------------- */

enum dc_err adopt_begin(const struct io *io, const char *dir, struct meta *m,
                        struct adopt_told *told) {
    struct adopt_note n;
    memset(told, 0, sizeof(*told));
    enum dc_err err = adopt_get(m, &n);
    if (err != DC_OK) {
        return err;
    }
    switch (n.what) {
    case ADOPT_NOTHING:
        return DC_OK;
    case ADOPT_NEEDS_COPY:
        snprintf(told->notes, sizeof(told->notes), "A full copy is needed: %s.", n.why);
        return DC_OK;
    case ADOPT_REWIND:
        return rewind_log(io, dir, m, &n, told);
    case ADOPT_COPY: {
        struct copy *c = mem_must_zalloc(sizeof(*c));
        *c = (struct copy){.io = io, .dir = dir, .meta = m, .note = &n, .told = told};
        err = take_copy(c);
        mem_free(c);
        return err;
    }
    }
    dc_unreachable();
}

enum dc_err adopt_check_empty(const struct io *io, const char *dir) {
    uint32_t number = 0;
    enum dc_err err = list(io, dir, note_replaced, &number);
    if (err != DC_OK || number == 0) {
        return err;
    }
    return dc_fail(DC_ECORRUPT,
                   "%s has no data and its metadata are gone, but a data set lies in %s/%s%" PRIu32
                   ": while a copy took its place the metadata were lost. Move its files back, or "
                   "remove it to begin with an empty node",
                   dir, dir, replaced_prefix, number);
}

/* 'incoming' is for the next receiver then. */
static enum dc_err drop_incoming(const struct io *io, const char *dir) {
    char from[DATA_PATH_MAX], to[DATA_PATH_MAX], name[NAME_MAX_LEN];
    uint32_t number = 0;
    enum dc_err err = list(io, dir, note_replaced, &number);
    snprintf(name, sizeof(name), "%s%" PRIu32, replaced_prefix, number + 1);
    err = err != DC_OK ? err : data_path(dir, ADOPT_INCOMING, from);
    err = err != DC_OK ? err : data_path(dir, name, to);
    int failed = err == DC_OK ? io->rename(io, from, to) : 0;
    return failed < 0 && failed != -ENOENT ? io_failed("rename", from, failed) : err;
}

enum dc_err adopt_settle(const struct io *io, const char *dir, struct meta *m) {
    struct adopt_note n;
    enum dc_err err = adopt_get(m, &n);
    if (err == DC_OK && n.what == ADOPT_COPY && n.step == ADOPT_OPEN) {
        err = adopt_forget(m);
    }
    return err != DC_OK ? err : drop_incoming(io, dir);
}

static void note_obsolete(void *arg, const char *name) {
    if (strncmp(name, replaced_prefix, sizeof(replaced_prefix) - 1) == 0) {
        note_any(arg, name);
    }
}

void adopt_clean(const char *dir, struct meta *m) {
    struct adopt_note n;
    struct names names = {0};
    enum dc_err err = adopt_get(m, &n);
    if (err == DC_OK && n.what == ADOPT_COPY && n.step != ADOPT_NOTED) {
        return; /* it isn't settled */
    }
    err = err != DC_OK ? err : list(&io_posix, dir, note_obsolete, &names);
    for (uint32_t i = 0; i < names.count && err == DC_OK; i++) {
        err = data_dir_remove(dir, names.list[i]);
    }
    if (err != DC_OK) {
        diag(DIAG_WARNING, "adopt.clean_failed error=\"%s\"", dc_fail_take(err));
    }
    mem_free(names.list);
}
