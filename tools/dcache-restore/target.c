/* SPDX-License-Identifier: BSD-3-Clause */
#include "tools/dcache-restore/target.h"

#include "persist/new_dir.h"
#include "server/base/crypto.h"
#include "server/base/mem.h"
#include "server/base/thread.h"

enum { THREADS_MAX = 16 };

static uint64_t new_id(void) {
    uint64_t id = 0;
    while (id == 0) {
        crypto_random(&id, sizeof(id));
    }
    return id;
}

/* Who the new directory says that it is. A new node has lived through nothing but this. */
static void set_identity(struct snap_write_opts *o, const struct source *s, bool keep,
                         uint8_t node_id[NODE_ID_LEN], struct history *own) {
    if (keep && s->plan->chain_count > 0) {
        memcpy(node_id, s->plan->node_id, NODE_ID_LEN);
        o->chain = s->plan->chain;
        o->chain_count = s->plan->chain_count;
    } else {
        if (keep) {
            memcpy(node_id, s->plan->node_id, NODE_ID_LEN);
        } else {
            crypto_random(node_id, NODE_ID_LEN);
        }
        *own = (struct history){.id = new_id(), .start = LSN_FIRST, .epoch = 1};
        o->chain = own;
        o->chain_count = 1;
    }
    o->node_id = node_id;
}

static enum dc_err write_snapshot(const struct new_dir *dir, struct source *s, bool keep_identity,
                                  struct snap_written *out) {
    uint32_t cores = thread_cores();
    uint8_t node_id[NODE_ID_LEN];
    struct history own;
    struct snap_write_opts opts = {
        .io = dir->io,
        .dir = dir->work,
        .store = s->store,
        .lsn = s->end_lsn,
        .seed = s->plan->seed,
        .threads = cores > THREADS_MAX ? THREADS_MAX : cores,
        /* The floor of the new node's clock: what had expired stays expired. */
        .now_ms = s->now_ms > s->image_ms ? s->now_ms : s->image_ms,
    };
    set_identity(&opts, s, keep_identity, node_id, &own);
    return snap_write(&opts, out);
}

enum dc_err target_write(const struct io *io, const char *target, struct source *s,
                         bool keep_identity, struct snap_written *out) {
    struct new_dir dir;
    enum dc_err err = new_dir_begin(&dir, io, target);
    if (err != DC_OK) {
        return err;
    }
    err = write_snapshot(&dir, s, keep_identity, out);
    err = err != DC_OK ? err : new_dir_publish(&dir);
    if (err != DC_OK) {
        new_dir_drop(&dir);
    }
    return err;
}
