/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/conf.h"

#include "server/base/assert.h"
#include "server/base/conf_priv.h"
#include "server/base/glob.h"
#include "server/base/mem.h"
#include "server/base/num.h"

#include <inttypes.h>
#include <stdio.h>

/* clang-format off */
const struct conf_row conf_rows[CONF_COUNT] = {
#define CONF_INT(name, field, def, min, max, flags, help) \
    {name, CONF_KIND_INT, flags, def, min, max, NULL, help},
#define CONF_SIZE(name, field, def, min, max, flags, help) \
    {name, CONF_KIND_SIZE, flags, def, min, max, NULL, help},
#define CONF_BOOL(name, field, def, flags, help) \
    {name, CONF_KIND_BOOL, flags, def, 0, 1, "no|yes", help},
#define CONF_ENUM(name, field, def, words, flags, help) \
    {name, CONF_KIND_ENUM, flags, def, 0, 0, words, help},
#define CONF_TEXT(name, field, def, flags, help) \
    {name, CONF_KIND_TEXT, flags, 0, 0, 0, def, help},
#define CONF_COMPAT(name, field, def) \
    {name, CONF_KIND_TEXT, LIVE | WORDS | COMPAT, 0, 0, 0, def, ""},
#include "server/base/conf.def"
};
/* clang-format on */

const char *conf_name(enum conf_id id) {
    dc_assert((unsigned)id < CONF_COUNT);
    return conf_rows[id].name;
}

bool conf_is_compat(enum conf_id id) {
    dc_assert((unsigned)id < CONF_COUNT);
    return conf_rows[id].flags & COMPAT;
}

/* Older names of Redis. */
static const struct {
    const char *name;
    enum conf_id id;
} aliases[] = {
    {"slaveof", CONF_ID_replicaof},
    {"slave-priority", CONF_ID_replica_priority},
    {"slave-announce-ip", CONF_ID_replica_announce_ip},
    {"slave-announce-port", CONF_ID_replica_announce_port},
    {"slave-serve-stale-data", CONF_ID_replica_serve_stale_data},
    {"slave-read-only", CONF_ID_replica_read_only},
    {"slave-lazy-flush", CONF_ID_replica_lazy_flush},
    {"repl-ping-slave-period", CONF_ID_repl_ping_replica_period},
    {"min-slaves-to-write", CONF_ID_min_replicas_to_write},
    {"min-slaves-max-lag", CONF_ID_min_replicas_max_lag},
};

static enum conf_id find_alias(struct bytes name) {
    for (size_t i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++) {
        if (bytes_is(name, aliases[i].name)) {
            return aliases[i].id;
        }
    }
    return CONF_COUNT;
}

/* As the table writes the name that was asked for. */
static const char *name_as_asked(enum conf_id id, struct bytes asked) {
    for (size_t i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++) {
        if (bytes_is(asked, aliases[i].name)) {
            return aliases[i].name;
        }
    }
    return conf_rows[id].name;
}

enum conf_id conf_find(struct bytes name) {
    unsigned id = 0;
    while (id < CONF_COUNT && !bytes_is(name, conf_rows[id].name)) {
        id++;
    }
    return id < CONF_COUNT ? (enum conf_id)id : find_alias(name);
}

/* --- life --- */

void conf_init(struct conf *c) {
    lock_init(&c->lock, LOCK_RANK_CONF);
    c->file = NULL;
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        const struct conf_row *row = &conf_rows[id];
        atomic_init(&c->numbers[id], row->def);
        c->texts[id] = row->kind == CONF_KIND_TEXT ? mem_must_strdup(row->text) : NULL;
    }
}

void conf_fini(struct conf *c) {
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        mem_free(c->texts[id]);
    }
    mem_free(c->file);
    lock_fini(&c->lock);
}

static int64_t number_of(const struct conf *c, enum conf_id id) {
    return atomic_load_explicit(&c->numbers[id], memory_order_relaxed);
}

static void set_number(struct conf *c, enum conf_id id, int64_t value) {
    atomic_store_explicit(&c->numbers[id], value, memory_order_relaxed);
}

void conf_draft_begin_locked(struct conf *draft, const struct conf *c) {
    lock_init(&draft->lock, LOCK_RANK_CONF);
    draft->file = c->file != NULL ? mem_must_strdup(c->file) : NULL;
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        atomic_init(&draft->numbers[id], number_of(c, (enum conf_id)id));
        draft->texts[id] = c->texts[id] != NULL ? mem_must_strdup(c->texts[id]) : NULL;
    }
}

void conf_draft_commit_locked(struct conf *draft, struct conf *c) {
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        char *old = c->texts[id];
        c->texts[id] = draft->texts[id];
        draft->texts[id] = old;
        set_number(c, (enum conf_id)id, number_of(draft, (enum conf_id)id));
    }
}

/* --- words of an enum --- */

/* The word at 'index', cut off the list "a|b|c"; an empty view behind the last. */
static struct bytes word_at(const char *words, int64_t index) {
    while (index > 0 && *words != '\0') {
        size_t len = strcspn(words, "|");
        words += len + (words[len] == '|');
        index--;
    }
    return bytes_of(words, strcspn(words, "|"));
}

static bool parse_word(const char *words, struct bytes value, int64_t *out) {
    for (int64_t i = 0;; i++) {
        struct bytes word = word_at(words, i);
        if (word.len == 0) {
            return false;
        }
        if (word.len == value.len && strncasecmp(word.ptr, value.ptr, word.len) == 0) {
            *out = i;
            return true;
        }
    }
}

static void list_words(const char *words, struct conf_why *why) {
    size_t len = (size_t)snprintf(why->text, sizeof(why->text),
                                  "argument(s) must be one of the following: ");
    for (; *words != '\0' && len + 2 < sizeof(why->text); words++) {
        why->text[len++] = *words == '|' ? ',' : *words;
        if (*words == '|') {
            why->text[len++] = ' ';
        }
    }
    why->text[len] = '\0';
}

/* --- values --- */

static bool refuse(struct conf_why *why, const char *text) {
    snprintf(why->text, sizeof(why->text), "%s", text);
    return false;
}

static bool parse_number(const struct conf_row *row, struct bytes value, int64_t *out,
                         struct conf_why *why) {
    if (row->kind == CONF_KIND_BOOL) {
        return parse_word(row->text, value, out) || refuse(why, "argument must be 'yes' or 'no'");
    }
    if (row->kind == CONF_KIND_ENUM) {
        if (!parse_word(row->text, value, out)) {
            list_words(row->text, why);
            return false;
        }
        return true;
    }
    if (row->kind == CONF_KIND_SIZE && !num_parse_size(value, out)) {
        return refuse(why, "argument must be a memory value");
    }
    if (row->kind == CONF_KIND_INT && !num_parse_i64(value, out)) {
        return refuse(why, "argument couldn't be parsed into an integer");
    }
    if (*out < row->min || *out > row->max) {
        snprintf(why->text, sizeof(why->text),
                 "argument must be between %" PRId64 " and %" PRId64 " inclusive", row->min,
                 row->max);
        return false;
    }
    return true;
}

static bool put_text(struct conf *draft, enum conf_id id, struct bytes value,
                     struct conf_why *why) {
    if (id == CONF_ID_notify_keyspace_events && value.len > 0) {
        value.len = strnlen(value.ptr, value.len); /* a NUL ends the letters, as in Redis */
    }
    if (value.len > CONF_VALUE_MAX ||
        (value.len > 0 && memchr(value.ptr, '\0', value.len) != NULL)) {
        return refuse(why, "argument is too long or contains a NUL byte");
    }
    struct buf canonical;
    buf_init(&canonical, 0);
    bool fits = conf_canonical(id, value, draft->texts[id], &canonical, why);
    if (canonical.failed) {
        fits = refuse(why, "out of memory");
    }
    if (fits) {
        mem_free(draft->texts[id]);
        draft->texts[id] = mem_must_alloc(canonical.len + 1);
        memcpy(draft->texts[id], canonical.len > 0 ? canonical.ptr : "", canonical.len);
        draft->texts[id][canonical.len] = '\0';
    }
    buf_fini(&canonical);
    return fits;
}

bool conf_put(struct conf *draft, enum conf_id id, struct bytes value, struct conf_why *why) {
    if (conf_rows[id].kind == CONF_KIND_TEXT) {
        return put_text(draft, id, value, why);
    }
    int64_t number;
    if (!parse_number(&conf_rows[id], value, &number, why)) {
        return false;
    }
    set_number(draft, id, number);
    return true;
}

void conf_format(const struct conf *c, enum conf_id id, struct buf *out) {
    const struct conf_row *row = &conf_rows[id];
    switch (row->kind) {
    case CONF_KIND_INT:
    case CONF_KIND_SIZE:
        buf_printf(out, "%" PRId64, number_of(c, id));
        return;
    case CONF_KIND_BOOL:
    case CONF_KIND_ENUM:
        buf_append_bytes(out, word_at(row->text, number_of(c, id)));
        return;
    case CONF_KIND_TEXT:
        buf_append_str(out, c->texts[id]);
        return;
    }
    dc_unreachable();
}

bool conf_same(const struct conf *a, const struct conf *b, enum conf_id id) {
    return conf_rows[id].kind == CONF_KIND_TEXT ? strcmp(a->texts[id], b->texts[id]) == 0
                                                : number_of(a, id) == number_of(b, id);
}

/* --- checks across options --- */

enum dc_err conf_validate(const struct conf *c) {
    if (conf_get(c, daemonize)) {
        return dc_fail(DC_ECONF,
                       "daemonize: only 'no' is possible, let a service manager start the node");
    }
    if (conf_get(c, port) == 0 && c->texts[CONF_ID_unixsocket][0] == '\0') {
        return dc_fail(DC_ECONF,
                       "port is 0 and there is no unixsocket: the node would listen nowhere");
    }
    return DC_OK;
}

/* --- CONFIG GET and SET --- */

size_t conf_text(struct conf *c, enum conf_id id, char *to, size_t size) {
    dc_assert((unsigned)id < CONF_COUNT && conf_rows[id].kind == CONF_KIND_TEXT && size > 0);
    lock_acquire(&c->lock);
    size_t len = strlen(c->texts[id]);
    size_t shown = len < size ? len : size - 1;
    memcpy(to, c->texts[id], shown);
    lock_release(&c->lock);
    to[shown] = '\0';
    return len;
}

void conf_set_text(struct conf *c, enum conf_id id, struct bytes value) {
    dc_assert((unsigned)id < CONF_COUNT && conf_rows[id].kind == CONF_KIND_TEXT);
    dc_assert(value.len <= CONF_VALUE_MAX);
    char *text = mem_must_alloc(value.len + 1);
    memcpy(text, value.ptr, value.len);
    text[value.len] = '\0';
    lock_acquire(&c->lock);
    char *old = c->texts[id];
    c->texts[id] = text;
    lock_release(&c->lock);
    mem_free(old);
}

/* Longer names are cut in messages. */
enum { NAME_SHOWN_MAX = ERR_TEXT_MAX / 2 };

static enum dc_err fail_set(struct bytes name, const char *why) {
    return dc_fail(DC_ECONF, "CONFIG SET failed (possibly related to argument '%.*s') - %s",
                   (int)(name.len < NAME_SHOWN_MAX ? name.len : NAME_SHOWN_MAX), name.ptr, why);
}

/* Names are judged before the first value, in the order in which they stand. */
static enum dc_err check_names(const struct bytes *pairs, size_t pair_count) {
    bool seen[CONF_COUNT] = {false};
    for (size_t i = 0; i < pair_count; i++) {
        struct bytes name = pairs[2 * i];
        enum conf_id id = conf_find(name);
        if (id == CONF_COUNT) {
            return dc_fail(DC_ECONF,
                           "Unknown option or number of arguments for CONFIG SET - '%.*s'",
                           (int)(name.len < NAME_SHOWN_MAX ? name.len : NAME_SHOWN_MAX), name.ptr);
        }
        if (!(conf_rows[id].flags & LIVE)) {
            return fail_set(name, "can't set immutable config");
        }
        if (seen[id]) {
            return fail_set(name, "duplicate parameter");
        }
        seen[id] = true;
    }
    return DC_OK;
}

enum dc_err conf_set(struct conf *c, const struct bytes *pairs, size_t pair_count) {
    enum dc_err err = check_names(pairs, pair_count);
    if (err != DC_OK) {
        return err;
    }
    struct conf draft;
    lock_acquire(&c->lock);
    conf_draft_begin_locked(&draft, c);
    for (size_t i = 0; i < pair_count && err == DC_OK; i++) {
        enum conf_id id = conf_find(pairs[2 * i]);
        struct conf_why why;
        if (!conf_put(&draft, id, pairs[2 * i + 1], &why)) {
            err = fail_set(bytes_str(name_as_asked(id, pairs[2 * i])), why.text);
        }
    }
    if (err == DC_OK) {
        err = conf_validate(&draft); /* I2 */
    }
    if (err == DC_OK) {
        conf_draft_commit_locked(&draft, c);
    }
    lock_release(&c->lock);
    conf_fini(&draft);
    return err;
}

static void give(struct conf *c, enum conf_id id, struct bytes name, conf_each_fn each, void *arg) {
    struct buf value;
    buf_init(&value, 0);
    conf_format(c, id, &value);
    bool hidden = (conf_rows[id].flags & HIDDEN) && value.len > 0;
    each(arg, name, hidden ? BYTES("(hidden)") : buf_bytes(&value));
    buf_fini(&value);
}

static bool has_wildcard(struct bytes pattern) {
    for (size_t i = 0; i < pattern.len; i++) {
        if (strchr("[*?", pattern.ptr[i]) != NULL && pattern.ptr[i] != '\0') {
            return true;
        }
    }
    return false;
}

void conf_each(struct conf *c, const struct bytes *patterns, size_t count, conf_each_fn each,
               void *arg) {
    lock_acquire(&c->lock);
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        struct bytes name = bytes_str(conf_rows[id].name);
        for (size_t i = 0; i < count; i++) {
            if (!glob_match(patterns[i], name, true)) {
                continue;
            }
            give(c, (enum conf_id)id, has_wildcard(patterns[i]) ? name : patterns[i], each, arg);
            break;
        }
    }
    for (size_t i = 0; i < count; i++) {
        enum conf_id id = find_alias(patterns[i]);
        if (id != CONF_COUNT) {
            give(c, id, patterns[i], each, arg);
        }
    }
    lock_release(&c->lock);
}

void conf_each_changed(struct conf *c, conf_each_fn each, void *arg) {
    struct conf defaults;
    conf_init(&defaults);
    lock_acquire(&c->lock);
    for (unsigned id = 0; id < CONF_COUNT; id++) {
        if (!conf_same(c, &defaults, (enum conf_id)id)) {
            give(c, (enum conf_id)id, bytes_str(conf_rows[id].name), each, arg);
        }
    }
    lock_release(&c->lock);
    conf_fini(&defaults);
}
