/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Snapshots of a node that has a log: the image and the log from S to E are the state at E, whatever was written meanwhile.
 */
#include "persist/log_priv.h"
#include "persist/log_reader.h"
#include "server/base/codec.h"
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"
#include "tests/support/snap_rig.h"
#include "tests/support/trace.h"

enum { KEYS = 3000, DBS = 2, WRITERS = 2, FIRST_LSN = 1 << 20 };

static struct log *node_log;
static _Thread_local struct log_feed *feed;
static const struct history history = {0xbbbb, FIRST_LSN, 1, 0};

static void commit(void *arg, struct mut *m) {
    (void)arg;
    if (m->count > 0) {
        rig_must(log_reserve(feed, m));
        (void)log_commit(feed, m);
        log_kick(node_log);
    }
}

static void open_log(bool keeps) {
    struct log_opts opts = {.io = sim_disk_io(rig.disk),
                            .dir = "data",
                            .node_id = rig_node_id,
                            .seed = rig_seed,
                            .history = history,
                            .first_lsn = FIRST_LSN,
                            .chain = &history,
                            .chain_count = 1,
                            .fork = true,
                            .keeps = keeps,
                            .sync = LOG_SYNC_EVERYSEC,
                            .segment_len = 256 * 1024,
                            .memory_limit = 1 << 30};
    rig_must(log_open(&opts, &node_log));
    rig.engine.commit = commit;
    feed = log_feed_create(node_log);
}

static void close_log(void) {
    log_feed_destroy(feed);
    log_close(node_log, true, 5000);
}

static struct snap_write_opts opts_with_log(void) {
    struct snap_write_opts opts = rig_opts(sim_disk_io(rig.disk));
    opts.log = node_log;
    opts.chain = &history;
    opts.chain_count = 1;
    opts.block_len = 8192;
    return opts;
}

/* --- a model ----------------------------------------------------------------------------------------- */

static struct item {
    bool there;
    uint64_t version;
    int64_t expiry_ms;
    struct buf text;
} items[DBS][KEYS];

static void model_init(void) {
    for (uint32_t i = 0; i < DBS * KEYS; i++) {
        items[i / KEYS][i % KEYS] = (struct item){.there = false};
        buf_init(&items[i / KEYS][i % KEYS].text, 0);
    }
}

static void model_fini(void) {
    for (uint32_t i = 0; i < DBS * KEYS; i++) {
        buf_fini(&items[i / KEYS][i % KEYS].text);
    }
}

static struct item *item_of(uint32_t db, struct bytes key) {
    uint64_t n;
    expect(db < DBS && num_parse_u64(key, &n) && n < KEYS);
    return &items[db][n];
}

static void item_put(struct item *it, uint64_t version, int64_t expiry_ms, struct bytes text) {
    it->there = true;
    it->version = version;
    it->expiry_ms = expiry_ms;
    it->text.len = 0;
    buf_append_bytes(&it->text, text);
}

static void item_write(struct item *it, const struct effect_view *e) {
    while (it->text.len < e->offset + e->data.len) {
        buf_append(&it->text, "", 1);
    }
    memcpy(it->text.ptr + e->offset, e->data.ptr, e->data.len);
}

static void flush(uint32_t db, uint64_t version) {
    for (uint32_t i = 0; i < KEYS; i++) {
        items[db][i].there &= items[db][i].version > version;
    }
}

/* As recovery does it: what is newer than the item counts; a patch, if it is of that version. */
static void apply(const struct effect_view *e) {
    char digits[NUM_I64_TEXT_MAX];
    if (e->keyspace == KEYSPACE_SYSTEM) {
        return;
    }
    if (e->kind == MUT_FLUSH) {
        flush(e->keyspace, e->version);
        return;
    }
    struct item *it = item_of(e->keyspace, e->key);
    if (e->version <= it->version) {
        return;
    }
    struct bytes text = e->data;
    switch (e->kind) {
    case MUT_PUT:
        if (e->value_kind == VALUE_INT) {
            text = bytes_of(digits, num_format_i64(digits, (int64_t)get_u64(e->data.ptr)));
        }
        item_put(it, e->version, e->expiry_ms, text);
        return;
    case MUT_DEL:
        it->there = false;
        it->version = e->version;
        return;
    case MUT_WRITE:
        if (e->prev == 0) { /* there was nothing, or it had expired */
            item_put(it, 0, EXPIRY_NONE, BYTES(""));
        }
        if (it->there && it->version == e->prev) {
            it->version = e->version;
            item_write(it, e);
        }
        return;
    case MUT_EXPIRE:
        if (it->there && it->version == e->prev) {
            it->version = e->version;
            it->expiry_ms = e->expiry_ms;
        }
        return;
    case MUT_FLUSH:
        break;
    }
    dc_unreachable();
}

static void apply_frame(const struct frame_ref *f) {
    struct effect_view e;
    for (size_t at = FRAME_HEADER_LEN; f->head.kind == FRAME_MUTATION && at < f->len; at += e.len) {
        expect(effect_decode(f->bytes, f->len, at, f->lsn, &e));
        apply(&e);
    }
}

static void load_image(const struct snap *s) {
    struct snap_block *b = snap_block_create();
    struct snap_entry e;
    for (uint32_t i = 0; i < snap_facts(s)->block_count; i++) {
        rig_must(snap_block_read(b, s, i));
        bool ours = snap_block_info(s, i)->keyspace != KEYSPACE_SYSTEM;
        while (ours && snap_block_next(b, &e)) {
            char digits[NUM_I64_TEXT_MAX];
            struct item *it = item_of(snap_block_info(s, i)->keyspace, e.key);
            expect(!it->there);
            if (e.value.kind == VALUE_BLOB) {
                struct blob *blob;
                rig_must(snap_read_blob(b, s, i, &e, &blob));
                item_put(it, e.version, e.expiry_ms, bytes_of(blob->data, blob->len));
                blob_release(blob);
            } else {
                item_put(it, e.version, e.expiry_ms, value_bytes(&e.value, digits));
            }
            expect(e.version <= snap_facts(s)->end_lsn);
        }
    }
    snap_block_destroy(b);
}

static void replay_tail(const struct snap *s) {
    struct snap_tail *t;
    struct frame_ref f;
    uint64_t at = snap_facts(s)->start_lsn;
    enum log_end end;
    rig_must(snap_tail_open(s, &t));
    while ((end = snap_tail_next(t, &f)) == LOG_MORE) {
        expect_eq(f.lsn, at);
        expect_eq(f.history, history.id);
        at += f.len;
        apply_frame(&f);
    }
    expect_eq(end, LOG_END);
    expect_eq(at, snap_facts(s)->end_lsn);
    snap_tail_close(t);
}

/* What was written after E. */
static void replay_log(uint64_t from) {
    struct log_dir dir;
    struct log_reader *r;
    struct frame_ref f;
    expect(log_wait(node_log, LOG_LEVEL_OS, log_head(node_log), 10000000));
    uint64_t end = log_head(node_log).v;
    rig_must(log_dir_open_running(&dir, sim_disk_io(rig.disk), "data"));
    rig_must(log_reader_open(&r, &dir, from));
    while (from < end) {
        expect_eq(log_reader_next(r, &f), LOG_MORE);
        expect_eq(f.lsn, from);
        apply_frame(&f);
        from += f.len;
    }
    log_reader_close(r);
    log_dir_close(&dir);
}

/* Looks at time 0, as recovery does. */
static void expect_same_as_store(void) {
    struct buf text;
    buf_init(&text, 0);
    atomic_store(&rig.engine.now_ms, 0);
    for (uint32_t i = 0; i < DBS * KEYS; i++) {
        const struct item *it = &items[i / KEYS][i % KEYS];
        char name[16];
        snprintf(name, sizeof(name), "%u", i % KEYS);
        text.len = 0;
        struct seen seen = hand_peek(&rig.hand, i / KEYS, bytes_str(name), &text);
        expect_eq(seen.alive, it->there);
        if (seen.alive) {
            expect_eq(seen.version, it->version);
            expect_eq(seen.expiry_ms, it->expiry_ms);
            expect(bytes_equal(buf_bytes(&text), buf_bytes(&it->text)));
        }
    }
    buf_fini(&text);
}

/* --- among writers ----------------------------------------------------------------------------------- */

static _Atomic bool stop_writers;

struct writer {
    struct hand hand;
    struct thread thread;
    struct rng rng;
};

static void write_once(struct hand *h, struct rng *r, char *text) {
    char name[16], other[16];
    bool existed;
    int64_t sum;
    uint32_t db = (uint32_t)rng_below(r, DBS);
    struct bytes key =
        bytes_of(name, (size_t)snprintf(name, sizeof(name), "%u", (unsigned)rng_below(r, KEYS)));
    struct bytes to =
        bytes_of(other, (size_t)snprintf(other, sizeof(other), "%u", (unsigned)rng_below(r, KEYS)));
    size_t len = rng_below(r, 500) == 0 ? BLOB_MIN_LEN + 9 : rng_below(r, 300);
    switch (rng_below(r, 10)) {
    case 0:
        rig_must(hand_del(h, db, key, &existed));
        break;
    case 1:
        rig_must(hand_append(h, db, key, BYTES("more")));
        break;
    case 2:
        rig_must(hand_write(h, db, key, rng_below(r, 50), BYTES("within")));
        break;
    case 3:
        rig_must(hand_expire(h, db, key, ENGINE_NOW_MS + (int64_t)rng_below(r, 1000), &existed));
        break;
    case 4:
        rig_must(hand_rename(h, db, key, to, &existed));
        break;
    case 5:
        if (hand_incr(h, db, key, 1, &sum) != DC_OK) { /* no integer */
            (void)dc_fail_take(DC_ENOTINT);
        }
        break;
    case 6:
        hand_frame_begin(h);
        rig_must(hand_set(h, db, key, BYTES("1"), EXPIRY_NONE));
        rig_must(hand_del(h, db, to, &existed));
        hand_frame_end(h);
        break;
    case 7:
        if (rng_below(r, 2000) == 0) {
            rig_must(hand_flush(h, db));
        }
        break;
    default:
        rig_must(hand_set(h, db, key, bytes_of(text, len), EXPIRY_NONE));
    }
}

static void write_on(void *arg) {
    struct writer *w = arg;
    char *text = mem_must_zalloc(BLOB_MIN_LEN + 10);
    feed = log_feed_create(node_log);
    while (!atomic_load(&stop_writers)) {
        write_once(&w->hand, &w->rng, text);
    }
    log_feed_destroy(feed);
    mem_free(text);
}

static struct writer writers[WRITERS];

static void start_writers(void) {
    atomic_store(&stop_writers, false);
    for (uint32_t i = 0; i < WRITERS; i++) {
        hand_init(&writers[i].hand, &rig.engine, i);
        rng_seed(&writers[i].rng, test_seed_value + i);
        thread_start(&writers[i].thread, "writer", write_on, &writers[i]);
    }
}

static void end_writers(void) {
    atomic_store(&stop_writers, true);
    for (uint32_t i = 0; i < WRITERS; i++) {
        thread_join(&writers[i].thread);
        hand_fini(&writers[i].hand);
    }
}

static void snapshot_among_writers(bool keeps) {
    rig_open();
    open_log(keeps);
    for (uint32_t i = 0; i < DBS * KEYS; i++) {
        rig_set_number(i / KEYS, "", i % KEYS, BYTES("v"), EXPIRY_NONE);
    }
    start_writers();
    for (uint32_t i = 0; i < 4; i++) {
        struct snap_write_opts opts = opts_with_log();
        (void)log_pin(node_log); /* what comes after E, too, must be there to be read */
        usleep(20000);
        rig_must(snap_write(&opts, &rig.written));
        expect(rig.written.tail_len == rig.written.end_lsn - rig.written.start_lsn);
        expect(log_durable(node_log).v >= rig.written.end_lsn); /* I2 */
        end_writers();
        struct snap *s = rig_open_snapshot();
        int64_t now_ms = engine_now(&rig.engine);
        model_init();
        load_image(s);
        replay_tail(s);
        replay_log(rig.written.end_lsn);
        expect_same_as_store();
        atomic_store(&rig.engine.now_ms, now_ms);
        model_fini();
        snap_close(s);
        log_unpin(node_log);
        start_writers();
    }
    end_writers();
    close_log();
    rig_close();
}

START_TEST(test_h20_h22_h25_image_and_tail_are_the_state_at_the_end_of_the_walk) {
    snapshot_among_writers(true);
}
END_TEST

START_TEST(without_a_log_that_is_kept_its_frames_are_caught_meanwhile) {
    snapshot_among_writers(false);
}
END_TEST

/* --- the tail ---------------------------------------------------------------------------------------- */

static _Atomic bool has_written; /* during the walk */

static void write_during_the_walk(void *arg, enum sim_call kind, const char *path) {
    (void)path;
    struct hand *h = arg;
    if (kind == SIM_CREATE && strstr(path, "snap-") != NULL &&
        !atomic_exchange(&has_written, true)) {
        bool existed;
        for (uint32_t i = 0; i < 3; i++) {
            rig_must(hand_set(h, 0, BYTES("1"), BYTES("later"), EXPIRY_NONE));
            rig_must(hand_del(h, 0, BYTES("2"), &existed));
        }
        expect(log_wait(node_log, LOG_LEVEL_OS, log_head(node_log), 10000000));
    }
}

static void hook_writes(sim_hook_fn hook) {
    atomic_store(&has_written, false);
    sim_disk_set_hook(rig.disk, hook, &rig.hand);
}

START_TEST(a_flipped_byte_of_the_tail_is_seen) {
    rig_open();
    open_log(true);
    rig_set(0, "1", BYTES("v"), EXPIRY_NONE);
    rig_set(0, "2", BYTES("v"), EXPIRY_NONE);
    struct snap_write_opts opts = opts_with_log();
    hook_writes(write_during_the_walk);
    rig_must(snap_write(&opts, &rig.written));
    sim_disk_set_hook(rig.disk, NULL, NULL);
    expect(rig.written.tail_len > 100);
    char path[256];
    rig_path(rig.written.name, path);
    rig_must(rig_read_all(path));
    for (uint64_t i = 0; i < rig.written.file_len; i++) {
        expect(sim_disk_flip(rig.disk, path, i, (uint8_t)(1 + i % 255)));
        expect_eq(rig_read_all(path), DC_ECORRUPT);
        expect(sim_disk_flip(rig.disk, path, i, (uint8_t)(1 + i % 255)));
    }
    rig_must(rig_read_all(path));
    close_log();
    rig_close();
}
END_TEST

static uint64_t durable_when_named;

static void sync_the_log_late(void *arg, enum sim_call kind, const char *path) {
    write_during_the_walk(arg, kind, path);
    if (kind == SIM_SYNC && strstr(path, "log-") != NULL) {
        usleep(100 * 1000);
    } else if (kind == SIM_RENAME && strstr(path, "snap-") != NULL) {
        durable_when_named = log_durable(node_log).v;
    }
}

/* Otherwise a power cut could leave an image that is ahead of the log, and of every version that is given next. */
START_TEST(test_h03_a_snapshot_gets_its_name_when_the_log_is_durable_up_to_its_end) {
    rig_open();
    open_log(true);
    rig_set(0, "1", BYTES("v"), EXPIRY_NONE);
    rig_set(0, "2", BYTES("v"), EXPIRY_NONE);
    struct snap_write_opts opts = opts_with_log();
    hook_writes(sync_the_log_late);
    rig_must(snap_write(&opts, &rig.written));
    sim_disk_set_hook(rig.disk, NULL, NULL);
    expect(durable_when_named >= rig.written.end_lsn);
    close_log();
    rig_close();
}
END_TEST

START_TEST(test_h03_a_log_that_cant_be_made_durable_ends_the_snapshot) {
    rig_open();
    open_log(true);
    rig_set(0, "1", BYTES("v"), EXPIRY_NONE);
    sim_disk_fail(rig.disk, SIM_SYNC, 1, UINT64_MAX, 5);
    struct snap_write_opts opts = opts_with_log();
    opts.stall_ms = 200;
    enum dc_err err = snap_write(&opts, &rig.written);
    expect_eq(err, DC_EIO);
    expect_eq(rig_list().tmps, 0);
    sim_disk_fail(rig.disk, SIM_SYNC, 0, 0, 0);
    opts.stall_ms = 20000;
    rig_must(snap_write(&opts, &rig.written));
    close_log();
    rig_close();
}
END_TEST

/* The log's calls, but for the one that counts here: nobody else asks for it. */
static const char *const logs_own[] = {"unlink segment-", "create segment-", "allocate segment-",
                                       "write segment-", NULL};
#define TMP  "snap-0000000000100062-000000000000bbbb.tmp"
#define LAST "snap-00000000001000d4-000000000000bbbb.dcs"

START_TEST(a_snapshot_is_published_in_this_order) {
    enum { TAIL_LEN = 0xd4 - 0x62 };
    rig_open();
    open_log(true);
    log_set_sync(node_log, LOG_SYNC_NO);
    rig_set(0, "1", BYTES("v"), EXPIRY_NONE);
    struct snap_write_opts opts = opts_with_log();
    expect(log_wait(node_log, LOG_LEVEL_DISK, log_head(node_log), 10000000));
    mem_free(sim_disk_take_trace(rig.disk));
    hook_writes(write_during_the_walk);
    rig_must(snap_write(&opts, &rig.written));
    sim_disk_set_hook(rig.disk, NULL, NULL);
    uint64_t footer = rig.written.file_len - snap_footer_len(1);
    uint64_t index = footer - SNAP_INDEX_ENTRY_LEN;
    uint64_t tail = index - TAIL_LEN;
    expect_trace_without(rig.disk, logs_own,
                         "unlink " TMP " -> ENOENT\n" /* of an earlier run */
                         "create " TMP "\n"
                         "write " TMP " 0+112\n"
                         "write " TMP " 112+%" PRIu64 "\n" /* the block */
                         "sync segment-0.tmp\n"            /* the log, up to E */
                         "write " TMP " %" PRIu64 "+%d\n"  /* tail, index, footer */
                         "write " TMP " %" PRIu64 "+%d\n"
                         "write " TMP " %" PRIu64 "+%zu\n"
                         "sync " TMP "\n"
                         "rename " TMP " " LAST "\n"
                         "sync_dir data\n",
                         tail - 112, tail, TAIL_LEN, index, SNAP_INDEX_ENTRY_LEN, footer,
                         snap_footer_len(1));
    close_log();
    rig_close();
}
END_TEST

/* --- of a log that follows another one, and histories ------------------------------------------------------- */

static void apply_late(void *arg) {
    usleep(50000);
    log_set_applied(node_log, log_head(node_log));
    atomic_store((_Atomic bool *)arg, true);
}

/* What is in the log isn't yet in the store: the walk begins when it is. */
START_TEST(test_h26_a_walk_begins_when_all_before_it_is_applied) {
    static _Atomic bool applied;
    struct thread applier;
    rig_open();
    open_log(true);
    rig_set(0, "1", BYTES("v"), EXPIRY_NONE);
    struct lsn before = log_head(node_log);
    rig_set(0, "2", BYTES("v"), EXPIRY_NONE); /* as if it had been put ... */
    log_set_follows(node_log, true);
    atomic_store(&node_log->applied, before.v); /* ... and not yet applied */
    expect(log_wait(node_log, LOG_LEVEL_OS, log_head(node_log), 1000000));
    expect_eq(log_applied(node_log).v, before.v);
    struct snap_write_opts opts = opts_with_log();
    opts.stall_ms = 20; /* nobody applies */
    expect_eq(snap_write(&opts, &rig.written), DC_EIO);
    opts.stall_ms = 5000;
    thread_start(&applier, "applier", apply_late, &applied);
    rig_must(snap_write(&opts, &rig.written));
    expect(atomic_load(&applied));
    expect_eq(rig.written.start_lsn, log_head(node_log).v);
    thread_join(&applier);
    close_log();
    rig_close();
}
END_TEST

static void begin_a_history(void *arg, enum sim_call kind, const char *path) {
    static _Atomic bool done;
    (void)arg;
    if (kind == SIM_CREATE && strstr(path, "snap-") != NULL && !atomic_exchange(&done, true)) {
        uint64_t head = log_head(node_log).v;
        struct history next = {
            .id = 0xcccc, .start = head + LSN_JUMP, .epoch = 2, .parent_end = head};
        struct histories *chain = histories_add(log_chain(node_log), &next);
        rig_must(log_begin_history(node_log, chain, NULL, 0));
        mem_free(chain);
    }
}

START_TEST(a_snapshot_is_of_one_history) {
    rig_open();
    open_log(true);
    rig_set(0, "1", BYTES("v"), EXPIRY_NONE);
    struct snap_write_opts opts = opts_with_log();
    sim_disk_set_hook(rig.disk, begin_a_history, NULL);
    expect_eq(snap_write(&opts, &rig.written), DC_ESTOPPED);
    expect_eq(rig_list().tmps, 0);
    rig_set(0, "1", BYTES("w"), EXPIRY_NONE);
    rig_must(snap_write(&opts, &rig.written));
    sim_disk_set_hook(rig.disk, NULL, NULL);
    struct snap *s = rig_open_snapshot();
    expect_eq(snap_facts(s)->chain_count, 2);
    expect_eq(snap_facts(s)->chain[1].id, 0xcccc);
    expect(snap_facts(s)->start_lsn > LSN_JUMP && rig.written.history == 0xcccc);
    snap_close(s);
    close_log();
    rig_close();
}
END_TEST

CHECK_MAIN("snap_log", test_h20_h22_h25_image_and_tail_are_the_state_at_the_end_of_the_walk,
           without_a_log_that_is_kept_its_frames_are_caught_meanwhile,
           a_flipped_byte_of_the_tail_is_seen,
           test_h03_a_snapshot_gets_its_name_when_the_log_is_durable_up_to_its_end,
           test_h03_a_log_that_cant_be_made_durable_ends_the_snapshot,
           a_snapshot_is_published_in_this_order,
           test_h26_a_walk_begins_when_all_before_it_is_applied, a_snapshot_is_of_one_history)
