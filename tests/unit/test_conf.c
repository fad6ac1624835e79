/* SPDX-License-Identifier: BSD-3-Clause */
/* Options one by one: defaults, CONFIG GET, CONFIG SET. */
#include "server/base/mem.h"
#include "tests/unit/conf_case.h"

static void expect_refused(const char *name, const char *value, const char *why) {
    struct bytes pair[] = {bytes_str(name), bytes_str(value)};
    ck_assert_int_eq(conf_set(&conf, pair, 1), DC_ECONF);
    ck_assert_str_eq(dc_fail_take(DC_ECONF), why);
}

static void expect_failed(const char *name, const char *value, const char *why) {
    char text[ERR_TEXT_MAX];
    snprintf(text, sizeof(text), "CONFIG SET failed (possibly related to argument '%s') - %s", name,
             why);
    expect_refused(name, value, text);
}

/* --- defaults --- */

START_TEST(options_begin_at_their_defaults) {
    begin();
    ck_assert_int_eq(conf_get(&conf, port), 6379);
    ck_assert_int_eq(conf_get(&conf, maxmemory_policy), EVICT_ADAPTIVE);
    ck_assert_str_eq(value_of("maxmemory-policy"), "adaptive");
    ck_assert_str_eq(value_of("protected-mode"), "yes");
    ck_assert_str_eq(value_of("save"), "3600 1 300 100 60 10000");
    ck_assert_str_eq(value_of("appendonly"), "yes");
    ck_assert_str_eq(value_of("rdbcompression"), "yes");
    ck_assert_str_eq(value_of("proto-max-bulk-len"), "536870912");
    ck_assert_int_eq(conf_validate(&conf), DC_OK);
    ck_assert_str_eq(conf_name(CONF_ID_maxmemory), "maxmemory");
    ck_assert(conf_is_compat(CONF_ID_rdbcompression));
    ck_assert(!conf_is_compat(CONF_ID_port));
    end();
}
END_TEST

START_TEST(the_names_of_policies_follow_their_numbers) {
    begin();
    expect_set("maxmemory-policy", "noeviction", "noeviction");
    ck_assert_int_eq(conf_get(&conf, maxmemory_policy), EVICT_NONE);
    expect_set("maxmemory-policy", "ALLKEYS-lru", "allkeys-lru");
    ck_assert_int_eq(conf_get(&conf, maxmemory_policy), EVICT_ALLKEYS_LRU);
    expect_set("maxmemory-policy", "volatile-ttl", "volatile-ttl");
    ck_assert_int_eq(conf_get(&conf, maxmemory_policy), EVICT_VOLATILE_TTL);
    end();
}
END_TEST

/* --- CONFIG GET --- */

START_TEST(patterns_find_each_option_once) {
    begin();
    struct bytes patterns[] = {BYTES("max*"), BYTES("*memory*"), BYTES("maxmemory")};
    value_count = 0;
    conf_each(&conf, patterns, 3, keep_value, NULL);
    /* maxclients, maxmemory, -policy, -samples, -clients, -eviction-tenacity */
    ck_assert_int_eq(value_count, 6);
    ck_assert_ptr_null(value_of("nosuch"));
    ck_assert_int_eq(value_count, 0);
    struct bytes all = BYTES("*");
    value_count = 0;
    conf_each(&conf, &all, 1, keep_value, NULL);
    ck_assert_int_eq(value_count, CONF_COUNT);
    end();
}
END_TEST

START_TEST(a_plain_name_comes_back_as_it_was_asked) {
    begin();
    ck_assert_str_eq(value_of("MAXmemory"), "0");
    ck_assert_str_eq(name_text, "MAXmemory");
    value_of("MAXmemory-polic?");
    ck_assert_str_eq(name_text, "maxmemory-policy");
    end();
}
END_TEST

START_TEST(secrets_are_not_shown) {
    begin();
    ck_assert_str_eq(value_of("requirepass"), "");
    expect_set("requirepass", "geheim", "(hidden)");
    char text[16];
    ck_assert_uint_eq(conf_text(&conf, CONF_ID_requirepass, text, sizeof(text)), 6);
    ck_assert_str_eq(text, "geheim");
    read_bad("requirepass geheim zwei", "test.conf:1: requirepass: wrong number of arguments");
    end();
}
END_TEST

START_TEST(a_text_is_cut_to_the_room_there_is) {
    begin();
    char text[4];
    ck_assert_uint_eq(conf_text(&conf, CONF_ID_bind, text, sizeof(text)), 14);
    ck_assert_str_eq(text, "127");
    end();
}
END_TEST

START_TEST(what_differs_from_the_defaults_can_be_listed) {
    begin();
    value_count = 0;
    conf_each_changed(&conf, keep_value, NULL);
    ck_assert_int_eq(value_count, 0);
    expect_set("timeout", "5", "5");
    expect_set("notify-keyspace-events", "KEA", "AKE");
    value_count = 0;
    conf_each_changed(&conf, keep_value, NULL);
    ck_assert_int_eq(value_count, 2);
    ck_assert_str_eq(name_text, "notify-keyspace-events");
    end();
}
END_TEST

/* --- CONFIG SET: the texts are those of redis-server 7.0.15 --- */

START_TEST(values_of_every_kind_can_be_set) {
    begin();
    expect_set("timeout", "2147483647", "2147483647");
    expect_set("slowlog-log-slower-than", "-1", "-1");
    expect_set("maxmemory", "10mb", "10485760");
    expect_set("MaxMemory", "1k", "1000");
    expect_set("protected-mode", "NO", "no");
    expect_set("loglevel", "Warning", "warning");
    expect_set("rdbcompression", "no", "no");
    expect_set("save", "10 1 20 2", "10 1 20 2");
    expect_set("save", "", "");
    ck_assert_int_eq(conf_get(&conf, timeout), INT32_MAX);
    ck_assert_int_eq(conf_get(&conf, loglevel), 3);
    end();
}
END_TEST

START_TEST(values_that_dont_fit_are_refused_in_the_words_of_redis) {
    begin();
    expect_failed("timeout", "-1", "argument must be between 0 and 2147483647 inclusive");
    expect_failed("timeout", "abc", "argument couldn't be parsed into an integer");
    expect_failed("timeout", "01", "argument couldn't be parsed into an integer");
    expect_failed("timeout", "", "argument couldn't be parsed into an integer");
    expect_failed("maxmemory", "x", "argument must be a memory value");
    expect_failed("maxmemory", "-1", "argument must be a memory value");
    expect_failed("maxmemory", "1 kb", "argument must be a memory value");
    expect_failed("proto-max-bulk-len", "1",
                  "argument must be between 1048576 and 9223372036854775807 inclusive");
    expect_failed("protected-mode", "maybe", "argument must be 'yes' or 'no'");
    expect_failed("loglevel", "nothing",
                  "argument(s) must be one of the following: debug, verbose, notice, warning");
    expect_failed("loglevel", "",
                  "argument(s) must be one of the following: debug, verbose, notice, "
                  "warning");
    expect_failed("port", "5", "can't set immutable config");
    expect_failed("databases", "3", "can't set immutable config");
    expect_refused("nosuch", "1",
                   "Unknown option or number of arguments for CONFIG SET - 'nosuch'");
    ck_assert_int_eq(conf_get(&conf, timeout), 0);
    end();
}
END_TEST

START_TEST(all_options_are_set_or_none) {
    begin();
    struct bytes good[] = {BYTES("timeout"), BYTES("1"), BYTES("hz"), BYTES("20")};
    ck_assert_int_eq(conf_set(&conf, good, 2), DC_OK);
    ck_assert_int_eq(conf_get(&conf, timeout), 1);
    ck_assert_str_eq(value_of("hz"), "20");
    struct bytes bad[] = {BYTES("timeout"), BYTES("2"),         BYTES("hz"),
                          BYTES("30"),      BYTES("maxmemory"), BYTES("x")};
    ck_assert_int_eq(conf_set(&conf, bad, 3), DC_ECONF);
    ck_assert_int_eq(conf_get(&conf, timeout), 1);
    ck_assert_str_eq(value_of("hz"), "20");
    struct bytes twice[] = {BYTES("timeout"), BYTES("2"), BYTES("TIMEOUT"), BYTES("x")};
    ck_assert_int_eq(conf_set(&conf, twice, 2), DC_ECONF);
    ck_assert_str_eq(dc_fail_take(DC_ECONF), "CONFIG SET failed (possibly related to argument "
                                             "'TIMEOUT') - duplicate parameter");
    struct bytes unknown[] = {BYTES("timeout"), BYTES("x"), BYTES("nosuch"), BYTES("1")};
    ck_assert_int_eq(conf_set(&conf, unknown, 2), DC_ECONF);
    ck_assert_str_eq(dc_fail_take(DC_ECONF),
                     "Unknown option or number of arguments for CONFIG SET - 'nosuch'");
    end();
}
END_TEST

START_TEST(event_classes_are_canonical) {
    begin();
    expect_set("notify-keyspace-events", "KEA", "AKE");
    expect_set("notify-keyspace-events", "g$lshzxetdK", "AK");
    expect_set("notify-keyspace-events", "Kngx", "gxnK");
    expect_set("notify-keyspace-events", "KAm", "AKm");
    expect_set("notify-keyspace-events", "Ex", "xE");
    expect_set("notify-keyspace-events", "AnK", "AnK"); /* Redis would forget the n */
    expect_set("notify-keyspace-events", "", "");
    expect_failed("notify-keyspace-events", "q",
                  "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.");
    struct bytes nul[] = {BYTES("notify-keyspace-events"), bytes_of("gK\0q", 4)};
    ck_assert_int_eq(conf_set(&conf, nul, 1), DC_OK); /* what stands behind it counts for nothing */
    ck_assert_str_eq(value_of("notify-keyspace-events"), "gK");
    end();
}
END_TEST

START_TEST(limits_of_classes_are_merged) {
    static const char option[] = "client-output-buffer-limit";
    begin();
    expect_set(option, "normal 1 2 3",
               "normal 1 2 3 slave 268435456 67108864 60 pubsub 33554432 8388608 60");
    expect_set(option, "replica 1mb 2kb 3 PUBSUB 1 2 3",
               "normal 1 2 3 slave 1048576 2048 3 pubsub 1 2 3");
    expect_set(option, "normal 1 2 3 normal 4 5 6",
               "normal 4 5 6 slave 1048576 2048 3 pubsub 1 2 3");
    expect_set(option, "", "normal 4 5 6 slave 1048576 2048 3 pubsub 1 2 3");
    static const char *const wrong[] = {"normal x 2 3", "normal 1 -2 3", "normal 1 2 -3",
                                        "normal 1 2 3x", "normal 1 2 9999999999"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        expect_failed(option, wrong[i],
                      "Error in hard, soft or soft_seconds setting in buffer limit "
                      "configuration.");
    }
    expect_failed(option, "normal 1 2", "Wrong number of arguments in buffer limit configuration.");
    expect_failed(option, " normal  1   2   3 ",
                  "Wrong number of arguments in buffer limit configuration.");
    expect_failed(option, "master 1 2 3",
                  "Invalid client class specified in buffer limit configuration.");
    expect_set(option, "", "normal 4 5 6 slave 1048576 2048 3 pubsub 1 2 3");
    end();
}
END_TEST

START_TEST(long_values_and_nuls_are_refused) {
    begin();
    static char longer[CONF_VALUE_MAX + 2];
    memset(longer, 'x', CONF_VALUE_MAX);
    expect_set("requirepass", longer, "(hidden)");
    longer[CONF_VALUE_MAX] = 'x';
    expect_failed("requirepass", longer, "argument is too long or contains a NUL byte");
    struct bytes nul[] = {BYTES("requirepass"), bytes_of("a\0b", 3)};
    ck_assert_int_eq(conf_set(&conf, nul, 1), DC_ECONF);
    end();
}
END_TEST

START_TEST(a_value_for_which_there_is_no_memory_is_refused) {
    begin();
    struct bytes pair[] = {BYTES("requirepass"), BYTES("geheim")};
    mem_fault_after(1);
    ck_assert_int_eq(conf_set(&conf, pair, 1), DC_ECONF);
    ck_assert_ptr_nonnull(strstr(dc_fail_take(DC_ECONF), "'requirepass') - out of memory"));
    ck_assert_str_eq(value_of("requirepass"), "");
    end();
}
END_TEST

/* --- checks across options --- */

START_TEST(options_are_checked_together) {
    begin();
    read_good("daemonize yes");
    ck_assert_int_eq(conf_validate(&conf), DC_ECONF);
    read_good("daemonize no\nport 0");
    ck_assert_int_eq(conf_validate(&conf), DC_ECONF);
    ck_assert_str_eq(dc_fail_take(DC_ECONF),
                     "port is 0 and there is no unixsocket: the node would listen nowhere");
    struct bytes pair[] = {BYTES("timeout"), BYTES("9")};
    ck_assert_int_eq(conf_set(&conf, pair, 1), DC_ECONF); /* I2 */
    ck_assert_int_eq(conf_get(&conf, timeout), 0);
    read_good("unixsocket /tmp/s");
    ck_assert_int_eq(conf_validate(&conf), DC_OK);
    end();
}
END_TEST

CHECK_MAIN("conf", options_begin_at_their_defaults, the_names_of_policies_follow_their_numbers,
           patterns_find_each_option_once, a_plain_name_comes_back_as_it_was_asked,
           secrets_are_not_shown, a_text_is_cut_to_the_room_there_is,
           what_differs_from_the_defaults_can_be_listed, values_of_every_kind_can_be_set,
           values_that_dont_fit_are_refused_in_the_words_of_redis, all_options_are_set_or_none,
           event_classes_are_canonical, limits_of_classes_are_merged,
           long_values_and_nuls_are_refused, a_value_for_which_there_is_no_memory_is_refused,
           options_are_checked_together)
