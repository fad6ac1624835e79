/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What was just written goes to those who have all that came before, from the thread that has written it, log-writer or a worker: no other thread has to wake up first, and no
 * file is read.
 *
 *     the writer ─► source_push() ─ the peer stands where this begins, the socket takes it ─► socket
 *                        └ else: the session's sender wakes up, and reads the file
 *
 * Who holds a session's send_lock sends on its link. The writer only tries it, so it waits for nobody.
 */
#include "replication/source_priv.h"
#include "server/base/assert.h"

void source_push_init(struct source_push *p) {
    pthread_mutex_init(&p->lock, NULL);
    atomic_init(&p->count, 0);
}

void source_push_fini(struct source_push *p) {
    pthread_mutex_destroy(&p->lock);
}

void source_push_join(struct session *s) {
    struct source_push *p = &s->source->push;
    pthread_mutex_lock(&p->lock);
    uint32_t count = atomic_load_explicit(&p->count, memory_order_relaxed);
    dc_assert(count < SESSIONS_MAX);
    p->sessions[count] = s;
    atomic_store_explicit(&p->count, count + 1, memory_order_relaxed);
    pthread_mutex_unlock(&p->lock);
}

void source_push_leave(struct session *s) {
    struct source_push *p = &s->source->push;
    pthread_mutex_lock(&p->lock);
    uint32_t count = atomic_load_explicit(&p->count, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++) {
        if (p->sessions[i] == s) {
            p->sessions[i] = p->sessions[--count];
        }
    }
    atomic_store_explicit(&p->count, count, memory_order_relaxed);
    pthread_mutex_unlock(&p->lock);
}

/* False: its sender has to do it. */
static bool push_to(struct session *s, uint64_t lsn, struct bytes bytes) {
    bool done = false;
    if (bytes.ptr == NULL || pthread_mutex_trylock(&s->send_lock) != 0) {
        return false;
    }
    bool next = s->sent == lsn && s->rest.len == 0;
    if (next) {
        atomic_store_explicit(&s->offered, lsn + bytes.len, memory_order_relaxed);
    }
    if (next && link_try_log(s->link, lsn, bytes, &s->rest)) {
        s->sent = lsn + bytes.len;
        log_tail_skip(s->tail, s->sent);
        replicas_note_sent(s->self->replicas, s->slot, s->sent, bytes.len);
        done = s->rest.len == 0;
    }
    pthread_mutex_unlock(&s->send_lock);
    return done;
}

void source_push(void *arg, uint64_t lsn, const char *bytes, size_t len) {
    struct source_push *p = &((struct source *)arg)->push;
    /* Relaxed: who joins looks at the log afterwards. */
    if (atomic_load_explicit(&p->count, memory_order_relaxed) == 0) {
        return;
    }
    pthread_mutex_lock(&p->lock);
    for (uint32_t i = 0; i < atomic_load_explicit(&p->count, memory_order_relaxed); i++) {
        if (!push_to(p->sessions[i], lsn, bytes_of(bytes, len))) {
            wake_raise(&p->sessions[i]->wake);
        }
    }
    pthread_mutex_unlock(&p->lock);
}
