/* SPDX-License-Identifier: BSD-3-Clause */
/* Options as text: files, the command line, --print-config, CONFIG REWRITE. */
#include "server/base/mem.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/conf_case.h"

#include <limits.h>
#include <sys/resource.h>
#include <sys/stat.h>

static char dir[TEMP_DIR_MAX];

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
    static char path[TEMP_DIR_MAX + 64];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void begin_in_dir(void) {
    begin();
    temp_dir_make(dir);
}

static void end_in_dir(void) {
    end();
    unlink(in_dir("a.conf"));
    ck_assert_int_eq(rmdir(dir), 0); /* nothing else was left behind */
}

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
    ck_assert_ptr_nonnull(strstr(out.ptr, "\n# rdbcompression\n"));
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
    expect_set("requirepass", "a \"b\\\x01#", "(hidden)");
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

START_TEST(what_is_written_out_is_the_same_when_read) {
    struct buf text, again;
    struct conf other;
    begin_in_dir();
    expect_set("requirepass", "with \"quotes\" and blanks", "(hidden)");
    expect_set("maxmemory", "104857600", "104857600");
    expect_set("save", "", "");
    buf_init(&text, 0);
    buf_init(&again, 0);
    conf_write(&conf, &text);
    conf_init(&other);
    ck_assert_int_eq(conf_read_text(&other, buf_bytes(&text), "test"), DC_OK);
    conf_write(&other, &again);
    ck_assert(bytes_equal(buf_bytes(&text), buf_bytes(&again)));
    ck_assert(memmem(text.ptr, text.len, "quotes", 6) != NULL);
    conf_fini(&other);
    buf_fini(&text);
    buf_fini(&again);
    end_in_dir();
}
END_TEST

CHECK_MAIN("conf_text", a_file_has_comments_quotes_and_sizes,
           a_mistake_is_named_with_file_line_and_option, a_line_has_a_bounded_number_of_words,
           the_file_of_a_redis_is_understood, files_are_read_from_disk,
           options_stand_on_the_command_line, mistakes_on_the_command_line_are_named,
           the_command_line_wins_over_standard_input_and_that_over_the_file,
           the_printed_file_says_the_defaults, a_rewrite_touches_only_what_has_changed,
           words_are_written_so_that_they_come_back, a_rewrite_brings_back_a_file_that_has_gone,
           a_rewrite_that_fails_says_why, a_rewrite_survives_each_failed_allocation,
           what_is_written_out_is_the_same_when_read)
