/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a power cut takes under 'everysec', by the log's own clock: which is the test's, and stands still until the log's threads sleep or are in an
 * fdatasync. So seconds pass as fast as the machine can, and never too fast.
 *
 * The linker puts the functions here in the place of those of wake.h and time.h (--wrap).
 */
#include "server/base/time.h"
#include "server/base/wake.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"
#include "tests/support/log_rig.h"

#include <pthread.h>
#include <string.h>

enum {
    LOG_THREADS = 2,
    STEP_US = 10000,
    SECOND_US = 1000000,
    STEPS = 3000,
    LIVES = 5,
    WAKES_MAX = 8
};

/* --- time -------------------------------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int64_t now_us = SECOND_US; /* what follows: under 'lock' */
static int64_t sync_takes_us;
static int64_t sync_until_us; /* an fdatasync is under way; 0 = none */
static struct sleeper {
    const struct wake *wake;
    bool asleep, raised;
    int64_t until_us;
} sleepers[WAKES_MAX];

int64_t __wrap_time_mono_us(void);                         /* NOLINT: the linker's name */
void __wrap_wake_raise(struct wake *w);                    /* NOLINT */
bool __wrap_wake_wait(struct wake *w, int64_t timeout_us); /* NOLINT */

static struct sleeper *sleeper_of(const struct wake *w) {
    uint32_t i = 0;
    while (sleepers[i].wake != NULL && sleepers[i].wake != w) {
        expect(++i < WAKES_MAX);
    }
    sleepers[i].wake = w;
    return &sleepers[i];
}

int64_t __wrap_time_mono_us(void) { /* NOLINT */
    pthread_mutex_lock(&lock);
    int64_t now = now_us;
    pthread_mutex_unlock(&lock);
    return now;
}

void __wrap_wake_raise(struct wake *w) { /* NOLINT */
    pthread_mutex_lock(&lock);
    sleeper_of(w)->raised = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

bool __wrap_wake_wait(struct wake *w, int64_t timeout_us) { /* NOLINT */
    pthread_mutex_lock(&lock);
    struct sleeper *s = sleeper_of(w);
    s->asleep = true;
    s->until_us = now_us + timeout_us;
    pthread_cond_broadcast(&changed);
    while (!s->raised && now_us < s->until_us) {
        pthread_cond_wait(&changed, &lock);
    }
    bool raised = s->raised;
    s->asleep = s->raised = false;
    pthread_mutex_unlock(&lock);
    return raised;
}

static void take_time(void *arg, enum sim_call kind, const char *path) {
    (void)arg, (void)path;
    pthread_mutex_lock(&lock);
    if (kind == SIM_SYNC && sync_takes_us > 0) {
        sync_until_us = now_us + sync_takes_us;
        pthread_cond_broadcast(&changed);
        while (now_us < sync_until_us) {
            pthread_cond_wait(&changed, &lock);
        }
        sync_until_us = 0;
    }
    pthread_mutex_unlock(&lock);
}

static bool is_settled(void) {
    uint32_t quiet = sync_until_us > now_us;
    for (uint32_t i = 0; i < WAKES_MAX; i++) {
        const struct sleeper *s = &sleepers[i];
        quiet += s->asleep && !s->raised && s->until_us > now_us;
    }
    return quiet == LOG_THREADS;
}

/* The log's threads do what is to be done by now. */
static void settle(void) {
    pthread_mutex_lock(&lock);
    pthread_cond_broadcast(&changed);
    while (!is_settled()) {
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
}

static void pass(uint64_t steps) {
    for (; steps > 0; steps--) {
        pthread_mutex_lock(&lock);
        now_us += STEP_US;
        pthread_mutex_unlock(&lock);
        settle();
    }
}

static void sync_takes(int64_t us) {
    pthread_mutex_lock(&lock);
    sync_takes_us = us;
    pthread_mutex_unlock(&lock);
}

/* --- writes and replies ------------------------------------------------------------------------------- */

static struct write {
    uint64_t end;
    int64_t acked_us; /* when its reply left */
} writes[STEPS];
static uint64_t write_count, acked_count;

/* As the node lets replies leave (node_level()). */
static void let_replies_leave(void) {
    uint64_t mark = (log_is_late(rig.log) ? log_durable(rig.log) : log_written(rig.log)).v;
    while (acked_count < write_count && writes[acked_count].end <= mark) {
        writes[acked_count++].acked_us = time_mono_us();
    }
}

/* Of acknowledged writes, if the power is cut now. */
struct loss {
    uint64_t count;
    int64_t age_us;  /* of the oldest one */
    int64_t span_us; /* from the oldest to the newest */
};

static struct loss cut_power(uint64_t seed) {
    struct sim_disk *d = sim_disk_crash(rig.disk, SIM_CUT_NOTHING, seed);
    struct rig_found found;
    struct loss loss = {.count = 0};
    rig_read(&found, d, 0);
    uint64_t kept = rig_count_numbers(&found);
    expect(kept <= write_count);
    if (kept < acked_count) {
        loss.count = acked_count - kept;
        loss.age_us = time_mono_us() - writes[kept].acked_us;
        loss.span_us = writes[acked_count - 1].acked_us - writes[kept].acked_us;
    }
    rig_found_fini(&found);
    sim_disk_destroy(d);
    return loss;
}

struct outcome {
    struct loss worst;
    uint64_t late_steps; /* in which replies waited for the disk */
};

static void open_log(void) {
    rig_init();
    rig.opts.segment_len = 512 * 1024; /* one: who rotates may wait for who syncs */
    rig_open();
    write_count = acked_count = 0;
    sim_disk_set_hook(rig.disk, take_time, NULL);
    settle();
}

static void close_log(void) {
    sync_takes(0);
    pass(10 * SECOND_US / STEP_US);
    let_replies_leave();
    expect_eq(acked_count, write_count);
    expect_eq(cut_power(0).count, 0); /* nobody has written for a while */
    sim_disk_set_hook(rig.disk, NULL, NULL);
    rig_close(true);
    rig_fini();
    memset(sleepers, 0, sizeof(sleepers));
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* Writes for a while on a disk whose fdatasync takes up to so long, and looks now and then at what a power cut would take. */
static void live(struct rng *r, int64_t sync_us_max, struct outcome *o) {
    open_log();
    for (uint64_t i = 0; i < STEPS; i++) {
        if (rng_below(r, 100) == 0) {
            sync_takes(sync_us_max > 0 ? (int64_t)rng_below(r, (uint64_t)sync_us_max) : 0);
        }
        pass(rng_below(r, 300) == 0 ? rng_below(r, 300) : 1);
        let_replies_leave();
        if (rng_below(r, 4) > 0) {
            writes[write_count].end = rig_append_number(write_count, 20);
            write_count++;
            settle();
            let_replies_leave();
        }
        o->late_steps += acked_count < write_count;
        if (rng_below(r, 30) == 0) {
            struct loss loss = cut_power(i);
            o->worst.count += loss.count;
            o->worst.age_us = larger(o->worst.age_us, loss.age_us);
            o->worst.span_us = larger(o->worst.span_us, loss.span_us);
        }
    }
    close_log();
}

/* Of several logs, the worst: in one alone the moments may be missing in which most can be lost. */
static struct outcome live_often(int64_t sync_us_max) {
    struct outcome o = {.late_steps = 0};
    struct rng r = test_rng();
    for (int i = 0; i < LIVES; i++) {
        live(&r, sync_us_max, &o);
    }
    return o;
}

START_TEST(a_power_cut_takes_the_last_second) {
    struct outcome o = live_often(0);
    expect(o.worst.count > 0);
    expect(o.worst.age_us <= SECOND_US + STEP_US);
    expect_eq(o.late_steps, 0);
}
END_TEST

START_TEST(of_a_disk_that_takes_its_time_the_last_two) {
    struct outcome o = live_often(SECOND_US);
    expect(o.worst.age_us > SECOND_US);
    expect(o.worst.age_us <= 2 * SECOND_US + STEP_US);
}
END_TEST

/* However long it hangs: what was acknowledged and is lost was so within two seconds, then replies waited. */
START_TEST(of_one_that_hangs_the_two_before_replies_began_to_wait) {
    struct outcome o = live_often(10 * SECOND_US);
    expect(o.worst.age_us > 2 * SECOND_US);
    expect(o.worst.span_us > SECOND_US);
    expect(o.worst.span_us <= 2 * SECOND_US + STEP_US);
    expect(o.late_steps > 0);
}
END_TEST

CHECK_MAIN("log_everysec", a_power_cut_takes_the_last_second,
           of_a_disk_that_takes_its_time_the_last_two,
           of_one_that_hangs_the_two_before_replies_began_to_wait)
