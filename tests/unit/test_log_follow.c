/* SPDX-License-Identifier: BSD-3-Clause */
/* A log that follows another one, and histories that begin in the middle of a run. */
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

enum { FRAMES_MAX = 400 };

/* --- what a primary has written --------------------------------------------------------------------------- */

static struct {
    struct buf bytes;
    uint64_t lsn;              /* of the first byte */
    uint64_t ends[FRAMES_MAX]; /* of frames */
    uint32_t count;
} source;

static void copy_frame(const struct frame_ref *f) {
    if (source.count == 0) {
        source.lsn = f->lsn;
    }
    buf_append(&source.bytes, f->bytes, f->len);
    expect(source.count < FRAMES_MAX);
    source.ends[source.count++] = f->lsn + f->len;
}

/* All frames of the directory. */
static void copy_log(void) {
    struct log_dir dir;
    struct log_reader *r;
    struct frame_ref f;
    buf_init(&source.bytes, 0);
    source.count = 0;
    expect_eq(log_dir_open(&dir, rig.opts.io, rig.opts.dir), DC_OK);
    expect_eq(log_reader_open(&r, &dir, 0), DC_OK);
    while (log_reader_next(r, &f) == LOG_MORE) {
        copy_frame(&f);
    }
    log_reader_close(r);
    log_dir_close(&dir);
}

/* A run of a primary: small frames, some that fill a segment, some with blobs. Afterwards the rig has a log of its own that follows. */
static void make_source(uint32_t frames) {
    rig_init();
    rig_open();
    struct blob *b = blob_create(BLOB_MIN_LEN, BLOB_MIN_LEN);
    memset(b->data, 7, b->len);
    for (uint32_t i = 0; i < frames; i++) {
        if (i % 50 == 49) {
            rig_append_blob(rig.feed, "blob", b);
        } else {
            rig_append_number(i, i % 20 == 19 ? RIG_SEGMENT_LEN : 10 + i % 300);
        }
    }
    blob_release(b);
    expect(rig_wait(LOG_LEVEL_DISK, log_head(rig.log).v));
    rig_close(false);
    copy_log();
    expect_eq(rig.opts.io->mkdir(rig.opts.io, "copy"), 0);
    rig.opts.dir = "copy";
    rig.opts.first_lsn = source.ends[0]; /* the FORK came with a snapshot */
    rig.opts.fork = false;
    rig.opts.follows = true;
}

static const char *source_at(uint64_t lsn) {
    return source.bytes.ptr + (lsn - source.lsn);
}

static uint64_t source_end(void) {
    return source.ends[source.count - 1];
}

/* Puts what the source has behind the head, so many frames; returns false when there are no more. */
static bool put_frames(uint32_t count) {
    uint64_t head = log_head(rig.log).v;
    uint64_t end = head;
    for (uint32_t i = 0; i < source.count && count > 0; i++) {
        if (source.ends[i] > head) {
            end = source.ends[i];
            count--;
        }
    }
    if (end == head) {
        return false;
    }
    expect_eq(log_put(rig.feed, head, source_at(head), (size_t)(end - head)), DC_OK);
    log_kick(rig.log);
    return true;
}

/* The writer gets them in larger and smaller portions. */
static void put_all(struct rng *rng) {
    while (put_frames(1 + (uint32_t)rng_below(rng, 40))) {
        if (rng_below(rng, 4) == 0) {
            (void)log_wait(rig.log, LOG_LEVEL_OS, log_head(rig.log), 1000);
        }
    }
}

/* The copy on a disk has the source's bytes from 'from' on; returns where it ends. */
static uint64_t expect_copied(struct sim_disk *d, uint64_t from) {
    struct log_dir dir;
    struct log_reader *r;
    struct frame_ref f;
    uint64_t at = from;
    expect_eq(log_dir_open(&dir, sim_disk_io(d), "copy"), DC_OK);
    expect_eq(log_reader_open(&r, &dir, from), DC_OK);
    while (log_reader_next(r, &f) == LOG_MORE) {
        expect_eq(f.lsn, at);
        expect(at + f.len <= source_end() && memcmp(f.bytes, source_at(at), f.len) == 0);
        at += f.len;
    }
    log_reader_close(r);
    log_dir_close(&dir);
    return at;
}

static void finish(void) {
    buf_fini(&source.bytes);
    rig_fini();
}

/* --- following ----------------------------------------------------------------------------------------------- */

START_TEST(it_has_the_same_bytes_at_the_same_places) {
    struct rng rng = test_rng();
    make_source(300);
    rig_open();
    uint64_t from = log_head(rig.log).v;
    put_all(&rng);
    expect_eq(log_head(rig.log).v, source_end());
    log_feed_destroy(rig.feed);
    log_close(rig.log, true, 5000);
    expect_eq(expect_copied(rig.disk, from), source_end()); /* no CLOSE */
    finish();
}
END_TEST

START_TEST(large_frames_need_no_copy) {
    make_source(120);
    rig_open();
    uint64_t from = log_head(rig.log).v;
    for (uint32_t i = 0; i < source.count; i++) {
        uint64_t head = log_head(rig.log).v;
        if (source.ends[i] <= head || (i % 7 != 0 && i + 1 < source.count)) {
            continue;
        }
        struct blob *b = blob_from(bytes_of(source_at(head), (size_t)(source.ends[i] - head)));
        expect_eq(log_put_blob(rig.feed, head, b), DC_OK);
        blob_release(b);
        put_frames(i % 3);
        log_kick(rig.log);
    }
    expect_eq(log_head(rig.log).v, source_end());
    log_feed_destroy(rig.feed);
    log_close(rig.log, true, 5000);
    expect_eq(expect_copied(rig.disk, from), source_end());
    finish();
}
END_TEST

static void put_half(void *arg) {
    uint64_t head = log_head(rig.log).v;
    expect_eq(log_put(rig.feed, head, source_at(head), *(size_t *)arg), DC_OK);
}

static void put_elsewhere(void *arg) {
    (void)arg;
    uint64_t head = log_head(rig.log).v;
    expect_eq(log_put(rig.feed, head + 8, source_at(head), (size_t)(source.ends[1] - head)), DC_OK);
}

START_TEST(h9_half_a_frame_is_never_put) {
    make_source(10);
    rig_open();
    size_t lens[] = {0, 1, FRAME_HEADER_LEN, (size_t)(source.ends[1] - source.ends[0]) - 1,
                     (size_t)(source.ends[1] - source.ends[0]) + FRAME_HEADER_LEN};
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        expect(test_aborts(put_half, &lens[i]));
    }
    expect(test_aborts(put_elsewhere, NULL));
    rig_close(true);
    finish();
}
END_TEST

START_TEST(without_memory_nothing_is_put) {
    make_source(30);
    rig_open();
    uint64_t head = log_head(rig.log).v;
    uint64_t end = source.ends[25]; /* more than a feed has room for */
    mem_fault_after(1);
    enum dc_err err = log_put(rig.feed, head, source_at(head), (size_t)(end - head));
    mem_fault_after(0);
    expect_eq(err, DC_ENOMEM);
    expect_eq(log_head(rig.log).v, head);
    expect_eq(log_put(rig.feed, head, source_at(head), (size_t)(end - head)), DC_OK);
    expect(rig_wait(LOG_LEVEL_DISK, end));
    rig_close(true);
    finish();
}
END_TEST

/* H9: it is cut off at any call, in the middle of a frame too. What is found is whole frames; it goes on there, in the same history, and ends up
 * with the same bytes. */
START_TEST(h9_after_a_power_cut_it_goes_on_at_the_end_of_a_frame) {
    struct rng rng = test_rng();
    for (uint64_t n = 1; n < 40; n++) {
        make_source(60);
        rig_open();
        uint64_t from = log_head(rig.log).v;
        sim_disk_stop_after(rig.disk, n);
        put_all(&rng);
        log_feed_destroy(rig.feed);
        log_close(rig.log, false, 1);
        struct sim_disk *cut =
            sim_disk_crash(rig.disk, (enum sim_cut)(n % SIM_CUT_COUNT), rng_next(&rng));
        uint64_t found = expect_copied(cut, from);
        bool whole = found == from;
        for (uint32_t i = 0; i < source.count; i++) {
            whole |= source.ends[i] == found;
        }
        expect(whole);
        rig.opts.io = sim_disk_io(cut);
        rig.opts.first_lsn = found;
        rig_open();
        put_all(&rng);
        log_feed_destroy(rig.feed);
        log_close(rig.log, true, 5000);
        expect_eq(expect_copied(cut, from), source_end());
        sim_disk_destroy(cut);
        finish();
    }
}
END_TEST

static void count_moved(void *arg) {
    atomic_fetch_add((_Atomic uint32_t *)arg, 1);
}

START_TEST(what_is_applied_is_a_mark_of_its_own) {
    static _Atomic uint32_t told;
    make_source(20);
    rig.opts.moved = count_moved;
    rig.opts.arg = &told;
    rig_open();
    uint64_t from = log_head(rig.log).v;
    expect(log_follows(rig.log));
    expect_eq(log_applied(rig.log).v, from);
    put_frames(4);
    uint64_t head = log_head(rig.log).v;
    expect_eq(log_applied(rig.log).v, from);
    log_set_applied(rig.log, (struct lsn){source.ends[2]});
    log_set_applied(rig.log, (struct lsn){source.ends[1]}); /* it only rises */
    expect_eq(log_applied(rig.log).v, source.ends[2]);
    expect_eq(atomic_load(&told), 0);
    log_want_applied(rig.log);
    log_set_applied(rig.log, (struct lsn){source.ends[3]});
    log_set_applied(rig.log, (struct lsn){head});
    expect_eq(atomic_load(&told), 1);
    expect_eq(log_applied(rig.log).v, head);
    log_set_follows(rig.log, false);
    uint64_t end = rig_append_number(1, 10);
    expect_eq(log_applied(rig.log).v, end);
    rig_close(true);
    finish();
}
END_TEST

/* --- a history begins ------------------------------------------------------------------------------------------ */

static struct histories *next_chain(uint64_t id) {
    uint64_t head = log_head(rig.log).v;
    struct history next = {.id = id,
                           .start = head + LSN_JUMP,
                           .epoch = 1 + log_chain(rig.log)->count,
                           .parent_end = head};
    return histories_add(log_chain(rig.log), &next);
}

static enum dc_err begin(uint64_t id) {
    struct histories *chain = next_chain(id);
    enum dc_err err = log_begin_history(rig.log, chain, NULL, 0);
    mem_free(chain);
    return err;
}

START_TEST(a_history_has_its_name_when_its_fork_is_durable) {
    rig_init();
    rig_open();
    rig_append_number(1, 1000);
    uint64_t end = rig_append_number(2, 1000);
    expect(rig_wait(LOG_LEVEL_DISK, end));
    mem_free(rig_take_trace(rig_trace_ends_with_mark, NULL));
    const struct histories *before = log_chain(rig.log);
    expect_eq(begin(0xdef), DC_OK);
    size_t lines = 6;
    char *trace = rig_take_trace(rig_trace_has_lines, &lines);
    char spare[32] = "", wanted[1024];
    (void)sscanf(trace, "write %31s", spare); /* whichever there is */
    snprintf(wanted, sizeof(wanted),
             "write %s 0+104\n"
             "write %s 4096+96\n"
             "sync %s\n"
             "rename %s log-%016" PRIx64 "-0000000000000def.dcl\n"
             "sync_dir data\n"
             "write %s 512+24\n",
             spare, spare, spare, spare, end + LSN_JUMP, spare);
    ck_assert_msg(strncmp(trace, wanted, strlen(wanted)) == 0, "%s", trace);
    mem_free(trace);
    const struct histories *chain = log_chain(rig.log);
    expect(chain != before && before->count == 1 && chain->count == 2);
    expect_eq(chain->list[1].parent_end, end);
    expect_eq(log_head(rig.log).v, end + LSN_JUMP + 96);
    expect_eq(log_durable(rig.log).v, log_head(rig.log).v);
    end = rig_append_number(3, 100);
    expect(rig_wait(LOG_LEVEL_DISK, end));
    rig_close(true);
    struct rig_found found;
    rig_read(&found, NULL, 0);
    expect_eq(found.how, LOG_END);
    rig_expect_numbers(&found, 1, 4);
    expect_eq(found.count, 1 + 2 + 1 + 1 + 1); /* FORK, two, FORK, one, CLOSE */
    expect_eq(found.frames[3].kind, FRAME_FORK);
    rig_found_fini(&found);
    rig_fini();
}
END_TEST

/* The FORK frame of another log, byte for byte. */
START_TEST(a_fork_that_came_from_elsewhere_is_kept_as_it_is) {
    rig_init();
    rig.opts.follows = true;
    rig_open();
    struct histories *chain = next_chain(0xdef);
    struct buf fork;
    buf_init(&fork, 0);
    frame_encode_fork(&fork, chain->list[1].start, 12345, chain->list, chain->count);
    expect_eq(log_begin_history(rig.log, chain, fork.ptr, fork.len), DC_OK);
    expect_eq(log_applied(rig.log).v, chain->list[1].start + fork.len); /* nothing to show */
    struct log_dir dir;
    struct log_reader *r;
    struct frame_ref f;
    expect_eq(log_dir_open(&dir, rig.opts.io, "data"), DC_OK);
    expect_eq(log_reader_open(&r, &dir, chain->list[1].start), DC_OK);
    expect_eq(log_reader_next(r, &f), LOG_MORE);
    expect(f.len == fork.len && memcmp(f.bytes, fork.ptr, fork.len) == 0);
    log_reader_close(r);
    log_dir_close(&dir);
    buf_fini(&fork);
    mem_free(chain);
    log_feed_destroy(rig.feed);
    log_close(rig.log, true, 5000);
    rig_fini();
}
END_TEST

/* What is found after a power cut: 'before' frames and, if it must be, the new history. */
static void check_cut(struct sim_disk *d, uint64_t before, bool begun, const char *what) {
    struct rig_found found;
    rig_read(&found, d, 0);
    ck_assert_msg(found.how == LOG_END || found.how == LOG_TORN, "%s: %s", what, found.end.text);
    uint64_t numbers = rig_count_numbers(&found);
    bool has_fork = found.count > numbers + 1;
    ck_assert_msg(!has_fork || numbers == before, "%s: a history without its past: %s", what,
                  found.end.text);
    ck_assert_msg(!begun || has_fork, "%s: the history is missing: %s", what, found.end.text);
    if (has_fork) {
        expect_eq(found.how, LOG_END);
        expect_eq(found.frames[numbers + 1].kind, FRAME_FORK);
    }
    rig_found_fini(&found);
}

START_TEST(a_power_cut_leaves_the_old_history_or_the_new_one) {
    uint32_t all = 0;
    for (uint64_t n = 1; n <= 20; n++) {
        rig_init();
        rig_open();
        for (uint64_t i = 0; i < 12; i++) {
            rig_append_number(i, 3000);
        }
        expect(rig_wait(LOG_LEVEL_DISK, log_head(rig.log).v));
        for (uint64_t i = 12; i < 15; i++) {
            rig_append_number(i, 300);
        }
        expect(rig_wait(LOG_LEVEL_OS, log_head(rig.log).v));
        sim_disk_stop_after(rig.disk, n);
        struct histories *chain = next_chain(0xdef);
        bool begun = log_begin_history(rig.log, chain, NULL, 0) == DC_OK;
        all += begun;
        mem_free(chain);
        for (int cut = 0; cut < SIM_CUT_COUNT; cut++) {
            for (uint64_t seed = 0; seed < 12; seed++) {
                char what[64];
                snprintf(what, sizeof(what), "call %" PRIu64 ", cut %d, seed %" PRIu64, n, cut,
                         seed);
                struct sim_disk *d = sim_disk_crash(rig.disk, (enum sim_cut)cut, seed);
                check_cut(d, 15, begun, what);
                sim_disk_destroy(d);
            }
        }
        log_feed_destroy(rig.feed);
        log_close(rig.log, false, 1);
        rig_fini();
    }
    expect(all > 3 && all < 17);
}
END_TEST

/* A call fails: nothing has begun, the old history goes on; the next attempt succeeds. */
START_TEST(what_could_not_be_begun_is_tried_again) {
    static const enum sim_call kinds[] = {SIM_WRITE, SIM_SYNC, SIM_RENAME, SIM_SYNC_DIR};
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        rig_init();
        rig_open();
        rig_append_number(0, 100);
        expect(rig_wait(LOG_LEVEL_DISK, log_head(rig.log).v));
        mem_free(
            rig_take_trace(rig_trace_ends_with_mark, NULL)); /* else the mark may be what fails */
        expect(rig_until(rig_has_allocated, &(uint64_t){2}));
        uint64_t head = log_head(rig.log).v;
        sim_disk_fail(rig.disk, kinds[k], 1, 1, EIO);
        expect_eq(begin(0xdef), DC_EIO);
        expect_eq(log_head(rig.log).v, head);
        expect_eq(log_chain(rig.log)->count, 1);
        expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(1, 100)));
        expect_eq(begin(0xabcd), DC_OK);
        expect(rig_wait(LOG_LEVEL_DISK, rig_append_number(2, 100)));
        rig_close(true);
        struct rig_found found;
        rig_read(&found, NULL, 0);
        expect_eq(found.how, LOG_END);
        rig_expect_numbers(&found, 0, 3);
        rig_found_fini(&found);
        rig_fini();
    }
}
END_TEST

/* A failed fdatasync in the new history: what isn't durable is written again there. */
START_TEST(a_failed_sync_behind_it_loses_nothing) {
    rig_init();
    rig_open();
    rig_append_number(0, 100);
    expect_eq(begin(0xdef), DC_OK);
    usleep(20000);
    sim_disk_fail(rig.disk, SIM_SYNC, 1, 1, EIO);
    for (uint64_t i = 1; i < 20; i++) {
        rig_append_number(i, 3000);
    }
    expect(rig_wait(LOG_LEVEL_DISK, log_head(rig.log).v));
    rig_close(true);
    struct rig_found found;
    rig_read(&found, NULL, 0);
    expect_eq(found.how, LOG_END);
    rig_expect_numbers(&found, 0, 20);
    rig_found_fini(&found);
    rig_fini();
}
END_TEST

static _Atomic bool stop_watching;

/* Who has read a mark in a history finds its chain. */
static void watch(void *arg) {
    (void)arg;
    while (!atomic_load(&stop_watching)) {
        uint64_t durable = log_durable(rig.log).v;
        uint64_t written = log_written(rig.log).v;
        uint64_t head = log_head(rig.log).v;
        const struct histories *chain = log_chain(rig.log);
        expect(durable <= written && written <= head);
        uint64_t distance = histories_distance(chain, RIG_FIRST_LSN, head);
        ck_assert_msg(distance < LSN_JUMP, "head %" PRIu64 " isn't in the chain", head);
    }
}

START_TEST(many_histories_in_one_run) {
    struct thread watcher;
    rig_init();
    rig_open();
    atomic_store(&stop_watching, false);
    thread_start(&watcher, "watcher", watch, NULL);
    for (uint64_t i = 0; i < 60; i++) {
        rig_append_number(i, 500 + 37 * i);
        if (i % 3 == 2) {
            expect_eq(begin(0x1000 + i), DC_OK);
        }
    }
    atomic_store(&stop_watching, true);
    thread_join(&watcher);
    const struct histories *chain = log_chain(rig.log);
    expect_eq(chain->count, 21);
    for (uint32_t i = 1; i < chain->count; i++) {
        expect(!histories_lost(chain, chain->list[i].parent_end));
        expect(histories_lost(chain, chain->list[i].parent_end + 1));
        expect(histories_lost(chain, chain->list[i].start));
        expect(!histories_lost(chain, chain->list[i].start + 1));
        expect_eq(histories_end(chain, i - 1), chain->list[i].parent_end);
    }
    rig_close(true);
    struct rig_found found;
    rig_read(&found, NULL, 0);
    expect_eq(found.how, LOG_END);
    rig_expect_numbers(&found, 0, 60);
    rig_found_fini(&found);
    rig_fini();
}
END_TEST

START_TEST(a_log_that_is_not_kept_begins_one_too) {
    rig_init();
    rig.opts.keeps = false;
    rig.opts.fork = false;
    rig_open();
    rig_append_number(0, 100);
    uint64_t end = log_head(rig.log).v;
    expect_eq(begin(0xdef), DC_OK);
    expect_eq(log_durable(rig.log).v, end + LSN_JUMP + 96);
    expect_eq(sim_disk_changes(rig.disk), 0);
    /* While somebody reads, its FORK is in a file. */
    uint64_t from = log_pin(rig.log).v;
    rig_append_number(1, 100);
    expect_eq(begin(0xabcd), DC_OK);
    end = rig_append_number(2, 100);
    expect(rig_wait(LOG_LEVEL_DISK, end));
    struct rig_found found;
    rig_read(&found, NULL, from);
    expect_eq(found.count, 3);
    expect_eq(found.frames[1].kind, FRAME_FORK);
    rig_found_fini(&found);
    log_unpin(rig.log);
    log_feed_destroy(rig.feed);
    log_close(rig.log, true, 5000);
    rig_fini();
}
END_TEST

CHECK_MAIN("log_follow", it_has_the_same_bytes_at_the_same_places, large_frames_need_no_copy,
           h9_half_a_frame_is_never_put, without_memory_nothing_is_put,
           h9_after_a_power_cut_it_goes_on_at_the_end_of_a_frame,
           what_is_applied_is_a_mark_of_its_own, a_history_has_its_name_when_its_fork_is_durable,
           a_fork_that_came_from_elsewhere_is_kept_as_it_is,
           a_power_cut_leaves_the_old_history_or_the_new_one,
           what_could_not_be_begun_is_tried_again, a_failed_sync_behind_it_loses_nothing,
           many_histories_in_one_run, a_log_that_is_not_kept_begins_one_too)
