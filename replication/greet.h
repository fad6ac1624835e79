/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * greet: the side that connects says who it is, and hears what the other one makes of that.
 *
 * Threads: the owner of the link. Failure: as the link's; DC_EPROTO: what was answered makes no sense, or this node has answered itself.
 */
#ifndef DC_REPLICATION_GREET_H
#define DC_REPLICATION_GREET_H

#include "replication/link.h"
#include "replication/self.h"

struct greeting {
    struct history chain[WIRE_CHAIN_MAX]; /* of the source */
    struct chain_view self, source;       /* as they were told */
    struct chain_answer answer;
    uint8_t peer_id[PEER_ID_LEN]; /* the source's */
    char text[WIRE_TEXT_MAX + 1]; /* the reason */
};

DC_MUST enum dc_err greet_create(const struct self *s, int64_t timeout_ms, struct link **out);
/* Connects a link that was created, with the password or the key that the options name. */
DC_MUST enum dc_err greet_connect(const struct self *s, struct link *l, const char *host,
                                  uint16_t port);
/* HELLO and ANSWER. 'out' is large. */
DC_MUST enum dc_err greet_exchange(const struct self *s, struct link *l, enum wire_purpose purpose,
                                   struct chain_ask ask, int64_t timeout_ms, struct greeting *out);

#endif
