/* SPDX-License-Identifier: BSD-3-Clause */
/* Does the simulated disk lose what a disk may lose, and nothing else? */
#include "server/base/mem.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"
#include "tests/support/sim_disk.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>

enum { CUTS = 200 }; /* power cuts of one moment that are looked at */

static struct io_file open_file(struct sim_disk *d, const char *path, enum io_mode mode) {
    const struct io *io = sim_disk_io(d);
    struct io_file f;
    int rc = io->open(io, path, mode, &f);
    ck_assert_msg(rc == 0, "%s: %s", path, strerror(-rc));
    return f;
}

static ssize_t write_bytes(struct sim_disk *d, struct io_file *f, char byte, size_t len,
                           uint64_t at) {
    char bytes[4096];
    expect(len <= sizeof(bytes));
    memset(bytes, byte, len);
    struct iovec v = {bytes, len};
    return sim_disk_io(d)->write_at(sim_disk_io(d), f, &v, 1, at);
}

/* The content of a file as a string of up to 'size' - 1 bytes; -ENOENT. */
static ssize_t content(struct sim_disk *d, const char *path, char *to, size_t size) {
    const struct io *io = sim_disk_io(d);
    struct io_file f;
    int rc = io->open(io, path, IO_READ, &f);
    if (rc != 0) {
        return rc;
    }
    ssize_t n = io->read_at(io, &f, to, size - 1, 0);
    io->close(io, &f);
    to[n > 0 ? n : 0] = '\0';
    return n;
}

static bool exists(struct sim_disk *d, const char *path) {
    char none[2];
    return content(d, path, none, sizeof(none)) >= 0;
}

/* A durable file of 2048 'a'. */
static struct io_file durable_file(struct sim_disk *d, const char *path) {
    const struct io *io = sim_disk_io(d);
    struct io_file f = open_file(d, path, IO_CREATE);
    ck_assert_int_eq(write_bytes(d, &f, 'a', 2048, 0), 2048);
    ck_assert_int_eq(io->sync(io, &f), 0);
    ck_assert_int_eq(io->sync_dir(io, "."), 0);
    ck_assert_uint_eq(sim_disk_unsynced(d), 0);
    return f;
}

START_TEST(what_is_written_is_read) {
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    struct io_file f = open_file(d, "a", IO_CREATE);
    struct io_file again;
    char got[64];
    ck_assert_int_eq(io->open(io, "a", IO_CREATE, &again), -EEXIST);
    ck_assert_int_eq(io->open(io, "none/a", IO_CREATE, &again), -ENOENT);
    ck_assert_int_eq(io->open(io, "b", IO_WRITE, &again), -ENOENT);
    char one[] = "one";
    char two[] = "two";
    struct iovec v[3] = {{one, 3}, {one, 0}, {two, 3}};
    ck_assert_int_eq(io->write_at(io, &f, v, 3, 2), 6);
    ck_assert_int_eq(io->size(io, &f), 8);
    ck_assert_int_eq(io->read_at(io, &f, got, 64, 0), 8);
    ck_assert_mem_eq(got, "\0\0onetwo", 8);
    ck_assert_int_eq(io->allocate(io, &f, 5000), 0);
    ck_assert_int_eq(io->size(io, &f), 5000);
    ck_assert_int_eq(io->allocate(io, &f, 5), 0);
    ck_assert_int_eq(io->read_at(io, &f, got, 64, 4990), 10);
    ck_assert_int_eq(io->truncate(io, &f, 4), 0);
    ck_assert_int_eq(io->truncate(io, &f, 6), 0);
    ck_assert_int_eq(io->read_at(io, &f, got, 64, 0), 6);
    ck_assert_mem_eq(got, "\0\0on\0\0", 6);
    const char *map = io->map(io, &f, 6);
    ck_assert_mem_eq(map, "\0\0on\0\0", 6);
    io->unmap(io, map, 6);
    again = open_file(d, "a", IO_READ);
    ck_assert_int_eq(io->unlink(io, "a"), 0);
    ck_assert_int_eq(io->size(io, &again), 6); /* as long as it is open */
    io->close(io, &again);
    io->close(io, &f);
    sim_disk_destroy(d);
}
END_TEST

static void note_name(void *arg, const char *name) {
    char *all = arg;
    size_t len = strlen(all);
    snprintf(all + len, 256 - len, "%s;", name);
}

START_TEST(directories_have_their_names) {
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    char names[256] = "";
    struct io_file f;
    ck_assert_int_eq(io->mkdir(io, "data"), 0);
    ck_assert_int_eq(io->mkdir(io, "data"), 0);
    ck_assert_int_eq(io->mkdir(io, "none/data"), -ENOENT);
    f = open_file(d, "data/x", IO_CREATE);
    io->close(io, &f);
    f = open_file(d, "y", IO_CREATE);
    io->close(io, &f);
    ck_assert_int_eq(io->mkdir(io, "data/sub"), 0);
    ck_assert_int_eq(io->list(io, "data/", note_name, names), 0);
    ck_assert_str_eq(names, "x;sub;");
    names[0] = '\0';
    ck_assert_int_eq(io->list(io, ".", note_name, names), 0);
    ck_assert_str_eq(names, "y;data;");
    ck_assert_int_eq(io->list(io, "none", note_name, names), -ENOENT);
    ck_assert_int_eq(io->sync_dir(io, "none"), -ENOENT);
    ck_assert_int_eq(io->rename(io, "data/x", "data/z"), 0);
    ck_assert_int_eq(io->rename(io, "data/x", "data/z"), -ENOENT);
    ck_assert_int_eq(io->mkdir(io, "data/z"), -EEXIST);
    sim_disk_destroy(d);
}
END_TEST

/* The four sectors of "f", a letter each. */
static void sectors_of(struct sim_disk *d, char to[5]) {
    char got[4096];
    expect_eq(content(d, "f", got, sizeof(got)), 2048);
    for (int i = 0; i < 2048; i++) {
        to[i / 512] = i % 512 == 0 ? got[i] : to[i / 512];
        expect(got[i] == to[i / 512]); /* a sector is never torn */
    }
    to[4] = '\0';
}

/* The same after a power cut. */
static void sectors_after(struct sim_disk *d, enum sim_cut cut, uint64_t seed, char to[5]) {
    struct sim_disk *after = sim_disk_crash(d, cut, seed);
    expect_eq(sim_disk_unsynced(after), 0);
    sectors_of(after, to);
    sim_disk_destroy(after);
}

static void expect_after(struct sim_disk *d, enum sim_cut cut, const char *wanted) {
    char sectors[5];
    sectors_after(d, cut, 1, sectors);
    ck_assert_str_eq(sectors, wanted);
}

START_TEST(a_sync_makes_durable_and_nothing_less_does) {
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    struct io_file f = durable_file(d, "f");
    ck_assert_int_eq(write_bytes(d, &f, 'b', 1024, 512), 1024);
    expect_after(d, SIM_CUT_NOTHING, "aaaa");
    expect_after(d, SIM_CUT_ALL, "abba");
    ck_assert_int_eq(io->sync(io, &f), 0);
    expect_after(d, SIM_CUT_NOTHING, "abba");
    io->close(io, &f);
    sim_disk_destroy(d);
}
END_TEST

/* Which sectors of the file are new, as bits; the seed decides. */
static int mask_after(struct sim_disk *d, enum sim_cut cut, uint64_t seed) {
    char first[5];
    char second[5];
    int mask = 0;
    sectors_after(d, cut, seed, first);
    sectors_after(d, cut, seed, second);
    expect(strcmp(first, second) == 0);
    for (int i = 0; i < 4; i++) {
        mask |= first[i] == 'b' ? 1 << i : 0;
    }
    return mask;
}

START_TEST(sectors_survive_one_by_one) {
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    struct io_file f = durable_file(d, "f");
    bool seen[3][16] = {{false}};
    ck_assert_int_eq(write_bytes(d, &f, 'b', 2048, 0), 2048);
    for (uint64_t seed = 0; seed < CUTS; seed++) {
        seen[0][mask_after(d, SIM_CUT_RANDOM, seed)] = true;
        seen[1][mask_after(d, SIM_CUT_IN_ORDER, seed)] = true;
        seen[2][mask_after(d, SIM_CUT_REORDER, seed)] = true;
    }
    for (int mask = 0; mask < 16; mask++) {
        ck_assert(seen[0][mask]);
        ck_assert_int_eq(seen[1][mask], ((mask + 1) & mask) == 0); /* 0000 1000 1100 ... */
        ck_assert_int_eq(seen[2][mask], ((16 - mask) & mask) == 16 - mask || mask == 0);
    }
    io->close(io, &f);
    sim_disk_destroy(d);
}
END_TEST

static int version_of(const char *got) {
    int version = 0;
    while (version < 3 && got[100 * version] == 'b' + version) {
        version++;
    }
    for (int i = version; i < 3; i++) {
        expect(got[100 * i] == 'a');
    }
    return version;
}

/* A sector that was written several times is one of its versions, never a mixture. */
START_TEST(a_sector_is_one_of_its_versions) {
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    struct io_file f = durable_file(d, "f");
    int seen[4] = {0};
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(write_bytes(d, &f, (char)('b' + i), 100, 100 * (uint64_t)i), 100);
    }
    for (uint64_t seed = 0; seed < CUTS; seed++) {
        char got[4096];
        struct sim_disk *after = sim_disk_crash(d, SIM_CUT_RANDOM, seed);
        expect_eq(content(after, "f", got, sizeof(got)), 2048);
        int version = version_of(got);
        seen[version]++;
        sim_disk_destroy(after);
    }
    for (int i = 0; i < 4; i++) {
        ck_assert_int_gt(seen[i], 0);
    }
    io->close(io, &f);
    sim_disk_destroy(d);
}
END_TEST

START_TEST(a_length_may_be_lost_with_what_stands_behind_it) {
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    struct io_file f = durable_file(d, "f");
    bool seen[2] = {false};
    ck_assert_int_eq(write_bytes(d, &f, 'b', 512, 2048), 512);
    for (uint64_t seed = 0; seed < CUTS; seed++) {
        char got[4096];
        struct sim_disk *after = sim_disk_crash(d, SIM_CUT_RANDOM, seed);
        ssize_t n = content(after, "f", got, sizeof(got));
        expect(n == 2048 || (n == 2560 && (got[2048] == 'b' || got[2048] == 0)));
        seen[n == 2560] = true;
        sim_disk_destroy(after);
    }
    ck_assert(seen[0] && seen[1]);
    io->close(io, &f);
    sim_disk_destroy(d);
}
END_TEST

START_TEST(names_are_durable_with_their_directory) {
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    struct io_file f = durable_file(d, "old");
    bool seen[2][2][2] = {{{false}}};
    io->close(io, &f);
    f = open_file(d, "tmp", IO_CREATE);
    ck_assert_int_eq(write_bytes(d, &f, 'b', 10, 0), 10);
    ck_assert_int_eq(io->sync(io, &f), 0); /* the content, not the name */
    io->close(io, &f);
    ck_assert_int_eq(io->rename(io, "tmp", "new"), 0);
    ck_assert_int_eq(io->unlink(io, "old"), 0);
    for (uint64_t seed = 0; seed < CUTS; seed++) {
        struct sim_disk *after = sim_disk_crash(d, SIM_CUT_RANDOM, seed);
        seen[exists(after, "tmp")][exists(after, "new")][exists(after, "old")] = true;
        sim_disk_destroy(after);
    }
    for (int i = 0; i < 8; i++) { /* anything, but never both names */
        ck_assert_int_eq(seen[i >> 2][i >> 1 & 1][i & 1], (i >> 1) != 3);
    }
    ck_assert_int_eq(io->sync_dir(io, "."), 0);
    struct sim_disk *after = sim_disk_crash(d, SIM_CUT_NOTHING, 0);
    char got[16];
    ck_assert_int_eq(content(after, "new", got, sizeof(got)), 10);
    ck_assert(!exists(after, "old") && !exists(after, "tmp"));
    sim_disk_destroy(after);
    sim_disk_destroy(d);
}
END_TEST

START_TEST(a_second_name_is_one_of_the_same_file) {
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    struct io_file f = durable_file(d, "one");
    char got[8];
    ck_assert_int_eq(io->mkdir(io, "sub"), 0);
    ck_assert_int_eq(io->link(io, "none", "sub/two"), -ENOENT);
    ck_assert_int_eq(io->link(io, "one", "none/two"), -ENOENT);
    ck_assert_int_eq(io->link(io, "one", "sub"), -EEXIST);
    ck_assert_int_eq(io->link(io, "one", "sub/two"), 0);
    ck_assert_int_eq(io->link(io, "one", "sub/two"), -EEXIST);
    ck_assert_int_eq(io->sync_dir(io, "."), 0);
    struct sim_disk *after = sim_disk_crash(d, SIM_CUT_NOTHING, 0);
    ck_assert(exists(after, "one") && !exists(after, "sub/two"));
    sim_disk_destroy(after);
    ck_assert_int_eq(io->sync_dir(io, "sub"), 0);
    ck_assert_int_eq(io->unlink(io, "one"), 0);
    ck_assert_int_eq(io->sync_dir(io, "."), 0);
    ck_assert_int_eq(write_bytes(d, &f, 'b', 1, 0), 1);
    ck_assert_int_eq(io->sync(io, &f), 0);
    io->close(io, &f);
    after = sim_disk_crash(d, SIM_CUT_NOTHING, 0);
    ck_assert_int_eq(content(after, "sub/two", got, 3), 2);
    ck_assert_str_eq(got, "ba");
    ck_assert(!exists(after, "one"));
    sim_disk_destroy(after);
    sim_disk_destroy(d);
}
END_TEST

START_TEST(a_directory_has_its_new_name_when_the_one_around_it_is_synced) {
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    bool seen[2] = {false};
    ck_assert_int_eq(io->mkdir(io, "work"), 0);
    ck_assert_int_eq(io->mkdir(io, "taken"), 0);
    struct io_file f = open_file(d, "taken/y", IO_CREATE);
    io->close(io, &f);
    f = open_file(d, "work/x", IO_CREATE);
    io->close(io, &f);
    ck_assert_int_eq(io->sync_dir(io, "taken"), 0);
    ck_assert_int_eq(io->rename(io, "work", "taken"), -ENOTEMPTY);
    ck_assert_int_eq(io->unlink(io, "taken/y"), 0);
    ck_assert_int_eq(io->sync_dir(io, "taken"), 0);
    ck_assert_int_eq(io->sync_dir(io, "work"), 0);
    ck_assert_int_eq(io->rename(io, "work", "taken"), 0); /* an empty one gives way */
    ck_assert(exists(d, "taken/x") && !exists(d, "work/x"));
    ck_assert_int_eq(io->list(io, "work", note_name, NULL), -ENOENT);
    for (uint64_t seed = 0; seed < CUTS; seed++) {
        struct sim_disk *after = sim_disk_crash(d, SIM_CUT_RANDOM, seed);
        bool moved = exists(after, "taken/x");
        ck_assert(moved != exists(after, "work/x"));
        seen[moved] = true;
        sim_disk_destroy(after);
    }
    ck_assert(seen[0] && seen[1]);
    ck_assert_int_eq(io->sync_dir(io, "."), 0);
    struct sim_disk *after = sim_disk_crash(d, SIM_CUT_NOTHING, 0);
    ck_assert(exists(after, "taken/x") && !exists(after, "work/x"));
    sim_disk_destroy(after);
    sim_disk_destroy(d);
}
END_TEST

START_TEST(a_directory_that_was_removed_may_be_made_again) {
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    ck_assert_int_eq(io->mkdir(io, "sub"), 0);
    struct io_file f = open_file(d, "sub/x", IO_CREATE);
    io->close(io, &f);
    ck_assert_int_eq(io->rmdir(io, "none"), -ENOENT);
    ck_assert_int_eq(io->rmdir(io, "sub"), -ENOTEMPTY);
    ck_assert_int_eq(io->unlink(io, "sub/x"), 0);
    ck_assert_int_eq(io->rmdir(io, "sub"), 0);
    struct sim_disk *after = sim_disk_crash(d, SIM_CUT_NOTHING, 0);
    char names[16] = "";
    ck_assert_int_eq(sim_disk_io(after)->list(sim_disk_io(after), ".", note_name, names), 0);
    ck_assert_str_eq(names, "sub;");
    sim_disk_destroy(after);
    ck_assert_int_eq(io->mkdir(io, "sub"), 0);
    f = open_file(d, "sub/y", IO_CREATE);
    io->close(io, &f);
    ck_assert_int_eq(io->sync_dir(io, "sub"), 0);
    ck_assert_int_eq(io->sync_dir(io, "."), 0);
    after = sim_disk_crash(d, SIM_CUT_NOTHING, 0);
    ck_assert(exists(after, "sub/y") && !exists(after, "sub/x"));
    sim_disk_destroy(after);
    sim_disk_destroy(d);
}
END_TEST

START_TEST(calls_fail_where_they_are_told_to) {
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    struct io_file f = durable_file(d, "f");
    char got[16];
    sim_disk_fail(d, SIM_WRITE, 2, 2, ENOSPC);
    ck_assert_int_eq(write_bytes(d, &f, 'b', 1, 0), 1);
    ck_assert_int_eq(write_bytes(d, &f, 'c', 1, 1), -ENOSPC);
    ck_assert_int_eq(write_bytes(d, &f, 'c', 1, 1), -ENOSPC);
    ck_assert_int_eq(write_bytes(d, &f, 'd', 1, 2), 1);
    ck_assert_int_eq(content(d, "f", got, 5), 4);
    ck_assert_str_eq(got, "bada");
    sim_disk_fail(d, SIM_OPEN, 1, UINT64_MAX, EIO);
    for (int i = 0; i < 10; i++) {
        ck_assert_int_eq(content(d, "f", got, 5), -EIO);
    }
    sim_disk_fail(d, SIM_OPEN, 0, 0, 0);
    ck_assert_int_eq(content(d, "f", got, 5), 4);
    sim_disk_fail(d, SIM_RENAME, 1, 1, EROFS);
    ck_assert_int_eq(io->rename(io, "f", "g"), -EROFS);
    ck_assert_int_eq(io->rename(io, "f", "g"), 0);
    sim_disk_fail(d, SIM_MAP, 1, 1, ENOMEM);
    ck_assert_ptr_null(io->map(io, &f, 10));
    ck_assert_uint_eq(sim_disk_calls(d, SIM_MAP), 1);
    io->close(io, &f);
    sim_disk_destroy(d);
}
END_TEST

/* As Linux: what a failed sync didn't write is forgotten, and the next sync succeeds. */
START_TEST(a_failed_sync_forgets) {
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    struct io_file f = durable_file(d, "f");
    char sectors[5];
    ck_assert_int_eq(write_bytes(d, &f, 'b', 512, 0), 512);
    sim_disk_fail(d, SIM_SYNC, 1, 1, EIO);
    ck_assert_int_eq(io->sync(io, &f), -EIO);
    ck_assert_int_eq(write_bytes(d, &f, 'c', 512, 512), 512);
    ck_assert_int_eq(io->sync(io, &f), 0);
    sectors_of(d, sectors);
    ck_assert_str_eq(sectors, "bcaa"); /* readers see it still */
    expect_after(d, SIM_CUT_ALL, "acaa");
    io->close(io, &f);
    sim_disk_destroy(d);
}
END_TEST

START_TEST(a_full_disk_takes_what_fits) {
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    struct io_file f = durable_file(d, "f");
    struct io_file g = open_file(d, "g", IO_CREATE);
    sim_disk_set_capacity(d, 2048 + 1000);
    ck_assert_int_eq(write_bytes(d, &g, 'b', 600, 0), 600);
    ck_assert_int_eq(write_bytes(d, &g, 'b', 600, 600), -ENOSPC);
    ck_assert_int_eq(io->size(io, &g), 1000);
    ck_assert_uint_eq(sim_disk_used(d), 3048);
    ck_assert_int_eq(write_bytes(d, &f, 'b', 2048, 0), 2048); /* over what is there */
    ck_assert_int_eq(io->allocate(io, &g, 1001), -ENOSPC);
    ck_assert_int_eq(io->size(io, &g), 1000);
    ck_assert_int_eq(io->unlink(io, "f"), 0);
    ck_assert_int_eq(io->allocate(io, &g, 3048), 0);
    ck_assert_int_eq(write_bytes(d, &g, 'b', 1, 3048), -ENOSPC);
    sim_disk_set_capacity(d, UINT64_MAX);
    ck_assert_int_eq(write_bytes(d, &g, 'b', 1, 3048), 1);
    io->close(io, &f);
    io->close(io, &g);
    sim_disk_destroy(d);
}
END_TEST

START_TEST(a_stopped_disk_stays_as_it_was) {
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    struct io_file f = durable_file(d, "f");
    struct io_file g;
    char got[4096];
    ck_assert_uint_eq(sim_disk_changes(d), 4); /* create, write, sync, sync_dir */
    sim_disk_stop_after(d, 1);
    ck_assert_int_eq(write_bytes(d, &f, 'b', 512, 0), 512);
    ck_assert_int_eq(write_bytes(d, &f, 'c', 512, 512), -EIO);
    ck_assert_int_eq(io->sync(io, &f), -EIO);
    ck_assert_int_eq(io->unlink(io, "f"), -EIO);
    ck_assert_int_eq(io->open(io, "g", IO_CREATE, &g), -EIO);
    ck_assert_uint_eq(sim_disk_unsynced(d), 1); /* the sync forgot nothing */
    struct sim_disk *after = sim_disk_crash(d, SIM_CUT_ALL, 0);
    ck_assert_int_eq(content(after, "f", got, sizeof(got)), 2048);
    ck_assert_uint_eq(strspn(got, "b"), 512);
    ck_assert_uint_eq(strspn(got + 512, "a"), 1536);
    sim_disk_destroy(after);
    sim_disk_stop_after(d, 0);
    ck_assert_int_eq(io->sync(io, &f), 0);
    io->close(io, &f);
    sim_disk_destroy(d);
}
END_TEST

START_TEST(the_trace_tells_the_order_of_calls) {
    struct sim_disk *d = sim_disk_create();
    const struct io *io = sim_disk_io(d);
    struct io_file f;
    ck_assert_int_eq(io->mkdir(io, "data"), 0);
    f = open_file(d, "data/new.tmp", IO_CREATE);
    ck_assert_int_eq(io->allocate(io, &f, 8192), 0);
    ck_assert_int_eq(write_bytes(d, &f, 'x', 160, 4096), 160);
    sim_disk_fail(d, SIM_SYNC, 1, 1, EIO);
    ck_assert_int_eq(io->sync(io, &f), -EIO);
    ck_assert_int_eq(io->sync(io, &f), 0);
    ck_assert_int_eq(io->truncate(io, &f, 100), 0);
    io->close(io, &f);
    ck_assert_int_eq(io->rename(io, "data/new.tmp", "data/new"), 0);
    ck_assert_int_eq(io->sync_dir(io, "data"), 0);
    ck_assert_int_eq(io->unlink(io, "data/new"), 0);
    char *trace = sim_disk_take_trace(d);
    ck_assert_str_eq(trace, "create new.tmp\n"
                            "allocate new.tmp 8192\n"
                            "write new.tmp 4096+160\n"
                            "sync new.tmp -> EIO\n"
                            "sync new.tmp\n"
                            "truncate new.tmp 100\n"
                            "rename new.tmp new\n"
                            "sync_dir data\n"
                            "unlink new\n");
    mem_free(trace);
    trace = sim_disk_take_trace(d);
    ck_assert_str_eq(trace, "");
    mem_free(trace);
    sim_disk_destroy(d);
}
END_TEST

/* --- threads ----------------------------------------------------------------------------------------- */

struct hanging {
    struct sim_disk *disk;
    struct io_file file;
    sem_t began;
    sem_t may_go;
};

static void hang_in_sync(void *arg, enum sim_call kind, const char *path) {
    struct hanging *h = arg;
    if (kind == SIM_SYNC) {
        expect(strcmp(path, "f") == 0);
        sem_post(&h->began);
        sem_wait(&h->may_go);
    }
}

static void *run_sync(void *arg) {
    struct hanging *h = arg;
    const struct io *io = sim_disk_io(h->disk);
    expect_eq(io->sync(io, &h->file), 0);
    return NULL;
}

/* Others go on while a call hangs; what they write isn't covered by a sync that was called before. */
START_TEST(a_sync_covers_what_was_written_before_it) {
    struct hanging h = {.disk = sim_disk_create()};
    const struct io *io = sim_disk_io(h.disk);
    char got[4096];
    pthread_t thread;
    sem_init(&h.began, 0, 0);
    sem_init(&h.may_go, 0, 0);
    h.file = durable_file(h.disk, "f");
    ck_assert_int_eq(write_bytes(h.disk, &h.file, 'b', 512, 0), 512);
    sim_disk_set_hook(h.disk, hang_in_sync, &h);
    ck_assert_int_eq(pthread_create(&thread, NULL, run_sync, &h), 0);
    sem_wait(&h.began);
    ck_assert_int_eq(write_bytes(h.disk, &h.file, 'c', 512, 512), 512);
    ck_assert_int_eq(content(h.disk, "f", got, sizeof(got)), 2048);
    sem_post(&h.may_go);
    pthread_join(thread, NULL);
    sim_disk_set_hook(h.disk, NULL, NULL);
    struct sim_disk *after = sim_disk_crash(h.disk, SIM_CUT_NOTHING, 0);
    ck_assert_int_eq(content(after, "f", got, sizeof(got)), 2048);
    ck_assert_uint_eq(strspn(got, "b"), 512);
    ck_assert_uint_eq(strspn(got + 512, "a"), 1536);
    sim_disk_destroy(after);
    io->close(io, &h.file);
    sem_destroy(&h.began);
    sem_destroy(&h.may_go);
    sim_disk_destroy(h.disk);
}
END_TEST

static void *use_files(void *arg) {
    struct sim_disk *d = arg;
    const struct io *io = sim_disk_io(d);
    for (int i = 0; i < 200; i++) {
        char path[32];
        struct io_file f;
        snprintf(path, sizeof(path), "%p-%d", (void *)&f, i);
        expect(io->open(io, path, IO_CREATE, &f) == 0);
        expect(write_bytes(d, &f, 'x', 700, 100) == 700);
        expect(io->sync(io, &f) == 0);
        expect(io->size(io, &f) == 800);
        io->close(io, &f);
        expect(io->sync_dir(io, ".") == 0);
        expect(io->unlink(io, path) == 0);
        sim_disk_destroy(i % 20 == 0 ? sim_disk_crash(d, SIM_CUT_RANDOM, (uint64_t)i) : NULL);
    }
    return NULL;
}

START_TEST(threads_may_share_a_disk) {
    struct sim_disk *d = sim_disk_create();
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, use_files, d), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    ck_assert_uint_eq(sim_disk_calls(d, SIM_SYNC), 800);
    ck_assert_uint_eq(sim_disk_used(d), 0);
    sim_disk_destroy(d);
}
END_TEST

CHECK_MAIN("sim_disk", what_is_written_is_read, directories_have_their_names,
           a_sync_makes_durable_and_nothing_less_does, sectors_survive_one_by_one,
           a_sector_is_one_of_its_versions, a_length_may_be_lost_with_what_stands_behind_it,
           names_are_durable_with_their_directory, a_second_name_is_one_of_the_same_file,
           a_directory_has_its_new_name_when_the_one_around_it_is_synced,
           a_directory_that_was_removed_may_be_made_again, calls_fail_where_they_are_told_to,
           a_failed_sync_forgets, a_full_disk_takes_what_fits, a_stopped_disk_stays_as_it_was,
           the_trace_tells_the_order_of_calls, a_sync_covers_what_was_written_before_it,
           threads_may_share_a_disk)
