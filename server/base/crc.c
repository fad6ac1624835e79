/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Eight bytes per step: table[k][b] is the remainder of byte b with k zero bytes behind it, so the remainder of a run
 * of eight bytes is the sum of eight look-ups that don't wait for each other.
 */
#include "server/base/crc.h"

#define CRC16_POLY           0x1021
#define CRC64_POLY_REFLECTED 0x95ac9329ac4bc9b5u /* 0xad93d23594c935a9 */

static uint16_t table16[8][256];
static uint64_t table64[8][256];

/* Before main(), so that the readers need no check and no order of initialisation. */
__attribute__((constructor)) static void build_tables(void) {
    for (unsigned b = 0; b < 256; b++) {
        unsigned short_crc = b << 8;
        uint64_t long_crc = b;
        for (int bit = 0; bit < 8; bit++) {
            short_crc = (short_crc << 1) ^ (short_crc & 0x8000 ? CRC16_POLY : 0);
            long_crc = (long_crc >> 1) ^ (long_crc & 1 ? CRC64_POLY_REFLECTED : 0);
        }
        table16[0][b] = (uint16_t)short_crc;
        table64[0][b] = long_crc;
    }
    for (int k = 1; k < 8; k++) {
        for (unsigned b = 0; b < 256; b++) {
            uint16_t prev16 = table16[k - 1][b];
            uint64_t prev64 = table64[k - 1][b];
            table16[k][b] = (uint16_t)(prev16 << 8 ^ table16[0][prev16 >> 8]);
            table64[k][b] = prev64 >> 8 ^ table64[0][prev64 & 0xff];
        }
    }
}

uint16_t crc16(const void *ptr, size_t len) {
    const uint8_t *p = ptr;
    unsigned crc = 0;
    for (; len >= 8; len -= 8, p += 8) {
        crc = table16[7][p[0] ^ crc >> 8] ^ table16[6][p[1] ^ (crc & 0xff)] ^ table16[5][p[2]] ^
              table16[4][p[3]] ^ table16[3][p[4]] ^ table16[2][p[5]] ^ table16[1][p[6]] ^
              table16[0][p[7]];
    }
    if (len >= 4) {
        crc = table16[3][p[0] ^ crc >> 8] ^ table16[2][p[1] ^ (crc & 0xff)] ^ table16[1][p[2]] ^
              table16[0][p[3]];
        len -= 4, p += 4;
    }
    for (; len > 0; len--, p++) {
        crc = (crc << 8 & 0xffff) ^ table16[0][*p ^ crc >> 8];
    }
    return (uint16_t)crc;
}

static uint64_t load_le64(const uint8_t *p) {
    uint64_t x = 0;
    for (int i = 0; i < 8; i++) {
        x |= (uint64_t)p[i] << (8 * i);
    }
    return x;
}

uint64_t crc64(uint64_t crc, const void *ptr, size_t len) {
    const uint8_t *p = ptr;
    for (; len >= 8; len -= 8, p += 8) {
        uint64_t x = crc ^ load_le64(p);
        crc = 0;
        for (int k = 0; k < 8; k++) {
            crc ^= table64[7 - k][x >> (8 * k) & 0xff];
        }
    }
    for (; len > 0; len--, p++) {
        crc = crc >> 8 ^ table64[0][(crc ^ *p) & 0xff];
    }
    return crc;
}
