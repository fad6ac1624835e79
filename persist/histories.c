/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/histories.h"

#include "persist/snap_fmt.h"
#include "server/base/assert.h"
#include "server/base/mem.h"

#include <string.h>

struct histories *histories_copy(const struct history *list, uint32_t count) {
    struct histories *h = mem_must_alloc(sizeof(*h) + count * sizeof(h->list[0]));
    h->count = count;
    if (count > 0) {
        memcpy(h->list, list, count * sizeof(h->list[0]));
    }
    return h;
}

struct histories *histories_add(const struct histories *h, const struct history *next) {
    dc_assert(h->count <= SNAP_HISTORIES_MAX);
    uint32_t kept = h->count == SNAP_HISTORIES_MAX ? h->count - 1 : h->count;
    struct histories *more = mem_must_alloc(sizeof(*more) + (kept + 1) * sizeof(more->list[0]));
    memcpy(more->list, h->list + (h->count - kept), kept * sizeof(h->list[0]));
    more->list[kept] = *next;
    more->count = kept + 1;
    return more;
}

const struct history *histories_last(const struct histories *h) {
    return h->count > 0 ? &h->list[h->count - 1] : NULL;
}

uint64_t histories_end(const struct histories *h, uint32_t index) {
    uint64_t end = UINT64_MAX;
    for (uint32_t i = index + 1; i < h->count; i++) {
        end = h->list[i].parent_end < end ? h->list[i].parent_end : end;
    }
    return end;
}

bool histories_lost(const struct histories *h, uint64_t lsn) {
    for (uint32_t i = 1; i < h->count; i++) {
        if (lsn > h->list[i].parent_end && lsn <= h->list[i].start) {
            return true;
        }
    }
    return false;
}

/* From the newest back to the oldest: so the end of each part is known when it is looked at. */
uint64_t histories_distance(const struct histories *h, uint64_t from, uint64_t to) {
    uint64_t sum = 0;
    uint64_t end = UINT64_MAX;
    for (uint32_t i = h->count; i-- > 0;) {
        uint64_t low = from > h->list[i].start ? from : h->list[i].start;
        uint64_t high = to < end ? to : end;
        sum += high > low ? high - low : 0;
        end = h->list[i].parent_end < end ? h->list[i].parent_end : end;
    }
    return sum;
}

bool histories_continue(const struct history *known, uint32_t known_count,
                        const struct history *chain, uint32_t count, uint64_t at) {
    if (known_count == 0) {
        return count == 1 && chain[0].parent_end == 0;
    }
    uint32_t expected = known_count < SNAP_HISTORIES_MAX ? known_count + 1 : SNAP_HISTORIES_MAX;
    return count == expected && count >= 2 && chain[count - 2].id == known[known_count - 1].id &&
           chain[count - 1].parent_end == at;
}
