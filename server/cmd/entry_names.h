/* SPDX-License-Identifier: BSD-3-Clause */
/* entry_names: what TYPE, SCAN TYPE, OBJECT ENCODING and DEBUG OBJECT call what an entry holds. */
#ifndef DC_CMD_ENTRY_NAMES_H
#define DC_CMD_ENTRY_NAMES_H

#include "server/base/assert.h"
#include "server/store/entry.h"

enum { EMBSTR_LEN_MAX = 44 }; /* Redis's, which its users know */

static inline const char *entry_type_name(const struct entry *e) {
    switch (entry_kind(e)) {
    case VALUE_STR:
    case VALUE_RAW:
    case VALUE_INT:
    case VALUE_BLOB:
        return "string";
    }
    dc_unreachable();
}

static inline const char *entry_encoding_name(const struct entry *e) {
    struct value v;
    entry_value(e, &v);
    switch (v.kind) {
    case VALUE_STR:
        return v.str.len <= EMBSTR_LEN_MAX ? "embstr" : "raw";
    case VALUE_RAW:
    case VALUE_BLOB:
        return "raw";
    case VALUE_INT:
        return "int";
    }
    dc_unreachable();
}

#endif
