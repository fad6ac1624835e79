/* SPDX-License-Identifier: BSD-3-Clause */
/* COMMAND: the table of commands as clients, proxies and redis-cli read it. */
#include "server/base/glob.h"
#include "server/cmd/ctx.h"
#include "server/cmd/handlers.h"
#include "server/cmd/traits.h"

/* --- lists of words ---------------------------------------------------------------------------------------------- */

/* Cuts the next word off; false when there is none. */
static bool next_word(struct bytes *text, struct bytes *word) {
    if (text->len == 0) {
        return false;
    }
    const char *blank = memchr(text->ptr, ' ', text->len);
    size_t len = blank != NULL ? (size_t)(blank - text->ptr) : text->len;
    *word = bytes_of(text->ptr, len);
    len += blank != NULL;
    *text = bytes_of(text->ptr + len, text->len - len);
    return true;
}

static int64_t count_words(struct bytes text) {
    struct bytes word;
    int64_t count = 0;
    while (next_word(&text, &word)) {
        count++;
    }
    return count;
}

static void reply_words(struct reply *r, struct bytes text, bool as_status) {
    struct bytes word;
    char status[64];
    reply_set(r, count_words(text));
    while (next_word(&text, &word)) {
        if (as_status && word.len < sizeof(status)) {
            memcpy(status, word.ptr, word.len);
            status[word.len] = '\0';
            reply_status(r, status);
        } else {
            reply_bulk(r, word);
        }
    }
}

/* Words that a trait writes. */
static void reply_trait(struct reply *r, const struct cmd *cmd,
                        void (*write)(const struct cmd *cmd, struct buf *out)) {
    struct buf words;
    buf_init(&words, 0);
    write(cmd, &words);
    reply_words(r, buf_bytes(&words), true);
    buf_fini(&words);
}

/* --- subcommands ------------------------------------------------------------------------------------------------- */

/* The next subcommand behind 'from', CMD_COUNT = none. */
static uint32_t next_sub(const struct cmd *cmd, uint32_t from) {
    uint32_t id = from + 1;
    while (id < CMD_COUNT && cmd_table[id].parent != cmd->id) {
        id++;
    }
    return id;
}

static int64_t count_subs(const struct cmd *cmd) {
    int64_t count = 0;
    for (uint32_t id = next_sub(cmd, cmd->id); id < CMD_COUNT; id = next_sub(cmd, id)) {
        count++;
    }
    return count;
}

static int64_t count_top(void) {
    int64_t count = 0;
    for (uint32_t id = 0; id < CMD_COUNT; id++) {
        count += cmd_table[id].parent == CMD_NONE;
    }
    return count;
}

/* --- INFO -------------------------------------------------------------------------------------------------------- */

static void reply_key_spec(struct reply *r, const struct key_spec *spec) {
    reply_map(r, 3);
    reply_bulk_str(r, "flags");
    reply_words(r, bytes_str(spec->flags), true);
    reply_bulk_str(r, "begin_search");
    reply_map(r, 2);
    reply_bulk_str(r, "type");
    reply_bulk_str(r, "index");
    reply_bulk_str(r, "spec");
    reply_map(r, 1);
    reply_bulk_str(r, "index");
    reply_int(r, spec->first);
    reply_bulk_str(r, "find_keys");
    reply_map(r, 2);
    reply_bulk_str(r, "type");
    reply_bulk_str(r, "range");
    reply_bulk_str(r, "spec");
    reply_map(r, 3);
    reply_bulk_str(r, "lastkey");
    reply_int(r, spec->last);
    reply_bulk_str(r, "keystep");
    reply_int(r, spec->step);
    reply_bulk_str(r, "limit");
    reply_int(r, 0);
}

static void reply_key_specs(struct reply *r, const struct cmd *cmd) {
    struct key_spec specs[KEY_SPECS_MAX];
    uint32_t count = traits_key_specs(cmd, specs);
    reply_set(r, count);
    for (uint32_t i = 0; i < count; i++) {
        reply_key_spec(r, &specs[i]);
    }
}

/* The ten fields but for the subcommands. */
static void reply_info_fields(struct reply *r, const struct cmd *cmd) {
    reply_array(r, 10);
    reply_bulk_str(r, cmd->name);
    reply_int(r, cmd->arity);
    reply_trait(r, cmd, traits_flags);
    reply_int(r, cmd->key_first);
    reply_int(r, cmd->key_last);
    reply_int(r, cmd->key_step);
    reply_trait(r, cmd, traits_categories);
    reply_words(r, bytes_str(traits_tips(cmd)), false);
    reply_key_specs(r, cmd);
}

static void reply_info(struct reply *r, const struct cmd *cmd) {
    int64_t subs = cmd->parent == CMD_NONE ? count_subs(cmd) : 0;
    reply_info_fields(r, cmd);
    if (subs == 0) {
        reply_set(r, 0);
        return;
    }
    reply_array(r, subs);
    for (uint32_t id = next_sub(cmd, cmd->id); id < CMD_COUNT; id = next_sub(cmd, id)) {
        reply_info_fields(r, &cmd_table[id]);
        reply_set(r, 0);
    }
}

enum dc_err cmd_command(struct cmd_ctx *ctx) {
    reply_array(ctx->reply, count_top());
    for (uint32_t id = 0; id < CMD_COUNT; id++) {
        if (cmd_table[id].parent == CMD_NONE) {
            reply_info(ctx->reply, &cmd_table[id]);
        }
    }
    return DC_OK;
}

enum dc_err cmd_command_info(struct cmd_ctx *ctx) {
    if (ctx->argc == 2) {
        return cmd_command(ctx);
    }
    reply_array(ctx->reply, ctx->argc - 2);
    for (uint32_t i = 2; i < ctx->argc; i++) {
        const struct cmd *cmd = cmd_by_name(ctx->argv[i]);
        if (cmd == NULL) {
            reply_null_array(ctx->reply);
        } else {
            reply_info(ctx->reply, cmd);
        }
    }
    return DC_OK;
}

enum dc_err cmd_command_count(struct cmd_ctx *ctx) {
    reply_int(ctx->reply, count_top());
    return DC_OK;
}

/* --- LIST -------------------------------------------------------------------------------------------------------- */

enum filter { FILTER_NONE, FILTER_MODULE, FILTER_CATEGORY, FILTER_PATTERN };

static enum dc_err read_filter(const struct cmd_ctx *ctx, enum filter *f) {
    static const struct {
        const char *word;
        enum filter filter;
    } filters[] = {
        {"module", FILTER_MODULE}, {"aclcat", FILTER_CATEGORY}, {"pattern", FILTER_PATTERN}};
    *f = FILTER_NONE;
    if (ctx->argc == 2) {
        return DC_OK;
    }
    for (size_t i = 0; ctx->argc == 5 && ctx_arg_is(ctx, 2, "filterby") && i < 3; i++) {
        if (ctx_arg_is(ctx, 3, filters[i].word)) {
            *f = filters[i].filter;
            return DC_OK;
        }
    }
    return DC_ESYNTAX;
}

static bool has_category(const struct cmd *cmd, struct bytes wanted) {
    struct buf words;
    struct bytes word;
    bool found = false;
    buf_init(&words, 0);
    traits_categories(cmd, &words);
    struct bytes rest = buf_bytes(&words);
    while (!found && next_word(&rest, &word)) {
        found =
            word.len == wanted.len + 1 && strncasecmp(word.ptr + 1, wanted.ptr, wanted.len) == 0;
    }
    buf_fini(&words);
    return found;
}

static bool passes(enum filter f, const struct cmd *cmd, struct bytes arg) {
    switch (f) {
    case FILTER_NONE:
        return true;
    case FILTER_MODULE:
        return false; /* there are none */
    case FILTER_CATEGORY:
        return has_category(cmd, arg);
    case FILTER_PATTERN:
        return glob_match(arg, bytes_str(cmd->name), true);
    }
    dc_unreachable();
}

enum dc_err cmd_command_list(struct cmd_ctx *ctx) {
    enum filter f;
    bool chosen[CMD_COUNT];
    int64_t count = 0;
    enum dc_err err = read_filter(ctx, &f);
    if (err != DC_OK) {
        return err;
    }
    for (uint32_t id = 0; id < CMD_COUNT; id++) {
        chosen[id] = passes(f, &cmd_table[id], f == FILTER_NONE ? BYTES("") : ctx->argv[4]);
        count += chosen[id];
    }
    reply_array(ctx->reply, count);
    for (uint32_t id = 0; id < CMD_COUNT; id++) {
        if (chosen[id]) {
            reply_bulk_str(ctx->reply, cmd_table[id].name);
        }
    }
    return DC_OK;
}

/* --- DOCS -------------------------------------------------------------------------------------------------------- */

/* Arguments are told where keys are all there is: the table knows no others. */
static uint32_t doc_arguments(const struct cmd *cmd) {
    bool many = cmd->key_last == -1 && cmd->arity == -2 && cmd->key_step == 1;
    bool fixed = cmd->key_last > 0 && cmd->arity == cmd->key_last + 1;
    return cmd->key_first != 1 || !(many || fixed) ? 0 : many ? 1 : (uint32_t)cmd->key_last;
}

static void reply_argument(struct reply *r, const struct cmd *cmd, uint32_t i) {
    struct key_spec specs[KEY_SPECS_MAX];
    uint32_t count = traits_key_specs(cmd, specs);
    bool many = cmd->key_last < 0;
    reply_map(r, many ? 4 : 3);
    reply_bulk_str(r, "name");
    reply_bulk_str(r, i == 0 ? "key" : "other-key");
    reply_bulk_str(r, "type");
    reply_bulk_str(r, "key");
    reply_bulk_str(r, "key_spec_index");
    reply_int(r, i < count ? i : count - 1);
    if (many) {
        reply_bulk_str(r, "flags");
        reply_words(r, BYTES("multiple"), true);
    }
}

static void reply_doc_fields(struct reply *r, const struct cmd *cmd) {
    uint32_t arguments = doc_arguments(cmd);
    reply_bulk_str(r, "summary");
    reply_bulk_str(r, cmd->summary);
    reply_bulk_str(r, "since");
    reply_bulk_str(r, cmd->since);
    reply_bulk_str(r, "group");
    reply_bulk_str(r, cmd_group_name(cmd->group));
    if (arguments > 0) {
        reply_bulk_str(r, "arguments");
        reply_array(r, arguments);
    }
    for (uint32_t i = 0; i < arguments; i++) {
        reply_argument(r, cmd, i);
    }
}

static void reply_doc(struct reply *r, const struct cmd *cmd) {
    int64_t subs = cmd->parent == CMD_NONE ? count_subs(cmd) : 0;
    reply_bulk_str(r, cmd->name);
    reply_map(r, 3 + (doc_arguments(cmd) > 0) + (subs > 0));
    reply_doc_fields(r, cmd);
    if (subs == 0) {
        return;
    }
    reply_bulk_str(r, "subcommands");
    reply_map(r, subs);
    for (uint32_t id = next_sub(cmd, cmd->id); id < CMD_COUNT; id = next_sub(cmd, id)) {
        reply_bulk_str(r, cmd_table[id].name);
        reply_map(r, 3 + (doc_arguments(&cmd_table[id]) > 0));
        reply_doc_fields(r, &cmd_table[id]);
    }
}

enum dc_err cmd_command_docs(struct cmd_ctx *ctx) {
    int64_t known = 0;
    if (ctx->argc == 2) {
        reply_map(ctx->reply, count_top());
        for (uint32_t id = 0; id < CMD_COUNT; id++) {
            if (cmd_table[id].parent == CMD_NONE) {
                reply_doc(ctx->reply, &cmd_table[id]);
            }
        }
        return DC_OK;
    }
    for (uint32_t i = 2; i < ctx->argc; i++) {
        known += cmd_by_name(ctx->argv[i]) != NULL;
    }
    reply_map(ctx->reply, known);
    for (uint32_t i = 2; i < ctx->argc; i++) {
        const struct cmd *cmd = cmd_by_name(ctx->argv[i]);
        if (cmd != NULL) {
            reply_doc(ctx->reply, cmd);
        }
    }
    return DC_OK;
}

/* --- GETKEYS ----------------------------------------------------------------------------------------------------- */

/* The command of the line that follows, and its keys. */
static enum dc_err read_line(const struct cmd_ctx *ctx, const struct cmd **cmd, uint32_t *keys) {
    struct key_spec specs[KEY_SPECS_MAX];
    uint32_t argc = ctx->argc - 2;
    *cmd = cmd_lookup(ctx->argv + 2, argc);
    if (*cmd == NULL) {
        return dc_fail(DC_EGENERIC, "Invalid command specified");
    }
    if (traits_key_specs(*cmd, specs) == 0 || strcmp(specs[0].flags, "not_key") == 0) {
        return dc_fail(DC_EGENERIC, "The command has no key arguments");
    }
    if (!cmd_arity_fits(*cmd, argc)) {
        return dc_fail(DC_EGENERIC, "Invalid number of arguments specified for command");
    }
    *keys = cmd_key_count(*cmd, argc);
    return *keys > 0 ? DC_OK : dc_fail(DC_EGENERIC, "Invalid arguments specified for command");
}

enum dc_err cmd_command_getkeys(struct cmd_ctx *ctx) {
    const struct cmd *cmd;
    uint32_t keys;
    enum dc_err err = read_line(ctx, &cmd, &keys);
    if (err != DC_OK) {
        return err;
    }
    reply_array(ctx->reply, keys);
    for (uint32_t i = 0; i < keys; i++) {
        reply_bulk(ctx->reply, ctx->argv[2 + cmd_key_index(cmd, i)]);
    }
    return DC_OK;
}

enum dc_err cmd_command_getkeysandflags(struct cmd_ctx *ctx) {
    const struct cmd *cmd;
    uint32_t keys;
    struct key_spec specs[KEY_SPECS_MAX];
    enum dc_err err = read_line(ctx, &cmd, &keys);
    if (err != DC_OK) {
        return err;
    }
    uint32_t count = traits_key_specs(cmd, specs);
    reply_array(ctx->reply, keys);
    for (uint32_t i = 0; i < keys; i++) {
        reply_array(ctx->reply, 2);
        reply_bulk(ctx->reply, ctx->argv[2 + cmd_key_index(cmd, i)]);
        reply_words(ctx->reply, bytes_str(specs[i < count ? i : count - 1].flags), true);
    }
    return DC_OK;
}

enum dc_err cmd_command_help(struct cmd_ctx *ctx) {
    static const char *const lines[] = {
        "(no subcommand)",
        "    Return details about all Redis commands.",
        "COUNT",
        "    Return the total number of commands in this Redis server.",
        "LIST",
        "    Return a list of all commands in this Redis server.",
        "INFO [<command-name> ...]",
        "    Return details about multiple Redis commands.",
        "    If no command names are given, documentation details for all",
        "    commands are returned.",
        "DOCS [<command-name> ...]",
        "    Return documentation details about multiple Redis commands.",
        "    If no command names are given, documentation details for all",
        "    commands are returned.",
        "GETKEYS <full-command>",
        "    Return the keys from a full Redis command.",
        "GETKEYSANDFLAGS <full-command>",
        "    Return the keys and the access flags from a full Redis command.",
        NULL,
    };
    ctx_reply_help(ctx, lines);
    return DC_OK;
}
