/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/model/model.h"

#include "server/base/mem.h"
#include "tests/support/collide.h"

#include <stdio.h>

enum { NAME_MAX_LEN = 400 };

static size_t name_write(char *to, uint32_t i, uint32_t shape) {
    if (i < COLLIDING_PAIRS * 2) {
        return (size_t)snprintf(to, NAME_MAX_LEN, "%s", colliding_keys[i / 2][i % 2]);
    }
    if (i == COLLIDING_PAIRS * 2) {
        return 0;
    }
    if (i % 40 == 39) { /* long names; their lengths around the border of the length's field */
        return (size_t)snprintf(to, NAME_MAX_LEN, "%0*u", (int)(230 + i % 67), i);
    }
    switch (shape % 3) {
    case 0:
        return (size_t)snprintf(to, NAME_MAX_LEN, "key:%u", i);
    case 1:
        return (size_t)snprintf(to, NAME_MAX_LEN, "{c}%u", i);
    default:
        return (size_t)snprintf(to, NAME_MAX_LEN, "{%u}%u", i % 5, i);
    }
}

void model_init(struct model *m, uint32_t key_count, uint32_t shape) {
    m->key_count = key_count;
    m->now_ms = ENGINE_NOW_MS;
    m->names = mem_must_alloc(key_count * sizeof(*m->names));
    for (uint32_t i = 0; i < key_count; i++) {
        char text[NAME_MAX_LEN];
        size_t len = name_write(text, i, shape);
        char *copy = mem_must_alloc(len);
        memcpy(copy, text, len);
        m->names[i] = bytes_of(copy, len);
    }
    for (uint32_t db = 0; db < MODEL_DBS; db++) {
        m->cells[db] = mem_must_zalloc(key_count * sizeof(struct cell));
    }
}

void model_fini(struct model *m) {
    for (uint32_t db = 0; db < MODEL_DBS; db++) {
        for (uint32_t i = 0; i < m->key_count; i++) {
            buf_fini(&m->cells[db][i].text);
        }
        mem_free(m->cells[db]);
    }
    for (uint32_t i = 0; i < m->key_count; i++) {
        mem_free((void *)(uintptr_t)m->names[i].ptr);
    }
    mem_free(m->names);
}

struct cell *model_cell(struct model *m, uint32_t db, uint32_t key) {
    return &m->cells[db][key];
}

struct cell *model_alive(struct model *m, uint32_t db, uint32_t key) {
    struct cell *c = model_cell(m, db, key);
    bool expired = c->expiry_ms != EXPIRY_NONE && c->expiry_ms <= m->now_ms;
    return c->there && !expired ? c : NULL;
}

uint32_t model_index(const struct model *m, struct bytes name) {
    for (uint32_t i = 0; i < m->key_count; i++) {
        if (bytes_equal(m->names[i], name)) {
            return i;
        }
    }
    return m->key_count;
}

void model_set(struct model *m, uint32_t db, uint32_t key, struct bytes text, int64_t expiry_ms) {
    struct cell *c = model_cell(m, db, key);
    struct buf fresh; /* the text may be the cell's own */
    buf_init(&fresh, 0);
    buf_append_bytes(&fresh, text);
    buf_fini(&c->text);
    c->there = true;
    c->text = fresh;
    c->expiry_ms = expiry_ms;
    c->version = 0;
}

void model_del(struct model *m, uint32_t db, uint32_t key) {
    model_cell(m, db, key)->there = false;
}

void model_write(struct model *m, uint32_t db, uint32_t key, uint64_t offset, struct bytes bytes) {
    struct cell *c = model_alive(m, db, key);
    if (c == NULL) {
        model_set(m, db, key, bytes_of("", 0), EXPIRY_NONE);
        c = model_cell(m, db, key);
    }
    while (c->text.len < offset + bytes.len) {
        buf_append(&c->text, "", 1);
    }
    if (bytes.len > 0) {
        memcpy(c->text.ptr + offset, bytes.ptr, bytes.len);
    }
    c->version = 0;
}

void model_flush(struct model *m, uint32_t db) {
    for (uint32_t i = 0; i < m->key_count; i++) {
        model_del(m, db, i);
    }
}

uint64_t model_there_count(const struct model *m, uint32_t db) {
    uint64_t count = 0;
    for (uint32_t i = 0; i < m->key_count; i++) {
        count += m->cells[db][i].there;
    }
    return count;
}

const char *model_compare(struct model *m, uint32_t db, uint32_t key, const struct seen *seen,
                          struct bytes text, uint64_t head) {
    struct cell *c = model_alive(m, db, key);
    if (c == NULL) {
        return seen->alive ? "a key is alive that isn't there" : NULL;
    }
    if (!seen->alive) {
        return "a key is lost";
    }
    if (!bytes_equal(text, buf_bytes(&c->text))) {
        return "a value is wrong";
    }
    if (seen->expiry_ms != c->expiry_ms) {
        return "an expiry is wrong";
    }
    if (c->version == 0) {
        if (seen->version <= c->last_seen || seen->version > head) {
            return "a new version isn't greater than all old ones";
        }
        c->version = c->last_seen = seen->version;
    }
    return seen->version == c->version ? NULL : "a version changed without a write";
}
