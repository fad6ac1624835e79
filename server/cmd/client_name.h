/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * client_name: what a connection calls itself: CLIENT SETNAME, CLIENT SETINFO, HELLO SETNAME.
 *
 * Threads: the client's worker. Takes the lock CLIENTS.
 */
#ifndef DC_CMD_CLIENT_NAME_H
#define DC_CMD_CLIENT_NAME_H

#include <stdbool.h>

#include "server/base/bytes.h"
#include "server/base/err.h"

struct client;

/* Printable, without blanks. */
bool client_name_is_plain(struct bytes text);

/* Errors: DC_EGENERIC, in Redis's words, for a name that isn't plain or too long. */
DC_MUST enum dc_err client_name_check(struct bytes name);

/* Sets one of the client's texts; an empty one is none. */
void client_name_set(struct client *c, char **field, struct bytes text);

#endif
