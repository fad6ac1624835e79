/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/store/system.h"

#include "server/store/load.h"
#include "server/store/store_priv.h"

struct entry *system_get(struct store *s, struct bytes name) {
    struct key k = store_key(s, name);
    return store_find(&s->system, &k);
}

enum dc_err system_put(struct mut *m, struct bytes name, const struct value *v) {
    struct keyspace *ks = &m->store->system;
    struct key k = store_key(m->store, name);
    return mut_put(m, ks, &k, store_find(ks, &k), v, EXPIRY_NONE);
}

enum dc_err system_del(struct mut *m, struct bytes name) {
    struct key k = store_key(m->store, name);
    return mut_del(m, &m->store->system, &k);
}

enum dc_err system_flush(struct mut *m, struct keyspace *ks) {
    struct value now = value_int(m->now_ms);
    enum dc_err err = system_put(m, bytes_str(ks->flush_name), &now);
    return err != DC_OK ? err : mut_flush(m, ks);
}

struct entry *system_flush_record(struct keyspace *ks) {
    return system_get(ks->store, bytes_str(ks->flush_name));
}
