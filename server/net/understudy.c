/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/net/understudy.h"

#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "server/base/time.h"
#include "server/base/wake.h"
#include "server/cmd/node.h"
#include "server/net/loop.h"

enum {
    LATE_US = 10000,
    LOOK_US = 20000,    /* between looks, while loops are lent */
    QUIET_LOOKS = 5,    /* so many without a new loan, and it sleeps until there is one */
    SLEEP_US = 1000000, /* at most */
};

struct understudy {
    struct node *node;
    struct thread thread;
    struct wake wake;
    _Atomic bool looks; /* false: who lends wakes it */
    _Atomic bool stopping;
};

int64_t seat_lend(struct seat *s) {
    int64_t loan = time_mono_us();
    /* Sequentially consistent, as in understudy_run(): either the loan is seen, or the sleep. */
    atomic_store_explicit(&s->loan, loan, memory_order_seq_cst);
    if (dc_unlikely(!atomic_load_explicit(&s->understudy->looks, memory_order_seq_cst))) {
        atomic_store_explicit(&s->understudy->looks, true, memory_order_seq_cst);
        wake_raise(&s->understudy->wake);
    }
    return loan;
}

bool seat_take(struct seat *s, int64_t loan) {
    /* pairs with seat_lend(): the worker as its thread has left it */
    return atomic_compare_exchange_strong_explicit(&s->loan, &loan, -loan, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

enum sight { SEES_NOTHING, SEES_LOANS, IS_OVER };

/* Goes on with a loop that is lent for too long, until it ends (IS_OVER), or is lost in turn. Loans: there is one, or was since '*newest'. */
static enum sight look(struct understudy *s, int64_t *newest) {
    enum sight sight = SEES_NOTHING;
    for (uint32_t i = 0; i < s->node->worker_count; i++) {
        struct worker *w = (struct worker *)s->node->workers[i];
        int64_t loan = atomic_load_explicit(&w->seat.loan, memory_order_seq_cst);
        int64_t since_us = loan < 0 ? -loan : loan;
        sight = loan > 0 || since_us > *newest ? SEES_LOANS : sight;
        *newest = since_us > *newest ? since_us : *newest;
        if (loan > 0 && time_mono_us() - loan >= LATE_US && seat_take(&w->seat, loan)) {
            metric_add(&w->cmd.metrics, METRIC_LOOPS_TAKEN, 1);
            w->cmd.memory_counts =
                false; /* what this thread has allocated so far is another story */
            if (worker_run(w)) {
                return IS_OVER;
            }
            thread_rename("understudy");
            sight = SEES_LOANS;
        }
    }
    return sight;
}

void understudy_run(struct understudy *s) {
    int64_t newest = 0;
    uint32_t quiet = 0;
    thread_rename("understudy");
    while (!atomic_load_explicit(&s->stopping, memory_order_acquire)) {
        bool sleeps = quiet >= QUIET_LOOKS;
        if (sleeps) { /* before the look: seat_lend() */
            atomic_store_explicit(&s->looks, false, memory_order_seq_cst);
        }
        enum sight sight = look(s, &newest);
        if (sight == IS_OVER) { /* the thread that it took the loop from is the understudy */
            return;
        }
        quiet = sight == SEES_LOANS ? 0 : quiet + 1;
        (void)wake_wait(&s->wake, sleeps && sight == SEES_NOTHING ? SLEEP_US : LOOK_US);
        atomic_store_explicit(&s->looks, true, memory_order_seq_cst);
    }
}

static void understudy_main(void *arg) {
    understudy_run(arg);
}

struct understudy *understudy_start(struct node *n) {
    struct understudy *s = mem_must_zalloc(sizeof(*s));
    s->node = n;
    atomic_init(&s->looks, true);
    wake_init(&s->wake);
    for (uint32_t i = 0; i < n->worker_count; i++) {
        ((struct worker *)n->workers[i])->seat.understudy = s;
    }
    thread_start(&s->thread, "understudy", understudy_main, s);
    return s;
}

void understudy_stop(struct understudy *s) {
    atomic_store_explicit(&s->stopping, true, memory_order_release);
    wake_raise(&s->wake);
    thread_join(&s->thread);
    for (uint32_t i = 0; i < s->node->worker_count; i++) {
        thread_join(&((struct worker *)s->node->workers[i])->thread);
    }
    mem_free(s);
}
