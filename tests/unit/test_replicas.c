/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/replicas.h"
#include "server/base/thread.h"
#include "server/base/time.h"
#include "tests/support/check_main.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>

static _Atomic uint32_t told, asked;

static void on_moved(void *arg) {
    (void)arg;
    atomic_fetch_add(&told, 1);
}

static void on_asked(void *arg) {
    (void)arg;
    atomic_fetch_add(&asked, 1);
}

static struct replicas *create(void) {
    atomic_store(&told, 0);
    atomic_store(&asked, 0);
    struct replicas *r = replicas_create(&(struct replicas_opts){.moved = on_moved});
    replicas_on_ask(r, on_asked, NULL);
    return r;
}

static int32_t join(struct replicas *r, uint8_t who) {
    uint8_t peer[PEER_ID_LEN] = {who};
    return replicas_join(r, peer, "10.0.0.1", who);
}

static void know(struct replicas *r, uint8_t who, uint64_t received, uint64_t durable) {
    uint8_t peer[PEER_ID_LEN] = {who};
    replicas_know(r, peer, "10.0.0.1", who, received, durable);
}

static void note(struct replicas *r, int32_t slot, uint64_t received, uint64_t durable) {
    replicas_note(r, slot, received, durable, durable, time_mono_us());
}

START_TEST(nobody_waits_for_no_replica_and_nobody_gets_one_that_is_missing) {
    struct replicas *r = create();
    ck_assert(replicas_mark(r, 0, false) == UINT64_MAX);
    ck_assert(replicas_mark(r, 0, true) == UINT64_MAX);
    ck_assert_uint_eq(replicas_mark(r, 1, false), 0);
    ck_assert_uint_eq(replicas_mark(r, REPLICAS_MAX, true), 0);
    ck_assert_uint_eq(replicas_mark(r, REPLICAS_MAX + 1, true), 0);
    replicas_destroy(r);
}
END_TEST

START_TEST(a_mark_is_the_nth_highest_of_what_peers_have) {
    struct replicas *r = create();
    int32_t a = join(r, 1), b = join(r, 2), c = join(r, 3);
    note(r, a, 300, 100);
    note(r, b, 200, 200);
    note(r, c, 100, 0);
    ck_assert_uint_eq(replicas_mark(r, 1, false), 300);
    ck_assert_uint_eq(replicas_mark(r, 2, false), 200);
    ck_assert_uint_eq(replicas_mark(r, 3, false), 100);
    ck_assert_uint_eq(replicas_mark(r, 4, false), 0);
    ck_assert_uint_eq(replicas_mark(r, 1, true), 200);
    ck_assert_uint_eq(replicas_mark(r, 2, true), 100);
    ck_assert_uint_eq(replicas_mark(r, 3, true), 0);
    ck_assert_uint_eq(replicas_count_at(r, 200, false), 2);
    ck_assert_uint_eq(replicas_count_at(r, 201, false), 1);
    ck_assert_uint_eq(replicas_count_at(r, 200, true), 1);
    note(r, c, 400, 400);
    ck_assert_uint_eq(replicas_mark(r, 2, false), 300);
    ck_assert_uint_eq(replicas_mark(r, 3, false), 200);
    replicas_destroy(r);
}
END_TEST

START_TEST(two_links_of_one_peer_are_one_replica) {
    struct replicas *r = create();
    int32_t old = join(r, 1), new = join(r, 1);
    note(r, old, 100, 100);
    note(r, new, 200, 50);
    ck_assert_uint_eq(replicas_mark(r, 1, false), 200);
    ck_assert_uint_eq(replicas_mark(r, 1, true), 100);
    ck_assert_uint_eq(replicas_mark(r, 2, false), 0);
    ck_assert_uint_eq(replicas_count_at(r, 100, false), 1);
    ck_assert_uint_eq(replicas_known_count(r), 1);
    replicas_leave(r, old);
    ck_assert_uint_eq(replicas_count_at(r, 200, false), 1);
    ck_assert_uint_eq(replicas_count_at(r, 100, true), 0); /* that was the other link's */
    replicas_destroy(r);
}
END_TEST

START_TEST(a_mark_stays_when_a_replica_goes_but_nothing_new_is_confirmed) {
    struct replicas *r = create();
    int32_t a = join(r, 1), b = join(r, 2);
    note(r, a, 100, 100);
    note(r, b, 100, 100);
    ck_assert_uint_eq(replicas_mark(r, 2, false), 100);
    replicas_leave(r, b);
    note(r, a, 200, 200);
    ck_assert_uint_eq(replicas_mark(r, 2, false), 100);
    ck_assert_uint_eq(replicas_mark(r, 1, false), 200);
    ck_assert_uint_eq(replicas_count_at(r, 100, false), 1);
    replicas_destroy(r);
}
END_TEST

START_TEST(a_peer_that_comes_back_counts_from_its_first_word_on) {
    struct replicas *r = create();
    int32_t a = join(r, 1);
    note(r, a, 500, 500);
    replicas_leave(r, a);
    a = join(r, 1);
    ck_assert_uint_eq(replicas_count_at(r, 500, false), 0);
    ck_assert_uint_eq(replicas_known_count(r), 1);
    int32_t b = join(r, 2);
    note(r, b, 400, 400);
    ck_assert_uint_eq(replicas_mark(r, 2, false), 0);
    note(r, a, 300, 300); /* its log was cut meanwhile */
    ck_assert_uint_eq(replicas_mark(r, 2, false), 300);
    ck_assert_uint_eq(replicas_mark(r, 1, false), 500);
    replicas_destroy(r);
}
END_TEST

START_TEST(what_the_metadata_remember_is_confirmed_and_counts_for_a_quorum) {
    struct replicas *r = create();
    know(r, 1, 300, 200);
    know(r, 2, 250, 250);
    ck_assert_uint_eq(replicas_known_count(r), 2);
    ck_assert_uint_eq(replicas_mark(r, 2, false), 250);
    ck_assert_uint_eq(replicas_mark(r, 1, true), 250);
    ck_assert_uint_eq(replicas_count_at(r, 1, false), 0); /* nobody is attached */
    int32_t a = join(r, 1);
    uint8_t first[PEER_ID_LEN] = {1}, second[PEER_ID_LEN] = {2};
    replicas_forget(r, first);
    ck_assert_uint_eq(replicas_known_count(r), 2);
    replicas_forget(r, second);
    ck_assert_uint_eq(replicas_known_count(r), 1);
    note(r, a, 400, 400);
    ck_assert_uint_eq(replicas_mark(r, 1, false), 400);
    ck_assert_uint_eq(replicas_mark(r, 2, false), 250);
    replicas_destroy(r);
}
END_TEST

START_TEST(who_shows_itself_is_known_from_then_on_and_changes_nothing_of_who_was) {
    struct replicas *r = create();
    uint8_t first[PEER_ID_LEN] = {1}, second[PEER_ID_LEN] = {2};
    know(r, 1, 300, 200);
    uint64_t before = replicas_moves(r);
    ck_assert(!replicas_meet(r, first, "10.0.0.9", 9));
    ck_assert_uint_eq(replicas_moves(r), before);
    ck_assert(replicas_meet(r, second, "10.0.0.2", 2));
    ck_assert_uint_gt(replicas_moves(r), before);
    ck_assert_uint_eq(replicas_known_count(r), 2);
    ck_assert(!replicas_meet(r, second, "10.0.0.2", 2));
    ck_assert_uint_eq(replicas_known_count(r), 2);
    ck_assert_uint_eq(replicas_mark(r, 1, false), 300);
    ck_assert_uint_eq(replicas_mark(r, 2, false), 0); /* it has acknowledged nothing */
    replicas_destroy(r);
}
END_TEST

START_TEST(who_has_the_address_of_a_lost_peer_takes_its_place) {
    struct replicas *r = create();
    uint8_t first[PEER_ID_LEN] = {1}, second[PEER_ID_LEN] = {2}, third[PEER_ID_LEN] = {3};
    know(r, 1, 300, 200);
    replicas_replace(r, first, second);
    ck_assert_uint_eq(replicas_known_count(r), 1);
    int32_t a = join(r, 2);
    ck_assert_uint_eq(replicas_known_count(r), 1);
    note(r, a, 250, 250);
    ck_assert_uint_eq(replicas_mark(r, 2, false), 0); /* what the first had isn't counted twice */
    replicas_replace(r, second, third);
    ck_assert_uint_eq(replicas_known_count(r), 1); /* it is attached */
    know(r, 3, 100, 100);
    replicas_replace(r, third, second);
    ck_assert_uint_eq(replicas_known_count(r), 1); /* known already */
    replicas_destroy(r);
}
END_TEST

START_TEST(there_are_as_many_slots_as_the_limit_says_and_they_are_used_again) {
    struct replicas *r = create();
    int32_t slots[REPLICAS_MAX];
    for (int i = 0; i < REPLICAS_MAX; i++) {
        slots[i] = join(r, (uint8_t)i);
        ck_assert_int_ge(slots[i], 0);
        note(r, slots[i], 1000 + (uint64_t)i, 0);
    }
    ck_assert_int_eq(join(r, 200), -1);
    ck_assert_uint_eq(replicas_mark(r, REPLICAS_MAX, false), 1000);
    ck_assert_uint_eq(replicas_mark(r, 1, false), 1000 + REPLICAS_MAX - 1);
    replicas_leave(r, slots[7]);
    ck_assert_int_eq(join(r, 200), slots[7]);
    replicas_destroy(r);
}
END_TEST

/* Peers come and go for ever: those that are attached are never forgotten. */
START_TEST(the_peer_that_has_been_away_for_longest_is_forgotten_first) {
    struct replicas *r = create();
    int32_t stays = join(r, 0);
    note(r, stays, 77, 77);
    for (int i = 1; i <= PEERS_MAX + 10; i++) {
        replicas_leave(r, join(r, (uint8_t)i));
    }
    ck_assert_uint_eq(replicas_known_count(r), PEERS_MAX);
    ck_assert_uint_eq(replicas_count_at(r, 77, true), 1);
    replicas_destroy(r);
}
END_TEST

START_TEST(good_is_who_is_online_and_was_heard_of) {
    struct replicas *r = create();
    int64_t now = time_mono_us();
    int32_t a = join(r, 1), b = join(r, 2), again = join(r, 2);
    replicas_note(r, a, 1, 1, 1, now);
    replicas_note(r, b, 1, 1, 1, now - 3000000);
    replicas_note(r, again, 1, 1, 1, now - 3000000);
    ck_assert_uint_eq(replicas_good(r, 1000, now), 0);
    replicas_set_state(r, a, REPLICA_ONLINE);
    replicas_set_state(r, b, REPLICA_ONLINE);
    replicas_set_state(r, again, REPLICA_ONLINE);
    ck_assert_uint_eq(replicas_good(r, 1000, now), 1);
    ck_assert_uint_eq(replicas_good(r, 3000, now), 2);
    ck_assert_uint_eq(replicas_good(r, 2999, now), 1);
    replicas_leave(r, a);
    ck_assert_uint_eq(replicas_good(r, 1000, now), 0);
    replicas_destroy(r);
}
END_TEST

START_TEST(who_asked_is_told_once) {
    struct replicas *r = create();
    int32_t a = join(r, 1);
    note(r, a, 100, 0);
    ck_assert_uint_eq(atomic_load(&told), 0);
    replicas_want(r);
    uint64_t moves = replicas_moves(r);
    note(r, a, 100, 0); /* nothing new */
    ck_assert_uint_eq(atomic_load(&told), 0);
    note(r, a, 100, 100);
    ck_assert_uint_eq(atomic_load(&told), 1);
    ck_assert(replicas_moves(r) != moves);
    note(r, a, 200, 100);
    ck_assert_uint_eq(atomic_load(&told), 1);
    replicas_want(r);
    replicas_leave(r, a);
    ck_assert_uint_eq(atomic_load(&told), 2);
    replicas_destroy(r);
}
END_TEST

START_TEST(a_hurry_is_passed_on_once_for_each_position) {
    struct replicas *r = create();
    replicas_hurry(r, 100);
    replicas_hurry(r, 100);
    replicas_hurry(r, 50);
    ck_assert_uint_eq(atomic_load(&asked), 1);
    ck_assert_uint_eq(replicas_hurry_lsn(r), 100);
    replicas_hurry(r, 101);
    ck_assert_uint_eq(atomic_load(&asked), 2);
    replicas_destroy(r);
}
END_TEST

START_TEST(a_beat_counts_for_who_has_all_that_was_sent) {
    struct replicas *r = create();
    int32_t slot = join(r, 1);
    replicas_set_state(r, slot, REPLICA_ONLINE);
    replicas_note(r, slot, 100, 100, 100, 1000000);
    replicas_note_sent(r, slot, 200, 100);
    replicas_note_beat(r, slot, 199, 9000000); /* it takes nothing */
    ck_assert_uint_eq(replicas_good(r, 1000, 9000000), 0);
    replicas_note_beat(r, slot, 200, 9000000);
    ck_assert_uint_eq(replicas_good(r, 1000, 9000000), 1);
    replicas_leave(r, slot);
    replicas_destroy(r);
}
END_TEST

START_TEST(who_waits_is_passed_on_now_and_then) {
    struct replicas *r = create();
    ck_assert_int_eq(replicas_asked_us(r), 0);
    replicas_ask(r, 5000);
    replicas_ask(r, 5001);
    replicas_ask(r, 5000 + REPLICAS_ASK_US - 1);
    ck_assert_uint_eq(atomic_load(&asked), 1);
    ck_assert_int_eq(replicas_asked_us(r), 5000);
    replicas_ask(r, 5000 + REPLICAS_ASK_US);
    ck_assert_uint_eq(atomic_load(&asked), 2);
    replicas_destroy(r);
}
END_TEST

struct list {
    uint32_t count;
    struct replica_seen seen[8];
};

static void add(const struct replica_seen *seen, void *arg) {
    struct list *l = arg;
    l->seen[l->count++] = *seen;
}

START_TEST(links_are_told_in_the_order_in_which_they_came_then_who_is_away) {
    struct replicas *r = create();
    struct list l = {.count = 0};
    int32_t a = join(r, 1), b = join(r, 2);
    note(r, a, 50, 40);
    replicas_leave(r, a);
    int32_t c = join(r, 3); /* in the slot that was a's */
    ck_assert_int_eq(c, a);
    replicas_set_state(r, c, REPLICA_ONLINE);
    replicas_note_sent(r, c, 500, 200);
    replicas_note_sent(r, c, 600, 100);
    replicas_note(r, c, 400, 300, 350, 12345);
    replicas_each(r, add, &l);
    ck_assert_uint_eq(l.count, 3);
    ck_assert_int_eq(l.seen[0].slot, b);
    ck_assert_int_eq(l.seen[0].state, REPLICA_GREETS);
    ck_assert_int_eq(l.seen[1].slot, c);
    ck_assert_int_eq(l.seen[1].state, REPLICA_ONLINE);
    ck_assert_uint_eq(l.seen[1].received, 400);
    ck_assert_uint_eq(l.seen[1].durable, 300);
    ck_assert_uint_eq(l.seen[1].applied, 350);
    ck_assert_uint_eq(l.seen[1].sent_lsn, 600);
    ck_assert_uint_eq(l.seen[1].sent_bytes, 300);
    ck_assert_int_eq(l.seen[1].noted_us, 12345);
    ck_assert_uint_eq(l.seen[1].port, 3);
    ck_assert_str_eq(l.seen[1].addr, "10.0.0.1");
    ck_assert_int_eq(l.seen[2].slot, -1);
    ck_assert_uint_eq(l.seen[2].peer[0], 1);
    ck_assert_uint_eq(l.seen[2].received, 50);
    ck_assert_uint_eq(l.seen[2].durable, 40);
    replicas_destroy(r);
}
END_TEST

START_TEST(a_host_name_of_any_length_is_told_whole) {
    struct replicas *r = create();
    struct list l = {.count = 0};
    uint8_t linked[PEER_ID_LEN] = {1}, away[PEER_ID_LEN] = {2};
    char host[WIRE_ADDRESS_MAX + 1];
    memset(host, 'h', WIRE_ADDRESS_MAX);
    host[WIRE_ADDRESS_MAX] = '\0';
    ck_assert_int_ge(replicas_join(r, linked, host, 1), 0);
    replicas_know(r, away, host, 2, 0, 0);
    replicas_each(r, add, &l);
    ck_assert_uint_eq(l.count, 2);
    ck_assert_str_eq(l.seen[0].addr, host);
    ck_assert_str_eq(l.seen[1].addr, host);
    replicas_destroy(r);
}
END_TEST

/* --- threads ----------------------------------------------------------------------------------------- */

enum { LINKS = 3, STEPS = TEST_SANITIZED ? 3000 : 30000 };

struct race {
    struct replicas *r;
    _Atomic uint32_t next; /* number of the link's thread */
    _Atomic uint32_t done;
    _Atomic uint32_t woken;
};

/* Acknowledges 1, 2, 3, ... and drops the link now and then. */
static void link_main(void *arg) {
    struct race *race = arg;
    uint8_t who = (uint8_t)atomic_fetch_add(&race->next, 1);
    int32_t slot = join(race->r, who);
    for (uint64_t lsn = 1; lsn <= STEPS; lsn++) {
        note(race->r, slot, lsn, lsn / 2);
        if (lsn % 997 == 0) {
            replicas_leave(race->r, slot);
            slot = join(race->r, who);
        }
    }
    note(race->r, slot, STEPS, STEPS);
    atomic_fetch_add(&race->done, 1);
}

static void on_race_moved(void *arg) {
    struct race *race = arg;
    atomic_fetch_add(&race->woken, 1);
}

/* Waits for one mark after the other, and sleeps only after having asked (I4): with a lost wake-up this would never end. */
START_TEST(a_reader_that_asks_and_looks_again_misses_no_rise) {
    static struct race race;
    struct thread threads[LINKS];
    race.r = replicas_create(&(struct replicas_opts){.moved = on_race_moved, .arg = &race});
    for (int i = 0; i < LINKS; i++) {
        thread_start(&threads[i], "link", link_main, &race);
    }
    uint64_t before = 0;
    for (;;) {
        uint64_t mark = replicas_mark(race.r, LINKS, true);
        ck_assert_uint_ge(mark, before); /* I1 */
        ck_assert_uint_ge(replicas_mark(race.r, LINKS - 1, true), mark);
        ck_assert_uint_ge(replicas_mark(race.r, LINKS, false), mark);
        if (mark == STEPS) {
            break;
        }
        uint32_t woken = atomic_load(&race.woken);
        replicas_want(race.r);
        if (replicas_mark(race.r, LINKS, true) == mark) {
            while (atomic_load(&race.woken) == woken) {
                sched_yield();
            }
        }
        before = mark;
    }
    for (int i = 0; i < LINKS; i++) {
        thread_join(&threads[i]);
    }
    ck_assert_uint_eq(replicas_count_at(race.r, STEPS, true), LINKS);
    ck_assert_uint_eq(replicas_known_count(race.r), LINKS);
    replicas_destroy(race.r);
}
END_TEST

CHECK_MAIN("replicas", nobody_waits_for_no_replica_and_nobody_gets_one_that_is_missing,
           a_mark_is_the_nth_highest_of_what_peers_have, two_links_of_one_peer_are_one_replica,
           a_mark_stays_when_a_replica_goes_but_nothing_new_is_confirmed,
           a_peer_that_comes_back_counts_from_its_first_word_on,
           what_the_metadata_remember_is_confirmed_and_counts_for_a_quorum,
           who_shows_itself_is_known_from_then_on_and_changes_nothing_of_who_was,
           who_has_the_address_of_a_lost_peer_takes_its_place,
           there_are_as_many_slots_as_the_limit_says_and_they_are_used_again,
           the_peer_that_has_been_away_for_longest_is_forgotten_first,
           good_is_who_is_online_and_was_heard_of, who_asked_is_told_once,
           a_hurry_is_passed_on_once_for_each_position, who_waits_is_passed_on_now_and_then,
           a_beat_counts_for_who_has_all_that_was_sent,
           links_are_told_in_the_order_in_which_they_came_then_who_is_away,
           a_host_name_of_any_length_is_told_whole,
           a_reader_that_asks_and_looks_again_misses_no_rise)
