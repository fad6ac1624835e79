/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/effect_queue.h"
#include "server/base/mem.h"
#include "tests/support/check_main.h"
#include "tests/support/segment_build.h"
#include "tests/support/sim_disk.h"

#include <stdio.h>

enum { SEGMENTS = 3, FRAMES = 700, RANGE_BITS = 8, EFFECTS_MAX = SEGMENTS * FRAMES, ALL = -1 };

static const struct history h1 = {.id = 11, .start = 1000, .epoch = 1};

/* Three segments, the first one with a FORK; every fourth effect is of one key. */
static struct sim_disk *write_log(void) {
    struct sim_disk *d = sim_disk_create();
    struct rng r = test_rng();
    uint64_t lsn = h1.start;
    for (uint32_t s = 0; s < SEGMENTS; s++) {
        struct segment_build b;
        segment_build_init(&b, &h1, lsn);
        if (s == 0) {
            segment_build_fork(&b, &h1, 1);
        }
        for (uint32_t i = 0; i < FRAMES; i++) {
            char key[16];
            struct bytes value = BYTES("value");
            uint64_t n = rng_below(&r, 4) == 0 ? 0 : 1 + rng_below(&r, 500);
            struct bytes name = bytes_of(key, (size_t)snprintf(key, sizeof(key), "k%d", (int)n));
            segment_build_frame(&b, &name, &value, 1);
        }
        lsn = b.lsn;
        if (s + 1 == SEGMENTS) {
            segment_build_close(&b);
        }
        segment_build_write(&b, sim_disk_io(d), ".");
        segment_build_fini(&b);
    }
    return d;
}

/* The log, in a queue with room for so many places. */
static void fill(struct effect_queue *q, struct sim_disk *d, int64_t max, uint32_t first,
                 uint32_t below) {
    struct log_dir dir;
    struct log_reader *r;
    struct frame_ref f;
    enum log_end end;
    queue_init(q, sim_disk_io(d), RANGE_BITS);
    if (max != ALL) {
        queue_bound(q, first, below, (uint64_t)max);
    }
    ck_assert_int_eq(log_dir_open(&dir, sim_disk_io(d), "."), DC_OK);
    ck_assert_int_eq(log_reader_open(&r, &dir, 0), DC_OK);
    while ((end = log_reader_next(r, &f)) == LOG_MORE) {
        ck_assert_int_eq(queue_frame(q, dir.segments[f.segment].name, &f), DC_OK);
        ck_assert_uint_le(q->places, (uint64_t)max);
    }
    ck_assert_int_eq(end, LOG_END);
    log_reader_close(r);
    log_dir_close(&dir);
    ck_assert_int_eq(queue_map(q, "."), DC_OK);
}

/* Versions of a range's effects; returns how many. */
static uint32_t versions_of(const struct effect_queue *q, uint32_t range, uint64_t *out) {
    struct effect_cursor c;
    struct effect_view e;
    enum queue_step step;
    uint32_t count = 0;
    queue_begin(q, range, &c);
    while ((step = queue_next(&c, &e)) == QUEUE_EFFECT) {
        ck_assert_uint_lt(count, EFFECTS_MAX);
        out[count++] = e.version;
    }
    ck_assert_int_eq(step, QUEUE_END);
    ck_assert_int_eq(queue_check(q, range), DC_OK);
    return count;
}

static uint64_t some[EFFECTS_MAX], all[EFFECTS_MAX];

/* Returns how many effects the range has. */
static uint32_t check_range(struct effect_queue *q, const struct effect_queue *whole,
                            uint32_t range) {
    ck_assert_int_eq(queue_note(q, range), DC_OK);
    ck_assert_uint_le(q->places, q->places_max);
    uint32_t count = versions_of(whole, range, all);
    ck_assert_uint_eq(versions_of(q, range, some), count);
    ck_assert_mem_eq(some, all, count * sizeof(*all));
    ck_assert_uint_eq(q->ranges[range].count, whole->ranges[range].count);
    return count;
}

START_TEST(with_little_room_each_range_has_the_same_effects) {
    struct sim_disk *d = write_log();
    struct effect_queue whole;
    fill(&whole, d, ALL, 0, 0);
    ck_assert_uint_eq(whole.effects, EFFECTS_MAX);
    /* One key has a quarter of all: above that there is room for its range, below it isn't noted. */
    for (int64_t max = 0; max < 2 * EFFECTS_MAX; max = max == 0 ? 7 : max * 5) {
        struct effect_queue q;
        uint64_t seen = 0;
        fill(&q, d, max, 0, whole.range_count + 1);
        for (uint32_t range = 0; range <= q.range_count; range++) {
            seen += check_range(&q, &whole, range);
        }
        ck_assert_uint_eq(seen, whole.effects);
        for (uint32_t i = 0; i < 20; i++) { /* and in any order */
            check_range(&q, &whole, i * 37 % (q.range_count + 1));
        }
        queue_fini(&q);
    }
    queue_fini(&whole);
    sim_disk_destroy(d);
}
END_TEST

START_TEST(with_enough_room_nothing_is_noted_twice) {
    struct sim_disk *d = write_log();
    struct effect_queue q;
    fill(&q, d, EFFECTS_MAX, 0, (SLOT_COUNT >> RANGE_BITS) + 1);
    ck_assert_uint_eq(q.places, EFFECTS_MAX);
    for (uint32_t range = 0; range <= q.range_count; range++) {
        const void *list = q.ranges[range].first;
        ck_assert_int_eq(queue_note(&q, range), DC_OK);
        ck_assert_ptr_eq(q.ranges[range].first, list);
        ck_assert_int_eq(list != NULL, q.ranges[range].count > 0);
    }
    queue_fini(&q);
    sim_disk_destroy(d);
}
END_TEST

START_TEST(one_range_alone_is_noted_when_no_other_is_wanted) {
    struct sim_disk *d = write_log();
    struct effect_queue whole, q;
    uint32_t range = 0;
    fill(&whole, d, ALL, 0, 0);
    while (whole.ranges[range].count == 0 || whole.ranges[range].count > EFFECTS_MAX / 5) {
        range++;
    }
    fill(&q, d, EFFECTS_MAX / 5, range, range + 1);
    ck_assert_uint_eq(q.places, whole.ranges[range].count);
    check_range(&q, &whole, range);
    check_range(&q, &whole, range / 2);
    queue_fini(&q);
    queue_fini(&whole);
    sim_disk_destroy(d);
}
END_TEST

START_TEST(files_that_were_removed_meanwhile_are_still_read) {
    struct sim_disk *d = write_log();
    struct effect_queue whole, q;
    const struct io *io = sim_disk_io(d);
    struct log_dir dir;
    fill(&whole, d, ALL, 0, 0);
    fill(&q, d, EFFECTS_MAX / 3, 0, whole.range_count + 1);
    ck_assert_int_eq(log_dir_open(&dir, io, "."), DC_OK);
    for (uint32_t i = 0; i < dir.count; i++) {
        char path[SEGMENT_NAME_MAX + 2];
        snprintf(path, sizeof(path), "./%s", dir.segments[i].name);
        ck_assert_int_eq(io->unlink(io, path), 0);
    }
    log_dir_close(&dir);
    for (uint32_t range = 0; range <= q.range_count; range++) {
        check_range(&q, &whole, range);
    }
    queue_fini(&q);
    queue_fini(&whole);
    sim_disk_destroy(d);
}
END_TEST

CHECK_MAIN("effect_queue", with_little_room_each_range_has_the_same_effects,
           with_enough_room_nothing_is_noted_twice,
           one_range_alone_is_noted_when_no_other_is_wanted,
           files_that_were_removed_meanwhile_are_still_read)
