/* SPDX-License-Identifier: BSD-3-Clause */
/* What goes wrong with snapshots: damaged files, failing disks, no memory, somebody who stops them. */
#include "server/base/mem.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"
#include "tests/support/snap_rig.h"
#include "tests/support/temp_dir.h"
#include "tests/support/trace.h"

#include <errno.h>

/* --- damaged files ----------------------------------------------------------------------------------- */

static void put_copy(const char *data, size_t len) {
    sim_disk_put(rig.disk, "data/copy", data, len);
}

static char *read_file(const char *name, size_t *len) {
    const struct io *io = sim_disk_io(rig.disk);
    struct io_file f;
    char path[256];
    rig_path(name, path);
    expect_eq(io->open(io, path, IO_READ, &f), 0);
    *len = (size_t)io->size(io, &f);
    char *data = mem_must_alloc(*len);
    expect_eq(io->read_at(io, &f, data, *len, 0), *len);
    io->close(io, &f);
    return data;
}

/* Every byte of the file 'name', and every length that it could have been cut to. */
static void flip_all(const char *name) {
    size_t len;
    char *data = read_file(name, &len);
    put_copy(data, len);
    rig_must(rig_read_all("data/copy"));
    for (size_t i = 0; i < len; i++) {
        uint8_t bits = (uint8_t)(1 + i % 255);
        expect(sim_disk_flip(rig.disk, "data/copy", i, bits));
        enum dc_err err = rig_read_all("data/copy");
        ck_assert_msg(err == DC_ECORRUPT, "byte %zu: %s", i, dc_err_name(err));
        expect(strlen(dc_fail_take(err)) > 20);
        expect(sim_disk_flip(rig.disk, "data/copy", i, bits));
    }
    rig_must(rig_read_all("data/copy"));
    for (size_t cut = 0; cut < len; cut += cut < 200 || len - cut < 400 ? 1 : 13) {
        put_copy(data, cut);
        expect_eq(rig_read_all("data/copy"), DC_ECORRUPT);
    }
    mem_free(data);
}

START_TEST(a_flipped_byte_and_a_cut_are_seen_wherever_they_are) {
    rig_open();
    rig_set(0, "a", BYTES("value"), EXPIRY_NONE);
    rig_set(0, "b", BYTES("123456"), ENGINE_NOW_MS + 7);
    rig_set(4, "b", BYTES("other"), EXPIRY_NONE);
    rig_set_long(0, "blob", BLOB_MIN_LEN, EXPIRY_NONE);
    rig_write();
    flip_all(rig.written.name);
    rig_close();
}
END_TEST

START_TEST(a_file_that_is_none_is_refused_by_what_it_is) {
    rig_open();
    expect_eq(rig_read_all("data/none"), DC_EIO);
    put_copy("", 0);
    expect_eq(rig_read_all("data/copy"), DC_ECORRUPT);
    char *text = mem_must_zalloc(5000);
    put_copy(text, 5000);
    expect_eq(rig_read_all("data/copy"), DC_ECORRUPT);
    mem_free(text);
    rig_close();
}
END_TEST

/* --- failing disks ----------------------------------------------------------------------------------- */

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
    f->below = sim_disk_io(rig.disk);
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
    rig_open();
    rig_fill();
    rig_write();
    char old_path[256];
    rig_path(rig.written.name, old_path);
    rig_set(0, "later", BYTES("v"), EXPIRY_NONE);
    faulty_init(&faulty);
    enum dc_err err = DC_EIO;
    /* The first call only looks for what a crash may have left. */
    for (int64_t n = 2; n < 1000 && err != DC_OK; n++) {
        struct snap_write_opts opts = rig_opts(&faulty.io);
        atomic_store(&faulty.left, n);
        err = snap_write(&opts, &rig.written);
        bool failed = atomic_load(&faulty.left) <= 0;
        expect(err == (failed ? DC_EIO : DC_OK));
        expect(err == DC_OK || strlen(dc_fail_take(err)) > 20);
        rig_must(rig_read_all(old_path));
        struct rig_files files = rig_list();
        expect_eq(files.tmps, 0);
        if (files.files == 2) { /* it was the last call, which makes the name durable; or none */
            char path[256];
            rig_compare();
            rig_path(rig.written.name, path);
            expect_eq(sim_disk_io(rig.disk)->unlink(sim_disk_io(rig.disk), path), 0);
        }
    }
    rig_must(err);
    rig_close();
}
END_TEST

/* A file that isn't whole and on the disk never has the name of a snapshot, and what has it isn't removed. How much was written isn't what counts here. */
#define TMP  "snap-0000000000000010-000000000000bbbb.tmp"
#define LAST "snap-0000000000000010-000000000000bbbb.dcs"

START_TEST(a_snapshot_is_given_up_in_this_order) {
    static const struct {
        enum sim_call fails;
        const char *calls;
    } cases[] = {
        {SIM_CREATE, "create " TMP " -> EIO\n"},
        {SIM_WRITE, "create " TMP "\nunlink " TMP "\n"},
        {SIM_SYNC, "create " TMP "\nsync " TMP " -> EIO\nunlink " TMP "\n"},
        {SIM_RENAME,
         "create " TMP "\nsync " TMP "\nrename " TMP " " LAST " -> EIO\nunlink " TMP "\n"},
        {SIM_SYNC_DIR,
         "create " TMP "\nsync " TMP "\nrename " TMP " " LAST "\nsync_dir data -> EIO\n"},
    };
    static const char *const writes[] = {"write " TMP, NULL};
    rig_open();
    rig_set(0, "key", BYTES("v"), EXPIRY_NONE);
    struct snap_write_opts opts = rig_opts(sim_disk_io(rig.disk));
    opts.lsn = 16;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sim_disk_fail(rig.disk, cases[i].fails, 1, 1, EIO);
        expect_eq(snap_write(&opts, &rig.written), DC_EIO);
        (void)dc_fail_take(DC_EIO);
        expect_trace_without(rig.disk, writes, "unlink " TMP " -> ENOENT\n%s", cases[i].calls);
    }
    static const _Atomic bool stop = true;
    opts.stop = &stop;
    expect_eq(snap_write(&opts, &rig.written), DC_ESTOPPED);
    expect_trace_without(rig.disk, writes,
                         "unlink " TMP " -> ENOENT\ncreate " TMP "\nunlink " TMP "\n");
    rig_close();
}
END_TEST

START_TEST(a_reader_whose_disk_fails_says_so) {
    struct faulty faulty;
    struct snap *s;
    char path[256];
    rig_open();
    rig_set_long(0, "blob", BLOB_MIN_LEN, EXPIRY_NONE);
    rig_write();
    rig_path(rig.written.name, path);
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
    rig_must(snap_block_read(b, s, 0));
    expect(snap_block_next(b, &e));
    atomic_store(&faulty.left, 1);
    expect_eq(snap_read_blob(b, s, 0, &e, &blob), DC_EIO);
    rig_must(snap_read_blob(b, s, 0, &e, &blob));
    blob_release(blob);
    snap_block_destroy(b);
    snap_close(s);
    rig_close();
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
    rig_open();
    for (uint32_t i = 0; i < 20000; i++) {
        rig_set_number(0, "k", i, BYTES("some value"), EXPIRY_NONE);
    }
    struct snap_write_opts opts = rig_opts(sim_disk_io(rig.disk));
    opts.block_len = 4096;
    opts.stop = &stop_snapshot;
    sim_disk_set_hook(rig.disk, stop_at_third_write, &writes);
    expect_eq(snap_write(&opts, &rig.written), DC_ESTOPPED);
    expect(atomic_load(&writes) < 10);
    expect_eq(rig_list().files, 0);
    atomic_store(&stop_snapshot, false);
    sim_disk_set_hook(rig.disk, nap_at_write, NULL);
    opts.stall_ms = 20;
    opts.threads = 1;
    expect_eq(snap_write(&opts, &rig.written), DC_EIO);
    expect(strstr(dc_fail_take(DC_EIO), "gave up") != NULL);
    expect_eq(rig_list().files, 0);
    sim_disk_set_hook(rig.disk, NULL, NULL);
    opts.stall_ms = 20000;
    rig_must(snap_write(&opts, &rig.written));
    rig_compare();
    rig_close();
}
END_TEST

START_TEST(no_memory_ends_a_snapshot_and_nothing_else) {
    char dir[TEMP_DIR_MAX], path[256];
    rig_open();
    rig_fill();
    uint64_t failed = 0;
    temp_dir_make(dir); /* the simulated disk needs memory, too */
    for (uint64_t n = 1; n < 200; n++) {
        struct snap_write_opts opts = rig_opts(&io_posix);
        opts.dir = dir;
        opts.threads = 1;
        mem_fault_after(n);
        enum dc_err err = snap_write(&opts, &rig.written);
        mem_fault_after(0);
        expect(err == DC_OK || err == DC_ENOMEM);
        failed += err != DC_OK;
        snprintf(path, sizeof(path), "%s/%s", dir, rig.written.name);
        expect(err != DC_OK || unlink(path) == 0);
    }
    expect(failed > 5);
    expect_eq(rmdir(dir), 0); /* empty */
    rig_close();
}
END_TEST

CHECK_MAIN("snap_bad", a_flipped_byte_and_a_cut_are_seen_wherever_they_are,
           a_file_that_is_none_is_refused_by_what_it_is,
           a_failing_disk_leaves_the_old_snapshot_and_no_other_file,
           a_snapshot_is_given_up_in_this_order, a_reader_whose_disk_fails_says_so,
           a_stopped_or_stalled_snapshot_leaves_nothing, no_memory_ends_a_snapshot_and_nothing_else)
