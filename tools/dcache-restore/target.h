/* SPDX-License-Identifier: BSD-3-Clause */
/* target: a store's content as a new data directory. */
#ifndef DC_TOOLS_RESTORE_TARGET_H
#define DC_TOOLS_RESTORE_TARGET_H

#include "persist/snap_writer.h"
#include "tools/dcache-restore/source.h"

/* Writes the snapshot; the directory appears when all is durable (new_dir.h). Errors: DC_EGENERIC (it is there), DC_EIO, DC_ENOMEM; then there is none. */
DC_MUST enum dc_err target_write(const struct io *io, const char *target, struct source *s,
                                 bool keep_identity, struct snap_written *out);

#endif
