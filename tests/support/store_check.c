/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/support/store_check.h"

#include "server/base/crc.h"

#include <stdio.h>

#define fail_unless(condition)                                \
    do {                                                      \
        if (!(condition)) {                                   \
            return __FILE__ ": this isn't true: " #condition; \
        }                                                     \
    } while (0)

/* The layout as table.h tells it, written down a second time. */
struct ref {
    bool is_node;
    uint32_t lines;
    const void *at;
};

static struct ref ref_of(const struct table *t) {
    uint64_t word = atomic_load_explicit(&t->word, memory_order_relaxed);
    return (struct ref){(word & 1) != 0, (uint32_t)(word >> 48),
                        (const void *)(uintptr_t)(word & 0x0000ffffffffffc0)};
}

/* Where in the tree a page is. */
struct way {
    uint32_t depth;
    uint64_t prefix; /* of the hash, NODE_BITS per level */
    const uint8_t *seed;
};

static uint64_t line_word(const struct ref *page, uint32_t line, uint32_t i) {
    return ((const uint64_t *)page->at)[line * PAGE_LINE_WORDS + i];
}

static bool is_full(const struct ref *page, uint32_t line) {
    return line_word(page, line, PAGE_LINE_WORDS - 1) != 0;
}

static const char *check_word(const struct ref *page, const struct way *way, uint32_t line,
                              uint64_t word, struct table_facts *out) {
    const struct entry *e = (const struct entry *)(uintptr_t)(word & 0x0000fffffffffff0);
    uint64_t hash = crypto_hash(entry_key(e), way->seed) & (HASH_END - 1);
    uint32_t tag = (uint32_t)(hash >> (HASH_BITS - NODE_BITS * way->depth - 16)) & 0xffff;
    fail_unless(hash >> (HASH_BITS - NODE_BITS * way->depth) == way->prefix);
    fail_unless(word >> 48 == tag);
    uint32_t home = (uint32_t)((uint64_t)tag * page->lines >> 16);
    fail_unless(home < page->lines);
    for (uint32_t at = home; at != line; at = (at + 1) % page->lines) {
        fail_unless(is_full(page, at)); /* I2 */
    }
    out->entries++;
    out->displaced += home != line;
    out->volatiles += entry_has_expiry(e);
    out->newest = entry_version(e) > out->newest ? entry_version(e) : out->newest;
    return NULL;
}

static const char *check_page(const struct ref *page, const struct way *way,
                              struct table_facts *out) {
    fail_unless(page->lines <= PAGE_LINES_MAX);
    fail_unless((page->lines == 0) == (page->at == NULL));
    for (uint32_t line = 0; line < page->lines; line++) {
        bool ended = false;
        for (uint32_t i = 0; i < PAGE_LINE_WORDS; i++) {
            uint64_t word = line_word(page, line, i);
            fail_unless(!ended || word == 0); /* I1: filled from the left */
            ended = word == 0;
            const char *err = ended ? NULL : check_word(page, way, line, word, out);
            if (err != NULL) {
                return err;
            }
        }
    }
    out->pages += page->lines > 0;
    out->lines += page->lines;
    out->depth = way->depth > out->depth ? way->depth : out->depth;
    return NULL;
}

static uint32_t due_of_table(const struct table *t) {
    return atomic_load_explicit(&t->due, memory_order_relaxed);
}

static const char *check_below(const struct table *t, const struct way *way,
                               struct table_facts *out) {
    struct ref ref = ref_of(t);
    uint64_t before = out->entries;
    const char *err = NULL;
    fail_unless(way->depth <= TABLE_DEPTH_MAX);
    if (!ref.is_node) {
        err = check_page(&ref, way, out);
    } else {
        const struct table *children = ref.at;
        out->nodes++;
        for (uint32_t c = 0; c < NODE_FANOUT && err == NULL; c++) {
            struct way down = {way->depth + 1, way->prefix << NODE_BITS | c, way->seed};
            err = check_below(&children[c], &down, out);
            fail_unless(err != NULL || due_of_table(t) <= due_of_table(&children[c]));
        }
    }
    if (err != NULL) {
        return err;
    }
    fail_unless(atomic_load_explicit(&t->count, memory_order_relaxed) == out->entries - before);
    return NULL;
}

const char *table_check(const struct table *t, const uint8_t *seed, struct table_facts *out) {
    struct way way = {.seed = seed};
    return check_below(t, &way, out);
}

struct slot_check {
    uint32_t slot;
    const char *err;
};

static bool check_slot(void *arg, const struct store *s, const struct entry *e) {
    struct slot_check *c = arg;
    if (pos_slot(store_key(s, entry_key(e)).pos) != c->slot) {
        c->err = "an entry is in a root of another slot";
    }
    return c->err == NULL;
}

static bool each_below(const struct table *t, const struct store *s,
                       bool (*fn)(void *, const struct store *, const struct entry *), void *arg) {
    struct ref ref = ref_of(t);
    bool more = true;
    for (uint32_t c = 0; ref.is_node && c < NODE_FANOUT && more; c++) {
        more = each_below((const struct table *)ref.at + c, s, fn, arg);
    }
    for (uint32_t i = 0; !ref.is_node && i < ref.lines * PAGE_LINE_WORDS && more; i++) {
        uint64_t word = ((const uint64_t *)ref.at)[i];
        if (word != 0) {
            more = fn(arg, s, (const struct entry *)(uintptr_t)(word & 0x0000fffffffffff0));
        }
    }
    return more;
}

static const char *check_keyspace(const struct store *s, const struct keyspace *ks,
                                  struct table_facts *out) {
    for (uint32_t slot = 0; slot < SLOT_COUNT; slot++) {
        const struct root *r = &ks->roots[slot];
        uint64_t volatiles = out->volatiles;
        struct slot_check c = {.slot = slot};
        const char *err = table_check(&r->table, s->seed, out);
        if (err == NULL) {
            each_below(&r->table, s, check_slot, &c);
            err = c.err;
        }
        if (err == NULL && r->gen == ks->gen && r->volatiles != out->volatiles - volatiles) {
            err = "the count of volatile entries is wrong";
        }
        if (err != NULL) {
            return err;
        }
    }
    return NULL;
}

const char *store_check(struct store *s, struct table_facts *out) {
    struct table_facts aside = {0};
    const char *err = check_keyspace(s, &s->system, &aside); /* isn't counted */
    *out = (struct table_facts){0};
    for (uint32_t db = 0; db < s->keyspace_count && err == NULL; db++) {
        err = check_keyspace(s, &s->keyspaces[db], out);
    }
    return err;
}

struct digest {
    uint32_t db;
    uint64_t sum;
};

static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static bool add_entry(void *arg, const struct store *s, const struct entry *e) {
    struct digest *d = arg;
    static const uint8_t seed[HASH_SEED_LEN] = {1};
    struct value v;
    char scratch[NUM_I64_TEXT_MAX];
    (void)s;
    entry_value(e, &v);
    uint64_t h = crypto_hash(entry_key(e), seed);
    h = mix(h + crypto_hash(value_bytes(&v, scratch), seed));
    h = mix(h + (uint64_t)entry_expiry(e));
    h = mix(h + entry_version(e));
    d->sum += mix(h + d->db);
    return true;
}

static void digest_keyspace(struct store *s, const struct keyspace *ks, struct digest *d) {
    for (uint32_t slot = 0; slot < SLOT_COUNT; slot++) {
        if (ks->roots[slot].gen == ks->gen) {
            each_below(&ks->roots[slot].table, s, add_entry, d);
        }
    }
}

uint64_t store_digest(struct store *s) {
    struct digest d = {0};
    for (d.db = 0; d.db < s->keyspace_count; d.db++) {
        digest_keyspace(s, &s->keyspaces[d.db], &d);
    }
    d.db = KEYSPACE_SYSTEM;
    digest_keyspace(s, &s->system, &d);
    return d.sum;
}
