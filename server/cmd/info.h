/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * info: the state of the node as text, and the samples that its rates need.
 *
 * Purpose: INFO's sections, with Redis's names where the notion is the same; sums over the workers since the last
 *   CONFIG RESETSTAT.
 * Threads: info_sample() is the janitor's; a worker's errors are its own to count; the rest any (lock INFO).
 */
#ifndef DC_CMD_INFO_H
#define DC_CMD_INFO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/base/buf.h"
#include "server/base/bytes.h"
#include "server/cmd/latency.h"

struct cmd;
struct cmd_worker;
struct info;
struct node;

/* The version of Redis whose commands and replies these are: clients choose features by it. */
#define DC_REDIS_VERSION "7.0.15"

enum { INFO_ERRORS_MAX = 128, INFO_PREFIX_MAX = 32 };

/* Error replies by the word that they begin with. Rows below 'used' don't change but for the count. */
struct info_errors {
    _Atomic uint32_t used;
    struct info_error {
        char prefix[INFO_PREFIX_MAX];
        _Atomic uint64_t count;
    } rows[INFO_ERRORS_MAX];
};

struct info *info_create(void);
void info_destroy(struct info *info);

/* An error reply was sent that begins with this word ("ERR"). What is one kind too many isn't counted by kind. */
void info_count_error(struct cmd_worker *w, struct bytes prefix);

/* Every 100 ms: rates. */
void info_sample(struct node *n);

/* CONFIG RESETSTAT: everything counts from here. */
void info_reset(struct node *n);

/* What commands did since the last reset, over all workers. */
struct info_command {
    uint64_t calls;
    uint64_t ticks;
    uint64_t rejected;
    uint64_t failed;
    uint64_t histogram[LATENCY_BUCKETS];
};
void info_command(struct node *n, const struct cmd *cmd, struct info_command *out);

/* Error replies since the last reset, over all workers, by prefix. Returns how many rows there are. */
struct info_error_sum {
    char prefix[INFO_PREFIX_MAX];
    uint64_t count;
};
uint32_t info_error_sums(struct node *n, struct info_error_sum out[INFO_ERRORS_MAX]);

/* The janitor has swept for 'us'; a round ends when everything due was seen. */
void info_note_sweep(struct node *n, int64_t us, uint64_t expired, bool round_ended);

/* Means of the last 1.6 seconds, and what the sweep did. */
struct info_rates {
    uint64_t commands_per_s;
    uint64_t input_per_s;
    uint64_t output_per_s;
    uint64_t sweep_us;
    uint64_t sweep_rounds;
    uint64_t sweep_cut_short;    /* times that there was more to do than time */
    uint64_t expired_last_round; /* so many were found resident after their expiry */
};
void info_rates(struct node *n, struct info_rates *out);

/* info_repl.c: the section replication. */
void info_write_replication(struct node *n, struct buf *out);

/* info_text.c: the sections that these words ask for, as INFO takes them; none = the default ones. */
void info_write(struct node *n, const struct bytes *words, uint32_t count, struct buf *out);

#endif
