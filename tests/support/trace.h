/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * trace: the calls that a simulated disk has seen (sim_disk_take_trace), against those that were to come, in their order.
 *
 * Threads: one.
 */
#ifndef TESTS_SUPPORT_TRACE_H
#define TESTS_SUPPORT_TRACE_H

#include "server/base/err.h"
#include "tests/support/sim_disk.h"

/* Since the last time there were these calls and no others. Like printf. */
void expect_trace(struct sim_disk *d, const char *format, ...) DC_PRINTF(2, 3);
/* But for lines that have one of 'without' in them; NULL ends these. */
void expect_trace_without(struct sim_disk *d, const char *const *without, const char *format, ...)
    DC_PRINTF(3, 4);

/* Takes out the lines that have this in them; how many there were. */
size_t trace_drop(char *trace, const char *part);
size_t trace_lines(const char *trace);

#endif
