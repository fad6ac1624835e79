/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/store/page.h"

#include "server/base/mem.h"

uint32_t page_lines_for(uint32_t count) {
    for (uint32_t lines = 1;; lines++) {
        if (lines > 8) {
            lines = (uint32_t)(mem_good_size(lines * sizeof(struct line)) / sizeof(struct line));
        }
        if (lines >= PAGE_LINES_MAX || page_load_max(lines) >= count) {
            return lines < PAGE_LINES_MAX ? lines : PAGE_LINES_MAX;
        }
    }
}

struct line *page_create(uint32_t lines, enum memory_need need) {
    size_t size = lines * sizeof(struct line);
    dc_assert(lines > 0 && lines <= PAGE_LINES_MAX);
    struct line *page = need == MEMORY_MUST ? mem_must_aligned(sizeof(struct line), size)
                                            : mem_alloc_aligned(sizeof(struct line), size);
    if (page != NULL) {
        memset(page, 0, size);
    }
    return page;
}

void page_destroy(struct line *page, uint32_t lines) {
    mem_free_aligned(page, sizeof(struct line), lines * sizeof(struct line));
}

/* Words of a line that isn't full. A loop would end where no branch prediction foresees it. */
static uint32_t line_count(const uint64_t *words) {
    uint32_t count = words[3] != 0 ? 4 : 0;
    count += words[count + 1] != 0 ? 2 : 0;
    return count + (words[count] != 0);
}

void page_put(struct line *page, uint32_t lines, uint64_t word) {
    uint32_t at = home_of(word_tag(word), lines);
    for (uint32_t probes = 0; probes < lines; probes++) {
        uint64_t *words = page[at].words;
        if (!line_is_full(&page[at])) {
            words[line_count(words)] = word;
            return;
        }
        at = line_after(at, lines);
    }
    dc_unreachable();
}

/* The first word behind 'line' that has its home at or before it; NULL when there is none: a line with
 * room is passed by nobody (I2). */
static uint64_t *displaced_past(struct line *page, uint32_t lines, uint32_t *line) {
    uint32_t at = *line;
    for (uint32_t distance = 1; distance < lines; distance++) {
        at = line_after(at, lines);
        for (uint32_t i = 0; i < PAGE_LINE_WORDS && page[at].words[i] != 0; i++) {
            uint32_t home = home_of(word_tag(page[at].words[i]), lines);
            uint32_t displaced = at >= home ? at - home : at + lines - home;
            if (displaced >= distance) {
                *line = at;
                return &page[at].words[i];
            }
        }
        if (!line_is_full(&page[at])) {
            return NULL;
        }
    }
    return NULL;
}

/* The hole is filled with its line's last word, and the hole that this leaves with an entry displaced past the
 * line, until no line has a hole before a displaced entry. */
void page_remove(struct line *page, uint32_t lines, uint32_t line, uint64_t *word) {
    dc_assert(*word != 0 && word >= page[line].words && word < page[line].words + PAGE_LINE_WORDS);
    while (word != NULL) {
        uint64_t *words = page[line].words;
        bool was_full = line_is_full(&page[line]);
        uint32_t last = PAGE_LINE_WORDS - 1;
        while (words[last] == 0) {
            last--;
        }
        *word = words[last];
        words[last] = 0;
        word = was_full ? displaced_past(page, lines, &line) : NULL;
        if (word != NULL) {
            words[last] = *word;
        }
    }
}
