/* SPDX-License-Identifier: BSD-3-Clause */
/* unkept_log: the log of a node that keeps none (appendonly no), for tests that need positions and no files. */
#ifndef TESTS_SUPPORT_UNKEPT_LOG_H
#define TESTS_SUPPORT_UNKEPT_LOG_H

#include "persist/log.h"

#include <check.h>

static inline struct log *unkept_log_open(void) {
    static const uint8_t id[NODE_ID_LEN];
    struct log_opts opts = {.io = &io_posix,
                            .dir = ".",
                            .node_id = id,
                            .seed = id,
                            .history = {.id = 1, .start = LSN_FIRST},
                            .first_lsn = LSN_FIRST,
                            .segment_len = 1 << 20,
                            .memory_limit = 1 << 20};
    struct log *log;
    ck_assert_int_eq(log_open(&opts, &log), DC_OK);
    return log;
}

#endif
