/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Output. Replies of a turn lie together in the worker's buffer and usually leave in one send. What the socket doesn't
 * take, what is pushed to a connection that isn't running, and large values go to a queue of chunks; while
 * there is a queue, everything goes behind it.
 */
#include "server/net/conn_out.h"

#include "server/base/assert.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/cmd/acks.h"
#include "server/net/gates.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { CHUNK_MIN_LEN = 1000, IOV_COUNT = 64 };

struct chunk {
    struct chunk *next;
    struct blob *blob; /* NULL: the bytes stand behind the struct */
    uint64_t lsn;      /* it leaves when its level has come so far; 0 = it may leave */
    int64_t since_ms;  /* it waits since then */
    struct ack_level level;
    struct gate_part *parts; /* which of its replies wait for what; NULL = all of them */
    uint32_t part_count;
    bool more;        /* the reply that it ends with goes on in the next one */
    uint32_t answers; /* replies that end in it */
    const char *ptr;
    size_t len;
    size_t cap;
    char data[];
};

void conn_enter_flush(struct conn *c) {
    if (!c->in_flush) {
        c->in_flush = true;
        c->next_flush = NULL;
        *c->w->flush.tail = c;
        c->w->flush.tail = &c->next_flush;
    }
}

static void count_queued(struct conn *c) {
    atomic_store_explicit(&c->client.seen_output, c->queued, memory_order_relaxed);
}

static void put_back(struct conn *c, struct chunk *k) {
    k->next = NULL;
    if (c->queue == NULL) {
        c->queue = k;
    } else {
        c->queue_last->next = k;
    }
    c->queue_last = k;
    c->queued += k->len;
}

static void add_chunk(struct conn *c, struct chunk *k) {
    k->lsn = c->gate;
    k->level = c->level;
    k->since_ms = c->w->cmd.now_us / 1000;
    put_back(c, k);
}

/* Bytes behind the last chunk may stand in it. What waits takes nothing along: it may be refused. */
static bool goes_along(const struct conn *c, const struct chunk *last) {
    return last->blob == NULL && last->lsn == 0 && c->gate == 0;
}

static void queue_bytes(struct conn *c, const char *ptr, size_t len) {
    struct chunk *last = c->queue == NULL ? NULL : c->queue_last;
    if (len == 0) {
        return;
    }
    if (last != NULL && goes_along(c, last) &&
        (size_t)(last->ptr - last->data) + last->len + len <= last->cap) {
        memcpy(last->data + (last->ptr - last->data) + last->len, ptr, len);
        last->len += len;
        c->queued += len;
        return;
    }
    size_t cap = len > CHUNK_MIN_LEN ? len : CHUNK_MIN_LEN;
    cap = mem_good_size(sizeof(struct chunk) + cap) - sizeof(struct chunk);
    struct chunk *k = mem_must_alloc(sizeof(*k) + cap);
    *k = (struct chunk){.ptr = k->data, .len = len, .cap = cap};
    memcpy(k->data, ptr, len);
    add_chunk(c, k);
}

static void chunk_free(struct chunk *k) {
    blob_release(k->blob);
    mem_free(k->parts);
    mem_free(k);
}

void conn_drop_queue(struct conn *c) {
    while (c->queue != NULL) {
        struct chunk *next = c->queue->next;
        chunk_free(c->queue);
        c->queue = next;
    }
    c->queued = 0;
}

/* An error in the place of a reply. 'why' is NULL when the time is over. */
static void queue_refusal(struct conn *c, struct ack_level level, uint64_t lsn, const char *why) {
    char text[512], missing[256], name[ACK_TEXT_MAX];
    struct node *n = c->w->cmd.node;
    int len;
    if (why == NULL) {
        acks_explain(n, level, lsn, missing, sizeof(missing));
        (void)ack_text(acks_resolve(n, level), name);
        len = snprintf(text, sizeof(text),
                       "-UNCONFIRMED applied at LSN %" PRIu64 ", not confirmed: %s after %" PRId64
                       " ms (level %s)\r\n",
                       lsn, missing, conf_get(n->conf, ack_timeout), name);
    } else {
        len = snprintf(text, sizeof(text),
                       "-UNCONFIRMED applied at LSN %" PRIu64 ", not confirmed: %.256s\r\n", lsn,
                       why);
    }
    metric_add(&c->w->cmd.metrics, METRIC_UNCONFIRMED, 1);
    queue_bytes(c, text, (size_t)len);
}

/* Nothing of a chunk that waits has been sent. Without parts its bytes may hold a reply's beginning whose end is in the next one, so
 * each is answered where it ends. */
static void refuse_chunk(struct conn *c, const struct chunk *k, const char *why) {
    uint64_t mark = gates_mark(c->w, k->level);
    size_t at = 0;
    for (uint32_t i = 0; k->parts == NULL && i < k->answers; i++) {
        queue_refusal(c, k->level, k->lsn, why);
    }
    for (uint32_t i = 0; i < k->part_count; i++) {
        const struct gate_part *p = &k->parts[i];
        if (p->gate > mark) {
            queue_bytes(c, k->ptr + at, p->start - at);
            if (p->end > p->start) { /* CLIENT REPLY SKIP */
                queue_refusal(c, k->level, p->gate, why);
            }
            at = p->end;
        }
    }
    if (k->parts != NULL) {
        queue_bytes(c, k->ptr + at, k->len - at);
    }
}

void conn_refuse_gated(struct conn *c, const char *why, int64_t up_to_ms) {
    struct chunk *k = c->queue;
    struct ack_level level = c->level;
    c->queue = NULL;
    c->queued = 0;
    while (k != NULL) {
        struct chunk *next = k->next;
        bool waits = k->lsn > 0 && k->lsn > gates_mark(c->w, k->level);
        if (waits && k->since_ms <= up_to_ms) {
            c->gate = 0;
            refuse_chunk(c, k, why);
            chunk_free(k);
        } else {
            put_back(c, k);
        }
        k = next;
    }
    c->gate = 0;
    c->level = level;
}

/* --- large values ------------------------------------------------------------------------------------ */

void conn_take_blob(struct reply *r, struct blob *blob, size_t from, size_t len) {
    struct conn *c = r->owner;
    struct reply_splice *s = arena_alloc(&c->w->arena, sizeof(*s));
    *s = (struct reply_splice){r->splices, r->out->len, blob_acquire(blob), from, len};
    r->splices = s;
}

void conn_drop_blob(struct reply *r) {
    blob_release(r->splices->blob);
    r->splices = r->splices->prev;
}

/* What is queued ends here, for this turn: what comes behind it isn't gated by it. */
static void end_answers(struct conn *c) {
    if (c->queue != NULL) {
        c->queue_last->answers += c->answers;
    }
    c->answers = 0;
    c->gate = 0;
    c->part_count = 0;
}

/* Of replies that lie in one chunk. */
static void take_parts(struct conn *c, struct chunk *k) {
    size_t len = c->part_count * sizeof(*k->parts);
    k->parts = mem_must_alloc(len);
    memcpy(k->parts, &c->w->gates.parts[c->part_first], len);
    k->part_count = c->part_count;
}

/* Bytes and large values in turns, into the queue. */
static void queue_spliced(struct conn *c, struct reply *reply) {
    struct reply_splice *in_order = NULL;
    while (reply->splices != NULL) {
        struct reply_splice *s = reply->splices;
        reply->splices = s->prev;
        s->prev = in_order;
        in_order = s;
    }
    size_t at = c->out_start;
    for (struct reply_splice *s = in_order; s != NULL; s = s->prev) {
        queue_bytes(c, c->w->out.ptr + at, s->offset - at); /* the length, at least */
        c->queue_last->more = true;
        at = s->offset;
        struct chunk *k = mem_must_alloc(sizeof(*k));
        *k = (struct chunk){
            .blob = s->blob, .ptr = s->blob->data + s->from, .len = s->len, .more = true};
        add_chunk(c, k);
    }
    queue_bytes(c, c->w->out.ptr + at, c->out_start + c->out_len - at);
    if (c->queue != NULL) {
        c->queue_last->more = false;
    }
    c->out_len = 0;
    end_answers(c);
}

void conn_queue_replies(struct conn *c) {
    queue_bytes(c, c->w->out.ptr + c->out_start, c->out_len);
    if (c->gate > 0 && c->out_len > 0 && c->part_count > 0) {
        take_parts(c, c->queue_last);
    }
    c->out_len = 0;
    end_answers(c);
}

void conn_change_level(struct conn *c, struct reply *reply) {
    struct worker *w = c->w;
    if (!w->out.failed) { /* else the connection is about to be closed */
        c->gate = w->cmd.gate;
        gates_note(c);
        c->out_len = w->out.len - c->out_start;
        if (reply->splices != NULL) {
            queue_spliced(c, reply);
        } else {
            conn_queue_replies(c);
        }
        c->out_start = w->out.len;
    }
    c->level = client_level(&c->client);
    gates_begin_parts(c);
    w->cmd.gate = 0;
    w->cmd.safe = acks_mark(w->cmd.node, c->level);
}

void conn_end_replies(struct conn *c, struct reply *reply) {
    if (dc_unlikely(c->w->out.failed)) {
        diag(DIAG_WARNING, "conn.output_failed addr=%s", c->client.addr);
        reply_truncate(reply, c->out_start);
        conn_close(c);
        return;
    }
    if (dc_unlikely(reply->splices != NULL)) {
        queue_spliced(c, reply);
    } else if (dc_unlikely(c->queue != NULL) && c->out_len > 0) {
        conn_queue_replies(c);
    }
    c->stalled = c->queued > OUTPUT_SOFT_LEN;
    conn_check_limits(c);
}

void conn_push(struct conn *c, struct bytes data) {
    if (c->closed || c->over_limit) {
        return;
    }
    if (c->w->running == c) {
        buf_append_bytes(&c->w->out, data);
        return;
    }
    if (c->out_len > 0) {
        conn_queue_replies(c);
    }
    queue_bytes(c, data.ptr, data.len);
    conn_enter_flush(c);
    conn_check_limits(c);
}

/* --- limits ------------------------------------------------------------------------------------------ */

void conn_check_limits(struct conn *c) {
    /* A monitor doesn't ask for what it gets either. */
    bool pushed = (c->client.flags & (CLIENT_SUBSCRIBED | CLIENT_MONITOR)) != 0;
    struct output_limit *l = &c->w->cmd.node->output_limits[pushed ? OUTPUT_PUBSUB : OUTPUT_NORMAL];
    int64_t hard = atomic_load_explicit(&l->hard, memory_order_relaxed);
    int64_t soft = atomic_load_explicit(&l->soft, memory_order_relaxed);
    int64_t soft_ms = 1000 * atomic_load_explicit(&l->soft_s, memory_order_relaxed);
    int64_t now_ms = c->w->cmd.now_us / 1000;
    bool over_soft = soft > 0 && (int64_t)c->queued > soft;
    if (!over_soft) {
        c->soft_since_ms = 0;
    } else if (c->soft_since_ms == 0) {
        c->soft_since_ms = now_ms;
    }
    if (c->over_limit) {
        return;
    }
    if ((hard > 0 && (int64_t)c->queued > hard) ||
        (over_soft && now_ms - c->soft_since_ms >= soft_ms)) {
        diag(DIAG_WARNING, "conn.output_limit addr=%s bytes=%zu", c->client.addr, c->queued);
        metric_add(&c->w->cmd.metrics, METRIC_OUTPUT_LIMIT_DISCONNECTS, 1);
        c->over_limit = true;
        conn_enter_flush(c);
    }
}

/* --- sending ----------------------------------------------------------------------------------------- */

/* Bytes that the socket took; closes the connection when it is broken. */
static size_t sent(struct conn *c, ssize_t n) {
    if (n >= 0) {
        metric_add(&c->w->cmd.metrics, METRIC_OUTPUT_BYTES, (uint64_t)n);
        metric_add(&c->w->cmd.metrics, METRIC_WRITES, 1);
        return (size_t)n;
    }
    if (errno != EAGAIN && errno != EINTR) {
        conn_close(c);
    }
    return 0;
}

static void send_replies(struct conn *c) {
    const char *from = c->w->out.ptr + c->out_start;
    size_t len = c->out_len < SEND_FRESH_LEN ? c->out_len : SEND_FRESH_LEN;
    size_t done = sent(c, send(c->client.fd, from, len, MSG_NOSIGNAL));
    if (dc_unlikely(done < c->out_len) && !c->closed) {
        queue_bytes(c, from + done, c->out_len - done);
        if (done == len) {
            conn_enter_again(c);
        }
    }
    c->out_len = 0;
}

static void queue_advance(struct conn *c, size_t done) {
    c->queued -= done;
    while (done > 0 || (c->queue != NULL && c->queue->len == 0)) {
        struct chunk *k = c->queue;
        size_t step = done < k->len ? done : k->len;
        k->ptr += step;
        k->len -= step;
        done -= step;
        if (k->len == 0) {
            c->queue = k->next;
            chunk_free(k);
        }
    }
}

/* What may leave. A reply that has begun isn't stopped again, whatever happens to its mark. */
static bool is_free(struct conn *c, struct chunk *k) {
    if (dc_likely(k->lsn == 0)) {
        return true;
    }
    if (k->lsn > gates_mark(c->w, k->level)) {
        return false;
    }
    for (;; k = k->next) {
        k->lsn = 0;
        if (!k->more) {
            return true;
        }
    }
}

/* Until the socket is full or the others have to have their turn: a reader that keeps up would take all there is. What is pushed comes as fast
 * as others make it, whatever is left. */
static void send_queue(struct conn *c) {
    bool all = atomic_load_explicit(&c->w->stopping, memory_order_relaxed) ||
               (c->client.flags & (CLIENT_SUBSCRIBED | CLIENT_MONITOR)) != 0;
    size_t room = all ? SIZE_MAX : SEND_TURN_LEN;
    while (c->queue != NULL && !c->closed) {
        if (room == 0) {
            conn_enter_again(c);
            return;
        }
        struct iovec iov[IOV_COUNT];
        struct msghdr msg = {.msg_iov = iov};
        size_t total = 0;
        for (struct chunk *k = c->queue;
             k != NULL && total < room && msg.msg_iovlen < IOV_COUNT && is_free(c, k);
             k = k->next) {
            size_t len = k->len < room - total ? k->len : room - total;
            iov[msg.msg_iovlen++] = (struct iovec){(void *)(uintptr_t)k->ptr, len};
            total += len;
        }
        if (msg.msg_iovlen == 0) {
            gates_enter(c, c->queue->level);
            return;
        }
        size_t done = sent(c, sendmsg(c->client.fd, &msg, MSG_NOSIGNAL));
        queue_advance(c, done);
        if (done < total) {
            return;
        }
        room -= done;
    }
}

void conn_flush(struct conn *c) {
    if (c->over_limit) {
        conn_close(c);
        return;
    }
    if (c->out_len > 0 && c->gate > gates_mark(c->w, c->level)) {
        conn_queue_replies(c);
        gates_enter(c, c->level);
    } else if (c->out_len > 0) {
        dc_assert(c->queue == NULL);
        send_replies(c);
    } else {
        send_queue(c);
    }
    if (c->closed) {
        return;
    }
    count_queued(c);
    if (c->stalled && c->queued < OUTPUT_SOFT_LEN / 2) {
        conn_resume_reading(c);
    }
    if (c->queued == 0 && c->close_soon) {
        if (c->detach != NULL && !atomic_load_explicit(&c->w->stopping, memory_order_relaxed)) {
            conn_detach(c);
        } else {
            conn_close(c);
        }
    }
}
