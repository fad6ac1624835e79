/* SPDX-License-Identifier: BSD-3-Clause */
/* limits: every bound of the program. */
#ifndef DC_BASE_LIMITS_H
#define DC_BASE_LIMITS_H

#include <assert.h>
#include <stdint.h>

enum {
    SLOT_BITS = 14,
    SLOT_COUNT = 1 << SLOT_BITS, /* slots of a keyspace, as Redis Cluster counts them */
    KEYSPACE_MAX = 16,           /* databases */
    KEYSPACE_SYSTEM = 0xffff,    /* number of the system keyspace, in memory and in files */
    WORKER_MAX = 64,

    BLOB_MIN_LEN = 64 * 1024 + 1, /* a value from this length on is a counted blob */

    REQUEST_ARGS_MAX = 1024 * 1024,  /* arguments of one command */
    REQUEST_ARGS_UNAUTH_MAX = 10,    /* before AUTH */
    REQUEST_BULK_UNAUTH_MAX = 16384, /* length of an argument before AUTH */
    INLINE_LEN_MAX = 64 * 1024,      /* an inline command, or the line of a length */

    READ_CHUNK_LEN = 16 * 1024,       /* read from one connection in one turn */
    BATCH_REQUESTS_MAX = 64,          /* requests of one connection parsed ahead */
    READ_LARGE_LEN = 1024 * 1024,     /* read at once of an argument that is known to be long */
    TURN_ARENA_LEN = 4 * 1024 * 1024, /* input of one turn; then the queued requests run first */
    OUTPUT_SOFT_LEN = 1024 * 1024,    /* unsent replies beyond which a connection isn't read from */
    SEND_FRESH_LEN = 2 * OUTPUT_SOFT_LEN, /* of a turn's own replies sent at once ... */
    SEND_TURN_LEN = 512 * 1024,           /* ... and of what is queued */

    PINS_MAX = 128,          /* readers for whom log is held back from retention */
    REPLICAS_MAX = 32,       /* links to replicas at a time */
    PEERS_MAX = 64,          /* replicas that a node remembers */
    HOST_NAME_MAX_LEN = 256, /* of another node, with its NUL */

    CLIENT_NAME_MAX = 1024,
    CONF_FILE_MAX = 1024 * 1024,
    CONF_WORDS_MAX = 64, /* of one line */
    CONF_VALUE_MAX = 4096,
    BIND_ADDRESSES_MAX = 16,
    LISTENERS_MAX = BIND_ADDRESSES_MAX + 1, /* and a Unix socket */
    GLOB_NESTING_MAX = 1000,                /* wildcards '*' in a pattern, as Redis bounds them */
    DIAG_LINE_MAX = 2048,

    WIRE_BYTES_MAX = 1024 * 1024, /* of a log or of a snapshot in one message of a link */
    WIRE_CHAIN_MAX = 8192,        /* histories in one message */
    WIRE_TEXT_MAX = 1024,         /* a reason */
    WIRE_ADDRESS_MAX = 255,       /* a host name, an IP address */
    WIRE_NAME_MAX = 255,          /* of a file */

    ERR_TEXT_MAX = 512,
};

/* The largest value whatever proto-max-bulk-len says. */
#define VALUE_LEN_MAX ((uint64_t)512 * 1024 * 1024)

static_assert(BLOB_MIN_LEN > READ_CHUNK_LEN, "a blob never arrives whole in one read");
static_assert(TURN_ARENA_LEN >= 4 * READ_CHUNK_LEN, "a turn holds several reads");

#endif
