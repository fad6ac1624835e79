/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/arena.h"
#include "server/base/buf.h"
#include "server/base/mem.h"
#include "tests/support/check_main.h"

#include <stdint.h>

static void expect(const struct buf *b, const char *wanted) {
    ck_assert(bytes_equal(buf_bytes(b), bytes_str(wanted)));
}

START_TEST(appending_keeps_what_is_there) {
    struct buf b;
    buf_init(&b, 0);
    buf_append(&b, NULL, 0);
    expect(&b, "");
    buf_append_str(&b, "one ");
    buf_append_bytes(&b, BYTES("two"));
    expect(&b, "one two");
    for (int i = 0; i < 100000; i++) {
        buf_append(&b, "x", 1);
    }
    ck_assert_uint_eq(b.len, 100007);
    ck_assert_uint_le(b.cap, 2 * b.len);
    ck_assert_mem_eq(b.ptr, "one twoxxx", 10);
    ck_assert(!b.failed);
    buf_fini(&b);
}
END_TEST

START_TEST(the_limit_is_reached_exactly) {
    struct buf b;
    buf_init(&b, 100);
    ck_assert_int_eq(buf_reserve(&b, 100), DC_OK);
    ck_assert_uint_eq(b.cap, 100);
    ck_assert_int_eq(buf_reserve(&b, 101), DC_ELIMIT);
    ck_assert_int_eq(buf_reserve(&b, SIZE_MAX), DC_ELIMIT);
    for (int i = 0; i < 100; i++) {
        buf_append(&b, "y", 1);
    }
    ck_assert(!b.failed);
    buf_append(&b, "z", 1);
    ck_assert(b.failed);
    ck_assert_uint_eq(b.len, 100);
    buf_fini(&b);
}
END_TEST

START_TEST(a_failure_sticks_until_the_reset) {
    struct buf b;
    buf_init(&b, 4);
    buf_append_str(&b, "ab");
    buf_append_str(&b, "too long");
    buf_append_str(&b, "cd");
    ck_assert(b.failed);
    expect(&b, "abcd"); /* the writer who checks at the end throws it away */
    buf_reset(&b, 100);
    ck_assert(!b.failed);
    ck_assert_uint_eq(b.len, 0);
    ck_assert_uint_gt(b.cap, 0);
    buf_reset(&b, 3);
    ck_assert_uint_eq(b.cap, 0);
    ck_assert_uint_eq(b.limit, 4);
    buf_fini(&b);
}
END_TEST

START_TEST(without_memory_the_content_stays) {
    struct buf b;
    buf_init(&b, 0);
    buf_append_str(&b, "kept");
    mem_fault_after(1);
    ck_assert_int_eq(buf_reserve(&b, 1000), DC_ENOMEM);
    ck_assert(!b.failed);
    mem_fault_after(1);
    ck_assert_ptr_null(buf_room(&b, 1000));
    ck_assert(b.failed);
    expect(&b, "kept");
    buf_fini(&b);
}
END_TEST

START_TEST(room_is_written_before_it_is_counted) {
    struct buf b;
    buf_init(&b, 0);
    char *to = buf_room(&b, 3);
    memcpy(to, "abc", 3);
    ck_assert_uint_eq(b.len, 0);
    b.len += 3;
    expect(&b, "abc");
    buf_fini(&b);
}
END_TEST

START_TEST(consuming_drops_the_front) {
    struct buf b;
    buf_init(&b, 0);
    buf_append_str(&b, "abcdef");
    buf_consume(&b, 0);
    buf_consume(&b, 2);
    expect(&b, "cdef");
    buf_consume(&b, 4);
    expect(&b, "");
    buf_fini(&b);
}
END_TEST

static void consume_too_much(void *arg) {
    (void)arg;
    struct buf b;
    buf_init(&b, 0);
    buf_consume(&b, 1);
}

START_TEST(consuming_more_than_there_is_is_a_bug) {
    ck_assert(test_aborts(consume_too_much, NULL));
}
END_TEST

START_TEST(formatted_text_of_any_length_is_appended) {
    struct buf b;
    buf_init(&b, 0);
    for (int len = 0; len < 600; len++) {
        buf_reset(&b, 1000);
        buf_printf(&b, "%d:%*s|", len, len, "");
        ck_assert_uint_eq(b.len, (size_t)len + (len < 10 ? 3 : len < 100 ? 4 : 5));
        ck_assert_int_eq(b.ptr[b.len - 1], '|');
    }
    buf_fini(&b);
}
END_TEST

START_TEST(formatted_text_needs_no_room_for_a_nul) {
    struct buf b;
    buf_init(&b, 300);
    buf_printf(&b, "%*s", 300, "x");
    ck_assert(!b.failed);
    ck_assert_uint_eq(b.len, 300);
    buf_printf(&b, "%s", "");
    ck_assert(!b.failed);
    buf_printf(&b, "%s", "y");
    ck_assert(b.failed);
    buf_fini(&b);
    buf_init(&b, 0);
    mem_fault_after(1);
    buf_printf(&b, "%*s", 300, "x");
    ck_assert(b.failed);
    buf_fini(&b);
}
END_TEST

START_TEST(views_compare_by_content) {
    ck_assert(bytes_equal(BYTES(""), bytes_of(NULL, 0)));
    ck_assert(bytes_equal(BYTES("a\0b"), bytes_of("a\0b", 3)));
    ck_assert(!bytes_equal(BYTES("a"), BYTES("ab")));
    ck_assert(bytes_is(BYTES("MaxMemory"), "maxmemory"));
    ck_assert(!bytes_is(BYTES("maxmemor"), "maxmemory"));
}
END_TEST

START_TEST(arena_memory_is_aligned_and_apart) {
    struct arena a;
    arena_init(&a, 64);
    char *first = arena_alloc(&a, 1), *second = arena_alloc(&a, 9);
    ck_assert_uint_eq((uintptr_t)first % 8, 0);
    ck_assert_ptr_eq(second, first + 8);
    ck_assert_uint_eq(arena_room(&a), 64 - 24);
    char *rest = arena_alloc(&a, 40);
    ck_assert_ptr_eq(rest, first + 24);
    ck_assert_uint_eq(arena_room(&a), 0);
    arena_fini(&a);
}
END_TEST

START_TEST(an_arena_goes_on_in_blocks_until_the_reset) {
    struct arena a;
    arena_init(&a, 16);
    char *base = a.base;
    for (size_t len = 1; len < 5000; len += 7) {
        char *ptr = arena_alloc(&a, len);
        ck_assert_uint_eq((uintptr_t)ptr % 8, 0);
        memset(ptr, 'x', len);
    }
    ck_assert_ptr_nonnull(a.blocks);
    arena_reset(&a);
    ck_assert_ptr_null(a.blocks);
    ck_assert_ptr_eq(arena_alloc(&a, 16), base);
    arena_fini(&a);
    ck_assert_ptr_null(a.base);
}
END_TEST

CHECK_MAIN("buf", appending_keeps_what_is_there, the_limit_is_reached_exactly,
           a_failure_sticks_until_the_reset, without_memory_the_content_stays,
           room_is_written_before_it_is_counted, consuming_drops_the_front,
           consuming_more_than_there_is_is_a_bug, formatted_text_of_any_length_is_appended,
           formatted_text_needs_no_room_for_a_nul, views_compare_by_content,
           arena_memory_is_aligned_and_apart, an_arena_goes_on_in_blocks_until_the_reset)
