/* SPDX-License-Identifier: BSD-3-Clause */
/* tables: the program describes itself from the tables that it is made of. */
#ifndef DC_CMD_TABLES_H
#define DC_CMD_TABLES_H

#include <stdbool.h>

#include "server/base/buf.h"

#define DC_VERSION "0.1.0"

/* Prints "config", "commands", "metrics", "locks", "errors" or "mutations"; false = no such table. */
bool tables_print(const char *name, struct buf *out);

#endif
