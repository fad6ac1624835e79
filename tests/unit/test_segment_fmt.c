/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/segment_fmt.h"
#include "server/base/codec.h"
#include "server/base/sum.h"
#include "tests/support/check_main.h"

#include <string.h>

static const struct history second = {.id = 0xabc, .start = 5000, .epoch = 3, .parent_end = 4000};

static struct segment_head sample(void) {
    struct segment_head h = {.first_lsn = 6000, .history = second, .created_ms = -1};
    memset(h.node_id, 7, NODE_ID_LEN);
    memset(h.seed, 9, SEED_LEN);
    return h;
}

static void make_page(uint8_t page[SEGMENT_HEADER_LEN]) {
    struct segment_head h = sample();
    memset(page, 0, SEGMENT_HEADER_LEN);
    segment_head_encode(&h, page);
    struct segment_mark mark = {7000, 123};
    segment_mark_encode(h.first_lsn, &mark, page + SEGMENT_MARK_AT);
}

START_TEST(a_header_comes_back) {
    uint8_t page[SEGMENT_HEADER_LEN];
    struct segment_head want = sample();
    struct segment_head got;
    make_page(page);
    ck_assert_int_eq(segment_head_decode(page, sizeof(page), &got), HEAD_OK);
    ck_assert_mem_eq(got.node_id, want.node_id, NODE_ID_LEN);
    ck_assert_mem_eq(got.seed, want.seed, SEED_LEN);
    ck_assert_uint_eq(got.first_lsn, 6000);
    ck_assert_uint_eq(got.history.id, second.id);
    ck_assert_uint_eq(got.history.start, second.start);
    ck_assert_uint_eq(got.history.epoch, second.epoch);
    ck_assert_uint_eq(got.history.parent_end, second.parent_end);
    ck_assert_int_eq(got.created_ms, -1);
    ck_assert_uint_eq(segment_mark_decode(page, sizeof(page), 6000), 7000);
    ck_assert(!segment_head_is_blank(page, sizeof(page)));
}
END_TEST

/* The table of segment_fmt.h. */
START_TEST(the_bytes_stand_where_the_format_says) {
    uint8_t page[SEGMENT_HEADER_LEN];
    make_page(page);
    ck_assert_mem_eq(page, "dcachelg", 8);
    ck_assert_uint_eq(get_u32(page + 8), 1);
    ck_assert_uint_eq(get_u32(page + 12), 4096);
    ck_assert_uint_eq(page[16], 7);
    ck_assert_uint_eq(page[32], 9);
    ck_assert_uint_eq(get_u64(page + 48), 6000);
    ck_assert_uint_eq(get_u64(page + 56), 0xabc);
    ck_assert_uint_eq(get_u64(page + 64), 5000);
    ck_assert_uint_eq(get_u64(page + 72), 3);
    ck_assert_uint_eq(get_u64(page + 80), 4000);
    ck_assert_uint_eq(get_u64(page + 88), UINT64_MAX);
    ck_assert_uint_eq(get_u64(page + 96), sum64(page, 96, 0));
    ck_assert_uint_eq(get_u64(page + 512), 7000);
    ck_assert_uint_eq(get_u64(page + 520), 123);
    ck_assert_uint_eq(get_u64(page + 528), sum64(page + 512, 16, 6000));
}
END_TEST

START_TEST(every_flipped_byte_of_the_page_is_seen) {
    uint8_t page[SEGMENT_HEADER_LEN];
    make_page(page);
    for (size_t at = 0; at < sizeof(page); at++) {
        for (int bit = 0; bit < 8; bit++) {
            struct segment_head head;
            struct segment_mark mark;
            page[at] ^= (uint8_t)(1 << bit);
            enum head_verdict v = segment_head_decode(page, sizeof(page), &head);
            enum mark_verdict m = segment_mark_read(page, sizeof(page), 6000, &mark);
            bool in_mark = at >= SEGMENT_MARK_AT && at < SEGMENT_MARK_AT + SEGMENT_MARK_LEN;
            ck_assert_int_eq(v, in_mark ? HEAD_OK : at < 8 ? HEAD_NOT_OURS : HEAD_DAMAGED);
            ck_assert_int_eq(m, in_mark ? MARK_DAMAGED : MARK_OK);
            ck_assert_uint_eq(mark.durable_lsn, in_mark ? 6000 : 7000);
            ck_assert_int_eq(mark.time_ms, in_mark ? 0 : 123);
            page[at] ^= (uint8_t)(1 << bit);
        }
    }
}
END_TEST

START_TEST(any_length_is_survived) {
    uint8_t page[SEGMENT_HEADER_LEN];
    struct segment_head head;
    struct segment_mark mark;
    make_page(page);
    for (size_t len = 0; len <= sizeof(page); len++) {
        enum head_verdict v = segment_head_decode(page, len, &head);
        ck_assert_int_eq(v, len < SEGMENT_HEADER_USED ? HEAD_DAMAGED : HEAD_OK);
        enum mark_verdict m = segment_mark_read(page, len, 6000, &mark);
        ck_assert_int_eq(m, len < SEGMENT_MARK_AT + SEGMENT_MARK_LEN ? MARK_NONE : MARK_OK);
    }
    memset(page, 0, sizeof(page));
    ck_assert(segment_head_is_blank(page, sizeof(page)));
    ck_assert(segment_head_is_blank(page, 0));
    page[SEGMENT_MARK_AT + 3] = 1; /* the mark alone */
    ck_assert(segment_head_is_blank(page, sizeof(page)));
    page[SEGMENT_HEADER_LEN - 1] = 1;
    ck_assert(!segment_head_is_blank(page, sizeof(page)));
}
END_TEST

static enum head_verdict resummed(size_t at, uint64_t value, size_t len) {
    uint8_t page[SEGMENT_HEADER_LEN];
    struct segment_head head;
    make_page(page);
    memcpy(page + at, &value, len);
    put_u64(page + 96, sum64(page, 96, 0));
    return segment_head_decode(page, sizeof(page), &head);
}

START_TEST(a_right_sum_over_nonsense_is_not_enough) {
    ck_assert_int_eq(resummed(8, 2, 4), HEAD_NEWER);
    ck_assert_int_eq(resummed(8, 0, 4), HEAD_DAMAGED);
    ck_assert_int_eq(resummed(12, 8192, 4), HEAD_DAMAGED);
    ck_assert_int_eq(resummed(48, LSN_MAX, 8), HEAD_OK);
    ck_assert_int_eq(resummed(48, LSN_MAX + 1, 8), HEAD_DAMAGED);
    ck_assert_int_eq(resummed(48, 4999, 8), HEAD_DAMAGED); /* before its history */
    ck_assert_int_eq(resummed(56, 0, 8), HEAD_DAMAGED);
    ck_assert_int_eq(resummed(80, 5001, 8), HEAD_DAMAGED); /* the parent ends behind the start */
}
END_TEST

START_TEST(a_mark_counts_for_its_segment_only) {
    uint8_t page[SEGMENT_HEADER_LEN];
    struct segment_mark mark;
    make_page(page);
    ck_assert_int_eq(segment_mark_read(page, sizeof(page), 6001, &mark), MARK_DAMAGED);
    ck_assert_uint_eq(mark.durable_lsn, 6001);
    put_u64(page + 512, 10); /* below the first LSN, with the right sum */
    put_u64(page + 528, sum64(page + 512, 16, 6000));
    ck_assert_int_eq(segment_mark_read(page, sizeof(page), 6000, &mark), MARK_DAMAGED);
    ck_assert_uint_eq(segment_mark_decode(page, sizeof(page), 6000), 6000);
}
END_TEST

START_TEST(names_come_back_and_others_are_left_alone) {
    char name[SEGMENT_NAME_MAX];
    uint64_t lsn;
    uint64_t id;
    uint32_t number;
    segment_name(0x123456789abcdef0, 0xfedcba9876543210, name);
    ck_assert_str_eq(name, "log-123456789abcdef0-fedcba9876543210.dcl");
    ck_assert(segment_name_parse(name, &lsn, &id));
    ck_assert_uint_eq(lsn, 0x123456789abcdef0);
    ck_assert_uint_eq(id, 0xfedcba9876543210);
    ck_assert(!segment_tmp_name_parse(name, &lsn, &id, &number));
    segment_tmp_name(0x123456789abcdef0, 0xfedcba9876543210, 4294967295, name);
    ck_assert_str_eq(name, "log-123456789abcdef0-fedcba9876543210-4294967295.tmp");
    ck_assert(segment_tmp_name_parse(name, &lsn, &id, &number) && lsn == 0x123456789abcdef0);
    ck_assert_uint_eq(number, 4294967295);
    ck_assert(!segment_name_parse(name, &lsn, &id));
    static const char *const others[] = {"",
                                         "log-",
                                         "log-123456789abcdef0-fedcba9876543210.dc",
                                         "log-123456789abcdef0-fedcba9876543210.dcl.tmp",
                                         "log-123456789abcdef0-fedcba9876543210.tmp",
                                         "log-123456789abcdef0-fedcba9876543210-.tmp",
                                         "log-123456789abcdef0-fedcba9876543210-1.tm",
                                         "log-123456789ABCDEF0-fedcba9876543210.dcl",
                                         "log-123456789abcdef0_fedcba9876543210.dcl",
                                         "log-123456789abcdeg0-fedcba9876543210.dcl",
                                         "log-123456789abcdef0-fedcba987654321 .dcl",
                                         "snp-123456789abcdef0-fedcba9876543210.dcl",
                                         "log-123456789abcdef0-fedcba9876543210.dcs"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        ck_assert_msg(!segment_name_parse(others[i], &lsn, &id), "%s", others[i]);
        ck_assert_msg(!segment_tmp_name_parse(others[i], &lsn, &id, &number), "%s", others[i]);
    }
}
END_TEST

CHECK_MAIN("segment_fmt", a_header_comes_back, the_bytes_stand_where_the_format_says,
           every_flipped_byte_of_the_page_is_seen, any_length_is_survived,
           a_right_sum_over_nonsense_is_not_enough, a_mark_counts_for_its_segment_only,
           names_come_back_and_others_are_left_alone)
