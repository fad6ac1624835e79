/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * conf_priv: what the parts of conf share. conf.c holds the table and the values, conf_text.c the grammar of
 * lines and of some options, conf_read.c files and command lines in, conf_rewrite.c files out.
 */
#ifndef DC_BASE_CONF_PRIV_H
#define DC_BASE_CONF_PRIV_H

#include "server/base/conf.h"
#include "server/base/limits.h"

enum conf_kind { CONF_KIND_INT, CONF_KIND_SIZE, CONF_KIND_BOOL, CONF_KIND_ENUM, CONF_KIND_TEXT };

/* Flags of the table. */
enum { LIVE = 1, HIDDEN = 2, UNSET = 4, WORDS = 8, COMPAT = 16 };

struct conf_row {
    const char *name;
    enum conf_kind kind;
    unsigned flags;
    int64_t def, min, max;
    const char *text; /* default of a text; words of an enum, "a|b|c" */
    const char *help;
};

extern const struct conf_row conf_rows[CONF_COUNT];

/* Why a value was refused, in Redis's words. */
struct conf_why {
    char text[ERR_TEXT_MAX / 2];
};

/* CONF_COUNT when there is none. */
enum conf_id conf_find(struct bytes name);

/* A draft is a copy of 'c' that is thrown away (conf_fini) or taken over whole. The caller holds the lock of 'c' from
 * begin to commit, so that no other change falls in between. */
void conf_draft_begin_locked(struct conf *draft, const struct conf *c) DC_REQUIRES(c->lock);
void conf_draft_commit_locked(struct conf *draft, struct conf *c) DC_REQUIRES(c->lock);

/* Sets one option of a draft; false leaves it as it was. */
bool conf_put(struct conf *draft, enum conf_id id, struct bytes value, struct conf_why *why);

/* The value as CONFIG GET prints it, but never hidden. */
void conf_format(const struct conf *c, enum conf_id id, struct buf *out);
/* The line "name value" as a file holds it, without a newline. */
void conf_format_line(const struct conf *c, enum conf_id id, struct buf *out);
bool conf_same(const struct conf *a, const struct conf *b, enum conf_id id);

/* Brings the value of a text option with a grammar of its own into its canonical form, or says why it has none.
 * 'before' is the present value. */
bool conf_canonical(enum conf_id id, struct bytes value, const char *before, struct buf *out,
                    struct conf_why *why);

/* A line of a file, cut into words. Starts as {0}; 'unquoted' is the caller's to free. */
struct conf_line {
    struct bytes raw; /* without the newline */
    struct bytes words[CONF_WORDS_MAX];
    size_t count;   /* 0 = a comment or nothing */
    char *unquoted; /* what the words point into */
};

/* Cuts the next line off 'text' and splits it. NULL, or what is wrong with it. */
const char *conf_next_line(struct bytes *text, struct conf_line *line);

/* 'value' as it stands in a line: as it is, when that is one word (or several, with 'words'), else in quotes. */
void conf_quote(struct buf *out, struct bytes value, bool words);

/* Reads a file of CONF_FILE_MAX bytes at most, "-" = standard input. Errors: DC_ECONF. */
DC_MUST enum dc_err conf_load(const char *path, struct buf *out);

#endif
