/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * tests/golden/v1 is a data directory of format version 1: a segment, a snapshot of its middle with a tail, and what they hold, as text.
 * It is never written again: a later version writes another one, and still reads this one.
 *
 * DC_GOLDEN_WRITE=dir makes one out of the commands below.
 */
#include "persist/log.h"
#include "persist/snap_writer.h"
#include "persist/warm.h"
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "server/base/sum.h"
#include "server/store/system.h"
#include "tests/support/check_main.h"
#include "tests/support/engine.h"
#include "tests/support/expect.h"
#include "tests/support/log_file.h"
#include "tests/support/sim_disk.h"
#include "tests/support/temp_dir.h"

#include <string.h>

static const char golden[] = "tests/golden/v1";
static const char segment[] = "log-0000000000100000-1122334455667788.dcl";

static const uint8_t node_id[NODE_ID_LEN] = "a golden node";
static const uint8_t seed[SEED_LEN] = "a golden seed";
static const struct history history = {0x1122334455667788, LSN_FIRST, 1, 0};

static struct engine engine;
static struct hand hand;

static void must(enum dc_err err) {
    ck_assert_msg(err == DC_OK, "%s", dc_fail_take(err));
}

static struct bytes text(const char *s) {
    return bytes_of(s, strlen(s));
}

/* --- the commands ------------------------------------------------------------------------------------ */

static void set(uint32_t db, const char *key, const char *value, int64_t expiry_ms) {
    must(hand_set(&hand, db, text(key), text(value), expiry_ms));
}

static void before_the_snapshot(void) {
    bool existed;
    int64_t sum;
    char key[16];
    set(0, "plain", "value", EXPIRY_NONE);
    set(0, "expiring", "soon", ENGINE_NOW_MS + 60000);
    set(0, "far", "later than five bytes hold", ENGINE_NOW_MS + ((int64_t)1 << 41));
    set(0, "", "the empty key", EXPIRY_NONE);
    set(0, "empty", "", EXPIRY_NONE);
    set(3, "plain", "of another database", EXPIRY_NONE);
    set(4, "flushed", "gone", EXPIRY_NONE);
    must(hand_incr(&hand, 0, text("counter"), -123456789012, &sum));
    must(hand_append(&hand, 0, text("raw"), text("changed in place")));
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof(key), "many:%d", i);
        set(0, key, "one of many", i % 3 == 0 ? ENGINE_NOW_MS + 1000 * i : EXPIRY_NONE);
    }
    char *blob = mem_must_alloc(BLOB_MIN_LEN + 5);
    memset(blob, 'b', BLOB_MIN_LEN + 5);
    must(hand_set(&hand, 0, text("blob"), bytes_of(blob, BLOB_MIN_LEN + 5), EXPIRY_NONE));
    mem_free(blob);
    must(hand_del(&hand, 0, text("many:7"), &existed));
    must(hand_flush(&hand, 4));
}

static void during_the_snapshot(void) {
    bool existed;
    int64_t sum;
    set(1, "from the tail", "1", EXPIRY_NONE);
    must(hand_incr(&hand, 0, text("counter"), 12, &sum));
    must(hand_write(&hand, 0, text("plain"), 3, text("UED")));
    must(hand_expire(&hand, 0, text("many:1"), ENGINE_NOW_MS + 5, &existed));
    must(hand_rename(&hand, 0, text("many:2"), text("renamed"), &existed));
}

static void behind_the_snapshot(void) {
    bool existed;
    hand_frame_begin(&hand);
    set(2, "in", "exec", EXPIRY_NONE);
    must(hand_append(&hand, 2, text("in"), text("!")));
    must(hand_del(&hand, 0, text("many:8"), &existed));
    hand_frame_end(&hand);
    must(hand_expire(&hand, 0, text("expiring"), EXPIRY_NONE, &existed));
    set(4, "after the flush", "alive", EXPIRY_NONE);
}

static void open_engine(void (*commit)(void *arg, struct mut *m), void *arg) {
    engine_init(&engine, seed);
    hand_init(&hand, &engine, 1);
    engine.commit = commit;
    engine.commit_arg = arg;
}

static void close_engine(void) {
    hand_fini(&hand);
    engine_fini(&engine);
}

/* --- what is in it ----------------------------------------------------------------------------------- */

static void describe_key(struct buf *to, uint32_t db, const char *key) {
    struct buf value;
    buf_init(&value, 0);
    struct seen seen = hand_peek(&hand, db, text(key), &value);
    if (seen.alive) {
        buf_printf(to, "%u \"%s\" version %" PRIu64 " expiry %" PRId64 " kind %d length %zu", db,
                   key, seen.version, seen.expiry_ms, (int)seen.kind, value.len);
        if (value.len < 100) {
            buf_printf(to, " \"%.*s\"\n", (int)value.len, value.ptr);
        } else {
            buf_printf(to, " sum %016" PRIx64 "\n", sum64(value.ptr, value.len, 0));
        }
    }
    buf_fini(&value);
}

/* The engine's store, as text; ends with a 0. */
static void describe(struct buf *to) {
    static const char *const keys[] = {
        "plain",  "expiring", "far",           "",   "empty",           "counter",
        "raw",    "blob",     "from the tail", "in", "after the flush", "flushed",
        "renamed"};
    char key[16];
    buf_init(to, 0);
    for (uint32_t db = 0; db < 5; db++) {
        buf_printf(to, "database %u: %" PRIu64 " keys\n", db,
                   (uint64_t)keyspace_count(store_keyspace(engine.store, db)));
        for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
            describe_key(to, db, keys[i]);
        }
        for (int i = 0; i < 200; i++) {
            snprintf(key, sizeof(key), "many:%d", i);
            describe_key(to, db, key);
        }
        const struct entry *record = system_flush_record(store_keyspace(engine.store, db));
        if (record != NULL) {
            struct value v;
            entry_value(record, &v);
            buf_printf(to,
                       "flushed at %" PRIu64 ", recorded by version %" PRIu64 " as %" PRId64 "\n",
                       keyspace_flush_version(store_keyspace(engine.store, db)),
                       entry_version(record), v.num);
        }
    }
    buf_append(to, "", 1);
}

static void read_file(const char *dir, const char *name, struct buf *to) {
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s", path);
    buf_init(to, 0);
    char bytes[4096];
    for (size_t n; (n = fread(bytes, 1, sizeof(bytes), f)) > 0;) {
        buf_append(to, bytes, n);
    }
    fclose(f);
}

static void write_file(const char *dir, const char *name, struct bytes content) {
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    ck_assert_msg(f != NULL, "%s", path);
    expect_eq(fwrite(content.ptr, 1, content.len, f), content.len);
    expect_eq(fclose(f), 0);
}

/* --- making one -------------------------------------------------------------------------------------- */

static struct log *node_log;
static struct log_feed *feed;

static void log_it(void *arg, struct mut *m) {
    (void)arg;
    must(log_reserve(feed, m));
    (void)log_commit(feed, m);
    log_kick(node_log);
}

static void write_snapshot(const struct io *io) {
    struct snap_written written;
    struct snap_write_opts opts = {.io = io,
                                   .dir = "data",
                                   .store = engine.store,
                                   .log = node_log,
                                   .node_id = node_id,
                                   .seed = seed,
                                   .chain = &history,
                                   .chain_count = 1,
                                   .block_len = 4096,
                                   .now_ms = ENGINE_NOW_MS};
    must(snap_write(&opts, &written));
    expect(written.tail_len > 0);
}

static void once_in_the_snapshot(void *arg, enum sim_call kind, const char *path) {
    bool *done = arg;
    if (kind == SIM_WRITE && strstr(path, "snap-") != NULL && !*done) {
        *done = true;
        during_the_snapshot();
    }
}

struct copy {
    const struct io *io;
    const char *to;
};

static void copy_out(void *arg, const char *name) {
    const struct copy *c = arg;
    char path[256];
    struct io_file f;
    snprintf(path, sizeof(path), "data/%s", name);
    expect_eq(c->io->open(c->io, path, IO_READ, &f), 0);
    size_t len = (size_t)c->io->size(c->io, &f);
    const void *bytes = c->io->map(c->io, &f, len);
    write_file(c->to, name, bytes_of(bytes, len));
    c->io->unmap(c->io, bytes, len);
    c->io->close(c->io, &f);
}

static void make_golden(const char *dir) {
    struct sim_disk *disk = sim_disk_create();
    const struct io *io = sim_disk_io(disk);
    bool done = false;
    struct buf b;
    expect_eq(io->mkdir(io, "data"), 0);
    struct log_opts opts = {.io = io,
                            .dir = "data",
                            .node_id = node_id,
                            .seed = seed,
                            .history = history,
                            .first_lsn = LSN_FIRST,
                            .chain = &history,
                            .chain_count = 1,
                            .fork = true,
                            .keeps = true,
                            .segment_len = 1 << 20,
                            .memory_limit = 1 << 30};
    must(log_open(&opts, &node_log));
    feed = log_feed_create(node_log);
    open_engine(log_it, NULL);
    before_the_snapshot();
    (void)log_wait(node_log, LOG_LEVEL_DISK, log_head(node_log), 1000000);
    sim_disk_set_hook(disk, once_in_the_snapshot, &done);
    write_snapshot(io);
    sim_disk_set_hook(disk, NULL, NULL);
    behind_the_snapshot();
    log_feed_destroy(feed);
    log_close(node_log, true, 5000);
    describe(&b);
    write_file(dir, "content.txt", bytes_of(b.ptr, b.len - 1));
    buf_fini(&b);
    struct copy copy = {io, dir};
    expect_eq(io->list(io, "data", copy_out, &copy), 0);
    close_engine();
    sim_disk_destroy(disk);
}

/* --- reading it -------------------------------------------------------------------------------------- */

static void expect_content(const char *dir, bool snapshot) {
    struct warm_opts opts = {.io = &io_posix, .dir = dir, .read_only = true, .node_id = node_id};
    struct data_plan *plan = mem_must_zalloc(sizeof(*plan));
    struct warm *warm = NULL;
    struct buf want;
    struct buf got;
    must(data_scan(&opts, plan, &warm));
    expect(plan->clean);
    expect_eq(plan->snapshot[0] != '\0', snapshot);
    expect_eq(plan->chain_count, 1);
    expect_eq(plan->chain[0].id, history.id);
    ck_assert_mem_eq(plan->seed, seed, SEED_LEN);
    open_engine(NULL, NULL);
    must(warm_attach(warm, engine.store));
    must(warm_all(warm, &hand.thread));
    describe(&got);
    read_file(golden, "content.txt", &want);
    buf_append(&want, "", 1);
    ck_assert_str_eq(got.ptr, want.ptr);
    warm_destroy(warm);
    close_engine();
    buf_fini(&got);
    buf_fini(&want);
    mem_free(plan);
}

START_TEST(snapshot_and_log_of_version_1_are_read) {
    const char *to = getenv("DC_GOLDEN_WRITE");
    if (to != NULL) {
        make_golden(to);
        return;
    }
    expect_content(golden, true);
}
END_TEST

START_TEST(a_log_of_version_1_is_read) {
    char dir[TEMP_DIR_MAX];
    struct buf file;
    temp_dir_make(dir);
    read_file(golden, segment, &file);
    write_file(dir, segment, buf_bytes(&file));
    expect_content(dir, false);
    temp_dir_remove(dir);
    buf_fini(&file);
}
END_TEST

/* The frame that the log writes for it is the one of the file. */
static void compare(void *arg, struct mut *m) {
    const struct buf *file = arg;
    static uint64_t lsn;
    if (lsn == 0) {
        lsn = LSN_FIRST + FRAME_HEADER_LEN + 8 + 32; /* behind the FORK */
    }
    const char *there = file->ptr + SEGMENT_HEADER_LEN + (lsn - LSN_FIRST);
    uint32_t blobs = frame_measure(m)->blobs;
    size_t len = (size_t)frame_measure(m)->inline_len;
    struct frame_blob blob;
    char *frame = mem_must_alloc(len);
    expect(blobs <= 1);
    expect_eq(frame_encode(m, history.id, lsn, frame, &blob), blobs);
    size_t front = blobs == 0 ? len : blob.at;
    expect(memcmp(frame, there, front) == 0);
    if (blobs > 0) {
        expect(memcmp(blob.blob->data, there + front, blob.blob->len) == 0);
        expect(memcmp(frame + front, there + front + blob.blob->len, len - front) == 0);
    }
    lsn += frame_measure(m)->len;
    mem_free(frame);
    mut_commit(m);
}

START_TEST(the_same_commands_make_the_same_frames) {
    struct buf file;
    read_file(golden, segment, &file);
    open_engine(compare, &file);
    before_the_snapshot();
    during_the_snapshot();
    behind_the_snapshot();
    close_engine();
    buf_fini(&file);
}
END_TEST

CHECK_MAIN("golden", snapshot_and_log_of_version_1_are_read, a_log_of_version_1_is_read,
           the_same_commands_make_the_same_frames)
