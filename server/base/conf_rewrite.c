/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * CONFIG REWRITE and --print-config: options as the lines of a file.
 *
 * A rewrite compares what the file says (read into defaults, as at a start) with what holds now. The lines of an
 * option that agrees stay as they are. Of one that differs the first line gets the new value and the others go; what
 * the file doesn't mention is added at the end. The new file takes the old one's place by rename, so a crash leaves one
 * of the two whole.
 */
#include "server/base/conf_priv.h"

#include "server/base/assert.h"
#include "server/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* 268435456 reads better as 256mb. */
static void append_size(struct buf *out, int64_t value) {
    static const char *const units[] = {"", "kb", "mb", "gb"};
    int unit = 0;
    while (unit < 3 && value != 0 && value % 1024 == 0) {
        value /= 1024;
        unit++;
    }
    buf_printf(out, "%" PRId64 "%s", value, units[unit]);
}

void conf_format_line(const struct conf *c, enum conf_id id, struct buf *out) {
    const struct conf_row *row = &conf_rows[id];
    buf_printf(out, "%s ", row->name);
    if (row->kind == CONF_KIND_SIZE) {
        append_size(out, atomic_load_explicit(&c->numbers[id], memory_order_relaxed));
        return;
    }
    struct buf value;
    buf_init(&value, 0);
    conf_format(c, id, &value);
    conf_quote(out, buf_bytes(&value), row->flags & WORDS);
    out->failed |= value.failed;
    buf_fini(&value);
}

/* --- --print-config --- */

static void print_option(struct buf *out, const struct conf *defaults, enum conf_id id) {
    const struct conf_row *row = &conf_rows[id];
    buf_printf(out, "\n# %s\n", row->help);
    if (row->kind == CONF_KIND_ENUM) {
        buf_printf(out, "# One of %s.\n", row->text);
    }
    if (row->flags & UNSET) {
        buf_append_str(out, "# ");
    }
    conf_format_line(defaults, id, out);
    buf_append_str(out, "\n");
}

void conf_print(struct buf *out) {
    struct conf defaults;
    conf_init(&defaults);
    buf_append_str(
        out, "# Every option at its default. dcache-server --print-config prints this file.\n"
             "# A line is a name and a value; sizes take k, kb, m, mb, g, gb; a value with blanks\n"
             "# stands in quotes. The same options go on the command line: --name value.\n");
#define CONF_SECTION(title)           buf_append_str(out, "\n# --- " title " ---\n");
#define CONF_INT(name, field, ...)    print_option(out, &defaults, CONF_ID_##field);
#define CONF_SIZE(name, field, ...)   print_option(out, &defaults, CONF_ID_##field);
#define CONF_BOOL(name, field, ...)   print_option(out, &defaults, CONF_ID_##field);
#define CONF_ENUM(name, field, ...)   print_option(out, &defaults, CONF_ID_##field);
#define CONF_TEXT(name, field, ...)   print_option(out, &defaults, CONF_ID_##field);
#define CONF_COMPAT(name, field, def) buf_append_str(out, "# " name "\n");
#include "server/base/conf.def"
    conf_fini(&defaults);
}

/* --- CONFIG REWRITE --- */

static void append_line(struct buf *out, const struct conf *c, enum conf_id id) {
    conf_format_line(c, id, out);
    buf_append_str(out, "\n");
}

void conf_write(struct conf *c, struct buf *out) {
    struct conf defaults;
    conf_init(&defaults);
    lock_acquire(&c->lock);
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        if (!conf_same(c, &defaults, (enum conf_id)id)) {
            append_line(out, c, (enum conf_id)id);
        }
    }
    lock_release(&c->lock);
    conf_fini(&defaults);
}

/* What the file 'text' becomes when it is to say what 'now' holds. */
static enum dc_err rewrite_text(struct bytes text, const struct conf *now, struct buf *out) {
    struct conf old;
    conf_init(&old);
    enum dc_err err = conf_read_text(&old, text, now->file);
    struct conf_line line = {0};
    bool written[CONF_COUNT] = {false};
    while (err == DC_OK && text.len > 0) {
        const char *wrong = conf_next_line(&text, &line);
        dc_assert(wrong == NULL); /* it has just been read */
        enum conf_id id = line.count > 0 ? conf_find(line.words[0]) : CONF_COUNT;
        if (id == CONF_COUNT || conf_same(&old, now, id)) {
            buf_append_bytes(out, line.raw);
            buf_append_str(out, "\n");
        } else if (!written[id]) {
            append_line(out, now, id);
            written[id] = true;
        }
    }
    for (unsigned id = 0; err == DC_OK && id < CONF_COUNT; id++) {
        if (!written[id] && !conf_same(&old, now, (enum conf_id)id)) {
            append_line(out, now, (enum conf_id)id);
        }
    }
    mem_free(line.unquoted);
    conf_fini(&old);
    return err == DC_OK && out->failed ? DC_ENOMEM : err;
}

static bool write_all(int fd, struct bytes data) {
    while (data.len > 0) {
        ssize_t n = write(fd, data.ptr, data.len);
        if (n < 0 && errno != EINTR) {
            return false;
        }
        size_t taken = n > 0 ? (size_t)n : 0;
        data = bytes_of(data.ptr + taken, data.len - taken);
    }
    return true;
}

/* The rename itself is durable when the directory is. */
static bool sync_dir_of(const char *path) {
    char copy[PATH_MAX];
    snprintf(copy, sizeof(copy), "%s", path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return good;
}

static enum dc_err replace_file(const char *path, struct bytes data) {
    char temp[PATH_MAX];
    if (snprintf(temp, sizeof(temp), "%s.XXXXXX", path) >= (int)sizeof(temp)) {
        return dc_fail(DC_EIO, "Rewriting config file: %s", dc_errno_text(ENAMETOOLONG));
    }
    struct stat before;
    mode_t mode = stat(path, &before) == 0 ? before.st_mode & 07777 : 0644;
    int fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0) {
        return dc_fail(DC_EIO, "Rewriting config file: %s", dc_errno_text(errno));
    }
    bool good = write_all(fd, data) && fchmod(fd, mode) == 0 && fsync(fd) == 0;
    good = close(fd) == 0 && good;
    good = good && rename(temp, path) == 0 && sync_dir_of(path);
    if (!good) {
        enum dc_err err = dc_fail(DC_EIO, "Rewriting config file: %s", dc_errno_text(errno));
        unlink(temp);
        return err;
    }
    return DC_OK;
}

enum dc_err conf_rewrite(struct conf *c) {
    if (c->file == NULL) {
        return dc_fail(DC_ECONF, "The server is running without a config file");
    }
    struct conf now; /* so that nobody waits for the disk */
    lock_acquire(&c->lock);
    conf_draft_begin_locked(&now, c);
    lock_release(&c->lock);
    struct buf old, text;
    buf_init(&old, 0);
    buf_init(&text, 0);
    enum dc_err err = DC_OK;
    if (access(now.file, F_OK) == 0) { /* it may have gone since the start */
        err = conf_load(now.file, &old);
    }
    if (err == DC_OK) {
        err = rewrite_text(buf_bytes(&old), &now, &text);
    }
    if (err == DC_OK) {
        err = replace_file(now.file, buf_bytes(&text));
    }
    buf_fini(&text);
    buf_fini(&old);
    conf_fini(&now);
    return err;
}
