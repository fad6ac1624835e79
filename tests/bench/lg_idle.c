/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * idle: opens --conns connections, asks PING on each once, so that all are really accepted and have had their buffers,
 * prints a line, and holds them until standard input ends. The addresses that they come from change every
 * 10000 connections, so that ports don't run short.
 */
#include "tests/bench/lg_wire.h"
#include "tests/bench/loadgen.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { CONNS_PER_ADDRESS = 10000, FILES_SPARE = 64 };

void lg_idle_run(const struct lg_opts *o) {
    static const char ping[] = "*1\r\n$4\r\nPING\r\n";
    char reply[64];
    struct rlimit files = {.rlim_cur = o->conns + FILES_SPARE, .rlim_max = o->conns + FILES_SPARE};
    struct rlimit now;
    if (getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_max > files.rlim_max) {
        files.rlim_max = now.rlim_max;
    }
    if (setrlimit(RLIMIT_NOFILE, &files) != 0) {
        lg_die("the limit of open files is too low for %" PRIu64 " connections", o->conns);
    }
    for (uint64_t i = 0; i < o->conns; i++) {
        int fd = lg_connect(o->port, i / CONNS_PER_ADDRESS);
        lg_send_all(fd, ping, sizeof(ping) - 1);
        size_t len = lg_recv_some(fd, reply, sizeof(reply));
        if (len != 7 || memcmp(reply, "+PONG\r\n", 7) != 0) {
            lg_die("no PONG on connection %" PRIu64 ": %.*s", i, (int)len, reply);
        }
    }
    (void)fprintf(stdout, "{\"conns\": %" PRIu64 "}\n", o->conns);
    (void)fflush(stdout);
    while (read(STDIN_FILENO, reply, sizeof(reply)) > 0) {}
}
