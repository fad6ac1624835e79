/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Snapshots written and read again, on a simulated disk. DC_SNAP_BLOB sets the size of the largest value, in bytes.
 */
#include "persist/snap_reader.h"
#include "persist/snap_writer.h"
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "server/base/time.h"
#include "tests/support/check_main.h"
#include "tests/support/collide.h"
#include "tests/support/engine.h"
#include "tests/support/expect.h"
#include "tests/support/sim_disk.h"
#include "tests/support/store_check.h"

#include <errno.h>

static struct engine engine;
static struct hand hand;
static struct sim_disk *disk;
static struct snap_written written;

static const uint8_t node_id[NODE_ID_LEN] = {1, 2, 3};
static const uint8_t seed[SEED_LEN];
static const struct history chain[2] = {{0xaaaa, 1 << 20, 1, 0}, {0xbbbb, 1 << 21, 2, 1000}};

static void open_rig(void) {
    engine_init(&engine, NULL);
    hand_init(&hand, &engine, test_seed_value);
    disk = sim_disk_create();
    expect_eq(sim_disk_io(disk)->mkdir(sim_disk_io(disk), "data"), 0);
}

static void close_rig(void) {
    struct table_facts facts;
    const char *err = store_check(engine.store, &facts);
    ck_assert_msg(err == NULL, "%s", err);
    hand_fini(&hand);
    engine_fini(&engine);
    sim_disk_destroy(disk);
}

static void must(enum dc_err err) {
    ck_assert_msg(err == DC_OK, "%s at %s", dc_fail_take(err), dc_fail_where());
}

static struct snap_write_opts some_opts(const struct io *io) {
    return (struct snap_write_opts){.io = io,
                                    .dir = "data",
                                    .store = engine.store,
                                    .lsn = sequencer_head(&engine.sequencer).v,
                                    .node_id = node_id,
                                    .seed = seed,
                                    .chain = chain,
                                    .chain_count = 2,
                                    .threads = 2,
                                    .now_ms = engine_now(&engine)};
}

static void write_snapshot(void) {
    struct snap_write_opts opts = some_opts(sim_disk_io(disk));
    must(snap_write(&opts, &written));
}

static void path_of(const char *name, char to[256]) {
    snprintf(to, 256, "data/%s", name);
}

static struct snap *open_snapshot(void) {
    struct snap *s;
    char path[256];
    path_of(written.name, path);
    must(snap_open(sim_disk_io(disk), path, &s));
    return s;
}

struct listing {
    uint32_t files, tmps;
};

static void count_file(void *arg, const char *name) {
    struct listing *l = arg;
    l->files++;
    l->tmps += strstr(name, ".tmp") != NULL;
}

static struct listing list_files(void) {
    struct listing l = {0, 0};
    expect_eq(sim_disk_io(disk)->list(sim_disk_io(disk), "data", count_file, &l), 0);
    return l;
}

/* --- comparing --------------------------------------------------------------------------------------- */

/* An entry of the snapshot is the one of the store. */
static void expect_in_store(struct snap_block *b, const struct snap *s, uint32_t index,
                            const struct snap_entry *e) {
    const struct snap_block_info *info = snap_block_info(s, index);
    struct keyspace *ks = store_keyspace(engine.store, info->keyspace);
    struct key k = store_key(engine.store, e->key);
    expect_eq(key_slot(&k) >> snap_facts(s)->range_bits, info->range);
    expect(k.pos.v >= info->first_pos);
    store_lock(engine.store, key_slot(&k));
    const struct entry *there = store_peek(&hand.thread, ks, &k, 0);
    struct value v;
    expect(there != NULL);
    entry_value(there, &v);
    expect_eq(e->version, entry_version(there));
    expect_eq(e->expiry_ms, entry_expiry(there));
    expect_eq(e->freq, there->freq);
    expect_eq(e->value.kind, v.kind);
    expect_eq(e->age_code,
              snap_age_encode(store_idle_ms(engine.store, there, engine_now(&engine))));
    if (v.kind == VALUE_BLOB) {
        struct blob *blob;
        must(snap_read_blob(b, s, index, e, &blob));
        expect(blob->len == v.blob->len && memcmp(blob->data, v.blob->data, blob->len) == 0);
        blob_release(blob);
    } else if (v.kind == VALUE_INT) {
        expect_eq(e->value.num, v.num);
    } else {
        expect(bytes_equal(e->value.str, v.str));
    }
    store_unlock(engine.store, key_slot(&k));
}

/* What is in the snapshot is in the store, and as much of it. */
static void compare(void) {
    struct snap *s = open_snapshot();
    struct snap_block *b = snap_block_create();
    struct snap_entry e;
    const struct snap_facts *f = snap_facts(s);
    uint64_t seen = 0;
    uint32_t next = 0;
    for (uint32_t range = 0; range < (uint32_t)SLOT_COUNT >> f->range_bits; range++) {
        uint32_t first, count;
        snap_range_blocks(s, range, &first, &count);
        expect_eq(first, next);
        next += count;
        for (uint32_t i = first; i < first + count; i++) {
            const struct snap_block_info *info = snap_block_info(s, i);
            expect_eq(info->range, range);
            must(snap_block_read(b, s, i));
            uint32_t here = 0;
            for (; snap_block_next(b, &e); here++) {
                expect_in_store(b, s, i, &e);
                if (i + 1 < f->block_count && info[1].range == range &&
                    info[1].keyspace == info->keyspace && info[1].kind == SNAP_ENTRIES) {
                    expect(store_key(engine.store, e.key).pos.v < info[1].first_pos);
                }
            }
            expect_eq(here, info->entries);
            seen += here;
        }
    }
    expect_eq(next, f->block_count);
    expect_eq(seen, store_count(engine.store));
    expect_eq(seen, f->entries);
    expect_eq(seen, written.entries);
    expect(memcmp(f->node_id, node_id, NODE_ID_LEN) == 0 && memcmp(f->seed, seed, SEED_LEN) == 0);
    expect(f->chain_count == 2 && memcmp(f->chain, chain, sizeof(chain)) == 0);
    expect(f->start_lsn == f->end_lsn && f->end_lsn == sequencer_head(&engine.sequencer).v);
    struct snap_tail *t;
    struct frame_ref frame;
    must(snap_tail_open(s, &t));
    expect_eq(snap_tail_next(t, &frame), LOG_END);
    snap_tail_close(t);
    snap_block_destroy(b);
    snap_close(s);
}

/* --- filling ----------------------------------------------------------------------------------------- */

static void set(uint32_t db, const char *name, struct bytes value, int64_t expiry_ms) {
    must(hand_set(&hand, db, bytes_str(name), value, expiry_ms));
}

static void set_number(uint32_t db, const char *prefix, uint64_t i, struct bytes value,
                       int64_t expiry_ms) {
    char name[64];
    snprintf(name, sizeof(name), "%s%" PRIu64, prefix, i);
    set(db, name, value, expiry_ms);
}

static char *zeros(size_t len) {
    char *text = mem_must_zalloc(len);
    return text;
}

/* A value of so many bytes, which aren't all the same and compress well. */
static void set_long(uint32_t db, const char *name, size_t len, int64_t expiry_ms) {
    char *text = zeros(len);
    for (size_t i = 0; i < len; i += 4096) {
        memcpy(text + i, &i, len - i < sizeof(i) ? len - i : sizeof(i));
    }
    set(db, name, bytes_of(text, len), expiry_ms);
    mem_free(text);
}

static void fill_kinds(void) {
    const int64_t expiries[] = {EXPIRY_NONE, ENGINE_NOW_MS + 1000, 5, INT64_MAX / 2};
    char *key = zeros(70000);
    memset(key, 'k', 70000);
    for (uint32_t x = 0; x < 4; x++) {
        const int64_t numbers[] = {0, 1, -1, 127, 128, -128, -129, 1 << 20, INT64_MAX, INT64_MIN};
        char name[32], digits[32];
        for (uint32_t i = 0; i < 10; i++) {
            snprintf(name, sizeof(name), "int%u-%u", x, i);
            snprintf(digits, sizeof(digits), "%" PRId64, numbers[i]);
            set(x, name, bytes_str(digits), expiries[x]);
        }
        set_number(0, "text", x, BYTES("some text"), expiries[x]);
        set_number(1, "empty", x, BYTES(""), expiries[x]);
        set_number(2, "binary", x, BYTES("\0\r\n\xff"), expiries[x]);
        set_number(3, "raw", x, BYTES("123"), EXPIRY_NONE);
        snprintf(name, sizeof(name), "raw%u", x);
        must(hand_append(&hand, 3, bytes_str(name), BYTES("456")));
        snprintf(name, sizeof(name), "long%u", x);
        set_long(x, name, BLOB_MIN_LEN - 1, expiries[x]);
        snprintf(name, sizeof(name), "blob%u", x);
        set_long(x, name, BLOB_MIN_LEN, expiries[x]);
        must(hand_set(&hand, x, bytes_of(key, 253 + x), BYTES("v"), expiries[x]));
    }
    must(hand_set(&hand, 5, bytes_of(key, 70000), BYTES("v"), EXPIRY_NONE));
    set(0, "", BYTES("of the empty key"), EXPIRY_NONE);
    mem_free(key);
}

/* --- round trips ------------------------------------------------------------------------------------- */

START_TEST(an_empty_store_is_a_snapshot) {
    open_rig();
    write_snapshot();
    compare();
    expect_eq(written.entries, 0);
    expect(written.file_len < 400);
    close_rig();
}
END_TEST

START_TEST(one_key_is_a_snapshot) {
    open_rig();
    set(3, "key", BYTES("value"), EXPIRY_NONE);
    write_snapshot();
    compare();
    expect_eq(written.entries, 1);
    close_rig();
}
END_TEST

START_TEST(every_kind_of_value_comes_back_with_and_without_expiry) {
    open_rig();
    fill_kinds();
    engine_sleep(&engine, 20000);
    store_tick(engine.store, engine_now(&engine));
    set(0, "young", BYTES("one"), EXPIRY_NONE);
    write_snapshot();
    compare(); /* what has expired, too */
    expect_eq(sim_disk_unsynced(disk), 0);
    close_rig();
}
END_TEST

START_TEST(test_h23_keys_at_one_position_come_together) {
    const uint32_t block_lens[] = {1, 100, 0};
    open_rig();
    for (uint32_t i = 0; i < 3000; i++) {
        set_number(0, "{c}x", i, BYTES("v"), EXPIRY_NONE);
        set_number(1, "{c}x", i, BYTES("v"), EXPIRY_NONE);
    }
    for (uint32_t p = 0; p < COLLIDING_PAIRS * 2; p++) {
        set(0, colliding_keys[p / 2][p % 2], BYTES("v"), EXPIRY_NONE);
        set_long(1, colliding_keys[p / 2][p % 2], BLOB_MIN_LEN + p, EXPIRY_NONE);
    }
    for (uint32_t i = 0; i < 3; i++) {
        struct snap_write_opts opts = some_opts(sim_disk_io(disk));
        opts.block_len = block_lens[i];
        must(snap_write(&opts, &written));
        compare();
    }
    close_rig();
}
END_TEST

START_TEST(large_values_are_written_in_pieces) {
    const char *text = getenv("DC_SNAP_BLOB");
    open_rig();
    set_long(0, "least", BLOB_MIN_LEN, EXPIRY_NONE);
    set_long(0, "some", 5 << 20, ENGINE_NOW_MS + 1);
    set_long(7, "two", 2 * SNAP_PIECE_LEN, EXPIRY_NONE);
    if (text != NULL) {
        set_long(1, "most", strtoull(text, NULL, 10), EXPIRY_NONE);
    }
    for (uint32_t i = 0; i < 100; i++) {
        set_number(0, "small", i, BYTES("v"), EXPIRY_NONE);
    }
    write_snapshot();
    compare();
    close_rig();
}
END_TEST

START_TEST(ranges_and_blocks_have_the_length_that_was_asked_for) {
    open_rig();
    char value[100];
    struct rng r = test_rng();
    for (uint32_t i = 0; i < 40000; i++) {
        for (uint32_t k = 0; k < sizeof(value); k++) {
            value[k] = (char)rng_next(&r);
        }
        set_number(i % 8 == 0, "key:", i, bytes_of(value, sizeof(value)), EXPIRY_NONE);
    }
    write_snapshot();
    compare();
    struct snap *s = open_snapshot();
    const struct snap_facts *f = snap_facts(s);
    expect(f->plain_bytes / f->block_count < SNAP_BLOCK_LEN);
    expect(f->plain_bytes / f->block_count > SNAP_BLOCK_LEN / 5); /* two keyspaces, halved ranges */
    for (uint32_t i = 0; i < f->block_count; i++) {
        expect(snap_block_info(s, i)->plain_len < SNAP_BLOCK_LEN * 3 / 2);
    }
    snap_close(s);
    close_rig();
}
END_TEST

START_TEST(two_snapshots_of_one_moment_replace_each_other) {
    open_rig();
    set(0, "k", BYTES("v"), EXPIRY_NONE);
    write_snapshot();
    write_snapshot();
    compare();
    expect_eq(list_files().files, 1);
    set(0, "k", BYTES("v2"), EXPIRY_NONE);
    write_snapshot();
    compare();
    expect_eq(list_files().files, 2);
    close_rig();
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
            must(hand_del(&w->hand, 1, key, &existed));
            break;
        case 1:
            must(hand_append(&w->hand, 1, key, BYTES("more")));
            break;
        case 2:
            must(hand_expire(&w->hand, 1, key, ENGINE_NOW_MS + (int64_t)n, &existed));
            break;
        case 3:
            (void)hand_get(&w->hand, 1, key, NULL);
            break;
        default:
            must(hand_set(&w->hand, 1, key, bytes_of(text, len), EXPIRY_NONE));
        }
        if (rng_below(&w->rng, 20000) == 0) {
            must(hand_flush(&w->hand, 2));
        }
    }
}

/* Each of the keys that stay is there once. */
static void count_those_that_stay(uint32_t stay) {
    struct snap *s = open_snapshot();
    struct snap_block *b = snap_block_create();
    struct snap_entry e;
    uint8_t *seen = mem_must_zalloc(stay);
    for (uint32_t i = 0; i < snap_facts(s)->block_count; i++) {
        must(snap_block_read(b, s, i));
        while (snap_block_next(b, &e)) {
            uint64_t n;
            if (e.value.kind == VALUE_BLOB) {
                struct blob *blob;
                must(snap_read_blob(b, s, i, &e, &blob));
                blob_release(blob);
            }
            if (snap_block_info(s, i)->keyspace == 0) {
                expect(num_parse_u64(e.key, &n) && n < stay);
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
    open_rig();
    for (uint32_t i = 0; i < stay; i++) {
        char name[32];
        snprintf(name, sizeof(name), "%u", i);
        set(0, name, bytes_str(name), EXPIRY_NONE);
        set(2, name, BYTES("v"), EXPIRY_NONE);
    }
    atomic_store(&stop_writers, false);
    for (uint32_t i = 0; i < WRITERS; i++) {
        hand_init(&writers[i].hand, &engine, i);
        rng_seed(&writers[i].rng, test_seed_value + i);
        thread_start(&writers[i].thread, "writer", write_on, &writers[i]);
    }
    for (uint32_t i = 0; i < 3; i++) {
        write_snapshot();
        count_those_that_stay(stay);
    }
    atomic_store(&stop_writers, true);
    for (uint32_t i = 0; i < WRITERS; i++) {
        thread_join(&writers[i].thread);
        hand_fini(&writers[i].hand);
    }
    write_snapshot();
    compare();
    close_rig();
}
END_TEST

/* --- what goes wrong --------------------------------------------------------------------------------- */

static void put_copy(const char *data, size_t len) {
    sim_disk_put(disk, "data/copy", data, len);
}

static char *read_file(const char *name, size_t *len) {
    const struct io *io = sim_disk_io(disk);
    struct io_file f;
    char path[256];
    path_of(name, path);
    expect_eq(io->open(io, path, IO_READ, &f), 0);
    *len = (size_t)io->size(io, &f);
    char *data = mem_must_alloc(*len);
    expect_eq(io->read_at(io, &f, data, *len, 0), *len);
    io->close(io, &f);
    return data;
}

/* Reads all of a file; the first error. */
static enum dc_err read_all(const char *path) {
    struct snap *s;
    struct snap_entry e;
    enum dc_err err = snap_open(sim_disk_io(disk), path, &s);
    if (err != DC_OK) {
        return err;
    }
    struct snap_block *b = snap_block_create();
    for (uint32_t i = 0; i < snap_facts(s)->block_count && err == DC_OK; i++) {
        err = snap_block_read(b, s, i);
        while (err == DC_OK && snap_block_next(b, &e)) {
            struct blob *blob = NULL;
            if (e.value.kind == VALUE_BLOB) {
                err = snap_read_blob(b, s, i, &e, &blob);
                blob_release(blob);
            }
        }
    }
    struct snap_tail *t;
    struct frame_ref frame;
    must(snap_tail_open(s, &t));
    enum log_end end = LOG_MORE;
    while (err == DC_OK && end == LOG_MORE) {
        end = snap_tail_next(t, &frame);
        err = end == LOG_DAMAGED ? DC_ECORRUPT : end == LOG_FAILED ? DC_EIO : err;
    }
    snap_tail_close(t);
    snap_block_destroy(b);
    snap_close(s);
    return err;
}

/* Every byte of the file 'name', and every length that it could have been cut to. */
static void flip_all(const char *name) {
    size_t len;
    char *data = read_file(name, &len);
    put_copy(data, len);
    must(read_all("data/copy"));
    for (size_t i = 0; i < len; i++) {
        uint8_t bits = (uint8_t)(1 + i % 255);
        expect(sim_disk_flip(disk, "data/copy", i, bits));
        enum dc_err err = read_all("data/copy");
        ck_assert_msg(err == DC_ECORRUPT, "byte %zu: %s", i, dc_err_name(err));
        expect(strlen(dc_fail_take(err)) > 20);
        expect(sim_disk_flip(disk, "data/copy", i, bits));
    }
    must(read_all("data/copy"));
    for (size_t cut = 0; cut < len; cut += cut < 200 || len - cut < 400 ? 1 : 13) {
        put_copy(data, cut);
        expect_eq(read_all("data/copy"), DC_ECORRUPT);
    }
    mem_free(data);
}

START_TEST(a_flipped_byte_and_a_cut_are_seen_wherever_they_are) {
    open_rig();
    set(0, "a", BYTES("value"), EXPIRY_NONE);
    set(0, "b", BYTES("123456"), ENGINE_NOW_MS + 7);
    set(4, "b", BYTES("other"), EXPIRY_NONE);
    set_long(0, "blob", BLOB_MIN_LEN, EXPIRY_NONE);
    write_snapshot();
    flip_all(written.name);
    close_rig();
}
END_TEST

START_TEST(a_file_that_is_none_is_refused_by_what_it_is) {
    open_rig();
    expect_eq(read_all("data/none"), DC_EIO);
    put_copy("", 0);
    expect_eq(read_all("data/copy"), DC_ECORRUPT);
    char *text = zeros(5000);
    put_copy(text, 5000);
    expect_eq(read_all("data/copy"), DC_ECORRUPT);
    mem_free(text);
    close_rig();
}
END_TEST

/* Fails one call, the n-th that can: whatever it is. */
struct faulty {
    struct io io;
    const struct io *below;
    _Atomic int64_t left;
};

static bool fails(const struct io *io) {
    struct faulty *f = io->arg;
    return atomic_fetch_sub(&f->left, 1) == 1;
}

#define BELOW(io) (((struct faulty *)(io)->arg)->below)

static int faulty_open(const struct io *io, const char *path, enum io_mode mode,
                       struct io_file *out) {
    return fails(io) ? -EACCES : BELOW(io)->open(BELOW(io), path, mode, out);
}
static void faulty_close(const struct io *io, struct io_file *f) {
    BELOW(io)->close(BELOW(io), f);
}
static ssize_t faulty_read_at(const struct io *io, struct io_file *f, void *to, size_t len,
                              uint64_t at) {
    return fails(io) ? -EIO : BELOW(io)->read_at(BELOW(io), f, to, len, at);
}
static ssize_t faulty_write_at(const struct io *io, struct io_file *f, const struct iovec *iov,
                               int count, uint64_t at) {
    return fails(io) ? -ENOSPC : BELOW(io)->write_at(BELOW(io), f, iov, count, at);
}
static int faulty_sync(const struct io *io, struct io_file *f) {
    return fails(io) ? -EIO : BELOW(io)->sync(BELOW(io), f);
}
static int64_t faulty_size(const struct io *io, struct io_file *f) {
    return fails(io) ? -EIO : BELOW(io)->size(BELOW(io), f);
}
static int faulty_rename(const struct io *io, const char *from, const char *to) {
    return fails(io) ? -EACCES : BELOW(io)->rename(BELOW(io), from, to);
}
static int faulty_unlink(const struct io *io, const char *path) {
    return fails(io) ? -EACCES : BELOW(io)->unlink(BELOW(io), path);
}
static int faulty_sync_dir(const struct io *io, const char *path) {
    return fails(io) ? -EIO : BELOW(io)->sync_dir(BELOW(io), path);
}

static void faulty_init(struct faulty *f) {
    f->below = sim_disk_io(disk);
    f->io = (struct io){.open = faulty_open,
                        .close = faulty_close,
                        .read_at = faulty_read_at,
                        .write_at = faulty_write_at,
                        .sync = faulty_sync,
                        .size = faulty_size,
                        .rename = faulty_rename,
                        .unlink = faulty_unlink,
                        .sync_dir = faulty_sync_dir,
                        .arg = f};
}

START_TEST(a_failing_disk_leaves_the_old_snapshot_and_no_other_file) {
    struct faulty faulty;
    open_rig();
    fill_kinds();
    write_snapshot();
    char old_path[256];
    path_of(written.name, old_path);
    set(0, "later", BYTES("v"), EXPIRY_NONE);
    faulty_init(&faulty);
    enum dc_err err = DC_EIO;
    /* The first call only looks for what a crash may have left. */
    for (int64_t n = 2; n < 1000 && err != DC_OK; n++) {
        struct snap_write_opts opts = some_opts(&faulty.io);
        atomic_store(&faulty.left, n);
        err = snap_write(&opts, &written);
        bool failed = atomic_load(&faulty.left) <= 0;
        expect(err == (failed ? DC_EIO : DC_OK));
        expect(err == DC_OK || strlen(dc_fail_take(err)) > 20);
        must(read_all(old_path));
        struct listing files = list_files();
        expect_eq(files.tmps, 0);
        if (files.files == 2) { /* it was the last call, which makes the name durable; or none */
            char path[256];
            compare();
            path_of(written.name, path);
            expect_eq(sim_disk_io(disk)->unlink(sim_disk_io(disk), path), 0);
        }
    }
    must(err);
    close_rig();
}
END_TEST

START_TEST(a_reader_whose_disk_fails_says_so) {
    struct faulty faulty;
    struct snap *s;
    char path[256];
    open_rig();
    set_long(0, "blob", BLOB_MIN_LEN, EXPIRY_NONE);
    write_snapshot();
    path_of(written.name, path);
    faulty_init(&faulty);
    bool opened = false;
    for (int64_t n = 1; n < 100 && !opened; n++) {
        atomic_store(&faulty.left, n);
        enum dc_err err = snap_open(&faulty.io, path, &s);
        expect(err == DC_EIO || err == DC_OK);
        opened = err == DC_OK;
    }
    expect(opened);
    struct snap_block *b = snap_block_create();
    struct snap_entry e;
    struct blob *blob;
    atomic_store(&faulty.left, 1);
    expect_eq(snap_block_read(b, s, 0), DC_EIO);
    expect(!snap_block_next(b, &e));
    must(snap_block_read(b, s, 0));
    expect(snap_block_next(b, &e));
    atomic_store(&faulty.left, 1);
    expect_eq(snap_read_blob(b, s, 0, &e, &blob), DC_EIO);
    must(snap_read_blob(b, s, 0, &e, &blob));
    blob_release(blob);
    snap_block_destroy(b);
    snap_close(s);
    close_rig();
}
END_TEST

static _Atomic bool stop_snapshot;

static void stop_at_third_write(void *arg, enum sim_call kind, const char *path) {
    _Atomic uint32_t *writes = arg;
    (void)path;
    if (kind == SIM_WRITE && atomic_fetch_add(writes, 1) == 2) {
        atomic_store(&stop_snapshot, true);
    }
}

static void nap_at_write(void *arg, enum sim_call kind, const char *path) {
    (void)arg;
    (void)path;
    if (kind == SIM_WRITE) {
        usleep(60000);
    }
}

START_TEST(a_stopped_or_stalled_snapshot_leaves_nothing) {
    _Atomic uint32_t writes = 0;
    open_rig();
    for (uint32_t i = 0; i < 20000; i++) {
        set_number(0, "k", i, BYTES("some value"), EXPIRY_NONE);
    }
    struct snap_write_opts opts = some_opts(sim_disk_io(disk));
    opts.block_len = 4096;
    opts.stop = &stop_snapshot;
    sim_disk_set_hook(disk, stop_at_third_write, &writes);
    expect_eq(snap_write(&opts, &written), DC_ESTOPPED);
    expect(atomic_load(&writes) < 10);
    expect_eq(list_files().files, 0);
    atomic_store(&stop_snapshot, false);
    sim_disk_set_hook(disk, nap_at_write, NULL);
    opts.stall_ms = 20;
    opts.threads = 1;
    expect_eq(snap_write(&opts, &written), DC_EIO);
    expect(strstr(dc_fail_take(DC_EIO), "gave up") != NULL);
    expect_eq(list_files().files, 0);
    sim_disk_set_hook(disk, NULL, NULL);
    opts.stall_ms = 20000;
    must(snap_write(&opts, &written));
    compare();
    close_rig();
}
END_TEST

START_TEST(no_memory_ends_a_snapshot_and_nothing_else) {
    char dir[] = "/tmp/test-snap-XXXXXX", path[256];
    open_rig();
    fill_kinds();
    uint64_t failed = 0;
    expect(mkdtemp(dir) != NULL); /* the simulated disk needs memory, too */
    for (uint64_t n = 1; n < 200; n++) {
        struct snap_write_opts opts = some_opts(&io_posix);
        opts.dir = dir;
        opts.threads = 1;
        mem_fault_after(n);
        enum dc_err err = snap_write(&opts, &written);
        mem_fault_after(0);
        expect(err == DC_OK || err == DC_ENOMEM);
        failed += err != DC_OK;
        snprintf(path, sizeof(path), "%s/%s", dir, written.name);
        expect(err != DC_OK || unlink(path) == 0);
    }
    expect(failed > 5);
    expect_eq(rmdir(dir), 0); /* empty */
    close_rig();
}
END_TEST

START_TEST(progress_tells_how_far_it_is) {
    struct snap_progress progress;
    open_rig();
    for (uint32_t i = 0; i < 5000; i++) {
        set_number(i % 3, "k", i, BYTES("some value"), EXPIRY_NONE);
    }
    struct snap_write_opts opts = some_opts(sim_disk_io(disk));
    opts.progress = &progress;
    opts.block_len = 10000;
    must(snap_write(&opts, &written));
    compare();
    expect_eq(atomic_load(&progress.entries_done), 5000);
    expect_eq(atomic_load(&progress.entries_expected), 5000);
    expect_eq(atomic_load(&progress.plain_bytes), written.plain_bytes);
    expect_eq(atomic_load(&progress.ranges_done), atomic_load(&progress.ranges));
    expect(atomic_load(&progress.ranges) > 1);
    expect_eq(atomic_load(&progress.began_ms), opts.now_ms);
    close_rig();
}
END_TEST

CHECK_MAIN("snap", an_empty_store_is_a_snapshot, one_key_is_a_snapshot,
           every_kind_of_value_comes_back_with_and_without_expiry,
           test_h23_keys_at_one_position_come_together, large_values_are_written_in_pieces,
           ranges_and_blocks_have_the_length_that_was_asked_for,
           two_snapshots_of_one_moment_replace_each_other,
           a_walk_among_writers_sees_what_stays_once,
           a_flipped_byte_and_a_cut_are_seen_wherever_they_are,
           a_file_that_is_none_is_refused_by_what_it_is,
           a_failing_disk_leaves_the_old_snapshot_and_no_other_file,
           a_reader_whose_disk_fails_says_so, a_stopped_or_stalled_snapshot_leaves_nothing,
           no_memory_ends_a_snapshot_and_nothing_else, progress_tells_how_far_it_is)
