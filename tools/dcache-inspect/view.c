/* SPDX-License-Identifier: BSD-3-Clause */
#include "tools/dcache-inspect/view.h"

#include "server/base/assert.h"
#include "server/base/crypto.h"
#include "server/base/glob.h"
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "server/base/sum.h"
#include "server/store/load.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { HASH_BITS = 50 };

/* --- paths --------------------------------------------------------------------------------------------------------------- */

static enum dc_err neither(const char *path) {
    return dc_fail(DC_ECORRUPT, "%s: neither a snapshot nor a log segment nor a directory", path);
}

enum dc_err path_look(const char *path, enum path_kind *out) {
    struct stat st;
    if (stat(path, &st) != 0) {
        return dc_fail(DC_EIO, "%s: %s", path, dc_errno_text(errno));
    }
    if (S_ISDIR(st.st_mode)) {
        *out = PATH_DIR;
        return DC_OK;
    }
    if (!S_ISREG(st.st_mode)) { /* to open a pipe would be to wait for who writes to it */
        return neither(path);
    }
    char dir[VIEW_PATH_MAX];
    char magic[8] = "";
    const char *name = path;
    uint64_t lsn;
    uint64_t history;
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        return dc_fail(DC_EIO, "%s: %s", path, dc_errno_text(errno));
    }
    size_t len = fread(magic, 1, sizeof(magic), f);
    fclose(f);
    bool named = path_split(path, dir, &name); /* a damaged file still has its name */
    bool is_snapshot = len == sizeof(magic) && memcmp(magic, "dcachesn", 8) == 0;
    bool is_segment = len == sizeof(magic) && memcmp(magic, "dcachelg", 8) == 0;
    if (!is_snapshot && !is_segment && named) {
        is_snapshot = snap_name_parse(name, &lsn, &history);
        is_segment = segment_name_parse(name, &lsn, &history);
    }
    *out = is_snapshot ? PATH_SNAPSHOT : PATH_SEGMENT;
    return is_snapshot || is_segment ? DC_OK : neither(path);
}

bool path_split(const char *path, char dir[VIEW_PATH_MAX], const char **name) {
    const char *slash = strrchr(path, '/');
    size_t len = slash != NULL ? (size_t)(slash - path) : 0;
    *name = slash != NULL ? slash + 1 : path;
    if (len >= VIEW_PATH_MAX) {
        return false;
    }
    if (slash == NULL) {
        memcpy(dir, ".", 2);
    } else if (len == 0) {
        memcpy(dir, "/", 2);
    } else {
        memcpy(dir, path, len);
        dir[len] = '\0';
    }
    return true;
}

/* --- opening ------------------------------------------------------------------------------------------------------------- */

void view_trouble(struct view *v, enum dc_err err) {
    v->troubles++;
    v->opts.trouble(v->opts.arg, dc_fail_take(err));
}

/* Names of snapshots in a directory. */
struct names {
    char (*names)[SEGMENT_NAME_MAX];
    uint32_t count, cap;
};

static void take_name(void *arg, const char *name) {
    struct names *n = arg;
    uint64_t end_lsn;
    uint64_t history;
    if (!snap_name_parse(name, &end_lsn, &history)) {
        return;
    }
    if (n->count == n->cap) {
        n->cap = n->cap == 0 ? 8 : n->cap * 2;
        n->names = mem_must_realloc(n->names, n->cap * sizeof(*n->names));
    }
    snprintf(n->names[n->count++], SEGMENT_NAME_MAX, "%s", name);
}

static int newest_first(const void *a, const void *b) { /* the end stands in the name, in hex */
    return strcmp(b, a);
}

/* Whether what the log goes on with is what the snapshot has seen. */
static bool is_on_chain(const struct snap_facts *f, const struct log_dir *d) {
    uint64_t id = f->chain[f->chain_count - 1].id;
    for (uint32_t i = 0; i < d->chain_count; i++) {
        if (d->chain[i].id == id) {
            return f->end_lsn <= log_dir_link_end(d, i);
        }
    }
    return d->chain_count == 0;
}

static enum dc_err open_snapshot(struct view *v, const char *name, const struct log_dir *d) {
    char path[VIEW_PATH_MAX + SEGMENT_NAME_MAX];
    struct snap *snap = NULL;
    snprintf(path, sizeof(path), "%s/%s", v->dir, name);
    enum dc_err err = snap_open(v->io, path, &snap);
    if (err != DC_OK) {
        return err;
    }
    if (d != NULL && !is_on_chain(snap_facts(snap), d)) {
        snap_close(snap);
        return dc_fail(DC_EFOREIGN, "%s is of an abandoned branch of the log", path);
    }
    v->snap = snap;
    snprintf(v->snap_name, sizeof(v->snap_name), "%s", name);
    return DC_OK;
}

/* The newest that is whole, if there is one. */
static enum dc_err find_snapshot(struct view *v, const struct log_dir *d) {
    struct names n = {.names = NULL};
    int rc = v->io->list(v->io, v->dir, take_name, &n);
    if (rc != 0) {
        mem_free(n.names);
        return dc_fail(DC_EIO, "%s: %s", v->dir, dc_errno_text(-rc));
    }
    if (n.count > 0) {
        qsort(n.names, n.count, sizeof(*n.names), newest_first);
    }
    for (uint32_t i = 0; i < n.count && v->snap == NULL; i++) {
        enum dc_err err = open_snapshot(v, n.names[i], d);
        if (err == DC_EFOREIGN) {
            (void)dc_fail_take(err); /* kept for a while, of no use here */
        } else if (err != DC_OK) {
            view_trouble(v, err);
        }
    }
    mem_free(n.names);
    return DC_OK;
}

static void set_chain(struct view *v, const struct history *chain, uint32_t count) {
    mem_free(v->chain);
    v->chain = mem_must_alloc((count + 1) * sizeof(*chain));
    if (count > 0) {
        memcpy(v->chain, chain, count * sizeof(*chain));
    }
    v->chain_count = count;
}

static void take_facts(struct view *v) {
    const struct snap_facts *f = snap_facts(v->snap);
    memcpy(v->seed, f->seed, SEED_LEN);
    v->seed_known = true;
    v->range_bits = f->range_bits;
    v->window_end = f->end_lsn;
    v->end_lsn = f->end_lsn;
    v->time_ms = f->finished_ms;
    set_chain(v, f->chain, f->chain_count);
}

static void queue_begin_all(struct view *v) {
    uint32_t first = 0;
    queue_init(&v->queue, v->io, v->range_bits);
    v->range_count = v->queue.range_count;
    uint32_t below = v->range_count + 1;
    if (v->opts.key != NULL) {
        first = view_range_of(v, v->opts.keyspace, *v->opts.key);
        below = first + 1;
    }
    queue_bound(&v->queue, first, below, v->opts.memory / VIEW_PLACE_LEN);
}

static enum dc_err take_frame(struct view *v, const char *name, const struct frame_ref *frame) {
    uint64_t end = frame->lsn + frame->len;
    v->end_lsn = end > v->end_lsn ? end : v->end_lsn;
    v->time_ms = frame->head.time_ms > v->time_ms ? frame->head.time_ms : v->time_ms;
    if (v->opts.progress != NULL) {
        v->opts.progress(v->opts.arg, frame->len);
    }
    return queue_frame(&v->queue, name, frame);
}

static enum dc_err queue_tail(struct view *v) {
    struct snap_tail *tail = NULL;
    struct frame_ref frame;
    enum log_end end = LOG_MORE;
    enum dc_err err = snap_tail_open(v->snap, &tail);
    while (err == DC_OK && (end = snap_tail_next(tail, &frame)) == LOG_MORE) {
        err = take_frame(v, v->snap_name, &frame);
    }
    snap_tail_close(tail);
    if (err == DC_OK && end != LOG_END) {
        view_trouble(v, end == LOG_DAMAGED ? DC_ECORRUPT : DC_EIO);
    }
    return err;
}

/* Whether there may have been something before the first frame that no snapshot holds, as a start asks, too. */
static bool lacks_beginning(const struct view *v, const struct log_dir *d,
                            const struct frame_ref *first) {
    return v->snap == NULL && !view_is_segment(v) &&
           (first->lsn != d->chain[0].start || d->chain[0].parent_end != 0);
}

static enum dc_err queue_log(struct view *v, const struct log_dir *d) {
    struct log_reader *r = NULL;
    struct log_end_info info;
    struct frame_ref frame;
    enum log_end end = LOG_MORE;
    bool is_first = true;
    enum dc_err err = log_reader_open(&r, d, v->snap != NULL ? v->window_end : 0);
    if (err == DC_OK && !log_reader_joins(r)) {
        view_trouble(v, dc_fail(DC_ECORRUPT,
                                "%s: the log behind LSN %" PRIu64
                                " is missing; shown is the snapshot %s alone",
                                v->dir, v->window_end, v->snap_name));
        log_reader_close(r);
        return DC_OK;
    }
    while (err == DC_OK && (end = log_reader_next(r, &frame)) == LOG_MORE) {
        if (is_first && lacks_beginning(v, d, &frame)) {
            view_trouble(v, dc_fail(DC_ECORRUPT,
                                    "%s: the log begins at LSN %" PRIu64
                                    " and no snapshot holds what was before",
                                    v->dir, frame.lsn));
        }
        is_first = false;
        err = take_frame(v, d->segments[frame.segment].name, &frame);
    }
    log_reader_end(r, &info);
    log_reader_close(r);
    if (err == DC_OK && end == LOG_DAMAGED) {
        view_trouble(v, dc_fail(DC_ECORRUPT, "%s: %s", v->dir, info.text));
    } else if (err == DC_OK && end == LOG_FAILED) {
        view_trouble(v, DC_EIO);
    }
    return err;
}

/* A directory. */
static enum dc_err open_dir(struct view *v) {
    struct log_dir d;
    enum dc_err err = log_dir_open(&d, v->io, v->dir);
    if (err != DC_OK) {
        return err;
    }
    err = find_snapshot(v, &d);
    if (err != DC_OK) {
        goto out;
    }
    v->range_bits = VIEW_RANGE_BITS;
    if (v->snap != NULL) {
        take_facts(v);
    }
    for (uint32_t i = 0; i < d.count && !v->seed_known; i++) {
        memcpy(v->seed, d.segments[i].head.seed, SEED_LEN);
        v->seed_known = d.segments[i].verdict == HEAD_OK;
    }
    if (d.chain_count > 0) {
        set_chain(v, d.chain, d.chain_count);
    }
    queue_begin_all(v);
    err = v->snap != NULL ? queue_tail(v) : DC_OK;
    err = err == DC_OK ? queue_log(v, &d) : err;
out:
    log_dir_close(&d);
    return err;
}

static enum dc_err open_segment(struct view *v, const char *path) {
    struct log_dir d;
    enum dc_err err = log_dir_open_file(&d, v->io, path);
    if (err != DC_OK) {
        return err;
    }
    const struct segment_info *s = &d.segments[0];
    snprintf(v->segment_name, sizeof(v->segment_name), "%s", s->name);
    v->first_lsn = s->head.first_lsn;
    memcpy(v->seed, s->head.seed, SEED_LEN);
    v->seed_known = s->verdict == HEAD_OK;
    v->range_bits = VIEW_RANGE_BITS;
    queue_begin_all(v);
    err = queue_log(v, &d);
    log_dir_close(&d);
    return err;
}

static enum dc_err open_file(struct view *v, const char *name) {
    enum dc_err err = open_snapshot(v, name, NULL);
    if (err != DC_OK) {
        return err;
    }
    if (strlen(name) >= SEGMENT_NAME_MAX) {
        return dc_fail(DC_EIO, "%s: a shorter name is needed", name);
    }
    take_facts(v);
    queue_begin_all(v);
    return queue_tail(v);
}

enum dc_err view_open(struct view *v, const char *path, const struct view_opts *opts) {
    enum path_kind kind;
    const char *name = "";
    *v = (struct view){.io = &io_posix, .opts = *opts};
    enum dc_err err = path_look(path, &kind);
    if (err != DC_OK) {
        return err;
    }
    if (kind == PATH_SEGMENT && !opts->segment_too) {
        return dc_fail(DC_EGENERIC, "%s is a log segment, which has no keys but only changes",
                       path);
    }
    if (kind == PATH_DIR ? snprintf(v->dir, sizeof(v->dir), "%s", path) >= VIEW_PATH_MAX
                         : !path_split(path, v->dir, &name)) {
        return dc_fail(DC_EIO, "%s: the path is too long", path);
    }
    err = kind == PATH_DIR       ? open_dir(v)
          : kind == PATH_SEGMENT ? open_segment(v, path)
                                 : open_file(v, name);
    err = err == DC_OK ? queue_map(&v->queue, v->dir) : err;
    v->block = snap_block_create();
    return err == DC_OK && v->block == NULL ? dc_fail(DC_ENOMEM, "no memory for blocks") : err;
}

void view_close(struct view *v) {
    touched_fini(&v->touched);
    snap_block_destroy(v->block);
    snap_close(v->snap);
    queue_fini(&v->queue);
    mem_free(v->chain);
    *v = (struct view){.io = NULL};
}

/* --- positions ----------------------------------------------------------------------------------------------------------- */

uint64_t key_pos(struct bytes key, const uint8_t seed[SEED_LEN]) {
    uint64_t hash = crypto_hash(key, seed) & (((uint64_t)1 << HASH_BITS) - 1);
    return (uint64_t)store_slot(key) << HASH_BITS | hash;
}

uint32_t view_range_of(const struct view *v, uint32_t keyspace, struct bytes key) {
    return keyspace == KEYSPACE_SYSTEM ? v->range_count : store_slot(key) >> v->range_bits;
}

/* --- visiting ------------------------------------------------------------------------------------------------------------ */

static bool is_wanted(const struct item_filter *f, uint32_t keyspace, struct bytes key) {
    return (!f->has_keyspace || f->keyspace == keyspace) &&
           (f->key == NULL || bytes_equal(*f->key, key)) &&
           (f->match.ptr == NULL || glob_match(f->match, key, false));
}

/* A range that has too many keys in the log is visited in parts, by a hash of the key: its upper half, for the table of touched keys
 * uses the lower one. */
static bool is_in_part(const struct view *v, uint32_t keyspace, struct bytes key) {
    return v->parts == 1 || (sum64(key.ptr, key.len, keyspace) >> 32) % v->parts == v->part;
}

static uint64_t keys_at_a_time(const struct view *v) {
    uint64_t keys = v->opts.memory / VIEW_KEY_LEN;
    return keys > VIEW_KEYS_MIN ? keys : VIEW_KEYS_MIN;
}

/* Keys whose hashes aren't all alike need no more. */
static uint64_t parts_max(const struct view *v, uint32_t range) {
    return 4 * (v->queue.ranges[range].count / keys_at_a_time(v) + 1);
}

/* False: there are too many keys; some of them are missing. */
static bool collect_touched(struct view *v, uint32_t range, const struct item_filter *filter) {
    struct effect_cursor cursor;
    struct effect_view e;
    enum queue_step step;
    uint64_t keys_max = keys_at_a_time(v);
    bool more_help = v->parts < parts_max(v, range);
    touched_clear(&v->touched);
    enum dc_err err = queue_note(&v->queue, range);
    if (err != DC_OK) {
        view_trouble(v, err);
        return true;
    }
    queue_begin(&v->queue, range, &cursor);
    while ((step = queue_next(&cursor, &e)) == QUEUE_EFFECT) {
        if (is_wanted(filter, e.keyspace, e.key) && is_in_part(v, e.keyspace, e.key)) {
            touched_add(&v->touched, &e);
        }
        if (more_help && v->part == 0 &&
            v->touched.key_count > keys_max) { /* the other parts are as large */
            return false;
        }
    }
    err = queue_check(&v->queue, range);
    if (err == DC_OK && step == QUEUE_BAD) {
        err = dc_fail(DC_ECORRUPT, "the log of range %u isn't what it was", range);
    }
    if (err != DC_OK) {
        view_trouble(v, err);
    }
    return true;
}

/* Puts the key's effects over what there is. 'tell': troubles are to be told. */
static void fold_touched(struct view *v, const struct touched *t, struct fold *f, bool tell) {
    for (uint32_t i = t->first; i != TOUCHED_END; i = v->touched.effects[i].next) {
        struct effect_view e;
        touched_view(&v->touched.effects[i], f->exists ? f->version : 0, &e);
        enum dc_err err = fold_effect(f, &e, v->snap != NULL && e.version <= v->window_end);
        if (err != DC_OK && tell) {
            view_trouble(v, err);
        } else if (err != DC_OK) {
            (void)dc_fail_take(err);
        }
    }
}

uint64_t view_flushed(const struct view *v, uint32_t keyspace) {
    return keyspace < KEYSPACE_MAX ? v->queue.flushed[keyspace] : 0;
}

/* What is known of a key before its first effect, when no block has it. */
static struct fold fold_nothing(const struct view *v, uint32_t keyspace) {
    bool is_known = !view_is_segment(v) || view_flushed(v, keyspace) != 0;
    return (struct fold){
        .expiry_ms = EXPIRY_NONE, .idle_ms = -1, .unknown_until = is_known ? 0 : v->first_lsn};
}

/* What is visited, for whom. */
struct visit {
    struct view *v;
    const struct item_filter *filter;
    item_fn each;
    void *arg;
};

static bool visit_entry(const struct visit *w, uint32_t keyspace, uint32_t block,
                        const struct snap_entry *e) {
    struct view *v = w->v;
    if (!is_wanted(w->filter, keyspace, e->key) || !is_in_part(v, keyspace, e->key) ||
        e->version < view_flushed(v, keyspace)) {
        return true;
    }
    struct touched *t = touched_find(&v->touched, keyspace, e->key);
    struct item item = {
        .keyspace = keyspace, .key = e->key, .base = e, .block = block, .touched = t};
    fold_begin(&item.fold, e);
    if (t != NULL) {
        t->seen = true;
        fold_touched(v, t, &item.fold, true);
    }
    return !item.fold.exists || w->each(w->arg, v, &item);
}

static bool visit_block(const struct visit *w, uint32_t block) {
    const struct snap_block_info *info = snap_block_info(w->v->snap, block);
    struct snap_entry e;
    enum dc_err err = snap_block_read(w->v->block, w->v->snap, block);
    if (err != DC_OK) {
        view_trouble(w->v, err);
        return true;
    }
    bool more = true;
    while (more && snap_block_next(w->v->block, &e)) {
        more = visit_entry(w, info->keyspace, block, &e);
    }
    return more;
}

/* Whether the block may hold what is asked for. A block ends where the next one of its keyspace begins. */
static bool block_is_wanted(const struct visit *w, uint32_t block, uint32_t end) {
    const struct item_filter *f = w->filter;
    const struct snap_block_info *info = snap_block_info(w->v->snap, block);
    if (info->kind != SNAP_ENTRIES || (f->has_keyspace && f->keyspace != info->keyspace)) {
        return false;
    }
    if (f->key == NULL) {
        return true;
    }
    uint64_t pos = key_pos(*f->key, w->v->seed);
    if (info->first_pos > pos) {
        return false;
    }
    if (block + 1 == end) {
        return true;
    }
    const struct snap_block_info *next = snap_block_info(w->v->snap, block + 1);
    return next->keyspace != info->keyspace || next->kind != SNAP_ENTRIES || next->first_pos >= pos;
}

/* With the touched keys of this part. */
static bool visit_part(const struct visit *w, uint32_t range) {
    struct view *v = w->v;
    uint32_t first = 0;
    uint32_t count = 0;
    bool more = true;
    if (v->snap != NULL) {
        snap_range_blocks(v->snap, range, &first, &count);
    }
    for (uint32_t i = first; i < first + count && more; i++) {
        if (block_is_wanted(w, i, first + count)) {
            more = visit_block(w, i);
        }
    }
    for (uint32_t i = 0; i < v->touched.key_count && more; i++) {
        const struct touched *t = &v->touched.keys[i];
        struct item item = {.keyspace = t->keyspace, .key = t->key, .touched = t};
        item.fold = fold_nothing(v, t->keyspace);
        if (!t->seen) {
            fold_touched(v, t, &item.fold, true);
            bool is_shown = item.fold.exists || (w->filter->removed && item.fold.version != 0);
            more = !is_shown || w->each(w->arg, v, &item);
        }
    }
    return more;
}

bool view_range(struct view *v, uint32_t range, const struct item_filter *filter, item_fn each,
                void *arg) {
    struct visit w = {v, filter, each, arg};
    v->part = 0;
    v->parts = 1;
    while (!collect_touched(v, range, filter)) {
        v->parts *= 2;
    }
    bool more = visit_part(&w, range);
    for (v->part = 1; v->part < v->parts && more; v->part++) {
        (void)collect_touched(v, range, filter);
        more = visit_part(&w, range);
    }
    return more;
}

bool view_all(struct view *v, const struct item_filter *filter, item_fn each, void *arg) {
    for (uint32_t range = 0; range <= v->range_count; range++) {
        if (!view_range(v, range, filter, each, arg)) {
            return false;
        }
    }
    return true;
}

/* --- contents ------------------------------------------------------------------------------------------------------------ */

static enum dc_err read_blob(struct view *v, const struct item *item, struct buf *out) {
    struct blob *blob = NULL;
    enum dc_err err = snap_read_blob(v->block, v->snap, item->block, item->base, &blob);
    if (err == DC_OK) {
        buf_append(out, blob->data, blob->len);
        blob_release(blob);
    }
    return err;
}

enum dc_err item_content(struct view *v, const struct item *item, struct buf *out) {
    struct fold f = fold_nothing(v, item->keyspace);
    enum dc_err err = DC_OK;
    f.content = out;
    buf_reset(out, SIZE_MAX);
    if (item->base != NULL) {
        fold_begin(&f, item->base);
        err = item->base->value.kind == VALUE_BLOB ? read_blob(v, item, out) : DC_OK;
    }
    if (err == DC_OK && item->touched != NULL) {
        fold_touched(v, item->touched, &f, false);
    }
    return err == DC_OK && out->failed ? dc_fail(DC_ENOMEM, "no memory for a value") : err;
}

bool view_is_segment(const struct view *v) {
    return v->segment_name[0] != '\0';
}

bool item_has_expired(const struct view *v, const struct item *item) {
    return item->fold.expiry_ms != EXPIRY_NONE && item->fold.expiry_ms <= v->time_ms;
}
