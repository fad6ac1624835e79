/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/monitor.h"
#include "server/cmd/handlers.h"
#include "tests/support/fake_host.h"

static struct fake_node f;
static struct fake_client monitor, client;

static void set_up(void) {
    struct fake_call call;
    fake_node_init(&f);
    fake_client_init(&monitor, &f, 0, REPLY_RESP2);
    fake_client_init(&client, &f, 1, REPLY_RESP2);
    struct cmd_ctx *ctx = fake_call_init(&call, &monitor, CMD_MONITOR, FAKE_WORDS("monitor"));
    ck_assert_int_eq(cmd_monitor(ctx), DC_OK);
    ck_assert_str_eq(fake_got(&monitor), "+OK\r\n");
}

static void tear_down(void) {
    fake_client_fini(&monitor);
    fake_client_fini(&client);
    fake_node_fini(&f);
}

/* The line that the monitor gets, without its time. */
static const char *fed(enum cmd_id id, uint32_t argc, const struct bytes *argv) {
    monitor_feed(client.client.worker, &client.client, &cmd_table[id], argv, argc);
    fake_run_mail(&f, 0);
    const char *line = fake_got(&monitor);
    const char *rest = strchr(line, ' ');
    if (rest != NULL) {
        ck_assert_int_eq(line[0], '+');
        ck_assert_ptr_eq(rest - 7, strchr(line, '.')); /* six digits */
    }
    return rest == NULL ? line : rest + 1;
}

#define FED(id, ...)                                                            \
    fed(CMD_##id, sizeof((struct bytes[]){__VA_ARGS__}) / sizeof(struct bytes), \
        (struct bytes[]){__VA_ARGS__})

START_TEST(monitor_is_told_only_once_that_it_listens) {
    struct fake_call call;
    set_up();
    ck_assert_uint_eq(atomic_load(&f.node.monitor_count), 1);
    ck_assert(monitor.client.flags & CLIENT_MONITOR);
    ck_assert(!(monitor.client.flags & CLIENT_SUBSCRIBED));
    struct cmd_ctx *ctx = fake_call_init(&call, &monitor, CMD_MONITOR, FAKE_WORDS("monitor"));
    ck_assert_int_eq(cmd_monitor(ctx), DC_OK);
    ck_assert_str_eq(fake_got(&monitor), "");
    ck_assert_uint_eq(atomic_load(&f.node.monitor_count), 1);
    ctx->in_exec = true;
    ck_assert_int_eq(cmd_monitor(ctx), DC_EGENERIC);
    tear_down();
}
END_TEST

START_TEST(a_line_shows_database_address_and_quoted_arguments) {
    set_up();
    ck_assert_str_eq(FED(GET, BYTES("get"), BYTES("k")), "[0 127.0.0.1:51] \"get\" \"k\"\r\n");
    ck_assert_str_eq(FED(PING, BYTES("PING")), "[0 127.0.0.1:51] \"PING\"\r\n");
    ck_assert_str_eq(FED(SET, BYTES("set"), BYTES(""), BYTES("\0\n\r\t\a\b\"\\ ~\x7f\x80\xff\x1b")),
                     "[0 127.0.0.1:51] \"set\" \"\" "
                     "\"\\x00\\n\\r\\t\\a\\b\\\"\\\\ ~\\x7f\\x80\\xff\\x1b\"\r\n");
    client.client.ks = store_keyspace(f.node.store, 2);
    client.client.flags |= CLIENT_UNIX;
    snprintf(client.client.addr, sizeof(client.client.addr), "/run/dc.sock:0");
    ck_assert_str_eq(FED(DBSIZE, BYTES("dbsize")), "[2 unix:/run/dc.sock] \"dbsize\"\r\n");
    tear_down();
}
END_TEST

/* I1 */
START_TEST(secrets_and_administration_are_not_shown) {
    set_up();
    ck_assert_str_eq(FED(AUTH, BYTES("auth"), BYTES("pw")),
                     "[0 127.0.0.1:51] \"auth\" \"(redacted)\"\r\n");
    ck_assert_str_eq(FED(AUTH, BYTES("auth"), BYTES("me"), BYTES("pw")),
                     "[0 127.0.0.1:51] \"auth\" \"(redacted)\" \"(redacted)\"\r\n");
    ck_assert_str_eq(FED(HELLO, BYTES("hello"), BYTES("3"), BYTES("Auth"), BYTES("me"), BYTES("pw"),
                         BYTES("setname"), BYTES("n")),
                     "[0 127.0.0.1:51] \"hello\" \"3\" \"Auth\" \"(redacted)\" \"(redacted)\" "
                     "\"setname\" \"n\"\r\n");
    ck_assert_str_eq(FED(HELLO, BYTES("hello"), BYTES("3"), BYTES("setname"), BYTES("auth")),
                     "[0 127.0.0.1:51] \"hello\" \"3\" \"setname\" \"auth\"\r\n");
    ck_assert_str_eq(
        FED(CONFIG_SET, BYTES("config"), BYTES("set"), BYTES("requirepass"), BYTES("pw")), "");
    ck_assert_str_eq(FED(SHUTDOWN, BYTES("shutdown")), "");
    tear_down();
}
END_TEST

START_TEST(a_monitor_leaves_the_keys_alone) {
    ck_assert(monitor_allows(&cmd_table[CMD_PING], cmd_table[CMD_PING].flags));
    ck_assert(monitor_allows(&cmd_table[CMD_SUBSCRIBE], cmd_table[CMD_SUBSCRIBE].flags));
    ck_assert(!monitor_allows(&cmd_table[CMD_GET], cmd_table[CMD_GET].flags));
    ck_assert(!monitor_allows(&cmd_table[CMD_PUBLISH], cmd_table[CMD_PUBLISH].flags));
    ck_assert(monitor_allows(&cmd_table[CMD_EXEC], cmd_table[CMD_EXEC].flags));
    ck_assert(!monitor_allows(&cmd_table[CMD_EXEC], cmd_table[CMD_EXEC].flags | F_WRITE));
}
END_TEST

START_TEST(a_silenced_or_gone_monitor_hears_nothing) {
    set_up();
    monitor.client.flags |= CLIENT_REPLY_OFF;
    ck_assert_str_eq(FED(PING, BYTES("ping")), "");
    monitor.client.flags &= ~(uint32_t)CLIENT_REPLY_OFF;
    ck_assert_str_ne(FED(PING, BYTES("ping")), "");
    monitor.client.flags |= CLIENT_CLOSE_SOON;
    ck_assert_str_eq(FED(PING, BYTES("ping")), "");
    monitor.client.flags &= ~(uint32_t)CLIENT_CLOSE_SOON;
    uint32_t posted = f.mail[0].posted;
    pubsub_client_gone(&monitor.client);
    ck_assert_str_eq(FED(PING, BYTES("ping")), "");
    ck_assert_uint_eq(f.mail[0].posted, posted);
    tear_down();
}
END_TEST

CHECK_MAIN("monitor", monitor_is_told_only_once_that_it_listens,
           a_line_shows_database_address_and_quoted_arguments,
           secrets_and_administration_are_not_shown, a_monitor_leaves_the_keys_alone,
           a_silenced_or_gone_monitor_hears_nothing)
