/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/proto/resp.h"

#include "server/base/buf.h"
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "server/proto/reply.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_LEN = 64 * 1024 };

static const struct resp_parser between_requests;
static struct arena arena;
static struct resp_context ctx;
static struct resp_parser parser;

static void setup(void) {
    arena_init(&arena, ARENA_LEN);
    ctx = (struct resp_context){&arena, VALUE_LEN_MAX, true};
    resp_parser_init(&parser);
}

static void teardown(void) {
    resp_parser_fini(&parser);
    arena_fini(&arena);
}

static void describe(struct buf *out, const struct request *req) {
    for (uint32_t i = 0; i < req->argc; i++) {
        buf_append_str(out, i > 0 ? " <" : "<");
        buf_append_bytes(out, req->argv[i]);
        buf_append_str(out, ">");
    }
    buf_append_str(out, ";");
}

/* Parses once, in memory of its own and of exactly the size of 'input', so that a reader past the end or one that keeps
 * pointers is caught by AddressSanitizer. Returns the bytes consumed. */
static size_t parse_copy(struct bytes input, struct buf *out) {
    char *copy = malloc(input.len);
    memcpy(copy, input.ptr, input.len);
    struct request req = {.len = 0};
    enum resp_outcome outcome = resp_parse(&parser, copy, input.len, &ctx, &req);
    if (outcome == RESP_BAD) {
        resp_reply_error(&parser, &(struct reply){.out = out, .proto = REPLY_RESP2});
    } else if (outcome != RESP_MORE) {
        describe(out, &req);
        ck_assert_mem_eq(&parser, &between_requests, sizeof(parser)); /* I1 */
    }
    free(copy);
    return outcome == RESP_MORE ? 0 : req.len;
}

/* Appends "<arg> <arg>;" for each request, ";" for an empty one, the error that ends the stream, or "..." where a
 * request is torn. */
static void parse_in_pieces(struct bytes input, size_t piece, struct buf *out) {
    size_t start = 0;
    for (size_t have = 0; have < input.len && parser.error == NULL;) {
        have = piece < input.len - have ? have + piece : input.len;
        size_t consumed = 1;
        while (start < have && consumed > 0) {
            consumed = parse_copy(bytes_of(input.ptr + start, have - start), out);
            start += consumed;
        }
    }
    if (start < input.len && parser.error == NULL) {
        buf_append_str(out, "...");
    }
    resp_parser_fini(&parser);
}

/* Checks it in one piece, byte by byte and by threes (I4). */
static void expect(struct bytes input, const char *wanted) {
    const size_t pieces[] = {input.len, 1, 3};
    for (size_t i = 0; i < sizeof(pieces) / sizeof(*pieces); i++) {
        struct buf out;
        buf_init(&out, 0);
        parse_in_pieces(input, pieces[i], &out);
        buf_append(&out, "", 1);
        ck_assert_str_eq(out.ptr, wanted);
        buf_fini(&out);
        arena_reset(&arena);
    }
}

/* As expect(), in pieces that keep the test of a long line quick. */
static void expect_long(struct bytes input, const char *wanted) {
    const size_t pieces[] = {input.len, READ_CHUNK_LEN, 9973};
    for (size_t i = 0; i < sizeof(pieces) / sizeof(*pieces); i++) {
        struct buf out;
        buf_init(&out, 0);
        parse_in_pieces(input, pieces[i], &out);
        buf_append(&out, "", 1);
        ck_assert_str_eq(out.ptr, wanted);
        buf_fini(&out);
    }
}

struct sample {
    struct bytes input;
    const char *wanted;
};

static void expect_all(const struct sample *samples, size_t count) {
    for (size_t i = 0; i < count; i++) {
        expect(samples[i].input, samples[i].wanted);
    }
}

#define EXPECT_ALL(samples) expect_all(samples, sizeof(samples) / sizeof(*(samples)))
#define BAD(text)           "-ERR Protocol error: " text "\r\n"

START_TEST(multibulk_requests_are_read) {
    const struct sample samples[] = {
        {BYTES("*1\r\n$4\r\nPING\r\n"), "<PING>;"},
        {BYTES("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n0123456789\r\n"), "<SET> <k> <0123456789>;"},
        {BYTES("*2\r\n$0\r\n\r\n$0\r\n\r\n"), "<> <>;"},
        {BYTES("*1\r\n$5\r\n\r\n\r\n*\r\n"), "<\r\n\r\n*>;"},
        {BYTES("*1\r\n$1\r\na\r\n*1\r\n$1\r\nb\r\n*1\r\n$1\r\nc"), "<a>;<b>;..."},
        {BYTES("*1\r\n$1\r\na\r\nPING\r\n*1\r\n$1\r\nb\r\n"), "<a>;<PING>;<b>;"},
        {BYTES("*10\r\n$1\r\n0\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n"
               "$1\r\n5\r\n$1\r\n6\r\n$1\r\n7\r\n$1\r\n8\r\n$1\r\n9\r\n"),
         "<0> <1> <2> <3> <4> <5> <6> <7> <8> <9>;"},
    };
    EXPECT_ALL(samples);
}
END_TEST

START_TEST(what_stands_for_line_feeds_is_not_looked_at) {
    const struct sample samples[] = {
        {BYTES("*1\rX$4\r\nPINGxy\nPING\r\n"), "<PING>;;<PING>;"},
        {BYTES("*1\n$4\nPING\n"), "..."},
    };
    EXPECT_ALL(samples);
}
END_TEST

START_TEST(empty_requests_take_their_bytes) {
    const struct sample samples[] = {
        {BYTES("*0\r\nPING\r\n"), ";<PING>;"},
        {BYTES("*-1\r\nPING\r\n"), ";<PING>;"},
        {BYTES("*-5\r\n"), ";"},
        {BYTES("\r\n\n \r\nPING\n"), ";;;<PING>;"},
        {BYTES("\rPING\r\n"), "<PING>;"},
    };
    EXPECT_ALL(samples);
}
END_TEST

START_TEST(lengths_are_canonical_decimals) {
    const struct sample samples[] = {
        {BYTES("*\r\n"), BAD("invalid multibulk length")},
        {BYTES("*01\r\n"), BAD("invalid multibulk length")},
        {BYTES("*+1\r\n"), BAD("invalid multibulk length")},
        {BYTES("*-0\r\n"), BAD("invalid multibulk length")},
        {BYTES("*-\r\n"), BAD("invalid multibulk length")},
        {BYTES("* 1\r\n"), BAD("invalid multibulk length")},
        {BYTES("*1 \r\n"), BAD("invalid multibulk length")},
        {BYTES("*x\r\n"), BAD("invalid multibulk length")},
        {BYTES("*2147483648\r\n"), BAD("invalid multibulk length")},
        {BYTES("*99999999999999999999\r\n"), BAD("invalid multibulk length")},
        {BYTES("*1\r\n$\r\n"), BAD("invalid bulk length")},
        {BYTES("*1\r\n$04\r\nPING\r\n"), BAD("invalid bulk length")},
        {BYTES("*1\r\n$+4\r\nPING\r\n"), BAD("invalid bulk length")},
        {BYTES("*1\r\n$4x\r\nPING\r\n"), BAD("invalid bulk length")},
        {BYTES("*1\r\n$1234x\r\nPING\r\n"), BAD("invalid bulk length")},
        {BYTES("*1\r\n$0004\r\nPING\r\n"), BAD("invalid bulk length")},
        {BYTES("*1\r\n$-1\r\n"), BAD("invalid bulk length")},
        {BYTES("*1\r\n$4294967300\r\nPING\r\n"), BAD("invalid bulk length")},
        {BYTES("*1\r\n$18446744073709551620\r\nPING\r\n"), BAD("invalid bulk length")},
    };
    EXPECT_ALL(samples);
}
END_TEST

START_TEST(an_argument_begins_with_a_dollar) {
    const struct sample samples[] = {
        {BYTES("*1\r\nx4\r\n"), BAD("expected '$', got 'x'")},
        {BYTES("*2\r\n*1\r\n"), BAD("expected '$', got '*'")},
        {BYTES("*1\r\n\r\n"), BAD("expected '$', got ' '")},
        {BYTES("*1\r\n\n\r\n"), BAD("expected '$', got ' '")},
        {BYTES("*1\r\n\xff\r\n"), BAD("expected '$', got '\xff'")},
        {BYTES("*1\r\n$4\r\nPING\r\n*2\r\n$1\r\na\r\n%\r\n"),
         "<PING>;" BAD("expected '$', got '%'")},
        {BYTES("*1\r\nx\r"), "..."},
    };
    EXPECT_ALL(samples);
}
END_TEST

START_TEST(inline_requests_are_split_at_blanks) {
    const struct sample samples[] = {
        {BYTES("PING\n"), "<PING>;"},
        {BYTES(" \t\v\fSET  k\tv \r\r\n"), "<SET> <k> <v>;"},
        {BYTES("ECHO a\rb\r\n"), "<ECHO> <a> <b>;"},
        {BYTES("ECHO a\vb \fc\r\n"), "<ECHO> <a\vb> <c>;"},
        {BYTES("$4\r\n"), "<$4>;"},
        {BYTES("PING"), "..."},
    };
    EXPECT_ALL(samples);
}
END_TEST

START_TEST(inline_arguments_may_be_quoted) {
    const struct sample samples[] = {
        {BYTES("ECHO \"a b\"\r\n"), "<ECHO> <a b>;"},
        {BYTES("ECHO 'a b'\r\n"), "<ECHO> <a b>;"},
        {BYTES("ECHO \"\" ''\r\n"), "<ECHO> <> <>;"},
        {BYTES("ECHO a\"b c\"\r\n"), "<ECHO> <ab c>;"},
        {BYTES("ECHO \"\\x41\\x6a\\x4A\\n\\r\\t\\b\\a\\q\\\\\\\"\"\r\n"),
         "<ECHO> <AjJ\n\r\t\b\aq\\\">;"},
        {BYTES("ECHO \"\\x4\" \"\\xZZ\"\r\n"), "<ECHO> <x4> <xZZ>;"},
        {BYTES("ECHO 'a\\'b\\n'\r\n"), "<ECHO> <a'b\\n>;"},
        {BYTES("ECHO a\\n\r\n"), "<ECHO> <a\\n>;"},
        {BYTES("ECHO \"a\"\v\r\n"), "<ECHO> <a>;"},
        {BYTES("\"\"\r\n"), "<>;"},
        {BYTES("ECHO \"a\"b\r\n"), BAD("unbalanced quotes in request")},
        {BYTES("ECHO \"a\"'b'\r\n"), BAD("unbalanced quotes in request")},
        {BYTES("ECHO \"a\r\n"), BAD("unbalanced quotes in request")},
        {BYTES("ECHO 'a\r\n"), BAD("unbalanced quotes in request")},
        {BYTES("ECHO \"a\\\r\n"), BAD("unbalanced quotes in request")},
        {BYTES("ECHO \"\n"), BAD("unbalanced quotes in request")},
    };
    EXPECT_ALL(samples);
}
END_TEST

START_TEST(a_nul_hides_the_end_of_its_line) {
    const struct sample samples[] = {
        {BYTES("PI\0NG\r\nPING\r\n"), "..."},
        {BYTES("*1\0\r\n$4\r\nPING\r\n"), "..."},
        {BYTES("*1\r\n$4\0\r\nPING\r\n"), "..."},
    };
    EXPECT_ALL(samples);
    static char line[INLINE_LEN_MAX + 1]; /* all NUL */
    line[INLINE_LEN_MAX] = '\n';
    expect_long(bytes_of(line, sizeof(line) - 1), "...");
    expect_long(bytes_of(line, sizeof(line)), BAD("too big inline request"));
}
END_TEST

START_TEST(a_nul_in_an_argument_is_a_byte_like_others) {
    char input[] = "*2\r\n$3\r\nGET\r\n$3\r\na\0b\r\n";
    struct request req;
    ck_assert_int_eq(resp_parse(&parser, input, sizeof(input) - 1, &ctx, &req), RESP_DONE);
    ck_assert(bytes_equal(req.argv[1], BYTES("a\0b")));
}
END_TEST

/* 'head' and so many 'x' that what follows the first 'skip' bytes is a line of 'len' bytes without end. */
static void expect_line(const char *head, size_t skip, size_t len, const char *wanted) {
    struct buf input;
    buf_init(&input, 0);
    buf_append_str(&input, head);
    while (input.len < skip + len) {
        buf_append(&input, "x", 1);
    }
    expect_long(buf_bytes(&input), wanted);
    buf_fini(&input);
}

START_TEST(lines_are_bounded) {
    expect_line("x", 0, INLINE_LEN_MAX, "...");
    expect_line("x", 0, INLINE_LEN_MAX + 1, BAD("too big inline request"));
    expect_line("*", 0, INLINE_LEN_MAX, "...");
    expect_line("*", 0, INLINE_LEN_MAX + 1, BAD("too big mbulk count string"));
    expect_line("*1\r\n$", 4, INLINE_LEN_MAX, "...");
    expect_line("*1\r\n$", 4, INLINE_LEN_MAX + 1, BAD("too big bulk count string"));
}
END_TEST

START_TEST(the_longest_line_still_counts) {
    static char line[INLINE_LEN_MAX + 1];
    static char wanted[INLINE_LEN_MAX + 4];
    memset(line, 'x', INLINE_LEN_MAX);
    line[INLINE_LEN_MAX] = '\n';
    memset(wanted, 'x', sizeof(wanted));
    wanted[0] = '<';
    memcpy(wanted + INLINE_LEN_MAX + 1, ">;", 3);
    expect_long(bytes_of(line, sizeof(line)), wanted);
}
END_TEST

START_TEST(lengths_are_bounded) {
    expect(BYTES("*1048576\r\n"), "...");
    expect(BYTES("*1048577\r\n"), BAD("invalid multibulk length"));
    expect(BYTES("*1\r\n$536870912\r\n"), "...");
    expect(BYTES("*1\r\n$536870913\r\n"), BAD("invalid bulk length"));
    ctx.bulk_len_max = 4;
    expect(BYTES("*1\r\n$4\r\nPING\r\n"), "<PING>;");
    expect(BYTES("*1\r\n$5\r\nPINGS\r\n"), BAD("invalid bulk length"));
}
END_TEST

START_TEST(strangers_get_less) {
    ctx.authenticated = false;
    expect(BYTES("*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n"), "<AUTH> <pw>;");
    expect(BYTES("*10\r\n"), "...");
    expect(BYTES("*11\r\n"), BAD("unauthenticated multibulk length"));
    expect(BYTES("*1048577\r\n"), BAD("unauthenticated multibulk length"));
    expect(BYTES("*2147483648\r\n"), BAD("invalid multibulk length"));
    expect(BYTES("*1\r\n$16384\r\n"), "...");
    expect(BYTES("*1\r\n$16385\r\n"), BAD("unauthenticated bulk length"));
    expect(BYTES("*1\r\n$536870913\r\n"), BAD("invalid bulk length"));
    expect(BYTES("PING a a a a a a a a a a\r\n"),
           "<PING> <a> <a> <a> <a> <a> <a> <a> <a> <a> <a>;");
}
END_TEST

START_TEST(a_whole_request_goes_straight_into_the_arena) {
    char input[] = "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n*1\r\n";
    struct request req;
    ck_assert_int_eq(resp_parse(&parser, input, sizeof(input) - 1, &ctx, &req), RESP_DONE);
    ck_assert_uint_eq(req.argc, 2);
    ck_assert_uint_eq(req.len, sizeof(input) - 1 - 4);
    ck_assert_ptr_eq(req.argv, arena.base);
    ck_assert_uint_eq(arena.used, 2 * sizeof(struct bytes));
    ck_assert_ptr_eq(req.argv[1].ptr, input + 17);
    ck_assert_mem_eq(&parser, &between_requests, sizeof(parser));
}
END_TEST

START_TEST(a_full_arena_is_no_obstacle) {
    char input[] = "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n";
    arena.used = ARENA_LEN - sizeof(struct bytes);
    struct request req;
    ck_assert_int_eq(resp_parse(&parser, input, sizeof(input) - 1, &ctx, &req), RESP_DONE);
    ck_assert_uint_eq(req.argc, 2);
    ck_assert(bytes_equal(req.argv[1], BYTES("key")));
    ck_assert_mem_eq(&parser, &between_requests, sizeof(parser));
}
END_TEST

START_TEST(a_torn_request_says_what_it_wants) {
    char input[] = "*2\r\n$3\r\nSET\r\n$1000\r\nabc";
    struct request req;
    ck_assert_int_eq(resp_parse(&parser, input, 0, &ctx, &req), RESP_MORE);
    ck_assert_uint_eq(resp_parse_wants(&parser), 0);
    ck_assert_int_eq(resp_parse(&parser, input, 9, &ctx, &req), RESP_MORE);
    ck_assert_uint_eq(resp_parse_wants(&parser), 8 + 3 + 2);
    ck_assert_int_eq(resp_parse(&parser, input, 15, &ctx, &req), RESP_MORE);
    ck_assert_uint_eq(resp_parse_wants(&parser), 0);
    ck_assert_int_eq(resp_parse(&parser, input, sizeof(input) - 1, &ctx, &req), RESP_MORE);
    ck_assert_uint_eq(resp_parse_wants(&parser), 20 + 1000 + 2);
}
END_TEST

START_TEST(a_torn_header_leaves_nothing_to_the_next_request) {
    char input[] = "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n";
    struct request req;
    for (size_t len = 1; len < sizeof(input) - 1; len++) {
        ck_assert_int_eq(resp_parse(&parser, input, len, &ctx, &req), RESP_MORE);
        ck_assert_int_eq(resp_parse(&parser, input, sizeof(input) - 1, &ctx, &req), RESP_DONE);
        ck_assert(bytes_equal(req.argv[1], BYTES("key")));
        ck_assert_mem_eq(&parser, &between_requests, sizeof(parser));
    }
}
END_TEST

START_TEST(an_announcement_allocates_nothing) { /* I3 */
    char input[] = "*1048576\r\n$1\r\na\r\n$536870912\r\nxxx";
    struct request req;
    ck_assert_int_eq(resp_parse(&parser, input, sizeof(input) - 1, &ctx, &req), RESP_MORE);
    ck_assert_uint_eq(arena.used, 0);
    ck_assert_ptr_null(arena.blocks);
    ck_assert_uint_le(parser.span_cap, 8);
}
END_TEST

START_TEST(as_many_arguments_as_may_be) {
    struct buf input;
    buf_init(&input, 0);
    buf_append_str(&input, "*1048576\r\n");
    for (int i = 0; i < REQUEST_ARGS_MAX; i++) {
        buf_append_str(&input, "$1\r\na\r\n");
    }
    for (size_t torn = 0; torn < 2; torn++) {
        struct request req;
        size_t len = input.len;
        if (torn == 1) {
            ck_assert_int_eq(resp_parse(&parser, input.ptr, len / 2, &ctx, &req), RESP_MORE);
            ck_assert_int_eq(resp_parse(&parser, input.ptr, len - 1, &ctx, &req), RESP_MORE);
        }
        ck_assert_int_eq(resp_parse(&parser, input.ptr, len, &ctx, &req), RESP_DONE);
        ck_assert_uint_eq(req.argc, REQUEST_ARGS_MAX);
        ck_assert_uint_eq(req.len, len);
        ck_assert(bytes_equal(req.argv[req.argc - 1], BYTES("a")));
        arena_reset(&arena);
    }
    buf_fini(&input);
}
END_TEST

START_TEST(no_memory_is_an_error_like_others) {
    char input[] = "*2\r\n$3\r\nGET\r\n$3\r\nkey";
    struct request req;
    mem_fault_after(1);
    ck_assert_int_eq(resp_parse(&parser, input, sizeof(input) - 1, &ctx, &req), RESP_BAD);
    mem_fault_after(0);
    struct buf out;
    buf_init(&out, 0);
    resp_reply_error(&parser, &(struct reply){.out = &out, .proto = REPLY_RESP2});
    ck_assert(bytes_equal(buf_bytes(&out), BYTES(BAD("out of memory"))));
    buf_fini(&out);
}
END_TEST

static Suite *resp_suite(void) {
    Suite *suite = suite_create("resp");
    TCase *tcase = tcase_create("resp");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, multibulk_requests_are_read);
    tcase_add_test(tcase, what_stands_for_line_feeds_is_not_looked_at);
    tcase_add_test(tcase, empty_requests_take_their_bytes);
    tcase_add_test(tcase, lengths_are_canonical_decimals);
    tcase_add_test(tcase, an_argument_begins_with_a_dollar);
    tcase_add_test(tcase, inline_requests_are_split_at_blanks);
    tcase_add_test(tcase, inline_arguments_may_be_quoted);
    tcase_add_test(tcase, a_nul_hides_the_end_of_its_line);
    tcase_add_test(tcase, a_nul_in_an_argument_is_a_byte_like_others);
    tcase_add_test(tcase, lines_are_bounded);
    tcase_add_test(tcase, the_longest_line_still_counts);
    tcase_add_test(tcase, lengths_are_bounded);
    tcase_add_test(tcase, strangers_get_less);
    tcase_add_test(tcase, a_whole_request_goes_straight_into_the_arena);
    tcase_add_test(tcase, a_full_arena_is_no_obstacle);
    tcase_add_test(tcase, a_torn_request_says_what_it_wants);
    tcase_add_test(tcase, a_torn_header_leaves_nothing_to_the_next_request);
    tcase_add_test(tcase, an_announcement_allocates_nothing);
    tcase_add_test(tcase, as_many_arguments_as_may_be);
    tcase_add_test(tcase, no_memory_is_an_error_like_others);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void) {
    SRunner *runner = srunner_create(resp_suite());
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
