/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/data_case.h"

#include "server/base/mem.h"
#include "tests/support/expect.h"
#include "tests/support/store_check.h"

enum { THREADS = 3, PIECE_LEN_SMALL = 1500 };

void case_open(struct data_case *c) {
    memset(c, 0, sizeof(*c));
    temp_dir_make(c->dir);
    engine_init(&c->engine, NULL);
    hand_init(&c->hand, &c->engine, 1);
    log_file_init(&c->log, LSN_FIRST);
    log_file_attach(&c->log, &c->engine);
    c->opts = (struct warm_opts){
        .io = &io_posix, .dir = c->dir, .threads = THREADS, .piece_len = PIECE_LEN_SMALL};
    c->plan = mem_must_zalloc(sizeof(*c->plan));
}

void case_forget(struct data_case *c) {
    warm_destroy(c->warm);
    c->warm = NULL;
    store_destroy(c->store);
    c->store = NULL;
}

void case_close(struct data_case *c) {
    case_forget(c);
    mem_free(c->plan);
    log_file_fini(&c->log);
    hand_fini(&c->hand);
    engine_fini(&c->engine);
    temp_dir_remove(c->dir);
}

void case_snapshot(struct data_case *c) {
    struct snap_write_opts opts = {.io = &io_posix,
                                   .dir = c->dir,
                                   .store = c->engine.store,
                                   .lsn = log_file_end(&c->log),
                                   .node_id = c->log.node_id,
                                   .seed = c->log.seed,
                                   .chain = c->log.chain,
                                   .chain_count = c->log.chain_count,
                                   .block_len = 4096,
                                   .now_ms = engine_now(&c->engine)};
    struct snap_written written;
    must(snap_write(&opts, &written));
    snprintf(c->snapshot, sizeof(c->snapshot), "%s", written.name);
}

void case_write_log(struct data_case *c, uint64_t from, uint64_t durable) {
    log_file_write(&c->log, c->dir, from, 0, durable);
}

/* The log read by one thread, in order, without a change to it: what several that read it in pieces have to find. */
struct found {
    enum dc_err err;
    char text[ERR_TEXT_MAX];
    struct data_plan plan;
    struct warm_stats stats;
};

static struct found *look(const struct data_case *c) {
    struct found *f = mem_must_zalloc(sizeof(*f));
    struct warm_opts opts = c->opts;
    struct warm *warm = NULL;
    opts.threads = 0;
    opts.read_only = true;
    f->err = data_scan(&opts, &f->plan, &warm);
    if (f->err != DC_OK) {
        snprintf(f->text, sizeof(f->text), "%s", dc_fail_take(f->err));
    }
    if (warm != NULL) {
        warm_stats(warm, &f->stats);
    }
    warm_destroy(warm);
    return f;
}

static void compare(const struct data_case *c, const struct found *f, enum dc_err err,
                    const char *text) {
    const struct data_plan *a = &f->plan, *b = c->plan;
    struct warm_stats stats = {0};
    if (c->warm != NULL) {
        warm_stats(c->warm, &stats);
    }
    expect_eq(f->err, err);
    ck_assert_str_eq(f->text, text);
    expect_eq(a->end_lsn, b->end_lsn);
    expect_eq(a->frames, b->frames);
    expect_eq(a->effects, b->effects);
    expect_eq(a->log_bytes, b->log_bytes);
    expect_eq(a->last_time_ms, b->last_time_ms);
    expect_eq(a->clean, b->clean);
    expect_eq(a->cut_bytes, b->cut_bytes);
    ck_assert_str_eq(a->notes, b->notes);
    expect_eq(a->chain_count, b->chain_count);
    ck_assert_str_eq(a->snapshot, b->snapshot);
    expect_eq(f->stats.effects_expected, stats.effects_expected);
}

enum dc_err case_scan(struct data_case *c) {
    char text[ERR_TEXT_MAX] = "";
    struct found *found = c->opts.io == &io_posix ? look(c) : NULL;
    enum dc_err err = data_scan(&c->opts, c->plan, &c->warm);
    if (err != DC_OK) {
        snprintf(text, sizeof(text), "%s", dc_fail_take(err));
    }
    if (found != NULL) {
        compare(c, found, err, text);
    }
    mem_free(found);
    return err != DC_OK ? dc_fail(err, "%s", text) : DC_OK;
}

void case_attach_scanned(struct data_case *c) {
    struct store_opts opts = {.seed = c->plan->seed};
    c->store = store_create(&opts);
    store_tick(c->store, engine_now(&c->engine));
    store_thread_init(&c->thread, c->store, &c->metrics, 1);
    must(warm_attach(c->warm, c->store));
}

void case_attach(struct data_case *c) {
    must(case_scan(c));
    case_attach_scanned(c);
}

void case_load(struct data_case *c) {
    case_attach(c);
    must(warm_all(c->warm, &c->thread));
    expect(warm_is_over(c->warm));
}

void case_same(struct data_case *c) {
    struct table_facts facts;
    const char *err = store_check(c->store, &facts);
    ck_assert_msg(err == NULL, "%s", err);
    expect(store_digest(c->store) == store_digest(c->engine.store));
    for (uint32_t db = 0; db < KEYSPACE_MAX; db++) {
        struct keyspace *a = store_keyspace(c->store, db);
        struct keyspace *b = store_keyspace(c->engine.store, db);
        expect_eq(keyspace_count(a), keyspace_count(b));
        expect_eq(keyspace_volatile_count(a), keyspace_volatile_count(b));
    }
}

/* --- what is in a directory -------------------------------------------------------------------------- */

struct count {
    const char *part;
    uint32_t count;
};

static void count_name(void *arg, const char *name) {
    struct count *n = arg;
    n->count += strstr(name, n->part) != NULL;
}

uint32_t count_names(const struct io *io, const char *dir, const char *part) {
    struct count n = {.part = part};
    (void)io->list(io, dir, count_name, &n);
    return n.count;
}

uint64_t digest_of(struct warm *warm, const struct data_plan *plan) {
    static struct metric_slot metrics;
    struct store_opts opts = {.seed = plan->seed};
    struct store_thread thread;
    struct store *s = store_create(&opts);
    store_tick(s, ENGINE_NOW_MS);
    store_thread_init(&thread, s, &metrics, 1);
    must(warm_attach(warm, s));
    must(warm_all(warm, &thread));
    uint64_t digest = store_digest(s);
    warm_destroy(warm);
    store_destroy(s);
    return digest;
}
