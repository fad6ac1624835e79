/* SPDX-License-Identifier: BSD-3-Clause */
/* thread: start, name and join threads; the roles of the program. */
#ifndef DC_BASE_THREAD_H
#define DC_BASE_THREAD_H

#include <pthread.h>
#include <stdint.h>

struct thread {
    pthread_t id;
    void (*run)(void *arg);
    void *arg;
    char name[16];
};

/* Starts 'run(arg)' with all signals blocked but SIGBUS (io.h). Ends the process when no thread can be had. */
void thread_start(struct thread *t, const char *name, void (*run)(void *arg), void *arg);
void thread_join(struct thread *t);
/* So many run at a time. */
uint32_t thread_cores(void);
/* The calling thread has another role from here on. */
void thread_rename(const char *name);

#endif
