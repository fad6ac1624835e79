/* SPDX-License-Identifier: BSD-3-Clause */
/* Node, chain, texts and catalogue, by the few calls that meta.c has for them. Results are copied out of the transaction before
 * anybody sees them, so callers may do what they like. */
#include "persist/meta_priv.h"
#include "server/base/assert.h"
#include "server/base/buf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- node, chain, texts ------------------------------------------------------------------------------------------------- */

static int get_node(struct meta *m, struct MDB_txn *txn, void *arg) {
    struct bytes payload;
    bool found;
    int rc = meta_get_value(m, txn, META_NODE, "node", &payload, &found);
    return found && rc == 0 && !meta_node_decode(payload, arg) ? meta_damage() : rc;
}

enum dc_err meta_get_node(struct meta *m, struct meta_node *out) {
    *out = (struct meta_node){.known = false};
    return meta_run(m, false, "node", get_node, out);
}

/* A value to be written. */
struct record {
    enum meta_kind kind;
    const char *name;
    struct bytes payload;
};

static int put_record(struct meta *m, struct MDB_txn *txn, void *arg) {
    const struct record *r = arg;
    return meta_put_value(m, txn, r->kind, r->name, r->payload);
}

/* Writes what was encoded, and frees it. */
static enum dc_err put_encoded(struct meta *m, enum meta_kind kind, const char *name,
                               struct buf *payload) {
    struct record r = {kind, name, buf_bytes(payload)};
    enum dc_err err = payload->failed ? dc_fail(DC_ENOMEM, "no memory for the metadata")
                                      : meta_run(m, true, name, put_record, &r);
    buf_fini(payload);
    return err;
}

enum dc_err meta_put_node(struct meta *m, const struct meta_node *node) {
    struct buf payload;
    buf_init(&payload, 0);
    meta_node_encode(node, &payload);
    return put_encoded(m, META_NODE, "node", &payload);
}

/* A copy of one payload. */
struct fetched {
    const char *name;
    enum meta_kind kind;
    bool found;
    struct buf payload;
};

static int fetch(struct meta *m, struct MDB_txn *txn, void *arg) {
    struct fetched *f = arg;
    struct bytes payload;
    buf_reset(&f->payload, SIZE_MAX);
    int rc = meta_get_value(m, txn, f->kind, f->name, &payload, &f->found);
    if (f->found && rc == 0) {
        buf_append_bytes(&f->payload, payload);
    }
    return rc;
}

/* Fetches a payload; empty when there is none. The caller frees. */
static enum dc_err get_encoded(struct meta *m, struct fetched *f) {
    buf_init(&f->payload, 0);
    enum dc_err err = meta_run(m, false, f->name, fetch, f);
    return err == DC_OK && f->payload.failed ? dc_fail(DC_ENOMEM, "no memory for the metadata")
                                             : err;
}

enum dc_err meta_get_chain(struct meta *m, struct history *out, uint32_t max, uint32_t *count) {
    struct fetched f = {.name = "chain", .kind = META_CHAIN};
    enum dc_err err = get_encoded(m, &f);
    uint32_t links = err == DC_OK && f.found ? meta_chain_count(buf_bytes(&f.payload)) : 0;
    *count = 0;
    if (links > max) {
        err = dc_fail(DC_ELIMIT, "the chain of histories has %u links, more than %u", links, max);
        links = 0;
    }
    for (; *count < links; (*count)++) {
        out[*count] = meta_chain_link(buf_bytes(&f.payload), *count);
    }
    buf_fini(&f.payload);
    return err;
}

enum dc_err meta_put_chain(struct meta *m, const struct history *chain, uint32_t count) {
    struct buf payload;
    buf_init(&payload, 0);
    meta_chain_encode(chain, count, &payload);
    return put_encoded(m, META_CHAIN, "chain", &payload);
}

enum dc_err meta_get_text(struct meta *m, const char *name, char *out, size_t size) {
    struct fetched f = {.name = name, .kind = META_TEXT};
    dc_assert(size > 0 && *name != '\0');
    out[0] = '\0';
    enum dc_err err = get_encoded(m, &f);
    if (err == DC_OK && f.payload.len >= size) {
        err = dc_fail(DC_ELIMIT, "the text %s has %zu bytes", name, f.payload.len);
    } else if (err == DC_OK && f.payload.len > 0) {
        memcpy(out, f.payload.ptr, f.payload.len);
        out[f.payload.len] = '\0';
    }
    buf_fini(&f.payload);
    return err;
}

enum dc_err meta_put_text(struct meta *m, const char *name, const char *value) {
    struct meta_text text = {name, value};
    return meta_put_texts(m, &text, 1);
}

struct text_set {
    const struct meta_text *texts;
    uint32_t count;
};

static int put_texts(struct meta *m, struct MDB_txn *txn, void *arg) {
    const struct text_set *set = arg;
    int rc = 0;
    for (uint32_t i = 0; i < set->count && rc == 0; i++) {
        rc = meta_put_value(m, txn, META_TEXT, set->texts[i].name, bytes_str(set->texts[i].value));
    }
    return rc;
}

enum dc_err meta_put_texts(struct meta *m, const struct meta_text *texts, uint32_t count) {
    struct text_set set = {texts, count};
    dc_assert(count > 0);
    for (uint32_t i = 0; i < count; i++) {
        dc_assert(*texts[i].name != '\0' && strlen(texts[i].name) < META_TEXT_NAME_MAX);
        if (strlen(texts[i].value) >= META_TEXT_MAX) {
            return dc_fail(DC_ELIMIT, "the text %s is longer than %d bytes", texts[i].name,
                           META_TEXT_MAX - 1);
        }
    }
    return meta_run(m, true, texts[0].name, put_texts, &set);
}

/* Names and texts, each with its NUL. */
static int collect_text(void *arg, struct bytes name, struct bytes payload) {
    struct buf *to = arg;
    buf_append_bytes(to, name);
    buf_append(to, "", 1);
    buf_append_bytes(to, payload);
    buf_append(to, "", 1);
    return to->failed ? ENOMEM : 0;
}

static int collect_texts(struct meta *m, struct MDB_txn *txn, void *arg) {
    buf_reset(arg, SIZE_MAX);
    return meta_each_value(m, txn, META_TEXT, collect_text, arg);
}

enum dc_err meta_each_text(struct meta *m, meta_text_fn each, void *arg) {
    struct buf all;
    buf_init(&all, 0);
    enum dc_err err = meta_run(m, false, "texts", collect_texts, &all);
    for (size_t at = 0; err == DC_OK && at < all.len;) {
        const char *name = all.ptr + at;
        const char *value = name + strlen(name) + 1;
        each(arg, name, value);
        at = (size_t)(value + strlen(value) + 1 - all.ptr);
    }
    buf_fini(&all);
    return err;
}

/* --- the catalogue ------------------------------------------------------------------------------------------------------ */

struct file_set {
    const struct meta_file *files;
    uint32_t count;
};

static int put_files(struct meta *m, struct MDB_txn *txn, void *arg) {
    const struct file_set *set = arg;
    char raw[META_FILE_LEN];
    int rc = 0;
    for (uint32_t i = 0; i < set->count && rc == 0; i++) {
        struct buf payload = {.ptr = raw, .cap = sizeof(raw), .limit = sizeof(raw)};
        meta_file_encode(&set->files[i], &payload);
        dc_assert(payload.len == META_FILE_LEN && set->files[i].name[0] != '\0');
        rc = meta_put_value(m, txn, META_FILE, set->files[i].name, buf_bytes(&payload));
    }
    return rc;
}

static int set_files(struct meta *m, struct MDB_txn *txn, void *arg) {
    int rc = meta_drop_kind(m, txn, META_FILE);
    return rc == 0 ? put_files(m, txn, arg) : rc;
}

static int drop_files(struct meta *m, struct MDB_txn *txn, void *arg) {
    const struct file_set *set = arg;
    int rc = 0;
    for (uint32_t i = 0; i < set->count && rc == 0; i++) {
        rc = meta_drop_value(m, txn, META_FILE, set->files[i].name);
    }
    return rc;
}

enum dc_err meta_put_file(struct meta *m, const struct meta_file *f) {
    struct file_set set = {f, 1};
    return meta_run(m, true, f->name, put_files, &set);
}

enum dc_err meta_set_files(struct meta *m, const struct meta_file *files, uint32_t count) {
    struct file_set set = {files, count};
    return meta_run(m, true, "catalogue", set_files, &set);
}

enum dc_err meta_drop_files(struct meta *m, const struct meta_file *files, uint32_t count) {
    struct file_set set = {files, count};
    return count == 0 ? DC_OK : meta_run(m, true, "catalogue", drop_files, &set);
}

enum dc_err meta_drop_file(struct meta *m, const char *name) {
    struct meta_file f = {.kind = FILE_SEGMENT};
    snprintf(f.name, sizeof(f.name), "%s", name);
    return meta_drop_files(m, &f, 1);
}

static int collect_file(void *arg, struct bytes name, struct bytes payload) {
    struct buf *to = arg;
    struct meta_file f;
    if (!meta_file_decode(name, payload, &f)) {
        return meta_damage();
    }
    buf_append(to, &f, sizeof(f));
    return to->failed ? ENOMEM : 0;
}

static int collect_files(struct meta *m, struct MDB_txn *txn, void *arg) {
    buf_reset(arg, SIZE_MAX);
    return meta_each_value(m, txn, META_FILE, collect_file, arg);
}

static int compare_files(const void *a, const void *b) {
    const struct meta_file *x = a;
    const struct meta_file *y = b;
    if (x->kind != y->kind) {
        return x->kind < y->kind ? -1 : 1;
    }
    if (x->first_lsn != y->first_lsn) {
        return x->first_lsn < y->first_lsn ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

enum dc_err meta_each_file(struct meta *m, meta_file_fn each, void *arg) {
    struct buf all;
    buf_init(&all, 0);
    enum dc_err err = meta_run(m, false, "catalogue", collect_files, &all);
    if (err == DC_OK && all.len > 0) {
        struct meta_file *files = (struct meta_file *)(void *)all.ptr;
        size_t count = all.len / sizeof(*files);
        qsort(files, count, sizeof(*files), compare_files);
        for (size_t i = 0; i < count; i++) {
            each(arg, &files[i]);
        }
    }
    buf_fini(&all);
    return err;
}
