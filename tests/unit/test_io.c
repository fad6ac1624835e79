/* SPDX-License-Identifier: BSD-3-Clause */
/* The real files behind struct io, and the checksum of what is put into them. */
#include "server/base/io.h"
#include "server/base/mem.h"
#include "server/base/sum.h"
#include "server/base/thread.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"
#include "tests/support/temp_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char dir[TEMP_DIR_MAX]; /* every test has one of its own */
static const struct io *const io = &io_posix;

static const char *in_dir(const char *name) {
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
    return path;
}

static void begin(void) {
    temp_dir_make(dir);
}

static void end(void) {
    temp_dir_remove(dir);
}

static struct io_file open_file(const char *name, enum io_mode mode) {
    struct io_file f;
    int rc = io->open(io, in_dir(name), mode, &f);
    ck_assert_msg(rc == 0, "%s: %s", name, strerror(-rc));
    return f;
}

static ssize_t write_text(struct io_file *f, const char *text, uint64_t at) {
    char copy[256];
    snprintf(copy, sizeof(copy), "%s", text);
    struct iovec v = {copy, strlen(copy)};
    return io->write_at(io, f, &v, 1, at);
}

START_TEST(modes_are_kept) {
    begin();
    struct io_file f;
    ck_assert_int_eq(io->open(io, in_dir("a"), IO_READ, &f), -ENOENT);
    ck_assert_int_eq(io->open(io, in_dir("a"), IO_WRITE, &f), -ENOENT);
    f = open_file("a", IO_CREATE);
    ck_assert_int_eq(fcntl(f.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    ck_assert_int_eq(write_text(&f, "text", 0), 4);
    io->close(io, &f);
    ck_assert_int_eq(io->open(io, in_dir("a"), IO_CREATE, &f), -EEXIST);
    f = open_file("a", IO_READ);
    ck_assert_int_eq(write_text(&f, "no", 0), -EBADF);
    char got[8] = "";
    ck_assert_int_eq(io->read_at(io, &f, got, sizeof(got), 0), 4);
    ck_assert_str_eq(got, "text");
    io->close(io, &f);
    f = open_file("a", IO_WRITE);
    ck_assert_int_eq(write_text(&f, "s", 3), 1);
    ck_assert_int_eq(io->read_at(io, &f, got, 2, 2), 2);
    ck_assert_mem_eq(got, "xs", 2);
    io->close(io, &f);
    struct stat st;
    ck_assert_int_eq(stat(in_dir("a"), &st), 0);
    ck_assert_int_eq(st.st_mode & 07, 0); /* what users store isn't everybody's */
    end();
}
END_TEST

START_TEST(many_pieces_are_written_in_order) {
    begin();
    enum { PIECES = 3 * IOV_MAX + 7 };
    struct iovec *v = mem_must_zalloc(PIECES * sizeof(*v));
    char *text = mem_must_alloc(PIECES);
    size_t len = 0;
    for (int i = 0; i < PIECES; i++) {
        text[i] = (char)('a' + i % 26);
        v[i] = (struct iovec){text + i, i % 5 == 0 ? 0 : 1}; /* some are empty */
        len += v[i].iov_len;
    }
    struct io_file f = open_file("pieces", IO_CREATE);
    ck_assert_int_eq(io->write_at(io, &f, v, PIECES, 100), (ssize_t)len);
    ck_assert_int_eq(io->size(io, &f), (int64_t)(100 + len));
    char *got = mem_must_alloc(len + 100);
    ck_assert_int_eq(io->read_at(io, &f, got, len + 100, 100), (ssize_t)len);
    size_t at = 0;
    for (int i = 0; i < PIECES; i++) {
        expect(i % 5 == 0 || got[at++] == text[i]);
    }
    ck_assert_int_eq(io->write_at(io, &f, v, 0, 0), 0);
    ck_assert_int_eq(io->write_at(io, &f, v, 1, 0), 0); /* an empty piece alone */
    io->close(io, &f);
    mem_free(v);
    mem_free(text);
    mem_free(got);
    end();
}
END_TEST

/* The kernel writes up to the limit of file sizes, then refuses: a write in parts. */
START_TEST(a_write_in_parts_goes_on_or_says_why_not) {
    begin();
    struct rlimit old;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    struct rlimit limit = {1000, old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    struct io_file f = open_file("limited", IO_CREATE);
    char bytes[600];
    memset(bytes, 'x', sizeof(bytes));
    struct iovec v[2] = {{bytes, sizeof(bytes)}, {bytes, sizeof(bytes)}};
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_int_eq(io->write_at(io, &f, v, 2, 0), -EFBIG);
    ck_assert_int_eq(io->size(io, &f), 1000);
    ck_assert_int_eq(io->write_at(io, &f, v, 1, 400), 600);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
    ck_assert_int_eq(io->write_at(io, &f, v, 2, 0), 1200);
    io->close(io, &f);
    end();
}
END_TEST

START_TEST(reading_is_short_only_at_the_end) {
    begin();
    struct io_file f = open_file("short", IO_CREATE);
    char got[16];
    ck_assert_int_eq(io->read_at(io, &f, got, sizeof(got), 0), 0);
    write_text(&f, "0123456789", 0);
    ck_assert_int_eq(io->read_at(io, &f, got, sizeof(got), 4), 6);
    ck_assert_mem_eq(got, "456789", 6);
    ck_assert_int_eq(io->read_at(io, &f, got, sizeof(got), 10), 0);
    ck_assert_int_eq(io->read_at(io, &f, got, sizeof(got), 1000), 0);
    ck_assert_int_eq(io->read_at(io, &f, got, 0, 0), 0);
    io->close(io, &f);
    end();
}
END_TEST

START_TEST(allocated_room_reads_as_zeros_and_keeps_what_was_there) {
    begin();
    struct io_file f = open_file("room", IO_CREATE);
    char got[8];
    write_text(&f, "kept", 0);
    ck_assert_int_eq(io->allocate(io, &f, 1000000), 0);
    ck_assert_int_eq(io->size(io, &f), 1000000);
    ck_assert_int_eq(io->allocate(io, &f, 10), 0); /* never smaller */
    ck_assert_int_eq(io->allocate(io, &f, 0), 0);
    ck_assert_int_eq(io->size(io, &f), 1000000);
    struct stat st;
    ck_assert_int_eq(fstat(f.fd, &st), 0);
    ck_assert_int_ge(st.st_blocks * 512, 1000000);
    ck_assert_int_eq(io->read_at(io, &f, got, 8, 0), 8);
    ck_assert_mem_eq(got, "kept\0\0\0\0", 8);
    ck_assert_int_eq(io->read_at(io, &f, got, 8, 999996), 4);
    ck_assert_int_eq(io->sync(io, &f), 0);
    ck_assert_int_eq(io->truncate(io, &f, 2), 0);
    ck_assert_int_eq(io->size(io, &f), 2);
    ck_assert_int_eq(io->truncate(io, &f, 6), 0);
    ck_assert_int_eq(io->read_at(io, &f, got, 8, 0), 6);
    ck_assert_mem_eq(got, "ke\0\0\0\0", 6);
    io->close(io, &f);
    end();
}
END_TEST

START_TEST(what_was_never_written_is_told_from_what_was) {
    enum { ROOM = 8 * 1024 * 1024, AT = 1024 * 1024, TEXT_LEN = 5 };
    begin();
    struct io_file f = open_file("room", IO_CREATE);
    ck_assert_int_eq(io->allocate(io, &f, ROOM), 0);
    expect(io->data_end(io, &f, 0, ROOM) <= ROOM);
    ck_assert_int_eq(write_text(&f, "hello", AT), TEXT_LEN);
    /* As exactly as the file system knows; never too little. */
    uint64_t known = io->data_end(io, &f, 0, ROOM);
    expect(known >= AT + TEXT_LEN && known <= ROOM);
    expect(io->data_end(io, &f, AT + 2, ROOM) == known);
    expect_eq(io->data_end(io, &f, 0, AT + 2), AT + 2);
    expect_eq(io->data_end(io, &f, ROOM, ROOM), ROOM);
    expect_eq(io->data_end(io, &f, known, ROOM), known);
    io->close(io, &f);
    end();
}
END_TEST

static void note_name(void *arg, const char *name) {
    char *all = arg;
    size_t len = strlen(all);
    snprintf(all + len, 256 - len, "%s;", name);
}

START_TEST(names_come_and_go) {
    begin();
    char names[256] = "";
    struct io_file f = open_file("one", IO_CREATE);
    io->close(io, &f);
    ck_assert_int_eq(io->rename(io, in_dir("one"), in_dir("two")), 0);
    ck_assert_int_eq(io->rename(io, in_dir("one"), in_dir("two")), -ENOENT);
    ck_assert_int_eq(io->list(io, dir, note_name, names), 0);
    ck_assert_str_eq(names, "two;");
    ck_assert_int_eq(io->sync_dir(io, dir), 0);
    ck_assert_int_eq(io->sync_dir(io, in_dir("none")), -ENOENT);
    ck_assert_int_eq(io->list(io, in_dir("none"), note_name, names), -ENOENT);
    ck_assert_int_eq(io->unlink(io, in_dir("two")), 0);
    ck_assert_int_eq(io->unlink(io, in_dir("two")), -ENOENT);
    ck_assert_int_eq(io->mkdir(io, in_dir("sub")), 0);
    ck_assert_int_eq(io->mkdir(io, in_dir("sub")), 0);
    f = open_file("file", IO_CREATE);
    io->close(io, &f);
    ck_assert_int_eq(io->mkdir(io, in_dir("file")), -EEXIST);
    ck_assert_int_eq(io->mkdir(io, in_dir("none/sub")), -ENOENT);
    end();
}
END_TEST

START_TEST(a_map_shows_what_is_written_later) {
    begin();
    struct io_file f = open_file("map", IO_CREATE);
    ck_assert_int_eq(io->allocate(io, &f, 8192), 0);
    const char *map = io->map(io, &f, 8192);
    ck_assert_ptr_nonnull(map);
    ck_assert_int_eq(map[5000], 0);
    write_text(&f, "later", 5000);
    ck_assert_mem_eq(map + 5000, "later", 6);
    io->close(io, &f);
    ck_assert_mem_eq(map + 5000, "later", 6); /* it outlives the file */
    io->unmap(io, map, 8192);
    struct io_file no_file = {.fd = -1};
    ck_assert_ptr_null(io->map(io, &no_file, 8192));
    end();
}
END_TEST

/* Behind the end of a file that was cut, and where the disk fails, the kernel sends SIGBUS. */
START_TEST(pages_that_cannot_be_read_show_zeros_and_are_told) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    begin();
    struct io_file f = open_file("map", IO_CREATE);
    ck_assert_int_eq(io->allocate(io, &f, 4 * page), 0);
    write_text(&f, "first", 100);
    write_text(&f, "third", 2 * page + 5);
    io_catch_faults();
    const char *other = io->map(io, &f, page);
    const char *map = io->map(io, &f, 4 * page);
    ck_assert(!io->lost(io, map, 4 * page));
    ck_assert_int_eq(io->truncate(io, &f, page), 0);
    ck_assert_mem_eq(map + 100, "first", 6);
    ck_assert(!io->lost(io, map, 4 * page)); /* nobody has looked */
    ck_assert_mem_eq(map + 2 * page + 5, "\0\0\0\0\0", 5);
    ck_assert(io->lost(io, map, 4 * page));
    ck_assert(io->lost(io, map + 2 * page, 1));
    ck_assert(io->lost(io, map + 3 * page - 1, 10));
    ck_assert(!io->lost(io, map, 2 * page));
    ck_assert(!io->lost(io, map + 3 * page, page));
    ck_assert_int_eq(map[4 * page - 1], 0);
    ck_assert(io->lost(io, map + 3 * page, page));
    ck_assert(!io->lost(io, other, page));
    io->unmap(io, map, 4 * page);
    ck_assert_int_eq(io->truncate(io, &f, 4 * page), 0);
    map = io->map(io, &f, 4 * page); /* anew */
    ck_assert_int_eq(map[2 * page], 0);
    ck_assert(!io->lost(io, map, 4 * page));
    io->unmap(io, map, 4 * page);
    io->unmap(io, other, page);
    io->close(io, &f);
    end();
}
END_TEST

static void look(void *arg) {
    const char *const *at = arg;
    ck_assert_int_eq(**at, 0);
}

/* In any thread of the node: those that load and scan look, too. */
START_TEST(pages_that_cannot_be_read_end_no_thread) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct thread thread;
    begin();
    struct io_file f = open_file("map", IO_CREATE);
    ck_assert_int_eq(io->allocate(io, &f, 4 * page), 0);
    io_catch_faults();
    const char *map = io->map(io, &f, 4 * page);
    const char *at = map + 3 * page;
    ck_assert_int_eq(io->truncate(io, &f, page), 0);
    thread_start(&thread, "looks", look, (void *)(uintptr_t)&at);
    thread_join(&thread);
    ck_assert(io->lost(io, map, 4 * page));
    io->unmap(io, map, 4 * page);
    io->close(io, &f);
    end();
}
END_TEST

START_TEST(a_fault_elsewhere_ends_the_process_as_ever) {
    begin();
    struct io_file f = open_file("map", IO_CREATE);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        const char *map = mmap(NULL, 8192, PROT_READ, MAP_SHARED, f.fd, 0); /* not one of ours */
        io_catch_faults();
        alarm(10);
        _exit(map[0]);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    io->close(io, &f);
    end();
}
END_TEST

/* The sums stand in files: they may never change. */
START_TEST(sums_are_those_of_xxh3) {
    ck_assert_uint_eq(sum64("", 0, 0), 0x2d06800538d394c2);
    ck_assert_uint_eq(sum64("a", 1, 0), 0xe6c632b61e964e1f);
    ck_assert_uint_eq(sum64("abc", 3, 0), 0x78af5f94892f3950);
    ck_assert_uint_ne(sum64("abc", 3, 1), sum64("abc", 3, 2));
    ck_assert_uint_ne(sum_seed(1, 2), sum_seed(2, 1));
    ck_assert_uint_eq(sum_seed(1, 2), sum64("\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0", 16, 0));
}
END_TEST

START_TEST(the_sum_of_what_is_long_is_the_same_or_stopped) {
    static const size_t lens[] = {
        0, 1, 240, 241, SUM_PIECE_LEN - 1, SUM_PIECE_LEN, SUM_PIECE_LEN + 1, 2 * SUM_PIECE_LEN + 7};
    static char bytes[2 * SUM_PIECE_LEN + 7];
    _Atomic bool stop = false;
    struct rng r = test_rng();
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (char)rng_below(&r, 256);
    }
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        for (uint64_t seed = 0; seed < 3; seed++) {
            uint64_t sum = 0;
            ck_assert(sum64_long(bytes, lens[i], seed, i % 2 == 0 ? &stop : NULL, &sum));
            ck_assert_uint_eq(sum, sum64(bytes, lens[i], seed));
        }
    }
    uint64_t sum = 0;
    atomic_store(&stop, true);
    ck_assert(!sum64_long(bytes, 1, 0, &stop, &sum));
}
END_TEST

CHECK_MAIN("io", modes_are_kept, many_pieces_are_written_in_order,
           a_write_in_parts_goes_on_or_says_why_not, reading_is_short_only_at_the_end,
           allocated_room_reads_as_zeros_and_keeps_what_was_there,
           what_was_never_written_is_told_from_what_was, names_come_and_go,
           a_map_shows_what_is_written_later, pages_that_cannot_be_read_end_no_thread,
           pages_that_cannot_be_read_show_zeros_and_are_told,
           a_fault_elsewhere_ends_the_process_as_ever, sums_are_those_of_xxh3,
           the_sum_of_what_is_long_is_the_same_or_stopped)
