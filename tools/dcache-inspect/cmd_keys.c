/* SPDX-License-Identifier: BSD-3-Clause */
/* keys: lists or greps keys, a range at a time. get: one key, by its position. */
#include "server/base/limits.h"
#include "tools/dcache-inspect/inspect.h"

#include <inttypes.h>

enum { TEXT_VALUE_MAX = 200 }; /* bytes of a value in a line of text */

struct listing {
    struct inspect *in;
    struct buf value;
    uint64_t count;
    bool found; /* something is known of it */
    bool failed;
};

static const char *state_name(const struct fold *f) {
    return !f->exists ? "removed" : f->is_partial ? "partial" : "whole";
}

static bool is_whole(const struct fold *f) {
    return f->exists && !f->is_partial;
}

static void show_facts(struct emit *out, const struct view *v, const struct item *item) {
    const struct fold *f = &item->fold;
    emit_keyspace(out, item->keyspace);
    emit_bytes(out, "key", item->key);
    if (view_is_segment(v)) {
        emit_str(out, "state", state_name(f));
    }
    if (is_whole(f)) {
        emit_str(out, "kind", kind_name(f->kind));
        emit_u64(out, "bytes", f->value_len);
    } else if (f->has_piece) {
        emit_u64(out, "bytes_at_least", f->value_len);
    }
    emit_lsn(out, "version", f->version);
    if (f->has_expiry && f->expiry_ms == EXPIRY_NONE) { /* where the rest isn't known */
        emit_str(out, "expires", "never");
    } else if (f->exists && f->expiry_ms != EXPIRY_NONE) {
        emit_time(out, "expires", f->expiry_ms);
        emit_bool(out, "expired", item_has_expired(v, item));
    }
    if (f->idle_ms >= 0) {
        emit_i64(out, "idle_ms", f->idle_ms);
        emit_u64(out, "frequency", f->freq);
    }
}

static void show_line(struct emit *out, const struct view *v, const struct item *item,
                      const struct buf *value) {
    const struct fold *f = &item->fold;
    char time[EMIT_TIME_LEN], keyspace[EMIT_KEYSPACE_LEN];
    fprintf(out->to, "%2s  ", text_keyspace(keyspace, item->keyspace));
    text_quote(out->to, item->key, 0);
    if (is_whole(f)) {
        fprintf(out->to, "  %s %" PRIu64, kind_name(f->kind), f->value_len);
    } else {
        fprintf(out->to, "  %s", state_name(f));
    }
    if (f->has_piece) {
        fprintf(out->to, ", %" PRIu64 " bytes or more", f->value_len);
    }
    if (f->has_expiry && f->expiry_ms == EXPIRY_NONE) {
        fputs("  expires never", out->to);
    } else if (f->exists && f->expiry_ms != EXPIRY_NONE) {
        fprintf(out->to, "  %s %s", item_has_expired(v, item) ? "expired" : "expires",
                text_time(time, f->expiry_ms));
    }
    if (value != NULL) {
        fputs("  ", out->to);
        text_quote(out->to, bytes_of(value->ptr, value->len), TEXT_VALUE_MAX);
    }
    putc('\n', out->to);
}

/* Fetches the value; false: it can't be had, which was told. */
static bool fetch(struct listing *l, struct view *v, const struct item *item) {
    enum dc_err err = item_content(v, item, &l->value);
    if (err != DC_OK) {
        view_trouble(v, err);
    }
    return err == DC_OK;
}

static bool list_item(void *arg, struct view *v, const struct item *item) {
    struct listing *l = arg;
    struct emit *out = &l->in->out;
    bool has_value = l->in->values && is_whole(&item->fold) && fetch(l, v, item);
    if (out->json) {
        emit_begin(out, NULL);
        show_facts(out, v, item);
        if (has_value) {
            emit_bytes(out, "value", buf_bytes(&l->value));
        }
        emit_end(out);
    } else {
        show_line(out, v, item, has_value ? &l->value : NULL);
    }
    l->count++;
    return ferror(out->to) == 0 && (l->in->limit == 0 || l->count < l->in->limit);
}

/* A segment's flushes: what it doesn't name behind them is gone. */
static void list_flushes(struct inspect *in, const struct view *v) {
    struct emit *out = &in->out;
    for (uint32_t i = 0; i < KEYSPACE_MAX; i++) {
        uint64_t version = view_flushed(v, i);
        if (version == 0 || (in->has_keyspace && in->keyspace != i)) {
            continue;
        }
        if (out->json) {
            emit_begin(out, NULL);
            emit_keyspace(out, i);
            emit_str(out, "state", "flushed");
            emit_lsn(out, "version", version);
            emit_end(out);
        } else {
            fprintf(out->to, "%2" PRIu32 "  flushed at LSN %" PRIu64 "\n", i, version);
        }
    }
}

enum status cmd_keys(struct inspect *in) {
    struct view v;
    struct listing l = {.in = in};
    struct view_opts opts = view_opts_of(in);
    struct item_filter filter = filter_of(in);
    buf_init(&l.value, 0);
    enum status status = STATUS_FINE;
    enum dc_err err = view_open(&v, in->args[0], &opts);
    if (err == DC_OK) {
        filter.removed = view_is_segment(&v);
        if (filter.removed) {
            list_flushes(in, &v);
        }
        view_all(&v, &filter, list_item, &l);
        status = v.troubles > 0 ? STATUS_FOUND : STATUS_FINE;
    } else {
        status = complain(err);
    }
    buf_fini(&l.value);
    view_close(&v);
    return status;
}

/* --- get ----------------------------------------------------------------------------------------------------------------- */

static bool show_item(void *arg, struct view *v, const struct item *item) {
    struct listing *l = arg;
    struct emit *out = &l->in->out;
    bool has_value = is_whole(&item->fold);
    l->count += has_value;
    l->found = true;
    if (has_value && !fetch(l, v, item)) {
        l->failed = true;
        return false;
    }
    if (l->in->raw) {
        if (has_value && l->value.len > 0) { /* an empty one has no bytes to point to */
            fwrite(l->value.ptr, 1, l->value.len, out->to);
        }
        return false;
    }
    emit_begin(out, NULL);
    show_facts(out, v, item);
    emit_u64(out, "slot", key_pos(item->key, v->seed) >> 50);
    emit_str(out, "from",
             item->base == NULL      ? "log"
             : item->touched == NULL ? "block"
                                     : "block and log");
    if (has_value) {
        emit_bytes(out, "value", buf_bytes(&l->value));
    }
    emit_end(out);
    return false;
}

/* Why there is no value. */
static void tell_missing(const struct listing *l, const struct view *v) {
    char keyspace[EMIT_KEYSPACE_LEN];
    const char *name = text_keyspace(keyspace, l->in->keyspace);
    uint64_t flushed = view_flushed(v, l->in->keyspace);
    if (!view_is_segment(v)) {
        fprintf(stderr, "dcache-inspect: keyspace %s has no such key\n", name);
    } else if (l->found) {
        fputs("dcache-inspect: the segment says that it was changed or removed, not its value\n",
              stderr);
    } else if (flushed != 0) {
        fprintf(stderr,
                "dcache-inspect: keyspace %s was flushed at LSN %" PRIu64
                ", and behind it the segment has no such key\n",
                name, flushed);
    } else {
        fprintf(stderr, "dcache-inspect: the segment says nothing of this key of keyspace %s\n",
                name);
    }
}

enum status cmd_get(struct inspect *in) {
    struct view v;
    struct listing l = {.in = in};
    struct bytes key = bytes_str(in->args[1]);
    struct view_opts opts = view_opts_of(in);
    struct item_filter filter = {.has_keyspace = true, .keyspace = in->keyspace, .key = &key};
    opts.keyspace = in->keyspace;
    opts.key = &key;
    buf_init(&l.value, 0);
    enum status status = STATUS_FINE;
    enum dc_err err = view_open(&v, in->args[0], &opts);
    if (err == DC_OK) {
        filter.removed = view_is_segment(&v);
        view_range(&v, view_range_of(&v, in->keyspace, key), &filter, show_item, &l);
        if (l.count == 0 && v.troubles == 0) {
            tell_missing(&l, &v);
        }
        status = l.count == 0 || v.troubles > 0 ? STATUS_FOUND : STATUS_FINE;
        status = l.failed ? STATUS_TROUBLE : status;
    } else {
        status = complain(err);
    }
    buf_fini(&l.value);
    view_close(&v);
    return status;
}
