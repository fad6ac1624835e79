/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/crash/power_meta.h"

#include "persist/meta_priv.h"
#include "server/base/assert.h"
#include "server/base/mem.h"
#include "tests/support/temp_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define META_FILE_PATH "data/meta/data.mdb"

struct copy {
    char *bytes;
    size_t len;
};

static struct {
    struct copy *list; /* in the order of the commits */
    size_t count, cap;
    size_t sure; /* the one that was the newest when the power was cut */
    bool ignore;
    power_cut_fn is_cut;
    void *arg;
} copies;

void power_meta_forget(void) {
    for (size_t i = 0; i < copies.count; i++) {
        mem_free(copies.list[i].bytes);
    }
    copies.count = copies.sure = 0;
}

void power_meta_begin(power_cut_fn is_cut, void *arg) {
    copies.is_cut = is_cut;
    copies.arg = arg;
    power_meta_put(&(struct power_meta){.bytes = NULL});
}

void power_meta_end(void) {
    power_meta_forget();
    mem_free(copies.list);
    memset(&copies, 0, sizeof(copies));
}

void power_meta_ignore(bool ignore) {
    copies.ignore = ignore;
}

static struct copy read_copy(void) {
    struct stat st;
    int fd = open(META_FILE_PATH, O_RDONLY | O_CLOEXEC);
    dc_assert(fd >= 0 && fstat(fd, &st) == 0);
    struct copy c = {mem_must_alloc((size_t)st.st_size), (size_t)st.st_size};
    ssize_t got = read(fd, c.bytes, c.len);
    dc_assert(got == (ssize_t)c.len);
    close(fd);
    return c;
}

static void add_copy(void) {
    if (copies.count == copies.cap) {
        copies.cap = copies.cap == 0 ? 64 : 2 * copies.cap;
        copies.list = mem_must_realloc(copies.list, copies.cap * sizeof(*copies.list));
    }
    copies.list[copies.count++] = read_copy();
}

void power_meta_settle(void) {
    add_copy();
    copies.sure = copies.count - 1;
}

/* Every transaction of metadata that are open (the linker's --wrap). */
enum dc_err __real_meta_run(struct meta *m, bool write, const char *doing, meta_txn_fn fn,
                            void *arg);
enum dc_err __wrap_meta_run(struct meta *m, bool write, const char *doing, meta_txn_fn fn,
                            void *arg);

enum dc_err __wrap_meta_run(struct meta *m, bool write, const char *doing, meta_txn_fn fn,
                            void *arg) {
    enum dc_err err = __real_meta_run(m, write, doing, fn, arg);
    if (write && err == DC_OK && copies.is_cut != NULL && !copies.ignore) {
        bool late = copies.is_cut(copies.arg);
        add_copy();
        copies.sure = late ? copies.sure : copies.count - 1;
    }
    return err;
}

struct power_meta power_meta_draw(struct rng *r) {
    struct power_meta left = {.keeps_lock = rng_below(r, 2) == 0};
    size_t newest = copies.count - 1;
    uint64_t fate = rng_below(r, 8);
    dc_assert(copies.count > 0 && copies.sure <= newest);
    size_t chosen = fate == 0 ? rng_below(r, copies.count) /* an operator had a copy */
                              : copies.sure + rng_below(r, newest - copies.sure + 1);
    if (fate == 1) {
        return left;
    }
    left.bytes = copies.list[chosen].bytes;
    left.len = copies.list[chosen].len;
    left.newest = chosen == newest && fate > 3;
    if (fate == 2) {
        left.len = rng_below(r, left.len);
    }
    if (fate == 3) {
        left.flip_at = rng_below(r, left.len);
        left.flip = (unsigned char)(1u << rng_below(r, 8));
    }
    return left;
}

static void put_bytes(const struct power_meta *left) {
    int fd = open(META_FILE_PATH, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    dc_assert(fd >= 0);
    ssize_t put = write(fd, left->bytes, left->len);
    dc_assert(put == (ssize_t)left->len);
    if (left->flip != 0) {
        unsigned char c = (unsigned char)left->bytes[left->flip_at] ^ left->flip;
        put = pwrite(fd, &c, 1, (off_t)left->flip_at);
        dc_assert(put == 1);
    }
    close(fd);
}

static void make_dir(const char *path) {
    int rc = mkdir(path, 0755);
    dc_assert(rc == 0 || errno == EEXIST);
}

void power_meta_put(const struct power_meta *left) {
    if ((left->bytes == NULL || !left->keeps_lock) && access("data", F_OK) == 0) {
        temp_dir_remove("data");
    }
    make_dir("data");
    if (left->bytes != NULL) {
        make_dir("data/meta");
        put_bytes(left);
    }
}
