/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/net/loop.h"

#include "server/base/assert.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/net/conn.h"
#include "server/net/conn_out.h"
#include "server/net/gates.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    OUT_KEEP_LEN = 1024 * 1024,
    TURN_ROUNDS = 4,
    WRITE_WAIT_US = 1000, /* for the writer, before replies are put aside */
    ENDED_LOOK_US = 1000000,
};

static struct conn *list_take(struct conn_list *l) {
    struct conn *first = l->first;
    conn_list_init(l);
    return first;
}

/* --- messages ---------------------------------------------------------------------------------------- */

void worker_post(struct worker *w, struct message *m) {
    uint64_t one = 1;
    m->next = NULL;
    lock_acquire(&w->mailbox_lock);
    bool was_empty = w->mail == NULL;
    *w->mail_tail = m;
    w->mail_tail = &m->next;
    lock_release(&w->mailbox_lock);
    if (was_empty && write(w->wake_fd, &one, sizeof(one)) != sizeof(one)) {
        dc_assert(errno == EAGAIN); /* the counter is full: it is awake anyway */
    }
}

static void run_messages(struct worker *w) {
    lock_acquire(&w->mailbox_lock);
    struct message *m = w->mail;
    w->mail = NULL;
    w->mail_tail = &w->mail;
    lock_release(&w->mailbox_lock);
    if (m != NULL) {
        worker_turn_begin(w);
    }
    while (m != NULL) {
        struct message *next = m->next;
        metric_add(&w->cmd.metrics, METRIC_MESSAGES, 1);
        m->run(&w->cmd, m);
        m = next;
    }
}

void worker_look_again(struct worker *w) {
    worker_turn_begin(w);
    for (struct conn *c = w->conns; c != NULL && w->held_count > 0; c = c->next) {
        if (c->held != NULL) {
            conn_feed(c);
        }
    }
}

void worker_resume(struct worker *w) {
    uint64_t one = 1;
    if (!atomic_exchange_explicit(&w->resumed, true, memory_order_acq_rel) &&
        write(w->wake_fd, &one, sizeof(one)) != sizeof(one)) {
        dc_assert(errno == EAGAIN);
    }
}

static void on_wake(evutil_socket_t fd, short what, void *arg) {
    struct worker *w = arg;
    uint64_t count;
    (void)what;
    if (read(fd, &count, sizeof(count)) != sizeof(count)) {
        return; /* somebody was quicker; the messages were seen */
    }
    /* Before it looks: who moves something from here on wakes it again. Pairs with the release in worker_resume. */
    if (atomic_exchange_explicit(&w->resumed, false, memory_order_acq_rel)) {
        worker_look_again(w);
    }
    run_messages(w);
}

/* --- the turn ---------------------------------------------------------------------------------------- */

void worker_turn_begin(struct worker *w) {
    if (!w->turn_open) {
        w->turn_open = true;
        /* Before the turn asks anybody to tell: who is asked later finds it in host_resume(). */
        atomic_store_explicit(&w->waits, true, memory_order_seq_cst);
        cmd_batch_begin(&w->cmd);
        metric_add(&w->cmd.metrics, METRIC_TURNS, 1);
    }
}

static void look_again(struct worker *w) {
    for (struct conn *c = list_take(&w->again); c != NULL;) {
        struct conn *next = c->next_again;
        c->in_again = false;
        if (!c->closed && c->queue != NULL) {
            conn_enter_flush(c);
        }
        if (!c->closed) {
            conn_feed(c);
        }
        c = next;
    }
}

static void run_phase(struct worker *w) {
    struct conn *first = list_take(&w->run);
    for (struct conn *c = first; c != NULL; c = c->next_run) {
        conn_prefetch_lines(c);
    }
    if (first != NULL) {
        conn_prefetch_entries(first);
    }
    w->cmd.ticks = time_ticks();
    for (struct conn *c = first; c != NULL; c = c->next_run) {
        c->in_run = false;
        if (!c->closed) {
            w->running = c;
            if (c->next_run != NULL) {
                conn_prefetch_entries(c->next_run); /* while this one runs, they arrive */
            }
            conn_run(c);
            w->running = NULL;
        }
    }
}

/* Replies that wait for the writer: whatever else has been asked meanwhile goes with the same write. */
static void run_more(struct worker *w) {
    bool others = atomic_load_explicit(&w->conn_count, memory_order_relaxed) > 1;
    bool waits = others && gates_want_company(w);
    for (uint32_t round = 1; round < TURN_ROUNDS && waits; round++) {
        w->turn_open = false; /* the clock goes on */
        if (event_base_loop(w->base, EVLOOP_ONCE | EVLOOP_NONBLOCK) < 0 || w->run.first == NULL) {
            return;
        }
        run_phase(w);
    }
}

void worker_flush(struct worker *w) {
    gates_open(w);
    while (w->flush.first != NULL) {
        for (struct conn *c = list_take(&w->flush); c != NULL;) {
            struct conn *next = c->next_flush;
            c->in_flush = false;
            if (!c->closed) {
                conn_flush(c);
            }
            c = next;
        }
    }
}

/* What sockets still take, at the end. */
static void send_rest(struct worker *w) {
    for (struct conn *c = w->conns; c != NULL; c = c->next) {
        if (c->queue != NULL) {
            conn_enter_flush(c);
        }
    }
    worker_flush(w);
}

/* Frees closed connections, but for those that another list still holds: they go a turn later. */
static void bury(struct worker *w) {
    for (struct conn *c = list_take(&w->dead); c != NULL;) {
        struct conn *next = c->next_dead;
        if (c->in_again || c->in_gated) {
            conn_enter_dead(c);
        } else {
            conn_free(c);
        }
        c = next;
    }
}

static void turn_run(struct worker *w) {
    if (w->again.first != NULL) {
        worker_turn_begin(w);
        look_again(w);
    }
    /* What was posted before a request was sent arrives before the request runs: who was told that a message went out
     * finds it delivered. */
    run_messages(w);
    run_phase(w);
    run_more(w);
}

static void turn_flush(struct worker *w) {
    w->turn_lent = false;
    worker_flush(w);
    gates_wait(w);
    bury(w);
    w->gates.part_count = 0;
    if (w->held_count == 0 && w->gates.waiting.first == NULL) {
        atomic_store_explicit(&w->waits, false, memory_order_relaxed);
    }
    buf_reset(&w->out, OUT_KEEP_LEN);
    arena_reset(&w->arena);
    w->turn_open = false;
}

/* False: the loop was taken while the log was written. */
static bool turn_write(struct worker *w) {
    struct log *log = w->cmd.node->log;
    bool waits;
    uint64_t lsn = gates_ask(w, &waits);
    if (lsn == 0) {
        return true;
    }
    w->turn_lent = true;
    int64_t loan = seat_lend(&w->seat);
    (void)log_write_through(log, (struct lsn){lsn}, waits ? WRITE_WAIT_US : 0);
    return seat_take(&w->seat, loan);
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
    struct worker *w = arg;
    (void)fd, (void)what;
    worker_turn_begin(w);
    int64_t now_ms = w->cmd.now_us / 1000;
    w->gates.ticked = true;
    ears_tick(w);
    bool all = ++w->ticks % (1000 / WORKER_TIMER_MS) == 0;
    for (struct conn *c = w->conns; c != NULL && (all || w->held_count > 0);) {
        struct conn *next = c->next;
        conn_tick(c, now_ms);
        c = next;
    }
}

bool worker_run(struct worker *w) {
    char name[16];
    snprintf(name, sizeof(name), "worker-%u", w->cmd.index);
    thread_rename(name);
    if (w->turn_lent) {
        turn_flush(w);
    }
    while (!atomic_load_explicit(&w->stopping, memory_order_acquire)) {
        int flags = EVLOOP_ONCE | (w->again.first != NULL ? EVLOOP_NONBLOCK : 0);
        if (event_base_loop(w->base, flags) < 0) {
            diag(DIAG_WARNING, "worker.loop_failed worker=%u", w->cmd.index);
            break;
        }
        turn_run(w);
        if (!turn_write(w)) {
            return false;
        }
        turn_flush(w);
    }
    ears_close(w);
    send_rest(w);
    gates_settle(w);
    while (w->conns != NULL) {
        conn_close(w->conns);
    }
    turn_run(w);
    turn_flush(w); /* of what they had in mind nobody is told */
    dc_assert(w->dead.first == NULL);
    wake_raise(&w->ended);
    return true;
}

static void worker_main(void *arg) {
    struct worker *w = arg;
    struct understudy *understudy = w->seat.understudy;
    if (!worker_run(w)) {
        understudy_run(understudy);
    }
}

/* --- life -------------------------------------------------------------------------------------------- */

static _Noreturn void die(const char *what) {
    diag(DIAG_WARNING, "worker.start_failed what=%s error=\"%s\"", what, dc_errno_text(errno));
    exit(1);
}

struct worker *worker_create(struct node *n, uint32_t index) {
    struct worker *w = mem_must_aligned(64, (sizeof(*w) + 63) / 64 * 64);
    memset(w, 0, sizeof(*w));
    arena_init(&w->arena, TURN_ARENA_LEN);
    cmd_worker_init(&w->cmd, n, index, &w->arena);
    buf_init(&w->out, 0);
    conn_list_init(&w->run);
    conn_list_init(&w->flush);
    conn_list_init(&w->again);
    conn_list_init(&w->dead);
    conn_list_init(&w->gates.waiting);
    lock_init(&w->mailbox_lock, LOCK_RANK_MAILBOX);
    wake_init(&w->ended);
    w->mail_tail = &w->mail;
    struct event_config *config = event_config_new();
    if (config == NULL) {
        die("event_config");
    }
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    event_config_require_features(config, EV_FEATURE_ET | EV_FEATURE_O1 | EV_FEATURE_EARLY_CLOSE);
    w->base = event_base_new_with_config(config);
    event_config_free(config);
    if (w->base == NULL) {
        die("event_base");
    }
    w->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (w->wake_fd < 0) {
        die("eventfd");
    }
    struct timeval period = {0, WORKER_TIMER_MS * 1000};
    w->wake = event_new(w->base, w->wake_fd, EV_READ | EV_PERSIST, on_wake, w);
    w->timer = event_new(w->base, -1, EV_PERSIST, on_timer, w);
    if (w->wake == NULL || w->timer == NULL || event_add(w->wake, NULL) < 0 ||
        event_add(w->timer, &period) < 0) {
        die("event");
    }
    return w;
}

void worker_start(struct worker *w) {
    char name[16];
    snprintf(name, sizeof(name), "worker-%u", w->cmd.index);
    thread_start(&w->thread, name, worker_main, w);
}

void worker_stop(struct worker *w) {
    uint64_t one = 1;
    /* pairs with the acquire in worker_run */
    atomic_store_explicit(&w->stopping, true, memory_order_release);
    if (write(w->wake_fd, &one, sizeof(one)) != sizeof(one)) {
        dc_assert(errno == EAGAIN);
    }
}

void worker_wait(struct worker *w) {
    while (!wake_wait(&w->ended, ENDED_LOOK_US)) {}
}

void worker_destroy(struct worker *w) {
    w->turn_open = true; /* none begins any more: the log is closed */
    run_messages(w);     /* what came too late frees itself */
    arena_reset(&w->arena);
    event_free(w->timer);
    event_free(w->wake);
    close(w->wake_fd);
    event_base_free(w->base);
    cmd_worker_fini(&w->cmd);
    lock_fini(&w->mailbox_lock);
    buf_fini(&w->out);
    arena_fini(&w->arena);
    mem_free_aligned(w, 64, (sizeof(*w) + 63) / 64 * 64);
}

/* --- the host ---------------------------------------------------------------------------------------- */

static void host_push(struct client *c, struct bytes data) {
    conn_push((struct conn *)c, data);
}

static void host_close(struct client *client, bool flush_first) {
    struct conn *c = (struct conn *)client;
    c->detach = NULL;
    if (flush_first || c->w->running == c) {
        c->close_soon = true;
        client->flags |= CLIENT_CLOSE_SOON;
        if (!c->in_flush && c->w->running != c) {
            conn_push(c, bytes_of("", 0));
        }
        return;
    }
    conn_close(c);
}

static void host_detach(struct client *client, detach_fn take) {
    struct conn *c = (struct conn *)client;
    dc_assert(c->w->running == c);
    c->detach = take;
    c->close_soon = true;
}

static void host_post(struct node *n, uint32_t worker, struct message *m) {
    worker_post((struct worker *)n->workers[worker], m);
}

static void host_resume(struct node *n) {
    for (uint32_t i = 0; i < n->worker_count; i++) {
        struct worker *w = (struct worker *)n->workers[i];
        if (atomic_load_explicit(&w->waits, memory_order_seq_cst)) {
            worker_resume(w);
        }
    }
}

static void host_shutdown(struct node *n, uint32_t how) {
    atomic_store_explicit(&n->shutting_down, how, memory_order_relaxed);
    kill(getpid(), SIGTERM); /* the main thread waits for it */
}

static void host_restart(struct node *n) {
    atomic_store_explicit(&n->restarting, 1, memory_order_relaxed);
    kill(getpid(), SIGUSR1);
}

static void host_each_client(struct cmd_worker *cw, void (*each)(struct client *c, void *arg),
                             void *arg) {
    for (struct conn *c = ((struct worker *)cw)->conns; c != NULL;) {
        struct conn *next = c->next;
        each(&c->client, arg);
        c = next;
    }
}

const struct host net_host = {
    .push = host_push,
    .close = host_close,
    .detach = host_detach,
    .post = host_post,
    .resume = host_resume,
    .refuse_waiting = gates_refuse,
    .shutdown = host_shutdown,
    .restart = host_restart,
    .each_client = host_each_client,
};
