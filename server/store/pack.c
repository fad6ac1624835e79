/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Packing. Eviction leaves holes: where the sizes of entries shift (and a policy that weighs sizes shifts them), runs of
 * the old sizes stay half empty, and memory that is resident holds nothing. So while memory is short and resident memory
 * is well above what is allocated, the hand of the eviction moves entries out of sparse runs into denser ones as it
 * passes, until the sparse ones come free. A move changes no content and no version.
 *
 * The pages of tables need the same when a keyspace has grown: all slots leave a size of page at about the same
 * time, and those that stay behind keep its runs resident. The janitor passes by and moves them together.
 */
#include "server/base/mem.h"
#include "server/store/store_priv.h"

enum {
    SPARSE_SHARE = 8, /* a run is sparse when more than one piece in so many is free, */
    THIN_SHARE = 4    /* and thin when it is one in so many */
};

void store_set_packing(struct store *s, bool on) {
    atomic_store_explicit(&s->packing, on, memory_order_relaxed);
}

static bool is_sparse(const struct mem_place *p) {
    return p->total > 1 && p->free * SPARSE_SHARE > p->total;
}

/* One piece less than in the old run is free: that is most likely the old run itself. Where runs are thin, the one that is
 * being filled may be the thinnest of them; it is filled nevertheless, or nothing would ever move. */
static bool is_better(const struct mem_place *to, const struct mem_place *from) {
    if (to->free + 1 == from->free) {
        return false;
    }
    return to->free < from->free || from->free * THIN_SHARE > from->total;
}

/* Moves a piece if there is a better run for it; NULL when there is none. */
static void *move_piece(void *old, size_t align, size_t len, const struct mem_place *from) {
    void *to = mem_alloc_dense(old, align, len);
    struct mem_place place;
    if (to == NULL) {
        return NULL;
    }
    mem_places(&to, 1, &place);
    if (!is_better(&place, from)) {
        mem_free_dense(to, align, len);
        return NULL;
    }
    memcpy(to, old, len);
    mem_free_dense(old, align, len);
    return to;
}

static bool move_entry(uint64_t *word, const struct mem_place *from) {
    struct entry *old = word_entry(*word);
    const struct entry *to = move_piece(old, ENTRY_ALIGN, entry_size(old), from);
    if (to == NULL) {
        return false;
    }
    *word = word_make(word_tag(*word), to);
    return true;
}

void pack_line(struct line *line) {
    void *entries[PAGE_LINE_WORDS];
    struct mem_place places[PAGE_LINE_WORDS];
    uint32_t count = 0;
    while (count < PAGE_LINE_WORDS && line->words[count] != 0) {
        entries[count] = word_entry(line->words[count]);
        count++;
    }
    mem_places(entries, count, places);
    for (uint32_t i = 0; i < count; i++) {
        if (is_sparse(&places[i]) && !move_entry(&line->words[i], &places[i])) {
            return; /* this size has nothing better; the next line is soon enough for the others */
        }
    }
}

static void *move_page(void *old, size_t align, size_t len) {
    struct mem_place place;
    mem_places(&old, 1, &place);
    return is_sparse(&place) ? move_piece(old, align, len, &place) : NULL;
}

void store_pack_pages(struct store *s, struct store_pack *at, uint32_t budget) {
    while (budget-- > 0) {
        struct keyspace *ks = &s->keyspaces[at->keyspace];
        if (atomic_load_explicit(&ks->used, memory_order_relaxed) == 0) {
            at->slot = SLOT_COUNT;
        } else if (!root_is_empty(ks, at->slot)) {
            store_lock(s, at->slot);
            at->hash = table_pack_page(&root_enter(ks, at->slot)->table, at->hash, move_page);
            store_unlock(s, at->slot);
        } else {
            at->hash = HASH_END;
        }
        if (at->hash >= HASH_END) {
            at->hash = 0;
            at->slot++;
        }
        if (at->slot >= SLOT_COUNT) {
            at->slot = 0;
            at->keyspace = (at->keyspace + 1) % s->keyspace_count;
        }
    }
}
