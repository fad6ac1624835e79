/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/ear.h"

#include "server/base/assert.h"
#include "server/base/mem.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

struct ear {
    _Atomic uint32_t refs;
    _Atomic uint32_t listeners;
    int fd;
    ear_hear_fn hear;
    pthread_mutex_t lock; /* held while somebody reads */
    void *arg;            /* NULL: closed */
};

struct ear *ear_create(int fd, ear_hear_fn hear, void *arg) {
    struct ear *e = mem_must_zalloc(sizeof(*e));
    dc_assert(arg != NULL);
    atomic_init(&e->refs, 1);
    e->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    e->hear = hear;
    e->arg = arg;
    pthread_mutex_init(&e->lock, NULL);
    return e;
}

struct ear *ear_acquire(struct ear *e) {
    atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
    return e;
}

void ear_release(struct ear *e) {
    if (atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) == 1) {
        if (e->fd >= 0) {
            close(e->fd);
        }
        pthread_mutex_destroy(&e->lock);
        mem_free(e);
    }
}

void ear_close(struct ear *e) {
    pthread_mutex_lock(&e->lock);
    e->arg = NULL;
    pthread_mutex_unlock(&e->lock);
    ear_release(e);
}

int ear_fd(const struct ear *e) {
    return e->fd;
}

bool ear_hear(struct ear *e) {
    pthread_mutex_lock(&e->lock);
    bool more = e->arg != NULL && e->hear(e->arg);
    pthread_mutex_unlock(&e->lock);
    return more;
}

void ear_listen(struct ear *e, bool begins) {
    atomic_fetch_add_explicit(&e->listeners, begins ? 1u : UINT32_MAX, memory_order_relaxed);
}

bool ear_has_listeners(const struct ear *e) {
    return atomic_load_explicit(&e->listeners, memory_order_relaxed) > 0;
}
