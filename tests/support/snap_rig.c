/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/snap_rig.h"

#include "server/base/mem.h"
#include "tests/support/expect.h"
#include "tests/support/store_check.h"

#include <stdio.h>

struct rig rig;
const uint8_t rig_node_id[NODE_ID_LEN] = {1, 2, 3};
const uint8_t rig_seed[SEED_LEN];
const struct history rig_chain[2] = {{0xaaaa, 1 << 20, 1, 0}, {0xbbbb, 1 << 21, 2, 1000}};

void rig_open(void) {
    engine_init(&rig.engine, NULL);
    hand_init(&rig.hand, &rig.engine, 1);
    rig.disk = sim_disk_create();
    expect_eq(sim_disk_io(rig.disk)->mkdir(sim_disk_io(rig.disk), "data"), 0);
}

void rig_close(void) {
    struct table_facts facts;
    const char *err = store_check(rig.engine.store, &facts);
    ck_assert_msg(err == NULL, "%s", err);
    hand_fini(&rig.hand);
    engine_fini(&rig.engine);
    sim_disk_destroy(rig.disk);
}

void rig_must(enum dc_err err) {
    ck_assert_msg(err == DC_OK, "%s at %s", dc_fail_take(err), dc_fail_where());
}

struct snap_write_opts rig_opts(const struct io *io) {
    return (struct snap_write_opts){.io = io,
                                    .dir = "data",
                                    .store = rig.engine.store,
                                    .lsn = sequencer_head(&rig.engine.sequencer).v,
                                    .node_id = rig_node_id,
                                    .seed = rig_seed,
                                    .chain = rig_chain,
                                    .chain_count = 2,
                                    .threads = 2,
                                    .now_ms = engine_now(&rig.engine)};
}

void rig_write(void) {
    struct snap_write_opts opts = rig_opts(sim_disk_io(rig.disk));
    rig_must(snap_write(&opts, &rig.written));
}

void rig_path(const char *name, char to[256]) {
    snprintf(to, 256, "data/%s", name);
}

struct snap *rig_open_snapshot(void) {
    struct snap *s;
    char path[256];
    rig_path(rig.written.name, path);
    rig_must(snap_open(sim_disk_io(rig.disk), path, &s));
    return s;
}

static void count_file(void *arg, const char *name) {
    struct rig_files *l = arg;
    l->files++;
    l->tmps += strncmp(name, "snap-", 5) == 0 && strstr(name, ".tmp") != NULL;
}

struct rig_files rig_list(void) {
    struct rig_files l = {0, 0};
    expect_eq(sim_disk_io(rig.disk)->list(sim_disk_io(rig.disk), "data", count_file, &l), 0);
    return l;
}

/* --- comparing --------------------------------------------------------------------------------------- */

/* An entry of the snapshot is the one of the store. */
static void expect_in_store(struct snap_block *b, const struct snap *s, uint32_t index,
                            const struct snap_entry *e) {
    const struct snap_block_info *info = snap_block_info(s, index);
    struct keyspace *ks = store_numbered(rig.engine.store, info->keyspace);
    struct key k = store_key(rig.engine.store, e->key);
    expect_eq(snap_range_of(snap_facts(s)->range_bits, info->keyspace, k.pos.v), info->range);
    expect(k.pos.v >= info->first_pos);
    store_lock(rig.engine.store, key_slot(&k));
    const struct entry *there = store_peek(&rig.hand.thread, ks, &k, 0);
    struct value v;
    expect(there != NULL);
    entry_value(there, &v);
    expect_eq(e->version, entry_version(there));
    expect_eq(e->expiry_ms, entry_expiry(there));
    expect_eq(e->freq, there->freq);
    expect_eq(e->value.kind, v.kind);
    int64_t idle_ms = store_idle_ms(rig.engine.store, there, engine_now(&rig.engine));
    int64_t walked_ms = snap_facts(s)->finished_ms - snap_facts(s)->begun_ms;
    expect(e->age_code >=
           snap_age_encode(idle_ms)); /* the entry was seen some time into the walk */
    expect(e->age_code <= snap_age_encode(idle_ms + walked_ms));
    if (v.kind == VALUE_BLOB) {
        struct blob *blob;
        rig_must(snap_read_blob(b, s, index, e, &blob));
        expect(blob->len == v.blob->len && memcmp(blob->data, v.blob->data, blob->len) == 0);
        blob_release(blob);
    } else if (v.kind == VALUE_INT) {
        expect_eq(e->value.num, v.num);
    } else {
        expect(bytes_equal(e->value.str, v.str));
    }
    store_unlock(rig.engine.store, key_slot(&k));
}

/* What is in the snapshot is in the store, and as much of it. */
void rig_compare(void) {
    struct snap *s = rig_open_snapshot();
    struct snap_block *b = snap_block_create();
    struct snap_entry e;
    const struct snap_facts *f = snap_facts(s);
    uint64_t seen = 0;
    uint32_t next = 0;
    for (uint32_t range = 0; range <= (uint32_t)SLOT_COUNT >> f->range_bits; range++) {
        uint32_t first, count;
        snap_range_blocks(s, range, &first, &count);
        expect_eq(first, next);
        next += count;
        for (uint32_t i = first; i < first + count; i++) {
            const struct snap_block_info *info = snap_block_info(s, i);
            expect_eq(info->range, range);
            rig_must(snap_block_read(b, s, i));
            uint32_t here = 0;
            for (; snap_block_next(b, &e); here++) {
                expect_in_store(b, s, i, &e);
                if (i + 1 < f->block_count && info[1].range == range &&
                    info[1].keyspace == info->keyspace && info[1].kind == SNAP_ENTRIES) {
                    expect(store_key(rig.engine.store, e.key).pos.v < info[1].first_pos);
                }
            }
            expect_eq(here, info->entries);
            seen += here;
        }
    }
    expect_eq(next, f->block_count);
    expect_eq(seen, store_count(rig.engine.store) + keyspace_count(store_system(rig.engine.store)));
    expect_eq(seen, f->entries);
    expect_eq(seen, rig.written.entries);
    expect(memcmp(f->node_id, rig_node_id, NODE_ID_LEN) == 0 &&
           memcmp(f->seed, rig_seed, SEED_LEN) == 0);
    expect(f->chain_count == 2 && memcmp(f->chain, rig_chain, sizeof(rig_chain)) == 0);
    expect(f->start_lsn == f->end_lsn && f->end_lsn == sequencer_head(&rig.engine.sequencer).v);
    struct snap_tail *t;
    struct frame_ref frame;
    rig_must(snap_tail_open(s, &t));
    expect_eq(snap_tail_next(t, &frame), LOG_END);
    snap_tail_close(t);
    snap_block_destroy(b);
    snap_close(s);
}

/* --- filling ----------------------------------------------------------------------------------------- */

void rig_set(uint32_t db, const char *name, struct bytes value, int64_t expiry_ms) {
    rig_must(hand_set(&rig.hand, db, bytes_str(name), value, expiry_ms));
}

void rig_set_number(uint32_t db, const char *prefix, uint64_t i, struct bytes value,
                    int64_t expiry_ms) {
    char name[64];
    snprintf(name, sizeof(name), "%s%" PRIu64, prefix, i);
    rig_set(db, name, value, expiry_ms);
}

static char *zeros(size_t len) {
    char *text = mem_must_zalloc(len);
    return text;
}

/* A value of so many bytes, which aren't all the same and compress well. */
void rig_set_long(uint32_t db, const char *name, size_t len, int64_t expiry_ms) {
    char *text = zeros(len);
    for (size_t i = 0; i < len; i += 4096) {
        memcpy(text + i, &i, len - i < sizeof(i) ? len - i : sizeof(i));
    }
    rig_set(db, name, bytes_of(text, len), expiry_ms);
    mem_free(text);
}

void rig_fill(void) {
    const int64_t expiries[] = {EXPIRY_NONE, ENGINE_NOW_MS + 1000, 5, INT64_MAX / 2};
    char *key = zeros(70000);
    memset(key, 'k', 70000);
    for (uint32_t x = 0; x < 4; x++) {
        const int64_t numbers[] = {0, 1, -1, 127, 128, -128, -129, 1 << 20, INT64_MAX, INT64_MIN};
        char name[32], digits[32];
        for (uint32_t i = 0; i < 10; i++) {
            snprintf(name, sizeof(name), "int%u-%u", x, i);
            snprintf(digits, sizeof(digits), "%" PRId64, numbers[i]);
            rig_set(x, name, bytes_str(digits), expiries[x]);
        }
        rig_set_number(0, "text", x, BYTES("some text"), expiries[x]);
        rig_set_number(1, "empty", x, BYTES(""), expiries[x]);
        rig_set_number(2, "binary", x, BYTES("\0\r\n\xff"), expiries[x]);
        rig_set_number(3, "raw", x, BYTES("123"), EXPIRY_NONE);
        snprintf(name, sizeof(name), "raw%u", x);
        rig_must(hand_append(&rig.hand, 3, bytes_str(name), BYTES("456")));
        snprintf(name, sizeof(name), "long%u", x);
        rig_set_long(x, name, BLOB_MIN_LEN - 1, expiries[x]);
        snprintf(name, sizeof(name), "blob%u", x);
        rig_set_long(x, name, BLOB_MIN_LEN, expiries[x]);
        rig_must(hand_set(&rig.hand, x, bytes_of(key, 253 + x), BYTES("v"), expiries[x]));
    }
    rig_must(hand_set(&rig.hand, 5, bytes_of(key, 70000), BYTES("v"), EXPIRY_NONE));
    rig_set(0, "", BYTES("of the empty key"), EXPIRY_NONE);
    mem_free(key);
}

/* Reads all of a file; the first error. */
enum dc_err rig_read_all(const char *path) {
    struct snap *s;
    struct snap_entry e;
    enum dc_err err = snap_open(sim_disk_io(rig.disk), path, &s);
    if (err != DC_OK) {
        return err;
    }
    struct snap_block *b = snap_block_create();
    for (uint32_t i = 0; i < snap_facts(s)->block_count && err == DC_OK; i++) {
        err = snap_block_read(b, s, i);
        while (err == DC_OK && snap_block_next(b, &e)) {
            struct blob *blob = NULL;
            if (e.value.kind == VALUE_BLOB) {
                err = snap_read_blob(b, s, i, &e, &blob);
                blob_release(blob);
            }
        }
    }
    struct snap_tail *t;
    struct frame_ref frame;
    rig_must(snap_tail_open(s, &t));
    enum log_end end = LOG_MORE;
    while (err == DC_OK && end == LOG_MORE) {
        end = snap_tail_next(t, &frame);
        err = end == LOG_DAMAGED ? DC_ECORRUPT : end == LOG_FAILED ? DC_EIO : err;
    }
    snap_tail_close(t);
    snap_block_destroy(b);
    snap_close(s);
    return err;
}
