/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/crc.h"
#include "tests/support/check_main.h"

/* Bit by bit, from the definitions. */
static uint16_t slow_crc16(const uint8_t *p, size_t len) {
    unsigned crc = 0;
    for (size_t i = 0; i < len * 8; i++) {
        unsigned bit = p[i / 8] >> (7 - i % 8) & 1;
        unsigned top = crc >> 15 & 1;
        crc = (crc << 1 & 0xffff) ^ (bit ^ top ? 0x1021 : 0);
    }
    return (uint16_t)crc;
}

static uint64_t slow_crc64(uint64_t crc, const uint8_t *p, size_t len) {
    for (size_t i = 0; i < len; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0x95ac9329ac4bc9b5u : 0);
        }
    }
    return crc;
}

START_TEST(check_values_are_those_of_the_catalogue) {
    ck_assert_uint_eq(crc16("123456789", 9), 0x31c3);
    ck_assert_uint_eq(crc64(0, "123456789", 9), 0xe9c6d914c4b8d9ca);
    ck_assert_uint_eq(crc16("", 0), 0);
    ck_assert_uint_eq(crc64(7, "", 0), 7);
    /* slots that the specification of Redis Cluster names */
    ck_assert_uint_eq(crc16("foo", 3) % 16384, 12182);
    ck_assert_uint_eq(crc16("user1000", 8) % 16384, 3443);
}
END_TEST

START_TEST(tables_agree_with_the_definition) {
    struct rng r = test_rng();
    uint8_t data[100];
    for (int round = 0; round < 2000; round++) {
        size_t len = rng_below(&r, sizeof(data) + 1);
        for (size_t i = 0; i < len; i++) {
            data[i] = (uint8_t)rng_next(&r);
        }
        ck_assert_uint_eq(crc16(data, len), slow_crc16(data, len));
        uint64_t start = rng_next(&r);
        ck_assert_uint_eq(crc64(start, data, len), slow_crc64(start, data, len));
    }
}
END_TEST

START_TEST(crc64_can_be_taken_in_pieces) {
    const char text[] = "a dump comes in several pieces";
    for (size_t cut = 0; cut < sizeof(text); cut++) {
        uint64_t crc = crc64(crc64(0, text, cut), text + cut, sizeof(text) - cut);
        ck_assert_uint_eq(crc, crc64(0, text, sizeof(text)));
    }
}
END_TEST

CHECK_MAIN("crc", check_values_are_those_of_the_catalogue, tables_agree_with_the_definition,
           crc64_can_be_taken_in_pieces)
