/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dcache-server: a cache node that can be restarted. The map of the program, bottom-up:
 *
 *   server/base      floor 0   memory, numbers, clocks, locks, messages, options, metrics
 *   server/store     floor 1   keyspaces of entries; struct mut goes in, store_apply() is the only writer
 *   server/proto     floor 1   bytes -> struct request, struct reply -> bytes
 *   persist          floor 2   log, snapshots, recovery: what is in the store and what is on the disk
 *   replication      floor 3   readers of the same order
 *   server/cmd       floor 4   the command table, handlers, transactions, pub/sub, the janitor
 *   server/net       floor 5   workers: sockets, turns, output
 *   server/main.c              options -> modules bottom-up -> run -> the reverse
 *
 * A mutation: socket -> conn_feed -> cmd_run -> handler fills ctx->mut -> log_commit -> store_apply, all on the
 * worker that owns the connection, under the locks of the slots that it touches (server/README.md).
 */
#include "persist/adopt.h"
#include "persist/data.h"
#include "replication/link_key.h"
#include "server/base/crypto.h"
#include "server/base/diag.h"
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "server/base/time.h"
#include "server/cmd/janitor.h"
#include "server/cmd/saver.h"
#include "server/cmd/node.h"
#include "server/cmd/repl_host.h"
#include "server/cmd/tables.h"
#include "server/net/listen.h"
#include "server/net/loop.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage[] =
    "usage: dcache-server [CONF-FILE | -] [--option value ...]\n"
    "       dcache-server --print-config | --print-commands | --print-metrics | --print-locks |\n"
    "                     --print-errors | --print-mutations\n"
    "       dcache-server --version | --help\n"
    "\n"
    "Options have the names of the configuration file (--print-config explains each); later ones "
    "win.\n";

enum { WARM_RESTART_FULL = 1, CLOSE_TIMEOUT_MS = 10000 };
enum { LOG_MEMORY_SHARE = 16, LOG_MEMORY_MIN = 4 * 1024 * 1024 };

struct server {
    int64_t began_us; /* monotonic */
    struct conf conf;
    struct handover handover; /* from the run before this one, then for the one behind it */
    char dir[PATH_MAX];
    struct node node;
    struct data data;
    struct store *store;
    struct standing standing; /* among other nodes, at the start */
    struct listeners *listeners;
    struct understudy *understudy; /* of the workers */
    struct janitor *janitor;
    uint8_t link_key[CRYPTO_KEY_LEN];
    struct lock evict_lock; /* of what loading leaves out */
    struct log_feed *evict_feed;
};

/* Prints a table of the program and ends, if the first argument asks for one. */
static bool print_table(int argc, char **argv) {
    struct buf out;
    bool known = argc == 2;
    buf_init(&out, 0);
    if (known && strcmp(argv[1], "--help") == 0) {
        buf_append_str(&out, usage);
    } else if (known && strcmp(argv[1], "--version") == 0) {
        buf_append_str(&out, "dcache-server " DC_VERSION "\n");
    } else {
        known = known && strncmp(argv[1], "--print-", 8) == 0 && tables_print(argv[1] + 8, &out);
    }
    if (known) {
        fwrite(out.ptr, 1, out.len, stdout);
    }
    buf_fini(&out);
    return known;
}

static enum dc_err prepare_process(struct conf *conf) {
    char path[1024];
    struct rlimit files;
    rlim_t want = (rlim_t)conf_get(conf, maxclients) + 64;
    (void)conf_text(conf, CONF_ID_logfile, path, sizeof(path));
    enum dc_err err = diag_open(path);
    if (err != DC_OK) {
        return err;
    }
    diag_set_level((enum diag_level)conf_get(conf, loglevel));
    (void)conf_text(conf, CONF_ID_dir, path, sizeof(path));
    if ((mkdir(path, 0777) < 0 && errno != EEXIST) || chdir(path) < 0) {
        return dc_fail(DC_EIO, "dir %s: %s", path, dc_errno_text(errno));
    }
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < want) {
        files.rlim_cur = files.rlim_max < want ? files.rlim_max : want;
        if (setrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur < want) {
            diag(DIAG_WARNING, "server.few_files limit=%lu maxclients=%lu",
                 (unsigned long)files.rlim_cur, (unsigned long)want - 64);
        }
    }
    return DC_OK;
}

static uint32_t worker_count(const struct conf *conf) {
    long count = (long)conf_get(conf, threads);
    if (count == 0) {
        count = thread_cores();
    }
    return count < 1 ? 1 : count > WORKER_MAX ? WORKER_MAX : (uint32_t)count;
}

/* Called by the log: replies and held requests of all workers are looked at. */
static void log_moved(void *arg) {
    struct node *n = arg;
    n->host->resume(n);
}

static void log_rotated(void *arg) {
    struct node *n = arg;
    if (n->saver != NULL) {
        saver_note_rotation(n->saver);
    }
}

/* What was found in the data directory. */
static void report(const struct data *d) {
    const struct data_plan *p = d->plan;
    diag(DIAG_NOTICE,
         "recover.found snapshot=%s end_lsn=%" PRIu64 " clean=%s frames=%" PRIu64
         " effects=%" PRIu64 " log_bytes=%" PRIu64 " cut_bytes=%" PRIu64 " scan_ms=%" PRId64
         " notes=\"%s\"",
         p->snapshot[0] != '\0' ? p->snapshot : "none", p->end_lsn,
         p->empty   ? "new"
         : p->clean ? "yes"
                    : "no",
         p->frames, p->effects, p->log_bytes, p->cut_bytes, p->scan_us / 1000, p->notes);
}

static void warm_done(void *arg) {
    struct node *n = arg;
    struct warm_stats w;
    warm_stats(n->warm, &w);
    diag(DIAG_NOTICE,
         "recover.warm entries=%" PRIu64 " effects=%" PRIu64 " left_out=%" PRIu64
         " failed_ranges=%u ms=%" PRId64,
         w.entries_loaded, w.effects_applied, w.entries_left_out, w.ranges_failed, w.took_ms);
    n->host->resume(n);
}

/* What isn't durable yet counts in resident memory: of a small node it may only take its share. */
static uint64_t log_memory_limit(const struct conf *conf) {
    uint64_t limit = (uint64_t)conf_get(conf, log_buffer_size);
    uint64_t share = (uint64_t)conf_get(conf, maxmemory) / LOG_MEMORY_SHARE;
    share = share < LOG_MEMORY_MIN ? LOG_MEMORY_MIN : share;
    return conf_get(conf, maxmemory) > 0 && share < limit ? share : limit;
}

/* Directory, store, log. */
static enum dc_err open_data(struct server *s, bool continues) {
    struct node *n = &s->node;
    const struct conf *conf = &s->conf;
    /* The whole path: messages name it, in commands that can be copied. */
    if (getcwd(s->dir, sizeof(s->dir)) == NULL) {
        return dc_fail(DC_EIO, "the path of the data directory: %s", dc_errno_text(errno));
    }
    enum dc_err err = data_open(&s->data, &io_posix, s->dir);
    err = err == DC_OK ? repl_decide(s->data.meta, &s->conf, continues, &s->standing) : err;
    if (err != DC_OK) {
        return err;
    }
    struct store_opts opts = {.seed = s->data.plan->seed}; /* all databases: node_database() */
    s->store = store_create(&opts);
    time_calibrate();
    node_init(n, &s->conf, s->store, &net_host);
    if (s->handover.run_id[0] != '\0') {
        memcpy(n->run_id, s->handover.run_id, sizeof(n->run_id));
    }
    clock_raise_floor(&n->clock, s->data.plan->clock_ms * 1000, time_mono_us());
    n->worker_count = worker_count(conf);
    n->warm = s->data.warm; /* before anybody may take an empty store for the data */
    err = warm_attach(n->warm, s->store);
    struct log_opts log = {.follows = repl_opens_following(&s->data, &s->standing),
                           .keeps = conf_get(conf, appendonly) != 0,
                           .sync = (enum log_sync)conf_get(conf, appendfsync),
                           .segment_len = (uint64_t)conf_get(conf, log_segment_size),
                           .memory_limit = log_memory_limit(conf),
                           .moved = log_moved,
                           .rotated = log_rotated,
                           .arg = n};
    report(&s->data);
    err = err != DC_OK ? err : data_begin(&s->data, &log);
    err = err != DC_OK ? err : data_settle(&s->data);
    n->log = s->data.log;
    n->plan = s->data.plan;
    return err;
}

/* A signal that serve() will find. */
static bool end_is_asked(void) {
    sigset_t set;
    return sigpending(&set) == 0 && (sigismember(&set, SIGTERM) || sigismember(&set, SIGINT));
}

/* What doesn't fit under the memory limit at loading is evicted, so it doesn't come back at the next start. */
static enum dc_err evict_unloaded(void *arg, struct mut *m) {
    struct server *s = arg;
    if (atomic_load_explicit(&s->node.writes, memory_order_acquire) != WRITES_TAKEN) {
        return DC_EREADONLY;
    }
    lock_acquire(&s->evict_lock);
    enum dc_err err = log_reserve(s->evict_feed, m);
    if (err == DC_OK) {
        (void)log_commit(s->evict_feed, m);
    }
    lock_release(&s->evict_lock);
    return err;
}

static void start_warming(struct server *s) {
    struct node *n = &s->node;
    long threads = (long)conf_get(&s->conf, warm_threads);
    if (n->warm == NULL) {
        return;
    }
    if (threads == 0) {
        threads = thread_cores();
    }
    lock_init(&s->evict_lock, LOCK_RANK_EVICT);
    s->evict_feed = log_feed_create(n->log);
    warm_set_evict(n->warm, evict_unloaded, s);
    node_limit_warming(n);
    warm_start(n->warm, (uint32_t)threads, warm_done, n);
}

/* The path is one from the data directory, like that of the pidfile. */
static enum dc_err read_link_key(struct server *s, bool *has) {
    char path[CONF_VALUE_MAX + 1];
    *has = conf_text(&s->conf, CONF_ID_replication_key_file, path, sizeof(path)) > 0;
    return *has ? link_key_read(path, s->link_key) : DC_OK;
}

static enum dc_err start(struct server *s, bool continues) {
    struct node *n = &s->node;
    bool has_link_key;
    enum dc_err opened = read_link_key(s, &has_link_key);
    if (opened == DC_OK) {
        opened = open_data(s, continues);
    }
    if (opened != DC_OK) {
        return opened;
    }
    n->link_key = has_link_key ? s->link_key : NULL;
    for (uint32_t i = 0; i < n->worker_count; i++) {
        (void)worker_create(n, i);
    }
    enum dc_err err =
        listeners_open(n, (struct worker *)n->workers[0], &s->handover, &s->listeners);
    handover_fini(&s->handover); /* sockets that nobody has taken */
    if (err != DC_OK) {
        return err;
    }
    n->saver = saver_start(n, &s->data);
    err = repl_host_start(n, &s->data, &s->standing);
    if (err != DC_OK) {
        return err;
    }
    s->janitor = janitor_start(n);
    start_warming(s);
    while (conf_get(&s->conf, warm_restart) == WARM_RESTART_FULL && n->warm != NULL &&
           !warm_is_settled(n->warm) && !end_is_asked()) {
        usleep(1000);
    }
    s->understudy = understudy_start(n);
    n->ready_ms = (time_mono_us() - s->began_us) / 1000;
    for (uint32_t i = 0; i < n->worker_count; i++) {
        worker_start((struct worker *)n->workers[i]);
    }
    return DC_OK;
}

/* The acceptor first: a client whose connection is closed comes back at once, and then waits for the next start in the backlog. */
static void stop_workers(struct node *n) {
    worker_stop((struct worker *)n->workers[0]);
    worker_wait((struct worker *)n->workers[0]);
    for (uint32_t i = 1; i < n->worker_count; i++) {
        worker_stop((struct worker *)n->workers[i]);
    }
    for (uint32_t i = 1; i < n->worker_count; i++) {
        worker_wait((struct worker *)n->workers[i]);
    }
}

static void tear_down(struct server *s, bool clean, struct handover *after) {
    struct node *n = &s->node;
    listeners_close(s->listeners, after);
    data_stop_loading(&s->data);
    n->warm = NULL;
    if (n->log != NULL &&
        node_is_replica(n)) { /* REPLICAOF: the log ends as it is, so that another one can follow */
        log_set_follows(n->log, true);
    }
    data_close(&s->data, clean, CLOSE_TIMEOUT_MS); /* until then the log calls the workers */
    n->log = NULL;
    for (uint32_t i = 0; i < n->worker_count && n->workers[i] != NULL; i++) {
        worker_destroy((struct worker *)n->workers[i]);
    }
    if (s->store != NULL) {
        repl_destroy(n->repl);
        node_fini(n);
        store_destroy(s->store);
    }
}

/* Blocks the signals of an orderly end in every thread to come; the main thread waits for them. */
static void block_signals(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGUSR1); /* host->restart() */
    pthread_sigmask(SIG_BLOCK, set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
}

/* The next start will put aside what is here. */
static bool is_given_up(const struct server *s) {
    struct adopt_note n;
    return adopt_get(s->data.meta, &n) == DC_OK && (n.what == ADOPT_REWIND || n.what == ADOPT_COPY);
}

/* A copy of another node takes the place of everything. */
static bool data_is_given_up(struct server *s) {
    struct adopt_note note;
    return adopt_get(s->data.meta, &note) == DC_OK && note.what == ADOPT_COPY;
}

/* Redis's users expect a snapshot at the end where there is no log. */
static void save_at_the_end(struct server *s) {
    char rules[256];
    (void)conf_text(&s->conf, CONF_ID_save, rules, sizeof(rules));
    bool wanted = conf_get(&s->conf, snapshot_on_shutdown) != 0 ||
                  (!conf_get(&s->conf, appendonly) && rules[0] != '\0');
    uint32_t asked = atomic_load_explicit(&s->node.shutting_down, memory_order_relaxed);
    if (data_is_given_up(s)) {
        return;
    }
    /* A log that has just begun to be kept isn't finished without the snapshot that it goes on from. */
    if (is_given_up(s) || (!log_wants_base(s->node.log) &&
                           (asked == SHUTDOWN_NOSAVE || (!wanted && asked != SHUTDOWN_SAVE)))) {
        return;
    }
    (void)saver_request(s->node.saver, true);
    if (saver_wait(s->node.saver) != DC_OK) {
        diag(DIAG_WARNING, "server.end_without_snapshot error=\"%s\"", dc_fail_take(DC_EIO));
    }
}

/* True: to start anew in place. A signal to end that comes later stays pending, and the new start finds it. */
static bool wait_for_the_end(struct server *s, const sigset_t *ends) {
    for (;;) {
        int number = 0;
        sigwait(ends, &number);
        bool restarts = number == SIGUSR1;
        if (restarts && !atomic_load_explicit(&s->node.restarting, memory_order_relaxed)) {
            continue; /* somebody else's */
        }
        if (restarts) {
            diag(DIAG_NOTICE, "server.restarting");
        } else {
            diag(DIAG_NOTICE, "server.stopping signal=%d", number);
        }
        return restarts;
    }
}

/* What the run before left was taken at the start: now 'handover' is for the next one. */
static void prepare_handover(struct server *s) {
    struct handover *h = &s->handover;
    memcpy(h->run_id, s->node.run_id, sizeof(h->run_id));
    h->conf_file = s->conf.file != NULL ? mem_must_strdup(s->conf.file) : NULL;
    conf_write(&s->conf, &h->conf);
}

/* Serves until the end. 'restarts': the process is to start anew in place; its sockets go on listening. */
static enum dc_err serve(struct server *s, bool continues, bool *restarts) {
    sigset_t ends;
    block_signals(&ends);
    enum dc_err err = start(s, continues);
    if (err == DC_OK) {
        diag(DIAG_NOTICE,
             "server.ready version=" DC_VERSION " port=%d workers=%u pid=%d after_ms=%" PRId64,
             (int)conf_get(&s->conf, port), s->node.worker_count, (int)getpid(), s->node.ready_ms);
        data_clean(&s->data);
        *restarts = wait_for_the_end(s, &ends);
        save_at_the_end(s);
        saver_give_up(s->node.saver); /* a worker may be waiting for it */
        stop_workers(&s->node);
        janitor_stop(s->janitor);
        repl_stop(s->node.repl);
        saver_stop(s->node.saver);
        understudy_stop(s->understudy); /* last: a thread may be held in a write */
        diag(DIAG_NOTICE, "server.stopped");
    }
    if (*restarts) {
        prepare_handover(s);
    }
    tear_down(s, err == DC_OK, *restarts ? &s->handover : NULL);
    return err;
}

static void write_pidfile(struct conf *conf) {
    char path[1024];
    FILE *file;
    (void)conf_text(conf, CONF_ID_pidfile, path, sizeof(path));
    if (path[0] != '\0' && (file = fopen(path, "w")) != NULL) {
        fprintf(file, "%d\n", (int)getpid());
        fclose(file);
    }
}

/* The options: those of the command line and the file that it names, or those that the run before had at its end. */
static enum dc_err read_options(struct server *s, bool continues, int argc, char **argv) {
    conf_init(&s->conf);
    if (!continues) {
        enum dc_err err = conf_read_args(&s->conf, argc - 1, argv + 1);
        return err != DC_OK ? err : conf_validate(&s->conf);
    }
    s->conf.file = s->handover.conf_file != NULL ? mem_must_strdup(s->handover.conf_file) : NULL;
    return conf_read_text(&s->conf, buf_bytes(&s->handover.conf), "the run before");
}

int main(int argc, char **argv) {
    static struct server server; /* zero: what isn't set up is not torn down */
    bool restarts = false;
    if (print_table(argc, argv)) {
        return 0;
    }
    server.began_us = time_mono_us();
    mem_thread_begin();
    crypto_init();
    time_calibrate_begin();
    io_catch_faults();
    cmd_init();
    diag_set_role("main");
    bool continues = handover_begin(&server.handover, argv);
    enum dc_err err = read_options(&server, continues, argc, argv);
    if (err == DC_OK) {
        err = prepare_process(&server.conf);
    }
    if (err == DC_OK) {
        write_pidfile(&server.conf);
        err = serve(&server, continues, &restarts);
    }
    if (err == DC_OK && restarts) {
        err = handover_exec(&server.handover);
    }
    if (err != DC_OK) {
        fprintf(stderr, "dcache-server: %s\n", dc_fail_take(err));
    }
    diag_close();
    conf_fini(&server.conf);
    crypto_wipe(server.link_key, sizeof(server.link_key));
    handover_fini(&server.handover);
    return err == DC_OK ? 0 : 1;
}
