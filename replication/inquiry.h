/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * inquiry: one question to a peer (PROBE), by a thread of its own: what it is, and what it has.
 *
 * Threads: the owner; inquiry_is_over() says when the rest may be asked. Ownership: the view lives until inquiry_destroy().
 */
#ifndef DC_REPLICATION_INQUIRY_H
#define DC_REPLICATION_INQUIRY_H

#include "replication/peers.h"
#include "replication/self.h"
#include "server/base/wake.h"

struct inquiry;

/* 'wake' is raised when it is over. */
struct inquiry *inquiry_start(struct self *self, const struct peers_entry *peer, int64_t timeout_ms,
                              struct wake *wake);
bool inquiry_is_over(const struct inquiry *q);
const uint8_t *inquiry_asked(const struct inquiry *q);
/* Who has answered, and its view; NULL = it was silent. */
const struct chain_view *inquiry_answer(const struct inquiry *q, const uint8_t **peer_id);
/* Ends it, also while it waits. NULL is legal. */
void inquiry_destroy(struct inquiry *q);

#endif
