/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Snapshots written and read again. DC_SNAP_BLOB sets the length of a very large value.
 */
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "tests/support/check_main.h"
#include "tests/support/collide.h"
#include "tests/support/expect.h"
#include "tests/support/snap_rig.h"
#include "tests/support/temp_dir.h"

/* --- round trips ------------------------------------------------------------------------------------- */

START_TEST(an_empty_store_is_a_snapshot) {
    rig_open();
    rig_write();
    rig_compare();
    expect_eq(rig.written.entries, 0);
    expect(rig.written.file_len < 400);
    rig_close();
}
END_TEST

START_TEST(one_key_is_a_snapshot) {
    rig_open();
    rig_set(3, "key", BYTES("value"), EXPIRY_NONE);
    rig_write();
    rig_compare();
    expect_eq(rig.written.entries, 1);
    rig_close();
}
END_TEST

START_TEST(every_kind_of_value_comes_back_with_and_without_expiry) {
    rig_open();
    rig_fill();
    engine_sleep(&rig.engine, 20000);
    store_tick(rig.engine.store, engine_now(&rig.engine));
    rig_set(0, "young", BYTES("one"), EXPIRY_NONE);
    rig_write();
    rig_compare(); /* what has expired, too */
    expect_eq(sim_disk_unsynced(rig.disk), 0);
    rig_close();
}
END_TEST

START_TEST(test_h23_keys_at_one_position_come_together) {
    const uint32_t block_lens[] = {1, 100, 0};
    rig_open();
    for (uint32_t i = 0; i < 3000; i++) {
        rig_set_number(0, "{c}x", i, BYTES("v"), EXPIRY_NONE);
        rig_set_number(1, "{c}x", i, BYTES("v"), EXPIRY_NONE);
    }
    for (uint32_t p = 0; p < COLLIDING_PAIRS * 2; p++) {
        rig_set(0, colliding_keys[p / 2][p % 2], BYTES("v"), EXPIRY_NONE);
        rig_set_long(1, colliding_keys[p / 2][p % 2], BLOB_MIN_LEN + p, EXPIRY_NONE);
    }
    for (uint32_t i = 0; i < 3; i++) {
        struct snap_write_opts opts = rig_opts(sim_disk_io(rig.disk));
        opts.block_len = block_lens[i];
        rig_must(snap_write(&opts, &rig.written));
        rig_compare();
    }
    rig_close();
}
END_TEST

START_TEST(large_values_are_written_in_pieces) {
    const char *text = getenv("DC_SNAP_BLOB");
    rig_open();
    rig_set_long(0, "least", BLOB_MIN_LEN, EXPIRY_NONE);
    rig_set_long(0, "some", 5 << 20, ENGINE_NOW_MS + 1);
    rig_set_long(7, "two", 2 * SNAP_PIECE_LEN, EXPIRY_NONE);
    if (text != NULL) {
        rig_set_long(1, "most", strtoull(text, NULL, 10), EXPIRY_NONE);
    }
    for (uint32_t i = 0; i < 100; i++) {
        rig_set_number(0, "small", i, BYTES("v"), EXPIRY_NONE);
    }
    rig_write();
    rig_compare();
    rig_close();
}
END_TEST

/* Ranges in which entries begin. */
static uint32_t used_ranges(const struct snap *s) {
    uint32_t n = 0, last = UINT32_MAX;
    for (uint32_t i = 0; i < snap_facts(s)->block_count; i++) {
        n += snap_block_info(s, i)->range != last;
        last = snap_block_info(s, i)->range;
    }
    return n;
}

START_TEST(test_h15_a_large_value_has_its_range_nearly_for_itself) {
    enum { LEN = 8 << 20, SMALL = 100 };
    rig_open();
    rig_set_long(0, "large", LEN, EXPIRY_NONE);
    for (uint32_t i = 0; i < SMALL; i++) {
        rig_set_number(0, "small", i, BYTES("v"), EXPIRY_NONE);
    }
    rig_write();
    rig_compare();
    struct snap *s = rig_open_snapshot();
    expect((uint32_t)SLOT_COUNT >> snap_facts(s)->range_bits >= LEN / SNAP_BLOCK_LEN);
    expect(used_ranges(s) > SMALL / 4); /* 100 keys fall into 64 ranges by chance */
    snap_close(s);
    rig_close();
}
END_TEST

START_TEST(ranges_and_blocks_have_the_length_that_was_asked_for) {
    rig_open();
    char value[100];
    struct rng r = test_rng();
    for (uint32_t i = 0; i < 40000; i++) {
        for (uint32_t k = 0; k < sizeof(value); k++) {
            value[k] = (char)rng_next(&r);
        }
        rig_set_number(i % 8 == 0, "key:", i, bytes_of(value, sizeof(value)), EXPIRY_NONE);
    }
    rig_write();
    rig_compare();
    struct snap *s = rig_open_snapshot();
    const struct snap_facts *f = snap_facts(s);
    expect(f->plain_bytes / f->block_count < SNAP_BLOCK_LEN);
    expect(f->plain_bytes / f->block_count > SNAP_BLOCK_LEN / 5); /* two keyspaces, halved ranges */
    for (uint32_t i = 0; i < f->block_count; i++) {
        expect(snap_block_info(s, i)->plain_len < SNAP_BLOCK_LEN * 3 / 2);
    }
    snap_close(s);
    rig_close();
}
END_TEST

START_TEST(two_snapshots_of_one_moment_replace_each_other) {
    rig_open();
    rig_set(0, "k", BYTES("v"), EXPIRY_NONE);
    rig_write();
    rig_write();
    rig_compare();
    expect_eq(rig_list().files, 1);
    rig_set(0, "k", BYTES("v2"), EXPIRY_NONE);
    rig_write();
    rig_compare();
    expect_eq(rig_list().files, 2);
    rig_close();
}
END_TEST

/* --- among writers ----------------------------------------------------------------------------------- */

enum { STAY = 200000, STAY_SANITIZED = 30000, WRITERS = 2 };

static _Atomic bool stop_writers;

struct writer {
    struct hand hand;
    struct thread thread;
    struct rng rng;
};

static void write_on(void *arg) {
    struct writer *w = arg;
    char name[32], text[BLOB_MIN_LEN + 100];
    bool existed;
    memset(text, 'x', sizeof(text));
    while (!atomic_load(&stop_writers)) {
        uint64_t n = rng_below(&w->rng, 5000);
        struct bytes key = bytes_of(name, (size_t)snprintf(name, sizeof(name), "move%" PRIu64, n));
        size_t len = n % 100 == 0 ? sizeof(text) : rng_below(&w->rng, 200);
        switch (rng_below(&w->rng, 8)) {
        case 0:
            rig_must(hand_del(&w->hand, 1, key, &existed));
            break;
        case 1:
            rig_must(hand_append(&w->hand, 1, key, BYTES("more")));
            break;
        case 2:
            rig_must(hand_expire(&w->hand, 1, key, ENGINE_NOW_MS + (int64_t)n, &existed));
            break;
        case 3:
            (void)hand_get(&w->hand, 1, key, NULL);
            break;
        default:
            rig_must(hand_set(&w->hand, 1, key, bytes_of(text, len), EXPIRY_NONE));
        }
        if (rng_below(&w->rng, 20000) == 0) {
            rig_must(hand_flush(&w->hand, 2));
        }
    }
}

/* Each of the keys that stay, <prefix>0, <prefix>1, ..., is there once. */
static void count_those_that_stay(const char *prefix, uint32_t stay) {
    size_t skip = strlen(prefix);
    struct snap *s = rig_open_snapshot();
    struct snap_block *b = snap_block_create();
    struct snap_entry e;
    uint8_t *seen = mem_must_zalloc(stay);
    for (uint32_t i = 0; i < snap_facts(s)->block_count; i++) {
        rig_must(snap_block_read(b, s, i));
        while (snap_block_next(b, &e)) {
            uint64_t n;
            if (e.value.kind == VALUE_BLOB) {
                struct blob *blob;
                rig_must(snap_read_blob(b, s, i, &e, &blob));
                blob_release(blob);
            }
            if (snap_block_info(s, i)->keyspace == 0 && e.key.len > skip &&
                memcmp(e.key.ptr, prefix, skip) == 0 && e.key.ptr[skip] != '-') {
                expect(num_parse_u64(bytes_of(e.key.ptr + skip, e.key.len - skip), &n) && n < stay);
                expect_eq(seen[n]++, 0);
                expect_eq(e.value.num, n);
            }
        }
    }
    for (uint32_t i = 0; i < stay; i++) {
        expect_eq(seen[i], 1);
    }
    mem_free(seen);
    snap_block_destroy(b);
    snap_close(s);
}

START_TEST(a_walk_among_writers_sees_what_stays_once) {
    static struct writer writers[WRITERS];
    uint32_t stay = TEST_SANITIZED ? STAY_SANITIZED : STAY;
    rig_open();
    for (uint32_t i = 0; i < stay; i++) {
        char name[32];
        snprintf(name, sizeof(name), "%u", i);
        rig_set(0, name, bytes_str(name), EXPIRY_NONE);
        rig_set(2, name, BYTES("v"), EXPIRY_NONE);
    }
    atomic_store(&stop_writers, false);
    for (uint32_t i = 0; i < WRITERS; i++) {
        hand_init(&writers[i].hand, &rig.engine, i);
        rng_seed(&writers[i].rng, test_seed_value + i);
        thread_start(&writers[i].thread, "writer", write_on, &writers[i]);
    }
    for (uint32_t i = 0; i < 3; i++) {
        rig_write();
        count_those_that_stay("", stay);
    }
    atomic_store(&stop_writers, true);
    for (uint32_t i = 0; i < WRITERS; i++) {
        thread_join(&writers[i].thread);
        hand_fini(&writers[i].hand);
    }
    rig_write();
    rig_compare();
    rig_close();
}
END_TEST

/* At each block that is written, without a lock: many keys more in the slot that is being walked, or fewer. */
static void grow_or_shrink(void *arg, enum sim_call kind, const char *path) {
    uint32_t *round = arg;
    bool existed;
    if (kind != SIM_WRITE || strstr(path, "snap-") == NULL) {
        return;
    }
    for (uint32_t i = 0; i < 3000; i++) {
        char name[32];
        snprintf(name, sizeof(name), "{t}-%u", i);
        if (*round % 2 == 0) {
            rig_set(0, name, BYTES("passes by"), EXPIRY_NONE);
        } else {
            rig_must(hand_del(&rig.hand, 0, bytes_str(name), &existed));
        }
    }
    ++*round;
}

START_TEST(test_h24_a_table_that_grows_and_shrinks_during_a_walk_hides_nothing) {
    enum { STAYING = 5000 };
    uint32_t rounds = 0;
    rig_open();
    for (uint32_t i = 0; i < STAYING; i++) {
        char name[32];
        snprintf(name, sizeof(name), "{t}%u", i);
        rig_set(0, name, bytes_str(name + 3), EXPIRY_NONE);
    }
    struct snap_write_opts opts = rig_opts(sim_disk_io(rig.disk));
    opts.threads = 1;
    opts.block_len = 4096;
    sim_disk_set_hook(rig.disk, grow_or_shrink, &rounds);
    rig_must(snap_write(&opts, &rig.written));
    sim_disk_set_hook(rig.disk, NULL, NULL);
    expect(rounds > 10);
    count_those_that_stay("{t}", STAYING);
    rig_close();
}
END_TEST

START_TEST(progress_tells_how_far_it_is) {
    struct snap_progress progress;
    rig_open();
    for (uint32_t i = 0; i < 5000; i++) {
        rig_set_number(i % 3, "k", i, BYTES("some value"), EXPIRY_NONE);
    }
    struct snap_write_opts opts = rig_opts(sim_disk_io(rig.disk));
    opts.progress = &progress;
    opts.block_len = 10000;
    opts.tell_ms = 1;
    char dir[TEMP_DIR_MAX], told[TEMP_DIR_MAX + 8], text[4096] = "";
    temp_dir_make(dir);
    snprintf(told, sizeof(told), "%s/told", dir);
    rig_must(diag_open(told));
    rig_must(snap_write(&opts, &rig.written));
    diag_close();
    FILE *file = fopen(told, "r");
    expect(file != NULL && fread(text, 1, sizeof(text) - 1, file) > 0);
    fclose(file);
    expect(strstr(text, "snapshot.progress percent=") != NULL);
    expect(strstr(text, " keys_per_s=") != NULL && strstr(text, " eta_s=") != NULL);
    temp_dir_remove(dir);
    rig_compare();
    expect_eq(atomic_load(&progress.entries_done), 5000);
    expect_eq(atomic_load(&progress.entries_expected), 5000);
    expect_eq(atomic_load(&progress.plain_bytes), rig.written.plain_bytes);
    expect_eq(atomic_load(&progress.ranges_done), atomic_load(&progress.ranges));
    expect(atomic_load(&progress.ranges) > 1);
    expect_eq(atomic_load(&progress.began_ms), opts.now_ms);
    rig_close();
}
END_TEST

CHECK_MAIN("snap", an_empty_store_is_a_snapshot, one_key_is_a_snapshot,
           every_kind_of_value_comes_back_with_and_without_expiry,
           test_h23_keys_at_one_position_come_together, large_values_are_written_in_pieces,
           ranges_and_blocks_have_the_length_that_was_asked_for,
           test_h15_a_large_value_has_its_range_nearly_for_itself,
           two_snapshots_of_one_moment_replace_each_other,
           a_walk_among_writers_sees_what_stays_once,
           test_h24_a_table_that_grows_and_shrinks_during_a_walk_hides_nothing,
           progress_tells_how_far_it_is)
