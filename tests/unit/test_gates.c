/* SPDX-License-Identifier: BSD-3-Clause */
/* A node with one worker and real sockets; what replicas acknowledge is said by the test. */
#include "server/net/gates.h"
#include "server/base/crypto.h"
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "server/base/time.h"
#include "server/cmd/acks.h"
#include "server/cmd/node.h"
#include "server/base/io.h"
#include "tests/support/check_main.h"

#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>

static struct conf conf;
static struct node node;
static struct understudy *understudy;

static void on_moved(void *arg) {
    struct node *n = arg;
    n->host->resume(n);
}

static void set_option(const char *name, const char *value) {
    struct bytes pair[] = {bytes_str(name), bytes_str(value)};
    ck_assert_int_eq(conf_set(&conf, pair, 1), DC_OK);
    node_options_changed(&node);
}

static void set_up(void) {
    static const uint8_t id[NODE_ID_LEN];
    struct log_opts opts = {.io = &io_posix,
                            .dir = ".",
                            .node_id = id,
                            .seed = id,
                            .history = {.id = 1, .start = LSN_FIRST},
                            .first_lsn = LSN_FIRST,
                            .segment_len = 1 << 20,
                            .memory_limit = 1 << 20,
                            .moved = on_moved,
                            .arg = &node};
    crypto_init();
    time_calibrate();
    cmd_init();
    conf_init(&conf);
    node_init(&node, &conf, store_create(&(struct store_opts){.keyspaces = 1}), &net_host);
    ck_assert_int_eq(log_open(&opts, &node.log), DC_OK);
    set_option("appendonly", "no");
    node.worker_count = 1;
    struct worker *w = worker_create(&node, 0);
    understudy = understudy_start(&node);
    worker_start(w);
}

static void tear_down(void) {
    struct worker *w = (struct worker *)node.workers[0];
    worker_stop(w);
    worker_wait(w);
    understudy_stop(understudy);
    log_close(node.log, false, 0);
    node.log = NULL;
    worker_destroy(w);
    struct store *s = node.store;
    node_fini(&node);
    store_destroy(s);
    conf_fini(&conf);
}

/* --- clients ----------------------------------------------------------------------------------------- */

struct arrival {
    struct message message; /* first */
    int fd;
};

static void arrive(struct cmd_worker *w, struct message *m) {
    conn_open((struct worker *)w, ((struct arrival *)m)->fd, "test:0", "test:0", true);
    mem_free(m);
}

static int connect_client(void) {
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    ck_assert_int_eq(fcntl(pair[1], F_SETFL, O_NONBLOCK), 0);
    struct arrival *a = mem_must_zalloc(sizeof(*a));
    a->message.run = arrive;
    a->fd = pair[1];
    struct worker *w = (struct worker *)node.workers[0];
    atomic_fetch_add(&w->conn_count, 1);
    atomic_fetch_add(&node.client_count, 1);
    worker_post(w, &a->message);
    return pair[0];
}

static void ask(int fd, const char *line) {
    char text[128];
    int len = snprintf(text, sizeof(text), "%s\r\n", line);
    ck_assert_int_eq(write(fd, text, (size_t)len), len);
}

/* A line of an answer; "" when none comes in that time. */
static const char *line_within(int fd, int ms) {
    static char line[1024];
    size_t len = 0;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (len < sizeof(line) - 1 && poll(&p, 1, len == 0 ? ms : 5000) == 1 &&
           read(fd, &line[len], 1) == 1) {
        if (line[len++] == '\n') {
            len -= 2;
            break;
        }
    }
    line[len] = '\0';
    return line;
}

static const char *answer(int fd, const char *line) {
    ask(fd, line);
    return line_within(fd, 10000);
}

static bool is_silent(int fd) {
    return line_within(fd, 50)[0] == '\0';
}

/* --- replicas ---------------------------------------------------------------------------------------- */

static int32_t attach(uint8_t who) {
    uint8_t peer[PEER_ID_LEN] = {who};
    int32_t slot = replicas_join(node.replicas, peer, "10.0.0.1", 6379);
    ck_assert_int_ge(slot, 0);
    replicas_set_state(node.replicas, slot, REPLICA_ONLINE);
    return slot;
}

static void acknowledge(int32_t slot, uint64_t received, uint64_t durable) {
    replicas_note(node.replicas, slot, received, durable, 0, time_mono_us());
}

static uint64_t head(void) {
    return log_head(node.log).v;
}

/* --- tests ------------------------------------------------------------------------------------------- */

START_TEST(a_reply_leaves_when_enough_replicas_have_it) {
    set_up();
    int fd = connect_client();
    int32_t a = attach(1), b = attach(2), again = attach(2);
    ck_assert_str_eq(answer(fd, "CLIENT ACK replicas:2"), "+OK");
    ask(fd, "SET k v");
    ck_assert(is_silent(fd));
    acknowledge(b, head(), 0);
    acknowledge(again, head(), head());
    ck_assert(is_silent(fd)); /* one node, whatever its links say */
    acknowledge(a, head() - 1, 0);
    ck_assert(is_silent(fd));
    acknowledge(a, head(), 0);
    ck_assert_str_eq(line_within(fd, 5000), "+OK");
    close(fd);
    tear_down();
}
END_TEST

START_TEST(disks_of_replicas_are_hurried_and_waited_for) {
    set_up();
    int fd = connect_client();
    int32_t a = attach(1);
    ck_assert_str_eq(answer(fd, "CLIENT ACK replicas:1"), "+OK");
    ask(fd, "SET k 1");
    ck_assert(is_silent(fd));
    ck_assert_uint_eq(replicas_hurry_lsn(node.replicas), 0);
    acknowledge(a, head(), 0);
    ck_assert_str_eq(line_within(fd, 5000), "+OK");
    ck_assert_str_eq(answer(fd, "CLIENT ACK replicas:1:disk"), "+OK");
    ask(fd, "SET k 2");
    ck_assert(is_silent(fd));
    ck_assert_uint_eq(replicas_hurry_lsn(node.replicas), head());
    acknowledge(a, head(), head() - 1);
    ck_assert(is_silent(fd));
    acknowledge(a, head(), head());
    ck_assert_str_eq(line_within(fd, 5000), "+OK");
    close(fd);
    tear_down();
}
END_TEST

START_TEST(what_a_reply_shows_is_waited_for_and_stays_confirmed) {
    set_up();
    int writer = connect_client(), reader = connect_client();
    int32_t a = attach(1);
    ck_assert_str_eq(answer(writer, "SET k v"), "+OK"); /* under no level */
    ck_assert_str_eq(answer(reader, "CLIENT ACK replicas:1"), "+OK");
    ask(reader, "GET k");
    ck_assert(is_silent(reader));
    acknowledge(a, head(), 0);
    ck_assert_str_eq(line_within(reader, 5000), "$1");
    ck_assert_str_eq(line_within(reader, 5000), "v");
    replicas_leave(node.replicas, a);
    ck_assert_str_eq(answer(reader, "GET k"), "$1");
    ck_assert_str_eq(line_within(reader, 5000), "v");
    ask(reader, "SET k w");
    ck_assert(is_silent(reader));
    close(writer);
    close(reader);
    tear_down();
}
END_TEST

START_TEST(an_acknowledgement_that_comes_too_late_makes_no_ok) {
    set_up();
    set_option("ack-timeout", "200");
    int fd = connect_client();
    int32_t a = attach(1);
    ck_assert_str_eq(answer(fd, "CLIENT ACK replicas:1"), "+OK");
    const char *reply = answer(fd, "SET k v");
    ck_assert_msg(strncmp(reply, "-UNCONFIRMED applied at LSN ", 28) == 0, "%s", reply);
    ck_assert_ptr_nonnull(strstr(reply, "0 of 1 replicas have it after 200 ms"));
    acknowledge(a, head(), 0);
    ck_assert(is_silent(fd));
    ck_assert_str_eq(answer(fd, "GET k"), "$1"); /* it is confirmed now */
    ck_assert_str_eq(line_within(fd, 5000), "v");
    close(fd);
    tear_down();
}
END_TEST

START_TEST(test_h42_a_demotion_refuses_what_waits_and_no_ok_comes_later) {
    set_up();
    int first = connect_client(), second = connect_client(), idle = connect_client();
    int32_t a = attach(1);
    ck_assert_str_eq(answer(first, "CLIENT ACK replicas:1"), "+OK");
    ck_assert_str_eq(answer(second, "CLIENT ACK replicas:2"), "+OK");
    ask(first, "SET k v\r\nPING\r\nINCR n");
    ask(second, "SET l v");
    ck_assert(is_silent(first));
    ck_assert(is_silent(second));
    node.host->refuse_waiting(&node, "this node isn't the primary any more");
    const char *why = "not confirmed: this node isn't the primary any more";
    ck_assert_ptr_nonnull(strstr(line_within(first, 5000), why));
    ck_assert_str_eq(line_within(first, 5000), "+PONG");
    ck_assert_ptr_nonnull(strstr(line_within(first, 5000), why));
    ck_assert_ptr_nonnull(strstr(line_within(second, 5000), why));
    acknowledge(a, head(), 0);
    ck_assert(is_silent(first));
    ck_assert(is_silent(second));
    ck_assert(is_silent(idle));
    ask(first, "SET k w"); /* later ones aren't concerned */
    ck_assert(is_silent(first));
    acknowledge(a, head(), 0);
    ck_assert_str_eq(line_within(first, 5000), "+OK");
    close(first);
    close(second);
    close(idle);
    tear_down();
}
END_TEST

START_TEST(a_quorum_grows_with_the_replicas_that_are_known) {
    set_up();
    int fd = connect_client();
    ck_assert_str_eq(answer(fd, "CLIENT ACK quorum"), "+OK");
    ck_assert_uint_eq(acks_quorum(&node), 0);
    ck_assert_str_eq(answer(fd, "SET k 0"), "+OK");
    int32_t a = attach(1), b = attach(2);
    ck_assert_uint_eq(acks_quorum(&node), 1);
    ask(fd, "SET k 1");
    ck_assert(is_silent(fd));
    acknowledge(b, head(), 0);
    ck_assert_str_eq(line_within(fd, 5000), "+OK");
    (void)attach(3);
    ck_assert_uint_eq(acks_quorum(&node), 2);
    replicas_leave(node.replicas, b); /* it is known all the same */
    ck_assert_uint_eq(acks_quorum(&node), 2);
    ask(fd, "SET k 2");
    acknowledge(a, head() + 1000, 0);
    ck_assert(is_silent(fd));
    set_option("quorum-replicas", "2");
    ck_assert_str_eq(line_within(fd, 5000), "+OK");
    close(fd);
    tear_down();
}
END_TEST

START_TEST(levels_of_one_connection_keep_the_order_of_replies) {
    set_up();
    int fd = connect_client();
    int32_t a = attach(1), b = attach(2);
    ask(fd, "SET a 1\r\nCLIENT ACK replicas:2\r\nSET b 2\r\nCLIENT ACK replicas:1\r\nSET c 3\r\n"
            "CLIENT ACK memory\r\nSET d 4");
    ck_assert_str_eq(line_within(fd, 5000), "+OK");
    ck_assert_str_eq(line_within(fd, 5000), "+OK");
    ck_assert(is_silent(fd));
    acknowledge(a, head(), 0); /* enough for c; b stands before it */
    ck_assert(is_silent(fd));
    acknowledge(b, head(), 0);
    for (int i = 0; i < 5; i++) {
        ck_assert_str_eq(line_within(fd, 5000), "+OK");
    }
    ck_assert(is_silent(fd));
    close(fd);
    tear_down();
}
END_TEST

START_TEST(wait_ends_when_replicas_have_it) {
    set_up();
    int fd = connect_client();
    int32_t a = attach(1), b = attach(2);
    ck_assert_str_eq(answer(fd, "SET k v"), "+OK");
    acknowledge(a, head() - 1, 0);
    ask(fd, "WAIT 2 0\r\nPING");
    ck_assert(is_silent(fd));
    acknowledge(a, head(), 0);
    ck_assert(is_silent(fd));
    acknowledge(b, head(), head());
    ck_assert_str_eq(line_within(fd, 5000), ":2");
    ck_assert_str_eq(line_within(fd, 5000), "+PONG");
    ck_assert_str_eq(answer(fd, "WAITAOF 0 1 0"), "*2");
    ck_assert_str_eq(line_within(fd, 5000), ":0");
    ck_assert_str_eq(line_within(fd, 5000), ":1");
    ck_assert_str_eq(answer(fd, "WAIT 3 100"), ":2");
    close(fd);
    tear_down();
}
END_TEST

START_TEST(writes_need_good_replicas_if_that_is_asked_for) {
    set_up();
    set_option("min-replicas-to-write", "1");
    set_option("min-replicas-max-lag", "1");
    int fd = connect_client();
    ck_assert_ptr_nonnull(strstr(answer(fd, "SET k v"), "-NOREPLICAS"));
    int32_t a = attach(1);
    ck_assert_ptr_nonnull(strstr(answer(fd, "SET k v"), "-NOREPLICAS"));
    acknowledge(a, head(), 0);
    ck_assert_str_eq(answer(fd, "SET k v"), "+OK");
    replicas_note(node.replicas, a, head(), 0, 0, time_mono_us() - 1100000);
    ck_assert_ptr_nonnull(strstr(answer(fd, "SET k v"), "-NOREPLICAS"));
    close(fd);
    tear_down();
}
END_TEST

/* --- threads ----------------------------------------------------------------------------------------- */

static _Atomic bool stops;

/* A replica that always has everything, a moment later. */
static void replica_main(void *arg) {
    int32_t slot = attach((uint8_t)(uintptr_t)arg);
    uint64_t before = 0;
    while (!atomic_load(&stops)) {
        if (head() != before) {
            before = head();
            acknowledge(slot, before, before);
        }
        sched_yield();
    }
    replicas_leave(node.replicas, slot);
}

/* A wake-up that gets lost shows as a reply that comes with the timer only: 100 ms each. */
START_TEST(no_wake_up_is_lost) {
    enum { ROUNDS = TEST_SANITIZED ? 300 : 2000 };
    struct thread replicas[2];
    set_up();
    atomic_store(&stops, false);
    set_option("ack-timeout", "0");
    int fd = connect_client();
    thread_start(&replicas[0], "replica", replica_main, (void *)1);
    thread_start(&replicas[1], "replica", replica_main, (void *)2);
    ck_assert_str_eq(answer(fd, "CLIENT ACK replicas:2:disk"), "+OK");
    uint32_t slow = 0;
    for (int i = 0; i < ROUNDS; i++) {
        int64_t start = time_mono_us();
        ck_assert_str_eq(answer(fd, i % 2 == 0 ? "SET k v" : "DEL k"), i % 2 == 0 ? "+OK" : ":1");
        slow += time_mono_us() - start > 90000;
    }
    ck_assert_uint_le(slow,
                      ROUNDS / 5); /* a busy machine may do it; what gets lost costs most rounds */
    atomic_store(&stops, true);
    thread_join(&replicas[0]);
    thread_join(&replicas[1]);
    close(fd);
    tear_down();
}
END_TEST

CHECK_MAIN("gates", a_reply_leaves_when_enough_replicas_have_it,
           disks_of_replicas_are_hurried_and_waited_for,
           what_a_reply_shows_is_waited_for_and_stays_confirmed,
           an_acknowledgement_that_comes_too_late_makes_no_ok,
           test_h42_a_demotion_refuses_what_waits_and_no_ok_comes_later,
           a_quorum_grows_with_the_replicas_that_are_known,
           levels_of_one_connection_keep_the_order_of_replies, wait_ends_when_replicas_have_it,
           writes_need_good_replicas_if_that_is_asked_for, no_wake_up_is_lost)
