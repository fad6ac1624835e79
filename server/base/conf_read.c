/* SPDX-License-Identifier: BSD-3-Clause */
/* Options from files and from the command line. */
#include "server/base/conf_priv.h"
#include "server/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Where an option stands: "FILE:LINE: ", or in front of an option of the command line nothing but two dashes. */
struct origin {
    const char *file; /* NULL = the command line */
    int line;
    bool has_save; /* it gave a rule of 'save': the next one is added */
    char text[256];
};

static const char *origin_text(struct origin *o) {
    if (o->file == NULL) {
        return "command line: --";
    }
    snprintf(o->text, sizeof(o->text), "%s:%d: ", o->file, o->line);
    return o->text;
}

static int shown(struct bytes s) {
    return (int)(s.len < 80 ? s.len : 80);
}

static enum dc_err fail_value(struct origin *o, const struct conf_row *row, struct bytes value,
                              const char *why) {
    if (row->flags & HIDDEN) {
        return dc_fail(DC_ECONF, "%s%s: %s", origin_text(o), row->name, why);
    }
    return dc_fail(DC_ECONF, "%s%s '%.*s': %s", origin_text(o), row->name, shown(value), value.ptr,
                   why);
}

static void join(struct buf *out, const struct bytes *words, size_t count) {
    for (size_t i = 0; i < count; i++) {
        buf_append(out, " ", i > 0);
        buf_append_bytes(out, words[i]);
    }
}

/* Lines of 'save' add up, as in Redis; one without words forgets those before it. */
static void begin_save(struct conf *draft, struct origin *o, bool has_words, struct buf *value) {
    if (has_words && o->has_save) {
        buf_append_str(value, draft->texts[CONF_ID_save]); /* nobody else sees a draft */
        buf_append(value, " ", 1);
    }
    o->has_save = has_words;
}

/* words[0] is the name, what follows the value. */
static enum dc_err put_words(struct conf *draft, struct origin *o, const struct bytes *words,
                             size_t count) {
    enum conf_id id = conf_find(words[0]);
    if (id == CONF_COUNT) {
        return dc_fail(DC_ECONF, "%s%.*s: unknown option", origin_text(o), shown(words[0]),
                       words[0].ptr);
    }
    const struct conf_row *row = &conf_rows[id];
    struct buf value;
    struct conf_why why;
    buf_init(&value, 0);
    if (id == CONF_ID_save) {
        begin_save(draft, o, count > 1 && words[1].len > 0, &value);
    }
    join(&value, words + 1, count - 1);
    bool right_count = row->flags & COMPAT || count == 2 || id == CONF_ID_save ||
                       (row->flags & WORDS && count > 2);
    enum dc_err err = DC_OK;
    if (value.failed) {
        err = DC_ENOMEM;
    } else if (!right_count) {
        err = fail_value(o, row, buf_bytes(&value), "wrong number of arguments");
    } else if (!conf_put(draft, id, buf_bytes(&value), &why)) {
        err = fail_value(o, row, buf_bytes(&value), why.text);
    }
    buf_fini(&value);
    return err;
}

static enum dc_err put_lines(struct conf *draft, struct bytes text, const char *file) {
    struct origin o = {.file = file};
    struct conf_line line = {0};
    enum dc_err err = DC_OK;
    while (text.len > 0 && err == DC_OK) {
        o.line++;
        const char *wrong = conf_next_line(&text, &line);
        if (wrong != NULL) {
            err = dc_fail(DC_ECONF, "%s%s", origin_text(&o), wrong);
        } else if (line.count > 0) {
            err = put_words(draft, &o, line.words, line.count);
        }
    }
    mem_free(line.unquoted);
    return err;
}

static bool is_dash(const char *arg) {
    return strcmp(arg, "-") == 0;
}

enum dc_err conf_load(const char *path, struct buf *out) {
    bool is_stdin = is_dash(path);
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return dc_fail(DC_ECONF, "can't open config file '%s': %s", path, dc_errno_text(errno));
    }
    enum dc_err err = DC_OK;
    for (;;) {
        char chunk[4096];
        ssize_t n = read(fd, chunk, sizeof(chunk));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            err = dc_fail(DC_ECONF, "can't read config file '%s': %s", path, dc_errno_text(errno));
        } else if (n > 0 && out->len + (size_t)n > CONF_FILE_MAX) {
            err =
                dc_fail(DC_ECONF, "config file '%s' is longer than %d bytes", path, CONF_FILE_MAX);
        }
        if (n <= 0 || err != DC_OK) {
            break;
        }
        buf_append(out, chunk, (size_t)n);
    }
    if (!is_stdin) {
        close(fd);
    }
    return err == DC_OK && out->failed ? DC_ENOMEM : err;
}

static enum dc_err put_file(struct conf *draft, const char *path) {
    struct buf text;
    buf_init(&text, 0);
    enum dc_err err = conf_load(path, &text);
    if (err == DC_OK) {
        err = put_lines(draft, buf_bytes(&text), is_dash(path) ? "standard input" : path);
    }
    buf_fini(&text);
    if (err == DC_OK && !is_dash(path)) {
        char absolute[PATH_MAX];
        mem_free(draft->file);
        draft->file = mem_must_strdup(realpath(path, absolute) != NULL ? absolute : path);
    }
    return err;
}

/* "--name word word --name ...": an option ends where the next one begins. */
static enum dc_err put_options(struct conf *draft, int argc, char **argv) {
    struct origin o = {.file = NULL};
    enum dc_err err = DC_OK;
    for (int i = 0; i < argc && err == DC_OK;) {
        struct bytes words[CONF_WORDS_MAX];
        size_t count = 0;
        if (strncmp(argv[i], "--", 2) != 0) {
            return dc_fail(DC_ECONF, "command line: '%s' is no option: --name value", argv[i]);
        }
        words[count++] = bytes_str(argv[i++] + 2);
        while (i < argc && strncmp(argv[i], "--", 2) != 0) {
            if (count == CONF_WORDS_MAX) {
                return dc_fail(DC_ECONF, "command line: --%s: too many words", words[0].ptr);
            }
            words[count++] = bytes_str(argv[i++]);
        }
        err = put_words(draft, &o, words, count);
    }
    return err;
}

/* [CONF-FILE] [-] [--name value ...] [-] */
static enum dc_err put_args(struct conf *draft, int argc, char **argv) {
    enum dc_err err = DC_OK;
    if (argc > 0 && strncmp(argv[0], "--", 2) != 0 && !is_dash(argv[0])) {
        err = put_file(draft, argv[0]);
        argc--, argv++;
    }
    bool dash_first = argc > 0 && is_dash(argv[0]);
    bool dash_last = argc > 1 && is_dash(argv[argc - 1]);
    if (err == DC_OK && (dash_first || dash_last)) {
        err = put_file(draft, "-");
    }
    return err == DC_OK ? put_options(draft, argc - dash_first - dash_last, argv + dash_first)
                        : err;
}

/* --- what the world calls --- */

/* Takes the draft over when all went well; ends it in any case. */
static enum dc_err finish_locked(struct conf *draft, struct conf *c, enum dc_err err)
    DC_REQUIRES(c->lock) {
    if (err == DC_OK) {
        char *old = c->file;
        c->file = draft->file;
        draft->file = old;
        conf_draft_commit_locked(draft, c);
    }
    conf_fini(draft);
    return err;
}

enum dc_err conf_read_file(struct conf *c, const char *path) {
    struct conf draft;
    lock_acquire(&c->lock);
    conf_draft_begin_locked(&draft, c);
    enum dc_err err = finish_locked(&draft, c, put_file(&draft, path));
    lock_release(&c->lock);
    return err;
}

enum dc_err conf_read_text(struct conf *c, struct bytes text, const char *origin) {
    struct conf draft;
    lock_acquire(&c->lock);
    conf_draft_begin_locked(&draft, c);
    enum dc_err err = finish_locked(&draft, c, put_lines(&draft, text, origin));
    lock_release(&c->lock);
    return err;
}

enum dc_err conf_read_args(struct conf *c, int argc, char **argv) {
    struct conf draft;
    lock_acquire(&c->lock);
    conf_draft_begin_locked(&draft, c);
    enum dc_err err = finish_locked(&draft, c, put_args(&draft, argc, argv));
    lock_release(&c->lock);
    return err;
}
