/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/cmd/client_name.h"

#include "server/base/limits.h"
#include "server/base/mem.h"
#include "server/cmd/client.h"
#include "server/cmd/node.h"

bool client_name_is_plain(struct bytes text) {
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '!' || text.ptr[i] > '~') {
            return false;
        }
    }
    return text.len <= CLIENT_NAME_MAX;
}

enum dc_err client_name_check(struct bytes name) {
    if (name.len > CLIENT_NAME_MAX) {
        return dc_fail(DC_EGENERIC, "Client names cannot be longer than %d bytes.",
                       CLIENT_NAME_MAX);
    }
    if (!client_name_is_plain(name)) {
        return dc_fail(DC_EGENERIC,
                       "Client names cannot contain spaces, newlines or special characters.");
    }
    return DC_OK;
}

void client_name_set(struct client *c, char **field, struct bytes text) {
    char *fresh = NULL;
    if (text.len > 0) {
        fresh = mem_must_alloc(text.len + 1);
        memcpy(fresh, text.ptr, text.len);
        fresh[text.len] = '\0';
    }
    lock_acquire(&c->worker->node->clients_lock);
    char *old = *field;
    *field = fresh;
    lock_release(&c->worker->node->clients_lock);
    mem_free(old);
}
