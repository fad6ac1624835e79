/* SPDX-License-Identifier: BSD-3-Clause */
/* expect: assertions for loops of millions. Those of Check tell the runner of each success, with a system call. */
#ifndef TESTS_SUPPORT_EXPECT_H
#define TESTS_SUPPORT_EXPECT_H

#include <check.h>
#include <inttypes.h>

#define expect(condition)                                    \
    do {                                                     \
        if (!(condition)) {                                  \
            ck_abort_msg("this isn't true: %s", #condition); \
        }                                                    \
    } while (0)

/* Two integers. */
#define expect_eq(got, wanted)                                                                  \
    do {                                                                                        \
        int64_t got_ = (int64_t)(got), wanted_ = (int64_t)(wanted);                             \
        if (got_ != wanted_) {                                                                  \
            ck_abort_msg("%s is %" PRId64 ", not %s = %" PRId64, #got, got_, #wanted, wanted_); \
        }                                                                                       \
    } while (0)

#endif
