/* SPDX-License-Identifier: BSD-3-Clause */
/* request: one command as a protocol reader hands it on: views into the connection's input. */
#ifndef DC_PROTO_REQUEST_H
#define DC_PROTO_REQUEST_H

#include <stdint.h>

#include "server/base/bytes.h"

struct request {
    uint32_t argc;
    struct bytes *argv; /* argv[0] is the command's name */
};

#endif
