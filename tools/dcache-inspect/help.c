/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of commands, and the manual that is printed from it. */
#include "tools/dcache-inspect/inspect.h"

#include <string.h>

enum { FILTER = OPT_KEYSPACE | OPT_MATCH };

const struct command commands[] = {
    {"summary", "PATH", 1, 0, cmd_summary,
     "what a file or a directory is, from headers and indexes",
     "Of a snapshot: header, footer, keys and compression per keyspace, histories. Of a log\n"
     "segment: header, durable mark, and its frames by kind. Of a data directory: its\n"
     "snapshots and segments, and where the log ends and why.\n"},
    {"stats", "PATH", 1, FILTER | OPT_TOP | OPT_PREFIXES | OPT_MEMORY, cmd_stats,
     "the biggest keys, histograms of sizes and times to live",
     "Reads all entries once. Times to live are counted from the time of the last frame (or\n"
     "the end of the snapshot), which is shown as 'as_of'; what had expired by then and\n"
     "still takes room is counted as expired.\n"
     "Of a segment alone the keys that it names are counted: keys are whole ones, partial\n"
     "those of which only changes are known, removed those that are gone at its end.\n"
     "With --prefixes the keys that are alike up to the first delimiter are summed up: of\n"
     "session:42 that is session. The N with the most bytes (of keys and values) are shown,\n"
     "per keyspace, and the sums of keys without a delimiter. There are ten counters for each\n"
     "that is shown, so memory doesn't grow with the number of different prefixes. Up to\n"
     "that many all sums are exact. Beyond, a prefix that found no free counter got that with\n"
     "the fewest bytes: its sums are what was seen from then on, and beside them stands how\n"
     "much more it may have. 'others_at_most' is the most that one may have which isn't shown.\n"
     "A prefix longer than 256 bytes counts as its beginning.\n"},
    {"keys", "PATH", 1, FILTER | OPT_VALUES | OPT_LIMIT | OPT_MEMORY, cmd_keys,
     "lists keys, or those that match a pattern",
     "One line per key: keyspace, key, kind, length of the value, expiry. The order is that\n"
     "of the slots. With --match a pattern as KEYS takes it. Of a segment alone keys that are\n"
     "partial or removed are shown as such, and flushes in front of all.\n"},
    {"get", "PATH KEY", 2, OPT_KEYSPACE | OPT_RAW | OPT_MEMORY, cmd_get, "one key and its value",
     "Found by its position: of a snapshot only the index and the block of the key are read,\n"
     "and the log behind them. Keyspace 0 unless --keyspace says another. Of a segment alone\n"
     "there is a value if it has all of it; else what is known is shown, and the status is 1.\n"},
    {"log", "PATH", 1, FILTER | OPT_LSN | OPT_LIMIT | OPT_FOLLOW | OPT_VALUES | OPT_QUIET, cmd_log,
     "the frames of a log and their effects",
     "Of a data directory: its log from the oldest segment on. Of a segment: that file. Of\n"
     "a snapshot: its tail. Each frame is what one command or one EXEC has changed:\n"
     "its LSN, time, length, place, and below it the effects: PUT, DEL, EXPIRE, WRITE\n"
     "(bytes at an offset) or FLUSH. 'over N' is the version that the effect was made for.\n"},
    {"diff", "PATH PATH", 2, FILTER | OPT_MEMORY, cmd_diff,
     "keys that were added (+), removed (-), changed (~)",
     "From the first to the second. Two images of one history are compared by versions,\n"
     "without a look at values; others by their values and expiries.\n"},
    {"logdiff", "PATH PATH", 2, 0, cmd_logdiff,
     "whether two nodes have the same log, byte for byte",
     "Of a primary and a replica: at the same positions of the same histories the bytes are\n"
     "the same. One log may reach back further, or end earlier: that isn't a difference. Where\n"
     "they part, each with a history of its own, is shown.\n"},
    {"verify", "PATH", 1, OPT_QUIET | OPT_MEMORY, cmd_verify,
     "reads everything and says what is damaged, and where",
     "Checksums of headers, indexes, blocks, frames and large values; that each key is where\n"
     "it will be looked for; that the log has no hole; that each effect finds what it was\n"
     "made for: that is the replay. Progress of both is shown on stderr. Goes on behind what\n"
     "is damaged. A torn tail of the log is a note: the next start cuts it, and beside a live\n"
     "node it is what is being written.\n"},
    {"catalogue", "DIRECTORY", 1, 0, cmd_catalogue, "the metadata of a data directory",
     "Node, role, histories, and the entries of snapshots and segments, as LMDB has them.\n"},
};
const uint32_t command_count = sizeof(commands) / sizeof(commands[0]);

struct option_help {
    uint32_t bit; /* 0 = every command takes it */
    const char *text;
};

static const struct option_help options[] = {
    {0, "    --json            JSON for programs: one object per line\n"},
    {OPT_KEYSPACE, "    --keyspace N      only this keyspace: a database, or 'system'\n"},
    {OPT_MATCH, "    --match GLOB      only keys that match: * ? [a-z] [^a] \\x\n"},
    {OPT_LIMIT, "    --limit N         stop after so many; 0 = at the end\n"},
    {OPT_TOP, "    --top N           so many of the biggest keys (10; at most 10000)\n"},
    {OPT_PREFIXES,
     "    --prefixes N      sums of the N prefixes with the most bytes (at most 10000)\n"
     "    --delimiter TEXT  what ends a prefix (:)\n"},
    {OPT_VALUES, "    --values          values, too; in text the first 200 bytes\n"},
    {OPT_MEMORY, "    --memory SIZE     for what is noted of the log (64mb); with less it goes "
                 "over it more often\n"},
    {OPT_RAW, "    --raw             the bytes of the value, and nothing else\n"},
    {OPT_LSN, "    --from LSN        frames that begin at this LSN or behind it\n"
              "    --to LSN          frames that begin before it\n"},
    {OPT_FOLLOW, "    --follow          go on as the log grows, until interrupted\n"},
    {OPT_QUIET, "    --quiet           no progress and no remarks on stderr\n"},
    {0, "    --help            this text, or that of a command\n"
        "    --version         the version of the program\n"},
};

static void option_texts(FILE *to, uint32_t mask) {
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        if (options[i].bit == 0 || (options[i].bit & mask) != 0) {
            fputs(options[i].text, to);
        }
    }
}

/* Indents each line of a text. */
static void indented(FILE *to, const char *text, int by) {
    while (*text != '\0') {
        size_t len = strcspn(text, "\n");
        fprintf(to, "%*s%.*s\n", by, "", (int)len, text);
        text += len + (text[len] == '\n');
    }
}

static const char exit_status[] =
    "EXIT STATUS\n"
    "    0    all is well\n"
    "    1    something is damaged (verify and all others, as far as they read), the two\n"
    "         sides differ (diff, logdiff), or there is no such key, or not all of it (get)\n"
    "    2    wrong usage, or a file can't be read\n";

static const char introduction[] =
    "NAME\n"
    "    dcache-inspect - looks into snapshots, log segments and data directories\n"
    "\n"
    "SYNOPSIS\n"
    "    dcache-inspect [OPTION]... COMMAND PATH [ARGUMENT] [OPTION]...\n"
    "\n"
    "DESCRIPTION\n"
    "    PATH is a snapshot (snap-*.dcs), a log segment (log-*.dcl) or a data directory. "
    "Nothing\n"
    "    is written and no lock is taken: the directory may be that of a running node. Of a\n"
    "    directory the state at the end of its log is shown: the newest snapshot that is\n"
    "    whole, and the log behind it. What a snapshot shows is its state at its end.\n"
    "\n"
    "    Entries are read a few slots at a time, so memory stays small whatever the size of\n"
    "    the file. Of the log each effect is noted, in 11 bytes, until --memory is full (64 "
    "MB,\n"
    "    six million effects); a longer log is gone over again for each part of the slots "
    "that\n"
    "    is noted at a time. Keys that the log names take as much at most, besides 40 bytes "
    "for\n"
    "    each piece of a value (APPEND, SETRANGE, SETBIT) since the last whole one. Twenty\n"
    "    million effects on two million keys take 74 MB in all, and 166 MB with --memory 1gb.\n"
    "    The log is mapped: its pages in memory count as the program's (RSS), too, but the\n"
    "    system takes them back when it needs room.\n"
    "\n"
    "    A log segment alone (stats, keys, get) has what was changed, not what there is: the\n"
    "    last state of each key that it names. Whole is a key of which it has a whole value "
    "and\n"
    "    all changes since. Partial is one that it only changes (APPEND, SETRANGE, EXPIRE): "
    "it\n"
    "    exists, its value has so many bytes or more, its expiry is known if it was set; the\n"
    "    rest stands in an older segment, or in a snapshot. Removed is one that is gone at "
    "the\n"
    "    end. Of what was there before a flush nothing is left. Of keys that it doesn't name "
    "a\n"
    "    segment says nothing. Sums of 'stats' are those of whole keys.\n"
    "\n"
    "    Keyspaces are the databases, by number, and 'system': what the node keeps beside "
    "them,\n"
    "    which no client sees. Its entry flush:N says when database N was last flushed.\n"
    "\n"
    "    In text, bytes that aren't printable ASCII appear as \\xNN. In JSON, LSNs and "
    "versions\n"
    "    are strings, times are milliseconds since 1970, and what isn't UTF-8 stands in hex\n"
    "    digits under the name with _hex behind it.\n"
    "\n";

void help_all(FILE *to) {
    fprintf(to, "%sCOMMANDS\n", introduction);
    for (uint32_t i = 0; i < command_count; i++) {
        fprintf(to, "    %s %s\n", commands[i].name, commands[i].args);
        indented(to, commands[i].summary, 8);
        fputs("\n", to);
    }
    fputs("    'dcache-inspect COMMAND --help' says more of each.\n\nOPTIONS\n", to);
    option_texts(to, UINT32_MAX);
    fprintf(to, "\n%s\n", exit_status);
    fputs("EXAMPLES\n"
          "    What is in a data directory, and is it whole?\n"
          "        dcache-inspect summary /var/lib/dcache\n"
          "        dcache-inspect verify /var/lib/dcache\n"
          "    The twenty biggest keys of yesterday's backup:\n"
          "        dcache-inspect stats --top 20 snap-000000001234abcd-89abcdef01234567.dcs\n"
          "    Which program's keys take the room, when they are named PROGRAM:...:\n"
          "        dcache-inspect stats --prefixes 20 /var/lib/dcache\n"
          "    One session, and what happens to all of them:\n"
          "        dcache-inspect get /var/lib/dcache session:42\n"
          "        dcache-inspect log /var/lib/dcache --follow --match 'session:*'\n"
          "    How many keys expire, by program:\n"
          "        dcache-inspect keys /var/lib/dcache --json | jq -r 'select(.expires_ms).key' | "
          "wc -l\n"
          "    What has changed between two snapshots:\n"
          "        dcache-inspect diff snap-old.dcs snap-new.dcs\n",
          to);
}

void help_command(FILE *to, const struct command *c) {
    fprintf(to,
            "NAME\n    dcache-inspect %s - %s\n\nSYNOPSIS\n    dcache-inspect %s %s [OPTION]...\n",
            c->name, c->summary, c->name, c->args);
    fputs("\nDESCRIPTION\n", to);
    indented(to, c->help, 4);
    fputs("\nOPTIONS\n", to);
    option_texts(to, c->options);
    fprintf(to, "\n%s", exit_status);
}
