/* SPDX-License-Identifier: BSD-3-Clause */
/* glob: patterns of KEYS, SCAN, PSUBSCRIBE and CONFIG GET, as Redis matches them. */
#ifndef DC_BASE_GLOB_H
#define DC_BASE_GLOB_H

#include <stdbool.h>

#include "server/base/bytes.h"

/* Matching time is bounded: nesting of '*' is cut as Redis 7.0.15 does. */
bool glob_match(struct bytes pattern, struct bytes text, bool ignore_case);

#endif
