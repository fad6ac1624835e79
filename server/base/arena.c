/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/arena.h"

#include "server/base/mem.h"

struct arena_block {
    struct arena_block *next;
    size_t len;
    _Alignas(8) char data[];
};

void arena_init(struct arena *a, size_t cap) {
    *a = (struct arena){.base = mem_must_alloc(cap), .cap = cap};
}

void arena_reset(struct arena *a) {
    while (a->blocks != NULL) {
        struct arena_block *next = a->blocks->next;
        mem_free_sized(a->blocks, sizeof(struct arena_block) + a->blocks->len);
        a->blocks = next;
    }
    a->used = 0;
}

void arena_fini(struct arena *a) {
    arena_reset(a);
    mem_free(a->base);
    *a = (struct arena){0};
}

void *arena_alloc_block(struct arena *a, size_t len) {
    struct arena_block *block = mem_must_alloc(sizeof(struct arena_block) + len);
    block->next = a->blocks;
    block->len = len;
    a->blocks = block;
    return block->data;
}
