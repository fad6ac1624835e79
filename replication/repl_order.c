/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What becomes of orders: REPLICAOF, REPLICAOF NO ONE, a handover. The newest one counts; each has a number, by which who gave it learns that role and
 * target are stored. An order that comes behind another one ends it, stored or not.
 */
#include "replication/repl_priv.h"
#include "server/base/assert.h"
#include "server/base/diag.h"

#include <stdio.h>
#include <string.h>

/* --- who gives them ---------------------------------------------------------------------------------------------- */

uint64_t repl_number_order(struct repl *r) {
    return ++r->given;
}

uint64_t repl_give_order(struct repl *r, enum order order, const struct sink_target *target) {
    lock_acquire(&r->lock);
    uint64_t number = repl_number_order(r);
    r->order = order;
    if (target != NULL) {
        r->target = *target;
    }
    lock_release(&r->lock);
    wake_raise(&r->wake);
    return number;
}

uint64_t repl_last_order(struct repl *r) {
    lock_acquire(&r->lock);
    uint64_t number = r->given;
    lock_release(&r->lock);
    return number;
}

bool repl_order_is_over(struct repl *r, uint64_t order) {
    lock_acquire(&r->lock);
    bool over = r->over >= order;
    lock_release(&r->lock);
    return over;
}

enum dc_err repl_order_result(struct repl *r, uint64_t order) {
    char why[sizeof(r->over_why)];
    lock_acquire(&r->lock);
    dc_assert(order <= r->over);
    bool newest = order == r->over;
    memcpy(why, r->over_why, sizeof(why));
    lock_release(&r->lock);
    if (!newest) {
        return dc_fail(DC_EGENERIC, "another order for the role of this node came behind this one");
    }
    return why[0] == '\0' ? DC_OK : dc_fail(DC_EGENERIC, "%s", why);
}

/* --- the thread repl --------------------------------------------------------------------------------------------- */

enum order repl_take_order(struct repl *r, struct sink_target *target) {
    lock_acquire(&r->lock);
    enum order order = r->order;
    *target = r->target;
    r->order = ORDER_NONE;
    r->pending = order != ORDER_NONE ? r->given : r->pending;
    lock_release(&r->lock);
    return order;
}

static void tell(struct repl *r, const char *what, const char *why) {
    lock_acquire(&r->lock);
    r->over = r->pending;
    snprintf(r->over_why, sizeof(r->over_why), "%s%s", what, why);
    lock_release(&r->lock);
    r->self.host->resume(r->self.host_arg);
}

void repl_order_over(struct repl *r, enum dc_err err) {
    if (r->pending != 0) {
        tell(r, "", err == DC_OK ? "" : dc_fail_take(err));
        r->pending = 0;
    }
}

void repl_order_fails(struct repl *r, const char *what, enum dc_err err) {
    const char *why = dc_fail_take(err);
    diag(DIAG_WARNING, "repl.failed what=\"%s\" error=\"%s\"", what, why);
    if (r->pending != 0) {
        tell(r, "the role isn't stored: ", why);
    }
}

void repl_let_answer(struct repl *r) {
    r->self.host->resume(r->self.host_arg);
    for (int i = 0; i < 2; i++) { /* they run in the turn that begins behind the first look */
        (void)r->self.host->quiesce(r->self.host_arg, QUIESCE_MS);
    }
}
