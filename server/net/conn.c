/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/net/conn.h"

#include "server/base/assert.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/cmd/acks.h"
#include "server/cmd/pubsub.h"
#include "server/net/conn_out.h"
#include "server/net/gates.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* A request of this turn. */
struct task {
    struct task *next;
    struct job job;
};

static void enter_run(struct conn *c) {
    if (!c->in_run) {
        c->in_run = true;
        c->next_run = NULL;
        *c->w->run.tail = c;
        c->w->run.tail = &c->next_run;
    }
}

void conn_enter_again(struct conn *c) {
    if (!c->in_again) {
        c->in_again = true;
        c->next_again = NULL;
        *c->w->again.tail = c;
        c->w->again.tail = &c->next_again;
    }
}

/* --- life -------------------------------------------------------------------------------------------- */

static void on_socket(evutil_socket_t fd, short what, void *arg) {
    struct conn *c = arg;
    (void)fd;
    worker_turn_begin(c->w);
    if ((what & EV_CLOSED) && c->holds) {
        conn_close(c); /* nobody waits for what is held */
        return;
    }
    if (what & EV_CLOSED) {
        c->peer_closed = true;
        c->readable = true;
    }
    if (what & EV_READ) {
        c->readable = true;
    }
    if ((what & EV_WRITE) && c->queue != NULL) {
        conn_enter_flush(c);
    }
    if (c->readable) {
        conn_feed(c);
    }
}

void conn_open(struct worker *w, int fd, const char *addr, const char *laddr, bool is_unix) {
    struct conn *c = mem_must_zalloc(sizeof(*c));
    client_init(&c->client, &w->cmd, fd, addr, laddr, is_unix);
    c->w = w;
    c->tasks_tail = &c->tasks;
    buf_init(&c->in, 0);
    resp_parser_init(&c->parser);
    c->next = w->conns;
    if (c->next != NULL) {
        c->next->prev = c;
    }
    w->conns = c;
    event_assign(&c->event, w->base, fd, EV_READ | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST,
                 on_socket, c);
    if (event_add(&c->event, NULL) < 0) {
        diag(DIAG_WARNING, "conn.watch_failed addr=%s error=\"%s\"", addr, dc_errno_text(errno));
        conn_close(c);
    }
}

static void stop_holding(struct conn *c) {
    if (c->holds) {
        c->holds = false;
        c->w->held_count--;
    }
}

/* It is no client any more; the socket is as it was. */
static void leave(struct conn *c) {
    struct worker *w = c->w;
    dc_assert(!c->closed);
    c->closed = true;
    event_del(&c->event);
    client_fini(&c->client);
    stop_holding(c);
    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        w->conns = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    atomic_fetch_sub_explicit(&w->conn_count, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&w->cmd.node->client_count, 1, memory_order_relaxed);
    conn_enter_dead(c); /* freed after the turn (loop.h, I3) */
}

void conn_close(struct conn *c) {
    if (!c->closed) {
        leave(c); /* before the peer can see the end: it is no listener any more then */
        close(c->client.fd);
    }
}

void conn_detach(struct conn *c) {
    dc_assert(c->detach != NULL && c->queue == NULL && c->out_len == 0);
    leave(c);
    c->detach(c->w->cmd.node, c->client.fd, buf_bytes(&c->in), c->client.addr);
}

/* Through a link of its own: other lists may still hold the connection. */
void conn_enter_dead(struct conn *c) {
    c->next_dead = NULL;
    *c->w->dead.tail = c;
    c->w->dead.tail = &c->next_dead;
}

static void drop_held(struct conn *c) {
    while (c->held != NULL) {
        struct task *next = c->held->next;
        mem_free(c->held);
        c->held = next;
    }
}

void conn_free(struct conn *c) {
    conn_drop_queue(c);
    resp_parser_fini(&c->parser);
    buf_fini(&c->in);
    drop_held(c);
    mem_free(c);
}

/* --- reading ----------------------------------------------------------------------------------------- */

/* Says what recv() returned. */
static bool received(struct conn *c, ssize_t n, size_t room) {
    if (n > 0) {
        if ((size_t)n < room && !c->peer_closed) {
            c->readable = false; /* edge triggered: the next bytes announce themselves */
        }
        metric_add(&c->w->cmd.metrics, METRIC_INPUT_BYTES, (uint64_t)n);
        metric_add(&c->w->cmd.metrics, METRIC_READS, 1);
        atomic_store_explicit(&c->client.last_ms, c->w->cmd.now_us / 1000, memory_order_relaxed);
        return true;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        c->readable = errno == EINTR;
        return false;
    }
    conn_close(c); /* the peer is gone */
    return false;
}

/* A connection without unfinished input reads into the turn's arena. */
static bool receive_fresh(struct conn *c) {
    struct arena *a = &c->w->arena;
    if (arena_room(a) < READ_CHUNK_LEN) {
        conn_enter_again(c);
        return false;
    }
    char *to = a->base + a->used;
    ssize_t n = recv(c->client.fd, to, READ_CHUNK_LEN, 0);
    if (!received(c, n, READ_CHUNK_LEN)) {
        return false;
    }
    (void)arena_alloc(a, (size_t)n);
    c->data = to;
    c->len = (size_t)n;
    return true;
}

/* The rest of a request goes behind its beginning. */
static bool receive_rest(struct conn *c) {
    size_t wants = resp_parse_wants(&c->parser);
    size_t room = wants > c->in.len + READ_CHUNK_LEN ? wants - c->in.len : READ_CHUNK_LEN;
    room = room < READ_LARGE_LEN ? room : READ_LARGE_LEN;
    if (c->in.len + room > (size_t)conf_get(c->w->cmd.node->conf, client_query_buffer_limit)) {
        diag(DIAG_WARNING, "conn.input_limit addr=%s bytes=%zu", c->client.addr, c->in.len);
        metric_add(&c->w->cmd.metrics, METRIC_QUERY_LIMIT_DISCONNECTS, 1);
        conn_close(c);
        return false;
    }
    if (buf_reserve(&c->in, room) != DC_OK) {
        conn_close(c);
        return false;
    }
    ssize_t n = recv(c->client.fd, c->in.ptr + c->in.len, room, 0);
    if (!received(c, n, room)) {
        return false;
    }
    c->in.len += (size_t)n;
    c->data = c->in.ptr;
    c->len = c->in.len;
    return true;
}

static bool detaches(const struct task *t) {
    return t->job.cmd != NULL && (t->job.cmd->flags & F_DETACHES);
}

/* Parses what lies there, up to a batch. */
static void parse_batch(struct conn *c) {
    struct worker *w = c->w;
    struct node *n = w->cmd.node;
    bool authenticated = client_is_authenticated(&c->client);
    struct resp_context ctx = {&w->arena, (uint64_t)conf_get(n->conf, proto_max_bulk_len),
                               authenticated};
    /* One at a time where a command changes how the next one is read, or may have to wait. */
    bool one =
        !authenticated || atomic_load_explicit(&n->pause_until_ms, memory_order_relaxed) != 0;
    uint32_t room = one ? 1 : BATCH_REQUESTS_MAX;
    while (room > 0 && c->len > 0) {
        struct task *t = arena_alloc(&w->arena, sizeof(*t));
        enum resp_outcome outcome = resp_parse(&c->parser, c->data, c->len, &ctx, &t->job.req);
        if (outcome == RESP_MORE) {
            break;
        }
        if (outcome == RESP_BAD) {
            c->bad = true;
            break;
        }
        c->data += t->job.req.len;
        c->len -= t->job.req.len;
        if (outcome == RESP_DONE) {
            cmd_prepare(&w->cmd, &c->client, &t->job);
            t->next = NULL;
            *c->tasks_tail = t;
            c->tasks_tail = &t->next;
            room = dc_unlikely(detaches(t)) ? 0 : room - 1;
        }
    }
    c->unparsed = room == 0 && c->len > 0;
}

void conn_feed(struct conn *c) {
    if (c->in_run || c->stalled || c->close_soon || c->bad) {
        return;
    }
    if (dc_unlikely(pubsub_is_backlogged(c->w->cmd.node))) {
        conn_enter_again(c); /* what is under way to other workers has to arrive first */
        return;
    }
    if (c->held == NULL) {
        if (c->unparsed) {
            c->data = c->in.ptr;
            c->len = c->in.len;
        } else if (!c->readable || !(c->in.len == 0 ? receive_fresh(c) : receive_rest(c))) {
            return;
        }
        parse_batch(c);
    } else {
        c->data = c->in.ptr;
        c->len = c->in.len;
    }
    enter_run(c);
}

void conn_prefetch_lines(struct conn *c) {
    for (struct task *t = c->tasks; t != NULL; t = t->next) {
        cmd_prefetch_line(&c->client, &t->job);
    }
}

void conn_prefetch_entries(struct conn *c) {
    for (struct task *t = c->tasks; t != NULL; t = t->next) {
        cmd_prefetch_entry(&c->client, &t->job);
    }
}

/* --- running ----------------------------------------------------------------------------------------- */

/* A copy that outlives the turn. Its bytes lie behind the arguments. */
static struct task *task_copy(const struct task *t) {
    const struct request *req = &t->job.req;
    size_t len = sizeof(*t) + req->argc * sizeof(struct bytes);
    size_t at = len;
    for (uint32_t i = 0; i < req->argc; i++) {
        len += req->argv[i].len;
    }
    struct task *copy = mem_must_alloc(len);
    *copy = *t;
    copy->next = NULL;
    copy->job.req.argv = (struct bytes *)(copy + 1);
    for (uint32_t i = 0; i < req->argc; i++) {
        copy->job.req.argv[i] = bytes_of((char *)copy + at, req->argv[i].len);
        memcpy((char *)copy + at, req->argv[i].ptr, req->argv[i].len);
        at += req->argv[i].len;
    }
    if (copy->job.hashed) {
        copy->job.key.name = copy->job.req.argv[copy->job.cmd->key_first];
    }
    return copy;
}

/* Others of this turn stand beside the reply. */
static bool has_company(const struct conn *c) {
    return c->answers != 1 || c->part_count > 0 || c->tasks != NULL || c->unparsed ||
           c->held != NULL;
}

static void run_task(struct conn *c, struct task *t, struct reply *reply) {
    struct cmd_worker *w = &c->w->cmd;
    size_t before = reply->out->len;
    uint64_t gate = w->gate; /* of those before */
    w->gate = 0;
    reply->proto = c->client.proto;
    cmd_run(w, &c->client, &t->job, reply);
    c->answers += reply->out->len > before; /* CLIENT REPLY OFF */
    if (dc_unlikely(c->notes_parts) && w->gate > 0 && has_company(c)) {
        gates_note_part(c, before, reply->out->len, w->gate);
    }
    w->gate = gate > w->gate ? gate : w->gate;
    if (dc_unlikely(c->client.flags & (CLIENT_CLOSE_SOON | CLIENT_ACK_CHANGED | CLIENT_ACK_ONCE))) {
        c->close_soon |= (c->client.flags & CLIENT_CLOSE_SOON) != 0;
        if (client_level_moves(&c->client)) {
            conn_change_level(c, reply);
        }
    }
}

/* The requests from 't' on have to wait; what a pause came in the middle of may be many. */
static void hold(struct conn *c, const struct task *t) {
    struct task **tail = &c->held;
    dc_assert(c->held == NULL);
    for (; t != NULL; t = t->next) {
        *tail = task_copy(t);
        tail = &(*tail)->next;
    }
    c->holds = true;
    c->w->held_count++;
}

/* False when some still have to wait. */
static bool run_held(struct conn *c, struct reply *reply) {
    while (c->held != NULL && !c->close_soon && !c->closed) {
        struct task *t = c->held;
        if (cmd_is_held(&c->w->cmd, &c->client, &t->job)) {
            return false;
        }
        c->held = t->next;
        run_task(c, t, reply);
        mem_free(t);
    }
    drop_held(c);
    stop_holding(c);
    return true;
}

/* Everything parsed, and what can still be parsed; stops where the connection must wait. */
static void run_tasks(struct conn *c, struct reply *reply) {
    struct worker *w = c->w;
    if (c->held != NULL) {
        if (!run_held(c, reply)) {
            return;
        }
        if (!c->close_soon) {
            parse_batch(c);
        }
    }
    while (c->tasks != NULL && !c->close_soon) {
        struct task *t = c->tasks;
        c->tasks = t->next;
        if (dc_unlikely(cmd_is_held(&w->cmd, &c->client, &t->job))) {
            hold(c, t);
            break;
        }
        run_task(c, t, reply);
        if (c->tasks == NULL) {
            c->tasks_tail = &c->tasks;
            if (c->unparsed && !c->close_soon &&
                w->out.len - c->out_start + c->queued < OUTPUT_SOFT_LEN) {
                parse_batch(c);
                conn_prefetch_lines(c);
                conn_prefetch_entries(c);
            }
        }
    }
    c->tasks = NULL;
    c->tasks_tail = &c->tasks;
}

/* Keeps what isn't parsed for the next turn. */
static void keep_rest(struct conn *c) {
    bool in_arena = c->in.len == 0;
    if (in_arena && c->len > 0) {
        buf_append(&c->in, c->data, c->len);
        if (c->in.failed) {
            c->bad = true;
            c->close_soon = true;
        }
    } else if (!in_arena) {
        buf_consume(&c->in, c->in.len - c->len);
    }
    if (c->in.len == 0 && c->in.cap > 0) {
        buf_fini(&c->in);
        buf_init(&c->in, 0);
    }
    c->data = NULL;
    c->len = 0;
    atomic_store_explicit(&c->client.seen_input, c->in.len, memory_order_relaxed);
}

void conn_run(struct conn *c) {
    struct worker *w = c->w;
    struct reply reply = {.out = &w->out,
                          .proto = c->client.proto,
                          .owner = c,
                          .take_blob = conn_take_blob,
                          .drop_blob = conn_drop_blob};
    if (dc_unlikely(c->out_len > 0)) { /* it has run in this turn */
        conn_queue_replies(c);
    }
    c->out_start = w->out.len;
    c->out_len = 0;
    c->answers = 0;
    gates_begin_parts(c);
    w->cmd.gate = 0;
    uint64_t safe = w->cmd.safe; /* under the default level */
    if (dc_unlikely(!ack_is_default(c->level))) {
        w->cmd.safe = acks_mark(w->cmd.node, c->level);
    }
    run_tasks(c, &reply);
    w->cmd.safe = safe;
    c->gate = w->cmd.gate;
    gates_note(c);
    if (c->bad && !c->close_soon) {
        resp_reply_error(&c->parser, &reply);
        c->close_soon = true;
    }
    if (c->closed) {
        reply_truncate(&reply, c->out_start);
        return;
    }
    keep_rest(c);
    c->out_len = w->out.len - c->out_start;
    conn_end_replies(c, &reply);
    if (c->out_len > 0 || c->queue != NULL || c->close_soon) {
        conn_enter_flush(c);
    }
    if ((c->readable || c->unparsed) && c->held == NULL) {
        conn_enter_again(c);
    }
}

void conn_resume_reading(struct conn *c) {
    c->stalled = false;
    if ((c->readable || c->unparsed) && c->held == NULL) {
        conn_enter_again(c);
    }
}

void conn_tick(struct conn *c, int64_t now_ms) {
    struct node *n = c->w->cmd.node;
    int64_t timeout_s = conf_get(n->conf, timeout);
    if (c->held != NULL) {
        conn_feed(c);
        return;
    }
    if (timeout_s > 0 && !(c->client.flags & (CLIENT_SUBSCRIBED | CLIENT_MONITOR)) &&
        now_ms - atomic_load_explicit(&c->client.last_ms, memory_order_relaxed) >
            timeout_s * 1000) {
        conn_close(c);
        return;
    }
    conn_check_limits(c);
}
