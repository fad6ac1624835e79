/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/notify.h"
#include "tests/support/fake_host.h"

static struct fake_node f;
static struct fake_client listener;

/* A node with a RESP2 client on worker 0 that listens to all events. */
static void set_up(const char *letters) {
    bool changed;
    fake_node_init(&f);
    fake_client_init(&listener, &f, 0, REPLY_RESP2);
    ck_assert_int_eq(pubsub_join(&listener.client, TOPIC_PATTERN, BYTES("__key*"), &changed),
                     DC_OK);
    atomic_store(&f.node.notify_flags, notify_parse(bytes_str(letters)));
}

static void tear_down(void) {
    fake_client_fini(&listener);
    fake_node_fini(&f);
}

/* What the pmessages that arrived say: "channel=payload ...". Each has nine lines. */
static const char *heard(void) {
    static char text[1024];
    char got[4096];
    char *save = NULL;
    size_t len = 0;
    snprintf(got, sizeof(got), "%s", fake_got(&listener));
    char *line = strtok_r(got, "\r\n", &save);
    text[0] = '\0';
    for (int n = 0; line != NULL; n++, line = strtok_r(NULL, "\r\n", &save)) {
        if (n % 9 == 6 || n % 9 == 8) {
            const char *behind = n % 9 == 6 ? "=" : " ";
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", line, behind);
        }
    }
    return text;
}

START_TEST(letters_become_classes) {
    ck_assert_uint_eq(notify_parse(BYTES("")), 0);
    ck_assert_uint_eq(notify_parse(BYTES("KE")), NOTIFY_KEYSPACE | NOTIFY_KEYEVENT);
    ck_assert_uint_eq(notify_parse(BYTES("A")), NOTIFY_ALL);
    ck_assert_uint_eq(notify_parse(BYTES("g$lshzxetd")), NOTIFY_ALL);
    ck_assert_uint_eq(notify_parse(BYTES("mn")), NOTIFY_KEY_MISS | NOTIFY_NEW);
    ck_assert_uint_eq(NOTIFY_ALL & (NOTIFY_KEY_MISS | NOTIFY_NEW), 0);
}
END_TEST

START_TEST(an_event_has_two_channels) {
    struct fake_call call;
    set_up("KEA");
    struct cmd_ctx *ctx = fake_call_init(&call, &listener, CMD_SET, FAKE_WORDS("set", "k", "v"));
    ctx_notify(ctx, NOTIFY_STRING, "set", BYTES("k"));
    ck_assert_str_eq(heard(), ""); /* not while locks may be held */
    notify_flush(f.workers[0]);
    ck_assert_str_eq(heard(), "__keyspace@0__:k=set __keyevent@0__:set=k ");
    ctx_notify_in(ctx, NOTIFY_GENERIC, "copy_to", store_keyspace(f.node.store, 3), BYTES("to"));
    notify_flush(f.workers[0]);
    ck_assert_str_eq(heard(), "__keyspace@3__:to=copy_to __keyevent@3__:copy_to=to ");
    notify_flush(f.workers[0]);
    ck_assert_str_eq(heard(), "");
    tear_down();
}
END_TEST

START_TEST(only_the_classes_and_channels_asked_for_are_told) {
    struct fake_call call;
    set_up("K$");
    struct cmd_ctx *ctx = fake_call_init(&call, &listener, CMD_SET, FAKE_WORDS("set", "k", "v"));
    ctx_notify(ctx, NOTIFY_GENERIC, "del", BYTES("k"));
    ctx_notify(ctx, NOTIFY_NEW, "new", BYTES("k"));
    ck_assert_ptr_null(f.workers[0]->notices);
    ctx_notify(ctx, NOTIFY_STRING, "set", BYTES("k"));
    notify_flush(f.workers[0]);
    ck_assert_str_eq(heard(), "__keyspace@0__:k=set ");
    atomic_store(&f.node.notify_flags, notify_parse(BYTES("Em")));
    ctx_notify(ctx, NOTIFY_KEY_MISS, "keymiss", BYTES("k"));
    ctx_notify(ctx, NOTIFY_STRING, "set", BYTES("k"));
    notify_flush(f.workers[0]);
    ck_assert_str_eq(heard(), "__keyevent@0__:keymiss=k ");
    atomic_store(&f.node.notify_flags, notify_parse(BYTES("A"))); /* neither K nor E */
    ctx_notify(ctx, NOTIFY_STRING, "set", BYTES("k"));
    ck_assert_ptr_null(f.workers[0]->notices);
    tear_down();
}
END_TEST

START_TEST(nothing_is_queued_while_nobody_listens) {
    struct fake_call call;
    set_up("KEA");
    struct cmd_ctx *ctx = fake_call_init(&call, &listener, CMD_SET, FAKE_WORDS("set", "k", "v"));
    pubsub_client_gone(&listener.client);
    ctx_notify(ctx, NOTIFY_STRING, "set", BYTES("k"));
    ck_assert_ptr_null(f.workers[0]->notices);
    tear_down();
}
END_TEST

START_TEST(events_and_messages_of_a_transaction_keep_their_order) {
    struct fake_call call;
    char key[16];
    set_up("EA");
    struct cmd_ctx *ctx = fake_call_init(&call, &listener, CMD_MSET, FAKE_WORDS("mset"));
    for (int i = 0; i < 3; i++) {
        snprintf(key, sizeof(key), "k%d", i); /* the bytes may change once it was queued */
        ctx_notify(ctx, NOTIFY_STRING, "set", bytes_str(key));
    }
    notify_publish_later(ctx, TOPIC_CHANNEL, BYTES("__keyed"), BYTES("m"));
    ctx_notify(ctx, NOTIFY_GENERIC, "del", BYTES("k"));
    notify_flush(f.workers[0]);
    ck_assert_str_eq(heard(), "__keyevent@0__:set=k0 __keyevent@0__:set=k1 __keyevent@0__:set=k2 "
                              "__keyed=m __keyevent@0__:del=k ");
    tear_down();
}
END_TEST

static enum dc_err look_and_fail(struct cmd_ctx *ctx) {
    ctx_notify(ctx, NOTIFY_STRING, "set", BYTES("undone"));
    ctx_notify(ctx, NOTIFY_KEY_MISS, "keymiss", BYTES("sought"));
    ctx_notify(ctx, NOTIFY_STRING, "set", BYTES("undone"));
    return DC_ESYNTAX;
}

static enum dc_err look_and_set(struct cmd_ctx *ctx) {
    ctx_notify(ctx, NOTIFY_STRING, "set", BYTES("done"));
    reply_ok(ctx->reply);
    return DC_OK;
}

START_TEST(of_a_command_that_fails_only_the_misses_are_told) {
    struct fake_call call;
    struct cmd failing = {.name = "fail", .run = look_and_fail, .flags = F_WRITE};
    struct cmd passing = {.name = "pass", .run = look_and_set, .flags = F_WRITE};
    set_up("EAm");
    struct cmd_worker *w = f.workers[0];
    mut_init(&w->mut, f.node.store, &w->store);
    atomic_store(&f.node.slow_ticks, UINT64_MAX);
    atomic_store(&f.node.latency_ticks, UINT64_MAX);
    struct fake_client caller;
    fake_client_init(&caller, &f, 0, REPLY_RESP2);
    struct cmd_ctx *ctx = fake_call_init(&call, &caller, CMD_SET, FAKE_WORDS("set", "k", "v"));
    ctx->mut = &w->mut;
    const struct cmd *const queue[] = {&failing, &passing, &failing, &passing, &failing};
    for (size_t i = 0; i < sizeof(queue) / sizeof(queue[0]); i++) {
        ctx->cmd = queue[i];
        cmd_call(ctx);
    }
    notify_flush(w);
    ck_assert_str_eq(heard(), "__keyevent@0__:keymiss=sought __keyevent@0__:set=done "
                              "__keyevent@0__:keymiss=sought __keyevent@0__:set=done "
                              "__keyevent@0__:keymiss=sought ");
    atomic_store(&f.node.notify_flags, notify_parse(BYTES("EA")));
    ctx->cmd = &failing;
    cmd_call(ctx);
    ck_assert_ptr_null(w->notices);
    ctx->cmd = &passing;
    cmd_call(ctx);
    notify_flush(w);
    ck_assert_str_eq(heard(), "__keyevent@0__:set=done ");
    fake_client_fini(&caller);
    mut_fini(&w->mut);
    tear_down();
}
END_TEST

START_TEST(outside_of_commands_events_are_told_at_once) {
    const struct keyspace *ks;
    set_up("Exe");
    ks = store_keyspace(f.node.store, 1);
    notify_now(&f.node, f.workers[0], NOTIFY_EVICTED, "evicted", ks, BYTES("k"));
    ck_assert_str_eq(heard(), "__keyevent@1__:evicted=k ");
    notify_now(&f.node, f.workers[2], NOTIFY_EXPIRED, "expired", ks, BYTES("k"));
    notify_now(&f.node, NULL, NOTIFY_EXPIRED, "expired", ks, BYTES("j"));
    ck_assert_str_eq(heard(), "");
    ck_assert_uint_eq(fake_run_mail(&f, 0), 2);
    ck_assert_str_eq(heard(), "__keyevent@1__:expired=k __keyevent@1__:expired=j ");
    notify_now(&f.node, NULL, NOTIFY_GENERIC, "del", ks, BYTES("j"));
    ck_assert_uint_eq(fake_run_mail(&f, 0), 0);
    tear_down();
}
END_TEST

CHECK_MAIN("notify", letters_become_classes, an_event_has_two_channels,
           only_the_classes_and_channels_asked_for_are_told, nothing_is_queued_while_nobody_listens,
           events_and_messages_of_a_transaction_keep_their_order,
           of_a_command_that_fails_only_the_misses_are_told,
           outside_of_commands_events_are_told_at_once)
