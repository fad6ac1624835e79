/* SPDX-License-Identifier: BSD-3-Clause */
/* Snapshots that are taken while writers run, with the real log, and what is loaded from them. */
#include "persist/log.h"
#include "server/base/mem.h"
#include "server/base/num.h"
#include "server/base/thread.h"
#include "tests/model/model.h"
#include "tests/support/check_main.h"
#include "tests/support/data_case.h"
#include "tests/support/expect.h"
#include "tests/support/store_check.h"

#include <string.h>

static struct data_case c;

static void damage_a_block(const char *name) {
    char path[512], junk[16] = "damaged block";
    snprintf(path, sizeof(path), "%s/%s", c.dir, name);
    file_poke(path, SNAP_HEADER_LEN + 100, junk, sizeof(junk));
}

static struct log *the_log;
static _Thread_local struct log_feed *feed;
static _Atomic bool stop;

static void commit(void *arg, struct mut *m) {
    (void)arg;
    must(log_reserve(feed, m));
    (void)log_commit(feed, m);
}

struct writer {
    struct thread thread;
    uint64_t seed;
    uint64_t commands;
};

static void write_something(struct hand *h, struct rng *r) {
    enum { KEYS = 400 };
    char a[32], b[32];
    uint32_t db = (uint32_t)rng_below(r, 2);
    struct bytes key = key_of(a, "key:", (uint32_t)rng_below(r, KEYS));
    struct bytes other = key_of(b, "key:", (uint32_t)rng_below(r, KEYS));
    bool existed;
    switch (rng_below(r, 10)) {
    case 0:
        must(hand_del(h, db, key, &existed));
        return;
    case 1:
    case 2:
        must(hand_append(h, db, key, other));
        return;
    case 3:
        must(hand_write(h, db, key, rng_below(r, 40), other));
        return;
    case 4:
        must(hand_rename(h, db, key, other, &existed));
        return;
    case 5:
        must(hand_expire(h, db, key, ENGINE_NOW_MS + 100000, &existed));
        return;
    case 6:
        must(hand_set_many(h, db, (struct bytes[]){key, other}, (struct bytes[]){other, key}, 2));
        return;
    case 7:
        if (rng_below(r, 500) == 0) {
            must(hand_flush(h, db));
            return;
        }
        break;
    default:
        break;
    }
    must(hand_set(h, db, key, other, EXPIRY_NONE));
}

static void be_writer(void *arg) {
    struct writer *w = arg;
    struct hand *h = mem_must_aligned(64, sizeof(*h));
    struct rng r;
    rng_seed(&r, w->seed);
    hand_init(h, &c.engine, w->seed);
    feed = log_feed_create(the_log);
    while (!atomic_load(&stop)) {
        write_something(h, &r);
        log_kick(the_log);
        if (++w->commands % 64 == 0) {
            usleep(1000);
        }
    }
    log_feed_destroy(feed);
    hand_fini(h);
    mem_free_aligned(h, 64, sizeof(*h));
}

static void open_log(void) {
    struct log_opts opts = {.io = &io_posix,
                            .dir = c.dir,
                            .node_id = c.log.node_id,
                            .seed = c.log.seed,
                            .history = c.log.chain[0],
                            .first_lsn = LSN_FIRST,
                            .chain = c.log.chain,
                            .chain_count = 1,
                            .fork = true,
                            .keeps = true,
                            .sync = LOG_SYNC_EVERYSEC,
                            .segment_len = 1024 * 1024,
                            .memory_limit = 64 * 1024 * 1024};
    must(log_open(&opts, &the_log));
    c.engine.commit = commit;
    atomic_store(&stop, false);
}

static void snapshot_of_the_log(const struct io *io, struct snap_written *written) {
    struct snap_write_opts opts = {.io = io,
                                   .dir = c.dir,
                                   .store = c.engine.store,
                                   .log = the_log,
                                   .node_id = c.log.node_id,
                                   .seed = c.log.seed,
                                   .chain = c.log.chain,
                                   .chain_count = 1,
                                   .block_len = 4096,
                                   .threads = 1,
                                   .now_ms = engine_now(&c.engine)};
    must(snap_write(&opts, written));
}

START_TEST(test_h20_h26_a_snapshot_taken_under_load_and_the_log_behind_it) {
    enum { WRITERS = 2 };
    for (int round = 0; round < 3; round++) {
        struct writer writers[WRITERS];
        struct snap_written written[2];
        case_open(&c);
        open_log();
        for (uint32_t i = 0; i < WRITERS; i++) {
            writers[i] = (struct writer){.seed = test_seed_value + (uint64_t)round * 10 + i};
            thread_start(&writers[i].thread, "writer", be_writer, &writers[i]);
        }
        for (int i = 0; i < 2; i++) {
            usleep(50000);
            snapshot_of_the_log(&io_posix, &written[i]);
        }
        usleep(50000);
        atomic_store(&stop, true);
        for (uint32_t i = 0; i < WRITERS; i++) {
            thread_join(&writers[i].thread);
        }
        log_close(the_log, true, 5000);
        expect(written[1].end_lsn > written[1].start_lsn);
        case_load(&c);
        ck_assert_str_eq(c.plan->snapshot, written[1].name);
        expect(c.plan->clean);
        case_same(&c);
        case_forget(&c);

        /* Its blocks are damaged: every range by the older one. */
        case_attach(&c);
        damage_a_block(written[1].name);
        must(warm_all(c.warm, &c.thread));
        case_same(&c);
        case_close(&c);
    }
}
END_TEST

/* --- the image alone, against a model ---------------------------------------------------------------- */

/*
 * Each writer keeps a journal of its commands: what was asked for, when, and the LSN that it got. Those up to a snapshot's E, in the order
 * of the log, done again by the model, are what a start has to find that has this snapshot and nothing else.
 */
enum { MODEL_KEYS = 200, MODEL_WRITERS = 3, ACTIONS_MAX = 3, EFFECTS_MAX = 16, TEXT_LEN_MAX = 300 };

enum action_kind { SET, DEL, EXPIRE, INCR, APPEND, WRITE, RENAME, MSET, FLUSH, ACTION_COUNT };

struct action {
    enum action_kind kind;
    uint32_t db, key, other;
    uint32_t offset, len;
    int64_t expiry_ms;
    bool refused; /* INCR: what was written to in place isn't an integer, whatever it looks like */
};

/* A command, or an EXEC of several. */
struct step {
    uint64_t end; /* its place in the log; 0: it had no effect */
    int64_t now_ms;
    uint32_t action_count, effect_count;
    struct action actions[ACTIONS_MAX];
    struct {
        uint32_t db, key;
        uint64_t version;
    } effects[EFFECTS_MAX];
};

struct scribe {
    struct thread thread;
    struct hand hand;
    struct rng rng;
    struct step *steps;
    uint32_t count, cap;
};

static struct model model;
static struct scribe scribes[MODEL_WRITERS];
static _Thread_local struct step *current;
static _Atomic uint64_t steps_done;

static char long_text[BLOB_MIN_LEN + TEXT_LEN_MAX];

/* must(), which tells Check of each success, is too dear here. */
static void ok(enum dc_err err) {
    if (err != DC_OK) {
        must(err);
    }
}

/* Values differ in length and beginning. */
static struct bytes text_of(const struct action *a) {
    return bytes_of(long_text + a->offset, a->len);
}

static void note_effect(struct step *s, const struct effect *e) {
    if (e->kind != MUT_FLUSH && keyspace_id(e->ks) != KEYSPACE_SYSTEM) {
        expect(s->effect_count < EFFECTS_MAX);
        uint32_t at = s->effect_count++;
        s->effects[at].db = keyspace_id(e->ks);
        s->effects[at].key = model_index(&model, e->key.name);
        s->effects[at].version = e->version;
    }
}

static void commit_step(void *arg, struct mut *m) {
    commit(arg, m);
    current->end = mut_version(m);
    current->now_ms = m->now_ms;
    for (uint32_t i = 0; i < m->count; i++) {
        note_effect(current, &m->effects[i]);
    }
}

static struct action draw_action(struct rng *r) {
    uint32_t kind = (uint32_t)rng_below(r, 14);
    struct action a = {.kind = kind < ACTION_COUNT ? (enum action_kind)kind : SET,
                       .db = (uint32_t)rng_below(r, MODEL_DBS),
                       .key = (uint32_t)rng_below(r, MODEL_KEYS),
                       .other = (uint32_t)rng_below(r, MODEL_KEYS),
                       .offset = (uint32_t)rng_below(r, TEXT_LEN_MAX),
                       .len = 1 + (uint32_t)rng_below(r, TEXT_LEN_MAX),
                       .expiry_ms = EXPIRY_NONE};
    if (rng_below(r, 3) == 0) { /* some of it has passed when the snapshot is there */
        a.expiry_ms = engine_now(&c.engine) + (int64_t)rng_below(r, 100);
    }
    if (a.kind == SET && rng_below(r, 4) == 0) {
        a.len = 0; /* a number: its offset */
    } else if (a.kind == SET && rng_below(r, 50) == 0) {
        a.len = BLOB_MIN_LEN;
    } else if (a.kind == FLUSH && rng_below(r, 50) != 0) {
        a.kind = DEL;
    } else if (a.kind == MSET && a.other == a.key) {
        a.other = (a.key + 1) % MODEL_KEYS;
    }
    return a;
}

static struct bytes set_text(const struct action *a, char digits[NUM_I64_TEXT_MAX]) {
    return a->len > 0 ? text_of(a) : bytes_of(digits, num_format_i64(digits, a->offset));
}

static void do_incr(struct hand *h, struct action *a) {
    int64_t sum;
    enum dc_err err = hand_incr(h, a->db, model.names[a->key], a->len, &sum);
    a->refused = err == DC_ENOTINT;
    ok(a->refused ? DC_OK : err);
}

static void do_action(struct hand *h, struct action *a) {
    struct bytes key = model.names[a->key], other = model.names[a->other];
    char digits[NUM_I64_TEXT_MAX];
    bool existed;
    switch (a->kind) {
    case SET:
        ok(hand_set(h, a->db, key, set_text(a, digits), a->expiry_ms));
        return;
    case DEL:
        ok(hand_del(h, a->db, key, &existed));
        return;
    case EXPIRE:
        ok(hand_expire(h, a->db, key, a->expiry_ms, &existed));
        return;
    case INCR:
        do_incr(h, a);
        return;
    case APPEND:
        ok(hand_append(h, a->db, key, text_of(a)));
        return;
    case WRITE:
        ok(hand_write(h, a->db, key, a->offset, text_of(a)));
        return;
    case RENAME:
        ok(hand_rename(h, a->db, key, other, &existed));
        return;
    case MSET:
        ok(hand_set_many(h, a->db, (struct bytes[]){key, other},
                         (struct bytes[]){text_of(a), BYTES("1")}, 2));
        return;
    case FLUSH:
        ok(hand_flush(h, a->db));
        return;
    case ACTION_COUNT:
        break;
    }
    dc_unreachable();
}

static void model_incr(const struct action *a) {
    struct cell *cell = model_alive(&model, a->db, a->key);
    char digits[NUM_I64_TEXT_MAX];
    int64_t number = 0;
    if (!a->refused) {
        expect(cell == NULL || num_parse_i64(buf_bytes(&cell->text), &number));
        size_t len = num_format_i64(digits, number + a->len);
        model_set(&model, a->db, a->key, bytes_of(digits, len),
                  cell == NULL ? EXPIRY_NONE : cell->expiry_ms);
    }
}

static void model_action(const struct action *a) {
    struct cell *cell = model_alive(&model, a->db, a->key);
    char digits[NUM_I64_TEXT_MAX];
    switch (a->kind) {
    case SET:
        model_set(&model, a->db, a->key, set_text(a, digits), a->expiry_ms);
        return;
    case DEL:
        model_del(&model, a->db, a->key);
        return;
    case EXPIRE:
        if (cell != NULL) {
            cell->expiry_ms = a->expiry_ms;
        }
        return;
    case INCR:
        model_incr(a);
        return;
    case APPEND:
        model_write(&model, a->db, a->key, cell == NULL ? 0 : cell->text.len, text_of(a));
        return;
    case WRITE:
        model_write(&model, a->db, a->key, a->offset, text_of(a));
        return;
    case RENAME:
        if (cell != NULL && a->key != a->other) {
            model_set(&model, a->db, a->other, buf_bytes(&cell->text), cell->expiry_ms);
            model_del(&model, a->db, a->key);
        }
        return;
    case MSET:
        model_set(&model, a->db, a->key, text_of(a), EXPIRY_NONE);
        model_set(&model, a->db, a->other, BYTES("1"), EXPIRY_NONE);
        return;
    case FLUSH:
        model_flush(&model, a->db);
        return;
    case ACTION_COUNT:
        break;
    }
    dc_unreachable();
}

static struct step *next_step(struct scribe *w) {
    if (w->count == w->cap) {
        w->cap = w->cap == 0 ? 1024 : 2 * w->cap;
        w->steps = mem_must_realloc(w->steps, w->cap * sizeof(*w->steps));
    }
    struct step *s = &w->steps[w->count];
    *s = (struct step){.action_count = rng_below(&w->rng, 10) == 0 ? ACTIONS_MAX : 1};
    return s;
}

static void do_step(struct scribe *w) {
    current = next_step(w);
    bool is_exec = current->action_count > 1;
    if (is_exec) {
        hand_frame_begin(&w->hand);
    }
    for (uint32_t i = 0; i < current->action_count; i++) {
        current->actions[i] = draw_action(&w->rng);
        do_action(&w->hand, &current->actions[i]);
    }
    if (is_exec) {
        hand_frame_end(&w->hand);
    }
    log_kick(the_log);
    w->count += current->end > 0;
    if (atomic_fetch_add(&steps_done, 1) % 64 == 0) {
        engine_sleep(&c.engine, 1);
        usleep(500);
    }
}

static void be_scribe(void *arg) {
    struct scribe *w = arg;
    feed = log_feed_create(the_log);
    while (!atomic_load(&stop)) {
        do_step(w);
    }
    log_feed_destroy(feed);
}

static void start_scribes(uint64_t seed) {
    c.engine.commit = commit_step;
    for (uint32_t i = 0; i < MODEL_WRITERS; i++) {
        struct scribe *w = &scribes[i];
        w->count = 0;
        rng_seed(&w->rng, seed + i);
        hand_init(&w->hand, &c.engine, i);
        thread_start(&w->thread, "writer", be_scribe, w);
    }
}

static void end_scribes(void) {
    atomic_store(&stop, true);
    for (uint32_t i = 0; i < MODEL_WRITERS; i++) {
        thread_join(&scribes[i].thread);
        hand_fini(&scribes[i].hand);
    }
}

static void wait_for_steps(uint64_t count) {
    for (uint64_t end = atomic_load(&steps_done) + count; atomic_load(&steps_done) < end;) {
        usleep(200);
    }
}

/* Whatever the machine is like, much is written between the pieces of a snapshot. */
static ssize_t write_among_writers(const struct io *io, struct io_file *f, const struct iovec *iov,
                                   int count, uint64_t at) {
    (void)io;
    wait_for_steps(50);
    return io_posix.write_at(&io_posix, f, iov, count, at);
}

static int compare_ends(const void *a, const void *b) {
    uint64_t x = (*(const struct step *const *)a)->end, y = (*(const struct step *const *)b)->end;
    return x < y ? -1 : x > y;
}

static void model_step(const struct step *s) {
    model.now_ms = s->now_ms;
    for (uint32_t i = 0; i < s->action_count; i++) {
        model_action(&s->actions[i]);
    }
    for (uint32_t i = 0; i < s->effect_count; i++) {
        model_cell(&model, s->effects[i].db, s->effects[i].key)->version = s->effects[i].version;
    }
}

/* All that was done up to 'lsn', once more. */
static void model_until(uint64_t lsn) {
    size_t count = 0;
    for (uint32_t i = 0; i < MODEL_WRITERS; i++) {
        count += scribes[i].count;
    }
    const struct step **steps = mem_must_alloc((count + 1) * sizeof(*steps));
    count = 0;
    for (uint32_t i = 0; i < MODEL_WRITERS; i++) {
        for (uint32_t j = 0; j < scribes[i].count; j++) {
            steps[count++] = &scribes[i].steps[j];
        }
    }
    qsort(steps, count, sizeof(*steps), compare_ends);
    for (size_t i = 0; i < count && steps[i]->end <= lsn; i++) {
        model_step(steps[i]);
    }
    mem_free(steps);
}

/* What was loaded is what the model is, at this time. */
static void expect_model(uint64_t lsn, int64_t now_ms) {
    struct engine loaded = {.store = c.store};
    struct hand hand;
    struct buf text;
    uint32_t alive = 0;
    atomic_init(&loaded.now_ms, now_ms);
    hand_init(&hand, &loaded, 1);
    buf_init(&text, 0);
    model.now_ms = now_ms;
    for (uint32_t i = 0; i < MODEL_DBS * MODEL_KEYS; i++) {
        uint32_t db = i / MODEL_KEYS, key = i % MODEL_KEYS;
        text.len = 0;
        struct seen seen = hand_peek(&hand, db, model.names[key], &text);
        const char *wrong = model_compare(&model, db, key, &seen, buf_bytes(&text), lsn);
        ck_assert_msg(wrong == NULL, "%s: %.*s of database %u, at %" PRIu64, wrong,
                      (int)model.names[key].len, model.names[key].ptr, db, lsn);
        alive += seen.alive;
    }
    expect(alive > 0);
    buf_fini(&text);
    hand_fini(&hand);
}

static void remove_file(const char *name) {
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", c.dir, name);
    expect_eq(unlink(path), 0);
}

static void remove_segment(void *arg, const char *name) {
    (void)arg;
    if (strncmp(name, "log-", 4) == 0) {
        remove_file(name);
    }
}

static void expect_image_alone(const struct snap_written *written, int64_t now_ms, uint64_t seed) {
    struct table_facts facts;
    case_load(&c);
    ck_assert_str_eq(c.plan->snapshot, written->name);
    expect_eq(c.plan->end_lsn, written->end_lsn);
    const char *err = store_check(c.store, &facts);
    ck_assert_msg(err == NULL, "%s", err);
    model_init(&model, MODEL_KEYS, (uint32_t)seed);
    model_until(written->end_lsn);
    expect_model(written->end_lsn, now_ms);
    model_fini(&model);
    case_forget(&c);
    remove_file(written->name);
}

static void image_alone(uint64_t seed) {
    enum { SNAPSHOTS = 3 };
    struct snap_written written[SNAPSHOTS];
    int64_t now_ms[SNAPSHOTS];
    struct io io = io_posix;
    struct rng r;
    io.write_at = write_among_writers;
    rng_seed(&r, seed);
    case_open(&c);
    open_log();
    model_init(&model, MODEL_KEYS, (uint32_t)seed);
    start_scribes(seed);
    for (int i = 0; i < SNAPSHOTS; i++) {
        wait_for_steps(rng_below(&r, 1000));
        snapshot_of_the_log(&io, &written[i]);
        expect(written[i].end_lsn > written[i].start_lsn);
        now_ms[i] = engine_now(&c.engine);
    }
    wait_for_steps(rng_below(&r, 500));
    end_scribes();
    model_fini(&model);
    log_close(the_log, true, 5000);
    expect_eq(io_posix.list(&io_posix, c.dir, remove_segment, NULL), 0);
    for (int i = SNAPSHOTS; i-- > 0;) { /* a start takes the newest */
        expect_image_alone(&written[i], now_ms[i], seed);
    }
    case_close(&c);
}

START_TEST(test_h20_h22_h25_the_image_alone_is_the_state_at_its_end) {
    enum { SEEDS = 3 };
    for (size_t i = 0; i < sizeof(long_text); i++) {
        long_text[i] = (char)('!' + (i * 2654435761u >> 16) % 90);
    }
    for (uint64_t i = 0; i < SEEDS; i++) {
        image_alone(test_seed_value + i * MODEL_WRITERS);
    }
    for (uint32_t i = 0; i < MODEL_WRITERS; i++) {
        mem_free(scribes[i].steps);
    }
}
END_TEST

CHECK_MAIN("warm_log", test_h20_h26_a_snapshot_taken_under_load_and_the_log_behind_it,
           test_h20_h22_h25_the_image_alone_is_the_state_at_its_end)
