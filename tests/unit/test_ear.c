/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/ear.h"
#include "replication/replicas.h"
#include "server/base/thread.h"
#include "tests/support/check_main.h"

#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MANY = 20000, THREADS = 3 };

/* A link's owner. */
struct owner {
    int ours, theirs; /* the two ends */
    struct ear *ear;
    _Atomic int inside;
    _Atomic uint32_t heard;
    _Atomic bool closed;
    bool clash;
};

static bool hear(void *arg) {
    struct owner *o = arg;
    char bytes[64];
    o->clash |= atomic_fetch_add(&o->inside, 1) != 0; /* I1 */
    o->clash |= atomic_load(&o->closed);              /* I2 */
    ssize_t n = recv(o->ours, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n > 0) {
        atomic_fetch_add(&o->heard, (uint32_t)n);
    }
    atomic_fetch_sub(&o->inside, 1);
    return n != 0;
}

static struct owner *begin(void) {
    struct owner *o = calloc(1, sizeof(*o));
    int ends[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    o->ours = ends[0];
    o->theirs = ends[1];
    o->ear = ear_create(o->ours, hear, o);
    return o;
}

static void end(struct owner *o) {
    close(o->theirs);
    close(o->ours);
    free(o);
}

static bool is_readable(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

START_TEST(whoever_watches_it_reads_what_has_come) {
    struct owner *o = begin();
    ck_assert(ear_fd(o->ear) >= 0 && ear_fd(o->ear) != o->ours);
    ck_assert(!is_readable(ear_fd(o->ear)));
    ck_assert(ear_hear(o->ear)); /* nothing, yet */
    ck_assert_int_eq(send(o->theirs, "abc", 3, 0), 3);
    ck_assert(is_readable(ear_fd(o->ear)));
    ck_assert(ear_hear(o->ear));
    ck_assert_uint_eq(atomic_load(&o->heard), 3);
    ck_assert(!is_readable(ear_fd(o->ear)));
    ear_close(o->ear);
    end(o);
}
END_TEST

START_TEST(it_outlives_the_link_that_nobody_may_read_any_more) {
    struct owner *o = begin();
    struct ear *held = ear_acquire(o->ear);
    shutdown(o->ours, SHUT_RDWR);
    ck_assert(is_readable(ear_fd(held))); /* who watches it looks, */
    ear_close(o->ear);
    atomic_store(&o->closed, true);
    ck_assert(!ear_hear(held)); /* and is told */
    ck_assert(!o->clash);
    end(o);
    ear_release(held);
}
END_TEST

START_TEST(listeners_are_counted) {
    struct owner *o = begin();
    ck_assert(!ear_has_listeners(o->ear));
    ear_listen(o->ear, true);
    ear_listen(o->ear, true);
    ear_listen(o->ear, false);
    ck_assert(ear_has_listeners(o->ear));
    ear_listen(o->ear, false);
    ck_assert(!ear_has_listeners(o->ear));
    ear_close(o->ear);
    end(o);
}
END_TEST

static void listener(void *arg) {
    struct ear *e = arg;
    while (ear_hear(e)) {}
    ear_release(e);
}

START_TEST(several_read_one_at_a_time_and_none_behind_the_end) {
    struct owner *o = begin();
    struct thread threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        thread_start(&threads[i], "listener", listener, ear_acquire(o->ear));
    }
    for (int i = 0; i < MANY; i++) {
        ck_assert_int_eq(send(o->theirs, "x", 1, 0), 1);
    }
    while (atomic_load(&o->heard) < MANY) {
        ck_assert(ear_hear(o->ear));
    }
    ear_close(o->ear);
    atomic_store(&o->closed, true);
    for (int i = 0; i < THREADS; i++) {
        thread_join(&threads[i]);
    }
    ck_assert_uint_eq(atomic_load(&o->heard), MANY);
    ck_assert(!o->clash);
    end(o);
}
END_TEST

START_TEST(the_registry_hands_out_those_of_the_links_that_are_there) {
    struct replicas *r = replicas_create(&(struct replicas_opts){.moved = NULL});
    struct owner *one = begin(), *two = begin();
    struct ear *found[REPLICAS_MAX];
    uint8_t peer[PEER_ID_LEN] = {1};
    int32_t a = replicas_join(r, peer, "10.0.0.1", 1);
    peer[0] = 2;
    int32_t b = replicas_join(r, peer, "10.0.0.2", 2);
    uint64_t moves = replicas_ears_moves(r);
    ck_assert(moves != 0);
    ck_assert_uint_eq(replicas_ears(r, found), 0);
    replicas_set_ear(r, a, one->ear);
    replicas_set_ear(r, b, two->ear);
    ck_assert(replicas_ears_moves(r) > moves);
    ck_assert_uint_eq(replicas_ears(r, found), 2);
    ck_assert(found[0] == one->ear && found[1] == two->ear);
    replicas_set_ear(r, a, NULL);
    ear_close(one->ear); /* 'found' has another reference */
    ck_assert(!ear_hear(found[0]));
    ear_release(found[0]);
    ear_release(found[1]);
    ck_assert_uint_eq(replicas_ears(r, found), 1);
    ck_assert(found[0] == two->ear);
    ear_release(found[0]);
    replicas_set_ear(r, b, NULL);
    ear_close(two->ear);
    replicas_leave(r, a);
    replicas_leave(r, b);
    replicas_destroy(r);
    end(one);
    end(two);
}
END_TEST

CHECK_MAIN("ear", whoever_watches_it_reads_what_has_come,
           it_outlives_the_link_that_nobody_may_read_any_more, listeners_are_counted,
           several_read_one_at_a_time_and_none_behind_the_end,
           the_registry_hands_out_those_of_the_links_that_are_there)
