/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/diag.h"
#include "server/base/limits.h"
#include "server/base/metric.h"
#include "server/base/thread.h"
#include "tests/support/check_main.h"

#include <regex.h>
#include <string.h>

static char path[64];
static char content[256 * 1024];

static void begin(void) {
    snprintf(path, sizeof(path), "/tmp/dcache-diag-XXXXXX");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
    ck_assert_int_eq(diag_open(path), DC_OK);
    diag_set_level(DIAG_NOTICE);
    diag_set_role("main");
}

/* Everything that was written since begin(). */
static const char *end(void) {
    diag_close();
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    size_t len = fread(content, 1, sizeof(content) - 1, file);
    content[len] = '\0';
    fclose(file);
    unlink(path);
    return content;
}

static void expect_match(const char *text, const char *pattern) {
    regex_t regex;
    ck_assert_int_eq(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    ck_assert_msg(regexec(&regex, text, 0, NULL, 0) == 0, "'%s' isn't like '%s'", text, pattern);
    regfree(&regex);
}

static size_t count_lines(const char *text) {
    size_t count = 0;
    for (; *text != '\0'; text++) {
        count += *text == '\n';
    }
    return count;
}

START_TEST(a_line_has_time_level_role_and_event) {
    begin();
    diag(DIAG_NOTICE, "server.ready port=%d", 6379);
    expect_match(end(),
                 "^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\\.[0-9]{3}Z "
                 "notice main server\\.ready port=6379\n$");
}
END_TEST

static void speak(void *arg) {
    (void)arg;
    diag(DIAG_WARNING, "thread.speaks");
}

START_TEST(a_thread_speaks_under_its_own_name) {
    begin();
    struct thread t;
    thread_start(&t, "worker-3", speak, NULL);
    thread_join(&t);
    diag_set_role("janitor");
    diag(DIAG_NOTICE, "other.event");
    expect_match(end(), "warning worker-3 thread\\.speaks\n.* notice janitor other\\.event\n$");
}
END_TEST

START_TEST(the_level_is_obeyed) {
    begin();
    diag(DIAG_VERBOSE, "not.shown");
    diag_set_level(DIAG_DEBUG);
    diag(DIAG_DEBUG, "first.shown");
    diag_set_level(DIAG_WARNING);
    diag(DIAG_NOTICE, "not.shown");
    diag(DIAG_WARNING, "second.shown");
    diag_set_level(DIAG_NOTICE);
    expect_match(end(), "^[^ ]* debug main first\\.shown\n[^ ]* warning main second\\.shown\n$");
}
END_TEST

START_TEST(a_message_is_one_line_of_bounded_length) {
    begin();
    char longer[2 * DIAG_LINE_MAX];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    diag(DIAG_NOTICE, "long.event text=%s", longer);
    diag(DIAG_NOTICE, "client.name name=%s", "evil\nline\r\x1b[31m");
    const char *text = end();
    ck_assert_uint_eq(count_lines(text), 2);
    ck_assert_uint_le(strcspn(text, "\n"), DIAG_LINE_MAX - 1);
    ck_assert_uint_ge(strcspn(text, "\n"), DIAG_LINE_MAX - 8);
    expect_match(text, "name=evil\\?line\\?\\?\\[31m\n$");
}
END_TEST

START_TEST(a_site_that_floods_is_cut_and_counted) {
    begin();
    int64_t start_s = time(NULL);
    for (int i = 0; i < 1000; i++) {
        diag(DIAG_NOTICE, "flood.event i=%d", i);
        if (i == 997) {
            usleep(1100 * 1000); /* the next window */
        }
    }
    const char *text = end();
    ck_assert_int_le(time(NULL) - start_s, 20);
    ck_assert_uint_le(count_lines(text), 2 * DIAG_BURST + 5);
    ck_assert_uint_ge(count_lines(text), DIAG_BURST + 3);
    expect_match(
        text, "diag\\.left_out event=flood\\.event count=9[0-9]+\n[^\n]* i=998\n[^\n]* i=999\n$");
}
END_TEST

START_TEST(a_file_that_cant_be_opened_is_an_error) {
    begin();
    ck_assert_int_eq(diag_open("/nonexistent/dir/file"), DC_EIO);
    ck_assert_str_eq(dc_fail_take(DC_EIO), "can't open the log file /nonexistent/dir/file: "
                                           "No such file or directory");
    diag(DIAG_NOTICE, "still.here"); /* in the file that was open before */
    expect_match(end(), "still\\.here\n$");
    ck_assert_int_eq(diag_open(""), DC_OK); /* standard output */
}
END_TEST

START_TEST(a_full_disk_is_survived) {
    ck_assert_int_eq(diag_open("/dev/full"), DC_OK);
    diag(DIAG_NOTICE, "nobody.hears");
    diag_close();
}
END_TEST

/* --- metric --- */

static struct metric_slot slots[2];

START_TEST(a_metric_is_the_sum_over_the_threads) {
    metric_slot_init(&slots[0]);
    metric_slot_init(&slots[1]);
    ck_assert_uint_eq(metric_sum(METRIC_HITS), 0);
    metric_add(&slots[0], METRIC_HITS, 3);
    metric_add(&slots[1], METRIC_HITS, 4);
    metric_add(&slots[1], METRIC_MISSES, 1);
    ck_assert_uint_eq(metric_sum(METRIC_HITS), 7);
    ck_assert_uint_eq(metric_sum(METRIC_MISSES), 1);
    metric_reset();
    ck_assert_uint_eq(metric_sum(METRIC_HITS), 0);
    metric_add(&slots[0], METRIC_HITS, 2);
    ck_assert_uint_eq(metric_sum(METRIC_HITS), 2);
    metric_reset(); /* this process may go on */
}
END_TEST

START_TEST(metrics_have_names_of_their_own) {
    ck_assert_str_eq(metric_name(METRIC_HITS), "dcache_hits_total");
    ck_assert_str_eq(metric_info_name(METRIC_HITS), "keyspace_hits");
    for (int a = 0; a < METRIC_COUNT; a++) {
        ck_assert_int_eq(strncmp(metric_name((enum metric_id)a), "dcache_", 7), 0);
        ck_assert_uint_gt(strlen(metric_help((enum metric_id)a)), 5);
        for (int b = 0; b < a; b++) {
            ck_assert_str_ne(metric_name((enum metric_id)a), metric_name((enum metric_id)b));
        }
    }
}
END_TEST

static void name_no_metric(void *arg) {
    (void)arg;
    puts(metric_name(METRIC_COUNT));
}

START_TEST(a_metric_that_isnt_there_is_a_bug) {
    ck_assert(test_aborts(name_no_metric, NULL));
}
END_TEST

CHECK_MAIN("diag", a_line_has_time_level_role_and_event, a_thread_speaks_under_its_own_name,
           the_level_is_obeyed, a_message_is_one_line_of_bounded_length,
           a_site_that_floods_is_cut_and_counted, a_file_that_cant_be_opened_is_an_error,
           a_full_disk_is_survived, a_metric_is_the_sum_over_the_threads,
           metrics_have_names_of_their_own, a_metric_that_isnt_there_is_a_bug)
