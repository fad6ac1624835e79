/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * model: a cache so simple that it is right: an array of keys, each with a copy of its value.
 *
 * What the engine does by itself (evictions, expired keys reclaimed) is told to the model, which refuses what
 * mustn't have happened. Functions that compare return NULL, or what is wrong.
 */
#ifndef TESTS_MODEL_MODEL_H
#define TESTS_MODEL_MODEL_H

#include "server/base/buf.h"
#include "tests/support/engine.h"

enum { MODEL_DBS = 3 };

struct cell {
    bool there; /* perhaps beyond its time */
    struct buf text;
    int64_t expiry_ms;
    uint64_t version;   /* 0: to be learnt when the frame is committed */
    uint64_t last_seen; /* greatest version that the key ever had */
};

struct model {
    uint32_t key_count;
    struct bytes *names;
    struct cell *cells[MODEL_DBS];
    int64_t now_ms;
};

/* Names of every kind: in one slot or many, colliding, empty, long. */
void model_init(struct model *m, uint32_t key_count, uint32_t shape);
void model_fini(struct model *m);

struct cell *model_cell(struct model *m, uint32_t db, uint32_t key);
/* The cell if it is alive, else NULL. */
struct cell *model_alive(struct model *m, uint32_t db, uint32_t key);
/* Index of a name; key_count if it is none of ours. */
uint32_t model_index(const struct model *m, struct bytes name);

void model_set(struct model *m, uint32_t db, uint32_t key, struct bytes text, int64_t expiry_ms);
void model_del(struct model *m, uint32_t db, uint32_t key);
void model_write(struct model *m, uint32_t db, uint32_t key, uint64_t offset, struct bytes bytes);
void model_flush(struct model *m, uint32_t db);

uint64_t model_there_count(const struct model *m, uint32_t db);

/* Whether a key is what the engine says; learns a version that is new. */
const char *model_compare(struct model *m, uint32_t db, uint32_t key, const struct seen *seen,
                          struct bytes text, uint64_t head);

#endif
