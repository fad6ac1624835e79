/* SPDX-License-Identifier: BSD-3-Clause */
/* catalogue: the metadata of a data directory, as LMDB has it. One line of JSON per thing. */
#include "persist/meta.h"
#include "server/base/mem.h"
#include "tools/dcache-inspect/inspect.h"

#include <inttypes.h>

static const char *kind_word(enum file_kind kind) {
    switch (kind) {
    case FILE_SEGMENT:
        return "segment";
    case FILE_SNAPSHOT:
        return "snapshot";
    case FILE_SIDE:
        return "side";
    }
    return "?";
}

static const char *state_word(enum file_state state) {
    switch (state) {
    case FILE_OPEN:
        return "open";
    case FILE_COMPLETE:
        return "complete";
    case FILE_FOREIGN:
        return "foreign";
    case FILE_BAD:
        return "bad";
    }
    return "?";
}

static void show_file(void *arg, const struct meta_file *f) {
    struct emit *out = arg;
    emit_begin(out, kind_word(f->kind));
    if (out->json) {
        emit_str(out, "what", kind_word(f->kind));
    }
    emit_str(out, "file", f->name);
    emit_str(out, "state", state_word(f->state));
    emit_lsn(out, "first_lsn", f->first_lsn);
    emit_lsn(out, "end_lsn", f->end_lsn);
    emit_lsn(out, "durable_lsn", f->durable_lsn);
    emit_id(out, "history", f->history);
    if (f->kind == FILE_SNAPSHOT) {
        emit_u64(out, "keys", f->count);
        emit_id(out, "checksum", f->sum);
    }
    emit_size(out, "size", f->bytes);
    emit_time(out, "created", f->created_ms);
    emit_end(out);
}

static void show_text(void *arg, const char *name, const char *value) {
    struct emit *out = arg;
    if (out->json) {
        emit_begin(out, NULL);
        emit_str(out, "what", "text");
        emit_str(out, "name", name);
        emit_str(out, "value", value);
        emit_end(out);
        return;
    }
    emit_begin(out, NULL);
    emit_str(out, name, value);
    emit_end(out);
}

static void show_history(struct emit *out, const struct history *h) {
    emit_begin(out, "history");
    if (out->json) {
        emit_str(out, "what", "history");
    }
    emit_id(out, "id", h->id);
    emit_lsn(out, "start", h->start);
    emit_lsn(out, "epoch", h->epoch);
    emit_lsn(out, "parent_end", h->parent_end);
    emit_end(out);
}

static enum dc_err show_all(struct emit *out, struct meta *m, struct history *chain) {
    struct meta_node node;
    uint32_t count = 0;
    enum dc_err err = meta_get_node(m, &node);
    if (err == DC_OK && node.known) {
        emit_begin(out, "node");
        if (out->json) {
            emit_str(out, "what", "node");
        }
        emit_hex(out, "node_id", node.node_id, NODE_ID_LEN);
        emit_end(out);
    }
    err = err == DC_OK ? meta_each_text(m, show_text, out) : err;
    err = err == DC_OK ? meta_get_chain(m, chain, SNAP_HISTORIES_MAX, &count) : err;
    for (uint32_t i = 0; err == DC_OK && i < count; i++) {
        show_history(out, &chain[i]);
    }
    return err == DC_OK ? meta_each_file(m, show_file, out) : err;
}

enum status cmd_catalogue(struct inspect *in) {
    struct meta *m = NULL;
    struct history *chain = mem_must_alloc(SNAP_HISTORIES_MAX * sizeof(*chain));
    enum dc_err err = meta_open_read_only(in->args[0], &m);
    err = err == DC_OK ? show_all(&in->out, m, chain) : err;
    meta_close(m);
    mem_free(chain);
    if (err == DC_ECORRUPT) {
        (void)complain(err);
        return STATUS_FOUND;
    }
    return err == DC_OK ? STATUS_FINE : complain(err);
}
