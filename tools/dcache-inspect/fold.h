/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fold: what an entry has become after some effects of the log.
 *
 * Purpose: the rules of persist/replay.h for one key, without a store: the facts of the entry, and its content only for who wants it.
 * Ownership: 'content' belongs to whoever set it.
 * Failure: an effect that wasn't made for what it finds (DC_ECORRUPT); the state is as before.
 */
#ifndef DC_TOOLS_INSPECT_FOLD_H
#define DC_TOOLS_INSPECT_FOLD_H

#include "persist/frame_fmt.h"
#include "persist/snap_block.h"
#include "server/base/buf.h"

struct fold {
    bool exists;
    enum value_kind kind;
    uint64_t value_len; /* as a string */
    int64_t expiry_ms;
    uint64_t version;
    uint8_t freq;
    int64_t idle_ms;     /* -1 = not known: written by the log */
    struct buf *content; /* NULL = not wanted */
    /* Of a piece of log alone. */
    uint64_t
        unknown_until; /* what was written up to this LSN isn't known; 0 = it is, or doesn't matter any more */
    bool is_partial; /* it exists, and only changes of it are known: */
    bool has_piece;  /* bytes were written, so the value has 'value_len' at least */
    bool has_expiry; /* the expiry is known */
};

/* The entry of a block. The content of a blob isn't set. */
void fold_begin(struct fold *f, const struct snap_entry *e);
/* 'in_window': what is found may be newer than the effect. */
DC_MUST enum dc_err fold_effect(struct fold *f, const struct effect_view *e, bool in_window);

#endif
