/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/thread.h"
#include "tests/support/check_main.h"
#include "tests/support/engine.h"
#include "tests/support/expect.h"

static struct engine engine;

static void must(enum dc_err err) {
    expect_eq(err, DC_OK);
}

START_TEST(a_frame_without_effects_moves_nothing) {
    struct hand h;
    bool existed;
    engine_init(&engine, NULL);
    hand_init(&h, &engine, 1);
    uint64_t head = sequencer_head(&engine.sequencer).v;
    expect_eq(head, 1000);
    mut_reset(&h.mut, ENGINE_NOW_MS);
    expect_eq(sequencer_commit(&engine.sequencer, &h.mut).v, head);
    must(hand_del(&h, 0, BYTES("absent"), &existed));
    must(hand_expire(&h, 0, BYTES("absent"), EXPIRY_NONE, &existed));
    expect_eq(sequencer_head(&engine.sequencer).v, head);
    hand_fini(&h);
    engine_fini(&engine);
}
END_TEST

START_TEST(a_frame_ends_at_the_version_of_its_last_effect) {
    struct hand h;
    engine_init(&engine, NULL);
    hand_init(&h, &engine, 1);
    uint64_t last = sequencer_head(&engine.sequencer).v;
    for (uint32_t i = 0; i < 1000; i++) {
        char name[32];
        snprintf(name, sizeof(name), "k%u", i % 50);
        must(hand_set(&h, 0, bytes_str(name), bytes_of(name, i % 3), EXPIRY_NONE));
        uint64_t version = hand_peek(&h, 0, bytes_str(name), NULL).version;
        expect(version > last);
        expect_eq(version, sequencer_head(&engine.sequencer).v);
        last = version;
    }
    hand_fini(&h);
    engine_fini(&engine);
}
END_TEST

enum { THREADS = 4, WRITES = 20000 };

struct writer {
    struct hand hand;
    uint32_t number;
    uint64_t versions[WRITES];
};

/* Its own key, so the version is still its own after the lock. */
static void write_many(void *arg) {
    struct writer *w = arg;
    char name[32];
    snprintf(name, sizeof(name), "writer%u", w->number);
    for (uint32_t i = 0; i < WRITES; i++) {
        int64_t sum;
        must(hand_incr(&w->hand, 0, bytes_str(name), 1, &sum));
        expect_eq(sum, i + 1);
        w->versions[i] = hand_peek(&w->hand, 0, bytes_str(name), NULL).version;
    }
}

static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

START_TEST(no_position_is_given_twice) {
    static struct writer writers[THREADS];
    static uint64_t all[THREADS * WRITES];
    struct thread threads[THREADS];
    engine_init(&engine, NULL);
    for (uint32_t i = 0; i < THREADS; i++) {
        writers[i].number = i;
        hand_init(&writers[i].hand, &engine, i);
        thread_start(&threads[i], "writer", write_many, &writers[i]);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        thread_join(&threads[i]);
        for (uint32_t j = 0; j < WRITES; j++) {
            expect(j == 0 || writers[i].versions[j] > writers[i].versions[j - 1]);
            all[i * WRITES + j] = writers[i].versions[j];
        }
        hand_fini(&writers[i].hand);
    }
    qsort(all, THREADS * WRITES, sizeof(all[0]), ascending);
    for (uint32_t i = 1; i < THREADS * WRITES; i++) {
        expect(all[i] >= all[i - 1] + 24); /* an effect has a header */
    }
    expect_eq(all[THREADS * WRITES - 1], sequencer_head(&engine.sequencer).v);
    engine_fini(&engine);
}
END_TEST

static void init_at(void *arg) {
    struct sequencer q;
    sequencer_init(&q, *(const uint64_t *)arg);
}

START_TEST(a_history_begins_at_a_position_that_leaves_room) {
    uint64_t zero = 0, far = (uint64_t)1 << 55, some = (uint64_t)1 << 54;
    expect(test_aborts(init_at, &zero));
    expect(test_aborts(init_at, &far));
    expect(!test_aborts(init_at, &some));
}
END_TEST

CHECK_MAIN("sequencer", a_frame_without_effects_moves_nothing,
           a_frame_ends_at_the_version_of_its_last_effect, no_position_is_given_twice,
           a_history_begins_at_a_position_that_leaves_room)
