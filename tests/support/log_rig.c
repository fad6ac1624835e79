/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/log_rig.h"

#include "server/base/mem.h"
#include "server/base/sum.h"
#include "server/base/time.h"
#include "server/store/store.h"
#include "tests/support/expect.h"
#include "tests/support/trace.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct log_rig rig;

static const uint8_t node_id[NODE_ID_LEN] = {1};
static const uint8_t seed[SEED_LEN] = {2};
static struct store *store;

void rig_init(void) {
    memset(&rig, 0, sizeof(rig));
    rig.disk = sim_disk_create();
    rig.chain[0] = (struct history){.id = 0xabc, .start = RIG_FIRST_LSN, .epoch = 1};
    const struct io *io = sim_disk_io(rig.disk);
    expect_eq(io->mkdir(io, "data"), 0);
    rig.opts = (struct log_opts){.io = io,
                                 .dir = "data",
                                 .node_id = node_id,
                                 .seed = seed,
                                 .history = rig.chain[0],
                                 .first_lsn = RIG_FIRST_LSN,
                                 .chain = rig.chain,
                                 .chain_count = 1,
                                 .fork = true,
                                 .keeps = true,
                                 .sync = LOG_SYNC_EVERYSEC,
                                 .segment_len = RIG_SEGMENT_LEN,
                                 .memory_limit = (uint64_t)1 << 30};
    struct store_opts store_opts = {.keyspaces = 1};
    store = store_create(&store_opts);
}

void rig_open(void) {
    enum dc_err err = log_open(&rig.opts, &rig.log);
    ck_assert_msg(err == DC_OK, "%s", dc_fail_take(err));
    rig.feed = log_feed_create(rig.log);
}

void rig_close(bool clean) {
    struct rig_found f;
    log_feed_destroy(rig.feed);
    log_close(rig.log, clean, 5000);
    rig.log = NULL;
    rig_read(&f, NULL, 0);
    rig.opts.first_lsn = f.end.lsn;
    rig.opts.fork = false;
    rig_found_fini(&f);
}

void rig_fini(void) {
    sim_disk_destroy(rig.disk);
    store_destroy(store);
}

/* --- appending --------------------------------------------------------------------------------------- */

enum dc_err rig_try_append(struct log_feed *f, const char *key, const struct value *v,
                           uint64_t *end) {
    struct mut m;
    mut_init(&m, store, NULL);
    m.now_ms = 1000;
    m.count = 1;
    m.effects[0] = (struct effect){.kind = MUT_PUT,
                                   .ks = store_keyspace(store, 0),
                                   .key.name = bytes_of(key, strlen(key)),
                                   .value = *v,
                                   .expiry_ms = EXPIRY_NONE};
    enum dc_err err = log_reserve(f, &m);
    if (err == DC_OK) {
        *end = log_append(f, &m).v;
        expect_eq(m.effects[0].version, *end);
    }
    return err;
}

static uint64_t append(struct log_feed *f, const char *key, const struct value *v) {
    uint64_t end = 0;
    expect_eq(rig_try_append(f, key, v, &end), DC_OK);
    log_kick(rig.log);
    return end;
}

uint64_t rig_append(struct log_feed *f, const char *key, struct bytes value) {
    struct value v = {.kind = VALUE_STR, .str = value};
    return append(f, key, &v);
}

uint64_t rig_append_blob(struct log_feed *f, const char *key, struct blob *b) {
    struct value v = {.kind = VALUE_BLOB, .blob = b};
    return append(f, key, &v);
}

static void fill(char *value, uint64_t number, size_t len) {
    for (size_t i = 0; i < len; i++) {
        value[i] = (char)('a' + (number + i) % 26);
    }
}

uint64_t rig_append_number(uint64_t number, size_t len) {
    char key[32];
    char *value = mem_must_alloc(len + 1);
    fill(value, number, len);
    snprintf(key, sizeof(key), "k%" PRIu64, number);
    uint64_t end = rig_append(rig.feed, key, bytes_of(value, len));
    mem_free(value);
    return end;
}

bool rig_wait(enum log_level level, uint64_t lsn) {
    return log_wait(rig.log, level, (struct lsn){lsn}, 10 * 1000 * 1000);
}

bool rig_until(bool (*condition)(void *arg), void *arg) {
    int64_t end_us = time_mono_us() + 10 * 1000 * 1000;
    while (!condition(arg)) {
        if (time_mono_us() > end_us) {
            return false;
        }
        usleep(200);
    }
    return true;
}

bool rig_is_well(void *unused) {
    (void)unused;
    return log_state(rig.log) == LOG_WELL;
}

bool rig_is_ill(void *state) {
    return log_state(rig.log) == *(enum log_state *)state;
}

static _Atomic int blocked; /* enum sim_call, -1 = none */
static _Atomic bool inside;

static void block(void *arg, enum sim_call kind, const char *path) {
    (void)arg, (void)path;
    while (atomic_load(&blocked) == (int)kind) {
        atomic_store(&inside, true);
        usleep(500);
    }
}

void rig_block_calls(int kind) {
    atomic_store(&inside, false);
    atomic_store(&blocked, kind);
    sim_disk_set_hook(rig.disk, block, NULL);
}

bool rig_is_inside(void *unused) {
    (void)unused;
    return atomic_load(&inside);
}

/* --- the trace --------------------------------------------------------------------------------------- */

/* What the disk has told since the last time, behind what is there. */
static void collect(struct buf *to) {
    static const char *const spares[] = {"create segment-", "allocate segment-", "unlink segment-"};
    char *told = sim_disk_take_trace(rig.disk);
    for (size_t i = 0; i < sizeof(spares) / sizeof(spares[0]); i++) {
        (void)trace_drop(told, spares[i]);
    }
    if (rig.hides_marks) {
        (void)trace_drop(told, " 512+24\n");
    }
    buf_append_str(to, told);
    mem_free(told);
}

char *rig_take_trace(bool (*is_enough)(const char *trace, const void *arg), const void *arg) {
    int64_t end_us = time_mono_us() + 10 * 1000 * 1000;
    struct buf text;
    buf_init(&text, 0);
    for (;;) {
        bool last = time_mono_us() > end_us;
        collect(&text);
        char *trace = mem_must_alloc(text.len + 1);
        memcpy(trace, text.len > 0 ? text.ptr : "", text.len);
        trace[text.len] = '\0';
        if (last || is_enough(trace, arg)) {
            buf_fini(&text);
            return trace;
        }
        mem_free(trace);
        usleep(200);
    }
}

bool rig_has_allocated(void *count) {
    return sim_disk_calls(rig.disk, SIM_ALLOCATE) >= *(uint64_t *)count;
}

bool rig_trace_has_lines(const char *trace, const void *count) {
    return trace_lines(trace) >= *(const size_t *)count;
}

bool rig_trace_ends_with_mark(const char *trace, const void *unused) {
    static const char mark[] = " 512+24\n";
    size_t len = strlen(trace);
    (void)unused;
    return len >= sizeof(mark) - 1 && strcmp(trace + len - (sizeof(mark) - 1), mark) == 0;
}

void rig_expect_trace(uint64_t allocated, const char *format, ...) {
    char wanted[4096];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(wanted, sizeof(wanted), format, args);
    va_end(args);
    expect(len >= 0 && len < (int)sizeof(wanted));
    size_t lines = trace_lines(wanted);
    expect(rig_until(rig_has_allocated, &allocated));
    char *trace = rig_take_trace(rig_trace_has_lines, &lines);
    ck_assert_str_eq(trace, wanted);
    mem_free(trace);
}

/* --- reading ----------------------------------------------------------------------------------------- */

static void note(struct rig_found *f, const struct frame_ref *frame) {
    if ((f->count & (f->count - 1)) == 0) {
        f->frames = mem_must_realloc(f->frames, (f->count == 0 ? 1 : 2 * (size_t)f->count) *
                                                    sizeof(*f->frames));
    }
    struct rig_frame *to = &f->frames[f->count++];
    *to = (struct rig_frame){.lsn = frame->lsn, .end = frame->lsn + frame->len};
    to->kind = frame->head.kind;
    if (to->kind == FRAME_MUTATION) {
        struct effect_view e;
        expect_eq(frame->head.effect_count, 1);
        expect(effect_decode(frame->bytes, frame->len, FRAME_HEADER_LEN, frame->lsn, &e));
        expect_eq(e.version, to->end);
        snprintf(to->key, sizeof(to->key), "%.*s", (int)e.key.len, e.key.ptr);
        to->value_len = e.data.len;
        to->value_sum = sum64(e.data.ptr, e.data.len, 0);
    }
}

void rig_read(struct rig_found *f, struct sim_disk *d, uint64_t from) {
    struct log_dir dir;
    struct log_reader *r;
    struct frame_ref frame;
    memset(f, 0, sizeof(*f));
    const struct io *io = d != NULL ? sim_disk_io(d) : rig.opts.io;
    const char *path = d != NULL ? "data" : rig.opts.dir;
    expect_eq(rig.opts.keeps ? log_dir_open(&dir, io, path) : log_dir_open_running(&dir, io, path),
              DC_OK);
    expect_eq(log_reader_open(&r, &dir, from), DC_OK);
    while ((f->how = log_reader_next(r, &frame)) == LOG_MORE) {
        note(f, &frame);
    }
    log_reader_end(r, &f->end);
    log_reader_close(r);
    log_dir_close(&dir);
}

void rig_found_fini(struct rig_found *f) {
    mem_free(f->frames);
}

const struct rig_frame *rig_find(const struct rig_found *f, uint64_t end) {
    uint32_t low = 0;
    uint32_t high = f->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (f->frames[middle].end < end) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < f->count && f->frames[low].end == end ? &f->frames[low] : NULL;
}

void rig_expect_numbers(const struct rig_found *f, uint64_t from, uint64_t to) {
    uint64_t next = from;
    for (uint32_t i = 0; i < f->count; i++) {
        const struct rig_frame *frame = &f->frames[i];
        if (frame->kind != FRAME_MUTATION) {
            continue;
        }
        char key[32];
        char *value = mem_must_alloc((size_t)frame->value_len + 1);
        snprintf(key, sizeof(key), "k%" PRIu64, next);
        ck_assert_str_eq(frame->key, key);
        fill(value, next, (size_t)frame->value_len);
        expect(sum64(value, (size_t)frame->value_len, 0) == frame->value_sum);
        mem_free(value);
        next++;
    }
    ck_assert_msg(next == to, "k%" PRIu64 " is missing: %s", next, f->end.text);
}

uint64_t rig_count_numbers(const struct rig_found *f) {
    uint64_t next = 0;
    for (uint32_t i = 0; i < f->count; i++) {
        char key[32];
        snprintf(key, sizeof(key), "k%" PRIu64, next);
        if (f->frames[i].kind == FRAME_MUTATION && strcmp(f->frames[i].key, key) != 0) {
            break;
        }
        next += f->frames[i].kind == FRAME_MUTATION;
    }
    return next;
}

static void add_name(void *arg, const char *name) {
    buf_append_str(arg, name);
    buf_append_str(arg, " ");
}

void rig_list(struct buf *to) {
    const struct io *io = rig.opts.io;
    expect_eq(io->list(io, rig.opts.dir, add_name, to), 0);
    buf_append(to, "", 1);
}
