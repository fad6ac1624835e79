/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * diff: what two snapshots (or directories) hold differently.
 *
 * Ranges of the same slots are compared, one pair at a time: both sides are listed, sorted by key, and merged. Two images of one
 * history are compared by versions, which name contents: no value is looked at. Others are compared by what they hold.
 */
#include "server/base/mem.h"
#include "server/base/sum.h"
#include "tools/dcache-inspect/inspect.h"

#include <inttypes.h>
#include <stdlib.h>

/* An entry of one side. */
struct record {
    uint32_t keyspace;
    size_t key_at; /* in side.keys */
    size_t key_len;
    struct fold fold;
    uint64_t content_sum; /* when contents are compared */
};

struct side {
    struct view view;
    struct buf keys;
    struct buf value;
    struct record *records;
    uint32_t count, cap;
    bool with_content;
};

struct diff {
    struct inspect *in;
    struct side old, new;
    bool by_version;
    uint64_t added, removed, changed, same;
};

static struct bytes key_of(const struct side *s, const struct record *r) {
    return bytes_of(s->keys.ptr + r->key_at, r->key_len);
}

/* --- listing ------------------------------------------------------------------------------------------------------------- */

static bool list_item(void *arg, struct view *v, const struct item *item) {
    struct side *s = arg;
    struct record r = {.keyspace = item->keyspace,
                       .key_at = s->keys.len,
                       .key_len = item->key.len,
                       .fold = item->fold};
    if (s->with_content) {
        enum dc_err err = item_content(v, item, &s->value);
        if (err != DC_OK) {
            view_trouble(v, err);
        }
        r.content_sum = sum64(s->value.ptr, s->value.len, 0);
    }
    buf_append_bytes(&s->keys, item->key);
    if (s->count == s->cap) {
        s->cap = s->cap == 0 ? 256 : s->cap * 2;
        s->records = mem_must_realloc(s->records, s->cap * sizeof(*s->records));
    }
    s->records[s->count++] = r;
    return true;
}

static int compare_keys(struct bytes a, uint32_t a_keyspace, struct bytes b, uint32_t b_keyspace) {
    if (a_keyspace != b_keyspace) {
        return a_keyspace < b_keyspace ? -1 : 1;
    }
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len > 0 ? memcmp(a.ptr, b.ptr, len) : 0;
    return order != 0 ? order : a.len < b.len ? -1 : a.len > b.len;
}

static int by_key(const void *a, const void *b, void *side) {
    const struct record *x = a;
    const struct record *y = b;
    return compare_keys(key_of(side, x), x->keyspace, key_of(side, y), y->keyspace);
}

/* The entries of the ranges [first, end), sorted. */
static void list_ranges(struct side *s, uint32_t first, uint32_t end,
                        const struct item_filter *filter) {
    buf_reset(&s->keys, SIZE_MAX);
    s->count = 0;
    for (uint32_t range = first; range < end; range++) {
        view_range(&s->view, range, filter, list_item, s);
    }
    if (s->count > 0) {
        qsort_r(s->records, s->count, sizeof(*s->records), by_key, s);
    }
}

/* --- output -------------------------------------------------------------------------------------------------------------- */

static void show_side(struct emit *out, const char *name, const struct fold *f) {
    emit_open(out, name);
    emit_str(out, "kind", kind_name(f->kind));
    emit_u64(out, "bytes", f->value_len);
    emit_lsn(out, "version", f->version);
    if (f->expiry_ms != EXPIRY_NONE) {
        emit_time(out, "expires", f->expiry_ms);
    }
    emit_close(out);
}

static void text_side(FILE *to, const struct fold *f) {
    char time[EMIT_TIME_LEN];
    fprintf(to, "%s %" PRIu64, kind_name(f->kind), f->value_len);
    if (f->expiry_ms != EXPIRY_NONE) {
        fprintf(to, " expires %s", text_time(time, f->expiry_ms));
    }
}

static void show_change(struct diff *d, const char *what, char sign, const struct record *old,
                        const struct record *new) {
    struct emit *out = &d->in->out;
    const struct record *any = new != NULL ? new : old;
    struct bytes key = key_of(new != NULL ? &d->new : &d->old, any);
    char keyspace[EMIT_KEYSPACE_LEN];
    if (out->json) {
        emit_begin(out, NULL);
        emit_str(out, "change", what);
        emit_keyspace(out, any->keyspace);
        emit_bytes(out, "key", key);
        if (old != NULL) {
            show_side(out, "old", &old->fold);
        }
        if (new != NULL) {
            show_side(out, "new", &new->fold);
        }
        emit_end(out);
        return;
    }
    fprintf(out->to, "%c %2s  ", sign, text_keyspace(keyspace, any->keyspace));
    text_quote(out->to, key, 0);
    fputs("  ", out->to);
    if (old != NULL) {
        text_side(out->to, &old->fold);
    }
    fputs(old != NULL && new != NULL ? " -> " : "", out->to);
    if (new != NULL) {
        text_side(out->to, &new->fold);
    }
    putc('\n', out->to);
}

/* --- comparing ----------------------------------------------------------------------------------------------------------- */

static bool is_same(const struct diff *d, const struct record *a, const struct record *b) {
    return d->by_version
               ? a->fold.version == b->fold.version
               : a->content_sum == b->content_sum && a->fold.value_len == b->fold.value_len &&
                     a->fold.expiry_ms == b->fold.expiry_ms;
}

static void merge(struct diff *d) {
    uint32_t i = 0;
    uint32_t j = 0;
    while (i < d->old.count || j < d->new.count) {
        const struct record *a = i < d->old.count ? &d->old.records[i] : NULL;
        const struct record *b = j < d->new.count ? &d->new.records[j] : NULL;
        int order = a == NULL   ? 1
                    : b == NULL ? -1
                                : compare_keys(key_of(&d->old, a), a->keyspace, key_of(&d->new, b),
                                               b->keyspace);
        if (order < 0) {
            d->removed++;
            show_change(d, "removed", '-', a, NULL);
        } else if (order > 0) {
            d->added++;
            show_change(d, "added", '+', NULL, b);
        } else if (is_same(d, a, b)) {
            d->same++;
        } else {
            d->changed++;
            show_change(d, "changed", '~', a, b);
        }
        i += order <= 0;
        j += order >= 0;
    }
}

/* Whether both come from one history: versions mean the same then. */
static bool are_related(const struct view *a, const struct view *b) {
    for (uint32_t i = 0; i < a->chain_count; i++) {
        for (uint32_t j = 0; j < b->chain_count; j++) {
            if (a->chain[i].id == b->chain[j].id) {
                return true;
            }
        }
    }
    return false;
}

static void show_sums(struct diff *d) {
    struct emit *out = &d->in->out;
    emit_begin(out, NULL);
    if (out->json) {
        emit_str(out, "what", "sums");
    }
    emit_str(out, "compared_by", d->by_version ? "version" : "content");
    emit_u64(out, "added", d->added);
    emit_u64(out, "removed", d->removed);
    emit_u64(out, "changed", d->changed);
    emit_u64(out, "same", d->same);
    emit_end(out);
}

static void compare_all(struct diff *d) {
    struct item_filter filter = filter_of(d->in);
    uint32_t old_bits = d->old.view.range_bits;
    uint32_t new_bits = d->new.view.range_bits;
    uint32_t step = (uint32_t)1 << (old_bits > new_bits ? old_bits : new_bits);
    d->by_version = are_related(&d->old.view, &d->new.view);
    d->old.with_content = d->new.with_content = !d->by_version;
    for (uint32_t slot = 0; slot < SLOT_COUNT && ferror(d->in->out.to) == 0; slot += step) {
        list_ranges(&d->old, slot >> old_bits, (slot + step) >> old_bits, &filter);
        list_ranges(&d->new, slot >> new_bits, (slot + step) >> new_bits, &filter);
        merge(d);
    }
    uint32_t old_system = d->old.view.range_count, new_system = d->new.view.range_count;
    list_ranges(&d->old, old_system, old_system + 1, &filter);
    list_ranges(&d->new, new_system, new_system + 1, &filter);
    merge(d);
    show_sums(d);
}

static void side_fini(struct side *s) {
    buf_fini(&s->keys);
    buf_fini(&s->value);
    mem_free(s->records);
    view_close(&s->view);
}

enum status cmd_diff(struct inspect *in) {
    struct diff d = {.in = in};
    struct view_opts opts = view_opts_of(in);
    enum status status = STATUS_FINE;
    opts.memory /= 2; /* one half for each side */
    opts.segment_too = false;
    enum dc_err err = view_open(&d.old.view, in->args[0], &opts);
    err = err == DC_OK ? view_open(&d.new.view, in->args[1], &opts) : err;
    if (err != DC_OK) {
        status = complain(err);
    } else {
        compare_all(&d);
        bool troubled = d.old.view.troubles + d.new.view.troubles > 0;
        bool differ = d.added + d.removed + d.changed > 0;
        status = troubled ? STATUS_TROUBLE : differ ? STATUS_FOUND : STATUS_FINE;
    }
    side_fini(&d.old);
    side_fini(&d.new);
    return status;
}
