/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dcache-inspect: looks into what a node has written.
 *
 *     main.c      arguments -> struct inspect -> a command
 *     help.c      the table of commands and the manual
 *     cmd_*.c     the commands
 *     view.c      entries of a snapshot or a directory, range by range; touched.c, fold.c: the log's effects on them
 *     emit.c      text and JSON
 */
#include "server/base/crypto.h"
#include "server/base/limits.h"
#include "server/base/num.h"
#include "tools/dcache-inspect/inspect.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if !defined(DC_TOOLS_VERSION)
#    define DC_TOOLS_VERSION "of unknown version"
#endif

enum { TOP_DEFAULT = 10 };

enum status complain(enum dc_err err) {
    complain_text(NULL, dc_fail_take(err));
    return err == DC_ECORRUPT ? STATUS_FOUND : STATUS_TROUBLE;
}

void complain_text(void *arg, const char *text) {
    (void)arg;
    fprintf(stderr, "dcache-inspect: %s\n", text);
}

struct view_opts view_opts_of(const struct inspect *in) {
    return (struct view_opts){.trouble = complain_text, .memory = in->memory, .segment_too = true};
}

struct item_filter filter_of(const struct inspect *in) {
    return (struct item_filter){
        .has_keyspace = in->has_keyspace, .keyspace = in->keyspace, .match = in->match};
}

const char *kind_name(enum value_kind kind) {
    switch (kind) {
    case VALUE_STR:
        return "str";
    case VALUE_RAW:
        return "raw";
    case VALUE_INT:
        return "int";
    case VALUE_BLOB:
        return "blob";
    }
    return "?";
}

const char *effect_name(enum mut_kind kind) {
    switch (kind) {
    case MUT_PUT:
        return "PUT";
    case MUT_DEL:
        return "DEL";
    case MUT_EXPIRE:
        return "EXPIRE";
    case MUT_WRITE:
        return "WRITE";
    case MUT_FLUSH:
        return "FLUSH";
    }
    return "?";
}

/* --- arguments ----------------------------------------------------------------------------------------------------------- */

struct parse {
    struct inspect *in;
    const struct command *command;
    uint32_t used; /* options */
    bool help, version;
};

static bool wrong(const char *what, const char *which) {
    fprintf(stderr, "dcache-inspect: %s: %s\nTry 'dcache-inspect --help'.\n", which, what);
    return false;
}

static bool parse_u64(const char *name, const char *value, uint64_t max, uint64_t *out) {
    return (num_parse_u64(bytes_str(value), out) && *out <= max) ||
           wrong("not a number that it takes", name);
}

struct flag {
    const char *name;
    uint32_t bit;
    size_t offset; /* of a bool in struct inspect */
};

static const struct flag flags[] = {
    {"--follow", OPT_FOLLOW, offsetof(struct inspect, follow)},
    {"--values", OPT_VALUES, offsetof(struct inspect, values)},
    {"--raw", OPT_RAW, offsetof(struct inspect, raw)},
    {"--quiet", OPT_QUIET, offsetof(struct inspect, quiet)},
};

/* An option without a value; false: it is none. */
static bool take_flag(struct parse *p, const char *name) {
    if (strcmp(name, "--json") == 0) {
        p->in->out.json = true;
        return true;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        p->help = true;
        return true;
    }
    if (strcmp(name, "--version") == 0) {
        p->version = true;
        return true;
    }
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if (strcmp(name, flags[i].name) == 0) {
            *(bool *)((char *)p->in + flags[i].offset) = true;
            p->used |= flags[i].bit;
            return true;
        }
    }
    return false;
}

/* An option with a value. */
static bool take_option(struct parse *p, const char *name, const char *value) {
    struct inspect *in = p->in;
    uint64_t number = 0;
    if (value == NULL) {
        return wrong("no such option, or its value is missing", name);
    }
    if (strcmp(name, "--keyspace") == 0) {
        p->used |= OPT_KEYSPACE;
        in->has_keyspace = true;
        bool is_system = strcmp(value, "system") == 0;
        bool good = is_system || parse_u64(name, value, KEYSPACE_MAX - 1, &number);
        in->keyspace = is_system ? KEYSPACE_SYSTEM : (uint32_t)number;
        return good;
    }
    if (strcmp(name, "--match") == 0) {
        p->used |= OPT_MATCH;
        in->match = bytes_str(value);
        return true;
    }
    if (strcmp(name, "--top") == 0) {
        p->used |= OPT_TOP;
        bool good = parse_u64(name, value, TOP_MAX, &number);
        in->top = (uint32_t)number;
        return good;
    }
    if (strcmp(name, "--prefixes") == 0) {
        p->used |= OPT_PREFIXES;
        bool good = parse_u64(name, value, TOP_MAX, &number);
        in->prefixes = (uint32_t)number;
        return good;
    }
    if (strcmp(name, "--delimiter") == 0) {
        p->used |= OPT_PREFIXES;
        in->delimiter = bytes_str(value);
        return (in->delimiter.len > 0 && in->delimiter.len <= DELIMITER_LEN_MAX) ||
               wrong("one to 64 bytes are needed", name);
    }
    if (strcmp(name, "--memory") == 0) {
        int64_t size = 0;
        p->used |= OPT_MEMORY;
        bool good = num_parse_size(bytes_str(value), &size) && size >= 0;
        in->memory = (uint64_t)size;
        return good || wrong("not a size that it takes", name);
    }
    if (strcmp(name, "--limit") == 0) {
        p->used |= OPT_LIMIT;
        return parse_u64(name, value, UINT64_MAX, &in->limit);
    }
    if (strcmp(name, "--from") == 0 || strcmp(name, "--to") == 0) {
        p->used |= OPT_LSN;
        return parse_u64(name, value, LSN_MAX, name[2] == 'f' ? &in->from_lsn : &in->to_lsn);
    }
    return wrong("no such option", name);
}

static const struct command *find_command(const char *name) {
    for (uint32_t i = 0; i < command_count; i++) {
        if (strcmp(name, commands[i].name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static bool take_word(struct parse *p, const char *word) {
    if (p->command == NULL) {
        p->command = find_command(word);
        return p->command != NULL || wrong("no such command", word);
    }
    if (p->in->arg_count == p->command->arg_count) {
        return wrong("one argument too many", word);
    }
    p->in->args[p->in->arg_count++] = word;
    return true;
}

static bool parse_args(struct parse *p, int argc, char **argv) {
    bool options = true; /* until -- */
    for (int i = 1; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0) {
            options = false;
        } else if (!options || argv[i][0] != '-' || argv[i][1] == '\0') {
            if (!take_word(p, argv[i])) {
                return false;
            }
        } else if (!take_flag(p, argv[i])) {
            if (!take_option(p, argv[i], i + 1 < argc ? argv[i + 1] : NULL)) {
                return false;
            }
            i++;
        }
    }
    return true;
}

/* Whether the command has got what it takes. */
static bool check_args(const struct parse *p) {
    const struct command *c = p->command;
    if (c == NULL) {
        return wrong("a command is missing", "usage");
    }
    if (p->in->arg_count < c->arg_count) {
        fprintf(stderr, "dcache-inspect: usage: dcache-inspect %s %s [OPTION]...\n", c->name,
                c->args);
        return false;
    }
    return (p->used & ~c->options) == 0 || wrong("it doesn't take one of these options", c->name);
}

int main(int argc, char **argv) {
    struct inspect in = {
        .out = {.to = stdout}, .top = TOP_DEFAULT, .delimiter = BYTES(":"), .memory = VIEW_MEMORY};
    struct parse p = {.in = &in};
    if (!parse_args(&p, argc, argv)) {
        return STATUS_TROUBLE;
    }
    if (p.version) {
        puts("dcache-inspect " DC_TOOLS_VERSION);
        return STATUS_FINE;
    }
    if (p.help && p.command != NULL) {
        help_command(stdout, p.command);
        return STATUS_FINE;
    }
    if (p.help || argc == 1) {
        help_all(p.help ? stdout : stderr);
        return p.help ? STATUS_FINE : STATUS_TROUBLE;
    }
    if (!check_args(&p)) {
        return STATUS_TROUBLE;
    }
    crypto_init();
    io_catch_faults();
    enum status status = p.command->run(&in);
    if (fflush(stdout) != 0 || ferror(stdout) != 0) {
        fputs("dcache-inspect: the output can't be written\n", stderr);
        return STATUS_TROUBLE;
    }
    return (int)status;
}
