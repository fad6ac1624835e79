/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/lock.h"
#include "server/base/thread.h"
#include "tests/support/check_main.h"

#include <sys/resource.h>

enum { THREADS = 4, ROUNDS = 20000 };

static struct shared {
    struct lock lock;
    struct slot_lock slot;
    struct slot_lock pair[2];
    uint64_t count; /* deliberately plain */
} shared;

static void run_all(void (*run)(void *arg)) {
    struct thread threads[THREADS];
    shared.count = 0;
    for (int i = 0; i < THREADS; i++) {
        thread_start(&threads[i], "counter", run, &shared);
    }
    for (int i = 0; i < THREADS; i++) {
        thread_join(&threads[i]);
    }
}

static void count_under_slot_lock(void *arg) {
    struct shared *s = arg;
    for (int i = 0; i < ROUNDS; i++) {
        slot_lock_acquire(&s->slot, 7);
        s->count++;
        slot_lock_release(&s->slot);
    }
}

START_TEST(a_slot_lock_excludes) {
    run_all(count_under_slot_lock);
    ck_assert_uint_eq(shared.count, THREADS * ROUNDS);
    ck_assert_uint_eq(atomic_load(&shared.slot.state), 0);
}
END_TEST

static void hold_long(void *arg) {
    struct shared *s = arg;
    for (int i = 0; i < 20; i++) {
        slot_lock_acquire(&s->slot, 7);
        uint64_t seen = s->count;
        usleep(1000); /* the others have to sleep */
        s->count = seen + 1;
        slot_lock_release(&s->slot);
    }
}

START_TEST(who_waits_long_sleeps_and_is_woken) {
    run_all(hold_long);
    ck_assert_uint_eq(shared.count, THREADS * 20);
    ck_assert_uint_eq(atomic_load(&shared.slot.state), 0);
}
END_TEST

static void count_under_two(void *arg) DC_NO_LOCK_CHECK {
    struct shared *s = arg;
    for (int i = 0; i < ROUNDS; i++) {
        slot_lock_acquire(&s->pair[0], 1);
        slot_lock_acquire(&s->pair[1], 2);
        s->count++;
        slot_lock_release(&s->pair[0]);
        slot_lock_release(&s->pair[1]);
    }
}

START_TEST(several_slots_in_rising_order_dont_deadlock) {
    run_all(count_under_two);
    ck_assert_uint_eq(shared.count, THREADS * ROUNDS);
}
END_TEST

static void count_under_lock(void *arg) {
    struct shared *s = arg;
    for (int i = 0; i < ROUNDS; i++) {
        lock_acquire(&s->lock);
        s->count++;
        lock_release(&s->lock);
    }
}

START_TEST(a_lock_excludes) {
    lock_init(&shared.lock, LOCK_RANK_PUBSUB);
    run_all(count_under_lock);
    ck_assert_uint_eq(shared.count, THREADS * ROUNDS);
    lock_fini(&shared.lock);
}
END_TEST

#if !defined(NDEBUG)

static void fall_in_rank(void *arg) {
    (void)arg;
    lock_rank_push(LOCK_RANK_PUBSUB, 0);
    lock_rank_push(LOCK_RANK_SLOT, 0);
}

static void take_a_lower_slot(void *arg) {
    (void)arg;
    lock_rank_push(LOCK_RANK_SLOT, 5);
    lock_rank_push(LOCK_RANK_SLOT, 4);
}

static void take_a_lock_twice(void *arg) {
    (void)arg;
    lock_rank_push(LOCK_RANK_CLIENTS, 0);
    lock_rank_push(LOCK_RANK_CLIENTS, 0);
}

static void release_what_isnt_held(void *arg) {
    (void)arg;
    lock_rank_push(LOCK_RANK_SLOT, 1);
    lock_rank_pop(LOCK_RANK_PUBSUB);
}

static void rise(void *arg) {
    (void)arg;
    for (uint32_t slot = 0; slot < 16384; slot++) {
        lock_rank_push(LOCK_RANK_SLOT, slot);
    }
    lock_rank_push(LOCK_RANK_DIAG, 0);
    for (uint32_t slot = 0; slot < 16384; slot++) {
        lock_rank_pop(LOCK_RANK_SLOT); /* from below the top */
    }
    lock_rank_pop(LOCK_RANK_DIAG);
    lock_rank_push(LOCK_RANK_CLIENTS, 0);
    lock_rank_pop(LOCK_RANK_CLIENTS);
    lock_rank_push(LOCK_RANK_CONF, 0);
}

/* I1 */
START_TEST(ranks_and_indices_must_rise) {
    ck_assert(!test_aborts(rise, NULL));
    ck_assert(test_aborts(fall_in_rank, NULL));
    ck_assert(test_aborts(take_a_lower_slot, NULL));
    ck_assert(test_aborts(take_a_lock_twice, NULL));
    ck_assert(test_aborts(release_what_isnt_held, NULL));
}
END_TEST

#else

START_TEST(ranks_and_indices_must_rise) {
    /* Checked in debug builds only. */
}
END_TEST

#endif

static void destroy_a_held_lock(void *arg) DC_NO_LOCK_CHECK {
    (void)arg;
    lock_init(&shared.lock, LOCK_RANK_CONF);
    lock_acquire(&shared.lock);
    lock_fini(&shared.lock);
}

START_TEST(a_held_lock_cant_be_destroyed) {
    if (!TEST_SANITIZED) { /* which report it themselves */
        ck_assert(test_aborts(destroy_a_held_lock, NULL));
    }
}
END_TEST

static void look_at_itself(void *arg) {
    char *name = arg;
    pthread_getname_np(pthread_self(), name, 16);
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    ck_assert_int_eq(sigismember(&blocked, SIGTERM), 1);
    ck_assert_int_eq(sigismember(&blocked, SIGINT), 1);
}

START_TEST(a_thread_has_a_name_and_no_signals) {
    char name[16] = "";
    struct thread t;
    thread_start(&t, "a-very-long-name-of-a-thread", look_at_itself, name);
    thread_join(&t);
    ck_assert_str_eq(name, "a-very-long-nam");
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    ck_assert_int_eq(sigismember(&blocked, SIGTERM), 0);
}
END_TEST

static void do_nothing(void *arg) {
    (void)arg;
}

START_TEST(without_a_thread_the_process_ends_with_a_message) {
    if (TEST_SANITIZED) { /* which need address space themselves */
        return;
    }
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_AS, &none);
        close(STDOUT_FILENO);
        struct thread t;
        thread_start(&t, "never", do_nothing, NULL);
        _exit(0);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 1);
}
END_TEST

/* The first in the row: later the C library has stacks in store. */
CHECK_MAIN("lock", without_a_thread_the_process_ends_with_a_message, a_slot_lock_excludes,
           who_waits_long_sleeps_and_is_woken, several_slots_in_rising_order_dont_deadlock,
           a_lock_excludes, ranks_and_indices_must_rise, a_held_lock_cant_be_destroyed,
           a_thread_has_a_name_and_no_signals)
