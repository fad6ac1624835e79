/* SPDX-License-Identifier: BSD-3-Clause */
#include "server/base/mem.h"
#include "tests/support/one_engine.h"

static struct store_pack pack;

static void open_pack(void) {
    open_engine();
    pack = (struct store_pack){0};
}

static void fill(uint32_t db, const char *prefix, uint32_t from, uint32_t to, size_t len) {
    static char text[100000];
    char name[48];
    memset(text, 'v', sizeof(text));
    for (uint32_t i = from; i < to; i++) {
        snprintf(name, sizeof(name), "%s%u", prefix, i);
        must(hand_set(&hand, db, bytes_str(name), bytes_of(text, len),
                      i % 5 == 0 ? engine_now(&engine) + 1000000 + i : EXPIRY_NONE));
    }
}

/* Leaves one in 'keep'. */
static void thin_out(uint32_t db, const char *prefix, uint32_t count, uint32_t keep) {
    struct rng r = test_rng();
    char name[48];
    for (uint32_t i = 0; i < count; i++) {
        bool existed = true;
        snprintf(name, sizeof(name), "%s%u", prefix, i);
        if (rng_below(&r, keep) != 0) {
            must(hand_del(&hand, db, bytes_str(name), &existed));
        }
        expect(existed);
    }
}

/* Bytes of the allocator's runs. */
static uint64_t active(void) {
    struct mem_stats stats;
    mem_stats_read(&stats);
    return stats.active;
}

/* With as many pages as are there and as many keyspaces have none, the way goes all round. */
static void pack_round(void) {
    struct table_facts facts = check_engine();
    store_pack_pages(engine.store, &pack,
                     (uint32_t)(facts.pages + SLOT_COUNT * (uint64_t)KEYSPACE_MAX));
}

/* The hand of the eviction goes round, and nothing is evicted. */
static void pass_hand(uint64_t entries) {
    struct victim v;
    for (uint64_t seen = 0; seen <= entries; seen += 100) {
        expect(store_pick_victim(&hand.thread, EVICT_ALLKEYS_LRU, 100, engine_now(&engine), &v));
    }
}

/* Both ways of packing change where things lie and nothing else. */
static void expect_nothing_changes(void (*move)(void)) {
    uint64_t before = store_digest(engine.store);
    struct table_facts was = check_engine();
    uint64_t overhead = store_overhead(engine.store);
    int64_t delta = mem_thread_delta();
    move();
    delta = mem_thread_delta();
    struct table_facts is = check_engine();
    expect_eq(store_digest(engine.store), before);
    expect_eq(is.entries, was.entries);
    expect_eq(is.volatiles, was.volatiles);
    expect_eq(is.pages, was.pages);
    expect_eq(is.lines, was.lines);
    expect_eq(is.nodes, was.nodes);
    expect_eq(store_overhead(engine.store), overhead);
    expect(delta > -4096 && delta < 4096); /* as much is allocated as before */
}

static void pack_entries(void) {
    store_set_packing(engine.store, true);
    pass_hand(store_count(engine.store));
    store_set_packing(engine.store, false);
}

/* --- pages ------------------------------------------------------------------------------------------- */

START_TEST(packing_pages_loses_nothing) {
    open_pack();
    fill(0, "k", 0, 60000, 20);
    fill(3, "k", 0, 5000, 20);
    fill(3, "{t}", 0, 30000, 20); /* a table with nodes */
    thin_out(0, "k", 60000, 2);
    thin_out(3, "{t}", 30000, 2);
    expect(check_engine().nodes > 0);
    for (int i = 0; i < 3; i++) {
        expect_nothing_changes(pack_round);
    }
    close_engine();
}
END_TEST

START_TEST(the_round_passes_each_page_and_begins_again) {
    open_pack();
    fill(2, "{t}", 0, 30000, 20);
    struct table_facts facts = check_engine();
    struct key k = store_key(engine.store, BYTES("{t}"));
    uint64_t last = 0, pages = 0;
    pack = (struct store_pack){.keyspace = 2, .slot = key_slot(&k)};
    do {
        last = pack.hash;
        store_pack_pages(engine.store, &pack, 1);
        pages++;
    } while (pack.slot == key_slot(&k) && pack.hash > last);
    expect_eq(pages, facts.pages);
    expect_eq(pack.slot, key_slot(&k) + 1);
    expect_eq(pack.hash, 0);
    /* The last slots of this keyspace, and the keyspaces that nobody has used. */
    pack.slot = SLOT_COUNT - 1;
    store_pack_pages(engine.store, &pack, 1);
    expect(pack.keyspace == 3 && pack.slot == 0);
    store_pack_pages(engine.store, &pack, KEYSPACE_MAX - 3);
    expect(pack.keyspace == 0 && pack.slot == 0 && pack.hash == 0);
    close_engine();
}
END_TEST

START_TEST(packing_goes_on_while_tables_grow_shrink_and_are_flushed) {
    struct rng r = test_rng();
    open_pack();
    fill(0, "{t}", 0, 20000, 20);
    for (uint32_t i = 0; i < 60; i++) {
        char name[48];
        bool existed;
        store_pack_pages(engine.store, &pack, (uint32_t)rng_below(&r, 20000));
        for (uint32_t n = 0; n < 2000; n++) {
            snprintf(name, sizeof(name), "{t}%u", (uint32_t)rng_below(&r, 20000));
            if (rng_below(&r, 60) < i) {
                must(hand_del(&hand, 0, bytes_str(name), &existed));
            } else {
                must(hand_set(&hand, 0, bytes_str(name), bytes_str(name), EXPIRY_NONE));
            }
        }
        if (i % 20 == 19) {
            must(hand_flush(&hand, i % 40 == 39 ? 0 : 1));
            pack_round(); /* passes slots that are dead */
        }
        expect_nothing_changes(pack_round);
    }
    close_engine();
}
END_TEST

START_TEST(without_memory_nothing_moves_and_nothing_is_lost) {
    open_pack();
    fill(0, "k", 0, 30000, 20);
    thin_out(0, "k", 30000, 2);
    uint64_t before = store_digest(engine.store);
    for (uint64_t n = 1; n < 50; n++) {
        mem_fault_after(n);
        store_pack_pages(engine.store, &pack, 300);
        mem_fault_after(n);
        store_set_packing(engine.store, true);
        pass_hand(300);
    }
    mem_fault_after(0);
    expect_eq(store_digest(engine.store), before);
    close_engine();
}
END_TEST

/* --- entries ----------------------------------------------------------------------------------------- */

START_TEST(packing_entries_loses_nothing) {
    open_pack();
    for (uint32_t size = 1; size <= 10; size++) {
        char prefix[16];
        snprintf(prefix, sizeof(prefix), "%u:", size);
        fill(0, prefix, 0, 3000, (size_t)size * size * 9);
        thin_out(0, prefix, 3000, 4);
    }
    fill(1, "{t}", 0, 20000, 50);
    thin_out(1, "{t}", 20000, 4);
    fill(1, "int:", 0, 3000, 0);
    fill(1, "blob:", 0, 20, 100000);
    for (int i = 0; i < 3; i++) {
        expect_nothing_changes(pack_entries);
    }
    close_engine();
}
END_TEST

/* One byte and another until the size class is full, and beyond. */
static void grow_value(struct bytes name) {
    struct buf text;
    for (uint32_t n = 0; n < 20; n++) {
        must(hand_append(&hand, 0, name, BYTES("x")));
    }
    buf_init(&text, 0);
    expect(hand_get(&hand, 0, name, &text).alive);
    expect_eq(text.len, 60);
    expect(text.ptr[39] == 'v' && text.ptr[40] == 'x' && text.ptr[59] == 'x');
    buf_fini(&text);
}

START_TEST(an_entry_that_has_moved_can_be_changed_in_place) {
    open_pack();
    fill(0, "k", 0, 20000, 40);
    thin_out(0, "k", 20000, 4);
    pack_entries();
    for (uint32_t i = 0; i < 20000; i++) {
        char name[48];
        snprintf(name, sizeof(name), "k%u", i);
        if (hand_peek(&hand, 0, bytes_str(name), NULL).alive) {
            grow_value(bytes_str(name));
        }
    }
    close_engine();
}
END_TEST

START_TEST(a_hand_that_does_not_pack_moves_nothing) {
    open_pack();
    fill(0, "k", 0, 2000, 40);
    struct key k = store_key(engine.store, BYTES("k77"));
    struct keyspace *ks = store_keyspace(engine.store, 0);
    const struct entry *before = store_peek(&hand.thread, ks, &k, engine_now(&engine));
    thin_out(0, "k", 70, 4);
    pass_hand(store_count(engine.store));
    expect(store_peek(&hand.thread, ks, &k, engine_now(&engine)) == before);
    close_engine();
}
END_TEST

/* --- memory: the allocator of the node only ---------------------------------------------------------- */

#if defined(DC_HAVE_JEMALLOC)

START_TEST(packed_pages_of_a_keyspace_that_grew_need_less_memory) {
    open_pack();
    /* All slots leave three lines for four, and so on, at about the same time; the smaller sizes stay behind, sparse. */
    fill(0, "k", 0, 26 * SLOT_COUNT, 8);
    uint64_t before = active();
    for (int i = 0; i < 3; i++) {
        pack_round();
    }
    expect(active() + store_overhead(engine.store) / 10 < before);
    close_engine();
}
END_TEST

START_TEST(packed_entries_of_a_thinned_keyspace_need_less_memory) {
    open_pack();
    fill(0, "k", 0, 200000, 60);
    thin_out(0, "k", 200000, 4);
    uint64_t before = active();
    for (int i = 0; i < 3; i++) {
        pack_entries();
    }
    expect(active() < before - before / 4);
    close_engine();
}
END_TEST

#    define MEMORY_TESTS                                         \
        , packed_pages_of_a_keyspace_that_grew_need_less_memory, \
            packed_entries_of_a_thinned_keyspace_need_less_memory
#else
#    define MEMORY_TESTS
#endif

CHECK_MAIN("pack", packing_pages_loses_nothing, the_round_passes_each_page_and_begins_again,
           packing_goes_on_while_tables_grow_shrink_and_are_flushed,
           without_memory_nothing_moves_and_nothing_is_lost, packing_entries_loses_nothing,
           an_entry_that_has_moved_can_be_changed_in_place,
           a_hand_that_does_not_pack_moves_nothing MEMORY_TESTS)
