/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * inspect_fixture: writes a data directory as a node would, for test_inspect.py, and tells what is in it.
 *
 *     inspect_fixture DIR SEED
 *
 * Two histories, two snapshots, the second one among writers; a catalogue. DIR/calm.txt and DIR/end.txt have a line for each
 * key that is alive: at the end of the first snapshot, and at the end of the log. Keyspace, key, CRC-32 of the value, its length, version, expiry.
 */
#include "persist/log.h"
#include "persist/meta.h"
#include "persist/retain.h"
#include "persist/snap_writer.h"
#include "server/base/thread.h"
#include "server/base/time.h"
#include "server/store/system.h"
#include "tests/support/engine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEYS = 1500, DBS = 3, OPS = 12000, BLOB_LEN = 150000, NAME_LEN = 48 };

static const uint8_t node_id[NODE_ID_LEN] = {0xd0, 0xca, 0xce};
static const uint8_t seed[SEED_LEN] = {5, 6, 7};
static struct history chain[2] = {{.id = 0xaaaa, .start = LSN_FIRST, .epoch = 1},
                                  {.id = 0xbbbb, .epoch = 1}};
static int64_t base_ms;
static struct engine engine;
static struct log *node_log;
static _Thread_local struct log_feed *feed;
static const char *dir;

static void must(enum dc_err err) {
    if (err != DC_OK) {
        fprintf(stderr, "inspect_fixture: %s\n", dc_fail_take(err));
        exit(EXIT_FAILURE);
    }
}

static void commit(void *arg, struct mut *m) {
    (void)arg;
    if (m->count > 0) {
        must(log_reserve(feed, m));
        (void)log_commit(feed, m);
        log_kick(node_log);
    }
}

static void open_log(uint32_t links) {
    struct log_opts opts = {.io = &io_posix,
                            .dir = dir,
                            .node_id = node_id,
                            .seed = seed,
                            .history = chain[links - 1],
                            .first_lsn = chain[links - 1].start,
                            .chain = chain,
                            .chain_count = links,
                            .fork = true,
                            .keeps = true,
                            .sync = LOG_SYNC_EVERYSEC,
                            .segment_len = 256 * 1024,
                            .memory_limit = 1 << 30};
    must(log_open(&opts, &node_log));
    engine.commit = commit;
    feed = log_feed_create(node_log);
}

static void close_log(bool clean) {
    log_feed_destroy(feed);
    log_close(node_log, clean, 10000);
}

/* --- what is written ----------------------------------------------------------------------------------------------------- */

static struct bytes name_of(uint64_t n, char to[NAME_LEN]) {
    const char *prefix = n % 7 == 0 ? "{tag}:" : n % 11 == 0 ? "b\xff\xfe\"\\\n:" : "key:";
    return bytes_of(to, (size_t)snprintf(to, NAME_LEN, "%s%" PRIu64, prefix, n));
}

static void random_op(struct hand *h, struct rng *r, const char *filler) {
    char a[NAME_LEN];
    char b[NAME_LEN];
    bool existed;
    int64_t sum;
    uint32_t db = (uint32_t)rng_below(r, DBS);
    uint64_t n = rng_below(r, KEYS);
    struct bytes key = name_of(n, a);
    int64_t expiry_ms = base_ms + (int64_t)rng_below(r, 100000);
    switch (rng_below(r, 10)) {
    case 0:
        must(hand_del(h, db, key, &existed));
        break;
    case 1:
        must(hand_append(h, db, key, BYTES("more")));
        break;
    case 2:
        must(hand_expire(h, db, key, n % 3 == 0 ? EXPIRY_NONE : expiry_ms, &existed));
        break;
    case 3:
        must(hand_write(h, db, key, rng_below(r, 300), BYTES("patch")));
        break;
    case 4:
        must(hand_rename(h, db, key, name_of(rng_below(r, KEYS), b), &existed));
        break;
    case 5:
        must(hand_del(h, db, key, &existed));
        must(hand_incr(h, db, key, (int64_t)n - KEYS / 2, &sum));
        break;
    case 6:
        if (rng_below(r, 2000) == 0) {
            must(hand_flush(h, DBS - 1));
        }
        break;
    default: {
        size_t len = rng_below(r, 200) == 0 ? (size_t)BLOB_LEN : rng_below(r, 120);
        must(hand_set(h, db, key, bytes_of(filler + n, len), n % 2 == 0 ? expiry_ms : EXPIRY_NONE));
    }
    }
}

static void run_ops(struct hand *h, struct rng *r, uint32_t count) {
    char *filler = malloc(BLOB_LEN + KEYS);
    for (uint32_t i = 0; i < BLOB_LEN + KEYS; i++) {
        filler[i] = (char)('a' + i % 23);
    }
    for (uint32_t i = 0; i < count; i++) {
        random_op(h, r, filler);
    }
    free(filler);
}

/* --- what is told -------------------------------------------------------------------------------------------------------- */

static uint32_t crc32_of(const char *ptr, size_t len) {
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < len; i++) {
        crc ^= (unsigned char)ptr[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        }
    }
    return ~crc;
}

/* The records of flushes, as "system". */
static void tell_system(FILE *out) {
    for (uint32_t db = 0; db < DBS; db++) {
        const struct entry *e = system_flush_record(store_keyspace(engine.store, db));
        char hex[2 * NAME_LEN + 1];
        char digits[NUM_I64_TEXT_MAX];
        struct value v;
        if (e != NULL) {
            entry_value(e, &v);
            struct bytes text = value_bytes(&v, digits);
            crypto_hex(hex, entry_key(e).ptr, entry_key(e).len);
            fprintf(out, "system %s %" PRIu32 " %zu %" PRIu64 " %" PRId64 "\n", hex,
                    crc32_of(text.ptr, text.len), text.len, entry_version(e), entry_expiry(e));
        }
    }
}

static void tell(struct hand *h, const char *file) {
    char path[512];
    char name[NAME_LEN];
    char hex[2 * NAME_LEN + 1];
    struct buf text;
    snprintf(path, sizeof(path), "%s/%s", dir, file);
    FILE *out = fopen(path, "w");
    if (out == NULL) {
        exit(EXIT_FAILURE);
    }
    buf_init(&text, 0);
    for (uint64_t i = 0; i < (uint64_t)DBS * KEYS; i++) {
        struct bytes key = name_of(i % KEYS, name);
        buf_reset(&text, SIZE_MAX);
        struct seen seen = hand_peek(h, (uint32_t)(i / KEYS), key, &text);
        crypto_hex(hex, key.ptr, key.len);
        if (seen.alive) {
            fprintf(out, "%" PRIu64 " %s %" PRIu32 " %zu %" PRIu64 " %" PRId64 "\n", i / KEYS, hex,
                    crc32_of(text.ptr, text.len), text.len, seen.version, seen.expiry_ms);
        }
    }
    tell_system(out);
    buf_fini(&text);
    fclose(out);
}

/* --- snapshots and the catalogue ----------------------------------------------------------------------------------------- */

static void write_snapshot(uint32_t links, struct snap_written *out) {
    struct snap_write_opts opts = {.io = &io_posix,
                                   .dir = dir,
                                   .store = engine.store,
                                   .log = node_log,
                                   .node_id = node_id,
                                   .seed = seed,
                                   .chain = chain,
                                   .chain_count = links,
                                   .block_len = 4096,
                                   .threads = 2,
                                   .now_ms = engine_now(&engine)};
    must(snap_write(&opts, out));
}

static _Atomic bool stop;

static void write_meanwhile(void *arg) {
    struct hand h;
    struct rng r;
    rng_seed(&r, *(const uint64_t *)arg + 99);
    hand_init(&h, &engine, 2);
    feed = log_feed_create(node_log);
    do {
        run_ops(&h, &r, 20);
        usleep(2000);
    } while (!atomic_load(&stop));
    log_feed_destroy(feed);
    hand_fini(&h);
}

static void write_catalogue(const struct snap_written *second) {
    struct meta_node node = {.known = true};
    struct meta *m;
    struct log_dir d;
    struct meta_file f;
    struct snap *s = NULL;
    bool rebuilt;
    char path[512];
    memcpy(node.node_id, node_id, NODE_ID_LEN);
    memcpy(node.seed, seed, SEED_LEN);
    must(meta_open(dir, &m, &rebuilt));
    must(meta_put_node(m, &node));
    must(meta_put_chain(m, chain, 2));
    must(meta_put_text(m, "role", "primary"));
    must(log_dir_open(&d, &io_posix, dir));
    for (uint32_t i = 0; i < d.count; i++) {
        retain_file_of_segment(&d.segments[i], &f);
        must(meta_put_file(m, &f));
    }
    log_dir_close(&d);
    snprintf(path, sizeof(path), "%s/%s", dir, second->name);
    must(snap_open(&io_posix, path, &s));
    retain_file_of_snapshot(second->name, snap_facts(s), &f);
    must(meta_put_file(m, &f));
    snap_close(s);
    meta_close(m);
}

int main(int argc, char **argv) {
    struct hand h;
    struct rng r;
    struct thread writer;
    struct snap_written written;
    if (argc != 3) {
        return EXIT_FAILURE;
    }
    dir = argv[1];
    uint64_t number = strtoull(argv[2], NULL, 0);
    rng_seed(&r, number);
    crypto_init();
    engine_init(&engine, seed);
    base_ms = time_wall_us() / 1000; /* as the log has it */
    engine_sleep(&engine, base_ms - engine_now(&engine));
    hand_init(&h, &engine, 1);
    open_log(1);
    run_ops(&h, &r, OPS / 2);
    must(hand_flush(&h, DBS - 1));
    run_ops(&h, &r, OPS / 2);
    (void)log_wait(node_log, LOG_LEVEL_DISK, log_head(node_log),
                   10000000); /* so its tail is short */
    write_snapshot(1, &written);
    tell(&h, "calm.txt");
    run_ops(&h, &r, OPS);
    chain[1].parent_end = log_head(node_log).v;
    chain[1].start = chain[1].parent_end + LSN_JUMP;
    close_log(false);
    open_log(2);
    run_ops(&h, &r, OPS / 4);
    thread_start(&writer, "writer", write_meanwhile, &number);
    write_snapshot(2, &written);
    atomic_store(&stop, true);
    thread_join(&writer);
    run_ops(&h, &r, OPS / 4);
    must(hand_flush(&h, DBS - 2));
    engine_sleep(&engine, 50000); /* half of what expires has expired */
    run_ops(&h, &r, 50);
    tell(&h, "end.txt");
    close_log(true);
    write_catalogue(&written);
    hand_fini(&h);
    engine_fini(&engine);
    printf("%s\n", written.name);
    return EXIT_SUCCESS;
}
