/* SPDX-License-Identifier: BSD-3-Clause */
#include "persist/sequencer.h"

#include "persist/frame_fmt.h"
#include "server/base/assert.h"

void sequencer_init(struct sequencer *q, uint64_t first_lsn) {
    dc_assert(first_lsn > 0 && first_lsn < LSN_MAX / 2);
    atomic_init(&q->head, first_lsn);
}

struct lsn sequencer_commit(struct sequencer *q, struct mut *m) {
    if (m->count == 0) {
        return sequencer_head(q);
    }
    uint64_t len = frame_measure(m)->len;
    /* Relaxed: the slot locks order what belongs together, the number itself guards nothing. */
    uint64_t lsn = atomic_fetch_add_explicit(&q->head, len, memory_order_relaxed);
    dc_assert(lsn + len < LSN_MAX);
    (void)frame_assign(m, lsn);
    mut_commit(m);
    return (struct lsn){lsn + len};
}

struct lsn sequencer_head(const struct sequencer *q) {
    return (struct lsn){atomic_load_explicit(&q->head, memory_order_relaxed)};
}
