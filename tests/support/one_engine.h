/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * one_engine: what tests of the engine begin with: an engine and a hand, opened for each test and checked when they are closed.
 */
#ifndef TESTS_SUPPORT_ONE_ENGINE_H
#define TESTS_SUPPORT_ONE_ENGINE_H

#include "tests/support/check_main.h"
#include "tests/support/engine.h"
#include "tests/support/expect.h"
#include "tests/support/store_check.h"

static struct engine engine;
static struct hand hand;

static inline void open_engine(void) {
    engine_init(&engine, NULL);
    hand_init(&hand, &engine, test_seed_value);
}

/* The store holds its invariants; what it looks like. */
static inline struct table_facts check_engine(void) {
    struct table_facts facts;
    const char *err = store_check(engine.store, &facts);
    ck_assert_msg(err == NULL, "%s", err);
    return facts;
}

static inline void close_engine(void) {
    (void)check_engine();
    hand_fini(&hand);
    engine_fini(&engine);
}

static inline void must(enum dc_err err) {
    expect_eq(err, DC_OK);
}

static inline struct keyspace *db(uint32_t id) {
    return store_keyspace(engine.store, id);
}

#endif
