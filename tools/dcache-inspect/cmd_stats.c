/* SPDX-License-Identifier: BSD-3-Clause */
/* stats: one pass over all entries: sums and histograms per keyspace, a heap of the biggest keys, sums per prefix. */
#include "server/base/limits.h"
#include "server/base/mem.h"
#include "tools/dcache-inspect/inspect.h"
#include "tools/dcache-inspect/prefixes.h"

#include <inttypes.h>
#include <stdlib.h>

enum { SIZE_BUCKETS = 14, TTL_BUCKETS = 10, KINDS = VALUE_BLOB + 1, KEYSPACES = KEYSPACE_MAX + 1 };

static const int64_t ttl_limits_s[TTL_BUCKETS] = {0,     60,     600,     3600,     21600,
                                                  86400, 604800, 2592000, 31536000, INT64_MAX};
static const char *const ttl_names[TTL_BUCKETS] = {
    "expired",     "under a minute", "under 10 min",  "under 1 hour", "under 6 hours",
    "under a day", "under 7 days",   "under 30 days", "under a year", "longer"};

struct keyspace_stats {
    uint64_t keys, volatile_keys, expired, key_bytes, value_bytes;
    uint64_t partial, removed; /* of a segment */
    uint64_t kinds[KINDS];
    uint64_t sizes[SIZE_BUCKETS]; /* values up to 16 << (2 * i) bytes; the last one: all larger */
    uint64_t ttls[TTL_BUCKETS];
};

/* One of the biggest keys. */
struct big {
    uint64_t len;
    uint32_t keyspace;
    char *key;
    size_t key_len;
    enum value_kind kind;
};

/* So many times as many counters as prefixes are shown. */
enum { PREFIX_COUNTERS = 10 };

struct stats {
    struct keyspace_stats keyspaces[KEYSPACES]; /* the last one is that of the system */
    struct big *heap;                           /* the smallest first */
    uint32_t count, cap;
    struct bytes delimiter;
    struct prefixes prefixes;             /* if they are asked for */
    struct prefix_sums others[KEYSPACES]; /* keys without a delimiter */
};

static uint64_t size_limit(uint32_t bucket) {
    return bucket + 1 < SIZE_BUCKETS ? (uint64_t)16 << (2 * bucket) : UINT64_MAX;
}

/* --- the biggest --------------------------------------------------------------------------------------------------------- */

static void swap(struct big *a, struct big *b) {
    struct big old = *a;
    *a = *b;
    *b = old;
}

static void sift_down(struct stats *s, uint32_t at) {
    for (;;) {
        uint32_t least = at;
        for (uint32_t child = 2 * at + 1; child <= 2 * at + 2 && child < s->count; child++) {
            least = s->heap[child].len < s->heap[least].len ? child : least;
        }
        if (least == at) {
            return;
        }
        swap(&s->heap[at], &s->heap[least]);
        at = least;
    }
}

static void sift_up(struct stats *s, uint32_t at) {
    while (at > 0 && s->heap[at].len < s->heap[(at - 1) / 2].len) {
        swap(&s->heap[at], &s->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
}

static void note_big(struct stats *s, const struct item *item) {
    uint64_t len = item->key.len + item->fold.value_len;
    if (s->cap == 0 || (s->count == s->cap && len <= s->heap[0].len)) {
        return;
    }
    struct big b = {.len = len,
                    .keyspace = item->keyspace,
                    .key = mem_must_alloc(item->key.len + 1),
                    .key_len = item->key.len,
                    .kind = item->fold.kind};
    if (item->key.len > 0) {
        memcpy(b.key, item->key.ptr, item->key.len);
    }
    if (s->count < s->cap) {
        s->heap[s->count++] = b;
        sift_up(s, s->count - 1);
    } else {
        mem_free(s->heap[0].key);
        s->heap[0] = b;
        sift_down(s, 0);
    }
}

static int largest_first(const void *a, const void *b) {
    const struct big *x = a;
    const struct big *y = b;
    return x->len != y->len ? (x->len > y->len ? -1 : 1) : 0;
}

/* --- sums ---------------------------------------------------------------------------------------------------------------- */

static uint32_t keyspace_index(uint32_t keyspace) {
    return keyspace == KEYSPACE_SYSTEM ? KEYSPACE_MAX : keyspace % KEYSPACE_MAX;
}

static uint32_t keyspace_at(uint32_t index) {
    return index < KEYSPACE_MAX ? index : KEYSPACE_SYSTEM;
}

static void note_prefix(struct stats *s, const struct item *item) {
    struct prefix_sums one = {.keys = 1,
                              .with_expiry = item->fold.expiry_ms != EXPIRY_NONE,
                              .key_bytes = item->key.len,
                              .value_bytes = item->fold.value_len};
    struct bytes text;
    if (prefix_of(item->key, s->delimiter, &text)) {
        prefixes_add(&s->prefixes, item->keyspace, text, &one);
    } else {
        prefix_sums_add(&s->others[keyspace_index(item->keyspace)], &one);
    }
}

static bool count_item(void *arg, struct view *v, const struct item *item) {
    struct stats *s = arg;
    struct keyspace_stats *k = &s->keyspaces[keyspace_index(item->keyspace)];
    uint32_t bucket = 0;
    if (!item->fold.exists || item->fold.is_partial) {
        k->removed += !item->fold.exists;
        k->partial += item->fold.exists;
        return true;
    }
    k->keys++;
    k->key_bytes += item->key.len;
    k->value_bytes += item->fold.value_len;
    k->kinds[item->fold.kind]++;
    while (item->fold.value_len > size_limit(bucket)) {
        bucket++;
    }
    k->sizes[bucket]++;
    if (item->fold.expiry_ms != EXPIRY_NONE) {
        int64_t left_ms = item->fold.expiry_ms - v->time_ms;
        k->volatile_keys++;
        k->expired += left_ms <= 0;
        for (bucket = 0; bucket + 1 < TTL_BUCKETS && left_ms > ttl_limits_s[bucket] * 1000;) {
            bucket++;
        }
        k->ttls[bucket]++;
    }
    note_big(s, item);
    if (s->prefixes.cap > 0) {
        note_prefix(s, item);
    }
    return true;
}

/* --- output -------------------------------------------------------------------------------------------------------------- */

static void show_bar(struct emit *out, const char *name, uint64_t count, uint64_t all) {
    int stars = all > 0 ? (int)(40 * count / all) : 0;
    fprintf(out->to, "      %-18s %12" PRIu64 "  %5.1f%%  %.*s\n", name, count,
            all > 0 ? 100.0 * (double)count / (double)all : 0.0, stars,
            "****************************************");
}

static void show_sizes(struct emit *out, const struct keyspace_stats *k) {
    emit_open_list(out, "value_sizes");
    for (uint32_t i = 0; i < SIZE_BUCKETS; i++) {
        char name[32];
        if (k->sizes[i] == 0) {
            continue;
        }
        if (out->json) {
            emit_open(out, NULL);
            if (i + 1 < SIZE_BUCKETS) {
                emit_u64(out, "up_to", size_limit(i));
            }
            emit_u64(out, "keys", k->sizes[i]);
            emit_close(out);
            continue;
        }
        snprintf(name, sizeof(name), i + 1 < SIZE_BUCKETS ? "<= %" PRIu64 : "> %" PRIu64,
                 size_limit(i + 1 < SIZE_BUCKETS ? i : i - 1));
        show_bar(out, name, k->sizes[i], k->keys);
    }
    emit_close_list(out);
}

static void show_ttls(struct emit *out, const struct keyspace_stats *k) {
    emit_open_list(out, "times_to_live");
    for (uint32_t i = 0; i < TTL_BUCKETS; i++) {
        if (k->ttls[i] == 0) {
            continue;
        }
        if (!out->json) {
            show_bar(out, ttl_names[i], k->ttls[i], k->keys);
            continue;
        }
        emit_open(out, NULL);
        if (i + 1 < TTL_BUCKETS) {
            emit_i64(out, "up_to_s", ttl_limits_s[i]);
        }
        emit_u64(out, "keys", k->ttls[i]);
        emit_close(out);
    }
    if (!out->json && k->keys > k->volatile_keys) {
        show_bar(out, "none", k->keys - k->volatile_keys, k->keys);
    }
    emit_close_list(out);
}

/* What is told of a keyspace of a segment alone. */
static void show_changes(struct emit *out, const struct view *v, uint32_t id,
                         const struct keyspace_stats *k) {
    emit_u64(out, "partial", k->partial);
    emit_u64(out, "removed", k->removed);
    if (view_flushed(v, id) != 0) {
        emit_lsn(out, "flushed", view_flushed(v, id));
    }
}

static void show_keyspace(struct emit *out, const struct view *v, uint32_t id,
                          const struct keyspace_stats *k) {
    emit_open(out, out->json ? NULL : "keyspace");
    emit_keyspace(out, id);
    emit_u64(out, "keys", k->keys);
    if (view_is_segment(v)) {
        show_changes(out, v, id, k);
    }
    emit_u64(out, "with_expiry", k->volatile_keys);
    emit_u64(out, "expired", k->expired);
    emit_size(out, "key_bytes", k->key_bytes);
    emit_size(out, "value_bytes", k->value_bytes);
    emit_open(out, "kinds");
    for (uint32_t i = 0; i < KINDS; i++) {
        emit_u64(out, kind_name((enum value_kind)i), k->kinds[i]);
    }
    emit_close(out);
    show_sizes(out, k);
    show_ttls(out, k);
    emit_close(out);
}

static void show_biggest(struct emit *out, struct stats *s) {
    if (s->count > 0) {
        qsort(s->heap, s->count, sizeof(*s->heap), largest_first);
    }
    emit_open_list(out, "biggest");
    for (uint32_t i = 0; i < s->count; i++) {
        const struct big *b = &s->heap[i];
        struct bytes key = bytes_of(b->key, b->key_len);
        if (out->json) {
            emit_open(out, NULL);
            emit_keyspace(out, b->keyspace);
            emit_bytes(out, "key", key);
            emit_u64(out, "bytes", b->len);
            emit_str(out, "kind", kind_name(b->kind));
            emit_close(out);
            continue;
        }
        char keyspace[EMIT_KEYSPACE_LEN];
        fprintf(out->to, "    %12" PRIu64 "  %2s  %-5s ", b->len,
                text_keyspace(keyspace, b->keyspace), kind_name(b->kind));
        text_quote(out->to, key, 200);
        putc('\n', out->to);
    }
    emit_close_list(out);
}

/* 'text' NULL: those without a delimiter. */
static void show_prefix(struct emit *out, uint32_t keyspace, const struct bytes *text,
                        const struct prefix *x) {
    const struct prefix_sums *sums = &x->sums;
    char name[EMIT_KEYSPACE_LEN];
    if (out->json) {
        emit_open(out, NULL);
        emit_keyspace(out, keyspace);
        if (text != NULL) {
            emit_bytes(out, "prefix", *text);
            emit_bool(out, "cut", x->is_cut);
        }
        emit_u64(out, "keys", sums->keys);
        emit_u64(out, "with_expiry", sums->with_expiry);
        emit_u64(out, "key_bytes", sums->key_bytes);
        emit_u64(out, "value_bytes", sums->value_bytes);
        emit_u64(out, "keys_more_at_most", x->keys_owed);
        emit_u64(out, "bytes_more_at_most", x->bytes_owed);
        emit_close(out);
        return;
    }
    fprintf(out->to, "    %12" PRIu64 " %12" PRIu64 " %12" PRIu64 " %12" PRIu64 "  %2s  ",
            sums->keys, sums->with_expiry, sums->key_bytes, sums->value_bytes,
            text_keyspace(name, keyspace));
    if (text != NULL) {
        text_quote(out->to, *text, 0);
        fputs(x->is_cut ? "..." : "", out->to);
    } else {
        fputs("(no delimiter)", out->to);
    }
    if (x->bytes_owed > 0) {
        fprintf(out->to, "  up to %" PRIu64 " keys, %" PRIu64 " bytes more", x->keys_owed,
                x->bytes_owed);
    }
    putc('\n', out->to);
}

/* The most that any prefix has which isn't among the first 'shown'. */
static uint64_t hidden_bytes(const struct prefixes *p, uint32_t shown) {
    uint64_t most = p->bytes_lost;
    for (uint32_t i = shown; i < p->count; i++) {
        uint64_t bytes = prefix_bytes_at_most(&p->list[i]);
        most = bytes > most ? bytes : most;
    }
    return most;
}

static void show_prefixes(struct emit *out, struct stats *s, uint32_t shown) {
    struct prefixes *p = &s->prefixes;
    prefixes_sort(p);
    emit_open(out, "prefixes");
    emit_bytes(out, "delimiter", s->delimiter);
    emit_bool(out, "exact", p->bytes_lost == 0);
    emit_u64(out, p->bytes_lost == 0 ? "different" : "counters", p->count);
    emit_size(out, "others_at_most", hidden_bytes(p, shown));
    emit_open_list(out, "largest");
    if (!out->json) {
        fprintf(out->to, "    %12s %12s %12s %12s\n", "keys", "with expiry", "key bytes",
                "value bytes");
    }
    for (uint32_t i = 0; i < p->count && i < shown; i++) {
        struct bytes text = prefix_text(&p->list[i]);
        show_prefix(out, p->list[i].keyspace, &text, &p->list[i]);
    }
    emit_close_list(out);
    emit_open_list(out, "without");
    for (uint32_t i = 0; i < KEYSPACES; i++) {
        struct prefix x = {.sums = s->others[i]};
        if (x.sums.keys > 0) {
            show_prefix(out, keyspace_at(i), NULL, &x);
        }
    }
    emit_close_list(out);
    emit_close(out);
}

static void show(struct inspect *in, const struct view *v, struct stats *s) {
    struct emit *out = &in->out;
    emit_begin(out, "statistics");
    if (out->json) {
        emit_str(out, "what", "statistics");
    }
    emit_str(out, "path", in->args[0]);
    if (view_is_segment(v)) {
        emit_str(out, "segment", v->segment_name);
        emit_lsn(out, "first_lsn", v->first_lsn);
    } else {
        emit_str(out, "snapshot", v->snap_name);
    }
    emit_lsn(out, "end_lsn", v->end_lsn);
    emit_time(out, "as_of", v->time_ms);
    emit_open_list(out, out->json ? "keyspaces" : NULL);
    for (uint32_t i = 0; i < KEYSPACES; i++) {
        const struct keyspace_stats *k = &s->keyspaces[i];
        uint32_t id = keyspace_at(i);
        bool is_flushed = view_is_segment(v) && view_flushed(v, id) != 0 &&
                          (!in->has_keyspace || in->keyspace == id);
        if (k->keys + k->partial + k->removed > 0 || is_flushed) {
            show_keyspace(out, v, id, k);
        }
    }
    emit_close_list(out);
    show_biggest(out, s);
    if (in->prefixes > 0) {
        show_prefixes(out, s, in->prefixes);
    }
    emit_u64(out, "troubles", v->troubles);
    emit_end(out);
}

enum status cmd_stats(struct inspect *in) {
    struct view v;
    struct stats *s = mem_must_zalloc(sizeof(*s));
    struct view_opts opts = view_opts_of(in);
    struct item_filter filter = filter_of(in);
    s->cap = in->top;
    s->heap = mem_must_zalloc((s->cap + 1) * sizeof(*s->heap));
    s->delimiter = in->delimiter;
    if (in->prefixes > 0) {
        prefixes_init(&s->prefixes, in->prefixes * PREFIX_COUNTERS);
    }
    enum status status = STATUS_FINE;
    enum dc_err err = view_open(&v, in->args[0], &opts);
    if (err == DC_OK) {
        filter.removed = view_is_segment(&v);
        view_all(&v, &filter, count_item, s);
        show(in, &v, s);
        status = v.troubles > 0 ? STATUS_FOUND : STATUS_FINE;
    } else {
        status = complain(err);
    }
    for (uint32_t i = 0; i < s->count; i++) {
        mem_free(s->heap[i].key);
    }
    mem_free(s->heap);
    prefixes_fini(&s->prefixes);
    mem_free(s);
    view_close(&v);
    return status;
}
