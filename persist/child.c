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

/* Dies quietly of whatever happens. */
static _Noreturn void be_the_child(bool (*fn)(void *arg, int fd), void *arg, int fd) {
    static const int deadly[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGXCPU, SIGPIPE};
    for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++) {
        signal(deadly[i], SIG_DFL);
    }
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (nowhere >= 0) {
        dup2(nowhere, STDERR_FILENO);
    }
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    setrlimit(RLIMIT_CPU, &(struct rlimit){CHILD_CPU_S, CHILD_CPU_S});
    _exit(fn(arg, fd) ? EXIT_SUCCESS : EXIT_FAILURE);
}

static bool read_all(int fd, size_t limit, struct buf *out) {
    size_t before = out->len;
    for (;;) {
        char *to = buf_room(out, CHUNK_LEN);
        if (to == NULL || out->len - before > limit) {
            return false;
        }
        ssize_t n = read(fd, to, CHUNK_LEN);
        if (n == 0) {
            return true;
        }
        if (n < 0 && errno != EINTR) {
            return false;
        }
        out->len += n > 0 ? (size_t)n : 0;
    }
}

enum dc_err child_run(bool (*fn)(void *arg, int fd), void *arg, size_t limit, struct buf *out) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return dc_fail(DC_EIO, "pipe: %s", dc_errno_text(errno));
    }
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        hold_nothing(ends[1], parent);
        be_the_child(fn, arg, ends[1]);
    }
    close(ends[1]);
    bool whole = pid > 0 && read_all(ends[0], limit, out);
    close(ends[0]);
    if (pid < 0) {
        return dc_fail(DC_EIO, "fork: %s", dc_errno_text(errno));
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    return whole && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS
               ? DC_OK
               : dc_fail(DC_ECORRUPT, "a child that read it failed (status %d)", status);
}
