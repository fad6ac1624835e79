/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * monitor: MONITOR's feed of executed commands.
 *
 * Purpose: one line per command, in Redis's format. Monitors listen to a topic of their own (pubsub.h), which gives order
 *   per worker and bounds what is under way.
 * Invariants: I1 administrative commands and secrets are never shown.
 * Threads: the worker that ran the command.
 */
#ifndef DC_CMD_MONITOR_H
#define DC_CMD_MONITOR_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/bytes.h"

struct client;
struct cmd;
struct cmd_worker;

/* Tells the monitors of a command that was run (Redis shows it then, after its reply, in the database that is selected
 * now). */
void monitor_feed(struct cmd_worker *w, const struct client *c, const struct cmd *cmd,
                  const struct bytes *argv, uint32_t argc);

/* Whether a monitor may run a command ('flags' are its own, or of EXEC with those of what is queued): Redis takes him for a
 * replica, which must leave the keys alone. */
bool monitor_allows(const struct cmd *cmd, uint32_t flags);

/* Argument i as anybody but its sender may see it: passwords of AUTH and HELLO are "(redacted)". */
struct bytes monitor_shown_arg(const struct cmd *cmd, const struct bytes *argv, uint32_t argc,
                               uint32_t i);

#endif
