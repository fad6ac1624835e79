/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/bits.h"

#include "server/base/assert.h"

#include <assert.h>

/* Loops over long strings take blocks of so many words, which compilers turn into vector instructions. */
enum { WORD_LEN = 8, BLOCK_WORDS = 8, BLOCK_LEN = WORD_LEN * BLOCK_WORDS };

/* --- counting ---------------------------------------------------------------------------------------- */

/* Each byte of the result has the number of bits set in that byte of the word. Without the processor's own
 * instruction, which the oldest machines lack, this is as fast as memory when done for a vector. */
static inline uint64_t count_by_byte(uint64_t w) {
    w -= w >> 1 & 0x5555555555555555u;
    w = (w & 0x3333333333333333u) + (w >> 2 & 0x3333333333333333u);
    return (w + (w >> 4)) & 0x0f0f0f0f0f0f0f0fu;
}

static inline uint64_t sum_of_bytes(uint64_t w) {
    w = (w & 0x00ff00ff00ff00ffu) + (w >> 8 & 0x00ff00ff00ff00ffu);
    return w * 0x0001000100010001u >> 48;
}

/* So many blocks that no byte of a sum overflows. */
enum { RUN_BLOCKS = 31 };
static_assert(RUN_BLOCKS * 8 <= UINT8_MAX, "a byte holds the count of a run");

static uint64_t count_run(const char *at, size_t blocks) {
    uint64_t sums[BLOCK_WORDS] = {0};
    uint64_t total = 0;
    for (size_t b = 0; b < blocks; b++) {
        uint64_t words[BLOCK_WORDS];
        memcpy(words, at + b * BLOCK_LEN, BLOCK_LEN);
        for (uint32_t i = 0; i < BLOCK_WORDS; i++) {
            sums[i] += count_by_byte(words[i]);
        }
    }
    for (uint32_t i = 0; i < BLOCK_WORDS; i++) {
        total += sum_of_bytes(sums[i]);
    }
    return total;
}

uint64_t bits_count(struct bytes s) {
    uint64_t total = 0;
    while (s.len >= BLOCK_LEN) {
        size_t blocks = s.len / BLOCK_LEN < RUN_BLOCKS ? s.len / BLOCK_LEN : RUN_BLOCKS;
        total += count_run(s.ptr, blocks);
        s = bytes_of(s.ptr + blocks * BLOCK_LEN, s.len - blocks * BLOCK_LEN);
    }
    while (s.len > 0) {
        uint64_t w = 0;
        size_t len = s.len < WORD_LEN ? s.len : WORD_LEN;
        memcpy(&w, s.ptr, len);
        total += sum_of_bytes(count_by_byte(w));
        s = bytes_of(s.ptr + len, s.len - len);
    }
    return total;
}

uint64_t bits_count_range(struct bytes s, uint64_t first, uint64_t last) {
    dc_assert(first <= last && last / 8 < s.len);
    size_t from = (size_t)(first / 8), to = (size_t)(last / 8);
    char outside[2] = {(char)(s.ptr[from] & ~(0xff >> first % 8)),
                       (char)(s.ptr[to] & (0x7f >> last % 8))};
    return bits_count(bytes_of(s.ptr + from, to - from + 1)) - bits_count(bytes_of(outside, 2));
}

/* --- finding ----------------------------------------------------------------------------------------- */

/* The first place in [at, end) with another byte than 'skip', else 'end'. */
static size_t skip_bytes(const char *ptr, size_t at, size_t end, uint8_t skip) {
    uint64_t word, pattern = skip * 0x0101010101010101u;
    for (; at + WORD_LEN <= end; at += WORD_LEN) {
        memcpy(&word, ptr + at, WORD_LEN);
        if (word != pattern) {
            break;
        }
    }
    while (at < end && (uint8_t)ptr[at] == skip) {
        at++;
    }
    return at;
}

int64_t bits_find(struct bytes s, uint64_t first, uint64_t last, bool value) {
    dc_assert(first <= last && last / 8 < s.len);
    uint8_t flip = value ? 0 : 0xff; /* what is looked for is a one after this */
    size_t at = (size_t)(first / 8), end = (size_t)(last / 8);
    uint32_t byte = ((uint8_t)s.ptr[at] ^ flip) & (0xffu >> first % 8);
    if (byte == 0 && at < end) {
        at = skip_bytes(s.ptr, at + 1, end, flip);
        byte = (uint8_t)s.ptr[at] ^ flip;
    }
    if (at == end) {
        byte &= 0xffu << (7 - last % 8);
    }
    return byte == 0 ? -1 : (int64_t)at * 8 + __builtin_clz(byte) - 24;
}

/* --- combining --------------------------------------------------------------------------------------- */

static inline uint64_t combine(enum bits_op op, uint64_t a, uint64_t b) {
    switch (op) {
    case BITS_AND:
        return a & b;
    case BITS_OR:
        return a | b;
    case BITS_XOR:
        return a ^ b;
    case BITS_NOT:
        return ~b;
    }
    dc_unreachable();
    return 0;
}

/* Inlined where 'op' is a constant. */
static inline __attribute__((always_inline)) void combine_all(enum bits_op op, char *dst,
                                                              const char *src, size_t len) {
    uint64_t a[BLOCK_WORDS], b[BLOCK_WORDS];
    size_t at = 0;
    for (; at + BLOCK_LEN <= len; at += BLOCK_LEN) {
        memcpy(a, dst + at, BLOCK_LEN);
        memcpy(b, src + at, BLOCK_LEN);
        for (uint32_t i = 0; i < BLOCK_WORDS; i++) {
            a[i] = combine(op, a[i], b[i]);
        }
        memcpy(dst + at, a, BLOCK_LEN);
    }
    for (; at < len; at++) {
        dst[at] = (char)combine(op, (uint8_t)dst[at], (uint8_t)src[at]);
    }
}

void bits_combine(enum bits_op op, char *dst, size_t dst_len, struct bytes src) {
    dc_assert(src.len <= dst_len);
    switch (op) {
    case BITS_AND:
        combine_all(BITS_AND, dst, src.ptr, src.len);
        memset(dst + src.len, 0, dst_len - src.len);
        return;
    case BITS_OR:
        combine_all(BITS_OR, dst, src.ptr, src.len);
        return;
    case BITS_XOR:
        combine_all(BITS_XOR, dst, src.ptr, src.len);
        return;
    case BITS_NOT:
        combine_all(BITS_NOT, dst, src.ptr, src.len);
        return;
    }
    dc_unreachable();
}

/* --- integers ---------------------------------------------------------------------------------------- */

uint64_t bits_get(const uint8_t *field, uint32_t shift, uint32_t width) {
    dc_assert(shift < 8 && width >= 1 && width <= 64);
    uint64_t w = 0;
    for (uint32_t i = 0; i < 8; i++) {
        w = w << 8 | field[i];
    }
    w = w << shift | (uint32_t)field[8] >> (8 - shift);
    return w >> (64 - width);
}

void bits_set(uint8_t *field, uint32_t shift, uint32_t width, uint64_t value) {
    dc_assert(shift < 8 && width >= 1 && width <= 64);
    for (uint32_t i = 0; i < width; i++) {
        uint32_t at = shift + i;
        uint32_t bit = value >> (width - 1 - i) & 1;
        field[at / 8] = (uint8_t)((field[at / 8] & ~(0x80u >> at % 8)) | bit << (7 - at % 8));
    }
}
