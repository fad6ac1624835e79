/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/snap_fmt.h"

#include "server/base/assert.h"
#include "server/base/codec.h"
#include "server/base/limits.h"
#include "server/base/sum.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char MAGIC[8] = {'d', 'c', 'a', 'c', 'h', 'e', 's', 'n'};
static const char END_MAGIC[8] = {'d', 'c', 'a', 'c', 'h', 'e', 'E', 'F'};

enum { HEADER_SUM_AT = SNAP_HEADER_LEN - 8, FOOTER_SUM_AT = SNAP_FOOTER_LEN - 8 };

static void put_history(uint8_t *to, const struct history *h) {
    put_u64(to, h->id);
    put_u64(to + 8, h->start);
    put_u64(to + 16, h->epoch);
    put_u64(to + 24, h->parent_end);
}

static void get_history(const uint8_t *from, struct history *h) {
    h->id = get_u64(from);
    h->start = get_u64(from + 8);
    h->epoch = get_u64(from + 16);
    h->parent_end = get_u64(from + 24);
}

/* --- header ------------------------------------------------------------------------------------------ */

void snap_head_encode(struct snap_head *h, uint8_t to[SNAP_HEADER_LEN]) {
    dc_assert(h->range_bits <= SLOT_BITS && h->start_lsn <= LSN_MAX);
    memcpy(to, MAGIC, sizeof(MAGIC));
    put_u32(to + 8, SNAP_VERSION);
    put_u32(to + 12, SNAP_HEADER_LEN);
    memcpy(to + 16, h->node_id, NODE_ID_LEN);
    memcpy(to + 32, h->seed, SEED_LEN);
    put_u64(to + 48, h->start_lsn);
    put_history(to + 56, &h->history);
    put_u64(to + 88, (uint64_t)h->begun_ms);
    put_u32(to + 96, h->range_bits);
    put_u32(to + 100, 0);
    h->sum = sum64(to, HEADER_SUM_AT, 0);
    put_u64(to + HEADER_SUM_AT, h->sum);
}

uint32_t snap_head_len(const void *ptr) {
    const uint8_t *from = ptr;
    uint32_t len = get_u32(from + 12);
    if (memcmp(from, MAGIC, sizeof(MAGIC)) != 0 || len < SNAP_HEADER_LEN || len > SNAP_HEADER_MAX) {
        return 0;
    }
    return len;
}

enum head_verdict snap_head_decode(const void *ptr, size_t len, struct snap_head *out) {
    const uint8_t *from = ptr;
    if (len < SNAP_HEADER_LEN || memcmp(from, MAGIC, sizeof(MAGIC)) != 0) {
        return HEAD_NOT_OURS;
    }
    uint32_t head_len = snap_head_len(from);
    if (head_len == 0 || head_len > len ||
        sum64(from, head_len - 8, 0) != get_u64(from + head_len - 8)) {
        return HEAD_DAMAGED;
    }
    if (get_u32(from + 8) > SNAP_VERSION) {
        return HEAD_NEWER;
    }
    memcpy(out->node_id, from + 16, NODE_ID_LEN);
    memcpy(out->seed, from + 32, SEED_LEN);
    out->start_lsn = get_u64(from + 48);
    get_history(from + 56, &out->history);
    out->begun_ms = (int64_t)get_u64(from + 88);
    out->range_bits = get_u32(from + 96);
    out->sum = get_u64(from + HEADER_SUM_AT);
    bool good = head_len == SNAP_HEADER_LEN && get_u32(from + 8) == SNAP_VERSION &&
                out->start_lsn <= LSN_MAX && out->range_bits <= SLOT_BITS &&
                get_u32(from + 100) == 0;
    return good ? HEAD_OK : HEAD_DAMAGED;
}

/* --- blocks ------------------------------------------------------------------------------------------ */

/* What head and index entry have in common, from the stored length on. */
static void put_block(uint8_t *to, const struct snap_block_info *b) {
    put_u32(to, b->stored_len);
    put_u32(to + 4, b->plain_len);
    put_u32(to + 8, b->entries);
    put_u32(to + 12, b->range);
    put_u16(to + 16, b->keyspace);
    to[18] = b->kind;
    to[19] = 0;
    put_u64(to + 20, b->first_pos);
}

static uint64_t block_sum(const uint8_t *head, uint32_t stored_len, uint64_t offset,
                          uint64_t head_sum, const void *stored) {
    uint64_t seed = sum64(head + 8, SNAP_BLOCK_HEAD_LEN - 8, sum_seed(head_sum, offset));
    return sum64(stored, stored_len, seed);
}

void snap_block_head_encode(const struct snap_block_info *b, uint64_t head_sum, const void *stored,
                            uint8_t to[SNAP_BLOCK_HEAD_LEN]) {
    put_block(to + 8, b);
    put_u64(to, block_sum(to, b->stored_len, b->offset, head_sum, stored));
}

bool snap_block_head_check(const void *ptr, const struct snap_block_info *b, uint64_t head_sum,
                           const void *stored) {
    const uint8_t *from = ptr;
    uint8_t expected[SNAP_BLOCK_HEAD_LEN];
    put_block(expected + 8, b);
    return memcmp(from + 8, expected + 8, SNAP_BLOCK_HEAD_LEN - 8) == 0 &&
           get_u64(from) == block_sum(from, b->stored_len, b->offset, head_sum, stored);
}

/* --- index ------------------------------------------------------------------------------------------- */

void snap_index_encode(const struct snap_block_info *b, uint8_t to[SNAP_INDEX_ENTRY_LEN]) {
    put_u64(to, b->offset);
    put_block(to + 8, b);
}

bool snap_index_decode(const void *ptr, struct snap_block_info *out) {
    const uint8_t *from = ptr;
    out->offset = get_u64(from);
    out->stored_len = get_u32(from + 8);
    out->plain_len = get_u32(from + 12);
    out->entries = get_u32(from + 16);
    out->range = get_u32(from + 20);
    out->keyspace = get_u16(from + 24);
    out->kind = from[26];
    out->first_pos = get_u64(from + 28);
    bool is_piece = out->kind == SNAP_PIECE && out->entries == 0 &&
                    out->plain_len > SNAP_PIECE_HEAD_LEN &&
                    out->plain_len <= SNAP_PIECE_HEAD_LEN + SNAP_PIECE_LEN;
    bool is_entries = out->kind == SNAP_ENTRIES && out->entries > 0 && out->plain_len > 0;
    return (is_piece || is_entries) && out->stored_len > 0 && from[27] == 0;
}

static int compare(uint64_t a, uint64_t b) {
    return (a > b) - (a < b);
}

int snap_index_compare(const struct snap_block_info *a, const struct snap_block_info *b) {
    int by_range = compare(a->range, b->range);
    int by_keyspace = compare(a->keyspace, b->keyspace);
    int by_kind = compare(a->kind, b->kind);
    int by_pos = compare(a->first_pos, b->first_pos);
    return by_range != 0      ? by_range
           : by_keyspace != 0 ? by_keyspace
           : by_kind != 0     ? by_kind
           : by_pos != 0      ? by_pos
                              : compare(a->offset, b->offset);
}

uint32_t snap_range_of(uint32_t range_bits, uint32_t keyspace, uint64_t pos) {
    return keyspace == KEYSPACE_SYSTEM ? (uint32_t)SLOT_COUNT >> range_bits
                                       : (uint32_t)(pos >> 50 >> range_bits);
}

uint64_t snap_index_sum(const void *ptr, size_t len, uint64_t head_sum) {
    return sum64(ptr, len, head_sum);
}

/* --- footer ------------------------------------------------------------------------------------------ */

size_t snap_footer_len(uint32_t history_count) {
    return SNAP_FOOTER_LEN + (size_t)history_count * SNAP_HISTORY_LEN + SNAP_TRAILER_LEN;
}

static uint64_t footer_sum(const uint8_t *footer, uint32_t history_count, uint64_t head_sum) {
    return sum64(footer + SNAP_FOOTER_LEN, (size_t)history_count * SNAP_HISTORY_LEN,
                 sum64(footer, FOOTER_SUM_AT, head_sum));
}

void snap_footer_encode(const struct snap_footer *f, const struct history *chain, uint64_t head_sum,
                        uint64_t footer_offset, uint8_t *to) {
    dc_assert(f->history_count > 0 && f->history_count <= SNAP_HISTORIES_MAX);
    dc_assert(f->start_lsn <= f->end_lsn && f->end_lsn <= LSN_MAX);
    const uint64_t words[] = {f->index_offset,
                              f->block_count,
                              f->tail_offset,
                              f->tail_len,
                              f->start_lsn,
                              f->end_lsn,
                              f->entries,
                              0,
                              f->plain_bytes,
                              f->index_sum,
                              0,
                              f->stored_bytes};
    static_assert(sizeof(words) == FOOTER_SUM_AT, "the sum follows them");
    memcpy(to, words, sizeof(words));
    put_u64(to + 56, (uint64_t)f->finished_ms);
    put_u32(to + 80, f->history_count);
    put_u32(to + 84, 0);
    uint8_t *at = to + SNAP_FOOTER_LEN;
    for (uint32_t i = 0; i < f->history_count; i++, at += SNAP_HISTORY_LEN) {
        put_history(at, &chain[i]);
    }
    put_u64(to + FOOTER_SUM_AT, footer_sum(to, f->history_count, head_sum));
    put_u64(at, footer_offset);
    memcpy(at + 8, END_MAGIC, sizeof(END_MAGIC));
}

uint64_t snap_trailer_decode(const void *ptr, uint64_t file_len) {
    const uint8_t *from = ptr;
    uint64_t offset = get_u64(from);
    if (memcmp(from + 8, END_MAGIC, sizeof(END_MAGIC)) != 0 || offset >= file_len ||
        file_len - offset < snap_footer_len(1) ||
        file_len - offset > snap_footer_len(SNAP_HISTORIES_MAX)) {
        return 0;
    }
    return offset;
}

bool snap_footer_decode(const void *ptr, size_t len, uint64_t head_sum, struct snap_footer *out,
                        struct history *chain) {
    const uint8_t *from = ptr;
    if (len < SNAP_FOOTER_LEN) {
        return false;
    }
    uint32_t count = get_u32(from + 80);
    if (count == 0 || count > SNAP_HISTORIES_MAX ||
        len != SNAP_FOOTER_LEN + (size_t)count * SNAP_HISTORY_LEN ||
        get_u64(from + FOOTER_SUM_AT) != footer_sum(from, count, head_sum)) {
        return false;
    }
    *out = (struct snap_footer){
        .index_offset = get_u64(from),
        .block_count = get_u64(from + 8),
        .tail_offset = get_u64(from + 16),
        .tail_len = get_u64(from + 24),
        .start_lsn = get_u64(from + 32),
        .end_lsn = get_u64(from + 40),
        .entries = get_u64(from + 48),
        .finished_ms = (int64_t)get_u64(from + 56),
        .plain_bytes = get_u64(from + 64),
        .index_sum = get_u64(from + 72),
        .history_count = count,
        .stored_bytes = get_u64(from + 88),
    };
    for (uint32_t i = 0; i < count; i++) {
        get_history(from + SNAP_FOOTER_LEN + (size_t)i * SNAP_HISTORY_LEN, &chain[i]);
    }
    return out->start_lsn <= out->end_lsn && out->end_lsn <= LSN_MAX && get_u32(from + 84) == 0;
}

/* --- ages and names ---------------------------------------------------------------------------------- */

enum { AGE_UNIT_MS = 500, AGE_BITS = 3, AGE_LEADING = 1 << AGE_BITS };

/* Code = octave * 8 + the bits behind the leading one; the first two octaves are the numbers themselves. */
uint8_t snap_age_encode(int64_t idle_ms) {
    uint64_t units = idle_ms < 0 ? 0 : (uint64_t)idle_ms / AGE_UNIT_MS;
    if (units < 2 * AGE_LEADING) {
        return (uint8_t)units;
    }
    uint32_t octave = 63 - (uint32_t)__builtin_clzll(units) - AGE_BITS;
    uint64_t code = (uint64_t)(octave + 1) * AGE_LEADING + ((units >> octave) - AGE_LEADING);
    return code > UINT8_MAX ? UINT8_MAX : (uint8_t)code;
}

/* The middle of what has this code. */
int64_t snap_age_ms(uint8_t age) {
    if (age < 2 * AGE_LEADING) {
        return (int64_t)age * AGE_UNIT_MS;
    }
    uint32_t octave = age / AGE_LEADING - 1u;
    uint64_t units = (uint64_t)(AGE_LEADING + age % AGE_LEADING) << octave;
    return (int64_t)((units + ((uint64_t)1 << octave) / 2) * AGE_UNIT_MS);
}

void snap_name(uint64_t end_lsn, uint64_t history_id, char to[SNAP_NAME_MAX]) {
    snprintf(to, SNAP_NAME_MAX, "snap-%016" PRIx64 "-%016" PRIx64 ".dcs", end_lsn, history_id);
}

static bool parse_hex(const char *text, uint64_t *out) {
    uint64_t v = 0;
    for (int i = 0; i < 16; i++) {
        const char *digits = "0123456789abcdef";
        const char *at = text[i] != '\0' ? strchr(digits, text[i]) : NULL;
        if (at == NULL) {
            return false;
        }
        v = v << 4 | (uint64_t)(at - digits);
    }
    *out = v;
    return true;
}

bool snap_name_parse(const char *name, uint64_t *end_lsn, uint64_t *history_id) {
    return strlen(name) == 42 && memcmp(name, "snap-", 5) == 0 && parse_hex(name + 5, end_lsn) &&
           name[21] == '-' && parse_hex(name + 22, history_id) && strcmp(name + 38, ".dcs") == 0;
}
