/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/conf.h"
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "tests/support/check_main.h"

#include <limits.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

static struct conf conf;
static char dir[64];

static const char *value_of(const char *name);

static void begin(void) {
    conf_init(&conf);
}

static void end(void) {
    conf_fini(&conf);
}

/* --- helpers --- */

static char value_text[CONF_VALUE_MAX + 1];
static int value_count;
static char name_text[128];

static void keep_value(void *arg, struct bytes name, struct bytes value) {
    (void)arg;
    snprintf(name_text, sizeof(name_text), "%.*s", (int)name.len, name.ptr);
    snprintf(value_text, sizeof(value_text), "%.*s", (int)value.len, value.ptr);
    value_count++;
}

/* CONFIG GET name */
static const char *value_of(const char *name) {
    struct bytes pattern = bytes_str(name);
    value_count = 0;
    conf_each(&conf, &pattern, 1, keep_value, NULL);
    return value_count == 1 ? value_text : NULL;
}

static void expect_set(const char *name, const char *value, const char *wanted) {
    struct bytes pair[] = {bytes_str(name), bytes_str(value)};
    enum dc_err err = conf_set(&conf, pair, 1);
    ck_assert_msg(err == DC_OK, "%s %s: %s", name, value, dc_fail_take(err));
    ck_assert_str_eq(value_of(name), wanted);
}

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

static void read_good(const char *text) {
    enum dc_err err = conf_read_text(&conf, bytes_str(text), "test.conf");
    ck_assert_msg(err == DC_OK, "%s", dc_fail_take(err));
}

static void read_bad(const char *text, const char *why) {
    ck_assert_int_eq(conf_read_text(&conf, bytes_str(text), "test.conf"), DC_ECONF);
    ck_assert_str_eq(dc_fail_take(DC_ECONF), why);
}

static void write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
}

static void expect_file(const char *path, const char *wanted) {
    static char text[64 * 1024];
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    size_t len = fread(text, 1, sizeof(text) - 1, file);
    text[len] = '\0';
    fclose(file);
    ck_assert_str_eq(text, wanted);
}

static const char *in_dir(const char *name) {
    static char path[128];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void begin_in_dir(void) {
    begin();
    snprintf(dir, sizeof(dir), "/tmp/dcache-conf-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void end_in_dir(void) {
    end();
    unlink(in_dir("a.conf"));
    ck_assert_int_eq(rmdir(dir), 0); /* nothing else was left behind */
}

/* --- defaults --- */

START_TEST(options_begin_at_their_defaults) {
    begin();
    ck_assert_int_eq(conf_get(&conf, port), 6379);
    ck_assert_int_eq(conf_get(&conf, maxmemory_policy), EVICT_ADAPTIVE);
    ck_assert_str_eq(value_of("maxmemory-policy"), "adaptive");
    ck_assert_str_eq(value_of("protected-mode"), "yes");
    ck_assert_str_eq(value_of("save"), "");
    ck_assert_str_eq(value_of("appendonly"), "no");
    ck_assert_str_eq(value_of("proto-max-bulk-len"), "536870912");
    ck_assert_int_eq(conf_validate(&conf), DC_OK);
    ck_assert_str_eq(conf_name(CONF_ID_maxmemory), "maxmemory");
    ck_assert(conf_is_compat(CONF_ID_save));
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

START_TEST(secrets_are_shown_to_who_asks_and_not_in_messages) {
    begin();
    ck_assert_str_eq(value_of("requirepass"), "");
    expect_set("requirepass", "geheim", "geheim");
    conf_each_changed(&conf, keep_value, NULL);
    ck_assert_str_eq(name_text, "requirepass");
    ck_assert_str_eq(value_text, "(hidden)");
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
    expect_set("appendonly", "no", "no");
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
    struct bytes nul[] = {BYTES("notify-keyspace-events"), bytes_of("K\0", 2)};
    ck_assert_int_eq(conf_set(&conf, nul, 1), DC_ECONF);
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
    expect_set("requirepass", longer, longer);
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

/* --- files --- */

START_TEST(a_file_has_comments_quotes_and_sizes) {
    begin();
    read_good("# a comment\n"
              "\n"
              "  \t # another\r\n"
              "port 7000\r\n"
              "  TIMEOUT\t 12  \n"
              "maxmemory 1gb\n"
              "logfile \"/tmp/a b\\x41\\n\\t\\\"\\\\.log\"\n"
              "dir '/tmp/it\\'s \\n'\n"
              "bind 127.0.0.1 \"::1\"\n"
              "client-output-buffer-limit normal 0 0 0\n"
              "client-output-buffer-limit pubsub 1mb 0 0\n"
              "save 900 1\n"
              "unixsocketperm 0700\n"
              "pidfile \"\"\n"
              "requirepass foo\"bar\" ");
    ck_assert_int_eq(conf_get(&conf, port), 7000);
    ck_assert_int_eq(conf_get(&conf, timeout), 12);
    ck_assert_int_eq(conf_get(&conf, maxmemory), 1 << 30);
    ck_assert_str_eq(value_of("logfile"), "/tmp/a bA\n\t\"\\.log");
    ck_assert_str_eq(value_of("dir"), "/tmp/it's \\n");
    ck_assert_str_eq(value_of("bind"), "127.0.0.1 ::1");
    ck_assert_str_eq(value_of("client-output-buffer-limit"),
                     "normal 0 0 0 slave 268435456 67108864 60 pubsub 1048576 0 0");
    ck_assert_str_eq(value_of("save"), "900 1");
    ck_assert_str_eq(value_of("unixsocketperm"), "700");
    ck_assert_str_eq(value_of("pidfile"), "");
    char text[16];
    conf_text(&conf, CONF_ID_requirepass, text, sizeof(text));
    ck_assert_str_eq(text, "foobar");
    end();
}
END_TEST

START_TEST(a_mistake_is_named_with_file_line_and_option) {
    begin();
    read_bad("port 1\n\nnosuch 1\n", "test.conf:3: nosuch: unknown option");
    read_bad("port x\n", "test.conf:1: port 'x': argument couldn't be parsed into an integer");
    read_bad("port\n", "test.conf:1: port '': wrong number of arguments");
    read_bad("port 1 2\n", "test.conf:1: port '1 2': wrong number of arguments");
    read_bad("bind\n", "test.conf:1: bind '': wrong number of arguments");
    read_bad("port 70000\n",
             "test.conf:1: port '70000': argument must be between 0 and 65535 inclusive");
    read_bad("unixsocketperm 8\n",
             "test.conf:1: unixsocketperm '8': argument couldn't be parsed as an octal number");
    read_bad("unixsocketperm \"\"\n",
             "test.conf:1: unixsocketperm '': argument couldn't be parsed as an octal number");
    read_bad("unixsocketperm 1000\n",
             "test.conf:1: unixsocketperm '1000': argument must be between 0 and 777 inclusive");
    read_bad(
        "bind 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17",
        "test.conf:1: bind '1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17': Too many bind addresses "
        "specified.");
    static const char *const unbalanced[] = {"dir \"a",     "dir 'a",    "dir \"a\"b", "dir 'a'b",
                                             "dir \"a\\\"", "dir \"a\\", "\"dir",      "dir '\\"};
    for (size_t i = 0; i < sizeof(unbalanced) / sizeof(unbalanced[0]); i++) {
        read_bad(unbalanced[i], "test.conf:1: unbalanced quotes in configuration line");
    }
    ck_assert_int_eq(conf_get(&conf, port), 6379); /* nothing changed */
    end();
}
END_TEST

START_TEST(a_line_has_a_bounded_number_of_words) {
    begin();
    struct buf text;
    buf_init(&text, 0);
    buf_append_str(&text, "save");
    for (int i = 1; i < CONF_WORDS_MAX; i++) {
        buf_append_str(&text, " 1");
    }
    ck_assert_int_eq(conf_read_text(&conf, buf_bytes(&text), "test.conf"), DC_OK);
    buf_append_str(&text, " 1");
    ck_assert_int_eq(conf_read_text(&conf, buf_bytes(&text), "test.conf"), DC_ECONF);
    ck_assert_str_eq(dc_fail_take(DC_ECONF), "test.conf:1: too many words in a line");
    buf_fini(&text);
    end();
}
END_TEST

START_TEST(the_file_of_a_redis_is_understood) {
    begin();
    read_good(
        "bind 127.0.0.1 -::1\nprotected-mode yes\nport 6379\ntcp-backlog 511\ntimeout 0\n"
        "daemonize no\nsupervised auto\nlogfile \"\"\ndatabases 16\nalways-show-logo no\n"
        "proc-title-template \"{title} {listen-addr} {server-mode}\"\nsave \"\"\n"
        "dbfilename dump.rdb\nappendonly no\nappendfsync everysec\noom-score-adj-values 0 200 800\n"
        "client-output-buffer-limit replica 256mb 64mb 60\nhz 10\nio-threads 4\n"
        "list-max-listpack-size -2\nlazyfree-lazy-eviction no\nsave\n");
    ck_assert_str_eq(value_of("io-threads"), "4");
    ck_assert_str_eq(value_of("save"), "");
    end();
}
END_TEST

START_TEST(files_are_read_from_disk) {
    begin_in_dir();
    write_file(in_dir("a.conf"), "port 7001\n");
    ck_assert_int_eq(conf_read_file(&conf, in_dir("a.conf")), DC_OK);
    ck_assert_int_eq(conf_get(&conf, port), 7001);
    ck_assert_str_eq(conf.file, in_dir("a.conf"));
    ck_assert_int_eq(conf_read_file(&conf, in_dir("nosuch.conf")), DC_ECONF);
    char why[256];
    snprintf(why, sizeof(why), "can't open config file '%s': No such file or directory",
             in_dir("nosuch.conf"));
    ck_assert_str_eq(dc_fail_take(DC_ECONF), why);
    ck_assert_int_eq(conf_read_file(&conf, dir), DC_ECONF); /* a directory can't be read */
    ck_assert_ptr_nonnull(strstr(dc_fail_take(DC_ECONF), "Is a directory"));
    ck_assert_int_eq(conf_read_file(&conf, "/dev/zero"), DC_ECONF);
    ck_assert_str_eq(dc_fail_take(DC_ECONF),
                     "config file '/dev/zero' is longer than 1048576 bytes");
    ck_assert_str_eq(conf.file, in_dir("a.conf"));
    mem_fault_after(1);
    ck_assert_int_eq(conf_read_file(&conf, in_dir("a.conf")), DC_ENOMEM);
    end_in_dir();
}
END_TEST

/* --- the command line --- */

#define READ_ARGS(...)                                                             \
    conf_read_args(&conf, (int)(sizeof((char *[]){__VA_ARGS__}) / sizeof(char *)), \
                   (char *[]){__VA_ARGS__})

/* Arguments are writable strings. */
#define ARG(text) ((char[]){text})

START_TEST(options_stand_on_the_command_line) {
    begin();
    ck_assert_int_eq(READ_ARGS(ARG("--port"), ARG("7002"), ARG("--save"), ARG(""),
                               ARG("--appendonly"), ARG("no"), ARG("--BIND"), ARG("127.0.0.1"),
                               ARG("::1"), ARG("--save"), ARG("--slowlog-log-slower-than"),
                               ARG("-1")),
                     DC_OK);
    ck_assert_int_eq(conf_get(&conf, port), 7002);
    ck_assert_int_eq(conf_get(&conf, slowlog_log_slower_than), -1);
    ck_assert_str_eq(value_of("bind"), "127.0.0.1 ::1");
    ck_assert_ptr_null(conf.file);
    ck_assert_int_eq(conf_read_args(&conf, 0, NULL), DC_OK);
    end();
}
END_TEST

START_TEST(mistakes_on_the_command_line_are_named) {
    begin();
    ck_assert_int_eq(READ_ARGS(ARG("--nosuch"), ARG("1")), DC_ECONF);
    ck_assert_str_eq(dc_fail_take(DC_ECONF), "command line: --nosuch: unknown option");
    ck_assert_int_eq(READ_ARGS(ARG("--port"), ARG("x")), DC_ECONF);
    ck_assert_str_eq(dc_fail_take(DC_ECONF),
                     "command line: --port 'x': argument couldn't be parsed into an integer");
    ck_assert_int_eq(READ_ARGS(ARG("--port")), DC_ECONF);
    ck_assert_str_eq(dc_fail_take(DC_ECONF), "command line: --port '': wrong number of arguments");
    ck_assert_int_eq(READ_ARGS(ARG("/nosuch.conf"), ARG("--port"), ARG("1")), DC_ECONF);
    ck_assert_str_eq(dc_fail_take(DC_ECONF),
                     "can't open config file '/nosuch.conf': No such file or directory");
    static char name[] = "--save", word[] = "1";
    char *many[CONF_WORDS_MAX + 1] = {name};
    for (int i = 1; i <= CONF_WORDS_MAX; i++) {
        many[i] = word;
    }
    ck_assert_int_eq(conf_read_args(&conf, CONF_WORDS_MAX + 1, many), DC_ECONF);
    ck_assert_str_eq(dc_fail_take(DC_ECONF), "command line: --save: too many words");
    end();
}
END_TEST

START_TEST(the_command_line_wins_over_standard_input_and_that_over_the_file) {
    begin_in_dir();
    write_file(in_dir("a.conf"), "port 1\ntimeout 1\nhz 1\n");
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(write(ends[1], "timeout 2\nhz 2", 14), 14);
    close(ends[1]);
    int before = dup(STDIN_FILENO);
    dup2(ends[0], STDIN_FILENO);
    char path[128];
    snprintf(path, sizeof(path), "%s", in_dir("a.conf"));
    ck_assert_int_eq(READ_ARGS(path, ARG("--hz"), ARG("3"), ARG("-")), DC_OK);
    ck_assert_int_eq(conf_get(&conf, port), 1);
    ck_assert_int_eq(conf_get(&conf, timeout), 2);
    ck_assert_str_eq(value_of("hz"), "3");
    ck_assert_str_eq(conf.file, path);
    ck_assert_int_eq(READ_ARGS(ARG("-")), DC_OK); /* empty by now */
    if (before >= 0) {
        dup2(before, STDIN_FILENO);
        close(before);
    }
    close(ends[0]);
    end_in_dir();
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

/* --- --print-config and CONFIG REWRITE --- */

START_TEST(the_printed_file_says_the_defaults) {
    begin();
    struct buf out;
    buf_init(&out, 0);
    conf_print(&out);
    ck_assert(!out.failed);
    ck_assert_int_eq(conf_read_text(&conf, buf_bytes(&out), "printed"), DC_OK);
    value_count = 0;
    conf_each_changed(&conf, keep_value, NULL);
    ck_assert_int_eq(value_count, 0);
    buf_append(&out, "", 1);
    ck_assert_ptr_nonnull(strstr(out.ptr, "\nproto-max-bulk-len 512mb\n"));
    ck_assert_ptr_nonnull(strstr(out.ptr, "\nlogfile \"\"\n"));
    ck_assert_ptr_nonnull(strstr(out.ptr, "\nbind 127.0.0.1 -::1\n"));
    ck_assert_ptr_nonnull(strstr(out.ptr, "\n# appendonly\n"));
    buf_fini(&out);
    end();
}
END_TEST

START_TEST(a_rewrite_touches_only_what_has_changed) {
    begin_in_dir();
    write_file(in_dir("a.conf"), "# mine\n"
                                 "port   7003\n"
                                 "\n"
                                 "client-output-buffer-limit normal 1 2 3\n"
                                 "timeout 1 \n"
                                 "client-output-buffer-limit pubsub 1 2 3\n"
                                 "TIMEOUT 2\n"
                                 "hz 20");
    chmod(in_dir("a.conf"), 0640);
    ck_assert_int_eq(conf_read_file(&conf, in_dir("a.conf")), DC_OK);
    ck_assert_int_eq(conf_rewrite(&conf), DC_OK);
    expect_file(in_dir("a.conf"),
                "# mine\nport   7003\n\nclient-output-buffer-limit normal 1 2 3\n"
                "timeout 1 \nclient-output-buffer-limit pubsub 1 2 3\nTIMEOUT 2\nhz 20\n");
    expect_set("timeout", "3", "3");
    expect_set("maxmemory", "100mb", "104857600");
    expect_set("requirepass", "a \"b\\\x01#", "a \"b\\\x01#");
    expect_set("client-output-buffer-limit", "pubsub 7 8 9",
               "normal 1 2 3 slave 268435456 67108864 60 "
               "pubsub 7 8 9");
    ck_assert_int_eq(conf_rewrite(&conf), DC_OK);
    expect_file(in_dir("a.conf"),
                "# mine\nport   7003\n\n"
                "client-output-buffer-limit normal 1 2 3 slave 268435456 67108864 60 "
                "pubsub 7 8 9\ntimeout 3\nhz 20\n"
                "requirepass \"a \\\"b\\\\\\x01#\"\nmaxmemory 100mb\n");
    struct stat st;
    ck_assert_int_eq(stat(in_dir("a.conf"), &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0640);
    struct conf again;
    conf_init(&again);
    ck_assert_int_eq(conf_read_file(&again, in_dir("a.conf")), DC_OK);
    char text[16];
    conf_text(&again, CONF_ID_requirepass, text, sizeof(text));
    ck_assert_str_eq(text, "a \"b\\\x01#");
    conf_fini(&again);
    end_in_dir();
}
END_TEST

START_TEST(words_are_written_so_that_they_come_back) {
    begin_in_dir();
    write_file(in_dir("a.conf"), "port 7003\n");
    ck_assert_int_eq(conf_read_file(&conf, in_dir("a.conf")), DC_OK);
    expect_set("save", " 1  2 ", " 1  2 ");
    expect_set("oom-score-adj-values", "0 1 2", "0 1 2");
    expect_set("proc-title-template", "{title} \"x\"", "{title} \"x\"");
    struct buf many;
    buf_init(&many, 0);
    for (int i = 0; i < CONF_WORDS_MAX; i++) {
        buf_append_str(&many, i > 0 ? " 1" : "1");
    }
    struct bytes pair[] = {BYTES("dbfilename"), buf_bytes(&many)};
    ck_assert_int_eq(conf_set(&conf, pair, 1), DC_OK);
    ck_assert_int_eq(conf_rewrite(&conf), DC_OK);
    struct conf before = conf;
    conf_init(&conf);
    ck_assert_int_eq(conf_read_file(&conf, in_dir("a.conf")), DC_OK);
    ck_assert_str_eq(value_of("save"), " 1  2 ");
    ck_assert_str_eq(value_of("oom-score-adj-values"), "0 1 2");
    ck_assert_str_eq(value_of("proc-title-template"), "{title} \"x\"");
    ck_assert_uint_eq(strlen(value_of("dbfilename")), many.len);
    buf_fini(&many);
    conf_fini(&before);
    end_in_dir();
}
END_TEST

START_TEST(a_rewrite_brings_back_a_file_that_has_gone) {
    begin_in_dir();
    write_file(in_dir("a.conf"), "port 7003\n");
    ck_assert_int_eq(conf_read_file(&conf, in_dir("a.conf")), DC_OK);
    unlink(in_dir("a.conf"));
    ck_assert_int_eq(conf_rewrite(&conf), DC_OK);
    expect_file(in_dir("a.conf"), "port 7003\n");
    end_in_dir();
}
END_TEST

START_TEST(a_rewrite_that_fails_says_why) {
    begin_in_dir();
    ck_assert_int_eq(conf_rewrite(&conf), DC_ECONF);
    ck_assert_str_eq(dc_fail_take(DC_ECONF), "The server is running without a config file");
    write_file(in_dir("a.conf"), "port 7003\n");
    ck_assert_int_eq(conf_read_file(&conf, in_dir("a.conf")), DC_OK);
    write_file(in_dir("a.conf"), "port x\n"); /* spoilt by hand meanwhile */
    ck_assert_int_eq(conf_rewrite(&conf), DC_ECONF);
    expect_file(in_dir("a.conf"), "port x\n");
    mem_free(conf.file);
    conf.file = mem_must_strdup("/nonexistent/dir/a.conf");
    ck_assert_int_eq(conf_rewrite(&conf), DC_EIO);
    ck_assert_str_eq(dc_fail_take(DC_EIO), "Rewriting config file: No such file or directory");
    static char longer[PATH_MAX];
    memset(longer, 'x', sizeof(longer) - 3);
    mem_free(conf.file);
    conf.file = mem_must_strdup(longer);
    ck_assert_int_eq(conf_rewrite(&conf), DC_EIO);
    ck_assert_str_eq(dc_fail_take(DC_EIO), "Rewriting config file: File name too long");
    mem_free(conf.file);
    write_file(in_dir("a.conf"), "port 7003\n");
    conf.file = mem_must_strdup(in_dir("a.conf"));
    struct rlimit before, none;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    none = (struct rlimit){0, before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &none); /* like a full disk */
    ck_assert_int_eq(conf_rewrite(&conf), DC_EIO);
    setrlimit(RLIMIT_FSIZE, &before);
    ck_assert_str_eq(dc_fail_take(DC_EIO), "Rewriting config file: File too large");
    expect_file(in_dir("a.conf"), "port 7003\n");
    mem_free(conf.file);
    conf.file = mem_must_strdup(dir); /* a directory can't be replaced */
    ck_assert_int_ne(conf_rewrite(&conf), DC_OK);
    end_in_dir();
}
END_TEST

/* Every allocation that may fail, one after the other: an error and nothing half done. */
START_TEST(a_rewrite_survives_each_failed_allocation) {
    begin_in_dir();
    write_file(in_dir("a.conf"), "port 7003\ntimeout 1\n");
    ck_assert_int_eq(conf_read_file(&conf, in_dir("a.conf")), DC_OK);
    expect_set("timeout", "5", "5");
    uint64_t n = 1;
    for (;; n++) {
        mem_fault_after(n);
        enum dc_err err = conf_rewrite(&conf);
        if (err == DC_OK) {
            break;
        }
        expect_file(in_dir("a.conf"), "port 7003\ntimeout 1\n");
        ck_assert_uint_lt(n, 1000);
    }
    mem_fault_after(0);
    ck_assert_uint_gt(n, 2);
    expect_file(in_dir("a.conf"), "port 7003\ntimeout 5\n");
    end_in_dir();
}
END_TEST

CHECK_MAIN("conf", options_begin_at_their_defaults, the_names_of_policies_follow_their_numbers,
           patterns_find_each_option_once, a_plain_name_comes_back_as_it_was_asked,
           secrets_are_shown_to_who_asks_and_not_in_messages, a_text_is_cut_to_the_room_there_is,
           what_differs_from_the_defaults_can_be_listed, values_of_every_kind_can_be_set,
           values_that_dont_fit_are_refused_in_the_words_of_redis, all_options_are_set_or_none,
           event_classes_are_canonical, limits_of_classes_are_merged,
           long_values_and_nuls_are_refused, a_value_for_which_there_is_no_memory_is_refused,
           a_file_has_comments_quotes_and_sizes, a_mistake_is_named_with_file_line_and_option,
           a_line_has_a_bounded_number_of_words, the_file_of_a_redis_is_understood,
           files_are_read_from_disk, options_stand_on_the_command_line,
           mistakes_on_the_command_line_are_named,
           the_command_line_wins_over_standard_input_and_that_over_the_file,
           options_are_checked_together, the_printed_file_says_the_defaults,
           a_rewrite_touches_only_what_has_changed, words_are_written_so_that_they_come_back,
           a_rewrite_brings_back_a_file_that_has_gone, a_rewrite_that_fails_says_why,
           a_rewrite_survives_each_failed_allocation)
