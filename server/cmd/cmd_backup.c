/* SPDX-License-Identifier: BSD-3-Clause */
/* BACKUP: written by the snapshotter, between snapshots; the connection waits, its worker doesn't. */
#include "persist/backup.h"

#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/cmd/client.h"
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/node.h"
#include "server/cmd/saver.h"

#include <inttypes.h>
#include <stdio.h>

struct backup_task {
    struct saver_job job;
    struct node *node;
    char *target;
    bool fresh;                  /* a snapshot is to be written first */
    _Atomic uint32_t references; /* the client's and the snapshotter's */
    _Atomic bool done;
    /* of the snapshotter, until 'done' */
    enum dc_err err;
    char why[ERR_TEXT_MAX];
    struct backup_written written;
};

static void task_release(struct backup_task *t) {
    /* The last one sees what the other has written. */
    if (atomic_fetch_sub_explicit(&t->references, 1, memory_order_acq_rel) == 1) {
        mem_free(t->target);
        mem_free(t);
    }
}

/* --- in the snapshotter's thread ---------------------------------------------------------------------- */

static void task_end(struct backup_task *t, enum dc_err err) {
    struct node *n = t->node;
    const struct backup_written *w = &t->written;
    t->err = err;
    if (err == DC_OK) {
        diag(DIAG_NOTICE,
             "backup.done dir=%s lsn=%" PRIu64 " snapshot=%s files=%u linked=%u bytes=%" PRIu64
             " ms=%" PRId64,
             t->target, w->lsn, w->snapshot, w->files, w->linked, w->bytes, w->took_ms);
    } else {
        snprintf(t->why, sizeof(t->why), "%s", dc_fail_take(err));
        diag(DIAG_WARNING, "backup.failed dir=%s error=\"%s\"", t->target, t->why);
    }
    atomic_store_explicit(&t->done, true, memory_order_release); /* pairs with backup_is_pending */
    task_release(t);
    n->host->resume(n);
}

static bool run_task(struct saver_job *j, const struct data *d, const char *failed) {
    struct backup_task *t = (struct backup_task *)j; /* its first field */
    struct node *n = t->node;
    bool keeps = log_is_based(n->log);
    const struct histories *chain = data_chain(d);
    struct backup_opts opts = {.io = d->io,
                               .dir = d->dir,
                               .target = t->target,
                               .log = keeps ? n->log : NULL,
                               .node_id = d->plan->node_id,
                               .chain = chain->list,
                               .chain_count = chain->count,
                               .now_ms = clock_now_ms(&n->clock),
                               .stop = j->stop};
    enum dc_err err = failed != NULL
                          ? dc_fail(DC_EIO, "backup: no snapshot could be written: %s", failed)
                          : new_dir_check(d->io, t->target);
    err = err != DC_OK ? err : new_dir_check_outside(t->target, d->dir);
    bool wants = !j->waits && (t->fresh || !keeps || !backup_has_snapshot(&opts));
    if (err == DC_OK && wants) {
        return false;
    }
    task_end(t, err != DC_OK ? err : backup_write(&opts, &t->written));
    return true;
}

/* --- in the worker's ---------------------------------------------------------------------------------- */

static bool is_fresh(const struct bytes *argv, uint32_t argc) {
    return argc == 3 && bytes_is(argv[2], "fresh");
}

static void begin(struct node *n, struct client *c, struct bytes target, bool fresh) {
    struct backup_task *t = mem_must_zalloc(sizeof(*t));
    t->job.run = run_task;
    t->node = n;
    t->target = mem_must_zalloc(target.len + 1);
    memcpy(t->target, target.ptr, target.len);
    t->fresh = fresh;
    atomic_init(&t->references, 2);
    c->backup = t;
    saver_do(n->saver, &t->job);
}

bool backup_is_pending(struct cmd_worker *w, struct client *c, const struct bytes *argv,
                       uint32_t argc) {
    if (c->backup != NULL) {
        return !atomic_load_explicit(&c->backup->done, memory_order_acquire);
    }
    if (w->node->saver == NULL || (c->flags & CLIENT_MULTI) || !client_is_authenticated(c) ||
        (argc != 2 && !is_fresh(argv, argc))) {
        return false; /* the dispatcher or the handler says why */
    }
    begin(w->node, c, argv[1], is_fresh(argv, argc));
    return true;
}

void backup_client_gone(struct client *c) {
    if (c->backup != NULL) {
        task_release(c->backup);
        c->backup = NULL;
    }
}

/* Comes here when it has ended (cmd_is_held). */
enum dc_err cmd_backup(struct cmd_ctx *ctx) {
    struct backup_task *t = ctx->client->backup;
    if (t == NULL) {
        return ctx->node->saver == NULL ? dc_fail(DC_EGENERIC, "there is no data directory")
                                        : DC_ESYNTAX;
    }
    enum dc_err err = t->err;
    if (err == DC_OK) {
        reply_int(ctx->reply, (int64_t)t->written.lsn);
    } else {
        err = dc_fail(err, "%s", t->why);
    }
    backup_client_gone(ctx->client);
    return err;
}
