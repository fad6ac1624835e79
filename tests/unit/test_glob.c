/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/glob.h"
#include "server/base/limits.h"
#include "tests/support/check_main.h"

#include <string.h>
#include <time.h>

#define N(s) (s), sizeof(s) - 1

/* What redis-server 7.0.15 says to the same pairs. */
static const struct {
    const char *pattern;
    size_t pattern_len;
    const char *text;
    size_t text_len;
    bool match;
} cases[] = {
    {N(""), N(""), true},
    {N(""), N("a"), false},
    {N("a"), N("a"), true},
    {N("a"), N("ab"), false},
    {N("ab"), N("a"), false},
    {N("*"), N("anything"), true},
    {N("**"), N("anything"), true},
    {N("*"), N(""), false}, /* the empty text is never looked at */
    {N("?"), N(""), false},
    {N("?"), N("\0"), true},
    {N("h?llo"), N("hello"), true},
    {N("h?llo"), N("hllo"), false},
    {N("h*llo"), N("heeeello"), true},
    {N("h*llo"), N("hllo"), true},
    {N("a*b*c"), N("aXbXbXc"), true},
    {N("a*b*c"), N("aXbXbX"), false},
    {N("*a*a*a"), N("aa"), false},
    {N("abc*"), N("abc"), true},
    {N("abc***"), N("abc"), true},
    {N("*abc"), N("xxabcabc"), true},
    {N("h[ae]llo"), N("hallo"), true},
    {N("h[ae]llo"), N("hillo"), false},
    {N("h[^e]llo"), N("hbllo"), true},
    {N("h[^e]llo"), N("hello"), false},
    {N("h[a-c]llo"), N("hbllo"), true},
    {N("h[c-a]llo"), N("hbllo"), true}, /* a range may stand backwards */
    {N("[a-]"), N("b"), false},         /* a range from 'a' to ']', and no end */
    {N("[a-]"), N("^"), true},
    {N("[a-"), N("-"), true},
    {N("[a-"), N("a"), true},
    {N("[abc"), N("c"), true}, /* an unclosed class ends with the pattern */
    {N("["), N("["), false},
    {N("[^"), N("x"), true},
    {N("[]"), N("]"), false}, /* empty */
    {N("[^]"), N("x"), true},
    {N("[]a]"), N("]a]"), false},
    {N("[\\]]"), N("]"), true},
    {N("[\\-]"), N("-"), true},
    {N("[\\"), N("\\"), true},
    {N("[a\\-z]"), N("b"), false},
    {N("\\*"), N("*"), true},
    {N("\\*"), N("x"), false},
    {N("\\\\"), N("\\"), true},
    {N("\\"), N("\\"), true},
    {N("a\\"), N("a\\"), true},
    {N("a\\b"), N("ab"), true},
    {N("[a-\xff]"), N("Z"), true}, /* bytes are signed: from -1 to 'a' */
    {N("[a-\xff]"), N("z"), false},
    {N("*[0-9]*"), N("key:7:x"), true},
    {N("a\0b"), N("a\0b"), true},
    {N("a\0b"), N("a\0c"), false},
    {N("A"), N("a"), false},
};

START_TEST(patterns_match_as_in_redis) {
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool match = glob_match(bytes_of(cases[i].pattern, cases[i].pattern_len),
                                bytes_of(cases[i].text, cases[i].text_len), false);
        ck_assert_msg(match == cases[i].match, "'%s' and '%s'", cases[i].pattern, cases[i].text);
    }
}
END_TEST

START_TEST(case_can_be_ignored) {
    ck_assert(glob_match(BYTES("MAX*"), BYTES("maxmemory"), true));
    ck_assert(!glob_match(BYTES("MAX*"), BYTES("maxmemory"), false));
    ck_assert(glob_match(BYTES("[A-C]x"), BYTES("bX"), true));
    ck_assert(glob_match(BYTES("[ABC]"), BYTES("b"), true));
    ck_assert(glob_match(BYTES("\\A"), BYTES("a"), true));
    ck_assert(!glob_match(BYTES("[\\A]"), BYTES("a"), true)); /* but not here */
    ck_assert(glob_match(BYTES("[\\A]"), BYTES("A"), true));
    ck_assert(!glob_match(BYTES("@"), BYTES("`"), true));
    ck_assert(!glob_match(BYTES("["), BYTES("{"), true));
}
END_TEST

/* "*a" repeated, and a text of 'a's. */
static bool match_stars(size_t stars, const char *tail) {
    static char pattern[4 * GLOB_NESTING_MAX], text[4 * GLOB_NESTING_MAX];
    for (size_t i = 0; i < stars; i++) {
        memcpy(pattern + 2 * i, "*a", 2);
    }
    size_t tail_len = strlen(tail);
    memcpy(pattern + 2 * stars, tail, tail_len);
    memset(text, 'a', sizeof(text));
    return glob_match(bytes_of(pattern, 2 * stars + tail_len), bytes_of(text, sizeof(text)), false);
}

START_TEST(the_number_of_stars_is_bounded) {
    ck_assert(match_stars(GLOB_NESTING_MAX, ""));
    ck_assert(match_stars(GLOB_NESTING_MAX, "*")); /* a star at the end isn't counted */
    ck_assert(!match_stars(GLOB_NESTING_MAX + 1, ""));
}
END_TEST

START_TEST(hostile_patterns_take_little_time) {
    static char text[64 * 1024];
    memset(text, 'a', sizeof(text));
    clock_t start = clock();
    ck_assert(!glob_match(BYTES("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*ab"), bytes_of(text, sizeof(text)),
                          false));
    ck_assert(!match_stars(GLOB_NESTING_MAX, "b"));
    ck_assert_int_lt(clock() - start, 2 * CLOCKS_PER_SEC);
}
END_TEST

CHECK_MAIN("glob", patterns_match_as_in_redis, case_can_be_ignored, the_number_of_stars_is_bounded,
           hostile_patterns_take_little_time)
