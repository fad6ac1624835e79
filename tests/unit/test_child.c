/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/child.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"

#include <string.h>
#include <sys/resource.h>

enum { LIMIT = 1 << 20 };

static struct buf told;

static enum dc_err run_with(bool (*fn)(void *arg, int fd), void *arg, size_t room) {
    buf_init(&told, room);
    enum dc_err err = child_run(fn, arg, LIMIT, &told);
    (void)dc_fail_take(err);
    return err;
}

static enum dc_err run(bool (*fn)(void *arg, int fd), void *arg) {
    enum dc_err err = run_with(fn, arg, 0);
    buf_fini(&told);
    return err;
}

static bool tell_limits(void *arg, int fd) {
    struct rlimit limits;
    (void)arg;
    return getrlimit(RLIMIT_CPU, &limits) == 0 && child_write(fd, &limits, sizeof(limits));
}

/* SIGXCPU is its own, SIGKILL isn't: the first has to come first. */
START_TEST(what_it_writes_is_there_and_its_time_is_bounded) {
    struct rlimit limits;
    expect_eq(run_with(tell_limits, NULL, 0), DC_OK);
    expect_eq(told.len, sizeof(limits));
    memcpy(&limits, told.ptr, sizeof(limits));
    expect(limits.rlim_cur == CHILD_CPU_S && limits.rlim_max > limits.rlim_cur);
    buf_fini(&told);
}
END_TEST

static bool die(void *arg, int fd) {
    raise(*(int *)arg);
    return child_write(fd, "alive", 5);
}

START_TEST(what_it_dies_of_by_itself_is_damage_and_what_others_do_is_not) {
    int own[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGXCPU};
    int others[] = {SIGKILL, SIGTERM, SIGINT, SIGHUP};
    for (int ignored = 0; ignored < 2;
         ignored++) { /* as whoever started this process may have left it */
        signal(SIGCHLD, ignored ? SIG_IGN : SIG_DFL);
        for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
            expect_eq(run(die, &own[i]), DC_ECORRUPT);
        }
        for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
            signal(others[i], SIG_DFL);
            expect_eq(run(die, &others[i]), DC_EIO);
        }
        expect(signal(SIGCHLD, SIG_DFL) == (ignored ? SIG_IGN : SIG_DFL));
    }
}
END_TEST

static bool fail_at_it(void *arg, int fd) {
    (void)arg;
    (void)fd;
    return false;
}

static bool tell_much(void *arg, int fd) {
    static const char bytes[LIMIT];
    size_t left = *(const size_t *)arg;
    for (size_t len; left > 0; left -= len) {
        len = left < sizeof(bytes) ? left : sizeof(bytes);
        if (!child_write(fd, bytes, len)) {
            return false;
        }
    }
    return true;
}

START_TEST(what_comes_to_no_end_is_damage_and_no_memory_for_it_is_not) {
    size_t len = LIMIT;
    expect_eq(run(fail_at_it, NULL), DC_ECORRUPT);
    expect_eq(run(tell_much, &len), DC_OK);
    len = 2 * (size_t)LIMIT;
    expect_eq(run(tell_much, &len), DC_ECORRUPT);
    expect_eq(run_with(tell_much, &len, LIMIT / 2), DC_EIO);
    buf_fini(&told);
}
END_TEST

CHECK_MAIN("child", what_it_writes_is_there_and_its_time_is_bounded,
           what_it_dies_of_by_itself_is_damage_and_what_others_do_is_not,
           what_comes_to_no_end_is_damage_and_no_memory_for_it_is_not)
