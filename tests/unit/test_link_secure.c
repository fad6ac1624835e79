/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Encrypted links over sockets, with somebody in between who sees each byte and may change it:
 *
 *   connecting link ── TCP ── wire ── socket pair ── accepting link (a thread)
 *
 * The wire answers the prologue itself.
 */
#include "replication/link.h"
#include "replication/secure.h"
#include "server/base/assert.h"
#include "server/base/buf.h"
#include "server/base/mem.h"
#include "server/base/thread.h"
#include "server/base/time.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

static const uint8_t key_a[CRYPTO_KEY_LEN] = {7, 7, 7};
static const uint8_t key_b[CRYPTO_KEY_LEN] = {7, 7, 8};

enum { TO_ACCEPTING, TO_CONNECTING, NEVER = -1 };

/* What the wire does beside passing on, at a byte of one direction. */
struct plan {
    int direction; /* NEVER = nothing */
    size_t at;
    enum { FLIP, CUT, REPEAT } what;
    size_t len; /* of what is repeated: the bytes before 'at' */
};

struct rig {
    struct plan plan;
    const uint8_t *accepting_key;
    int64_t timeout_ms;
    /* the wire */
    struct thread wire;
    int listener;
    uint16_t port;
    int outer, inner;    /* its ends to the connecting and the accepting side */
    struct buf seen[2];  /* by direction */
    struct buf prologue; /* what came before */
    /* the accepting side */
    struct thread accepting;
    int fd;
    struct link *l;
    enum dc_err err;
    char text[512];
};

static bool pass(struct rig *r, int direction, int from, int to) {
    char piece[65536];
    ssize_t n = recv(from, piece, sizeof(piece), 0);
    if (n <= 0) {
        shutdown(to, SHUT_WR);
        return false;
    }
    struct buf *seen = &r->seen[direction];
    size_t before = seen->len, len = (size_t)n;
    buf_append(seen, piece, len);
    const struct plan *p = &r->plan;
    if (p->direction != direction || p->at < before || p->at >= before + len) {
        return send(to, piece, len, MSG_NOSIGNAL) == n;
    }
    size_t at = p->at - before;
    if (p->what == FLIP) {
        piece[at] ^= 0x20;
        return send(to, piece, len, MSG_NOSIGNAL) == n;
    }
    (void)!send(to, piece, at, MSG_NOSIGNAL);
    if (p->what == CUT) {
        shutdown(to, SHUT_WR);
        return false;
    }
    (void)!send(to, seen->ptr + p->at - p->len, p->len, MSG_NOSIGNAL);
    return send(to, piece + at, len - at, MSG_NOSIGNAL) >= 0;
}

static void answer_prologue(struct rig *r) {
    static const char ends[] = "SECURE\r\n";
    while (r->prologue.len < 8 || memcmp(r->prologue.ptr + r->prologue.len - 8, ends, 8) != 0) {
        char c;
        expect(recv(r->outer, &c, 1, 0) == 1);
        buf_append(&r->prologue, &c, 1);
    }
    expect(send(r->outer, "+OK\r\n", 5, MSG_NOSIGNAL) == 5);
}

static void be_wire(void *arg) {
    struct rig *r = arg;
    r->outer = accept(r->listener, NULL, NULL);
    expect(r->outer >= 0);
    answer_prologue(r);
    struct pollfd fds[] = {{r->outer, POLLIN, 0}, {r->inner, POLLIN, 0}};
    while (fds[0].fd >= 0 || fds[1].fd >= 0) {
        expect(poll(fds, 2, 20000) > 0);
        if (fds[0].revents != 0 && !pass(r, TO_ACCEPTING, r->outer, r->inner)) {
            fds[0].fd = -1;
        }
        if (fds[1].fd >= 0 && fds[1].revents != 0 && !pass(r, TO_CONNECTING, r->inner, r->outer)) {
            fds[1].fd = -1;
        }
        fds[0].revents = fds[1].revents = 0;
    }
}

static struct link *make(const uint8_t *key, int64_t timeout_ms) {
    struct link *l;
    struct link_opts o = {.key = key, .timeout_ms = timeout_ms};
    expect(link_create(&o, &l) == DC_OK);
    return l;
}

static void be_accepting(void *arg) {
    struct rig *r = arg;
    r->err = link_accept(r->l, r->fd, BYTES(""));
    snprintf(r->text, sizeof(r->text), "%s", r->err != DC_OK ? dc_fail_take(r->err) : "");
    if (r->err != DC_OK) {
        link_shutdown(r->l);
    }
}

static void rig_start(struct rig *r) {
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(in);
    int fds[2];
    crypto_init();
    r->timeout_ms = r->timeout_ms > 0 ? r->timeout_ms : 20000;
    r->listener = socket(AF_INET, SOCK_STREAM, 0);
    expect(bind(r->listener, (struct sockaddr *)&in, sizeof(in)) == 0);
    expect(getsockname(r->listener, (struct sockaddr *)&in, &len) == 0);
    r->port = ntohs(in.sin_port);
    expect(listen(r->listener, 1) == 0);
    expect(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    r->inner = fds[0];
    r->fd = fds[1];
    r->l = make(r->accepting_key, r->timeout_ms);
    thread_start(&r->wire, "wire", be_wire, r);
    thread_start(&r->accepting, "accepting", be_accepting, r);
}

/* Connects through the wire; returns when both sides know whether they are. */
static enum dc_err rig_connect(struct rig *r, const uint8_t *key, struct link **out) {
    rig_start(r);
    *out = make(key, r->timeout_ms);
    enum dc_err err = link_connect(
        *out, &(struct link_target){.host = "127.0.0.1", .port = r->port, .password = "secret"});
    if (err != DC_OK) {
        link_shutdown(*out);
    }
    thread_join(&r->accepting);
    return err;
}

/* Both links end; what was seen can be looked at. */
static void rig_end(struct rig *r, struct link *l) {
    link_destroy(l);
    link_destroy(r->l);
    thread_join(&r->wire);
}

static void rig_clear(struct rig *r) {
    close(r->outer);
    close(r->inner);
    close(r->listener);
    buf_fini(&r->seen[0]);
    buf_fini(&r->seen[1]);
    buf_fini(&r->prologue);
}

static void rig_stop(struct rig *r, struct link *l) {
    rig_end(r, l);
    rig_clear(r);
}

static void text_says(const char *text, const char *words) {
    ck_assert_msg(strstr(text, words) != NULL, "\"%s\" doesn't say \"%s\"", text, words);
}

static void error_says(enum dc_err got, enum dc_err wanted, const char *words) {
    const char *text = dc_fail_take(got);
    ck_assert_msg(got == wanted, "%s: %s", dc_err_name(got), text);
    text_says(text, words);
}

static bool occurs(const struct buf *b, const char *what, size_t len) {
    return b->len >= len && memmem(b->ptr, b->len, what, len) != NULL;
}

/* --- what goes well ---------------------------------------------------------------------------------- */

START_TEST(nothing_can_be_read_on_the_wire) {
    static const char secret[] = "the-password-of-a-user";
    struct rig r = {.plan.direction = NEVER, .accepting_key = key_a};
    struct link *l;
    struct link_message m;
    struct wire_log log;
    char payload[5000];
    memset(payload, 'z', sizeof(payload));
    memcpy(payload + 2000, secret, sizeof(secret));
    ck_assert(rig_connect(&r, key_a, &l) == DC_OK && r.err == DC_OK);
    ck_assert(link_send_log(l, 5, bytes_of(payload, sizeof(payload))) == DC_OK);
    ck_assert(link_receive(r.l, 20000, &m) == DC_OK && m.type == WIRE_LOG);
    ck_assert(wire_log_decode(m.body, &log) && log.lsn == 5);
    ck_assert(bytes_equal(log.bytes, bytes_of(payload, sizeof(payload))));
    ck_assert(link_send_log(r.l, 6, bytes_of(payload, sizeof(payload))) == DC_OK);
    ck_assert(link_receive(l, 20000, &m) == DC_OK && m.type == WIRE_LOG);
    rig_end(&r, l);
    for (int d = 0; d < 2; d++) {
        ck_assert_uint_gt(r.seen[d].len, sizeof(payload));
        ck_assert(!occurs(&r.seen[d], secret, sizeof(secret) - 1));
        ck_assert(!occurs(&r.seen[d], "zzzzzz", 6));
        ck_assert(!occurs(&r.seen[d], (const char *)key_a, 16));
    }
    ck_assert_uint_eq(r.prologue.len,
                      strlen("*3\r\n$10\r\nREPLSTREAM\r\n$1\r\n1\r\n$6\r\nSECURE\r\n"));
    ck_assert(!occurs(&r.prologue, "secret", 6)); /* the key stands for the password */
    rig_clear(&r);
}
END_TEST

struct talk {
    struct thread thread;
    struct link *l;
    uint64_t seed;
};

enum { TALK_LEN = 6 << 20 };

static void say(void *arg) {
    struct talk *t = arg;
    struct rng sizes, bytes;
    char *room = mem_must_alloc(WIRE_BYTES_MAX);
    rng_seed(&sizes, t->seed + 1);
    rng_seed(&bytes, t->seed);
    for (uint64_t at = 0; at < TALK_LEN;) {
        uint64_t kind = rng_below(&sizes, 100);
        uint64_t max = kind < 90 ? 3000 : kind < 99 ? 300000 : WIRE_BYTES_MAX;
        uint64_t len = 1 + rng_below(&sizes, max);
        len = len < TALK_LEN - at ? len : TALK_LEN - at;
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
    for (uint64_t at = 0; at < TALK_LEN;) {
        struct link_message m;
        struct wire_log log;
        expect(link_receive(t->l, 20000, &m) == DC_OK && m.type == WIRE_LOG);
        expect(wire_log_decode(m.body, &log) && log.lsn == 1 + at);
        are_next(log.bytes, &bytes);
        at += log.bytes.len;
    }
}

START_TEST(what_is_said_is_heard_both_ways_at_once) {
    struct rig r = {.plan.direction = NEVER, .accepting_key = key_a};
    struct rng rng = test_rng();
    uint64_t seed = rng_next(&rng);
    struct link *l;
    ck_assert(rig_connect(&r, key_a, &l) == DC_OK && r.err == DC_OK);
    struct talk t[4] = {{.l = l, .seed = seed},
                        {.l = r.l, .seed = seed},
                        {.l = r.l, .seed = seed + 9},
                        {.l = l, .seed = seed + 9}};
    for (int i = 0; i < 4; i++) {
        thread_start(&t[i].thread, "talk", i % 2 == 0 ? say : hear, &t[i]);
    }
    for (int i = 0; i < 4; i++) {
        thread_join(&t[i].thread);
    }
    rig_stop(&r, l);
}
END_TEST

START_TEST(the_last_words_arrive) {
    struct rig r = {.plan.direction = NEVER, .accepting_key = key_a};
    struct link *l;
    struct link_message m;
    struct wire_bye bye;
    ck_assert(rig_connect(&r, key_a, &l) == DC_OK && r.err == DC_OK);
    link_bye(l, 3, "enough");
    ck_assert(link_receive(r.l, 20000, &m) == DC_OK && m.type == WIRE_BYE);
    ck_assert(wire_bye_decode(m.body, &bye) && bytes_equal(bye.text, BYTES("enough")));
    error_says(link_receive(r.l, 20000, &m), DC_EIO, "has closed the link");
    rig_stop(&r, l);
}
END_TEST

/* Many records arrive together: those behind the first message are known without another look at the socket. */
START_TEST(messages_that_came_together_are_all_known) {
    struct rig r = {.plan.direction = NEVER, .accepting_key = key_a};
    struct link *l;
    struct link_message m;
    ck_assert(rig_connect(&r, key_a, &l) == DC_OK && r.err == DC_OK);
    for (uint64_t i = 0; i < 50; i++) {
        ck_assert(link_send_hurry(l, i) == DC_OK);
    }
    for (uint64_t i = 0; i < 50; i++) {
        uint64_t lsn;
        ck_assert(link_receive(r.l, 20000, &m) == DC_OK && m.type == WIRE_HURRY);
        ck_assert(wire_hurry_decode(m.body, &lsn) && lsn == i);
    }
    ck_assert(!link_has_message(r.l));
    ck_assert(link_send_hurry(l, 1) == DC_OK);
    rig_stop(&r, l);
}
END_TEST

/* --- keys that differ -------------------------------------------------------------------------------- */

START_TEST(another_key_is_told_on_both_sides) {
    struct rig r = {.plan.direction = NEVER, .accepting_key = key_b};
    struct link *l;
    enum dc_err err = rig_connect(&r, key_a, &l);
    error_says(err, DC_ELINKKEY, "127.0.0.1:");
    ck_assert_int_eq(r.err, DC_ELINKKEY);
    text_says(r.text, "has another key: compare the files that replication-key-file names");
    error_says(link_send_hurry(l, 1), DC_ELINKKEY, "isn't open");
    link_bye(l, 1, "nothing of this is sent in clear");
    rig_end(&r, l);
    ck_assert_uint_eq(r.seen[TO_ACCEPTING].len, SECURE_HELLO_LEN + SECURE_PROOF_LEN);
    ck_assert_uint_eq(r.seen[TO_CONNECTING].len, SECURE_HELLO_LEN + SECURE_PROOF_LEN);
    rig_clear(&r);
}
END_TEST

/* --- somebody in between ----------------------------------------------------------------------------- */

enum { HANDSHAKE_LEN = SECURE_HELLO_LEN + SECURE_PROOF_LEN };

START_TEST(a_handshake_that_was_changed_opens_nothing) {
    for (int direction = 0; direction < 2; direction++) {
        for (size_t at = 3; at < HANDSHAKE_LEN; at += 11) {
            struct rig r = {.plan = {direction, at, FLIP, 0}, .accepting_key = key_a};
            struct link *l;
            enum dc_err err = rig_connect(&r, key_a, &l);
            ck_assert_msg(r.err != DC_OK, "direction %d, byte %zu", direction, at);
            ck_assert(r.err == DC_ELINKKEY || r.err == DC_EPROTO || r.err == DC_EIO);
            /* Who proves first can't know that his proof didn't arrive as it was. */
            bool last = direction == TO_ACCEPTING && at >= SECURE_HELLO_LEN;
            ck_assert((err == DC_OK) == last);
            (void)dc_fail_take(err);
            rig_stop(&r, l);
        }
    }
}
END_TEST

START_TEST(a_handshake_that_ends_early_ends_the_link) {
    for (int direction = 0; direction < 2; direction++) {
        for (size_t at = 0; at < HANDSHAKE_LEN; at += 17) {
            struct rig r = {
                .plan = {direction, at, CUT, 0}, .accepting_key = key_a, .timeout_ms = 300};
            struct link *l;
            enum dc_err err = rig_connect(&r, key_a, &l);
            ck_assert(r.err == DC_EIO);
            bool last = direction == TO_ACCEPTING && at >= SECURE_HELLO_LEN;
            ck_assert((err == DC_OK) == last);
            if (!last) {
                error_says(err, DC_EIO, "127.0.0.1:");
            }
            rig_stop(&r, l);
        }
    }
}
END_TEST

static void send_three(struct rig *r, struct link *l, uint32_t arrive, enum dc_err how) {
    struct link_message m;
    for (uint64_t i = 0; i < 3; i++) {
        ck_assert(link_send_hurry(l, i) == DC_OK);
    }
    for (uint64_t i = 0; i < arrive; i++) {
        ck_assert(link_receive(r->l, 20000, &m) == DC_OK);
        ck_assert(m.type == WIRE_HURRY);
    }
    error_says(link_receive(r->l, 20000, &m), how, "was changed on its way");
}

enum { HURRY_RECORD = SECURE_RECORD_HEAD_LEN + WIRE_HEAD_LEN + WIRE_HURRY_LEN + CRYPTO_SEAL_LEN };

START_TEST(a_changed_record_ends_the_link) {
    struct rig r = {.plan = {TO_ACCEPTING, HANDSHAKE_LEN + HURRY_RECORD + 9, FLIP, 0},
                    .accepting_key = key_a};
    struct link *l;
    ck_assert(rig_connect(&r, key_a, &l) == DC_OK && r.err == DC_OK);
    /* Records that come together are opened together: what is before the bad one may not be heard of. */
    struct link_message m;
    ck_assert(link_send_hurry(l, 7) == DC_OK);
    ck_assert(link_receive(r.l, 20000, &m) == DC_OK && m.type == WIRE_HURRY);
    send_three(&r, l, 0, DC_EPROTO);
    rig_stop(&r, l);
}
END_TEST

START_TEST(a_repeated_record_ends_the_link) {
    struct rig r = {.plan = {TO_ACCEPTING, HANDSHAKE_LEN + HURRY_RECORD, REPEAT, HURRY_RECORD},
                    .accepting_key = key_a};
    struct link *l;
    struct link_message m;
    ck_assert(rig_connect(&r, key_a, &l) == DC_OK && r.err == DC_OK);
    ck_assert(link_send_hurry(l, 7) == DC_OK);
    ck_assert(link_receive(r.l, 20000, &m) == DC_OK && m.type == WIRE_HURRY);
    send_three(&r, l, 0, DC_EPROTO);
    rig_stop(&r, l);
}
END_TEST

/* The other side's clear text is no handshake, and the other way round. */
START_TEST(clear_text_is_no_handshake) {
    int fds[2];
    uint8_t head[WIRE_HEAD_LEN];
    char junk[SECURE_HELLO_LEN] = {0};
    crypto_init();
    expect(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    struct link *l = make(key_a, 300);
    wire_head_encode(WIRE_BEAT, WIRE_BEAT_LEN, head);
    memcpy(junk, head, sizeof(head));
    error_says(link_accept(l, fds[0], bytes_of(junk, sizeof(junk))), DC_EPROTO,
               "no handshake of an encrypted link");
    link_destroy(l);
    close(fds[1]);
    expect(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    l = make(key_a, 300);
    error_says(link_accept(l, fds[0], BYTES("dcachekx")), DC_EIO, "sent no handshake for 300 ms");
    link_destroy(l);
    close(fds[1]);
}
END_TEST

static void stop_soon(void *arg) {
    struct timespec pause = {0, 50 * 1000000};
    nanosleep(&pause, NULL);
    link_shutdown(arg);
}

START_TEST(a_waiting_handshake_is_stopped) {
    int fds[2];
    struct thread t;
    crypto_init();
    expect(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    struct link *l = make(key_a, 20000);
    thread_start(&t, "stop", stop_soon, l);
    error_says(link_accept(l, fds[0], BYTES("")), DC_ESTOPPED, "was stopped");
    thread_join(&t);
    link_destroy(l);
    close(fds[1]);
}
END_TEST

CHECK_MAIN("link_secure", nothing_can_be_read_on_the_wire, what_is_said_is_heard_both_ways_at_once,
           the_last_words_arrive, messages_that_came_together_are_all_known,
           another_key_is_told_on_both_sides, a_handshake_that_was_changed_opens_nothing,
           a_handshake_that_ends_early_ends_the_link, a_changed_record_ends_the_link,
           a_repeated_record_ends_the_link, clear_text_is_no_handshake,
           a_waiting_handshake_is_stopped)
