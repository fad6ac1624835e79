/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/wire_fmt.h"
#include "server/base/codec.h"
#include "server/base/mem.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"

#include <string.h>

static const struct history two[] = {
    {.id = 0x11, .start = 0x100000, .epoch = 1, .parent_end = 0},
    {.id = 0x22, .start = 0x200000, .epoch = 2, .parent_end = 0x180000},
};

static struct history room[WIRE_CHAIN_MAX];

static void check_golden(const struct buf *b, const char *hex) {
    size_t len = strlen(hex) / 2;
    ck_assert_uint_eq(b->len, len);
    for (size_t i = 0; i < len; i++) {
        char digits[3];
        snprintf(digits, sizeof(digits), "%02x", (uint8_t)b->ptr[i]);
        if (memcmp(digits, hex + 2 * i, 2) != 0) {
            ck_abort_msg("byte %zu is %s, not %.2s", i, digits, hex + 2 * i);
        }
    }
}

static void fill(uint8_t *to, size_t len, uint8_t with) {
    memset(to, with, len);
}

static struct wire_hello a_hello(void) {
    struct wire_hello m = {.protocol = 1,
                           .purpose = WIRE_PULL,
                           .role = WIRE_FENCED,
                           .flags = WIRE_FORCE,
                           .epoch = 2,
                           .head = 0x212345,
                           .hash = 0x1122334455667788,
                           .port = 6379,
                           .address = BYTES("::1"),
                           .chain = two,
                           .chain_count = 2};
    fill(m.peer_id, sizeof(m.peer_id), 0xaa);
    fill(m.data_id, sizeof(m.data_id), 0xbb);
    return m;
}

static struct wire_answer an_answer(void) {
    struct wire_answer m = {.protocol = 1,
                            .verdict = WIRE_REWIND,
                            .role = WIRE_PRIMARY,
                            .flags = WIRE_EMPTY | WIRE_LINKED,
                            .epoch = 3,
                            .lsn = 0x180000,
                            .head = 0x300000,
                            .text = BYTES("fork"),
                            .chain = two,
                            .chain_count = 2};
    fill(m.peer_id, sizeof(m.peer_id), 0xcc);
    fill(m.data_id, sizeof(m.data_id), 0xdd);
    return m;
}

static struct wire_copy a_copy(void) {
    struct wire_copy m = {.length = 0x10203,
                          .start_lsn = 0x200100,
                          .end_lsn = 0x200200,
                          .name = BYTES("snap-x.dcs"),
                          .chain = two,
                          .chain_count = 1};
    fill(m.data_id, sizeof(m.data_id), 0xee);
    fill(m.seed, sizeof(m.seed), 0x5e);
    return m;
}

static void chain_is(const struct history *got, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        ck_assert_uint_eq(got[i].id, two[i].id);
        ck_assert_uint_eq(got[i].start, two[i].start);
        ck_assert_uint_eq(got[i].epoch, two[i].epoch);
        ck_assert_uint_eq(got[i].parent_end, two[i].parent_end);
    }
}

#define CHAIN_1        \
    "1100000000000000" \
    "0000100000000000" \
    "0100000000000000" \
    "0000000000000000"
#define CHAIN_2                \
    CHAIN_1 "2200000000000000" \
            "0000200000000000" \
            "0200000000000000" \
            "0000180000000000"
#define TWICE(x) x x
#define ID(x)    TWICE(TWICE(TWICE(TWICE(x))))

START_TEST(hello_has_its_bytes_and_comes_back) {
    struct wire_hello m = a_hello(), got;
    struct buf b;
    buf_init(&b, 0);
    wire_hello_encode(&m, &b);
    check_golden(&b, "0100"
                     "02"
                     "03"
                     "01000000" ID("aa") ID("bb") "0200000000000000"
                                                  "4523210000000000"
                                                  "8877665544332211"
                                                  "eb18"
                                                  "0300"
                                                  "02000000"
                                                  "0000000000000000"
                                                  "3a3a31" CHAIN_2);
    ck_assert(wire_hello_decode(buf_bytes(&b), room, &got));
    ck_assert_uint_eq(got.protocol, 1);
    ck_assert_int_eq(got.purpose, WIRE_PULL);
    ck_assert_int_eq(got.role, WIRE_FENCED);
    ck_assert_uint_eq(got.flags, WIRE_FORCE);
    ck_assert_mem_eq(got.peer_id, m.peer_id, PEER_ID_LEN);
    ck_assert_mem_eq(got.data_id, m.data_id, NODE_ID_LEN);
    ck_assert_uint_eq(got.epoch, 2);
    ck_assert_uint_eq(got.head, 0x212345);
    ck_assert_uint_eq(got.hash, m.hash);
    ck_assert_uint_eq(got.port, 6379);
    ck_assert(bytes_equal(got.address, m.address));
    ck_assert_uint_eq(got.chain_count, 2);
    chain_is(got.chain, 2);
    b.ptr[WIRE_HELLO_LEN] = '\n'; /* INFO has lines */
    ck_assert(!wire_hello_decode(buf_bytes(&b), room, &got));
    b.ptr[WIRE_HELLO_LEN] = ':';
    b.ptr[47] = 1; /* an epoch that leaves none above it */
    ck_assert(!wire_hello_decode(buf_bytes(&b), room, &got));
    buf_fini(&b);
}
END_TEST

START_TEST(answer_has_its_bytes_and_comes_back) {
    struct wire_answer m = an_answer(), got;
    struct buf b;
    buf_init(&b, 0);
    wire_answer_encode(&m, &b);
    check_golden(&b, "0100"
                     "02"
                     "01"
                     "18000000" ID("cc") ID("dd") "0300000000000000"
                                                  "0000180000000000"
                                                  "0000300000000000"
                                                  "0400"
                                                  "0000"
                                                  "02000000"
                                                  "666f726b" CHAIN_2);
    ck_assert(wire_answer_decode(buf_bytes(&b), room, &got));
    ck_assert_uint_eq(got.protocol, 1);
    ck_assert_int_eq(got.verdict, WIRE_REWIND);
    ck_assert_uint_eq(got.flags, WIRE_EMPTY | WIRE_LINKED);
    ck_assert_int_eq(got.role, WIRE_PRIMARY);
    ck_assert_mem_eq(got.peer_id, m.peer_id, PEER_ID_LEN);
    ck_assert_mem_eq(got.data_id, m.data_id, NODE_ID_LEN);
    ck_assert_uint_eq(got.epoch, 3);
    ck_assert_uint_eq(got.lsn, 0x180000);
    ck_assert_uint_eq(got.head, 0x300000);
    ck_assert(bytes_equal(got.text, m.text));
    chain_is(got.chain, 2);
    buf_fini(&b);
}
END_TEST

START_TEST(copy_has_its_bytes_and_comes_back) {
    struct wire_copy m = a_copy(), got;
    struct buf b;
    buf_init(&b, 0);
    wire_copy_encode(&m, &b);
    check_golden(&b, "0302010000000000"
                     "0001200000000000"
                     "0002200000000000" ID("ee") ID("5e") "0a00"
                                                          "0000"
                                                          "01000000"
                                                          "0000000000000000"
                                                          "736e61702d782e646373" CHAIN_1);
    ck_assert(wire_copy_decode(buf_bytes(&b), room, &got));
    ck_assert_uint_eq(got.length, 0x10203);
    ck_assert_uint_eq(got.start_lsn, 0x200100);
    ck_assert_uint_eq(got.end_lsn, 0x200200);
    ck_assert_mem_eq(got.data_id, m.data_id, NODE_ID_LEN);
    ck_assert_mem_eq(got.seed, m.seed, SEED_LEN);
    ck_assert(bytes_equal(got.name, m.name));
    ck_assert_uint_eq(got.chain_count, 1);
    chain_is(got.chain, 1);
    buf_fini(&b);
}
END_TEST

static struct buf fixed(const uint8_t *ptr, size_t len) {
    struct buf b;
    buf_init(&b, 0);
    buf_append(&b, ptr, len);
    return b;
}

START_TEST(the_short_ones_have_their_bytes_and_come_back) {
    uint8_t ack[WIRE_ACK_LEN], beat[WIRE_BEAT_LEN], hurry[WIRE_HURRY_LEN], ask[WIRE_ASK_LEN];
    uint8_t promote[WIRE_PROMOTE_LEN], end[WIRE_COPY_END_LEN];
    struct wire_ack a;
    struct wire_beat be;
    struct wire_promote p;
    struct wire_copy_end e;
    uint64_t lsn, ms;

    wire_ack_encode(&(struct wire_ack){0x30, 0x10, 0x20}, ack);
    struct buf b = fixed(ack, sizeof(ack));
    check_golden(&b, "3000000000000000"
                     "1000000000000000"
                     "2000000000000000");
    ck_assert(wire_ack_decode(buf_bytes(&b), &a));
    ck_assert(a.received == 0x30 && a.durable == 0x10 && a.applied == 0x20);
    buf_fini(&b);

    wire_beat_encode(&(struct wire_beat){0x30, 0x10, 0x2345, 0x2244, 0x101}, beat);
    b = fixed(beat, sizeof(beat));
    check_golden(&b, "3000000000000000"
                     "1000000000000000"
                     "4523000000000000"
                     "4422000000000000"
                     "0101000000000000");
    ck_assert(wire_beat_decode(buf_bytes(&b), &be));
    ck_assert(be.head == 0x30 && be.durable == 0x10 && be.clock_ms == 0x2345);
    ck_assert(be.shown_ms == 0x2244 && be.age_ms == 0x101);
    for (size_t last = 23; last < WIRE_BEAT_LEN; last += 8) {
        char was = b.ptr[last];
        b.ptr[last] = (char)0xff; /* before 1970, or at the end of time */
        ck_assert(!wire_beat_decode(buf_bytes(&b), &be));
        b.ptr[last] = was;
    }
    put_u64(b.ptr + 32, WIRE_AGE_UNKNOWN);
    ck_assert(wire_beat_decode(buf_bytes(&b), &be) && be.age_ms == WIRE_AGE_UNKNOWN);
    buf_fini(&b);

    wire_hurry_encode(0x1234, hurry);
    b = fixed(hurry, sizeof(hurry));
    check_golden(&b, "3412000000000000");
    ck_assert(wire_hurry_decode(buf_bytes(&b), &lsn) && lsn == 0x1234);
    buf_fini(&b);

    wire_ask_encode(2000, ask);
    b = fixed(ask, sizeof(ask));
    check_golden(&b, "d007000000000000");
    ck_assert(wire_ask_decode(buf_bytes(&b), &ms) && ms == 2000);
    b.ptr[7] = 1;
    ck_assert(!wire_ask_decode(buf_bytes(&b), &ms));
    buf_fini(&b);

    wire_promote_encode(&(struct wire_promote){0x1234, 7}, promote);
    b = fixed(promote, sizeof(promote));
    check_golden(&b, "3412000000000000"
                     "0700000000000000");
    ck_assert(wire_promote_decode(buf_bytes(&b), &p) && p.lsn == 0x1234 && p.epoch == 7);
    b.ptr[15] = 1; /* an epoch that leaves none above it */
    ck_assert(!wire_promote_decode(buf_bytes(&b), &p));
    buf_fini(&b);

    wire_copy_end_encode(&(struct wire_copy_end){0x1234, 0x55}, end);
    b = fixed(end, sizeof(end));
    check_golden(&b, "3412000000000000"
                     "5500000000000000");
    ck_assert(wire_copy_end_decode(buf_bytes(&b), &e) && e.length == 0x1234 && e.sum == 0x55);
    buf_fini(&b);
}
END_TEST

START_TEST(bytes_of_log_and_copy_follow_their_place) {
    uint8_t log[WIRE_LOG_LEN], data[WIRE_COPY_DATA_LEN];
    struct wire_log l;
    struct wire_copy_data d;

    wire_log_encode(0x100042, log);
    struct buf b = fixed(log, sizeof(log));
    ck_assert(!wire_log_decode(buf_bytes(&b), &l)); /* no bytes */
    buf_append_str(&b, "xyz");
    check_golden(&b, "4200100000000000"
                     "78797a");
    ck_assert(wire_log_decode(buf_bytes(&b), &l));
    ck_assert(l.lsn == 0x100042 && bytes_equal(l.bytes, BYTES("xyz")));
    buf_fini(&b);

    wire_copy_data_encode(0x42, data);
    b = fixed(data, sizeof(data));
    ck_assert(!wire_copy_data_decode(buf_bytes(&b), &d));
    buf_append_str(&b, "xyz");
    ck_assert(wire_copy_data_decode(buf_bytes(&b), &d));
    ck_assert(d.offset == 0x42 && bytes_equal(d.bytes, BYTES("xyz")));
    buf_fini(&b);
}
END_TEST

START_TEST(bye_cuts_a_long_text) {
    static char text[WIRE_TEXT_MAX + 1];
    struct wire_bye got;
    struct buf b;
    buf_init(&b, 0);
    wire_bye_encode(&(struct wire_bye){5, BYTES("so")}, &b);
    check_golden(&b, "0500000000000000"
                     "736f");
    ck_assert(wire_bye_decode(buf_bytes(&b), &got));
    ck_assert(got.epoch == 5 && bytes_equal(got.text, BYTES("so")));
    buf_reset(&b, 0);
    memset(text, 'x', sizeof(text));
    wire_bye_encode(&(struct wire_bye){5, bytes_of(text, sizeof(text))}, &b);
    ck_assert_uint_eq(b.len, WIRE_BYE_LEN + WIRE_TEXT_MAX);
    ck_assert(wire_bye_decode(buf_bytes(&b), &got));
    buf_append_str(&b, "x");
    ck_assert(!wire_bye_decode(buf_bytes(&b), &got));
    buf_fini(&b);
}
END_TEST

START_TEST(peers_have_their_bytes_and_come_back) {
    static struct wire_peer got[PEERS_MAX];
    struct wire_peer list[2] = {{.id = {1}, .port = 7, .address = BYTES("a.b")},
                                {.id = {2}, .address = BYTES("::1")}};
    uint32_t count = 9;
    struct buf b;
    buf_init(&b, 0);
    wire_peers_encode(list, 2, &b);
    check_golden(&b, "0200000000000000"
                     "01000000000000000000000000000000"
                     "07000300612e62"
                     "02000000000000000000000000000000"
                     "000003003a3a31");
    ck_assert(wire_peers_decode(buf_bytes(&b), got, &count));
    ck_assert(count == 2 && got[0].port == 7 && got[1].id[0] == 2);
    ck_assert(bytes_equal(got[0].address, BYTES("a.b")) &&
              bytes_equal(got[1].address, BYTES("::1")));
    for (size_t len = 0; len < b.len; len++) {
        ck_assert(!wire_peers_decode(bytes_of(b.ptr, len), got, &count));
    }
    b.ptr[0] = 1; /* something behind the last */
    ck_assert(!wire_peers_decode(buf_bytes(&b), got, &count));
    b.ptr[0] = PEERS_MAX + 1;
    ck_assert(!wire_peers_decode(buf_bytes(&b), got, &count));
    buf_reset(&b, 0);
    wire_peers_encode(NULL, 0, &b);
    ck_assert(wire_peers_decode(buf_bytes(&b), got, &count) && count == 0);
    buf_fini(&b);
}
END_TEST

/* --- bounds ------------------------------------------------------------------------------------------ */

START_TEST(the_head_knows_the_bounds_of_each_type) {
    static const struct {
        enum wire_type type;
        size_t fixed, more;
    } table[] = {
#define WIRE_MSG(type, number, fixed, more, by, what) {WIRE_##type, (fixed), (more)},
#include "replication/wire.def"
#undef WIRE_MSG
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        size_t min = table[i].fixed, max = table[i].fixed + table[i].more;
        const size_t lengths[] = {min - 1, min, max, max + 1};
        for (size_t j = 0; j < sizeof(lengths) / sizeof(lengths[0]); j++) {
            uint8_t head[WIRE_HEAD_LEN], again[WIRE_HEAD_LEN];
            enum wire_type type = WIRE_NONE;
            size_t len = lengths[j], got = 0;
            put_u32(head, (uint32_t)len + 1);
            head[4] = (uint8_t)table[i].type;
            bool fits = len >= min && len <= max;
            ck_assert(wire_head_decode(head, &type, &got) == fits);
            if (fits) {
                ck_assert(type == table[i].type && got == len);
                wire_head_encode(type, len, again);
                ck_assert_mem_eq(again, head, WIRE_HEAD_LEN);
            }
        }
        ck_assert_str_ne(wire_type_name(table[i].type), "?");
    }
    ck_assert_str_eq(wire_type_name(WIRE_LOG), "LOG");
}
END_TEST

START_TEST(there_are_no_other_types) {
    for (uint32_t number = 0; number < 256; number++) {
        uint8_t head[WIRE_HEAD_LEN];
        enum wire_type type;
        size_t len;
        bool known = number >= WIRE_HELLO && number <= WIRE_ASK;
        bool any = false;
        for (uint32_t body = 0; body < 200; body++) {
            put_u32(head, body + 1);
            head[4] = (uint8_t)number;
            any = any || wire_head_decode(head, &type, &len);
        }
        ck_assert(any == known);
        put_u32(head, 0);
        ck_assert(!wire_head_decode(head, &type, &len));
        put_u32(head, UINT32_MAX);
        ck_assert(!wire_head_decode(head, &type, &len));
    }
}
END_TEST

/* The first 'len' bytes are all there is. */
static bool decodes(int which, const struct buf *b, size_t len) {
    struct wire_hello hello;
    struct wire_answer answer;
    struct wire_copy copy;
    char *exact = mem_must_alloc(len + 1); /* a sanitizer watches the end */
    memcpy(exact + 1, b->ptr, len);
    struct bytes body = bytes_of(exact + 1, len);
    bool ok = which == 0   ? wire_hello_decode(body, room, &hello)
              : which == 1 ? wire_answer_decode(body, room, &answer)
                           : wire_copy_decode(body, room, &copy);
    mem_free(exact);
    return ok;
}

/* Any other length than its own isn't the message (I1). */
START_TEST(no_message_is_shorter_or_longer_than_it_says) {
    struct wire_hello hello = a_hello();
    struct wire_answer answer = an_answer();
    struct wire_copy copy = a_copy();
    struct buf b[3];
    for (int i = 0; i < 3; i++) {
        buf_init(&b[i], 0);
    }
    wire_hello_encode(&hello, &b[0]);
    wire_answer_encode(&answer, &b[1]);
    wire_copy_encode(&copy, &b[2]);
    for (int i = 0; i < 3; i++) {
        size_t whole = b[i].len;
        buf_append_str(&b[i], "0123456789abcdef0123456789abcdef0123456789");
        for (size_t len = 0; len <= b[i].len; len++) {
            ck_assert(decodes(i, &b[i], len) == (len == whole));
        }
        buf_fini(&b[i]);
    }
}
END_TEST

START_TEST(the_longest_chain_fits_and_no_longer_one) {
    static struct history chain[WIRE_CHAIN_MAX];
    struct wire_hello m = a_hello(), got;
    struct buf b;
    for (uint32_t i = 0; i < WIRE_CHAIN_MAX; i++) {
        chain[i] = (struct history){i + 1, 1000 + i, i, 0};
    }
    m.chain = chain;
    m.chain_count = WIRE_CHAIN_MAX;
    buf_init(&b, 0);
    wire_hello_encode(&m, &b);
    ck_assert(wire_hello_decode(buf_bytes(&b), room, &got));
    ck_assert_uint_eq(got.chain_count, WIRE_CHAIN_MAX);
    ck_assert_uint_eq(got.chain[WIRE_CHAIN_MAX - 1].id, WIRE_CHAIN_MAX);
    enum wire_type type;
    size_t len;
    uint8_t head[WIRE_HEAD_LEN];
    wire_head_encode(WIRE_HELLO, b.len, head);
    ck_assert(wire_head_decode(head, &type, &len) && len == b.len);
    put_u32(b.ptr + 68, WIRE_CHAIN_MAX + 1);
    char one_more[WIRE_HISTORY_LEN];
    memcpy(one_more, b.ptr + b.len - WIRE_HISTORY_LEN, sizeof(one_more));
    put_u64(one_more + 8, 900000);
    buf_append(&b, one_more, sizeof(one_more));
    ck_assert(!wire_hello_decode(buf_bytes(&b), room, &got));
    buf_fini(&b);
}
END_TEST

/* Changes one byte of a HELLO without address and chain. */
static bool hello_with(size_t at, uint8_t value) {
    struct wire_hello m = a_hello(), got;
    struct buf b;
    m.address = BYTES("");
    m.chain_count = 0;
    buf_init(&b, 0);
    wire_hello_encode(&m, &b);
    b.ptr[at] = (char)value;
    bool ok = wire_hello_decode(buf_bytes(&b), room, &got);
    buf_fini(&b);
    return ok;
}

START_TEST(values_that_nobody_sends_are_refused) {
    ck_assert(hello_with(2, WIRE_FOLLOW) && hello_with(3, WIRE_PULLING) && hello_with(4, 0));
    ck_assert(!hello_with(2, 0) && !hello_with(2, 4) && !hello_with(2, 255));
    ck_assert(!hello_with(3, 0) && !hello_with(3, 5));
    ck_assert(!hello_with(4, 32) && !hello_with(7, 128)); /* flags */
    ck_assert(!hello_with(55, 1));                        /* the head is above LSN_MAX */
    ck_assert(!hello_with(66, 1) && !hello_with(68, 1));  /* lengths */
    for (size_t at = 72; at < WIRE_HELLO_LEN; at++) {
        ck_assert(!hello_with(at, 1)); /* reserved */
    }
    struct wire_ack a;
    char ack[WIRE_ACK_LEN] = {0};
    ck_assert(wire_ack_decode(bytes_of(ack, sizeof(ack)), &a));
    ack[8] = 1;
    ck_assert(!wire_ack_decode(bytes_of(ack, sizeof(ack)), &a)); /* durable, and not received */
    ack[8] = 0;
    ack[16] = 1;
    ck_assert(!wire_ack_decode(bytes_of(ack, sizeof(ack)), &a));
    struct wire_log l;
    char log[WIRE_LOG_LEN + 2] = {0};
    ck_assert(!wire_log_decode(bytes_of(log, sizeof(log)), &l)); /* LSN 0 */
    put_u64(log, LSN_MAX);
    ck_assert(!wire_log_decode(bytes_of(log, sizeof(log)), &l)); /* ends above LSN_MAX */
    put_u64(log, LSN_MAX - 2);
    ck_assert(wire_log_decode(bytes_of(log, sizeof(log)), &l));
}
END_TEST

START_TEST(a_chain_that_cannot_be_is_refused) {
    static const struct history bad[][2] = {
        {{0, 10, 1, 0}, {2, 20, 2, 15}}, /* no id */
        {{1, 0, 1, 0}, {2, 20, 2, 15}},  /* no start */
        {{1, 10, 1, 0}, {2, 10, 2, 10}}, /* doesn't rise */
        {{1, 10, 1, 0}, {2, 20, 2, 21}}, /* the parent goes on behind the fork */
        {{1, 10, 1, 0}, {2, LSN_MAX + 1, 2, 15}},
    };
    struct wire_hello m = a_hello(), got;
    struct buf b;
    buf_init(&b, 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        buf_reset(&b, 4096);
        m.chain = bad[i];
        wire_hello_encode(&m, &b);
        ck_assert(!wire_hello_decode(buf_bytes(&b), room, &got));
    }
    buf_fini(&b);
}
END_TEST

START_TEST(a_mark_that_has_overtaken_is_told_as_the_end) {
    uint8_t f[WIRE_ACK_LEN];
    struct wire_ack a;
    wire_ack_encode(&(struct wire_ack){100, 101, 102}, f);
    ck_assert(wire_ack_decode(bytes_of((char *)f, sizeof(f)), &a));
    ck_assert(a.received == 100 && a.durable == 100 && a.applied == 100);
}
END_TEST

CHECK_MAIN("wire_fmt", hello_has_its_bytes_and_comes_back, answer_has_its_bytes_and_comes_back,
           copy_has_its_bytes_and_comes_back, the_short_ones_have_their_bytes_and_come_back,
           bytes_of_log_and_copy_follow_their_place, bye_cuts_a_long_text,
           peers_have_their_bytes_and_come_back, the_head_knows_the_bounds_of_each_type,
           there_are_no_other_types, no_message_is_shorter_or_longer_than_it_says,
           the_longest_chain_fits_and_no_longer_one, values_that_nobody_sends_are_refused,
           a_chain_that_cannot_be_is_refused, a_mark_that_has_overtaken_is_told_as_the_end)
