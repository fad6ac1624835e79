/* SPDX-License-Identifier: BSD-3-Clause */
/* The log on a disk that is well. test_log_trouble.c has the others. */
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "server/base/time.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"
#include "tests/support/log_rig.h"
#include "tests/support/trace.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* --- the order of calls ------------------------------------------------------------------------------ */

/* A file has the name under which it was opened. FORK is 64 bytes, a frame of "k1" with 10000 bytes 10034. */
START_TEST(the_calls_come_in_their_order) {
    enum { HEAD = SEGMENT_HEADER_LEN };
    rig_init();
    rig_open();
    /* Bytes and name are on the disk before anybody may append. */
    rig_expect_trace(2, "write segment-0.tmp 0+104\n"
                        "write segment-0.tmp 4096+64\n"
                        "sync segment-0.tmp\n"
                        "rename segment-0.tmp log-0000000000010000-0000000000000abc.dcl\n"
                        "sync_dir data\n"
                        "write segment-0.tmp 512+24\n");
    expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(1, 10000)));
    rig_expect_trace(2, "write segment-0.tmp 4160+10034\n"
                        "sync segment-0.tmp\n"
                        "write segment-0.tmp 512+24\n");
    /* It doesn't fit: the next segment. The old one is synced, the new one's name is made durable. */
    expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(2, 10000)));
    rig_expect_trace(3, "write segment-1.tmp 0+104\n"
                        "rename segment-1.tmp log-0000000000012772-0000000000000abc.dcl\n"
                        "write segment-1.tmp 4096+10034\n"
                        "sync segment-0.tmp\n"
                        "write segment-0.tmp 512+24\n"
                        "sync segment-1.tmp\n"
                        "sync_dir data\n"
                        "write segment-1.tmp 512+24\n");
    rig_close(true);
    rig_expect_trace(0, "write segment-1.tmp 14130+24\n"
                        "sync segment-1.tmp\n"
                        "write segment-1.tmp 512+24\n"
                        "truncate segment-1.tmp 14154\n"
                        "sync segment-1.tmp\n");
    rig_fini();
}
END_TEST

/* A segment of 'always' is full of zeros that are on the disk, the first one too; the mark isn't written with each fdatasync. */
START_TEST(always_syncs_bytes_and_nothing_else) {
    enum { COUNT = 10 };
    struct buf wanted;
    rig_init();
    rig.opts.sync = LOG_SYNC_ALWAYS;
    rig_open();
    rig_expect_trace(2, "write segment-0.tmp 4096+16384\n"
                        "sync segment-0.tmp\n"
                        "write segment-0.tmp 0+104\n"
                        "write segment-0.tmp 4096+64\n"
                        "sync segment-0.tmp\n"
                        "rename segment-0.tmp log-0000000000010000-0000000000000abc.dcl\n"
                        "sync_dir data\n"
                        "write segment-0.tmp 512+24\n"
                        "write segment-1.tmp 4096+16384\n"
                        "sync segment-1.tmp\n");
    int64_t began_us = time_mono_us();
    buf_init(&wanted, 0);
    for (uint64_t i = 0; i < COUNT; i++) {
        char text[80];
        expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(i, 1000)));
        snprintf(text, sizeof(text), "write segment-0.tmp %" PRIu64 "+1034\nsync segment-0.tmp\n",
                 4160 + i * 1034);
        buf_append_str(&wanted, text);
    }
    buf_append(&wanted, "", 1);
    /* One that is due each second catches up. It may have come in between, too. */
    char *trace = rig_take_trace(rig_trace_ends_with_mark, NULL);
    expect(rig_trace_ends_with_mark(trace, NULL));
    size_t seconds = (size_t)((time_mono_us() - began_us) / 1000000);
    expect(trace_drop(trace, " 512+24\n") <= seconds + 1);
    ck_assert_str_eq(trace, wanted.ptr);
    mem_free(trace);
    buf_fini(&wanted);
    rig_close(true);
    rig_fini();
}
END_TEST

/* --- many appenders ---------------------------------------------------------------------------------- */

enum { APPENDERS = 4, FRAMES = 2000, FEED_FRAMES = 150 };

struct appender {
    struct thread thread;
    uint32_t index;
    uint64_t ends[FRAMES];
};

/* Most values are small, some fill a segment, some are blobs. */
static uint64_t append_some(struct log_feed *f, struct rng *rng, const char *key) {
    static const char bytes[2 * RIG_SEGMENT_LEN];
    uint64_t dice = rng_below(rng, 1000);
    if (dice < 10) {
        struct blob *b = blob_create(BLOB_MIN_LEN + rng_below(rng, 1000), BLOB_MIN_LEN + 1000);
        memset(b->data, (int)dice, b->len);
        uint64_t end = rig_append_blob(f, key, b);
        blob_release(b);
        return end;
    }
    return rig_append(f, key, bytes_of(bytes, rng_below(rng, dice < 20 ? sizeof(bytes) : 300)));
}

static void append_many(void *arg) {
    struct appender *a = arg;
    struct rng rng;
    struct log_feed *f = log_feed_create(rig.log);
    rng_seed(&rng, test_seed_value + a->index);
    for (uint32_t i = 0; i < FRAMES; i++) {
        char key[32];
        snprintf(key, sizeof(key), "%u:%u", a->index, i);
        a->ends[i] = append_some(f, &rng, key);
        if (i % FEED_FRAMES == FEED_FRAMES - 1) {
            log_feed_destroy(f);
            f = log_feed_create(rig.log);
        }
    }
    log_feed_destroy(f);
}

/* I3 */
static void watch_marks(void *arg) {
    const _Atomic bool *stop = arg;
    uint64_t last[3] = {0};
    while (!atomic_load(stop)) {
        uint64_t durable = log_durable(rig.log).v;
        uint64_t written = log_written(rig.log).v;
        uint64_t head = log_head(rig.log).v;
        expect(durable <= written && written <= head);
        expect(durable >= last[0] && written >= last[1] && head >= last[2]);
        last[0] = durable;
        last[1] = written;
        last[2] = head;
    }
}

static void check_appender(const struct appender *a, const struct rig_found *found) {
    for (uint32_t i = 0; i < FRAMES; i++) {
        char key[32];
        const struct rig_frame *frame = rig_find(found, a->ends[i]);
        snprintf(key, sizeof(key), "%u:%u", a->index, i);
        ck_assert_msg(frame != NULL, "no frame ends at %" PRIu64, a->ends[i]);
        ck_assert_str_eq(frame->key, key);
        expect(i == 0 || a->ends[i] > a->ends[i - 1]);
    }
}

static void run_appenders(struct appender *list) {
    struct thread watcher;
    static _Atomic bool stop;
    atomic_store(&stop, false);
    thread_start(&watcher, "watcher", watch_marks, &stop);
    for (uint32_t i = 0; i < APPENDERS; i++) {
        list[i].index = i;
        thread_start(&list[i].thread, "appender", append_many, &list[i]);
    }
    for (uint32_t i = 0; i < APPENDERS; i++) {
        thread_join(&list[i].thread);
    }
    atomic_store(&stop, true);
    thread_join(&watcher);
}

/* What a tap was told. */
static struct {
    uint64_t next;
    uint64_t count, long_count;
} tapped;

static void tap(void *arg, uint64_t lsn, const char *bytes, size_t len) {
    (void)arg;
    expect_eq(lsn, tapped.next);
    expect(len > 0);
    tapped.next = lsn + len;
    tapped.count++;
    tapped.long_count += bytes == NULL;
    if (bytes != NULL) {
        struct frame_head head;
        expect_eq(frame_check_head(bytes, len, rig.opts.history.id, lsn, &head), FRAME_OK);
    }
}

START_TEST(who_sends_it_on_is_told_of_every_byte_in_order) {
    static const char bytes[100 * 1000];
    rig_init();
    rig_open();
    memset(&tapped, 0, sizeof(tapped));
    tapped.next = log_head(rig.log).v;
    log_set_tap(rig.log, tap, NULL);
    struct log_feed *f = log_feed_create(rig.log);
    for (int i = 0; i < 200; i++) {
        uint64_t end = rig_append(f, "key", bytes_of(bytes, i % 50 == 0 ? sizeof(bytes) : 10));
        if (i % 7 == 0 || i % 50 == 0 || i % 50 == 49) {
            expect(rig_wait(LOG_LEVEL_OS, end));
        }
    }
    uint64_t head = log_head(rig.log).v;
    log_feed_destroy(f);
    rig_close(false);
    expect_eq(tapped.next, head);
    expect(tapped.long_count == 4 && tapped.count > 30);
    rig_fini();
}
END_TEST

static void check_many(enum log_sync sync, uint64_t memory_limit, bool clean) {
    static struct appender list[APPENDERS];
    struct rig_found found;
    rig_init();
    rig.opts.sync = sync;
    rig.opts.segment_len = 4 * RIG_SEGMENT_LEN;
    rig.opts.memory_limit = memory_limit;
    rig_open();
    run_appenders(list);
    rig_close(clean);
    rig_read(&found, rig.disk, 0);
    expect_eq(found.how, LOG_END);
    expect_eq(found.count, APPENDERS * FRAMES + 1 + (clean ? 1 : 0));
    expect_eq(found.frames[0].kind, FRAME_FORK);
    expect_eq(found.frames[found.count - 1].kind, clean ? FRAME_CLOSE : FRAME_MUTATION);
    for (uint32_t i = 0; i < APPENDERS; i++) {
        check_appender(&list[i], &found);
    }
    rig_found_fini(&found);
    rig_fini();
}

START_TEST(every_frame_of_many_appenders_is_there_in_order) {
    check_many(LOG_SYNC_EVERYSEC, (uint64_t)1 << 30, true);
}
END_TEST

START_TEST(so_it_is_with_little_memory_and_many_syncs) {
    check_many(LOG_SYNC_ALWAYS, 64 * 1024, true);
}
END_TEST

START_TEST(so_it_is_without_a_clean_end) {
    check_many(LOG_SYNC_NO, (uint64_t)1 << 30, false);
}
END_TEST

/* --- syncs ------------------------------------------------------------------------------------------- */

enum { WAITERS = 12, ROUNDS = 15 };

/* What each of them waits for; UINT64_MAX = he has all. */
static _Atomic uint64_t awaited[WAITERS];

static void wait_for_disk(void *arg) {
    _Atomic uint64_t *mine = arg;
    struct log_feed *f = log_feed_create(rig.log);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t end = rig_append(f, "key", bytes_of("value", 5));
        atomic_store(mine, end);
        expect(rig_wait(LOG_LEVEL_DISK, end));
    }
    atomic_store(mine, UINT64_MAX);
    log_feed_destroy(f);
}

static bool all_wait(void *arg) {
    uint64_t durable = log_durable(rig.log).v;
    (void)arg;
    for (int i = 0; i < WAITERS; i++) {
        if (atomic_load(&awaited[i]) <= durable) {
            return false;
        }
    }
    return true;
}

/* So slow that all wait when it ends, however late the system wakes them. */
static void slow_sync(void *arg, enum sim_call kind, const char *path) {
    (void)arg, (void)path;
    if (kind == SIM_SYNC) {
        (void)rig_until(all_wait, NULL);
    }
}

START_TEST(one_sync_serves_all_who_wait) {
    struct thread threads[WAITERS];
    rig_init();
    rig.opts.sync = LOG_SYNC_ALWAYS;
    rig_open();
    sim_disk_set_hook(rig.disk, slow_sync, NULL);
    uint64_t before = sim_disk_calls(rig.disk, SIM_SYNC);
    for (int i = 0; i < WAITERS; i++) {
        atomic_store(&awaited[i], 0);
        thread_start(&threads[i], "waiter", wait_for_disk, &awaited[i]);
    }
    for (int i = 0; i < WAITERS; i++) {
        thread_join(&threads[i]);
    }
    uint64_t syncs = sim_disk_calls(rig.disk, SIM_SYNC) - before;
    /* Who came too late for one is served by the next. */
    ck_assert_msg(syncs <= 3 * ROUNDS, "%" PRIu64 " syncs", syncs);
    sim_disk_set_hook(rig.disk, NULL, NULL);
    rig_close(true);
    rig_fini();
}
END_TEST

static bool is_durable(void *arg) {
    return log_durable(rig.log).v >= *(uint64_t *)arg;
}

START_TEST(everysec_syncs_by_itself_and_only_then) {
    rig_init();
    rig_open();
    uint64_t before = sim_disk_calls(rig.disk, SIM_SYNC);
    uint64_t end = 0;
    for (uint64_t i = 0; i < 100; i++) {
        end = rig_append_number(i, 10);
        expect(rig_wait(LOG_LEVEL_OS, end)); /* nobody waits for the disk */
    }
    expect(sim_disk_calls(rig.disk, SIM_SYNC) - before <= 1);
    int64_t began_us = time_mono_us();
    expect(rig_until(is_durable, &end));
    expect(time_mono_us() - began_us < 2 * 1000 * 1000 || TEST_SANITIZED);
    expect(sim_disk_calls(rig.disk, SIM_SYNC) - before <= 2);
    /* Who is in a hurry doesn't wait for the second to be over. */
    began_us = time_mono_us();
    end = rig_append_number(100, 10);
    log_hurry(rig.log);
    expect(rig_until(is_durable, &end));
    expect(time_mono_us() - began_us < 500 * 1000);
    began_us = time_mono_us();
    expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(101, 10)));
    expect(time_mono_us() - began_us < 500 * 1000);
    rig_close(true);
    rig_fini();
}
END_TEST

START_TEST(always_syncs_at_once_and_no_doesnt) {
    rig_init();
    rig.opts.sync = LOG_SYNC_NO;
    rig_open();
    uint64_t end = rig_append_number(0, 10);
    usleep(1300 * 1000);
    expect(log_durable(rig.log).v < end && log_written(rig.log).v == end);
    log_set_sync(rig.log, LOG_SYNC_ALWAYS);
    expect(rig_until(is_durable, &end));
    int64_t began_us = time_mono_us();
    end = rig_append_number(1, 10);
    expect(rig_until(is_durable, &end));
    expect(time_mono_us() - began_us < 500 * 1000);
    rig_close(true);
    rig_fini();
}
END_TEST

static void count_moved(void *arg) {
    atomic_fetch_add((_Atomic uint32_t *)arg, 1);
}

static bool is_one(void *arg) {
    return atomic_load((_Atomic uint32_t *)arg) >= 1;
}

static bool is_two(void *arg) {
    return atomic_load((_Atomic uint32_t *)arg) >= 2;
}

START_TEST(who_wants_to_know_is_told_once) {
    static _Atomic uint32_t told;
    rig_init();
    rig.opts.sync = LOG_SYNC_NO;
    rig.opts.moved = count_moved;
    rig.opts.arg = &told;
    rig_open();
    expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(0, 10)));
    usleep(10000); /* those in log_wait() are told first */
    expect_eq(atomic_load(&told), 0);
    log_want(rig.log, LOG_LEVEL_DISK);
    expect(rig_wait(LOG_LEVEL_OS, rig_append_number(1, 10)));
    usleep(10000); /* the writer tells waiters first */
    expect_eq(atomic_load(&told), 0);
    log_want(rig.log, LOG_LEVEL_OS);
    for (uint64_t i = 2; i < 10; i++) {
        expect(rig_wait(LOG_LEVEL_OS, rig_append_number(i, 10)));
    }
    expect(rig_until(is_one, &told));
    usleep(10000); /* another time would be too often */
    expect_eq(atomic_load(&told), 1);
    expect(rig_wait(LOG_LEVEL_DISK, log_head(rig.log).v));
    expect(rig_until(is_two, &told));
    usleep(10000);
    expect_eq(atomic_load(&told), 2);
    rig_close(true);
    rig_fini();
}
END_TEST

/* --- opening again ----------------------------------------------------------------------------------- */

/* H6: what stands behind the end in an old file never comes back, since nobody writes there again. */
START_TEST(h6_every_open_begins_a_segment) {
    struct rig_found found;
    struct buf names;
    rig_init();
    for (uint64_t run = 0; run < 5; run++) {
        rig_open();
        rig_append_number(run, 100);
        rig_close(true);
    }
    buf_init(&names, 0);
    rig_list(&names);
    uint32_t segments = 0;
    for (const char *at = names.ptr; (at = strstr(at, "log-")) != NULL; at++) {
        segments++;
    }
    expect_eq(segments, 5);
    expect(strstr(names.ptr, ".tmp") == NULL);
    rig_read(&found, rig.disk, 0);
    expect_eq(found.how, LOG_END);
    expect_eq(found.count, 1 + 5 * 2);
    rig_expect_numbers(&found, 0, 5);
    rig_found_fini(&found);
    buf_fini(&names);
    rig_fini();
}
END_TEST

/* --- 'appendonly no' --------------------------------------------------------------------------------- */

START_TEST(nothing_is_written_while_nobody_needs_it) {
    struct buf names;
    rig_init();
    rig.opts.keeps = false;
    rig_open();
    uint64_t end = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        end = rig_append_number(i, 100);
    }
    expect(rig_wait(LOG_LEVEL_DISK, end)); /* it promises nothing, so nobody waits long */
    expect_eq(sim_disk_changes(rig.disk), 0);
    rig_close(true);
    buf_init(&names, 0);
    rig_list(&names);
    ck_assert_str_eq(names.ptr, "");
    buf_fini(&names);
    rig_fini();
}
END_TEST

static bool is_empty(void *arg) {
    struct buf names;
    (void)arg;
    buf_init(&names, 0);
    rig_list(&names);
    bool empty = names.len == 1;
    buf_fini(&names);
    return empty;
}

static _Atomic bool stop_hammering;

/* As those who write do: not beyond the memory that they may take. A slow build's writer would never come to an end otherwise. */
static void hammer(void *arg) {
    struct log_feed *f = log_feed_create(rig.log);
    struct blob *blob = blob_create(BLOB_MIN_LEN, BLOB_MIN_LEN);
    (void)arg;
    memset(blob->data, 5, blob->len);
    for (uint64_t i = 0; !atomic_load(&stop_hammering); i++) {
        if (i % 500 == 499) {
            rig_append_blob(f, "blob", blob);
        } else {
            rig_append(f, "key", bytes_of("0123456789abcdef", i % 17));
        }
        if (i % 32 == 0) {
            usleep(500);
        }
        while (!log_has_room(rig.log)) {
            usleep(200);
        }
    }
    blob_release(blob);
    log_feed_destroy(f);
}

static bool is_past(void *arg) {
    return log_head(rig.log).v > *(uint64_t *)arg;
}

/* From the pin on everything is there, without a gap, whoever else pins and unpins. */
static void read_pinned(void *arg) {
    uint64_t *seen = arg;
    uint64_t from = log_pin(rig.log).v;
    uint64_t far = from + 4 * RIG_SEGMENT_LEN;
    expect(rig_until(is_past, &far));
    uint64_t head = log_head(rig.log).v;
    expect(rig_wait(LOG_LEVEL_DISK, head));
    struct rig_found found;
    rig_read(&found, rig.disk, from);
    uint64_t next = from;
    for (uint32_t i = 0; i < found.count; i++) {
        expect_eq(found.frames[i].lsn, next);
        next = found.frames[i].end;
    }
    ck_assert_msg(next >= head, "from %" PRIu64 ": %" PRIu64 " < %" PRIu64 ": %s", from, next, head,
                  found.end.text);
    *seen += found.count;
    rig_found_fini(&found);
    log_unpin(rig.log);
}

static void pin_often(void *arg) {
    struct rng rng;
    int64_t end_us = time_mono_us() + 700 * 1000;
    rng_seed(&rng, test_seed_value);
    while (time_mono_us() < end_us) {
        read_pinned(arg);
        usleep((useconds_t)rng_below(&rng, 3000)); /* so that 'nobody' has every length */
    }
}

START_TEST(what_is_pinned_can_be_read_without_a_gap) {
    struct thread appenders[2];
    struct thread readers[2];
    uint64_t seen[2] = {0, 0};
    rig_init();
    rig.opts.keeps = false;
    rig.opts.segment_len = 2 * RIG_SEGMENT_LEN;
    rig_open();
    atomic_store(&stop_hammering, false);
    for (int i = 0; i < 2; i++) {
        thread_start(&appenders[i], "appender", hammer, NULL);
        thread_start(&readers[i], "reader", pin_often, &seen[i]);
    }
    for (int i = 0; i < 2; i++) {
        thread_join(&readers[i]);
    }
    atomic_store(&stop_hammering, true);
    for (int i = 0; i < 2; i++) {
        thread_join(&appenders[i]);
        expect(seen[i] > 0);
    }
    expect(rig_until(is_empty, NULL)); /* nobody needs it any more */
    rig_close(true);
    expect(is_empty(NULL));
    rig_fini();
}
END_TEST

/* What the next start would read from an LSN on; where it ends. */
static uint64_t read_lasting(uint64_t from) {
    struct rig_found found;
    rig.opts.keeps = true; /* it sees no temporary names */
    rig_read(&found, rig.disk, from);
    uint64_t next = from;
    for (uint32_t i = 0; i < found.count && found.frames[0].lsn == from; i++) {
        expect_eq(found.frames[i].lsn, next);
        next = found.frames[i].end;
    }
    rig_found_fini(&found);
    return next;
}

START_TEST(a_log_that_begins_to_be_kept_counts_from_a_snapshot_on) {
    static const _Atomic bool never = false;
    rig_init();
    rig.opts.keeps = false;
    rig_open();
    rig_append_number(0, 100);
    expect(!log_wants_base(rig.log) && !log_is_based(rig.log));
    log_set_keeps(rig.log, true);
    uint64_t from = log_head(rig.log).v;
    for (uint64_t i = 1; i < 100; i++) {
        rig_append_number(i, 1000);
    }
    uint64_t end = log_head(rig.log).v;
    expect(rig_wait(LOG_LEVEL_DISK, end));
    expect(log_wants_base(rig.log) && !log_is_based(rig.log));
    expect_eq(read_lasting(from), from); /* nothing yet */
    log_base(rig.log, from - 1, &never); /* a snapshot that it doesn't join */
    expect(log_wants_base(rig.log));
    log_base(rig.log, from, &never);
    expect(log_is_based(rig.log));
    expect_eq(read_lasting(from), end);
    end = rig_append_number(100, 1000);
    expect(rig_wait(LOG_LEVEL_OS, end));
    expect_eq(read_lasting(from), end);
    log_set_keeps(rig.log, false); /* what was kept stays */
    expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(101, 1000)));
    expect_eq(read_lasting(from), end);
    rig_close(true);
    expect_eq(read_lasting(from), end);
    rig_fini();
}
END_TEST

/* While somebody pins it, or the writer hasn't looked. What was written meanwhile nobody waited for. */
START_TEST(a_log_that_is_ended_and_wanted_again_needs_a_snapshot_behind_that) {
    static const _Atomic bool never = false;
    rig_init();
    rig_open();
    uint64_t from = log_pin(rig.log).v;
    uint64_t before = rig_append_number(0, 1000);
    log_set_keeps(rig.log, false);
    uint64_t end = rig_append_number(1, 1000);
    log_set_keeps(rig.log, true);
    expect(log_wants_base(rig.log) && !log_is_based(rig.log));
    log_base(rig.log, before, &never);
    expect(log_wants_base(rig.log));
    log_base(rig.log, end, &never);
    expect(log_is_based(rig.log));
    log_unpin(rig.log);
    expect(rig_wait(LOG_LEVEL_DISK, end));
    expect_eq(read_lasting(from), end);
    rig_close(true);
    rig_fini();
}
END_TEST

/* A log that begins to be kept behind a snapshot under way. While its files have temporary names a start leaves them alone, so what a crash leaves between
 * two renames is a log that ends early. */
START_TEST(files_get_the_names_that_count_oldest_first) {
    static const _Atomic bool never = false;
    rig_init();
    rig.opts.keeps = false;
    rig.opts.sync = LOG_SYNC_NO;
    rig.hides_marks = true;
    rig_open();
    rig_append_number(0, 100);
    uint64_t from = log_pin(rig.log).v;
    log_set_keeps(rig.log, true);
    rig_expect_trace(2, "write segment-0.tmp 0+104\n"
                        "rename segment-0.tmp log-00000000000100c6-0000000000000abc-0.tmp\n");
    expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(1, 10000)));
    expect(rig_wait(LOG_LEVEL_OS, rig_append_number(2, 10000)));
    rig_expect_trace(3, "write segment-0.tmp 4096+10034\n"
                        "sync segment-0.tmp\n"
                        "sync_dir data\n"
                        "write segment-1.tmp 0+104\n"
                        "rename segment-1.tmp log-00000000000127f8-0000000000000abc-1.tmp\n"
                        "write segment-1.tmp 4096+10034\n");
    expect(rig_wait(LOG_LEVEL_DISK, log_head(rig.log).v)); /* up to E */
    rig_expect_trace(3, "sync segment-0.tmp\n"
                        "sync segment-1.tmp\n"
                        "sync_dir data\n");
    /* It counts when all names are durable. */
    sim_disk_fail(rig.disk, SIM_SYNC_DIR, 1, 1, EIO);
    log_base(rig.log, from, &never);
    expect(log_is_based(rig.log));
    rig_expect_trace(3, "rename log-00000000000100c6-0000000000000abc-0.tmp "
                        "log-00000000000100c6-0000000000000abc.dcl\n"
                        "rename log-00000000000127f8-0000000000000abc-1.tmp "
                        "log-00000000000127f8-0000000000000abc.dcl\n"
                        "sync_dir data -> EIO\n"
                        "sync_dir data\n");
    log_unpin(rig.log);
    expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(3, 10000))); /* from now on at once */
    rig_expect_trace(4, "write segment-2.tmp 0+104\n"
                        "rename segment-2.tmp log-0000000000014f2a-0000000000000abc.dcl\n"
                        "write segment-2.tmp 4096+10034\n"
                        "sync segment-1.tmp\n"
                        "sync segment-2.tmp\n"
                        "sync_dir data\n");
    rig_close(true);
    rig_fini();
}
END_TEST

/* Begins to be kept, counts, and perhaps isn't kept any more; returns from where on, and up to where, it counts at least. */
static uint64_t keep_for_a_while(struct rng *rng, uint64_t *end) {
    static const _Atomic bool never = false;
    log_set_keeps(rig.log, true);
    uint64_t head = log_head(rig.log).v; /* a snapshot ends behind it */
    bool pins = rng_below(rng, 2) == 0;
    uint64_t from = pins ? log_pin(rig.log).v : head;
    usleep((useconds_t)rng_below(rng, 3000));
    log_base(rig.log, from > head ? from : head, &never);
    *end = log_head(rig.log).v;
    expect(log_is_based(rig.log) && rig_wait(LOG_LEVEL_OS, *end));
    if (rng_below(rng, 2) == 0) {
        log_set_keeps(rig.log, false);
        usleep((useconds_t)rng_below(rng, 1000));
    }
    if (pins) {
        log_unpin(rig.log);
    }
    return from;
}

static void keep_often(uint64_t reached[2]) {
    struct rng rng;
    rng_seed(&rng, test_seed_value);
    for (int i = 0; i < 60; i++) {
        reached[0] = keep_for_a_while(&rng, &reached[1]);
        if (i % 10 == 9) {
            expect(read_lasting(reached[0]) >= reached[1]);
        }
    }
}

START_TEST(it_may_be_kept_and_not_while_many_append) {
    struct thread appenders[2];
    uint64_t reached[2];
    rig_init();
    rig.opts.keeps = false;
    rig.opts.segment_len = 2 * RIG_SEGMENT_LEN;
    rig.opts.memory_limit = 16 * BLOB_MIN_LEN;
    rig_open();
    atomic_store(&stop_hammering, false);
    thread_start(&appenders[0], "appender", hammer, NULL);
    thread_start(&appenders[1], "appender", hammer, NULL);
    keep_often(reached);
    atomic_store(&stop_hammering, true);
    thread_join(&appenders[0]);
    thread_join(&appenders[1]);
    rig_close(true);
    expect(read_lasting(reached[0]) >= reached[1]);
    rig_fini();
}
END_TEST

CHECK_MAIN("log", the_calls_come_in_their_order, always_syncs_bytes_and_nothing_else,
           every_frame_of_many_appenders_is_there_in_order,
           so_it_is_with_little_memory_and_many_syncs, so_it_is_without_a_clean_end,
           one_sync_serves_all_who_wait, everysec_syncs_by_itself_and_only_then,
           always_syncs_at_once_and_no_doesnt, who_wants_to_know_is_told_once,
           h6_every_open_begins_a_segment, who_sends_it_on_is_told_of_every_byte_in_order,
           nothing_is_written_while_nobody_needs_it, what_is_pinned_can_be_read_without_a_gap,
           a_log_that_begins_to_be_kept_counts_from_a_snapshot_on,
           a_log_that_is_ended_and_wanted_again_needs_a_snapshot_behind_that,
           files_get_the_names_that_count_oldest_first, it_may_be_kept_and_not_while_many_append)
