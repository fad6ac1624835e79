/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/saver.h"

#include "persist/retain.h"
#include "server/base/assert.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "server/cmd/node.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { LOOK_MS = 500, RETRY_MS = 5000, TELL_MS = 2000 };

struct saver {
    struct node *node;
    struct data *data;
    struct thread thread;
    struct snap_progress progress;
    _Atomic bool stop;
    _Atomic bool rotated;
    /* under 'lock' */
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool wakes; /* there is something to look at, since the last look began */
    bool asked; /* a snapshot is wanted */
    bool over;  /* retention can't get below its limit of bytes */
    bool running;
    struct saver_job *jobs; /* in order */
    uint64_t ended;         /* snapshots that came to an end, good or bad */
    uint64_t base_changes;
    int64_t tried_ms;       /* when one last ended, good or bad */
    bool base_failed;       /* the log couldn't go on from it */
    uint64_t seen_failures; /* of fdatasync */
    uint64_t base_lsn;      /* the log behind the last snapshot begins here, */
    uint64_t found_len;     /* after so many bytes of earlier runs */
    uint64_t floor_lsn;     /* end of the last but one: retention keeps the log from here on */
    struct saver_state state;
};

/* --- rules ------------------------------------------------------------------------------------------- */

static uint64_t changes_since(const struct saver *s) {
    return metric_sum(METRIC_CHANGES) - s->base_changes;
}

/* "seconds changes" pairs, as the option 'save' has them. */
static bool rule_applies(struct saver *s, int64_t passed_s, uint64_t changes) {
    char text[256];
    long long seconds, count;
    int used;
    (void)conf_text(s->node->conf, CONF_ID_save, text, sizeof(text));
    for (const char *at = text; sscanf(at, "%lld %lld%n", &seconds, &count, &used) == 2;
         at += used) {
        if (passed_s >= seconds && changes >= (uint64_t)count && changes > 0) {
            return true;
        }
    }
    return false;
}

static bool log_has_grown(struct saver *s) {
    uint64_t limit = (uint64_t)conf_get(s->node->conf, snapshot_log_size);
    const struct log *log = s->node->log;
    uint64_t grown =
        s->found_len + histories_distance(log_chain(log), s->base_lsn, log_head(log).v);
    return limit > 0 && conf_get(s->node->conf, appendonly) && grown > limit;
}

/* Beyond retain-size: the log goes a file at a time, and behind the last snapshot but one only. What two snapshots and one file take no
 * further snapshot makes less. */
static bool could_make_room(struct saver *s) {
    struct log_stats now;
    log_stats(s->node->log, &now);
    return s->over && s->floor_lsn < now.segment_first_lsn &&
           log_head(s->node->log).v > s->base_lsn;
}

/* An fdatasync has failed: what it should have made durable was written again, and a snapshot makes the files before superfluous. A log that
 * isn't kept has none. */
static bool disk_has_lied(struct saver *s) {
    struct log_stats now;
    log_stats(s->node->log, &now);
    bool more = now.sync_failures > s->seen_failures;
    s->seen_failures = now.sync_failures;
    return more && conf_get(s->node->conf, appendonly);
}

/* 'lock' held. */
static bool is_due(struct saver *s, int64_t now_ms) {
    if (!warm_is_settled(s->node->warm)) {
        return false;
    }
    s->asked = s->asked || disk_has_lied(s);
    if (s->asked) {
        return true;
    }
    int64_t passed_ms = now_ms - s->state.last_ms;
    if (((s->state.last_failed || s->base_failed) && now_ms - s->tried_ms < RETRY_MS) ||
        !warm_is_over(s->node->warm)) {
        return false;
    }
    return log_wants_base(s->node->log) || rule_applies(s, passed_ms / 1000, changes_since(s)) ||
           log_has_grown(s) || could_make_room(s);
}

/* --- one snapshot ------------------------------------------------------------------------------------ */

/* The other half of the cores is for those who are served meanwhile. */
static uint32_t thread_count(const struct conf *conf) {
    long count = (long)conf_get(conf, snapshot_threads);
    return count > 0 ? (uint32_t)count : (thread_cores() + 1) / 2;
}

static enum dc_err write_snapshot(struct saver *s, struct snap_written *out) {
    struct node *n = s->node;
    if (!warm_is_over(n->warm)) {
        return dc_fail(DC_ECORRUPT, "parts of the stored data are damaged and not loaded: a "
                                    "snapshot would be without them");
    }
    struct snap_write_opts opts = {
        .io = s->data->io,
        .dir = s->data->dir,
        .store = n->store,
        .log = n->log,
        .node_id = s->data->plan->node_id,
        .seed = s->data->plan->seed,
        .level = (int)conf_get(n->conf, snapshot_level),
        .block_len = (uint32_t)conf_get(n->conf, snapshot_block_size),
        .threads = thread_count(n->conf),
        .tell_ms = TELL_MS,
        .stall_ms = conf_get(n->conf, snapshot_stall) * 1000,
        .now_ms = clock_now_ms(&n->clock),
        .stop = &s->stop,
        .progress = &s->progress,
    };
    return snap_write(&opts, out);
}

static void catalogue(struct saver *s, const struct snap_written *w) {
    struct meta_file f = {.kind = FILE_SNAPSHOT,
                          .state = FILE_COMPLETE,
                          .first_lsn = w->start_lsn,
                          .end_lsn = w->end_lsn,
                          .durable_lsn = w->end_lsn,
                          .history = w->history,
                          .count = w->entries,
                          .bytes = w->file_len,
                          .created_ms = time_wall_us() / 1000};
    snprintf(f.name, sizeof(f.name), "%s", w->name);
    if (meta_put_file(s->data->meta, &f) != DC_OK) {
        diag(DIAG_WARNING, "saver.catalogue_failed file=%s", w->name);
    }
}

static void tell(const struct saver *s, const struct snap_written *w, enum dc_err err) {
    if (err == DC_OK) {
        int64_t ms = w->took_ms > 0 ? w->took_ms : 1;
        diag(DIAG_NOTICE,
             "snapshot.done file=%s entries=%" PRIu64 " bytes=%" PRIu64 " ms=%" PRId64
             " keys_per_s=%" PRIu64,
             w->name, w->entries, w->file_len, w->took_ms, w->entries * 1000 / (uint64_t)ms);
    } else {
        diag(DIAG_WARNING, "snapshot.failed error=\"%s\" older=kept", s->state.last_error);
    }
}

static void note_unlogged(struct saver *s, uint64_t lsn) {
    if (data_note_unlogged(s->data, lsn) != DC_OK) {
        diag(DIAG_WARNING, "saver.note_failed error=\"%s\"", dc_fail_take(DC_EIO));
    }
}

/* A log that has begun to be kept counts from the snapshot on; the note goes first, so that it is never there for a log that says all. */
static bool base_log(struct saver *s, uint64_t end_lsn) {
    if (!log_wants_base(s->node->log)) {
        return true;
    }
    note_unlogged(s, 0);
    return log_base(s->node->log, end_lsn, &s->stop);
}

/* 'lock' held at the beginning and the end. */
static void save(struct saver *s) {
    struct snap_written w;
    uint64_t changes = metric_sum(METRIC_CHANGES);
    s->asked = false;
    s->running = true;
    s->state.running_ms = time_mono_us() / 1000;
    pthread_mutex_unlock(&s->lock);
    diag(DIAG_NOTICE, "snapshot.begun entries=%" PRIu64, store_count(s->node->store));
    enum dc_err err = write_snapshot(s, &w);
    char why[512];
    snprintf(why, sizeof(why), "%s", err == DC_OK ? "" : dc_fail_take(err));
    if (err == DC_OK) {
        catalogue(s, &w);
    }
    bool based = err != DC_OK || base_log(s, w.end_lsn);
    pthread_mutex_lock(&s->lock);
    s->running = false;
    s->base_failed = !based;
    s->ended++;
    s->state.last_failed = err != DC_OK;
    memcpy(s->state.last_error, why, sizeof(why));
    s->state.last_took_ms = time_mono_us() / 1000 - s->state.running_ms;
    s->tried_ms = clock_now_ms(&s->node->clock);
    if (err == DC_OK) {
        s->state.last_ms = s->tried_ms;
        s->base_changes = changes;
        s->state.written++;
        s->over = false; /* until retention has looked again */
        s->floor_lsn = s->state.last_end_lsn;
        s->state.last_end_lsn = w.end_lsn;
        s->base_lsn = w.end_lsn;
        s->found_len = 0;
        s->state.last_entries = w.entries;
        s->state.last_bytes = w.file_len;
    } else {
        s->state.failed++;
    }
    tell(s, &w, err);
    pthread_cond_broadcast(&s->moved);
    s->node->host->resume(s->node); /* who said SAVE */
}

/* The next start is told whether the log says all; 'lock' held at the beginning and the end. */
static void note_keeping(struct saver *s) {
    struct log *log = s->node->log;
    bool keeps = log_is_based(log);
    if (keeps != (s->data->unlogged_lsn == 0)) {
        pthread_mutex_unlock(&s->lock);
        note_unlogged(s, keeps ? 0 : log_head(log).v);
        pthread_mutex_lock(&s->lock);
    }
}

/* Files that nobody needs any more; 'lock' held at the beginning and the end. */
static void tidy(struct saver *s) {
    const struct conf *conf = s->node->conf;
    struct retain_opts opts = {.keep_count = (uint32_t)conf_get(conf, snapshot_keep),
                               .keep_ms = conf_get(conf, retain_age) * 1000,
                               .max_bytes = (uint64_t)conf_get(conf, retain_size)};
    bool over = false;
    bool cold = s->node->warm != NULL && !warm_is_over(s->node->warm);
    if (cold || !atomic_exchange_explicit(&s->rotated, false, memory_order_relaxed)) {
        return;
    }
    pthread_mutex_unlock(&s->lock);
    enum dc_err err = data_tidy(s->data, &opts, &over);
    if (err != DC_OK) {
        diag(DIAG_WARNING, "retain.failed error=\"%s\"", dc_fail_take(err));
    }
    pthread_mutex_lock(&s->lock);
    s->over = over;
}

/* --- jobs -------------------------------------------------------------------------------------------- */

/* 'lock' held at the beginning and the end. */
static bool run_job(struct saver *s, struct saver_job *j, const char *failed) {
    pthread_mutex_unlock(&s->lock);
    bool done = j->run(j, s->data, failed);
    pthread_mutex_lock(&s->lock);
    return done;
}

/* The first job that can be done; 'lock' held at the beginning and the end. False: there is none. */
static bool do_job(struct saver *s) {
    struct saver_job **at = &s->jobs;
    while (*at != NULL && (*at)->waits && !warm_is_settled(s->node->warm)) {
        at = &(*at)->next;
    }
    struct saver_job *j = *at;
    if (j == NULL) {
        return false;
    }
    *at = j->next;
    if (j->waits) {
        save(s);
        bool done = run_job(s, j, s->state.last_failed ? s->state.last_error : NULL);
        dc_assert(done);
        saver_note_rotation(s);
    } else if (!run_job(s, j, NULL)) { /* else it is gone */
        j->waits = true;
        j->next = s->jobs;
        s->jobs = j;
    }
    return true;
}

/* The thread may be doing something without the lock: then it looks once more before it waits. */
static void wake(struct saver *s) {
    s->wakes = true;
    pthread_cond_broadcast(&s->moved);
}

static void refuse_jobs(struct saver *s) {
    while (s->jobs != NULL) {
        struct saver_job *j = s->jobs;
        s->jobs = j->next;
        (void)run_job(s, j, "the node is stopping");
    }
}

void saver_do(struct saver *s, struct saver_job *j) {
    struct saver_job **at = &s->jobs;
    pthread_mutex_lock(&s->lock);
    while (*at != NULL) {
        at = &(*at)->next;
    }
    j->next = NULL;
    j->waits = false;
    j->stop = &s->stop;
    *at = j;
    wake(s);
    pthread_mutex_unlock(&s->lock);
}

static void run(void *arg) {
    struct saver *s = arg;
    pthread_mutex_lock(&s->lock);
    while (!atomic_load_explicit(&s->stop, memory_order_acquire)) {
        s->wakes = false;
        note_keeping(s);
        if (do_job(s)) {
            continue;
        }
        if (is_due(s, clock_now_ms(&s->node->clock))) {
            save(s);
            saver_note_rotation(s);
            continue;
        }
        tidy(s);
        if (s->wakes) {
            continue;
        }
        int64_t end_us = time_mono_us() + LOOK_MS * 1000;
        struct timespec until = {.tv_sec = end_us / 1000000, .tv_nsec = end_us % 1000000 * 1000};
        pthread_cond_clockwait(&s->moved, &s->lock, CLOCK_MONOTONIC, &until);
    }
    refuse_jobs(s);
    pthread_mutex_unlock(&s->lock);
}

/* --- life and questions ------------------------------------------------------------------------------ */

struct saver *saver_start(struct node *n, struct data *d) {
    struct saver *s = mem_must_zalloc(sizeof(*s));
    s->node = n;
    s->data = d;
    s->state.last_ms = n->start_ms;
    s->state.last_took_ms = -1;
    s->state.last_end_lsn = d->plan->snapshot_end;
    s->base_lsn = log_head(n->log).v;
    s->found_len = d->plan->log_bytes;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->moved, NULL);
    atomic_init(&s->rotated, true);
    thread_start(&s->thread, "snapshotter", run, s);
    return s;
}

void saver_give_up(struct saver *s) {
    atomic_store_explicit(&s->stop, true, memory_order_release);
    pthread_mutex_lock(&s->lock);
    wake(s);
    pthread_mutex_unlock(&s->lock);
    s->node->host->resume(s->node);
}

void saver_stop(struct saver *s) {
    if (s == NULL) {
        return;
    }
    saver_give_up(s);
    thread_join(&s->thread);
    pthread_cond_destroy(&s->moved);
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
}

enum saver_answer saver_request(struct saver *s, bool may_wait) {
    enum saver_answer answer = SAVER_STARTED;
    pthread_mutex_lock(&s->lock);
    bool busy = s->running || s->asked;
    if (busy && !may_wait) {
        answer = SAVER_BUSY;
    } else {
        answer = busy ? SAVER_SCHEDULED : SAVER_STARTED;
        s->asked = true;
        wake(s);
    }
    pthread_mutex_unlock(&s->lock);
    return answer;
}

uint64_t saver_ticket(struct saver *s) {
    pthread_mutex_lock(&s->lock);
    uint64_t ticket = s->ended + s->asked + s->running;
    pthread_mutex_unlock(&s->lock);
    return ticket;
}

static bool is_over(const struct saver *s, uint64_t ticket) {
    return s->ended >= ticket || atomic_load_explicit(&s->stop, memory_order_acquire);
}

bool saver_is_over(struct saver *s, uint64_t ticket) {
    pthread_mutex_lock(&s->lock);
    bool over = is_over(s, ticket);
    pthread_mutex_unlock(&s->lock);
    return over;
}

enum dc_err saver_result(struct saver *s, uint64_t ticket) {
    char why[512];
    pthread_mutex_lock(&s->lock);
    bool failed = s->state.last_failed || s->ended < ticket;
    memcpy(why, s->state.last_error, sizeof(why));
    pthread_mutex_unlock(&s->lock);
    return failed ? dc_fail(DC_EIO, "the snapshot has failed: %s", why) : DC_OK;
}

enum dc_err saver_wait(struct saver *s) {
    uint64_t ticket = saver_ticket(s);
    pthread_mutex_lock(&s->lock);
    while (!is_over(s, ticket)) {
        pthread_cond_wait(&s->moved, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return saver_result(s, ticket);
}

void saver_look(struct saver *s) {
    pthread_mutex_lock(&s->lock);
    wake(s);
    pthread_mutex_unlock(&s->lock);
}

void saver_note_rotation(struct saver *s) {
    atomic_store_explicit(&s->rotated, true, memory_order_relaxed);
}

void saver_state(struct saver *s, struct saver_state *out) {
    pthread_mutex_lock(&s->lock);
    *out = s->state;
    out->running = s->running || s->asked;
    out->running_ms = s->running ? time_mono_us() / 1000 - s->state.running_ms : -1;
    out->changes = changes_since(s);
    pthread_mutex_unlock(&s->lock);
    out->done = atomic_load_explicit(&s->progress.entries_done, memory_order_relaxed);
    out->expected = atomic_load_explicit(&s->progress.entries_expected, memory_order_relaxed);
}
