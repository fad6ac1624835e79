/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lg_wire: keys, values, requests and replies as bytes, and the sockets that carry them.
 *
 * Purpose. What a client must do per operation, at the price of a few copies, so that the server is
 *   the slower side even with long pipelines.
 * Invariants. I1: a key has LG_KEY_LEN bytes. I2: the first eight bytes of a value (of as many as it has)
 *   and its length are functions of the id of its key; the rest is a piece of one pool of random bytes, or made
 *   for this key (lg_wire_use_values()).
 * Threads. lg_wire_init() once, before all; then anybody, each connection in one thread.
 */
#ifndef DC_TESTS_BENCH_LG_WIRE_H
#define DC_TESTS_BENCH_LG_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LG_KEY_LEN = 15,
    LG_VALUE_MAX = 4096,
    LG_REQUEST_MAX = LG_VALUE_MAX + 128, /* longest request and longest reply */
};

/* An id with this bit stands for a key of another family: `one:`, asked for once. */
#define LG_ONE_HIT (UINT64_C(1) << 63)

struct lg_rng {
    uint64_t s[4];
};

/* The numbers of --values. */
enum lg_values { LG_VALUES_POOL, LG_VALUES_RANDOM, LG_VALUES_TEXT };

enum lg_kind { LG_PARTIAL, LG_STATUS, LG_ERROR, LG_INTEGER, LG_BULK, LG_NULL };

struct lg_reply {
    enum lg_kind kind;
    size_t len;       /* bytes of the whole reply */
    const char *body; /* LG_BULK: the value; LG_ERROR: the text; points into the buffer */
    size_t body_len;
    uint64_t integer;
};

void lg_wire_init(uint64_t seed);
/* Before the first request. Pieces of one pool repeat; what is to be compressed must not, or only as text does. */
void lg_wire_use_values(enum lg_values values);

uint64_t lg_mix64(uint64_t x);
void lg_rng_seed(struct lg_rng *r, uint64_t seed);
uint64_t lg_rng_next(struct lg_rng *r);
uint64_t lg_rng_below(struct lg_rng *r, uint64_t bound);

/* The length of the value of key `id`, uniform over min..max. */
size_t lg_value_len(uint64_t id, uint64_t min, uint64_t max);
bool lg_value_is_of(uint64_t id, const char *value, size_t len);

/* Write one request at `p` and return its end; LG_REQUEST_MAX bytes must be free. ttl_ms 0: no PX. */
char *lg_put_get(char *p, uint64_t id);
char *lg_put_set(char *p, uint64_t id, size_t len, uint64_t ttl_ms);

/* Look at the first reply of the buffer. LG_PARTIAL: more bytes are needed, nothing else is set. */
struct lg_reply lg_reply_scan(const char *p, size_t avail);
/* The same where anything but a complete reply of this kind is a failure. */
void lg_reply_refuse(struct lg_reply reply);

/* A blocking, connected socket with TCP_NODELAY. `source` numbers the address that it comes from: 127.0.x.y. */
int lg_connect(uint64_t port, uint64_t source);
/* Such a socket whose writes are answered when 'replicas' have them (CLIENT ACK); 0: as the server has it. */
int lg_connect_acked(uint64_t port, uint64_t replicas);
void lg_send_all(int fd, const char *p, size_t len);
/* At least one byte, else lg_die(). */
size_t lg_recv_some(int fd, char *p, size_t size);

#endif
