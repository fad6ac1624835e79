/* SPDX-License-Identifier: BSD-3-Clause */
/* handlers: every handler that cmd.def names. */
#ifndef DC_CMD_HANDLERS_H
#define DC_CMD_HANDLERS_H

#include "server/cmd/cmd.h"

#define CMD(id, parent, name, run, arity, first, last, step, flags, effects, group, since, sum) \
    extern enum dc_err run(struct cmd_ctx *ctx);
#define CMD_CONTAINER(id, name, arity, flags, group, since, sum)
#include "server/cmd/cmd.def"
#undef CMD
#undef CMD_CONTAINER

/* What SCAN needs: the range that its cursor lies in. Errors: DC_ECORRUPT, DC_ENOMEM. */
DC_MUST enum dc_err scan_load(struct cmd_worker *w, const struct bytes *argv);
/* While the node warms up RANDOMKEY waits as long as no key can be found by loading a few ranges. */
bool randomkey_is_pending(struct cmd_worker *w, const struct client *c);
/* WAITAOF that still has to wait: its request is held. */
bool waitaof_is_pending(struct cmd_worker *w, struct client *c, const struct bytes *argv,
                        uint32_t argc);
/* The same for WAIT and READAFTER. */
bool wait_is_pending(struct cmd_worker *w, struct client *c, const struct bytes *argv,
                     uint32_t argc);
bool readafter_is_pending(struct cmd_worker *w, struct client *c, const struct bytes *argv,
                          uint32_t argc);
/* The same for BACKUP, which begins when it is first asked. */
bool backup_is_pending(struct cmd_worker *w, struct client *c, const struct bytes *argv,
                       uint32_t argc);
/* And for REPLICAOF; for EXEC that begins with it. */
bool replicaof_is_pending(struct cmd_worker *w, struct client *c, const struct bytes *argv,
                          uint32_t argc);
bool exec_is_pending(struct cmd_worker *w, struct client *c);
void wait_client_gone(struct client *c);
/* And for SAVE. */
bool save_is_pending(struct cmd_worker *w, struct client *c, uint32_t argc);
/* The backup goes on; nobody waits for it. */
void backup_client_gone(struct client *c);

#endif
