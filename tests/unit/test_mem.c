/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/mem.h"
#include "tests/support/check_main.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

START_TEST(memory_can_be_written_and_moved) {
    char *ptr = mem_alloc(10);
    memcpy(ptr, "012345678", 10);
    ptr = mem_realloc(ptr, 100000);
    ck_assert_str_eq(ptr, "012345678");
    ptr = mem_must_realloc(ptr, 10);
    ck_assert_str_eq(ptr, "012345678");
    mem_free(ptr);
    mem_free(NULL);
    ptr = mem_alloc(0);
    ck_assert_ptr_nonnull(ptr);
    mem_free_sized(ptr, 0);
    mem_free_sized(NULL, 10);
    mem_free_aligned(NULL, 64, 10);
}
END_TEST

START_TEST(aligned_memory_is_aligned) {
    for (size_t align = 1; align <= 4096; align *= 2) {
        for (size_t len = 0; len < 300; len += 37) {
            char *ptr = mem_alloc_aligned(align, len);
            ck_assert_uint_eq((uintptr_t)ptr % align, 0);
            memset(ptr, 'x', len);
            mem_free_aligned(ptr, align, len);
        }
    }
}
END_TEST

START_TEST(startup_memory_is_there) {
    char *zeroes = mem_must_zalloc(1000);
    for (int i = 0; i < 1000; i++) {
        ck_assert_int_eq(zeroes[i], 0);
    }
    mem_free_sized(zeroes, 1000);
    char *copy = mem_must_strdup("text");
    ck_assert_str_eq(copy, "text");
    mem_free(copy);
}
END_TEST

static void ask_for_everything(void *arg) {
    mem_free(mem_must_alloc(*(size_t *)arg));
}

static void clear_everything(void *arg) {
    mem_free(mem_must_zalloc(*(size_t *)arg));
}

static void grow_to_everything(void *arg) {
    mem_free(mem_must_realloc(NULL, *(size_t *)arg));
}

START_TEST(what_must_be_there_and_is_not_ends_the_process) {
    if (TEST_SANITIZED) {
        return; /* the sanitizer reports the size itself */
    }
    size_t everything = SIZE_MAX / 4;
    ck_assert_ptr_null(mem_alloc(everything));
    ck_assert_ptr_null(mem_realloc(NULL, everything));
    ck_assert_ptr_null(mem_alloc_aligned(64, everything));
    ck_assert(test_aborts(ask_for_everything, &everything));
    ck_assert(test_aborts(clear_everything, &everything));
    ck_assert(test_aborts(grow_to_everything, &everything));
}
END_TEST

START_TEST(a_failed_move_changes_no_figure) {
    char *ptr = mem_alloc(1000);
    mem_thread_delta();
    mem_fault_after(1);
    ck_assert_ptr_null(mem_realloc(ptr, 2000));
    if (!TEST_SANITIZED) {
        ck_assert_ptr_null(mem_realloc(ptr, SIZE_MAX / 4));
    }
    ck_assert_int_eq(mem_thread_delta(), 0);
    mem_free(ptr);
}
END_TEST

/* I1 */
START_TEST(a_thread_knows_what_it_allocated) {
    mem_thread_delta();
    char *ptr = mem_alloc(100000);
    int64_t up = mem_thread_delta();
    ck_assert_int_ge(up, 100000);
    ck_assert_int_lt(up, 150000);
    ck_assert_int_eq(mem_thread_delta(), 0);
    ptr = mem_realloc(ptr, 10);
    ck_assert_int_lt(mem_thread_delta(), -50000);
    mem_free_sized(ptr, 10);
    ptr = mem_alloc_aligned(64, 1000);
    mem_thread_delta();
    mem_free_aligned(ptr, 64, 1000);
    ck_assert_int_le(mem_thread_delta(), -1000);
}
END_TEST

static void *free_elsewhere(void *arg) {
    mem_thread_delta();
    mem_free(arg);
    ck_assert_int_le(mem_thread_delta(), -100000);
    return NULL;
}

START_TEST(memory_may_be_freed_by_another_thread) {
    void *ptr = mem_alloc(100000);
    pthread_t id;
    ck_assert_int_eq(pthread_create(&id, NULL, free_elsewhere, ptr), 0);
    pthread_join(id, NULL);
}
END_TEST

START_TEST(a_good_size_is_what_an_allocation_takes) {
    size_t last = 0;
    for (size_t len = 0; len < 5000; len++) {
        size_t good = mem_good_size(len);
        ck_assert_uint_ge(good, len);
        ck_assert_uint_ge(good, last);
        ck_assert_uint_eq(mem_good_size(good), good);
        last = good;
    }
#if defined(DC_HAVE_JEMALLOC)
    mem_thread_delta();
    void *ptr = mem_alloc(1000);
    ck_assert_int_eq(mem_thread_delta(), (int64_t)mem_good_size(1000));
    mem_free(ptr);
#endif
}
END_TEST

START_TEST(the_process_is_measured) {
    struct mem_stats before, after;
    size_t len = 32 * 1024 * 1024;
    mem_stats_read(&before);
    char *ptr = mem_alloc(len);
    memset(ptr, 1, len);
    __asm__ volatile("" : : "r"(ptr) : "memory"); /* a compiler may leave out what nobody reads */
    mem_stats_read(&after);
    ck_assert_uint_ge(after.allocated, before.allocated + len);
    ck_assert_uint_ge(after.active, after.allocated);
    ck_assert_uint_ge(after.resident, after.active);
    ck_assert_uint_ge(after.process_rss, before.process_rss + len / 2);
    mem_free(ptr);
    mem_purge();
    mem_stats_read(&after);
    ck_assert_uint_lt(after.allocated, before.allocated + len);
    ck_assert_uint_lt(after.dirty, len);
}
END_TEST

START_TEST(the_allocator_has_a_name) {
#if defined(DC_HAVE_JEMALLOC)
    ck_assert_int_eq(strncmp(mem_allocator_name(), "jemalloc-5.", 11), 0);
    ck_assert_ptr_null(strchr(mem_allocator_name() + 9, '-'));
#else
    ck_assert_str_eq(mem_allocator_name(), "libc");
#endif
}
END_TEST

START_TEST(the_nth_call_fails_once) {
    mem_fault_after(3);
    void *first = mem_alloc(8), *second = mem_alloc_aligned(8, 8);
    ck_assert(first != NULL && second != NULL);
    void *bookkeeping = mem_must_alloc(8); /* isn't counted */
    ck_assert_ptr_null(mem_realloc(first, 16));
    void *third = mem_alloc(8);
    ck_assert_ptr_nonnull(third);
    mem_fault_after(1);
    ck_assert_ptr_null(mem_alloc_aligned(64, 64));
    mem_fault_after(1);
    mem_fault_after(0);
    void *fourth = mem_alloc(8);
    ck_assert_ptr_nonnull(fourth);
    mem_free(first);
    mem_free_aligned(second, 8, 8);
    mem_free(bookkeeping);
    mem_free(third);
    mem_free(fourth);
}
END_TEST

enum { PIECES = 4000, PIECE_LEN = 150 };

static bool has_page(const void *ptr) {
    unsigned char in = 0;
    uintptr_t page = (uintptr_t)ptr & ~(uintptr_t)4095;
    ck_assert_int_eq(mincore((void *)page, 1, &in), 0);
    return in & 1;
}

/* Nobody has written to any of them. */
static void *count_pages(void *arg) {
    uint32_t *there = arg;
    static void *pieces[PIECES];
    mem_thread_begin();
    for (uint32_t i = 0; i < PIECES; i++) {
        pieces[i] = mem_alloc(PIECE_LEN);
        *there += has_page(pieces[i]);
    }
    for (uint32_t i = 0; i < PIECES; i++) {
        mem_free(pieces[i]);
    }
    return NULL;
}

START_TEST(pages_are_there_before_they_are_touched) {
    uint32_t there = 0;
    pthread_t thread;
    if (strncmp(mem_allocator_name(), "jemalloc", 8) != 0) {
        return;
    }
    ck_assert_int_eq(pthread_create(&thread, NULL, count_pages, &there), 0);
    pthread_join(thread, NULL);
    ck_assert_uint_gt(there, PIECES * 9 / 10);
    /* What was freed and given back is made again in runs. */
    mem_purge();
    there = 0;
    ck_assert_int_eq(pthread_create(&thread, NULL, count_pages, &there), 0);
    pthread_join(thread, NULL);
    ck_assert_uint_gt(there, PIECES * 9 / 10);
}
END_TEST

CHECK_MAIN("mem", pages_are_there_before_they_are_touched, memory_can_be_written_and_moved,
           aligned_memory_is_aligned, startup_memory_is_there,
           what_must_be_there_and_is_not_ends_the_process, a_failed_move_changes_no_figure,
           a_thread_knows_what_it_allocated, memory_may_be_freed_by_another_thread,
           a_good_size_is_what_an_allocation_takes, the_process_is_measured,
           the_allocator_has_a_name, the_nth_call_fails_once)
