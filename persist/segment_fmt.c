/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/segment_fmt.h"

#include "server/base/assert.h"
#include "server/base/codec.h"
#include "server/base/sum.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char magic[8] = {'d', 'c', 'a', 'c', 'h', 'e', 'l', 'g'};

enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_HEADER_LEN = 12,
    AT_NODE_ID = 16,
    AT_SEED = 32,
    AT_FIRST_LSN = 48,
    AT_HISTORY_ID = 56,
    AT_HISTORY_START = 64,
    AT_EPOCH = 72,
    AT_PARENT_END = 80,
    AT_CREATED = 88,
    AT_SUM = 96,
    MARK_SUM_AT = 16, /* in the mark */
};
_Static_assert(AT_SUM + 8 == SEGMENT_HEADER_USED, "the sum ends the header");
_Static_assert(SEGMENT_HEADER_USED <= SEGMENT_MARK_AT, "header and mark lie apart");
_Static_assert(SEGMENT_MARK_AT % 512 == 0, "the mark has a sector of its own");
_Static_assert(SEGMENT_MARK_AT + SEGMENT_MARK_LEN <= SEGMENT_HEADER_LEN, "both are in the page");

/* What no segment says, whatever its sum. */
static bool head_makes_sense(const struct segment_head *h) {
    const struct history *hist = &h->history;
    return hist->id != 0 && hist->start != 0 && hist->start <= h->first_lsn &&
           h->first_lsn <= LSN_MAX && hist->parent_end <= hist->start;
}

static bool is_zero(const uint8_t *ptr, size_t from, size_t to, size_t len) {
    to = to < len ? to : len;
    for (size_t i = from; i < to; i++) {
        if (ptr[i] != 0) {
            return false;
        }
    }
    return true;
}

void segment_head_encode(const struct segment_head *h, uint8_t to[SEGMENT_HEADER_USED]) {
    dc_assert(head_makes_sense(h));
    memcpy(to + AT_MAGIC, magic, sizeof(magic));
    put_u32(to + AT_VERSION, SEGMENT_VERSION);
    put_u32(to + AT_HEADER_LEN, SEGMENT_HEADER_LEN);
    memcpy(to + AT_NODE_ID, h->node_id, NODE_ID_LEN);
    memcpy(to + AT_SEED, h->seed, SEED_LEN);
    put_u64(to + AT_FIRST_LSN, h->first_lsn);
    put_u64(to + AT_HISTORY_ID, h->history.id);
    put_u64(to + AT_HISTORY_START, h->history.start);
    put_u64(to + AT_EPOCH, h->history.epoch);
    put_u64(to + AT_PARENT_END, h->history.parent_end);
    put_u64(to + AT_CREATED, (uint64_t)h->created_ms);
    put_u64(to + AT_SUM, sum64(to, AT_SUM, 0));
}

enum head_verdict segment_head_decode(const void *ptr, size_t len, struct segment_head *out) {
    const uint8_t *from = ptr;
    memset(out, 0, sizeof(*out));
    if (len < SEGMENT_HEADER_USED) {
        return HEAD_DAMAGED;
    }
    if (memcmp(from + AT_MAGIC, magic, sizeof(magic)) != 0) {
        return HEAD_NOT_OURS;
    }
    /* The sum stands at the same place in every version: a flipped version isn't taken for a newer one. */
    if (get_u64(from + AT_SUM) != sum64(from, AT_SUM, 0)) {
        return HEAD_DAMAGED;
    }
    if (get_u32(from + AT_VERSION) > SEGMENT_VERSION) {
        return HEAD_NEWER;
    }
    if (get_u32(from + AT_VERSION) != SEGMENT_VERSION ||
        get_u32(from + AT_HEADER_LEN) != SEGMENT_HEADER_LEN) {
        return HEAD_DAMAGED;
    }
    memcpy(out->node_id, from + AT_NODE_ID, NODE_ID_LEN);
    memcpy(out->seed, from + AT_SEED, SEED_LEN);
    out->first_lsn = get_u64(from + AT_FIRST_LSN);
    out->history.id = get_u64(from + AT_HISTORY_ID);
    out->history.start = get_u64(from + AT_HISTORY_START);
    out->history.epoch = get_u64(from + AT_EPOCH);
    out->history.parent_end = get_u64(from + AT_PARENT_END);
    out->created_ms = (int64_t)get_u64(from + AT_CREATED);
    bool rest = is_zero(from, SEGMENT_HEADER_USED, SEGMENT_MARK_AT, len) &&
                is_zero(from, SEGMENT_MARK_AT + SEGMENT_MARK_LEN, SEGMENT_HEADER_LEN, len);
    return rest && head_makes_sense(out) ? HEAD_OK : HEAD_DAMAGED;
}

void segment_mark_encode(uint64_t first_lsn, const struct segment_mark *mark,
                         uint8_t to[SEGMENT_MARK_LEN]) {
    dc_assert(mark->durable_lsn >= first_lsn && mark->durable_lsn <= LSN_MAX);
    put_u64(to, mark->durable_lsn);
    put_u64(to + 8, (uint64_t)mark->time_ms);
    put_u64(to + MARK_SUM_AT, sum64(to, MARK_SUM_AT, first_lsn));
}

int segment_mark_put(const struct io *io, struct io_file *f, uint64_t first_lsn,
                     const struct segment_mark *mark) {
    uint8_t bytes[SEGMENT_MARK_LEN];
    segment_mark_encode(first_lsn, mark, bytes);
    struct iovec iov = {bytes, sizeof(bytes)};
    ssize_t n = io->write_at(io, f, &iov, 1, SEGMENT_MARK_AT);
    return n < 0 ? (int)n : 0;
}

enum mark_verdict segment_mark_read(const void *ptr, size_t len, uint64_t first_lsn,
                                    struct segment_mark *out) {
    const uint8_t *mark = (const uint8_t *)ptr + SEGMENT_MARK_AT;
    *out = (struct segment_mark){.durable_lsn = first_lsn};
    if (len < SEGMENT_MARK_AT + SEGMENT_MARK_LEN || is_zero(mark, 0, SEGMENT_MARK_LEN, SIZE_MAX)) {
        return MARK_NONE;
    }
    uint64_t lsn = get_u64(mark);
    if (get_u64(mark + MARK_SUM_AT) != sum64(mark, MARK_SUM_AT, first_lsn) || lsn < first_lsn ||
        lsn > LSN_MAX) {
        return MARK_DAMAGED;
    }
    *out = (struct segment_mark){lsn, (int64_t)get_u64(mark + 8)};
    return MARK_OK;
}

uint64_t segment_mark_decode(const void *ptr, size_t len, uint64_t first_lsn) {
    struct segment_mark mark;
    segment_mark_read(ptr, len, first_lsn, &mark);
    return mark.durable_lsn;
}

bool segment_head_is_blank(const void *ptr, size_t len) {
    return is_zero(ptr, 0, SEGMENT_MARK_AT, len) &&
           is_zero(ptr, SEGMENT_MARK_AT + SEGMENT_MARK_LEN, SEGMENT_HEADER_LEN, len);
}

void segment_name(uint64_t first_lsn, uint64_t history_id, char to[SEGMENT_NAME_MAX]) {
    snprintf(to, SEGMENT_NAME_MAX, "log-%016" PRIx64 "-%016" PRIx64 ".dcl", first_lsn, history_id);
}

void segment_tmp_name(uint64_t first_lsn, uint64_t history_id, uint32_t number,
                      char to[SEGMENT_NAME_MAX]) {
    snprintf(to, SEGMENT_NAME_MAX, "log-%016" PRIx64 "-%016" PRIx64 "-%" PRIu32 ".tmp", first_lsn,
             history_id, number);
}

static bool parse_hex(const char *text, uint64_t *out) {
    uint64_t v = 0;
    for (int i = 0; i < 16; i++) {
        char c = text[i];
        if (c >= '0' && c <= '9') {
            v = v << 4 | (uint64_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            v = v << 4 | (uint64_t)(c - 'a' + 10);
        } else {
            return false;
        }
    }
    *out = v;
    return true;
}

/* Up to the end of the history; returns what follows, NULL = it is no segment. */
static const char *parse_numbers(const char *name, uint64_t *first_lsn, uint64_t *history_id) {
    enum { LEN = sizeof("log-0123456789abcdef-0123456789abcdef") - 1 };
    bool ok = strlen(name) > LEN && memcmp(name, "log-", 4) == 0 &&
              parse_hex(name + 4, first_lsn) && name[20] == '-' && parse_hex(name + 21, history_id);
    return ok ? name + LEN : NULL;
}

bool segment_name_parse(const char *name, uint64_t *first_lsn, uint64_t *history_id) {
    const char *end = parse_numbers(name, first_lsn, history_id);
    return end != NULL && strcmp(end, ".dcl") == 0;
}

bool segment_tmp_name_parse(const char *name, uint64_t *first_lsn, uint64_t *history_id,
                            uint32_t *number) {
    const char *end = parse_numbers(name, first_lsn, history_id);
    size_t digits = end != NULL && *end == '-' ? strspn(end + 1, "0123456789") : 0;
    if (number != NULL) {
        *number = digits > 0 ? (uint32_t)strtoul(end + 1, NULL, 10) : 0;
    }
    return digits > 0 && digits <= 10 && strcmp(end + 1 + digits, ".tmp") == 0;
}
