/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/traits.h"

static void add_word(struct buf *out, const char *word) {
    if (out->len > 0) {
        buf_append_str(out, " ");
    }
    buf_append_str(out, word);
}

/* In Redis's order. Flags of our own (WALK, ALL_SLOTS) are nobody's business. */
void traits_flags(const struct cmd *cmd, struct buf *out) {
    static const struct {
        uint32_t flag;
        const char *word;
    } words[] = {
        {F_WRITE, "write"},
        {F_READONLY, "readonly"},
        {F_DENYOOM, "denyoom"},
        {F_ADMIN, "admin"},
        {F_PUBSUB, "pubsub"},
        {F_NOSCRIPT, "noscript"},
        {F_LOADING, "loading"},
        {F_STALE, "stale"},
        {F_SKIP_SLOWLOG, "skip_slowlog"},
        {F_FAST, "fast"},
        {F_NO_AUTH, "no_auth"},
        {F_NO_MULTI, "no_multi"},
        {F_ALLOW_BUSY, "allow_busy"},
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (cmd->flags & words[i].flag) {
            add_word(out, words[i].word);
        }
    }
}

static bool is_dangerous(const struct cmd *cmd) {
    return (cmd->flags & F_ADMIN) || cmd->id == CMD_KEYS || cmd->id == CMD_RESTORE ||
           cmd->id == CMD_FLUSHDB || cmd->id == CMD_FLUSHALL || cmd->id == CMD_INFO;
}

/* Redis counts these as commands of the server, and yet as commands on the keyspace. */
static bool is_about_keys(const struct cmd *cmd) {
    return cmd->group == G_GENERIC || cmd->id == CMD_DBSIZE || cmd->id == CMD_FLUSHDB ||
           cmd->id == CMD_FLUSHALL;
}

/* A container has no category but its speed. */
void traits_categories(const struct cmd *cmd, struct buf *out) {
    bool acts = cmd->run != NULL;
    bool is_command = cmd->id == CMD_COMMAND || cmd->parent == CMD_COMMAND;
    const struct {
        bool holds;
        const char *word;
    } words[] = {
        {acts && is_about_keys(cmd), "@keyspace"},
        {cmd->flags & F_READONLY, "@read"},
        {cmd->flags & F_WRITE, "@write"},
        {acts && cmd->group == G_STRING, "@string"},
        {acts && cmd->group == G_BITMAP, "@bitmap"},
        {cmd->flags & F_PUBSUB, "@pubsub"},
        {cmd->flags & F_ADMIN, "@admin"},
        {cmd->flags & F_FAST, "@fast"},
        {!(cmd->flags & F_FAST), "@slow"},
        {is_dangerous(cmd), "@dangerous"},
        {acts && (cmd->group == G_CONNECTION || is_command), "@connection"},
        {acts && cmd->group == G_TRANSACTIONS, "@transaction"},
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (words[i].holds) {
            add_word(out, words[i].word);
        }
    }
}

/* --- tips -------------------------------------------------------------------------------------------------------- */

#define ALL_SHARDS_OK   "request_policy:all_shards response_policy:all_succeeded"
#define ALL_SHARDS_SUM  "request_policy:all_shards response_policy:agg_sum"
#define ALL_NODES_OK    "request_policy:all_nodes response_policy:all_succeeded"
#define MULTI_SHARD_SUM "request_policy:multi_shard response_policy:agg_sum"
#define SHARDS_SPECIAL  "nondeterministic_output request_policy:all_shards response_policy:special"
#define NODES_SPECIAL   "nondeterministic_output request_policy:all_nodes response_policy:special"

const char *traits_tips(const struct cmd *cmd) {
    static const char *const tips[CMD_COUNT] = {
        [CMD_MGET] = "request_policy:multi_shard",
        [CMD_MSET] = "request_policy:multi_shard response_policy:all_succeeded",
        [CMD_MSETNX] = "request_policy:multi_shard response_policy:agg_min",
        [CMD_DEL] = MULTI_SHARD_SUM,
        [CMD_UNLINK] = MULTI_SHARD_SUM,
        [CMD_EXISTS] = MULTI_SHARD_SUM,
        [CMD_TOUCH] = MULTI_SHARD_SUM,
        [CMD_TTL] = "nondeterministic_output",
        [CMD_PTTL] = "nondeterministic_output",
        [CMD_KEYS] = "request_policy:all_shards nondeterministic_output_order",
        [CMD_SCAN] = "nondeterministic_output request_policy:special",
        [CMD_RANDOMKEY] = "request_policy:all_shards nondeterministic_output",
        [CMD_DBSIZE] = ALL_SHARDS_SUM,
        [CMD_OBJECT_IDLETIME] = "nondeterministic_output",
        [CMD_OBJECT_FREQ] = "nondeterministic_output",
        [CMD_OBJECT_ENCODING] = "nondeterministic_output",
        [CMD_OBJECT_REFCOUNT] = "nondeterministic_output",
        [CMD_MEMORY_MALLOC_STATS] = SHARDS_SPECIAL,
        [CMD_MEMORY_DOCTOR] = SHARDS_SPECIAL,
        [CMD_MEMORY_STATS] = SHARDS_SPECIAL,
        [CMD_MEMORY_PURGE] = ALL_SHARDS_OK,
        [CMD_DUMP] = "nondeterministic_output",
        [CMD_FLUSHDB] = ALL_SHARDS_OK,
        [CMD_FLUSHALL] = ALL_SHARDS_OK,
        [CMD_PING] = ALL_SHARDS_OK,
        [CMD_CLIENT_LIST] = "nondeterministic_output",
        [CMD_CLIENT_INFO] = "nondeterministic_output",
        [CMD_COMMAND] = "nondeterministic_output_order",
        [CMD_COMMAND_DOCS] = "nondeterministic_output_order",
        [CMD_COMMAND_LIST] = "nondeterministic_output_order",
        [CMD_COMMAND_INFO] = "nondeterministic_output_order",
        [CMD_INFO] = SHARDS_SPECIAL,
        [CMD_CONFIG_SET] = ALL_NODES_OK,
        [CMD_TIME] = "nondeterministic_output",
        [CMD_SLOWLOG_RESET] = ALL_NODES_OK,
        [CMD_SLOWLOG_LEN] =
            "request_policy:all_nodes response_policy:agg_sum nondeterministic_output",
        [CMD_SLOWLOG_GET] = "request_policy:all_nodes nondeterministic_output",
        [CMD_LATENCY_DOCTOR] = NODES_SPECIAL,
        [CMD_LATENCY_HISTOGRAM] = NODES_SPECIAL,
        [CMD_LATENCY_LATEST] = NODES_SPECIAL,
        [CMD_LATENCY_RESET] = ALL_NODES_OK,
        [CMD_LATENCY_GRAPH] = NODES_SPECIAL,
        [CMD_LATENCY_HISTORY] = NODES_SPECIAL,
    };
    return tips[cmd->id] != NULL ? tips[cmd->id] : "";
}

/* --- keys -------------------------------------------------------------------------------------------------------- */

/* Where it isn't "RO access" for a reader and "RW access update" for a writer. */
static const char *key_flags(const struct cmd *cmd) {
    static const char *const flags[CMD_COUNT] = {
        [CMD_SET] = "RW access update variable_flags",
        [CMD_SETNX] = "OW insert",
        [CMD_SETEX] = "OW update",
        [CMD_PSETEX] = "OW update",
        [CMD_MSET] = "OW update",
        [CMD_MSETNX] = "OW insert",
        [CMD_APPEND] = "RW insert",
        [CMD_STRLEN] = "RO",
        [CMD_SETRANGE] = "RW update",
        [CMD_GETDEL] = "RW access delete",
        [CMD_DELEX] = "RW access delete",
        [CMD_BITOP] = "OW update",
        [CMD_BITFIELD] = "RW access update variable_flags",
        [CMD_DEL] = "RM delete",
        [CMD_UNLINK] = "RM delete",
        [CMD_EXISTS] = "RO",
        [CMD_TYPE] = "RO",
        [CMD_TOUCH] = "RO",
        [CMD_EXPIRE] = "RW update",
        [CMD_PEXPIRE] = "RW update",
        [CMD_EXPIREAT] = "RW update",
        [CMD_PEXPIREAT] = "RW update",
        [CMD_PERSIST] = "RW update",
        [CMD_RENAME] = "RW access delete",
        [CMD_RENAMENX] = "RW access delete",
        [CMD_COPY] = "RO access",
        [CMD_RESTORE] = "OW update",
        [CMD_OBJECT_IDLETIME] = "RO",
        [CMD_OBJECT_FREQ] = "RO",
        [CMD_OBJECT_ENCODING] = "RO",
        [CMD_OBJECT_REFCOUNT] = "RO",
        [CMD_MEMORY_USAGE] = "RO",
        [CMD_WATCH] = "RO",
        [CMD_WATCHVER] = "RO",
        [CMD_SSUBSCRIBE] = "not_key",
        [CMD_SUNSUBSCRIBE] = "not_key",
        [CMD_SPUBLISH] = "not_key",
    };
    if (flags[cmd->id] != NULL) {
        return flags[cmd->id];
    }
    return (cmd->flags & F_WRITE) ? "RW access update" : "RO access";
}

/* What happens to the keys behind the first, where that is something else. */
static const char *later_key_flags(const struct cmd *cmd) {
    static const char *const flags[CMD_COUNT] = {
        [CMD_BITOP] = "RO access",
        [CMD_RENAME] = "OW update",
        [CMD_RENAMENX] = "OW insert",
        [CMD_COPY] = "OW update",
    };
    return flags[cmd->id];
}

uint32_t traits_key_specs(const struct cmd *cmd, struct key_spec out[KEY_SPECS_MAX]) {
    const char *later = later_key_flags(cmd);
    int first = cmd->key_first;
    int last = cmd->key_last < 0 ? cmd->key_last : cmd->key_last - first;
    if (first == 0) {
        return 0;
    }
    if (later == NULL) {
        out[0] = (struct key_spec){key_flags(cmd), first, last, cmd->key_step};
        return 1;
    }
    out[0] = (struct key_spec){key_flags(cmd), first, 0, 1};
    out[1] = (struct key_spec){later, first + 1, last < 0 ? last : last - 1, cmd->key_step};
    return 2;
}
