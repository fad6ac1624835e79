/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHUNK_LEN = 64 * 1024 };

bool child_write(int fd, const void *ptr, size_t len) {
    const char *at = ptr;
    while (len > 0) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && errno != EINTR) {
            return false;
        }
        at += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* A child that outlives its parent would hold the lock of the data directory. */
static void hold_nothing(int fd, pid_t parent) {
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(EXIT_FAILURE);
    }
    (void)close_range(STDERR_FILENO + 1, (unsigned)fd - 1, 0);
    (void)close_range((unsigned)fd + 1, ~0u, 0);
}

/* What may come of what it reads. */
static const int deadly[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGXCPU};
enum { DEADLY_COUNT = sizeof(deadly) / sizeof(deadly[0]) };

/* Dies quietly of whatever happens. */
static _Noreturn void be_the_child(bool (*fn)(void *arg, int fd), void *arg, int fd) {
    for (size_t i = 0; i < DEADLY_COUNT; i++) {
        signal(deadly[i], SIG_DFL);
    }
    signal(SIGPIPE, SIG_DFL);
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (nowhere >= 0) {
        dup2(nowhere, STDERR_FILENO);
    }
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    /* At the second one comes SIGKILL: that must not be first. */
    setrlimit(RLIMIT_CPU, &(struct rlimit){CHILD_CPU_S, CHILD_CPU_S + 1});
    _exit(fn(arg, fd) ? EXIT_SUCCESS : EXIT_FAILURE);
}

static enum dc_err read_all(int fd, size_t limit, struct buf *out) {
    size_t before = out->len;
    for (;;) {
        char *to = buf_room(out, CHUNK_LEN);
        if (to == NULL) {
            return dc_fail(DC_EIO, "no memory for what a child tells of it");
        }
        if (out->len - before > limit) {
            return dc_fail(DC_ECORRUPT, "a child that reads it comes to no end");
        }
        ssize_t n = read(fd, to, CHUNK_LEN);
        if (n == 0) {
            return DC_OK;
        }
        if (n < 0 && errno != EINTR) {
            return dc_fail(DC_EIO, "reading what a child tells of it: %s", dc_errno_text(errno));
        }
        out->len += n > 0 ? (size_t)n : 0;
    }
}

/* Somebody else may have killed it: an operator, or the kernel for want of memory. */
static enum dc_err judge(int status) {
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS) {
        return DC_OK;
    }
    bool is_own = WIFEXITED(status);
    for (size_t i = 0; i < DEADLY_COUNT; i++) {
        is_own = is_own || (WIFSIGNALED(status) && WTERMSIG(status) == deadly[i]);
    }
    return is_own
               ? dc_fail(DC_ECORRUPT, "a child that read it failed (status %d)", status)
               : dc_fail(DC_EIO, "a child that read it was killed by signal %d", WTERMSIG(status));
}

enum dc_err child_run(bool (*fn)(void *arg, int fd), void *arg, size_t limit, struct buf *out) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return dc_fail(DC_EIO, "pipe: %s", dc_errno_text(errno));
    }
    void (*before)(int) = signal(SIGCHLD, SIG_DFL); /* of one that is ignored nothing is told */
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        hold_nothing(ends[1], parent);
        be_the_child(fn, arg, ends[1]);
    }
    enum dc_err err = pid > 0 ? DC_OK : dc_fail(DC_EIO, "fork: %s", dc_errno_text(errno));
    close(ends[1]);
    err = err == DC_OK ? read_all(ends[0], limit, out) : err;
    close(ends[0]);
    int status = 0;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    signal(SIGCHLD, before);
    return err == DC_OK ? judge(status) : err;
}
