/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ack: how safe a write has to be before its reply leaves.
 *
 * Purpose: a level names what is waited for: this node's memory, kernel or disk, and copies on replicas. As text: parts joined by '+',
 *
 *     memory | os | disk | replicas:N | replicas:N:disk | quorum | quorum:disk        e.g. disk+replicas:1
 *
 *   or "default": the level that the layer above has. What a level doesn't name isn't waited for.
 * Invariants: I1 a struct of zeros is "default". I2 parse and text are each other's reverse, but for a needless "memory+".
 * Threads: pure functions.
 */
#ifndef DC_BASE_ACK_H
#define DC_BASE_ACK_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "server/base/bytes.h"

enum ack_local { ACK_DEFAULT, ACK_MEMORY, ACK_OS, ACK_DISK };

struct ack_level {
    uint8_t local;      /* enum ack_local; ACK_DEFAULT: then the rest is 0 */
    uint8_t replicas;   /* so many of them, 0 = none */
    bool quorum;        /* of the node and its known replicas a majority; 'replicas' is 0 then */
    bool replicas_disk; /* on their disks; else received */
};

static_assert(sizeof(struct ack_level) == sizeof(uint32_t), "a level is compared as a word");

enum { ACK_TEXT_MAX = 48 };

static inline uint32_t ack_word(struct ack_level level) {
    uint32_t word;
    memcpy(&word, &level, sizeof(word));
    return word;
}

static inline struct ack_level ack_of_word(uint32_t word) {
    struct ack_level level;
    memcpy(&level, &word, sizeof(level));
    return level;
}

static inline bool ack_is_default(struct ack_level level) {
    return ack_word(level) == 0;
}

/* False when the text is no level. */
bool ack_parse(struct bytes text, struct ack_level *out);
/* Returns the length; 'to' has ACK_TEXT_MAX bytes and ends with NUL. */
size_t ack_text(struct ack_level level, char *to);

#endif
