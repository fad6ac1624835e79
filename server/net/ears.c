/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/net/ears.h"

#include "server/net/loop.h"

enum { QUIET_TICKS = 2000 / WORKER_TIMER_MS };

static void forget(struct worker_ear *e) {
    event_free(e->event);
    ear_listen(e->ear, false);
    ear_release(e->ear);
    *e = (struct worker_ear){.ear = NULL};
}

static void on_ear(evutil_socket_t fd, short what, void *arg) {
    struct worker_ear *e = arg;
    struct worker *w = e->w;
    (void)fd, (void)what;
    /* It is awake, and looks at what waits behind this: nobody has to wake it up for what it hears itself. Whoever tried to meanwhile is seen by the
     * exchange. */
    bool before = atomic_exchange_explicit(&w->resumed, true, memory_order_acq_rel);
    if (!ear_hear(e->ear)) {
        forget(e);
    }
    if (!before) { /* else the wake-up is on its way */
        (void)atomic_exchange_explicit(&w->resumed, false, memory_order_acq_rel);
    }
    worker_look_again(w);
}

static bool listens_to(const struct ears *l, const struct ear *ear) {
    for (uint32_t i = 0; i < REPLICAS_MAX; i++) {
        if (l->list[i].ear == ear) {
            return true;
        }
    }
    return false;
}

/* Takes over the reference. Without memory, or a descriptor, the owner of the link goes on reading. */
static void listen_to(struct worker *w, struct ear *ear) {
    uint32_t i = 0;
    while (i < REPLICAS_MAX && w->ears.list[i].ear != NULL) {
        i++;
    }
    if (i == REPLICAS_MAX || ear_fd(ear) < 0) { /* some that are over are still there */
        ear_release(ear);
        return;
    }
    struct worker_ear *e = &w->ears.list[i];
    struct event *event = event_new(w->base, ear_fd(ear), EV_READ | EV_PERSIST, on_ear, e);
    if (event == NULL) {
        ear_release(ear);
        return;
    }
    *e = (struct worker_ear){w, ear, event};
    ear_listen(ear, true);
    if (event_add(event, NULL) < 0) {
        forget(e);
    }
}

void ears_open(struct worker *w) {
    struct replicas *r = w->cmd.node->replicas;
    struct ear *found[REPLICAS_MAX];
    uint64_t moves = replicas_ears_moves(r);
    w->ears.quiet_ticks = 0;
    if (dc_likely(w->ears.seen == moves)) {
        return;
    }
    w->ears.seen = moves;
    uint32_t count = replicas_ears(r, found);
    for (uint32_t i = 0; i < count; i++) {
        if (listens_to(&w->ears, found[i])) {
            ear_release(found[i]);
        } else {
            listen_to(w, found[i]);
        }
    }
}

void ears_tick(struct worker *w) {
    if (w->ears.seen != 0 && ++w->ears.quiet_ticks > QUIET_TICKS) {
        ears_close(w);
    }
}

void ears_close(struct worker *w) {
    for (uint32_t i = 0; i < REPLICAS_MAX; i++) {
        if (w->ears.list[i].ear != NULL) {
            forget(&w->ears.list[i]);
        }
    }
    w->ears.seen = 0;
}
