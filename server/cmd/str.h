/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * str: what the handlers of string and bitmap commands share: the type check, bounds, conditions, and changes
 * together with the keyspace events that Redis tells of them.
 *
 * Invariants: I1 a handler of this family touches an entry only after str_check() let it pass; I2 a change and its
 *   events are one call, so neither is forgotten.
 * Threads, ownership: as ctx.h has them.
 */
#ifndef DC_CMD_STR_H
#define DC_CMD_STR_H

#include "server/base/limits.h"
#include "server/cmd/ctx.h"
#include "server/store/entry.h"

/* Whether an entry, or none, may be used as a string. Errors: DC_EWRONGTYPE. */
DC_MUST static inline enum dc_err str_check(const struct entry *e) {
    return dc_likely(e == NULL || entry_kind(e) <= VALUE_BLOB) ? DC_OK : DC_EWRONGTYPE;
}

/* The live string of key i or NULL: for reading (counts) and for writing. Errors: DC_EWRONGTYPE. */
DC_MUST enum dc_err str_read(struct cmd_ctx *ctx, uint32_t i, struct entry **out);
DC_MUST enum dc_err str_find(struct cmd_ctx *ctx, uint32_t i, struct entry **out);

/* Length of the string; none has 0. */
size_t str_len(const struct entry *e);

/* The expiry that an entry keeps when its value is replaced. */
static inline int64_t str_expiry(const struct entry *e) {
    return e == NULL ? EXPIRY_NONE : entry_expiry(e);
}

/* The longest string that commands may make grow, and the check of offset + len against it. Errors: DC_ETOOBIG. */
uint64_t str_len_max(const struct cmd_ctx *ctx);
DC_MUST enum dc_err str_check_end(const struct cmd_ctx *ctx, uint64_t offset, uint64_t len);

/* Makes [start, end] of a string of 'len' units absolute: negative counts from the end, what is outside is cut off.
 * Nothing is in it when start > end afterwards. */
void str_clamp(int64_t *start, int64_t *end, int64_t len);

/* Prepares a change of key i; its events are "new" if there was no entry, then 'event' (NULL = none).
 * A blob's reference is taken over in every outcome. Errors: DC_ENOMEM. */
DC_MUST enum dc_err str_put(struct cmd_ctx *ctx, uint32_t i, const struct entry *old,
                            const struct value *v, int64_t expiry_ms, const char *event);
DC_MUST enum dc_err str_write(struct cmd_ctx *ctx, uint32_t i, const struct entry *old,
                              uint64_t offset, struct bytes bytes, const char *event);
/* Argument 'arg' becomes the value. */
DC_MUST enum dc_err str_put_arg(struct cmd_ctx *ctx, uint32_t i, const struct entry *old,
                                uint32_t arg, int64_t expiry_ms, const char *event);
/* Deletes an entry that is there. */
DC_MUST enum dc_err str_del(struct cmd_ctx *ctx, uint32_t i);

/* What SET and DELEX may ask of the entry before they change it. */
enum cond_kind { COND_NONE, COND_NX, COND_XX, COND_IFEQ, COND_IFNE, COND_IFVER };

struct cond {
    enum cond_kind kind;
    struct bytes value; /* IFEQ, IFNE */
    uint64_t version;   /* IFVER; 0 = there must be no entry */
};

/* The argument behind IFEQ, IFNE or IFVER. Errors: DC_ENOTINT. */
DC_MUST enum dc_err cond_parse(struct cmd_ctx *ctx, enum cond_kind kind, uint32_t arg,
                               struct cond *out);
/* Errors: DC_EWRONGTYPE when a value is to be compared that is no string. */
DC_MUST enum dc_err cond_test(const struct cond *c, const struct entry *e, bool *holds);

#endif
