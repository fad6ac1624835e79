/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The order of calls of a backup. It is for the real file system only: files go through a table of functions in front of io_posix, and what the
 * table hasn't, or isn't asked for, is defined here in front of the C library's.
 */
#include "persist/backup.h"

#include "persist/data.h"
#include "server/base/mem.h"
#include "server/base/sum.h"
#include "tests/support/check_main.h"
#include "tests/support/data_case.h"
#include "tests/support/expect.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --- what is asked for, by this thread --------------------------------------------------------------- */

static _Thread_local bool notes;
static struct buf calls;
static const char *fails; /* the call that does, with EIO; NULL = none */
static bool links;        /* the file system has them */

static const char *base_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* Whether the call may be done. */
static bool note(const char *what, const char *name) {
    char line[256];
    snprintf(line, sizeof(line), "%s %s", what, name);
    if (notes) {
        buf_printf(&calls, "%s\n", line);
    }
    return !notes || fails == NULL || strcmp(line, fails) != 0;
}

static const char *name_of(int fd, char to[512]) {
    char link[64];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, to, 511);
    expect(len > 0);
    to[len] = '\0';
    return base_of(to);
}

static int failed(void) {
    errno = EIO;
    return -1;
}

int fsync(int fd) {
    char path[512];
    return note("sync_dir", name_of(fd, path)) ? (int)syscall(SYS_fsync, fd) : failed();
}

int rename(const char *from, const char *to) {
    return note("rename", base_of(from)) ? renameat(AT_FDCWD, from, AT_FDCWD, to) : failed();
}

int link(const char *from, const char *to) {
    if (!links) {
        errno = EXDEV;
        return -1;
    }
    return note("link", base_of(from)) ? linkat(AT_FDCWD, from, AT_FDCWD, to, 0) : failed();
}

static int noting_open(const struct io *io, const char *path, enum io_mode mode,
                       struct io_file *out) {
    bool goes = mode != IO_CREATE || note("create", base_of(path));
    return goes ? io_posix.open(io, path, mode, out) : -EIO;
}

static ssize_t noting_write_at(const struct io *io, struct io_file *f, const struct iovec *iov,
                               int count, uint64_t at) {
    char path[512];
    bool goes = note("write", name_of(f->fd, path));
    return goes ? io_posix.write_at(io, f, iov, count, at) : -EIO;
}

static int noting_sync(const struct io *io, struct io_file *f) {
    char path[512];
    return note("sync", name_of(f->fd, path)) ? io_posix.sync(io, f) : -EIO;
}

/* --- a node -------------------------------------------------------------------------------------------- */

static struct data_case c;
static struct data d;
static char parent[TEMP_DIR_MAX];
static char target[TEMP_DIR_MAX + 16], work[TEMP_DIR_MAX + 32];
static char first[SEGMENT_NAME_MAX], open_one[SEGMENT_NAME_MAX];

/* A snapshot with this value, a segment of what is behind it, and the one that is being written. */
static void begin_with(struct bytes value) {
    struct log_opts opts = {
        .keeps = true, .sync = LOG_SYNC_EVERYSEC, .segment_len = 1 << 20, .memory_limit = 1 << 20};
    buf_init(&calls, 0);
    fails = NULL;
    links = true;
    case_open(&c);
    must(hand_set(&c.hand, 0, BYTES("key"), value, EXPIRY_NONE));
    case_snapshot(&c);
    must(hand_set(&c.hand, 0, BYTES("later"), BYTES("value"), EXPIRY_NONE));
    case_write_log(&c, 0, log_file_end(&c.log));
    must(data_open(&d, &io_posix, c.dir));
    must(data_begin(&d, &opts));
    const struct history *last = histories_last(data_chain(&d));
    segment_name(c.log.first_lsn, c.log.chain[0].id, first);
    segment_name(last->start, last->id, open_one);
    temp_dir_make(parent);
    snprintf(target, sizeof(target), "%s/new", parent);
    snprintf(work, sizeof(work), "%s.incomplete", target);
}

static void begin(void) {
    begin_with(BYTES("value"));
}

static void end(void) {
    data_close(&d, true, 1000);
    temp_dir_remove(parent);
    case_close(&c);
    buf_fini(&calls);
}

static struct io noting_io(void) {
    struct io io = io_posix;
    io.open = noting_open;
    io.write_at = noting_write_at;
    io.sync = noting_sync;
    return io;
}

static enum dc_err back_up_by(const struct io *io, const _Atomic bool *stop,
                              struct backup_written *written) {
    struct backup_opts opts = {.io = io,
                               .dir = c.dir,
                               .target = target,
                               .log = d.log,
                               .node_id = d.plan->node_id,
                               .chain = data_chain(&d)->list,
                               .chain_count = data_chain(&d)->count,
                               .now_ms = engine_now(&c.engine),
                               .stop = stop};
    calls.len = 0;
    notes = true;
    enum dc_err err = backup_write(&opts, written);
    notes = false;
    buf_append(&calls, "", 1);
    return err;
}

static enum dc_err back_up(struct backup_written *written) {
    struct io io = noting_io();
    return back_up_by(&io, NULL, written);
}

/* --- the order ----------------------------------------------------------------------------------------- */

/* What it is made of is on the disk when the manifest is written, that and the names when it gets its own. */
static void expect_order(const char *closed) {
    char wanted[2048];
    snprintf(wanted, sizeof(wanted),
             "%s"
             "create %s\n"
             "write %s\n" /* the first page, with the mark */
             "write %s\n"
             "sync %s\n"
             "create backup.json\n"
             "write backup.json\n"
             "sync backup.json\n"
             "sync_dir new.incomplete\n"
             "rename new.incomplete\n"
             "sync_dir %s\n",
             closed, open_one, open_one, open_one, open_one, base_of(parent));
    ck_assert_str_eq(calls.ptr, wanted);
}

START_TEST(it_has_its_name_when_all_of_it_is_on_the_disk) {
    struct backup_written written;
    char closed[512];
    begin();
    must(back_up(&written));
    expect(written.files == 3 && written.linked == 2);
    snprintf(closed, sizeof(closed), "link %s\nsync %s\nlink %s\nwrite %s\nsync %s\n", c.snapshot,
             c.snapshot, first, first, first); /* the write: its mark, once more */
    expect_order(closed);
    end();
}
END_TEST

START_TEST(copies_are_synced_one_by_one) {
    struct backup_written written;
    char closed[1024];
    begin();
    links = false;
    must(back_up(&written));
    expect(written.files == 3 && written.linked == 0);
    snprintf(closed, sizeof(closed),
             "create %s\nwrite %s\nsync %s\ncreate %s\nwrite %s\nwrite %s\nsync %s\n", c.snapshot,
             c.snapshot, c.snapshot, first, first, first, first);
    expect_order(closed);
    end();
}
END_TEST

/* Any of these calls may fail: then there is no backup, and nothing is left of what was begun. Without the last one it is complete; only its name may
 * not survive a power cut. */
START_TEST(one_that_fails_never_had_its_name) {
    struct backup_written written;
    struct buf all;
    begin();
    links = false;
    must(back_up(&written));
    temp_dir_remove(target);
    buf_init(&all, 0);
    buf_append(&all, calls.ptr, calls.len);
    uint32_t count = 0;
    for (char *line = all.ptr, *next; *line != '\0'; line = next, count++) {
        next = strchr(line, '\n') + 1;
        next[-1] = '\0';
        bool is_last = *next == '\0';
        fails = line;
        expect_eq(back_up(&written), DC_EIO);
        (void)dc_fail_take(DC_EIO);
        expect(access(work, F_OK) != 0);
        expect_eq(access(target, F_OK) == 0, is_last);
        expect_eq(strstr(calls.ptr, "rename") != NULL, is_last || strncmp(line, "rename", 6) == 0);
    }
    expect_eq(count, 17);
    buf_fini(&all);
    end();
}
END_TEST

/* --- a stop -------------------------------------------------------------------------------------------- */

enum { GUARD_LEN = 64 * 1024 };

static struct guarded {
    char *from, *to;      /* what can't be read before somebody has touched it */
    uint64_t touched;     /* bytes of it */
    _Atomic bool stopped; /* since the first of them */
} guarded;

static const void *guarding_map(const struct io *io, struct io_file *f, uint64_t len) {
    const char *map = io_posix.map(io, f, len);
    if (guarded.from == NULL && map != NULL) {
        guarded.from = (char *)(uintptr_t)map;
        guarded.to = guarded.from + len;
        expect(mprotect(guarded.from, len, PROT_NONE) == 0);
    }
    return map;
}

static void let_in(int sig, siginfo_t *info, void *context) {
    char *at = info->si_addr;
    (void)context;
    if (at < guarded.from || at >= guarded.to) {
        signal(sig, SIG_DFL);
        return;
    }
    at -= (at - guarded.from) % GUARD_LEN;
    size_t len = guarded.to - at < GUARD_LEN ? (size_t)(guarded.to - at) : GUARD_LEN;
    mprotect(at, len, PROT_READ);
    guarded.touched += len;
    atomic_store(&guarded.stopped, true);
}

static char *noise(size_t len) {
    struct rng r = test_rng();
    char *bytes = mem_must_alloc(len);
    for (size_t i = 0; i < len; i++) {
        bytes[i] = (char)rng_below(&r, 256);
    }
    return bytes;
}

/* Of a snapshot of a hundred gigabytes the sum takes minutes. */
START_TEST(test_h35_a_stop_does_not_wait_for_the_sum_of_a_file) {
    struct sigaction catches = {.sa_sigaction = let_in, .sa_flags = SA_SIGINFO};
    struct sigaction before;
    struct backup_written written;
    struct io io = noting_io();
    size_t len = 3 * (size_t)SUM_PIECE_LEN;
    char *value = noise(len);
    io.map = guarding_map;
    begin_with(bytes_of(value, len));
    mem_free(value);
    expect(sigaction(SIGSEGV, &catches, &before) == 0);
    expect_eq(back_up_by(&io, &guarded.stopped, &written), DC_ESTOPPED);
    expect(sigaction(SIGSEGV, &before, NULL) == 0);
    expect(guarded.touched > 0 && guarded.touched <= SUM_PIECE_LEN);
    expect(access(work, F_OK) != 0 && access(target, F_OK) != 0);
    end();
}
END_TEST

CHECK_MAIN("backup", it_has_its_name_when_all_of_it_is_on_the_disk, copies_are_synced_one_by_one,
           one_that_fails_never_had_its_name, test_h35_a_stop_does_not_wait_for_the_sum_of_a_file)
