/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The lines of a page are ordered by hash because the home of a tag is a multiplication, not a remainder:
 *
 *   tag      0 ............................................................. 65535
 *   lines    |  0  |  1  |  2  |  ...                                  | lines-1 |
 *
 * so a page can have any number of lines, grows by a fifth at a time and still is walked in order. Displaced
 * entries (about one in ten at the load limit) lie in the lines after their home; a removal pulls them back
 * (close_gap), so there are no tombstones and a look-up ends at the first line that isn't full.
 */
#include "server/store/table.h"

#include "server/base/crypto.h"
#include "server/base/limits.h"
#include "server/base/mem.h"

#define ADDRESS_MASK ((uint64_t)0x0000ffffffffffc0)
#define NODE_BIT     ((uint64_t)1)
#define ENTRY_MASK   ((uint64_t)0x0000ffffffffffff)

struct line {
    uint64_t words[PAGE_LINE_WORDS];
};

struct node {
    struct table child[NODE_FANOUT];
};

/* Load limit: 15 of 16 words. */
static uint32_t load_max(uint32_t lines) {
    return lines * PAGE_LINE_WORDS - (lines * PAGE_LINE_WORDS + 15) / 16;
}

/* Lines that the allocator hands out without waste: 1..8, 10, 12, 14, 16, 20, ... 128. */
static uint32_t lines_for(uint32_t count) {
    for (uint32_t lines = 1;; lines++) {
        if (lines > 8) {
            lines = (uint32_t)(mem_good_size(lines * sizeof(struct line)) / sizeof(struct line));
        }
        if (lines >= PAGE_LINES_MAX || load_max(lines) >= count) {
            return lines < PAGE_LINES_MAX ? lines : PAGE_LINES_MAX;
        }
    }
}

static uint64_t ref_word(const struct table *t) {
    return atomic_load_explicit(&t->word, memory_order_relaxed);
}

static bool ref_is_node(uint64_t word) {
    return (word & NODE_BIT) != 0;
}

static struct node *ref_node(uint64_t word) {
    return (struct node *)(uintptr_t)(word & ADDRESS_MASK);
}

static struct line *ref_lines(uint64_t word) {
    return (struct line *)(uintptr_t)(word & ADDRESS_MASK);
}

static uint32_t ref_count_lines(uint64_t word) {
    return (uint32_t)(word >> 48);
}

static void ref_set(struct table *t, const void *ptr, uint32_t lines, uint64_t node_bit) {
    atomic_store_explicit(&t->word, (uint64_t)(uintptr_t)ptr | (uint64_t)lines << 48 | node_bit,
                          memory_order_relaxed);
}

static uint32_t count_of(const struct table *t) {
    return atomic_load_explicit(&t->count, memory_order_relaxed);
}

static void count_add(struct table *t, uint32_t n) {
    atomic_store_explicit(&t->count, count_of(t) + n, memory_order_relaxed);
}

static uint32_t due_get(const struct table *t) {
    return atomic_load_explicit(&t->due, memory_order_relaxed);
}

static void due_set(struct table *t, uint32_t due) {
    atomic_store_explicit(&t->due, due, memory_order_relaxed);
}

uint32_t due_of(int64_t expiry_ms) {
    if (expiry_ms == EXPIRY_NONE) {
        return DUE_NEVER;
    }
    int64_t units = (expiry_ms - EXPIRY_BASE_MS + 255) / 256;
    return units < 0 ? 0 : units >= DUE_NEVER ? DUE_NEVER - 1 : (uint32_t)units;
}

static uint32_t tag_shift(uint32_t depth) {
    return HASH_BITS - 16 - NODE_BITS * depth;
}

static uint32_t tag_of(uint64_t hash, uint32_t depth) {
    return (uint32_t)(hash >> tag_shift(depth)) & 0xffff;
}

static uint32_t child_of(uint64_t hash, uint32_t depth) {
    return (uint32_t)(hash >> (HASH_BITS - NODE_BITS * (depth + 1))) & (NODE_FANOUT - 1);
}

static uint32_t home_of(uint32_t tag, uint32_t lines) {
    return tag * lines >> 16;
}

static struct entry *word_entry(uint64_t word) {
    return (struct entry *)(uintptr_t)(word & ENTRY_MASK);
}

static uint32_t word_tag(uint64_t word) {
    return (uint32_t)(word >> 48);
}

static uint64_t word_make(uint32_t tag, const struct entry *e) {
    dc_debug_assert(((uint64_t)(uintptr_t)e & ~ENTRY_MASK) == 0);
    return (uint64_t)tag << 48 | (uint64_t)(uintptr_t)e;
}

static struct line *page_alloc(uint32_t lines) {
    struct line *page = mem_alloc_aligned(sizeof(struct line), lines * sizeof(struct line));
    if (page != NULL) {
        memset(page, 0, lines * sizeof(struct line));
    }
    return page;
}

static void page_free(struct line *page, uint32_t lines) {
    mem_free_aligned(page, sizeof(struct line), lines * sizeof(struct line));
}

/* Puts a word into the first line from its home that has room (there is one). */
static void page_put(struct line *page, uint32_t lines, uint64_t word) {
    uint32_t at = home_of(word_tag(word), lines);
    for (uint32_t probes = 0; probes < lines; probes++) {
        uint64_t *words = page[at].words;
        if (words[PAGE_LINE_WORDS - 1] == 0) {
            uint32_t i = 0;
            while (words[i] != 0) {
                i++;
            }
            words[i] = word;
            return;
        }
        at = at + 1 < lines ? at + 1 : 0;
    }
    dc_unreachable();
}

/* The word of 'key' in a page, or NULL. Stops at the first line with room (I2). */
static inline uint64_t *page_find(struct line *page, uint32_t lines, uint32_t tag, struct bytes key,
                                  uint32_t *line) {
    uint32_t at = home_of(tag, lines);
    for (uint32_t probes = 0; probes < lines; probes++) {
        uint64_t *words = page[at].words;
        for (uint32_t i = 0; i < PAGE_LINE_WORDS; i++) {
            if (words[i] == 0) {
                return NULL;
            }
            if (word_tag(words[i]) == tag && bytes_equal(entry_key(word_entry(words[i])), key)) {
                *line = at;
                return &words[i];
            }
        }
        at = at + 1 < lines ? at + 1 : 0;
    }
    return NULL;
}

/* The page of 'hash' and its depth. */
static const struct table *page_of(const struct table *t, uint64_t hash, uint32_t *depth) {
    *depth = 0;
    while (dc_unlikely(ref_is_node(ref_word(t)))) {
        t = &ref_node(ref_word(t))->child[child_of(hash, (*depth)++)];
    }
    return t;
}

struct entry *table_find(const struct table *t, uint64_t hash, struct bytes key) {
    uint32_t depth;
    uint64_t word = ref_word(page_of(t, hash, &depth));
    if (word == 0) {
        return NULL;
    }
    uint32_t line;
    uint64_t *found =
        page_find(ref_lines(word), ref_count_lines(word), tag_of(hash, depth), key, &line);
    return found == NULL ? NULL : word_entry(*found);
}

struct entry *table_find_version(const struct table *t, uint64_t hash, uint64_t version) {
    uint32_t depth;
    uint64_t word = ref_word(page_of(t, hash, &depth));
    uint32_t lines = word == 0 ? 0 : ref_count_lines(word);
    uint32_t tag = tag_of(hash, depth);
    uint32_t at = home_of(tag, lines);
    for (uint32_t probes = 0; probes < lines; probes++) {
        const uint64_t *words = ref_lines(word)[at].words;
        for (uint32_t i = 0; i < PAGE_LINE_WORDS; i++) {
            if (words[i] == 0) {
                return NULL;
            }
            if (word_tag(words[i]) == tag && entry_version(word_entry(words[i])) == version) {
                return word_entry(words[i]);
            }
        }
        at = at + 1 < lines ? at + 1 : 0;
    }
    return NULL;
}

/* Walks down to the page of 'hash', noting the way. */
static void place_descend(struct table *t, uint64_t hash, struct table_place *out) {
    out->depth = 0;
    out->path[0] = t;
    while (ref_is_node(ref_word(out->path[out->depth]))) {
        struct node *node = ref_node(ref_word(out->path[out->depth]));
        struct table *child = &node->child[child_of(hash, out->depth)];
        out->path[++out->depth] = child;
    }
    out->page = out->path[out->depth];
    out->word = NULL;
}

struct entry *table_locate(struct table *t, uint64_t hash, struct bytes key,
                           struct table_place *out) {
    place_descend(t, hash, out);
    uint64_t word = ref_word(out->page);
    if (word == 0) {
        return NULL;
    }
    out->word = page_find(ref_lines(word), ref_count_lines(word), tag_of(hash, out->depth), key,
                          &out->line);
    return out->word == NULL ? NULL : word_entry(*out->word);
}

/* Moves a page into one of 'lines' lines; the tags stay. */
static enum dc_err page_resize(struct table *t, uint32_t lines) {
    uint64_t old = ref_word(t);
    struct line *page = page_alloc(lines);
    if (page == NULL) {
        return DC_ENOMEM;
    }
    for (uint32_t l = 0; l < ref_count_lines(old); l++) {
        for (uint32_t i = 0; i < PAGE_LINE_WORDS && ref_lines(old)[l].words[i] != 0; i++) {
            page_put(page, lines, ref_lines(old)[l].words[i]);
        }
    }
    if (old != 0) {
        page_free(ref_lines(old), ref_count_lines(old));
    }
    ref_set(t, page, lines, 0);
    return DC_OK;
}

static uint64_t entry_hash(const struct entry *e, const uint8_t *seed) {
    return crypto_hash(entry_key(e), seed) & (HASH_END - 1);
}

static void node_free(struct node *node) {
    mem_free_aligned(node, sizeof(struct line), sizeof(struct node));
}

/* Gives the entries of a full page to 16 new pages (I3). Nothing has changed when memory fails. */
static enum dc_err page_split(struct table *t, uint32_t depth, const uint8_t *seed) {
    uint64_t old = ref_word(t);
    uint32_t lines = ref_count_lines(old);
    struct node *node = mem_alloc_aligned(sizeof(struct line), sizeof(struct node));
    uint32_t counts[NODE_FANOUT] = {0};
    if (node == NULL) {
        return DC_ENOMEM;
    }
    memset(node, 0, sizeof(*node));
    /* The child's number is the high end of the old tag. */
    for (uint32_t l = 0; l < lines; l++) {
        for (uint32_t i = 0; i < PAGE_LINE_WORDS && ref_lines(old)[l].words[i] != 0; i++) {
            counts[word_tag(ref_lines(old)[l].words[i]) >> (16 - NODE_BITS)]++;
        }
    }
    for (uint32_t c = 0; c < NODE_FANOUT; c++) {
        uint32_t want = lines_for(counts[c] + 1);
        struct line *page = page_alloc(want);
        if (page == NULL) {
            while (c-- > 0) {
                uint64_t word = ref_word(&node->child[c]);
                page_free(ref_lines(word), ref_count_lines(word));
            }
            node_free(node);
            return DC_ENOMEM;
        }
        ref_set(&node->child[c], page, want, 0);
        count_add(&node->child[c], counts[c]);
        due_set(&node->child[c], due_get(t));
    }
    for (uint32_t l = 0; l < lines; l++) {
        for (uint32_t i = 0; i < PAGE_LINE_WORDS && ref_lines(old)[l].words[i] != 0; i++) {
            struct entry *e = word_entry(ref_lines(old)[l].words[i]);
            uint64_t hash = entry_hash(e, seed);
            uint64_t child = ref_word(&node->child[child_of(hash, depth)]);
            page_put(ref_lines(child), ref_count_lines(child),
                     word_make(tag_of(hash, depth + 1), e));
        }
    }
    page_free(ref_lines(old), lines);
    ref_set(t, node, 0, NODE_BIT);
    return DC_OK;
}

/* Makes room for 'extra' more entries in the page that 'hash' belongs to. */
static enum dc_err make_room(struct table_place *at, uint64_t hash, uint32_t extra,
                             const uint8_t *seed) {
    for (;;) {
        struct table *page = at->page;
        uint32_t lines = ref_count_lines(ref_word(page));
        uint32_t want = count_of(page) + extra;
        if (lines > 0 && want <= load_max(lines)) {
            return DC_OK;
        }
        if (lines < PAGE_LINES_MAX || at->depth == TABLE_DEPTH_MAX) {
            uint32_t bigger = lines_for(want);
            return bigger > lines ? page_resize(page, bigger) : DC_ENOMEM;
        }
        enum dc_err err = page_split(page, at->depth, seed);
        if (err != DC_OK) {
            return err;
        }
        place_descend(at->path[0], hash, at);
    }
}

enum dc_err table_reserve(struct table *t, uint64_t hash, uint32_t extra, const uint8_t *seed) {
    struct table_place at;
    place_descend(t, hash, &at);
    /* Beyond a page's worth the insertions find their room one by one. */
    uint32_t bounded = extra < PAGE_LINES_MAX ? extra : PAGE_LINES_MAX;
    return make_room(&at, hash, bounded, seed);
}

void table_insert(struct table *t, uint64_t hash, struct entry *e, const uint8_t *seed) {
    struct table_place at;
    place_descend(t, hash, &at);
    enum dc_err err = make_room(&at, hash, 1, seed);
    uint64_t word = ref_word(at.page);
    uint32_t lines = ref_count_lines(word);
    /* Without memory for growth the words above the load limit are left; the reservation saw to that. */
    dc_assert(err == DC_OK || count_of(at.page) < lines * PAGE_LINE_WORDS);
    page_put(ref_lines(word), lines, word_make(tag_of(hash, at.depth), e));
    for (uint32_t d = 0; d <= at.depth; d++) {
        count_add(at.path[d], 1);
    }
}

void table_replace(struct table_place *at, struct entry *e) {
    *at->word = word_make(word_tag(*at->word), e);
}

/* Fills the hole at (line, word) with its line's last word, and the hole that this leaves with an entry
 * displaced past the line, until no line has a hole before a displaced entry (I2). */
static void close_gap(struct line *page, uint32_t lines, uint32_t line, uint64_t *hole) {
    for (;;) {
        uint64_t *words = page[line].words;
        uint32_t last = PAGE_LINE_WORDS - 1;
        bool was_full = words[last] != 0;
        while (words[last] == 0) {
            last--;
        }
        *hole = words[last];
        words[last] = 0;
        if (!was_full) {
            return;
        }
        /* Who behind this line has his home at or before it? */
        uint32_t at = line;
        hole = NULL;
        for (uint32_t distance = 1; distance < lines && hole == NULL; distance++) {
            at = at + 1 < lines ? at + 1 : 0;
            for (uint32_t i = 0; i < PAGE_LINE_WORDS && page[at].words[i] != 0; i++) {
                uint32_t home = home_of(word_tag(page[at].words[i]), lines);
                uint32_t displaced = at >= home ? at - home : at + lines - home;
                if (displaced >= distance) {
                    hole = &page[at].words[i];
                    break;
                }
            }
            if (hole == NULL && page[at].words[PAGE_LINE_WORDS - 1] == 0) {
                return;
            }
        }
        if (hole == NULL) {
            return;
        }
        words[last] = *hole;
        line = at;
    }
}

void table_remove(struct table_place *at) {
    uint64_t word = ref_word(at->page);
    close_gap(ref_lines(word), ref_count_lines(word), at->line, at->word);
    at->word = NULL;
    for (uint32_t d = 0; d <= at->depth; d++) {
        dc_debug_assert(count_of(at->path[d]) > 0);
        count_add(at->path[d], UINT32_MAX);
    }
}

void table_due(struct table *t, uint64_t hash, uint32_t due) {
    for (uint32_t depth = 0;; depth++) {
        if (due < due_get(t)) {
            due_set(t, due);
        }
        uint64_t word = ref_word(t);
        if (!ref_is_node(word)) {
            return;
        }
        t = &ref_node(word)->child[child_of(hash, depth)];
    }
}

static void visit_line(const struct line *page, uint32_t lines, uint32_t line, table_visit_fn visit,
                       void *arg) {
    uint32_t at = line;
    for (uint32_t distance = 0; distance < lines; distance++) {
        for (uint32_t i = 0; i < PAGE_LINE_WORDS && page[at].words[i] != 0; i++) {
            if (home_of(word_tag(page[at].words[i]), lines) == line) {
                visit(arg, word_entry(page[at].words[i]));
            }
        }
        if (page[at].words[PAGE_LINE_WORDS - 1] == 0) {
            return;
        }
        at = at + 1 < lines ? at + 1 : 0;
    }
}

/* Passes only what lies at or behind a position inside the line's range on. */
struct from_filter {
    uint64_t from;
    const uint8_t *seed;
    table_visit_fn visit;
    void *arg;
};

static void visit_from(void *arg, struct entry *e) {
    const struct from_filter *f = arg;
    if (entry_hash(e, f->seed) >= f->from) {
        f->visit(f->arg, e);
    }
}

uint64_t table_step_line(const struct table *t, uint64_t from, const uint8_t *seed,
                         table_visit_fn visit, void *arg) {
    uint32_t depth;
    const struct table *page = page_of(t, from, &depth);
    uint64_t word = ref_word(page);
    uint64_t page_size = HASH_END >> (NODE_BITS * depth);
    uint64_t page_from = from & ~(page_size - 1);
    if (word == 0 || count_of(page) == 0) {
        return page_from + page_size;
    }
    uint32_t lines = ref_count_lines(word);
    uint32_t line = home_of(tag_of(from, depth), lines);
    /* First tag of a line: the least t with t * lines >= line << 16. */
    uint64_t first_tag = (((uint64_t)line << 16) + lines - 1) / lines;
    uint64_t next_tag = (((uint64_t)(line + 1) << 16) + lines - 1) / lines;
    if (page_from + (first_tag << tag_shift(depth)) == from) {
        visit_line(ref_lines(word), lines, line, visit, arg);
    } else {
        struct from_filter filter = {from, seed, visit, arg};
        visit_line(ref_lines(word), lines, line, visit_from, &filter);
    }
    return page_from + (next_tag << tag_shift(depth));
}

uint64_t table_step_page(struct table *t, uint64_t from, uint32_t due, struct table **page_out,
                         table_visit_fn visit, void *arg) {
    struct table_place at;
    place_descend(t, from, &at);
    uint64_t word = ref_word(at.page);
    uint64_t page_size = HASH_END >> (NODE_BITS * at.depth);
    bool is_due = due_get(at.page) <= due;
    uint32_t lines = is_due ? ref_count_lines(word) : 0;
    for (uint32_t l = 0; l < lines; l++) {
        const uint64_t *words = ref_lines(word)[l].words;
        for (uint32_t i = 0; i < PAGE_LINE_WORDS && words[i] != 0; i++) {
            __builtin_prefetch(word_entry(words[i]));
        }
        for (uint32_t i = 0; i < PAGE_LINE_WORDS && words[i] != 0; i++) {
            visit(arg, word_entry(words[i]));
        }
    }
    *page_out = is_due ? at.page : NULL;
    return (from & ~(page_size - 1)) + page_size;
}

void table_set_page_due(struct table *page, uint32_t due) {
    due_set(page, due);
}

void table_refresh_due(struct table *t) {
    uint64_t word = ref_word(t);
    if (!ref_is_node(word)) {
        return;
    }
    uint32_t least = DUE_NEVER;
    for (uint32_t c = 0; c < NODE_FANOUT; c++) {
        struct table *child = &ref_node(word)->child[c];
        table_refresh_due(child);
        least = due_get(child) < least ? due_get(child) : least;
    }
    due_set(t, least);
}

/* Makes one page of a node whose children are pages with few entries in all. */
static void node_join(struct table *t) {
    struct node *node = ref_node(ref_word(t));
    uint32_t lines = lines_for(count_of(t) + 1);
    struct line *page = page_alloc(lines);
    if (page == NULL) {
        return;
    }
    for (uint32_t c = 0; c < NODE_FANOUT; c++) {
        uint64_t word = ref_word(&node->child[c]);
        for (uint32_t l = 0; l < ref_count_lines(word); l++) {
            const uint64_t *words = ref_lines(word)[l].words;
            for (uint32_t i = 0; i < PAGE_LINE_WORDS && words[i] != 0; i++) {
                uint32_t tag = c << (16 - NODE_BITS) | word_tag(words[i]) >> NODE_BITS;
                page_put(page, lines, word_make(tag, word_entry(words[i])));
            }
        }
        if (word != 0) {
            page_free(ref_lines(word), ref_count_lines(word));
        }
    }
    node_free(node);
    ref_set(t, page, lines, 0);
}

/* Returns whether the table below is a single page now. */
static bool shrink_below(struct table *t) {
    uint64_t word = ref_word(t);
    if (!ref_is_node(word)) {
        uint32_t lines = ref_count_lines(word);
        uint32_t count = count_of(t);
        if (lines > 0 && count == 0) {
            page_free(ref_lines(word), lines);
            ref_set(t, NULL, 0, 0);
        } else if (count < load_max(lines) / 3 && lines_for(count + count / 8 + 1) < lines) {
            /* Stays as it is without memory. */
            (void)page_resize(t, lines_for(count + count / 8 + 1));
        }
        return true;
    }
    bool pages_only = true;
    for (uint32_t c = 0; c < NODE_FANOUT; c++) {
        pages_only = shrink_below(&ref_node(word)->child[c]) && pages_only;
    }
    if (pages_only && count_of(t) < load_max(PAGE_LINES_MAX) / 4) {
        node_join(t);
        return true;
    }
    return false;
}

void table_shrink(struct table *t) {
    (void)shrink_below(t);
}

void table_drop(struct table *t, table_drop_fn drop, void *arg) {
    uint64_t word = ref_word(t);
    uint32_t kept = 0;
    if (ref_is_node(word)) {
        struct node *node = ref_node(word);
        for (uint32_t c = 0; c < NODE_FANOUT; c++) {
            table_drop(&node->child[c], drop, arg);
            kept += count_of(&node->child[c]);
        }
        if (kept == 0) {
            node_free(node);
        }
    } else {
        uint32_t lines = ref_count_lines(word);
        struct line *page = ref_lines(word);
        struct line *fresh = NULL;
        for (uint32_t l = 0; l < lines; l++) {
            for (uint32_t i = 0; i < PAGE_LINE_WORDS && page[l].words[i] != 0; i++) {
                struct entry *e = word_entry(page[l].words[i]);
                if (drop == NULL || drop(arg, e)) {
                    entry_destroy(e);
                    continue;
                }
                if (fresh == NULL) {
                    fresh = mem_must_aligned(sizeof(struct line), lines * sizeof(struct line));
                    memset(fresh, 0, lines * sizeof(struct line));
                }
                page_put(fresh, lines, page[l].words[i]);
                kept++;
            }
        }
        if (page != NULL) {
            page_free(page, lines);
        }
        ref_set(t, fresh, fresh == NULL ? 0 : lines, 0);
    }
    if (kept == 0) {
        ref_set(t, NULL, 0, 0);
        due_set(t, DUE_NEVER);
    }
    atomic_store_explicit(&t->count, kept, memory_order_relaxed);
}

size_t table_overhead(const struct table *t) {
    uint64_t word = ref_word(t);
    if (!ref_is_node(word)) {
        return ref_count_lines(word) * sizeof(struct line);
    }
    size_t sum = sizeof(struct node);
    for (uint32_t c = 0; c < NODE_FANOUT; c++) {
        sum += table_overhead(&ref_node(word)->child[c]);
    }
    return sum;
}

void table_prefetch(const struct table *t, uint64_t hash) {
    uint64_t word = ref_word(t);
    if (word != 0 && !ref_is_node(word)) {
        __builtin_prefetch(ref_lines(word) + home_of(tag_of(hash, 0), ref_count_lines(word)));
    }
}

void table_prefetch_entry(const struct table *t, uint64_t hash) {
    uint64_t word = ref_word(t);
    if (word == 0 || ref_is_node(word)) {
        return;
    }
    uint32_t tag = tag_of(hash, 0);
    const uint64_t *words = ref_lines(word)[home_of(tag, ref_count_lines(word))].words;
    for (uint32_t i = 0; i < PAGE_LINE_WORDS; i++) {
        if (word_tag(words[i]) == tag) {
            const char *entry = (const char *)word_entry(words[i]);
            __builtin_prefetch(entry, 1);
            __builtin_prefetch(entry + sizeof(struct line), 1);
            return;
        }
    }
}
