/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/proto/dump.h"

#include "server/base/limits.h"
#include "tests/support/check_main.h"

#include <string.h>

/* A payload around the encoded string, with a footer that fits. */
struct payload {
    char *ptr; /* of exactly its length, so that AddressSanitizer sees a read past the end */
    size_t len;
};

static struct payload payload_of(struct bytes body) {
    struct payload p = {malloc(body.len + DUMP_FOOTER_LEN), body.len + DUMP_FOOTER_LEN};
    memcpy(p.ptr, body.ptr, body.len);
    dump_encode_footer(p.ptr + body.len, body, BYTES(""));
    return p;
}

static struct bytes view(const struct payload *p) {
    return bytes_of(p->ptr, p->len);
}

/* Decodes and unpacks; the content (or the digits) is compared with 'want', NULL = it must be refused as bad data. */
static void check_body(struct bytes body, const char *want) {
    struct payload p = payload_of(body);
    struct dump_string s;
    ck_assert_int_eq(dump_verify(view(&p)), DC_OK);
    enum dc_err err = dump_decode(view(&p), &s);
    char *content = NULL;
    if (err == DC_OK && s.form == DUMP_LZF) {
        content = malloc(s.len + 1);
        err = dump_unpack(&s, content);
    } else if (err == DC_OK && s.form == DUMP_PLAIN) {
        content = malloc(s.len + 1);
        memcpy(content, s.bytes.ptr, s.len);
    }
    if (want == NULL) {
        ck_assert_int_eq(err, DC_EBADDATA);
    } else if (s.form == DUMP_INT) {
        char digits[32];
        snprintf(digits, sizeof(digits), "%" PRId64, s.num);
        ck_assert_str_eq(digits, want);
    } else {
        ck_assert_int_eq(err, DC_OK);
        content[s.len] = '\0';
        ck_assert_str_eq(content, want);
    }
    free(content);
    free(p.ptr);
}

#define CHECK_BODY(body, want) check_body(BYTES(body), want)
#define CHECK_BROKEN(body)     check_body(BYTES(body), NULL)

/* --- payloads that redis-server 7.0.15 wrote --- */

#define HUNDRED_AND_FOUR                                                                           \
    "abababababababababababababababababababababababababababababababababababababababababababababab" \
    "abababab"                                                                                     \
    "tail"

/* What BYTES() is, for an initializer. */
#define LITERAL(text) \
    { "" text, sizeof(text) - 1 }

static const struct {
    struct bytes payload;
    const char *content;
    enum dump_form form;
} from_redis[] = {
    {LITERAL("\x00\xc0\x00\n\x00\x98@\xa7x\xf8P\x03\x08"), "0", DUMP_INT},
    {LITERAL("\x00\xc0\xff\n\x00\x0c\x93~$\x85\x08\x9d\xc5"), "-1", DUMP_INT},
    {LITERAL("\x00\xc0\x7f\n\x00\r\xb5\xeb\x31RT\xc5\x14"), "127", DUMP_INT},
    {LITERAL("\x00\xc1\x80\x00\n\x00\xebz\xb3\xb5\x10\xcfKe"), "128", DUMP_INT},
    {LITERAL("\x00\xc2\xff\x7f\xff\xff\n\x00\xae\xe3LM\x06\xc6\x85\x36"), "-32769", DUMP_INT},
    {LITERAL("\x00\xc2\xff\xff\xff\x7f\n\x00,t\xe5\x9e\xe0.\xad\xa1"), "2147483647", DUMP_INT},
    {LITERAL("\x00\n2147483648\n\x00\xe7\xb1)\xa3L\x1dv\xee"), "2147483648", DUMP_PLAIN},
    {LITERAL("\x00\x05hello\n\x00\x63r\xdfve4 \n"), "hello", DUMP_PLAIN},
    {LITERAL("\x00\x00\n\x00]\x9b\\@\x0f\x7f\xa2\xda"), "", DUMP_PLAIN},
    {LITERAL("\x00\xc3\t@@\x01xx\xe0\x33\x00\x01xx\n\x00vq\xd5v\xc5yTB"),
     "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", DUMP_LZF},
    {LITERAL("\x00\xc3\x0c@h\x02\x61\x62\x61\xe0X\x01\x03tail\n\x00\x33\x17\x9a\x1f\x33\xabwZ"),
     HUNDRED_AND_FOUR, DUMP_LZF},
};

START_TEST(what_redis_dumps_is_read) {
    for (size_t i = 0; i < sizeof(from_redis) / sizeof(from_redis[0]); i++) {
        struct bytes payload = from_redis[i].payload;
        struct dump_string s;
        ck_assert_int_eq(dump_verify(payload), DC_OK);
        ck_assert_int_eq(dump_decode(payload, &s), DC_OK);
        ck_assert_int_eq(s.form, from_redis[i].form);
        check_body(bytes_of(payload.ptr, payload.len - DUMP_FOOTER_LEN), from_redis[i].content);
    }
}
END_TEST

START_TEST(what_is_written_is_what_redis_writes) {
    for (size_t i = 0; i < sizeof(from_redis) / sizeof(from_redis[0]); i++) {
        char out[256];
        size_t len = strlen(from_redis[i].content);
        size_t content_len = 0;
        size_t head = 0;
        if (from_redis[i].form == DUMP_INT) {
            head = dump_encode_int(out, strtoll(from_redis[i].content, NULL, 10));
        } else if (from_redis[i].form == DUMP_PLAIN) {
            head = dump_encode_head(out, len);
            memcpy(out + head, from_redis[i].content, len);
            content_len = len;
        } else {
            continue;
        }
        size_t end = head + content_len;
        dump_encode_footer(out + end, bytes_of(out, head), bytes_of(out + head, content_len));
        ck_assert(bytes_equal(bytes_of(out, end + DUMP_FOOTER_LEN), from_redis[i].payload));
    }
}
END_TEST

/* --- round trips --- */

START_TEST(integers_take_the_width_they_need) {
    static const struct {
        int64_t num;
        size_t len;
    } rows[] = {{0, 3},         {-128, 3},       {127, 3},       {128, 4},      {-129, 4},
                {32767, 4},     {-32768, 4},     {32768, 6},     {-32769, 6},   {INT32_MAX, 6},
                {INT32_MIN, 6}, {2147483648, 0}, {INT64_MIN, 0}, {INT64_MAX, 0}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char head[DUMP_HEAD_MAX];
        char digits[32];
        size_t len = dump_encode_int(head, rows[i].num);
        ck_assert_uint_eq(len, rows[i].len);
        snprintf(digits, sizeof(digits), "%" PRId64, rows[i].num);
        if (len > 0) {
            check_body(bytes_of(head, len), digits);
        }
    }
}
END_TEST

START_TEST(lengths_survive_at_the_bounds_of_their_forms) {
    static const size_t lens[] = {0, 1, 63, 64, 65, 16383, 16384, 16385, 65536, 1000000};
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        size_t len = lens[i];
        char *body = malloc(DUMP_HEAD_MAX + len);
        size_t head = dump_encode_head(body, len);
        ck_assert_uint_eq(head, len < 64 ? 2 : len < 16384 ? 3 : 6);
        memset(body + head, 'x', len);
        struct payload p = payload_of(bytes_of(body, head + len));
        struct dump_string s;
        ck_assert_int_eq(dump_verify(view(&p)), DC_OK);
        ck_assert_int_eq(dump_decode(view(&p), &s), DC_OK);
        ck_assert_int_eq(s.form, DUMP_PLAIN);
        ck_assert(bytes_equal(s.bytes, bytes_of(body + head, len)));
        free(p.ptr);
        free(body);
    }
    char head[DUMP_HEAD_MAX];
    ck_assert_uint_eq(dump_encode_head(head, (size_t)UINT32_MAX), 6);
    ck_assert_uint_eq(dump_encode_head(head, (size_t)UINT32_MAX + 1), DUMP_HEAD_MAX);
}
END_TEST

START_TEST(a_footer_of_two_pieces_is_that_of_the_whole) {
    char whole[DUMP_FOOTER_LEN], pieces[DUMP_FOOTER_LEN];
    dump_encode_footer(whole, BYTES("\x00\x05hello"), BYTES(""));
    dump_encode_footer(pieces, BYTES("\x00\x05"), BYTES("hello"));
    ck_assert_mem_eq(whole, pieces, sizeof(whole));
}
END_TEST

/* --- hostile bytes --- */

START_TEST(any_flipped_bit_and_any_cut_is_noticed) {
    struct payload p = payload_of(BYTES("\x00\x05hello"));
    for (size_t bit = 0; bit < p.len * 8; bit++) {
        p.ptr[bit / 8] = (char)(p.ptr[bit / 8] ^ 1 << bit % 8);
        ck_assert_int_eq(dump_verify(view(&p)), DC_EBADPAYLOAD);
        p.ptr[bit / 8] = (char)(p.ptr[bit / 8] ^ 1 << bit % 8);
    }
    for (size_t len = 0; len < p.len; len++) {
        ck_assert_int_eq(dump_verify(bytes_of(p.ptr, len)), DC_EBADPAYLOAD);
    }
    ck_assert_int_eq(dump_verify(view(&p)), DC_OK);
    free(p.ptr);
}
END_TEST

START_TEST(versions_up_to_ours_are_read) {
    /* version 9, 10 and 11 with checksums that fit */
    ck_assert_int_eq(dump_verify(BYTES("\x00\x05hello\x09\x00\xb3\x80\x8e\xba\x31\xb2\x43\xbb")),
                     DC_OK);
    ck_assert_int_eq(dump_verify(BYTES("\x00\x05hello\n\x00\x63r\xdfve4 \n")), DC_OK);
    ck_assert_int_eq(dump_verify(BYTES("\x00\x05hello\x0b\x00\x0a\xad\x62\x05\x98\xab\xc9\x83")),
                     DC_EBADPAYLOAD);
}
END_TEST

START_TEST(a_payload_without_a_string_is_bad_data) {
    CHECK_BROKEN("\x01\x05hello"); /* a list */
    CHECK_BROKEN("\x63\x05hello"); /* nothing known */
    CHECK_BROKEN("\x00\xc4hello"); /* no such form */
    CHECK_BROKEN("\x00\xffhello");
    CHECK_BROKEN("\x00\x82hello"); /* no such length */
    CHECK_BROKEN("\x00\xbfhello");
}
END_TEST

START_TEST(a_string_may_run_into_the_footer_and_not_beyond) {
    struct payload p = payload_of(BYTES("\x00\x0a"));
    struct dump_string s;
    ck_assert_int_eq(dump_decode(view(&p), &s), DC_OK);
    ck_assert_uint_eq(s.len, DUMP_FOOTER_LEN);
    free(p.ptr);
    CHECK_BROKEN("\x00\x0b");
    CHECK_BROKEN("\x00\x80\x00\x00\x00\x11hello");
    CHECK_BROKEN("\x00\x80\xff\xff\xff\xff");
    CHECK_BROKEN("\x00\x81\xff\xff\xff\xff\xff\xff\xff\xff");
    CHECK_BROKEN("\x00\x81\x7f\xff\xff\xff\xff\xff\xff\xff");
    CHECK_BODY("\x00\x03"
               "abcdef",
               "abc"); /* what stands behind doesn't matter */
    CHECK_BODY("\x00\x81\x00\x00\x00\x00\x00\x00\x00\x02"
               "ab",
               "ab");
}
END_TEST

START_TEST(lzf_is_unpacked) {
    CHECK_BODY("\x00\xc3\x04\x03\x02"
               "abc",
               "abc");
    CHECK_BODY("\x00\xc3\x06\x08\x02"
               "abc\x60\x02",
               "abcabcab"); /* five bytes from three before */
    CHECK_BODY("\x00\xc3\x05\x0b\x00"
               "a\xe0\x01\x00",
               "aaaaaaaaaaa");
    CHECK_BODY("\x00\xc3\xc4\x03\x02"
               "abc",
               "abc"); /* Redis takes 0xc4 for a length of 4 here */
    CHECK_BODY("\x00\xc3\x00\x00", "");
    CHECK_BODY("\x00\xc3\x01\x00\x05", ""); /* broken, but so is nothing: Redis takes it */
}
END_TEST

START_TEST(broken_lzf_is_bad_data) {
    CHECK_BROKEN("\x00\xc3\x04\x04\x02"
                 "abc"); /* too short */
    CHECK_BROKEN("\x00\xc3\x04\x02\x02"
                 "abc"); /* too long */
    CHECK_BROKEN("\x00\xc3\x03\x03\x02"
                 "ab"); /* a literal cut off */
    CHECK_BROKEN("\x00\xc3\x05\x08\x02"
                 "abc\x60"); /* a reference cut off */
    CHECK_BROKEN("\x00\xc3\x05\x20\x02"
                 "abc\xe0"); /* the same, a long one */
    CHECK_BROKEN("\x00\xc3\x06\x20\x02"
                 "abc\xe0\x10"); /* the same */
    CHECK_BROKEN("\x00\xc3\x06\x08\x02"
                 "abc\x60\x03");              /* from before the start */
    CHECK_BROKEN("\x00\xc3\x02\x03\x20\x00"); /* from nothing */
    CHECK_BROKEN("\x00\xc3\x06\x07\x02"
                 "abc\x60\x02"); /* a reference too long */
    CHECK_BROKEN("\x00\xc3\x1f\x03\x02"
                 "abc"); /* packed bytes past the end */
    CHECK_BROKEN("\x00\xc3\x04\x81\x00\x00\x00\x7f\xff\xff\xff\xff\x02"
                 "abc");
}
END_TEST

START_TEST(no_length_that_lzf_cannot_reach_is_believed) {
    struct payload p = payload_of(BYTES("\x00\xc3\x03\x80\x00\x00\x01\x08"
                                        "abc"));
    struct dump_string s;
    ck_assert_int_eq(dump_decode(view(&p), &s), DC_OK);
    free(p.ptr);
    p = payload_of(BYTES("\x00\xc3\x03\x80\x00\x00\x01\x60"
                         "abc"));
    ck_assert_int_eq(dump_decode(view(&p), &s), DC_EBADDATA);
    free(p.ptr);
}
END_TEST

CHECK_MAIN("dump", what_redis_dumps_is_read, what_is_written_is_what_redis_writes,
           integers_take_the_width_they_need, lengths_survive_at_the_bounds_of_their_forms,
           a_footer_of_two_pieces_is_that_of_the_whole, any_flipped_bit_and_any_cut_is_noticed,
           versions_up_to_ours_are_read, a_payload_without_a_string_is_bad_data,
           a_string_may_run_into_the_footer_and_not_beyond, lzf_is_unpacked, broken_lzf_is_bad_data,
           no_length_that_lzf_cannot_reach_is_believed)
