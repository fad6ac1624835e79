/* SPDX-License-Identifier: BSD-3-Clause */
/* codec: little-endian numbers of explicit width in bytes of any alignment. */
#ifndef DC_BASE_CODEC_H
#define DC_BASE_CODEC_H

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#    error "the codec copies native words: add byte swaps here for a big-endian machine"
#endif

static inline uint16_t get_u16(const void *from) {
    uint16_t v;
    memcpy(&v, from, sizeof(v));
    return v;
}

static inline uint32_t get_u32(const void *from) {
    uint32_t v;
    memcpy(&v, from, sizeof(v));
    return v;
}

static inline uint64_t get_u64(const void *from) {
    uint64_t v;
    memcpy(&v, from, sizeof(v));
    return v;
}

static inline void put_u16(void *to, uint16_t v) {
    memcpy(to, &v, sizeof(v));
}

static inline void put_u32(void *to, uint32_t v) {
    memcpy(to, &v, sizeof(v));
}

static inline void put_u64(void *to, uint64_t v) {
    memcpy(to, &v, sizeof(v));
}

#endif
