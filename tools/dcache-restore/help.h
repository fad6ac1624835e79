/* SPDX-License-Identifier: BSD-3-Clause */
/* help: the manual page of dcache-restore. */
#ifndef DC_TOOLS_RESTORE_HELP_H
#define DC_TOOLS_RESTORE_HELP_H

void help_print(void);

#endif
