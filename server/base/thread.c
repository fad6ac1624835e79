/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/thread.h"

#include "server/base/assert.h"
#include "server/base/diag.h"
#include "server/base/mem.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void thread_rename(const char *name) {
    pthread_setname_np(pthread_self(), name);
    diag_set_role(name);
}

static void *enter(void *arg) {
    struct thread *t = arg;
    mem_thread_begin();
    thread_rename(t->name);
    t->run(t->arg);
    return NULL;
}

/* Signals are blocked before the thread exists: none can slip in. But for the one that a page brings which can't be read: blocked, it would end the
 * process. */
void thread_start(struct thread *t, const char *name, void (*run)(void *arg), void *arg) {
    t->run = run;
    t->arg = arg;
    snprintf(t->name, sizeof(t->name), "%s", name);
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&t->id, NULL, enter, t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err != 0) {
        diag(DIAG_WARNING, "thread.failed name=%s error=\"%s\"", t->name, dc_errno_text(err));
        exit(1);
    }
}

void thread_join(struct thread *t) {
    int err = pthread_join(t->id, NULL);
    dc_assert(err == 0);
}

uint32_t thread_cores(void) {
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : (uint32_t)count;
}
