/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/store/table.h"

#include "server/base/mem.h"
#include "server/store/page.h"
#include "server/store/table_ref.h"

uint32_t due_of(int64_t expiry_ms) {
    if (expiry_ms == EXPIRY_NONE) {
        return DUE_NEVER;
    }
    int64_t units = (expiry_ms - EXPIRY_BASE_MS + DUE_UNIT_MS - 1) / DUE_UNIT_MS;
    return units < 0 ? 0 : units >= DUE_NEVER ? DUE_NEVER - 1 : (uint32_t)units;
}

uint32_t due_at(int64_t now_ms) {
    int64_t units = (now_ms - EXPIRY_BASE_MS) / DUE_UNIT_MS;
    return units < 0 ? 0 : units >= DUE_NEVER ? DUE_NEVER - 1 : (uint32_t)units;
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
        at = line_after(at, lines);
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

/* --- growth ------------------------------------------------------------------------------------------ */

/* Moves a page into one of 'lines' lines; the tags stay. */
static enum dc_err page_resize(struct table *t, uint32_t lines, enum memory_need need) {
    uint64_t old = ref_word(t);
    struct line *page = page_create(lines, need);
    if (page == NULL) {
        return DC_ENOMEM;
    }
    dc_assert(count_of(t) <= lines * PAGE_LINE_WORDS);
    for (uint32_t l = 0; l < ref_count_lines(old); l++) {
        for (uint32_t i = 0; i < PAGE_LINE_WORDS && ref_lines(old)[l].words[i] != 0; i++) {
            page_put(page, lines, ref_lines(old)[l].words[i]);
        }
    }
    if (old != 0) {
        page_destroy(ref_lines(old), ref_count_lines(old));
    } else {
        due_set(t, DUE_NEVER); /* a root begins as zeros */
    }
    ref_set(t, page, lines, 0);
    return DC_OK;
}

static struct node *node_create(enum memory_need need) {
    struct node *node = need == MEMORY_MUST ? mem_must_aligned(sizeof(struct line), sizeof(*node))
                                            : mem_alloc_aligned(sizeof(struct line), sizeof(*node));
    if (node != NULL) {
        memset(node, 0, sizeof(*node));
    }
    return node;
}

/* A node with empty pages for as many entries; NULL when there is no memory. */
static struct node *node_with_pages(const uint32_t *counts, uint32_t due, enum memory_need need) {
    struct node *node = node_create(need);
    for (uint32_t c = 0; c < NODE_FANOUT && node != NULL; c++) {
        uint32_t lines = page_lines_for(counts[c] + 1);
        struct line *page = page_create(lines, need);
        if (page == NULL) {
            node_destroy(node);
            return NULL;
        }
        ref_set(&node->child[c], page, lines, 0);
        count_add(&node->child[c], counts[c]);
        due_set(&node->child[c], due);
    }
    return node;
}

/* Gives the entries of a full page to 16 new pages (I3). Nothing has changed when memory fails. */
static enum dc_err page_split(struct table *t, uint32_t depth, const uint8_t *seed,
                              enum memory_need need) {
    uint64_t old = ref_word(t);
    const struct line *page = ref_lines(old);
    uint32_t lines = ref_count_lines(old);
    uint32_t counts[NODE_FANOUT] = {0};
    dc_assert(depth < TABLE_DEPTH_MAX && lines == PAGE_LINES_MAX);
    /* The child's number is the high end of the old tag; for the new one the key has to be read. */
    for (uint32_t l = 0; l < lines; l++) {
        for (uint32_t i = 0; i < PAGE_LINE_WORDS && page[l].words[i] != 0; i++) {
            counts[word_tag(page[l].words[i]) >> (16 - NODE_BITS)]++;
            __builtin_prefetch(word_entry(page[l].words[i]));
        }
    }
    struct node *node = node_with_pages(counts, due_get(t), need);
    if (node == NULL) {
        return DC_ENOMEM;
    }
    for (uint32_t l = 0; l < lines; l++) {
        for (uint32_t i = 0; i < PAGE_LINE_WORDS && page[l].words[i] != 0; i++) {
            struct entry *e = word_entry(page[l].words[i]);
            uint64_t hash = entry_hash(e, seed);
            dc_debug_assert(tag_of(hash, depth) == word_tag(page[l].words[i]));
            uint64_t child = ref_word(&node->child[child_of(hash, depth)]);
            page_put(ref_lines(child), ref_count_lines(child),
                     word_make(tag_of(hash, depth + 1), e));
        }
    }
    page_destroy(ref_lines(old), lines);
    ref_set(t, node, 0, NODE_BIT);
    return DC_OK;
}

/* Makes room for 'extra' more entries in the page that 'hash' belongs to. */
static enum dc_err make_room(struct table_place *at, uint64_t hash, uint32_t extra,
                             const uint8_t *seed, enum memory_need need) {
    for (;;) {
        struct table *page = at->page;
        uint32_t lines = ref_count_lines(ref_word(page));
        uint32_t want = count_of(page) + extra;
        if (lines > 0 && want <= page_load_max(lines)) {
            return DC_OK;
        }
        if (lines < PAGE_LINES_MAX || at->depth == TABLE_DEPTH_MAX) {
            uint32_t bigger = page_lines_for(want);
            enum dc_err err = bigger > lines ? page_resize(page, bigger, need) : DC_ENOMEM;
            if (err != DC_OK || want <= page_load_max(bigger)) {
                return err;
            }
        }
        enum dc_err err = page_split(page, at->depth, seed, need);
        if (err != DC_OK) {
            return err;
        }
        place_descend(at->path[0], hash, at);
    }
}

enum dc_err table_reserve(struct table *t, uint64_t hash, uint32_t extra, const uint8_t *seed) {
    struct table_place at;
    place_descend(t, hash, &at);
    uint32_t bounded = extra < TABLE_RESERVE_MAX ? extra : TABLE_RESERVE_MAX;
    return make_room(&at, hash, bounded, seed, MEMORY_MAY);
}

enum dc_err table_reserve_page(struct table *t, uint64_t hash, uint32_t extra,
                               const uint8_t *seed) {
    struct table_place at;
    place_descend(t, hash, &at);
    if (at.depth > 0) {
        return DC_OK; /* they go to many pages */
    }
    uint32_t count = count_of(at.page);
    uint32_t most = page_load_max(PAGE_LINES_MAX);
    uint32_t room = count < most ? most - count : 1;
    return make_room(&at, hash, extra < room ? extra : room, seed, MEMORY_MAY);
}

void table_fit(struct table *t) {
    uint64_t word = ref_word(t);
    uint32_t count = count_of(t), lines = ref_count_lines(word);
    if (word == 0 || ref_is_node(word) || count > page_load_max(lines) / 4 * 3) {
        return;
    }
    uint32_t fewer = page_lines_for(count + 1);
    if (fewer < lines) {
        (void)page_resize(t, fewer, MEMORY_MAY);
    }
}

/* There is room. */
static void put_at(struct table_place *at, uint64_t hash, struct entry *e) {
    uint64_t word = ref_word(at->page);
    page_put(ref_lines(word), ref_count_lines(word), word_make(tag_of(hash, at->depth), e));
    for (uint32_t d = 0; d <= at->depth; d++) {
        count_add(at->path[d], 1);
    }
}

enum dc_err table_add(struct table *t, uint64_t hash, struct entry *e, const uint8_t *seed) {
    struct table_place at;
    place_descend(t, hash, &at);
    enum dc_err err = make_room(&at, hash, 1, seed, MEMORY_MAY);
    if (err == DC_OK) {
        put_at(&at, hash, e);
    }
    return err;
}

void table_insert(struct table *t, uint64_t hash, struct entry *e, const uint8_t *seed) {
    struct table_place at;
    place_descend(t, hash, &at);
    enum dc_err err = make_room(&at, hash, 1, seed, MEMORY_MAY);
    if (dc_unlikely(err != DC_OK) &&
        count_of(at.page) >= ref_count_lines(ref_word(at.page)) * PAGE_LINE_WORDS) {
        err = make_room(&at, hash, 1, seed, MEMORY_MUST);
        dc_assert(err == DC_OK); /* else 960 keys share 48 bits of a keyed hash */
    }
    put_at(&at, hash, e);
}

/* --- removal ----------------------------------------------------------------------------------------- */

void table_replace(struct table_place *at, struct entry *e) {
    *at->word = word_make(word_tag(*at->word), e);
}

/* Makes one page of a node whose children are pages. It stays as it is without memory. */
static void node_join(struct table *t) {
    struct node *node = ref_node(ref_word(t));
    uint32_t lines = page_lines_for(count_of(t) + 1);
    struct line *page = page_create(lines, MEMORY_MAY);
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
    }
    node_destroy(node);
    ref_set(t, page, lines, 0);
}

static bool has_pages_only(const struct node *node) {
    for (uint32_t c = 0; c < NODE_FANOUT; c++) {
        if (ref_is_node(ref_word(&node->child[c]))) {
            return false;
        }
    }
    return true;
}

/* A page shrinks when it is less than a quarter full, a node is joined when its entries fill a quarter of a page. Between
 * two such steps, or one and growth, lie as many operations as the step moves entries. */
static void shrink_way(const struct table_place *at) {
    uint32_t lines = ref_count_lines(ref_word(at->page));
    uint32_t count = count_of(at->page);
    if (count < page_load_max(lines) / 4 && page_lines_for(count + count / 4 + 1) < lines) {
        (void)page_resize(at->page, page_lines_for(count + count / 4 + 1), MEMORY_MAY);
    }
    for (uint32_t d = at->depth; d-- > 0;) {
        struct table *t = at->path[d];
        if (count_of(t) >= page_load_max(PAGE_LINES_MAX) / 4 ||
            !has_pages_only(ref_node(ref_word(t)))) {
            return;
        }
        node_join(t);
        if (ref_is_node(ref_word(t))) {
            return; /* no memory */
        }
    }
}

void table_remove(struct table_place *at) {
    uint64_t word = ref_word(at->page);
    page_remove(ref_lines(word), ref_count_lines(word), at->line, at->word);
    at->word = NULL;
    for (uint32_t d = 0; d <= at->depth; d++) {
        dc_assert(count_of(at->path[d]) > 0);
        count_add(at->path[d], UINT32_MAX);
    }
    shrink_way(at);
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

void table_set_due(struct table *t, uint64_t hash, uint32_t due) {
    struct table_place at;
    place_descend(t, hash, &at);
    due_set(at.page, due);
    for (uint32_t d = at.depth; d-- > 0;) {
        const struct node *node = ref_node(ref_word(at.path[d]));
        uint32_t least = DUE_NEVER;
        for (uint32_t c = 0; c < NODE_FANOUT; c++) {
            uint32_t below = due_get(&node->child[c]);
            least = below < least ? below : least;
        }
        due_set(at.path[d], least);
    }
}

struct line *table_line(const struct table *t, uint64_t hash) {
    uint32_t depth;
    uint64_t word = ref_word(page_of(t, hash, &depth));
    return word == 0 ? NULL : ref_lines(word) + home_of(tag_of(hash, depth), ref_count_lines(word));
}

bool table_is_large(const struct table *t) {
    return ref_is_node(ref_word(t));
}

bool table_is_gone(const struct table *t) {
    return ref_word(t) == 0;
}

void table_move(struct table *to, struct table *from) {
    atomic_store_explicit(&to->word, ref_word(from), memory_order_relaxed);
    atomic_store_explicit(&to->count, count_of(from), memory_order_relaxed);
    due_set(to, due_get(from));
    ref_set(from, NULL, 0, 0);
    atomic_store_explicit(&from->count, 0, memory_order_relaxed);
    due_set(from, DUE_NEVER);
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
