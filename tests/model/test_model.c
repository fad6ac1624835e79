/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Is the cache right? Random operations go to the engine and to the model; whatever the engine answers is compared.
 *
 *   test_model [--seconds S] [--ops N] [--seed SEED] [FILE.ops ...]
 *
 * Scripts are drawn until the time is up; those in files come first. A script that fails is cut down to the
 * operations that matter and printed: put it into tests/model/regressions/ together with the fix.
 * Each run is a process of its own, so that a failed assertion of the engine is a failure like others.
 */
#include "server/base/mem.h"
#include "tests/model/model.h"
#include "tests/model/ops.h"
#include "tests/support/store_check.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TEXT_SIZE = 400000, MSET_MAX = 256 };

struct run {
    struct model model;
    struct engine engine;
    struct hand hand;
    const struct script *script;
    const char *error;   /* the first one */
    uint32_t frame_left; /* operations that still belong to the frame */
    uint64_t fault;      /* of the next operation */
    struct store_sweep sweep;
    struct store_pack pack;
    uint64_t census; /* of a scan */
    uint32_t census_db;
    uint8_t *scanned;
};

static void fail(struct run *r, const char *error) {
    if (r->error == NULL) {
        r->error = error;
    }
}

static void fail_unless(struct run *r, bool condition, const char *error) {
    if (!condition) {
        fail(r, error);
    }
}

/* Salted bytes of some length; views of one pool. */
static struct bytes text_of(uint64_t len, uint64_t salt) {
    static char pool[TEXT_SIZE + 256];
    if (pool[0] == '\0') {
        for (size_t i = 0; i < sizeof(pool); i++) {
            pool[i] = (char)('!' + (i * 2654435761u >> 16) % 90);
        }
    }
    return bytes_of(pool + salt % 256, len < TEXT_SIZE ? len : TEXT_SIZE);
}

/* The model needs memory, too: the fault is over with the engine's command. */
static enum dc_err disarm(enum dc_err err) {
    mem_fault_after(0);
    return err;
}

static int64_t expiry_of(const struct run *r, uint64_t ms) {
    return ms == 0 ? EXPIRY_NONE : r->model.now_ms + (int64_t)ms;
}

/* --- what is compared -------------------------------------------------------------------------------- */

static void compare_key(struct run *r, uint32_t db, uint32_t key) {
    struct buf text;
    buf_init(&text, 0);
    struct seen seen = hand_peek(&r->hand, db, r->model.names[key], &text);
    if (r->hand.in_frame) {
        seen.version =
            seen.alive ? model_cell(&r->model, db, key)->version : 0; /* compared after it */
    }
    if (!r->hand.in_frame || model_cell(&r->model, db, key)->version != 0) {
        const char *error = model_compare(&r->model, db, key, &seen, buf_bytes(&text),
                                          sequencer_head(&r->engine.sequencer).v);
        if (error != NULL) {
            fail(r, error);
        }
    }
    buf_fini(&text);
}

/* Who was there and isn't any more has left his version with the slot. */
static void compare_removed(struct run *r, uint32_t db, uint32_t key) {
    struct keyspace *ks = store_keyspace(r->engine.store, db);
    struct key k = store_key(r->engine.store, r->model.names[key]);
    store_lock(r->engine.store, key_slot(&k));
    uint64_t removed = store_removed_version(ks, &k);
    store_unlock(r->engine.store, key_slot(&k));
    const struct cell *c = model_cell(&r->model, db, key);
    fail_unless(r, c->there || removed >= c->last_seen, "a removal isn't remembered");
    fail_unless(r, removed <= sequencer_head(&r->engine.sequencer).v, "a removal is of the future");
}

static void check_all(struct run *r) {
    struct table_facts facts;
    const char *error = store_check(r->engine.store, &facts);
    if (error != NULL) {
        fail(r, error);
    }
    for (uint32_t db = 0; db < MODEL_DBS; db++) {
        fail_unless(r,
                    keyspace_count(store_keyspace(r->engine.store, db)) ==
                        model_there_count(&r->model, db),
                    "the count of keys is wrong");
        for (uint32_t key = 0; key < r->model.key_count; key++) {
            compare_key(r, db, key);
            compare_removed(r, db, key);
        }
    }
}

static void scan_visit(void *arg, struct keyspace *ks, struct entry *e) {
    struct run *r = arg;
    uint32_t key = model_index(&r->model, entry_key(e));
    bool known = key < r->model.key_count && keyspace_id(ks) == r->census_db;
    fail_unless(r, known && model_alive(&r->model, r->census_db, key) != NULL,
                "a scan returns what isn't there");
    if (known) {
        fail_unless(r, r->scanned[key] == 0, "a scan returns a key twice");
        r->scanned[key] = 1;
        r->census++;
    }
}

static struct store_scan whole_db(struct run *r, const struct op *op) {
    return (struct store_scan){.ks = store_keyspace(r->engine.store, op->db),
                               .slot_end = SLOT_COUNT,
                               .locked = r->hand.in_frame,
                               .now_ms = r->model.now_ms,
                               .visit = scan_visit,
                               .arg = r};
}

static void do_scan(struct run *r, const struct op *op) {
    uint64_t cursor = 0, alive = 0;
    struct store_scan sc = whole_db(r, op);
    r->census = 0;
    r->census_db = op->db;
    memset(r->scanned, 0, r->model.key_count);
    do {
        store_scan(&sc, &cursor, (uint32_t)op->a);
    } while (cursor != 0 && r->error == NULL);
    for (uint32_t key = 0; key < r->model.key_count; key++) {
        alive += model_alive(&r->model, op->db, key) != NULL;
    }
    fail_unless(r, r->census == alive, "a scan loses keys");
}

static void do_random(struct run *r, const struct op *op) {
    uint64_t alive = 0;
    struct store_scan sc = whole_db(r, op);
    r->census_db = op->db;
    memset(r->scanned, 0, r->model.key_count);
    for (uint32_t key = 0; key < r->model.key_count; key++) {
        alive += model_alive(&r->model, op->db, key) != NULL;
    }
    bool found = store_random(&r->hand.thread, &sc);
    fail_unless(r, found == (alive > 0),
                "a random key is found where there is none, or none where there are");
}

/* --- what the engine does by itself ------------------------------------------------------------------ */

static void on_expired(void *arg, struct keyspace *ks, struct bytes name) {
    struct run *r = arg;
    uint32_t db = keyspace_id(ks), key = model_index(&r->model, name);
    if (key == r->model.key_count || !model_cell(&r->model, db, key)->there) {
        fail(r, "a key is reclaimed that isn't there");
    } else if (model_alive(&r->model, db, key) != NULL) {
        fail(r, "a living key is reclaimed");
    } else {
        model_del(&r->model, db, key);
    }
}

static void on_evicted(void *arg, struct keyspace *ks, struct entry *e) {
    struct run *r = arg;
    uint32_t db = keyspace_id(ks), key = model_index(&r->model, entry_key(e));
    if (key == r->model.key_count || !model_cell(&r->model, db, key)->there) {
        fail(r, "a key is evicted that isn't there");
    } else {
        model_del(&r->model, db, key);
    }
}

static void do_evict(struct run *r, const struct op *op) {
    enum evict_policy policy = (enum evict_policy)(op->a % (EVICT_VOLATILE_TTL + 1));
    for (uint64_t i = 0; i < op->b; i++) {
        if (!hand_evict(&r->hand, policy, 5, on_evicted, r)) {
            return;
        }
    }
}

/* --- commands ---------------------------------------------------------------------------------------- */

static void do_incr(struct run *r, const struct op *op) {
    struct cell *c = model_alive(&r->model, op->db, (uint32_t)op->a);
    int64_t old = 0, sum = 0, by = (int64_t)(op->b % 100000);
    bool is_num = c == NULL || num_parse_i64(buf_bytes(&c->text), &old);
    if (c != NULL && old > INT64_MAX - 100000) {
        return;
    }
    /* What was written to in place isn't an integer any more, whatever it looks like. */
    struct seen seen = hand_peek(&r->hand, op->db, r->model.names[op->a], NULL);
    is_num = is_num && (c == NULL || seen.kind == VALUE_INT);
    enum dc_err err = disarm(hand_incr(&r->hand, op->db, r->model.names[op->a], by, &sum));
    fail_unless(
        r, err == DC_OK || (err == DC_ENOTINT && !is_num) || (err == DC_ENOMEM && r->fault > 0),
        "INCR fails");
    if (err == DC_OK) {
        char digits[NUM_I64_TEXT_MAX];
        fail_unless(r, is_num && sum == old + by, "INCR doesn't add up");
        model_set(&r->model, op->db, (uint32_t)op->a, bytes_of(digits, num_format_i64(digits, sum)),
                  c == NULL ? EXPIRY_NONE : c->expiry_ms);
    }
}

static void do_write(struct run *r, const struct op *op, uint64_t offset, struct bytes bytes) {
    if (bytes.len == 0) {
        return; /* no effect: commands don't ask for it */
    }
    enum dc_err err = disarm(hand_write(&r->hand, op->db, r->model.names[op->a], offset, bytes));
    fail_unless(r, err == DC_OK || r->fault > 0, "a write fails");
    if (err == DC_OK) {
        model_write(&r->model, op->db, (uint32_t)op->a, offset, bytes);
    }
}

static void do_rename(struct run *r, const struct op *op) {
    uint32_t from = (uint32_t)op->a, to = (uint32_t)op->b;
    struct cell *c = model_alive(&r->model, op->db, from);
    bool existed = false;
    if (from == to) {
        return;
    }
    enum dc_err err =
        disarm(hand_rename(&r->hand, op->db, r->model.names[from], r->model.names[to], &existed));
    fail_unless(r, err == DC_OK || r->fault > 0, "a rename fails");
    fail_unless(r, existed == (c != NULL),
                "a rename finds what isn't there, or doesn't find what is");
    if (err == DC_OK && c != NULL) {
        model_set(&r->model, op->db, to, buf_bytes(&c->text), c->expiry_ms);
        model_del(&r->model, op->db, from);
    }
}

static void do_mset(struct run *r, const struct op *op) {
    static struct bytes names[MSET_MAX], texts[MSET_MAX];
    uint32_t count = (uint32_t)(op->b < MSET_MAX ? op->b : MSET_MAX);
    for (uint32_t i = 0; i < count; i++) {
        names[i] = r->model.names[(op->a + i) % r->model.key_count];
        texts[i] = text_of((op->c + i * 7) % 200, op->c + i);
    }
    enum dc_err err = disarm(hand_set_many(&r->hand, op->db, names, texts, count));
    fail_unless(r, err == DC_OK || r->fault > 0, "MSET fails");
    for (uint32_t i = 0; i < count && err == DC_OK; i++) {
        model_set(&r->model, op->db, (uint32_t)((op->a + i) % r->model.key_count), texts[i],
                  EXPIRY_NONE);
    }
}

static void do_set(struct run *r, const struct op *op, struct bytes text, int64_t expiry_ms) {
    enum dc_err err = disarm(hand_set(&r->hand, op->db, r->model.names[op->a], text, expiry_ms));
    fail_unless(r, err == DC_OK || r->fault > 0, "SET fails");
    if (err == DC_OK) {
        model_set(&r->model, op->db, (uint32_t)op->a, text, expiry_ms);
    }
}

static void do_del_or_expire(struct run *r, const struct op *op) {
    struct cell *c = model_alive(&r->model, op->db, (uint32_t)op->a);
    bool existed = false;
    enum dc_err err = op->kind == OP_DEL
                          ? disarm(hand_del(&r->hand, op->db, r->model.names[op->a], &existed))
                          : disarm(hand_expire(&r->hand, op->db, r->model.names[op->a],
                                               expiry_of(r, op->b), &existed));
    fail_unless(r, err == DC_OK || r->fault > 0, "DEL or EXPIRE fails");
    fail_unless(r, existed == (c != NULL),
                "DEL or EXPIRE finds what isn't there, or doesn't find what is");
    if (err != DC_OK || c == NULL) {
        return;
    }
    if (op->kind == OP_DEL) {
        model_del(&r->model, op->db, (uint32_t)op->a);
    } else {
        c->expiry_ms = expiry_of(r, op->b);
        c->version = 0;
    }
}

static void do_flush(struct run *r, const struct op *op) {
    enum dc_err err = disarm(hand_flush(&r->hand, op->db));
    fail_unless(r, err == DC_OK || r->fault > 0, "a flush fails");
    if (err == DC_OK) {
        model_flush(&r->model, op->db);
    }
}

static void do_command(struct run *r, const struct op *op) {
    char digits[NUM_I64_TEXT_MAX];
    const struct cell *c = model_alive(&r->model, op->db, (uint32_t)(op->a % r->model.key_count));
    switch (op->kind) {
    case OP_SET:
        do_set(r, op, text_of(op->b, op->c), EXPIRY_NONE);
        return;
    case OP_SETEX:
        do_set(r, op, text_of(op->b, op->b), expiry_of(r, op->c));
        return;
    case OP_SETNUM:
        do_set(r, op, bytes_of(digits, num_format_i64(digits, (int64_t)op->b)), EXPIRY_NONE);
        return;
    case OP_DEL:
    case OP_EXPIRE:
        do_del_or_expire(r, op);
        return;
    case OP_INCR:
        do_incr(r, op);
        return;
    case OP_APPEND:
        do_write(r, op, c == NULL ? 0 : c->text.len, text_of(op->b, op->c));
        return;
    case OP_WRITE:
        for (int i = 0; i < 1 + (op->c % 2 == 0); i++) {
            do_write(r, op, op->b, text_of(op->c, op->b)); /* H22 */
        }
        return;
    case OP_RENAME:
        do_rename(r, op);
        return;
    case OP_MSET:
        do_mset(r, op);
        return;
    case OP_FLUSH:
        do_flush(r, op);
        return;
    default:
        return;
    }
}

/* --- a run ------------------------------------------------------------------------------------------- */

static void begin_frame(struct run *r, uint64_t count) {
    r->frame_left = (uint32_t)count;
    hand_frame_begin(&r->hand);
}

static void end_frame(struct run *r) {
    hand_frame_end(&r->hand);
    for (uint32_t db = 0; db < MODEL_DBS; db++) {
        for (uint32_t key = 0; key < r->model.key_count; key++) {
            if (model_cell(&r->model, db, key)->version == 0) {
                compare_key(r, db, key);
            }
        }
    }
}

/* What takes locks of its own or time can't be part of a frame. */
static void do_outside(struct run *r, const struct op *op) {
    switch (op->kind) {
    case OP_SLEEP:
        r->model.now_ms += (int64_t)(op->a % 100000);
        engine_sleep(&r->engine, (int64_t)(op->a % 100000));
        store_tick(r->engine.store, r->model.now_ms);
        return;
    case OP_SWEEP:
        store_sweep(&r->hand.thread, &r->sweep, r->model.now_ms, op->a * 16, on_expired, r);
        store_set_packing(r->engine.store, op->a % 2 == 0); /* for evictions to come */
        store_pack_pages(r->engine.store, &r->pack, (uint32_t)(op->a % 20000));
        return;
    case OP_EVICT:
        do_evict(r, op);
        return;
    case OP_RECLAIM:
        store_reclaim(r->engine.store, op->a * 8);
        return;
    case OP_FRAME:
        begin_frame(r, op->a);
        return;
    case OP_CHECK:
        check_all(r);
        return;
    default:
        return;
    }
}

static void step(struct run *r, const struct op *op) {
    uint32_t key = (uint32_t)(op->a % r->model.key_count);
    bool was_in_frame = r->hand.in_frame;
    mem_fault_after(op->kind < OP_GET ? r->fault : 0);
    do_command(r, op);
    mem_fault_after(0);
    r->fault = op->kind == OP_FAULT ? op->a : 0;
    if (op->kind == OP_SCAN) {
        do_scan(r, op);
    } else if (op->kind == OP_RANDOM) {
        do_random(r, op);
    } else if (op->kind == OP_GET) {
        (void)hand_get(&r->hand, op->db, r->model.names[key], NULL);
    }
    if (op->kind <= OP_GET) {
        compare_key(r, op->db, key);
    }
    if (!was_in_frame) {
        do_outside(r, op);
    } else if (r->frame_left-- == 1) {
        end_frame(r);
    }
}

/* NULL when all is well. '*at' is the operation that failed. */
static const char *run_script(const struct script *s, uint32_t *at) {
    static struct run r;
    memset(&r, 0, sizeof(r));
    r.script = s;
    model_init(&r.model, s->keys, s->shape);
    engine_init(&r.engine, NULL);
    hand_init(&r.hand, &r.engine, 1);
    r.scanned = mem_must_zalloc(s->keys);
    for (*at = 0; *at < s->count && r.error == NULL; ++*at) {
        step(&r, &s->ops[*at]);
    }
    if (r.hand.in_frame) {
        end_frame(&r);
    }
    check_all(&r);
    mem_free(r.scanned);
    hand_fini(&r.hand);
    engine_fini(&r.engine);
    model_fini(&r.model);
    return r.error;
}

/* In a child. True when it went well. */
static bool survives(const struct script *s, bool speaks) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        uint32_t at;
        if (!speaks) {
            int nowhere = open("/dev/null", O_WRONLY);
            dup2(nowhere, STDERR_FILENO);
        }
        const char *error = run_script(s, &at);
        if (error != NULL) {
            fprintf(stderr, "operation %u: %s\n", at, error);
        }
        fflush(NULL);
        _exit(error != NULL);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Leaves out ever smaller pieces for as long as what is left still fails. */
static void shrink(struct script *s) {
    struct op *all = mem_must_alloc(s->count * sizeof(*all));
    for (uint32_t piece = s->count / 2; piece > 0; piece = piece / 2) {
        for (uint32_t from = 0; from < s->count;) {
            uint32_t count = s->count;
            uint32_t cut = from + piece < count ? piece : count - from;
            memcpy(all, s->ops, count * sizeof(*all));
            memmove(s->ops + from, s->ops + from + cut, (count - from - cut) * sizeof(*all));
            s->count = count - cut;
            if (survives(s, false)) {
                memcpy(s->ops, all, count * sizeof(*all));
                s->count = count;
                from += piece;
            }
        }
    }
    mem_free(all);
}

static bool try(struct script *s, const char *origin) {
    if (survives(s, true)) {
        return true;
    }
    printf("# %s fails; the shortest script found:\n", origin);
    shrink(s);
    script_write(s, stdout);
    (void)survives(s, true);
    return false;
}

static bool try_file(const char *path) {
    struct script s = {.keys = 0};
    FILE *f = fopen(path, "r");
    bool readable = f != NULL && script_read(&s, f);
    if (f != NULL) {
        fclose(f);
    }
    if (!readable) {
        printf("# %s isn't a script\n", path);
    }
    bool good = readable && try(&s, path);
    script_fini(&s);
    return good;
}

static bool try_seed(uint64_t seed, uint32_t ops) {
    struct script s;
    char origin[64];
    script_draw(&s, seed, ops);
    snprintf(origin, sizeof(origin), "--seed %" PRIu64 " --ops %" PRIu32, seed, ops);
    bool good = try(&s, origin);
    script_fini(&s);
    return good;
}

int main(int argc, char **argv) {
    const char *text = getenv("DC_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL) << 16;
    uint64_t seconds = 3, ops = 3000, tried = 0;
    bool once = false, good = true;
    for (int i = 1; i < argc; i++) {
        bool has_value = i + 1 < argc;
        if (has_value && strcmp(argv[i], "--seconds") == 0) {
            seconds = strtoull(argv[++i], NULL, 10);
        } else if (has_value && strcmp(argv[i], "--ops") == 0) {
            ops = strtoull(argv[++i], NULL, 10);
        } else if (has_value && strcmp(argv[i], "--seed") == 0) {
            seed = strtoull(argv[++i], NULL, 10);
            once = true;
        } else {
            good = try_file(argv[i]) && good;
        }
    }
    time_t end = time(NULL) + (time_t)seconds;
    while (good && (once ? tried == 0 : time(NULL) < end)) {
        good = try_seed(seed + tried++, (uint32_t)ops);
    }
    printf("%" PRIu64 " scripts from seed %" PRIu64 "%s\n", tried, seed, good ? "" : ": FAILED");
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
