/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * page: up to 128 cache lines of words, ordered by hash; the piece that tables are made of.
 *
 * The lines of a page are ordered by hash because the home of a tag is a multiplication, not a remainder:
 *
 *   tag      0 ............................................................. 65535
 *   lines    |  0  |  1  |  2  |  ...                                  | lines-1 |
 *
 * so a page can have any number of lines, grows by a fifth or so at a time and still is walked in order. Displaced
 * entries (about one in ten at the load limit) lie in the lines after their home; a removal pulls them back
 * (page_remove), so there are no tombstones and a look-up ends at the first line that isn't full.
 *
 * Invariants: I1 and I2 of table.h.
 * Threads: the slot lock. Ownership: the table's; a page doesn't own its entries.
 */
#ifndef DC_STORE_PAGE_H
#define DC_STORE_PAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "server/base/assert.h"
#include "server/store/entry.h"

enum {
    PAGE_LINE_WORDS = 8,  /* one cache line */
    PAGE_LINES_MAX = 128, /* 8 KB, some 900 entries */
    PAGE_WORDS_MAX = PAGE_LINES_MAX * PAGE_LINE_WORDS
};

/* A word is tag << 48 | entry, 0 = empty. */
#define ENTRY_MASK ((uint64_t)0x0000fffffffffff0)

struct line {
    uint64_t words[PAGE_LINE_WORDS];
};

static inline struct entry *word_entry(uint64_t word) {
    return (struct entry *)(uintptr_t)(word & ENTRY_MASK);
}

static inline uint32_t word_tag(uint64_t word) {
    return (uint32_t)(word >> 48);
}

static inline uint64_t word_make(uint32_t tag, const struct entry *e) {
    dc_debug_assert(((uint64_t)(uintptr_t)e & ~ENTRY_MASK) == 0);
    return (uint64_t)tag << 48 | (uint64_t)(uintptr_t)e;
}

/* The line where the search for a tag begins. */
static inline uint32_t home_of(uint32_t tag, uint32_t lines) {
    return tag * lines >> 16;
}

/* Load limit: 15 of 16 words. */
static inline uint32_t page_load_max(uint32_t lines) {
    return lines * PAGE_LINE_WORDS - (lines * PAGE_LINE_WORDS + 15) / 16;
}

/* Lines for so many entries that the allocator hands out without waste: 1..8, 10, 12, 14, 16, 20, ... 128. */
uint32_t page_lines_for(uint32_t count);

/* Whether a failed allocation is an answer, or ends the process. */
enum memory_need { MEMORY_MAY, MEMORY_MUST };

/* Empty lines; NULL when there is no memory. */
struct line *page_create(uint32_t lines, enum memory_need need);
void page_destroy(struct line *page, uint32_t lines);

/* Puts a word into the first line from its home that has room (there is one). */
void page_put(struct line *page, uint32_t lines, uint64_t word);

/* Takes the word out of line 'line' and closes the gap. */
void page_remove(struct line *page, uint32_t lines, uint32_t line, uint64_t *word);

/* The line after 'line', around the end. */
static inline uint32_t line_after(uint32_t line, uint32_t lines) {
    return line + 1 < lines ? line + 1 : 0;
}

static inline bool line_is_full(const struct line *line) {
    return line->words[PAGE_LINE_WORDS - 1] != 0;
}

/* The word of 'key', or NULL. Stops at the first line with room (I2). */
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
        at = line_after(at, lines);
    }
    return NULL;
}

#endif
