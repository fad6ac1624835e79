/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * histories: the chain of a node's log: which stretches of which histories it consists of.
 *
 * Purpose: what a running node publishes of its chain. It never changes; a new history gives a new one.
 * Ownership: histories_copy() and histories_add() allocate; mem_free() frees.
 */
#ifndef DC_PERSIST_HISTORIES_H
#define DC_PERSIST_HISTORIES_H

#include <stdbool.h>
#include <stdint.h>

#include "persist/lsn.h"

struct histories {
    uint32_t count;
    struct history list[]; /* oldest first; the last one is current */
};

struct histories *histories_copy(const struct history *list, uint32_t count);
/* With one more; a chain that is full forgets its beginning. */
struct histories *histories_add(const struct histories *h, const struct history *next);

/* NULL: there is none. */
const struct history *histories_last(const struct histories *h);
/* LSN up to which a history is part of the chain: the fork that left it; UINT64_MAX for the newest. */
uint64_t histories_end(const struct histories *h, uint32_t index);
/* An LSN that a history had and the one that followed it hasn't. */
bool histories_lost(const struct histories *h, uint64_t lsn);
/* Bytes of log from one LSN of the chain up to another: jumps don't count; 0 if that lies before. */
uint64_t histories_distance(const struct histories *h, uint64_t from, uint64_t to);

/* The chain that a FORK frame brings is 'known' and one history more, which goes on from 'at'. An empty one is followed by a first history. */
bool histories_continue(const struct history *known, uint32_t known_count,
                        const struct history *chain, uint32_t count, uint64_t at);

#endif
