/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/link.h"
#include "replication/link_priv.h"
#include "server/base/codec.h"
#include "server/base/mem.h"
#include "server/base/rng.h"
#include "server/base/thread.h"
#include "server/base/time.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>

enum { SHORT_MS = 200, PATIENT_MS = 20000 };

static struct link *make(int64_t timeout_ms) {
    struct link *l;
    struct link_opts o = {.timeout_ms = timeout_ms};
    expect(link_create(&o, &l) == DC_OK);
    return l;
}

/* Two ends without a prologue. */
static void make_pair(struct link **a, struct link **b, int64_t timeout_ms) {
    int fds[2];
    expect(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    *a = make(timeout_ms);
    *b = make(timeout_ms);
    expect(link_accept(*a, fds[0], BYTES("")) == DC_OK);
    expect(link_accept(*b, fds[1], BYTES("")) == DC_OK);
}

static struct link_message receive(struct link *l, enum wire_type type) {
    struct link_message m;
    enum dc_err err = link_receive(l, PATIENT_MS, &m);
    if (err != DC_OK) {
        ck_abort_msg("%s", dc_fail_take(err));
    }
    ck_assert_str_eq(wire_type_name(m.type), wire_type_name(type));
    return m;
}

static void error_says(enum dc_err got, enum dc_err wanted, const char *words) {
    const char *text = dc_fail_take(got);
    ck_assert_msg(got == wanted, "%s: %s", dc_err_name(got), text);
    ck_assert_msg(strstr(text, words) != NULL, "\"%s\" doesn't say \"%s\"", text, words);
}

static void send_raw(int fd, const void *ptr, size_t len) {
    expect(send(fd, ptr, len, MSG_NOSIGNAL) == (ssize_t)len);
}

static void receive_raw(int fd, char *to, size_t len) {
    for (size_t at = 0; at < len;) {
        ssize_t n = recv(fd, to + at, len - at, 0);
        expect(n > 0);
        at += (size_t)n;
    }
}

/* --- messages ---------------------------------------------------------------------------------------- */

START_TEST(messages_go_both_ways) {
    struct link *a, *b;
    struct wire_ack ack;
    struct wire_beat beat;
    struct wire_log log;
    struct wire_copy_data data;
    uint64_t lsn;
    make_pair(&a, &b, 0);
    ck_assert(link_send_log(a, 0x1000, BYTES("some log")) == DC_OK);
    ck_assert(link_send_beat(a, &(struct wire_beat){.head = 9, .durable = 8, .clock_ms = 7}) ==
              DC_OK);
    ck_assert(link_send_hurry(a, 0x1008) == DC_OK);
    ck_assert(link_send_copy_data(a, 5, BYTES("piece")) == DC_OK);
    ck_assert(link_send_ack(b, &(struct wire_ack){3, 2, 1}) == DC_OK);
    ck_assert(wire_log_decode(receive(b, WIRE_LOG).body, &log));
    ck_assert(log.lsn == 0x1000 && bytes_equal(log.bytes, BYTES("some log")));
    ck_assert(link_has_message(b));
    ck_assert(wire_beat_decode(receive(b, WIRE_BEAT).body, &beat) && beat.clock_ms == 7);
    ck_assert(wire_hurry_decode(receive(b, WIRE_HURRY).body, &lsn) && lsn == 0x1008);
    ck_assert(wire_copy_data_decode(receive(b, WIRE_COPY_DATA).body, &data) && data.offset == 5);
    ck_assert(!link_has_message(b));
    ck_assert(wire_ack_decode(receive(a, WIRE_ACK).body, &ack) && ack.received == 3);
    link_destroy(a);
    link_destroy(b);
}
END_TEST

START_TEST(many_messages_arrive_in_one_call) {
    struct link *a, *b;
    struct link_stats stats;
    make_pair(&a, &b, 0);
    for (uint64_t i = 0; i < 100; i++) {
        ck_assert(link_send_hurry(a, i) == DC_OK);
    }
    for (uint64_t i = 0; i < 100; i++) {
        uint64_t lsn;
        expect(wire_hurry_decode(receive(b, WIRE_HURRY).body, &lsn) && lsn == i);
    }
    link_stats(b, &stats);
    ck_assert_uint_eq(stats.receives, 1);
    ck_assert_uint_eq(stats.received_bytes, 100 * (WIRE_HEAD_LEN + WIRE_HURRY_LEN));
    link_destroy(a);
    link_destroy(b);
}
END_TEST

struct drain {
    struct thread thread;
    struct link *l;
    uint64_t messages;
    _Atomic enum dc_err err;
};

static void drain_messages(void *arg) {
    struct drain *d = arg;
    struct link_message m;
    enum dc_err err;
    while ((err = link_receive(d->l, -1, &m)) == DC_OK && m.type != WIRE_BYE) {
        d->messages++;
    }
    (void)dc_fail_take(err);
    d->err = err;
}

START_TEST(a_quarter_of_a_megabyte_is_one_call) {
    enum { LEN = 256 * 1024, TIMES = 64 };
    struct link *a, *b;
    struct link_stats stats;
    struct drain d = {0};
    char *payload = mem_must_zalloc(LEN);
    make_pair(&a, &b, 0);
    d.l = b;
    thread_start(&d.thread, "drain", drain_messages, &d);
    for (uint64_t i = 0; i < TIMES; i++) {
        ck_assert(link_send_log(a, 1 + i * LEN, bytes_of(payload, LEN)) == DC_OK);
    }
    link_stats(a, &stats);
    ck_assert_uint_eq(stats.sends, TIMES);
    ck_assert_uint_eq(stats.sent_bytes, (uint64_t)TIMES * (WIRE_HEAD_LEN + WIRE_LOG_LEN + LEN));
    link_bye(a, 0, "enough");
    thread_join(&d.thread);
    ck_assert_uint_eq(d.messages, TIMES);
    ck_assert_uint_le(b->in.b.cap, 2 * LEN);
    link_destroy(a);
    link_destroy(b);
    mem_free(payload);
}
END_TEST

/* Until the socket has taken only a part of a message. */
START_TEST(what_does_not_wait_leaves_a_rest) {
    enum { LEN = 30000, TIMES_MAX = 10000 };
    struct link *a, *b;
    struct drain d = {0};
    struct buf rest;
    uint64_t sent = 0;
    char *payload = mem_must_zalloc(LEN);
    make_pair(&a, &b, 0);
    buf_init(&rest, 0);
    while (rest.len == 0 && sent < TIMES_MAX &&
           link_try_log(a, 1 + sent * LEN, bytes_of(payload, LEN), &rest)) {
        sent++;
    }
    ck_assert_uint_gt(sent, 0);
    ck_assert_uint_lt(sent, TIMES_MAX);
    ck_assert_uint_lt(rest.len, LEN);
    d.l = b;
    thread_start(&d.thread, "drain", drain_messages, &d);
    ck_assert(link_send_rest(a, &rest) == DC_OK);
    ck_assert_uint_eq(rest.len, 0);
    ck_assert(link_send_rest(a, &rest) == DC_OK);
    ck_assert(link_send_log(a, 1 + sent * LEN, bytes_of(payload, LEN)) == DC_OK);
    link_bye(a, 0, "enough");
    thread_join(&d.thread);
    ck_assert_uint_eq(d.messages, sent + 1);
    link_shutdown(b);
    ck_assert(!link_try_log(b, 1, bytes_of(payload, LEN), &rest));
    buf_fini(&rest);
    link_destroy(a);
    link_destroy(b);
    mem_free(payload);
}
END_TEST

/* Messages of random lengths, each a piece of a stream of bytes that the receiver knows. */
struct talk {
    struct thread thread;
    struct link *l;
    uint64_t seed;
    uint64_t total;
};

static void say(void *arg) {
    struct talk *t = arg;
    struct rng sizes, bytes;
    char *room = mem_must_alloc(WIRE_BYTES_MAX);
    rng_seed(&sizes, t->seed + 1);
    rng_seed(&bytes, t->seed);
    for (uint64_t at = 0; at < t->total;) {
        uint64_t kind = rng_below(&sizes, 100);
        uint64_t max = kind < 90 ? 2000 : kind < 99 ? 300000 : WIRE_BYTES_MAX;
        uint64_t len = 1 + rng_below(&sizes, max);
        len = len < t->total - at ? len : t->total - at;
        for (uint64_t i = 0; i < len; i++) {
            room[i] = (char)rng_next(&bytes);
        }
        expect(link_send_log(t->l, 1 + at, bytes_of(room, len)) == DC_OK);
        at += len;
    }
    mem_free(room);
}

static void are_next(struct bytes got, struct rng *r) {
    for (size_t i = 0; i < got.len; i++) {
        expect(got.ptr[i] == (char)rng_next(r));
    }
}

static void hear(void *arg) {
    struct talk *t = arg;
    struct rng bytes;
    rng_seed(&bytes, t->seed);
    for (uint64_t at = 0; at < t->total;) {
        struct link_message m;
        struct wire_log log;
        expect(link_receive(t->l, PATIENT_MS, &m) == DC_OK && m.type == WIRE_LOG);
        expect(wire_log_decode(m.body, &log) && log.lsn == 1 + at);
        are_next(log.bytes, &bytes);
        at += log.bytes.len;
    }
}

START_TEST(what_is_said_is_heard_both_ways_at_once) {
    struct link *a, *b;
    struct rng r = test_rng();
    uint64_t seed = rng_next(&r);
    make_pair(&a, &b, PATIENT_MS);
    struct talk t[4] = {{.l = a, .seed = seed, .total = 8 << 20},
                        {.l = b, .seed = seed, .total = 8 << 20},
                        {.l = b, .seed = seed + 9, .total = 8 << 20},
                        {.l = a, .seed = seed + 9, .total = 8 << 20}};
    for (int i = 0; i < 4; i++) {
        thread_start(&t[i].thread, "talk", i % 2 == 0 ? say : hear, &t[i]);
    }
    for (int i = 0; i < 4; i++) {
        thread_join(&t[i].thread);
    }
    link_destroy(a);
    link_destroy(b);
}
END_TEST

/* --- what goes wrong --------------------------------------------------------------------------------- */

/* An end of a link and the bare socket at the other. */
static struct link *make_half(int *other, struct bytes early) {
    int fds[2];
    struct link *l = make(SHORT_MS);
    expect(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    *other = fds[1];
    expect(link_accept(l, fds[0], early) == DC_OK);
    return l;
}

START_TEST(an_announced_length_holds_no_memory) {
    int fd;
    struct link *l = make_half(&fd, BYTES(""));
    struct link_message m;
    uint8_t head[WIRE_HEAD_LEN];
    wire_head_encode(WIRE_LOG, WIRE_LOG_LEN + WIRE_BYTES_MAX, head);
    send_raw(fd, head, sizeof(head));
    send_raw(fd, "some", 4);
    ck_assert(link_receive(l, 30, &m) == DC_OK);
    ck_assert_int_eq(m.type, WIRE_NONE);
    ck_assert_uint_le(l->in.b.cap, 64 * 1024);
    close(fd);
    error_says(link_receive(l, 30, &m), DC_EIO, "has closed the link");
    link_destroy(l);
}
END_TEST

START_TEST(what_is_no_message_ends_the_link) {
    static const char *const bad[] = {"GET / HTTP/1.1\r\n\r\n", "\xff\xff\xff\xff\x03",
                                      "\0\0\0\0\x04",
                                      "\x02\0\0\0\x04"
                                      "xxxxx",
                                      "\x19\0\0\0\x63"
                                      "xxxxxxxx"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int fd;
        struct link_message m;
        struct link *l = make_half(&fd, BYTES(""));
        send_raw(fd, bad[i], 5 + strlen(bad[i] + 5));
        error_says(link_receive(l, PATIENT_MS, &m), DC_EPROTO, "no message of a link");
        link_destroy(l);
        close(fd);
    }
}
END_TEST

START_TEST(what_was_read_before_counts) {
    int fd;
    uint8_t one[WIRE_HEAD_LEN + WIRE_HURRY_LEN];
    struct link_message m;
    uint64_t lsn;
    wire_head_encode(WIRE_HURRY, WIRE_HURRY_LEN, one);
    wire_hurry_encode(77, one + WIRE_HEAD_LEN);
    struct link *l = make_half(&fd, bytes_of((char *)one, 8));
    ck_assert(!link_has_message(l));
    send_raw(fd, one + 8, sizeof(one) - 8);
    ck_assert(wire_hurry_decode(receive(l, WIRE_HURRY).body, &lsn) && lsn == 77);
    ck_assert(link_receive(l, 0, &m) == DC_OK && m.type == WIRE_NONE);
    link_destroy(l);
    close(fd);
}
END_TEST

START_TEST(a_byte_at_a_time_is_a_message_too) {
    int fd;
    uint8_t one[WIRE_HEAD_LEN + WIRE_HURRY_LEN];
    struct link_message m;
    struct link *l = make_half(&fd, BYTES(""));
    wire_head_encode(WIRE_HURRY, WIRE_HURRY_LEN, one);
    wire_hurry_encode(77, one + WIRE_HEAD_LEN);
    for (size_t i = 0; i < sizeof(one); i++) {
        ck_assert(link_receive(l, 0, &m) == DC_OK && m.type == WIRE_NONE);
        send_raw(fd, one + i, 1);
    }
    receive(l, WIRE_HURRY);
    link_destroy(l);
    close(fd);
}
END_TEST

START_TEST(a_peer_that_takes_nothing_ends_the_link) {
    int fd;
    char payload[32 * 1024] = {0};
    struct link *l = make_half(&fd, BYTES(""));
    enum dc_err err = DC_OK;
    int64_t begun = time_mono_us();
    for (uint64_t i = 0; i < 1000 && err == DC_OK; i++) {
        err = link_send_log(l, 1 + i, bytes_of(payload, sizeof(payload)));
    }
    error_says(err, DC_EIO, "took nothing for 200 ms");
    ck_assert_int_lt(time_mono_us() - begun, 10 * 1000000);
    err = link_send_hurry(l, 1); /* not in the middle of the other (I3) */
    error_says(err, DC_EIO, "sending to");
    link_destroy(l);
    close(fd);
}
END_TEST

START_TEST(silence_is_no_error_and_is_seen) {
    int fd;
    struct link_message m;
    struct link *l = make_half(&fd, BYTES(""));
    int64_t heard = link_heard_us(l);
    ck_assert(link_receive(l, 30, &m) == DC_OK && m.type == WIRE_NONE);
    ck_assert_int_eq(link_heard_us(l), heard);
    ck_assert_int_ge(time_mono_us() - heard, 29000);
    send_raw(fd, "x", 1);
    ck_assert(link_receive(l, 30, &m) == DC_OK && m.type == WIRE_NONE);
    ck_assert_int_gt(link_heard_us(l), heard);
    link_destroy(l);
    close(fd);
}
END_TEST

/* --- stopped by another thread ----------------------------------------------------------------------- */

static void stop_soon(void *arg) {
    struct timespec pause = {0, 50 * 1000000};
    nanosleep(&pause, NULL);
    link_shutdown(arg);
}

START_TEST(a_waiting_receiver_is_stopped) {
    struct link *a, *b;
    struct link_message m;
    struct thread t;
    make_pair(&a, &b, PATIENT_MS);
    thread_start(&t, "stop", stop_soon, a);
    error_says(link_receive(a, -1, &m), DC_ESTOPPED, "was stopped");
    thread_join(&t);
    error_says(link_receive(a, -1, &m), DC_ESTOPPED, "was stopped");
    error_says(link_send_hurry(a, 1), DC_ESTOPPED, "was stopped");
    error_says(link_receive(b, -1, &m), DC_EIO, "has closed the link");
    link_destroy(a);
    link_destroy(b);
}
END_TEST

START_TEST(a_waiting_sender_is_stopped) {
    struct link *a, *b;
    struct thread t;
    char payload[32 * 1024] = {0};
    enum dc_err err = DC_OK;
    make_pair(&a, &b, PATIENT_MS);
    thread_start(&t, "stop", stop_soon, a);
    while (err == DC_OK) {
        err = link_send_log(a, 1, bytes_of(payload, sizeof(payload)));
    }
    thread_join(&t);
    error_says(err, DC_ESTOPPED, "was stopped");
    link_destroy(a);
    link_destroy(b);
}
END_TEST

/* --- a peer to connect to ---------------------------------------------------------------------------- */

/* Expects some bytes, answers others, then is a link, or isn't. */
struct host {
    struct thread thread;
    int listener;
    uint16_t port;
    const char *expects;
    const char *answers;
    bool links;
    struct link *l;
    int fd;
};

static void listen_at(struct host *h, int family, int backlog) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    bool v6 = family == AF_INET6;
    struct sockaddr *sa = v6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in;
    socklen_t len = v6 ? sizeof(in6) : sizeof(in);
    h->listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    expect(h->listener >= 0);
    expect(bind(h->listener, sa, len) == 0);
    expect(getsockname(h->listener, sa, &len) == 0);
    h->port = ntohs(v6 ? in6.sin6_port : in.sin_port);
    expect(listen(h->listener, backlog) == 0);
}

static void be_host(void *arg) {
    struct host *h = arg;
    char got[512];
    h->fd = accept(h->listener, NULL, NULL);
    expect(h->fd >= 0);
    size_t len = strlen(h->expects);
    receive_raw(h->fd, got, len);
    expect(memcmp(got, h->expects, len) == 0);
    send_raw(h->fd, h->answers, strlen(h->answers));
    if (h->links) {
        h->l = make(0);
        expect(link_accept(h->l, h->fd, BYTES("")) == DC_OK);
    }
}

static void host_start(struct host *h) {
    listen_at(h, AF_INET, 8);
    thread_start(&h->thread, "host", be_host, h);
}

static void host_stop(struct host *h) {
    link_destroy(h->l);
    if (!h->links) {
        close(h->fd);
    }
    close(h->listener);
}

#define REPLSTREAM "*2\r\n$10\r\nREPLSTREAM\r\n$1\r\n1\r\n"

START_TEST(a_link_is_opened_over_tcp) {
    struct host h = {.expects = REPLSTREAM, .answers = "+OK\r\n", .links = true};
    struct link *l = make(0);
    struct wire_log log;
    int on = 0;
    socklen_t len = sizeof(on);
    host_start(&h);
    ck_assert(link_connect(l, &(struct link_target){.host = "127.0.0.1", .port = h.port}) == DC_OK);
    thread_join(&h.thread);
    ck_assert(strncmp(link_peer(l), "127.0.0.1:", 10) == 0);
    ck_assert(strncmp(link_peer(h.l), "127.0.0.1:", 10) == 0);
    ck_assert(fcntl(link_fd(l), F_GETFD) & FD_CLOEXEC);
    ck_assert(fcntl(link_fd(h.l), F_GETFD) & FD_CLOEXEC);
    ck_assert(getsockopt(link_fd(h.l), IPPROTO_TCP, TCP_NODELAY, &on, &len) == 0 && on != 0);
    ck_assert(getsockopt(link_fd(l), IPPROTO_TCP, TCP_NODELAY, &on, &len) == 0 && on != 0);
    ck_assert(link_send_log(h.l, 5, BYTES("hello")) == DC_OK);
    ck_assert(wire_log_decode(receive(l, WIRE_LOG).body, &log));
    ck_assert(bytes_equal(log.bytes, BYTES("hello")));
    link_destroy(l);
    host_stop(&h);
}
END_TEST

START_TEST(the_password_goes_first_and_what_follows_the_answer_counts) {
    struct host h = {.expects = "*3\r\n$4\r\nAUTH\r\n$4\r\njohn\r\n$6\r\nsecret\r\n",
                     .answers = "+OK\r\n+OK\r\n\x09"};
    struct link *l = make(SHORT_MS);
    struct link_message m;
    host_start(&h);
    struct link_target t = {
        .host = "localhost", .port = h.port, .user = "john", .password = "secret"};
    ck_assert(link_connect(l, &t) == DC_OK);
    thread_join(&h.thread);
    send_raw(h.fd,
             "\0\0\0\x09"
             "LLLLLLLL",
             12);
    ck_assert(wire_hurry_decode(receive(l, WIRE_HURRY).body, &(uint64_t){0}) == false);
    ck_assert(link_receive(l, 0, &m) == DC_OK);
    link_destroy(l);
    host_stop(&h);
}
END_TEST

START_TEST(a_refusal_is_told_with_its_text) {
    static const struct {
        const char *password, *answer;
        enum dc_err err;
        const char *text;
    } cases[] = {
        {NULL, "-NOAUTH Authentication required.\r\n", DC_ENOAUTH,
         "REPLSTREAM: NOAUTH Authentication required."},
        {"x", "-WRONGPASS invalid\r\n", DC_EWRONGPASS, "AUTH: WRONGPASS invalid"},
        {"x", "+OK\r\n-LOADING wait\r\n", DC_EGENERIC, "REPLSTREAM: LOADING wait"},
        {NULL, "-ERR unknown command\r\n", DC_EGENERIC, "REPLSTREAM: ERR unknown command"},
        {NULL, "HTTP/1.1 400 Bad Request\r\n", DC_EPROTO, "doesn't speak Redis's protocol"},
        {NULL, "+OK", DC_EIO, "sent no answer for 200 ms"},
        {NULL, "", DC_EIO, "sent no answer for 200 ms"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct host h = {.expects = cases[i].password == NULL ? REPLSTREAM : "*2\r\n$4\r\nAUTH\r\n",
                         .answers = cases[i].answer};
        struct link *l = make(SHORT_MS);
        host_start(&h);
        struct link_target t = {.host = "127.0.0.1", .port = h.port, .password = cases[i].password};
        enum dc_err err = link_connect(l, &t);
        error_says(err, cases[i].err, cases[i].text);
        thread_join(&h.thread);
        link_destroy(l);
        host_stop(&h);
    }
}
END_TEST

START_TEST(an_endless_line_is_no_answer) {
    static char answer[LINK_LINE_MAX + 1];
    memset(answer, '+', LINK_LINE_MAX);
    struct host h = {.expects = REPLSTREAM, .answers = answer};
    struct link *l = make(SHORT_MS);
    host_start(&h);
    error_says(link_connect(l, &(struct link_target){.host = "127.0.0.1", .port = h.port}),
               DC_EPROTO, "doesn't speak Redis's protocol");
    thread_join(&h.thread);
    link_destroy(l);
    host_stop(&h);
}
END_TEST

START_TEST(nobody_there_is_told) {
    struct host h = {0};
    struct link *l = make(SHORT_MS);
    char name[100] = {0};
    listen_at(&h, AF_INET, 1);
    close(h.listener);
    error_says(link_connect(l, &(struct link_target){.host = "127.0.0.1", .port = h.port}), DC_EIO,
               "Connection refused");
    link_destroy(l);
    l = make(SHORT_MS);
    memset(name, 'x', sizeof(name) - 1); /* no resolver takes this to the network */
    error_says(link_connect(l, &(struct link_target){.host = name, .port = h.port}), DC_EIO,
               "looking up xxx");
    link_destroy(l);
}
END_TEST

START_TEST(version_six_works) {
    struct host h = {.expects = REPLSTREAM, .answers = "+OK\r\n", .links = true};
    int probe = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    bool has = probe >= 0 && bind(probe, (struct sockaddr *)&in6, sizeof(in6)) == 0;
    if (probe >= 0) {
        close(probe);
    }
    if (!has) {
        return; /* this machine hasn't */
    }
    struct link *l = make(0);
    listen_at(&h, AF_INET6, 8);
    thread_start(&h.thread, "host", be_host, &h);
    ck_assert(link_connect(l, &(struct link_target){.host = "::1", .port = h.port}) == DC_OK);
    thread_join(&h.thread);
    ck_assert(strncmp(link_peer(l), "[::1]:", 6) == 0);
    ck_assert(strncmp(link_peer(h.l), "[::1]:", 6) == 0);
    link_destroy(l);
    host_stop(&h);
}
END_TEST

/* A listener whose queue is full answers no SYN. */
static void fill_queue(const struct host *h, int *fds, int count) {
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons(h->port)};
    for (int i = 0; i < count; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        int rc = connect(fds[i], (struct sockaddr *)&in, sizeof(in));
        expect(rc == 0 || rc == -1);
    }
}

START_TEST(connecting_has_a_timeout_and_can_be_stopped) {
    enum { FILLERS = 4 };
    struct host h = {0};
    struct thread t;
    int fds[FILLERS];
    listen_at(&h, AF_INET, 0);
    fill_queue(&h, fds, FILLERS);
    struct link_target target = {.host = "127.0.0.1", .port = h.port};
    struct link *l = make(SHORT_MS);
    error_says(link_connect(l, &target), DC_EIO, "Connection timed out");
    link_destroy(l);
    l = make(PATIENT_MS);
    int64_t begun = time_mono_us();
    thread_start(&t, "stop", stop_soon, l);
    error_says(link_connect(l, &target), DC_ESTOPPED, "was stopped");
    ck_assert_int_lt(time_mono_us() - begun, 10 * 1000000);
    thread_join(&t);
    link_destroy(l);
    for (int i = 0; i < FILLERS; i++) {
        close(fds[i]);
    }
    close(h.listener);
}
END_TEST

START_TEST(a_link_that_waits_for_the_prologue_is_stopped) {
    struct host h = {.expects = REPLSTREAM, .answers = ""};
    struct thread t;
    struct link *l = make(PATIENT_MS);
    host_start(&h);
    thread_start(&t, "stop", stop_soon, l);
    error_says(link_connect(l, &(struct link_target){.host = "127.0.0.1", .port = h.port}),
               DC_ESTOPPED, "was stopped");
    thread_join(&t);
    thread_join(&h.thread);
    link_destroy(l);
    host_stop(&h);
}
END_TEST

/* Closing a socket with unread input resets it, which may overtake what was sent. */
static void say_goodbye(void *arg) {
    link_bye(arg, 4, "the node ends");
}

START_TEST(the_last_words_arrive) {
    struct host h = {.expects = REPLSTREAM, .answers = "+OK\r\n", .links = true};
    struct link *l = make(0);
    struct link_message m;
    struct wire_bye bye;
    struct thread t;
    host_start(&h);
    ck_assert(link_connect(l, &(struct link_target){.host = "127.0.0.1", .port = h.port}) == DC_OK);
    thread_join(&h.thread);
    ck_assert(link_send_hurry(l, 1) == DC_OK); /* never read */
    thread_start(&t, "bye", say_goodbye, h.l);
    m = receive(l, WIRE_BYE);
    ck_assert(wire_bye_decode(m.body, &bye) && bye.epoch == 4);
    ck_assert(bytes_equal(bye.text, BYTES("the node ends")));
    error_says(link_receive(l, PATIENT_MS, &m), DC_EIO, "has closed the link");
    link_destroy(l);
    thread_join(&t);
    host_stop(&h);
}
END_TEST

CHECK_MAIN("link", messages_go_both_ways, many_messages_arrive_in_one_call,
           a_quarter_of_a_megabyte_is_one_call, what_does_not_wait_leaves_a_rest,
           what_is_said_is_heard_both_ways_at_once, an_announced_length_holds_no_memory,
           what_is_no_message_ends_the_link, what_was_read_before_counts,
           a_byte_at_a_time_is_a_message_too, a_peer_that_takes_nothing_ends_the_link,
           silence_is_no_error_and_is_seen, a_waiting_receiver_is_stopped,
           a_waiting_sender_is_stopped, a_link_is_opened_over_tcp,
           the_password_goes_first_and_what_follows_the_answer_counts,
           a_refusal_is_told_with_its_text, an_endless_line_is_no_answer, nobody_there_is_told,
           version_six_works, connecting_has_a_timeout_and_can_be_stopped,
           a_link_that_waits_for_the_prologue_is_stopped, the_last_words_arrive)
