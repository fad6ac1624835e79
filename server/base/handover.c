/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The file in memory is text, in this order:
 *
 *     dcache-handover 1 <pid>
 *     run_id <40 hex digits>
 *     socket <descriptor>           each
 *     conf-file <path>              if there is one
 *     conf                          the rest are the lines of the options
 */
#include "server/base/handover.h"

#include "server/base/assert.h"
#include "server/base/mem.h"
#include "server/base/num.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

static const char variable[] = "DCACHE_HANDOVER";
static const char magic[] = "dcache-handover 1 ";

extern char **environ;

/* Of this process; constant after handover_begin(). */
static char **arguments;
static int home_fd = -1; /* the directory in which it was started */

/* --- what is received -------------------------------------------------------------------------------- */

/* Cuts the next line off; without its newline. */
static struct bytes next_line(struct bytes *text) {
    const char *end = text->len > 0 ? memchr(text->ptr, '\n', text->len) : NULL;
    size_t len = end != NULL ? (size_t)(end - text->ptr) : text->len;
    struct bytes line = bytes_of(text->ptr, len);
    size_t used = end != NULL ? len + 1 : len;
    *text = bytes_of(text->ptr + used, text->len - used);
    return line;
}

/* What follows the word, if the line begins with it. */
static bool after(struct bytes line, const char *word, struct bytes *rest) {
    size_t len = strlen(word);
    if (line.len < len || memcmp(line.ptr, word, len) != 0) {
        return false;
    }
    *rest = bytes_of(line.ptr + len, line.len - len);
    return true;
}

static bool take_socket(struct handover *h, struct bytes number) {
    int64_t fd = -1;
    if (!num_parse_i64(number, &fd) || fd < 0 || h->socket_count == LISTENERS_MAX ||
        fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0) {
        return false;
    }
    h->sockets[h->socket_count++] = (int)fd;
    return true;
}

static bool parse(struct handover *h, struct bytes text) {
    struct bytes rest;
    int64_t pid = 0;
    if (!after(next_line(&text), magic, &rest) || !num_parse_i64(rest, &pid) || pid != getpid()) {
        return false; /* I1 */
    }
    while (text.len > 0) {
        struct bytes line = next_line(&text);
        if (after(line, "run_id ", &rest) && rest.len == RUN_ID_LEN) {
            memcpy(h->run_id, rest.ptr, RUN_ID_LEN);
        } else if (after(line, "socket ", &rest) && take_socket(h, rest)) {
            continue;
        } else if (after(line, "conf-file ", &rest)) {
            mem_free(h->conf_file);
            h->conf_file = mem_must_zalloc(rest.len + 1);
            memcpy(h->conf_file, rest.ptr, rest.len);
        } else if (after(line, "conf", &rest) && rest.len == 0) {
            buf_append_bytes(&h->conf, text);
            return h->run_id[0] != '\0' && !h->conf.failed;
        } else {
            return false;
        }
    }
    return false;
}

static bool read_all(int fd, struct buf *to) {
    char chunk[4096];
    ssize_t n = 1;
    for (off_t at = 0; n > 0; at += n) {
        n = pread(fd, chunk, sizeof(chunk), at);
        buf_append(to, chunk, n > 0 ? (size_t)n : 0);
    }
    return n == 0 && !to->failed;
}

static void begin_empty(struct handover *h) {
    memset(h, 0, sizeof(*h));
    buf_init(&h->conf, 0);
}

bool handover_begin(struct handover *out, char **argv) {
    const char *name = getenv(variable);
    int64_t fd = -1;
    bool received = false;
    begin_empty(out);
    arguments = argv;
    home_fd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (name != NULL && num_parse_i64(bytes_str(name), &fd) && fd > STDERR_FILENO) {
        struct buf text;
        buf_init(&text, 0);
        received = read_all((int)fd, &text) && parse(out, buf_bytes(&text));
        buf_fini(&text);
    }
    if (received) {
        close((int)fd);
        prctl(PR_SET_NAME, program_invocation_short_name); /* it was "exe" */
    } else {
        handover_fini(out);
        begin_empty(out);
    }
    unsetenv(variable);
    return received;
}

void handover_fini(struct handover *h) {
    for (uint32_t i = 0; i < h->socket_count; i++) {
        if (h->sockets[i] >= 0) {
            close(h->sockets[i]);
        }
    }
    h->socket_count = 0;
    mem_free(h->conf_file);
    h->conf_file = NULL;
    buf_fini(&h->conf);
}

/* --- what is given ----------------------------------------------------------------------------------- */

static void print(const struct handover *h, struct buf *to) {
    buf_printf(to, "%s%d\nrun_id %s\n", magic, (int)getpid(), h->run_id);
    for (uint32_t i = 0; i < h->socket_count; i++) {
        buf_printf(to, "socket %d\n", h->sockets[i]);
    }
    if (h->conf_file != NULL && strchr(h->conf_file, '\n') == NULL) {
        buf_printf(to, "conf-file %s\n", h->conf_file);
    }
    buf_append_str(to, "conf\n");
    buf_append_bytes(to, buf_bytes(&h->conf));
}

/* The file in memory; -1 with errno. */
static int write_down(const struct handover *h) {
    struct buf text;
    buf_init(&text, 0);
    print(h, &text);
    int fd = text.failed || h->conf.failed ? -1 : memfd_create("dcache-handover", 0);
    if (text.failed || h->conf.failed) {
        errno = ENOMEM;
    }
    for (size_t done = 0; fd >= 0 && done < text.len;) {
        ssize_t n = write(fd, text.ptr + done, text.len - done);
        if (n < 0 && errno != EINTR) {
            int saved = errno;
            close(fd);
            fd = -1;
            errno = saved;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    buf_fini(&text);
    return fd;
}

enum dc_err handover_exec(const struct handover *h) {
    char number[16];
    dc_assert(arguments != NULL && h->socket_count <= LISTENERS_MAX);
    /* All that we open is closed by an execve() anyway; what a library has opened isn't, perhaps. */
    (void)close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    int fd = write_down(h);
    if (fd < 0) {
        return dc_fail(DC_EIO, "a restart in place: %s", dc_errno_text(errno));
    }
    for (uint32_t i = 0; i < h->socket_count; i++) {
        (void)fcntl(h->sockets[i], F_SETFD, 0);
    }
    snprintf(number, sizeof(number), "%d", fd);
    if (setenv(variable, number, 1) < 0 || (home_fd >= 0 && fchdir(home_fd) < 0)) {
        return dc_fail(DC_EIO, "a restart in place: %s", dc_errno_text(errno));
    }
    execve("/proc/self/exe", arguments, environ);
    return dc_fail(DC_EIO, "a restart in place: execve: %s", dc_errno_text(errno));
}
