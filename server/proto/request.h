/* SPDX-License-Identifier: BSD-3-Clause */
/* request: one command as a protocol reader hands it on: views into the connection's input. */
#ifndef DC_PROTO_REQUEST_H
#define DC_PROTO_REQUEST_H

#include <stddef.h>
#include <stdint.h>

#include "server/base/bytes.h"

struct request {
    struct bytes *argv; /* argv[0] is the command's name */
    uint32_t argc;
    size_t len; /* bytes of the input that the request took */
};

#endif
