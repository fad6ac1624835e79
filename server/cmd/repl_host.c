/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/repl_host.h"

#include "server/cmd/node.h"
#include "server/cmd/saver.h"

static uint64_t snapshot_begin(void *arg) {
    struct node *n = arg;
    (void)saver_request(n->saver, true);
    return saver_ticket(n->saver);
}

static bool snapshot_is_over(void *arg, uint64_t ticket) {
    struct node *n = arg;
    return saver_is_over(n->saver, ticket);
}

static enum dc_err snapshot_result(void *arg, uint64_t ticket) {
    struct node *n = arg;
    return saver_result(n->saver, ticket);
}

static void restart(void *arg) {
    struct node *n = arg;
    n->host->restart(n);
}

static void resume(void *arg) {
    struct node *n = arg;
    n->host->resume(n);
}

/* A peer's connection leaves its worker. */
static void take_link(struct node *n, int fd, struct bytes early, const char *addr) {
    (void)addr;
    repl_accept(n->repl, fd, early);
}

enum dc_err repl_host_start(struct node *n, struct data *d, const struct standing *s) {
    static const struct repl_host host = {.snapshot_begin = snapshot_begin,
                                          .snapshot_is_over = snapshot_is_over,
                                          .snapshot_result = snapshot_result,
                                          .restart = restart,
                                          .resume = resume};
    struct repl_opts opts = {.conf = n->conf,
                             .data = d,
                             .store = n->store,
                             .clock = &n->clock,
                             .replicas = n->replicas,
                             .writes = &n->writes,
                             .host = &host,
                             .arg = n};
    enum dc_err err = repl_start(&opts, s, &n->repl);
    n->repl_accept = take_link;
    return err;
}
