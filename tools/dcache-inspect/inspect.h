/* SPDX-License-Identifier: BSD-3-Clause */
/* inspect: what the commands of dcache-inspect share. */
#ifndef DC_TOOLS_INSPECT_INSPECT_H
#define DC_TOOLS_INSPECT_INSPECT_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/bytes.h"
#include "server/base/err.h"
#include "tools/dcache-inspect/emit.h"
#include "tools/dcache-inspect/view.h"

/* What a command returns. */
enum status {
    STATUS_FINE = 0,
    STATUS_FOUND = 1,  /* damage, a difference, or no such key */
    STATUS_TROUBLE = 2 /* usage, or something can't be read */
};

enum { ARGS_MAX = 2, TOP_MAX = 10000, DELIMITER_LEN_MAX = 64 };

struct inspect {
    struct emit out;
    const char *args[ARGS_MAX]; /* PATH first */
    int arg_count;
    /* options */
    bool has_keyspace;
    uint32_t keyspace;
    struct bytes match;        /* ptr NULL = any */
    uint64_t from_lsn, to_lsn; /* 0 = not given */
    uint64_t limit;            /* 0 = none */
    uint32_t top;
    uint32_t prefixes; /* 0 = none */
    struct bytes delimiter;
    uint64_t memory;
    bool follow, values, raw, quiet;
};

enum status cmd_catalogue(struct inspect *in);
enum status cmd_diff(struct inspect *in);
enum status cmd_get(struct inspect *in);
enum status cmd_keys(struct inspect *in);
enum status cmd_log(struct inspect *in);
enum status cmd_logdiff(struct inspect *in);
enum status cmd_stats(struct inspect *in);
enum status cmd_summary(struct inspect *in);
enum status cmd_verify(struct inspect *in);

/* Says on stderr what dc_fail() has recorded; returns STATUS_TROUBLE. */
enum status complain(enum dc_err err);
/* For view_open(): the same for what the view meets on its way. */
void complain_text(void *arg, const char *text);
/* For a view that tells its troubles so. */
struct view_opts view_opts_of(const struct inspect *in);
/* The options --keyspace and --match. */
struct item_filter filter_of(const struct inspect *in);
const char *kind_name(enum value_kind kind);
const char *effect_name(enum mut_kind kind);

/* help.c */
enum {
    OPT_KEYSPACE = 1,
    OPT_MATCH = 2,
    OPT_LSN = 4,
    OPT_LIMIT = 8,
    OPT_TOP = 16,
    OPT_FOLLOW = 32,
    OPT_VALUES = 64,
    OPT_RAW = 128,
    OPT_QUIET = 256,
    OPT_PREFIXES = 512,
    OPT_MEMORY = 1024
};
struct command {
    const char *name;
    const char *args; /* behind the name */
    int arg_count;
    uint32_t options; /* that it takes */
    enum status (*run)(struct inspect *in);
    const char *summary;
    const char *help; /* its part of the manual */
};
extern const struct command commands[];
extern const uint32_t command_count;
void help_all(FILE *to);
void help_command(FILE *to, const struct command *c);

#endif
