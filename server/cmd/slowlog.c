/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/slowlog.h"

#include "server/base/assert.h"
#include "server/base/conf.h"
#include "server/base/lock.h"
#include "server/base/mem.h"
#include "server/cmd/client.h"
#include "server/cmd/monitor.h"
#include "server/cmd/node.h"

#include <stdio.h>

/* "... (9223372036854775807 more arguments)" and the like. */
enum { MORE_LEN_MAX = 64 };

struct slowlog {
    struct lock lock;
    struct slowlog_entry *newest DC_GUARDED_BY(lock);
    uint32_t len DC_GUARDED_BY(lock);
    int64_t next_id DC_GUARDED_BY(lock);
};

struct slowlog *slowlog_create(void) {
    struct slowlog *log = mem_must_zalloc(sizeof(*log));
    lock_init(&log->lock, LOCK_RANK_SLOWLOG);
    return log;
}

static void free_list(struct slowlog_entry *e) {
    while (e != NULL) {
        struct slowlog_entry *older = e->older;
        mem_free(e);
        e = older;
    }
}

void slowlog_destroy(struct slowlog *log) {
    if (log != NULL) {
        free_list(log->newest);
        lock_fini(&log->lock);
        mem_free(log);
    }
}

/* --- entries ----------------------------------------------------------------------------------------------------- */

/* What stands for argument i of those that are kept: itself, its head and a remark, or a remark in place of the rest.
 * 'remark' is empty where there is none. Returns the bytes kept of the argument. */
static size_t kept_of(const struct slowlog_fact *f, uint32_t i, char remark[MORE_LEN_MAX]) {
    remark[0] = '\0';
    if (f->argc > SLOWLOG_ARGS_MAX && i == SLOWLOG_ARGS_MAX - 1) {
        snprintf(remark, MORE_LEN_MAX, "... (%u more arguments)", f->argc - SLOWLOG_ARGS_MAX + 1);
        return 0;
    }
    size_t len = f->argv[i].len;
    if (len <= SLOWLOG_ARG_LEN_MAX) {
        return len;
    }
    snprintf(remark, MORE_LEN_MAX, "... (%zu more bytes)", len - SLOWLOG_ARG_LEN_MAX);
    return SLOWLOG_ARG_LEN_MAX;
}

static struct bytes store_bytes(char **at, struct bytes head, const char *tail) {
    char *start = *at;
    size_t tail_len = strlen(tail);
    if (head.len > 0) {
        memcpy(start, head.ptr, head.len);
    }
    memcpy(start + head.len, tail, tail_len);
    *at = start + head.len + tail_len;
    return bytes_of(start, head.len + tail_len);
}

static struct slowlog_entry *entry_of(const struct slowlog_fact *f) {
    char remark[MORE_LEN_MAX];
    uint32_t argc = f->argc < SLOWLOG_ARGS_MAX ? f->argc : SLOWLOG_ARGS_MAX;
    size_t len = f->addr.len + f->name.len;
    for (uint32_t i = 0; i < argc; i++) {
        len += kept_of(f, i, remark) + strlen(remark);
    }
    struct slowlog_entry *e = mem_must_alloc(sizeof(*e) + argc * sizeof(e->argv[0]) + len);
    char *at = (char *)&e->argv[argc];
    char *end = at + len;
    *e = (struct slowlog_entry){.time_s = f->time_s, .usec = f->usec, .argc = argc};
    e->addr = store_bytes(&at, f->addr, "");
    e->name = store_bytes(&at, f->name, "");
    for (uint32_t i = 0; i < argc; i++) {
        size_t kept = kept_of(f, i, remark);
        e->argv[i] = store_bytes(&at, bytes_of(f->argv[i].ptr, kept), remark);
    }
    dc_assert(at == end);
    return e;
}

/* Cuts off what is beyond 'max_len' and returns it. */
static struct slowlog_entry *cut_locked(struct slowlog *log, uint32_t max_len)
    DC_REQUIRES(log->lock) {
    if (log->len <= max_len) {
        return NULL;
    }
    struct slowlog_entry **link = &log->newest;
    for (uint32_t i = 0; i < max_len; i++) {
        link = &(*link)->older;
    }
    struct slowlog_entry *rest = *link;
    *link = NULL;
    log->len = max_len;
    return rest;
}

void slowlog_add(struct slowlog *log, const struct slowlog_fact *fact, uint32_t max_len) {
    struct slowlog_entry *e = entry_of(fact);
    lock_acquire(&log->lock);
    e->id = log->next_id++; /* I1 */
    e->older = log->newest;
    log->newest = e;
    log->len++;
    struct slowlog_entry *rest = cut_locked(log, max_len); /* I2 */
    lock_release(&log->lock);
    free_list(rest);
}

/* --- what a worker notes ----------------------------------------------------------------------------------------- */

static bool is_secret_option(struct bytes name) {
    return bytes_is(name, "requirepass") || bytes_is(name, "masterauth");
}

/* The password of CONFIG SET; MONITOR, which never shows CONFIG, knows the others. */
static struct bytes shown_arg(const struct cmd *cmd, const struct bytes *argv, uint32_t argc,
                              uint32_t i) {
    if (cmd == NULL) {
        return argv[i];
    }
    if (cmd->id == CMD_CONFIG_SET && i >= 3 && i % 2 == 1 && is_secret_option(argv[i - 1])) {
        return BYTES("(redacted)");
    }
    return monitor_shown_arg(cmd, argv, argc, i);
}

void slowlog_note(struct cmd_worker *w, struct client *c, const struct bytes *argv, uint32_t argc,
                  uint64_t usec) {
    struct node *n = w->node;
    const struct cmd *cmd = cmd_lookup(argv, argc);
    struct bytes shown[SLOWLOG_ARGS_MAX];
    uint32_t count = argc < SLOWLOG_ARGS_MAX ? argc : SLOWLOG_ARGS_MAX;
    for (uint32_t i = 0; i < count; i++) {
        shown[i] = shown_arg(cmd, argv, argc, i);
    }
    struct slowlog_fact fact = {
        .time_s = w->now_us / 1000000,
        .usec = usec,
        .addr = bytes_str(c->addr),
        /* Only this worker writes the name, so reading it takes no lock. */
        .name = c->name != NULL ? bytes_str(c->name) : BYTES(""),
        .argc = argc,
        .argv = shown,
    };
    int64_t max_len = conf_get(n->conf, slowlog_max_len);
    slowlog_add(n->slowlog, &fact, max_len < UINT32_MAX ? (uint32_t)max_len : UINT32_MAX - 1);
}

/* --- what SLOWLOG asks ------------------------------------------------------------------------------------------- */

uint32_t slowlog_len(struct slowlog *log) {
    lock_acquire(&log->lock);
    uint32_t len = log->len;
    lock_release(&log->lock);
    return len;
}

void slowlog_reset(struct slowlog *log) {
    lock_acquire(&log->lock);
    struct slowlog_entry *rest = cut_locked(log, 0);
    lock_release(&log->lock);
    free_list(rest);
}

void slowlog_each(struct slowlog *log, uint32_t count, slowlog_begin_fn begin, slowlog_each_fn each,
                  void *arg) {
    lock_acquire(&log->lock);
    count = count < log->len ? count : log->len;
    begin(arg, count);
    for (const struct slowlog_entry *e = log->newest; count > 0; e = e->older, count--) {
        each(arg, e);
    }
    lock_release(&log->lock);
}
