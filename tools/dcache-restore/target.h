/* SPDX-License-Identifier: BSD-3-Clause */
/* target: a store's content as a new data directory. For the real file system. */
#ifndef DC_TOOLS_RESTORE_TARGET_H
#define DC_TOOLS_RESTORE_TARGET_H

#include "persist/snap_writer.h"
#include "tools/dcache-restore/source.h"

/* The directory isn't there, or is empty. Errors: DC_EIO. */
DC_MUST enum dc_err target_check(const char *target);
/* Writes the snapshot; the directory appears when all is durable. Errors: DC_EIO, DC_ENOMEM; then there is none. */
DC_MUST enum dc_err target_write(const char *target, struct source *s, bool keep_identity,
                                 struct snap_written *out);

#endif
