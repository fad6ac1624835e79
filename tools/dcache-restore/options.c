/* SPDX-License-Identifier: BSD-3-Clause */
#include "tools/dcache-restore/options.h"

#include "server/base/limits.h"
#include "server/base/num.h"
#include "tools/dcache-restore/help.h"
#include "tools/dcache-restore/report.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#if !defined(DC_TOOLS_VERSION)
#    define DC_TOOLS_VERSION "of unknown version"
#endif

enum {
    OPT_TO_LSN = 256,
    OPT_TO_TIME,
    OPT_MATCH,
    OPT_KEYSPACE,
    OPT_SHIFT,
    OPT_PUSH,
    OPT_PASSWORD_FILE,
    OPT_REPLACE,
    OPT_REPAIR,
    OPT_KEEP_IDENTITY,
    OPT_DRY_RUN,
    OPT_JSON,
    OPT_QUIET,
    OPT_HELP,
    OPT_VERSION,
};

static const struct option known[] = {
    {"to-lsn", required_argument, NULL, OPT_TO_LSN},
    {"to-time", required_argument, NULL, OPT_TO_TIME},
    {"match", required_argument, NULL, OPT_MATCH},
    {"keyspace", required_argument, NULL, OPT_KEYSPACE},
    {"shift-ttl", required_argument, NULL, OPT_SHIFT},
    {"push", required_argument, NULL, OPT_PUSH},
    {"password-file", required_argument, NULL, OPT_PASSWORD_FILE},
    {"replace", no_argument, NULL, OPT_REPLACE},
    {"repair", no_argument, NULL, OPT_REPAIR},
    {"keep-identity", no_argument, NULL, OPT_KEEP_IDENTITY},
    {"dry-run", no_argument, NULL, OPT_DRY_RUN},
    {"json", no_argument, NULL, OPT_JSON},
    {"quiet", no_argument, NULL, OPT_QUIET},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {NULL, 0, NULL, 0},
};

DC_PRINTF(1, 2)
static enum options_verdict bad(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fputs("dcache-restore: ", stderr);
    vfprintf(stderr, fmt, args);
    fputs("\n'dcache-restore --help' explains the options.\n", stderr);
    va_end(args);
    return OPTIONS_BAD;
}

static enum options_verdict take_shift(struct options *o, const char *word) {
    static const char *const words[] = {"auto", "yes", "no"}; /* enum shift_mode */
    for (int i = 0; i < 3; i++) {
        if (strcmp(word, words[i]) == 0) {
            o->shift = (enum shift_mode)i;
            return OPTIONS_RUN;
        }
    }
    return bad("--shift-ttl is yes, no or auto, not '%s'", word);
}

static enum options_verdict take_number(struct options *o, int opt, const char *word) {
    uint64_t n;
    bool good = num_parse_u64(bytes_str(word), &n);
    if (opt == OPT_TO_LSN) {
        o->to_lsn = good ? n : 0;
        return o->to_lsn > 0 ? OPTIONS_RUN : bad("--to-lsn needs a position, not '%s'", word);
    }
    bool is_system = strcmp(word, "system") == 0;
    if (!is_system && (!good || n >= KEYSPACE_MAX)) {
        return bad("--keyspace needs a number from 0 to %d, or 'system', not '%s'",
                   KEYSPACE_MAX - 1, word);
    }
    o->keyspace = is_system ? KEYSPACE_SYSTEM : (int)n;
    return OPTIONS_RUN;
}

static enum options_verdict take(struct options *o, int opt, const char *word) {
    switch (opt) {
    case OPT_TO_LSN:
    case OPT_KEYSPACE:
        return take_number(o, opt, word);
    case OPT_TO_TIME:
        return time_parse(word, &o->to_time_ms)
                   ? OPTIONS_RUN
                   : bad("--to-time needs a time as 2026-01-31T12:30:00Z, or Unix seconds or "
                         "milliseconds, not '%s'",
                         word);
    case OPT_MATCH:
        o->match = bytes_str(word);
        return OPTIONS_RUN;
    case OPT_SHIFT:
        return take_shift(o, word);
    case OPT_PUSH:
        o->push = word;
        return OPTIONS_RUN;
    case OPT_PASSWORD_FILE:
        o->password_file = word;
        return OPTIONS_RUN;
    case OPT_REPLACE:
        o->replace = true;
        return OPTIONS_RUN;
    case OPT_REPAIR:
        o->repair = true;
        return OPTIONS_RUN;
    case OPT_KEEP_IDENTITY:
        o->keep_identity = true;
        return OPTIONS_RUN;
    case OPT_DRY_RUN:
        o->dry_run = true;
        return OPTIONS_RUN;
    case OPT_JSON:
        o->json = true;
        return OPTIONS_RUN;
    case OPT_QUIET:
        o->quiet = true;
        return OPTIONS_RUN;
    case OPT_HELP:
        help_print();
        return OPTIONS_DONE;
    case OPT_VERSION:
        puts("dcache-restore " DC_TOOLS_VERSION);
        return OPTIONS_DONE;
    default:
        fputs("'dcache-restore --help' explains the options.\n", stderr); /* getopt has told what */
        return OPTIONS_BAD;
    }
}

/* getaddrinfo() takes only the lower 16 bits of a port: that would be another node's. */
static bool is_place(const char *push) {
    const char *colon = strrchr(push, ':');
    uint64_t port;
    return strchr(push, '/') != NULL ||
           (colon != NULL && colon > push && num_parse_u64(bytes_str(colon + 1), &port) &&
            port > 0 && port <= UINT16_MAX);
}

static enum options_verdict take_paths(struct options *o, int count, char **paths) {
    int wanted = o->push != NULL ? 1 : 2;
    if (count < 1 || count > wanted || (count < wanted && !o->dry_run)) {
        return bad(o->push != NULL ? "one SOURCE is needed" : "a SOURCE and a TARGET are needed");
    }
    o->source = paths[0];
    o->target = count > 1 ? paths[1] : NULL;
    if (o->to_lsn != 0 && o->to_time_ms != 0) {
        return bad("--to-lsn and --to-time exclude each other");
    }
    if (o->push != NULL && !is_place(o->push)) {
        return bad("--push needs HOST:PORT, or the path of a socket with a slash, not '%s'",
                   o->push);
    }
    if (o->push == NULL && (o->password_file != NULL || o->replace)) {
        return bad("--password-file and --replace need --push");
    }
    if (o->push != NULL && o->keep_identity) {
        return bad("--keep-identity is for a directory; --push fills a node that has one");
    }
    if (o->push != NULL && o->keyspace == KEYSPACE_SYSTEM) {
        return bad("--push doesn't send the system keyspace: the node has its own");
    }
    return OPTIONS_RUN;
}

enum options_verdict options_parse(struct options *o, int argc, char **argv) {
    *o = (struct options){.keyspace = -1};
    for (;;) {
        int opt = getopt_long(argc, argv, "", known, NULL);
        if (opt < 0) {
            return take_paths(o, argc - optind, argv + optind);
        }
        enum options_verdict verdict = take(o, opt, optarg);
        if (verdict != OPTIONS_RUN) {
            return verdict;
        }
    }
}
