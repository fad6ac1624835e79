/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/data.h"

#include "persist/adopt.h"
#include "persist/data_dir.h"
#include "persist/new_dir.h"
#include "persist/retain.h"
#include "persist/snap_reader.h"
#include "persist/warm_priv.h"
#include "server/base/assert.h"
#include "server/base/crypto.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "server/base/time.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static uint64_t new_id(void) {
    uint64_t id = 0;
    while (id == 0) {
        crypto_random(&id, sizeof(id));
    }
    return id;
}

/* Metadata that is gone is what the files say; a new node draws its own. */
static void settle_identity(struct data *d, const struct meta_node *node) {
    if (d->plan->empty && node->known) {
        memcpy(d->plan->node_id, node->node_id, NODE_ID_LEN);
        memcpy(d->plan->seed, node->seed, SEED_LEN);
    } else if (d->plan->empty) {
        crypto_random(d->plan->node_id, NODE_ID_LEN);
        crypto_random(d->plan->seed, SEED_LEN);
    }
}

/* When the log is begun, and not before: until then every start has to find that the metadata knew nothing. */
static enum dc_err put_identity(struct data *d) {
    struct meta_node node = {.known = true};
    memcpy(node.node_id, d->plan->node_id, NODE_ID_LEN);
    memcpy(node.seed, d->plan->seed, SEED_LEN);
    return d->meta_is_new ? meta_put_node(d->meta, &node) : DC_OK;
}

/* --- 'appendonly no' ------------------------------------------------------------------------------------------- */

/* The text "unlogged" of the metadata: where a run began to keep no log, and where it ended if it ended well. "" = the log is kept. */
static const char unlogged[] = "unlogged";

static enum dc_err put_unlogged(struct data *d, uint64_t from, uint64_t end) {
    char text[64] = "";
    if (from > 0) {
        snprintf(text, sizeof(text), "%" PRIu64 " %" PRIu64, from, end);
    }
    enum dc_err err = meta_put_text(d->meta, unlogged, text);
    if (err == DC_OK) {
        d->unlogged_lsn = from; /* else it is tried again */
    }
    return err;
}

/* The text "gap": what lies below this LSN, of the data of that node id, may have holes, where no log was kept. It isn't read as a log
 * that goes on. */
static const char gap[] = "gap";

static enum dc_err put_gap(struct data *d, uint64_t lsn) {
    char text[64];
    char id[2 * NODE_ID_LEN + 1];
    crypto_hex(id, d->plan->node_id, NODE_ID_LEN);
    snprintf(text, sizeof(text), "%" PRIu64 " %s", lsn, id);
    d->gap_lsn = lsn; /* also if it can't be noted */
    return meta_put_text(d->meta, gap, text);
}

static enum dc_err learn_gap(struct data *d) {
    char text[64];
    char id[2 * NODE_ID_LEN + 1];
    char theirs[2 * NODE_ID_LEN + 1];
    uint64_t lsn = 0;
    enum dc_err err = meta_get_text(d->meta, gap, text, sizeof(text));
    crypto_hex(id, d->plan->node_id, NODE_ID_LEN);
    bool known = err == DC_OK && sscanf(text, "%" SCNu64 " %32s", &lsn, theirs) == 2 &&
                 strcmp(id, theirs) == 0;
    d->gap_lsn = known ? lsn : 0;
    return err;
}

/* Two threads may find at once that it isn't kept: the first place counts. */
static enum dc_err note_unlogged(struct data *d, uint64_t lsn) {
    if ((lsn == 0) == (d->unlogged_lsn == 0)) {
        return DC_OK;
    }
    uint64_t kept_from = log_kept_from(d->log);
    enum dc_err err = DC_OK;
    if (lsn == 0) { /* what is kept from now on doesn't join what was kept before */
        uint64_t head = log_head(d->log).v;
        kept_from = kept_from < head ? kept_from : head;
        err = put_gap(d, kept_from > d->begin_lsn ? kept_from : d->begin_lsn);
    }
    err = err == DC_OK ? put_unlogged(d, lsn, 0) : err;
    if (err == DC_OK && lsn > 0) {
        diag(DIAG_NOTICE, "log.not_kept lsn=%" PRIu64, lsn);
    }
    return err;
}

enum dc_err data_note_unlogged(struct data *d, uint64_t lsn) {
    pthread_mutex_lock(&d->unlogged_lock);
    enum dc_err err = note_unlogged(d, lsn);
    pthread_mutex_unlock(&d->unlogged_lock);
    return err;
}

enum dc_err data_note_unkept(struct data *d) {
    enum dc_err err = DC_OK;
    pthread_mutex_lock(&d->unlogged_lock);
    if (!log_is_based(d->log) && !log_wants_base(d->log)) {
        err = note_unlogged(d, log_head(d->log).v);
    }
    pthread_mutex_unlock(&d->unlogged_lock);
    return err;
}

/* Such a run leaves nothing in the log by which it could be told from none: it must not be taken for all there was. */
static enum dc_err learn_unlogged(struct data *d) {
    struct data_plan *p = d->plan;
    char text[64];
    uint64_t from = 0, end = 0;
    enum dc_err err = meta_get_text(d->meta, unlogged, text, sizeof(text));
    if (p->unkept) {
        p->clean = false;
        d->lost_unlogged = true;
    }
    if (err != DC_OK || sscanf(text, "%" SCNu64 " %" SCNu64, &from, &end) != 2) {
        return err;
    }
    d->unlogged_lsn = d->seen_lsn = from;
    bool newer = p->chain_count > 0 && p->chain[p->chain_count - 1].start > from;
    if (!newer && end != p->end_lsn) {
        p->clean = false;
        d->lost_unlogged = true;
        plan_note(p,
                  "The log wasn't kept from LSN %" PRIu64
                  " on (appendonly no): what was written then is lost unless a snapshot has it.",
                  from);
    }
    return DC_OK;
}

/* --- a log that follows another one -------------------------------------------------------------------------------- */

/* The text "followed" of the metadata: the log isn't this node's alone, since a run has followed another one and begun no history of its own. An
 * LSN: where that ended well, without a CLOSE frame of its own; 0 = it hasn't. "" = it is this node's. */
static const char followed[] = "followed";
/* The text "own-history": the last one that this node has begun, 16 hex digits. Another one at the end of the log is somebody else's, who may go on in it. */
static const char own_history[] = "own-history";

static enum dc_err put_followed(struct data *d, uint64_t end) {
    char text[64];
    snprintf(text, sizeof(text), "%" PRIu64, end);
    d->followed = true;
    return meta_put_text(d->meta, followed, text);
}

/* The log goes on in the history 'id', and nobody else does. */
static enum dc_err note_own(struct data *d, uint64_t id) {
    char text[32];
    struct meta_text texts[] = {{followed, ""}, {own_history, text}};
    if (!d->followed && d->own_history == id) {
        return DC_OK;
    }
    snprintf(text, sizeof(text), "%016" PRIx64, id);
    enum dc_err err = meta_put_texts(d->meta, texts, 2);
    d->followed = d->followed && err != DC_OK;
    d->own_history = err == DC_OK ? id : d->own_history;
    return err;
}

static enum dc_err learn_followed(struct data *d) {
    char text[64];
    uint64_t end = 0;
    enum dc_err err = meta_get_text(d->meta, followed, text, sizeof(text));
    if (err == DC_OK && sscanf(text, "%" SCNu64, &end) == 1) {
        d->followed = true;
        d->plan->clean = end > 0 && end == d->plan->end_lsn;
    }
    err = err == DC_OK ? meta_get_text(d->meta, own_history, text, sizeof(text)) : err;
    if (err == DC_OK && sscanf(text, "%" SCNx64, &d->own_history) != 1) {
        d->own_history = 0;
    }
    return err;
}

static void note_followed(struct data *d, int64_t timeout_ms) {
    struct lsn head = log_head(d->log);
    if (log_wait(d->log, LOG_LEVEL_DISK, head, timeout_ms * 1000) &&
        put_followed(d, head.v) != DC_OK) {
        diag(DIAG_WARNING, "data.note_failed error=\"%s\"", dc_fail_take(DC_EIO));
    }
}

static bool ends_with(const char *name, const char *end) {
    size_t len = strlen(name);
    size_t tail = strlen(end);
    return len > tail && strcmp(name + len - tail, end) == 0;
}

/* What was done before the scan, behind what the scan has to say. */
static void tell_adopted(struct data_plan *p, const struct adopt_told *told) {
    if (told->notes[0] != '\0') {
        plan_note(p, "%s", told->notes);
    }
    if (told->cut_file[0] != '\0') {
        memcpy(p->cut_file, told->cut_file, sizeof(p->cut_file));
    }
    p->cut_bytes += told->cut_bytes;
}

enum dc_err data_open(struct data *d, const struct io *io, const char *dir) {
    struct meta_node node = {.known = false};
    struct adopt_told told = {.cut_bytes = 0};
    memset(d, 0, sizeof(*d));
    d->io = io;
    d->dir = dir;
    d->lock_fd = -1;
    pins_init(&d->pins);
    pthread_mutex_init(&d->unlogged_lock, NULL);
    d->plan = mem_must_zalloc(sizeof(*d->plan));
    enum dc_err err = new_dir_check_finished(dir);
    err = err == DC_OK ? data_lock(dir, &d->lock_fd) : err;
    if (err == DC_OK) {
        err = meta_open(dir, &d->meta, &d->meta_rebuilt);
    }
    err = err == DC_OK ? adopt_begin(io, dir, d->meta, &told) : err;
    if (err == DC_OK) {
        err = meta_get_node(d->meta, &node);
        d->meta_is_new = !node.known;
    }
    if (err == DC_OK) {
        struct warm_opts opts = {.io = io,
                                 .dir = dir,
                                 .node_id = node.known ? node.node_id : NULL,
                                 .threads = thread_cores()};
        err = data_scan(&opts, d->plan, &d->warm);
        tell_adopted(d->plan, &told);
    }
    if (err == DC_OK && d->meta_is_new && d->plan->empty) {
        err = adopt_check_empty(io, dir);
    }
    settle_identity(d, &node);
    err = err == DC_OK ? learn_followed(d) : err;
    err = err == DC_OK ? learn_gap(d) : err;
    return err == DC_OK ? learn_unlogged(d) : err;
}

/* Metadata that knew nothing of the directory don't know either what others in it are for. */
enum dc_err data_settle(struct data *d) {
    return d->meta_is_new ? DC_OK : adopt_settle(d->io, d->dir, d->meta);
}

void data_clean(struct data *d) {
    if (!d->meta_is_new) {
        adopt_clean(d->dir, d->meta);
    }
}

/* Farther than anything that may have been handed out and was lost, also by a run that kept no log. Of that only the metadata know; without them
 * there may have been many, and others from the same place. */
static uint64_t draw_jump(const struct data *d) {
    uint64_t more = 0;
    if (!d->meta_is_new) {
        return LSN_JUMP;
    }
    crypto_random(&more, sizeof(more));
    return LSN_LEAP + more % LSN_LEAP;
}

/* Makes the chain that this run belongs to. The log goes on in the last history that was found if that ended well, or if it follows
 * another log, which has what may be missing: 'fork' is false. Else a new one is added, a jump behind the end. */
static struct histories *make_chain(const struct data *d, bool follows, bool *fork) {
    const struct data_plan *p = d->plan;
    bool whole = p->clean && !d->followed && !d->meta_is_new && d->unlogged_lsn <= p->end_lsn;
    struct histories *found = histories_copy(p->chain, p->chain_count);
    *fork = p->chain_count == 0 || !(whole || follows);
    if (!*fork) {
        return found;
    }
    uint64_t seen = p->end_lsn > d->unlogged_lsn ? p->end_lsn : d->unlogged_lsn;
    struct history next = {.id = new_id(),
                           .start = seen > 0 ? seen + draw_jump(d) : LSN_FIRST,
                           .epoch = p->chain_count > 0 ? p->chain[p->chain_count - 1].epoch : 1,
                           .parent_end = p->end_lsn};
    struct histories *chain = histories_add(found, &next);
    mem_free(found);
    return chain;
}

enum dc_err data_begin(struct data *d, const struct log_opts *opts) {
    struct log_opts o = *opts;
    struct histories *chain = make_chain(d, o.follows, &o.fork);
    o.io = d->io;
    o.dir = d->dir;
    o.node_id = d->plan->node_id;
    o.seed = d->plan->seed;
    o.history = *histories_last(chain);
    o.first_lsn = o.fork ? o.history.start : d->plan->end_lsn;
    o.chain = chain->list;
    o.chain_count = chain->count;
    enum dc_err err = o.follows ? put_followed(d, 0) : DC_OK;
    err = err == DC_OK ? log_open(&o, &d->log) : err;
    d->begin_lsn = err == DC_OK ? log_head(d->log).v : 0;
    err = err == DC_OK ? meta_put_chain(d->meta, chain->list, chain->count) : err;
    err = err == DC_OK && !o.follows ? note_own(d, o.history.id) : err;
    if (err == DC_OK) {
        err = o.keeps ? data_note_unlogged(d, 0) : put_unlogged(d, o.first_lsn, 0);
    }
    err = err == DC_OK ? put_identity(d) : err;
    mem_free(chain);
    return err;
}

/* --- histories in the middle of a run ----------------------------------------------------------------------------- */

const struct histories *data_chain(const struct data *d) {
    return log_chain(d->log);
}

/* What a run that keeps no log hands out there must not be handed out again: before anything is. */
static enum dc_err begin_history(struct data *d, const struct histories *chain, const char *fork,
                                 size_t fork_len) {
    enum dc_err err = log_begin_history(d->log, chain, fork, fork_len);
    if (err == DC_OK && !log_is_based(d->log)) {
        err = put_unlogged(d, histories_last(chain)->start, 0);
    }
    return err == DC_OK ? meta_put_chain(d->meta, chain->list, chain->count) : err;
}

bool data_owns_history(const struct data *d) {
    return histories_last(data_chain(d))->id == d->own_history;
}

enum dc_err data_begin_history(struct data *d, const struct history *next) {
    struct histories *chain = histories_add(data_chain(d), next);
    enum dc_err err = begin_history(d, chain, NULL, 0);
    if (err == DC_OK) {
        log_set_follows(d->log, false);
        err = note_own(d, next->id);
    }
    mem_free(chain);
    return err;
}

enum dc_err data_take_fork(struct data *d, uint64_t lsn, const char *frame, size_t len) {
    const struct histories *known = data_chain(d);
    struct histories *chain = mem_must_alloc(sizeof(*chain) + CHAIN_MAX * sizeof(chain->list[0]));
    struct bytes body = bytes_of(frame + FRAME_HEADER_LEN, len - FRAME_HEADER_LEN);
    struct frame_head head;
    uint64_t end = log_head(d->log).v;
    chain->count = fork_decode(body, chain->list, CHAIN_MAX);
    enum dc_err err = DC_OK;
    if (chain->count == 0 || histories_last(chain)->start != lsn || lsn <= end ||
        frame_check(frame, len, histories_last(chain)->id, lsn, &head) != FRAME_OK ||
        !histories_continue(known->list, known->count, chain->list, chain->count, end)) {
        err =
            dc_fail(DC_ECORRUPT,
                    "the history at LSN %" PRIu64 " doesn't continue the log that ends at %" PRIu64,
                    lsn, end);
    }
    err = err == DC_OK ? begin_history(d, chain, frame, len) : err;
    mem_free(chain);
    return err;
}

/* At a clean end without a log: nothing is missing if a snapshot reaches to it, or if nothing was written. */
static void note_end(struct data *d) {
    uint64_t head = log_head(d->log).v;
    uint64_t end = head == d->begin_lsn ? d->plan->end_lsn : head;
    if (put_unlogged(d, d->unlogged_lsn, end) != DC_OK) {
        diag(DIAG_WARNING, "data.note_failed error=\"%s\"", dc_fail_take(DC_EIO));
    }
}

void data_stop_loading(struct data *d) {
    warm_destroy(d->warm);
    d->warm = NULL;
}

void data_close(struct data *d, bool clean, int64_t timeout_ms) {
    data_stop_loading(d);
    if (clean && d->log != NULL && d->unlogged_lsn > 0) {
        note_end(d);
    }
    if (clean && d->log != NULL && log_follows(d->log)) {
        note_followed(d, timeout_ms);
    }
    log_close(d->log, clean, timeout_ms);
    pins_fini(&d->pins);
    pthread_mutex_destroy(&d->unlogged_lock);
    meta_close(d->meta);
    mem_free(d->plan);
    if (d->lock_fd >= 0) {
        close(d->lock_fd);
    }
    memset(d, 0, sizeof(*d));
    d->lock_fd = -1;
}

/* --- retention ------------------------------------------------------------------------------------------------- */

struct files {
    const struct data *data;
    struct meta_file *list;
    uint32_t count;
    uint32_t cap;
    enum dc_err err; /* the first that says nothing of a file's content */
};

static struct meta_file *add_file(struct files *f) {
    if (f->count == f->cap) {
        f->cap = f->cap == 0 ? 32 : 2 * f->cap;
        f->list = mem_must_realloc(f->list, f->cap * sizeof(*f->list));
    }
    return memset(&f->list[f->count++], 0, sizeof(*f->list));
}

struct known {
    const char *name;
    int64_t created_ms;
};

static void find_created(void *arg, const struct meta_file *file) {
    struct known *k = arg;
    if (strcmp(file->name, k->name) == 0 && file->created_ms > 0) {
        k->created_ms = file->created_ms;
    }
}

/* What tells no age itself, a tail that was cut or a damaged snapshot: it has that of the catalogue's entry. */
static void add_aside(struct files *f, const char *name, enum file_kind kind,
                      enum file_state state) {
    struct known known = {.name = name, .created_ms = time_wall_us() / 1000};
    struct meta_file *file = add_file(f);
    if (meta_each_file(f->data->meta, find_created, &known) != DC_OK) {
        known.created_ms = time_wall_us() / 1000; /* too young to go */
    }
    snprintf(file->name, sizeof(file->name), "%s", name);
    file->kind = kind;
    file->state = state;
    file->created_ms = known.created_ms;
}

static void add_snapshot(struct files *f, const char *name) {
    char path[PATH_MAX];
    struct snap *s = NULL;
    snprintf(path, sizeof(path), "%s/%s", f->data->dir, name);
    enum dc_err err = snap_open(f->data->io, path, &s);
    if (err == DC_OK) {
        retain_file_of_snapshot(name, snap_facts(s), add_file(f));
        snap_close(s);
    } else if (err == DC_ECORRUPT) {
        (void)dc_fail_take(err);
        add_aside(f, name, FILE_SNAPSHOT, FILE_BAD);
    } else {
        f->err = err; /* it may be whole, and need the log behind it */
    }
}

static void add_named(void *arg, const char *name) {
    struct files *f = arg;
    uint64_t end_lsn, history;
    if (f->err != DC_OK) {
        return;
    }
    if (strncmp(name, "cut-", 4) == 0 && ends_with(name, ".bad")) {
        add_aside(f, name, FILE_SIDE, FILE_COMPLETE);
    } else if (snap_name_parse(name, &end_lsn, &history)) { /* what a start looks at */
        add_snapshot(f, name);
    }
}

static enum dc_err list_files(const struct data *d, struct files *f) {
    struct log_dir dir;
    enum dc_err err = log_dir_open(&dir, d->io, d->dir);
    if (err != DC_OK) {
        return err;
    }
    struct log_stats now;
    log_stats(d->log, &now);
    for (uint32_t i = 0; i < dir.count; i++) {
        struct meta_file *file = add_file(f);
        retain_file_of_segment(&dir.segments[i], file);
        if (strcmp(file->name, now.segment) == 0) {
            file->state = FILE_OPEN;
        }
    }
    log_dir_close(&dir);
    int rc = d->io->list(d->io, d->dir, add_named, f);
    if (rc < 0 && f->err == DC_OK) {
        return dc_fail(DC_EIO, "list %s: %s", d->dir, dc_errno_text(-rc));
    }
    return f->err;
}

enum dc_err data_tidy(struct data *d, const struct retain_opts *opts, bool *over) {
    struct files f = {.data = d};
    struct retain_opts o = *opts;
    struct retain_plan plan;
    uint32_t removed = 0;
    enum dc_err err = list_files(d, &f);
    for (uint32_t i = 0; i < f.count && err == DC_OK; i++) {
        err = meta_put_file(d->meta, &f.list[i]);
    }
    if (err == DC_OK) {
        o.now_ms = time_wall_us() / 1000;
        o.needed_lsn = pins_hold(d);
        retain_decide(f.list, f.count, &o, &plan);
        err = retain_apply(d->io, d->dir, &plan, d->meta, &removed);
        pins_let_go(d);
        if (removed > 0) {
            diag(DIAG_NOTICE, "retain.removed files=%" PRIu32 " bytes=%" PRIu64 " left=%" PRIu64,
                 removed, plan.bytes, plan.bytes_left);
        }
        if (over != NULL) {
            *over = plan.over;
        }
        retain_plan_fini(&plan);
    }
    mem_free(f.list);
    return err;
}
