/* SPDX-License-Identifier: BSD-3-Clause */
/* Snapshots that are taken while writers run, with the real log, and what is loaded from them. */
#include "persist/log.h"
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "tests/support/check_main.h"
#include "tests/support/data_case.h"
#include "tests/support/expect.h"

static struct data_case c;

static void damage_a_block(const char *name) {
    char path[512], junk[16] = "damaged block";
    snprintf(path, sizeof(path), "%s/%s", c.dir, name);
    file_poke(path, SNAP_HEADER_LEN + 100, junk, sizeof(junk));
}

static struct log *the_log;
static _Thread_local struct log_feed *feed;
static _Atomic bool stop;

static void commit(void *arg, struct mut *m) {
    (void)arg;
    must(log_reserve(feed, m));
    (void)log_commit(feed, m);
}

struct writer {
    struct thread thread;
    uint64_t seed;
    uint64_t commands;
};

static void write_something(struct hand *h, struct rng *r) {
    enum { KEYS = 400 };
    char a[32], b[32];
    uint32_t db = (uint32_t)rng_below(r, 2);
    struct bytes key = key_of(a, "key:", (uint32_t)rng_below(r, KEYS));
    struct bytes other = key_of(b, "key:", (uint32_t)rng_below(r, KEYS));
    bool existed;
    switch (rng_below(r, 10)) {
    case 0:
        must(hand_del(h, db, key, &existed));
        return;
    case 1:
    case 2:
        must(hand_append(h, db, key, other));
        return;
    case 3:
        must(hand_write(h, db, key, rng_below(r, 40), other));
        return;
    case 4:
        must(hand_rename(h, db, key, other, &existed));
        return;
    case 5:
        must(hand_expire(h, db, key, ENGINE_NOW_MS + 100000, &existed));
        return;
    case 6:
        must(hand_set_many(h, db, (struct bytes[]){key, other}, (struct bytes[]){other, key}, 2));
        return;
    case 7:
        if (rng_below(r, 500) == 0) {
            must(hand_flush(h, db));
            return;
        }
        break;
    default:
        break;
    }
    must(hand_set(h, db, key, other, EXPIRY_NONE));
}

static void be_writer(void *arg) {
    struct writer *w = arg;
    struct hand *h = mem_must_aligned(64, sizeof(*h));
    struct rng r;
    rng_seed(&r, w->seed);
    hand_init(h, &c.engine, w->seed);
    feed = log_feed_create(the_log);
    while (!atomic_load(&stop)) {
        write_something(h, &r);
        log_kick(the_log);
        if (++w->commands % 64 == 0) {
            usleep(1000);
        }
    }
    log_feed_destroy(feed);
    hand_fini(h);
    mem_free_aligned(h, 64, sizeof(*h));
}

static void open_log(void) {
    struct log_opts opts = {.io = &io_posix,
                            .dir = c.dir,
                            .node_id = c.log.node_id,
                            .seed = c.log.seed,
                            .history = c.log.chain[0],
                            .first_lsn = LSN_FIRST,
                            .chain = c.log.chain,
                            .chain_count = 1,
                            .fork = true,
                            .keeps = true,
                            .sync = LOG_SYNC_EVERYSEC,
                            .segment_len = 1024 * 1024,
                            .memory_limit = 64 * 1024 * 1024};
    must(log_open(&opts, &the_log));
    c.engine.commit = commit;
    atomic_store(&stop, false);
}

static void snapshot_of_the_log(struct snap_written *written) {
    struct snap_write_opts opts = {.io = &io_posix,
                                   .dir = c.dir,
                                   .store = c.engine.store,
                                   .log = the_log,
                                   .node_id = c.log.node_id,
                                   .seed = c.log.seed,
                                   .chain = c.log.chain,
                                   .chain_count = 1,
                                   .block_len = 4096,
                                   .threads = 1,
                                   .now_ms = engine_now(&c.engine)};
    must(snap_write(&opts, written));
}

START_TEST(test_h20_h26_a_snapshot_taken_under_load_and_the_log_behind_it) {
    enum { WRITERS = 2 };
    for (int round = 0; round < 3; round++) {
        struct writer writers[WRITERS];
        struct snap_written written[2];
        case_open(&c);
        open_log();
        for (uint32_t i = 0; i < WRITERS; i++) {
            writers[i] = (struct writer){.seed = test_seed_value + (uint64_t)round * 10 + i};
            thread_start(&writers[i].thread, "writer", be_writer, &writers[i]);
        }
        for (int i = 0; i < 2; i++) {
            usleep(50000);
            snapshot_of_the_log(&written[i]);
        }
        usleep(50000);
        atomic_store(&stop, true);
        for (uint32_t i = 0; i < WRITERS; i++) {
            thread_join(&writers[i].thread);
        }
        log_close(the_log, true, 5000);
        expect(written[1].end_lsn > written[1].start_lsn);
        case_load(&c);
        ck_assert_str_eq(c.plan->snapshot, written[1].name);
        expect(c.plan->clean);
        case_same(&c);
        case_forget(&c);

        /* Its blocks are damaged: every range by the older one. */
        case_attach(&c);
        damage_a_block(written[1].name);
        must(warm_all(c.warm, &c.thread));
        case_same(&c);
        case_close(&c);
    }
}
END_TEST

CHECK_MAIN("warm_log", test_h20_h26_a_snapshot_taken_under_load_and_the_log_behind_it)
