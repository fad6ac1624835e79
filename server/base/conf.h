/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * conf: the options of the node, from a file, the command line and CONFIG SET.
 *
 * Purpose: one table (conf.def) makes the struct, the parser, CONFIG GET/SET/REWRITE and --print-config. Changes are
 *   made to a draft, which is checked as a whole and then taken over.
 * Invariants: I1 every number lies within its bounds; I2 conf_validate() held after start and after each set.
 * Threads: numbers are atomics, read with conf_get(); texts are read and written under the lock CONF
 *   (conf_text copies).
 * Failure: DC_ECONF with a text that names the option, the value and what would be right; nothing changed.
 */
#ifndef DC_BASE_CONF_H
#define DC_BASE_CONF_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/base/buf.h"
#include "server/base/bytes.h"
#include "server/base/err.h"
#include "server/base/lock.h"

enum conf_id {
#define CONF_INT(name, field, ...)    CONF_ID_##field,
#define CONF_SIZE(name, field, ...)   CONF_ID_##field,
#define CONF_BOOL(name, field, ...)   CONF_ID_##field,
#define CONF_ENUM(name, field, ...)   CONF_ID_##field,
#define CONF_TEXT(name, field, ...)   CONF_ID_##field,
#define CONF_COMPAT(name, field, ...) CONF_ID_##field,
#include "server/base/conf.def"
    CONF_COUNT
};

/* Values of maxmemory-policy, in the order of the table. */
enum evict_policy {
    EVICT_ADAPTIVE,
    EVICT_NONE,
    EVICT_ALLKEYS_LRU,
    EVICT_ALLKEYS_LFU,
    EVICT_ALLKEYS_RANDOM,
    EVICT_VOLATILE_LRU,
    EVICT_VOLATILE_LFU,
    EVICT_VOLATILE_RANDOM,
    EVICT_VOLATILE_TTL
};

struct conf {
    _Atomic int64_t numbers[CONF_COUNT];
    char *texts[CONF_COUNT]; /* under lock; NULL for numbers */
    struct lock lock;
    char *file; /* the file that was read, absolute, or NULL; constant after start */
};

void conf_init(struct conf *c); /* everything at its default */
void conf_fini(struct conf *c);

/* Reads a file of lines "name value ...". Errors: DC_ECONF, with the line's number. */
DC_MUST enum dc_err conf_read_file(struct conf *c, const char *path);
/* The same from memory; 'origin' names it in errors. */
DC_MUST enum dc_err conf_read_text(struct conf *c, struct bytes text, const char *origin);
/* argv after the program's name: [CONF-FILE] [--name value ...]; a lone "-" in the first or last place reads standard
 * input. Later sources win: file, standard input, options. */
DC_MUST enum dc_err conf_read_args(struct conf *c, int argc, char **argv);
/* Checks across options. */
DC_MUST enum dc_err conf_validate(const struct conf *c);

#define conf_get(c, field) \
    atomic_load_explicit(&(c)->numbers[CONF_ID_##field], memory_order_relaxed)

/* Copies a text option into 'to' (always ends with NUL); returns its full length. */
size_t conf_text(struct conf *c, enum conf_id id, char *to, size_t size);

/* Sets a text option that CONFIG SET doesn't change: what a command has decided. 'value' has to fit. */
void conf_set_text(struct conf *c, enum conf_id id, struct bytes value);

/* CONFIG SET: all pairs or none. name/value alternate. Errors: DC_ECONF in Redis's words (7.0), such as
 * "Unknown option or number of arguments for CONFIG SET - 'x'". */
DC_MUST enum dc_err conf_set(struct conf *c, const struct bytes *pairs, size_t pair_count);

/* Calls 'each' for every option whose name matches one of the patterns, each option once, with the lock CONF
 * held. A name without wildcards comes back as it was asked, as Redis does. */
typedef void (*conf_each_fn)(void *arg, struct bytes name, struct bytes value);
void conf_each(struct conf *c, const struct bytes *patterns, size_t count, conf_each_fn each,
               void *arg);

/* The same for every option that isn't at its default. */
void conf_each_changed(struct conf *c, conf_each_fn each, void *arg);

/* Every option that isn't at its default as a line that conf_read_text() takes; secrets too. */
void conf_write(struct conf *c, struct buf *out);

/* CONFIG REWRITE: writes changed options back, keeps comments and order, replaces the file in one step.
 * Errors: DC_ECONF "The server is running without a config file", DC_EIO. */
DC_MUST enum dc_err conf_rewrite(struct conf *c);

/* The commented file (COMPAT options left out) with every option at its default: conf/dcache.conf. */
void conf_print(struct buf *out);

/* Number of options and their names, for tests and completion. */
const char *conf_name(enum conf_id id);

/* An option of Redis that is taken and has no effect. */
bool conf_is_compat(enum conf_id id);

#endif
