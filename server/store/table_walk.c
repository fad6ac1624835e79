/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/mem.h"
#include "server/store/page.h"
#include "server/store/table_ref.h"

static void prefetch_line(const struct line *line) {
    for (uint32_t i = 0; i < PAGE_LINE_WORDS && line->words[i] != 0; i++) {
        __builtin_prefetch(word_entry(line->words[i]));
    }
}

static void visit_line(const struct line *page, uint32_t lines, uint32_t line, table_visit_fn visit,
                       void *arg) {
    uint32_t at = line;
    prefetch_line(&page[line]);
    for (uint32_t distance = 0; distance < lines; distance++) {
        for (uint32_t i = 0; i < PAGE_LINE_WORDS && page[at].words[i] != 0; i++) {
            if (home_of(word_tag(page[at].words[i]), lines) == line) {
                visit(arg, word_entry(page[at].words[i]));
            }
        }
        if (!line_is_full(&page[at])) {
            return;
        }
        at = line_after(at, lines);
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

const struct table *table_due_page(const struct table *t, uint64_t from, uint32_t due,
                                   uint64_t *to) {
    uint32_t depth = 0;
    while (due_get(t) <= due && ref_is_node(ref_word(t))) {
        t = &ref_node(ref_word(t))->child[child_of(from, depth++)];
    }
    uint64_t size = HASH_END >> (NODE_BITS * depth);
    *to = (from & ~(size - 1)) + size;
    return due_get(t) <= due ? t : NULL;
}

void table_visit_page(const struct table *t, table_visit_fn visit, void *arg) {
    uint64_t word = ref_word(t);
    const struct line *page = ref_lines(word);
    uint32_t lines = ref_count_lines(word);
    dc_assert(!ref_is_node(word));
    if (lines > 0) {
        prefetch_line(&page[0]);
    }
    for (uint32_t l = 0; l < lines; l++) {
        if (l + 1 < lines) {
            prefetch_line(&page[l + 1]);
        }
        for (uint32_t i = 0; i < PAGE_LINE_WORDS && page[l].words[i] != 0; i++) {
            visit(arg, word_entry(page[l].words[i]));
        }
    }
}

uint64_t table_pack_page(struct table *t, uint64_t from, table_move_fn move) {
    uint32_t depth = 0;
    while (ref_is_node(ref_word(t))) {
        t = &ref_node(ref_word(t))->child[child_of(from, depth++)];
    }
    uint64_t size = HASH_END >> (NODE_BITS * depth);
    uint64_t word = ref_word(t);
    void *to = word == 0 ? NULL
                         : move(ref_lines(word), sizeof(struct line),
                                ref_count_lines(word) * sizeof(struct line));
    if (to != NULL) {
        ref_set(t, to, ref_count_lines(word), 0);
    }
    return (from & ~(size - 1)) + size;
}

void table_trim(struct table *t) {
    uint64_t word = ref_word(t);
    if (count_of(t) != 0 || word == 0) {
        return;
    }
    if (ref_is_node(word)) { /* joins have failed */
        table_drop(t);
        return;
    }
    page_destroy(ref_lines(word), ref_count_lines(word));
    ref_set(t, NULL, 0, 0);
    due_set(t, DUE_NEVER);
}

static void drop_page(uint64_t word) {
    uint32_t lines = ref_count_lines(word);
    struct line *page = ref_lines(word);
    for (uint32_t l = 0; l < lines; l++) {
        for (uint32_t i = 0; i < PAGE_LINE_WORDS && page[l].words[i] != 0; i++) {
            entry_destroy(word_entry(page[l].words[i]));
        }
    }
    if (page != NULL) {
        page_destroy(page, lines);
    }
}

void table_drop(struct table *t) {
    uint64_t word = ref_word(t);
    if (ref_is_node(word)) {
        struct node *node = ref_node(word);
        for (uint32_t c = 0; c < NODE_FANOUT; c++) {
            table_drop(&node->child[c]);
        }
        node_destroy(node);
    } else {
        drop_page(word);
    }
    ref_set(t, NULL, 0, 0);
    due_set(t, DUE_NEVER);
    atomic_store_explicit(&t->count, 0, memory_order_relaxed);
}

/* Frees what 'drop' says of a page; the rest moves together. Returns how many are left. */
static uint32_t drop_from_page(struct table *t, table_drop_fn drop, void *arg) {
    uint64_t word = ref_word(t);
    uint32_t lines = ref_count_lines(word);
    struct line *page = ref_lines(word);
    uint64_t kept[PAGE_WORDS_MAX];
    uint32_t kept_count = 0;
    for (uint32_t l = 0; l < lines; l++) {
        for (uint32_t i = 0; i < PAGE_LINE_WORDS && page[l].words[i] != 0; i++) {
            struct entry *e = word_entry(page[l].words[i]);
            if (drop(arg, e)) {
                entry_destroy(e);
            } else {
                kept[kept_count++] = page[l].words[i];
            }
        }
    }
    if (kept_count == 0) {
        if (page != NULL) {
            page_destroy(page, lines);
        }
        return 0;
    }
    memset(page, 0, lines * sizeof(*page));
    for (uint32_t i = 0; i < kept_count; i++) {
        page_put(page, lines, kept[i]);
    }
    return kept_count;
}

void table_drop_if(struct table *t, table_drop_fn drop, void *arg) {
    uint64_t word = ref_word(t);
    uint32_t kept = 0;
    if (ref_is_node(word)) {
        struct node *node = ref_node(word);
        for (uint32_t c = 0; c < NODE_FANOUT; c++) {
            table_drop_if(&node->child[c], drop, arg);
            kept += count_of(&node->child[c]);
        }
        if (kept == 0) {
            node_destroy(node);
        }
    } else {
        kept = drop_from_page(t, drop, arg);
    }
    if (kept == 0) {
        ref_set(t, NULL, 0, 0);
        due_set(t, DUE_NEVER);
    }
    atomic_store_explicit(&t->count, kept, memory_order_relaxed);
}

uint32_t table_drop_page(struct table *t) {
    uint64_t word = ref_word(t);
    if (!ref_is_node(word)) {
        uint32_t count = count_of(t);
        table_drop(t);
        return count;
    }
    struct node *node = ref_node(word);
    for (uint32_t c = 0; c < NODE_FANOUT; c++) {
        if (ref_word(&node->child[c]) != 0) {
            return table_drop_page(&node->child[c]);
        }
    }
    node_destroy(node);
    ref_set(t, NULL, 0, 0);
    return 0;
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
