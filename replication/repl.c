/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/repl.h"

#include "server/base/conf.h"
#include "server/base/diag.h"
#include "server/base/lock.h"
#include "server/base/mem.h"
#include "server/base/time.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct repl {
    struct conf *conf;
    _Atomic uint32_t *writes;
    struct lock lock;
    struct repl_view view; /* under lock */
    _Atomic bool is_current;
};

const char *repl_link_name(enum repl_link link) {
    static const char *const names[] = {"connect", "connecting", "sync", "connected"};
    return names[link];
}

struct repl *repl_create(const struct repl_opts *opts) {
    struct repl *r = mem_must_zalloc(sizeof(*r));
    r->conf = opts->conf;
    r->writes = opts->writes;
    lock_init(&r->lock, LOCK_RANK_REPL);
    atomic_init(&r->is_current, true);
    return r;
}

void repl_destroy(struct repl *r) {
    if (r != NULL) {
        lock_fini(&r->lock);
        mem_free(r);
    }
}

static void set_writes(struct repl *r, enum writes writes) {
    atomic_store_explicit(r->writes, writes, memory_order_release);
}

enum dc_err repl_follow(struct repl *r, struct bytes host, uint32_t port, bool force) {
    char text[HOST_NAME_MAX_LEN + 8];
    (void)force;
    if (host.len == 0 || host.len >= HOST_NAME_MAX_LEN) {
        return dc_fail(DC_ELIMIT, "the address is too long");
    }
    int len = snprintf(text, sizeof(text), "%.*s %" PRIu32, (int)host.len, host.ptr, port);
    set_writes(r, WRITES_READONLY); /* I1 */
    lock_acquire(&r->lock);
    r->view =
        (struct repl_view){.role = ROLE_REPLICA, .port = port, .down_since_us = time_mono_us()};
    memcpy(r->view.host, host.ptr, host.len);
    lock_release(&r->lock);
    atomic_store_explicit(&r->is_current, false, memory_order_relaxed);
    conf_set_text(r->conf, CONF_ID_replicaof, bytes_of(text, (size_t)len));
    diag(DIAG_NOTICE, "repl.follow target=%.*s:%" PRIu32, (int)host.len, host.ptr, port);
    return DC_OK;
}

void repl_promote(struct repl *r) {
    lock_acquire(&r->lock);
    r->view = (struct repl_view){.role = ROLE_PRIMARY};
    lock_release(&r->lock);
    atomic_store_explicit(&r->is_current, true, memory_order_relaxed);
    conf_set_text(r->conf, CONF_ID_replicaof, BYTES(""));
    set_writes(r, WRITES_TAKEN);
    diag(DIAG_NOTICE, "repl.primary");
}

bool repl_is_current(const struct repl *r) {
    return atomic_load_explicit(&r->is_current, memory_order_relaxed);
}

void repl_view(struct repl *r, struct repl_view *out) {
    lock_acquire(&r->lock);
    *out = r->view;
    lock_release(&r->lock);
}
