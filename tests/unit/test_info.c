/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/info.h"

#include "server/cmd/client.h"
#include "tests/support/wired_node.h"

static struct wired_node w;
static char text[64 * 1024];

static const char *info(const char *section) {
    struct buf out;
    struct bytes word = bytes_str(section);
    buf_init(&out, 0);
    info_write(&w.node, &word, section[0] != '\0', &out);
    ck_assert(!out.failed);
    ck_assert_uint_lt(out.len, sizeof(text));
    memcpy(text, out.ptr, out.len);
    text[out.len] = '\0';
    buf_fini(&out);
    return text;
}

/* Every line of INFO is a title, empty, or name:value. */
static void check_lines(const char *all) {
    for (const char *line = all; *line != '\0';) {
        const char *end = strstr(line, "\r\n");
        ck_assert_ptr_nonnull(end);
        const char *colon = memchr(line, ':', (size_t)(end - line));
        ck_assert_msg(end == line || *line == '#' || colon != NULL, "%.*s", (int)(end - line),
                      line);
        line = end + 2;
    }
}

static void count_call(uint32_t worker, enum cmd_id id, uint64_t ticks) {
    struct cmd_stats *s = &w.workers[worker]->stats[id];
    atomic_fetch_add(&s->calls, 1);
    atomic_fetch_add(&s->ticks, ticks);
    atomic_fetch_add(&s->histogram[latency_bucket(ticks)], 1);
}

START_TEST(sections_are_chosen_by_name) {
    wired_node_init(&w, NULL, 0);
    check_lines(info("everything"));
    ck_assert_ptr_eq(strstr(info("CPU"), "# CPU\r\nused_cpu_sys:"), text);
    ck_assert_ptr_null(strstr(text, "\r\n\r\n"));
    ck_assert_ptr_nonnull(strstr(info(""), "\r\n\r\n# Clients\r\n"));
    ck_assert_ptr_nonnull(strstr(text, "# Modules\r\n"));
    ck_assert_ptr_null(strstr(text, "# Commandstats"));
    ck_assert_ptr_nonnull(strstr(info("all"), "# Commandstats"));
    ck_assert_ptr_null(strstr(text, "# Modules"));
    ck_assert_ptr_nonnull(strstr(info("everything"), "# Modules"));
    ck_assert_ptr_nonnull(strstr(text, "redis_version:7.0.15\r\n"));
    wired_node_fini(&w);
}
END_TEST

START_TEST(an_unknown_section_is_empty) {
    struct buf out;
    struct bytes word = BYTES("nosuch");
    wired_node_init(&w, NULL, 0);
    buf_init(&out, 0);
    info_write(&w.node, &word, 1, &out);
    ck_assert_uint_eq(out.len, 0);
    wired_node_fini(&w);
}
END_TEST

START_TEST(commands_are_summed_over_workers_since_the_reset) {
    struct info_command c;
    wired_node_init(&w, NULL, 0);
    count_call(0, CMD_GET, 1000);
    info_reset(&w.node);
    info_command(&w.node, &cmd_table[CMD_GET], &c);
    ck_assert_uint_eq(c.calls, 0);
    count_call(0, CMD_GET, 1000);
    count_call(1, CMD_GET, 3000);
    info_command(&w.node, &cmd_table[CMD_GET], &c);
    ck_assert_uint_eq(c.calls, 2);
    ck_assert_uint_eq(c.ticks, 4000);
    ck_assert_uint_eq(c.histogram[latency_bucket(1000)], 1);
    ck_assert_uint_eq(c.histogram[latency_bucket(3000)], 1);
    ck_assert_ptr_nonnull(strstr(info("commandstats"), "cmdstat_get:calls=2,usec="));
    ck_assert_ptr_null(strstr(text, "cmdstat_set"));
    wired_node_fini(&w);
}
END_TEST

START_TEST(percentiles_rise_and_keep_to_their_buckets) {
    double p50, p99, p999;
    wired_node_init(&w, NULL, 0);
    for (int i = 0; i < 100; i++) {
        count_call(i % 2, CMD_SET, i < 90 ? 1024 : 1 << 20);
    }
    const char *line = strstr(info("latencystats"), "latency_percentiles_usec_set:");
    ck_assert_ptr_nonnull(line);
    ck_assert_int_eq(
        sscanf(line, "latency_percentiles_usec_set:p50=%lf,p99=%lf,p99.9=%lf", &p50, &p99, &p999),
        3);
    ck_assert(p50 >= (double)time_ticks_to_ns(1024) / 1000 - 0.01);
    ck_assert(p50 <= (double)time_ticks_to_ns(2048) / 1000 + 0.01);
    ck_assert(p99 >= (double)time_ticks_to_ns(1 << 20) / 1000 - 0.01);
    ck_assert(p999 >= p99);
    wired_node_fini(&w);
}
END_TEST

START_TEST(errors_are_counted_by_prefix_since_the_reset) {
    wired_node_init(&w, NULL, 0);
    info_count_error(w.workers[0], BYTES("ERR"));
    info_reset(&w.node);
    ck_assert_str_eq(info("errorstats"), "# Errorstats\r\n");
    info_count_error(w.workers[0], BYTES("WRONGTYPE"));
    info_count_error(w.workers[1], BYTES("ERR"));
    info_count_error(w.workers[0], BYTES("ERR"));
    ck_assert_str_eq(info("errorstats"),
                     "# Errorstats\r\nerrorstat_ERR:count=2\r\nerrorstat_WRONGTYPE:count=1\r\n");
    ck_assert_uint_eq(metric_sum(METRIC_ERRORS), 3);
    wired_node_fini(&w);
}
END_TEST

START_TEST(kinds_of_errors_are_bounded) {
    char prefix[INFO_PREFIX_MAX + 1];
    struct info_error_sum sums[INFO_ERRORS_MAX];
    wired_node_init(&w, NULL, 0);
    for (int i = 0; i < INFO_ERRORS_MAX + 10; i++) {
        snprintf(prefix, sizeof(prefix), "E%d", i);
        info_count_error(w.workers[i % 2], bytes_str(prefix));
        info_count_error(w.workers[0], bytes_str(prefix));
    }
    memset(prefix, 'X', sizeof(prefix));
    info_count_error(w.workers[0], bytes_of(prefix, INFO_PREFIX_MAX));
    ck_assert_uint_eq(info_error_sums(&w.node, sums), INFO_ERRORS_MAX);
    wired_node_fini(&w);
}
END_TEST

START_TEST(rates_are_means_of_samples) {
    struct info_rates r;
    wired_node_init(&w, NULL, 0);
    info_sample(&w.node);
    metric_add(&w.workers[0]->metrics, METRIC_COMMANDS, 100000);
    usleep(20000);
    info_sample(&w.node);
    info_rates(&w.node, &r);
    ck_assert_uint_gt(r.commands_per_s, 0);
    ck_assert_uint_le(r.commands_per_s, 100000 * 50 / 16);
    ck_assert_uint_eq(r.input_per_s, 0);
    info_reset(&w.node);
    info_rates(&w.node, &r);
    ck_assert_uint_eq(r.commands_per_s, 0);
    wired_node_fini(&w);
}
END_TEST

START_TEST(keyspaces_with_keys_are_listed) {
    wired_node_init(&w, NULL, 0);
    ck_assert_str_eq(info("keyspace"), "# Keyspace\r\n");
    wired_set(&w, "a", BYTES("1"), EXPIRY_NONE);
    wired_set(&w, "b", BYTES("1"), clock_now_ms(&w.node.clock) + 100000);
    ck_assert_str_eq(info("keyspace"), "# Keyspace\r\ndb0:keys=2,expires=1,avg_ttl=0\r\n");
    wired_node_fini(&w);
}
END_TEST

START_TEST(clients_are_counted_with_their_buffers) {
    static struct client a, b;
    wired_node_init(&w, NULL, 0);
    client_init(&a, w.workers[0], 5, "127.0.0.1:1", "127.0.0.1:2", false);
    client_init(&b, w.workers[1], 6, "127.0.0.1:3", "127.0.0.1:2", false);
    atomic_store(&a.seen_input, 100);
    atomic_store(&b.seen_output, 70);
    ck_assert_ptr_nonnull(strstr(info("clients"), "connected_clients:2\r\n"));
    ck_assert_ptr_nonnull(strstr(text, "client_recent_max_input_buffer:100\r\n"));
    ck_assert_ptr_nonnull(strstr(text, "client_recent_max_output_buffer:70\r\n"));
    client_fini(&a);
    client_fini(&b);
    wired_node_fini(&w);
}
END_TEST

CHECK_MAIN("info", sections_are_chosen_by_name, an_unknown_section_is_empty,
           commands_are_summed_over_workers_since_the_reset,
           percentiles_rise_and_keep_to_their_buckets, errors_are_counted_by_prefix_since_the_reset,
           kinds_of_errors_are_bounded, rates_are_means_of_samples, keyspaces_with_keys_are_listed,
           clients_are_counted_with_their_buffers)
