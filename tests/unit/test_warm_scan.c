/* SPDX-License-Identifier: BSD-3-Clause */
/* SCAN, RANDOMKEY and FLUSHALL on a node whose ranges are cold, and stay so: nobody loads in the background. */
#include "server/cmd/client.h"
#include "tests/support/data_case.h"
#include "tests/support/expect.h"
#include "tests/support/wired_node.h"

#include <sys/stat.h>

enum { COUNT = 4000, REPLY_MAX = 1 << 20 };

static struct data_case c;
static struct wired_node w;
static struct client client;
static struct buf out;

static struct bytes name_of(char to[32], const char *prefix, uint32_t i) {
    return bytes_of(to, (size_t)snprintf(to, 32, "%s%u", prefix, i));
}

static void set_many(uint32_t db, const char *prefix, uint32_t from, uint32_t to) {
    char name[32];
    for (uint32_t i = from; i < to; i++) {
        must(hand_set(&c.hand, db, name_of(name, prefix, i), BYTES("value"), EXPIRY_NONE));
    }
}

/* The directory as it is now, opened by a node without a loader. */
static void open_node(void) {
    case_attach(&c);
    cmd_init();
    wired_node_init_over(&w, c.store, NULL, 0);
    w.node.warm = c.warm;
    client_init(&client, w.workers[0], -1, "test", "test", true);
    buf_init(&out, 0);
}

static void close_node(void) {
    buf_fini(&out);
    client_fini(&client);
    warm_destroy(c.warm);
    c.warm = NULL;
    wired_node_fini(&w);
    c.store = NULL;
    case_close(&c);
}

/* Half of the keys in a snapshot, half in the log behind it. */
static void set_up(void) {
    case_open(&c);
    set_many(0, "key:", 0, COUNT / 2);
    set_many(1, "other:", 0, 1);
    case_snapshot(&c);
    uint64_t from = log_file_end(&c.log); /* what is before can't be had from anywhere else */
    set_many(0, "key:", COUNT / 2, COUNT);
    case_write_log(&c, from, 0);
    open_node();
}

static uint32_t ranges_warm(void) {
    struct warm_stats stats;
    warm_stats(c.warm, &stats);
    return stats.ranges_warm;
}

/* Runs a command of words parted by blanks; NULL: it is held. The reply, as RESP2, lives until the next call. */
static const char *run(const char *line) {
    static char words[256];
    struct bytes argv[16];
    struct job job = {.req = {.argv = argv}};
    struct reply reply = {.out = &out, .proto = REPLY_RESP2};
    char *save = NULL;
    snprintf(words, sizeof(words), "%s", line);
    for (char *s = strtok_r(words, " ", &save); s != NULL; s = strtok_r(NULL, " ", &save)) {
        argv[job.req.argc++] = bytes_str(s);
    }
    buf_reset(&out, REPLY_MAX);
    arena_reset(&w.arenas[0]);
    cmd_prepare(w.workers[0], &client, &job);
    if (cmd_is_held(w.workers[0], &client, &job)) {
        return NULL;
    }
    cmd_run(w.workers[0], &client, &job, &reply);
    buf_append(&out, "", 1);
    ck_assert(!out.failed && out.len < REPLY_MAX);
    return out.ptr;
}

static uint8_t seen[COUNT];

/* Reads the answer of SCAN, "*2 $n cursor *count ($len name)...", and counts the names "key:<i>". */
static uint64_t read_scan(const char *reply, uint32_t *found) {
    char *at = NULL;
    unsigned long long cursor;
    ck_assert_msg(strncmp(reply, "*2\r\n$", 5) == 0, "%s", reply);
    reply = strchr(reply + 5, '\n') + 1;
    cursor = strtoull(reply, &at, 10);
    unsigned long count = strtoul(at + 3, &at, 10);
    for (unsigned long i = 0; i < count; i++) {
        at = strchr(at + 2, '\n') + 1;
        ck_assert(strncmp(at, "key:", 4) == 0);
        unsigned long n = strtoul(at + 4, &at, 10);
        ck_assert(n < COUNT);
        seen[n]++;
    }
    ck_assert_str_eq(at, "\r\n");
    *found = (uint32_t)count;
    return cursor;
}

/* One step, alone or in an EXEC. */
static uint64_t scan_step(uint64_t cursor, const char *options, bool in_exec, uint32_t *found) {
    char line[128];
    snprintf(line, sizeof(line), "SCAN %llu %s", (unsigned long long)cursor, options);
    if (!in_exec) {
        const char *reply = run(line);
        ck_assert_ptr_nonnull(reply);
        return read_scan(reply, found);
    }
    ck_assert_str_eq(run("MULTI"), "+OK\r\n");
    ck_assert_str_eq(run(line), "+QUEUED\r\n");
    const char *reply = run("EXEC");
    ck_assert_ptr_nonnull(reply);
    ck_assert(strncmp(reply, "*1\r\n", 4) == 0);
    return read_scan(reply + 4, found);
}

/* A whole SCAN from a cold start: each step loads its range at most; every key comes once. */
static void scan_all(const char *options, bool in_exec) {
    uint64_t cursor = 0;
    uint32_t found;
    memset(seen, 0, sizeof(seen));
    do {
        uint32_t before = ranges_warm();
        cursor = scan_step(cursor, options, in_exec, &found);
        expect(ranges_warm() <= before + 1);
    } while (cursor != 0);
}

static void scan_from_cold(const char *options, bool in_exec) {
    uint32_t found;
    set_up();
    uint32_t before = ranges_warm();
    scan_step(0, options, in_exec, &found);
    expect_eq(ranges_warm(), before + 1); /* it doesn't wait for all */
    scan_all(options, in_exec);
    for (uint32_t i = 0; i < COUNT; i++) {
        expect_eq(seen[i], 1);
    }
    close_node();
}

START_TEST(test_h32_a_scan_of_cold_ranges_loads_them_one_by_one_and_shows_every_key_once) {
    const char *options[] = {"COUNT 1", "", "COUNT 100000", "MATCH * COUNT 7", "TYPE string"};
    for (uint32_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        scan_from_cold(options[i], false);
        scan_from_cold(options[i], true);
    }
}
END_TEST

START_TEST(what_does_not_match_is_not_shown_while_cold) {
    set_up();
    scan_all("MATCH key:12* COUNT 3", false);
    for (uint32_t i = 0; i < COUNT; i++) {
        char name[32];
        expect_eq(seen[i], strncmp(name_of(name, "", i).ptr, "12", 2) == 0);
    }
    close_node();
    set_up();
    scan_all("TYPE hash", true);
    for (uint32_t i = 0; i < COUNT; i++) {
        expect_eq(seen[i], 0);
    }
    close_node();
}
END_TEST

/* A step goes on through what is warm already, and ends where something cold begins. */
START_TEST(a_step_ends_at_a_cold_range) {
    uint32_t found;
    set_up();
    uint32_t end = 0;
    for (; end < SLOT_COUNT / 2; end++) {
        must(warm_touch(c.warm, &c.thread, end));
    }
    memset(seen, 0, sizeof(seen));
    expect_eq(warm_ready_end(c.warm, 0), SLOT_COUNT / 2);
    uint32_t before = ranges_warm();
    uint64_t cursor = scan_step(0, "COUNT 100000", false, &found);
    expect_eq(ranges_warm(), before);
    expect_eq(cursor, (uint64_t)SLOT_COUNT / 2 << (50 - 11));
    expect(found > COUNT / 3 && found < 2 * COUNT / 3);
    while (cursor != 0) {
        cursor = scan_step(cursor, "COUNT 50", false, &found);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        expect_eq(seen[i], 1);
    }
    close_node();
}
END_TEST

START_TEST(an_empty_database_ends_its_scan_when_every_range_was_looked_at) {
    uint32_t steps = 0, found;
    uint64_t cursor = 0;
    set_up();
    ck_assert_str_eq(run("SELECT 3"), "+OK\r\n");
    do {
        cursor = scan_step(cursor, "", false, &found);
        expect_eq(found, 0);
        steps++;
    } while (cursor != 0);
    expect(steps > 1);
    expect(warm_is_over(c.warm));
    close_node();
}
END_TEST

/* Somewhere in the middle. */
static void damage_a_block(void) {
    char path[512], junk[16] = "damaged block";
    struct stat st;
    snprintf(path, sizeof(path), "%s/%s", c.dir, c.snapshot);
    ck_assert_int_eq(stat(path, &st), 0);
    file_poke(path, st.st_size / 3, junk, sizeof(junk));
}

START_TEST(a_lost_range_is_an_error_that_names_it_and_no_gap) {
    set_up();
    damage_a_block();
    uint32_t lost = 0;
    while (warm_touch(c.warm, &c.thread, lost) == DC_OK) {
        lost++;
    }
    char line[128], name[32];
    expect(lost > 0);
    snprintf(name, sizeof(name), "slots %u to ", lost);
    uint64_t at = (uint64_t)lost << (50 - 11);
    snprintf(line, sizeof(line), "SCAN %llu", (unsigned long long)at);
    ck_assert(strstr(run(line), name) != NULL);
    ck_assert_str_eq(run("MULTI"), "+OK\r\n");
    ck_assert_str_eq(run(line), "+QUEUED\r\n");
    ck_assert(strstr(run("EXEC"), name) != NULL);
    for (uint64_t cursor = 0; cursor != at;) { /* a scan never passes it */
        const char *reply;
        uint32_t found;
        snprintf(line, sizeof(line), "SCAN %llu COUNT 1000", (unsigned long long)cursor);
        reply = run(line);
        ck_assert_ptr_nonnull(reply);
        cursor = read_scan(reply, &found);
        expect(cursor != 0 && cursor <= at);
    }
    expect_eq(warm_all(c.warm, &c.thread), DC_ECORRUPT);
    for (int i = 0; i < 50; i++) {
        ck_assert(strncmp(run("RANDOMKEY"), "$", 1) == 0); /* any other key */
    }
    ck_assert_str_eq(run("SELECT 3"), "+OK\r\n");
    ck_assert(strstr(run("RANDOMKEY"), name) != NULL); /* it can't tell */
    close_node();
}
END_TEST

START_TEST(test_h32_a_random_key_loads_a_range_or_a_few) {
    set_up();
    uint32_t before = ranges_warm();
    uint32_t keys = 0;
    for (int i = 0; i < 20; i++) {
        const char *reply = run("RANDOMKEY");
        ck_assert_ptr_nonnull(reply);
        keys += strstr(reply, "key:") != NULL;
    }
    expect_eq(keys, 20);
    expect(ranges_warm() > before);
    expect(ranges_warm() - before < 100);
    expect(!warm_is_settled(c.warm));
    /* Inside EXEC nothing can be loaded: it waits for everything. */
    ck_assert_str_eq(run("MULTI"), "+OK\r\n");
    ck_assert_str_eq(run("RANDOMKEY"), "+QUEUED\r\n");
    ck_assert_ptr_null(run("EXEC"));
    must(warm_all(c.warm, &c.thread));
    ck_assert(strstr(run("EXEC"), "key:") != NULL);
    close_node();
}
END_TEST

/* Asks until there is an answer; each try loads a few ranges. Returns how many were in vain. */
static uint32_t draw_from(const char *select, const char *expected) {
    uint32_t tries = 0, before = ranges_warm();
    ck_assert_str_eq(run(select), "+OK\r\n");
    const char *reply = run("RANDOMKEY");
    for (; reply == NULL; reply = run("RANDOMKEY")) {
        expect(ranges_warm() <= before + 8);
        before = ranges_warm();
        ck_assert(tries++ < 10000);
    }
    ck_assert_str_eq(reply, expected);
    return tries;
}

START_TEST(a_random_key_that_is_hard_to_find_is_waited_for) {
    set_up();
    draw_from("SELECT 1", "$7\r\nother:0\r\n");
    close_node();
    set_up();
    expect(draw_from("SELECT 3", "$-1\r\n") > 0);
    expect(warm_is_over(c.warm)); /* it took all to know */
    close_node();
}
END_TEST

/* With the n-th allocation failing, its frame's too. What it has answered. */
static bool flush_without_memory(const char *command, uint64_t n) {
    set_up();
    ck_assert_int_eq(chdir(c.dir), 0); /* where the log has its files */
    log_set_keeps(w.node.log, true);
    ck_assert_str_eq(run("PING"), "+PONG\r\n"); /* memory for replies is there */
    mem_fault_after(n);
    const char *reply = run(command);
    mem_fault_after(0);
    ck_assert_ptr_nonnull(reply);
    bool flushed = strcmp(reply, "+OK\r\n") == 0;
    ck_assert_msg(flushed || strncmp(reply, "-OOM", 4) == 0, "%s", reply);
    must(warm_all(c.warm, &c.thread));
    expect_eq(keyspace_count(store_keyspace(c.store, 0)), flushed ? 0 : COUNT);
    bool all = strcmp(command, "FLUSHALL") == 0;
    expect_eq(keyspace_count(store_keyspace(c.store, 1)), flushed && all ? 0 : 1);
    ck_assert_int_eq(chdir("/"), 0);
    close_node();
    return flushed;
}

START_TEST(test_h16_a_flush_without_memory_leaves_out_nothing_that_is_cold) {
    static const char *const commands[] = {"FLUSHDB", "FLUSHALL"};
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t n = 1;
        while (!flush_without_memory(commands[i], n)) {
            n++;
        }
        expect(n > 3); /* the record, and the frame's bytes and pieces */
    }
}
END_TEST

CHECK_MAIN("warm_scan",
           test_h32_a_scan_of_cold_ranges_loads_them_one_by_one_and_shows_every_key_once,
           what_does_not_match_is_not_shown_while_cold, a_step_ends_at_a_cold_range,
           an_empty_database_ends_its_scan_when_every_range_was_looked_at,
           a_lost_range_is_an_error_that_names_it_and_no_gap,
           test_h32_a_random_key_loads_a_range_or_a_few,
           a_random_key_that_is_hard_to_find_is_waited_for,
           test_h16_a_flush_without_memory_leaves_out_nothing_that_is_cold)
