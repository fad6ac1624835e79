/* SPDX-License-Identifier: BSD-3-Clause */
/* data_dir: the data directory as a whole: who has it, and what is put aside in it. For the real file system only. */
#ifndef DC_PERSIST_DATA_DIR_H
#define DC_PERSIST_DATA_DIR_H

#include "server/base/err.h"

/* The lock of the data directory: refused, by name, when another process holds it. It ends with the descriptor. Errors: DC_EDIRBUSY,
 * DC_EIO. */
DC_MUST enum dc_err data_lock(const char *dir, int *fd_out);

DC_MUST enum dc_err data_dir_sync(const char *dir);
/* Makes 'name' in the directory, durably, unless it is there. */
DC_MUST enum dc_err data_dir_make(const char *dir, const char *name);
/* Removes a directory in it, with the files of that, durably. */
DC_MUST enum dc_err data_dir_remove(const char *dir, const char *name);
/* Renames it, durably, to <name>.damaged-<time in ms>. */
DC_MUST enum dc_err data_dir_move_aside(const char *dir, const char *name);

#endif
