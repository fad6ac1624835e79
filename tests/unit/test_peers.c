/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/peers.h"
#include "server/base/assert.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"

#include <string.h>

static const struct history lineage[3] = {
    {.id = 1, .start = 100, .epoch = 1},
    {.id = 2, .start = 1000 + 2 * LSN_JUMP, .epoch = 2, .parent_end = 1000},
    {.id = 3, .start = 1000 + 9 * LSN_JUMP, .epoch = 3, .parent_end = 1000 + 2 * LSN_JUMP + 60},
};
static struct peers *p;
static struct chain_view self;

static uint8_t ids[PEERS_MAX + 1][PEER_ID_LEN];

static void setup_with(uint32_t count) {
    p = peers_create(&(struct peers_opts){0});
    self = (struct chain_view){.chain = lineage, .count = 1, .head = 1000, .epoch = 1};
    for (uint32_t i = 0; i <= PEERS_MAX; i++) {
        memset(ids[i], (int)(i + 1), PEER_ID_LEN);
    }
    for (uint32_t i = 0; i < count; i++) {
        expect(peers_learn(p, ids[i], "r", (uint16_t)(7000 + i), 0));
    }
}

static struct chain_view replica_at(uint64_t head) {
    return (struct chain_view){
        .chain = lineage, .count = 1, .head = head, .epoch = 1, .role = CHAIN_REPLICA};
}

static struct chain_view promoted(void) {
    return (struct chain_view){.chain = lineage,
                               .count = 2,
                               .head = lineage[1].start + 60,
                               .epoch = 2,
                               .role = CHAIN_PRIMARY};
}

static void expect_todo(enum peers_action action, uint32_t peer, int64_t now_ms) {
    struct peers_todo todo = peers_next(p, &self, now_ms);
    expect_eq(todo.action, action);
    expect(memcmp(todo.peer.id, ids[peer], PEER_ID_LEN) == 0);
}

static struct peers_todo expect_go_on(uint32_t missing, int64_t now_ms) {
    struct peers_todo todo = peers_next(p, &self, now_ms);
    expect_eq(todo.action, PEERS_GO_ON);
    expect_eq(todo.missing, missing);
    return todo;
}

static void expect_wait(int64_t until_ms, int64_t now_ms) {
    struct peers_todo todo = peers_next(p, &self, now_ms);
    expect_eq(todo.action, PEERS_NOTHING);
    expect_eq(todo.until_ms, until_ms);
}

static void answer(uint32_t peer, struct chain_view view, int64_t now_ms) {
    peers_answered(p, ids[peer], &view, now_ms);
}

START_TEST(a_node_without_peers_goes_on_at_once) {
    setup_with(0);
    expect_wait(INT64_MAX, 0);
    peers_ask(p, PEERS_KILLED, &self, 0, 3000);
    struct peers_todo todo = expect_go_on(0, 0);
    expect(todo.forks);
    expect_eq(todo.fork, CHAIN_UNCLEAN);
    expect_wait(INT64_MAX, 0);
    peers_ask(p, PEERS_CLEAN_START, &self, 0, 3000);
    expect(!expect_go_on(0, 0).forks);
    peers_destroy(p);
    peers_destroy(NULL);
}
END_TEST

START_TEST(test_h2_after_a_power_cut_all_are_asked_and_the_longest_log_is_pulled) {
    setup_with(3);
    peers_ask(p, PEERS_POWER_CUT, &self, 0, 3000);
    expect_todo(PEERS_PROBE, 0, 0);
    expect_todo(PEERS_PROBE, 1, 0);
    expect_todo(PEERS_PROBE, 2, 0);
    expect_wait(3000, 0); /* one question at a time for each */
    answer(0, replica_at(1500), 10);
    peers_silent(p, ids[1], 20);
    answer(2, replica_at(1400), 30);
    expect_wait(210, 30);
    expect_todo(PEERS_PROBE, 0, 220); /* its log may have grown */
    expect_todo(PEERS_PROBE, 1, 220);
    answer(1, replica_at(1600), 230);
    answer(0, replica_at(1500), 230);
    expect_todo(PEERS_PULL, 1, 230);
    expect_wait(INT64_MAX, 240);
    self.head = 1550;
    peers_pulled(p, ids[1], false, 250); /* the connection breaks: once more */
    expect_wait(450, 250);
    expect_todo(PEERS_PULL, 1, 450);
    peers_pulled(p, ids[1], false, 3001);
    expect_wait(3201, 3001); /* it is late, but three times it is tried */
    expect_todo(PEERS_PULL, 1, 3201);
    peers_pulled(p, ids[1], false, 3300);
    struct peers_todo todo = expect_go_on(1, 3300); /* some of it is missing */
    expect_eq(todo.fork, CHAIN_UNCLEAN);
    peers_destroy(p);
}
END_TEST

/* A kill in the middle of a pull, or behind a copy that was pulled. */
START_TEST(a_start_in_a_history_of_another_node_goes_on_above_it) {
    setup_with(1);
    for (int strange = 0; strange < 2; strange++) {
        peers_ask(p, PEERS_POWER_CUT, &self, 0, 3000);
        if (strange) {
            peers_note_strange(p);
        }
        expect_todo(PEERS_PROBE, 0, 0);
        answer(0, replica_at(self.head), 10);
        struct peers_todo todo = expect_go_on(0, 10);
        expect(todo.forks);
        expect_eq(todo.fork, strange ? CHAIN_PROMOTION : CHAIN_UNCLEAN);
    }
    peers_destroy(p);
}
END_TEST

START_TEST(test_h2_waiting_is_bounded_and_says_who_is_missing) {
    setup_with(2);
    peers_ask(p, PEERS_POWER_CUT, &self, 0, 3000);
    expect_todo(PEERS_PROBE, 0, 0);
    expect_todo(PEERS_PROBE, 1, 0);
    answer(0, replica_at(1500), 10);
    for (int64_t now = 10; now < 3000; now += 200) {
        expect_wait(now + 200 < 3000 ? now + 200 : 3000, now);
        if (now + 200 >= 3000) {
            break;
        }
        expect_todo(PEERS_PROBE, 0, now + 200);
        peers_silent(p, ids[0], now + 200);
    }
    expect_wait(INT64_MAX, 3100); /* the last question isn't answered yet */
    peers_silent(p, ids[1], 4000);
    expect_todo(PEERS_PULL, 0, 4000); /* though its last answer didn't come */
    self.head = 1500;
    peers_pulled(p, ids[0], true, 4010);
    expect_go_on(1, 4010);
    peers_destroy(p);
}
END_TEST

START_TEST(a_peer_that_has_less_than_it_said_is_pulled_once) {
    setup_with(1);
    peers_ask(p, PEERS_POWER_CUT, &self, 0, 3000);
    expect_todo(PEERS_PROBE, 0, 0);
    answer(0, replica_at(1600), 10);
    expect_todo(PEERS_PULL, 0, 10);
    self.head = 1500; /* a power cut took the rest */
    peers_pulled(p, ids[0], true, 20);
    expect_go_on(1, 20); /* and it is told */
    peers_destroy(p);
}
END_TEST

START_TEST(a_process_that_was_frozen_asks_anew) {
    setup_with(1);
    peers_ask(p, PEERS_PROMOTED, &self, 0, 3000);
    expect_todo(PEERS_PROBE, 0, 0);
    expect_wait(3000, 0);
    expect_wait(9000, 6000);           /* an answer waits to be read */
    answer(0, replica_at(1000), 6001); /* it is old */
    expect_todo(PEERS_PROBE, 0, 6001);
    answer(0, replica_at(1600), 6002);
    expect_todo(PEERS_PULL, 0, 6002);
    peers_destroy(p);
}
END_TEST

START_TEST(who_was_only_killed_waits_for_one_answer_and_who_can_be_reached) {
    setup_with(2);
    peers_ask(p, PEERS_KILLED, &self, 0, 3000);
    expect_todo(PEERS_PROBE, 0, 0);
    expect_todo(PEERS_PROBE, 1, 0);
    answer(1, replica_at(1000), 5); /* the other one may have been promoted */
    expect_wait(205, 5);
    peers_silent(p, ids[0], 6);
    expect(expect_go_on(1, 6).forks);
    peers_destroy(p);
}
END_TEST

START_TEST(whatever_the_start_was_it_rises_above_an_epoch_that_a_peer_has_seen) {
    setup_with(1);
    static const enum peers_why whys[] = {PEERS_CLEAN_START, PEERS_KILLED, PEERS_POWER_CUT};
    for (uint32_t i = 0; i < 3; i++) {
        struct chain_view told = replica_at(1000);
        told.epoch = 2; /* it was to follow somebody who may have been promoted */
        peers_ask(p, whys[i], &self, 0, 3000);
        expect_todo(PEERS_PROBE, 0, 0);
        answer(0, told, 1);
        struct peers_todo todo = expect_go_on(0, 1);
        expect(todo.forks);
        expect_eq(todo.fork, CHAIN_PROMOTION);
        expect_eq(todo.epoch, 2);
    }
    peers_ask(p, PEERS_CLEAN_START, &self, 0, 3000); /* nobody has */
    expect_todo(PEERS_PROBE, 0, 0);
    answer(0, replica_at(1000), 1);
    expect(!expect_go_on(0, 1).forks);
    self.epoch = 2; /* it was told of one in another run */
    peers_ask(p, PEERS_CLEAN_START, &self, 0, 0);
    expect(expect_go_on(1, 0).forks);
    peers_destroy(p);
}
END_TEST

START_TEST(a_promoted_replica_pulls_from_the_others_and_does_not_wait_for_the_dead) {
    setup_with(2);
    peers_ask(p, PEERS_PROMOTED, &self, 0, 3000);
    expect_todo(PEERS_PROBE, 0, 0);
    expect_todo(PEERS_PROBE, 1, 0);
    answer(1, replica_at(1100), 5);
    expect_wait(205, 5);
    peers_silent(p, ids[0], 6); /* its source refuses the connection */
    expect_todo(PEERS_PULL, 1, 6);
    self.head = 1100;
    peers_pulled(p, ids[1], true, 9);
    struct peers_todo todo = expect_go_on(1, 9);
    expect(todo.forks);
    expect_eq(todo.fork, CHAIN_PROMOTION);
    peers_destroy(p);
}
END_TEST

START_TEST(a_start_behind_a_failover_follows_or_is_fenced) {
    setup_with(1);
    for (int tail = 0; tail < 2; tail++) {
        self.head = 1000 + (uint64_t)tail * 10;
        peers_ask(p, PEERS_CLEAN_START, &self, 0, 3000);
        expect_todo(PEERS_PROBE, 0, 0);
        answer(0, promoted(), 1);
        expect_todo(tail ? PEERS_FENCE : PEERS_FOLLOW, 0, 1);
        expect_wait(INT64_MAX, 1);
    }
    peers_destroy(p);
}
END_TEST

START_TEST(the_branch_of_a_primary_that_is_gone_is_pulled_by_who_is_chosen_only) {
    setup_with(1);
    struct chain_view left = promoted();
    left.role = CHAIN_REPLICA;
    peers_ask(p, PEERS_POWER_CUT, &self, 0, 3000);
    expect_todo(PEERS_PROBE, 0, 0);
    answer(0, left, 1);
    expect_todo(PEERS_FENCE, 0, 1);
    peers_ask(p, PEERS_PROMOTED, &self, 300, 3000);
    expect_todo(PEERS_PROBE, 0, 300);
    answer(0, left, 301);
    expect_todo(PEERS_PULL, 0, 301);
    self.count = 2;
    self.head = left.head;
    self.epoch = 2;
    peers_pulled(p, ids[0], true, 302);
    struct peers_todo todo = expect_go_on(0, 302);
    expect_eq(todo.fork, CHAIN_PROMOTION);
    expect_eq(todo.epoch, 2);
    peers_destroy(p);
}
END_TEST

START_TEST(test_h54_a_primary_without_a_majority_asks_and_is_fenced_on_evidence) {
    setup_with(2);
    peers_ask(p, PEERS_CLEAN_START, &self, 0, 10);
    expect_todo(PEERS_PROBE, 0, 0);
    expect_todo(PEERS_PROBE, 1, 0);
    peers_silent(p, ids[0], 5);
    peers_silent(p, ids[1], 5);
    expect_go_on(2, 10);
    peers_link(p, ids[0], true, 11);
    expect_wait(INT64_MAX, 11); /* two of three */
    peers_link(p, ids[0], false, 100);
    expect_wait(1100, 100);
    expect_todo(PEERS_PROBE, 0, 1100);
    expect_todo(PEERS_PROBE, 1, 1100);
    answer(0, replica_at(1000), 1110); /* no evidence */
    peers_silent(p, ids[1], 1110);
    expect_wait(2110, 1110);
    expect_todo(PEERS_PROBE, 0, 2110);
    expect_todo(PEERS_PROBE, 1, 2110);
    struct chain_view higher = promoted();
    answer(1, higher, 2120);
    struct peers_todo todo = peers_next(p, &self, 2120);
    expect_eq(todo.action, PEERS_FENCE);
    expect_eq(chain_compare(todo.rank, chain_rank(&higher)), 0);
    expect_eq(todo.epoch, 2);
    expect_wait(INT64_MAX, 2120);
    peers_watch(p); /* the higher one has given way */
    expect_wait(3120, 2120);
    peers_destroy(p);
}
END_TEST

START_TEST(test_h51_what_nobody_asked_for_is_no_evidence) {
    setup_with(2);
    peers_ask(p, PEERS_CLEAN_START, &self, 0, 0);
    expect_go_on(2, 0);
    answer(0, promoted(), 1);
    expect_wait(1001, 1);
    peers_link(p, ids[1], true, 2); /* a majority: a drill of the other is its own affair */
    expect_wait(INT64_MAX, 5000);
    peers_destroy(p);
}
END_TEST

START_TEST(the_list_is_bounded_and_forgets_who_is_gone_for_long) {
    const int64_t day = (int64_t)24 * 3600 * 1000;
    struct peers_entry e;
    setup_with(PEERS_MAX);
    expect(!peers_learn(p, ids[PEERS_MAX], "r", 1, 5 * day));
    peers_link(p, ids[0], true, 5 * day);
    expect(peers_learn(p, ids[PEERS_MAX], "r", 1, 8 * day));
    expect_eq(peers_count(p), PEERS_MAX);
    expect(peers_entry(p, 0, &e) && e.linked);
    expect(!peers_entry(p, PEERS_MAX, &e));
    expect(peers_learn(p, ids[0], "elsewhere", 2, 8 * day)); /* another address */
    expect(peers_entry(p, 0, &e));
    ck_assert_str_eq(e.host, "elsewhere");
    peers_forget(p, ids[0]);
    peers_forget(p, ids[0]);
    expect_eq(peers_count(p), PEERS_MAX - 1);
    peers_destroy(p);
}
END_TEST

START_TEST(who_answers_with_another_id_is_asked_in_the_place_of_the_lost_one) {
    struct peers_entry e;
    setup_with(1);
    peers_ask(p, PEERS_KILLED, &self, 0, 3000);
    expect_todo(PEERS_PROBE, 0, 0);
    expect(peers_replace(p, ids[0], ids[1], 1));
    expect_todo(PEERS_PROBE, 1, 1);
    expect(peers_entry(p, 0, &e) && e.port == 7000 && !peers_entry(p, 1, &e));
    answer(1, promoted(), 2);
    expect_todo(PEERS_FOLLOW, 1, 2);
    expect(!peers_replace(p, ids[0], ids[2], 3)); /* that answer came late */
    expect_eq(peers_count(p), 1);
    peers_destroy(p);
}
END_TEST

START_TEST(a_node_known_elsewhere_that_answers_makes_the_asked_one_silent) {
    struct peers_entry e;
    setup_with(2);
    peers_ask(p, PEERS_POWER_CUT, &self, 0, 1000);
    expect_todo(PEERS_PROBE, 0, 0);
    expect(!peers_replace(p, ids[0], ids[1], 1));
    expect_todo(PEERS_PROBE, 1, 1);
    peers_silent(p, ids[1], 1);
    expect_go_on(2, 1000);
    expect(peers_learn(p, ids[2], "r", 7000, 1000)); /* it has come with its new disk already */
    peers_ask(p, PEERS_POWER_CUT, &self, 2000, 1000);
    expect_todo(PEERS_PROBE, 0, 2000);
    expect(peers_replace(p, ids[0], ids[2], 2001));
    expect_eq(peers_count(p), 2);
    for (uint32_t i = 0; i < 2; i++) {
        expect(peers_entry(p, i, &e) && memcmp(e.id, ids[0], PEER_ID_LEN) != 0);
    }
    peers_destroy(p);
}
END_TEST

START_TEST(a_view_that_cannot_be_is_silence) {
    setup_with(1);
    peers_ask(p, PEERS_POWER_CUT, &self, 0, 1000);
    expect_todo(PEERS_PROBE, 0, 0);
    struct chain_view bad = replica_at(50);
    answer(0, bad, 1);
    expect_go_on(1, 1000);
    peers_destroy(p);
}
END_TEST

CHECK_MAIN("peers", a_node_without_peers_goes_on_at_once,
           test_h2_after_a_power_cut_all_are_asked_and_the_longest_log_is_pulled,
           a_start_in_a_history_of_another_node_goes_on_above_it,
           test_h2_waiting_is_bounded_and_says_who_is_missing,
           a_peer_that_has_less_than_it_said_is_pulled_once, a_process_that_was_frozen_asks_anew,
           who_was_only_killed_waits_for_one_answer_and_who_can_be_reached,
           whatever_the_start_was_it_rises_above_an_epoch_that_a_peer_has_seen,
           a_promoted_replica_pulls_from_the_others_and_does_not_wait_for_the_dead,
           a_start_behind_a_failover_follows_or_is_fenced,
           the_branch_of_a_primary_that_is_gone_is_pulled_by_who_is_chosen_only,
           test_h54_a_primary_without_a_majority_asks_and_is_fenced_on_evidence,
           test_h51_what_nobody_asked_for_is_no_evidence,
           the_list_is_bounded_and_forgets_who_is_gone_for_long,
           who_answers_with_another_id_is_asked_in_the_place_of_the_lost_one,
           a_node_known_elsewhere_that_answers_makes_the_asked_one_silent,
           a_view_that_cannot_be_is_silence)
