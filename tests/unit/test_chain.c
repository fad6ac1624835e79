/* SPDX-License-Identifier: BSD-3-Clause */
#include "replication/chain.h"
#include "server/base/assert.h"
#include "tests/support/check_main.h"
#include "tests/support/expect.h"

#include <string.h>

/* Histories of these tests: H1 from 100 on; others begin J behind the end that they left. */
enum { LINKS_MAX = 8 };
#define J LSN_JUMP

/* A node on paper. */
struct paper {
    struct history chain[LINKS_MAX];
    struct chain_view view;
};

static struct paper paper(uint64_t head) {
    struct paper n = {.view = {.head = head, .epoch = 1, .count = 1}};
    n.chain[0] = (struct history){.id = 1, .start = 100, .epoch = 1};
    return n;
}

/* What was copied by value points to its own chain. */
static struct chain_view *of(struct paper *n) {
    n->view.chain = n->chain;
    return &n->view;
}

static struct paper replica(uint64_t head) {
    struct paper n = paper(head);
    n.view.role = CHAIN_REPLICA;
    return n;
}

static struct paper no_data(enum chain_role role) {
    return (struct paper){.view = {.role = role, .empty = true}};
}

/* A new node that nobody has written to. */
static struct paper emptied(void) {
    struct paper n = paper(180);
    n.chain[0].id = 77;
    n.view.empty = true;
    return n;
}

static void begin(struct paper *n, struct history h) {
    dc_assert(n->view.count < LINKS_MAX);
    n->chain[n->view.count++] = h;
    n->view.head = h.start + 50; /* the FORK frame */
    n->view.epoch = h.epoch > n->view.epoch ? h.epoch : n->view.epoch;
    n->view.role = CHAIN_PRIMARY;
}

/* Begins history 'id' behind its end. */
static void fork_as(struct paper *n, enum chain_fork_kind kind, uint64_t id, uint64_t lane) {
    struct history h;
    expect_eq(chain_fork(of(n), kind, id, lane, &h), DC_OK);
    begin(n, h);
}

static void promote(struct paper *n, uint64_t id) {
    fork_as(n, CHAIN_PROMOTION, id, id);
}

static const struct chain_ask by_itself, explicitly = {.explicit_ = true},
                                         forced = {.explicit_ = true, .force = true};
static const struct chain_local whole_log;

static struct chain_answer ask(struct paper *source, struct paper *peer, struct chain_ask a) {
    return chain_answer(of(source), of(peer), a, &whole_log);
}

#define expect_answer(source, peer, how, wanted, at)                                     \
    do {                                                                                 \
        struct chain_answer got_a = ask(source, peer, how);                              \
        ck_assert_str_eq(chain_verdict_name(got_a.verdict), chain_verdict_name(wanted)); \
        expect_eq(got_a.lsn, at);                                                        \
    } while (0)

static enum chain_step step(struct paper *self, struct paper *source, struct chain_ask a) {
    struct chain_answer got = ask(source, self, a);
    return chain_step(of(self), a, of(source), &got);
}

static void raise_above(struct paper *source, struct paper *peer, uint64_t id) {
    struct history h;
    expect_eq(chain_raise(of(source), of(peer), id, 3, &h), DC_OK);
    begin(source, h);
}

/* --- common points --------------------------------------------------------------------------------------------- */

START_TEST(a_replica_goes_on_from_its_end) {
    struct paper p = paper(2000);
    struct paper r = replica(1600);
    expect_answer(&p, &r, by_itself, CHAIN_CONTINUE, 1600);
    expect_eq(step(&r, &p, by_itself), CHAIN_STREAM);
    r = replica(2000);
    expect_answer(&p, &r, by_itself, CHAIN_CONTINUE, 2000);
}
END_TEST

START_TEST(the_youngest_history_of_both_decides_and_the_lower_end_in_it) {
    struct paper a = paper(1000);
    promote(&a, 2);
    a.view.head += 500;
    struct paper b = a;
    promote(&a, 3);
    b.view.head += 100;
    promote(&b, 4);
    uint64_t lsn = 0;
    expect(chain_common(of(&a), of(&b), &lsn));
    expect_eq(lsn, a.chain[2].parent_end);
    expect(chain_common(of(&b), of(&a), &lsn));
    expect_eq(lsn, a.chain[2].parent_end);
    struct paper c = paper(1000);
    c.chain[0].id = 9;
    expect(!chain_common(of(&a), of(&c), &lsn));
}
END_TEST

START_TEST(a_chain_that_forgot_its_beginning_is_still_related) {
    struct paper a = paper(1000);
    promote(&a, 2);
    promote(&a, 3);
    struct paper b = a;
    memmove(b.chain, b.chain + 1, 2 * sizeof(b.chain[0]));
    b.view.count = 2;
    b.view.role = CHAIN_REPLICA;
    expect_answer(&a, &b, by_itself, CHAIN_CONTINUE, b.view.head);
    expect_eq(chain_place(of(&b), 500), CHAIN_FORGOTTEN);
    expect_eq(chain_place(of(&a), 500), CHAIN_HELD);
}
END_TEST

START_TEST(a_log_that_is_gone_or_damaged_is_copied) {
    struct paper p = paper(2000);
    struct paper r = replica(1600);
    struct chain_local gone = {.oldest = 1601};
    expect_eq(chain_answer(of(&p), of(&r), by_itself, &gone).verdict, CHAIN_COPY);
    gone.oldest = 1600;
    expect_eq(chain_answer(of(&p), of(&r), by_itself, &gone).verdict, CHAIN_CONTINUE);
    struct chain_answer copy = ask(&p, &r, (struct chain_ask){.damaged = true});
    expect_eq(copy.verdict, CHAIN_COPY);
    expect_eq(chain_step(of(&r), by_itself, of(&p), &copy), CHAIN_TAKE_COPY);
}
END_TEST

START_TEST(chains_that_cannot_be_are_known) {
    struct paper a = paper(1000);
    promote(&a, 2);
    expect(chain_is_sane(of(&a)));
    struct paper b = a;
    b.view.head = b.chain[1].start;
    expect(!chain_is_sane(of(&b)));
    b = a;
    b.chain[1].start = 100;
    expect(!chain_is_sane(of(&b)));
    b = a;
    b.chain[1].epoch = 0;
    expect(!chain_is_sane(of(&b)));
    b = a;
    b.view.epoch = 1;
    expect(!chain_is_sane(of(&b)));
    b = a;
    b.chain[0].id = 0;
    expect(!chain_is_sane(of(&b)));
    b = a;
    b.chain[1].parent_end = b.chain[1].start + 1;
    expect(!chain_is_sane(of(&b)));
    b = no_data(CHAIN_REPLICA);
    expect(chain_is_sane(of(&b)));
}
END_TEST

START_TEST(a_source_may_be_a_copy_itself) {
    struct paper behind = replica(1200);
    struct paper r = replica(1600);
    expect_answer(&behind, &r, by_itself, CHAIN_PEER_IS_AHEAD, 1200); /* it will come */
    expect_eq(step(&r, &behind, by_itself), CHAIN_COME_AGAIN);
    struct paper nothing = no_data(CHAIN_REPLICA);
    expect_eq(ask(&nothing, &r, explicitly).verdict, CHAIN_LATER);
    struct paper fresh = no_data(CHAIN_REPLICA);
    expect_eq(ask(&nothing, &fresh, explicitly).verdict, CHAIN_LATER);
}
END_TEST

/* What a branch holds isn't given up for a copy that may still receive that branch. */
START_TEST(a_copy_lets_a_higher_peer_wait) {
    struct paper r2 = replica(1000);
    promote(&r2, 2);
    r2.view.role = CHAIN_REPLICA;
    struct paper middle = replica(1000);
    struct chain_answer a = ask(&middle, &r2, explicitly);
    expect_eq(a.verdict, CHAIN_LATER);
    expect_eq(chain_step(of(&r2), explicitly, of(&middle), &a), CHAIN_COME_AGAIN);
}
END_TEST

START_TEST(an_answer_that_contradicts_the_views_is_not_followed) {
    struct paper p = paper(2000);
    struct paper r = replica(1600);
    struct chain_answer a = {.verdict = CHAIN_REWIND, .lsn = 1000};
    expect_eq(chain_step(of(&r), by_itself, of(&p), &a), CHAIN_NONSENSE);
    a = (struct chain_answer){.verdict = CHAIN_CONTINUE, .lsn = 1599};
    expect_eq(chain_step(of(&r), by_itself, of(&p), &a), CHAIN_NONSENSE);
    struct paper other = paper(5000);
    other.chain[0].id = 9;
    a = (struct chain_answer){.verdict = CHAIN_COPY};
    expect_eq(chain_step(of(&r), by_itself, of(&other), &a), CHAIN_NONSENSE);
    expect_eq(chain_step(of(&r), explicitly, of(&other), &a), CHAIN_TAKE_COPY);
    a = (struct chain_answer){.verdict = CHAIN_RAISE_FIRST};
    expect_eq(chain_step(of(&r), by_itself, of(&p), &a), CHAIN_NONSENSE);
}
END_TEST

/* --- hazards --------------------------------------------------------------------------------------------------- */

START_TEST(test_h1_a_fork_at_an_unclean_open_is_not_continued_silently) {
    struct paper p = paper(1000);
    fork_as(&p, CHAIN_UNCLEAN, 2, 9);
    expect_eq(p.chain[1].start, 1000 + J);
    expect_eq(p.chain[1].epoch, 1);
    struct paper r = replica(1600);
    expect_answer(&p, &r, by_itself, CHAIN_REWIND, 1000);
    expect_eq(step(&r, &p, by_itself), CHAIN_CUT);
    r = replica(1000); /* it has been cut */
    expect_answer(&p, &r, by_itself, CHAIN_CONTINUE, 1000);
}
END_TEST

START_TEST(test_h1_the_same_lsn_with_other_bytes_is_refused) {
    struct paper p = paper(1700);
    struct paper r = replica(1600);
    struct chain_local differs = {.hash_differs = true};
    expect(chain_holds(of(&p), 1600, 1));
    expect_eq(chain_answer(of(&p), of(&r), by_itself, &differs).verdict, CHAIN_REFUSE);
    expect_eq(chain_answer(of(&p), of(&r), explicitly, &differs).verdict, CHAIN_COPY);
}
END_TEST

START_TEST(test_h1_a_primary_that_goes_on_where_a_peer_has_more_forks_first) {
    struct paper p = paper(1000);
    struct paper r = replica(1600);
    expect_eq(ask(&p, &r, by_itself).verdict, CHAIN_RAISE_FIRST);
    raise_above(&p, &r, 2);
    expect(p.chain[1].start > 1600);
    expect_answer(&p, &r, by_itself, CHAIN_REWIND, 1000);
    p = paper(1000);
    p.view.role = CHAIN_FENCED; /* a fence isn't lifted by that */
    expect_answer(&p, &r, by_itself, CHAIN_PEER_IS_AHEAD, 1000);
}
END_TEST

static struct chain_peer answered(struct paper *n) {
    return (struct chain_peer){.contact = CHAIN_ANSWERED, .view = *of(n)};
}

START_TEST(test_h2_a_primary_back_from_a_power_cut_pulls_what_it_lost) {
    struct paper p = paper(1000);
    p.view.role = CHAIN_PULLING;
    struct paper r1 = replica(1500);
    struct paper r2 = replica(1600);
    struct chain_peer peers[2] = {answered(&r1), {.contact = CHAIN_SILENT}};
    struct chain_pull pull = chain_pull(of(&p), peers, 2, CHAIN_FOR_ALL, false);
    expect_eq(pull.step, CHAIN_PULL_WAIT); /* the other may have more */
    peers[1] = answered(&r2);
    pull = chain_pull(of(&p), peers, 2, CHAIN_FOR_ALL, false);
    expect_eq(pull.step, CHAIN_PULL_FROM);
    expect_eq(pull.index, 1);
    p.view.head = 1600; /* pulled */
    pull = chain_pull(of(&p), peers, 2, CHAIN_FOR_ALL, false);
    expect_eq(pull.step, CHAIN_PULL_GO_ON);
    expect_eq(pull.missing, 0);
    /* Meanwhile a replica is told that it has more, or to wait. */
    p.view.head = 1000;
    expect_answer(&p, &r1, by_itself, CHAIN_PEER_IS_AHEAD, 1000);
    struct paper r3 = replica(900);
    expect_eq(ask(&p, &r3, by_itself).verdict, CHAIN_LATER);
}
END_TEST

START_TEST(test_h2_a_peer_that_cannot_be_reached_holds_writes_for_a_bounded_time) {
    struct paper p = paper(1000);
    p.view.role = CHAIN_PULLING;
    struct paper r1 = replica(1500);
    struct chain_peer peers[2] = {{.contact = CHAIN_UNREACHABLE}, answered(&r1)};
    expect_eq(chain_pull(of(&p), peers, 2, CHAIN_FOR_ALL, false).step, CHAIN_PULL_WAIT);
    struct chain_pull pull = chain_pull(of(&p), peers, 2, CHAIN_TIME_IS_UP, false);
    expect_eq(pull.step, CHAIN_PULL_FROM);
    expect_eq(pull.index, 1);
    peers[1].spent = true; /* it went away meanwhile */
    pull = chain_pull(of(&p), peers, 2, CHAIN_TIME_IS_UP, false);
    expect_eq(pull.step, CHAIN_PULL_GO_ON);
    expect_eq(pull.missing, 2); /* what that one has is lost, too */
    expect_eq(chain_pull(of(&p), peers, 2, CHAIN_FOR_ONE, false).step, CHAIN_PULL_GO_ON);
    expect_eq(chain_pull(of(&p), peers, 1, CHAIN_FOR_ONE, false).step, CHAIN_PULL_WAIT);
    peers[0].contact = CHAIN_SILENT; /* it may be the new primary, and answer a moment later */
    expect_eq(chain_pull(of(&p), peers, 2, CHAIN_FOR_ONE, false).step, CHAIN_PULL_WAIT);
    expect_eq(chain_pull(of(&p), NULL, 0, CHAIN_FOR_ALL, false).step, CHAIN_PULL_GO_ON);
}
END_TEST

START_TEST(a_pull_is_given_to_who_has_nothing_else) {
    struct paper r = replica(1600);
    struct paper p = paper(1000);
    p.view.role = CHAIN_PULLING;
    p.view.epoch = 7; /* what it has seen doesn't matter */
    struct chain_answer a = chain_answer_pull(of(&r), of(&p), &whole_log);
    expect_eq(a.verdict, CHAIN_CONTINUE);
    expect_eq(a.lsn, 1000);
    struct chain_local gone = {.oldest = 1200};
    expect_eq(chain_answer_pull(of(&r), of(&p), &gone).verdict, CHAIN_COPY);
    struct chain_local other = {.oldest = 1200, .hash_differs = true};
    expect_eq(chain_answer_pull(of(&r), of(&p), &other).verdict, CHAIN_REFUSE);
    p.view.head = 1700;
    expect_eq(chain_answer_pull(of(&r), of(&p), &whole_log).verdict, CHAIN_REFUSE);
    expect_eq(chain_answer_pull(of(&r), of(&p), &gone).verdict, CHAIN_REFUSE);
}
END_TEST

START_TEST(test_h2_back_behind_a_failover_it_follows_or_is_fenced) {
    struct paper r = replica(1000);
    promote(&r, 2);
    struct paper p = paper(1000);
    p.view.role = CHAIN_PULLING;
    struct chain_peer peer[2] = {answered(&r), {.contact = CHAIN_SILENT}};
    struct chain_pull pull = chain_pull(of(&p), peer, 2, CHAIN_FOR_ALL, false);
    expect_eq(pull.step, CHAIN_PULL_FOLLOW); /* at once: it loses nothing by it */
    p.view.head = 1010;
    expect_eq(chain_pull(of(&p), peer, 2, CHAIN_FOR_ALL, false).step, CHAIN_PULL_FENCE);
    /* Its primary isn't to be seen; but there was one. Who is chosen pulls that branch and goes above it. */
    struct paper left = r;
    left.view.role = CHAIN_REPLICA;
    p.view.head = 1000;
    peer[0] = answered(&left);
    expect_eq(chain_pull(of(&p), peer, 1, CHAIN_FOR_ALL, false).step, CHAIN_PULL_FENCE);
    struct paper longer = replica(9000); /* on the older branch */
    peer[1] = answered(&longer);
    pull = chain_pull(of(&p), peer, 2, CHAIN_FOR_ALL, true);
    expect_eq(pull.step, CHAIN_PULL_FROM);
    expect_eq(pull.index, 0);
    expect_eq(pull.epoch, 2);
}
END_TEST

START_TEST(test_h5_a_position_of_a_lost_tail_is_lost_in_failover) {
    struct paper r = replica(1000);
    promote(&r, 2);
    expect_eq(chain_place(of(&r), 1000), CHAIN_HELD);
    expect_eq(chain_place(of(&r), 1001), CHAIN_LOST);
    expect_eq(chain_place(of(&r), 1200), CHAIN_LOST);
    expect_eq(chain_place(of(&r), r.chain[1].start), CHAIN_LOST);
    expect_eq(chain_place(of(&r), r.chain[1].start + 1), CHAIN_HELD);
    expect_eq(chain_place(of(&r), r.view.head + 1), CHAIN_AHEAD);
    struct paper nothing = no_data(CHAIN_REPLICA);
    expect_eq(chain_place(of(&nothing), 1200), CHAIN_AHEAD);
}
END_TEST

/* Two that fork from one end: no LSN is given by both. */
START_TEST(test_h5_branches_of_one_end_lie_apart) {
    struct paper p = paper(1000), a = p, b = p;
    fork_as(&p, CHAIN_UNCLEAN, 2, 1);
    fork_as(&a, CHAIN_PROMOTION, 3, 0);
    fork_as(&b, CHAIN_PROMOTION, 4, CHAIN_REGION - 3 * J - 1);
    expect_eq(p.chain[1].start, 1000 + J);
    expect_eq(a.chain[1].start, 2 * CHAIN_REGION + 2 * J);
    expect_eq(b.chain[1].start, 3 * CHAIN_REGION - J - 1);
    promote(&a, 5); /* the higher epoch has the higher LSN, whatever was drawn */
    expect(a.chain[2].start > b.chain[1].start + J);
    struct paper far = paper(7 * CHAIN_REGION);
    promote(&far, 6);
    expect(far.chain[1].start > far.chain[1].parent_end + J);
    struct paper end = paper(LSN_MAX - J);
    struct history h;
    expect_eq(chain_fork(of(&end), CHAIN_PROMOTION, 5, 0, &h), DC_ELIMIT);
}
END_TEST

START_TEST(test_h9_half_a_frame_is_no_tail) {
    /* The last whole frame ended at 1000; half of another had come. The head of a view is the end of a whole frame. */
    struct paper promoted = replica(1000);
    promote(&promoted, 2);
    struct paper other = replica(1000);
    expect_answer(&promoted, &other, by_itself, CHAIN_CONTINUE, 1000);
    other = replica(1100); /* it has the frame whole: a tail for the promoted one */
    expect_answer(&promoted, &other, by_itself, CHAIN_REWIND, 1000);
}
END_TEST

START_TEST(test_h10_two_failovers_from_one_end_need_no_copy) {
    struct paper r1 = replica(1000);
    struct paper r2 = replica(1000);
    promote(&r1, 2);
    r1.view.head += 100;
    struct history h3;
    r2.view.epoch = 2; /* it had heard of the first one */
    expect_eq(chain_fork(of(&r2), CHAIN_PROMOTION, 3, 8, &h3), DC_OK);
    expect_eq(h3.epoch, 3);
    begin(&r2, h3);
    r1.view.role = CHAIN_REPLICA;
    expect_answer(&r2, &r1, explicitly, CHAIN_REWIND, 1000);
    expect_answer(&r2, &r1, by_itself, CHAIN_REWIND, 1000);
    r1.view.count = chain_cut(r1.chain, r1.view.count, 1000);
    expect_eq(r1.view.count, 1);
    r1.view.head = 1000;
    expect_answer(&r2, &r1, explicitly, CHAIN_CONTINUE, 1000);
}
END_TEST

START_TEST(test_h50_a_cut_tells_what_is_left_of_chain_and_snapshots) {
    struct paper r = replica(1000);
    promote(&r, 2);
    r.view.head += 100;
    promote(&r, 3);
    uint64_t fork = r.chain[2].parent_end;
    expect_eq(chain_cut(r.chain, 3, fork), 2);
    expect_eq(chain_cut(r.chain, 3, r.chain[1].start), 1); /* not one frame of it is left */
    expect_eq(chain_cut(r.chain, 3, 100), 0);
    struct paper cut = r;
    cut.view.count = 2;
    cut.view.head = fork;
    expect(chain_holds(of(&cut), 900, 1));
    expect(chain_holds(of(&cut), fork, 2));
    expect(!chain_holds(of(&cut), 1001, 1)); /* a snapshot of the lost tail is foreign */
    expect(!chain_holds(of(&cut), r.view.head, 3));
}
END_TEST

START_TEST(test_h51_a_replica_from_a_drill_gives_up_its_branch) {
    struct paper p = paper(1000);
    struct paper r = replica(1000);
    promote(&r, 2);
    r.view.head += 900;
    r.view.role = CHAIN_REPLICA;                             /* REPLICAOF production */
    expect_eq(ask(&p, &r, by_itself).verdict, CHAIN_REFUSE); /* not without an order */
    expect_eq(step(&r, &p, by_itself), CHAIN_STAY);
    expect_eq(ask(&p, &r, explicitly).verdict, CHAIN_RAISE_FIRST);
    raise_above(&p, &r, 5);
    expect_eq(p.chain[1].epoch, 3);
    expect(p.chain[1].start > r.view.head); /* Sentinel goes by LSNs */
    expect_eq(p.view.role, CHAIN_PRIMARY);
    expect_answer(&p, &r, explicitly, CHAIN_REWIND, 1000);
    expect_eq(step(&r, &p, explicitly), CHAIN_CUT);
    /* Who followed the drill comes along by itself. */
    struct paper behind = r;
    expect_answer(&p, &behind, by_itself, CHAIN_REWIND, 1000);
}
END_TEST

START_TEST(test_h51_a_drill_fences_nobody_who_does_not_ask) {
    struct paper p = paper(1000);
    struct paper r = replica(1000);
    promote(&r, 2);
    r.view.role = CHAIN_REPLICA;
    expect(!chain_may_fence(of(&p), of(&r))); /* it attaches; it is no primary any more */
    r.view.linked = true;
    expect(chain_may_fence(of(&p), of(&r))); /* it follows one of that branch */
    expect(chain_is_challenged(of(&p), of(&r)));
    p.view.role = CHAIN_REPLICA;
    expect(!chain_is_challenged(of(&p), of(&r))); /* somebody else's business */
}
END_TEST

START_TEST(test_h52_a_replica_refuses_to_copy_emptiness) {
    struct paper p = emptied();
    struct paper r = replica(1600);
    expect_eq(ask(&p, &r, by_itself).reason, CHAIN_BY_SOURCE_EMPTY);
    expect_eq(ask(&p, &r, by_itself).verdict, CHAIN_REFUSE);
    expect_eq(ask(&p, &r, explicitly).verdict, CHAIN_REFUSE);
    expect_eq(ask(&p, &r, forced).verdict, CHAIN_COPY);
    struct chain_answer lie = {.verdict = CHAIN_COPY};
    expect_eq(chain_step(of(&r), explicitly, of(&p), &lie), CHAIN_NONSENSE);
    expect_eq(chain_step(of(&r), forced, of(&p), &lie), CHAIN_TAKE_COPY);
    p.view.empty = false; /* somebody has written to it meanwhile */
    expect_eq(ask(&p, &r, by_itself).verdict, CHAIN_REFUSE);
    expect_eq(ask(&p, &r, explicitly).verdict, CHAIN_COPY);
    r.view.epoch = 2; /* its cluster has seen a failover: the emptied one hasn't, whoever orders */
    expect_eq(ask(&p, &r, explicitly).verdict, CHAIN_REFUSE);
    expect_eq(ask(&p, &r, forced).verdict, CHAIN_COPY);
    struct paper fresh = no_data(CHAIN_REPLICA);
    expect_eq(ask(&p, &fresh, by_itself).verdict, CHAIN_COPY);
    struct paper old = emptied(); /* the emptied one attaches itself */
    old.view.role = CHAIN_REPLICA;
    struct paper full = paper(1600);
    expect_eq(ask(&full, &old, by_itself).verdict, CHAIN_COPY);
}
END_TEST

START_TEST(test_h53_of_two_primaries_of_one_epoch_one_fences_itself) {
    struct paper a = replica(1000);
    struct paper b = replica(1000);
    promote(&a, 2);
    promote(&b, 3);
    expect_eq(a.chain[1].epoch, b.chain[1].epoch);
    expect(chain_may_fence(of(&a), of(&b)));
    expect(chain_is_challenged(of(&a), of(&b)));
    expect(!chain_may_fence(of(&b), of(&a)));
    expect(!chain_may_fence(of(&a), of(&a)));
    b.view.role = CHAIN_FENCED; /* no current primary */
    expect(!chain_may_fence(of(&a), of(&b)));
    struct paper other = replica(1000);
    other.chain[0].id = 9;
    promote(&other, 8);
    expect(!chain_may_fence(of(&a), of(&other))); /* no kin */
    /* Lineage counts before ids: a descendant of the same epoch is higher, whatever its id. */
    struct paper p = paper(1000);
    p.chain[0].id = 50;
    struct paper child = p;
    fork_as(&child, CHAIN_UNCLEAN, 2, 0);
    expect(chain_may_fence(of(&p), of(&child)));
    expect(!chain_may_fence(of(&child), of(&p)));
    struct paper r = p;
    r.view.role = CHAIN_REPLICA;
    expect_answer(&child, &r, by_itself, CHAIN_CONTINUE, 1000);
}
END_TEST

/* What a replica acknowledges for one primary and then for another must not have one epoch. */
START_TEST(test_h53_who_leaves_a_branch_of_the_same_epoch_makes_the_other_one_higher) {
    struct paper lower = replica(1000), higher = replica(1000);
    promote(&lower, 2);
    promote(&higher, 3);
    struct paper r = lower;
    r.view.role = CHAIN_REPLICA;
    expect_answer(&higher, &r, by_itself, CHAIN_REWIND, 1000);
    expect_eq(ask(&higher, &r, explicitly).verdict, CHAIN_RAISE_FIRST);
    higher.view.role =
        CHAIN_FENCED; /* it acknowledges nothing, and its fence isn't ended by this */
    expect_answer(&higher, &r, explicitly, CHAIN_REWIND, 1000);
    higher.view.role = CHAIN_PRIMARY;
    raise_above(&higher, &r, 5);
    expect(higher.chain[higher.view.count - 1].epoch > lower.chain[1].epoch);
    expect_answer(&higher, &r, explicitly, CHAIN_REWIND, 1000);
    struct paper innocent = replica(1000); /* who has nothing of the other branch */
    expect_answer(&higher, &innocent, explicitly, CHAIN_CONTINUE, 1000);
}
END_TEST

START_TEST(test_h53_the_order_of_fences) {
    struct chain_rank a = {2, 9}, b = {3, 1}, c = {3, 2};
    expect(chain_compare(a, b) < 0 && chain_compare(c, b) > 0 && chain_compare(b, b) == 0);
}
END_TEST

START_TEST(test_h54_without_evidence_a_primary_goes_on) {
    struct paper p = paper(1000);
    struct paper r = replica(1000);
    expect(!chain_may_fence(of(&p), of(&r)));
    struct chain_peer silent = {.contact = CHAIN_SILENT};
    struct chain_pull pull = chain_pull(of(&p), &silent, 1, CHAIN_TIME_IS_UP, false);
    expect_eq(pull.step, CHAIN_PULL_GO_ON);
    expect_eq(pull.missing, 1);
}
END_TEST

START_TEST(a_fence_ends_with_a_promotion_or_when_the_higher_one_gives_way) {
    struct paper p = paper(1000);
    p.view.role = CHAIN_FENCED;
    p.view.epoch = 2;
    struct history h;
    expect_eq(chain_fork(of(&p), CHAIN_PROMOTION, 7, 1, &h), DC_OK);
    expect_eq(h.epoch, 3);
    struct paper r = replica(1000);
    promote(&r, 2);
    r.view.role = CHAIN_REPLICA;
    expect_eq(ask(&p, &r, by_itself).verdict, CHAIN_REFUSE);
    expect_eq(ask(&p, &r, explicitly).verdict, CHAIN_RAISE_FIRST);
    struct paper innocent = replica(1000);
    expect_answer(&p, &innocent, explicitly, CHAIN_CONTINUE, 1000); /* feeds, and stays fenced */
    struct paper more = replica(1010); /* of the history in which the fenced one lost its end */
    promote(&more, 4);
    more.view.role = CHAIN_REPLICA;
    expect_answer(&p, &more, explicitly, CHAIN_PEER_IS_AHEAD, 1000);
}
END_TEST

CHECK_MAIN(
    "chain", a_replica_goes_on_from_its_end,
    the_youngest_history_of_both_decides_and_the_lower_end_in_it,
    a_chain_that_forgot_its_beginning_is_still_related, a_log_that_is_gone_or_damaged_is_copied,
    chains_that_cannot_be_are_known, a_source_may_be_a_copy_itself, a_copy_lets_a_higher_peer_wait,
    an_answer_that_contradicts_the_views_is_not_followed,
    test_h1_a_fork_at_an_unclean_open_is_not_continued_silently,
    test_h1_the_same_lsn_with_other_bytes_is_refused,
    test_h1_a_primary_that_goes_on_where_a_peer_has_more_forks_first,
    test_h2_a_primary_back_from_a_power_cut_pulls_what_it_lost,
    test_h2_a_peer_that_cannot_be_reached_holds_writes_for_a_bounded_time,
    a_pull_is_given_to_who_has_nothing_else, test_h2_back_behind_a_failover_it_follows_or_is_fenced,
    test_h5_a_position_of_a_lost_tail_is_lost_in_failover, test_h5_branches_of_one_end_lie_apart,
    test_h9_half_a_frame_is_no_tail, test_h10_two_failovers_from_one_end_need_no_copy,
    test_h50_a_cut_tells_what_is_left_of_chain_and_snapshots,
    test_h51_a_replica_from_a_drill_gives_up_its_branch,
    test_h51_a_drill_fences_nobody_who_does_not_ask, test_h52_a_replica_refuses_to_copy_emptiness,
    test_h53_of_two_primaries_of_one_epoch_one_fences_itself,
    test_h53_who_leaves_a_branch_of_the_same_epoch_makes_the_other_one_higher,
    test_h53_the_order_of_fences, test_h54_without_evidence_a_primary_goes_on,
    a_fence_ends_with_a_promotion_or_when_the_higher_one_gives_way)
