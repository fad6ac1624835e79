/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/diag.h"

#include "server/base/limits.h"
#include "server/base/lock.h"
#include "server/base/time.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Usable before diag_open(): errors of the start come out on standard output. */
static struct lock lock = {.mutex = PTHREAD_MUTEX_INITIALIZER, .rank = LOCK_RANK_DIAG};
static int out_fd DC_GUARDED_BY(lock) = STDOUT_FILENO;
static _Atomic int min_level = DIAG_NOTICE;
static _Thread_local char role[16] = "main";

static const char *const level_names[] = {"debug", "verbose", "notice", "warning"};

static void swap_fd(int fd) {
    lock_acquire(&lock);
    int old = out_fd;
    out_fd = fd;
    lock_release(&lock);
    if (old != STDOUT_FILENO) {
        close(old);
    }
}

enum dc_err diag_open(const char *path) {
    int fd = STDOUT_FILENO;
    if (path[0] != '\0') {
        fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    }
    if (fd < 0) {
        return dc_fail(DC_EIO, "can't open the log file %s: %s", path, dc_errno_text(errno));
    }
    swap_fd(fd);
    return DC_OK;
}

void diag_close(void) {
    swap_fd(STDOUT_FILENO);
}

void diag_set_level(enum diag_level level) {
    atomic_store_explicit(&min_level, (int)level, memory_order_relaxed);
}

void diag_set_role(const char *name) {
    snprintf(role, sizeof(role), "%s", name);
}

/* "2024-05-01T12:00:00.123Z notice worker-0 " */
static size_t format_head(char *to, size_t size, enum diag_level level, int64_t wall_us) {
    time_t seconds = (time_t)(wall_us / 1000000);
    struct tm tm;
    gmtime_r(&seconds, &tm);
    size_t len = strftime(to, size, "%Y-%m-%dT%H:%M:%S", &tm);
    len += (size_t)snprintf(to + len, size - len, ".%03dZ %s %s ", (int)(wall_us / 1000 % 1000),
                            level_names[level], role);
    return len;
}

/* One line stays one line, whatever a client has put into a name. */
static void blank_controls(char *text, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f) {
            text[i] = '?';
        }
    }
}

/* A message that can't be written is lost: there is no better place to say so. */
static void write_line(char *line, size_t len) {
    blank_controls(line, len);
    line[len++] = '\n';
    lock_acquire(&lock);
    while (len > 0) {
        ssize_t n = write(out_fd, line, len);
        if (n < 0 && errno != EINTR) {
            break;
        }
        len -= n > 0 ? (size_t)n : 0;
        line += n > 0 ? n : 0;
    }
    lock_release(&lock);
}

/* Counts this call; says in *left_out how many lines the last window has swallowed. Two threads at the turn of a
 * second may let a line too many through. */
static bool site_admits(struct diag_site *site, int64_t now_s, uint32_t *left_out) {
    *left_out = 0;
    int64_t window = atomic_load_explicit(&site->window_s, memory_order_relaxed);
    if (window != now_s &&
        atomic_compare_exchange_strong_explicit(&site->window_s, &window, now_s,
                                                memory_order_relaxed, memory_order_relaxed)) {
        uint32_t count = atomic_exchange_explicit(&site->count, 0, memory_order_relaxed);
        *left_out = count > DIAG_BURST ? count - DIAG_BURST : 0;
    }
    return atomic_fetch_add_explicit(&site->count, 1, memory_order_relaxed) < DIAG_BURST;
}

void diag_write(struct diag_site *site, enum diag_level level, const char *fmt, ...) {
    if ((int)level < atomic_load_explicit(&min_level, memory_order_relaxed)) {
        return;
    }
    uint32_t left_out;
    if (!site_admits(site, time_mono_us() / 1000000, &left_out)) {
        return;
    }
    char line[DIAG_LINE_MAX];
    size_t head = format_head(line, sizeof(line), level, time_wall_us());
    size_t room = sizeof(line) - head - 1; /* a newline */
    if (left_out > 0) {
        int n = snprintf(line + head, room, "diag.left_out event=%.*s count=%u",
                         (int)strcspn(fmt, " %"), fmt, left_out);
        write_line(line, head + (size_t)n);
    }
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line + head, room, fmt, args);
    va_end(args);
    size_t len = n < 0 ? 0 : (size_t)n;
    write_line(line, head + (len < room ? len : room - 1));
}
