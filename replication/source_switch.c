/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A planned switch, as far as it goes over links: one replica is told to be the primary. Whether it does that shows in two ways: it answers a question
 * as a primary, or it comes again as a replica. One of them is certain: who was told and comes again never saw the message, or failed.
 */
#include "replication/source_priv.h"
#include "server/base/assert.h"
#include "server/base/diag.h"

#include <inttypes.h>
#include <string.h>

static bool is_of(const struct session *s, const uint8_t *peer_id) {
    return s->attends && !atomic_load_explicit(&s->stop, memory_order_acquire) &&
           memcmp(s->peer_id, peer_id, PEER_ID_LEN) == 0;
}

bool source_promote(struct source *src, const uint8_t *peer_id, uint64_t lsn, uint64_t epoch) {
    struct session *found = NULL;
    uint32_t count = 0;
    dc_assert(epoch > 0);
    lock_acquire(&src->lock);
    for (struct session *s = src->sessions; s != NULL; s = s->next) {
        if (is_of(s, peer_id)) {
            found = s;
            count++;
        }
    }
    if (count == 1) {
        src->switches = true;
        src->came_back = false;
        memcpy(src->switch_peer, peer_id, PEER_ID_LEN);
        found->promote_lsn = lsn;
        /* pairs with the acquire in session_promote */
        atomic_store_explicit(&found->promote_epoch, epoch, memory_order_release);
        wake_raise(&found->wake);
    }
    lock_release(&src->lock);
    return count == 1;
}

enum dc_err session_promote(struct session *s) {
    uint8_t body[WIRE_PROMOTE_LEN];
    uint64_t epoch = atomic_load_explicit(&s->promote_epoch, memory_order_acquire);
    if (epoch == 0 || s->sent < s->promote_lsn) {
        return DC_OK;
    }
    if (!atomic_compare_exchange_strong_explicit(&s->promote_epoch, &epoch, 0, memory_order_acq_rel,
                                                 memory_order_relaxed)) {
        return DC_OK; /* taken back */
    }
    wire_promote_encode(&(struct wire_promote){.lsn = s->promote_lsn, .epoch = epoch}, body);
    diag(DIAG_NOTICE, "source.promote peer=%s lsn=%" PRIu64 " epoch=%" PRIu64, link_peer(s->link),
         s->promote_lsn, epoch);
    return link_send(s->link, WIRE_PROMOTE, bytes_of((const char *)body, sizeof(body)), NULL, 0);
}

void source_note_follower(struct source *src, const uint8_t *peer_id) {
    lock_acquire(&src->lock);
    if (src->switches && memcmp(src->switch_peer, peer_id, PEER_ID_LEN) == 0) {
        src->came_back = true;
    }
    lock_release(&src->lock);
}

bool source_promote_failed(struct source *src) {
    lock_acquire(&src->lock);
    bool came_back = src->came_back;
    lock_release(&src->lock);
    return came_back;
}

void source_promote_end(struct source *src) {
    lock_acquire(&src->lock);
    src->switches = src->came_back = false;
    for (struct session *s = src->sessions; s != NULL; s = s->next) {
        atomic_store_explicit(&s->promote_epoch, 0, memory_order_release);
    }
    lock_release(&src->lock);
}
