/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/slowlog.h"

#include "server/cmd/client.h"
#include "tests/support/wired_node.h"

enum { SEEN_MAX = 8 };

/* What slowlog_each() showed, in its order. */
struct seen {
    uint32_t announced;
    uint32_t count;
    int64_t ids[SEEN_MAX];
    uint32_t argc;
    char args[SLOWLOG_ARGS_MAX][256]; /* of the last entry shown */
    char name[32];
};

static void note_count(void *arg, uint32_t count) {
    struct seen *s = arg;
    s->announced = count;
}

static void note_entry(void *arg, const struct slowlog_entry *e) {
    struct seen *s = arg;
    ck_assert_uint_lt(s->count, SEEN_MAX);
    s->ids[s->count++] = e->id;
    s->argc = e->argc;
    snprintf(s->name, sizeof(s->name), "%.*s", (int)e->name.len, e->name.ptr);
    for (uint32_t i = 0; i < e->argc; i++) {
        snprintf(s->args[i], sizeof(s->args[i]), "%.*s", (int)e->argv[i].len, e->argv[i].ptr);
    }
}

static struct seen look(struct slowlog *log, uint32_t count) {
    struct seen s = {.count = 0};
    slowlog_each(log, count, note_count, note_entry, &s);
    ck_assert_uint_eq(s.announced, s.count);
    return s;
}

static void add(struct slowlog *log, const struct bytes *argv, uint32_t argc, uint32_t max_len) {
    struct slowlog_fact fact = {.time_s = 1,
                                .usec = 2,
                                .addr = BYTES("127.0.0.1:5"),
                                .name = BYTES("me"),
                                .argc = argc,
                                .argv = argv};
    slowlog_add(log, &fact, max_len);
}

START_TEST(the_newest_come_first_and_the_oldest_go) {
    struct slowlog *log = slowlog_create();
    struct bytes ping = BYTES("ping");
    for (int i = 0; i < 5; i++) {
        add(log, &ping, 1, 3);
    }
    ck_assert_uint_eq(slowlog_len(log), 3);
    struct seen s = look(log, 2);
    ck_assert_uint_eq(s.count, 2);
    ck_assert_int_eq(s.ids[0], 4);
    ck_assert_int_eq(s.ids[1], 3);
    ck_assert_str_eq(s.name, "me");
    ck_assert_uint_eq(look(log, 100).count, 3);
    add(log, &ping, 1, 1); /* the bound was lowered */
    ck_assert_uint_eq(slowlog_len(log), 1);
    add(log, &ping, 1, 0);
    ck_assert_uint_eq(slowlog_len(log), 0);
    slowlog_destroy(log);
}
END_TEST

START_TEST(a_reset_forgets_entries_not_numbers) {
    struct slowlog *log = slowlog_create();
    struct bytes ping = BYTES("ping");
    add(log, &ping, 1, 10);
    slowlog_reset(log);
    ck_assert_uint_eq(slowlog_len(log), 0);
    add(log, &ping, 1, 10);
    ck_assert_int_eq(look(log, 10).ids[0], 1);
    slowlog_destroy(log);
}
END_TEST

START_TEST(arguments_are_cut_at_their_bounds) {
    char text[SLOWLOG_ARG_LEN_MAX + 1];
    struct bytes argv[SLOWLOG_ARGS_MAX + 1];
    struct slowlog *log = slowlog_create();
    memset(text, 'x', sizeof(text));
    for (uint32_t i = 0; i <= SLOWLOG_ARGS_MAX; i++) {
        argv[i] = bytes_of(text, i == 1 ? SLOWLOG_ARG_LEN_MAX : i == 2 ? sizeof(text) : 0);
    }
    add(log, argv, SLOWLOG_ARGS_MAX, 10);
    struct seen s = look(log, 1);
    ck_assert_uint_eq(s.argc, SLOWLOG_ARGS_MAX);
    ck_assert_uint_eq(strlen(s.args[1]), SLOWLOG_ARG_LEN_MAX);
    ck_assert_str_eq(s.args[2] + SLOWLOG_ARG_LEN_MAX, "... (1 more bytes)");
    ck_assert_str_eq(s.args[SLOWLOG_ARGS_MAX - 1], "");
    add(log, argv, SLOWLOG_ARGS_MAX + 1, 10);
    s = look(log, 1);
    ck_assert_uint_eq(s.argc, SLOWLOG_ARGS_MAX);
    ck_assert_str_eq(s.args[SLOWLOG_ARGS_MAX - 1], "... (2 more arguments)");
    slowlog_destroy(log);
}
END_TEST

START_TEST(passwords_are_not_kept) {
    static struct wired_node w;
    const struct bytes lines[][5] = {
        {BYTES("AUTH"), BYTES("secret"), BYTES("")},
        {BYTES("hello"), BYTES("3"), BYTES("auth"), BYTES("default"), BYTES("secret")},
        {BYTES("config"), BYTES("set"), BYTES("requirepass"), BYTES("secret"), BYTES("")},
    };
    static const uint32_t argcs[] = {2, 5, 4};
    struct client c = {.addr = "127.0.0.1:5"};
    wired_node_init(&w, NULL, 0);
    cmd_init();
    for (size_t i = 0; i < sizeof(argcs) / sizeof(argcs[0]); i++) {
        slowlog_note(w.workers[0], &c, lines[i], argcs[i], 20000);
        struct seen s = look(w.node.slowlog, 1);
        ck_assert_uint_eq(s.argc, argcs[i]);
        ck_assert_str_eq(s.args[argcs[i] - 1], "(redacted)");
        ck_assert_str_eq(s.name, "");
    }
    wired_node_fini(&w);
}
END_TEST

CHECK_MAIN("slowlog", the_newest_come_first_and_the_oldest_go, a_reset_forgets_entries_not_numbers,
           arguments_are_cut_at_their_bounds, passwords_are_not_kept)
