/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * INFO's sections. Names are Redis's where the notion is the same: a snapshot answers to rdb_, the log to aof_. What is our own has its own
 * names, behind those of its section, or stands in the section dcache.
 * Checklist: a field that clients are known to read (client libraries, exporters) keeps its name and its unit.
 */
#include "server/base/mem.h"
#include "server/cmd/client.h"
#include "server/cmd/cmd.h"
#include "server/cmd/info.h"
#include "server/cmd/node.h"
#include "server/cmd/pubsub.h"
#include "server/cmd/saver.h"
#include "server/cmd/tables.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

/* --- fields ------------------------------------------------------------------------------------------------------ */

static void put_count(struct buf *out, const char *name, uint64_t value) {
    buf_printf(out, "%s:%" PRIu64 "\r\n", name, value);
}

static void put_number(struct buf *out, const char *name, int64_t value) {
    buf_printf(out, "%s:%" PRId64 "\r\n", name, value);
}

static void put_text(struct buf *out, const char *name, const char *value) {
    buf_printf(out, "%s:%s\r\n", name, value);
}

static void put_ratio(struct buf *out, const char *name, double value) {
    buf_printf(out, "%s:%.2f\r\n", name, value);
}

/* A size, and the same for people. */
static void put_size(struct buf *out, const char *name, uint64_t bytes) {
    static const char units[] = "KMGTPE";
    put_count(out, name, bytes);
    if (bytes < 1024) {
        buf_printf(out, "%s_human:%" PRIu64 "B\r\n", name, bytes);
        return;
    }
    double scaled = (double)bytes / 1024;
    int unit = 0;
    while (scaled >= 1024 && units[unit + 1] != '\0') {
        scaled /= 1024;
        unit++;
    }
    buf_printf(out, "%s_human:%.2f%c\r\n", name, scaled, units[unit]);
}

static double ratio(uint64_t a, uint64_t b) {
    return b > 0 ? (double)a / (double)b : 0;
}

static void put_metric(struct buf *out, enum metric_id id) {
    put_count(out, metric_info_name(id), metric_sum(id));
}

/* --- sections ---------------------------------------------------------------------------------------------------- */

static void write_server(struct node *n, struct buf *out) {
    struct utsname os;
    char path[512];
    int64_t now_us = clock_now_us(&n->clock);
    int64_t up_s = (now_us / 1000 - n->start_ms) / 1000;
    ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 1);
    path[len > 0 ? len : 0] = '\0';
    uname(&os);
    put_text(out, "redis_version", DC_REDIS_VERSION);
    put_text(out, "dcache_version", DC_VERSION);
    put_text(out, "redis_mode", "standalone");
    buf_printf(out, "os:%s %s %s\r\n", os.sysname, os.release, os.machine);
    put_count(out, "arch_bits", sizeof(void *) * 8);
    put_text(out, "monotonic_clock", "POSIX clock_gettime");
    put_text(out, "multiplexing_api", "epoll");
    put_text(out, "atomicvar_api", "c11-builtin");
    put_number(out, "process_id", getpid());
    put_text(out, "process_supervised", "no");
    put_text(out, "run_id", n->run_id);
    put_number(out, "tcp_port", conf_get(n->conf, port));
    put_number(out, "server_time_usec", now_us);
    put_number(out, "uptime_in_seconds", up_s);
    put_number(out, "uptime_in_days", up_s / 86400);
    put_count(out, "hz", 10);
    put_count(out, "configured_hz", 10);
    put_number(out, "lru_clock", now_us / 1000000 & 0xffffff);
    put_text(out, "executable", path);
    put_text(out, "config_file", n->conf->file != NULL ? n->conf->file : "");
    put_count(out, "io_threads_active", n->worker_count > 1);
}

/* What the connections hold. */
struct clients_view {
    uint64_t count;
    uint64_t subscribed;
    uint64_t input, input_max;
    uint64_t output, output_max;
};

static void view_clients(struct node *n, struct clients_view *v) {
    *v = (struct clients_view){.count = 0};
    lock_acquire(&n->clients_lock);
    for (const struct client *c = n->clients; c != NULL; c = c->next) {
        uint64_t input = atomic_load_explicit(&c->seen_input, memory_order_relaxed);
        uint64_t output = atomic_load_explicit(&c->seen_output, memory_order_relaxed);
        uint32_t flags = atomic_load_explicit(&c->seen_flags, memory_order_relaxed);
        v->count++;
        v->subscribed += (flags & CLIENT_SUBSCRIBED) != 0;
        v->input += input;
        v->output += output;
        v->input_max = input > v->input_max ? input : v->input_max;
        v->output_max = output > v->output_max ? output : v->output_max;
    }
    lock_release(&n->clients_lock);
}

static void write_clients(struct node *n, struct buf *out) {
    struct clients_view v;
    view_clients(n, &v);
    put_count(out, "connected_clients", v.count);
    put_count(out, "cluster_connections", 0);
    put_number(out, "maxclients", conf_get(n->conf, maxclients));
    put_count(out, "client_recent_max_input_buffer", v.input_max);
    put_count(out, "client_recent_max_output_buffer", v.output_max);
    put_count(out, "blocked_clients",
              atomic_load_explicit(&n->waiting_count, memory_order_relaxed));
    put_count(out, "tracking_clients", 0);
    put_count(out, "clients_in_timeout_table", 0);
    put_count(out, "pubsub_clients", v.subscribed);
}

static void put_policy(void *out, struct bytes name, struct bytes value) {
    (void)name;
    buf_printf(out, "maxmemory_policy:%.*s\r\n", (int)value.len, value.ptr);
}

static void write_limit(struct node *n, struct buf *out) {
    struct bytes option = BYTES("maxmemory-policy");
    put_size(out, "maxmemory", (uint64_t)conf_get(n->conf, maxmemory));
    conf_each(n->conf, &option, 1, put_policy, out);
}

static void write_allocator(const struct mem_stats *m, struct buf *out) {
    put_ratio(out, "allocator_frag_ratio", ratio(m->active, m->allocated));
    put_number(out, "allocator_frag_bytes", (int64_t)(m->active - m->allocated));
    put_ratio(out, "allocator_rss_ratio", ratio(m->resident, m->active));
    put_number(out, "allocator_rss_bytes", (int64_t)(m->resident - m->active));
    put_ratio(out, "rss_overhead_ratio", ratio(m->process_rss, m->resident));
    put_number(out, "rss_overhead_bytes", (int64_t)(m->process_rss - m->resident));
    put_ratio(out, "mem_fragmentation_ratio", ratio(m->process_rss, m->allocated));
    put_number(out, "mem_fragmentation_bytes", (int64_t)(m->process_rss - m->allocated));
}

/* Bytes of a table for each key: a word of eight at the usual load of a page. */
enum { TABLE_BYTES_PER_KEY = 10 };

static void write_used(struct node *n, const struct mem_stats *m, const struct clients_view *c,
                       struct buf *out) {
    uint64_t seen_peak = atomic_load_explicit(&n->memory.peak, memory_order_relaxed);
    uint64_t peak = m->allocated > seen_peak ? m->allocated : seen_peak;
    uint64_t startup = atomic_load_explicit(&n->memory.startup, memory_order_relaxed);
    uint64_t overhead = startup + c->count * sizeof(struct client) + c->input + c->output +
                        store_count(n->store) * TABLE_BYTES_PER_KEY;
    uint64_t dataset = m->allocated > overhead ? m->allocated - overhead : 0;
    uint64_t net = m->allocated > startup ? m->allocated - startup : 0;
    put_size(out, "used_memory", m->allocated);
    put_size(out, "used_memory_rss", m->process_rss);
    put_size(out, "used_memory_peak", peak);
    buf_printf(out, "used_memory_peak_perc:%.2f%%\r\n", 100 * ratio(m->allocated, peak));
    put_count(out, "used_memory_overhead", overhead);
    put_count(out, "used_memory_startup", startup);
    put_count(out, "used_memory_dataset", dataset);
    buf_printf(out, "used_memory_dataset_perc:%.2f%%\r\n", 100 * ratio(dataset, net));
}

static void write_memory(struct node *n, struct buf *out) {
    struct mem_stats m;
    struct clients_view clients;
    mem_stats_read(&m);
    view_clients(n, &clients);
    write_used(n, &m, &clients, out);
    put_count(out, "allocator_allocated", m.allocated);
    put_count(out, "allocator_active", m.active);
    put_count(out, "allocator_resident", m.resident);
    put_size(out, "total_system_memory",
             (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE));
    write_limit(n, out);
    write_allocator(&m, out);
    put_count(out, "mem_not_counted_for_evict", 0);
    put_count(out, "mem_replication_backlog", 0);
    put_count(out, "mem_clients_slaves", 0);
    put_count(out, "mem_clients_normal",
              clients.count * sizeof(struct client) + clients.input + clients.output);
    put_count(out, "mem_aof_buffer", 0);
    put_text(out, "mem_allocator", mem_allocator_name());
    put_count(out, "active_defrag_running", 0);
    put_count(out, "lazyfree_pending_objects", 0);
}

static void write_snapshots(struct node *n, struct buf *out) {
    struct saver_state s;
    saver_state(n->saver, &s);
    put_count(out, "rdb_changes_since_last_save", s.changes);
    put_count(out, "rdb_bgsave_in_progress", s.running);
    put_number(out, "rdb_last_save_time", s.last_ms / 1000);
    put_text(out, "rdb_last_bgsave_status", s.last_failed ? "err" : "ok");
    put_number(out, "rdb_last_bgsave_time_sec", s.last_took_ms < 0 ? -1 : s.last_took_ms / 1000);
    put_number(out, "rdb_current_bgsave_time_sec", s.running_ms < 0 ? -1 : s.running_ms / 1000);
    put_count(out, "rdb_saves", s.written);
    struct snap_outlook o = snap_outlook(s.done, s.expected, s.running_ms);
    put_count(out, "snapshot_percent", s.running && s.expected > 0 ? s.done * 100 / s.expected : 0);
    put_count(out, "snapshot_keys_per_sec", o.keys_per_s);
    put_count(out, "snapshot_eta_sec", o.eta_s);
    put_count(out, "snapshot_last_lsn", s.last_end_lsn);
    put_count(out, "snapshot_last_keys", s.last_entries);
    put_count(out, "snapshot_last_bytes", s.last_bytes);
    put_number(out, "snapshot_last_ms", s.last_took_ms);
    put_text(out, "snapshot_last_error", s.last_error);
}

static void write_log(struct node *n, struct buf *out) {
    struct log_stats l;
    char trouble[256];
    log_stats(n->log, &l);
    log_trouble(n->log, trouble, sizeof(trouble));
    bool well = log_state(n->log) == LOG_WELL;
    put_count(out, "aof_enabled", (uint64_t)conf_get(n->conf, appendonly));
    put_count(out, "aof_rewrite_in_progress", log_wants_base(n->log));
    put_count(out, "aof_rewrite_scheduled", 0);
    put_number(out, "aof_last_rewrite_time_sec", -1);
    put_number(out, "aof_current_rewrite_time_sec", -1);
    put_text(out, "aof_last_bgrewrite_status", "ok");
    put_text(out, "aof_last_write_status", well ? "ok" : "err");
    put_count(out, "log_head", log_head(n->log).v);
    put_count(out, "log_written", log_written(n->log).v);
    put_count(out, "log_durable", log_durable(n->log).v);
    put_text(out, "log_segment", l.segment);
    put_count(out, "log_pending_bytes", l.bytes_pending);
    put_count(out, "log_syncs", l.syncs);
    put_count(out, "log_sync_failures", l.sync_failures);
    put_count(out, "log_write_failures", l.write_failures);
    put_number(out, "log_last_sync_usec", l.last_sync_us);
    put_text(out, "log_trouble", trouble);
}

/* The restart report, and how warm the node is. */
static void write_recovery(struct node *n, struct buf *out) {
    struct warm_stats w = {.ranges = 0};
    const struct data_plan *p = n->plan;
    bool cold = n->warm != NULL && !warm_is_over(n->warm);
    if (n->warm != NULL) {
        warm_stats(n->warm, &w);
    }
    put_count(out, "warm_percent", cold && w.ranges > 0 ? 100ull * w.ranges_warm / w.ranges : 100);
    put_count(out, "warm_ranges", w.ranges_warm);
    put_count(out, "warm_ranges_total", w.ranges);
    put_count(out, "warm_ranges_failed", w.ranges_failed);
    put_count(out, "warm_keys_loaded", w.entries_loaded);
    put_count(out, "warm_keys_left_out", w.entries_left_out);
    put_count(out, "warm_effects_applied", w.effects_applied);
    put_number(out, "warm_ms", w.took_ms);
    if (p != NULL) {
        put_text(out, "restart_snapshot", p->snapshot);
        put_text(out, "restart_clean", p->empty ? "new" : p->clean ? "yes" : "no");
        put_count(out, "restart_end_lsn", p->end_lsn);
        put_count(out, "restart_log_bytes", p->log_bytes);
        put_count(out, "restart_frames", p->frames);
        put_count(out, "restart_cut_bytes", p->cut_bytes);
        put_text(out, "restart_cut_file", p->cut_file);
        put_number(out, "restart_scan_ms", p->scan_us / 1000);
        put_number(out, "restart_ready_ms", n->ready_ms);
        put_text(out, "restart_notes", p->notes);
    }
}

static void write_persistence(struct node *n, struct buf *out) {
    put_count(out, "loading", 0);
    put_count(out, "async_loading", !warm_is_settled(n->warm));
    if (n->saver != NULL) {
        write_snapshots(n, out);
    }
    write_log(n, out);
    write_recovery(n, out);
}

static void write_expiry(struct node *n, const struct info_rates *r, struct buf *out) {
    put_metric(out, METRIC_EXPIRED);
    put_ratio(out, "expired_stale_perc",
              100 * ratio(r->expired_last_round, r->expired_last_round + store_count(n->store)));
    put_count(out, "expired_time_cap_reached_count", r->sweep_cut_short);
    put_count(out, "expire_cycle_cpu_milliseconds", r->sweep_us / 1000);
}

static void write_eviction(struct node *n, struct buf *out) {
    int64_t since_us = atomic_load_explicit(&n->memory.evicting_since_us, memory_order_relaxed);
    uint64_t before_us = atomic_load_explicit(&n->memory.evicting_us, memory_order_relaxed);
    uint64_t now_us = since_us != 0 ? (uint64_t)(time_mono_us() - since_us) : 0;
    put_metric(out, METRIC_EVICTED);
    put_count(out, "evicted_clients", 0);
    put_count(out, "total_eviction_exceeded_time", (before_us + now_us) / 1000);
    put_count(out, "current_eviction_exceeded_time", now_us / 1000);
}

static void write_stats(struct node *n, struct buf *out) {
    struct info_rates r;
    info_rates(n, &r);
    put_metric(out, METRIC_CONNECTIONS_ACCEPTED);
    put_metric(out, METRIC_COMMANDS);
    put_count(out, "instantaneous_ops_per_sec", r.commands_per_s);
    put_metric(out, METRIC_INPUT_BYTES);
    put_metric(out, METRIC_OUTPUT_BYTES);
    put_ratio(out, "instantaneous_input_kbps", (double)r.input_per_s / 1024);
    put_ratio(out, "instantaneous_output_kbps", (double)r.output_per_s / 1024);
    put_metric(out, METRIC_CONNECTIONS_REJECTED);
    struct repl_stats links = {.sent_full = 0};
    if (n->repl != NULL) {
        repl_stats(n->repl, &links);
    }
    put_count(out, "sync_full", links.sent_full);
    put_count(out, "sync_partial_ok", links.sent_partial);
    put_count(out, "sync_partial_err", links.refused);
    write_expiry(n, &r, out);
    write_eviction(n, out);
    put_metric(out, METRIC_HITS);
    put_metric(out, METRIC_MISSES);
    put_count(out, "pubsub_channels", pubsub_topic_count(n, TOPIC_CHANNEL));
    put_count(out, "pubsub_patterns", pubsub_topic_count(n, TOPIC_PATTERN));
    put_count(out, "pubsubshard_channels", pubsub_topic_count(n, TOPIC_SHARD));
    put_count(out, "latest_fork_usec", 0);
    put_count(out, "total_forks", 0);
    put_count(out, "unexpected_error_replies", 0);
    put_metric(out, METRIC_ERRORS);
    put_metric(out, METRIC_READS);
    put_metric(out, METRIC_WRITES);
    put_metric(out, METRIC_UNCONFIRMED);
    put_metric(out, METRIC_QUERY_LIMIT_DISCONNECTS);
    put_metric(out, METRIC_OUTPUT_LIMIT_DISCONNECTS);
}

static void put_cpu(struct buf *out, const char *name, const char *of, const struct timeval *t) {
    buf_printf(out, "%s%s:%ld.%06ld\r\n", name, of, (long)t->tv_sec, (long)t->tv_usec);
}

static void write_cpu(struct node *n, struct buf *out) {
    static const struct {
        int who;
        const char *suffix;
    } parts[] = {{RUSAGE_SELF, ""}, {RUSAGE_CHILDREN, "_children"}};
    (void)n;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        struct rusage usage;
        getrusage(parts[i].who, &usage);
        put_cpu(out, "used_cpu_sys", parts[i].suffix, &usage.ru_stime);
        put_cpu(out, "used_cpu_user", parts[i].suffix, &usage.ru_utime);
    }
}

static void write_nothing(struct node *n, struct buf *out) {
    (void)n;
    (void)out;
}

static void write_commandstats(struct node *n, struct buf *out) {
    for (uint32_t id = 0; id < CMD_COUNT; id++) {
        struct info_command c;
        info_command(n, &cmd_table[id], &c);
        if (c.calls == 0 && c.rejected == 0 && c.failed == 0) {
            continue;
        }
        uint64_t us = time_ticks_to_ns(c.ticks) / 1000;
        buf_printf(out,
                   "cmdstat_%s:calls=%" PRIu64 ",usec=%" PRIu64
                   ",usec_per_call=%.2f,rejected_calls=%" PRIu64 ",failed_calls=%" PRIu64 "\r\n",
                   cmd_table[id].name, c.calls, us, ratio(us, c.calls), c.rejected, c.failed);
    }
}

static void write_errorstats(struct node *n, struct buf *out) {
    struct info_error_sum sums[INFO_ERRORS_MAX];
    uint32_t count = info_error_sums(n, sums);
    for (uint32_t i = 0; i < count; i++) {
        buf_printf(out, "errorstat_%s:count=%" PRIu64 "\r\n", sums[i].prefix, sums[i].count);
    }
}

/* The duration that so many percent of the calls stayed below, by straight lines within the buckets. */
static double percentile_us(const struct info_command *c, double percent) {
    double wanted = (double)c->calls * percent / 100;
    uint64_t below = 0;
    for (uint32_t i = 0; i < LATENCY_BUCKETS; i++) {
        uint64_t in = c->histogram[i];
        if (in > 0 && (double)(below + in) >= wanted) {
            double low_ns = i == 0 ? 0 : (double)time_ticks_to_ns((uint64_t)1 << i);
            double high_ns = (double)time_ticks_to_ns((uint64_t)2 << i);
            return (low_ns + (high_ns - low_ns) * (wanted - (double)below) / (double)in) / 1000;
        }
        below += in;
    }
    return 0;
}

static void write_percentiles(struct buf *out, const char *percents, const struct info_command *c) {
    double percent;
    int used;
    const char *separator = ":";
    for (const char *at = percents; sscanf(at, "%lf%n", &percent, &used) == 1; at += used) {
        buf_printf(out, "%sp%g=%.3f", separator, percent, percentile_us(c, percent));
        separator = ",";
    }
}

static void write_latencystats(struct node *n, struct buf *out) {
    char percents[256];
    (void)conf_text(n->conf, CONF_ID_latency_tracking_info_percentiles, percents, sizeof(percents));
    for (uint32_t id = 0; id < CMD_COUNT; id++) {
        struct info_command c;
        info_command(n, &cmd_table[id], &c);
        if (c.calls > 0) {
            buf_printf(out, "latency_percentiles_usec_%s", cmd_table[id].name);
            write_percentiles(out, percents, &c);
            buf_append_str(out, "\r\n");
        }
    }
}

static void write_cluster(struct node *n, struct buf *out) {
    (void)n;
    put_count(out, "cluster_enabled", 0);
}

static void write_keyspace(struct node *n, struct buf *out) {
    const struct keyspace *ks;
    for (uint32_t id = 0; (ks = node_database(n, id)) != NULL; id++) {
        uint64_t keys = keyspace_count(ks);
        if (keys > 0) {
            buf_printf(out, "db%u:keys=%" PRIu64 ",expires=%" PRIu64 ",avg_ttl=%" PRId64 "\r\n", id,
                       keys, keyspace_volatile_count(ks), keyspace_mean_ttl_ms(ks));
        }
    }
}

static void write_dcache(struct node *n, struct buf *out) {
    struct info_rates r;
    info_rates(n, &r);
    put_text(out, "version", DC_VERSION);
    put_count(out, "workers", n->worker_count);
    put_count(out, "keys", store_count(n->store));
    put_metric(out, METRIC_TURNS);
    put_metric(out, METRIC_LOOPS_TAKEN);
    put_metric(out, METRIC_CHANGES);
    put_count(out, "mailbox_messages", metric_sum(METRIC_MESSAGES));
    put_count(out, "expired_found_last_round", r.expired_last_round);
    put_count(out, "sweep_rounds", r.sweep_rounds);
    put_count(out, "sweep_cut_short", r.sweep_cut_short);
    put_count(out, "sweep_usec", r.sweep_us);
    put_count(out, "memory_dirty", atomic_load_explicit(&n->memory.dirty, memory_order_relaxed));
    put_count(out, "memory_purges", atomic_load_explicit(&n->memory.purges, memory_order_relaxed));
    int64_t budget = atomic_load_explicit(&n->memory_budget, memory_order_relaxed);
    put_number(out, "memory_budget", budget > MEMORY_UNLIMITED / 2 ? -1 : budget);
    put_count(out, "memory_unlimited", budget > MEMORY_UNLIMITED / 2);
    const struct keyspace *ks;
    for (uint32_t id = 0; (ks = node_database(n, id)) != NULL; id++) {
        uint64_t version = keyspace_flush_version(ks);
        if (version != 0) {
            buf_printf(out, "db%u_flushed_lsn:%" PRIu64 "\r\n", id, version);
        }
    }
}

/* --- which ------------------------------------------------------------------------------------------------------- */

enum { IN_DEFAULT = 1, IN_ALL = 2, IN_EVERYTHING = 4 };

static const struct section {
    const char *name;
    const char *title;
    uint32_t sets;
    void (*write)(struct node *n, struct buf *out);
} sections[] = {
    {"server", "Server", IN_DEFAULT | IN_ALL, write_server},
    {"clients", "Clients", IN_DEFAULT | IN_ALL, write_clients},
    {"memory", "Memory", IN_DEFAULT | IN_ALL, write_memory},
    {"persistence", "Persistence", IN_DEFAULT | IN_ALL, write_persistence},
    {"stats", "Stats", IN_DEFAULT | IN_ALL, write_stats},
    {"replication", "Replication", IN_DEFAULT | IN_ALL, info_write_replication},
    {"cpu", "CPU", IN_DEFAULT | IN_ALL, write_cpu},
    {"modules", "Modules", IN_DEFAULT | IN_EVERYTHING, write_nothing},
    {"commandstats", "Commandstats", IN_ALL, write_commandstats},
    {"errorstats", "Errorstats", IN_DEFAULT | IN_ALL, write_errorstats},
    {"latencystats", "Latencystats", IN_ALL, write_latencystats},
    {"cluster", "Cluster", IN_DEFAULT | IN_ALL, write_cluster},
    {"dcache", "Dcache", IN_DEFAULT | IN_ALL, write_dcache},
    {"keyspace", "Keyspace", IN_DEFAULT | IN_ALL, write_keyspace},
};

static bool is_asked(const struct section *s, const struct bytes *words, uint32_t count) {
    if (count == 0) {
        return s->sets & IN_DEFAULT;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (bytes_is(words[i], s->name) || bytes_is(words[i], "everything") ||
            (bytes_is(words[i], "all") && (s->sets & IN_ALL)) ||
            (bytes_is(words[i], "default") && (s->sets & IN_DEFAULT))) {
            return true;
        }
    }
    return false;
}

void info_write(struct node *n, const struct bytes *words, uint32_t count, struct buf *out) {
    for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
        if (is_asked(&sections[i], words, count)) {
            buf_printf(out, "%s# %s\r\n", out->len > 0 ? "\r\n" : "", sections[i].title);
            sections[i].write(n, out);
        }
    }
}
