/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * replay: one effect of the log, applied to a store that holds everything before it.
 *
 * Threads: any, with the slot lock of the effect's key, for a flush with all of them; a scratch store needs none (server/store/load.h).
 */
#ifndef DC_PERSIST_REPLAY_H
#define DC_PERSIST_REPLAY_H

#include "persist/frame_fmt.h"

/* 'in_window' (S to E of a snapshot): the store may hold what follows, too. 'm' is empty, and keeps what was replaced until its next reset.
 * Errors: DC_ECORRUPT when the effect wasn't made for what is there; DC_ENOMEM. Then nothing has changed. */
DC_MUST enum dc_err replay_effect(struct mut *m, const struct effect_view *e, bool in_window);
/* The same of one whose key is hashed already. Not for a flush. */
DC_MUST enum dc_err replay_keyed(struct mut *m, const struct effect_view *e, const struct key *k,
                                 bool in_window);

#endif
